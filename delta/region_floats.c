/*
 * Floats by themselves (region_priv.h): what weights that are related to nothing still have in common is their size.  The exponent
 * is a symbol, sign and upper mantissa bits are another in its context, and what is left of the mantissa are planes of at
 * most eight bits, raw where they are noise.  docs/formats.md has the layout.
 */
#include <endian.h>
#include <string.h>

#include "delta/region_priv.h"

#define TOP_BITS 4u   /* of the mantissa, with the sign */
#define PLANES_MAX 3u
#define EIGHT 8u

struct form { /* of a float type */
    unsigned width, mantissa, exponent; /* bytes, bits, bits */
};

static bool form_of(enum skf_type t, struct form *f)
{
    switch (t) {
    case SKF_T_F32:
        *f = (struct form){4, 23, 8};
        return true;
    case SKF_T_F16:
        *f = (struct form){2, 10, 5};
        return true;
    case SKF_T_BF16:
        *f = (struct form){2, 7, 8};
        return true;
    default:
        return false;
    }
}

bool skf_floats_fit(enum skf_type t)
{
    struct form f;
    return form_of(t, &f);
}

static inline uint32_t load(const uint8_t *p, unsigned width) { return width == 4 ? skf_le32(p) : skf_le16(p); }

static inline void store(uint8_t *p, uint32_t v, unsigned width)
{
    if (width == 4)
        skf_put_le32(p, v);
    else
        skf_put_le16(p, (uint16_t)v);
}

/* Bits of plane i of what is left of the mantissa; 0: there is no such plane. */
static unsigned plane_bits(const struct form *f, unsigned i)
{
    unsigned low = f->mantissa - TOP_BITS;
    return low <= 8 * i ? 0 : SKF_MIN(8u, low - 8 * i);
}

/* Contexts of the second symbols: the exponents of those that have one, in order. */
static uint32_t make_keys(const uint8_t *exponent, uint32_t n, bool has_zeros, uint8_t *key)
{
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        key[m] = exponent[i] % SKF_CONTEXTS;
        m += !has_zeros || exponent[i];
    }
    return m;
}

/* ---- out -------------------------------------------------------------------------------------------------------------------- */
static enum skf_err put_plane(struct skf_work *w, const uint8_t *p, uint32_t m, unsigned bits, struct skf_buf *out)
{
    double cost;
    struct skf_syms s = {(uint8_t *)(uintptr_t)p, w->key.p, m};
    SKF_TRY(skf_syms_cost(w, &s, &cost));
    if (cost + 512 < (double)m * bits) {
        SKF_TRY(skf_buf_u8(out, 1));
        return skf_syms_put(w, &s, out);
    }
    SKF_TRY(skf_buf_u8(out, 0));
    if (bits == 8)
        return skf_buf_put(out, p, m);
    size_t bytes = ((size_t)m * bits + 7) / 8;
    SKF_TRY(skf_area_need(&w->raw, bytes + 8));
    for (uint32_t i = 0; i < m; i += EIGHT) { /* eight of them are whole bytes */
        uint64_t v = 0;
        for (uint32_t k = 0; k < EIGHT && i + k < m; k++)
            v |= (uint64_t)p[i + k] << k * bits;
        skf_put_le64(w->raw.p + (size_t)i / EIGHT * bits, v);
    }
    return skf_buf_put(out, w->raw.p, bytes);
}

enum skf_err skf_floats_put(struct skf_work *w, enum skf_type t, const uint8_t *p, size_t bytes, struct skf_buf *out)
{
    struct form f;
    if (!form_of(t, &f) || bytes % f.width)
        return SKF_ERR_ARG;
    uint32_t n = (uint32_t)(bytes / f.width), m = 0;
    const unsigned low = f.mantissa - TOP_BITS;
    uint32_t mask = (1u << f.exponent) - 1, rest = (1u << (8 * f.width - 1)) - 1;
    bool has_zeros = true; /* an exponent of 0 always means the number 0 */
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->key, n));
    SKF_TRY(skf_area_need(&w->part, n));
    SKF_TRY(skf_area_need(&w->val, (size_t)n * PLANES_MAX));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v = load(p + (size_t)i * f.width, f.width);
        w->sym.p[i] = (uint8_t)(v >> f.mantissa & mask);
        has_zeros = has_zeros && (w->sym.p[i] || v == 0);
        w->key.p[i] = 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v = load(p + (size_t)i * f.width, f.width);
        if (has_zeros && !w->sym.p[i])
            continue;
        w->part.p[m] = (uint8_t)(v >> (8 * f.width - 1) << TOP_BITS | ((v & rest) >> low & ((1u << TOP_BITS) - 1)));
        for (unsigned k = 0, bits; (bits = plane_bits(&f, k)) != 0; k++)
            w->val.p[(size_t)k * n + m] = (uint8_t)(v >> 8 * k & ((1u << bits) - 1));
        m++;
    }
    SKF_TRY(skf_buf_u8(out, has_zeros));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->key.p, n}, out));
    (void)make_keys(w->sym.p, n, has_zeros, w->key.p);
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->part.p, w->key.p, m}, out));
    memset(w->key.p, 0, n);
    for (unsigned k = 0, bits; m && (bits = plane_bits(&f, k)) != 0; k++)
        SKF_TRY(put_plane(w, w->val.p + (size_t)k * n, m, bits, out));
    return SKF_OK;
}

/* ---- in --------------------------------------------------------------------------------------------------------------------- */
static enum skf_err get_plane(struct skf_work *w, struct skf_reader *r, uint8_t *p, uint32_t m, unsigned bits)
{
    uint8_t mode;
    const uint8_t *raw;
    SKF_TRY(skf_get_u8(r, &mode));
    if (mode == 1) {
        SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){p, w->key.p, m}));
        uint8_t all = 0;
        for (uint32_t i = 0; i < m; i++)
            all |= p[i];
        return all >> bits ? SKF_ERR_FORMAT : SKF_OK;
    }
    if (mode)
        return SKF_ERR_FORMAT;
    size_t bytes = ((size_t)m * bits + 7) / 8;
    SKF_TRY(skf_get_bytes(r, bytes, &raw));
    if (bits == 8) {
        memcpy(p, raw, m);
        return SKF_OK;
    }
    for (uint32_t i = 0; i < m; i += EIGHT) {
        size_t at = (size_t)i / EIGHT * bits;
        uint8_t last[8] = {0};
        memcpy(last, raw + at, SKF_MIN(bytes - at, 8));
        uint64_t v = skf_le64(last);
        uint32_t n = SKF_MIN(EIGHT, m - i);
        for (uint32_t k = 0; k < n; k++)
            p[i + k] = (uint8_t)(v >> k * bits & ((1u << bits) - 1));
        if (n < EIGHT && bytes - at < 8 && v >> n * bits) /* what fills the last byte is 0 */
            return SKF_ERR_FORMAT;
    }
    return SKF_OK;
}

/* Numbers put together again where each has all its parts: exponent, sign and upper mantissa, planes that stand n bytes apart. */
static SKF_LOOPS void join16(const uint8_t *restrict e, const uint8_t *restrict top, const uint8_t *restrict low, uint32_t n, unsigned mantissa,
                             uint8_t *restrict p)
{
    const unsigned left = mantissa - TOP_BITS;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t v = (uint16_t)(e[i] << mantissa | (top[i] & 15) << left | (top[i] >> TOP_BITS) << 15 | low[i]);
        v = htole16(v);
        memcpy(p + 2 * (size_t)i, &v, 2);
    }
}
static SKF_LOOPS void join32(const uint8_t *restrict e, const uint8_t *restrict top, const uint8_t *restrict low, uint32_t n, uint8_t *restrict p)
{
    const uint8_t *mid = low + n, *high = mid + n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v = (uint32_t)e[i] << 23 | (uint32_t)(top[i] & 15) << 19 | (uint32_t)(top[i] >> TOP_BITS) << 31 | (uint32_t)high[i] << 16 |
                     (uint32_t)mid[i] << 8 | low[i];
        v = htole32(v);
        memcpy(p + 4 * (size_t)i, &v, 4);
    }
}

/* The same where m of n have parts, and the others are 0. */
static void join_some(const struct form *f, const struct skf_work *w, uint32_t n, uint8_t *p)
{
    const unsigned low = f->mantissa - TOP_BITS;
    for (uint32_t i = 0, j = 0; i < n; i++) {
        uint32_t v = 0;
        if (w->sym.p[i]) {
            uint32_t top = w->part.p[j];
            v = (uint32_t)w->sym.p[i] << f->mantissa | (top & ((1u << TOP_BITS) - 1)) << low |
                (top >> TOP_BITS) << (8 * f->width - 1);
            for (unsigned k = 0; plane_bits(f, k); k++)
                v |= (uint32_t)w->val.p[(size_t)k * n + j] << 8 * k;
            j++;
        }
        store(p + (size_t)i * f->width, v, f->width);
    }
}

enum skf_err skf_floats_get(struct skf_work *w, enum skf_type t, struct skf_reader *r, uint8_t *p, size_t bytes)
{
    struct form f;
    uint8_t has_zeros;
    if (!form_of(t, &f) || bytes % f.width)
        return SKF_ERR_FORMAT;
    uint32_t n = (uint32_t)(bytes / f.width), m;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_area_need(&w->key, n));
    SKF_TRY(skf_area_need(&w->part, n));
    SKF_TRY(skf_area_need(&w->val, (size_t)n * PLANES_MAX));
    memset(w->key.p, 0, n);
    SKF_TRY(skf_get_u8(r, &has_zeros));
    if (has_zeros > 1)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->key.p, n}));
    for (uint32_t i = 0; i < n; i++)
        if (w->sym.p[i] >> f.exponent)
            return SKF_ERR_FORMAT;
    m = make_keys(w->sym.p, n, has_zeros, w->key.p);
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->part.p, w->key.p, m}));
    for (uint32_t i = 0; i < m; i++)
        if (w->part.p[i] >> (TOP_BITS + 1))
            return SKF_ERR_FORMAT;
    memset(w->key.p, 0, n);
    for (unsigned k = 0, bits; m && (bits = plane_bits(&f, k)) != 0; k++)
        SKF_TRY(get_plane(w, r, w->val.p + (size_t)k * n, m, bits));
    if (m < n)
        join_some(&f, w, n, p);
    else if (f.width == 2)
        join16(w->sym.p, w->part.p, w->val.p, n, f.mantissa, p);
    else
        join32(w->sym.p, w->part.p, w->val.p, n, p);
    return SKF_OK;
}
