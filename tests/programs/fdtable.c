/* Writes the fd table that this program was started with to the file argv[1], a line per open fd:
 *
 *     fd device inode access_mode close_on_exec non_blocking
 *
 * argv[2] is one above the highest number that is looked at.  The table is read before anything is
 * opened, and without /proc, which may not be there.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct line {
    int fd;
    unsigned long long device, inode;
    int access_mode, close_on_exec, non_blocking;
};

static struct line lines[8192];

static int read_table(int end)
{
    int count = 0;
    for (int fd = 0; fd < end && count < 8192; fd++) {
        struct stat facts;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fstat(fd, &facts) < 0)
            continue;
        lines[count++] = (struct line){
            fd, facts.st_dev, facts.st_ino, flags & O_ACCMODE,
            fcntl(fd, F_GETFD) & FD_CLOEXEC ? 1 : 0, flags & O_NONBLOCK ? 1 : 0};
    }
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int count = read_table(atoi(argv[2]));
    FILE *report = fopen(argv[1], "w");
    if (!report)
        return 3;
    for (int i = 0; i < count; i++)
        fprintf(report, "%d %llu %llu %d %d %d\n", lines[i].fd, lines[i].device, lines[i].inode,
                lines[i].access_mode, lines[i].close_on_exec, lines[i].non_blocking);
    return fclose(report) ? 4 : 0;
}
