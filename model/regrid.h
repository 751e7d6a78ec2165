/*
 * New values written over an old version's row so that little of it changes: what `skiff quantize --base` makes of a tensor.
 *
 * Quantized rows keep the old grid (scales and minima) and, where a value stays in its cell, the old code.  A code that moved says
 * where the value was in its cell as much as how far it went, so changes are never left out for being small: over many weights
 * the crossings of cells carry the update.  Where the grid is much finer than the noise that the model bears, changes are sampled
 * instead: rounded, by a seeded draw a weight, to a coarse step or to nothing, so that their sum stays right and few are left.
 * Float rows are sampled likewise.
 */
#ifndef SKF_MODEL_REGRID_H
#define SKF_MODEL_REGRID_H

#include "model/tensor.h"

struct skf_regrid {
    float step;      /* changes are multiples of this size where the type is finer; 0: as fine as the type */
    float keep;      /* a code that moved goes back when its value lies less than this part of a step beyond the cell's edge; not where
                        changes are sampled */
    float edge;      /* drifted, and not sampled: what rounding leaves over is carried along the row, and a code moves where that comes to
                        this many steps (0.5 or more); 0: codes move by draws */
    float round;     /* floats: changes are first rounded to multiples of this; 0: not */
    bool is_drifted; /* x are the old row's values and small changes: codes move by a seeded draw, as none would by rounding */
    uint64_t seed;   /* of the tensor */
};

/* Whether rows of this type can be rewritten: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. */
bool is_regrid_type(enum skf_type t);
/* `old` is the old version's row; `row` holds what a plain quantization makes of x[n] and is changed to what the new version has:
 * blocks that stand much better on a grid of their own stay as they are. `at` is the row's first element in its tensor. The same on
 * every machine. SKF_ERR_UNSUPPORTED for other types, SKF_ERR_ARG when n is no whole number of blocks. */
SKF_MUST enum skf_err skf_regrid_row(enum skf_type t, const uint8_t *old, uint8_t *row, const float *x, uint64_t n, uint64_t at,
                                     const struct skf_regrid *how);
/* Where x lies on the old row's grid: over all that is added up here. */
struct skf_regrid_place {
    uint64_t n, moved; /* elements; those that lie in another cell than the old code's */
    double apart;      /* sum of the distances from the old values, in steps: about n / 4 for values that were quantized by
                          themselves, far less for small changes of dequantized ones */
};
/* For quantized types only: SKF_ERR_UNSUPPORTED for others. */
SKF_MUST enum skf_err skf_regrid_place(enum skf_type t, const uint8_t *old, const float *x, uint64_t n, struct skf_regrid_place *p);

/* A number of [0, 1) that depends on both arguments alone. */
float skf_regrid_draw(uint64_t seed, uint64_t i);

#endif
