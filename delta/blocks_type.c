/* What blocks of each quantized type hold (blocks_priv.h; ggml's ggml-common.h is where the types come from). */
#include <string.h>

#include "delta/blocks_priv.h"

/* codes, unit, bits, bias, grid, low plane, high plane */
#define ONE(n, unit, bits, bias, grid, at, b, run) {n, unit, bits, bias, grid, {at, b, run}, {0, 0, 0}, false}
#define TWO(n, unit, bits, bias, grid, at, b, run, at2, b2, run2) \
    {n, unit, bits, bias, grid, {at, b, run}, {at2, b2, run2}, false}
#define K4 {16, 8, 6, 0, GRID_HALVES, {4, 4, 8}, {0, 0, 0}, true}

static const struct skf_layout layouts[] = {
    {SKF_T_Q4_0, 1, {0}, 1, {ONE(32, 32, 4, 8, GRID_HALF, 2, 4, 16)}},
    {SKF_T_Q4_1, 2, {0, 2}, 1, {ONE(32, 32, 4, 0, GRID_HALF, 4, 4, 16)}},
    {SKF_T_Q5_0, 1, {0}, 1, {TWO(32, 32, 5, 16, GRID_HALF, 6, 4, 16, 2, 1, 1)}},
    {SKF_T_Q5_1, 2, {0, 2}, 1, {TWO(32, 32, 5, 0, GRID_HALF, 8, 4, 16, 4, 1, 1)}},
    {SKF_T_Q8_0, 1, {0}, 1, {ONE(32, 32, 8, 0, GRID_HALF, 2, 8, 32)}},
    {SKF_T_Q8_1, 2, {0, 2}, 1, {ONE(32, 32, 8, 0, GRID_NONE, 4, 8, 32)}},
    {SKF_T_IQ4_NL, 1, {0}, 1, {ONE(32, 32, 4, 0, GRID_NONE, 2, 4, 16)}},
    {SKF_T_MXFP4, 0, {0}, 2, {ONE(1, 1, 8, 0, GRID_NONE, 0, 8, 1), ONE(32, 32, 4, 0, GRID_NONE, 1, 4, 16)}},
    {SKF_T_Q2_K, 2, {80, 82}, 2,
     {ONE(32, 16, 4, 0, GRID_HALVES, 0, 4, 16), ONE(256, 16, 2, 0, GRID_SUB_MIN, 16, 2, 32)}},
    {SKF_T_Q3_K, 1, {108}, 2,
     {TWO(16, 16, 6, 32, GRID_HALF, 96, 4, 8, 104, 2, 4), TWO(256, 16, 3, 4, GRID_SUB, 32, 2, 32, 0, 1, 32)}},
    {SKF_T_Q4_K, 2, {0, 2}, 2, {K4, ONE(256, 32, 4, 0, GRID_SUB_MIN, 16, 4, 32)}},
    {SKF_T_Q5_K, 2, {0, 2}, 2, {K4, TWO(256, 32, 5, 0, GRID_SUB_MIN, 48, 4, 32, 16, 1, 32)}},
    {SKF_T_Q6_K, 1, {208}, 2,
     {ONE(16, 16, 8, 0, GRID_HALF, 192, 8, 16), TWO(256, 16, 6, 32, GRID_SUB, 0, 4, 64, 128, 2, 32)}},
    {SKF_T_IQ4_XS, 1, {0}, 2,
     {TWO(8, 8, 6, 32, GRID_HALF, 4, 4, 1, 2, 2, 1), ONE(256, 32, 4, 0, GRID_NONE, 8, 4, 16)}},
    {SKF_T_TQ2_0, 1, {64}, 1, {ONE(256, 32, 2, 1, GRID_HALF, 0, 2, 32)}},
    {SKF_T_NVFP4, 0, {0}, 2, {ONE(4, 1, 8, 0, GRID_NONE, 0, 8, 4), ONE(64, 16, 4, 0, GRID_NONE, 4, 4, 8)}},
    /* Places in books of vectors, signs, digits to the base of three: bytes, each as likely to become any other. */
    {SKF_T_TQ1_0, 1, {52}, 2, {ONE(8, 8, 4, 0, GRID_NONE, 48, 4, 4), ONE(48, 8, 8, 0, GRID_NONE, 0, 8, 48)}},
    {SKF_T_IQ2_XXS, 1, {0}, 1, {ONE(64, 8, 8, 0, GRID_NONE, 2, 8, 64)}},
    {SKF_T_IQ2_XS, 1, {0}, 1, {ONE(72, 8, 8, 0, GRID_NONE, 2, 8, 72)}},
    {SKF_T_IQ2_S, 1, {0}, 1, {ONE(80, 8, 8, 0, GRID_NONE, 2, 8, 80)}},
    {SKF_T_IQ3_XXS, 1, {0}, 1, {ONE(96, 8, 8, 0, GRID_NONE, 2, 8, 96)}},
    {SKF_T_IQ3_S, 1, {0}, 2, {ONE(8, 8, 4, 0, GRID_NONE, 106, 4, 4), ONE(104, 8, 8, 0, GRID_NONE, 2, 8, 104)}},
    {SKF_T_IQ1_S, 1, {0}, 1, {ONE(48, 8, 8, 0, GRID_NONE, 2, 8, 48)}},
    {SKF_T_IQ1_M, 0, {0}, 1, {ONE(56, 8, 8, 0, GRID_NONE, 0, 8, 56)}},
    {SKF_T_Q1_0, 1, {0}, 1, {ONE(16, 8, 8, 0, GRID_NONE, 2, 8, 16)}},
};

const struct skf_layout *skf_layout_of(enum skf_type t)
{
    for (size_t i = 0; i < SKF_COUNT(layouts); i++)
        if (layouts[i].type == t)
            return &layouts[i];
    return NULL;
}

uint32_t skf_blocks_grain(enum skf_type t)
{
    const struct skf_type_info *info = skf_type_info(t);
    return info && skf_layout_of(t) ? info->block_bytes : 0;
}

/* ---- codes ------------------------------------------------------------------------------------------------------------------- */
/* Ors the plane's bits into codes, `up` bits higher. One copy a number of bits: shifts are constants to the vectors. */
static inline __attribute__((always_inline)) void get_bits(const struct skf_plane *pl, unsigned bits, unsigned n,
                                                           const uint8_t *restrict p, unsigned up, uint8_t *restrict c)
{
    const unsigned run = pl->run, mask = (1u << bits) - 1;
    for (unsigned e = 0; e < n; p += run)
        for (unsigned shift = 0; shift < 8 && e < n; shift += bits, e += run)
            for (unsigned i = 0; i < run; i++)
                c[e + i] = (uint8_t)(c[e + i] | (p[i] >> shift & mask) << up);
}
static inline __attribute__((always_inline)) void set_bits(const struct skf_plane *pl, unsigned bits, unsigned n,
                                                           uint8_t *restrict p, unsigned up, const uint8_t *restrict c)
{
    const unsigned run = pl->run, mask = (1u << bits) - 1;
    for (unsigned e = 0; e < n; p += run)
        for (unsigned shift = 0; shift < 8 && e < n; shift += bits, e += run)
            for (unsigned i = 0; i < run; i++)
                p[i] = (uint8_t)((shift ? p[i] : 0) | (c[e + i] >> up & mask) << shift);
}

static SKF_LOOPS void plane_get(const struct skf_plane *pl, unsigned n, const uint8_t *block, unsigned up, int8_t *code)
{
    const uint8_t *p = block + pl->at;
    if (pl->bits == 4)
        get_bits(pl, 4, n, p, 0, (uint8_t *)code);
    else if (pl->bits == 2 && up == 4)
        get_bits(pl, 2, n, p, 4, (uint8_t *)code);
    else if (pl->bits == 2)
        get_bits(pl, 2, n, p, up, (uint8_t *)code);
    else
        get_bits(pl, 1, n, p, up, (uint8_t *)code);
}

static SKF_LOOPS void plane_set(const struct skf_plane *pl, unsigned n, uint8_t *block, unsigned up, const int8_t *code)
{
    uint8_t *p = block + pl->at;
    if (pl->bits == 4)
        set_bits(pl, 4, n, p, 0, (const uint8_t *)code);
    else if (pl->bits == 2)
        set_bits(pl, 2, n, p, up, (const uint8_t *)code);
    else
        set_bits(pl, 1, n, p, up, (const uint8_t *)code);
}

/* Where the pieces of scale e lie: four low bits at bit *shift of byte *low, two high ones at bit *up of byte *high. */
static void k4_place(unsigned e, unsigned *low, unsigned *shift, unsigned *high, unsigned *up)
{
    unsigned k = e & 7, half = (e & 8) / 2;
    *low = k < 4 ? half + k : k + 4;
    *shift = k < 4 ? 0 : half;
    *high = k < 4 ? half + k : half + k - 4;
    *up = k < 4 ? 4 : 6;
}

static int k4_get(const uint8_t *p, unsigned e)
{
    unsigned low, shift, high, up;
    k4_place(e, &low, &shift, &high, &up);
    return (p[low] >> shift & 15) | (p[high] >> up & 3) << 4;
}

static void k4_set(uint8_t *p, unsigned e, unsigned v)
{
    unsigned low, shift, high, up;
    k4_place(e, &low, &shift, &high, &up);
    p[low] = (uint8_t)((p[low] & ~(15u << shift)) | (v & 15) << shift);
    p[high] = (uint8_t)((p[high] & ~(3u << up)) | (v >> 4 & 3) << up);
}

void skf_codes_get(const struct skf_codes *f, const uint8_t *block, int8_t *code)
{
    if (f->bits == 8) {
        memcpy(code, block + f->low.at, f->n);
        return;
    }
    const uint8_t *q = block + f->low.at;
    if (f->is_k4) {
        for (unsigned k = 0; k < 4; k++) {
            code[k] = (int8_t)(q[k] & 63);
            code[4 + k] = (int8_t)((q[8 + k] & 15) | q[k] >> 6 << 4);
            code[8 + k] = (int8_t)(q[4 + k] & 63);
            code[12 + k] = (int8_t)(q[8 + k] >> 4 | q[4 + k] >> 6 << 4);
        }
        return;
    }
    memset(code, 0, f->n);
    plane_get(&f->low, f->n, block, 0, code);
    if (f->high.bits)
        plane_get(&f->high, f->n, block, f->low.bits, code);
}

void skf_codes_set(const struct skf_codes *f, uint8_t *block, const int8_t *code)
{
    if (f->bits == 8) {
        memcpy(block + f->low.at, code, f->n);
        return;
    }
    for (unsigned e = 0; f->is_k4 && e < f->n; e++)
        k4_set(block + f->low.at, e, (unsigned)code[e]);
    if (!f->is_k4)
        plane_set(&f->low, f->n, block, 0, code);
    if (f->high.bits)
        plane_set(&f->high, f->n, block, f->low.bits, code);
}

static uint8_t *plane_place(const struct skf_plane *pl, uint8_t *block, unsigned e, unsigned *shift)
{
    unsigned each = 8 / pl->bits, row = e / pl->run;
    *shift = row % each * pl->bits;
    return block + pl->at + row / each * pl->run + e % pl->run;
}

void skf_code_add(const struct skf_codes *f, uint8_t *block, unsigned e, int d)
{
    unsigned shift, up;
    if (f->is_k4) {
        k4_set(block + f->low.at, e, (unsigned)(k4_get(block + f->low.at, e) + d));
        return;
    }
    uint8_t *low = plane_place(&f->low, block, e, &shift);
    unsigned mask = (1u << f->low.bits) - 1, code = *low >> shift & mask;
    if (!f->high.bits) {
        *low = (uint8_t)((*low & ~(mask << shift)) | ((code + (unsigned)d) & mask) << shift);
        return;
    }
    uint8_t *high = plane_place(&f->high, block, e, &up);
    unsigned top = (1u << f->high.bits) - 1;
    code = (code | (*high >> up & top) << f->low.bits) + (unsigned)d;
    *low = (uint8_t)((*low & ~(mask << shift)) | (code & mask) << shift);
    *high = (uint8_t)((*high & ~(top << up)) | (code >> f->low.bits & top) << up);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------- */
const uint8_t skf_step_class[SKF_CONTEXTS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4,
                                              4, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6};

/* Codes with a bias stand for step * (code - bias): the offset takes it in. */
void skf_steps_get(const struct skf_layout *l, unsigned k, const uint8_t *block, struct skf_step *s)
{
    const struct skf_codes *f = &l->field[k];
    unsigned units = f->n / f->unit;
    float d = l->n_halves ? skf_half_at(block + l->half[0]) : 1, m = l->n_halves > 1 ? skf_half_at(block + l->half[1]) : 0;
    int8_t sub[BLOCKS_CODES];
    switch (f->grid) {
    case GRID_NONE:
    case GRID_HALF:
        for (unsigned i = 0; i < units; i++)
            s[i] = (struct skf_step){d, f->grid == GRID_NONE ? 0 : m - d * (float)f->bias};
        break;
    case GRID_HALVES:
        for (unsigned i = 0; i < units; i++)
            s[i] = (struct skf_step){i < units / 2 ? d : m, 0};
        break;
    default:
        skf_codes_get(&l->field[k - 1], block, sub);
        for (unsigned i = 0; i < units; i++) {
            float step = d * (float)(sub[i] - l->field[k - 1].bias);
            float least = f->grid == GRID_SUB_MIN ? -(m * (float)sub[units + i]) : 0;
            s[i] = (struct skf_step){step, least - step * (float)f->bias};
        }
    }
}
