/*
 * Looking at an agent's store from outside, whether the agent runs or not: is every byte right, what is in which slot.
 */
#include "agent/agent_priv.h"

#include "base/file.h"
#include "store/layout.h"

struct list {
    struct skf_store *store;
    const char *dir;
    skf_json *versions, *models;
};

static enum skf_err add_slots(struct list *l, const char *model)
{
    static const char *const names[SKF_SLOT_COUNT] = {"active", "previous", "incoming", "pinned"};
    struct skf_slots slots;
    struct skf_record r;
    if (skf_json_get(l->models, model))
        return SKF_OK;
    SKF_TRY(skf_store_slots(l->store, model, &slots, NULL));
    SKF_TRY(skf_record_load(l->store, model, &r, NULL));
    skf_json *j = skf_json_obj();
    enum skf_err e = j ? SKF_OK : SKF_ERR_NOMEM;
    for (int i = 0; e == SKF_OK && i < SKF_SLOT_COUNT; i++)
        e = skf_json_set(j, names[i], skf_json_str(slots.version[i]));
    if (e == SKF_OK)
        e = skf_json_set(j, "phase", skf_json_str(skf_phase_name(r.phase)));
    if (e == SKF_OK)
        e = skf_json_set(j, "assignment", skf_json_str(r.assign.version));
    if (e == SKF_OK)
        e = skf_json_set(j, "attempts", skf_json_int(r.attempts));
    if (e == SKF_OK)
        e = skf_json_set(j, "bytes", skf_json_int((int64_t)r.bytes));
    if (e == SKF_OK)
        e = skf_json_set(j, "error", skf_json_str(r.error));
    if (e != SKF_OK) {
        skf_json_free(j);
        return e;
    }
    return skf_json_set(l->models, model, j);
}

/* What its kept layout takes, and what is wrong with it: it can be made again, so that this is no error of the store. */
static enum skf_err add_layout(const struct list *l, skf_json *j, const uint8_t root[SKF_DIGEST])
{
    struct skf_layout *kept = NULL;
    struct skf_why why = {{0}};
    uint64_t bytes = 0;
    enum skf_err e = skf_layout_open(l->dir, root, SKF_LAYOUT_LANES, &kept, &why);
    if (e == SKF_OK) {
        bytes = skf_layout_bytes(kept);
        e = skf_layout_verify(kept, 0, &why);
    }
    skf_layout_close(kept);
    SKF_TRY(skf_json_set(j, "layout_bytes", skf_json_int((int64_t)bytes)));
    return skf_json_set(j, "layout_error", skf_json_str(e == SKF_OK || e == SKF_ERR_NOT_FOUND ? "" : why.text));
}

static enum skf_err on_version(void *ctx, const struct skf_store_version *v)
{
    struct list *l = ctx;
    char root[SKF_HEX];
    skf_hex(v->root, SKF_DIGEST, root);
    skf_json *j = skf_json_obj();
    enum skf_err e = j ? SKF_OK : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_json_set(j, "model", skf_json_str(v->model));
    if (e == SKF_OK)
        e = skf_json_set(j, "version", skf_json_str(v->version));
    if (e == SKF_OK)
        e = skf_json_set(j, "root", skf_json_str(root));
    if (e == SKF_OK)
        e = skf_json_set(j, "size", skf_json_int((int64_t)v->size));
    if (e == SKF_OK)
        e = add_layout(l, j, v->root);
    if (e != SKF_OK) {
        skf_json_free(j);
        return e;
    }
    SKF_TRY(skf_json_push(l->versions, j));
    return add_slots(l, v->model);
}

enum skf_err skf_agent_check_store(const char *dir, skf_json **out, struct skf_why *why)
{
    char path[4096], names[SKF_AGENT_MODELS][SKF_NAME_MAX];
    size_t n = 0;
    struct skf_store_opts o = {.mode = SKF_STORE_READ};
    struct list l = {.dir = path};
    *out = NULL;
    SKF_TRY(skf_path(path, sizeof path, dir, "store"));
    SKF_TRY(skf_store_open(path, &o, &l.store, why));
    *out = skf_json_obj();
    l.versions = skf_json_arr();
    l.models = skf_json_obj();
    enum skf_err e = *out && l.versions && l.models ? SKF_OK : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_store_verify(l.store, why);
    if (e == SKF_OK)
        e = skf_models_load(l.store, names, &n, why);
    for (size_t i = 0; e == SKF_OK && i < n; i++)
        e = add_slots(&l, names[i]);
    if (e == SKF_OK)
        e = skf_store_each_version(l.store, on_version, &l);
    if (e == SKF_OK)
        e = skf_json_set(*out, "versions", skf_json_ref(l.versions));
    if (e == SKF_OK)
        e = skf_json_set(*out, "models", skf_json_ref(l.models));
    skf_json_free(l.versions);
    skf_json_free(l.models);
    skf_store_close(l.store);
    if (e != SKF_OK) {
        skf_json_free(*out);
        *out = NULL;
        if (why && !why->text[0])
            return skf_fail(why, e, "%s: cannot be read", path);
    }
    return e;
}
