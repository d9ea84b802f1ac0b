/* check.h - the harness of the C tests: a process per case, and nothing left behind.
 *
 * A case is a function, named as a sentence.  It runs in a process of its own, so a crash, a hang or
 * a leaked fd is the failure of that case and of no other, and what the core learns for the life of
 * a process (features, landing slots) is learnt anew.  It passes when it returns with every check
 * true and leaves its process as it found it: the same open fds, no child, no zombie, the same signal
 * mask, as dumpable as it was.  After Wayland's test-runner.c.
 *
 * MUST_FAIL cases check the harness itself: they are broken on purpose, and pass by failing.
 */
#ifndef PR_CHECK_H
#define PR_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* One way of making children, for cases that are to hold in each. */
struct mode {
    const char *name;
    uint32_t disabled;  /* enum pr_feature, taken away before the case begins */
    bool identity;      /* spawns ask for the ids that this process has (root only) */
};

enum test_kind {
    TEST_WARM,      /* the landing slots and the features are there before the first look at the fds */
    TEST_IS_COLD,   /* the core has not been called before */
    TEST_MUST_FAIL,
};

/* The fd by which a case speaks: far from those that cases close and count on being low. */
enum { VOICE = 900 };

struct test {
    const char *file;
    const char *name;
    enum test_kind kind;
    const char *complaint;  /* MUST_FAIL: what the output must say */
    void (*run)(const struct mode *mode);
    const struct mode *modes;   /* up to one without a name */
    struct test *next;
};

void test_register(struct test *test);

#define TEST_DEFINE(function, test_kind, text, mode_table)                                        \
    static void function(const struct mode *mode);                                                \
    static struct test test_##function = {__FILE__, #function, test_kind, text, function,         \
                                          mode_table, 0};                                         \
    __attribute__((constructor)) static void register_##function(void)                            \
    {                                                                                             \
        test_register(&test_##function);                                                          \
    }                                                                                             \
    static void function(__attribute__((unused)) const struct mode *mode)

#define TEST(function) TEST_DEFINE(function, TEST_WARM, 0, 0)
#define TEST_COLD(function) TEST_DEFINE(function, TEST_IS_COLD, 0, 0)
#define MUST_FAIL(function, complaint) TEST_DEFINE(function, TEST_MUST_FAIL, complaint, 0)

/* The case runs once per mode of the table, each time in a process of its own. */
#define TEST_IN_MODES(function, table) TEST_DEFINE(function, TEST_WARM, 0, table)

/* Write what was wrong and end this process; the case has failed, also from a process it forked. */
void check_fail(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
void check_int(const char *file, int line, const char *what, long long is, long long wanted);
void check_text(const char *file, int line, const char *what, const char *is, const char *wanted);

/* Said with every failure from here on, in this process and those it forks; NULL: nothing. */
void check_context(const char *text);

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition))                                                                         \
            check_fail(__FILE__, __LINE__, "not so: %s", #condition);                             \
    } while (0)
#define CHECK_INT(is, wanted) check_int(__FILE__, __LINE__, #is, (is), (wanted))
#define CHECK_TEXT(is, wanted) check_text(__FILE__, __LINE__, #is, (is), (wanted))
#define FAIL(...) check_fail(__FILE__, __LINE__, __VA_ARGS__)

/* End the case as skipped; the reason is printed. */
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void skip_unless_root(void);

/* make valgrind. */
bool is_under_valgrind(void);

/* How often to do what is done so often to meet by chance: a tenth of it under valgrind. */
int rounds(int count);

/* For what valgrind answers in the kernel's place, or holds open itself. */
void skip_under_valgrind(const char *why);

/* "/proc/" and these words, in static memory that the next call writes over.  Where the tests run without
 * /proc (tests/worlds), its copy, which PROCREACTOR_TESTS_PROC names: the core is to find none, and we are. */
const char *proc_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern const char proc_variable[];

/* Every open fd of this process with the file behind it. */
enum { FD_LIST_ROOM = 4096 };
struct fd_list {
    int count;
    struct open_fd {
        int fd;
        int flags;          /* FD_CLOEXEC */
        uint64_t device;
        uint64_t inode;
    } fds[FD_LIST_ROOM];
};
void list_fds(struct fd_list *list);

/* Close what is open from first to last, also where a sandbox knows no close_range. */
void close_fds(int first, int last);

/* Fails the case when an fd is new, gone, or another file than it was. */
void check_same_fds(const struct fd_list *before);

/* Fails the case when this process has a child, zombies included. */
void check_no_child(void);

/* The signal mask as the kernel has it: libc does not show signals 32 and 33. */
uint64_t current_mask(void);

/* PR_GET_DUMPABLE: whether the process may be traced, and its /proc is its own. */
int current_dumpable(void);

/* In the build with AddressSanitizer: no memory is allocated that nothing points to.  It looks for that
 * itself at the end of a case, and not in a process of the case's own, which ends by _exit. */
void check_no_leaks(void);

/* Run fn(argument) in a forked process, with checks of its own; the case fails with it. */
void run_apart(void (*fn)(void *), void *argument);

#endif
