/* The clock that is an fd. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "procreactor.h"
#include "twin.h"

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    return poll(&polled, 1, timeout_ms) == 1;
}

TEST(a_timer_is_readable_from_its_deadline_on)
{
    int fd = pr_open_timer();
    CHECK(fd >= 0);
    CHECK(!is_readable(fd, 0));
    int64_t deadline = now_ns() + 20 * 1000 * 1000;
    CHECK_INT(pr_set_timer(fd, deadline), 0);
    CHECK(is_readable(fd, -1));
    CHECK(now_ns() >= deadline);
    CHECK(is_readable(fd, 0));
    close(fd);
}

TEST(a_deadline_in_the_past_is_readable_at_once)
{
    int fd = pr_open_timer();
    CHECK_INT(pr_set_timer(fd, 1), 0);
    CHECK(is_readable(fd, 0));
    close(fd);
}

TEST(zero_is_never_and_takes_a_deadline_back)
{
    int fd = pr_open_timer();
    CHECK_INT(pr_set_timer(fd, 1), 0);
    CHECK_INT(pr_set_timer(fd, 0), 0);
    CHECK(!is_readable(fd, 0));
    CHECK_INT(pr_set_timer(fd, INT64_MAX), 0);
    CHECK(!is_readable(fd, 0));
    close(fd);
}

TEST(a_timer_is_close_on_exec_and_does_not_block)
{
    uint64_t expired;
    int fd = pr_open_timer();
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_INT(read(fd, &expired, sizeof expired), -1);
    CHECK_INT(errno, EAGAIN);
    close(fd);
}

TEST(what_the_kernel_refuses_is_returned)
{
    twin_fail(SYS_timerfd_create, 1, EMFILE);
    CHECK_INT(pr_open_timer(), -EMFILE);
    CHECK_INT(pr_set_timer(-1, 1), -EBADF);
    int fd = pr_open_timer();
    CHECK_INT(pr_set_timer(fd, -1), -EINVAL);
    close(fd);
}
