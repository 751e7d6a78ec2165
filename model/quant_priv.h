/*
 * What the quantizer's files share: one block of each type to and from float32, and the searches for scales.
 */
#ifndef SKF_MODEL_QUANT_PRIV_H
#define SKF_MODEL_QUANT_PRIV_H

#include "model/tensor.h"

/* One block: `q` has the type's block_bytes, `x` and `importance` its number of elements. mean_square is that of the row. */
void skf_block_to_q8_0(const float *x, uint8_t *q);
void skf_block_to_q4_0(const float *x, uint8_t *q);
void skf_block_to_q4_1(const float *x, uint8_t *q);
void skf_block_to_q5_0(const float *x, uint8_t *q);
void skf_block_to_q5_1(const float *x, uint8_t *q);
void skf_block_to_q2_k(const float *x, uint8_t *q);
void skf_block_to_q3_k(const float *x, uint8_t *q);
void skf_block_to_q4_k(const float *x, uint8_t *q);
void skf_block_to_q5_k(const float *x, uint8_t *q);
void skf_block_to_q6_k(const float *x, uint8_t *q);
void skf_block_to_tq1_0(const float *x, uint8_t *q);
void skf_block_to_tq2_0(const float *x, uint8_t *q);
void skf_block_to_mxfp4(const float *x, uint8_t *q);
void skf_block_to_iq4_nl(const float *x, uint8_t *q);

/* Up to four blocks one behind the other; one of a K-quant. */
void skf_weighed_q4_0(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q4_1(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q5_0(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q5_1(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q2_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q3_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q4_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q5_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_q6_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);
void skf_weighed_iq4_nl(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks);

/* Zero stays zero, which minima do not give of themselves; the scale is up to 1 % (q5_1: 3 %) wider for it. */
void skf_sparse_q4_1(const float *x, uint8_t *q);
void skf_sparse_q5_1(const float *x, uint8_t *q);

void skf_block_of_q8_0(const uint8_t *q, float *x);
void skf_block_of_q4_0(const uint8_t *q, float *x);
void skf_block_of_q4_1(const uint8_t *q, float *x);
void skf_block_of_q5_0(const uint8_t *q, float *x);
void skf_block_of_q5_1(const uint8_t *q, float *x);
void skf_block_of_q2_k(const uint8_t *q, float *x);
void skf_block_of_q3_k(const uint8_t *q, float *x);
void skf_block_of_q4_k(const uint8_t *q, float *x);
void skf_block_of_q5_k(const uint8_t *q, float *x);
void skf_block_of_q6_k(const uint8_t *q, float *x);
void skf_block_of_tq1_0(const uint8_t *q, float *x);
void skf_block_of_tq2_0(const uint8_t *q, float *x);
void skf_block_of_mxfp4(const uint8_t *q, float *x);
void skf_block_of_nvfp4(const uint8_t *q, float *x);
void skf_block_of_iq4_nl(const uint8_t *q, float *x);
void skf_block_of_iq4_xs(const uint8_t *q, float *x);

/* ---- scales: least squares over groups of at most 32 values, each with a weight (quant_fit.c) --------------------------------------- */
/* Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits; defined for every float, right below 2^22. */
static inline int skf_nearest(float f)
{
    union {
        float f;
        int32_t i;
    } v = {.f = f + 12582912.0f};
    return (v.i & 0x007FFFFF) - 0x00400000;
}
/* To nearest, halves away from zero, held to -127..127; 0 for what is no number. */
static inline int skf_round_127(float f)
{
    float size = f < 0 ? -f : f;
    size = size > 0 ? size : 0;
    size = size < 127.0f ? size : 127.0f;
    int whole = (int)size;
    whole += size - (float)whole >= 0.5f ? 1 : 0;
    return f < 0 ? -whole : whole;
}
static inline int skf_clamp(int v, int least, int most) { return v < least ? least : v > most ? most : v; }

/* The grids that a search tries: (most + from + k * step) / range for k of 0..count. */
struct skf_fit_tries {
    float from, step;
    int count;
    bool is_absolute; /* the sum of sizes of errors instead of squares */
};
extern const struct skf_fit_tries skf_fit_fine; /* of every type when there is importance */

/* Groups of n values one behind the other in x, w (NULL: each value's square) and code; a scale for each.
 * x = scale * (code - half); codes 0..2 half - 1. */
void skf_fit_even(int groups, int n, int half, const float *x, const float *w, uint8_t *code, float *scales);
/* Likewise x = scale * code - min; codes 0..most, min >= 0. */
void skf_fit_uneven(int groups, int n, int most, const float *x, const float *w, const struct skf_fit_tries *tries, uint8_t *code,
                    float *scales, float *mins);
/* x = scale * (code - half), one code after the other moved to where it fits best; weights are the squares. */
float skf_fit_even_moving(int n, int half, const float *x, uint8_t *code);
/* x = scale * code for x >= 0; codes 0..most. */
float skf_fit_positive(int n, int most, const float *x, const float *w, uint8_t *code);

#endif
