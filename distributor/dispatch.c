/*
 * The dispatcher: one thread that looks at the devices for which something may have changed, tells each what it should
 * run, has missing deltas built, and writes down what devices said.  One pass works like this:
 *
 *   under the lock   decide for each device that asks (or for all); take its messages, the pairs to build, a copy of
 * what changed without it       write the copies in one transaction, then send, then queue the builds
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/centre_priv.h"
#include "proto/msg.h"

#define TICK_S     1    /* retries, ends of rollouts */
#define RENEW_S    3600 /* metadata near its end is looked for this often */
#define WRITE_S    2    /* progress is written down at most this often */
#define MODELS_MAX 256

struct letter {                     /* a message for one session */
    struct skf_wire_stream *stream; /* counted */
    uint8_t *p;
    size_t n;
};
struct want {
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST];
};

struct pass {
    struct skf_centre *c;
    char (*models)[SKF_REG_NAME];
    size_t n_models;
    struct letter *letters;
    size_t n_letters, cap_letters;
    struct want *wants;
    size_t n_wants, cap_wants;
    struct skf_reg_device *copies;
    const struct skf_reg_device **copy_list;
    size_t n_copies, cap_copies;
    int64_t now;
};

/* Room for one more; false when there is no memory: the pass then does less and the next one the rest. */
static bool is_room(void **p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : 64;
    void *q = skf_realloc(*p, more * size);
    if (!q)
        return false;
    *p = q;
    *cap = more;
    return true;
}

/* ---- what to tell one device ----------------------------------------------------------------------------------- */
static void write_letter(struct pass *x, struct session *s, const Skiff__V1__CentreMessage *m)
{
    uint8_t *p;
    size_t n;
    if (!is_room((void **)&x->letters, x->n_letters, &x->cap_letters, sizeof *x->letters) ||
        skf_msg_pack(&m->base, &p, &n) != SKF_OK)
        return;
    skf_wire_ref(s->stream);
    x->letters[x->n_letters++] = (struct letter){s->stream, p, n};
}

/* The session's note on a model; NULL when there are too many. */
static size_t sent_at(struct session *s, const char *model)
{
    size_t i = 0;
    while (i < s->n_sent && strcmp(s->sent[i].model, model) != 0)
        i++;
    if (i == s->n_sent && i < SKF_REG_WORK_MAX) {
        memset(&s->sent[i], 0, sizeof s->sent[i]);
        (void)snprintf(s->sent[i].model, sizeof s->sent[i].model, "%s", model);
        s->n_sent++;
    }
    return i;
}

static void note_sent(struct device *d, const char *model, const struct skf_plan *p)
{
    struct skf_reg_work *w = skf_centre_work(d, model);
    if (!w)
        return;
    if (strcmp(w->id, p->id) != 0) {
        bool is_full = w->is_full && is_work_of(w, p->target.serial);
        char of[SKF_REG_NAME];
        (void)snprintf(of, sizeof of, "%s", w->model);
        *w = (struct skf_reg_work){.is_full = is_full};
        (void)snprintf(w->model, sizeof w->model, "%s", of);
        (void)snprintf(w->id, sizeof w->id, "%s", p->id);
    }
    (void)snprintf(w->target, sizeof w->target, "%s", p->target.version);
    w->retry_at = 0;
    d->is_changed = true;
}

static void send_assign(struct pass *x, struct device *d, const char *model, const struct skf_plan *p)
{
    struct session *s = d->session;
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__Assign a = SKIFF__V1__ASSIGN__INIT;
    char manifest[SKF_TARGET_PATH], delta[SKF_TARGET_PATH] = "";
    skf_manifest_path(model, p->target.version, manifest);
    if (!p->has_content)
        skf_delta_path(p->from, p->to, delta);
    m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_ASSIGN;
    m.assign = &a;
    a.id = (char *)(uintptr_t)p->id;
    a.model = (char *)(uintptr_t)model;
    a.version = (char *)(uintptr_t)p->target.version;
    a.manifest = manifest;
    a.delta = delta;
    a.pinned = p->target.is_pinned;
    a.channel = (char *)(uintptr_t)p->target.channel;
    size_t at = sent_at(s, model);
    if (at == SKF_REG_WORK_MAX)
        return;
    write_letter(x, s, &m);
    (void)snprintf(s->sent[at].id, sizeof s->sent[at].id, "%s", p->id);
    (void)snprintf(s->sent[at].version, sizeof s->sent[at].version, "%s", p->target.version);
    s->sent[at].is_under_way = true;
    note_sent(d, model, p);
    skf_log(SKF_LOG_INFO, "%s: assigned %s %s (%s)", d->d.name, model, p->target.version,
            p->has_content ? "it has the content" : delta);
}

/* What the box was told no longer holds, and nothing takes its place. */
static void send_cancel(struct pass *x, struct session *s, size_t at)
{
    Skiff__V1__CentreMessage m = SKIFF__V1__CENTRE_MESSAGE__INIT;
    Skiff__V1__Cancel cancel = SKIFF__V1__CANCEL__INIT;
    m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_CANCEL;
    m.cancel = &cancel;
    cancel.assignment = s->sent[at].id;
    write_letter(x, s, &m);
    s->sent[at].id[0] = 0; /* the same decision, should it come back, is news */
    s->sent[at].is_under_way = false;
}

static void decide(struct pass *x, struct device *d, const char *model)
{
    struct session *s = d->session;
    struct skf_plan p;
    struct skf_why why = {{0}};
    size_t at = 0;
    while (at < s->n_sent && strcmp(s->sent[at].model, model) != 0)
        at++;
    bool has_sent = at < s->n_sent;
    enum skf_err e = skf_assign_plan(x->c->registry, &d->d, model, has_sent ? s->sent[at].id : "", x->now, &p, &why);
    if (e != SKF_OK) {
        skf_log(SKF_LOG_ERROR, "%s: %s: %s", d->d.name, model, why.text);
        return;
    }
    switch (p.step) {
    case SKF_STEP_SEND:
        send_assign(x, d, model, &p);
        break;
    case SKF_STEP_BUILD:
        d->is_waiting = true;
        if (is_room((void **)&x->wants, x->n_wants, &x->cap_wants, sizeof *x->wants)) {
            memcpy(x->wants[x->n_wants].from, p.from, SKF_DIGEST);
            memcpy(x->wants[x->n_wants++].to, p.to, SKF_DIGEST);
        }
        break;
    case SKF_STEP_NONE:
        if (has_sent && !p.target.version[0] && s->sent[at].is_under_way)
            send_cancel(x, s, at);
        break;
    case SKF_STEP_WAIT:
    default:
        break;
    }
}

/* ---- writing down ---------------------------------------------------------------------------------------------- */
static enum skf_err copy_array(const void *from, size_t n, size_t size, void **to)
{
    *to = n ? skf_memdup(from, n * size) : NULL;
    return n && !*to ? SKF_ERR_NOMEM : SKF_OK;
}

static void take_copy(struct pass *x, struct device *d)
{
    void *tags = NULL, *held = NULL, *work = NULL;
    if (!is_room((void **)&x->copies, x->n_copies, &x->cap_copies, sizeof *x->copies) ||
        copy_array(d->d.tags, d->d.n_tags, sizeof *d->d.tags, &tags) != SKF_OK ||
        copy_array(d->d.held, d->d.n_held, sizeof *d->d.held, &held) != SKF_OK ||
        copy_array(d->d.work, d->d.n_work, sizeof *d->d.work, &work) != SKF_OK) {
        skf_free(tags);
        skf_free(held);
        return;
    }
    struct skf_reg_device *copy = &x->copies[x->n_copies++];
    *copy = d->d;
    copy->tags = tags;
    copy->held = held;
    copy->work = work;
    d->is_changed = false;
}

static void write_down(struct pass *x)
{
    struct skf_why why = {{0}};
    x->copy_list = x->n_copies ? skf_calloc(x->n_copies, sizeof *x->copy_list) : NULL;
    for (size_t i = 0; x->copy_list && i < x->n_copies; i++)
        x->copy_list[i] = &x->copies[i];
    if (x->copy_list && skf_registry_put_devices(x->c->registry, x->copy_list, x->n_copies, &why) != SKF_OK)
        skf_log(SKF_LOG_ERROR, "%s", why.text);
    for (size_t i = 0; i < x->n_copies; i++)
        skf_reg_device_clear(&x->copies[i]);
}

/* ---- ends of rollouts ------------------------------------------------------------------------------------------ */
void skf_centre_count(struct skf_centre *c, const struct skf_reg_channel *ch, struct skf_rollout_counts *n)
{
    const char *goal = ch->state == SKF_ROLLOUT_ABORTED ? ch->previous : ch->version;
    *n = (struct skf_rollout_counts){0, 0, 0, 0, 0};
    for (size_t i = 0; i < c->n_devices; i++) {
        const struct skf_reg_device *d = &c->devices[i]->d;
        struct skf_target t;
        if (strcmp(skf_assign_channel(d), ch->channel) != 0 || !is_model_wanted(d, ch->model) ||
            skf_assign_target(c->registry, d, ch->model, &t, NULL) != SKF_OK || t.is_pinned)
            continue;
        const struct skf_reg_held *active = skf_device_slot(d, ch->model, "active");
        const struct skf_reg_work *w = skf_device_work(d, ch->model);
        bool is_there = active && strcmp(active->version, goal) == 0, is_ours = is_work_of(w, ch->serial);
        n->devices++;
        if (is_ours)
            n->bytes += w->bytes_received;
        if (is_ours && w->has_failed)
            n->failed++;
        else if (is_there && (!is_ours || w->phase == SKIFF__V1__PHASE__PHASE_CONFIRMED))
            n->confirmed++;
        else
            n->pending++;
    }
}

struct ended {
    struct skf_centre *c;
    struct skf_reg_channel list[32];
    size_t n;
};

static enum skf_err note_ended(void *ctx, const struct skf_reg_channel *ch)
{
    struct ended *x = ctx;
    struct skf_rollout_counts n;
    if (ch->state != SKF_ROLLOUT_RUNNING || x->n == SKF_COUNT(x->list))
        return SKF_OK;
    skf_centre_count(x->c, ch, &n);
    if (n.devices > 0 && n.pending == 0)
        x->list[x->n++] = *ch;
    return SKF_OK;
}

static void end_rollouts(struct skf_centre *c)
{
    struct ended *x = skf_calloc(1, sizeof *x);
    if (!x)
        return;
    x->c = c;
    (void)pthread_mutex_lock(&c->lock);
    enum skf_err e = skf_registry_each_channel(c->registry, NULL, note_ended, x);
    (void)pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; e == SKF_OK && i < x->n; i++)
        if (skf_registry_act(c->registry, x->list[i].model, x->list[i].channel, SKF_ACT_FINISH, NULL, NULL) == SKF_OK)
            skf_log(SKF_LOG_INFO, "rollout of %s %s on channel %s: done", x->list[i].model, x->list[i].version,
                    x->list[i].channel);
    skf_free(x);
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */
static enum skf_err note_model(void *ctx, const char *model)
{
    struct pass *x = ctx;
    for (size_t i = 0; i < x->n_models; i++)
        if (strcmp(x->models[i], model) == 0)
            return SKF_OK;
    if (x->n_models == MODELS_MAX)
        return SKF_OK;
    (void)snprintf(x->models[x->n_models++], SKF_REG_NAME, "%s", model);
    return SKF_OK;
}

static enum skf_err note_version(void *ctx, const struct skf_reg_version *v)
{
    return note_model(ctx, v->model);
}

/* Something to be tried again: a failure whose time has come, or a delta that was not there the last time. */
static bool is_due(const struct device *d, int64_t now)
{
    for (size_t i = 0; i < d->d.n_work; i++)
        if (d->d.work[i].has_failed && d->d.work[i].retry_at && now >= d->d.work[i].retry_at)
            return true;
    return d->is_waiting;
}

static void run_pass(struct skf_centre *c, bool is_all, bool is_tick, bool is_writing)
{
    struct pass x = {.c = c, .now = skf_now_unix()};
    x.models = skf_calloc(MODELS_MAX, sizeof *x.models);
    if (!x.models || skf_registry_each_version(c->registry, NULL, note_version, &x) != SKF_OK) {
        skf_free(x.models);
        return;
    }
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_devices; i++) {
        struct device *d = c->devices[i];
        if (d->session && (is_all || d->is_asking || (is_tick && is_due(d, x.now)))) {
            d->is_waiting = false;
            for (size_t m = 0; m < x.n_models; m++)
                decide(&x, d, x.models[m]);
        }
        d->is_asking = false;
        if (d->is_changed && is_writing)
            take_copy(&x, d);
    }
    (void)pthread_mutex_unlock(&c->lock);
    write_down(&x);
    for (size_t i = 0; i < x.n_letters; i++) {
        enum skf_err e = skf_wire_send(x.letters[i].stream, x.letters[i].p, x.letters[i].n);
        if (e == SKF_ERR_FULL || e == SKF_ERR_NOMEM) /* it must not be lost: the box comes back and is told again */
            skf_wire_end(x.letters[i].stream, SKF_WIRE_UNAVAILABLE, "busy; connect again");
        skf_wire_unref(x.letters[i].stream);
        skf_free(x.letters[i].p);
    }
    for (size_t i = 0; i < x.n_wants; i++) {
        enum skf_err e = skf_builder_want(c->builder, x.wants[i].from, x.wants[i].to);
        if (e != SKF_OK)
            skf_log(SKF_LOG_DEBUG, "delta not queued: %s", skf_err_name(e));
    }
    skf_free(x.models);
    skf_free(x.letters);
    skf_free(x.wants);
    skf_free(x.copies);
    skf_free(x.copy_list);
}

/* Waits for a word or the tick. The lock is held. */
static void wait_for_word(struct skf_centre *c)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TICK_S;
    while (!c->is_woken && !c->is_ending)
        if (pthread_cond_timedwait(&c->wake, &c->lock, &until) == ETIMEDOUT)
            return;
}

void *skf_centre_dispatch(void *centre)
{
    struct skf_centre *c = centre;
    uint64_t ticked = skf_now_ns(), renewed = ticked, written = 0;
    const uint64_t second = 1000000000u;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->is_ending) {
        wait_for_word(c);
        uint64_t now = skf_now_ns();
        bool is_tick = now - ticked >= TICK_S * second, is_all = c->is_all;
        bool is_writing = now - written >= WRITE_S * second;
        c->is_all = c->is_woken = false;
        (void)pthread_mutex_unlock(&c->lock);
        run_pass(c, is_all, is_tick, is_writing);
        if (is_writing)
            written = now;
        if (is_tick) {
            end_rollouts(c);
            ticked = now;
        }
        if (now - renewed >= RENEW_S * second) {
            struct skf_why why = {{0}};
            if (skf_signer_renew(c->signer, &why) != SKF_OK)
                skf_log(SKF_LOG_ERROR, "metadata not renewed: %s", why.text);
            renewed = now;
        }
        (void)pthread_mutex_lock(&c->lock);
    }
    (void)pthread_mutex_unlock(&c->lock);
    run_pass(c, false, false, true); /* what was said last */
    return NULL;
}

/* ---- builds ---------------------------------------------------------------------------------------------------- */
void skf_centre_build_for(struct skf_centre *c, const char *model, const uint8_t to[SKF_DIGEST])
{
    struct pass x = {.c = c};
    uint8_t empty[SKF_DIGEST];
    struct skf_reg_version v;
    struct skf_reg_delta had;
    skf_empty_root(empty);
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_devices; i++) {
        const struct skf_reg_held *active = skf_device_slot(&c->devices[i]->d, model, "active");
        if (!active || memcmp(active->root, to, SKF_DIGEST) == 0)
            continue;
        size_t k = 0;
        while (k < x.n_wants && memcmp(x.wants[k].from, active->root, SKF_DIGEST) != 0)
            k++;
        if (k == x.n_wants && is_room((void **)&x.wants, x.n_wants, &x.cap_wants, sizeof *x.wants))
            memcpy(x.wants[x.n_wants++].from, active->root, SKF_DIGEST);
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (is_room((void **)&x.wants, x.n_wants, &x.cap_wants, sizeof *x.wants))
        memcpy(x.wants[x.n_wants++].from, empty, SKF_DIGEST); /* last: what boxes wait for comes first */
    for (size_t k = 0; k < x.n_wants; k++) {
        bool is_known = memcmp(x.wants[k].from, empty, SKF_DIGEST) == 0 ||
                        skf_registry_by_root(c->registry, x.wants[k].from, &v, NULL) == SKF_OK;
        if (is_known && skf_registry_delta(c->registry, x.wants[k].from, to, &had, NULL) == SKF_ERR_NOT_FOUND &&
            skf_builder_want(c->builder, x.wants[k].from, to) != SKF_OK)
            skf_log(SKF_LOG_WARN, "a delta could not be queued; it is built when a box needs it");
    }
    skf_free(x.wants);
}

void skf_centre_on_build(void *centre, const struct skf_build_event *ev)
{
    struct skf_centre *c = centre;
    if (ev->is_over) {
        char path[SKF_TARGET_PATH];
        skf_delta_path(ev->from, ev->to, path);
        if (ev->err == SKF_OK)
            skf_log(SKF_LOG_INFO, "%s: built", path);
        else
            skf_log(SKF_LOG_ERROR, "%s: not built: %s", path, ev->text);
        (void)pthread_mutex_lock(&c->lock);
        skf_centre_wake(c, NULL);
        (void)pthread_mutex_unlock(&c->lock);
    }
    skf_publish_on_build(c, ev);
}
