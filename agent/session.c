/*
 * The link to the distributor: one stream at a time, opened again with growing pauses when it breaks.
 */
#include "agent/session_priv.h"

#include <errno.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "proto/msg.h"
#include "trust/cert.h"

#define SESSION_PATH  "/skiff.v1.Fleet/Session"
#define RETRY_FIRST   (200 * SKF_MS)
#define RETRY_MOST    (30 * SKF_SECOND)
#define WELCOME_WAIT  (20 * SKF_SECOND)
#define CHANNEL_TRIES 4u /* failures in a row, and the next try is over a new channel */

void skf_session_wake(struct skf_session *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->o.wake_fd, &one, sizeof one); /* a full counter wakes as well */
    (void)n;
}

enum skf_err skf_session_new(const struct skf_session_opts *o, struct skf_session **out, struct skf_why *why)
{
    *out = NULL;
    struct skf_session *s = skf_calloc(1, sizeof *s);
    if (!s)
        return skf_fail(why, SKF_ERR_NOMEM, "session: no memory");
    s->o = *o;
    s->last = &s->first;
    s->ask_first = 1;
    enum skf_err e;
    SKF_GO(e, skf_path(s->ca, sizeof s->ca, o->tls_dir, "ca.crt"));
    SKF_GO(e, skf_path(s->crt, sizeof s->crt, o->tls_dir, "device.crt"));
    SKF_GO(e, skf_path(s->key, sizeof s->key, o->tls_dir, "device.key"));
    pthread_condattr_t attr;
    if (pthread_mutex_init(&s->mu, NULL) != 0 || pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 || pthread_cond_init(&s->cv, &attr) != 0) {
        e = skf_fail(why, SKF_ERR_NOMEM, "session: no lock");
        goto out;
    }
    (void)pthread_condattr_destroy(&attr);
    *out = s;
    return SKF_OK;
out:
    skf_free(s);
    return e;
}

void skf_session_free(struct skf_session *s)
{
    if (!s)
        return;
    (void)pthread_mutex_lock(&s->mu);
    struct skf_wire_channel *c = s->channel;
    s->channel = NULL;
    (void)pthread_mutex_unlock(&s->mu);
    if (c)
        skf_wire_channel_close(c); /* waits for the stream's done, which takes the lock */
    skf_inbox_clear(s);
    (void)pthread_cond_destroy(&s->cv);
    (void)pthread_mutex_destroy(&s->mu);
    skf_free(s);
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

/* 200 ms, half as much again each time up to 30 s, and each between half and one and a half of it, so that a fleet whose centre
 * came back does not call at once. */
static uint64_t pause_after(unsigned failures)
{
    double pause = (double)RETRY_FIRST;
    for (unsigned i = 1; i < failures && pause < (double)RETRY_MOST; i++)
        pause *= 1.5;
    uint16_t r = 0;
    if (skf_random(&r, sizeof r) != SKF_OK)
        r = 32768;
    pause = SKF_MIN(pause, (double)RETRY_MOST);
    return (uint64_t)(pause * (0.5 + r / 65536.0));
}

static void on_done(void *ctx, struct skf_wire_stream *st, enum skf_wire_status status, const char *text)
{
    struct skf_session *s = ctx;
    (void)pthread_mutex_lock(&s->mu);
    skf_wire_unref(s->stream); /* our reference; the layer has its own until we return */
    s->stream = NULL;
    s->breaks++;
    s->failures += s->failures < 64;
    s->next_try = skf_now_ns() + pause_after(s->failures);
    skf_log(s->is_up || s->failures == 1 ? SKF_LOG_INFO : SKF_LOG_DEBUG, "centre %s: link down (%d: %s)", s->o.centre,
            (int)status, text ? text : "");
    s->is_up = false;
    (void)pthread_cond_broadcast(&s->cv);
    (void)pthread_mutex_unlock(&s->mu);
    skf_session_wake(s);
}

/* Says what is wrong with the certificate before a connection fails without a word about it. */
static void check_certificate(struct skf_session *s)
{
    int64_t end;
    struct skf_why why = {{0}};
    enum skf_err e = skf_cert_check(s->crt, s->ca, skf_now_unix(), &end, &why);
    if (e != SKF_OK && !s->is_warned)
        skf_log(SKF_LOG_WARN, "%s", why.text);
    s->is_warned = e != SKF_OK;
}

/* Under mu. */
static enum skf_err open_stream(struct skf_session *s, const uint8_t *hello, size_t n, struct skf_why *why)
{
    static const struct skf_wire_events events = {.message = skf_inbox_message, .done = on_done};
    struct skf_wire_tls tls = {s->ca, s->crt, s->key, s->o.is_open_key_fine};
    if (!s->channel)
        SKF_TRY(skf_wire_channel_open(s->o.centre, &tls, NULL, &s->channel, why));
    SKF_TRY(skf_wire_stream_open(s->channel, SESSION_PATH, &events, s, &s->stream, why));
    s->opened = s->heard = skf_now_ns();
    enum skf_err e = skf_wire_send(s->stream, hello, n);
    return e == SKF_OK ? e : skf_fail(why, e, "the link broke at once");
}

uint64_t skf_session_tick(struct skf_session *s, uint64_t now, enum skf_err (*hello)(void *ctx, uint8_t **p, size_t *n),
                          void *ctx)
{
    (void)pthread_mutex_lock(&s->mu);
    bool is_due = !s->stream && now >= s->next_try;
    struct skf_wire_channel *old = is_due && s->failures && s->failures % CHANNEL_TRIES == 0 ? s->channel : NULL;
    if (old)
        s->channel = NULL;
    if (s->stream && !s->is_up && now - s->opened > WELCOME_WAIT)
        skf_wire_end(s->stream, SKF_WIRE_CANCELLED, "no welcome");
    uint64_t again = s->stream ? now + WELCOME_WAIT : SKF_MAX(s->next_try, now);
    (void)pthread_mutex_unlock(&s->mu);
    if (!is_due)
        return again;
    if (old) /* a new one reads the certificate anew: it may have been replaced */
        skf_wire_channel_close(old);

    uint8_t *p = NULL;
    size_t n = 0;
    struct skf_why why = {{0}};
    check_certificate(s);
    enum skf_err e = hello(ctx, &p, &n);
    (void)pthread_mutex_lock(&s->mu);
    if (e == SKF_OK)
        e = open_stream(s, p, n, &why);
    if (e != SKF_OK) {
        s->failures += s->failures < 64;
        s->next_try = now + pause_after(s->failures);
        again = s->next_try;
        if (s->failures == 1)
            skf_log(SKF_LOG_WARN, "centre %s: %s: %s", s->o.centre, skf_err_name(e), why.text);
        if (s->stream)
            skf_wire_end(s->stream, SKF_WIRE_CANCELLED, "");
    }
    (void)pthread_mutex_unlock(&s->mu);
    skf_free(p);
    return e == SKF_OK ? now + WELCOME_WAIT : again;
}

/* ---- small questions -------------------------------------------------------------------------------------------------- */

bool is_session_up(struct skf_session *s)
{
    (void)pthread_mutex_lock(&s->mu);
    bool up = s->is_up;
    (void)pthread_mutex_unlock(&s->mu);
    return up;
}

uint64_t skf_session_epoch(struct skf_session *s)
{
    (void)pthread_mutex_lock(&s->mu);
    uint64_t epoch = s->epoch;
    (void)pthread_mutex_unlock(&s->mu);
    return epoch;
}

bool is_assign_taken(struct skf_session *s, struct skf_assign *a)
{
    (void)pthread_mutex_lock(&s->mu);
    bool has = s->n_assigns > 0;
    if (has) {
        *a = s->assigns[0];
        s->n_assigns--;
        memmove(s->assigns, s->assigns + 1, s->n_assigns * sizeof s->assigns[0]);
    }
    (void)pthread_mutex_unlock(&s->mu);
    return has;
}

bool is_cancel_taken(struct skf_session *s, char id[SKF_AGENT_ID])
{
    (void)pthread_mutex_lock(&s->mu);
    bool has = s->n_cancels > 0;
    if (has)
        memcpy(id, s->cancels[--s->n_cancels], SKF_AGENT_ID);
    (void)pthread_mutex_unlock(&s->mu);
    return has;
}

void skf_session_send(struct skf_session *s, const uint8_t *p, size_t n)
{
    (void)pthread_mutex_lock(&s->mu);
    if (s->is_up && s->stream) {
        enum skf_err e = skf_wire_send(s->stream, p, n);
        if (e != SKF_OK)
            skf_log(SKF_LOG_DEBUG, "centre: not sent: %s", skf_err_name(e)); /* told again after the next Welcome */
    }
    (void)pthread_mutex_unlock(&s->mu);
}

void skf_session_kick(struct skf_session *s)
{
    (void)pthread_mutex_lock(&s->mu);
    (void)pthread_cond_broadcast(&s->cv);
    (void)pthread_mutex_unlock(&s->mu);
}

enum skf_err skf_session_put(struct skf_session *s, const Skiff__V1__AgentMessage *m)
{
    uint8_t *p;
    size_t n;
    if (!s->stream)
        return SKF_ERR_NET;
    SKF_TRY(skf_msg_pack(&m->base, &p, &n));
    enum skf_err e = skf_wire_send(s->stream, p, n);
    skf_free(p);
    return e;
}
