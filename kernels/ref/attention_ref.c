/*
 * Attention in plain C, written to be read beside kernels.h.
 */
#include "kernels/exp_priv.h"

static float half_at(const uint8_t *p, size_t i) { return skf_f16_to_f32(skf_load16(p + 2 * i)); }

static float uncapped(const struct skf_kv_head *kv, const struct skf_kv_parts *p, const float *q, uint32_t t)
{
    float acc = 0.0f;
    if (kv->type == SKF_KV_F16) {
        for (uint32_t i = 0; i < kv->head_dim; i++)
            acc = fmaf(q[i], half_at(p->k, (size_t)i * SKF_KV_PAGE + t), acc);
        return acc * kv->scale;
    }
    for (uint32_t b = 0; b < kv->head_dim / 32; b++) {
        float run = 0.0f;
        for (uint32_t i = 32 * b; i < 32 * b + 32; i++)
            run = fmaf(q[i], (float)(int8_t)p->k[(size_t)i * SKF_KV_PAGE + t], run);
        acc = fmaf(half_at(p->dk, (size_t)b * SKF_KV_PAGE + t), run, acc);
    }
    return acc * kv->scale;
}

static float score(const struct skf_kv_head *kv, const struct skf_kv_parts *p, const float *q, uint32_t t)
{
    float s = uncapped(kv, p, q, t);
    return kv->cap > 0.0f ? skf_cap_ref(s, kv->cap, 2.0f / kv->cap) : s;
}

static void add_value(const struct skf_kv_head *kv, const struct skf_kv_parts *p, uint32_t t, float weight, float *o)
{
    for (uint32_t i = 0; i < kv->head_dim; i++) {
        size_t at = (size_t)t * kv->head_dim + i;
        if (kv->type == SKF_KV_F16)
            o[i] = fmaf(weight, half_at(p->v, at), o[i]);
        else
            o[i] = fmaf(weight * half_at(p->dv, (size_t)(i / 32) * SKF_KV_PAGE + t), (float)(int8_t)p->v[at], o[i]);
    }
}

static void one_page(const struct skf_kv_head *kv, const struct skf_attn_row *r, uint32_t page, uint32_t lo, uint32_t hi, float l[16])
{
    struct skf_kv_parts p = skf_kv_parts(kv->type, kv->page[page] + kv->at, kv->head_dim);
    float s[SKF_KV_PAGE] = {0}, m = r->part[0], *o = r->part + SKF_ATTN_PART;
    for (uint32_t t = lo; t < hi; t++) {
        s[t] = score(kv, &p, r->q, t);
        m = s[t] > m ? s[t] : m;
    }
    float c = skf_exp_ref(r->part[0] - m);
    r->part[0] = m;
    for (uint32_t t = lo; t < hi; t++)
        s[t] = skf_exp_ref(s[t] - m);
    for (uint32_t j = 0; j < 16; j++) {
        float before = l[j] * c;
        l[j] = before + (s[j] + s[16 + j]);
    }
    for (uint32_t i = 0; i < kv->head_dim; i++)
        o[i] = o[i] * c;
    for (uint32_t t = lo; t < hi; t++)
        add_value(kv, &p, t, s[t], o);
}

void skf_attention_ref(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t span, float *tile)
{
    const uint32_t pages = SKF_KV_SPAN / SKF_KV_PAGE;
    (void)tile;
    for (uint32_t r = 0; r < n; r++) {
        float l[16] = {0};
        bool is_begun = false;
        for (uint32_t page = span * pages, lo, hi; page < (span + 1) * pages; page++) {
            if (!is_kv_seen(&rows[r], page, &lo, &hi))
                continue;
            if (!is_begun) {
                memset(rows[r].part, 0, (SKF_ATTN_PART + kv->head_dim) * sizeof *rows[r].part);
                rows[r].part[0] = SKF_ATTN_LOWEST;
                is_begun = true;
            }
            one_page(kv, &rows[r], page, lo, hi, l);
        }
        for (uint32_t step = 8; is_begun && step; step /= 2)
            for (uint32_t i = 0; i < step; i++)
                l[i] = l[i] + l[i + step];
        if (is_begun)
            rows[r].part[1] = l[0];
    }
}
