/* Children that start, in every mode: from outside, one mode is like the other. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

#define TEST_IN_EVERY_MODE(name) TEST_IN_MODES(name, every_mode)

static struct scene scene;

/* The bits of a status line of the mirror, say of "SigIgn". */
static uint64_t bits_of(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    CHECK(at != NULL);
    return strtoull(at + strlen(line) + 1, NULL, 16);
}

static uint64_t bit_of(int number)
{
    return UINT64_C(1) << (number - 1);
}

/* --- the mode itself -------------------------------------------------------------------------- */

TEST_IN_EVERY_MODE(the_result_names_the_features_that_were_used)
{
    scene_begin(&scene, mode, "/bin/true");
    scene_start(&scene);
    uint32_t usable = pr_features(), always = PR_FEATURE_PIDFD | PR_FEATURE_CLOSE_RANGE;
    bool forks = !(usable & PR_FEATURE_VFORK)
                 || (mode->identity && !(usable & PR_FEATURE_HELPER));
    uint32_t wanted = usable & ~(uint32_t)PR_FEATURE_HELPER;
    if (forks)
        wanted = usable & always;
    else if (mode->identity)
        wanted |= PR_FEATURE_HELPER;
    CHECK_INT(usable & mode->disabled, 0);
    CHECK_INT(scene.result.mode, wanted);
    CHECK_INT(scene.result.pidfd >= 0, !!(usable & PR_FEATURE_PIDFD));
    scene_must_exit(&scene, 0);
}

/* --- pipes ------------------------------------------------------------------------------------ */

TEST_IN_EVERY_MODE(a_child_reads_and_writes_its_pipes_and_exits_with_its_code)
{
    scene_shell(&scene, mode, "read word; echo got $word; echo wrong >&2; exit 7");
    int in = scene_map(&scene, 0, PR_WE_WRITE), errors = scene_map(&scene, 2, PR_WE_READ);
    scene_start(&scene);
    CHECK_INT(write(scene.ours[in], "this\n", 5), 5);
    CHECK_TEXT(scene_read(&scene, 0), "got this\n");
    CHECK_TEXT(scene_read(&scene, errors), "wrong\n");
    scene_must_exit(&scene, 7);
}

TEST_IN_EVERY_MODE(two_fds_may_be_one_pipe)
{
    scene_shell(&scene, mode, "echo one; echo two >&2; echo three; exec >&-; echo four >&2");
    int errors = scene_map(&scene, 2, PR_AS_STDOUT);
    scene_start(&scene);
    CHECK_INT(scene.ours[errors], -1);
    CHECK_TEXT(scene_read(&scene, 0), "one\ntwo\nthree\nfour\n");
    scene_must_exit(&scene, 0);
}

TEST_IN_EVERY_MODE(the_end_of_a_pipe_is_seen_while_the_child_lives_on)
{
    scene_shell(&scene, mode, "exec >&-; read word");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    CHECK_TEXT(scene_read(&scene, 0), "");
    CHECK_INT(write(scene.ours[in], "on\n", 3), 3);
    scene_must_exit(&scene, 0);
}

TEST_IN_EVERY_MODE(the_childs_ends_block)
{
    char script[600];
    snprintf(script, sizeof script, "cd %s && cat 0 1", proc_path("self/fdinfo"));
    scene_shell(&scene, mode, script);
    scene_map(&scene, 0, PR_WE_WRITE);
    const char *text = scene_run(&scene), *second = strstr(text + 1, "pos:");
    unsigned flags_in = O_NONBLOCK, flags_out = O_NONBLOCK;
    CHECK(second && sscanf(strstr(text, "flags:"), "flags: %o", &flags_in) == 1);
    CHECK(sscanf(strstr(second, "flags:"), "flags: %o", &flags_out) == 1);
    CHECK(!(flags_in & O_NONBLOCK) && !(flags_out & O_NONBLOCK));
}

/* --- fds -------------------------------------------------------------------------------------- */

static void check_fds_of(const char *text, const struct scene *spawned)
{
    int lines = 0;
    for (const char *at = text; (at = strstr(at, "fd ")); at++)
        lines += at == text || at[-1] == '\n';
    CHECK_INT(lines, (int)spawned->request.fd_count - 1); /* the mirror leaves out its own */
    for (uint32_t i = 1; i < spawned->request.fd_count; i++)
        if (!says(text, "%s", fd_line(spawned->child_fds[i], spawned->sources[i])))
            FAIL("child fd %d is not our fd %d", spawned->child_fds[i], spawned->sources[i]);
}

TEST_IN_EVERY_MODE(a_child_has_the_mapped_fds_and_no_other)
{
    for (int fd = 70; fd < 120; fd += 1 + fd % 3)
        open_at(fd, fd % 2);
    open_at(800, false);
    scene_mirror(&scene, mode, 9);
    scene_map(&scene, 0, 800);
    scene_map(&scene, 4, 70);
    scene_map(&scene, 70, 70);
    scene_map(&scene, 200, 2);
    scene_start(&scene);
    check_fds_of(scene_read(&scene, 0), &scene);
    scene_must_exit(&scene, 0);
    CHECK_INT(fcntl(70, F_GETFD), 0);
    for (int fd = 70; fd < 120; fd += 1 + fd % 3)
        close(fd);
    close(800);
}

TEST_IN_EVERY_MODE(an_fd_mapped_onto_itself_is_inherited_and_stays_close_on_exec_here)
{
    open_at(40, true);
    scene_mirror(&scene, mode, 9);
    scene_map(&scene, 40, 40);
    check_fds_of(scene_run(&scene), &scene);
    CHECK_INT(fcntl(40, F_GETFD), FD_CLOEXEC);
    close(40);
}

TEST_IN_EVERY_MODE(a_file_table_without_proc_is_swept)
{
    open_at(100, false);
    open_at(800, false);
    twin_deny(SYS_getdents64, EACCES);
    scene_mirror(&scene, mode, 9);
    scene_map(&scene, 1, 100);
    check_fds_of(scene_run(&scene), &scene);
    close(100);
    close(800);
}

TEST_IN_EVERY_MODE(fds_above_a_lowered_limit_are_closed_too)
{
    struct rlimit whole, lowered;
    open_at(300, false);
    getrlimit(RLIMIT_NOFILE, &whole);
    lowered = (struct rlimit){100, whole.rlim_max};
    scene_mirror(&scene, mode, 9);
    setrlimit(RLIMIT_NOFILE, &lowered);
    const char *text = scene_run(&scene);
    setrlimit(RLIMIT_NOFILE, &whole);
    check_fds_of(text, &scene);
    close(300);
}

static void spawn_every_map(void *opaque)
{
    const struct mode *mode = opaque;
    for (int fd = 1; fd < 4; fd++)
        open_at(fd, true);
    const int step = is_under_valgrind() ? 11 : 1;
    for (int map = 0; map < 4 * 4 * 4 * 4; map += step) {
        scene_mirror(&scene, mode, 9);
        for (int target = 0; target < 4; target++)
            scene_map(&scene, target, map >> 2 * target & 3);
        check_fds_of(scene_run(&scene), &scene);
    }
}

/* The model of test_fdplan.c holds for numbers; here the kernel has the last word. */
TEST_IN_MODES(every_map_of_four_fds_is_what_the_child_has, main_modes)
{
    run_apart(spawn_every_map, (void *)mode);
}

static void spawn_without_stdio(const struct mode *mode, int closed)
{
    struct fd_list *before = malloc(sizeof *before);
    for (int fd = 0; fd < 3; fd++)
        if (closed & 1 << fd)
            close(fd);
    list_fds(before);
    scene_shell(&scene, mode, "cat; echo err >&2");
    int in = scene_map(&scene, 0, PR_WE_WRITE), errors = scene_map(&scene, 2, PR_WE_READ);
    scene_start(&scene);
    CHECK_INT(write(scene.ours[in], "out\n", 4), 4);
    close(scene.ours[in]);
    scene.ours[in] = -1;
    CHECK_TEXT(scene_read(&scene, 0), "out\n");
    CHECK_TEXT(scene_read(&scene, errors), "err\n");
    scene_must_exit(&scene, 0);
    check_same_fds(before);
    free(before);
}

struct without_stdio {
    const struct mode *mode;
    int closed;
};

static void spawn_without_stdio_apart(void *opaque)
{
    const struct without_stdio *what = opaque;
    spawn_without_stdio(what->mode, what->closed);
}

TEST_IN_EVERY_MODE(pipes_may_land_on_a_closed_stdio)
{
    for (int closed = 0; closed < 8; closed++) {
        struct without_stdio what = {mode, closed};
        run_apart(spawn_without_stdio_apart, &what);
    }
}

/* --- signals ---------------------------------------------------------------------------------- */

static void do_nothing(int number)
{
    (void)number;
}

TEST_IN_EVERY_MODE(a_child_ignores_and_handles_no_signal_and_inherits_the_mask)
{
    uint64_t mask = bit_of(SIGUSR1) | bit_of(SIGTERM) | bit_of(40), before = current_mask();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(64, SIG_IGN);
    signal(SIGUSR2, do_nothing);
    signal(40, do_nothing);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    scene_mirror(&scene, mode, 1);
    const char *text = scene_run(&scene);
    CHECK_INT(bits_of(text, "SigBlk:"), mask);
    CHECK_INT(bits_of(text, "SigIgn:"), 0);
    CHECK_INT(bits_of(text, "SigCgt:"), 0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
}

/* Where the clone does not clear handlers, all are reset, whatever was said. */
TEST_IN_EVERY_MODE(a_child_resets_what_is_said_to_be_ignored)
{
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(64, SIG_IGN);
    signal(SIGUSR2, do_nothing);
    scene_mirror(&scene, mode, 1);
    scene.request.flags |= PR_FLAG_IGNORED;
    scene.request.ignored_signals = bit_of(SIGHUP) | bit_of(64) | bit_of(SIGKILL);
    const char *text = scene_run(&scene);
    uint64_t left = pr_ignored_signals() & ~scene.request.ignored_signals;
    CHECK(left & bit_of(SIGUSR1));
    CHECK_INT(bits_of(text, "SigIgn:"), scene.result.mode & PR_FEATURE_CLONE3 ? left : 0);
    CHECK_INT(bits_of(text, "SigCgt:"), 0);
}

TEST(what_this_process_ignores_is_told)
{
    skip_under_valgrind("a signal is kept from us");
    signal(SIGHUP, SIG_DFL); /* nohup may have started us */
    uint64_t before = pr_ignored_signals();
    CHECK(!(before & (bit_of(SIGHUP) | bit_of(64) | bit_of(SIGUSR2))));
    signal(SIGHUP, SIG_IGN);
    signal(64, SIG_IGN);
    signal(SIGUSR2, do_nothing);
    CHECK_INT(pr_ignored_signals(), before | bit_of(SIGHUP) | bit_of(64));
}

TEST_IN_EVERY_MODE(a_child_takes_the_mask_that_is_asked_for)
{
    scene_mirror(&scene, mode, 1);
    scene.request.flags |= PR_FLAG_SIGMASK;
    scene.request.signal_mask = bit_of(SIGINT) | bit_of(33) | bit_of(64);
    CHECK_INT(bits_of(scene_run(&scene), "SigBlk:"), scene.request.signal_mask);
}

static volatile int *strangers; /* how often the handler ran in another process than ours */
static int our_pid;

static void note_strangers(int number)
{
    (void)number;
    if (syscall(SYS_getpid) != our_pid)
        __atomic_add_fetch(strangers, 1, __ATOMIC_SEQ_CST);
}

/* As a host does that waits for it with sigwait or a signalfd, or that has a handler which is not
 * to run just now. */
TEST_IN_EVERY_MODE(a_sigchld_that_the_caller_has_blocked_stays_pending)
{
    sigset_t only_sigchld, before, pending;
    const struct timespec no_wait = {0, 0};
    sigemptyset(&only_sigchld);
    sigaddset(&only_sigchld, SIGCHLD);
    signal(SIGCHLD, SIG_DFL);
    CHECK_INT(sigprocmask(SIG_BLOCK, &only_sigchld, &before), 0);
    kill(getpid(), SIGCHLD);
    scene_begin(&scene, mode, "/bin/cat"); /* lives, and so sends none of its own */
    scene_map(&scene, 1, 1);
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    CHECK_INT(sigpending(&pending), 0);
    CHECK(sigismember(&pending, SIGCHLD));
    close(scene.ours[in]);
    scene.ours[in] = -1;
    scene_must_exit(&scene, 0);
    while (sigtimedwait(&only_sigchld, NULL, &no_wait) == SIGCHLD)
        ;
    CHECK_INT(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

TEST_IN_EVERY_MODE(no_handler_of_ours_ever_runs_in_a_child)
{
    const struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    strangers = mmap(NULL, sizeof *strangers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                     -1, 0);
    our_pid = getpid();
    signal(SIGALRM, note_strangers);
    signal(SIGUSR1, note_strangers);
    signal(SIGCHLD, note_strangers); /* which is open where the child has no handlers */
    for (int i = 0; i < rounds(20); i++) {
        scene_begin(&scene, mode, "/bin/true");
        twin_raise(SYS_rt_sigaction, 1, SIGUSR1); /* at the child, when it still has our handlers */
        twin_raise(SYS_rt_sigaction, 1, SIGCHLD);
        setitimer(ITIMER_REAL, &often, NULL);
        int code = scene_spawn(&scene);
        setitimer(ITIMER_REAL, &never, NULL);
        CHECK_INT(code, 0);
        scene_end(&scene);
        twin_reset();
    }
    CHECK_INT(*strangers, 0);
    munmap((void *)strangers, sizeof *strangers);
}

TEST_IN_EVERY_MODE(a_child_killed_before_exec_has_started_and_its_status_tells)
{
    scene_begin(&scene, mode, "/bin/true");
    scene_map(&scene, 1, PR_WE_READ);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_dup3, 1, 0, SIGKILL});
    scene_start(&scene);
    CHECK_TEXT(scene_read(&scene, 0), "");
    struct pr_exit end = scene_end(&scene);
    CHECK_INT(end.code, CLD_KILLED);
    CHECK_INT(end.status, SIGKILL);
}

TEST_IN_EVERY_MODE(a_signal_held_back_until_the_mask_is_set_ends_the_child)
{
    scene_begin(&scene, mode, "/bin/true");
    scene_map(&scene, 1, PR_WE_READ);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_dup3, 1, 0, SIGTERM});
    scene_start(&scene);
    struct pr_exit end = scene_end(&scene);
    CHECK_INT(end.code, CLD_KILLED);
    CHECK_INT(end.status, SIGTERM);
}

/* --- state ------------------------------------------------------------------------------------ */

TEST_IN_EVERY_MODE(arguments_and_environment_arrive_as_they_were)
{
    scene_mirror(&scene, mode, 1);
    scene_argument(&scene, "0");
    scene_argument(&scene, "");
    scene_argument(&scene, "two words \xff");
    scene_environment(&scene, "A=b=c");
    scene_environment(&scene, "EMPTY=");
    const char *text = scene_run(&scene);
    CHECK(strstr(text, "argument 0\nargument \nargument two words \xff\nenvironment A=b=c\n"
                       "environment EMPTY=\npid "));
}

TEST_IN_EVERY_MODE(an_empty_environment_is_empty)
{
    scene_mirror(&scene, mode, 1);
    scene.request.env = (struct pr_strings){0}; /* also without what tells it where /proc is */
    CHECK(!strstr(scene_run(&scene), "environment"));
}

TEST_IN_EVERY_MODE(directory_umask_limits_niceness_and_flags_are_set)
{
    const struct pr_rlimit limits[] = {{RLIMIT_CORE, 0, 4096}, {RLIMIT_NOFILE, 50, 60}};
    int niceness = getpriority(PRIO_PROCESS, 0);
    skip_under_valgrind("the limit of fds is not the kernel's");
    scene_mirror(&scene, mode, 1);
    scene.request.cwd = "/usr/bin/..";
    scene.request.rlimits = limits;
    scene.request.rlimit_count = 2;
    scene.request.nice = 3;
    scene.request.umask = 0027;
    scene.request.death_signal = SIGUSR2;
    scene.request.flags |= PR_FLAG_UMASK | PR_FLAG_NO_NEW_PRIVS;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "directory /usr");
    CHECK_SAYS(text, "limit core 0:4096");
    CHECK_SAYS(text, "limit nofile 50:60");
    CHECK_SAYS(text, "nice %d", niceness + 3 < 19 ? niceness + 3 : 19);
    CHECK_SAYS(text, "umask 27");
    CHECK_SAYS(text, "death signal %d", SIGUSR2);
    CHECK_SAYS(text, "NoNewPrivs:\t1");
}

static void write_state(char *text, size_t size)
{
    char directory[256];
    struct rlimit files;
    int death_signal = -1;
    mode_t mask = umask(0);
    umask(mask);
    getrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_GET_PDEATHSIG, &death_signal);
    snprintf(text, size, "%s umask %o files %llu nice %d group %d session %d uid %d dumpable %d "
             "privileges %d death signal %d", getcwd(directory, sizeof directory), mask,
             (unsigned long long)files.rlim_cur, getpriority(PRIO_PROCESS, 0), getpgrp(), getsid(0),
             geteuid(), prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
             death_signal);
}

TEST_IN_EVERY_MODE(nothing_of_the_parent_changes)
{
    char before[512], after[512];
    const struct pr_rlimit limit = {RLIMIT_NOFILE, 50, 60};
    skip_under_valgrind("the limit of fds is not the kernel's");
    write_state(before, sizeof before);
    scene_begin(&scene, mode, "/bin/true");
    scene.request.cwd = "/usr";
    scene.request.rlimits = &limit;
    scene.request.rlimit_count = 1;
    scene.request.nice = 3;
    scene.request.umask = 0027;
    scene.request.death_signal = SIGUSR2;
    scene.request.flags |= PR_FLAG_UMASK | PR_FLAG_NO_NEW_PRIVS | PR_FLAG_SESSION;
    if (mode->identity)
        scene_identity(&scene, 65534, 65534);
    scene_start(&scene);
    scene_must_exit(&scene, 0);
    write_state(after, sizeof after);
    CHECK_TEXT(after, before);
}

TEST_IN_EVERY_MODE(without_being_asked_a_child_keeps_what_its_parent_has)
{
    scene_mirror(&scene, mode, 1);
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "group %d", getpgrp());
    CHECK_SAYS(text, "session %d", getsid(0));
    CHECK_SAYS(text, "death signal 0");
    CHECK_SAYS(text, "NoNewPrivs:\t0");
}

TEST_IN_EVERY_MODE(a_child_may_lead_a_new_session)
{
    scene_mirror(&scene, mode, 1);
    scene.request.flags |= PR_FLAG_SESSION;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "session %d", scene.result.pid);
    CHECK_SAYS(text, "group %d", scene.result.pid);
    CHECK_SAYS(text, "foreground -1");
}

TEST_IN_EVERY_MODE(a_child_may_lead_a_new_process_group)
{
    scene_mirror(&scene, mode, 1);
    scene.request.flags |= PR_FLAG_GROUP;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "session %d", getsid(0));
    CHECK_SAYS(text, "group %d", scene.result.pid);
}

TEST_IN_EVERY_MODE(a_child_may_join_a_process_group)
{
    struct scene *leader = calloc(1, sizeof *leader);
    scene_shell(leader, mode, "read word");
    int in = scene_map(leader, 0, PR_WE_WRITE);
    leader->request.flags |= PR_FLAG_GROUP;
    scene_start(leader);
    scene_mirror(&scene, mode, 1);
    scene.request.flags |= PR_FLAG_GROUP;
    scene.request.process_group = leader->result.pid;
    CHECK_SAYS(scene_run(&scene), "group %d", leader->result.pid);
    CHECK_INT(write(leader->ours[in], "\n", 1), 1);
    scene_must_exit(leader, 0);
    free(leader);
}

TEST_IN_EVERY_MODE(a_terminal_becomes_the_childs_own)
{
    int fds[2], stage;
    CHECK_INT(pr_open_pty(24, 80, fds, &stage), 0);
    scene_mirror(&scene, mode, 7);
    scene_map(&scene, 0, fds[1]);
    scene_map(&scene, 1, fds[1]);
    scene_map(&scene, 2, fds[1]);
    scene.request.flags |= PR_FLAG_SESSION;
    scene.request.tty_fd = 0;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "session %d", scene.result.pid);
    CHECK_SAYS(text, "foreground %d", scene.result.pid);
    close(fds[0]);
    close(fds[1]);
}

/* --- exec ------------------------------------------------------------------------------------- */

TEST_IN_EVERY_MODE(candidates_are_tried_in_order_until_one_is_there)
{
    scene_begin(&scene, mode, "/nowhere/sh");
    scene_candidate(&scene, "/etc/passwd/sh"); /* ENOTDIR */
    scene_candidate(&scene, "/etc/passwd");    /* EACCES, and the search goes on */
    scene_candidate(&scene, "/bin/sh");
    scene_candidate(&scene, "/bin/false");
    scene_argument(&scene, "-c");
    scene_argument(&scene, "exit 5");
    scene_start(&scene);
    scene_must_exit(&scene, 5);
}

TEST_IN_EVERY_MODE(a_program_that_is_busy_for_a_moment_is_waited_for)
{
    scene_begin(&scene, mode, "/bin/true");
    twin_fail(SYS_execve, 1, ETXTBSY);
    scene_start(&scene);
    scene_must_exit(&scene, 0);
}
