/* twin.c - the rules of twin.h.
 *
 * pr_twin() runs in vfork children too: no libc, no sanitizer, nothing but this page.
 */
#include "twin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "sys.h"

enum { RULES = 8, LOGGED = 8192 };

#define RAW_CODE __attribute__((no_sanitize("address", "undefined", "thread")))

static struct {
    int parent;
    int rule_count;
    struct armed_rule {
        struct twin_rule rule;
        int met;
    } rules[RULES];
    struct {
        int count;
        long numbers[LOGGED];
    } log[TWIN_CHILD + 1];
} *page;

void twin_open(void)
{
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    twin_reset();
}

void twin_reset(void)
{
    page->parent = (int)pr_raw(SYS_getpid, 0, 0, 0, 0, 0, 0);
    page->rule_count = 0;
    page->log[TWIN_PARENT].count = page->log[TWIN_CHILD].count = 0;
}

void twin_add(struct twin_rule rule)
{
    page->rules[page->rule_count] = (struct armed_rule){rule, 0};
    page->rule_count++;
}

void twin_fail(long number, int nth, int error)
{
    twin_add((struct twin_rule){.number = number, .nth = nth, .answer = -error});
}

void twin_deny(long number, int error)
{
    twin_fail(number, 0, error);
}

void twin_raise(long number, int nth, int signal)
{
    twin_add((struct twin_rule){.number = number, .nth = nth, .signal = signal});
}

bool twin_has_met(void)
{
    for (int i = 0; i < page->rule_count; i++)
        if (page->rules[i].met < page->rules[i].rule.nth || !page->rules[i].met)
            return false;
    return true;
}

int twin_logged(enum twin_side side)
{
    return page->log[side].count;
}

long twin_log_at(enum twin_side side, int at)
{
    return page->log[side].numbers[at];
}

int twin_count(long number)
{
    int found = 0;
    for (enum twin_side side = TWIN_PARENT; side <= TWIN_CHILD; side++)
        for (int i = 0; i < page->log[side].count; i++)
            found += page->log[side].numbers[i] == number;
    return found;
}

RAW_CODE static bool fits(struct armed_rule *armed, enum twin_side side, long number)
{
    const struct twin_rule *rule = &armed->rule;
    if (rule->side != TWIN_ANYWHERE && rule->side != side)
        return false;
    if (rule->number != number && rule->number != TWIN_ANY_CALL)
        return false;
    int met = __atomic_add_fetch(&armed->met, 1, __ATOMIC_SEQ_CST);
    return rule->nth == 0 || rule->nth == met;
}

RAW_CODE static void write_log(enum twin_side side, long number)
{
    int at = __atomic_fetch_add(&page->log[side].count, 1, __ATOMIC_SEQ_CST);
    if (at < LOGGED)
        page->log[side].numbers[at] = number;
    else
        __atomic_fetch_sub(&page->log[side].count, 1, __ATOMIC_SEQ_CST);
}

RAW_CODE long pr_twin(long number)
{
    int pid = (int)pr_raw(SYS_getpid, 0, 0, 0, 0, 0, 0);
    enum twin_side side = pid == page->parent ? TWIN_PARENT : TWIN_CHILD;
    long answer = 0;
    write_log(side, number);
    for (int i = 0; i < page->rule_count; i++) { /* all of them: each counts for itself */
        const struct twin_rule *rule = &page->rules[i].rule;
        if (!fits(&page->rules[i], side, number))
            continue;
        if (rule->signal)
            pr_raw(SYS_tgkill, pid, pr_raw(SYS_gettid, 0, 0, 0, 0, 0, 0), rule->signal, 0, 0, 0);
        if (rule->answer)
            answer = rule->answer;
    }
    return answer;
}

/* The linker sends the core's malloc, realloc and pthread_create here (-Wl,--wrap). */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return pr_twin(TWIN_MALLOC) ? NULL : __real_malloc(size);
}

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size)
{
    return pr_twin(TWIN_REALLOC) ? NULL : __real_realloc(block, size);
}

typedef void *thread_function(void *);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, thread_function *, void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, thread_function *, void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, thread_function *fn,
                          void *argument)
{
    int error = (int)-pr_twin(TWIN_THREAD);
    return error ? error : __real_pthread_create(thread, attributes, fn, argument);
}
