/*
 * A small model that guesses for the one that is served (Leviathan et al. 2023, "Fast inference from transformers via speculative decoding").
 *
 * It has weights, graph and keys and values of its own and the same tokens; it says what it would say, drawn by the sequence's own sampler with the
 * random number that the model will draw with, so that both say the same as often as they can.  What it guesses is checked as any guess is
 * (speculate_priv.h), so nothing of it is seen in an answer.
 */
#ifndef SKF_RUNTIME_SMALL_PRIV_H
#define SKF_RUNTIME_SMALL_PRIV_H

#include "runtime/graph_priv.h"
#include "runtime/sampler_priv.h"
#include "runtime/speculate_priv.h"
#include "runtime/tokenizer_priv.h"

struct skf_small;
struct skf_small_opts {
    const struct skf_tokenizer *tk; /* of the model that is served */
    const struct skf_ops *ops;
    struct skf_pool *pool;
    enum skf_repack repack;
    uint32_t context, slots;
};
/* Everything in o, and m, must outlive it. SKF_ERR_ARG when its tokens are not those of o->tk; otherwise as skf_engine_open. Its context may be
 * shorter: beyond it, it guesses nothing. */
SKF_MUST enum skf_err skf_small_open(const struct skf_model *m, const struct skf_small_opts *o, struct skf_small **d, struct skf_why *why);
void skf_small_close(struct skf_small *d); /* NULL is fine */

struct skf_small_ask { /* of one sequence */
    uint32_t slot;
    uint64_t handle; /* the request's: another one's keys and values are thrown away */
    struct skf_guess *guess;
    const struct skf_sampler *sampler;
    uint32_t most;   /* tokens that are wanted */
};
/* Guesses for each of asks[n], all together, as far as it has computed what they said before; of that it makes up a portion at a time. Where memory is
 * short it guesses nothing. From the stepping thread. */
void skf_small_guess(struct skf_small *d, const struct skf_small_ask *asks, uint32_t n);
void skf_small_end(struct skf_small *d, uint32_t slot); /* the sequence is over */
double skf_small_ns(const struct skf_small *d); /* what a guessed token took of late; 0: none was */

#endif
