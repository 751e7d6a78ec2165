/* The decision for one box (assign.h). */
#include "distributor/assign.h"

#include <string.h>

static const char *tag_value(const char *tag, const char *key)
{
    size_t n = strlen(key);
    return strncmp(tag, key, n) == 0 ? tag + n : NULL;
}

const char *skf_assign_channel(const struct skf_reg_device *d)
{
    for (size_t i = 0; i < d->n_tags; i++) {
        const char *v = tag_value(d->tags[i], "channel=");
        if (v && is_registry_name(v))
            return v;
    }
    return SKF_CHANNEL_DEFAULT;
}

bool is_model_wanted(const struct skf_reg_device *d, const char *model)
{
    bool is_limited = false;
    for (size_t i = 0; i < d->n_tags; i++) {
        const char *v = tag_value(d->tags[i], "model=");
        if (v && strcmp(v, model) == 0)
            return true;
        is_limited = is_limited || v;
    }
    return !is_limited;
}

const struct skf_reg_held *skf_device_slot(const struct skf_reg_device *d, const char *model, const char *slot)
{
    for (size_t i = 0; i < d->n_held; i++)
        if (strcmp(d->held[i].model, model) == 0 && strcmp(d->held[i].slot, slot) == 0)
            return &d->held[i];
    return NULL;
}

bool has_device_content(const struct skf_reg_device *d, const char *model, const uint8_t root[SKF_DIGEST])
{
    for (size_t i = 0; i < d->n_held; i++)
        if (strcmp(d->held[i].model, model) == 0 && strcmp(d->held[i].slot, "incoming") != 0 &&
            memcmp(d->held[i].root, root, SKF_DIGEST) == 0)
            return true;
    return false;
}

struct skf_reg_work *skf_device_work(const struct skf_reg_device *d, const char *model)
{
    for (size_t i = 0; i < d->n_work; i++)
        if (strcmp(d->work[i].model, model) == 0)
            return &d->work[i];
    return NULL;
}

void skf_empty_root(uint8_t root[SKF_DIGEST])
{
    struct skf_merkle m;
    skf_merkle_init(&m);
    skf_merkle_root(&m, root);
}

void skf_manifest_path(const char *model, const char *version, char out[SKF_TARGET_PATH])
{
    (void)snprintf(out, SKF_TARGET_PATH, "models/%.128s/%.128s.manifest", model, version);
}

void skf_delta_path(const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST], char out[SKF_TARGET_PATH])
{
    char a[SKF_HEX], b[SKF_HEX];
    skf_hex(from, SKF_DIGEST, a);
    skf_hex(to, SKF_DIGEST, b);
    (void)snprintf(out, SKF_TARGET_PATH, "deltas/%s-%s.skdx", a, b);
}

/* A second try from the empty content is a decision of its own to the box. */
static void plan_id(uint64_t serial, bool is_full, char id[SKF_REG_ID])
{
    (void)snprintf(id, SKF_REG_ID, "a%llu%s", (unsigned long long)serial, is_full ? "f" : "");
}

bool is_work_of(const struct skf_reg_work *w, uint64_t serial)
{
    char id[SKF_REG_ID], full[SKF_REG_ID];
    if (!w)
        return false;
    plan_id(serial, false, id);
    plan_id(serial, true, full);
    return strcmp(w->id, id) == 0 || strcmp(w->id, full) == 0;
}

static void set_version(struct skf_target *t, const char *version, uint64_t serial)
{
    (void)snprintf(t->version, sizeof t->version, "%.128s", version);
    t->serial = serial;
}

/* What the channel says of this box. */
static void target_of_channel(const struct skf_reg_channel *c, const struct skf_reg_device *d, struct skf_target *t)
{
    switch (c->state) {
    case SKF_ROLLOUT_ABORTED:
        set_version(t, c->previous, c->serial);
        break;
    case SKF_ROLLOUT_PAUSED: /* a box that was told already goes on */
        if (is_work_of(skf_device_work(d, c->model), c->serial))
            set_version(t, c->version, c->serial);
        break;
    case SKF_ROLLOUT_RUNNING:
    case SKF_ROLLOUT_DONE:
    default:
        set_version(t, c->version, c->serial);
        break;
    }
}

enum skf_err skf_assign_target(struct skf_registry *r, const struct skf_reg_device *d, const char *model,
                               struct skf_target *t, struct skf_why *why)
{
    struct skf_reg_pin pin;
    struct skf_reg_channel c;
    *t = (struct skf_target){.version = ""};
    (void)snprintf(t->channel, sizeof t->channel, "%s", skf_assign_channel(d));
    enum skf_err has_channel = skf_registry_channel(r, model, t->channel, &c, why);
    if (has_channel != SKF_OK && has_channel != SKF_ERR_NOT_FOUND)
        return has_channel;
    enum skf_err e = skf_registry_get_pin(r, d->name, model, SKF_PIN_FIXED, &pin);
    if (e == SKF_ERR_NOT_FOUND) {
        e = skf_registry_get_pin(r, d->name, model, SKF_PIN_ROLLBACK, &pin);
        if (e == SKF_OK && has_channel == SKF_OK && c.started > pin.serial)
            e = SKF_ERR_NOT_FOUND; /* a newer rollout ends it */
    }
    if (e == SKF_OK) {
        t->is_pinned = true;
        set_version(t, pin.version, pin.serial);
        return SKF_OK;
    }
    if (e != SKF_ERR_NOT_FOUND)
        return skf_fail(why, e, "registry: pin of %s: %s", d->name, skf_err_name(e));
    if (has_channel == SKF_OK && is_model_wanted(d, model))
        target_of_channel(&c, d, t);
    return SKF_OK;
}

/* Whether we can build from what the box runs: under the name it gives, or, more slowly, under any. */
static bool is_content_known(struct skf_registry *r, const struct skf_reg_held *h)
{
    struct skf_reg_version v;
    if (skf_registry_version(r, h->model, h->version, &v, NULL) == SKF_OK && memcmp(v.root, h->root, SKF_DIGEST) == 0)
        return true;
    return skf_registry_by_root(r, h->root, &v, NULL) == SKF_OK;
}

enum skf_err skf_assign_plan(struct skf_registry *r, const struct skf_reg_device *d, const char *model,
                             const char *sent_id, int64_t now, struct skf_plan *p, struct skf_why *why)
{
    struct skf_reg_version v;
    struct skf_reg_delta delta;
    *p = (struct skf_plan){.step = SKF_STEP_NONE};
    SKF_TRY(skf_assign_target(r, d, model, &p->target, why));
    if (!p->target.version[0])
        return SKF_OK;
    SKF_TRY(skf_registry_version(r, model, p->target.version, &v, why));
    const struct skf_reg_held *active = skf_device_slot(d, model, "active");
    const struct skf_reg_work *w = skf_device_work(d, model);
    bool is_same = is_work_of(w, p->target.serial), is_full = is_same && w->is_full;
    plan_id(p->target.serial, is_full, p->id);
    if (strcmp(p->id, sent_id) == 0 && !(is_same && w->has_failed && w->retry_at && now >= w->retry_at))
        return SKF_OK;
    memcpy(p->to, v.root, SKF_DIGEST);
    p->step = SKF_STEP_SEND;
    p->has_content = !is_full && has_device_content(d, model, v.root);
    if (p->has_content)
        return SKF_OK;
    if (v.runtime_level && d->runtime_level && d->runtime_level < v.runtime_level) {
        p->step = SKF_STEP_WAIT;
        p->reason = "needs a newer runtime than the box has";
        return SKF_OK;
    }
    skf_empty_root(p->from);
    if (active && !is_full && is_content_known(r, active))
        memcpy(p->from, active->root, SKF_DIGEST);
    enum skf_err e = skf_registry_delta(r, p->from, p->to, &delta, why);
    if (e == SKF_ERR_NOT_FOUND) {
        p->step = SKF_STEP_BUILD;
        return SKF_OK;
    }
    return e;
}
