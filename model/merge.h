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
SKF_MUST enum skf_err skf_merge(const char *base_path, const char *adapter_path, const char *out_path, unsigned jobs,
                                const struct skf_progress *progress, struct skf_merge_stats *stats,
                                struct skf_why *why);

#endif
