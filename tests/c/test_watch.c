/* PR_FLAG_WATCH: what a spawn puts into the caller's epoll set, and that a failed one leaves nothing there.
 *
 * "Nothing" is what the kernel lists, not what epoll_wait tells: an interest in a file that is not ready
 * is silent, and is there all the same. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

#define TEST_IN_EVERY_MODE(name) TEST_IN_MODES(name, every_mode)

enum { PIPES = 3 };

static struct scene scene;

/* In the order of the pipes; a row that is none stands between them. */
static const int pipe_rows[PIPES] = {0, 1, 3};

static void watch_scene(void)
{
    skip_unless_watched_are_listed();
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(scene.request.epoll_fd >= 0);
}

/* "/bin/sh -c script"; rows 0, 1 (its standard input) and 3 are pipes. */
static void begin(const struct mode *mode, const char *script)
{
    scene_shell(&scene, mode, script);
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_map(&scene, 2, 2);
    scene_map(&scene, 5, PR_WE_READ);
    watch_scene();
}

static void check_watches_nothing(void)
{
    struct watched watched;
    list_watched(scene.request.epoll_fd, &watched);
    CHECK_INT(watched.count, 0);
}

static void close_set(void)
{
    check_watches_nothing();
    close(scene.request.epoll_fd);
}

static void must_fail(int stage, int error, int index)
{
    scene_must_fail(&scene, stage, error, index);
    check_no_child();
    twin_reset();
    close_set();
}

/* Take everything out of the set, and end the child. */
static void end(int code)
{
    for (uint32_t i = 0; i < scene.request.fd_count; i++) {
        if (scene.ours[i] >= 0)
            pr_drop(scene.request.epoll_fd, scene.ours[i]);
        scene.ours[i] = -1;
    }
    scene_must_exit(&scene, code);
    close_set();
}

/* --- success ---------------------------------------------------------------------------------- */

TEST_IN_EVERY_MODE(the_set_watches_our_ends_and_the_pidfd_and_nothing_else)
{
    begin(mode, "read word; exit 3");
    scene_start(&scene);
    scene_check_watched(&scene);
    end(3);
}

static uint32_t told_of(const struct epoll_event *events, int count, int fd)
{
    for (int i = 0; i < count; i++)
        if (events[i].data.u64 == (uint64_t)fd)
            return events[i].events;
    return 0;
}

TEST_IN_EVERY_MODE(the_set_tells_of_output_of_the_end_and_of_a_reader_that_is_gone)
{
    struct epoll_event events[8];
    begin(mode, "read word; echo $word; exit 0");
    scene_start(&scene);
    CHECK_INT(epoll_wait(scene.request.epoll_fd, events, 8, 0), 0);
    CHECK_INT(write(scene.ours[1], "word\n", 5), 5);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    int count = epoll_wait(scene.request.epoll_fd, events, 8, 0);
    CHECK_INT(count, scene.result.pidfd >= 0 ? 4 : 3);
    CHECK_INT(told_of(events, count, scene.ours[0]), EPOLLIN | EPOLLHUP);
    CHECK_INT(told_of(events, count, scene.ours[1]), EPOLLERR);
    CHECK_INT(told_of(events, count, scene.ours[3]), EPOLLHUP);
    if (scene.result.pidfd >= 0)
        CHECK(told_of(events, count, scene.result.pidfd) & EPOLLIN);
    end(0);
}

TEST_IN_EVERY_MODE(without_the_flag_nothing_is_watched)
{
    begin(mode, "read word; exit 3");
    scene.request.flags &= ~(uint32_t)PR_FLAG_WATCH;
    scene_start(&scene);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    check_watches_nothing();
    end(3);
}

TEST_IN_EVERY_MODE(without_the_flag_a_failure_does_not_touch_the_set)
{
    scene_begin(&scene, mode, "/nowhere");
    scene_map(&scene, 1, PR_WE_READ);
    scene.request.epoll_fd = 1;
    scene_must_fail(&scene, PR_STAGE_EXEC, ENOENT, 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
}

TEST_IN_EVERY_MODE(a_child_without_pipes_is_watched_by_its_pidfd_alone)
{
    scene_begin(&scene, mode, "/bin/true");
    watch_scene();
    scene_start(&scene);
    scene_check_watched(&scene);
    end(0);
}

TEST_IN_EVERY_MODE(what_the_set_watched_before_stays)
{
    int other[2];
    struct watched watched;
    begin(mode, "read word; exit 3");
    CHECK_INT(pipe2(other, O_CLOEXEC), 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    CHECK_INT(epoll_ctl(scene.request.epoll_fd, EPOLL_CTL_ADD, other[0], &event), 0);
    scene_start(&scene);
    list_watched(scene.request.epoll_fd, &watched);
    CHECK_INT(watched.count, PIPES + 1 + (scene.result.pidfd >= 0));
    scene_must_exit(&scene, 3);
    twin_fail(SYS_epoll_ctl, 2, ENOSPC);
    scene_must_fail(&scene, PR_STAGE_WATCH, ENOSPC, pipe_rows[1]);
    twin_reset();
    list_watched(scene.request.epoll_fd, &watched);
    CHECK_INT(watched.count, 1);
    CHECK_INT(watched.fds[0].fd, other[0]);
    CHECK_INT(watched.fds[0].data, 77);
    close(other[0]);
    close(other[1]);
    close_set();
}

/* --- down the ladder -------------------------------------------------------------------------- */

static void check_watched_once(void)
{
    scene_start(&scene);
    CHECK_INT(twin_count(SYS_epoll_ctl), PIPES + (scene.result.pidfd >= 0));
    twin_reset();
    scene_check_watched(&scene);
    end(3);
}

TEST(a_clone_that_is_refused_and_made_otherwise_watches_once)
{
    skip_unless_features(PR_FEATURE_CLONE3 | PR_FEATURE_VFORK | PR_FEATURE_PIDFD);
    begin(NULL, "read word; exit 3");
    twin_deny(SYS_clone3, EPERM);
    twin_fail(SYS_clone, 1, EINVAL); /* with a pidfd */
    twin_fail(SYS_clone, 2, EINVAL); /* and without */
    check_watched_once();
    CHECK(!(scene.result.mode & (PR_FEATURE_CLONE3 | PR_FEATURE_VFORK)));
}

TEST(an_unsharing_that_is_refused_and_a_second_child_watch_once)
{
    skip_unless_features(PR_FEATURE_UNSHARE);
    begin(NULL, "read word; exit 3");
    twin_add((struct twin_rule){TWIN_CHILD, SYS_close_range, 1, -EPERM, 0});
    check_watched_once();
    CHECK(!(scene.result.mode & PR_FEATURE_UNSHARE));
}

TEST(a_launcher_that_is_not_there_and_a_fork_instead_watch_once)
{
    static const struct mode with_identity = {"", 0, true};
    skip_unless_root();
    skip_unless_features(PR_FEATURE_HELPER | PR_FEATURE_PIDFD);
    begin(&with_identity, "read word; exit 3");
    scene.request.launcher = "/nowhere";
    check_watched_once();
    CHECK(!(scene.result.mode & PR_FEATURE_HELPER));
}

/* --- failure ---------------------------------------------------------------------------------- */

TEST_IN_EVERY_MODE(after_a_pipe_that_was_not_to_be_had_nothing_is_watched)
{
    for (int at = 0; at < PIPES; at++) {
        begin(mode, "read word");
        twin_fail(SYS_pipe2, at + 1, EMFILE);
        must_fail(PR_STAGE_PIPE, EMFILE, pipe_rows[at]);
        begin(mode, "read word");
        twin_fail(SYS_fcntl, at + 1, EPERM);
        must_fail(PR_STAGE_PIPE, EPERM, pipe_rows[at]);
    }
}

TEST_IN_EVERY_MODE(after_a_clone_that_failed_nothing_is_watched)
{
    begin(mode, "read word");
    twin_deny(SYS_clone3, EAGAIN);
    twin_deny(SYS_clone, EAGAIN);
    must_fail(PR_STAGE_CLONE, EAGAIN, -1);
}

TEST_IN_EVERY_MODE(after_an_exec_that_failed_nothing_is_watched)
{
    begin(mode, "read word");
    scene.request.candidates = (struct pr_strings){0};
    scene_candidate(&scene, "/nowhere");
    must_fail(PR_STAGE_EXEC, ENOENT, 0);
}

TEST_IN_EVERY_MODE(a_pipe_that_can_not_be_watched_makes_no_child)
{
    for (int at = 0; at < PIPES; at++) {
        begin(mode, "read word");
        twin_fail(SYS_epoll_ctl, at + 1, ENOSPC);
        scene_must_fail(&scene, PR_STAGE_WATCH, ENOSPC, pipe_rows[at]);
        CHECK_INT(twin_count(SYS_clone3) + twin_count(SYS_clone), 0);
        twin_reset();
        close_set();
    }
}

/* The program runs by then, and would run on: it is killed. */
TEST_IN_MODES(a_pidfd_that_can_not_be_watched_ends_the_child, main_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    begin(mode, "exec sleep 600");
    twin_fail(SYS_epoll_ctl, PIPES + 1, ENOSPC);
    must_fail(PR_STAGE_WATCH, ENOSPC, -1);
}

/* A program that ignores what can be ignored, and is stopped. */
TEST_IN_MODES(a_pidfd_that_can_not_be_watched_ends_a_stopped_child, main_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    begin(mode, "trap '' TERM HUP INT; kill -STOP $$; exec sleep 600");
    twin_fail(SYS_epoll_ctl, PIPES + 1, ENOMEM);
    must_fail(PR_STAGE_WATCH, ENOMEM, -1);
}

/* One that has become another, say, of a parent without CAP_KILL: it cannot be undone, and lives on. */
TEST_IN_MODES(a_pidfd_that_can_not_be_watched_is_closed_where_the_child_may_not_be_killed, main_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    begin(mode, "read word; exit 3");
    twin_fail(SYS_epoll_ctl, PIPES + 1, ENOSPC);
    twin_deny(SYS_pidfd_send_signal, EPERM);
    twin_add((struct twin_rule){TWIN_PARENT, SYS_kill, 0, -EPERM, 0});
    scene_start(&scene);
    twin_reset();
    CHECK_INT(scene.result.pidfd, -1);
    end(3);
}

static void must_refuse_set(const struct mode *mode, int epoll_fd, int error)
{
    begin(mode, "read word");
    int set = scene.request.epoll_fd;
    scene.request.epoll_fd = epoll_fd;
    scene_must_fail(&scene, PR_STAGE_WATCH, error, 0);
    CHECK_INT(twin_count(SYS_clone3) + twin_count(SYS_clone), 0);
    twin_reset();
    scene.request.epoll_fd = set;
    close_set();
}

TEST_IN_EVERY_MODE(what_is_no_epoll_set_is_refused)
{
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    must_refuse_set(mode, -1, EBADF);
    must_refuse_set(mode, 899, EBADF);
    must_refuse_set(mode, file, EINVAL);
    close(file);
}

/* Nothing to be watched but a pidfd, in a set that is none. */
static int spawn_without_pipes(const struct mode *mode)
{
    scene_shell(&scene, mode, "exec sleep 600");
    scene.request.fd_count = 0;
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = -1;
    return scene_spawn(&scene);
}

TEST_IN_MODES(without_pipes_what_is_no_epoll_set_ends_the_child, main_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    CHECK_INT(spawn_without_pipes(mode), -EBADF);
    CHECK_INT(scene.result.stage, PR_STAGE_WATCH);
    CHECK_INT(scene.result.index, -1);
    check_no_child();
}

static const struct mode without_pidfds[] = {
    {"by vfork", PR_FEATURE_PIDFD, false},
    {"by fork", PR_FEATURE_PIDFD | PR_FEATURE_VFORK, false},
    {0},
};

TEST_IN_MODES(without_pipes_and_without_pidfds_nothing_is_watched, without_pidfds)
{
    CHECK_INT(spawn_without_pipes(mode), 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    CHECK_INT(pr_signal(-1, scene.result.pid, SIGKILL), 0);
    CHECK_INT(scene_end(&scene).code, CLD_KILLED);
}

static pid_t holder;

/* A process that holds copies of all that is open at this moment. */
static void fork_a_holder(int number)
{
    (void)number;
    holder = fork();
    if (holder == 0)
        for (;;)
            pause();
}

static void fail_with_a_holder(int stage, int error, int index)
{
    signal(SIGUSR1, fork_a_holder);
    twin_raise(SYS_fcntl, PIPES, SIGUSR1); /* all pipes are open, and all but one watched */
    scene_must_fail(&scene, stage, error, index);
    twin_reset();
    CHECK(holder > 0);
    check_watches_nothing();
    CHECK_INT(kill(holder, SIGKILL), 0);
    CHECK_INT(waitpid(holder, NULL, 0), holder);
    close_set();
}

/* Another thread forks, and its child has not exec'ed yet: closing alone would leave the interest. */
TEST_IN_EVERY_MODE(after_a_failure_nothing_is_watched_through_copies_that_others_hold)
{
    begin(mode, "read word");
    scene.request.candidates = (struct pr_strings){0};
    scene_candidate(&scene, "/nowhere");
    fail_with_a_holder(PR_STAGE_EXEC, ENOENT, 0);
    begin(mode, "read word");
    twin_fail(SYS_epoll_ctl, PIPES, ENOSPC);
    fail_with_a_holder(PR_STAGE_WATCH, ENOSPC, pipe_rows[PIPES - 1]);
}

/* --- pr_drop ---------------------------------------------------------------------------------- */

static int epoll_fd, ends[2];

/* A set that watches both ends of a pipe. */
static void open_ends(void)
{
    skip_unless_watched_are_listed();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)ends[i]};
        CHECK_INT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends[i], &event), 0);
    }
}

static void check_is_closed(int fd)
{
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    CHECK_INT(errno, EBADF);
}

static void check_watches_only(int fd)
{
    struct watched watched;
    list_watched(epoll_fd, &watched);
    CHECK_INT(watched.count, 1);
    CHECK_INT(watched.fds[0].fd, fd);
}

/* The copy keeps the file open, and with it the interest, were the number only closed. */
TEST(a_drop_takes_out_and_closes)
{
    open_ends();
    int copy = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
    pr_drop(epoll_fd, ends[0]);
    check_is_closed(ends[0]);
    check_watches_only(ends[1]);
    close(copy);
    pr_drop(epoll_fd, ends[1]);
    close(epoll_fd);
}

TEST(a_drop_closes_what_was_not_in_the_set)
{
    open_ends();
    int copy = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
    pr_drop(epoll_fd, copy);
    check_is_closed(copy);
    CHECK_INT(fcntl(ends[0], F_GETFD), FD_CLOEXEC);
    pr_drop(epoll_fd, ends[0]);
    check_watches_only(ends[1]);
    pr_drop(-1, ends[1]);
    check_is_closed(ends[1]);
    close(epoll_fd);
}

/* By then Linux has closed it, and the number may be another's. */
TEST(a_drop_closes_once_also_when_interrupted)
{
    open_ends();
    twin_fail(SYS_epoll_ctl, 1, ENOENT);
    twin_fail(SYS_close, 1, EINTR);
    CHECK_INT(pr_drop(epoll_fd, ends[0]), 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 1);
    CHECK_INT(twin_count(SYS_close), 1);
    twin_reset();
    CHECK_INT(pr_drop(epoll_fd, ends[0]), -EBADF); /* nothing is open there any more */
    CHECK_INT(pr_drop(epoll_fd, ends[1]), 0);
    close(epoll_fd);
}
