/*
 * Chunks by digest, and the question whether there is room for more.
 */
#include "store/store_priv.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/util.h"

/* Tree pages that a write transaction copies: a path of each table, and growth of the chunk table. */
#define TREE_SLACK 64u

static uint64_t value_size(const struct skf_store *s, uint32_t n)
{
    return SKF_MAX((uint64_t)SKF_CHUNK_HEAD + n, s->page / 2);
}

static uint64_t pages_of(const struct skf_store *s, uint64_t value)
{
    return (value + 16 + s->page - 1) / s->page;
}

/* ---- room ---------------------------------------------------------------------------------------------------------- */

struct oldest {
    uint64_t txn;
};

/* A line of LMDB's reader list: "pid thread txnid"; txnid is "-" for a slot without a transaction. */
static int on_reader(const char *line, void *ctx)
{
    struct oldest *o = ctx;
    int pid;
    unsigned long long thread, txn;
    if (sscanf(line, "%d %llx %llu", &pid, &thread, &txn) == 3)
        o->txn = SKF_MIN(o->txn, (uint64_t)txn);
    return 0;
}

enum skf_err skf_free_pages(struct skf_store *s, uint64_t *all, uint64_t *usable, struct skf_why *why)
{
    *all = *usable = 0;
    struct oldest oldest = {UINT64_MAX};
    int rc = mdb_reader_list(s->env, on_reader, &oldest);
    if (rc < 0)
        return skf_store_fail(why, rc, "%s: readers", s->dir);
    MDB_txn *txn;
    MDB_cursor *cur = NULL;
    SKF_TRY(skf_txn_begin(s, false, &txn, why));
    oldest.txn = SKF_MIN(oldest.txn, (uint64_t)mdb_txn_id(txn));
    MDB_val k, v;
    rc = mdb_cursor_open(txn, 0, &cur); /* table 0 is LMDB's own list of free pages: txnid -> count, pages */
    while (!rc && !(rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))) {
        size_t id, count;
        if (k.mv_size != sizeof id || v.mv_size < sizeof count)
            continue;
        memcpy(&id, k.mv_data, sizeof id);
        memcpy(&count, v.mv_data, sizeof count);
        *all += count;
        if (id < oldest.txn)
            *usable += count;
    }
    if (cur)
        mdb_cursor_close(cur);
    enum skf_err e = rc == MDB_NOTFOUND ? SKF_OK : skf_store_fail(why, rc, "%s: free list", s->dir);
    mdb_txn_abort(txn);
    return e;
}

enum skf_err skf_room_for(struct skf_store *s, uint64_t pages, struct skf_why *why)
{
    MDB_envinfo info;
    int rc = mdb_env_info(s->env, &info);
    if (rc)
        return skf_store_fail(why, rc, "%s", s->dir);
    uint64_t all, usable, disk;
    SKF_TRY(skf_free_pages(s, &all, &usable, why));
    uint64_t grow = pages > usable ? pages - usable : 0;
    uint64_t map = (uint64_t)info.me_mapsize / s->page, used = (uint64_t)info.me_last_pgno + 1;
    if (used > map || grow > map - used)
        return skf_fail(why, SKF_ERR_FULL, "%s: %llu more bytes do not fit the store's limit of %llu", s->dir,
                        (unsigned long long)(grow * s->page), (unsigned long long)info.me_mapsize);
    SKF_TRY(skf_disk_free(s->dir, &disk, why));
    uint64_t may = disk > s->keep_free ? (disk - s->keep_free) / s->page : 0;
    if (grow > may)
        return skf_fail(why, SKF_ERR_FULL, "%s: %llu more bytes needed, the disk has %llu (%llu are to stay free)", s->dir,
                        (unsigned long long)(grow * s->page), (unsigned long long)disk,
                        (unsigned long long)s->keep_free);
    return SKF_OK;
}

enum skf_err skf_store_reserve(struct skf_store *s, uint64_t bytes, struct skf_why *why)
{
    /* Chunks waste less than a page each; 1/64 covers cuts of 256 KiB and more, the slack the rest. */
    uint64_t pages = bytes / s->page + bytes / s->page / 64 + TREE_SLACK;
    return skf_room_for(s, pages, why);
}

/* ---- chunks -------------------------------------------------------------------------------------------------------- */

enum skf_err skf_chunk_check(const MDB_val *val, const uint8_t digest[SKF_DIGEST], const uint8_t **p, uint32_t *n,
                             struct skf_why *why)
{
    char hex[SKF_HEX];
    const uint8_t *b = val->mv_data;
    if (val->mv_size < SKF_CHUNK_HEAD || skf_le32(b) != SKF_CHUNK_MAGIC ||
        skf_le32(b + 4) > val->mv_size - SKF_CHUNK_HEAD) {
        skf_hex(digest, SKF_DIGEST, hex);
        return skf_fail(why, SKF_ERR_FORMAT, "chunk %s: its record is damaged", hex);
    }
    *n = skf_le32(b + 4);
    *p = b + SKF_CHUNK_HEAD;
    return SKF_OK;
}

enum skf_err skf_chunk_find(struct skf_store *s, MDB_txn *txn, const uint8_t digest[SKF_DIGEST], const uint8_t **p,
                            uint32_t *n, struct skf_why *why)
{
    MDB_val k = {SKF_DIGEST, (void *)(uintptr_t)digest}, v;
    int rc = mdb_get(txn, s->chunk, &k, &v);
    if (rc) {
        char hex[SKF_HEX];
        skf_hex(digest, SKF_DIGEST, hex);
        return rc == MDB_NOTFOUND ? skf_fail(why, SKF_ERR_NOT_FOUND, "chunk %s: not in the store", hex)
                                  : skf_store_fail(why, rc, "chunk %s", hex);
    }
    return skf_chunk_check(&v, digest, p, n, why);
}

bool has_store_chunk(struct skf_store *s, const uint8_t digest[SKF_DIGEST])
{
    MDB_txn *txn;
    if (skf_txn_begin(s, false, &txn, NULL) != SKF_OK)
        return false;
    MDB_val k = {SKF_DIGEST, (void *)(uintptr_t)digest}, v;
    bool has = mdb_get(txn, s->chunk, &k, &v) == 0;
    mdb_txn_abort(txn);
    return has;
}

static enum skf_err put_one(struct skf_store *s, MDB_txn *txn, const struct skf_store_put *c, struct skf_why *why)
{
    uint64_t size = value_size(s, c->n);
    MDB_val k = {SKF_DIGEST, (void *)(uintptr_t)c->digest}, v = {(size_t)size, NULL};
    int rc = mdb_put(txn, s->chunk, &k, &v, MDB_NOOVERWRITE | MDB_RESERVE);
    if (rc == MDB_KEYEXIST)
        return SKF_OK;
    if (rc)
        return skf_store_fail(why, rc, "%s: put", s->dir);
    uint8_t *b = v.mv_data;
    memset(b, 0, SKF_CHUNK_HEAD);
    skf_put_le32(b, SKF_CHUNK_MAGIC);
    skf_put_le32(b + 4, c->n);
    memcpy(b + SKF_CHUNK_HEAD, c->p, c->n);
    memset(b + SKF_CHUNK_HEAD + c->n, 0, (size_t)size - SKF_CHUNK_HEAD - c->n);
    return SKF_OK;
}

enum skf_err skf_store_put(struct skf_store *s, const struct skf_store_put *puts, size_t n, struct skf_why *why)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++) {
        if (!puts[i].n || puts[i].n > SKF_CHUNK_LIMIT)
            return skf_fail(why, SKF_ERR_ARG, "store: a chunk of %u bytes", puts[i].n);
        if (!has_store_chunk(s, puts[i].digest))
            pages += pages_of(s, value_size(s, puts[i].n));
    }
    if (!pages && s->lock_fd >= 0)
        return SKF_OK;
    MDB_txn *txn;
    if (s->lock_fd >= 0)
        SKF_TRY(skf_room_for(s, pages + n / 8 + TREE_SLACK, why));
    SKF_TRY(skf_txn_begin(s, true, &txn, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < n; i++)
        e = put_one(s, txn, &puts[i], why);
    return skf_txn_end(txn, e, why);
}
