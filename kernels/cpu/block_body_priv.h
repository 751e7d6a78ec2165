/*
 * Matrix products over quantized blocks, written once over the primitives that matmul_<isa>.c defines before including this:
 *
 *   SKF_GROUP   rows computed together, one a lane
 *   vi, vf      SKF_GROUP int32 and floats
 *   vi g_codes4(rp, off, w[8])   w[k] = codes 4k .. 4k + 3 of each row, bytes, from 16 packed bytes at rp[r] + off
 *   vi g_codes8(rp, off, w[8])   the same from 32 signed bytes
 *   vi g_dot4(w, q, init), g_dot8(w, q, sum)   integer dot products with 32 signed bytes; g_dot4 adds init
 *   g_zero, g_set, g_mul, g_fma, g_float, g_half (of SKF_GROUP 16-bit halves), g_low, g_high (of 32-bit pairs), g_store
 *
 * A block of a group of rows is taken apart once and used for every token, so the same code serves decoding and prefill.
 */
#ifndef SKF_KERNELS_BLOCK_BODY_PRIV_H
#define SKF_KERNELS_BLOCK_BODY_PRIV_H

#define SKF_TOKENS 64u /* tokens in one pass: their accumulators and codes stay in the first cache */

#include "kernels/cpu/lanes_body_priv.h"

#define SKF_HEADS  16u /* blocks whose scales are gathered ahead of use */

/* Scales lie apart in memory, one a block and row; they are gathered by plain loads well before they are wanted as vectors. */
SKF_INLINE void gather_heads(enum skf_type type, const uint8_t *const *rp, size_t off, uint32_t n, uint64_t ahead,
                             uint32_t *head)
{
    const size_t bytes = type == SKF_T_Q4_1 ? SKF_Q4_1_BYTES : type == SKF_T_Q4_0 ? SKF_Q4_0_BYTES : SKF_Q8_0_BYTES;
    uint16_t *half = (uint16_t *)head;
    for (uint32_t r = 0; r < SKF_GROUP; r++) {
        const uint8_t *p = rp[r] + off;
        for (uint32_t b = 0; b < n; b++, p += bytes) {
            __builtin_prefetch((const void *)((uintptr_t)p + ahead));
            if (type == SKF_T_Q4_1)
                head[b * SKF_GROUP + r] = skf_load32(p);
            else
                half[b * SKF_GROUP + r] = skf_load16(p);
        }
    }
}

SKF_INLINE void group_tokens(enum skf_type type, const uint8_t *const *rp, uint64_t ahead, const struct skf_acts *a,
                             uint32_t t, uint32_t count, vf *acc)
{
    const size_t bytes = type == SKF_T_Q4_1 ? SKF_Q4_1_BYTES : type == SKF_T_Q4_0 ? SKF_Q4_0_BYTES : SKF_Q8_0_BYTES;
    const uint32_t blocks = a->n / SKF_QBLOCK;
    uint32_t head[SKF_HEADS * SKF_GROUP];
    for (uint32_t b = 0; b < blocks; b++) {
        if (b % SKF_HEADS == 0)
            gather_heads(type, rp, b * bytes, SKF_MIN(blocks - b, SKF_HEADS), ahead, head);
        const uint32_t *h = head + (type == SKF_T_Q4_1 ? 1 : 0) * (b % SKF_HEADS) * SKF_GROUP;
        const uint16_t *half = (const uint16_t *)head + (b % SKF_HEADS) * SKF_GROUP;
        vf d = type == SKF_T_Q4_1 ? g_low(h) : g_half(half), min = type == SKF_T_Q4_1 ? g_high(h) : g_zero();
        vi w[8];
        if (type == SKF_T_Q8_0)
            g_codes8(rp, b * bytes + 2, w);
        else
            g_codes4(rp, b * bytes + (type == SKF_T_Q4_1 ? 4 : 2), w);
        for (uint32_t j = 0; j < count; j++) {
            size_t at = (size_t)b * a->m + t + j;
            const int8_t *q = a->q + at * SKF_QBLOCK;
            vi dot;
            if (type == SKF_T_Q8_0)
                dot = g_dot8(w, q, a->sum[at]);
            else
                dot = g_dot4(w, q, type == SKF_T_Q4_0 ? -8 * a->sum[at] : 0);
            acc[j] = g_fma(g_mul(d, g_set(a->d[at])), g_float(dot), acc[j]);
            if (type == SKF_T_Q4_1)
                acc[j] = g_fma(min, g_set(a->s[at]), acc[j]);
        }
    }
}

SKF_INLINE void block_rows(enum skf_type type, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0,
                           uint32_t row1, float *y, size_t ldy)
{
    uint32_t seg = skf_weight_seg(w, row0);
    const uint64_t ahead = SKF_GROUP * w->row_bytes; /* the next group, asked for while this one is computed */
    for (uint32_t r = row0; r < row1; r += SKF_GROUP) {
        const uint8_t *rp[SKF_GROUP];
        uint32_t n = SKF_MIN(row1 - r, SKF_GROUP);
        skf_row_group(w, r, n, SKF_GROUP, &seg, rp);
        if (a->m == 1) { /* decoding: the accumulator stays in a register */
            vf acc = g_zero();
            group_tokens(type, rp, ahead, a, 0, 1, &acc);
            g_store(y + r, n, acc);
            continue;
        }
        for (uint32_t t = 0; t < a->m; t += SKF_TOKENS) {
            vf acc[SKF_TOKENS];
            uint32_t count = SKF_MIN(a->m - t, SKF_TOKENS);
            for (uint32_t j = 0; j < count; j++)
                acc[j] = g_zero();
            group_tokens(type, rp, ahead, a, t, count, acc);
            for (uint32_t j = 0; j < count; j++)
                g_store(y + (t + j) * ldy + r, n, acc[j]);
        }
    }
}

static void block_matmul(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                         size_t ldy)
{
    if (row0 >= row1)
        return;
    if (w->lanes)
        lanes_matmul(w, a, row0, row1, y, ldy);
    else if (w->type == SKF_T_Q4_1)
        block_rows(SKF_T_Q4_1, w, a, row0, row1, y, ldy);
    else if (w->type == SKF_T_Q4_0)
        block_rows(SKF_T_Q4_0, w, a, row0, row1, y, ldy);
    else if (w->type == SKF_T_Q8_0)
        block_rows(SKF_T_Q8_0, w, a, row0, row1, y, ldy);
    else
        lanes_matmul(w, a, row0, row1, y, ldy);
}

#endif
