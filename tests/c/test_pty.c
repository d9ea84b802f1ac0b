/* A pseudo terminal: made, refused at each step, and used. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static int fds[2], stage;

static void must_open(int rows, int columns)
{
    int code = pr_open_pty(rows, columns, fds, &stage);
    if (code == -ENOENT || code == -ENODEV)
        skip("no /dev/ptmx");
    CHECK_INT(code, 0);
    CHECK_INT(stage, PR_STAGE_NONE);
}

static void close_both(void)
{
    close(fds[0]);
    close(fds[1]);
}

static void must_fail(int error, int wanted_stage)
{
    CHECK_INT(pr_open_pty(24, 80, fds, &stage), -error);
    CHECK_INT(stage, wanted_stage);
    CHECK_INT(fds[0], -1);
    CHECK_INT(fds[1], -1);
    twin_reset();
}

TEST(a_terminal_has_a_master_that_does_not_block_and_a_slave_that_does)
{
    must_open(0, 0);
    CHECK_INT(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
    CHECK_INT(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    CHECK(!(fcntl(fds[1], F_GETFL) & O_NONBLOCK));
    CHECK(isatty(fds[0]) && isatty(fds[1]));
    close_both();
}

TEST(a_terminal_has_the_size_that_was_asked_for_or_none)
{
    struct winsize size;
    must_open(33, 132);
    CHECK_INT(ioctl(fds[1], TIOCGWINSZ, &size), 0);
    CHECK_INT(size.ws_row, 33);
    CHECK_INT(size.ws_col, 132);
    close_both();
    must_open(0, 0);
    CHECK_INT(ioctl(fds[1], TIOCGWINSZ, &size), 0);
    CHECK_INT(size.ws_row, 0);
    CHECK_INT(size.ws_col, 0);
    close_both();
}

static void open_as_leader(void *unused)
{
    (void)unused;
    CHECK(setsid() > 0);
    must_open(24, 80);
    CHECK_INT(open("/dev/tty", O_RDWR | O_CLOEXEC), -1);
    CHECK_INT(errno, ENXIO);
    close_both();
}

TEST(a_session_leader_does_not_get_it_as_controlling_terminal)
{
    run_apart(open_as_leader, NULL);
}

TEST(what_is_written_at_one_end_is_read_at_the_other)
{
    char text[16] = "";
    struct pollfd polled = {.events = POLLIN};
    must_open(24, 80);
    CHECK_INT(write(fds[1], "out\n", 4), 4);
    polled.fd = fds[0];
    CHECK_INT(poll(&polled, 1, -1), 1);
    CHECK_INT(read(fds[0], text, sizeof text), 5);
    CHECK_TEXT(text, "out\r\n");
    CHECK_INT(write(fds[0], "in\n", 3), 3);
    CHECK_INT(read(fds[1], text, sizeof text), 3);
    close(fds[1]);
    while (read(fds[0], text, sizeof text) > 0)
        ; /* the echo */
    CHECK_INT(errno, EIO); /* the end, on a terminal */
    close(fds[0]);
}

TEST(each_step_that_is_refused_is_reported)
{
    must_open(24, 80);
    close_both();
    twin_fail(SYS_openat, 1, ENOENT);
    must_fail(ENOENT, PR_STAGE_PTY_OPEN);
    twin_fail(SYS_openat, 1, ENOSPC);
    must_fail(ENOSPC, PR_STAGE_PTY_OPEN);
    twin_fail(SYS_ioctl, 1, EIO);
    must_fail(EIO, PR_STAGE_PTY_UNLOCK);
    twin_fail(SYS_ioctl, 2, EIO);
    must_fail(EIO, PR_STAGE_PTY_SIZE);
    twin_fail(SYS_ioctl, 3, EIO);
    must_fail(EIO, PR_STAGE_PTY_PEER);
}

TEST(without_fds_each_end_is_reported)
{
    skip_under_valgrind("there is an fd where there is none");
    struct rlimit limit;
    must_open(24, 80);
    int next = fds[0];
    close_both();
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t whole = limit.rlim_cur;
    for (int room = 0; room < 2; room++) {
        limit.rlim_cur = (rlim_t)(next + room);
        setrlimit(RLIMIT_NOFILE, &limit);
        must_fail(EMFILE, room == 0 ? PR_STAGE_PTY_OPEN : PR_STAGE_PTY_PEER);
    }
    limit.rlim_cur = whole;
    setrlimit(RLIMIT_NOFILE, &limit);
}
