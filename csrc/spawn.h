/* spawn.h - pr_spawn, for a thread that spawns in the name of another. */
#ifndef PR_SPAWN_H
#define PR_SPAWN_H

#include <stdint.h>

#include "procreactor.h"

/* As pr_spawn; the child inherits *mask instead of the calling thread's signal mask. */
int pr_spawn_with_mask(const struct pr_request *request, struct pr_result *result, int *ours,
                       const uint64_t *mask);

#endif
