/* actor.c - the child of the soak and of the load tests: does one thing and ends.
 *
 *     actor exit CODE
 *     actor signal NUMBER             ends by sending itself that signal
 *     actor say OUT ERROR SEED CODE   writes so many bytes to fd 1, then so many to fd 2
 *     actor echo CODE                 writes what comes on fd 0 to fd 1; at its end, to fd 2, the
 *                                     checksum (Adler-32, RFC 1950) in 8 hexadecimal digits
 *     actor wait CODE                 reads fd 0 to its end
 *     actor shut CODE                 closes fds 1 and 2 first
 *     actor deaf OUT SEED CODE        closes fd 0, and says
 *     actor flood SEED                says on fd 1 for ever
 *
 * Byte i of what is said is 33 + 7 * (i + SEED) % 89, with SEED + 1 on fd 2: printable, so that a
 * terminal passes it on as it is; 89 is prime, so that a byte that is missing, doubled or in the
 * wrong place is seen. What cannot be done ends it with 99.
 *
 * Without libc where that is known how to do: thousands of them live at once, and a million are
 * started.
 */
#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, GETPID = 39, KILL = 62, EXIT_GROUP = 231 };

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call begin\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, GETPID = 172, KILL = 129, EXIT_GROUP = 94 };

static long call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x0, sp\n"
        "    bl begin\n");
#else
#define WITH_LIBC
#include <sys/syscall.h>
#include <unistd.h>
enum {
    READ = SYS_read,
    WRITE = SYS_write,
    CLOSE = SYS_close,
    GETPID = SYS_getpid,
    KILL = SYS_kill,
    EXIT_GROUP = SYS_exit_group
};
#define call syscall
#endif

enum { PERIOD = 89, BLOCK = 46 * PERIOD, CANNOT = 99 };

static unsigned char block[BLOCK];
static unsigned char input[16384];

__attribute__((noreturn)) static void end(long code)
{
    for (;;)
        call(EXIT_GROUP, code, 0, 0);
}

static void write_all(int fd, const unsigned char *data, long size)
{
    while (size > 0) {
        long written = call(WRITE, fd, (long)data, size);
        if (written <= 0)
            end(CANNOT);
        data += written;
        size -= written;
    }
}

/* A size below 0: for ever. */
static void say(int fd, long size, long seed)
{
    if (size == 0)
        return;
    for (long i = 0; i < BLOCK; i++)
        block[i] = (unsigned char)(33 + 7 * (i + seed) % PERIOD);
    while (size < 0)
        write_all(fd, block, BLOCK);
    for (; size > BLOCK; size -= BLOCK)
        write_all(fd, block, BLOCK);
    write_all(fd, block, size);
}

static void read_to_the_end(void)
{
    long size;
    while ((size = call(READ, 0, (long)input, sizeof input)) > 0)
        ;
    if (size < 0)
        end(CANNOT);
}

static void echo(void)
{
    unsigned char digits[8];
    unsigned long low = 1, high = 0;
    long size;
    while ((size = call(READ, 0, (long)input, sizeof input)) > 0) {
        for (long i = 0; i < size; i++) {
            low = (low + input[i]) % 65521;
            high = (high + low) % 65521;
        }
        write_all(1, input, size);
    }
    if (size < 0)
        end(CANNOT);
    for (int i = 0; i < 8; i++)
        digits[i] = (unsigned char)"0123456789abcdef"[(high << 16 | low) >> (28 - 4 * i) & 15];
    write_all(2, digits, sizeof digits);
}

static long number(long count, char **words, int index)
{
    long value = 0;
    if (index >= count)
        end(CANNOT);
    for (const char *digit = words[index]; *digit; digit++)
        value = value * 10 + (*digit - '0');
    return value;
}

static int is(const char *word, const char *name)
{
    for (; *word && *word == *name; word++, name++)
        ;
    return *word == *name;
}

__attribute__((noreturn)) static void act(long count, char **words)
{
    const char *what = count < 3 ? "" : words[1];
    int last = 2;
    if (is(what, "signal")) {
        call(KILL, call(GETPID, 0, 0, 0), number(count, words, 2), 0);
        end(CANNOT);
    } else if (is(what, "say")) {
        long seed = number(count, words, 4);
        say(1, number(count, words, 2), seed);
        say(2, number(count, words, 3), seed + 1);
        last = 5;
    } else if (is(what, "echo")) {
        echo();
    } else if (is(what, "wait")) {
        read_to_the_end();
    } else if (is(what, "shut")) {
        call(CLOSE, 1, 0, 0);
        call(CLOSE, 2, 0, 0);
        read_to_the_end();
    } else if (is(what, "deaf")) {
        call(CLOSE, 0, 0, 0);
        say(1, number(count, words, 2), number(count, words, 3));
        last = 4;
    } else if (is(what, "flood")) {
        say(1, -1, number(count, words, 2));
    } else if (!is(what, "exit")) {
        end(CANNOT);
    }
    end(number(count, words, last));
}

#ifdef WITH_LIBC
int main(int count, char **words)
{
    act(count, words);
}
#else
/* What the kernel leaves on the stack: argc, then argv. */
__attribute__((used, noreturn)) void begin(long *stack)
{
    act(stack[0], (char **)(stack + 1));
}
#endif
