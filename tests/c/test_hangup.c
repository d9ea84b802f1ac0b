/* The pipes of a child, closed together once all are at their end, and not one of them before. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static const struct mode pidfds[] = {
    {"by pidfd", 0, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {0},
};
#define TEST_BOTH_WAYS(name) TEST_IN_MODES(name, pidfds)

enum { OUT, IN, NONE, ERR, ROWS };

static struct scene scene;
static int set;
static int fd_5 = 2; /* what the child has as its fd 5 */

static int count_watched(void)
{
    struct watched watched;
    list_watched(set, &watched);
    return watched.count;
}

/* "/bin/sh -c script": rows 0 (out), 1 (its standard input) and 3 (error) are pipes, 2 is none. */
static void start(const struct mode *mode, const char *script)
{
    skip_unless_watched_are_listed();
    scene_shell(&scene, mode, script);
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_map(&scene, 5, fd_5);
    scene_map(&scene, 2, PR_WE_READ);
    set = epoll_create1(EPOLL_CLOEXEC);
    scene.request.flags |= PR_FLAG_WATCH;
    scene.request.epoll_fd = set;
    scene_start(&scene);
    CHECK_INT(count_watched(), 3 + (scene.result.pidfd >= 0));
}

static int close_ended(void)
{
    return pr_close_ended(set, scene.ours, scene.request.fd_count);
}

/* The call says no, and has changed nothing. */
static void must_do_nothing(void)
{
    static struct fd_list before;
    int ours[SCENE_ROWS];
    int watched = count_watched();
    list_fds(&before);
    memcpy(ours, scene.ours, sizeof ours);
    CHECK_INT(close_ended(), 0);
    check_same_fds(&before);
    CHECK_INT(count_watched(), watched);
    CHECK(memcmp(ours, scene.ours, sizeof ours) == 0);
}

static void must_close(int open)
{
    static struct fd_list before, after;
    list_fds(&before);
    CHECK_INT(close_ended(), 1);
    list_fds(&after);
    CHECK_INT(after.count, before.count - open);
    for (int i = 0; i < ROWS; i++)
        CHECK_INT(scene.ours[i], -1);
    CHECK_INT(count_watched(), scene.result.pidfd >= 0);
}

static void reap_and_close(int status)
{
    struct pr_exit end;
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    CHECK_INT(pr_reap_in(set, &scene.result, &end), 1);
    CHECK_INT(end.status, status);
    CHECK_INT(scene.result.pidfd, -1);
    CHECK_INT(count_watched(), 0);
    close(set);
}

TEST_BOTH_WAYS(pipes_that_are_all_at_their_end_are_closed_and_the_child_is_not_reaped)
{
    start(mode, "exit 7");
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_reset();
    must_close(3);
    CHECK_INT(twin_count(SYS_read), 0);
    CHECK_INT(twin_count(SYS_waitid), 0);
    reap_and_close(7);
}

static void wait_hung_up(int row)
{
    struct pollfd pipe = {.fd = scene.ours[row]};
    CHECK_INT(poll(&pipe, 1, -1), 1);
}

/* The child keeps one, and lives until fd 5, or its standard input, ends. */
static void check_one_kept(const struct mode *mode, const char *script, int kept)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    fd_5 = ends[0];
    start(mode, script);
    close(ends[0]);
    for (int row = 0; row < ROWS; row++)
        if (row != kept && row != NONE)
            wait_hung_up(row);
    must_do_nothing();
    close(ends[1]);
    if (kept == IN)
        CHECK_INT(write(scene.ours[IN], "\n", 1), 1);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    must_close(3);
    reap_and_close(0);
}

TEST_BOTH_WAYS(one_that_is_not_at_its_end_keeps_all_open)
{
    check_one_kept(mode, "exec 0<&- 2>&-; read x <&5; exit 0", OUT);
    check_one_kept(mode, "exec 1>&- 2>&-; read x; exit 0", IN);
    check_one_kept(mode, "exec 0<&- 1>&-; read x <&5; exit 0", ERR);
}

TEST_BOTH_WAYS(unread_data_keeps_all_open_until_it_is_read)
{
    char word[8];
    start(mode, "echo x >&2; exit 0");
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    must_do_nothing();
    CHECK_INT(read(scene.ours[ERR], word, 1), 1);
    must_do_nothing();
    CHECK_INT(read(scene.ours[ERR], word, sizeof word), 1);
    must_close(3);
    reap_and_close(0);
}

TEST_BOTH_WAYS(what_was_written_and_not_read_keeps_nobody)
{
    start(mode, "read x; exit 0");
    CHECK_INT(write(scene.ours[IN], "a\nunread\n", 9), 9);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    must_close(3);
    reap_and_close(0);
}

TEST_BOTH_WAYS(one_that_was_closed_before_is_left_alone_though_its_number_is_anothers)
{
    start(mode, "exit 0");
    int fd = scene.ours[OUT];
    pr_close_ours(set, scene.ours, scene.request.fd_count, fd);
    CHECK_INT(scene.ours[OUT], -1);
    CHECK_INT(count_watched(), 2 + (scene.result.pidfd >= 0));
    open_at(fd, true);
    pr_close_ours(set, scene.ours, scene.request.fd_count, fd); /* nothing: none of ours */
    pr_close_ours(set, scene.ours, scene.request.fd_count, -1);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    must_close(2);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    reap_and_close(0);
}

TEST_BOTH_WAYS(one_that_somebody_closed_unasked_keeps_the_others)
{
    start(mode, "exit 0");
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    int copy = dup(scene.ours[ERR]);
    int fd = scene.ours[ERR];
    pr_drop(set, fd);
    must_do_nothing();
    CHECK_INT(dup2(copy, fd), fd);
    close(copy);
    must_close(3);
    reap_and_close(0);
}

TEST(more_pipes_than_there_is_room_for_are_left_to_be_closed_one_by_one)
{
    int ours[17], other[17][2];
    for (int i = 0; i < 17; i++) {
        CHECK_INT(pipe2(other[i], O_CLOEXEC), 0);
        ours[i] = other[i][0];
        close(other[i][1]);
    }
    CHECK_INT(pr_close_ended(-1, ours, 17), 0);
    CHECK(fcntl(ours[0], F_GETFD) >= 0 && fcntl(ours[16], F_GETFD) >= 0);
    pr_close_ours(-1, ours, 17, ours[8]);
    CHECK_INT(ours[8], -1);
    CHECK_INT(pr_close_ended(-1, ours, 17), 1);
    for (int i = 0; i < 17; i++)
        CHECK_INT(ours[i], -1);
}

/* A copy, as a child that has not exec'ed yet may hold, keeps the file open. */
TEST_BOTH_WAYS(what_has_ended_is_watched_no_more_though_copies_are_open)
{
    start(mode, "exit 0");
    int copies[] = {dup(scene.ours[OUT]), dup(scene.ours[IN]), dup(scene.ours[ERR])};
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    must_close(3);
    for (int i = 0; i < 3; i++)
        close(copies[i]);
    reap_and_close(0);
}

TEST_BOTH_WAYS(a_question_that_fails_is_a_no)
{
    start(mode, "exit 0");
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_fail(SYS_ppoll, 1, EINTR);
    must_do_nothing();
    twin_reset();
    for (int nth = 1; nth <= 2; nth++) {
        twin_reset();
        twin_fail(SYS_ioctl, nth, ENOTTY);
        must_do_nothing();
    }
    twin_reset();
    twin_fail(SYS_epoll_ctl, 2, ENOENT);
    twin_fail(SYS_close, 2, EIO);
    CHECK_INT(close_ended(), 1);
    for (int i = 0; i < ROWS; i++)
        CHECK_INT(scene.ours[i], -1);
    twin_reset();
    reap_and_close(0);
}

TEST_BOTH_WAYS(a_child_that_has_not_ended_keeps_its_pidfd)
{
    struct pr_exit end = {.code = -1};
    start(mode, "read x; exit 3");
    int pidfd = scene.result.pidfd;
    CHECK_INT(pr_reap_in(set, &scene.result, &end), 0);
    CHECK_INT(end.code, -1);
    CHECK_INT(scene.result.pidfd, pidfd);
    CHECK_INT(write(scene.ours[IN], "\n", 1), 1);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_deny(SYS_waitid, EFAULT);
    CHECK_INT(pr_reap_in(set, &scene.result, &end), -EFAULT);
    twin_reset();
    CHECK_INT(end.code, -1);
    CHECK_INT(scene.result.pidfd, pidfd);
    must_close(3);
    reap_and_close(3);
}
