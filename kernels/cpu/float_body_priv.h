/*
 * The operators on floats, written once over sixteen lanes; kernels/cpu/float_<isa>.c compiles them for one instruction set.
 */
#ifndef SKF_KERNELS_FLOAT_BODY_PRIV_H
#define SKF_KERNELS_FLOAT_BODY_PRIV_H

#include "kernels/cpu/vec_priv.h"

/* Sixteen weights of a type, or the first n of them and zeros. */
SKF_INLINE v16 v_weights(enum skf_type type, const uint8_t *p)
{
    if (type == SKF_T_F32)
        return v_load((const float *)(const void *)p);
    return type == SKF_T_F16 ? v_load_f16(p) : v_load_bf16(p);
}
SKF_INLINE v16 v_weights_part(enum skf_type type, const uint8_t *p, uint32_t n)
{
    uint8_t t[64] = {0};
    memcpy(t, p, (size_t)n * (type == SKF_T_F32 ? 4 : 2));
    return v_weights(type, t);
}

/* One row against up to four tokens, so that a weight is converted once for them. */
#define SKF_FTOKENS 4u
SKF_INLINE void float_row(enum skf_type type, const uint8_t *p, const struct skf_acts *a, uint32_t t, uint32_t count,
                          float *y, size_t ldy)
{
    const uint32_t size = type == SKF_T_F32 ? 4 : 2;
    v16 acc[SKF_FTOKENS];
    const float *x[SKF_FTOKENS];
    SKF_UNROLL
    for (uint32_t j = 0; j < count; j++) {
        acc[j] = v_set(0.0f);
        x[j] = a->x + (t + j) * a->ldx;
    }
    uint32_t i = 0;
    for (; i + 16 <= a->n; i += 16) {
        v16 w = v_weights(type, p + (size_t)i * size);
        SKF_UNROLL
        for (uint32_t j = 0; j < count; j++)
            acc[j] = v_fma(w, v_load(x[j] + i), acc[j]);
    }
    if (i < a->n) {
        v16 w = v_weights_part(type, p + (size_t)i * size, a->n - i);
        SKF_UNROLL
        for (uint32_t j = 0; j < count; j++)
            acc[j] = v_fma(w, v_load_part(x[j] + i, a->n - i), acc[j]);
    }
    SKF_UNROLL
    for (uint32_t j = 0; j < count; j++)
        y[(t + j) * ldy] = v_sum(acc[j]);
}
SKF_INLINE void float_rows(enum skf_type type, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0,
                           uint32_t row1, float *y, size_t ldy)
{
    uint32_t seg = skf_weight_seg(w, row0);
    for (uint32_t r = row0; r < row1; r++) {
        const uint8_t *p;
        skf_row_group(w, r, 1, 1, &seg, &p);
        uint32_t t = 0;
        for (; t + SKF_FTOKENS <= a->m; t += SKF_FTOKENS)
            float_row(type, p, a, t, SKF_FTOKENS, y + r, ldy);
        for (; t < a->m; t++)
            float_row(type, p, a, t, 1, y + r, ldy);
    }
}
static void float_matmul(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                         size_t ldy)
{
    if (w->type == SKF_T_F32)
        float_rows(SKF_T_F32, w, a, row0, row1, y, ldy);
    else if (w->type == SKF_T_F16)
        float_rows(SKF_T_F16, w, a, row0, row1, y, ldy);
    else
        float_rows(SKF_T_BF16, w, a, row0, row1, y, ldy);
}

static void float_rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    v16 acc = v_set(0.0f);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 v = v_load(x + i);
        acc = v_fma(v, v, acc);
    }
    if (i < n) {
        v16 v = v_load_part(x + i, n - i);
        acc = v_fma(v, v, acc);
    }
    float scale = 1.0f / sqrtf(v_sum(acc) / (float)n + eps);
    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_mul(v_mul(v_load(x + i), v_set(scale)), v_load(w + i)));
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void float_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs)
{
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim) {
        uint32_t i = 0;
        for (; i + 16 <= n_rot; i += 16) {
            v16 v = v_load(x + i), k = v_load(cs + i);
            v_store(x + i, v_fma(v, v_firsts(k), v_neg_even(v_mul(v_swap(v), v_seconds(k)))));
        }
        for (; i + 1 < n_rot; i += 2) {
            float c = cs[i], s = cs[i + 1], a = x[i], b = x[i + 1];
            float bs = b * s, as = a * s;
            x[i] = fmaf(a, c, -bs);
            x[i + 1] = fmaf(b, c, as);
        }
    }
}

static void float_rope_halves(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs)
{
    const uint32_t half = n_rot / 2;
    const v16 minus = v_set(-1.0f);
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim) {
        uint32_t i = 0;
        for (; i + 16 <= half; i += 16) {
            v16 a = v_load(x + i), b = v_load(x + half + i), c = v_load(cs + i), s = v_load(cs + half + i);
            v_store(x + i, v_fma(a, c, v_mul(v_mul(b, s), minus)));
            v_store(x + half + i, v_fma(b, c, v_mul(a, s)));
        }
        for (; i < half; i++) {
            float c = cs[i], s = cs[half + i], a = x[i], b = x[half + i];
            float bs = b * s, as = a * s;
            x[i] = fmaf(a, c, -bs);
            x[half + i] = fmaf(b, c, as);
        }
    }
}

static void float_gelu_mul(float *g, const float *u, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 v = v_load(g + i), z = v_mul(v_mul(v, v_fma(v_mul(v, v), v_set(SKF_GELU_B), v_set(1.0f))), v_set(SKF_GELU_A));
        v16 e = v_exp(v_mul(z, v_set(-1.0f)));
        v_store(g + i, v_mul(v_div(v, v_add(v_set(1.0f), e)), v_load(u + i)));
    }
    for (; i < n; i++) {
        float z = g[i] * fmaf(g[i] * g[i], SKF_GELU_B, 1.0f) * SKF_GELU_A;
        g[i] = g[i] / (1.0f + skf_exp_ref(-z)) * u[i];
    }
}

static void float_silu_mul(float *g, const float *u, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 v = v_load(g + i), e = v_exp(v_mul(v, v_set(-1.0f)));
        v_store(g + i, v_mul(v_div(v, v_add(v_set(1.0f), e)), v_load(u + i)));
    }
    for (; i < n; i++)
        g[i] = g[i] / (1.0f + skf_exp_ref(-g[i])) * u[i];
}

static void float_add(float *x, const float *y, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v_store(x + i, v_add(v_load(x + i), v_load(y + i)));
    for (; i < n; i++)
        x[i] = x[i] + y[i];
}

static void float_to_f16(const float *x, uint16_t *h, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v_store_f16(h + i, v_load(x + i));
    if (i < n) {
        uint16_t t[16];
        v_store_f16(t, v_load_part(x + i, n - i));
        memcpy(h + i, t, (n - i) * sizeof *h);
    }
}

/* The sum of exp(x[i] - max). */
static float float_sum_exp(const float *x, uint32_t n, float max)
{
    v16 acc = v_set(0.0f);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        acc = v_add(acc, v_exp(v_sub(v_load(x + i), v_set(max))));
    if (i < n) {
        float t[16] = {0};
        for (uint32_t j = 0; i + j < n; j++)
            t[j] = skf_exp_ref(x[i + j] - max);
        acc = v_add(acc, v_load(t));
    }
    return v_sum(acc);
}

/* The table but for quantize, matmul and attention, which each instruction set has of its own. */
#define SKF_FLOAT_OPS(isa_, quantize_, matmul_, attention_)                                                            \
    {.isa = (isa_),                                                                                                    \
     .quantize = (quantize_),                                                                                          \
     .matmul = (matmul_),                                                                                              \
     .rms_norm = float_rms_norm,                                                                                       \
     .rope = float_rope,                                                                                               \
     .rope_halves = float_rope_halves,                                                                                 \
     .silu_mul = float_silu_mul,                                                                                       \
     .gelu_mul = float_gelu_mul,                                                                                       \
     .add = float_add,                                                                                                 \
     .to_f16 = float_to_f16,                                                                                           \
     .attention = (attention_),                                                                                        \
     .sum_exp = float_sum_exp}

#endif
