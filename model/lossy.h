/*
 * Lossy versions: the change from one version's tensor to the next in fewer bits, as values that the new version then has.
 *
 * Ways: sampling (regrid.h), and those of the literature: a uniform quantizer of the change, its sign and one size for all, its
 * largest elements, its first factors.
 */
#ifndef SKF_MODEL_LOSSY_H
#define SKF_MODEL_LOSSY_H

#include "model/regrid.h"

enum skf_lossy_way {
    SKF_LOSSY_ALONE,  /* the old values */
    SKF_LOSSY_REGRID, /* `regrid` */
    SKF_LOSSY_SIGN,   /* moves by `size` in the direction of the change */
    SKF_LOSSY_LARGE,  /* changes of at least `size`, as they are */
    SKF_LOSSY_FACTORS /* the change's projection on `rank` rows of `factors` */
};
struct skf_lossy {
    enum skf_lossy_way way;
    struct skf_regrid regrid;
    float size;
    unsigned rank;
    const float *factors; /* orthonormal rows */
};
/* `row` holds x[n] in type t (what a plain quantization makes of it) and is changed to what the new version has. `scratch`: n floats. */
SKF_MUST enum skf_err skf_lossy_row(enum skf_type t, const uint8_t *old, uint8_t *row, const float *x, uint64_t n, uint64_t at,
                                    const struct skf_lossy *how, float *scratch);

/* What a tensor's change looks like. Rows are added in order, by one thread, so that sums are the same on every machine. */
#define SKF_LOSSY_BINS 2048
struct skf_lossy_stats {
    uint64_t n;
    double square_old, square, size; /* sums: of the old values' squares, of the changes' squares and sizes */
    uint32_t bins[SKF_LOSSY_BINS];   /* changes by size, eight an octave */
};
void skf_lossy_add(struct skf_lossy_stats *s, const float *old, const float *x, uint64_t n);
/* The size that about this share of the changes reaches. */
float skf_lossy_reached(const struct skf_lossy_stats *s, double share);

/* Directions of the changes of a tensor's rows: `rank` orthonormal rows of `columns` numbers by orthogonal iteration. `row` gives
 * the change of row i. `next` is as large as `factors`, `change` holds one row. */
SKF_MUST enum skf_err skf_lossy_factors(uint64_t rows, uint64_t columns, unsigned rank,
                                        enum skf_err (*row)(void *ctx, uint64_t i, float *change), void *ctx, float *factors,
                                        float *next, float *change);

#endif
