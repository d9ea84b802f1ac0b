/* pty.c - a pseudo terminal, close-on-exec from birth and without a path.
 *
 * openpty(3) opens the slave by name, inheritable for a moment, and fails where /dev/pts belongs to
 * another mount namespace.  TIOCGPTPEER (Linux 4.13) opens the slave through the master.  grantpt(3)
 * is not needed: devpts sets owner and mode.
 */
#include <errno.h>
#include <sys/ioctl.h>

#include "procreactor.h"
#include "sys.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static long open_slave(int master, int rows, int columns, int *stage)
{
    int unlocked = 0;
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    long result;
    *stage = PR_STAGE_PTY_UNLOCK;
    if ((result = sys_ioctl(master, TIOCSPTLCK, (long)&unlocked)) < 0)
        return result;
    *stage = PR_STAGE_PTY_SIZE;
    if ((rows || columns) && (result = sys_ioctl(master, TIOCSWINSZ, (long)&size)) < 0)
        return result;
    *stage = PR_STAGE_PTY_PEER;
    return sys_ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

int pr_open_pty(int rows, int columns, int *fds, int *stage)
{
    fds[0] = fds[1] = -1;
    *stage = PR_STAGE_PTY_OPEN;
    long master = sys_openat(AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0)
        return (int)master;
    long slave = open_slave((int)master, rows, columns, stage);
    if (slave < 0) {
        sys_close((int)master);
        return (int)slave;
    }
    *stage = PR_STAGE_NONE;
    fds[0] = (int)master;
    fds[1] = (int)slave;
    return 0;
}
