/* rANS decoding, eight lanes a vector (rans_priv.h). */
#if defined __x86_64__
#include "delta/rans_x86_priv.h"

/* Where each of eight lanes finds its word, when those whose bit is set read one each in order: 4 bits a lane. */
static void make_places(uint32_t place[256])
{
    for (unsigned m = 0; m < 256; m++) {
        uint32_t v = 0;
        for (unsigned lane = 0, k = 0; lane < 8; lane++)
            if (m >> lane & 1)
                v |= k++ << 4 * lane;
        place[m] = v;
    }
}

static inline __attribute__((always_inline)) unsigned step(__m256i *x, const uint32_t *tables, __m256i mask,
                                                           __m128i bits, const uint32_t *place, const uint8_t *p,
                                                           uint8_t *sym, __m128i table)
{
    __m256i v = *x, k = _mm256_cvtepu8_epi32(table);
    __m256i at = _mm256_add_epi32(_mm256_sll_epi32(k, bits), _mm256_and_si256(v, mask));
    __m256i e = _mm256_i32gather_epi32((const int *)(const void *)tables, at, 4);
    const __m256i bytes = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1,
                                           -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i s = _mm256_shuffle_epi8(e, bytes);
    skf_put_le32(sym, (uint32_t)_mm256_extract_epi32(s, 0));
    skf_put_le32(sym + 4, (uint32_t)_mm256_extract_epi32(s, 4));
    __m256i freq = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(e, 8), _mm256_set1_epi32(0xfff)),
                                    _mm256_set1_epi32(1));
    v = _mm256_add_epi32(_mm256_mullo_epi32(freq, _mm256_srl_epi32(v, bits)), _mm256_srli_epi32(e, 20));
    /* below 2^16: nothing in the upper half */
    __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(v, 16), _mm256_setzero_si256());
    unsigned m = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low));
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i from = _mm256_srlv_epi32(_mm256_set1_epi32((int)place[m]), shifts);
    words = _mm256_permutevar8x32_epi32(words, from);
    __m256i fresh = _mm256_or_si256(_mm256_slli_epi32(v, 16), words);
    *x = _mm256_blendv_epi8(v, fresh, low);
    return (unsigned)__builtin_popcount(m);
}

static inline __attribute__((always_inline)) uint32_t run(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n,
                                                          const unsigned lanes)
{
    uint32_t place[256];
    __m256i x[RANS_MOST / 8];
    make_places(place);
    for (unsigned k = 0; k < lanes / 8; k++)
        x[k] = _mm256_loadu_si256((const __m256i *)(const void *)(r->x + 8 * k));
    const __m256i mask = _mm256_set1_epi32((1 << r->bits) - 1);
    const __m128i bits = _mm_cvtsi32_si128((int)r->bits);
    const uint32_t *tables = r->tables;
    const uint8_t *p = r->p, *end = r->end;
    const struct rans_numbers numbers = rans_numbers_of(r);
    uint32_t i = 0;
    for (; n - i >= lanes && end - p >= 2 * (ptrdiff_t)lanes; i += lanes) {
        for (unsigned k = 0; k < lanes / 32; k++) {
            __m256i all = rans_tables_of(&numbers, key + i + 32 * k);
            __m128i lo = _mm256_castsi256_si128(all), hi = _mm256_extracti128_si256(all, 1);
            uint8_t *to = sym + i + 32 * k;
            p += 2 * step(&x[4 * k], tables, mask, bits, place, p, to, lo);
            p += 2 * step(&x[4 * k + 1], tables, mask, bits, place, p, to + 8, _mm_unpackhi_epi64(lo, lo));
            p += 2 * step(&x[4 * k + 2], tables, mask, bits, place, p, to + 16, hi);
            p += 2 * step(&x[4 * k + 3], tables, mask, bits, place, p, to + 24, _mm_unpackhi_epi64(hi, hi));
        }
    }
    for (unsigned k = 0; k < lanes / 8; k++)
        _mm256_storeu_si256((__m256i *)(void *)(r->x + 8 * k), x[k]);
    r->p = p;
    return i;
}

uint32_t rans_run_avx2(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    return r->lanes == RANS_MANY ? run(r, sym, key, n, RANS_MANY) : run(r, sym, key, n, RANS_MOST);
}
#endif
