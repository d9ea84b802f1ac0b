/* How a child ended, signals to it until then, and other code that reaps what is not its own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static struct scene scene;

static const struct mode pidfds[] = {
    {"by pidfd", 0, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {0},
};
#define TEST_BOTH_WAYS(name) TEST_IN_MODES(name, pidfds)

/* A child that lives until its standard input ends. */
static void start_waiting_child(const struct mode *mode)
{
    scene_begin(&scene, mode, "/bin/cat");
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_map(&scene, 1, 1);
    scene_start(&scene);
}

static int reap(struct pr_exit *end)
{
    memset(end, 0x55, sizeof *end);
    return pr_reap(scene.result.pidfd, scene.result.pid, end);
}

static void close_scene(void)
{
    if (scene.result.pidfd >= 0)
        close(scene.result.pidfd);
    for (uint32_t i = 0; i < scene.request.fd_count; i++)
        if (scene.ours[i] >= 0)
            close(scene.ours[i]);
}

/* --- status ----------------------------------------------------------------------------------- */

TEST_BOTH_WAYS(exit_codes_arrive)
{
    const char *const scripts[] = {"exit 0", "exit 1", "exit 127", "exit 255"};
    const int codes[] = {0, 1, 127, 255};
    for (int i = 0; i < 4; i++) {
        scene_shell(&scene, mode, scripts[i]);
        scene_start(&scene);
        scene_must_exit(&scene, codes[i]);
    }
}

TEST_BOTH_WAYS(the_signal_that_ended_a_child_arrives)
{
    skip_under_valgrind("a signal is kept from us");
    const int numbers[] = {SIGTERM, SIGKILL, SIGHUP, 34, 64};
    for (int i = 0; i < 5; i++) {
        start_waiting_child(mode);
        CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, numbers[i]), 0);
        struct pr_exit end = scene_end(&scene);
        CHECK_INT(end.code, CLD_KILLED);
        CHECK_INT(end.status, numbers[i]);
    }
}

TEST_BOTH_WAYS(a_child_that_runs_has_not_ended)
{
    struct pr_exit end;
    start_waiting_child(mode);
    CHECK_INT(reap(&end), 0);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, 0), 0);
    CHECK_INT(scene_end(&scene).code, CLD_EXITED);
}

/* A sandbox may be entered while there are children. */
TEST(a_wait_by_pidfd_that_is_denied_later_is_made_by_number)
{
    const int denials[] = {ENOSYS, EPERM};
    struct pr_exit end;
    skip_unless_features(PR_FEATURE_PIDFD);
    for (size_t i = 0; i < sizeof denials / sizeof *denials; i++) {
        start_waiting_child(NULL);
        twin_reset();
        twin_fail(SYS_waitid, 1, denials[i]);
        CHECK_INT(reap(&end), 0);
        CHECK_INT(twin_count(SYS_waitid), 2);
        twin_reset();
        scene_must_exit(&scene, 0);
    }
}

TEST_BOTH_WAYS(a_child_that_is_stopped_has_not_ended)
{
    struct pr_exit end;
    siginfo_t info;
    start_waiting_child(mode);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGSTOP), 0);
    CHECK_INT(waitid(P_PID, (id_t)scene.result.pid, &info, WSTOPPED | WNOWAIT), 0);
    CHECK_INT(reap(&end), 0);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGCONT), 0);
    CHECK_INT(reap(&end), 0);
    scene_must_exit(&scene, 0);
}

TEST_BOTH_WAYS(what_a_child_used_arrives)
{
    scene_shell(&scene, mode, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    scene_start(&scene);
    struct pr_exit end = scene_end(&scene);
    CHECK(end.max_rss_kib > 100 && end.max_rss_kib < 1 << 20);
    CHECK(end.user_us + end.system_us > 0);
    CHECK(end.minor_faults > 0);
    CHECK(end.major_faults >= 0 && end.block_reads >= 0 && end.block_writes >= 0);
    CHECK(end.voluntary_switches + end.involuntary_switches > 0);
}

TEST_BOTH_WAYS(an_end_can_be_waited_for_and_is_left_to_be_reaped)
{
    struct pr_exit end;
    scene_shell(&scene, mode, "exit 3");
    scene_start(&scene);
    twin_fail(SYS_waitid, 1, EINTR);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    CHECK_INT(reap(&end), 1);
    CHECK_INT(end.status, 3);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0); /* gone is ended */
    close_scene();
}

TEST_BOTH_WAYS(an_interrupted_reaping_is_made_again)
{
    struct pr_exit end;
    scene_shell(&scene, mode, "exit 3");
    scene_start(&scene);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_reset();
    twin_fail(SYS_waitid, 1, EINTR);
    CHECK_INT(pr_reap(scene.result.pidfd, scene.result.pid, &end), 1);
    CHECK_INT(end.status, 3);
    close_scene();
}

TEST(a_kernel_that_cannot_wait_for_a_pidfd_waits_for_the_pid)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    scene_shell(&scene, NULL, "exit 3");
    scene_start(&scene);
    twin_fail(SYS_waitid, 2, EINVAL); /* after the wait of pr_wait_exit */
    scene_must_exit(&scene, 3);
}

/* --- when the zombie is not for us yet -------------------------------------------------------- */

enum { NO_THREADS = 77 };

static void *end_last(void *unused)
{
    sleep(1000);
    return unused;
}

static void leave_threads_behind(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_last, NULL) == 0)
        pthread_exit(NULL);
    _exit(NO_THREADS);
}

/* The first thread of a process is a zombie as soon as it ends, and not to be reaped before the last. */
TEST(a_child_whose_first_thread_has_ended_has_not_ended)
{
    struct pr_exit end;
    pid_t pid = fork();
    if (pid == 0)
        leave_threads_behind();
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    char state[512] = "";
    while (!strstr(state, ") Z")) {
        int stat = open(proc_path("%d/stat", pid), O_RDONLY | O_CLOEXEC);
        CHECK(read(stat, state, sizeof state - 1) > 0);
        close(stat);
        if (pr_reap(pidfd, pid, &end) == 0)
            continue;
        CHECK_INT(end.status, NO_THREADS);
        skip("no threads to be had here");
    }
    CHECK_INT(pr_reap(pidfd, pid, &end), 0);
    CHECK_INT(pr_signal(pidfd, pid, SIGKILL), 0);
    CHECK_INT(pr_wait_exit(pid), 0);
    CHECK_INT(pr_reap(pidfd, pid, &end), 1);
    CHECK_INT(end.status, SIGKILL);
    close(pidfd);
}

/* strace -D and the like: the tracer learns of the end first. */
TEST(a_traced_child_has_not_ended_before_its_tracer_knows)
{
    struct pr_exit end;
    siginfo_t info;
    char byte = 0;
    int ready[2], leave[2];
    CHECK_INT(pipe2(ready, O_CLOEXEC), 0);
    CHECK_INT(pipe2(leave, O_CLOEXEC), 0);
    start_waiting_child(NULL);
    pid_t tracer = fork();
    if (tracer == 0) {
        long attached = ptrace(PTRACE_SEIZE, scene.result.pid, NULL, NULL);
        CHECK_INT(write(ready[1], attached == 0 ? "y" : "n", 1), 1);
        close(leave[1]);
        CHECK_INT(read(leave[0], &byte, 1), 0);
        _exit(0);
    }
    CHECK_INT(read(ready[0], &byte, 1), 1);
    if (byte == 'y') {
        struct pollfd polled = {.fd = scene.result.pidfd, .events = POLLIN};
        CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGKILL), 0);
        if (polled.fd >= 0)
            CHECK_INT(poll(&polled, 1, -1), 1);
        CHECK_INT(reap(&end), 0);
    }
    close(leave[1]);
    CHECK_INT(waitid(P_PID, (id_t)tracer, &info, WEXITED), 0);
    scene_end(&scene);
    close(ready[0]);
    close(ready[1]);
    close(leave[0]);
    if (byte != 'y')
        skip("may not trace");
}

/* --- other code that reaps -------------------------------------------------------------------- */

static void reap_as_other_code(void)
{
    int status;
    close(scene.ours[0]);
    scene.ours[0] = -1;
    CHECK_INT(waitpid(-1, &status, 0), scene.result.pid);
}

TEST(a_status_that_other_code_took_is_told_by_the_pidfd_or_lost)
{
    struct pr_exit end;
    start_waiting_child(NULL);
    reap_as_other_code();
    CHECK_INT(reap(&end), 1);
    CHECK(end.code == CLD_EXITED || end.code == 0); /* from Linux 6.15 on, the former */
    CHECK_INT(end.status, 0);
    CHECK_INT(end.user_us, 0);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGKILL), -ESRCH);
    close_scene();
}

TEST(a_signal_status_that_other_code_took_is_told_by_the_pidfd_or_lost)
{
    struct pr_exit end;
    start_waiting_child(NULL);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGTERM), 0);
    reap_as_other_code();
    CHECK_INT(reap(&end), 1);
    if (end.code)
        CHECK_INT(end.code, CLD_KILLED);
    CHECK_INT(end.status, end.code ? SIGTERM : 0);
    close_scene();
}

TEST_BOTH_WAYS(a_status_that_cannot_be_asked_for_is_lost)
{
    struct pr_exit end;
    start_waiting_child(mode);
    reap_as_other_code();
    twin_deny(SYS_ioctl, ENOTTY);
    CHECK_INT(reap(&end), 1);
    CHECK_INT(end.code, 0);
    CHECK_INT(end.status, 0);
    close_scene();
}

TEST_BOTH_WAYS(ignored_children_end_all_the_same)
{
    struct pr_exit end;
    int code;
    signal(SIGCHLD, SIG_IGN);
    start_waiting_child(mode);
    CHECK_INT(reap(&end), 0);
    close(scene.ours[0]);
    scene.ours[0] = -1;
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    while ((code = reap(&end)) == 0)
        ;
    CHECK_INT(code, 1);
    close_scene();
    signal(SIGCHLD, SIG_DFL);
}

TEST_BOTH_WAYS(with_children_ignored_a_failed_start_is_reported)
{
    signal(SIGCHLD, SIG_IGN);
    scene_begin(&scene, mode, "/nowhere");
    scene_must_fail(&scene, PR_STAGE_EXEC, ENOENT, 0);
    signal(SIGCHLD, SIG_DFL);
}

TEST(a_wait_that_fails_is_reported)
{
    struct pr_exit end;
    start_waiting_child(NULL);
    twin_deny(SYS_waitid, EFAULT);
    CHECK_INT(reap(&end), -EFAULT);
    twin_reset();
    scene_must_exit(&scene, 0);
}

/* --- no wait of any kind ---------------------------------------------------------------------- */

TEST(without_any_wait_a_pidfd_tells_the_end_and_nothing_of_it)
{
    const int refusals[] = {ENOSYS, EPERM};
    struct pr_exit end;
    siginfo_t info;
    skip_unless_features(PR_FEATURE_PIDFD);
    for (int i = 0; i < 2; i++) {
        start_waiting_child(NULL);
        struct pollfd polled = {.fd = scene.result.pidfd, .events = POLLIN};
        twin_deny(SYS_waitid, refusals[i]);
        CHECK_INT(reap(&end), 0);
        CHECK_INT(pr_signal_child(scene.result.pidfd, scene.result.pid, SIGTERM), 0);
        CHECK_INT(poll(&polled, 1, -1), 1);
        CHECK_INT(reap(&end), 1);
        CHECK_INT(end.code, 0);
        CHECK_INT(end.status, refusals[i]);
        CHECK_INT(end.user_us, 0);
        twin_deny(SYS_ppoll, EPERM);
        CHECK_INT(reap(&end), -refusals[i]);
        twin_reset();
        CHECK_INT(waitid(P_PID, (id_t)scene.result.pid, &info, WEXITED), 0);
        close_scene();
    }
}

TEST(without_any_wait_and_without_a_pidfd_nothing_is_known)
{
    struct pr_exit end;
    pr_disable(PR_FEATURE_PIDFD);
    start_waiting_child(NULL);
    twin_deny(SYS_waitid, EPERM);
    CHECK_INT(reap(&end), -EPERM);
    CHECK_INT(pr_is_child(-1, scene.result.pid), -EPERM);
    CHECK_INT(pr_signal_child(-1, scene.result.pid, SIGTERM), -EPERM);
    twin_reset();
    scene_must_exit(&scene, 0);
}

/* --- signals ---------------------------------------------------------------------------------- */

TEST_BOTH_WAYS(a_signal_that_is_none_is_refused)
{
    start_waiting_child(mode);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, 65), -EINVAL);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, -1), -EINVAL);
    scene_must_exit(&scene, 0);
}

TEST(a_sandbox_without_signals_by_pidfd_gets_them_by_pid)
{
    const int refusals[] = {ENOSYS, EPERM};
    for (int i = 0; i < 2; i++) {
        start_waiting_child(NULL);
        twin_deny(SYS_pidfd_send_signal, refusals[i]);
        CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGTERM), 0);
        twin_reset();
        CHECK_INT(scene_end(&scene).status, SIGTERM);
    }
}

/* Whom nobody has reaped has its number; the twin tells of a signal that goes by it. */
TEST_BOTH_WAYS(a_signal_by_number_is_for_a_child_that_nobody_has_reaped)
{
    start_waiting_child(mode);
    int pid = scene.result.pid, pidfd = scene.result.pidfd;
    twin_deny(SYS_pidfd_send_signal, EPERM);
    CHECK_INT(pr_is_child(pidfd, pid), 1);
    CHECK_INT(pr_signal_child(pidfd, pid, SIGSTOP), 0);
    CHECK_INT(pr_signal_child(pidfd, pid, 0), 0);
    CHECK_INT(pr_signal_child(pidfd, pid, SIGKILL), 0);
    CHECK_INT(pr_wait_exit(pid), 0);
    CHECK_INT(pr_is_child(pidfd, pid), 1);
    CHECK_INT(pr_signal_child(pidfd, pid, SIGTERM), 0); /* a zombie */
    twin_fail(SYS_waitid, 1, EINTR);
    CHECK_INT(pr_is_child(pidfd, pid), 1);
    reap_as_other_code();
    CHECK_INT(pr_is_child(pidfd, pid), 0);
    twin_reset();
    twin_deny(SYS_pidfd_send_signal, EPERM);
    CHECK_INT(pr_signal_child(pidfd, pid, SIGKILL), -ESRCH);
    CHECK_INT(twin_count(SYS_kill), 0);
    close_scene();
}

/* No waitid can be asked of another's child; poll can, of whoever has a pidfd. */
TEST(a_signal_that_may_not_go_by_pidfd_does_not_go_to_who_has_ended)
{
    struct pr_exit end;
    skip_unless_features(PR_FEATURE_PIDFD);
    start_waiting_child(NULL);
    twin_deny(SYS_pidfd_send_signal, ENOSYS);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGKILL), 0);
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_reset();
    twin_deny(SYS_pidfd_send_signal, ENOSYS);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGKILL), -ESRCH);
    CHECK_INT(twin_count(SYS_kill), 0);
    CHECK_INT(reap(&end), 1);
    close_scene();
}

TEST(a_child_that_lives_is_signalled_by_number_where_neither_wait_nor_signal_by_pidfd_is_allowed)
{
    skip_unless_features(PR_FEATURE_PIDFD);
    start_waiting_child(NULL);
    twin_deny(SYS_pidfd_send_signal, EPERM);
    twin_deny(SYS_waitid, EPERM);
    CHECK_INT(pr_signal_child(scene.result.pidfd, scene.result.pid, SIGTERM), 0);
    twin_reset();
    CHECK_INT(pr_wait_exit(scene.result.pid), 0);
    twin_deny(SYS_pidfd_send_signal, EPERM);
    twin_deny(SYS_waitid, EPERM);
    CHECK_INT(pr_signal_child(scene.result.pidfd, scene.result.pid, SIGTERM), -ESRCH);
    twin_reset();
    CHECK_INT(scene_end(&scene).status, SIGTERM);
}

static void signal_a_stranger(void *unused)
{
    (void)unused;
    CHECK_INT(setresuid(65534, 65534, 65534), 0);
    CHECK_INT(pr_signal(scene.result.pidfd, scene.result.pid, SIGTERM), -EPERM);
}

TEST_BOTH_WAYS(a_signal_without_the_right_is_refused)
{
    skip_unless_root();
    start_waiting_child(mode);
    run_apart(signal_a_stranger, NULL);
    scene_must_exit(&scene, 0);
}

/* --- orphans ---------------------------------------------------------------------------------- */

TEST(orphans_come_to_who_adopts_them)
{
    siginfo_t news = {0};
    CHECK_INT(pr_adopt_orphans(1), 0);
    CHECK_INT(pr_adopt_orphans(-1), 1);
    scene_shell(&scene, NULL, "sleep 600 >&- & echo $!");
    scene_start(&scene);
    int orphan = atoi(scene_read(&scene, 0));
    scene_must_exit(&scene, 0);
    CHECK_INT(kill(orphan, SIGKILL), 0);
    CHECK_INT(waitid(P_PID, (id_t)orphan, &news, WEXITED), 0);
    CHECK_INT(news.si_status, SIGKILL);
    CHECK_INT(pr_adopt_orphans(0), 1);
    CHECK_INT(pr_adopt_orphans(-1), 0);
}

TEST(what_the_kernel_says_of_adoption_is_returned)
{
    twin_fail(SYS_prctl, 1, EPERM);
    CHECK_INT(pr_adopt_orphans(1), -EPERM);
    twin_reset();
    twin_fail(SYS_prctl, 2, EINVAL);
    CHECK_INT(pr_adopt_orphans(1), -EINVAL);
    twin_reset();
    CHECK_INT(pr_adopt_orphans(-1), 0);
}
