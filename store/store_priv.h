/*
 * What the files of store/ share: the environment, its tables, the layout of their records, and how LMDB's errors become
 * ours.  LMDB's types stay behind this header.
 *
 * data.mdb holds five named tables; all integers are little-endian:
 *
 *   meta     "format"              u32, SKF_STORE_FORMAT
 *            "collections"         u64, how many collections freed something
 *   chunk    digest, 32 bytes      48 bytes of head (u32 magic, u32 length, zeros), the bytes, zeros up to half a page
 *   version  model NUL version     u32 record format, u32 zero, u64 size, root, u64 n_chunks, u64 manifest_len,
 *                                  n_chunks x (digest, u32 length), manifest
 *   slot     model                 SKF_SLOT_COUNT x (u8 length, name)
 *   journal  key                   the agent's bytes
 *
 * LMDB puts a value of more than about half a page into a run of pages of its own, whose first value byte stands at 16 modulo
 * the page size: 48 bytes of head make the weights 64-byte aligned, and the padding keeps small chunks on such a run too.
 * A run does not move while its record lives, which is what lets a view be renewed under a running reader.
 */
#ifndef SKF_STORE_PRIV_H
#define SKF_STORE_PRIV_H

#include <lmdb.h>

#include "store/store.h"

#define SKF_STORE_FORMAT  1u
#define SKF_CHUNK_MAGIC   0x31434b53u /* "SKC1" */
#define SKF_CHUNK_HEAD    48u
#define SKF_CHUNK_LIMIT   (64u << 20) /* a chunk is never longer; the fleet's cut stays far below */
#define SKF_VERSION_HEAD  64u
#define SKF_VERSION_ENTRY 36u
#define SKF_JOURNAL_MAX   (64u << 10)
#define SKF_JOURNAL_KEY   256u
#define SKF_VERSION_KEY   (2 * SKF_NAME_MAX)

struct skf_store {
    MDB_env *env;
    MDB_dbi meta, chunk, version, slot, journal;
    int lock_fd; /* -1 for a reader */
    uint64_t page, keep_free;
    char dir[4096];
};

/* The error of an LMDB (or errno) status, with the text in front of LMDB's own. */
enum skf_err skf_store_fail(struct skf_why *why, int rc, const char *fmt, ...) SKF_PRINTF(3, 4);

/* A transaction of our own; a write one on a reader's store is SKF_ERR_STATE. */
SKF_MUST enum skf_err skf_txn_begin(struct skf_store *s, bool is_write, MDB_txn **txn, struct skf_why *why);
/* Commits, or aborts when e is an error; gives back the error of both. */
SKF_MUST enum skf_err skf_txn_end(MDB_txn *take_txn, enum skf_err e, struct skf_why *why);

bool is_store_name(const char *name); /* 1 to 128 bytes of [A-Za-z0-9._-] */
/* model NUL version; SKF_ERR_ARG for a bad name. */
SKF_MUST enum skf_err skf_version_key(const char *model, const char *version, char key[SKF_VERSION_KEY], MDB_val *k,
                                      struct skf_why *why);

/* Looks the chunk up and checks its head: *p and *n are its bytes in place. */
SKF_MUST enum skf_err skf_chunk_find(struct skf_store *s, MDB_txn *txn, const uint8_t digest[SKF_DIGEST],
                                     const uint8_t **p, uint32_t *n, struct skf_why *why);
/* The same over a record's value. */
SKF_MUST enum skf_err skf_chunk_check(const MDB_val *val, const uint8_t digest[SKF_DIGEST], const uint8_t **p, uint32_t *n,
                                      struct skf_why *why);

/* Decodes a version record; strings and manifest point into key and value, *chunks is allocated (skf_free). */
SKF_MUST enum skf_err skf_version_decode(const MDB_val *key, const MDB_val *val, struct skf_store_version *v,
                                         struct skf_store_chunk **chunks, struct skf_why *why);
/* NOT_FOUND, naming it, when the version is not there. */
SKF_MUST enum skf_err skf_version_find(struct skf_store *s, MDB_txn *txn, const char *model, const char *version,
                                       MDB_val *key, char keybuf[SKF_VERSION_KEY], MDB_val *val, struct skf_why *why);
/* skf_store_each_version within a transaction. */
SKF_MUST enum skf_err skf_versions_walk(struct skf_store *s, MDB_txn *txn,
                                        enum skf_err (*fn)(void *ctx, const struct skf_store_version *v), void *ctx);
/* All slots of a model, empty where there is no record. */
SKF_MUST enum skf_err skf_slots_read(struct skf_store *s, MDB_txn *txn, const char *model, struct skf_slots *out,
                                     struct skf_why *why);

/* Pages of the file that a write may use again: those freed before the oldest reader began. */
SKF_MUST enum skf_err skf_free_pages(struct skf_store *s, uint64_t *all, uint64_t *usable, struct skf_why *why);
/* SKF_ERR_FULL when `pages` more do not fit quota, map or disk. */
SKF_MUST enum skf_err skf_room_for(struct skf_store *s, uint64_t pages, struct skf_why *why);

#endif
