/* The sweep: every system call of an act fails once, with each error that it may have.
 *
 * An act is performed once to learn which calls it makes, on either side of the clone.  Then, for each
 * call and each of its errors, a fresh process performs it again with that call struck.  Whatever
 * happens, the result must make sense: success means that the program ran, failure names the error
 * that was struck (or the one that the act has anyway); and nothing is left: no fd, no child, no
 * signal blocked.  At last the act is performed unstruck, in the same process, and must succeed: what
 * was learnt from a blow may cost features, not function. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ladder.h"
#include "scene.h"
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
    FAILS(kill, ESRCH, EPERM),
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
    FAILS(capset, 0), /* not of root, as which the acts stay; test_stages.c strikes it */
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

/* The landing slots are pipes of one inode.  Blows may cost slots, and cold acts get some. */
static bool is_slot(const struct fd_list *list, int at)
{
    struct stat facts;
    int fd = list->fds[at].fd, copies = 0;
    for (int i = 0; i < list->count; i++)
        copies += list->fds[i].inode == list->fds[at].inode
                  && list->fds[i].device == list->fds[at].device;
    if (fstat(fd, &facts) == 0 && (!S_ISFIFO(facts.st_mode) || fcntl(fd, F_GETFL) & O_ACCMODE))
        return false;
    return copies != 2; /* as the two ends of a pipe would be */
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
        if (!has_fd(before, after.fds[i]) && !is_slot(&after, i))
            FAIL("fd %d is new or changed", after.fds[i].fd);
    for (int i = 0; i < before->count; i++)
        if (!has_fd(&after, before->fds[i]) && !is_slot(before, i))
            FAIL("fd %d was closed or changed", before->fds[i].fd);
}

static void prepare(const struct blow *blow)
{
    signal(SIGPIPE, SIG_IGN); /* a child that was struck reads nothing */
    blow->act->prepare(blow->mode);
    twin_reset();
}

static void strike(void *opaque)
{
    static struct fd_list before;
    const struct blow *blow = opaque;
    const struct failing_call *call = find_call(blow->number);
    prepare(blow);
    uint64_t mask = current_mask();
    list_fds(&before);
    twin_add((struct twin_rule){blow->side, blow->number, blow->nth, -blow->error, blow->signal});
    int code = blow->act->perform(blow->mode);
    if (twin_count(blow->number) >= blow->nth)
        struck[call - failing_calls]++;
    twin_reset();
    if (code != blow->act->usually && code != -blow->error && blow->error)
        FAIL("the act failed with %s", strerror(-code));
    check_fds_but_slots(&before);
    check_no_child();
    CHECK(current_mask() == mask);
    code = blow->act->perform(blow->mode);
    if (code != blow->act->usually)
        FAIL("afterwards, unstruck, the act failed: %s", strerror(-code));
    check_no_child();
}

/* As run_apart, and says which blow it was. */
static void strike_apart(struct blow *blow)
{
    char text[160];
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
    } calls[1024];
};

/* Runs of the same call (62 rt_sigactions) are struck at their first and last only. */
static void read_log(struct call_log *log)
{
    log->count = 0;
    for (enum twin_side side = TWIN_PARENT; side <= TWIN_CHILD; side++) {
        for (int at = 0; at < twin_logged(side); at++) {
            long number = twin_log_at(side, at);
            int nth = 0;
            for (int i = 0; i <= at; i++)
                nth += twin_log_at(side, i) == number;
            bool inside = at > 0 && at + 1 < twin_logged(side)
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
    CHECK_INT(blow->act->perform(blow->mode), blow->act->usually);
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

static void prepare_many_fds(const struct mode *mode)
{
    while (fcntl(0, F_DUPFD_CLOEXEC, 3) < 100)
        ;
    prepare_terminal(mode);
}

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
    struct pr_exit end = scene_end(&scene);
    if (end.code == CLD_KILLED && end.status == SIGKILL)
        return 0;
    CHECK_INT(end.code, CLD_EXITED);
    CHECK_INT(end.status, 5);
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

static const struct act everything = {prepare_terminal, spawn_with_everything, 0};
static const struct act among_many = {prepare_many_fds, spawn_with_everything, 0};
static const struct act not_there = {prepare_nothing, spawn_what_is_not_there, -ENOENT};

TEST_IN_MODES(any_call_of_a_spawn_may_fail, every_mode)
{
    sweep(&everything, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_may_be_frozen_may_fail, main_modes)
{
    const struct act act = {prepare_nothing, spawn_what_may_be_frozen, 0};
    sweep(&act, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_fails_may_fail, main_modes)
{
    sweep(&not_there, mode);
}

TEST_IN_MODES(any_call_of_a_spawn_that_is_watched_may_fail, main_modes)
{
    const struct act act = {prepare_epoll, spawn_watched, 0};
    skip_unless_watched_are_listed();
    sweep(&act, mode);
}

TEST_IN_MODES(any_call_of_a_watched_spawn_that_fails_may_fail, main_modes)
{
    const struct act act = {prepare_epoll, spawn_watched_what_is_not_there, -ENOENT};
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
    const struct act first = {prepare_nothing, spawn_for_the_first_time, 0};
    sweep(&first, NULL);
}

static int busy_program;

static void prepare_busy_program(const struct mode *mode)
{
    char path[64];
    (void)mode;
    busy_program = memfd_create("busy", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", busy_program);
    CHECK(open(path, O_WRONLY | O_CLOEXEC) >= 0); /* a memfd is not busy by being created */
}

static int spawn_busy_program(const struct mode *mode)
{
    scene_begin(&scene, mode, "/proc/self/fd/7");
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
    const struct act busy = {prepare_busy_program, spawn_busy_program, -ETXTBSY};
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
    const struct act stacks = {prepare_nothing, use_many_stacks, 0};
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
    const struct act stopped = {prepare_terminal, spawn_and_be_stopped, 0};
    sweep_signal(&stopped, mode, SIGSTOP);
}

/* Also after it has written its report, on the way out. */
TEST_IN_MODES(a_fork_that_fails_may_be_stopped_before_any_call, forks)
{
    sweep_signal(&not_there, mode, SIGSTOP);
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
    scene_environment(&scene, launcher_rule);
    int code = scene_spawn(&scene);
    return code ? code : finish(in);
}

TEST(any_call_of_the_launcher_may_fail)
{
    const long numbers[] = {SYS_fcntl, SYS_getresuid, SYS_setresgid, SYS_setgroups, SYS_setresuid,
                            SYS_prctl, SYS_getppid, SYS_rt_sigprocmask, SYS_execve};
    skip_unless_root();
    skip_unless_features(PR_FEATURE_HELPER);
    for (size_t at = 0; at < sizeof numbers / sizeof *numbers; at++) {
        const struct failing_call *call = find_call(numbers[at]);
        for (int i = 0; i < MOST_ERRORS && call->errors[i]; i++) {
            snprintf(launcher_rule, sizeof launcher_rule, "TWIN=%ld:1:%d:0", numbers[at],
                     -call->errors[i]);
            check_context(launcher_rule);
            int code = spawn_by_launcher_twin(NULL);
            if (code && code != -call->errors[i])
                FAIL("the spawn failed with %s", strerror(-code));
            check_no_child();
            check_context(NULL);
        }
    }
}

TEST(a_launcher_may_be_stopped_before_any_call)
{
    const long numbers[] = {SYS_fcntl, SYS_setresgid, SYS_setgroups, SYS_setresuid, SYS_capset,
                            SYS_prctl, SYS_getppid, SYS_rt_sigprocmask, SYS_execve};
    skip_unless_root();
    skip_unless_features(PR_FEATURE_HELPER);
    for (size_t at = 0; at < sizeof numbers / sizeof *numbers; at++) {
        snprintf(launcher_rule, sizeof launcher_rule, "TWIN=%ld:1:0:%d", numbers[at], SIGSTOP);
        CHECK_INT(spawn_by_launcher_twin(NULL), -ECANCELED);
        CHECK_INT(scene.result.stage, PR_STAGE_STOPPED);
        check_no_child();
    }
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
    const struct act reaping = {prepare_nothing, wait_signal_and_reap, 0};
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
    while (take_tokens(spawner, &token, 1) == 0) {
        CHECK_INT(write(fds[1], &one, sizeof one), sizeof one);
        sched_yield();
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
    const struct act threaded = {prepare_nothing, spawn_in_a_thread, 0};
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
    const struct act keeping = {prepare_nothing, keep_in_a_thread, 0};
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
    while ((state = pr_spawner_claim(spawner, &job)) == PR_JOB_WAITING || state == PR_JOB_BEGUN)
        CHECK_INT(write(fds[1], &one, sizeof one), sizeof one);
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
    const struct act claiming = {prepare_nothing, claim_from_a_thread, 0};
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
    const struct act gathering = {prepare_epoll, gather_a_child, 0};
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
    const struct act hanging_up = {prepare_epoll, hang_up_on_a_child, 0};
    skip_unless_watched_are_listed();
    sweep(&hanging_up, mode);
}

static int open_terminal(const struct mode *mode)
{
    int stage, code = pr_open_pty(24, 80, terminal, &stage);
    (void)mode;
    if (code)
        return code;
    close(terminal[0]);
    close(terminal[1]);
    return 0;
}

TEST(any_call_of_a_terminal_may_fail)
{
    const struct act opening = {prepare_nothing, open_terminal, 0};
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
    const struct act setting = {prepare_nothing, set_timer, 0};
    sweep(&setting, NULL);
}

TEST(every_call_that_can_fail_was_struck)
{
    skip_unless_root(); /* others do not see the calls of an identity */
    skip_unless_features(PR_FEATURE_ALL);
    if (!find_struck("pipe2") || !find_struck("timerfd_settime"))
        skip("not all cases of the sweep were run");
    for (int i = 0; i < FAILING_CALLS; i++)
        if (failing_calls[i].errors[0] && !struck[i])
            FAIL("%s was never struck", failing_calls[i].name);
}
