/*
 * The reference: every operator in plain C, written to be read beside kernels.h.  The other tables are held to its bits.
 */
#include "kernels/exp_priv.h"

/* Sums of 16 lanes, as kernels.h says. */
static float tree(float *l)
{
    for (uint32_t step = 8; step; step /= 2)
        for (uint32_t i = 0; i < step; i++)
            l[i] = l[i] + l[i + step];
    return l[0];
}

static void ref_quantize(const float *x, uint32_t n, struct skf_acts *a, uint32_t t)
{
    for (uint32_t b = 0; b < n / SKF_QBLOCK; b++, x += SKF_QBLOCK) {
        size_t at = (size_t)b * a->m + t;
        int8_t *q = a->q + at * SKF_QBLOCK;
        uint32_t top = 0; /* of |x| as bits: their order is that of the numbers, and NaN is above all */
        for (uint32_t i = 0; i < SKF_QBLOCK; i++)
            top = SKF_MAX(top, skf_float_bits(x[i]) & 0x7fffffffu);
        float amax = skf_bits_float(top);
        bool is_finite = top < 0x7f800000u;
        if (!is_finite || amax < SKF_TINY) {
            memset(q, 0, SKF_QBLOCK);
            a->d[at] = is_finite ? 0.0f : skf_bits_float(0x7fc00000u);
            a->s[at] = a->d[at];
            a->sum[at] = a->low[at] = 0;
            continue;
        }
        float inv = 127.0f / amax;
        int32_t sum = 0;
        for (uint32_t i = 0; i < SKF_QBLOCK; i++) {
            q[i] = (int8_t)rintf(x[i] * inv);
            sum += q[i];
            if (i == SKF_QBLOCK / 2 - 1)
                a->low[at] = sum;
        }
        a->d[at] = amax / 127.0f;
        a->s[at] = a->d[at] * (float)sum;
        a->sum[at] = sum;
    }
}

/* ---- blocks: runs of 32 codes under one scale --------------------------------------------------------------------------------------- */
struct run {
    float d, min;     /* dw and m of kernels.h */
    int32_t step[2];  /* of the first and the last 16 codes; 1 where the type has none */
    int32_t code[32];
};

/* 6-bit scale and minimum of run j in the 12 bytes of a K-quant. */
static void k_steps(const uint8_t *p, uint32_t j, uint32_t *step, uint32_t *min)
{
    *step = j < 4 ? p[j] & 63u : (p[j + 4] & 15u) | (uint32_t)(p[j - 4] >> 6) << 4;
    *min = j < 4 ? p[j + 4] & 63u : p[j + 4] >> 4 | (uint32_t)(p[j] >> 6) << 4;
}

/* Q4_K and Q5_K: nibbles 64 elements at a time, low ones first; the fifth bit of run j is bit j of a byte an element. */
static void k_run(const uint8_t *p, uint32_t j, bool is_5, struct run *r)
{
    const uint8_t *codes = p + (is_5 ? 48 : 16) + j / 2 * 32, *high = p + 16;
    uint32_t step, min;
    k_steps(p + 4, j, &step, &min);
    r->d = skf_f16_to_f32(skf_load16(p)) * (float)step;
    r->min = -(skf_f16_to_f32(skf_load16(p + 2)) * (float)min);
    for (uint32_t i = 0; i < 32; i++)
        r->code[i] = (codes[i] >> 4 * (j % 2) & 15) + (is_5 ? (high[i] >> j & 1) << 4 : 0);
}

static void q6_k_run(const uint8_t *p, uint32_t j, struct run *r)
{
    const uint8_t *low = p + j / 4 * 64 + j % 2 * 32, *high = p + 128 + j / 4 * 32;
    r->d = skf_f16_to_f32(skf_load16(p + 208));
    for (uint32_t i = 0; i < 2; i++)
        r->step[i] = (int8_t)p[192 + 2 * j + i];
    for (uint32_t i = 0; i < 32; i++)
        r->code[i] = ((low[i] >> j % 4 / 2 * 4 & 15) | (high[i] >> 2 * (j % 4) & 3) << 4) - 32;
}

/* Four bits, or five: the fifth of element i is bit i of the word before the nibbles. */
static void nibble_run(const uint8_t *p, bool is_5, int32_t bias, struct run *r)
{
    uint32_t high = is_5 ? skf_load32(p) : 0;
    const uint8_t *codes = p + (is_5 ? 4 : 0);
    for (uint32_t i = 0; i < 32; i++)
        r->code[i] = ((i < 16 ? codes[i] & 15 : codes[i - 16] >> 4) | (int32_t)(high >> i & 1) << 4) - bias;
}

/* Run j of a block. */
static void block_run(enum skf_type type, const uint8_t *p, uint32_t j, struct run *r)
{
    bool has_min = type == SKF_T_Q4_1 || type == SKF_T_Q5_1;
    r->step[0] = r->step[1] = 1;
    r->min = 0.0f;
    if (type == SKF_T_Q6_K) {
        q6_k_run(p, j, r);
        return;
    }
    if (type == SKF_T_Q4_K || type == SKF_T_Q5_K) {
        k_run(p, j, type == SKF_T_Q5_K, r);
        return;
    }
    r->d = skf_f16_to_f32(skf_load16(p));
    if (has_min)
        r->min = skf_f16_to_f32(skf_load16(p + 2));
    if (type == SKF_T_Q8_0)
        for (uint32_t i = 0; i < 32; i++)
            r->code[i] = (int8_t)p[2 + i];
    else
        nibble_run(p + (has_min ? 4 : 2), type == SKF_T_Q5_0 || type == SKF_T_Q5_1,
                   type == SKF_T_Q4_0 ? 8 : type == SKF_T_Q5_0 ? 16 : 0, r);
}

static bool has_minimum(enum skf_type t)
{
    return t == SKF_T_Q4_1 || t == SKF_T_Q5_1 || t == SKF_T_Q4_K || t == SKF_T_Q5_K;
}

static float row_blocks(enum skf_type type, const uint8_t *p, const struct skf_acts *a, uint32_t t)
{
    const struct skf_type_info *info = skf_type_info(type);
    float acc = 0.0f;
    for (uint32_t b = 0; b < a->n / SKF_QBLOCK; b++) {
        size_t at = (size_t)b * a->m + t, runs = info->block / SKF_QBLOCK;
        const int8_t *q = a->q + at * SKF_QBLOCK;
        struct run r;
        int32_t dot[2] = {0};
        block_run(type, p + b / runs * info->block_bytes, (uint32_t)(b % runs), &r);
        for (uint32_t i = 0; i < 32; i++)
            dot[i / 16] += r.code[i] * q[i];
        acc = fmaf(r.d * a->d[at], (float)(r.step[0] * dot[0] + r.step[1] * dot[1]), acc);
        if (has_minimum(type))
            acc = fmaf(r.min, a->s[at], acc);
    }
    return acc;
}

static float element(enum skf_type type, const uint8_t *p, uint32_t i)
{
    if (type == SKF_T_F32)
        return skf_bits_float(skf_load32(p + (size_t)4 * i));
    uint16_t h = skf_load16(p + (size_t)2 * i);
    return type == SKF_T_F16 ? skf_f16_to_f32(h) : skf_bf16_to_f32(h);
}

static float row_floats(enum skf_type type, const uint8_t *p, const float *x, uint32_t n)
{
    float lane[16] = {0};
    for (uint32_t i = 0; i < (n + 15) / 16 * 16; i++)
        lane[i % 16] = i < n ? fmaf(element(type, p, i), x[i], lane[i % 16]) : lane[i % 16] + 0.0f;
    return tree(lane);
}

static void ref_matmul(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                       size_t ldy)
{
    bool is_blocks = skf_type_info(w->type)->block > 1;
    if (w->packed && is_sparse_matmul(SKF_ISA_REF, w, a, row0, row1, y, ldy))
        return;
    for (uint32_t r = row0; r < row1; r++) {
        const uint8_t *p = skf_weight_row(w, r);
        for (uint32_t t = 0; t < a->m; t++)
            y[t * ldy + r] =
                is_blocks ? row_blocks(w->type, p, a, t) : row_floats(w->type, p, a->x + t * a->ldx, a->n);
    }
}

static void ref_rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float lane[16] = {0};
    for (uint32_t i = 0; i < (n + 15) / 16 * 16; i++)
        lane[i % 16] = i < n ? fmaf(x[i], x[i], lane[i % 16]) : lane[i % 16] + 0.0f;
    float scale = 1.0f / sqrtf(tree(lane) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void ref_rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs)
{
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim)
        for (uint32_t i = 0; i + 1 < n_rot; i += 2) {
            float c = cs[i], s = cs[i + 1], a = x[i], b = x[i + 1];
            float bs = b * s, as = a * s;
            x[i] = fmaf(a, c, -bs);
            x[i + 1] = fmaf(b, c, as);
        }
}

static void ref_rope_halves(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs)
{
    const uint32_t half = n_rot / 2;
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim)
        for (uint32_t i = 0; i < half; i++) {
            float c = cs[i], s = cs[half + i], a = x[i], b = x[half + i];
            float bs = b * s, as = a * s;
            x[i] = fmaf(a, c, -bs);
            x[half + i] = fmaf(b, c, as);
        }
}

static void ref_gelu_mul(float *g, const float *u, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float z = g[i] * fmaf(g[i] * g[i], SKF_GELU_B, 1.0f) * SKF_GELU_A;
        g[i] = g[i] / (1.0f + skf_exp_ref(-z)) * u[i];
    }
}

static void ref_silu_mul(float *g, const float *u, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        g[i] = g[i] / (1.0f + skf_exp_ref(-g[i])) * u[i];
}

static void ref_add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = x[i] + y[i];
}

static void ref_to_f16(const float *x, uint16_t *h, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        h[i] = skf_f32_to_f16(x[i]);
}

static void ref_soft_cap(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = skf_cap_ref(x[i], cap, 2.0f / cap);
}

static float ref_sum_exp(const float *x, uint32_t n, float max)
{
    float lane[16] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[i % 16] = lane[i % 16] + skf_exp_ref(x[i] - max);
    return tree(lane);
}

const struct skf_ops skf_ops_ref = {.isa = SKF_ISA_REF,
                                    .quantize = ref_quantize,
                                    .matmul = ref_matmul,
                                    .rms_norm = ref_rms_norm,
                                    .rope = ref_rope,
                                    .rope_halves = ref_rope_halves,
                                    .silu_mul = ref_silu_mul,
                                    .gelu_mul = ref_gelu_mul,
                                    .add = ref_add,
                                    .soft_cap = ref_soft_cap,
                                    .to_f16 = ref_to_f16,
                                    .attention = skf_attention_ref,
                                    .sum_exp = ref_sum_exp};
