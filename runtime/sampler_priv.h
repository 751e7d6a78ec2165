/*
 * From logits to a token.
 *
 * In this order: the biases of tokens are added; the repetition penalty over the last 64 tokens of prompt and answer (a positive logit
 * divided by it, a negative one multiplied; Keskar et al. 2019); for each token of the answer so far its count times the frequency
 * penalty and once the presence penalty taken off, as OpenAI defines them; what a grammar forbids goes; with temperature 0 the largest
 * logit, the lowest id among equals; otherwise logits divided by the temperature, those kept whose probability is at least min_p of the
 * largest one's, of these the top_k largest, of these the fewest whose probabilities come to top_p, and one drawn.
 *
 * Random numbers: xoshiro256** (Blackman and Vigna), its state filled by splitmix64 from the seed; a draw takes the upper 53 bits
 * of one number as a fraction.  The same seed gives the same text on every machine of one arithmetic.
 */
#ifndef SKF_RUNTIME_SAMPLER_PRIV_H
#define SKF_RUNTIME_SAMPLER_PRIV_H

#include "runtime/engine.h"

#define SKF_RECENT 64u

struct skf_sampler {
    float temperature, top_p, penalty, min_p, presence, frequency;
    uint32_t top_k;
    uint64_t rng[4];
    int32_t recent[SKF_RECENT]; /* a ring */
    uint64_t n_seen;
    struct skf_bias *bias; /* ours */
    size_t n_bias;
    struct skf_said {
        int32_t id;
        uint32_t times;
    } *said; /* the answer's tokens, each once; ours, NULL while no penalty asks for them */
    size_t n_said, room;
};
struct skf_candidate {
    float logit;
    int32_t id;
};

/* Values out of range are brought into it: see struct skf_sampling for what switches things off. */
void skf_sampler_init(struct skf_sampler *s, float temperature, uint32_t top_k, float top_p, float penalty, uint64_t seed);
/* What a request may ask for besides: 0 switches each off. Copies the biases. SKF_ERR_NOMEM. The sampler is then freed. */
struct skf_sampler_more {
    float presence, frequency, min_p;
    const struct skf_bias *bias;
    size_t n_bias;
    size_t most; /* tokens that the answer may have */
};
SKF_MUST enum skf_err skf_sampler_more(struct skf_sampler *s, const struct skf_sampler_more *more);
void skf_sampler_free(struct skf_sampler *s); /* a zeroed one may be */
void skf_sampler_saw(struct skf_sampler *s, int32_t id);  /* a token of the prompt */
void skf_sampler_said(struct skf_sampler *s, int32_t id); /* of the answer */
/* Changes logits[n]; scratch has n places. -1 when a logit is not a finite number. */
int32_t skf_sampler_pick(struct skf_sampler *s, float *logits, uint32_t n, struct skf_candidate *scratch);
/* The same among the tokens whose bit is set in allowed[(n + 63) / 64], NULL for all; -1 also when there are none. */
int32_t skf_sampler_pick_of(struct skf_sampler *s, float *logits, uint32_t n, const uint64_t *allowed, struct skf_candidate *scratch);

/* ---- what others ask to be told (chances.c) ---- */
#define SKF_TOP_MAX 20
/* Of a model's own logits, before anything is added to them. */
struct skf_chances {
    double max, log_sum; /* the largest logit; the logarithm of the sum of e^(logit - max), in the order of the tokens */
    uint32_t n_top;
    struct skf_candidate top[SKF_TOP_MAX]; /* the largest, of equals the lowest id first */
};
void skf_chances_of(const float *logits, uint32_t n, uint32_t top, struct skf_chances *c);
double skf_chance(const struct skf_chances *c, float logit); /* its natural-log probability */

#endif
