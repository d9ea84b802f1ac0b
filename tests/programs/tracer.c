/* Traces a process and keeps its zombie to itself: `tracer PID`.
 *
 * Writes "s" once it traces; then waits for fd 0 to end, and only then for the process.  In
 * between, the process may have ended, and its parent may not have it.
 */
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char ignored[64];
    int status;
    pid_t pid = argc == 2 ? atoi(argv[1]) : 0;
    if (pid <= 0 || ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
        return 2;
    if (write(1, "s", 1) != 1)
        return 3;
    while (read(0, ignored, sizeof ignored) > 0)
        ;
    while (waitpid(pid, &status, __WALL) == pid && !WIFEXITED(status) && !WIFSIGNALED(status))
        ptrace(PTRACE_CONT, pid, 0, 0);
    return 0;
}
