/* launch_twin.c - the twin inside the launcher, for tests: one rule, from the environment.
 *
 *   TWIN=number:nth:answer:signal     as in struct twin_rule; the answer may be negative
 *
 * The launcher has no libc, and pr_twin() is not given the environment.  So launch.c is built here with its
 * launch_main by another name (see the Makefile), and the one that its start code calls looks first.
 */
#include "sys.h"

void launch_main(long *stack) __attribute__((used, noreturn));
void launch_main_itself(long *stack) __attribute__((noreturn));

static struct {
    long number, nth, answer, signal;
    long met;
} rule;

static const char *parse_field(const char *text, long *field)
{
    long sign = *text == '-' ? -1 : 1, value = 0;
    if (*text == '-')
        text++;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    *field = sign * value;
    return *text == ':' ? text + 1 : text;
}

static void read_rule(char **environment)
{
    for (char **word = environment; *word; word++) {
        const char *text = *word;
        if (text[0] == 'T' && text[1] == 'W' && text[2] == 'I' && text[3] == 'N' && text[4] == '=') {
            text = parse_field(text + 5, &rule.number);
            text = parse_field(text, &rule.nth);
            text = parse_field(text, &rule.answer);
            parse_field(text, &rule.signal);
        }
    }
}

/* At first the stack has argc, argv, NULL and then the environment. */
void launch_main(long *stack)
{
    read_rule((char **)(stack + 1) + stack[0] + 1);
    launch_main_itself(stack);
}

long pr_twin(long number)
{
    if (!rule.nth || number != rule.number || ++rule.met != rule.nth)
        return 0;
    if (rule.signal)
        pr_raw(SYS_kill, pr_raw(SYS_getpid, 0, 0, 0, 0, 0, 0), rule.signal, 0, 0, 0, 0);
    return rule.answer;
}
