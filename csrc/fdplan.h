/* fdplan.h - from a map of fds to an ordered list of dup3 calls.  Pure: no system call, no
 * allocation, no state. */
#ifndef PR_FDPLAN_H
#define PR_FDPLAN_H

#include <stdbool.h>
#include <stdint.h>

/* One row of the map: in the child, fd `target` is to be what `source` is now. */
struct pr_row {
    int target;
    int source;
    bool close_on_exec; /* kept so in the child: an internal fd, not one for the program */
};

/* One step: dup3(from, to, flags), or, with from == to, clear close-on-exec. */
struct pr_move {
    int from;
    int to;
    int flags;
    int row; /* whose doing it is, for error reports */
};

/* A closed interval of fd numbers. */
struct pr_range {
    unsigned first;
    unsigned last;
};

/* Write the moves that carry out `count` rows with distinct targets; returns how many.
 * moves has room for 2 * count, scratch for count bools.  No move overwrites an fd that a later
 * move still reads; each cycle costs one extra move, through a number that no row mentions. */
uint32_t pr_plan_moves(const struct pr_row *rows, uint32_t count, struct pr_move *moves,
                       bool *scratch);

/* Write the ranges of numbers that are no target, in rising order, up to UINT32_MAX; returns how
 * many.  ranges has room for count + 1; sorted is scratch for count ints. */
uint32_t pr_plan_closes(const struct pr_row *rows, uint32_t count, struct pr_range *ranges,
                        int *sorted);

/* The lowest number >= floor that is neither a target nor a source. */
int pr_plan_spare(const struct pr_row *rows, uint32_t count, int floor);

#endif
