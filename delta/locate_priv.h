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
/* Up to `max` ranges of the source, in order and apart, that share most with the n bytes at p: together at most `most` bytes. Their
 * number; 0 when nothing of p is there. */
struct skd_range;
SKF_MUST enum skf_err skf_anchors_ranges(const struct skf_anchors *a, const uint8_t *p, size_t n, uint32_t most,
                                         struct skd_range *ranges, uint32_t max, uint32_t *count);

#endif
