/* Grows a tree of processes, and stays: `tree MARK SHAPE [N]`.
 *
 * Each process of it has MARK in its command line, and writes one byte to fd 1 once it is what it is to
 * be.  So who started it reads as many bytes as the shape has processes, and finds them by the mark.
 * None lives longer than LIFE_S, should a test forget it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_S = 60 };

static int number = 1;
static char *mark;

static void say_ready(void)
{
    if (write(1, ".", 1) != 1)
        _exit(3);
}

static void stay(void)
{
    say_ready();
    sleep(LIFE_S);
    _exit(0);
}

/* 0 in the child. */
static int grow(void)
{
    int pid = fork();
    if (pid < 0)
        _exit(4);
    return pid;
}

/* N children of the leader. */
static void broad(void)
{
    for (int i = 0; i < number; i++)
        if (grow() == 0)
            stay();
    stay();
}

/* A chain of N below the leader, each in a session of its own. */
static void deep(void)
{
    for (int i = 0; i < number; i++) {
        if (grow() != 0)
            break;
        setsid();
    }
    stay();
}

/* A daemon as in the book: fork, setsid, fork. */
static void become_daemon(void)
{
    if (grow() == 0) {
        setsid();
        if (grow() == 0)
            stay();
        _exit(0);
    }
}

static void daemon_beside(void)
{
    become_daemon();
    stay();
}

static void daemon_behind(void)
{
    become_daemon();
    say_ready();
    _exit(0);
}

/* Neither TERM nor anything else that may be refused, in the leader and N children. */
static void deaf(void)
{
    for (int i = 1; i < 32; i++)
        signal(i, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    broad();
}

/* A child that stops itself, which cannot say so afterwards. */
static void still(void)
{
    if (grow() == 0) {
        say_ready();
        raise(SIGSTOP);
        _exit(0);
    }
    stay();
}

/* A child without our environment, in a session of its own, whose parent lives. */
static void bare(void)
{
    char *const argv[] = {"tree", mark, "broad", "0", NULL};
    char *const env[] = {NULL};
    if (grow() == 0) {
        setsid();
        execve(PROC "/self/exe", argv, env);
        _exit(5);
    }
    stay();
}

/* A child whose first thread has ended, and looks like a zombie. */
static void *stay_in_thread(void *nothing)
{
    (void)nothing;
    usleep(20000); /* the first thread ends meanwhile */
    stay();
    return NULL;
}

static void headless(void)
{
    pthread_t thread;
    if (grow() == 0) {
        pthread_create(&thread, NULL, stay_in_thread, NULL);
        pthread_exit(NULL);
    }
    stay();
}

static time_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* N that fork and end, each child going on in place of its parent; the leader stays.  Each of a line forks
 * the next and exits, faster than /proc is read, and not so fast that whoever reaps orphans falls behind
 * until there are no numbers left for anybody. */
static void storm(void)
{
    const struct timespec pace = {.tv_nsec = 1000000};
    time_t end = now_s() + LIFE_S;
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < number; i++) {
        if (grow() != 0)
            continue;
        say_ready();
        while (now_s() < end) {
            if (fork() > 0) /* -1: no room just now */
                _exit(0);
            nanosleep(&pace, NULL);
        }
        _exit(0);
    }
    stay();
}

/* A storm that may last: its orphans come to the leader, who wants no zombies. */
static void whirl(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    storm();
}

static const struct {
    const char *name;
    void (*grow)(void);
} shapes[] = {
    {"broad", broad},   {"deep", deep}, {"daemon", daemon_beside}, {"left", daemon_behind},
    {"deaf", deaf},     {"still", still}, {"bare", bare},          {"headless", headless},
    {"storm", storm},   {"whirl", whirl},
};

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    mark = argv[1];
    number = argc > 3 ? atoi(argv[3]) : 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, argv[2]) == 0)
            shapes[i].grow();
    return 2;
}
