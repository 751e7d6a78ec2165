/*
 * What is warm when a worker begins to serve: how system prompts begin, read from the file of the last run or computed, pinned, and written for
 * the next run when they were computed.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "runtime/worker_priv.h"

#define TEXT_MOST ((size_t)1 << 20)

struct outcome {
    bool is_over;
    enum skf_err err;
    struct skf_why why;
    unsigned tokens, cached;
};
static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct outcome *x = ctx;
    x->is_over = true;
    x->err = f->err;
    x->tokens = f->prompt_tokens;
    x->cached = f->cached_tokens;
    if (f->err != SKF_OK)
        (void)skf_fail(&x->why, f->err, "%s", f->text ? f->text : skf_err_name(f->err));
}

static enum skf_err compute(struct worker *w, const int32_t *ids, size_t n, struct outcome *x, struct skf_why *why)
{
    static const struct skf_gen_events events = {NULL, on_finish};
    bool is_busy = true;
    *x = (struct outcome){0};
    x->err = skf_engine_warm(w->engine, ids, n, true, &events, x, NULL, &x->why);
    while (x->err == SKF_OK && !x->is_over && is_busy)
        SKF_TRY(skf_engine_step(w->engine, &is_busy, why));
    return SKF_OK;
}

/* One system prompt; *is_new: some of it had to be computed. */
static enum skf_err warm_one(struct worker *w, const char *given, bool *is_new, struct skf_why *why)
{
    uint8_t *text = NULL;
    size_t len = 0, n = 0;
    int32_t *ids = NULL;
    struct outcome x = {0};
    if (given[0] == '@')
        SKF_TRY(skf_file_read(given + 1, TEXT_MOST, &text, &len, why));
    if (text && (strlen((const char *)text) != len || !len)) {
        skf_free(text);
        return skf_fail(why, SKF_ERR_FORMAT, "%s: is no text", given + 1);
    }
    const struct skf_chat system = {"system", text ? (const char *)text : given};
    enum skf_err e = skf_engine_beginning(w->engine, &system, 1, &ids, &n, &x.why);
    if (e == SKF_OK && n > 0) {
        e = compute(w, ids, n, &x, why);
        if (e == SKF_OK) { /* otherwise the engine is broken */
            e = x.err;
            *is_new |= x.err == SKF_OK && x.cached + 1 < x.tokens;
        }
    }
    if (e != SKF_OK && x.why.text[0]) {
        skf_log(SKF_LOG_WARN, "the system prompt \"%.40s%s\" is not warm: %s", given, strlen(given) > 40 ? "..." : "", x.why.text);
        e = SKF_OK;
    }
    skf_free(ids);
    skf_free(text);
    return e;
}

enum skf_err skf_worker_begin_warm(struct worker *w, const struct skf_worker_opts *o, const uint8_t model[SKF_DIGEST], struct skf_why *why)
{
    struct skf_why said = {{0}};
    struct skf_engine_cache c;
    bool is_new = false;
    uint32_t pages = 0;
    if (o->cache_file) {
        skf_draft_sweep_of(o->cache_file, NULL);
        enum skf_err e = skf_engine_cache_load(w->engine, o->cache_file, model, &pages, &said);
        if (e != SKF_OK && e != SKF_ERR_NOT_FOUND)
            skf_log(SKF_LOG_WARN, "%s; it is made anew", said.text);
        is_new = e != SKF_OK;
    }
    for (size_t i = 0; i < o->n_warm; i++)
        SKF_TRY(warm_one(w, o->warm[i], &is_new, why));
    skf_engine_cache(w->engine, &c);
    skf_log(SKF_LOG_INFO, "%u pages of keys and values are warm, %u were read", c.pinned, pages);
    if (o->cache_file && (is_new || c.pinned != pages)) {
        said.text[0] = 0;
        if (skf_engine_cache_save(w->engine, o->cache_file, model, &said) != SKF_OK)
            skf_log(SKF_LOG_WARN, "what is warm is not kept for the next start: %s", said.text);
    }
    return SKF_OK;
}
