/*
 * Low-rank adapters (Hu et al. 2021) beside a model that stays as it is: a product's y = W x becomes W x + B (scale * (A x)), for the tokens of those
 * sequences that ask for it.  Different sequences of one batch may use different adapters.
 *
 * A and B are float32 whatever the file has.  A x is a float product in the order of kernels.h; B u is summed in the order of the ranks, each product and
 * each sum rounded, and added at last; each token by itself.  So results do not depend on the batch, threads or the instruction set.  They are not those of the merged model to the bit, since W x
 * quantizes x and A x does not; they are nearer to the model as the adapter was trained.
 */
#ifndef SKF_RUNTIME_LORA_PRIV_H
#define SKF_RUNTIME_LORA_PRIV_H

#include <stdatomic.h>

#include "base/digest.h"
#include "kernels/kernels.h"
#include "model/model.h"

#define SKF_LORA_RANK  256u /* the most */
#define SKF_LORA_BYTES ((uint64_t)512 << 20) /* of all adapters of an engine, as float32 */

struct skf_llama;
struct skf_lora_pair { /* what changes one matrix; rank 0: nothing does */
    uint32_t rank, rows;
    float scale;
    float *data; /* A [rank][cols], then B across: [rank][rows] */
    struct skf_weight a;
    struct skf_rows a_rows;
};
/* Immutable once it is loaded, but for who holds it. */
struct skf_lora {
    atomic_uint refs;
    uint8_t digest[SKF_DIGEST]; /* of the file */
    uint64_t bytes;             /* of memory */
    uint32_t n;
    struct skf_lora_pair pairs[]; /* by the number of the matrix: skf_llama_matrix */
};

/* Reads an adapter of the model that l was loaded from, in at most `most` bytes of memory. SKF_ERR_ARG when it is for another model, SKF_ERR_UNSUPPORTED for what
 * is no LoRA in GGUF or changes a tensor that is no matrix of a product (the embedding), SKF_ERR_LIMIT for a rank over SKF_LORA_RANK or when it is too large,
 * SKF_ERR_FORMAT for a damaged file. `why` names the file. */
SKF_MUST enum skf_err skf_lora_load(const char *path, const struct skf_model *m, struct skf_llama *l, uint64_t most, struct skf_lora **lora,
                                    struct skf_why *why);
struct skf_lora *skf_lora_hold(struct skf_lora *lora); /* once more; any thread */
void skf_lora_free(struct skf_lora *lora); /* lets go; the last one frees it. NULL is fine */

/* u[rank] = scale * (A x[cols]). */
void skf_lora_down(const struct skf_ops *ops, const struct skf_lora_pair *p, const float *x, float *u);
/* y[r] += B u for row0 <= r < row1 of all rows; cutting them changes nothing. */
void skf_lora_up(const struct skf_lora_pair *p, const float *u, uint32_t row0, uint32_t row1, float *y);

#endif
