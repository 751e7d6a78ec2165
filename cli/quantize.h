/*
 * skiff quantize, between its files: what was asked, and the ways of doing it.
 *
 * The quantizer itself lives in model/; the searches that need a running model (budgets, calibration) live here.
 */
#ifndef SKF_CLI_QUANTIZE_H
#define SKF_CLI_QUANTIZE_H

#include "base/json.h"
#include "base/util.h"
#include "model/quantize.h"
#include "model/tensor.h"

struct quantize_args {
    const char *in, *out;
    enum skf_type type;    /* wanted for matrices */
    bool has_type;         /* --type was given; with a base it need not be: its types are taken */
    const char *base;      /* the old version, on whose grid the new one is written; NULL: a plain quantization */
    const char *calibrate; /* text the model is run on to weigh errors; NULL: none */
    const char *text;      /* text on which quality is measured (--text); NULL: `calibrate` serves */
    double budget;         /* the perplexity on `text` may exceed the plain quantization's by this share (0.002); negative: none */
    uint64_t bytes;        /* the delta from `base` must not be larger; 0: no such bound */
    double gain;           /* this share of the change's gain must be kept (0.9); 0: no such bound */
    const char *method;    /* of a lossy float version: uniform, sign, topk, lowrank; NULL: the best */
    uint64_t seed;         /* of stochastic rounding */
    unsigned jobs;
    bool is_json;
    struct skf_progress progress;
    /* Of a plain quantization. */
    const struct skf_quantize_kind *kind, *embedding, *output; /* --type, --embedding-type, --output-type */
    const struct skf_quantize_rule *rules;                     /* --tensor-type and --keep */
    size_t n_rules;
    const char *imatrix;            /* file of an importance matrix */
    const char *save_imatrix;       /* where that of `calibrate` goes; NULL: nowhere */
    const struct skf_prune *prune;  /* NULL: none */
    const char *observer;           /* minmax, average: record the activations' scales; NULL: do not */
    bool is_plan;                   /* only tell */
};

/* What a text shows of the inputs of matrices (observe.c). */
struct quantize_seen {
    struct skf_imatrix *imatrix;
    struct seen_range *ranges; /* one a matrix */
    size_t n_ranges, cap_ranges;
    size_t tokens;
    bool is_cut; /* the text has more, which is not used */
};
struct seen_range {
    char name[64];
    float most, average; /* of |x|: over everything, and a moving average of each portion's */
};

/* Each fills `report` (an object it may add to, printed by the verb) and writes args->out whole or not at all. */

/* --base without --calibrate: the new weights on the old grid, within budget or bytes (requantize.c). */
SKF_MUST enum skf_err skf_cli_requantize(const struct quantize_args *a, skf_json *report, struct skf_why *why);
/* --base with --calibrate (calibrate.c). */
SKF_MUST enum skf_err skf_cli_quantize_calibrated(const struct quantize_args *a, skf_json *report, struct skf_why *why);
/* Without --base (quantize_plain.c). */
SKF_MUST enum skf_err skf_cli_quantize_plain(const struct quantize_args *a, skf_json *report, struct skf_why *why);

/* Runs the model on the text of `path` (its first 262,144 tokens), in windows of 512 tokens, and gathers what its matrices are multiplied with. */
SKF_MUST enum skf_err skf_cli_observe(const struct skf_model *m, const char *name, const char *path, unsigned jobs,
                                      const struct skf_progress *progress, struct quantize_seen *seen, struct skf_why *why);
void skf_cli_seen_free(struct quantize_seen *seen); /* a zeroed one is fine */

#endif
