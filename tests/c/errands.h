/* errands.h - scenes that go through a spawner. */
#ifndef PR_ERRANDS_H
#define PR_ERRANDS_H

#include "scene.h"

enum { MOST_JOBS = 100 };

enum {
    DATA = PR_GATHERED_DATA,
    ALL_0 = PR_GATHERED_ALL_0,
    ALL_1 = PR_GATHERED_ALL_1,
    EXIT = PR_GATHERED_EXIT,
    OVER = ALL_0 | ALL_1 | EXIT,
};

struct errand {
    struct scene scene;
    struct pr_job job;
};

/* The token of each is its place here. */
extern struct errand errands[MOST_JOBS];

/* Ends the case where no threads are to be had. */
struct pr_spawner *open_bounded(uint32_t threads, uint32_t most);
struct pr_spawner *open_spawner(uint32_t threads);

/* With all taken and nothing running: nothing comes at the end. */
void end_spawner(struct pr_spawner *spawner);

/* pr_spawner_submit, of a job in which all that is to be written is something else before. */
int submit(struct pr_spawner *spawner, struct errand *what);
int submit_kept(struct pr_spawner *spawner, struct errand *what);

/* The row of our end of the child's `child_fd`, or -1. */
int row_of(const struct scene *scene, int child_fd);

bool is_readable(int fd, int timeout_ms);

/* Until the spawner says that something is finished, and that is the only one. */
void take_token(struct pr_spawner *spawner, const struct errand *wanted);

/* As take_token, of a job that was not kept, with all checked that the header says of its result.
 * */
void take_one(struct pr_spawner *spawner, const struct errand *wanted);

/* The child of a job that is, or will be, running. */
void claim_running(struct pr_spawner *spawner, struct errand *what);

/* What has come back.  Tokens that come twice fail the case. */
struct tally {
    int left;
    bool seen[MOST_JOBS];
};

/* Never waits. */
void take_some(struct pr_spawner *spawner, struct tally *tally);

/* Waits for the spawner to say so before each look. */
void take_the_rest(struct pr_spawner *spawner, struct tally *tally);

/* Nothing is left of the child of a kept job; this is what it brought.  The texts may be NULL, of
 * streams that there are not. */
void must_be_over(struct errand *what, int code, const char *out, const char *error);

/* The child of a kept job is had in full, whatever was told: what the job has not, is read, waited
 * for and closed.  Returns whether it was over. */
bool complete(struct errand *what, int code, const char *out);

/* How many threads bear the spawners' name; what all of them block, and how many sleep. */
struct thread_look {
    int count;
    int sleeping;
    uint64_t blocked;
};
struct thread_look look_at_threads(void);

/* A thread names itself as it starts, and for a moment is still listed after it was joined. */
uint64_t wait_for_threads(int wanted);

/* Until so many have nothing to do.  A thread that waits for an exec does not sleep, it is in state
 * D. */
void wait_for_sleepers(int wanted);

/* Until a child is stopped, by a signal that a rule of twin.h let fall; its pid. */
int wait_for_stopped(void);

#endif
