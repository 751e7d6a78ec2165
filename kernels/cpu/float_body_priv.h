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

/* A tile of rows and tokens, at most SKF_FTILE of each: an accumulator is a chain of sums in order, so it takes several to keep the units busy,
 * and what is loaded serves them all. `ahead`: bytes from a row to the one that is asked for meanwhile. */
#define SKF_FTILE 4u
#define SKF_FAHEAD 8192u /* bytes */
#if defined(__AVX512F__)
#define SKF_FTILE_ROWS 4u /* of SKF_FTILE tokens together: as many accumulators as registers hold */
#else
#define SKF_FTILE_ROWS 1u
#endif
SKF_INLINE void float_tile(enum skf_type type, const uint8_t *const *p, uint32_t rows, uint64_t ahead, const struct skf_acts *a, uint32_t t,
                           uint32_t count, float *y, size_t ldy)
{
    const uint32_t size = type == SKF_T_F32 ? 4 : 2;
    v16 acc[SKF_FTILE * SKF_FTILE], w[SKF_FTILE];
    const float *x[SKF_FTILE];
    uint32_t i = 0;
    SKF_UNROLL
    for (uint32_t j = 0; j < count * rows; j++)
        acc[j] = v_set(0.0f);
    SKF_UNROLL
    for (uint32_t j = 0; j < count; j++)
        x[j] = a->x + (t + j) * a->ldx;
    for (; i + 16 <= a->n; i += 16) {
        SKF_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            if (ahead && i * size % 64 == 0)
                __builtin_prefetch((const void *)((uintptr_t)p[r] + ahead + (size_t)i * size));
            w[r] = v_weights(type, p[r] + (size_t)i * size);
        }
        SKF_UNROLL
        for (uint32_t j = 0; j < count * rows; j++)
            acc[j] = v_fma(w[j % rows], v_load(x[j / rows] + i), acc[j]);
    }
    if (i < a->n) {
        SKF_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            w[r] = v_weights_part(type, p[r] + (size_t)i * size, a->n - i);
        SKF_UNROLL
        for (uint32_t j = 0; j < count * rows; j++)
            acc[j] = v_fma(w[j % rows], v_load_part(x[j / rows] + i, a->n - i), acc[j]);
    }
    SKF_UNROLL
    for (uint32_t j = 0; j < count * rows; j++)
        y[(t + j / rows) * ldy + j % rows] = v_sum(acc[j]);
}
/* `rows` rows against every token. */
SKF_INLINE void float_row_tiles(enum skf_type type, const uint8_t *const *p, uint32_t rows, uint64_t row_bytes, const struct skf_acts *a,
                                float *y, size_t ldy)
{
    uint32_t t = 0;
    const uint64_t ahead = SKF_MAX(rows * row_bytes, SKF_FAHEAD);
    if (rows > 1 && a->m == 1) { /* decoding: what memory gives is what counts */
        float_tile(type, p, rows, ahead, a, 0, 1, y, ldy);
        return;
    }
    for (; t + SKF_FTILE <= a->m; t += SKF_FTILE)
        for (uint32_t r = 0; r < rows; r += SKF_FTILE_ROWS)
            float_tile(type, p + r, SKF_MIN(rows, SKF_FTILE_ROWS), 0, a, t, SKF_FTILE, y + r, ldy);
    for (; t < a->m; t++)
        float_tile(type, p, rows, 0, a, t, 1, y, ldy);
}
SKF_INLINE void float_rows(enum skf_type type, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0,
                           uint32_t row1, float *y, size_t ldy)
{
    uint32_t seg = skf_weight_seg(w, row0), r = row0;
    const uint8_t *p[SKF_FTILE];
    for (; r + SKF_FTILE <= row1; r += SKF_FTILE) {
        skf_row_group(w, r, SKF_FTILE, SKF_FTILE, &seg, p);
        float_row_tiles(type, p, SKF_FTILE, w->row_bytes, a, y + r, ldy);
    }
    for (; r < row1; r++) {
        skf_row_group(w, r, 1, 1, &seg, p);
        float_row_tiles(type, p, 1, w->row_bytes, a, y + r, ldy);
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

static void float_soft_cap(float *x, uint32_t n, float cap)
{
    const float turn = 2.0f / cap;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v_store(x + i, v_cap(v_load(x + i), cap, turn));
    for (; i < n; i++)
        x[i] = skf_cap_ref(x[i], cap, turn);
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
     .soft_cap = float_soft_cap,                                                                                       \
     .to_f16 = float_to_f16,                                                                                           \
     .attention = (attention_),                                                                                        \
     .sum_exp = float_sum_exp}

#endif
