/*
 * The operators on floats for one instruction set, and its table.
 */
#if defined(__x86_64__)
#include "kernels/cpu/float_body_priv.h"
#include "kernels/cpu/ops_priv.h"

static void quantize(const float *x, uint32_t n, struct skf_acts *a, uint32_t t) { skf_quant_avx2.quantize(x, n, a, t); }

static void matmul(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                   size_t ldy)
{
    if (row0 >= row1 || (w->packed && is_sparse_matmul(SKF_ISA_AVX2, w, a, row0, row1, y, ldy)))
        return;
    if (w->type == SKF_T_F32 || w->type == SKF_T_F16 || w->type == SKF_T_BF16)
        float_matmul(w, a, row0, row1, y, ldy);
    else
        skf_quant_avx2.matmul(w, a, row0, row1, y, ldy);
}

const struct skf_ops skf_ops_avx2 = SKF_FLOAT_OPS(SKF_ISA_AVX2, quantize, matmul, skf_attention_avx2);
#else
typedef int skf_no_float_avx2; /* a file must hold something */
#endif
