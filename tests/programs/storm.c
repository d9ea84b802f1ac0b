/* Sends signals to a process group, or to one process, until fd 0 ends:
 *
 *     storm TARGET NUMBER...      TARGET as kill(2) takes it: -17 is group 17
 *
 * The pause between two rounds lets the target do something other than handle signals.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    const struct timespec pause = {0, 100000};
    if (argc < 3)
        return 2;
    pid_t target = atoi(argv[1]);
    if (write(1, "x", 1) != 1)
        return 3;
    while (ppoll(&input, 1, &pause, NULL) == 0)
        for (int i = 2; i < argc; i++)
            kill(target, atoi(argv[i]));
    return 0;
}
