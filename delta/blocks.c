/*
 * Chunks of quantized tensors (blocks_priv.h has what their blocks hold): guesses at their values' change, levels of rows, halves,
 * and then field by field their codes.
 */
#include <math.h>
#include <string.h>

#include "delta/blocks_priv.h"
#include "delta/zeros_priv.h"

/* Rows of fewer elements are no stripes. */
#define STRIPE_MIN 128
#define LISTED 2 /* in place of levels' first byte */

static bool open_blocks(enum skf_type t, uint64_t row_bytes, const uint8_t *old, uint8_t *neu, size_t n, struct skf_blocks *b)
{
    uint32_t grain = skf_blocks_grain(t);
    *b = (struct skf_blocks){.l = skf_layout_of(t), .bytes = grain, .row_bytes = row_bytes, .old = old, .neu = neu};
    if (!b->l || n % grain || n == 0)
        return false;
    b->n = (uint32_t)(n / grain);
    uint64_t row = row_bytes % grain == 0 ? row_bytes / grain : 0;
    uint32_t each = b->l->field[b->l->n_fields - 1].n, stripe = row * each >= STRIPE_MIN && row < b->n ? (uint32_t)row : b->n;
    b->levels = (struct skf_levels){.stripe = stripe, .n = (b->n + stripe - 1) / stripe, .step = 2};
    b->factors = (struct skf_factors){.rows = b->levels.n, .columns = each * stripe};
    return true;
}

/* ---- guesses and levels ------------------------------------------------------------------------------------------------------ */
/* The numbers that a block stands for. */
static SKF_LOOPS void values_of(const struct skf_blocks *b, const uint8_t *block, float *out)
{
    const unsigned k = b->l->n_fields - 1u, unit = b->l->field[k].unit;
    struct skf_step s[BLOCKS_UNITS];
    int8_t code[BLOCKS_CODES];
    skf_codes_get(&b->l->field[k], block, code);
    skf_steps_get(b->l, k, block, s);
    for (unsigned u = 0; u < b->l->field[k].n / unit; u++)
        for (unsigned e = u * unit; e < (u + 1) * unit; e++)
            out[e] = s[u].step * (float)code[e] + s[u].offset;
}

static SKF_LOOPS enum skf_err row_change(void *ctx, uint64_t row, float *out)
{
    const struct skf_blocks *b = ctx;
    const unsigned n = b->l->field[b->l->n_fields - 1].n;
    memset(out, 0, b->factors.columns * sizeof *out);
    for (uint32_t i = (uint32_t)row * b->levels.stripe, end = SKF_MIN(b->n, i + b->levels.stripe); i < end; i++, out += n) {
        float was[BLOCKS_CODES], is[BLOCKS_CODES];
        if (memcmp(skf_old_block(b, i), skf_new_block(b, i), b->bytes) == 0)
            continue;
        values_of(b, skf_old_block(b, i), was);
        values_of(b, skf_new_block(b, i), is);
        for (unsigned e = 0; e < n; e++) {
            float d = is[e] - was[e];
            out[e] = d > -1e15f && d < 1e15f ? d : 0;
        }
    }
    return SKF_OK;
}

static bool is_guessable(const struct skf_blocks *b)
{
    return b->l->field[b->l->n_fields - 1].grid != GRID_NONE && skf_factors_fit(b->factors.rows, b->factors.columns);
}

/* Bits that a code takes without a guess, about: halving what is left of the change saves half of them. */
static double code_bits(const struct skf_blocks *b)
{
    const struct skf_codes *f = &b->l->field[b->l->n_fields - 1];
    int8_t was[BLOCKS_CODES], is[BLOCKS_CODES];
    double n = 0, set = 1;
    for (uint32_t i = 0; i < b->n; i += 7, n += f->n) {
        if (memcmp(skf_old_block(b, i), skf_new_block(b, i), b->bytes) == 0)
            continue;
        skf_codes_get(f, skf_old_block(b, i), was);
        skf_codes_get(f, skf_new_block(b, i), is);
        for (unsigned e = 0; e < f->n; e++)
            set += was[e] != is[e];
    }
    double p = set / (n + 2);
    return p * log2(2 / p) + (1 - p) * log2(1 / (1 - p));
}

/* How much of each row's change is left without its guess. */
static enum skf_err measure_rest(struct skf_work *w, struct skf_blocks *b, double *move)
{
    SKF_TRY(skf_area_need(&w->part, b->factors.columns * sizeof(float)));
    float *d = (float *)(void *)w->part.p;
    for (uint32_t k = 0; k < b->levels.n; k++) {
        double sum = 0;
        SKF_TRY(row_change(b, k, d));
        skf_factors_row(&b->factors, k);
        for (uint32_t e = 0; e < b->factors.columns; e++) {
            double x = d[e] - b->factors.guess[e];
            sum += x * x;
        }
        move[k] = sqrt(sum);
    }
    return SKF_OK;
}

/* Units of the last field: the scale of each, and how many of its codes changed, UINT8_MAX where its step did. */
struct units {
    unsigned k, each, of_block; /* the field, codes of a unit, units of a block */
    int16_t *scale;
    uint8_t *set;
};

/* How much each row moved, by the codes that changed. */
static void measure_codes(const struct skf_blocks *b, const struct units *t, double *move)
{
    const struct skf_codes *f = &b->l->field[t->k];
    size_t at = 0;
    memset(move, 0, b->levels.n * sizeof *move);
    for (uint32_t i = 0; i < b->n; i++) {
        struct skf_step s[2][BLOCKS_UNITS];
        int8_t code[2][BLOCKS_CODES];
        bool is_equal = memcmp(skf_old_block(b, i), skf_new_block(b, i), b->bytes) == 0;
        skf_steps_get(b->l, t->k, skf_old_block(b, i), s[0]);
        if (!is_equal) {
            skf_steps_get(b->l, t->k, skf_new_block(b, i), s[1]);
            skf_codes_get(f, skf_old_block(b, i), code[0]);
            skf_codes_get(f, skf_new_block(b, i), code[1]);
        }
        for (unsigned u = 0; u < t->of_block; u++, at++) {
            unsigned set = 0;
            for (unsigned e = u * t->each; !is_equal && e < (u + 1) * t->each; e++)
                set += code[0][e] != code[1][e];
            t->scale[at] = (int16_t)skf_step_scale(s[0][u].step);
            t->set[at] = (uint8_t)(is_equal || memcmp(&s[0][u], &s[1][u], sizeof s[0][u]) == 0 ? set : UINT8_MAX);
            move[i / b->levels.stripe] += set * (double)s[0][u].step * (double)s[0][u].step;
        }
    }
    for (uint32_t k = 0; k < b->levels.n; k++)
        move[k] = sqrt(move[k]);
}

/* Bits to say which codes of units whose steps stay change, in the contexts that the levels make. */
static double mask_cost(const struct skf_blocks *b, const struct units *t)
{
    double all[256] = {0}, some[256] = {0}, bits = 0;
    size_t u = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        int at = skf_row_at(b, i, 0);
        for (size_t end = u + t->of_block; u < end; u++) {
            if (t->set[u] == UINT8_MAX)
                continue;
            all[(unsigned)(t->scale[u] + at) & 255] += t->each;
            some[(unsigned)(t->scale[u] + at) & 255] += t->set[u];
        }
    }
    for (unsigned c = 0; c < 256; c++)
        if (some[c] > 0 && some[c] < all[c])
            bits += some[c] * log2(all[c] / some[c]) + (all[c] - some[c]) * log2(all[c] / (all[c] - some[c]));
    return bits;
}

static enum skf_err choose_levels(struct skf_work *w, struct skf_blocks *b)
{
    struct skf_levels *l = &b->levels, plain = *l;
    struct units t = {.k = b->l->n_fields - 1u};
    double side;
    if (l->n == 1)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->val, l->n * sizeof(double)));
    double *move = (double *)(void *)w->val.p;
    if (b->factors.rank) {
        SKF_TRY(measure_rest(w, b, move));
        return skf_levels_make(w, move, l);
    }
    t.each = b->l->field[t.k].unit;
    t.of_block = b->l->field[t.k].n / t.each;
    SKF_TRY(skf_area_need(&w->ref, (size_t)b->n * t.of_block));
    SKF_TRY(skf_area_need(&w->part, sizeof(int16_t) * (size_t)b->n * t.of_block));
    t.set = w->ref.p;
    t.scale = (int16_t *)(void *)w->part.p;
    measure_codes(b, &t, move);
    double without = mask_cost(b, &t);
    SKF_TRY(skf_levels_make(w, move, l));
    SKF_TRY(skf_levels_cost(w, l, &side));
    /* Twice: what levels tell, masks of neighbours tell in part by themselves. */
    if (mask_cost(b, &t) + 2 * side >= without)
        *l = plain;
    return SKF_OK;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------------ */
static enum skf_err put_coded(struct skf_work *w, struct skf_blocks *b, struct skf_buf *out)
{
    SKF_TRY(choose_levels(w, b));
    SKF_TRY(skf_levels_put(w, &b->levels, out));
    SKF_TRY(skf_area_need(&w->flag, b->n));
    b->moved = w->flag.p;
    memset(b->moved, 0, b->n);
    SKF_TRY(skf_halves_put(w, b, out));
    for (unsigned k = 0; k < b->l->n_fields; k++)
        SKF_TRY(skf_field_put(w, b, k, out));
    return SKF_OK;
}

/* Lists of what changes in place of what stands in `out` from `begin` on, where they are shorter; a guess that stood there is left out. */
static enum skf_err put_listed(struct skf_work *w, const struct skf_blocks *b, bool has_guess, size_t begin, struct skf_buf *out)
{
    const uint8_t *p;
    size_t n;
    SKF_TRY(skf_blocks_spots_put(w, b, out->len - begin - 1 - has_guess, &p, &n));
    if (!n)
        return SKF_OK;
    out->len = begin;
    if (has_guess)
        SKF_TRY(skf_buf_u8(out, 0));
    SKF_TRY(skf_buf_u8(out, LISTED));
    return skf_buf_put(out, p, n);
}

enum skf_err skf_blocks_put(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side, size_t side_n,
                            const uint8_t *old, const uint8_t *neu, size_t n, struct skf_buf *out)
{
    struct skf_blocks b;
    struct skf_zeros z;
    if (!open_blocks(t, row_bytes, old, (uint8_t *)(uintptr_t)neu, n, &b))
        return SKF_ERR_ARG;
    b.factors.side = side;
    b.factors.side_n = side_n;
    SKF_TRY(skf_blocks_zeros_put(w, &b, &z));
    size_t begin = out->len;
    if (side_n && is_guessable(&b)) {
        const struct skf_choice c = {.gain = code_bits(&b) / 2, .row = row_change, .ctx = &b};
        if (!z.kind)
            SKF_TRY(skf_factors_choose(w, &b.factors, &c));
        SKF_TRY(skf_factors_put(w, &b.factors, out));
    }
    const bool has_guess = b.factors.rank != 0;
    if (z.kind)
        SKF_TRY(skf_zeros_put(&z, b.levels.n, out));
    if (!has_guess)
        begin = out->len;
    SKF_TRY(put_coded(w, &b, out));
    return put_listed(w, &b, has_guess, begin, out);
}

enum skf_err skf_blocks_get(struct skf_work *w, struct skf_reader *r, enum skf_type t, uint64_t row_bytes,
                            const uint8_t *side, size_t side_n, const uint8_t *old, uint8_t *neu, size_t n)
{
    struct skf_blocks b;
    if (!open_blocks(t, row_bytes, old, neu, n, &b))
        return SKF_ERR_FORMAT;
    b.factors.side = side;
    b.factors.side_n = side_n;
    if (side_n && is_guessable(&b))
        SKF_TRY(skf_factors_get(w, r, &b.factors));
    if (b.factors.rank == 0)
        SKF_TRY(skf_blocks_zeros_get(w, r, &b));
    if (!skf_is_bytes(&b)) /* every byte of these is written */
        memcpy(b.neu, b.old, n); /* what does not change is right already */
    if (b.factors.rank == 0 && skf_reader_left(r) && *r->p == LISTED) {
        r->p++;
        return skf_blocks_spots_get(w, r, &b);
    }
    SKF_TRY(skf_levels_get(w, r, &b.levels));
    SKF_TRY(skf_area_need(&w->flag, b.n));
    b.moved = w->flag.p;
    memset(b.moved, 0, b.n);
    SKF_TRY(skf_halves_get(w, r, &b));
    for (unsigned k = 0; k < b.l->n_fields; k++)
        SKF_TRY(skf_field_get(w, r, &b, k));
    return SKF_OK;
}
