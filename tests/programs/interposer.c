/* A library for LD_PRELOAD: stands before libc's fork, exec and fd functions, as sandboxes do.
 *
 * It counts who calls, into memory that every descendant shares until it execs: this process, or
 * another, which can only be a child between clone and exec.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile struct {
    long here;
    long elsewhere;
} *counts;
static pid_t home;

__attribute__((constructor)) static void begin(void)
{
    home = getpid();
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void *called(const char *name)
{
    if (counts) {
        if (syscall(SYS_getpid) == home)
            counts->here++;
        else
            counts->elsewhere++;
    }
    return dlsym(RTLD_NEXT, name);
}

long interposer_here(void)
{
    return counts->here;
}

long interposer_elsewhere(void)
{
    return counts->elsewhere;
}

#define BEFORE(result, name, parameters, arguments)            \
    result name parameters                                     \
    {                                                          \
        return ((result(*) parameters)called(#name))arguments; \
    }

BEFORE(pid_t, fork, (void), ())
BEFORE(int, close, (int fd), (fd))
BEFORE(int, dup2, (int from, int to), (from, to))
BEFORE(int, dup3, (int from, int to, int flags), (from, to, flags))
BEFORE(int, execv, (const char *path, char *const *argv), (path, argv))
BEFORE(int, execve, (const char *path, char *const *argv, char *const *env), (path, argv, env))
BEFORE(int, chdir, (const char *path), (path))
BEFORE(pid_t, setsid, (void), ())
BEFORE(int, setuid, (uid_t uid), (uid))
BEFORE(int, setgid, (gid_t gid), (gid))
