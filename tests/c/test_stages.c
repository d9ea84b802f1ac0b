/* Every stage reached on purpose: by an honest mistake where there is one, else by the twin.
 *
 * After each, as the harness sees to: no fd more or less, no child, no zombie, the mask as it was; and
 * each case ends with a spawn that works. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ladder.h"
#include "scene.h"
#include "twin.h"

static struct scene scene;

static const struct mode both_ways[] = {
    {"by vfork", 0, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {0},
};
static const struct mode by_identity[] = {
    {"by the launcher", 0, true},
    {"by fork", PR_FEATURE_HELPER, true},
    {0},
};
#define TEST_BOTH_WAYS(name) TEST_IN_MODES(name, both_ways)
#define TEST_WITH_IDENTITY(name) TEST_IN_MODES(name, by_identity)

static void begin(const struct mode *mode)
{
    scene_begin(&scene, mode, "/bin/true");
    scene_map(&scene, 1, PR_WE_READ);
}

static void must_fail(int stage, int error, int index)
{
    scene_must_fail(&scene, stage, error, index);
    twin_reset();
    scene_begin(&scene, NULL, "/bin/true");
    scene_start(&scene);
    scene_must_exit(&scene, 0);
}

/* --- before there is a child ------------------------------------------------------------------ */

TEST(a_request_without_a_candidate_is_refused)
{
    begin(NULL);
    scene.request.candidates.count = 0;
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_request_without_an_argument_is_refused)
{
    begin(NULL);
    scene.request.argv.count = 0;
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_count_of_strings_above_the_truth_is_refused)
{
    begin(NULL);
    scene.request.argv.count++;
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_count_of_strings_below_the_truth_is_refused)
{
    begin(NULL);
    scene_argument(&scene, "more");
    scene.request.argv.count--;
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_string_without_its_end_is_refused)
{
    begin(NULL);
    scene.request.argv.size--;
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_child_fd_that_is_mapped_twice_is_refused)
{
    begin(NULL);
    scene_map(&scene, 1, 0);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_negative_child_fd_is_refused)
{
    begin(NULL);
    scene_map(&scene, -1, 0);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_source_that_is_neither_fd_nor_pipe_is_refused)
{
    begin(NULL);
    scene_map(&scene, 0, -4);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(a_row_that_is_to_be_as_stdout_before_there_is_one_is_refused)
{
    scene_begin(&scene, NULL, "/bin/true");
    scene_map(&scene, 2, PR_AS_STDOUT);
    scene_map(&scene, 1, PR_WE_READ);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
    scene_begin(&scene, NULL, "/bin/true");
    scene_map(&scene, 1, PR_AS_STDOUT);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

/* To setresuid(2), -1 means "as it is": the program would run as root. */
TEST(an_identity_that_would_change_nothing_is_refused)
{
    begin(NULL);
    scene_identity(&scene, UINT32_MAX, 65534);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
    begin(NULL);
    scene_identity(&scene, 65534, UINT32_MAX);
    must_fail(PR_STAGE_REQUEST, EINVAL, -1);
}

TEST(no_memory_for_the_vectors_is_reported)
{
    begin(NULL);
    twin_fail(TWIN_MALLOC, 1, ENOMEM);
    must_fail(PR_STAGE_MEMORY, ENOMEM, -1);
}

static void limit_fds_to(int count)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)count;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int lowest_free_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

TEST(no_fd_for_a_pipe_is_reported_with_its_row)
{
    scene_begin(&scene, NULL, "/bin/true");
    scene_map(&scene, 0, 0);
    scene_map(&scene, 1, PR_WE_READ);
    scene_map(&scene, 2, PR_WE_READ);
    limit_fds_to(lowest_free_fd() + 2);
    scene_must_fail(&scene, PR_STAGE_PIPE, EMFILE, 2);
    limit_fds_to(1024);
}

TEST(a_pipe_that_cannot_be_made_non_blocking_is_reported)
{
    begin(NULL);
    twin_fail(SYS_fcntl, 1, EPERM);
    must_fail(PR_STAGE_PIPE, EPERM, 0);
}

TEST_WITH_IDENTITY(no_fd_for_the_report_pipe_is_reported)
{
    begin(mode);
    limit_fds_to(lowest_free_fd() + 2);
    scene_must_fail(&scene, PR_STAGE_REPORT, EMFILE, -1);
    limit_fds_to(1024);
}

/* --- clone ------------------------------------------------------------------------------------ */

TEST(no_fd_for_the_pidfd_is_reported)
{
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK);
    begin(NULL);
    limit_fds_to(lowest_free_fd() + 2);
    scene_must_fail(&scene, PR_STAGE_CLONE, EMFILE, -1);
    limit_fds_to(1024);
}

TEST(no_process_left_is_reported_and_not_learnt_from)
{
    uint32_t features = pr_features();
    begin(NULL);
    twin_fail(SYS_clone3, 1, EAGAIN);
    twin_fail(SYS_clone, 1, EAGAIN);
    must_fail(PR_STAGE_CLONE, EAGAIN, -1);
    CHECK_INT(pr_features(), features);
}

TEST_COLD(no_memory_for_the_first_stack_is_reported)
{
    begin(NULL);
    twin_fail(SYS_mmap, 1, ENOMEM);
    must_fail(PR_STAGE_CLONE, ENOMEM, -1);
    close_slots();
}

TEST_COLD(a_stack_without_its_guard_is_given_back)
{
    twin_fail(SYS_mprotect, 1, ENOMEM);
    CHECK(pr_stack_take() == NULL);
    CHECK_INT(twin_count(SYS_munmap), 1);
}

TEST_COLD(the_probe_and_the_first_spawn_share_a_stack)
{
    skip_unless_features(PR_FEATURE_VFORK);
    scene_begin(&scene, NULL, "/bin/true");
    scene_start(&scene);
    scene_must_exit(&scene, 0);
    CHECK_INT(twin_count(SYS_mmap), 1);
    close_slots();
}

/* --- in the child ----------------------------------------------------------------------------- */

TEST(a_shortage_at_the_unsharing_is_reported_and_not_learnt_from)
{
    uint32_t features = pr_features();
    skip_unless_features(PR_FEATURE_UNSHARE);
    begin(NULL);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_close_range, 1, -ENOMEM, 0});
    must_fail(PR_STAGE_UNSHARE, ENOMEM, -1);
    CHECK_INT(pr_features(), features);
}

TEST_BOTH_WAYS(a_directory_that_is_no_cgroup_is_reported)
{
    begin(mode);
    scene.request.cgroup_fd = open("/usr", O_DIRECTORY | O_CLOEXEC);
    int cgroup_fd = scene.request.cgroup_fd;
    must_fail(PR_STAGE_CGROUP, ENOENT, -1);
    close(cgroup_fd);
}

/* No cgroup, but with the file that is written to: so it is entered by hand. */
static int open_seeming_cgroup(char *directory)
{
    CHECK(mkdtemp(directory) != NULL);
    int fd = open(directory, O_DIRECTORY | O_CLOEXEC);
    close(openat(fd, "cgroup.procs", O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
    return fd;
}

static void close_seeming_cgroup(int fd, const char *directory)
{
    unlinkat(fd, "cgroup.procs", 0);
    close(fd);
    rmdir(directory);
}

TEST_BOTH_WAYS(a_cgroup_that_does_not_let_us_in_is_reported)
{
    char directory[] = "/tmp/procreactor-XXXXXX";
    int cgroup_fd = open_seeming_cgroup(directory);
    begin(mode);
    scene.request.cgroup_fd = cgroup_fd;
    twin_add((struct twin_rule){TWIN_CHILD, SYS_write, 1, -EBUSY, 0});
    must_fail(PR_STAGE_CGROUP, EBUSY, -1);
    close_seeming_cgroup(cgroup_fd, directory);
}

TEST_BOTH_WAYS(a_cgroup_that_is_not_open_is_reported)
{
    begin(mode);
    scene.request.cgroup_fd = 700;
    must_fail(PR_STAGE_CGROUP, EBADF, -1);
}

/* A child of ours is never a leader before it asks, so the kernel has no reason. */
TEST_BOTH_WAYS(a_refused_session_is_reported)
{
    begin(mode);
    scene.request.flags |= PR_FLAG_SESSION;
    twin_fail(SYS_setsid, 1, EPERM);
    must_fail(PR_STAGE_SETSID, EPERM, -1);
}

TEST_BOTH_WAYS(a_process_group_of_another_session_is_reported)
{
    begin(mode);
    scene.request.flags |= PR_FLAG_SESSION | PR_FLAG_GROUP;
    scene.request.process_group = getpgrp();
    must_fail(PR_STAGE_SETPGID, EPERM, -1);
}

TEST_BOTH_WAYS(a_source_that_is_not_open_is_reported_with_its_row)
{
    begin(mode);
    scene_map(&scene, 0, 0);
    scene_map(&scene, 2, 700);
    must_fail(PR_STAGE_DUP, EBADF, 2);
}

TEST_BOTH_WAYS(a_low_source_that_is_not_open_is_reported_with_its_row)
{
    begin(mode);
    scene_map(&scene, 50, 50);
    must_fail(PR_STAGE_DUP, EBADF, 1);
}

TEST_BOTH_WAYS(a_child_fd_beyond_the_limit_is_reported_with_its_row)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    begin(mode);
    scene_map(&scene, (int)limit.rlim_cur, 0);
    must_fail(PR_STAGE_DUP, EBADF, 1);
}

TEST_WITH_IDENTITY(a_limit_without_room_for_the_report_is_no_ones_row)
{
    scene_begin(&scene, mode, "/bin/true");
    int last = lowest_free_fd() + 3;
    for (int fd = 0; fd <= last; fd++)
        scene_map(&scene, fd, 0);
    limit_fds_to(last + 1);
    scene_must_fail(&scene, PR_STAGE_REPORT, EBADF, -1);
    limit_fds_to(1024);
}

TEST_BOTH_WAYS(a_terminal_that_is_none_is_reported)
{
    begin(mode);
    scene.request.flags |= PR_FLAG_SESSION;
    scene.request.tty_fd = 1;
    must_fail(PR_STAGE_CTTY, ENOTTY, -1);
}

TEST_BOTH_WAYS(a_terminal_that_is_not_mapped_is_reported)
{
    begin(mode);
    scene.request.tty_fd = 700;
    must_fail(PR_STAGE_CTTY, EBADF, -1);
}

TEST_BOTH_WAYS(a_missing_directory_is_reported)
{
    begin(mode);
    scene.request.cwd = "/nowhere";
    must_fail(PR_STAGE_CHDIR, ENOENT, -1);
}

TEST_BOTH_WAYS(a_directory_that_is_a_file_is_reported)
{
    begin(mode);
    scene.request.cwd = "/etc/passwd";
    must_fail(PR_STAGE_CHDIR, ENOTDIR, -1);
}

TEST_BOTH_WAYS(a_limit_that_contradicts_itself_is_reported_with_its_row)
{
    const struct pr_rlimit limits[] = {{RLIMIT_CORE, 0, 0}, {RLIMIT_NOFILE, 20, 10}};
    begin(mode);
    scene.request.rlimits = limits;
    scene.request.rlimit_count = 2;
    must_fail(PR_STAGE_RLIMIT, EINVAL, 1);
}

static void want_to_be_nicer(void *opaque)
{
    if (geteuid() == 0)
        CHECK_INT(setresuid(65534, 65534, 65534), 0);
    begin(opaque);
    scene.request.nice = -1;
    must_fail(PR_STAGE_NICE, EACCES, -1);
}

TEST_BOTH_WAYS(a_niceness_without_the_right_is_reported)
{
    run_apart(want_to_be_nicer, (void *)mode);
}

TEST_BOTH_WAYS(a_refused_no_new_privileges_is_reported)
{
    begin(mode);
    scene.request.flags |= PR_FLAG_NO_NEW_PRIVS;
    twin_fail(SYS_prctl, 1, EINVAL);
    must_fail(PR_STAGE_NO_NEW_PRIVS, EINVAL, -1);
}

TEST_BOTH_WAYS(a_death_signal_that_is_none_is_reported)
{
    begin(mode);
    scene.request.death_signal = 65;
    must_fail(PR_STAGE_DEATH_SIGNAL, EINVAL, -1);
}

TEST_BOTH_WAYS(a_parent_that_died_before_the_death_signal_was_set_is_reported)
{
    begin(mode);
    scene.request.death_signal = SIGTERM;
    twin_add((struct twin_rule){.number = SYS_getppid, .nth = 1, .answer = 1});
    must_fail(PR_STAGE_DEATH_SIGNAL, ESRCH, -1);
}

static void spawn_into_a_pid_namespace(void *mode)
{
    if (unshare(CLONE_NEWPID) < 0)
        skip("no pid namespaces: %s", strerror(errno));
    scene_mirror(&scene, mode, 1);
    scene.request.death_signal = SIGTERM;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "pid 1");
    CHECK_SAYS(text, "death signal %d", SIGTERM);
}

TEST_BOTH_WAYS(from_a_parent_in_another_pid_namespace_nothing_is_concluded)
{
    skip_unless_root();
    run_apart(spawn_into_a_pid_namespace, (void *)mode);
}

/* --- identity --------------------------------------------------------------------------------- */

TEST_WITH_IDENTITY(too_many_groups_are_reported)
{
    static uint32_t groups[65537];
    begin(mode);
    scene_identity(&scene, 65534, 65534);
    scene.request.groups = groups;
    scene.request.group_count = 65537;
    must_fail(PR_STAGE_SETGROUPS, EINVAL, -1);
}

static void want_another_identity(void *opaque)
{
    int stage = *(int *)opaque;
    if (geteuid() == 0)
        CHECK_INT(setresuid(65534, 65534, 65534), 0);
    begin(NULL);
    scene_identity(&scene, 1, stage == PR_STAGE_SETGID ? 1 : getgid());
    must_fail(stage, EPERM, -1);
}

TEST(an_identity_without_the_right_is_reported)
{
    int stage = PR_STAGE_SETGID;
    if (getgid() == 1)
        skip("gid 1 is our own");
    run_apart(want_another_identity, &stage);
    stage = PR_STAGE_SETGROUPS;
    run_apart(want_another_identity, &stage);
}

TEST(a_refused_user_is_reported)
{
    skip_unless_root();
    begin(NULL);
    scene.request.launcher = NULL;
    scene_identity(&scene, 65534, 65534);
    twin_fail(SYS_setresuid, 1, EAGAIN);
    must_fail(PR_STAGE_SETUID, EAGAIN, -1);
}

/* The launcher is another program: its twin takes its orders from the environment. */
static void begin_with_launcher_twin(const char *rule)
{
    skip_unless_root();
    skip_unless_features(PR_FEATURE_HELPER);
    begin(NULL);
    scene.request.launcher = launcher_twin_path;
    scene_identity(&scene, 65534, 65534);
    scene_environment(&scene, "OTHER=1");
    scene_environment(&scene, rule);
}

static void launcher_must_fail(long number, int nth, int error, int stage)
{
    char rule[64];
    snprintf(rule, sizeof rule, "TWIN=%ld:%d:%d:0", number, nth, -error);
    begin_with_launcher_twin(rule);
    scene.request.death_signal = SIGTERM;
    scene.request.flags |= PR_FLAG_NO_NEW_PRIVS;
    must_fail(stage, error, stage == PR_STAGE_EXEC ? 0 : -1);
}

TEST(every_stage_of_the_launcher_is_reported)
{
    launcher_must_fail(SYS_setresgid, 1, EPERM, PR_STAGE_SETGID);
    launcher_must_fail(SYS_setgroups, 1, EPERM, PR_STAGE_SETGROUPS);
    launcher_must_fail(SYS_setresuid, 1, EAGAIN, PR_STAGE_SETUID);
    launcher_must_fail(SYS_capset, 1, EPERM, PR_STAGE_SETUID);
    launcher_must_fail(SYS_prctl, 1, EINVAL, PR_STAGE_NO_NEW_PRIVS);
    launcher_must_fail(SYS_prctl, 2, EINVAL, PR_STAGE_DEATH_SIGNAL);
    launcher_must_fail(SYS_execve, 1, EIO, PR_STAGE_EXEC);
}

TEST(a_parent_that_died_before_the_launcher_came_is_reported)
{
    char rule[64];
    snprintf(rule, sizeof rule, "TWIN=%ld:1:1:0", (long)SYS_getppid);
    begin_with_launcher_twin(rule);
    scene.request.death_signal = SIGTERM;
    must_fail(PR_STAGE_DEATH_SIGNAL, ESRCH, -1);
}

/* No stage that is seen: what the launcher cannot do, a fork does. */
static void must_fork_instead(int error, bool for_good)
{
    uint32_t features = pr_features();
    skip_unless_features(PR_FEATURE_HELPER);
    begin(NULL);
    scene_identity(&scene, 65534, 65534);
    twin_fail(SYS_execve, 1, error);
    scene_start(&scene);
    CHECK(!(scene.result.mode & (PR_FEATURE_HELPER | PR_FEATURE_VFORK)));
    scene_must_exit(&scene, 0);
    CHECK_INT(pr_features(), for_good ? features & ~(uint32_t)PR_FEATURE_HELPER : features);
    twin_reset();
}

TEST(a_launcher_that_cannot_be_run_now_is_left_out_once)
{
    skip_unless_root();
    must_fork_instead(ENOMEM, false);
    must_fork_instead(EAGAIN, false);
    must_fork_instead(E2BIG, false);
    must_fork_instead(ETXTBSY, false);
}

TEST(a_launcher_that_cannot_be_run_is_not_tried_again)
{
    skip_unless_root();
    must_fork_instead(EACCES, true);
}

TEST(a_missing_launcher_is_not_tried_again)
{
    skip_unless_root();
    begin(NULL);
    scene_identity(&scene, 65534, 65534);
    scene.request.launcher = "/nowhere/launch";
    scene_start(&scene);
    scene_must_exit(&scene, 0);
    CHECK(!(pr_features() & PR_FEATURE_HELPER));
}

/* --- exec ------------------------------------------------------------------------------------- */

static const struct mode every_way[] = {
    {"by vfork", 0, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by the launcher", 0, true},
    {"identity by fork", PR_FEATURE_HELPER, true},
    {0},
};

static void exec_must_fail(const struct mode *mode, const char *path, int error)
{
    scene_begin(&scene, mode, path);
    must_fail(PR_STAGE_EXEC, error, 0);
}

static void exec_of_script_must_fail(const struct mode *mode, const char *path)
{
    int script = open(path, O_WRONLY | O_CLOEXEC);
    CHECK_INT(write(script, "#!/nowhere/interpreter\n", 23), 23);
    exec_must_fail(mode, path, ETXTBSY); /* still open for writing, by us */
    close(script);
    exec_must_fail(mode, path, ENOENT);
}

TEST_IN_MODES(each_reason_why_a_program_cannot_be_run_is_reported, every_way)
{
    char directory[] = "/tmp/procreactor-XXXXXX", path[256], loop[256], *longest;
    CHECK(mkdtemp(directory) != NULL);
    CHECK_INT(chmod(directory, 0755), 0);
    exec_must_fail(mode, "/nowhere/program", ENOENT);
    exec_must_fail(mode, "/etc/passwd/program", ENOTDIR);
    exec_must_fail(mode, "/etc/passwd", EACCES);
    exec_must_fail(mode, "/usr", EACCES);
    exec_must_fail(mode, "", ENOENT);

    snprintf(path, sizeof path, "%s/program", directory);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755));
    exec_must_fail(mode, path, ENOEXEC);
    if (!is_under_valgrind()) /* which runs scripts itself */
        exec_of_script_must_fail(mode, path);
    snprintf(loop, sizeof loop, "%s/loop", directory);
    CHECK_INT(symlink(loop, loop), 0);
    exec_must_fail(mode, loop, ELOOP);

    longest = malloc(4100);
    memset(longest, 'x', 4099);
    longest[0] = '/', longest[4099] = 0;
    exec_must_fail(mode, longest, ENAMETOOLONG);
    free(longest);
    unlink(path);
    unlink(loop);
    rmdir(directory);
}

TEST_IN_MODES(an_argument_that_is_too_long_is_reported, every_way)
{
    enum { TOO_LONG = 1 << 17 }; /* MAX_ARG_STRLEN, with its NUL */
    skip_under_valgrind("an exec that is refused late is an end");
    char *argument = malloc(TOO_LONG + 1);
    memset(argument, 'x', TOO_LONG);
    argument[TOO_LONG] = 0;
    scene_begin(&scene, mode, "/bin/true");
    scene.request.argv = (struct pr_strings){argument, TOO_LONG + 1, 1};
    must_fail(PR_STAGE_EXEC, E2BIG, 0);
    free(argument);
}

TEST_IN_MODES(of_several_candidates_the_first_that_says_more_than_not_there_decides, every_way)
{
    scene_begin(&scene, mode, "/nowhere/a");
    scene_candidate(&scene, "/etc/passwd");
    scene_candidate(&scene, "/nowhere/b");
    scene_candidate(&scene, "/usr");
    must_fail(PR_STAGE_EXEC, EACCES, 1);
}

TEST_IN_MODES(of_several_candidates_that_are_not_there_the_first_decides, every_way)
{
    scene_begin(&scene, mode, "/nowhere/a");
    scene_candidate(&scene, "/etc/passwd/b");
    must_fail(PR_STAGE_EXEC, ENOENT, 0);
}

TEST(a_candidate_that_is_found_and_cannot_run_ends_the_search)
{
    scene_begin(&scene, NULL, "/etc/passwd");
    scene_candidate(&scene, "/bin/sh");
    scene_candidate(&scene, "/bin/true");
    twin_fail(SYS_execve, 2, EIO);
    must_fail(PR_STAGE_EXEC, EIO, 1);
}

TEST(a_program_that_stays_busy_is_reported)
{
    scene_begin(&scene, NULL, "/bin/true");
    twin_deny(SYS_execve, ETXTBSY);
    scene_must_fail(&scene, PR_STAGE_EXEC, ETXTBSY, 0);
    CHECK_INT(twin_count(SYS_execve), 4);
    CHECK_INT(twin_count(SYS_nanosleep), 3);
}

/* --- stopped ---------------------------------------------------------------------------------- */

/* The target user may signal the child from the change of identity on. */
TEST(a_child_that_is_stopped_before_it_has_become_the_program_is_killed)
{
    skip_unless_root();
    begin(NULL);
    scene.request.launcher = NULL;
    scene_identity(&scene, 65534, 65534);
    twin_raise(SYS_execve, 1, SIGSTOP);
    must_fail(PR_STAGE_STOPPED, ECANCELED, -1);
}

TEST(a_launcher_that_is_stopped_is_killed)
{
    char rule[64];
    snprintf(rule, sizeof rule, "TWIN=%ld:1:0:%d", (long)SYS_execve, SIGSTOP);
    begin_with_launcher_twin(rule);
    must_fail(PR_STAGE_STOPPED, ECANCELED, -1);
}

TEST(a_launcher_that_is_killed_has_started_and_its_status_tells)
{
    char rule[64];
    snprintf(rule, sizeof rule, "TWIN=%ld:1:0:%d", (long)SYS_execve, SIGKILL);
    begin_with_launcher_twin(rule);
    scene_start(&scene);
    struct pr_exit end = scene_end(&scene);
    CHECK_INT(end.code, CLD_KILLED);
    CHECK_INT(end.status, SIGKILL);
}

/* A case leads a group of its own in the session of the harness, so stops count there. */
static pid_t stopped_group;

static void go_on(void)
{
    kill(-stopped_group, SIGCONT);
}

static const struct mode stopped_ways[] = {
    {"default", 0, false},
    {"without clone3", PR_FEATURE_CLONE3, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"identity by fork", PR_FEATURE_HELPER, true},
    {0},
};

static void must_be_made_anew(const struct mode *mode, int signal, long call)
{
    struct guard guard;
    guard_begin(&guard, go_on);
    scene_shell(&scene, mode, "echo on");
    scene.request.cwd = "/";
    twin_reset();
    twin_add((struct twin_rule){TWIN_CHILD, call, 1, 0, signal});
    CHECK_TEXT(scene_run(&scene), "on\n");
    CHECK_INT(twin_count(SYS_chdir), 2);
    guard_end(&guard);
}

/* Its parent is in the same group, and could not stop while it waits for the exec. */
TEST_IN_MODES(a_child_that_a_terminal_stops_before_its_exec_is_made_anew, stopped_ways)
{
    skip_under_valgrind("a signal is kept from us");
    stopped_group = getpgrp();
    must_be_made_anew(mode, SIGTSTP, SYS_execve);
    must_be_made_anew(mode, SIGTTIN, SYS_execve);
    must_be_made_anew(mode, SIGTTOU, SYS_execve);
    must_be_made_anew(mode, SIGTSTP, SYS_rt_sigprocmask);
    must_be_made_anew(mode, SIGTSTP, SYS_chdir); /* pending until the mask is opened */
}

/* Its core dump would kill its parent as well, before Linux 5.16. */
TEST(a_child_that_shares_our_memory_dumps_no_core_at_a_terminals_quit)
{
    skip_under_valgrind("a signal is kept from us");
    skip_unless_features(PR_FEATURE_VFORK);
    signal(SIGQUIT, SIG_IGN); /* as a host that has a handler */
    must_be_made_anew(NULL, SIGQUIT, SYS_execve);
    must_be_made_anew(NULL, SIGQUIT, SYS_chdir);
}

/* The program is to have it, and there is nothing to wait for. */
TEST(a_stop_that_is_blocked_is_still_there_in_the_program)
{
    skip_under_valgrind("a signal is kept from us");
    scene_begin(&scene, NULL, "/bin/cat");
    scene_argument(&scene, proc_path("self/status"));
    scene_map(&scene, 1, PR_WE_READ);
    scene.request.flags |= PR_FLAG_SIGMASK;
    scene.request.signal_mask = UINT64_C(1) << (SIGTSTP - 1);
    twin_raise(SYS_execve, 1, SIGTSTP);
    const char *status = scene_run(&scene);
    CHECK_SAYS(status, "SigBlk:\t0000000000080000");
    CHECK_SAYS(status, "SigPnd:\t0000000000080000");
    CHECK_INT(twin_count(SYS_execve), 1);
}

/* In a session of its own, as on a terminal of its own, it is in no group that could be stopped: the kernel
 * drops the signal. */
TEST(a_terminals_stop_is_nothing_to_a_child_in_a_session_of_its_own)
{
    struct guard guard;
    guard_begin(&guard, go_on);
    stopped_group = getpgrp();
    scene_shell(&scene, NULL, "echo on");
    scene.request.flags |= PR_FLAG_SESSION;
    twin_raise(SYS_execve, 1, SIGTSTP);
    CHECK_TEXT(scene_run(&scene), "on\n");
    CHECK_INT(twin_count(SYS_execve), 1);
    guard_end(&guard);
}

/* Its new owner may do that as often as he likes. */
TEST(a_launcher_that_is_stopped_again_and_again_is_given_up)
{
    char rule[64];
    snprintf(rule, sizeof rule, "TWIN=%ld:1:0:%d", (long)SYS_execve, SIGTSTP);
    begin_with_launcher_twin(rule);
    must_fail(PR_STAGE_STOPPED, ECANCELED, -1);
}

/* What the program does is its own business, also when it is quick. */
TEST_IN_MODES(a_program_that_stops_itself_is_not_killed, by_identity)
{
    siginfo_t info;
    for (int i = 0; i < 10; i++) {
        scene_shell(&scene, mode, "kill -STOP $$; echo on");
        scene_start(&scene);
        CHECK_INT(waitid(P_PID, (id_t)scene.result.pid, &info, WSTOPPED), 0);
        CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGCONT), 0);
        CHECK_TEXT(scene_read(&scene, 0), "on\n");
        scene_must_exit(&scene, 0);
    }
}

/* There the child has our own rights, nobody can stop it, and its number may be another's by now. */
TEST(after_a_failed_start_by_vfork_nobody_is_signalled)
{
    skip_unless_features(PR_FEATURE_VFORK);
    scene_begin(&scene, NULL, "/nowhere");
    scene_must_fail(&scene, PR_STAGE_EXEC, ENOENT, 0);
    CHECK_INT(twin_count(SYS_pidfd_send_signal) + twin_count(SYS_kill), 0);
}

/* By a sandbox that was entered since: then the wait is for its number.  (After a fork that takes its
 * time other waits come before, which ask whether it is stopped.) */
TEST(a_failed_child_whose_pidfd_may_not_be_waited_for_leaves_no_zombie)
{
    skip_unless_features(PR_FEATURE_PIDFD | PR_FEATURE_VFORK);
    scene_begin(&scene, NULL, "/nowhere");
    twin_fail(SYS_waitid, 1, EPERM);
    scene_must_fail(&scene, PR_STAGE_EXEC, ENOENT, 0);
    CHECK(twin_count(SYS_waitid) >= 2); /* a fork that takes its time is looked at, too */
}

/* Root without CAP_KILL is refused; waiting for the child would be for ever. */
TEST(a_stopped_child_that_cannot_be_killed_is_handed_over)
{
    skip_unless_root();
    begin(NULL);
    scene.request.launcher = NULL;
    scene_identity(&scene, 65534, 65534);
    twin_raise(SYS_execve, 1, SIGSTOP);
    twin_deny(SYS_pidfd_send_signal, EPERM);
    twin_add((struct twin_rule){TWIN_PARENT, SYS_kill, 0, -EPERM, 0});
    scene_start(&scene);
    twin_reset();
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGKILL), 0);
    CHECK_INT(scene_end(&scene).status, SIGKILL);
}
