/* spawn.c - the bare system calls of a process life cycle: what no spawner on this kernel can beat by
 * much with as many threads.
 *
 *   spawn PROGRAM CHILDREN AT_ONCE THREADS [PIPES [ISOLATE]]
 *
 * runs PROGRAM CHILDREN times, AT_ONCE at a time, and prints the seconds that took.  Each thread has
 * its own share and its own epoll.  Per child: three pipes (PIPES is 0: none), one clone that shares
 * memory until exec, both outputs and the pidfd in epoll, reads to the end, one waitid.  Nothing
 * else: no signal is reset, no directory changed, nothing checked but what ends the program.
 *
 * Without ISOLATE the clone copies the fd table, which costs the more the more fds are open.  With it
 * the child shares the table (CLONE_FILES) until its first act makes a copy of the lowest 64 entries
 * (close_range with CLOSE_RANGE_UNSHARE, Linux 5.9), so the figure does not grow with the fds that
 * are open.  The child's ends must lie among those 64: each thread has three numbers there, reserved
 * at the start, to which they are dup'ed before the clone.
 *
 * Built as a shared library too (limit_spawn), for a parent that has grown in memory or fds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2
#endif

enum { STACK_BYTES = 65536, EVENTS = 64, READ_BYTES = 65536, THREADS_MAX = 16, CUT = 64 };

static const char *program;
static int with_pipes = 1, isolated;
static int landings[THREADS_MAX][3]; /* of each thread; all below CUT, for good */
static int landings_made;
static char *const empty_env[] = {NULL};

struct life {
    int stdin_fd, out_fd[2], pidfd, left; /* left: outputs and the exit that are still to come */
};

struct share {
    int children, at_once, index;
    pthread_t thread;
};

struct start {
    int theirs[3];
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int run_child(void *opaque)
{
    const struct start *start = opaque;
    if (isolated && syscall(SYS_close_range, CUT, ~0U, CLOSE_RANGE_UNSHARE) < 0)
        _exit(126);
    if (with_pipes)
        for (int fd = 0; fd < 3; fd++)
            if (dup2(start->theirs[fd], fd) < 0)
                _exit(127);
    char *const argv[] = {(char *)program, NULL};
    execve(program, argv, empty_env);
    _exit(127);
}

/* The numbers are taken while the low ones are free, and then kept: a grown parent has none to give. */
static void make_landings(int threads)
{
    for (; landings_made < threads; landings_made++)
        for (int fd = 0; fd < 3; fd++) {
            int landing = fcntl(0, F_DUPFD_CLOEXEC, 3);
            if (landing < 0 || landing >= CUT)
                die("no low fd is free");
            landings[landings_made][fd] = landing;
        }
}

static void watch(int epoll_fd, int fd, unsigned kind, unsigned slot)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)slot << 2 | kind};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void start_life(struct life *life, unsigned slot, int epoll_fd, char *stack,
                       const int landing[3])
{
    int pipes[3][2];
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (isolated ? CLONE_FILES : 0);
    struct start start = {{-1, -1, -1}};
    life->left = 1;
    if (with_pipes) {
        for (int fd = 0; fd < 3; fd++) {
            if (pipe2(pipes[fd], O_CLOEXEC) < 0)
                die("pipe2");
            start.theirs[fd] = pipes[fd][fd != 0];
            if (isolated) {
                if (dup3(start.theirs[fd], landing[fd], O_CLOEXEC) < 0)
                    die("dup3");
                close(start.theirs[fd]);
                start.theirs[fd] = landing[fd];
            }
        }
        life->stdin_fd = pipes[0][1];
        life->out_fd[0] = pipes[1][0];
        life->out_fd[1] = pipes[2][0];
        life->left = 3;
    }
    if (clone(run_child, stack + STACK_BYTES, flags, &start, &life->pidfd) < 0)
        die("clone");
    if (with_pipes) {
        for (int fd = 0; fd < 3; fd++)
            if (!isolated)
                close(start.theirs[fd]);
            else if (dup3(0, landing[fd], O_CLOEXEC) < 0) /* lets go of the pipe, keeps the number */
                die("dup3");
        watch(epoll_fd, life->out_fd[0], 0, slot);
        watch(epoll_fd, life->out_fd[1], 1, slot);
    }
    watch(epoll_fd, life->pidfd, 2, slot);
}

/* Returns whether the life is over. */
static int go_on(struct life *life, unsigned kind, int epoll_fd, char *buffer)
{
    int fd = kind == 2 ? life->pidfd : life->out_fd[kind];
    if (kind == 2) {
        siginfo_t info;
        if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0)
            die("waitid");
        if (info.si_code != CLD_EXITED || info.si_status != 0) {
            fprintf(stderr, "a child ended with %d %d\n", info.si_code, info.si_status);
            exit(1);
        }
    } else if (read(fd, buffer, READ_BYTES) != 0) {
        return 0;
    }
    /* A sibling that has not exec'ed yet may hold a copy: closing alone would not end the watch. */
    if (epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0)
        die("epoll_ctl");
    close(fd);
    if (--life->left)
        return 0;
    if (with_pipes)
        close(life->stdin_fd);
    return 1;
}

static void *run_share(void *opaque)
{
    struct share *share = opaque;
    struct life *lives = calloc((size_t)share->at_once, sizeof *lives);
    char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *buffer = malloc(READ_BYTES);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!lives || stack == MAP_FAILED || !buffer || epoll_fd < 0)
        die("set-up");
    int started = 0, ended = 0;
    const int *landing = landings[share->index];
    for (; started < share->at_once && started < share->children; started++)
        start_life(&lives[started], (unsigned)started, epoll_fd, stack, landing);
    while (ended < share->children) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            unsigned slot = (unsigned)(events[i].data.u64 >> 2), kind = events[i].data.u64 & 3;
            if (!go_on(&lives[slot], kind, epoll_fd, buffer))
                continue;
            ended++;
            if (started < share->children) {
                start_life(&lives[slot], slot, epoll_fd, stack, landing);
                started++;
            }
        }
    }
    close(epoll_fd);
    munmap(stack, STACK_BYTES);
    free(buffer);
    free(lives);
    return NULL;
}

static double run_all(int children, int at_once, int threads)
{
    struct share shares[THREADS_MAX];
    struct timespec begun, over;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int i = 0; i < threads; i++) {
        shares[i].index = i;
        shares[i].children = children / threads + (i < children % threads);
        shares[i].at_once = at_once / threads + (i < at_once % threads);
        if (pthread_create(&shares[i].thread, NULL, run_share, &shares[i]) != 0)
            die("pthread_create");
    }
    for (int i = 0; i < threads; i++)
        pthread_join(shares[i].thread, NULL);
    clock_gettime(CLOCK_MONOTONIC, &over);
    return (double)(over.tv_sec - begun.tv_sec) + (double)(over.tv_nsec - begun.tv_nsec) / 1e9;
}

/* Returns the seconds, or -1 when the arguments make no sense.  Ends the process when a system call
 * fails.  The first isolated call of a process reserves the landings, so it is to come early. */
double limit_spawn(const char *path, int children, int at_once, int threads, int pipes, int isolate)
{
    if (children < 1 || threads < 1 || threads > THREADS_MAX || at_once < threads)
        return -1;
    program = path;
    with_pipes = pipes;
    isolated = isolate;
    if (isolate)
        make_landings(threads);
    return run_all(children, at_once, threads);
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 7) {
        fprintf(stderr, "usage: spawn PROGRAM CHILDREN AT_ONCE THREADS [PIPES [ISOLATE]]\n");
        return 2;
    }
    int children = atoi(argv[2]), at_once = atoi(argv[3]), threads = atoi(argv[4]);
    int pipes = argc < 6 || atoi(argv[5]), isolate = argc > 6 && atoi(argv[6]);
    signal(SIGPIPE, SIG_IGN);
    /* warm-up */
    if (limit_spawn(argv[1], children < 50 ? children : 50, at_once, threads, pipes, isolate) < 0)
        return 2;
    printf("%.9f\n", limit_spawn(argv[1], children, at_once, threads, pipes, isolate));
    return 0;
}
