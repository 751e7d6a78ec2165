/*
 * A low-rank guess at a chunk's change: element (i, j) of its rows moves by unit * sum over k of u[i][k] * v[k][j].
 *
 * Fine-tuning moves an embedding (and little else) almost by a few factors.  They are small integers found when the
 * delta is made: v for a tensor, in its side; u with each chunk.  All sums of their products stay below 2^18 and the
 * unit is a number of five bits times a power of two, so that float32 holds every guess exactly and every machine
 * guesses the same to the bit.
 */
#ifndef SKF_DELTA_FACTOR_PRIV_H
#define SKF_DELTA_FACTOR_PRIV_H

#include "delta/float_priv.h"
#include "delta/rans_priv.h"

#define SKF_RANK_MAX       16
#define SKF_FACTOR_COLUMNS 8192 /* at most */
#define SKF_FACTOR_ROWS    16   /* at least */
#define SKF_SHIFT_MAX      60   /* either way: guesses stay finite float32 numbers */
#define SKF_UNIT_MIN       16   /* the unit is SKF_UNIT_MIN to twice that, times 2^shift */

/* Bits that each element saves where the energy of its change is halved: of floats, and of codes of blocks, most of
 * which stay. */
#define SKF_GAIN_FLOATS 0.25
#define SKF_GAIN_BLOCKS 0.22

/* How a row changed, as numbers; what is not finite as 0. */
typedef enum skf_err skf_row_fn(void *ctx, uint64_t row, float *out);

/* ---- the side of a tensor ---------------------------------------------------------------------------------------- */
/* Whether a matrix of this shape may have factors. */
bool skf_factors_fit(uint64_t rows, uint64_t columns);
/* Appends the side of a tensor whose rows change by a few factors; nothing when it would not pay: when halving what is
 * left saves `gain` bits an element. */
SKF_MUST enum skf_err skf_factors_find(struct skf_work *w, uint64_t rows, uint32_t columns, double gain,
                                       skf_row_fn *row, void *ctx, struct skf_buf *out);

/* ---- a chunk's guess --------------------------------------------------------------------------------------------- */
struct skf_factors {
    uint32_t rows, columns; /* the last row may be short of what it stands for */
    const uint8_t *side;    /* side_n bytes; NULL, 0: no guess */
    size_t side_n;
    unsigned rank; /* 0: no guess */
    unsigned unit; /* SKF_UNIT_MIN.. */
    int shift;
    int8_t *u;      /* rank numbers a row */
    const float *v; /* rank rows of `columns` */
    const int8_t *packed; /* the same for loops->guess_packed, where there is one, */
    int32_t *base;        /* and what it begins with; otherwise NULL */
    float *guess;   /* of one row */
    const struct skf_loops *loops;
};
/* Adds row i to what a count comes to when it is guessed by f (rank 0: when it is not). */
typedef void skf_trial_fn(void *ctx, const struct skf_factors *f, uint32_t i);
/* How to choose: what halving the energy of what is left saves each element, in bits; or, where `add` is not NULL, by
 * trial. */
struct skf_choice {
    double gain;
    skf_row_fn *row;
    skf_trial_fn *add;
    double (*bits)(void *ctx); /* what all that was added comes to; begins anew */
    void *ctx;
};
/* Chooses rank, unit and u for the chunk's rows. rows, columns, side and side_n are set by the caller, here and below.
 */
SKF_MUST enum skf_err skf_factors_choose(struct skf_work *w, struct skf_factors *f, const struct skf_choice *c);
/* Nothing is written or read where there is no side, or the chunk's shape has no factors. */
SKF_MUST enum skf_err skf_factors_put(struct skf_work *w, const struct skf_factors *f, struct skf_buf *out);
SKF_MUST enum skf_err skf_factors_get(struct skf_work *w, struct skf_reader *r, struct skf_factors *f);
/* The guess for row i, in f->guess. */
void skf_factors_row(const struct skf_factors *f, uint32_t i);
float skf_factors_unit(const struct skf_factors *f);

#endif
