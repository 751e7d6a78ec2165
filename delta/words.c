/*
 * Plain types: differences of words, for floats of integers in the order of the numbers, in the context of the old value's
 * exponent and the level of its row.  Row, column and neighbours say nothing more; the exponent says most.
 */
#include <math.h>

#include "delta/int_priv.h"
#include "delta/level_priv.h"

/* Rows of fewer elements are no stripes; and where the contexts' middle stands: few elements lie far above the mean. */
#define STRIPE_MIN 64
#define MIDDLE 34

static inline __attribute__((always_inline)) uint64_t load(const uint8_t *p, unsigned width)
{
    switch (width) {
    case 1:
        return p[0];
    case 2:
        return skf_le16(p);
    case 4:
        return skf_le32(p);
    default:
        return skf_le64(p);
    }
}

static inline __attribute__((always_inline)) void store(uint8_t *p, uint64_t v, unsigned width)
{
    switch (width) {
    case 1:
        p[0] = (uint8_t)v;
        break;
    case 2:
        skf_put_le16(p, (uint16_t)v);
        break;
    case 4:
        skf_put_le32(p, (uint32_t)v);
        break;
    default:
        skf_put_le64(p, v);
    }
}

/* Floats to integers in the order of the numbers and back, both within `width` bytes. */
static inline uint64_t ordered(uint64_t v, unsigned width)
{
    uint64_t top = 1ull << (8 * width - 1);
    return v & top ? ~v : v | top;
}
static inline uint64_t unordered(uint64_t v, unsigned width)
{
    uint64_t top = 1ull << (8 * width - 1);
    return v & top ? v ^ top : ~v;
}

/* The lowest eight bits of the exponent (twice: half octaves are the unit of contexts). */
static inline int scale_of(uint64_t v, unsigned width, unsigned exponent_at)
{
    if (!exponent_at)
        return 0;
    uint64_t mask = (1ull << (8 * width - 1 - exponent_at)) - 1; /* without the sign */
    return 2 * (int)(v >> exponent_at & mask & 255);
}

/* One copy of each loop a width. */
#define BY_WIDTH(width, call)                                                                                          \
    switch (width) {                                                                                                   \
    case 1:                                                                                                            \
        call(1);                                                                                                       \
        break;                                                                                                         \
    case 2:                                                                                                            \
        call(2);                                                                                                       \
        break;                                                                                                         \
    case 4:                                                                                                            \
        call(4);                                                                                                       \
        break;                                                                                                         \
    default:                                                                                                           \
        call(8);                                                                                                       \
    }

static void open_levels(const struct skf_words *o, struct skf_levels *l)
{
    uint64_t row = o->row_bytes % o->width == 0 ? o->row_bytes / o->width : 0;
    uint32_t stripe = row >= STRIPE_MIN && row < o->n ? (uint32_t)row : o->n;
    *l = (struct skf_levels){.stripe = stripe, .n = (o->n + stripe - 1) / stripe, .step = 1};
}

static inline __attribute__((always_inline)) void make_keys(const struct skf_words *o, unsigned width,
                                                            const struct skf_levels *l, uint8_t *key)
{
    const uint8_t *old = o->old;
    const unsigned exponent_at = o->exponent_at;
    for (uint32_t i = 0, k = 0; i < o->n; k++) {
        int at = skf_level_at(l, k);
        for (uint32_t end = SKF_MIN(o->n, i + l->stripe); i < end; i++)
            key[i] = skf_context(scale_of(load(old + (size_t)i * width, width), width, exponent_at), at);
    }
}

static enum skf_err keys(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l)
{
    SKF_TRY(skf_area_need(&w->key, o->n));
#define KEYS(wd) make_keys(o, wd, l, w->key.p)
    BY_WIDTH(o->width, KEYS)
    return SKF_OK;
}

/* Symbols of all differences; the mean scale of each stripe's elements, and how much they moved. */
static inline __attribute__((always_inline)) void make_syms(const struct skf_words *o, unsigned width,
                                                            const struct skf_levels *l, uint8_t *sym,
                                                            struct skf_bits_out *raw, double *move, double *scale)
{
    const bool is_float = o->exponent_at != 0;
    double unit[256];
    for (int e = 0; e < 256; e++)
        unit[e] = ldexp(1.0, e - 128);
    for (uint32_t i = 0, k = 0; i < o->n; k++) {
        uint64_t sum = 0;
        double all = 0, still = 0;
        uint32_t begin = i, end = SKF_MIN(o->n, i + l->stripe);
        for (; i < end; i++) {
            uint64_t a = load(o->old + (size_t)i * width, width), b = load(o->neu + (size_t)i * width, width);
            int x = scale_of(a, width, o->exponent_at);
            uint64_t d = is_float ? ordered(b, width) - ordered(a, width) : b - a;
            int64_t v = (int64_t)(d << (64 - 8 * width)) >> (64 - 8 * width);
            sym[i] = skf_bucket_put(raw, v);
            sum += (unsigned)x;
            all += fabs((double)v) * unit[x / 2];
            still += unit[x / 2];
        }
        scale[k] = (double)sum;
        move[k] = (all + 0.25 * still / (end - begin)) / (end - begin);
    }
}

static void set_base(const struct skf_words *o, struct skf_levels *l, const double *scale)
{
    double sum = 0;
    l->base = 0;
    for (uint32_t k = 0; k < l->n; k++) {
        uint32_t begin = k * l->stripe, end = SKF_MIN(o->n, begin + l->stripe);
        sum += scale[k] + (double)(end - begin) * skf_level_at(l, k);
    }
    l->base = MIDDLE - (int)floor(sum / o->n + 0.5);
}

/* With levels where they pay. */
static enum skf_err choose_levels(struct skf_work *w, const struct skf_words *o, struct skf_levels *l,
                                  const double *move, const double *scale)
{
    double plain, with, side;
    struct skf_syms s = {w->sym.p, NULL, o->n};
    set_base(o, l, scale);
    SKF_TRY(keys(w, o, l));
    if (l->n == 1)
        return SKF_OK;
    s.key = w->key.p;
    SKF_TRY(skf_syms_cost(w, &s, &plain));
    struct skf_levels try = *l;
    SKF_TRY(skf_levels_make(w, move, &try));
    SKF_TRY(skf_levels_cost(w, &try, &side));
    set_base(o, &try, scale);
    SKF_TRY(keys(w, o, &try));
    s.key = w->key.p;
    SKF_TRY(skf_syms_cost(w, &s, &with));
    if (with + side < plain) {
        *l = try;
        return SKF_OK;
    }
    return keys(w, o, l);
}

enum skf_err skf_words_put(struct skf_work *w, const struct skf_words *o, struct skf_buf *out)
{
    struct skf_levels l;
    struct skf_bits_out raw;
    open_levels(o, &l);
    SKF_TRY(skf_area_need(&w->sym, o->n));
    SKF_TRY(skf_area_need(&w->val, 2 * (size_t)l.n * sizeof(double)));
    SKF_TRY(skf_raw_begin(w, o->n, o->width, &raw));
    double *move = (double *)(void *)w->val.p, *scale = move + l.n;
#define SYMS(wd) make_syms(o, wd, &l, w->sym.p, &raw, move, scale)
    BY_WIDTH(o->width, SYMS)
    SKF_TRY(choose_levels(w, o, &l, move, scale));
    SKF_TRY(skf_levels_put(w, &l, out));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->key.p, o->n}, out));
    return skf_raw_put(w, &raw, out);
}

static inline __attribute__((always_inline)) bool add(const struct skf_words *o, unsigned width, const uint8_t *sym,
                                                      struct skf_bits_in *raw)
{
    const bool is_float = o->exponent_at != 0;
    const uint8_t *old = o->old;
    uint8_t *neu = o->neu;
    for (uint32_t i = 0, n = o->n; i < n; i++) {
        uint64_t a = load(old + (size_t)i * width, width);
        int64_t d = skf_unzigzag(sym[i]);
        if (sym[i] >= SKF_SMALL && !skf_bucket_get(raw, sym[i], width, &d))
            return false;
        store(neu + (size_t)i * width, is_float ? unordered(ordered(a, width) + (uint64_t)d, width) : a + (uint64_t)d,
              width);
    }
    return true;
}

enum skf_err skf_words_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *o)
{
    struct skf_levels l;
    struct skf_bits_in raw;
    bool is_whole = false;
    open_levels(o, &l);
    SKF_TRY(skf_levels_get(w, r, &l));
    SKF_TRY(skf_area_need(&w->sym, o->n));
    SKF_TRY(keys(w, o, &l));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->key.p, o->n}));
    SKF_TRY(skf_raw_get(r, &raw));
#define ADD(wd) is_whole = add(o, wd, w->sym.p, &raw)
    BY_WIDTH(o->width, ADD)
    return is_whole && is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}
