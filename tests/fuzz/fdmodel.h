/* fdmodel.h - a table of fds in which a plan is carried out, and what a right plan has done there.
 *
 * Only the numbers that rows and moves mention are kept, so a number may be any int.  At first fd n
 * holds file n, close-on-exec; a number never read before is open. */
#ifndef PR_FDMODEL_H
#define PR_FDMODEL_H

#include <fcntl.h>
#include <limits.h>

#include "fdplan.h"
#include "fuzz.h"

enum { MODEL_ROWS = 48, MODEL_FDS = 4 * MODEL_ROWS };

struct fd_model {
    int count;
    struct {
        int fd;
        int file;
        bool close_on_exec;
    } fds[MODEL_FDS];
};

static inline int model_at(struct fd_model *model, int fd)
{
    int at = 0;
    while (at < model->count && model->fds[at].fd != fd)
        at++;
    if (at == model->count) {
        CHECK(model->count < MODEL_FDS);
        model->fds[at].fd = model->fds[at].file = fd;
        model->fds[at].close_on_exec = true;
        model->count++;
    }
    return at;
}

static inline bool row_mentions(const struct pr_row *rows, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].target == number || rows[i].source == number)
            return true;
    return false;
}

/* Each target holds what its source held, with the flag that its row asks for.  A move that reads
 * what another has overwritten would bring the wrong file.  What the moves wrote beside the targets
 * no row mentions, and it is close-on-exec. */
static inline void check_moves(const struct pr_row *rows, uint32_t count,
                               const struct pr_move *moves, uint32_t made)
{
    struct fd_model model = {.count = 0};
    CHECK(made >= count && made <= count + count / 2); /* a cycle has two rows at least */
    for (uint32_t i = 0; i < made; i++) {
        CHECK(moves[i].from >= 0 && moves[i].to >= 0);
        CHECK(moves[i].row >= 0 && (uint32_t)moves[i].row < count);
        int from = model_at(&model, moves[i].from), to = model_at(&model, moves[i].to);
        model.fds[to].file = model.fds[from].file;
        model.fds[to].close_on_exec = moves[i].flags & O_CLOEXEC;
        if (moves[i].to != rows[moves[i].row].target)
            CHECK(!row_mentions(rows, count, moves[i].to) && moves[i].to >= 3
                  && moves[i].flags == O_CLOEXEC);
    }
    for (uint32_t i = 0; i < count; i++) {
        int at = model_at(&model, rows[i].target);
        CHECK(model.fds[at].file == rows[i].source);
        CHECK(model.fds[at].close_on_exec == rows[i].close_on_exec);
    }
}

/* The ranges and the targets together are all numbers, and no number is in two of them. */
static inline void check_closes(const struct pr_row *rows, uint32_t count,
                                const struct pr_range *ranges, uint32_t written)
{
    uint64_t closed = 0;
    CHECK(written >= 1 && written <= count + 1);
    for (uint32_t i = 0; i < written; i++) {
        CHECK(ranges[i].first <= ranges[i].last);
        CHECK(i == 0 || ranges[i].first > ranges[i - 1].last);
        closed += (uint64_t)ranges[i].last - ranges[i].first + 1;
        for (uint32_t j = 0; j < count; j++)
            CHECK((unsigned)rows[j].target < ranges[i].first
                  || (unsigned)rows[j].target > ranges[i].last);
    }
    CHECK(closed + count == UINT64_C(1) << 32);
}

static inline void check_spare(const struct pr_row *rows, uint32_t count, int floor)
{
    int spare = pr_plan_spare(rows, count, floor);
    CHECK(spare >= floor && !row_mentions(rows, count, spare));
    for (int lower = floor; lower < spare; lower++)
        CHECK(row_mentions(rows, count, lower));
}

#endif
