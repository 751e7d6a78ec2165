/*
 * A low-rank guess at a chunk's change: element (i, j) of its rows moves by 2^shift * sum over k of u[i][k] * v[k][j].
 *
 * Fine-tuning moves an embedding (and little else) almost by a few factors.  They are small integers found when the delta is
 * made and sent with the chunk, so that every machine guesses the same to the bit.
 */
#ifndef SKF_DELTA_FACTOR_PRIV_H
#define SKF_DELTA_FACTOR_PRIV_H

#include "delta/rans_priv.h"

#define SKF_RANK_MAX 8
#define SKF_FACTOR_COLUMNS 8192 /* at most */
#define SKF_FACTOR_ROWS 16      /* at least */
#define SKF_SHIFT_MAX 60        /* either way: guesses stay finite float32 numbers */

struct skf_factors {
    uint32_t rows, columns; /* the last row may be short of what it stands for */
    unsigned rank;          /* 0: no guess */
    int shift;
    int8_t *u, *v;          /* in w->factor */
    int32_t *sum;           /* of one row, likewise */
};
/* Whether a chunk of this shape may have factors. */
bool skf_factors_fit(uint64_t rows, uint64_t columns);

/* How a row of the chunk changed, as numbers; what is not finite as 0. */
typedef void skf_row_fn(const void *ctx, uint32_t row, float *out);
/* Finds up to `most` factors; each must earn `gain` bits an element for halving what is left, more than it costs. */
SKF_MUST enum skf_err skf_factors_find(struct skf_work *w, struct skf_factors *f, skf_row_fn *row, const void *ctx,
                                       unsigned most, double gain);
SKF_MUST enum skf_err skf_factors_put(struct skf_work *w, const struct skf_factors *f, struct skf_buf *out);
/* rows and columns are set by the caller; `most`: the highest rank that is taken. */
SKF_MUST enum skf_err skf_factors_get(struct skf_work *w, struct skf_reader *r, struct skf_factors *f, unsigned most);
/* The guess for row i, in f->sum, in units of 2^shift. */
void skf_factors_row(const struct skf_factors *f, uint32_t i);
float skf_factors_unit(const struct skf_factors *f); /* 2^shift */

#endif
