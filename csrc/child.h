/* child.h - what the child side needs, laid ready by the parent side. */
#ifndef PR_CHILD_H
#define PR_CHILD_H

#include "become.h"
#include "fdplan.h"
#include "procreactor.h"

struct pr_child {
    const struct pr_request *request;
    char *const *candidates;
    char *const *argv;
    char *const *env;
    char *const *launcher_argv;     /* not NULL: exec the launcher instead */
    const struct pr_move *moves;
    uint32_t move_count;
    const struct pr_range *closes;
    uint32_t close_count;
    unsigned cut;                   /* fd table shared: unshare it from here on; 0: not shared */
    int enter_cgroup;               /* by hand, where clone3 could not */
    int may_close_range;
    uint64_t reset_signals;         /* bit n-1: set signal n to default */
    uint64_t caught_signals;        /* bit n-1: give up at signal n; only on a stack of ladder.h */
    int report_row;                 /* fork only: the row of the report pipe; else -1 */
    int report_fd;                  /* where that pipe is now; -1: `report` is in shared memory */
    int pipe_target;                /* fork and launcher: where it will be at last; else -1 */
    struct pr_become become;
    uint32_t lent;                  /* until the kernel clears it, where the parent is awake */
    volatile int is_locked;         /* as child_lock_pipe has left it */
    volatile struct pr_report report;
};

/* Runs in the child, from clone to exec.  Async-signal-safe, no libc, never returns. */
void pr_child_run(void *child) __attribute__((noreturn));

#endif
