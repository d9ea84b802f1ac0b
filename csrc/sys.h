/* sys.h - every system call that the core makes, listed once.
 *
 * Raw, because libc must not be used between clone and exec in memory shared with the parent:
 * its wrappers write errno (the parent's thread-local), its setuid family signals all threads on
 * the parent's thread list, and sanitizers and LD_PRELOAD libraries hook them.  A raw call returns
 * the result or -errno and touches nothing else.
 *
 * With PR_TEST_TWIN defined the same calls pass through pr_twin(), which the C tests use to make
 * call N of a given number fail (tests/c/twin.c).
 *
 * The exception is spawner.c: its threads are made, joined and put to sleep by libc's pthread, whose
 * system calls are libc's and are not listed here.
 */
#ifndef PR_SYS_H
#define PR_SYS_H

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#define PR_CLONE_CLEAR_SIGHAND 0x100000000ULL
#define PR_CLONE_INTO_CGROUP 0x200000000ULL

/* Inlined into code that runs in the child, which no sanitizer may instrument. */
#define PR_RAW static inline __attribute__((always_inline, no_sanitize("address", "undefined", "thread")))

#if defined(__x86_64__)

PR_RAW long pr_raw(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* A clone whose child starts on another stack: there it calls fn(argument), which must not return.
 * a, b, c are the call's first three arguments; both clone and clone3 fit.  child_tid is clone's, which
 * has another place on each machine. */
#define PR_HAVE_RAW_CLONE 1
PR_RAW long pr_raw_clone(long number, long a, long b, long c, long child_tid, void (*fn)(void *),
                         void *argument)
{
    long result;
    register long r10 __asm__("r10") = child_tid;
    register void (*r8)(void *) __asm__("r8") = fn;
    register void *r9 __asm__("r9") = argument;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t" /* the end of the child's frames */
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

#elif defined(__aarch64__)

PR_RAW long pr_raw(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory", "cc");
    return x0;
}

#define PR_HAVE_RAW_CLONE 1
PR_RAW long pr_raw_clone(long number, long a, long b, long c, long child_tid, void (*fn)(void *),
                         void *argument)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = child_tid;
    register void (*x5)(void *) __asm__("x5") = fn;
    register void *x6 __asm__("x6") = argument;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x6\n\t"
                     "blr x5\n\t"
                     "brk 0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x6)
                     : "x30", "memory", "cc");
    return x0;
}

#else /* other machines: libc's syscall(), and no own stack, hence always fork */

#if !defined(__LP64__) || defined(__s390x__)
#error "64-bit Linux with clone(flags, stack, ...) only: the structs and calls below are those"
#endif
#include <errno.h>
#define PR_HAVE_RAW_CLONE 0
PR_RAW long pr_raw(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}

#endif

#ifdef PR_TEST_TWIN
/* 0: make the call; otherwise the -errno that it is to return. */
long pr_twin(long number);
PR_RAW long pr_sys(long number, long a, long b, long c, long d, long e, long f)
{
    long refused = pr_twin(number);
    if (refused && number != SYS_close) /* Linux has closed the fd whatever close(2) returns */
        return refused;
    long result = pr_raw(number, a, b, c, d, e, f);
    return refused ? refused : result;
}
#else
#define pr_twin(number) 0L
#define pr_sys pr_raw
#endif

/* What the kernel's rt_sigaction takes; libc's struct has another layout. */
struct pr_kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* clone_args as of Linux 5.7; the first PR_CLONE_ARGS_V0 bytes are all that 5.3 knows. */
struct pr_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup;
};
#define PR_CLONE_ARGS_V0 64
#define PR_CLONE_ARGS_V2 88

#define A(x) ((long)(x))
#define PR_CALL(name, parameters, ...)                                                            \
    PR_RAW long sys_##name parameters { return PR_ARGS(SYS_##name, __VA_ARGS__, 0, 0, 0, 0, 0, 0); }
#define PR_ARGS(n, a, b, c, d, e, f, ...) pr_sys(n, A(a), A(b), A(c), A(d), A(e), A(f))

/* fds */
PR_CALL(pipe2, (int fds[2], int flags), fds, flags)
PR_CALL(dup3, (int from, int to, int flags), from, to, flags)
PR_CALL(fcntl, (int fd, int command, long argument), fd, command, argument)
PR_CALL(close, (int fd), fd)
PR_CALL(close_range, (unsigned first, unsigned last, unsigned flags), first, last, flags)
PR_CALL(fstat, (int fd, struct stat *facts), fd, facts)
PR_CALL(openat, (int directory, const char *path, int flags), directory, path, flags)
PR_CALL(read, (int fd, void *buffer, size_t size), fd, buffer, size)
PR_CALL(pread64, (int fd, void *buffer, size_t size, long offset), fd, buffer, size, offset)
PR_CALL(write, (int fd, const void *buffer, size_t size), fd, buffer, size)
PR_CALL(ioctl, (int fd, unsigned long request, long argument), fd, request, argument)
PR_CALL(epoll_ctl, (int epoll_fd, int operation, int fd, struct epoll_event *event),
        epoll_fd, operation, fd, event)
PR_CALL(epoll_create1, (int flags), flags)
PR_CALL(epoll_pwait, (int epoll_fd, struct epoll_event *events, int capacity, int timeout_ms),
        epoll_fd, events, capacity, timeout_ms, 0, 8)
PR_CALL(getdents64, (int fd, void *buffer, size_t size), fd, buffer, size)
/* The raw call writes what is left of the time into *timeout, which libc's hides. */
PR_CALL(ppoll, (struct pollfd *fds, unsigned count, struct timespec *timeout),
        fds, count, timeout, 0, 8)

/* processes */
PR_CALL(clone, (unsigned long flags, void *stack, int *parent_tid), flags, stack, parent_tid)
PR_CALL(exit_group, (int code), code)
PR_CALL(execve, (const char *path, char *const *argv, char *const *env), path, argv, env)
PR_CALL(waitid, (int kind, int id, siginfo_t *info, int options, struct rusage *usage),
        kind, id, info, options, usage)
PR_CALL(pidfd_send_signal, (int pidfd, int number), pidfd, number, 0, 0)
PR_CALL(kill, (int pid, int number), pid, number)
PR_CALL(futex, (uint32_t *word, int operation, uint32_t value, const struct timespec *timeout),
        word, operation, value, timeout)
PR_RAW long sys_getpid(void) { return pr_sys(SYS_getpid, 0, 0, 0, 0, 0, 0); }
PR_RAW long sys_getppid(void) { return pr_sys(SYS_getppid, 0, 0, 0, 0, 0, 0); }

/* signals */
PR_CALL(rt_sigprocmask, (int how, const uint64_t *set, uint64_t *old), how, set, old, 8)
PR_CALL(rt_sigaction, (int number, const struct pr_kernel_sigaction *action,
                       struct pr_kernel_sigaction *before), number, action, before, 8)

/* state and identity of the child */
PR_CALL(chdir, (const char *path), path)
PR_CALL(umask, (unsigned mask), mask)
PR_RAW long sys_setsid(void) { return pr_sys(SYS_setsid, 0, 0, 0, 0, 0, 0); }
PR_CALL(setpgid, (int pid, int group), pid, group)
PR_CALL(prlimit64, (int pid, int resource, const uint64_t limits[2], uint64_t before[2]),
        pid, resource, limits, before)
PR_CALL(getpriority, (int which, int who), which, who)
PR_CALL(setpriority, (int which, int who, int value), which, who, value)
PR_CALL(prctl, (int option, long argument), option, argument, 0, 0, 0)
PR_CALL(capset, (void *header, const void *sets), header, sets)
PR_CALL(getresuid, (uint32_t *real, uint32_t *effective, uint32_t *saved), real, effective, saved)
PR_CALL(setresuid, (uint32_t real, uint32_t effective, uint32_t saved), real, effective, saved)
PR_CALL(setresgid, (uint32_t real, uint32_t effective, uint32_t saved), real, effective, saved)
PR_CALL(setgroups, (size_t count, const uint32_t *groups), count, groups)
PR_CALL(nanosleep, (const struct timespec *pause), pause, 0)

PR_CALL(eventfd2, (unsigned count, int flags), count, flags)
PR_CALL(timerfd_create, (int clock, int flags), clock, flags)
PR_CALL(timerfd_settime, (int fd, int flags, const struct itimerspec *when), fd, flags, when, 0)

/* memory, parent side */
PR_CALL(mprotect, (void *address, size_t size, int protection), address, size, protection)
PR_CALL(munmap, (void *address, size_t size), address, size)
PR_RAW long sys_mmap(size_t size)
{
    return pr_sys(SYS_mmap, 0, A(size), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
}

#undef A
#undef PR_ARGS
#undef PR_CALL
#endif
