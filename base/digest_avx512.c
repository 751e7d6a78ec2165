/* SHA-256 of sixteen messages at once: each word of a vector is another message's (digest_priv.h). */
#include "base/digest_priv.h"

#if defined __x86_64__
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
typedef __m512i vec;

INLINE vec add(vec a, vec b) { return _mm512_add_epi32(a, b); }
INLINE vec xor3(vec a, vec b, vec c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
#define TURN(x, a, b, c) xor3(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b), _mm512_ror_epi32(x, c))
#define TURN_AND_SHIFT(x, a, b, c) xor3(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b), _mm512_srli_epi32(x, c))

/* What waits for the round before stands last in each sum. */
INLINE void one_round(vec a, vec b, vec c, vec *d, vec e, vec f, vec g, vec *h, uint32_t constant, vec word)
{
    const vec known = add(*h, add(word, _mm512_set1_epi32((int)constant)));
    const vec late = add(_mm512_ternarylogic_epi32(e, f, g, 0xca), TURN(e, 6, 11, 25));
    const vec top = add(_mm512_ternarylogic_epi32(a, b, c, 0xe8), TURN(a, 2, 13, 22));
    *d = add(add(*d, known), late);
    *h = add(add(known, top), late);
}

/* Sixteen rows of sixteen words to columns, in four steps that each take pairs of rows. */
#define LOW32(a, b) _mm512_unpacklo_epi32(a, b)
#define HIGH32(a, b) _mm512_unpackhi_epi32(a, b)
#define LOW64(a, b) _mm512_unpacklo_epi64(a, b)
#define HIGH64(a, b) _mm512_unpackhi_epi64(a, b)
#define EVEN(a, b) _mm512_shuffle_i32x4(a, b, 0x88)
#define ODD(a, b) _mm512_shuffle_i32x4(a, b, 0xdd)
INLINE void columns(vec r[16])
{
    vec t[16];
#define STEP1(i) t[i] = LOW32(r[i], r[(i) + 1]), t[(i) + 1] = HIGH32(r[i], r[(i) + 1]);
    STEP1(0) STEP1(2) STEP1(4) STEP1(6) STEP1(8) STEP1(10) STEP1(12) STEP1(14)
#define STEP2(i)                                                                                                       \
    r[i] = LOW64(t[i], t[(i) + 2]), r[(i) + 1] = HIGH64(t[i], t[(i) + 2]);                                             \
    r[(i) + 2] = LOW64(t[(i) + 1], t[(i) + 3]), r[(i) + 3] = HIGH64(t[(i) + 1], t[(i) + 3]);
    STEP2(0) STEP2(4) STEP2(8) STEP2(12)
#define STEP3(i)                                                                                                       \
    t[i] = EVEN(r[i], r[(i) + 4]), t[(i) + 4] = ODD(r[i], r[(i) + 4]);                                                 \
    t[(i) + 8] = EVEN(r[(i) + 8], r[(i) + 12]), t[(i) + 12] = ODD(r[(i) + 8], r[(i) + 12]);
    STEP3(0) STEP3(1) STEP3(2) STEP3(3)
#define STEP4(i)                                                                                                       \
    r[i] = EVEN(t[i], t[(i) + 8]), r[(i) + 8] = ODD(t[i], t[(i) + 8]);                                                 \
    r[(i) + 4] = EVEN(t[(i) + 4], t[(i) + 12]), r[(i) + 12] = ODD(t[(i) + 4], t[(i) + 12]);
    STEP4(0) STEP4(1) STEP4(2) STEP4(3)
}

/* The number of a word must be a constant: it says which register is meant. */
#define EACH(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11) do(12) do(13) do(14) do(15)
#define EIGHT_ROUNDS(from, i)                                                                                          \
    one_round(a, b, c, &d, e, f, g, &h, sha_constants[(from) + (i)], w[i]);                                            \
    one_round(h, a, b, &c, d, e, f, &g, sha_constants[(from) + (i) + 1], w[(i) + 1]);                                  \
    one_round(g, h, a, &b, c, d, e, &f, sha_constants[(from) + (i) + 2], w[(i) + 2]);                                  \
    one_round(f, g, h, &a, b, c, d, &e, sha_constants[(from) + (i) + 3], w[(i) + 3]);                                  \
    one_round(e, f, g, &h, a, b, c, &d, sha_constants[(from) + (i) + 4], w[(i) + 4]);                                  \
    one_round(d, e, f, &g, h, a, b, &c, sha_constants[(from) + (i) + 5], w[(i) + 5]);                                  \
    one_round(c, d, e, &f, g, h, a, &b, sha_constants[(from) + (i) + 6], w[(i) + 6]);                                  \
    one_round(b, c, d, &e, f, g, h, &a, sha_constants[(from) + (i) + 7], w[(i) + 7]);
#define LATER(i)                                                                                                       \
    w[i] = add(add(w[i], w[((i) + 9) & 15]),                                                                           \
               add(TURN_AND_SHIFT(w[((i) + 1) & 15], 7, 18, 3), TURN_AND_SHIFT(w[((i) + 14) & 15], 17, 19, 10)));
#define AHEAD 512 /* bytes: the messages are read at sixteen places, more than a processor foresees by itself */

static void run(vec state[8], const uint8_t *const *p, size_t blocks)
{
    const vec flip = _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
    for (size_t at = 0; at < blocks * SHA_BLOCK; at += SHA_BLOCK) {
        vec w[16];
#define LOAD(i)                                                                                                        \
    w[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(p[i] + at), flip);                                                   \
    _mm_prefetch((const char *)(p[i] + at) + AHEAD, _MM_HINT_T0);
        EACH(LOAD)
        columns(w);
        vec a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
        EIGHT_ROUNDS(0, 0)
        EIGHT_ROUNDS(0, 8)
        for (unsigned k = 16; k < 64; k += 16) {
            EACH(LATER)
            EIGHT_ROUNDS(k, 0)
            EIGHT_ROUNDS(k, 8)
        }
        const vec made[8] = {a, b, c, d, e, f, g, h};
        for (unsigned i = 0; i < 8; i++)
            state[i] = add(state[i], made[i]);
    }
}

void sha_blocks_avx512(uint32_t s[][8], const uint8_t *const *p, size_t blocks)
{
    uint32_t turned[8][SHA_LANES];
    vec state[8];
    for (unsigned i = 0; i < 8 * SHA_LANES; i++)
        turned[i % 8][i / 8] = s[i / 8][i % 8];
    for (unsigned i = 0; i < 8; i++)
        state[i] = _mm512_loadu_si512(turned[i]);
    run(state, p, blocks);
    for (unsigned i = 0; i < 8; i++)
        _mm512_storeu_si512(turned[i], state[i]);
    for (unsigned i = 0; i < 8 * SHA_LANES; i++)
        s[i / 8][i % 8] = turned[i % 8][i / 8];
}

#endif
