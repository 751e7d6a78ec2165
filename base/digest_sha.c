/*
 * SHA-256 by x86's instructions for it.  A round waits for the one before it, so half of their throughput lies idle; the rounds of
 * another message fill the gaps.
 */
#include "base/digest_priv.h"

#if defined __x86_64__
#include <cpuid.h>
#include <immintrin.h>

#define FOR_SHA __attribute__((target("sha,ssse3,sse4.1")))

struct lane { /* the state in the order that the instructions want: a b e f, c d g h */
    __m128i abef, cdgh;
};

FOR_SHA static inline struct lane load_state(const uint32_t s[8])
{
    __m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)s), 0xb1);
    __m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(s + 4)), 0x1b);
    return (struct lane){_mm_alignr_epi8(lo, hi, 8), _mm_blend_epi16(hi, lo, 0xf0)};
}

FOR_SHA static inline void store_state(uint32_t s[8], struct lane x)
{
    __m128i lo = _mm_shuffle_epi32(x.abef, 0x1b), hi = _mm_shuffle_epi32(x.cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)s, _mm_blend_epi16(lo, hi, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(s + 4), _mm_alignr_epi8(hi, lo, 8));
}

/* Four rounds, r from 0 to 15: message words come from the block for the first sixteen, then from those before them. */
FOR_SHA static inline __attribute__((always_inline)) void four_rounds(struct lane *x, __m128i m[4], const uint8_t *p,
                                                                      unsigned r)
{
    const __m128i flip = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w;
    if (r < 4) {
        w = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * r)), flip);
    } else {
        w = _mm_sha256msg1_epu32(m[r & 3], m[(r + 1) & 3]);
        w = _mm_add_epi32(w, _mm_alignr_epi8(m[(r + 3) & 3], m[(r + 2) & 3], 4));
        w = _mm_sha256msg2_epu32(w, m[(r + 3) & 3]);
    }
    m[r & 3] = w;
    w = _mm_add_epi32(w, _mm_load_si128((const __m128i *)(const void *)(sha_constants + 4 * r)));
    x->cdgh = _mm_sha256rnds2_epu32(x->cdgh, x->abef, w);
    x->abef = _mm_sha256rnds2_epu32(x->abef, x->cdgh, _mm_shuffle_epi32(w, 0x0e));
}

FOR_SHA static inline struct lane sum(struct lane x, struct lane y)
{
    return (struct lane){_mm_add_epi32(x.abef, y.abef), _mm_add_epi32(x.cdgh, y.cdgh)};
}

#define EACH_FOUR(do) /* the round's number must be a constant: it says which registers are meant */                    \
    do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)

FOR_SHA void sha_blocks_one(uint32_t s[][8], const uint8_t *const *at, size_t blocks)
{
    struct lane x = load_state(s[0]);
    for (const uint8_t *p = at[0]; blocks; blocks--, p += SHA_BLOCK) {
        struct lane before = x;
        __m128i m[4] = {_mm_setzero_si128()};
#define ONE(r) four_rounds(&x, m, p, r);
        EACH_FOUR(ONE)
        x = sum(x, before);
    }
    store_state(s[0], x);
}

FOR_SHA void sha_blocks_two(uint32_t s[][8], const uint8_t *const *at, size_t blocks)
{
    struct lane x = load_state(s[0]), y = load_state(s[1]);
    for (const uint8_t *p = at[0], *q = at[1]; blocks; blocks--, p += SHA_BLOCK, q += SHA_BLOCK) {
        struct lane x_before = x, y_before = y;
        __m128i m[4] = {_mm_setzero_si128()}, n[4] = {_mm_setzero_si128()};
#define TWO(r)                                                                                                         \
    four_rounds(&x, m, p, r);                                                                                          \
    four_rounds(&y, n, q, r);
        EACH_FOUR(TWO)
        x = sum(x, x_before);
        y = sum(y, y_before);
    }
    store_state(s[0], x);
    store_state(s[1], y);
}

bool is_sha_there(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1) &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}

#else

bool is_sha_there(void) { return false; }

#endif
