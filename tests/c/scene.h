/* scene.h - a spawn put together in a few lines, and what all spawns have in common checked once. */
#ifndef PR_SCENE_H
#define PR_SCENE_H

#include "check.h"
#include "procreactor.h"

enum { SCENE_ROWS = 64, SCENE_TEXT = 8192, OUTPUT_TEXT = 65536 };

struct scene {
    struct pr_request request;
    struct pr_result result;
    int child_fds[SCENE_ROWS];
    int sources[SCENE_ROWS];
    int ours[SCENE_ROWS];
    char candidates[SCENE_TEXT];
    char argv[SCENE_TEXT];
    char env[SCENE_TEXT];
    uint32_t own_groups[SCENE_ROWS];
};

/* Every mode in which a spawn is to look the same from outside. */
extern const struct mode every_mode[];

/* Those of them that share no code between clone and exec, for cases that take their time. */
extern const struct mode main_modes[];

/* The programs built beside the tests; absolute, and readable by every user. */
extern const char *const mirror_path;
extern const char *const flood_path;
extern const char *const launcher_path;
extern const char *const launcher_twin_path;

/* Ends the case where the kernel, or the sandbox around us, lacks one of these (enum pr_feature). */
void skip_unless_features(uint32_t features);

/* The request is `path`, alone and with nothing open.  mode may be NULL; with one that has an
 * identity, the spawn asks for the ids that this process has. */
void scene_begin(struct scene *scene, const struct mode *mode, const char *path);

/* Append one string. */
void scene_candidate(struct scene *scene, const char *path);
void scene_argument(struct scene *scene, const char *word);
void scene_environment(struct scene *scene, const char *word);

/* Append one row: an fd of this process, PR_WE_READ or PR_WE_WRITE.  Returns the row. */
int scene_map(struct scene *scene, int child_fd, int source);

/* A process that calls rescue() when the case is not done within some seconds, or ends without having
 * called guard_end, and then again until that is long ago.  For cases that a defect would hang. */
struct guard {
    int pid;
    int fd;
};
void guard_begin(struct guard *guard, void (*rescue)(void));

/* The case was done in time, or fails. */
void guard_end(struct guard *guard);

/* "/bin/sh -c script" with fd 1 to be read by us (row 0). */
void scene_shell(struct scene *scene, const struct mode *mode, const char *script);

/* The mirror, writing to `child_fd`, which we read (row 0). */
void scene_mirror(struct scene *scene, const struct mode *mode, int child_fd);

/* What scene_mirror() adds to the environment where /proc is elsewhere (see proc_path), for a mirror that
 * was begun otherwise. */
void scene_let_mirror_read_proc(struct scene *scene);

void scene_identity(struct scene *scene, uint32_t uid, uint32_t gid);

/* pr_spawn, with all that the header says of every result checked.  Returns what it returned. */
int scene_spawn(struct scene *scene);

/* All that the header says of every result, of a spawn that returned `code`. */
void scene_check(const struct scene *scene, int code);

/* As scene_spawn, and it must succeed. */
void scene_start(struct scene *scene);

/* As scene_spawn, and it must fail in this way. */
void scene_must_fail(struct scene *scene, int stage, int error, int index);

/* All that comes from row's pipe until its end, in static memory; closes our end. */
const char *scene_read(struct scene *scene, int row);

/* Wait for the child, reap it and close its pidfd and our pipe ends. */
struct pr_exit scene_end(struct scene *scene);

/* As scene_end, and the child must have exited with `code`. */
void scene_must_exit(struct scene *scene, int code);

/* Start, read row 0 and end with exit code 0; what was read. */
const char *scene_run(struct scene *scene);

/* Whether the mirror's text has this very line. */
bool says(const char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define CHECK_SAYS(text, ...)                                                                     \
    do {                                                                                          \
        if (!says(text, __VA_ARGS__))                                                             \
            FAIL("missing the line " __VA_ARGS__);                                                \
    } while (0)

/* What an epoll set watches, by number.  It is what the kernel lists (/proc/self/fdinfo), so an interest
 * shows that outlived its number: one whose file is still open elsewhere. */
enum { WATCHED_ROOM = 32 };
struct watched {
    int count;
    struct watched_fd {
        int fd;
        uint32_t events;    /* EPOLLERR and EPOLLHUP always */
        uint64_t data;
    } fds[WATCHED_ROOM];
};
void list_watched(int epoll_fd, struct watched *watched);

/* Ends the case where the kernel does not list them. */
void skip_unless_watched_are_listed(void);

/* The set watches what PR_FLAG_WATCH promises for this child, and nothing else. */
void scene_check_watched(const struct scene *scene);

/* Open a file of its own inode at exactly `fd`, close-on-exec or not. */
void open_at(int fd, bool close_on_exec);

/* Close the landing slots, which a cold case would be blamed for. */
void close_slots(void);

/* The mirror's line for what `fd` is here, were it `child_fd` there. */
const char *fd_line(int child_fd, int fd);

/* The one of its fds that is for the caller. */
int spawner_fd(const struct pr_spawner *spawner);

/* pr_spawner_take, with the tokens alone. */
int take_tokens(struct pr_spawner *spawner, uint64_t *tokens, uint32_t capacity);

#endif
