/*
 * Which tables this build has, and rows by number.
 */
#include "kernels/kernels_priv.h"
#include "kernels/lanes.h"

const struct skf_ops *skf_ops_get(enum skf_isa isa)
{
    switch (isa) {
    case SKF_ISA_REF:
        return &skf_ops_ref;
#if defined(__x86_64__)
    case SKF_ISA_AVX2:
        return &skf_ops_avx2;
    case SKF_ISA_AVX512:
    case SKF_ISA_AMX: /* no operator uses its tiles yet; a machine that has them has these */
        return &skf_ops_avx512;
#endif
#if defined(__aarch64__)
    case SKF_ISA_NEON:
        return &skf_ops_neon;
#endif
    default:
        return NULL;
    }
}

bool is_ops_type(enum skf_type t)
{
    return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16 || is_lanes_type(t);
}

uint32_t skf_weight_seg(const struct skf_weight *w, uint32_t row)
{
    uint32_t lo = 0, hi = w->n_seg - 1;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (w->seg[mid].first <= row)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

const uint8_t *skf_weight_row(const struct skf_weight *w, uint32_t r)
{
    const struct skf_rows *s = &w->seg[skf_weight_seg(w, r)];
    return s->p + (uint64_t)(r - s->first) * w->row_bytes;
}
