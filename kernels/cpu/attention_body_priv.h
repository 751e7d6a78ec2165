/*
 * Attention, written once over sixteen lanes; kernels/cpu/attention_<isa>.c compiles it for one instruction set.
 *
 * Keys lie across in a page, so the scores of its 32 positions are two vectors that need no sum across lanes.  A few rows share what is
 * loaded of keys and values; many rows share it as floats, made once a page.
 */
#ifndef SKF_KERNELS_ATTENTION_BODY_PRIV_H
#define SKF_KERNELS_ATTENTION_BODY_PRIV_H

#include "kernels/cpu/vec_priv.h"

#if defined(__AVX512F__)
#define ROWS 4u /* at once, and vectors of values: as many sums as registers hold */
#define WIDE 4u
#else
#define ROWS 3u
#define WIDE 2u
#endif
#define TILE_ROWS 8u /* from so many on a page is made floats first */

enum form { FORM_F16, FORM_Q8, FORM_TILE, FORM_TILE_Q8 }; /* the tiles hold floats: numbers, or codes under scales */

SKF_INLINE v16 load_as(enum form form, const uint8_t *p, size_t i)
{
    if (form == FORM_F16)
        return v_load_f16(p + 2 * i);
    return form == FORM_Q8 ? v_load_i8(p + i) : v_load((const float *)(const void *)p + i);
}
/* Asks for a line of the next page that stands where element i of this one's keys or values does. */
SKF_INLINE void ask_ahead(enum form form, const uint8_t *p, size_t i)
{
    if (form == FORM_F16 || form == FORM_Q8)
        __builtin_prefetch(p + (form == FORM_F16 ? 2 * i : i), 0, 3);
}
SKF_INLINE bool has_scales(enum form form) { return form == FORM_Q8 || form == FORM_TILE_Q8; }

/* What a few rows that see the same of a page need of it. */
struct group {
    const struct skf_attn_row *rows;
    float (*l)[16];
    uint32_t lo, hi, head_dim;
    float scale, cap;
    struct skf_kv_parts p, ahead; /* ahead: of the next page, which is asked for while this one is computed: pages lie anywhere */
    float s[ROWS][SKF_KV_PAGE]; /* scores, then weights */
};

/* acc[r][half] += q[r][i] * k[.][i] for from <= i < to, in order */
SKF_INLINE void dots(enum form form, const struct group *g, uint32_t n, uint32_t from, uint32_t to, v16 acc[ROWS][2])
{
    const float *q[ROWS];
    v16 a[ROWS][2];
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++) {
        q[r] = g->rows[r].q;
        a[r][0] = a[r][1] = v_set(0.0f);
    }
    for (uint32_t i = from; i < to; i++) {
        v16 k0 = load_as(form, g->p.k, (size_t)i * SKF_KV_PAGE), k1 = load_as(form, g->p.k, (size_t)i * SKF_KV_PAGE + 16);
        ask_ahead(form, g->ahead.k, (size_t)i * SKF_KV_PAGE);
        SKF_UNROLL
        for (uint32_t r = 0; r < n; r++) {
            v16 x = v_set(q[r][i]);
            a[r][0] = v_fma(x, k0, a[r][0]);
            a[r][1] = v_fma(x, k1, a[r][1]);
        }
    }
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++) {
        acc[r][0] = a[r][0];
        acc[r][1] = a[r][1];
    }
}

SKF_INLINE void scores(enum form form, struct group *g, uint32_t n, uint32_t head_dim)
{
    v16 acc[ROWS][2], run[ROWS][2];
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++)
        acc[r][0] = acc[r][1] = v_set(0.0f);
    if (!has_scales(form))
        dots(form, g, n, 0, head_dim, acc);
    else
        for (uint32_t b = 0; b < head_dim / 32; b++) {
            dots(form, g, n, 32 * b, 32 * b + 32, run);
            for (uint32_t h = 0; h < 2; h++) {
                v16 d = v_load_f16(g->p.dk + ((size_t)b * SKF_KV_PAGE + 16 * h) * 2);
                SKF_UNROLL
                for (uint32_t r = 0; r < n; r++)
                    acc[r][h] = v_fma(d, run[r][h], acc[r][h]);
            }
        }
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++) {
        v_store(g->s[r], v_mul(acc[r][0], v_set(g->scale)));
        v_store(g->s[r] + 16, v_mul(acc[r][1], v_set(g->scale)));
    }
    for (uint32_t r = 0; g->cap > 0.0f && r < n; r++)
        for (uint32_t h = 0; h < 2; h++)
            v_store(g->s[r] + 16 * h, v_cap(v_load(g->s[r] + 16 * h), g->cap, 2.0f / g->cap));
}

/* Places that the row does not see get x. */
SKF_INLINE void mask(const struct group *g, float *s, float x)
{
    for (uint32_t t = 0; t < g->lo; t++)
        s[t] = x;
    for (uint32_t t = g->hi; t < SKF_KV_PAGE; t++)
        s[t] = x;
}

/* Scores become weights, and what was summed before is made good. */
SKF_INLINE void soften(struct group *g, uint32_t r, uint32_t head_dim)
{
    float *s = g->s[r], *part = g->rows[r].part, *l = g->l[r], *o = part + SKF_ATTN_PART;
    bool is_whole = g->lo == 0 && g->hi == SKF_KV_PAGE;
    if (!is_whole)
        mask(g, s, SKF_ATTN_LOWEST);
    float most = v_most(v_max(v_load(s), v_load(s + 16))), m = most > part[0] ? most : part[0];
    if (m != part[0]) { /* otherwise c is 1 */
        float c = skf_exp_ref(part[0] - m);
        uint32_t i = 0;
        for (; i + 16 <= head_dim; i += 16)
            v_store(o + i, v_mul(v_load(o + i), v_set(c)));
        for (; i < head_dim; i++)
            o[i] = o[i] * c;
        v_store(l, v_mul(v_load(l), v_set(c)));
        part[0] = m;
    }
    v_store(s, v_exp(v_sub(v_load(s), v_set(m))));
    v_store(s + 16, v_exp(v_sub(v_load(s + 16), v_set(m))));
    if (!is_whole)
        mask(g, s, 0.0f);
    v_store(l, v_add(v_load(l), v_add(v_load(s), v_load(s + 16))));
}

/* o[r][i .. i + 16 * wide) += weight * value, over the positions in order */
SKF_INLINE void weigh(enum form form, const struct group *g, const float (*w)[SKF_KV_PAGE], uint32_t n, uint32_t head_dim, uint32_t i, uint32_t wide)
{
    v16 acc[ROWS][WIDE];
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++) {
        SKF_UNROLL
        for (uint32_t j = 0; j < wide; j++)
            acc[r][j] = v_load(g->rows[r].part + SKF_ATTN_PART + i + 16 * j);
    }
    for (uint32_t t = g->lo; t < g->hi; t++) {
        SKF_UNROLL
        for (uint32_t j = 0; j < wide; j++) {
            v16 x = load_as(form, g->p.v, (size_t)t * head_dim + i + 16 * j);
            if (form == FORM_F16 ? j % 2 == 0 : j == 0)
                ask_ahead(form, g->ahead.v, (size_t)t * head_dim + i + 16 * j);
            SKF_UNROLL
            for (uint32_t r = 0; r < n; r++)
                acc[r][j] = v_fma(v_set(w[(has_scales(form) ? j / 2 * ROWS : 0) + r][t]), x, acc[r][j]);
        }
    }
    SKF_UNROLL
    for (uint32_t r = 0; r < n; r++) {
        SKF_UNROLL
        for (uint32_t j = 0; j < wide; j++)
            v_store(g->rows[r].part + SKF_ATTN_PART + i + 16 * j, acc[r][j]);
    }
}

/* The elements behind the last sixteen; no type with scales has such. */
SKF_INLINE void weigh_tail(enum form form, const struct group *g, uint32_t n, uint32_t head_dim, uint32_t from)
{
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t i = from; i < head_dim; i++) {
            float *o = g->rows[r].part + SKF_ATTN_PART + i;
            for (uint32_t t = g->lo; t < g->hi; t++) {
                size_t at = (size_t)t * head_dim + i;
                float v = form == FORM_F16 ? skf_f16_to_f32(skf_load16(g->p.v + 2 * at)) : ((const float *)(const void *)g->p.v)[at];
                *o = fmaf(g->s[r][t], v, *o);
            }
        }
}

/* weights times the scales of so many runs of 32 elements from element i on: [run][row] */
SKF_INLINE void scale_weights(const struct group *g, uint32_t n, uint32_t i, uint32_t runs, float (*w)[SKF_KV_PAGE])
{
    for (uint32_t b = 0; b < runs; b++)
        for (uint32_t h = 0; h < 2; h++) {
            v16 d = v_load_f16(g->p.dv + ((size_t)(i / 32 + b) * SKF_KV_PAGE + 16 * h) * 2);
            SKF_UNROLL
            for (uint32_t r = 0; r < n; r++)
                v_store(w[b * ROWS + r] + 16 * h, v_mul(v_load(g->s[r] + 16 * h), d));
        }
}

SKF_INLINE void values(enum form form, const struct group *g, uint32_t n, uint32_t head_dim)
{
    float scaled[WIDE / 2 * ROWS][SKF_KV_PAGE];
    const float(*w)[SKF_KV_PAGE] = has_scales(form) ? scaled : g->s;
    uint32_t i = 0;
    for (; i + 16 * WIDE <= head_dim; i += 16 * WIDE) {
        if (has_scales(form))
            scale_weights(g, n, i, WIDE / 2, scaled);
        weigh(form, g, w, n, head_dim, i, WIDE);
    }
    if (has_scales(form)) {
        for (; i < head_dim; i += 32) {
            scale_weights(g, n, i, 1, scaled);
            weigh(form, g, w, n, head_dim, i, 2);
        }
        return;
    }
    for (; i + 16 <= head_dim; i += 16)
        weigh(form, g, w, n, head_dim, i, 1);
    if (i < head_dim)
        weigh_tail(form, g, n, head_dim, i);
}

SKF_INLINE void group_of(enum form form, struct group *g, uint32_t n, uint32_t head_dim)
{
    scores(form, g, n, head_dim);
    for (uint32_t r = 0; r < n; r++)
        soften(g, r, head_dim);
    values(form, g, n, head_dim);
}

SKF_INLINE void group_by_rows(enum form form, struct group *g, uint32_t n, uint32_t head_dim)
{
    switch (n) {
    case 1:
        group_of(form, g, 1, head_dim);
        break;
    case 2:
        group_of(form, g, 2, head_dim);
        break;
    case 3:
        group_of(form, g, 3, head_dim);
        break;
#if defined(__AVX512F__)
    case 4:
        group_of(form, g, 4, head_dim);
        break;
#endif
    default:
        break;
    }
}

static void group_form(enum form form, struct group *g, uint32_t n)
{
    const uint32_t hd = g->head_dim;
    if (form == FORM_F16)
        hd == 64 ? group_by_rows(FORM_F16, g, n, 64) : group_by_rows(FORM_F16, g, n, hd); /* a constant that the compiler can unroll */
    else if (form == FORM_Q8)
        hd == 64 ? group_by_rows(FORM_Q8, g, n, 64) : group_by_rows(FORM_Q8, g, n, hd);
    else if (form == FORM_TILE)
        hd == 64 ? group_by_rows(FORM_TILE, g, n, 64) : group_by_rows(FORM_TILE, g, n, hd);
    else
        hd == 64 ? group_by_rows(FORM_TILE_Q8, g, n, 64) : group_by_rows(FORM_TILE_Q8, g, n, hd);
}

/* Keys and values of the page as floats, or as codes in floats. */
static void make_tile(enum skf_kv_type type, struct skf_kv_parts *p, const struct skf_kv_parts *ahead, uint32_t head_dim, float *tile)
{
    const uint32_t n = SKF_KV_PAGE * head_dim; /* a multiple of 16, since a page has 32 positions */
    const size_t size = type == SKF_KV_F16 ? 2 : 1;
    for (uint32_t i = 0; i < n; i += 16) {
        __builtin_prefetch(ahead->k + i * size, 0, 3);
        __builtin_prefetch(ahead->v + i * size, 0, 3);
        v_store(tile + i, type == SKF_KV_F16 ? v_load_f16(p->k + 2 * (size_t)i) : v_load_i8(p->k + i));
        v_store(tile + n + i, type == SKF_KV_F16 ? v_load_f16(p->v + 2 * (size_t)i) : v_load_i8(p->v + i));
    }
    p->k = (const uint8_t *)tile;
    p->v = (const uint8_t *)(tile + n);
}

static void one_page(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t page, uint32_t next, float *tile,
                     float (*l)[16])
{
    struct group g = {.head_dim = kv->head_dim, .scale = kv->scale, .cap = kv->cap, .p = skf_kv_parts(kv->type, kv->page[page] + kv->at, kv->head_dim),
                      .ahead = skf_kv_parts(kv->type, kv->page[next] + kv->at, kv->head_dim)};
    bool is_tiled = n >= TILE_ROWS;
    enum form form = kv->type == SKF_KV_F16 ? (is_tiled ? FORM_TILE : FORM_F16) : is_tiled ? FORM_TILE_Q8 : FORM_Q8;
    if (is_tiled)
        make_tile(kv->type, &g.p, &g.ahead, kv->head_dim, tile);
    for (uint32_t r = 0, many; r < n; r += many) {
        uint32_t lo, hi;
        bool is_seen = is_kv_seen(&rows[r], page, &g.lo, &g.hi);
        for (many = 1; many < ROWS && r + many < n; many++) {
            (void)is_kv_seen(&rows[r + many], page, &lo, &hi);
            if (lo != g.lo || hi != g.hi)
                break;
        }
        g.rows = rows + r;
        g.l = l + r;
        if (is_seen)
            group_form(form, &g, many);
    }
}

static void attention(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t span, float *tile)
{
    const uint32_t pages = SKF_KV_SPAN / SKF_KV_PAGE, begin = span * SKF_KV_SPAN;
    float l[SKF_ATTN_ROWS][16];
    uint32_t first = UINT32_MAX, end = 0;
    for (uint32_t r = 0; r < n; r++) {
        bool is_any = rows[r].first < begin + SKF_KV_SPAN && rows[r].end > begin;
        if (!is_any)
            continue;
        memset(rows[r].part, 0, (SKF_ATTN_PART + kv->head_dim) * sizeof *rows[r].part);
        rows[r].part[0] = SKF_ATTN_LOWEST;
        memset(l[r], 0, sizeof l[r]);
        first = SKF_MIN(first, rows[r].first / SKF_KV_PAGE);
        end = SKF_MAX(end, (rows[r].end - 1) / SKF_KV_PAGE + 1);
    }
    for (uint32_t page = SKF_MAX(first, span * pages); page < SKF_MIN(end, (span + 1) * pages); page++)
        one_page(kv, rows, n, page, SKF_MIN(page + 1, end - 1), tile, l);
    for (uint32_t r = 0; r < n; r++)
        if (rows[r].first < begin + SKF_KV_SPAN && rows[r].end > begin)
            rows[r].part[1] = v_sum(v_load(l[r]));
}

#endif
