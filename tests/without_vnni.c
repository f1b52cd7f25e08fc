/* Answers the CPUID instructions that tests/without_vnni.py replaced by UD2, without VNNI and AMX,
   and with NO_AVX512 in the environment also without AVX-512. Loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int no_avx512;

static void answer(int number, siginfo_t *info, void *where)
{
    greg_t *at = ((ucontext_t *)where)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)at[REG_RIP];
    unsigned leaf = at[REG_RAX], part = at[REG_RCX], a, b, c, d;
    (void)info;
    if (code[0] != 0x0f || code[1] != 0x0b) {
        struct sigaction usual = {.sa_handler = SIG_DFL};
        real_sigaction(number, &usual, NULL);
        return; /* to the same instruction, which ends the process */
    }
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        c &= ~(1u << 11);                          /* AVX512_VNNI */
        d &= ~(1u << 22 | 1u << 24 | 1u << 25);    /* AMX */
        if (no_avx512) {
            b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 30 | 1u << 31);
            c &= ~(1u << 1 | 1u << 6 | 1u << 12 | 1u << 14);
        }
    }
    if (leaf == 7 && part == 1) {
        a &= ~(1u << 4 | 1u << 5);                 /* AVX_VNNI, AVX512_BF16 */
        d &= ~(1u << 4 | 1u << 10);                /* AVX_VNNI_INT8, _INT16 */
    }
    at[REG_RAX] = a, at[REG_RBX] = b, at[REG_RCX] = c, at[REG_RDX] = d;
    at[REG_RIP] += 2;
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before)
{
    if (number == SIGILL && wanted) /* as of faulthandler: this one stays */
        wanted = NULL;
    return real_sigaction(number, wanted, before);
}

__attribute__((constructor)) static void begin(void)
{
    struct sigaction ours = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    no_avx512 = getenv("NO_AVX512") != NULL;
    real_sigaction(SIGILL, &ours, NULL);
}
