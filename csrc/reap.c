/* reap.c - the end of a child: its status, its resources, signals to it until then, and whose its orphans
 * are.
 *
 * Facts:
 *   - The raw waitid has a fifth argument that libc hides: status and rusage come in one call.
 *   - With a pidfd the wait is for that child and no other, whatever became of its number.
 *   - si_pid == 0 with WNOHANG means "not ended", also for a traced zombie and for one whose threads
 *     are not all gone, for which the pidfd may poll readable already.
 *   - A child can make us its tracer (PTRACE_TRACEME).  waitid then tells its stops as well, asked for
 *     or not, once each: CLD_TRAPPED.  Not ended either.
 *   - ECHILD: other code reaped it (os.waitpid(-1), or SIGCHLD ignored).  From Linux 6.15 the pidfd
 *     still tells the exit code (PIDFD_GET_INFO with PIDFD_INFO_EXIT); before, the status is lost.
 *   - The number of a child that nobody has reaped is given to nobody else, zombie or not.  So a signal
 *     by number is for one of which waitid says, right before, that it is a child of ours still.  What
 *     is left is the time between these two calls, in which another thread may reap it.
 *   - A sandbox may deny waitid altogether.  A pidfd tells the end all the same, by poll(2), but neither
 *     how it was, nor whether a tracer holds the zombie; which stays a zombie.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include "ladder.h"
#include "procreactor.h"
#include "sys.h"

/* struct pidfd_info as of Linux 6.15 (include/uapi/linux/pidfd.h), which few headers have yet. */
struct pr_pidfd_info {
    uint64_t mask;
    uint64_t cgroup_id;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define PR_PIDFD_INFO_EXIT (1UL << 3)
#define PR_PIDFD_GET_INFO _IOWR(0xFF, 11, struct pr_pidfd_info)

static int64_t in_us(struct timeval time)
{
    return (int64_t)time.tv_sec * 1000000 + time.tv_usec;
}

static void write_exit(struct pr_exit *exit, const siginfo_t *info, const struct rusage *usage)
{
    *exit = (struct pr_exit){
        .code = info->si_code,
        .status = info->si_status,
        .user_us = in_us(usage->ru_utime),
        .system_us = in_us(usage->ru_stime),
        .max_rss_kib = usage->ru_maxrss,
        .minor_faults = usage->ru_minflt,
        .major_faults = usage->ru_majflt,
        .block_reads = usage->ru_inblock,
        .block_writes = usage->ru_oublock,
        .voluntary_switches = usage->ru_nvcsw,
        .involuntary_switches = usage->ru_nivcsw,
    };
}

/* The status word of wait(2), as si_code and si_status. */
static void write_wait_status(struct pr_exit *exit, int word)
{
    if (WIFEXITED(word)) {
        exit->code = CLD_EXITED;
        exit->status = WEXITSTATUS(word);
    } else {
        exit->code = WCOREDUMP(word) ? CLD_DUMPED : CLD_KILLED;
        exit->status = WTERMSIG(word);
    }
}

/* Other code is taking the status, or has.  From that moment to the release of the task, which is
 * microseconds, the pidfd knows the task and not yet its exit: 0, not ended for us.  ESRCH can mean that
 * the task went while the kernel was looking; its exit is there at the second question. */
static int ask_pidfd(int pidfd, struct pr_exit *exit)
{
    struct pr_pidfd_info info = {.mask = PR_PIDFD_INFO_EXIT};
    long result = pidfd < 0 ? -EBADF : sys_ioctl(pidfd, PR_PIDFD_GET_INFO, (long)&info);
    if (result == -ESRCH) {
        info.mask = PR_PIDFD_INFO_EXIT;
        result = sys_ioctl(pidfd, PR_PIDFD_GET_INFO, (long)&info);
    }
    if (result >= 0 && !(info.mask & PR_PIDFD_INFO_EXIT))
        return 0;
    memset(exit, 0, sizeof *exit);
    if (result >= 0) /* else no pidfd, or a kernel that does not keep the exit */
        write_wait_status(exit, info.exit_code);
    return 1;
}

/* 1: by its pidfd the process has ended, reaped or not.  0: it has not.  -errno. */
static long ask_poll(int pidfd)
{
    struct pollfd polled = {.fd = pidfd, .events = POLLIN};
    struct timespec at_once = {0};
    return sys_ppoll(&polled, 1, &at_once);
}

/* No form of waitid is allowed.  With a pidfd the end can be told, and nothing of it. */
static int ask_without_waiting(int pidfd, int refusal, struct pr_exit *exit)
{
    long ended = pidfd < 0 ? refusal : ask_poll(pidfd);
    if (ended < 0)
        return refusal;
    if (ended)
        *exit = (struct pr_exit){.status = -refusal};
    return ended > 0;
}

static int has_ended(const siginfo_t *info)
{
    return info->si_pid != 0 && (info->si_code == CLD_EXITED || info->si_code == CLD_KILLED ||
                                 info->si_code == CLD_DUMPED);
}

int pr_drop(int epoll_fd, int fd)
{
    struct epoll_event unused = {0}; /* older kernels want one */
    if (epoll_fd >= 0)
        sys_epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &unused);
    /* Never again on EINTR, nor told: Linux has closed it by then. */
    return sys_close(fd) == -EBADF ? -EBADF : 0;
}

int pr_reap(int pidfd, int pid, struct pr_exit *exit)
{
    siginfo_t info = {0};
    struct rusage usage;
    long result;
    do {
        result = -EINVAL;
        if (pidfd >= 0)
            result = sys_waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG, &usage);
        /* No pidfd; Linux 5.3, which has pidfds but no P_PIDFD; a sandbox that was entered since. */
        if (pr_ladder_is_refusal(result))
            result = sys_waitid(P_PID, pid, &info, WEXITED | WNOHANG, &usage);
    } while (result == -EINTR);
    if (result == -ECHILD)
        return ask_pidfd(pidfd, exit);
    if (pr_ladder_is_refusal(result))
        return ask_without_waiting(pidfd, (int)result, exit);
    if (result < 0)
        return (int)result;
    if (!has_ended(&info))
        return 0;
    write_exit(exit, &info, &usage);
    return 1;
}

int pr_reap_in(int epoll_fd, struct pr_result *child, struct pr_exit *exit)
{
    int reaped = pr_reap(child->pidfd, child->pid, exit);
    if (reaped == 1)
        pr_close_ours(epoll_fd, &child->pidfd, 1, child->pidfd);
    return reaped;
}

int pr_wait_exit(int pid)
{
    siginfo_t info = {0};
    long result;
    while ((result = sys_waitid(P_PID, pid, &info, WEXITED | WNOWAIT, NULL)) == -EINTR ||
           (result == 0 && !has_ended(&info)))
        if (result == 0) /* a stop of one that we trace: news until it is taken */
            sys_waitid(P_PID, pid, &info, WSTOPPED | WNOHANG, NULL);
    return result == -ECHILD ? 0 : (int)result; /* reaped by other code: it has ended */
}

int pr_is_child(int pidfd, int pid)
{
    siginfo_t info;
    long result;
    do {
        result = -EINVAL;
        if (pidfd >= 0)
            result = sys_waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG | WNOWAIT, NULL);
        if (pr_ladder_is_refusal(result))
            result = sys_waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT, NULL);
    } while (result == -EINTR);
    if (result == -ECHILD)
        return 0;
    return result < 0 ? (int)result : 1;
}

static long signal_by_pidfd(int pidfd, int number)
{
    return pidfd < 0 ? -ENOSYS : sys_pidfd_send_signal(pidfd, number);
}

/* By a sandbox, as kill may not be.  Where it is the kernel that says EPERM, kill says so again. */
static bool is_denied(long result)
{
    return result == -ENOSYS || result == -EPERM;
}

int pr_signal(int pidfd, int pid, int number)
{
    long result = signal_by_pidfd(pidfd, number);
    if (!is_denied(result))
        return (int)result;
    if (pidfd >= 0 && ask_poll(pidfd) > 0) /* ended; whoever reaps it sets its number free */
        return -ESRCH;
    return (int)sys_kill(pid, number);
}

int pr_signal_child(int pidfd, int pid, int number)
{
    long result = signal_by_pidfd(pidfd, number);
    if (!is_denied(result))
        return (int)result;
    int ours = pr_is_child(pidfd, pid);
    if (ours < 0 && pidfd >= 0) /* one that lives has its number, at least */
        ours = ask_poll(pidfd) == 0;
    if (ours <= 0)
        return ours < 0 ? ours : -ESRCH;
    return (int)sys_kill(pid, number);
}

int pr_adopt_orphans(int on)
{
    int before = 0;
    long result = sys_prctl(PR_GET_CHILD_SUBREAPER, (long)&before);
    if (result >= 0 && on >= 0)
        result = sys_prctl(PR_SET_CHILD_SUBREAPER, on != 0);
    return result < 0 ? (int)result : before != 0;
}
