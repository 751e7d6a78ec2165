/*
 * Calibration: new weights written on the old version's grid so that what matters on a text is kept, in as few bytes as can be.
 *
 *  1. The base runs on the text, and H, the mean of x x^T over the inputs x of each matrix, is gathered (calibrate_inputs.c).
 *  2. Every row is fitted to its new weights with a price near nothing (calibrate_fit.c, model/refit.h): nearly all that the grid can take.
 *  3. Each role (attn_q, attn_v, ...) goes back to the base in turn, and the change of the text's log-probabilities says what an error
 *     there is worth (calibrate_weigh.c); H is gathered anew on the fitted model.
 *  4. The price of a bit is searched (calibrate.c) by the exact size of the delta, so that the update is the best in so many
 *     bytes or the smallest for so much of the gain.
 *
 * The result has the base's head, types and order.  It depends on the files and the text alone: not on threads or instruction set.
 *
 * Memory: the result and the H of all matrices (4 n^2 bytes for n inputs) lie in scratch files beside the output; beyond those, the engine
 * and some 100 bytes a column and thread.
 */
#ifndef SKF_CLI_CALIBRATE_H
#define SKF_CLI_CALIBRATE_H

#include "base/json.h"
#include "base/util.h"
#include "cli/quality.h"
#include "cli/scratch.h"
#include "model/model.h"
#include "model/refit.h"

/* What the new weights are. */
struct calibrate_new {
    void *ctx;
    /* Whether this tensor of the base has new weights; refuses what cannot be. */
    enum skf_err (*has)(void *ctx, const struct skf_tensor *base, bool *is_new, struct skf_why *why);
    /* `count` of its rows from `first`, as float32. From any number of threads, but of one tensor at a time. */
    enum skf_err (*rows)(void *ctx, const struct skf_tensor *base, uint64_t first, uint64_t count, float *x, struct skf_why *why);
    /* The new version unquantized, ready to run; opened when quality is first asked for, and the caller's to close. */
    enum skf_err (*target)(void *ctx, const struct skf_model **m, struct skf_why *why);
};
struct calibrate_ask {
    const char *base, *out, *calibrate; /* paths */
    const char *text;                   /* quality is measured on it; NULL: `calibrate` serves where quality is asked for */
    uint64_t bytes;                     /* the delta's most; 0: no bound */
    double gain;                        /* share of the gain that must be kept; 0: no bound */
    unsigned jobs;
    struct skf_progress progress;
};
/* Writes the result to ask->out, whole or not at all, and what came of it to `report`. */
SKF_MUST enum skf_err skf_calibrate(const struct calibrate_ask *ask, const struct calibrate_new *neu, skf_json *report,
                                    struct skf_why *why);

/* ---- between the files of calibrate*.c ---------------------------------------------------------------------------------------- */
#define CALIBRATE_WINDOW 512u
#define CALIBRATE_TOKENS 16384u /* of the text; more does not help */
#define CALIBRATE_NONE   UINT32_MAX

struct calibrate_tensor {
    const struct skf_tensor *base;
    char role[64];    /* blk.*.attn_q.weight */
    uint32_t input;   /* of `inputs` */
    bool is_fitted;   /* otherwise of a float type, and written once */
    double weight;    /* of a squared error of its outputs */
    double before, after;
    uint64_t codes, scales;
};
struct calibrate_input { /* what some matrices are multiplied with */
    uint32_t columns;
    bool is_used, is_same; /* by a tensor that is fitted; all count the same */
    float *sum; /* [columns][columns] in the scratch file; after gathering the mean, damped */
};
struct calibrate {
    const struct calibrate_ask *ask;
    const struct calibrate_new *neu;
    struct skf_model *base, *made;      /* `made` over `image` */
    struct skf_scratch image, inputs_at;
    struct calibrate_tensor *tensors;
    size_t n_tensors;
    struct calibrate_input *inputs;
    uint32_t n_inputs;
    uint32_t *calls, n_calls;           /* what each call of a portion brings: an input, CALIBRATE_NONE for that of the call before */
    int32_t *ids;                       /* windows of `window` tokens */
    uint32_t window, n_windows;
    uint64_t work, all_work;            /* for the progress: steps done, and expected */
};
struct calibrate_price {
    float bit;           /* what a bit must take off the weighed error, of which all tensors' is 1 before */
    bool is_code_fixed, is_scale_fixed; /* both: the errors are found, and nothing changes */
};

/* The text as windows, the tensors, their inputs (not gathered). */
SKF_MUST enum skf_err calibrate_open(struct calibrate *c, struct skf_why *why);
void calibrate_close(struct calibrate *c);
/* Gathers H on the made model. */
SKF_MUST enum skf_err calibrate_gather(struct calibrate *c, struct skf_why *why);
/* Makes the image at this price: every tensor from the base's rows. Equal for any number of threads. */
SKF_MUST enum skf_err calibrate_fit(struct calibrate *c, const struct calibrate_price *p, struct skf_why *why);
/* Sets the tensors' weights so that their errors before sum to 1: by what the image's roles are worth on the text. */
SKF_MUST enum skf_err calibrate_weigh(struct calibrate *c, struct skf_why *why);
/* One more step of the progress; SKF_ERR_CANCELLED. */
SKF_MUST enum skf_err calibrate_tell(struct calibrate *c, uint64_t steps, struct skf_why *why);
double calibrate_error(const struct calibrate *c); /* weighed, of the image */

#endif
