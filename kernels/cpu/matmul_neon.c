/*
 * Quantized matrix products and the quantizing of activations with NEON's dot product (sdot).
 */
#if defined(__aarch64__)
#include "kernels/cpu/group_neon_priv.h"
#include "kernels/cpu/block_body_priv.h"

static void quantize(const float *x, uint32_t n, struct skf_acts *a, uint32_t t)
{
    for (uint32_t b = 0; b < n / SKF_QBLOCK; b++, x += SKF_QBLOCK) {
        size_t at = (size_t)b * a->m + t;
        uint32x4_t top = vdupq_n_u32(0);
        SKF_UNROLL
        for (int i = 0; i < 8; i++)
            top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + 4 * i)), vdupq_n_u32(0x7fffffff)));
        float inv = skf_block_scale(vmaxvq_u32(top), &a->d[at]);
        int8_t *q = a->q + at * SKF_QBLOCK;
        vi sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
        SKF_UNROLL
        for (int i = 0; i < 8; i += 2) {
            vi u = vdupq_n_s32(0), v = u;
            if (inv > 0.0f) {
                u = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inv));
                v = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i + 4), inv));
            }
            sum[i / 4] = vaddq_s32(sum[i / 4], vaddq_s32(u, v));
            vst1_s8(q + 4 * i, vmovn_s16(vcombine_s16(vmovn_s32(u), vmovn_s32(v))));
        }
        a->low[at] = vaddvq_s32(sum[0]);
        a->sum[at] = a->low[at] + vaddvq_s32(sum[1]);
        a->s[at] = inv > 0.0f ? a->d[at] * (float)a->sum[at] : a->d[at];
    }
}

const struct skf_quant_ops skf_quant_neon = {quantize, block_matmul};
#else
typedef int skf_no_neon; /* a file must hold something */
#endif
