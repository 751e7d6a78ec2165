/* Differences as symbols (stream_priv.h). */
#include "delta/stream_priv.h"

#include <string.h>

#include "base/util.h"

bool skf_bucket_get(struct skf_bits_in *b, uint8_t sym, unsigned width, int64_t *d)
{
    unsigned k = 3 + (sym - SKF_SMALL) / 2u, left = k - 1;
    uint64_t m = 1ull << 1 | ((sym - SKF_SMALL) & 1u), negative, v;
    if (k > 8 * width - 1 || !skf_bits_get(b, 1, &negative))
        return false;
    uint64_t low = 0;
    unsigned at = 0;
    while (left) {
        unsigned n = left > 32 ? 32 : left;
        if (!skf_bits_get(b, n, &v))
            return false;
        low |= v << at;
        at += n;
        left -= n;
    }
    m = m << (k - 1) | low;
    *d = (int64_t)(negative ? 0 - m : m);
    return true;
}

enum skf_err skf_raw_begin(struct skf_work *w, uint32_t n, unsigned width, struct skf_bits_out *b)
{
    SKF_TRY(skf_area_need(&w->raw, (size_t)n * width + 16));
    *b = (struct skf_bits_out){.p = w->raw.p};
    return SKF_OK;
}

enum skf_err skf_raw_put(struct skf_work *w, struct skf_bits_out *b, struct skf_buf *out)
{
    size_t n = (size_t)(skf_bits_end(b) - w->raw.p);
    SKF_TRY(skf_put_varint(out, n));
    return skf_buf_put(out, w->raw.p, n);
}

enum skf_err skf_raw_get(struct skf_reader *r, struct skf_bits_in *b)
{
    uint64_t n;
    const uint8_t *p;
    SKF_TRY(skf_get_varint(r, &n));
    SKF_TRY(skf_get_bytes(r, n, &p));
    *b = (struct skf_bits_in){.p = p, .end = p + n};
    return SKF_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------------------------- */
/* Differences of scales are mostly a few numbers far apart (a step of the bfloat16 that a scale was made of): those below NEAR have
 * symbols of their own, the others buckets behind them. */
#define NEAR 48
static inline uint8_t wide_put(struct skf_bits_out *b, int d)
{
    int m = d < 0 ? -d : d;
    return m < NEAR ? (uint8_t)(2 * m - (d < 0)) : (uint8_t)(skf_bucket_put(b, d) - SKF_SMALL - 5 + 2 * NEAR);
}

enum skf_err skf_diffs16_put(struct skf_work *w, const int16_t *d, const uint8_t *key, uint32_t n, struct skf_buf *out)
{
    struct skf_bits_out raw;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_raw_begin(w, n, 2, &raw));
    for (uint32_t i = 0; i < n; i++)
        w->sym.p[i] = wide_put(&raw, d[i]);
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, key, n}, out));
    return skf_raw_put(w, &raw, out);
}

/* Numbers as if every symbol were a zigzag; whether some are not. */
static SKF_LOOPS bool unfold16(const uint8_t *restrict sym, uint32_t n, int16_t *restrict d)
{
    uint8_t most = 0;
    for (uint32_t i = 0; i < n; i++) {
        most = sym[i] > most ? sym[i] : most;
        d[i] = (int16_t)((sym[i] >> 1) ^ -(sym[i] & 1));
    }
    return most >= 2 * NEAR - 1;
}

enum skf_err skf_diffs16_get(struct skf_work *w, struct skf_reader *r, const uint8_t *key, uint32_t n, int16_t *d)
{
    struct skf_bits_in raw;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, key, n}));
    SKF_TRY(skf_raw_get(r, &raw));
    bool has_far = unfold16(w->sym.p, n, d);
    for (uint32_t i = 0; has_far && i < n; i++) {
        const unsigned sym = w->sym.p[i];
        int64_t v;
        if (sym < 2 * NEAR - 1)
            continue;
        if (sym < 2 * NEAR || !skf_bucket_get(&raw, (uint8_t)(sym - 2 * NEAR + SKF_SMALL + 5), 2, &v))
            return SKF_ERR_FORMAT;
        d[i] = (int16_t)v;
    }
    return is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

/* Bytes of x that are SKF_SMALL or more have their highest bit set in what comes back. */
static inline uint64_t not_small(uint64_t x)
{
    const uint64_t each = 0x0101010101010101u;
    return (x | ((x & 127 * each) + (128 - SKF_SMALL) * each)) & 128 * each;
}

static inline bool take8(struct skf_bits_in *raw, uint8_t *sym)
{
    int64_t d = skf_unzigzag(*sym);
    if (*sym >= SKF_SMALL && !skf_bucket_get(raw, *sym, 1, &d))
        return false;
    *sym = (uint8_t)d;
    return true;
}

/* Symbols to the numbers they stand for, in place; eight small ones at once. */
static bool take_all8(struct skf_bits_in *raw, uint8_t *sym, uint32_t n)
{
    const uint64_t each = 0x0101010101010101u;
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x = skf_le64(sym + i);
        if (!not_small(x)) {
            skf_put_le64(sym + i, (x >> 1 & 127 * each) ^ (x & each) * 255);
            continue;
        }
        for (unsigned k = 0; k < 8; k++)
            if (!take8(raw, sym + i + k))
                return false;
    }
    for (; i < n; i++)
        if (!take8(raw, sym + i))
            return false;
    return true;
}

enum skf_err skf_diffs8_get(struct skf_work *w, struct skf_reader *r, const uint8_t *key, uint32_t n)
{
    struct skf_bits_in raw;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, key, n}));
    SKF_TRY(skf_raw_get(r, &raw));
    return take_all8(&raw, w->sym.p, n) && is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

/* ---- few --------------------------------------------------------------------------------------------------------------------- */
/* Elements that are not 0, of a hundred, up to which groups pay, and up to which eights surely do. */
#define FOURS_PERCENT 25
#define EIGHTS_PERCENT 12
#define SURE_PERCENT 1

/* Symbols of masks: of fours as they are, of eights in the order of how many bits are set, so that those that hardly occur stand together at the end, where a table of
 * frequencies is short. */
struct masks {
    uint8_t symbol[256]; /* of each mask */
};
static void make_masks(struct masks *t, unsigned group)
{
    uint8_t mask[256];
    skf_masks_of(group, mask);
    for (unsigned k = 0; k < 256; k++)
        t->symbol[mask[k]] = (uint8_t)k;
}

/* Which of eight differences are not 0. */
static inline uint32_t not_zero(uint64_t x)
{
    x |= (x & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu;
    return (uint32_t)((x & 0x8080808080808080u) * 0x0002040810204081u >> 56);
}

/* The same of each unit. Returns how many are not 0 in all. */
static uint32_t find_set(const struct skf_few *s, const int8_t *d, uint32_t *mask)
{
    const uint8_t *p = (const uint8_t *)d;
    uint32_t set = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t m = 0;
        unsigned e = 0;
        for (; e + 8 <= s->unit; e += 8, p += 8) {
            const uint64_t x = skf_le64(p);
            if (x)
                m |= not_zero(x) << e;
        }
        for (; e < s->unit; e++, p++)
            m |= (uint32_t)(*p != 0) << e;
        mask[i] = m;
        for (; m; m &= m - 1)
            set++;
    }
    return set;
}

/* In w->sym: masks of fours of all units, or of eights that are not 0; contexts in w->symkey; for eights in w->mask which of
 * each unit's these are. Returns how many. */
static uint32_t put_masks(struct skf_work *w, const struct skf_few *s, const uint32_t *mask, unsigned group)
{
    struct masks t;
    make_masks(&t, group);
    uint8_t *sym = w->sym.p, *key = w->symkey.p;
    const unsigned each = s->unit / group;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t m = mask[i];
        unsigned set = 0;
        if (group == 4) {
            for (unsigned g = 0; g < each; g++, m >>= 4)
                sym[n + g] = m & 15;
            memset(key + n, s->key[i], each);
            n += each;
            continue;
        }
        for (unsigned g = 0; m; g++, m >>= 8) {
            const bool has = m & 255;
            sym[n] = t.symbol[m & 255];
            key[n] = s->key[i];
            set |= (unsigned)has << g;
            n += has;
        }
        w->mask.p[i] = (uint8_t)set;
    }
    return n;
}

/* *n: masks that stand in w already, for a mode that has masks; 0 where they do not. */
static enum skf_err choose(struct skf_work *w, const struct skf_few *s, const uint32_t *mask, uint32_t set, unsigned *mode, uint32_t *n)
{
    double four, eight, top;
    const uint32_t all = s->n * s->unit;
    *n = 0;
    *mode = set == 0 ? SKF_FEW_ZERO : SKF_FEW_DENSE;
    if (set == 0 || s->unit % 4 || set > all / 100 * FOURS_PERCENT)
        return SKF_OK;
    *mode = SKF_FEW_FOURS;
    if (s->unit % 8 || set > all / 100 * EIGHTS_PERCENT)
        return SKF_OK;
    *mode = SKF_FEW_EIGHTS;
    if (set <= all / 100 * SURE_PERCENT)
        return SKF_OK;
    *n = put_masks(w, s, mask, 4);
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->sym.p, w->symkey.p, *n}, &four));
    *n = put_masks(w, s, mask, 8);
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->sym.p, w->symkey.p, *n}, &eight));
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->mask.p, s->key, s->n}, &top));
    if (four < (eight + top) * 0.90) {
        *mode = SKF_FEW_FOURS;
        *n = 0;
    }
    return SKF_OK;
}

/* All differences as symbols. */
static enum skf_err put_all(struct skf_work *w, const struct skf_few *s, const int8_t *d, struct skf_buf *out)
{
    const uint32_t n = s->n * s->unit;
    struct skf_bits_out raw;
    SKF_TRY(skf_raw_begin(w, n, 1, &raw));
    for (uint32_t i = 0; i < s->n; i++)
        memset(w->symkey.p + (size_t)i * s->unit, s->key[i], s->unit);
    for (uint32_t i = 0; i < n; i++)
        w->sym.p[i] = skf_bucket_put(&raw, d[i]);
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, out));
    return skf_raw_put(w, &raw, out);
}

/* Those that are not 0. The sign of a change depends on that of the one before it in its row: error that is carried on makes them
 * take turns. */
static enum skf_err put_values(struct skf_work *w, const struct skf_few *s, const int8_t *d, const uint32_t *mask, uint32_t set,
                               struct skf_buf *out)
{
    struct skf_bits_out raw;
    int down = 0; /* -1 where the one before was negative */
    uint32_t n = 0, end = 0;
    SKF_TRY(skf_raw_begin(w, set, 1, &raw));
    for (uint32_t i = 0; i < s->n; i++, d += s->unit) {
        if (!mask[i])
            continue;
        const uint32_t unit = s->same ? s->same[i] : i;
        if (unit >= end) {
            end = (unit / s->row + 1) * s->row;
            down = 0;
        }
        for (uint32_t m = mask[i]; m; m &= m - 1) {
            const int v = d[__builtin_ctz(m)], x = (v ^ down) - down;
            w->symkey.p[n] = s->key[i];
            w->sym.p[n++] = x > -8 && x < 8 ? (uint8_t)(2 * x ^ x >> 31) : skf_bucket_put(&raw, x);
            down = v >> 31;
        }
    }
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, out));
    return skf_raw_put(w, &raw, out);
}

enum skf_err skf_few_put(struct skf_work *w, const struct skf_few *s, const int8_t *d, struct skf_buf *out)
{
    unsigned mode;
    uint32_t n;
    const size_t all = (size_t)s->n * s->unit;
    SKF_TRY(skf_area_need(&w->mask, s->n));
    SKF_TRY(skf_area_need(&w->sym, all + 1));
    SKF_TRY(skf_area_need(&w->symkey, all + 1));
    SKF_TRY(skf_area_need(&w->part, s->n * sizeof(uint32_t)));
    uint32_t *mask = (uint32_t *)(void *)w->part.p, set = find_set(s, d, mask);
    SKF_TRY(choose(w, s, mask, set, &mode, &n));
    SKF_TRY(skf_buf_u8(out, (uint8_t)mode));
    if (mode == SKF_FEW_ZERO)
        return SKF_OK;
    if (mode == SKF_FEW_DENSE)
        return put_all(w, s, d, out);
    if (!n)
        n = put_masks(w, s, mask, skf_few_group[mode]);
    if (mode == SKF_FEW_EIGHTS)
        SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->mask.p, s->key, s->n}, out));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, out));
    return put_values(w, s, d, mask, set, out);
}
