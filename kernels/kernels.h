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
 *  - Attention is done in one pass over pages of 32 positions, by the positions' numbers, with the softmax made good as larger scores
 *    come (Milakov and Gimelshein 2018, Dao et al. 2022), and apart for each span of 256 positions.  Within a span a row keeps the
 *    largest score M (first -FLT_MAX), 16 sums l and head_dim sums o, all first 0; of a page only the positions count that the row sees:
 *        s[t] = scale * the sum of q[i] * k[t][i] over i in order, one accumulator, fma (Q8_0: in runs of 32 elements, each from 0
 *               over the codes; then acc = fma(d, run, acc), first 0), capped as soft_cap does where the head has a cap
 *        m = the largest of M and s[t], c = exp(M - m), p[t] = exp(s[t] - m), 0 where the row sees nothing
 *        l[j] = l[j] * c + (p[j] + p[16 + j]);  o[i] = o[i] * c, then over t in order o[i] = fma(p[t], v[t][i], o[i]) (Q8_0:
 *               fma(p[t] * d, code, o[i]));  M = m
 *    l is then summed as 16 lanes are.  Spans (M, l, o), (M', l', o') that follow one another become one, in order: m = the larger of
 *    M and M', c = exp(M - m), c' = exp(M' - m), l * c + l' * c', o * c + o' * c'.  out[i] = o[i] * (1 / l).
 *  - Every other sum of products or terms (F32, F16, BF16 weights, sums of squares and of exponentials) has
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

/* Counts up with every change of this contract that changes a bit: what was computed under another is not to be mixed with what is now. */
#define SKF_ARITHMETIC 2u

/* Keys and values stand in pages of SKF_KV_PAGE positions.  Of one head there:
 *   F16:  keys [head_dim][32] halves, values [32][head_dim] halves
 *   Q8_0: keys [head_dim][32] codes, [head_dim / 32][32] halves, their scales; values [32][head_dim] codes, [head_dim / 32][32] scales.
 *         head_dim is a multiple of 32; a code is as of activations, the scale rounded to half
 * Keys lie across, so that a vector holds one element of many positions. */
#define SKF_KV_PAGE 32u
#define SKF_KV_SPAN 256u
enum skf_kv_type { SKF_KV_F16, SKF_KV_Q8_0 };
size_t skf_kv_head_bytes(enum skf_kv_type t, uint32_t head_dim); /* a multiple of 64 */
const char *skf_kv_type_name(enum skf_kv_type t);                /* f16, q8_0 */
bool is_kv_type_name(const char *name, enum skf_kv_type *t);

struct skf_kv_head {
    uint8_t *const *page; /* by position / SKF_KV_PAGE */
    size_t at;            /* where this head's keys begin in each */
    enum skf_kv_type type;
    uint32_t head_dim;
    float scale, cap; /* cap 0: none */
};
/* One query, and what it sees: positions first .. end - 1. */
struct skf_attn_row {
    const float *q;  /* [head_dim] */
    float *part;     /* [SKF_ATTN_PART + head_dim]: M, l, o of one span */
    uint32_t first, end;
};
#define SKF_ATTN_ROWS 96u /* rows at once, at most */
#define SKF_ATTN_PART 2u

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
    /* x = cap * tanh(x / cap), by 1 - 2 / (exp(x * (2 / cap)) + 1) (Gemma Team 2024) */
    void (*soft_cap)(float *x, uint32_t n, float cap);
    void (*to_f16)(const float *x, uint16_t *h, uint32_t n);
    /* What n <= SKF_ATTN_ROWS rows give over the positions of one span; a row that sees none of it has its part left alone. Rows that see the
     * same should follow one another. tile: room for 2 * SKF_KV_PAGE * head_dim floats. */
    void (*attention)(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t span, float *tile);
    float (*sum_exp)(const float *x, uint32_t n, float max); /* sum of exp(x - max) */
};

/* Puts the key and value k, v [head_dim] of a position where a head's keys begin in its page, at place `at` < SKF_KV_PAGE. */
void skf_kv_put(const struct skf_ops *ops, enum skf_kv_type t, uint8_t *head, uint32_t at, uint32_t head_dim, const float *k, const float *v);
/* The span of part `more` joins those of `part`, which came before it. */
void skf_attn_join(float *part, const float *more, uint32_t head_dim);
void skf_attn_finish(const float *part, uint32_t head_dim, float *out);

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
