/* Rows made of the source's and a low-rank change: the receiver's side (adapter_priv.h). */
#include "delta/adapter_priv.h"

#include <string.h>

#include "delta/int_priv.h"
#include "model/grid.h"

bool is_adapter_shape(enum skf_type t, uint64_t row_bytes, uint64_t within, uint64_t n)
{
    return is_grid_type(t) && row_bytes && n && within % row_bytes == 0 && n % row_bytes == 0;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------------- */
/* A number of each form: sign, exponent, mantissa. The symbol is the exponent and `top` bits of the mantissa. */
static const struct form {
    unsigned exponent, mantissa, top;
} forms[] = {{8, 23, 0}, {5, 10, 1}, {8, 7, 0}};
enum { FORM_F32, FORM_F16, FORM_BF16, FORMS };
#define KEPT_AT 2 /* bit of the first byte: mantissa bits that follow; the rest of them is 0 */

/* The number in the form's own bits; what the form cannot hold comes back as another. */
static uint32_t to_form(unsigned form, float f)
{
    return form == FORM_F32 ? skf_float_bits(f) : form == FORM_F16 ? skf_f32_to_f16(f) : skf_f32_to_bf16(f);
}
static float of_form(unsigned form, uint32_t u)
{
    return form == FORM_F32    ? skf_bits_float(u)
           : form == FORM_F16 ? skf_f16_to_f32((uint16_t)u)
                              : skf_bf16_to_f32((uint16_t)u);
}

static unsigned choose_form(const float *x, size_t n)
{
    bool fits[FORMS] = {true, true, true};
    for (size_t i = 0; i < n; i++)
        for (unsigned k = FORM_F16; k < FORMS; k++)
            fits[k] = fits[k] && skf_float_bits(of_form(k, to_form(k, x[i]))) == skf_float_bits(x[i]);
    return fits[FORM_F16] ? FORM_F16 : fits[FORM_BF16] ? FORM_BF16 : FORM_F32;
}

enum skf_err adapter_put_numbers(struct skf_work *w, const float *x, size_t n, struct skf_buf *out)
{
    unsigned k = choose_form(x, n), kept = forms[k].top;
    const struct form *f = &forms[k];
    struct skf_bits_out raw;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->key, n));
    SKF_TRY(skf_raw_begin(w, (uint32_t)n, 4, &raw));
    memset(w->key.p, 0, n);
    for (size_t i = 0; i < n; i++) { /* the mantissa bits that any number needs */
        uint32_t m = to_form(k, x[i]) & ((1u << f->mantissa) - 1);
        unsigned needs = m ? f->mantissa - (unsigned)__builtin_ctz(m) : 0;
        kept = SKF_MAX(kept, needs);
    }
    unsigned rest = kept - f->top;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = to_form(k, x[i]);
        w->sym.p[i] = (uint8_t)(u >> (f->mantissa - f->top) & ((1u << (f->exponent + f->top)) - 1));
        skf_bits_put(&raw, u >> (f->exponent + f->mantissa) & 1, 1);
        skf_bits_put(&raw, u >> (f->mantissa - kept) & ((1u << rest) - 1), rest);
    }
    SKF_TRY(skf_buf_u8(out, (uint8_t)(k | kept << KEPT_AT)));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->key.p, (uint32_t)n}, out));
    return skf_raw_put(w, &raw, out);
}

enum skf_err adapter_get_numbers(struct skf_work *w, struct skf_reader *r, float *x, size_t n)
{
    uint8_t head;
    struct skf_bits_in raw;
    SKF_TRY(skf_get_u8(r, &head));
    unsigned k = head & ((1u << KEPT_AT) - 1), kept = head >> KEPT_AT;
    if (k >= FORMS || kept < forms[k].top || kept > forms[k].mantissa)
        return SKF_ERR_FORMAT;
    const struct form *f = &forms[k];
    unsigned rest = kept - f->top, all = (1u << f->exponent) - 1;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->key, n));
    memset(w->key.p, 0, n);
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->key.p, (uint32_t)n}));
    SKF_TRY(skf_raw_get(r, &raw));
    for (size_t i = 0; i < n; i++) {
        uint64_t sign, low;
        if (w->sym.p[i] >> (f->exponent + f->top) || (unsigned)w->sym.p[i] >> f->top == all ||
            !skf_bits_get(&raw, 1, &sign) || !skf_bits_get(&raw, rest, &low))
            return SKF_ERR_FORMAT; /* no such exponent, or no number */
        uint32_t u = (uint32_t)sign << (f->exponent + f->mantissa) | (uint32_t)w->sym.p[i] << (f->mantissa - f->top) |
                     (uint32_t)low << (f->mantissa - kept);
        x[i] = of_form(k, u);
    }
    return is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

/* ---- A ------------------------------------------------------------------------------------------------------------------------- */

/* Into w->low.columns; `inputs` is known. */
static enum skf_err get_a(struct skf_work *w, struct skf_reader *r, uint64_t inputs, struct adapter_a *a)
{
    uint32_t scale;
    w->low.is_kept = false;
    SKF_TRY(skf_get_varint(r, &a->rank));
    SKF_TRY(skf_get_u32(r, &scale));
    a->inputs = inputs;
    a->scale = skf_bits_float(scale);
    if (a->rank == 0 || a->rank > ADAPTER_RANK || inputs == 0 || inputs > ADAPTER_NUMBERS / a->rank ||
        !(a->scale >= -1e30f && a->scale <= 1e30f))
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->low.columns, a->rank * inputs * sizeof(float)));
    a->x = (const float *)(const void *)w->low.columns.p;
    return adapter_get_numbers(w, r, (float *)(void *)w->low.columns.p, a->rank * inputs);
}

enum skf_err adapter_side_a(struct skf_work *w, const struct adapter_chunk *c, uint64_t inputs, struct adapter_a *a)
{
    struct skf_low *low = &w->low;
    struct skf_reader r = skf_reader_of(c->side, c->side_n);
    if (low->is_kept && low->inputs == inputs && memcmp(low->digest, c->side_digest, sizeof low->digest) == 0) {
        *a = (struct adapter_a){low->rank, inputs, low->scale, (const float *)(const void *)low->columns.p};
        return SKF_OK;
    }
    SKF_TRY(get_a(w, &r, inputs, a));
    if (skf_reader_left(&r))
        return SKF_ERR_FORMAT;
    low->rank = a->rank;
    low->inputs = inputs;
    low->scale = a->scale;
    memcpy(low->digest, c->side_digest, sizeof low->digest);
    low->is_kept = true;
    return SKF_OK;
}

/* ---- chunks -------------------------------------------------------------------------------------------------------------------- */

static bool is_finite_row(const float *x, uint64_t n)
{
    bool is = true;
    for (uint64_t i = 0; i < n; i++)
        is = is && x[i] >= -3e38f && x[i] <= 3e38f;
    return is;
}

static bool is_plain(enum skf_type t) { return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16; }

/* `line` has room for three rows of float32; `place` is NULL or that of the row's first element. */
static enum skf_err merge_row(enum adapter_rule rule, enum skf_type t, const struct adapter_a *a, const float *b,
                              uint8_t *row, uint16_t *place, float *line)
{
    float *x = line, *change = x + a->inputs;
    uint8_t *rounded = (uint8_t *)(change + a->inputs);
    if (rule == ADAPTER_CARRIED && !is_plain(t))
        return skf_low_rank_merge(t, row, b, a->x, a->rank, a->inputs, a->scale, line);
    SKF_TRY(skf_dequantize(t, row, x, a->inputs));
    skf_low_rank_row(b, a->x, a->rank, a->inputs, a->scale, change);
    if (rule == ADAPTER_TWICE) {
        if (!is_finite_row(change, a->inputs))
            return SKF_ERR_FORMAT;
        SKF_TRY(skf_quantize(t, change, rounded, a->inputs));
        SKF_TRY(skf_dequantize(t, rounded, change, a->inputs));
    }
    for (uint64_t j = 0; j < a->inputs; j++)
        x[j] += change[j];
    if (!is_finite_row(x, a->inputs))
        return SKF_ERR_FORMAT;
    if (place)
        adapter_places(x, t == SKF_T_F16, place, a->inputs);
    return skf_quantize(t, x, row, a->inputs);
}

enum skf_err adapter_merge(struct skf_work *w, enum adapter_rule rule, const struct adapter_chunk *c, const struct adapter_a *a,
                           const float *b, const uint8_t *old, uint8_t *neu, uint16_t *place, size_t n)
{
    SKF_TRY(skf_area_need(&w->low.line, 3 * a->inputs * sizeof(float)));
    memcpy(neu, old, n);
    for (size_t at = 0, k = 0; at < n; at += c->row_bytes, k++)
        SKF_TRY(merge_row(rule, c->type, a, b + k * a->rank, neu + at, place ? place + k * a->inputs : NULL,
                          (float *)(void *)w->low.line.p));
    return SKF_OK;
}

/* What follows the factors. */
static enum skf_err finish(struct skf_work *w, struct skf_reader *r, unsigned rule, unsigned fix, const struct adapter_chunk *c,
                           const struct adapter_a *a, const float *b, const uint8_t *old, uint8_t *neu, size_t n)
{
    if (fix == FIX_INT) {
        SKF_TRY(skf_area_need(&w->low.merged, n));
        SKF_TRY(adapter_merge(w, (enum adapter_rule)rule, c, a, b, old, w->low.merged.p, NULL, n));
        return skf_int_get(w, c->type, c->row_bytes, NULL, 0, r->p, skf_reader_left(r), w->low.merged.p, neu, n);
    }
    uint16_t *place = NULL;
    if (fix == FIX_NUDGE) {
        if (!is_nudge_type(c->type))
            return SKF_ERR_FORMAT;
        SKF_TRY(skf_area_need(&w->low.merged, n));
        place = (uint16_t *)(void *)w->low.merged.p;
    }
    SKF_TRY(adapter_merge(w, (enum adapter_rule)rule, c, a, b, old, neu, place, n));
    if (place)
        SKF_TRY(adapter_get_nudges(w, r, place, neu, n / 2));
    return skf_reader_left(r) == 0 ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err adapter_get(struct skf_work *w, const struct adapter_chunk *c, const uint8_t *payload, size_t payload_n,
                         const uint8_t *old, uint8_t *neu, size_t n)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)c->type);
    struct skf_reader r = skf_reader_of(payload, payload_n);
    struct adapter_a a;
    uint8_t head;
    if (!is_adapter_shape(c->type, c->row_bytes, 0, n) || c->row_bytes % info->block_bytes)
        return SKF_ERR_FORMAT;
    uint64_t inputs = c->row_bytes / info->block_bytes * info->block, rows = n / c->row_bytes;
    SKF_TRY(skf_get_u8(&r, &head));
    unsigned rule = head & ((1u << ADAPTER_FIX_AT) - 1), fix = head >> ADAPTER_FIX_AT;
    if (rule >= ADAPTER_RULES || fix >= FIX_COUNT)
        return SKF_ERR_FORMAT;
    if (c->side)
        SKF_TRY(adapter_side_a(w, c, inputs, &a));
    else
        SKF_TRY(get_a(w, &r, inputs, &a));
    if (rows > ADAPTER_NUMBERS / a.rank)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->low.rows, rows * a.rank * sizeof(float)));
    float *b = (float *)(void *)w->low.rows.p;
    SKF_TRY(adapter_get_numbers(w, &r, b, rows * a.rank));
    return finish(w, &r, rule, fix, c, &a, b, old, neu, n);
}
