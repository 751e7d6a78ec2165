/*
 * SHA-256 of two runs of bytes at once (digest.h).  A round of SHA-256 waits for the one before it, so on processors with
 * instructions for it half of their throughput lies idle; the rounds of another message fill the gaps.  Elsewhere one message is
 * hashed after the other by libcrypto.  FIPS 180-4 has the algorithm.
 */
#include <string.h>

#include "base/buf.h"
#include "base/digest.h"

#if defined __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>

#define FOR_SHA __attribute__((target("sha,ssse3,sse4.1")))
#define BLOCK 64

static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t first_state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

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
    w = _mm_add_epi32(w, _mm_load_si128((const __m128i *)(const void *)(constants + 4 * r)));
    x->cdgh = _mm_sha256rnds2_epu32(x->cdgh, x->abef, w);
    x->abef = _mm_sha256rnds2_epu32(x->abef, x->cdgh, _mm_shuffle_epi32(w, 0x0e));
}

FOR_SHA static inline struct lane sum(struct lane x, struct lane y)
{
    return (struct lane){_mm_add_epi32(x.abef, y.abef), _mm_add_epi32(x.cdgh, y.cdgh)};
}

#define EACH_FOUR(do) /* the round's number must be a constant: it says which registers are meant */                    \
    do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)

FOR_SHA static void blocks_of_one(uint32_t s[8], const uint8_t *p, size_t blocks)
{
    struct lane x = load_state(s);
    for (; blocks; blocks--, p += BLOCK) {
        struct lane before = x;
        __m128i m[4] = {_mm_setzero_si128()};
#define ONE(r) four_rounds(&x, m, p, r);
        EACH_FOUR(ONE)
        x = sum(x, before);
    }
    store_state(s, x);
}

FOR_SHA static void blocks_of_two(uint32_t s[2][8], const uint8_t *p, const uint8_t *q, size_t blocks)
{
    struct lane x = load_state(s[0]), y = load_state(s[1]);
    for (; blocks; blocks--, p += BLOCK, q += BLOCK) {
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

/* What stands behind the whole blocks: the rest, a one bit, zeros, the length in bits. */
static void finish(uint32_t s[8], const uint8_t *rest, size_t n, uint8_t out[SKF_DIGEST])
{
    uint8_t last[2 * BLOCK] = {0};
    size_t left = n % BLOCK, end = left < BLOCK - 8 ? BLOCK : 2 * BLOCK;
    if (left)
        memcpy(last, rest, left);
    last[left] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        last[end - 1 - i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    blocks_of_one(s, last, end / BLOCK);
    for (unsigned i = 0; i < SKF_DIGEST; i++)
        out[i] = (uint8_t)(s[i / 4] >> (24 - 8 * (i % 4)));
}

/* Asked once: in a virtual machine the question itself takes as long as hashing some KiB. */
static bool has_sha(void)
{
    static atomic_int known; /* 0: not asked yet */
    unsigned a, b, c, d;
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k)
        return k > 0;
    bool has = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1) &&
               __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
    atomic_store_explicit(&known, has ? 1 : -1, memory_order_relaxed);
    return has;
}

void skf_sha256_pair(const void *p, size_t n, uint8_t out_p[SKF_DIGEST], const void *q, size_t m,
                     uint8_t out_q[SKF_DIGEST])
{
    if (!has_sha()) {
        skf_sha256(p, n, out_p);
        skf_sha256(q, m, out_q);
        return;
    }
    uint32_t s[2][8];
    const uint8_t *at[2] = {p, q};
    size_t both = (n < m ? n : m) / BLOCK, one[2] = {n / BLOCK - both, m / BLOCK - both};
    memcpy(s[0], first_state, sizeof s[0]);
    memcpy(s[1], first_state, sizeof s[1]);
    if (both)
        blocks_of_two(s, at[0], at[1], both);
    for (unsigned k = 0; k < 2; k++) {
        if (one[k])
            blocks_of_one(s[k], at[k] + both * BLOCK, one[k]);
        finish(s[k], at[k] ? at[k] + (both + one[k]) * BLOCK : NULL, k ? m : n, k ? out_q : out_p);
    }
}

#else

void skf_sha256_pair(const void *p, size_t n, uint8_t out_p[SKF_DIGEST], const void *q, size_t m,
                     uint8_t out_q[SKF_DIGEST])
{
    skf_sha256(p, n, out_p);
    skf_sha256(q, m, out_q);
}

#endif
