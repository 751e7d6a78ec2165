/*
 * A LoRA adapter in GGUF (llama.cpp's layout) merged into a base, written in the base's own tensor types, the same bytes on
 * every machine.
 */
#ifndef SKF_MODEL_MERGE_H
#define SKF_MODEL_MERGE_H

#include "base/util.h"

struct skf_merge_stats {
    uint64_t tensors_merged, tensors_copied, bytes;
    double seconds;
};
/* Writes base + alpha / rank * B A to `out_path`, whole or not at all (it may be the base's own path): the base's bytes with
 * the rows of the merged tensors rewritten in place, so head, metadata, order and padding are the base's. Float types take the
 * nearest value; quantized rows keep their grid and carry the rounding error along the row (model/grid.h), which keeps what
 * plain rounding loses. `jobs` 0 means one a processor; the bytes do not depend on it. `progress` may be NULL.
 *
 * Every tensor of the adapter must have its counterpart and a base tensor of a fitting shape: SKF_ERR_ARG when it is for
 * another model, SKF_ERR_UNSUPPORTED for a base type that cannot be written (K-quants) or for what is no LoRA in GGUF,
 * SKF_ERR_FORMAT for a damaged file or values that are not finite. `stats` is filled as far as the work went. */
SKF_MUST enum skf_err skf_merge(const char *base_path, const char *adapter_path, const char *out_path, unsigned jobs,
                                const struct skf_progress *progress, struct skf_merge_stats *stats,
                                struct skf_why *why);

#endif
