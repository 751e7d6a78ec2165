/*
 * Operator.Publish: Begin -> Need -> Data... -> Finish -> Progress... -> Done.
 *
 * Nothing of a version is visible before Finish; chunks that came stay, so that a broken upload goes on where it was.
 * Finish makes the version whole in this order: targets metadata, then registry with the channel.  A crash in between
 * leaves metadata that lists a version nobody is assigned; publishing again mends it.
 *
 * What is sent is numbered: the manifest's chunks, then the pieces of the adapter, if one comes along.  Its pieces are kept
 * as chunks are, and its record comes into the registry with the version, in one transaction.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/adapters.h"
#include "distributor/centre_priv.h"
#include "distributor/manifest.h"
#include "proto/msg.h"
#include "trust/cert.h"

enum stage { STAGE_NEW, STAGE_DATA, STAGE_WAITING, STAGE_OVER };

struct publication {
    struct skf_centre *c;
    struct skf_wire_stream *stream;
    struct publication *next; /* in the centre's list while STAGE_WAITING; under its lock */
    enum stage stage;
    char who[65];
    uint8_t *manifest, *targets;
    size_t manifest_len, targets_len;
    Skiff__V1__Manifest *m;
    struct skf_reg_version v;
    struct skf_reg_adapter adapter; /* n is 0 for none */
    char channel[SKF_REG_NAME];
    bool is_known; /* the same version is there already */
};

static uint64_t part_count(const struct publication *p)
{
    return p->m->n_chunk_lengths + p->adapter.n;
}

struct part {
    const uint8_t *digest;
    uint32_t length;
};

/* number < part_count */
static struct part part_of(const struct publication *p, uint64_t number)
{
    uint64_t chunks = p->m->n_chunk_lengths;
    if (number < chunks)
        return (struct part){p->m->chunk_digests.data + number * SKF_DIGEST, p->m->chunk_lengths[number]};
    number -= chunks;
    return (struct part){p->adapter.digests + number * SKF_DIGEST, skf_reg_adapter_length(&p->adapter, number)};
}

/* ---- Begin: is it sound, is it signed, what is missing --------------------------------------------------------- */
/* A delta that is listed in signed metadata stays as it is: an adapter that comes after it is left where it is. */
static enum skf_err take_adapter(struct publication *p, const Skiff__V1__PublishAdapter *a, struct skf_why *why)
{
    struct skf_reg_delta had;
    SKF_TRY(skf_adapters_take(p->c->registry, a, &p->v, &p->adapter, why));
    if (skf_registry_delta(p->c->registry, p->adapter.from, p->adapter.to, &had, NULL) == SKF_OK)
        skf_reg_adapter_clear(&p->adapter);
    return SKF_OK;
}

static enum skf_err take_begin(struct publication *p, const Skiff__V1__PublishBegin *b, struct skf_why *why)
{
    char path[SKF_TARGET_PATH];
    SKF_TRY(skf_manifest_read(b->manifest.data, b->manifest.len, &p->m, why));
    skf_manifest_version(p->m, &p->v);
    if (b->channel[0] && !is_registry_name(b->channel))
        return skf_fail(why, SKF_ERR_ARG, "channel: names are 1 to 128 of [A-Za-z0-9._-]");
    (void)snprintf(p->channel, sizeof p->channel, "%s", b->channel);
    SKF_TRY(skf_registry_may_add(p->c->registry, &p->v, &p->is_known, why));
    if (b->adapter)
        SKF_TRY(take_adapter(p, b->adapter, why));
    p->manifest = skf_memdup(b->manifest.data, b->manifest.len);
    p->manifest_len = b->manifest.len;
    if (!p->manifest)
        return SKF_ERR_NOMEM;
    if (b->dry_run || p->is_known)
        return SKF_OK;
    skf_manifest_path(p->v.model, p->v.version, path);
    SKF_TRY(skf_signer_check(p->c->signer, b->targets.data, b->targets.len, path, p->manifest, p->manifest_len, why));
    p->targets = skf_memdup(b->targets.data, b->targets.len);
    p->targets_len = b->targets.len;
    return p->targets ? SKF_OK : SKF_ERR_NOMEM;
}

/* Ranges of what is not here. */
static enum skf_err send_need(struct publication *p)
{
    Skiff__V1__PublishReply r = SKIFF__V1__PUBLISH_REPLY__INIT;
    Skiff__V1__PublishNeed need = SKIFF__V1__PUBLISH_NEED__INIT;
    uint64_t n = part_count(p);
    uint64_t *ranges = skf_calloc(n + 1, 2 * sizeof *ranges);
    if (!ranges)
        return SKF_ERR_NOMEM;
    need.first = ranges;
    need.count = ranges + n + 1;
    bool was_missing = false;
    for (uint64_t i = 0; i < n; i++) {
        struct part part = part_of(p, i);
        bool is_missing = !has_chunk(p->c->chunks, part.digest);
        if (is_missing && !was_missing) {
            need.first[need.n_first++] = i;
            need.n_count++;
        }
        if (is_missing) {
            need.count[need.n_count - 1]++;
            need.bytes += part.length;
            need.adapter_bytes += i < p->m->n_chunk_lengths ? 0 : part.length;
        }
        was_missing = is_missing;
    }
    r.kind_case = SKIFF__V1__PUBLISH_REPLY__KIND_NEED;
    r.need = &need;
    need.takes_adapter = true;
    enum skf_err e = skf_centre_send(p->stream, &r.base);
    skf_free(ranges);
    return e;
}

/* ---- Done: the deltas that make it ----------------------------------------------------------------------------- */
#define DELTAS_MAX 1024
struct done {
    struct skf_centre *c;
    const char *to;
    Skiff__V1__DeltaInfo info[DELTAS_MAX], *list[DELTAS_MAX];
    char from[DELTAS_MAX][SKF_REG_NAME], adapter[DELTAS_MAX][SKF_ADAPTER_SAID];
    size_t n;
};

static enum skf_err note_delta(void *ctx, const struct skf_reg_delta *d)
{
    struct done *x = ctx;
    struct skf_reg_version v = {.version = ""};
    if (x->n == DELTAS_MAX)
        return SKF_OK;
    if (skf_registry_by_root(x->c->registry, d->from, &v, NULL) != SKF_OK)
        v.version[0] = 0; /* from the empty content */
    (void)snprintf(x->from[x->n], SKF_REG_NAME, "%s", v.version);
    skiff__v1__delta_info__init(&x->info[x->n]);
    x->info[x->n].from_version = x->from[x->n];
    x->info[x->n].to_version = (char *)(uintptr_t)x->to;
    x->info[x->n].bytes = d->bytes;
    skf_adapters_said(x->c->registry, d, x->adapter[x->n]);
    x->info[x->n].adapter = x->adapter[x->n];
    x->list[x->n] = &x->info[x->n];
    x->n++;
    return SKF_OK;
}

static enum skf_err send_done(struct skf_centre *c, struct skf_wire_stream *s, const struct skf_reg_version *v)
{
    Skiff__V1__PublishReply r = SKIFF__V1__PUBLISH_REPLY__INIT;
    Skiff__V1__PublishDone done = SKIFF__V1__PUBLISH_DONE__INIT;
    struct done *x = skf_calloc(1, sizeof *x);
    if (!x)
        return SKF_ERR_NOMEM;
    x->c = c;
    x->to = v->version;
    enum skf_err e = skf_registry_each_delta(c->registry, v->root, note_delta, x);
    r.kind_case = SKIFF__V1__PUBLISH_REPLY__KIND_DONE;
    r.done = &done;
    done.n_deltas = x->n;
    done.deltas = x->list;
    if (e == SKF_OK)
        e = skf_centre_send(s, &r.base);
    skf_free(x);
    if (e == SKF_OK)
        skf_wire_end(s, SKF_WIRE_OK, "");
    return e;
}

/* ---- Finish ---------------------------------------------------------------------------------------------------- */
static enum skf_err check_parts(struct publication *p, struct skf_why *why)
{
    for (uint64_t i = 0; i < part_count(p); i++)
        if (!has_chunk(p->c->chunks, part_of(p, i).digest))
            return skf_fail(why, SKF_ERR_STATE, "%s %s: chunk %llu was not sent", p->v.model, p->v.version,
                            (unsigned long long)i);
    return SKF_OK;
}

static enum skf_err commit(struct publication *p, struct skf_why *why)
{
    (void)pthread_mutex_lock(&p->c->publish_lock);
    enum skf_err e = check_parts(p, why); /* a version that was removed meanwhile may have taken some along */
    if (e == SKF_OK && !p->is_known) {
        char path[SKF_TARGET_PATH];
        bool is_known;
        skf_manifest_path(p->v.model, p->v.version, path);
        e = skf_registry_may_add(p->c->registry, &p->v, &is_known, why); /* somebody may have been faster */
        if (e == SKF_OK)
            e = skf_signer_check(p->c->signer, p->targets, p->targets_len, path, p->manifest, p->manifest_len, why);
        if (e == SKF_OK)
            e = skf_signer_targets(p->c->signer, p->targets, p->targets_len, why);
    }
    if (e == SKF_OK)
        e = skf_registry_add_version(p->c->registry, &p->v, p->manifest, p->manifest_len,
                                     p->adapter.n ? &p->adapter : NULL, p->channel[0] ? p->channel : NULL, why);
    if (e == SKF_OK && p->adapter.n)
        skf_centre_clear(p->c); /* of an adapter whose place this one took */
    (void)pthread_mutex_unlock(&p->c->publish_lock);
    return e;
}

static enum skf_err on_finish(struct publication *p, struct skf_why *why)
{
    struct skf_centre *c = p->c;
    SKF_TRY(commit(p, why));
    skf_log(SKF_LOG_INFO, "%s published %s %s%s%s%s", p->who, p->v.model, p->v.version,
            p->channel[0] ? " to channel " : "", p->channel, p->adapter.n ? ", with an adapter" : "");
    skf_centre_build_for(c, p->v.model, p->v.root);
    (void)pthread_mutex_lock(&c->lock);
    p->stage = STAGE_WAITING;
    p->next = c->publications;
    c->publications = p;
    skf_centre_wake(c, NULL);
    (void)pthread_mutex_unlock(&c->lock);
    /* Between the queueing and the listing a build may have ended unheard. */
    if (skf_builder_pending(c->builder, p->v.root) == 0)
        return send_done(c, p->stream, &p->v);
    return SKF_OK;
}

/* ---- builds that a publication waits for ----------------------------------------------------------------------- */
static void send_progress(struct skf_wire_stream *s, const struct skf_build_event *ev, const char *from, const char *to)
{
    char what[2 * SKF_REG_NAME + 16];
    Skiff__V1__PublishReply r = SKIFF__V1__PUBLISH_REPLY__INIT;
    Skiff__V1__PublishProgress progress = SKIFF__V1__PUBLISH_PROGRESS__INIT;
    if (from[0])
        (void)snprintf(what, sizeof what, "delta %s -> %s", from, to);
    else
        (void)snprintf(what, sizeof what, "full content of %s", to);
    r.kind_case = SKIFF__V1__PUBLISH_REPLY__KIND_PROGRESS;
    r.progress = &progress;
    progress.what = what;
    progress.done = ev->done;
    progress.total = ev->total;
    if (skf_centre_send(s, &r.base) != SKF_OK)
        skf_log(SKF_LOG_DEBUG, "progress of a build not sent");
}

struct listener { /* a publication that waits for what was built, kept alive while it is told */
    struct skf_wire_stream *stream;
    struct skf_reg_version v;
};

/* Those that wait for this content; freed with skf_free, each stream to be unreferenced. */
static struct listener *listeners(struct skf_centre *c, const uint8_t to[SKF_DIGEST], size_t *n)
{
    struct listener *list = NULL;
    size_t most = 0;
    *n = 0;
    (void)pthread_mutex_lock(&c->lock);
    for (struct publication *p = c->publications; p; p = p->next)
        most++;
    if (most)
        list = skf_calloc(most, sizeof *list);
    for (struct publication *p = c->publications; list && p; p = p->next) {
        if (memcmp(p->v.root, to, SKF_DIGEST) != 0)
            continue;
        skf_wire_ref(p->stream);
        list[*n].stream = p->stream;
        list[(*n)++].v = p->v;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return list;
}

void skf_publish_on_build(struct skf_centre *c, const struct skf_build_event *ev)
{
    struct skf_reg_version from = {.version = ""};
    size_t n;
    struct listener *to = listeners(c, ev->to, &n);
    bool is_last = ev->is_over && skf_builder_pending(c->builder, ev->to) == 0;
    if (n && skf_registry_by_root(c->registry, ev->from, &from, NULL) != SKF_OK)
        from.version[0] = 0;
    for (size_t i = 0; i < n; i++) {
        char text[sizeof(struct skf_why) + 2 * SKF_REG_NAME + 64];
        (void)snprintf(text, sizeof text, "%s %s is published, but a delta to it was not built: %s", to[i].v.model,
                       to[i].v.version, ev->text ? ev->text : "");
        if (ev->is_over && ev->err != SKF_OK)
            skf_wire_end(to[i].stream, skf_wire_status_of(ev->err), text);
        else if (is_last && send_done(c, to[i].stream, &to[i].v) != SKF_OK)
            skf_wire_end(to[i].stream, SKF_WIRE_INTERNAL, "published; the answer could not be made");
        else if (!ev->is_over)
            send_progress(to[i].stream, ev, from.version, to[i].v.version);
        skf_wire_unref(to[i].stream);
    }
    skf_free(to);
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */
static enum skf_err on_open(void *ctx, struct skf_wire_stream *stream, void **stream_ctx, struct skf_why *why)
{
    struct publication *p = skf_calloc(1, sizeof *p);
    if (!p)
        return SKF_ERR_NOMEM;
    p->c = ctx;
    p->stream = stream;
    enum skf_err e = skf_centre_admit(p->c, skf_wire_identity(stream), SKF_CERT_OPERATOR, p->who, why);
    if (e != SKF_OK) {
        skf_free(p);
        return e;
    }
    *stream_ctx = p;
    return SKF_OK;
}

static enum skf_err on_begin(struct publication *p, const Skiff__V1__PublishBegin *b, struct skf_why *why)
{
    SKF_TRY(take_begin(p, b, why));
    SKF_TRY(send_need(p));
    p->stage = STAGE_DATA;
    if (!b->dry_run)
        return SKF_OK;
    p->stage = STAGE_OVER;
    return send_done(p->c, p->stream, &p->v);
}

static enum skf_err on_data(struct publication *p, const Skiff__V1__PublishData *d, struct skf_why *why)
{
    if (d->number >= part_count(p))
        return skf_fail(why, SKF_ERR_FORMAT, "chunk %llu: there is none", (unsigned long long)d->number);
    struct part part = part_of(p, d->number);
    if (d->data.len != part.length)
        return skf_fail(why, SKF_ERR_FORMAT, "chunk %llu: %zu bytes instead of %u", (unsigned long long)d->number,
                        d->data.len, part.length);
    enum skf_err e = skf_chunks_put(p->c->chunks, part.digest, d->data.data, d->data.len, why);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "chunk %llu", (unsigned long long)d->number);
}

static enum skf_err on_message(void *ctx, struct skf_wire_stream *stream, const uint8_t *bytes, size_t n,
                               struct skf_why *why)
{
    struct publication *p = ctx;
    Skiff__V1__PublishMessage *m = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__publish_message, Skiff__V1__PublishMessage, bytes, n, SKF_WIRE_MESSAGE_MAX, &m, why));
    enum skf_err e;
    if (m->kind_case == SKIFF__V1__PUBLISH_MESSAGE__KIND_BEGIN && p->stage == STAGE_NEW)
        e = on_begin(p, m->begin, why);
    else if (m->kind_case == SKIFF__V1__PUBLISH_MESSAGE__KIND_DATA && p->stage == STAGE_DATA)
        e = on_data(p, m->data, why);
    else if (m->kind_case == SKIFF__V1__PUBLISH_MESSAGE__KIND_FINISH && p->stage == STAGE_DATA)
        e = on_finish(p, why);
    else
        e = skf_fail(why, SKF_ERR_STATE, "this message does not belong here");
    skf_msg_free(&m->base);
    return e;
}

static void on_done(void *ctx, struct skf_wire_stream *stream, enum skf_wire_status status, const char *text)
{
    struct publication *p = ctx;
    (void)pthread_mutex_lock(&p->c->lock);
    for (struct publication **at = &p->c->publications; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    (void)pthread_mutex_unlock(&p->c->lock);
    skf_manifest_free(p->m);
    skf_reg_adapter_clear(&p->adapter);
    skf_free(p->manifest);
    skf_free(p->targets);
    skf_free(p);
}

const struct skf_wire_method skf_publish_method = {
    .path = "/skiff.v1.Operator/Publish",
    .open = on_open,
    .events = {on_message, NULL, NULL, on_done},
};
