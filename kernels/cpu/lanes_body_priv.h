/*
 * Matrix products over rows laid side by side (kernels/lanes.h), written once over the primitives that matmul_<isa>.c defines
 * before including this, beside those of block_body_priv.h:
 *
 *   p_word(p), p_half(p)     the words or halves of SKF_GROUP rows, as they lie
 *   p_signed(w)              what g_dot8 takes, of bytes as they lie
 *   g_dot16(w[4], q, init)   init + the dot product of 16 codes 0..63 with 16 signed bytes; g_dot5: of 32 codes 0..31
 *   g_all(x), g_and, g_or, g_add, g_mul32, g_left(v, n), g_right(v, n), g_byte(v, n) (signed), g_neg(f)
 *
 * A matrix that is not laid out so is taken from its rows piece by piece and laid out on the way: every type here can be multiplied
 * without memory of its own.
 */
#ifndef SKF_KERNELS_LANES_BODY_PRIV_H
#define SKF_KERNELS_LANES_BODY_PRIV_H

#include "kernels/lanes_priv.h"

/* Bytes: what a stream asks for before it is there. Every line is asked for, heads too: what is left out stalls the reader at each gap
 * (measured: a third less of what memory can give). */
#define SKF_AHEAD 16384u

#ifndef SKF_TILE
#define SKF_TILE 1u /* tokens whose accumulators stay in registers; 8 or 1 */
#endif
#define SKF_HALF_TILE ((SKF_TILE + 1) / 2)

struct run_of_rows { /* a run of 32 elements of a group's rows: as block_body_priv.h has them, and the scales */
    vi w[8];
    vf d, min;
    vi step[2]; /* of Q6_K */
};

SKF_INLINE bool is_k_type(enum skf_type t) { return t == SKF_T_Q4_K || t == SKF_T_Q5_K || t == SKF_T_Q6_K; }
SKF_INLINE bool has_minimum(enum skf_type t) { return t == SKF_T_Q4_1 || t == SKF_T_Q5_1 || t == SKF_T_Q4_K || t == SKF_T_Q5_K; }

/* Part k of n of the lines of p[bytes]: a burst of many would fill the queue of misses and leave it empty afterwards. p NULL: nothing. */
SKF_INLINE void ask_ahead(const uint8_t *p, uint32_t bytes, uint32_t k, uint32_t n)
{
    const uint32_t lines = (bytes + 63) / 64;
    if (!p)
        return;
    SKF_UNROLL
    for (uint32_t i = lines * k / n; i < lines * (k + 1) / n; i++)
        __builtin_prefetch((const void *)((uintptr_t)p + SKF_AHEAD + 64 * i));
}

/* Low or high nibbles of 8 words. */
SKF_INLINE void nibbles(const uint8_t *p, uint32_t n, bool is_high, vi *w)
{
    SKF_UNROLL
    for (uint32_t k = 0; k < n; k++)
        w[k] = g_and(is_high ? g_right(p_word(p + (size_t)k * SKF_LANES_WORD), 4) : p_word(p + (size_t)k * SKF_LANES_WORD), g_all(0x0f0f0f0f));
}

SKF_INLINE void simple_run(enum skf_type type, const uint8_t *head, const uint8_t *p, struct run_of_rows *r)
{
    r->d = p_half(head);
    if (has_minimum(type))
        r->min = p_half(head + SKF_LANES_HALF);
    if (type == SKF_T_Q8_0) {
        SKF_UNROLL
        for (uint32_t k = 0; k < 8; k++)
            r->w[k] = p_signed(p_word(p + (size_t)k * SKF_LANES_WORD));
        return;
    }
    bool is_5 = type == SKF_T_Q5_0 || type == SKF_T_Q5_1;
    nibbles(p + (is_5 ? SKF_LANES_WORD : 0), 4, false, r->w);
    nibbles(p + (is_5 ? SKF_LANES_WORD : 0), 4, true, r->w + 4);
    if (is_5) {
        vi h = p_word(p);
        SKF_UNROLL
        for (int k = 0; k < 8; k++)
            r->w[k] = g_or(r->w[k], g_and(k < 4 ? g_left(h, 4 - k) : g_right(h, k - 4), g_all(0x10101010)));
    }
}

/* Scales and minima of 8 runs, a byte each: step[j / 4] has that of run j in byte j % 4. */
SKF_INLINE void k_steps(const uint8_t *p, vi *step, vi *min)
{
    const vi six = g_all(0x3f3f3f3f), low = g_all(0x0f0f0f0f), top = g_all(0x30303030);
    vi a = p_word(p), b = p_word(p + SKF_LANES_WORD), c = p_word(p + (size_t)2 * SKF_LANES_WORD);
    step[0] = g_and(a, six);
    min[0] = g_and(b, six);
    step[1] = g_or(g_and(c, low), g_and(g_right(a, 2), top));
    min[1] = g_or(g_and(g_right(c, 4), low), g_and(g_right(b, 2), top));
}

SKF_INLINE void k_run(enum skf_type type, uint32_t j, vf d, vf m, const vi *step, const vi *min, const uint8_t *p,
                      struct run_of_rows *r)
{
    const uint8_t *high = p + (size_t)3 * SKF_LANES_WORD, *low = type == SKF_T_Q5_K ? high + (size_t)8 * SKF_LANES_WORD : high;
    nibbles(low + (size_t)(j / 2 * 8) * SKF_LANES_WORD, 8, j % 2, r->w);
    if (type == SKF_T_Q5_K) {
        SKF_UNROLL
        for (uint32_t k = 0; k < 8; k++) {
            vi h = p_word(high + (size_t)k * SKF_LANES_WORD);
            r->w[k] = g_or(r->w[k], g_and(j < 4 ? g_left(h, 4 - j) : g_right(h, j - 4), g_all(0x10101010)));
        }
    }
    r->d = g_mul(d, g_float(g_byte(step[j / 4], j % 4)));
    r->min = g_neg(g_mul(m, g_float(g_byte(min[j / 4], j % 4))));
}

SKF_INLINE void q6_k_run(uint32_t j, vf d, const uint8_t *p, struct run_of_rows *r)
{
    const uint8_t *high = p + (size_t)(4 + j / 4 * 8) * SKF_LANES_WORD, *low = p + (size_t)(20 + j / 4 * 16 + j % 2 * 8) * SKF_LANES_WORD;
    const uint32_t at = 2 * (j % 4);
    nibbles(low, 8, j % 4 / 2, r->w);
    SKF_UNROLL
    for (uint32_t k = 0; k < 8; k++) {
        vi h = p_word(high + (size_t)k * SKF_LANES_WORD);
        r->w[k] = g_or(r->w[k], g_and(at < 4 ? g_left(h, 4 - at) : g_right(h, at - 4), g_all(0x30303030)));
    }
    r->d = d;
    vi s = p_word(p + (size_t)(j / 2) * SKF_LANES_WORD);
    r->step[0] = g_byte(s, 2 * j % 4);
    r->step[1] = g_byte(s, 2 * j % 4 + 1);
}

/* A run's rows times one token, `at` its place among the activations. */
SKF_INLINE vf run_token(enum skf_type type, const struct run_of_rows *r, const struct skf_acts *a, size_t at, vf acc)
{
    const int8_t *q = a->q + at * SKF_QBLOCK;
    vi dot;
    if (type == SKF_T_Q8_0)
        dot = g_dot8(r->w, q, a->sum[at]);
    else if (type == SKF_T_Q6_K)
        dot = g_add(g_mul32(r->step[0], g_dot16(r->w, q, -32 * a->low[at])),
                    g_mul32(r->step[1], g_dot16(r->w + 4, q + 16, -32 * (a->sum[at] - a->low[at]))));
    else if (type == SKF_T_Q4_0 || type == SKF_T_Q4_1 || type == SKF_T_Q4_K)
        dot = g_dot4(r->w, q, type == SKF_T_Q4_0 ? -8 * a->sum[at] : 0);
    else
        dot = g_dot5(r->w, q, type == SKF_T_Q5_0 ? -16 * a->sum[at] : 0);
    acc = g_fma(g_mul(r->d, g_set(a->d[at])), g_float(dot), acc);
    return has_minimum(type) ? g_fma(r->min, g_set(a->s[at]), acc) : acc;
}

/* The same of `count` tokens, run b of the row; a tile is so few, known to the compiler, that their accumulators are registers. */
SKF_INLINE void run_tokens(enum skf_type type, const struct run_of_rows *r, const struct skf_acts *a, uint32_t b, uint32_t t,
                           uint32_t count, bool is_tile, vf *acc)
{
    size_t at = (size_t)b * a->m + t;
    if (is_tile) {
        SKF_UNROLL
        for (uint32_t j = 0; j < count; j++)
            acc[j] = run_token(type, r, a, at + j, acc[j]);
        return;
    }
    for (uint32_t j = 0; j < count; j++)
        acc[j] = run_token(type, r, a, at + j, acc[j]);
}

/* n blocks from block b0 on; heads and bodies of this group's rows; ask: where the whole group lies, NULL: it is in the cache. */
SKF_INLINE void lanes_tokens(enum skf_type type, const uint8_t *head, const uint8_t *body, const uint8_t *ask, uint32_t b0, uint32_t n,
                              const struct skf_acts *a, uint32_t t, uint32_t count, bool is_tile, vf *acc)
{
    const bool is_6 = type == SKF_T_Q6_K, is_k = is_k_type(type);
    const uint32_t halves = has_minimum(type) ? 2 : 1;
    const uint32_t words = is_6 ? 52 : type == SKF_T_Q4_K ? 35 : type == SKF_T_Q5_K ? 43 : type == SKF_T_Q8_0 ? 8 : type == SKF_T_Q5_0 || type == SKF_T_Q5_1 ? 5 : 4;
    const uint32_t bytes = halves * SKF_LANES_HALF + words * SKF_LANES_WORD;
    struct run_of_rows r;
    for (uint32_t b = b0; b < b0 + n; b++, head += halves * SKF_LANES_HALF, body += (size_t)words * SKF_LANES_WORD) {
        if (!is_k) {
            ask_ahead(ask, bytes, 0, 1);
            ask = ask ? ask + bytes : NULL;
            simple_run(type, head, body, &r);
            run_tokens(type, &r, a, b, t, count, is_tile, acc);
            continue;
        }
        vf d = p_half(head), m = is_6 ? d : p_half(head + SKF_LANES_HALF);
        vi step[2], min[2];
        if (!is_6)
            k_steps(body, step, min);
        SKF_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            ask_ahead(ask, bytes, j, 8);
            if (is_6)
                q6_k_run(j, d, body, &r);
            else
                k_run(type, j, d, m, step, min, body, &r);
            run_tokens(type, &r, a, 8 * b + j, t, count, is_tile, acc);
        }
        ask = ask ? ask + bytes : NULL;
    }
}

/* A group: laid out already, or rows that are laid out in `piece` some blocks at a time. */
#define SKF_PIECE 27648u /* bytes: 8 blocks of Q6_K */
#define SKF_PARTS (SKF_LANES / SKF_GROUP)
struct group_of_rows {
    const struct skf_lanes_form *form;
    const uint8_t *heads, *body;  /* NULL: not laid out */
    const uint8_t *rp[SKF_LANES]; /* then rows */
    uint8_t *piece;
};

/* y is that of the group's first row; only rows from..to - 1 of it are wanted. */
SKF_INLINE void group_store(float *y, uint32_t lane, uint32_t from, uint32_t to, vf v)
{
    if (from <= lane && to >= lane + SKF_GROUP) {
        g_store(y + lane, SKF_GROUP, v);
        return;
    }
    float all[SKF_GROUP];
    g_store(all, SKF_GROUP, v);
    for (uint32_t i = SKF_MAX(from, lane); i < SKF_MIN(to, lane + SKF_GROUP); i++)
        y[i] = all[i - lane];
}

/* One group that is laid out against a tile of tokens. */
SKF_INLINE void lanes_tile(enum skf_type type, const struct group_of_rows *g, const struct skf_acts *a, uint32_t t, uint32_t count,
                           uint32_t from, uint32_t to, float *y, size_t ldy)
{
    for (uint32_t lane = 0; lane < SKF_LANES; lane += SKF_GROUP) {
        vf acc[SKF_TILE];
        SKF_UNROLL
        for (uint32_t j = 0; j < count; j++)
            acc[j] = g_zero();
        lanes_tokens(type, g->heads + (size_t)2 * lane, g->body + (size_t)4 * lane, lane == 0 && t == 0 ? g->heads : NULL, 0, a->n / g->form->block,
                     a, t, count, true, acc);
        SKF_UNROLL
        for (uint32_t j = 0; j < count; j++)
            group_store(y + (t + j) * ldy, lane, from, to, acc[j]);
    }
}

/* One group against up to SKF_TOKENS tokens: what is taken apart of its rows serves them all. */
SKF_INLINE void lanes_many(enum skf_type type, const struct group_of_rows *g, const struct skf_acts *a, uint32_t t, uint32_t count,
                           uint32_t from, uint32_t to, float *y, size_t ldy)
{
    const uint32_t blocks = a->n / g->form->block, most = g->heads ? blocks : SKF_PIECE / (SKF_LANES * g->form->bytes);
    uint8_t *words = g->piece + (size_t)most * g->form->halves * SKF_LANES_HALF;
    const uint8_t *heads = g->heads ? g->heads : g->piece, *body = g->heads ? g->body : words;
    vf acc[SKF_PARTS][SKF_TOKENS];
    for (uint32_t i = 0; i < SKF_PARTS; i++)
        for (uint32_t j = 0; j < count; j++)
            acc[i][j] = g_zero();
    for (uint32_t b = 0; b < blocks; b += most) {
        const uint32_t n = SKF_MIN(blocks - b, most);
        if (!g->heads)
            skf_lanes_blocks(g->form, g->rp, b, n, g->piece, words);
        for (uint32_t i = 0; i < SKF_PARTS; i++)
            lanes_tokens(type, heads + (size_t)i * 2 * SKF_GROUP, body + (size_t)i * 4 * SKF_GROUP, i == 0 && t == 0 ? g->heads : NULL, b, n, a, t,
                         count, false, acc[i]);
    }
    for (uint32_t i = 0; i < SKF_PARTS; i++)
        for (uint32_t j = 0; j < count; j++)
            group_store(y + (t + j) * ldy, i * SKF_GROUP, from, to, acc[i][j]);
}

/* One group against every token. */
SKF_INLINE void lanes_of_group(enum skf_type type, const struct group_of_rows *g, const struct skf_acts *a, uint32_t from, uint32_t to,
                               float *y, size_t ldy)
{
    uint32_t t = 0;
    if (g->heads && !is_k_type(type) && SKF_TILE > 1) { /* a K-quant's blocks take more to take apart than a tile gains */
        for (; t + SKF_TILE <= a->m; t += SKF_TILE)
            lanes_tile(type, g, a, t, SKF_TILE, from, to, y, ldy);
        if (t + SKF_HALF_TILE <= a->m) {
            lanes_tile(type, g, a, t, SKF_HALF_TILE, from, to, y, ldy);
            t += SKF_HALF_TILE;
        }
    }
    if (g->heads && t + 1 == a->m) {
        lanes_tile(type, g, a, t, 1, from, to, y, ldy);
        return;
    }
    for (; t < a->m; t += SKF_TOKENS)
        lanes_many(type, g, a, t, SKF_MIN(a->m - t, SKF_TOKENS), from, to, y, ldy);
}

SKF_INLINE void lanes_of_rows(enum skf_type type, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1,
                            float *y, size_t ldy)
{
    const struct skf_lanes_form *f = skf_lanes_form(type);
    const uint64_t heads = skf_lanes_heads(f, w->cols), bytes = skf_lanes_group(f, w->cols);
    _Alignas(64) uint8_t piece[SKF_PIECE];
    struct group_of_rows g = {.form = f, .piece = piece};
    uint32_t seg = skf_weight_seg(w, row0);
    for (uint32_t r = row0; r < row1;) {
        uint32_t first = r / SKF_LANES * SKF_LANES, to = SKF_MIN(row1 - first, SKF_LANES);
        if (w->lanes) {
            g.heads = w->lanes + first / SKF_LANES * bytes;
            g.body = g.heads + heads;
        } else {
            skf_row_group(w, r, first + to - r, first + to - r, &seg, g.rp + (r - first));
            for (uint32_t i = 0; i < SKF_LANES; i++)
                g.rp[i] = i < r - first || i >= to ? NULL : g.rp[i];
        }
        lanes_of_group(type, &g, a, r - first, to, y + first, ldy);
        r = first + to;
    }
}

static void lanes_matmul(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy)
{
    if (row0 >= row1)
        return;
    switch (w->type) {
    case SKF_T_Q4_0: lanes_of_rows(SKF_T_Q4_0, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q4_1: lanes_of_rows(SKF_T_Q4_1, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q5_0: lanes_of_rows(SKF_T_Q5_0, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q5_1: lanes_of_rows(SKF_T_Q5_1, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q8_0: lanes_of_rows(SKF_T_Q8_0, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q4_K: lanes_of_rows(SKF_T_Q4_K, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q5_K: lanes_of_rows(SKF_T_Q5_K, w, a, row0, row1, y, ldy); break;
    case SKF_T_Q6_K: lanes_of_rows(SKF_T_Q6_K, w, a, row0, row1, y, ldy); break;
    default: break;
    }
}

#endif
