/*
 * From logits to a token.
 *
 * In this order: the repetition penalty over the last 64 tokens of prompt and answer (a positive logit divided by it, a negative
 * one multiplied; Keskar et al. 2019); with temperature 0 the largest logit, the lowest id among equals; otherwise logits divided by
 * the temperature, the top_k largest kept, of these the fewest whose probabilities come to top_p, and one drawn.
 *
 * Random numbers: xoshiro256** (Blackman and Vigna), its state filled by splitmix64 from the seed; a draw takes the upper 53 bits
 * of one number as a fraction.  The same seed gives the same text on every machine of one arithmetic.
 */
#ifndef SKF_RUNTIME_SAMPLER_PRIV_H
#define SKF_RUNTIME_SAMPLER_PRIV_H

#include "base/err.h"

#define SKF_RECENT 64u

struct skf_sampler {
    float temperature, top_p, penalty;
    uint32_t top_k;
    uint64_t rng[4];
    int32_t recent[SKF_RECENT]; /* a ring */
    uint64_t n_seen;
};
struct skf_candidate {
    float logit;
    int32_t id;
};

/* Values out of range are brought into it: see struct skf_sampling for what switches things off. */
void skf_sampler_init(struct skf_sampler *s, float temperature, uint32_t top_k, float top_p, float penalty, uint64_t seed);
void skf_sampler_saw(struct skf_sampler *s, int32_t id); /* a token of the prompt or the answer */
/* Changes logits[n]; scratch has n places. -1 when a logit is not a finite number. */
int32_t skf_sampler_pick(struct skf_sampler *s, float *logits, uint32_t n, struct skf_candidate *scratch);

#endif
