/* Opening a model for generation, and its text (engine.h). */
#include "runtime/engine_priv.h"
#include "runtime/lanes_priv.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"

#define CONTEXT_MOST 4096u /* unless a caller asks for more */
#define CACHE_BYTES  ((uint64_t)64 << 20)

static enum skf_err open_lock(struct skf_engine *e)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr))
        return SKF_ERR_NOMEM;
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int sys = pthread_mutex_init(&e->lock, NULL);
    if (sys == 0) {
        sys = pthread_cond_init(&e->changed, &attr);
        if (sys)
            (void)pthread_mutex_destroy(&e->lock);
    }
    (void)pthread_condattr_destroy(&attr);
    e->is_locked = sys == 0;
    return sys ? SKF_ERR_NOMEM : SKF_OK;
}

static enum skf_err open_buffers(struct skf_engine *e, struct skf_why *why)
{
    e->max_want = e->n_slots + (e->max_ahead ? SKF_DRAFTS : 0);
    e->max_batch = SKF_PORTION + e->max_want;
    SKF_TRY(skf_graph_open(e->llama, e->ops, e->pool, e->max_batch, e->context, &e->graph, why));
    e->slots = skf_calloc(e->n_slots, sizeof *e->slots);
    e->logits = skf_calloc((size_t)e->max_want * e->llama->n_vocab, sizeof *e->logits);
    e->candidates = skf_calloc(e->llama->n_vocab, sizeof *e->candidates);
    e->raw = skf_calloc(e->llama->n_vocab, sizeof *e->raw);
    e->items = skf_calloc(e->max_batch, sizeof *e->items);
    e->want = skf_calloc(e->max_batch, sizeof *e->want);
    e->wanted_by = skf_calloc(e->max_batch, sizeof *e->wanted_by);
    if (!e->slots || !e->logits || !e->candidates || !e->raw || !e->items || !e->want || !e->wanted_by)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %u sequences", e->n_slots);
    return SKF_OK;
}

/* What was left to us. */
static enum skf_err set_opts(struct skf_engine *e, const struct skf_engine_opts *o, struct skf_why *why)
{
    struct skf_engine_opts *to = &e->opts;
    *to = *o;
    to->waiting = o->waiting ? o->waiting : 256;
    to->waiting_tokens = o->waiting_tokens ? o->waiting_tokens : 1u << 18;
    to->gap = o->gap ? o->gap : 175;
    to->portion = o->portion ? o->portion : SKF_PORTION;
    to->gather_busy_ms = o->gather_busy_ms ? SKF_MAX(o->gather_busy_ms, 0) : 5;
    to->gather_idle_ms = o->gather_idle_ms ? SKF_MAX(o->gather_idle_ms, 0) : 20;
    e->n_slots = o->slots ? o->slots : 4;
    if (to->portion > SKF_PORTION || to->gap < 100 || to->gap > 10000 || to->gather_busy_ms > 1000 || to->gather_idle_ms > 1000)
        return skf_fail(why, SKF_ERR_ARG, "a portion has at most %u tokens, a step takes 100 to 10,000 percent, gathering at most 1,000 ms", SKF_PORTION);
    return SKF_OK;
}

static enum skf_err open_small(struct skf_engine *e, const struct skf_engine_opts *o, struct skf_why *why)
{
    const struct skf_small_opts small = {e->tk, e->ops, e->pool, o->repack == SKF_REPACK_SHARED ? SKF_REPACK_AUTO : o->repack, e->context, e->n_slots};
    if (!o->draft || !e->max_ahead)
        return SKF_OK;
    enum skf_err err = skf_small_open(o->draft, &small, &e->small, why);
    return err == SKF_OK ? err : skf_fail_prefix(why, err, "guessing with %.200s", o->draft_name ? o->draft_name : "a small model");
}

static enum skf_err open_all(struct skf_engine *e, const struct skf_model *m, const struct skf_engine_opts *o, struct skf_why *why)
{
    enum skf_isa isa;
    const struct skf_gguf *g = skf_model_gguf(m);
    if (!g)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "only GGUF models can be run, this is %s", skf_format_name(skf_model_format(m)));
    SKF_TRY(skf_isa_pick(&isa, why));
    e->ops = skf_ops_get(isa);
    if (!e->ops)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "this build has no kernels for %s", skf_isa_name(isa));
    SKF_TRY(skf_tokenizer_load(g, &e->tk, why));
    SKF_TRY(skf_llama_load(m, skf_tokenizer_size(e->tk), &e->llama, why));
    (void)is_gguf_str(g, "tokenizer.chat_template", &e->template);
    e->context = SKF_MIN(o->context ? o->context : CONTEXT_MOST, e->llama->context);
    SKF_TRY(set_opts(e, o, why));
    e->max_ahead = o->speculate < 0 ? 0 : o->speculate == 0 ? 8 : SKF_MIN((uint32_t)o->speculate, SKF_AHEAD_MOST);
    unsigned threads = o->threads ? o->threads : skf_cpu_count();
    if (e->n_slots > SKF_SLOTS_MAX || threads > 256)
        return skf_fail(why, SKF_ERR_ARG, "at most %u sequences and 256 threads", SKF_SLOTS_MAX);
    SKF_TRY(skf_pool_open(threads, &e->pool, why));
    SKF_TRY(skf_llama_pack(e->llama, skf_model_source(m), isa, threads, why));
    if (o->kept && o->repack != SKF_REPACK_OFF)
        skf_llama_kept(e->llama, skf_model_source(m), o->kept, o->repack, threads);
    SKF_TRY(skf_llama_lanes(e->llama, skf_model_source(m), e->pool, o->repack, why));
    if (open_lock(e) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a lock");
    uint64_t keep = o->cache ? o->cache : CACHE_BYTES;
    SKF_TRY(skf_pages_open(e->llama, e->context, o->memory ? SKF_MIN(keep, o->memory) : keep,
                           o->is_cache_q8 ? SKF_KV_Q8_0 : SKF_KV_F16, &e->pages, why));
    if (o->spill)
        SKF_TRY(skf_pages_spill(e->pages, o->spill_dir, o->spill, why));
    skf_pages_limit(e->pages, e->opts.memory);
    SKF_TRY(open_small(e, o, why));
    if (skf_grammars_new(e->tk, &e->grammars) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for grammars");
    return open_buffers(e, why);
}

enum skf_err skf_engine_open(const struct skf_model *m, const struct skf_engine_opts *o, struct skf_engine **out,
                             struct skf_why *why)
{
    struct skf_engine *e = skf_calloc(1, sizeof *e);
    if (!e)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for an engine");
    e->waiting_end = &e->waiting;
    e->model = m;
    enum skf_err err = open_all(e, m, o, why);
    if (err == SKF_OK)
        *out = e;
    else
        skf_engine_close(e);
    return err;
}

void skf_engine_close(struct skf_engine *e)
{
    if (!e)
        return;
    while (e->waiting) {
        struct skf_request *r = e->waiting;
        e->waiting = r->next;
        skf_request_free(r);
    }
    for (uint32_t i = 0; e->slots && i < e->n_slots; i++) {
        skf_request_free(e->slots[i].r);
        skf_kv_end(&e->slots[i].kv, 0);
    }
    skf_engine_adapters_close(e);
    if (e->is_locked) {
        (void)pthread_cond_destroy(&e->changed);
        (void)pthread_mutex_destroy(&e->lock);
    }
    skf_free(e->slots);
    skf_free(e->logits);
    skf_free(e->candidates);
    skf_free(e->raw);
    skf_grammars_free(e->grammars);
    skf_free(e->items);
    skf_free(e->want);
    skf_free(e->wanted_by);
    skf_small_close(e->small);
    skf_graph_close(e->graph);
    skf_pages_close(e->pages);
    skf_pool_close(e->pool);
    skf_llama_free(e->llama);
    skf_tokenizer_free(e->tk);
    skf_free(e);
}

void skf_engine_cache(const struct skf_engine *e, struct skf_engine_cache *c)
{
    struct skf_pages_stats s;
    skf_pages_stats(e->pages, &s);
    *c = (struct skf_engine_cache){s.bytes, s.kept_bytes, s.pinned, s.pinned_bytes, s.aside_bytes, s.asked, s.shared + s.copied, s.evicted,
                                    s.from_aside, s.spilled, s.read_back};
}

const char *skf_engine_cache_type(const struct skf_engine *e) { return skf_kv_type_name(skf_kv_type(e->pages)); }
const char *skf_engine_isa(const struct skf_engine *e) { return skf_isa_name(e->ops->isa); }
unsigned skf_engine_threads(const struct skf_engine *e) { return skf_pool_threads(e->pool); }
unsigned skf_engine_context(const struct skf_engine *e) { return e->context; }
void skf_engine_packed(const struct skf_engine *e, struct skf_engine_packed *p) { skf_llama_packed(e->llama, p); }
unsigned skf_engine_vocab(const struct skf_engine *e) { return e->llama->n_vocab; }

enum skf_err skf_engine_tokenize(const struct skf_engine *e, const char *text, size_t n, bool add_bos, int32_t **ids,
                                 size_t *n_ids, struct skf_why *why)
{
    return skf_tokenizer_encode(e->tk, text, n, add_bos, ids, n_ids, why);
}

const char *skf_engine_token(const struct skf_engine *e, int32_t id, size_t *n) { return skf_tokenizer_text(e->tk, id, n); }

bool is_engine_stop(const struct skf_engine *e, int32_t id) { return is_tokenizer_stop(e->tk, id); }

/* What keys and values are computed with: they count only for the same. */
static void cache_key(const struct skf_engine *e, const uint8_t model[SKF_DIGEST], uint8_t key[SKF_DIGEST])
{
    const struct skf_llama *l = e->llama;
    uint8_t all[SKF_DIGEST + 7 * 4];
    const uint32_t sizes[7] = {SKF_ARITHMETIC, SKF_KV_PAGE, skf_kv_type(e->pages), l->n_layers, l->n_kv, l->head_dim,
                               is_rope_long(&l->ropes[0], e->context)};
    memcpy(all, model, SKF_DIGEST);
    for (size_t i = 0; i < SKF_COUNT(sizes); i++)
        skf_put_le32(all + SKF_DIGEST + 4 * i, sizes[i]);
    skf_sha256(all, sizeof all, key);
}

enum skf_err skf_engine_cache_save(struct skf_engine *e, const char *path, const uint8_t model[SKF_DIGEST], struct skf_why *why)
{
    uint8_t key[SKF_DIGEST];
    cache_key(e, model, key);
    return skf_pages_save(e->pages, path, key, why);
}

enum skf_err skf_engine_cache_load(struct skf_engine *e, const char *path, const uint8_t model[SKF_DIGEST], uint32_t *pages, struct skf_why *why)
{
    uint8_t key[SKF_DIGEST];
    cache_key(e, model, key);
    return skf_pages_load(e->pages, path, key, pages, why);
}
