/*
 * The loops of float_priv.h in plain C, for the instruction set that the file including this is compiled for; NAME(x)
 * names its functions.  Sums are taken in one order everywhere: in lanes of a fixed number, then those two by two.
 */
#include <endian.h>
#include <string.h>

#include "delta/float_priv.h"
#include "delta/level_priv.h"
#include "delta/stream_priv.h"
#include "model/tensor.h"

#define STEP 16
/* Element i of what is written depends on element i of what is read alone, though both may be the same array. */
#if defined __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* where the optimizer is told to do little, it need not do this */
#define EACH _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH _Pragma("GCC ivdep")
#endif

static inline __attribute__((always_inline)) uint16_t half_in(const uint8_t *p, size_t i)
{
    uint16_t v;
    memcpy(&v, p + 2 * i, 2);
    return le16toh(v);
}
static inline __attribute__((always_inline)) void half_out(uint8_t *p, size_t i, uint16_t v)
{
    v = htole16(v);
    memcpy(p + 2 * i, &v, 2);
}
/* Bit patterns of floats to integers in the order of the numbers, and back. */
static inline __attribute__((always_inline)) uint16_t ordered16(uint16_t v)
{
    return (uint16_t)(v ^ ((uint16_t)((int16_t)v >> 15) | 0x8000));
}
static inline __attribute__((always_inline)) uint16_t unordered16(uint16_t v)
{
    return (uint16_t)(v ^ ((uint16_t)((int16_t)(uint16_t)~v >> 15) | 0x8000));
}

static inline float sum_of(float *lanes, unsigned n)
{
    for (unsigned k = n / 2; k; k /= 2)
        for (unsigned j = 0; j < k; j++)
            lanes[j] += lanes[j + k];
    return lanes[0];
}

static SKF_LOOPS void NAME(keys)(const uint8_t *restrict old, uint8_t *restrict key, uint32_t n, unsigned exponent_at,
                                 int at)
{
    const uint16_t mask = (uint16_t)((1u << (15 - exponent_at)) - 1);
    const int16_t base = (int16_t)at;
    for (uint32_t i = 0; i < n; i++) {
        int16_t c = (int16_t)(2 * (half_in(old, i) >> exponent_at & mask) + base);
        c = c < 0 ? 0 : c;
        key[i] = (uint8_t)(c >= SKF_CONTEXTS ? SKF_CONTEXTS - 1 : c);
    }
}

static SKF_LOOPS void NAME(add)(const uint8_t *ref, const uint8_t *restrict sym, uint8_t *neu, uint32_t n,
                                unsigned shift)
{
    const uint16_t keep = (uint16_t)(0xffffu << shift);
    EACH for (uint32_t i = 0; i < n; i++)
    {
        uint16_t d = (uint16_t)((sym[i] >> 1) ^ -(sym[i] & 1));
        uint16_t v = (uint16_t)((ordered16(half_in(ref, i)) >> shift) + d);
        half_out(neu, i, unordered16((uint16_t)(v << shift)) & keep);
    }
}

static SKF_LOOPS void NAME(sub)(const uint8_t *restrict ref, const uint8_t *restrict neu, uint8_t *restrict sym,
                                uint32_t n, unsigned shift, unsigned least)
{
    const uint16_t keep = (uint16_t)(0xffffu << shift), end = (uint16_t)least;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t a = ordered16(half_in(ref, i)) & keep, b = ordered16(half_in(neu, i)) & keep;
        int16_t d = (int16_t)((int16_t)(uint16_t)(b - a) >> shift);
        uint16_t zigzag = (uint16_t)((uint16_t)d << 1 ^ (uint16_t)(d >> 15));
        sym[i] = (uint8_t)(zigzag < end ? zigzag : SKF_FAR);
    }
}

/* Each operation rounds to float32, then the sum to the type, ties to even.  A number that is not finite stays. */
static SKF_LOOPS void NAME(guess_bf16)(const uint8_t *old, const float *restrict guess, uint8_t *ref, uint32_t n)
{
    EACH for (uint32_t i = 0; i < n; i++)
    {
        uint32_t w = (uint32_t)half_in(old, i) << 16, u = skf_float_bits(skf_bits_float(w) + guess[i]);
        u += 0x7fff + (u >> 16 & 1);
        half_out(ref, i, (uint16_t)(((w & 0x7f800000) == 0x7f800000 ? w : u) >> 16));
    }
}

static SKF_LOOPS void NAME(guess_f32)(const uint8_t *old, const float *restrict guess, uint8_t *ref, uint32_t n)
{
    EACH for (uint32_t i = 0; i < n; i++)
    {
        uint32_t w, u;
        memcpy(&w, old + 4 * (size_t)i, 4);
        w = le32toh(w);
        u = skf_float_bits(skf_bits_float(w) + guess[i]);
        u = htole32((w & 0x7f800000) == 0x7f800000 ? w : u);
        memcpy(ref + 4 * (size_t)i, &u, 4);
    }
}

/* Halves as floats and back without a branch: what skf_f16_to_f32 and skf_f32_to_f16 do, but that no number stays
 * quiet. */
static inline __attribute__((always_inline)) uint32_t wide_of(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t normal = (rest << 13) + (112u << 23);
    normal = rest >= 0x7c00 ? 0x7f800000 | rest << 13 | (rest > 0x7c00 ? 0x400000 : 0) : normal;
    uint32_t small = skf_float_bits((float)(int32_t)rest * 0x1p-24f);
    return sign | (rest < 0x400 ? small : normal);
}
static inline __attribute__((always_inline)) uint16_t half_of(uint32_t w)
{
    uint32_t sign = w >> 16 & 0x8000, rest = w & 0x7fffffff;
    uint32_t normal = ((rest + 0xfff + (rest >> 13 & 1)) >> 13) - (112u << 10);
    normal = rest >= 0x477ff000 ? 0x7c00 : normal;
    normal = rest > 0x7f800000 ? 0x7e00 | (rest >> 13 & 0x3ff) : normal;
    /* Below the normal halves: the addition rounds to multiples of 2^-24, ties to even. */
    uint32_t small = skf_float_bits(skf_bits_float(rest < 0x38800000 ? rest : 0) + 0.5f) - 0x3f000000;
    return (uint16_t)(sign | (rest < 0x38800000 ? small : normal));
}

static SKF_LOOPS void NAME(guess_f16)(const uint8_t *old, const float *restrict guess, uint8_t *ref, uint32_t n)
{
    EACH for (uint32_t i = 0; i < n; i++)
    {
        uint16_t a = half_in(old, i), u = half_of(skf_float_bits(skf_bits_float(wide_of(a)) + guess[i]));
        half_out(ref, i, (a & 0x7c00) == 0x7c00 ? a : u);
    }
}

static SKF_LOOPS void NAME(f16_to_bf16)(const uint8_t *in, uint8_t *out, uint32_t n)
{
    EACH for (uint32_t i = 0; i < n; i++) half_out(out, i, (uint16_t)(wide_of(half_in(in, i)) >> 16));
}

static SKF_LOOPS void NAME(bf16_to_f16)(const uint8_t *in, uint8_t *out, uint32_t n)
{
    EACH for (uint32_t i = 0; i < n; i++) half_out(out, i, half_of((uint32_t)half_in(in, i) << 16));
}

/* Changes beyond it, and what is no number, count as none: sums of squares stay numbers. */
#define CHANGE_MAX 0x58635fa9 /* 1e15f */
static inline __attribute__((always_inline)) float change_of(uint32_t a, uint32_t b)
{
    float d = skf_bits_float(b) - skf_bits_float(a);
    return (skf_float_bits(d) & 0x7fffffff) <= CHANGE_MAX ? d : 0;
}

static SKF_LOOPS void NAME(change_bf16)(const uint8_t *restrict old, const uint8_t *restrict neu, float *restrict out,
                                        uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = change_of((uint32_t)half_in(old, i) << 16, (uint32_t)half_in(neu, i) << 16);
}

static SKF_LOOPS void NAME(change_f16)(const uint8_t *restrict old, const uint8_t *restrict neu, float *restrict out,
                                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = change_of(wide_of(half_in(old, i)), wide_of(half_in(neu, i)));
}

static SKF_LOOPS void NAME(add_scaled)(float *restrict a, const float *restrict b, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        a[i] += by * b[i];
}
