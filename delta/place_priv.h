/*
 * The order in which chunks are made when the result takes the source's place.
 *
 * A chunk's bytes may be written only when every chunk that reads what stands there has been made.  Where chunks wait for each other
 * in a circle one of them is made before its time and put aside.  The work is done in batches: all chunks of a batch are made before
 * any of its bytes is written, so a batch can be journaled whole.  The plan is a function of the delta alone: whoever goes on after
 * a power cut comes to the same batches.
 */
#ifndef SKF_DELTA_PLACE_PRIV_H
#define SKF_DELTA_PLACE_PRIV_H

#include "delta/delta.h"

enum place_kind {
    PLACE_MAKE,  /* make the chunk, for its place */
    PLACE_ASIDE, /* make it, and put it aside in `slot` */
    PLACE_TAKE,  /* what was put aside in `slot`, for its place */
};
struct place_op {
    uint64_t chunk, at; /* at: where in the batch's bytes it stands (not PLACE_ASIDE) */
    uint32_t length, slot;
    enum place_kind kind;
};
struct place_batch {
    const struct place_op *ops; /* those that make come first */
    size_t n, n_made;
    uint64_t number;
};
struct place_plan;
/* `batch`: the most bytes of a batch, at least the longest chunk. */
SKF_MUST enum skf_err place_plan_new(const struct skf_skd *skd, uint64_t batch, struct place_plan **p, struct skf_why *why);
void place_plan_free(struct place_plan *p);
/* The next batch, valid until the next call; n is 0 when all is done. */
void place_plan_next(struct place_plan *p, struct place_batch *b);
uint32_t place_plan_slots(const struct place_plan *p); /* the most that were in use so far */

#endif
