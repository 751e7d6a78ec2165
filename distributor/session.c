/* A session with an agent: what it says is taken down here; what it is told is decided in dispatch.c, what it fetches
 * comes from feed.c. */
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/centre_priv.h"
#include "proto/msg.h"
#include "trust/cert.h"

#define PROTOCOL      1
#define RETRY_FIRST_S 15
#define RETRY_MOST_S  600

/* Text from outside into a field: cut to fit at a whole character. */
static void set_text(char *to, size_t cap, const char *from)
{
    size_t n = strnlen(from, cap);
    if (n == cap) {
        n = cap - 1;
        while (n > 0 && ((unsigned char)from[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(to, from, n);
    to[n] = 0;
}

/* ---- what a box has -------------------------------------------------------------------------------------------- */
static void take_held(struct device *d, Skiff__V1__RunningVersion *const *list, size_t n)
{
    struct skf_reg_held *held = skf_calloc(SKF_MIN(n, (size_t)SKF_REG_HELD_MAX) + 1, sizeof *held);
    size_t kept = 0;
    if (!held)
        return;
    for (size_t i = 0; i < n && kept < SKF_REG_HELD_MAX; i++) {
        if (!is_registry_name(list[i]->model) || !is_registry_name(list[i]->version) || list[i]->root.len != SKF_DIGEST)
            continue;
        set_text(held[kept].model, sizeof held[kept].model, list[i]->model);
        set_text(held[kept].version, sizeof held[kept].version, list[i]->version);
        set_text(held[kept].slot, sizeof held[kept].slot, list[i]->slot);
        memcpy(held[kept++].root, list[i]->root.data, SKF_DIGEST);
    }
    skf_free(d->d.held);
    d->d.held = held;
    d->d.n_held = kept;
}

static void take_inventory(struct device *d, const Skiff__V1__Inventory *v)
{
    size_t n = SKF_MIN(v->n_tags, (size_t)SKF_REG_TAGS_MAX);
    set_text(d->d.machine, sizeof d->d.machine, v->machine);
    set_text(d->d.isa, sizeof d->d.isa, v->isa);
    set_text(d->d.agent_version, sizeof d->d.agent_version, v->agent_version);
    d->d.cpus = v->cpus;
    d->d.memory_bytes = v->memory_bytes;
    d->d.disk_free = v->disk_free;
    d->d.runtime_level = v->runtime_level;
    char(*tags)[SKF_REG_TAG] = skf_calloc(n + 1, sizeof *tags);
    if (tags) {
        for (size_t i = 0; i < n; i++)
            set_text(tags[i], sizeof tags[i], v->tags[i]);
        skf_free(d->d.tags);
        d->d.tags = tags;
        d->d.n_tags = n;
    }
    take_held(d, v->versions, v->n_versions);
}

static enum skf_err send_welcome(struct session *s)
{
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__Welcome w = SKIFF__V1__WELCOME__INIT;
    m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_WELCOME;
    m.welcome = &w;
    w.protocol = PROTOCOL;
    w.device = s->name;
    w.time = skf_now_unix();
    return skf_centre_send(s->stream, &m.base);
}

static enum skf_err on_hello(struct session *s, const Skiff__V1__Hello *h, struct skf_why *why)
{
    struct skf_centre *c = s->centre;
    struct skf_wire_stream *old = NULL;
    if (h->protocol != PROTOCOL)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "protocol %u; this distributor speaks %u", h->protocol, PROTOCOL);
    if (s->device)
        return skf_fail(why, SKF_ERR_STATE, "a second Hello");
    SKF_TRY(send_welcome(s)); /* before the dispatcher may send anything */
    (void)pthread_mutex_lock(&c->lock);
    struct device *d = skf_centre_take(c, s->name);
    if (d) {
        if (d->session) {
            old = d->session->stream;
            skf_wire_ref(old);
            d->session->device = NULL;
        }
        d->session = s;
        s->device = d;
        if (h->inventory)
            take_inventory(d, h->inventory);
        d->d.last_seen = skf_now_unix();
        d->is_changed = true;
        skf_centre_wake(c, d);
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (old) {
        skf_wire_end(old, SKF_WIRE_ABORTED, "a newer session of this device took its place");
        skf_wire_unref(old);
    }
    if (!d)
        return skf_fail(why, SKF_ERR_FULL, "no room for another device");
    skf_log(SKF_LOG_INFO, "%s: connected", s->name);
    return SKF_OK;
}

/* ---- what becomes of an assignment ----------------------------------------------------------------------------- */
static bool is_worth_a_retry(const char *error_class)
{
    static const enum skf_err passing[] = {SKF_ERR_NET,       SKF_ERR_TIMEOUT, SKF_ERR_IO,      SKF_ERR_BUSY,
                                           SKF_ERR_FULL,      SKF_ERR_NOMEM,   SKF_ERR_EXPIRED, SKF_ERR_CANCELLED,
                                           SKF_ERR_NOT_FOUND, SKF_ERR_STATE};
    for (size_t i = 0; i < SKF_COUNT(passing); i++)
        if (strcmp(error_class, skf_err_name(passing[i])) == 0)
            return true;
    return false;
}

static void on_failed(struct device *d, struct skf_reg_work *w, bool is_returned)
{
    w->has_failed = true;
    w->retry_at = 0;
    if (is_returned) /* it ran and was found wanting: only an operator's new decision tries it again */
        return;
    if (strcmp(w->error_class, skf_err_name(SKF_ERR_BASE)) == 0 && !w->is_full) {
        w->is_full = true; /* what the box has is not what it says: once more, from nothing */
    } else if (is_worth_a_retry(w->error_class)) {
        unsigned shift = SKF_MIN(w->attempts, 6u);
        w->retry_at = skf_now_unix() + SKF_MIN(RETRY_FIRST_S << shift, RETRY_MOST_S);
        w->attempts++;
    }
}

static void take_state(struct session *s, struct device *d, const Skiff__V1__State *st)
{
    struct skf_reg_work *w = skf_centre_work(d, st->model);
    bool is_final = false;
    if (!w)
        return;
    if (strcmp(w->id, st->assignment) != 0 && !(w->id[0] == 0 && strlen(st->assignment) < sizeof w->id))
        return; /* of an assignment that another took the place of; its inventory counts all the same */
    set_text(w->id, sizeof w->id, st->assignment);
    if (is_registry_name(st->version))
        set_text(w->target, sizeof w->target, st->version);
    w->phase = (uint32_t)st->phase;
    w->chunks_done = st->chunks_done;
    w->chunks_total = st->chunks_total;
    w->bytes_received = st->bytes_received;
    if (st->swap_pause_us)
        w->swap_pause_us = st->swap_pause_us;
    set_text(w->error_class, sizeof w->error_class, st->error_class);
    set_text(w->error, sizeof w->error, st->error);
    if (st->phase == SKIFF__V1__PHASE__PHASE_FAILED || st->phase == SKIFF__V1__PHASE__PHASE_RETURNED) {
        skf_log(SKF_LOG_WARN, "%s: %s %s: %s: %s", d->d.name, w->model, w->target,
                st->phase == SKIFF__V1__PHASE__PHASE_FAILED ? "failed" : "returned", w->error);
        on_failed(d, w, st->phase == SKIFF__V1__PHASE__PHASE_RETURNED);
        is_final = true;
    } else if (st->phase == SKIFF__V1__PHASE__PHASE_CONFIRMED) {
        w->has_failed = false;
        w->attempts = 0;
        is_final = true;
        skf_log(SKF_LOG_INFO, "%s: %s %s confirmed", d->d.name, w->model, w->target);
    } else if (st->phase != SKIFF__V1__PHASE__PHASE_IDLE) {
        w->has_failed = false;
    }
    for (size_t i = 0; i < s->n_sent; i++)
        if (is_final && strcmp(s->sent[i].id, st->assignment) == 0)
            s->sent[i].is_under_way = false;
}

static enum skf_err on_state(struct session *s, const Skiff__V1__State *st, struct skf_why *why)
{
    struct skf_centre *c = s->centre;
    if (st->model[0] && !is_registry_name(st->model))
        return skf_fail(why, SKF_ERR_FORMAT, "State of a model without a name");
    if ((unsigned)st->phase > SKIFF__V1__PHASE__PHASE_FAILED)
        return skf_fail(why, SKF_ERR_FORMAT, "State with phase %d", (int)st->phase);
    (void)pthread_mutex_lock(&c->lock);
    struct device *d = s->device;
    if (d) {
        if (st->n_versions > 0)
            take_held(d, st->versions, st->n_versions);
        if (st->model[0] && st->assignment[0])
            take_state(s, d, st);
        d->d.last_seen = skf_now_unix();
        d->is_changed = true;
        skf_centre_wake(c, d);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return SKF_OK;
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */
static enum skf_err on_open(void *ctx, struct skf_wire_stream *stream, void **stream_ctx, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char name[65];
    SKF_TRY(skf_centre_admit(c, skf_wire_identity(stream), SKF_CERT_DEVICE, name, why));
    struct session *s = skf_calloc(1, sizeof *s);
    if (!s)
        return SKF_ERR_NOMEM;
    s->centre = c;
    s->stream = stream;
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    enum skf_err e = skf_feed_new(c->feeds, &s->feed);
    if (e != SKF_OK) {
        skf_free(s);
        return e;
    }
    *stream_ctx = s;
    return SKF_OK;
}

static enum skf_err on_message(void *ctx, struct skf_wire_stream *stream, const uint8_t *p, size_t n,
                               struct skf_why *why)
{
    struct session *s = ctx;
    Skiff__V1__AgentMessage *m = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__agent_message, Skiff__V1__AgentMessage, p, n, SKF_WIRE_MESSAGE_MAX, &m, why));
    enum skf_err e = SKF_OK;
    bool has_hello = m->kind_case == SKIFF__V1__AGENT_MESSAGE__KIND_HELLO;
    (void)pthread_mutex_lock(&s->centre->lock);
    bool is_known = s->device;
    (void)pthread_mutex_unlock(&s->centre->lock);
    if (!has_hello && !is_known) {
        e = skf_fail(why, SKF_ERR_STATE, "no Hello on this session, or a newer session took its place");
        goto out;
    }
    switch (m->kind_case) {
    case SKIFF__V1__AGENT_MESSAGE__KIND_HELLO:
        e = on_hello(s, m->hello, why);
        break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_GET_META:
        e = skf_feed_meta(s->feed, m->get_meta, why);
        break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_GET_CHUNKS:
        e = skf_feed_chunks(s->feed, m->get_chunks, why);
        break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_STATE:
        e = on_state(s, m->state, why);
        break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_PONG:
    case SKIFF__V1__AGENT_MESSAGE__KIND__NOT_SET: /* of a later release */
    default:
        break;
    }
    if (e == SKF_OK)
        skf_feed_pump(s->feed, stream);
out:
    skf_msg_free(&m->base);
    return e;
}

static void on_writable(void *ctx, struct skf_wire_stream *stream)
{
    struct session *s = ctx;
    skf_feed_pump(s->feed, stream);
}

static void on_half_close(void *ctx, struct skf_wire_stream *stream)
{
    skf_wire_end(stream, SKF_WIRE_OK, "");
}

static void on_done(void *ctx, struct skf_wire_stream *stream, enum skf_wire_status status, const char *text)
{
    struct session *s = ctx;
    struct skf_centre *c = s->centre;
    (void)pthread_mutex_lock(&c->lock);
    bool is_present = s->device;
    if (s->device) {
        s->device->session = NULL;
        s->device->d.last_seen = skf_now_unix();
        s->device->is_changed = true;
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (is_present)
        skf_log(SKF_LOG_INFO, "%s: disconnected: %s", s->name, text);
    skf_feed_free(s->feed);
    skf_free(s);
}

const struct skf_wire_method skf_session_method = {
    .path = "/skiff.v1.Fleet/Session",
    .open = on_open,
    .events = {on_message, on_writable, on_half_close, on_done},
};
