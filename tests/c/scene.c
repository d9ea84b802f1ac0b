/* scene.c - see scene.h. */
#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const mirror_path = PR_PROGRAMS "/mirror";
const char *const flood_path = PR_PROGRAMS "/flood";
const char *const launcher_path = PR_PROGRAMS "/launch";
const char *const launcher_twin_path = PR_PROGRAMS "/launch-twin";

const struct mode every_mode[] = {
    {"default", 0, false},
    {"without clone3", PR_FEATURE_CLONE3, false},
    {"without unshare", PR_FEATURE_UNSHARE, false},
    {"without close_range", PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE, false},
    {"without pidfd", PR_FEATURE_PIDFD, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by fork, nothing else", PR_FEATURE_ALL, false},
    {"by the launcher", 0, true},
    {"by the launcher, nothing else",
     PR_FEATURE_ALL & ~(PR_FEATURE_VFORK | PR_FEATURE_HELPER), true},
    {"identity by fork", PR_FEATURE_HELPER, true},
    {0},
};

void skip_unless_features(uint32_t features)
{
    if (features & ~pr_features())
        skip("needs features that are not to be had here");
}

const struct mode main_modes[] = {
    {"default", 0, false},
    {"without close_range", PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by the launcher", 0, true},
    {0},
};

enum { RESCUE_MS = 5000, RESCUES = 100 };

/* In a session of its own, as the harness ends the group of a case. */
static __attribute__((noreturn)) void stand_guard(int end_fd, void (*rescue)(void))
{
    char word;
    struct pollfd polled = {.fd = end_fd, .events = POLLIN};
    setsid();
    prctl(PR_SET_PDEATHSIG, 0);
    bool in_time = poll(&polled, 1, RESCUE_MS) == 1;
    if (!in_time)
        rescue();
    if (read(end_fd, &word, 1) == 1)
        _exit(!in_time);
    for (int i = 0; i < RESCUES; i++) {
        rescue();
        poll(NULL, 0, 10);
    }
    _exit(1);
}

void guard_begin(struct guard *guard, void (*rescue)(void))
{
    int ends[2];
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    guard->pid = fork();
    CHECK(guard->pid >= 0);
    if (guard->pid == 0) {
        close(ends[1]);
        stand_guard(ends[0], rescue);
    }
    close(ends[0]);
    guard->fd = ends[1];
}

void guard_end(struct guard *guard)
{
    int status;
    CHECK_INT(write(guard->fd, "x", 1), 1);
    close(guard->fd);
    CHECK_INT(waitpid(guard->pid, &status, 0), guard->pid);
    if (status)
        FAIL("not done in time: somebody had to help");
}

static void append(struct pr_strings *strings, char *room, const char *word)
{
    size_t size = strlen(word) + 1;
    CHECK(strings->size + size <= SCENE_TEXT);
    memcpy(room + strings->size, word, size);
    strings->bytes = room;
    strings->size += size;
    strings->count++;
}

void scene_candidate(struct scene *scene, const char *path)
{
    append(&scene->request.candidates, scene->candidates, path);
}

void scene_argument(struct scene *scene, const char *word)
{
    append(&scene->request.argv, scene->argv, word);
}

void scene_environment(struct scene *scene, const char *word)
{
    append(&scene->request.env, scene->env, word);
}

void scene_begin(struct scene *scene, const struct mode *mode, const char *path)
{
    scene->request = (struct pr_request){
        .child_fds = scene->child_fds,
        .sources = scene->sources,
        .launcher = launcher_path,
        .tty_fd = -1,
        .cgroup_fd = -1,
    };
    if (path) {
        scene_candidate(scene, path);
        scene_argument(scene, path);
    }
    if (mode && mode->identity) {
        int count = getgroups(SCENE_ROWS, scene->own_groups);
        CHECK(count >= 0);
        scene_identity(scene, getuid(), getgid());
        scene->request.groups = scene->own_groups;
        scene->request.group_count = (uint32_t)count;
    }
}

int scene_map(struct scene *scene, int child_fd, int source)
{
    uint32_t row = scene->request.fd_count++;
    CHECK(row < SCENE_ROWS);
    scene->child_fds[row] = child_fd;
    scene->sources[row] = source;
    return (int)row;
}

void scene_let_mirror_read_proc(struct scene *scene)
{
    char word[300];
    const char *copy = getenv(proc_variable);
    if (!copy)
        return;
    CHECK(snprintf(word, sizeof word, "%s=%s", proc_variable, copy) < (int)sizeof word);
    scene_environment(scene, word);
}

void scene_shell(struct scene *scene, const struct mode *mode, const char *script)
{
    scene_begin(scene, mode, "/bin/sh");
    scene_argument(scene, "-c");
    scene_argument(scene, script);
    scene_map(scene, 1, PR_WE_READ);
}

void scene_mirror(struct scene *scene, const struct mode *mode, int child_fd)
{
    char number[16];
    snprintf(number, sizeof number, "%d", child_fd);
    scene_begin(scene, mode, mirror_path);
    scene_argument(scene, number);
    scene_map(scene, child_fd, PR_WE_READ);
    scene_let_mirror_read_proc(scene);
}

void scene_identity(struct scene *scene, uint32_t uid, uint32_t gid)
{
    scene->request.flags |= PR_FLAG_IDENTITY;
    scene->request.uid = uid;
    scene->request.gid = gid;
}

/* --- spawn ------------------------------------------------------------------------------------ */

static void check_failure(const struct scene *scene, int code)
{
    const struct pr_result *result = &scene->result;
    CHECK_INT(result->pid, -1);
    CHECK_INT(result->pidfd, -1);
    CHECK(result->stage > PR_STAGE_NONE && result->stage < PR_STAGE_COUNT);
    CHECK(result->error > 0 && result->error < 4096);
    CHECK_INT(code, -result->error);
    for (uint32_t i = 0; i < scene->request.fd_count; i++)
        CHECK_INT(scene->ours[i], -1);
}

static void check_success(const struct scene *scene)
{
    const struct pr_result *result = &scene->result;
    CHECK(result->pid > 0);
    CHECK_INT(result->stage, PR_STAGE_NONE);
    CHECK_INT(result->error, 0);
    CHECK_INT(result->index, -1);
    if (result->pidfd >= 0)
        CHECK_INT(fcntl(result->pidfd, F_GETFD), FD_CLOEXEC);
    for (uint32_t i = 0; i < scene->request.fd_count; i++) {
        if (scene->sources[i] >= 0 || scene->sources[i] == PR_AS_STDOUT) {
            CHECK_INT(scene->ours[i], -1);
            continue;
        }
        CHECK_INT(fcntl(scene->ours[i], F_GETFD), FD_CLOEXEC);
        CHECK(fcntl(scene->ours[i], F_GETFL) & O_NONBLOCK);
    }
}

void scene_check(const struct scene *scene, int code)
{
    if (code == 0)
        check_success(scene);
    else
        check_failure(scene, code);
}

int scene_spawn(struct scene *scene)
{
    uint64_t mask = current_mask();
    memset(&scene->result, 0x55, sizeof scene->result);
    memset(scene->ours, 0x55, sizeof scene->ours);
    int code = pr_spawn(&scene->request, &scene->result, scene->ours);
    if (current_mask() != mask)
        FAIL("pr_spawn left the signal mask %llx", (unsigned long long)current_mask());
    scene_check(scene, code);
    return code;
}

void scene_start(struct scene *scene)
{
    int code = scene_spawn(scene);
    if (code)
        FAIL("no child: %s: %s", pr_stage_text(scene->result.stage), strerror(-code));
}

void scene_must_fail(struct scene *scene, int stage, int error, int index)
{
    int code = scene_spawn(scene);
    if (code == 0 || scene->result.stage != stage || scene->result.error != error
        || scene->result.index != index)
        FAIL("%s: %s, index %d, rather than %s: %s, index %d",
             pr_stage_text(scene->result.stage), strerror(scene->result.error),
             scene->result.index, pr_stage_text(stage), strerror(error), index);
}

/* --- the child -------------------------------------------------------------------------------- */

const char *scene_read(struct scene *scene, int row)
{
    static char text[OUTPUT_TEXT];
    size_t size = 0;
    int fd = scene->ours[row];
    for (;;) {
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        poll(&polled, 1, -1);
        ssize_t more = read(fd, text + size, sizeof text - 1 - size);
        if (more < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (more <= 0)
            break;
        size += (size_t)more;
    }
    text[size] = 0;
    close(fd);
    scene->ours[row] = -1;
    return text;
}

struct pr_exit scene_end(struct scene *scene)
{
    struct pr_exit end;
    int code;
    for (uint32_t i = 0; i < scene->request.fd_count; i++)
        if (scene->ours[i] >= 0)
            close(scene->ours[i]);
    CHECK_INT(pr_wait_exit(scene->result.pid), 0);
    do
        code = pr_reap(scene->result.pidfd, scene->result.pid, &end);
    while (code == 0 || code == -EINTR);
    CHECK_INT(code, 1);
    if (scene->result.pidfd >= 0)
        close(scene->result.pidfd);
    return end;
}

void scene_must_exit(struct scene *scene, int code)
{
    struct pr_exit end = scene_end(scene);
    CHECK_INT(end.code, CLD_EXITED);
    CHECK_INT(end.status, code);
}

const char *scene_run(struct scene *scene)
{
    scene_start(scene);
    const char *text = scene_read(scene, 0);
    scene_must_exit(scene, 0);
    return text;
}

/* --- the mirror ------------------------------------------------------------------------------- */

bool says(const char *text, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    size_t size = (size_t)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && (at[size] == '\n' || !at[size]))
            return true;
    return false;
}

void open_at(int fd, bool close_on_exec)
{
    int file = memfd_create("a file of its own", MFD_CLOEXEC);
    CHECK(file >= 0);
    if (file == fd) {
        fcntl(fd, F_SETFD, close_on_exec ? FD_CLOEXEC : 0);
        return;
    }
    CHECK_INT(dup3(file, fd, close_on_exec ? O_CLOEXEC : 0), fd);
    close(file);
}

void close_slots(void)
{
    close_fds(3, 255);
}

const char *fd_line(int child_fd, int fd)
{
    static char line[80];
    struct stat facts;
    CHECK_INT(fstat(fd, &facts), 0);
    snprintf(line, sizeof line, "fd %d %llx:%llx", child_fd, (unsigned long long)facts.st_dev,
             (unsigned long long)facts.st_ino);
    return line;
}

/* --- watching --------------------------------------------------------------------------------- */

void list_watched(int epoll_fd, struct watched *watched)
{
    char line[256];
    FILE *file = fopen(proc_path("self/fdinfo/%d", epoll_fd), "re");
    CHECK(file != NULL);
    watched->count = 0;
    while (fgets(line, sizeof line, file)) {
        unsigned long long data;
        struct watched_fd found;
        if (sscanf(line, "tfd: %d events: %x data: %llx", &found.fd, &found.events, &data) != 3)
            continue;
        CHECK(watched->count < WATCHED_ROOM);
        found.data = data;
        watched->fds[watched->count++] = found;
    }
    fclose(file);
}

void skip_unless_watched_are_listed(void)
{
    struct watched watched;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC), other = epoll_create1(EPOLL_CLOEXEC);
    CHECK_INT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, other, &event), 0);
    list_watched(epoll_fd, &watched);
    close(other);
    close(epoll_fd);
    if (watched.count == 0)
        skip("the fds of an epoll set are not listed here");
}

static void check_watched_fd(const struct watched *watched, int fd, uint32_t events)
{
    for (int i = 0; i < watched->count; i++) {
        if (watched->fds[i].fd != fd)
            continue;
        CHECK_INT(watched->fds[i].events, events | EPOLLERR | EPOLLHUP);
        CHECK_INT(watched->fds[i].data, fd);
        return;
    }
    FAIL("fd %d is not watched", fd);
}

void scene_check_watched(const struct scene *scene)
{
    struct watched watched;
    int wanted = 0;
    list_watched(scene->request.epoll_fd, &watched);
    for (uint32_t i = 0; i < scene->request.fd_count; i++) {
        if (scene->sources[i] >= 0 || scene->sources[i] == PR_AS_STDOUT)
            continue;
        check_watched_fd(&watched, scene->ours[i], scene->sources[i] == PR_WE_READ ? EPOLLIN : 0);
        wanted++;
    }
    if (scene->result.pidfd >= 0) {
        check_watched_fd(&watched, scene->result.pidfd, EPOLLIN);
        wanted++;
    }
    CHECK_INT(watched.count, wanted);
}

int take_tokens(struct pr_spawner *spawner, uint64_t *tokens, uint32_t capacity)
{
    struct pr_taken taken = {.next = 77, .count = 77};
    int count = pr_spawner_take(spawner, &taken, capacity);
    CHECK_INT(taken.next, 0);
    CHECK_INT(taken.count, count);
    for (int i = 0; i < count; i++)
        tokens[i] = taken.tokens[i];
    return count;
}

int spawner_fd(const struct pr_spawner *spawner)
{
    int fds[3];
    pr_spawner_fds(spawner, fds);
    return fds[0];
}
