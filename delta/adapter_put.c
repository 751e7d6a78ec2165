/*
 * Coding 5 from the publisher's side: when an adapter is at hand, each of its tensors is merged as a receiver will merge it, and what
 * comes out is compared with the new version.  Where that is no merge of any kind we know, the ordinary codings have the chunk.
 *
 * Halves and bfloats keep so few bits of a sum that factors may be sent with fewer bits than they have: what rounds otherwise for that
 * costs less (adapter_nudge.c).  How many is tried out.
 */
#include <string.h>

#include "base/alloc.h"
#include "delta/adapter_priv.h"
#include "delta/build_priv.h"

enum { UNSEEN, HAS_SIDE, HAS_NONE, STATES = 3 }; /* of build.adapted; above it the number of the precision */
/* More bytes of a chunk than one of so many that differ from the merge: it is another change than the adapter's. */
#define STRANGE 8

static const uint8_t precisions[] = {23, 8, 7, 6}; /* mantissa bits; the first is all there are */

enum skf_err adapter_put_a(struct skf_work *w, const struct adapter_a *a, struct skf_buf *out)
{
    uint32_t scale;
    memcpy(&scale, &a->scale, sizeof scale);
    SKF_TRY(skf_put_varint(out, a->rank));
    SKF_TRY(skf_buf_u32(out, scale));
    return adapter_put_numbers(w, a->x, a->rank * a->inputs, out);
}

struct try { /* one chunk */
    struct build *b;
    struct build_worker *w;
    uint32_t tensor;
    struct adapter_chunk c;
    const struct skf_low_rank *l;
    const uint8_t *old, *neu;
    size_t n;
    uint64_t rows;
    const float *a, *rows_of_b; /* whole, in w->adapter; behind them room for B with fewer bits */
    unsigned rule;              /* that was best with all bits */
};

static void shorten(const float *from, float *to, size_t n, unsigned kept)
{
    if (kept >= 23) {
        memmove(to, from, n * sizeof *to);
        return;
    }
    unsigned cut = 23 - kept;
    float small = 1.0f / 16384, unit = small / (float)(1u << kept); /* a half's smallest exponent: below it bits have fixed places */
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        if (from[i] > -small && from[i] < small) {
            to[i] = (float)(int)(from[i] / unit + (from[i] < 0 ? -0.5f : 0.5f)) * unit;
            continue;
        }
        memcpy(&u, &from[i], 4);
        u = (u + (1u << (cut - 1))) >> cut << cut;
        memcpy(&to[i], &u, 4);
    }
}

/* A with so many bits, in the worker's low.columns. */
static struct adapter_a short_a(const struct try *t, unsigned kept)
{
    struct skf_low *low = &t->w->work.low;
    low->is_kept = false;
    shorten(t->a, (float *)(void *)low->columns.p, t->l->rank * t->l->inputs, kept);
    return (struct adapter_a){t->l->rank, t->l->inputs, t->l->scale, (const float *)(const void *)low->columns.p};
}

static size_t differing(const uint8_t *a, const uint8_t *b, size_t n)
{
    size_t d = 0;
    for (size_t i = 0; i < n; i++)
        d += a[i] != b[i];
    return d;
}

static bool is_rule_for(enum adapter_rule rule, enum skf_type t)
{
    bool is_plain = t == SKF_T_F32 || is_nudge_type(t);
    return rule == ADAPTER_CARRIED || (rule == ADAPTER_NEAREST && !is_plain) || (rule == ADAPTER_TWICE && is_nudge_type(t));
}

/* Merges into w->check, and w->place where there are nudges. */
static enum skf_err merge(const struct try *t, unsigned rule, const struct adapter_a *a, const float *rows, size_t *left)
{
    struct build_worker *w = t->w;
    uint16_t *place = NULL;
    SKF_TRY(skf_area_need(&w->check, t->n));
    if (is_nudge_type(t->c.type)) {
        SKF_TRY(skf_area_need(&w->place, t->n));
        place = (uint16_t *)(void *)w->place.p;
    }
    SKF_TRY(adapter_merge(&w->work, (enum adapter_rule)rule, &t->c, a, rows, t->old, w->check.p, place, t->n));
    *left = differing(w->check.p, t->neu, t->n);
    return SKF_OK;
}

/* The rule that comes closest with all bits; false when none comes near. */
static enum skf_err choose_rule(struct try *t, const struct adapter_a *a, bool *is_near)
{
    size_t least = SIZE_MAX, left;
    for (unsigned r = 0; r < ADAPTER_RULES && least; r++) {
        if (!is_rule_for((enum adapter_rule)r, t->c.type))
            continue;
        enum skf_err e = merge(t, r, a, t->rows_of_b, &left);
        if (e != SKF_ERR_FORMAT) /* not finite */
            SKF_TRY(e);
        if (e == SKF_OK && left < least) {
            least = left;
            t->rule = r;
        }
    }
    *is_near = least <= t->n / STRANGE;
    return SKF_OK;
}

/* The payload with so many bits, in w->out, whose limit is set. */
static enum skf_err put_chunk(const struct try *t, const struct adapter_a *a, unsigned kept)
{
    struct build_worker *w = t->w;
    float *rows = (float *)(void *)w->work.low.rows.p;
    size_t left;
    shorten(t->rows_of_b, rows, t->rows * t->l->rank, kept);
    SKF_TRY(merge(t, t->rule, a, rows, &left));
    unsigned fix = !left ? FIX_NONE : is_nudge_type(t->c.type) ? FIX_NUDGE : FIX_INT;
    SKF_TRY(skf_buf_u8(&w->out, (uint8_t)(t->rule | fix << ADAPTER_FIX_AT)));
    if (!t->c.side)
        SKF_TRY(adapter_put_a(&w->work, a, &w->out));
    SKF_TRY(adapter_put_numbers(&w->work, rows, t->rows * t->l->rank, &w->out));
    if (fix == FIX_NUDGE)
        return adapter_put_nudges(&w->work, (const uint16_t *)(const void *)w->place.p, w->check.p, t->neu, t->n / 2, &w->out);
    return fix == FIX_INT ? skf_int_put(&w->work, t->c.type, t->c.row_bytes, NULL, 0, w->check.p, t->neu, t->n, &w->out) : SKF_OK;
}

/* The precision that costs least for this chunk and its part of A. */
static enum skf_err choose_precision(struct try *t, unsigned *best)
{
    uint64_t least = UINT64_MAX, all = t->b->tensors[t->tensor].bytes;
    struct skf_buf a_out = SKF_BUF_INIT(SKF_SIDE_MAX);
    enum skf_err e = SKF_OK;
    t->c.side = (const uint8_t *)""; /* A is counted by itself */
    for (unsigned p = 0; p < (is_nudge_type(t->c.type) ? SKF_COUNT(precisions) : 1); p++) {
        struct adapter_a a = short_a(t, precisions[p]);
        skf_buf_clear(&a_out);
        skf_buf_clear(&t->w->out);
        t->w->out.limit = t->n;
        e = adapter_put_a(&t->w->work, &a, &a_out);
        if (e == SKF_OK)
            e = put_chunk(t, &a, precisions[p]);
        if (e != SKF_OK && e != SKF_ERR_LIMIT)
            break;
        uint64_t cost = t->w->out.len + a_out.len * t->n / all;
        if (e == SKF_OK && cost < least) {
            least = cost;
            *best = p;
        }
        e = SKF_OK;
    }
    t->c.side = NULL;
    skf_buf_free(&a_out);
    return e;
}

/* Under the lock, for the first chunk of a tensor of several: its side. */
static enum skf_err make_side(struct try *t, struct skf_why *why)
{
    struct skf_buf out = SKF_BUF_INIT(SKF_SIDE_MAX);
    struct adapter_a a = short_a(t, precisions[0]);
    unsigned p = 0;
    bool is_near;
    enum skf_err e = choose_rule(t, &a, &is_near);
    t->b->adapted[t->tensor] = HAS_NONE;
    if (e != SKF_OK || !is_near)
        return e;
    SKF_GO(e, choose_precision(t, &p));
    a = short_a(t, precisions[p]);
    SKF_GO(e, adapter_put_a(&t->w->work, &a, &out));
    SKF_GO(e, build_add_side(t->b, t->tensor, SKF_CODE_ADAPTER, out.data, out.len, why));
    t->b->adapted[t->tensor] = (uint8_t)(HAS_SIDE + STATES * p);
out:
    skf_buf_free(&out);
    return e == SKF_ERR_LIMIT ? SKF_OK : e;
}

/* Keeps what is in w->out as the best so far, if it is. */
static enum skf_err take(struct try *t, struct candidate *best, uint64_t source_offset)
{
    struct build_worker *w = t->w;
    if (w->out.len >= best->n)
        return SKF_OK;
    /* As with every coding: what is published must come out. */
    enum skf_err e = adapter_get(&w->work, &t->c, w->out.data, w->out.len, t->old, w->check.p, t->n);
    if (e == SKF_ERR_NOMEM)
        return e;
    if (e != SKF_OK || memcmp(w->check.p, t->neu, t->n) != 0)
        return SKF_ERR_INTERNAL;
    SKF_TRY(skf_area_need(&w->best, t->n));
    memcpy(w->best.p, w->out.data, w->out.len);
    *best = (struct candidate){SKF_CODE_ADAPTER, w->out.len, source_offset, t->n};
    return SKF_OK;
}

static enum skf_err put_best(struct try *t, const struct adapter_a *side_a, unsigned first, unsigned end, struct candidate *best,
                             uint64_t source_offset)
{
    for (unsigned p = first; p < end; p++) {
        struct adapter_a a = side_a ? *side_a : short_a(t, precisions[p]);
        skf_buf_clear(&t->w->out);
        t->w->out.limit = best->n - 1;
        enum skf_err e = put_chunk(t, &a, precisions[p]);
        if (e == SKF_ERR_LIMIT)
            continue;
        SKF_TRY(e);
        SKF_TRY(take(t, best, source_offset));
    }
    return SKF_OK;
}

/* A chunk that is its whole tensor has A in its payload. */
static enum skf_err put_alone(struct try *t, struct candidate *best, uint64_t source_offset)
{
    struct adapter_a a = short_a(t, precisions[0]);
    bool is_near;
    SKF_TRY(choose_rule(t, &a, &is_near));
    return is_near ? put_best(t, NULL, 0, is_nudge_type(t->c.type) ? SKF_COUNT(precisions) : 1, best, source_offset) : SKF_OK;
}

static enum skf_err put_with_side(struct try *t, struct candidate *best, uint64_t source_offset, struct skf_why *why)
{
    struct build *b = t->b;
    struct adapter_a a;
    enum skf_err e = SKF_OK;
    bool is_near;
    (void)pthread_mutex_lock(&b->adapter_lock);
    if (b->adapted[t->tensor] == UNSEEN && b->sides[t->tensor].n)
        b->adapted[t->tensor] = HAS_NONE;
    if (b->adapted[t->tensor] == UNSEEN)
        e = make_side(t, why);
    unsigned state = b->adapted[t->tensor];
    (void)pthread_mutex_unlock(&b->adapter_lock);
    if (e != SKF_OK || state % STATES != HAS_SIDE)
        return e;
    t->c.side = b->sides[t->tensor].p;
    t->c.side_n = b->sides[t->tensor].n;
    t->c.side_digest = b->sides[t->tensor].digest;
    SKF_TRY(adapter_side_a(&t->w->work, &t->c, t->l->inputs, &a));
    SKF_TRY(choose_rule(t, &a, &is_near));
    return is_near ? put_best(t, &a, state / STATES, state / STATES + 1, best, source_offset) : SKF_OK;
}

enum skf_err build_try_adapter(struct build *b, struct build_worker *w, uint64_t i, const struct skf_tensor *from,
                               uint64_t within, const uint8_t *neu, size_t n, struct candidate *best, struct skf_why *why)
{
    struct skf_low_rank l;
    if (!b->adapter || !is_adapter_shape(from->type, from->row_bytes, within, n) || n > from->bytes - within || best->n < 2)
        return SKF_OK;
    SKF_TRY(skf_adapter_find(b->adapter, from, &l, why));
    uint64_t rows = n / from->row_bytes;
    if (!l.rank || l.rank > ADAPTER_RANK || l.inputs > ADAPTER_NUMBERS / l.rank || rows > ADAPTER_NUMBERS / l.rank)
        return SKF_OK;
    size_t n_a = l.rank * l.inputs, n_b = rows * l.rank;
    SKF_TRY(skf_area_need(&w->adapter, (n_a + n_b) * sizeof(float)));
    SKF_TRY(skf_area_need(&w->work.low.columns, n_a * sizeof(float)));
    SKF_TRY(skf_area_need(&w->work.low.rows, n_b * sizeof(float)));
    float *x = (float *)(void *)w->adapter.p;
    SKF_TRY(skf_adapter_columns(b->adapter, &l, x, why));
    SKF_TRY(skf_adapter_rows(b->adapter, &l, within / from->row_bytes, rows, x + n_a, why));
    struct try t = {.b = b, .w = w, .tensor = b->tensor_of[i], .c = {.type = from->type, .row_bytes = from->row_bytes},
                    .l = &l, .neu = neu, .n = n, .rows = rows, .a = x, .rows_of_b = x + n_a};
    SKF_TRY(skf_area_view(b->old_source, from->offset + within, n, &w->old, &t.old));
    if (n == b->tensors[t.tensor].bytes)
        return put_alone(&t, best, from->offset + within);
    return put_with_side(&t, best, from->offset + within, why);
}
