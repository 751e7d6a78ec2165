/*
 * Pruning: the weights that matter least become zero.  What a weight matters is its size, or with an importance matrix its size times
 * the root mean square of what it is multiplied with (Sun et al., A Simple and Effective Pruning Approach for Large Language
 * Models, 2023).  Scores are such numbers; only their size counts.
 */
#ifndef SKF_MODEL_PRUNE_H
#define SKF_MODEL_PRUNE_H

#include "base/err.h"

struct skf_prune {
    double share;      /* of the weights that become zero: 0 to 1 */
    bool is_global;    /* one threshold for the model instead of one a tensor */
    unsigned keep, of; /* instead of a share: the `keep` largest of every `of` neighbours in a row stay (2 of 4); 0: no */
};

/* The threshold: the size of the rank-th smallest of the scores, found in three passes over them. Start with zeroes and the rank
 * (from 1); in each pass count all scores, from any number of threads into bins of their own, and end it with _step. */
enum { SKF_PRUNE_BINS = 2048, SKF_PRUNE_PASSES = 3 };
struct skf_prune_search {
    unsigned pass;
    uint32_t prefix; /* of the bits of the score looked for */
    uint64_t rank;   /* among the scores with that prefix */
};
void skf_prune_count(const struct skf_prune_search *s, const float *score, uint64_t n, uint64_t bins[SKF_PRUNE_BINS]);
void skf_prune_step(struct skf_prune_search *s, const uint64_t bins[SKF_PRUNE_BINS]);
float skf_prune_found(const struct skf_prune_search *s); /* after the last pass */

/* Zeroes each of x[n] whose score is not larger than the threshold, in size; returns how many of the n are zero then. */
uint64_t skf_prune_small(float *x, const float *score, uint64_t n, float threshold);
/* Leaves those of the p->keep largest scores of every p->of (of the last ones too); of equals the first. `score` may be `x`. */
uint64_t skf_prune_groups(float *x, const float *score, uint64_t n, const struct skf_prune *p);

#endif
