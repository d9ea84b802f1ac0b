/* The fd shuffle against a model: numbers in an array instead of fds in a kernel.
 *
 * In the model, fd n holds file n at first, and close-on-exec is set.  A plan is right when each target
 * then holds what its source held, with the flag that its row asks for, and no move read a number that
 * an earlier move had overwritten (which the model sees as a wrong file). */
#include <fcntl.h>
#include <string.h>

#include "check.h"
#include "fdplan.h"

enum { NUMBERS = 64, MOST_ROWS = 16 };

struct model {
    int file[NUMBERS];
    bool close_on_exec[NUMBERS];
};

static bool is_mentioned(const struct pr_row *rows, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].target == number || rows[i].source == number)
            return true;
    return false;
}

/* As the kernel: dup3 refuses equal numbers, so equal means F_SETFD (child.c). */
static void carry_out(struct model *model, const struct pr_move *moves, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(moves[i].from >= 0 && moves[i].from < NUMBERS);
        CHECK(moves[i].to >= 0 && moves[i].to < NUMBERS);
        model->file[moves[i].to] = model->file[moves[i].from];
        model->close_on_exec[moves[i].to] = moves[i].flags & O_CLOEXEC;
    }
}

/* The row that fills `number`, or `count`. */
static uint32_t row_filling(const struct pr_row *rows, uint32_t count, int number)
{
    uint32_t row = 0;
    while (row < count && rows[row].target != number)
        row++;
    return row;
}

/* From a row to the row that fills what it reads, and on: who comes back to where he started is on
 * a cycle.  Cycles are counted at their first row; a row onto itself needs no help. */
static uint32_t count_cycles(const struct pr_row *rows, uint32_t count)
{
    uint32_t cycles = 0;
    for (uint32_t start = 0; start < count; start++) {
        uint32_t at = start, steps = 0;
        do
            at = row_filling(rows, count, rows[at].source);
        while (at < count && at > start && ++steps < count);
        cycles += at == start && rows[start].source != rows[start].target;
    }
    return cycles;
}

static void check_moves(const struct pr_row *rows, uint32_t count)
{
    struct pr_move moves[2 * MOST_ROWS];
    bool scratch[MOST_ROWS];
    struct model model;
    for (int i = 0; i < NUMBERS; i++)
        model.file[i] = i, model.close_on_exec[i] = true;

    uint32_t made = pr_plan_moves(rows, count, moves, scratch);
    carry_out(&model, moves, made);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_INT(model.file[rows[i].target], rows[i].source);
        CHECK_INT(model.close_on_exec[rows[i].target], rows[i].close_on_exec);
    }
    CHECK_INT(made, count + count_cycles(rows, count));
    for (uint32_t i = 0; i < made; i++) {
        CHECK(moves[i].row >= 0 && moves[i].row < (int)count);
        if (moves[i].to != rows[moves[i].row].target)
            CHECK(!is_mentioned(rows, count, moves[i].to));
    }
}

static void check_closes(const struct pr_row *rows, uint32_t count)
{
    struct pr_range ranges[MOST_ROWS + 1];
    int sorted[MOST_ROWS];
    bool open[NUMBERS];
    memset(open, true, sizeof open);
    uint32_t written = pr_plan_closes(rows, count, ranges, sorted);
    CHECK(written <= count + 1);
    for (uint32_t i = 0; i < written; i++) {
        CHECK(ranges[i].first <= ranges[i].last);
        CHECK(i == 0 || ranges[i].first > ranges[i - 1].last + 1);
        for (unsigned fd = ranges[i].first; fd <= ranges[i].last && fd < NUMBERS; fd++)
            open[fd] = false;
    }
    CHECK(ranges[written - 1].last == UINT32_MAX);
    for (int fd = 0; fd < NUMBERS; fd++) {
        bool is_target = false;
        for (uint32_t i = 0; i < count; i++)
            is_target |= rows[i].target == fd;
        CHECK_INT(open[fd], is_target);
    }
}

static void check_plan(const struct pr_row *rows, uint32_t count)
{
    check_moves(rows, count);
    check_closes(rows, count);
    int spare = pr_plan_spare(rows, count, 3);
    CHECK(spare >= 3 && !is_mentioned(rows, count, spare));
    for (int lower = 3; lower < spare; lower++)
        CHECK(is_mentioned(rows, count, lower));
}

/* Calls check_plan with the rows in every order (Heap's algorithm). */
static void check_in_every_order(struct pr_row *rows, uint32_t count, uint32_t fixed)
{
    if (fixed <= 1) {
        check_plan(rows, count);
        return;
    }
    for (uint32_t i = 0; i < fixed; i++) {
        check_in_every_order(rows, count, fixed - 1);
        uint32_t other = fixed % 2 ? 0 : i;
        struct pr_row held = rows[other];
        rows[other] = rows[fixed - 1];
        rows[fixed - 1] = held;
    }
}

TEST(every_map_over_four_fds_in_every_order_is_carried_out)
{
    enum { ABSENT = 4, CHOICES = 5 };
    for (int map = 0; map < CHOICES * CHOICES * CHOICES * CHOICES; map++) {
        struct pr_row rows[4];
        uint32_t count = 0;
        for (int target = 0, rest = map; target < 4; target++, rest /= CHOICES)
            if (rest % CHOICES != ABSENT)
                rows[count++] = (struct pr_row){target, rest % CHOICES, target == 2};
        check_in_every_order(rows, count, count);
    }
}

static uint64_t random_state = 20260101;

static int random_below(int limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (int)(random_state % (uint64_t)limit);
}

static bool is_target(const struct pr_row *rows, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].target == number)
            return true;
    return false;
}

TEST(random_maps_of_up_to_twelve_fds_are_carried_out)
{
    for (int round = 0; round < 20000; round++) {
        struct pr_row rows[12];
        uint32_t count = (uint32_t)random_below(13);
        int numbers = (int)count + random_below(8); /* few: chains and cycles; more: holes */
        for (uint32_t i = 0; i < count; i++) {
            int target = random_below(numbers);
            while (is_target(rows, i, target))
                target = (target + 1) % numbers;
            rows[i] = (struct pr_row){target, random_below(numbers + 4), random_below(2)};
        }
        check_plan(rows, count);
    }
}

TEST(an_empty_map_moves_nothing_and_closes_everything)
{
    struct pr_range range;
    int sorted;
    bool scratch;
    struct pr_move move;
    CHECK_INT(pr_plan_moves(NULL, 0, &move, &scratch), 0);
    CHECK_INT(pr_plan_closes(NULL, 0, &range, &sorted), 1);
    CHECK_INT(range.first, 0);
    CHECK(range.last == UINT32_MAX);
}

TEST(a_row_onto_itself_only_clears_close_on_exec)
{
    const struct pr_row row = {5, 5, false};
    struct pr_move moves[2];
    bool scratch[1];
    CHECK_INT(pr_plan_moves(&row, 1, moves, scratch), 1);
    CHECK_INT(moves[0].from, 5);
    CHECK_INT(moves[0].to, 5);
    CHECK_INT(moves[0].flags, 0);
}

TEST(the_largest_fd_number_leaves_no_range_behind_it_out)
{
    const struct pr_row rows[] = {{INT32_MAX, 0, false}, {0, 1, false}};
    struct pr_range ranges[3];
    int sorted[2];
    CHECK_INT(pr_plan_closes(rows, 2, ranges, sorted), 2);
    CHECK_INT(ranges[0].first, 1);
    CHECK_INT(ranges[0].last, INT32_MAX - 1);
    CHECK_INT(ranges[1].first, (unsigned)INT32_MAX + 1);
    CHECK(ranges[1].last == UINT32_MAX);
}
