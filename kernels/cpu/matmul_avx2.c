/*
 * Quantized matrix products and the quantizing of activations with AVX2.
 */
#if defined(__x86_64__)
#include "kernels/cpu/group_avx2_priv.h"
#include "kernels/cpu/block_body_priv.h"

SKF_INLINE int32_t reduce(vi v, bool is_max)
{
    int32_t t[8], r;
    _mm256_storeu_si256((__m256i_u *)t, v);
    r = t[0];
    for (int i = 1; i < 8; i++)
        r = is_max ? SKF_MAX(r, t[i]) : r + t[i];
    return r;
}

static void quantize(const float *x, uint32_t n, struct skf_acts *a, uint32_t t)
{
    const vi mask = _mm256_set1_epi32(0x7fffffff);
    for (uint32_t b = 0; b < n / SKF_QBLOCK; b++, x += SKF_QBLOCK) {
        size_t at = (size_t)b * a->m + t;
        vi top = _mm256_setzero_si256(), c[4];
        SKF_UNROLL
        for (int i = 0; i < 4; i++)
            top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_loadu_si256((const __m256i_u *)(x + 8 * i)), mask));
        float inv = skf_block_scale((uint32_t)reduce(top, true), &a->d[at]);
        SKF_UNROLL
        for (int i = 0; i < 4; i++)
            c[i] = inv > 0.0f ? _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inv)))
                              : _mm256_setzero_si256();
        vi lo = _mm256_packs_epi32(c[0], c[1]), hi = _mm256_packs_epi32(c[2], c[3]);
        vi bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(lo, hi), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i_u *)(a->q + at * SKF_QBLOCK), bytes);
        a->low[at] = reduce(_mm256_add_epi32(c[0], c[1]), false);
        a->sum[at] = a->low[at] + reduce(_mm256_add_epi32(c[2], c[3]), false);
        a->s[at] = inv > 0.0f ? a->d[at] * (float)a->sum[at] : a->d[at];
    }
}

const struct skf_quant_ops skf_quant_avx2 = {quantize, block_matmul};
#else
typedef int skf_no_avx2; /* a file must hold something */
#endif
