/*
 * Products with packed matrices with AVX-512 VBMI2: one instruction (vpexpandb, vpexpandw) takes the values behind a mask to their places.
 */
#if defined(__x86_64__)
#include "kernels/cpu/group_avx512_priv.h"
#include "model/sparse.h"

SKF_INLINE bool is_sparse_here(enum skf_type t) { return is_sparse_type(t); }

SKF_INLINE uint64_t load_mask(const uint8_t *p)
{
    uint64_t m;
    memcpy(&m, p, 8);
    return m;
}

/* A load by itself: expanding straight from memory suppresses faults of what is masked, which costs more than it saves. */
SKF_INLINE vi load(const uint8_t *p)
{
    vi v = _mm512_loadu_si512(p);
    __asm__("" : "+v"(v));
    return v;
}
/* Zeros to expand into: the zeroing form of the instruction waits for what its destination held (Zen 5). */
SKF_INLINE vi zeros(void)
{
    vi v = _mm512_setzero_si512();
    __asm__("" : "+v"(v));
    return v;
}

SKF_INLINE void s_codes(enum skf_type type, bool is_even, const uint8_t *masks, const uint8_t **p, const uint8_t *background, vi w[1][8])
{
    const vi low = _mm512_set1_epi8(15);
    vi none = _mm512_set1_epi8(8);
    if (type == SKF_T_Q4_1) { /* each row's, in all four of its bytes */
        none = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)background));
        none = _mm512_or_si512(none, _mm512_slli_epi32(none, 8));
        none = _mm512_or_si512(none, _mm512_slli_epi32(none, 16));
    }
    SKF_UNROLL
    for (int k = 0; k < 8; k++) {
        uint64_t m = load_mask(masks + 8 * k);
        uint32_t n = (uint32_t)__builtin_popcountll(m);
        if (type == SKF_T_Q8_0) {
            w[0][k] = _mm512_xor_si512(_mm512_mask_expand_epi8(zeros(), m, load(*p)), _mm512_set1_epi8(-128));
            *p += n;
        } else {
            vi v = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i_u *)*p));
            v = _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi16(v, 4)), low);
            w[0][k] = _mm512_mask_expand_epi8(none, m, v);
            *p += (n + 1) / 2;
        }
    }
}

#include "kernels/cpu/vec_priv.h"

SKF_INLINE void s_floats(enum skf_type type, uint32_t mask, const uint8_t **p, v16 *lo, v16 *hi)
{
    if (type == SKF_T_F32) {
        uint32_t n = (uint32_t)__builtin_popcount(mask & 0xffff);
        *lo = _mm512_castsi512_ps(_mm512_mask_expand_epi32(zeros(), (__mmask16)mask, load(*p)));
        *hi = _mm512_castsi512_ps(_mm512_mask_expand_epi32(zeros(), (__mmask16)(mask >> 16), load(*p + 4 * n)));
        *p += 4 * (uint32_t)__builtin_popcount(mask);
        return;
    }
    vi w = _mm512_mask_expand_epi16(zeros(), mask, load(*p));
    __m256i a = _mm512_castsi512_si256(w), b = _mm512_extracti64x4_epi64(w, 1);
    *p += 2 * (uint32_t)__builtin_popcount(mask);
    *lo = type == SKF_T_F16 ? _mm512_cvtph_ps(a) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
    *hi = type == SKF_T_F16 ? _mm512_cvtph_ps(b) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

#include "kernels/cpu/sparse_body_priv.h"

bool skf_sparse_vbmi2(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    return sparse_matmul(s, a, row0, row1, y, ldy);
}
#else
typedef int skf_no_sparse_vbmi2; /* a file must hold something */
#endif
