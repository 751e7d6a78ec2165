/* Codes and grids of quantized blocks, as ggml lays them out (regrid_priv.h; layouts: quant.c, quant_k.c). */
#include "base/buf.h"
#include "model/regrid_priv.h"

unsigned regrid_unit(enum skf_type t)
{
    switch (t) {
    case SKF_T_Q8_0:
    case SKF_T_Q4_0:
    case SKF_T_Q4_1:
    case SKF_T_Q5_0:
    case SKF_T_Q5_1:
    case SKF_T_Q4_K:
    case SKF_T_Q5_K:
        return 32;
    case SKF_T_Q6_K:
        return 16;
    default:
        return 0;
    }
}

/* ---- blocks of 32 ---------------------------------------------------------------------------------------------------------------- */
static bool has_min(enum skf_type t) { return t == SKF_T_Q4_1 || t == SKF_T_Q5_1; }
static bool has_fifth(enum skf_type t) { return t == SKF_T_Q5_0 || t == SKF_T_Q5_1; }

static struct cells plain_cells(enum skf_type t, const uint8_t *block)
{
    struct cells g = {.d = skf_f16_to_f32(skf_le16(block)), .highest = has_fifth(t) ? 31 : 15};
    if (t == SKF_T_Q8_0) {
        g.lowest = -128;
        g.highest = 127;
    } else if (has_min(t)) {
        g.m = skf_f16_to_f32(skf_le16(block + 2));
    } else {
        g.zero = (g.highest + 1) / 2;
    }
    return g;
}

static void plain_get(enum skf_type t, const uint8_t *block, int16_t *code)
{
    const uint8_t *at = block + (has_min(t) ? 4 : 2); /* behind the scales */
    uint32_t fifth = has_fifth(t) ? skf_le32(at) : 0;
    at += has_fifth(t) ? 4 : 0;
    for (int i = 0; i < 32; i++)
        code[i] = t == SKF_T_Q8_0 ? (int8_t)at[i] : (int16_t)((at[i % 16] >> (i < 16 ? 0 : 4) & 15) | (int)(fifth >> i & 1) << 4);
}

static void plain_put(enum skf_type t, const int16_t *code, uint8_t *block)
{
    uint8_t *at = block + (has_min(t) ? 4 : 2);
    uint32_t fifth = 0;
    for (int i = 0; i < 32; i++)
        fifth |= (uint32_t)(code[i] >> 4 & 1) << i;
    if (has_fifth(t)) {
        skf_put_le32(at, fifth);
        at += 4;
    }
    for (int i = 0; i < 32; i++) {
        if (t == SKF_T_Q8_0)
            at[i] = (uint8_t)code[i];
        else if (i < 16)
            at[i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
    }
}

/* ---- K-quants -------------------------------------------------------------------------------------------------------------------- */
/* Q4_K, Q5_K: f16 d, f16 m, eight scales and mins of six bits; x = d scale q - m min. */
static void k_cells(const uint8_t *block, int highest, struct cells *cells)
{
    float d = skf_f16_to_f32(skf_le16(block)), m = skf_f16_to_f32(skf_le16(block + 2));
    const uint8_t *s = block + 4;
    for (int j = 0; j < 8; j++) {
        int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
        cells[j] = (struct cells){.d = d * (float)scale, .m = -(m * (float)min), .highest = highest};
    }
}

/* Element i of a block: byte and shift of its lower four bits; 64 elements share 32 bytes. */
static int k_byte(int i) { return i / 64 * 32 + i % 32; }
static int k_shift(int i) { return i / 32 % 2 * 4; }

static void k_get(const uint8_t *low, const uint8_t *fifth, int16_t *code)
{
    for (int i = 0; i < REGRID_BLOCK; i++) {
        int high = fifth ? fifth[i % 32] >> (i / 32) & 1 : 0;
        code[i] = (int16_t)((low[k_byte(i)] >> k_shift(i) & 15) | high << 4);
    }
}

static void k_put(const int16_t *code, uint8_t *low, uint8_t *fifth)
{
    memset(low, 0, REGRID_BLOCK / 2);
    if (fifth)
        memset(fifth, 0, 32);
    for (int i = 0; i < REGRID_BLOCK; i++) {
        low[k_byte(i)] |= (uint8_t)((code[i] & 15) << k_shift(i));
        if (fifth)
            fifth[i % 32] |= (uint8_t)((code[i] >> 4 & 1) << (i / 32));
    }
}

/* Q6_K: lower four bits, upper two, sixteen signed scales, f16 d; 128 elements share 64 and 32 bytes. */
static int six_byte(int i) { return i / 128 * 64 + i % 64; }
static int six_shift(int i) { return i / 64 % 2 * 4; }
static int six_high(int i) { return 128 + i / 128 * 32 + i % 32; }
static int six_high_shift(int i) { return i / 32 % 4 * 2; }

static void six_get(const uint8_t *block, struct cells *cells, int16_t *code)
{
    float d = skf_f16_to_f32(skf_le16(block + 208));
    for (int i = 0; i < REGRID_BLOCK; i++)
        code[i] = (int16_t)((block[six_byte(i)] >> six_shift(i) & 15) | (block[six_high(i)] >> six_high_shift(i) & 3) << 4);
    for (int j = 0; j < 16; j++)
        cells[j] = (struct cells){.d = d * (float)(int8_t)block[192 + j], .highest = 63, .zero = 32};
}

static void six_put(const int16_t *code, uint8_t *block)
{
    memset(block, 0, 192);
    for (int i = 0; i < REGRID_BLOCK; i++) {
        block[six_byte(i)] |= (uint8_t)((code[i] & 15) << six_shift(i));
        block[six_high(i)] |= (uint8_t)((code[i] >> 4 & 3) << six_high_shift(i));
    }
}

/* ---- all ------------------------------------------------------------------------------------------------------------------------ */
void regrid_get(enum skf_type t, const uint8_t *block, struct cells *cells, int16_t *code)
{
    if (t == SKF_T_Q6_K) {
        six_get(block, cells, code);
    } else if (t == SKF_T_Q4_K || t == SKF_T_Q5_K) {
        k_cells(block, t == SKF_T_Q4_K ? 15 : 31, cells);
        k_get(block + (t == SKF_T_Q4_K ? 16 : 48), t == SKF_T_Q4_K ? NULL : block + 16, code);
    } else {
        cells[0] = plain_cells(t, block);
        plain_get(t, block, code);
    }
}

void regrid_put(enum skf_type t, const int16_t *code, uint8_t *block)
{
    if (t == SKF_T_Q6_K)
        six_put(code, block);
    else if (t == SKF_T_Q4_K || t == SKF_T_Q5_K)
        k_put(code, block + (t == SKF_T_Q4_K ? 16 : 48), t == SKF_T_Q4_K ? NULL : block + 16);
    else
        plain_put(t, code, block);
}
