/* The loops of float_priv.h for AVX-512. */
#if defined __x86_64__
#include <immintrin.h>

#define NAME(x) x##_avx512
#include "delta/float_body_priv.h"

#define INLINE static inline __attribute__((always_inline))
typedef __m512 vf;
typedef __m512i vi;
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_sum(vf a, vf b, vf c) { return _mm512_fmadd_ps(b, c, a); } /* a + b * c */
INLINE vf vf_of(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi vi_of(vf a) { return _mm512_castps_si512(a); }
INLINE vf vi_float(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi vi_set(int x) { return _mm512_set1_epi32(x); }
INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
INLINE vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
INLINE vi vi_abs(vi a) { return _mm512_abs_epi32(a); }
INLINE vi vi_shl(vi a, unsigned n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128((int)n)); }
INLINE vi vi_shr(vi a, unsigned n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128((int)n)); }
INLINE vi vi_pick(vi a, vi b, vi x, vi y) /* a == b ? x : y */
{
    return _mm512_mask_mov_epi32(y, _mm512_cmpeq_epi32_mask(a, b), x);
}
INLINE vi vi_halves(const uint8_t *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
INLINE void vi_put_halves(uint8_t *p, vi a) { _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(a)); }
INLINE vf vf_f16(vi a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
INLINE vi vf_put_f16(vf a) { return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
INLINE uint64_t above_of_64(const uint8_t *p, unsigned least) /* which bytes are at least that */
{
    return _mm512_cmpge_epu8_mask(_mm512_loadu_si512(p), _mm512_set1_epi8((char)least));
}

/* Four products a lane and instruction; their sums are whole numbers below 2^24, which are floats without rounding. */
INLINE void guess_of(const uint8_t up[16], const int8_t *v, const int32_t *base, unsigned fours, uint32_t n, float unit, float *guess)
{
    __m512i by[4];
    for (unsigned k = 0; k < 4; k++)
        by[k] = _mm512_broadcastd_epi32(_mm_loadu_si32(up + 4 * k));
    for (uint32_t i = 0; i < n; i += 16, v += 256) {
        __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        __m512i sum = _mm512_maskz_loadu_epi32(some, base + i);
        for (unsigned k = 0; k < fours; k++)
            sum = _mm512_dpbusd_epi32(sum, by[k], _mm512_loadu_si512(v + 64 * k));
        __m512 out = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(unit));
        if (n - i < 16)
            _mm512_mask_storeu_ps(guess + i, some, out);
        else
            _mm512_storeu_ps(guess + i, out);
    }
}

static void guess_packed(const int8_t *u, const int8_t *v, const int32_t *base, unsigned rank, uint32_t n, float unit,
                         float *guess)
{
    uint8_t up[16] = {0};
    for (unsigned k = 0; k < rank && k < 16; k++)
        up[k] = (uint8_t)(u[k] + 128);
    if (rank <= 4)
        guess_of(up, v, base, 1, n, unit, guess);
    else if (rank <= 8)
        guess_of(up, v, base, 2, n, unit, guess);
    else if (rank <= 12)
        guess_of(up, v, base, 3, n, unit, guess);
    else
        guess_of(up, v, base, 4, n, unit, guess);
}
#define GUESS_PACKED guess_packed
#include "delta/float_wide_priv.h"
#endif
