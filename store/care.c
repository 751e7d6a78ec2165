/*
 * Keeping the store well: figures, collection of what nobody needs, verification of every byte.
 */
#include "store/store_priv.h"

#include "base/alloc.h"
#include "base/buf.h"

/* ---- figures ------------------------------------------------------------------------------------------------------- */

static enum skf_err walk_chunks(struct skf_store *s, MDB_txn *txn,
                                enum skf_err (*fn)(void *ctx, const uint8_t *digest, const MDB_val *val,
                                                   struct skf_why *why),
                                void *ctx, struct skf_why *why)
{
    MDB_cursor *cur = NULL;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, s->chunk, &cur);
    enum skf_err e = SKF_OK;
    while (!rc && e == SKF_OK && !(rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)))
        e = k.mv_size == SKF_DIGEST ? fn(ctx, k.mv_data, &v, why)
                                    : skf_fail(why, SKF_ERR_FORMAT, "%s: a chunk's key has %zu bytes", s->dir, k.mv_size);
    if (cur)
        mdb_cursor_close(cur);
    if (e == SKF_OK && rc && rc != MDB_NOTFOUND)
        e = skf_store_fail(why, rc, "%s: chunks", s->dir);
    return e;
}

static enum skf_err count_chunk(void *ctx, const uint8_t *digest, const MDB_val *val, struct skf_why *why)
{
    struct skf_store_stats *st = ctx;
    const uint8_t *p;
    uint32_t n;
    SKF_TRY(skf_chunk_check(val, digest, &p, &n, why));
    st->chunks++;
    st->chunk_bytes += n;
    return SKF_OK;
}

enum skf_err skf_store_stats(struct skf_store *s, struct skf_store_stats *out, struct skf_why *why)
{
    memset(out, 0, sizeof *out);
    MDB_envinfo info;
    MDB_stat st;
    uint64_t all, usable;
    int rc = mdb_env_info(s->env, &info);
    if (rc)
        return skf_store_fail(why, rc, "%s", s->dir);
    SKF_TRY(skf_free_pages(s, &all, &usable, why));
    out->file_bytes = ((uint64_t)info.me_last_pgno + 1) * s->page;
    out->used_bytes = out->file_bytes - all * s->page;
    out->readers = info.me_numreaders;
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, false, &txn, why));
    enum skf_err e = walk_chunks(s, txn, count_chunk, out, why);
    if (e == SKF_OK && (rc = mdb_stat(txn, s->version, &st)))
        e = skf_store_fail(why, rc, "%s", s->dir);
    else if (e == SKF_OK)
        out->versions = st.ms_entries;
    mdb_txn_abort(txn);
    return e;
}

/* ---- collection ---------------------------------------------------------------------------------------------------- */

/* Digests that stay, sorted once all are in. */
struct keep {
    struct skf_buf digests; /* SKF_DIGEST each */
    uint64_t freed;
};

static int compare(const void *a, const void *b) { return memcmp(a, b, SKF_DIGEST); }

static enum skf_err keep_all(struct keep *k, const struct skf_store_chunk *chunks, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        SKF_TRY(skf_buf_put(&k->digests, chunks[i].digest, SKF_DIGEST));
    return SKF_OK;
}

static bool is_kept(const struct keep *k, const void *digest)
{
    size_t n = k->digests.len / SKF_DIGEST;
    return n && bsearch(digest, k->digests.data, n, SKF_DIGEST, compare);
}

static enum skf_err keep_versions(struct skf_store *s, MDB_txn *txn, struct keep *k, struct skf_why *why)
{
    MDB_cursor *cur = NULL;
    MDB_val key, val;
    int rc = mdb_cursor_open(txn, s->version, &cur);
    enum skf_err e = SKF_OK;
    while (!rc && e == SKF_OK && !(rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT))) {
        struct skf_store_version v = {0};
        struct skf_store_chunk *chunks = NULL;
        e = skf_version_decode(&key, &val, &v, &chunks, why);
        if (e == SKF_OK && (e = keep_all(k, chunks, v.n_chunks)) != SKF_OK)
            e = skf_fail(why, e, "%s: no memory to collect", s->dir);
        skf_free(chunks);
    }
    if (cur)
        mdb_cursor_close(cur);
    if (e == SKF_OK && rc && rc != MDB_NOTFOUND)
        e = skf_store_fail(why, rc, "%s: versions", s->dir);
    return e;
}

static enum skf_err drop_rest(struct skf_store *s, MDB_txn *txn, struct keep *k, struct skf_why *why)
{
    MDB_cursor *cur = NULL;
    MDB_val key, val;
    int rc = mdb_cursor_open(txn, s->chunk, &cur);
    while (!rc && !(rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT))) {
        if (key.mv_size == SKF_DIGEST && is_kept(k, key.mv_data))
            continue;
        const uint8_t *p;
        uint32_t n = 0;
        if (key.mv_size == SKF_DIGEST && skf_chunk_check(&val, key.mv_data, &p, &n, NULL) == SKF_OK)
            k->freed += n;
        rc = mdb_cursor_del(cur, 0);
    }
    if (cur)
        mdb_cursor_close(cur);
    return rc && rc != MDB_NOTFOUND ? skf_store_fail(why, rc, "%s: collect", s->dir) : SKF_OK;
}

/* LMDB uses pages again only from the second transaction after the one that freed them; this is the one between, so that what
 * a collection freed can be counted on by the very next put. */
static enum skf_err settle(struct skf_store *s, struct skf_why *why)
{
    MDB_txn *txn;
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    MDB_val k = {11, (void *)(uintptr_t)"collections"}, v;
    uint8_t count[8] = {0};
    int rc = mdb_get(txn, s->meta, &k, &v);
    if (rc == 0 && v.mv_size == sizeof count)
        skf_put_le64(count, skf_le64(v.mv_data) + 1);
    v = (MDB_val){sizeof count, count};
    rc = mdb_put(txn, s->meta, &k, &v, 0);
    return skf_txn_end(txn, rc ? skf_store_fail(why, rc, "%s: collect", s->dir) : SKF_OK, why);
}

enum skf_err skf_store_collect(struct skf_store *s, const struct skf_store_chunk *keep, uint64_t n_keep,
                               uint64_t *freed_bytes, struct skf_why *why)
{
    int dead = 0;
    if (freed_bytes)
        *freed_bytes = 0;
    int rc = mdb_reader_check(s->env, &dead);
    if (rc)
        return skf_store_fail(why, rc, "%s: readers", s->dir);
    MDB_txn *txn = NULL;
    struct keep k = {.digests = SKF_BUF_INIT(4ull << 30)};
    enum skf_err e = keep_all(&k, keep, n_keep);
    if (e != SKF_OK)
        (void)skf_fail(why, e, "%s: no memory to collect", s->dir);
    else
        e = skf_txn_begin(s, true, &txn, why);
    if (e == SKF_OK)
        e = keep_versions(s, txn, &k, why);
    if (e == SKF_OK) {
        if (k.digests.len)
            qsort(k.digests.data, k.digests.len / SKF_DIGEST, SKF_DIGEST, compare);
        e = drop_rest(s, txn, &k, why);
    }
    e = skf_txn_end(txn, e, why);
    skf_buf_free(&k.digests);
    if (e == SKF_OK && k.freed)
        e = settle(s, why);
    if (e == SKF_OK && freed_bytes)
        *freed_bytes = k.freed;
    return e;
}

/* ---- verification -------------------------------------------------------------------------------------------------- */

static enum skf_err verify_chunk(void *ctx, const uint8_t *digest, const MDB_val *val, struct skf_why *why)
{
    const uint8_t *p;
    uint32_t n;
    uint8_t is[SKF_DIGEST];
    SKF_TRY(skf_chunk_check(val, digest, &p, &n, why));
    skf_sha256(p, n, is);
    if (memcmp(is, digest, SKF_DIGEST) == 0)
        return SKF_OK;
    char hex[SKF_HEX];
    skf_hex(digest, SKF_DIGEST, hex);
    return skf_fail(why, SKF_ERR_DIGEST, "%s: chunk %s does not have its digest", (const char *)ctx, hex);
}

struct check {
    struct skf_store *s;
    MDB_txn *txn;
    struct skf_why *why;
};

static enum skf_err verify_version(void *ctx, const struct skf_store_version *v)
{
    struct check *c = ctx;
    struct skf_merkle m;
    uint8_t root[SKF_DIGEST];
    skf_merkle_init(&m);
    for (uint64_t i = 0; i < v->n_chunks; i++) {
        const uint8_t *p;
        uint32_t n;
        enum skf_err e = skf_chunk_find(c->s, c->txn, v->chunks[i].digest, &p, &n, c->why);
        if (e == SKF_OK && n != v->chunks[i].length)
            e = skf_fail(c->why, SKF_ERR_DIGEST, "wrong length");
        if (e != SKF_OK)
            return skf_fail_prefix(c->why, e, "%s %s: chunk %llu", v->model, v->version, (unsigned long long)i);
        skf_merkle_add(&m, v->chunks[i].digest, n);
    }
    skf_merkle_root(&m, root);
    if (m.size != v->size || memcmp(root, v->root, SKF_DIGEST) != 0)
        return skf_fail(c->why, SKF_ERR_DIGEST, "%s %s: its chunks do not come to its root", v->model, v->version);
    return SKF_OK;
}

enum skf_err skf_store_verify(struct skf_store *s, struct skf_why *why)
{
    struct check c = {.s = s, .why = why};
    SKF_TRY(skf_txn_begin(s, false, &c.txn, why));
    /* Every chunk once, also those that no version names yet: an update that goes on relies on them. */
    enum skf_err e = walk_chunks(s, c.txn, verify_chunk, s->dir, why);
    if (e == SKF_OK)
        e = skf_versions_walk(s, c.txn, verify_version, &c); /* one snapshot: a writer may be at work meanwhile */
    mdb_txn_abort(c.txn);
    if (e != SKF_OK && why && !why->text[0])
        return skf_fail(why, e, "%s: the record of a version is damaged", s->dir);
    return e;
}
