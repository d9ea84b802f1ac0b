/* The launcher's argv: what spawn.c may write arrives as it was meant, and what nobody would write is
 * refused, or reads nothing that is not there.
 *
 * csrc/launch.c is taken in as it is, but for its start code; its system calls are told to us.  It
 * never returns, so its exec and its exit jump back here. */
#include <setjmp.h>
#include <stdbool.h>

#include "fuzz.h"
#include "sys.h"

static long on_execve(const char *path, char *const *argv, char *const *env);
static long on_end(int code);
static long on_setresgid(uint32_t gid);
static long on_setresuid(uint32_t real, uint32_t effective);
static void on_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved);
static long on_setgroups(size_t count, const uint32_t *groups);
static long on_capset(void);
static long on_mask(const uint64_t *mask);
static long on_prctl(int option, long argument);
static long on_write(int fd, const void *bytes, size_t size);
static long on_fcntl(int fd);
static long on_getppid(void);

#define sys_execve(path, argv, env) on_execve(path, argv, env)
#define sys_exit_group(code) on_end(code)
#define sys_setresgid(real, effective, saved) on_setresgid(real)
#define sys_setresuid(real, effective, saved) on_setresuid(real, effective)
#define sys_getresuid(real, effective, saved) on_getresuid(real, effective, saved)
#define sys_setgroups(count, groups) on_setgroups(count, groups)
#define sys_capset(header, data) ((void)(header), (void)(data), on_capset())
#define sys_rt_sigprocmask(how, mask, old) on_mask(mask)
#define sys_prctl(option, argument) on_prctl(option, argument)
#define sys_write(fd, bytes, size) on_write(fd, bytes, size)
#define sys_fcntl(fd, command, argument) on_fcntl(fd)
#define sys_getppid() on_getppid()
#define sys_nanosleep(pause) ((void)(pause))

enum { FIXED = 10, MOST_WORDS = 64, TEXT = 24 };

/* What was said to it, where it was said in good faith. */
static struct {
    struct bytes bytes;
    bool in_faith;
    uint32_t uid, gid, group_count, groups[MOST_WORDS];
    uint32_t candidate_count;
    int report_fd, death_signal, no_new_privs, parent;
    uint64_t mask;
    char **argv;
    char **program_argv;
    char **env;
    char *candidates[MOST_WORDS];
    uint32_t tried;
    bool root_is_aside, groups_are_set, uid_is_set, gid_is_set, has_capabilities, mask_is_set;
    bool has_reported, was_refused;
    jmp_buf back;
} told;

#include "become.h"
#define __asm__(code) struct no_start_code
#include "../../csrc/launch.c"
#undef __asm__

static long on_fcntl(int fd)
{
    CHECK(!told.in_faith || fd == told.report_fd);
    return take_byte(&told.bytes) < 0xf0 ? 0 : -EBADF;
}

/* A daemon that has put root aside, with some bytes. */
static void on_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved)
{
    told.root_is_aside = take_byte(&told.bytes) >= 0xe0;
    *real = *saved = 0;
    *effective = told.root_is_aside ? 1000 : 0;
}

static long on_setresgid(uint32_t gid)
{
    CHECK(!told.in_faith || gid == told.gid);
    CHECK(!told.root_is_aside && !told.gid_is_set);
    told.gid_is_set = true;
    return take_byte(&told.bytes) < 0xf0 ? 0 : -EPERM;
}

static long on_setresuid(uint32_t real, uint32_t effective)
{
    if (told.root_is_aside) {
        CHECK(real == -1U && effective == 0);
        told.root_is_aside = false;
        return take_byte(&told.bytes) < 0xf0 ? 0 : -EPERM;
    }
    CHECK(real == effective && (!told.in_faith || real == told.uid));
    CHECK(told.gid_is_set && told.groups_are_set); /* afterwards there is no right to set them */
    told.uid_is_set = true;
    told.has_capabilities = real != 0;
    return take_byte(&told.bytes) < 0xf0 ? 0 : -EPERM;
}

static long on_setgroups(size_t count, const uint32_t *groups)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(!told.in_faith || groups[i] == told.groups[i]);
        sum += groups[i]; /* all of them can be read */
    }
    CHECK(!told.in_faith || count == told.group_count);
    told.groups_are_set = true;
    return take_byte(&told.bytes) < 0xf0 ? 0 : sum % 2 ? -EPERM : -EINVAL;
}

/* Before any exec, of whoever is not root. */
static long on_capset(void)
{
    CHECK(told.has_capabilities);
    told.has_capabilities = false;
    return take_byte(&told.bytes) < 0xf0 ? 0 : -EPERM;
}

static long on_mask(const uint64_t *mask)
{
    CHECK(!told.in_faith || *mask == told.mask);
    told.mask_is_set = true;
    return 0;
}

static long on_prctl(int option, long argument)
{
    if (option == PR_SET_NO_NEW_PRIVS)
        CHECK(!told.in_faith || told.no_new_privs);
    if (option == PR_SET_PDEATHSIG)
        CHECK(!told.in_faith || argument == told.death_signal);
    return take_byte(&told.bytes) < 0xf0 ? 0 : -EINVAL;
}

/* With some bytes the parent has died. */
static long on_getppid(void)
{
    return (long)told.parent + (take_byte(&told.bytes) >= 0xf0);
}

static size_t vector_length(char *const *vector)
{
    size_t length = 0, text = 0;
    for (; vector[length]; length++)
        text += strlen(vector[length]);
    CHECK(text < SIZE_MAX);
    return length;
}

static long on_execve(const char *path, char *const *argv, char *const *env)
{
    static const int errors[] = {ENOENT, ENOTDIR, EACCES, ETXTBSY, ENOEXEC, E2BIG};
    uint8_t byte = take_byte(&told.bytes);
    CHECK(told.uid_is_set && told.mask_is_set && !told.has_capabilities);
    CHECK(strlen(path) < SIZE_MAX);
    CHECK(vector_length(argv) > 0);
    vector_length(env);
    if (told.in_faith) {
        CHECK(argv == told.program_argv && env == told.env);
        CHECK(told.tried < told.candidate_count && path == told.candidates[told.tried]);
    }
    if (byte < 0x40)
        longjmp(told.back, 1);
    int error = errors[byte % 6];
    told.tried += error != ETXTBSY; /* that one is tried again */
    return -error;
}

static long on_write(int fd, const void *bytes, size_t size)
{
    told.was_refused = fd == 2 && size != sizeof(struct pr_report);
    told.has_reported = !told.was_refused;
    if (told.has_reported) {
        struct pr_report report;
        CHECK(size == sizeof report);
        memcpy(&report, bytes, size);
        CHECK(report.stage > PR_STAGE_NONE && report.stage < PR_STAGE_COUNT && report.error > 0);
        CHECK(!told.in_faith || fd == told.report_fd);
        CHECK(!told.in_faith || report.index < (int)told.candidate_count);
    }
    return (long)size;
}

static long on_end(int code)
{
    CHECK(told.was_refused ? code == 2 && !told.uid_is_set : code == 127 && told.has_reported);
    CHECK(!told.in_faith || !told.was_refused);
    longjmp(told.back, 1);
}

/* A word with a block of its own. */
static char *word_of_number(uint64_t number)
{
    char *word = malloc(TEXT);
    snprintf(word, TEXT, "%llu", (unsigned long long)number);
    return word;
}

static char *word_of_bytes(void)
{
    size_t size = take_byte(&told.bytes) % 24;
    char *word = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = take_byte(&told.bytes);
        word[i] = (char)(byte < 0xe0 ? '0' + byte % 10 : byte);
    }
    word[size] = 0;
    return word;
}

static uint64_t take_long(void)
{
    return (uint64_t)take_word(&told.bytes) << 32 | take_word(&told.bytes);
}

/* As write_launcher_argv of spawn.c has it.  Returns how many words. */
static long write_in_faith(char **argv)
{
    long argc = 0;
    told.report_fd = (int)(take_number(&told.bytes) & 0x7fffffff);
    told.uid = take_number(&told.bytes);
    told.gid = take_number(&told.bytes);
    told.death_signal = take_byte(&told.bytes) & 0x3f;
    told.no_new_privs = take_byte(&told.bytes) & 1;
    told.parent = (int)(take_number(&told.bytes) & 0x7fffffff);
    told.mask = take_long();
    told.group_count = take_byte(&told.bytes) % 16;
    told.candidate_count = 1 + take_byte(&told.bytes) % 8;
    uint32_t words = 1 + take_byte(&told.bytes) % 8;
    const uint64_t numbers[] = {
        (uint64_t)told.report_fd, told.uid, told.gid, (uint64_t)told.death_signal,
        (uint64_t)told.no_new_privs, (uint64_t)told.parent, told.mask, told.group_count,
        told.candidate_count,
    };
    argv[argc++] = word_of_bytes();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        argv[argc++] = word_of_number(numbers[i]);
    for (uint32_t i = 0; i < told.group_count; i++) {
        told.groups[i] = take_number(&told.bytes);
        argv[argc++] = word_of_number(told.groups[i]);
    }
    for (uint32_t i = 0; i < told.candidate_count; i++)
        argv[argc++] = told.candidates[i] = word_of_bytes();
    for (uint32_t i = 0; i < words; i++)
        argv[argc++] = word_of_bytes();
    return argc;
}

static long write_anything(char **argv)
{
    long argc = take_byte(&told.bytes) % 40;
    for (long i = 0; i < argc; i++)
        argv[i] = word_of_bytes();
    return argc;
}

static __attribute__((noinline)) void run_until_its_end(long argc, char **argv)
{
    if (!setjmp(told.back))
        launch(argc, argv);
}

/* The vectors as the kernel lays them: argv, NULL, environment, NULL, in a block that ends there. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *words[MOST_WORDS], *all[MOST_WORDS];
    memset(&told, 0, sizeof told);
    told.bytes = (struct bytes){data, size};
    told.in_faith = !(take_byte(&told.bytes) & 1);
    long argc = told.in_faith ? write_in_faith(words) : write_anything(words);
    long env_count = take_byte(&told.bytes) % 3, count = argc;
    words[count++] = NULL;
    for (long i = 0; i < env_count; i++)
        words[count++] = word_of_bytes();
    words[count++] = NULL;
    memcpy(all, words, (size_t)count * sizeof *all);

    char **block = malloc((size_t)count * sizeof *block);
    memcpy(block, words, (size_t)count * sizeof *words);
    told.env = block + argc + 1;
    told.program_argv = block + FIXED + told.group_count + told.candidate_count;
    run_until_its_end(argc, block);
    for (long i = 0; i < count; i++)
        free(all[i]);
    free(block);
    return 0;
}
