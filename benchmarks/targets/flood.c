/* flood.c [WORK] BYTES - writes BYTES bytes to standard output and exits; status 1 when it cannot.
 *
 * WORK: so many multiplications, each of the one before, are done ahead of each 64 KiB.
 *
 * Without libc, as tiny.c: a thousand of them at once are to cost the reader, not ld.so. The bytes
 * are zeros of .bss, so no child has memory of its own for them but the kernel's zero pages.
 */
enum { CHUNK_BYTES = 65536 };

static const char zeros[CHUNK_BYTES];

/* In assembler below: C cannot see the stack pointer that the kernel starts a program with. */
void _start(void);

#if defined(__x86_64__)
enum { SYS_WRITE = 1, SYS_EXIT_GROUP = 231 };

static long system_call(long number, long a, long b, long c)
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
        "    call flood\n");
#elif defined(__aarch64__)
enum { SYS_WRITE = 64, SYS_EXIT_GROUP = 94 };

static long system_call(long number, long a, long b, long c)
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
        "    bl flood\n");
#endif

static unsigned long number(const char *digit)
{
    unsigned long value = 0;
    for (; *digit; digit++)
        value = value * 10 + (unsigned long)(*digit - '0');
    return value;
}

static void work(unsigned long times)
{
    volatile unsigned long last; /* or the compiler would leave it all out */
    unsigned long value = 3;
    while (times-- > 0)
        value *= value;
    last = value;
    (void)last;
}

/* What the kernel leaves on the stack (System V ABI): argc, then argv. */
__attribute__((used, noreturn)) void flood(const long *stack)
{
    const long words = stack[0];
    long status = words < 2 || words > 3;
    unsigned long times = words == 3 ? number((const char *)stack[2]) : 0;
    unsigned long left = status == 0 ? number((const char *)stack[words]) : 0;
    while (left > 0 && status == 0) {
        unsigned long size = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        work(times);
        long written = system_call(SYS_WRITE, 1, (long)zeros, (long)size);
        if (written > 0)
            left -= (unsigned long)written;
        else
            status = 1;
    }
    system_call(SYS_EXIT_GROUP, status, 0, 0);
    __builtin_unreachable();
}
