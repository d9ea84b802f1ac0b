/* become.h - the last steps of a child, shared by the fork path (child.c) and the launcher
 * (launch.c): change identity, settle what an identity change resets, exec.
 *
 * Facts (setresuid(2), credentials(7), prctl(2), kernel/cred.c commit_creds):
 *   - Raw calls act on the calling thread only, which is the whole process here.
 *   - The order is gid, groups, uid: after uid there is no right left to do the others.
 *   - A daemon that has put aside uid 0 (real or saved uid 0, effective uid another) takes it back
 *     first; Twisted does the same.
 *   - A change of uid clears the parent death signal, so that comes after.
 *   - Capabilities are given up by hand.  Inheritable ones survive the change and the exec, ambient
 *     ones a change between two non-root uids and the exec.  Permitted and effective ones end with the
 *     exec, but with SECBIT_NO_SETUID_FIXUP, or from a non-root uid, not before: the program would be
 *     looked for with the rights of the parent.  Without any permitted ones there are no ambient ones.
 *   - The mask is set last: until then only SIGKILL and SIGSTOP can reach the child.
 */
#ifndef PR_BECOME_H
#define PR_BECOME_H

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include "procreactor.h"
#include "sys.h"

/* What a child reports when it fails: who looks at it finds errno as it was, never read again. */
struct pr_report {
    int stage;
    int error;
    int index;
};

struct pr_become {
    uint32_t uid, gid;
    const uint32_t *groups;
    uint32_t group_count;
    int death_signal;
    int no_new_privs;
    int parent;
    uint64_t final_mask;
};

PR_RAW int child_take_root_back(void)
{
    uint32_t real = 0, effective = 0, saved = 0;
    sys_getresuid(&real, &effective, &saved);
    return effective != 0 && (real == 0 || saved == 0) ? (int)sys_setresuid(-1U, 0, -1U) : 0;
}

PR_RAW long child_give_up_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}, {0, 0, 0}};
    return sys_capset(&header, none);
}

/* 0, or the errno with *stage written. */
PR_RAW int child_change_identity(const struct pr_become *become, int *stage)
{
    long result;
    *stage = PR_STAGE_SETUID;
    if ((result = child_take_root_back()) < 0)
        return (int)-result;
    *stage = PR_STAGE_SETGID;
    if ((result = sys_setresgid(become->gid, become->gid, become->gid)) < 0)
        return (int)-result;
    *stage = PR_STAGE_SETGROUPS;
    if ((result = sys_setgroups(become->group_count, become->groups)) < 0)
        return (int)-result;
    *stage = PR_STAGE_SETUID;
    if ((result = sys_setresuid(become->uid, become->uid, become->uid)) < 0)
        return (int)-result;
    if (become->uid != 0 && (result = child_give_up_capabilities()) < 0)
        return (int)-result;
    return 0;
}

PR_RAW int child_settle(const struct pr_become *become, int *stage)
{
    long result;
    if (become->no_new_privs) {
        *stage = PR_STAGE_NO_NEW_PRIVS;
        if ((result = sys_prctl(PR_SET_NO_NEW_PRIVS, 1)) < 0)
            return (int)-result;
    }
    if (become->death_signal) {
        *stage = PR_STAGE_DEATH_SIGNAL;
        if ((result = sys_prctl(PR_SET_PDEATHSIG, become->death_signal)) < 0)
            return (int)-result;
        /* The parent may have died before the line above: then no signal would ever come.
         * From inside a new pid namespace the parent reads as 0, which tells nothing. */
        long parent = sys_getppid();
        if (parent != 0 && parent != become->parent)
            return ESRCH;
    }
    sys_rt_sigprocmask(SIG_SETMASK, &become->final_mask, 0);
    return 0;
}

/* Errors after which the next directory of a PATH search is tried: the file is not there, or not
 * ours to run, or its file system is gone.  Anything else found the file and cannot run it. */
PR_RAW int child_search_goes_on(int error)
{
    switch (error) {
    case ENOENT: case ENOTDIR: case EACCES: case ELOOP: case ENAMETOOLONG:
    case ESTALE: case ENODEV: case ETIMEDOUT:
        return 1;
    default:
        return 0;
    }
}

/* A program that was just written can be busy for as long as some other process, forked while the
 * file was open for writing, has not exec'ed yet (ETXTBSY, a well-known race of build tools).  That
 * window is microseconds, so a few short waits, 7 ms in all, end it. */
PR_RAW int child_exec_patiently(const char *path, char *const *argv, char *const *env)
{
    long result = sys_execve(path, argv, env);
    for (long pause_ms = 1; result == -ETXTBSY && pause_ms <= 4; pause_ms *= 2) {
        struct timespec pause = {.tv_sec = 0, .tv_nsec = pause_ms * 1000000};
        sys_nanosleep(&pause);
        result = sys_execve(path, argv, env);
    }
    return (int)-result;
}

/* How much an error says of why the program was not run: that a directory of the search is none says
 * less than that the file is not there, which is what is told when nothing else was found. */
PR_RAW int child_telling(int error)
{
    return error == 0 ? 0 : error == ENOTDIR ? 1 : error == ENOENT ? 2 : 3;
}

/* Exec the first candidate that can be.  Returns only on failure, with the report filled in: an error
 * that ends the search decides, else the first of those that say most. */
PR_RAW void child_exec(char *const *candidates, char *const *argv, char *const *env,
                       struct pr_report *report)
{
    report->stage = PR_STAGE_EXEC;
    report->error = 0;
    for (int i = 0; candidates[i]; i++) {
        int error = child_exec_patiently(candidates[i], argv, env);
        int ends = !child_search_goes_on(error);
        if (ends || child_telling(error) > child_telling(report->error)) {
            report->error = error;
            report->index = i;
        }
        if (ends)
            return;
    }
}

#endif
