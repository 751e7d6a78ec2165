/*
 * Where bytes of the result come from in the source: whole chunks by digest, and for the rest the neighbourhood that shares
 * most with a chunk, found by content-defined anchors (so that an insertion before it does not matter).
 */
#ifndef SKF_DELTA_LOCATE_PRIV_H
#define SKF_DELTA_LOCATE_PRIV_H

#include "model/model.h"

/* Chunks of a cut by digest. */
struct skf_by_digest {
    const struct skf_cut *cut;
    uint64_t *order; /* chunk numbers, sorted by digest, then number */
};
SKF_MUST enum skf_err skf_by_digest_make(const struct skf_cut *cut, struct skf_by_digest *d);
void skf_by_digest_free(struct skf_by_digest *d);
/* The number of a chunk with c's bytes: `likely` where that is one, otherwise the first; UINT64_MAX for none. */
uint64_t skf_by_digest_find(const struct skf_by_digest *d, const struct skf_chunk *c, uint64_t likely);

struct skf_anchors;
/* Reads the whole source once, on `jobs` threads. Memory is a few MiB whatever its size. */
SKF_MUST enum skf_err skf_anchors_make(const struct skf_source *s, unsigned jobs, const struct skf_progress *progress,
                                       struct skf_anchors **a, struct skf_why *why);
void skf_anchors_free(struct skf_anchors *a); /* NULL is fine */
/* True when some of the n bytes at p (which stand at `offset` of the result) occur in the source; *at is where p would begin
 * there by the shift that most of them agree on (modulo 2^64: it may lie before the source). */
bool skf_anchors_find(const struct skf_anchors *a, const uint8_t *p, size_t n, uint64_t offset, uint64_t *at);

#endif
