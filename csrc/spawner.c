/* spawner.c - threads that spawn, so that their caller does not sleep through an exec.
 *
 *   submit -> waiting -> a thread: pr_spawn -> finished -> take
 *
 * One lock guards both lists.  It is held for a few instructions and, in take, for one read of the
 * eventfd, which is non-blocking.  The lists are threaded through the jobs, so that a job costs no
 * allocation but pr_spawn's.
 *
 * Facts:
 *   - The semaphore counts submitted jobs, so a thread that gets through finds one, or finds that
 *     the spawner is closing.  Not a condition variable: glibc's, from 2.27 on, could lose the
 *     wake-up of pthread_cond_signal (sourceware bug 25847), and a job would wait for the next one.
 *   - The eventfd is written for the first of the jobs that wait to be taken, not for each: a burst
 *     wakes the caller's loop once.  `announced` says that it has been written or is about to be.
 *     The write comes after the lock, since it wakes a thread which wants the lock next; the read
 *     comes under it.  A read that finds nothing has overtaken the write: `announced` stays, the
 *     write is one wake-up too many, and the next take clears it.  With the read after the lock, a
 *     wake-up would be lost.
 *   - A job with a key is finished in silence: its child's end is the news, and a caller that is
 *     woken for each start and each end spends more on waking than on either.
 *   - Threads are born with their creator's mask, so it is set while they are made.  Not to all 64
 *     signals, as around clone: libc's setuid family sends signal 33 (musl: 34) to every thread and
 *     waits until each has handled it (nptl(7)); sigfillset leaves out what libc wants for itself.
 *   - Children run on the stacks of ladder.c, so a thread needs room for pr_spawn alone, a few KiB.
 *     glibc takes the program's thread-local storage out of the same stack, and refuses (EINVAL)
 *     one that is too small for it; then the default size does.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "ladder.h"
#include "procreactor.h"
#include "spawn.h"
#include "sys.h"

enum { MOST_THREADS = 64, STACK_SIZE = 128 * 1024 };

struct jobs {
    struct pr_job *first;
    struct pr_job *last; /* of no meaning when there is no first */
};

struct pr_spawner {
    pthread_mutex_t lock;
    sem_t submitted;
    struct jobs waiting;
    struct jobs finished;
    bool closing;
    bool announced;
    int eventfd;
    uint32_t thread_count;
    pthread_t threads[];
};

/* --- lists ------------------------------------------------------------------------------------ */

static void append(struct jobs *jobs, struct pr_job *job)
{
    job->next = NULL;
    if (jobs->first)
        jobs->last->next = job;
    else
        jobs->first = job;
    jobs->last = job;
}

static struct pr_job *pop(struct jobs *jobs)
{
    struct pr_job *job = jobs->first;
    if (job)
        jobs->first = job->next;
    return job;
}

/* --- one job ---------------------------------------------------------------------------------- */

/* NULL: there will be no more. */
static struct pr_job *begin(struct pr_spawner *spawner)
{
    while (sem_wait(&spawner->submitted) < 0)
        ; /* EINTR: libc's own signals */
    pthread_mutex_lock(&spawner->lock);
    struct pr_job *job = pop(&spawner->waiting);
    pthread_mutex_unlock(&spawner->lock);
    return job;
}

/* Before the job is finished: afterwards the pidfd may be closed at any moment. */
static void watch_exit(struct pr_job *job)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    event.data.fd = job->key;
    job->watched = job->key && job->result->pidfd >= 0
                   && sys_epoll_ctl(job->epoll_fd, EPOLL_CTL_ADD, job->result->pidfd, &event) == 0;
}

/* From here on the job is its submitter's again, or will be at any moment. */
static void finish(struct pr_spawner *spawner, struct pr_job *job)
{
    const uint64_t one = 1;
    bool quiet = job->watched;
    pthread_mutex_lock(&spawner->lock);
    append(&spawner->finished, job);
    bool announces = !spawner->announced && !quiet;
    spawner->announced = spawner->announced || !quiet;
    pthread_mutex_unlock(&spawner->lock);
    if (announces)
        sys_write(spawner->eventfd, &one, sizeof one);
}

/* The result of a job that was never begun. */
static int refuse(struct pr_job *job, int stage, int error)
{
    job->watched = 0;
    *job->result = (struct pr_result){
        .pid = -1, .pidfd = -1, .stage = stage, .error = error, .index = -1};
    for (uint32_t i = 0; i < job->request->fd_count; i++)
        job->ours[i] = -1;
    return -error;
}

/* --- the threads ------------------------------------------------------------------------------ */

static void *work_off(void *opaque)
{
    struct pr_spawner *spawner = opaque;
    struct pr_job *job;
    sys_prctl(PR_SET_NAME, (long)"pr-spawner"); /* for ps -L and top -H */
    while ((job = begin(spawner))) {
        pr_spawn_with_mask(job->request, job->result, job->ours, &job->inherited_mask);
        watch_exit(job);
        finish(spawner, job);
    }
    return NULL;
}

/* 0 or an errno, as pthread has them. */
static int start_thread(struct pr_spawner *spawner)
{
    pthread_t *thread = &spawner->threads[spawner->thread_count];
    pthread_attr_t attributes;
    long least = sysconf(_SC_THREAD_STACK_MIN); /* grows with the registers that a signal saves */
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, least > STACK_SIZE ? (size_t)least : STACK_SIZE);
    int error = pthread_create(thread, &attributes, work_off, spawner);
    pthread_attr_destroy(&attributes);
    if (error == EINVAL)
        error = pthread_create(thread, NULL, work_off, spawner);
    if (!error)
        spawner->thread_count++;
    return error;
}

static uint64_t all_signals_but_libcs(void)
{
    sigset_t set;
    uint64_t mask;
    sigfillset(&set);
    memcpy(&mask, &set, sizeof mask); /* the kernel's 64 bits come first in every libc's set */
    return mask;
}

static int start_threads(struct pr_spawner *spawner, uint32_t count)
{
    uint64_t mask = all_signals_but_libcs(), before;
    int error = 0;
    sys_rt_sigprocmask(SIG_SETMASK, &mask, &before);
    while (!error && spawner->thread_count < count)
        error = start_thread(spawner);
    pr_signals_restore(&before);
    return -error;
}

/* --- the contract ----------------------------------------------------------------------------- */

int pr_spawner_open(uint32_t threads, struct pr_spawner **opened)
{
    *opened = NULL;
    if (threads < 1 || threads > MOST_THREADS)
        return -EINVAL;
    struct pr_spawner *spawner = malloc(sizeof *spawner + threads * sizeof *spawner->threads);
    if (!spawner)
        return -ENOMEM;
    *spawner = (struct pr_spawner){.lock = PTHREAD_MUTEX_INITIALIZER};
    spawner->eventfd = (int)sys_eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (spawner->eventfd < 0) {
        int error = spawner->eventfd;
        free(spawner);
        return error;
    }
    sem_init(&spawner->submitted, 0, 0);
    int result = start_threads(spawner, threads);
    if (result < 0) {
        pr_spawner_close(spawner);
        pr_spawner_free(spawner);
        return result;
    }
    *opened = spawner;
    return 0;
}

int pr_spawner_fd(const struct pr_spawner *spawner)
{
    return spawner->eventfd;
}

int pr_spawner_submit(struct pr_spawner *spawner, struct pr_job *job)
{
    if (job->request->death_signal)
        return refuse(job, PR_STAGE_REQUEST, EINVAL);
    sys_rt_sigprocmask(SIG_SETMASK, NULL, &job->inherited_mask);
    pthread_mutex_lock(&spawner->lock);
    bool closing = spawner->closing;
    if (!closing)
        append(&spawner->waiting, job);
    pthread_mutex_unlock(&spawner->lock);
    if (closing)
        return refuse(job, PR_STAGE_CANCELLED, ECANCELED);
    sem_post(&spawner->submitted);
    return 0;
}

int pr_spawner_take(struct pr_spawner *spawner, uint64_t *tokens, uint32_t capacity)
{
    uint32_t count = 0;
    uint64_t written;
    struct pr_job *job;
    pthread_mutex_lock(&spawner->lock);
    while (count < capacity && (job = pop(&spawner->finished)))
        tokens[count++] = job->token;
    if (!spawner->finished.first && spawner->announced)
        spawner->announced = sys_read(spawner->eventfd, &written, sizeof written) < 0;
    pthread_mutex_unlock(&spawner->lock);
    return (int)count;
}

void pr_spawner_close(struct pr_spawner *spawner)
{
    struct pr_job *job, *next;
    pthread_mutex_lock(&spawner->lock);
    spawner->closing = true;
    job = spawner->waiting.first;
    spawner->waiting.first = NULL;
    pthread_mutex_unlock(&spawner->lock);
    for (; job; job = next) {
        next = job->next;
        refuse(job, PR_STAGE_CANCELLED, ECANCELED);
        finish(spawner, job);
    }
    for (uint32_t i = 0; i < spawner->thread_count; i++)
        sem_post(&spawner->submitted);
    for (uint32_t i = 0; i < spawner->thread_count; i++)
        pthread_join(spawner->threads[i], NULL);
    spawner->thread_count = 0;
}

void pr_spawner_free(struct pr_spawner *spawner)
{
    sem_destroy(&spawner->submitted);
    pthread_mutex_destroy(&spawner->lock);
    sys_close(spawner->eventfd);
    free(spawner);
}
