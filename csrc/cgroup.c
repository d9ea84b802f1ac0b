/* cgroup.c - what the files of a control group say of it.
 *
 * Asked once per command, when that has ended: so two system calls and no object of Python's, of which
 * the result of an os.fstat alone costs more than both.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "procreactor.h"
#include "sys.h"

/* Its own "." and its name in the parent; each group below has a "..". */
enum { LINKS_OF_A_LEAF = 2 };

/* cgroup.events into text, with a NUL behind it. */
static int read_events(int events_fd, char *text, size_t size)
{
    long got;
    do
        got = sys_pread64(events_fd, text, size - 1, 0);
    while (got == -EINTR);
    text[got > 0 ? got : 0] = 0;
    return got < 0 ? (int)got : 0;
}

int pr_cgroup_is_as_new(int directory_fd, int events_fd)
{
    char text[256];
    struct stat facts;
    int code = read_events(events_fd, text, sizeof text);
    if (code == -ENODEV)
        return 0; /* somebody has removed it, which can be done to an empty one only */
    if (code < 0)
        return code;
    if (!strstr(text, "populated 0") || strstr(text, "frozen 1"))
        return 0;
    return sys_fstat(directory_fd, &facts) == 0 && facts.st_nlink == LINKS_OF_A_LEAF;
}
