/* Schemas: numbers within bounds, digit by digit (schema_priv.h). */
#include "runtime/schema_priv.h"

#include <inttypes.h>
#include <math.h>

#include "base/util.h"

#define WHOLE_MAX 999999999999999ll /* 15 digits: exact as a double */

static uint32_t digit(struct skf_gb *b, char lo, char hi) { return skf_gb_bytes(b, (uint8_t)lo, (uint8_t)hi); }

/* The numbers from lo to hi, of n digits each; is_low and is_high: the digits so far are those of that bound. */
static uint32_t same_length(struct skf_gb *b, const char *lo, const char *hi, size_t n, bool is_low, bool is_high)
{
    if (n == 0)
        return skf_gb_seq(b);
    if (!is_low && !is_high)
        return skf_gb_rep(b, digit(b, '0', '9'), (uint32_t)n, (uint32_t)n);
    uint32_t alt = skf_gb_alt(b);
    char from = is_low ? *lo : '0', to = is_high ? *hi : '9';
    if (from == to) {
        uint32_t seq = skf_gb_text(b, &from, 1);
        skf_gb_add(b, seq, same_length(b, lo + 1, hi + 1, n - 1, is_low, is_high));
        return seq;
    }
    if (is_low) {
        uint32_t seq = skf_gb_text(b, &from, 1);
        skf_gb_add(b, seq, same_length(b, lo + 1, hi + 1, n - 1, true, false));
        skf_gb_add(b, alt, seq);
        from++;
    }
    if (is_high) {
        uint32_t seq = skf_gb_text(b, &to, 1);
        skf_gb_add(b, seq, same_length(b, lo + 1, hi + 1, n - 1, false, true));
        skf_gb_add(b, alt, seq);
        to--;
    }
    if (from <= to) {
        uint32_t seq = skf_gb_seq(b);
        skf_gb_add(b, seq, digit(b, from, to));
        skf_gb_add(b, seq, same_length(b, lo + 1, hi + 1, n - 1, false, false));
        skf_gb_add(b, alt, seq);
    }
    return alt;
}

/* 0 <= lo <= hi */
static uint32_t positive(struct skf_gb *b, int64_t lo, int64_t hi)
{
    uint32_t alt = skf_gb_alt(b);
    int64_t first = 0, last = 9;
    for (int n = 1; n <= 15; n++, first = last + 1, last = last * 10 + 9) {
        char from[24], to[24];
        if (lo > last || hi < first)
            continue;
        snprintf(from, sizeof from, "%" PRId64, SKF_MAX(lo, first));
        snprintf(to, sizeof to, "%" PRId64, SKF_MIN(hi, last));
        skf_gb_add(b, alt, same_length(b, from, to, (size_t)n, true, true));
    }
    return alt;
}

/* Adds sign, whole part from lo to hi, and what is behind it. */
static void span(struct skf_gb *b, uint32_t alt, const char *sign, int64_t lo, int64_t hi, uint32_t behind)
{
    if (lo > hi)
        return;
    uint32_t seq = skf_gb_text(b, sign, strlen(sign));
    skf_gb_add(b, seq, positive(b, lo, hi));
    skf_gb_add(b, seq, behind);
    skf_gb_add(b, alt, seq);
}

/* A fraction that is not 0; or none, with is_free. */
static uint32_t fraction(struct skf_gb *b, bool is_free)
{
    uint32_t seq = skf_gb_text(b, ".", 1);
    skf_gb_add(b, seq, skf_gb_rep(b, digit(b, '0', '9'), 0, 9));
    skf_gb_add(b, seq, digit(b, is_free ? '0' : '1', '9'));
    return is_free ? skf_gb_rep(b, seq, 0, 1) : seq;
}

struct bounds {
    double lo, hi;
    bool is_lo_out, is_hi_out; /* the bound itself is not in it */
};

static bool is_bound(struct skf_schema *s, const skf_json *j, const char *name, double *v, bool *is_there)
{
    const skf_json *b = skf_json_get(j, name);
    *is_there = b != NULL;
    if (b && !is_json_num(b))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %s must be a number", name);
    *v = skf_json_f64(b, 0);
    return is_kept(s);
}

static bool is_bounds(struct skf_schema *s, const skf_json *j, struct bounds *x)
{
    double v = 0;
    bool is_there = false;
    *x = (struct bounds){-INFINITY, INFINITY, false, false};
    if (!is_bound(s, j, "minimum", &v, &is_there))
        return false;
    if (is_there)
        x->lo = v;
    if (!is_bound(s, j, "exclusiveMinimum", &v, &is_there))
        return false;
    if (is_there && v >= x->lo) {
        x->lo = v;
        x->is_lo_out = true;
    }
    if (!is_bound(s, j, "maximum", &v, &is_there))
        return false;
    if (is_there)
        x->hi = v;
    if (!is_bound(s, j, "exclusiveMaximum", &v, &is_there))
        return false;
    if (is_there && v <= x->hi) {
        x->hi = v;
        x->is_hi_out = true;
    }
    return true;
}

static int64_t clamped(double v) { return v >= (double)WHOLE_MAX ? WHOLE_MAX : v <= -(double)WHOLE_MAX ? -WHOLE_MAX : (int64_t)v; }

uint32_t skf_schema_number(struct skf_schema *s, const skf_json *j, bool is_whole)
{
    struct skf_gb *b = s->b;
    struct bounds x;
    const skf_json *step = skf_json_get(j, "multipleOf");
    if (step && !(is_whole && is_json_num(step) && skf_json_f64(step, 0) == 1))
        skf_gb_fail(b, SKF_ERR_ARG, "the schema: multipleOf is not supported");
    if (!is_bounds(s, j, &x))
        return 0;
    if (isinf(x.lo) && isinf(x.hi))
        return skf_schema_shared(s, is_whole ? SKF_SH_INTEGER : SKF_SH_NUMBER);
    /* Whole numbers, first and last. */
    int64_t lo = clamped(ceil(x.lo)), hi = clamped(floor(x.hi));
    bool is_lo_whole = (double)lo == x.lo, is_hi_whole = (double)hi == x.hi;
    int64_t from = lo + (x.is_lo_out && is_lo_whole), to = hi - (x.is_hi_out && is_hi_whole);
    uint32_t alt = skf_gb_alt(b);
    if (x.lo > (double)WHOLE_MAX || x.hi < -(double)WHOLE_MAX || lo > hi || (is_whole && from > to) || (lo == hi && from > to)) {
        skf_gb_fail(b, SKF_ERR_ARG, "the schema: no whole number of at most 15 digits lies between minimum and maximum");
        return 0;
    }
    span(b, alt, "", SKF_MAX(from, 0), to, skf_gb_seq(b));
    span(b, alt, "-", SKF_MAX(-to, 1), -from, skf_gb_seq(b));
    if (!is_whole) { /* the cells between one whole number and the next that lie within wholly */
        span(b, alt, "", SKF_MAX(lo, 0), hi - 1, fraction(b, false));
        span(b, alt, "-", SKF_MAX(-hi, 0), -lo - 1, fraction(b, false));
    }
    return alt;
}
