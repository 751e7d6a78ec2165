/*
 * skiff quantize --base, between its files: the old version, the new one, and candidates between them.
 *
 * A candidate is what a plain quantization of the new weights makes (its head, its types, its order), with every tensor that the
 * old version has in the same type and shape written over the old one's (model/regrid.h, model/lossy.h).  One lives at a time, in
 * a file without a name beside the output, mapped; its bytes are those of the exact delta from the base, its quality is measured
 * by the engine on that mapping.
 */
#ifndef SKF_CLI_REQUANTIZE_PRIV_H
#define SKF_CLI_REQUANTIZE_PRIV_H

#include "cli/quality.h"
#include "cli/quantize.h"
#include "cli/scratch.h"
#include "model/lossy.h"
#include "model/model.h"

enum requant_method { REQUANT_SAMPLE, REQUANT_UNIFORM, REQUANT_SIGN, REQUANT_TOPK, REQUANT_LOWRANK };

/* How coarse: of matrices and of the embedding, which bears the most and is the largest. 0 is as fine as the type. */
#define REQUANT_LEVELS 14
#define REQUANT_ALONE REQUANT_LEVELS /* not changed at all */
struct requant_try {
    unsigned matrices, embedding;
    uint64_t bytes;    /* of the delta from the base; 0: not built */
    double perplexity; /* 0: not measured */
};

struct requant_tensor {
    const struct skf_tensor *out, *in, *base; /* in the plain file, the new weights, the old version */
    bool is_embedding, is_drifted;
    float moved; /* share of the codes that lie in another cell now */
    struct skf_lossy_stats stats;
    struct skf_lossy how; /* of the candidate in the making */
    float *factors;       /* way of the first factors: RANK_MOST rows */
};
struct requant_piece { /* what one task makes */
    uint32_t tensor;
    uint64_t row, rows;
};

enum { REQUANT_TRIES = 256 };
struct requant {
    const struct quantize_args *a;
    struct skf_model *in, *base, *plain, *made;
    enum requant_method method;
    bool is_lossy; /* the matrices are floats */
    struct requant_tensor *tensors;
    size_t n_tensors;
    struct requant_piece *pieces;
    size_t n_pieces;
    struct skf_scratch scratch;
    uint8_t *map;
    uint64_t size;
    struct skf_quality *quality;
    double perplexity, base_perplexity, goal; /* of the plain file; for --gain (otherwise 0) of the base, and what the change would reach */
    struct requant_try tries[REQUANT_TRIES], now;
    size_t n_tries;
    bool has_now; /* the mapping holds `now` */
};

/* Opens everything and measures the plain file and, for --gain, the base. */
SKF_MUST enum skf_err requant_open(struct requant *r, const struct quantize_args *a, struct skf_why *why);
void requant_close(struct requant *r);
bool has_drifted(const struct requant *r); /* some matrices are the base's own values and small changes */
/* The candidate of these levels, made, with its bytes and, if asked for, its perplexity. */
SKF_MUST enum skf_err requant_try(struct requant *r, unsigned matrices, unsigned embedding, bool is_measured,
                                  struct requant_try *t, struct skf_why *why);
/* Writes the candidate to the output, whole or not at all. */
SKF_MUST enum skf_err requant_write(struct requant *r, const struct requant_try *t, struct skf_why *why);
/* The fewest bytes within the bound of perplexity; the best quality within the bytes. SKF_ERR_REFUSED, with the figure, when there is
 * none. */
SKF_MUST enum skf_err requant_fewest(struct requant *r, double bound, struct requant_try *best, struct skf_why *why);
SKF_MUST enum skf_err requant_best(struct requant *r, uint64_t bytes, struct requant_try *best, struct skf_why *why);

#endif
