/*
 * Builds deltas in the background, one after the other, and lists each in signed metadata.
 *
 * What is wanted is a pair of content roots.  A delta's file appears whole or not at all; a crash between the file and
 * the metadata costs the signing alone, since the next want finds the file.  A pair that failed is not tried again for
 * a while.
 */
#ifndef SKF_DISTRIBUTOR_BUILDER_H
#define SKF_DISTRIBUTOR_BUILDER_H

#include "distributor/chunks.h"
#include "distributor/registry.h"
#include "distributor/signer.h"

struct skf_builder;

struct skf_build_event {
    const uint8_t *from, *to;
    uint64_t done, total; /* bytes */
    bool is_over;         /* built and signed, or failed: `err` says which */
    enum skf_err err;
    const char *text; /* why it failed */
};
struct skf_builder_opts {
    struct skf_registry *registry;
    struct skf_chunks *chunks;
    struct skf_signer *signer;
    const char *dir; /* deltas/ */
    unsigned jobs;   /* 0: one a processor */
    /* On the builder's threads; must not block for long and not call the builder but for _want and _pending. */
    void (*event)(void *ctx, const struct skf_build_event *ev);
    void *ctx;
};
SKF_MUST enum skf_err skf_builder_open(const struct skf_builder_opts *o, struct skf_builder **b, struct skf_why *why);
void skf_builder_close(struct skf_builder *b); /* cancels, waits; NULL is fine */
/* Queues the pair unless it is queued already. SKF_ERR_STATE while an earlier failure of it is fresh, SKF_ERR_LIMIT
 * when too much waits. */
SKF_MUST enum skf_err skf_builder_want(struct skf_builder *b, const uint8_t from[SKF_DIGEST],
                                       const uint8_t to[SKF_DIGEST]);
/* How many pairs that make `to` wait or are under way. */
size_t skf_builder_pending(struct skf_builder *b, const uint8_t to[SKF_DIGEST]);
/* Whether a pair with this content waits or is under way. */
bool is_builder_at(struct skf_builder *b, const uint8_t root[SKF_DIGEST]);

/* The file of a delta. */
SKF_MUST enum skf_err skf_delta_file(const char *dir, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST],
                                     char *out, size_t cap);

#endif
