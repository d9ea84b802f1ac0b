/* check.c - runs the registered cases, one process each, and counts.
 *
 *   tests [-v] [words]    only the cases whose "file: name" holds the words; -v names every case
 *
 * Failures are told with all that the case said, skipped cases by their reasons.
 *
 * The closing line is "N passed, M failed".  The exit code is 0 when none failed.
 */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "procreactor.h"
#include "twin.h"

/* A case that is not done by then hangs; on a busy machine under a sanitizer, all take seconds. */
enum { DEADLINE_MS = 60 * 1000 };
enum { EXIT_FAILED = 1, EXIT_SKIPPED = 77 };

enum { OUTPUT_ROOM = 16384 };

static struct test *first_test, **last_link = &first_test;

void test_register(struct test *test)
{
    *last_link = test;
    last_link = &test->next;
}

/* --- checks ----------------------------------------------------------------------------------- */

static char context[256];

void check_context(const char *text)
{
    snprintf(context, sizeof context, "%s", text ? text : "");
}

void check_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (context[0])
        dprintf(VOICE, "%s: ", context);
    dprintf(VOICE, "%s:%d: ", file, line);
    vdprintf(VOICE, format, arguments);
    dprintf(VOICE, "\n");
    va_end(arguments);
    _exit(EXIT_FAILED);
}

void check_int(const char *file, int line, const char *what, long long is, long long wanted)
{
    if (is != wanted)
        check_fail(file, line, "%s is %lld, not %lld", what, is, wanted);
}

void check_text(const char *file, int line, const char *what, const char *is, const char *wanted)
{
    if (strcmp(is, wanted) != 0)
        check_fail(file, line, "%s is \"%s\", not \"%s\"", what, is, wanted);
}

void skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vdprintf(VOICE, format, arguments);
    va_end(arguments);
    _exit(EXIT_SKIPPED);
}

void skip_unless_root(void)
{
    if (geteuid() != 0)
        skip("needs root");
}

bool is_under_valgrind(void)
{
    return getenv("UNDER_VALGRIND");
}

int rounds(int count)
{
    return is_under_valgrind() ? (count + 9) / 10 : count;
}

void skip_under_valgrind(const char *why)
{
    if (is_under_valgrind())
        skip("under valgrind %s", why);
}

/* --- /proc ------------------------------------------------------------------------------------ */

const char proc_variable[] = "PROCREACTOR_TESTS_PROC";

const char *proc_path(const char *format, ...)
{
    static char path[512];
    const char *copy = getenv(proc_variable);
    int size = snprintf(path, sizeof path, "%s/", copy ? copy : "/proc");
    CHECK(size < (int)sizeof path);
    va_list words;
    va_start(words, format);
    vsnprintf(path + size, sizeof path - (size_t)size, format, words);
    va_end(words);
    return path;
}

/* --- what a case may not leave behind --------------------------------------------------------- */

void list_fds(struct fd_list *list)
{
    DIR *directory = opendir(proc_path("self/fd"));
    struct dirent *entry;
    list->count = 0;
    if (!directory)
        FAIL("cannot list %s: %s", proc_path("self/fd"), strerror(errno));
    while ((entry = readdir(directory))) {
        struct stat facts;
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory) || fstat(fd, &facts) < 0)
            continue;
        CHECK(list->count < FD_LIST_ROOM);
        list->fds[list->count++] = (struct open_fd){
            fd, fcntl(fd, F_GETFD), (uint64_t)facts.st_dev, (uint64_t)facts.st_ino};
    }
    closedir(directory);
}

void close_fds(int first, int last)
{
    for (int fd = first; fd <= last; fd++)
        close(fd);
}

static const struct open_fd *find_fd(const struct fd_list *list, int fd)
{
    for (int i = 0; i < list->count; i++)
        if (list->fds[i].fd == fd)
            return &list->fds[i];
    return NULL;
}

static void check_fds_are_in(const struct fd_list *these, const struct fd_list *those,
                             const char *complaint)
{
    for (int i = 0; i < these->count; i++) {
        const struct open_fd *one = &these->fds[i], *other = find_fd(those, one->fd);
        if (!other)
            FAIL("fd %d was %s", one->fd, complaint);
        if (one->device != other->device || one->inode != other->inode)
            FAIL("fd %d is not the file that it was", one->fd);
        if (one->flags != other->flags)
            FAIL("fd %d has close-on-exec changed", one->fd);
    }
}

void check_same_fds(const struct fd_list *before)
{
    struct fd_list *after = malloc(sizeof *after);
    CHECK(after != NULL);
    list_fds(after);
    check_fds_are_in(after, before, "left open");
    check_fds_are_in(before, after, "closed, and was not ours");
    free(after);
}

void check_no_child(void)
{
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0)
        FAIL(info.si_pid ? "a zombie was left: %d" : "a child was left", info.si_pid);
}

uint64_t current_mask(void)
{
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, sizeof mask);
    return mask;
}

int current_dumpable(void)
{
    return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
}

#ifdef __SANITIZE_ADDRESS__
int __lsan_do_recoverable_leak_check(void);
#endif

void check_no_leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
    uid_t real, effective, saved;
    getresuid(&real, &effective, &saved);
    if (real != effective || effective != saved || current_dumpable() != 1)
        return; /* it may not be traced, not by itself either, which is how leaks are looked for */
    if (__lsan_do_recoverable_leak_check())
        FAIL("memory is lost");
#endif
}

void run_apart(void (*fn)(void *), void *argument)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        fn(argument);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED)
        _exit(EXIT_SKIPPED);
    if (WIFSIGNALED(status))
        FAIL("a process of this case was ended by signal %d", WTERMSIG(status));
    if (status)
        _exit(EXIT_FAILED);
}

/* --- one case --------------------------------------------------------------------------------- */

/* Of a fork nothing is known before the first one: whether it gives a pidfd, say. */
static void learn_what_forks_give(void)
{
    char nowhere[] = "/";
    const struct pr_strings word = {.bytes = nowhere, .size = sizeof nowhere, .count = 1};
    const struct pr_request request = {
        .candidates = word, .argv = word, .tty_fd = -1, .cgroup_fd = -1};
    struct pr_result result;
    int none;
    CHECK_INT(pr_spawn(&request, &result, &none), -EACCES);
}

static void run_case(const struct test *test, const struct mode *mode)
{
    static struct fd_list before;
    twin_reset(); /* the rules are in shared memory, and the case before may have ended amid its own */
    if (mode)
        pr_disable(mode->disabled);
    if (mode && mode->identity)
        skip_unless_root();
    if (test->kind == TEST_WARM) {
        CHECK_INT(pr_reserve(), 0);
        if (!(pr_features() & PR_FEATURE_VFORK))
            learn_what_forks_give();
    }
    twin_reset();
    list_fds(&before);
    uint64_t mask = current_mask();
    int dumpable = current_dumpable();
    test->run(mode);
    twin_reset();
    check_same_fds(&before);
    check_no_child();
    if (current_mask() != mask)
        FAIL("the signal mask was %llx and is %llx", (unsigned long long)mask,
             (unsigned long long)current_mask());
    CHECK_INT(current_dumpable(), dumpable);
}

/* What a case passes with, and valgrind is not to tell of (--track-fds): our voice and the slots.
 * Of one more it is to tell, by which a case that has passed is known (judge-valgrind.awk). */
static void tell_valgrind(void)
{
    static struct fd_list open_fds;
    list_fds(&open_fds);
    for (int i = 0; i < open_fds.count; i++)
        if (open_fds.fds[i].fd > 2 && open_fds.fds[i].fd <= VOICE)
            close(open_fds.fds[i].fd);
    dup3(0, VOICE + 1, O_CLOEXEC);
}

static void become_case(const struct test *test, const struct mode *mode, int output)
{
    setpgid(0, 0); /* so that what a case leaves can be ended with it */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int nothing = open("/dev/null", O_RDWR);
    dup3(output, VOICE, O_CLOEXEC);
    dup2(nothing, 0);
    dup2(output, 1);
    dup2(output, 2);
    close_fds(3, VOICE - 1);
    run_case(test, mode);
    if (is_under_valgrind())
        tell_valgrind();
    exit(0); /* not _exit: leak detection runs at exit */
}

static void read_first_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (!file || !fgets(line, size, file))
        *line = 0;
    line[strcspn(line, "\n")] = 0;
    if (file)
        fclose(file);
}

/* Of each thread of one process: its name and number, state and ticks, and the call that it is in. */
static void tell_threads(int output, pid_t pid)
{
    char stat[512], call[256];
    DIR *threads = opendir(proc_path("%d/task", pid));
    struct dirent *entry;
    while (threads && (entry = readdir(threads))) {
        char state = '?';
        long user = 0, system = 0;
        int tid = atoi(entry->d_name);
        read_first_line(proc_path("%d/task/%d/stat", pid, tid), stat, sizeof stat);
        read_first_line(proc_path("%d/task/%d/syscall", pid, tid), call, sizeof call);
        char *end = strrchr(stat, ')');
        if (!end)
            continue;
        sscanf(end, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &state, &user, &system);
        end[1] = 0;
        dprintf(output, "  thread %s is %c after %ld + %ld ticks, in call %s\n", stat, state, user,
                system, call);
    }
    if (threads)
        closedir(threads);
}

/* What a case was at, and where each thread of each of its processes stands. */
static void tell_hang(int output, pid_t group)
{
    char words[sizeof context] = "";
    struct iovec here = {words, sizeof words - 1}, there = {context, sizeof words - 1};
    if (process_vm_readv(group, &here, 1, &there, 1, 0) > 0) /* it is a fork of this process */
        dprintf(output, "  at: %s\n", words);
    DIR *all = opendir(proc_path("."));
    struct dirent *entry;
    while (all && (entry = readdir(all))) {
        pid_t pid = atoi(entry->d_name);
        if (pid > 0 && getpgid(pid) == group)
            tell_threads(output, pid);
    }
    if (all)
        closedir(all);
}

/* The status of waitpid, or -1 for a case that hung. */
static int wait_for_case(pid_t pid, int output)
{
    int status;
    siginfo_t info;
    struct pollfd polled = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    bool hung = polled.fd >= 0 && poll(&polled, 1, DEADLINE_MS) == 0;
    if (polled.fd < 0) /* a sandbox without pidfds: then without a deadline */
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    if (hung)
        tell_hang(output, pid);
    kill(-pid, SIGKILL); /* what it left running too; as long as it is a zombie, the number is its */
    waitpid(pid, &status, 0);
    close(polled.fd);
    return hung ? -1 : status;
}

static void read_output(int output, char *text)
{
    ssize_t size = pread(output, text, OUTPUT_ROOM - 1, 0);
    text[size < 0 ? 0 : size] = 0;
}

static int run_in_process(const struct test *test, const struct mode *mode, char *text)
{
    int output = memfd_create("output", MFD_CLOEXEC);
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(EXIT_FAILED);
    }
    if (pid == 0)
        become_case(test, mode, output);
    int status = wait_for_case(pid, output);
    read_output(output, text);
    close(output);
    return status;
}

/* --- all cases -------------------------------------------------------------------------------- */

enum { REASONS = 16 };

static struct {
    int passed, failed, skipped;
    bool names_all;
    const char *words;
    struct reason {
        int count;
        char *text;
    } reasons[REASONS];
} run;

/* The last entry takes all reasons that found no place of their own. */
static void count_skipped(const char *text)
{
    int at = 0;
    while (at < REASONS - 1 && run.reasons[at].count && strcmp(run.reasons[at].text, text) != 0)
        at++;
    if (!run.reasons[at].count)
        run.reasons[at].text = strdup(at < REASONS - 1 ? text : "other reasons");
    run.reasons[at].count++;
    run.skipped++;
}

static void write_name(const struct test *test, const struct mode *mode, char *name, size_t size)
{
    const char *slash = strrchr(test->file, '/');
    int length = snprintf(name, size, "%s: %s", slash ? slash + 1 : test->file, test->name);
    for (char *at = strchr(name, ':'); at && *at; at++)
        if (*at == '_')
            *at = ' ';
    if (mode)
        snprintf(name + length, size - (size_t)length, " (%s)", mode->name);
}

static void tell_failure(const char *name, int status, const char *text)
{
    if (status == -1)
        printf("FAILED  %s: not done after %d s\n", name, DEADLINE_MS / 1000);
    else if (WIFSIGNALED(status))
        printf("FAILED  %s: %s\n", name, strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) == EXIT_FAILED)
        printf("FAILED  %s\n", name);
    else /* a sanitizer's code, or valgrind's */
        printf("FAILED  %s: exit code %d\n", name, WEXITSTATUS(status));
    printf("%s", text);
}

/* Valgrind shares no memory, and so has none of the features that need it: there a mode that takes away
 * nothing else, or what others before it have, shows nothing new. */
static bool is_repeated(const struct mode *modes, const struct mode *mode)
{
    uint32_t missed = 0;
    bool is_known = false; /* the way, that is: as oneself, or with an identity */
    for (; modes < mode; modes++) {
        missed |= modes->disabled;
        is_known |= modes->identity == mode->identity;
    }
    uint32_t is_new = mode->disabled & ~missed & (PR_FEATURE_PIDFD | PR_FEATURE_CLOSE_RANGE);
    return is_under_valgrind() && is_known && !is_new;
}

static void judge(const struct test *test, const struct mode *mode)
{
    static char text[OUTPUT_ROOM];
    char name[256];
    write_name(test, mode, name, sizeof name);
    if (run.words && !strstr(name, run.words))
        return;
    int status = run_in_process(test, mode, text);
    bool skipped = status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED;
    bool passed = status == 0;
    if (test->kind == TEST_MUST_FAIL) {
        char signal_name[64] = "";
        if (status != -1 && WIFSIGNALED(status))
            snprintf(signal_name, sizeof signal_name, "%s", strsignal(WTERMSIG(status)));
        passed = !passed && (strstr(text, test->complaint) || strstr(signal_name, test->complaint));
    }
    if (skipped) {
        count_skipped(text);
        if (run.names_all)
            printf("skipped %s: %s\n", name, text);
    } else if (passed) {
        run.passed++;
        if (run.names_all)
            printf("passed  %s\n", name);
    } else {
        run.failed++;
        tell_failure(name, status, text);
    }
}

int main(int argc, char **argv)
{
    int at = 1;
    if (at < argc && strcmp(argv[at], "-v") == 0)
        run.names_all = true, at++;
    run.words = at < argc ? argv[at] : NULL;
    signal(SIGINT, SIG_DFL); /* a shell has both ignored by what it starts in the background */
    signal(SIGQUIT, SIG_DFL);
    twin_open();
    for (struct test *test = first_test; test; test = test->next) {
        if (!test->modes)
            judge(test, NULL);
        for (const struct mode *mode = test->modes; mode && mode->name; mode++)
            if (!is_repeated(test->modes, mode))
                judge(test, mode);
    }
    for (int i = 0; i < REASONS && run.reasons[i].count; i++)
        printf("skipped %d: %s\n", run.reasons[i].count, run.reasons[i].text);
    if (run.skipped)
        printf("%d passed, %d failed, %d skipped\n", run.passed, run.failed, run.skipped);
    else
        printf("%d passed, %d failed\n", run.passed, run.failed);
    return run.failed ? EXIT_FAILED : 0;
}
