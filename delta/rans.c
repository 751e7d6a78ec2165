/* Interleaved rANS (rans_priv.h): tables from counts, and the encoder. */
#include "delta/rans_priv.h"

#include <math.h>
#include <string.h>

#define KINDS 256
/* Bits that a table takes beyond its frequencies, and a guess at those of each symbol: what sharing a table saves. */
#define TABLE_BITS 12
#define FREQ_BITS 9
/* Payloads under this many bytes are not worth the states of many lanes, or of the most. */
#define MANY_BYTES 3000
#define MOST_BYTES 20000

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
        t->kind[c] = RANS_TABLE_NONE;
        if (!used)
            continue;
        t->kind[c] = RANS_TABLE_NEW;
        if (head >= 0) {
            for (unsigned i = 0; i < KINDS; i++)
                sum[i] = t->count[head][i] + t->count[c][i];
            double joint = cost_of(sum, &together);
            if (joint <= head_cost + own + TABLE_BITS + FREQ_BITS * used) {
                all += joint - head_cost;
                head_cost = joint;
                memcpy(t->count[head], sum, sizeof sum);
                t->kind[c] = RANS_TABLE_SAME;
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
            if (t->kind[c] != RANS_TABLE_NEW)
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
/* The words, in w->words' last *n bytes, and the states that they leave. */
static enum skf_err make_words(struct skf_work *w, const struct skf_syms *s, const struct tables *t, unsigned bits,
                               unsigned lanes, uint32_t *x, size_t *n)
{
    size_t room = 2 * (size_t)s->n;
    SKF_TRY(skf_area_need(&w->words, room));
    uint8_t *end = w->words.p + room, *p = end;
    uint8_t head[KINDS]; /* whose table a context has */
    for (unsigned c = 0, from = 0; c < SKF_CONTEXTS; c++) {
        from = t->kind[c] == RANS_TABLE_NEW ? c : from;
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
    *n = (size_t)(end - p);
    return SKF_OK;
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
    uint8_t packed[SKF_CONTEXTS * (KINDS * 2 + 2) + 5 * RANS_MOST + 16];
    uint32_t x[RANS_MOST];
    size_t n;
    struct skf_bits_out b = {.p = packed};
    if (s->n == 0)
        return SKF_OK;
    struct tables *t;
    SKF_TRY(count_all(w, s, &t));
    double cost = share_tables(t);
    unsigned bits = choose_bits(t);
    unsigned form = cost < 8.0 * MANY_BYTES ? 0 : cost < 8.0 * MOST_BYTES ? 1 : 2;
    unsigned lanes = form == 0 ? RANS_FEW : form == 1 ? RANS_MANY : RANS_MOST;
    for (unsigned c = 0; c < SKF_CONTEXTS; c++) {
        skf_bits_put(&b, t->kind[c], 2);
        if (t->kind[c] != RANS_TABLE_NEW)
            continue;
        normalize(t->count[c], t->freq[c], bits);
        for (unsigned i = 0, at = 0; i < KINDS; i++) {
            t->start[c][i] = (uint16_t)at;
            at += t->freq[c][i];
        }
        put_table(&b, t->freq[c]);
    }
    SKF_TRY(make_words(w, s, t, bits, lanes, x, &n));
    for (unsigned i = 0; i < lanes; i++) {
        unsigned k = bit_length(x[i]) - 17;
        skf_bits_put(&b, k, 4);
        skf_bits_put(&b, x[i] & ((RANS_LOW << k) - 1), 16 + k);
    }
    SKF_TRY(skf_buf_u8(out, (uint8_t)(bits | form << 4)));
    SKF_TRY(skf_buf_put(out, packed, (size_t)(skf_bits_end(&b) - packed)));
    SKF_TRY(skf_put_varint(out, n / 2));
    return skf_buf_put(out, w->words.p + 2 * (size_t)s->n - n, n);
}
