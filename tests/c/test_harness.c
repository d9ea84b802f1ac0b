/* The harness itself: each of these is broken in one way and must be found out. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "twin.h"

TEST(a_case_that_leaves_all_as_it_was_passes)
{
    int fd = open("/dev/null", O_RDONLY);
    CHECK(fd >= 0);
    close(fd);
}

MUST_FAIL(a_false_check_fails, "not so: 1 == 2")
{
    CHECK(1 == 2);
}

MUST_FAIL(a_wrong_number_fails, "1 + 1 is 2, not 3")
{
    CHECK_INT(1 + 1, 3);
}

MUST_FAIL(a_wrong_text_fails, "is \"this\", not \"that\"")
{
    CHECK_TEXT("this", "that");
}

/* Raised rather than earned: a sanitizer turns a bad access into an exit. */
MUST_FAIL(a_crash_fails, "Killed")
{
    raise(SIGKILL);
}

MUST_FAIL(an_early_exit_with_a_code_fails, "")
{
    _exit(3);
}

MUST_FAIL(a_leaked_fd_fails, "left open")
{
    open("/dev/null", O_RDONLY);
}

MUST_FAIL(an_fd_closed_that_was_not_the_cases_fails, "closed, and was not ours")
{
    close(0);
}

MUST_FAIL(an_fd_that_became_another_file_fails, "is not the file that it was")
{
    int file = open(proc_path("self/status"), O_RDONLY);
    dup2(file, 0);
    close(file);
}

MUST_FAIL(a_changed_close_on_exec_flag_fails, "close-on-exec changed")
{
    fcntl(0, F_SETFD, FD_CLOEXEC);
}

MUST_FAIL(a_zombie_fails, "a zombie was left")
{
    siginfo_t info;
    if (fork() == 0)
        _exit(0);
    waitid(P_ALL, 0, &info, WEXITED | WNOWAIT);
}

MUST_FAIL(a_running_child_fails, "a child was left")
{
    if (fork() == 0)
        for (;;)
            pause();
}

MUST_FAIL(a_changed_signal_mask_fails, "the signal mask was")
{
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
}

static void fail_there(void *unused)
{
    (void)unused;
    FAIL("in the other process");
}

MUST_FAIL(a_check_that_fails_in_a_process_of_the_case_fails_the_case, "in the other process")
{
    run_apart(fail_there, NULL);
}

static void crash_there(void *unused)
{
    (void)unused;
    raise(SIGKILL);
}

MUST_FAIL(a_process_of_the_case_that_crashes_fails_the_case, "ended by signal 9")
{
    run_apart(crash_there, NULL);
}

long pr_twin(long number);

TEST(the_twin_answers_the_call_it_was_told_to_and_no_other)
{
    twin_fail(SYS_close, 2, 5);
    CHECK_INT(pr_twin(SYS_close), 0);
    CHECK_INT(pr_twin(SYS_read), 0);
    CHECK_INT(pr_twin(SYS_close), -5);
    CHECK_INT(pr_twin(SYS_close), 0);
    CHECK_INT(twin_count(SYS_close), 3);
}

static void call_once(void *answer)
{
    CHECK_INT(pr_twin(SYS_close), *(long *)answer);
}

TEST(the_twin_counts_the_calls_of_forked_processes_too)
{
    long none = 0, refused = -5;
    twin_fail(SYS_close, 2, 5);
    run_apart(call_once, &none);
    run_apart(call_once, &refused);
    CHECK_INT(twin_logged(TWIN_PARENT), 0);
    CHECK_INT(twin_logged(TWIN_CHILD), 2);
    CHECK_INT(twin_log_at(TWIN_CHILD, 1), SYS_close);
}

TEST(the_twin_tells_the_sides_apart)
{
    long refused = -5;
    twin_add((struct twin_rule){.side = TWIN_CHILD, .number = TWIN_ANY_CALL, .nth = 1, .answer = -5});
    CHECK_INT(pr_twin(SYS_close), 0);
    run_apart(call_once, &refused);
}

/* The sanitizers, in the builds that have them. */
#ifdef __SANITIZE_ADDRESS__

MUST_FAIL(leaked_memory_fails, "LeakSanitizer")
{
    void *volatile leaked = malloc(100);
    leaked = NULL;
    (void)leaked;
}

static void leak_there(void *unused)
{
    void *volatile leaked = malloc(100);
    leaked = NULL;
    (void)leaked;
    (void)unused;
    check_no_leaks();
}

MUST_FAIL(leaked_memory_fails_in_a_process_of_the_case_too, "memory is lost")
{
    run_apart(leak_there, NULL);
}

MUST_FAIL(a_read_of_freed_memory_fails, "heap-use-after-free")
{
    char *volatile bytes = malloc(10);
    free(bytes);
    CHECK_INT(bytes[0], 0);
}

MUST_FAIL(undefined_behaviour_fails, "signed integer overflow")
{
    volatile int largest = 2147483647, sum;
    sum = largest + 1;
    CHECK(sum < 0);
}

#endif
