/* slots.h - landing slots: a few low fd numbers kept open for good. */
#ifndef PR_SLOTS_H
#define PR_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

/* 0: all fds below the cut may be used in a child that unshares from the cut on; else -errno. */
int pr_slots_reserve(void);

/* The first fd number that an unsharing child does not get; 0 when nothing is reserved. */
unsigned pr_slots_cut(void);

/* Copy `fd` into a free slot.  The slot's fd, or -1 when none is free or fit. */
int pr_slots_land(int fd);

/* Empty the slot again; slot_fd is one that pr_slots_land returned. */
void pr_slots_release(int slot_fd);

#endif
