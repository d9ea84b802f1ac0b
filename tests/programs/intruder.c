/* Tries to get at other processes, as the user that it is run by:
 *
 *     intruder try PID ADDRESS       each way once; a line "way errno" each, errno 0: it worked
 *     intruder storm PARENT ADDRESS SECRET DEVICE INODE PROGRAM
 *
 * A storm goes over all processes, again and again, until fd 0 ends.  It stops each that it can stop, traces
 * it, reads its memory at ADDRESS and its environment, looking for SECRET, looks for the file DEVICE
 * INODE among its fds, and lets it go on.  "x" is written once the first round is over; at the end
 * "Name N" lines: rounds, how often each way worked, and what was found that must not be:
 *
 *     parent   anything at all that worked on the process PARENT
 *     secret   SECRET, in memory or environment
 *     file     the file, among the fds
 *     beyond   an fd that is none of 0, 1 and 2
 *     early    a process that was traced, and is not PROGRAM
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char room[65536];

static int open_in(pid_t pid, const char *name, int flags)
{
    char path[64];
    snprintf(path, sizeof path, PROC "/%d/%s", pid, name);
    return open(path, flags | O_CLOEXEC);
}

static int link_in(pid_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, PROC "/%d/%s", pid, name);
    ssize_t size = readlink(path, room, sizeof room - 1);
    room[size < 0 ? 0 : size] = 0;
    return size < 0 ? -1 : 0;
}

/* How much of the file is in `room`, or -1. */
static ssize_t read_in(pid_t pid, const char *name, off_t at)
{
    int fd = open_in(pid, name, O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t size = at ? pread(fd, room, 64, at) : read(fd, room, sizeof room);
    int error = errno;
    close(fd);
    errno = error;
    return size;
}

static ssize_t read_vm(pid_t pid, char *at)
{
    struct iovec here = {room, 64}, there = {at, 64};
    return process_vm_readv(pid, &here, 1, &there, 1, 0);
}

static long get_fd(pid_t pid)
{
    long pidfd = syscall(SYS_pidfd_open, pid, 0);
    return pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, 0, 0);
}

static void say(const char *way, long result)
{
    printf("%s %d\n", way, result < 0 ? errno : 0);
}

static int try_once(pid_t pid, unsigned long address)
{
    say("signal", kill(pid, 0));
    say("memory", read_in(pid, "mem", (off_t)address));
    say("write", open_in(pid, "mem", O_WRONLY));
    say("vm", read_vm(pid, (char *)address));
    say("maps", read_in(pid, "maps", 0));
    say("environment", read_in(pid, "environ", 0));
    say("fds", open_in(pid, "fd", O_RDONLY | O_DIRECTORY));
    say("fd", link_in(pid, "fd/0"));
    say("getfd", get_fd(pid));
    say("program", link_in(pid, "exe"));
    say("directory", link_in(pid, "cwd"));
    say("root", link_in(pid, "root"));
    say("trace", ptrace(PTRACE_SEIZE, pid, 0, 0)); /* the last: the end of this program ends it */
    return fflush(stdout);
}

static struct {
    pid_t parent;
    unsigned long address;
    const char *secret;
    dev_t device;
    ino_t inode;
    const char *program;
    long rounds, stopped, opened, traced;
    long parent_open, secrets, files, beyond, early;
} storm;

static void look_for_secret(ssize_t size)
{
    if (size > 0) {
        storm.opened++;
        storm.secrets += memmem(room, (size_t)size, storm.secret, strlen(storm.secret)) != NULL;
    }
}

static void look_at_fds(pid_t pid)
{
    int fd = open_in(pid, "fd", O_RDONLY | O_DIRECTORY);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat facts;
        if (!isdigit(entry->d_name[0]))
            continue;
        storm.opened++;
        storm.beyond += atoi(entry->d_name) > 2;
        storm.files += fstatat(fd, entry->d_name, &facts, 0) == 0 && facts.st_dev == storm.device
                       && facts.st_ino == storm.inode;
    }
    if (directory)
        closedir(directory);
}

static void trace(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
        return;
    storm.traced++;
    /* One that is just ending has no program any more. */
    storm.early += link_in(pid, "exe") == 0 && strcmp(room, storm.program) != 0;
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void attack(pid_t pid)
{
    long before = storm.opened + storm.traced;
    int may_stop = kill(pid, SIGSTOP) == 0;
    storm.stopped += may_stop;
    look_for_secret(read_in(pid, "mem", (off_t)storm.address));
    look_for_secret(read_in(pid, "environ", 0));
    look_at_fds(pid);
    trace(pid);
    if (may_stop)
        kill(pid, SIGCONT);
    storm.parent_open += pid == storm.parent && (may_stop || storm.opened + storm.traced > before);
}

static void attack_all(void)
{
    DIR *processes = opendir(PROC);
    for (struct dirent *entry; (entry = readdir(processes));) {
        pid_t pid = atoi(entry->d_name);
        if (pid > 0 && pid != getpid())
            attack(pid);
    }
    closedir(processes);
}

static int rage(char **words)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    storm.parent = atoi(words[0]);
    storm.address = strtoul(words[1], NULL, 10);
    storm.secret = words[2];
    storm.device = strtoul(words[3], NULL, 10);
    storm.inode = strtoul(words[4], NULL, 10);
    storm.program = words[5];
    do {
        attack_all();
        if (storm.rounds++ == 0 && write(1, "x\n", 2) != 2)
            return 3;
    } while (poll(&input, 1, 0) == 0);
    printf("rounds %ld\nstopped %ld\nopened %ld\ntraced %ld\n", storm.rounds, storm.stopped,
           storm.opened, storm.traced);
    printf("parent %ld\nsecret %ld\nfile %ld\nbeyond %ld\nearly %ld\n", storm.parent_open,
           storm.secrets, storm.files, storm.beyond, storm.early);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "try") == 0)
        return try_once(atoi(argv[2]), strtoul(argv[3], NULL, 10));
    if (argc == 8 && strcmp(argv[1], "storm") == 0)
        return rage(argv + 2);
    return 2;
}
