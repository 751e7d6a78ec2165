/*
 * Coding 5 from the publisher's side: when an adapter is at hand, each of its tensors is merged as a receiver will merge it, and what
 * comes out is compared with the new version.  Where that is no merge of any kind we know, the ordinary codings have the chunk.
 */
#include <string.h>

#include "delta/adapter_priv.h"
#include "delta/build_priv.h"

enum { UNSEEN, HAS_SIDE, HAS_NONE };
/* More bytes of a chunk than one of so many that differ from the merge: it is another change than the adapter's. */
#define STRANGE 8

enum skf_err adapter_put_a(struct skf_work *w, const struct adapter_a *a, struct skf_buf *out)
{
    uint32_t scale;
    memcpy(&scale, &a->scale, sizeof scale);
    SKF_TRY(skf_put_varint(out, a->rank));
    SKF_TRY(skf_buf_u32(out, scale));
    return adapter_put_numbers(w, a->x, a->rank * a->inputs, out);
}

static enum skf_err load_a(const struct build *b, struct skf_work *w, const struct skf_low_rank *l, struct adapter_a *a,
                           struct skf_why *why)
{
    w->low.is_kept = false;
    SKF_TRY(skf_area_need(&w->low.columns, l->rank * l->inputs * sizeof(float)));
    float *x = (float *)(void *)w->low.columns.p;
    *a = (struct adapter_a){l->rank, l->inputs, l->scale, x};
    return skf_adapter_columns(b->adapter, l, x, why);
}

/* The columns as the tensor's side, once. */
static enum skf_err make_side(struct build *b, struct skf_work *w, uint32_t t, const struct skf_low_rank *l,
                              struct skf_why *why)
{
    struct skf_buf out = SKF_BUF_INIT(SKF_SIDE_MAX);
    struct adapter_a a;
    enum skf_err e = load_a(b, w, l, &a, why);
    if (e == SKF_OK)
        e = adapter_put_a(w, &a, &out);
    if (e == SKF_OK)
        e = build_add_side(b, t, SKF_CODE_ADAPTER, out.data, out.len, why);
    b->adapted[t] = e == SKF_OK ? HAS_SIDE : HAS_NONE;
    skf_buf_free(&out);
    return e == SKF_ERR_LIMIT ? SKF_OK : e;
}

/* A of the tensor, and in c the side that it comes from: none when the tensor is one chunk. `a->rank` is 0 when it cannot be sent. */
static enum skf_err get_a(struct build *b, struct skf_work *w, uint32_t t, const struct skf_low_rank *l,
                          struct adapter_chunk *c, bool is_alone, struct adapter_a *a, struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    a->rank = 0;
    if (is_alone)
        return load_a(b, w, l, a, why);
    (void)pthread_mutex_lock(&b->adapter_lock);
    if (b->adapted[t] == UNSEEN && b->sides[t].n)
        b->adapted[t] = HAS_NONE;
    if (b->adapted[t] == UNSEEN)
        e = make_side(b, w, t, l, why);
    bool has_side = b->adapted[t] == HAS_SIDE;
    (void)pthread_mutex_unlock(&b->adapter_lock);
    if (e != SKF_OK || !has_side)
        return e;
    c->side = b->sides[t].p;
    c->side_n = b->sides[t].n;
    c->side_digest = b->sides[t].digest;
    return adapter_side_a(w, c, l->inputs, a);
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
    bool is_plain = t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16;
    return rule == ADAPTER_CARRIED || (rule == ADAPTER_NEAREST && !is_plain) ||
           (rule == ADAPTER_TWICE && is_plain && t != SKF_T_F32);
}

/* The rule that comes closest, in w->check; *left is SIZE_MAX when none does. */
static enum skf_err merge_best(struct build_worker *w, const struct adapter_chunk *c, const struct adapter_a *a,
                               const uint8_t *old, const uint8_t *neu, size_t n, unsigned *rule, size_t *left)
{
    const float *rows = (const float *)(const void *)w->work.low.rows.p;
    unsigned last = ADAPTER_RULES;
    *left = SIZE_MAX;
    SKF_TRY(skf_area_need(&w->check, n));
    for (unsigned r = 0; r < ADAPTER_RULES && *left; r++) {
        if (!is_rule_for((enum adapter_rule)r, c->type))
            continue;
        enum skf_err e = adapter_merge(&w->work, (enum adapter_rule)r, c->type, c->row_bytes, a, rows, old, w->check.p, n);
        if (e == SKF_ERR_FORMAT) /* not finite */
            continue;
        SKF_TRY(e);
        last = r;
        size_t d = differing(w->check.p, neu, n);
        if (d < *left) {
            *left = d;
            *rule = r;
        }
    }
    if (*left == SIZE_MAX || last == *rule)
        return SKF_OK;
    return adapter_merge(&w->work, (enum adapter_rule)*rule, c->type, c->row_bytes, a, rows, old, w->check.p, n);
}

/* Into w->out, whose limit is set. */
static enum skf_err put_chunk(struct build_worker *w, const struct adapter_chunk *c, const struct adapter_a *a, unsigned rule,
                              size_t left, const uint8_t *neu, size_t n)
{
    SKF_TRY(skf_buf_u8(&w->out, (uint8_t)(rule | (left ? FIX_INT : FIX_NONE) << ADAPTER_FIX_AT)));
    if (!c->side)
        SKF_TRY(adapter_put_a(&w->work, a, &w->out));
    SKF_TRY(adapter_put_numbers(&w->work, (const float *)(const void *)w->work.low.rows.p, n / c->row_bytes * a->rank,
                                &w->out));
    return left ? skf_int_put(&w->work, c->type, c->row_bytes, NULL, 0, w->check.p, neu, n, &w->out) : SKF_OK;
}

static enum skf_err take(struct build_worker *w, const struct adapter_chunk *c, const uint8_t *old, const uint8_t *neu, size_t n)
{
    /* As with every coding: what is published must come out. */
    enum skf_err e = adapter_get(&w->work, c, w->out.data, w->out.len, old, w->check.p, n);
    if (e == SKF_ERR_NOMEM)
        return e;
    if (e != SKF_OK || memcmp(w->check.p, neu, n) != 0)
        return SKF_ERR_INTERNAL;
    SKF_TRY(skf_area_need(&w->best, n));
    memcpy(w->best.p, w->out.data, w->out.len);
    return SKF_OK;
}

enum skf_err build_try_adapter(struct build *b, struct build_worker *w, uint64_t i, const struct skf_tensor *from,
                               uint64_t within, const uint8_t *neu, size_t n, struct candidate *best, struct skf_why *why)
{
    uint32_t t = b->tensor_of[i];
    struct adapter_chunk c = {.type = from->type, .row_bytes = from->row_bytes};
    struct skf_low_rank l;
    struct adapter_a a;
    const uint8_t *old;
    unsigned rule = 0;
    size_t left;
    if (!b->adapter || !is_adapter_shape(from->type, from->row_bytes, within, n) || n > from->bytes - within || best->n < 2)
        return SKF_OK;
    SKF_TRY(skf_adapter_find(b->adapter, from, &l, why));
    uint64_t rows = n / from->row_bytes;
    if (!l.rank || l.rank > ADAPTER_RANK || l.inputs > ADAPTER_NUMBERS / l.rank || rows > ADAPTER_NUMBERS / l.rank)
        return SKF_OK;
    SKF_TRY(get_a(b, &w->work, t, &l, &c, n == b->tensors[t].bytes, &a, why));
    if (!a.rank)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->work.low.rows, rows * l.rank * sizeof(float)));
    SKF_TRY(skf_adapter_rows(b->adapter, &l, within / from->row_bytes, rows, (float *)(void *)w->work.low.rows.p, why));
    SKF_TRY(skf_area_view(b->old_source, from->offset + within, n, &w->old, &old));
    SKF_TRY(merge_best(w, &c, &a, old, neu, n, &rule, &left));
    if (left > n / STRANGE)
        return SKF_OK;
    skf_buf_clear(&w->out);
    w->out.limit = best->n - 1;
    enum skf_err e = put_chunk(w, &c, &a, rule, left, neu, n);
    if (e == SKF_OK)
        e = take(w, &c, old, neu, n);
    if (e == SKF_OK)
        *best = (struct candidate){SKF_CODE_ADAPTER, w->out.len, from->offset + within, n};
    return e == SKF_ERR_LIMIT ? SKF_OK : e;
}
