/*
 * Sixteen floats as each instruction set holds them, with the operations that kernels.h's arithmetic is made of.  The file that
 * includes this is compiled for one instruction set; what it gets is chosen by what the compiler may use.
 */
#ifndef SKF_KERNELS_VEC_PRIV_H
#define SKF_KERNELS_VEC_PRIV_H

#include "kernels/exp_priv.h"

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 v16;
static inline v16 v_set(float f) { return _mm512_set1_ps(f); }
static inline v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
static inline v16 v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)p)); }
static inline v16 v_load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)p))); }
static inline float v_most(v16 v) { return _mm512_reduce_max_ps(v); } /* the largest lane; any where one is NaN */
static inline v16 v_load_bf16(const void *p)
{
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); } /* a < b ? a : b */
static inline v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
/* p * 2^n, n in the low bits of t */
static inline v16 v_scale(v16 p, v16 t)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
/* (a, b) of each pair: swapped, the first or second of each twice, the first of each negated */
static inline v16 v_swap(v16 v) { return _mm512_permute_ps(v, 0xb1); }
static inline v16 v_firsts(v16 v) { return _mm512_moveldup_ps(v); }
static inline v16 v_seconds(v16 v) { return _mm512_movehdup_ps(v); }
static inline v16 v_neg_even(v16 v)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi64(0x80000000)));
}
static inline float v_sum(v16 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

#elif defined(__AVX2__)
#include <immintrin.h>
typedef struct {
    __m256 a, b;
} v16;
#define SKF_V2(x, y) ((v16){x, y})
static inline v16 v_set(float f) { return SKF_V2(_mm256_set1_ps(f), _mm256_set1_ps(f)); }
static inline v16 v_load(const float *p) { return SKF_V2(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
static inline void v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
static inline v16 v_load_f16(const void *p)
{
    const __m128i_u *h = p;
    return SKF_V2(_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)));
}
static inline __m256 v_i8_half(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)p))); }
static inline v16 v_load_i8(const void *p) { return SKF_V2(v_i8_half(p), v_i8_half((const uint8_t *)p + 8)); }
static inline float v_most(v16 v)
{
    __m256 a = _mm256_max_ps(v.a, v.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
static inline __m256 v_bf16_half(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline v16 v_load_bf16(const void *p)
{
    const __m128i_u *h = p;
    return SKF_V2(v_bf16_half(_mm_loadu_si128(h)), v_bf16_half(_mm_loadu_si128(h + 1)));
}
static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm_storeu_si128((__m128i_u *)p, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i_u *)p + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline v16 v_add(v16 x, v16 y) { return SKF_V2(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
static inline v16 v_sub(v16 x, v16 y) { return SKF_V2(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
static inline v16 v_mul(v16 x, v16 y) { return SKF_V2(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
static inline v16 v_div(v16 x, v16 y) { return SKF_V2(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
static inline v16 v_fma(v16 x, v16 y, v16 z)
{
    return SKF_V2(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
static inline v16 v_min(v16 x, v16 y) { return SKF_V2(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
static inline v16 v_max(v16 x, v16 y) { return SKF_V2(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
static inline __m256 v_scale_half(__m256 p, __m256 t)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
static inline v16 v_scale(v16 p, v16 t) { return SKF_V2(v_scale_half(p.a, t.a), v_scale_half(p.b, t.b)); }
static inline v16 v_swap(v16 v) { return SKF_V2(_mm256_permute_ps(v.a, 0xb1), _mm256_permute_ps(v.b, 0xb1)); }
static inline v16 v_firsts(v16 v) { return SKF_V2(_mm256_moveldup_ps(v.a), _mm256_moveldup_ps(v.b)); }
static inline v16 v_seconds(v16 v) { return SKF_V2(_mm256_movehdup_ps(v.a), _mm256_movehdup_ps(v.b)); }
static inline v16 v_neg_even(v16 v)
{
    __m256 m = _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000));
    return SKF_V2(_mm256_xor_ps(v.a, m), _mm256_xor_ps(v.b, m));
}
static inline float v_sum(v16 v)
{
    __m256 a = _mm256_add_ps(v.a, v.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

#elif defined(__aarch64__)
#include <arm_neon.h>
typedef struct {
    float32x4_t v[4];
} v16;
#define SKF_V4(expr)                                                                                                   \
    v16 r_;                                                                                                            \
    SKF_UNROLL                                                                                                         \
    for (int i = 0; i < 4; i++)                                                                                        \
        r_.v[i] = (expr);                                                                                              \
    return r_
static inline v16 v_set(float f) { SKF_V4(vdupq_n_f32(f)); }
static inline v16 v_load(const float *p) { SKF_V4(vld1q_f32(p + 4 * i)); }
static inline void v_store(float *p, v16 v)
{
    SKF_UNROLL
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, v.v[i]);
}
/* Bytes are loaded as bytes: weights need no alignment. */
static inline uint16x4_t v_half_bits(const void *p, int i) { return vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i)); }
static inline v16 v_load_f16(const void *p) { SKF_V4(vcvt_f32_f16(vreinterpret_f16_u16(v_half_bits(p, i)))); }
static inline v16 v_load_i8(const void *p)
{
    int8x16_t b = vreinterpretq_s8_u8(vld1q_u8(p));
    int16x8_t h[2] = {vmovl_s8(vget_low_s8(b)), vmovl_s8(vget_high_s8(b))};
    SKF_V4(vcvtq_f32_s32(i % 2 ? vmovl_s16(vget_high_s16(h[i / 2])) : vmovl_s16(vget_low_s16(h[i / 2]))));
}
static inline float v_most(v16 v) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v.v[0], v.v[1]), vmaxq_f32(v.v[2], v.v[3]))); }
static inline v16 v_load_bf16(const void *p) { SKF_V4(vreinterpretq_f32_u32(vshll_n_u16(v_half_bits(p, i), 16))); }
static inline void v_store_f16(uint16_t *p, v16 v)
{
    SKF_UNROLL
    for (int i = 0; i < 4; i++)
        vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.v[i])));
}
static inline v16 v_add(v16 x, v16 y) { SKF_V4(vaddq_f32(x.v[i], y.v[i])); }
static inline v16 v_sub(v16 x, v16 y) { SKF_V4(vsubq_f32(x.v[i], y.v[i])); }
static inline v16 v_mul(v16 x, v16 y) { SKF_V4(vmulq_f32(x.v[i], y.v[i])); }
static inline v16 v_div(v16 x, v16 y) { SKF_V4(vdivq_f32(x.v[i], y.v[i])); }
static inline v16 v_fma(v16 x, v16 y, v16 z) { SKF_V4(vfmaq_f32(z.v[i], x.v[i], y.v[i])); }
static inline v16 v_min(v16 x, v16 y) { SKF_V4(vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i])); }
static inline v16 v_max(v16 x, v16 y) { SKF_V4(vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i])); }
static inline v16 v_scale(v16 p, v16 t)
{
    SKF_V4(vreinterpretq_f32_u32(
        vaddq_u32(vreinterpretq_u32_f32(p.v[i]), vshlq_n_u32(vreinterpretq_u32_f32(t.v[i]), 23))));
}
static inline v16 v_swap(v16 v) { SKF_V4(vrev64q_f32(v.v[i])); }
static inline v16 v_firsts(v16 v) { SKF_V4(vtrn1q_f32(v.v[i], v.v[i])); }
static inline v16 v_seconds(v16 v) { SKF_V4(vtrn2q_f32(v.v[i], v.v[i])); }
static inline v16 v_neg_even(v16 v)
{
    SKF_V4(vreinterpretq_f32_u64(veorq_u64(vreinterpretq_u64_f32(v.v[i]), vdupq_n_u64(0x80000000))));
}
static inline float v_sum(v16 v)
{
    float32x4_t a = vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
#endif

/* The first n < 16 of p, zeros behind; and back. */
static inline v16 v_load_part(const float *p, uint32_t n)
{
    float t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return v_load(t);
}
static inline void v_store_part(float *p, uint32_t n, v16 v)
{
    float t[16];
    v_store(t, v);
    memcpy(p, t, n * sizeof *p);
}

/* As skf_exp_ref, step by step: v_max and v_min take their second argument where the first is NaN, so NaN passes there too. */
static inline v16 v_exp(v16 x)
{
    x = v_max(v_set(SKF_EXP_LO), x);
    x = v_min(v_set(SKF_EXP_HI), x);
    v16 t = v_fma(x, v_set(SKF_EXP_LOG2E), v_set(SKF_EXP_MAGIC));
    v16 n = v_sub(t, v_set(SKF_EXP_MAGIC));
    v16 r = v_fma(n, v_set(-SKF_EXP_LN2_HI), x);
    r = v_fma(n, v_set(-SKF_EXP_LN2_LO), r);
    v16 p = v_set(SKF_EXP_C6);
    p = v_fma(p, r, v_set(SKF_EXP_C5));
    p = v_fma(p, r, v_set(SKF_EXP_C4));
    p = v_fma(p, r, v_set(SKF_EXP_C3));
    p = v_fma(p, r, v_set(SKF_EXP_C2));
    p = v_fma(p, r, v_set(SKF_EXP_C1));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f));
    return v_scale(p, t);
}
static inline v16 v_cap(v16 x, float cap, float turn) /* as skf_cap_ref */
{
    v16 e = v_add(v_exp(v_mul(x, v_set(turn))), v_set(1.0f));
    return v_mul(v_set(cap), v_sub(v_set(1.0f), v_div(v_set(2.0f), e)));
}

#endif
