/* Differences as symbols (stream_priv.h). */
#include "delta/stream_priv.h"

#include <string.h>

#include "base/util.h"

/* How a stream is stored; the byte in front of it. */
enum stream_mode { MODE_ZERO, MODE_DENSE, MODE_MASK4, MODE_MASK8, MODE_COUNT };
static const unsigned group_of[MODE_COUNT] = {[MODE_DENSE] = 1, [MODE_MASK4] = 4, [MODE_MASK8] = 8};
/* Elements that are not 0, of a hundred, up to which groups pay. */
#define MASK4_PERCENT 25
#define MASK8_PERCENT 12

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

static inline int64_t value_at(const struct skf_stream *s, uint32_t i)
{
    return s->width == 1 ? (int8_t)s->val[i] : (int16_t)skf_le16(s->val + 2 * (size_t)i);
}

static inline void value_set(uint8_t *val, unsigned width, uint32_t i, int64_t d)
{
    if (width == 1)
        val[i] = (uint8_t)d;
    else
        skf_put_le16(val + 2 * (size_t)i, (uint16_t)d);
}

/* The contexts of groups of `group` elements. */
static enum skf_err spread_keys(struct skf_area *a, const struct skf_stream *s, unsigned group, uint32_t n)
{
    SKF_TRY(skf_area_need(a, n));
    unsigned each = s->per / group;
    if (each == 1) {
        memcpy(a->p, s->key, n);
        return SKF_OK;
    }
    uint8_t *p = a->p;
    for (uint32_t i = 0, k = 0; i < n; i += each, k++)
        memset(p + i, s->key[k], SKF_MIN(each, n - i));
    return SKF_OK;
}

static uint32_t count_nonzero(const struct skf_stream *s)
{
    uint32_t set = 0;
    if (s->width == 1)
        for (uint32_t i = 0; i < s->n; i++)
            set += s->val[i] != 0;
    else
        for (uint32_t i = 0; i < s->n; i++)
            set += value_at(s, i) != 0;
    return set;
}

/* In w->mask and w->maskkey. */
static enum skf_err make_masks(struct skf_work *w, const struct skf_stream *s, unsigned group, struct skf_syms *syms)
{
    uint32_t n = (s->n + group - 1) / group;
    SKF_TRY(skf_area_need(&w->mask, n));
    SKF_TRY(spread_keys(&w->maskkey, s, group, n));
    memset(w->mask.p, 0, n);
    for (uint32_t i = 0; i < s->n; i++)
        if (value_at(s, i))
            w->mask.p[i / group] |= (uint8_t)(1u << (i & (group - 1)));
    *syms = (struct skf_syms){w->mask.p, w->maskkey.p, n};
    return SKF_OK;
}

/* Larger groups see what neighbours have in common, and are fewer; but their tables are larger. */
static enum skf_err choose(struct skf_work *w, const struct skf_stream *s, unsigned *mode)
{
    double four, eight;
    struct skf_syms syms;
    uint32_t set = count_nonzero(s);
    *mode = set == 0 ? MODE_ZERO : MODE_DENSE;
    if (set == 0 || s->per % 4 || set > s->n / 100 * MASK4_PERCENT)
        return SKF_OK;
    *mode = MODE_MASK4;
    if (s->per % 8 || set > s->n / 100 * MASK8_PERCENT)
        return SKF_OK;
    SKF_TRY(make_masks(w, s, 4, &syms));
    SKF_TRY(skf_syms_cost(w, &syms, &four));
    SKF_TRY(make_masks(w, s, 8, &syms));
    SKF_TRY(skf_syms_cost(w, &syms, &eight));
    *mode = eight < four ? MODE_MASK8 : MODE_MASK4;
    return SKF_OK;
}

/* Symbols of the elements that are not 0 (of all when mask is NULL), with the context of each. */
static enum skf_err put_values(struct skf_work *w, const struct skf_stream *s, bool is_all, struct skf_buf *out)
{
    struct skf_bits_out raw;
    uint32_t n = 0;
    SKF_TRY(skf_raw_begin(w, s->n, s->width, &raw));
    SKF_TRY(skf_area_need(&w->sym, s->n));
    SKF_TRY(skf_area_need(&w->symkey, s->n));
    uint8_t *sym = w->sym.p, *key = w->symkey.p;
    bool is_down = false; /* the change before this one was negative */
    for (uint32_t i = 0, k = 0; i < s->n; k++) {
        for (uint32_t end = SKF_MIN(s->n, i + s->per); i < end; i++) {
            int64_t d = value_at(s, i);
            if (!d && !is_all)
                continue;
            key[n] = s->key[k];
            sym[n++] = skf_bucket_put(&raw, is_down ? -d : d);
            is_down = !is_all && d < 0;
        }
    }
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){sym, key, n}, out));
    return skf_raw_put(w, &raw, out);
}

enum skf_err skf_stream_put(struct skf_work *w, const struct skf_stream *s, struct skf_buf *out)
{
    unsigned mode;
    struct skf_syms syms;
    SKF_TRY(choose(w, s, &mode));
    SKF_TRY(skf_buf_u8(out, (uint8_t)mode));
    if (mode == MODE_ZERO)
        return SKF_OK;
    if (mode != MODE_DENSE) {
        SKF_TRY(make_masks(w, s, group_of[mode], &syms));
        SKF_TRY(skf_syms_put(w, &syms, out));
    }
    return put_values(w, s, mode == MODE_DENSE, out);
}

static inline bool take(struct skf_bits_in *raw, const struct skf_stream *s, unsigned width, uint32_t i, uint8_t sym)
{
    int64_t d = skf_unzigzag(sym);
    if (sym >= SKF_SMALL && !skf_bucket_get(raw, sym, width, &d))
        return false;
    value_set(s->val, width, i, d);
    return true;
}

/* The same where the change before turns this one round. */
static inline bool take_turned(struct skf_bits_in *raw, const struct skf_stream *s, unsigned width, uint32_t i,
                               uint8_t sym, bool *is_down)
{
    int64_t d = skf_unzigzag(sym), turn = -(int64_t)*is_down;
    if (sym >= SKF_SMALL && !skf_bucket_get(raw, sym, width, &d))
        return false;
    d = (d ^ turn) - turn;
    *is_down = (width == 1 ? (int8_t)d : (int16_t)d) < 0;
    value_set(s->val, width, i, d);
    return true;
}

static SKF_LOOPS enum skf_err get_dense(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s)
{
    struct skf_bits_in raw;
    SKF_TRY(skf_area_need(&w->sym, s->n));
    SKF_TRY(spread_keys(&w->symkey, s, 1, s->n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->symkey.p, s->n}));
    SKF_TRY(skf_raw_get(r, &raw));
    const uint8_t *sym = w->sym.p;
    uint8_t *val = s->val;
    for (uint32_t i = 0, n = s->n; s->width == 1 && i < n; i++)
        val[i] = (uint8_t)(sym[i] >> 1 ^ -(sym[i] & 1));
    for (uint32_t i = 0, n = s->n; i < n; i++)
        if ((s->width != 1 || sym[i] >= SKF_SMALL) && !take(&raw, s, s->width, i, sym[i]))
            return SKF_ERR_FORMAT;
    return is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

/* Bits set in a byte. */
static const uint8_t ones4[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
static inline uint32_t ones(uint8_t b) { return (uint32_t)ones4[b & 15] + ones4[b >> 4]; }

/* How many elements are set, and the context of each. */
static enum skf_err count_set(struct skf_work *w, const struct skf_stream *s, unsigned group, uint32_t n, uint32_t *set)
{
    const uint8_t *mask = w->mask.p, *mkey = w->maskkey.p;
    uint32_t many = 0;
    uint8_t seen = 0;
    for (uint32_t i = 0; i < n; i++) {
        many += ones(mask[i]);
        seen |= mask[i];
    }
    uint32_t rest = s->n & (group - 1);
    if (seen >> 1 >> (group - 1) || (rest && mask[n - 1] >> rest))
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->sym, (size_t)many + 8));
    SKF_TRY(skf_area_need(&w->symkey, (size_t)many + 8));
    uint8_t *key = w->symkey.p;
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) { /* eight are written, those of them that are meant stay */
        if (n - i >= 8 && !skf_le64(mask + i)) {
            i += 7;
            continue;
        }
        memset(key + at, mkey[i], 8);
        at += ones(mask[i]);
    }
    *set = many;
    return SKF_OK;
}

static inline __attribute__((always_inline)) bool scatter(const struct skf_work *w, const struct skf_stream *s,
                                                          unsigned width, unsigned group, uint32_t n,
                                                          struct skf_bits_in *raw)
{
    const uint8_t *mask = w->mask.p, *sym = w->sym.p;
    bool is_down = false;
    for (uint32_t i = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(mask + i)) {
            i += 7;
            continue;
        }
        for (unsigned m = mask[i]; m; m &= m - 1)
            if (!take_turned(raw, s, width, i * group + (unsigned)__builtin_ctz(m), *sym++, &is_down))
                return false;
    }
    return true;
}

static enum skf_err get_masked(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s, unsigned group)
{
    struct skf_bits_in raw;
    uint32_t n = (s->n + group - 1) / group, set;
    if (s->per % group)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->mask, n));
    SKF_TRY(spread_keys(&w->maskkey, s, group, n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->mask.p, w->maskkey.p, n}));
    SKF_TRY(count_set(w, s, group, n, &set));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->symkey.p, set}));
    SKF_TRY(skf_raw_get(r, &raw));
    memset(s->val, 0, (size_t)s->n * s->width);
    bool is_whole = s->width == 1 ? group == 4 ? scatter(w, s, 1, 4, n, &raw) : scatter(w, s, 1, 8, n, &raw)
                                  : scatter(w, s, 2, group, n, &raw);
    return is_whole && is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err skf_stream_get(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s, bool *is_zero)
{
    uint8_t mode;
    SKF_TRY(skf_get_u8(r, &mode));
    *is_zero = mode == MODE_ZERO;
    if (mode >= MODE_COUNT || (mode != MODE_ZERO && s->n == 0))
        return SKF_ERR_FORMAT;
    if (mode == MODE_ZERO) {
        if (s->n)
            memset(s->val, 0, (size_t)s->n * s->width);
        return SKF_OK;
    }
    return mode == MODE_DENSE ? get_dense(w, r, s) : get_masked(w, r, s, group_of[mode]);
}
