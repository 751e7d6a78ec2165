/* Channels with their rollouts, and pins (registry.h). */
#include <string.h>

#include "base/util.h"
#include "distributor/registry_priv.h"

const char *skf_rollout_state_name(enum skf_rollout_state s)
{
    static const char *const names[] = {"running", "paused", "aborted", "done"};
    return (unsigned)s < SKF_ROLLOUT_COUNT ? names[s] : "unknown";
}

static enum skf_err pack_channel(const struct skf_reg_channel *c, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_reg_put_text(b, c->model));
    SKF_TRY(skf_reg_put_text(b, c->channel));
    SKF_TRY(skf_reg_put_text(b, c->version));
    SKF_TRY(skf_reg_put_text(b, c->previous));
    SKF_TRY(skf_buf_u8(b, (uint8_t)c->state));
    SKF_TRY(skf_buf_u64(b, c->serial));
    SKF_TRY(skf_buf_u64(b, c->started));
    return skf_buf_u64(b, (uint64_t)c->when);
}

static enum skf_err unpack_channel(struct skf_reader r, struct skf_reg_channel *c)
{
    uint8_t state;
    uint64_t when;
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_reg_get_text(&r, c->model, sizeof c->model));
    SKF_TRY(skf_reg_get_text(&r, c->channel, sizeof c->channel));
    SKF_TRY(skf_reg_get_text(&r, c->version, sizeof c->version));
    SKF_TRY(skf_reg_get_text(&r, c->previous, sizeof c->previous));
    SKF_TRY(skf_get_u8(&r, &state));
    SKF_TRY(skf_get_u64(&r, &c->serial));
    SKF_TRY(skf_get_u64(&r, &c->started));
    SKF_TRY(skf_get_u64(&r, &when));
    if (state >= SKF_ROLLOUT_COUNT)
        return SKF_ERR_FORMAT;
    c->state = (enum skf_rollout_state)state;
    c->when = (int64_t)when;
    return skf_reg_close_record(&r);
}

static enum skf_err get_channel(struct skf_registry *r, MDB_txn *t, const char *model, const char *channel,
                                struct skf_reg_channel *out, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    skf_reg_key(&key, model, channel, NULL);
    enum skf_err e = skf_reg_get(t, r->channels, &key, &got);
    if (e == SKF_ERR_NOT_FOUND)
        return skf_fail(why, e, "%s: channel %s has no rollout", model, channel);
    if (e == SKF_OK)
        e = unpack_channel(got, out);
    return e == SKF_OK ? e
                       : skf_fail(why, e, "registry: record of channel %s of %s: %s", channel, model, skf_err_name(e));
}

static enum skf_err put_channel(struct skf_registry *r, MDB_txn *t, const struct skf_reg_channel *c,
                                struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    skf_reg_key(&key, c->model, c->channel, NULL);
    enum skf_err e = pack_channel(c, &b);
    if (e == SKF_OK)
        e = skf_reg_put(t, r->channels, &key, &b, why);
    skf_buf_free(&b);
    return e;
}

static void set_text(char *to, size_t cap, const char *from)
{
    (void)snprintf(to, cap, "%s", from);
}

enum skf_err skf_reg_start_in(struct skf_registry *r, MDB_txn *t, const char *model, const char *channel,
                              const char *version, struct skf_reg_channel *out, struct skf_why *why)
{
    struct skf_reg_channel c = {.version = ""};
    enum skf_err e = get_channel(r, t, model, channel, &c, NULL);
    if (e == SKF_ERR_NOT_FOUND) {
        c = (struct skf_reg_channel){.version = ""};
        set_text(c.model, sizeof c.model, model);
        set_text(c.channel, sizeof c.channel, channel);
    } else if (e != SKF_OK) {
        return skf_fail(why, e, "registry: channel %s of %s: %s", channel, model, skf_err_name(e));
    }
    /* Where the channel's boxes are now; the same version again keeps what was before it. */
    const char *stands = c.state == SKF_ROLLOUT_ABORTED ? c.previous : c.version;
    if (strcmp(stands, version) != 0) {
        char before[SKF_REG_NAME];
        set_text(before, sizeof before, stands);
        set_text(c.previous, sizeof c.previous, before);
    } else if (c.state == SKF_ROLLOUT_ABORTED) {
        c.previous[0] = 0;
    }
    set_text(c.version, sizeof c.version, version);
    c.state = SKF_ROLLOUT_RUNNING;
    c.when = skf_now_unix();
    SKF_TRY(skf_reg_serial(r, t, &c.serial, why));
    c.started = c.serial;
    if (out)
        *out = c;
    return put_channel(r, t, &c, why);
}

enum skf_err skf_registry_start(struct skf_registry *r, const char *model, const char *channel, const char *version,
                                struct skf_reg_channel *out, struct skf_why *why)
{
    MDB_txn *t;
    if (!is_registry_name(channel))
        return skf_fail(why, SKF_ERR_ARG, "channel '%.140s': names are 1 to 128 of [A-Za-z0-9._-]", channel);
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = skf_reg_has_version(r, t, model, version, why);
    if (e == SKF_OK)
        e = skf_reg_start_in(r, t, model, channel, version, out, why);
    return skf_reg_end(t, e, why);
}

static bool is_act_allowed(enum skf_rollout_state s, enum skf_rollout_act act)
{
    switch (act) {
    case SKF_ACT_RESUME:
        return s == SKF_ROLLOUT_PAUSED;
    case SKF_ACT_ABORT:
        return s != SKF_ROLLOUT_ABORTED;
    case SKF_ACT_PAUSE:
    case SKF_ACT_FINISH:
    default:
        return s == SKF_ROLLOUT_RUNNING;
    }
}

enum skf_err skf_registry_act(struct skf_registry *r, const char *model, const char *channel, enum skf_rollout_act act,
                              struct skf_reg_channel *out, struct skf_why *why)
{
    static const enum skf_rollout_state after[] = {SKF_ROLLOUT_PAUSED, SKF_ROLLOUT_RUNNING, SKF_ROLLOUT_ABORTED,
                                                   SKF_ROLLOUT_DONE};
    static const char *const verbs[] = {"pause", "resume", "abort", "finish"};
    struct skf_reg_channel c;
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = get_channel(r, t, model, channel, &c, why);
    if (e == SKF_OK && !is_act_allowed(c.state, act))
        e = skf_fail(why, SKF_ERR_STATE, "%s: the rollout of %s on channel %s is %s; cannot %s it", model, c.version,
                     channel, skf_rollout_state_name(c.state), verbs[act]);
    if (e == SKF_OK) {
        c.state = after[act];
        if (act == SKF_ACT_ABORT)
            e = skf_reg_serial(r, t, &c.serial, why);
    }
    if (e == SKF_OK)
        e = put_channel(r, t, &c, why);
    e = skf_reg_end(t, e, why);
    if (e == SKF_OK && out)
        *out = c;
    return e;
}

enum skf_err skf_registry_channel(struct skf_registry *r, const char *model, const char *channel,
                                  struct skf_reg_channel *out, struct skf_why *why)
{
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    return skf_reg_end(t, get_channel(r, t, model, channel, out, why), why);
}

struct channel_walk {
    enum skf_err (*fn)(void *ctx, const struct skf_reg_channel *c);
    void *ctx;
};

static enum skf_err walk_channel(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct channel_walk *w = ctx;
    struct skf_reg_channel c;
    SKF_TRY(unpack_channel(value, &c));
    return w->fn(w->ctx, &c);
}

enum skf_err skf_registry_each_channel(struct skf_registry *r, const char *model,
                                       enum skf_err (*fn)(void *ctx, const struct skf_reg_channel *c), void *ctx)
{
    struct channel_walk w = {fn, ctx};
    struct skf_reg_key prefix;
    MDB_txn *t;
    if (model)
        skf_reg_prefix(&prefix, model);
    SKF_TRY(skf_reg_begin(r, false, &t, NULL));
    return skf_reg_end(t, skf_reg_scan(t, r->channels, model ? &prefix : NULL, walk_channel, &w), NULL);
}

/* ---- pins ------------------------------------------------------------------------------------------------------ */
static const char *const pin_parts[SKF_PIN_KINDS] = {"fixed", "rollback"};

static enum skf_err put_pin(struct skf_registry *r, MDB_txn *t, const struct skf_reg_pin *p, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    uint64_t serial;
    enum skf_err e;
    SKF_GO(e, skf_reg_has_version(r, t, p->model, p->version, why));
    SKF_GO(e, skf_reg_serial(r, t, &serial, why));
    SKF_GO(e, skf_buf_u8(&b, SKF_REG_RECORD));
    SKF_GO(e, skf_reg_put_text(&b, p->version));
    SKF_GO(e, skf_buf_u64(&b, serial));
    skf_reg_key(&key, p->device, p->model, pin_parts[p->kind]);
    SKF_GO(e, skf_reg_put(t, r->pins, &key, &b, why));
out:
    skf_buf_free(&b);
    return e;
}

enum skf_err skf_registry_pin(struct skf_registry *r, const struct skf_reg_pin *pins, size_t n, struct skf_why *why)
{
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < n && e == SKF_OK; i++)
        e = put_pin(r, t, &pins[i], why);
    return skf_reg_end(t, e, why);
}

enum skf_err skf_registry_unpin(struct skf_registry *r, const char *device, const char *model, bool *had,
                                struct skf_why *why)
{
    MDB_txn *t;
    *had = false;
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < SKF_PIN_KINDS && e == SKF_OK; i++) {
        struct skf_reg_key key;
        skf_reg_key(&key, device, model, pin_parts[i]);
        MDB_val k = {key.n, key.bytes};
        int rc = mdb_del(t, r->pins, &k, NULL);
        *had = *had || rc == 0;
        e = rc == MDB_NOTFOUND ? SKF_OK : skf_reg_fail(why, rc, "unpin");
    }
    return skf_reg_end(t, e, why);
}

enum skf_err skf_registry_get_pin(struct skf_registry *r, const char *device, const char *model, enum skf_pin_kind kind,
                                  struct skf_reg_pin *out)
{
    struct skf_reg_key key;
    struct skf_reader got;
    MDB_txn *t;
    *out = (struct skf_reg_pin){.kind = kind};
    set_text(out->device, sizeof out->device, device);
    set_text(out->model, sizeof out->model, model);
    skf_reg_key(&key, device, model, pin_parts[kind]);
    SKF_TRY(skf_reg_begin(r, false, &t, NULL));
    enum skf_err e = skf_reg_get(t, r->pins, &key, &got);
    if (e == SKF_OK)
        e = skf_reg_open_record(&got);
    if (e == SKF_OK)
        e = skf_reg_get_text(&got, out->version, sizeof out->version);
    if (e == SKF_OK)
        e = skf_get_u64(&got, &out->serial);
    if (e == SKF_OK)
        e = skf_reg_close_record(&got);
    return skf_reg_end(t, e, NULL);
}

/* ---- who has to do with a version ------------------------------------------------------------------------------ */
struct use {
    const char *model, *version;
    struct skf_why *why;
};

static enum skf_err use_of_channel(void *ctx, const struct skf_reg_channel *c)
{
    const struct use *u = ctx;
    if (strcmp(c->version, u->version) == 0)
        return skf_fail(u->why, SKF_ERR_BUSY, "%s %s: channel %s stands at it", u->model, u->version, c->channel);
    if (strcmp(c->previous, u->version) == 0)
        return skf_fail(u->why, SKF_ERR_BUSY, "%s %s: channel %s would go back to it, were its rollout of %s aborted", u->model,
                        u->version, c->channel, c->version);
    return SKF_OK;
}

static enum skf_err use_of_pin(void *ctx, struct skf_reader key, struct skf_reader value)
{
    const struct use *u = ctx;
    char version[SKF_REG_NAME];
    const char *device = (const char *)key.p;
    size_t model = strlen(u->model), left = skf_reader_left(&key), n = strnlen(device, left);
    if (left - n < model + 2 || memcmp(device + n + 1, u->model, model + 1) != 0) /* behind device and model a NUL each */
        return SKF_OK;
    SKF_TRY(skf_reg_open_record(&value));
    SKF_TRY(skf_reg_get_text(&value, version, sizeof version));
    if (strcmp(version, u->version) != 0)
        return SKF_OK;
    return skf_fail(u->why, SKF_ERR_BUSY, "%s %s: %.*s is pinned to it, or was rolled back to it; `skiff unpin` ends that",
                    u->model, u->version, (int)n, device);
}

enum skf_err skf_reg_check_unused(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                  struct skf_why *why)
{
    struct use u = {model, version, why};
    struct channel_walk w = {use_of_channel, &u};
    struct skf_reg_key prefix;
    skf_reg_prefix(&prefix, model);
    SKF_TRY(skf_reg_scan(t, r->channels, &prefix, walk_channel, &w));
    return skf_reg_scan(t, r->pins, NULL, use_of_pin, &u);
}
