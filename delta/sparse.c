/*
 * Words of which few change: where those lie, and by how much they changed.
 *
 * Contexts that change about as often make a run, and in each run the elements between two changes are counted: a gap
 * is a Golomb code, whose parameter fits the run, so a change costs what its place says at the entropy and what stays
 * costs nothing.  A run whose elements nearly all change lists them all; one in which none does is left out.
 *
 *   u8 runs - 1 (at most RUNS_MAX - 1), then for each run:
 *     u8 last context, above that of the run before; the last run's is SKF_CONTEXTS - 1;
 *     varint m: 0 none of them changes, 1 all are listed, otherwise the Golomb parameter is m - 1, and
 *     varint changes (at least 1) and a string of gaps follow.
 *   u8 how: 0 every difference is 1 or -1, and a string of bits says which are negative; 1 symbols, then a raw string.
 */
#include <math.h>

#include "delta/words_priv.h"

#define RUNS_MAX 8
#define RUN_BITS 40 /* about what a run takes in front of its gaps */
/* Beyond that, what symbols of few and of all words take by their states and tables; 6 in a hundred are for speed. */
#define SPARSE_BITS   300
#define DENSE_BITS    1200
#define LISTED_BITS   0.03 /* what an element that is listed must earn, for the time that it takes */
#define PARAMETER_MAX (1u << 20)
#define LISTED_SHARE  4 /* at most n / LISTED_SHARE elements are listed: what a reader makes room for */

enum { HOW_SIGNS, HOW_SYMBOLS, HOW_COUNT };

struct run {
    unsigned last;     /* its highest context */
    uint32_t m, count; /* as in the payload */
    struct word_bits gaps;
    uint64_t next; /* which of its elements changes next; UINT64_MAX: none */
    uint64_t seen; /* its elements so far */
};
struct sparse {
    struct run run[RUNS_MAX];
    unsigned n;
};

/* ---- Golomb codes ------------------------------------------------------------------------------------------------ */
/* The quotient in ones and a zero; the rest in as many bits as it needs, one less where it is below `short_of`. */
struct golomb {
    uint32_t m, short_of;
    unsigned bits; /* of the longer rests */
};
static struct golomb golomb_of(uint32_t m)
{
    unsigned bits = m > 1 ? 32 - (unsigned)__builtin_clz(m - 1) : 0;
    return (struct golomb){m, (uint32_t)((1ull << bits) - m), bits};
}

static void golomb_put(struct skf_bits_out *b, struct golomb g, uint32_t v)
{
    uint32_t q = v / g.m, rest = v % g.m;
    for (; q >= 32; q -= 32)
        skf_bits_put(b, UINT32_MAX, 32);
    skf_bits_put(b, (1ull << q) - 1, q + 1);
    if (g.bits == 0)
        return;
    if (rest < g.short_of) {
        skf_bits_put(b, rest, g.bits - 1);
    } else {
        rest += g.short_of;
        skf_bits_put(b, rest >> 1, g.bits - 1);
        skf_bits_put(b, rest & 1, 1);
    }
}

static bool golomb_get(struct word_bits *b, struct golomb g, uint64_t *v)
{
    uint64_t q = 0, low, high;
    for (;;) {
        unsigned ones = (unsigned)__builtin_ctzll(~word_peek(b) | 1ull << 56);
        if (ones >= b->end - b->at)
            return false;
        q += ones;
        b->at += ones;
        if (ones < 56)
            break;
    }
    b->at++;
    *v = q * g.m; /* below 2^23 quotients, in a payload that is no longer than a chunk */
    if (g.bits == 0)
        return true;
    if (!word_take(b, g.bits - 1, &low))
        return false;
    if (low >= g.short_of) {
        if (!word_take(b, 1, &high))
            return false;
        low = (low << 1 | high) - g.short_of;
    }
    *v += low;
    return true;
}

/* ---- choosing runs ----------------------------------------------------------------------------------------------- */
struct counts {
    uint32_t all[SKF_CONTEXTS], set[SKF_CONTEXTS];
    uint32_t sym[256]; /* of all that changes */
};

static double log2_of(double a, double b)
{
    return a > 0 && b > 0 ? a * log2(b / a) : 0;
}

/* What is best for the contexts first..last as one run, in bits; and its parameter. */
static double run_cost(const struct counts *c, unsigned first, unsigned last, uint32_t *m)
{
    double all = 0, set = 0, listed = 0;
    for (unsigned k = first; k <= last; k++) {
        double n = c->all[k], x = c->set[k];
        all += n;
        set += x;
        listed += log2_of(x, n) + log2_of(n - x, n) + n * LISTED_BITS + (n > 0 ? 12 : 0);
    }
    *m = 0;
    if (set == 0)
        return 16;
    double gaps = (log2_of(set, all) + log2_of(all - set, all)) * 1.004 + RUN_BITS;
    double parameter = set < all ? -M_LN2 / log1p(-set / all) : 1;
    if (listed < gaps) {
        *m = 1;
        return listed;
    }
    *m = 1 + (uint32_t)fmax(1, fmin(PARAMETER_MAX, floor(parameter + 0.5)));
    return gaps;
}

/* The best division of all contexts; returns what it takes, in bits. */
static double choose_runs(const struct counts *c, struct sparse *s)
{
    double best[RUNS_MAX + 1][SKF_CONTEXTS];
    uint8_t from[RUNS_MAX + 1][SKF_CONTEXTS];
    uint32_t m;
    unsigned runs = 1;
    for (unsigned last = 0; last < SKF_CONTEXTS; last++) {
        best[1][last] = run_cost(c, 0, last, &m);
        from[1][last] = 0;
        for (unsigned r = 2; r <= RUNS_MAX; r++)
            best[r][last] = INFINITY;
    }
    for (unsigned first = 1; first < SKF_CONTEXTS; first++)
        for (unsigned last = first; last < SKF_CONTEXTS; last++) {
            double own = run_cost(c, first, last, &m);
            for (unsigned r = 2; r <= RUNS_MAX; r++)
                if (best[r - 1][first - 1] + own < best[r][last]) {
                    best[r][last] = best[r - 1][first - 1] + own;
                    from[r][last] = (uint8_t)first;
                }
        }
    for (unsigned r = 2; r <= RUNS_MAX; r++)
        if (best[r][SKF_CONTEXTS - 1] < best[runs][SKF_CONTEXTS - 1])
            runs = r;
    double bits = best[runs][SKF_CONTEXTS - 1];
    s->n = runs;
    for (unsigned r = runs, last = SKF_CONTEXTS - 1; r; r--) {
        struct run *x = &s->run[r - 1];
        unsigned first = from[r][last];
        *x = (struct run){.last = last};
        (void)run_cost(c, first, last, &x->m);
        for (unsigned k = first; k <= last; k++)
            x->count += c->set[k];
        last = first - 1;
    }
    return bits;
}

/* Elements that are listed one by one, whether they change or not, and those that change in other runs. */
static uint64_t listed_of(const struct sparse *s, const uint32_t *all)
{
    uint64_t n = 0;
    for (unsigned r = 0, k = 0; r < s->n; r++)
        for (; k <= s->run[r].last; k++)
            n += s->run[r].m == 1 ? all[k] : 0;
    for (unsigned r = 0; r < s->n; r++)
        n += s->run[r].m > 1 ? s->run[r].count : 0;
    return n;
}

static void count(const struct skf_work *w, uint32_t n, struct counts *c)
{
    const uint8_t *sym = w->sym.p, *key = w->key.p;
    memset(c, 0, sizeof *c);
    for (uint32_t i = 0; i < n; i++)
        c->all[key[i]]++;
    for (uint32_t i = 0; i < n; i++) {
        if (n - i >= 8 && !skf_le64(sym + i)) {
            i += 7;
            continue;
        }
        c->set[key[i]] += sym[i] != 0;
        c->sym[sym[i]] += sym[i] != 0;
    }
}

enum skf_err skf_sparse_pays(struct skf_work *w, uint32_t n, double raw, bool *pays)
{
    struct counts c;
    struct sparse s;
    uint32_t set = 0;
    double bits = 0, dense;
    *pays = false;
    for (uint32_t i = 0; i < n; i++)
        set += w->sym.p[i] != 0;
    if (set > n / (2 * LISTED_SHARE))
        return SKF_OK;
    SKF_TRY(skf_syms_cost(w, &(struct skf_syms){w->sym.p, w->key.p, n}, &dense));
    count(w, n, &c);
    bits = choose_runs(&c, &s);
    for (unsigned k = 0; k < 256; k++) /* sign and rest of those that are not small follow their symbol */
        bits += log2_of(c.sym[k], set) + (k >= SKF_SMALL ? c.sym[k] * (3.0 + (k - SKF_SMALL) / 2) : 0);
    *pays = listed_of(&s, c.all) <= n / LISTED_SHARE && bits + SPARSE_BITS < (dense + raw + DENSE_BITS) * 1.06;
    return SKF_OK;
}

/* ---- coding ------------------------------------------------------------------------------------------------------ */
/* Bits set; without an instruction for it the compiler would call a function. */
static inline unsigned ones_of(uint64_t m)
{
    m -= m >> 1 & 0x5555555555555555u;
    m = (m & 0x3333333333333333u) + (m >> 2 & 0x3333333333333333u);
    return (unsigned)(((m + (m >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

/* Which of eight keys are above `last`, a bit each. */
static inline uint64_t above(uint64_t keys, unsigned last)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t t = (keys + (127 - last) * each) >> 7 & each; /* keys are below 48 */
    return t * 0x0102040810204080u >> 56;
}

/* Which of 64 keys are above `last`. */
static uint64_t mask_above(const uint8_t *key, unsigned last)
{
    uint64_t m = 0;
    for (unsigned i = 0; i < 8; i++)
        m |= above(skf_le64(key + 8 * i), last) << 8 * i;
    return m;
}

/* Which of 64 symbols are not 0. */
static uint64_t mask_set(const uint8_t *sym)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t m = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t x = skf_le64(sym + 8 * i);
        x = (((x & 127 * each) + 127 * each) | x) >> 7 & each;
        m |= (x * 0x0102040810204080u >> 56) << 8 * i;
    }
    return m;
}

static unsigned run_of(const struct sparse *s, uint8_t key)
{
    unsigned r = 0;
    while (key > s->run[r].last)
        r++;
    return r;
}

/* The gaps of run r. */
static enum skf_err put_gaps(struct skf_work *w, const struct sparse *s, unsigned r, uint32_t n, struct skf_buf *out)
{
    struct skf_bits_out b;
    struct golomb g = golomb_of(s->run[r].m - 1);
    uint32_t gap = 0; /* elements of the run since the last that changed */
    SKF_TRY(skf_put_varint(out, s->run[r].count));
    /* A gap takes a bit and its rest; all quotients together come to at most n. */
    SKF_TRY(skf_area_need(&w->raw, ((uint64_t)s->run[r].count * (g.bits + 1) + n) / 8 + 32));
    b = (struct skf_bits_out){.p = w->raw.p};
    for (uint32_t i = 0; i < n; i += 64) {
        uint8_t pad[64] = {0}, sym[64] = {0};
        uint32_t some = SKF_MIN(n - i, 64u);
        const uint8_t *key = some < 64 ? memcpy(pad, w->key.p + i, some) : w->key.p + i;
        memcpy(sym, w->sym.p + i, some);
        uint64_t in = some < 64 ? (1ull << some) - 1 : UINT64_MAX;
        if (r + 1 < s->n)
            in &= ~mask_above(key, s->run[r].last);
        if (r)
            in &= mask_above(key, s->run[r - 1].last);
        for (uint64_t set = in & mask_set(sym); set; set &= set - 1) {
            uint64_t upto = set ^ (set - 1); /* this one and all before it */
            golomb_put(&b, g, gap + ones_of(in & upto) - 1);
            gap = 0;
            in &= ~upto;
        }
        gap += ones_of(in);
    }
    return skf_raw_put(w, &b, out);
}

static inline int64_t diff_of(const struct skf_words *o, uint32_t i)
{
    uint64_t a = word_load(o->old + (size_t)i * o->width, o->width),
             b = word_load(o->neu + (size_t)i * o->width, o->width);
    bool is_float = o->exponent_at != 0;
    return word_diff(word_in(a, o->width, is_float, o->shift), word_in(b, o->width, is_float, o->shift), o->width,
                     o->shift);
}

static enum skf_err put_signs(struct skf_work *w, uint32_t n, uint32_t listed, struct skf_buf *out)
{
    struct skf_bits_out b;
    SKF_TRY(skf_raw_begin(w, listed / 8 + 1, 1, &b));
    for (uint32_t i = 0; i < n; i++)
        if (w->sym.p[i])
            skf_bits_put(&b, w->sym.p[i] & 1, 1);
    return skf_raw_put(w, &b, out);
}

enum skf_err skf_sparse_put(struct skf_work *w, const struct skf_words *o, struct skf_buf *out)
{
    struct counts c;
    struct sparse s;
    struct skf_bits_out raw;
    uint8_t *sym = w->sym.p, *key = w->key.p;
    count(w, o->n, &c);
    (void)choose_runs(&c, &s);
    uint32_t listed = (uint32_t)listed_of(&s, c.all), k = 0;
    bool is_unit = true;
    SKF_TRY(skf_buf_u8(out, (uint8_t)(s.n - 1)));
    for (unsigned r = 0; r < s.n; r++) {
        SKF_TRY(skf_buf_u8(out, (uint8_t)s.run[r].last));
        SKF_TRY(skf_put_varint(out, s.run[r].m));
        if (s.run[r].m > 1)
            SKF_TRY(put_gaps(w, &s, r, o->n, out));
        is_unit = is_unit && s.run[r].m != 1;
    }
    for (unsigned i = 3; i < 256; i++)
        is_unit = is_unit && !c.sym[i];
    SKF_TRY(skf_buf_u8(out, is_unit ? HOW_SIGNS : HOW_SYMBOLS));
    if (is_unit)
        return put_signs(w, o->n, listed, out);
    SKF_TRY(skf_raw_begin(w, listed, o->width, &raw));
    bool has_whole = false; /* a run that is listed whole, its zeros too */
    for (unsigned r = 0; r < s.n; r++)
        has_whole = has_whole || s.run[r].m == 1;
    for (uint32_t i = 0; i < o->n; i++) { /* closed up in place */
        if (!has_whole && o->n - i >= 8 && !skf_le64(sym + i)) {
            i += 7;
            continue;
        }
        if (!sym[i] && s.run[run_of(&s, key[i])].m != 1)
            continue;
        key[k] = key[i];
        sym[k++] = word_put(&raw, sym[i] ? diff_of(o, i) : 0, WORD_TOP);
    }
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){sym, key, listed}, out));
    return skf_raw_put(w, &raw, out);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */
static enum skf_err get_runs(struct skf_reader *r, uint32_t n, struct sparse *s)
{
    uint8_t runs, last;
    uint64_t m, changes;
    SKF_TRY(skf_get_u8(r, &runs));
    if (runs >= RUNS_MAX)
        return SKF_ERR_FORMAT;
    s->n = runs + 1u;
    for (unsigned i = 0; i < s->n; i++) {
        SKF_TRY(skf_get_u8(r, &last));
        SKF_TRY(skf_get_varint(r, &m));
        if (last >= SKF_CONTEXTS || (i && last <= s->run[i - 1].last) || m > PARAMETER_MAX + 1)
            return SKF_ERR_FORMAT;
        s->run[i] = (struct run){.last = last, .m = (uint32_t)m, .next = UINT64_MAX};
        if (m <= 1)
            continue;
        SKF_TRY(skf_get_varint(r, &changes));
        if (changes == 0 || changes > n / LISTED_SHARE)
            return SKF_ERR_FORMAT;
        s->run[i].count = (uint32_t)changes;
        SKF_TRY(skf_word_bits(r, &s->run[i].gaps));
    }
    return s->run[s->n - 1].last == SKF_CONTEXTS - 1 ? SKF_OK : SKF_ERR_FORMAT;
}

/* The place of the k-th set bit of m, which has more than k. */
static inline unsigned select_bit(uint64_t m, unsigned k)
{
    while (k--)
        m &= m - 1;
    return (unsigned)__builtin_ctzll(m);
}

static bool next_gap(struct run *x)
{
    uint64_t gap;
    if (x->count == 0) {
        x->next = UINT64_MAX;
        return true;
    }
    if (!golomb_get(&x->gaps, golomb_of(x->m - 1), &gap))
        return false;
    x->next = (x->next == UINT64_MAX ? 0 : x->next + 1) + gap; /* at most 2^20 times less than 2^44 */
    x->count--;
    return true;
}

/* Elements of this run among 64, `in`, that are listed. */
static inline bool take_run(struct run *x, uint64_t in, uint64_t *listed)
{
    unsigned n = ones_of(in);
    *listed = x->m == 1 ? in : 0;
    while (x->next < x->seen + n) {
        *listed |= 1ull << select_bit(in, (unsigned)(x->next - x->seen));
        if (!next_gap(x))
            return false;
    }
    x->seen += n;
    return true;
}

/* Places of all listed elements, in w->val as u32, in order. */
static enum skf_err place(struct skf_work *w, struct sparse *s, uint32_t n, uint32_t *listed)
{
    uint32_t k = 0, most = n / LISTED_SHARE;
    SKF_TRY(skf_area_need(&w->val, (size_t)most * sizeof(uint32_t)));
    uint32_t *at = (uint32_t *)(void *)w->val.p;
    for (unsigned r = 0; r < s->n; r++)
        if (s->run[r].m > 1 && !next_gap(&s->run[r]))
            return SKF_ERR_FORMAT;
    for (uint32_t i = 0; i < n; i += 64) {
        uint8_t pad[64] = {0};
        const uint8_t *key = w->key.p + i;
        uint64_t all = n - i < 64 ? (1ull << (n - i)) - 1 : UINT64_MAX, left = all, set = 0, some;
        if (n - i < 64)
            key = memcpy(pad, key, n - i);
        for (unsigned r = 0; r < s->n; r++) {
            uint64_t rest = r + 1 < s->n ? mask_above(key, s->run[r].last) & all : 0;
            if (!take_run(&s->run[r], left & ~rest, &some))
                return SKF_ERR_FORMAT;
            set |= some;
            left = rest;
        }
        if (ones_of(set) > most - k)
            return SKF_ERR_FORMAT;
        for (; set; set &= set - 1)
            at[k++] = i + (unsigned)__builtin_ctzll(set);
    }
    for (unsigned r = 0; r < s->n; r++)
        if (s->run[r].next != UINT64_MAX || (s->run[r].m > 1 && !word_is_done(&s->run[r].gaps)))
            return SKF_ERR_FORMAT;
    *listed = k;
    return SKF_OK;
}

static inline __attribute__((always_inline)) bool change(const struct skf_words *o, unsigned width, const uint32_t *at,
                                                         const uint8_t *sym, uint32_t n, struct word_bits *raw)
{
    const bool is_float = o->exponent_at != 0;
    for (uint32_t k = 0; k < n; k++) {
        int64_t d = skf_unzigzag(sym[k]);
        uint8_t *p = o->neu + (size_t)at[k] * width;
        if (sym[k] >= SKF_SMALL && !word_far(raw, sym[k], width, WORD_TOP, &d))
            return false;
        uint64_t a = word_in(word_load(p, width), width, is_float, o->shift);
        word_store(p, word_out(a + (uint64_t)d, width, is_float, o->shift), width);
    }
    return true;
}

enum skf_err skf_sparse_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *o)
{
    struct sparse s;
    struct word_bits raw;
    uint32_t listed;
    uint8_t how;
    bool is_whole = false;
    SKF_TRY(get_runs(r, o->n, &s));
    SKF_TRY(place(w, &s, o->n, &listed));
    const uint32_t *at = (const uint32_t *)(const void *)w->val.p;
    SKF_TRY(skf_area_need(&w->sym, listed));
    SKF_TRY(skf_area_need(&w->symkey, listed));
    SKF_TRY(skf_get_u8(r, &how));
    if (how >= HOW_COUNT)
        return SKF_ERR_FORMAT;
    if (how == HOW_SIGNS) {
        uint64_t bit = 0;
        SKF_TRY(skf_word_bits(r, &raw));
        for (uint32_t k = 0; k < listed; k++) {
            if (!word_take(&raw, 1, &bit))
                return SKF_ERR_FORMAT;
            w->sym.p[k] = (uint8_t)(2 - bit);
        }
    } else {
        for (uint32_t k = 0; k < listed; k++)
            w->symkey.p[k] = w->key.p[at[k]];
        SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->symkey.p, listed}));
        SKF_TRY(skf_word_bits(r, &raw));
    }
#define CHANGE(wd) is_whole = change(o, wd, at, w->sym.p, listed, &raw)
    BY_WIDTH(o->width, CHANGE)
    return is_whole && word_is_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}
