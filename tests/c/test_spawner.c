/* Threads that spawn for another.  Also run under TSan. */
#include <dirent.h>
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

#include "scene.h"
#include "twin.h"

enum { MOST_JOBS = 100 };

/* A scene that goes through a spawner. */
struct errand {
    struct scene scene;
    struct pr_job job;
};

static struct errand errands[MOST_JOBS];
static struct errand *const errand = errands; /* of the cases that have one */
static struct scene *const scene = &errands[0].scene;

static struct pr_spawner *open_spawner(uint32_t threads)
{
    struct pr_spawner *spawner;
    int code = pr_spawner_open(threads, &spawner);
    if (code == -EPERM) /* libc's own clone3, where a sandbox says EPERM rather than ENOSYS */
        skip("no threads to be had here");
    CHECK_INT(code, 0);
    return spawner;
}

static void end_spawner(struct pr_spawner *spawner)
{
    pr_spawner_close(spawner);
    pr_spawner_free(spawner);
}

static int submit_keyed(struct pr_spawner *spawner, struct errand *what, int epoll_fd, int key)
{
    memset(&what->scene.result, 0x55, sizeof what->scene.result);
    memset(what->scene.ours, 0x55, sizeof what->scene.ours);
    what->job = (struct pr_job){
        .request = &what->scene.request,
        .result = &what->scene.result,
        .ours = what->scene.ours,
        .token = (uint64_t)(what - errands),
        .key = key,
        .epoll_fd = epoll_fd,
        .watched = 0x55,
    };
    return pr_spawner_submit(spawner, &what->job);
}

static int submit(struct pr_spawner *spawner, struct errand *what)
{
    return submit_keyed(spawner, what, -1, 0);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    return poll(&polled, 1, timeout_ms) == 1;
}

/* Until the spawner says that something is finished, and that is the only one. */
static void take_one(struct pr_spawner *spawner, const struct errand *wanted)
{
    uint64_t tokens[2];
    CHECK(is_readable(pr_spawner_fd(spawner), -1));
    CHECK_INT(pr_spawner_take(spawner, tokens, 2), 1);
    CHECK_INT(tokens[0], wanted - errands);
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    scene_check(&wanted->scene, -wanted->scene.result.error);
}

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
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
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

static void read_status(const char *thread, char *text, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);
    text[got > 0 ? got : 0] = 0;
    close(fd);
}

/* How many threads bear the spawners' name; what all of them block. */
static int look_at_threads(uint64_t *blocked)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    *blocked = ~UINT64_C(0);
    CHECK(directory != NULL);
    while ((entry = readdir(directory))) {
        char text[8192];
        read_status(entry->d_name, text, sizeof text);
        if (!says(text, "Name:\tpr-spawner"))
            continue;
        const char *line = strstr(text, "\nSigBlk:");
        CHECK(line != NULL);
        *blocked &= strtoull(line + strlen("\nSigBlk:"), NULL, 16);
        count++;
    }
    closedir(directory);
    return count;
}

/* A thread names itself as it starts, and for a moment is still listed after it was joined. */
static uint64_t wait_for_threads(int wanted)
{
    uint64_t blocked;
    while (look_at_threads(&blocked) != wanted)
        sched_yield();
    return blocked;
}

TEST(the_threads_block_all_that_a_host_can_handle)
{
    const uint64_t never_blocked = bit_of(SIGKILL) | bit_of(SIGSTOP);
    uint64_t wanted = 0;
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

struct tally {
    int left;
    bool seen[MOST_JOBS];
};

/* Never waits.  The children are collected at the end: until then they are zombies. */
static void take_some(struct pr_spawner *spawner, struct tally *tally)
{
    uint64_t tokens[3];
    int count = pr_spawner_take(spawner, tokens, 3);
    CHECK(count >= 0 && count <= 3);
    for (int i = 0; i < count; i++) {
        CHECK(tokens[i] < MOST_JOBS && !tally->seen[tokens[i]]);
        tally->seen[tokens[i]] = true;
        tally->left--;
    }
}

static void take_the_rest(struct pr_spawner *spawner, struct tally *tally)
{
    while (tally->left) {
        CHECK(is_readable(pr_spawner_fd(spawner), -1));
        take_some(spawner, tally);
    }
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
}

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
        CHECK(is_readable(pr_spawner_fd(spawner), -1));
        count += pr_spawner_take(spawner, tokens + count, 8 - (uint32_t)count);
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

TEST(the_eventfd_is_close_on_exec_and_does_not_block)
{
    struct pr_spawner *spawner = open_spawner(1);
    int fd = pr_spawner_fd(spawner);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    end_spawner(spawner);
}

TEST(the_eventfd_is_readable_until_all_has_been_taken)
{
    uint64_t token;
    struct pr_spawner *spawner = open_spawner(2);
    int fd = pr_spawner_fd(spawner);
    CHECK(!is_readable(fd, 0));
    for (int at = 0; at < 3; at++) {
        scene_begin(&errands[at].scene, NULL, "/nowhere");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    pr_spawner_close(spawner); /* now all have been done or been cancelled */
    CHECK(is_readable(fd, 0));
    CHECK_INT(pr_spawner_take(spawner, &token, 0), 0);
    for (int left = 3; left; left--) {
        CHECK(is_readable(fd, 0));
        CHECK_INT(pr_spawner_take(spawner, &token, 1), 1);
    }
    CHECK(!is_readable(fd, 0));
    CHECK_INT(pr_spawner_take(spawner, &token, 1), 0);
    pr_spawner_free(spawner);
}

/* As when all is taken between a thread's unlock and its write. */
TEST(a_wake_up_that_comes_late_is_one_too_many_and_none_is_lost)
{
    uint64_t token;
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, NULL, "/nowhere");
    CHECK_INT(submit(spawner, errand), 0);
    CHECK(is_readable(pr_spawner_fd(spawner), -1));
    twin_fail(SYS_read, 1, EAGAIN);
    CHECK_INT(pr_spawner_take(spawner, &token, 1), 1);
    CHECK(is_readable(pr_spawner_fd(spawner), 0));
    CHECK_INT(pr_spawner_take(spawner, &token, 1), 0);
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
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
    CHECK_INT(read(pr_spawner_fd(spawner), &written, sizeof written), sizeof written);
    CHECK_INT(written, 1);
    CHECK_INT(pr_spawner_take(spawner, tokens, 8), 8);
    pr_spawner_free(spawner);
}

/* --- jobs with a key -------------------------------------------------------------------------- */

enum { KEY = -5 };

static int epoll_fd;

/* Those in which there is a pidfd to be watched. */
static const struct mode watching_modes[] = {
    {"default", 0, false},
    {"without clone3", PR_FEATURE_CLONE3, false},
    {"without unshare", PR_FEATURE_UNSHARE, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by the launcher", 0, true},
    {0},
};

static void open_set(void)
{
    skip_unless_watched_are_listed();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_fd >= 0);
}

static void check_watches(int count)
{
    struct watched watched;
    list_watched(epoll_fd, &watched);
    CHECK_INT(watched.count, count);
}

static void close_set(void)
{
    check_watches(0);
    close(epoll_fd);
}

/* The key of the one event that there is; 0: there is none. */
static int told_key(int timeout_ms)
{
    struct epoll_event event;
    int count;
    do
        count = epoll_wait(epoll_fd, &event, 1, timeout_ms);
    while (count < 0 && errno == EINTR);
    CHECK(count >= 0);
    if (count)
        CHECK_INT(event.events, EPOLLIN);
    return count ? event.data.fd : 0;
}

/* Of a job that is finished in silence, or will be. */
static void take_in_silence(struct pr_spawner *spawner, struct errand *wanted)
{
    uint64_t token;
    while (pr_spawner_take(spawner, &token, 1) == 0)
        sched_yield();
    CHECK_INT(token, wanted - errands);
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    CHECK_INT(wanted->job.watched, 1);
    scene_check(&wanted->scene, 0);
}

/* Its pidfd leaves the set before it is closed, as for every fd of an epoll set. */
static void end_watched(struct errand *what, int code)
{
    struct epoll_event unused = {0};
    CHECK_INT(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, what->scene.result.pidfd, &unused), 0);
    scene_must_exit(&what->scene, code);
}

TEST_IN_MODES(the_pidfd_of_a_job_with_a_key_is_watched_under_it_and_nothing_is_announced,
              watching_modes)
{
    struct watched watched;
    skip_unless_features(PR_FEATURE_PIDFD);
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, mode, "read word; exit 3");
    int in = scene_map(scene, 0, PR_WE_WRITE);
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), 0);
    take_in_silence(spawner, errand); /* before the end is told */
    list_watched(epoll_fd, &watched);
    CHECK_INT(watched.count, 1);
    CHECK_INT(watched.fds[0].fd, scene->result.pidfd);
    CHECK_INT((int)watched.fds[0].data, KEY);
    CHECK_INT(told_key(0), 0);
    CHECK_INT(write(scene->ours[in], "\n", 1), 1);
    CHECK_INT(told_key(-1), KEY);
    end_watched(errand, 3);
    close_set();
    end_spawner(spawner);
}

TEST_IN_MODES(a_job_with_a_key_may_be_taken_after_its_end_was_told, watching_modes)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, mode, "exit 3");
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), 0);
    CHECK_INT(told_key(-1), KEY);
    CHECK_INT(told_key(-1), KEY); /* until it is reaped */
    take_in_silence(spawner, errand);
    end_watched(errand, 3);
    close_set();
    end_spawner(spawner);
}

/* What a job that is announced has in common. */
static void must_be_announced(struct pr_spawner *spawner, int error)
{
    take_one(spawner, errand);
    CHECK_INT(scene->result.error, error);
    CHECK_INT(errand->job.watched, 0);
    check_watches(0);
}

TEST(a_pidfd_that_cannot_be_watched_is_announced_and_its_child_lives)
{
    const int errors[] = {ENOSPC, ENOMEM, EBADF};
    skip_unless_features(PR_FEATURE_PIDFD);
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    for (int i = 0; i < 3; i++) {
        twin_fail(SYS_epoll_ctl, 1, errors[i]);
        scene_shell(scene, NULL, "exit 4");
        CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), 0);
        must_be_announced(spawner, 0);
        CHECK_INT(twin_count(SYS_epoll_ctl), 1);
        scene_must_exit(scene, 4);
        twin_reset();
    }
    close_set();
    end_spawner(spawner);
}

TEST(what_is_no_set_is_found_out_by_the_announcement)
{
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, NULL, "exit 4");
    CHECK_INT(submit_keyed(spawner, errand, -1, KEY), 0);
    must_be_announced(spawner, 0);
    scene_must_exit(scene, 4);
    close_set();
    end_spawner(spawner);
}

static const struct mode no_pidfds[] = {{"without pidfds", PR_FEATURE_PIDFD, false}, {0}};

TEST_IN_MODES(without_pidfds_a_job_with_a_key_is_announced, no_pidfds)
{
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, mode, "exit 4");
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), 0);
    must_be_announced(spawner, 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    scene_must_exit(scene, 4);
    close_set();
    end_spawner(spawner);
}

TEST(without_a_key_the_set_is_not_touched)
{
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_shell(scene, NULL, "exit 4");
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, 0), 0);
    must_be_announced(spawner, 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    scene_must_exit(scene, 4);
    close_set();
    end_spawner(spawner);
}

TEST_IN_MODES(a_failure_is_announced_also_with_a_key, main_modes)
{
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, mode, "/nowhere");
    scene_map(scene, 1, PR_WE_READ);
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), 0);
    must_be_announced(spawner, ENOENT);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    close_set();
    end_spawner(spawner);
}

/* Also when those that are silent stand before and after it. */
TEST(a_failure_among_silent_ones_is_announced_until_all_is_taken)
{
    uint64_t tokens[3];
    skip_unless_features(PR_FEATURE_PIDFD);
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    for (int at = 0; at < 3; at++) {
        scene_begin(&errands[at].scene, NULL, at == 1 ? "/nowhere" : "/bin/true");
        CHECK_INT(submit_keyed(spawner, &errands[at], epoll_fd, KEY - at), 0);
    }
    for (int count = 0; count < 3; count++) {
        while (pr_spawner_take(spawner, tokens, 1) == 0)
            CHECK(count != 1 || is_readable(pr_spawner_fd(spawner), -1));
        CHECK_INT(tokens[0], count);
    }
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    CHECK_INT(errands[1].job.watched, 0);
    end_watched(&errands[0], 0);
    end_watched(&errands[2], 0);
    close_set();
    end_spawner(spawner);
}

TEST(a_job_with_a_key_that_is_refused_or_cancelled_is_not_watched)
{
    open_set();
    struct pr_spawner *spawner = open_spawner(1);
    scene_begin(scene, NULL, "/bin/true");
    scene->request.death_signal = SIGTERM;
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), -EINVAL);
    CHECK_INT(errand->job.watched, 0);
    pr_spawner_close(spawner);
    scene->request.death_signal = 0;
    CHECK_INT(submit_keyed(spawner, errand, epoll_fd, KEY), -ECANCELED);
    CHECK_INT(errand->job.watched, 0);
    CHECK_INT(twin_count(SYS_epoll_ctl), 0);
    close_set();
    pr_spawner_free(spawner);
}

/* As an event loop has them: by their ends, in whatever order, whether taken before or not. */
static void take_by_ends(struct pr_spawner *spawner, struct tally *tally)
{
    bool told[MOST_JOBS] = {false};
    for (int left = MOST_JOBS; left; left--) {
        int at = -told_key(-1) - 1;
        CHECK(at >= 0 && at < MOST_JOBS && !told[at]);
        told[at] = true;
        while (!tally->seen[at])
            take_some(spawner, tally);
        CHECK_INT(errands[at].job.watched, 1);
        end_watched(&errands[at], at);
    }
}

TEST(the_ends_of_a_hundred_are_told_once_each_under_their_keys)
{
    struct tally tally = {.left = MOST_JOBS};
    skip_unless_features(PR_FEATURE_PIDFD);
    open_set();
    struct pr_spawner *spawner = open_spawner(2);
    for (int at = 0; at < MOST_JOBS; at++) {
        char script[32];
        memset(&errands[at], 0, sizeof errands[at]);
        snprintf(script, sizeof script, "exit %d", at);
        scene_shell(&errands[at].scene, NULL, script);
        CHECK_INT(submit_keyed(spawner, &errands[at], epoll_fd, -at - 1), 0);
    }
    take_by_ends(spawner, &tally);
    CHECK_INT(tally.left, 0);
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    close_set();
    end_spawner(spawner);
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
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    CHECK_INT(pr_spawner_take(spawner, &token, 1), 0);
    pr_spawner_close(spawner);
    pr_spawner_free(spawner);
}

static void *close_in_a_thread(void *spawner)
{
    pr_spawner_close(spawner);
    return NULL;
}

/* A child that is stopped before exec keeps its thread busy for as long as we like. */
TEST(the_end_waits_for_what_has_begun_and_cancels_the_rest)
{
    enum { WAITING = 5 };
    pthread_t closer;
    siginfo_t stopped;
    uint64_t tokens[WAITING + 1];
    skip_unless_features(PR_FEATURE_VFORK);
    struct pr_spawner *spawner = open_spawner(1);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_dup3, 1, 0, SIGSTOP});
    for (int at = 0; at <= WAITING; at++) {
        scene_shell(&errands[at].scene, NULL, "exit 3");
        CHECK_INT(submit(spawner, &errands[at]), 0);
    }
    while (waitid(P_ALL, 0, &stopped, WSTOPPED) < 0)
        CHECK(errno == ECHILD); /* there is none yet */
    CHECK(!is_readable(pr_spawner_fd(spawner), 0));
    CHECK_INT(pthread_create(&closer, NULL, close_in_a_thread, spawner), 0);
    for (int count = 0; count < WAITING;) {
        CHECK(is_readable(pr_spawner_fd(spawner), -1));
        count += pr_spawner_take(spawner, tokens + count, WAITING - (uint32_t)count);
    }
    for (int at = 1; at <= WAITING; at++) {
        CHECK_INT(tokens[at - 1], at);
        scene_check(&errands[at].scene, -ECANCELED);
        CHECK_INT(errands[at].scene.result.stage, PR_STAGE_CANCELLED);
    }
    CHECK_INT(kill(stopped.si_pid, SIGCONT), 0);
    CHECK_INT(pthread_join(closer, NULL), 0);
    take_one(spawner, errand);
    CHECK_INT(scene->result.pid, stopped.si_pid);
    scene_must_exit(scene, 3);
    pr_spawner_free(spawner);
}

TEST(a_copy_of_the_process_leaves_the_spawner_alone)
{
    struct pr_spawner *spawner = open_spawner(2);
    pid_t copy = fork();
    CHECK(copy >= 0);
    if (copy == 0)
        _exit(close(pr_spawner_fd(spawner)) == 0 ? 0 : 1);
    int status;
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
    CHECK_INT(pr_spawner_open(threads, &spawner), -error);
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

TEST(without_memory_or_an_eventfd_nothing_is_left)
{
    twin_fail(TWIN_MALLOC, 1, ENOMEM);
    must_not_open(2, ENOMEM);
    twin_fail(SYS_eventfd2, 1, EMFILE);
    must_not_open(2, EMFILE);
    twin_fail(SYS_eventfd2, 1, ENFILE);
    must_not_open(2, ENFILE);
}

TEST(without_one_of_the_threads_nothing_is_left)
{
    end_spawner(open_spawner(1)); /* skips where there are none at all */
    for (int nth = 1; nth <= 4; nth++) {
        twin_fail(TWIN_THREAD, nth, EAGAIN);
        must_not_open(4, EAGAIN);
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
    run_apart(open_without_rights, NULL);
}
