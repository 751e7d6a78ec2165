/*
 * Attention of a batch: which rows, heads and spans are computed together, and by whom.  What comes out depends on none of it
 * (kernels/kernels.h).
 */
#ifndef SKF_RUNTIME_ATTEND_PRIV_H
#define SKF_RUNTIME_ATTEND_PRIV_H

#include "runtime/kv_priv.h"
#include "runtime/llama_priv.h"
#include "runtime/pool_priv.h"

struct skf_item;
struct skf_attend;
SKF_MUST enum skf_err skf_attend_open(const struct skf_llama *l, const struct skf_ops *ops, struct skf_pool *pool, uint32_t max_batch,
                                      uint32_t context, struct skf_attend **a, struct skf_why *why);
void skf_attend_close(struct skf_attend *a); /* NULL is fine */
/* out[m][n_head][head_dim] of the queries q of the same shape, in a layer whose keys and values are stored. */
void skf_attend(struct skf_attend *a, const struct skf_item *items, uint32_t m, uint32_t layer, const float *q, float *out);

#endif
