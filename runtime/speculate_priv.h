/*
 * Guesses of what a sequence will say next, so that one step computes several of its tokens (speculative decoding).
 *
 * The guessed tokens are computed behind the last one, as those of a prompt are.  Then each position is drawn as it would have been anyway: from
 * the model's own logits there, by the sequence's own sampler with the next of its random numbers.  While what was drawn is what was guessed, the next
 * position's logits are there already; the first that differs ends it, and what was computed behind it is computed over.  So the text is that of
 * a run without guesses to the bit, greedy or drawn, since a token's logits do not depend on what else is in the batch.  (The rule of Leviathan et al.
 * 2023, to accept with probability min(1, p / q), keeps the distribution but not the text of a seed.)
 *
 * Guesses by look-up (Saxena 2023, "Prompt lookup decoding"; Yang et al. 2023, "Inference with reference"): where the last tokens stood before, in
 * the prompt, the answer so far or what the client says will come, the answer may go on as it did there.  The longest match counts, the latest among
 * equals.  How far a guess is carried is a matter of cost alone: for each length of match the sequence keeps how often the token behind it was
 * right, which it learns at every token, whether it was computed ahead or not; and the engine how long a step takes by the number of its tokens.
 */
#ifndef SKF_RUNTIME_SPECULATE_PRIV_H
#define SKF_RUNTIME_SPECULATE_PRIV_H

#include "base/err.h"

#define SKF_AHEAD_MOST 16u /* tokens guessed for one sequence in one step */
#define SKF_GUESS_KINDS 8u

struct skf_guess {
    int32_t *seen; /* what the client says will come and -1; the prompt; the answer */
    uint32_t n, room, n_told; /* n_told: of these, what stands before the prompt */
    uint32_t at, len; /* where in `seen` the guess goes on, and how many tokens matched before it; len 0: no guess */
    bool is_begun;    /* something was said */
    int32_t next[SKF_AHEAD_MOST]; /* the guess under way */
    uint32_t n_next, n_right, n_ahead; /* its tokens; of these those that came true; those that are computed ahead */
    uint32_t kind;
    uint32_t rest, resting; /* how long the small model is left alone while its guesses are worth nothing; and how long still */
    float right[SKF_GUESS_KINDS]; /* share of tokens that came true, by how long the match was */
    uint64_t drafted, accepted;   /* computed ahead; of these, said */
};

/* `told`: what the answer is likely to be (n_told may be 0). SKF_ERR_NOMEM. A zeroed one may be freed, and guesses nothing. */
SKF_MUST enum skf_err skf_guess_init(struct skf_guess *g, const int32_t *prompt, uint32_t n, const int32_t *told, uint32_t n_told,
                                     struct skf_why *why);
void skf_guess_free(struct skf_guess *g);
/* Guesses anew: how many of g->next, at most `most`, are worth computing ahead, when one costs `cost` of what a step without it takes. They count as
 * drafted. */
uint32_t skf_guess_make(struct skf_guess *g, uint32_t most, double cost);
/* How many guesses of a small model are worth it, when one costs `cost` with what the small model takes; of a model that guesses badly one is asked for
 * every now and then, to see whether it does better. */
uint32_t skf_guess_wish(struct skf_guess *g, uint32_t most, double cost);
/* g->next[g->n_next] are such guesses, all of which are computed ahead. */
void skf_guess_set(struct skf_guess *g);
/* The next token. False when it is not the one that was computed ahead, or none was. Without memory there are no more guesses. */
bool is_guess_right(struct skf_guess *g, int32_t id);

/* How long steps take by the tokens in them: a straight line through the last some dozens. */
struct skf_ahead {
    double w, m, t, mm, mt; /* sums of weights, tokens, time, and their products, each step counting a little less than the one after it */
};
void skf_ahead_saw(struct skf_ahead *p, uint32_t tokens, uint64_t ns);
/* What one more token costs where `sequences` have one each, as a share of the time that each of those would take alone. */
double skf_ahead_cost(const struct skf_ahead *p, uint32_t sequences);
/* The same of something that takes ns. */
double skf_ahead_share(const struct skf_ahead *p, uint32_t sequences, double ns);
/* What a step that took ns would have taken without those of its tokens that were guessed. */
uint64_t skf_ahead_without(const struct skf_ahead *p, uint32_t sequences, uint32_t guessed, uint64_t ns);

#endif
