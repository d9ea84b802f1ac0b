/* Sits down on one of so many seats, and gets up as it ends: `seats FILE COUNT`.
 *
 * A seat is a byte of FILE, taken by a lock of fcntl(2), which the kernel ends with the process.  Code
 * 0: there was a seat; 99: as many others as there are seats are alive.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int fd = argc == 3 ? open(argv[1], O_RDWR) : -1;
    if (fd < 0)
        return 1;
    for (int seat = 0; seat < atoi(argv[2]); seat++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = seat, .l_len = 1};
        if (fcntl(fd, F_SETLK, &lock) == 0)
            return 0;
    }
    return 99;
}
