/*
 * Products with packed matrices in plain C, to be read beside model/sparse.h and kernels.h: each block is written out as it was before it
 * was packed, and summed up as the reference sums rows (ref.c).
 */
#include <math.h>

#include "kernels/cpu/ops_priv.h"

/* The codes of a block of 16 rows; p moves behind its values. */
static void unpack(enum skf_type type, const uint8_t *masks, const uint8_t **p, const uint8_t *background, int8_t codes[16][32])
{
    for (uint32_t v = 0; v < 8; v++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < 64; i++) {
            int8_t *code = &codes[i / 4][4 * v + i % 4];
            bool is_value = masks[8 * v + i / 8] >> i % 8 & 1;
            if (type == SKF_T_Q8_0)
                *code = is_value ? (int8_t)(*p)[n] : 0;
            else if (is_value)
                *code = (*p)[n / 2] >> n % 2 * 4 & 15;
            else
                *code = type == SKF_T_Q4_0 ? 8 : (int8_t)background[i / 4];
            n += is_value;
        }
        *p += type == SKF_T_Q8_0 ? n : (n + 1) / 2;
    }
}

static void group_blocks(const struct skf_sparse *s, uint32_t g, const struct skf_acts *a, uint32_t t, float acc[16])
{
    const uint32_t heads = skf_sparse_heads(s->type);
    const uint8_t *fixed = s->fixed + g * s->stride, *p = skf_sparse_values(s, g);
    memset(acc, 0, 16 * sizeof *acc);
    for (uint32_t b = 0; b < a->n / SKF_QBLOCK; b++, fixed += heads + 64) {
        size_t at = (size_t)b * a->m + t;
        int8_t codes[16][32];
        unpack(s->type, fixed + heads, &p, fixed + 64, codes);
        for (uint32_t r = 0; r < 16; r++) {
            int32_t dot = 0;
            for (uint32_t i = 0; i < 32; i++)
                dot += (codes[r][i] - (s->type == SKF_T_Q4_0 ? 8 : 0)) * a->q[at * SKF_QBLOCK + i];
            acc[r] = fmaf(skf_f16_to_f32(skf_load16(fixed + 2 * r)) * a->d[at], (float)dot, acc[r]);
            if (s->type == SKF_T_Q4_1)
                acc[r] = fmaf(skf_f16_to_f32(skf_load16(fixed + 32 + 2 * r)), a->s[at], acc[r]);
        }
    }
}

/* One weight of a row of floats, whose values are at p. */
static float weight_of(enum skf_type type, const uint8_t *p)
{
    if (type == SKF_T_F32)
        return skf_bits_float(skf_load32(p));
    return type == SKF_T_F16 ? skf_f16_to_f32(skf_load16(p)) : skf_bf16_to_f32(skf_load16(p));
}

static float tree(float *l)
{
    for (uint32_t step = 8; step; step /= 2)
        for (uint32_t i = 0; i < step; i++)
            l[i] = l[i] + l[i + step];
    return l[0];
}

static void group_floats(const struct skf_sparse *s, uint32_t g, const float *x, uint32_t n, float sums[SKF_SPARSE_FLOATS])
{
    const uint8_t *masks = s->fixed + g * s->stride, *p = skf_sparse_values(s, g);
    float lane[SKF_SPARSE_FLOATS][16] = {{0}};
    for (uint32_t c = 0; c < n; c += 32)
        for (uint32_t r = 0; r < SKF_SPARSE_FLOATS; r++, masks += 4)
            for (uint32_t i = 0; i < 32 && c + i < (n + 15) / 16 * 16; i++) {
                bool is_value = masks[i / 8] >> i % 8 & 1;
                lane[r][i % 16] = fmaf(is_value ? weight_of(s->type, p) : 0.0f, c + i < n ? x[c + i] : 0.0f, lane[r][i % 16]);
                p += is_value ? s->type == SKF_T_F32 ? 4 : 2 : 0;
            }
    for (uint32_t r = 0; r < SKF_SPARSE_FLOATS; r++)
        sums[r] = tree(lane[r]);
}

bool skf_sparse_ref(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    for (uint32_t t = 0; t < a->m; t++) {
        float sums[SKF_SPARSE_ROWS];
        for (uint32_t r = row0; r < row1; r++) {
            if ((r == row0 || r % s->group == 0) && s->group == SKF_SPARSE_FLOATS)
                group_floats(s, r / s->group, a->x + t * a->ldx, a->n, sums);
            else if (r == row0 || r % s->group == 0)
                group_blocks(s, r / s->group, a, t, sums);
            y[t * ldy + r] = sums[r % s->group];
        }
    }
    return true;
}
