/*
 * A GGUF file written anew with its matrices in other types: which tensor becomes what (the plan), and the writing of it.
 *
 * Matrices are what llama.cpp quantizes: tensors of two or more dimensions whose name ends in "weight", but for norms, routers and
 * other small ones; everything else keeps its bytes.  Metadata is the source's, with general.file_type and, where the result
 * is quantized, general.quantization_version.
 */
#ifndef SKF_MODEL_QUANTIZE_H
#define SKF_MODEL_QUANTIZE_H

#include "base/util.h"
#include "model/imatrix.h"
#include "model/model.h"
#include "model/prune.h"

/* What a file or tensor can be asked to become. */
enum skf_mix { SKF_MIX_NONE, SKF_MIX_SMALL, SKF_MIX_MEDIUM };
struct skf_quantize_kind {
    const char *name;   /* "q4_1", "q4_k_m", "int8" */
    enum skf_type type;
    uint32_t file_type; /* general.file_type */
    enum skf_mix mix;   /* more bits for the values and the down projections of some layers, as llama.cpp gives them */
    bool is_row_scaled; /* int8: Q8_0 whose blocks of a row share one scale, codes -127..127 */
};
/* NULL when there is none of that name (in any case). */
const struct skf_quantize_kind *skf_quantize_kind(const char *name);

struct skf_quantize_rule {
    const char *pattern; /* of tensor names; * stands for any characters, ? for one */
    const struct skf_quantize_kind *kind; /* NULL: keep as it is */
};

struct skf_quantize_opts {
    const struct skf_quantize_kind *kind;
    const struct skf_quantize_kind *embedding, *output; /* token_embd.weight, output.weight; NULL: as llama.cpp, see below */
    const struct skf_quantize_rule *rules; /* for matrices: the last that matches counts, before everything above */
    size_t n_rules;
    struct skf_imatrix *imatrix;       /* NULL: none */
    const struct skf_prune *prune;     /* of matrices but the embedding and the output; NULL: none */
    const struct skf_gguf_kv *extra;   /* metadata to add */
    size_t n_extra;
    unsigned jobs; /* 0: one a processor; the bytes do not depend on it */
    const struct skf_progress *progress;
};

struct skf_quantize_line { /* a tensor */
    const struct skf_tensor *from;
    enum skf_type type;
    uint64_t bytes;
    bool is_row_scaled, is_pruned;
    bool is_fallback;    /* its rows are no whole blocks of the type it should have had */
    bool is_requantized; /* from a quantized type: errors add up */
    const float *importance; /* dims[0] values for each of its matrices; NULL: none */
};
struct skf_quantize_plan {
    struct skf_quantize_line *lines; /* in the order of the file's directory */
    size_t n;
    uint64_t bytes; /* of all tensors */
    size_t n_changed, n_fallback, n_requantized, n_weighed;
};

/* Decides. The output matrix (the embedding where there is none) becomes Q6_K when the file's type is a K-quant, otherwise Q8_0;
 * plain types spare nothing. Rows that are no whole blocks: K-quants fall back to Q5_1, Q5_0, Q8_0 or Q4_0 as in llama.cpp, and
 * where that does not fit either, to F16.
 * SKF_ERR_ARG: a rule that matches nothing, an importance matrix of another model; SKF_ERR_UNSUPPORTED: no GGUF file or a part of one,
 * a type that cannot be read. `name` is for error lines; `m` and the options must outlive the plan. */
SKF_MUST enum skf_err skf_quantize_plan(const struct skf_model *m, const char *name, const struct skf_quantize_opts *o,
                                        struct skf_quantize_plan *plan, struct skf_why *why);
void skf_quantize_plan_free(struct skf_quantize_plan *p); /* a zeroed one is fine */

struct skf_quantize_stats {
    uint64_t pruned, zeroed; /* elements of pruned matrices, and how many of them are zero now */
    double seconds;
};
/* Writes it, whole or not at all, in bounded memory. SKF_ERR_FORMAT names the tensor and place of a value that is not finite or too
 * large for its type. */
SKF_MUST enum skf_err skf_quantize_write(const struct skf_model *m, const char *name, const struct skf_quantize_plan *plan,
                                         const struct skf_quantize_opts *o, const char *out_path,
                                         struct skf_quantize_stats *stats, struct skf_why *why);

#endif
