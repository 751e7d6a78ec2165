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
            a->sum[at] = 0;
            continue;
        }
        float inv = 127.0f / amax;
        int32_t sum = 0;
        for (uint32_t i = 0; i < SKF_QBLOCK; i++) {
            q[i] = (int8_t)rintf(x[i] * inv);
            sum += q[i];
        }
        a->d[at] = amax / 127.0f;
        a->s[at] = a->d[at] * (float)sum;
        a->sum[at] = sum;
    }
}

/* One block: its scale, minimum (0 where the type has none) and the exact dot product of its codes with q. */
static int32_t block_dot(enum skf_type type, const uint8_t *p, const int8_t *q, float *d, float *min)
{
    int32_t dot = 0;
    *d = skf_f16_to_f32(skf_load16(p));
    *min = 0.0f;
    if (type == SKF_T_Q8_0) {
        for (uint32_t i = 0; i < 32; i++)
            dot += (int8_t)p[2 + i] * q[i];
        return dot;
    }
    int32_t bias = type == SKF_T_Q4_0 ? 8 : 0;
    const uint8_t *codes = p + (type == SKF_T_Q4_0 ? 2 : 4);
    if (type == SKF_T_Q4_1)
        *min = skf_f16_to_f32(skf_load16(p + 2));
    for (uint32_t i = 0; i < 16; i++)
        dot += ((codes[i] & 15) - bias) * q[i] + ((codes[i] >> 4) - bias) * q[i + 16];
    return dot;
}

static float row_blocks(enum skf_type type, const uint8_t *p, const struct skf_acts *a, uint32_t t)
{
    uint32_t bytes = skf_type_info(type)->block_bytes;
    float acc = 0.0f;
    for (uint32_t b = 0; b < a->n / SKF_QBLOCK; b++, p += bytes) {
        size_t at = (size_t)b * a->m + t;
        float d, min;
        int32_t dot = block_dot(type, p, a->q + at * SKF_QBLOCK, &d, &min);
        acc = fmaf(d * a->d[at], (float)dot, acc);
        if (type == SKF_T_Q4_1)
            acc = fmaf(min, a->s[at], acc);
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

/* x[i] = exp(x[i] - max), and their sum. */
static float softmax(float *x, uint32_t n)
{
    float max = x[0], lane[16] = {0};
    for (uint32_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = skf_exp_ref(x[i] - max);
        lane[i % 16] = lane[i % 16] + x[i];
    }
    return tree(lane);
}

static void one_head(const float *q, const uint16_t *k, const uint16_t *v, uint32_t n, uint32_t head_dim, float scale,
                     float *scores, float *out)
{
    for (uint32_t t = 0; t < n; t++)
        scores[t] = row_floats(SKF_T_F16, (const uint8_t *)(k + (size_t)t * head_dim), q, head_dim) * scale;
    float inv = 1.0f / softmax(scores, n);
    for (uint32_t i = 0; i < head_dim; i++) {
        float acc = 0.0f;
        for (uint32_t t = 0; t < n; t++)
            acc = fmaf(scores[t], skf_f16_to_f32(v[(size_t)t * head_dim + i]), acc);
        out[i] = acc * inv;
    }
}

static void ref_attention(const float *q, uint32_t n_q, const uint16_t *k, const uint16_t *v, uint32_t n, uint32_t head_dim,
                          float scale, float *scores, float *out)
{
    for (uint32_t h = 0; h < n_q; h++)
        one_head(q + (size_t)h * head_dim, k, v, n, head_dim, scale, scores, out + (size_t)h * head_dim);
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
                                    .silu_mul = ref_silu_mul,
                                    .add = ref_add,
                                    .to_f16 = ref_to_f16,
                                    .attention = ref_attention,
                                    .sum_exp = ref_sum_exp};
