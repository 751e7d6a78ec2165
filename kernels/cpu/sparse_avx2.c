/*
 * Products with packed matrices with AVX2: values go to their places by byte shuffles that a table gives for 8 bits of mask.  Nibbles would
 * have to be parted first, which costs what their few bytes save: 4-bit types are computed from their rows here.
 */
#if defined(__x86_64__)
#include "kernels/cpu/group_avx2_priv.h"
#include "kernels/cpu/sparse_table_priv.h"
#include "kernels/cpu/vec_priv.h"
#include "model/sparse.h"

SKF_INLINE bool is_sparse_here(enum skf_type t) { return is_sparse_type(t) && t != SKF_T_Q4_0 && t != SKF_T_Q4_1; }

/* 16 bytes behind 16 bits of mask. */
SKF_INLINE __m128i expand16(const uint8_t *mask, const uint8_t **p)
{
    const uint8_t *second = *p + __builtin_popcount(mask[0]);
    __m128i v = _mm_loadl_epi64((const __m128i_u *)(const void *)*p);
    __m128i c = _mm_loadl_epi64((const __m128i_u *)(const void *)skf_sparse_bytes[mask[0]]);
    v = _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(v), (const __m64 *)(const void *)second));
    c = _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(c), (const __m64 *)(const void *)skf_sparse_bytes[mask[1]]));
    *p += __builtin_popcount(skf_load16(mask));
    return _mm_shuffle_epi8(v, _mm_add_epi8(c, _mm_set_epi64x(0x0808080808080808, 0))); /* 0x88 is a zero too */
}

/* 32 bytes behind 32 bits of mask of an even matrix: 16 values, two for every four bits. */
SKF_INLINE vi expand_even(const uint8_t *mask, const uint8_t *p)
{
    __m128i a = _mm_loadl_epi64((const __m128i_u *)(const void *)skf_sparse_bytes[mask[0]]);
    __m128i b = _mm_loadl_epi64((const __m128i_u *)(const void *)skf_sparse_bytes[mask[2]]);
    a = _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(a), (const __m64 *)(const void *)skf_sparse_bytes[mask[1]]));
    b = _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(b), (const __m64 *)(const void *)skf_sparse_bytes[mask[3]]));
    vi c = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    vi v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i_u *)(const void *)p));
    return _mm256_shuffle_epi8(
        v, _mm256_add_epi8(c, _mm256_set_epi64x(0x0c0c0c0c0c0c0c0c, 0x0808080808080808, 0x0404040404040404, 0)));
}

SKF_INLINE void s_codes(enum skf_type type, bool is_even, const uint8_t *masks, const uint8_t **p, const uint8_t *background, vi w[2][8])
{
    SKF_UNROLL
    for (int k = 0; k < 8; k++) {
        SKF_UNROLL
        for (int i = 0; i < 2; i++) {
            if (is_even) {
                w[i][k] = expand_even(masks + 8 * k + 4 * i, *p + 32 * k + 16 * i);
                continue;
            }
            __m128i a = expand16(masks + 8 * k + 4 * i, p), b = expand16(masks + 8 * k + 4 * i + 2, p);
            w[i][k] = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
        }
    }
    if (is_even)
        *p += 256;
}

SKF_INLINE __m256 expand8(enum skf_type type, uint32_t mask, const uint8_t **p)
{
    const uint8_t *at = *p;
    if (type == SKF_T_F32) {
        __m256i c = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)(const void *)skf_sparse_bytes[mask]));
        __m256 v = _mm256_permutevar8x32_ps(_mm256_loadu_ps((const float *)(const void *)at), c);
        *p += 4 * __builtin_popcount(mask);
        return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_srai_epi32(c, 31), _mm256_castps_si256(v)));
    }
    __m128i v = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i_u *)(const void *)at),
                                 _mm_loadu_si128((const __m128i_u *)(const void *)skf_sparse_words[mask]));
    *p += 2 * __builtin_popcount(mask);
    return type == SKF_T_F16 ? _mm256_cvtph_ps(v) : v_bf16_half(v);
}
SKF_INLINE void s_floats(enum skf_type type, uint32_t mask, const uint8_t **p, v16 *lo, v16 *hi)
{
    lo->a = expand8(type, mask & 255, p);
    lo->b = expand8(type, mask >> 8 & 255, p);
    hi->a = expand8(type, mask >> 16 & 255, p);
    hi->b = expand8(type, mask >> 24, p);
}

#include "kernels/cpu/sparse_body_priv.h"

bool skf_sparse_avx2(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    return sparse_matmul(s, a, row0, row1, y, ldy);
}
#else
typedef int skf_no_sparse_avx2; /* a file must hold something */
#endif
