/*
 * Scales of small groups of values by least squares: some scales around the obvious one are tried, codes are rounded on each, the
 * best scale for these codes is solved for, and the pair of least weighted error stays.  The tries, their order and the order of
 * every sum are those of ggml's searches (ggml-quants.c: make_qx_quants, make_q3_quants, make_qkx2_quants and make_qkx3_quants,
 * make_qp_quants), so that the bits are the same; the way it is put is ours.
 *
 * Sums go over the values of a group one after the other; four groups go side by side, one in each lane of a vector, so that
 * nothing is summed in another order.
 */
#include <math.h>
#include <string.h>

#include "model/quant_lanes_priv.h"
#include "model/quant_priv.h"

enum { MOST = 32 }; /* values of a group */

static const float nothing = 1e-15f; /* groups whose largest value is under this are zero */

const struct skf_fit_tries skf_fit_fine = {-0.9f, 0.05f, 36, false};

/* ---- lanes --------------------------------------------------------------------------------------------------------------- */
/* skf_clamp(skf_nearest(v), least, most) */
static inline ints code_of(lanes v, int least, int most)
{
    ints q = ((ints)(v + all_of(12582912.0f)) & all_int(0x007FFFFF)) - all_int(0x00400000);
    q = pick_int(q < all_int(least), all_int(least), q);
    return pick_int(q > all_int(most), all_int(most), q);
}

/* Value i of each of so many groups of n; lanes without a group repeat the first. */
static void gather(int groups, int n, const float *v, lanes *to)
{
    for (int i = 0; i < n; i++)
        for (int g = 0; g < LANES; g++)
            to[i][g] = v[(g < groups ? g : 0) * n + i];
}

static void scatter(int groups, int n, const ints *from, uint8_t *to)
{
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < n; i++)
            to[g * n + i] = (uint8_t)from[i][g];
}

/* ---- x = scale (code - half) ------------------------------------------------------------------------------------------------ */
/* Sums of w x l and w l l over the codes l that the inverse scale gives. */
struct sums {
    lanes xl, ll;
};

static struct sums even_sums(int n, int half, const lanes *x, const lanes *w, lanes inverse)
{
    struct sums p = {all_of(0), all_of(0)};
    for (int i = 0; i < n; i++) {
        lanes l = floats_of(code_of(inverse * x[i], -half, half - 1));
        p.xl += w[i] * x[i] * l;
        p.ll += w[i] * l * l;
    }
    return p;
}

/* The value of the largest size, the first of equals. */
static lanes extreme_lanes(int n, const lanes *x)
{
    lanes most = all_of(0), extreme = all_of(0);
    for (int i = 0; i < n; i++) {
        ints is_larger = size_of(x[i]) > most;
        most = pick(is_larger, size_of(x[i]), most);
        extreme = pick(is_larger, x[i], extreme);
    }
    return extreme;
}

static void fit_even(int groups, int n, int half, const float *values, const float *weights, uint8_t *code, float *scales)
{
    lanes x[MOST] = {{0}}, w[MOST] = {{0}};
    ints codes[MOST];
    gather(groups, n, values, x);
    if (weights)
        gather(groups, n, weights, w);
    for (int i = 0; !weights && i < n; i++)
        w[i] = x[i] * x[i];
    lanes extreme = extreme_lanes(n, x), inverse = all_of((float)-half) / extreme, chosen = inverse;
    ints is_nothing = size_of(extreme) < all_of(nothing);
    struct sums p = even_sums(n, half, x, w, inverse);
    lanes scale = pick(p.ll != all_of(0), p.xl / p.ll, all_of(0)), best = scale * p.xl;
    for (int k = -9; k <= 9; k++) {
        if (k == 0)
            continue;
        inverse = all_of(-((float)half + 0.1f * (float)k)) / extreme;
        p = even_sums(n, half, x, w, inverse);
        ints is_better = (p.ll > all_of(0)) & (p.xl * p.xl > best * p.ll);
        chosen = pick(is_better, inverse, chosen);
        scale = pick(is_better, p.xl / p.ll, scale);
        best = pick(is_better, scale * p.xl, best);
    }
    for (int i = 0; i < n; i++)
        codes[i] = ~is_nothing & (code_of(chosen * x[i], -half, half - 1) + all_int(half));
    scatter(groups, n, codes, code);
    scale = pick(is_nothing, all_of(0), scale);
    for (int g = 0; g < groups; g++)
        scales[g] = scale[g];
}

void skf_fit_even(int groups, int n, int half, const float *x, const float *w, uint8_t *code, float *scales)
{
    for (int g = 0; g < groups; g += LANES)
        fit_even(groups - g < LANES ? groups - g : LANES, n, half, x + g * n, w ? w + g * n : NULL, code + g * n, scales + g);
}

/* ---- x = scale code + low ---------------------------------------------------------------------------------------------------- */
struct line {
    lanes scale, low;
};

static lanes error_of(int n, const lanes *x, const lanes *w, const ints *code, struct line l, bool is_absolute)
{
    lanes sum = all_of(0);
    for (int i = 0; i < n; i++) {
        lanes off = l.scale * floats_of(code[i]) + l.low - x[i];
        off = is_absolute ? size_of(off) : off * off;
        sum += w[i] * off;
    }
    return sum;
}

/* Codes on a grid, and the best line through (code, x), with low <= 0; lanes whose codes are all the same have none. */
static ints try_grid(int n, int most, const lanes *x, const lanes *w, lanes sum_w, lanes sum_x, lanes inverse, lanes from,
                     ints *code, struct line *best)
{
    lanes sum_l = all_of(0), sum_ll = all_of(0), sum_xl = all_of(0);
    for (int i = 0; i < n; i++) {
        code[i] = code_of(inverse * (x[i] - from), 0, most);
        lanes l = floats_of(code[i]);
        sum_l += w[i] * l;
        sum_ll += w[i] * l * l;
        sum_xl += w[i] * l * x[i];
    }
    lanes det = sum_w * sum_ll - sum_l * sum_l;
    best->scale = (sum_w * sum_xl - sum_x * sum_l) / det;
    best->low = (sum_ll * sum_x - sum_l * sum_xl) / det;
    ints is_above = best->low > all_of(0);
    best->scale = pick(is_above, sum_xl / sum_ll, best->scale);
    best->low = pick(is_above, all_of(0), best->low);
    return det > all_of(0);
}

static void fit_uneven(int groups, int n, int most, const float *values, const float *weights, const struct skf_fit_tries *tries,
                       uint8_t *code, float *scales, float *mins)
{
    lanes x[MOST] = {{0}}, w[MOST] = {{0}};
    ints codes[MOST], other[MOST];
    gather(groups, n, values, x);
    gather(groups, n, weights, w);
    lanes lo = x[0], hi = x[0], sum_w = w[0], sum_x = w[0] * x[0];
    for (int i = 1; i < n; i++) {
        lo = pick(x[i] < lo, x[i], lo);
        hi = pick(x[i] > hi, x[i], hi);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    lo = pick(lo > all_of(0), all_of(0), lo);
    ints is_flat = ~(hi > lo);
    lanes inverse = all_of((float)most) / (hi - lo);
    struct line best = {all_of(1) / inverse, lo}, try;
    for (int i = 0; i < n; i++)
        codes[i] = code_of(inverse * (x[i] - lo), 0, most);
    lanes least = error_of(n, x, w, codes, best, tries->is_absolute);
    for (int k = 0; k <= tries->count; k++) { /* codes are rounded from the lowest value of the best line so far */
        inverse = all_of(tries->from + tries->step * (float)k + (float)most) / (hi - best.low);
        ints is_line = try_grid(n, most, x, w, sum_w, sum_x, inverse, best.low, other, &try);
        lanes error = error_of(n, x, w, other, try, tries->is_absolute);
        ints is_better = is_line & (error < least);
        if (!is_any(is_better))
            continue;
        least = pick(is_better, error, least);
        best.scale = pick(is_better, try.scale, best.scale);
        best.low = pick(is_better, try.low, best.low);
        for (int i = 0; i < n; i++)
            codes[i] = pick_int(is_better, other[i], codes[i]);
    }
    best.scale = pick(is_flat, all_of(0), best.scale);
    best.low = pick(is_flat, lo, best.low);
    for (int i = 0; i < n; i++)
        codes[i] &= ~is_flat;
    scatter(groups, n, codes, code);
    for (int g = 0; g < groups; g++) {
        scales[g] = best.scale[g];
        mins[g] = -best.low[g];
    }
}

void skf_fit_uneven(int groups, int n, int most, const float *x, const float *w, const struct skf_fit_tries *tries, uint8_t *code,
                    float *scales, float *mins)
{
    for (int g = 0; g < groups; g += LANES)
        fit_uneven(groups - g < LANES ? groups - g : LANES, n, most, x + g * n, w + g * n, tries, code + g * n, scales + g, mins + g);
}

/* ---- one group by itself --------------------------------------------------------------------------------------------------------- */
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

static inline int even_code(float v, int half) { return skf_clamp(skf_nearest(v), -half, half - 1); }

/* Sums of w x l and w l l over the codes l that the inverse scale gives. */
struct products {
    float xl, ll;
};

static struct products even_products(int n, int half, const float *x, float inverse)
{
    struct products p = {0, 0};
    for (int i = 0; i < n; i++) {
        float l = (float)even_code(inverse * x[i], half), v = x[i] * x[i];
        p.xl += v * x[i] * l;
        p.ll += v * l * l;
    }
    return p;
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
            code[i] = (uint8_t)to;
            *p = rest;
            is_moved = true;
        }
    }
    return is_moved;
}

float skf_fit_even_moving(int n, int half, const float *x, uint8_t *code)
{
    float extreme = extreme_of(n, x);
    int8_t l[MOST];
    clear(n, code);
    if (fabsf(extreme) < nothing)
        return 0.0f;
    float inverse = (float)-half / extreme;
    for (int i = 0; i < n; i++)
        l[i] = (int8_t)even_code(inverse * x[i], half);
    struct products p = even_products(n, half, x, inverse);
    for (int k = 0; k < 5 && is_even_moved(n, half, x, l, &p); k++)
        continue;
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)(l[i] + half);
    return p.ll > 0 ? p.xl / p.ll : 0.0f;
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
