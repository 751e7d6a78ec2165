/* rANS decoding, sixteen lanes a vector (rans_priv.h). */
#if defined __x86_64__
#include "delta/rans_x86_priv.h"

/* One step of 16 lanes, whose tables' numbers stand in `table`: symbols to `sym`; returns how many words were read. */
static inline __attribute__((always_inline)) unsigned step(__m512i *x, const uint32_t *tables, __m512i mask,
                                                           __m128i bits, const uint8_t *p, uint8_t *sym, __m128i table)
{
    __m512i v = *x, k = _mm512_cvtepu8_epi32(table);
    __m512i at = _mm512_add_epi32(_mm512_sll_epi32(k, bits), _mm512_and_si512(v, mask));
    __m512i e = _mm512_i32gather_epi32(at, tables, 4);
    _mm_storeu_si128((__m128i *)(void *)sym, _mm512_cvtepi32_epi8(e));
    __m512i freq = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(e, 8), _mm512_set1_epi32(0xfff)),
                                    _mm512_set1_epi32(1));
    v = _mm512_add_epi32(_mm512_mullo_epi32(freq, _mm512_srl_epi32(v, bits)), _mm512_srli_epi32(e, 20));
    __mmask16 low = _mm512_cmplt_epu32_mask(v, _mm512_set1_epi32((int)RANS_LOW));
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    words = _mm512_maskz_expand_epi32(low, words);
    *x = _mm512_mask_or_epi32(v, low, _mm512_slli_epi32(v, 16), words);
    return (unsigned)__builtin_popcount(low);
}

uint32_t rans_run_avx512(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    __m512i a = _mm512_loadu_si512(r->x), b = _mm512_loadu_si512(r->x + 16);
    const __m512i mask = _mm512_set1_epi32((1 << r->bits) - 1);
    const __m128i bits = _mm_cvtsi32_si128((int)r->bits);
    const uint32_t *tables = r->tables;
    const uint8_t *p = r->p, *end = r->end;
    const struct rans_numbers numbers = rans_numbers_of(r);
    uint32_t i = 0;
    for (; n - i >= RANS_MANY && end - p >= 2 * RANS_MANY; i += RANS_MANY) {
        __m256i table = rans_tables_of(&numbers, key + i);
        p += 2 * step(&a, tables, mask, bits, p, sym + i, _mm256_castsi256_si128(table));
        p += 2 * step(&b, tables, mask, bits, p, sym + i + 16, _mm256_extracti128_si256(table, 1));
    }
    _mm512_storeu_si512(r->x, a);
    _mm512_storeu_si512(r->x + 16, b);
    r->p = p;
    return i;
}
#endif
