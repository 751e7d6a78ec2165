/* Predictions of codes, sixteen a vector, and changes of ordered codes (blocks_priv.h). */
#if defined __x86_64__
#include "delta/blocks_priv.h"

#include <immintrin.h>

void skf_predict_avx512(const int8_t *code, const float *guess, const struct skf_map *map, uint32_t n, unsigned unit,
                        const struct skf_range *range, const struct skf_predictions *out)
{
    const __m512 least = _mm512_set1_ps(-1000.0f), most = _mm512_set1_ps(1000.0f), magic = _mm512_set1_ps(12582912.0f);
    const __m512i low = _mm512_set1_epi32(range->low), high = _mm512_set1_epi32(range->high);
    const __m512i end_low = _mm512_set1_epi32(range->end_low), end_high = _mm512_set1_epi32(range->end_high);
    const __m512i part_of = _mm512_setr_epi32(5, 5, 4, 4, 3, 3, 2, 1, 0, 1, 2, 3, 3, 4, 4, 5);
    uint32_t i = 0;
    for (uint32_t u = 0; u < n; u++) {
        const __m512 ratio = _mm512_set1_ps(map[u].ratio), offset = _mm512_set1_ps(map[u].offset);
        const __m512 slope = _mm512_set1_ps(map[u].slope);
        const __m512i class = _mm512_set1_epi32(map[u].class), end_class = _mm512_set1_epi32(map[u].end_class);
        for (unsigned e = 0; e < unit; e += 16, i += 16) {
            __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(code + i)));
            __m512 x = _mm512_add_ps(_mm512_mul_ps(ratio, _mm512_cvtepi32_ps(q)), offset);
            if (guess)
                x = _mm512_add_ps(x, _mm512_mul_ps(_mm512_loadu_ps(guess + i), slope));
            x = _mm512_min_ps(_mm512_max_ps(x, least), most); /* what is no number becomes the least */
            x = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(16.0f)), magic);
            __m512i at = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x4b400000 - 8));
            __m512i c = _mm512_max_epi32(_mm512_min_epi32(_mm512_srai_epi32(at, 4), high), low);
            __m512i part = _mm512_and_si512(at, _mm512_set1_epi32(15));
            __mmask16 top = _mm512_cmpge_epi32_mask(q, end_high);
            __mmask16 end = (__mmask16)(_mm512_cmple_epi32_mask(q, end_low) | top);
            __mmask16 other = _mm512_cmpneq_epi32_mask(c, q), down = _mm512_cmplt_epi32_mask(part, _mm512_set1_epi32(8));
            __m512i key = _mm512_add_epi32(_mm512_permutexvar_epi32(part, part_of), class);
            key = _mm512_mask_add_epi32(key, end, end_class, _mm512_maskz_set1_epi32(other, 1));
            c = _mm512_mask_mov_epi32(c, end, q);
            down = (__mmask16)((down & ~end) | top);
            _mm_storeu_si128((__m128i *)(void *)(out->code + i), _mm512_cvtepi32_epi8(c));
            _mm_storeu_si128((__m128i *)(void *)(out->key + i), _mm512_cvtepi32_epi8(key));
            _mm_storeu_si128((__m128i *)(void *)(out->turn + i), _mm_movm_epi8(down));
        }
    }
}

/* Every machine with AVX-512 has BMI2, whose pdep finds the k-th bit that is set. */
struct sizes { /* of a block's codes */
    uint32_t small, middling, large; /* which are */
    unsigned n, n2;                  /* how many are small; and how many are not large */
};

static inline __attribute__((always_inline, target("bmi,bmi2,popcnt"))) struct sizes sizes_of(const uint8_t *code)
{
    __m256i size = _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(const void *)code));
    uint32_t more = _mm256_cmpge_epu8_mask(size, _mm256_set1_epi8(32)), large = _mm256_cmpge_epu8_mask(size, _mm256_set1_epi8(64));
    return (struct sizes){~more, more & ~large, large, 32 - (unsigned)__builtin_popcount(more), 32 - (unsigned)__builtin_popcount(large)};
}

__attribute__((target("bmi,bmi2,popcnt"))) void skf_ordered_avx512(const struct skf_ordered *o, const struct skf_changes *c)
{
    const int8_t *d = c->d;
    for (uint32_t i = 0; i < c->n; i++) {
        const size_t at = (size_t)(o->same ? o->same[c->unit[i]] : c->unit[i]) * o->stride;
        const struct sizes s = sizes_of(o->old + at);
        for (uint32_t m = c->mask[i]; m; m &= m - 1, d++) {
            uint32_t e = _tzcnt_u32(m), set = e < s.n ? s.small : e < s.n2 ? s.middling : s.large;
            uint8_t *q = o->neu + at + _tzcnt_u32(_pdep_u32(1u << (e - (e < s.n ? 0 : e < s.n2 ? s.n : s.n2)), set));
            *q = (uint8_t)(*q + *d);
        }
    }
}

/* The same for all of a unit's changes at once. */
__attribute__((target("bmi,bmi2,popcnt,avx512vbmi2"))) void skf_ordered_vbmi2(const struct skf_ordered *o, const struct skf_changes *c)
{
    const int8_t *d = c->d;
    for (uint32_t i = 0; i < c->n; i++) {
        const size_t at = (size_t)(o->same ? o->same[c->unit[i]] : c->unit[i]) * o->stride;
        const struct sizes s = sizes_of(o->old + at);
        const uint64_t mask = c->mask[i];
        const uint32_t small = _pdep_u32((uint32_t)mask, s.small), large = _pdep_u32((uint32_t)(mask >> s.n2), s.large);
        const uint32_t middling = _pdep_u32((uint32_t)(mask >> s.n), s.middling);
        const int8_t *d2 = d + __builtin_popcount(small), *d3 = d2 + __builtin_popcount(middling);
        __m256i sum = _mm256_loadu_si256((const __m256i *)(const void *)(o->neu + at));
        sum = _mm256_add_epi8(sum, _mm256_maskz_expand_epi8(small, _mm256_loadu_si256((const __m256i *)(const void *)d)));
        sum = _mm256_add_epi8(sum, _mm256_maskz_expand_epi8(middling, _mm256_loadu_si256((const __m256i *)(const void *)d2)));
        sum = _mm256_add_epi8(sum, _mm256_maskz_expand_epi8(large, _mm256_loadu_si256((const __m256i *)(const void *)d3)));
        d = d3 + __builtin_popcount(large);
        _mm256_storeu_si256((__m256i *)(void *)(o->neu + at), sum);
    }
}

__attribute__((target("bmi,bmi2,popcnt,avx512vbmi2"))) void skf_order_diffs_vbmi2(const struct skf_ordered *o, uint32_t n, int8_t *d)
{
    for (uint32_t i = 0; i < n; i++, d += BLOCKS_ORDERED) {
        const size_t at = (size_t)(o->same ? o->same[i] : i) * o->stride;
        const struct sizes s = sizes_of(o->old + at);
        __m256i was = _mm256_loadu_si256((const __m256i *)(const void *)(o->old + at));
        __m256i by = _mm256_sub_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(o->neu + at)), was);
        _mm256_storeu_si256((__m256i *)(void *)d, _mm256_maskz_compress_epi8(s.small, by));
        _mm256_storeu_si256((__m256i *)(void *)(d + s.n), _mm256_maskz_compress_epi8(s.middling, by));
        _mm256_storeu_si256((__m256i *)(void *)(d + s.n2), _mm256_maskz_compress_epi8(s.large, by));
    }
}
#endif
