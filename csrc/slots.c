/* slots.c - how the ends of a pipe get below the cut.
 *
 * A child that shares the fd table makes close_range(cut, ~0, CLOSE_RANGE_UNSHARE) its first act and
 * gets a table of its own with the fds below the cut only: that is what makes a spawn flat in the
 * parent's open fds.  So every fd that the child is to have must lie below the cut at that moment.
 * But a new pipe takes the lowest FREE numbers, and in a server with 10,000 sockets those are high.
 *
 * Hence the slots: low numbers, opened early, held by a placeholder.  To pass a high fd, dup3 it over
 * a slot; after the spawn, dup3 the placeholder over it again.  A slot has one user at a time (a bit
 * of `free_slots`, taken and given back atomically, so no lock that a fork of the host could leave
 * held).  A slot must be emptied at once: while it holds the child's end of a pipe, end of file on
 * that pipe can not be seen.
 *
 * Emptying a slot closes an fd of the caller's file, and closing any fd of a file gives up all POSIX
 * locks of this process on it (fcntl(2)), and flushes it where the file system wants that.  So only
 * pipes, sockets and character devices land; a spawn that maps another file from above the cut copies
 * the table.
 *
 * The numbers are ours only as long as nobody closes what is not theirs.  Some programs do (a daemon
 * closing everything it was given), and then the number may belong to another file.  So each slot is
 * recognised by its inode, before it is used and before it is emptied, and given up for ever when the
 * file is not the one that we put there.
 */
#include "slots.h"

#include <errno.h>
#include <stdatomic.h>

#include "sys.h"

/* The kernel copies fd bitmaps in words of 64.  One word more than the slots need: to copy some tens of
 * fds costs less than to land three, and it spares that to programs with a dozen children or so. */
enum { SLOTS = 24, CUT_STEP = 64, SPARE_STEPS = 1 };
enum { SHARE = 8 };                 /* one in so many of the numbers that are left may be a slot */

enum { UNRESERVED, RESERVING, RESERVED };

/* What makes a file the same. */
struct identity {
    dev_t device;
    ino_t inode;
};

static struct {
    atomic_int state;
    atomic_uint free;
    unsigned cut;
    int placeholder;
    struct identity placeholder_file;
    int fds[SLOTS];
    struct identity landed[SLOTS]; /* of a slot in use, and its user's alone */
} slots;

static struct identity identity_of(const struct stat *facts)
{
    return (struct identity){facts->st_dev, facts->st_ino};
}

static bool is_same(const struct stat *facts, const struct identity *file)
{
    return facts->st_dev == file->device && facts->st_ino == file->inode;
}

static bool is_still(int fd, const struct identity *file)
{
    struct stat facts;
    return sys_fstat(fd, &facts) == 0 && is_same(&facts, file);
}

/* Not quite the opposite: where fstat is denied, neither is known. */
static bool is_no_longer(int fd, const struct identity *file)
{
    struct stat facts;
    long result = sys_fstat(fd, &facts);
    return result == -EBADF || (result == 0 && !is_same(&facts, file));
}

/* A pipe without a writer: an inode of its own, no memory, in every kernel.  Never 0 to 2, which a
 * program that closed them expects to be given to what it opens next. */
static int open_placeholder(void)
{
    int ends[2];
    long result = sys_pipe2(ends, O_CLOEXEC);
    if (result < 0)
        return (int)result;
    result = sys_fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
    sys_close(ends[0]);
    sys_close(ends[1]);
    if (result < 0)
        return (int)result;
    struct stat facts;
    long known = sys_fstat((int)result, &facts);
    if (known < 0) {
        sys_close((int)result);
        return (int)known;
    }
    slots.placeholder_file = identity_of(&facts);
    return (int)result;
}

/* Where a program may open few files, it is to have them. */
static int how_many(int placeholder)
{
    uint64_t limits[2] = {0, 0};
    sys_prlimit64(0, RLIMIT_NOFILE, NULL, limits);
    uint64_t left = limits[0] > (uint64_t)placeholder ? limits[0] - (uint64_t)placeholder : 0;
    return left / SHARE < SLOTS ? (int)(left / SHARE) : SLOTS;
}

static int reserve_all(void)
{
    int highest = slots.placeholder = open_placeholder();
    if (highest < 0)
        return highest;
    unsigned usable = 0;
    int wanted = how_many(highest);
    for (int i = 0; i < SLOTS; i++)
        slots.fds[i] = -1;
    for (int i = 0; i < wanted; i++) {
        long fd = sys_fcntl(slots.placeholder, F_DUPFD_CLOEXEC, 3);
        slots.fds[i] = (int)fd;
        if (fd < 0)
            break; /* fewer slots are still slots */
        usable |= 1U << i;
        if (fd > highest)
            highest = (int)fd;
    }
    slots.cut = ((unsigned)highest / CUT_STEP + 1 + SPARE_STEPS) * CUT_STEP;
    atomic_store(&slots.free, usable);
    return 0;
}

int pr_slots_reserve(void)
{
    int expected = UNRESERVED;
    if (!atomic_compare_exchange_strong(&slots.state, &expected, RESERVING))
        return 0; /* done, or being done by another thread: its spawns go without until then */
    int result = reserve_all();
    atomic_store(&slots.state, result < 0 ? UNRESERVED : RESERVED);
    return result;
}

unsigned pr_slots_cut(void)
{
    return atomic_load(&slots.state) == RESERVED ? slots.cut : 0;
}

static int take(void)
{
    unsigned free = atomic_load(&slots.free);
    while (free) {
        int slot = __builtin_ctz(free);
        if (!atomic_compare_exchange_weak(&slots.free, &free, free & ~(1U << slot)))
            continue;
        if (is_still(slots.fds[slot], &slots.placeholder_file))
            return slot;
        free = atomic_load(&slots.free); /* somebody closed it: never given back */
    }
    return -1;
}

static bool may_land(const struct stat *facts)
{
    return S_ISFIFO(facts->st_mode) || S_ISSOCK(facts->st_mode) || S_ISCHR(facts->st_mode);
}

/* 0 or -errno. */
static long put(int fd, int slot)
{
    long result;
    while ((result = sys_dup3(fd, slots.fds[slot], O_CLOEXEC)) == -EBUSY)
        ; /* dup2(2): another thread is just opening something */
    return result < 0 ? result : 0;
}

int pr_slots_land(int fd)
{
    struct stat facts;
    int slot = sys_fstat(fd, &facts) == 0 && may_land(&facts) ? take() : -1;
    if (slot < 0)
        return -1;
    slots.landed[slot] = identity_of(&facts);
    if (put(fd, slot) == 0)
        return slots.fds[slot];
    atomic_fetch_or(&slots.free, 1U << slot);
    return -1;
}

void pr_slots_release(int slot_fd)
{
    int slot = 0;
    while (slots.fds[slot] != slot_fd)
        slot++;
    if (is_no_longer(slot_fd, &slots.landed[slot]))
        return; /* somebody else's by now, or nobody's: given up */
    if (is_still(slots.placeholder, &slots.placeholder_file) && put(slots.placeholder, slot) == 0)
        atomic_fetch_or(&slots.free, 1U << slot);
    else
        sys_close(slot_fd); /* nothing to put there: the slot is given up */
}
