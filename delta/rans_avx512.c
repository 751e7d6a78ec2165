/* rANS decoding, sixteen lanes a vector (rans_priv.h). */
#if defined __x86_64__
#include "delta/rans_x86_priv.h"

/* Every machine with AVX-512 has these; popcnt is needed for each vector of words. */
#define TARGET __attribute__((target("popcnt")))
#define INLINE static inline __attribute__((always_inline, target("popcnt")))

struct fixed { /* what stays through a run */
    const uint32_t *tables;
    __m512i mask, low;
    __m128i bits;
};

/* States whose bit is set take a word each, in order; returns how many. */
INLINE unsigned refill(__m512i *x, __m512i v, const struct fixed *f, const uint8_t *p)
{
    __mmask16 low = _mm512_cmplt_epu32_mask(v, f->low);
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    words = _mm512_maskz_expand_epi32(low, words);
    *x = _mm512_mask_or_epi32(v, low, _mm512_slli_epi32(v, 16), words);
    return (unsigned)__builtin_popcount(low);
}

/* One step of 16 lanes, whose tables' numbers stand in `table`: symbols to `sym`; returns how many words were read. */
INLINE unsigned step(__m512i *x, const struct fixed *f, const uint8_t *p, uint8_t *sym, __m128i table)
{
    __m512i v = *x, k = _mm512_cvtepu8_epi32(table);
    __m512i at = _mm512_add_epi32(_mm512_sll_epi32(k, f->bits), _mm512_and_si512(v, f->mask));
    __m512i e = _mm512_i32gather_epi32(at, f->tables, 4);
    _mm_storeu_si128((__m128i *)(void *)sym, _mm512_cvtepi32_epi8(e));
    __m512i freq = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(e, 8), _mm512_set1_epi32(0xfff)),
                                    _mm512_set1_epi32(1));
    v = _mm512_add_epi32(_mm512_mullo_epi32(freq, _mm512_srl_epi32(v, f->bits)), _mm512_srli_epi32(e, 20));
    return refill(x, v, f, p);
}

INLINE uint32_t run(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n, const unsigned lanes)
{
    __m512i x[RANS_MOST / 16];
    const struct fixed f = {r->tables, _mm512_set1_epi32((1 << r->bits) - 1), _mm512_set1_epi32((int)RANS_LOW),
                            _mm_cvtsi32_si128((int)r->bits)};
    const struct rans_numbers numbers = rans_numbers_of(r);
    const uint8_t *p = r->p, *end = r->end;
    uint32_t i = 0;
    for (unsigned k = 0; k < lanes / 16; k++)
        x[k] = _mm512_loadu_si512(r->x + 16 * k);
    for (; n - i >= lanes && end - p >= 2 * (ptrdiff_t)lanes; i += lanes) {
        for (unsigned k = 0; k < lanes; k += 32) {
            __m256i table = rans_tables_of(&numbers, key + i + k);
            p += 2 * step(&x[k / 16], &f, p, sym + i + k, _mm256_castsi256_si128(table));
            p += 2 * step(&x[k / 16 + 1], &f, p, sym + i + k + 16, _mm256_extracti128_si256(table, 1));
        }
    }
    for (unsigned k = 0; k < lanes / 16; k++)
        _mm512_storeu_si512(r->x + 16 * k, x[k]);
    r->p = p;
    return i;
}

/* ---- near symbols ------------------------------------------------------------------------------------------------------------ */
/* Where nearly all symbols are the first few, comparisons with the edges of these, which registers hold for all contexts, are much
 * sooner done than lookups of every slot. */
struct edges {
    __m512i of[RANS_NEAR][2];
};

INLINE __m512i lower(__m512i a) { return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a)); }
INLINE __m512i upper(__m512i a) { return _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a, 1)); }

/* What 16 states become, whose symbols end at slots a, b and c; which of the symbols are the second and more, the third, and others. */
INLINE __m512i next_of(__m512i x, __m512i a, __m512i b, __m512i c, const struct fixed *f, __mmask16 above[RANS_NEAR])
{
    __m512i slot = _mm512_and_si512(x, f->mask);
    above[0] = _mm512_cmpge_epu32_mask(slot, a);
    above[1] = _mm512_cmpge_epu32_mask(slot, b);
    above[2] = _mm512_cmpge_epu32_mask(slot, c);
    __m512i from = _mm512_mask_mov_epi32(_mm512_maskz_mov_epi32(above[0], a), above[1], b);
    __m512i freq = _mm512_mask_mov_epi32(a, above[0], _mm512_sub_epi32(b, a));
    freq = _mm512_mask_mov_epi32(freq, above[1], _mm512_sub_epi32(c, b));
    return _mm512_add_epi32(_mm512_mullo_epi32(freq, _mm512_srl_epi32(x, f->bits)), _mm512_sub_epi32(slot, from));
}

/* 32 lanes; false, and nothing done, where one of them has another symbol. */
INLINE bool near_step(__m512i *x, const struct edges *t, const struct fixed *f, const uint8_t **p, uint8_t *sym, const uint8_t *key)
{
    __mmask16 above[2][RANS_NEAR];
    __m512i k = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)key));
    __m512i a = _mm512_permutex2var_epi16(t->of[0][0], k, t->of[0][1]);
    __m512i b = _mm512_permutex2var_epi16(t->of[1][0], k, t->of[1][1]);
    __m512i c = _mm512_permutex2var_epi16(t->of[2][0], k, t->of[2][1]);
    __m512i v = next_of(x[0], lower(a), lower(b), lower(c), f, above[0]);
    __m512i w = next_of(x[1], upper(a), upper(b), upper(c), f, above[1]);
    if (above[0][2] | above[1][2])
        return false;
    __m256i minus = _mm256_add_epi8(_mm256_movm_epi8((__mmask32)above[1][0] << 16 | above[0][0]),
                                    _mm256_movm_epi8((__mmask32)above[1][1] << 16 | above[0][1]));
    _mm256_storeu_si256((__m256i *)(void *)sym, _mm256_sub_epi8(_mm256_setzero_si256(), minus));
    *p += 2 * refill(&x[0], v, f, *p);
    *p += 2 * refill(&x[1], w, f, *p);
    return true;
}

/* Runs of 32 lanes that are looked at together: when one in eight of them has other symbols, the lookups are as soon done. */
#define LOOK 128

INLINE uint32_t run_near(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n, const unsigned lanes)
{
    __m512i x[RANS_MOST / 16];
    const struct fixed f = {r->tables, _mm512_set1_epi32((1 << r->bits) - 1), _mm512_set1_epi32((int)RANS_LOW),
                            _mm_cvtsi32_si128((int)r->bits)};
    const struct rans_numbers numbers = rans_numbers_of(r);
    const uint8_t *p = r->p, *end = r->end;
    uint32_t i = 0;
    struct edges t;
    for (unsigned k = 0; k < RANS_NEAR; k++)
        for (unsigned h = 0; h < 2; h++)
            t.of[k][h] = _mm512_loadu_si512(r->edge[k] + 32 * h);
    for (unsigned k = 0; k < lanes / 16; k++)
        x[k] = _mm512_loadu_si512(r->x + 16 * k);
    for (; n - i >= lanes && end - p >= 2 * (ptrdiff_t)lanes; i += lanes) {
        for (unsigned k = 0; k < lanes; k += 32) {
            if (__builtin_expect(near_step(x + k / 16, &t, &f, &p, sym + i + k, key + i + k), 1))
                continue;
            __m256i table = rans_tables_of(&numbers, key + i + k);
            p += 2 * step(&x[k / 16], &f, p, sym + i + k, _mm256_castsi256_si128(table));
            p += 2 * step(&x[k / 16 + 1], &f, p, sym + i + k + 16, _mm256_extracti128_si256(table, 1));
            r->far++;
        }
    }
    for (unsigned k = 0; k < lanes / 16; k++)
        _mm512_storeu_si512(r->x + 16 * k, x[k]);
    r->p = p;
    r->seen += i / 32;
    return i;
}

TARGET uint32_t rans_run_avx512(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    uint32_t i = 0, done = 1;
    while (r->is_near && done) {
        uint32_t m = SKF_MIN(n - i, 32u * LOOK);
        done = r->lanes == RANS_MANY ? run_near(r, sym + i, key + i, m, RANS_MANY) : run_near(r, sym + i, key + i, m, RANS_MOST);
        i += done;
        if (r->seen < LOOK)
            continue;
        r->is_near = r->far < r->seen / 8;
        r->far = r->seen = 0;
    }
    if (r->lanes == RANS_MANY)
        return i + run(r, sym + i, key + i, n - i, RANS_MANY);
    return i + run(r, sym + i, key + i, n - i, RANS_MOST);
}
#endif
