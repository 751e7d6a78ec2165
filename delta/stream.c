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
/* How units are stored; the byte in front of them. */
enum sparse_mode { MODE_ZERO, MODE_DENSE, MODE_FOURS, MODE_EIGHTS, MODE_COUNT };
static const unsigned group_of[MODE_COUNT] = {1, 1, 4, 8};
/* Elements that are not 0, of a hundred, up to which groups pay, and up to which eights surely do. */
#define FOURS_PERCENT 25
#define EIGHTS_PERCENT 12
#define SURE_PERCENT 1

static const uint8_t ones4[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
static inline unsigned ones(unsigned m) { return (unsigned)ones4[m & 15] + ones4[m >> 4]; }

/* Symbols of masks: of fours as they are, of eights in the order of how many bits are set, so that those that hardly occur stand together at the end, where a table of
 * frequencies is short. */
struct masks {
    uint8_t symbol[256]; /* of each mask */
    uint8_t ones[256];   /* of each symbol: bits set, */
    uint32_t place[256][8]; /* and which; what stands behind these does no harm */
};
static void make_masks(struct masks *t, unsigned group)
{
    unsigned n = 0;
    memset(t, 0, sizeof *t);
    for (unsigned many = 0; many <= 8; many++)
        for (unsigned m = 0; m < 256; m++) {
            if (group == 8 ? ones(m) != many : many != 0)
                continue;
            t->symbol[m] = (uint8_t)n;
            for (unsigned bit = 0; bit < 8; bit++)
                if (m >> bit & 1)
                    t->place[n][t->ones[n]++] = bit;
            n++;
        }
}

/* Which of eight differences are not 0. */
static inline unsigned not_zero(const int8_t *d)
{
    uint64_t x = skf_le64((const uint8_t *)d);
    x |= (x & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu;
    return (unsigned)((x & 0x8080808080808080u) * 0x0002040810204081u >> 56);
}

/* Symbols of the masks of a unit's groups, and which of these are not 0; groups of four or eight. */
static unsigned masks_of(const struct masks *t, const int8_t *d, unsigned unit, unsigned group, uint8_t *mask)
{
    unsigned set = 0;
    for (unsigned g = 0; g < unit / group; g++) {
        unsigned m = 0;
        if (group == 8)
            m = not_zero(d + g * 8);
        for (unsigned e = 0; group != 8 && e < group; e++)
            m |= (unsigned)(d[g * group + e] != 0) << e;
        mask[g] = t->symbol[m];
        set |= (unsigned)(m != 0) << g;
    }
    return set;
}

/* In w->sym: masks of fours of all units, or of eights that are not 0; contexts in w->symkey; for eights in w->mask which of
 * each unit's these are. Returns how many. */
static uint32_t put_masks(struct skf_work *w, const struct skf_few *s, const int8_t *d, unsigned group)
{
    struct masks t;
    make_masks(&t, group);
    uint8_t *sym = w->sym.p, *key = w->symkey.p, mask[8];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++, d += s->unit) {
        unsigned set = masks_of(&t, d, s->unit, group, mask);
        w->mask.p[i] = (uint8_t)set;
        for (unsigned g = 0; g < s->unit / group; g++) {
            sym[n] = mask[g];
            key[n] = s->key[i];
            n += group == 4 || mask[g];
        }
    }
    return n;
}

static SKF_LOOPS uint32_t count_set(const int8_t *d, uint32_t n)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < n; i++)
        set += d[i] != 0;
    return set;
}

static enum skf_err choose(struct skf_work *w, const struct skf_few *s, const int8_t *d, unsigned *mode)
{
    double four, eight, top;
    uint32_t all = s->n * s->unit, set = count_set(d, all);
    *mode = set == 0 ? MODE_ZERO : MODE_DENSE;
    if (set == 0 || s->unit % 4 || set > all / 100 * FOURS_PERCENT)
        return SKF_OK;
    *mode = MODE_FOURS;
    if (s->unit % 8 || set > all / 100 * EIGHTS_PERCENT)
        return SKF_OK;
    *mode = MODE_EIGHTS;
    if (set <= all / 100 * SURE_PERCENT)
        return SKF_OK;
    uint32_t n = put_masks(w, s, d, 4);
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, &four));
    n = put_masks(w, s, d, 8);
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, &eight));
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->mask.p, s->key, s->n}, &top));
    if (four < (eight + top) * 0.90)
        *mode = MODE_FOURS;
    return SKF_OK;
}

/* All differences (those that are not 0 only, but in dense mode) as symbols. The sign of a change depends on that of the one before it
 * in its row: error that is carried on makes them take turns. */
static enum skf_err put_values(struct skf_work *w, const struct skf_few *s, const int8_t *d, bool is_all,
                               struct skf_buf *out)
{
    struct skf_bits_out raw;
    bool is_down = false; /* the one before was negative */
    uint32_t n = 0, end = 0;
    SKF_TRY(skf_raw_begin(w, s->n * s->unit, 1, &raw));
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t unit = s->same ? s->same[i] : i;
        if (unit >= end) {
            end = (unit / s->row + 1) * s->row;
            is_down = false;
        }
        for (unsigned e = 0; e < s->unit; e++, d++) {
            if (!is_all && e % 8 == 0 && s->unit - e >= 8 && !skf_le64((const uint8_t *)d)) {
                e += 7;
                d += 7;
                continue;
            }
            if (!*d && !is_all)
                continue;
            w->symkey.p[n] = s->key[i];
            w->sym.p[n++] = skf_bucket_put(&raw, is_down ? -*d : *d);
            is_down = !is_all && *d < 0;
        }
    }
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, out));
    return skf_raw_put(w, &raw, out);
}

enum skf_err skf_few_put(struct skf_work *w, const struct skf_few *s, const int8_t *d, struct skf_buf *out)
{
    unsigned mode;
    size_t all = (size_t)s->n * s->unit;
    SKF_TRY(skf_area_need(&w->mask, s->n));
    SKF_TRY(skf_area_need(&w->sym, all));
    SKF_TRY(skf_area_need(&w->symkey, all));
    SKF_TRY(choose(w, s, d, &mode));
    SKF_TRY(skf_buf_u8(out, (uint8_t)mode));
    if (mode == MODE_ZERO)
        return SKF_OK;
    if (mode != MODE_DENSE) {
        uint32_t n = put_masks(w, s, d, group_of[mode]);
        if (mode == MODE_EIGHTS)
            SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->mask.p, s->key, s->n}, out));
        SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->symkey.p, n}, out));
    }
    return put_values(w, s, d, mode == MODE_DENSE, out);
}

/* Contexts of `each` symbols for every unit, in w->maskkey. */
static enum skf_err spread(struct skf_work *w, const struct skf_few *s, unsigned each)
{
    SKF_TRY(skf_area_need(&w->maskkey, (size_t)s->n * each + 8));
    for (uint32_t i = 0; i < s->n; i++)
        memset(w->maskkey.p + (size_t)i * each, s->key[i], each);
    return SKF_OK;
}

/* First elements and contexts of the eights that are not 0: four are written for each unit, those of them that are meant stay. */
static SKF_LOOPS void spread_eights(const struct skf_few *s, const uint8_t *restrict top, const uint32_t (*eights)[4],
                                    uint32_t *restrict first, uint8_t *restrict key)
{
    const uint8_t *unit_key = s->key;
    const uint32_t n = s->n, unit = s->unit;
    for (uint32_t i = 0, k = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(top + i)) {
            i += 7;
            continue;
        }
        const uint32_t *at = eights[top[i]];
        for (unsigned g = 0; g < 4; g++)
            first[k + g] = i * unit + at[g];
        for (unsigned g = 0; g < 4; g++)
            key[k + g] = unit_key[i];
        k += ones4[top[i]];
    }
}

/* Masks of groups: in w->sym, n of them; their first elements in w->part and contexts in w->maskkey. */
static enum skf_err get_eights(struct skf_work *w, struct skf_reader *r, const struct skf_few *s,
                               uint32_t *n)
{
    const unsigned most = (1u << s->unit / 8) - 1;
    uint32_t many = 0;
    unsigned seen = 0;
    SKF_TRY(skf_area_need(&w->mask, s->n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->mask.p, s->key, s->n}));
    const uint8_t *top = w->mask.p;
    for (uint32_t i = 0; i < s->n; i++) {
        many += ones4[top[i] & 15];
        seen |= top[i];
    }
    if (seen & ~most)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->sym, (size_t)many + 8));
    SKF_TRY(skf_area_need(&w->maskkey, (size_t)many + 8));
    SKF_TRY(skf_area_need(&w->part, ((size_t)many + 8) * sizeof(uint32_t)));
    uint32_t *first = (uint32_t *)(void *)w->part.p, eights[16][4] = {{0}};
    uint8_t *key = w->maskkey.p;
    for (unsigned m = 0; m < 16; m++)
        for (unsigned g = 0, at = 0; g < 4; g++)
            if (m >> g & 1)
                eights[m][at++] = 8 * g;
    spread_eights(s, top, (const uint32_t(*)[4])eights, first, key);
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, key, many}));
    for (uint32_t i = 0; i < many; i++)
        if (!w->sym.p[i])
            return SKF_ERR_FORMAT;
    *n = many;
    return SKF_OK;
}

/* The same for fours: a unit's groups are all there. */
static enum skf_err get_fours(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, uint32_t *n)
{
    uint32_t each = s->unit / 4, all = s->n * each;
    uint8_t seen = 0;
    SKF_TRY(spread(w, s, each));
    SKF_TRY(skf_area_need(&w->sym, (size_t)all + 8));
    SKF_TRY(skf_area_need(&w->part, ((size_t)all + 8) * sizeof(uint32_t)));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->maskkey.p, all}));
    uint32_t *first = (uint32_t *)(void *)w->part.p;
    for (uint32_t i = 0; i < all; i++) {
        seen |= w->sym.p[i];
        first[i] = 4 * i;
    }
    *n = all;
    return seen > 15 ? SKF_ERR_FORMAT : SKF_OK;
}

/* The same for the elements that masks say: eight are written for each. */
static SKF_LOOPS void spread_masks(const struct masks *t, const uint8_t *restrict sym, const uint8_t *restrict mask_key,
                                   const uint32_t *restrict first, uint32_t n, uint32_t *restrict at, uint8_t *restrict key)
{
    for (uint32_t i = 0, k = 0; i < n; i++) {
        const uint32_t *place = t->place[sym[i]];
        for (unsigned e = 0; e < 8; e++)
            at[k + e] = first[i] + place[e];
        for (unsigned e = 0; e < 8; e++)
            key[k + e] = mask_key[i];
        k += t->ones[sym[i]];
    }
}

/* Where the changes are, in w->ref; their contexts in w->symkey. */
static enum skf_err find(struct skf_work *w, const struct masks *t, uint32_t n_masks, uint32_t *n)
{
    const uint8_t *sym = w->sym.p, *mask_key = w->maskkey.p;
    const uint32_t *first = (const uint32_t *)(const void *)w->part.p;
    uint32_t many = 0;
    for (uint32_t i = 0; i < n_masks; i++)
        many += t->ones[sym[i]];
    SKF_TRY(skf_area_need(&w->ref, ((size_t)many + 8) * sizeof(uint32_t)));
    SKF_TRY(skf_area_need(&w->symkey, (size_t)many + 8));
    spread_masks(t, sym, mask_key, first, n_masks, (uint32_t *)(void *)w->ref.p, w->symkey.p);
    *n = many;
    return SKF_OK;
}

/* Symbols to differences, in place. */
static enum skf_err get_values(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, uint32_t n)
{
    struct skf_bits_in raw;
    const uint32_t *at = (const uint32_t *)(const void *)w->ref.p;
    const unsigned shift = (unsigned)__builtin_ctz(s->unit);
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->symkey.p, n}));
    SKF_TRY(skf_raw_get(r, &raw));
    uint8_t *sym = w->sym.p;
    int down = 0; /* -1 where the one before in the row is negative */
    for (uint32_t i = 0, end = 0; i < n; i++) {
        int d = (sym[i] >> 1) ^ -(sym[i] & 1);
        int64_t far;
        if (sym[i] >= SKF_SMALL) {
            if (!skf_bucket_get(&raw, sym[i], 1, &far))
                return SKF_ERR_FORMAT;
            d = (int)far;
        }
        uint32_t unit = s->same ? s->same[at[i] >> shift] : at[i] >> shift;
        if (unit >= end) {
            end = (unit / s->row + 1) * s->row;
            down = 0;
        }
        d = (d ^ down) - down;
        down = (int8_t)d >> 7;
        sym[i] = (uint8_t)d;
    }
    return is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

static enum skf_err get_dense(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    const uint32_t all = s->n * s->unit;
    SKF_TRY(spread(w, s, s->unit));
    SKF_TRY(skf_diffs8_get(w, r, w->maskkey.p, all));
    SKF_TRY(skf_area_need(&w->ref, (size_t)all * sizeof(uint32_t)));
    uint32_t *at = (uint32_t *)(void *)w->ref.p;
    for (uint32_t i = 0; i < all; i++)
        if (w->sym.p[i]) {
            w->sym.p[c->n] = w->sym.p[i];
            at[c->n++] = i;
        }
    return SKF_OK;
}

enum skf_err skf_few_get(struct skf_work *w, struct skf_reader *r, const struct skf_few *s, struct skf_changes *c)
{
    uint8_t mode;
    uint32_t n = 0;
    c->n = 0;
    SKF_TRY(skf_get_u8(r, &mode));
    if (mode >= MODE_COUNT || s->unit % group_of[mode])
        return SKF_ERR_FORMAT;
    if (mode == MODE_DENSE) {
        SKF_TRY(get_dense(w, r, s, c));
    } else if (mode != MODE_ZERO) {
        struct masks t;
        make_masks(&t, group_of[mode]);
        SKF_TRY(mode == MODE_EIGHTS ? get_eights(w, r, s, &n) : get_fours(w, r, s, &n));
        SKF_TRY(find(w, &t, n, &c->n));
        SKF_TRY(get_values(w, r, s, c->n));
    }
    c->at = (const uint32_t *)(const void *)w->ref.p;
    c->d = (const int8_t *)w->sym.p;
    return SKF_OK;
}
