/* Every stage has words of its own. */
#include <string.h>

#include "check.h"
#include "procreactor.h"

TEST(every_stage_has_words_of_its_own)
{
    for (int stage = 0; stage < PR_STAGE_COUNT; stage++) {
        CHECK(strlen(pr_stage_text(stage)) > 2);
        CHECK(strcmp(pr_stage_text(stage), "unknown stage") != 0);
        for (int other = 0; other < stage; other++)
            CHECK(strcmp(pr_stage_text(stage), pr_stage_text(other)) != 0);
    }
}

TEST(a_number_that_is_no_stage_has_words_too)
{
    CHECK_TEXT(pr_stage_text(-1), "unknown stage");
    CHECK_TEXT(pr_stage_text(PR_STAGE_COUNT), "unknown stage");
    CHECK_TEXT(pr_stage_text(1 << 30), "unknown stage");
}
