/* A spawner without threads, where none are to be had: its caller does their work. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "errands.h"
#include "twin.h"

static struct errand *const errand = errands;
static struct errand *const other = errands + 1;
static struct scene *const scene = &errands[0].scene;

static struct pr_spawner *open_alone(uint32_t most)
{
    struct pr_spawner *spawner;
    twin_fail(TWIN_THREAD, 1, EPERM);
    CHECK_INT(pr_spawner_open(3, most, &spawner), 0);
    CHECK_INT(look_at_threads().count, 0);
    return spawner;
}

static void prepare(struct errand *what, const char *script)
{
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, NULL, script);
    scene_map(&what->scene, 0, PR_WE_WRITE);
    scene_map(&what->scene, 2, PR_WE_READ);
}

static void must_be_word(struct errand *what)
{
    must_be_over(what, 3, "out\n", "error\n");
}

static const char word[] = "echo out; echo error >&2; exit 3";

/* Runs until what this returns is closed. */
static int prepare_waiting(struct errand *what)
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, NULL, "read word <&3; echo out; exit 4");
    scene_map(&what->scene, 3, ends[0]);
    return ends[1];
}

static void close_waiting(struct errand *what, int gate)
{
    close(gate);
    close(what->scene.sources[what->scene.request.fd_count - 1]);
}

TEST_IN_MODES(a_job_that_is_not_kept_is_begun_as_it_is_submitted, every_mode)
{
    struct pr_spawner *spawner = open_alone(0);
    scene_shell(scene, mode, "echo out; exit 7");
    CHECK_INT(submit(spawner, errand), 0);
    CHECK_INT(errand->job.state, PR_JOB_FINISHED);
    CHECK(is_readable(spawner_fd(spawner), 0));
    take_one(spawner, errand);
    CHECK_TEXT(scene_read(scene, 0), "out\n");
    scene_must_exit(scene, 7);
    end_spawner(spawner);
}

TEST(the_end_of_a_kept_job_makes_the_fd_readable_and_is_told_in_full)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_alone(0);
    prepare(errand, word);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    must_be_word(errand);
    end_spawner(spawner);
}

TEST(a_job_that_fails_is_told)
{
    struct pr_spawner *spawner = open_alone(0);
    scene_begin(scene, NULL, "/nowhere");
    scene_map(scene, 1, PR_WE_READ);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    scene_check(scene, -ENOENT);
    CHECK_INT(scene->result.stage, PR_STAGE_EXEC);
    end_spawner(spawner);
}

TEST(who_takes_unasked_gets_the_same)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct tally tally = {.left = 2};
    struct pr_spawner *spawner = open_alone(1);
    prepare(errand, word);
    prepare(other, word);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK_INT(submit_kept(spawner, other), 0);
    CHECK_INT(other->job.state, PR_JOB_WAITING);
    while (tally.left)
        take_some(spawner, &tally);
    must_be_word(errand);
    must_be_word(other);
    end_spawner(spawner);
}

static void do_a_hundred(uint32_t most)
{
    struct tally tally = {.left = MOST_JOBS};
    struct pr_spawner *spawner = open_alone(most);
    for (int at = 0; at < MOST_JOBS; at++) {
        prepare(&errands[at], word);
        if (at % 4 == 3)
            scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    take_the_rest(spawner, &tally);
    end_spawner(spawner);
    for (int at = 0; at < MOST_JOBS; at++)
        if (at % 4 == 3)
            CHECK_INT(errands[at].scene.result.error, ENOENT);
        else
            must_be_word(&errands[at]);
    check_no_child();
}

/* Nothing but an end, or a start that failed, makes room here. */
TEST(a_hundred_come_back_once_each_and_none_waits_for_ever)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    do_a_hundred(0);
    do_a_hundred(1);
    do_a_hundred(5);
}

/* Each call does some of them, and whoever takes all that there is comes to an end. */
TEST(a_take_is_no_longer_than_a_few_starts)
{
    enum { FEW = 16 };
    uint64_t tokens[MOST_JOBS];
    int left = MOST_JOBS;
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_alone(1);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    for (int at = 1; at < MOST_JOBS; at++) {
        memset(&errands[at], 0, sizeof errands[at]);
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    close_waiting(errand, gate);
    while (left) {
        CHECK(is_readable(spawner_fd(spawner), -1));
        int count = 0, more;
        while ((more = take_tokens(spawner, tokens + count, MOST_JOBS - (uint32_t)count)) > 0)
            count += more;
        CHECK(count <= FEW + 1); /* and the one whose end made room */
        left -= count;
    }
    must_be_over(errand, 4, "out\n", NULL);
    end_spawner(spawner);
}

/* Then there is no spawner, as anywhere. */
TEST(what_is_denied_besides_threads_is_told)
{
    struct pr_spawner *spawner;
    twin_fail(SYS_eventfd2, 1, EPERM);
    CHECK_INT(pr_spawner_open(2, 0, &spawner), -EPERM);
    twin_fail(SYS_epoll_create1, 1, EPERM);
    CHECK_INT(pr_spawner_open(2, 0, &spawner), -EPERM);
}

TEST(a_release_begins_what_it_makes_room_for)
{
    struct pr_spawner *spawner = open_alone(1);
    scene_shell(scene, NULL, "exit 4");
    CHECK_INT(submit(spawner, errand), 0);
    scene_shell(&other->scene, NULL, "exit 5");
    CHECK_INT(submit(spawner, other), 0);
    take_one(spawner, errand);
    scene_must_exit(scene, 4);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(pr_spawner_state(spawner, &other->job), PR_JOB_WAITING);
    pr_spawner_release(spawner);
    CHECK_INT(pr_spawner_state(spawner, &other->job), PR_JOB_FINISHED);
    take_one(spawner, other);
    scene_must_exit(&other->scene, 5);
    end_spawner(spawner);
}

TEST(the_end_of_a_claimed_child_is_not_told_here_either)
{
    uint64_t token;
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_alone(0);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK_INT(pr_spawner_claim(spawner, &errand->job), PR_JOB_RUNNING);
    close_waiting(errand, gate);
    CHECK_TEXT(scene_read(scene, 0), "out\n");
    scene_must_exit(scene, 4);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    end_spawner(spawner);
}

TEST(the_end_hands_over_and_cancels_here_as_well)
{
    struct tally tally = {.left = 2};
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_alone(1);
    int gate = prepare_waiting(errand);
    prepare(other, word);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK_INT(submit_kept(spawner, other), 0);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    pr_spawner_close(spawner);
    take_the_rest(spawner, &tally);
    CHECK_INT(other->scene.result.stage, PR_STAGE_CANCELLED);
    CHECK_INT(errand->job.told, 0);
    close_waiting(errand, gate);
    CHECK_TEXT(scene_read(scene, 0), "out\n");
    scene_must_exit(scene, 4);
    end_spawner(spawner);
}

/* Also of the children that run there. */
TEST(a_copy_of_the_process_only_closes_the_fds_of_such_a_spawner)
{
    int status;
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_alone(0);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    pid_t copy = fork();
    CHECK(copy >= 0);
    if (copy == 0) {
        pr_spawner_close_fds(spawner);
        _exit(fcntl(spawner_fd(spawner), F_GETFD) == -1 ? 0 : 1);
    }
    CHECK(waitpid(copy, &status, 0) == copy);
    CHECK_INT(status, 0);
    close_waiting(errand, gate);
    take_token(spawner, errand);
    must_be_over(errand, 4, "out\n", NULL);
    end_spawner(spawner);
}

/* Whichever of them it is: nobody is left to hear of an end, or to be told. */
static void lose(int which)
{
    int fds[3];
    uint64_t token;
    struct tally tally = {.left = 1};
    struct pr_spawner *spawner = open_alone(0);
    int gate = prepare_waiting(errand);
    CHECK_INT(submit_kept(spawner, errand), 0);
    pr_spawner_fds(spawner, fds);
    close(fds[which]);
    prepare(other, "exit 5");
    int code = submit(spawner, other); /* is begun, or refused once the loss was noticed */
    tally.left += code == 0;
    while (tally.left)
        take_some(spawner, &tally);
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    if (other->scene.result.error)
        CHECK_INT(other->scene.result.error, EBADF);
    else
        scene_must_exit(&other->scene, 5);
    CHECK_INT(submit(spawner, other), -EBADF);
    CHECK(which == 0 || !is_readable(fds[0], 0)); /* or a loop would never rest */
    CHECK_INT(errand->job.told, 0);
    close_waiting(errand, gate);
    CHECK_TEXT(scene_read(scene, 0), "out\n");
    scene_must_exit(scene, 4);
    pr_spawner_close(spawner);
    pr_spawner_free(spawner);
}

TEST(a_host_that_closes_the_fds_gets_back_what_runs)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    lose(0);
    lose(2);
}

TEST(without_a_watch_of_the_eventfd_nothing_is_left)
{
    struct pr_spawner *spawner;
    twin_fail(TWIN_THREAD, 1, EPERM);
    twin_fail(SYS_epoll_ctl, 3, ENOSPC);
    CHECK_INT(pr_spawner_open(2, 0, &spawner), -ENOSPC);
    CHECK(spawner == NULL);
}
