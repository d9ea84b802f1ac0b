/* The sweep: every system call of an act fails once, with each error that it may have.
 *
 * An act is performed once to learn which calls it makes, on either side of the clone.  Then, for each
 * call and each of its errors, a fresh process performs it again with that call struck.  Whatever
 * happens, the result must make sense: success means that the program ran, failure names the error
 * that was struck (or the one that the act has anyway), and the stage where the call belongs; and
 * nothing is left: no fd, no child, no signal blocked, and the parent as dumpable as it was.  At last
 * the act is performed unstruck, in the same process, and must succeed: what was learnt from a blow
 * may cost features, not function. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ladder.h"
#include "scene.h"
#include "slots.h"
#include "sys.h"
#include "twin.h"

enum { MOST_ERRORS = 8 };

/* The errors that a call may have, in the core's use of it.  None: it cannot fail there. */
static const struct failing_call {
    const char *name;
    long number;
    int errors[MOST_ERRORS];
} failing_calls[] = {
#define FAILS(name, ...) {#name, SYS_##name, {__VA_ARGS__}}
    FAILS(pipe2, EMFILE, ENFILE),
    FAILS(dup3, EBADF, EBUSY, EMFILE),
    FAILS(fcntl, EPERM, EMFILE),
    FAILS(close, EINTR, EIO),
    FAILS(close_range, ENOSYS, EPERM, EINVAL, ENOMEM),
    FAILS(fstat, EPERM),
    FAILS(openat, ENOENT, EACCES, EMFILE, ENOMEM),
    FAILS(read, EINTR, EIO),
    FAILS(pread64, EINTR, EIO, ENODEV),
    FAILS(write, EPIPE),
    FAILS(ioctl, ENOTTY, EPERM, EIO),
    FAILS(getdents64, EACCES, ENOMEM),
    FAILS(ppoll, EINTR, ENOMEM, ENOSYS),
    FAILS(clone3, EAGAIN, ENOMEM, EMFILE, ENOSYS, EPERM, EINVAL),
    FAILS(clone, EAGAIN, ENOMEM, EMFILE, EPERM, EINVAL),
    FAILS(exit_group, 0),
    FAILS(execve, ENOENT, EACCES, EPERM, ENOEXEC, ENOMEM, EAGAIN, E2BIG, ETXTBSY),
    FAILS(waitid, EINTR),
    FAILS(pidfd_send_signal, ENOSYS, EPERM),
    FAILS(kill, EPERM), /* ESRCH is said of a child that others reaped, which is then none of ours */
    FAILS(futex, EINTR, ENOSYS, EPERM),
    FAILS(getpid, 0),
    FAILS(getppid, 0),
    FAILS(rt_sigprocmask, 0),
    FAILS(rt_sigaction, EINVAL),
    FAILS(chdir, ENOENT, EACCES, EIO),
    FAILS(umask, 0),
    FAILS(setsid, EPERM),
    FAILS(setpgid, EPERM, ESRCH),
    FAILS(prlimit64, EPERM, EINVAL),
    FAILS(getpriority, EPERM),
    FAILS(setpriority, EACCES, EPERM),
    FAILS(prctl, EINVAL, EPERM),
    FAILS(capset, EPERM),
    FAILS(getresuid, EPERM),
    FAILS(setresuid, EPERM, EAGAIN),
    FAILS(setresgid, EPERM),
    FAILS(setgroups, EPERM, ENOMEM),
    FAILS(nanosleep, EINTR),
    FAILS(epoll_ctl, ENOSPC, ENOMEM, EBADF),
    FAILS(epoll_create1, EMFILE, ENFILE, ENOMEM),
    FAILS(epoll_pwait, EINTR),
    FAILS(eventfd2, EMFILE, ENFILE, ENOMEM),
    FAILS(timerfd_create, EMFILE, ENFILE),
    FAILS(timerfd_settime, EINVAL),
    FAILS(mprotect, ENOMEM),
    FAILS(munmap, ENOMEM),
    FAILS(mmap, ENOMEM),
#undef FAILS
};
enum { FAILING_CALLS = sizeof failing_calls / sizeof *failing_calls };

static const struct failing_call *find_call(long number)
{
    for (int i = 0; i < FAILING_CALLS; i++)
        if (failing_calls[i].number == number)
            return &failing_calls[i];
    return NULL;
}

TEST(every_call_of_the_core_has_its_errors_listed)
{
    const struct {
        const char *name;
        long number;
    } calls[] = {
#define CALL(name) {#name, SYS_##name},
#include "calls.h"
        CALL(clone3) /* made by ladder.c itself */
#undef CALL
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!find_call(calls[i].number))
            FAIL("%s is not in failing_calls", calls[i].name);
    CHECK_INT(sizeof calls / sizeof *calls, FAILING_CALLS);
}

/* How often each call was struck, over all cases: so in shared memory, from before the first. */
static int *struck;

__attribute__((constructor)) static void open_struck(void)
{
    struck = mmap(NULL, FAILING_CALLS * sizeof *struck, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static int find_struck(const char *name)
{
    for (int i = 0; i < FAILING_CALLS; i++)
        if (strcmp(failing_calls[i].name, name) == 0)
            return struck[i];
    return 0;
}

/* --- the sweep -------------------------------------------------------------------------------- */

struct act {
    /* What the act finds; done before the first look at the fds. */
    void (*prepare)(const struct mode *mode);
    /* 0, or -errno.  Checks by itself what belongs to its success. */
    int (*perform)(const struct mode *mode);
    /* What `perform` returns when nothing is struck. */
    int usually;
    /* It is one call of the core, with a stage, and nothing around it: `consequences` says exactly
     * what is told.  Of other acts it says where a spawn in them may have failed. */
    bool is_exact;
};

struct blow {
    const struct act *act;
    const struct mode *mode;
    enum twin_side side;
    long number;
    int nth;
    int error;      /* 0: a signal */
    int signal;
};

static struct scene scene;

/* The landing slots are read ends of one pipe.  Blows may cost some, and cold acts get them. */
static struct open_fd one_slot; /* fd -1: none is known yet */

static bool is_read_end(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) == 0 && S_ISFIFO(facts.st_mode) && !(fcntl(fd, F_GETFL) & O_ACCMODE);
}

static bool is_same_file(const struct open_fd *one, const struct open_fd *other)
{
    return one->inode == other->inode && one->device == other->device;
}

/* More than two are no ends of a pipe that was left open. */
static void learn_slots(const struct fd_list *list)
{
    one_slot.fd = -1;
    for (int at = 0; at < list->count; at++) {
        int copies = 0;
        for (int i = 0; i < list->count; i++)
            copies += is_same_file(&list->fds[i], &list->fds[at]);
        if (copies > 2 && is_read_end(list->fds[at].fd))
            one_slot = list->fds[at];
    }
}

static bool is_slot(const struct open_fd *fd)
{
    if (one_slot.fd < 0 && is_read_end(fd->fd)) /* of a cold act: then all that is new is of that pipe */
        one_slot = *fd;
    return one_slot.fd >= 0 && is_same_file(fd, &one_slot);
}

static bool has_fd(const struct fd_list *list, struct open_fd wanted)
{
    for (int i = 0; i < list->count; i++)
        if (memcmp(&list->fds[i], &wanted, sizeof wanted) == 0)
            return true;
    return false;
}

static void check_fds_but_slots(const struct fd_list *before)
{
    static struct fd_list after;
    list_fds(&after);
    for (int i = 0; i < after.count; i++)
        if (!has_fd(before, after.fds[i]) && !is_slot(&after.fds[i]))
            FAIL("fd %d is new or changed", after.fds[i].fd);
    for (int i = 0; i < before->count; i++)
        if (!has_fd(&after, before->fds[i]) && !is_slot(&before->fds[i]))
            FAIL("fd %d was closed or changed", before->fds[i].fd);
}

/* --- what a blow leads to ----------------------------------------------------------------------- */

enum { MOST_STAGES = 3 };

/* Where it is told that a call failed; what is not listed is done without, or done in another way. */
static const struct consequence {
    enum twin_side side;
    long number;
    int stages[MOST_STAGES];         /* of its first calls (first_calls), of the next, and so on */
    int done_without[MOST_ERRORS];   /* asked again, or done in another way, after these alone */
} consequences[] = {
#define REFUSALS {ENOSYS, EPERM, EINVAL}
    {TWIN_PARENT, SYS_pipe2, {PR_STAGE_PIPE, PR_STAGE_REPORT}, {0}},
    {TWIN_PARENT, SYS_fcntl, {PR_STAGE_PIPE, PR_STAGE_NONE}, {0}},
    {TWIN_PARENT, SYS_epoll_ctl, {PR_STAGE_WATCH, PR_STAGE_NONE}, {0}},
    {TWIN_PARENT, SYS_mmap, {PR_STAGE_CLONE}, {0}},
    {TWIN_PARENT, SYS_mprotect, {PR_STAGE_CLONE}, {0}},
    {TWIN_PARENT, SYS_clone3, {PR_STAGE_CLONE}, REFUSALS},
    {TWIN_PARENT, SYS_clone, {PR_STAGE_CLONE}, REFUSALS},
    {TWIN_PARENT, SYS_read, {PR_STAGE_REPORT}, {EINTR}},
    {TWIN_PARENT, SYS_openat, {PR_STAGE_PTY_OPEN}, {0}},
    {TWIN_PARENT, SYS_ioctl, {PR_STAGE_PTY_UNLOCK, PR_STAGE_PTY_SIZE, PR_STAGE_PTY_PEER}, {0}},
    {TWIN_CHILD, SYS_close_range, {PR_STAGE_UNSHARE, PR_STAGE_NONE}, REFUSALS},
    {TWIN_CHILD, SYS_setsid, {PR_STAGE_SETSID}, {0}},
    {TWIN_CHILD, SYS_setpgid, {PR_STAGE_SETPGID}, {0}},
    {TWIN_CHILD, SYS_dup3, {PR_STAGE_DUP, PR_STAGE_REPORT}, {EBUSY}},
    {TWIN_CHILD, SYS_fcntl, {PR_STAGE_DUP, PR_STAGE_NONE}, {0}},
    {TWIN_CHILD, SYS_ioctl, {PR_STAGE_CTTY}, {0}},
    {TWIN_CHILD, SYS_chdir, {PR_STAGE_CHDIR}, {0}},
    {TWIN_CHILD, SYS_prlimit64, {PR_STAGE_RLIMIT}, {0}},
    {TWIN_CHILD, SYS_getpriority, {PR_STAGE_NICE}, {0}},
    {TWIN_CHILD, SYS_setpriority, {PR_STAGE_NICE}, {0}},
    {TWIN_CHILD, SYS_getresuid, {PR_STAGE_SETGID}, {0}},
    {TWIN_CHILD, SYS_setresgid, {PR_STAGE_SETGID}, {0}},
    {TWIN_CHILD, SYS_setgroups, {PR_STAGE_SETGROUPS}, {0}},
    {TWIN_CHILD, SYS_setresuid, {PR_STAGE_SETUID}, {0}},
    {TWIN_CHILD, SYS_capset, {PR_STAGE_SETUID}, {0}},
    {TWIN_CHILD, SYS_prctl, {PR_STAGE_NO_NEW_PRIVS, PR_STAGE_DEATH_SIGNAL}, {0}},
    {TWIN_CHILD, SYS_execve, {PR_STAGE_EXEC}, {ETXTBSY}},
#undef REFUSALS
};
enum { CONSEQUENCES = sizeof consequences / sizeof *consequences };

static const struct consequence *find_consequence(const struct blow *blow)
{
    for (int i = 0; i < CONSEQUENCES; i++)
        if (consequences[i].side == blow->side && consequences[i].number == blow->number)
            return &consequences[i];
    return NULL;
}

/* How often each stage was told of a call that was struck; in shared memory, as `struck`. */
static int (*told)[MOST_STAGES];

__attribute__((constructor)) static void open_told(void)
{
    told = mmap(NULL, CONSEQUENCES * sizeof *told, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* The row of the map that has the nth pipe, counted from 1; -1 beyond the last. */
static int row_of_pipe(int nth)
{
    for (uint32_t row = 0; row < scene.request.fd_count; row++)
        if (scene.sources[row] < 0 && --nth == 0)
            return (int)row;
    return -1;
}

static int count_pipes(void)
{
    int count = 0;
    while (row_of_pipe(count + 1) >= 0)
        count++;
    return count;
}

static int count_moved(void)
{
    int count = 0;
    for (uint32_t row = 0; row < scene.request.fd_count; row++)
        count += scene.child_fds[row] != scene.sources[row];
    return count;
}

/* How many calls have the first of the stages. */
static int first_calls(const struct blow *blow)
{
    bool is_watched = blow->act->usually == 0 && pr_features() & PR_FEATURE_PIDFD;
    switch (blow->number) {
    case SYS_pipe2: /* then the report's */
        return count_pipes();
    case SYS_epoll_ctl: /* of the pipes and the pidfd; then what is taken out */
        return count_pipes() + is_watched;
    case SYS_dup3: /* then the report's */
        return count_moved();
    case SYS_fcntl: /* in the child: of what stays where it is; then the report's lock, which a parent asks
                     * for that has to wait long */
        return blow->side == TWIN_CHILD ? (int)scene.request.fd_count - count_moved() : count_pipes();
    case SYS_close_range: /* then those that close */
        return !!(scene.result.mode & PR_FEATURE_UNSHARE);
    case SYS_prctl:
        return !!(scene.request.flags & PR_FLAG_NO_NEW_PRIVS);
    case SYS_ioctl:
        return 1;
    default:
        return INT_MAX;
    }
}

static bool may_launch; /* before the blow, which may have cost it */

/* Whether the struck exec was the launcher's; then a fork follows. */
static bool is_of_launcher(const struct blow *blow)
{
    return blow->number == SYS_execve && blow->nth == 1 && may_launch && blow->mode
           && blow->mode->identity;
}

static bool is_at_last_way; /* before the blow, as above */

/* A fork without a pidfd: there is no step down from here. */
static bool is_fork_without_pidfd(const struct mode *mode)
{
    uint32_t usable = pr_features();
    bool forks = !(usable & PR_FEATURE_VFORK) || (mode->identity && !(usable & PR_FEATURE_HELPER));
    return forks && !(usable & PR_FEATURE_PIDFD);
}

static bool is_last_way(const struct blow *blow)
{
    return blow->number == SYS_clone && blow->mode && is_at_last_way;
}

/* Only who has put root aside, and does not see it, has not taken it back when the gid is due. */
static bool has_no_need(const struct blow *blow)
{
    return blow->number == SYS_getresuid && geteuid() == 0;
}

static bool struck_a_look; /* after the blow: see is_of_a_look */

static bool is_done_without(const struct blow *blow, const struct consequence *consequence)
{
    if (is_of_launcher(blow) || has_no_need(blow) || struck_a_look)
        return true;
    for (int i = 0; i < MOST_ERRORS && consequence->done_without[i]; i++)
        if (consequence->done_without[i] == blow->error)
            return !is_last_way(blow);
    return false;
}

/* Which of its call's stages the blow belongs to, counted from 0. */
static int step_of(const struct blow *blow)
{
    int first = first_calls(blow), step = blow->nth <= first ? 0 : blow->nth - first;
    return step < MOST_STAGES ? step : MOST_STAGES - 1;
}

/* Also for the next look at it: the request is that of the act, and the result is there. */
static int stage_of(const struct blow *blow)
{
    const struct consequence *consequence = find_consequence(blow);
    if (!consequence || is_done_without(blow, consequence))
        return PR_STAGE_NONE;
    return consequence->stages[step_of(blow)];
}

static void check_index(const struct blow *blow)
{
    int index = scene.result.index;
    switch (scene.result.stage) {
    case PR_STAGE_PIPE:
    case PR_STAGE_WATCH: /* the pidfd has no row */
        CHECK_INT(index, row_of_pipe(blow->nth));
        break;
    case PR_STAGE_DUP:
        CHECK(index >= 0 && index < (int)scene.request.fd_count);
        break;
    case PR_STAGE_EXEC:
    case PR_STAGE_RLIMIT:
        CHECK_INT(index, 0);
        break;
    default:
        CHECK_INT(index, -1);
    }
}

static void must_be_told(const struct blow *blow, int stage, int code)
{
    const struct consequence *consequence = find_consequence(blow);
    if (scene.result.stage != stage)
        FAIL("told at \"%s\" rather than \"%s\"", pr_stage_text(scene.result.stage),
             pr_stage_text(stage));
    CHECK_INT(code, -blow->error);
    check_index(blow);
    told[consequence - consequences][step_of(blow)]++;
}

static void must_be_as_usual(const struct blow *blow, int code)
{
    bool is_lost = blow->number == SYS_write && blow->nth > 1; /* the first tells of a fork's lock */
    CHECK_INT(code, blow->act->usually);
    CHECK_INT(scene.result.stage, code && !is_lost ? PR_STAGE_EXEC : PR_STAGE_NONE);
}

/* An act around a spawn may fail elsewhere, and has spawns that come after other calls. */
static void may_be_told(const struct blow *blow, int code)
{
    const struct consequence *consequence = find_consequence(blow);
    int stage = scene.result.stage;
    if (code != blow->act->usually && code != -blow->error)
        FAIL("the act failed with %s", strerror(-code));
    if (stage == PR_STAGE_NONE || (code == blow->act->usually && stage == PR_STAGE_EXEC))
        return;
    for (int i = 0; consequence && i < MOST_STAGES; i++) {
        if (consequence->stages[i] != stage)
            continue;
        told[consequence - consequences][i]++;
        return;
    }
    FAIL("told at \"%s\"", pr_stage_text(stage));
}

static void check_outcome(const struct blow *blow, int code)
{
    int stage = stage_of(blow);
    if (!blow->error) /* a signal; the act itself looks what came of it */
        return;
    if (!blow->act->is_exact)
        may_be_told(blow, code);
    else if (stage != PR_STAGE_NONE)
        must_be_told(blow, stage, code);
    else
        must_be_as_usual(blow, code);
}

/* --- a blow ------------------------------------------------------------------------------------- */

/* What a parent has, and is to have whatever has been struck. */
struct stock {
    struct fd_list fds;
    uint64_t mask;
    int dumpable;
};

static void take_stock(struct stock *stock)
{
    list_fds(&stock->fds);
    learn_slots(&stock->fds);
    stock->mask = current_mask();
    stock->dumpable = current_dumpable();
}

static void check_stock(const struct stock *before)
{
    check_fds_but_slots(&before->fds);
    check_no_child();
    CHECK(current_mask() == before->mask);
    CHECK_INT(current_dumpable(), before->dumpable);
}

static void prepare(const struct blow *blow)
{
    signal(SIGPIPE, SIG_IGN); /* a child that was struck reads nothing */
    blow->act->prepare(blow->mode);
    twin_reset();
}

static int perform(const struct blow *blow)
{
    scene.result = (struct pr_result){0}; /* an act may end before it spawns */
    return blow->act->perform(blow->mode);
}

static long logged_before(int at, int steps)
{
    return at >= steps ? twin_log_at(TWIN_PARENT, at - steps) : 0;
}

/* Whether the struck call was one of those by which a parent that waits for long (on a busy machine, or
 * under valgrind) looks whether the child is frozen: without an answer it just waits on.  Such a look
 * opens a file, after the wait that asks whether the child is stopped, or after it has read and closed
 * another one; and it reads what it has just opened. */
static bool is_of_a_look(const struct blow *blow)
{
    int at = 0, met = 0;
    if (blow->side != TWIN_PARENT || (blow->number != SYS_read && blow->number != SYS_openat))
        return false;
    for (; at < twin_logged(TWIN_PARENT); at++)
        if (twin_log_at(TWIN_PARENT, at) == blow->number && ++met == blow->nth)
            break;
    if (blow->number == SYS_read)
        return logged_before(at, 1) == SYS_openat;
    return logged_before(at, 1) == SYS_waitid
           || (logged_before(at, 1) == SYS_close && logged_before(at, 2) == SYS_read
               && logged_before(at, 3) == SYS_openat);
}

static void strike(void *opaque)
{
    static struct stock before;
    const struct blow *blow = opaque;
    const struct failing_call *call = find_call(blow->number);
    prepare(blow);
    may_launch = blow->mode && pr_features() & PR_FEATURE_HELPER; /* a cold act has no mode */
    is_at_last_way = blow->mode && is_fork_without_pidfd(blow->mode);
    take_stock(&before);
    twin_add((struct twin_rule){blow->side, blow->number, blow->nth, -blow->error, blow->signal});
    int code = perform(blow);
    if (twin_has_met())
        struck[call - failing_calls]++;
    struck_a_look = is_of_a_look(blow);
    twin_reset();
    check_outcome(blow, code);
    check_stock(&before);
    code = perform(blow);
    if (code != blow->act->usually)
        FAIL("afterwards, unstruck, the act failed: %s", strerror(-code));
    check_stock(&before);
    check_no_leaks();
}

/* Under valgrind, where a blow takes half a second, one in so many falls. */
enum { ONE_IN = 31 };

static bool is_left_out(void)
{
    static int count;
    return is_under_valgrind() && count++ % ONE_IN;
}

/* As run_apart, and says which blow it was. */
static void strike_apart(struct blow *blow)
{
    char text[160];
    if (is_left_out())
        return;
    const char *side = blow->side == TWIN_PARENT ? "parent" : "child";
    snprintf(text, sizeof text, "call %d of %s in the %s, %s", blow->nth,
             find_call(blow->number)->name, side,
             blow->error ? strerror(blow->error) : strsignal(blow->signal));
    check_context(text);
    run_apart(strike, blow);
    check_context(NULL);
}

struct call_log {
    int count;
    struct {
        enum twin_side side;
        long number;
        int nth;
    } calls[8192];
};

/* A child makes 62 rt_sigactions in a row, and without /proc and close_range a ppoll for each 512 of a
 * million fds.  They are all alike: the first and the last of each run are struck. */
static void read_log(struct call_log *log)
{
    log->count = 0;
    for (enum twin_side side = TWIN_PARENT; side <= TWIN_CHILD; side++) {
        for (int at = 0; at < twin_logged(side); at++) {
            long number = twin_log_at(side, at);
            int nth = 0;
            for (int i = 0; i <= at; i++)
                nth += twin_log_at(side, i) == number;
            bool is_alike = number == SYS_rt_sigaction || (number == SYS_ppoll && side == TWIN_CHILD);
            bool inside = is_alike && at > 0 && at + 1 < twin_logged(side)
                          && twin_log_at(side, at - 1) == number
                          && twin_log_at(side, at + 1) == number;
            if (number < 0 || inside)
                continue;
            log->calls[log->count].side = side;
            log->calls[log->count].number = number;
            log->calls[log->count++].nth = nth;
        }
    }
}

static void perform_once(void *opaque)
{
    const struct blow *blow = opaque;
    prepare(blow);
    CHECK_INT(perform(blow), blow->act->usually);
}

static void learn_calls(const struct act *act, const struct mode *mode, struct call_log *log)
{
    struct blow none = {.act = act, .mode = mode};
    run_apart(perform_once, &none);
    read_log(log);
    CHECK(log->count > 0);
}

static void sweep(const struct act *act, const struct mode *mode)
{
    static struct call_log log;
    learn_calls(act, mode, &log);
    for (int at = 0; at < log.count; at++) {
        const struct failing_call *call = find_call(log.calls[at].number);
        CHECK(call != NULL);
        for (int i = 0; i < MOST_ERRORS && call->errors[i]; i++) {
            struct blow blow = {act, mode, log.calls[at].side, call->number, log.calls[at].nth,
                                call->errors[i], 0};
            strike_apart(&blow);
        }
    }
}

/* A signal to the child just before each call that it makes. */
static void sweep_signal(const struct act *act, const struct mode *mode, int signal)
{
    static struct call_log log;
    learn_calls(act, mode, &log);
    for (int at = 0; at < log.count; at++) {
        struct blow blow = {act, mode, TWIN_CHILD, log.calls[at].number, log.calls[at].nth, 0, signal};
        if (log.calls[at].side == TWIN_CHILD)
            strike_apart(&blow);
    }
}

/* --- spawns ----------------------------------------------------------------------------------- */

static int terminal[2];

static void prepare_nothing(const struct mode *mode)
{
    (void)mode;
}

static void prepare_terminal(const struct mode *mode)
{
    int stage;
    (void)mode;
    CHECK_INT(pr_open_pty(0, 0, terminal, &stage), 0);
}

/* So many that what is opened next lies above the cut, and has to be landed. */
static void prepare_many_fds(const struct mode *mode)
{
    while (fcntl(0, F_DUPFD_CLOEXEC, 3) < (int)pr_slots_cut())
        ;
    prepare_terminal(mode);
}

/* How the last of the spawns that were finished ended. */
static struct pr_exit last_end;

/* 0 when the program ran: what it wrote is there, and its exit code.  A child that was ended by our
 * signal is as good. */
static int finish(int in)
{
    if (in >= 0) {
        CHECK(write(scene.ours[in], "word\n", 5) == 5 || errno == EPIPE);
        close(scene.ours[in]);
        scene.ours[in] = -1;
    }
    const char *text = scene_read(&scene, 0);
    bool ran = strcmp(text, "got word\n") == 0;
    last_end = scene_end(&scene);
    if (last_end.code == CLD_KILLED && last_end.status == SIGKILL)
        return 0;
    CHECK_INT(last_end.code, CLD_EXITED);
    CHECK_INT(last_end.status, 5);
    CHECK(ran);
    return 0;
}

static int spawn_with_everything(const struct mode *mode)
{
    const struct pr_rlimit limit = {RLIMIT_CORE, 0, 0};
    scene_shell(&scene, mode, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_map(&scene, 2, 2);
    scene_map(&scene, 3, terminal[1]);
    scene.request.cwd = "/usr";
    scene.request.rlimits = &limit;
    scene.request.rlimit_count = 1;
    scene.request.nice = 1;
    scene.request.umask = 0027;
    scene.request.tty_fd = 3;
    scene.request.death_signal = SIGUSR2;
    scene.request.flags |= PR_FLAG_UMASK | PR_FLAG_NO_NEW_PRIVS | PR_FLAG_SESSION;
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

static int spawn_what_is_not_there(const struct mode *mode)
{
    scene_begin(&scene, mode, "/nowhere");
    scene_map(&scene, 1, PR_WE_READ);
    scene.request.flags |= PR_FLAG_GROUP;
    int code = scene_spawn(&scene);
    if (code)
        return code;
    struct pr_exit end = scene_end(&scene); /* a report that could not be written */
    CHECK(end.code == CLD_KILLED || end.status == 127);
    return -ENOENT;
}

static int epoll_fd;

static void prepare_epoll(const struct mode *mode)
{
    (void)mode;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_fd >= 0);
}

/* What is watched after a spawn that returned `code`. */
static void check_watched(int code)
{
    struct watched watched;
    if (code == 0) {
        scene_check_watched(&scene);
    } else {
        list_watched(epoll_fd, &watched);
        CHECK_INT(watched.count, 0);
    }
}

static int spawn_watched(const struct mode *mode)
{
    scene_shell(&scene, mode, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    int errors = scene_map(&scene, 2, PR_WE_READ);
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = epoll_fd;
    int code = scene_spawn(&scene);
    check_watched(code);
    if (code)
        return code;
    pr_drop(epoll_fd, scene.ours[errors]);
    scene.ours[errors] = -1;
    return finish(in);
}

static int spawn_watched_what_is_not_there(const struct mode *mode)
{
    scene_begin(&scene, mode, "/nowhere");
    scene_map(&scene, 1, PR_WE_READ);
    scene_map(&scene, 0, PR_WE_WRITE);
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = epoll_fd;
    int code = scene_spawn(&scene);
    check_watched(code);
    if (code)
        return code;
    scene_end(&scene); /* a report that could not be written */
    return -ENOENT;
}

/* It is in no cgroup; but that others may freeze it is what changes the way. */
static int spawn_what_may_be_frozen(const struct mode *mode)
{
    scene_shell(&scene, mode, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene.request.flags |= PR_FLAG_MAY_FREEZE;
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

static const struct act everything = {prepare_terminal, spawn_with_everything, 0, true};
static const struct act among_many = {prepare_many_fds, spawn_with_everything, 0, true};
static const struct act not_there = {prepare_nothing, spawn_what_is_not_there, -ENOENT, true};

TEST_IN_MODES(any_call_of_a_spawn_may_fail, every_mode)
{
    sweep(&everything, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_may_be_frozen_may_fail, main_modes)
{
    const struct act act = {prepare_nothing, spawn_what_may_be_frozen, 0, true};
    sweep(&act, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_fails_may_fail, main_modes)
{
    sweep(&not_there, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_is_watched_may_fail, main_modes)
{
    const struct act act = {prepare_epoll, spawn_watched, 0, true};
    skip_unless_watched_are_listed();
    sweep(&act, mode);
}

TEST_IN_MODES(any_call_of_a_watched_spawn_that_fails_may_fail, main_modes)
{
    const struct act act = {prepare_epoll, spawn_watched_what_is_not_there, -ENOENT, true};
    skip_unless_watched_are_listed();
    sweep(&act, mode);
}

TEST(any_call_of_a_spawn_among_many_fds_may_fail)
{
    sweep(&among_many, NULL);
}

static int spawn_for_the_first_time(const struct mode *mode)
{
    (void)mode;
    scene_shell(&scene, NULL, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

TEST_COLD(any_call_of_the_first_spawn_may_fail)
{
    const struct act first = {prepare_nothing, spawn_for_the_first_time, 0, false};
    sweep(&first, NULL);
}

static int busy_program;

static void prepare_busy_program(const struct mode *mode)
{
    (void)mode;
    busy_program = memfd_create("busy", MFD_CLOEXEC);
    /* A memfd is not busy by being created. */
    CHECK(open(proc_path("self/fd/%d", busy_program), O_WRONLY | O_CLOEXEC) >= 0);
}

static int spawn_busy_program(const struct mode *mode)
{
    scene_begin(&scene, mode, proc_path("self/fd/7"));
    scene_map(&scene, 7, busy_program);
    int code = scene_spawn(&scene);
    if (code)
        return code;
    CHECK_INT(scene_end(&scene).status, 127); /* a report that could not be written */
    return -ETXTBSY;
}

TEST(any_call_of_a_spawn_of_a_busy_program_may_fail)
{
    skip_under_valgrind("a busy program is said to be none");
    const struct act busy = {prepare_busy_program, spawn_busy_program, -ETXTBSY, true};
    sweep(&busy, NULL);
}

/* More spawns at once than there are stacks kept. */
static int use_many_stacks(const struct mode *mode)
{
    enum { MANY = 9 };
    void *stacks[MANY];
    int count = 0;
    (void)mode;
    while (count < MANY && (stacks[count] = pr_stack_take()))
        count++;
    for (int i = 0; i < count; i++) {
        memset(stacks[i], 1, 4096);
        pr_stack_release(stacks[i]);
    }
    return count == MANY ? 0 : -ENOMEM;
}

TEST(any_call_for_a_stack_may_fail)
{
    const struct act stacks = {prepare_nothing, use_many_stacks, 0, false};
    sweep(&stacks, NULL);
}

/* --- signals between two calls ---------------------------------------------------------------- */

TEST_IN_MODES(a_child_may_be_killed_before_any_call, every_mode)
{
    sweep_signal(&everything, mode, SIGKILL);
}

static int spawn_and_be_stopped(const struct mode *mode)
{
    int code = spawn_with_everything(mode);
    if (code == 0)
        return 0;
    CHECK_INT(scene.result.stage, PR_STAGE_STOPPED);
    CHECK_INT(code, -ECANCELED);
    return code;
}

static const struct mode forks[] = {
    {"by fork", PR_FEATURE_VFORK, false},
    {"identity by fork", PR_FEATURE_HELPER, true},
    {0},
};

TEST_IN_MODES(a_fork_may_be_stopped_before_any_call, forks)
{
    const struct act stopped = {prepare_terminal, spawn_and_be_stopped, 0, false};
    sweep_signal(&stopped, mode, SIGSTOP);
}

/* Also after it has written its report, on the way out. */
TEST_IN_MODES(a_fork_that_fails_may_be_stopped_before_any_call, forks)
{
    sweep_signal(&not_there, mode, SIGSTOP);
}

/* --- a change of identity --------------------------------------------------------------------- */

static void prepare_root_put_aside(const struct mode *mode)
{
    (void)mode;
    CHECK_INT(setresuid(-1, 65534, -1), 0);
    CHECK_INT(prctl(PR_SET_DUMPABLE, 1), 0); /* or our own fds could not be listed */
}

static int spawn_as_another(const struct mode *mode)
{
    scene_shell(&scene, mode, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_identity(&scene, 65534, 65534);
    scene.request.death_signal = SIGUSR2;
    scene.request.flags |= PR_FLAG_NO_NEW_PRIVS;
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

TEST_IN_MODES(any_call_of_a_change_of_identity_may_fail, forks + 1)
{
    const struct act changing = {prepare_nothing, spawn_as_another, 0, true};
    const struct act taking_back = {prepare_root_put_aside, spawn_as_another, 0, true};
    sweep(&changing, mode);
    sweep(&taking_back, mode);
}

/* --- inside the launcher ---------------------------------------------------------------------- */

static char launcher_rule[64];

static int spawn_by_launcher_twin(const struct mode *mode)
{
    (void)mode;
    scene_shell(&scene, NULL, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_identity(&scene, 65534, 65534);
    scene.request.launcher = launcher_twin_path;
    scene.request.death_signal = SIGUSR2;
    scene.request.flags |= PR_FLAG_NO_NEW_PRIVS;
    scene_environment(&scene, launcher_rule);
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

static const struct act launching = {prepare_nothing, spawn_by_launcher_twin, 0, true};

static int launch(const struct blow *blow)
{
    snprintf(launcher_rule, sizeof launcher_rule, "TWIN=%ld:%d:%d:%d", blow->number, blow->nth,
             -blow->error, blow->signal);
    check_context(launcher_rule);
    return perform(blow);
}

/* Who is killed at a call has come to it. */
static bool launcher_makes(long number, int nth)
{
    const struct blow blow = {&launching, NULL, TWIN_CHILD, number, nth, 0, SIGKILL};
    CHECK_INT(launch(&blow), 0);
    return last_end.code == CLD_KILLED;
}

/* The blow falls on each call that the launcher makes, one after the other. */
static void sweep_launcher(void (*fall)(const struct failing_call *call, int nth))
{
    static struct stock before;
    const struct blow none = {&launching, NULL, TWIN_CHILD, 0, 0, 0, 0};
    skip_unless_root();
    skip_unless_features(PR_FEATURE_HELPER);
    signal(SIGPIPE, SIG_IGN); /* a launcher that was struck reads nothing */
    take_stock(&before);
    for (int at = 0; at < FAILING_CALLS; at++) {
        const struct failing_call *call = &failing_calls[at];
        for (int nth = 1; launcher_makes(call->number, nth); nth++)
            fall(call, nth);
        check_stock(&before);
    }
    CHECK_INT(launch(&none), 0);
    CHECK_INT(last_end.code, CLD_EXITED);
}

static void fail_in_launcher(const struct failing_call *call, int nth)
{
    for (int i = 0; i < MOST_ERRORS && call->errors[i]; i++) {
        const struct blow blow = {&launching, NULL, TWIN_CHILD, call->number, nth,
                                  call->errors[i], 0};
        int code = launch(&blow);
        struck[call - failing_calls]++;
        if (call->number != SYS_fcntl) {
            check_outcome(&blow, code);
        } else { /* its first: the report is to end with an exec */
            CHECK_INT(code, -blow.error);
            CHECK_INT(scene.result.stage, PR_STAGE_REPORT);
        }
        check_no_child();
    }
}

TEST(any_call_of_the_launcher_may_fail)
{
    sweep_launcher(fail_in_launcher);
}

static void stop_in_launcher(const struct failing_call *call, int nth)
{
    const struct blow blow = {&launching, NULL, TWIN_CHILD, call->number, nth, 0, SIGSTOP};
    CHECK_INT(launch(&blow), -ECANCELED);
    CHECK_INT(scene.result.stage, PR_STAGE_STOPPED);
    check_no_child();
}

TEST(a_launcher_may_be_stopped_before_any_call)
{
    sweep_launcher(stop_in_launcher);
}

/* --- the rest --------------------------------------------------------------------------------- */

static int wait_signal_and_reap(const struct mode *mode)
{
    struct pr_exit end;
    scene_begin(&scene, mode, "/bin/cat");
    scene_map(&scene, 0, PR_WE_WRITE);
    int code = scene_spawn(&scene);
    if (code)
        return code;
    int signalled = pr_signal_child(scene.result.pidfd, scene.result.pid, SIGKILL);
    close(scene.ours[0]);
    scene.ours[0] = -1;
    int waited = pr_wait_exit(scene.result.pid);
    code = pr_reap(scene.result.pidfd, scene.result.pid, &end);
    if (code == 0 || code == -EINTR) {
        CHECK_INT(pr_wait_exit(scene.result.pid), 0);
        CHECK_INT(pr_reap(scene.result.pidfd, scene.result.pid, &end), 1);
    }
    if (scene.result.pidfd >= 0)
        close(scene.result.pidfd);
    return signalled ? signalled : waited;
}

static const struct mode pidfds[] = {
    {"by pidfd", 0, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {0},
};

TEST_IN_MODES(any_call_of_a_signal_and_a_reap_may_fail, pidfds)
{
    const struct act reaping = {prepare_nothing, wait_signal_and_reap, 0, false};
    sweep(&reaping, mode);
}

/* Neither a wake-up nor the ring of a bell that was struck does come (an eventfd's write fails at
 * 2^64 - 1, never in fact); so the one is not waited for, and the other is done here. */
static void take_unasked(struct pr_spawner *spawner, uint64_t wanted)
{
    const uint64_t one = 1;
    uint64_t token;
    int fds[3];
    pr_spawner_fds(spawner, fds);
    struct pollfd polled = {.fd = fds[0], .events = POLLIN};
    while (take_tokens(spawner, &token, 1) == 0) {
        CHECK_INT(write(fds[1], &one, sizeof one), sizeof one);
        poll(&polled, 1, 1); /* or this thread keeps the others from what it waits for */
    }
    CHECK_INT(token, wanted);
}

static void end_emptied(struct pr_spawner *spawner)
{
    uint64_t token;
    struct pollfd polled = {.fd = spawner_fd(spawner), .events = POLLIN};
    pr_spawner_close(spawner);
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    CHECK_INT(take_tokens(spawner, &token, 1), 0); /* readable once too often is what it may be */
    CHECK_INT(poll(&polled, 1, 0), 0);
    pr_spawner_free(spawner);
}

static int spawn_in_a_thread(const struct mode *mode)
{
    struct pr_spawner *spawner;
    struct pr_job job = {
        .request = &scene.request, .result = &scene.result, .ours = scene.ours, .token = 7,
    };
    (void)mode;
    int code = pr_spawner_open(1, 0, &spawner);
    if (code)
        return code;
    scene_shell(&scene, NULL, "read word; echo got $word; exit 5");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    CHECK_INT(pr_spawner_submit(spawner, &job), 0);
    take_unasked(spawner, 7);
    end_emptied(spawner);
    scene_check(&scene, -scene.result.error);
    return scene.result.error ? -scene.result.error : finish(in);
}

TEST(any_call_of_a_spawner_may_fail)
{
    const struct act threaded = {prepare_nothing, spawn_in_a_thread, 0, false};
    sweep(&threaded, NULL);
}

/* Either a stream comes in full, or, when its read was struck, not at all. */
static void check_kept(struct pr_job *job)
{
    const char *texts[] = {"out\n", "error\n"};
    struct pr_exit end = job->gather.exit;
    const char *data = job->data;
    for (int i = 0; i < 2; i++) {
        uint32_t size = job->told & PR_GATHERED_DATA ? job->gather.sizes[i] : 0;
        char text[16] = "";
        CHECK(size < sizeof text);
        memcpy(text, data ? data : "", size);
        data += size;
        if (scene.ours[i] >= 0)
            strcat(text, scene_read(&scene, i));
        CHECK(!*text || strcmp(text, texts[i]) == 0);
    }
    if (!(job->told & PR_GATHERED_EXIT))
        end = scene_end(&scene);
    CHECK(end.code == CLD_KILLED || end.status == 5 || end.status == 127);
    CHECK_INT(scene.ours[2], -1);
    pr_job_forget_data(job);
}

/* Two of them, where one may live at a time: the count is to be right whatever has been struck. */
static int keep_in_a_thread(const struct mode *mode)
{
    const int over = PR_GATHERED_ALL_0 | PR_GATHERED_ALL_1 | PR_GATHERED_EXIT;
    struct pr_spawner *spawner;
    int error = 0, code = pr_spawner_open(1, 1, &spawner);
    if (code)
        return code;
    for (uint64_t token = 7; token < 9; token++) {
        struct pr_job job = {
            .request = &scene.request, .result = &scene.result, .ours = scene.ours,
            .token = token, .keeps = 1, .rows = {2, 0, 1},
        };
        scene_shell(&scene, mode, "cat; echo out; echo error >&2; exit 5");
        scene_map(&scene, 2, PR_WE_READ);
        scene_map(&scene, 0, PR_WE_WRITE);
        CHECK_INT(pr_spawner_submit(spawner, &job), 0);
        take_unasked(spawner, token);
        if (scene.result.error) {
            scene_check(&scene, -scene.result.error);
            error = scene.result.error;
            continue;
        }
        check_kept(&job);
        if ((job.told & over) != over)
            pr_spawner_release(spawner);
    }
    end_emptied(spawner);
    return -error;
}

static const struct mode pidfds_and_forks[] = {
    {"by pidfd", 0, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {0},
};

TEST_IN_MODES(any_call_of_a_spawner_that_keeps_may_fail, pidfds_and_forks)
{
    const struct act keeping = {prepare_nothing, keep_in_a_thread, 0, false};
    sweep(&keeping, mode);
}

/* A child that is claimed is ours, also when the set does not let go of it. */
static int claim_from_a_thread(const struct mode *mode)
{
    struct pr_spawner *spawner;
    const uint64_t one = 1;
    struct pr_job job = {
        .request = &scene.request, .result = &scene.result, .ours = scene.ours, .token = 7,
        .keeps = 1, .rows = {-1, 0, -1},
    };
    int fds[3], state, go[2], code = pr_spawner_open(1, 1, &spawner);
    (void)mode;
    if (code)
        return code;
    CHECK_INT(pipe2(go, O_CLOEXEC), 0);
    scene_shell(&scene, NULL, "read word <&3; echo got word; exit 5");
    scene_map(&scene, 3, go[0]);
    CHECK_INT(pr_spawner_submit(spawner, &job), 0);
    pr_spawner_fds(spawner, fds);
    while ((state = pr_spawner_claim(spawner, &job)) == PR_JOB_WAITING || state == PR_JOB_BEGUN) {
        CHECK_INT(write(fds[1], &one, sizeof one), sizeof one);
        sched_yield();
    }
    if (state == PR_JOB_FINISHED) /* it could not be kept, or has failed */
        take_unasked(spawner, 7);
    CHECK_INT(state == PR_JOB_FINISHED ? job.told : 0, 0);
    if (!scene.result.error)
        pr_spawner_release(spawner);
    CHECK_INT(write(go[1], "\n", 1), 1);
    close(go[0]);
    close(go[1]);
    code = -scene.result.error;
    if (!code)
        code = finish(-1);
    end_emptied(spawner);
    return code;
}

TEST(any_call_around_a_claim_may_fail)
{
    const struct act claiming = {prepare_nothing, claim_from_a_thread, 0, false};
    skip_unless_features(PR_FEATURE_PIDFD);
    sweep(&claiming, NULL);
}

/* 0 when all that was not struck was told; else the error of the call that was not to be done without. */
static int gather_a_child(const struct mode *mode)
{
    char buffer[2 * 64];
    struct watched watched;
    scene_shell(&scene, mode, "echo out; echo error >&2; exit 5");
    scene_map(&scene, 2, PR_WE_READ);
    int code = scene_spawn(&scene);
    if (code)
        return code;
    struct pr_gather gather = {
        .epoll_fd = epoll_fd, .pid = scene.result.pid, .pidfd = scene.result.pidfd,
        .out_fds = {scene.ours[0], scene.ours[1]},
    };
    int watching = pr_gather_watch(&gather, 1);
    int waited = pr_wait_exit(gather.pid);
    int told = pr_gather(&gather, buffer, 64);
    if (waited || told < 0) {
        CHECK_INT(pr_wait_exit(gather.pid), 0);
        told = pr_gather(&gather, buffer, 64);
    }
    CHECK_INT(told & ~PR_GATHERED_DATA,
              PR_GATHERED_ALL_0 | PR_GATHERED_ALL_1 | PR_GATHERED_EXIT);
    CHECK(gather.exit.code == CLD_KILLED || gather.exit.status == 5 || gather.exit.status == 127);
    list_watched(epoll_fd, &watched);
    CHECK_INT(watched.count, 0);
    pr_gather_close(&gather);
    return watching;
}

TEST_IN_MODES(any_call_of_a_gathering_may_fail, pidfds)
{
    const struct act gathering = {prepare_epoll, gather_a_child, 0, false};
    skip_unless_watched_are_listed();
    sweep(&gathering, mode);
}

/* Nothing here is undone by a failure: it is put off, or done all the same. */
static int hang_up_on_a_child(const struct mode *mode)
{
    struct pr_exit end;
    struct watched watched;
    scene_shell(&scene, mode, "exit 5");
    scene_map(&scene, 0, PR_WE_WRITE);
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = epoll_fd;
    int code = scene_spawn(&scene);
    if (code)
        return code;
    int waited = pr_wait_exit(scene.result.pid);
    if (waited)
        CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    int are_closed = pr_close_ended(epoll_fd, scene.ours, scene.request.fd_count);
    CHECK_INT(scene.ours[0] < 0, are_closed);
    CHECK_INT(scene.ours[1] < 0, are_closed);
    for (int i = 0; i < 2; i++)
        pr_close_ours(epoll_fd, scene.ours, scene.request.fd_count, scene.ours[i]);
    int reaped = pr_reap_in(epoll_fd, &scene.result, &end);
    if (reaped < 1)
        CHECK_INT(pr_reap_in(epoll_fd, &scene.result, &end), 1);
    CHECK_INT(scene.result.pidfd, -1);
    CHECK(end.code == CLD_KILLED || end.status == 5 || end.status == 127);
    list_watched(epoll_fd, &watched);
    CHECK_INT(watched.count, 0);
    return waited;
}

TEST_IN_MODES(any_call_of_a_hang_up_may_fail, pidfds)
{
    const struct act hanging_up = {prepare_epoll, hang_up_on_a_child, 0, false};
    skip_unless_watched_are_listed();
    sweep(&hanging_up, mode);
}

static int open_terminal(const struct mode *mode)
{
    int code = pr_open_pty(24, 80, terminal, &scene.result.stage);
    scene.result.index = -1;
    (void)mode;
    if (code)
        return code;
    close(terminal[0]);
    close(terminal[1]);
    return 0;
}

TEST(any_call_of_a_terminal_may_fail)
{
    const struct act opening = {prepare_nothing, open_terminal, 0, true};
    sweep(&opening, NULL);
}

static int set_timer(const struct mode *mode)
{
    int fd = pr_open_timer();
    (void)mode;
    if (fd < 0)
        return fd;
    int code = pr_set_timer(fd, 1);
    close(fd);
    return code;
}

TEST(any_call_of_a_timer_may_fail)
{
    const struct act setting = {prepare_nothing, set_timer, 0, false};
    sweep(&setting, NULL);
}

static int leaf_fd, events_fd;

/* Also where no group is to be had: a directory without others below, and what a new group says. */
static void prepare_group(const struct mode *mode)
{
    const char text[] = "populated 0\nfrozen 0\n";
    (void)mode;
    leaf_fd = open(proc_path("self/fdinfo"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(leaf_fd >= 0);
    events_fd = memfd_create("cgroup.events", MFD_CLOEXEC);
    CHECK_INT(write(events_fd, text, sizeof text - 1), sizeof text - 1);
}

/* What cannot be told is not so; asked once more, it is. */
static int ask_group(const struct mode *mode)
{
    int answer = pr_cgroup_is_as_new(leaf_fd, events_fd);
    (void)mode;
    if (answer == 0)
        answer = pr_cgroup_is_as_new(leaf_fd, events_fd);
    if (answer < 0)
        return answer;
    CHECK_INT(answer, 1);
    return 0;
}

TEST(any_call_of_a_question_to_a_group_may_fail)
{
    const struct act asking = {prepare_group, ask_group, 0, false};
    sweep(&asking, NULL);
}

static int ask_struck(long number, int error)
{
    twin_fail(number, 1, error);
    int answer = pr_cgroup_is_as_new(leaf_fd, events_fd);
    twin_reset();
    return answer;
}

TEST(a_group_of_which_not_all_can_be_told_is_not_as_new)
{
    prepare_group(NULL);
    CHECK_INT(pr_cgroup_is_as_new(leaf_fd, events_fd), 1);
    CHECK_INT(ask_struck(SYS_fstat, EPERM), 0);
    CHECK_INT(ask_struck(SYS_pread64, ENODEV), 0); /* it is removed */
    CHECK_INT(ask_struck(SYS_pread64, EIO), -EIO);
    CHECK_INT(ask_struck(SYS_pread64, EINTR), 1);
    close(leaf_fd);
    close(events_fd);
}

/* Not made where there is no /proc. */
static bool is_for_proc(long number)
{
    return number == SYS_getdents64 && access("/proc/self/fd", F_OK) < 0;
}

TEST(every_call_that_can_fail_was_struck)
{
    skip_unless_root(); /* others do not see the calls of an identity */
    skip_unless_features(PR_FEATURE_ALL);
    if (!find_struck("pipe2") || !find_struck("timerfd_settime"))
        skip("not all cases of the sweep were run");
    for (int i = 0; i < FAILING_CALLS; i++)
        if (failing_calls[i].errors[0] && !struck[i] && !is_for_proc(failing_calls[i].number))
            FAIL("%s was never struck", failing_calls[i].name);
    for (int i = 0; i < CONSEQUENCES; i++)
        for (int step = 0; step < MOST_STAGES && consequences[i].stages[step]; step++)
            if (!told[i][step])
                FAIL("%s was never struck at \"%s\"", find_call(consequences[i].number)->name,
                     pr_stage_text(consequences[i].stages[step]));
}
