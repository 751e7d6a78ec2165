/* Predictions of codes, eight a vector, and peaks of blocks (blocks_priv.h). */
#if defined __x86_64__
#include "delta/blocks_priv.h"

#include <immintrin.h>

struct eight { /* of 32 bits */
    __m256i code, key, turn;
};
struct limits {
    __m256i low, high, end_low, end_high;
};

static inline __attribute__((always_inline)) struct eight predict(const int8_t *code, const float *guess,
                                                                  const struct skf_map *m, const struct limits *l)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    const __m256i below = _mm256_setr_epi32(5, 5, 4, 4, 3, 3, 2, 1), above = _mm256_setr_epi32(0, 1, 2, 3, 3, 4, 4, 5);
    __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)code));
    __m256 x = _mm256_mul_ps(_mm256_set1_ps(m->ratio), _mm256_cvtepi32_ps(q));
    x = _mm256_add_ps(x, _mm256_set1_ps(m->offset));
    if (guess)
        x = _mm256_add_ps(x, _mm256_mul_ps(_mm256_loadu_ps(guess), _mm256_set1_ps(m->slope)));
    /* What is no number becomes the least. */
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-1000.0f)), _mm256_set1_ps(1000.0f));
    x = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(16.0f)), magic);
    __m256i at = _mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x4b400000 - 8));
    __m256i c = _mm256_max_epi32(_mm256_min_epi32(_mm256_srai_epi32(at, 4), l->high), l->low);
    __m256i part = _mm256_and_si256(at, _mm256_set1_epi32(15)), down = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), part);
    __m256i key = _mm256_blendv_epi8(_mm256_permutevar8x32_epi32(above, part), _mm256_permutevar8x32_epi32(below, part),
                                     down);
    key = _mm256_add_epi32(key, _mm256_set1_epi32(m->class));
    __m256i top = _mm256_or_si256(_mm256_cmpgt_epi32(q, l->end_high), _mm256_cmpeq_epi32(q, l->end_high));
    __m256i bottom = _mm256_or_si256(_mm256_cmpgt_epi32(l->end_low, q), _mm256_cmpeq_epi32(q, l->end_low));
    __m256i end = _mm256_or_si256(top, bottom);
    /* One more where they differ: equality is -1. */
    __m256i end_key = _mm256_add_epi32(_mm256_cmpeq_epi32(c, q), _mm256_set1_epi32(m->end_class + 1));
    key = _mm256_blendv_epi8(key, end_key, end);
    return (struct eight){_mm256_blendv_epi8(c, q, end), key, _mm256_blendv_epi8(down, top, end)};
}

/* The lowest bytes of both, in order. */
static inline __attribute__((always_inline)) void store(void *to, __m256i a, __m256i b)
{
    const __m256i bytes = _mm256_set1_epi32(0x0c080400);
    __m256i both = _mm256_unpacklo_epi32(_mm256_shuffle_epi8(a, bytes), _mm256_shuffle_epi8(b, bytes));
    both = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    _mm_storeu_si128(to, _mm256_castsi256_si128(both));
}

void skf_predict_avx2(const int8_t *code, const float *guess, const struct skf_map *map, uint32_t n, unsigned unit,
                      const struct skf_range *range, const struct skf_predictions *out)
{
    const struct limits l = {_mm256_set1_epi32(range->low), _mm256_set1_epi32(range->high),
                             _mm256_set1_epi32(range->end_low), _mm256_set1_epi32(range->end_high)};
    uint32_t i = 0;
    for (uint32_t u = 0; u < n; u++)
        for (unsigned e = 0; e < unit; e += 16, i += 16) {
            struct eight a = predict(code + i, guess ? guess + i : NULL, &map[u], &l);
            struct eight b = predict(code + i + 8, guess ? guess + i + 8 : NULL, &map[u], &l);
            store(out->code + i, a.code, b.code);
            store(out->key + i, a.key, b.key);
            store(out->turn + i, a.turn, b.turn);
        }
}

void skf_peaks_avx2(const uint8_t *code, size_t stride, uint32_t n, uint8_t *at)
{
    const __m256i most = _mm256_set1_epi8(127);
    for (uint32_t i = 0; i < n; i++, code += stride) {
        __m256i size = _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(const void *)code));
        uint64_t set = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(size, most), size));
        at[i] = (uint8_t)__builtin_ctzll(set | 1ull << 32);
    }
}
#endif
