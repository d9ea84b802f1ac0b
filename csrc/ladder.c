/* ladder.c - learning what the kernel, or the sandbox around us, lets us do.
 *
 * Nothing is tried at import: some sandboxes kill a process for a system call they do not know.  The
 * first spawn runs a sacrificial child (about 40 us) that writes a flag into our memory, to learn
 * whether memory is shared at all (valgrind, qemu-user and WSL 1 turn CLONE_VM into a copy, and
 * then a failed exec would look like a success), and that tries close_range(UNSHARE) in the child,
 * because in a thread of the parent it would really unshare.  The child has no exit signal, so no
 * SIGCHLD handler hears of it, nor a wait of other code, unless that asks for "clone" children
 * (__WALL) expressly.
 *
 * Refusals (ENOSYS, EPERM, EINVAL, EACCES, E2BIG) are remembered.  Shortages (EMFILE, EAGAIN, ENOMEM)
 * are not: they say nothing about the kernel.  A sandbox may also be entered later, so spawn.c goes
 * on learning by the same rule.
 */
#include "ladder.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>

#include "procreactor.h"
#include "sys.h"

enum { GUARD_SIZE = 65536, MAPPING_SIZE = GUARD_SIZE + 2 * PR_STACK_SIZE, CACHED_STACKS = 8 };
#define PROBED 0x80000000U

static atomic_uint known;    /* PROBED | features */
static atomic_uint disabled; /* asked for by pr_disable */

bool pr_ladder_is_refusal(long result)
{
    return result == -ENOSYS || result == -EPERM || result == -EINVAL || result == -EACCES
           || result == -E2BIG;
}

uint32_t pr_ladder_features(void)
{
    return atomic_load(&known) & PR_FEATURE_ALL;
}

void pr_ladder_drop(uint32_t feature)
{
    atomic_fetch_and(&known, ~feature);
}

void pr_disable(uint32_t features)
{
    atomic_fetch_or(&disabled, features & PR_FEATURE_ALL);
    pr_ladder_drop(features & PR_FEATURE_ALL);
}

void pr_signals_block(bool has_handlers, uint64_t *before)
{
    const uint64_t all = ~UINT64_C(0), all_but_sigchld = all & ~(UINT64_C(1) << (SIGCHLD - 1));
    sys_rt_sigprocmask(SIG_BLOCK, has_handlers ? &all : &all_but_sigchld, before);
}

void pr_signals_restore(const uint64_t *before)
{
    sys_rt_sigprocmask(SIG_SETMASK, before, NULL);
}

uint64_t pr_ignored_signals(void)
{
    uint64_t ignored = 0;
    for (int number = 1; number <= 64; number++) {
        struct pr_kernel_sigaction action = {.handler = SIG_DFL};
        if (sys_rt_sigaction(number, NULL, &action) == 0 && action.handler == SIG_IGN)
            ignored |= UINT64_C(1) << (number - 1);
    }
    return ignored;
}

/* --- stacks ----------------------------------------------------------------------------------
 *
 * mmap and munmap per spawn would take the memory map's write lock and eight page faults.  A few
 * stacks are kept, taken and given back by one atomic exchange.  The guard is at least as large as the
 * largest page size of the supported machines, so that it is whole pages everywhere. */

static _Atomic(void *) cached_stacks[CACHED_STACKS];

void *pr_stack_take(void)
{
    for (int i = 0; i < CACHED_STACKS; i++) {
        void *stack = atomic_exchange(&cached_stacks[i], NULL);
        if (stack)
            return stack;
    }
    long mapped = sys_mmap(MAPPING_SIZE);
    if (mapped < 0 && mapped > -4096)
        return NULL;
    uintptr_t mapping = (uintptr_t)mapped;
    uintptr_t stack = (mapping + GUARD_SIZE + PR_STACK_SIZE - 1) & ~(uintptr_t)(PR_STACK_SIZE - 1);
    if (sys_mprotect((void *)mapping, stack - mapping, PROT_NONE) < 0) {
        sys_munmap((void *)mapping, MAPPING_SIZE);
        return NULL;
    }
    pr_stack_top((void *)stack)->mapping = (void *)mapping;
    return (void *)stack;
}

void pr_stack_release(void *stack)
{
    for (int i = 0; i < CACHED_STACKS; i++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&cached_stacks[i], &empty, stack))
            return;
    }
    sys_munmap(pr_stack_top(stack)->mapping, MAPPING_SIZE);
}

/* --- clone ----------------------------------------------------------------------------------- */

#if PR_HAVE_RAW_CLONE

static long clone_new(uint32_t features, uint64_t flags, int exit_signal, int cgroup_fd, void *stack,
                      void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd)
{
    struct pr_clone_args args = {
        .flags = flags | PR_CLONE_CLEAR_SIGHAND,
        .child_tid = (uint64_t)(uintptr_t)lent,
        .exit_signal = (uint64_t)exit_signal,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = PR_STACK_SIZE - sizeof(struct pr_stack_top),
    };
    size_t size = PR_CLONE_ARGS_V0;
    if (features & PR_FEATURE_PIDFD) {
        args.flags |= CLONE_PIDFD;
        args.pidfd = (uint64_t)(uintptr_t)pidfd;
    }
    if (cgroup_fd >= 0) {
        args.flags |= PR_CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
        size = PR_CLONE_ARGS_V2;
    }
    long refused = pr_twin(SYS_clone3);
    return refused ? refused
                   : pr_raw_clone(SYS_clone3, (long)&args, (long)size, 0, 0, fn, argument);
}

static long clone_old(uint32_t features, uint64_t flags, int exit_signal, void *stack,
                      void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd)
{
    if (features & PR_FEATURE_PIDFD)
        flags |= CLONE_PIDFD;
    long refused = pr_twin(SYS_clone);
    return refused ? refused
                   : pr_raw_clone(SYS_clone, (long)(flags | (uint64_t)exit_signal),
                                  (long)pr_stack_top(stack), (long)pidfd, (long)lent, fn, argument);
}

long pr_ladder_clone(uint32_t features, uint64_t flags, int exit_signal, int cgroup_fd, void *stack,
                     void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd)
{
    flags |= CLONE_VM | (lent ? CLONE_CHILD_CLEARTID : CLONE_VFORK);
    pr_stack_top(stack)->argument = argument;
    *pidfd = -1;
    if (features & PR_FEATURE_CLONE3)
        return clone_new(features, flags, exit_signal, cgroup_fd, stack, fn, argument, lent, pidfd);
    return clone_old(features, flags, exit_signal, stack, fn, argument, lent, pidfd);
}

#else

long pr_ladder_clone(uint32_t features, uint64_t flags, int exit_signal, int cgroup_fd, void *stack,
                     void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd)
{
    (void)features, (void)flags, (void)exit_signal, (void)cgroup_fd, (void)stack, (void)fn;
    (void)argument, (void)lent, *pidfd = -1;
    return -ENOSYS;
}

#endif

/* --- the probe ------------------------------------------------------------------------------- */

struct probe {
    int asks_for_unshare;     /* not where it was switched off: a sandbox may kill for the question */
    volatile int was_written; /* by the child, so memory is shared */
    volatile long unshare;
    volatile long close_range; /* asked for without the flag where that was denied */
};

PR_RAW bool is_denied(long result)
{
    return result == -ENOSYS || result == -EPERM;
}

static __attribute__((no_sanitize("address", "undefined", "thread"))) void probe_child(void *opaque)
{
    struct probe *probe = opaque;
    if (probe->asks_for_unshare) {
        probe->unshare = sys_close_range(~0U, ~0U, CLOSE_RANGE_UNSHARE);
        if (is_denied(probe->unshare))
            probe->close_range = sys_close_range(~0U, ~0U, 0);
    }
    probe->was_written = 1;
    for (;;)
        sys_exit_group(0);
}

static long wait_for_probe(int kind, int id)
{
    siginfo_t info;
    long result;
    while ((result = sys_waitid(kind, id, &info, WEXITED | __WALL, NULL)) == -EINTR)
        ;
    return result;
}

/* Where there is no child to wait for: of an fd that nobody has, who knows the question says EBADF.  One who
 * waits for nothing at all (a sandbox) is told of ends by pidfds, if by anything. */
static bool waits_for_pidfds(void)
{
    siginfo_t info;
    long result = sys_waitid(P_PIDFD, INT_MAX, &info, WEXITED | WNOHANG, NULL);
    return result == -EBADF
           || pr_ladder_is_refusal(sys_waitid(P_PID, INT_MAX, &info, WEXITED | WNOHANG, NULL));
}

/* The child is gone when this returns, and so is its pidfd. */
static uint32_t learn_from_probe(const struct probe *probe, uint32_t features, long pid, int pidfd)
{
    bool shares_and_waits = probe->was_written; /* read before the wait: clone itself waited for it */
    long waited = pidfd < 0 ? -EINVAL : wait_for_probe(P_PIDFD, pidfd);
    if (pidfd >= 0)
        sys_close(pidfd);
    if (waited < 0 && waited != -ECHILD && !pr_ladder_is_refusal(wait_for_probe(P_PID, (int)pid)))
        features &= ~(uint32_t)PR_FEATURE_PIDFD; /* else there is no other way to hear of an end */
    if (!shares_and_waits)
        return features & ~(uint32_t)PR_FEATURE_VFORK;
    if (probe->unshare < 0)
        features &= ~(uint32_t)PR_FEATURE_UNSHARE;
    if (is_denied(probe->close_range))
        features &= ~(uint32_t)PR_FEATURE_CLOSE_RANGE;
    return features;
}

/* From clone3 to clone, to clone without a pidfd, to none with our memory: then it was not the pidfd
 * that was refused, as far as can be seen. */
static long probe_vfork(uint32_t *features, void *stack)
{
    const uint32_t pidfd_wished = *features & PR_FEATURE_PIDFD;
    for (;;) {
        struct probe probe = {
            .asks_for_unshare = !!(*features & PR_FEATURE_UNSHARE),
            .unshare = -ENOSYS,
        };
        int pidfd;
        long pid = pr_ladder_clone(*features, 0, 0, -1, stack, probe_child, &probe, NULL, &pidfd);
        if (pid >= 0) {
            *features = learn_from_probe(&probe, *features, pid, pidfd);
            return 0;
        }
        if (!pr_ladder_is_refusal(pid))
            return pid;
        if (*features & PR_FEATURE_CLONE3) {
            *features &= ~(uint32_t)PR_FEATURE_CLONE3;
        } else if (*features & PR_FEATURE_PIDFD) {
            *features &= ~(uint32_t)PR_FEATURE_PIDFD;
        } else {
            *features = (*features & ~(uint32_t)PR_FEATURE_VFORK) | pidfd_wished;
            return 0;
        }
    }
}

static long probe_with_signals_blocked(uint32_t *features)
{
    void *stack = pr_stack_take();
    if (!stack)
        return -ENOMEM;
    uint64_t before;
    pr_signals_block(true, &before); /* the child starts with the parent's handlers */
    long result = probe_vfork(features, stack);
    pr_signals_restore(&before);
    pr_stack_release(stack);
    return result;
}

int pr_ladder_probe(void)
{
    if (atomic_load(&known) & PROBED)
        return 0;
    uint32_t features = PR_FEATURE_ALL & ~atomic_load(&disabled);
    if (features & PR_FEATURE_VFORK) {
        long result = probe_with_signals_blocked(&features);
        if (result < 0)
            return (int)result;
    }
    if (!(features & PR_FEATURE_VFORK)) { /* what only a child in our memory can use */
        features &= ~(uint32_t)(PR_FEATURE_CLONE3 | PR_FEATURE_UNSHARE | PR_FEATURE_HELPER);
        if (features & PR_FEATURE_PIDFD && !waits_for_pidfds())
            features &= ~(uint32_t)PR_FEATURE_PIDFD;
    }
    unsigned unknown = 0;
    atomic_compare_exchange_strong(&known, &unknown, PROBED | features);
    pr_ladder_drop(atomic_load(&disabled));
    return 0;
}
