/* Runs of guessed bytes, sixteen blocks or codes a vector (blocks_priv.h): guesses are made where they are used. */
#if defined __x86_64__
#include "delta/blocks_priv.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- guesses ----------------------------------------------------------------------------------------------------------------- */
/* The loops below take u 128 higher than it is; factors beyond the rank as 0. */
INLINE void raised(const struct skf_factors *f, uint32_t row, uint8_t up[SKF_RANK_MAX])
{
    const int8_t *u = f->u + (size_t)row * f->rank;
    memset(up, 0, SKF_RANK_MAX);
    for (unsigned k = 0; k < f->rank && k < SKF_RANK_MAX; k++)
        up[k] = (uint8_t)(u[k] + 128);
}

struct guess { /* for columns of one row */
    __m512i by[SKF_RANK_MAX / 4];
    __m512 unit;
    const int8_t *packed; /* from the first column asked for on */
    const int32_t *base;
};

INLINE struct guess guess_of(const struct skf_factors *f, uint32_t row, uint32_t column)
{
    uint8_t up[SKF_RANK_MAX];
    struct guess g = {.unit = _mm512_set1_ps(skf_factors_unit(f)), .packed = f->packed + (size_t)column * SKF_RANK_MAX,
                      .base = f->base + column};
    raised(f, row, up);
    for (unsigned k = 0; k < SKF_RANK_MAX / 4; k++)
        g.by[k] = _mm512_broadcastd_epi32(_mm_loadu_si32(up + 4 * k));
    return g;
}

/* For sixteen columns from column j on, a multiple of sixteen. */
INLINE __m512 guess_at(const struct guess *g, unsigned fours, size_t j)
{
    __m512i sum = _mm512_loadu_si512(g->base + j);
    for (unsigned k = 0; k < fours; k++)
        sum = _mm512_dpbusd_epi32(sum, g->by[k], _mm512_loadu_si512(g->packed + j * SKF_RANK_MAX + 64 * k));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), g->unit);
}

/* Rows of the blocks of a run: how many of these from block k on are in one. */
INLINE uint32_t of_row(const struct skf_bytes_run *r, uint32_t k, uint32_t *row, uint32_t *block)
{
    const uint32_t stripe = r->b->levels.stripe;
    *row = (r->first + k) / stripe;
    *block = (r->first + k) % stripe;
    return SKF_MIN(r->n - k, stripe - *block);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------- */
INLINE __m512i places_of(size_t stride)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
}

/* The steps of sixteen blocks, as skf_half_at has them. */
INLINE __m512 steps_of(const uint8_t *half, __m512i places, __mmask16 lanes)
{
    __m512i h = _mm512_and_si512(_mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, places, half, 1), _mm512_set1_epi32(0xffff));
    __mmask16 finite = _mm512_cmpneq_epi32_mask(_mm512_and_si512(h, _mm512_set1_epi32(0x7c00)), _mm512_set1_epi32(0x7c00));
    return _mm512_maskz_cvtph_ps(finite, _mm512_cvtepi32_epi16(h));
}

/* The classes of their contexts. */
INLINE __m512i classes_of(__m512 step, const int32_t at[16])
{
    static const uint8_t above[BLOCKS_CLASSES - 1] = {17, 19, 21, 23, 25, 28}; /* skf_step_class: where each begins */
    __m512i c = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(step), 21), _mm512_set1_epi32(1023));
    c = _mm512_sub_epi32(_mm512_add_epi32(c, _mm512_loadu_si512(at)), _mm512_set1_epi32(448));
    __m512i class = _mm512_setzero_si512();
    for (unsigned k = 0; k < BLOCKS_CLASSES - 1; k++)
        class = _mm512_mask_add_epi32(class, _mm512_cmpge_epi32_mask(c, _mm512_set1_epi32(above[k])), class, _mm512_set1_epi32(1));
    return class;
}

/* What the scales of a run's blocks are counted from. */
INLINE void places_in_rows(const struct skf_bytes_run *r, int32_t at[SKF_BYTES_RUN])
{
    uint32_t row, block;
    for (uint32_t k = 0, n; k < r->n; k += n) {
        n = of_row(r, k, &row, &block);
        for (uint32_t i = k; i < k + n; i++)
            at[i] = r->base + skf_level_at(&r->b->levels, row);
    }
}

INLINE __mmask16 lanes_of(uint32_t n) { return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff); }

/* ---- predictions ------------------------------------------------------------------------------------------------------------- */
/* A sixteenth of a cell is the unit. */
struct maps {
    float ratio[SKF_BYTES_RUN], slope[SKF_BYTES_RUN];
    uint8_t class[SKF_BYTES_RUN], end_class[SKF_BYTES_RUN];
};

/* Those of sixteen blocks from block i of the run on. */
INLINE void maps_of(const struct skf_bytes_run *r, uint32_t i, const int32_t at[SKF_BYTES_RUN], __m512i places, struct maps *m)
{
    const __mmask16 lanes = lanes_of(r->n - i);
    const __m512 one = _mm512_set1_ps(1.0f), sixteen = _mm512_set1_ps(16.0f);
    const unsigned half = r->b->l->half[0];
    __m512 was = steps_of(skf_old_block(r->b, r->first + i) + half, places, lanes);
    __m512 is = steps_of(skf_new_block(r->b, r->first + i) + half, places, lanes);
    __m512 ratio = _mm512_div_ps(was, is), slope = _mm512_div_ps(one, is);
    __mmask16 near = _mm512_cmp_ps_mask(_mm512_abs_ps(ratio), _mm512_set1_ps(1e4f), _CMP_LT_OQ) &
                     _mm512_cmp_ps_mask(_mm512_abs_ps(slope), _mm512_set1_ps(1e9f), _CMP_LT_OQ);
    __m512i class = classes_of(was, at + i);
    __m512i end = _mm512_set1_epi32(BLOCKS_CLASSES * BLOCKS_PARTS);
    end = _mm512_mask_add_epi32(end, _mm512_cmpge_epi32_mask(class, _mm512_set1_epi32(2)), end, _mm512_set1_epi32(2));
    end = _mm512_mask_add_epi32(end, _mm512_cmpge_epi32_mask(class, _mm512_set1_epi32(5)), end, _mm512_set1_epi32(2));
    class = _mm512_mullo_epi32(class, _mm512_set1_epi32(BLOCKS_PARTS));
    _mm512_storeu_ps(m->ratio + i, _mm512_mul_ps(_mm512_mask_mov_ps(one, near, ratio), sixteen));
    _mm512_storeu_ps(m->slope + i, _mm512_mul_ps(_mm512_maskz_mov_ps(near, slope), sixteen));
    _mm_storeu_si128((__m128i *)(void *)(m->class + i), _mm512_cvtepi32_epi8(class));
    _mm_storeu_si128((__m128i *)(void *)(m->end_class + i), _mm512_cvtepi32_epi8(end));
}

/* Where sixteen codes lie on the new grid: bits whose lower half is that in sixteenths. */
INLINE __m512i place_of(const uint8_t *code, __m512 guess, __m512 ratio, __m512 slope)
{
    const __m512 least = _mm512_set1_ps(-16000.0f), most = _mm512_set1_ps(16000.0f), magic = _mm512_set1_ps(12582912.0f);
    __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)code));
    __m512 x = _mm512_add_ps(_mm512_mul_ps(ratio, _mm512_cvtepi32_ps(q)), _mm512_mul_ps(guess, slope));
    return _mm512_castps_si512(_mm512_add_ps(_mm512_min_ps(_mm512_max_ps(x, least), most), magic));
}

/* Block i of the run; `code` and all of `out` where it begins. */
INLINE void predict_block(const uint8_t *code, const struct guess *g, unsigned fours, size_t column, const struct maps *m, uint32_t i,
                          const struct skf_predictions *out)
{
    const __m512i even = _mm512_setr_epi32(0x20000, 0x60004, 0xa0008, 0xe000c, 0x120010, 0x160014, 0x1a0018, 0x1e001c, 0x220020,
                                           0x260024, 0x2a0028, 0x2e002c, 0x320030, 0x360034, 0x3a0038, 0x3e003c);
    const __m256i part_of = _mm256_setr_epi8(5, 5, 4, 4, 3, 3, 2, 1, 0, 1, 2, 3, 3, 4, 4, 5, 5, 5, 4, 4, 3, 3, 2, 1, 0, 1, 2, 3, 3, 4, 4, 5);
    const __m256i ends = _mm256_set1_epi8(127);
    const __m512 ratio = _mm512_set1_ps(m->ratio[i]), slope = _mm512_set1_ps(m->slope[i]);
    __m512i a = place_of(code, guess_at(g, fours, column), ratio, slope);
    __m512i b = place_of(code + 16, guess_at(g, fours, column + 16), ratio, slope);
    __m512i at = _mm512_add_epi16(_mm512_permutex2var_epi16(a, even, b), _mm512_set1_epi16(8));
    __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)code);
    __m256i c = _mm512_cvtsepi16_epi8(_mm512_srai_epi16(at, 4));
    __m256i part = _mm256_and_si256(_mm512_cvtepi16_epi8(at), _mm256_set1_epi8(15));
    __mmask32 end = _mm256_cmpge_epu8_mask(_mm256_abs_epi8(q), ends), top = _mm256_cmpeq_epi8_mask(q, ends);
    __mmask32 other = _mm256_mask_cmpneq_epi8_mask(end, c, q), up = _mm256_test_epi8_mask(part, _mm256_set1_epi8(8));
    __m256i key = _mm256_add_epi8(_mm256_shuffle_epi8(part_of, part), _mm256_set1_epi8((char)m->class[i]));
    key = _mm256_mask_mov_epi8(key, end, _mm256_set1_epi8((char)m->end_class[i]));
    key = _mm256_mask_add_epi8(key, other, key, _mm256_set1_epi8(1));
    _mm256_storeu_si256((__m256i *)(void *)out->key, key);
    _mm256_storeu_si256((__m256i *)(void *)out->code, _mm256_mask_mov_epi8(c, end, q));
    _mm256_storeu_si256((__m256i *)(void *)out->turn, _mm256_movm_epi8(~(up | end) | top));
}

INLINE void predict_run(const struct skf_bytes_run *r, const struct skf_predictions *out, const unsigned fours)
{
    const struct skf_blocks *b = r->b;
    const __m512i places = places_of(b->bytes);
    struct skf_predictions to = *out;
    int32_t at[SKF_BYTES_RUN];
    uint32_t row, block;
    struct maps m;
    const uint8_t *code = skf_old_block(b, r->first) + b->l->field[0].low.at;
    places_in_rows(r, at);
    for (uint32_t i = 0; i < r->n; i += 16)
        maps_of(r, i, at, places, &m);
    for (uint32_t i = 0, n; i < r->n; i += n) {
        n = of_row(r, i, &row, &block);
        const struct guess g = guess_of(&b->factors, row, 32 * block);
        for (uint32_t k = 0; k < n; k++, code += b->bytes) {
            predict_block(code, &g, fours, 32 * (size_t)k, &m, i + k, &to);
            to.key += 32;
            to.code += 32;
            to.turn += 32;
        }
    }
}

void skf_bytes_predict_avx512(const struct skf_bytes_run *r, const struct skf_predictions *out)
{
    if (r->b->factors.rank <= 4)
        predict_run(r, out, 1);
    else if (r->b->factors.rank <= 8)
        predict_run(r, out, 2);
    else
        predict_run(r, out, 4);
}

/* ---- halves ------------------------------------------------------------------------------------------------------------------ */
struct peaks { /* of a run's blocks */
    uint64_t has, minus; /* bits of those that have one, and of those that are below 0 */
    uint32_t column[SKF_BYTES_RUN], u[SKF_RANK_MAX / 4][SKF_BYTES_RUN];
    int32_t at[SKF_BYTES_RUN];
};

INLINE void find_peaks(const struct skf_bytes_run *r, unsigned fours, struct peaks *p)
{
    const __m256i most = _mm256_set1_epi8(127);
    const struct skf_blocks *b = r->b;
    const uint8_t *code = skf_old_block(b, r->first) + b->l->field[0].low.at;
    uint8_t up[SKF_RANK_MAX];
    uint32_t row, block;
    p->has = p->minus = 0;
    for (uint32_t i = 0, n; i < r->n; i += n) {
        n = of_row(r, i, &row, &block);
        raised(&b->factors, row, up);
        for (uint32_t k = i; k < i + n; k++, block++, code += b->bytes) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)code);
            uint64_t set = _mm256_cmpge_epu8_mask(_mm256_abs_epi8(q), most) | 1ull << 32;
            unsigned at = (unsigned)__builtin_ctzll(set);
            p->column[k] = 32 * block + (at & 31);
            p->has |= (uint64_t)(at < 32) << k;
            p->minus |= (uint64_t)((uint32_t)_mm256_movepi8_mask(q) >> (at & 31) & 1) << k;
            p->at[k] = r->base + skf_level_at(&b->levels, row);
            for (unsigned four = 0; four < fours; four++)
                p->u[four][k] = skf_le32(up + 4 * four);
        }
    }
}

/* The guesses for the peaks of sixteen blocks from block i of the run on. */
INLINE __m512 peak_guesses(const struct skf_factors *f, const struct peaks *p, uint32_t i, unsigned fours, __mmask16 has)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i column = _mm512_maskz_loadu_epi32(has, p->column + i);
    __m512i at = _mm512_or_si512(_mm512_slli_epi32(_mm512_srli_epi32(column, 4), 6), _mm512_and_si512(column, _mm512_set1_epi32(15)));
    __m512i sum = _mm512_mask_i32gather_epi32(zero, has, column, f->base, 4);
    for (unsigned k = 0; k < fours; k++) {
        __m512i v = _mm512_mask_i32gather_epi32(zero, has, at, f->packed + 64 * k, 4);
        sum = _mm512_dpbusd_epi32(sum, _mm512_maskz_loadu_epi32(has, p->u[k] + i), v);
    }
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(skf_factors_unit(f)));
}

/* The number of reaches that the size of a guess comes to, in the step of the bfloat16 that the largest number was. */
INLINE __m512i reaches_of(__m512 guess, __m512 step)
{
    static const float reach[] = {3, 6, 10, 14, 22};
    const __m512i least = _mm512_set1_epi32(12 << 23);
    __m512i e = _mm512_and_si512(_mm512_castps_si512(_mm512_mul_ps(_mm512_set1_ps(127.0f), step)), _mm512_set1_epi32(0x7f800000));
    __mmask16 is = _mm512_cmpgt_epi32_mask(e, least);
    __m512 unit = _mm512_castsi512_ps(_mm512_sub_epi32(e, least)), size = _mm512_abs_ps(guess);
    __m512i out = _mm512_setzero_si512();
    for (unsigned k = 0; k < SKF_COUNT(reach); k++) {
        __mmask16 reaches = _mm512_mask_cmp_ps_mask(is, size, _mm512_mul_ps(_mm512_set1_ps(reach[k]), unit), _CMP_GE_OQ);
        out = _mm512_mask_add_epi32(out, reaches, out, _mm512_set1_epi32(1));
    }
    return out;
}

void skf_bytes_peaks_avx512(const struct skf_bytes_run *r, uint8_t *key, uint8_t *turn)
{
    const struct skf_blocks *b = r->b;
    const __m512i places = places_of(b->bytes);
    const __m512 zero = _mm512_setzero_ps();
    const unsigned fours = (b->factors.rank + 3) / 4;
    struct peaks p;
    find_peaks(r, fours, &p);
    for (uint32_t i = 0; i < r->n; i += 16) {
        const __mmask16 lanes = lanes_of(r->n - i), has = (__mmask16)(p.has >> i), minus = (__mmask16)(p.minus >> i);
        __m512 step = steps_of(skf_old_block(b, r->first + i) + b->l->half[0], places, lanes);
        __m512 guess = peak_guesses(&b->factors, &p, i, fours, has);
        __m512i k = _mm512_mullo_epi32(classes_of(step, p.at + i), _mm512_set1_epi32(SKF_REACHES));
        k = _mm512_add_epi32(k, reaches_of(guess, step));
        __mmask16 below = _mm512_cmp_ps_mask(guess, zero, _CMP_LT_OQ), is_any = _mm512_cmp_ps_mask(guess, zero, _CMP_NEQ_OQ);
        _mm_mask_storeu_epi8(key + i, lanes, _mm512_cvtepi32_epi8(k));
        _mm_mask_storeu_epi8(turn + i, lanes, _mm_movm_epi8((__mmask16)((below ^ minus) & is_any)));
    }
}

/* ---- codes ------------------------------------------------------------------------------------------------------------------- */
bool skf_bytes_undo_avx512(const uint8_t *sym, const struct skf_predictions *t, uint8_t *code, size_t stride, uint32_t n)
{
    const __m256i one = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    __m256i most = zero;
    for (uint32_t i = 0; i < n; i++, code += stride) {
        const size_t j = (size_t)i * 32;
        __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(sym + j));
        __m256i turn = _mm256_loadu_si256((const __m256i *)(const void *)(t->turn + j));
        __m256i want = _mm256_loadu_si256((const __m256i *)(const void *)(t->code + j));
        most = _mm256_max_epu8(most, s);
        __m256i d = _mm256_and_si256(_mm256_srli_epi16(s, 1), _mm256_set1_epi8(127));
        d = _mm256_xor_si256(_mm256_xor_si256(d, _mm256_sub_epi8(zero, _mm256_and_si256(s, one))), turn);
        _mm256_storeu_si256((__m256i *)(void *)code, _mm256_add_epi8(want, _mm256_sub_epi8(d, turn)));
    }
    return _mm256_cmpge_epu8_mask(most, _mm256_set1_epi8(SKF_SMALL)) != 0;
}
#endif
