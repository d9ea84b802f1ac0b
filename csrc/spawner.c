/* spawner.c - threads that spawn, and see children to their end, for a caller that is not to wait.
 *
 *   submit -> waiting -> a thread: pr_spawn -> finished -> take
 *                                     |            ^
 *                                     v (keep)     | its end, by the thread that hears of it
 *                                   running -------+
 *                                     |
 *                                     +-> claim: the caller's, alive
 *
 * One lock guards the lists and the places of the running.  It is held for a few instructions, for
 * the allocation of more places, one epoll_ctl in a claim, and in take for one read of the eventfd,
 * which is non-blocking.  The lists are threaded through the jobs, so that a job costs no allocation
 * but pr_spawn's and its output's.
 *
 * Facts:
 *   - A caller in Python that is told of each end by its own loop pays for a wake-up, a lookup and
 *     four system calls per child, on the one CPU that its GIL allows.  The threads pay them side by
 *     side, and the caller finds a list of results.
 *   - One epoll set for all threads, not one for each: a thread that sits in a slow exec must not
 *     hold the ends of its children.  EPOLLONESHOT: of one end one thread hears.  A thread that takes
 *     an event may find its place empty, or another's, as the caller has claimed the job in
 *     between; so an event names place and token.
 *   - A pidfd that has told its end is closed and not taken out of the set: a child that has not
 *     exec'ed yet may hold a copy for a while, but its one shot is spent.
 *   - The bell wakes threads that sleep in epoll_wait, one for each ring: it is an eventfd watched
 *     by edge, written and never read.  It is rung only while a thread sleeps; whoever takes a job
 *     and leaves another rings for the next.  At the end it is watched by level, and wakes all.
 *   - The eventfd is written for the first of the jobs that wait to be taken, not for each: a burst
 *     wakes the caller's loop once.  `announced` says that it has been written or is about to be.
 *     The write comes after the lock, since it wakes a thread which wants the lock next; the read
 *     comes under it.  A read that finds nothing has overtaken the write: `announced` stays, the
 *     write is one wake-up too many, and the next take clears it.  With the read after the lock, a
 *     wake-up would be lost.
 *   - Threads are born with their creator's mask, so it is set while they are made.  Not to all 64
 *     signals, as around clone: libc's setuid family sends signal 33 (musl: 34) to every thread and
 *     waits until each has handled it (nptl(7)); sigfillset leaves out what libc wants for itself.
 *     SIGCHLD stays open, too: the kernel ignores it, where it is to be ignored, only if the thread
 *     that started the child has not blocked it; else every end interrupts the host's main thread.
 *     So a handler that the host has for it may run in these threads, as in any of its own.  Unless
 *     the opener has it blocked: such a host waits for it (sigwait, a signalfd), and a thread that
 *     has it open would take, and drop, those of the host's own children.
 *   - The host may close our fds by their numbers (a daemon closes all that it finds), and open files of
 *     its own under them.  So before one is written, read or closed, fstat(2) says whether it is still
 *     an anonymous inode as those of all eventfds and epoll sets, and no file, pipe or socket.  A bell
 *     that is gone is replaced.  Without the set or the eventfd nothing is begun any more, and
 *     children that run are handed over.  Who sleeps in a set without a number sleeps on: closing it
 *     wakes nobody, and the set lives for as long.
 *   - Where a sandbox says EPERM to clone3, glibc makes no thread (it goes on with clone after ENOSYS
 *     only), and forks are made as ever.  There the caller does the work of the threads in its own
 *     calls: it begins jobs as they are submitted and as others make room, and hears of ends as it
 *     takes.  So it watches the set, and the eventfd lies in that, by level.  Who takes until there is
 *     nothing left is told so before the next look, and a call begins a few jobs at most: else one
 *     turn of a loop would last until all that waits is done.
 *   - Children run on the stacks of ladder.c, so a thread needs room for pr_spawn alone, a few KiB.
 *     glibc takes the program's thread-local storage out of the same stack, and refuses (EINVAL)
 *     one that is too small for it; then the default size does.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include "ladder.h"
#include "procreactor.h"
#include "spawn.h"
#include "sys.h"

enum {
    MOST_THREADS = 64,
    STACK_SIZE = 128 * 1024,
    EVENTS = 16,
    MANY_FINISHED = 32,
    FEW_WAITING = 16,
    FEW_STARTS = 16, /* in one call of a caller who does them himself */
    PART = 68 * 1024, /* of each stream: what a pipe holds, and room to see that it was all */
};

#define SIGCHLD_BIT (UINT64_C(1) << (SIGCHLD - 1))

/* What the bell's events carry; no place and token do. */
#define BELL UINT64_MAX

enum { OVER = PR_GATHERED_ALL_0 | PR_GATHERED_ALL_1 | PR_GATHERED_EXIT };

struct jobs {
    struct pr_job *first;
    struct pr_job *last; /* of no meaning when there is no first */
    uint32_t count;
};

/* Of a running job.  There are as many as were ever needed at once. */
struct place {
    struct pr_job *job; /* NULL: free */
    uint32_t next_free; /* its number plus 1; 0: there is no other */
};

struct pr_spawner {
    pthread_mutex_t lock;
    struct jobs waiting;
    struct jobs finished;
    struct place *places;
    uint32_t place_count;
    uint32_t first_free; /* as next_free */
    uint32_t most;       /* children that may live at once; 0: no bound */
    uint32_t alive;
    uint32_t sleepers;   /* threads that are in epoll_wait for as long as it takes, or nearly */
    uint32_t gone;       /* threads that have ended, or nearly */
    bool closing;
    bool announced;
    bool is_lost;        /* an fd of ours was closed that cannot be replaced */
    atomic_bool is_deaf; /* nobody can wake the sleepers any more */
    bool knows_inode;    /* that of the fds: as far as fstat tells, they are one file */
    dev_t device;
    ino_t inode;
    int eventfd;
    atomic_int bell_fd;
    int epoll_fd;
    bool is_alone;  /* no threads are to be had, and the caller does their work */
    bool has_looked; /* and has since been told all that came of it, but not that this was all */
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
    jobs->count++;
}

static struct pr_job *pop(struct jobs *jobs)
{
    struct pr_job *job = jobs->first;
    if (job) {
        jobs->first = job->next;
        jobs->count--;
    }
    return job;
}

/* Under the lock: whether the caller is to be told, now, by `announce`.  While there is enough for the
 * threads to do, many ends are told at once. */
static bool is_due(struct pr_spawner *spawner, bool sleeps)
{
    if (spawner->announced || !spawner->finished.first)
        return false;
    spawner->announced = sleeps || spawner->waiting.count <= FEW_WAITING
                         || spawner->finished.count >= MANY_FINISHED;
    return spawner->announced;
}

/* --- fds that the host may have closed --------------------------------------------------------- */

static void note_inode(struct pr_spawner *spawner)
{
    struct stat one, other;
    spawner->knows_inode = sys_fstat(spawner->eventfd, &one) == 0
                           && sys_fstat(spawner->bell_fd, &other) == 0
                           && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
    spawner->device = one.st_dev;
    spawner->inode = one.st_ino;
}

/* Where fstat is denied, they are taken for ours. */
static bool is_ours(const struct pr_spawner *spawner, int fd)
{
    struct stat facts;
    long result = spawner->knows_inode ? sys_fstat(fd, &facts) : -ENOSYS;
    if (result < 0)
        return result != -EBADF;
    return facts.st_dev == spawner->device && facts.st_ino == spawner->inode;
}

static void give_up(struct pr_spawner *spawner);

static void announce(struct pr_spawner *spawner)
{
    const uint64_t one = 1;
    if (!is_ours(spawner, spawner->eventfd))
        give_up(spawner);
    else
        sys_write(spawner->eventfd, &one, sizeof one);
}

/* From here on the job is its submitter's again, or will be at any moment. */
static void finish(struct pr_spawner *spawner, struct pr_job *job)
{
    pthread_mutex_lock(&spawner->lock);
    if (job->result->error || (job->told & OVER) == OVER)
        spawner->alive--;
    job->state = PR_JOB_FINISHED;
    append(&spawner->finished, job);
    /* What is left of a child needs its owner; only what is over can wait for others, if there are any. */
    bool is_left = !job->result->error && (job->told & OVER) != OVER;
    bool announces = is_due(spawner, is_left || spawner->is_alone);
    pthread_mutex_unlock(&spawner->lock);
    if (announces)
        announce(spawner);
}

static int watch_bell(struct pr_spawner *spawner, int bell_fd, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = BELL};
    return (int)sys_epoll_ctl(spawner->epoll_fd, operation, bell_fd, &event);
}

/* One that is ringing; the number of the old one is somebody else's. */
static bool replace_bell(struct pr_spawner *spawner)
{
    int bell_fd = (int)sys_eventfd2(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell_fd < 0)
        return false;
    if (watch_bell(spawner, bell_fd, EPOLL_CTL_ADD, EPOLLIN | EPOLLET) < 0) {
        sys_close(bell_fd);
        return false;
    }
    spawner->bell_fd = bell_fd;
    return true;
}

static void ring(struct pr_spawner *spawner)
{
    const uint64_t one = 1;
    if (is_ours(spawner, spawner->bell_fd)) {
        sys_write(spawner->bell_fd, &one, sizeof one);
        return;
    }
    pthread_mutex_lock(&spawner->lock);
    bool rings = is_ours(spawner, spawner->bell_fd) || replace_bell(spawner);
    pthread_mutex_unlock(&spawner->lock);
    if (!rings) {
        spawner->is_deaf = true;
        give_up(spawner);
    }
}

/* --- places, but for enter under the lock ---------------------------------------------------- */

static bool add_places(struct pr_spawner *spawner)
{
    uint32_t count = spawner->place_count ? 2 * spawner->place_count : 64;
    struct place *places = realloc(spawner->places, count * sizeof *places);
    if (!places)
        return false;
    for (uint32_t i = spawner->place_count; i < count; i++)
        places[i] = (struct place){.next_free = i + 1 < count ? i + 2 : 0};
    spawner->first_free = spawner->place_count + 1;
    spawner->places = places;
    spawner->place_count = count;
    return true;
}

/* Takes the lock.  *event is the job's from now on. */
static bool enter(struct pr_spawner *spawner, struct pr_job *job, uint64_t *event)
{
    pthread_mutex_lock(&spawner->lock);
    bool has_room = spawner->first_free || add_places(spawner);
    if (has_room) {
        job->place = spawner->first_free - 1;
        struct place *place = &spawner->places[job->place];
        spawner->first_free = place->next_free;
        place->job = job;
        *event = (job->token & 0xffffffff) << 32 | job->place;
    }
    pthread_mutex_unlock(&spawner->lock);
    return has_room;
}

static void leave(struct pr_spawner *spawner, struct pr_job *job)
{
    spawner->places[job->place] = (struct place){.next_free = spawner->first_free};
    spawner->first_free = job->place + 1;
    job->state = PR_JOB_BEGUN;
}

/* The job of an event, or NULL when it is no longer in its place. */
static struct pr_job *find(const struct pr_spawner *spawner, uint64_t event)
{
    if ((uint32_t)event >= spawner->place_count) /* of a set of the host's, under our number */
        return NULL;
    struct pr_job *job = spawner->places[(uint32_t)event].job;
    return job && (job->token & 0xffffffff) == event >> 32 ? job : NULL;
}

/* A fact for the caller, who hears of an end later than it comes, and of a start not at all. */
static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* without a system call: vdso(7) */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --- one job ---------------------------------------------------------------------------------- */

/* The child has its stdin closed at once, and its streams become the gatherer's. */
static void prepare_gathering(struct pr_job *job)
{
    const int *rows = job->rows;
    if (rows[0] >= 0) {
        sys_close(job->ours[rows[0]]);
        job->ours[rows[0]] = -1;
    }
    job->gather = (struct pr_gather){.epoll_fd = -1,
                                     .pid = job->result->pid,
                                     .pidfd = job->result->pidfd,
                                     .out_fds = {rows[1] < 0 ? -1 : job->ours[rows[1]],
                                                 rows[2] < 0 ? -1 : job->ours[rows[2]]}};
}

/* False: nobody but the caller can hear of its end.  The lock is not held while the kernel works: the
 * job may be another thread's, and finished, before epoll_ctl returns, and is looked at no more
 * unless its place still has it. */
static bool keep(struct pr_spawner *spawner, struct pr_job *job)
{
    int pidfd = job->result->pidfd;
    uint64_t name;
    prepare_gathering(job);
    if (pidfd < 0 || !enter(spawner, job, &name))
        return false;
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = name};
    bool kept = sys_epoll_ctl(spawner->epoll_fd, EPOLL_CTL_ADD, pidfd, &event) == 0;
    pthread_mutex_lock(&spawner->lock);
    kept = kept && !spawner->is_lost;
    bool is_there = find(spawner, name) == job;
    if (is_there && kept)
        job->state = PR_JOB_RUNNING;
    else if (is_there)
        leave(spawner, job);
    pthread_mutex_unlock(&spawner->lock);
    return kept || !is_there;
}

static void start(struct pr_spawner *spawner, struct pr_job *job)
{
    job->begun_ns = now_ns();
    int result = pr_spawn_with_mask(job->request, job->result, job->ours, &job->inherited_mask);
    job->made_pid = job->result->pid;
    if (result < 0 || !job->keeps || !keep(spawner, job))
        finish(spawner, job);
}

/* What was read goes into memory of its own size; without any, the buffer itself goes. */
static void hand_over_data(struct pr_job *job, char **buffer)
{
    size_t first = job->gather.sizes[0], second = job->gather.sizes[1];
    memmove(*buffer + first, *buffer + PART, second);
    job->data = malloc(first + second);
    if (job->data) {
        memcpy(job->data, *buffer, first + second);
    } else {
        job->data = *buffer;
        *buffer = NULL;
    }
}

/* Its result tells what is left of it: nothing, or a child that only seemed to have ended, or one
 * whose streams others hold, or have filled beyond the buffer. */
static void collect(struct pr_job *job, char **buffer)
{
    struct pr_gather *gather = &job->gather;
    if (!*buffer)
        *buffer = malloc(2 * PART);
    int told = *buffer ? pr_gather(gather, *buffer, PART) : 0;
    job->told = told;
    if (job->told & PR_GATHERED_DATA)
        hand_over_data(job, buffer);
    if (gather->reaped)
        job->ended_ns = now_ns();
    job->result->pid = gather->reaped ? -1 : gather->pid;
    job->result->pidfd = gather->pidfd;
    for (int i = 0; i < 2; i++)
        if (job->rows[i + 1] >= 0)
            job->ours[job->rows[i + 1]] = gather->out_fds[i];
}

static void on_end(struct pr_spawner *spawner, uint64_t event, char **buffer)
{
    pthread_mutex_lock(&spawner->lock);
    struct pr_job *job = find(spawner, event);
    if (job)
        leave(spawner, job);
    pthread_mutex_unlock(&spawner->lock);
    if (!job) /* claimed */
        return;
    collect(job, buffer);
    finish(spawner, job);
}

/* The result of a job that was never begun. */
static int refuse(struct pr_job *job, int stage, int error)
{
    *job->result = (struct pr_result){
        .pid = -1, .pidfd = -1, .stage = stage, .error = error, .index = -1};
    for (uint32_t i = 0; i < job->request->fd_count; i++)
        job->ours[i] = -1;
    return -error;
}

/* What is told of a job that comes too late. */
static int refuse_late(const struct pr_spawner *spawner, struct pr_job *job)
{
    return spawner->is_lost ? refuse(job, PR_STAGE_WATCH, EBADF)
                            : refuse(job, PR_STAGE_CANCELLED, ECANCELED);
}

static void cancel_waiting(struct pr_spawner *spawner, bool for_good)
{
    struct pr_job *job;
    pthread_mutex_lock(&spawner->lock);
    spawner->closing = spawner->closing || for_good;
    while ((job = pop(&spawner->waiting))) {
        refuse_late(spawner, job);
        job->state = PR_JOB_FINISHED;
        append(&spawner->finished, job);
    }
    bool announces = is_due(spawner, true);
    pthread_mutex_unlock(&spawner->lock);
    if (announces)
        announce(spawner);
}

static struct pr_job *take_out(struct pr_spawner *spawner, uint32_t place)
{
    struct pr_job *job = NULL;
    pthread_mutex_lock(&spawner->lock); /* a claim may come in between */
    if (place < spawner->place_count)
        job = spawner->places[place].job;
    if (job && job->state == PR_JOB_RUNNING)
        leave(spawner, job);
    else
        job = NULL;
    pthread_mutex_unlock(&spawner->lock);
    return job;
}

static void hand_over_running(struct pr_spawner *spawner)
{
    pthread_mutex_lock(&spawner->lock);
    uint32_t count = spawner->place_count;
    pthread_mutex_unlock(&spawner->lock);
    for (uint32_t i = 0; i < count; i++) {
        struct pr_job *job = take_out(spawner, i);
        if (job)
            finish(spawner, job);
    }
}

/* The set or the eventfd is gone.  Idempotent; what is begun is finished by its thread. */
static void give_up(struct pr_spawner *spawner)
{
    pthread_mutex_lock(&spawner->lock);
    bool is_new = !spawner->is_lost;
    spawner->is_lost = true;
    pthread_mutex_unlock(&spawner->lock);
    if (!is_new)
        return;
    cancel_waiting(spawner, true);
    hand_over_running(spawner);
    if (!spawner->is_alone)
        ring(spawner);
}

/* --- the threads ------------------------------------------------------------------------------ */

/* Under the lock. */
static bool may_begin(const struct pr_spawner *spawner)
{
    return spawner->waiting.first && (!spawner->most || spawner->alive < spawner->most);
}

/* Under the lock: the next job, or NULL. */
static struct pr_job *next_job(struct pr_spawner *spawner)
{
    if (!may_begin(spawner))
        return NULL;
    struct pr_job *job = pop(&spawner->waiting);
    job->state = PR_JOB_BEGUN;
    spawner->alive++;
    return job;
}

/* The next job, or NULL: then this thread counts as asleep, unless it is the end. */
static struct pr_job *begin(struct pr_spawner *spawner, bool *closing)
{
    pthread_mutex_lock(&spawner->lock);
    struct pr_job *job = next_job(spawner);
    bool rings = job && spawner->sleepers && may_begin(spawner);
    bool announces = is_due(spawner, !job);
    *closing = spawner->closing;
    if (!job && !*closing)
        spawner->sleepers++;
    pthread_mutex_unlock(&spawner->lock);
    if (announces)
        announce(spawner);
    if (rings)
        ring(spawner);
    return job;
}

static void wake_up(struct pr_spawner *spawner)
{
    pthread_mutex_lock(&spawner->lock);
    spawner->sleepers--;
    pthread_mutex_unlock(&spawner->lock);
}

/* Hears of what has ended, and does its part. */
static void attend(struct pr_spawner *spawner, bool sleeps, char **buffer)
{
    struct epoll_event events[EVENTS];
    long count = sys_epoll_pwait(spawner->epoll_fd, events, EVENTS, sleeps ? -1 : 0);
    if (sleeps)
        wake_up(spawner);
    if (count < 0 && count != -EINTR) /* libc's own signals */
        give_up(spawner);
    for (long i = 0; i < count; i++)
        if (events[i].data.u64 != BELL)
            on_end(spawner, events[i].data.u64, buffer);
}

static void *work_off(void *opaque)
{
    struct pr_spawner *spawner = opaque;
    char *buffer = NULL;
    sys_prctl(PR_SET_NAME, (long)"pr-spawner"); /* for ps -L and top -H */
    for (;;) {
        bool closing;
        struct pr_job *job = begin(spawner, &closing);
        if (job)
            start(spawner, job);
        else if (closing) {
            ring(spawner); /* pass it on: the bell wakes one sleeper, or, made so at the close, all */
            break;
        }
        attend(spawner, !job, &buffer);
    }
    free(buffer);
    pthread_mutex_lock(&spawner->lock);
    spawner->gone++;
    pthread_mutex_unlock(&spawner->lock);
    return NULL;
}

/* --- or nobody else --------------------------------------------------------------------------- */

/* What is left for the next call keeps the fd readable until then. */
static void begin_some(struct pr_spawner *spawner)
{
    for (int i = 0; i < FEW_STARTS; i++) {
        pthread_mutex_lock(&spawner->lock);
        struct pr_job *job = next_job(spawner);
        pthread_mutex_unlock(&spawner->lock);
        if (!job)
            return;
        start(spawner, job);
    }
    pthread_mutex_lock(&spawner->lock);
    bool announces = may_begin(spawner) && !spawner->announced;
    spawner->announced = spawner->announced || announces;
    pthread_mutex_unlock(&spawner->lock);
    if (announces)
        announce(spawner);
}

/* Also when the eventfd is gone: what the set has to tell would keep it readable. */
static void do_their_work(struct pr_spawner *spawner)
{
    char *buffer = NULL;
    if (is_ours(spawner, spawner->epoll_fd))
        attend(spawner, false, &buffer);
    else
        give_up(spawner);
    free(buffer);
    begin_some(spawner);
}

/* Under the lock, before a take: whether it has a look itself. */
static bool is_to_look(struct pr_spawner *spawner)
{
    bool looks = spawner->is_alone && !spawner->finished.first && !spawner->has_looked;
    spawner->has_looked = spawner->has_looked || looks;
    return looks;
}

/* As a thread that is woken for what may be begun now. */
static void do_or_ring(struct pr_spawner *spawner, bool rings)
{
    if (spawner->is_alone)
        begin_some(spawner);
    else if (rings)
        ring(spawner);
}

static int stay_alone(struct pr_spawner *spawner)
{
    spawner->is_alone = true;
    watch_bell(spawner, spawner->bell_fd, EPOLL_CTL_DEL, 0); /* nobody sleeps */
    return watch_bell(spawner, spawner->eventfd, EPOLL_CTL_ADD, EPOLLIN);
}

/* --- their start ------------------------------------------------------------------------------ */

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

static uint64_t most_signals(void)
{
    sigset_t set;
    uint64_t mask;
    sigfillset(&set);
    memcpy(&mask, &set, sizeof mask); /* the kernel's 64 bits come first in every libc's set */
    return mask & ~SIGCHLD_BIT;
}

static int start_threads(struct pr_spawner *spawner, uint32_t count)
{
    uint64_t mask, before;
    int error = 0;
    sys_rt_sigprocmask(SIG_SETMASK, NULL, &before);
    mask = most_signals() | (before & SIGCHLD_BIT);
    sys_rt_sigprocmask(SIG_SETMASK, &mask, NULL);
    while (!error && spawner->thread_count < count)
        error = start_thread(spawner);
    pr_signals_restore(&before);
    return -error;
}

/* 0 or -errno; what was opened is the spawner's either way. */
static int open_fds(struct pr_spawner *spawner)
{
    spawner->eventfd = (int)sys_eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (spawner->eventfd < 0)
        return spawner->eventfd;
    spawner->bell_fd = (int)sys_eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (spawner->bell_fd < 0)
        return spawner->bell_fd;
    spawner->epoll_fd = (int)sys_epoll_create1(EPOLL_CLOEXEC);
    if (spawner->epoll_fd < 0)
        return spawner->epoll_fd;
    note_inode(spawner);
    return watch_bell(spawner, spawner->bell_fd, EPOLL_CTL_ADD, EPOLLIN | EPOLLET);
}

/* --- the contract ----------------------------------------------------------------------------- */

int pr_spawner_open(uint32_t threads, uint32_t most, struct pr_spawner **opened)
{
    *opened = NULL;
    if (threads < 1 || threads > MOST_THREADS)
        return -EINVAL;
    struct pr_spawner *spawner = malloc(sizeof *spawner + threads * sizeof *spawner->threads);
    if (!spawner)
        return -ENOMEM;
    *spawner = (struct pr_spawner){
        .lock = PTHREAD_MUTEX_INITIALIZER, .most = most, .eventfd = -1, .bell_fd = -1, .epoll_fd = -1};
    int result = open_fds(spawner);
    if (result == 0) {
        result = start_threads(spawner, threads);
        if (result == -EPERM && spawner->thread_count == 0)
            result = stay_alone(spawner);
    }
    if (result < 0) {
        pr_spawner_close(spawner);
        pr_spawner_free(spawner);
        return result;
    }
    *opened = spawner;
    return 0;
}

void pr_spawner_fds(const struct pr_spawner *spawner, int fds[3])
{
    fds[0] = spawner->is_alone ? spawner->epoll_fd : spawner->eventfd;
    fds[1] = spawner->bell_fd;
    fds[2] = spawner->is_alone ? spawner->eventfd : spawner->epoll_fd;
}

int pr_spawner_submit(struct pr_spawner *spawner, struct pr_job *job)
{
    job->state = PR_JOB_WAITING;
    job->told = 0;
    job->data = NULL;
    job->begun_ns = job->ended_ns = 0;
    job->made_pid = -1;
    if (job->request->death_signal)
        return refuse(job, PR_STAGE_REQUEST, EINVAL);
    sys_rt_sigprocmask(SIG_SETMASK, NULL, &job->inherited_mask);
    pthread_mutex_lock(&spawner->lock);
    int refused = spawner->closing ? refuse_late(spawner, job) : 0;
    if (!refused)
        append(&spawner->waiting, job);
    bool rings = spawner->sleepers && may_begin(spawner);
    pthread_mutex_unlock(&spawner->lock);
    do_or_ring(spawner, rings);
    return refused;
}

int pr_spawner_claim(struct pr_spawner *spawner, struct pr_job *job)
{
    struct epoll_event unused = {0}; /* older kernels want one */
    pthread_mutex_lock(&spawner->lock);
    int state = job->state;
    if (state == PR_JOB_RUNNING) {
        sys_epoll_ctl(spawner->epoll_fd, EPOLL_CTL_DEL, job->result->pidfd, &unused);
        leave(spawner, job);
        job->state = PR_JOB_CLAIMED;
    }
    pthread_mutex_unlock(&spawner->lock);
    return state;
}

int pr_spawner_take(struct pr_spawner *spawner, struct pr_taken *taken, uint32_t capacity)
{
    const uint32_t most = sizeof taken->tokens / sizeof *taken->tokens;
    uint32_t count = 0;
    uint64_t written;
    struct pr_job *job;
    pthread_mutex_lock(&spawner->lock);
    if (is_to_look(spawner)) {
        pthread_mutex_unlock(&spawner->lock);
        do_their_work(spawner);
        pthread_mutex_lock(&spawner->lock);
    }
    while (count < capacity && count < most && (job = pop(&spawner->finished)))
        taken->tokens[count++] = job->token;
    spawner->has_looked = spawner->has_looked && count;
    bool is_all = !spawner->finished.first && !(spawner->is_alone && may_begin(spawner));
    if (is_all && spawner->announced)
        spawner->announced = is_ours(spawner, spawner->eventfd)
                             && sys_read(spawner->eventfd, &written, sizeof written) < 0;
    pthread_mutex_unlock(&spawner->lock);
    taken->next = 0;
    taken->count = count;
    return (int)count;
}

int pr_spawner_state(struct pr_spawner *spawner, const struct pr_job *job)
{
    pthread_mutex_lock(&spawner->lock);
    int state = job->state;
    pthread_mutex_unlock(&spawner->lock);
    return state;
}

void pr_spawner_release(struct pr_spawner *spawner)
{
    pthread_mutex_lock(&spawner->lock);
    if (spawner->alive)
        spawner->alive--;
    bool rings = spawner->sleepers && may_begin(spawner);
    pthread_mutex_unlock(&spawner->lock);
    do_or_ring(spawner, rings);
}

void pr_spawner_cancel(struct pr_spawner *spawner)
{
    cancel_waiting(spawner, false);
}

/* Until none of them has a job: those that sleep will never have one, and nobody can wake them. */
static void abandon_threads(struct pr_spawner *spawner)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    bool is_quiet = false;
    while (!is_quiet) {
        pthread_mutex_lock(&spawner->lock);
        is_quiet = spawner->sleepers + spawner->gone == spawner->thread_count;
        pthread_mutex_unlock(&spawner->lock);
        if (!is_quiet)
            sys_nanosleep(&pause);
    }
    for (uint32_t i = 0; i < spawner->thread_count; i++)
        pthread_detach(spawner->threads[i]);
}

void pr_spawner_close(struct pr_spawner *spawner)
{
    cancel_waiting(spawner, true);
    if (spawner->thread_count) {
        watch_bell(spawner, spawner->bell_fd, EPOLL_CTL_MOD, EPOLLIN);
        ring(spawner);
    }
    if (spawner->is_deaf) {
        hand_over_running(spawner); /* a thread that hears of an end all the same finds nothing */
        abandon_threads(spawner);
    }
    for (uint32_t i = 0; i < spawner->thread_count && !spawner->is_deaf; i++)
        pthread_join(spawner->threads[i], NULL);
    spawner->thread_count = 0;
    hand_over_running(spawner);
}

void pr_spawner_close_fds(struct pr_spawner *spawner)
{
    int fds[3];
    pr_spawner_fds(spawner, fds);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0 && is_ours(spawner, fds[i]))
            sys_close(fds[i]);
}

void pr_spawner_free(struct pr_spawner *spawner)
{
    pr_spawner_close_fds(spawner);
    if (spawner->is_deaf) /* its threads may still look at it */
        return;
    pthread_mutex_destroy(&spawner->lock);
    free(spawner->places);
    free(spawner);
}

void pr_job_forget_data(struct pr_job *job)
{
    free(job->data);
    job->data = NULL;
}
