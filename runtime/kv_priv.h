/*
 * Keys and values in pages of 32 positions, and the index by which sequences that begin alike share them.
 *
 * A page holds all layers of its positions.  Once its 32 tokens are computed it never changes, so it can be listed under the page before
 * it and its tokens; a sequence that begins with listed pages takes them instead of computing them.  What it reads there is what it
 * would have computed, to the bit: a token's keys and values depend on the tokens before it alone.  Where a sequence parts from a listed
 * page within it, the positions that agree are copied into a page of its own.
 *
 * Pages that no sequence holds stay, up to a limit, and go by age, those furthest from the beginning first; but for pinned ones, which never
 * go and count towards the same limit.  The tokens are compared
 * themselves; their hash only says where to look.  One thread at a time: the engine's stepping thread.
 */
#ifndef SKF_RUNTIME_KV_PRIV_H
#define SKF_RUNTIME_KV_PRIV_H

#include "base/digest.h"
#include "base/util.h"
#include "kernels/kernels.h"

struct skf_llama;
struct skf_pages;
struct skf_page;

/* SKF_ERR_UNSUPPORTED for a type that the model's heads do not fit.
 * A pool for sequences of at most `context` positions each; keep: bytes of pages that no sequence holds or that are pinned. */
SKF_MUST enum skf_err skf_pages_open(const struct skf_llama *l, uint32_t context, uint64_t keep, enum skf_kv_type type,
                                     struct skf_pages **p, struct skf_why *why);
/* What memory does not keep goes to a file of at most so many bytes in folder `dir`, and comes back from there (kv_spill_priv.h). Once, before
 * any sequence. */
SKF_MUST enum skf_err skf_pages_spill(struct skf_pages *p, const char *dir, uint64_t bytes, struct skf_why *why);
/* Pinned pages to a file, durably, and from there (kv_file.c): to be had like any that are kept, until they are pinned anew. `key`: what they were
 * computed with. *n: pages that were read and are good, also when a later one was not. SKF_ERR_NOT_FOUND: no file; SKF_ERR_BASE: of another
 * key; SKF_ERR_REFUSED: others could have written it; SKF_ERR_FORMAT, SKF_ERR_DIGEST, SKF_ERR_LIMIT: it is broken, or holds more than is kept. Before
 * any sequence. */
SKF_MUST enum skf_err skf_pages_save(struct skf_pages *p, const char *path, const uint8_t key[SKF_DIGEST], struct skf_why *why);
SKF_MUST enum skf_err skf_pages_load(struct skf_pages *p, const char *path, const uint8_t key[SKF_DIGEST], uint32_t *n, struct skf_why *why);
void skf_pages_close(struct skf_pages *p); /* NULL is fine; its sequences must have ended */

struct skf_pages_stats {
    uint32_t pinned;               /* pages */
    uint64_t bytes, kept_bytes, pinned_bytes; /* of all pages; of those that no sequence holds and that may go; of those that never go */
    uint64_t aside_bytes, leaving_bytes; /* of pages put aside; of those that still stand in memory, beside `bytes`, until they are written */
    uint64_t asked, shared, copied;      /* tokens of prompts; of those taken from listed pages, copied from one */
    uint64_t from_aside;                 /* of those shared: from pages that had been put aside */
    uint64_t evicted, spilled, read_back; /* pages gone by age; put aside; brought back */
};
void skf_pages_stats(const struct skf_pages *p, struct skf_pages_stats *s);

/* The bytes of keys and values of so many positions of one sequence that shares nothing. */
uint64_t skf_pages_bytes(const struct skf_pages *p, uint32_t positions);
/* Pages that no sequence holds go before all take more than so many bytes; 0: only their own limit counts. */
void skf_pages_limit(struct skf_pages *p, uint64_t bytes);

/* One sequence. Zeroed is ended. */
struct skf_kv {
    struct skf_pages *pool;
    struct skf_page **page;
    uint8_t **data;   /* of each page: where kernels find it */
    uint32_t n, listed; /* pages; how many of them are in the index */
    bool is_private;  /* neither takes nor lists pages */
    uint8_t root[SKF_DIGEST]; /* what it is computed with besides the model; zeros: nothing */
};
/* Begins a sequence whose first tokens will be ids[n]; *n_there <= most positions need not be computed. SKF_ERR_NOMEM. `root`: the digest of the
 * adapter that it is computed with, NULL for none: only what was computed with the same is taken. */
SKF_MUST enum skf_err skf_kv_begin(struct skf_pages *p, const uint8_t *root, const int32_t *ids, uint32_t n, uint32_t most, struct skf_kv *kv,
                                   uint32_t *n_there, struct skf_why *why);
/* One that shares nothing: for measuring and testing. */
SKF_MUST enum skf_err skf_kv_private(struct skf_pages *p, struct skf_kv *kv, struct skf_why *why);
/* Makes place for position pos, which is the next or one before, and notes its token. */
SKF_MUST enum skf_err skf_kv_place(struct skf_kv *kv, uint32_t pos, int32_t token, struct skf_why *why);
/* Positions below n are computed: lists pages that are full. */
void skf_kv_done(struct skf_kv *kv, uint32_t n);
/* All of its n positions are computed: they stay, whoever else comes, until the pool closes. SKF_ERR_LIMIT, and nothing is pinned, when what is
 * pinned would take more than the pool may keep. */
SKF_MUST enum skf_err skf_kv_pin(struct skf_kv *kv, uint32_t n, struct skf_why *why);
/* Ends it; what is computed of a last page that is not full can still be copied by others. */
void skf_kv_end(struct skf_kv *kv, uint32_t n);

/* Where the keys and values of one of a layer's heads lie in a page, in bytes from its data (kernels/kernels.h). */
size_t skf_kv_at(const struct skf_pages *p, uint32_t layer, uint32_t head);
enum skf_kv_type skf_kv_type(const struct skf_pages *p);

#endif
