/* Packing matrices of many zeros, and checking what was packed (sparse.h). */
#include "model/sparse.h"

#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"

enum {
    HEAD = 64, VERSION = 1,
    QBLOCK = 32, VECTORS = 8, VECTOR = 64, /* a block of a group: 8 vectors of 64 codes, 4 of each row */
    ALIGN = 64
};
static const uint8_t magic[4] = {'S', 'K', 'P', 0x1a};

bool is_sparse_type(enum skf_type t)
{
    return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16 || t == SKF_T_Q8_0 || t == SKF_T_Q4_0 || t == SKF_T_Q4_1;
}

static bool is_block_type(enum skf_type t) { return skf_type_info(t)->block > 1; }
static bool is_nibble_type(enum skf_type t) { return t == SKF_T_Q4_0 || t == SKF_T_Q4_1; }
/* Halves in front of a block's codes. */
static uint32_t halves(enum skf_type t) { return t == SKF_T_Q4_1 ? 2 : 1; }

uint32_t skf_sparse_heads(enum skf_type t)
{
    return SKF_SPARSE_ROWS * (2 * halves(t) + (t == SKF_T_Q4_1)); /* and the background */
}

/* Bytes of n values behind one mask. */
static uint64_t value_bytes(enum skf_type t, uint64_t n)
{
    return is_nibble_type(t) ? (n + 1) / 2 : t == SKF_T_Q8_0 ? n : t == SKF_T_F32 ? 4 * n : 2 * n;
}

/* Everything that type and shape decide, with bytes as NULL; *values_at is where the values begin. */
static enum skf_err layout_of(enum skf_type t, uint32_t rows, uint32_t cols, struct skf_sparse *s, uint64_t *fixed_at,
                              uint64_t *values_at)
{
    *s = (struct skf_sparse){.type = t, .rows = rows, .cols = cols};
    if (!is_sparse_type(t) || (is_block_type(t) && cols % QBLOCK))
        return SKF_ERR_UNSUPPORTED;
    uint64_t blocks = ((uint64_t)cols + QBLOCK - 1) / QBLOCK, fixed;
    s->group = is_block_type(t) ? SKF_SPARSE_ROWS : SKF_SPARSE_FLOATS;
    s->groups = (uint32_t)(((uint64_t)rows + s->group - 1) / s->group);
    s->stride = blocks * (is_block_type(t) ? skf_sparse_heads(t) + VECTORS * 8 : SKF_SPARSE_FLOATS * 4);
    *fixed_at = (HEAD + ((uint64_t)s->groups + 1) * 8 + ALIGN - 1) / ALIGN * ALIGN;
    if (!is_mul_ok(s->groups, s->stride, &fixed) || fixed > UINT64_MAX / 2)
        return SKF_ERR_LIMIT;
    *values_at = (*fixed_at + fixed + ALIGN - 1) / ALIGN * ALIGN;
    return SKF_OK;
}

/* ---- one block of a group ------------------------------------------------------------------------------------------------ */
struct block {
    uint8_t codes[VECTORS][VECTOR], background[VECTOR]; /* the latter for each place of a vector */
};

static uint8_t most_frequent(const uint8_t *codes)
{
    uint8_t count[16] = {0}, best = 0;
    for (uint32_t i = 0; i < QBLOCK; i++)
        count[codes[i]]++;
    for (uint8_t c = 1; c < 16; c++)
        best = count[c] > count[best] ? c : best;
    return best;
}

/* The codes of one row's block, each a byte; returns the background. */
static uint8_t block_codes(enum skf_type t, const uint8_t *p, uint8_t *codes)
{
    p += 2 * halves(t);
    if (t == SKF_T_Q8_0) {
        memcpy(codes, p, QBLOCK);
        return 0;
    }
    for (uint32_t i = 0; i < QBLOCK / 2; i++) {
        codes[i] = p[i] & 15;
        codes[i + QBLOCK / 2] = p[i] >> 4;
    }
    return t == SKF_T_Q4_0 ? 8 : most_frequent(codes);
}

/* Row r of block b comes into its places of the vectors and of the heads. */
static void block_take(enum skf_type t, const uint8_t *p, uint32_t r, struct block *k, uint8_t *heads)
{
    uint8_t codes[QBLOCK];
    memset(&k->background[4 * r], block_codes(t, p, codes), 4);
    for (uint32_t v = 0; v < VECTORS; v++)
        memcpy(&k->codes[v][4 * r], codes + 4 * v, 4);
    memcpy(heads + 2 * r, p, 2);
    if (t == SKF_T_Q4_1) {
        memcpy(heads + 2 * (SKF_SPARSE_ROWS + r), p + 2, 2);
        heads[4 * SKF_SPARSE_ROWS + r] = k->background[4 * r];
    }
}

/* Whether no four neighbours of a row of Q8_0 hold more than two values. */
static bool is_even_row(const uint8_t *p, uint32_t cols)
{
    const uint32_t bytes = skf_type_info(SKF_T_Q8_0)->block_bytes;
    for (uint32_t c = 0; c < cols; c += 4) {
        const uint8_t *q = p + (size_t)(c / QBLOCK) * bytes + 2 + c % QBLOCK;
        if ((q[0] != 0) + (q[1] != 0) + (q[2] != 0) + (q[3] != 0) > 2)
            return false;
    }
    return true;
}

/* Two bits in every four: of those that are missing the lowest are set. */
static uint64_t even_mask(uint64_t mask)
{
    for (uint32_t i = 0; i < 64; i += 4)
        for (uint32_t j = 0; __builtin_popcountll(mask >> i & 15) < 2; j++)
            mask |= 1ull << (i + j);
    return mask;
}

/* The codes of a vector that are not background, one behind the other; returns how many. */
static uint32_t gather(const uint8_t *codes, const uint8_t *background, bool is_even, uint64_t *mask, uint8_t *out)
{
    const uint64_t sevens = 0x7f7f7f7f7f7f7f7f, weights = 0x0102040810204080;
    uint64_t bits = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < VECTOR; i += 8) { /* the top bit of each byte that is not zero, then those of eight bytes as eight bits */
        uint64_t x = skf_le64(codes + i) ^ skf_le64(background + i);
        x = (((x & sevens) + sevens) | x) & ~sevens;
        bits |= (x >> 7) * weights >> 56 << i;
    }
    if (is_even)
        bits = even_mask(bits);
    *mask = bits;
    for (; bits; bits &= bits - 1)
        out[n++] = codes[__builtin_ctzll(bits)];
    return n;
}

/* ---- packing ---------------------------------------------------------------------------------------------------------------- */
struct packing {
    const struct skf_sparse_from *from;
    struct skf_sparse s;
    uint8_t *bytes, *fixed, *values;
    uint64_t used, room; /* of the values */
};

static bool has_room(const struct packing *k, uint64_t n) { return k->room - k->used >= n; }

/* False when the values outgrow what was allowed for them. */
static bool is_block_group_packed(struct packing *k, uint32_t g)
{
    const enum skf_type t = k->s.type;
    const uint32_t bytes = skf_type_info(t)->block_bytes, heads = skf_sparse_heads(t), first = g * SKF_SPARSE_ROWS;
    const uint8_t *row[SKF_SPARSE_ROWS];
    uint8_t *fixed = k->fixed + g * k->s.stride;
    uint32_t n = k->s.rows - first < SKF_SPARSE_ROWS ? k->s.rows - first : SKF_SPARSE_ROWS;
    for (uint32_t r = 0; r < n; r++)
        row[r] = k->from->row(k->from->ctx, first + r);
    for (uint32_t b = 0; b < k->s.cols / QBLOCK; b++, fixed += heads + 8 * VECTORS) {
        struct block block = {0}; /* rows that are not there have scale 0 and nothing but background */
        for (uint32_t r = 0; r < n; r++)
            block_take(t, row[r] + (size_t)b * bytes, r, &block, fixed);
        for (uint32_t v = 0; v < VECTORS; v++) {
            uint8_t out[VECTOR + 2] = {0};
            uint64_t mask;
            uint32_t count = gather(block.codes[v], block.background, k->s.is_even, &mask, out);
            uint64_t size = value_bytes(t, count);
            if (!has_room(k, size))
                return false;
            skf_put_le64(fixed + heads + 8 * v, mask);
            out[count] = 0;
            if (is_nibble_type(t))
                for (uint32_t i = 0; i < size; i++)
                    out[i] = (uint8_t)(out[2 * i] | out[2 * i + 1] << 4);
            memcpy(k->values + k->used, out, size);
            k->used += size;
        }
    }
    return true;
}

static bool is_float_group_packed(struct packing *k, uint32_t g)
{
    const uint32_t size = k->s.type == SKF_T_F32 ? 4 : 2, first = g * SKF_SPARSE_FLOATS;
    const uint8_t *row[SKF_SPARSE_FLOATS];
    uint8_t *fixed = k->fixed + g * k->s.stride;
    uint32_t rows = k->s.rows - first < SKF_SPARSE_FLOATS ? k->s.rows - first : SKF_SPARSE_FLOATS;
    for (uint32_t r = 0; r < rows; r++)
        row[r] = k->from->row(k->from->ctx, first + r);
    for (uint32_t c = 0; c < k->s.cols; c += QBLOCK) {
        uint32_t n = k->s.cols - c < QBLOCK ? k->s.cols - c : QBLOCK;
        for (uint32_t r = 0; r < SKF_SPARSE_FLOATS; r++, fixed += 4) {
            const uint8_t *p = r < rows ? row[r] + (size_t)c * size : NULL;
            uint32_t mask = 0;
            if (!has_room(k, (uint64_t)QBLOCK * size))
                return false;
            for (uint32_t j = 0; p && j < n; j++, p += size) {
                uint32_t is_value = (size == 4 ? skf_le32(p) : skf_le16(p)) != 0;
                memcpy(k->values + k->used, p, size);
                k->used += is_value * size;
                mask |= is_value << j;
            }
            skf_put_le32(fixed, mask);
        }
    }
    return true;
}

static void put_head(const struct packing *k, uint64_t size)
{
    memcpy(k->bytes, magic, 4);
    skf_put_le32(k->bytes + 4, VERSION);
    skf_put_le32(k->bytes + 8, (uint32_t)k->s.type);
    skf_put_le32(k->bytes + 12, k->s.rows);
    skf_put_le32(k->bytes + 16, k->s.cols);
    skf_put_le32(k->bytes + 20, k->s.is_even);
    skf_put_le64(k->bytes + 24, size);
}

enum skf_err skf_sparse_pack(const struct skf_sparse_from *m, double least, uint8_t **bytes, size_t *n)
{
    struct packing k = {.from = m};
    uint64_t fixed_at, values_at;
    *bytes = NULL;
    *n = 0;
    SKF_TRY(layout_of(m->type, m->rows, m->cols, &k.s, &fixed_at, &values_at));
    k.s.is_even = m->type == SKF_T_Q8_0;
    for (uint32_t r = 0; r < m->rows && k.s.is_even; r++)
        k.s.is_even = is_even_row(m->row(m->ctx, r), m->cols);
    /* Room for as many values as the share allows, and what rounding to whole bytes adds at each mask. */
    uint64_t rounding = is_nibble_type(m->type) ? (uint64_t)k.s.groups * (m->cols / QBLOCK) * VECTORS : 0;
    uint64_t all = value_bytes(m->type, (uint64_t)m->rows * m->cols);
    if (k.s.is_even) /* of every row of a group */
        k.room = (uint64_t)k.s.groups * SKF_SPARSE_ROWS * m->cols / 2;
    else
        k.room = (uint64_t)((double)all * (1.0 - least)) + rounding + 4 * QBLOCK;
    if (k.room > SIZE_MAX / 2 - values_at)
        return SKF_ERR_NOMEM;
    k.bytes = skf_alloc(values_at + k.room + SKF_SPARSE_PAD);
    if (!k.bytes)
        return SKF_ERR_NOMEM;
    memset(k.bytes, 0, values_at);
    k.fixed = k.bytes + fixed_at;
    k.values = k.bytes + values_at;
    bool is_fit = true;
    for (uint32_t g = 0; g < k.s.groups && is_fit; g++) {
        is_fit = is_block_type(m->type) ? is_block_group_packed(&k, g) : is_float_group_packed(&k, g);
        skf_put_le64(k.bytes + HEAD + 8 * ((size_t)g + 1), k.used);
    }
    if (!is_fit) {
        skf_free(k.bytes);
        return SKF_OK;
    }
    memset(k.values + k.used, 0, SKF_SPARSE_PAD);
    *n = values_at + k.used + SKF_SPARSE_PAD;
    put_head(&k, *n);
    *bytes = skf_realloc(k.bytes, *n); /* gives back what the values did not need */
    if (!*bytes)
        *bytes = k.bytes;
    return SKF_OK;
}

/* The codes of a row that are background. */
static uint64_t background_of(const struct skf_sparse_from *m, const uint8_t *p)
{
    const uint32_t size = m->type == SKF_T_F32 ? 4 : 2, bytes = skf_type_info(m->type)->block_bytes;
    uint64_t n = 0;
    for (uint32_t c = 0; is_block_type(m->type) && c < m->cols; c += QBLOCK, p += bytes) {
        uint8_t codes[QBLOCK], background = block_codes(m->type, p, codes);
        for (uint32_t i = 0; i < QBLOCK; i++)
            n += codes[i] == background;
    }
    for (uint32_t c = 0; !is_block_type(m->type) && c < m->cols; c++, p += size)
        n += size == 4 ? skf_le32(p) == 0 : skf_le16(p) == 0;
    return n;
}

double skf_sparse_share(const struct skf_sparse_from *m, uint32_t most, bool *is_even)
{
    struct skf_sparse s;
    uint64_t at, background = 0;
    uint32_t n = m->rows < most ? m->rows : most;
    *is_even = m->type == SKF_T_Q8_0;
    if (layout_of(m->type, m->rows, m->cols, &s, &at, &at) != SKF_OK || n == 0 || m->cols == 0) {
        *is_even = false;
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = m->row(m->ctx, (uint32_t)((uint64_t)m->rows * i / n));
        background += background_of(m, p);
        *is_even = *is_even && is_even_row(p, m->cols);
    }
    return (double)background / ((double)n * m->cols);
}

/* ---- checking ---------------------------------------------------------------------------------------------------------------- */
/* Whether a mask, the v-th of a group's block b, has bits only for codes that are there, or, of an even matrix, two in every four. */
static bool is_mask_sound(const struct skf_sparse *s, uint32_t g, uint64_t b, uint32_t v, uint64_t mask)
{
    uint64_t rows = (uint64_t)s->rows - (uint64_t)g * s->group, cols = s->cols - b * QBLOCK;
    uint64_t n = is_block_type(s->type) ? 4 * rows : v < rows ? cols : 0;
    const uint64_t fives = 0x5555555555555555, threes = 0x3333333333333333;
    if (!s->is_even)
        return n >= 64 || mask >> n == 0;
    mask = (mask & fives) + (mask >> 1 & fives);
    return (mask & threes) + (mask >> 2 & threes) == 2 * (UINT64_MAX / 15);
}

/* The bytes of values that a group's masks ask for; false for a mask or background that makes no sense. */
static bool is_group_sized(const struct skf_sparse *s, uint32_t g, uint64_t *size)
{
    const bool is_block = is_block_type(s->type);
    const uint32_t heads = is_block ? skf_sparse_heads(s->type) : 0, masks = is_block ? VECTORS : SKF_SPARSE_FLOATS;
    const uint8_t *p = s->fixed + g * s->stride;
    *size = 0;
    for (uint64_t b = 0; b < ((uint64_t)s->cols + QBLOCK - 1) / QBLOCK; b++) {
        for (uint32_t r = 0; s->type == SKF_T_Q4_1 && r < SKF_SPARSE_ROWS; r++)
            if (p[4 * SKF_SPARSE_ROWS + r] > 15)
                return false;
        p += heads;
        for (uint32_t v = 0; v < masks; v++, p += is_block ? 8 : 4) {
            uint64_t mask = is_block ? skf_le64(p) : skf_le32(p);
            if (!is_mask_sound(s, g, b, v, mask))
                return false;
            *size += value_bytes(s->type, (uint64_t)__builtin_popcountll(mask));
        }
    }
    return true;
}

enum skf_err skf_sparse_open(const uint8_t *bytes, size_t n, struct skf_sparse *s, struct skf_why *why)
{
    uint64_t fixed_at, values_at, before = 0;
    if (n < HEAD || memcmp(bytes, magic, 4) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "no packed matrix");
    if (skf_le32(bytes + 4) != VERSION || !skf_type_info(skf_le32(bytes + 8)))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "packed matrix of version %u, type %u", skf_le32(bytes + 4), skf_le32(bytes + 8));
    enum skf_err e = layout_of((enum skf_type)skf_le32(bytes + 8), skf_le32(bytes + 12), skf_le32(bytes + 16), s, &fixed_at, &values_at);
    if (e != SKF_OK)
        return skf_fail(why, e, "packed matrix: its type or shape cannot be packed");
    s->is_even = skf_le32(bytes + 20) == 1;
    bool is_rest_zero = skf_le32(bytes + 20) <= (s->type == SKF_T_Q8_0);
    for (size_t i = 32; i < HEAD; i++)
        is_rest_zero &= bytes[i] == 0;
    if (!is_rest_zero || skf_le64(bytes + 24) != n || n < values_at || n - values_at < SKF_SPARSE_PAD)
        return skf_fail(why, SKF_ERR_FORMAT, "packed matrix: its head does not fit its %zu bytes", n);
    s->index = bytes + HEAD;
    s->fixed = bytes + fixed_at;
    s->values = bytes + values_at;
    if (skf_le64(s->index) != 0 || skf_le64(s->index + (size_t)8 * s->groups) != n - values_at - SKF_SPARSE_PAD)
        return skf_fail(why, SKF_ERR_FORMAT, "packed matrix: its index does not cover its values");
    for (uint32_t g = 0; g < s->groups; g++) {
        uint64_t size, end = skf_le64(s->index + 8 * ((size_t)g + 1));
        if (end < before || !is_group_sized(s, g, &size) || size != end - before)
            return skf_fail(why, SKF_ERR_FORMAT, "packed matrix: the masks of group %u do not fit its values", g);
        before = end;
    }
    return SKF_OK;
}
