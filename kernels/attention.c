/*
 * What of attention is the same on every machine: where keys and values stand in a page, and how spans become one (kernels.h).
 */
#include "kernels/exp_priv.h"

static const char *const names[] = {[SKF_KV_F16] = "f16", [SKF_KV_Q8_0] = "q8_0"};

const char *skf_kv_type_name(enum skf_kv_type t) { return names[t]; }

bool is_kv_type_name(const char *name, enum skf_kv_type *t)
{
    for (size_t i = 0; i < SKF_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *t = (enum skf_kv_type)i;
            return true;
        }
    return false;
}

size_t skf_kv_head_bytes(enum skf_kv_type t, uint32_t head_dim)
{
    size_t bytes = t == SKF_KV_F16 ? (size_t)4 * SKF_KV_PAGE * head_dim : (size_t)2 * SKF_KV_PAGE * (head_dim + head_dim / 32 * 2);
    return (bytes + 63) / 64 * 64;
}

static void put_halves(const struct skf_ops *ops, uint8_t *head, uint32_t at, uint32_t head_dim, const float *k, const float *v)
{
    uint16_t h[64];
    struct skf_kv_parts to = skf_kv_parts(SKF_KV_F16, head, head_dim);
    uint8_t *keys = head, *values = head + (to.v - to.k) + (size_t)at * head_dim * 2;
    for (uint32_t i = 0, n; i < head_dim; i += n) {
        n = SKF_MIN(head_dim - i, 64u);
        ops->to_f16(k + i, h, n);
        for (uint32_t j = 0; j < n; j++)
            memcpy(keys + ((size_t)(i + j) * SKF_KV_PAGE + at) * 2, &h[j], 2);
        ops->to_f16(v + i, h, n);
        memcpy(values + (size_t)i * 2, h, (size_t)n * 2);
    }
}

/* Codes `step` bytes apart. */
static void put_codes(const struct skf_ops *ops, uint8_t *codes, size_t step, uint8_t *scales, uint32_t head_dim, const float *x)
{
    int8_t q[SKF_QBLOCK];
    float d, s;
    int32_t sum, low;
    struct skf_acts a = {.m = 1, .n = SKF_QBLOCK, .q = q, .d = &d, .s = &s, .sum = &sum, .low = &low};
    for (uint32_t b = 0; b < head_dim / SKF_QBLOCK; b++, x += SKF_QBLOCK) {
        ops->quantize(x, SKF_QBLOCK, &a, 0);
        uint16_t h = skf_f32_to_f16(d);
        memcpy(scales + (size_t)b * SKF_KV_PAGE * 2, &h, 2);
        for (uint32_t i = 0; i < SKF_QBLOCK; i++, codes += step)
            *codes = (uint8_t)q[i];
    }
}

void skf_kv_put(const struct skf_ops *ops, enum skf_kv_type t, uint8_t *head, uint32_t at, uint32_t head_dim, const float *k, const float *v)
{
    if (t == SKF_KV_F16) {
        put_halves(ops, head, at, head_dim, k, v);
        return;
    }
    struct skf_kv_parts to = skf_kv_parts(t, head, head_dim);
    put_codes(ops, head + at, SKF_KV_PAGE, head + (to.dk - head) + (size_t)at * 2, head_dim, k);
    put_codes(ops, head + (to.v - head) + (size_t)at * head_dim, 1, head + (to.dv - head) + (size_t)at * 2, head_dim, v);
}

void skf_attn_join(float *part, const float *more, uint32_t head_dim)
{
    float m = part[0] > more[0] ? part[0] : more[0];
    float c = skf_exp_ref(part[0] - m), d = skf_exp_ref(more[0] - m);
    part[0] = m;
    for (uint32_t i = 1; i < SKF_ATTN_PART + head_dim; i++) {
        float a = part[i] * c, b = more[i] * d;
        part[i] = a + b;
    }
}

void skf_attn_finish(const float *part, uint32_t head_dim, float *out)
{
    float inv = 1.0f / part[1];
    for (uint32_t i = 0; i < head_dim; i++)
        out[i] = part[SKF_ATTN_PART + i] * inv;
}
