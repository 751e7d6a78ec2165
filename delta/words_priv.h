/* Plain types as integers in the order of the numbers: what dense (words.c) and sparse coding (sparse.c) share. */
#ifndef SKF_DELTA_WORDS_PRIV_H
#define SKF_DELTA_WORDS_PRIV_H

#include <endian.h>
#include <string.h>

#include "delta/int_priv.h"
#include "delta/level_priv.h"

/* One instruction each, which loops over arrays need to become vectors. */
static inline __attribute__((always_inline)) uint64_t word_load(const uint8_t *p, unsigned width)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    switch (width) {
    case 1:
        return p[0];
    case 2:
        memcpy(&h, p, 2);
        return le16toh(h);
    case 4:
        memcpy(&w, p, 4);
        return le32toh(w);
    default:
        memcpy(&d, p, 8);
        return le64toh(d);
    }
}

static inline __attribute__((always_inline)) void word_store(uint8_t *p, uint64_t v, unsigned width)
{
    uint16_t h = htole16((uint16_t)v);
    uint32_t w = htole32((uint32_t)v);
    uint64_t d = htole64(v);
    if (width == 1)
        *p = (uint8_t)v;
    else if (width == 2)
        memcpy(p, &h, 2);
    else if (width == 4)
        memcpy(p, &w, 4);
    else
        memcpy(p, &d, 8);
}

/* A word as the integer whose differences are coded, and back: floats in the order of the numbers, without the `shift`
 * lowest bits, which are 0 in every word of both sides. */
static inline __attribute__((always_inline)) uint64_t word_in(uint64_t v, unsigned width, bool is_float, unsigned shift)
{
    const uint64_t top = 1ull << (8 * width - 1), all = top | (top - 1);
    uint64_t turned = v ^ (((0 - (v >> (8 * width - 1))) & all) | top); /* without a branch: signs are random */
    return (is_float ? turned : v) >> shift;
}
static inline __attribute__((always_inline)) uint64_t word_out(uint64_t v, unsigned width, bool is_float,
                                                               unsigned shift)
{
    const uint64_t top = 1ull << (8 * width - 1);
    v <<= shift;
    uint64_t turned = v ^ (((v >> (8 * width - 1) & 1) - 1) | top);
    return is_float ? turned & ~0ull << shift : v;
}

/* The difference of two such integers, modulo 2^(8 * width - shift), as a signed number. */
static inline __attribute__((always_inline)) int64_t word_diff(uint64_t a, uint64_t b, unsigned width, unsigned shift)
{
    unsigned above = 64 - 8 * width + shift;
    return (int64_t)((b - a) << above) >> above;
}

/* The lowest eight bits of the exponent (twice: half octaves are the unit of contexts). */
static inline __attribute__((always_inline)) int word_scale(uint64_t v, unsigned width, unsigned exponent_at)
{
    if (!exponent_at)
        return 0;
    uint64_t mask = (1ull << (8 * width - 1 - exponent_at)) - 1; /* without the sign */
    return 2 * (int)(v >> exponent_at & mask & 255);
}

/* One copy of each loop a width. */
#define BY_WIDTH(width, call)                                                                                          \
    switch (width) {                                                                                                   \
    case 1:                                                                                                            \
        call(1);                                                                                                       \
        break;                                                                                                         \
    case 2:                                                                                                            \
        call(2);                                                                                                       \
        break;                                                                                                         \
    case 4:                                                                                                            \
        call(4);                                                                                                       \
        break;                                                                                                         \
    default:                                                                                                           \
        call(8);                                                                                                       \
    }

/* A string of raw bits that is read without a state of its own. */
struct word_bits {
    const uint8_t *p;
    uint64_t at, end; /* in bits */
};
static inline __attribute__((always_inline)) uint64_t
word_peek(const struct word_bits *b) /* 57 bits at least, 0 behind the end */
{
    uint64_t v = 0, byte = b->at >> 3;
    if (byte + 8 <= b->end >> 3)
        v = skf_le64(b->p + byte);
    else
        for (uint64_t i = byte; i < b->end >> 3; i++)
            v |= (uint64_t)b->p[i] << 8 * (i - byte);
    return v >> (b->at & 7);
}
static inline __attribute__((always_inline)) bool word_take(struct word_bits *b, unsigned n, uint64_t *v) /* n <= 57 */
{
    if (n > b->end - b->at)
        return false;
    *v = word_peek(b) & ((1ull << n) - 1);
    b->at += n;
    return true;
}
/* The string's length and bytes from a payload; and whether all of it was read, its padding 0. */
SKF_MUST enum skf_err skf_word_bits(struct skf_reader *r, struct word_bits *b);
static inline bool word_is_done(const struct word_bits *b)
{
    return b->end - b->at < 8 && word_peek(b) == 0;
}

/* Buckets: magnitudes below 2^top are their zigzags; others, whose highest bit k is at least `top`, share a symbol with
 * all that have it and the bit below. top is 3, or 5 where that is less. */
#define WORD_TOP      3u
#define WORD_TOP_WIDE 5u
static inline unsigned word_small(unsigned top)
{
    return (2u << top) - 1;
} /* symbols below are zigzags */

/* The symbol of d; what it leaves open goes to b. */
static inline uint8_t word_put(struct skf_bits_out *b, int64_t d, unsigned top)
{
    uint64_t m = d < 0 ? 0 - (uint64_t)d : (uint64_t)d;
    if (m >> top == 0)
        return (uint8_t)(2 * m - (d < 0));
    unsigned k = 63 - (unsigned)__builtin_clzll(m);
    uint64_t rest = m & ((1ull << (k - 1)) - 1);
    skf_bits_put(b, d < 0, 1);
    skf_bits_put(b, rest & UINT32_MAX, SKF_MIN(k - 1, 32u));
    if (k - 1 > 32)
        skf_bits_put(b, rest >> 32, k - 1 - 32);
    return (uint8_t)(word_small(top) + 2 * (k - top) + (m >> (k - 1) & 1));
}
/* The difference that a symbol from word_small() on begins. */
static inline __attribute__((always_inline)) bool word_far(struct word_bits *b, uint8_t sym, unsigned width,
                                                           unsigned top, int64_t *d)
{
    unsigned over = sym - word_small(top), k = top + over / 2u, left = k - 1;
    uint64_t m = 2 | (over & 1u), low, high = 0;
    if (k > 8 * width - 1 || !word_take(b, SKF_MIN(k, 57u), &low) || (k > 57 && !word_take(b, k - 57, &high)))
        return false;
    uint64_t negative = low & 1;
    m = m << left | low >> 1 | high << 56;
    *d = (int64_t)((m ^ (0 - negative)) + negative);
    return true;
}

/* ---- sparse changes (sparse.c) ----------------------------------------------------------------------------------- */
/* Whether gaps are cheaper than a symbol for every word and `raw` bits beside them; w->sym and w->key hold symbols and
 * contexts of all. */
SKF_MUST enum skf_err skf_sparse_pays(struct skf_work *w, uint32_t n, double raw, bool *pays);
/* Appends the changes, with what skf_sparse_pays left in w. */
SKF_MUST enum skf_err skf_sparse_put(struct skf_work *w, const struct skf_words *o, struct skf_buf *out);
/* Changes o->neu, which holds what the changes count from; contexts in w->key. */
SKF_MUST enum skf_err skf_sparse_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *o);

#endif
