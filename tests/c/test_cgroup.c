/* Children that are born into a cgroup, or enter one by hand where clone3 cannot. */
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
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

/* A cgroup of our own below the mount of cgroup v2; skips where there is none to be had. */
static int make_group(void)
{
    FILE *mounts = setmntent("/proc/self/mounts", "r");
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
    scene_shell(&scene, mode, "cat /proc/self/cgroup");
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
    scene_shell(&scene, NULL, "cat /proc/self/cgroup");
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

TEST(a_kernel_that_cannot_clone_into_a_cgroup_is_no_kernel_without_clone3)
{
    skip_unless_features(PR_FEATURE_CLONE3);
    enter_by_hand(E2BIG);
    enter_by_hand(EOPNOTSUPP);
}
