/* The operator's questions and orders (proto/operator.proto); each runs on a thread of the wire's own pool and may
 * block. */
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/adapters.h"
#include "distributor/centre_priv.h"
#include "proto/msg.h"
#include "trust/cert.h"

#define ASK_MAX (64u << 10)

static const char *const phase_names[] = {"idle",     "verifying", "fetching", "staged", "checking",
                                          "watching", "confirmed", "returned", "failed"};

/* Identity checked, question unpacked. */
static enum skf_err ask(struct skf_centre *c, const char *identity, const ProtobufCMessageDescriptor *d,
                        const uint8_t *p, size_t n, ProtobufCMessage **q, char who[65], struct skf_why *why)
{
    SKF_TRY(skf_centre_admit(c, identity, SKF_CERT_OPERATOR, who, why));
    return skf_msg_unpack(d, p, n, ASK_MAX, q, why);
}

/* ---- GetMeta --------------------------------------------------------------------------------------------------- */
static enum skf_err get_meta(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                             size_t *answer_len, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char who[65];
    ProtobufCMessage *m;
    Skiff__V1__MetaAnswer a = SKIFF__V1__META_ANSWER__INIT;
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX - 64);
    uint8_t *data = NULL;
    SKF_TRY(ask(c, identity, &skiff__v1__meta_request__descriptor, p, n, &m, who, why));
    const char *name = ((Skiff__V1__MetaRequest *)m)->name;
    size_t len = 0;
    enum skf_err e;
    if (strncmp(name, "models/", 7) == 0) {
        e = skf_manifest_by_path(c->registry, name, &data, &len, why);
    } else {
        e = skf_signer_read(c->signer, name, &b, why);
        data = skf_buf_steal(&b, &len);
    }
    if (e == SKF_OK) {
        a.data = (ProtobufCBinaryData){len, data};
        e = skf_msg_pack(&a.base, answer, answer_len);
    } else if (e == SKF_ERR_NOT_FOUND) {
        (void)skf_fail(why, e, "%.200s: not there", name);
    }
    skf_free(data);
    skf_buf_free(&b);
    skf_msg_free(m);
    return e;
}

/* ---- ListVersions ---------------------------------------------------------------------------------------------- */
#define VERSIONS_MAX 2000
#define CHANNELS_MAX 16
#define DELTAS_MAX   64

struct version_row {
    Skiff__V1__VersionInfo info;
    struct skf_reg_version v;
    char channel[CHANNELS_MAX][SKF_REG_NAME], *channels[CHANNELS_MAX];
    Skiff__V1__DeltaInfo delta[DELTAS_MAX], *deltas[DELTAS_MAX];
    char from[DELTAS_MAX][SKF_REG_NAME], adapter[DELTAS_MAX][SKF_ADAPTER_SAID];
};
struct version_list {
    struct skf_centre *c;
    struct version_row **rows;
    size_t n;
    struct version_row *now;
};

static enum skf_err list_channel(void *ctx, const struct skf_reg_channel *ch)
{
    struct version_list *l = ctx;
    const char *stands = ch->state == SKF_ROLLOUT_ABORTED ? ch->previous : ch->version;
    for (size_t i = 0; i < l->n; i++) {
        struct version_row *r = l->rows[i];
        if (strcmp(r->v.model, ch->model) != 0 || strcmp(r->v.version, stands) != 0 ||
            r->info.n_channels == CHANNELS_MAX)
            continue;
        r->channels[r->info.n_channels] = r->channel[r->info.n_channels];
        (void)snprintf(r->channel[r->info.n_channels++], SKF_REG_NAME, "%s", ch->channel);
        r->info.channels = r->channels;
    }
    return SKF_OK;
}

static enum skf_err list_delta(void *ctx, const struct skf_reg_delta *d)
{
    struct version_list *l = ctx;
    struct version_row *r = l->now;
    size_t at = r->info.n_deltas;
    struct skf_reg_version from = {.version = ""};
    if (at == DELTAS_MAX)
        return SKF_OK;
    if (skf_registry_by_root(l->c->registry, d->from, &from, NULL) != SKF_OK)
        from.version[0] = 0;
    (void)snprintf(r->from[at], SKF_REG_NAME, "%s", from.version);
    skiff__v1__delta_info__init(&r->delta[at]);
    r->delta[at].from_version = r->from[at];
    r->delta[at].to_version = r->v.version;
    r->delta[at].bytes = d->bytes;
    skf_adapters_said(l->c->registry, d, r->adapter[at]);
    r->delta[at].adapter = r->adapter[at];
    r->deltas[at] = &r->delta[at];
    r->info.deltas = r->deltas;
    r->info.n_deltas++;
    return SKF_OK;
}

static enum skf_err list_version(void *ctx, const struct skf_reg_version *v)
{
    struct version_list *l = ctx;
    if (l->n == VERSIONS_MAX)
        return SKF_ERR_LIMIT;
    struct version_row *r = skf_calloc(1, sizeof *r);
    if (!r)
        return SKF_ERR_NOMEM;
    l->rows[l->n++] = r;
    r->v = *v;
    skiff__v1__version_info__init(&r->info);
    r->info.model = r->v.model;
    r->info.version = r->v.version;
    r->info.root = (ProtobufCBinaryData){SKF_DIGEST, r->v.root};
    r->info.size = v->size;
    r->info.created = v->created;
    return SKF_OK;
}

static void count_running(struct skf_centre *c, struct version_list *l)
{
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_devices; i++)
        for (size_t k = 0; k < l->n; k++) {
            const struct skf_reg_held *a = skf_device_slot(&c->devices[i]->d, l->rows[k]->v.model, "active");
            l->rows[k]->info.running += a && strcmp(a->version, l->rows[k]->v.version) == 0;
        }
    (void)pthread_mutex_unlock(&c->lock);
}

static enum skf_err list_versions(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                                  size_t *answer_len, struct skf_why *why)
{
    struct version_list l = {.c = ctx};
    char who[65];
    ProtobufCMessage *m;
    Skiff__V1__VersionsReply a = SKIFF__V1__VERSIONS_REPLY__INIT;
    SKF_TRY(ask(l.c, identity, &skiff__v1__versions_request__descriptor, p, n, &m, who, why));
    const char *model = ((Skiff__V1__VersionsRequest *)m)->model;
    enum skf_err e = SKF_ERR_NOMEM;
    Skiff__V1__VersionInfo **infos = skf_calloc(VERSIONS_MAX, sizeof *infos);
    l.rows = skf_calloc(VERSIONS_MAX, sizeof *l.rows);
    if (!infos || !l.rows)
        goto out;
    SKF_GO(e, skf_registry_each_version(l.c->registry, model[0] ? model : NULL, list_version, &l));
    SKF_GO(e, skf_registry_each_channel(l.c->registry, model[0] ? model : NULL, list_channel, &l));
    for (size_t i = 0; i < l.n; i++) {
        l.now = l.rows[i];
        SKF_GO(e, skf_registry_each_delta(l.c->registry, l.rows[i]->v.root, list_delta, &l));
        infos[i] = &l.rows[i]->info;
    }
    count_running(l.c, &l);
    a.n_versions = l.n;
    a.versions = infos;
    e = skf_msg_pack(&a.base, answer, answer_len);
out:
    for (size_t i = 0; i < l.n; i++)
        skf_free(l.rows[i]);
    if (e == SKF_ERR_LIMIT)
        (void)skf_fail(why, e, "more versions than one answer holds; name a model");
    skf_free(l.rows);
    skf_free(infos);
    skf_msg_free(m);
    return e;
}

/* ---- ListDevices ----------------------------------------------------------------------------------------------- */
/* Rows are packed one at a time and joined: protobuf's repeated field is the concatenation of its elements. */
static enum skf_err put_row(struct skf_buf *b, const Skiff__V1__DeviceInfo *info)
{
    Skiff__V1__DevicesReply one = SKIFF__V1__DEVICES_REPLY__INIT;
    Skiff__V1__DeviceInfo *list[1] = {(Skiff__V1__DeviceInfo *)(uintptr_t)info};
    uint8_t *p;
    size_t n;
    one.n_devices = 1;
    one.devices = list;
    SKF_TRY(skf_msg_pack(&one.base, &p, &n));
    enum skf_err e = skf_buf_put(b, p, n);
    skf_free(p);
    return e;
}

static enum skf_err put_device_model(struct skf_centre *c, const struct device *d, const char *model, struct skf_buf *b)
{
    Skiff__V1__DeviceInfo info = SKIFF__V1__DEVICE_INFO__INIT;
    struct skf_target t = {.version = ""};
    struct skf_reg_pin pin = {.version = ""};
    const struct skf_reg_work *w = skf_device_work(&d->d, model);
    const struct skf_reg_held *active = skf_device_slot(&d->d, model, "active");
    const struct skf_reg_held *previous = skf_device_slot(&d->d, model, "previous");
    if (model[0] && skf_assign_target(c->registry, &d->d, model, &t, NULL) != SKF_OK)
        t.version[0] = 0;
    if (skf_registry_get_pin(c->registry, d->d.name, model, SKF_PIN_FIXED, &pin) != SKF_OK)
        pin.version[0] = 0;
    info.name = (char *)(uintptr_t)d->d.name;
    info.online = d->session != NULL;
    info.last_seen = d->d.last_seen;
    info.model = (char *)(uintptr_t)model;
    info.version = active ? (char *)(uintptr_t)active->version : info.version;
    info.previous = previous ? (char *)(uintptr_t)previous->version : info.previous;
    info.target = t.version;
    info.pinned = pin.version;
    info.machine = (char *)(uintptr_t)d->d.machine;
    info.isa = (char *)(uintptr_t)d->d.isa;
    info.phase = (char *)(uintptr_t)phase_names[w && w->phase < SKF_COUNT(phase_names) ? w->phase : 0];
    if (w) {
        info.chunks_done = w->chunks_done;
        info.chunks_total = w->chunks_total;
        info.bytes_received = w->bytes_received;
        info.swap_pause_us = w->swap_pause_us;
        info.error = (char *)(uintptr_t)w->error;
    }
    return put_row(b, &info);
}

static enum skf_err put_device(struct skf_centre *c, const struct device *d, struct skf_buf *b)
{
    size_t rows = 0;
    for (size_t i = 0; i < d->d.n_work; i++, rows++)
        SKF_TRY(put_device_model(c, d, d->d.work[i].model, b));
    for (size_t i = 0; i < d->d.n_held; i++) {
        if (strcmp(d->d.held[i].slot, "active") != 0 || skf_device_work(&d->d, d->d.held[i].model))
            continue;
        SKF_TRY(put_device_model(c, d, d->d.held[i].model, b));
        rows++;
    }
    return rows ? SKF_OK : put_device_model(c, d, "", b);
}

static enum skf_err list_devices(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                                 size_t *answer_len, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char who[65];
    ProtobufCMessage *m;
    struct skf_buf b = SKF_BUF_INIT(SKF_WIRE_MESSAGE_MAX);
    SKF_TRY(ask(c, identity, &skiff__v1__devices_request__descriptor, p, n, &m, who, why));
    const char *name = ((Skiff__V1__DevicesRequest *)m)->name;
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&c->lock);
    if (name[0]) {
        struct device *d = skf_centre_find(c, name);
        e = d ? put_device(c, d, &b) : skf_fail(why, SKF_ERR_NOT_FOUND, "%.80s: no such device", name);
    }
    for (size_t i = 0; !name[0] && i < c->n_devices && e == SKF_OK; i++)
        e = put_device(c, c->devices[i], &b);
    (void)pthread_mutex_unlock(&c->lock);
    if (e == SKF_ERR_LIMIT)
        (void)skf_fail(why, e, "more devices than one answer holds; ask for one by name");
    if (e == SKF_OK && b.len == 0)
        e = skf_buf_reserve(&b, 1); /* an empty answer is still one */
    if (e == SKF_OK)
        *answer = skf_buf_steal(&b, answer_len);
    skf_buf_free(&b);
    skf_msg_free(m);
    return e;
}

/* ---- Rollout --------------------------------------------------------------------------------------------------- */
static enum skf_err act(struct skf_centre *c, const Skiff__V1__RolloutRequest *q, const char *channel,
                        struct skf_reg_channel *ch, struct skf_why *why)
{
    static const struct {
        const char *name;
        enum skf_rollout_act act;
    } acts[] = {{"pause", SKF_ACT_PAUSE}, {"resume", SKF_ACT_RESUME}, {"abort", SKF_ACT_ABORT}};
    if (!is_registry_name(q->model) || !is_registry_name(channel))
        return skf_fail(why, SKF_ERR_ARG, "model and channel: names are 1 to 128 of [A-Za-z0-9._-]");
    if (strcmp(q->action, "status") == 0)
        return skf_registry_channel(c->registry, q->model, channel, ch, why);
    if (strcmp(q->action, "start") == 0) {
        struct skf_reg_version v;
        SKF_TRY(skf_registry_start(c->registry, q->model, channel, q->version, ch, why));
        SKF_TRY(skf_registry_version(c->registry, q->model, q->version, &v, why));
        skf_centre_build_for(c, q->model, v.root);
        return SKF_OK;
    }
    for (size_t i = 0; i < SKF_COUNT(acts); i++)
        if (strcmp(q->action, acts[i].name) == 0)
            return skf_registry_act(c->registry, q->model, channel, acts[i].act, ch, why);
    return skf_fail(why, SKF_ERR_ARG, "%.40s: no such action", q->action);
}

static enum skf_err rollout(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                            size_t *answer_len, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char who[65];
    ProtobufCMessage *m;
    struct skf_reg_channel ch;
    struct skf_rollout_counts counts;
    Skiff__V1__RolloutReply a = SKIFF__V1__ROLLOUT_REPLY__INIT;
    SKF_TRY(ask(c, identity, &skiff__v1__rollout_request__descriptor, p, n, &m, who, why));
    const Skiff__V1__RolloutRequest *q = (Skiff__V1__RolloutRequest *)m;
    enum skf_err e;
    SKF_GO(e, act(c, q, q->channel[0] ? q->channel : SKF_CHANNEL_DEFAULT, &ch, why));
    bool is_change = strcmp(q->action, "status") != 0;
    if (is_change)
        skf_log(SKF_LOG_INFO, "%s: rollout %s of %s %s on channel %s", who, q->action, q->model, ch.version, ch.channel);
    (void)pthread_mutex_lock(&c->lock);
    if (is_change)
        skf_centre_wake(c, NULL);
    skf_centre_count(c, &ch, &counts);
    (void)pthread_mutex_unlock(&c->lock);
    a.model = ch.model;
    a.channel = ch.channel;
    a.version = ch.version;
    a.previous = ch.previous;
    a.state = (char *)(uintptr_t)skf_rollout_state_name(ch.state);
    a.devices = counts.devices;
    a.confirmed = counts.confirmed;
    a.failed = counts.failed;
    a.pending = counts.pending;
    a.bytes = counts.bytes;
    e = skf_msg_pack(&a.base, answer, answer_len);
out:
    skf_msg_free(m);
    return e;
}

/* ---- Pin ------------------------------------------------------------------------------------------------------- */
/* The pin for one device; SKF_ERR_NOT_FOUND when a rollback finds nothing to go back to. A box that was rolled back
 * already stays there: what it ran before is now what it came from. */
static enum skf_err pin_of(struct skf_centre *c, const struct device *d, const Skiff__V1__PinRequest *q,
                           bool is_rollback, struct skf_reg_pin *pin, struct skf_why *why)
{
    struct skf_reg_pin had;
    struct skf_target t;
    const struct skf_reg_held *previous = skf_device_slot(&d->d, q->model, "previous");
    const char *version = q->version[0] ? q->version : previous ? previous->version : NULL;
    if (is_rollback && !q->version[0] &&
        skf_registry_get_pin(c->registry, d->d.name, q->model, SKF_PIN_ROLLBACK, &had) == SKF_OK &&
        skf_assign_target(c->registry, &d->d, q->model, &t, NULL) == SKF_OK && t.is_pinned && t.serial == had.serial)
        version = had.version;
    if (!version)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: has no previous version of %s; name one with --version", d->d.name,
                        q->model);
    *pin = (struct skf_reg_pin){.kind = is_rollback ? SKF_PIN_ROLLBACK : SKF_PIN_FIXED};
    (void)snprintf(pin->device, sizeof pin->device, "%s", d->d.name);
    (void)snprintf(pin->model, sizeof pin->model, "%.128s", q->model);
    (void)snprintf(pin->version, sizeof pin->version, "%.128s", version);
    return SKF_OK;
}

/* The pins that the request comes to, with the lock held. */
static enum skf_err pins_of(struct skf_centre *c, const Skiff__V1__PinRequest *q, struct skf_reg_pin **pins, size_t *n,
                            struct skf_why *why)
{
    bool is_all = strcmp(q->device, "*") == 0, is_rollback = strcmp(q->action, "rollback") == 0;
    struct device *one = is_all ? NULL : skf_centre_find(c, q->device);
    if (!is_all && !one)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%.80s: no such device; it is known once it has connected", q->device);
    *pins = skf_calloc(is_all ? c->n_devices + 1 : 1, sizeof **pins);
    if (!*pins)
        return SKF_ERR_NOMEM;
    if (one) {
        *n = 1;
        return pin_of(c, one, q, is_rollback, *pins, why);
    }
    for (size_t i = 0; i < c->n_devices; i++)
        if (pin_of(c, c->devices[i], q, is_rollback, *pins + *n, NULL) == SKF_OK)
            (*n)++;
    return *n ? SKF_OK : skf_fail(why, SKF_ERR_NOT_FOUND, "no device has a previous version of %.128s", q->model);
}

static enum skf_err unpin(struct skf_centre *c, const Skiff__V1__PinRequest *q, size_t *n, struct skf_why *why)
{
    bool had;
    if (strcmp(q->device, "*") == 0)
        return skf_fail(why, SKF_ERR_ARG, "unpin: name one device");
    SKF_TRY(skf_registry_unpin(c->registry, q->device, q->model, &had, why));
    if (!had)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%.80s: not pinned for %.128s", q->device, q->model);
    *n = 1;
    return SKF_OK;
}

static enum skf_err pin(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                        size_t *answer_len, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char who[65];
    ProtobufCMessage *m;
    struct skf_reg_pin *pins = NULL;
    size_t n_pins = 0;
    Skiff__V1__PinReply a = SKIFF__V1__PIN_REPLY__INIT;
    SKF_TRY(ask(c, identity, &skiff__v1__pin_request__descriptor, p, n, &m, who, why));
    const Skiff__V1__PinRequest *q = (Skiff__V1__PinRequest *)m;
    enum skf_err e = SKF_OK;
    if (!is_registry_name(q->model)) {
        e = skf_fail(why, SKF_ERR_ARG, "model: names are 1 to 128 of [A-Za-z0-9._-]");
    } else if (strcmp(q->action, "unpin") == 0) {
        e = unpin(c, q, &n_pins, why);
    } else if (strcmp(q->action, "rollback") != 0 && (strcmp(q->action, "pin") != 0 || !q->version[0])) {
        e = skf_fail(why, SKF_ERR_ARG, "%.40s: no such action, or no version", q->action);
    } else {
        (void)pthread_mutex_lock(&c->lock);
        e = pins_of(c, q, &pins, &n_pins, why);
        (void)pthread_mutex_unlock(&c->lock);
        if (e == SKF_OK)
            e = skf_registry_pin(c->registry, pins, n_pins, why);
    }
    if (e == SKF_OK) {
        skf_log(SKF_LOG_INFO, "%s: %s %s %s%s%s", who, q->action, q->device, q->model, q->version[0] ? " " : "", q->version);
        (void)pthread_mutex_lock(&c->lock);
        skf_centre_wake(c, NULL);
        (void)pthread_mutex_unlock(&c->lock);
        a.devices = (uint32_t)n_pins;
        e = skf_msg_pack(&a.base, answer, answer_len);
    }
    skf_free(pins);
    skf_msg_free(m);
    return e;
}

/* ---- RemoveVersion --------------------------------------------------------------------------------------------- */
static enum skf_err remove_version(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                                   size_t *answer_len, struct skf_why *why)
{
    struct skf_centre *c = ctx;
    char who[65];
    ProtobufCMessage *m;
    struct skf_removal r;
    Skiff__V1__RemoveReply a = SKIFF__V1__REMOVE_REPLY__INIT;
    SKF_TRY(ask(c, identity, &skiff__v1__remove_request__descriptor, p, n, &m, who, why));
    const Skiff__V1__RemoveRequest *q = (Skiff__V1__RemoveRequest *)m;
    enum skf_err e;
    if (!is_registry_name(q->model) || !is_registry_name(q->version)) {
        e = skf_fail(why, SKF_ERR_ARG, "model and version: names are 1 to 128 of [A-Za-z0-9._-]");
        goto out;
    }
    SKF_GO(e, skf_centre_remove(c, q->model, q->version, q->dry_run, &r, why));
    if (!q->dry_run)
        skf_log(SKF_LOG_INFO, "%s: removed %s %s: %llu chunks, %llu deltas", who, q->model, q->version,
                (unsigned long long)r.chunks, (unsigned long long)r.deltas);
    a.chunks = r.chunks;
    a.chunk_bytes = r.chunk_bytes;
    a.deltas = r.deltas;
    a.delta_bytes = r.delta_bytes;
    e = skf_msg_pack(&a.base, answer, answer_len);
out:
    skf_msg_free(m);
    return e;
}

size_t skf_operator_methods(struct skf_centre *c, struct skf_wire_method *out, size_t max)
{
    const struct skf_wire_method all[] = {
        {.path = "/skiff.v1.Operator/GetMeta", .unary = get_meta, .ctx = c},
        {.path = "/skiff.v1.Operator/ListVersions", .unary = list_versions, .ctx = c},
        {.path = "/skiff.v1.Operator/ListDevices", .unary = list_devices, .ctx = c},
        {.path = "/skiff.v1.Operator/Rollout", .unary = rollout, .ctx = c},
        {.path = "/skiff.v1.Operator/Pin", .unary = pin, .ctx = c},
        {.path = "/skiff.v1.Operator/RemoveVersion", .unary = remove_version, .ctx = c},
    };
    size_t n = SKF_MIN(SKF_COUNT(all), max);
    memcpy(out, all, n * sizeof *out);
    return n;
}
