/*
 * The forward pass: tokens of any sequences, at any positions, computed together; the logits of those that are asked for.
 *
 * A token's logits depend on its sequence alone: not on what else is in the batch, how a prompt was cut, the number of threads or
 * the instruction set (kernels/kernels.h), bit for bit.
 */
#ifndef SKF_RUNTIME_GRAPH_PRIV_H
#define SKF_RUNTIME_GRAPH_PRIV_H

#include "runtime/kv_priv.h"
#include "runtime/llama_priv.h"
#include "runtime/lora_priv.h"
#include "runtime/pool_priv.h"

struct skf_item {
    int32_t token;
    uint32_t pos; /* below the graph's context; all positions before it were computed, in this batch or earlier */
    struct skf_kv *kv; /* skf_kv_place has made place for it */
    const struct skf_lora *lora; /* changes what it is multiplied with; NULL: nothing does */
};

struct skf_graph;
/* All must outlive the graph. */
SKF_MUST enum skf_err skf_graph_open(const struct skf_llama *l, const struct skf_ops *ops, struct skf_pool *pool,
                                     uint32_t max_batch, uint32_t context, struct skf_graph **g, struct skf_why *why);
void skf_graph_close(struct skf_graph *g); /* NULL is fine */

/* Computes m <= max_batch items; logits[i * n_vocab ..] for item want[i], i < n_want. */
SKF_MUST enum skf_err skf_graph_run(struct skf_graph *g, const struct skf_item *items, uint32_t m, const uint32_t *want,
                                    uint32_t n_want, float *logits, struct skf_why *why);

/* Told of what matrices are multiplied with, x[m][n] as float32 before it is quantized, in the order of the graph; several matrices
 * may take the same x in turn. Says whether the products are wanted too: without them what follows computes with what was there. */
struct skf_graph_watch {
    bool (*fn)(void *ctx, const struct skf_weight *w, const float *x, uint32_t m, uint32_t n);
    void *ctx;
};
void skf_graph_watch(struct skf_graph *g, const struct skf_graph_watch *watch); /* kept by reference; NULL: nobody */

#endif
