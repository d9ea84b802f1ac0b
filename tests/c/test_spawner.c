/* Threads that spawn for another.  Also run under TSan. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "errands.h"
#include "twin.h"

static struct errand *const errand = errands; /* of the cases that have one */
static struct scene *const scene = &errands[0].scene;

/* What the scene describes, by a spawner of its own. */
static void spawn_in_a_thread(void)
{
    struct pr_spawner *spawner = open_spawner(1);
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    end_spawner(spawner);
}

static void must_fail_in_a_thread(int stage, int error, int index)
{
    spawn_in_a_thread();
    CHECK_INT(scene->result.stage, stage);
    CHECK_INT(scene->result.error, error);
    CHECK_INT(scene->result.index, index);
}

/* --- one job ---------------------------------------------------------------------------------- */

TEST_IN_MODES(a_job_comes_back_with_pid_pidfd_and_pipes, every_mode)
{
    scene_shell(scene, mode, "read word; echo got $word; exit 7");
    int in = scene_map(scene, 0, PR_WE_WRITE);
    spawn_in_a_thread();
    CHECK_INT(scene->result.error, 0);
    CHECK_INT(scene->result.pidfd >= 0, !!(pr_features() & PR_FEATURE_PIDFD));
    CHECK_INT(write(scene->ours[in], "this\n", 5), 5);
    CHECK_TEXT(scene_read(scene, 0), "got this\n");
    scene_must_exit(scene, 7);
}

TEST_IN_MODES(a_program_that_is_not_there_is_a_job_that_failed, main_modes)
{
    scene_begin(scene, mode, "/nowhere");
    scene_map(scene, 1, PR_WE_READ);
    must_fail_in_a_thread(PR_STAGE_EXEC, ENOENT, 0);
}

TEST(every_stage_of_a_job_may_fail)
{
    scene_begin(scene, NULL, "/bin/true");
    scene->request.cwd = "/nowhere";
    must_fail_in_a_thread(PR_STAGE_CHDIR, ENOENT, -1);
    scene_begin(scene, NULL, NULL);
    must_fail_in_a_thread(PR_STAGE_REQUEST, EINVAL, -1);
    scene_begin(scene, NULL, "/bin/true");
    scene_map(scene, 1, PR_WE_READ);
    twin_fail(SYS_pipe2, 1, EMFILE);
    must_fail_in_a_thread(PR_STAGE_PIPE, EMFILE, 0);
    twin_fail(TWIN_MALLOC, 2, ENOMEM); /* the first is the spawner's own */
    must_fail_in_a_thread(PR_STAGE_MEMORY, ENOMEM, -1);
}

TEST(a_death_signal_is_refused)
{
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, NULL, "/bin/true");
    scene_map(scene, 1, PR_WE_READ);
    scene->request.death_signal = SIGTERM;
    CHECK_INT(submit(spawner, errand), -EINVAL);
    scene_check(scene, -EINVAL);
    CHECK_INT(scene->result.stage, PR_STAGE_REQUEST);
    CHECK_INT(errand->job.told, 0);
    CHECK(errand->job.data == NULL); /* so that it may be forgotten like any other's */
    CHECK(!is_readable(spawner_fd(spawner), 0));
    end_spawner(spawner);
}

/* --- signals ---------------------------------------------------------------------------------- */

static void set_mask(uint64_t mask)
{
    CHECK_INT(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask), 0);
}

static uint64_t bit_of(int number)
{
    return UINT64_C(1) << (number - 1);
}

TEST_IN_MODES(a_child_inherits_the_mask_of_the_submitter_as_of_the_submission, every_mode)
{
    const uint64_t before = current_mask(), mask = bit_of(SIGUSR1) | bit_of(33) | bit_of(40);
    struct pr_spawner *spawner = open_spawner(1);
    scene_mirror(scene, mode, 1);
    set_mask(mask);
    CHECK_INT(submit(spawner, errand), 0);
    CHECK(current_mask() == mask);
    set_mask(before);
    take_one(spawner, errand);
    CHECK_SAYS(scene_read(scene, 0), "SigBlk:\t%016llx", (unsigned long long)mask);
    scene_must_exit(scene, 0);
    end_spawner(spawner);
}

TEST(a_child_takes_the_mask_that_is_asked_for)
{
    scene_mirror(scene, NULL, 1);
    scene->request.flags |= PR_FLAG_SIGMASK;
    scene->request.signal_mask = bit_of(SIGINT) | bit_of(64);
    spawn_in_a_thread();
    CHECK_SAYS(scene_read(scene, 0), "SigBlk:\t%016llx",
               (unsigned long long)scene->request.signal_mask);
    scene_must_exit(scene, 0);
}

TEST(the_threads_block_all_that_a_host_can_handle_but_sigchld)
{
    const uint64_t never_blocked = bit_of(SIGKILL) | bit_of(SIGSTOP) | bit_of(SIGCHLD);
    uint64_t wanted = 0;
    skip_under_valgrind("a signal is kept from us");
    for (int number = 1; number <= SIGRTMAX; number++)
        if (number < 32 || number >= SIGRTMIN) /* between them: libc's own */
            wanted |= bit_of(number);
    struct pr_spawner *spawner = open_spawner(3);
    uint64_t blocked = wait_for_threads(3);
    CHECK(blocked == (wanted & ~never_blocked));
    end_spawner(spawner);
    wait_for_threads(0);
}

static volatile int handled;

static void note_signal(int number)
{
    handled = number;
}

TEST(a_signal_to_the_process_waits_for_the_hosts_own_thread)
{
    const uint64_t before = current_mask();
    const struct timespec no_wait = {0, 0};
    sigset_t user_signal;
    sigemptyset(&user_signal);
    sigaddset(&user_signal, SIGUSR1);
    struct pr_spawner *spawner = open_spawner(4);
    wait_for_threads(4);
    signal(SIGUSR1, note_signal);
    set_mask(before | bit_of(SIGUSR1));
    kill(getpid(), SIGUSR1);
    scene_begin(scene, NULL, "/bin/true");
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    scene_must_exit(scene, 0);
    CHECK_INT(sigtimedwait(&user_signal, NULL, &no_wait), SIGUSR1);
    CHECK_INT(handled, 0);
    set_mask(before);
    end_spawner(spawner);
}

/* A host that waits for SIGCHLD (sigwait, a signalfd) blocks it in all its threads.  In one of ours
 * that has it open, the kernel would find the taker that it looks for, and the signal be lost. */
TEST(a_host_that_blocks_sigchld_still_finds_it)
{
    const uint64_t before = current_mask();
    const struct timespec no_wait = {0, 0};
    sigset_t child_signal;
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    signal(SIGCHLD, SIG_DFL);
    set_mask(before | bit_of(SIGCHLD));
    struct pr_spawner *spawner = open_spawner(1);
    wait_for_sleepers(1);
    kill(getpid(), SIGCHLD);
    scene_begin(scene, NULL, "/nowhere");
    CHECK_INT(submit(spawner, errand), 0); /* its thread has been awake, and had its signals */
    take_one(spawner, errand);
    CHECK_INT(sigtimedwait(&child_signal, NULL, &no_wait), SIGCHLD);
    set_mask(before);
    end_spawner(spawner);
}

/* Every end would interrupt epoll_wait, were it not ignored where it is sent: see pr_signals_block.
 * */
static void wait_and_count_interrupts(struct pr_spawner *spawner, int epoll_fd, struct tally *tally,
                                      int *interrupts)
{
    struct epoll_event event;
    while (tally->left) {
        int count = epoll_wait(epoll_fd, &event, 1, -1);
        *interrupts += count < 0 && errno == EINTR;
        take_some(spawner, tally);
    }
}

static void run_without_interrupts(bool keeps)
{
    struct tally tally = {.left = MOST_JOBS};
    struct epoll_event event = {.events = EPOLLIN};
    int interrupts = 0, epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct pr_spawner *spawner = open_spawner(2);
    CHECK_INT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, spawner_fd(spawner), &event), 0);
    signal(SIGCHLD, SIG_DFL);
    for (int at = 0; at < MOST_JOBS; at++) {
        scene_begin(&errands[at].scene, NULL, "/bin/true");
        CHECK_INT(keeps ? submit_kept(spawner, &errands[at]) : submit(spawner, &errands[at]), 0);
    }
    wait_and_count_interrupts(spawner, epoll_fd, &tally, &interrupts);
    end_spawner(spawner);
    close(epoll_fd);
    for (int at = 0; at < MOST_JOBS; at++)
        if (keeps)
            complete(&errands[at], 0, "");
        else
            scene_must_exit(&errands[at].scene, 0);
    CHECK_INT(interrupts, 0);
}

TEST(the_ends_of_children_do_not_interrupt_the_host)
{
    skip_unless_features(PR_FEATURE_CLONE3 | PR_FEATURE_PIDFD);
    run_without_interrupts(false);
    run_without_interrupts(true);
}

/* libc waits until every thread has changed its ids; one that blocked libc's signal never would. */
TEST(a_host_may_change_its_ids_while_the_threads_wait)
{
    end_spawner(open_spawner(1)); /* glibc unblocks it where the first thread of all is made */
    struct pr_spawner *spawner = open_spawner(4);
    CHECK_INT(setgid(getgid()), 0);
    CHECK_INT(setuid(getuid()), 0);
    end_spawner(spawner);
}

/* --- many jobs -------------------------------------------------------------------------------- */

/* Every fourth is to fail. */
static void prepare_job(int at)
{
    memset(&errands[at], 0, sizeof errands[at]);
    if (at % 4 == 3) {
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        scene_map(&errands[at].scene, 1, PR_WE_READ);
    } else {
        char script[32];
        snprintf(script, sizeof script, "echo %d; exit %d", at, at);
        scene_shell(&errands[at].scene, NULL, script);
    }
}

static void check_job(int at)
{
    struct scene *done = &errands[at].scene;
    char word[16];
    scene_check(done, -done->result.error);
    if (at % 4 == 3) {
        CHECK_INT(done->result.stage, PR_STAGE_EXEC);
        CHECK_INT(done->result.error, ENOENT);
        return;
    }
    CHECK_INT(done->result.error, 0);
    snprintf(word, sizeof word, "%d\n", at);
    CHECK_TEXT(scene_read(done, 0), word);
    scene_must_exit(done, at);
}

static void run_a_hundred(uint32_t threads)
{
    struct tally tally = {.left = MOST_JOBS};
    struct pr_spawner *spawner = open_spawner(threads);
    for (int at = 0; at < MOST_JOBS; at++) {
        prepare_job(at);
        CHECK_INT(submit(spawner, &errands[at]), 0);
        take_some(spawner, &tally); /* also when nothing is announced, which must lose nothing */
    }
    take_the_rest(spawner, &tally);
    end_spawner(spawner);
    for (int at = 0; at < MOST_JOBS; at++)
        check_job(at);
    check_no_child();
}

TEST(a_hundred_jobs_come_back_once_each)
{
    run_a_hundred(1);
    run_a_hundred(2);
    run_a_hundred(8);
}

TEST(one_thread_does_the_jobs_in_order)
{
    uint64_t tokens[8];
    struct pr_spawner *spawner = open_spawner(1);
    for (int at = 0; at < 8; at++) {
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    for (int count = 0; count < 8;) {
        CHECK(is_readable(spawner_fd(spawner), -1));
        count += take_tokens(spawner, tokens + count, 8 - (uint32_t)count);
    }
    for (int at = 0; at < 8; at++)
        CHECK_INT(tokens[at], at);
    end_spawner(spawner);
}

enum { SUBMITTERS = 4 };

struct submitter {
    pthread_t thread;
    struct pr_spawner *spawner;
    int first;
};

static void *submit_a_share(void *opaque)
{
    const struct submitter *submitter = opaque;
    for (int i = 0; i < MOST_JOBS / SUBMITTERS; i++) {
        prepare_job(submitter->first + i);
        CHECK_INT(submit(submitter->spawner, &errands[submitter->first + i]), 0);
    }
    return NULL;
}

TEST(several_threads_may_submit_at_once)
{
    struct submitter submitters[SUBMITTERS];
    struct tally tally = {.left = MOST_JOBS};
    struct pr_spawner *spawner = open_spawner(2);
    for (int i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.spawner = spawner, .first = i * MOST_JOBS / SUBMITTERS};
        CHECK_INT(pthread_create(&submitters[i].thread, NULL, submit_a_share, &submitters[i]), 0);
    }
    take_the_rest(spawner, &tally);
    for (int i = 0; i < SUBMITTERS; i++)
        CHECK_INT(pthread_join(submitters[i].thread, NULL), 0);
    end_spawner(spawner);
    for (int at = 0; at < MOST_JOBS; at++)
        check_job(at);
}

/* --- the eventfd ------------------------------------------------------------------------------ */

TEST(the_eventfd_does_not_block_and_all_fds_are_close_on_exec)
{
    int fds[3];
    struct pr_spawner *spawner = open_spawner(1);
    int fd = spawner_fd(spawner);
    pr_spawner_fds(spawner, fds);
    CHECK_INT(fds[0], fd);
    for (int i = 0; i < 3; i++)
        CHECK_INT(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    end_spawner(spawner);
}

TEST(the_eventfd_is_readable_until_all_has_been_taken)
{
    uint64_t token;
    struct pr_spawner *spawner = open_spawner(2);
    int fd = spawner_fd(spawner);
    CHECK(!is_readable(fd, 0));
    for (int at = 0; at < 3; at++) {
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    pr_spawner_close(spawner); /* now all have been done or been cancelled */
    CHECK(is_readable(fd, 0));
    CHECK_INT(take_tokens(spawner, &token, 0), 0);
    for (int left = 3; left; left--) {
        CHECK(is_readable(fd, 0));
        CHECK_INT(take_tokens(spawner, &token, 1), 1);
    }
    CHECK(!is_readable(fd, 0));
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    pr_spawner_free(spawner);
}

/* As when all is taken between a thread's unlock and its write. */
TEST(a_wake_up_that_comes_late_is_one_too_many_and_none_is_lost)
{
    uint64_t token;
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, NULL, "/nowhere");
    CHECK_INT(submit(spawner, errand), 0);
    CHECK(is_readable(spawner_fd(spawner), -1));
    twin_fail(SYS_read, 1, EAGAIN);
    CHECK_INT(take_tokens(spawner, &token, 1), 1);
    CHECK(is_readable(spawner_fd(spawner), 0));
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    end_spawner(spawner);
}

TEST(a_burst_is_announced_once)
{
    uint64_t written, tokens[8];
    struct pr_spawner *spawner = open_spawner(2);
    for (int at = 0; at < 8; at++) {
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    pr_spawner_close(spawner);
    CHECK_INT(read(spawner_fd(spawner), &written, sizeof written), sizeof written);
    CHECK_INT(written, 1);
    CHECK_INT(take_tokens(spawner, tokens, 8), 8);
    pr_spawner_free(spawner);
}

/* --- the end ---------------------------------------------------------------------------------- */

TEST(nothing_is_accepted_after_the_end)
{
    uint64_t token;
    struct pr_spawner *spawner = open_spawner(2);
    pr_spawner_close(spawner);
    scene_begin(scene, NULL, "/bin/true");
    scene_map(scene, 1, PR_WE_READ);
    CHECK_INT(submit(spawner, errand), -ECANCELED);
    scene_check(scene, -ECANCELED);
    CHECK_INT(scene->result.stage, PR_STAGE_CANCELLED);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    pr_spawner_close(spawner);
    pr_spawner_free(spawner);
}

static void *close_in_a_thread(void *spawner)
{
    pr_spawner_close(spawner);
    return NULL;
}

TEST(what_waits_is_called_off_and_more_may_follow)
{
    uint64_t tokens[4];
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = open_spawner(1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_dup3, 1, 0, SIGSTOP});
    for (int at = 0; at <= 2; at++) {
        scene_shell(&errands[at].scene, NULL, "exit 3");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    int stopped = wait_for_stopped();
    pr_spawner_cancel(spawner);
    CHECK(is_readable(spawner_fd(spawner), -1));
    CHECK_INT(take_tokens(spawner, tokens, 4), 2);
    for (int at = 1; at <= 2; at++) {
        CHECK_INT(tokens[at - 1], at);
        scene_check(&errands[at].scene, -ECANCELED);
        CHECK_INT(errands[at].scene.result.stage, PR_STAGE_CANCELLED);
        CHECK_INT(errands[at].job.begun_ns, 0);
        CHECK_INT(errands[at].job.made_pid, -1);
    }
    CHECK_INT(kill(stopped, SIGCONT), 0);
    take_one(spawner, &errands[0]);
    CHECK_INT(errands[0].job.made_pid, stopped);
    CHECK(errands[0].job.begun_ns > 0);
    scene_must_exit(&errands[0].scene, 3);
    scene_shell(&errands[3].scene, NULL, "exit 4");
    CHECK_INT(submit(spawner, &errands[3]), 0);
    take_one(spawner, &errands[3]);
    scene_must_exit(&errands[3].scene, 4);
    end_spawner(spawner);
}

/* A child that is stopped before exec keeps its thread busy for as long as we like. */
TEST(the_end_waits_for_what_has_begun_and_cancels_the_rest)
{
    enum { WAITING = 5 };
    pthread_t closer;
    uint64_t tokens[WAITING + 1];
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = open_spawner(1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_dup3, 1, 0, SIGSTOP});
    for (int at = 0; at <= WAITING; at++) {
        scene_shell(&errands[at].scene, NULL, "exit 3");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    int stopped = wait_for_stopped();
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(pthread_create(&closer, NULL, close_in_a_thread, spawner), 0);
    for (int count = 0; count < WAITING;) {
        CHECK(is_readable(spawner_fd(spawner), -1));
        count += take_tokens(spawner, tokens + count, WAITING - (uint32_t)count);
    }
    for (int at = 1; at <= WAITING; at++) {
        CHECK_INT(tokens[at - 1], at);
        scene_check(&errands[at].scene, -ECANCELED);
        CHECK_INT(errands[at].scene.result.stage, PR_STAGE_CANCELLED);
    }
    CHECK_INT(kill(stopped, SIGCONT), 0);
    CHECK_INT(pthread_join(closer, NULL), 0);
    take_one(spawner, errand);
    CHECK_INT(scene->result.pid, stopped);
    scene_must_exit(scene, 3);
    pr_spawner_free(spawner);
}

TEST(a_copy_of_the_process_leaves_the_spawner_alone)
{
    int fds[3], status;
    struct pr_spawner *spawner = open_spawner(2);
    pr_spawner_fds(spawner, fds);
    pid_t copy = fork();
    CHECK(copy >= 0);
    if (copy == 0)
        _exit(close(fds[0]) == 0 && close(fds[1]) == 0 && close(fds[2]) == 0 ? 0 : 1);
    CHECK(waitpid(copy, &status, 0) == copy);
    CHECK_INT(status, 0);
    scene_begin(scene, NULL, "/bin/true");
    CHECK_INT(submit(spawner, errand), 0);
    take_one(spawner, errand);
    scene_must_exit(scene, 0);
    end_spawner(spawner);
}

/* --- spawners that cannot be opened ----------------------------------------------------------- */

static void must_not_open(uint32_t threads, int error)
{
    static struct fd_list before;
    const uint64_t mask = current_mask();
    struct pr_spawner *spawner = (struct pr_spawner *)&before; /* anything but NULL */
    list_fds(&before);
    CHECK_INT(pr_spawner_open(threads, 0, &spawner), -error);
    CHECK(spawner == NULL);
    CHECK(current_mask() == mask);
    wait_for_threads(0);
    check_same_fds(&before);
    twin_reset();
}

TEST(there_are_1_to_64_threads)
{
    must_not_open(0, EINVAL);
    must_not_open(65, EINVAL);
    must_not_open(UINT32_MAX, EINVAL);
    struct pr_spawner *spawner = open_spawner(64);
    wait_for_threads(64);
    end_spawner(spawner);
    wait_for_threads(0);
}

TEST(without_memory_or_one_of_the_fds_nothing_is_left)
{
    const struct {
        long number;
        int nth, error;
    } refusals[] = {
        {TWIN_MALLOC, 1, ENOMEM},
        {SYS_eventfd2, 1, EMFILE},      {SYS_eventfd2, 1, ENFILE},
        {SYS_eventfd2, 2, EMFILE},      {SYS_eventfd2, 2, ENFILE},
        {SYS_epoll_create1, 1, EMFILE}, {SYS_epoll_create1, 1, ENOMEM},
        {SYS_epoll_ctl, 1, ENOSPC},     {SYS_epoll_ctl, 1, ENOMEM},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        twin_fail(refusals[i].number, refusals[i].nth, refusals[i].error);
        must_not_open(2, refusals[i].error);
    }
}

TEST(without_one_of_the_threads_nothing_is_left)
{
    end_spawner(open_spawner(1)); /* skips where there are none at all */
    for (int nth = 1; nth <= 4; nth++) {
        twin_fail(TWIN_THREAD, nth, EAGAIN);
        must_not_open(4, EAGAIN);
        if (nth > 1) { /* test_spawner_alone.c has what comes of none at all */
            twin_fail(TWIN_THREAD, nth, EPERM);
            must_not_open(4, EPERM);
        }
    }
}

TEST(a_stack_that_is_too_small_for_libc_is_replaced_by_one_of_the_usual_size)
{
    twin_fail(TWIN_THREAD, 1, EINVAL);
    scene_begin(scene, NULL, "/bin/true");
    spawn_in_a_thread();
    CHECK_INT(twin_count(TWIN_THREAD), 2);
    scene_must_exit(scene, 0);
}

/* Root is not limited. */
static void open_without_rights(void *unused)
{
    const struct rlimit none = {1, 1};
    (void)unused;
    if (geteuid() == 0)
        CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(setrlimit(RLIMIT_NPROC, &none), 0);
    must_not_open(2, EAGAIN);
}

TEST(a_user_without_a_process_to_spare_has_no_spawner)
{
    end_spawner(open_spawner(1)); /* skips where there are no threads at all */
    run_apart(open_without_rights, NULL);
}
