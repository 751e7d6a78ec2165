/*
 * Matches of a piece with what is before it: binary trees of places whose next four bytes are alike, newest at the root, and tables of the last
 * place with the same two and three bytes.
 */
#ifndef SKF_DELTA_LZ_FIND_PRIV_H
#define SKF_DELTA_LZ_FIND_PRIV_H

#include "delta/lz_priv.h"

struct lz_match {
    uint32_t len, distance; /* distance less one */
};
#define LZ_NICE 160u /* what is as long is taken as it is */
struct lz_finder {
    const uint8_t *p;
    uint32_t n, *heads, *tree;
};
SKF_MUST enum skf_err lz_finder_init(struct lz_finder *f, struct skf_lz_room *r, const uint8_t *p, uint32_t n);
/* Matches at `at`, ever longer and farther, at most LZ_NICE long, of which there may be LZ_NICE; every place must be asked for, or skipped, once. */
unsigned lz_find(struct lz_finder *f, uint32_t at, struct lz_match *out);
void lz_skip(struct lz_finder *f, uint32_t at);

static inline uint32_t lz_common(const uint8_t *a, const uint8_t *b, uint32_t n, uint32_t most)
{
    for (; n + 8 <= most; n += 8) {
        uint64_t x = skf_le64(a + n) ^ skf_le64(b + n);
        if (x)
            return n + ((uint32_t)__builtin_ctzll(x) >> 3);
    }
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

#endif
