/*
 * Blocks of which many codes become zero (zeros_priv.h): the old ones pruned alike, each to the code next to zero on its own grid.
 */
#include <string.h>

#include "delta/blocks_priv.h"
#include "delta/zeros_priv.h"

/* A block of the last field, code by code. */
struct opened {
    int8_t code[BLOCKS_CODES];
    uint32_t size[BLOCKS_CODES]; /* bits of what the code stands for, without the sign */
    int16_t zero[BLOCKS_UNITS];  /* the code next to zero, of each unit; NO_ZERO: there is none */
};
#define NO_ZERO INT16_MAX

/* The code whose value is next to zero, of those that there are. */
static int16_t zero_of(const struct skf_codes *f, struct skf_step s)
{
    const int low = f->bits == 8 ? -128 : 0, high = f->bits == 8 ? 127 : (1 << f->bits) - 1;
    const float x = -s.offset / s.step;
    if (!(x > -1000.0f && x < 1000.0f))
        return NO_ZERO;
    int at = (int)(x + 12582912.0f - 12582912.0f); /* to nearest, ties to even */
    return (int16_t)(at < low ? low : at > high ? high : at);
}

static SKF_LOOPS void open_block(const struct skf_layout *l, const uint8_t *block, struct opened *o)
{
    const unsigned k = l->n_fields - 1u, unit = l->field[k].unit;
    const struct skf_codes *f = &l->field[k];
    struct skf_step s[BLOCKS_UNITS];
    skf_codes_get(f, block, o->code);
    skf_steps_get(l, k, block, s);
    for (unsigned u = 0; u < f->n / unit; u++) {
        const float step = s[u].step, offset = s[u].offset;
        o->zero[u] = zero_of(f, s[u]);
        for (unsigned e = u * unit; e < (u + 1) * unit; e++)
            o->size[e] = skf_float_bits(step * (float)o->code[e] + offset) & INT32_MAX;
        for (unsigned e = u * unit; e < (u + 1) * unit; e++)
            o->size[e] = o->code[e] == o->zero[u] ? 0 : o->size[e];
    }
}

/* ---- Q8_0, where zero is code 0 ---------------------------------------------------------------------------------------------- */
static bool is_simple(const struct skf_layout *l)
{
    const struct skf_codes *f = &l->field[0];
    return l->n_fields == 1 && l->n_halves == 1 && f->bits == 8 && f->grid == GRID_HALF;
}

/* Sizes of 32 codes, as above. */
static SKF_LOOPS void simple_sizes(const struct skf_layout *l, const uint8_t *block, uint32_t *size)
{
    const float d = skf_half_at(block + l->half[0]);
    const int8_t *code = (const int8_t *)block + l->field[0].low.at;
    for (unsigned e = 0; e < 32; e++)
        size[e] = skf_float_bits(d * (float)code[e]) & INT32_MAX;
}

/* The largest code that a bound makes zero; 0 for none. */
static int simple_bound(float d, uint32_t least)
{
    d = d < 0 ? -d : d;
    if (d == 0)
        return 0;
    float q = skf_bits_float(least) / d;
    int c = q < 128 ? (int)q : 128; /* near; exactly: */
    while (c < 128 && skf_float_bits(d * (float)(c + 1)) <= least)
        c++;
    while (c > 0 && skf_float_bits(d * (float)c) > least)
        c--;
    return c;
}

static SKF_LOOPS void simple_prune(const struct skf_layout *l, uint32_t least, uint8_t *block)
{
    uint8_t *code = block + l->field[0].low.at;
    const uint8_t c = (uint8_t)simple_bound(skf_half_at(block + l->half[0]), least);
    for (unsigned e = 0; e < 32; e++) {
        uint8_t minus = (uint8_t)-(code[e] >> 7), size = (uint8_t)((code[e] ^ minus) - minus);
        code[e] &= (uint8_t)-(size > c);
    }
}

/* ---- Q4_0 and Q4_1: what becomes of each of 16 codes ------------------------------------------------------------------------- */
static bool is_nibbles(const struct skf_layout *l)
{
    const struct skf_codes *f = &l->field[0];
    return l->n_fields == 1 && f->n == 32 && f->unit == 32 && f->bits == 4 && f->grid == GRID_HALF;
}

/* Sizes of what the codes stand for, 0 of the one next to zero; that one. */
static SKF_LOOPS int16_t nibble_sizes(const struct skf_layout *l, const uint8_t *block, uint32_t of[16])
{
    struct skf_step s;
    skf_steps_get(l, 0, block, &s);
    const int16_t zero = zero_of(&l->field[0], s);
    for (unsigned c = 0; c < 16; c++)
        of[c] = skf_float_bits(s.step * (float)c + s.offset) & INT32_MAX;
    if (zero != NO_ZERO)
        of[zero] = 0;
    return zero;
}

static void nibble_prune(const struct skf_layout *l, uint32_t least, uint8_t *block)
{
    uint8_t to[16], *code = block + l->field[0].low.at;
    uint32_t of[16];
    const int16_t zero = nibble_sizes(l, block, of);
    if (zero == NO_ZERO)
        return;
    for (unsigned c = 0; c < 16; c++)
        to[c] = (uint8_t)(of[c] - 1 < least ? (unsigned)zero : c);
    for (unsigned e = 0; e < 16; e++)
        code[e] = (uint8_t)(to[code[e] & 15] | to[code[e] >> 4] << 4);
}

static void nibble_become(const struct skf_layout *l, const uint8_t *was, const uint8_t *is, uint32_t *size)
{
    uint32_t of[2][16];
    const int16_t zero = nibble_sizes(l, was, of[0]), at = l->field[0].low.at;
    (void)nibble_sizes(l, is, of[1]);
    for (unsigned c = 0; c < 16; c++) {
        of[0][c] = of[0][c] == 0 || zero == NO_ZERO ? SKF_ZEROS_WAS : of[0][c];
        of[1][c] = of[1][c] ? 0 : SKF_ZEROS_BECOMES;
    }
    for (unsigned e = 0; e < 32; e++) {
        const unsigned shift = e / 16 * 4;
        size[e] = of[0][was[at + e % 16] >> shift & 15] | of[1][is[at + e % 16] >> shift & 15];
    }
}

/* ---- grids with zero on them ------------------------------------------------------------------------------------------------- */
static bool has_minimum(const struct skf_layout *l) { return l->n_halves == 2 && l->n_fields == 1 && l->field[0].grid == GRID_HALF; }

/* A scale of which all multiples that codes can be are halves has its lowest bits 0, and is no less than the old one; the minimum is as
 * many of it as the old one is next to. */
uint16_t skf_zero_base(const struct skf_blocks *b, uint32_t i, unsigned k)
{
    const uint16_t was = skf_le16(skf_old_block(b, i) + b->l->half[k]);
    if (k == 0)
        return (uint16_t)((was + 15u) & ~15u);
    const float d = skf_half_at(skf_new_block(b, i) + b->l->half[0]), m = skf_half_at(skf_old_block(b, i) + b->l->half[1]);
    const int16_t zero = zero_of(&b->l->field[0], (struct skf_step){d, m});
    return zero == NO_ZERO ? was : skf_f32_to_f16(-(d * (float)zero));
}

/* Whether most minima are what that says, or nearly none. */
static bool is_on_grid(const struct skf_blocks *b)
{
    uint32_t right = 0, n = 0;
    if (!has_minimum(b->l))
        return false;
    for (uint32_t i = 0; i < b->n; i += 1 + (b->n >> 9)) {
        const uint8_t *now = skf_new_block(b, i), at = b->l->half[1];
        n += memcmp(skf_old_block(b, i) + at, now + at, 2) != 0;
        right += memcmp(skf_old_block(b, i) + at, now + at, 2) != 0 && skf_zero_base(b, i, 1) == skf_le16(now + at);
    }
    return right > n / 2;
}

/* ---- pruning ----------------------------------------------------------------------------------------------------------------- */
static void prune(const struct skf_layout *l, const struct skf_zeros *z, uint32_t stripe, uint8_t *block)
{
    const struct skf_codes *f = &l->field[l->n_fields - 1];
    struct opened o;
    uint8_t mark[BLOCKS_CODES];
    open_block(l, block, &o);
    skf_zeros_mark(z, stripe, o.size, f->n, mark);
    for (unsigned u = 0, unit = f->unit; u < f->n / unit; u++)
        for (unsigned e = u * unit; e < (u + 1) * unit && o.zero[u] != NO_ZERO; e++)
            o.code[e] = (int8_t)(mark[e] ? o.zero[u] : o.code[e]);
    skf_codes_set(f, block, o.code);
}

static enum skf_err begin_from_pruned(struct skf_work *w, struct skf_blocks *b, const struct skf_zeros *z)
{
    const size_t n = (size_t)b->n * b->bytes;
    SKF_TRY(skf_area_need(&w->narrow, n));
    memcpy(w->narrow.p, b->old, n);
    const bool is_bound = z->kind != SKF_ZEROS_GROUPS, simple = is_bound && is_simple(b->l), nibbles = is_bound && is_nibbles(b->l);
    for (uint32_t i = 0; i < b->n; i++) {
        uint8_t *block = w->narrow.p + (size_t)i * b->bytes;
        const uint32_t k = i / b->levels.stripe;
        if (simple)
            simple_prune(b->l, skf_zeros_least(z, k), block);
        else if (nibbles)
            nibble_prune(b->l, skf_zeros_least(z, k), block);
        else
            prune(b->l, z, k, block);
    }
    b->old = w->narrow.p;
    b->has_zero = z->is_on_grid;
    return SKF_OK;
}

/* ---- coding ------------------------------------------------------------------------------------------------------------------ */
/* Whether enough of some blocks' codes become zero. */
static bool is_pruned(const struct skf_blocks *b)
{
    const struct skf_codes *f = &b->l->field[b->l->n_fields - 1];
    struct opened was, is;
    int64_t become = 0, n = 0;
    for (uint32_t i = 0; i < b->n; i += 1 + (b->n >> 8), n += f->n) {
        open_block(b->l, skf_old_block(b, i), &was);
        open_block(b->l, skf_new_block(b, i), &is);
        for (unsigned e = 0; e < f->n; e++)
            become += (is.size[e] == 0) - (was.size[e] == 0);
    }
    return become > n / SKF_ZEROS_SHARE;
}

static SKF_LOOPS void become(const uint32_t *is, uint32_t *size)
{
    for (unsigned e = 0; e < 32; e++)
        size[e] = size[e] == 0 ? SKF_ZEROS_WAS : size[e] | (is[e] ? 0 : SKF_ZEROS_BECOMES);
}

static void sizes_of(const struct skf_blocks *b, uint32_t *size)
{
    const struct skf_codes *f = &b->l->field[b->l->n_fields - 1];
    struct opened was, is;
    for (uint32_t i = 0; i < b->n; i++) {
        if (is_simple(b->l)) {
            uint32_t now[32];
            simple_sizes(b->l, skf_old_block(b, i), size);
            simple_sizes(b->l, skf_new_block(b, i), now);
            become(now, size);
            size += 32;
            continue;
        }
        if (is_nibbles(b->l)) {
            nibble_become(b->l, skf_old_block(b, i), skf_new_block(b, i), size);
            size += 32;
            continue;
        }
        open_block(b->l, skf_old_block(b, i), &was);
        open_block(b->l, skf_new_block(b, i), &is);
        for (unsigned e = 0; e < f->n; e++)
            *size++ = was.size[e] == 0 || was.zero[e / f->unit] == NO_ZERO ? SKF_ZEROS_WAS
                                                                           : was.size[e] | (is.size[e] ? 0 : SKF_ZEROS_BECOMES);
    }
}

enum skf_err skf_blocks_zeros_put(struct skf_work *w, struct skf_blocks *b, struct skf_zeros *z)
{
    const struct skf_codes *f = &b->l->field[b->l->n_fields - 1];
    *z = (struct skf_zeros){.kind = SKF_ZEROS_NONE};
    if (f->grid == GRID_NONE || !is_pruned(b))
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->val, (size_t)b->n * f->n * sizeof(uint32_t)));
    sizes_of(b, (uint32_t *)(void *)w->val.p);
    SKF_TRY(skf_zeros_find(w, (const uint32_t *)(const void *)w->val.p, b->n * f->n, b->levels.stripe * f->n, z));
    z->is_on_grid = z->kind && is_on_grid(b);
    return z->kind ? begin_from_pruned(w, b, z) : SKF_OK;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------------- */
enum skf_err skf_blocks_zeros_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b)
{
    struct skf_zeros z;
    if (b->l->field[b->l->n_fields - 1].grid == GRID_NONE)
        return SKF_OK;
    SKF_TRY(skf_zeros_get(w, r, b->levels.n, &z));
    if (z.keeps_sign || (z.is_on_grid && !has_minimum(b->l)))
        return SKF_ERR_FORMAT;
    return z.kind ? begin_from_pruned(w, b, &z) : SKF_OK;
}
