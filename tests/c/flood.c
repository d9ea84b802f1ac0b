/* flood.c - a program that writes much and ends, though nobody reads.
 *
 *   flood out error      as many bytes of flood.h to fd 1 and to fd 2, in pipes that it has grown
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "flood.h"

enum { USUAL_SIZE = 64 * 1024, GROWN_SIZE = 1024 * 1024 };

static int flood(int stream, unsigned size)
{
    unsigned char buffer[4096];
    int fd = stream + 1;
    if (size > USUAL_SIZE && fcntl(fd, F_SETPIPE_SZ, GROWN_SIZE) < (int)size)
        return FLOOD_CANNOT; /* fs.pipe-max-size, fs.pipe-user-pages-soft */
    for (unsigned at = 0; at < size;) {
        unsigned part = 0;
        while (part < sizeof buffer && at + part < size) {
            buffer[part] = flood_byte(stream, at + part);
            part++;
        }
        ssize_t written = write(fd, buffer, part);
        if (written <= 0)
            return 1;
        at += (unsigned)written;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int code = flood(0, (unsigned)atoi(argv[1]));
    return code ? code : flood(1, (unsigned)atoi(argv[2]));
}
