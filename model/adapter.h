/*
 * A LoRA adapter in GGUF (llama.cpp's layout) beside the base that it is for, and the one arithmetic by which it changes rows.
 *
 * A changed row is base + scale * (b A): b the rank numbers of that row, A [rank][inputs], every sum in the order of the ranks and each
 * step rounded to float32, so that it is the same on every machine.
 */
#ifndef SKF_MODEL_ADAPTER_H
#define SKF_MODEL_ADAPTER_H

#include "base/digest.h"
#include "model/model.h"

struct skf_adapter; /* immutable once opened; any thread may read it */

/* Opens the adapter and checks that all of it has its place in `base` (which must outlive it): SKF_ERR_ARG when it is for another model,
 * SKF_ERR_UNSUPPORTED for a base type that cannot be written (K-quants) or for what is no LoRA in GGUF, SKF_ERR_FORMAT for a damaged
 * file. */
SKF_MUST enum skf_err skf_adapter_open(const char *path, const struct skf_model *base, const char *base_path,
                                       struct skf_adapter **a, struct skf_why *why);
/* The same for computing beside the base instead of writing: the base's tensors may have any type. */
SKF_MUST enum skf_err skf_adapter_open_beside(const char *path, const struct skf_model *base, const char *base_path,
                                              struct skf_adapter **a, struct skf_why *why);
void skf_adapter_close(struct skf_adapter *a); /* NULL is fine */
/* SHA-256 of the file. */
SKF_MUST enum skf_err skf_adapter_digest(const struct skf_adapter *a, uint8_t digest[SKF_DIGEST], struct skf_why *why);

struct skf_low_rank { /* what the adapter does to one tensor */
    const struct skf_tensor *base, *rows, *columns; /* of the base; of the adapter: B [outputs][rank], A [rank][inputs] */
    bool is_flipped;                                /* A lies as [inputs][rank] */
    uint64_t rank, inputs, outputs;
    float scale; /* alpha / rank */
};
/* rank 0 when the adapter does not name the tensor. SKF_ERR_ARG when a shape does not fit. */
SKF_MUST enum skf_err skf_adapter_find(const struct skf_adapter *a, const struct skf_tensor *base, struct skf_low_rank *l,
                                       struct skf_why *why);
/* A, and `count` rows of B from `first`, as float32 into memory of that many numbers. SKF_ERR_FORMAT for numbers that are not finite (or
 * over 1e30). */
SKF_MUST enum skf_err skf_adapter_columns(const struct skf_adapter *a, const struct skf_low_rank *l, float *x,
                                          struct skf_why *why);
SKF_MUST enum skf_err skf_adapter_rows(const struct skf_adapter *a, const struct skf_low_rank *l, uint64_t first,
                                       uint64_t count, float *x, struct skf_why *why);

/* change[inputs] = scale * (b[rank] A[rank][inputs]). */
void skf_low_rank_row(const float *b, const float *a, uint64_t rank, uint64_t inputs, float scale, float *change);
/* A row of the base (of a type that grid.h writes) with its change, as `skiff merge` writes it. `work`: 2 * inputs floats. SKF_ERR_FORMAT
 * when something is not finite; the row is then undefined. */
SKF_MUST enum skf_err skf_low_rank_merge(enum skf_type t, uint8_t *row, const float *b, const float *a, uint64_t rank,
                                         uint64_t inputs, float scale, float *work);

#endif
