/* Predictions of codes and peaks of blocks in plain C (blocks_priv.h), and who finds them on this machine. */
#include "delta/blocks_priv.h"

static inline int held(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

/* Held to -1000..1000, -1000 for what is no number; by its bits, for comparisons of floats keep loops from becoming vectors. */
static inline float near(float x)
{
    union {
        float f;
        int32_t i;
    } v = {.f = x};
    const int32_t far = 0x447a0000, infinite = 0x7f800000; /* 1000, and what is above is no number */
    int32_t size = v.i & INT32_MAX, minus = v.i >> 31 | -(size > infinite), out = -(size >= far);
    v.i = (v.i & ~out) | ((far | (minus & INT32_MIN)) & out);
    return v.f;
}

/* One unit. Without a branch, so that vectors can follow where there are any: -1 stands for what is true. */
static inline __attribute__((always_inline)) void unit_of(const int8_t *restrict code, const float *restrict guess,
                                                          const struct skf_map *map, unsigned unit, struct skf_range range,
                                                          int8_t *restrict out, uint8_t *restrict key, int8_t *restrict turn)
{
    const float ratio = map->ratio, offset = map->offset, slope = map->slope;
    const int class = map->class, end_class = map->end_class;
    for (unsigned e = 0; e < unit; e++) {
        int q = code[e];
        float x = ratio * (float)q + offset;
        if (guess)
            x = x + guess[e] * slope;
        x = near(x);
        /* To the nearest sixteenth, ties to even: above 2^23 nothing smaller than 1 is left. */
        int t = (int)(x * 16.0f + 12582912.0f - 12582912.0f) + 8;
        int c = held(t >> 4, range.low, range.high), part = (t & 15) - 8, far = part < 0 ? -part : part;
        far -= (far > 3) + (far > 5) + (far > 7); /* finer where most of what does not change lies */
        int top = -(q >= range.end_high), end = top | -(q <= range.end_low);
        out[e] = (int8_t)((q & end) | (c & ~end));
        key[e] = (uint8_t)(((end_class + (c != q)) & end) | ((class + far) & ~end));
        turn[e] = (int8_t)((top & end) | (-(part < 0) & ~end));
    }
}

SKF_LOOPS void skf_predict_ref(const int8_t *code, const float *guess, const struct skf_map *map, uint32_t n, unsigned unit,
                               const struct skf_range *range, const struct skf_predictions *out)
{
    const struct skf_range r = *range;
    for (uint32_t u = 0, i = 0; u < n; u++, i += unit) {
        if (guess && unit == 32)
            unit_of(code + i, guess + i, &map[u], 32, r, out->code + i, out->key + i, out->turn + i);
        else
            unit_of(code + i, guess ? guess + i : NULL, &map[u], unit, r, out->code + i, out->key + i, out->turn + i);
    }
}

skf_predict_fn *skf_predict_pick(enum skf_isa isa, unsigned unit)
{
#if defined __x86_64__
    if (unit % 16 == 0 && (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX))
        return skf_predict_avx512;
    if (unit % 16 == 0 && isa == SKF_ISA_AVX2)
        return skf_predict_avx2;
#endif
    return skf_predict_ref;
}

void skf_peaks_ref(const uint8_t *code, size_t stride, uint32_t n, uint8_t *at)
{
    for (uint32_t i = 0; i < n; i++, code += stride) {
        unsigned e = 0;
        for (; e < 32; e += 8) {
            uint64_t x = skf_le64(code + e), minus = x >> 7 & 0x0101010101010101u;
            x = (x ^ minus * 255) + minus;                                                   /* sizes */
            x = (x | ((x & 0x7f7f7f7f7f7f7f7fu) + 0x0101010101010101u)) & 0x8080808080808080u; /* 127 and 128 */
            if (x) {
                e += (unsigned)__builtin_ctzll(x) / 8;
                break;
            }
        }
        at[i] = (uint8_t)e;
    }
}

skf_peaks_fn *skf_peaks_pick(enum skf_isa isa)
{
#if defined __x86_64__
    if (isa == SKF_ISA_AVX2) /* wider ones find them otherwise: skf_bytes_pick */
        return skf_peaks_avx2;
#endif
    return skf_peaks_ref;
}

const struct skf_bytes *skf_bytes_pick(enum skf_isa isa)
{
#if defined __x86_64__
    static const struct skf_bytes avx512 = {skf_bytes_predict_avx512, skf_bytes_peaks_avx512, skf_bytes_undo_avx512};
    if (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX)
        return &avx512;
#endif
    return NULL;
}
