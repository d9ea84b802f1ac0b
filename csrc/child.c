/* child.c - the child's side of a spawn, from clone to exec.
 *
 * In vfork mode this runs in the parent's memory while the parent's thread sleeps, so the rules are
 * those of a signal handler and stricter: raw system calls only, no libc, no thread-local storage,
 * no allocation, no lock, nothing written but this stack and child->report.  All signals are
 * blocked on entry.
 *
 * Order, and why:
 *   unshare first      until then the fd table is the parent's own: not one fd may be touched;
 *   signals            before anything can fail slowly;
 *   cgroup, session    while the fds are still the caller's, before they are shuffled;
 *   fds                then the controlling terminal, which is one of them, then close the rest;
 *   chdir, limits      as the parent's user, as Twisted and subprocess do;
 *   identity           after which there are no rights left for the above;
 *   death signal, mask last: an identity change resets the one, the other opens the door.
 */
#include "child.h"

#include <stddef.h>
#include <sys/ioctl.h>

#include "ladder.h"

#define CHILD static __attribute__((no_sanitize("address", "undefined", "thread")))

CHILD __attribute__((noreturn)) void child_fail(struct pr_child *child, struct pr_report report)
{
    if (child->report_fd < 0) {
        child->report.index = report.index;
        child->report.error = report.error;
        child->report.stage = report.stage;
    } else {
        /* 12 bytes into an empty pipe: written whole or, with the parent dead, not at all.  (SIGPIPE
         * may end us then, which is as well.) */
        sys_write(child->report_fd, &report, sizeof report);
    }
    for (;;)
        sys_exit_group(127);
}

CHILD __attribute__((noreturn)) void child_fail_at(struct pr_child *child, int stage, long result,
                                                   int index)
{
    child_fail(child, (struct pr_report){.stage = stage, .error = (int)-result, .index = index});
}

CHILD void child_unshare_fds(struct pr_child *child)
{
    if (!child->cut)
        return;
    long result = sys_close_range(child->cut, ~0U, CLOSE_RANGE_UNSHARE);
    if (result < 0)
        child_fail_at(child, PR_STAGE_UNSHARE, result, -1);
}

/* A stop that a terminal sends (Ctrl-Z), between the opening of the mask and the exec, would stop the child
 * and leave the parent waiting for it, which cannot stop meanwhile: whoever typed it would wait for ever,
 * too.  So a child that shares our memory gives up, and is made anew when the parent goes on (spawn.c):
 * as if the key had come a moment before the start.  So with SIGQUIT (Ctrl-\), whose core dump may kill
 * us as well.  An exec sets what is caught to default. */
CHILD __attribute__((noreturn)) void child_give_up(int number)
{
    (void)number;
    child_fail_at(pr_stack_top(__builtin_frame_address(0))->argument, PR_STAGE_STOPPED, -EINTR, -1);
}

/* The handler never returns, but x86-64 asks for where it would return to. */
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

/* Python ignores SIGPIPE and SIGXFSZ, nohup ignores SIGHUP, and an ignored signal stays ignored over
 * exec (CLONE_CLEAR_SIGHAND only clears handlers).  To set every signal to default costs less than to
 * ask which need it, and yet a tenth of a spawn; so a caller that knows may say. */
CHILD void child_reset_signals(struct pr_child *child)
{
    const struct pr_kernel_sigaction standard = {.handler = SIG_DFL};
    const struct pr_kernel_sigaction caught = {
        .handler = child_give_up,
        .flags = SA_RESTORER,
        .restorer = (void (*)(void))child_give_up,
        .mask = ~UINT64_C(0),
    };
    for (int number = 1; number <= 64; number++) {
        if (child->caught_signals >> (number - 1) & 1)
            sys_rt_sigaction(number, &caught, 0);
        else if (child->reset_signals >> (number - 1) & 1 && number != SIGKILL && number != SIGSTOP)
            sys_rt_sigaction(number, &standard, 0);
    }
}

/* Where CLONE_INTO_CGROUP is missing: "0" in cgroup.procs means the writer. */
CHILD void child_enter_cgroup(struct pr_child *child)
{
    if (!child->enter_cgroup)
        return;
    long fd = sys_openat(child->request->cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    long result = fd < 0 ? fd : sys_write((int)fd, "0", 1);
    if (result < 0)
        child_fail_at(child, PR_STAGE_CGROUP, result, -1);
    sys_close((int)fd);
}

CHILD void child_enter_session(struct pr_child *child)
{
    const struct pr_request *request = child->request;
    long result;
    if (request->flags & PR_FLAG_SESSION && (result = sys_setsid()) < 0)
        child_fail_at(child, PR_STAGE_SETSID, result, -1);
    if (request->flags & PR_FLAG_GROUP && (result = sys_setpgid(0, request->process_group)) < 0)
        child_fail_at(child, PR_STAGE_SETPGID, result, -1);
}

CHILD void child_move_fds(struct pr_child *child)
{
    for (uint32_t i = 0; i < child->move_count; i++) {
        const struct pr_move *move = &child->moves[i];
        long result;
        if (move->from != move->to) {
            while ((result = sys_dup3(move->from, move->to, move->flags)) == -EBUSY)
                ; /* dup2(2): a race with open in a table that is still shared elsewhere */
        } else {
            result = sys_fcntl(move->from, F_SETFD, move->flags & O_CLOEXEC ? FD_CLOEXEC : 0);
        }
        if (result < 0 && move->row == (int)child->request->fd_count) /* not a row of the caller's */
            child_fail_at(child, PR_STAGE_REPORT, result, -1);
        if (result < 0)
            child_fail_at(child, PR_STAGE_DUP, result, move->row);
        if (move->row == child->report_row)
            child->report_fd = move->to;
    }
}

CHILD void child_take_terminal(struct pr_child *child)
{
    if (child->request->tty_fd < 0)
        return;
    long result = sys_ioctl(child->request->tty_fd, TIOCSCTTY, 0);
    if (result < 0)
        child_fail_at(child, PR_STAGE_CTTY, result, -1);
}

/* Closing without close_range: what /proc lists; without /proc, what poll(2) does not call
 * invalid.  A number above 2^20 needs a raised fs.nr_open as well as a raised limit; the sweep stops
 * there, because a limit of a billion (container engines set it) would take minutes. */
enum { SWEEP_END = 1 << 20, SWEEP_STEP = 512 };

struct child_dirent {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char kind;
    char name[];
};

CHILD int child_parse_fd(const char *name)
{
    int number = 0;
    for (; *name >= '0' && *name <= '9'; name++)
        number = number * 10 + (*name - '0');
    return *name ? -1 : number;
}

/* Closes what it meets in the range, from a directory whose reading order survives deletions. */
CHILD int child_close_listed(int directory, const struct pr_range *range)
{
    char buffer[4096] __attribute__((aligned(8)));
    int closed = 0;
    long size;
    while ((size = sys_getdents64(directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < size;) {
            const struct child_dirent *entry = (const void *)(buffer + at);
            int fd = entry->name[0] == '.' ? -1 : child_parse_fd(entry->name);
            if (fd >= 0 && fd != directory && (unsigned)fd >= range->first
                && (unsigned)fd <= range->last) {
                sys_close(fd);
                closed++;
            }
            at += entry->size;
        }
    }
    return size < 0 ? (int)size : closed;
}

CHILD void child_close_swept(const struct pr_range *range)
{
    struct pollfd polled[SWEEP_STEP];
    struct timespec no_wait = {0, 0};
    unsigned last = range->last < SWEEP_END ? range->last : SWEEP_END;
    for (unsigned first = range->first; first <= last; first += SWEEP_STEP) {
        unsigned count = last - first + 1 < SWEEP_STEP ? last - first + 1 : SWEEP_STEP;
        for (unsigned i = 0; i < count; i++) {
            polled[i].fd = (int)(first + i);
            polled[i].events = polled[i].revents = 0;
        }
        if (sys_ppoll(polled, count, &no_wait) < 0) {
            for (unsigned i = 0; i < count; i++) /* poll takes no more fds than RLIMIT_NOFILE */
                sys_close((int)(first + i));
            continue;
        }
        for (unsigned i = 0; i < count; i++)
            if (!(polled[i].revents & POLLNVAL))
                sys_close((int)(first + i));
    }
}

CHILD void child_close_one_range(struct pr_child *child, const struct pr_range *range)
{
    if (child->may_close_range && sys_close_range(range->first, range->last, 0) == 0)
        return;
    long directory = sys_openat(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY);
    if (directory < 0) {
        child_close_swept(range);
        return;
    }
    int listed = child_close_listed((int)directory, range);
    sys_close((int)directory);
    if (listed < 0)
        child_close_swept(range);
}

CHILD void child_close_others(struct pr_child *child)
{
    for (uint32_t i = 0; i < child->close_count; i++)
        child_close_one_range(child, &child->closes[i]);
}

CHILD void child_change_directory(struct pr_child *child)
{
    if (!child->request->cwd)
        return;
    long result = sys_chdir(child->request->cwd);
    if (result < 0)
        child_fail_at(child, PR_STAGE_CHDIR, result, -1);
}

CHILD void child_set_limits(struct pr_child *child)
{
    const struct pr_request *request = child->request;
    if (request->flags & PR_FLAG_UMASK)
        sys_umask(request->umask);
    for (uint32_t i = 0; i < request->rlimit_count; i++) {
        const uint64_t limits[2] = {request->rlimits[i].soft, request->rlimits[i].hard};
        long result = sys_prlimit64(0, request->rlimits[i].resource, limits, NULL);
        if (result < 0)
            child_fail_at(child, PR_STAGE_RLIMIT, result, (int)i);
    }
    if (request->nice) {
        long raw = sys_getpriority(PRIO_PROCESS, 0); /* the raw call returns 20 - niceness */
        long result = raw < 0 ? raw : sys_setpriority(PRIO_PROCESS, 0, 20 - (int)raw + request->nice);
        if (result < 0)
            child_fail_at(child, PR_STAGE_NICE, result, -1);
    }
}

/* Tells who asks (F_GETLK) that this process still has the report pipe.  Such a lock is of one fd table, and
 * not of its copies: the kernel takes it back at our exec or exit, whoever else holds the pipe.  Any close
 * of the pipe here takes it back as well, so all other fds are closed by now.  Without it (ENOLCK) the
 * parent has to wait for the end of the pipe. */
CHILD void child_lock_pipe(struct pr_child *child)
{
    const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const struct pr_report locked = {.stage = PR_STAGE_NONE, .index = -1};
    if (child->pipe_target < 0 || sys_fcntl(child->pipe_target, F_SETLK, (long)&whole) < 0)
        return;
    if (child->report_fd < 0)
        child->is_locked = 1;
    else
        sys_write(child->report_fd, &locked, sizeof locked);
}

CHILD __attribute__((noreturn)) void child_become_launcher(struct pr_child *child)
{
    long result = sys_execve(child->request->launcher, child->launcher_argv, child->env);
    child_fail_at(child, PR_STAGE_HELPER, result, -1);
}

CHILD __attribute__((noreturn)) void child_become_program(struct pr_child *child)
{
    struct pr_report report = {.index = -1};
    report.error = child->request->flags & PR_FLAG_IDENTITY
                       ? child_change_identity(&child->become, &report.stage) : 0;
    if (!report.error)
        report.error = child_settle(&child->become, &report.stage);
    if (!report.error)
        child_exec(child->candidates, child->argv, child->env, &report);
    child_fail(child, report);
}

__attribute__((no_sanitize("address", "undefined", "thread"))) void pr_child_run(void *opaque)
{
    struct pr_child *child = opaque;
    child_unshare_fds(child);
    child_reset_signals(child);
    child_enter_cgroup(child);
    child_enter_session(child);
    child_move_fds(child);
    child_take_terminal(child);
    child_close_others(child);
    child_change_directory(child);
    child_set_limits(child);
    child_lock_pipe(child);
    if (child->launcher_argv)
        child_become_launcher(child);
    child_become_program(child);
}
