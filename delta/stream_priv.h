/*
 * Small signed differences as symbols for rans_priv.h.
 *
 * A difference d of magnitude m is one symbol: m <= 7 as its zigzag (0, -1, 1, ... as 0, 1, 2, ...), otherwise
 * 15 + 2 * (k - 3) + (the bit below the highest), where k is the place of m's highest bit; then its sign and the k - 1 bits
 * that are left follow in a string of raw bits.
 *
 * Where few elements differ from 0, a symbol for each unit says which eights of it have such elements, one for each of these says
 * which elements, and only these have a symbol of their own: what does not change costs a fraction of a bit, and a fraction of a step.
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

/* ---- all of n differences ------------------------------------------------------------------------------------------------------ */
/* Numbers of 16 bits, each in its context; appended as symbols and raw bits. */
SKF_MUST enum skf_err skf_diffs16_put(struct skf_work *w, const int16_t *d, const uint8_t *key, uint32_t n,
                                      struct skf_buf *out);
SKF_MUST enum skf_err skf_diffs16_get(struct skf_work *w, struct skf_reader *r, const uint8_t *key, uint32_t n, int16_t *d);
/* Numbers of 8 bits likewise: in w->sym, modulo 256. */
SKF_MUST enum skf_err skf_diffs8_get(struct skf_work *w, struct skf_reader *r, const uint8_t *key, uint32_t n);

/* ---- few of n units of differences --------------------------------------------------------------------------------------------- */
struct skf_few {
    uint32_t n;           /* units, at least one */
    unsigned unit;        /* differences of each, a power of two up to 32 */
    const uint8_t *key;   /* context of each unit */
    const uint32_t *same; /* number of each; NULL: as they come */
    uint32_t row;         /* units of a row: signs depend on the change before in the same */
};
struct skf_changes { /* of n units, as they come, those that have differences: */
    const uint32_t *unit; /* which, */
    const uint32_t *mask; /* which of its differences are not 0, lowest first, */
    const int8_t *d;      /* and these, modulo 256, of all units one behind the other; 32 bytes more can be read */
    uint32_t n;
};
/* n * unit differences of 8 bits; SKF_ERR_LIMIT when `out` has no room for them: not worth coding so. */
SKF_MUST enum skf_err skf_few_put(struct skf_work *w, const struct skf_few *s, const int8_t *d, struct skf_buf *out);
/* How they are stored; the byte in front of them. */
enum { SKF_FEW_ZERO, SKF_FEW_DENSE, SKF_FEW_FOURS, SKF_FEW_EIGHTS, SKF_FEW_COUNT };
static const uint8_t skf_few_group[SKF_FEW_COUNT] = {1, 1, 4, 8};
/* The mask of each symbol, of fours or eights. */
void skf_masks_of(unsigned group, uint8_t mask[256]);
/* *c stands in w. SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_few_get(struct skf_work *w, struct skf_reader *r, const struct skf_few *s,
                                     struct skf_changes *c);

#endif
