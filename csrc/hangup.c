/* hangup.c - the pipes of a child that has let go of all of them, closed in one call.
 *
 * A child that ends hangs up all its pipes within microseconds.  Taken one by one, each end of a pipe
 * costs its owner an event, a read that brings nothing and a close; for a child that says little, these
 * are most of what happens after its start.  So all are looked at together when the first is told of.
 *
 * Nothing is taken from the kernel that somebody would have to be told: a pipe with unread data is not at
 * its end, and then nothing is done at all.
 *
 * Facts (pipe(7), poll(2), fs/pipe.c):
 *   - poll tells POLLHUP of a read end when no writer is left, and POLLERR of a write end when no reader
 *     is left; neither the other, so what is told also says which end it is.
 *   - POLLHUP comes with and without unread data.  Nobody can add to it then, so FIONREAD, asked for
 *     after the poll, is the last word.
 *   - The write end needs no second question: what we have written and nobody has read is lost.
 */
#include <sys/ioctl.h>

#include "procreactor.h"
#include "sys.h"

enum { MOST = 16 };

static int is_at_end(const struct pollfd *pipe)
{
    int unread = 1;
    if (pipe->revents == POLLERR)
        return 1;
    return pipe->revents == POLLHUP && sys_ioctl(pipe->fd, FIONREAD, (long)&unread) == 0 && !unread;
}

/* Marked first: what is marked is closed once at most, and its number may soon be another's. */
static void end(int epoll_fd, int *ours)
{
    int fd = *ours;
    *ours = -1;
    if (fd >= 0)
        pr_drop(epoll_fd, fd);
}

int pr_close_ended(int epoll_fd, int *ours, uint32_t count)
{
    struct pollfd pipes[MOST];
    struct timespec at_once = {0};
    uint32_t open = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ours[i] < 0)
            continue;
        if (open == MOST)
            return 0;
        pipes[open++] = (struct pollfd){.fd = ours[i]};
    }
    if (sys_ppoll(pipes, open, &at_once) != (long)open)
        return 0;
    for (uint32_t i = 0; i < open; i++)
        if (!is_at_end(&pipes[i]))
            return 0;
    for (uint32_t i = 0; i < count; i++)
        end(epoll_fd, &ours[i]);
    return 1;
}

void pr_close_ours(int epoll_fd, int *ours, uint32_t count, int fd)
{
    for (uint32_t i = 0; i < count; i++)
        if (fd >= 0 && ours[i] == fd)
            end(epoll_fd, &ours[i]);
}
