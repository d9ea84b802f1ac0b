/* Any request, in any world: csrc/spawn.c with all that it calls replaced by a model.
 *
 * The request is made of the bytes: counts and sizes of the packed strings that lie, rows, sources,
 * flags, groups.  So is the world: what each system call answers, which numbers new fds get, what the
 * features are, how the child fares.  Nothing is started; where the child would begin, all that it
 * was given is looked at, as it would read it.  Then:
 *
 *   - A request that contradicts itself is refused with EINVAL at PR_STAGE_REQUEST, with nothing opened;
 *     every other comes to its clone, or fails because the world said so.
 *   - The vectors are the request's strings, in order; each lies in its block (ASan tells).
 *   - The moves bring what each row asks for, from below the cut, and the report's fd to where the child
 *     and the launcher believe it; what is closed is all the rest.
 *   - The result is as procreactor.h says.  Whatever failed, no fd, interest, slot, stack, block or
 *     child is left, no stranger's fd was closed, and the signal mask is as before.
 */
#include <errno.h>
#include <stdbool.h>

#include "fdmodel.h"
#include "sys.h"

struct pr_child;
static long world_pipe2(int ends[2]);
static long world_fcntl(int fd, int command, long argument);
static long world_close(int fd);
static long world_epoll_ctl(int epoll_fd, int operation, int fd, const struct epoll_event *event);
static long world_read(int fd, void *buffer, size_t size);
static long world_ppoll(struct pollfd *polled, const struct timespec *timeout);
static long world_waitid(int kind, int id, siginfo_t *info, int options);
static long world_openat(int directory);
static long world_futex(uint32_t *lent);
static long world_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved);
static long world_prctl(void);
static long world_clone(struct pr_child *child, unsigned long flags, int *pidfd);
static void *world_malloc(size_t size);
static void world_free(void *block);

/* From here on the calls of sys.h are the world's. */
#define sys_pipe2(ends, flags) world_pipe2(ends)
#define sys_fcntl(fd, command, argument) world_fcntl(fd, command, argument)
#define sys_close(fd) world_close(fd)
#define sys_epoll_ctl(set, operation, fd, event) world_epoll_ctl(set, operation, fd, event)
#define sys_read(fd, buffer, size) world_read(fd, buffer, size)
#define sys_ppoll(polled, count, timeout) world_ppoll(polled, timeout)
#define sys_waitid(kind, id, info, options, usage) world_waitid(kind, id, info, options)
#define sys_getresuid(real, effective, saved) world_getresuid(real, effective, saved)
#define sys_prctl(option, argument) world_prctl()
#define sys_nanosleep(pause) ((void)(pause))
#define sys_openat(directory, path, flags) world_openat(directory)
#define sys_futex(word, operation, value, timeout) ((void)(timeout), world_futex(word))
#define sys_getpid() 77
#define sys_clone(flags, stack, pidfd) world_clone(child, flags, pidfd) /* clone_copy has a `child` */
#define malloc(size) world_malloc(size)
#define free(block) world_free(block)
#include "../../csrc/spawn.c"
#undef malloc
#undef free

enum { MOST_FDS = 128, MOST_ROWS = 40, FIRST_SLOT = 32, SLOT_COUNT = 24, PID = 4242, STACK = 1 };
enum { INHERITED_MASK = 0x1234, LARGEST_BLOCK = 1 << 20 };

enum child_state { NO_CHILD, ALIVE, DIED, ENDED, REAPED, OUT_OF_REACH }; /* DIED: on its way, untold */

static struct {
    struct bytes bytes;
    const struct pr_request *request;
    const uint64_t *mask;
    const int *ours;
    uint32_t features;
    unsigned cut;
    bool is_root;
    int fd_count;
    struct world_fd {
        int fd;
        int peer;        /* of a pipe; -1: a pidfd */
        uint32_t watched;
        bool is_watched;
    } fds[MOST_FDS];
    int landed[SLOT_COUNT]; /* -1: the slot is free */
    bool stack_is_taken;
    bool signals_are_blocked;
    int blocks;
    enum child_state child;
    int pidfd;
    bool was_killed;
    bool must_not_be_asked; /* the request is refused before the first call */
    int clones;
} world;

/* 0 mostly, and when the bytes are at their end; else one of the errors. */
static long trouble(const int *errors, size_t count)
{
    uint8_t byte = take_byte(&world.bytes);
    CHECK(!world.must_not_be_asked);
    return byte < 0xc0 ? 0 : -errors[byte % count];
}
#define TROUBLE(...) \
    trouble((const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))

/* --- fds -------------------------------------------------------------------------------------- */

static struct world_fd *find(int fd)
{
    for (int i = 0; i < world.fd_count; i++)
        if (world.fds[i].fd == fd)
            return &world.fds[i];
    return NULL;
}

static bool is_slot(int fd)
{
    return fd >= FIRST_SLOT && fd < FIRST_SLOT + SLOT_COUNT;
}

static int open_fd(int peer)
{
    int fd = (int)(take_number(&world.bytes) & 0xfffff) + 3;
    while (find(fd) || is_slot(fd))
        fd++;
    CHECK(world.fd_count < MOST_FDS);
    world.fds[world.fd_count++] = (struct world_fd){.fd = fd, .peer = peer};
    return fd;
}

static long world_pipe2(int ends[2])
{
    long refused = TROUBLE(EMFILE, ENFILE);
    if (refused)
        return refused;
    ends[0] = open_fd(-1);
    ends[1] = open_fd(ends[0]);
    find(ends[0])->peer = ends[1];
    return 0;
}

/* Asked for a lock, it is of the report pipe, and the child holds it or not. */
static long world_fcntl(int fd, int command, long argument)
{
    CHECK(find(fd));
    CHECK(command == F_SETFL || command == F_GETLK);
    long refused = TROUBLE(EPERM, ENOSYS);
    if (command == F_GETLK && !refused && take_byte(&world.bytes) < 0x80)
        ((struct flock *)argument)->l_type = F_UNLCK;
    return refused;
}

/* cgroup.freeze of a group, or of one above it. */
static long world_openat(int directory)
{
    CHECK(directory == world.request->cgroup_fd && directory >= 0);
    long refused = TROUBLE(ENOENT, EACCES, EMFILE);
    return refused ? refused : open_fd(-1);
}

/* Closed, whatever it answers. */
static long world_close(int fd)
{
    struct world_fd *it = find(fd);
    CHECK(it != NULL); /* open, and ours to close */
    CHECK(!it->is_watched);
    *it = world.fds[--world.fd_count];
    return TROUBLE(EINTR, EIO);
}

static long world_epoll_ctl(int epoll_fd, int operation, int fd, const struct epoll_event *event)
{
    struct world_fd *it = find(fd);
    CHECK(it != NULL && !it->is_watched && operation == EPOLL_CTL_ADD);
    CHECK(world.request->flags & PR_FLAG_WATCH && epoll_fd == world.request->epoll_fd);
    CHECK(event->data.u64 == (uint64_t)fd);
    long refused = TROUBLE(ENOSPC, ENOMEM, EBADF);
    it->is_watched = !refused;
    it->watched = event->events;
    return refused;
}

int pr_drop(int epoll_fd, int fd)
{
    CHECK(world.request->flags & PR_FLAG_WATCH && epoll_fd == world.request->epoll_fd);
    CHECK(find(fd));
    find(fd)->is_watched = false;
    world_close(fd);
    return 0;
}

unsigned pr_slots_cut(void)
{
    return world.cut;
}

int pr_slots_reserve(void)
{
    return (int)TROUBLE(EMFILE);
}

int pr_slots_land(int fd)
{
    CHECK((unsigned)fd >= world.cut);
    for (int i = 0; i < SLOT_COUNT && !TROUBLE(EBADF); i++)
        if (world.landed[i] < 0) {
            world.landed[i] = fd;
            return FIRST_SLOT + i;
        }
    return -1;
}

void pr_slots_release(int slot_fd)
{
    CHECK(is_slot(slot_fd) && world.landed[slot_fd - FIRST_SLOT] >= 0);
    world.landed[slot_fd - FIRST_SLOT] = -1;
}

/* --- memory, signals, identity ---------------------------------------------------------------- */

/* Gigabytes are not to be had here, so a count that lies much is refused in the end, too. */
static void *world_malloc(size_t size)
{
    if (size > LARGEST_BLOCK || TROUBLE(ENOMEM))
        return NULL;
    void *block = malloc(size);
    if (block)
        memset(block, 0xa5, size);
    world.blocks += block != NULL;
    return block;
}

static void world_free(void *block)
{
    world.blocks--;
    free(block);
}

void *pr_stack_take(void)
{
    CHECK(!world.stack_is_taken);
    world.stack_is_taken = !TROUBLE(ENOMEM);
    return world.stack_is_taken ? &world : NULL;
}

void pr_stack_release(void *stack)
{
    CHECK(world.stack_is_taken && stack == &world);
    world.stack_is_taken = false;
}

void pr_signals_block(bool has_handlers, uint64_t *before)
{
    CHECK(!world.signals_are_blocked);
    CHECK(has_handlers || world.features & PR_FEATURE_CLONE3);
    world.signals_are_blocked = true;
    *before = INHERITED_MASK;
}

void pr_signals_restore(const uint64_t *before)
{
    CHECK(world.signals_are_blocked && *before == INHERITED_MASK);
    world.signals_are_blocked = false;
}

static long world_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved)
{
    *real = *effective = *saved = world.is_root ? 0 : 1000;
    return TROUBLE(EPERM);
}

static long world_prctl(void)
{
    return TROUBLE(EINVAL);
}

/* --- the ladder ------------------------------------------------------------------------------- */

int pr_ladder_probe(void)
{
    return (int)TROUBLE(EAGAIN, ENOMEM);
}

uint32_t pr_ladder_features(void)
{
    return world.features;
}

void pr_ladder_drop(uint32_t feature)
{
    world.features &= ~feature;
}

bool pr_ladder_is_refusal(long result)
{
    return result == -ENOSYS || result == -EPERM || result == -EINVAL || result == -EACCES
           || result == -E2BIG;
}

/* --- the child: what it was given ------------------------------------------------------------- */

static void check_vector(const struct pr_strings *strings, char *const *vector)
{
    const char *at = strings->bytes;
    for (uint32_t i = 0; i < strings->count; i++) {
        CHECK(vector[i] == at);
        at += strlen(at) + 1;
    }
    CHECK(at == strings->bytes + strings->size);
    CHECK(vector[strings->count] == NULL);
}

static void check_number(const char *text, uint64_t wanted)
{
    char written[24];
    snprintf(written, sizeof written, "%llu", (unsigned long long)wanted);
    CHECK(strcmp(text, written) == 0);
}

/* launch.c states the order.  Returns where the launcher will look for the report's fd. */
static int check_launcher(const struct pr_child *child)
{
    const struct pr_request *request = world.request;
    char *const *word = child->launcher_argv + 1;
    int report_fd = atoi(*word++);
    check_number(*word++, request->uid);
    check_number(*word++, request->gid);
    check_number(*word++, (uint64_t)request->death_signal);
    check_number(*word++, request->flags & PR_FLAG_NO_NEW_PRIVS ? 1 : 0);
    check_number(*word++, request->death_signal ? 77 : 0);
    check_number(*word++, child->become.final_mask);
    check_number(*word++, request->group_count);
    check_number(*word++, request->candidates.count);
    for (uint32_t i = 0; i < request->group_count; i++)
        check_number(*word++, request->groups[i]);
    for (uint32_t i = 0; i < request->candidates.count; i++)
        CHECK(*word++ == child->candidates[i]);
    for (uint32_t i = 0; i < request->argv.count; i++)
        CHECK(*word++ == child->argv[i]);
    CHECK(*word == NULL);
    return report_fd;
}

/* The fd that row i is to bring, as the parent knows it. */
static int wanted_fd(uint32_t row)
{
    if (world.request->sources[row] == PR_AS_STDOUT)
        return wanted_fd((uint32_t)row_of_stdout(world.request, row));
    if (world.request->sources[row] >= 0)
        return world.request->sources[row];
    struct world_fd *kept = find(world.ours[row]);
    CHECK(kept != NULL);
    return kept->peer;
}

/* The moves carried out, as child_move_fds does; each file is then known by the parent's fd. */
static void carry_out(const struct pr_child *child, struct fd_model *model, int *report_fd)
{
    for (uint32_t i = 0; i < child->move_count; i++) {
        const struct pr_move *move = &child->moves[i];
        int from = model_at(model, move->from), to = model_at(model, move->to);
        CHECK(move->row >= 0 && (uint32_t)move->row <= world.request->fd_count);
        model->fds[to].file = model->fds[from].file;
        model->fds[to].close_on_exec = move->flags & O_CLOEXEC;
        if (move->row == child->report_row)
            *report_fd = move->to;
    }
    for (int i = 0; i < model->count; i++) {
        int file = model->fds[i].file;
        if (is_slot(file) && world.landed[file - FIRST_SLOT] >= 0)
            model->fds[i].file = world.landed[file - FIRST_SLOT];
        else if (child->cut && (unsigned)file >= child->cut)
            model->fds[i].file = -1; /* the unsharing has closed it */
    }
}

static void check_fds(const struct pr_child *child, bool reports_by_pipe)
{
    static struct fd_model model;
    struct pr_row rows[MOST_ROWS + 1];
    const struct pr_request *request = world.request;
    uint32_t count = request->fd_count;
    int report_fd = child->report_fd;
    model.count = 0;
    carry_out(child, &model, &report_fd);
    if (child->launcher_argv)
        report_fd = check_launcher(child);
    for (uint32_t i = 0; i < count; i++) {
        int at = model_at(&model, request->child_fds[i]);
        CHECK(model.fds[at].file == wanted_fd(i));
        CHECK(!model.fds[at].close_on_exec);
        rows[i] = (struct pr_row){.target = request->child_fds[i]};
    }
    CHECK((report_fd >= 0) == reports_by_pipe);
    if (reports_by_pipe) {
        int at = model_at(&model, report_fd);
        struct world_fd *pipe = find(model.fds[at].file);
        CHECK(pipe != NULL && pipe->peer >= 0);
        CHECK(model.fds[at].close_on_exec == !child->launcher_argv);
        rows[count++] = (struct pr_row){.target = report_fd};
    }
    check_closes(rows, count, child->closes, child->close_count);
}

/* In memory where that is shared, else in the pipe: read_report asks for it. */
static bool report_in_memory(struct pr_child *child)
{
    static const int stages[] = {PR_STAGE_SETSID, PR_STAGE_DUP, PR_STAGE_CHDIR, PR_STAGE_EXEC};
    uint8_t byte = take_byte(&world.bytes);
    int stage = stages[byte % 4];
    if (byte < 0x80)
        return false;
    if (child->cut && byte & 0x40)
        stage = PR_STAGE_UNSHARE;
    else if (child->launcher_argv)
        stage = byte & 0x20 ? PR_STAGE_HELPER : PR_STAGE_DUP;
    child->report.stage = stage;
    child->report.error = byte & 0x10 ? EPERM : byte & 8 ? ENOENT : ENOMEM;
    return true;
}

static long begin_child(struct pr_child *child, int *pidfd, bool has_pidfd, bool shares_memory)
{
    CHECK(world.signals_are_blocked);
    CHECK(world.child == NO_CHILD || world.child == REAPED);
    CHECK(++world.clones < 16 + MOST_STOPS);
    const struct pr_request *request = world.request;
    CHECK(child->request == request);
    check_vector(&request->candidates, child->candidates);
    check_vector(&request->argv, child->argv);
    check_vector(&request->env, child->env);
    uint64_t inherited = world.mask ? *world.mask : INHERITED_MASK;
    CHECK(child->become.final_mask
          == (request->flags & PR_FLAG_SIGMASK ? request->signal_mask : inherited));
    CHECK(child->become.groups == request->groups);
    CHECK(!child->launcher_argv || (request->flags & PR_FLAG_IDENTITY && world.is_root));
    CHECK(!(request->flags & PR_FLAG_IDENTITY) || !shares_memory || child->launcher_argv);
    check_fds(child, !shares_memory || child->launcher_argv);

    *pidfd = -1;
    long refused = TROUBLE(EAGAIN, ENOMEM, EPERM, EINVAL, ENOSYS, EMFILE, EBUSY, EACCES);
    if (refused)
        return refused;
    world.child = ALIVE;
    world.was_killed = false;
    world.pidfd = *pidfd = has_pidfd ? open_fd(-1) : -1;
    if (shares_memory && report_in_memory(child))
        world.child = ENDED;
    return PID;
}

long pr_ladder_clone(uint32_t features, uint64_t flags, int exit_signal, int cgroup_fd, void *stack,
                     void (*fn)(void *), void *argument, uint32_t *lent, int *pidfd)
{
    struct pr_child *child = argument;
    CHECK(!lent || (lent == &child->lent && *lent && world.request->flags & PR_FLAG_MAY_FREEZE));
    CHECK(stack == &world && world.stack_is_taken && fn == pr_child_run && exit_signal == SIGCHLD);
    CHECK((flags == CLONE_FILES) == (child->cut != 0));
    CHECK(cgroup_fd < 0 || (cgroup_fd == world.request->cgroup_fd && !child->enter_cgroup));
    return begin_child(child, pidfd, features & PR_FEATURE_PIDFD, true);
}

static long world_clone(struct pr_child *child, unsigned long flags, int *pidfd)
{
    CHECK(!child->cut && !child->launcher_argv && !(flags & CLONE_VM));
    return begin_child(child, pidfd, flags & CLONE_PIDFD, false);
}

void pr_child_run(void *child)
{
    (void)child;
    CHECK(!"the model starts nothing");
    abort();
}

/* --- the child: how it fares ------------------------------------------------------------------ */

static long world_ppoll(struct pollfd *polled, const struct timespec *timeout)
{
    (void)timeout;
    CHECK(find(polled->fd));
    uint8_t byte = take_byte(&world.bytes);
    polled->revents = byte < 0xc0 ? POLLIN : 0;
    return byte < 0xc0 ? 1 : byte < 0xe0 ? 0 : byte < 0xf0 ? -EINTR : -EPERM;
}

/* Until it lets go of our memory, a child is alive; a kill makes sure that it does. */
static long world_futex(uint32_t *lent)
{
    uint8_t byte = take_byte(&world.bytes);
    CHECK(*lent && world.signals_are_blocked && world.stack_is_taken);
    if (byte < 0xa0 || world.was_killed)
        *lent = 0;
    return byte < 0xb0 ? 0 : byte < 0xc0 ? -EINTR : byte < 0xe0 ? -ETIMEDOUT : -EPERM;
}

/* The report pipe, or one byte of cgroup.freeze. */
static long world_read(int fd, void *buffer, size_t size)
{
    uint8_t byte = take_byte(&world.bytes);
    CHECK(find(fd) && (size == sizeof(struct pr_report) || size == 1));
    if (size == 1) {
        *(char *)buffer = byte & 1 ? '1' : '0';
        return byte < 0xf0 ? 1 : -EIO;
    }
    if (byte < 0x80)
        return 0; /* it has become the program */
    if (byte < 0xa0)
        return -EINTR;
    if (byte < 0xb0)
        return -EPERM;
    const struct pr_report locked = {.index = -1};
    const struct pr_report report = {PR_STAGE_SETUID + byte % 2, byte % 32 + 1, -1};
    if (byte < 0xb8) {
        memcpy(buffer, &locked, sizeof locked);
        return sizeof locked;
    }
    memcpy(buffer, &report, sizeof report);
    return sizeof report;
}

int pr_signal_child(int pidfd, int pid, int number)
{
    CHECK(pid == PID && pidfd == world.pidfd && number == SIGKILL);
    CHECK(world.child == ALIVE || world.child == DIED || world.child == ENDED);
    long refused = TROUBLE(EPERM);
    world.was_killed |= !refused; /* what a kill has reached stays killed */
    return (int)refused;
}

static long world_waitid(int kind, int id, siginfo_t *info, int options)
{
    CHECK(kind == P_PIDFD ? id == world.pidfd && find(id) : kind == P_PID && id == PID);
    CHECK(world.child == ALIVE || world.child == DIED || world.child == ENDED);
    if (kind == P_PIDFD && TROUBLE(EINVAL))
        return -EINVAL;
    long interrupted = TROUBLE(EINTR);
    if (interrupted)
        return interrupted;
    uint8_t byte = take_byte(&world.bytes);
    if (options & WSTOPPED) {
        info->si_pid = byte & 1 ? PID : 0;
        info->si_status = byte & 2 ? SIGTSTP : SIGSTOP;
        if (byte & 1 && world.child == ALIVE && !world.was_killed)
            return 0;
        info->si_pid = 0;
        return 0;
    }
    CHECK(options & WEXITED);
    if (options & WNOHANG && byte & 0x80) {
        info->si_pid = 0;
        return 0;
    }
    if (options & WNOWAIT) { /* looked at, and still there; whoever has ended stays so */
        world.child = world.child == ENDED ? ENDED : DIED;
        info->si_pid = PID;
        return 0;
    }
    /* A child that has reported is on its way to the end, unless it is stopped, and only a kill is sure to
     * reach that one: nobody may wait for it without a kill, but for him who waits with WNOHANG. */
    CHECK(options & WNOHANG || world.child == DIED || world.child == ENDED || world.was_killed);
    world.child = REAPED;
    info->si_pid = PID;
    return byte & 0x40 ? -ECHILD : 0; /* other code was faster */
}

/* --- the request ------------------------------------------------------------------------------ */

/* A block of its own, exactly as large as it says.  Mostly honest; the lies are the bytes' choice. */
static struct pr_strings take_strings(void)
{
    size_t size = take_byte(&world.bytes);
    uint8_t manner = take_byte(&world.bytes);
    char *block = malloc(size ? size : 1);
    uint32_t count = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = take_byte(&world.bytes);
        block[i] = (char)(byte < 0x80 ? 0 : byte);
        if (i == size - 1 && manner < 0xe0)
            block[i] = 0;
        count += !block[i];
    }
    if (manner >= 0xf0)
        count = take_number(&world.bytes);
    return (struct pr_strings){block, size, count};
}

/* Whether the block holds exactly `count` strings; another way to say it than spawn.c's. */
static bool is_honest(const struct pr_strings *strings)
{
    size_t ends = 0;
    for (size_t i = 0; i < strings->size; i++)
        ends += !strings->bytes[i];
    return ends == strings->count && (!strings->size || !strings->bytes[strings->size - 1]);
}

static bool is_clear(const struct pr_request *request)
{
    if (!request->candidates.count || !request->argv.count)
        return false;
    if (request->flags & PR_FLAG_IDENTITY && (request->uid == ~0U || request->gid == ~0U))
        return false;
    for (uint32_t i = 0; i < request->fd_count; i++) {
        if (request->child_fds[i] < 0 || request->sources[i] < -3)
            return false;
        if (request->sources[i] == -3 && row_of_stdout(request, i) < 0)
            return false;
        for (uint32_t j = i + 1; j < request->fd_count; j++)
            if (request->child_fds[i] == request->child_fds[j])
                return false;
    }
    return true;
}

static uint32_t *take_numbers(uint32_t count)
{
    uint32_t *numbers = malloc(count ? count * sizeof *numbers : 1);
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = take_number(&world.bytes);
    return numbers;
}

/* Rows that are sound are rare by chance, so fds go up from the last but where a byte says else. */
static int *take_child_fds(uint32_t count)
{
    int *fds = malloc(count ? count * sizeof *fds : 1), next = 0;
    for (uint32_t i = 0; i < count; i++, next++) {
        uint8_t byte = take_byte(&world.bytes);
        if (byte >= 0xe0)
            next = (int)take_number(&world.bytes);
        else if (next < INT_MAX - 256)
            next += byte % 8;
        fds[i] = next;
        if (next == INT_MAX)
            next = 0;
    }
    return fds;
}

static int *take_sources(uint32_t count)
{
    int *sources = malloc(count ? count * sizeof *sources : 1);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t byte = take_byte(&world.bytes);
        sources[i] = byte == 0x5f ? PR_AS_STDOUT : byte < 0x60 ? PR_WE_READ - (byte & 1)
                     : byte < 0xf0 ? byte - 0x60 : (int)take_word(&world.bytes);
        while (is_slot(sources[i])) /* they are the core's, and the caller does not know them */
            sources[i]++;
    }
    return sources;
}

static void take_request(struct pr_request *request)
{
    struct bytes *bytes = &world.bytes;
    uint32_t rows = take_byte(bytes) % (MOST_ROWS + 1);
    uint32_t groups = take_byte(bytes) % (MOST_ROWS + 1);
    *request = (struct pr_request){
        .fd_count = rows,
        .group_count = groups,
        .flags = (uint32_t)take_byte(bytes) | (uint32_t)take_byte(bytes) << 8,
        .uid = take_number(bytes),
        .gid = take_number(bytes),
        .death_signal = take_byte(bytes) & 0x3f,
        .tty_fd = -1,
        .cgroup_fd = take_byte(bytes) & 1 ? 9 : -1,
        .epoll_fd = 8,
        .launcher = take_byte(bytes) & 1 ? "/launcher" : NULL,
        .signal_mask = take_word(bytes),
        .ignored_signals = take_word(bytes),
        .nice = take_byte(bytes),
    };
    request->groups = take_numbers(groups);
    request->child_fds = take_child_fds(rows);
    request->sources = take_sources(rows);
    request->candidates = take_strings();
    request->argv = take_strings();
    request->env = take_strings();
}

static void give_back(struct pr_request *request)
{
    free((void *)request->groups);
    free((void *)request->child_fds);
    free((void *)request->sources);
    free((void *)request->candidates.bytes);
    free((void *)request->argv.bytes);
    free((void *)request->env.bytes);
}

static void make_world(const uint8_t *data, size_t size)
{
    memset(&world, 0, sizeof world);
    world.bytes = (struct bytes){data, size};
    uint8_t byte = take_byte(&world.bytes);
    world.features = (uint32_t)~byte & PR_FEATURE_ALL;
    if (!(world.features & PR_FEATURE_VFORK)) /* as the probe has it */
        world.features &= PR_FEATURE_PIDFD | PR_FEATURE_CLOSE_RANGE;
    world.is_root = !(byte & 0x40);
    world.cut = byte & 0x80 ? 0 : 64;
    world.pidfd = -1;
    memset(world.landed, -1, sizeof world.landed);
}

/* --- what is left ----------------------------------------------------------------------------- */

static void check_watched(const struct pr_request *request, const struct pr_result *result)
{
    bool watches = request->flags & PR_FLAG_WATCH;
    for (uint32_t i = 0; i < request->fd_count; i++) {
        CHECK((world.ours[i] >= 0) == (request->sources[i] == -1 || request->sources[i] == -2));
        if (world.ours[i] < 0)
            continue;
        struct world_fd *kept = find(world.ours[i]);
        CHECK(kept != NULL && kept->is_watched == watches);
        CHECK(!watches || kept->watched == (request->sources[i] == PR_WE_READ ? EPOLLIN : 0u));
        CHECK(!find(kept->peer)); /* theirs is closed */
        kept->is_watched = false;
        world_close(world.ours[i]);
    }
    if (result->pidfd >= 0) {
        CHECK(find(result->pidfd) && find(result->pidfd)->is_watched == watches);
        find(result->pidfd)->is_watched = false;
        world_close(result->pidfd);
    }
}

static void check_started(const struct pr_request *request, const struct pr_result *result)
{
    CHECK(result->pid == PID && result->error == 0 && result->index == -1);
    CHECK(world.child == ALIVE || world.child == DIED || world.child == OUT_OF_REACH);
    CHECK(result->pidfd == world.pidfd || result->pidfd == -1);
    check_watched(request, result);
}

static void check_failed(const struct pr_request *request, const struct pr_result *result, int code)
{
    CHECK(code < 0 && result->error == -code);
    CHECK(result->stage > PR_STAGE_NONE && result->stage < PR_STAGE_COUNT);
    CHECK(result->stage != PR_STAGE_HELPER);
    CHECK(result->pid == -1 && result->pidfd == -1);
    for (uint32_t i = 0; i < request->fd_count; i++)
        CHECK(world.ours[i] == -1);
    CHECK(world.child == NO_CHILD || world.child == REAPED
          || (world.child == ALIVE && !world.was_killed)); /* stopped, and may not be killed */
}

static void check_nothing_is_left(void)
{
    CHECK(world.fd_count == 0 && world.blocks == 0);
    CHECK(!world.stack_is_taken && !world.signals_are_blocked);
    for (int i = 0; i < SLOT_COUNT; i++)
        CHECK(world.landed[i] < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pr_request request;
    struct pr_result result;
    make_world(data, size);
    take_request(&request);
    uint64_t mask = 0x5678;
    world.mask = take_byte(&world.bytes) & 1 ? &mask : NULL;
    world.request = &request;
    int *ours = malloc(request.fd_count ? request.fd_count * sizeof *ours : 1);
    world.ours = ours;
    bool clear = is_clear(&request);
    bool honest = is_honest(&request.candidates) && is_honest(&request.argv)
                  && is_honest(&request.env);
    world.must_not_be_asked = !clear;

    int code = pr_spawn_with_mask(&request, &result, ours, world.mask);
    CHECK((code == 0) == (result.stage == PR_STAGE_NONE));
    if (!clear || (!honest && code == -EINVAL))
        CHECK(code == -EINVAL && result.stage == PR_STAGE_REQUEST);
    else
        CHECK(result.stage != PR_STAGE_REQUEST);
    CHECK((clear && honest) || world.clones == 0);
    CHECK((clear && honest) || code != 0);
    world.must_not_be_asked = false;
    if (code == 0)
        check_started(&request, &result);
    else
        check_failed(&request, &result, code);
    check_nothing_is_left();
    free(ours);
    give_back(&request);
    return 0;
}
