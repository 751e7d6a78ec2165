/* Few changes of many units, decoded (stream_priv.h): masks first, in vectors of whole units, then the differences that they say. */
#include <string.h>

#include "delta/stream_priv.h"

#if defined __x86_64__
#include <immintrin.h>
#endif

#define SLACK 32 /* what is written or read behind the end of a list at once */

void skf_masks_of(unsigned group, uint8_t mask[256])
{
    uint8_t next[] = {0, 1, 9, 37, 93, 163, 219, 247, 255}; /* masks of fewer bits */
    for (unsigned m = 0; m < 256; m++)
        mask[group == 8 ? next[__builtin_popcount(m)]++ : m] = (uint8_t)m;
}

static const uint8_t ones4[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
static inline unsigned ones32(uint32_t m)
{
    m -= m >> 1 & 0x55555555;
    m = (m & 0x33333333) + (m >> 2 & 0x33333333);
    return ((m + (m >> 4)) & 0x0f0f0f0f) * 0x01010101u >> 24;
}

/* The bits that are set in n bytes, none of which is above 15; and what any has. */
static uint32_t count_ones(const uint8_t *p, uint32_t n, unsigned *any)
{
    uint32_t sum = 0, i = 0;
    uint64_t all = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x = skf_le64(p + i);
        all |= x;
        x -= x >> 1 & 0x0505050505050505u;
        x = (x & 0x0303030303030303u) + (x >> 2 & 0x0303030303030303u);
        sum += (uint32_t)(x * 0x0101010101010101u >> 56);
    }
    all |= all >> 32;
    all |= all >> 16;
    *any = (unsigned)(all | all >> 8) & 255;
    for (; i < n; i++) {
        sum += ones4[p[i] & 15];
        *any |= p[i];
    }
    return sum;
}

/* The lists of changes: units in w->part, masks in w->ref. */
static enum skf_err lists(struct skf_work *w, size_t n, uint32_t **unit, uint32_t **mask)
{
    SKF_TRY(skf_area_need(&w->part, (n + 1) * sizeof(uint32_t)));
    SKF_TRY(skf_area_need(&w->ref, (n + 1) * sizeof(uint32_t)));
    *unit = (uint32_t *)(void *)w->part.p;
    *mask = (uint32_t *)(void *)w->ref.p;
    return SKF_OK;
}

/* ---- eights ------------------------------------------------------------------------------------------------------------------ */
/* The context of each eight that is not 0: four are written for each unit, those of them that are meant stay. */
static void spread_keys(const struct skf_few *s, const uint8_t *top, uint8_t *key)
{
    const uint32_t n = s->n;
    for (uint32_t i = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(top + i)) {
            i += 7;
            continue;
        }
        skf_put_le32(key, s->key[i] * 0x01010101u);
        key += ones4[top[i] & 15];
    }
}

/* Symbols to masks, in place; false where one is 0. */
static bool to_masks(uint8_t *sym, uint32_t n)
{
    uint8_t mask[256];
    skf_masks_of(8, mask);
    const bool is_whole = !memchr(sym, 0, n);
    for (uint32_t i = 0; i < n; i++)
        sym[i] = mask[sym[i]];
    return is_whole;
}

/* The next mask where bit g of the unit's `top` is set, in its place. */
static inline uint32_t next_mask(uint32_t *from, uint32_t top, unsigned g)
{
    const uint32_t has = top >> g & 1, m = *from & 255 & (0 - has);
    *from >>= 8 * has;
    return m << 8 * g;
}

/* Masks of eights, one behind the other, to those of units. Returns how many. */
static uint32_t gather(const uint8_t *top, uint32_t n, const uint8_t *eights, uint32_t *unit, uint32_t *mask)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(top + i)) {
            i += 7;
            continue;
        }
        const uint32_t t = top[i];
        uint32_t from = skf_le32(eights), m = next_mask(&from, t, 0);
        m |= next_mask(&from, t, 1);
        m |= next_mask(&from, t, 2);
        m |= next_mask(&from, t, 3);
        eights += ones4[t & 15];
        unit[k] = i;
        mask[k] = m;
        k += t != 0;
    }
    return k;
}

#if defined __x86_64__
/* The same where one instruction puts bytes in their places. */
__attribute__((target("bmi2"))) static uint32_t gather_bmi2(const uint8_t *top, uint32_t n, const uint8_t *eights, uint32_t *unit,
                                                            uint32_t *mask)
{
    static const uint32_t place[16] = {0,          0xff,       0xff00,     0xffff,     0xff0000,   0xff00ff,   0xffff00,   0xffffff,
                                       0xff000000, 0xff0000ff, 0xff00ff00, 0xff00ffff, 0xffff0000, 0xffff00ff, 0xffffff00, 0xffffffff};
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(top + i)) {
            i += 7;
            continue;
        }
        const uint32_t t = top[i] & 15;
        unit[k] = i;
        mask[k] = _pdep_u32(skf_le32(eights), place[t]);
        eights += ones4[t];
        k += t != 0;
    }
    return k;
}
#endif

static uint32_t gather_by(enum skf_isa isa, const uint8_t *top, uint32_t n, const uint8_t *eights, uint32_t *unit, uint32_t *mask)
{
#if defined __x86_64__
    if (isa != SKF_ISA_REF && __builtin_cpu_supports("bmi2"))
        return gather_bmi2(top, n, eights, unit, mask);
#endif
    return gather(top, n, eights, unit, mask);
}

static enum skf_err get_eights(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    uint32_t *unit, *mask;
    unsigned seen;
    SKF_TRY(skf_area_need(&w->mask, s->n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->mask.p, s->key, s->n}));
    const uint32_t many = count_ones(w->mask.p, s->n, &seen);
    if (seen >> s->unit / 8)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->sym, (size_t)many + SLACK));
    SKF_TRY(skf_area_need(&w->maskkey, (size_t)many + SLACK));
    SKF_TRY(lists(w, SKF_MIN(many, s->n), &unit, &mask));
    spread_keys(s, w->mask.p, w->maskkey.p);
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->maskkey.p, many}));
    if (!to_masks(w->sym.p, many))
        return SKF_ERR_FORMAT;
    memset(w->sym.p + many, 0, SLACK);
    c->n = gather_by(w->isa, w->mask.p, s->n, w->sym.p, unit, mask);
    return SKF_OK;
}

/* ---- fours and all ----------------------------------------------------------------------------------------------------------- */
/* Contexts of `each` symbols for every unit, in w->maskkey. */
static enum skf_err spread(struct skf_work *w, const struct skf_few *s, unsigned each)
{
    SKF_TRY(skf_area_need(&w->maskkey, (size_t)s->n * each));
    for (uint32_t i = 0; i < s->n; i++)
        memset(w->maskkey.p + (size_t)i * each, s->key[i], each);
    return SKF_OK;
}

static enum skf_err get_fours(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    const uint32_t each = s->unit / 4, all = s->n * each;
    uint32_t *unit, *mask;
    uint8_t seen = 0;
    SKF_TRY(spread(w, s, each));
    SKF_TRY(skf_area_need(&w->sym, all));
    SKF_TRY(lists(w, s->n, &unit, &mask));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->maskkey.p, all}));
    const uint8_t *sym = w->sym.p;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t m = 0;
        for (unsigned g = 0; g < each; g++, sym++) {
            m |= (uint32_t)(*sym & 15) << 4 * g;
            seen |= *sym;
        }
        unit[c->n] = i;
        mask[c->n] = m;
        c->n += m != 0;
    }
    return seen > 15 ? SKF_ERR_FORMAT : SKF_OK;
}

static enum skf_err get_dense(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    const uint32_t all = s->n * s->unit;
    uint32_t *unit, *mask, k = 0;
    SKF_TRY(spread(w, s, s->unit));
    SKF_TRY(skf_area_need(&w->sym, (size_t)all + SLACK));
    SKF_TRY(skf_diffs8_get(w, r, w->maskkey.p, all));
    SKF_TRY(lists(w, s->n, &unit, &mask));
    uint8_t *d = w->sym.p;
    for (uint32_t i = 0, at = 0; i < s->n; i++) {
        uint32_t m = 0;
        for (unsigned e = 0; e < s->unit; e++, at++) {
            const uint8_t v = d[at];
            m |= (uint32_t)(v != 0) << e;
            d[k] = v;
            k += v != 0;
        }
        unit[c->n] = i;
        mask[c->n] = m;
        c->n += m != 0;
    }
    return SKF_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */
/* Each of n differences stands negated when the one before it, as it comes out, is negative: signs are sums of all before them. */
static void turn(int8_t *d, uint32_t n)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t down = 0; /* all ones where the one before is negative */
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x = skf_le64((const uint8_t *)d + i), sign = x >> 7 & each, odd = (x & 127 * each) + 127 * each;
        if (~odd & 128 * each) /* 0, or the lowest number: no sign to turn */
            break;
        sign ^= sign << 8;
        sign ^= sign << 16;
        sign ^= sign << 32;
        sign ^= down & each;
        uint64_t by = sign << 8 | (down & 1);
        skf_put_le64((uint8_t *)d + i, (x ^ by * 255) + by);
        down = 0 - (sign >> 56);
    }
    for (int before = (int)(down & 1) * -1; i < n; i++) {
        d[i] = (int8_t)((d[i] ^ before) - before);
        before = d[i] >> 7;
    }
}

/* The differences that the masks say, in w->sym. */
static enum skf_err get_values(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, const struct skf_changes *c)
{
    uint32_t n = 0, begin = 0, at = 0, end = 0;
    SKF_TRY(skf_area_need(&w->symkey, (size_t)c->n * s->unit + SLACK));
    SKF_TRY(skf_area_need(&w->mask, (size_t)c->n + 1));
    for (uint32_t i = 0; i < c->n; i++) {
        w->mask.p[i] = (uint8_t)ones32(c->mask[i]);
        memset(w->symkey.p + n, s->key[c->unit[i]], SLACK);
        n += w->mask.p[i];
    }
    SKF_TRY(skf_area_need(&w->sym, (size_t)n + SLACK));
    SKF_TRY(skf_diffs8_get(w, r, w->symkey.p, n));
    int8_t *d = (int8_t *)w->sym.p;
    for (uint32_t i = 0; i < c->n; i++) {
        const uint32_t unit = s->same ? s->same[c->unit[i]] : c->unit[i];
        if (unit >= end) {
            turn(d + begin, at - begin);
            begin = at;
            end = (unit / s->row + 1) * s->row;
        }
        at += w->mask.p[i];
    }
    turn(d + begin, at - begin);
    return SKF_OK;
}

enum skf_err skf_few_get(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    uint8_t mode;
    c->n = 0;
    SKF_TRY(skf_get_u8(r, &mode));
    if (mode >= SKF_FEW_COUNT || s->unit % skf_few_group[mode])
        return SKF_ERR_FORMAT;
    if (mode == SKF_FEW_DENSE)
        SKF_TRY(get_dense(w, r, s, c));
    if (mode == SKF_FEW_EIGHTS)
        SKF_TRY(get_eights(w, r, s, c));
    if (mode == SKF_FEW_FOURS)
        SKF_TRY(get_fours(w, r, s, c));
    c->unit = (const uint32_t *)(const void *)w->part.p;
    c->mask = (const uint32_t *)(const void *)w->ref.p;
    if (mode == SKF_FEW_EIGHTS || mode == SKF_FEW_FOURS)
        SKF_TRY(get_values(w, r, s, c));
    c->d = (const int8_t *)w->sym.p;
    return SKF_OK;
}
