/*
 * One model, loaded and ready to generate: tokenizer, weights in place, graph, KV cache, sampler.
 *
 * The engine is stepped by one thread (skf_engine_step); requests may be submitted and cancelled from any thread.  A step decodes
 * one token of every running sequence together and prefills new ones in portions.  A portion is as large as fits the time that decoding
 * sequences can spare: a step takes at most `gap` percent of one that only decodes, by what earlier steps took (where a single token takes longer, as deep in a long prompt, half
 * as long again as that); with nobody decoding but
 * batch requests it is whole (64 tokens).  Half of a portion goes to the prompt that has waited longest, the rest to those with least left.
 *
 * Order.  Interactive requests begin before batch ones, each in the order of coming.  Batch requests take all slots but one (of several),
 * get what interactive prompts leave of a portion, and give their slot back while their own prompt is computed when an interactive request finds
 * none free.  Whoever was passed over eight times, in the queue or in a portion, is served as the first of the interactive.  A request begins when its keys and
 * values are sure to fit: those of prompt and answer at their longest, beside those of all that runs.
 *
 * Gathering.  Requests that come while a slot is free begin together with those that come just after: those in short prompts (up to half a
 * portion), and all when the load is 0.8 or more, within gather_busy_ms of the first of them; long ones, while the load is lower, within gather_idle_ms.
 * Short prompts so make small batches often, long ones large batches seldom.  None waits when a portion or the slots are full, and
 * a single request never when the one before came longer ago than the window: where others are not to be expected, nobody waits for them.  The load is the
 * share of the last second in which something was computed, or of the slots that are in use, whichever is greater.
 *
 * None of this changes a token.  Weights are read from the model's source
 * (a mapped file or a view of the store).  Quantized matrices may be laid out anew for the kernels at opening; the source is then told
 * that their bytes are idle, so memory holds them once.
 */
#ifndef SKF_RUNTIME_ENGINE_H
#define SKF_RUNTIME_ENGINE_H

#include "base/util.h"
#include "model/model.h"

struct skf_engine;
/* Whether quantized matrices are laid out for the kernels, in memory of our own: decoding is faster, the pages of the file are no longer
 * shared with other processes. By itself: where there is three times as much memory to take as that needs. A layout that the store keeps is
 * copied into that memory, whose pages are huge; where memory is not so ample, or with SHARED, it is read where it is kept: decoding is some
 * percent slower, but workers of one version share the pages, and they give way. */
enum skf_repack { SKF_REPACK_AUTO, SKF_REPACK_ON, SKF_REPACK_OFF, SKF_REPACK_SHARED };
/* Where a version's matrices are kept as they are laid out (store/layout.h). */
struct skf_engine_kept {
    const char *dir; /* the store's */
    uint8_t root[32];
};
struct skf_engine_opts {
    unsigned threads;  /* 0: one a processor */
    unsigned context;  /* tokens a sequence may hold; 0 for the model's own, at most 4,096 */
    unsigned slots;    /* sequences at once; 0 for 4 */
    uint64_t spill;    /* bytes of a file without a name, in folder spill_dir, where keys and values go that memory does not keep; 0: none */
    const char *spill_dir;
    bool is_cache_q8;  /* keys and values as Q8_0, half the memory, instead of F16 */
    uint64_t cache;    /* bytes of keys and values kept for prompts that begin alike; 0 for 64 MiB, 1 for none */
    enum skf_repack repack;
    uint64_t memory;   /* bytes that keys and values take, kept ones included; 0 for as much as all slots and the cache can */
    unsigned waiting, waiting_tokens; /* requests, and tokens of their prompts, that wait at most; 0 for 256 and 262,144 */
    unsigned gap;      /* percent of a step that only decodes: how long one may take that prefills beside; 0 for 175, 100 for one token a step */
    unsigned portion;  /* prompt tokens of a step at most; 0 for 64, which is also the most */
    int gather_busy_ms, gather_idle_ms; /* 0 for 5 and 20; below 0: never wait */
    const struct skf_engine_kept *kept; /* looked for before anything is laid out in memory, but with SKF_REPACK_OFF; NULL: nowhere */
    int speculate;     /* tokens guessed ahead for a sequence in one step, at most 16; 0 for 8, below 0 none. Answers are the same to the bit */
    const struct skf_model *draft; /* a small model of the same tokens, that guesses where nothing can be looked up; must outlive the engine; NULL: none */
    const char *draft_name; /* for error lines */
};
/* `m` must outlive the engine. SKF_ERR_UNSUPPORTED names an unknown architecture, tensor type or tokenizer. */
SKF_MUST enum skf_err skf_engine_open(const struct skf_model *m, const struct skf_engine_opts *o, struct skf_engine **e,
                                      struct skf_why *why);
void skf_engine_close(struct skf_engine *e);
/* Sees to it that the layout that `kept` names is there and whole; with SKF_REPACK_AUTO only where the disk has room for it twice (else
 * SKF_ERR_FULL). *bytes: what it takes; 0 for a model that has nothing to lay out. */
SKF_MUST enum skf_err skf_engine_lay_out(const struct skf_model *m, const struct skf_engine_kept *kept, enum skf_repack repack,
                                         unsigned threads, uint64_t *bytes, struct skf_why *why);
struct skf_engine_cache {
    uint64_t bytes, kept_bytes;        /* of keys and values; of those kept for prompts to come, and not pinned */
    uint32_t pinned;                   /* pages that stay in any case */
    uint64_t pinned_bytes;             /* of those that stay in any case */
    uint64_t aside_bytes;              /* of those put aside in a file, also while they are on their way there */
    uint64_t prompt_tokens, cached_tokens, evictions; /* since opening; evictions: pages that are gone from memory and file */
    uint64_t aside_tokens, spills, reads; /* of cached_tokens, those of pages that had been put aside; pages put aside; brought back */
};
/* What is pinned, to a file that outlives the engine, and back, to be had by prompts to come and by skf_engine_warm, which pins it anew.
 * `model`: what names the model's bytes; the file counts only for the same, for the same arithmetic and for the same type of keys and values. Not
 * while stepping; loading before any request. Errors as of skf_pages_load (runtime/kv_priv.h); *pages were read all the same. */
SKF_MUST enum skf_err skf_engine_cache_save(struct skf_engine *e, const char *path, const uint8_t model[SKF_DIGEST], struct skf_why *why);
SKF_MUST enum skf_err skf_engine_cache_load(struct skf_engine *e, const char *path, const uint8_t model[SKF_DIGEST], uint32_t *pages,
                                            struct skf_why *why);
/* From the stepping thread. */
void skf_engine_cache(const struct skf_engine *e, struct skf_engine_cache *c);
const char *skf_engine_cache_type(const struct skf_engine *e); /* f16, q8_0 */
const char *skf_engine_isa(const struct skf_engine *e);
unsigned skf_engine_threads(const struct skf_engine *e);
unsigned skf_engine_context(const struct skf_engine *e);
unsigned skf_engine_vocab(const struct skf_engine *e);
/* Matrices of so many zeros that they are computed with from a packed form in memory (model/sparse.h). */
struct skf_engine_packed {
    uint32_t matrices, of; /* of all that are multiplied with */
    uint64_t bytes, instead_of; /* of those: what is read, what their rows take */
    uint64_t read;              /* bytes of all matrices that a token is multiplied with, packed or not */
};
void skf_engine_packed(const struct skf_engine *e, struct skf_engine_packed *p);

/* ---- adapters: low-rank changes of the model, chosen by request (LoRA, Hu et al. 2021) ------------------------------------------------- */
#define SKF_ADAPTER_NAME 65 /* with its NUL */
/* Loads a LoRA adapter in GGUF under a name of letters, digits, '-', '_' and '.'; its numbers are copied, as float32. From any thread, also while
 * others generate. SKF_ERR_EXISTS when the name is taken, SKF_ERR_LIMIT for the 65th, a rank over 256 or more than 512 MiB in all; see
 * model/adapter.h for what is refused of the file. */
SKF_MUST enum skf_err skf_engine_adapter_add(struct skf_engine *e, const char *name, const char *path, struct skf_why *why);
/* Takes it from those to come; what generates with it goes on. SKF_ERR_NOT_FOUND. From any thread. */
SKF_MUST enum skf_err skf_engine_adapter_remove(struct skf_engine *e, const char *name, struct skf_why *why);
/* Writes the first `room` names and returns how many there are. From any thread. */
size_t skf_engine_adapters(struct skf_engine *e, char (*names)[SKF_ADAPTER_NAME], size_t room);
/* What the calls under "evaluation" compute with from now on: an adapter that is loaded, NULL or "" for the model alone. Not while stepping. */
SKF_MUST enum skf_err skf_engine_evaluate_with(struct skf_engine *e, const char *name, struct skf_why *why);

/* ---- text ---------------------------------------------------------------------------------------------------------------- */
/* Text to ids; special tokens are recognised in the text; BOS in front only if the file says so and add_bos. *ids with skf_free. */
SKF_MUST enum skf_err skf_engine_tokenize(const struct skf_engine *e, const char *text, size_t n, bool add_bos,
                                          int32_t **ids, size_t *n_ids, struct skf_why *why);
/* The bytes of one token (not always whole characters); NULL and 0 for an id out of range. Special tokens give their text. */
const char *skf_engine_token(const struct skf_engine *e, int32_t id, size_t *n);
bool is_engine_stop(const struct skf_engine *e, int32_t id); /* end of text or of turn */
struct skf_chat {
    const char *role, *content;
};
/* What a message of a conversation about tools has besides; each may be NULL. */
struct skf_chat_more {
    const char *calls; /* JSON, as in OpenAI's API */
    const char *call_id, *name;
};
/* The tokens of the file's chat template (or ChatML where it has none) over these messages, ready for the assistant's turn. What a
 * message says is text: a control token that it spells, such as an end of turn, is not taken as one. *ids with skf_free. */
SKF_MUST enum skf_err skf_engine_chat(const struct skf_engine *e, const struct skf_chat *msgs, size_t n, int32_t **ids,
                                      size_t *n_ids, struct skf_why *why);
/* The same with tools (JSON, as in OpenAI's API; NULL: none) and what is said about them. A template that knows of no tools is told of
 * them in Hermes' words, by a message of the system's. */
SKF_MUST enum skf_err skf_engine_chat_tools(const struct skf_engine *e, const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n,
                                            const char *tools, int32_t **ids, size_t *n_ids, struct skf_why *why);
/* The form in which calls are written: "hermes" or "llama" (runtime/tools_priv.h). */
const char *skf_engine_tool_form(const struct skf_engine *e);

/* The tokens with which every conversation begins that begins with these messages: of two that go on differently, what both have. One that
 * ends with the user's turn is taken as skf_engine_chat does. *ids with skf_free. */
SKF_MUST enum skf_err skf_engine_beginning(const struct skf_engine *e, const struct skf_chat *msgs, size_t n, int32_t **ids,
                                           size_t *n_ids, struct skf_why *why);

/* ---- generation ------------------------------------------------------------------------------------------------------------ */
struct skf_bias {
    int32_t id;
    float add;
};
/* What an answer must be, beside text: GBNF, JSON of a schema, any JSON object, calls of tools (runtime/tools_priv.h). */
enum skf_form { SKF_FORM_FREE, SKF_FORM_GBNF, SKF_FORM_SCHEMA, SKF_FORM_OBJECT, SKF_FORM_TOOLS };
struct skf_chance {
    int32_t id;
    double logprob; /* natural, of the model's own distribution: before penalties, biases, grammar, temperature */
};
struct skf_sampling {
    const char *adapter;      /* the name of one that is loaded; NULL or "": none */
    float temperature;        /* 0: greedy */
    unsigned top_k;           /* 0: off */
    float top_p;              /* 1 (or 0): off */
    float repetition_penalty; /* 1 (or 0): off */
    uint64_t seed;
    unsigned max_tokens;      /* 0: what the context holds */
    const char *const *stop;  /* strings that end the text; not part of it */
    size_t n_stop;
    const int32_t *told;      /* what the answer is likely to be, for guessing ahead; changes nothing of it. Ids that are none are left out */
    size_t n_told;
    float presence_penalty, frequency_penalty; /* 0: off */
    float min_p;                               /* 0: off */
    const struct skf_bias *bias;               /* added to the logits of tokens */
    size_t n_bias;
    /* Not NULL: told, before the event of each token, what it and the top_logprobs (at most 20) likeliest ones had for a chance. */
    void (*chance)(void *ctx, const struct skf_chance *picked, const struct skf_chance *top, size_t n_top);
    unsigned top_logprobs;
    enum skf_form form;
    const char *grammar;                       /* the text that the form is described by */
    size_t grammar_len;
};
struct skf_finish {
    const char *reason; /* stop, length, cancelled, error; warm */
    enum skf_err err;   /* with reason error */
    const char *text;   /* why, with reason error */
    unsigned prompt_tokens, cached_tokens, completion_tokens; /* cached: of the prompt's, not computed anew */
    unsigned drafted_tokens, accepted_tokens; /* guessed and computed ahead; of these, said */
    uint64_t prefill_ns, decode_ns;
    /* From submission to a slot; of these, on choosing tokens, and in the event that tells of them; the longest time between two tokens. */
    uint64_t queue_ns, sample_ns, tell_ns, gap_ns;
    uint64_t retry_ns; /* not the engine's: for a caller that passes on SKF_ERR_BUSY with what skf_engine_load expects */
};
struct skf_gen_events { /* called from the stepping thread */
    void (*token)(void *ctx, int32_t id, const char *text, size_t n); /* whole UTF-8 characters; n may be 0 */
    void (*finish)(void *ctx, const struct skf_finish *f);            /* once, last */
};
/* What a request asks of the order (see the top); NULL where these are given: interactive, no limit. */
enum skf_priority { SKF_INTERACTIVE, SKF_BATCH };
struct skf_terms {
    enum skf_priority priority;
    uint64_t deadline_ns; /* skf_now_ns() from which on it is ended as an error (SKF_ERR_TIMEOUT), within one step; 0: never */
};
SKF_MUST enum skf_err skf_engine_submit_on(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s, const struct skf_terms *terms,
                                           const struct skf_gen_events *ev, void *ctx, uint64_t *handle, struct skf_why *why);
/* The same on no terms. Submits a prompt (ids are copied). SKF_ERR_NOT_FOUND names an adapter that is not loaded. SKF_ERR_LIMIT when it does
 * not fit the context or the memory, SKF_ERR_BUSY when too many wait already: skf_engine_load says when to try again. */
SKF_MUST enum skf_err skf_engine_submit(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_sampling *s,
                                        const struct skf_gen_events *ev, void *ctx, uint64_t *handle, struct skf_why *why);
/* The same for a prompt whose keys and values are wanted alone, for prompts to come that begin so: it ends with the reason "warm" and no token.
 * is_pinned: they stay until the engine is closed; with reason error and SKF_ERR_LIMIT when the cache holds no more of that sort. */
SKF_MUST enum skf_err skf_engine_warm(struct skf_engine *e, const int32_t *ids, size_t n, bool is_pinned, const struct skf_gen_events *ev,
                                      void *ctx, uint64_t *handle, struct skf_why *why);
void skf_engine_cancel(struct skf_engine *e, uint64_t handle); /* takes effect within one step; unknown handles are fine */
/* How full it is, as of the last step; from any thread. */
struct skf_engine_load {
    unsigned slots, running, waiting, waiting_tokens, busy_permille;
    uint64_t expected_ns; /* until one that is submitted now would begin, by how long those of late took; 0: at once */
    uint64_t steps, memory; /* since opening; the bound, 0 for none */
    struct skf_engine_cache cache;
};
void skf_engine_load(struct skf_engine *e, struct skf_engine_load *l);
/* One step. *busy says whether anything runs or waits; when it is false the caller may sleep in skf_engine_wait. */
SKF_MUST enum skf_err skf_engine_step(struct skf_engine *e, bool *busy, struct skf_why *why);
void skf_engine_wait(struct skf_engine *e, unsigned timeout_ms); /* until something is submitted or skf_engine_wake */
void skf_engine_wake(struct skf_engine *e);

/* ---- evaluation ------------------------------------------------------------------------------------------------------------ */
/* Natural-log probabilities of ids[i] given those before it, for i in 1..n-1 (out has n - 1 places). Not while stepping. */
SKF_MUST enum skf_err skf_engine_logprobs(struct skf_engine *e, const int32_t *ids, size_t n, double *out,
                                          struct skf_why *why);
/* What each matrix is multiplied with while ids[n] (at most the context) are computed as one sequence: for every tensor of a product, in
 * the graph's order, its name and x[rows][columns], float32 as it is before it is quantized; the tokens come in order, in portions of some
 * dozens, each going through all tensors before the next. Tensors that take the same input are told of one after another with the same x.
 * The output matrix (token_embd.weight where it is tied) is told of last and not multiplied. Equal to the bit on every instruction
 * set and thread count. Called from the caller's thread. Not while stepping. */
typedef void skf_observe_fn(void *ctx, const char *tensor, const float *x, size_t rows, size_t columns);
SKF_MUST enum skf_err skf_engine_observe(struct skf_engine *e, const int32_t *ids, size_t n, skf_observe_fn *fn, void *ctx,
                                         struct skf_why *why);
/* The publisher-independent self-check: loads every tensor's shape, runs a few tokens, checks that logits are finite. Not while stepping:
 * call it from the stepping thread. */
SKF_MUST enum skf_err skf_engine_check(struct skf_engine *e, struct skf_why *why);
/* Times a prefill of `prompt` tokens, and the decoding of `gen` tokens by each of `streams` (at most the engine's slots) sequences together
 * behind `depth` positions that are there, in nanoseconds; 0 tokens leave one out. Not while stepping. */
SKF_MUST enum skf_err skf_engine_bench(struct skf_engine *e, unsigned prompt, unsigned gen, unsigned depth, unsigned streams,
                                       uint64_t *prefill_ns, uint64_t *decode_ns, struct skf_why *why);

#endif
