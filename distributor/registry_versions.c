/* Versions, their manifests, and the deltas that make them (registry.h). */
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/registry_priv.h"

/* ---- records --------------------------------------------------------------------------------------------------- */
static enum skf_err pack_version(const struct skf_reg_version *v, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_reg_put_text(b, v->model));
    SKF_TRY(skf_reg_put_text(b, v->version));
    SKF_TRY(skf_buf_put(b, v->root, SKF_DIGEST));
    SKF_TRY(skf_buf_u64(b, v->size));
    SKF_TRY(skf_buf_u64(b, v->n_chunks));
    SKF_TRY(skf_buf_u64(b, (uint64_t)v->created));
    return skf_buf_u32(b, v->runtime_level);
}

static enum skf_err unpack_version(struct skf_reader r, struct skf_reg_version *v)
{
    uint64_t created;
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_reg_get_text(&r, v->model, sizeof v->model));
    SKF_TRY(skf_reg_get_text(&r, v->version, sizeof v->version));
    SKF_TRY(skf_reg_get_digest(&r, v->root));
    SKF_TRY(skf_get_u64(&r, &v->size));
    SKF_TRY(skf_get_u64(&r, &v->n_chunks));
    SKF_TRY(skf_get_u64(&r, &created));
    SKF_TRY(skf_get_u32(&r, &v->runtime_level));
    v->created = (int64_t)created;
    return skf_reg_close_record(&r);
}

static enum skf_err pack_delta(const struct skf_reg_delta *d, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_buf_put(b, d->from, SKF_DIGEST));
    SKF_TRY(skf_buf_put(b, d->to, SKF_DIGEST));
    SKF_TRY(skf_buf_u64(b, d->bytes));
    SKF_TRY(skf_buf_u64(b, d->index_size));
    return skf_buf_put(b, d->sha256, SKF_DIGEST);
}

static enum skf_err unpack_delta(struct skf_reader r, struct skf_reg_delta *d)
{
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_reg_get_digest(&r, d->from));
    SKF_TRY(skf_reg_get_digest(&r, d->to));
    SKF_TRY(skf_get_u64(&r, &d->bytes));
    SKF_TRY(skf_get_u64(&r, &d->index_size));
    SKF_TRY(skf_reg_get_digest(&r, d->sha256));
    return skf_reg_close_record(&r);
}

/* ---- versions -------------------------------------------------------------------------------------------------- */
enum skf_err skf_reg_get_version(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                 struct skf_reg_version *out, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    skf_reg_key(&key, model, version, NULL);
    enum skf_err e = skf_reg_get(t, r->versions, &key, &got);
    if (e == SKF_ERR_NOT_FOUND)
        return skf_fail(why, e, "%s %s: no such version; `skiff versions` lists what there is", model, version);
    if (e == SKF_OK)
        e = unpack_version(got, out);
    return e == SKF_OK ? e : skf_fail(why, e, "registry: record of %s %s: %s", model, version, skf_err_name(e));
}

enum skf_err skf_reg_has_version(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                 struct skf_why *why)
{
    struct skf_reg_version v;
    return skf_reg_get_version(r, t, model, version, &v, why);
}

static enum skf_err put_version(struct skf_registry *r, MDB_txn *t, const struct skf_reg_version *v,
                                const void *manifest, size_t manifest_len, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    struct skf_buf m = {(uint8_t *)(uintptr_t)manifest, manifest_len, manifest_len, manifest_len};
    enum skf_err e;
    skf_reg_key(&key, v->model, v->version, NULL);
    SKF_GO(e, skf_reg_check_removed(r, t, v, why));
    SKF_GO(e, skf_reg_del(t, r->removed, key.bytes, key.n, why));
    SKF_GO(e, pack_version(v, &b));
    SKF_GO(e, skf_reg_put(t, r->versions, &key, &b, why));
    SKF_GO(e, skf_reg_put(t, r->manifests, &key, &m, why));
out:
    skf_buf_free(&b);
    return e;
}

static enum skf_err name_taken(const struct skf_reg_version *v, struct skf_why *why)
{
    return skf_fail(why, SKF_ERR_EXISTS, "%s %s: published already with another content; take a new version name",
                    v->model, v->version);
}

enum skf_err skf_registry_add_version(struct skf_registry *r, const struct skf_reg_version *v, const void *manifest,
                                      size_t manifest_len, const struct skf_reg_adapter *adapter, const char *channel,
                                      struct skf_why *why)
{
    struct skf_reg_version old;
    MDB_txn *t;
    if (!is_registry_name(v->model) || !is_registry_name(v->version) || (channel && !is_registry_name(channel)))
        return skf_fail(why, SKF_ERR_ARG, "%s %s: names are 1 to 128 of [A-Za-z0-9._-]", v->model, v->version);
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = skf_reg_get_version(r, t, v->model, v->version, &old, NULL);
    if (e == SKF_ERR_NOT_FOUND)
        e = put_version(r, t, v, manifest, manifest_len, why);
    else if (e == SKF_OK && memcmp(old.root, v->root, SKF_DIGEST) != 0)
        e = name_taken(v, why);
    if (e == SKF_OK && adapter)
        e = skf_reg_put_adapter(r, t, adapter, why);
    if (e == SKF_OK && channel)
        e = skf_reg_start_in(r, t, v->model, channel, v->version, NULL, why);
    return skf_reg_end(t, e, why);
}

enum skf_err skf_registry_may_add(struct skf_registry *r, const struct skf_reg_version *v, bool *is_known,
                                  struct skf_why *why)
{
    struct skf_reg_version had;
    MDB_txn *t;
    *is_known = false;
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_get_version(r, t, v->model, v->version, &had, why);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_reg_check_removed(r, t, v, why);
    else if (e == SKF_OK && memcmp(had.root, v->root, SKF_DIGEST) != 0)
        e = name_taken(v, why);
    else if (e == SKF_OK)
        *is_known = true;
    mdb_txn_abort(t);
    return e;
}

enum skf_err skf_registry_version(struct skf_registry *r, const char *model, const char *version,
                                  struct skf_reg_version *out, struct skf_why *why)
{
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    return skf_reg_end(t, skf_reg_get_version(r, t, model, version, out, why), why);
}

enum skf_err skf_registry_manifest(struct skf_registry *r, const char *model, const char *version, uint8_t **p,
                                   size_t *n, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    MDB_txn *t;
    skf_reg_key(&key, model, version, NULL);
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_get(t, r->manifests, &key, &got);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_fail(why, e, "%s %s: no such version", model, version);
    else if (e == SKF_OK) {
        *n = skf_reader_left(&got);
        *p = skf_memdup(got.p, *n);
        e = *p ? SKF_OK : SKF_ERR_NOMEM;
    }
    return skf_reg_end(t, e, why);
}

struct version_walk {
    enum skf_err (*fn)(void *ctx, const struct skf_reg_version *v);
    void *ctx;
    const uint8_t *root;
    struct skf_reg_version *found;
};

static enum skf_err walk_version(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct version_walk *w = ctx;
    struct skf_reg_version v;
    SKF_TRY(unpack_version(value, &v));
    if (w->fn)
        return w->fn(w->ctx, &v);
    if (memcmp(v.root, w->root, SKF_DIGEST) != 0)
        return SKF_OK;
    *w->found = v;
    return SKF_ERR_EXISTS; /* stops the walk: found */
}

enum skf_err skf_registry_by_root(struct skf_registry *r, const uint8_t root[SKF_DIGEST], struct skf_reg_version *out,
                                  struct skf_why *why)
{
    struct version_walk w = {NULL, NULL, root, out};
    MDB_txn *t;
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_scan(t, r->versions, NULL, walk_version, &w);
    mdb_txn_abort(t);
    if (e == SKF_ERR_EXISTS)
        return SKF_OK;
    if (e == SKF_OK)
        e = SKF_ERR_NOT_FOUND;
    char hex[SKF_HEX];
    skf_hex(root, SKF_DIGEST, hex);
    return skf_fail(why, e, "content %.16s...: no version has it", hex);
}

enum skf_err skf_registry_each_version(struct skf_registry *r, const char *model,
                                       enum skf_err (*fn)(void *ctx, const struct skf_reg_version *v), void *ctx)
{
    struct version_walk w = {fn, ctx, NULL, NULL};
    struct skf_reg_key prefix;
    MDB_txn *t;
    if (model)
        skf_reg_prefix(&prefix, model);
    SKF_TRY(skf_reg_begin(r, false, &t, NULL));
    return skf_reg_end(t, skf_reg_scan(t, r->versions, model ? &prefix : NULL, walk_version, &w), NULL);
}

/* ---- deltas ---------------------------------------------------------------------------------------------------- */
enum skf_err skf_registry_add_delta(struct skf_registry *r, const struct skf_reg_delta *d, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(SKF_REG_RECORD_MAX);
    MDB_txn *t = NULL;
    enum skf_err e;
    skf_reg_pair_key(&key, d->from, d->to);
    SKF_GO(e, pack_delta(d, &b));
    SKF_GO(e, skf_reg_begin(r, true, &t, why));
    e = skf_reg_end(t, skf_reg_put(t, r->deltas, &key, &b, why), why);
out:
    skf_buf_free(&b);
    return e;
}

enum skf_err skf_registry_delta(struct skf_registry *r, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST],
                                struct skf_reg_delta *out, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    MDB_txn *t;
    skf_reg_pair_key(&key, from, to);
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_get(t, r->deltas, &key, &got);
    if (e == SKF_OK)
        e = unpack_delta(got, out);
    if (e != SKF_OK)
        (void)skf_fail(why, e, "registry: delta: %s", skf_err_name(e));
    return skf_reg_end(t, e, why);
}

struct delta_walk {
    enum skf_err (*fn)(void *ctx, const struct skf_reg_delta *d);
    void *ctx;
};

static enum skf_err walk_delta(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct delta_walk *w = ctx;
    struct skf_reg_delta d;
    SKF_TRY(unpack_delta(value, &d));
    return w->fn(w->ctx, &d);
}

enum skf_err skf_registry_each_delta(struct skf_registry *r, const uint8_t to[SKF_DIGEST],
                                     enum skf_err (*fn)(void *ctx, const struct skf_reg_delta *d), void *ctx)
{
    struct delta_walk w = {fn, ctx};
    struct skf_reg_key prefix;
    MDB_txn *t;
    skf_reg_pair_key(&prefix, NULL, to);
    SKF_TRY(skf_reg_begin(r, false, &t, NULL));
    return skf_reg_end(t, skf_reg_scan(t, r->deltas, &prefix, walk_delta, &w), NULL);
}
