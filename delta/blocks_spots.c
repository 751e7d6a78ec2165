/*
 * A chunk of blocks of which few things change, as lists of these (spots_priv.h): halves, then the codes of each field, all against the
 * old ones as they are.  There are no contexts and no tables, so that small changes of small tensors stay small.
 */
#include <string.h>

#include "delta/blocks_priv.h"
#include "delta/spots_priv.h"

/* Places of a chunk as a matrix of its stripes: `each` places in a block. */
struct places {
    uint32_t rows, columns, each, stripe;
};
static struct places places_of(const struct skf_blocks *b, uint32_t each)
{
    return (struct places){b->levels.n, b->levels.stripe * each, each, b->levels.stripe};
}

/* ---- coding ------------------------------------------------------------------------------------------------------------------ */
struct gathering {
    struct places at;
    struct skf_spot *spot;
    uint32_t n, most;
};

static bool add(struct gathering *g, uint32_t block, unsigned e, int d)
{
    if (g->n == g->most)
        return false;
    g->spot[g->n++] = (struct skf_spot){block / g->at.stripe, block % g->at.stripe * g->at.each + e, d};
    return true;
}

/* false: too many for a list. */
static bool gather_half(const struct skf_blocks *b, unsigned k, struct gathering *g)
{
    const unsigned at = b->l->half[k];
    for (uint32_t i = 0; i < b->n; i++) {
        int16_t d = (int16_t)(skf_le16(skf_new_block(b, i) + at) - skf_le16(skf_old_block(b, i) + at));
        if (d && !add(g, i, 0, d))
            return false;
    }
    return true;
}

static bool gather_codes(const struct skf_blocks *b, const struct skf_codes *f, struct gathering *g)
{
    int8_t was[BLOCKS_CODES], is[BLOCKS_CODES];
    for (uint32_t i = 0; i < b->n; i++) {
        if (memcmp(skf_old_block(b, i), skf_new_block(b, i), b->bytes) == 0)
            continue;
        skf_codes_get(f, skf_old_block(b, i), was);
        skf_codes_get(f, skf_new_block(b, i), is);
        for (unsigned e = 0; e < f->n; e++)
            if (was[e] != is[e] && !add(g, i, e, skf_code_wrap(f, is[e] - was[e])))
                return false;
    }
    return true;
}

/* All lists into w->raw; false: not this way. */
static enum skf_err put_lists(struct skf_work *w, const struct skf_blocks *b, struct skf_bits_out *out, bool *is_listed)
{
    const unsigned lists = b->l->n_halves + b->l->n_fields;
    uint64_t room = 0, most = 0;
    *is_listed = false;
    for (unsigned k = 0; k < lists; k++) {
        uint64_t n = k < b->l->n_halves ? b->n : (uint64_t)b->n * b->l->field[k - b->l->n_halves].n;
        room += SPOTS_ROOM(SPOTS_MOST(n));
        most = SKF_MAX(most, SPOTS_MOST(n));
    }
    SKF_TRY(skf_area_need(&w->val, most * sizeof(struct skf_spot) + 1));
    SKF_TRY(skf_area_need(&w->raw, room));
    *out = (struct skf_bits_out){.p = w->raw.p};
    for (unsigned k = 0; k < lists; k++) {
        const struct skf_codes *f = k < b->l->n_halves ? NULL : &b->l->field[k - b->l->n_halves];
        struct gathering g = {.at = places_of(b, f ? f->n : 1), .spot = (struct skf_spot *)(void *)w->val.p};
        g.most = (uint32_t)SPOTS_MOST((uint64_t)b->n * g.at.each);
        if (f ? !gather_codes(b, f, &g) : !gather_half(b, k, &g))
            return SKF_OK;
        SKF_TRY(skf_spots_put(&w->part, out, &(struct skf_spots){g.at.rows, g.at.columns, g.n, g.spot}));
    }
    *is_listed = true;
    return SKF_OK;
}

/* Whether lists are worth a try: a look at some of the blocks. */
static bool is_sparse(const struct skf_blocks *b)
{
    const struct skf_codes *f = &b->l->field[b->l->n_fields - 1];
    int8_t was[BLOCKS_CODES], is[BLOCKS_CODES];
    uint64_t set = 0, n = 0;
    for (uint32_t i = 0; i < b->n; i += 1 + (b->n >> 10), n += f->n) {
        if (memcmp(skf_old_block(b, i), skf_new_block(b, i), b->bytes) == 0)
            continue;
        skf_codes_get(f, skf_old_block(b, i), was);
        skf_codes_get(f, skf_new_block(b, i), is);
        for (unsigned e = 0; e < f->n; e++)
            set += was[e] != is[e];
    }
    return set <= n / 32;
}

enum skf_err skf_blocks_spots_put(struct skf_work *w, const struct skf_blocks *b, size_t most, const uint8_t **p, size_t *n)
{
    struct skf_bits_out out;
    bool is_listed;
    *n = 0;
    if (!is_sparse(b))
        return SKF_OK;
    SKF_TRY(put_lists(w, b, &out, &is_listed));
    size_t bytes = (size_t)(skf_bits_end(&out) - w->raw.p);
    *p = w->raw.p;
    *n = is_listed && bytes < most ? bytes : 0;
    return SKF_OK;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------------- */
struct changing {
    const struct skf_blocks *b;
    struct places at;
    const struct skf_codes *f; /* NULL: a half, */
    unsigned half;             /* which stands there */
};

static bool change(void *ctx, uint32_t row, uint32_t column, int32_t d)
{
    const struct changing *c = ctx;
    uint32_t i = row * c->at.stripe + column / c->at.each;
    if (i >= c->b->n) /* the last row may be short */
        return false;
    uint8_t *block = skf_new_block(c->b, i);
    if (c->f)
        skf_code_add(c->f, block, column % c->at.each, d);
    else
        skf_put_le16(block + c->half, (uint16_t)(skf_le16(block + c->half) + (uint32_t)d));
    return true;
}

enum skf_err skf_blocks_spots_get(struct skf_work *w, struct skf_reader *r, const struct skf_blocks *b)
{
    const size_t n = skf_reader_left(r);
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, n, &p));
    struct word_bits bits = {p, 0, 8 * (uint64_t)n};
    for (unsigned k = 0; k < b->l->n_halves; k++) {
        struct changing c = {.b = b, .at = places_of(b, 1), .half = b->l->half[k]};
        SKF_TRY(skf_spots_get(&w->part, &bits, c.at.rows, c.at.columns, change, &c));
    }
    for (unsigned k = 0; k < b->l->n_fields; k++) {
        const struct skf_codes *f = &b->l->field[k];
        struct changing c = {.b = b, .at = places_of(b, f->n), .f = f};
        SKF_TRY(skf_spots_get(&w->part, &bits, c.at.rows, c.at.columns, change, &c));
    }
    return word_is_done(&bits) ? SKF_OK : SKF_ERR_FORMAT;
}
