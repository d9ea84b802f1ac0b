/* Children that no parent would wish for: `hostile GATE WHAT [ARG...]`.
 *
 * GATE is the name of an abstract unix socket (unix(7)), or "-".  There the child says how far it
 * is, a byte a step (`say`), and waits to be let on (`go`).  The table at the end has what it may be.
 * Byte i that is written to fd f is (7 * i + f) % 251, as in say.c.  Exit code 100: a step went wrong
 * that should not; 101: the kernel refuses what is to be tried.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { GATE = 8, AWAY = 7, BLOCK = 251 * 256 };

static unsigned char block[2 * BLOCK], patterns[3][2 * BLOCK];
static char **arguments;

static void must(int holds)
{
    if (!holds)
        _exit(100);
}

static void refused_unless(int holds)
{
    if (!holds)
        _exit(101);
}

static void meet(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(at.sun_path + 1, name, strlen(name));
    must(connect(fd, (void *)&at, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) == 0);
    must(dup2(fd, GATE) == GATE);
    close(fd);
}

static void say(char word)
{
    must(send(GATE, &word, 1, MSG_NOSIGNAL) == 1);
}

static int go(void)
{
    char word;
    return read(GATE, &word, 1) == 1;
}

static void write_all(int fd, const void *bytes, size_t size)
{
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
            continue;
        }
        must(written > 0);
        bytes = (const char *)bytes + written;
        size -= written;
    }
}

/* The pattern of fd, from its byte `at` on; as much as a BLOCK is there. */
static unsigned char *pattern(int fd, long long at)
{
    unsigned char *bytes = patterns[fd];
    if (!bytes[1])
        for (int i = 0; i < 2 * BLOCK; i++)
            bytes[i] = (7 * i + fd) % 251;
    return bytes + at % 251;
}

static void ignore_all(void)
{
    sigset_t all;
    for (int number = 1; number < 65; number++)
        signal(number, SIG_IGN);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
}

/* Writes to 1 and 2 in turn until it is let on, never reads, and tells how much that was. */
static int flood(const char *how, int number)
{
    struct pollfd let_on = {.fd = GATE, .events = POLLIN};
    long long done = 0;
    do {
        for (int fd = 1; fd <= 2; fd++)
            write_all(fd, pattern(fd, done), 65536);
        done += 65536;
    } while (poll(&let_on, 1, 0) == 0);
    dprintf(GATE, "%lld", done);
    return 0;
}

static int close_each(const char *how, int number)
{
    for (; *how; how++)
        close(*how - '0');
    say('c');
    go();
    return 5;
}

/* Answers for as long as it is asked, whatever signals come. */
static int be_stubborn(const char *how, int number)
{
    ignore_all();
    say('s');
    while (go())
        say('!');
    return 7;
}

static int be_silent(const char *how, int number)
{
    ignore_all();
    say('s');
    while (pause() < 0)
        ;
    return 100;
}

static int stop_itself(const char *how, int number)
{
    if (!strcmp(how, "told"))
        dprintf(GATE, "%d", getpid());
    must(kill(getpid(), SIGSTOP) == 0);
    write_all(1, "on", 2);
    return 5;
}

/* Leaves a grandchild, which has all that it had. */
static int leave_one(const char *how, int number)
{
    signal(SIGHUP, SIG_IGN); /* of a terminal whose session's leader has ended */
    if (fork())
        return 3;
    say('g');
    go();
    write_all(1, "late", 4);
    return 0;
}

/* Leaves one that is in no relation to it. */
static int leave_a_daemon(const char *how, int number)
{
    pid_t middle = fork();
    if (middle) {
        must(waitpid(middle, NULL, 0) == middle);
        return 3;
    }
    setsid();
    if (fork())
        _exit(0);
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    dprintf(GATE, "%d\n", getpid());
    while (go())
        say('!');
    return 9;
}

static int drip(const char *how, int number)
{
    for (int i = 0; i < number; i++)
        must(write(1, pattern(1, i), 1) == 1);
    return 0;
}

/* Against the direction of its pipes: by the fds that it has, and by fds that it opens to them. */
static int go_the_wrong_way(const char *how, int number)
{
    char got[8];
    say(write(0, "x", 1) < 0 ? errno : 0);
    say(read(1, got, 1) < 0 ? errno : 0);
    int into_0 = open(PROC "/self/fd/0", O_WRONLY), out_of_1 = open(PROC "/self/fd/1", O_RDONLY);
    refused_unless(into_0 >= 0 && out_of_1 >= 0);
    write_all(into_0, "mine", 4);
    must(read(0, got, 8) == 4);
    say('r');
    must(!go());
    return 0;
}

static int echo(void)
{
    for (;;) {
        ssize_t size = read(0, block, 3000);
        if (size < 0 && errno == EAGAIN) {
            struct pollfd input = {.fd = 0, .events = POLLIN};
            poll(&input, 1, -1);
            continue;
        }
        must(size >= 0);
        if (!size)
            return 0;
        write_all(1, block, size);
    }
}

static int resize_and_echo(const char *how, int number)
{
    for (int fd = 0; fd < 3; fd++)
        must(fcntl(fd, F_SETPIPE_SZ, number) >= number);
    say('r');
    return echo();
}

/* All that can be done to an open file: the other end has one of its own. */
static int set_flags_and_echo(const char *how, int number)
{
    for (int fd = 0; fd < 3; fd++) {
        must(fcntl(fd, F_SETOWN, getppid()) == 0);
        must(fcntl(fd, F_SETSIG, SIGURG) == 0);
        must(fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) == 0);
        must(flock(fd, LOCK_EX | LOCK_NB) == 0);
        must(fcntl(fd, F_SETLEASE, F_WRLCK) < 0);
    }
    say('f');
    return echo();
}

/* A pipe that keeps writes apart (O_DIRECT, pipe(7)): a read that is too small loses the rest. */
static int send_packets(const char *how, int number)
{
    int size = atoi(how);
    refused_unless(fcntl(1, F_SETPIPE_SZ, 1 << 20) >= 1 << 20);
    must(fcntl(1, F_SETFL, O_DIRECT) == 0);
    for (int i = 0; i < number; i++)
        must(write(1, pattern(1, (long long)i * size), size) == size);
    return 0;
}

/* Gives the kernel its page instead of a copy, and changes the page. */
static int give_a_page(const char *how, int number)
{
    static char page[4096] __attribute__((aligned(4096)));
    struct iovec gift = {.iov_base = page, .iov_len = sizeof page};
    memset(page, 'a', sizeof page);
    must(vmsplice(1, &gift, 1, 0) == sizeof page);
    memset(page, 'b', sizeof page);
    say('b');
    go();
    return 0;
}

static int signal_its_parent(const char *how, int number)
{
    static const int harmless[] = {SIGCHLD, SIGCONT, SIGWINCH, SIGURG, SIGUSR1};
    for (int round = 0; round < number; round++) {
        for (int i = 0; i < 5; i++)
            must(kill(getppid(), harmless[i]) == 0 && (i == 4 || kill(0, harmless[i]) == 0));
        write_all(1, pattern(1, round), 1);
    }
    return 0;
}

static int stop_its_parent(const char *how, int number)
{
    char name[64], stat[512] = "";
    snprintf(name, sizeof name, PROC "/%d/stat", getppid());
    int fd = open(name, O_RDONLY);
    refused_unless(fd >= 0); /* nobody would know when to go on */
    must(kill(getppid(), SIGSTOP) == 0);
    while (pread(fd, stat, sizeof stat - 1, 0) > 0 && strrchr(stat, ')')[2] != 'T')
        sched_yield();
    write_all(1, "meanwhile", 9);
    must(kill(getppid(), SIGCONT) == 0);
    return 5;
}

/* Writes from a page that never comes.  While a write waits for its data, nobody can read: both hold
 * the lock of the pipe, which they wait for even where a read is not to wait. */
static int hold_its_pipe(const char *how, int number)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct pollfd fault = {.fd = syscall(SYS_userfaultfd, O_CLOEXEC), .events = POLLIN};
    refused_unless(fault.fd >= 0 && ioctl(fault.fd, UFFDIO_API, &api) == 0);
    char *page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register missing = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    missing.range = (struct uffdio_range){.start = (uintptr_t)page, .len = 65536};
    refused_unless(ioctl(fault.fd, UFFDIO_REGISTER, &missing) == 0);
    if (fork() == 0) { /* tells when it is so far, and keeps the fd open */
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        must(poll(&fault, 1, -1) == 1);
        say('h');
        go();
        return 0;
    }
    write_all(1, "x", 1); /* something is there to be read */
    write_all(1, page, 4096);
    return 0;
}

/* Sends 0, 1 and 2 to whoever has the other end of its unix socket. */
static int send_away(const char *how, int number)
{
    char nothing = 0, room[CMSG_SPACE(3 * sizeof(int))];
    struct iovec data = {.iov_base = &nothing, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(3 * sizeof(int));
    memcpy(CMSG_DATA(rights), (int[]){0, 1, 2}, 3 * sizeof(int));
    must(sendmsg(AWAY, &message, 0) == 1);
    return 3;
}

static void make_raw(void)
{
    struct termios modes;
    must(tcgetattr(0, &modes) == 0);
    cfmakeraw(&modes);
    must(tcsetattr(0, TCSANOW, &modes) == 0);
}

static int use_terminal(const char *how, int number)
{
    char got[65536];
    if (!strcmp(how, "leave")) { /* for good */
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        go();
        return 5;
    }
    ignore_all();
    if (!strcmp(how, "reopen")) {
        int again = open("/dev/tty", O_RDWR);
        must(again >= 0);
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        say('c');
        go();
        write_all(again, "again", 5);
    } else if (!strcmp(how, "hang up")) {
        refused_unless(vhangup() == 0);
        say('h');
        go();
    } else if (!strcmp(how, "give up")) { /* as its session's own; the fds stay */
        must(ioctl(0, TIOCNOTTY) == 0);
        say('n');
        go();
        write_all(1, "still", 5);
    } else if (!strcmp(how, "type")) { /* what its own user did not */
        refused_unless(ioctl(0, TIOCSTI, "x") == 0 && ioctl(0, TIOCSTI, "\n") == 0);
        must(read(0, got, sizeof got) == 2);
    } else if (!strcmp(how, "flood")) {
        make_raw();
        for (long done = 0; done < number; done += 4096)
            write_all(1, pattern(1, done), 4096);
    } else if (!strcmp(how, "ignore")) { /* what is typed */
        make_raw();
        say('i');
        go();
    } else if (!strcmp(how, "line")) {
        say('l');
        go();
        dprintf(GATE, "%zd", read(0, got, sizeof got));
    }
    return 5;
}

static int be_odd(const char *how, int number)
{
    if (!strcmp(how, "undumpable"))
        must(prctl(PR_SET_DUMPABLE, 0) == 0);
    else if (!strcmp(how, "renamed"))
        must(prctl(PR_SET_NAME, ") Z 1 (\n") == 0);
    else if (!strcmp(how, "subreaper"))
        must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    else if (!strcmp(how, "unshared"))
        refused_unless(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET) == 0);
    else if (!strcmp(how, "in a user namespace"))
        refused_unless(unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0);
    else if (!strcmp(how, "chrooted"))
        refused_unless(chroot(PROC "/self/fd") == 0 && chdir("/") == 0);
    else if (!strcmp(how, "another user"))
        refused_unless(setgid(65534) == 0 && setuid(65534) == 0);
    else if (!strcmp(how, "a leader"))
        must(setsid() > 0);
    else if (!strcmp(how, "idle"))
        refused_unless(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) == 0);
    write_all(1, how, strlen(how));
    return 6;
}

/* Its parent becomes its tracer, which never asked for it and lets it on at no stop. */
static int be_traced(const char *how, int number)
{
    refused_unless(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    dprintf(GATE, "%d", getpid());
    if (!strcmp(how, "leave")) /* its pipes, before it stops */
        for (int fd = 0; fd < 3; fd++)
            close(fd);
    else
        write_all(1, how, strlen(how));
    if (strcmp(how, "exit"))
        kill(getpid(), SIGUSR1);
    return 6;
}

/* Holds a process at a stop that is none of job control, for as long as it lives itself. */
static int trace(const char *how, int number)
{
    int status;
    refused_unless(ptrace(PTRACE_SEIZE, number, 0, 0) == 0);
    must(ptrace(PTRACE_INTERRUPT, number, 0, 0) == 0 && waitpid(number, &status, __WALL) == number);
    say('t');
    go();
    return 0;
}

/* Another program, and another, in the same process. */
static int exec_again(const char *how, int number)
{
    char left[16];
    if (!number)
        return 8;
    snprintf(left, sizeof left, "%d", number - 1);
    arguments[3] = left;
    execv(PROC "/self/exe", arguments);
    return 100;
}

/* Reads a byte whenever it is let; then all the rest, and tells how much was as it should be. */
static int sip(const char *how, int number)
{
    long long done = 0;
    unsigned char got[4096];
    say('s');
    while (go()) {
        must(read(0, got, 1) == 1 && got[0] == *pattern(0, done));
        say('.');
        done++;
    }
    for (ssize_t size; (size = read(0, got, sizeof got)) > 0; done += size)
        must(memcmp(got, pattern(0, done), size) == 0);
    dprintf(1, "%lld", done);
    return 0;
}

static int kill_its_group(const char *how, int number)
{
    return kill(0, number);
}

static const struct {
    const char *name;
    int (*be)(const char *how, int number);
} children[] = {
    {"flood", flood},
    {"close", close_each},
    {"stubborn", be_stubborn},
    {"silent", be_silent},
    {"stop", stop_itself},
    {"grandchild", leave_one},
    {"daemon", leave_a_daemon},
    {"drip", drip},
    {"wrong way", go_the_wrong_way},
    {"resize", resize_and_echo},
    {"flags", set_flags_and_echo},
    {"packets", send_packets},
    {"page", give_a_page},
    {"signals", signal_its_parent},
    {"stop parent", stop_its_parent},
    {"kill group", kill_its_group},
    {"hold", hold_its_pipe},
    {"send away", send_away},
    {"terminal", use_terminal},
    {"odd", be_odd},
    {"traced", be_traced},
    {"trace", trace},
    {"exec", exec_again},
    {"sip", sip},
};

int main(int argc, char **argv)
{
    if (argc < 3)
        return 100;
    arguments = argv;
    if (strcmp(argv[1], "-"))
        meet(argv[1]);
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        if (!strcmp(argv[2], children[i].name))
            return children[i].be(argc > 3 ? argv[3] : "", atoi(argv[argc - 1]));
    return 100;
}
