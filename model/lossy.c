/* Ways of sending less of a change (lossy.h). Plain float32 and double in a fixed order. */
#include "model/lossy.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { TURNS = 5, DOTS = 8 };

static float size_of(float f) { return f < 0.0f ? -f : f; }

/* ---- rows ---------------------------------------------------------------------------------------------------------------------- */
static float dot(const float *a, const float *b, uint64_t n)
{
    float s[DOTS] = {0}; /* a fixed order of additions */
    uint64_t i = 0;
    for (; i + DOTS <= n; i += DOTS)
        for (unsigned k = 0; k < DOTS; k++)
            s[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static void add_scaled(float *a, const float *b, float by, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        a[i] += by * b[i];
}

/* new := old values, what they become */
static void by_sign(const float *x, float *is, uint64_t n, float size)
{
    for (uint64_t i = 0; i < n; i++) {
        float change = x[i] - is[i];
        is[i] += change > 0.0f ? size : change < 0.0f ? -size : 0.0f;
    }
}

static void by_size(const float *x, float *is, uint64_t n, float size)
{
    for (uint64_t i = 0; i < n; i++)
        is[i] = size_of(x[i] - is[i]) >= size ? x[i] : is[i];
}

enum skf_err skf_lossy_row(enum skf_type t, const uint8_t *old, uint8_t *row, const float *x, uint64_t n, uint64_t at,
                           const struct skf_lossy *how, float *scratch)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    if (how->way == SKF_LOSSY_REGRID)
        return skf_regrid_row(t, old, row, x, n, at, &how->regrid);
    if (how->way == SKF_LOSSY_ALONE) {
        memcpy(row, old, n / info->block * info->block_bytes);
        return SKF_OK;
    }
    SKF_TRY(skf_dequantize(t, old, scratch, n));
    if (how->way == SKF_LOSSY_SIGN) {
        by_sign(x, scratch, n, how->size);
    } else if (how->way == SKF_LOSSY_LARGE) {
        by_size(x, scratch, n, how->size);
    } else {
        for (unsigned k = 0; k < how->rank; k++) {
            const float *v = how->factors + k * n;
            float u = 0; /* of the change: rows of v are orthonormal, so what was added of others does not matter but for rounding */
            for (uint64_t i = 0; i < n; i++)
                u += (x[i] - scratch[i]) * v[i];
            add_scaled(scratch, v, u, n);
        }
    }
    return skf_quantize(t, scratch, row, n);
}

/* ---- statistics ---------------------------------------------------------------------------------------------------------------- */
static unsigned bin_of(float size)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = size};
    return v.u >> 20 & (SKF_LOSSY_BINS - 1);
}

void skf_lossy_add(struct skf_lossy_stats *s, const float *old, const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        float change = size_of(x[i] - old[i]);
        if (!(change <= FLT_MAX))
            continue;
        s->square_old += (double)old[i] * old[i];
        s->square += (double)change * change;
        s->size += change;
        s->bins[bin_of(change)]++;
        s->n++;
    }
}

float skf_lossy_reached(const struct skf_lossy_stats *s, double share)
{
    uint64_t most = (uint64_t)(share * (double)s->n), have = 0;
    unsigned bin = SKF_LOSSY_BINS - 1;
    while (bin > 1 && have + s->bins[bin] <= most)
        have += s->bins[bin--];
    union {
        uint32_t u;
        float f;
    } v = {.u = (bin + 1) << 20};
    return v.f;
}

/* ---- factors ------------------------------------------------------------------------------------------------------------------- */
static void straighten(float *v, uint64_t columns, unsigned rank)
{
    for (unsigned k = 0; k < rank; k++) {
        float *a = v + k * columns;
        for (unsigned twice = 0; twice < 2; twice++)
            for (unsigned j = 0; j < k; j++)
                add_scaled(a, v + j * columns, -dot(a, v + j * columns, columns), columns);
        float length = sqrtf(dot(a, a, columns));
        for (uint64_t i = 0; i < columns; i++)
            a[i] = length > 0.0f ? a[i] / length : 0.0f;
    }
}

enum skf_err skf_lossy_factors(uint64_t rows, uint64_t columns, unsigned rank,
                               enum skf_err (*row)(void *ctx, uint64_t i, float *change), void *ctx, float *factors,
                               float *next, float *change)
{
    for (uint64_t i = 0; i < rank * columns; i++)
        factors[i] = skf_regrid_draw(1, i) - 0.5f;
    straighten(factors, columns, rank);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        memset(next, 0, rank * columns * sizeof *next);
        for (uint64_t i = 0; i < rows; i++) {
            SKF_TRY(row(ctx, i, change));
            for (unsigned k = 0; k < rank; k++)
                add_scaled(next + k * columns, change, dot(change, factors + k * columns, columns), columns);
        }
        memcpy(factors, next, rank * columns * sizeof *next);
        straighten(factors, columns, rank);
    }
    return SKF_OK;
}
