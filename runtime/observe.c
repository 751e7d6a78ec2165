/*
 * What each matrix of a model is multiplied with on a text (engine.h): what calibration and importance are made of.
 */
#include "runtime/engine_priv.h"

struct watch {
    struct skf_llama *l;
    skf_observe_fn *fn;
    void *ctx;
};

/* The tensor's name in the file; "" for a matrix that is none of the model's, or a part of one that was named with its first. */
static void name_of(struct skf_llama *l, const struct skf_weight *w, char name[64])
{
    name[0] = 0;
    for (uint32_t k = 0; k < skf_llama_matrices(l); k++)
        if (skf_llama_matrix(l, k) == w)
            skf_llama_matrix_name(l, k, name);
}

static bool is_followed(void *ctx, const struct skf_weight *w, const float *x, uint32_t m, uint32_t n)
{
    const struct watch *o = ctx;
    char name[64];
    name_of(o->l, w, name);
    o->fn(o->ctx, name, x, m, n);
    return w != &o->l->output;
}

static enum skf_err run(struct skf_engine *e, struct skf_kv *kv, const int32_t *ids, size_t n, struct skf_why *why)
{
    struct skf_item items[SKF_PORTION];
    uint32_t want[SKF_PORTION];
    for (size_t from = 0; from < n; from += SKF_PORTION) {
        uint32_t m = (uint32_t)SKF_MIN(n - from, SKF_PORTION);
        for (uint32_t i = 0; i < m; i++) {
            items[i] = (struct skf_item){ids[from + i], (uint32_t)from + i, kv, e->evaluated};
            want[i] = i;
            SKF_TRY(skf_kv_place(kv, (uint32_t)from + i, ids[from + i], why));
        }
        SKF_TRY(skf_graph_run(e->graph, items, m, want, m, NULL, why));
    }
    return SKF_OK;
}

enum skf_err skf_engine_observe(struct skf_engine *e, const int32_t *ids, size_t n, skf_observe_fn *fn, void *ctx,
                                struct skf_why *why)
{
    struct watch o = {e->llama, fn, ctx};
    const struct skf_graph_watch watch = {is_followed, &o};
    struct skf_kv kv = {0};
    if (n > e->context)
        return skf_fail(why, SKF_ERR_LIMIT, "%zu tokens, the context holds %u", n, e->context);
    SKF_TRY(skf_kv_private(e->pages, &kv, why));
    skf_graph_watch(e->graph, &watch);
    enum skf_err err = run(e, &kv, ids, n, why);
    skf_graph_watch(e->graph, NULL);
    skf_kv_end(&kv, 0);
    return err;
}
