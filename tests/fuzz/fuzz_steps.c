/* A planted fault, to see that the driver is guided: it lies behind four bytes, each of which is a step.
 * Who is told of the steps finds it in thousands of rounds, who is not in thousands of millions. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char word[] = "fork";
    if (size > 0 && bytes[0] == word[0])
        if (size > 1 && bytes[1] == word[1])
            if (size > 2 && bytes[2] == word[2])
                CHECK(size < 4 || bytes[3] != word[3]);
    return 0;
}
