/*
 * How a version gets to the distributor: Begin, then each chunk (and piece of an adapter) that it lacks while the stream takes them, Finish, and
 * then the distributor's own work until Done.  The wire's callbacks note what came and wake the verb's thread, which
 * does the rest.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/publish.h"
#include "proto/msg.h"

#define AHEAD (4u << 20) /* bytes that may wait in the stream */

struct sending {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    ProtobufCMessage *need, *done; /* PublishReply of that kind */
    struct {
        char what[300];
        uint64_t done, total;
        bool is_new;
    } progress;
    bool is_over;
    enum skf_err err;
    struct skf_why why;
};

static enum skf_err on_message(void *ctx, struct skf_wire_stream *stream, const uint8_t *p, size_t n,
                               struct skf_why *why)
{
    struct sending *x = ctx;
    Skiff__V1__PublishReply *r = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__publish_reply, Skiff__V1__PublishReply, p, n, SKF_WIRE_MESSAGE_MAX, &r, why));
    ProtobufCMessage *left = &r->base;
    (void)pthread_mutex_lock(&x->lock);
    if (r->kind_case == SKIFF__V1__PUBLISH_REPLY__KIND_NEED && !x->need) {
        x->need = &r->base;
        left = NULL;
    } else if (r->kind_case == SKIFF__V1__PUBLISH_REPLY__KIND_DONE && !x->done) {
        x->done = &r->base;
        left = NULL;
    } else if (r->kind_case == SKIFF__V1__PUBLISH_REPLY__KIND_PROGRESS) {
        (void)snprintf(x->progress.what, sizeof x->progress.what, "%s", r->progress->what);
        x->progress.done = r->progress->done;
        x->progress.total = r->progress->total;
        x->progress.is_new = true;
    }
    (void)pthread_cond_signal(&x->changed);
    (void)pthread_mutex_unlock(&x->lock);
    if (left)
        skf_msg_free(left);
    return SKF_OK;
}

static void wake(void *ctx, struct skf_wire_stream *stream)
{
    struct sending *x = ctx;
    (void)pthread_mutex_lock(&x->lock);
    (void)pthread_cond_signal(&x->changed);
    (void)pthread_mutex_unlock(&x->lock);
}

static void on_done(void *ctx, struct skf_wire_stream *stream, enum skf_wire_status status, const char *text)
{
    struct sending *x = ctx;
    (void)pthread_mutex_lock(&x->lock);
    x->is_over = true;
    x->err = skf_wire_err_of(status);
    (void)snprintf(x->why.text, sizeof x->why.text, "%s", text);
    (void)pthread_cond_signal(&x->changed);
    (void)pthread_mutex_unlock(&x->lock);
}

/* A short wait with the lock held, so that Ctrl-C is seen. */
static void wait_a_little(struct sending *x)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&x->changed, &x->lock, &until);
}

static enum skf_err ended(struct sending *x, struct skf_why *why)
{
    enum skf_err e = x->err == SKF_OK ? SKF_ERR_NET : x->err;
    return skf_fail(why, e, "%s", x->why.text[0] ? x->why.text : "the distributor ended the call");
}

/* Until *what is there. Progress of the distributor's own work is drawn meanwhile. */
static enum skf_err wait_for(struct sending *x, ProtobufCMessage **what, const struct skf_progress *ours,
                             struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    char label[sizeof x->progress.what];
    (void)pthread_mutex_lock(&x->lock);
    while (!*what && e == SKF_OK) {
        if (x->is_over) {
            e = ended(x, why);
        } else if (is_cancelled(ours)) {
            e = skf_fail(why, SKF_ERR_CANCELLED, "publish: stopped");
        } else if (x->progress.is_new) {
            x->progress.is_new = false;
            memcpy(label, x->progress.what, sizeof label);
            uint64_t done = x->progress.done, total = x->progress.total;
            (void)pthread_mutex_unlock(&x->lock);
            struct skf_progress theirs = skf_cli_progress(label);
            skf_progress_tell(&theirs, done, total);
            (void)pthread_mutex_lock(&x->lock);
        } else {
            wait_a_little(x);
        }
    }
    (void)pthread_mutex_unlock(&x->lock);
    return e;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */
static enum skf_err send_message(struct skf_wire_stream *s, struct sending *x, const Skiff__V1__PublishMessage *m,
                                 struct skf_why *why)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_msg_pack(&m->base, &p, &n));
    enum skf_err e = skf_wire_send(s, p, n);
    skf_free(p);
    if (e != SKF_ERR_NET)
        return e;
    (void)pthread_mutex_lock(&x->lock); /* the call is over: it says why */
    while (!x->is_over)
        wait_a_little(x);
    e = ended(x, why);
    (void)pthread_mutex_unlock(&x->lock);
    return e;
}

static enum skf_err send_begin(struct skf_publish *p, struct skf_wire_stream *s, struct sending *x, struct skf_why *why)
{
    Skiff__V1__PublishMessage m = SKIFF__V1__PUBLISH_MESSAGE__INIT;
    Skiff__V1__PublishBegin b = SKIFF__V1__PUBLISH_BEGIN__INIT;
    Skiff__V1__PublishAdapter a = SKIFF__V1__PUBLISH_ADAPTER__INIT;
    m.kind_case = SKIFF__V1__PUBLISH_MESSAGE__KIND_BEGIN;
    m.begin = &b;
    b.manifest = (ProtobufCBinaryData){p->manifest_len, p->manifest};
    b.targets = (ProtobufCBinaryData){p->targets_len, (uint8_t *)p->targets};
    if (p->channel)
        b.channel = (char *)(uintptr_t)p->channel;
    b.dry_run = p->is_dry;
    if (p->adapter.file) {
        b.adapter = &a;
        a.base_version = p->adapter.base;
        a.size = p->adapter.map.size;
        a.digests = (ProtobufCBinaryData){p->adapter.n * SKF_DIGEST, p->adapter.digests};
    }
    return send_message(s, x, &m, why);
}

/* A chunk, or behind the last one a piece of the adapter. */
static enum skf_err send_part(struct skf_publish *p, struct skf_wire_stream *s, struct sending *x, uint64_t number,
                               uint8_t *scratch, struct skf_why *why)
{
    Skiff__V1__PublishMessage m = SKIFF__V1__PUBLISH_MESSAGE__INIT;
    Skiff__V1__PublishData d = SKIFF__V1__PUBLISH_DATA__INIT;
    const uint8_t *bytes = scratch;
    uint32_t n;
    if (number < p->cut.n) {
        const struct skf_chunk *c = &p->cut.chunks[number];
        n = c->length;
        SKF_TRY(skf_source_view(skf_model_source(p->content), c->offset, n, scratch, &bytes));
    } else {
        SKF_TRY(skf_publish_adapter_piece(&p->adapter, number - p->cut.n, scratch, &n, why));
    }
    m.kind_case = SKIFF__V1__PUBLISH_MESSAGE__KIND_DATA;
    m.data = &d;
    d.number = number;
    d.data = (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)bytes};
    SKF_TRY(send_message(s, x, &m, why));
    p->bytes_sent += n;
    p->chunks_sent++;
    return SKF_OK;
}

/* Waits until the stream takes more. */
static enum skf_err wait_for_room(struct skf_wire_stream *s, struct sending *x, const struct skf_progress *progress,
                                  struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&x->lock);
    while (e == SKF_OK && skf_wire_queued(s) > AHEAD) {
        if (x->is_over)
            e = ended(x, why);
        else if (is_cancelled(progress))
            e = skf_fail(why, SKF_ERR_CANCELLED, "publish: stopped; what was sent stays, publish again to go on");
        else
            wait_a_little(x);
    }
    (void)pthread_mutex_unlock(&x->lock);
    return e;
}

static enum skf_err send_needed(struct skf_publish *p, struct skf_wire_stream *s, struct sending *x,
                                const struct skf_progress *progress, struct skf_why *why)
{
    const Skiff__V1__PublishNeed *need = ((Skiff__V1__PublishReply *)x->need)->need;
    uint64_t parts = p->cut.n + p->adapter.n;
    if (need->n_first != need->n_count)
        return skf_fail(why, SKF_ERR_FORMAT, "the distributor's answer makes no sense");
    if (p->adapter.file && !need->takes_adapter)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: the distributor is of an older release, which takes no adapter; publish without it",
                        p->adapter.file);
    p->need_bytes = need->bytes;
    p->adapter.need_bytes = need->adapter_bytes;
    uint8_t *scratch = skf_alloc(SKF_MAX(SKF_CHUNK_MAX, SKF_ADAPTER_PIECE));
    enum skf_err e = scratch ? SKF_OK : SKF_ERR_NOMEM;
    for (size_t i = 0; i < need->n_first && e == SKF_OK && !p->is_dry; i++) {
        if (need->first[i] > parts || need->count[i] > parts - need->first[i])
            e = skf_fail(why, SKF_ERR_FORMAT, "the distributor asks for chunks that there are not");
        for (uint64_t k = 0; k < need->count[i] && e == SKF_OK; k++) {
            e = wait_for_room(s, x, progress, why);
            if (e == SKF_OK)
                e = send_part(p, s, x, need->first[i] + k, scratch, why);
            skf_progress_tell(progress, p->bytes_sent, need->bytes);
        }
    }
    skf_free(scratch);
    return e;
}

static enum skf_err talk(struct skf_publish *p, struct skf_wire_stream *s, struct sending *x, struct skf_why *why)
{
    Skiff__V1__PublishMessage m = SKIFF__V1__PUBLISH_MESSAGE__INIT;
    Skiff__V1__PublishFinish finish = SKIFF__V1__PUBLISH_FINISH__INIT;
    struct skf_progress progress = skf_cli_progress("sending");
    m.kind_case = SKIFF__V1__PUBLISH_MESSAGE__KIND_FINISH;
    m.finish = &finish;
    SKF_TRY(send_begin(p, s, x, why));
    SKF_TRY(wait_for(x, &x->need, &progress, why));
    SKF_TRY(send_needed(p, s, x, &progress, why));
    if (!p->is_dry)
        SKF_TRY(send_message(s, x, &m, why));
    SKF_TRY(wait_for(x, &x->done, &progress, why));
    return SKF_OK;
}

enum skf_err skf_publish_send(struct skf_publish *p, struct skf_why *why)
{
    static const struct skf_wire_events events = {on_message, wake, NULL, on_done};
    struct sending x = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct skf_wire_stream *s;
    enum skf_err e = skf_wire_stream_open(p->c.channel, "/skiff.v1.Operator/Publish", &events, &x, &s, why);
    if (e != SKF_OK)
        return e;
    e = talk(p, s, &x, why);
    skf_cli_progress_end();
    skf_wire_end(s, e == SKF_OK ? SKF_WIRE_OK : SKF_WIRE_CANCELLED, "");
    skf_wire_unref(s);
    skf_connect_close(&p->c); /* waits for the stream's done */
    p->done = x.done;
    if (x.need)
        skf_msg_free(x.need);
    (void)pthread_mutex_destroy(&x.lock);
    (void)pthread_cond_destroy(&x.changed);
    return e;
}
