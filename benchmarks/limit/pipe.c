/* pipe.c - the bare system calls for bytes to and from children: what one thread of a blocking
 * program gets out of this kernel's pipes.
 *
 *   pipe read     PIPE_BYTES BUFFER_BYTES 0      PROGRAM [ARG ...]
 *   pipe lines    PIPE_BYTES BUFFER_BYTES 0      PROGRAM [ARG ...]
 *   pipe write    PIPE_BYTES BUFFER_BYTES TOTAL  PROGRAM [ARG ...]
 *   pipe pingpong PIPE_BYTES BUFFER_BYTES ROUNDS PROGRAM [ARG ...]
 *   pipe streams  PIPE_BYTES BUFFER_BYTES COUNT  PROGRAM [ARG ...]
 *
 * prints two numbers: the seconds that it took, and the bytes, lines or rounds that were counted.
 * PIPE_BYTES is what F_SETPIPE_SZ is asked for, 0 leaves pipes as they are made (64 KiB);
 * BUFFER_BYTES is the most that one read or write moves.
 *
 * The time runs from the first spawn to the last exit that was collected; for pingpong, from the end
 * of a first round, so that exec is not in it. A child gets only the pipes that the work needs, the
 * rest of its standard streams it inherits. Anything but exit status 0 ends the program with 1.
 *
 * A child shares memory and the fd table until it takes its own copy of the lowest entries
 * (CLOSE_RANGE_UNSHARE, Linux 5.9; before, the copy is whole). So the thousandth stream is not dearer
 * to start than the first. What the child needs is put into two reserved low numbers before.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum {
    STACK_BYTES = 65536,
    EVENTS = 256,
    LOW_FD = 3,               /* and LOW_FD + 1: the child's ends on their way to it */
    ABOVE_LOW_FDS = 5,
    UNSHARE_FD_TABLE = 1 << 1 /* CLOSE_RANGE_UNSHARE */
};

struct child {
    pid_t pid;
    int stdin_fd, stdout_fd; /* ours, or -1 */
};

static int pipe_bytes, null_fd;
static size_t buffer_bytes;
static long number;
static char **child_argv;
static char *buffer;
static _Alignas(16) char stack[STACK_BYTES];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The low numbers hold /dev/null between two starts: they must not keep a pipe open. */
static void park(int fd)
{
    if (dup3(null_fd, fd, O_CLOEXEC) < 0)
        die("dup3");
}

static void reserve_low_fds(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    null_fd = fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_LOW_FDS);
    if (null_fd < 0)
        die("/dev/null");
    for (int low = LOW_FD; low < ABOVE_LOW_FDS; low++)
        park(low);
}

static int run_child(void *opaque)
{
    const int *wanted = opaque;
    if (syscall(SYS_close_range, ABOVE_LOW_FDS, ~0U, UNSHARE_FD_TABLE) < 0 &&
        unshare(CLONE_FILES) < 0)
        _exit(127);
    for (int fd = 0; fd < 2; fd++)
        if (wanted[fd] && dup2(LOW_FD + fd, fd) < 0)
            _exit(127);
    execvp(child_argv[0], child_argv);
    _exit(127);
}

/* Makes the pipe of standard stream FD, puts the child's end at its low number; returns our end. */
static int make_pipe(int fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        die("pipe2");
    if (pipe_bytes > 0 && fcntl(ends[0], F_SETPIPE_SZ, pipe_bytes) < 0)
        die("F_SETPIPE_SZ");
    if (dup3(ends[fd], LOW_FD + fd, O_CLOEXEC) < 0)
        die("dup3");
    close(ends[fd]);
    return ends[!fd];
}

static struct child start(int with_stdin, int with_stdout)
{
    int wanted[2] = {with_stdin, with_stdout};
    struct child child = {.stdin_fd = with_stdin ? make_pipe(0) : -1,
                          .stdout_fd = with_stdout ? make_pipe(1) : -1};
    child.pid = clone(run_child, stack + STACK_BYTES,
                      CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, wanted);
    if (child.pid < 0)
        die("clone");
    for (int fd = 0; fd < 2; fd++)
        if (wanted[fd])
            park(LOW_FD + fd);
    return child;
}

static void collect(const struct child *child)
{
    int status;
    if (waitpid(child->pid, &status, 0) < 0)
        die("waitpid");
    if (status != 0) {
        fprintf(stderr, "%s ended with wait status %d\n", child_argv[0], status);
        exit(1);
    }
}

static size_t read_some(int fd)
{
    ssize_t size = read(fd, buffer, buffer_bytes);
    if (size < 0)
        die("read");
    return (size_t)size;
}

static size_t write_some(int fd, size_t wanted)
{
    ssize_t size = write(fd, buffer, wanted);
    if (size < 0)
        die("write");
    return (size_t)size;
}

static long read_all(void)
{
    struct child child = start(0, 1);
    long total = 0;
    size_t size;
    while ((size = read_some(child.stdout_fd)) > 0)
        total += (long)size;
    close(child.stdout_fd);
    collect(&child);
    return total;
}

/* Counts as a splitter would find them, one by one; a tail without newline is no line. */
static long count_lines(size_t size)
{
    long lines = 0;
    const char *at = buffer, *end = buffer + size;
    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        lines++;
        at++;
    }
    return lines;
}

static long read_lines(void)
{
    struct child child = start(0, 1);
    long lines = 0;
    size_t size;
    while ((size = read_some(child.stdout_fd)) > 0)
        lines += count_lines(size);
    close(child.stdout_fd);
    collect(&child);
    return lines;
}

static long write_all(void)
{
    struct child child = start(1, 0);
    size_t left = (size_t)number;
    while (left > 0)
        left -= write_some(child.stdin_fd, left < buffer_bytes ? left : buffer_bytes);
    close(child.stdin_fd);
    collect(&child);
    return number;
}

static void play_round(const struct child *child)
{
    buffer[0] = 'x';
    if (write_some(child->stdin_fd, 1) != 1)
        die("write");
    buffer[0] = 0;
    if (read_some(child->stdout_fd) != 1 || buffer[0] != 'x') {
        fprintf(stderr, "the byte did not come back\n");
        exit(1);
    }
}

static double ping_pong(void)
{
    struct child child = start(1, 1);
    play_round(&child);
    double begun_s = now_s();
    for (long i = 0; i < number; i++)
        play_round(&child);
    double seconds = now_s() - begun_s;
    close(child.stdin_fd);
    close(child.stdout_fd);
    collect(&child);
    return seconds;
}

static void watch(int epoll_fd, struct child *child)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = child};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, child->stdout_fd, &event) < 0)
        die("epoll_ctl");
}

/* One read per event: a level-triggered epoll tells again, and nobody waits for one that floods. */
static long read_turn(int epoll_fd, long *open_streams)
{
    struct epoll_event events[EVENTS];
    long total = 0;
    int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
    if (ready < 0)
        die("epoll_wait");
    for (int i = 0; i < ready; i++) {
        struct child *child = events[i].data.ptr;
        size_t size = read_some(child->stdout_fd);
        total += (long)size;
        if (size > 0)
            continue;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_DEL, child->stdout_fd, NULL) < 0)
            die("epoll_ctl");
        close(child->stdout_fd);
        collect(child);
        (*open_streams)--;
    }
    return total;
}

static long read_streams(void)
{
    struct child *children = calloc((size_t)number, sizeof *children);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!children || epoll_fd < 0)
        die("set-up");
    for (long i = 0; i < number; i++) {
        children[i] = start(0, 1);
        watch(epoll_fd, &children[i]);
    }
    long total = 0;
    for (long left = number; left > 0;)
        total += read_turn(epoll_fd, &left);
    close(epoll_fd);
    free(children);
    return total;
}

static int run(const char *mode)
{
    double begun_s = now_s();
    long count;
    if (!strcmp(mode, "read"))
        count = read_all();
    else if (!strcmp(mode, "lines"))
        count = read_lines();
    else if (!strcmp(mode, "write"))
        count = write_all();
    else if (!strcmp(mode, "streams"))
        count = read_streams();
    else if (!strcmp(mode, "pingpong"))
        return printf("%.9f %ld\n", ping_pong(), number) < 0;
    else
        return 2;
    return printf("%.9f %ld\n", now_s() - begun_s, count) < 0;
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: pipe MODE PIPE_BYTES BUFFER_BYTES NUMBER PROGRAM [ARG ...]\n");
        return 2;
    }
    pipe_bytes = atoi(argv[2]);
    buffer_bytes = strtoul(argv[3], NULL, 10);
    number = atol(argv[4]);
    child_argv = argv + 5;
    buffer = malloc(buffer_bytes ? buffer_bytes : 1);
    if (pipe_bytes < 0 || buffer_bytes == 0 || number < 0 || !buffer)
        return 2;
    memset(buffer, 0, buffer_bytes);
    reserve_low_fds();
    return run(argv[1]);
}
