/* Ends in the way that it is told to:
 *
 *     end exit N      with code N
 *     end signal N    by sending itself signal N, which may be any of 1 to 64
 *     end wait N      with code N, once all that comes on fd 0 has come
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char ignored[64];
    if (argc != 3)
        return 255;
    int number = atoi(argv[2]);
    if (strcmp(argv[1], "signal") == 0)
        kill(getpid(), number); /* libc's raise would refuse its own two, 32 and 33 */
    else if (strcmp(argv[1], "wait") == 0)
        while (read(0, ignored, sizeof ignored) > 0)
            ;
    _exit(number);
}
