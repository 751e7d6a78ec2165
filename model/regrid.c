/* Rows of a new version written over the old one's (regrid.h). Plain float32 in a fixed order; no libm. */
#include "model/regrid.h"

#include <float.h>
#include <string.h>

#include "model/regrid_priv.h"

enum { B = 32 }; /* floats handled at a time */
/* A block takes a grid of its own when the old one's squared error is more than this times the new one's. */
#define REFIT 2.0f
/* Whole steps beyond this are not counted exactly by a float: such changes are taken as they are. */
#define STEPS_MAX 4194304.0f

static bool is_finite(float f) { return f >= -FLT_MAX && f <= FLT_MAX; }
static float size_of(float f) { return f < 0.0f ? -f : f; }

static bool is_plain(enum skf_type t) { return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16; }

bool is_regrid_type(enum skf_type t) { return is_plain(t) || regrid_unit(t) > 0; }

float skf_regrid_draw(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (float)(z >> 40) * 0x1p-24f;
}

/* ---- a block on the old grid --------------------------------------------------------------------------------------------------- */
static int floor_of(float f) /* |f| <= STEPS_MAX */
{
    int i = (int)f;
    return i - (f < (float)i);
}

/* The same for a small change: what is left over goes on to the next element of the row, as in dithering. */
static int carried_code(const struct skf_regrid *how, const struct cells *g, int code, float move, float *carry)
{
    float want = move + *carry;
    int by = size_of(want) < how->edge ? 0 : floor_of(want + 0.5f), to = code + by;
    to = to < g->lowest ? g->lowest : to > g->highest ? g->highest : to;
    float left = want - (float)(to - code);
    *carry = left > 1.0f ? 1.0f : left < -1.0f ? -1.0f : left; /* what lies outside the grid for good is not heaped onto neighbours */
    return to;
}

/* The code that takes the place of `code` for a value that lies at y, in steps above the lowest code's. */
static int new_code(const struct skf_regrid *how, const struct cells *g, int code, float y, float coarse, uint64_t at)
{
    int last = g->highest - g->lowest, was = code - g->lowest, to = floor_of(y + 0.5f);
    float move = y - (float)was;
    to = to < 0 ? 0 : to > last ? last : to;
    if (!how->is_drifted) {
        if (to == was || (coarse <= 1.0f && size_of(move) < 0.5f + how->keep))
            return code;
        move = (float)(to - was);
    }
    if (coarse <= 1.0f && !how->is_drifted)
        return to + g->lowest;
    int by = (int)(size_of(move) / coarse + skf_regrid_draw(how->seed, at));
    by = (int)((float)by * coarse + 0.5f);
    to = was + (move < 0.0f ? -by : by);
    return g->lowest + (to < 0 ? 0 : to > last ? last : to);
}

/* Whether x stands much better in the block as it is than on the grid of the old one. */
static bool is_refit(enum skf_type t, const struct cells *cells, const float *x, const float *y, const uint8_t *block, unsigned n)
{
    float fit[REGRID_BLOCK], apart_old = 0.0f, apart_new = 0.0f;
    if (skf_dequantize(t, block, fit, n) != SKF_OK)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const struct cells *g = &cells[i / regrid_unit(t)];
        float near = (float)floor_of(y[i] + 0.5f), last = (float)(g->highest - g->lowest);
        near = near < 0.0f ? 0.0f : near > last ? last : near;
        float a = (y[i] - near) * g->d, b = x[i] - fit[i];
        apart_old += a * a;
        apart_new += b * b;
    }
    return !(apart_old <= REFIT * apart_new);
}

/* Where n values lie on the grid, in steps above the lowest code; false when it has none to lie on. */
static bool is_placed(const struct cells *g, const float *x, float *y, unsigned n)
{
    if (!is_finite(g->d) || !is_finite(g->m) || g->d == 0.0f)
        return false;
    for (unsigned i = 0; i < n; i++) {
        y[i] = (x[i] - g->m) / g->d + (float)(g->zero - g->lowest);
        if (!(size_of(y[i]) < STEPS_MAX))
            return false;
    }
    return true;
}

/* How many steps of the grid a sampled change has. */
static float coarseness(const struct skf_regrid *how, const struct cells *g)
{
    float steps = how->step / size_of(g->d);
    return steps > 1.0f ? (float)floor_of((steps < 255.0f ? steps : 255.0f) + 0.5f) : 1.0f;
}

/* The codes of one unit; where it has no grid they stay, and false says so when its values are not what it stands for. */
static bool is_unit_moved(const struct cells *g, int16_t *code, const float *x, float *y, unsigned n, uint64_t at,
                          const struct skf_regrid *how, float *carry)
{
    if (!is_placed(g, x, y, n)) {
        for (unsigned i = 0; i < n; i++) {
            y[i] = (float)(code[i] - g->lowest);
            if (x[i] != g->m || g->d != 0.0f)
                return false;
        }
        return true;
    }
    float coarse = coarseness(how, g);
    bool is_carried = how->is_drifted && how->edge > 0.0f && coarse <= 1.0f;
    for (unsigned i = 0; i < n; i++) {
        float move = y[i] - (float)(code[i] - g->lowest);
        code[i] = (int16_t)(is_carried ? carried_code(how, g, code[i], move, carry) : new_code(how, g, code[i], y[i], coarse, at + i));
    }
    return true;
}

static void regrid_block(enum skf_type t, const uint8_t *old, uint8_t *block, const float *x, uint64_t at, const struct skf_regrid *how,
                         float *carry)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    struct cells cells[REGRID_UNITS];
    float y[REGRID_BLOCK];
    int16_t code[REGRID_BLOCK];
    unsigned n = info->block, unit = regrid_unit(t);
    regrid_get(t, old, cells, code);
    for (unsigned i = 0; i < n; i += unit)
        if (!is_unit_moved(&cells[i / unit], code + i, x + i, y + i, unit, at + i, how, carry))
            return;
    if (!how->is_drifted && is_refit(t, cells, x, y, block, n))
        return;
    memcpy(block, old, info->block_bytes);
    regrid_put(t, code, block);
}

/* ---- floats ------------------------------------------------------------------------------------------------------------------- */
/* What the last bit of x is worth in type t. */
static float last_bit(enum skf_type t, float x)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = x};
    int exponent = (int)(v.u >> 23 & 255);
    if (t == SKF_T_F16 && exponent < 127 - 14)
        exponent = 127 - 14;
    exponent -= t == SKF_T_F32 ? 23 : t == SKF_T_F16 ? 10 : 7;
    v.u = exponent > 0 ? (uint32_t)exponent << 23 : 0;
    return v.f;
}

static float rounded(float change, float to)
{
    float steps = size_of(change) / to;
    if (to == 0.0f || !(steps < STEPS_MAX))
        return change;
    float q = (float)floor_of(steps + 0.5f) * to;
    return change < 0.0f ? -q : q;
}

static float regrid_value(enum skf_type t, float was, float x, const struct skf_regrid *how, uint64_t at)
{
    float change = rounded(x - was, how->round), step = how->step, steps = size_of(change) / (step > 0.0f ? step : 1.0f);
    if (!is_finite(was) || !is_finite(change))
        return x;
    if (change == 0.0f || last_bit(t, was) >= step || !(steps < STEPS_MAX))
        return was + change;
    float q = (float)floor_of(steps + skf_regrid_draw(how->seed, at)) * step;
    return was + (change < 0.0f ? -q : q);
}

static enum skf_err regrid_floats(enum skf_type t, const uint8_t *old, uint8_t *row, const float *x, uint64_t n, uint64_t at,
                                  const struct skf_regrid *how)
{
    uint32_t bytes = skf_type_info((uint32_t)t)->block_bytes;
    float is[B];
    for (uint64_t i = 0, k; i < n; i += k) {
        k = n - i < B ? n - i : B;
        SKF_TRY(skf_dequantize(t, old + i * bytes, is, k));
        for (uint64_t e = 0; e < k; e++)
            is[e] = regrid_value(t, is[e], x[i + e], how, at + i + e);
        SKF_TRY(skf_quantize(t, is, row + i * bytes, k));
    }
    return SKF_OK;
}

enum skf_err skf_regrid_row(enum skf_type t, const uint8_t *old, uint8_t *row, const float *x, uint64_t n, uint64_t at,
                            const struct skf_regrid *how)
{
    if (!is_regrid_type(t))
        return SKF_ERR_UNSUPPORTED;
    if (is_plain(t))
        return how->step > 0.0f || how->round > 0.0f ? regrid_floats(t, old, row, x, n, at, how) : SKF_OK;
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    float carry = 0.0f;
    if (n % info->block)
        return SKF_ERR_ARG;
    for (uint64_t i = 0; i < n / info->block; i++)
        regrid_block(t, old + i * info->block_bytes, row + i * info->block_bytes, x + i * info->block, at + i * info->block, how, &carry);
    return SKF_OK;
}

enum skf_err skf_regrid_place(enum skf_type t, const uint8_t *old, const float *x, uint64_t n, struct skf_regrid_place *p)
{
    if (!is_regrid_type(t) || is_plain(t))
        return SKF_ERR_UNSUPPORTED;
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    unsigned unit = regrid_unit(t);
    if (n % info->block)
        return SKF_ERR_ARG;
    for (uint64_t at = 0; at < n; at += info->block, old += info->block_bytes) {
        struct cells cells[REGRID_UNITS];
        int16_t code[REGRID_BLOCK];
        float y[REGRID_BLOCK];
        regrid_get(t, old, cells, code);
        for (unsigned i = 0; i < info->block; i++) {
            const struct cells *g = &cells[i / unit];
            if (i % unit == 0 && !is_placed(g, x + at + i, y + i, unit)) {
                i += unit - 1;
                continue;
            }
            float apart = size_of(y[i] - (float)(code[i] - g->lowest));
            p->apart += (double)apart;
            p->moved += apart > 0.5f;
            p->n++;
        }
    }
    return SKF_OK;
}
