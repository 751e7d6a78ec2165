/*
 * Rows to and from float32: which blocks a type is made of.  Quantizing is what ggml's reference quantizers do, bit for bit
 * (quant_block.c, quant_k.c, quant_few.c).
 */
#include "base/buf.h"
#include "model/quant.h"
#include "model/quant_priv.h"

struct coder {
    enum skf_type type;
    void (*to)(const float *x, uint8_t *q);
    void (*weighed)(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
    void (*of)(const uint8_t *q, float *x);
};

/* NULL where we cannot; without a weighed form importance changes nothing, as in ggml. */
static const struct coder coders[] = {
    {SKF_T_Q8_0, skf_block_to_q8_0, NULL, skf_block_of_q8_0},
    {SKF_T_Q4_0, skf_block_to_q4_0, skf_weighed_q4_0, skf_block_of_q4_0},
    {SKF_T_Q4_1, skf_block_to_q4_1, skf_weighed_q4_1, skf_block_of_q4_1},
    {SKF_T_Q5_0, skf_block_to_q5_0, skf_weighed_q5_0, skf_block_of_q5_0},
    {SKF_T_Q5_1, skf_block_to_q5_1, skf_weighed_q5_1, skf_block_of_q5_1},
    {SKF_T_Q2_K, skf_block_to_q2_k, skf_weighed_q2_k, skf_block_of_q2_k},
    {SKF_T_Q3_K, skf_block_to_q3_k, skf_weighed_q3_k, skf_block_of_q3_k},
    {SKF_T_Q4_K, skf_block_to_q4_k, skf_weighed_q4_k, skf_block_of_q4_k},
    {SKF_T_Q5_K, skf_block_to_q5_k, skf_weighed_q5_k, skf_block_of_q5_k},
    {SKF_T_Q6_K, skf_block_to_q6_k, skf_weighed_q6_k, skf_block_of_q6_k},
    {SKF_T_IQ4_NL, skf_block_to_iq4_nl, skf_weighed_iq4_nl, skf_block_of_iq4_nl},
    {SKF_T_IQ4_XS, NULL, NULL, skf_block_of_iq4_xs},
    {SKF_T_TQ1_0, skf_block_to_tq1_0, NULL, skf_block_of_tq1_0},
    {SKF_T_TQ2_0, skf_block_to_tq2_0, NULL, skf_block_of_tq2_0},
    {SKF_T_MXFP4, skf_block_to_mxfp4, NULL, skf_block_of_mxfp4},
    {SKF_T_NVFP4, NULL, NULL, skf_block_of_nvfp4},
};

static const struct coder *coder_of(enum skf_type t)
{
    for (size_t i = 0; i < sizeof coders / sizeof coders[0]; i++)
        if (coders[i].type == t)
            return &coders[i];
    return NULL;
}

static bool is_plain(enum skf_type t) { return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16; }

bool is_dequantizable(enum skf_type t) { return is_plain(t) || coder_of(t); }

bool is_weighable(enum skf_type t)
{
    const struct coder *c = coder_of(t);
    return c && c->weighed;
}

static void plain_to_floats(enum skf_type t, const uint8_t *q, float *x, uint64_t n)
{
    union {
        uint32_t u;
        float f;
    } v;
    for (uint64_t i = 0; i < n; i++) {
        if (t == SKF_T_F32) {
            v.u = skf_le32(q + 4 * i);
            x[i] = v.f;
        } else {
            x[i] = t == SKF_T_F16 ? skf_f16_to_f32(skf_le16(q + 2 * i)) : skf_bf16_to_f32(skf_le16(q + 2 * i));
        }
    }
}

static void floats_to_plain(enum skf_type t, const float *x, uint8_t *q, uint64_t n)
{
    union {
        float f;
        uint32_t u;
    } v;
    for (uint64_t i = 0; i < n; i++) {
        if (t == SKF_T_F32) {
            v.f = x[i];
            skf_put_le32(q + 4 * i, v.u);
        } else {
            skf_put_le16(q + 2 * i, t == SKF_T_F16 ? skf_f32_to_f16(x[i]) : skf_f32_to_bf16(x[i]));
        }
    }
}

enum skf_err skf_dequantize(enum skf_type t, const void *from, float *x, uint64_t n)
{
    const uint8_t *q = from;
    if (is_plain(t)) {
        plain_to_floats(t, q, x, n);
        return SKF_OK;
    }
    const struct coder *c = coder_of(t);
    if (!c)
        return SKF_ERR_UNSUPPORTED;
    const struct skf_type_info *ti = skf_type_info((uint32_t)t);
    if (n % ti->block)
        return SKF_ERR_ARG;
    for (uint64_t i = 0; i < n / ti->block; i++)
        c->of(q + i * ti->block_bytes, x + i * ti->block);
    return SKF_OK;
}

enum skf_err skf_quantize_weighed(enum skf_type t, const float *x, const float *importance, void *to, uint64_t n)
{
    uint8_t *q = to;
    if (is_plain(t)) {
        floats_to_plain(t, x, q, n);
        return SKF_OK;
    }
    const struct coder *c = coder_of(t);
    if (!c || !c->to)
        return SKF_ERR_UNSUPPORTED;
    const struct skf_type_info *ti = skf_type_info((uint32_t)t);
    if (n % ti->block)
        return SKF_ERR_ARG;
    bool is_weighed = importance && c->weighed;
    float sum = 0;
    for (uint64_t i = 0; is_weighed && i < n; i++)
        sum += x[i] * x[i];
    uint64_t blocks = n / ti->block, step = is_weighed && ti->block == 32 ? 4 : 1;
    for (uint64_t i = 0; i < blocks; i += step) {
        const float *from = x + i * ti->block;
        if (is_weighed)
            c->weighed(from, importance + i * ti->block, sum / (float)n, q + i * ti->block_bytes,
                       (int)(blocks - i < step ? blocks - i : step));
        else
            c->to(from, q + i * ti->block_bytes);
    }
    return SKF_OK;
}

enum skf_err skf_quantize(enum skf_type t, const float *x, void *q, uint64_t n)
{
    return skf_quantize_weighed(t, x, NULL, q, n);
}

enum skf_err skf_quantize_sparse(enum skf_type t, const float *x, const float *importance, void *to, uint64_t n)
{
    uint8_t *q = to;
    if (t != SKF_T_Q4_1 && t != SKF_T_Q5_1)
        return skf_quantize_weighed(t, x, importance, q, n);
    const struct skf_type_info *ti = skf_type_info((uint32_t)t);
    if (n % ti->block)
        return SKF_ERR_ARG;
    for (uint64_t i = 0; i < n / ti->block; i++)
        (t == SKF_T_Q4_1 ? skf_sparse_q4_1 : skf_sparse_q5_1)(x + i * ti->block, q + i * ti->block_bytes);
    return SKF_OK;
}

bool has_exact_zero(enum skf_type t) { return t != SKF_T_Q2_K && t != SKF_T_Q4_K && t != SKF_T_Q5_K && t != SKF_T_IQ4_NL; }
