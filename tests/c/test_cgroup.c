/* Children that are born into a cgroup, or enter one by hand where clone3 cannot. */
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static struct scene scene;

static const struct mode ways[] = {
    {"by clone3", 0, false},
    {"by hand", PR_FEATURE_CLONE3, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {0},
};

static char group[4096];

/* "cat /proc/self/cgroup", in static memory. */
static const char *tell_cgroup(void)
{
    static char script[600];
    snprintf(script, sizeof script, "cat %s", proc_path("self/cgroup"));
    return script;
}

/* A cgroup of our own below the mount of cgroup v2; skips where there is none to be had.  Not with the
 * package's own prefix: what has that and no owner is removed by the next program that uses it. */
static int make_group(void)
{
    FILE *mounts = setmntent(proc_path("self/mounts"), "r");
    struct mntent *mount;
    group[0] = 0;
    while (mounts && (mount = getmntent(mounts)))
        if (strcmp(mount->mnt_type, "cgroup2") == 0)
            snprintf(group, sizeof group, "%s/tests-of-procreactor-%d", mount->mnt_dir, getpid());
    if (mounts)
        endmntent(mounts);
    if (!group[0] || mkdir(group, 0755) < 0)
        skip("no cgroup v2 that we may use");
    int fd = open(group, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void remove_group(int fd)
{
    close(fd);
    CHECK_INT(rmdir(group), 0);
}

TEST_IN_MODES(a_child_is_in_the_cgroup_that_was_asked_for, ways)
{
    int fd = make_group();
    scene_shell(&scene, mode, tell_cgroup());
    scene.request.cgroup_fd = fd;
    scene_start(&scene);
    bool is_there = strstr(scene_read(&scene, 0), strrchr(group, '/'));
    scene_must_exit(&scene, 0);
    remove_group(fd);
    CHECK(is_there);
}

static void enter_by_hand(int error)
{
    int fd = make_group();
    uint32_t features = pr_features();
    scene_shell(&scene, NULL, tell_cgroup());
    scene.request.cgroup_fd = fd;
    twin_fail(SYS_clone3, 1, error);
    scene_start(&scene);
    bool is_there = strstr(scene_read(&scene, 0), strrchr(group, '/'));
    scene_must_exit(&scene, 0);
    twin_reset();
    remove_group(fd);
    CHECK(is_there);
    CHECK_INT(pr_features(), features); /* a clone3 without cgroups is still a clone3 */
}

static void write_file(const char *name, const char *text)
{
    char path[sizeof group + 64];
    snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, 1) != 1)
        close(fd), fd = -1;
    if (fd >= 0)
        close(fd);
}

static void thaw_and_remove(void)
{
    char below[sizeof group + 64];
    snprintf(below, sizeof below, "%s/below", group);
    write_file("cgroup.freeze", "0");
    rmdir(below);
    rmdir(group);
}

static int open_events(void)
{
    char path[sizeof group + 64];
    snprintf(path, sizeof path, "%s/cgroup.events", group);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

TEST(another_may_be_born_where_nobody_is_and_nothing_was_left)
{
    char below[sizeof group + 64];
    int fd = make_group(), events_fd = open_events();
    snprintf(below, sizeof below, "%s/below", group);
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 1);
    CHECK_INT(mkdir(below, 0755), 0);
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 0);
    CHECK_INT(rmdir(below), 0);
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 1);
    scene_shell(&scene, NULL, "read word");
    scene_map(&scene, 0, PR_WE_WRITE);
    scene.request.cgroup_fd = fd;
    scene_start(&scene);
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 0);
    scene_end(&scene);
    while (!pr_cgroup_is_as_new(fd, events_fd)) /* the kernel may take the reaped out of it a little later */
        sched_yield();
    write_file("cgroup.freeze", "1");
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 0);
    write_file("cgroup.freeze", "0");
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 1);
    remove_group(fd);
    CHECK_INT(pr_cgroup_is_as_new(fd, events_fd), 0);
    close(events_fd);
}

TEST(of_what_is_no_group_nothing_is_as_new)
{
    int fd = make_group();
    CHECK_INT(pr_cgroup_is_as_new(fd, -1), -EBADF);
    int events_fd = open_events();
    CHECK_INT(pr_cgroup_is_as_new(-1, events_fd), 0);
    close(events_fd);
    remove_group(fd);
}

static const struct mode frozen_ways[] = {
    {"by clone3", 0, false},
    {"by hand", PR_FEATURE_CLONE3, false},
    {"by pid", PR_FEATURE_PIDFD, false},
    {"by fork", PR_FEATURE_VFORK, false},
    {"by the launcher", 0, true},
    {"identity by fork", PR_FEATURE_HELPER, true},
    {0},
};

static void must_not_wait_in(int group_fd, const struct mode *mode)
{
    struct guard guard;
    guard_begin(&guard, thaw_and_remove);
    write_file("cgroup.freeze", "1");
    scene_begin(&scene, mode, "/bin/true");
    scene_map(&scene, 1, PR_WE_READ);
    scene.request.cgroup_fd = group_fd;
    scene.request.flags |= PR_FLAG_MAY_FREEZE;
    scene_must_fail(&scene, PR_STAGE_FROZEN, EBUSY, -1);
    write_file("cgroup.freeze", "0");
    scene_start(&scene);
    scene_must_exit(&scene, 0);
    guard_end(&guard);
}

TEST_IN_MODES(a_child_whose_cgroup_is_frozen_is_not_waited_for, frozen_ways)
{
    int fd = make_group();
    must_not_wait_in(fd, mode);
    remove_group(fd);
}

TEST_IN_MODES(nor_is_one_that_is_frozen_from_above, frozen_ways)
{
    char below[sizeof group + 64];
    int fd = make_group();
    snprintf(below, sizeof below, "%s/below", group);
    CHECK_INT(mkdir(below, 0755), 0);
    int below_fd = open(below, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    must_not_wait_in(below_fd, mode);
    close(below_fd);
    CHECK_INT(rmdir(below), 0);
    remove_group(fd);
}

TEST(a_child_that_may_be_frozen_and_is_not_starts_where_futexes_are_denied)
{
    int fd = make_group();
    scene_shell(&scene, NULL, "echo on");
    scene.request.cgroup_fd = fd;
    scene.request.flags |= PR_FLAG_MAY_FREEZE;
    twin_deny(SYS_futex, EPERM);
    CHECK_TEXT(scene_run(&scene), "on\n");
    twin_reset();
    remove_group(fd);
}

TEST(a_kernel_that_cannot_clone_into_a_cgroup_is_no_kernel_without_clone3)
{
    skip_unless_features(PR_FEATURE_CLONE3);
    enter_by_hand(E2BIG);
    enter_by_hand(EOPNOTSUPP);
}
