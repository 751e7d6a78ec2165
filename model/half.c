/*
 * IEEE half and bfloat16 in integer arithmetic, so that no machine's conversion instruction or rounding mode has a say.
 */
#include "model/tensor.h"

union bits {
    uint32_t u;
    float f;
};

float skf_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF;
    union bits v;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in float32 */
        v.f = (float)fraction * 0x1p-24f;
        v.u |= sign;
    } else if (exponent == 31) {
        v.u = sign | 0x7F800000 | fraction << 13;
    } else {
        v.u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    return v.f;
}

/* v >> shift, to nearest, ties to even; 0 < shift < 32. */
static uint32_t shift_even(uint32_t v, unsigned shift)
{
    uint32_t half = (1u << (shift - 1)) - 1, odd = v >> shift & 1;
    return (v + half + odd) >> shift;
}

uint16_t skf_f32_to_f16(float f)
{
    union bits v = {.f = f};
    uint32_t sign = v.u >> 16 & 0x8000, rest = v.u & 0x7FFFFFFF;
    if (rest > 0x7F800000) /* not a number: kept quiet */
        return (uint16_t)(sign | 0x7E00 | (rest >> 13 & 0x3FF));
    if (rest >= 0x477FF000) /* rounds to what half cannot hold */
        return (uint16_t)(sign | 0x7C00);
    if (rest >= 0x38800000) /* a normal half; a carry out of the fraction raises the exponent, as it must */
        return (uint16_t)(sign | (shift_even(rest, 13) - (112u << 10)));
    uint32_t exponent = rest >> 23;
    if (exponent < 102) /* at most half of the smallest subnormal: 2^-25 is a tie and goes to even, which is zero */
        return (uint16_t)sign;
    return (uint16_t)(sign | shift_even((rest & 0x7FFFFF) | 0x800000, 126 - exponent));
}

uint16_t skf_f32_to_bf16(float f)
{
    union bits v = {.f = f};
    if ((v.u & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(v.u >> 16 | 64);
    return (uint16_t)((v.u + 0x7FFF + (v.u >> 16 & 1)) >> 16);
}
