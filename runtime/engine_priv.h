/*
 * The engine's state, for its files: engine.c (opening, text), queue.c (requests that come, wait, begin and leave), step.c (steps), advance.c
 * (from logits to tokens and text), ahead.c (several tokens of a sequence in one step), eval.c (evaluation).
 */
#ifndef SKF_RUNTIME_ENGINE_PRIV_H
#define SKF_RUNTIME_ENGINE_PRIV_H

#include <pthread.h>

#include "runtime/engine.h"
#include "runtime/small_priv.h"
#include "runtime/grammar_cache.h"
#include "runtime/graph_priv.h"
#include "runtime/pace_priv.h"
#include "runtime/sampler_priv.h"
#include "runtime/speculate_priv.h"
#include "runtime/stream_priv.h"
#include "runtime/tokenizer_priv.h"

#define SKF_PORTION     64u  /* prompt tokens computed in one step, all sequences together */
#define SKF_PASSED_MAX  8u   /* times that a request is passed over at most */
#define SKF_YIELDS_MAX  4u   /* times that one gives back its slot */
#define SKF_DRAFTS      32u /* tokens computed ahead in one step, all sequences together */

struct skf_request {
    struct skf_request *next;
    uint64_t handle;
    bool is_cancelled; /* under the lock */
    bool is_warm, is_pinned; /* no token is wanted of it; its pages are to stay */
    int32_t *ids;      /* the prompt */
    uint32_t n_ids, max_tokens;
    struct skf_sampler sampler;
    struct skf_grammars *grammars; /* the engine's */
    struct skf_kept *kept;         /* what the answer must follow; NULL: nothing */
    struct skf_match *match;       /* where it is in that */
    enum skf_err pick_err;         /* why there is no token to pick */
    void (*chance)(void *ctx, const struct skf_chance *picked, const struct skf_chance *top, size_t n_top);
    uint32_t top_logprobs;
    struct skf_chances chances; /* of the last pick */
    float picked;               /* the model's logit of it */
    struct skf_stream stream;
    struct skf_gen_events ev;
    void *ctx;
    uint32_t n_done, n_made; /* positions computed; tokens generated */
    uint32_t n_cached;       /* positions of the prompt that were there */
    int32_t last;            /* the token to compute next, once the prompt is done */
    enum skf_priority priority;
    uint32_t passed, yields; /* SKF_PASSED_MAX, SKF_YIELDS_MAX */
    uint32_t left_out;       /* portions in a row of which a batch prompt got nothing */
    uint64_t deadline_ns, memory; /* 0: none; bytes of keys and values at the longest */
    uint64_t submitted_ns, begun_ns, prefilled_ns, told_ns; /* told: the last token */
    uint64_t gap_ns, sample_ns, tell_ns; /* struct skf_finish */
    struct skf_guess guess;
    struct skf_lora *lora; /* held; NULL: none */
};
struct skf_slot {
    struct skf_request *r; /* NULL: free. Changed by the stepping thread, under the lock */
    struct skf_kv kv;
};

struct skf_engine {
    const struct skf_model *model;
    struct skf_named_lora *adapters; /* under the lock */
    struct skf_lora *evaluated;      /* held; NULL: none */
    struct skf_tokenizer *tk;
    struct skf_llama *llama;
    struct skf_pool *pool;
    struct skf_graph *graph;
    struct skf_pages *pages;
    const struct skf_ops *ops;
    struct skf_str template; /* in the model's file; n == 0: none */
    uint32_t context, n_slots, max_batch, max_want, max_ahead; /* max_ahead: guessed for one sequence in a step; 0: none */
    struct skf_small *small; /* that guesses; NULL: none */
    struct skf_ahead ahead; /* what guesses cost */
    struct skf_slot *slots;
    float *logits; /* [max_want][n_vocab]; what is never asked for is never touched */
    struct skf_candidate *candidates;
    float *raw; /* [n_vocab]: logits as they were, for those who want to know */
    struct skf_grammars *grammars;
    struct skf_item *items; /* [max_batch] */
    uint32_t *want;
    struct skf_slot **wanted_by;
    bool is_locked; /* lock and cond are there */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct skf_request *waiting, **waiting_end; /* under the lock, as what follows */
    uint32_t n_waiting, n_waiting_tokens;
    uint64_t last_handle, came_ns, gap_ns; /* of the request that came last; between it and the one before */
    uint64_t memory_used;                 /* by what runs, at the longest */
    uint64_t held_ns;                     /* a slot, smoothed */
    uint32_t busy_permille;
    struct skf_engine_cache cache_seen;
    bool is_woken;
    struct skf_engine_opts opts; /* with what was left to us filled in */
    struct skf_pace pace;        /* the stepping thread's, as busy and n_steps */
    struct skf_busy busy;
    uint64_t n_steps;
};

void skf_request_free(struct skf_request *r);
/* adapters.c: the adapter of that name, held (skf_lora_free lets go); NULL for no name. SKF_ERR_NOT_FOUND. */
SKF_MUST enum skf_err skf_engine_adapter_hold(struct skf_engine *e, const char *name, struct skf_lora **lora, struct skf_why *why);
void skf_engine_adapters_close(struct skf_engine *e);
/* ahead.c. Makes a request ready to be guessed at. */
SKF_MUST enum skf_err skf_ahead_init(const struct skf_engine *e, struct skf_request *r, const struct skf_sampling *s, struct skf_why *why);
/* Guesses for all sequences that decode, as far as that is worth it: by look-up, otherwise by the small model if there is one. Returns how many tokens that is. */
uint32_t skf_ahead_guess(struct skf_engine *e);
/* Adds a sequence's guesses to the batch, behind the token that it said last. */
void skf_ahead_batch(struct skf_engine *e, struct skf_slot *s, uint32_t *m, uint32_t *n_want);
/* Goes through the logits of one sequence, from want[first] on: after its last token, and after each that was guessed while those come true. Returns how
 * many there are. */
uint32_t skf_ahead_advance(struct skf_engine *e, uint32_t first, uint32_t n_want);
/* queue.c, from the stepping thread. Tells the end of a slot's request and frees both. */
void skf_engine_finish_slot(struct skf_engine *e, struct skf_slot *s, const char *reason, enum skf_err err, const char *text);
/* Ends what is cancelled or past its deadline, wherever it is. */
void skf_queue_drop(struct skf_engine *e);
/* Gives free slots to those whose turn it is, and their sequences what there is of their prompts. Nanoseconds until those who are held back may begin, 0 for none. */
uint64_t skf_queue_admit(struct skf_engine *e);
void skf_queue_rest(struct skf_engine *e, uint64_t ns); /* sleeps so long at most, or until something comes */
/* advance.c: the grammar that an answer must follow, biases and penalties of its tokens; and these given back. */
SKF_MUST enum skf_err skf_request_ask(struct skf_engine *e, struct skf_request *r, const struct skf_sampling *s, struct skf_why *why);
void skf_request_unask(struct skf_request *r);
/*
 * advance.c, in two steps, so that the logits of several positions can be gone through one after another: picking masks and adjusts a
 * position's logits by what the request has said so far (it draws a random number at most; -1 when there is none to pick), going on takes
 * a token as said: sampler, text, events. False when that ended the request: it is freed, the slot is free.
 */
int32_t skf_engine_pick(struct skf_engine *e, struct skf_request *r, float *logits);
bool is_engine_going_on(struct skf_engine *e, struct skf_slot *s, int32_t id);
/* Both: a sequence's logits are there (they may be changed): picks its token, tells it, ends what has come to its end. */
void skf_engine_advance(struct skf_engine *e, struct skf_slot *s, float *logits);

#endif
