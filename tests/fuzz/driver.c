/* driver.c - runs a fuzz target without libFuzzer: what is kept, then blind mutations of it.
 *
 *   replay-TARGET CORPUS ROUNDS [FILE]     FILE alone, instead, to see one input again
 *
 * Nothing guides it, so it finds less than libFuzzer does, and what gcc alone can build it can run.
 * The same ROUNDS make the same inputs.  An input that ends the process is left in ./crash-input. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

#include "fuzz.h"

enum { MOST_INPUTS = 512, MOST_BYTES = 4096 };

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

/* Its own block, so that ASan sees a read behind the end. */
static void run(void)
{
    uint8_t *block = malloc(current.size ? current.size : 1);
    memcpy(block, current.bytes, current.size);
    LLVMFuzzerTestOneInput(block, current.size);
    free(block);
}

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
    long rounds = atol(argv[2]);
    for (long round = 0; round < rounds; round++) {
        current.size = 0;
        if (kept_count)
            current = kept[random_below((size_t)kept_count)];
        for (size_t times = 1 + random_below(8); times; times--)
            mutate_once();
        run();
    }
    printf("%s: %d inputs and %ld mutations of them, nothing found\n", strrchr(argv[0], '/') + 1,
           kept_count, rounds);
    return 0;
}
