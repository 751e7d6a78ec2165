/*
 * A decoder of Llama's kind: what its architecture is made of, its sizes, and its weights resolved to rows in place.
 *
 * What architectures have in common and what not is said in one table (llama.c); a file that says more than this build knows, by a key or a
 * tensor, is refused by that name.
 *
 * GGUF's own order of rows in attn_q and attn_k is kept: RoPE turns adjacent pairs there, or elements half a head apart, as the architecture
 * says.
 */
#ifndef SKF_RUNTIME_LLAMA_PRIV_H
#define SKF_RUNTIME_LLAMA_PRIV_H

#include "kernels/kernels.h"
#include "model/model.h"
#include "model/runs.h"
#include "runtime/engine.h"

/* What tells architectures apart; all else is in the file. */
struct skf_arch {
    bool turns_halves;        /* RoPE's pairs lie half a head apart */
    bool has_head_norms;      /* queries and keys are normed, head by head */
    bool has_biases;          /* of queries, keys and values */
    bool has_post_norms;      /* what a block gives is normed before it is added */
    bool has_gelu;            /* in place of SiLU */
    bool is_embedding_scaled; /* by the root of its length */
    bool is_fused;            /* attn_qkv holds the rows of q, k and v, ffn_up those of gate and up */
    bool has_windows;         /* layers see a window of positions only, unless the next says that they see all */
    uint32_t global_every;    /* of so many layers the last sees all positions; 0: with windows none does */
    uint32_t still_every;     /* of so many layers the last has no RoPE (NoPE); 0: all have it */
    uint32_t window;          /* where the file says none; 0: it must say */
    uint32_t wide_layers;     /* a model of so many layers scales attention by the embedding's share of a head, not by the head; 0: none does */
    double window_base;       /* RoPE's base in layers with a window, unless the file says; 0: that of the others */
    double attn_cap, logit_cap; /* soft caps, unless the file says; 0: none */
};

struct skf_rope {
    double base, divide; /* frequencies are divided by it */
    double scale;        /* of cosines and sines */
    float *factors;      /* [n_rot / 2], and by these; NULL for none */
    float *long_factors; /* [n_rot / 2], instead of them where the context is longer than `original` */
    uint32_t original;   /* context that the model was made with at first */
    bool is_yarn;        /* slow turns are divided, quick ones are not, with a ramp between (Peng et al. 2023) */
    double beta_fast, beta_slow; /* turns over the original context at which the ramp begins and ends */
};
/* The angle by which pair i < n_rot / 2 turns from one position to the next, for an engine of that context: freqs[n_rot / 2]. */
bool is_rope_long(const struct skf_rope *r, uint32_t context); /* are they the long factors' there? Then keys are others than in a short context */
void skf_rope_freqs(const struct skf_rope *r, uint32_t n_rot, uint32_t context, double *freqs);

struct skf_llama_layer {
    float *attn_norm, *ffn_norm;   /* [n_embd] */
    float *attn_post, *ffn_post;   /* [n_embd]; NULL: none */
    float *q_norm, *k_norm;        /* [head_dim]; NULL: none */
    float *q_bias, *k_bias, *v_bias; /* as many as rows; NULL: none */
    uint32_t window;               /* positions that it sees; 0: all */
    const struct skf_rope *rope;   /* NULL: none */
    struct skf_weight q, k, v, o;      /* [n_head * head_dim | n_kv * head_dim | .. | n_embd] rows */
    struct skf_weight gate, up, down;  /* [n_ff | n_ff | n_embd] rows */
};
struct skf_llama {
    uint32_t n_layers, n_embd, n_head, n_kv, head_dim, n_rot, n_ff, n_vocab, context;
    enum skf_arch_id id;
    const struct skf_arch *arch;
    float eps, embd_scale, attn_scale;
    float attn_cap, logit_cap;      /* scores and logits are capped softly; 0: they are not */
    struct skf_rope ropes[2];       /* of layers that see all positions, and of those with a window */
    uint32_t n_ropes;
    struct skf_weight embd, output; /* [n_vocab] rows of n_embd; the same when tied */
    float *norm;                    /* [n_embd] */
    struct skf_llama_layer *layers;
    struct skf_packed *packed;      /* a place for each matrix that is multiplied with; NULL: none is packed */
    struct skf_kept *kept;          /* memory of ours: small tensors, rows that the source breaks in two, lists of segments */
    uint8_t *lanes;                 /* matrices laid out for the kernels; NULL: none */
    struct skf_layout *kept_layout; /* those that the store keeps so; NULL: none */
    uint8_t *kept_lanes;            /* or a copy of them */
};

/* Reads sizes and finds every tensor. n_vocab is the tokenizer's. m must outlive the result. SKF_ERR_UNSUPPORTED names an unknown
 * architecture, type, scaling or tensor; SKF_ERR_FORMAT what is missing or of another shape; SKF_ERR_LIMIT an absurd size. */
SKF_MUST enum skf_err skf_llama_load(const struct skf_model *m, uint32_t n_vocab, struct skf_llama **out, struct skf_why *why);
void skf_llama_free(struct skf_llama *l); /* NULL is fine */

/* The matrices of products by number, below skf_llama_matrices(l): seven a layer, the output last. */
uint32_t skf_llama_matrices(const struct skf_llama *l);
struct skf_weight *skf_llama_matrix(struct skf_llama *l, uint32_t k);
/* The name of its tensor; several matrices that are parts of one give the name to the first of them, "" to the others. */
void skf_llama_matrix_name(const struct skf_llama *l, uint32_t k, char name[64]);
uint32_t skf_llama_number(const struct skf_llama *l, uint32_t layer, const struct skf_weight *w); /* of one of that layer's, or the output */

/* Packs the matrices that are worth it (skf_sparse_least), or what SKF_SPARSE says: off none, on all. Results stay the same to the bit. Once,
 * before anything is computed. */
SKF_MUST enum skf_err skf_llama_pack(struct skf_llama *l, const struct skf_source *src, enum skf_isa isa, unsigned threads,
                                     struct skf_why *why);
void skf_llama_packed(const struct skf_llama *l, struct skf_engine_packed *out);
void skf_llama_unpack(struct skf_llama *l); /* frees what was packed; of one that was not, nothing */

/* A matrix of the source as segments of whole rows; only a row that the source breaks in two is copied. For tests too. */
struct skf_kept {
    struct skf_kept *next;
    max_align_t data[];
};
SKF_MUST enum skf_err skf_weight_resolve(const struct skf_source *src, const struct skf_tensor *t, struct skf_kept **kept,
                                         struct skf_weight *w, struct skf_why *why);
/* Tells the source that the rows are idle: they stay, for whoever looks one up, but memory need not hold them. */
void skf_weight_idle(const struct skf_source *src, const struct skf_weight *w);
void skf_kept_free(struct skf_kept *kept);

#endif
