/* fdplan.c - the fd shuffle as a parallel assignment.
 *
 * All targets are to take the OLD values of their sources, as if at once: {0:1, 1:0} swaps.  Seen
 * as a graph, each target has one source, so every component is a tree hanging on at most one cycle.
 * A move is ready when no other waiting move still reads the number that it overwrites.  Running
 * each ready move, and at once the one that waited for what it read, does all trees; what remains are
 * bare cycles, and each is broken by saving one source under a spare number and reading it there.
 *
 * The spare number is free of choice, not of allocation: in the child, every fd that is no row's is
 * going to be closed anyway, so dup3 may land on any number that no row mentions, and a table full
 * to its limit (EMFILE) cannot stop a swap.
 *
 * Quadratic in the number of rows.  Maps of a dozen fds are usual; 1,024 rows take a few milliseconds.
 */
#include "fdplan.h"

#include <fcntl.h>
#include <stddef.h>

static bool is_mentioned(const struct pr_row *rows, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].target == number || rows[i].source == number)
            return true;
    return false;
}

int pr_plan_spare(const struct pr_row *rows, uint32_t count, int floor)
{
    while (is_mentioned(rows, count, floor))
        floor++;
    return floor;
}

/* The source that a cycle's break has moved elsewhere: one at a time, since a cycle runs to its end
 * before the next one is broken. */
struct detour {
    int source;
    int now_at;
};

static int where_is(const struct detour *detour, int source)
{
    return source == detour->source ? detour->now_at : source;
}

static struct pr_move move_for(const struct pr_row *rows, uint32_t row, int from)
{
    return (struct pr_move){
        .from = from,
        .to = rows[row].target,
        .flags = rows[row].close_on_exec ? O_CLOEXEC : 0,
        .row = (int)row,
    };
}

/* What a plan is made in: the rows, what was done, and the moves so far. */
struct plan {
    const struct pr_row *rows;
    uint32_t count;
    bool *done;
    struct detour detour;
    struct pr_move *moves;
    uint32_t emitted;
};

static bool is_still_read(const struct plan *plan, uint32_t by_other_than, int number)
{
    for (uint32_t i = 0; i < plan->count; i++)
        if (!plan->done[i] && i != by_other_than
            && where_is(&plan->detour, plan->rows[i].source) == number)
            return true;
    return false;
}

/* The waiting row with that target, or `count`. */
static uint32_t waiting_row(const struct plan *plan, int target)
{
    uint32_t row = 0;
    while (row < plan->count && (plan->done[row] || plan->rows[row].target != target))
        row++;
    return row;
}

/* Run a row if it is ready, then the row that waited for what it read, and so on along the chain. */
static void emit_from(struct plan *plan, uint32_t row)
{
    while (row < plan->count && !plan->done[row]
           && !is_still_read(plan, row, plan->rows[row].target)) {
        int from = where_is(&plan->detour, plan->rows[row].source);
        plan->moves[plan->emitted++] = move_for(plan->rows, row, from);
        plan->done[row] = true;
        row = waiting_row(plan, from);
    }
}

/* Save the row's source; the row that overwrites it is then ready, and the whole cycle behind it. */
static void break_cycle(struct plan *plan, uint32_t row, int spare)
{
    int source = plan->rows[row].source;
    /* The cycle before has come to its end, so nobody needs its detour any more. */
    plan->detour = (struct detour){.source = source, .now_at = spare};
    plan->moves[plan->emitted++] = (struct pr_move){
        .from = source, .to = spare, .flags = O_CLOEXEC, .row = (int)row};
    emit_from(plan, waiting_row(plan, source));
}

uint32_t pr_plan_moves(const struct pr_row *rows, uint32_t count, struct pr_move *moves, bool *done)
{
    struct plan plan = {rows, count, done, {.source = -1, .now_at = -1}, moves, 0};
    int spare = pr_plan_spare(rows, count, 3);

    for (uint32_t i = 0; i < count; i++)
        done[i] = false;
    for (uint32_t i = 0; i < count; i++)
        emit_from(&plan, i);
    for (uint32_t i = 0; i < count; i++)
        if (!done[i])
            break_cycle(&plan, i, spare);
    return plan.emitted;
}

uint32_t pr_plan_closes(const struct pr_row *rows, uint32_t count, struct pr_range *ranges,
                        int *sorted)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;
        for (; at > 0 && sorted[at - 1] > rows[i].target; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = rows[i].target;
    }
    uint32_t written = 0;
    unsigned next = 0;
    for (uint32_t i = 0; i < count; i++) {
        unsigned target = (unsigned)sorted[i];
        if (target > next)
            ranges[written++] = (struct pr_range){next, target - 1};
        next = target + 1;
    }
    ranges[written++] = (struct pr_range){next, UINT32_MAX};
    return written;
}
