/* The forward pass of a decoder of Llama's kind (graph_priv.h). */
#include "runtime/graph_priv.h"

#include <math.h>

#include "base/alloc.h"
#include "runtime/attend_priv.h"
#include "runtime/plan_priv.h"

#define GROUP 16u          /* rows that a kernel likes to have together; tasks are cut at multiples */

struct product { /* y[t * w->rows + r] = w * acts */
    const struct skf_weight *w;
    float *y;
};
struct skf_graph {
    const struct skf_llama *l;
    const struct skf_ops *ops;
    struct skf_pool *pool;
    uint32_t max_batch, context;
    uint8_t *arena; /* what the plan lays out: the buffers below, and those of acts */
    float *x, *h, *heads, *q, *k, *v, *gate, *up, *out; /* [max_batch][...]; x: the stream; h: normed, for a product; out: what it adds */
    struct skf_attend *attend;
    float *low;                           /* [max_batch][3][SKF_LORA_RANK]: what adapters give of a token for each product */
    bool has_lora;                        /* some item has an adapter */
    struct turns {
        float *cs;     /* [context][n_rot]: cosine and sine of each pair, or all cosines and all sines; the first n positions are there */
        double *freqs; /* [n_rot / 2] */
        double scale;  /* of cosines and sines */
        uint32_t n;
    } turns[2];        /* of l->ropes; the second only where a layer has a window */
    struct skf_acts acts;
    /* of the region under way */
    const struct skf_item *items;
    const uint32_t *want;
    uint32_t m, layer, n_tasks;
    const float *norm, *in;
    size_t ld_in;
    bool is_blocks;
    struct product products[3];
    uint32_t n_products;
    const struct skf_graph_watch *watch;
};

/* ---- making ---------------------------------------------------------------------------------------------------------------------------- */
static float *floats(uint64_t a, uint64_t b)
{
    uint64_t n;
    if (__builtin_mul_overflow(a, b, &n) || n > SIZE_MAX / sizeof(float) - 64)
        return NULL;
    return skf_aligned(64, (n + 16) * sizeof(float));
}

static size_t turns_of(const struct skf_llama *l) { return l->n_ropes; }

static bool has_buffers(struct skf_graph *g, const struct skf_plan *p)
{
    const struct skf_llama *l = g->l;
    float **const at[SKF_PLAN_BUFS] = {[SKF_PLAN_X] = &g->x,         [SKF_PLAN_NORMED] = &g->h,  [SKF_PLAN_Q] = &g->q,
                                       [SKF_PLAN_K] = &g->k,         [SKF_PLAN_V] = &g->v,       [SKF_PLAN_HEADS] = &g->heads,
                                       [SKF_PLAN_OUT] = &g->out,     [SKF_PLAN_GATE] = &g->gate, [SKF_PLAN_UP] = &g->up};
    g->arena = skf_aligned(64, p->bytes);
    for (uint32_t i = 0; g->arena && i < SKF_PLAN_BUFS; i++)
        if (at[i])
            *at[i] = (float *)(void *)(g->arena + p->buf[i].at);
    if (g->arena)
        skf_plan_acts(p, l, g->arena, &g->acts);
    g->low = floats((uint64_t)g->max_batch * SKF_COUNT(g->products), SKF_LORA_RANK); /* memory only where there are adapters */
    for (size_t i = 0; i < turns_of(l); i++) {
        g->turns[i].cs = floats(g->context, l->n_rot);
        g->turns[i].freqs = skf_calloc(l->n_rot / 2, sizeof *g->turns[i].freqs);
        if (!g->turns[i].cs || !g->turns[i].freqs)
            return false;
    }
    return g->arena && g->low;
}

enum skf_err skf_graph_open(const struct skf_llama *l, const struct skf_ops *ops, struct skf_pool *pool, uint32_t max_batch,
                            uint32_t context, struct skf_graph **out, struct skf_why *why)
{
    struct skf_plan plan;
    SKF_TRY(skf_plan_make(l, max_batch, &plan, why));
    struct skf_graph *g = skf_calloc(1, sizeof *g);
    if (!g)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a graph");
    g->l = l;
    g->ops = ops;
    g->pool = pool;
    g->max_batch = max_batch;
    g->context = context;
    if (!has_buffers(g, &plan)) {
        skf_graph_close(g);
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a graph over %u tokens", max_batch);
    }
    enum skf_err err = skf_attend_open(l, ops, pool, max_batch, context, &g->attend, why);
    if (err != SKF_OK) {
        skf_graph_close(g);
        return err;
    }
    for (size_t k = 0; k < turns_of(l); k++) {
        skf_rope_freqs(&l->ropes[k], l->n_rot, context, g->turns[k].freqs);
        g->turns[k].scale = l->ropes[k].scale;
    }
    *out = g;
    return SKF_OK;
}

void skf_graph_close(struct skf_graph *g)
{
    if (!g)
        return;
    void *const all[] = {g->arena, g->low, g->turns[0].cs, g->turns[0].freqs, g->turns[1].cs, g->turns[1].freqs};
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        skf_free(all[i]);
    skf_attend_close(g->attend);
    skf_free(g);
}

/* ---- regions: what the threads do together ------------------------------------------------------------------------------------------- */
/* What the adapter of a token of the products under way changes of one of them, and where what it gives of the token stands; NULL: nothing. */
static const struct skf_lora_pair *pair_of(const struct skf_graph *g, uint32_t t, uint32_t product, float **u)
{
    const struct skf_lora *lora = g->items[g->want ? g->want[t] : t].lora;
    if (!lora)
        return NULL;
    const struct skf_lora_pair *p = &lora->pairs[skf_llama_number(g->l, g->layer, g->products[product].w)];
    *u = g->low + ((size_t)t * SKF_COUNT(g->products) + product) * SKF_LORA_RANK;
    return p->rank ? p : NULL;
}

/* A token's row of `in`, normed if there is a norm, becomes one of the products' tokens. */
static void prepare_token(void *ctx, unsigned worker, uint32_t t)
{
    struct skf_graph *g = ctx;
    const float *x = g->in + (g->want ? g->want[t] : t) * g->ld_in;
    if (g->norm) {
        float *y = g->h + (size_t)t * g->acts.n;
        g->ops->rms_norm(x, g->norm, g->acts.n, g->l->eps, y);
        x = y;
    }
    if (g->is_blocks)
        g->ops->quantize(x, g->acts.n, &g->acts, t);
    for (uint32_t i = 0; g->has_lora && i < g->n_products; i++) {
        float *u;
        const struct skf_lora_pair *p = pair_of(g, t, i, &u);
        if (p)
            skf_lora_down(g->ops, p, x, u);
    }
}

static bool is_block_type(const struct skf_weight *w) { return skf_type_info(w->type)->block > 1; }

/* What adapters add to rows row0 .. row1 - 1 of a product. */
static void add_adapters(const struct skf_graph *g, uint32_t product, uint32_t row0, uint32_t row1)
{
    const struct product *x = &g->products[product];
    for (uint32_t t = 0; g->has_lora && t < g->acts.m; t++) {
        float *u;
        const struct skf_lora_pair *p = pair_of(g, t, product, &u);
        if (p)
            skf_lora_up(p, u, row0, row1, x->y + (size_t)t * x->w->rows);
    }
}

/* One task's share of the rows of all products, cut at groups. */
static void multiply_rows(void *ctx, unsigned worker, uint32_t task)
{
    struct skf_graph *g = ctx;
    uint64_t total = 0, before = 0;
    for (uint32_t i = 0; i < g->n_products; i++)
        total += (g->products[i].w->rows + GROUP - 1) / GROUP;
    uint64_t from = total * task / g->n_tasks, to = total * (task + 1) / g->n_tasks;
    for (uint32_t i = 0; i < g->n_products; i++) {
        const struct skf_weight *w = g->products[i].w;
        uint64_t groups = (w->rows + GROUP - 1) / GROUP, a = SKF_MAX(from, before), b = SKF_MIN(to, before + groups);
        if (a < b) {
            uint32_t row0 = (uint32_t)(a - before) * GROUP, row1 = (uint32_t)SKF_MIN((b - before) * GROUP, w->rows);
            g->ops->matmul(w, &g->acts, row0, row1, g->products[i].y, w->rows);
            add_adapters(g, i, row0, row1);
        }
        before += groups;
    }
}

/* Whether anybody wants the products. */
static bool is_wanted(const struct skf_graph *g)
{
    bool is_any = !g->watch;
    for (uint32_t i = 0; g->watch && i < g->n_products; i++)
        is_any |= g->watch->fn(g->watch->ctx, g->products[i].w, g->acts.x, g->acts.m, g->acts.n);
    return is_any;
}

/* products of `in` ([m][n], rows ld_in apart; through g->h when normed); all take the same n. */
static void multiply(struct skf_graph *g, const float *in, const float *norm, uint32_t m, const struct product *p, uint32_t count)
{
    g->acts.m = m;
    g->acts.n = p[0].w->cols;
    g->acts.x = norm ? g->h : in;
    g->acts.ldx = g->acts.n;
    g->in = in;
    g->ld_in = g->acts.n;
    g->norm = norm;
    g->is_blocks = false;
    g->n_products = count;
    uint64_t groups = 0;
    for (uint32_t i = 0; i < count; i++) {
        g->products[i] = p[i];
        g->is_blocks |= is_block_type(p[i].w);
        groups += (p[i].w->rows + GROUP - 1) / GROUP;
    }
    skf_pool_run(g->pool, m, prepare_token, g);
    if (!is_wanted(g))
        return;
    unsigned threads = skf_pool_threads(g->pool);
    g->n_tasks = threads == 1 ? 1 : (uint32_t)SKF_MIN(groups, threads * 8u);
    skf_pool_run(g->pool, g->n_tasks, multiply_rows, g);
}

static void turn_heads(const struct skf_graph *g, const struct skf_llama_layer *y, uint32_t pos, float *q, float *k)
{
    const struct skf_llama *l = g->l;
    if (!y->rope)
        return;
    const float *turn = g->turns[y->rope - l->ropes].cs + (size_t)pos * l->n_rot;
    void (*rope)(float *, uint32_t, uint32_t, uint32_t, const float *) = l->arch->turns_halves ? g->ops->rope_halves : g->ops->rope;
    rope(q, l->n_head, l->head_dim, l->n_rot, turn);
    rope(k, l->n_kv, l->head_dim, l->n_rot, turn);
}

/* A token's queries, keys and values get their biases. */
static void add_biases(const struct skf_graph *g, const struct skf_llama_layer *y, float *q, float *k, float *v)
{
    const struct skf_llama *l = g->l;
    if (!y->q_bias)
        return;
    g->ops->add(q, y->q_bias, l->n_head * l->head_dim);
    g->ops->add(k, y->k_bias, l->n_kv * l->head_dim);
    g->ops->add(v, y->v_bias, l->n_kv * l->head_dim);
}

static void norm_heads(const struct skf_graph *g, float *x, uint32_t heads, const float *norm)
{
    for (uint32_t h = 0; norm && h < heads; h++, x += g->l->head_dim)
        g->ops->rms_norm(x, norm, g->l->head_dim, g->l->eps, x);
}

/* Biases, norms and turns a token's queries and keys and stores its keys and values. */
static void store_token(void *ctx, unsigned worker, uint32_t t)
{
    struct skf_graph *g = ctx;
    const struct skf_llama *l = g->l;
    const struct skf_item *it = &g->items[t];
    const struct skf_llama_layer *y = &l->layers[g->layer];
    float *q = g->q + (size_t)t * l->n_head * l->head_dim;
    float *k = g->k + (size_t)t * l->n_kv * l->head_dim, *v = g->v + (size_t)t * l->n_kv * l->head_dim;
    add_biases(g, y, q, k, v);
    norm_heads(g, q, l->n_head, y->q_norm);
    norm_heads(g, k, l->n_kv, y->k_norm);
    turn_heads(g, y, it->pos, q, k);
    for (uint32_t h = 0; h < l->n_kv; h++) {
        uint8_t *to = it->kv->data[it->pos / SKF_KV_PAGE] + skf_kv_at(it->kv->pool, g->layer, h);
        skf_kv_put(g->ops, skf_kv_type(it->kv->pool), to, it->pos % SKF_KV_PAGE, l->head_dim, k + (size_t)h * l->head_dim, v + (size_t)h * l->head_dim);
    }
}

static void gate_token(void *ctx, unsigned worker, uint32_t t)
{
    struct skf_graph *g = ctx;
    size_t at = (size_t)t * g->l->n_ff;
    (g->l->arch->has_gelu ? g->ops->gelu_mul : g->ops->silu_mul)(g->gate + at, g->up + at, g->l->n_ff);
}

static void add_token(void *ctx, unsigned worker, uint32_t t)
{
    struct skf_graph *g = ctx;
    size_t at = (size_t)t * g->l->n_embd;
    if (g->norm)
        g->ops->rms_norm(g->out + at, g->norm, g->l->n_embd, g->l->eps, g->out + at);
    g->ops->add(g->x + at, g->out + at, g->l->n_embd);
}

/* What a block gave, normed if there is a norm, to the stream. */
static void add(struct skf_graph *g, const float *norm)
{
    g->norm = norm;
    skf_pool_run(g->pool, g->m, add_token, g);
}

static void layer(struct skf_graph *g)
{
    const struct skf_llama_layer *y = &g->l->layers[g->layer];
    multiply(g, g->x, y->attn_norm, g->m, (struct product[]){{&y->q, g->q}, {&y->k, g->k}, {&y->v, g->v}}, 3);
    skf_pool_run(g->pool, g->m, store_token, g);
    skf_attend(g->attend, g->items, g->m, g->layer, g->q, g->heads);
    multiply(g, g->heads, NULL, g->m, (struct product[]){{&y->o, g->out}}, 1);
    add(g, y->attn_post);
    multiply(g, g->x, y->ffn_norm, g->m, (struct product[]){{&y->gate, g->gate}, {&y->up, g->up}}, 2);
    skf_pool_run(g->pool, g->m, gate_token, g);
    multiply(g, g->gate, NULL, g->m, (struct product[]){{&y->down, g->out}}, 1);
    add(g, y->ffn_post);
}

void skf_graph_watch(struct skf_graph *g, const struct skf_graph_watch *watch) { g->watch = watch; }

/* ---- running --------------------------------------------------------------------------------------------------------------------------- */
static void turns_up_to(const struct skf_graph *g, struct turns *t, uint32_t pos)
{
    const uint32_t n = g->l->n_rot;
    const bool is_halves = g->l->arch->turns_halves;
    for (; t->n <= pos; t->n++)
        for (uint32_t i = 0; i < n / 2; i++) {
            double angle = t->n * t->freqs[i];
            float *cs = t->cs + (size_t)t->n * n;
            cs[is_halves ? i : 2 * i] = (float)(t->scale * cos(angle));
            cs[is_halves ? n / 2 + i : 2 * i + 1] = (float)(t->scale * sin(angle));
        }
}

enum skf_err skf_graph_run(struct skf_graph *g, const struct skf_item *items, uint32_t m, const uint32_t *want, uint32_t n_want,
                           float *logits, struct skf_why *why)
{
    const struct skf_llama *l = g->l;
    if (m > g->max_batch || n_want > g->max_batch)
        return skf_fail(why, SKF_ERR_ARG, "%u tokens in a batch of at most %u", m, g->max_batch);
    for (uint32_t t = 0; t < m; t++) {
        if (items[t].token < 0 || (uint32_t)items[t].token >= l->n_vocab || items[t].pos >= g->context)
            return skf_fail(why, SKF_ERR_ARG, "token %d at position %u is out of range", items[t].token, items[t].pos);
        float *x = g->x + (size_t)t * l->n_embd;
        for (size_t k = 0; k < turns_of(l); k++)
            turns_up_to(g, &g->turns[k], items[t].pos);
        SKF_TRY(skf_dequantize(l->embd.type, skf_weight_row(&l->embd, (uint32_t)items[t].token), x, l->n_embd));
        for (uint32_t i = 0; l->embd_scale != 1.0f && i < l->n_embd; i++)
            x[i] *= l->embd_scale;
    }
    g->items = items;
    g->m = m;
    g->want = NULL;
    g->has_lora = false;
    for (uint32_t t = 0; t < m; t++)
        g->has_lora |= items[t].lora != NULL;
    for (g->layer = 0; g->layer < l->n_layers; g->layer++)
        layer(g);
    if (n_want == 0)
        return SKF_OK;
    g->want = want;
    multiply(g, g->x, l->norm, n_want, (struct product[]){{&l->output, logits}}, 1);
    g->want = NULL;
    for (uint32_t i = 0; logits && l->logit_cap > 0 && i < n_want; i++)
        g->ops->soft_cap(logits + (size_t)i * l->n_vocab, l->n_vocab, l->logit_cap);
    return SKF_OK;
}
