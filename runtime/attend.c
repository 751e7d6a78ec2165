/* Attention of a batch (attend_priv.h). */
#include "runtime/attend_priv.h"

#include "base/alloc.h"
#include "runtime/graph_priv.h"

#define WORTH 65536u /* products below which one thread does it all: waking another costs more */

/* Tokens that follow one another in one sequence. */
struct block {
    uint32_t t, n;
};
struct skf_attend {
    const struct skf_llama *l;
    const struct skf_ops *ops;
    struct skf_pool *pool;
    uint32_t group;    /* heads that share keys and are computed together */
    uint32_t chunks;   /* of so many groups are all that share a key */
    size_t part;       /* floats of one span of one row */
    float *scratch;    /* [threads][per_thread]: a tile; parts of SKF_ATTN_ROWS rows; what they come to */
    size_t per_thread;
    float *parts;      /* [n_parts][part]: where spans are shared out */
    size_t n_parts;
    struct block *blocks; /* [max_batch] */
    /* of the call under way */
    const struct skf_item *items;
    const float *q;
    float *out;
    uint32_t layer, n_blocks, n_spans; /* n_spans: of the longest row, where spans are shared out; otherwise 0 */
    uint32_t window;
};

enum skf_err skf_attend_open(const struct skf_llama *l, const struct skf_ops *ops, struct skf_pool *pool, uint32_t max_batch,
                             uint32_t context, struct skf_attend **out, struct skf_why *why)
{
    struct skf_attend *a = skf_calloc(1, sizeof *a);
    if (!a)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for attention");
    uint32_t share = l->n_head / l->n_kv;
    *a = (struct skf_attend){.l = l, .ops = ops, .pool = pool, .group = SKF_MIN(share, SKF_ATTN_ROWS)};
    a->chunks = (share + a->group - 1) / a->group;
    a->part = (SKF_ATTN_PART + l->head_dim + 15) / 16 * 16;
    a->per_thread = (size_t)2 * SKF_KV_PAGE * l->head_dim + 2 * SKF_ATTN_ROWS * a->part;
    a->n_parts = skf_pool_threads(pool) == 1 ? 0 : (size_t)2 * l->n_head * (context / SKF_KV_SPAN + 1);
    a->scratch = skf_aligned(64, skf_pool_threads(pool) * a->per_thread * sizeof *a->scratch);
    a->parts = skf_aligned(64, SKF_MAX(a->n_parts, 1u) * a->part * sizeof *a->parts);
    a->blocks = skf_calloc(max_batch, sizeof *a->blocks);
    if (a->scratch && a->parts && a->blocks) {
        *out = a;
        return SKF_OK;
    }
    skf_attend_close(a);
    return skf_fail(why, SKF_ERR_NOMEM, "no memory for attention over %u positions", context);
}

void skf_attend_close(struct skf_attend *a)
{
    if (!a)
        return;
    skf_free(a->scratch);
    skf_free(a->parts);
    skf_free(a->blocks);
    skf_free(a);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------------------ */
/* One task: a block's rows of some heads that share a key. */
struct part_of {
    const struct block *b;
    uint32_t kv, head, heads, n; /* the key's head; the first query's head, their number; rows */
};
static struct part_of task_of(const struct skf_attend *a, uint32_t task)
{
    uint32_t share = a->l->n_head / a->l->n_kv, per_block = a->l->n_kv * a->chunks, k = task % per_block;
    struct part_of x = {.b = &a->blocks[task / per_block], .kv = k / a->chunks};
    uint32_t from = k % a->chunks * a->group;
    x.head = x.kv * share + from;
    x.heads = SKF_MIN(a->group, share - from);
    x.n = x.b->n * x.heads;
    return x;
}

static size_t place_of(const struct skf_attend *a, const struct part_of *x, uint32_t r)
{
    return ((size_t)(x->b->t + r / x->heads) * a->l->n_head + x->head + r % x->heads) * a->l->head_dim;
}

static void make_rows(const struct skf_attend *a, const struct part_of *x, float *parts, struct skf_attn_row *rows)
{
    for (uint32_t r = 0; r < x->n; r++) {
        uint32_t end = a->items[x->b->t + r / x->heads].pos + 1;
        rows[r] = (struct skf_attn_row){a->q + place_of(a, x, r), parts + r * a->part, a->window && end > a->window ? end - a->window : 0, end};
    }
}

static struct skf_kv_head head_of(const struct skf_attend *a, const struct part_of *x)
{
    const struct skf_kv *kv = a->items[x->b->t].kv;
    return (struct skf_kv_head){kv->data, skf_kv_at(kv->pool, a->layer, x->kv), skf_kv_type(kv->pool), a->l->head_dim, a->l->attn_scale,
                                a->l->attn_cap};
}

static bool has_span(const struct skf_attn_row *r, uint32_t span)
{
    return r->first < (span + 1) * SKF_KV_SPAN && r->end > span * SKF_KV_SPAN;
}

/* The span of `more` joins what came before it. */
static void join(const struct skf_attend *a, const struct skf_attn_row *r, uint32_t span, float *to, const float *more)
{
    if (r->first / SKF_KV_SPAN == span)
        memcpy(to, more, (SKF_ATTN_PART + a->l->head_dim) * sizeof *to);
    else
        skf_attn_join(to, more, a->l->head_dim);
}

/* A task's rows over all spans, one after the other. */
static void attend_task(void *ctx, unsigned worker, uint32_t task)
{
    const struct skf_attend *a = ctx;
    const struct part_of x = task_of(a, task);
    const struct skf_kv_head kv = head_of(a, &x);
    float *tile = a->scratch + worker * a->per_thread, *parts = tile + (size_t)2 * SKF_KV_PAGE * a->l->head_dim,
          *sums = parts + SKF_ATTN_ROWS * a->part;
    struct skf_attn_row rows[SKF_ATTN_ROWS];
    make_rows(a, &x, parts, rows);
    for (uint32_t span = rows[0].first / SKF_KV_SPAN; span <= (rows[x.n - 1].end - 1) / SKF_KV_SPAN; span++) {
        a->ops->attention(&kv, rows, x.n, span, tile);
        for (uint32_t r = 0; r < x.n; r++)
            if (has_span(&rows[r], span))
                join(a, &rows[r], span, sums + r * a->part, rows[r].part);
    }
    for (uint32_t r = 0; r < x.n; r++)
        skf_attn_finish(sums + r * a->part, a->l->head_dim, a->out + place_of(a, &x, r));
}

/* One span of a task's rows, to a place of its own. */
static void attend_span(void *ctx, unsigned worker, uint32_t i)
{
    const struct skf_attend *a = ctx;
    uint32_t task = i / a->n_spans, span = i % a->n_spans;
    const struct part_of x = task_of(a, task);
    const struct skf_kv_head kv = head_of(a, &x);
    struct skf_attn_row rows[SKF_ATTN_ROWS];
    make_rows(a, &x, a->parts + ((size_t)task * a->n_spans + span) * a->group * a->part, rows);
    a->ops->attention(&kv, rows, x.n, span, a->scratch + worker * a->per_thread);
}

static void join_spans(struct skf_attend *a, uint32_t task)
{
    const struct part_of x = task_of(a, task);
    struct skf_attn_row rows[SKF_ATTN_ROWS];
    for (uint32_t span = 0; span < a->n_spans; span++) {
        make_rows(a, &x, a->parts + ((size_t)task * a->n_spans + span) * a->group * a->part, rows);
        for (uint32_t r = 0; r < x.n; r++)
            if (has_span(&rows[r], span))
                join(a, &rows[r], span, a->scratch + r * a->part, rows[r].part);
    }
    for (uint32_t r = 0; r < x.n; r++)
        skf_attn_finish(a->scratch + r * a->part, a->l->head_dim, a->out + place_of(a, &x, r));
}

/* ---- the batch ------------------------------------------------------------------------------------------------------------------------- */
/* Long blocks share what is made of a page; but each thread is to have some. */
static void cut(struct skf_attend *a, uint32_t m)
{
    const uint32_t per_token = a->l->n_kv * a->chunks, wanted = 2 * skf_pool_threads(a->pool), blocks = (wanted + per_token - 1) / per_token;
    const uint32_t most = SKF_MAX(SKF_MIN(SKF_ATTN_ROWS / a->group, (m + blocks - 1) / blocks), 1u);
    a->n_blocks = 0;
    for (uint32_t t = 0; t < m; t++) {
        struct block *b = a->n_blocks ? &a->blocks[a->n_blocks - 1] : NULL;
        if (b && b->n < most && a->items[t].kv == a->items[t - 1].kv && a->items[t].pos == a->items[t - 1].pos + 1)
            b->n++;
        else
            a->blocks[a->n_blocks++] = (struct block){t, 1};
    }
}

void skf_attend(struct skf_attend *a, const struct skf_item *items, uint32_t m, uint32_t layer, const float *q, float *out)
{
    uint64_t work = 0;
    uint32_t end = 0, longest = 1;
    a->items = items;
    a->q = q;
    a->out = out;
    a->layer = layer;
    a->window = a->l->layers[layer].window;
    cut(a, m);
    for (uint32_t t = 0; t < m; t++) {
        work += (uint64_t)(items[t].pos + 1) * a->l->n_head * a->l->head_dim;
        end = SKF_MAX(end, items[t].pos + 1);
    }
    for (uint32_t b = 0; b < a->n_blocks; b++)
        longest = SKF_MAX(longest, a->blocks[b].n);
    uint32_t tasks = a->n_blocks * a->l->n_kv * a->chunks, threads = skf_pool_threads(a->pool), spans = (end - 1) / SKF_KV_SPAN + 1;
    bool is_shared = threads > 1 && work >= WORTH && tasks < 4 * threads && longest == 1 && spans > 1 &&
                     (size_t)tasks * spans * a->group <= a->n_parts;
    a->n_spans = is_shared ? spans : 0;
    if (is_shared) {
        skf_pool_run(a->pool, tasks * spans, attend_span, a);
        for (uint32_t i = 0; i < tasks; i++)
            join_spans(a, i);
    } else if (work >= WORTH) {
        skf_pool_run(a->pool, tasks, attend_task, a);
    } else {
        for (uint32_t i = 0; i < tasks; i++)
            attend_task(a, 0, i);
    }
}
