/*
 * What block_body_priv.h and sparse_body_priv.h are made of, with AVX2: 8 rows at once, one a lane.  vpmaddubsw multiplies
 * unsigned by signed bytes and adds pairs in 16 bits: 2 * 15 * 127 * 8 and 2 * 128 * 127 both fit.
 */
#ifndef SKF_KERNELS_GROUP_AVX2_PRIV_H
#define SKF_KERNELS_GROUP_AVX2_PRIV_H

#include <immintrin.h>

#include "kernels/cpu/ops_priv.h"

#define SKF_GROUP 8u
typedef __m256i vi;
typedef __m256 vf;

/* Four dwords of 8 rows, transposed: w[k] holds dword k of every row. */
SKF_INLINE void transpose8(const uint8_t *const *rp, size_t off, vi *w)
{
    vi z[4];
    SKF_UNROLL
    for (int j = 0; j < 4; j++)
        z[j] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i_u *)(rp[j] + off))),
            _mm_loadu_si128((const __m128i_u *)(rp[4 + j] + off)), 1);
    vi a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpackhi_epi32(z[0], z[1]);
    vi c = _mm256_unpacklo_epi32(z[2], z[3]), d = _mm256_unpackhi_epi32(z[2], z[3]);
    w[0] = _mm256_unpacklo_epi64(a, c);
    w[1] = _mm256_unpackhi_epi64(a, c);
    w[2] = _mm256_unpacklo_epi64(b, d);
    w[3] = _mm256_unpackhi_epi64(b, d);
}
SKF_INLINE void g_codes4(const uint8_t *const *rp, size_t off, vi *w)
{
    const vi low = _mm256_set1_epi8(15);
    transpose8(rp, off, w);
    SKF_UNROLL
    for (int k = 0; k < 4; k++) {
        w[4 + k] = _mm256_and_si256(_mm256_srli_epi16(w[k], 4), low);
        w[k] = _mm256_and_si256(w[k], low);
    }
}
SKF_INLINE void g_codes8(const uint8_t *const *rp, size_t off, vi *w)
{
    transpose8(rp, off, w);
    transpose8(rp, off + 16, w + 4);
}
SKF_INLINE vi broadcast4(const int8_t *q)
{
    int32_t x;
    memcpy(&x, q, 4);
    return _mm256_set1_epi32(x);
}
SKF_INLINE vi g_dot4(const vi *w, const int8_t *q, int32_t init)
{
    vi acc = _mm256_setzero_si256();
    SKF_UNROLL
    for (int k = 0; k < 8; k++)
        acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w[k], broadcast4(q + 4 * k)));
    return _mm256_add_epi32(_mm256_madd_epi16(acc, _mm256_set1_epi16(1)), _mm256_set1_epi32(init));
}
SKF_INLINE vi g_dot8(const vi *w, const int8_t *q, int32_t sum)
{
    vi acc = _mm256_setzero_si256();
    SKF_UNROLL
    for (int k = 0; k < 8; k++) { /* |w| times q with w's sign */
        vi p = _mm256_maddubs_epi16(_mm256_abs_epi8(w[k]), _mm256_sign_epi8(broadcast4(q + 4 * k), w[k]));
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
    }
    return acc;
}
SKF_INLINE vf g_zero(void) { return _mm256_setzero_ps(); }
SKF_INLINE vf g_set(float f) { return _mm256_set1_ps(f); }
SKF_INLINE vf g_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
SKF_INLINE vf g_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SKF_INLINE vf g_float(vi a) { return _mm256_cvtepi32_ps(a); }
SKF_INLINE vf g_half(const uint16_t *h) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)h)); }
/* Eight 32-bit values below 65536 as 16-bit ones. */
SKF_INLINE __m128i narrow(vi v)
{
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0x08));
}
SKF_INLINE vf g_low(const uint32_t *h)
{
    return _mm256_cvtph_ps(narrow(_mm256_and_si256(_mm256_loadu_si256((const __m256i_u *)h), _mm256_set1_epi32(0xffff))));
}
SKF_INLINE vf g_high(const uint32_t *h)
{
    return _mm256_cvtph_ps(narrow(_mm256_srli_epi32(_mm256_loadu_si256((const __m256i_u *)h), 16)));
}
SKF_INLINE void g_store(float *y, uint32_t n, vf v)
{
    if (n == SKF_GROUP) {
        _mm256_storeu_ps(y, v);
        return;
    }
    float t[SKF_GROUP];
    _mm256_storeu_ps(t, v);
    memcpy(y, t, n * sizeof *y);
}

/* ---- rows side by side (lanes_body_priv.h) */
SKF_INLINE vi p_word(const uint8_t *p) { return _mm256_loadu_si256((const __m256i_u *)p); }
SKF_INLINE vf p_half(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)p)); }
SKF_INLINE vi p_signed(vi w) { return w; }
/* 63 * 127 * 4 fits 16 bits, twice that does not */
SKF_INLINE vi g_dot16(const vi *w, const int8_t *q, int32_t init)
{
    const vi one = _mm256_set1_epi16(1);
    vi a = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], broadcast4(q)), _mm256_maddubs_epi16(w[1], broadcast4(q + 4)));
    vi b = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], broadcast4(q + 8)), _mm256_maddubs_epi16(w[3], broadcast4(q + 12)));
    return _mm256_add_epi32(_mm256_add_epi32(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one)), _mm256_set1_epi32(init));
}
SKF_INLINE vi g_dot5(const vi *w, const int8_t *q, int32_t init)
{
    return _mm256_add_epi32(g_dot16(w, q, init), g_dot16(w + 4, q + 16, 0));
}
SKF_INLINE vi g_all(int32_t x) { return _mm256_set1_epi32(x); }
SKF_INLINE vi g_and(vi a, vi b) { return _mm256_and_si256(a, b); }
SKF_INLINE vi g_or(vi a, vi b) { return _mm256_or_si256(a, b); }
SKF_INLINE vi g_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
SKF_INLINE vi g_mul32(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
SKF_INLINE vi g_left(vi a, uint32_t n) { return _mm256_slli_epi32(a, (int)n); }
SKF_INLINE vi g_right(vi a, uint32_t n) { return _mm256_srli_epi32(a, (int)n); }
SKF_INLINE vi g_byte(vi a, uint32_t n) { return _mm256_srai_epi32(_mm256_slli_epi32(a, 24 - 8 * (int)n), 24); }
SKF_INLINE vf g_neg(vf f) { return _mm256_xor_ps(f, _mm256_set1_ps(-0.0f)); }

#endif
