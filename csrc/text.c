/* text.c - a few words for each stage. */
#include "procreactor.h"

static const char *const texts[] = {
    [PR_STAGE_NONE] = "none",
    [PR_STAGE_REQUEST] = "request",
    [PR_STAGE_MEMORY] = "memory",
    [PR_STAGE_PIPE] = "pipe",
    [PR_STAGE_REPORT] = "report pipe",
    [PR_STAGE_CLONE] = "clone",
    [PR_STAGE_UNSHARE] = "unshare",
    [PR_STAGE_CGROUP] = "cgroup",
    [PR_STAGE_SETSID] = "setsid",
    [PR_STAGE_SETPGID] = "setpgid",
    [PR_STAGE_DUP] = "dup",
    [PR_STAGE_CTTY] = "controlling terminal",
    [PR_STAGE_CHDIR] = "chdir",
    [PR_STAGE_RLIMIT] = "rlimit",
    [PR_STAGE_NICE] = "nice",
    [PR_STAGE_HELPER] = "launcher",
    [PR_STAGE_SETGID] = "setgid",
    [PR_STAGE_SETGROUPS] = "setgroups",
    [PR_STAGE_SETUID] = "setuid",
    [PR_STAGE_NO_NEW_PRIVS] = "no_new_privs",
    [PR_STAGE_DEATH_SIGNAL] = "parent death signal",
    [PR_STAGE_EXEC] = "exec",
    [PR_STAGE_STOPPED] = "stopped before exec",
    [PR_STAGE_FROZEN] = "frozen before exec",
    [PR_STAGE_WATCH] = "watch",
    [PR_STAGE_PTY_OPEN] = "open pty",
    [PR_STAGE_PTY_UNLOCK] = "unlock pty",
    [PR_STAGE_PTY_PEER] = "open pty slave",
    [PR_STAGE_PTY_SIZE] = "pty window size",
    [PR_STAGE_CANCELLED] = "cancelled before it began",
};

_Static_assert(sizeof texts / sizeof *texts == PR_STAGE_COUNT, "every stage has its text");

const char *pr_stage_text(int stage)
{
    return stage >= 0 && stage < PR_STAGE_COUNT && texts[stage] ? texts[stage] : "unknown stage";
}
