/*
 * Requests and steps (engine.h; what follows from logits: advance.c).  The lock guards the queue, the handles in the slots and the flags of cancelling; everything else
 * belongs to the stepping thread, and events are called without the lock, so that they may submit and cancel.
 */
#include <errno.h>

#include "base/alloc.h"
#include "runtime/engine_priv.h"

void skf_request_free(struct skf_request *r)
{
    if (!r)
        return;
    skf_stream_free(&r->stream);
    skf_sampler_free(&r->sampler);
    skf_free(r->ids);
    skf_free(r);
}

static enum skf_err make_request(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s,
                                 struct skf_request **out, struct skf_why *why)
{
    if (n == 0)
        return skf_fail(why, SKF_ERR_ARG, "the prompt is empty");
    if (n >= e->context)
        return skf_fail(why, SKF_ERR_LIMIT, "the prompt has %zu tokens, the context holds %u with the answer", n, e->context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= e->llama->n_vocab)
            return skf_fail(why, SKF_ERR_ARG, "token %d is not one of this model's", ids[i]);
    struct skf_request *r = skf_calloc(1, sizeof *r);
    if (!r)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a request");
    enum skf_err err = skf_stream_init(&r->stream, s->stop, s->n_stop, why);
    r->ids = skf_memdup(ids, n * sizeof *ids);
    if (err == SKF_OK && !r->ids)
        err = skf_fail(why, SKF_ERR_NOMEM, "no memory for a prompt of %zu tokens", n);
    if (err != SKF_OK) {
        skf_request_free(r);
        return err;
    }
    r->n_ids = (uint32_t)n;
    uint32_t room = e->context - r->n_ids;
    r->max_tokens = s->max_tokens ? SKF_MIN(s->max_tokens, room) : room;
    skf_sampler_init(&r->sampler, s->temperature, s->top_k, s->top_p, s->repetition_penalty, s->seed);
    for (size_t i = n > SKF_RECENT ? n - SKF_RECENT : 0; i < n; i++)
        skf_sampler_saw(&r->sampler, ids[i]);
    *out = r;
    return SKF_OK;
}

static enum skf_err enqueue(struct skf_engine *e, struct skf_request *take_r, const struct skf_gen_events *ev, void *ctx, uint64_t *handle,
                            struct skf_why *why)
{
    struct skf_request *r = take_r;
    r->ev = *ev;
    r->ctx = ctx;
    (void)pthread_mutex_lock(&e->lock);
    bool is_full = e->n_waiting >= SKF_WAITING_MAX;
    if (!is_full) {
        r->handle = ++e->last_handle;
        if (handle)
            *handle = r->handle;
        *e->waiting_end = r;
        e->waiting_end = &r->next;
        e->n_waiting++;
        (void)pthread_cond_signal(&e->changed);
    }
    (void)pthread_mutex_unlock(&e->lock);
    if (!is_full)
        return SKF_OK;
    skf_request_free(r);
    return skf_fail(why, SKF_ERR_BUSY, "%u requests wait already", SKF_WAITING_MAX);
}

enum skf_err skf_engine_submit(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s,
                               const struct skf_gen_events *ev, void *ctx, uint64_t *handle, struct skf_why *why)
{
    struct skf_request *r = NULL;
    SKF_TRY(make_request(e, ids, n, s, &r, why));
    return enqueue(e, r, ev, ctx, handle, why);
}

enum skf_err skf_engine_warm(struct skf_engine *e, const int32_t *ids, size_t n, bool is_pinned, const struct skf_gen_events *ev, void *ctx,
                             uint64_t *handle, struct skf_why *why)
{
    struct skf_request *r = NULL;
    SKF_TRY(make_request(e, ids, n, &(struct skf_sampling){.max_tokens = 1}, &r, why));
    r->is_warm = true;
    r->is_pinned = is_pinned;
    return enqueue(e, r, ev, ctx, handle, why);
}

void skf_engine_cancel(struct skf_engine *e, uint64_t handle)
{
    (void)pthread_mutex_lock(&e->lock);
    for (struct skf_request *r = e->waiting; r; r = r->next)
        r->is_cancelled |= r->handle == handle;
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].r && e->slots[i].r->handle == handle)
            e->slots[i].r->is_cancelled = true;
    (void)pthread_cond_signal(&e->changed);
    (void)pthread_mutex_unlock(&e->lock);
}

/* Tells the end of a request and frees it. */
static void finish(struct skf_request *take_r, const char *reason, enum skf_err err, const char *text)
{
    struct skf_request *r = take_r;
    uint64_t now = skf_now_ns(), prefilled = r->prefilled_ns ? r->prefilled_ns : now;
    struct skf_finish f = {.reason = reason, .err = err, .text = text, .prompt_tokens = r->n_ids,
                           .cached_tokens = r->n_cached, .completion_tokens = r->n_made};
    f.prefill_ns = r->begun_ns ? prefilled - r->begun_ns : 0;
    f.decode_ns = r->prefilled_ns ? now - prefilled : 0;
    if (r->ev.finish)
        r->ev.finish(r->ctx, &f);
    skf_request_free(r);
}

void skf_engine_finish_slot(struct skf_engine *e, struct skf_slot *s, const char *reason, enum skf_err err, const char *text)
{
    struct skf_request *r = s->r;
    skf_kv_end(&s->kv, r->n_done);
    (void)pthread_mutex_lock(&e->lock);
    s->r = NULL;
    (void)pthread_mutex_unlock(&e->lock);
    finish(r, reason, err, text);
}

/* Takes the first request that was cancelled, wherever it is; NULL when there is none. */
static struct skf_request *take_cancelled(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_request *r = e->slots[i].r;
        if (r && r->is_cancelled) {
            skf_kv_end(&e->slots[i].kv, r->n_done);
            e->slots[i].r = NULL;
            return r;
        }
    }
    for (struct skf_request **p = &e->waiting; *p; p = &(*p)->next) {
        struct skf_request *r = *p;
        if (!r->is_cancelled)
            continue;
        *p = r->next;
        if (!*p)
            e->waiting_end = p;
        e->n_waiting--;
        return r;
    }
    return NULL;
}

static void drop_cancelled(struct skf_engine *e)
{
    for (;;) {
        (void)pthread_mutex_lock(&e->lock);
        struct skf_request *r = take_cancelled(e);
        (void)pthread_mutex_unlock(&e->lock);
        if (!r)
            return;
        finish(r, "cancelled", SKF_ERR_CANCELLED, "cancelled");
    }
}

static void admit(struct skf_engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->is_woken = false;
    for (uint32_t i = 0; i < e->n_slots && e->waiting; i++) {
        struct skf_request *r = e->waiting;
        if (e->slots[i].r)
            continue;
        e->waiting = r->next;
        if (!e->waiting)
            e->waiting_end = &e->waiting;
        e->n_waiting--;
        r->next = NULL;
        r->begun_ns = skf_now_ns();
        e->slots[i].r = r;
    }
    (void)pthread_mutex_unlock(&e->lock);
}

/* A sequence that is new takes what is there of its prompt, but for the last token, whose logits are wanted. */
static void begin_sequences(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_slot *s = &e->slots[i];
        struct skf_why why = {{0}};
        if (!s->r || s->kv.pool)
            continue;
        enum skf_err err = skf_kv_begin(e->pages, s->r->ids, s->r->n_ids, s->r->n_ids - 1, &s->kv, &s->r->n_cached, &why);
        s->r->n_done = s->r->n_cached;
        if (err != SKF_OK)
            skf_engine_finish_slot(e, s, "error", err, why.text);
    }
}

/* Adds one sequence's part of the step. One that finds no memory ends; the others do not notice. */
static void batch_slot(struct skf_engine *e, struct skf_slot *s, uint32_t count, uint32_t *m, uint32_t *n_want)
{
    struct skf_request *r = s->r;
    struct skf_why why = {{0}};
    uint32_t begun = *m, done = r->n_done;
    bool is_prompt = r->n_done < r->n_ids;
    for (uint32_t i = 0; i < count; i++, (*m)++) {
        int32_t token = is_prompt ? r->ids[r->n_done] : r->last;
        enum skf_err err = skf_kv_place(&s->kv, r->n_done, token, &why);
        if (err != SKF_OK) {
            *m = begun;
            r->n_done = done;
            skf_engine_finish_slot(e, s, "error", err, why.text);
            return;
        }
        e->items[*m] = (struct skf_item){token, r->n_done, &s->kv};
        r->n_done++;
    }
    if (r->n_done >= r->n_ids && !r->is_warm) {
        e->want[*n_want] = *m - 1;
        e->wanted_by[(*n_want)++] = s;
    }
}

/* One token of every decoding sequence, then prompts, the oldest request first, while the portion lasts. */
static void make_batch(struct skf_engine *e, uint32_t *m, uint32_t *n_want)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_request *r = e->slots[i].r;
        if (r && r->n_done >= r->n_ids)
            batch_slot(e, &e->slots[i], 1, m, n_want);
    }
    for (uint32_t left = SKF_PORTION; left > 0;) {
        struct skf_slot *oldest = NULL;
        for (uint32_t i = 0; i < e->n_slots; i++) {
            struct skf_request *r = e->slots[i].r;
            if (r && r->n_done < r->n_ids && (!oldest || r->handle < oldest->r->handle))
                oldest = &e->slots[i];
        }
        if (!oldest)
            break;
        uint32_t count = SKF_MIN(left, oldest->r->n_ids - oldest->r->n_done);
        batch_slot(e, oldest, count, m, n_want);
        left -= count;
    }
}

/* What the step computed can be shared. */
static void list_computed(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].r)
            skf_kv_done(&e->slots[i].kv, e->slots[i].r->n_done);
}

/* Prompts that were wanted for what others will share of them. */
static void finish_warm(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_slot *s = &e->slots[i];
        struct skf_why why = {{0}};
        if (!s->r || !s->r->is_warm || s->r->n_done < s->r->n_ids)
            continue;
        enum skf_err err = s->r->is_pinned ? skf_kv_pin(&s->kv, s->r->n_ids, &why) : SKF_OK;
        skf_engine_finish_slot(e, s, err == SKF_OK ? "warm" : "error", err, err == SKF_OK ? NULL : why.text);
    }
}

enum skf_err skf_engine_step(struct skf_engine *e, bool *busy, struct skf_why *why)
{
    uint32_t m = 0, n_want = 0;
    drop_cancelled(e);
    admit(e);
    begin_sequences(e);
    make_batch(e, &m, &n_want);
    if (m > 0) {
        enum skf_err err = skf_graph_run(e->graph, e->items, m, e->want, n_want, e->logits, why);
        if (err != SKF_OK)
            return err;
        list_computed(e);
        finish_warm(e);
        for (uint32_t i = 0; i < n_want; i++)
            skf_engine_advance(e, e->wanted_by[i], e->logits + (size_t)i * e->llama->n_vocab);
    }
    (void)pthread_mutex_lock(&e->lock);
    *busy = e->waiting != NULL;
    for (uint32_t i = 0; i < e->n_slots; i++)
        *busy |= e->slots[i].r != NULL;
    (void)pthread_mutex_unlock(&e->lock);
    return SKF_OK;
}

static bool has_work(const struct skf_engine *e)
{
    bool is_any = e->is_woken || e->waiting;
    for (uint32_t i = 0; i < e->n_slots; i++)
        is_any |= e->slots[i].r != NULL;
    return is_any;
}

void skf_engine_wait(struct skf_engine *e, unsigned timeout_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&e->lock);
    while (!has_work(e) && pthread_cond_timedwait(&e->changed, &e->lock, &until) != ETIMEDOUT)
        ;
    e->is_woken = false;
    (void)pthread_mutex_unlock(&e->lock);
}

void skf_engine_wake(struct skf_engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->is_woken = true;
    (void)pthread_cond_signal(&e->changed);
    (void)pthread_mutex_unlock(&e->lock);
}
