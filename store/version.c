/*
 * Versions: lists of chunks that are visible whole or not at all.
 */
#include "store/store_priv.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/util.h"

#define RECORD_FORMAT 1u

enum skf_err skf_version_key(const char *model, const char *version, char key[SKF_VERSION_KEY], MDB_val *k,
                             struct skf_why *why)
{
    if (!is_store_name(model) || !is_store_name(version))
        return skf_fail(why, SKF_ERR_ARG, "store: '%.140s' '%.140s' is no name of a model and a version",
                        model ? model : "", version ? version : "");
    size_t m = strlen(model), v = strlen(version);
    memcpy(key, model, m + 1);
    memcpy(key + m + 1, version, v + 1);
    *k = (MDB_val){m + 1 + v, key};
    return SKF_OK;
}

enum skf_err skf_version_find(struct skf_store *s, MDB_txn *txn, const char *model, const char *version, MDB_val *key,
                              char keybuf[SKF_VERSION_KEY], MDB_val *val, struct skf_why *why)
{
    SKF_TRY(skf_version_key(model, version, keybuf, key, why));
    int rc = mdb_get(txn, s->version, key, val);
    if (rc == MDB_NOTFOUND)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s %s: no such version in the store", model, version);
    return rc ? skf_store_fail(why, rc, "%s %s", model, version) : SKF_OK;
}

/* ---- the record ---------------------------------------------------------------------------------------------------- */

/* Names in `v` point into a key that has room for the NUL behind the version, or are the caller's own. */
enum skf_err skf_version_decode(const MDB_val *key, const MDB_val *val, struct skf_store_version *v,
                                struct skf_store_chunk **chunks, struct skf_why *why)
{
    *chunks = NULL;
    const uint8_t *b = val->mv_data;
    uint64_t table = 0, need = 0;
    if (val->mv_size < SKF_VERSION_HEAD || skf_le32(b) != RECORD_FORMAT || skf_le32(b + 4) != 0)
        goto damaged;
    v->size = skf_le64(b + 8);
    memcpy(v->root, b + 16, SKF_DIGEST);
    v->n_chunks = skf_le64(b + 48);
    v->manifest_len = (size_t)skf_le64(b + 56);
    if (!is_mul_ok(v->n_chunks, SKF_VERSION_ENTRY, &table) || !is_add_ok(table, SKF_VERSION_HEAD, &need) ||
        !is_add_ok(need, v->manifest_len, &need) || need != val->mv_size)
        goto damaged;
    struct skf_store_chunk *c = skf_calloc((size_t)v->n_chunks + 1, sizeof *c);
    if (!c)
        return skf_fail(why, SKF_ERR_NOMEM, "store: no memory for a version of %llu chunks",
                        (unsigned long long)v->n_chunks);
    const uint8_t *p = b + SKF_VERSION_HEAD;
    for (uint64_t i = 0; i < v->n_chunks; i++, p += SKF_VERSION_ENTRY) {
        memcpy(c[i].digest, p, SKF_DIGEST);
        c[i].length = skf_le32(p + SKF_DIGEST);
    }
    v->manifest = p;
    v->chunks = *chunks = c;
    return SKF_OK;
damaged:
    return skf_fail(why, SKF_ERR_FORMAT, "store: the record of version %.*s %s is damaged", (int)key->mv_size,
                    (const char *)key->mv_data, v->version ? v->version : "");
}

static void encode(const struct skf_store_version *v, uint8_t *b)
{
    skf_put_le32(b, RECORD_FORMAT);
    skf_put_le32(b + 4, 0);
    skf_put_le64(b + 8, v->size);
    memcpy(b + 16, v->root, SKF_DIGEST);
    skf_put_le64(b + 48, v->n_chunks);
    skf_put_le64(b + 56, v->manifest_len);
    b += SKF_VERSION_HEAD;
    for (uint64_t i = 0; i < v->n_chunks; i++, b += SKF_VERSION_ENTRY) {
        memcpy(b, v->chunks[i].digest, SKF_DIGEST);
        skf_put_le32(b + SKF_DIGEST, v->chunks[i].length);
    }
    if (v->manifest_len)
        memcpy(b, v->manifest, v->manifest_len);
}

/* ---- adding -------------------------------------------------------------------------------------------------------- */

static enum skf_err check_chunks(struct skf_store *s, MDB_txn *txn, const struct skf_store_version *v,
                                 struct skf_why *why)
{
    struct skf_merkle m;
    uint8_t root[SKF_DIGEST];
    skf_merkle_init(&m);
    for (uint64_t i = 0; i < v->n_chunks; i++) {
        const uint8_t *p;
        uint32_t n;
        enum skf_err e = skf_chunk_find(s, txn, v->chunks[i].digest, &p, &n, why);
        if (e == SKF_OK && n != v->chunks[i].length)
            e = skf_fail(why, SKF_ERR_DIGEST, "the chunk has %u bytes in the store and %u in the list", n,
                         v->chunks[i].length);
        if (e != SKF_OK)
            return skf_fail_prefix(why, e, "%s %s: chunk %llu of %llu", v->model, v->version, (unsigned long long)i,
                                   (unsigned long long)v->n_chunks);
        skf_merkle_add(&m, v->chunks[i].digest, v->chunks[i].length);
    }
    skf_merkle_root(&m, root);
    if (m.size != v->size || memcmp(root, v->root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "%s %s: its chunks do not come to its root", v->model, v->version);
    return SKF_OK;
}

static enum skf_err add_in(struct skf_store *s, MDB_txn *txn, const struct skf_store_version *v, MDB_val *key,
                           struct skf_why *why)
{
    MDB_val old;
    int rc = mdb_get(txn, s->version, key, &old);
    if (rc == 0) {
        if (old.mv_size < SKF_VERSION_HEAD || memcmp((const uint8_t *)old.mv_data + 16, v->root, SKF_DIGEST) != 0)
            return skf_fail(why, SKF_ERR_EXISTS, "%s %s: the store holds another content under this name", v->model,
                            v->version);
        return SKF_OK;
    }
    if (rc != MDB_NOTFOUND)
        return skf_store_fail(why, rc, "%s %s", v->model, v->version);
    SKF_TRY(check_chunks(s, txn, v, why));
    MDB_val val = {SKF_VERSION_HEAD + (size_t)v->n_chunks * SKF_VERSION_ENTRY + v->manifest_len, NULL};
    rc = mdb_put(txn, s->version, key, &val, MDB_NOOVERWRITE | MDB_RESERVE);
    if (rc)
        return skf_store_fail(why, rc, "%s %s", v->model, v->version);
    encode(v, val.mv_data);
    return SKF_OK;
}

enum skf_err skf_store_add_version(struct skf_store *s, const struct skf_store_version *v, struct skf_why *why)
{
    char keybuf[SKF_VERSION_KEY];
    MDB_val key;
    SKF_TRY(skf_version_key(v->model, v->version, keybuf, &key, why));
    if (v->n_chunks > UINT32_MAX || v->manifest_len > UINT32_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s %s: too large a version", v->model, v->version);
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    return skf_txn_end(txn, add_in(s, txn, v, &key, why), why);
}

/* ---- removing, listing ----------------------------------------------------------------------------------------------- */

static enum skf_err del_in(struct skf_store *s, MDB_txn *txn, const char *model, const char *version,
                           struct skf_why *why)
{
    char keybuf[SKF_VERSION_KEY];
    MDB_val key, val;
    struct skf_slots slots;
    SKF_TRY(skf_version_find(s, txn, model, version, &key, keybuf, &val, why));
    SKF_TRY(skf_slots_read(s, txn, model, &slots, why));
    for (int i = 0; i < SKF_SLOT_COUNT; i++)
        if (strcmp(slots.version[i], version) == 0)
            return skf_fail(why, SKF_ERR_BUSY, "%s %s: a slot names this version", model, version);
    int rc = mdb_del(txn, s->version, &key, NULL);
    return rc ? skf_store_fail(why, rc, "%s %s", model, version) : SKF_OK;
}

enum skf_err skf_store_del_version(struct skf_store *s, const char *model, const char *version, struct skf_why *why)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    return skf_txn_end(txn, del_in(s, txn, model, version, why), why);
}

static enum skf_err tell(const MDB_val *k, const MDB_val *val,
                         enum skf_err (*fn)(void *ctx, const struct skf_store_version *v), void *ctx)
{
    char names[SKF_VERSION_KEY];
    if (k->mv_size >= sizeof names)
        return SKF_ERR_FORMAT;
    memcpy(names, k->mv_data, k->mv_size);
    names[k->mv_size] = 0;
    size_t model = strlen(names);
    if (model >= k->mv_size)
        return SKF_ERR_FORMAT;
    struct skf_store_version v = {.model = names, .version = names + model + 1};
    struct skf_store_chunk *chunks;
    SKF_TRY(skf_version_decode(k, val, &v, &chunks, NULL));
    enum skf_err e = fn(ctx, &v);
    skf_free(chunks);
    return e;
}

enum skf_err skf_versions_walk(struct skf_store *s, MDB_txn *txn,
                               enum skf_err (*fn)(void *ctx, const struct skf_store_version *v), void *ctx)
{
    MDB_cursor *cur = NULL;
    MDB_val k, val;
    enum skf_err e = SKF_OK;
    int rc = mdb_cursor_open(txn, s->version, &cur);
    while (!rc && e == SKF_OK && !(rc = mdb_cursor_get(cur, &k, &val, MDB_NEXT)))
        e = tell(&k, &val, fn, ctx);
    if (cur)
        mdb_cursor_close(cur);
    if (e == SKF_OK && rc && rc != MDB_NOTFOUND)
        e = skf_store_fail(NULL, rc, "versions");
    return e;
}

enum skf_err skf_store_each_version(struct skf_store *s, enum skf_err (*fn)(void *ctx, const struct skf_store_version *v),
                                    void *ctx)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, false, &txn, NULL));
    enum skf_err e = skf_versions_walk(s, txn, fn, ctx);
    mdb_txn_abort(txn);
    return e;
}
