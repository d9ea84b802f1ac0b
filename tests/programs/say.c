/* Writes so many bytes to fd 1, then so many to fd 2, and ends: `say OUT ERROR CODE`.
 *
 * Byte i of fd f is (7 * i + f) % 251, so that one that is missing, doubled or in the wrong place is
 * seen: 251 is prime, and no size of a buffer is a multiple of it.
 */
#include <stdlib.h>
#include <unistd.h>

static unsigned char block[251 * 256];

static int say(int fd, long size)
{
    for (long i = 0; i < (long)sizeof block; i++)
        block[i] = (7 * i + fd) % 251;
    for (long done = 0; done < size;) {
        long at = done % (long)sizeof block, most = (long)sizeof block - at;
        long written = write(fd, block + at, size - done < most ? size - done : most);
        if (written < 0)
            return -1;
        done += written;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4 || say(1, atol(argv[1])) || say(2, atol(argv[2])))
        return 255;
    return atoi(argv[3]);
}
