/* ladder.h - which kernel features are in use, and the stacks that vfork children run on. */
#ifndef PR_LADDER_H
#define PR_LADDER_H

#include <stdbool.h>
#include <stdint.h>

#include "sys.h"

/* Find out, once, with a child that does nothing.  0, or a passing -errno (EAGAIN, ENOMEM,
 * EMFILE ...) after which nothing was learnt. */
int pr_ladder_probe(void);

/* The features in use; 0 before the probe. */
uint32_t pr_ladder_features(void);

/* Give up a feature for good. */
void pr_ladder_drop(uint32_t feature);

/* Whether an error says "not here" (for good), rather than "not now". */
bool pr_ladder_is_refusal(long result);

/* Block all 64 signals of this thread, those that libc keeps for itself included; and undo it.  For a
 * child that has no handlers SIGCHLD is left as it is: blocked, it is not ignored but queued, and
 * each child that ends meanwhile wakes some other thread of the host for nothing (whether a signal is
 * to be ignored the kernel asks the thread that started the child). */
void pr_signals_block(bool has_handlers, uint64_t *before);
void pr_signals_restore(const uint64_t *before);

/* Start fn(argument) on `stack`, sharing memory, the caller asleep until it execs or exits.  With `lent`
 * the caller is awake, and may touch nothing that the child uses: the kernel sets *lent, which is not 0
 * before, to 0 at the exec or exit, and wakes who waits for that (futex(2), not a private one).
 * The pid, or -errno; *pidfd is written where pidfds are on, and is -1 else. */
long pr_ladder_clone(uint32_t features, uint64_t flags, int exit_signal, int cgroup_fd, void *stack,
                     void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd);

/* A stack with a guard page below; NULL when memory is out.  Released stacks are used again. */
void *pr_stack_take(void);
void pr_stack_release(void *stack);

/* Each begins at a multiple of its size, so that a signal handler, which is given nothing else, finds
 * by its own frame what its child was started with. */
enum { PR_STACK_SIZE = 32768 };
struct pr_stack_top {
    void *argument; /* of the child that runs there */
    void *mapping;
};

PR_RAW struct pr_stack_top *pr_stack_top(const void *inside)
{
    uintptr_t stack = (uintptr_t)inside & ~(uintptr_t)(PR_STACK_SIZE - 1);
    return (struct pr_stack_top *)(stack + PR_STACK_SIZE) - 1;
}

#endif
