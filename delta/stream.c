/* Streams of differences (stream_priv.h): sorting by context, masks, signs, magnitudes, and how each byte string is stored. */
#include "delta/stream_priv.h"

#include <string.h>

#include "base/alloc.h"
#include "base/util.h"

/* How a byte string of known length is stored; the byte in front of it. */
enum store_mode { MODE_ZERO, MODE_RAW, MODE_ZSTD, MODE_GAPS };
/* A group smaller than this shares its neighbour's Huffman table, which costs about 60 bytes. */
#define MIN_GROUP_BYTES 4096

enum skf_err skf_area_need(struct skf_area *a, size_t n)
{
    if (n <= a->cap)
        return SKF_OK;
    uint8_t *p = skf_alloc(n);
    if (!p)
        return SKF_ERR_NOMEM;
    skf_free(a->p);
    *a = (struct skf_area){p, n};
    return SKF_OK;
}

void skf_area_free(struct skf_area *a)
{
    skf_free(a->p);
    *a = (struct skf_area){NULL, 0};
}

enum skf_err skf_area_view(const struct skf_source *s, uint64_t off, size_t n, struct skf_area *a, const uint8_t **p)
{
    uint64_t run;
    if (n == 0 || off > s->size || n > s->size - off)
        return SKF_ERR_FORMAT;
    SKF_TRY(s->span(s->ctx, off, p, &run));
    if (run >= n)
        return SKF_OK;
    SKF_TRY(skf_area_need(a, n));
    *p = a->p;
    return skf_source_read(s, off, a->p, n);
}

enum skf_err skf_work_init(struct skf_work *w, bool is_encoding)
{
    *w = (struct skf_work){0};
    w->dec = skf_zdec_new();
    if (is_encoding)
        w->enc = skf_zenc_new();
    if (w->dec && (w->enc || !is_encoding))
        return SKF_OK;
    skf_work_free(w);
    return SKF_ERR_NOMEM;
}

void skf_work_free(struct skf_work *w)
{
    struct skf_area *all[] = {&w->sym, &w->key, &w->mask, &w->sign, &w->more, &w->rest, &w->planes, &w->gaps, &w->packed};
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        skf_area_free(all[i]);
    skf_zenc_free(w->enc);
    skf_zdec_free(w->dec);
    *w = (struct skf_work){0};
}

enum skf_err skf_put_varint(struct skf_buf *b, uint64_t v)
{
    uint8_t t[10];
    size_t n = 0;
    do {
        t[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    return skf_buf_put(b, t, n);
}

enum skf_err skf_get_varint(struct skf_reader *r, uint64_t *v)
{
    uint64_t x = 0;
    size_t left = skf_reader_left(r);
    for (unsigned i = 0; i < 10 && i < left; i++) {
        uint8_t c = r->p[i];
        if ((i == 9 && c > 1) || (i > 0 && c == 0))
            return SKF_ERR_FORMAT; /* over 64 bits, or not the shortest form */
        x |= (uint64_t)(c & 127) << 7 * i;
        if (c < 128) {
            r->p += i + 1;
            *v = x;
            return SKF_OK;
        }
    }
    return SKF_ERR_FORMAT;
}

enum skf_err skf_put_svarint(struct skf_buf *b, uint64_t v) { return skf_put_varint(b, v << 1 ^ (0 - (v >> 63))); }

enum skf_err skf_get_svarint(struct skf_reader *r, uint64_t *v)
{
    uint64_t z;
    SKF_TRY(skf_get_varint(r, &z));
    *v = z >> 1 ^ (0 - (z & 1));
    return SKF_OK;
}

/* ---- bits ---------------------------------------------------------------------------------------------------------------- */
static inline bool bit_at(const uint8_t *p, uint32_t i) { return p[i >> 3] >> (i & 7) & 1; }
static inline void bit_set(uint8_t *p, uint32_t i) { p[i >> 3] |= (uint8_t)(1u << (i & 7)); }
static inline size_t bit_bytes(uint32_t n) { return ((size_t)n + 7) / 8; }

/* Bits set in [from, to). */
static uint32_t bits_in(const uint8_t *p, uint32_t from, uint32_t to)
{
    uint32_t n = 0;
    for (; from < to && (from & 7); from++)
        n += bit_at(p, from);
    for (; to - from >= 64; from += 64)
        n += (uint32_t)__builtin_popcountll(skf_le64(p + (from >> 3)));
    for (; from < to; from++)
        n += bit_at(p, from);
    return n;
}

/* ---- byte strings of known length ------------------------------------------------------------------------------------------ */
struct groups { /* where each context's elements begin in the sorted order; [SKF_GROUPS] is the end */
    uint32_t at[SKF_GROUPS + 1];
};

static bool is_all_zero(const uint8_t *p, size_t n) { return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0); }

/* Offsets at which a new table pays: group boundaries, `per_byte` elements a byte. */
static size_t find_cuts(const struct groups *g, unsigned per_byte, size_t n, uint32_t cuts[SKF_GROUPS])
{
    size_t k = 0;
    uint32_t last = 0;
    for (unsigned i = 1; i < SKF_GROUPS; i++) {
        uint32_t at = g->at[i] / per_byte;
        if (at - last >= MIN_GROUP_BYTES && n - at >= MIN_GROUP_BYTES)
            last = cuts[k++] = at;
    }
    return k;
}

static enum skf_err put_stored(struct skf_buf *out, enum store_mode m, const uint8_t *p, size_t n)
{
    SKF_TRY(skf_buf_u8(out, (uint8_t)m));
    if (m == MODE_ZSTD)
        SKF_TRY(skf_put_varint(out, n));
    return skf_buf_put(out, p, n);
}

static enum skf_err put_bytes(struct skf_work *w, const uint8_t *p, size_t n, const struct groups *g, unsigned per_byte,
                              struct skf_buf *out)
{
    if (is_all_zero(p, n))
        return skf_buf_u8(out, MODE_ZERO);
    uint32_t cuts[SKF_GROUPS];
    size_t n_cuts = g ? find_cuts(g, per_byte, n, cuts) : 0, packed;
    SKF_TRY(skf_area_need(&w->packed, n));
    SKF_TRY(skf_zenc_stream(w->enc, p, n, cuts, n_cuts, w->packed.p, n, &packed));
    return packed && packed + 3 < n ? put_stored(out, MODE_ZSTD, w->packed.p, packed) : put_stored(out, MODE_RAW, p, n);
}

/* The distances between set bits, a byte each (255: that far and on); 0 when they come to more than `cap` bytes. */
static size_t make_gaps(const uint8_t *mask, size_t n, uint8_t *out, size_t cap)
{
    size_t k = 0;
    uint32_t last = 0;
    for (uint32_t byte = 0; byte < n; byte++) {
        for (unsigned m = mask[byte]; m; m &= m - 1) {
            uint32_t at = byte * 8 + (uint32_t)__builtin_ctz(m), gap = at - last;
            if (k + gap / 255 + 1 > cap)
                return 0;
            for (; gap >= 255; gap -= 255)
                out[k++] = 255;
            out[k++] = (uint8_t)gap;
            last = at + 1;
        }
    }
    return k;
}

/* A mask: as it is, or by its gaps, whichever is smaller. */
static enum skf_err put_mask(struct skf_work *w, const uint8_t *p, size_t n, uint32_t n_set, const struct groups *g,
                             struct skf_buf *out)
{
    size_t start = out->len;
    SKF_TRY(put_bytes(w, p, n, g, 8, out));
    size_t plain = out->len - start;
    if (n_set == 0 || n_set > n / 2)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->gaps, n));
    size_t k = make_gaps(p, n, w->gaps.p, n), packed;
    if (k == 0)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->packed, n));
    SKF_TRY(skf_zenc_stream(w->enc, w->gaps.p, k, NULL, 0, w->packed.p, k, &packed));
    bool is_packed = packed && packed + 3 < k;
    if ((is_packed ? packed : k) + 8 >= plain)
        return SKF_OK;
    out->len = start;
    SKF_TRY(skf_buf_u8(out, MODE_GAPS));
    SKF_TRY(skf_put_varint(out, k));
    return is_packed ? put_stored(out, MODE_ZSTD, w->packed.p, packed) : put_stored(out, MODE_RAW, w->gaps.p, k);
}

static enum skf_err get_body(struct skf_work *w, struct skf_reader *r, uint8_t mode, uint8_t *p, size_t n)
{
    const uint8_t *from;
    uint64_t len;
    switch (mode) {
    case MODE_ZERO:
        memset(p, 0, n);
        return SKF_OK;
    case MODE_RAW:
        SKF_TRY(skf_get_bytes(r, n, &from));
        if (n)
            memcpy(p, from, n);
        return SKF_OK;
    case MODE_ZSTD:
        SKF_TRY(skf_get_varint(r, &len));
        SKF_TRY(skf_get_bytes(r, len, &from));
        return skf_zdec_run(w->dec, from, len, NULL, 0, p, n);
    default:
        return SKF_ERR_FORMAT;
    }
}

static enum skf_err get_bytes(struct skf_work *w, struct skf_reader *r, uint8_t *p, size_t n)
{
    uint8_t mode;
    SKF_TRY(skf_get_u8(r, &mode));
    return get_body(w, r, mode, p, n);
}

static enum skf_err get_mask(struct skf_work *w, struct skf_reader *r, uint8_t *p, uint32_t bits)
{
    uint8_t mode;
    uint64_t k;
    size_t n = bit_bytes(bits);
    SKF_TRY(skf_get_u8(r, &mode));
    if (mode != MODE_GAPS)
        return get_body(w, r, mode, p, n);
    SKF_TRY(skf_get_varint(r, &k));
    if (k == 0 || k > n)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_area_need(&w->gaps, n));
    SKF_TRY(get_bytes(w, r, w->gaps.p, k));
    memset(p, 0, n);
    uint64_t at = 0;
    for (size_t i = 0; i < k; i++) {
        at += w->gaps.p[i];
        if (w->gaps.p[i] == 255)
            continue;
        if (at >= bits)
            return SKF_ERR_FORMAT;
        bit_set(p, (uint32_t)at++);
    }
    return SKF_OK;
}

/* ---- elements -------------------------------------------------------------------------------------------------------------- */
static inline uint64_t load(const uint8_t *p, unsigned width)
{
    switch (width) {
    case 1:
        return (uint64_t)(int64_t)(int8_t)p[0];
    case 2:
        return (uint64_t)(int64_t)(int16_t)skf_le16(p);
    case 4:
        return (uint64_t)(int64_t)(int32_t)skf_le32(p);
    default:
        return skf_le64(p);
    }
}

static inline void store(uint8_t *p, uint64_t v, unsigned width)
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

/* Everything that a loop over elements reads, as values: a store to bytes may alias any memory, and would make each be read anew. */
struct view {
    const uint8_t *sym, *key;
    uint32_t n;
    unsigned shift;
};
static inline struct view view_of(const struct skf_stream *s) { return (struct view){s->sym, s->key, s->n, s->shift}; }
static inline unsigned key_of(const struct view *v, uint32_t i) { return v->key ? v->key[i >> v->shift] : 0; }

/* Where groups begin among all elements. */
static void group_all(const struct skf_stream *s, struct groups *g)
{
    uint32_t count[SKF_GROUPS] = {0}, at = 0;
    if (s->key) {
        for (uint32_t i = 0; i < s->n; i++)
            count[s->key[i >> s->shift]]++;
    } else {
        count[0] = s->n;
    }
    for (unsigned i = 0; i < SKF_GROUPS; i++) {
        g->at[i] = at;
        at += count[i];
    }
    g->at[SKF_GROUPS] = at;
}

/* The same among those whose bit in `mask` is set. */
static void group_set(const uint8_t *mask, const struct groups *all, struct groups *g)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < SKF_GROUPS; i++) {
        g->at[i] = at;
        at += bits_in(mask, all->at[i], all->at[i + 1]);
    }
    g->at[SKF_GROUPS] = at;
}

/* Sets the bits of elements that are not zero. */
static inline __attribute__((always_inline)) void mark(const struct skf_stream *s, unsigned width,
                                                       const struct groups *g, uint8_t *mask)
{
    struct groups cur = *g;
    const struct view v = view_of(s);
    for (uint32_t i = 0; i < v.n; i++) {
        uint32_t at = cur.at[key_of(&v, i)]++;
        if (load(v.sym + (size_t)i * width, width))
            bit_set(mask, at);
    }
}

/* Signs, and magnitudes in sorted order. */
static inline __attribute__((always_inline)) void split(const struct skf_stream *s, unsigned width,
                                                        const struct groups *g, const struct skf_work *w)
{
    struct groups cur = *g;
    const struct view v = view_of(s);
    uint8_t *sign = w->sign.p, *more = w->more.p, *rest = w->rest.p;
    for (uint32_t i = 0; i < v.n; i++) {
        uint64_t x = load(v.sym + (size_t)i * width, width);
        if (!x)
            continue;
        uint32_t at = cur.at[key_of(&v, i)]++;
        if (x >> 63) {
            bit_set(sign, at);
            x = 0 - x;
        }
        if (x > 1)
            bit_set(more, at);
        store(rest + (size_t)at * width, x - 2, width);
    }
}

static inline __attribute__((always_inline)) void join(const struct skf_stream *s, unsigned width,
                                                       const struct groups g[3], uint32_t n_rest,
                                                       const struct skf_work *w)
{
    struct groups all = g[0], set = g[1], rest = g[2];
    const struct view v = view_of(s);
    const uint8_t *mask = w->mask.p, *sign = w->sign.p, *more = w->more.p, *planes = w->planes.p;
    uint8_t *sym = s->sym;
    memset(sym, 0, (size_t)v.n * width);
    for (uint32_t i = 0; i < v.n; i++) {
        unsigned k = key_of(&v, i);
        if (!bit_at(mask, all.at[k]++))
            continue;
        uint32_t at = set.at[k]++;
        uint64_t x = 1;
        if (bit_at(more, at)) {
            uint32_t from = rest.at[k]++;
            x = 2;
            for (unsigned b = 0; b < width; b++)
                x += (uint64_t)planes[(size_t)b * n_rest + from] << 8 * b;
        }
        uint64_t negative = 0 - (uint64_t)bit_at(sign, at);
        store(sym + (size_t)i * width, (x ^ negative) - negative, width);
    }
}

/* One copy of each loop a width, so that loads and stores are single instructions. */
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

static enum skf_err clear_area(struct skf_area *a, size_t n)
{
    SKF_TRY(skf_area_need(a, n + 8)); /* 8 more: bits are counted eight bytes at a time */
    memset(a->p, 0, n + 8);
    return SKF_OK;
}

enum skf_err skf_stream_put(struct skf_work *w, const struct skf_stream *s, struct skf_buf *out)
{
    struct groups all, set, rest;
    if (is_all_zero(s->sym, (size_t)s->n * s->width))
        return skf_buf_u8(out, MODE_ZERO);
    group_all(s, &all);
    SKF_TRY(clear_area(&w->mask, bit_bytes(s->n)));
#define MARK(wd) mark(s, wd, &all, w->mask.p)
    BY_WIDTH(s->width, MARK)
    group_set(w->mask.p, &all, &set);
    uint32_t m = set.at[SKF_GROUPS];
    SKF_TRY(clear_area(&w->sign, bit_bytes(m)));
    SKF_TRY(clear_area(&w->more, bit_bytes(m)));
    SKF_TRY(skf_area_need(&w->rest, (size_t)m * s->width));
#define SPLIT(wd) split(s, wd, &set, w)
    BY_WIDTH(s->width, SPLIT)
    group_set(w->more.p, &set, &rest);
    uint32_t l = rest.at[SKF_GROUPS];
    SKF_TRY(skf_area_need(&w->planes, (size_t)l * s->width));
    for (uint32_t i = 0, to = 0; i < m; i++) {
        if (!bit_at(w->more.p, i))
            continue;
        for (unsigned b = 0; b < s->width; b++)
            w->planes.p[(size_t)b * l + to] = w->rest.p[(size_t)i * s->width + b];
        to++;
    }
    SKF_TRY(put_mask(w, w->mask.p, bit_bytes(s->n), m, &all, out));
    SKF_TRY(put_bytes(w, w->sign.p, bit_bytes(m), NULL, 8, out));
    SKF_TRY(put_mask(w, w->more.p, bit_bytes(m), l, &set, out));
    for (unsigned b = 0; l && b < s->width; b++)
        SKF_TRY(put_bytes(w, w->planes.p + (size_t)b * l, l, &rest, 1, out));
    return SKF_OK;
}

enum skf_err skf_stream_get(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s, uint32_t *n_set)
{
    struct groups g[3];
    *n_set = 0;
    SKF_TRY(clear_area(&w->mask, bit_bytes(s->n)));
    SKF_TRY(get_mask(w, r, w->mask.p, s->n));
    *n_set = bits_in(w->mask.p, 0, s->n);
    if (*n_set == 0) {
        memset(s->sym, 0, (size_t)s->n * s->width);
        return SKF_OK;
    }
    group_all(s, &g[0]);
    group_set(w->mask.p, &g[0], &g[1]);
    uint32_t m = *n_set;
    SKF_TRY(clear_area(&w->sign, bit_bytes(m)));
    SKF_TRY(clear_area(&w->more, bit_bytes(m)));
    SKF_TRY(get_bytes(w, r, w->sign.p, bit_bytes(m)));
    SKF_TRY(get_mask(w, r, w->more.p, m));
    group_set(w->more.p, &g[1], &g[2]);
    uint32_t l = g[2].at[SKF_GROUPS];
    SKF_TRY(skf_area_need(&w->planes, (size_t)l * s->width));
    for (unsigned b = 0; l && b < s->width; b++)
        SKF_TRY(get_bytes(w, r, w->planes.p + (size_t)b * l, l));
#define JOIN(wd) join(s, wd, g, l, w)
    BY_WIDTH(s->width, JOIN)
    return SKF_OK;
}
