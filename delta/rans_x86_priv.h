/* What both vector forms of the rANS decoder on x86 begin with: from 32 contexts to the numbers of their tables. */
#ifndef SKF_DELTA_RANS_X86_PRIV_H
#define SKF_DELTA_RANS_X86_PRIV_H

#include <immintrin.h>

#include "delta/rans_priv.h"

_Static_assert(SKF_CONTEXTS == 48, "three shuffles of 16 look the tables up");

struct rans_numbers {
    __m256i of[3]; /* of contexts 0 to 15, 16 to 31, 32 to 47, in both halves */
};

static inline struct rans_numbers rans_numbers_of(const struct rans *r)
{
    struct rans_numbers n;
    for (unsigned k = 0; k < 3; k++)
        n.of[k] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(r->number + 16 * k)));
    return n;
}

static inline __attribute__((always_inline)) __m256i rans_tables_of(const struct rans_numbers *n, const uint8_t *key)
{
    __m256i k = _mm256_loadu_si256((const __m256i *)(const void *)key);
    __m256i t = _mm256_shuffle_epi8(n->of[0], k); /* by the lower four bits: no context has its highest bit set */
    t = _mm256_blendv_epi8(t, _mm256_shuffle_epi8(n->of[1], k), _mm256_cmpgt_epi8(k, _mm256_set1_epi8(15)));
    return _mm256_blendv_epi8(t, _mm256_shuffle_epi8(n->of[2], k), _mm256_cmpgt_epi8(k, _mm256_set1_epi8(31)));
}

#endif
