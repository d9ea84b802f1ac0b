/* mirror.c - a program that writes down what it was started with.
 *
 *   mirror fd [exit code]      the facts go to that fd, one per line; the exit code is 0
 *
 * Lines: "fd N device:inode" for each open fd but that one, argv and env words, and the state that a
 * spawn may set.  "SigBlk" and the like are the lines of /proc/self/status.  Where there is no /proc,
 * PROCREACTOR_TESTS_PROC names its copy; that word of the environment is not written down.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static const char proc_variable[] = "PROCREACTOR_TESTS_PROC";

/* Of this process, in static memory. */
static const char *proc_path(const char *name)
{
    static char path[512];
    const char *copy = getenv(proc_variable);
    snprintf(path, sizeof path, "%s/self/%s", copy ? copy : "/proc", name);
    return path;
}

static void write_fds(FILE *out)
{
    DIR *directory = opendir(proc_path("fd"));
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        struct stat facts;
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory) || fd == fileno(out)
            || fstat(fd, &facts) < 0)
            continue;
        fprintf(out, "fd %d %llx:%llx\n", fd, (unsigned long long)facts.st_dev,
                (unsigned long long)facts.st_ino);
    }
    if (directory)
        closedir(directory);
}

static void write_status(FILE *out)
{
    char line[8192];
    FILE *status = fopen(proc_path("status"), "r");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "Sig", 3) == 0 || strncmp(line, "Groups", 6) == 0
            || strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNewPrivs", 10) == 0)
            fputs(line, out);
    if (status)
        fclose(status);
}

static void write_limit(FILE *out, const char *name, int resource)
{
    struct rlimit limit;
    getrlimit(resource, &limit);
    fprintf(out, "limit %s %llu:%llu\n", name, (unsigned long long)limit.rlim_cur,
            (unsigned long long)limit.rlim_max);
}

static void write_process(FILE *out)
{
    char directory[4096];
    int death_signal = 0, terminal = open("/dev/tty", O_RDWR);
    uid_t real, effective, saved;
    mode_t mask = umask(0);
    prctl(PR_GET_PDEATHSIG, &death_signal);
    fprintf(out, "pid %d\nsession %d\ngroup %d\n", getpid(), getsid(0), getpgrp());
    fprintf(out, "foreground %d\n", terminal < 0 ? -1 : tcgetpgrp(terminal));
    fprintf(out, "umask %o\nnice %d\n", (unsigned)mask, getpriority(PRIO_PROCESS, 0));
    fprintf(out, "death signal %d\n", death_signal);
    fprintf(out, "directory %s\n", getcwd(directory, sizeof directory) ? directory : "?");
    getresuid(&real, &effective, &saved);
    fprintf(out, "uids %u %u %u\n", real, effective, saved);
    getresgid(&real, &effective, &saved);
    fprintf(out, "gids %u %u %u\n", real, effective, saved);
}

int main(int argc, char **argv)
{
    FILE *out = argc > 1 ? fdopen(atoi(argv[1]), "w") : NULL;
    if (!out)
        return 99;
    write_fds(out);
    for (int i = 0; i < argc; i++)
        fprintf(out, "argument %s\n", argv[i]);
    for (char **word = environ; *word; word++)
        if (strncmp(*word, proc_variable, strlen(proc_variable)) != 0)
            fprintf(out, "environment %s\n", *word);
    write_process(out);
    write_limit(out, "core", RLIMIT_CORE);
    write_limit(out, "nofile", RLIMIT_NOFILE);
    write_status(out);
    fclose(out);
    return argc > 2 ? atoi(argv[2]) : 0;
}
