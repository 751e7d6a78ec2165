/*
 * Quantized matrix products and the quantizing of activations with AVX-512 VNNI.
 */
#if defined(__x86_64__)
#include "kernels/cpu/group_avx512_priv.h"
#include "kernels/cpu/block_body_priv.h"

static void quantize(const float *x, uint32_t n, struct skf_acts *a, uint32_t t)
{
    const vi mask = _mm512_set1_epi32(0x7fffffff);
    for (uint32_t b = 0; b < n / SKF_QBLOCK; b++, x += SKF_QBLOCK) {
        size_t at = (size_t)b * a->m + t;
        vf u = _mm512_loadu_ps(x), v = _mm512_loadu_ps(x + 16);
        vi top = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(u), mask),
                                  _mm512_and_si512(_mm512_castps_si512(v), mask));
        float inv = skf_block_scale((uint32_t)_mm512_reduce_max_epi32(top), &a->d[at]);
        vi qu = _mm512_setzero_si512(), qv = qu;
        if (inv > 0.0f) {
            qu = _mm512_cvtps_epi32(_mm512_mul_ps(u, _mm512_set1_ps(inv)));
            qv = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inv)));
        }
        int8_t *q = a->q + at * SKF_QBLOCK;
        _mm_storeu_si128((__m128i_u *)q, _mm512_cvtepi32_epi8(qu));
        _mm_storeu_si128((__m128i_u *)(q + 16), _mm512_cvtepi32_epi8(qv));
        a->low[at] = _mm512_reduce_add_epi32(qu);
        a->sum[at] = a->low[at] + _mm512_reduce_add_epi32(qv);
        a->s[at] = inv > 0.0f ? a->d[at] * (float)a->sum[at] : a->d[at];
    }
}

const struct skf_quant_ops skf_quant_avx512 = {quantize, block_matmul};
#else
typedef int skf_no_avx512; /* a file must hold something */
#endif
