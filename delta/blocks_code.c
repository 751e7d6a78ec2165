/*
 * The codes of a field (blocks_priv.h).  Where a unit's step stays and nothing is guessed, almost all codes stay too: masks say which
 * do not.  Elsewhere each code is coded against its prediction, in the context of how sure that is.
 */
#include <math.h>
#include <string.h>

#include "delta/blocks_priv.h"

/* Where the contexts' middle stands. */
#define MIDDLE 22

/* ---- which units stay -------------------------------------------------------------------------------------------------------- */
uint32_t skf_moved_set(const struct skf_plan *p, bool is_moved, const struct skf_step *was, const struct skf_step *is)
{
    uint32_t set = 0;
    if (p->is_guessed)
        return (uint32_t)((1ull << p->units) - 1);
    if (!is_moved || p->units == 1)
        return is_moved;
    for (unsigned u = 0; u < p->units; u++)
        set |= (uint32_t)(memcmp(&was[u], &is[u], sizeof was[u]) != 0) << u;
    return set;
}

/* The same for blocks that are one unit, whose step is a half. */
static uint32_t plan_simple(const struct skf_blocks *b, const struct skf_plan *p, uint8_t *key, uint32_t *same)
{
    const uint8_t *half = b->old + b->l->half[0], *moved = b->moved;
    const size_t bytes = b->bytes;
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n;) {
        const int at = skf_row_at(b, i, p->base);
        for (uint32_t end = SKF_MIN(b->n, i + b->levels.stripe); i < end; i++, half += bytes) {
            key[n] = skf_context(skf_half_scale(half), at);
            if (same)
                same[n] = i;
            n += !moved[i];
        }
    }
    return n;
}

static uint32_t plan_units(const struct skf_blocks *b, const struct skf_plan *p, uint8_t *key, uint32_t *same)
{
    struct skf_step was[BLOCKS_UNITS], is[BLOCKS_UNITS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n;) {
        int at = skf_row_at(b, i, p->base);
        for (uint32_t end = SKF_MIN(b->n, i + b->levels.stripe); i < end; i++) {
            skf_steps_get(b->l, p->k, skf_old_block(b, i), was);
            if (b->moved[i])
                skf_steps_get(b->l, p->k, skf_new_block(b, i), is);
            uint32_t moved = skf_moved_set(p, b->moved[i], was, is);
            for (unsigned u = 0; u < p->units; u++) {
                if (moved >> u & 1)
                    continue;
                key[n] = skf_context(skf_step_scale(was[u].step), at);
                if (same)
                    same[n] = i * p->units + u;
                n++;
            }
        }
    }
    return n;
}

/* Contexts of the units that stay in w->same, their numbers in w->val when not all do. */
static enum skf_err make_plan(struct skf_work *w, const struct skf_blocks *b, struct skf_plan *p)
{
    uint32_t all = b->n * p->units;
    SKF_TRY(skf_area_need(&w->same, (size_t)all + 1));
    if (b->has_moved)
        SKF_TRY(skf_area_need(&w->val, ((size_t)all + 1) * sizeof(uint32_t)));
    p->key = w->same.p;
    p->same = b->has_moved ? (const uint32_t *)(const void *)w->val.p : NULL;
    uint32_t *same = b->has_moved ? (uint32_t *)(void *)w->val.p : NULL;
    bool is_simple = p->units == 1 && p->f->grid == GRID_HALF;
    p->n_same = is_simple ? plan_simple(b, p, w->same.p, same) : plan_units(b, p, w->same.p, same);
    p->n_moved = all - p->n_same;
    return SKF_OK;
}

static enum skf_err open_plan(struct skf_work *w, const struct skf_blocks *b, unsigned k, int base, struct skf_plan *p)
{
    const struct skf_codes *f = &b->l->field[k];
    *p = (struct skf_plan){.f = f, .k = k, .units = f->n / f->unit, .base = base};
    p->is_guessed = b->factors.rank && k + 1u == b->l->n_fields;
    if (!p->is_guessed)
        return make_plan(w, b, p);
    p->n_moved = b->n * p->units;
    return SKF_OK;
}

/* The mean context of all units comes to the middle. */
static int choose_base(const struct skf_blocks *b, unsigned k)
{
    const struct skf_codes *f = &b->l->field[k];
    struct skf_step s[BLOCKS_UNITS];
    unsigned units = f->n / f->unit;
    double sum = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        skf_steps_get(b->l, k, skf_old_block(b, i), s);
        int at = skf_row_at(b, i, 0);
        for (unsigned u = 0; u < units; u++)
            sum += skf_step_scale(s[u].step) + at;
    }
    return MIDDLE - (int)floor(sum / ((double)b->n * units) + 0.5);
}

/* ---- units that stay --------------------------------------------------------------------------------------------------------- */
static bool is_ordered(const struct skf_codes *f) { return f->bits == 8 && f->unit == BLOCKS_ORDERED; }

/* Differences of all their codes, in w->ref. */
static enum skf_err same_diffs(struct skf_work *w, const struct skf_blocks *b, const struct skf_plan *p)
{
    const struct skf_codes *f = p->f;
    int8_t was[BLOCKS_CODES], is[BLOCKS_CODES];
    SKF_TRY(skf_area_need(&w->ref, (size_t)p->n_same * f->unit + BLOCKS_ORDERED));
    int8_t *d = (int8_t *)w->ref.p;
    uint32_t have = UINT32_MAX;
    bool is_equal = false;
    if (p->units == 1 && is_ordered(f)) {
        const struct skf_ordered o = {b->old + f->low.at, b->neu + f->low.at, b->bytes, p->same};
        skf_order_diffs(w->isa, &o, p->n_same, d);
        return SKF_OK;
    }
    for (uint32_t k = 0; k < p->n_same; k++, d += f->unit) {
        uint32_t u = p->same ? p->same[k] : k, i = u / p->units, at = u % p->units * f->unit;
        if (i != have) {
            const uint8_t *o = skf_old_block(b, i), *n = skf_new_block(b, i);
            have = i;
            is_equal = memcmp(o, n, b->bytes) == 0;
            if (!is_equal) {
                skf_codes_get(f, o, was);
                skf_codes_get(f, n, is);
            }
        }
        memset(d, 0, f->unit);
        for (unsigned e = 0; !is_equal && e < f->unit; e++)
            d[e] = skf_code_wrap(f, is[at + e] - was[at + e]);
    }
    return SKF_OK;
}

static struct skf_few few_of(const struct skf_blocks *b, const struct skf_plan *p)
{
    return (struct skf_few){.n = p->n_same, .unit = p->f->unit, .key = p->key, .same = p->same,
                               .row = b->levels.stripe * p->units};
}

static enum skf_err same_put(struct skf_work *w, const struct skf_blocks *b, const struct skf_plan *p, struct skf_buf *out)
{
    if (!p->n_same)
        return SKF_OK;
    SKF_TRY(same_diffs(w, b, p));
    struct skf_few s = few_of(b, p);
    return skf_few_put(w, &s, (const int8_t *)w->ref.p, out);
}

/* The types whose codes stay by the million are blocks of one unit: Q8_0 (blocks_order.c), Q4_0 and Q4_1, */
static void change_nibbles(const struct skf_blocks *b, const struct skf_plan *p, const struct skf_changes *c)
{
    const int8_t *d = c->d;
    for (uint32_t i = 0; i < c->n; i++) {
        uint8_t *q = skf_new_block(b, p->same ? p->same[c->unit[i]] : c->unit[i]) + p->f->low.at;
        for (uint32_t m = c->mask[i] & 0xffff; m; m &= m - 1, d++) {
            uint8_t *x = q + __builtin_ctz(m);
            *x = (uint8_t)((*x & 0xf0) | ((*x + *d) & 15));
        }
        for (uint32_t m = c->mask[i] >> 16; m; m &= m - 1, d++)
            q[__builtin_ctz(m)] = (uint8_t)(q[__builtin_ctz(m)] + *d * 16);
    }
}

/* and the others. */
static void change(const struct skf_work *w, const struct skf_blocks *b, const struct skf_plan *p, const struct skf_changes *c)
{
    const struct skf_codes *f = p->f;
    const int8_t *d = c->d;
    if (p->units == 1 && is_ordered(f)) {
        const struct skf_ordered o = {b->old + f->low.at, b->neu + f->low.at, b->bytes, p->same};
        skf_ordered_pick(w->isa)(&o, c);
        return;
    }
    if (p->units == 1 && f->bits == 4 && f->n == 32) {
        change_nibbles(b, p, c);
        return;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        const uint32_t u = p->same ? p->same[c->unit[i]] : c->unit[i];
        uint8_t *block = skf_new_block(b, u / p->units);
        for (uint32_t m = c->mask[i]; m; m &= m - 1, d++)
            skf_code_add(f, block, u % p->units * f->unit + (unsigned)__builtin_ctz(m), *d);
    }
}

static enum skf_err same_get(struct skf_work *w, struct skf_reader *r, const struct skf_blocks *b, const struct skf_plan *p)
{
    struct skf_changes c;
    if (!p->n_same)
        return SKF_OK;
    struct skf_few s = few_of(b, p);
    SKF_TRY(skf_few_get(w, r, &s, &c));
    change(w, b, p, &c);
    return SKF_OK;
}

/* ---- fields ------------------------------------------------------------------------------------------------------------------ */
/* Codes of a field are what the next one's steps depend on. */
static void mark(struct skf_blocks *b, const struct skf_codes *f)
{
    int8_t was[BLOCKS_CODES], is[BLOCKS_CODES];
    for (uint32_t i = 0; i < b->n; i++) {
        skf_codes_get(f, skf_old_block(b, i), was);
        skf_codes_get(f, skf_new_block(b, i), is);
        bool differs = memcmp(was, is, f->n) != 0;
        b->moved[i] |= differs;
        b->has_moved |= differs;
    }
}

enum skf_err skf_field_put(struct skf_work *w, struct skf_blocks *b, unsigned k, struct skf_buf *out)
{
    struct skf_plan p;
    int base = choose_base(b, k);
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)base));
    SKF_TRY(open_plan(w, b, k, base, &p));
    SKF_TRY(same_put(w, b, &p, out));
    SKF_TRY(skf_moved_put(w, b, &p, out));
    if (k + 1u < b->l->n_fields)
        mark(b, &b->l->field[k]);
    return SKF_OK;
}

enum skf_err skf_field_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b, unsigned k)
{
    struct skf_plan p;
    uint64_t base;
    SKF_TRY(skf_get_svarint(r, &base));
    if ((int64_t)base > BLOCKS_BASE_MAX || (int64_t)base < -BLOCKS_BASE_MAX)
        return SKF_ERR_FORMAT;
    SKF_TRY(open_plan(w, b, k, (int)(int64_t)base, &p));
    SKF_TRY(same_get(w, r, b, &p));
    SKF_TRY(skf_moved_get(w, r, b, &p));
    if (k + 1u < b->l->n_fields)
        mark(b, &b->l->field[k]);
    return SKF_OK;
}
