/*
 * Requests as they come, wait, begin and leave (engine.h says in which order).  The lock guards the queue, the handles in the slots, the flags of cancelling and what
 * skf_engine_load tells; everything else belongs to the stepping thread, and events are called without the lock, so that they may submit and
 * cancel.
 */
#include <errno.h>

#include "base/alloc.h"
#include "runtime/engine_priv.h"

void skf_request_free(struct skf_request *r)
{
    if (!r)
        return;
    skf_stream_free(&r->stream);
    skf_guess_free(&r->guess);
    skf_lora_free(r->lora);
    skf_request_unask(r);
    skf_free(r->ids);
    skf_free(r);
}

/* ---- coming ------------------------------------------------------------------------------------------------------------------------- */
/* How many tokens it may make: what it asks for, what the context holds; without a wish also what memory holds. */
static enum skf_err set_most(const struct skf_engine *e, struct skf_request *r, uint32_t wish, struct skf_why *why)
{
    uint32_t room = e->context - r->n_ids;
    uint64_t all = e->opts.memory;
    r->max_tokens = wish ? SKF_MIN(wish, room) : room;
    r->memory = skf_pages_bytes(e->pages, r->n_ids + r->max_tokens);
    if (!all || r->memory <= all)
        return SKF_OK;
    uint64_t fits = all / skf_pages_bytes(e->pages, SKF_KV_PAGE) * SKF_KV_PAGE;
    if (wish || fits <= r->n_ids)
        return skf_fail(why, SKF_ERR_LIMIT, "keys and values of %u tokens take %llu KiB, and there are %llu for all: a shorter prompt or smaller max_tokens fits",
                        r->n_ids + r->max_tokens, (unsigned long long)r->memory >> 10, (unsigned long long)all >> 10);
    r->max_tokens = (uint32_t)fits - r->n_ids;
    r->memory = skf_pages_bytes(e->pages, (uint32_t)fits);
    return SKF_OK;
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
    r->n_ids = (uint32_t)n;
    if (err == SKF_OK)
        err = set_most(e, r, s->max_tokens, why);
    if (err == SKF_OK)
        err = skf_engine_adapter_hold(e, s->adapter, &r->lora, why);
    if (err == SKF_OK)
        err = skf_ahead_init(e, r, s, why);
    if (err != SKF_OK) {
        skf_request_free(r);
        return err;
    }
    skf_sampler_init(&r->sampler, s->temperature, s->top_k, s->top_p, s->repetition_penalty, s->seed);
    for (size_t i = n > SKF_RECENT ? n - SKF_RECENT : 0; i < n; i++)
        skf_sampler_saw(&r->sampler, ids[i]);
    err = skf_request_ask(e, r, s, why);
    if (err == SKF_OK)
        *out = r;
    else
        skf_request_free(r);
    return err;
}

/* In the order of coming: at the end but for one that gave its slot back. */
static void put_in_(struct skf_engine *e, struct skf_request *r)
{
    struct skf_request **at = e->n_waiting && r->handle < e->last_handle ? &e->waiting : e->waiting_end;
    while (*at && (*at)->handle < r->handle)
        at = &(*at)->next;
    r->next = *at;
    *at = r;
    if (!r->next)
        e->waiting_end = &r->next;
    e->n_waiting++;
    e->n_waiting_tokens += r->n_ids;
}

static void take_out_(struct skf_engine *e, struct skf_request **at)
{
    struct skf_request *r = *at;
    *at = r->next;
    if (!*at)
        e->waiting_end = at;
    r->next = NULL;
    e->n_waiting--;
    e->n_waiting_tokens -= r->n_ids;
}

static enum skf_err enqueue(struct skf_engine *e, struct skf_request *take_r, const struct skf_gen_events *ev, void *ctx, uint64_t *handle,
                            struct skf_why *why)
{
    struct skf_request *r = take_r;
    r->ev = *ev;
    r->ctx = ctx;
    r->submitted_ns = skf_now_ns();
    (void)pthread_mutex_lock(&e->lock);
    uint32_t waiting = e->n_waiting, tokens = e->n_waiting_tokens;
    bool is_full = waiting >= e->opts.waiting || (waiting && tokens + r->n_ids > e->opts.waiting_tokens);
    if (!is_full) {
        r->handle = ++e->last_handle;
        if (handle)
            *handle = r->handle;
        e->gap_ns = e->came_ns ? r->submitted_ns - SKF_MIN(e->came_ns, r->submitted_ns) : UINT64_MAX;
        e->came_ns = r->submitted_ns;
        put_in_(e, r);
        (void)pthread_cond_signal(&e->changed);
    }
    (void)pthread_mutex_unlock(&e->lock);
    if (!is_full)
        return SKF_OK;
    skf_request_free(r);
    return skf_fail(why, SKF_ERR_BUSY, "%u requests with %u tokens wait already", waiting, tokens);
}

enum skf_err skf_engine_submit_on(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s, const struct skf_terms *terms,
                                  const struct skf_gen_events *ev, void *ctx, uint64_t *handle, struct skf_why *why)
{
    struct skf_request *r = NULL;
    SKF_TRY(make_request(e, ids, n, s, &r, why));
    r->priority = terms ? terms->priority : SKF_INTERACTIVE;
    r->deadline_ns = terms ? terms->deadline_ns : 0;
    return enqueue(e, r, ev, ctx, handle, why);
}

enum skf_err skf_engine_warm(struct skf_engine *e, const int32_t *ids, size_t n, bool is_pinned, const struct skf_gen_events *ev, void *ctx,
                             uint64_t *handle, struct skf_why *why)
{
    struct skf_request *r = NULL;
    SKF_TRY(make_request(e, ids, n, &(struct skf_sampling){.max_tokens = 1}, &r, why));
    r->is_warm = true;
    r->is_pinned = is_pinned;
    r->priority = SKF_BATCH; /* nobody waits for it */
    return enqueue(e, r, ev, ctx, handle, why);
}

enum skf_err skf_engine_submit(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s,
                               const struct skf_gen_events *ev, void *ctx, uint64_t *handle, struct skf_why *why)
{
    return skf_engine_submit_on(e, ids, n, s, NULL, ev, ctx, handle, why);
}

/* ---- leaving ------------------------------------------------------------------------------------------------------------------------ */
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
    f.queue_ns = (r->begun_ns ? r->begun_ns : now) - r->submitted_ns;
    f.prefill_ns = r->begun_ns ? prefilled - r->begun_ns : 0;
    f.decode_ns = r->prefilled_ns ? now - prefilled : 0;
    f.sample_ns = r->sample_ns;
    f.drafted_tokens = (unsigned)r->guess.drafted;
    f.accepted_tokens = (unsigned)r->guess.accepted;
    f.tell_ns = r->tell_ns;
    f.gap_ns = r->gap_ns;
    if (r->ev.finish)
        r->ev.finish(r->ctx, &f);
    skf_request_free(r);
}

/* Its request, which is in no slot then; its pages can be shared by others. */
static struct skf_request *leave_slot_(struct skf_engine *e, struct skf_slot *s)
{
    struct skf_request *r = s->r;
    skf_kv_end(&s->kv, r->n_done);
    e->memory_used -= r->memory;
    s->r = NULL;
    return r;
}

void skf_engine_finish_slot(struct skf_engine *e, struct skf_slot *s, const char *reason, enum skf_err err, const char *text)
{
    (void)pthread_mutex_lock(&e->lock);
    struct skf_request *r = leave_slot_(e, s);
    uint64_t held = skf_now_ns() - r->begun_ns;
    if (err == SKF_OK)
        e->held_ns = e->held_ns ? e->held_ns - e->held_ns / 8 + held / 8 : held;
    (void)pthread_mutex_unlock(&e->lock);
    finish(r, reason, err, text);
}

static bool is_over(const struct skf_request *r, uint64_t now) { return r->is_cancelled || (r->deadline_ns && now >= r->deadline_ns); }

/* Takes the first request that was cancelled or whose time is over, wherever it is; NULL when there is none. */
static struct skf_request *take_over_(struct skf_engine *e, uint64_t now)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].r && is_over(e->slots[i].r, now))
            return leave_slot_(e, &e->slots[i]);
    for (struct skf_request **p = &e->waiting; *p; p = &(*p)->next) {
        struct skf_request *r = *p;
        if (!is_over(r, now))
            continue;
        take_out_(e, p);
        return r;
    }
    return NULL;
}

void skf_queue_drop(struct skf_engine *e)
{
    uint64_t now = skf_now_ns();
    for (;;) {
        (void)pthread_mutex_lock(&e->lock);
        struct skf_request *r = take_over_(e, now);
        (void)pthread_mutex_unlock(&e->lock);
        if (!r)
            return;
        if (r->is_cancelled)
            finish(r, "cancelled", SKF_ERR_CANCELLED, "cancelled");
        else
            finish(r, "error", SKF_ERR_TIMEOUT, r->begun_ns ? "the request's time is over" : "the request's time was over before it began");
    }
}

/* ---- beginning ---------------------------------------------------------------------------------------------------------------------- */
static bool is_behind(const struct skf_request *r) { return r->priority == SKF_BATCH && r->passed < SKF_PASSED_MAX; }

/* Beside what runs and what is pinned; alone any request does, or it would wait for ever. */
static bool is_fit_(const struct skf_engine *e, const struct skf_request *r)
{
    return !e->opts.memory || e->memory_used == 0 || e->memory_used + r->memory + e->cache_seen.pinned_bytes <= e->opts.memory;
}

/* The place of the request that is to begin next, if there is a slot; NULL: none may. */
static struct skf_request **next_(struct skf_engine *e)
{
    uint32_t batch = 0;
    for (uint32_t i = 0; i < e->n_slots; i++)
        batch += e->slots[i].r && e->slots[i].r->priority == SKF_BATCH;
    bool is_reserved = e->n_slots > 1 && batch + 1 >= e->n_slots;
    for (int behind = 0; behind < 2; behind++)
        for (struct skf_request **p = &e->waiting; *p; p = &(*p)->next) {
            if (is_behind(*p) != behind || (behind && is_reserved))
                continue;
            if (is_fit_(e, *p))
                return p;
            if ((*p)->passed >= SKF_PASSED_MAX) /* nobody may take what it waits for */
                return NULL;
        }
    return NULL;
}

static void begin_(struct skf_engine *e, struct skf_slot *s, struct skf_request **at)
{
    struct skf_request *r = *at;
    for (struct skf_request *o = e->waiting; o != r; o = o->next)
        o->passed++;
    take_out_(e, at);
    e->memory_used += r->memory;
    r->begun_ns = skf_now_ns();
    s->r = r;
}

/* While an interactive request finds no slot or memory: a batch request whose prompt is being computed goes back to its place in the queue. What is computed
 * stays among the kept pages. */
static bool is_yielded_(struct skf_engine *e)
{
    const struct skf_request *first = e->waiting;
    while (first && first->priority == SKF_BATCH)
        first = first->next;
    if (!first)
        return false;
    for (uint32_t i = e->n_slots; i-- > 0;) {
        struct skf_slot *s = &e->slots[i];
        if (!s->r || !is_behind(s->r) || s->r->n_done >= s->r->n_ids || s->r->yields >= SKF_YIELDS_MAX)
            continue;
        if (e->opts.memory && e->memory_used - s->r->memory + first->memory > e->opts.memory)
            continue;
        struct skf_request *r = leave_slot_(e, s);
        r->yields++;
        r->n_done = 0;
        put_in_(e, r);
        return true;
    }
    return false;
}

static struct skf_slot *free_slot_(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        if (!e->slots[i].r)
            return &e->slots[i];
    return NULL;
}

/* Whether those who wait are held back to gather more, and for how long. */
static uint64_t hold_(const struct skf_engine *e, uint64_t now)
{
    struct skf_gather g = {.busy_ms = (uint32_t)e->opts.gather_busy_ms, .idle_ms = (uint32_t)e->opts.gather_idle_ms, .portion = e->opts.portion,
                           .waiting = e->n_waiting, .tokens = e->n_waiting_tokens, .gap_ns = e->gap_ns};
    uint64_t first = now;
    for (uint32_t i = 0; i < e->n_slots; i++)
        g.free += !e->slots[i].r;
    for (const struct skf_request *r = e->waiting; r; r = r->next) {
        if (r->yields)
            return 0;
        first = SKF_MIN(first, r->submitted_ns);
        g.longest = SKF_MAX(g.longest, r->n_ids);
    }
    g.since_ns = now - first;
    g.permille = SKF_MAX(skf_busy_permille(&e->busy, now), 1000 * (e->n_slots - g.free) / e->n_slots);
    return e->waiting && g.free ? skf_gather_ns(&g) : 0;
}

/* A sequence that is new takes what is there of its prompt, but for the last token, whose logits are wanted. */
static void begin_sequences(struct skf_engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct skf_slot *s = &e->slots[i];
        struct skf_why why = {{0}};
        uint32_t there = 0;
        if (!s->r || s->kv.pool)
            continue;
        enum skf_err err = skf_kv_begin(e->pages, s->r->lora ? s->r->lora->digest : NULL, s->r->ids, s->r->n_ids, s->r->n_ids - 1, &s->kv, &there, &why);
        s->r->n_done = there;
        if (s->r->yields == 0) /* what it computed itself before it gave its slot back is not counted */
            s->r->n_cached = there;
        if (err != SKF_OK)
            skf_engine_finish_slot(e, s, "error", err, why.text);
    }
}

uint64_t skf_queue_admit(struct skf_engine *e)
{
    struct skf_slot *s;
    (void)pthread_mutex_lock(&e->lock);
    e->is_woken = false;
    uint64_t hold = hold_(e, skf_now_ns());
    while (!hold && e->waiting) {
        struct skf_request **at = (s = free_slot_(e)) ? next_(e) : NULL;
        if (at)
            begin_(e, s, at);
        else if (!is_yielded_(e))
            break;
    }
    (void)pthread_mutex_unlock(&e->lock);
    begin_sequences(e);
    return hold;
}

/* ---- looking on --------------------------------------------------------------------------------------------------------------------- */
void skf_engine_load(struct skf_engine *e, struct skf_engine_load *l)
{
    uint64_t now = skf_now_ns(), held;
    (void)pthread_mutex_lock(&e->lock);
    *l = (struct skf_engine_load){.slots = e->n_slots, .waiting = e->n_waiting, .waiting_tokens = e->n_waiting_tokens,
                                  .busy_permille = e->busy_permille, .steps = e->n_steps, .memory = e->opts.memory, .cache = e->cache_seen};
    held = e->held_ns;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct skf_request *r = e->slots[i].r;
        l->running += r != NULL;
        if (r && r->begun_ns < now) /* what runs already longer than others did says more */
            held = SKF_MAX(held, now - r->begun_ns);
    }
    (void)pthread_mutex_unlock(&e->lock);
    if (l->waiting || l->running == l->slots)
        l->expected_ns = (l->waiting + 1) * (held / l->slots);
}

static bool has_work_(const struct skf_engine *e)
{
    bool is_any = e->is_woken || e->waiting;
    for (uint32_t i = 0; i < e->n_slots; i++)
        is_any |= e->slots[i].r != NULL;
    return is_any;
}

static struct timespec in_ns(uint64_t ns)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    ns += (uint64_t)t.tv_nsec;
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

void skf_queue_rest(struct skf_engine *e, uint64_t ns)
{
    struct timespec until = in_ns(ns);
    (void)pthread_mutex_lock(&e->lock);
    if (!e->is_woken) /* whatever comes is looked at */
        (void)pthread_cond_timedwait(&e->changed, &e->lock, &until);
    (void)pthread_mutex_unlock(&e->lock);
}

void skf_engine_wait(struct skf_engine *e, unsigned timeout_ms)
{
    struct timespec until = in_ns((uint64_t)timeout_ms * 1000000);
    (void)pthread_mutex_lock(&e->lock);
    while (!has_work_(e) && pthread_cond_timedwait(&e->changed, &e->lock, &until) != ETIMEDOUT)
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
