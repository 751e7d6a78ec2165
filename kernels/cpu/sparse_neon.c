/*
 * Products with packed matrices with NEON: values go to their places by table look-ups (tbl) whose indices stand in a table for 8 bits of
 * mask.  4-bit types are computed from their rows, as with AVX2.
 */
#if defined(__aarch64__)
#include "kernels/cpu/group_neon_priv.h"
#include "kernels/cpu/sparse_table_priv.h"
#include "kernels/cpu/vec_priv.h"
#include "model/sparse.h"

SKF_INLINE bool is_sparse_here(enum skf_type t) { return is_sparse_type(t) && t != SKF_T_Q4_0 && t != SKF_T_Q4_1; }

SKF_INLINE uint8x8_t expand_bytes(uint32_t mask, const uint8_t **p)
{
    uint8x8_t v = vtbl1_u8(vld1_u8(*p), vld1_u8(skf_sparse_bytes[mask]));
    *p += __builtin_popcount(mask);
    return v;
}

SKF_INLINE void s_codes(enum skf_type type, bool is_even, const uint8_t *masks, const uint8_t **p, const uint8_t *background, vi w[4][8])
{
    SKF_UNROLL
    for (int k = 0; k < 8; k++) {
        SKF_UNROLL
        for (int i = 0; i < 4; i++) {
            uint8x8_t a = expand_bytes(masks[8 * k + 2 * i], p), b = expand_bytes(masks[8 * k + 2 * i + 1], p);
            w[i][k] = vreinterpretq_s32_u8(vcombine_u8(a, b));
        }
    }
}

/* Four weights of 32 bits behind 4 bits of mask. */
SKF_INLINE float32x4_t expand_floats(uint32_t mask, const uint8_t **p)
{
    float t[4];
    for (int i = 0; i < 4; i++) {
        uint32_t is_value = mask >> i & 1;
        t[i] = is_value ? skf_bits_float(skf_load32(*p)) : 0.0f;
        *p += 4 * is_value;
    }
    return vld1q_f32(t);
}
SKF_INLINE void expand_halves(enum skf_type type, uint32_t mask, const uint8_t **p, float32x4_t *lo, float32x4_t *hi)
{
    uint8x16_t v = vqtbl1q_u8(vld1q_u8(*p), vld1q_u8(skf_sparse_words[mask]));
    uint16x8_t h = vreinterpretq_u16_u8(v);
    *p += 2 * __builtin_popcount(mask);
    if (type == SKF_T_F16) {
        *lo = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h)));
        *hi = vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(h)));
    } else {
        *lo = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16));
        *hi = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(h), 16));
    }
}
SKF_INLINE void s_floats(enum skf_type type, uint32_t mask, const uint8_t **p, v16 *lo, v16 *hi)
{
    SKF_UNROLL
    for (int i = 0; i < 4; i++) {
        v16 *to = i < 2 ? lo : hi;
        uint32_t m = mask >> 8 * i & 255;
        if (type == SKF_T_F32) {
            to->v[i % 2 * 2] = expand_floats(m & 15, p);
            to->v[i % 2 * 2 + 1] = expand_floats(m >> 4, p);
        } else {
            expand_halves(type, m, p, &to->v[i % 2 * 2], &to->v[i % 2 * 2 + 1]);
        }
    }
}

#include "kernels/cpu/sparse_body_priv.h"

bool skf_sparse_neon(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    return sparse_matmul(s, a, row0, row1, y, ldy);
}
#else
typedef int skf_no_sparse_neon; /* a file must hold something */
#endif
