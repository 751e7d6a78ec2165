/*
 * When a matrix of many zeros is computed with from its packed form, and by which code.
 */
#include "kernels/kernels_priv.h"

#if defined(__x86_64__)
static bool has_expand(void) { return __builtin_cpu_supports("avx512vbmi2"); }
#endif

/* Of decoding (one token) from memory, on a Zen 5, one thread, packed against rows at a share of 30, 40, 50, 70, 90 % of zeros:
 *   AVX-512 with VBMI2: Q8_0 1.7, 2.1, 2.3, 4.2, 5.2 times as fast; Q4_0 2.3, 2.4, 2.6, 3.4, 3.5; Q4_1 2.0, 2.1, 2.4, 2.6, 2.3; BF16 and F16 1.1,
 *   1.3, 1.5, 1.8, 2.0; F32 1.1, 1.5, 1.6, 2.5, 3.4
 *   AVX2: BF16 and F16 1.0, 1.06, 1.1, 1.15, 1.15 (nothing of it is left in a whole model); F32 1.0, 1.2, 1.4, 2.0, 2.2; Q8_0 0.9 at most, but
 *   1.5 for an even one (2:4; 1.1 in a whole model)
 * What 4-bit types gain below 40 % they take as memory.  NEON was not measured on a machine of its own: only on request. */
double skf_sparse_least(enum skf_isa isa, enum skf_type type, bool is_even)
{
#if defined(__x86_64__)
    const bool is_float = type == SKF_T_F32 || type == SKF_T_F16 || type == SKF_T_BF16;
    if ((isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX) && has_expand())
        return is_float || type == SKF_T_Q8_0 ? 0.3 : 0.4;
    if (isa != SKF_ISA_REF && (type == SKF_T_F32 || (type == SKF_T_Q8_0 && is_even)))
        return 0.4;
#endif
    return 2;
}

bool is_sparse_matmul(enum skf_isa isa, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                      size_t ldy)
{
#if defined(__x86_64__)
    /* Shuffling bytes into place pays where the rows would be waited for, not where a block is used for many tokens. */
    if (w->type == SKF_T_Q8_0 && a->m > 1 && (isa == SKF_ISA_AVX2 || (isa == SKF_ISA_AVX512 && !has_expand())))
        return false;
#endif
    switch (isa) {
    case SKF_ISA_REF:
        return skf_sparse_ref(w->packed, a, row0, row1, y, ldy);
#if defined(__x86_64__)
    case SKF_ISA_AVX2:
        return skf_sparse_avx2(w->packed, a, row0, row1, y, ldy);
    case SKF_ISA_AVX512:
    case SKF_ISA_AMX:
        return has_expand() ? skf_sparse_vbmi2(w->packed, a, row0, row1, y, ldy) : skf_sparse_avx2(w->packed, a, row0, row1, y, ldy);
#endif
#if defined(__aarch64__)
    case SKF_ISA_NEON:
        return skf_sparse_neon(w->packed, a, row0, row1, y, ldy);
#endif
    default:
        return false;
    }
}
