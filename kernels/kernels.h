/*
 * The operator table: what a model is computed with, once in plain C (kernels/ref/) and once per instruction set (kernels/cpu/).
 *
 * One arithmetic.  Every implementation computes the same numbers, equal to the bit, whatever the instruction set, the number of
 * tokens computed together, or the thread that does it.  So the order of every sum is part of this contract:
 *
 *  - Activations are quantized in blocks of 32: a = largest |x|; when a < 1e-30 the block is zero; otherwise d = a / 127 and
 *    q = x * (127 / a) rounded to the nearest, halves to even.  sum = the sum of q, s = d * sum.  (A block that holds an
 *    infinity or NaN has q = 0 and d = NaN.)
 *  - A row of blocks against such a token keeps one accumulator and goes over the runs of 32 elements in order:
 *        acc = fma(dw * d, dot, acc);   with a minimum then: acc = fma(m, s, acc)
 *    where dot is the exact integer dot product, dw the block's scale, m its minimum.  K-quants: dw = scale * step, m = -(min * step),
 *    each one product of the block's half and the run's 6-bit number; Q6_K, whose steps stand for 16 elements: dw = scale,
 *    dot = step * dot of the first 16 + step * dot of the others.  Nothing depends on which rows are computed together, so a
 *    layout may interleave rows as it likes (lanes.h).
 *  - Every other sum of products or terms (F32, F16, BF16 weights, attention scores, sums of squares and of exponentials) has
 *    16 lanes: lane l takes the elements i with i mod 16 == l in order, acc[l] = fma(a, b, acc[l]) (or acc[l] + a), a tail
 *    padded with zeros; then l += l + 8, l + 4, l + 2, l + 1.
 *  - exp is the polynomial of kernels/exp_priv.h; division and square root are IEEE's; multiply and add fuse only where fma
 *    is written.
 *
 * Every function is reentrant; pointers need no alignment, but for what skf_acts says.
 */
#ifndef SKF_KERNELS_KERNELS_H
#define SKF_KERNELS_KERNELS_H

#include "base/util.h"
#include "model/sparse.h"
#include "model/tensor.h"

/* A matrix of `rows` rows, each `cols` elements contiguous, wherever they lie: segments of whole rows, in order. A file is one
 * segment, a version in the store one a chunk. */
struct skf_rows {
    const uint8_t *p;
    uint32_t first, n;
};
struct skf_weight {
    enum skf_type type;
    uint32_t rows, cols;
    uint64_t row_bytes;
    uint32_t n_seg;
    const struct skf_rows *seg;
    const struct skf_sparse *packed; /* the same matrix without its zeros, to be multiplied from instead; NULL: none */
    const uint8_t *lanes; /* the same matrix as lanes.h lays it out, 64-byte aligned; NULL: rows alone. They are there in any case */
};

#define SKF_QBLOCK 32u

/* m tokens of n elements as a matrix product takes them: floats for float weights, blocks for quantized ones. */
struct skf_acts {
    uint32_t m, n;
    const float *x; /* token t at x + t * ldx */
    size_t ldx;
    int8_t *q;      /* [n / 32][m][32] */
    float *d, *s;   /* [n / 32][m] */
    int32_t *sum;   /* [n / 32][m] */
    int32_t *low;   /* [n / 32][m]: of the first 16 codes */
};

/* Keys and values of one head over positions first .. first + n - 1: the key of position t at page[t / SKF_KV_PAGE] + at +
 * t % SKF_KV_PAGE * head_dim, its value SKF_KV_PAGE * head_dim behind that. */
#define SKF_KV_PAGE 32u
struct skf_kv_span {
    uint16_t *const *page;
    size_t at;
    uint32_t first, n;
};

struct skf_ops {
    enum skf_isa isa;
    /* Quantizes x[n] (n a multiple of 32) as token t of a. */
    void (*quantize)(const float *x, uint32_t n, struct skf_acts *a, uint32_t t);
    /* y[t * ldy + r] = row r of w times token t, for row0 <= r < row1 and every token. */
    void (*matmul)(const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                   size_t ldy);
    /* y = x / sqrt(mean(x^2) + eps) * w; y may be x. */
    void (*rms_norm)(const float *x, const float *w, uint32_t n, float eps, float *y);
    /* Turns pairs (x[2i], x[2i + 1]), i < n_rot / 2, of each head by the angle whose cosine and sine are cs[2i], cs[2i + 1]. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs);
    /* The same of pairs (x[i], x[i + n_rot / 2]); cosines in cs[0 .. n_rot / 2 - 1], sines behind them. */
    void (*rope_halves)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cs);
    void (*silu_mul)(float *g, const float *u, uint32_t n); /* g = g / (1 + exp(-g)) * u */
    /* g = g / (1 + exp(-z)) * u, z = g * fma(g * g, SKF_GELU_B, 1) * SKF_GELU_A: GELU by its tanh formula (Hendrycks and Gimpel 2016) */
    void (*gelu_mul)(float *g, const float *u, uint32_t n);
    void (*add)(float *x, const float *y, uint32_t n);      /* x += y */
    void (*to_f16)(const float *x, uint16_t *h, uint32_t n);
    /* n_q heads that share keys and values; for each: scores = q . k[t] * scale, softmax, out = sum of p[t] * v[t] over t in order,
     * divided by the sum of p. q and out: [n_q][head_dim]; scores: room for n_q * n floats. Where pages end changes no number. */
    void (*attention)(const float *q, uint32_t n_q, const struct skf_kv_span *kv, uint32_t head_dim, float scale, float *scores,
                      float *out);
    float (*sum_exp)(const float *x, uint32_t n, float max); /* sum of exp(x - max) */
};

/* The table of an instruction set; NULL when this build has none for it. The caller asks skf_isa_pick what may run. */
const struct skf_ops *skf_ops_get(enum skf_isa isa);
/* Whether a matrix of this type can be multiplied. */
bool is_ops_type(enum skf_type t);
/* The share of zeros from which multiplying from the packed form is worth its while, of a matrix that is even (model/sparse.h) or not;
 * over 1: never. */
double skf_sparse_least(enum skf_isa isa, enum skf_type t, bool is_even);
/* The address of row r < w->rows. */
const uint8_t *skf_weight_row(const struct skf_weight *w, uint32_t r);

#endif
