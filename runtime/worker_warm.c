/*
 * Warming: keys and values of how prompts to come begin are computed before anybody asks, one text behind the other, beside what generates.
 * It is one of the connection's generations, so it is cancelled and counted as those are, and ends with them when the peer is lost.
 */
#include "base/alloc.h"
#include "runtime/worker_priv.h"

struct worker_warm {
    bool is_pinned;
    uint32_t tokens, cached; /* of the texts that are done */
    uint32_t n, at;          /* texts; the one that is computed */
    struct skf_tokens {
        int32_t *ids;
        size_t n;
    } texts[];
};

void skf_worker_warm_free(struct worker_warm *x)
{
    for (uint32_t i = 0; x && i < x->n; i++)
        skf_free(x->texts[i].ids);
    skf_free(x);
}

static enum skf_err tokens_of(struct worker *w, const Skiff__V1__WarmText *t, struct skf_tokens *to, struct skf_why *why)
{
    if (!t->is_chat)
        return skf_engine_tokenize(w->engine, t->prompt, strlen(t->prompt), true, &to->ids, &to->n, why);
    struct skf_chat *msgs = skf_calloc(t->n_messages + 1, sizeof *msgs);
    if (!msgs)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < t->n_messages; i++)
        msgs[i] = (struct skf_chat){t->messages[i]->role, t->messages[i]->content};
    enum skf_err e = skf_engine_beginning(w->engine, msgs, t->n_messages, &to->ids, &to->n, why);
    skf_free(msgs);
    return e;
}

static enum skf_err make(struct worker *w, const Skiff__V1__Warm *m, struct worker_warm **out, struct skf_why *why)
{
    if (m->n_texts > WORKER_WARM_TEXTS)
        return skf_fail(why, SKF_ERR_LIMIT, "%zu texts to warm, at most %d", m->n_texts, WORKER_WARM_TEXTS);
    struct worker_warm *x = skf_calloc(1, sizeof *x + m->n_texts * sizeof x->texts[0]);
    if (!x)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    x->is_pinned = m->is_pinned;
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < m->n_texts; i++) {
        e = tokens_of(w, m->texts[i], &x->texts[x->n++], why);
        if (e == SKF_OK && x->texts[i].n >= skf_engine_context(w->engine))
            e = skf_fail(why, SKF_ERR_LIMIT, "text %zu has %zu tokens, the context holds %u with an answer", i + 1, x->texts[i].n,
                         skf_engine_context(w->engine));
    }
    if (e == SKF_OK)
        *out = x;
    else
        skf_worker_warm_free(x);
    return e;
}

void skf_worker_warm_refuse(struct worker_conn *c, uint64_t id, enum skf_err e, const char *text)
{
    pthread_mutex_lock(&c->w->lock);
    skf_worker_say_warmed_(c, id, 0, 0, e, text);
    pthread_mutex_unlock(&c->w->lock);
}

static void end(struct worker_gen *gen, enum skf_err e, const char *text)
{
    struct worker *w = gen->conn->w;
    pthread_mutex_lock(&w->lock);
    skf_worker_say_warmed_(gen->conn, gen->id, gen->warm->tokens, gen->warm->cached, e, text);
    skf_worker_gen_free_(w, gen);
    pthread_mutex_unlock(&w->lock);
}

static void on_finish(void *ctx, const struct skf_finish *f);

/* Gives the engine the next text; without one it is over. */
static void next(struct worker_gen *gen)
{
    static const struct skf_gen_events events = {NULL, on_finish};
    struct worker_conn *c = gen->conn;
    struct worker_warm *x = gen->warm;
    struct skf_why why = {{0}};
    uint64_t handle = 0, id = gen->id;
    while (x->at < x->n && x->texts[x->at].n == 0) /* nothing to compute */
        x->at++;
    if (x->at == x->n) {
        end(gen, SKF_OK, "");
        return;
    }
    enum skf_err e = skf_engine_warm(c->w->engine, x->texts[x->at].ids, x->texts[x->at].n, x->is_pinned, &events, gen, &handle, &why);
    if (e == SKF_OK)
        skf_worker_gen_note(c, gen, id, handle);
    else
        end(gen, e, why.text);
}

static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct worker_gen *gen = ctx;
    struct worker *w = gen->conn->w;
    if (f->err != SKF_OK) {
        end(gen, f->err, f->text ? f->text : "");
        return;
    }
    gen->warm->tokens += f->prompt_tokens;
    gen->warm->cached += f->cached_tokens;
    gen->warm->at++;
    pthread_mutex_lock(&w->lock);
    bool is_unwanted = gen->is_cancelled || gen->conn->dead || w->quitting; /* what runs is finished: one text is */
    gen->is_submitted = false;
    pthread_mutex_unlock(&w->lock);
    if (is_unwanted)
        end(gen, SKF_ERR_CANCELLED, "cancelled");
    else
        next(gen);
}

void skf_worker_warm(struct worker_conn *c, const Skiff__V1__Warm *m)
{
    struct skf_why why = {{0}};
    struct worker_warm *x = NULL;
    struct worker_gen *gen = NULL;
    enum skf_err e = make(c->w, m, &x, &why);
    if (e == SKF_OK && !(gen = skf_calloc(1, sizeof *gen)))
        e = skf_fail(&why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK) {
        *gen = (struct worker_gen){.conn = c, .id = m->id, .warm = x};
        e = skf_worker_gen_take(c, gen, &why);
    }
    if (e == SKF_OK) {
        next(gen);
        return;
    }
    skf_worker_warm_refuse(c, m->id, e, why.text[0] ? why.text : skf_err_name(e));
    skf_worker_warm_free(x);
    skf_free(gen);
}
