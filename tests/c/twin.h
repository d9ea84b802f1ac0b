/* twin.h - makes the core's system calls fail, or lets a signal fall between two of them.
 *
 * csrc/sys.h sends every call of the core through pr_twin() when it is built for these tests.  Rules
 * say which call is answered here instead of by the kernel.  Rules, counts and the log lie in one
 * shared page, so they hold for forked and for vforked children alike.  The launcher, a program of
 * its own, has a twin of its own (launch_twin.c).
 */
#ifndef PR_TWIN_H
#define PR_TWIN_H

#include <stdbool.h>

enum twin_side {
    TWIN_ANYWHERE,
    TWIN_PARENT,    /* the process that called twin_reset last */
    TWIN_CHILD,     /* every other */
};

/* Instead of a system call's number. */
enum {
    TWIN_ANY_CALL = -1,
    TWIN_MALLOC = -2,   /* of a spawn, of a spawner, and of what a kept child has written */
    TWIN_THREAD = -3,   /* pthread_create */
    TWIN_REALLOC = -4,  /* of a spawner's places */
};

struct twin_rule {
    enum twin_side side;
    long number;
    int nth;        /* counted from 1, among the calls that fit; 0: all of them */
    long answer;    /* returned without asking the kernel; 0: the call is made */
    int signal;     /* sent to the calling thread first; 0: none */
};

/* Once, before anything is forked. */
void twin_open(void);

/* No rules, counts at 0, and an empty log; the caller is the parent from here on. */
void twin_reset(void);

void twin_add(struct twin_rule rule);

/* Call `nth` of `number`, on either side, fails with `error`. */
void twin_fail(long number, int nth, int error);

/* Every call of `number` fails with `error`. */
void twin_deny(long number, int error);

/* The caller of call `nth` of `number` is sent `signal` just before it. */
void twin_raise(long number, int nth, int signal);

/* Whether each of the rules has met its call. */
bool twin_has_met(void);

/* How many calls of a side are in the log since the reset, and the number of one (from 0). */
int twin_logged(enum twin_side side);
long twin_log_at(enum twin_side side, int at);

/* How often a call was made, on either side. */
int twin_count(long number);

#endif
