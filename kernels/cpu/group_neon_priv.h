/*
 * What block_body_priv.h and sparse_body_priv.h are made of, with NEON's dot product (sdot): 4 rows at once, one a lane.
 */
#ifndef SKF_KERNELS_GROUP_NEON_PRIV_H
#define SKF_KERNELS_GROUP_NEON_PRIV_H

#include <arm_neon.h>

#include "kernels/cpu/ops_priv.h"

#define SKF_GROUP 4u
typedef int8x16_t vi8;
typedef int32x4_t vi;
typedef float32x4_t vf;

/* Four dwords of 4 rows, transposed: w[k] holds dword k of every row. */
SKF_INLINE void transpose4(const uint8_t *const *rp, size_t off, vi *w)
{
    vi z[4];
    SKF_UNROLL
    for (int j = 0; j < 4; j++)
        z[j] = vreinterpretq_s32_u8(vld1q_u8(rp[j] + off));
    int64x2_t a = vreinterpretq_s64_s32(vtrn1q_s32(z[0], z[1])), b = vreinterpretq_s64_s32(vtrn2q_s32(z[0], z[1]));
    int64x2_t c = vreinterpretq_s64_s32(vtrn1q_s32(z[2], z[3])), d = vreinterpretq_s64_s32(vtrn2q_s32(z[2], z[3]));
    w[0] = vreinterpretq_s32_s64(vtrn1q_s64(a, c));
    w[1] = vreinterpretq_s32_s64(vtrn1q_s64(b, d));
    w[2] = vreinterpretq_s32_s64(vtrn2q_s64(a, c));
    w[3] = vreinterpretq_s32_s64(vtrn2q_s64(b, d));
}
SKF_INLINE void g_codes4(const uint8_t *const *rp, size_t off, vi *w)
{
    transpose4(rp, off, w);
    SKF_UNROLL
    for (int k = 0; k < 4; k++) {
        uint8x16_t c = vreinterpretq_u8_s32(w[k]);
        w[4 + k] = vreinterpretq_s32_u8(vshrq_n_u8(c, 4));
        w[k] = vreinterpretq_s32_u8(vandq_u8(c, vdupq_n_u8(15)));
    }
}
SKF_INLINE void g_codes8(const uint8_t *const *rp, size_t off, vi *w)
{
    transpose4(rp, off, w);
    transpose4(rp, off + 16, w + 4);
}
SKF_INLINE vi g_dot4(const vi *w, const int8_t *q, int32_t init)
{
    vi8 lo = vld1q_s8(q), hi = vld1q_s8(q + 16);
    vi a = vdupq_n_s32(init), b = vdupq_n_s32(0);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[0]), lo, 0);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[1]), lo, 1);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[2]), lo, 2);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[3]), lo, 3);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[4]), hi, 0);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[5]), hi, 1);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[6]), hi, 2);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[7]), hi, 3);
    return vaddq_s32(a, b);
}
SKF_INLINE vi g_dot8(const vi *w, const int8_t *q, int32_t sum) { return g_dot4(w, q, 0); }
SKF_INLINE vf g_zero(void) { return vdupq_n_f32(0.0f); }
SKF_INLINE vf g_set(float f) { return vdupq_n_f32(f); }
SKF_INLINE vf g_mul(vf a, vf b) { return vmulq_f32(a, b); }
SKF_INLINE vf g_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
SKF_INLINE vf g_float(vi a) { return vcvtq_f32_s32(a); }
SKF_INLINE vf g_half(const uint16_t *h) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h))); }
SKF_INLINE vf g_low(const uint32_t *h) { return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vld1q_u32(h)))); }
SKF_INLINE vf g_high(const uint32_t *h) { return vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(vld1q_u32(h), 16))); }
SKF_INLINE void g_store(float *y, uint32_t n, vf v)
{
    if (n == SKF_GROUP) {
        vst1q_f32(y, v);
        return;
    }
    float t[SKF_GROUP];
    vst1q_f32(t, v);
    memcpy(y, t, n * sizeof *y);
}

/* ---- rows side by side (lanes_body_priv.h) */
SKF_INLINE vi p_word(const uint8_t *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
SKF_INLINE vf p_half(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
SKF_INLINE vi p_signed(vi w) { return w; }
SKF_INLINE vi g_dot16(const vi *w, const int8_t *q, int32_t init)
{
    vi8 x = vld1q_s8(q);
    vi a = vdupq_n_s32(init), b = vdupq_n_s32(0);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[0]), x, 0);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[1]), x, 1);
    a = vdotq_laneq_s32(a, vreinterpretq_s8_s32(w[2]), x, 2);
    b = vdotq_laneq_s32(b, vreinterpretq_s8_s32(w[3]), x, 3);
    return vaddq_s32(a, b);
}
SKF_INLINE vi g_dot5(const vi *w, const int8_t *q, int32_t init) { return g_dot4(w, q, init); }
SKF_INLINE vi g_all(int32_t x) { return vdupq_n_s32(x); }
SKF_INLINE vi g_and(vi a, vi b) { return vandq_s32(a, b); }
SKF_INLINE vi g_or(vi a, vi b) { return vorrq_s32(a, b); }
SKF_INLINE vi g_add(vi a, vi b) { return vaddq_s32(a, b); }
SKF_INLINE vi g_mul32(vi a, vi b) { return vmulq_s32(a, b); }
/* by a number that need be no constant; negative goes right */
SKF_INLINE vi g_left(vi a, uint32_t n) { return vshlq_s32(a, vdupq_n_s32((int32_t)n)); }
SKF_INLINE vi g_right(vi a, uint32_t n)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(int32_t)n)));
}
SKF_INLINE vi g_byte(vi a, uint32_t n) { return vshrq_n_s32(vshlq_s32(a, vdupq_n_s32(24 - 8 * (int32_t)n)), 24); }
SKF_INLINE vf g_neg(vf f) { return vnegq_f32(f); }

#endif
