/* Two streams and an end in one call, what is watched meanwhile, and what is left when a call fails. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static const struct mode pidfds[] = {
    {"by pidfd", 0, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {0},
};
#define TEST_BOTH_WAYS(name) TEST_IN_MODES(name, pidfds)

enum {
    DATA = PR_GATHERED_DATA,
    ALL_0 = PR_GATHERED_ALL_0,
    ALL_1 = PR_GATHERED_ALL_1,
    EXIT = PR_GATHERED_EXIT,
    OVER = ALL_0 | ALL_1 | EXIT,
};

enum { MOST = 64, GUARD = 0x55 };

static struct scene scene;
static struct pr_gather gather;
static char buffer[2 * MOST + 1];
static int in; /* our end of the child's standard input */

/* "/bin/sh -c script" with three pipes; its fd 1 is `source`. */
static void start_with(const struct mode *mode, const char *script, int source)
{
    scene_shell(&scene, mode, script);
    scene.sources[0] = source;
    scene_map(&scene, 2, PR_WE_READ);
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    gather = (struct pr_gather){
        .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
        .pid = scene.result.pid,
        .pidfd = scene.result.pidfd,
        .out_fds = {scene.ours[0], scene.ours[1]},
    };
    in = scene.ours[2];
    CHECK(gather.epoll_fd >= 0);
}

static void start(const struct mode *mode, const char *script)
{
    start_with(mode, script, PR_WE_READ);
}

static int call(uint32_t part)
{
    memset(buffer, GUARD, sizeof buffer);
    int told = pr_gather(&gather, buffer, part);
    if (told >= 0)
        CHECK_INT(!!(told & DATA), gather.sizes[0] || gather.sizes[1]);
    CHECK_INT(buffer[2 * part], GUARD);
    return told;
}

static void check_stream(int stream, uint32_t part, const char *wanted)
{
    CHECK_INT(gather.sizes[stream], strlen(wanted));
    CHECK(memcmp(buffer + (size_t)stream * part, wanted, strlen(wanted)) == 0);
    for (uint32_t at = gather.sizes[stream]; at < part; at++)
        CHECK_INT(buffer[(uint32_t)stream * part + at], GUARD);
}

static void wait_readable(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    CHECK_INT(poll(&polled, 1, -1), 1);
}

static int count_watched(void)
{
    struct watched watched;
    list_watched(gather.epoll_fd, &watched);
    return watched.count;
}

static void check_exit(int code)
{
    CHECK_INT(gather.reaped, 1);
    CHECK_INT(gather.exit.code, CLD_EXITED);
    CHECK_INT(gather.exit.status, code);
    check_no_child();
}

/* What is the case's own: the rest was the gather's and is closed. */
static void close_the_rest(void)
{
    close(in);
    close(gather.epoll_fd);
}

static void end_child(void)
{
    close(in);
    in = -1;
    CHECK_INT(pr_wait_exit(gather.pid), 0);
}

/* --- what is told ----------------------------------------------------------------------------- */

TEST_BOTH_WAYS(a_child_that_has_ended_is_told_whole_in_one_call)
{
    start(mode, "echo out; echo error >&2; exit 7");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "out\n");
    check_stream(1, MOST, "error\n");
    check_exit(7);
    CHECK(gather.exit.max_rss_kib > 0);
    CHECK_INT(gather.pidfd, -1);
    CHECK_INT(gather.out_fds[0], -1);
    CHECK_INT(gather.out_fds[1], -1);
    CHECK_INT(count_watched(), 0);
    close_the_rest();
}

/* Not asked of the kernel again: the number may be another child's by then. */
TEST_BOTH_WAYS(what_was_told_is_told_again_and_the_data_is_not)
{
    start(mode, "echo out; exit 7");
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER | DATA);
    twin_reset();
    CHECK_INT(call(MOST), OVER);
    check_stream(0, MOST, "");
    CHECK_INT(twin_logged(TWIN_PARENT), 0);
    check_exit(7);
    close_the_rest();
}

TEST_BOTH_WAYS(a_child_that_writes_nothing_and_lives_is_told_as_nothing)
{
    start(mode, "read word");
    CHECK_INT(call(MOST), 0);
    CHECK_INT(call(MOST), 0);
    CHECK(gather.out_fds[0] >= 0 && gather.out_fds[1] >= 0);
    CHECK_INT(gather.pidfd, scene.result.pidfd);
    end_child();
    CHECK_INT(call(MOST), OVER);
    check_exit(1);
    close_the_rest();
}

TEST_BOTH_WAYS(data_is_told_of_a_child_that_lives)
{
    start(mode, "echo word >&2; read word");
    wait_readable(gather.out_fds[1]);
    CHECK_INT(call(MOST), DATA);
    check_stream(0, MOST, "");
    check_stream(1, MOST, "word\n");
    CHECK_INT(call(MOST), 0);
    end_child();
    CHECK_INT(call(MOST), OVER);
    close_the_rest();
}

TEST_BOTH_WAYS(each_stream_ends_for_itself_before_the_child)
{
    start(mode, "printf a; exec >&-; read word; printf b >&2; exec 2>&-; read word");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    for (int told = 0; !(told & ALL_0);) {
        wait_readable(gather.out_fds[0]);
        told = call(MOST);
        CHECK_INT(told & ~(ALL_0 | DATA), 0);
    }
    CHECK_INT(gather.out_fds[0], -1);
    CHECK_INT(count_watched(), 1 + (gather.pidfd >= 0));
    CHECK_INT(write(in, "\n", 1), 1);
    for (int told = 0; !(told & ALL_1);) {
        wait_readable(gather.out_fds[1]);
        told = call(MOST);
        CHECK_INT(told & ~(ALL_1 | DATA), ALL_0);
    }
    CHECK_INT(count_watched(), gather.pidfd >= 0);
    end_child();
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(count_watched(), 0);
    close_the_rest();
}

/* We are the one who holds the stream: the child's fd 1 is the end of a pipe of ours. */
TEST_BOTH_WAYS(an_exit_is_told_before_the_end_of_a_stream_that_others_hold)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    start_with(mode, "echo child; exit 3", ends[1]);
    gather.out_fds[0] = ends[0];
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), EXIT | ALL_1 | DATA);
    check_stream(0, MOST, "child\n");
    check_exit(3);
    CHECK_INT(call(MOST), EXIT | ALL_1);
    CHECK_INT(write(ends[1], "other\n", 6), 6);
    CHECK_INT(call(MOST), EXIT | ALL_1 | DATA);
    check_stream(0, MOST, "other\n");
    close(ends[1]);
    CHECK_INT(call(MOST), OVER);
    close_the_rest();
}

TEST_BOTH_WAYS(a_stream_that_is_none_is_at_its_end)
{
    scene_shell(&scene, mode, "echo out");
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    in = scene.ours[1];
    gather = (struct pr_gather){
        .epoll_fd = epoll_create1(EPOLL_CLOEXEC), .pid = scene.result.pid,
        .pidfd = scene.result.pidfd, .out_fds = {-1, scene.ours[0]},
    };
    CHECK_INT(pr_gather_watch(&gather, 0), 0);
    CHECK_INT(count_watched(), 1);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "");
    check_stream(1, MOST, "out\n");
    close_the_rest();
}

TEST_BOTH_WAYS(more_than_fits_comes_in_parts)
{
    start(mode, "printf abcdefgh; printf 123456 >&2");
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(3), EXIT | DATA);
    check_stream(0, 3, "abc");
    check_stream(1, 3, "123");
    CHECK_INT(call(3), EXIT | DATA); /* stream 1 is empty, which nobody knows who has not looked */
    check_stream(0, 3, "def");
    check_stream(1, 3, "456");
    CHECK_INT(call(3), OVER | DATA);
    check_stream(0, 3, "gh");
    check_stream(1, 3, "");
    close_the_rest();
}

/* As a child may make its pipe: a read takes one write, and what it has no room for is gone. */
TEST_BOTH_WAYS(writes_that_a_pipe_keeps_apart_are_not_cut)
{
    const char *words[] = {"a write of more than half of the room", "another that is as long as the first"};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK | O_DIRECT) < 0)
        skip("no pipes that keep writes apart");
    start_with(mode, "read word", ends[1]);
    gather.out_fds[0] = ends[0];
    for (int i = 0; i < 2; i++)
        CHECK_INT(write(ends[1], words[i], strlen(words[i])), strlen(words[i]));
    for (int i = 0; i < 2; i++) {
        CHECK_INT(call(MOST) & DATA, DATA);
        check_stream(0, MOST, words[i]);
    }
    close(ends[1]);
    end_child();
    CHECK_INT(call(MOST), OVER);
    check_exit(1);
    close(gather.epoll_fd);
}

TEST_BOTH_WAYS(the_signal_that_ended_a_child_is_told)
{
    start(mode, "kill -KILL $$");
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(gather.exit.code, CLD_KILLED);
    CHECK_INT(gather.exit.status, SIGKILL);
    close_the_rest();
}

/* Whether the status is still known depends on the kernel; that it is over does not. */
TEST_BOTH_WAYS(a_child_that_others_reaped_has_ended)
{
    int status;
    start(mode, "echo out; exit 7");
    CHECK_INT(waitpid(gather.pid, &status, 0), gather.pid);
    int told = call(MOST);
    CHECK_INT(told, OVER | DATA);
    CHECK(gather.exit.code == 0 || gather.exit.status == 7);
    check_stream(0, MOST, "out\n");
    close_the_rest();
}

TEST_BOTH_WAYS(without_a_set_all_is_told_and_no_set_is_touched)
{
    start(mode, "echo out; echo error >&2; exit 7");
    close(gather.epoll_fd);
    gather.epoll_fd = -1;
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    twin_reset();
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "out\n");
    check_stream(1, MOST, "error\n");
    check_exit(7);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    CHECK_INT(gather.pidfd, -1);
    CHECK_INT(gather.out_fds[0], -1);
    CHECK_INT(gather.out_fds[1], -1);
    close(in);
}

TEST_BOTH_WAYS(without_a_set_a_close_closes)
{
    start(mode, "read word; exit 5");
    close(gather.epoll_fd);
    gather.epoll_fd = -1;
    int open_fds = 2 + (gather.pidfd >= 0);
    twin_reset();
    pr_gather_close(&gather);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    CHECK_INT(twin_count(SYS_close), open_fds);
    end_child();
    CHECK_INT(call(MOST), OVER);
    check_exit(5);
}

/* --- calls that fail -------------------------------------------------------------------------- */

TEST_BOTH_WAYS(a_read_that_is_interrupted_is_made_again)
{
    start(mode, "echo out; echo error >&2");
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    twin_fail(SYS_read, 1, EINTR);
    twin_fail(SYS_read, 2, EINTR);
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "out\n");
    check_stream(1, MOST, "error\n");
    close_the_rest();
}

TEST_BOTH_WAYS(a_stream_that_cannot_be_read_is_at_its_end_and_the_other_is_whole)
{
    start(mode, "echo out; echo error >&2; exit 4");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    twin_fail(SYS_read, 1, EIO);
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "");
    check_stream(1, MOST, "error\n");
    check_exit(4);
    CHECK_INT(count_watched(), 0);
    close_the_rest();
}

TEST_BOTH_WAYS(what_was_read_before_an_error_is_told)
{
    start(mode, "echo out; exit 4");
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    twin_fail(SYS_read, 2, EIO);
    CHECK_INT(call(MOST), OVER | DATA);
    check_stream(0, MOST, "out\n");
    close_the_rest();
}

TEST_BOTH_WAYS(an_exit_that_cannot_be_asked_for_loses_nothing_else)
{
    siginfo_t info;
    start(mode, "echo out; exit 4");
    int pid = gather.pid, has_pidfd = gather.pidfd >= 0;
    CHECK_INT(pr_wait_exit(pid), 0);
    twin_deny(SYS_waitid, EPERM);
    CHECK_INT(call(MOST), DATA | (has_pidfd ? OVER : ALL_0 | ALL_1));
    twin_reset();
    check_stream(0, MOST, "out\n");
    if (has_pidfd) { /* which has told that it has ended, and no more */
        CHECK_INT(gather.exit.code, 0);
        CHECK_INT(gather.exit.status, EPERM);
        CHECK_INT(gather.pidfd, -1);
        CHECK_INT(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
    } else {
        CHECK_INT(call(MOST), OVER);
        check_exit(4);
    }
    close_the_rest();
}

/* --- what is watched -------------------------------------------------------------------------- */

static void check_watches(const int *fds, int count)
{
    struct watched watched;
    list_watched(gather.epoll_fd, &watched);
    CHECK_INT(watched.count, count);
    for (int i = 0; i < count; i++) {
        int at = 0;
        while (at < watched.count && watched.fds[at].fd != fds[i])
            at++;
        CHECK(at < watched.count);
        CHECK_INT(watched.fds[at].data, fds[i]);
        CHECK_INT(watched.fds[at].events, EPOLLIN | EPOLLERR | EPOLLHUP);
    }
}

TEST_BOTH_WAYS(the_streams_are_watched_and_the_pidfd_if_wished)
{
    skip_unless_watched_are_listed();
    start(mode, "read word");
    const int fds[] = {gather.out_fds[0], gather.out_fds[1], gather.pidfd};
    CHECK_INT(pr_gather_watch(&gather, 0), 0);
    check_watches(fds, 2);
    pr_gather_close(&gather);
    CHECK_INT(count_watched(), 0);
    end_child();
    struct pr_exit end;
    CHECK_INT(pr_reap(-1, gather.pid, &end), 1);
    close_the_rest();
    start(mode, "read word");
    const int others[] = {gather.out_fds[0], gather.out_fds[1], gather.pidfd};
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    check_watches(others, 2 + (gather.pidfd >= 0));
    end_child();
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(count_watched(), 0);
    close_the_rest();
}

static void must_watch_nothing(const struct mode *mode, int nth, int error)
{
    struct watched watched;
    start(mode, "read word");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    CHECK_INT(epoll_ctl(gather.epoll_fd, EPOLL_CTL_ADD, in, &event), 0); /* another's, and stays */
    twin_fail(SYS_epoll_ctl, nth, error);
    CHECK_INT(pr_gather_watch(&gather, 1), -error);
    twin_reset();
    list_watched(gather.epoll_fd, &watched);
    CHECK_INT(watched.count, 1);
    CHECK_INT(watched.fds[0].data, 77);
    CHECK(fcntl(gather.out_fds[0], F_GETFD) >= 0 && fcntl(gather.out_fds[1], F_GETFD) >= 0);
    CHECK_INT(pr_gather_watch(&gather, 1), 0); /* as if it had not been tried */
    CHECK_INT(count_watched(), 3 + (gather.pidfd >= 0));
    pr_drop(gather.epoll_fd, in);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(count_watched(), 0);
    close(gather.epoll_fd);
}

TEST_BOTH_WAYS(when_one_cannot_be_watched_none_is)
{
    skip_unless_watched_are_listed();
    for (int nth = 1; nth <= 2 + !!(pr_features() & PR_FEATURE_PIDFD); nth++) {
        must_watch_nothing(mode, nth, ENOSPC);
        must_watch_nothing(mode, nth, ENOMEM);
    }
}

/* A copy, as a child that has not exec'ed yet may hold, keeps the file open. */
TEST_BOTH_WAYS(what_has_ended_is_watched_no_more_though_copies_are_open)
{
    skip_unless_watched_are_listed();
    start(mode, "exit 0");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    int copies[] = {dup(gather.out_fds[0]), dup(gather.out_fds[1]),
                    gather.pidfd >= 0 ? dup(gather.pidfd) : -1};
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(count_watched(), 0);
    for (int i = 0; i < 3; i++)
        if (copies[i] >= 0)
            close(copies[i]);
    close_the_rest();
}

/* The pidfd is in the set already. */
TEST(a_pidfd_under_a_key_is_taken_out_too)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    skip_unless_watched_are_listed();
    start(NULL, "exit 0");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    event.data.fd = -5;
    CHECK_INT(epoll_ctl(gather.epoll_fd, EPOLL_CTL_ADD, gather.pidfd, &event), 0);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    CHECK_INT(epoll_wait(gather.epoll_fd, &event, 1, 0), 1);
    CHECK_INT(event.data.fd, -5);
    int copy = dup(gather.pidfd);
    CHECK_INT(call(MOST), OVER);
    CHECK_INT(count_watched(), 0);
    close(copy);
    close_the_rest();
}

/* --- the end ---------------------------------------------------------------------------------- */

TEST_BOTH_WAYS(a_close_takes_out_and_closes_and_reaps_nobody)
{
    static struct fd_list before, after;
    struct pr_exit end;
    start(mode, "read word; exit 5");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    list_fds(&before);
    int open_fds = 2 + (gather.pidfd >= 0);
    pr_gather_close(&gather);
    list_fds(&after);
    CHECK_INT(after.count, before.count - open_fds);
    CHECK_INT(count_watched(), 0);
    end_child();
    CHECK_INT(pr_reap(-1, gather.pid, &end), 1);
    CHECK_INT(end.status, 5);
    close_the_rest();
}

/* The numbers are others' by then. */
TEST_BOTH_WAYS(a_second_close_touches_nothing)
{
    static struct fd_list before;
    start(mode, "exit 5");
    CHECK_INT(pr_gather_watch(&gather, 1), 0);
    CHECK_INT(pr_wait_exit(gather.pid), 0);
    pr_gather_close(&gather);
    int others[3];
    for (int i = 0; i < 3; i++)
        others[i] = fcntl(in, F_DUPFD_CLOEXEC, 0);
    list_fds(&before);
    twin_reset();
    pr_gather_close(&gather);
    CHECK_INT(twin_logged(TWIN_PARENT), 0);
    check_same_fds(&before);
    CHECK_INT(call(MOST), OVER); /* the end can still be had, by the number */
    check_exit(5);
    for (int i = 0; i < 3; i++)
        close(others[i]);
    close_the_rest();
}
