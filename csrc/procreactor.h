/* procreactor.h - the contract of the C core: one request in, one result out.
 *
 * The core does mechanism: it forks, shuffles file descriptors, changes directory and identity,
 * and execs.  It knows no PATH, no "r" or "w", no Python.  Policy is made before a request is
 * filled in; what the kernel answered comes back as two ints, a stage and an errno.
 *
 * RULES THAT HOLD FOR EVERY FUNCTION
 *   ownership   A request and all that it points to is borrowed for the call and not written to.
 *               (A job's is borrowed for longer; struct pr_job says for how long.)
 *               A result is always fully written, on success and on failure.
 *   fds         On success the caller owns what the result names and nothing else was left open.
 *               On failure nothing is left open, no child exists and no zombie remains.
 *               All fds made here are close-on-exec from birth.  fds of the caller are never closed.
 *   signals     The caller's signal mask is the same before and after, on every path.
 *   threads     Any number of threads may call at the same time; there is no lock (spawn.c says
 *               how) but one in each spawner.  No function calls back.  All may be called with
 *               Python's GIL released.
 *   errors      A return value < 0 is -errno.  Nothing reads or writes the C variable errno.
 *   never       No allocation, lock, libc call or stdio between clone and exec.
 *
 * HOW A CHILD IS MADE (pr_result.mode says which steps were taken)
 *   vfork       clone3 or clone with CLONE_VM | CLONE_VFORK on a stack of its own.  The child writes
 *               its report into the caller's memory.  Cost does not grow with the parent's memory.
 *   unshare     The child also starts with CLONE_FILES and makes CLOSE_RANGE_UNSHARE its first act,
 *               so only a few low fds are copied.  Cost does not grow with the parent's open fds.
 *   helper      With an identity, and a parent that is root: the child execs the static launcher
 *               (launch.c), which changes identity in a memory of its own and execs the program.
 *               A setuid in memory shared with the parent would clear the parent's dumpable flag
 *               and let the target user stop the parent (vfork waits for a stopped child).
 *   fork        With an identity but no launcher, or where memory cannot be shared (valgrind, some
 *               sandboxes): a plain fork, report through a pipe.  Cost grows with memory and fds.
 * Each step down is learnt at the first spawn from what the kernel refuses, and remembered;
 * pr_disable forces it.
 */
#ifndef PROCREACTOR_H
#define PROCREACTOR_H

#include <stddef.h>
#include <stdint.h>

/* The lines between the two marks are also read by cffi: plain C, no preprocessor. */
/* <cdef> */

/* In pr_request.sources, instead of an fd of the parent: a new pipe, or the same as another row. */
enum pr_source {
    PR_WE_READ = -1,   /* the child writes, we keep the read end */
    PR_WE_WRITE = -2,  /* the child reads, we keep the write end */
    PR_AS_STDOUT = -3, /* what the child gets as its fd 1, by an earlier row: it is to have it twice */
};

/* What a failed spawn was doing.  Every stage has its text (pr_stage_text). */
enum pr_stage {
    PR_STAGE_NONE,
    PR_STAGE_REQUEST,      /* EINVAL: the request contradicts itself */
    PR_STAGE_MEMORY,       /* ENOMEM: for the argument vectors */
    PR_STAGE_PIPE,         /* EMFILE, ENFILE; index is the row of the fd map */
    PR_STAGE_REPORT,       /* EMFILE, ENFILE; EBADF: no number free for the child's report pipe */
    PR_STAGE_CLONE,        /* EAGAIN (limits on processes), EMFILE (pidfd), ENOMEM, EBUSY (cgroup) */
    PR_STAGE_UNSHARE,      /* ENOMEM, EMFILE: the child's own fd table */
    PR_STAGE_CGROUP,       /* the child could not enter the cgroup */
    PR_STAGE_SETSID,       /* EPERM */
    PR_STAGE_SETPGID,      /* EPERM, ESRCH */
    PR_STAGE_DUP,          /* EBADF: fd not open, or beyond the limit; index as above */
    PR_STAGE_CTTY,         /* ENOTTY, EPERM, EBADF */
    PR_STAGE_CHDIR,        /* ENOENT, ENOTDIR, EACCES */
    PR_STAGE_RLIMIT,       /* EPERM, EINVAL; index is the row of rlimits */
    PR_STAGE_NICE,         /* EACCES, EPERM */
    PR_STAGE_HELPER,       /* never seen: where the launcher cannot be run, a fork follows */
    PR_STAGE_SETGID,       /* EPERM, EINVAL */
    PR_STAGE_SETGROUPS,    /* EPERM, EINVAL */
    PR_STAGE_SETUID,       /* EPERM, EAGAIN (RLIMIT_NPROC), EINVAL */
    PR_STAGE_NO_NEW_PRIVS, /* EINVAL */
    PR_STAGE_DEATH_SIGNAL, /* EINVAL; ESRCH: the parent died first */
    PR_STAGE_EXEC,         /* execve(2); index is the candidate that decided */
    PR_STAGE_STOPPED,      /* ECANCELED: stopped by a signal before it had become the program; killed */
    PR_STAGE_FROZEN,       /* EBUSY: its cgroup, or one above, froze it before that; killed */
    PR_STAGE_WATCH,        /* ENOSPC: fs.epoll.max_user_watches; EBADF: no epoll fd; index as above */
    PR_STAGE_PTY_OPEN,     /* ENOENT: no devpts; EMFILE, ENOSPC (kernel.pty.max) */
    PR_STAGE_PTY_UNLOCK,
    PR_STAGE_PTY_PEER,     /* EMFILE, ENFILE */
    PR_STAGE_PTY_SIZE,
    PR_STAGE_CANCELLED,    /* ECANCELED: the spawner was closed before the job had begun */
    PR_STAGE_COUNT,
};

/* The steps of the ladder: bits of pr_features, pr_disable and pr_result.mode. */
enum pr_feature {
    PR_FEATURE_CLONE3 = 1,       /* Linux 5.5 (with CLONE_CLEAR_SIGHAND) */
    PR_FEATURE_PIDFD = 2,        /* 5.4 (waitid P_PIDFD) */
    PR_FEATURE_UNSHARE = 4,      /* 5.9 */
    PR_FEATURE_CLOSE_RANGE = 8,  /* 5.9 */
    PR_FEATURE_VFORK = 16,       /* memory shared with the child until exec */
    PR_FEATURE_HELPER = 32,      /* the launcher may be used */
    PR_FEATURE_ALL = 63,
};

/* pr_request.flags: which of the optional fields are meant. */
enum pr_flag {
    PR_FLAG_IDENTITY = 1,     /* uid, gid, groups */
    PR_FLAG_UMASK = 2,        /* umask */
    PR_FLAG_SESSION = 4,      /* setsid(2) */
    PR_FLAG_GROUP = 8,        /* process_group, as setpgid(2) takes it: 0 is a new one */
    PR_FLAG_SIGMASK = 16,     /* signal_mask; without it the calling thread's mask is inherited */
    PR_FLAG_NO_NEW_PRIVS = 32,
    PR_FLAG_WATCH = 64,       /* epoll_fd */
    PR_FLAG_IGNORED = 128,    /* ignored_signals; without it the child resets all.  What terminals send
                               * (SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU) may be reset in any case */
    PR_FLAG_MAY_FREEZE = 256, /* others may freeze cgroup_fd: the start is not to wait for one who does */
};

/* `count` strings, each ended by NUL, one behind the other in `size` bytes. */
struct pr_strings {
    const char *bytes;
    size_t size;
    uint32_t count;
};

struct pr_rlimit {
    int resource;
    uint64_t soft;
    uint64_t hard;
};

struct pr_request {
    struct pr_strings candidates; /* paths to exec, tried in order; at least one */
    struct pr_strings argv;       /* at least one */
    struct pr_strings env;        /* the whole environment; may be empty */
    const char *cwd;              /* NULL: stay */
    const char *launcher;         /* absolute path of the static launcher; NULL: there is none */
    const int *child_fds;         /* fd_count rows: child_fds[i] is to be sources[i] */
    const int *sources;           /* an fd of the parent, or enum pr_source */
    uint32_t fd_count;            /* every other fd is closed in the child */
    uint32_t flags;               /* enum pr_flag */
    uint32_t uid;                 /* never UINT32_MAX, which setresuid(2) takes for "as it is" */
    uint32_t gid;
    const uint32_t *groups;
    uint32_t group_count;
    uint32_t umask;
    const struct pr_rlimit *rlimits;
    uint32_t rlimit_count;
    int nice;                     /* added to the inherited niceness */
    int process_group;
    int tty_fd;                   /* child fd that becomes the controlling terminal; -1: none */
    int death_signal;             /* sent to the child when the spawning thread ends; 0: none */
    int cgroup_fd;                /* directory of a cgroup v2; -1: stay */
    int epoll_fd;                 /* watches our ends and the pidfd, each with its number as data */
    uint64_t signal_mask;         /* bit n-1 blocks signal n */
    uint64_t ignored_signals;     /* bit n-1: signal n may be ignored here, and is not to be there */
};

struct pr_result {
    int pid;      /* -1 on failure */
    int pidfd;    /* owned by the caller; -1 on failure and where pidfds are off */
    int stage;    /* enum pr_stage; PR_STAGE_NONE on success */
    int error;    /* errno of that stage; 0 on success */
    int index;    /* which row or candidate; -1 where that says nothing */
    uint32_t mode; /* the features that this spawn used */
};

/* How a child ended: si_code and si_status of waitid(2), and its resource usage. */
struct pr_exit {
    int code;   /* CLD_EXITED, CLD_KILLED, CLD_DUMPED; 0: the status was lost */
    int status; /* exit code or signal; of a lost one 0, when other code took it, or why no wait is allowed */
    int64_t user_us;
    int64_t system_us;
    int64_t max_rss_kib;
    int64_t minor_faults;
    int64_t major_faults;
    int64_t block_reads;
    int64_t block_writes;
    int64_t voluntary_switches;
    int64_t involuntary_switches;
};

/* Start one child.  0, or -errno with the stage in *result.  ours[i] (fd_count ints) is our end of
 * the pipe of row i, non-blocking, or -1 where the row is no pipe.  Returns when the child has
 * exec'ed, has failed, or was killed before (which is success: its exit status tells).
 * With PR_FLAG_WATCH the epoll set watches our read ends and the pidfd for EPOLLIN, and our write ends
 * for what it always tells (EPOLLERR: no reader left); after a failure it watches none of them.
 * Blocks for as long as the kernel needs to exec the file.  A child that changes identity may be
 * stopped by its new owner; it is not waited for (PR_STAGE_STOPPED).  One that does not change can
 * be stopped by those only who can as well stop the caller.  A stop that a terminal sends in the middle
 * of a start is for the caller: the child is made anew when that goes on.
 * Nor is a child waited for whose cgroup is frozen (PR_STAGE_FROZEN), if the request says that it may be;
 * a fork, which is looked at in any case, not without that either. */
int pr_spawn(const struct pr_request *request, struct pr_result *result, int *ours);

/* Take an fd out of an epoll set (-1: it is in none) and close it.  Always the two together, in this order:
 * the interest belongs to the open file, of which a child that has not exec'ed yet may hold a copy.
 * Whatever close(2) says, the number is free on return.  0; or -EBADF: nothing was open under it, so the caller
 * has closed it twice, or somebody else has. */
int pr_drop(int epoll_fd, int fd);

/* Collect the exit of a child, without blocking.  1: *exit is written and the child is gone;
 * 0: it has not ended; -errno.  Only with 1 is *exit written to.  pidfd may be -1.
 * Where waitid is denied altogether: with a pidfd 1 for one that has ended, of which nothing is known and
 * whose zombie stays; without, -EPERM or -ENOSYS. */
int pr_reap(int pidfd, int pid, struct pr_exit *exit);

/* Do as pr_reap does for the child of a spawn; with 1, its pidfd is out of the set, closed, and -1. */
int pr_reap_in(int epoll_fd, struct pr_result *child, struct pr_exit *exit);

/* Close all that is open of our ends of a child's pipes (ours, as pr_spawn wrote it; those < 0 are not),
 * if every one of them is at its end: nobody is left to write to it and nothing is unread, or nobody is left to
 * read from it.  1: so it was; they are out of the epoll set, closed, and -1 in ours.  0: nothing has been done;
 * also where there are more than 16, and after an error.  Never blocks, and reads nothing. */
int pr_close_ended(int epoll_fd, int *ours, uint32_t count);

/* Do as pr_drop does with the one of ours that is fd, which is -1 there from then on; nothing if none is. */
void pr_close_ours(int epoll_fd, int *ours, uint32_t count, int fd);

/* A child whose output is collected: two streams and an exit, in an epoll set together. */
struct pr_gather {
    struct pr_exit exit; /* once reaped */
    int epoll_fd;        /* -1: there is none */
    int pid;
    int pidfd;           /* -1: there is none, or reaped and closed */
    int out_fds[2];      /* non-blocking; -1: there is none, or ended and closed */
    int reaped;
    uint32_t sizes[2];   /* how much of each stream the last call has read */
};

/* What pr_gather tells; but for the data, once told is told again. */
enum pr_gathered {
    PR_GATHERED_ALL_0 = 1, /* stream 0 is at its end, or there is none */
    PR_GATHERED_ALL_1 = 2,
    PR_GATHERED_EXIT = 4,  /* the child is reaped */
    PR_GATHERED_DATA = 8,  /* sizes are not both 0 */
};

/* Watch the streams, and the pidfd if so wished, for EPOLLIN, each with its number as data.  0 or
 * -errno (ENOSPC, ENOMEM); after a failure nothing new is watched, and all is open as before. */
int pr_gather_watch(const struct pr_gather *gather, int with_pidfd);

/* Read what is there, at most `part` bytes of each stream (stream 1 is put at buffer + part), and
 * reap the child if it has ended; what has ended is taken out of the epoll set and closed.  Never
 * blocks.  A set of enum pr_gathered.  Where pr_reap fails, the child counts as one that has not ended. */
int pr_gather(struct pr_gather *gather, char *buffer, uint32_t part);

/* Take out of the set and close what is still open.  The child is not reaped by it. */
void pr_gather_close(struct pr_gather *gather);

/* Block until the child has ended, leaving it to be reaped.  For kernels without pidfds. */
int pr_wait_exit(int pid);

/* Whether nobody has reaped the child yet, so that its number is its own.  1, 0, or -errno where waitid is
 * denied.  Without a pidfd the number alone is asked for, which may be another child's by now. */
int pr_is_child(int pidfd, int pid);

/* Send a signal to any process.  With a pidfd never to a stranger; without one the caller must know, at
 * this moment, that the number is the one's who is meant.  -ESRCH: it is gone; also said of one that has
 * ended, and is not reaped, where a sandbox denies signals by pidfd. */
int pr_signal(int pidfd, int pid, int number);

/* Send a signal to a child, by number only if pr_is_child, right before.  -ESRCH: it was reaped; -EPERM
 * or -ENOSYS also where that cannot be known: without a pidfd, and with waitid denied. */
int pr_signal_child(int pidfd, int pid, int number);

/* Whether descendants that lose their parent become children of this process, and not of init
 * (PR_SET_CHILD_SUBREAPER): so from now on, if on is 0 or 1; as it is, if on < 0.  Of the whole process, and
 * not of its forks.  0 or 1: what it was before; or -errno. */
int pr_adopt_orphans(int on);

/* Open a pseudo terminal: fds[0] the master (non-blocking), fds[1] the slave (blocking), neither
 * becomes the caller's controlling terminal.  0, or -errno with *stage written. */
int pr_open_pty(int rows, int columns, int *fds, int *stage);

/* A timerfd on CLOCK_MONOTONIC, readable from its deadline on; owned by the caller.  fd or -errno. */
int pr_open_timer(void);

/* Set that deadline, in nanoseconds since the clock began; 0 means never.  0 or -errno. */
int pr_set_timer(int fd, int64_t deadline_ns);

/* Whether another child may be born into a cgroup, by its directory and its cgroup.events: 1 when nobody
 * lives in it or below, and it is not frozen, and has no group below; 0 when not, when that last thing cannot
 * be told, and when somebody has removed it; or -errno. */
int pr_cgroup_is_as_new(int directory_fd, int events_fd);

/* Reserve the landing slots for high fds: low fd numbers, kept open for good.  Idempotent; done by
 * the first spawn if not before, but the earlier the lower they lie.  0 or -errno. */
int pr_reserve(void);

/* The signals that this process ignores now, bit n-1 for signal n.  62 system calls. */
uint64_t pr_ignored_signals(void);

/* Take features away for the life of this process (a bit set of enum pr_feature). */
void pr_disable(uint32_t features);

/* The features in use; probes the kernel if no spawn has yet. */
uint32_t pr_features(void);

/* A few words for a stage, in static memory; "unknown stage" outside the enum. */
const char *pr_stage_text(int stage);

/* --- threads that spawn, for a caller that is not to sleep through an exec --------------------
 *
 * An event loop submits jobs, watches the first fd, and takes what is finished.  Each job is one
 * pr_spawn, made by one of the spawner's threads, in the order of submission with one thread; and,
 * if it so wishes, all that follows until the child has ended.
 *
 *   no threads  Where none are to be had (EPERM: a sandbox that denies libc's clone3 so), the calls do
 *               their work: pr_spawner_submit, pr_spawner_take and pr_spawner_release begin a few of
 *               the jobs that may be begun, and wait for their execs; so a child inherits from who
 *               makes that call, all but the mask.  Not for several threads at once, then.
 *
 *   inherited   The child gets the signal mask that the submitting thread had in pr_spawner_submit.
 *               What else Linux keeps by thread (niceness, scheduling, CPU affinity, capabilities,
 *               seccomp, namespaces) comes from the thread that called pr_spawner_open, as of then.
 *   signals     The threads block all signals, so no handler of the host runs in them, but SIGCHLD's:
 *               that is open unless the caller of pr_spawner_open has it blocked, because the
 *               children are those of the threads, and a signal that they block is not ignored.
 *               A host that means to wait for SIGCHLD blocks it before it opens a spawner.
 *               Libc's own (32 and 33) stay open, too: the setuid family, as libc offers it,
 *               waits until every thread has taken one, and would wait for ever.
 *   fork        A copy of this process has the memory and the fds, and none of the threads; the
 *               lock may be held for good.  There, no function may be called with the spawner, and
 *               its memory is lost.  The copy may call pr_spawner_close_fds, and is not to read
 *               them: they are still the original's.
 *   closed fds  A host that closes them by number is noticed as soon as one is used, unless it has an
 *               eventfd or an epoll set of its own under that number by then.  Then what waits fails,
 *               EBADF at PR_STAGE_WATCH, as does what is submitted after, and children that
 *               run are handed over; nothing is told by the eventfd, if it was that.  Threads that
 *               sleep when all are closed at once sleep on, and their memory is never freed.
 */

/* Where a job is. */
enum pr_job_state {
    PR_JOB_NEW,      /* not submitted; what it is in cleared memory */
    PR_JOB_WAITING,  /* no thread has begun it */
    PR_JOB_BEGUN,    /* a thread starts the child, or reads what one that has ended has left */
    PR_JOB_RUNNING,  /* a child lives, and only the set of the threads knows it */
    PR_JOB_FINISHED, /* to be taken, or taken */
    PR_JOB_CLAIMED,  /* by its submitter */
};

/* All that it points to, and the job itself, is borrowed from a pr_spawner_submit that returned 0
 * until pr_spawner_take has given the token back, or pr_spawner_claim has told PR_JOB_RUNNING.
 *
 * Then, of a job that does not keep, *result and ours are as pr_spawn leaves them; result->error is 0
 * for a child.  The stdin of one that keeps was closed as soon as it ran (if rows[0] is a row), and
 * `told` is what pr_gather told of its end, with the data of stream 0 and then of stream 1 in
 * `data`, gather.sizes of each: mostly all there is.  What is left is in *result and ours: pid
 * (-1: reaped), pidfd, and the streams that are not at their end. `told` is 0 where the end could not
 * be heard of (no pidfd; ENOSPC, ENOMEM), and in a spawner that is closed: the child may live. */
struct pr_job {
    struct pr_gather gather; /* written, but for the next six, by the spawner */
    int64_t begun_ns;        /* when a thread began the start, on CLOCK_MONOTONIC; 0: none has */
    int64_t ended_ns;        /* when a thread reaped the child; 0: none has */
    int made_pid;            /* the child's number, reaped or not; -1: there was none */
    const struct pr_request *request;
    struct pr_result *result;
    int *ours;
    uint64_t token;          /* the caller's; its lower 32 bits are not used again before some
                              * thousand others were, or a late event would be taken for the next */
    int keeps;               /* whether the threads see the child to its end; not with
                              * PR_FLAG_WATCH: of that set they know nothing */
    int rows[3];             /* which of `ours` are its stdin, stdout and stderr; -1: none */
    int told;
    int state;               /* enum pr_job_state */
    char *data;              /* NULL, or until pr_job_forget_data */
    uint32_t place;
    uint64_t inherited_mask;
    struct pr_job *next;
};

struct pr_spawner;

/* Start `threads` threads, 1 to 64, which keep at most `most` children alive at once (0: any number).
 * Alive is what has begun and is not over: failed, or reaped with both streams at their end, or
 * released.  0, or -errno with *spawner NULL and nothing left: EINVAL (not
 * 1 to 64), ENOMEM, ENOSPC (watches), EMFILE, ENFILE (fds), EAGAIN (no more threads to be had), EPERM
 * (a sandbox). */
int pr_spawner_open(uint32_t threads, uint32_t most, struct pr_spawner **spawner);

/* The fds of the spawner.  The first, an eventfd or an epoll set, non-blocking, is readable when finished jobs
 * wait to be taken.  While many more jobs wait for the threads it may stay silent until there are a few
 * dozen; who wants them sooner takes them unasked.  It may also be readable once too often, with nothing
 * to be taken.  The other two are of use to nobody else. */
void pr_spawner_fds(const struct pr_spawner *spawner, int fds[3]);

/* Hand over one job.  Waits for nothing but the lock, which nobody holds for long (but see "no threads").
 * 0, or -errno with *result and ours written as for a child that failed, and no token to be taken: EINVAL
 * at PR_STAGE_REQUEST for a death signal, which would come when the spawner's threads end; ECANCELED
 * at PR_STAGE_CANCELLED after pr_spawner_close. */
int pr_spawner_submit(struct pr_spawner *spawner, struct pr_job *job);

/* Tokens of finished jobs, in the order in which they finished; `next` is the caller's. */
struct pr_taken {
    uint32_t next;
    uint32_t count;
    uint64_t tokens[64];
};

/* Take up to `capacity` finished jobs (at most 64), overwriting *taken with `next` 0; returns how many,
 * its `count`.  Never blocks (but see "no threads").  The first fd stays readable until all have been
 * taken. */
int pr_spawner_take(struct pr_spawner *spawner, struct pr_taken *taken, uint32_t capacity);

/* Have the child of a running job for oneself, as for a signal, or to read what it writes before its
 * end.  Returns the state that was found: with PR_JOB_RUNNING the job is the caller's, with *result
 * and ours of a child that lived a moment ago, and its token is never to be taken; else nothing has
 * happened.  For a job that was submitted and not yet taken. */
int pr_spawner_claim(struct pr_spawner *spawner, struct pr_job *job);

/* Where a job is, whose memory is the caller's at the latest from then on: enum pr_job_state. */
int pr_spawner_state(struct pr_spawner *spawner, const struct pr_job *job);

/* A child that was claimed, or handed over alive or with open streams, is over. */
void pr_spawner_release(struct pr_spawner *spawner);

/* Have the jobs that no thread has begun fail at PR_STAGE_CANCELLED; they can be taken at once.  Others may
 * be submitted afterwards. */
void pr_spawner_cancel(struct pr_spawner *spawner);

/* Do as pr_spawner_cancel does, for good: no more jobs are begun.  Returns
 * when those that have begun are finished, which is as long as an exec takes, and the threads gone;
 * the children that were running can be taken, too.  One thread at a time may call; a second call
 * does nothing. */
void pr_spawner_close(struct pr_spawner *spawner);

/* Close the fds, but for those whose numbers are others' by now. */
void pr_spawner_close_fds(struct pr_spawner *spawner);

/* Close the fds and free the memory.  After pr_spawner_close, when all has been taken (the children
 * of jobs that were not have no owner), and with no other thread in a call. */
void pr_spawner_free(struct pr_spawner *spawner);

/* Free the data of a job that was taken.  Idempotent. */
void pr_job_forget_data(struct pr_job *job);

/* </cdef> */

#endif
