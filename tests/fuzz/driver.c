/* driver.c - runs a fuzz target without libFuzzer: what is kept, then mutations, guided by coverage.
 *
 *   replay-TARGET CORPUS ROUNDS [FILE]     FILE alone, instead, to see one input again
 *   replay-TARGET CORPUS SECONDSs          for so long
 *
 * What gcc alone can build it can run.  gcc's -fsanitize-coverage=trace-pc calls us at each basic block of
 * the target and of the code under test.  A step from one block to the next, counted in powers of two, is
 * a feature; an input that shows a feature for the first time is kept, for this run, and mutated like the
 * others (so AFL does it, too).  Steps are told apart by a hash: two of 16,384 that fall together hide
 * one of them, and no fault.
 *
 * The same ROUNDS make the same inputs.  An input that ends the process is left in ./crash-input. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

#include "fuzz.h"

enum { MOST_INPUTS = 4096, MOST_BYTES = 4096, STEP_BITS = 14, STEPS = 1 << STEP_BITS };

struct input {
    size_t size;
    uint8_t bytes[MOST_BYTES];
};

static struct input kept[MOST_INPUTS], current;
static int kept_count;

static void keep_input(void)
{
    int file = open("crash-input", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ssize_t written = write(file, current.bytes, current.size);
    static const char text[] = "the input is in crash-input\n";
    written += write(2, text, sizeof text - 1);
    (void)written;
}

static void on_abort(int number)
{
    (void)number;
    keep_input();
    _exit(1);
}

/* --- coverage --------------------------------------------------------------------------------- */

static uint8_t taken[STEPS]; /* how often, by the current input */
static uint8_t seen[STEPS];  /* bit n: 2^n times or more, but less than twice that, by any input */
static uintptr_t last_block;

int main(int argc, char **argv);
void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
    /* Relative to a function of ours: the same wherever the program was loaded. */
    uintptr_t block = (uintptr_t)__builtin_return_address(0) - (uintptr_t)main;
    uintptr_t step = (block ^ last_block << 1) * 0x9e3779b97f4a7c15u;
    uint8_t *count = &taken[step >> (64 - STEP_BITS)];
    *count += *count < UINT8_MAX;
    last_block = block;
}

/* Whether the current input has shown what none has before. */
static bool note_features(void)
{
    bool is_new = false;
    for (int i = 0; i < STEPS; i++) {
        if (!taken[i])
            continue;
        uint8_t feature = (uint8_t)(1 << (31 - __builtin_clz(taken[i])));
        is_new |= !(seen[i] & feature);
        seen[i] |= feature;
    }
    return is_new;
}

static int count_features(void)
{
    int count = 0;
    for (int i = 0; i < STEPS; i++)
        count += __builtin_popcount(seen[i]);
    return count;
}

/* Its own block, so that ASan sees a read behind the end. */
static bool run(void)
{
    uint8_t *block = malloc(current.size ? current.size : 1);
    memcpy(block, current.bytes, current.size);
    memset(taken, 0, sizeof taken);
    last_block = 0;
    LLVMFuzzerTestOneInput(block, current.size);
    free(block);
    return note_features();
}

/* --- inputs ----------------------------------------------------------------------------------- */

static void read_input(const char *path, struct input *input)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    input->size = fread(input->bytes, 1, sizeof input->bytes, file);
    fclose(file);
}

static int by_name(const struct dirent **one, const struct dirent **other)
{
    return strcmp((*one)->d_name, (*other)->d_name);
}

static void read_corpus(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, by_name);
    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') {
            CHECK(kept_count < MOST_INPUTS);
            read_input(path, &kept[kept_count++]);
        }
        free(entries[i]);
    }
    free(entries);
}

static uint64_t random_state = 20260101;

static size_t random_below(size_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return limit ? random_state % limit : 0;
}

static void mutate_once(void)
{
    size_t at = random_below(current.size + 1), rest = current.size - at;
    switch (random_below(6)) {
    case 0: /* a bit */
        if (rest)
            current.bytes[at] ^= (uint8_t)(1 << random_below(8));
        break;
    case 1: /* a byte */
        if (rest)
            current.bytes[at] = (uint8_t)random_below(256);
        break;
    case 2: /* a byte more */
        if (current.size < MOST_BYTES) {
            memmove(current.bytes + at + 1, current.bytes + at, rest);
            current.bytes[at] = (uint8_t)random_below(256);
            current.size++;
        }
        break;
    case 3: /* some fewer */
        if (rest) {
            size_t gone = 1 + random_below(rest < 8 ? rest : 8);
            memmove(current.bytes + at, current.bytes + at + gone, rest - gone);
            current.size -= gone;
        }
        break;
    case 4: /* the end of another */
        if (kept_count) {
            const struct input *other = &kept[random_below((size_t)kept_count)];
            size_t from = random_below(other->size + 1), size = other->size - from;
            if (size > MOST_BYTES - at)
                size = MOST_BYTES - at;
            memcpy(current.bytes + at, other->bytes + from, size);
            current.size = at + size;
        }
        break;
    default: /* a number at the edge */
        if (rest)
            current.bytes[at] = (const uint8_t[]){0, 1, 0x7f, 0x80, 0xf0, 0xff}[random_below(6)];
    }
}

static void fuzz_once(void)
{
    current.size = 0;
    if (kept_count)
        current = kept[random_below((size_t)kept_count)];
    for (size_t times = 1 + random_below(8); times; times--)
        mutate_once();
    if (run() && kept_count < MOST_INPUTS)
        kept[kept_count++] = current;
}

/* "50000": so many rounds; "60s": so long. */
static bool is_enough(const char *wanted, long rounds)
{
    static time_t begun;
    char *end;
    long count = strtol(wanted, &end, 10);
    if (*end != 's')
        return rounds >= count;
    if (!begun)
        begun = time(NULL);
    return rounds % 256 == 0 && time(NULL) - begun >= count;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    __sanitizer_set_death_callback(keep_input);
    signal(SIGABRT, on_abort);
    if (argc > 3) {
        read_input(argv[3], &current);
        run();
        return 0;
    }
    read_corpus(argv[1]);
    for (int i = 0; i < kept_count; i++) {
        current = kept[i];
        run();
    }
    int read_count = kept_count, first_features = count_features();
    long rounds = 0;
    while (!is_enough(argv[2], rounds)) {
        fuzz_once();
        rounds++;
    }
    printf("%s: %d inputs and %ld mutations of them, %d kept; %d features, then %d; nothing found\n",
           strrchr(argv[0], '/') + 1, read_count, rounds, kept_count - read_count, first_features,
           count_features());
    return 0;
}
