/* Packed matrices of any bytes: what is accepted is multiplied with by every kernel, which must stay inside of the block. */
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/kernels_priv.h"

enum { MOST = 1 << 16 /* codes: more would only take time */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void multiply(const struct skf_sparse *s, uint32_t m)
{
    static const enum skf_isa isas[] = {SKF_ISA_REF, SKF_ISA_AVX2, SKF_ISA_AVX512, SKF_ISA_NEON};
    size_t blocks = (s->cols / SKF_QBLOCK + 1) * (size_t)m;
    struct skf_acts a = {.m = m, .n = s->cols, .ldx = s->cols};
    struct skf_weight w = {.type = s->type, .rows = s->rows, .cols = s->cols, .packed = s};
    float *x = skf_calloc((size_t)m * s->cols + 1, sizeof *x), *y = skf_calloc((size_t)m * s->rows + 1, sizeof *y);
    enum skf_isa best;
    a.x = x;
    a.q = skf_calloc(blocks, SKF_QBLOCK);
    a.d = skf_calloc(blocks, sizeof *a.d);
    a.s = skf_calloc(blocks, sizeof *a.s);
    a.sum = skf_calloc(blocks, sizeof *a.sum);
    if (x && y && a.q && a.d && a.s && a.sum && skf_isa_pick(&best, NULL) == SKF_OK)
        for (size_t i = 0; i < SKF_COUNT(isas); i++)
            if (isas[i] <= best && skf_ops_get(isas[i]))
                (void)is_sparse_matmul(isas[i], &w, &a, 0, s->rows, y, s->rows);
    skf_free(x);
    skf_free(y);
    skf_free(a.q);
    skf_free(a.d);
    skf_free(a.s);
    skf_free(a.sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct skf_sparse s;
    if (skf_sparse_open(data, size, &s, NULL) != SKF_OK || s.rows == 0 || (uint64_t)s.rows * (s.cols + 1ull) > MOST)
        return 0;
    multiply(&s, 1);
    multiply(&s, 5);
    return 0;
}
