/* Any rows, within what csrc/fdplan.h asks for (distinct targets, nothing below 0), against the
 * model.  All arrays are as large as the header says and no larger, so that a write behind one is
 * seen. */
#include "fdmodel.h"

static void *room(size_t size)
{
    void *block = malloc(size ? size : 1);
    CHECK(block != NULL);
    return block;
}

static bool is_target(const struct pr_row *rows, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].target == number)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes bytes = {data, size};
    int floor = take_byte(&bytes);
    uint32_t most = take_byte(&bytes) % (MODEL_ROWS + 1), count = 0;
    struct pr_row *rows = room(most * sizeof *rows);
    for (uint32_t i = 0; i < most; i++) {
        int target = (int)(take_number(&bytes) & INT_MAX);
        int source = (int)(take_number(&bytes) & INT_MAX);
        if (!is_target(rows, count, target))
            rows[count++] = (struct pr_row){target, source, take_byte(&bytes) & 1};
    }
    struct pr_move *moves = room(2 * count * sizeof *moves);
    struct pr_range *ranges = room((count + 1) * sizeof *ranges);
    bool *done = room(count * sizeof *done);
    int *sorted = room(count * sizeof *sorted);

    check_moves(rows, count, moves, pr_plan_moves(rows, count, moves, done));
    check_closes(rows, count, ranges, pr_plan_closes(rows, count, ranges, sorted));
    check_spare(rows, count, floor);

    free(rows), free(moves), free(ranges), free(done), free(sorted);
    return 0;
}
