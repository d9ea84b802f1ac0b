/* What the core learns from refusals, in the probe and later, and that it learns nothing from
 * shortages. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"
#include "twin.h"

static struct scene scene;

/* Features that go when memory is not shared. */
enum {
    NEEDS_VFORK = PR_FEATURE_VFORK | PR_FEATURE_CLONE3 | PR_FEATURE_UNSHARE | PR_FEATURE_HELPER,
};

static uint32_t usual;

/* The features here, asked in a process that nobody else uses. */
static void find_usual(void)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit((int)pr_features());
    waitpid(pid, &status, 0);
    usual = (uint32_t)WEXITSTATUS(status);
    if (~usual & PR_FEATURE_ALL & ~(uint32_t)PR_FEATURE_CLONE3)
        skip("needs features that are not to be had here");
    twin_reset();
}

static void spawn_works(uint32_t mode_without)
{
    scene_shell(&scene, NULL, "echo here");
    scene_start(&scene);
    CHECK_INT(scene.result.mode & mode_without, 0);
    CHECK_TEXT(scene_read(&scene, 0), "here\n");
    scene_must_exit(&scene, 0);
}

/* After a first spawn under the rules of the twin. */
static void must_have_lost(uint32_t lost)
{
    CHECK_INT(pr_features(), usual & ~lost);
    check_no_child();
    spawn_works(lost);
    CHECK_INT(pr_features(), usual & ~lost);
    twin_reset();
    spawn_works(lost); /* and it stays lost */
    close_slots();
}

/* --- the probe -------------------------------------------------------------------------------- */

static const int refusals[] = {ENOSYS, EPERM, EINVAL, EACCES, E2BIG};

struct refused {
    long number;
    int error;
    uint32_t lost;
};

static void probe_refused(void *opaque)
{
    const struct refused *refused = opaque;
    twin_reset();
    twin_deny(refused->number, refused->error);
    must_have_lost(refused->lost);
}

TEST_COLD(a_kernel_or_sandbox_without_clone3_is_learnt)
{
    find_usual();
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct refused refused = {SYS_clone3, refusals[i], PR_FEATURE_CLONE3};
        run_apart(probe_refused, &refused);
    }
}

TEST_COLD(a_kernel_or_sandbox_without_close_range_is_learnt)
{
    const uint32_t both = PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE;
    struct refused missing = {SYS_close_range, ENOSYS, both};
    struct refused denied = {SYS_close_range, EPERM, both};
    struct refused flag = {SYS_close_range, EINVAL, PR_FEATURE_UNSHARE};
    find_usual();
    run_apart(probe_refused, &missing);
    run_apart(probe_refused, &denied);
    run_apart(probe_refused, &flag);
}

static void probe_unshare_denied(void *error)
{
    twin_reset();
    twin_fail(SYS_close_range, 1, *(int *)error); /* the first is with the flag, the second without */
    must_have_lost(PR_FEATURE_UNSHARE);
}

TEST_COLD(a_sandbox_that_denies_the_unsharing_only_does_not_cost_close_range)
{
    int without = ENOSYS, denied = EPERM;
    find_usual();
    run_apart(probe_unshare_denied, &without);
    run_apart(probe_unshare_denied, &denied);
}

static void probe_without_vfork(void *unused)
{
    (void)unused;
    twin_reset();
    twin_fail(SYS_clone3, 0, ENOSYS);
    twin_fail(SYS_clone, 1, EINVAL); /* with a pidfd */
    twin_fail(SYS_clone, 2, EINVAL); /* and without */
    must_have_lost(NEEDS_VFORK);
}

TEST_COLD(a_clone_that_refuses_to_share_memory_is_learnt)
{
    find_usual();
    run_apart(probe_without_vfork, NULL);
}

static void probe_without_clone_pidfd(void *error)
{
    twin_reset();
    twin_deny(SYS_clone3, *(int *)error);
    twin_fail(SYS_clone, 1, *(int *)error);
    must_have_lost(PR_FEATURE_CLONE3 | PR_FEATURE_PIDFD);
}

TEST_COLD(a_clone_that_refuses_pidfds_is_learnt_and_memory_still_shared)
{
    find_usual();
    if (!(usual & PR_FEATURE_PIDFD))
        skip("no pidfds here");
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        run_apart(probe_without_clone_pidfd, (void *)&refusals[i]);
}

static void probe_in_a_copy(void *unused)
{
    (void)unused;
    twin_reset();
    twin_raise(SYS_close_range, 1, SIGKILL); /* the flag in our memory is never written */
    must_have_lost(NEEDS_VFORK);
}

TEST_COLD(memory_that_is_not_shared_is_learnt)
{
    find_usual();
    run_apart(probe_in_a_copy, NULL);
}

static void probe_wait_refused(void *error)
{
    twin_reset();
    twin_fail(SYS_waitid, 1, *(int *)error);
    must_have_lost(PR_FEATURE_PIDFD);
}

TEST_COLD(a_wait_that_knows_no_pidfd_is_learnt_and_leaves_no_zombie)
{
    int without = EINVAL, denied = EPERM;
    find_usual();
    if (!(usual & PR_FEATURE_PIDFD))
        skip("no pidfds here");
    run_apart(probe_wait_refused, &without);
    run_apart(probe_wait_refused, &denied);
}

static void probe_without_any_wait(void *unused)
{
    siginfo_t info;
    (void)unused;
    twin_reset();
    twin_deny(SYS_waitid, EPERM);
    CHECK_INT(pr_features(), usual);
    CHECK_INT(waitid(P_ALL, 0, &info, WEXITED | __WALL), 0);
}

TEST_COLD(where_no_wait_is_allowed_pidfds_are_what_tells_an_end)
{
    find_usual();
    if (!(usual & PR_FEATURE_PIDFD))
        skip("no pidfds here");
    run_apart(probe_without_any_wait, NULL);
}

static void probe_interrupted(void *unused)
{
    (void)unused;
    twin_reset();
    twin_fail(SYS_waitid, 1, EINTR);
    must_have_lost(0);
}

TEST_COLD(an_interrupted_wait_of_the_probe_is_repeated)
{
    find_usual();
    run_apart(probe_interrupted, NULL);
}

static void probe_in_a_shortage(void *error)
{
    twin_reset();
    twin_deny(SYS_clone3, *(int *)error);
    CHECK_INT(pr_features(), 0);
    scene_begin(&scene, NULL, "/bin/true");
    scene_must_fail(&scene, PR_STAGE_CLONE, *(int *)error, -1);
    twin_reset();
    close_slots();
    must_have_lost(0);
}

TEST_COLD(from_a_shortage_nothing_is_learnt)
{
    const int shortages[] = {EAGAIN, ENOMEM, EMFILE, ENFILE};
    find_usual();
    if (!(usual & PR_FEATURE_CLONE3))
        skip("needs features that are not to be had here");
    for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
        run_apart(probe_in_a_shortage, (void *)&shortages[i]);
}

static void count_sigchld(int number)
{
    (void)number;
    FAIL("a SIGCHLD came from the probe");
}

TEST_COLD(the_probe_is_not_heard_of)
{
    signal(SIGCHLD, count_sigchld);
    CHECK(pr_features() != 0);
    signal(SIGCHLD, SIG_DFL);
}

/* --- pr_disable ------------------------------------------------------------------------------- */

static void disable_before(void *features)
{
    pr_disable(*(uint32_t *)features);
    must_have_lost(*(uint32_t *)features);
}

static void disable_after(void *features)
{
    CHECK_INT(pr_features(), usual);
    pr_disable(*(uint32_t *)features);
    must_have_lost(*(uint32_t *)features);
}

TEST_COLD(a_disabled_feature_is_never_used)
{
    find_usual();
    for (uint32_t feature = 1; feature < PR_FEATURE_ALL; feature <<= 1) {
        uint32_t lost = feature == PR_FEATURE_VFORK ? NEEDS_VFORK : feature;
        run_apart(disable_before, &lost);
        run_apart(disable_after, &feature);
    }
}

/* Some sandboxes kill for a call that they do not know. */
TEST_COLD(what_is_disabled_is_not_asked_for)
{
    pr_disable(PR_FEATURE_CLONE3 | PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE);
    CHECK(!(pr_features() & (PR_FEATURE_CLONE3 | PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE)));
    spawn_works(PR_FEATURE_CLONE3 | PR_FEATURE_UNSHARE | PR_FEATURE_CLOSE_RANGE);
    CHECK_INT(twin_count(SYS_clone3) + twin_count(SYS_close_range), 0);
    close_slots();
}

TEST_COLD(without_vfork_there_is_no_child_to_learn_from)
{
    pr_disable(PR_FEATURE_VFORK | PR_FEATURE_PIDFD);
    CHECK(!(pr_features() & NEEDS_VFORK));
    CHECK_INT(twin_logged(TWIN_PARENT), 0);
}

static void ask_without_a_child(void *error)
{
    twin_reset();
    pr_disable(PR_FEATURE_VFORK);
    twin_fail(SYS_waitid, 1, *(int *)error);
    must_have_lost(NEEDS_VFORK | PR_FEATURE_PIDFD);
}

TEST_COLD(a_wait_that_knows_no_pidfd_is_learnt_without_a_child_too)
{
    int without = EINVAL, unknown = ENOSYS, denied = EPERM;
    find_usual();
    if (!(usual & PR_FEATURE_PIDFD))
        skip("no pidfds here");
    run_apart(ask_without_a_child, &without);
    run_apart(ask_without_a_child, &unknown);
    run_apart(ask_without_a_child, &denied);
}

static void ask_without_any_wait(void *unused)
{
    (void)unused;
    twin_reset();
    pr_disable(PR_FEATURE_VFORK);
    twin_deny(SYS_waitid, EPERM);
    CHECK(pr_features() & PR_FEATURE_PIDFD);
}

TEST_COLD(where_no_wait_is_allowed_pidfds_stay_without_a_child_too)
{
    find_usual();
    if (!(usual & PR_FEATURE_PIDFD))
        skip("no pidfds here");
    run_apart(ask_without_any_wait, NULL);
}

/* --- a sandbox that is entered later ---------------------------------------------------------- */

TEST(a_clone3_that_is_refused_later_is_learnt)
{
    uint32_t before = pr_features();
    skip_unless_features(PR_FEATURE_VFORK);
    twin_deny(SYS_clone3, EPERM);
    spawn_works(PR_FEATURE_CLONE3);
    CHECK_INT(pr_features(), before & ~(uint32_t)PR_FEATURE_CLONE3);
}

TEST(a_clone_that_is_refused_later_becomes_a_fork)
{
    uint32_t before = pr_features();
    skip_unless_features(PR_FEATURE_VFORK);
    twin_deny(SYS_clone3, ENOSYS);
    twin_fail(SYS_clone, 1, EINVAL);
    if (before & PR_FEATURE_PIDFD)
        twin_fail(SYS_clone, 2, EINVAL);
    spawn_works(PR_FEATURE_VFORK);
    CHECK(!(pr_features() & PR_FEATURE_VFORK));
    CHECK_INT(pr_features() & PR_FEATURE_PIDFD, before & PR_FEATURE_PIDFD);
}

TEST(a_clone_that_refuses_a_pidfd_later_still_shares_memory)
{
    uint32_t before = pr_features();
    skip_unless_features(PR_FEATURE_VFORK | PR_FEATURE_PIDFD);
    twin_deny(SYS_clone3, EPERM);
    twin_fail(SYS_clone, 1, EPERM);
    spawn_works(PR_FEATURE_PIDFD);
    CHECK_INT(pr_features(), before & ~(uint32_t)(PR_FEATURE_CLONE3 | PR_FEATURE_PIDFD));
    CHECK_INT(twin_count(SYS_clone), 2);
    spawn_works(PR_FEATURE_PIDFD);
    CHECK_INT(twin_count(SYS_clone), 3);
}

TEST(a_program_that_cannot_be_run_is_no_reason_to_ask_for_a_pidfd_again)
{
    uint32_t before = pr_features();
    skip_unless_features(PR_FEATURE_VFORK | PR_FEATURE_PIDFD);
    twin_deny(SYS_clone3, EPERM);
    twin_fail(SYS_clone, 1, EPERM);
    scene_begin(&scene, NULL, "/missing");
    scene_must_fail(&scene, PR_STAGE_EXEC, ENOENT, 0);
    CHECK_INT(pr_features(), before & ~(uint32_t)(PR_FEATURE_CLONE3 | PR_FEATURE_PIDFD));
}

TEST(a_fork_whose_pidfd_is_refused_does_without)
{
    skip_unless_features(PR_FEATURE_VFORK | PR_FEATURE_PIDFD);
    twin_deny(SYS_clone3, ENOSYS);
    twin_fail(SYS_clone, 1, EINVAL);
    twin_fail(SYS_clone, 2, EINVAL);
    twin_fail(SYS_clone, 3, EINVAL);
    spawn_works(PR_FEATURE_PIDFD);
}

TEST(a_clone_that_is_refused_in_every_form_is_reported)
{
    twin_deny(SYS_clone3, EPERM);
    twin_deny(SYS_clone, EPERM);
    scene_begin(&scene, NULL, "/bin/true");
    scene_map(&scene, 1, PR_WE_READ);
    scene_must_fail(&scene, PR_STAGE_CLONE, EPERM, -1);
}

TEST(an_unsharing_that_is_refused_later_is_learnt)
{
    uint32_t before = pr_features();
    skip_unless_features(PR_FEATURE_UNSHARE);
    twin_add((struct twin_rule){TWIN_CHILD, SYS_close_range, 1, -EPERM, 0});
    spawn_works(PR_FEATURE_UNSHARE);
    CHECK_INT(pr_features(), before & ~(uint32_t)PR_FEATURE_UNSHARE);
}

static void enter_time_namespace(void *unused)
{
    (void)unused;
#ifdef CLONE_NEWTIME
    if (unshare(CLONE_NEWTIME) < 0)
#endif
        skip("no time namespaces: %s", strerror(errno));
    spawn_works(0);
}

/* Before Linux 6.2, vfork answers EINVAL there. */
TEST(from_inside_a_new_time_namespace_spawns_work)
{
    skip_unless_root();
    run_apart(enter_time_namespace, NULL);
}
