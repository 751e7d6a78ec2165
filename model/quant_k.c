/*
 * Float32 to K-quants: super-blocks of 256 in groups of 16 or 32, each with a small integer scale (and minimum) of its own under
 * one half-precision scale (and minimum).  Equal to ggml's quantize_row_*_K_ref, and with importance to its
 * quantize_row_*_K_impl, bit for bit.
 *
 *   q2_k  16 x (u4 scale, u4 min), 64 bytes of codes, f16 d, f16 m          x = d scale q - m min         groups of 16
 *   q3_k  32 bytes of third bits, 64 of codes, 12 of scales, f16 d          x = d (scale - 32) (q - 4)    groups of 16
 *   q4_k  f16 d, f16 m, 12 bytes of scales and mins, 128 of codes           x = d scale q - m min         groups of 32
 *   q5_k  f16 d, f16 m, 12 bytes of scales and mins, 32 of fifth bits, 128 of codes                       groups of 32
 *   q6_k  128 bytes of low nibbles, 64 of high bits, 16 x i8 scale, f16 d   x = d scale (q - 32)          groups of 16
 *
 * Codes of two bits: element 128 h + 32 s + i is bits 2 s of byte 32 h + i.  Of four: 64 h + 32 s + i is nibble s of byte
 * 32 h + i.  A bit of each: 32 s + i is bit s of byte i.  q6_k: 128 h + 64 s + 32 t + i is nibble s of byte 64 h + 32 t + i, and
 * bits 4 s + 2 t of high byte 32 h + i.
 * Six-bit scales and mins of q4_k and q5_k: 0..3 in the low bits of bytes j and j + 4, 4..7 in the nibbles of byte j + 4 with their
 * two high bits on top of bytes j - 4 and j.  Of q3_k: the low nibble of j in nibble j / 8 of byte j % 8, the high bits at
 * 2 (j / 4) of byte 8 + j % 4.
 */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "model/quant_priv.h"

enum { K = 256 };

static float sum_of_squares(const float *x, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* How much each error of a group counts; the sum of it. */
static float weigh(int n, const float *x, const float *importance, float mean_square, float *w)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        w[i] = importance[i] * sqrtf(mean_square + x[i] * x[i]);
        sum += w[i];
    }
    return sum;
}

/* ---- codes into bytes --------------------------------------------------------------------------------------------------- */
static void put_pairs(const uint8_t *code, uint8_t *q)
{
    for (int i = 0; i < K / 4; i++) {
        const uint8_t *c = code + i / 32 * 128 + i % 32;
        q[i] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
}

static void put_nibbles(const uint8_t *code, uint8_t *q)
{
    for (int i = 0; i < K / 2; i++) {
        const uint8_t *c = code + i / 32 * 64 + i % 32;
        q[i] = (uint8_t)((c[0] & 15) | (c[32] & 15) << 4);
    }
}

/* Bit `at` of every code. */
static void put_bits(const uint8_t *code, int at, uint8_t *q)
{
    memset(q, 0, K / 8);
    for (int i = 0; i < K; i++)
        q[i % 32] = (uint8_t)(q[i % 32] | (code[i] >> at & 1) << i / 32);
}

/* ---- x = d scale q - m min ------------------------------------------------------------------------------------------------ */
/* Codes rounded anew on the scales as they are stored; those of a group whose scale is zero stay. */
static void round_uneven(const float *x, int n, int most, float d, float m, uint8_t *code)
{
    if (d == 0)
        return;
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)skf_clamp(skf_nearest((x[i] + m) / d), 0, most);
}

struct ladder { /* of a super-block with minima */
    uint8_t code[K], scale[16], min[16];
    float scales[16], mins[16];
};

static float largest_of(const float *v, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

/* Small integers for the groups' scales (or minima): the largest becomes `most`. The step goes to *d. */
static void level(const float *v, int n, int most, uint8_t *small, float *d)
{
    float largest = largest_of(v, n), inverse = largest > 0 ? (float)most / largest : 0.0f;
    for (int i = 0; i < n; i++)
        small[i] = (uint8_t)SKF_MIN(skf_nearest(inverse * v[i]) & 255, most);
    *d = largest / (float)most;
}

static void put_six_bits(const struct ladder *l, uint8_t *q)
{
    for (int j = 0; j < 4; j++) {
        q[j] = (uint8_t)(l->scale[j] | l->scale[j + 4] >> 4 << 6);
        q[j + 4] = (uint8_t)(l->min[j] | l->min[j + 4] >> 4 << 6);
        q[j + 8] = (uint8_t)((l->scale[j + 4] & 15) | (l->min[j + 4] & 15) << 4);
    }
}

/* What q4_k and q5_k do with the groups' lines: scales, minima and codes as they are stored. */
static void settle_six_bits(const float *x, int most, struct ladder *l, float d, float m, uint8_t *q)
{
    skf_put_le16(q, skf_f32_to_f16(d));
    skf_put_le16(q + 2, skf_f32_to_f16(m));
    put_six_bits(l, q + 4);
    d = skf_f16_to_f32(skf_le16(q));
    m = skf_f16_to_f32(skf_le16(q + 2));
    for (int j = 0; j < 8; j++)
        round_uneven(x + 32 * j, 32, most, d * (float)l->scale[j], m * (float)l->min[j], l->code + 32 * j);
}

static void plain_six_bits(const float *x, int most, const struct skf_fit_tries *tries, struct ladder *l, uint8_t *q)
{
    float w[K], d, m;
    for (int j = 0; j < 8; j++) {
        float mean = sqrtf(sum_of_squares(x + 32 * j, 32) / 32);
        for (int i = 32 * j; i < 32 * j + 32; i++)
            w[i] = mean + fabsf(x[i]);
    }
    skf_fit_uneven(8, 32, most, x, w, tries, l->code, l->scales, l->mins);
    level(l->scales, 8, 63, l->scale, &d);
    level(l->mins, 8, 63, l->min, &m);
    settle_six_bits(x, most, l, d, m, q);
}

static void weighed_six_bits(const float *x, const float *importance, int most, struct ladder *l, uint8_t *q)
{
    float w[K], sums[8], mean_square = 2 * sum_of_squares(x, K) / K;
    for (int j = 0; j < 8; j++)
        sums[j] = weigh(32, x + 32 * j, importance + 32 * j, mean_square, w + 32 * j);
    skf_fit_uneven(8, 32, most, x, w, &skf_fit_fine, l->code, l->scales, l->mins);
    float d = skf_fit_positive(8, 63, l->scales, sums, l->scale);
    float m = skf_fit_positive(8, 63, l->mins, sums, l->min);
    for (int j = 0; j < 8; j++) {
        l->scale[j] = (uint8_t)SKF_MIN(l->scale[j], 63);
        l->min[j] = (uint8_t)SKF_MIN(l->min[j], 63);
    }
    settle_six_bits(x, most, l, d, m, q);
}

void skf_block_to_q4_k(const float *x, uint8_t *q)
{
    static const struct skf_fit_tries tries = {-1.0f, 0.1f, 20, false};
    struct ladder l;
    plain_six_bits(x, 15, &tries, &l, q);
    put_nibbles(l.code, q + 16);
}

void skf_weighed_q4_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    struct ladder l;
    weighed_six_bits(x, importance, 15, &l, q);
    put_nibbles(l.code, q + 16);
}

void skf_block_to_q5_k(const float *x, uint8_t *q)
{
    static const struct skf_fit_tries tries = {-0.5f, 0.1f, 15, false};
    struct ladder l;
    plain_six_bits(x, 31, &tries, &l, q);
    put_bits(l.code, 4, q + 16);
    put_nibbles(l.code, q + 48);
}

void skf_weighed_q5_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    struct ladder l;
    weighed_six_bits(x, importance, 31, &l, q);
    put_bits(l.code, 4, q + 16);
    put_nibbles(l.code, q + 48);
}

static void settle_q2_k(const float *x, struct ladder *l, float d, float m, uint8_t *q)
{
    skf_put_le16(q + 80, skf_f32_to_f16(d));
    skf_put_le16(q + 82, skf_f32_to_f16(m));
    d = skf_f16_to_f32(skf_le16(q + 80));
    m = skf_f16_to_f32(skf_le16(q + 82));
    for (int j = 0; j < 16; j++) {
        q[j] = (uint8_t)((l->scale[j] & 15) | (l->min[j] & 15) << 4);
        round_uneven(x + 16 * j, 16, 3, d * (float)(q[j] & 15), m * (float)(q[j] >> 4), l->code + 16 * j);
    }
    put_pairs(l->code, q + 16);
}

void skf_block_to_q2_k(const float *x, uint8_t *q)
{
    static const struct skf_fit_tries tries = {-0.5f, 0.1f, 15, true};
    struct ladder l;
    float w[K], d, m;
    for (int i = 0; i < K; i++)
        w[i] = fabsf(x[i]);
    skf_fit_uneven(16, 16, 3, x, w, &tries, l.code, l.scales, l.mins);
    level(l.scales, 16, 15, l.scale, &d);
    level(l.mins, 16, 15, l.min, &m);
    settle_q2_k(x, &l, d, m, q);
}

void skf_weighed_q2_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    struct ladder l;
    float w[K], sums[16];
    mean_square = sum_of_squares(x, K) / K;
    for (int j = 0; j < 16; j++)
        sums[j] = weigh(16, x + 16 * j, importance + 16 * j, mean_square, w + 16 * j);
    skf_fit_uneven(16, 16, 3, x, w, &skf_fit_fine, l.code, l.scales, l.mins);
    float d = skf_fit_positive(16, 15, l.scales, sums, l.scale);
    float m = skf_fit_positive(16, 15, l.mins, sums, l.min);
    settle_q2_k(x, &l, d, m, q);
}

/* ---- x = d scale (q - half) ------------------------------------------------------------------------------------------------ */
static void round_even(const float *x, int half, float d, uint8_t *code)
{
    if (d == 0)
        return;
    for (int i = 0; i < 16; i++)
        code[i] = (uint8_t)(skf_clamp(skf_nearest(x[i] / d), -half, half - 1) + half);
}

/* The scale of the largest size, the first of equals; 0 when all are. */
static float extreme_of(const float v[16])
{
    float most = 0, extreme = 0;
    for (int j = 0; j < 16; j++) {
        if (fabsf(v[j]) > most) {
            most = fabsf(v[j]);
            extreme = v[j];
        }
    }
    return extreme;
}

static void settle_q3_k(const float *x, const int scale[16], float d, uint8_t *code, uint8_t *q)
{
    skf_put_le16(q + 108, skf_f32_to_f16(d));
    d = skf_f16_to_f32(skf_le16(q + 108));
    memset(q + 96, 0, 12);
    for (int j = 0; j < 16; j++) {
        q[96 + j % 8] = (uint8_t)(q[96 + j % 8] | (scale[j] & 15) << 4 * (j / 8));
        q[104 + j % 4] = (uint8_t)(q[104 + j % 4] | (scale[j] >> 4 & 3) << 2 * (j / 4));
        round_even(x + 16 * j, 4, d * (float)((scale[j] & 63) - 32), code + 16 * j);
    }
    put_bits(code, 2, q);
    put_pairs(code, q + 32);
}

void skf_block_to_q3_k(const float *x, uint8_t *q)
{
    uint8_t code[K];
    int scale[16] = {0};
    float scales[16], d = 0;
    for (int j = 0; j < 16; j++)
        scales[j] = skf_fit_even_moving(16, 4, x + 16 * j, code + 16 * j);
    float extreme = extreme_of(scales);
    if (extreme != 0) {
        float inverse = -32.0f / extreme;
        d = 1 / inverse;
        for (int j = 0; j < 16; j++)
            scale[j] = skf_clamp((int8_t)skf_nearest(inverse * scales[j]), -32, 31) + 32;
    }
    settle_q3_k(x, scale, d, code, q);
}

void skf_weighed_q3_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    uint8_t code[K], small[16];
    int scale[16];
    float w[K], scales[16], sums[16], d;
    mean_square = 2 * sum_of_squares(x, K) / K;
    for (int j = 0; j < 16; j++)
        sums[j] = weigh(16, x + 16 * j, importance + 16 * j, mean_square, w + 16 * j);
    skf_fit_even(16, 16, 4, x, w, code, scales);
    skf_fit_even(1, 16, 32, scales, sums, small, &d);
    for (int j = 0; j < 16; j++)
        scale[j] = small[j];
    settle_q3_k(x, scale, d, code, q);
}

static void to_q6_k(const float *x, const float *importance, uint8_t *q)
{
    uint8_t code[K];
    float scales[16];
    skf_fit_even(16, 16, 32, x, importance, code, scales);
    float extreme = extreme_of(scales);
    if (fabsf(extreme) < 1e-15f) {
        memset(q, 0, 210);
        return;
    }
    float inverse = -128.0f / extreme;
    skf_put_le16(q + 208, skf_f32_to_f16(1 / inverse));
    float d = skf_f16_to_f32(skf_le16(q + 208));
    for (int j = 0; j < 16; j++) {
        q[192 + j] = (uint8_t)SKF_MIN(skf_nearest(inverse * scales[j]), 127);
        round_even(x + 16 * j, 32, d * (float)(int8_t)q[192 + j], code + 16 * j);
    }
    for (int i = 0; i < 128; i++) {
        const uint8_t *c = code + i / 64 * 128 + i % 64;
        q[i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
    }
    for (int i = 0; i < 64; i++) {
        const uint8_t *c = code + i / 32 * 128 + i % 32;
        q[128 + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
    }
}

void skf_block_to_q6_k(const float *x, uint8_t *q) { to_q6_k(x, NULL, q); }
void skf_weighed_q6_k(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks) { to_q6_k(x, importance, q); }
