/* Which instruction set the kernels use here (util.h). */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1u << 20)
#endif
#endif

static const char *const names[] = {"ref", "avx2", "avx512", "amx", "neon"};

const char *skf_isa_name(enum skf_isa i) { return (size_t)i < SKF_COUNT(names) ? names[i] : "unknown"; }

#if defined(__x86_64__)
static bool has_f16c(void) /* clang 14's __builtin_cpu_supports does not know the name */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}
#endif

static bool has_isa(enum skf_isa i)
{
    switch (i) {
    case SKF_ISA_REF:
        return true;
#if defined(__x86_64__)
    case SKF_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case SKF_ISA_AVX512:
        return has_isa(SKF_ISA_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case SKF_ISA_NEON:
        return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
    default:
        return false; /* AMX has no kernels yet */
    }
}

enum skf_err skf_isa_pick(enum skf_isa *isa, struct skf_why *why)
{
    static const enum skf_isa best_first[] = {SKF_ISA_AMX, SKF_ISA_AVX512, SKF_ISA_NEON, SKF_ISA_AVX2, SKF_ISA_REF};
    const char *env = getenv("SKF_CPU");
    if (!env || !*env) {
        size_t i = 0;
        while (!has_isa(best_first[i]))
            i++;
        *isa = best_first[i];
        return SKF_OK;
    }
    for (size_t i = 0; i < SKF_COUNT(names); i++) {
        if (strcmp(env, names[i]) != 0)
            continue;
        if (!has_isa((enum skf_isa)i))
            return skf_fail(why, SKF_ERR_UNSUPPORTED, "SKF_CPU=%s: this machine or build has no such kernels", env);
        *isa = (enum skf_isa)i;
        return SKF_OK;
    }
    return skf_fail(why, SKF_ERR_ARG, "SKF_CPU=%s: not one of ref, avx2, avx512, amx, neon", env);
}
