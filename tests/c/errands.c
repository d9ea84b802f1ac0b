/* errands.c - see errands.h. */
#include "errands.h"

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
#include <sys/wait.h>
#include <unistd.h>

struct errand errands[MOST_JOBS];

/* Past the twin (twin.c), whose rules are for the threads of the core. */
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static void *do_nothing(void *unused)
{
    return unused;
}

/* Libc's own clone3, where a sandbox says EPERM rather than ENOSYS. */
static void skip_without_threads(void)
{
    pthread_t thread;
    int error = __real_pthread_create(&thread, NULL, do_nothing, NULL);
    if (error == EPERM)
        skip("no threads to be had here");
    CHECK_INT(error, 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
}

struct pr_spawner *open_bounded(uint32_t threads, uint32_t most)
{
    static bool has_threads;
    struct pr_spawner *spawner;
    if (!has_threads)
        skip_without_threads();
    has_threads = true;
    CHECK_INT(pr_spawner_open(threads, most, &spawner), 0);
    return spawner;
}

struct pr_spawner *open_spawner(uint32_t threads)
{
    return open_bounded(threads, 0);
}

void end_spawner(struct pr_spawner *spawner)
{
    uint64_t token;
    pr_spawner_close(spawner);
    CHECK_INT(take_tokens(spawner, &token, 1), 0);
    pr_spawner_free(spawner);
}

/* --- jobs ------------------------------------------------------------------------------------- */

int row_of(const struct scene *scene, int child_fd)
{
    for (uint32_t row = 0; row < scene->request.fd_count; row++)
        if (scene->child_fds[row] == child_fd && scene->sources[row] < 0)
            return (int)row;
    return -1;
}

static int submit_any(struct pr_spawner *spawner, struct errand *what, bool keeps)
{
    static char nothing;
    memset(&what->scene.result, 0x55, sizeof what->scene.result);
    memset(what->scene.ours, 0x55, sizeof what->scene.ours);
    memset(&what->job, 0x55, sizeof what->job);
    what->job.request = &what->scene.request;
    what->job.result = &what->scene.result;
    what->job.ours = what->scene.ours;
    what->job.token = (uint64_t)(what - errands);
    what->job.keeps = keeps;
    for (int i = 0; i < 3; i++)
        what->job.rows[i] = row_of(&what->scene, i);
    what->job.data = &nothing;
    return pr_spawner_submit(spawner, &what->job);
}

int submit(struct pr_spawner *spawner, struct errand *what)
{
    return submit_any(spawner, what, false);
}

int submit_kept(struct pr_spawner *spawner, struct errand *what)
{
    return submit_any(spawner, what, true);
}

bool is_readable(int fd, int timeout_ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int count;
    while ((count = poll(&polled, 1, timeout_ms)) < 0 && errno == EINTR)
        ;
    return count == 1;
}

void take_token(struct pr_spawner *spawner, const struct errand *wanted)
{
    uint64_t tokens[2];
    CHECK(is_readable(spawner_fd(spawner), -1));
    CHECK_INT(take_tokens(spawner, tokens, 2), 1);
    CHECK_INT(tokens[0], wanted - errands);
    CHECK(!is_readable(spawner_fd(spawner), 0));
    CHECK_INT(wanted->job.state, PR_JOB_FINISHED);
}

void take_one(struct pr_spawner *spawner, const struct errand *wanted)
{
    take_token(spawner, wanted);
    scene_check(&wanted->scene, -wanted->scene.result.error);
    CHECK_INT(wanted->job.told, 0);
    CHECK(wanted->job.data == NULL);
}

void claim_running(struct pr_spawner *spawner, struct errand *what)
{
    int state;
    while ((state = pr_spawner_claim(spawner, &what->job)) == PR_JOB_WAITING
           || state == PR_JOB_BEGUN)
        sched_yield();
    CHECK_INT(state, PR_JOB_RUNNING);
}

void take_some(struct pr_spawner *spawner, struct tally *tally)
{
    uint64_t tokens[3];
    int count = take_tokens(spawner, tokens, 3);
    CHECK(count >= 0 && count <= 3);
    for (int i = 0; i < count; i++) {
        CHECK(tokens[i] < MOST_JOBS && !tally->seen[tokens[i]]);
        tally->seen[tokens[i]] = true;
        tally->left--;
    }
}

void take_the_rest(struct pr_spawner *spawner, struct tally *tally)
{
    while (tally->left) {
        CHECK(is_readable(spawner_fd(spawner), -1));
        take_some(spawner, tally);
    }
    CHECK(!is_readable(spawner_fd(spawner), 0));
}

/* --- children that were kept ------------------------------------------------------------------ */

static void check_data(const struct errand *what, const char *out, const char *error)
{
    const struct pr_job *job = &what->job;
    CHECK_INT(!!(job->told & DATA), *out || *error);
    CHECK_INT(!!job->data, *out || *error);
    CHECK_INT(job->gather.sizes[0], strlen(out));
    CHECK_INT(job->gather.sizes[1], strlen(error));
    if (job->data) {
        CHECK(memcmp(job->data, out, strlen(out)) == 0);
        CHECK(memcmp(job->data + strlen(out), error, strlen(error)) == 0);
    }
}

static void forget_data(struct errand *what)
{
    for (int i = 0; i < 2; i++) {
        pr_job_forget_data(&what->job);
        CHECK(what->job.data == NULL);
    }
}

void must_be_over(struct errand *what, int code, const char *out, const char *error)
{
    const struct pr_result *result = &what->scene.result;
    CHECK_INT(result->error, 0);
    CHECK_INT(result->stage, PR_STAGE_NONE);
    CHECK_INT(what->job.state, PR_JOB_FINISHED);
    CHECK_INT(what->job.told & ~DATA, OVER);
    CHECK_INT(result->pid, -1);
    CHECK_INT(result->pidfd, -1);
    for (int i = 0; i < 3; i++)
        if (what->job.rows[i] >= 0)
            CHECK_INT(what->scene.ours[what->job.rows[i]], -1);
    CHECK_INT(what->job.gather.exit.code, CLD_EXITED);
    CHECK_INT(what->job.gather.exit.status, code);
    check_data(what, out ? out : "", error ? error : "");
    forget_data(what);
}

bool complete(struct errand *what, int code, const char *out)
{
    struct scene *scene = &what->scene;
    int row = what->job.rows[1];
    char text[256] = "";
    CHECK_INT(scene->result.error, 0);
    CHECK_INT(what->job.state, PR_JOB_FINISHED);
    if (what->job.told & DATA) {
        CHECK(what->job.gather.sizes[0] < sizeof text);
        memcpy(text, what->job.data, what->job.gather.sizes[0]);
    }
    if (row >= 0 && !(what->job.told & ALL_0)) {
        size_t size = strlen(text);
        snprintf(text + size, sizeof text - size, "%s", scene_read(scene, row));
    }
    CHECK_TEXT(text, out);
    struct pr_exit end = what->job.gather.exit;
    CHECK_INT(scene->result.pid, what->job.told & EXIT ? -1 : scene->result.pid);
    if (what->job.told & EXIT)
        CHECK_INT(scene->result.pidfd, -1);
    else
        end = scene_end(scene);
    CHECK_INT(end.code, CLD_EXITED);
    CHECK_INT(end.status, code);
    forget_data(what);
    return (what->job.told & OVER) == OVER;
}

/* --- threads ---------------------------------------------------------------------------------- */

static void read_status(const char *thread, char *text, size_t size)
{
    int fd = open(proc_path("self/task/%s/status", thread), O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);
    text[got > 0 ? got : 0] = 0;
    close(fd);
}

struct thread_look look_at_threads(void)
{
    struct thread_look look = {.blocked = ~UINT64_C(0)};
    DIR *directory = opendir(proc_path("self/task"));
    struct dirent *entry;
    CHECK(directory != NULL);
    while ((entry = readdir(directory))) {
        char text[8192];
        read_status(entry->d_name, text, sizeof text);
        if (!says(text, "Name:\tpr-spawner"))
            continue;
        const char *line = strstr(text, "\nSigBlk:");
        CHECK(line != NULL);
        look.blocked &= strtoull(line + strlen("\nSigBlk:"), NULL, 16);
        look.sleeping += strstr(text, "\nState:\tS") != NULL;
        look.count++;
    }
    closedir(directory);
    return look;
}

uint64_t wait_for_threads(int wanted)
{
    struct thread_look look;
    while ((look = look_at_threads()).count != wanted)
        sched_yield();
    return look.blocked;
}

void wait_for_sleepers(int wanted)
{
    while (look_at_threads().sleeping != wanted)
        sched_yield();
}

int wait_for_stopped(void)
{
    siginfo_t stopped;
    while (waitid(P_ALL, 0, &stopped, WSTOPPED) < 0)
        CHECK(errno == ECHILD || errno == EINTR); /* there is none yet */
    return stopped.si_pid;
}
