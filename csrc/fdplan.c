/* fdplan.c - the fd shuffle as a parallel assignment.
 *
 * All targets are to take the OLD values of their sources, as if at once: {0:1, 1:0} swaps.  Seen
 * as a graph, each target has one source, so every component is a tree hanging on at most one cycle.
 * A move is ready when no other waiting move still reads the number that it overwrites.  Running
 * ready moves until none is left does all trees; what remains are bare cycles, and one is broken by
 * saving one source under a spare number and letting its readers read there.
 *
 * The spare number is free of choice, not of allocation: in the child, every fd that is no row's is
 * going to be closed anyway, so dup3 may land on any number that no row mentions, and a table full
 * to its limit (EMFILE) cannot stop a swap.
 *
 * Quadratic in the number of rows.  Maps of a dozen fds are usual; 1,024 rows take about a millisecond.
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

bool pr_plan_is_sound(const struct pr_row *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].target < 0 || rows[i].source < 0)
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (rows[i].target == rows[j].target)
                return false;
    }
    return true;
}

/* Sources that a cycle's break has moved elsewhere: at most one at a time, since a cycle runs to its
 * end before the next one is looked for. */
struct detour {
    int source;
    int now_at;
};

static int where_is(const struct detour *detour, int source)
{
    return source == detour->source ? detour->now_at : source;
}

static bool is_still_read(const struct pr_row *rows, uint32_t count, const bool *done,
                          const struct detour *detour, uint32_t by_other_than, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (!done[i] && i != by_other_than && where_is(detour, rows[i].source) == number)
            return true;
    return false;
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

static bool emit_ready(const struct pr_row *rows, uint32_t count, const struct detour *detour,
                       struct pr_move *moves, uint32_t *emitted, bool *done)
{
    bool progress = false;
    for (uint32_t i = 0; i < count; i++) {
        if (done[i] || is_still_read(rows, count, done, detour, i, rows[i].target))
            continue;
        moves[(*emitted)++] = move_for(rows, i, where_is(detour, rows[i].source));
        done[i] = progress = true;
    }
    return progress;
}

uint32_t pr_plan_moves(const struct pr_row *rows, uint32_t count, struct pr_move *moves, bool *done)
{
    uint32_t emitted = 0;
    struct detour detour = {.source = -1, .now_at = -1};
    int spare = pr_plan_spare(rows, count, 3);

    for (uint32_t i = 0; i < count; i++)
        done[i] = false;
    for (;;) {
        while (emit_ready(rows, count, &detour, moves, &emitted, done))
            ;
        uint32_t stuck = 0;
        while (stuck < count && done[stuck])
            stuck++;
        if (stuck == count)
            return emitted;
        /* Every cycle has come to its end before, so nobody needs the last detour any more. */
        detour = (struct detour){.source = rows[stuck].source, .now_at = spare};
        moves[emitted++] = (struct pr_move){
            .from = rows[stuck].source, .to = spare, .flags = O_CLOEXEC, .row = (int)stuck};
    }
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
