/* The decoder of interleaved rANS (rans_priv.h): its tables, and the loops that every machine has. */
#include "delta/rans_priv.h"

#include <string.h>

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */
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

static SKF_LOOPS void fill(uint32_t *entries, unsigned sym, unsigned freq)
{
    for (unsigned k = 0; k < freq; k++)
        entries[k] = RANS_ENTRY(sym, freq, k);
}

/* edge: where the runs of the first symbols end. */
static bool get_table(struct skf_bits_in *b, unsigned bits, uint32_t *entries, uint16_t edge[RANS_NEAR])
{
    uint64_t last;
    unsigned at = 0, size = 1u << bits, freq, zeros;
    if (!skf_bits_get(b, 8, &last))
        return false;
    memset(edge, 0, RANS_NEAR * sizeof *edge);
    for (unsigned i = 0; i <= last; i++) {
        if (!get_freq(b, size - at, &freq, &zeros))
            return false;
        fill(entries + at, i, freq);
        at += freq;
        for (unsigned k = i; k < RANS_NEAR; k++)
            edge[k] = (uint16_t)at;
        i += zeros;
        if (freq == 0 && i >= last)
            return false; /* the last symbol is one that occurs */
    }
    return at == size;
}

/* Contexts that share a table have one; those that do not occur have one of zeros: a key may name it all the same, which is
 * harmless, and never random memory. */
static enum skf_err get_tables(struct skf_area *area, struct skf_bits_in *b, struct rans *r)
{
    size_t size = (size_t)1 << r->bits;
    uint32_t n = 0, zero = UINT32_MAX, last = UINT32_MAX;
    uint16_t edge[RANS_NEAR];
    SKF_TRY(skf_area_need(area, (SKF_CONTEXTS + 1) * sizeof(uint32_t) << RANS_BITS_MAX));
    uint32_t *tables = (uint32_t *)(void *)area->p;
    memset(r->edge, 0, sizeof r->edge);
    for (unsigned c = 0; c < SKF_CONTEXTS; c++) {
        uint64_t kind;
        if (!skf_bits_get(b, 2, &kind) || kind > RANS_TABLE_NEW || (kind == RANS_TABLE_SAME && last == UINT32_MAX))
            return SKF_ERR_FORMAT;
        if (kind == RANS_TABLE_NONE && zero == UINT32_MAX) {
            zero = n++ << r->bits;
            memset(tables + zero, 0, size * sizeof *tables);
        }
        if (kind == RANS_TABLE_NEW) {
            last = n++ << r->bits;
            if (!get_table(b, r->bits, tables + last, edge))
                return SKF_ERR_FORMAT;
        }
        r->table[c] = kind == RANS_TABLE_NONE ? zero : last;
        r->number[c] = (uint8_t)(r->table[c] >> r->bits);
        for (unsigned k = 0; kind != RANS_TABLE_NONE && k < RANS_NEAR; k++)
            r->edge[k][c] = edge[k];
    }
    r->tables = tables;
    return SKF_OK;
}

static enum skf_err get_states(struct skf_bits_in *b, struct rans *r)
{
    for (unsigned i = 0; i < r->lanes; i++) {
        uint64_t more, low;
        if (!skf_bits_get(b, 4, &more) || !skf_bits_get(b, 16 + (unsigned)more, &low))
            return SKF_ERR_FORMAT;
        r->x[i] = RANS_LOW << more | (uint32_t)low;
    }
    return b->acc == 0 ? SKF_OK : SKF_ERR_FORMAT;
}

/* ---- loops ------------------------------------------------------------------------------------------------------------------- */
static inline __attribute__((always_inline)) uint32_t step(const struct rans *r, uint32_t v, uint8_t key, uint8_t *sym)
{
    uint32_t e = r->tables[r->table[key] + (v & ((1u << r->bits) - 1))];
    *sym = (uint8_t)e;
    return ((e >> 8 & 0xfff) + 1) * (v >> r->bits) + (e >> 20);
}

/* While the words last for every lane, none has to be asked for. */
uint32_t rans_run_ref(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    const struct rans at = *r;
    const uint32_t lanes = r->lanes;
    const uint8_t *p = r->p;
    uint32_t i = 0;
    for (; n - i >= lanes && r->end - p >= 2 * (ptrdiff_t)lanes; i += lanes) {
        for (uint32_t k = 0; k < lanes; k++) {
            uint32_t v = step(&at, r->x[k], key[i + k], &sym[i + k]), more = v << 16 | skf_le16(p);
            bool is_low = v < RANS_LOW;
            r->x[k] = is_low ? more : v;
            p += is_low ? 2 : 0;
        }
    }
    r->p = p;
    return i;
}

/* Four lanes, in registers. Words are rare: streams are short because most symbols take next to nothing. */
static uint32_t run_few(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    const struct rans at = *r;
    const uint8_t *p = r->p;
    uint32_t i = 0, a = at.x[0], b = at.x[1], c = at.x[2], d = at.x[3];
    for (; n - i >= RANS_FEW && r->end - p >= 2 * RANS_FEW; i += RANS_FEW) {
        a = step(&at, a, key[i], &sym[i]);
        b = step(&at, b, key[i + 1], &sym[i + 1]);
        c = step(&at, c, key[i + 2], &sym[i + 2]);
        d = step(&at, d, key[i + 3], &sym[i + 3]);
        if (a >= RANS_LOW && b >= RANS_LOW && c >= RANS_LOW && d >= RANS_LOW)
            continue;
        uint32_t *x[RANS_FEW] = {&a, &b, &c, &d};
        for (unsigned k = 0; k < RANS_FEW; k++)
            if (*x[k] < RANS_LOW) {
                *x[k] = *x[k] << 16 | skf_le16(p);
                p += 2;
            }
    }
    memcpy(r->x, (uint32_t[RANS_FEW]){a, b, c, d}, sizeof(uint32_t[RANS_FEW]));
    r->p = p;
    return i;
}

static uint32_t run(enum skf_isa isa, struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    if (r->lanes == RANS_FEW)
        return run_few(r, sym, key, n);
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

/* What is left behind the last whole group. */
static enum skf_err run_careful(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < n; i++) {
        uint32_t *x = &r->x[i & (r->lanes - 1)], v = step(r, *x, key[i], &sym[i]);
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

/* Fewer words than lanes are left, and may last for many symbols: with as many zeros behind them the loops go on, and whether one
 * was taken is seen afterwards. */
static enum skf_err run_tail(struct skf_syms_in *s, uint8_t *sym, const uint8_t *key, uint32_t n, uint32_t *done)
{
    struct rans *r = &s->r;
    const size_t left = (size_t)(r->end - r->p), more = 2 * (size_t)r->lanes;
    if (n - *done < r->lanes)
        return SKF_OK;
    if (!s->is_tail) {
        memset(s->tail, 0, sizeof s->tail);
        memcpy(s->tail, r->p, left);
        r->p = s->tail;
        r->end = s->tail + left;
        s->is_tail = true;
    }
    r->end += more;
    *done += run(s->isa, r, sym + *done, key + *done, n - *done);
    r->end -= more;
    return r->p <= r->end ? SKF_OK : SKF_ERR_FORMAT;
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */
enum skf_err skf_syms_begin(struct skf_work *w, struct skf_area *tables, struct skf_reader *in, uint32_t n,
                            struct skf_syms_in *s)
{
    static const uint8_t lanes[] = {RANS_FEW, RANS_MANY, RANS_MOST};
    uint8_t form;
    const uint8_t *words;
    uint64_t n_words;
    struct rans *r = &s->r;
    s->left = n;
    s->isa = w->isa;
    s->is_tail = false;
    if (n == 0)
        return SKF_OK;
    SKF_TRY(skf_get_u8(in, &form));
    r->bits = form & 15;
    if (r->bits < RANS_BITS_MIN || r->bits > RANS_BITS_MAX || form >> 4 >= SKF_COUNT(lanes))
        return SKF_ERR_FORMAT;
    r->lanes = lanes[form >> 4];
    r->is_near = true;
    r->seen = r->far = 0;
    struct skf_bits_in b = {.p = in->p, .end = in->end};
    SKF_TRY(get_tables(tables, &b, r));
    SKF_TRY(get_states(&b, r));
    in->p = b.p;
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
    struct rans *r = &s->r;
    if (n == 0)
        return SKF_OK;
    if (n > s->left || (n < s->left && n % RANS_MOST))
        return SKF_ERR_INTERNAL;
    uint32_t done = s->is_tail ? 0 : run(s->isa, r, sym, key, n);
    SKF_TRY(run_tail(s, sym, key, n, &done));
    SKF_TRY(run_careful(r, sym, key, done, n));
    s->left -= n;
    if (s->left)
        return SKF_OK;
    for (unsigned i = 0; i < r->lanes; i++)
        if (r->x[i] != RANS_LOW)
            return SKF_ERR_FORMAT;
    return r->p == r->end ? SKF_OK : SKF_ERR_FORMAT;
}

enum skf_err skf_syms_get(struct skf_work *w, struct skf_reader *r, const struct skf_syms *s)
{
    struct skf_syms_in in;
    SKF_TRY(skf_syms_begin(w, &w->tables, r, s->n, &in));
    return skf_syms_some(&in, s->sym, s->key, s->n);
}
