/*
 * Plain types: differences of words, for floats of integers in the order of the numbers, in the context of the old
 * value's exponent and the level of its row.  Row, column and neighbours say nothing more; the exponent says most.
 *
 * Words that could be narrower are: halves and floats that all came from bfloats are coded as those, and lowest bits
 * that are 0 everywhere are left out.
 */
#include <math.h>

#include "delta/factor_priv.h"
#include "delta/words_priv.h"
#include "delta/zeros_priv.h"

/* Rows of fewer elements are no stripes; and where the contexts' middle stands: few elements lie far above the mean. */
#define STRIPE_MIN 64
#define MIDDLE     34
/* Elements that are worked on at a time: they stay in the first cache. */
#define BLOCK 8192u
/* The first byte: how many lowest bits are left out, and that the words are those of bfloats. */
#define FORM_SHIFT 63
#define FORM_BF16  64

enum { MODE_DENSE, MODE_SPARSE, MODE_DENSE_WIDE, MODE_COUNT };

enum skf_err skf_word_bits(struct skf_reader *r, struct word_bits *b)
{
    uint64_t n;
    const uint8_t *p;
    SKF_TRY(skf_get_varint(r, &n));
    SKF_TRY(skf_get_bytes(r, n, &p));
    *b = (struct word_bits){p, 0, 8 * n}; /* n is below the payload's length */
    return SKF_OK;
}

/* ---- narrower words ---------------------------------------------------------------------------------------------- */
/* The bits that are set in any of n words. */
static SKF_LOOPS uint64_t any_of(const uint8_t *p, size_t bytes, unsigned width)
{
    uint64_t all = 0, rest = 0;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        all |= v;
    }
    all = le64toh(all);
    for (; i < bytes; i += width)
        rest |= word_load(p + i, width);
    for (unsigned bits = 32; bits >= 8 * width; bits /= 2)
        all |= all >> bits;
    return (all | rest) & (width == 8 ? UINT64_MAX : (1ull << 8 * width) - 1);
}

static void bf16_of(const struct skf_loops *loops, enum skf_type t, const uint8_t *in, uint8_t *out, uint32_t n)
{
    if (t == SKF_T_F16)
        loops->f16_to_bf16(in, out, n);
    for (uint32_t i = 0; t == SKF_T_F32 && i < n; i++) {
        out[2 * (size_t)i] = in[4 * (size_t)i + 2];
        out[2 * (size_t)i + 1] = in[4 * (size_t)i + 3];
    }
}

/* n numbers of the type from as many bfloats, which lie elsewhere or, for halves, in the same place. */
static void of_bf16(const struct skf_loops *loops, enum skf_type t, const uint8_t *in, uint8_t *out, uint32_t n)
{
    if (t == SKF_T_F16)
        loops->bf16_to_f16(in, out, n);
    for (uint32_t i = 0; t == SKF_T_F32 && i < n; i++)
        skf_put_le32(out + 4 * (size_t)i, (uint32_t)skf_le16(in + 2 * (size_t)i) << 16);
}

/* Whether n words all are bfloats; these, in `out`. */
static bool is_bf16(const struct skf_loops *loops, enum skf_type t, const uint8_t *in, uint8_t *out, uint32_t n)
{
    uint8_t back[2 * 1024];
    if (t == SKF_T_F32 && (any_of(in, 4 * (size_t)n, 4) & 0xffff))
        return false;
    for (uint32_t i = 0, m; i < n; i += m) {
        m = SKF_MIN(n - i, 1024u);
        bf16_of(loops, t, in + (t == SKF_T_F32 ? 4 : 2) * (size_t)i, out + 2 * (size_t)i, m);
        if (t != SKF_T_F16)
            continue;
        loops->bf16_to_f16(out + 2 * (size_t)i, back, m);
        if (memcmp(back, in + 2 * (size_t)i, 2 * (size_t)m) != 0)
            return false;
    }
    return true;
}

static bool may_be_bf16(enum skf_type t)
{
    return t == SKF_T_F16 || t == SKF_T_F32;
}

static void make_bf16(struct skf_words *o)
{
    o->width = 2;
    o->exponent_at = 7;
    o->type = SKF_T_BF16;
}

/* The narrowest form that both sides have. */
static enum skf_err narrow(struct skf_work *w, struct skf_words *o, uint8_t *form)
{
    const struct skf_loops *loops = skf_loops_of(w->isa);
    *form = 0;
    if (may_be_bf16(o->type)) {
        SKF_TRY(skf_area_need(&w->ref, 2 * (size_t)o->n));
        SKF_TRY(skf_area_need(&w->narrow, 2 * (size_t)o->n));
        if (is_bf16(loops, o->type, o->neu, w->narrow.p, o->n) && is_bf16(loops, o->type, o->old, w->ref.p, o->n)) {
            *form = FORM_BF16;
            o->old = w->ref.p;
            o->neu = w->narrow.p;
            make_bf16(o);
        }
    }
    size_t bytes = (size_t)o->n * o->width;
    uint64_t bits = any_of(o->old, bytes, o->width) | any_of(o->neu, bytes, o->width);
    o->shift = bits ? (unsigned)__builtin_ctzll(bits) : 0;
    *form |= (uint8_t)o->shift;
    return SKF_OK;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */
static bool is_halves(const struct skf_words *o)
{
    return o->width == 2 && o->exponent_at;
}

static void open_levels(const struct skf_words *o, struct skf_levels *l)
{
    uint32_t stripe = o->row >= STRIPE_MIN && o->row < o->n ? (uint32_t)o->row : o->n;
    *l = (struct skf_levels){.stripe = stripe, .n = (o->n + stripe - 1) / stripe, .step = 1};
}

static inline __attribute__((always_inline)) void make_keys(const uint8_t *old, unsigned width, unsigned exponent_at,
                                                            int at, uint8_t *key, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        key[i] = skf_context(word_scale(word_load(old + (size_t)i * width, width), width, exponent_at), at);
}

/* Contexts of n elements of a stripe, of which `old` is the first. */
static void keys_of(const struct skf_loops *loops, const struct skf_words *o, const uint8_t *old, int at, uint8_t *key,
                    uint32_t n)
{
    if (is_halves(o)) {
        loops->keys(old, key, n, o->exponent_at, at);
        return;
    }
#define KEYS(wd) make_keys(old, wd, o->exponent_at, at, key, n)
    BY_WIDTH(o->width, KEYS)
}

static enum skf_err keys(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l)
{
    const struct skf_loops *loops = skf_loops_of(w->isa);
    SKF_TRY(skf_area_need(&w->key, o->n));
    for (uint32_t k = 0; k < l->n; k++) {
        uint32_t begin = k * l->stripe, n = SKF_MIN(l->stripe, o->n - begin);
        keys_of(loops, o, o->old + (size_t)begin * o->width, skf_level_at(l, k), w->key.p + begin, n);
    }
    return SKF_OK;
}

/* ---- guesses ----------------------------------------------------------------------------------------------------- */
static bool is_guessed(enum skf_type t)
{
    return t == SKF_T_BF16 || t == SKF_T_F16 || t == SKF_T_F32;
}

static struct skf_factors factors_of(const struct skf_words *o, const struct skf_levels *l)
{
    bool has = is_guessed(o->type);
    return (struct skf_factors){
        .rows = l->n, .columns = l->stripe, .side = has ? o->side : NULL, .side_n = has ? o->side_n : 0};
}

static inline float number(uint32_t u)
{
    return (u >> 23 & 255) == 255 ? 0 : skf_bits_float(u);
}

struct guessing { /* what is known while the rank is chosen */
    const struct skf_words *o;
    const struct skf_loops *loops;
    int at;       /* so that the first row's contexts are about the middle */
    uint8_t *row; /* room for one, its symbols and contexts */
    uint32_t count[SKF_CONTEXTS][2 << WORD_TOP_WIDE];
    double far; /* bits of differences that are not small, beside their symbol */
};

static enum skf_err row_change(void *ctx, uint64_t row, float *out)
{
    const struct guessing *c = ctx;
    const struct skf_words *o = c->o;
    uint32_t columns = (uint32_t)o->row, begin = (uint32_t)row * columns, n = SKF_MIN(o->n - begin, columns);
    const uint8_t *old = o->old + (size_t)begin * o->width, *neu = o->neu + (size_t)begin * o->width;
    memset(out + n, 0, (columns - n) * sizeof *out);
    if (o->type == SKF_T_BF16)
        c->loops->change_bf16(old, neu, out, n);
    if (o->type == SKF_T_F16)
        c->loops->change_f16(old, neu, out, n);
    for (uint32_t i = 0; o->type == SKF_T_F32 && i < n; i++)
        out[i] = number(skf_le32(neu + 4 * (size_t)i)) - number(skf_le32(old + 4 * (size_t)i));
    return SKF_OK;
}

/* Row i as it is guessed; ref may be old. */
static void guess_row(const struct skf_factors *f, enum skf_type t, uint32_t i, const uint8_t *old, uint8_t *ref,
                      uint32_t n)
{
    skf_factors_row(f, i);
    if (t == SKF_T_BF16)
        f->loops->guess_bf16(old, f->guess, ref, n);
    else if (t == SKF_T_F16)
        f->loops->guess_f16(old, f->guess, ref, n);
    else
        f->loops->guess_f32(old, f->guess, ref, n);
}

static void add_row(void *ctx, const struct skf_factors *f, uint32_t i)
{
    struct guessing *c = ctx;
    const struct skf_words *o = c->o;
    uint32_t n = SKF_MIN(f->columns, o->n - i * f->columns);
    size_t at = 2 * (size_t)i * f->columns;
    uint8_t *ref = c->row, *sym = ref + 2 * (size_t)f->columns, *key = sym + f->columns;
    if (f->rank)
        guess_row(f, o->type, i, o->old + at, ref, n);
    else
        memcpy(ref, o->old + at, 2 * (size_t)n);
    c->loops->keys(ref, key, n, o->exponent_at, c->at);
    c->loops->sub(ref, o->neu + at, sym, n, o->shift, word_small(WORD_TOP_WIDE));
    for (uint32_t j = 0; j < n; j++) {
        if (sym[j] == SKF_FAR) {
            uint64_t a = word_in(word_load(ref + 2 * (size_t)j, 2), 2, true, o->shift);
            uint64_t b = word_in(word_load(o->neu + at + 2 * (size_t)j, 2), 2, true, o->shift);
            int64_t d = word_diff(a, b, 2, o->shift);
            c->far += 32.0 - __builtin_clz((uint32_t)(d < 0 ? -d : d));
            sym[j] = (uint8_t)word_small(WORD_TOP_WIDE);
        }
        c->count[key[j]][sym[j]]++;
    }
}

static double bits_of_rows(void *ctx)
{
    struct guessing *c = ctx;
    double bits = c->far;
    for (unsigned k = 0; k < SKF_CONTEXTS; k++) {
        double sum = 0;
        for (unsigned s = 0; s < 2u << WORD_TOP_WIDE; s++) {
            double n = c->count[k][s];
            sum += n;
            bits -= n > 0 ? n * log2(n) : 0;
        }
        bits += sum > 0 ? sum * log2(sum) : 0;
    }
    c->far = 0;
    memset(c->count, 0, sizeof c->count);
    return bits;
}

static enum skf_err choose_guess(struct skf_work *w, const struct skf_words *o, struct skf_factors *f)
{
    struct guessing g = {.o = o, .loops = skf_loops_of(w->isa)};
    struct skf_choice c = {.gain = SKF_GAIN_FLOATS, .row = row_change, .ctx = &g};
    if (o->width == 2 && f->columns <= BLOCK) {
        SKF_TRY(skf_area_need(&w->part, 4 * (size_t)BLOCK));
        g.row = w->part.p;
        g.at = MIDDLE - word_scale(word_load(o->old, 2), 2, o->exponent_at);
        c.add = add_row;
        c.bits = bits_of_rows;
    }
    return skf_factors_choose(w, f, &c);
}

/* Puts the guesses in w->ref (where the old numbers may stand) and lets *o begin from there. */
static enum skf_err begin_from_guess(struct skf_work *w, const struct skf_factors *f, struct skf_words *o)
{
    if (!f->rank)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->ref, (size_t)o->n * o->width)); /* no more than it has, when they do */
    for (uint32_t i = 0; i < f->rows; i++) {
        uint32_t begin = i * f->columns, n = SKF_MIN(f->columns, o->n - begin);
        guess_row(f, o->type, i, o->old + (size_t)begin * o->width, w->ref.p + (size_t)begin * o->width, n);
    }
    o->old = w->ref.p;
    return SKF_OK;
}

/* ---- what becomes zero ------------------------------------------------------------------------------------------- */
/* Sizes of all old numbers (zeros_priv.h); of those that become zero, how many are negative and stay so, less how many do not. */
static SKF_LOOPS int32_t sizes_of(const struct skf_words *o, uint32_t *size)
{
    const uint32_t sign = 1u << (8 * o->width - 1);
    int32_t stay = 0;
    for (uint32_t i = 0; i < o->n; i++) {
        uint32_t a = (uint32_t)word_load(o->old + (size_t)i * o->width, o->width);
        uint32_t b = (uint32_t)word_load(o->neu + (size_t)i * o->width, o->width);
        bool becomes = (a & ~sign) != 0 && (b & ~sign) == 0;
        size[i] = (a & ~sign) == 0 ? SKF_ZEROS_WAS : (a & ~sign) | (becomes ? SKF_ZEROS_BECOMES : 0);
        stay += !becomes || !(a & sign) ? 0 : b & sign ? 1 : -1;
    }
    return stay;
}

static SKF_LOOPS uint32_t zeros_in(const uint8_t *p, unsigned width, uint32_t n)
{
    uint32_t zeros = 0;
    if (width == 2)
        for (uint32_t i = 0; i < n; i++)
            zeros += (word_load(p + 2 * (size_t)i, 2) & 0x7fff) == 0;
    else
        for (uint32_t i = 0; i < n; i++)
            zeros += (word_load(p + 4 * (size_t)i, 4) & 0x7fffffff) == 0;
    return zeros;
}

/* Where many numbers become zero, the old ones pruned alike are what the others count from: in w->ref. */
static enum skf_err begin_from_zeros(struct skf_work *w, struct skf_words *o, const struct skf_levels *l, struct skf_zeros *z)
{
    *z = (struct skf_zeros){.kind = SKF_ZEROS_NONE};
    if (!is_guessed(o->type) || zeros_in(o->neu, o->width, o->n) <= zeros_in(o->old, o->width, o->n) + o->n / SKF_ZEROS_SHARE)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->val, o->n * sizeof(uint32_t)));
    uint32_t *size = (uint32_t *)(void *)w->val.p;
    int32_t stay = sizes_of(o, size);
    SKF_TRY(skf_zeros_find(w, size, o->n, l->stripe, z));
    if (!z->kind)
        return SKF_OK;
    z->keeps_sign = stay > 0;
    SKF_TRY(skf_area_need(&w->ref, (size_t)o->n * o->width)); /* no more than it has, when the old numbers stand there */
    if (o->old != w->ref.p)
        memcpy(w->ref.p, o->old, (size_t)o->n * o->width);
    for (uint32_t k = 0; k < l->n; k++) {
        uint32_t begin = k * l->stripe, n = SKF_MIN(l->stripe, o->n - begin);
        skf_zeros_words(z, k, w->ref.p + (size_t)begin * o->width, o->width, n);
    }
    o->old = w->ref.p;
    return SKF_OK;
}

/* ---- coding ------------------------------------------------------------------------------------------------------ */
static inline __attribute__((always_inline)) int64_t diff_at(const struct skf_words *o, unsigned width, uint32_t i)
{
    const bool is_float = o->exponent_at != 0;
    uint64_t a = word_load(o->old + (size_t)i * width, width), b = word_load(o->neu + (size_t)i * width, width);
    return word_diff(word_in(a, width, is_float, o->shift), word_in(b, width, is_float, o->shift), width, o->shift);
}

static void syms_of_halves(struct skf_work *w, const struct skf_words *o, unsigned top, struct skf_bits_out *raw)
{
    const struct skf_loops *loops = skf_loops_of(w->isa);
    uint8_t *sym = w->sym.p;
    uint64_t mask[BLOCK / 64];
    for (uint32_t i = 0, m; i < o->n; i += m) {
        m = SKF_MIN(o->n - i, BLOCK);
        loops->sub(o->old + 2 * (size_t)i, o->neu + 2 * (size_t)i, sym + i, m, o->shift, word_small(top));
        loops->far(sym + i, mask, m, word_small(top));
        for (uint32_t k = 0; k < m; k += 64)
            for (uint64_t far = mask[k / 64]; far; far &= far - 1) {
                uint32_t at = i + k + (unsigned)__builtin_ctzll(far);
                sym[at] = word_put(raw, diff_at(o, 2, at), top);
            }
    }
}

static inline __attribute__((always_inline)) void make_syms(const struct skf_words *o, unsigned width, unsigned top,
                                                            uint8_t *sym, struct skf_bits_out *raw)
{
    for (uint32_t i = 0; i < o->n; i++)
        sym[i] = word_put(raw, diff_at(o, width, i), top);
}

/* Symbols of all differences in w->sym. */
static enum skf_err all_syms(struct skf_work *w, const struct skf_words *o, unsigned top, struct skf_bits_out *raw)
{
    SKF_TRY(skf_area_need(&w->sym, o->n));
    SKF_TRY(skf_raw_begin(w, o->n, o->width, raw));
#define SYMS(wd) make_syms(o, wd, top, w->sym.p, raw)
    if (is_halves(o))
        syms_of_halves(w, o, top, raw);
    else
        BY_WIDTH(o->width, SYMS)
    return SKF_OK;
}

/* How much each stripe's elements moved. */
static void measure(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l, double *move)
{
    const struct skf_loops *loops = skf_loops_of(w->isa);
    for (uint32_t k = 0; k < l->n; k++) {
        uint32_t begin = k * l->stripe, n = SKF_MIN(l->stripe, o->n - begin);
        double all = 0, still = 0;
        if (is_halves(o)) {
            float f_all, f_still;
            size_t at = 2 * (size_t)begin;
            loops->measure(o->old + at, o->neu + at, n, o->exponent_at, o->shift, &f_all, &f_still);
            all = f_all;
            still = f_still;
        }
        for (uint32_t i = begin; !is_halves(o) && i < begin + n; i++) {
            uint64_t a = word_load(o->old + (size_t)i * o->width, o->width);
            double unit = ldexp(1.0, word_scale(a, o->width, o->exponent_at) / 2 - 128);
            all += fabs((double)diff_at(o, o->width, i)) * unit;
            still += unit;
        }
        move[k] = (all + 0.25 * still / n) / n;
    }
}

/* So that the mean of all contexts is the middle. */
static void set_base(const struct skf_words *o, struct skf_levels *l)
{
    uint64_t scales = 0, seen = 0;
    double levels = 0;
    for (uint32_t i = 0; i < o->n; i += 3, seen++)
        scales += (unsigned)word_scale(word_load(o->old + (size_t)i * o->width, o->width), o->width, o->exponent_at);
    l->base = 0;
    for (uint32_t k = 0; k < l->n; k++)
        levels += (double)SKF_MIN(l->stripe, o->n - k * l->stripe) * skf_level_at(l, k);
    l->base = MIDDLE - (int)floor((double)scales / (double)seen + levels / o->n + 0.5);
}

/* Every so many stripes are looked at before levels are chosen. */
#define LOOK_EACH 4

/* What the symbols of some stripes take in the contexts of l, in bits; keys and symbols of these in w->part, *seen of
 * them. */
static enum skf_err look(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l, uint32_t *seen,
                         double *bits)
{
    const struct skf_loops *loops = skf_loops_of(w->isa);
    uint32_t some = 0;
    SKF_TRY(skf_area_need(&w->part, 2 * (size_t)o->n));
    uint8_t *sym = w->part.p, *key = sym + o->n;
    for (uint32_t k = 0; k < l->n; k += LOOK_EACH) {
        uint32_t at = k * l->stripe, n = SKF_MIN(l->stripe, o->n - at);
        memcpy(sym + some, w->sym.p + at, n);
        keys_of(loops, o, o->old + (size_t)at * o->width, skf_level_at(l, k), key + some, n);
        some += n;
    }
    *seen = some;
    return skf_syms_cost(w, &(struct skf_syms){sym, key, some}, bits);
}

/* Levels where they pay; contexts in w->key. */
static enum skf_err choose_levels(struct skf_work *w, const struct skf_words *o, struct skf_levels *l)
{
    double with, without, side;
    uint32_t seen;
    set_base(o, l);
    if (l->n == 1)
        return keys(w, o, l);
    SKF_TRY(look(w, o, l, &seen, &without));
    SKF_TRY(skf_area_need(&w->val, l->n * sizeof(double)));
    double *move = (double *)(void *)w->val.p;
    measure(w, o, l, move);
    struct skf_levels try = *l;
    SKF_TRY(skf_levels_make(w, move, &try));
    SKF_TRY(skf_levels_cost(w, &try, &side));
    set_base(o, &try);
    SKF_TRY(look(w, o, &try, &seen, &with));
    if (with + side / LOOK_EACH < without)
        *l = try;
    return keys(w, o, l);
}

/* Whether symbols of WORD_TOP_WIDE, which w->sym has, take less than those of WORD_TOP. */
static enum skf_err is_wide_less(struct skf_work *w, const struct skf_words *o, const struct skf_levels *l, bool *is)
{
    uint32_t n, set = 0;
    double wide, less;
    uint64_t raw = 0;
    for (uint32_t i = 0; i < o->n; i++)
        set += w->sym.p[i] != 0;
    *is = false;
    if (set < o->n / 8) /* sparse, or nearly */
        return SKF_OK;
    SKF_TRY(look(w, o, l, &n, &wide));
    uint8_t fold[256], bits[256] = {0}, *sym = w->part.p;
    for (unsigned i = 0; i < 256; i++) {
        unsigned m = (i + 1) / 2, k = 31 - (unsigned)__builtin_clz(m | 1);
        bool is_far = i >= word_small(WORD_TOP), is_mine = is_far && i < word_small(WORD_TOP_WIDE);
        bits[i] = (uint8_t)(is_mine ? k : 0);
        fold[i] = (uint8_t)(is_mine ? word_small(WORD_TOP) + 2 * (k - WORD_TOP) + (m >> (k - 1) & 1) : i);
    }
    for (uint32_t i = 0; i < n; i++) {
        raw += bits[sym[i]];
        sym[i] = fold[sym[i]];
    }
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){sym, sym + o->n, n}, &less));
    *is = wide < less + (double)raw;
    return SKF_OK;
}

enum skf_err skf_words_put(struct skf_work *w, const struct skf_words *given, struct skf_buf *out)
{
    struct skf_words mine = *given, *o = &mine;
    struct skf_levels l;
    struct skf_bits_out raw;
    uint8_t form;
    bool is_sparse = false, is_wide;
    SKF_TRY(narrow(w, o, &form));
    SKF_TRY(skf_buf_u8(out, form));
    open_levels(o, &l);
    struct skf_factors f = factors_of(o, &l);
    struct skf_zeros z;
    SKF_TRY(begin_from_zeros(w, o, &l, &z));
    if (!z.kind)
        SKF_TRY(choose_guess(w, o, &f));
    SKF_TRY(skf_factors_put(w, &f, out));
    SKF_TRY(begin_from_guess(w, &f, o));
    if (z.kind)
        SKF_TRY(skf_zeros_put(&z, l.n, out));
    SKF_TRY(all_syms(w, o, WORD_TOP_WIDE, &raw));
    SKF_TRY(choose_levels(w, o, &l));
    SKF_TRY(skf_levels_put(w, &l, out));
    SKF_TRY(is_wide_less(w, o, &l, &is_wide));
    if (!is_wide) {
        SKF_TRY(all_syms(w, o, WORD_TOP, &raw));
        SKF_TRY(skf_sparse_pays(w, o->n, 8.0 * (double)(raw.p - w->raw.p), &is_sparse));
    }
    SKF_TRY(skf_buf_u8(out, is_sparse ? MODE_SPARSE : is_wide ? MODE_DENSE_WIDE : MODE_DENSE));
    if (is_sparse)
        return skf_sparse_put(w, o, out);
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->key.p, o->n}, out));
    return skf_raw_put(w, &raw, out);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */
struct decoding {
    const struct skf_words *given; /* as the chunk lies */
    struct skf_words o;            /* as words of the form: o.neu is where they come to stand */
    const struct skf_loops *loops;
    struct skf_levels l;
    struct skf_factors f;
    struct skf_zeros z;
    unsigned top;        /* of the buckets */
    const uint8_t *base; /* what differences count from: the old words, or o.neu */
    uint32_t done;       /* elements whose base and contexts are there */
};

/* The next elements of one stripe, at most BLOCK: what their differences count from, and their contexts. Returns how
 * many. */
static uint32_t begin(struct decoding *c, uint8_t *key)
{
    struct skf_words *o = &c->o;
    uint32_t i = c->done, k = i / c->l.stripe, end = SKF_MIN(o->n, (k + 1) * c->l.stripe), n = SKF_MIN(end - i, BLOCK);
    const uint8_t *from = o->old + (size_t)i * c->given->width;
    uint8_t *to = o->neu + (size_t)i * o->width;
    bool is_other = o->type != c->given->type;
    if (is_other)
        bf16_of(c->loops, c->given->type, from, to, n);
    if (c->f.rank) /* n is a row */
        guess_row(&c->f, o->type, k, is_other ? to : from, to, n);
    else if (!is_other && c->base == o->neu)
        memcpy(to, from, (size_t)n * o->width);
    if (c->z.kind)
        skf_zeros_words(&c->z, k, to, o->width, n);
    keys_of(c->loops, o, c->base + (size_t)i * o->width, skf_level_at(&c->l, k), key, n);
    c->done += n;
    return n;
}

/* n words from place `at` on are what they shall be. */
static void finish(const struct decoding *c, uint32_t at, uint32_t n)
{
    if (c->o.type != c->given->type)
        of_bf16(c->loops, c->given->type, c->o.neu + 2 * (size_t)at, c->given->neu + (size_t)at * c->given->width, n);
}

/* First as if every symbol were the whole difference, all alike and so in vectors; then those that are not. */
static inline __attribute__((always_inline)) void
add_small(const struct skf_words *o, unsigned width, const uint8_t *base, const uint8_t *sym, uint8_t *neu, uint32_t n)
{
    const bool is_float = o->exponent_at != 0;
    const unsigned shift = o->shift;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t a = word_in(word_load(base + (size_t)i * width, width), width, is_float, shift);
        word_store(neu + (size_t)i * width, word_out(a + (uint64_t)skf_unzigzag(sym[i]), width, is_float, shift),
                   width);
    }
}

static inline __attribute__((always_inline)) bool add_far(const struct skf_words *o, unsigned width, unsigned top,
                                                          const uint64_t *mask, const uint8_t *sym, uint8_t *neu,
                                                          uint32_t n, struct word_bits *raw)
{
    const bool is_float = o->exponent_at != 0;
    const unsigned shift = o->shift;
    for (uint32_t k = 0; k < n; k += 64)
        for (uint64_t m = mask[k / 64]; m; m &= m - 1) {
            uint32_t i = k + (unsigned)__builtin_ctzll(m);
            uint8_t *p = neu + (size_t)i * width;
            int64_t d;
            if (!word_far(raw, sym[i], width, top, &d))
                return false;
            uint64_t a = word_in(word_load(p, width), width, is_float,
                                 shift); /* the old number may be gone: this is beside it */
            word_store(p, word_out(a - (uint64_t)skf_unzigzag(sym[i]) + (uint64_t)d, width, is_float, shift), width);
        }
    return true;
}

static bool add(const struct decoding *c, const uint8_t *base, const uint8_t *sym, uint8_t *neu, uint32_t n,
                struct word_bits *raw)
{
    uint64_t mask[2 * BLOCK / 64];
    bool is_whole = false;
    c->loops->far(sym, mask, n, word_small(c->top));
#define ADD_SMALL(wd) add_small(&c->o, wd, base, sym, neu, n)
#define ADD_FAR(wd)   is_whole = add_far(&c->o, wd, c->top, mask, sym, neu, n, raw)
    if (is_halves(&c->o))
        c->loops->add(base, sym, neu, n, c->o.shift);
    else
        BY_WIDTH(c->o.width, ADD_SMALL)
    BY_WIDTH(c->o.width, ADD_FAR)
    return is_whole;
}

/* Symbols come in multiples of RANS_MOST, contexts in rows: what they leave over waits for the next. */
static enum skf_err get_dense(struct skf_work *w, struct skf_reader *r, struct decoding *c)
{
    struct skf_words *o = &c->o;
    struct skf_syms_in in;
    struct word_bits raw;
    SKF_TRY(skf_area_need(&w->key, 2 * BLOCK));
    SKF_TRY(skf_area_need(&w->sym, 2 * BLOCK));
    SKF_TRY(skf_syms_begin(w, &w->tables, r, o->n, &in));
    SKF_TRY(skf_word_bits(r, &raw));
    uint8_t *key = w->key.p, *sym = w->sym.p;
    for (uint32_t at = 0, n, ready = 0; at < o->n; at += n, ready -= n) {
        while (c->done < o->n && ready < BLOCK)
            ready += begin(c, key + ready);
        n = c->done == o->n ? ready : ready & ~(RANS_MOST - 1u);
        SKF_TRY(skf_syms_some(&in, sym, key, n));
        if (!add(c, c->base + (size_t)at * o->width, sym, o->neu + (size_t)at * o->width, n, &raw))
            return SKF_ERR_FORMAT;
        finish(c, at, n);
        memmove(key, key + n, ready - n);
    }
    return word_is_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}

static enum skf_err get_sparse(struct skf_work *w, struct skf_reader *r, struct decoding *c)
{
    SKF_TRY(skf_area_need(&w->key, c->o.n));
    while (c->done < c->o.n)
        (void)begin(c, w->key.p + c->done);
    SKF_TRY(skf_sparse_get(w, r, &c->o));
    finish(c, 0, c->o.n);
    return SKF_OK;
}

static enum skf_err get_form(struct skf_reader *r, struct skf_words *o)
{
    uint8_t form;
    SKF_TRY(skf_get_u8(r, &form));
    if (form > (FORM_BF16 | FORM_SHIFT) || ((form & FORM_BF16) && !may_be_bf16(o->type)))
        return SKF_ERR_FORMAT;
    if (form & FORM_BF16)
        make_bf16(o);
    o->shift = form & FORM_SHIFT;
    return o->shift < 8 * o->width ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err skf_words_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *given)
{
    struct decoding c = {.given = given, .o = *given, .loops = skf_loops_of(w->isa)};
    struct skf_words *o = &c.o;
    uint8_t mode;
    SKF_TRY(get_form(r, o));
    open_levels(o, &c.l);
    c.f = factors_of(o, &c.l);
    SKF_TRY(skf_factors_get(w, r, &c.f));
    if (!c.f.rank && is_guessed(o->type))
        SKF_TRY(skf_zeros_get(w, r, c.l.n, &c.z));
    if (c.z.is_on_grid)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_levels_get(w, r, &c.l));
    SKF_TRY(skf_get_u8(r, &mode));
    if (mode >= MODE_COUNT)
        return SKF_ERR_FORMAT;
    if (o->type != given->type && given->type == SKF_T_F32) {
        SKF_TRY(skf_area_need(&w->ref, 2 * (size_t)o->n));
        o->neu = w->ref.p;
    }
    c.top = mode == MODE_DENSE_WIDE ? WORD_TOP_WIDE : WORD_TOP;
    c.base = o->type != given->type || c.f.rank || c.z.kind || mode == MODE_SPARSE ? o->neu : o->old;
    return mode == MODE_SPARSE ? get_sparse(w, r, &c) : get_dense(w, r, &c);
}
