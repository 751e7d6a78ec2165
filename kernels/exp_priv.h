/*
 * exp for every implementation: n = round(x / ln 2), r = x - n ln 2 in two steps, a polynomial of degree 6 (its coefficients are
 * those of the Cephes library's expf), and n added to the exponent.  Within 2 units in the last place of the true value between
 * its bounds; below -86 it stays at exp(-86) (4e-38), above 88 at exp(88).
 */
#ifndef SKF_KERNELS_EXP_PRIV_H
#define SKF_KERNELS_EXP_PRIV_H

#include <math.h>

#include "kernels/kernels_priv.h"

#define SKF_EXP_LO     (-86.0f)
#define SKF_EXP_HI     88.0f
#define SKF_EXP_LOG2E  1.44269504088896341f
#define SKF_EXP_MAGIC  12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits */
#define SKF_EXP_LN2_HI 0.693359375f
#define SKF_EXP_LN2_LO (-2.12194440e-4f)
#define SKF_EXP_C6     1.9875691500e-4f
#define SKF_EXP_C5     1.3981999507e-3f
#define SKF_EXP_C4     8.3334519073e-3f
#define SKF_EXP_C3     4.1665795894e-2f
#define SKF_EXP_C2     1.6666665459e-1f
#define SKF_EXP_C1     5.0000001201e-1f

#define SKF_GELU_A 1.5957691216057308f /* 2 sqrt(2 / pi) */
#define SKF_GELU_B 0.044715f

static inline float skf_exp_ref(float x)
{
    x = x < SKF_EXP_LO ? SKF_EXP_LO : x;
    x = x > SKF_EXP_HI ? SKF_EXP_HI : x;
    float t = fmaf(x, SKF_EXP_LOG2E, SKF_EXP_MAGIC);
    float n = t - SKF_EXP_MAGIC;
    float r = fmaf(n, -SKF_EXP_LN2_HI, x);
    r = fmaf(n, -SKF_EXP_LN2_LO, r);
    float p = SKF_EXP_C6;
    p = fmaf(p, r, SKF_EXP_C5);
    p = fmaf(p, r, SKF_EXP_C4);
    p = fmaf(p, r, SKF_EXP_C3);
    p = fmaf(p, r, SKF_EXP_C2);
    p = fmaf(p, r, SKF_EXP_C1);
    p = fmaf(p, r * r, r) + 1.0f;
    return skf_bits_float(skf_float_bits(p) + (skf_float_bits(t) << 23));
}

/* cap * tanh(x / cap); turn = 2 / cap */
static inline float skf_cap_ref(float x, float cap, float turn) { return cap * (1.0f - 2.0f / (skf_exp_ref(x * turn) + 1.0f)); }

#endif
