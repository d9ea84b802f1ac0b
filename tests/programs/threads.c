/* Does with threads what confuses those who think that a process is its first thread:
 *
 *     threads exec PROGRAM ARG...   a second thread execs; the first one never returns
 *     threads survive N             the first thread ends; the second writes "x", waits for the end
 *                                   of fd 0, and ends the process with code N
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *exec_thread(void *argv)
{
    execv(((char **)argv)[0], argv);
    _exit(126);
}

static void *surviving_thread(void *code)
{
    char ignored[64];
    if (write(1, "x", 1) != 1)
        _exit(125);
    while (read(0, ignored, sizeof ignored) > 0)
        ;
    _exit(atoi(code));
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "survive") == 0) {
        pthread_create(&thread, NULL, surviving_thread, argv[2]);
        pthread_exit(NULL);
    }
    pthread_create(&thread, NULL, exec_thread, argv + 2);
    for (;;)
        pause();
}
