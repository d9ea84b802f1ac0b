/* Writes its arguments and its environment: the number of arguments in decimal, the arguments, the
 * variables, each ended by NUL. */
#include <stdio.h>

int main(int argc, char **argv, char **env)
{
    printf("%d%c", argc, 0);
    for (int i = 0; i < argc; i++)
        printf("%s%c", argv[i], 0);
    for (; *env; env++)
        printf("%s%c", *env, 0);
    return fflush(stdout) ? 1 : 0;
}
