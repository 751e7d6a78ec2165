/* Interleaved rANS (rans_priv.h): tables from counts, the encoder, and the decoder that every machine has. */
#include "delta/rans_priv.h"

#include <math.h>
#include <string.h>

#define KINDS 256
/* Bits that a table takes beyond its frequencies, and a guess at those of each symbol: what sharing a table saves. */
#define TABLE_BITS 12
#define FREQ_BITS 9
/* Payloads under this many bytes are not worth the states of many lanes. */
#define MANY_BYTES 3000

enum { TABLE_NONE, TABLE_SAME, TABLE_NEW };

struct tables { /* of the encoder */
    uint32_t count[SKF_CONTEXTS][KINDS];
    uint16_t freq[SKF_CONTEXTS][KINDS], start[SKF_CONTEXTS][KINDS];
    uint8_t kind[SKF_CONTEXTS];
};

/* Bits that symbols of these counts take at their entropy. */
static double cost_of(const uint32_t *count, unsigned *used)
{
    double bits = 0, sum = 0;
    *used = 0;
    for (unsigned i = 0; i < KINDS; i++) {
        if (!count[i])
            continue;
        sum += count[i];
        bits -= count[i] * log2(count[i]);
        (*used)++;
    }
    return sum > 0 ? bits + sum * log2(sum) : 0;
}

/* Which contexts share the table of the one before them: `count` of the first of each run becomes the run's. Returns the bits
 * that all symbols will take. */
static double share_tables(struct tables *t)
{
    double all = 0, head_cost = 0;
    int head = -1;
    uint32_t sum[KINDS];
    for (int c = 0; c < SKF_CONTEXTS; c++) {
        unsigned used, together;
        double own = cost_of(t->count[c], &used);
        t->kind[c] = TABLE_NONE;
        if (!used)
            continue;
        t->kind[c] = TABLE_NEW;
        if (head >= 0) {
            for (unsigned i = 0; i < KINDS; i++)
                sum[i] = t->count[head][i] + t->count[c][i];
            double joint = cost_of(sum, &together);
            if (joint <= head_cost + own + TABLE_BITS + FREQ_BITS * used) {
                all += joint - head_cost;
                head_cost = joint;
                memcpy(t->count[head], sum, sizeof sum);
                t->kind[c] = TABLE_SAME;
                continue;
            }
        }
        head = c;
        head_cost = own;
        all += own + TABLE_BITS + FREQ_BITS * used;
    }
    return all;
}

/* Frequencies that come to 2^bits, none of a symbol that occurs 0. */
static void normalize(const uint32_t *count, uint16_t *freq, unsigned bits)
{
    uint64_t sum = 0;
    int32_t left = 1 << bits;
    for (unsigned i = 0; i < KINDS; i++)
        sum += count[i];
    for (unsigned i = 0; i < KINDS; i++) {
        uint64_t f = (((uint64_t)count[i] << bits) + sum / 2) / sum;
        freq[i] = (uint16_t)(count[i] && f == 0 ? 1 : f);
        left -= freq[i];
    }
    while (left != 0) { /* the commonest bear the difference: it costs least there */
        unsigned most = 0;
        for (unsigned i = 1; i < KINDS; i++)
            if (freq[i] > freq[most])
                most = i;
        int32_t step = left > 0 ? left : left < -(freq[most] / 4) ? -(freq[most] / 4) : left;
        if (step == 0)
            step = -1;
        freq[most] = (uint16_t)(freq[most] + step);
        left -= step;
    }
}

static unsigned bit_length(uint32_t v) { return v ? 32 - (unsigned)__builtin_clz(v) : 0; }

/* A table: its last symbol, then for each up to it 4 bits of length and the frequency below its highest bit; a length of 0 is
 * followed by 4 bits: how many more zeros. */
static void put_table(struct skf_bits_out *b, const uint16_t *freq)
{
    unsigned last = KINDS - 1;
    while (!freq[last])
        last--;
    skf_bits_put(b, last, 8);
    for (unsigned i = 0; i <= last; i++) {
        unsigned len = bit_length(freq[i]), run = 0;
        skf_bits_put(b, len, 4);
        if (len) {
            skf_bits_put(b, freq[i] - (1u << (len - 1)), len - 1);
            continue;
        }
        while (run < 15 && !freq[i + 1]) {
            run++;
            i++;
        }
        skf_bits_put(b, run, 4);
    }
}

static bool get_freq(struct skf_bits_in *b, unsigned left, unsigned *freq, unsigned *zeros)
{
    uint64_t len, v;
    *freq = *zeros = 0;
    if (!skf_bits_get(b, 4, &len) || len > RANS_BITS_MAX + 1)
        return false;
    if (len == 0) {
        if (!skf_bits_get(b, 4, &v))
            return false;
        *zeros = (unsigned)v;
        return true;
    }
    if (!skf_bits_get(b, (unsigned)len - 1, &v))
        return false;
    *freq = (1u << (len - 1)) + (unsigned)v;
    return *freq <= left;
}

static bool get_table(struct skf_bits_in *b, unsigned bits, uint32_t *entries)
{
    uint64_t last;
    unsigned at = 0, size = 1u << bits, freq, zeros;
    if (!skf_bits_get(b, 8, &last))
        return false;
    for (unsigned i = 0; i <= last; i++) {
        if (!get_freq(b, size - at, &freq, &zeros))
            return false;
        for (unsigned k = 0; k < freq; k++)
            entries[at + k] = RANS_ENTRY(i, freq, k);
        at += freq;
        i += zeros;
        if (freq == 0 && i >= last)
            return false; /* the last symbol is one that occurs */
    }
    return at == size;
}

/* Bits that the table of these frequencies takes, and its symbols by it. */
static double table_cost(const uint32_t *count, const uint16_t *freq, unsigned bits)
{
    uint8_t packed[KINDS * 2 + 16];
    struct skf_bits_out b = {.p = packed};
    double cost = 0;
    put_table(&b, freq);
    for (unsigned i = 0; i < KINDS; i++)
        if (count[i])
            cost += count[i] * (bits - log2(freq[i]));
    return cost + 8.0 * (double)(b.p - packed) + b.have;
}

/* The precision at which tables and symbols together take least: tables of few symbols are shorter, and sooner made, when coarse. */
static unsigned choose_bits(struct tables *t)
{
    double least = 0;
    unsigned best = RANS_BITS_MAX;
    for (unsigned bits = RANS_BITS_MAX; bits > RANS_BITS_MIN; bits--) {
        double cost = 0;
        for (unsigned c = 0; c < SKF_CONTEXTS; c++) {
            if (t->kind[c] != TABLE_NEW)
                continue;
            normalize(t->count[c], t->freq[c], bits);
            cost += table_cost(t->count[c], t->freq[c], bits);
        }
        if (bits < RANS_BITS_MAX && cost > least)
            break;
        best = bits;
        least = cost;
    }
    return best;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------------------- */
static enum skf_err put_words(struct skf_work *w, const struct skf_syms *s, const struct tables *t, unsigned bits,
                              unsigned lanes, struct skf_buf *out)
{
    uint32_t x[RANS_MANY];
    size_t room = 2 * (size_t)s->n;
    SKF_TRY(skf_area_need(&w->words, room));
    uint8_t *end = w->words.p + room, *p = end;
    uint8_t head[KINDS]; /* whose table a context has */
    for (unsigned c = 0, from = 0; c < SKF_CONTEXTS; c++) {
        from = t->kind[c] == TABLE_NEW ? c : from;
        head[c] = (uint8_t)from;
    }
    for (unsigned i = 0; i < lanes; i++)
        x[i] = RANS_LOW;
    for (uint32_t i = s->n; i-- > 0;) {
        uint32_t *state = &x[i & (lanes - 1)], v = *state;
        unsigned c = head[s->key[i]];
        uint32_t f = t->freq[c][s->sym[i]], at = t->start[c][s->sym[i]];
        if (v >= (uint64_t)f << (32 - bits)) {
            p -= 2;
            skf_put_le16(p, (uint16_t)v);
            v >>= 16;
        }
        *state = ((v / f) << bits) + v % f + at;
    }
    for (unsigned i = 0; i < lanes; i++)
        SKF_TRY(skf_buf_u32(out, x[i]));
    SKF_TRY(skf_put_varint(out, (uint64_t)(end - p) / 2));
    return skf_buf_put(out, p, (size_t)(end - p));
}

static enum skf_err count_all(struct skf_work *w, const struct skf_syms *s, struct tables **t)
{
    SKF_TRY(skf_area_need(&w->hist, sizeof **t));
    *t = (struct tables *)(void *)w->hist.p;
    memset((*t)->count, 0, sizeof (*t)->count);
    for (uint32_t i = 0; i < s->n; i++)
        (*t)->count[s->key[i]][s->sym[i]]++;
    return SKF_OK;
}

enum skf_err skf_syms_cost(struct skf_work *w, const struct skf_syms *s, double *bits)
{
    struct tables *t;
    SKF_TRY(count_all(w, s, &t));
    *bits = share_tables(t);
    return SKF_OK;
}

enum skf_err skf_syms_put(struct skf_work *w, const struct skf_syms *s, struct skf_buf *out)
{
    uint8_t packed[SKF_CONTEXTS * (KINDS * 2 + 2) + 16];
    struct skf_bits_out b = {.p = packed};
    if (s->n == 0)
        return SKF_OK;
    struct tables *t;
    SKF_TRY(count_all(w, s, &t));
    double cost = share_tables(t);
    unsigned bits = choose_bits(t);
    unsigned lanes = cost < 8.0 * MANY_BYTES ? RANS_FEW : RANS_MANY;
    for (unsigned c = 0; c < SKF_CONTEXTS; c++) {
        skf_bits_put(&b, t->kind[c], 2);
        if (t->kind[c] != TABLE_NEW)
            continue;
        normalize(t->count[c], t->freq[c], bits);
        for (unsigned i = 0, at = 0; i < KINDS; i++) {
            t->start[c][i] = (uint16_t)at;
            at += t->freq[c][i];
        }
        put_table(&b, t->freq[c]);
    }
    SKF_TRY(skf_buf_u8(out, (uint8_t)(bits | (lanes == RANS_MANY ? 16 : 0))));
    SKF_TRY(skf_buf_put(out, packed, (size_t)(skf_bits_end(&b) - packed)));
    return put_words(w, s, t, bits, lanes, out);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------------- */
/* Contexts that share a table have one; those that do not occur have one of zeros: a key may name it all the same, which is
 * harmless, and never random memory. */
static enum skf_err get_tables(struct skf_area *area, struct skf_reader *in, struct rans *r)
{
    size_t size = (size_t)1 << r->bits;
    unsigned n = 0, zero = SKF_CONTEXTS;
    SKF_TRY(skf_area_need(area, (SKF_CONTEXTS + 1) * sizeof(uint32_t) << RANS_BITS_MAX));
    struct skf_bits_in b = {.p = in->p, .end = in->end};
    uint32_t *tables = (uint32_t *)(void *)area->p;
    bool has_one = false;
    uint8_t last = 0;
    for (unsigned c = 0; c < SKF_CONTEXTS; c++) {
        uint64_t kind;
        if (!skf_bits_get(&b, 2, &kind) || kind > TABLE_NEW || (kind == TABLE_SAME && !has_one))
            return SKF_ERR_FORMAT;
        if (kind == TABLE_NONE && zero == SKF_CONTEXTS) {
            zero = n++;
            memset(tables + zero * size, 0, size * sizeof *tables);
        }
        if (kind == TABLE_NEW) {
            last = (uint8_t)n++;
            if (!get_table(&b, r->bits, tables + last * size))
                return SKF_ERR_FORMAT;
            has_one = true;
        }
        r->table[c] = kind == TABLE_NONE ? (uint8_t)zero : last;
    }
    if (b.acc != 0)
        return SKF_ERR_FORMAT;
    in->p = b.p;
    r->tables = tables;
    return SKF_OK;
}

static inline uint32_t step(const struct rans *r, uint32_t v, uint8_t key, uint8_t *sym)
{
    uint32_t e = r->tables[((uint32_t)r->table[key] << r->bits) + (v & ((1u << r->bits) - 1))];
    *sym = (uint8_t)e;
    return ((e >> 8 & 0xfff) + 1) * (v >> r->bits) + (e >> 20);
}

/* While the words last for every lane, none has to be asked for. */
uint32_t rans_run_ref(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    const struct rans at = *r;
    const uint8_t *p = r->p;
    uint32_t i = 0;
    for (; n - i >= RANS_MANY && r->end - p >= 2 * RANS_MANY; i += RANS_MANY) {
        for (unsigned k = 0; k < RANS_MANY; k++) {
            uint32_t v = step(&at, r->x[k], key[i + k], &sym[i + k]), more = v << 16 | skf_le16(p);
            bool is_low = v < RANS_LOW;
            r->x[k] = is_low ? more : v;
            p += is_low ? 2 : 0;
        }
    }
    r->p = p;
    return i;
}

static enum skf_err run_careful(struct rans *r, unsigned lanes, uint8_t *sym, const uint8_t *key, uint32_t from,
                                uint32_t n)
{
    for (uint32_t i = from; i < n; i++) {
        uint32_t *x = &r->x[i & (lanes - 1)], v = step(r, *x, key[i], &sym[i]);
        if (v < RANS_LOW) {
            if (r->p == r->end)
                return SKF_ERR_FORMAT;
            v = v << 16 | skf_le16(r->p);
            r->p += 2;
        }
        *x = v;
    }
    return SKF_OK;
}

static uint32_t run_many(enum skf_isa isa, struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
#if defined __x86_64__
    if (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX)
        return rans_run_avx512(r, sym, key, n);
    if (isa == SKF_ISA_AVX2)
        return rans_run_avx2(r, sym, key, n);
#elif defined __aarch64__
    if (isa == SKF_ISA_NEON)
        return rans_run_neon(r, sym, key, n);
#endif
    return rans_run_ref(r, sym, key, n);
}

enum skf_err skf_syms_begin(struct skf_work *w, struct skf_area *tables, struct skf_reader *in, uint32_t n,
                            struct skf_syms_in *s)
{
    uint8_t form;
    const uint8_t *words;
    uint64_t n_words;
    struct rans *r = &s->r;
    s->left = n;
    s->isa = w->isa;
    if (n == 0)
        return SKF_OK;
    SKF_TRY(skf_get_u8(in, &form));
    r->bits = form & 15;
    s->lanes = form & 16 ? RANS_MANY : RANS_FEW;
    if (r->bits < RANS_BITS_MIN || r->bits > RANS_BITS_MAX || form > 31)
        return SKF_ERR_FORMAT;
    SKF_TRY(get_tables(tables, in, r));
    for (unsigned i = 0; i < s->lanes; i++) {
        SKF_TRY(skf_get_u32(in, &r->x[i]));
        if (r->x[i] < RANS_LOW)
            return SKF_ERR_FORMAT;
    }
    for (unsigned i = s->lanes; i < RANS_MANY; i++)
        r->x[i] = RANS_LOW;
    SKF_TRY(skf_get_varint(in, &n_words));
    if (n_words > n) /* a symbol takes one at most */
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(in, 2 * n_words, &words));
    r->p = words;
    r->end = words + 2 * n_words;
    return SKF_OK;
}

enum skf_err skf_syms_some(struct skf_syms_in *s, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    if (n == 0)
        return SKF_OK;
    if (n > s->left || (n < s->left && n % RANS_MANY))
        return SKF_ERR_INTERNAL;
    uint32_t done = s->lanes == RANS_MANY ? run_many(s->isa, &s->r, sym, key, n) : 0;
    SKF_TRY(run_careful(&s->r, s->lanes, sym, key, done, n));
    s->left -= n;
    if (s->left)
        return SKF_OK;
    for (unsigned i = 0; i < s->lanes; i++)
        if (s->r.x[i] != RANS_LOW)
            return SKF_ERR_FORMAT;
    return s->r.p == s->r.end ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err skf_syms_get(struct skf_work *w, struct skf_reader *r, const struct skf_syms *s)
{
    struct skf_syms_in in;
    SKF_TRY(skf_syms_begin(w, &w->tables, r, s->n, &in));
    return skf_syms_some(&in, s->sym, s->key, s->n);
}
