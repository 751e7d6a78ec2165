/*
 * A version read in place: its chunks' addresses in the map, under one read transaction.
 */
#include "store/store_priv.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"

struct skf_view {
    struct skf_store *s;
    MDB_txn *txn;
    struct skf_store_version v; /* everything it points at is owned by the view */
    struct skf_store_chunk *chunks;
    uint64_t *start;            /* n_chunks + 1 offsets in the content */
    const uint8_t **at;         /* n_chunks addresses */
    void *manifest;
    char model[SKF_NAME_MAX], version[SKF_NAME_MAX];
};

/* Finds every chunk; on a renewal (is_again) each must lie where it lay. */
static enum skf_err place_chunks(struct skf_view *v, bool is_again, struct skf_why *why)
{
    uint64_t off = 0;
    for (uint64_t i = 0; i < v->v.n_chunks; i++) {
        const uint8_t *p;
        uint32_t n;
        SKF_TRY(skf_chunk_find(v->s, v->txn, v->chunks[i].digest, &p, &n, why));
        if (n != v->chunks[i].length)
            return skf_fail(why, SKF_ERR_FORMAT, "%s %s: chunk %llu has another length", v->model, v->version,
                            (unsigned long long)i);
        if (is_again && p != v->at[i])
            return skf_fail(why, SKF_ERR_INTERNAL, "%s %s: chunk %llu moved under a reader", v->model, v->version,
                            (unsigned long long)i);
        if (!is_again) { /* readers may be at work during a renewal: nothing is written then */
            v->at[i] = p;
            v->start[i] = off;
        }
        if (!is_add_ok(off, n, &off))
            return skf_fail(why, SKF_ERR_FORMAT, "%s %s: damaged lengths", v->model, v->version);
    }
    if (!is_again)
        v->start[v->v.n_chunks] = off;
    if (off != v->v.size)
        return skf_fail(why, SKF_ERR_FORMAT, "%s %s: its chunks have %llu bytes, not %llu", v->model, v->version,
                        (unsigned long long)off, (unsigned long long)v->v.size);
    return SKF_OK;
}

static enum skf_err load(struct skf_view *v, const char *model, const char *version, struct skf_why *why)
{
    MDB_val key, val;
    char keybuf[SKF_VERSION_KEY];
    SKF_TRY(skf_version_find(v->s, v->txn, model, version, &key, keybuf, &val, why));
    (void)snprintf(v->model, sizeof v->model, "%s", model);
    (void)snprintf(v->version, sizeof v->version, "%s", version);
    v->v.model = v->model;
    v->v.version = v->version;
    SKF_TRY(skf_version_decode(&key, &val, &v->v, &v->chunks, why));
    v->manifest = skf_memdup(v->v.manifest, v->v.manifest_len);
    v->start = skf_calloc((size_t)v->v.n_chunks + 1, sizeof *v->start);
    v->at = skf_calloc((size_t)v->v.n_chunks + 1, sizeof *v->at);
    if (!v->manifest || !v->start || !v->at)
        return skf_fail(why, SKF_ERR_NOMEM, "%s %s: no memory for a view", model, version);
    v->v.manifest = v->manifest;
    return place_chunks(v, false, why);
}

enum skf_err skf_view_open(struct skf_store *s, const char *model, const char *version, struct skf_view **out,
                           struct skf_why *why)
{
    *out = NULL;
    struct skf_view *v = skf_calloc(1, sizeof *v);
    if (!v)
        return skf_fail(why, SKF_ERR_NOMEM, "store: no memory for a view");
    v->s = s;
    enum skf_err e;
    SKF_GO(e, skf_txn_begin(s, false, &v->txn, why));
    SKF_GO(e, load(v, model, version, why));
    *out = v;
    return SKF_OK;
out:
    skf_view_close(v);
    return e;
}

void skf_view_close(struct skf_view *v)
{
    if (!v)
        return;
    if (v->txn)
        mdb_txn_abort(v->txn);
    skf_free(v->chunks);
    skf_free(v->manifest);
    skf_free(v->start);
    skf_free(v->at);
    skf_free(v);
}

enum skf_err skf_view_renew(struct skf_view *v, struct skf_why *why)
{
    mdb_txn_reset(v->txn);
    int rc = mdb_txn_renew(v->txn);
    if (rc)
        return skf_store_fail(why, rc, "%s %s: renew", v->model, v->version);
    MDB_val key, val;
    char keybuf[SKF_VERSION_KEY];
    SKF_TRY(skf_version_find(v->s, v->txn, v->model, v->version, &key, keybuf, &val, why));
    if (val.mv_size < SKF_VERSION_HEAD || memcmp((const uint8_t *)val.mv_data + 16, v->v.root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_STATE, "%s %s: another content since this view was opened", v->model, v->version);
    return place_chunks(v, true, why);
}

const struct skf_store_version *skf_view_version(const struct skf_view *v) { return &v->v; }

static enum skf_err view_span(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len)
{
    const struct skf_view *v = ctx;
    if (off >= v->v.size)
        return SKF_ERR_FORMAT;
    uint64_t lo = 0, hi = v->v.n_chunks; /* start[lo] <= off < start[hi] */
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (v->start[mid] <= off)
            lo = mid;
        else
            hi = mid;
    }
    *p = v->at[lo] + (off - v->start[lo]);
    *len = v->start[lo + 1] - off;
    return SKF_OK;
}

struct skf_source skf_view_source(const struct skf_view *v)
{
    return (struct skf_source){v->v.size, view_span, (void *)(uintptr_t)v, skf_map_idle};
}

const void *skf_view_chunk(const struct skf_view *v, uint64_t i, uint32_t *n)
{
    if (i >= v->v.n_chunks) {
        *n = 0;
        return NULL;
    }
    *n = v->chunks[i].length;
    return v->at[i];
}
