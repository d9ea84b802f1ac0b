/* gather.c - all that one child has to tell, in one call: two streams and its end.
 *
 * A child that writes little and ends makes three fds ready at once, and its owner wants to know of
 * them together.  One call per child and turn, instead of one per fd, is what lets a loop in Python
 * keep up with two threads that spawn.
 *
 * Facts:
 *   - Each stream is read until it is empty, ended, or its part of the buffer is full; epoll is
 *     level-triggered, so what is left makes the fd ready again.
 *   - Hang-up may be seen before the data that was written ahead of it; only a read that returns 0
 *     is the end.
 *   - The exit is asked for first: what a child wrote is in its pipes when it has ended, so one call
 *     then reads them to their end, unless somebody else holds them or there is too much.
 *   - It is asked for at every call: a pidfd that is ready while there is nothing to reap
 *     belongs to a traced zombie, which the caller sees by a call that tells nothing.
 *   - A child may have its pipe keep its writes apart (O_DIRECT, pipe(7)), up to PIPE_BUF each: a read
 *     takes one of them, and what it has no room for is gone.  So the last room of a part, where it is
 *     less than that, is used only for what it has room for.
 */
#include <errno.h>
#include <limits.h>
#include <sys/ioctl.h>

#include "procreactor.h"
#include "sys.h"

static int watch(const struct pr_gather *gather, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    event.data.fd = fd;
    return fd < 0 ? 0 : (int)sys_epoll_ctl(gather->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int pr_gather_watch(const struct pr_gather *gather, int with_pidfd)
{
    const int fds[] = {with_pidfd ? gather->pidfd : -1, gather->out_fds[0], gather->out_fds[1]};
    struct epoll_event unused = {0}; /* older kernels want one */
    for (int i = 0; i < 3; i++) {
        int result = watch(gather, fds[i]);
        if (result >= 0)
            continue;
        while (--i >= 0)
            if (fds[i] >= 0)
                sys_epoll_ctl(gather->epoll_fd, EPOLL_CTL_DEL, fds[i], &unused);
        return result;
    }
    return 0;
}

static void end(struct pr_gather *gather, int *fd)
{
    if (*fd >= 0 && gather->epoll_fd >= 0)
        pr_drop(gather->epoll_fd, *fd);
    else if (*fd >= 0)
        sys_close(*fd);
    *fd = -1;
}

void pr_gather_close(struct pr_gather *gather)
{
    end(gather, &gather->out_fds[0]);
    end(gather, &gather->out_fds[1]);
    end(gather, &gather->pidfd);
}

/* Whether a read with so little room might cut a write.  One that is there is no longer than all that
 * is there; where nothing is, one may come before the read, unless no writer is left. */
static int might_cut(int fd, uint32_t room)
{
    struct pollfd pipe = {.fd = fd, .events = POLLIN};
    struct timespec at_once = {0};
    int unread = 0;
    if (room >= PIPE_BUF || sys_ioctl(fd, FIONREAD, (long)&unread) != 0)
        return 0;
    if (unread)
        return unread > (int)room;
    return sys_ppoll(&pipe, 1, &at_once) >= 0 && pipe.revents != POLLHUP;
}

/* How much was read; the stream is closed at its end.  An error that is no "not yet" ends it too:
 * there is nothing to be had from it any more. */
static uint32_t read_stream(struct pr_gather *gather, int stream, char *buffer, uint32_t size)
{
    uint32_t filled = 0;
    while (gather->out_fds[stream] >= 0 && filled < size) {
        if (filled && might_cut(gather->out_fds[stream], size - filled))
            break;
        long result = sys_read(gather->out_fds[stream], buffer + filled, size - filled);
        if (result == -EAGAIN)
            break;
        if (result > 0)
            filled += (uint32_t)result;
        else if (result != -EINTR)
            end(gather, &gather->out_fds[stream]);
    }
    return filled;
}

int pr_gather(struct pr_gather *gather, char *buffer, uint32_t part)
{
    if (!gather->reaped) {
        gather->reaped = pr_reap(gather->pidfd, gather->pid, &gather->exit) > 0;
        if (gather->reaped)
            end(gather, &gather->pidfd);
    }
    int told = gather->reaped ? PR_GATHERED_EXIT : 0;
    for (int i = 0; i < 2; i++) {
        gather->sizes[i] = read_stream(gather, i, buffer + (size_t)i * part, part);
        if (gather->sizes[i])
            told |= PR_GATHERED_DATA;
        if (gather->out_fds[i] < 0)
            told |= i ? PR_GATHERED_ALL_1 : PR_GATHERED_ALL_0;
    }
    return told;
}
