/*
 * What block_body_priv.h and sparse_body_priv.h are made of, with AVX-512 VNNI: 16 rows at once, one a lane.  Codes are
 * unsigned bytes (signed ones with 128 added, taken off again by way of the activations' sum), as vpdpbusd wants them.
 */
#ifndef SKF_KERNELS_GROUP_AVX512_PRIV_H
#define SKF_KERNELS_GROUP_AVX512_PRIV_H

#include <immintrin.h>

#include "kernels/cpu/ops_priv.h"

#define SKF_GROUP 16u
#define SKF_TILE  8u
typedef __m512i vi;
typedef __m512 vf;

/* Four dwords of 16 rows, transposed: w[k] holds dword k of every row. */
SKF_INLINE void transpose16(const uint8_t *const *rp, size_t off, vi *w)
{
    vi z[4];
    SKF_UNROLL
    for (int j = 0; j < 4; j++) {
        z[j] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i_u *)(rp[j] + off)));
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const __m128i_u *)(rp[4 + j] + off)), 1);
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const __m128i_u *)(rp[8 + j] + off)), 2);
        z[j] = _mm512_inserti32x4(z[j], _mm_loadu_si128((const __m128i_u *)(rp[12 + j] + off)), 3);
    }
    vi a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
    vi c = _mm512_unpacklo_epi32(z[2], z[3]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    w[0] = _mm512_unpacklo_epi64(a, c);
    w[1] = _mm512_unpackhi_epi64(a, c);
    w[2] = _mm512_unpacklo_epi64(b, d);
    w[3] = _mm512_unpackhi_epi64(b, d);
}
SKF_INLINE void g_codes4(const uint8_t *const *rp, size_t off, vi *w)
{
    const vi low = _mm512_set1_epi8(15);
    transpose16(rp, off, w);
    SKF_UNROLL
    for (int k = 0; k < 4; k++) {
        w[4 + k] = _mm512_and_si512(_mm512_srli_epi16(w[k], 4), low);
        w[k] = _mm512_and_si512(w[k], low);
    }
}
SKF_INLINE void g_codes8(const uint8_t *const *rp, size_t off, vi *w)
{
    transpose16(rp, off, w);
    transpose16(rp, off + 16, w + 4);
    SKF_UNROLL
    for (int k = 0; k < 8; k++)
        w[k] = _mm512_xor_si512(w[k], _mm512_set1_epi8(-128));
}
SKF_INLINE vi g_dot4(const vi *w, const int8_t *q, int32_t init)
{
    vi a = _mm512_set1_epi32(init), b = _mm512_setzero_si512();
    SKF_UNROLL
    for (int k = 0; k < 8; k += 2) {
        int32_t x, y;
        memcpy(&x, q + 4 * k, 4);
        memcpy(&y, q + 4 * k + 4, 4);
        a = _mm512_dpbusd_epi32(a, w[k], _mm512_set1_epi32(x));
        b = _mm512_dpbusd_epi32(b, w[k + 1], _mm512_set1_epi32(y));
    }
    return _mm512_add_epi32(a, b);
}
SKF_INLINE vi g_dot8(const vi *w, const int8_t *q, int32_t sum) { return g_dot4(w, q, -128 * sum); }
SKF_INLINE vf g_zero(void) { return _mm512_setzero_ps(); }
SKF_INLINE vf g_set(float f) { return _mm512_set1_ps(f); }
SKF_INLINE vf g_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
SKF_INLINE vf g_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
SKF_INLINE vf g_float(vi a) { return _mm512_cvtepi32_ps(a); }
SKF_INLINE vf g_half(const uint16_t *h) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)h)); }
SKF_INLINE vf g_low(const uint32_t *h) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_loadu_si512(h))); }
SKF_INLINE vf g_high(const uint32_t *h)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_loadu_si512(h), 16)));
}
SKF_INLINE void g_store(float *y, uint32_t n, vf v) { _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), v); }

/* ---- rows side by side (lanes_body_priv.h) */
SKF_INLINE vi p_word(const uint8_t *p) { return _mm512_loadu_si512(p); }
SKF_INLINE vf p_half(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)p)); }
SKF_INLINE vi p_signed(vi w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
SKF_INLINE vi g_dot16(const vi *w, const int8_t *q, int32_t init)
{
    vi a = _mm512_set1_epi32(init), b = _mm512_setzero_si512();
    SKF_UNROLL
    for (int k = 0; k < 4; k += 2) {
        int32_t x, y;
        memcpy(&x, q + 4 * k, 4);
        memcpy(&y, q + 4 * k + 4, 4);
        a = _mm512_dpbusd_epi32(a, w[k], _mm512_set1_epi32(x));
        b = _mm512_dpbusd_epi32(b, w[k + 1], _mm512_set1_epi32(y));
    }
    return _mm512_add_epi32(a, b);
}
SKF_INLINE vi g_dot5(const vi *w, const int8_t *q, int32_t init) { return g_dot4(w, q, init); }
SKF_INLINE vi g_all(int32_t x) { return _mm512_set1_epi32(x); }
SKF_INLINE vi g_and(vi a, vi b) { return _mm512_and_si512(a, b); }
SKF_INLINE vi g_or(vi a, vi b) { return _mm512_or_si512(a, b); }
SKF_INLINE vi g_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
SKF_INLINE vi g_mul32(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
SKF_INLINE vi g_left(vi a, uint32_t n) { return _mm512_slli_epi32(a, n); }
SKF_INLINE vi g_right(vi a, uint32_t n) { return _mm512_srli_epi32(a, n); }
SKF_INLINE vi g_byte(vi a, uint32_t n) { return _mm512_srai_epi32(_mm512_slli_epi32(a, 24 - 8 * n), 24); }
SKF_INLINE vf g_neg(vf f) { return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(f), _mm512_set1_epi32(INT32_MIN))); }

#endif
