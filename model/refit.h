/*
 * New weights on the grid that an old version's blocks have, so that what a matrix makes of known inputs comes out as the new
 * weights', and little of the old bytes changes.
 *
 * A row's error is (w - x)^T H (w - x), H the mean of v v^T over inputs v of the matrix: what the change does to outputs, not to weights.
 * From the old row the one change is made that takes most off `error + price * bits`: a code one up or down, or a block's scale, its
 * minimum or both to the halves that fit best; again and again, until no change is worth its bits.  (Greedy coordinate descent, which
 * is orthogonal matching pursuit on a grid; the feedback of errors is that of GPTQ, Frantar et al. 2022.)  With a price of nothing this
 * is the best fit that single changes reach.
 *
 * What a grid and a price cannot express is missing from every row, and layers that each fall short fall short together: the whole model
 * stays nearer to the old one than the rows' errors say.  So a row may reach further: where the share e of its error is left, it
 * is fitted on to old + (new - old) / (1 - e), at most `reach` times the way.
 *
 * float32 and double in a fixed order throughout: the same on every machine.
 */
#ifndef SKF_MODEL_REFIT_H
#define SKF_MODEL_REFIT_H

#include "model/tensor.h"

#define SKF_REFIT_BLOCK   32u
#define SKF_REFIT_COLUMNS 16384u /* no wider matrix */
#define SKF_REFIT_ROWS    4u     /* at once */

struct skf_refit {
    enum skf_type type;
    uint32_t columns;              /* of a row: whole blocks */
    const float *inputs;           /* H, [columns][columns], symmetric, with a positive diagonal */
    float price;                   /* what a bit must take off the error */
    float code_bits, scale_bits;   /* what the first change of a code, and of a scale or minimum (its size apart), costs */
    float reach;                   /* 1: no further than what is wanted */
    bool is_code_fixed, is_scale_fixed;
};
struct skf_refit_result { /* of a row */
    double before, after;   /* the error */
    double saved;           /* what came off it before the row reached further */
    uint32_t codes, scales; /* that differ from the old row's */
};

/* Whether rows of this type can be fitted: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. */
bool is_refit_type(enum skf_type t);

/* Working memory of one thread, for rows of up to `columns`. */
struct skf_refit_work;
SKF_MUST enum skf_err skf_refit_work_new(uint32_t columns, struct skf_refit_work **w);
void skf_refit_work_free(struct skf_refit_work *w); /* NULL is fine */

/* Fits n <= SKF_REFIT_ROWS rows, row_bytes apart, from what they are to `want` ([n][columns]). SKF_ERR_FORMAT when a scale or a wanted value is not
 * finite, SKF_ERR_UNSUPPORTED for other types; the rows are then undefined. */
SKF_MUST enum skf_err skf_refit_rows(const struct skf_refit *f, struct skf_refit_work *w, uint8_t *rows, uint64_t row_bytes,
                                     const float *want, uint32_t n, struct skf_refit_result *results);

#endif
