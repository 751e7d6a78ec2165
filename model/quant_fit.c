/*
 * Scales of small groups of values by least squares: some scales around the obvious one are tried, codes are rounded on each, the
 * best scale for these codes is solved for, and the pair of least weighted error stays.  The tries, their order and the order of
 * every sum are those of ggml's searches (ggml-quants.c: make_qx_quants, make_q3_quants, make_qkx2_quants and make_qkx3_quants,
 * make_qp_quants), so that the bits are the same; the way it is put is ours.
 */
#include <math.h>
#include <string.h>

#include "model/quant_priv.h"

enum { MOST = 32 }; /* values of a group */

static const float nothing = 1e-15f; /* groups whose largest value is under this are zero */

const struct skf_fit_tries skf_fit_fine = {-0.9f, 0.05f, 36, false};

static void clear(int n, uint8_t *code)
{
    for (int i = 0; i < n; i++)
        code[i] = 0;
}

/* The value of the largest size, the first of equals. */
static float extreme_of(int n, const float *x)
{
    float most = 0, extreme = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            extreme = x[i];
        }
    }
    return extreme;
}

static inline float square_or(const float *w, const float *x, int i) { return w ? w[i] : x[i] * x[i]; }

static inline int even_code(float v, int half) { return skf_clamp(skf_nearest(v), -half, half - 1); }

/* Sums of w x l and w l l over the codes l that the inverse scale gives. */
struct products {
    float xl, ll;
};

static struct products even_products(int n, int half, const float *x, const float *w, float inverse)
{
    struct products p = {0, 0};
    for (int i = 0; i < n; i++) {
        float l = (float)even_code(inverse * x[i], half), v = square_or(w, x, i);
        p.xl += v * x[i] * l;
        p.ll += v * l * l;
    }
    return p;
}

float skf_fit_even(int n, int half, const float *x, const float *w, int8_t *code)
{
    float extreme = extreme_of(n, x), inverse;
    clear(n, (uint8_t *)code);
    if (fabsf(extreme) < nothing)
        return 0.0f;
    float chosen = inverse = (float)-half / extreme;
    struct products p = even_products(n, half, x, w, inverse);
    float scale = p.ll != 0 ? p.xl / p.ll : 0.0f, best = scale * p.xl;
    for (int k = -9; k <= 9; k++) {
        if (k == 0)
            continue;
        inverse = -((float)half + 0.1f * (float)k) / extreme;
        p = even_products(n, half, x, w, inverse);
        if (p.ll > 0 && p.xl * p.xl > best * p.ll) {
            chosen = inverse;
            scale = p.xl / p.ll;
            best = scale * p.xl;
        }
    }
    for (int i = 0; i < n; i++)
        code[i] = (int8_t)(even_code(chosen * x[i], half) + half);
    return scale;
}

/* One pass over the codes; whether any moved. */
static bool is_even_moved(int n, int half, const float *x, int8_t *code, struct products *p)
{
    bool is_moved = false;
    for (int i = 0; i < n; i++) {
        float w = x[i] * x[i], l = (float)code[i];
        struct products rest = {p->xl - w * x[i] * l, 0};
        if (!(rest.xl > 0))
            continue;
        rest.ll = p->ll - w * l * l;
        int to = even_code(x[i] * rest.ll / rest.xl, half);
        if (to == code[i])
            continue;
        rest.xl += w * x[i] * (float)to;
        rest.ll += w * (float)to * (float)to;
        if (rest.ll > 0 && rest.xl * rest.xl * p->ll > p->xl * p->xl * rest.ll) {
            code[i] = (int8_t)to;
            *p = rest;
            is_moved = true;
        }
    }
    return is_moved;
}

float skf_fit_even_moving(int n, int half, const float *x, int8_t *code)
{
    float extreme = extreme_of(n, x);
    clear(n, (uint8_t *)code);
    if (fabsf(extreme) < nothing)
        return 0.0f;
    float inverse = (float)-half / extreme;
    for (int i = 0; i < n; i++)
        code[i] = (int8_t)even_code(inverse * x[i], half);
    struct products p = even_products(n, half, x, NULL, inverse);
    for (int k = 0; k < 5 && is_even_moved(n, half, x, code, &p); k++)
        continue;
    for (int i = 0; i < n; i++)
        code[i] = (int8_t)(code[i] + half);
    return p.ll > 0 ? p.xl / p.ll : 0.0f;
}

/* Weighted error of x = scale * code + low. */
static float uneven_error(int n, const float *x, const float *w, const uint8_t *code, float scale, float low, bool is_absolute)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float off = scale * (float)code[i] + low - x[i];
        off = is_absolute ? fabsf(off) : off * off;
        sum += w[i] * off;
    }
    return sum;
}

struct line { /* x = scale * code + low */
    float scale, low;
};

/* The best line through (code, x), with low <= 0; false when all codes are the same. */
static bool is_line_fit(int n, const float *x, const float *w, const uint8_t *code, float sum_w, float sum_x, struct line *best)
{
    float sum_l = 0, sum_ll = 0, sum_xl = 0;
    for (int i = 0; i < n; i++) {
        float l = (float)code[i];
        sum_l += w[i] * l;
        sum_ll += w[i] * l * l;
        sum_xl += w[i] * l * x[i];
    }
    float det = sum_w * sum_ll - sum_l * sum_l;
    if (!(det > 0))
        return false;
    best->scale = (sum_w * sum_xl - sum_x * sum_l) / det;
    best->low = (sum_ll * sum_x - sum_l * sum_xl) / det;
    if (best->low > 0) {
        best->low = 0;
        best->scale = sum_xl / sum_ll;
    }
    return true;
}

static void uneven_codes(int n, int most, const float *x, float inverse, float low, uint8_t *code)
{
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)skf_clamp(skf_nearest(inverse * (x[i] - low)), 0, most);
}

float skf_fit_uneven(int n, int most, const float *x, const float *w, const struct skf_fit_tries *tries, uint8_t *code,
                     float *min)
{
    float lo = x[0], hi = x[0], sum_w = w[0], sum_x = w[0] * x[0];
    for (int i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    lo = lo > 0 ? 0 : lo;
    if (!(hi > lo)) {
        clear(n, code);
        *min = -lo;
        return 0.0f;
    }
    float inverse = (float)most / (hi - lo);
    struct line best = {1 / inverse, lo}, try;
    uneven_codes(n, most, x, inverse, lo, code);
    float least = uneven_error(n, x, w, code, best.scale, best.low, tries->is_absolute);
    float from = lo; /* codes are rounded from the lowest value of the best line so far */
    for (int k = 0; k <= tries->count; k++) {
        uint8_t other[MOST];
        inverse = (tries->from + tries->step * (float)k + (float)most) / (hi - from);
        uneven_codes(n, most, x, inverse, from, other);
        if (!is_line_fit(n, x, w, other, sum_w, sum_x, &try))
            continue;
        float error = uneven_error(n, x, w, other, try.scale, try.low, tries->is_absolute);
        if (error < least) {
            memcpy(code, other, (size_t)n);
            least = error;
            best = try;
            from = try.low;
        }
    }
    *min = -best.low;
    return best.scale;
}

/* Sum of w (x - scale l)^2. */
static float positive_error(int n, int most, const float *x, const float *w, float inverse)
{
    float sum = 0, scale = 1 / inverse;
    for (int i = 0; i < n; i++) {
        int l = skf_nearest(inverse * x[i]);
        float off = x[i] - scale * (float)(l < most ? l : most);
        sum += w[i] * off * off;
    }
    return sum;
}

static bool is_positive_moved(int n, int most, const float *x, const float *w, uint8_t *code, struct products *p)
{
    bool is_moved = false;
    for (int i = 0; i < n; i++) {
        float l = (float)code[i];
        struct products rest = {p->xl - w[i] * x[i] * l, p->ll - w[i] * l * l};
        if (!(rest.xl > 0 && rest.ll > 0))
            continue;
        int to = skf_nearest(x[i] * rest.ll / rest.xl);
        to = to < most ? to : most;
        if (to == code[i])
            continue;
        rest.xl += w[i] * x[i] * (float)to;
        rest.ll += w[i] * (float)to * (float)to;
        if (rest.xl * rest.xl * p->ll > p->xl * p->xl * rest.ll) {
            code[i] = (uint8_t)to;
            *p = rest;
            is_moved = true;
        }
    }
    return is_moved;
}

float skf_fit_positive(int n, int most, const float *x, const float *w, uint8_t *code)
{
    float largest = 0;
    for (int i = 0; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    clear(n, code);
    if (largest < nothing)
        return 0.0f;
    float inverse = (float)most / largest, least = 0;
    least = positive_error(n, 255, x, w, inverse);
    for (int k = -4; k <= 4; k++) {
        if (k == 0)
            continue;
        float other = (0.1f * (float)k + (float)most) / largest, error = positive_error(n, most, x, w, other);
        if (error < least) {
            least = error;
            inverse = other;
        }
    }
    struct products p = {0, 0};
    for (int i = 0; i < n; i++) {
        int l = skf_nearest(inverse * x[i]);
        code[i] = (uint8_t)(l < most ? l : most);
        p.xl += w[i] * x[i] * (float)code[i];
        p.ll += w[i] * (float)code[i] * (float)code[i];
    }
    for (int k = 0; k < 5 && is_positive_moved(n, most, x, w, code, &p); k++)
        continue;
    return p.ll > 0 ? p.xl / p.ll : 0.0f;
}
