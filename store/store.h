/*
 * The weight store of a box: LMDB, one value a chunk under its SHA-256, versions as lists of chunks, slots that say which
 * version is active, and a journal of what is under way.
 *
 * Caveats first:
 *  - One process (the agent) writes; any number of processes read. A writer is opened with SKF_STORE_WRITE and holds a lock
 *    file; a second writer gets SKF_ERR_BUSY.
 *  - A view pins a read transaction: while it is open, pages freed after it began are not reused. Keep at most the active,
 *    previous and incoming version open, and renew (skf_view_renew) after a collection; pointers into chunks that still live
 *    stay valid over a renewal.
 *  - A process opens a store at most once (LMDB's locks belong to the process), whatever the mode; any thread may use it.
 *  - Never use a store across fork; open it anew in the child.
 *  - Chunk bytes are 64-byte aligned in place.
 *  - Every mutation below is one LMDB transaction: after a crash at any instant it has happened whole or not at all.
 */
#ifndef SKF_STORE_STORE_H
#define SKF_STORE_STORE_H

#include "base/digest.h"
#include "base/source.h"

enum skf_store_mode { SKF_STORE_READ, SKF_STORE_WRITE };
struct skf_store;

struct skf_store_opts {
    enum skf_store_mode mode;
    uint64_t map_size;  /* address space; 0 for the default (64 GiB, or what the file needs) */
    uint64_t quota;     /* bytes the data file may reach; 0 for none */
    uint64_t keep_free; /* bytes to leave free on the disk; default 64 MiB when 0 */
};
SKF_MUST enum skf_err skf_store_open(const char *dir, const struct skf_store_opts *opts, struct skf_store **s,
                                     struct skf_why *why);
void skf_store_close(struct skf_store *s); /* NULL is fine; views must be closed before */

/* ---- chunks ------------------------------------------------------------------------------------------------------------ */
bool has_store_chunk(struct skf_store *s, const uint8_t digest[SKF_DIGEST]);
struct skf_store_put {
    const uint8_t *digest; /* of the bytes; the caller has checked it */
    const void *p;
    uint32_t n;
};
/* Puts these in one durable transaction; ones that are there already cost nothing. SKF_ERR_FULL when quota or disk says no,
 * checked before the first byte; the store is then as it was. */
SKF_MUST enum skf_err skf_store_put(struct skf_store *s, const struct skf_store_put *puts, size_t n,
                                    struct skf_why *why);
/* SKF_ERR_FULL when `bytes` more would not fit quota, map or disk. */
SKF_MUST enum skf_err skf_store_reserve(struct skf_store *s, uint64_t bytes, struct skf_why *why);

/* ---- versions ----------------------------------------------------------------------------------------------------------- */
struct skf_store_chunk {
    uint8_t digest[SKF_DIGEST];
    uint32_t length;
};
struct skf_store_version {
    const char *model, *version; /* names, 1 to 128 bytes each of [A-Za-z0-9._-] */
    uint8_t root[SKF_DIGEST];
    uint64_t size;
    const void *manifest; /* kept as given, handed back as given */
    size_t manifest_len;
    const struct skf_store_chunk *chunks;
    uint64_t n_chunks;
};
/* The version becomes visible, whole: SKF_ERR_NOT_FOUND (naming the first) when a chunk is missing, SKF_ERR_DIGEST when the
 * chunks do not come to the root. The same version again is fine; another content under the same name is SKF_ERR_EXISTS. */
SKF_MUST enum skf_err skf_store_add_version(struct skf_store *s, const struct skf_store_version *v,
                                            struct skf_why *why);
SKF_MUST enum skf_err skf_store_del_version(struct skf_store *s, const char *model, const char *version,
                                            struct skf_why *why); /* SKF_ERR_BUSY while a slot or pin names it */
/* Calls fn for each version, in order of model and name; strings live during the call. fn's error stops and is returned. */
SKF_MUST enum skf_err skf_store_each_version(struct skf_store *s,
                                             enum skf_err (*fn)(void *ctx, const struct skf_store_version *v), void *ctx);

/* ---- slots: per model, which version is what ------------------------------------------------------------------------------ */
enum skf_slot { SKF_SLOT_ACTIVE, SKF_SLOT_PREVIOUS, SKF_SLOT_INCOMING, SKF_SLOT_PINNED, SKF_SLOT_COUNT };
#define SKF_NAME_MAX 129 /* bytes of a model or version name with its NUL */
struct skf_slots {
    char version[SKF_SLOT_COUNT][SKF_NAME_MAX]; /* "" when empty */
};
SKF_MUST enum skf_err skf_store_slots(struct skf_store *s, const char *model, struct skf_slots *out,
                                      struct skf_why *why);
/* Replaces all slots of the model and one journal record in one transaction; a named version must exist (INCOMING may name one
 * still being received). journal_key NULL for none; journal_len 0 deletes the record. */
SKF_MUST enum skf_err skf_store_set_slots(struct skf_store *s, const char *model, const struct skf_slots *in,
                                          const char *journal_key, const void *journal, size_t journal_len,
                                          struct skf_why *why);

/* ---- journal: small records by key (the agent's state machine; at most 64 KiB each) ------------------------------------------ */
SKF_MUST enum skf_err skf_store_journal_put(struct skf_store *s, const char *key, const void *p, size_t n,
                                            struct skf_why *why); /* n == 0 deletes */
/* Caller frees *p with skf_free. SKF_ERR_NOT_FOUND when there is none. */
SKF_MUST enum skf_err skf_store_journal_get(struct skf_store *s, const char *key, uint8_t **p, size_t *n,
                                            struct skf_why *why);

/* ---- reading in place ------------------------------------------------------------------------------------------------------ */
struct skf_view; /* one version under one read transaction; any thread may read it */
SKF_MUST enum skf_err skf_view_open(struct skf_store *s, const char *model, const char *version, struct skf_view **v,
                                    struct skf_why *why);
void skf_view_close(struct skf_view *v);
/* Lets go of what was freed since the view was opened; pointers stay valid, and other threads may read meanwhile. After a failure
 * nothing may be read through the view any more: close it. */
SKF_MUST enum skf_err skf_view_renew(struct skf_view *v, struct skf_why *why);
const struct skf_store_version *skf_view_version(const struct skf_view *v);
struct skf_source skf_view_source(const struct skf_view *v); /* the version's bytes, in place */
const void *skf_view_chunk(const struct skf_view *v, uint64_t i, uint32_t *n); /* 64-byte aligned */

/* ---- care -------------------------------------------------------------------------------------------------------------------- */
struct skf_store_stats {
    uint64_t file_bytes, used_bytes, chunks, chunk_bytes, versions, readers;
};
SKF_MUST enum skf_err skf_store_stats(struct skf_store *s, struct skf_store_stats *out, struct skf_why *why);
/* Removes chunks that no version and no journal of an incoming one names; `keep` digests (the incoming version's) stay.
 * Frees slots of dead readers first. */
SKF_MUST enum skf_err skf_store_collect(struct skf_store *s, const struct skf_store_chunk *keep, uint64_t n_keep,
                                        uint64_t *freed_bytes, struct skf_why *why);
/* Hashes every chunk of every version: SKF_ERR_DIGEST naming the first that is wrong. */
SKF_MUST enum skf_err skf_store_verify(struct skf_store *s, struct skf_why *why);

#endif
