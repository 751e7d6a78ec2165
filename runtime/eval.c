/* Evaluating a model: log-probabilities, the self-check, the bench (engine.h). Each uses keys and values of its own. */
#include <math.h>

#include "base/alloc.h"
#include "runtime/engine_priv.h"

static enum skf_err check_ids(const struct skf_engine *e, const int32_t *ids, size_t n, struct skf_why *why)
{
    if (n > e->context)
        return skf_fail(why, SKF_ERR_LIMIT, "%zu tokens, the context holds %u", n, e->context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= e->llama->n_vocab)
            return skf_fail(why, SKF_ERR_ARG, "token %d is not one of this model's", ids[i]);
    return SKF_OK;
}

static enum skf_err logprob(const struct skf_engine *e, const float *logits, int32_t id, double *out, struct skf_why *why)
{
    uint32_t n = e->llama->n_vocab;
    float max = logits[0];
    for (uint32_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    *out = (double)logits[id] - max - log((double)e->ops->sum_exp(logits, n, max));
    return isfinite(*out) ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "the model's weights give no finite numbers");
}

/* One portion of a sequence, with every logit of its first n_want tokens. */
static enum skf_err run_portion(struct skf_engine *e, struct skf_kv *kv, const int32_t *ids, uint32_t from, uint32_t m,
                                uint32_t n_want, float *logits, struct skf_why *why)
{
    struct skf_item items[SKF_PORTION];
    uint32_t want[SKF_PORTION];
    for (uint32_t i = 0; i < m; i++) {
        items[i] = (struct skf_item){ids[from + i], from + i, kv, e->evaluated};
        want[i] = i;
        SKF_TRY(skf_kv_place(kv, from + i, ids[from + i], why));
    }
    return skf_graph_run(e->graph, items, m, want, n_want, logits, why);
}

enum skf_err skf_engine_logprobs(struct skf_engine *e, const int32_t *ids, size_t n, double *out, struct skf_why *why)
{
    struct skf_kv kv = {0};
    float *logits = NULL;
    enum skf_err err;
    if (n < 2)
        return SKF_OK;
    SKF_TRY(check_ids(e, ids, n, why));
    SKF_TRY(skf_kv_private(e->pages, &kv, why));
    logits = skf_calloc((size_t)SKF_PORTION * e->llama->n_vocab, sizeof *logits);
    err = logits ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "no memory for the logits of %u tokens", SKF_PORTION);
    for (uint32_t from = 0; err == SKF_OK && from < n - 1; from += SKF_PORTION) { /* the last token predicts nothing */
        uint32_t m = (uint32_t)SKF_MIN(n - 1 - from, SKF_PORTION);
        err = run_portion(e, &kv, ids, from, m, m, logits, why);
        for (uint32_t i = 0; err == SKF_OK && i < m; i++)
            err = logprob(e, logits + (size_t)i * e->llama->n_vocab, ids[from + i + 1], &out[from + i], why);
    }
    skf_free(logits);
    skf_kv_end(&kv, 0);
    return err;
}

enum skf_err skf_engine_check(struct skf_engine *e, struct skf_why *why)
{
    int32_t ids[8];
    double out[8];
    uint32_t n = SKF_MIN(SKF_COUNT(ids), e->context);
    for (uint32_t i = 0; i < n; i++) /* spread over the vocabulary */
        ids[i] = (int32_t)((uint64_t)e->llama->n_vocab * i / n);
    return skf_engine_logprobs(e, ids, n, out, why);
}

static enum skf_err bench_prefill(struct skf_engine *e, struct skf_kv *kv, uint32_t n, float *logits, uint64_t *ns,
                                  struct skf_why *why)
{
    int32_t ids[SKF_PORTION];
    uint64_t begun = skf_now_ns();
    for (uint32_t from = 0; from < n; from += SKF_PORTION) {
        struct skf_item items[SKF_PORTION];
        uint32_t m = SKF_MIN(n - from, SKF_PORTION), last = m - 1;
        for (uint32_t i = 0; i < m; i++) {
            ids[i] = (int32_t)((100 + from + i) % e->llama->n_vocab);
            items[i] = (struct skf_item){ids[i], from + i, kv, e->evaluated};
            SKF_TRY(skf_kv_place(kv, from + i, ids[i], why));
        }
        SKF_TRY(skf_graph_run(e->graph, items, m, &last, from + m == n, logits, why));
    }
    *ns = skf_now_ns() - begun;
    return SKF_OK;
}

/* Behind `depth` positions whose keys and values are zeros, which takes as long as behind any. */
static enum skf_err bench_decode(struct skf_engine *e, struct skf_kv *kv, uint32_t n, uint32_t depth, uint32_t streams, uint64_t *ns,
                                 struct skf_why *why)
{
    struct skf_sampler greedy;
    skf_sampler_init(&greedy, 0, 0, 1, 1, 0);
    uint64_t begun = 0;
    for (uint32_t s = 0; s < streams; s++)
        for (uint32_t i = 0; i < depth; i++)
            SKF_TRY(skf_kv_place(&kv[s], i, 0, why));
    for (uint32_t i = 0; i <= n; i++) { /* the first round is not counted: it finds the caches cold */
        for (uint32_t s = 0; s < streams; s++) {
            e->items[s] = (struct skf_item){(int32_t)((1000 + i + 37 * s) % e->llama->n_vocab), depth + i, &kv[s], e->evaluated};
            SKF_TRY(skf_kv_place(&kv[s], depth + i, e->items[s].token, why));
            e->want[s] = s;
        }
        SKF_TRY(skf_graph_run(e->graph, e->items, streams, e->want, streams, e->logits, why));
        for (uint32_t s = 0; s < streams; s++)
            (void)skf_sampler_pick(&greedy, e->logits + (size_t)s * e->llama->n_vocab, e->llama->n_vocab, e->candidates);
        if (i == 0)
            begun = skf_now_ns();
    }
    *ns = skf_now_ns() - begun;
    return SKF_OK;
}

enum skf_err skf_engine_bench(struct skf_engine *e, unsigned prompt, unsigned gen, unsigned depth, unsigned streams,
                              uint64_t *prefill_ns, uint64_t *decode_ns, struct skf_why *why)
{
    struct skf_kv kv[SKF_SLOTS_MAX] = {{0}};
    enum skf_err err = SKF_OK;
    if (prompt > e->context || (uint64_t)gen + depth >= e->context || streams == 0 || streams > e->n_slots)
        return skf_fail(why, SKF_ERR_LIMIT, "%u tokens, and %u behind %u, of %u streams do not fit a context of %u and %u slots", prompt, gen, depth,
                        streams, e->context, e->n_slots);
    for (unsigned i = 0; i < streams && err == SKF_OK; i++)
        err = skf_kv_private(e->pages, &kv[i], why);
    if (err == SKF_OK && prompt)
        err = bench_prefill(e, &kv[0], prompt, e->logits, prefill_ns, why);
    if (err == SKF_OK && gen)
        err = bench_decode(e, kv, gen, depth, streams, decode_ns, why);
    for (unsigned i = 0; i < streams; i++)
        skf_kv_end(&kv[i], 0);
    return err;
}
