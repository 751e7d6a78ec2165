/*
 * What comes over the session: assignments for the loop, and the answers that an installing thread waits for.  Nothing here is
 * trusted: an answer that nobody asked for, or more than was asked for, ends the stream.
 */
#include "agent/session_priv.h"

#include <errno.h>

#include "base/alloc.h"
#include "proto/msg.h"

#define SILENCE (30 * SKF_SECOND) /* without a byte for a question that waits: the link is given up */

/* ---- messages (gRPC's thread; under mu) -------------------------------------------------------------------------------- */

static enum skf_err on_welcome(struct skf_session *s, const Skiff__V1__Welcome *m, struct skf_why *why)
{
    if (s->is_up)
        return skf_fail(why, SKF_ERR_FORMAT, "a second welcome");
    if (m->protocol != 1)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "protocol %u, this agent speaks 1", m->protocol);
    s->is_up = true;
    s->epoch++;
    s->failures = 0;
    skf_log(SKF_LOG_INFO, "centre %s: connected as %.64s", s->o.centre, m->device);
    (void)pthread_cond_broadcast(&s->cv);
    return SKF_OK;
}

static enum skf_err on_assign(struct skf_session *s, const Skiff__V1__Assign *m, struct skf_why *why)
{
    struct skf_assign a;
    SKF_TRY(skf_assign_of(m, &a, why));
    size_t i = 0;
    while (i < s->n_assigns && strcmp(s->assigns[i].model, a.model) != 0)
        i++;
    if (i == ASSIGNS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "more assignments than this box takes");
    s->assigns[i] = a; /* the newest of a model replaces an earlier one */
    s->n_assigns += i == s->n_assigns;
    return SKF_OK;
}

static enum skf_err on_meta(struct skf_session *s, const Skiff__V1__Meta *m, struct skf_why *why)
{
    if (!s->meta_id || m->id != s->meta_id)
        return SKF_OK; /* of a question that was given up */
    enum skf_err e = SKF_OK;
    struct skf_buf *b = s->meta;
    if (!m->found)
        e = skf_fail(&s->meta_why, SKF_ERR_NOT_FOUND, "the centre has none");
    else if (m->offset != b->len || m->total < b->len || m->data.len > m->total - b->len || (!m->data.len && m->total))
        return skf_fail(why, SKF_ERR_FORMAT, "an answer whose parts do not fit together");
    else if (m->total > b->limit)
        e = skf_fail(&s->meta_why, SKF_ERR_LIMIT, "%llu bytes, at most %zu are taken", (unsigned long long)m->total,
                     b->limit);
    else if ((e = skf_buf_put(b, m->data.data, m->data.len)) != SKF_OK)
        (void)skf_fail(&s->meta_why, e, "no memory");
    if (e != SKF_OK || b->len == m->total) {
        s->meta_err = e;
        s->is_meta_done = true;
        s->meta_id = 0;
        (void)pthread_cond_broadcast(&s->cv);
    }
    return SKF_OK;
}

static bool is_asked(const struct skf_session *s, uint32_t id)
{
    return s->ask_first <= s->ask_last && id >= s->ask_first && id <= s->ask_last;
}

static enum skf_err on_chunk(struct skf_session *s, const Skiff__V1__Chunk *m, struct skf_why *why)
{
    if (!is_asked(s, m->id))
        return SKF_OK;
    if (m->payload.len > INBOX_BYTES - s->queued)
        return skf_fail(why, SKF_ERR_LIMIT, "more payloads than were asked for");
    struct part *p = skf_calloc(1, sizeof *p);
    uint8_t *data = skf_memdup(m->payload.data, m->payload.len);
    if (!p || !data) {
        skf_free(p);
        skf_free(data);
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a payload");
    }
    p->payload = (struct skf_payload){m->number, data, m->payload.len};
    *s->last = p;
    s->last = &p->next;
    s->queued += p->payload.n + sizeof *p;
    (void)pthread_cond_broadcast(&s->cv);
    return SKF_OK;
}

static enum skf_err on_end(struct skf_session *s, const Skiff__V1__ChunksEnd *m, struct skf_why *why)
{
    if (!is_asked(s, m->id))
        return SKF_OK;
    if (m->error[0])
        (void)snprintf(s->refused, sizeof s->refused, "%.200s", m->error);
    s->ask_first = m->id + 1; /* answered in order */
    (void)pthread_cond_broadcast(&s->cv);
    return SKF_OK;
}

static enum skf_err on_ping(struct skf_session *s, const Skiff__V1__Ping *m)
{
    Skiff__V1__AgentMessage out = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__Pong pong = SKIFF__V1__PONG__INIT;
    pong.nonce = m->nonce;
    out.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_PONG;
    out.pong = &pong;
    return skf_session_put(s, &out);
}

static enum skf_err take(struct skf_session *s, const Skiff__V1__CentreMessage *m, struct skf_why *why)
{
    s->heard = skf_now_ns();
    if (!s->is_up && m->kind_case != SKIFF__V1__CENTRE_MESSAGE__KIND_WELCOME)
        return skf_fail(why, SKF_ERR_FORMAT, "the first message is no welcome");
    switch (m->kind_case) {
    case SKIFF__V1__CENTRE_MESSAGE__KIND_WELCOME:
        return on_welcome(s, m->welcome, why);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_ASSIGN:
        return on_assign(s, m->assign, why);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_META:
        return on_meta(s, m->meta, why);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_CHUNK:
        return on_chunk(s, m->chunk, why);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_CHUNKS_END:
        return on_end(s, m->chunks_end, why);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_PING:
        return on_ping(s, m->ping);
    case SKIFF__V1__CENTRE_MESSAGE__KIND_CANCEL:
        if (s->n_cancels < ASSIGNS_MAX)
            (void)snprintf(s->cancels[s->n_cancels++], SKF_AGENT_ID, "%.*s", SKF_AGENT_ID - 1, m->cancel->assignment);
        return SKF_OK;
    default:
        return SKF_OK; /* a kind that this agent is too old for */
    }
}

enum skf_err skf_inbox_message(void *ctx, struct skf_wire_stream *st, const uint8_t *p, size_t n, struct skf_why *why)
{
    struct skf_session *s = ctx;
    Skiff__V1__CentreMessage *m;
    SKF_TRY(SKF_UNPACK(skiff__v1__centre_message, Skiff__V1__CentreMessage, p, n, SKF_WIRE_MESSAGE_MAX, &m, why));
    (void)pthread_mutex_lock(&s->mu);
    enum skf_err e = take(s, m, why);
    (void)pthread_mutex_unlock(&s->mu);
    bool is_for_loop = m->kind_case == SKIFF__V1__CENTRE_MESSAGE__KIND_WELCOME ||
                       m->kind_case == SKIFF__V1__CENTRE_MESSAGE__KIND_ASSIGN ||
                       m->kind_case == SKIFF__V1__CENTRE_MESSAGE__KIND_CANCEL;
    skf_msg_free(&m->base);
    if (e != SKF_OK)
        skf_log(SKF_LOG_WARN, "centre %s: %s", s->o.centre, why ? why->text : skf_err_name(e));
    if (is_for_loop)
        skf_session_wake(s);
    return e;
}

void skf_inbox_clear(struct skf_session *s)
{
    for (struct part *p = s->first, *next; p; p = next) {
        next = p->next;
        skf_free(p->payload.data);
        skf_free(p);
    }
    s->first = NULL;
    s->last = &s->first;
    s->queued = 0;
    s->refused[0] = 0;
}

/* ---- questions (the installing thread) ---------------------------------------------------------------------------------- */

/* Waits for news, at most half a second (cancel flags are set without our lock). Under mu. */
static void await(struct skf_session *s)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += 500000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    (void)pthread_cond_timedwait(&s->cv, &s->mu, &t);
}

/* SKF_OK: keep waiting. `breaks` as it was when the question was asked. Under mu. */
static enum skf_err still_waiting(struct skf_session *s, const atomic_bool *cancel, uint64_t breaks, uint64_t since,
                                  struct skf_why *why)
{
    if (atomic_load(cancel))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    if (s->breaks != breaks || !s->is_up)
        return skf_fail(why, SKF_ERR_NET, "the link to the centre broke");
    if (skf_now_ns() - SKF_MAX(s->heard, since) > SILENCE) {
        if (s->stream)
            skf_wire_end(s->stream, SKF_WIRE_CANCELLED, "silence");
        return skf_fail(why, SKF_ERR_TIMEOUT, "the centre fell silent");
    }
    return SKF_OK;
}

static enum skf_err link_wait(void *ctx, const atomic_bool *cancel, struct skf_why *why)
{
    struct skf_session *s = ctx;
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&s->mu);
    while (!s->is_up && e == SKF_OK) {
        if (atomic_load(cancel))
            e = skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        else
            await(s);
    }
    (void)pthread_mutex_unlock(&s->mu);
    return e;
}

static enum skf_err link_meta(void *ctx, const atomic_bool *cancel, const char *name, struct skf_buf *out,
                              struct skf_why *why)
{
    struct skf_session *s = ctx;
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__GetMeta get = SKIFF__V1__GET_META__INIT;
    skf_buf_clear(out);
    (void)pthread_mutex_lock(&s->mu);
    uint64_t breaks = s->breaks, since = skf_now_ns();
    get.id = s->meta_id = ++s->next_id;
    get.name = (char *)(uintptr_t)name;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_GET_META;
    m.get_meta = &get;
    s->meta = out;
    s->is_meta_done = false;
    s->meta_err = SKF_OK;
    enum skf_err e = s->is_up ? skf_session_put(s, &m) : SKF_ERR_NET;
    if (e != SKF_OK)
        e = skf_fail(why, SKF_ERR_NET, "no link to the centre");
    while (e == SKF_OK && !s->is_meta_done) {
        e = still_waiting(s, cancel, breaks, since, why);
        if (e == SKF_OK)
            await(s);
    }
    if (e == SKF_OK && s->meta_err != SKF_OK)
        e = skf_fail(why, s->meta_err, "%s: %s", name, s->meta_why.text);
    s->meta_id = 0;
    s->meta = NULL;
    (void)pthread_mutex_unlock(&s->mu);
    return e;
}

static enum skf_err link_ask(void *ctx, const char *delta, const struct skf_range *r, size_t n, struct skf_why *why)
{
    struct skf_session *s = ctx;
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__GetChunks get = SKIFF__V1__GET_CHUNKS__INIT;
    Skiff__V1__ChunkRange *ranges = skf_calloc(n + 1, sizeof *ranges), **list = skf_calloc(n + 1, sizeof *list);
    enum skf_err e = SKF_OK;
    if (!ranges || !list) {
        e = skf_fail(why, SKF_ERR_NOMEM, "no memory to ask for chunks");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        skiff__v1__chunk_range__init(&ranges[i]);
        ranges[i].first = r[i].first;
        ranges[i].count = r[i].count;
        list[i] = &ranges[i];
    }
    get.delta = (char *)(uintptr_t)delta;
    get.n_ranges = n;
    get.ranges = list;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_GET_CHUNKS;
    m.get_chunks = &get;
    (void)pthread_mutex_lock(&s->mu);
    /* What was asked over a link that broke is forgotten, and what was asked of a delta that another took the place of. */
    if (s->ask_breaks != s->breaks || s->refused[0] || strncmp(s->ask_delta, delta, sizeof s->ask_delta - 1) != 0) {
        skf_inbox_clear(s);
        s->ask_breaks = s->breaks;
        s->ask_first = s->next_id + 1;
        (void)snprintf(s->ask_delta, sizeof s->ask_delta, "%s", delta);
    }
    if (s->ask_first > s->ask_last)
        s->ask_first = s->next_id + 1;
    get.id = ++s->next_id;
    e = s->is_up ? skf_session_put(s, &m) : SKF_ERR_NET;
    if (e == SKF_OK)
        s->ask_last = get.id;
    else
        (void)skf_fail(why, e, "no link to the centre");
    (void)pthread_mutex_unlock(&s->mu);
out:
    skf_free(ranges);
    skf_free(list);
    return e;
}

static enum skf_err link_chunk(void *ctx, const atomic_bool *cancel, struct skf_payload *out, struct skf_why *why)
{
    struct skf_session *s = ctx;
    enum skf_err e = SKF_OK;
    uint64_t since = skf_now_ns();
    (void)pthread_mutex_lock(&s->mu);
    while (e == SKF_OK && !s->first) {
        if (s->refused[0])
            e = skf_fail(why, SKF_ERR_REFUSED, "the centre: %s", s->refused);
        else if ((e = still_waiting(s, cancel, s->ask_breaks, since, why)) == SKF_OK && s->ask_first > s->ask_last)
            e = skf_fail(why, SKF_ERR_FORMAT, "the centre left out chunks that were asked for");
        else if (e == SKF_OK)
            await(s);
    }
    if (e == SKF_ERR_CANCELLED)
        s->ask_delta[0] = 0; /* nobody waits for the rest, whatever is asked for next */
    if (e == SKF_OK) {
        struct part *p = s->first;
        *out = p->payload;
        s->first = p->next;
        if (!s->first)
            s->last = &s->first;
        s->queued -= p->payload.n + sizeof *p;
        skf_free(p);
    }
    (void)pthread_mutex_unlock(&s->mu);
    return e;
}

struct skf_link skf_session_link(struct skf_session *s)
{
    return (struct skf_link){s, link_wait, link_meta, link_ask, link_chunk};
}
