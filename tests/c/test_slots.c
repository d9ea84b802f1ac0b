/* Landing slots: high fds reach a child that shares the table, and come to no harm here. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "slots.h"
#include "twin.h"

static struct scene scene;

/* As in a server: all low numbers are taken, new fds are high. */
static void fill_fds_up_to(int end)
{
    for (int fd; (fd = fcntl(0, F_DUPFD_CLOEXEC, 3)) < end;)
        CHECK(fd >= 0);
}

/* The slots of this process: where its placeholder, the highest fd below the cut's 64, is found. */
static int list_slots(int *fds, int room)
{
    struct fd_list *list = malloc(sizeof *list);
    int found = 0;
    list_fds(list);
    for (int i = 0; i < list->count; i++) {
        struct stat facts;
        if (fstat(list->fds[i].fd, &facts) == 0 && S_ISFIFO(facts.st_mode) && found < room)
            fds[found++] = list->fds[i].fd;
    }
    free(list);
    return found;
}

TEST(the_slots_lie_below_a_cut_that_is_whole_words)
{
    skip_under_valgrind("fds are open that are not ours");
    int fds[64], count = list_slots(fds, 64);
    unsigned cut = pr_slots_cut();
    CHECK_INT(count, 25);
    CHECK(cut > 0 && cut % 64 == 0);
    for (int i = 0; i < count; i++)
        CHECK(fds[i] > 2 && (unsigned)fds[i] < cut);
    CHECK_INT(pr_reserve(), 0);
    CHECK_INT(list_slots(fds, 64), count);
}

TEST_COLD(slots_never_take_a_closed_stdio)
{
    skip_under_valgrind("fds are open that are not ours");
    int fds[64], fd;
    struct stat nothing, now;
    fstat(0, &nothing);
    close(0);
    CHECK_INT(pr_reserve(), 0);
    CHECK_INT(list_slots(fds, 64), 25);
    CHECK(fds[0] > 2);
    close_slots();
    fd = open("/dev/null", O_RDWR);
    CHECK_INT(fd, 0);
    fstat(0, &now);
    CHECK(now.st_ino == nothing.st_ino);
}

TEST(with_many_fds_open_pipes_land_and_the_table_is_shared)
{
    skip_unless_features(PR_FEATURE_UNSHARE);
    struct fd_list *before = malloc(sizeof *before);
    fill_fds_up_to(300);
    open_at(500, false);
    list_fds(before);
    scene_mirror(&scene, NULL, 1);
    scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    CHECK(scene.result.mode & PR_FEATURE_UNSHARE);
    CHECK(scene.ours[0] >= 300);
    const char *text = scene_read(&scene, 0);
    CHECK(strstr(text, "fd 0 "));
    CHECK(!strstr(text, "\nfd ")); /* no other line of the kind */
    scene_must_exit(&scene, 0);
    check_same_fds(before);
    free(before);
    close_fds(28, 600);
}

TEST(the_end_of_a_landed_pipe_is_seen_while_the_child_lives_on)
{
    fill_fds_up_to(300);
    scene_shell(&scene, NULL, "exec >&-; read word");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    scene_start(&scene);
    CHECK_TEXT(scene_read(&scene, 0), "");
    CHECK_INT(write(scene.ours[in], "\n", 1), 1);
    scene_must_exit(&scene, 0);
    close_fds(28, 600);
}

TEST(more_high_rows_than_slots_do_without_sharing)
{
    fill_fds_up_to(160);
    scene_mirror(&scene, NULL, 1);
    for (int i = 0; i < 30; i++) {
        open_at(200 + i, true);
        scene_map(&scene, 40 + i, 200 + i);
    }
    scene_start(&scene);
    CHECK(!(scene.result.mode & PR_FEATURE_UNSHARE));
    const char *text = scene_read(&scene, 0);
    for (int i = 0; i < 30; i++)
        CHECK(says(text, "%s", fd_line(40 + i, 200 + i)));
    scene_must_exit(&scene, 0);
    for (int i = 0; i < 3; i++) { /* and the slots are all free again */
        skip_unless_features(PR_FEATURE_UNSHARE);
        scene_begin(&scene, NULL, "/bin/true");
        for (int row = 0; row < 24; row++)
            scene_map(&scene, row, PR_WE_READ);
        scene_start(&scene);
        CHECK(scene.result.mode & PR_FEATURE_UNSHARE);
        scene_must_exit(&scene, 0);
    }
    close_fds(28, 300);
}

/* Closing any fd of a file gives up this process's POSIX locks on it: fcntl(2).  A slot is closed. */
static void lock_is_held(void *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_GETLK, &lock), 0);
    CHECK_INT(lock.l_type, F_WRLCK);
    CHECK_INT(lock.l_pid, getppid());
}

TEST(a_lock_on_a_file_that_is_passed_on_is_kept)
{
    char path[] = "/tmp/procreactor-XXXXXX";
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int file = mkstemp(path);
    CHECK(file >= 0);
    CHECK_INT(dup3(file, 400, O_CLOEXEC), 400);
    close(file);
    CHECK_INT(fcntl(400, F_SETLK, &lock), 0);
    run_apart(lock_is_held, path);
    scene_mirror(&scene, NULL, 1);
    scene_map(&scene, 0, 400);
    const char *text = scene_run(&scene);
    CHECK(says(text, "%s", fd_line(0, 400)));
    run_apart(lock_is_held, path);
    unlink(path);
    close(400);
}

TEST(high_sockets_and_terminals_may_land)
{
    skip_unless_features(PR_FEATURE_UNSHARE);
    int ends[2];
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    CHECK_INT(dup3(ends[0], 400, O_CLOEXEC), 400);
    CHECK_INT(dup3(0, 401, O_CLOEXEC), 401);
    scene_mirror(&scene, NULL, 1);
    scene_map(&scene, 0, 400);
    scene_map(&scene, 2, 401);
    scene_start(&scene);
    CHECK(scene.result.mode & PR_FEATURE_UNSHARE);
    CHECK(says(scene_read(&scene, 0), "%s", fd_line(0, 400)));
    scene_must_exit(&scene, 0);
    close(ends[0]);
    close(ends[1]);
    close(400);
    close(401);
}

/* --- when somebody else closes what is not his ------------------------------------------------ */

static void close_every_slot(void *unused)
{
    int fds[64], count = list_slots(fds, 64);
    (void)unused;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    for (int i = 0; i < count; i++)
        open_at(fds[i], true); /* and the numbers now are other files */
    open_at(200, true);
    struct fd_list *before = malloc(sizeof *before);
    list_fds(before);
    for (int i = 0; i < 3; i++) {
        scene_mirror(&scene, NULL, 1);
        scene_map(&scene, 0, 200);
        CHECK(says(scene_run(&scene), "%s", fd_line(0, 200)));
        CHECK(!(scene.result.mode & PR_FEATURE_UNSHARE));
    }
    check_same_fds(before);
}

TEST(slots_that_became_other_files_are_left_alone)
{
    skip_under_valgrind("fds are open that are not ours");
    run_apart(close_every_slot, NULL);
}

static void take_number_of_slot_in_use(void *unused)
{
    int ends[2];
    struct stat before, after;
    (void)unused;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    int slot = pr_slots_land(ends[0]);
    CHECK(slot > 2);
    open_at(slot, true);
    fstat(slot, &before);
    pr_slots_release(slot);
    CHECK_INT(fstat(slot, &after), 0);
    CHECK(after.st_ino == before.st_ino);
    for (int i = 0; i < 24; i++) /* and it is no slot any more */
        CHECK(pr_slots_land(ends[0]) != slot);
}

TEST(a_slot_that_became_another_file_while_in_use_is_left_alone)
{
    run_apart(take_number_of_slot_in_use, NULL);
}

static void close_slot_in_use(void *unused)
{
    int ends[2];
    (void)unused;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    int slot = pr_slots_land(ends[0]);
    close(slot);
    pr_slots_release(slot);
    CHECK_INT(fcntl(slot, F_GETFD), -1); /* free for others, as who closed it may count on */
}

TEST(a_slot_that_was_closed_while_in_use_stays_closed)
{
    run_apart(close_slot_in_use, NULL);
}

static void close_placeholder(void *unused)
{
    int fds[64];
    (void)unused;
    CHECK_INT(list_slots(fds, 64), 25);
    close(fds[0]); /* the first to be opened, so the lowest */
    fill_fds_up_to(160);
    for (int i = 0; i < 30; i++) {
        scene_shell(&scene, NULL, "exec >&-; read word");
        int in = scene_map(&scene, 0, PR_WE_WRITE);
        scene_start(&scene);
        CHECK_TEXT(scene_read(&scene, 0), "");
        CHECK_INT(write(scene.ours[in], "\n", 1), 1);
        scene_must_exit(&scene, 0);
    }
}

TEST(without_the_placeholder_slots_are_given_up_one_by_one)
{
    skip_under_valgrind("fds are open that are not ours");
    run_apart(close_placeholder, NULL);
}

static void refuse_to_empty(void *unused)
{
    (void)unused;
    twin_reset();
    fill_fds_up_to(160);
    scene_shell(&scene, NULL, "exec >&-; read word");
    int in = scene_map(&scene, 0, PR_WE_WRITE);
    twin_add((struct twin_rule){TWIN_PARENT, SYS_dup3, 3, -EPERM, 0}); /* two landed, first emptied */
    twin_add((struct twin_rule){TWIN_PARENT, SYS_dup3, 4, -EPERM, 0});
    scene_start(&scene);
    CHECK_TEXT(scene_read(&scene, 0), "");
    CHECK_INT(write(scene.ours[in], "\n", 1), 1);
    scene_must_exit(&scene, 0);
}

TEST(a_slot_that_cannot_be_emptied_is_closed)
{
    run_apart(refuse_to_empty, NULL);
}

TEST(a_slot_that_cannot_be_used_is_not_used)
{
    skip_unless_features(PR_FEATURE_UNSHARE);
    fill_fds_up_to(160);
    scene_shell(&scene, NULL, "echo here");
    twin_add((struct twin_rule){TWIN_PARENT, SYS_dup3, 1, -EPERM, 0});
    scene_start(&scene);
    CHECK(!(scene.result.mode & PR_FEATURE_UNSHARE));
    CHECK_TEXT(scene_read(&scene, 0), "here\n");
    scene_must_exit(&scene, 0);
    close_fds(28, 600);
}

static void refuse_to_land(void *unused)
{
    int ends[2];
    (void)unused;
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < 30; i++) { /* more than there are */
        twin_reset();
        twin_fail(SYS_dup3, 1, EPERM);
        CHECK_INT(pr_slots_land(ends[0]), -1);
    }
    twin_reset();
    twin_fail(SYS_dup3, 1, EBUSY);
    int slot = pr_slots_land(ends[0]);
    CHECK(slot > 2);
    twin_reset();
    twin_fail(SYS_dup3, 1, EBUSY);
    pr_slots_release(slot);
    CHECK_INT(pr_slots_land(ends[0]), slot);
}

/* A refusal is for once; and dup3 is asked again where another thread is just opening something. */
TEST(a_slot_that_could_not_be_used_is_free_for_the_next)
{
    run_apart(refuse_to_land, NULL);
}

/* --- reserving -------------------------------------------------------------------------------- */

static void reserve_with_room_for(void *opaque)
{
    int room = *(int *)opaque;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t whole = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)(3 + room);
    setrlimit(RLIMIT_NOFILE, &limit);
    int result = pr_reserve(), fds[64];
    limit.rlim_cur = whole;
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK_INT(result, room < 3 ? -EMFILE : 0); /* a pipe and its copy */
    /* An eighth of what is left above the placeholder, which is number 5, and at most 24. */
    int slots = (room - 2) / 8 < 24 ? (room - 2) / 8 : 24;
    CHECK_INT(list_slots(fds, 64), result < 0 ? 0 : 1 + slots); /* the placeholder is one */
    fill_fds_up_to(160);
    scene_shell(&scene, NULL, "echo here");
    CHECK_TEXT(scene_run(&scene), "here\n");
}

TEST_COLD(with_little_room_there_are_fewer_slots)
{
    skip_under_valgrind("fds are open that are not ours");
    for (int room = 0; room < 30; room++)
        run_apart(reserve_with_room_for, &room);
    for (int room = 190; room < 200; room++)
        run_apart(reserve_with_room_for, &room);
}

TEST_COLD(slots_that_were_not_to_be_had_may_be_had_later)
{
    twin_fail(SYS_pipe2, 1, EMFILE);
    CHECK_INT(pr_reserve(), -EMFILE);
    CHECK_INT(pr_slots_cut(), 0);
    CHECK_INT(pr_reserve(), 0);
    CHECK(pr_slots_cut() > 0);
    close_slots();
}

static void reserve_without_fstat(void *unused)
{
    (void)unused;
    twin_fail(SYS_fstat, 1, EPERM);
    CHECK_INT(pr_reserve(), -EPERM);
    twin_reset();
    struct fd_list *list = malloc(sizeof *list);
    list_fds(list);
    CHECK_INT(list->fds[list->count - 1].fd, VOICE); /* nothing but stdio and the harness's own */
    CHECK_INT(list->count, 4);
    free(list);
}

TEST_COLD(a_placeholder_that_cannot_be_recognised_is_none)
{
    skip_under_valgrind("fds are open that are not ours");
    run_apart(reserve_without_fstat, NULL);
}
