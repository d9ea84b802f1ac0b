/* timer.c - a clock that is an fd, for a loop that another loop watches.
 *
 * CLOCK_MONOTONIC and absolute, so that setting it needs no second look at the clock; Python's
 * time.monotonic is the same clock.  (Python has os.timerfd_create only from 3.13 on.)
 */
#include <sys/timerfd.h>

#include "procreactor.h"
#include "sys.h"

int pr_open_timer(void)
{
    return (int)sys_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
}

int pr_set_timer(int fd, int64_t deadline_ns)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000}};
    return (int)sys_timerfd_settime(fd, TFD_TIMER_ABSTIME, &when);
}
