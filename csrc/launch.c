/* launch.c - the launcher: a tiny static program that changes identity and execs another.
 *
 * It exists because a setuid in a child that still shares the parent's memory would mark that memory
 * undumpable for good, and would let the target user stop the child and with it the parent (vfork
 * waits).  Here the memory is the launcher's own, small, and marked undumpable by the kernel at the
 * change, so the target user can not trace it either.  The spawn stays flat in the parent's size.
 *
 * It gives no rights to anyone: it is not setuid, and run by a user it can do what the user can.
 *
 * Arguments, written by spawn.c (decimal, all there):
 *   name report_fd uid gid death_signal no_new_privs parent signal_mask group_count candidate_count
 *   group...  candidate...  argv...
 * The environment is the program's.  Errors go to report_fd as a struct pr_report; an exec closes it.
 * It comes locked (child.c), so nothing here may close it, or a copy of it, before.
 *
 * No libc and no start files: it is linked with -nostdlib, and stays a few kilobytes.
 */
#include "become.h"

#include <stddef.h>

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call launch_main\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, xzr\n"
        "    mov x0, sp\n"
        "    bl launch_main\n");
#else
#error "no start code for this machine; build without the launcher"
#endif

enum { NAME, REPORT_FD, UID, GID, DEATH_SIGNAL, NO_NEW_PRIVS, PARENT, SIGNAL_MASK, GROUP_COUNT,
       CANDIDATE_COUNT, FIRST_GROUP };

static uint64_t parse_number(const char *text)
{
    uint64_t number = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        number = number * 10 + (uint64_t)(*text - '0');
    return number;
}

static void refuse_to_be_run_by_hand(void)
{
    static const char text[] = "procreactor's launcher: started by procreactor only\n";
    sys_write(2, text, sizeof text - 1);
    sys_exit_group(2);
}

/* In place: a number takes half the room of the pointer to its text, so no write overtakes a read. */
static const uint32_t *parse_groups(char **texts, uint32_t count)
{
    char *room = (char *)texts;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t group = (uint32_t)parse_number(texts[i]);
        __builtin_memcpy(room + i * sizeof group, &group, sizeof group);
    }
    return (const uint32_t *)(const void *)room;
}

/* The list of candidates needs a NULL behind it, where argv[0] stands: move it down by one, over
 * a word that has been parsed: the last of the groups, which have served by now. */
static char **end_candidates(char **candidates, uint32_t count)
{
    char **moved = candidates - 1;
    for (uint32_t i = 0; i < count; i++)
        moved[i] = candidates[i];
    moved[count] = NULL;
    return moved;
}

__attribute__((used, noreturn)) static void launch(long argc, char **argv)
{
    if (argc <= FIRST_GROUP)
        refuse_to_be_run_by_hand();
    char **env = argv + argc + 1;
    int report_fd = (int)parse_number(argv[REPORT_FD]);
    uint32_t group_count = (uint32_t)parse_number(argv[GROUP_COUNT]);
    uint32_t candidate_count = (uint32_t)parse_number(argv[CANDIDATE_COUNT]);
    if (candidate_count < 1 || argc <= FIRST_GROUP + (long)group_count + (long)candidate_count)
        refuse_to_be_run_by_hand();
    struct pr_become become = {
        .uid = (uint32_t)parse_number(argv[UID]),
        .gid = (uint32_t)parse_number(argv[GID]),
        .group_count = group_count,
        .death_signal = (int)parse_number(argv[DEATH_SIGNAL]),
        .no_new_privs = (int)parse_number(argv[NO_NEW_PRIVS]),
        .parent = (int)parse_number(argv[PARENT]),
        .final_mask = parse_number(argv[SIGNAL_MASK]),
    };
    char **candidates = argv + FIRST_GROUP + group_count;
    char **program_argv = candidates + candidate_count;
    become.groups = parse_groups(argv + FIRST_GROUP, group_count);

    /* An exec that left the report open would never be seen by the parent. */
    struct pr_report report = {.stage = PR_STAGE_REPORT, .index = -1};
    report.error = (int)-sys_fcntl(report_fd, F_SETFD, FD_CLOEXEC);
    if (!report.error)
        report.error = child_change_identity(&become, &report.stage);
    if (!report.error)
        report.error = child_settle(&become, &report.stage);
    if (!report.error)
        child_exec(end_candidates(candidates, candidate_count), program_argv, env, &report);
    sys_write(report_fd, &report, sizeof report);
    for (;;)
        sys_exit_group(127);
}

__attribute__((used, noreturn)) void launch_main(long *stack)
{
    launch(stack[0], (char **)(stack + 1));
}
