/* The small model that guesses (small_priv.h). */
#include "runtime/small_priv.h"

#include "base/alloc.h"
#include "runtime/lanes_priv.h"

#define PORTION    64u                  /* tokens that are made up for in one call */
#define KEEP_BYTES ((uint64_t)16 << 20) /* of keys and values kept for prompts that begin alike */

struct sequence {
    struct skf_kv kv;
    uint64_t handle;
    uint32_t n_done, n_known; /* positions computed; of these, of tokens that were said, before those that were guessed */
    int32_t guessed[SKF_AHEAD_MOST];
    struct skf_sampler sampler; /* a copy: it shares what the request's points to */
};
struct skf_small {
    struct skf_llama *llama;
    struct skf_graph *graph;
    struct skf_pages *pages;
    uint32_t context, slots;
    struct sequence *seq;
    struct skf_item *items;
    uint32_t *want, *wanted_by;
    float *logits; /* [slots][n_vocab] */
    struct skf_candidate *candidates;
    double ns;
};

/* ---- opening ---------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err same_tokens(const struct skf_tokenizer *a, const struct skf_tokenizer *b, struct skf_why *why)
{
    if (skf_tokenizer_size(a) != skf_tokenizer_size(b))
        return skf_fail(why, SKF_ERR_ARG, "it has %u tokens, the model that it is to guess for %u", skf_tokenizer_size(a), skf_tokenizer_size(b));
    for (int32_t i = 0; i < (int32_t)skf_tokenizer_size(a); i++) {
        size_t n, m;
        const char *s = skf_tokenizer_text(a, i, &n), *t = skf_tokenizer_text(b, i, &m);
        if (n != m || memcmp(s, t, n) != 0 || is_tokenizer_stop(a, i) != is_tokenizer_stop(b, i) || is_tokenizer_control(a, i) != is_tokenizer_control(b, i))
            return skf_fail(why, SKF_ERR_ARG, "its token %d is not that of the model that it is to guess for", i);
    }
    return SKF_OK;
}

static enum skf_err open_all(struct skf_small *d, const struct skf_model *m, const struct skf_small_opts *o, struct skf_why *why)
{
    struct skf_tokenizer *tk = NULL;
    const struct skf_gguf *g = skf_model_gguf(m);
    const uint32_t batch = PORTION + o->slots;
    if (!g)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "only GGUF models can be run, this is %s", skf_format_name(skf_model_format(m)));
    SKF_TRY(skf_tokenizer_load(g, &tk, why));
    enum skf_err e = same_tokens(tk, o->tk, why);
    if (e == SKF_OK)
        e = skf_llama_load(m, skf_tokenizer_size(tk), &d->llama, why);
    skf_tokenizer_free(tk);
    SKF_TRY(e);
    SKF_TRY(skf_llama_pack(d->llama, skf_model_source(m), o->ops->isa, skf_pool_threads(o->pool), why));
    SKF_TRY(skf_llama_lanes(d->llama, skf_model_source(m), o->pool, o->repack, why));
    d->context = SKF_MIN(o->context, d->llama->context);
    d->slots = o->slots;
    SKF_TRY(skf_pages_open(d->llama, d->context, KEEP_BYTES, SKF_KV_F16, &d->pages, why));
    SKF_TRY(skf_graph_open(d->llama, o->ops, o->pool, batch, d->context, &d->graph, why));
    d->seq = skf_calloc(o->slots, sizeof *d->seq);
    d->items = skf_calloc(batch, sizeof *d->items);
    d->want = skf_calloc(batch, sizeof *d->want);
    d->wanted_by = skf_calloc(batch, sizeof *d->wanted_by);
    d->logits = skf_calloc((size_t)o->slots * d->llama->n_vocab, sizeof *d->logits);
    d->candidates = skf_calloc(d->llama->n_vocab, sizeof *d->candidates);
    if (!d->seq || !d->items || !d->want || !d->wanted_by || !d->logits || !d->candidates)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u sequences", o->slots);
    return SKF_OK;
}

enum skf_err skf_small_open(const struct skf_model *m, const struct skf_small_opts *o, struct skf_small **out, struct skf_why *why)
{
    struct skf_small *d = skf_calloc(1, sizeof *d);
    if (!d)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a model that guesses");
    enum skf_err e = open_all(d, m, o, why);
    if (e == SKF_OK)
        *out = d;
    else
        skf_small_close(d);
    return e;
}

void skf_small_end(struct skf_small *d, uint32_t slot)
{
    struct sequence *s = &d->seq[slot];
    skf_kv_end(&s->kv, SKF_MIN(s->n_done, s->n_known)); /* guesses are no beginning of anything */
    *s = (struct sequence){0};
}

void skf_small_close(struct skf_small *d)
{
    if (!d)
        return;
    for (uint32_t i = 0; d->seq && i < d->slots; i++)
        skf_small_end(d, i);
    skf_free(d->seq);
    skf_free(d->items);
    skf_free(d->want);
    skf_free(d->wanted_by);
    skf_free(d->logits);
    skf_free(d->candidates);
    skf_graph_close(d->graph);
    skf_pages_close(d->pages);
    skf_llama_free(d->llama);
    skf_free(d);
}

/* ---- guessing ---------------------------------------------------------------------------------------------------------------------------- */
/* What a sequence has said, prompt included. */
static const int32_t *said(const struct skf_small_ask *ask, uint32_t *n)
{
    *n = ask->guess->n - ask->guess->n_told;
    return ask->guess->seen + ask->guess->n_told;
}

/* Brings a sequence up to what was said: what was guessed otherwise counts as not computed. False where nothing can be guessed. */
static bool is_ready(struct skf_small *d, const struct skf_small_ask *ask)
{
    struct sequence *s = &d->seq[ask->slot];
    uint32_t n, j = 0;
    const int32_t *ids = ask->guess->seen ? said(ask, &n) : NULL;
    if (s->kv.pool && s->handle != ask->handle)
        skf_small_end(d, ask->slot);
    if (!ids || n + ask->most >= d->context)
        return false;
    if (!s->kv.pool) {
        if (skf_kv_begin(d->pages, NULL, ids, n, n - 1, &s->kv, &s->n_done, NULL) != SKF_OK)
            return false;
        s->handle = ask->handle;
        s->n_known = s->n_done;
    }
    while (s->n_known + j < SKF_MIN(s->n_done, n - 1) && ids[s->n_known + j] == s->guessed[j])
        j++;
    s->n_done = s->n_known += j;
    return true;
}

static bool has_item(struct skf_small *d, struct sequence *s, uint32_t m, int32_t token)
{
    if (skf_kv_place(&s->kv, s->n_done, token, NULL) != SKF_OK)
        return false;
    d->items[m] = (struct skf_item){token, s->n_done++, &s->kv, NULL};
    return true;
}

/* Adds what a sequence said since it was last asked about, as far as the portion goes. True when its last token is among it. */
static bool has_caught_up(struct skf_small *d, const struct skf_small_ask *ask, uint32_t *left, uint32_t *m)
{
    struct sequence *s = &d->seq[ask->slot];
    uint32_t n;
    const int32_t *ids = said(ask, &n);
    for (; s->n_done < n && *left > 0; ++*m, --*left)
        if (!has_item(d, s, *m, ids[s->n_done]))
            break;
    s->n_known = s->n_done;
    return s->n_done == n;
}

/* Computes d->items[m] and takes a token of each that is wanted, n_want in all. False when something is amiss. */
static bool has_guessed(struct skf_small *d, const struct skf_small_ask *asks, uint32_t m, uint32_t n_want)
{
    if (m > 0 && skf_graph_run(d->graph, d->items, m, d->want, n_want, d->logits, NULL) != SKF_OK)
        return false;
    for (uint32_t i = 0; i < n_want; i++) {
        const struct skf_small_ask *ask = &asks[d->wanted_by[i]];
        struct sequence *s = &d->seq[ask->slot];
        int32_t id = skf_sampler_pick(&s->sampler, d->logits + (size_t)i * d->llama->n_vocab, d->llama->n_vocab, d->candidates);
        if (id < 0)
            return false;
        skf_sampler_saw(&s->sampler, id);
        s->guessed[ask->guess->n_next] = id;
        ask->guess->next[ask->guess->n_next++] = id;
    }
    return true;
}

void skf_small_guess(struct skf_small *d, const struct skf_small_ask *asks, uint32_t n)
{
    const uint64_t begun = skf_now_ns();
    uint32_t m = 0, n_want = 0, left = PORTION, tokens = 0;
    for (uint32_t i = 0; i < n; i++) {
        asks[i].guess->n_next = 0;
        if (!is_ready(d, &asks[i]) || !has_caught_up(d, &asks[i], &left, &m) || asks[i].most == 0)
            continue;
        d->seq[asks[i].slot].sampler = *asks[i].sampler;
        d->want[n_want] = m - 1;
        d->wanted_by[n_want++] = i;
    }
    bool is_good = has_guessed(d, asks, m, n_want);
    for (uint32_t i = 0; i < n; i++) /* what was said can be shared, guesses cannot */
        if (is_good && d->seq[asks[i].slot].kv.pool)
            skf_kv_done(&d->seq[asks[i].slot].kv, d->seq[asks[i].slot].n_known);
    const uint64_t caught_up = skf_now_ns();
    const bool is_more = m > 2 * n; /* making up for a prompt is no part of what a guess costs */
    while (is_good && n_want > 0) {
        uint32_t more = 0;
        tokens += n_want;
        m = 0;
        for (uint32_t i = 0; i < n_want; i++) {
            const struct skf_small_ask *ask = &asks[d->wanted_by[i]];
            if (ask->guess->n_next >= ask->most || !has_item(d, &d->seq[ask->slot], m, ask->guess->next[ask->guess->n_next - 1]))
                continue;
            d->wanted_by[more] = d->wanted_by[i];
            d->want[more++] = m++;
        }
        n_want = more;
        is_good = has_guessed(d, asks, m, n_want);
    }
    const uint64_t ns = skf_now_ns() - (is_more ? caught_up : begun);
    for (uint32_t i = 0; i < n; i++) {
        if (!is_good) { /* nobody knows what is computed of it */
            asks[i].guess->n_next = 0;
            d->seq[asks[i].slot].n_known = 0;
            skf_small_end(d, asks[i].slot);
        }
        skf_guess_set(asks[i].guess);
    }
    if (tokens > 0)
        d->ns += ((double)ns / tokens - d->ns) / (d->ns > 0 ? 16 : 1);
}

double skf_small_ns(const struct skf_small *d) { return d->ns; }
