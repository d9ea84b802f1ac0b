/* Says what it is: its status of proc(5), and two facts that are not in there, as lines "Name:\tvalue".
 *
 *     DeathSignal  what prctl(PR_GET_PDEATHSIG) gives
 *     Foreground   1 when its group is the one in the foreground of the terminal on fd 0
 *
 * PROC is where the tests find proc(5): "/proc", but in a world without that.
 */
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
    char line[1024];
    int number = 0;
    FILE *status = fopen(PROC "/self/status", "r");
    if (!status)
        return 2;
    while (fgets(line, sizeof line, status))
        fputs(line, stdout);
    fclose(status);
    prctl(PR_GET_PDEATHSIG, &number);
    printf("DeathSignal:\t%d\n", number);
    printf("Foreground:\t%d\n", tcgetpgrp(0) == getpgrp());
    return fflush(stdout) ? 3 : 0;
}
