/* Rounding onto a grid that stays, the error carried along (grid.h). Plain float32 in a fixed order; no libm. */
#include "model/grid.h"

#include <float.h>

#include "base/buf.h"

enum { B = 32 };

/* One block's grid: code q of lowest..highest stands for d * (q - zero) + m. */
struct grid {
    float d, m;
    int lowest, highest, zero;
};

static bool is_real(float f) { return f >= -FLT_MAX && f <= FLT_MAX; }

bool is_grid_type(enum skf_type t)
{
    return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16 || t == SKF_T_Q8_0 || t == SKF_T_Q4_0 || t == SKF_T_Q4_1 ||
           t == SKF_T_Q5_0 || t == SKF_T_Q5_1;
}

static struct grid grid_of(enum skf_type t, const uint8_t *block)
{
    struct grid g = {.d = skf_f16_to_f32(skf_le16(block)), .lowest = 0, .highest = 15};
    if (t == SKF_T_Q8_0) {
        g.lowest = -128;
        g.highest = 127;
    } else if (t == SKF_T_Q5_0 || t == SKF_T_Q5_1) {
        g.highest = 31;
    }
    if (t == SKF_T_Q4_0 || t == SKF_T_Q5_0)
        g.zero = (g.highest + 1) / 2;
    if (t == SKF_T_Q4_1 || t == SKF_T_Q5_1)
        g.m = skf_f16_to_f32(skf_le16(block + 2));
    return g;
}

/* The code nearest to the value v. */
static int code_of(const struct grid *g, float v)
{
    float c = (v - g->m) / g->d + (float)(g->zero - g->lowest) + 0.5f; /* steps above the lowest code, to be truncated */
    if (!(c > 0.0f))
        return g->lowest;
    float steps = (float)(g->highest - g->lowest);
    return g->lowest + (c >= steps ? g->highest - g->lowest : (int)c);
}

static void set_code(enum skf_type t, uint8_t *block, int i, int code)
{
    if (t == SKF_T_Q8_0) {
        block[2 + i] = (uint8_t)code;
        return;
    }
    uint8_t *at = block + (t == SKF_T_Q4_1 || t == SKF_T_Q5_1 ? 4 : 2); /* behind the scales */
    if (t == SKF_T_Q5_0 || t == SKF_T_Q5_1) {
        skf_put_le32(at, (skf_le32(at) & ~(1u << i)) | (uint32_t)(code >> 4) << i);
        at += 4;
    }
    at += i % (B / 2);
    *at = i < B / 2 ? (uint8_t)((*at & 0xF0) | (code & 15)) : (uint8_t)((*at & 0x0F) | (code & 15) << 4);
}

/* A grid of one point: fine while x is that point, otherwise a new grid. */
static enum skf_err flat_block(enum skf_type t, uint8_t *block, const float *x, const struct grid *g, float *carry)
{
    bool is_same = true;
    for (int i = 0; i < B; i++)
        is_same = is_same && x[i] == g->m;
    if (is_same)
        return SKF_OK;
    *carry = 0.0f;
    return skf_quantize(t, x, block, B);
}

static enum skf_err grid_block(enum skf_type t, uint8_t *block, const float *x, float *carry)
{
    struct grid g = grid_of(t, block);
    if (!is_real(g.d) || !is_real(g.m))
        return SKF_ERR_FORMAT;
    if (g.d == 0.0f)
        return flat_block(t, block, x, &g, carry);
    float step = g.d < 0.0f ? -g.d : g.d;
    for (int i = 0; i < B; i++) {
        float want = x[i] + *carry;
        int code = code_of(&g, want);
        set_code(t, block, i, code);
        float left = want - (g.d * (float)(code - g.zero) + g.m);
        /* What lies outside the grid for good must not be heaped onto the neighbours. */
        *carry = left > step ? step : left < -step ? -step : left;
    }
    return SKF_OK;
}

enum skf_err skf_grid_row(enum skf_type t, uint8_t *row, const float *x, uint64_t n)
{
    if (!is_grid_type(t))
        return SKF_ERR_UNSUPPORTED;
    for (uint64_t i = 0; i < n; i++)
        if (!is_real(x[i]))
            return SKF_ERR_FORMAT;
    if (t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16)
        return skf_quantize(t, x, row, n);
    if (n % B)
        return SKF_ERR_ARG;
    uint32_t bytes = skf_type_info((uint32_t)t)->block_bytes;
    float carry = 0.0f;
    for (uint64_t i = 0; i < n / B; i++)
        SKF_TRY(grid_block(t, row + i * bytes, x + i * B, &carry));
    return SKF_OK;
}
