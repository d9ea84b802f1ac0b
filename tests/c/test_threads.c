/* Many threads at once, with no lock to hold on to.  Also run under TSan. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"

enum { SPAWNERS = 4, ROUNDS = 40, STRANGERS = 2 };

static const struct mode *current;
static atomic_int spawners_left;

/* A child that copies one word; odd rounds map high fds, which compete for the slots. */
static void spawn_once(struct scene *scene, int thread, int round)
{
    char word[32], script[64];
    snprintf(word, sizeof word, "%d-%d\n", thread, round);
    snprintf(script, sizeof script, "read word; echo $word; exit %d", round);
    scene_shell(scene, current, script);
    int in = scene_map(scene, 0, PR_WE_WRITE);
    int high = fcntl(0, F_DUPFD_CLOEXEC, 200);
    CHECK(high >= 200);
    for (int row = 0; round % 2 && row < 8; row++)
        scene_map(scene, 10 + row, high);
    int code = pr_spawn(&scene->request, &scene->result, scene->ours);
    close(high);
    if (code)
        FAIL("no child: %s: %s", pr_stage_text(scene->result.stage), strerror(-code));
    CHECK_INT(write(scene->ours[in], word, strlen(word)), (int)strlen(word));
    char read_back[32] = "";
    fcntl(scene->ours[0], F_SETFL, 0);
    for (size_t size = 0, more = 1; more > 0; size += more) {
        ssize_t got = read(scene->ours[0], read_back + size, sizeof read_back - 1 - size);
        CHECK(got >= 0 || errno == EINTR);
        more = got > 0 ? (size_t)got : 0;
    }
    CHECK_TEXT(read_back, word);
    scene_must_exit(scene, round);
}

static void *spawn_often(void *number)
{
    struct scene *scene = calloc(1, sizeof *scene);
    for (int round = 0; round < rounds(ROUNDS); round++)
        spawn_once(scene, (int)(intptr_t)number, round);
    free(scene);
    atomic_fetch_sub(&spawners_left, 1);
    return NULL;
}

/* Opens and closes its own: should the core close an fd that is not its own, or let one be another
 * file, it is seen here. */
static void *open_and_close(void *unused)
{
    while (atomic_load(&spawners_left)) {
        int ends[2];
        struct stat first, second;
        CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
        CHECK_INT(fstat(ends[0], &first), 0);
        for (int i = 0; i < 20; i++)
            CHECK(fstat(ends[0], &second) == 0 && first.st_ino == second.st_ino);
        CHECK_INT(close(ends[0]), 0);
        CHECK_INT(close(ends[1]), 0);
    }
    return unused;
}

static void note_nothing(int number)
{
    (void)number;
}

static void *send_signals(void *unused)
{
    while (atomic_load(&spawners_left)) {
        kill(getpid(), SIGUSR1);
        usleep(500);
    }
    return unused;
}

static void start(pthread_t *thread, void *(*fn)(void *), void *argument)
{
    int error = pthread_create(thread, NULL, fn, argument);
    if (error == EPERM) /* libc's own clone3, where a sandbox says EPERM rather than ENOSYS */
        skip("no threads to be had here");
    CHECK_INT(error, 0);
}

static void run_threads(void)
{
    const struct sigaction handler = {.sa_handler = note_nothing, .sa_flags = SA_RESTART};
    pthread_t threads[SPAWNERS + STRANGERS + 1];
    int count = 0;
    sigaction(SIGUSR1, &handler, NULL);
    atomic_store(&spawners_left, SPAWNERS);
    for (int i = 0; i < SPAWNERS; i++)
        start(&threads[count++], spawn_often, (void *)(intptr_t)i);
    for (int i = 0; i < STRANGERS; i++)
        start(&threads[count++], open_and_close, NULL);
    start(&threads[count++], send_signals, NULL);
    for (int i = 0; i < count; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
}

TEST_IN_MODES(threads_spawn_side_by_side_and_harm_no_ones_fds, main_modes)
{
    current = mode;
    run_threads();
}

static void spawn_first_in_threads(void *unused)
{
    (void)unused;
    run_threads();
}

/* The first spawns of all: the probe and the reserving of slots run into each other. */
TEST_COLD(threads_may_all_be_the_first)
{
    for (int i = 0; i < rounds(5); i++)
        run_apart(spawn_first_in_threads, NULL);
}

/* A fork of the host finds nothing locked, whatever the other threads were doing.  Nothing of ours:
 * AddressSanitizer's allocator has locks, which it does not free in a copy as libc's does.  So the copy
 * allocates nothing but what pr_spawn does, and that from what this thread has kept from a spawn of
 * before (its cache of that size), for which no lock is needed. */
static void *fork_and_spawn(void *unused)
{
    static struct scene in_copy, before;
    scene_begin(&before, NULL, "/bin/true");
    scene_start(&before);
    scene_end(&before);
    while (atomic_load(&spawners_left)) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            scene_begin(&in_copy, NULL, "/bin/true");
            int code = pr_spawn(&in_copy.request, &in_copy.result, in_copy.ours);
            _exit(code == 0 && waitpid(in_copy.result.pid, &status, 0) > 0 ? 0 : 1);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK_INT(status, 0);
    }
    return unused;
}

TEST(a_process_forked_in_the_middle_can_spawn)
{
    pthread_t threads[2];
    atomic_store(&spawners_left, 1);
    start(&threads[0], spawn_often, NULL);
    start(&threads[1], fork_and_spawn, NULL);
    CHECK_INT(pthread_join(threads[0], NULL), 0);
    CHECK_INT(pthread_join(threads[1], NULL), 0);
}

#ifdef __SANITIZE_THREAD__

static int shared_without_care;

static void *add_without_care(void *unused)
{
    for (int i = 0; i < 1000; i++)
        shared_without_care++;
    return unused;
}

MUST_FAIL(a_race_fails, "data race")
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, add_without_care, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

#endif
