/*
 * New values written into a quantized row without moving its grid: scales and minima stay, only codes change.
 *
 * A fine-tune moves most weights by far less than a step, so rounding each by itself loses nearly all of it.  Here the error of
 * each weight is carried on to the next one of its row (along the input dimension, as in error-diffusion dithering): sums over
 * neighbouring inputs keep their value, which is what a matrix product sees of them.
 */
#ifndef SKF_MODEL_GRID_H
#define SKF_MODEL_GRID_H

#include "model/tensor.h"

/* Whether rows of this type can be written: F32, F16, BF16 (each value to nearest), Q8_0, Q4_0, Q4_1, Q5_0,
 * Q5_1. */
bool is_grid_type(enum skf_type t);

/* `row` holds n elements of type t (whole blocks) and is changed to stand for x[n]. A block whose scale is zero is quantized
 * anew when x wants it to be more than a constant. Equal results on every machine. SKF_ERR_FORMAT when a scale or a value of x
 * is not finite, SKF_ERR_UNSUPPORTED for other types; the row is then undefined. */
SKF_MUST enum skf_err skf_grid_row(enum skf_type t, uint8_t *row, const float *x, uint64_t n);

#endif
