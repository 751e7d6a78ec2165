/* Versions that go, and what they leave on the disk (registry.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "distributor/registry_priv.h"

#define LEFTOVER_MAX (64u << 20) /* bytes of a record: every chunk of the largest manifest, and some adapters */
#define PAIR         ((size_t)2 * SKF_DIGEST)

void skf_reg_leftover_clear(struct skf_reg_leftover *l)
{
    skf_free(l->digests);
    skf_free(l->pairs);
    *l = (struct skf_reg_leftover){.n = 0};
}

/* ---- leftovers ------------------------------------------------------------------------------------------------- */
static void leftover_key(struct skf_reg_key *k, uint64_t serial)
{
    char text[20];
    (void)snprintf(text, sizeof text, "%016" PRIx64, serial);
    skf_reg_key(k, text, NULL, NULL);
}

static enum skf_err pack(const struct skf_reg_leftover *l, struct skf_buf *b)
{
    SKF_TRY(skf_buf_u8(b, SKF_REG_RECORD));
    SKF_TRY(skf_buf_u64(b, l->serial));
    SKF_TRY(skf_buf_put(b, l->root, SKF_DIGEST));
    SKF_TRY(skf_buf_u8(b, l->is_gone));
    SKF_TRY(skf_buf_u64(b, l->n));
    SKF_TRY(skf_buf_put(b, l->digests, l->n * SKF_DIGEST));
    return skf_buf_put(b, l->pairs, l->n_pairs * PAIR);
}

static enum skf_err unpack(struct skf_reader r, struct skf_reg_leftover *l)
{
    const uint8_t *digests, *pairs;
    uint64_t n, bytes;
    uint8_t is_gone;
    SKF_TRY(skf_reg_open_record(&r));
    SKF_TRY(skf_get_u64(&r, &l->serial));
    SKF_TRY(skf_reg_get_digest(&r, l->root));
    SKF_TRY(skf_get_u8(&r, &is_gone));
    SKF_TRY(skf_get_u64(&r, &n));
    if (is_gone > 1 || !is_mul_ok(n, SKF_DIGEST, &bytes))
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(&r, bytes, &digests));
    size_t left = skf_reader_left(&r);
    SKF_TRY(skf_get_bytes(&r, left / PAIR * PAIR, &pairs));
    SKF_TRY(skf_reg_close_record(&r));
    l->is_gone = is_gone;
    l->n = n;
    l->n_pairs = left / PAIR;
    l->digests = n ? skf_memdup(digests, bytes) : NULL;
    l->pairs = l->n_pairs ? skf_memdup(pairs, l->n_pairs * PAIR) : NULL;
    return (l->digests || !n) && (l->pairs || !l->n_pairs) ? SKF_OK : SKF_ERR_NOMEM;
}

enum skf_err skf_reg_put_leftover(struct skf_registry *r, MDB_txn *t, struct skf_reg_leftover *l, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(LEFTOVER_MAX);
    enum skf_err e;
    SKF_GO(e, skf_reg_serial(r, t, &l->serial, why));
    leftover_key(&key, l->serial);
    SKF_GO(e, pack(l, &b));
    e = skf_reg_put(t, r->leftovers, &key, &b, why);
out:
    skf_buf_free(&b);
    return e;
}

static enum skf_err take_first(void *ctx, struct skf_reader key, struct skf_reader value)
{
    enum skf_err e = unpack(value, ctx);
    return e == SKF_OK ? SKF_ERR_EXISTS : e; /* stops the scan: found */
}

enum skf_err skf_registry_leftover(struct skf_registry *r, struct skf_reg_leftover *out, struct skf_why *why)
{
    MDB_txn *t;
    *out = (struct skf_reg_leftover){.n = 0};
    SKF_TRY(skf_reg_begin(r, false, &t, why));
    enum skf_err e = skf_reg_scan(t, r->leftovers, NULL, take_first, out);
    mdb_txn_abort(t);
    if (e == SKF_ERR_EXISTS)
        return SKF_OK;
    skf_reg_leftover_clear(out);
    return skf_fail(why, e == SKF_OK ? SKF_ERR_NOT_FOUND : e, "registry: leftovers: %s", skf_err_name(e));
}

enum skf_err skf_registry_leftover_done(struct skf_registry *r, uint64_t serial, struct skf_why *why)
{
    struct skf_reg_key key;
    MDB_txn *t;
    leftover_key(&key, serial);
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    return skf_reg_end(t, skf_reg_del(t, r->leftovers, key.bytes, key.n, why), why);
}

/* ---- names that were removed ----------------------------------------------------------------------------------- */
enum skf_err skf_reg_check_removed(struct skf_registry *r, MDB_txn *t, const struct skf_reg_version *v, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_reader got;
    uint8_t root[SKF_DIGEST];
    skf_reg_key(&key, v->model, v->version, NULL);
    enum skf_err e = skf_reg_get(t, r->removed, &key, &got);
    if (e == SKF_ERR_NOT_FOUND)
        return SKF_OK;
    if (e == SKF_OK)
        e = skf_reg_open_record(&got);
    if (e == SKF_OK)
        e = skf_reg_get_digest(&got, root);
    if (e != SKF_OK)
        return skf_fail(why, e, "registry: removed version %s %s: %s", v->model, v->version, skf_err_name(e));
    if (memcmp(root, v->root, SKF_DIGEST) == 0)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_EXISTS, "%s %s: was published with another content, and removed; take a new version name",
                    v->model, v->version);
}

static enum skf_err put_removed(struct skf_registry *r, MDB_txn *t, const struct skf_reg_version *v, struct skf_why *why)
{
    struct skf_reg_key key;
    struct skf_buf b = SKF_BUF_INIT(64);
    enum skf_err e;
    skf_reg_key(&key, v->model, v->version, NULL);
    SKF_GO(e, skf_buf_u8(&b, SKF_REG_RECORD));
    SKF_GO(e, skf_buf_put(&b, v->root, SKF_DIGEST));
    SKF_GO(e, skf_reg_put(t, r->removed, &key, &b, why));
    SKF_GO(e, skf_reg_del(t, r->versions, key.bytes, key.n, why));
    e = skf_reg_del(t, r->manifests, key.bytes, key.n, why);
out:
    skf_buf_free(&b);
    return e;
}

/* ---- removing -------------------------------------------------------------------------------------------------- */
struct removal {
    const struct skf_reg_version *v;
    bool is_shared;        /* another version has the content */
    struct skf_buf pairs;  /* keys of deltas that go */
    struct skf_buf others; /* keys of adapters that go */
    struct skf_buf digests;
};

static enum skf_err look_for_root(void *ctx, const struct skf_reg_version *v)
{
    struct removal *x = ctx;
    bool is_itself = strcmp(v->model, x->v->model) == 0 && strcmp(v->version, x->v->version) == 0;
    x->is_shared = x->is_shared || (!is_itself && memcmp(v->root, x->v->root, SKF_DIGEST) == 0);
    return SKF_OK;
}

/* A key is the result's root and the source's. */
static bool is_of_root(const struct removal *x, const struct skf_reader *key)
{
    return skf_reader_left(key) == PAIR && (memcmp(key->p, x->v->root, SKF_DIGEST) == 0 ||
                                            memcmp(key->p + SKF_DIGEST, x->v->root, SKF_DIGEST) == 0);
}

static enum skf_err note_delta(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct removal *x = ctx;
    return is_of_root(x, &key) ? skf_buf_put(&x->pairs, key.p, PAIR) : SKF_OK;
}

static enum skf_err note_adapter(void *ctx, struct skf_reader key, struct skf_reader value)
{
    struct removal *x = ctx;
    struct skf_reg_adapter a;
    if (!is_of_root(x, &key))
        return SKF_OK;
    enum skf_err e = skf_reg_unpack_adapter(value, &a);
    if (e == SKF_OK)
        e = skf_buf_put(&x->digests, a.digests, a.n * SKF_DIGEST);
    if (e == SKF_OK)
        e = skf_buf_put(&x->others, key.p, PAIR);
    skf_reg_adapter_clear(&a);
    return e;
}

static enum skf_err delete_all(MDB_txn *t, MDB_dbi db, const struct skf_buf *keys, struct skf_why *why)
{
    for (size_t i = 0; i < keys->len; i += PAIR)
        SKF_TRY(skf_reg_del(t, db, keys->data + i, PAIR, why));
    return SKF_OK;
}

/* Takes the buffers of x. */
static void tell(struct removal *x, struct skf_reg_leftover *out)
{
    size_t n;
    memcpy(out->root, x->v->root, SKF_DIGEST);
    out->is_gone = !x->is_shared;
    out->digests = skf_buf_steal(&x->digests, &n);
    out->n = n / SKF_DIGEST;
    out->pairs = skf_buf_steal(&x->pairs, &n);
    out->n_pairs = n / PAIR;
    for (size_t i = 0; i < out->n_pairs; i++) { /* from the key's order to source, result */
        uint8_t swap[SKF_DIGEST], *p = out->pairs + i * PAIR;
        memcpy(swap, p, SKF_DIGEST);
        memcpy(p, p + SKF_DIGEST, SKF_DIGEST);
        memcpy(p + SKF_DIGEST, swap, SKF_DIGEST);
    }
}

static enum skf_err remove_in(struct skf_registry *r, MDB_txn *t, struct removal *x, const uint8_t *chunks, size_t n,
                              struct skf_reg_leftover *out, struct skf_why *why)
{
    SKF_TRY(skf_buf_put(&x->digests, chunks, n * SKF_DIGEST));
    SKF_TRY(skf_registry_each_version(r, NULL, look_for_root, x));
    if (!x->is_shared) {
        SKF_TRY(skf_reg_scan(t, r->deltas, NULL, note_delta, x));
        SKF_TRY(skf_reg_scan(t, r->adapters, NULL, note_adapter, x));
    }
    SKF_TRY(delete_all(t, r->deltas, &x->pairs, why));
    SKF_TRY(delete_all(t, r->adapters, &x->others, why));
    tell(x, out);
    SKF_TRY(put_removed(r, t, x->v, why));
    return skf_reg_put_leftover(r, t, out, why);
}

enum skf_err skf_registry_remove(struct skf_registry *r, const char *model, const char *version, const uint8_t *chunks,
                                 size_t n, bool is_dry, struct skf_reg_leftover *out, struct skf_why *why)
{
    struct skf_reg_version v;
    struct removal x = {&v, false, SKF_BUF_INIT(LEFTOVER_MAX), SKF_BUF_INIT(LEFTOVER_MAX), SKF_BUF_INIT(LEFTOVER_MAX)};
    MDB_txn *t;
    *out = (struct skf_reg_leftover){.n = 0};
    SKF_TRY(skf_reg_begin(r, true, &t, why));
    enum skf_err e = skf_reg_get_version(r, t, model, version, &v, why);
    if (e == SKF_OK)
        e = skf_reg_check_unused(r, t, model, version, why);
    if (e == SKF_OK)
        e = remove_in(r, t, &x, chunks, n, out, why);
    if (is_dry)
        mdb_txn_abort(t);
    else
        e = skf_reg_end(t, e, why);
    if (e != SKF_OK)
        skf_reg_leftover_clear(out);
    skf_buf_free(&x.pairs);
    skf_buf_free(&x.others);
    skf_buf_free(&x.digests);
    return e;
}
