/*
 * Blocks of 32 to and from float32.  The quantizers are ggml's reference ones (ggml-quants.c: quantize_row_*_ref, and with
 * importance quantize_row_*_impl) operation by operation in float32, so that a file written here equals one written there:
 *
 *   q8_0  f16 d, 32 x i8 q                   x = d q
 *   q4_0  f16 d, 16 bytes                    x = d (q - 8)      element i: low nibble of byte i, element i + 16: the high one
 *   q4_1  f16 d, f16 m, 16 bytes             x = d q + m
 *   q5_0  f16 d, u32 high bits, 16 bytes     x = d (q - 16)
 *   q5_1  f16 d, f16 m, u32 high bits, 16 bytes
 */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "model/quant_lanes_priv.h"
#include "model/quant_priv.h"

enum { B = 32 };

/* (x - from) * by + plus, truncated to 0..most; 0 for what is no number. */
static void put_steps(const float *x, float from, float by, float plus, int most, uint8_t *code)
{
    lanes v[B / LANES];
    memcpy(v, x, sizeof v);
    for (int i = 0; i < B / LANES; i++) {
        lanes c = (v[i] - all_of(from)) * all_of(by) + all_of(plus);
        c = pick(c > all_of(0), c, all_of(0));
        c = pick(c < all_of((float)most), c, all_of((float)most));
        ints whole = __builtin_convertvector(c, ints);
        for (int k = 0; k < LANES; k++)
            code[i * LANES + k] = (uint8_t)whole[k];
    }
}

/* skf_round_127 in every lane. */
static ints round_127(lanes v)
{
    lanes size = size_of(v);
    size = pick(size > all_of(0), size, all_of(0));
    size = pick(size < all_of(127), size, all_of(127));
    ints whole = __builtin_convertvector(size, ints);
    whole -= size - floats_of(whole) >= all_of(0.5f); /* a mask is -1 */
    return pick_int(v < all_of(0), -whole, whole);
}

void skf_block_to_q8_0(const float *x, uint8_t *q)
{
    lanes v[B / LANES], most = all_of(0);
    memcpy(v, x, sizeof v);
    for (int i = 0; i < B / LANES; i++)
        most = pick(size_of(v[i]) > most, size_of(v[i]), most);
    float largest = most[0];
    for (int i = 1; i < LANES; i++)
        largest = most[i] > largest ? most[i] : largest;
    float d = largest / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
    skf_put_le16(q, skf_f32_to_f16(d));
    for (int i = 0; i < B / LANES; i++) {
        ints code = round_127(v[i] * all_of(id));
        for (int k = 0; k < LANES; k++)
            q[2 + i * LANES + k] = (uint8_t)code[k];
    }
}

/* The value of the largest size, the first of equals: of a block of zeros the first, whose sign the scale then has. */
static float extreme_of(const float *x)
{
    float most = fabsf(x[0]), extreme = x[0];
    for (int i = 1; i < B; i++) {
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            extreme = x[i];
        }
    }
    return extreme;
}

/* The last of equals, which only zeros can tell: gguf's way (ggml takes the first). */
static void range_of(const float *x, float *lo, float *hi)
{
    *lo = *hi = x[0];
    for (int i = 1; i < B; i++) {
        *lo = x[i] <= *lo ? x[i] : *lo;
        *hi = x[i] >= *hi ? x[i] : *hi;
    }
}

/* Codes of four or five bits: nibbles, and the fifth bits in `high` (NULL where there are none). */
static void put_codes(const uint8_t *code, uint8_t *nibbles, uint8_t *high)
{
    uint32_t fifth = 0;
    for (int i = 0; i < B; i++)
        fifth |= (uint32_t)(code[i] >> 4 & 1) << i;
    for (int i = 0; i < B / 2; i++)
        nibbles[i] = (uint8_t)((code[i] & 15) | (code[i + B / 2] & 15) << 4);
    if (high)
        skf_put_le32(high, fifth);
}

/* x = d (q - half) */
static void block_to_even(const float *x, int half, uint8_t *q, uint8_t *code)
{
    float d = extreme_of(x) / (float)-half, id = d != 0 ? 1.0f / d : 0.0f;
    skf_put_le16(q, skf_f32_to_f16(d));
    put_steps(x, 0, id, (float)half + 0.5f, 2 * half - 1, code); /* x - 0 is x */
}

/* x = d q + m */
static void block_to_uneven(const float *x, int most, uint8_t *q, uint8_t *code)
{
    float lo, hi;
    range_of(x, &lo, &hi);
    float d = (hi - lo) / (float)most, id = d != 0 ? 1.0f / d : 0.0f;
    skf_put_le16(q, skf_f32_to_f16(d));
    skf_put_le16(q + 2, skf_f32_to_f16(lo));
    put_steps(x, lo, id, 0.5f, most, code);
}

void skf_block_to_q4_0(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_even(x, 8, q, code);
    put_codes(code, q + 2, NULL);
}

void skf_block_to_q4_1(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_uneven(x, 15, q, code);
    put_codes(code, q + 4, NULL);
}

void skf_block_to_q5_0(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_even(x, 16, q, code);
    put_codes(code, q + 6, q + 2);
}

void skf_block_to_q5_1(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_uneven(x, 31, q, code);
    put_codes(code, q + 8, q + 4);
}

void skf_block_of_q8_0(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q));
    for (int i = 0; i < B; i++)
        x[i] = d * (float)(int8_t)q[2 + i];
}

void skf_block_of_q4_0(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q));
    for (int i = 0; i < B / 2; i++) {
        x[i] = d * (float)((q[2 + i] & 15) - 8);
        x[i + B / 2] = d * (float)((q[2 + i] >> 4) - 8);
    }
}

void skf_block_of_q4_1(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q)), m = skf_f16_to_f32(skf_le16(q + 2));
    for (int i = 0; i < B / 2; i++) {
        x[i] = d * (float)(q[4 + i] & 15) + m;
        x[i + B / 2] = d * (float)(q[4 + i] >> 4) + m;
    }
}

/* The codes of a block of five bits. */
static void get_codes(const uint8_t *nibbles, uint32_t high, int code[B])
{
    for (int i = 0; i < B / 2; i++) {
        code[i] = (nibbles[i] & 15) | (int)(high >> i & 1) << 4;
        code[i + B / 2] = nibbles[i] >> 4 | (int)(high >> (i + B / 2) & 1) << 4;
    }
}

void skf_block_of_q5_0(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q));
    int code[B];
    get_codes(q + 6, skf_le32(q + 2), code);
    for (int i = 0; i < B; i++)
        x[i] = d * (float)(code[i] - 16);
}

void skf_block_of_q5_1(const uint8_t *q, float *x)
{
    float d = skf_f16_to_f32(skf_le16(q)), m = skf_f16_to_f32(skf_le16(q + 2));
    int code[B];
    get_codes(q + 8, skf_le32(q + 4), code);
    for (int i = 0; i < B; i++)
        x[i] = d * (float)code[i] + m;
}

/* ---- with an exact zero --------------------------------------------------------------------------------------------------- */
/* The least half that is not under d and of which every multiple up to `most` is a half too: its eleven bits end in zeros. */
static uint16_t round_up(float d, int most)
{
    uint16_t half = skf_f32_to_f16(d);
    if (skf_f16_to_f32(half) < d)
        half++;
    for (int drop = 0; drop < 5; drop++) {
        uint16_t mask = (uint16_t)((1u << drop) - 1), up = (uint16_t)((half + mask) & ~mask);
        int bits = up >= 0x0400 ? (up & 0x03FF) | 0x0400 : up;
        if ((bits >> drop) * most < 2048)
            return up;
    }
    return (uint16_t)((half + 31) & ~31);
}

/* x = d (code - zero): m = -d zero exactly. */
static void block_to_sparse(const float *x, int most, uint8_t *q, uint8_t *code)
{
    float lo, hi;
    range_of(x, &lo, &hi);
    lo = lo < 0 ? lo : 0.0f;
    hi = hi > 0 ? hi : 0.0f;
    uint16_t half = round_up((hi - lo) / (float)most, most);
    float d = skf_f16_to_f32(half), id = d != 0 ? 1.0f / d : 0.0f;
    float zero = -lo * id + 0.5f;
    zero = zero > 0 ? floorf(zero < (float)most ? zero : (float)most) : 0.0f;
    skf_put_le16(q, half);
    skf_put_le16(q + 2, skf_f32_to_f16(d * -zero));
    put_steps(x, 0, id, zero + 0.5f, most, code);
}

void skf_sparse_q4_1(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_sparse(x, 15, q, code);
    put_codes(code, q + 4, NULL);
}

void skf_sparse_q5_1(const float *x, uint8_t *q)
{
    uint8_t code[B];
    block_to_sparse(x, 31, q, code);
    put_codes(code, q + 8, q + 4);
}

/* ---- with importance ---------------------------------------------------------------------------------------------------- */
enum { AT_ONCE = 4 }; /* blocks */

/* How much each element's error counts: its input's importance, more for what is large in its row. */
static void weigh(const float *x, const float *importance, float mean_square, float *w, int blocks)
{
    for (int i = 0; i < blocks * B; i++)
        w[i] = importance[i] * sqrtf(mean_square + x[i] * x[i]);
}

static void weighed_even(const float *x, const float *importance, float mean_square, int half, uint8_t *q, int bytes, int blocks)
{
    float w[AT_ONCE * B] = {0}, d[AT_ONCE];
    uint8_t code[AT_ONCE * B];
    weigh(x, importance, mean_square, w, blocks);
    skf_fit_even(blocks, B, half, x, w, code, d);
    for (int b = 0; b < blocks; b++, q += bytes) {
        skf_put_le16(q, skf_f32_to_f16(d[b]));
        put_codes(code + b * B, half == 16 ? q + 6 : q + 2, half == 16 ? q + 2 : NULL);
    }
}

static void weighed_uneven(const float *x, const float *importance, float mean_square, int most, uint8_t *q, int bytes, int blocks)
{
    float w[AT_ONCE * B] = {0}, d[AT_ONCE], m[AT_ONCE];
    uint8_t code[AT_ONCE * B];
    weigh(x, importance, mean_square, w, blocks);
    skf_fit_uneven(blocks, B, most, x, w, &skf_fit_fine, code, d, m);
    for (int b = 0; b < blocks; b++, q += bytes) {
        skf_put_le16(q, skf_f32_to_f16(d[b]));
        skf_put_le16(q + 2, skf_f32_to_f16(-m[b]));
        put_codes(code + b * B, most == 31 ? q + 8 : q + 4, most == 31 ? q + 4 : NULL);
    }
}

void skf_weighed_q4_0(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    weighed_even(x, importance, mean_square, 8, q, 18, blocks);
}

void skf_weighed_q4_1(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    weighed_uneven(x, importance, mean_square, 15, q, 20, blocks);
}

void skf_weighed_q5_0(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    weighed_even(x, importance, mean_square, 16, q, 22, blocks);
}

void skf_weighed_q5_1(const float *x, const float *importance, float mean_square, uint8_t *q, int blocks)
{
    weighed_uneven(x, importance, mean_square, 31, q, 24, blocks);
}
