/* Children that the spawner's threads see to their end.  Also run under TSan.
 *
 * With one thread what is told of a child is certain.  With several, a child that another thread is
 * just starting may hold a copy of a stream's other end until it execs, so a job may come back with
 * that stream still open: errands.h has `complete` for these. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "errands.h"
#include "flood.h"
#include "twin.h"

static struct errand *const errand = errands; /* of the cases that have one */
static struct errand *const other = errands + 1;
static struct scene *const scene = &errands[0].scene;

/* Those in which there is a pidfd to hear of the end by. */
static const struct mode pidfd_modes[] = {
    {"default", 0, false},
    {"without clone3", PR_FEATURE_CLONE3, false},
    {"without unshare", PR_FEATURE_UNSHARE, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by the launcher", 0, true},
    {0},
};

static const struct mode no_pidfd_modes[] = {
    {"without pidfds", PR_FEATURE_PIDFD, false},
    {"by fork, nothing else", PR_FEATURE_ALL, false},
    {0},
};

static void run_kept(void)
{
    struct pr_spawner *spawner = open_spawner(1);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    end_spawner(spawner);
}

/* Children that are to live until we say so read from here: a line ends one, the end ends all. */
static int gate[2];

static void open_gate(void)
{
    CHECK_INT(pipe2(gate, O_CLOEXEC), 0);
}

static void close_gate(void)
{
    close(gate[0]);
    close(gate[1]);
}

/* By which children tell of themselves; their fd 4. */
static int marks[2];

static void open_marks(void)
{
    CHECK_INT(pipe2(marks, O_CLOEXEC), 0);
}

static void close_marks(void)
{
    close(marks[0]);
    close(marks[1]);
}

/* One is two bytes. */
static void wait_for_marks(int wanted)
{
    char mark[2];
    for (int i = 0; i < wanted; i++)
        CHECK_INT(read(marks[0], mark, sizeof mark), sizeof mark);
}

static void *close_in_a_thread(void *spawner)
{
    pr_spawner_close(spawner);
    return NULL;
}

/* A child at the gate, which is its fd 3. */
static void prepare_at_gate(struct errand *what, const struct mode *mode, const char *script)
{
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, mode, script);
    scene_map(&what->scene, 3, gate[0]);
}

static void prepare_echo(struct errand *what)
{
    char script[32];
    int at = (int)(what - errands);
    memset(what, 0, sizeof *what);
    snprintf(script, sizeof script, "echo %d; exit %d", at, at);
    scene_shell(&what->scene, NULL, script);
}

static bool complete_echo(struct errand *what)
{
    char wanted[16];
    int at = (int)(what - errands);
    snprintf(wanted, sizeof wanted, "%d\n", at);
    return complete(what, at, wanted);
}

/* --- what is told ----------------------------------------------------------------------------- */

TEST_IN_MODES(a_kept_job_comes_back_with_its_end_and_all_that_it_wrote, pidfd_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    scene_shell(scene, mode, "echo out; echo error >&2; exit 7");
    scene_map(scene, 2, PR_WE_READ);
    scene_map(scene, 0, PR_WE_WRITE);
    run_kept();
    CHECK(errand->job.gather.exit.max_rss_kib > 0);
    must_be_over(errand, 7, "out\n", "error\n");
    check_no_child();
}

TEST(each_stream_may_be_the_only_one_that_was_written_to)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    const char *scripts[] = {"echo out", "echo error >&2", "exit 0"};
    for (int i = 0; i < 3; i++) {
        scene_shell(scene, NULL, scripts[i]);
        scene_map(scene, 2, PR_WE_READ);
        run_kept();
        must_be_over(errand, 0, i == 0 ? "out\n" : "", i == 1 ? "error\n" : "");
    }
}

TEST(a_stream_that_is_none_is_told_as_ended)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    scene_begin(scene, NULL, "/bin/sh");
    scene_argument(scene, "-c");
    scene_argument(scene, "echo error >&2; exit 2");
    scene_map(scene, 2, PR_WE_READ);
    run_kept();
    must_be_over(errand, 2, NULL, "error\n");
    scene_begin(scene, NULL, "/bin/true");
    run_kept();
    must_be_over(errand, 0, NULL, NULL);
}

/* The pipe at 5 is nobody's but the caller's. */
TEST(the_rows_may_be_in_any_order_and_among_others)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    scene_begin(scene, NULL, "/bin/sh");
    scene_argument(scene, "-c");
    scene_argument(scene, "echo more >&5; echo error >&2; cat; echo out");
    scene_map(scene, 2, PR_WE_READ);
    int fifth = scene_map(scene, 5, PR_WE_READ);
    scene_map(scene, 0, PR_WE_WRITE);
    scene_map(scene, 1, PR_WE_READ);
    run_kept();
    must_be_over(errand, 0, "out\n", "error\n");
    CHECK_TEXT(scene_read(scene, fifth), "more\n");
}

TEST(the_signal_that_ended_a_kept_child_is_told)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    scene_shell(scene, NULL, "kill -KILL $$");
    run_kept();
    CHECK_INT(errand->job.told, OVER);
    CHECK_INT(errand->job.gather.exit.code, CLD_KILLED);
    CHECK_INT(errand->job.gather.exit.status, SIGKILL);
}

TEST_IN_MODES(a_kept_job_that_fails_is_one_that_failed, main_modes)
{
    scene_begin(scene, mode, "/nowhere");
    scene_map(scene, 0, PR_WE_WRITE);
    scene_map(scene, 1, PR_WE_READ);
    run_kept();
    scene_check(scene, -ENOENT);
    CHECK_INT(scene->result.stage, PR_STAGE_EXEC);
    CHECK_INT(errand->job.told, 0);
    CHECK(errand->job.data == NULL);
}

/* A child that was not kept is not looked after: not even its stdin is closed. */
TEST(kept_and_other_jobs_may_be_mixed)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, NULL, "read word; echo got $word");
    int in = scene_map(scene, 0, PR_WE_WRITE);
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    scene_shell(&other->scene, NULL, "read word; echo \"[$word]\"");
    scene_map(&other->scene, 0, PR_WE_WRITE);
    CHECK_INT(submit_kept(spawner, other), 0);
    take_token(spawner, other);
    must_be_over(other, 0, "[]\n", NULL);
    CHECK_INT(write(scene->ours[in], "it\n", 3), 3);
    CHECK_TEXT(scene_read(scene, 0), "got it\n");
    scene_must_exit(scene, 0);
    end_spawner(spawner);
}

/* --- how much is told ------------------------------------------------------------------------- */

enum { PART = 68 * 1024 }; /* as in spawner.c */

static void check_flood(const char *bytes, int stream, uint32_t from, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if ((unsigned char)bytes[i] != flood_byte(stream, from + i))
            FAIL("byte %u of stream %d is another", from + i, stream);
}

/* What the job has not read of a stream is in the pipe. */
static void check_rest(int stream, uint32_t from, uint32_t size)
{
    static char rest[1024 * 1024];
    int row = errand->job.rows[stream + 1], fd = scene->ours[row];
    CHECK(fd >= 0);
    for (uint32_t at = from; at < size;) {
        ssize_t got = read(fd, rest, sizeof rest);
        CHECK(got > 0);
        check_flood(rest, stream, at, (uint32_t)got);
        at += (uint32_t)got;
    }
    CHECK_INT(read(fd, rest, 1), 0);
    close(fd);
    scene->ours[row] = -1;
}

static void run_flood(uint32_t first, uint32_t second)
{
    const uint32_t sizes[] = {first, second};
    const struct pr_gather *gather = &errand->job.gather;
    char words[2][16];
    scene_begin(scene, NULL, flood_path);
    for (int i = 0; i < 2; i++) {
        snprintf(words[i], sizeof words[i], "%u", sizes[i]);
        scene_argument(scene, words[i]);
        scene_map(scene, i + 1, PR_WE_READ);
    }
    run_kept();
    CHECK_INT(errand->job.told & EXIT, EXIT);
    if (gather->exit.status == FLOOD_CANNOT)
        skip("pipes do not grow here");
    CHECK_INT(gather->exit.status, 0);
    uint32_t at = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t told = sizes[i] < PART ? sizes[i] : PART;
        CHECK_INT(gather->sizes[i], told);
        check_flood(errand->job.data + at, i, 0, told);
        at += told;
        CHECK_INT(!!(errand->job.told & (i ? ALL_1 : ALL_0)), sizes[i] < PART);
        if (sizes[i] >= PART)
            check_rest(i, told, sizes[i]);
    }
    CHECK_INT(!!errand->job.data, at > 0);
    pr_job_forget_data(&errand->job);
}

TEST(what_a_pipe_holds_is_told_in_full)
{
    const uint32_t sizes[] = {0, 1, 4095, 4096, 65535, 65536};
    skip_unless_features(PR_FEATURE_PIDFD);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        run_flood(sizes[i], 7);
        run_flood(3, sizes[i]);
    }
    run_flood(65536, 65536);
}

TEST(of_more_than_that_the_rest_is_left_in_the_pipe)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    run_flood(PART - 1, 0);
    run_flood(PART, 1); /* all has been read, which nobody knows who has not looked */
    run_flood(PART + 1, PART - 1);
    run_flood(5, 200000);
    run_flood(300000, 200000);
}

/* --- what is handed over ---------------------------------------------------------------------- */

/* A kept child that nobody has heard of: nothing was read, and only its stdin is closed. */
static void must_be_handed_over(struct errand *what)
{
    const struct pr_result *result = &what->scene.result;
    CHECK_INT(result->error, 0);
    CHECK_INT(what->job.told, 0);
    CHECK(what->job.data == NULL);
    CHECK(result->pid > 0);
    if (what->job.rows[0] >= 0)
        CHECK_INT(what->scene.ours[what->job.rows[0]], -1);
    for (int i = 1; i < 3; i++)
        if (what->job.rows[i] >= 0)
            CHECK(fcntl(what->scene.ours[what->job.rows[i]], F_GETFL) & O_NONBLOCK);
}

static void prepare_to_be_handed_over(struct errand *what, const struct mode *mode)
{
    memset(what, 0, sizeof *what);
    scene_shell(&what->scene, mode, "cat; echo out; echo error >&2; exit 7");
    scene_map(&what->scene, 2, PR_WE_READ);
    scene_map(&what->scene, 0, PR_WE_WRITE);
}

static void must_be_whole(struct errand *what)
{
    CHECK_TEXT(scene_read(&what->scene, 1), "error\n");
    CHECK_TEXT(scene_read(&what->scene, 0), "out\n");
    scene_must_exit(&what->scene, 7);
}

TEST_IN_MODES(without_pidfds_a_kept_child_is_handed_over, no_pidfd_modes)
{
    prepare_to_be_handed_over(errand, mode);
    run_kept();
    must_be_handed_over(errand);
    CHECK_INT(scene->result.pidfd, -1);
    CHECK_INT(twin_count(SYS_epoll_ctl), 2); /* the bell's, at its opening and at the end */
    must_be_whole(errand);
}

/* Call `nth` of `number`, in the life of a spawner with one kept child. */
static void must_be_handed_over_without(long number, int nth, int error)
{
    prepare_to_be_handed_over(errand, NULL);
    prepare_to_be_handed_over(other, NULL);
    twin_fail(number, nth, error);
    struct pr_spawner *spawner = open_spawner(1);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    must_be_handed_over(errand);
    CHECK(scene->result.pidfd >= 0);
    CHECK(twin_count(number) >= nth);
    must_be_whole(errand);
    CHECK_INT(submit_kept(spawner, other), 0); /* as if nothing had been */
    take_token(spawner, other);
    must_be_over(other, 7, "out\n", "error\n");
    end_spawner(spawner);
    twin_reset();
}

TEST(a_child_that_cannot_be_heard_of_is_handed_over)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    must_be_handed_over_without(SYS_epoll_ctl, 2, ENOSPC); /* the first is the bell's */
    must_be_handed_over_without(SYS_epoll_ctl, 2, ENOMEM);
    must_be_handed_over_without(TWIN_REALLOC, 1, ENOMEM); /* a place */
    must_be_handed_over_without(TWIN_MALLOC, 3, ENOMEM);  /* spawner, spawn, buffer */
}

TEST(of_a_child_that_may_not_be_waited_for_in_any_form_all_is_told_but_the_status)
{
    siginfo_t info;
    skip_unless_features(PR_FEATURE_PIDFD);
    prepare_to_be_handed_over(errand, NULL);
    twin_deny(SYS_waitid, EPERM);
    struct pr_spawner *spawner = open_spawner(1);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    twin_reset();
    CHECK_INT(errand->job.told, OVER | DATA);
    CHECK_INT(errand->job.gather.exit.code, 0);
    CHECK_INT(errand->job.gather.exit.status, EPERM);
    CHECK_INT(errand->job.gather.sizes[0], 4);
    CHECK(memcmp(errand->job.data, "out\nerror\n", 10) == 0);
    pr_job_forget_data(&errand->job);
    CHECK_INT(waitid(P_PID, (id_t)errand->job.made_pid, &info, WEXITED), 0);
    CHECK_INT(info.si_status, 7);
    end_spawner(spawner);
}

TEST(without_memory_for_the_data_it_stays_in_the_buffer)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_spawner(1);
    twin_reset();
    twin_fail(TWIN_MALLOC, 3, ENOMEM); /* spawn, buffer, data */
    for (int i = 0; i < 2; i++) { /* of the second the thread has a buffer of its own */
        prepare_to_be_handed_over(&errands[i], NULL);
        CHECK_INT(submit_kept(spawner, &errands[i]), 0);
        take_token(spawner, &errands[i]);
    }
    CHECK_INT(twin_count(TWIN_MALLOC), 6);
    end_spawner(spawner);
    must_be_over(errand, 7, "out\n", "error\n");
    must_be_over(other, 7, "out\n", "error\n");
}

/* More than the first places; without memory for more, the 65th is handed over. */
static void run_many_at_once(bool has_memory)
{
    enum { MANY = 70, FIRST_PLACES = 64 };
    struct tally tally = {.left = MANY};
    open_gate();
    open_marks();
    if (!has_memory)
        twin_fail(TWIN_REALLOC, 2, ENOMEM);
    struct pr_spawner *spawner = open_spawner(1);
    for (int at = 0; at < MANY; at++) {
        prepare_at_gate(&errands[at], NULL, "echo + >&4; read word <&3; echo out; exit 3");
        scene_map(&errands[at].scene, 4, marks[1]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    wait_for_marks(MANY);
    if (!has_memory) {
        struct errand *handed = &errands[FIRST_PLACES];
        take_token(spawner, handed);
        must_be_handed_over(handed);
        tally.seen[FIRST_PLACES] = true;
        tally.left--;
    }
    close(gate[1]);
    take_the_rest(spawner, &tally);
    end_spawner(spawner);
    CHECK_INT(twin_count(TWIN_REALLOC), has_memory ? 2 : 3);
    close(gate[0]);
    close_marks();
    for (int at = 0; at < MANY; at++)
        complete(&errands[at], 3, "out\n");
}

TEST(places_are_added_as_they_are_needed)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    run_many_at_once(true);
}

TEST(where_places_cannot_be_added_a_child_is_handed_over)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    run_many_at_once(false);
}

/* The exit is told, and the stream is the caller's with what is still to come. */
static void start_holder(struct pr_spawner *spawner)
{
    prepare_at_gate(errand, NULL, "(read word <&3; echo late) & echo early; exit 3");
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    CHECK_INT(errand->job.told, EXIT | ALL_1 | DATA);
    CHECK_INT(errand->job.gather.exit.status, 3);
    CHECK_INT(errand->job.gather.sizes[0], 6);
    CHECK(memcmp(errand->job.data, "early\n", 6) == 0);
    CHECK_INT(scene->result.pid, -1);
    CHECK_INT(scene->result.pidfd, -1);
    pr_job_forget_data(&errand->job);
}

static void end_holder(void)
{
    CHECK_INT(write(gate[1], "\n", 1), 1);
    CHECK_TEXT(scene_read(scene, 0), "late\n");
}

TEST(a_stream_that_others_hold_is_handed_over_with_the_exit)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    struct pr_spawner *spawner = open_spawner(1);
    start_holder(spawner);
    end_spawner(spawner);
    end_holder();
    close_gate();
}

/* As strace -D does.  'y' in *ready: it does. */
static pid_t start_tracer(int pid, int ready, int leave)
{
    char byte;
    pid_t tracer = fork();
    if (tracer == 0) {
        long attached = ptrace(PTRACE_SEIZE, pid, NULL, NULL);
        CHECK_INT(write(ready, attached == 0 ? "y" : "n", 1), 1);
        CHECK_INT(read(leave, &byte, 1), 1);
        _exit(0);
    }
    return tracer;
}

/* Its pidfd says that it has ended, and waitid that it has not. */
TEST(a_child_that_only_its_tracer_knows_to_have_ended_is_handed_over)
{
    int ready[2], leave[2], pid;
    char line[16] = "", byte = 0;
    siginfo_t info;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    open_marks();
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    struct pr_spawner *spawner = open_spawner(1);
    prepare_at_gate(errand, NULL, "echo $$ >&4; read word <&3; echo out; exit 5");
    scene_map(scene, 4, marks[1]);
    CHECK_INT(submit_kept(spawner, errand), 0);
    CHECK(read(marks[0], line, sizeof line - 1) > 1);
    CHECK_INT(sscanf(line, "%d", &pid), 1);
    while (pr_spawner_state(spawner, &errand->job) != PR_JOB_RUNNING)
        sched_yield(); /* or the tracer would have a copy of the child's ends */
    pid_t tracer = start_tracer(pid, ready[1], leave[0]);
    CHECK_INT(read(ready[0], &byte, 1), 1);
    CHECK_INT(write(gate[1], "\n", 1), 1);
    take_token(spawner, errand);
    if (byte == 'y') {
        CHECK_INT(errand->job.told, ALL_0 | ALL_1 | DATA);
        CHECK_INT(scene->result.pid, pid);
        CHECK(scene->result.pidfd >= 0);
    }
    CHECK_INT(write(leave[1], "\n", 1), 1);
    CHECK_INT(waitid(P_PID, (id_t)tracer, &info, WEXITED), 0);
    complete(errand, 5, "out\n");
    end_spawner(spawner);
    close_gate();
    close_marks();
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(leave[i]);
    }
    if (byte != 'y')
        skip("may not trace");
}

/* --- claims ----------------------------------------------------------------------------------- */

/* Where the set's watches are listed. */
static void check_watched(const struct pr_spawner *spawner, int wanted)
{
    struct watched watched;
    int fds[3];
    pr_spawner_fds(spawner, fds);
    list_watched(fds[2], &watched);
    CHECK_INT(watched.count, wanted);
}

/* The one thread is held in the exec of the first for as long as we like. */
TEST(a_claim_tells_the_state_and_takes_none_but_a_running_job)
{
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK);
    open_gate();
    struct pr_spawner *spawner = open_spawner(1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, 1, 0, SIGSTOP});
    prepare_at_gate(errand, NULL, "read word <&3; echo out; exit 6");
    prepare_echo(other);
    CHECK_INT(submit_kept(spawner, errand), 0);
    int stopped = wait_for_stopped();
    CHECK_INT(submit_kept(spawner, other), 0);
    CHECK_INT(pr_spawner_claim(spawner, &errand->job), PR_JOB_BEGUN);
    CHECK_INT(pr_spawner_state(spawner, &errand->job), PR_JOB_BEGUN);
    CHECK_INT(pr_spawner_claim(spawner, &other->job), PR_JOB_WAITING);
    CHECK_INT(pr_spawner_state(spawner, &other->job), PR_JOB_WAITING);
    CHECK_INT(kill(stopped, SIGCONT), 0);
    claim_running(spawner, errand);
    CHECK_INT(pr_spawner_state(spawner, &errand->job), PR_JOB_CLAIMED);
    CHECK_INT(pr_spawner_claim(spawner, &errand->job), PR_JOB_CLAIMED);
    scene_check(scene, 0);
    CHECK_INT(scene->result.pid, stopped);
    CHECK(is_readable(spawner_fd(spawner), -1));
    CHECK_INT(pr_spawner_claim(spawner, &other->job), PR_JOB_FINISHED);
    CHECK_INT(pr_spawner_claim(spawner, &other->job), PR_JOB_FINISHED);
    take_token(spawner, other);
    must_be_over(other, 1, "1\n", NULL);
    CHECK_INT(write(gate[1], "\n", 1), 1);
    CHECK_TEXT(scene_read(scene, 0), "out\n");
    scene_must_exit(scene, 6);
    close_gate();
    end_spawner(spawner);
}

TEST(the_end_of_a_claimed_child_is_not_told)
{
    uint64_t token;
    skip_unless_features(PR_FEATURE_PIDFD);
    skip_unless_watched_are_listed();
    open_gate();
    struct pr_spawner *spawner = open_spawner(1);
    prepare_at_gate(errand, NULL, "read word <&3; echo out; exit 6");
    CHECK_INT(submit_kept(spawner, errand), 0);
    claim_running(spawner, errand);
    check_watched(spawner, 1);
    int copy = dup(scene->result.pidfd); /* as a child may hold that has not exec'ed */
    CHECK_INT(write(gate[1], "\n", 1), 1);
    CHECK_INT(pr_wait_exit(scene->result.pid), 0);
    prepare_echo(other);
    CHECK_INT(submit_kept(spawner, other), 0); /* its thread has had what there was to hear */
    take_token(spawner, other);
    must_be_over(other, 1, "1\n", NULL);
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    scene_must_exit(scene, 6);
    close(copy);
    close_gate();
    end_spawner(spawner);
}

TEST(a_job_that_is_not_kept_is_never_running)
{
    int state;
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, NULL, "/bin/true");
    CHECK_INT(submit(spawner, errand), 0);
    while ((state = pr_spawner_claim(spawner, &errand->job)) != PR_JOB_FINISHED)
        CHECK(state == PR_JOB_WAITING || state == PR_JOB_BEGUN);
    take_one(spawner, errand);
    scene_must_exit(scene, 0);
    end_spawner(spawner);
}

/* Every claimer has a quarter of the jobs, and claims one as soon as another, `lag` places on, has
 * begun: the child is then just alive, or just over. */
enum { CLAIMERS = 4 };

static const int lags[CLAIMERS] = {0, 1, 2, 4};
static bool claimed[MOST_JOBS];

struct claimer {
    pthread_t thread;
    struct pr_spawner *spawner;
    int number;
};

/* Whether it was had.  A claim also takes what it was only to look at; then it is claimed early. */
static bool try_claim(struct pr_spawner *spawner, int at, bool *is_settled)
{
    int state = claimed[at] ? PR_JOB_FINISHED : pr_spawner_claim(spawner, &errands[at].job);
    if (state == PR_JOB_RUNNING)
        claimed[at] = true;
    *is_settled = state == PR_JOB_RUNNING || state == PR_JOB_FINISHED;
    return state == PR_JOB_RUNNING;
}

static void *claim_a_share(void *opaque)
{
    const struct claimer *claimer = opaque;
    int share = MOST_JOBS / CLAIMERS, first = claimer->number * share, lag = lags[claimer->number];
    for (int at = first; at < first + share; at++) {
        bool is_settled = false;
        int ahead = at + lag < first + share ? at + lag : first + share - 1;
        while (!is_settled) {
            try_claim(claimer->spawner, ahead, &is_settled);
            sched_yield();
        }
        for (is_settled = false; !is_settled;)
            try_claim(claimer->spawner, at, &is_settled);
    }
    return NULL;
}

/* Jobs of each quarter in turn, so that all claimers are busy at once. */
static void submit_all(struct pr_spawner *spawner)
{
    int share = MOST_JOBS / CLAIMERS;
    for (int i = 0; i < MOST_JOBS; i++) {
        struct errand *what = &errands[i % CLAIMERS * share + i / CLAIMERS];
        CHECK_INT(submit_kept(spawner, what), 0);
    }
}

static void start_thread(pthread_t *thread, void *(*fn)(void *), void *argument)
{
    CHECK_INT(pthread_create(thread, NULL, fn, argument), 0);
}

/* What was claimed is never told, and all else once. */
static void check_claimed_or_told(const struct tally *tally)
{
    for (int at = 0; at < MOST_JOBS; at++) {
        CHECK(claimed[at] != tally->seen[at]);
        if (claimed[at]) {
            errands[at].job.told = 0;
            errands[at].job.state = PR_JOB_FINISHED;
        }
        complete_echo(&errands[at]);
    }
}

TEST(claims_may_race_with_ends_in_many_threads)
{
    struct claimer claimers[CLAIMERS];
    struct tally tally = {.left = MOST_JOBS};
    skip_unless_features(PR_FEATURE_PIDFD);
    for (int at = 0; at < MOST_JOBS; at++)
        prepare_echo(&errands[at]);
    struct pr_spawner *spawner = open_spawner(3);
    submit_all(spawner);
    for (int i = 0; i < CLAIMERS; i++) {
        claimers[i] = (struct claimer){.spawner = spawner, .number = i};
        start_thread(&claimers[i].thread, claim_a_share, &claimers[i]);
    }
    for (int i = 0; i < CLAIMERS; i++)
        CHECK_INT(pthread_join(claimers[i].thread, NULL), 0);
    for (int at = 0; at < MOST_JOBS; at++)
        tally.left -= claimed[at];
    take_the_rest(spawner, &tally); /* not before: nothing that was taken may be claimed */
    end_spawner(spawner);
    check_claimed_or_told(&tally);
}

/* As an event loop does, on one thread. */
TEST(claims_and_takes_may_take_turns)
{
    struct tally tally = {.left = MOST_JOBS};
    skip_unless_features(PR_FEATURE_PIDFD);
    for (int at = 0; at < MOST_JOBS; at++)
        prepare_echo(&errands[at]);
    struct pr_spawner *spawner = open_spawner(2);
    submit_all(spawner);
    for (int at = 0; tally.left; at = (at + 37) % MOST_JOBS) {
        bool is_settled;
        if (!tally.seen[at] && try_claim(spawner, at, &is_settled))
            tally.left--;
        take_some(spawner, &tally);
    }
    end_spawner(spawner);
    check_claimed_or_told(&tally);
}

static void *claim_all(void *opaque)
{
    bool is_settled;
    for (int at = 0; at < MOST_JOBS; at++)
        do
            try_claim(opaque, at, &is_settled);
        while (!is_settled);
    return NULL;
}

/* pr_spawner_close hands over the running ones while another thread claims them. */
TEST(claims_may_race_with_the_end_of_the_spawner)
{
    struct tally tally = {.left = MOST_JOBS};
    pthread_t claimer;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    open_marks();
    struct pr_spawner *spawner = open_spawner(2);
    for (int at = 0; at < MOST_JOBS; at++) {
        char script[64];
        snprintf(script, sizeof script, "echo + >&4; read word <&3; echo %d; exit %d", at, at);
        prepare_at_gate(&errands[at], NULL, script);
        scene_map(&errands[at].scene, 4, marks[1]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    wait_for_marks(MOST_JOBS);
    wait_for_sleepers(2);
    start_thread(&claimer, claim_all, spawner);
    pr_spawner_close(spawner);
    CHECK_INT(pthread_join(claimer, NULL), 0);
    for (int at = 0; at < MOST_JOBS; at++)
        tally.left -= claimed[at];
    while (tally.left > 0 && is_readable(spawner_fd(spawner), 0))
        take_some(spawner, &tally);
    pr_spawner_free(spawner);
    close_gate();
    close_marks();
    check_claimed_or_told(&tally);
}

#ifndef __SANITIZE_THREAD__ /* which runs no handler between two raw calls */

static int pauses[2], paused[2];

/* Only of the signals that a rule of twin.h lets fall, not of those that ends send. */
static void pause_thread(int number, siginfo_t *info, void *unused)
{
    char byte = '+';
    (void)number, (void)unused;
    if (info->si_code != SI_TKILL)
        return;
    CHECK_INT(write(paused[1], &byte, 1), 1);
    CHECK_INT(read(pauses[0], &byte, 1), 1);
}

static void wait_for_pause(void)
{
    char byte;
    CHECK_INT(read(paused[0], &byte, 1), 1);
}

static void end_pause(void)
{
    CHECK_INT(write(pauses[1], "-", 1), 1);
}

static void submit_at_gate(struct pr_spawner *spawner, struct errand *what, int fd)
{
    prepare_at_gate(what, NULL, "echo + >&4; read word <&3; echo out; exit 6");
    what->scene.sources[1] = fd;
    scene_map(&what->scene, 4, marks[1]);
    CHECK_INT(submit_kept(spawner, what), 0);
}

/* One thread takes the ends of two children in one go, and is paused between them.  The second is
 * claimed, and its place goes to a child that the other thread starts; the event is then about
 * nobody. */
TEST(an_event_that_has_become_stale_touches_nobody)
{
    enum { FIRST, SECOND, THIRD, NEW };
    const struct sigaction handler = {.sa_sigaction = pause_thread,
                                      .sa_flags = SA_SIGINFO | SA_RESTART};
    int ends[2];
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK | PR_FEATURE_CLONE3);
    open_gate();
    open_marks();
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_INT(pipe2(pauses, O_CLOEXEC), 0);
    CHECK_INT(pipe2(paused, O_CLOEXEC), 0);
    sigaction(SIGCHLD, &handler, NULL);
    struct pr_spawner *spawner = open_spawner(2);
    submit_at_gate(spawner, &errands[FIRST], gate[0]);
    submit_at_gate(spawner, &errands[SECOND], ends[0]);
    submit_at_gate(spawner, &errands[THIRD], ends[0]);
    wait_for_marks(3);
    wait_for_sleepers(2);
    twin_reset();
    twin_add((struct twin_rule){TWIN_PARENT, SYS_waitid, 1, 0, SIGCHLD});
    twin_add((struct twin_rule){TWIN_PARENT, SYS_waitid, 2, 0, SIGCHLD});
    twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, 1, 0, SIGSTOP});
    submit_at_gate(spawner, &errands[NEW], gate[0]);
    int stopped = wait_for_stopped(); /* one thread is busy */
    CHECK_INT(write(gate[1], "\n", 1), 1);
    wait_for_pause(); /* and so is the other, with the end of FIRST */
    close(ends[1]);
    for (int at = SECOND; at <= THIRD; at++) /* until both have ended */
        CHECK(is_readable(errands[at].scene.result.pidfd, -1));
    end_pause();
    wait_for_pause(); /* with that of SECOND or THIRD, which it has heard of together */
    int claimed_at = SECOND, told_at = THIRD;
    if (pr_spawner_claim(spawner, &errands[SECOND].job) != PR_JOB_RUNNING) {
        claimed_at = THIRD, told_at = SECOND;
        CHECK_INT(pr_spawner_claim(spawner, &errands[THIRD].job), PR_JOB_RUNNING);
    }
    CHECK_INT(kill(stopped, SIGCONT), 0);
    wait_for_marks(1);
    while (pr_spawner_claim(spawner, &errands[FIRST].job) != PR_JOB_FINISHED)
        sched_yield();
    wait_for_sleepers(2); /* the paused one reads, too */
    CHECK_INT(errands[NEW].job.place, errands[claimed_at].job.place);
    end_pause();
    struct tally tally = {.left = 2};
    take_the_rest(spawner, &tally);
    CHECK(tally.seen[FIRST] && tally.seen[told_at]);
    CHECK_INT(write(gate[1], "\n", 1), 1);
    take_token(spawner, &errands[NEW]);
    must_be_over(&errands[NEW], 6, "out\n", NULL);
    end_spawner(spawner);
    signal(SIGCHLD, SIG_DFL);
    CHECK_TEXT(scene_read(&errands[claimed_at].scene, 0), "out\n");
    scene_must_exit(&errands[claimed_at].scene, 6);
    complete(&errands[FIRST], 6, "out\n");
    complete(&errands[told_at], 6, "out\n");
    close(ends[0]);
    close_gate();
    close_marks();
    for (int i = 0; i < 2; i++) {
        close(pauses[i]);
        close(paused[i]);
    }
}

#endif

/* --- how many may be alive -------------------------------------------------------------------- */

/* The one place is taken, and nothing changes that but a release. */
static void room_must_come_by_release(struct pr_spawner *spawner)
{
    prepare_echo(other);
    CHECK_INT(submit_kept(spawner, other), 0);
    wait_for_sleepers(1);
    CHECK_INT(pr_spawner_claim(spawner, &other->job), PR_JOB_WAITING);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    pr_spawner_release(spawner);
    take_token(spawner, other);
    must_be_over(other, 1, "1\n", NULL);
    end_spawner(spawner);
}

TEST(a_claimed_child_counts_until_it_is_released)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    struct pr_spawner *spawner = open_bounded(1, 1);
    prepare_at_gate(errand, NULL, "read word <&3; exit 4");
    CHECK_INT(submit_kept(spawner, errand), 0);
    claim_running(spawner, errand);
    close_gate();
    scene_must_exit(scene, 4); /* and still counts */
    room_must_come_by_release(spawner);
}

TEST(a_child_whose_stream_is_open_counts_until_it_is_released)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    struct pr_spawner *spawner = open_bounded(1, 1);
    start_holder(spawner);
    end_holder();
    room_must_come_by_release(spawner);
    close_gate();
}

TEST(a_child_that_is_not_kept_counts_until_it_is_released)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_bounded(1, 1);
    scene_shell(scene, NULL, "exit 4");
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    scene_must_exit(scene, 4);
    room_must_come_by_release(spawner);
}

TEST(a_child_that_was_handed_over_counts_until_it_is_released)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_bounded(1, 1);
    twin_reset();
    twin_fail(SYS_epoll_ctl, 1, ENOSPC);
    prepare_to_be_handed_over(errand, NULL);
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    must_be_handed_over(errand);
    must_be_whole(errand);
    room_must_come_by_release(spawner);
}

/* One that is refused has not begun: it neither counts nor is it to be released. */
TEST(a_refused_job_does_not_count)
{
    struct pr_spawner *spawner = open_bounded(1, 1);
    prepare_echo(errand);
    scene->request.death_signal = SIGTERM;
    CHECK_INT(submit_kept(spawner, errand), -EINVAL);
    scene->request.death_signal = 0;
    CHECK_INT(submit_kept(spawner, errand), 0);
    take_token(spawner, errand);
    complete_echo(errand);
    end_spawner(spawner);
}

TEST(a_release_wakes_as_many_threads_as_it_makes_room_for)
{
    enum { BOUND = 3 };
    struct tally tally = {.left = BOUND};
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    struct pr_spawner *spawner = open_bounded(BOUND, BOUND);
    for (int at = 0; at < BOUND; at++) {
        prepare_at_gate(&errands[at], NULL, "read word <&3; exit 4");
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
        claim_running(spawner, &errands[at]);
    }
    for (int at = BOUND; at < 2 * BOUND; at++) {
        prepare_echo(&errands[at]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    wait_for_sleepers(BOUND);
    for (int at = 0; at < BOUND; at++)
        pr_spawner_release(spawner);
    take_the_rest(spawner, &tally);
    close_gate();
    for (int at = 0; at < BOUND; at++)
        scene_must_exit(&errands[at].scene, 4);
    for (int at = BOUND; at < 2 * BOUND; at++)
        complete_echo(&errands[at]);
    end_spawner(spawner);
}

/* The first ring is lost, as two that come at once are one: then the thread that is woken sees that
 * there is more to do than it can, and rings for the next. */
TEST(a_thread_that_leaves_a_job_that_may_begin_wakes_another)
{
    enum { BOUND = 2 };
    struct tally tally = {.left = BOUND};
    int stopped[BOUND];
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK);
    open_gate();
    struct pr_spawner *spawner = open_bounded(BOUND, BOUND);
    for (int at = 0; at < BOUND; at++) {
        prepare_at_gate(&errands[at], NULL, "read word <&3; exit 4");
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
        claim_running(spawner, &errands[at]);
    }
    for (int at = BOUND; at < 2 * BOUND; at++) {
        prepare_echo(&errands[at]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    wait_for_sleepers(BOUND);
    twin_reset();
    twin_add((struct twin_rule){TWIN_PARENT, SYS_write, 1, -EPIPE, 0});
    twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, 0, 0, SIGSTOP});
    for (int at = 0; at < BOUND; at++)
        pr_spawner_release(spawner);
    for (int at = 0; at < BOUND; at++)
        stopped[at] = wait_for_stopped(); /* both at once, so by both threads */
    for (int at = 0; at < BOUND; at++)
        CHECK_INT(kill(stopped[at], SIGCONT), 0);
    take_the_rest(spawner, &tally);
    close_gate();
    for (int at = 0; at < BOUND; at++)
        scene_must_exit(&errands[at].scene, 4);
    for (int at = BOUND; at < 2 * BOUND; at++)
        complete_echo(&errands[at]);
    end_spawner(spawner);
}

/* Children tell of their births and deaths through one pipe, which keeps their order. */
TEST(never_are_more_alive_than_may_be)
{
    enum { MANY = 60, BOUND = 3 };
    struct tally tally = {.left = MANY};
    int alive = 0;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_marks();
    struct pr_spawner *spawner = open_bounded(5, BOUND);
    for (int at = 0; at < MANY; at++) {
        memset(&errands[at], 0, sizeof errands[at]);
        scene_shell(&errands[at].scene, NULL, "echo + >&4; echo - >&4");
        scene_map(&errands[at].scene, 4, marks[1]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    while (tally.left) {
        uint64_t token;
        CHECK(is_readable(spawner_fd(spawner), -1));
        if (take_tokens(spawner, &token, 1) == 0)
            continue;
        tally.left--;
        if (!complete(&errands[token], 0, ""))
            pr_spawner_release(spawner);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        char mark[2];
        CHECK_INT(read(marks[0], mark, 2), 2);
        alive += mark[0] == '+' ? 1 : -1;
        CHECK(alive >= 0 && alive <= BOUND);
    }
    end_spawner(spawner);
    close_marks();
}

/* With one thread, and so one child at a time, nothing is ever to be released. */
TEST(what_has_failed_or_is_over_makes_room_by_itself)
{
    struct tally tally = {.left = MOST_JOBS};
    skip_unless_features(PR_FEATURE_PIDFD);
    struct pr_spawner *spawner = open_bounded(1, 1);
    for (int at = 0; at < MOST_JOBS; at++) {
        prepare_echo(&errands[at]);
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
            CHECK(complete_echo(&errands[at]));
}

/* --- many ------------------------------------------------------------------------------------- */

static void keep_a_hundred(uint32_t threads, uint32_t most)
{
    struct tally tally = {.left = MOST_JOBS};
    struct pr_spawner *spawner = open_bounded(threads, most);
    for (int at = 0; at < MOST_JOBS; at++) {
        prepare_echo(&errands[at]);
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    while (tally.left) {
        uint64_t token;
        CHECK(is_readable(spawner_fd(spawner), -1)); /* what is not told would be waited for */
        if (take_tokens(spawner, &token, 1) == 0)
            continue;
        CHECK(token < MOST_JOBS && !tally.seen[token]);
        tally.seen[token] = true;
        tally.left--;
        if (!complete_echo(&errands[token]))
            pr_spawner_release(spawner);
    }
    end_spawner(spawner);
    check_no_child();
}

TEST(a_hundred_kept_jobs_come_back_once_each)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    for (uint32_t threads = is_under_valgrind() ? 8 : 1; threads <= 8; threads *= 2) {
        keep_a_hundred(threads, 0);
        keep_a_hundred(threads, 1);
        keep_a_hundred(threads, 5);
    }
}

TEST_IN_MODES(a_hundred_without_pidfds_come_back_once_each, no_pidfd_modes)
{
    keep_a_hundred(2, 0);
    keep_a_hundred(2, 2);
}

/* --- when it is announced --------------------------------------------------------------------- */

/* Jobs that fail, done by one thread, which is stopped before the exec of the `stops`, counted from
 * 1. */
static struct pr_spawner *submit_with_stops(int jobs, const int *stops, int count)
{
    struct pr_spawner *spawner = open_spawner(1);
    for (int i = 0; i < count; i++)
        twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, stops[i], 0, SIGSTOP});
    for (int at = 0; at < jobs; at++) {
        memset(&errands[at], 0, sizeof errands[at]);
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    }
    return spawner;
}

/* Until the thread is in the exec of the next stop. */
static int go_on(int stopped)
{
    CHECK_INT(kill(stopped, SIGCONT), 0);
    return wait_for_stopped();
}

static int take_up_to(struct pr_spawner *spawner, int capacity)
{
    uint64_t tokens[MOST_JOBS];
    return take_tokens(spawner, tokens, (uint32_t)capacity);
}

/* MANY_FINISHED is 32, FEW_WAITING is 16. */
TEST(while_many_wait_it_stays_silent_until_many_have_finished)
{
    const int stops[] = {1, 32, 33, 43, 44};
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = submit_with_stops(60, stops, 5);
    int fd = spawner_fd(spawner), stopped = wait_for_stopped();
    stopped = go_on(stopped);
    CHECK(!is_readable(fd, 0)); /* 31 have finished */
    stopped = go_on(stopped);
    CHECK(is_readable(fd, 0)); /* 32 have */
    CHECK_INT(take_up_to(spawner, 31), 31);
    CHECK(is_readable(fd, 0));
    CHECK_INT(take_up_to(spawner, MOST_JOBS), 1);
    CHECK(!is_readable(fd, 0));
    stopped = go_on(stopped);
    CHECK(!is_readable(fd, 0)); /* 10 have finished, 17 wait */
    stopped = go_on(stopped);
    CHECK(is_readable(fd, 0)); /* 16 wait */
    CHECK_INT(take_up_to(spawner, MOST_JOBS), 11);
    CHECK_INT(kill(stopped, SIGCONT), 0);
    for (int left = 17; left; left -= take_up_to(spawner, MOST_JOBS))
        CHECK(is_readable(fd, -1));
    end_spawner(spawner);
}

TEST(what_is_not_announced_may_be_taken_unasked)
{
    const int stops[] = {1, 10, 11};
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = submit_with_stops(40, stops, 3);
    int stopped = go_on(wait_for_stopped());
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(take_up_to(spawner, 4), 4);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    stopped = go_on(stopped);
    CHECK_INT(take_up_to(spawner, MOST_JOBS), 6);
    CHECK_INT(take_up_to(spawner, MOST_JOBS), 0);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(kill(stopped, SIGCONT), 0);
    for (int left = 30; left; left -= take_up_to(spawner, MOST_JOBS))
        CHECK(is_readable(spawner_fd(spawner), -1));
    end_spawner(spawner);
}

/* The bound keeps many waiting, and one after the other is told. */
TEST(before_the_threads_sleep_all_is_announced)
{
    enum { MANY = 40 };
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = open_bounded(2, 1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, 1, 0, SIGSTOP});
    for (int at = 0; at < MANY; at++) {
        memset(&errands[at], 0, sizeof errands[at]);
        scene_begin(&errands[at].scene, NULL, "/bin/true");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    CHECK_INT(kill(wait_for_stopped(), SIGCONT), 0);
    for (int at = 0; at < MANY; at++) {
        take_one(spawner, &errands[at]);
        scene_must_exit(&errands[at].scene, 0);
        pr_spawner_release(spawner);
    }
    end_spawner(spawner);
}

TEST(the_end_announces_what_was_silent)
{
    const int stops[] = {1, 10};
    pthread_t closer;
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = submit_with_stops(40, stops, 2);
    int stopped = go_on(wait_for_stopped());
    CHECK(!is_readable(spawner_fd(spawner), 0));
    start_thread(&closer, close_in_a_thread, spawner);
    CHECK(is_readable(spawner_fd(spawner), -1));
    CHECK_INT(kill(stopped, SIGCONT), 0);
    CHECK_INT(pthread_join(closer, NULL), 0);
    CHECK_INT(take_up_to(spawner, MOST_JOBS), 40);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    pr_spawner_free(spawner);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* One of each: finished, running, begun, and two that wait. */
TEST(the_end_hands_over_what_runs_and_cancels_what_waits)
{
    enum { FINISHED, RUNNING, BEGUN, WAITING, ALSO_WAITING, ALL };
    struct tally tally = {.left = 3};
    pthread_t closer;
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK);
    open_gate();
    open_marks();
    struct pr_spawner *spawner = open_spawner(1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_execve, 3, 0, SIGSTOP});
    for (int at = 0; at < ALL; at++)
        prepare_echo(&errands[at]);
    prepare_at_gate(&errands[RUNNING], NULL, "echo + >&4; read word <&3; echo out; exit 6");
    scene_map(&errands[RUNNING].scene, 4, marks[1]);
    CHECK_INT(submit_kept(spawner, &errands[FINISHED]), 0);
    CHECK(is_readable(spawner_fd(spawner), -1));
    CHECK_INT(submit_kept(spawner, &errands[RUNNING]), 0);
    wait_for_marks(1);
    for (int at = BEGUN; at < ALL; at++)
        CHECK_INT(submit_kept(spawner, &errands[at]), 0);
    int stopped = wait_for_stopped();
    start_thread(&closer, close_in_a_thread, spawner);
    while (tally.left)
        take_some(spawner, &tally);
    CHECK(tally.seen[FINISHED] && tally.seen[WAITING] && tally.seen[ALSO_WAITING]);
    must_be_over(&errands[FINISHED], 0, "0\n", NULL);
    for (int at = WAITING; at < ALL; at++) {
        scene_check(&errands[at].scene, -ECANCELED);
        CHECK_INT(errands[at].scene.result.stage, PR_STAGE_CANCELLED);
        CHECK_INT(errands[at].job.told, 0);
        CHECK(errands[at].job.data == NULL);
    }
    CHECK_INT(kill(stopped, SIGCONT), 0);
    CHECK_INT(pthread_join(closer, NULL), 0);
    tally.left = 2;
    take_the_rest(spawner, &tally);
    CHECK(tally.seen[RUNNING] && tally.seen[BEGUN]);
    must_be_handed_over(&errands[RUNNING]);
    CHECK_INT(write(gate[1], "\n", 1), 1);
    complete(&errands[RUNNING], 6, "out\n");
    complete_echo(&errands[BEGUN]); /* over, or not */
    pr_spawner_close(spawner);
    CHECK_INT(take_up_to(spawner, 1), 0);
    pr_spawner_free(spawner);
    close_gate();
    close_marks();
}

TEST(all_threads_hear_of_the_end)
{
    for (int i = 0; i < 5; i++) {
        struct pr_spawner *spawner = open_spawner(8);
        wait_for_sleepers(8);
        end_spawner(spawner);
    }
}

/* The fds that a copy closes are its own; the set and what it watches are still the original's. */
TEST(a_copy_of_the_process_leaves_running_children_alone)
{
    int fds[3], status;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    open_marks();
    struct pr_spawner *spawner = open_spawner(2);
    pr_spawner_fds(spawner, fds);
    prepare_at_gate(errand, NULL, "echo + >&4; read word <&3; echo out; exit 6");
    scene_map(scene, 4, marks[1]);
    CHECK_INT(submit_kept(spawner, errand), 0);
    wait_for_marks(1);
    wait_for_sleepers(2);
    pid_t copy = fork();
    CHECK(copy >= 0);
    if (copy == 0)
        _exit(close(fds[0]) == 0 && close(fds[1]) == 0 && close(fds[2]) == 0 ? 0 : 1);
    CHECK(waitpid(copy, &status, 0) == copy);
    CHECK_INT(status, 0);
    CHECK_INT(write(gate[1], "\n", 1), 1);
    take_token(spawner, errand);
    must_be_over(errand, 6, "out\n", NULL);
    end_spawner(spawner);
    close_gate();
    close_marks();
}

/* A pidfd that has told its end may live on in a copy; it is not to be told again, as another's. */
TEST(a_copy_that_lives_on_does_not_tell_an_end_twice)
{
    int fds[3];
    char byte = 0;
    siginfo_t info;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_gate();
    open_marks();
    struct pr_spawner *spawner = open_spawner(1);
    pr_spawner_fds(spawner, fds);
    prepare_at_gate(errand, NULL, "echo + >&4; read word <&3; exit 6");
    scene_map(scene, 4, marks[1]);
    CHECK_INT(submit_kept(spawner, errand), 0);
    wait_for_marks(1);
    wait_for_sleepers(1);
    pid_t copy = fork(); /* holds the child's pidfd */
    CHECK(copy >= 0);
    if (copy == 0) {
        close(gate[1]);
        CHECK_INT(read(marks[0], &byte, 1), 1);
        _exit(0);
    }
    CHECK_INT(write(gate[1], "\n", 1), 1);
    take_token(spawner, errand);
    complete(errand, 6, "");
    for (int i = 0; i < 5; i++) { /* in its place, under its token */
        prepare_echo(errand);
        CHECK_INT(submit_kept(spawner, errand), 0);
        take_token(spawner, errand);
        must_be_over(errand, 0, "0\n", NULL);
    }
    CHECK_INT(write(marks[1], "\n", 1), 1);
    CHECK_INT(waitid(P_PID, (id_t)copy, &info, WEXITED), 0);
    CHECK_INT(info.si_status, 0);
    end_spawner(spawner);
    close_gate();
    close_marks();
}
