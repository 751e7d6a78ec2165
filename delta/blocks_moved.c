/*
 * Codes of units that moved (blocks_priv.h): each against its prediction, in the context of how sure that is.  They are made a few
 * rows at a time, while what they are made from is near.
 */
#include <string.h>

#include "delta/blocks_priv.h"

#define BATCH 2048 /* codes, a multiple of RANS_MOST and of every unit */
#define UNITS (BATCH / 8) /* codes that can move come in eights at least */

struct batch {
    uint32_t n;     /* units */
    uint32_t first; /* of the chunk's units that moved, all before the batch */
    const float *guess;
    struct skf_range range;
    skf_predict_fn *predict;
    const struct skf_bytes *bytes; /* not NULL: they are the blocks of `run`, and this predicts them; code, guess and map are not made */
    struct skf_bytes_run run;
    int8_t code[BATCH];
    struct skf_map map[UNITS];
    uint32_t unit[UNITS]; /* their numbers */
};
static void predict(const struct batch *t, unsigned unit, const struct skf_predictions *out)
{
    if (t->bytes)
        t->bytes->predict(&t->run, out);
    else
        t->predict(t->code, t->guess, t->map, t->n, unit, &t->range, out);
}
/* What becomes of a batch. */
typedef enum skf_err batch_fn(void *ctx, const struct batch *t);

struct moved {
    const struct skf_blocks *b;
    const struct skf_plan *p;
    batch_fn *fn;
    void *ctx;
    struct batch t;
};

static enum skf_err flush(struct moved *m)
{
    struct batch *t = &m->t;
    if (!t->n)
        return SKF_OK;
    SKF_TRY(m->fn(m->ctx, t));
    t->first += t->n;
    if (t->guess)
        t->guess += t->n * m->p->f->unit;
    t->n = 0;
    return SKF_OK;
}

/* Where no grid says where an old value lies on the new one, it is where it was. */
static inline __attribute__((always_inline)) void add_unit(struct moved *m, uint32_t number, const struct skf_step *was,
                                                           const struct skf_step *is, int at)
{
    struct batch *t = &m->t;
    struct skf_map map = {1, 0, 1 / is->step, 0, 0};
    if (was != is) {
        map.ratio = was->step / is->step;
        map.offset = (was->offset - is->offset) / is->step;
    }
    bool is_near = map.ratio > -1e4f && map.ratio < 1e4f && map.offset > -1e6f && map.offset < 1e6f &&
                   map.slope > -1e9f && map.slope < 1e9f;
    if (m->p->f->grid == GRID_NONE || !is_near) {
        map.ratio = 1;
        map.offset = map.slope = 0;
    }
    unsigned class = skf_step_class[skf_context(skf_step_scale(was->step), at)];
    map.class = (uint8_t)(class * BLOCKS_PARTS);
    map.end_class = (uint8_t)(BLOCKS_CLASSES * BLOCKS_PARTS + 2 * (class < 2 ? 0 : class < 5 ? 1 : 2));
    t->map[t->n] = map;
    t->unit[t->n++] = number;
}

static enum skf_err add_block(struct moved *m, uint32_t i, int at)
{
    const struct skf_blocks *b = m->b;
    const struct skf_plan *p = m->p;
    struct skf_step was[BLOCKS_UNITS], is[BLOCKS_UNITS];
    int8_t code[BLOCKS_CODES];
    skf_codes_get(p->f, skf_old_block(b, i), code);
    skf_steps_get(b->l, p->k, skf_old_block(b, i), was);
    skf_steps_get(b->l, p->k, skf_new_block(b, i), is);
    for (uint32_t set = skf_moved_set(p, b->moved[i], was, is); set; set &= set - 1) {
        unsigned u = (unsigned)__builtin_ctz(set);
        memcpy(m->t.code + m->t.n * p->f->unit, code + u * p->f->unit, p->f->unit);
        add_unit(m, i * p->units + u, &was[u], &is[u], at);
        if (m->t.n * p->f->unit == BATCH)
            SKF_TRY(flush(m));
    }
    return SKF_OK;
}

/* The same for blocks of one unit of 32, whose step is a half: what an embedding is. */
#define SIMPLE 32
static inline struct skf_step simple_step(const struct skf_layout *l, const uint8_t *block)
{
    float m = l->n_halves > 1 ? skf_half_at(block + l->half[1]) : 0, d = skf_half_at(block + l->half[0]);
    return (struct skf_step){d, m - d * (float)l->field[0].bias};
}
static enum skf_err add_simple(struct moved *m, uint32_t i, int at)
{
    const struct skf_blocks *b = m->b;
    const struct skf_codes *f = &b->l->field[0];
    const uint8_t *old = skf_old_block(b, i);
    int8_t *code = m->t.code + m->t.n * SIMPLE;
    struct skf_step was = simple_step(b->l, old), is;
    if (f->bits == 8)
        memcpy(code, old + f->low.at, SIMPLE);
    else
        skf_codes_get(f, old, code);
    if (b->moved[i]) {
        is = simple_step(b->l, skf_new_block(b, i));
        add_unit(m, i, &was, &is, at);
    } else {
        add_unit(m, i, &was, &was, at);
    }
    return m->t.n * SIMPLE == BATCH ? flush(m) : SKF_OK;
}

/* All units, row by row. */
static enum skf_err for_guessed(struct moved *m, bool is_simple)
{
    const struct skf_blocks *b = m->b;
    for (uint32_t i = 0, row = 0; i < b->n; row++) {
        int at = skf_row_at(b, i, m->p->base);
        skf_factors_row(&b->factors, row);
        m->t.guess = b->factors.guess;
        for (uint32_t end = SKF_MIN(b->n, i + b->levels.stripe); i < end; i++)
            SKF_TRY(is_simple ? add_simple(m, i, at) : add_block(m, i, at));
        SKF_TRY(flush(m));
    }
    return SKF_OK;
}

/* The same by vectors from block to block. */
static enum skf_err for_bytes(struct moved *m)
{
    struct batch *t = &m->t;
    t->run = (struct skf_bytes_run){.b = m->b, .base = m->p->base};
    while (t->first < m->b->n) {
        t->n = t->run.n = SKF_MIN(m->b->n - t->first, (uint32_t)SKF_BYTES_RUN);
        t->run.first = t->first;
        for (uint32_t k = 0; k < t->n; k++)
            t->unit[k] = t->first + k;
        SKF_TRY(m->fn(m->ctx, t));
        t->first += t->n;
    }
    return SKF_OK;
}

/* Batches of all units that moved, in order. */
static enum skf_err for_moved(const struct skf_work *w, struct moved *m)
{
    const struct skf_blocks *b = m->b;
    const struct skf_plan *p = m->p;
    const bool is_simple = p->units == 1 && p->f->unit == SIMPLE && p->f->grid == GRID_HALF;
    const int high = p->f->bits == 8 ? 127 : (1 << p->f->bits) - 1;
    m->t.n = m->t.first = 0;
    m->t.guess = NULL;
    m->t.range = (struct skf_range){p->f->bits == 8 ? -128 : 0, high, p->f->bits == 8 ? -127 : 0, high};
    m->t.predict = skf_predict_pick(w->isa, p->f->unit);
    m->t.bytes = p->is_guessed && skf_is_bytes(b) ? skf_bytes_pick(w->isa) : NULL;
    if (m->t.bytes)
        return for_bytes(m);
    if (p->is_guessed)
        return for_guessed(m, is_simple);
    for (uint32_t i = skf_next_moved(b, 0); i < b->n; i = skf_next_moved(b, i + 1)) {
        int at = skf_row_at(b, i, p->base);
        SKF_TRY(is_simple ? add_simple(m, i, at) : add_block(m, i, at));
    }
    return flush(m);
}

/* ---- coding ------------------------------------------------------------------------------------------------------------------ */
struct putting {
    struct skf_work *w;
    const struct skf_blocks *b;
    const struct skf_plan *p;
    struct skf_bits_out raw;
};

static enum skf_err put_batch(void *ctx, const struct batch *t)
{
    struct putting *k = ctx;
    const struct skf_codes *f = k->p->f;
    const size_t from = (size_t)t->first * f->unit;
    int8_t want[BATCH], turn[BATCH], code[BLOCKS_CODES];
    const struct skf_predictions out = {want, k->w->part.p + from, turn};
    uint8_t *sym = k->w->sym.p + from;
    uint32_t have = UINT32_MAX;
    predict(t, f->unit, &out);
    for (uint32_t u = 0, e = 0; u < t->n; u++) {
        uint32_t i = t->unit[u] / k->p->units;
        const int8_t *c = code + t->unit[u] % k->p->units * f->unit;
        if (i != have)
            skf_codes_get(f, skf_new_block(k->b, i), code);
        have = i;
        for (uint32_t end = e + f->unit; e < end; e++) {
            int d = skf_code_wrap(f, *c++ - want[e]);
            d = (d ^ turn[e]) - turn[e];
            *sym++ = d > -8 && d < 8 ? (uint8_t)(2 * d ^ d >> 31) : skf_bucket_put(&k->raw, d);
        }
    }
    return SKF_OK;
}

enum skf_err skf_moved_put(struct skf_work *w, const struct skf_blocks *b, const struct skf_plan *p, struct skf_buf *out)
{
    const uint32_t n = p->n_moved * p->f->unit;
    struct putting k = {.w = w, .b = b, .p = p};
    struct moved m = {.b = b, .p = p, .fn = put_batch, .ctx = &k};
    if (!n)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->part, n));
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_raw_begin(w, n, 1, &k.raw));
    SKF_TRY(for_moved(w, &m));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->part.p, n}, out));
    return skf_raw_put(w, &k.raw, out);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------------- */
/* Symbols come in multiples of RANS_MOST, and soonest in many: codes of small batches wait for more. */
#define ROOM (2 * BATCH)
struct getting {
    const struct skf_blocks *b;
    const struct skf_plan *p;
    struct skf_syms_in in;
    struct skf_bits_in raw;
    uint32_t n; /* codes that wait */
    int8_t want[ROOM], turn[ROOM];
    uint8_t key[ROOM];
    uint32_t unit[ROOM / 8];
};

/* Codes of small symbols, all at once: what a code's bits leave of the sum. Whether some were not small. */
static SKF_LOOPS bool undo(const uint8_t *restrict sym, const int8_t *restrict want, const int8_t *restrict turn, int8_t *restrict code,
                           uint32_t n)
{
    uint8_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t s = sym[i];
        most = s > most ? s : most;
        int8_t d = (int8_t)((s >> 1 & 127) ^ -(s & 1));
        code[i] = (int8_t)(want[i] + (d ^ turn[i]) - turn[i]);
    }
    return most >= SKF_SMALL;
}

/* The codes of the first `units` units, into their blocks: those of one block together. */
static void write_units(const struct getting *k, const int8_t *code, uint32_t units)
{
    const struct skf_codes *f = k->p->f;
    int8_t all[BLOCKS_CODES];
    for (uint32_t u = 0; u < units;) {
        const uint32_t i = k->unit[u] / k->p->units;
        uint8_t *block = skf_new_block(k->b, i);
        const int8_t *c = code + u * f->unit;
        if (k->p->units == 1) {
            u++;
        } else {
            skf_codes_get(f, block, all);
            for (; u < units && k->unit[u] / k->p->units == i; u++)
                memcpy(all + k->unit[u] % k->p->units * f->unit, code + u * f->unit, f->unit);
            c = all;
        }
        skf_codes_set(f, block, c);
    }
}

/* Those of symbols that are not small, one by one. */
static enum skf_err get_far(struct getting *k, const uint8_t *sym, int8_t *code, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t d;
        if (sym[i] < SKF_SMALL)
            continue;
        if (!skf_bucket_get(&k->raw, sym[i], 1, &d))
            return SKF_ERR_FORMAT;
        code[i] = (int8_t)(k->want[i] + (k->turn[i] ? -d : d));
    }
    return SKF_OK;
}

static enum skf_err get_batch(void *ctx, const struct batch *t)
{
    struct getting *k = ctx;
    const unsigned each = k->p->f->unit;
    const struct skf_predictions all = {k->want, k->key, k->turn}, out = {k->want + k->n, k->key + k->n, k->turn + k->n};
    int8_t code[ROOM];
    uint8_t sym[ROOM];
    predict(t, each, &out);
    memcpy(k->unit + k->n / each, t->unit, t->n * sizeof *t->unit);
    k->n += t->n * each;
    const bool is_last = t->first + t->n == k->p->n_moved;
    const uint32_t n = is_last ? k->n : k->n & ~(RANS_MOST - 1u);
    if (!is_last && n < BATCH)
        return SKF_OK;
    SKF_TRY(skf_syms_some(&k->in, sym, k->key, n));
    if (t->bytes) {
        uint8_t *to = skf_new_block(k->b, k->unit[0]) + k->p->f->low.at;
        if (t->bytes->undo(sym, &all, to, k->b->bytes, n / each)) {
            (void)undo(sym, k->want, k->turn, code, n);
            SKF_TRY(get_far(k, sym, code, n));
            write_units(k, code, n / each);
        }
    } else {
        if (undo(sym, k->want, k->turn, code, n))
            SKF_TRY(get_far(k, sym, code, n));
        write_units(k, code, n / each);
    }
    k->n -= n;
    memmove(k->want, k->want + n, k->n);
    memmove(k->turn, k->turn + n, k->n);
    memmove(k->key, k->key + n, k->n);
    memmove(k->unit, k->unit + n / each, k->n / each * sizeof *k->unit);
    return SKF_OK;
}

enum skf_err skf_moved_get(struct skf_work *w, struct skf_reader *r, const struct skf_blocks *b, const struct skf_plan *p)
{
    struct getting k = {.b = b, .p = p};
    struct moved m = {.b = b, .p = p, .fn = get_batch, .ctx = &k};
    if (!p->n_moved)
        return SKF_OK;
    SKF_TRY(skf_syms_begin(w, &w->tables, r, p->n_moved * p->f->unit, &k.in));
    SKF_TRY(skf_raw_get(r, &k.raw));
    SKF_TRY(for_moved(w, &m));
    return is_bits_done(&k.raw) ? SKF_OK : SKF_ERR_FORMAT;
}
