/* Children that become another user, by the launcher and by fork.  Root only. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

enum { NOBODY = 65534, SOMEBODY = 12345 };

static struct scene scene;

static const struct mode by_identity[] = {
    {"by the launcher", 0, true},
    {"by fork", PR_FEATURE_HELPER, true},
    {"by fork without vfork", PR_FEATURE_VFORK, true},
    {0},
};

/* Where every user can run the mirror, wherever this was built. */
static char public_place[] = "/tmp/procreactor-XXXXXX", public_mirror[64];

static void publish_mirror(void)
{
    struct stat facts;
    CHECK(mkdtemp(public_place) != NULL);
    CHECK_INT(chmod(public_place, 0755), 0);
    snprintf(public_mirror, sizeof public_mirror, "%s/mirror", public_place);
    int from = open(mirror_path, O_RDONLY | O_CLOEXEC);
    int to = open(public_mirror, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    CHECK(from >= 0 && to >= 0);
    fstat(from, &facts);
    CHECK_INT(sendfile(to, from, NULL, (size_t)facts.st_size), facts.st_size);
    close(from);
    close(to);
}

static void unpublish_mirror(void)
{
    unlink(public_mirror);
    rmdir(public_place);
}

static void begin(void)
{
    scene_begin(&scene, NULL, public_mirror);
    scene_argument(&scene, "1");
    scene_map(&scene, 1, PR_WE_READ);
    scene_let_mirror_read_proc(&scene);
}

/* --- who the child is ------------------------------------------------------------------------- */

TEST_IN_MODES(uid_gid_and_groups_are_those_asked_for, by_identity)
{
    const uint32_t groups[] = {7, 1000000, 4294967294U, 12};
    publish_mirror();
    begin();
    scene_identity(&scene, NOBODY, SOMEBODY);
    scene.request.groups = groups;
    scene.request.group_count = 4;
    scene.request.death_signal = SIGUSR1;
    scene.request.flags |= PR_FLAG_NO_NEW_PRIVS | PR_FLAG_SIGMASK;
    scene.request.signal_mask = UINT64_C(1) << 63 | UINT64_C(1) << 9;
    const char *text = scene_run(&scene);
    CHECK_SAYS(text, "uids %d %d %d", NOBODY, NOBODY, NOBODY);
    CHECK_SAYS(text, "gids %d %d %d", SOMEBODY, SOMEBODY, SOMEBODY);
    CHECK(strstr(text, "\nGroups:\t7 12 1000000 4294967294"));
    CHECK_SAYS(text, "death signal %d", SIGUSR1); /* which a change of uid clears */
    CHECK_SAYS(text, "NoNewPrivs:\t1");
    CHECK_SAYS(text, "SigBlk:\t8000000000000200");
    CHECK_SAYS(text, "CapEff:\t0000000000000000");
    CHECK_SAYS(text, "CapPrm:\t0000000000000000");
    unpublish_mirror();
}

TEST_IN_MODES(without_groups_there_are_none, by_identity)
{
    const gid_t ours[] = {4, 27};
    CHECK_INT(setgroups(2, ours), 0);
    publish_mirror();
    begin();
    scene_identity(&scene, NOBODY, NOBODY);
    CHECK_SAYS(scene_run(&scene), "Groups:\t "); /* the kernel ends the list with a space */
    unpublish_mirror();
}

TEST_IN_MODES(many_groups_candidates_and_arguments_keep_their_order, by_identity)
{
    uint32_t groups[200];
    publish_mirror();
    begin();
    scene.request.candidates.count = 0;
    scene.request.candidates.size = 0;
    for (int i = 0; i < 20; i++)
        scene_candidate(&scene, "/nowhere/program");
    scene_candidate(&scene, public_mirror);
    scene_argument(&scene, "0");
    scene_argument(&scene, "last");
    for (uint32_t i = 0; i < 200; i++)
        groups[i] = 1000 + i;
    scene_identity(&scene, NOBODY, NOBODY);
    scene.request.groups = groups;
    scene.request.group_count = 200;
    const char *text = scene_run(&scene);
    CHECK(strstr(text, "argument 1\nargument 0\nargument last\npid "));
    CHECK(strstr(text, "Groups:\t1000 1001 1002 "));
    CHECK(strstr(text, " 1198 1199"));
    unpublish_mirror();
}

/* --- who we stay ------------------------------------------------------------------------------ */

TEST_IN_MODES(the_parent_stays_who_it_is_and_dumpable, by_identity)
{
    uint32_t ids[3];
    scene_begin(&scene, NULL, "/bin/true");
    scene_identity(&scene, NOBODY, NOBODY);
    CHECK_INT(prctl(PR_GET_DUMPABLE), 1);
    scene_start(&scene);
    scene_must_exit(&scene, 0);
    CHECK_INT(prctl(PR_GET_DUMPABLE), 1);
    getresuid(&ids[0], &ids[1], &ids[2]);
    CHECK(ids[0] == 0 && ids[1] == 0 && ids[2] == 0);
}

/* --- parents that are root in part ------------------------------------------------------------ */

static void spawn_after_seteuid(void *unused)
{
    (void)unused;
    CHECK_INT(setegid(NOBODY), 0);
    CHECK_INT(seteuid(NOBODY), 0);
    begin();
    scene_identity(&scene, SOMEBODY, SOMEBODY);
    const char *text = scene_run(&scene);
    CHECK(!(scene.result.mode & PR_FEATURE_HELPER));
    CHECK_SAYS(text, "uids %d %d %d", SOMEBODY, SOMEBODY, SOMEBODY);
    CHECK_INT(geteuid(), NOBODY);
}

TEST(a_daemon_that_put_root_aside_takes_it_back_for_its_child)
{
    skip_unless_root();
    publish_mirror();
    run_apart(spawn_after_seteuid, NULL);
    unpublish_mirror();
}

static void spawn_as_nobody_special(void *unused)
{
    (void)unused;
    CHECK_INT(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0), 0);
    begin();
    scene_identity(&scene, SOMEBODY, SOMEBODY);
    const char *text = scene_run(&scene);
    CHECK(!(scene.result.mode & PR_FEATURE_HELPER));
    CHECK_SAYS(text, "uids %d %d %d", SOMEBODY, SOMEBODY, SOMEBODY);
}

/* There uid 0 gives no capabilities at exec, and the launcher would have none. */
TEST(a_parent_whose_root_is_nobody_special_forks)
{
    skip_unless_root();
    publish_mirror();
    run_apart(spawn_as_nobody_special, NULL);
    unpublish_mirror();
}

static void spawn_with_capabilities(void *unused)
{
    const uint32_t needed = 1U << CAP_SETUID | 1U << CAP_SETGID;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{needed, needed, needed}, {0, 0, 0}};
    (void)unused;
    CHECK_INT(prctl(PR_SET_KEEPCAPS, 1), 0);
    CHECK_INT(setresuid(NOBODY, NOBODY, NOBODY), 0);
    CHECK_INT(syscall(SYS_capset, &header, data), 0);
    CHECK_INT(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0), 0);
    CHECK_INT(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETGID, 0, 0), 0);
    begin();
    scene_identity(&scene, SOMEBODY, SOMEBODY);
    const char *text = scene_run(&scene);
    CHECK(!(scene.result.mode & PR_FEATURE_HELPER));
    CHECK_SAYS(text, "uids %d %d %d", SOMEBODY, SOMEBODY, SOMEBODY);
    CHECK_SAYS(text, "CapEff:\t0000000000000000");
    CHECK_SAYS(text, "CapPrm:\t0000000000000000");
    CHECK_SAYS(text, "CapAmb:\t0000000000000000");
}

TEST(the_capabilities_of_a_parent_that_is_not_root_do_not_reach_the_child)
{
    skip_unless_root();
    publish_mirror();
    run_apart(spawn_with_capabilities, NULL);
    unpublish_mirror();
}

/* --- the launcher by itself ------------------------------------------------------------------- */

static void must_refuse(int count, const char *const *words)
{
    scene_begin(&scene, NULL, launcher_path);
    for (int i = 0; i < count; i++)
        scene_argument(&scene, words[i]);
    scene_map(&scene, 2, PR_WE_READ);
    scene_start(&scene);
    CHECK_TEXT(scene_read(&scene, 0), "procreactor's launcher: started by procreactor only\n");
    scene_must_exit(&scene, 2);
}

TEST(the_launcher_refuses_to_be_run_by_hand)
{
    const char *const words[] = {"2", "0", "0", "0", "0", "0", "0", "1", "1", "7", "/bin/true"};
    for (int count = 0; count <= 11; count++)
        must_refuse(count, words);
    const char *const no_candidate[] = {"2", "0", "0", "0", "0", "0", "0", "0", "0", "/bin/true"};
    must_refuse(10, no_candidate);
    const char *const too_many[] = {
        "2", "0", "0", "0", "0", "0", "0", "4294967295", "1", "/bin/true", "true"};
    must_refuse(11, too_many);
    const char *const wraps[] = {
        "2", "0", "0", "0", "0", "0", "0", "4294967295", "4294967295", "/bin/true", "true"};
    must_refuse(11, wraps);
}

/* --- the death of the parent ------------------------------------------------------------------ */

struct orphanage {
    int out;
};

static void spawn_a_child_that_stops(void *opaque)
{
    const struct orphanage *orphanage = opaque;
    scene_begin(&scene, NULL, "/bin/sh");
    scene_argument(&scene, "-c");
    scene_argument(&scene, "echo ran");
    scene_map(&scene, 1, orphanage->out);
    scene.request.death_signal = SIGUSR1;
    twin_raise(SYS_prctl, 1, SIGSTOP);
    scene_spawn(&scene);
    FAIL("the parent outlived its death");
}

/* Killed in the middle of the spawn, before the death signal was set: none will ever come. */
TEST(a_child_whose_parent_was_killed_too_early_never_becomes_the_program)
{
    int ends[2], status;
    siginfo_t info;
    if (!(pr_features() & PR_FEATURE_VFORK))
        skip("a fork that stops is killed by its parent");
    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    struct orphanage orphanage = {ends[1]};
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t parent = fork();
    if (parent == 0) {
        spawn_a_child_that_stops(&orphanage);
        _exit(0);
    }
    while (twin_count(SYS_prctl) == 0)
        sched_yield();
    CHECK_INT(kill(parent, SIGKILL), 0);
    CHECK_INT(waitpid(parent, &status, 0), parent);
    CHECK_INT(waitid(P_ALL, 0, &info, WSTOPPED), 0); /* the orphan is ours now */
    CHECK_INT(kill(info.si_pid, SIGCONT), 0);
    CHECK_INT(waitpid(info.si_pid, &status, 0), info.si_pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 127);
    char byte;
    close(ends[1]);
    CHECK_INT(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}
