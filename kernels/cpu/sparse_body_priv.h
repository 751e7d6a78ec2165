/*
 * Products with packed matrices (model/sparse.h), written once over the primitives of group_<isa>_priv.h and vec_priv.h and over what
 * sparse_<isa>.c defines before including this:
 *
 *   is_sparse_here(type)                  whether the two below know the type
 *   s_codes(type, is_even, masks, &p, background, w)   the codes of a block of 16 rows, SKF_PARTS times as g_codes4 or g_codes8 gives them, from
 *                                         8 masks and the values at p, which moves on
 *   s_floats(type, mask, &p, &lo, &hi)    32 weights of a row
 *
 * A block is unpacked into registers and used for every token; the order of every sum is that of kernels.h, so the results are those of the
 * rows it was packed from, to the bit.
 */
#ifndef SKF_KERNELS_SPARSE_BODY_PRIV_H
#define SKF_KERNELS_SPARSE_BODY_PRIV_H

#include "kernels/cpu/vec_priv.h"

#define SKF_PARTS   (SKF_SPARSE_ROWS / SKF_GROUP)
#define SKF_STOKENS 64u /* tokens in one pass over blocks */
#define SKF_FLOAT_TOKENS 4u /* and over floats */

SKF_INLINE void sparse_tokens(enum skf_type type, bool is_even, const struct skf_sparse *s, uint32_t g, const struct skf_acts *a, uint32_t t,
                              uint32_t count, vf (*acc)[SKF_PARTS])
{
    const uint32_t blocks = a->n / SKF_QBLOCK, heads = type == SKF_T_Q4_1 ? 80 : 32;
    const uint8_t *fixed = s->fixed + g * s->stride, *p = skf_sparse_values(s, g);
    for (uint32_t b = 0; b < blocks; b++, fixed += heads + 64) {
        vi w[SKF_PARTS][8];
        vf d[SKF_PARTS], min[SKF_PARTS];
        s_codes(type, is_even, fixed + heads, &p, fixed + 64, w);
        SKF_UNROLL
        for (uint32_t i = 0; i < SKF_PARTS; i++) {
            const uint8_t *h = fixed + 2 * SKF_GROUP * i;
            d[i] = g_half((const uint16_t *)(const void *)h);
            min[i] = type == SKF_T_Q4_1 ? g_half((const uint16_t *)(const void *)(h + 32)) : g_zero();
        }
        for (uint32_t j = 0; j < count; j++) {
            size_t at = (size_t)b * a->m + t + j;
            const int8_t *q = a->q + at * SKF_QBLOCK;
            SKF_UNROLL
            for (uint32_t i = 0; i < SKF_PARTS; i++) {
                vi dot = type == SKF_T_Q8_0 ? g_dot8(w[i], q, a->sum[at]) : g_dot4(w[i], q, type == SKF_T_Q4_0 ? -8 * a->sum[at] : 0);
                acc[j][i] = g_fma(g_mul(d[i], g_set(a->d[at])), g_float(dot), acc[j][i]);
                if (type == SKF_T_Q4_1)
                    acc[j][i] = g_fma(min[i], g_set(a->s[at]), acc[j][i]);
            }
        }
    }
}

/* Rows row0 .. row1 - 1 of those that a group has. */
SKF_INLINE void sparse_store(const vf *acc, uint32_t first, uint32_t row0, uint32_t row1, float *y)
{
    float t[SKF_SPARSE_ROWS];
    SKF_UNROLL
    for (uint32_t i = 0; i < SKF_PARTS; i++)
        g_store(t + i * SKF_GROUP, SKF_GROUP, acc[i]);
    uint32_t from = SKF_MAX(first, row0), to = SKF_MIN(first + SKF_SPARSE_ROWS, row1);
    memcpy(y + from, t + (from - first), (to - from) * sizeof *y);
}

SKF_INLINE void sparse_blocks(enum skf_type type, bool is_even, const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1,
                              float *y, size_t ldy)
{
    for (uint32_t g = row0 / SKF_SPARSE_ROWS; g <= (row1 - 1) / SKF_SPARSE_ROWS; g++) {
        vf acc[SKF_STOKENS][SKF_PARTS];
        if (a->m == 1) { /* decoding: the accumulators stay in registers */
            SKF_UNROLL
            for (uint32_t i = 0; i < SKF_PARTS; i++)
                acc[0][i] = g_zero();
            sparse_tokens(type, is_even, s, g, a, 0, 1, acc);
            sparse_store(acc[0], g * SKF_SPARSE_ROWS, row0, row1, y);
            continue;
        }
        for (uint32_t t = 0; t < a->m; t += SKF_STOKENS) {
            uint32_t count = SKF_MIN(a->m - t, SKF_STOKENS);
            for (uint32_t j = 0; j < count; j++)
                for (uint32_t i = 0; i < SKF_PARTS; i++)
                    acc[j][i] = g_zero();
            sparse_tokens(type, is_even, s, g, a, t, count, acc);
            for (uint32_t j = 0; j < count; j++)
                sparse_store(acc[j], g * SKF_SPARSE_ROWS, row0, row1, y + (t + j) * ldy);
        }
    }
}

/* Four rows against `count` tokens. */
SKF_INLINE void sparse_quad(enum skf_type type, const struct skf_sparse *s, uint32_t g, const struct skf_acts *a, uint32_t t,
                            uint32_t count, float (*y)[SKF_SPARSE_FLOATS])
{
    const uint8_t *p = skf_sparse_values(s, g), *masks = s->fixed + g * s->stride;
    v16 acc[SKF_SPARSE_FLOATS][SKF_FLOAT_TOKENS];
    const float *x[SKF_FLOAT_TOKENS];
    SKF_UNROLL
    for (uint32_t j = 0; j < count; j++) {
        x[j] = a->x + (t + j) * a->ldx;
        SKF_UNROLL
        for (uint32_t k = 0; k < SKF_SPARSE_FLOATS; k++)
            acc[k][j] = v_set(0.0f);
    }
    uint32_t i = 0;
    for (; i + SKF_QBLOCK <= a->n; i += SKF_QBLOCK) {
        SKF_UNROLL
        for (uint32_t k = 0; k < SKF_SPARSE_FLOATS; k++, masks += 4) {
            v16 lo, hi;
            s_floats(type, skf_load32(masks), &p, &lo, &hi);
            SKF_UNROLL
            for (uint32_t j = 0; j < count; j++)
                acc[k][j] = v_fma(hi, v_load(x[j] + i + 16), v_fma(lo, v_load(x[j] + i), acc[k][j]));
        }
    }
    if (i < a->n) { /* at most 31 columns are left */
        const uint32_t left = a->n - i;
        SKF_UNROLL
        for (uint32_t k = 0; k < SKF_SPARSE_FLOATS; k++, masks += 4) {
            v16 lo, hi;
            s_floats(type, skf_load32(masks), &p, &lo, &hi);
            SKF_UNROLL
            for (uint32_t j = 0; j < count; j++) {
                acc[k][j] = v_fma(lo, v_load_part(x[j] + i, SKF_MIN(left, 16u)), acc[k][j]);
                if (left > 16)
                    acc[k][j] = v_fma(hi, v_load_part(x[j] + i + 16, left - 16), acc[k][j]);
            }
        }
    }
    SKF_UNROLL
    for (uint32_t j = 0; j < count; j++) {
        SKF_UNROLL
        for (uint32_t k = 0; k < SKF_SPARSE_FLOATS; k++)
            y[j][k] = v_sum(acc[k][j]);
    }
}

SKF_INLINE void sparse_floats(enum skf_type type, const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1,
                              float *y, size_t ldy)
{
    for (uint32_t g = row0 / SKF_SPARSE_FLOATS; g <= (row1 - 1) / SKF_SPARSE_FLOATS; g++) {
        const uint32_t first = g * SKF_SPARSE_FLOATS, from = SKF_MAX(first, row0), to = SKF_MIN(first + SKF_SPARSE_FLOATS, row1);
        for (uint32_t t = 0, count; t < a->m; t += count) {
            float sums[SKF_FLOAT_TOKENS][SKF_SPARSE_FLOATS];
            count = SKF_MIN(a->m - t, SKF_FLOAT_TOKENS);
            if (count == 1)
                sparse_quad(type, s, g, a, t, 1, sums);
            else if (count == 2)
                sparse_quad(type, s, g, a, t, 2, sums);
            else if (count == 3)
                sparse_quad(type, s, g, a, t, 3, sums);
            else
                sparse_quad(type, s, g, a, t, 4, sums);
            for (uint32_t j = 0; j < count; j++)
                memcpy(y + (t + j) * ldy + from, &sums[j][from - first], (to - from) * sizeof *y);
        }
    }
}

static bool sparse_matmul(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    if (!is_sparse_here(s->type))
        return false;
    if (s->type == SKF_T_Q8_0 && s->is_even)
        sparse_blocks(SKF_T_Q8_0, true, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_Q8_0)
        sparse_blocks(SKF_T_Q8_0, false, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_BF16)
        sparse_floats(SKF_T_BF16, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_F16)
        sparse_floats(SKF_T_F16, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_F32)
        sparse_floats(SKF_T_F32, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_Q4_0 && is_sparse_here(SKF_T_Q4_0))
        sparse_blocks(SKF_T_Q4_0, false, s, a, row0, row1, y, ldy);
    else if (s->type == SKF_T_Q4_1 && is_sparse_here(SKF_T_Q4_1))
        sparse_blocks(SKF_T_Q4_1, false, s, a, row0, row1, y, ldy);
    return true;
}

#endif
