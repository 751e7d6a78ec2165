/*
 * Small signed differences as symbols for rans_priv.h.
 *
 * A difference d of magnitude m is one symbol: m <= 7 as its zigzag (0, -1, 1, ... as 0, 1, 2, ...), otherwise
 * 15 + 2 * (k - 3) + (the bit below the highest), where k is the place of m's highest bit; then its sign and the k - 1 bits
 * that are left follow in a string of raw bits.
 *
 * Where few elements differ from 0, a symbol says which of the next four or eight do, and only these have a symbol of their own:
 * what does not change costs a fraction of a bit, and a fraction of a step.
 */
#ifndef SKF_DELTA_STREAM_PRIV_H
#define SKF_DELTA_STREAM_PRIV_H

#include "delta/rans_priv.h"

#define SKF_SMALL 15 /* symbols below are zigzags */

/* The symbol of d, which is a number of `width` bytes; what the symbol leaves open goes to b. */
static inline uint8_t skf_bucket_put(struct skf_bits_out *b, int64_t d)
{
    uint64_t m = d < 0 ? 0 - (uint64_t)d : (uint64_t)d;
    if (m <= 7)
        return (uint8_t)(2 * m - (d < 0));
    unsigned k = 63 - (unsigned)__builtin_clzll(m);
    uint64_t rest = m & ((1ull << (k - 1)) - 1);
    skf_bits_put(b, d < 0, 1);
    if (k - 1 > 32) {
        skf_bits_put(b, rest & UINT32_MAX, 32);
        skf_bits_put(b, rest >> 32, k - 1 - 32);
    } else {
        skf_bits_put(b, rest, k - 1);
    }
    return (uint8_t)(SKF_SMALL + 2 * (k - 3) + (m >> (k - 1) & 1));
}
/* For symbols from SKF_SMALL on; false when there are not that many bits, or the difference has more than `width` bytes. */
bool skf_bucket_get(struct skf_bits_in *b, uint8_t sym, unsigned width, int64_t *d);
static inline int64_t skf_unzigzag(uint8_t sym) { return (sym & 1) ? -(int64_t)(sym >> 1) - 1 : (int64_t)(sym >> 1); }

/* Raw bits of a stream: begun with room for n elements of `width` bytes, written behind the symbols with their length. */
SKF_MUST enum skf_err skf_raw_begin(struct skf_work *w, uint32_t n, unsigned width, struct skf_bits_out *b);
SKF_MUST enum skf_err skf_raw_put(struct skf_work *w, struct skf_bits_out *b, struct skf_buf *out);
SKF_MUST enum skf_err skf_raw_get(struct skf_reader *r, struct skf_bits_in *b);

struct skf_stream {
    uint8_t *val;       /* n two's complement little-endian integers of `width` bytes */
    uint32_t n;
    unsigned width;     /* 1 or 2 */
    const uint8_t *key; /* context of element i is key[i / per] */
    unsigned per;
};
/* Appends the coded stream. SKF_ERR_LIMIT when `out` has no room for it: not worth coding so. */
SKF_MUST enum skf_err skf_stream_put(struct skf_work *w, const struct skf_stream *s, struct skf_buf *out);
/* Fills s->val; *is_zero when all of it is 0. SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_stream_get(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s, bool *is_zero);

#endif
