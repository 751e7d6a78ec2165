/* The loops of float_priv.h for AVX2. */
#if defined __x86_64__
#include <immintrin.h>

#define NAME(x) x##_avx2
#include "delta/float_body_priv.h"

#define INLINE static inline __attribute__((always_inline))
typedef struct { __m256 lo, hi; } vf;
typedef struct { __m256i lo, hi; } vi;
INLINE vf vf_set(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
INLINE vf vf_add(vf a, vf b) { return (vf){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
INLINE vf vf_mul(vf a, vf b) { return (vf){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
INLINE vf vf_sum(vf a, vf b, vf c) /* a + b * c */
{
    return (vf){_mm256_fmadd_ps(b.lo, c.lo, a.lo), _mm256_fmadd_ps(b.hi, c.hi, a.hi)};
}
INLINE vf vf_of(vi a) { return (vf){_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
INLINE vi vi_of(vf a) { return (vi){_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
INLINE vf vi_float(vi a) { return (vf){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
INLINE vi vi_set(int x) { return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE vi vi_add(vi a, vi b) { return (vi){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
INLINE vi vi_sub(vi a, vi b) { return (vi){_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
INLINE vi vi_and(vi a, vi b) { return (vi){_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
INLINE vi vi_or(vi a, vi b) { return (vi){_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
INLINE vi vi_xor(vi a, vi b) { return (vi){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
INLINE vi vi_min(vi a, vi b) { return (vi){_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)}; }
INLINE vi vi_abs(vi a) { return (vi){_mm256_abs_epi32(a.lo), _mm256_abs_epi32(a.hi)}; }
INLINE vi vi_shl(vi a, unsigned n)
{
    __m128i by = _mm_cvtsi32_si128((int)n);
    return (vi){_mm256_sll_epi32(a.lo, by), _mm256_sll_epi32(a.hi, by)};
}
INLINE vi vi_shr(vi a, unsigned n)
{
    __m128i by = _mm_cvtsi32_si128((int)n);
    return (vi){_mm256_srl_epi32(a.lo, by), _mm256_srl_epi32(a.hi, by)};
}
INLINE vi vi_pick(vi a, vi b, vi x, vi y) /* a == b ? x : y */
{
    return (vi){_mm256_blendv_epi8(y.lo, x.lo, _mm256_cmpeq_epi32(a.lo, b.lo)),
                _mm256_blendv_epi8(y.hi, x.hi, _mm256_cmpeq_epi32(a.hi, b.hi))};
}
INLINE vi vi_halves(const uint8_t *p)
{
    return (vi){_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)),
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 16)))};
}
INLINE __m256i halves_of(vi a) /* each below 2^16 */
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a.lo, a.hi), 0xd8);
}
INLINE void vi_put_halves(uint8_t *p, vi a) { _mm256_storeu_si256((__m256i *)(void *)p, halves_of(a)); }
INLINE vf vf_f16(vi a)
{
    __m256i h = halves_of(a);
    return (vf){_mm256_cvtph_ps(_mm256_castsi256_si128(h)), _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}
INLINE vi vf_put_f16(vf a)
{
    return (vi){_mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT)),
                _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT))};
}
INLINE uint64_t above_of_64(const uint8_t *p, unsigned least) /* which bytes are at least that */
{
    __m256i at = _mm256_set1_epi8((char)least);
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(a, at), a));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(b, at), b));
    return (uint64_t)high << 32 | low;
}

#define GUESS_PACKED NULL /* products of bytes with signs need more steps than those of floats */
#include "delta/float_wide_priv.h"
#endif
