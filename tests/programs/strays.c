/* A library: signal handlers in C that notice when they run in a process that is not theirs.
 *
 * A handler of the parent that runs in a child, between clone and exec, is the bug.  It counts into
 * memory that is shared with every descendant, be it a copy of this process or not.
 */
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct counts {
    volatile long here;
    volatile long elsewhere;
};

static struct counts *counts;
static pid_t home;

static void handle(int number)
{
    (void)number;
    if (syscall(SYS_getpid) == home)
        counts->here++;
    else
        counts->elsewhere++;
}

/* libc refuses to set its own two signals, 32 and 33; the kernel does not.  What libc made of another
 * signal, restorer and all, serves for them too. */
static long handle_raw(int model, int number)
{
    char action[256];
    long result = syscall(SYS_rt_sigaction, model, NULL, action, 8);
    return result < 0 ? result : syscall(SYS_rt_sigaction, number, action, NULL, 8);
}

/* Handle every signal that can be handled.  0, or -1. */
int strays_handle_all(void)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    home = getpid();
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        return -1;
    sigfillset(&action.sa_mask);
    for (int number = 1; number <= 64; number++) {
        if (number == SIGKILL || number == SIGSTOP)
            continue;
        if (sigaction(number, &action, NULL) < 0 && handle_raw(SIGUSR1, number) < 0)
            return -1;
    }
    return 0;
}

long strays_here(void)
{
    return counts->here;
}

long strays_elsewhere(void)
{
    return counts->elsewhere;
}

/* Whether our handler still stands for `number`. */
int strays_handles(int number)
{
    void (*handler)(int); /* the first word of the kernel's struct sigaction */
    char action[256];
    if (syscall(SYS_rt_sigaction, number, NULL, action, 8) < 0)
        return 0;
    __builtin_memcpy(&handler, action, sizeof handler);
    return handler == handle;
}

static void *wait_for_cancellation(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Start a thread, cancel it, wait for its end. */
int strays_cancel_a_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, wait_for_cancellation, NULL))
        return -1;
    pthread_cancel(thread);
    return pthread_join(thread, NULL);
}

/* Ignore every signal that can be ignored, 32 and 33 included. */
int strays_ignore_all(void)
{
    signal(SIGUSR1, SIG_IGN);
    for (int number = 1; number <= 64; number++)
        if (number != SIGKILL && number != SIGSTOP && signal(number, SIG_IGN) == SIG_ERR
            && handle_raw(SIGUSR1, number) < 0)
            return -1;
    return 0;
}
