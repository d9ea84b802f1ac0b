/* fuzz.h - what the fuzz targets share: choices read from bytes, and checks that end the process.
 *
 * A target is a function from bytes to "nothing wrong", or to a process that ends; libFuzzer calls it
 * (make fuzz), or driver.c does (make replay).  Bytes that are not there are 0, and 0 is always the
 * choice that goes on without trouble, so every target comes to its end. */
#ifndef PR_FUZZ_H
#define PR_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

struct bytes {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take_byte(struct bytes *bytes)
{
    if (!bytes->left)
        return 0;
    bytes->left--;
    return *bytes->at++;
}

static inline uint32_t take_word(struct bytes *bytes)
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++)
        word = word << 8 | take_byte(bytes);
    return word;
}

/* Small mostly, so that numbers meet each other; with one byte in sixteen any number at all. */
static inline uint32_t take_number(struct bytes *bytes)
{
    uint8_t byte = take_byte(bytes);
    return byte >= 0xf0 ? take_word(bytes) : byte;
}

#endif
