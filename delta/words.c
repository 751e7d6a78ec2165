/*
 * Plain types: differences of words, for floats of integers in the order of the numbers, in the context of the old value's
 * exponent and the level of its row.  Row, column and neighbours say nothing more; the exponent says most.
 */
#include <endian.h>
#include <math.h>
#include <string.h>

#include "delta/factor_priv.h"
#include "delta/int_priv.h"
#include "delta/level_priv.h"

/* Rows of fewer elements are no stripes; and where the contexts' middle stands: few elements lie far above the mean. */
#define STRIPE_MIN 64
#define MIDDLE 34

/* One instruction each, which loops over arrays need to become vectors. */
static inline __attribute__((always_inline)) uint64_t load(const uint8_t *p, unsigned width)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    switch (width) {
    case 1:
        return p[0];
    case 2:
        memcpy(&h, p, 2);
        return le16toh(h);
    case 4:
        memcpy(&w, p, 4);
        return le32toh(w);
    default:
        memcpy(&d, p, 8);
        return le64toh(d);
    }
}

static inline __attribute__((always_inline)) void store(uint8_t *p, uint64_t v, unsigned width)
{
    uint16_t h = htole16((uint16_t)v);
    uint32_t w = htole32((uint32_t)v);
    uint64_t d = htole64(v);
    if (width == 1)
        *p = (uint8_t)v;
    else if (width == 2)
        memcpy(p, &h, 2);
    else if (width == 4)
        memcpy(p, &w, 4);
    else
        memcpy(p, &d, 8);
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

static SKF_LOOPS void keys16(const uint8_t *restrict old, uint8_t *restrict key, uint32_t n, unsigned exponent_at, int at)
{
    const uint16_t mask = (uint16_t)((1u << (15 - exponent_at)) - 1);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t a;
        memcpy(&a, old + 2 * (size_t)i, 2);
        int16_t c = (int16_t)(2 * (le16toh(a) >> exponent_at & mask) + at);
        c = c < 0 ? 0 : c;
        key[i] = (uint8_t)(c >= SKF_CONTEXTS ? SKF_CONTEXTS - 1 : c);
    }
}

static enum skf_err keys(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l)
{
    SKF_TRY(skf_area_need(&w->key, o->n));
    for (uint32_t k = 0; o->width == 2 && o->exponent_at && k < l->n; k++) {
        uint32_t begin = k * l->stripe, n = SKF_MIN(l->stripe, o->n - begin);
        keys16(o->old + 2 * (size_t)begin, w->key.p + begin, n, o->exponent_at, skf_level_at(l, k));
    }
    if (o->width == 2 && o->exponent_at)
        return SKF_OK;
#define KEYS(wd) make_keys(o, wd, l, w->key.p)
    BY_WIDTH(o->width, KEYS)
    return SKF_OK;
}

/* ---- guesses ---------------------------------------------------------------------------------------------------------------- */
static bool is_guessed(enum skf_type t) { return t == SKF_T_BF16 || t == SKF_T_F16 || t == SKF_T_F32; }

static void open_factors(const struct skf_words *o, const struct skf_levels *l, struct skf_factors *f)
{
    *f = (struct skf_factors){.rows = l->n, .columns = l->stripe};
}

static inline float float_of(uint32_t u)
{
    union { uint32_t u; float f; } v = {.u = u};
    return v.f;
}
static inline uint32_t bits_of(float f)
{
    union { float f; uint32_t u; } v = {.f = f};
    return v.u;
}

/* Bits of the float32 that element i is; 0 for what is not finite. */
static inline uint32_t wide(const uint8_t *p, enum skf_type t)
{
    uint32_t u = t == SKF_T_BF16 ? (uint32_t)skf_le16(p) << 16 : t == SKF_T_F32 ? skf_le32(p) : bits_of(skf_f16_to_f32(skf_le16(p)));
    return (u >> 23 & 255) == 255 ? 0 : u;
}

static SKF_LOOPS void row_change(const void *ctx, uint32_t row, float *out)
{
    const struct skf_words *o = ctx;
    uint32_t columns = (uint32_t)(o->row_bytes / o->width), begin = row * columns;
    memset(out, 0, columns * sizeof *out);
    for (uint32_t i = begin, end = SKF_MIN(o->n, begin + columns), k = 0; i < end; i++, k++)
        out[k] = float_of(wide(o->neu + (size_t)i * o->width, o->type)) - float_of(wide(o->old + (size_t)i * o->width, o->type));
}

/* One row as it is guessed: the old number plus the guess, each operation rounded to float32, then to the type (ties to even).
 * A number that is not finite stays. */
static SKF_LOOPS void guess_bf16(const uint8_t *restrict old, const int32_t *restrict sum, float unit, uint32_t n,
                                 uint8_t *restrict ref)
{
    for (uint32_t k = 0; k < n; k++) {
        uint16_t a;
        memcpy(&a, old + 2 * (size_t)k, 2);
        uint32_t w = (uint32_t)le16toh(a) << 16, u = bits_of(float_of(w) + (float)sum[k] * unit);
        u += 0x7fff + (u >> 16 & 1);
        u = (w & 0x7f800000) == 0x7f800000 ? w : u;
        a = htole16((uint16_t)(u >> 16));
        memcpy(ref + 2 * (size_t)k, &a, 2);
    }
}
static void guess_f16(const uint8_t *old, const int32_t *sum, float unit, uint32_t n, uint8_t *ref)
{
    for (uint32_t k = 0; k < n; k++) {
        uint16_t a = skf_le16(old + 2 * (size_t)k), u = skf_f32_to_f16(skf_f16_to_f32(a) + (float)sum[k] * unit);
        skf_put_le16(ref + 2 * (size_t)k, (a & 0x7c00) == 0x7c00 ? a : u);
    }
}
static void guess_f32(const uint8_t *old, const int32_t *sum, float unit, uint32_t n, uint8_t *ref)
{
    for (uint32_t k = 0; k < n; k++) {
        uint32_t a = skf_le32(old + 4 * (size_t)k), u = bits_of(float_of(a) + (float)sum[k] * unit);
        skf_put_le32(ref + 4 * (size_t)k, (a & 0x7f800000) == 0x7f800000 ? a : u);
    }
}

/* Puts the guesses in w->ref and lets *o begin from there. */
static enum skf_err begin_from_guess(struct skf_work *w, const struct skf_factors *f, struct skf_words *o)
{
    float unit = skf_factors_unit(f);
    if (!f->rank)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->ref, (size_t)o->n * o->width));
    uint8_t *ref = w->ref.p;
    for (uint32_t i = 0; i < f->rows; i++) {
        uint32_t begin = i * f->columns, n = SKF_MIN(f->columns, o->n - begin);
        skf_factors_row(f, i);
        size_t at = (size_t)begin * o->width;
        if (o->type == SKF_T_BF16)
            guess_bf16(o->old + at, f->sum, unit, n, ref + at);
        else if (o->type == SKF_T_F16)
            guess_f16(o->old + at, f->sum, unit, n, ref + at);
        else
            guess_f32(o->old + at, f->sum, unit, n, ref + at);
    }
    o->old = ref;
    return SKF_OK;
}

/* ---- differences ------------------------------------------------------------------------------------------------------------ */
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

enum skf_err skf_words_put(struct skf_work *w, const struct skf_words *given, struct skf_buf *out)
{
    struct skf_words mine = *given, *o = &mine;
    struct skf_levels l;
    struct skf_factors f;
    struct skf_bits_out raw;
    open_levels(o, &l);
    open_factors(o, &l, &f);
    if (is_guessed(o->type)) {
        if (skf_factors_fit(f.rows, f.columns))
            SKF_TRY(skf_factors_find(w, &f, row_change, o, SKF_RANK_MAX, 0.5));
        SKF_TRY(skf_factors_put(w, &f, out));
        SKF_TRY(begin_from_guess(w, &f, o));
    }
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

/* Bytes of x that are SKF_SMALL or more have their highest bit set in what comes back. */
static inline uint64_t not_small(uint64_t x)
{
    const uint64_t each = 0x0101010101010101u;
    return (x | ((x & 127 * each) + (128 - SKF_SMALL) * each)) & 128 * each;
}

/* Halves and bfloats are what most of a model is: the same in 16 bits, which vectors hold twice as many of. */
static SKF_LOOPS void add16(const uint8_t *restrict old, const uint8_t *restrict sym, uint8_t *restrict neu, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t a, v;
        memcpy(&a, old + 2 * (size_t)i, 2);
        a = le16toh(a);
        a ^= (uint16_t)((int16_t)a >> 15) | 0x8000;
        v = (uint16_t)(a + (uint16_t)((sym[i] >> 1) ^ -(sym[i] & 1)));
        v ^= (uint16_t)((int16_t)(uint16_t)~v >> 15) | 0x8000;
        v = htole16(v);
        memcpy(neu + 2 * (size_t)i, &v, 2);
    }
}

/* First as if every symbol were the whole difference, all alike and so in vectors; then those that are not. */
static inline __attribute__((always_inline)) bool add(const struct skf_words *o, unsigned width, const uint8_t *sym,
                                                      struct skf_bits_in *raw)
{
    const bool is_float = o->exponent_at != 0;
    const uint8_t *old = o->old;
    uint8_t *neu = o->neu;
    uint32_t n = o->n;
    if (width == 2 && is_float)
        add16(old, sym, neu, n);
    for (uint32_t i = 0; i < n && !(width == 2 && is_float); i++) {
        uint64_t a = load(old + (size_t)i * width, width), d = (uint64_t)(sym[i] >> 1) ^ (0 - (uint64_t)(sym[i] & 1));
        store(neu + (size_t)i * width, is_float ? unordered(ordered(a, width) + d, width) : a + d, width);
    }
    for (uint32_t i = 0; i < n; i++) {
        int64_t d;
        if (n - i >= 8 && !not_small(skf_le64(sym + i))) {
            i += 7;
            continue;
        }
        if (sym[i] < SKF_SMALL)
            continue;
        if (!skf_bucket_get(raw, sym[i], width, &d))
            return false;
        uint64_t a = load(old + (size_t)i * width, width);
        store(neu + (size_t)i * width, is_float ? unordered(ordered(a, width) + (uint64_t)d, width) : a + (uint64_t)d,
              width);
    }
    return true;
}

enum skf_err skf_words_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *given)
{
    struct skf_words mine = *given, *o = &mine;
    struct skf_levels l;
    struct skf_factors f;
    struct skf_bits_in raw;
    bool is_whole = false;
    open_levels(o, &l);
    open_factors(o, &l, &f);
    if (is_guessed(o->type)) {
        SKF_TRY(skf_factors_get(w, r, &f, SKF_RANK_MAX));
        SKF_TRY(begin_from_guess(w, &f, o));
    }
    SKF_TRY(skf_levels_get(w, r, &l));
    SKF_TRY(skf_area_need(&w->sym, o->n));
    SKF_TRY(keys(w, o, &l));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->key.p, o->n}));
    SKF_TRY(skf_raw_get(r, &raw));
#define ADD(wd) is_whole = add(o, wd, w->sym.p, &raw)
    BY_WIDTH(o->width, ADD)
    return is_whole && is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}
