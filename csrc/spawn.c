/* spawn.c - the parent's side of a spawn.
 *
 *   check the request -> lay out the vectors -> open the pipes -> attempt (again, one step further
 *   down the ladder, for as long as the kernel refuses a feature) -> close what is not the caller's.
 *
 * One attempt: plan the fd moves -> block all signals -> clone -> restore the mask -> read the report.
 *
 * Facts:
 *   - With vfork the calling thread sleeps until the child execs or exits; other threads run on.
 *     Several threads may be in here at once: each has its own stack and its own vectors, landing
 *     slots are taken atomically, and there is no lock at all, so a fork of the host program in the
 *     middle of a spawn leaves nothing locked in its child.
 *   - All 64 signals are blocked by the raw call (libc's would leave 32 and 33 open): a handler of
 *     the parent must never run in a child that shares the parent's memory.  Only SIGCHLD stays as it
 *     is where clone3 takes the handlers away (ladder.h says why).
 *   - A child that was killed before exec is a success here; its exit status says what happened.
 *   - After a reported failure the child is on its way to exit; waiting for it is short, and
 *     leaves no zombie.
 *   - vfork says by itself when the child has exec'ed.  A fork and the launcher say it by the end of
 *     their report pipe, which anybody holds open who forked in that moment, without exec (os.fork in
 *     another thread, multiprocessing).  So they hold a lock of the pipe as well, as long as the pipe
 *     (fcntl(2), F_SETLK: a lock is its process's and not its copies'), and who waits asks for it now
 *     and then.  A pthread_atfork handler that closes the pipe in the copy would know of libc's fork
 *     only, and would need a list of pipes that a fork finds whole at any moment.
 *
 * Who can hold a child before its exec, and with it the parent:
 *   - A new owner stops it (uid=).  It is no vfork child by then; it is looked at every 10 ms, and killed.
 *   - Others freeze its cgroup.  A child that is born into a frozen group does not come to its first
 *     instruction.  To look before is no use, they may freeze it right after; to move a child that
 *     was started elsewhere costs more than a spawn, and it has then run outside.  So where others may
 *     (PR_FLAG_MAY_FREEZE), the memory is not lent by vfork, whose wait nothing but the child ends, but
 *     by CLONE_CHILD_CLEARTID and a futex, whose wait has an end: 3 us more (of 60 that a bare clone
 *     and exec take, of 600 that /bin/true takes), and debuggers take it for a fork.  A group that is
 *     the caller's alone goes by vfork: who freezes that may as well stop the caller.
 *   - A terminal stops the process group (Ctrl-Z).  That is meant for the caller, who cannot take part in
 *     it while vfork holds him.  Blocked or ignored, the signal would stay so in the program; so it is
 *     caught until the exec, and the child gives up and is made again (child.c); a fork, and the
 *     launcher, are seen to be stopped by it, killed, and made again.
 *   - Ctrl-\ as well: before Linux 5.16 a core dump kills all who share the memory.
 *   - Any other stop of a vfork child comes from those who may as well stop the caller.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/securebits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "ladder.h"
#include "procreactor.h"
#include "slots.h"
#include "spawn.h"
#include "sys.h"

enum { LAUNCHER_FIXED = 10, LAUNCHER_NUMBER_SIZE = 24, LOOK_UP_NS = 10 * 1000000, DEEPEST = 64 };

/* How often a child is made anew that a terminal's stop has met.  Its new owner may send those, too. */
enum { MOST_STOPS = 8 };

#define SET_OF(number) (UINT64_C(1) << ((number) - 1))

/* What terminals send. */
#define STOPS (SET_OF(SIGTSTP) | SET_OF(SIGTTIN) | SET_OF(SIGTTOU))

/* All memory of one spawn, in one allocation. */
struct work {
    const struct pr_request *request;
    struct pr_result *result;
    int *ours;
    const uint64_t *mask; /* for the child to inherit; NULL: the calling thread's */
    int *theirs;          /* per row: the fd that the child is to get */
    char **candidates;
    char **argv;
    char **env;
    char **launcher_argv;
    char *launcher_text;
    struct pr_row *rows;  /* one more than the map has, for the report pipe */
    struct pr_move *moves;
    struct pr_range *closes;
    int *sorted;
    bool *done;
};

/* What an attempt has shown that this spawn is to do without; the next spawn tries again. */
struct avoided {
    bool clone_into_cgroup;
    bool launcher;
    bool pidfd; /* remembered as soon as a clone goes without it */
    int stops;  /* not a step down: so many children have met one */
};

/* How one attempt goes about it. */
struct way {
    bool shares_memory;
    bool shares_fds;
    bool looks_up; /* from the wait for a child that shares memory */
    bool uses_launcher;
    bool enters_cgroup_by_hand;
    uint32_t features;
};

static int fail(struct work *work, int stage, long result, int index)
{
    work->result->stage = stage;
    work->result->error = (int)-result;
    work->result->index = index;
    return (int)result;
}

/* --- the request ------------------------------------------------------------------------------ */

/* Point at each string; false when the block does not hold exactly `count` of them. */
static bool split_strings(const struct pr_strings *strings, char **vector)
{
    const char *at = strings->bytes;
    const char *end = strings->bytes + strings->size;
    for (uint32_t i = 0; i < strings->count; i++) {
        const char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        if (!nul)
            return false;
        vector[i] = (char *)at;
        at = nul + 1;
    }
    vector[strings->count] = NULL;
    return at == end;
}

/* Among the first `rows`; -1: it has none there. */
static int row_of_stdout(const struct pr_request *request, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++)
        if (request->child_fds[i] == 1)
            return (int)i;
    return -1;
}

static bool rows_are_sound(const struct pr_request *request)
{
    for (uint32_t i = 0; i < request->fd_count; i++) {
        if (request->child_fds[i] < 0 || request->sources[i] < PR_AS_STDOUT)
            return false;
        if (request->sources[i] == PR_AS_STDOUT && row_of_stdout(request, i) < 0)
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (request->child_fds[i] == request->child_fds[j])
                return false;
    }
    return true;
}

/* To setresuid(2), UINT32_MAX means "as it is": the program would keep the rights of its parent. */
static bool identity_is_sound(const struct pr_request *request)
{
    return !(request->flags & PR_FLAG_IDENTITY)
           || (request->uid != UINT32_MAX && request->gid != UINT32_MAX);
}

static bool is_sound(const struct pr_request *request)
{
    return request->candidates.count > 0 && request->argv.count > 0 && rows_are_sound(request)
           && identity_is_sound(request);
}

/* Hand out `count` items of a block that starts aligned. */
#define CARVE(block, type, count) \
    ((type *)(void *)((block) = (char *)((((uintptr_t)(block)) + sizeof(void *) - 1) \
                                         & ~(sizeof(void *) - 1)), \
                      (block) += sizeof(type) * (count), (block) - sizeof(type) * (count)))

static char *lay_out(struct work *work)
{
    const struct pr_request *request = work->request;
    size_t rows = (size_t)request->fd_count + 1;
    size_t strings = (size_t)request->candidates.count + request->argv.count;
    size_t vectors = strings + request->env.count + 3;
    bool launches = request->flags & PR_FLAG_IDENTITY && request->launcher;
    size_t launcher = launches ? strings + request->group_count + LAUNCHER_FIXED + 1 : 0;
    size_t text = launches ? (request->group_count + LAUNCHER_FIXED) * LAUNCHER_NUMBER_SIZE : 0;
    size_t size = (vectors + launcher) * sizeof(char *) + text
                  + rows * (2 * sizeof(int) + sizeof(struct pr_row) + 2 * sizeof(struct pr_move)
                            + sizeof(bool))
                  + (rows + 1) * sizeof(struct pr_range) + 16 * sizeof(void *);
    char *block = malloc(size), *at = block;
    if (!block)
        return NULL;
    work->candidates = CARVE(at, char *, request->candidates.count + 1);
    work->argv = CARVE(at, char *, request->argv.count + 1);
    work->env = CARVE(at, char *, request->env.count + 1);
    work->launcher_argv = CARVE(at, char *, launcher);
    work->rows = CARVE(at, struct pr_row, rows);
    work->moves = CARVE(at, struct pr_move, 2 * rows);
    work->closes = CARVE(at, struct pr_range, rows + 1);
    work->theirs = CARVE(at, int, rows);
    work->sorted = CARVE(at, int, rows);
    work->done = CARVE(at, bool, rows);
    work->launcher_text = CARVE(at, char, text);
    return block;
}

static bool read_request(struct work *work)
{
    return split_strings(&work->request->candidates, work->candidates)
           && split_strings(&work->request->argv, work->argv)
           && split_strings(&work->request->env, work->env);
}

/* --- the pipes -------------------------------------------------------------------------------- */

static bool is_pipe(const struct pr_request *request, uint32_t row)
{
    return request->sources[row] == PR_WE_READ || request->sources[row] == PR_WE_WRITE;
}

/* The data is what Python's select.epoll puts there: the number. */
static long watch(const struct pr_request *request, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = 0};
    event.data.fd = fd;
    return request->flags & PR_FLAG_WATCH
               ? sys_epoll_ctl(request->epoll_fd, EPOLL_CTL_ADD, fd, &event) : 0;
}

static int open_pipes(struct work *work)
{
    const struct pr_request *request = work->request;
    for (uint32_t i = 0; i < request->fd_count; i++) {
        if (request->sources[i] == PR_AS_STDOUT) {
            work->theirs[i] = work->theirs[row_of_stdout(request, i)];
            continue;
        }
        if (!is_pipe(request, i)) {
            work->theirs[i] = request->sources[i];
            continue;
        }
        int ends[2];
        long result = sys_pipe2(ends, O_CLOEXEC);
        if (result < 0)
            return fail(work, PR_STAGE_PIPE, result, (int)i);
        bool we_read = request->sources[i] == PR_WE_READ;
        work->ours[i] = we_read ? ends[0] : ends[1];
        work->theirs[i] = we_read ? ends[1] : ends[0];
        /* Only our end: the flag belongs to the end, and programs expect blocking stdio. */
        result = sys_fcntl(work->ours[i], F_SETFL, O_NONBLOCK);
        if (result < 0)
            return fail(work, PR_STAGE_PIPE, result, (int)i);
        result = watch(request, work->ours[i], we_read ? EPOLLIN : 0);
        if (result < 0)
            return fail(work, PR_STAGE_WATCH, result, (int)i);
    }
    return 0;
}

static void close_ours(const struct pr_request *request, int fd)
{
    if (request->flags & PR_FLAG_WATCH)
        pr_drop(request->epoll_fd, fd);
    else
        sys_close(fd);
}

static void close_theirs(struct work *work)
{
    for (uint32_t i = 0; i < work->request->fd_count; i++)
        if (is_pipe(work->request, i) && work->ours[i] >= 0)
            sys_close(work->theirs[i]); /* never again on EINTR: Linux has closed it by then */
}

static void close_all_ours(struct work *work)
{
    for (uint32_t i = 0; i < work->request->fd_count; i++) {
        if (work->ours[i] < 0)
            continue;
        close_ours(work->request, work->ours[i]);
        work->ours[i] = -1;
    }
}

/* --- the way ---------------------------------------------------------------------------------- */

/* The launcher is for a parent that is root through and through.  Exec takes the capabilities of one
 * that is not (CAP_SETUID without uid 0, or uid 0 that is nobody special); such a parent forks. */
static bool keeps_its_rights_over_exec(void)
{
    uint32_t real = 1, effective = 1, saved = 1;
    sys_getresuid(&real, &effective, &saved);
    return real == 0 && effective == 0 && saved == 0
           && !(sys_prctl(PR_GET_SECUREBITS, 0) & SECBIT_NOROOT);
}

static struct way choose_way(const struct pr_request *request, const struct avoided *avoided)
{
    struct way way = {.features = pr_ladder_features()};
    if (avoided->pidfd)
        way.features &= ~(uint32_t)PR_FEATURE_PIDFD;
    bool vfork = way.features & PR_FEATURE_VFORK;
    bool changes = request->flags & PR_FLAG_IDENTITY;
    way.uses_launcher = vfork && changes && request->launcher && !avoided->launcher
                        && way.features & PR_FEATURE_HELPER && keeps_its_rights_over_exec();
    way.shares_memory = vfork && (!changes || way.uses_launcher);
    way.looks_up = way.shares_memory && request->flags & PR_FLAG_MAY_FREEZE;
    if (!way.shares_memory || avoided->clone_into_cgroup)
        way.features &= ~(uint32_t)PR_FEATURE_CLONE3;
    way.enters_cgroup_by_hand = request->cgroup_fd >= 0 && !(way.features & PR_FEATURE_CLONE3);
    /* By hand the child needs the cgroup's fd, and opens one, before its table is its own. */
    way.shares_fds = way.shares_memory && way.features & PR_FEATURE_UNSHARE
                     && !way.enters_cgroup_by_hand && pr_slots_cut();
    return way;
}

static uint32_t mode_of(const struct way *way)
{
    uint32_t mode = way->features & (PR_FEATURE_CLONE3 | PR_FEATURE_PIDFD | PR_FEATURE_CLOSE_RANGE);
    if (way->shares_memory)
        mode |= PR_FEATURE_VFORK;
    if (way->shares_fds)
        mode |= PR_FEATURE_UNSHARE;
    if (way->uses_launcher)
        mode |= PR_FEATURE_HELPER;
    return mode;
}

/* --- the plan --------------------------------------------------------------------------------- */

/* A row whose source is no longer what it was has been landed in a slot. */
static void release_slots(const struct work *work, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++)
        if (work->rows[i].source != work->theirs[i])
            pr_slots_release(work->rows[i].source);
}

/* Bring every source below the cut.  false when there are not enough slots: then do not share. */
static bool land_sources(struct work *work, uint32_t rows)
{
    unsigned cut = pr_slots_cut();
    for (uint32_t i = 0; i < rows; i++) {
        if ((unsigned)work->rows[i].source < cut)
            continue;
        int slot = pr_slots_land(work->rows[i].source);
        if (slot < 0) {
            release_slots(work, rows);
            for (uint32_t j = 0; j < i; j++)
                work->rows[j].source = work->theirs[j];
            return false;
        }
        work->rows[i].source = slot;
    }
    return true;
}

/* The report pipe is one more row.  Its target is a number that nobody wants; for the launcher, which
 * inherits it, it is not close-on-exec. */
static uint32_t list_rows(struct work *work, const struct way *way, int report_fd)
{
    uint32_t rows = work->request->fd_count;
    for (uint32_t i = 0; i < rows; i++)
        work->rows[i] = (struct pr_row){work->request->child_fds[i], work->theirs[i], false};
    if (report_fd < 0)
        return rows;
    work->theirs[rows] = report_fd;
    work->rows[rows] = (struct pr_row){pr_plan_spare(work->rows, rows, 3), report_fd,
                                       !way->uses_launcher};
    return rows + 1;
}

/* launch.c states the order. */
static void write_launcher_argv(struct work *work, const struct pr_become *become, int report_fd)
{
    const struct pr_request *request = work->request;
    char **at = work->launcher_argv, *text = work->launcher_text;
    const uint64_t numbers[] = {
        (uint64_t)report_fd, become->uid, become->gid, (uint64_t)become->death_signal,
        (uint64_t)become->no_new_privs, (uint64_t)become->parent, become->final_mask,
        become->group_count, request->candidates.count,
    };
    *at++ = "procreactor-launch";
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++, text += LAUNCHER_NUMBER_SIZE) {
        snprintf(text, LAUNCHER_NUMBER_SIZE, "%llu", (unsigned long long)numbers[i]);
        *at++ = text;
    }
    for (uint32_t i = 0; i < request->group_count; i++, text += LAUNCHER_NUMBER_SIZE) {
        snprintf(text, LAUNCHER_NUMBER_SIZE, "%u", request->groups[i]);
        *at++ = text;
    }
    for (char **candidate = work->candidates; *candidate; candidate++)
        *at++ = *candidate;
    for (char **argument = work->argv; *argument; argument++)
        *at++ = *argument;
    *at = NULL;
}

/* --- waiting for a child ---------------------------------------------------------------------- */

/* By the pidfd where there is one: should other code have reaped the child, then its number may by
 * now belong to another child, one that another thread has just made. */
static long wait_for(long pid, int pidfd, siginfo_t *info, int options)
{
    long result = -EINVAL;
    if (pidfd >= 0)
        result = sys_waitid(P_PIDFD, pidfd, info, options, NULL);
    if (pr_ladder_is_refusal(result)) /* Linux 5.3 has pidfds but no P_PIDFD; a sandbox may deny it */
        result = sys_waitid(P_PID, (int)pid, info, options, NULL);
    return result;
}

/* The signal, or 0. */
static int stopped_by(long pid, int pidfd)
{
    siginfo_t info = {0};
    long result = wait_for(pid, pidfd, &info, WSTOPPED | WNOHANG | WNOWAIT);
    return result == 0 && info.si_pid != 0 ? info.si_status : 0;
}

/* For a child that we may not kill (it has another uid, and we no CAP_KILL): until it has ended, or
 * is stopped by its new owner, for whom we do not wait. */
static void wait_for_ungovernable(long pid, int pidfd)
{
    for (;;) {
        siginfo_t info = {0};
        long result = wait_for(pid, pidfd, &info, WEXITED | WNOHANG);
        if ((result == 0 && info.si_pid != 0) || (result < 0 && result != -EINTR)
            || stopped_by(pid, pidfd))
            return;
        struct timespec pause = {0, 1000000};
        sys_nanosleep(&pause);
    }
}

/* The child has reported and is about to exit; but from its change of identity on, its new user can
 * stop it just before.  So it is killed, which ends a stopped one too.  (One that reported in our
 * memory has our rights, and has exited: vfork waited for that.) */
static void reap_failed_child(long pid, int pidfd, bool may_be_stopped)
{
    siginfo_t info;
    int killed = may_be_stopped ? pr_signal_child(pidfd, (int)pid, SIGKILL) : 0;
    if (killed == -EPERM)
        wait_for_ungovernable(pid, pidfd);
    else if (killed != -ESRCH) /* else others were faster, and the number is no longer its own */
        while (wait_for(pid, pidfd, &info, WEXITED) == -EINTR)
            ;
    if (pidfd >= 0)
        sys_close(pidfd);
}

/* --- held before exec ------------------------------------------------------------------------- */

/* Whether a group, or one above it, is told to be frozen: a child there does not go on, or is about not
 * to.  cgroup.events would say so later, and not at all while one process in it cannot be frozen. */
static bool is_frozen(int group_fd)
{
    static const char name[] = "cgroup.freeze"; /* the root of all groups has none, and what is above it */
    char path[3 * DEEPEST + sizeof name], *at = path + 3 * DEEPEST, answer = '0';
    memcpy(at, name, sizeof name);
    while (group_fd >= 0 && answer == '0') {
        long fd = sys_openat(group_fd, at, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        long size = sys_read((int)fd, &answer, 1);
        sys_close((int)fd);
        if (size != 1 || at == path)
            break;
        at -= 3;
        memcpy(at, "../", 3);
    }
    return answer == '1';
}

/* Why a child does not go on, if others keep it from that.  EINTR: it is to be made again. */
static struct pr_report what_holds(const struct work *work, long pid, int pidfd)
{
    int signal = stopped_by(pid, pidfd);
    if (signal)
        return (struct pr_report){
            PR_STAGE_STOPPED, STOPS & SET_OF(signal) ? EINTR : ECANCELED, -1};
    if (is_frozen(work->request->cgroup_fd))
        return (struct pr_report){PR_STAGE_FROZEN, EBUSY, -1};
    return (struct pr_report){.index = -1};
}

/* As vfork waits, until the child has let go of our memory; but one that is held is killed, and that
 * is its report.  One that may not be killed has to be waited for. */
static void wait_for_memory(const struct work *work, struct pr_child *child, long pid, int pidfd)
{
    struct pr_report killed_for = {.index = -1};
    while (__atomic_load_n(&child->lent, __ATOMIC_ACQUIRE)) {
        const struct timespec tick = {0, LOOK_UP_NS}, pause = {0, 1000000};
        long result = sys_futex(&child->lent, FUTEX_WAIT, 1, &tick);
        if (result == 0 || result == -EAGAIN)
            continue;
        if (result != -ETIMEDOUT && result != -EINTR) /* a sandbox */
            sys_nanosleep(&pause);
        struct pr_report held = what_holds(work, pid, pidfd);
        if (held.stage != PR_STAGE_NONE && __atomic_load_n(&child->lent, __ATOMIC_ACQUIRE)
            && pr_signal_child(pidfd, (int)pid, SIGKILL) == 0)
            killed_for = held;
    }
    if (killed_for.stage == PR_STAGE_NONE || child->report.stage != PR_STAGE_NONE)
        return; /* one that has told is a zombie, which takes the kill as well */
    child->report.error = killed_for.error;
    child->report.stage = killed_for.stage;
    child->report.index = killed_for.index;
}

/* --- clone ------------------------------------------------------------------------------------ */

/* A copy of this process; the child runs on its copy of this very stack. */
static long clone_copy(const struct way *way, struct pr_child *child, int *pidfd)
{
    unsigned long flags = SIGCHLD | (way->features & PR_FEATURE_PIDFD ? CLONE_PIDFD : 0);
    *pidfd = -1;
    long pid = sys_clone(flags, NULL, pidfd);
    if (pid == 0)
        pr_child_run(child);
    return pid;
}

static long clone_child(struct work *work, const struct way *way, struct pr_child *child, int *pidfd)
{
    if (!way->shares_memory)
        return clone_copy(way, child, pidfd);
    void *stack = pr_stack_take();
    if (!stack)
        return -ENOMEM;
    int cgroup_fd = way->enters_cgroup_by_hand ? -1 : work->request->cgroup_fd;
    child->lent = 1;
    long pid = pr_ladder_clone(way->features, way->shares_fds ? CLONE_FILES : 0, SIGCHLD, cgroup_fd,
                               stack, pr_child_run, child, way->looks_up ? &child->lent : NULL, pidfd);
    if (pid >= 0 && way->looks_up)
        wait_for_memory(work, child, pid, *pidfd);
    pr_stack_release(stack);
    return pid;
}

/* --- the report ------------------------------------------------------------------------------- */

/* A child that cannot be killed (it has another uid by now, and we no CAP_KILL) is left as it is, a
 * child that has started: waiting for its end would be waiting for its new owner. */
static struct pr_report kill_for(struct pr_report report, long pid, int pidfd)
{
    return pr_signal_child(pidfd, (int)pid, SIGKILL) < 0 ? (struct pr_report){.index = -1} : report;
}

/* Whether the child that had locked the pipe has it no more: by exec or exit. */
static bool has_let_go(int report_fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return sys_fcntl(report_fd, F_GETLK, (long)&whole) == 0 && whole.l_type == F_UNLCK;
}

static long poll_report(int report_fd, long patience_ns)
{
    struct pollfd polled = {.fd = report_fd, .events = POLLIN};
    struct timespec patience = {0, patience_ns};
    return sys_ppoll(&polled, 1, &patience);
}

/* Whether there is nobody any more who could tell: it is a zombie, or others have reaped it. */
static bool is_dead(long pid, int pidfd)
{
    siginfo_t info = {0};
    long result = wait_for(pid, pidfd, &info, WEXITED | WNOHANG | WNOWAIT);
    return result == -ECHILD || (result == 0 && info.si_pid != 0);
}

/* Nothing has come for a while.  Whether that is all: *report then says why. */
static bool is_settled(const struct work *work, int report_fd, bool is_locked, long pid, int pidfd,
                       struct pr_report *report)
{
    struct pr_report held = what_holds(work, pid, pidfd);
    /* Asked last: a program may stop itself as it likes. */
    bool has_ended = (is_locked && has_let_go(report_fd)) || is_dead(pid, pidfd);
    if (!has_ended && held.stage == PR_STAGE_NONE)
        return false;
    if (poll_report(report_fd, 0) != 0) /* it has just told, or is the program by now */
        return false;
    *report = has_ended ? (struct pr_report){.index = -1} : kill_for(held, pid, pidfd);
    return true;
}

/* Wait for a report, or for the child to let go of the pipe: by exec, or by its end.  From the change of
 * identity on, the target user may signal the child; one that is stopped would keep us waiting for as
 * long as that user likes, so it is killed; and so is one that is frozen. */
static struct pr_report read_report(const struct work *work, int report_fd, bool is_locked, long pid,
                                    int pidfd)
{
    struct pr_report report = {0};
    for (size_t have = 0;;) {
        long ready = poll_report(report_fd, LOOK_UP_NS);
        if (ready == 0 || ready == -EINTR) {
            if (is_settled(work, report_fd, is_locked, pid, pidfd, &report))
                return report;
            continue;
        }
        long size = sys_read(report_fd, (char *)&report + have, sizeof report - have);
        if (size == -EINTR) /* it blocks, where poll is denied */
            continue;
        if (size < 0) /* whether it failed we cannot know, so it must not go on */
            return kill_for((struct pr_report){PR_STAGE_REPORT, (int)-size, -1}, pid, pidfd);
        if (size == 0)
            return (struct pr_report){.index = -1};
        have += (size_t)size;
        if (have < sizeof report)
            continue;
        if (report.stage != PR_STAGE_NONE)
            return report;
        is_locked = true;
        have = 0;
    }
}

/* --- one attempt ------------------------------------------------------------------------------ */

static struct pr_become what_to_become(const struct pr_request *request, uint64_t inherited_mask)
{
    return (struct pr_become){
        .uid = request->uid,
        .gid = request->gid,
        .groups = request->groups,
        .group_count = request->group_count,
        .death_signal = request->death_signal,
        .no_new_privs = request->flags & PR_FLAG_NO_NEW_PRIVS ? 1 : 0,
        .parent = request->death_signal ? (int)sys_getpid() : 0,
        .final_mask = request->flags & PR_FLAG_SIGMASK ? request->signal_mask : inherited_mask,
    };
}

/* Handlers, too, where the clone does not clear them: the mask is opened before exec. */
static uint64_t which_to_reset(const struct pr_request *request, const struct way *way)
{
    bool known = request->flags & PR_FLAG_IGNORED && way->features & PR_FEATURE_CLONE3;
    return known ? request->ignored_signals : ~UINT64_C(0);
}

/* What terminals send to a group, and a child that shares our memory must not take by its default once
 * its mask is open: a stop would hold us, too, and before Linux 5.16 the core dump of SIGQUIT kills
 * all who share the memory.  In a session of its own no terminal knows it yet. */
static uint64_t which_to_catch(const struct pr_request *request, const struct way *way,
                               uint64_t final_mask)
{
    bool opens_its_mask = way->shares_memory && !way->uses_launcher;
    uint64_t of_terminals = request->flags & PR_FLAG_SESSION ? 0 : STOPS | SET_OF(SIGQUIT);
    return opens_its_mask ? of_terminals & ~final_mask : 0;
}

/* Plan, clone, and let go of what only the plan needed.  The pid, or -errno. */
static long start_child(struct work *work, struct way *way, struct pr_child *child, int report_fd,
                        int *pidfd)
{
    uint32_t rows = list_rows(work, way, report_fd);
    way->shares_fds = way->shares_fds && land_sources(work, rows);
    child->cut = way->shares_fds ? pr_slots_cut() : 0;
    if (report_fd >= 0)
        child->pipe_target = work->rows[rows - 1].target;
    if (way->uses_launcher) {
        write_launcher_argv(work, &child->become, child->pipe_target);
        child->launcher_argv = work->launcher_argv;
    } else if (report_fd >= 0) {
        child->report_row = (int)rows - 1;
        child->report_fd = work->rows[rows - 1].source;
    }
    child->moves = work->moves;
    child->move_count = pr_plan_moves(work->rows, rows, work->moves, work->done);
    child->closes = work->closes;
    child->close_count = pr_plan_closes(work->rows, rows, work->closes, work->sorted);

    long pid = clone_child(work, way, child, pidfd);
    if (way->shares_fds)
        release_slots(work, rows);
    return pid;
}

static int conclude(struct work *work, long pid, int pidfd, struct pr_report report,
                    bool may_be_stopped)
{
    if (report.stage != PR_STAGE_NONE) {
        reap_failed_child(pid, pidfd, may_be_stopped);
        return fail(work, report.stage, -report.error, report.index);
    }
    work->result->pid = (int)pid;
    work->result->pidfd = pidfd;
    return 0;
}

static int attempt(struct work *work, struct way *way)
{
    int report_pipe[2] = {-1, -1};
    if (!way->shares_memory || way->uses_launcher) {
        long result = sys_pipe2(report_pipe, O_CLOEXEC);
        if (result < 0)
            return fail(work, PR_STAGE_REPORT, result, -1);
    }
    uint64_t inherited_mask;
    pr_signals_block(!(way->features & PR_FEATURE_CLONE3), &inherited_mask);
    struct pr_become become = what_to_become(work->request, work->mask ? *work->mask : inherited_mask);
    struct pr_child child = {
        .request = work->request,
        .candidates = work->candidates,
        .argv = work->argv,
        .env = work->env,
        .enter_cgroup = way->enters_cgroup_by_hand,
        .reset_signals = which_to_reset(work->request, way),
        .caught_signals = which_to_catch(work->request, way, become.final_mask),
        .may_close_range = !!(way->features & PR_FEATURE_CLOSE_RANGE),
        .report_row = -1,
        .report_fd = -1,
        .pipe_target = -1,
        .become = become,
        .report = {.index = -1},
    };
    int pidfd = -1;
    long pid = start_child(work, way, &child, report_pipe[1], &pidfd);
    pr_signals_restore(&inherited_mask);

    if (report_pipe[1] >= 0)
        sys_close(report_pipe[1]); /* or its end would never be seen */
    int result;
    if (pid < 0) {
        result = fail(work, PR_STAGE_CLONE, pid, -1);
    } else {
        struct pr_report report = {child.report.stage, child.report.error, child.report.index};
        if (report.stage == PR_STAGE_NONE && report_pipe[0] >= 0)
            report = read_report(work, report_pipe[0], child.is_locked, pid, pidfd);
        result = conclude(work, pid, pidfd, report, report_pipe[0] >= 0);
    }
    if (report_pipe[0] >= 0)
        sys_close(report_pipe[0]);
    return result;
}

/* --- down the ladder -------------------------------------------------------------------------- */

static bool is_shortage(long error)
{
    return error == -EAGAIN || error == -ENOMEM || error == -EMFILE || error == -ENFILE;
}

/* After a failed attempt: whether another one, without what was refused, makes sense. */
static bool step_down(const struct work *work, const struct way *way, struct avoided *avoided)
{
    long error = -work->result->error;
    switch (work->result->stage) {
    case PR_STAGE_CLONE:
        if (work->request->cgroup_fd >= 0 && !way->enters_cgroup_by_hand && !is_shortage(error)) {
            avoided->clone_into_cgroup = true; /* older than 5.7, or a bad cgroup: by hand says which */
            return true;
        }
        if (!pr_ladder_is_refusal(error))
            return false;
        if (way->features & PR_FEATURE_CLONE3) {
            pr_ladder_drop(PR_FEATURE_CLONE3);
        } else if (way->features & PR_FEATURE_PIDFD) {
            avoided->pidfd = true;
        } else if (way->shares_memory) { /* EINVAL in a time namespace before 6.2, say */
            pr_ladder_drop(PR_FEATURE_VFORK | PR_FEATURE_UNSHARE);
            avoided->pidfd = false;
        } else {
            return false;
        }
        return true;
    case PR_STAGE_UNSHARE:
        if (!pr_ladder_is_refusal(error))
            return false;
        pr_ladder_drop(PR_FEATURE_UNSHARE);
        return true;
    case PR_STAGE_HELPER:
        /* Its arguments are some words more than the program's own, which may just fit. */
        if (!is_shortage(error) && error != -E2BIG && error != -ETXTBSY)
            pr_ladder_drop(PR_FEATURE_HELPER);
        avoided->launcher = true;
        return true;
    case PR_STAGE_STOPPED:
        if (error == -EINTR && ++avoided->stops < MOST_STOPS)
            return true;
        work->result->error = ECANCELED; /* nobody is to be asked to try again */
        return false;
    default:
        return false;
    }
}

static int attempt_until_settled(struct work *work)
{
    struct avoided avoided = {0};
    for (;;) {
        struct way way = choose_way(work->request, &avoided);
        int result = attempt(work, &way);
        if (avoided.pidfd && (result == 0 || work->result->stage != PR_STAGE_CLONE))
            pr_ladder_drop(PR_FEATURE_PIDFD);
        work->result->mode = mode_of(&way);
        if (result == 0)
            return 0;
        if (!step_down(work, &way, &avoided))
            return -work->result->error;
    }
}

/* When their ends are closed: of a child that is over by now the set then tells the pipes' ends first
 * and the exit last, which is the order that a child that lives longer has. */
static int watch_exit(struct work *work)
{
    struct pr_result *result = work->result;
    long watched = result->pidfd < 0 ? 0 : watch(work->request, result->pidfd, EPOLLIN);
    if (watched >= 0)
        return 0;
    if (pr_signal_child(result->pidfd, result->pid, SIGKILL) == -EPERM) {
        sys_close(result->pidfd); /* it cannot be undone: a child without a pidfd, then */
        result->pidfd = -1;
        return 0;
    }
    reap_failed_child(result->pid, result->pidfd, true);
    result->pid = result->pidfd = -1;
    return fail(work, PR_STAGE_WATCH, watched, -1);
}

static int spawn_with_pipes(struct work *work)
{
    int result = open_pipes(work);
    if (result == 0)
        result = attempt_until_settled(work);
    close_theirs(work);
    if (result == 0)
        result = watch_exit(work);
    if (result < 0) {
        close_all_ours(work);
        return result;
    }
    work->result->stage = PR_STAGE_NONE; /* a step down may have left its own */
    work->result->error = 0;
    work->result->index = -1;
    return 0;
}

int pr_spawn_with_mask(const struct pr_request *request, struct pr_result *result, int *ours,
                       const uint64_t *mask)
{
    struct work work = {.request = request, .result = result, .ours = ours, .mask = mask};
    *result = (struct pr_result){.pid = -1, .pidfd = -1, .index = -1};
    for (uint32_t i = 0; i < request->fd_count; i++)
        ours[i] = -1;
    if (!is_sound(request))
        return fail(&work, PR_STAGE_REQUEST, -EINVAL, -1);
    long known = pr_ladder_probe();
    if (known < 0)
        return fail(&work, PR_STAGE_CLONE, known, -1);
    pr_slots_reserve(); /* failing, spawns only cost more */
    char *block = lay_out(&work);
    if (!block)
        return fail(&work, PR_STAGE_MEMORY, -ENOMEM, -1);
    int code = read_request(&work) ? spawn_with_pipes(&work)
                                   : fail(&work, PR_STAGE_REQUEST, -EINVAL, -1);
    free(block);
    return code;
}

int pr_spawn(const struct pr_request *request, struct pr_result *result, int *ours)
{
    return pr_spawn_with_mask(request, result, ours, NULL);
}

int pr_reserve(void)
{
    return pr_slots_reserve();
}

uint32_t pr_features(void)
{
    return pr_ladder_probe() < 0 ? 0 : pr_ladder_features();
}
