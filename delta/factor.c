/* Low-rank guesses (factor_priv.h): found by orthogonal iteration on a sample of rows. */
#include "delta/factor_priv.h"

#include <math.h>
#include <string.h>

/* Numbers of a sample; rounds of iteration on a quarter of it, then on all; and what the best direction must hold of the change to be worth looking closer. */
#define SAMPLE (1u << 18)
#define ROUNDS 4
#define LAST_ROUNDS 2
#define WORTH 0.06
/* Bits that one number of v and u takes, about; and the step of u against the mean change of a row's element. */
#define V_BITS 6.5
#define U_BITS 4.5
#define U_STEP 0.7

bool skf_factors_fit(uint64_t rows, uint64_t columns)
{
    return rows >= SKF_FACTOR_ROWS && columns >= SKF_FACTOR_ROWS && columns <= SKF_FACTOR_COLUMNS;
}

/* Areas: u, v and the sum of a row; twice the keys that the longer of u and v needs stand behind. */
static enum skf_err room(struct skf_work *w, struct skf_factors *f)
{
    size_t nu = (size_t)f->rows * SKF_RANK_MAX, nv = (size_t)f->columns * SKF_RANK_MAX;
    SKF_TRY(skf_area_need(&w->factor, 4 * (size_t)f->columns + nu + nv));
    SKF_TRY(skf_area_need(&w->symkey, SKF_MAX(nu, nv)));
    f->sum = (int32_t *)(void *)w->factor.p;
    f->u = (int8_t *)(w->factor.p + 4 * (size_t)f->columns);
    f->v = f->u + nu;
    return SKF_OK;
}

/* ---- finding ----------------------------------------------------------------------------------------------------------------- */
static inline __attribute__((always_inline)) float dot(const float *a, const float *b, uint32_t n)
{
    float s[16] = {0}; /* a fixed order of additions that vectors can follow */
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (unsigned k = 0; k < 16; k++)
            s[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    for (unsigned k = 8; k; k /= 2)
        for (unsigned j = 0; j < k; j++)
            s[j] += s[j + k];
    return s[0];
}

static inline __attribute__((always_inline)) void add_scaled(float *a, const float *b, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        a[i] += by * b[i];
}

/* v := the directions that `rank` rows of `v` turn to under one multiplication with the sample's square, orthonormal. Returns what
 * the first holds. */
static SKF_LOOPS void turn(const float *sample, uint32_t rows, uint32_t columns, unsigned rank, float *v, float *next)
{
    memset(next, 0, (size_t)rank * columns * sizeof *next);
    for (uint32_t i = 0; i < rows; i++) {
        const float *d = sample + (size_t)i * columns;
        for (unsigned k = 0; k < rank; k++)
            add_scaled(next + (size_t)k * columns, d, dot(d, v + (size_t)k * columns, columns), columns);
    }
    for (unsigned k = 0; k < rank; k++) {
        float *a = next + (size_t)k * columns;
        for (unsigned j = 0; j < k; j++)
            add_scaled(a, v + (size_t)j * columns, -dot(a, v + (size_t)j * columns, columns), columns);
        float len = sqrtf(dot(a, a, columns));
        for (uint32_t i = 0; i < columns; i++)
            v[(size_t)k * columns + i] = len > 0 ? a[i] / len : 0;
    }
}

/* What each direction holds of the sample's energy. */
static SKF_LOOPS double held(const float *sample, uint32_t rows, uint32_t columns, unsigned rank, const float *v, double *each)
{
    double all = 0;
    memset(each, 0, rank * sizeof *each);
    for (uint32_t i = 0; i < rows; i++) {
        const float *d = sample + (size_t)i * columns;
        all += dot(d, d, columns);
        for (unsigned k = 0; k < rank; k++) {
            double x = dot(d, v + (size_t)k * columns, columns);
            each[k] += x * x;
        }
    }
    return all;
}

/* The first directions of v that earn what they cost; how far the elements moved on average in *move. */
static unsigned earning(const struct skf_factors *f, const double *each, double all, unsigned most, double gain)
{
    double left = all, n = (double)f->rows * f->columns, cost = V_BITS * f->columns + U_BITS * f->rows;
    unsigned rank = 0;
    while (rank < most) {
        double rest = left - each[rank];
        if (!(rest > left * 1e-6) || n * gain * log2(left / rest) < cost)
            break;
        left = rest;
        rank++;
    }
    return rank;
}

static int8_t small(float x) { return (int8_t)(x > 127 ? 127 : x < -127 ? -127 : lrintf(x)); }

/* v as integers of a common scale, then u of every row by projection. */
static SKF_LOOPS void quantize(struct skf_factors *f, const float *v, float move, skf_row_fn *row, const void *ctx, float *d)
{
    uint32_t columns = f->columns;
    float most = 0, step = U_STEP * move * sqrtf((float)columns) / sqrtf((float)columns / 64);
    for (size_t i = 0; i < (size_t)f->rank * columns; i++)
        most = fmaxf(most, fabsf(v[i]));
    f->shift = (int)ceilf(log2f(step * most / 127));
    if (!(f->shift >= -SKF_SHIFT_MAX && f->shift <= SKF_SHIFT_MAX)) {
        f->rank = 0;
        return;
    }
    float unit = ldexpf(1, f->shift);
    for (size_t i = 0; i < (size_t)f->rank * columns; i++)
        f->v[i] = small(v[i] * step / unit);
    for (uint32_t i = 0; i < f->rows; i++) {
        row(ctx, i, d);
        for (unsigned k = 0; k < f->rank; k++)
            f->u[(size_t)i * f->rank + k] = small(dot(d, v + (size_t)k * columns, columns) / step);
    }
}

enum skf_err skf_factors_find(struct skf_work *w, struct skf_factors *f, skf_row_fn *row, const void *ctx,
                              unsigned most, double gain)
{
    uint32_t columns = f->columns, rows = SKF_MIN(f->rows, SAMPLE / columns);
    size_t each = (size_t)columns * SKF_RANK_MAX;
    double energy[SKF_RANK_MAX], all;
    f->rank = 0;
    SKF_TRY(room(w, f));
    SKF_TRY(skf_area_need(&w->sample, ((size_t)rows * columns + 2 * each + columns) * sizeof(float)));
    float *sample = (float *)(void *)w->sample.p, *v = sample + (size_t)rows * columns, *next = v + each, *d = next + each;
    for (uint32_t i = 0; i < rows; i++)
        row(ctx, (uint32_t)((uint64_t)i * f->rows / rows), sample + (size_t)i * columns);
    uint32_t noise = 12345;
    for (size_t i = 0; i < each; i++) {
        noise = noise * 1664525 + 1013904223;
        v[i] = (float)(int32_t)noise;
    }
    uint32_t few = SKF_MIN(rows, 64); /* of which noise would show a share of about 1 / 64 to 1 / 16 */
    for (unsigned k = 0; k < 3; k++)
        turn(sample, few, columns, 1, v, next);
    all = held(sample, few, columns, 1, v, energy);
    if (!(all > 0 && all < 1e30) || energy[0] < all * WORTH)
        return SKF_OK;
    for (unsigned k = 0; k < ROUNDS; k++)
        turn(sample, SKF_MAX(rows / 4, few), columns, most, v, next);
    for (unsigned k = 0; k < LAST_ROUNDS; k++)
        turn(sample, rows, columns, most, v, next);
    all = held(sample, rows, columns, most, v, energy);
    f->rank = earning(f, energy, all, most, gain);
    if (f->rank)
        quantize(f, v, (float)sqrt(all / ((double)rows * columns)), row, ctx, d);
    return SKF_OK;
}

/* ---- sending ----------------------------------------------------------------------------------------------------------------- */
/* u and v are symbols in the context of the factor they belong to; signs are folded in, in place. */
static void fold(int8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (int8_t)((uint8_t)p[i] << 1 ^ p[i] >> 7);
}
static void unfold(int8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (int8_t)((uint8_t)p[i] >> 1 ^ -(p[i] & 1));
}

static struct skf_syms syms_u(const struct skf_work *w, const struct skf_factors *f)
{
    for (size_t i = 0, n = (size_t)f->rows * f->rank; i < n; i++)
        w->symkey.p[i] = (uint8_t)(i % f->rank);
    return (struct skf_syms){(uint8_t *)f->u, w->symkey.p, f->rows * f->rank};
}
static struct skf_syms syms_v(const struct skf_work *w, const struct skf_factors *f)
{
    for (unsigned k = 0; k < f->rank; k++)
        memset(w->symkey.p + (size_t)k * f->columns, (int)k, f->columns);
    return (struct skf_syms){(uint8_t *)f->v, w->symkey.p, f->columns * f->rank};
}

enum skf_err skf_factors_put(struct skf_work *w, const struct skf_factors *f, struct skf_buf *out)
{
    SKF_TRY(skf_buf_u8(out, (uint8_t)f->rank));
    if (!f->rank)
        return SKF_OK;
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)f->shift));
    fold(f->u, (size_t)f->rows * f->rank);
    fold(f->v, (size_t)f->columns * f->rank);
    struct skf_syms s = syms_u(w, f);
    enum skf_err e = skf_syms_put(w, &s, out);
    s = syms_v(w, f);
    if (e == SKF_OK)
        e = skf_syms_put(w, &s, out);
    unfold(f->u, (size_t)f->rows * f->rank);
    unfold(f->v, (size_t)f->columns * f->rank);
    return e;
}

enum skf_err skf_factors_get(struct skf_work *w, struct skf_reader *r, struct skf_factors *f, unsigned most)
{
    uint8_t rank;
    uint64_t shift;
    f->rank = 0;
    SKF_TRY(skf_get_u8(r, &rank));
    if (rank == 0)
        return SKF_OK;
    if (rank > most || !skf_factors_fit(f->rows, f->columns))
        return SKF_ERR_FORMAT;
    SKF_TRY(room(w, f));
    SKF_TRY(skf_get_svarint(r, &shift));
    if ((int64_t)shift > SKF_SHIFT_MAX || (int64_t)shift < -SKF_SHIFT_MAX)
        return SKF_ERR_FORMAT;
    f->shift = (int)(int64_t)shift;
    f->rank = rank;
    struct skf_syms s = syms_u(w, f);
    SKF_TRY(skf_syms_get(w, r, &s));
    s = syms_v(w, f);
    SKF_TRY(skf_syms_get(w, r, &s));
    unfold(f->u, (size_t)f->rows * f->rank);
    unfold(f->v, (size_t)f->columns * f->rank);
    return SKF_OK;
}

SKF_LOOPS void skf_factors_row(const struct skf_factors *f, uint32_t i)
{
    int32_t *sum = f->sum;
    memset(sum, 0, f->columns * sizeof *sum);
    for (unsigned k = 0; k < f->rank; k++) {
        int u = f->u[(size_t)i * f->rank + k];
        const int8_t *v = f->v + (size_t)k * f->columns;
        for (uint32_t j = 0, n = f->columns; u && j < n; j++)
            sum[j] += u * v[j];
    }
}

float skf_factors_unit(const struct skf_factors *f) { return ldexpf(1, f->shift); }
