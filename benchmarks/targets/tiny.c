/* tiny.c - a program without libc that only exits: what is left is the spawner's own cost. */
void _start(void)
{
#if defined(__x86_64__)
    __asm__ volatile("syscall" ::"a"(231L), "D"(0L));
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = 94;
    register long x0 __asm__("x0") = 0;
    __asm__ volatile("svc 0" ::"r"(x8), "r"(x0));
#endif
    __builtin_unreachable();
}
