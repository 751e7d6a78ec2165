/*
 * How the files of one instruction set come to one table: matmul_<isa>.c has the quantized operators, float_<isa>.c the others
 * and the table.
 */
#ifndef SKF_KERNELS_OPS_PRIV_H
#define SKF_KERNELS_OPS_PRIV_H

#include "kernels/kernels_priv.h"

struct skf_quant_ops {
    void (*quantize)(const float *x, uint32_t n, struct skf_acts *a, uint32_t t);
    void (*matmul)(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                   size_t ldy); /* block types only */
};
extern const struct skf_quant_ops skf_quant_avx2, skf_quant_avx512, skf_quant_neon;

/* From the bits of a block's largest |x|: its scale in *d, and what to multiply by, 0 when all codes are 0. */
static inline float skf_block_scale(uint32_t top, float *d)
{
    if (top >= 0x7f800000u) {
        *d = skf_bits_float(0x7fc00000u);
        return 0.0f;
    }
    float amax = skf_bits_float(top);
    *d = amax < SKF_TINY ? 0.0f : amax / 127.0f;
    return amax < SKF_TINY ? 0.0f : 127.0f / amax;
}

#endif
