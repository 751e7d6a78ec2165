/*
 * The packed form of a matrix of which many codes are zero: what is not zero, and where it stands.  It is derived from the canonical rows
 * (which stay what a version is made of) and says the same values to the bit; kernels/ multiplies by it without unpacking.
 *
 * It is plain bytes without pointers, so that it can be kept beside the rows under a digest of its own.  docs/formats.md draws it; in short,
 * little-endian, version 1:
 *
 *   head (64 bytes)   magic, version, type, rows, columns, whether it is even, size
 *   index             for each group of rows where its values begin; one more, where they end
 *   fixed             for each group what has always the same size: scales and masks
 *   values            for each group the codes that are not the background, in the order of their mask bits; then 64 zero bytes, so that
 *                     a kernel may read a whole vector anywhere
 *
 * A matrix of Q8_0 that holds at most two values in every four neighbours (2:4 pruning) is even: it has exactly two there, one or both of
 * them zeros if need be, so that a kernel knows where the values of any four are without counting.
 *
 * Blocks of 32 (Q8_0, Q4_0, Q4_1) come in groups of 16 rows, interleaved as a vector of 64 bytes holds them: in the k-th vector of a
 * block byte 4r + j is column 4k + j of row r.  Floats come in groups of 4 rows: for every 32 columns a mask of each row.  The background is
 * the code that stands for zero; a row of a Q4_1 block, which has none of its own, names its most frequent one.
 */
#ifndef SKF_MODEL_SPARSE_H
#define SKF_MODEL_SPARSE_H

#include "model/tensor.h"

enum { SKF_SPARSE_ROWS = 16 /* of a group of blocks */, SKF_SPARSE_FLOATS = 4 /* of a group of floats */, SKF_SPARSE_PAD = 64 };

/* A matrix: where each of its rows lies. */
struct skf_sparse_from {
    enum skf_type type;
    uint32_t rows, cols;
    const uint8_t *(*row)(const void *ctx, uint32_t r);
    const void *ctx;
};

/* A packed matrix, opened: pointers into its bytes. */
struct skf_sparse {
    enum skf_type type;
    uint32_t rows, cols;
    uint32_t group, groups; /* rows in a group */
    size_t stride;          /* bytes of a group's fixed part */
    bool is_even;           /* two values in every four columns of a row */
    const uint8_t *index, *fixed, *values;
};

/* F32, F16, BF16, Q8_0, Q4_0, Q4_1. */
bool is_sparse_type(enum skf_type t);

/* The share of a matrix's codes that are background, and whether it is even, as far as `most` rows show that lie all over it; 0 and false for
 * another type. */
double skf_sparse_share(const struct skf_sparse_from *m, uint32_t most, bool *is_even);

/* Packs. *bytes with skf_free; NULL when less than `least` (0 to 1) of the codes are background, in which case packing ends early. A
 * function of the rows alone. SKF_ERR_UNSUPPORTED: another type, columns that are no whole blocks; SKF_ERR_NOMEM. */
SKF_MUST enum skf_err skf_sparse_pack(const struct skf_sparse_from *m, double least, uint8_t **bytes, size_t *n);

/* Checks bytes from anywhere, so that no kernel reads outside of them, and opens them; they must outlive *s and need no alignment. That they
 * say the same as a matrix is for their digest to vouch for. SKF_ERR_FORMAT, SKF_ERR_UNSUPPORTED: another version or type. */
SKF_MUST enum skf_err skf_sparse_open(const uint8_t *bytes, size_t n, struct skf_sparse *s, struct skf_why *why);

/* Bytes of scales and minima and background in front of a block's masks, for a group. */
uint32_t skf_sparse_heads(enum skf_type t);
/* Where the values of group g <= groups begin. */
static inline const uint8_t *skf_sparse_values(const struct skf_sparse *s, uint32_t g)
{
    uint64_t at;
    __builtin_memcpy(&at, s->index + (size_t)8 * g, 8);
    return s->values + at;
}

#endif
