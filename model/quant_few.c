/*
 * Types whose codes stand for something else than equal steps, to and from float32; equal to gguf's (and ggml's) bit for bit.
 *
 *   tq1_0   48 + 4 bytes of five trits each (four in the last four), f16 d        x = d (t - 1)         blocks of 256
 *   tq2_0   64 bytes of two bits, f16 d                                           x = d (q - 1)         blocks of 256
 *   mxfp4   u8 exponent, 16 bytes of nibbles                                      x = 2^(e - 128) v[q]  blocks of 32
 *   nvfp4   4 x u8 scale (e4m3 without sign), 4 x 8 bytes of nibbles              x = s / 2 v[q]        blocks of 64, scales of 16
 *   iq4_nl  f16 d, 16 bytes of nibbles                                            x = d v[q]            blocks of 32
 *   iq4_xs  f16 d, 16 high bits and 4 bytes of low nibbles of 8 scales, 128 bytes x = d (s - 32) v[q]   blocks of 256
 *
 * A byte of trits is the ceiling of 256 / 243 times the number they make, so that multiplying by 3^n brings the n-th out on top.
 */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "model/quant_priv.h"

/* Doubled values of the four-bit float e2m1; the eighth is minus zero. */
static const int8_t mx[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
/* Where ggml puts the sixteen steps of its non-linear type: closer together around zero. */
static const int8_t nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* ---- ternary ------------------------------------------------------------------------------------------------------------ */
/* The scale, and -1, 0, 1 as 0, 1, 2. */
static float ternary(const float *x, uint8_t trit[256])
{
    float d = 0;
    for (int i = 0; i < 256; i++)
        d = fabsf(x[i]) > d ? fabsf(x[i]) : d;
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int i = 0; i < 256; i++) {
        float v = x[i] * inverse;
        trit[i] = v >= 0.5f ? 2 : v <= -0.5f ? 0 : 1;
    }
    return d;
}

/* n trits, `apart` from each other, as one byte. */
static uint8_t five_trits(const uint8_t *trit, int n, int apart)
{
    unsigned v = 0;
    for (int i = 0; i < 5; i++)
        v = 3 * v + (i < n ? trit[i * apart] : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

static float trit_of(uint8_t byte, int at, float d)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t top = (uint8_t)(byte * power[at]);
    return (float)((top * 3 >> 8) - 1) * d;
}

void skf_block_to_tq1_0(const float *x, uint8_t *q)
{
    uint8_t trit[256];
    skf_put_le16(q + 52, skf_f32_to_f16(ternary(x, trit)));
    for (int i = 0; i < 32; i++)
        q[i] = five_trits(trit + i, 5, 32);
    for (int i = 0; i < 16; i++)
        q[32 + i] = five_trits(trit + 160 + i, 5, 16);
    for (int i = 0; i < 4; i++)
        q[48 + i] = five_trits(trit + 240 + i, 4, 4);
}

void skf_block_of_tq1_0(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q + 52));
    for (int i = 0; i < 160; i++)
        x[i] = trit_of(q[i % 32], i / 32, d);
    for (int i = 0; i < 80; i++)
        x[160 + i] = trit_of(q[32 + i % 16], i / 16, d);
    for (int i = 0; i < 16; i++)
        x[240 + i] = trit_of(q[48 + i % 4], i / 4, d);
}

void skf_block_to_tq2_0(const float *x, uint8_t *q)
{
    uint8_t trit[256];
    skf_put_le16(q + 64, skf_f32_to_f16(ternary(x, trit)));
    for (int i = 0; i < 64; i++) {
        const uint8_t *t = trit + i / 32 * 128 + i % 32;
        q[i] = (uint8_t)(t[0] | t[32] << 2 | t[64] << 4 | t[96] << 6);
    }
}

void skf_block_of_tq2_0(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q + 64));
    for (int i = 0; i < 256; i++)
        x[i] = d * (float)((q[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
}

/* ---- four-bit floats ------------------------------------------------------------------------------------------------------ */
/* 2^(e - 128): half of what the shared exponent says, since the values are doubled. */
static float mx_scale(uint8_t e)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23};
    return v.f;
}

/* The first of the values nearest to x. */
static uint8_t mx_nearest(float x, float d)
{
    int best = 0;
    float least = fabsf((float)mx[0] * d - x);
    for (int i = 1; i < 16; i++) {
        float off = fabsf((float)mx[i] * d - x);
        if (off < least) {
            least = off;
            best = i;
        }
    }
    return (uint8_t)best;
}

/* What floor(log2f(v)) gives: a value so near under a power of two that its logarithm rounds up to it counts as that power. */
static int log2_of(float v)
{
    int k;
    double under = 1.0 - (double)frexpf(v, &k); /* v = 2^k (1 - under) */
    if (under < 0x1p-12 && (float)(k - under * (1.0 + under / 2) * 1.4426950408889634) >= (float)k)
        return k;
    return k - 1;
}

void skf_block_to_mxfp4(const float *x, uint8_t *q)
{
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    q[0] = most > 0 && most - most == 0 ? (uint8_t)skf_clamp(log2_of(most) - 2 + 127, 0, 254) : 0;
    float d = mx_scale(q[0]);
    for (int i = 0; i < 16; i++)
        q[1 + i] = (uint8_t)(mx_nearest(x[i], d) | mx_nearest(x[16 + i], d) << 4);
}

void skf_block_of_mxfp4(const uint8_t *q, float *x)
{
    float d = mx_scale(q[0]);
    for (int i = 0; i < 16; i++) {
        x[i] = d * (float)mx[q[1 + i] & 15];
        x[16 + i] = d * (float)mx[q[1 + i] >> 4];
    }
}

static float nv_scale(uint8_t s)
{
    int exponent = s >> 3 & 15, fraction = s & 7;
    if (s == 0 || s == 0x7F)
        return 0.0f;
    float v = exponent == 0 ? (float)fraction * 0x1p-9f : (1.0f + (float)fraction / 8.0f) * 0x1p-7f * (float)(1 << exponent);
    return v * 0.5f;
}

void skf_block_of_nvfp4(const uint8_t *q, float *x)
{
    for (int j = 0; j < 4; j++) {
        float d = nv_scale(q[j]);
        for (int i = 0; i < 8; i++) {
            uint8_t byte = q[4 + 8 * j + i];
            x[16 * j + i] = d * (float)mx[byte & 15];
            x[16 * j + 8 + i] = d * (float)mx[byte >> 4];
        }
    }
}

/* ---- non-linear ------------------------------------------------------------------------------------------------------------ */
/* The index of the nearest step for each; of two as near the upper, and the last for what is no number. */
static void nl_nearest(const float *x, float inverse, int code[32])
{
    float v[32];
    for (int i = 0; i < 32; i++) {
        v[i] = inverse * x[i];
        code[i] = 0;
    }
    for (int k = 1; k < 16; k++) {
        float middle = (float)(nl[k - 1] + nl[k]) / 2;
        for (int i = 0; i < 32; i++)
            code[i] += v[i] < middle ? 0 : 1;
    }
}

static void nl_products(const float *x, const float *w, float inverse, float *xq, float *qq)
{
    int code[32];
    nl_nearest(x, inverse, code);
    *xq = *qq = 0;
    for (int i = 0; i < 32; i++) {
        float v = (float)nl[code[i]];
        *xq += w[i] * v * x[i];
        *qq += w[i] * v * v;
    }
}

static float nl_scale(const float *x, const float *w)
{
    float most = 0, extreme = 0, xq, qq;
    for (int i = 0; i < 32; i++) {
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            extreme = x[i];
        }
    }
    if (most < 1e-15f)
        return 0.0f;
    nl_products(x, w, 1 / (-extreme / (float)nl[0]), &xq, &qq);
    float d = qq > 0 ? xq / qq : 0.0f, best = d * xq;
    for (int k = -7; k <= 7; k++) {
        nl_products(x, w, (float)(k + nl[0]) / extreme, &xq, &qq);
        if (qq > 0 && xq * xq > best * qq) {
            d = xq / qq;
            best = d * xq;
        }
    }
    return d;
}

static void to_iq4_nl(const float *x, const float *w, uint8_t *q)
{
    float d = nl_scale(x, w), inverse = d != 0 ? 1 / d : 0.0f;
    skf_put_le16(q, skf_f32_to_f16(d));
    int code[32];
    nl_nearest(x, inverse, code);
    for (int i = 0; i < 16; i++)
        q[2 + i] = (uint8_t)(code[i] | code[16 + i] << 4);
}

void skf_block_to_iq4_nl(const float *x, uint8_t *q)
{
    float w[32];
    for (int i = 0; i < 32; i++)
        w[i] = x[i] * x[i];
    to_iq4_nl(x, w, q);
}

void skf_weighed_iq4_nl(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    for (int b = 0; b < blocks; b++, x += 32, importance += 32, q += 18) {
        float w[32], sum = 0; /* of the block, not of the row */
        for (int i = 0; i < 32; i++)
            sum += x[i] * x[i];
        sum *= 2.0f / 32;
        for (int i = 0; i < 32; i++)
            w[i] = importance[i] * sqrtf(sum + x[i] * x[i]);
        to_iq4_nl(x, w, q);
    }
}

void skf_block_of_iq4_nl(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q));
    for (int i = 0; i < 16; i++) {
        x[i] = d * (float)nl[q[2 + i] & 15];
        x[16 + i] = d * (float)nl[q[2 + i] >> 4];
    }
}

void skf_block_of_iq4_xs(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q));
    unsigned high = skf_le16(q + 2);
    for (int j = 0; j < 8; j++) {
        int small = (q[4 + j / 2] >> 4 * (j % 2) & 15) | (int)(high >> 2 * j & 3) << 4;
        float scale = d * (float)(small - 32);
        for (int i = 0; i < 16; i++) {
            uint8_t byte = q[8 + 16 * j + i];
            x[32 * j + i] = scale * (float)nl[byte & 15];
            x[32 * j + 16 + i] = scale * (float)nl[byte >> 4];
        }
    }
}
