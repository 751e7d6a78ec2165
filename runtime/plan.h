/*
 * The forward pass as a list of operators over buffers, laid out before anything is computed: buffers that are never needed at the same time
 * share memory, and running a model allocates none.
 *
 * The list is one table (plan.c), which the graph (graph.c) follows; lifetimes are read off it.  Buffers are placed largest first, each at the
 * lowest place where none lies that lives with it (Pisarchyk and Lee 2020, "greedy by size").
 */
#ifndef SKF_RUNTIME_PLAN_H
#define SKF_RUNTIME_PLAN_H

#include "base/util.h"
#include "model/model.h"

enum skf_plan_buf_id {
    SKF_PLAN_X,      /* the stream: [tokens][embedding] */
    SKF_PLAN_NORMED, /* what a product takes */
    SKF_PLAN_ACTS,   /* the same, quantized (kernels.h, skf_acts) */
    SKF_PLAN_Q,
    SKF_PLAN_K,
    SKF_PLAN_V,
    SKF_PLAN_HEADS, /* what attention gives */
    SKF_PLAN_OUT,   /* what a block adds to the stream */
    SKF_PLAN_GATE,
    SKF_PLAN_UP,
    SKF_PLAN_BUFS
};
struct skf_plan_op {
    const char *name;
    bool is_layer;          /* one of each layer's; otherwise once */
    uint32_t reads, writes; /* bit 1 << id a buffer; one that is read and written is changed in place */
};
struct skf_plan_buf {
    const char *name;
    uint64_t bytes, at; /* at: from the beginning of all, a multiple of 64 */
    uint32_t live;      /* bit i: operator i needs what is in it, or makes it */
};
struct skf_plan {
    uint32_t tokens, layers, n_ops;
    const struct skf_plan_op *ops; /* lasts for ever */
    struct skf_plan_buf buf[SKF_PLAN_BUFS];
    uint64_t bytes, bytes_apart; /* of all; if each had memory of its own */
};
/* What the forward pass of a model over so many tokens at once is. Reads the model's head, not its weights. Errors as opening an engine. */
SKF_MUST enum skf_err skf_plan_of_model(const struct skf_model *m, uint32_t tokens, struct skf_plan *p, struct skf_why *why);

#endif
