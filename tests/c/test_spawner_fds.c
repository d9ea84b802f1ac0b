/* A host that closes the fds of a spawner, one or all, and opens files of its own under their numbers.
 * Also run under TSan.
 *
 * Which of its fds is which: pr_spawner_fds. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "errands.h"
#include "twin.h"

enum { EVENTFD, BELL, SET };

static struct errand *const errand = errands;
static struct errand *const other = errands + 1;

static int numbers[3];

static struct pr_spawner *open_with_numbers(uint32_t threads)
{
    struct pr_spawner *spawner = open_spawner(threads);
    pr_spawner_fds(spawner, numbers);
    return spawner;
}

/* A file of the host's under each number that is wanted: what is written there can be seen. */
static void put_files(const int *which, int count)
{
    char path[] = "/tmp/procreactor-test-XXXXXX";
    int file = mkostemp(path, O_CLOEXEC);
    CHECK(file >= 0);
    CHECK_INT(unlink(path), 0);
    for (int i = 0; i < count; i++)
        CHECK_INT(dup3(file, numbers[which[i]], O_CLOEXEC), numbers[which[i]]);
    close(file);
}

static void must_be_as_it_was(int number)
{
    struct stat facts;
    CHECK_INT(fstat(number, &facts), 0);
    CHECK(S_ISREG(facts.st_mode));
    CHECK_INT(facts.st_size, 0);
    CHECK_INT(lseek(number, 0, SEEK_CUR), 0);
    close(number);
}

static void prepare_word(struct errand *what)
{
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, NULL, "echo out; exit 3");
}

static int stdin_of_waiting;

static void let_go(int gate)
{
    close(stdin_of_waiting);
    close(gate);
}

/* It lives until its stdin, which is the pipe's other end, is closed. */
static int prepare_waiting(struct errand *what)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, NULL, "read word; echo out; exit 3");
    scene_map(&what->scene, 0, ends[0]);
    stdin_of_waiting = ends[0];
    return ends[1];
}

static uint64_t take_any(struct pr_spawner *spawner)
{
    uint64_t token;
    while (take_tokens(spawner, &token, 1) == 0)
        sched_yield();
    return token;
}

static void must_be_refused(struct errand *what, int code)
{
    CHECK_INT(code, -EBADF);
    CHECK_INT(what->scene.result.stage, PR_STAGE_WATCH);
    CHECK_INT(what->scene.result.error, EBADF);
    CHECK_INT(what->scene.result.pid, -1);
}

static void close_and_free(struct pr_spawner *spawner)
{
    pr_spawner_close(spawner);
    pr_spawner_free(spawner);
}

/* --- the bell --------------------------------------------------------------------------------- */

static void go_on_without_bell(bool has_file)
{
    const int which[] = {BELL};
    struct pr_spawner *spawner = open_with_numbers(3);
    wait_for_sleepers(3);
    if (has_file)
        put_files(which, 1);
    else
        close(numbers[BELL]);
    for (int i = 0; i < 4; i++) {
        prepare_word(errand);
        CHECK_INT(submit_kept(spawner, errand), 0);
        take_token(spawner, errand);
        complete(errand, 3, "out\n");
    }
    end_spawner(spawner);
    if (has_file)
        must_be_as_it_was(numbers[BELL]);
}

TEST(a_bell_that_was_closed_is_replaced)
{
    go_on_without_bell(false);
}

TEST(what_has_the_number_of_the_bell_is_left_alone)
{
    go_on_without_bell(true);
}

TEST(the_bell_may_be_gone_at_the_end)
{
    struct pr_spawner *spawner = open_with_numbers(3);
    wait_for_sleepers(3);
    close(numbers[BELL]);
    end_spawner(spawner);
}

/* --- the set ---------------------------------------------------------------------------------- */

/* The first that wakes after it finds out. */
static void lose_the_set(bool has_file)
{
    const int which[] = {SET};
    struct pr_spawner *spawner = open_with_numbers(2);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    while (pr_spawner_state(spawner, &errand->job) != PR_JOB_RUNNING)
        sched_yield();
    wait_for_sleepers(2);
    if (has_file)
        put_files(which, 1);
    else
        close(numbers[SET]);
    prepare_word(other);
    CHECK_INT(submit_kept(spawner, other), 0);
    struct tally tally = {.left = 2};
    take_the_rest(spawner, &tally); /* the one handed over, the other done or handed over */
    CHECK_INT(errand->job.told, 0);
    CHECK_INT(errand->scene.result.error, 0);
    CHECK(errand->scene.result.pid > 0);
    let_go(gate);
    complete(errand, 3, "out\n");
    complete(other, 3, "out\n");
    wait_for_threads(0);
    prepare_word(other);
    must_be_refused(other, submit_kept(spawner, other));
    close_and_free(spawner);
    if (has_file)
        must_be_as_it_was(numbers[SET]);
}

TEST(without_the_set_the_threads_end_and_what_runs_is_handed_over)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    lose_the_set(false);
}

TEST(a_file_that_has_the_number_of_the_set_is_no_set)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    lose_the_set(true);
}

TEST(what_waits_when_the_set_is_lost_fails)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_bounded(1, 1);
    pr_spawner_fds(spawner, numbers);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    prepare_word(other);
    CHECK_INT(submit_kept(spawner, other), 0); /* until the first one is over */
    while (pr_spawner_state(spawner, &errand->job) != PR_JOB_RUNNING)
        sched_yield();
    wait_for_sleepers(1);
    close(numbers[SET]);
    pr_spawner_cancel(spawner);
    CHECK_INT(take_any(spawner), 1);
    CHECK_INT(other->scene.result.error, ECANCELED);
    prepare_word(other);
    CHECK_INT(submit_kept(spawner, other), 0);
    let_go(gate); /* its end wakes the thread, in a set without a number */
    CHECK_INT(take_any(spawner), 0);
    CHECK_INT(take_any(spawner), 1);
    complete(errand, 3, "out\n");
    if (other->scene.result.error)
        must_be_refused(other, -EBADF);
    else
        complete(other, 3, "out\n");
    close_and_free(spawner);
}

/* --- the eventfd ------------------------------------------------------------------------------ */

static void lose_the_eventfd(bool has_file)
{
    const int which[] = {EVENTFD};
    struct pr_spawner *spawner = open_with_numbers(2);
    wait_for_sleepers(2);
    if (has_file)
        put_files(which, 1);
    else
        close(numbers[EVENTFD]);
    prepare_word(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK_INT(take_any(spawner), 0);
    complete(errand, 3, "out\n");
    wait_for_threads(0);
    prepare_word(other);
    must_be_refused(other, submit(spawner, other));
    close_and_free(spawner);
    if (has_file)
        must_be_as_it_was(numbers[EVENTFD]);
}

TEST(without_the_eventfd_who_takes_unasked_gets_all)
{
    lose_the_eventfd(false);
}

TEST(what_has_the_number_of_the_eventfd_is_neither_written_nor_read_nor_closed)
{
    lose_the_eventfd(true);
}

/* --- all -------------------------------------------------------------------------------------- */

/* As a daemon does that closes all fds it finds. */
static void lose_all(void *has_files)
{
    const int which[] = {EVENTFD, BELL, SET};
    struct pr_spawner *spawner = open_with_numbers(3);
    wait_for_sleepers(3);
    if (has_files)
        put_files(which, 3);
    else
        for (int i = 0; i < 3; i++)
            close(numbers[i]);
    prepare_word(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK_INT(take_any(spawner), 0);
    must_be_refused(errand, -EBADF);
    must_be_refused(errand, submit(spawner, errand));
    close_and_free(spawner);
    for (int i = 0; i < 3 && has_files; i++)
        must_be_as_it_was(numbers[i]);
}

TEST(with_all_closed_what_is_submitted_fails_and_the_end_comes_all_the_same)
{
    run_apart(lose_all, NULL); /* in a process that ends with the threads that nobody can wake */
}

TEST(with_all_closed_and_replaced_nothing_is_written_read_or_closed)
{
    run_apart(lose_all, numbers);
}

TEST(where_fstat_is_denied_all_is_taken_for_ours)
{
    twin_deny(SYS_fstat, EPERM);
    struct pr_spawner *spawner = open_spawner(2);
    prepare_word(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    complete(errand, 3, "out\n");
    end_spawner(spawner);
    twin_reset();
}

/* --- a copy of the process --------------------------------------------------------------------- */

static void close_in_a_copy(void *spawner)
{
    const int which[] = {BELL};
    close(numbers[EVENTFD]);
    put_files(which, 1);
    pr_spawner_close_fds(spawner);
    must_be_as_it_was(numbers[BELL]);
    CHECK_INT(fcntl(numbers[SET], F_GETFD), -1);
}

TEST(a_copy_closes_what_is_left_of_them)
{
    struct pr_spawner *spawner = open_with_numbers(1);
    run_apart(close_in_a_copy, spawner);
    end_spawner(spawner);
}
