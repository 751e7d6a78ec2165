/* Integer differences of words and of block fields (int_priv.h). */
#include "delta/int_priv.h"

#include <math.h>
#include <string.h>

#include "base/util.h"

/* ---- descriptions of types --------------------------------------------------------------------------------------------------- */
enum field_kind {
    FIELD_F16,    /* bit patterns of halves, difference modulo 2^16 */
    FIELD_BYTE,   /* difference modulo 256 */
    FIELD_NIBBLE, /* two elements a byte, low first; difference modulo 16 */
    FIELD_XOR     /* packed bits that are no numbers: what flipped */
};
struct field {
    uint8_t kind, offset, count; /* count in bytes, but in halves for F16 */
};
/* How codes follow from scales: value = d * code + m, d * (code - 8), d * code. */
enum grid { GRID_NONE, GRID_Q4_0, GRID_Q4_1, GRID_Q8_0 };
#define MAX_FIELDS 5
struct layout {
    enum skf_type type;
    enum grid grid;
    uint8_t n_fields, n_scales; /* the first n_scales fields are F16 */
    struct field fields[MAX_FIELDS];
};

static const struct layout layouts[] = {
    {SKF_T_Q4_0, GRID_Q4_0, 2, 1, {{FIELD_F16, 0, 1}, {FIELD_NIBBLE, 2, 16}}},
    {SKF_T_Q4_1, GRID_Q4_1, 3, 2, {{FIELD_F16, 0, 1}, {FIELD_F16, 2, 1}, {FIELD_NIBBLE, 4, 16}}},
    {SKF_T_Q5_0, GRID_NONE, 3, 1, {{FIELD_F16, 0, 1}, {FIELD_XOR, 2, 4}, {FIELD_NIBBLE, 6, 16}}},
    {SKF_T_Q5_1, GRID_NONE, 4, 2, {{FIELD_F16, 0, 1}, {FIELD_F16, 2, 1}, {FIELD_XOR, 4, 4}, {FIELD_NIBBLE, 8, 16}}},
    {SKF_T_Q8_0, GRID_Q8_0, 2, 1, {{FIELD_F16, 0, 1}, {FIELD_BYTE, 2, 32}}},
    {SKF_T_Q8_1, GRID_NONE, 3, 2, {{FIELD_F16, 0, 1}, {FIELD_F16, 2, 1}, {FIELD_BYTE, 4, 32}}},
    {SKF_T_Q2_K, GRID_NONE, 4, 2, {{FIELD_F16, 80, 1}, {FIELD_F16, 82, 1}, {FIELD_NIBBLE, 0, 16}, {FIELD_XOR, 16, 64}}},
    {SKF_T_Q3_K, GRID_NONE, 4, 1, {{FIELD_F16, 108, 1}, {FIELD_XOR, 96, 12}, {FIELD_XOR, 0, 32}, {FIELD_XOR, 32, 64}}},
    {SKF_T_Q4_K, GRID_NONE, 4, 2, {{FIELD_F16, 0, 1}, {FIELD_F16, 2, 1}, {FIELD_XOR, 4, 12}, {FIELD_NIBBLE, 16, 128}}},
    {SKF_T_Q5_K, GRID_NONE, 5, 2,
     {{FIELD_F16, 0, 1}, {FIELD_F16, 2, 1}, {FIELD_XOR, 4, 12}, {FIELD_XOR, 16, 32}, {FIELD_NIBBLE, 48, 128}}},
    {SKF_T_Q6_K, GRID_NONE, 4, 1, {{FIELD_F16, 208, 1}, {FIELD_BYTE, 192, 16}, {FIELD_XOR, 128, 64}, {FIELD_NIBBLE, 0, 128}}},
    {SKF_T_IQ4_NL, GRID_NONE, 2, 1, {{FIELD_F16, 0, 1}, {FIELD_NIBBLE, 2, 16}}},
    {SKF_T_MXFP4, GRID_NONE, 2, 0, {{FIELD_BYTE, 0, 1}, {FIELD_NIBBLE, 1, 16}}},
};

static const struct layout *layout_of(enum skf_type t)
{
    for (size_t i = 0; i < SKF_COUNT(layouts); i++)
        if (layouts[i].type == t)
            return &layouts[i];
    return NULL;
}

/* Words: width in bytes (0 for no such type), and for floats where the exponent's top 8 bits (or all) begin. */
static unsigned word_of(enum skf_type t, unsigned *exponent_at)
{
    *exponent_at = 0;
    switch (t) {
    case SKF_T_F64:
        *exponent_at = 55;
        return 8;
    case SKF_T_F32:
        *exponent_at = 23;
        return 4;
    case SKF_T_F16:
        *exponent_at = 10;
        return 2;
    case SKF_T_BF16:
        *exponent_at = 7;
        return 2;
    case SKF_T_F8_E4M3:
        *exponent_at = 3;
        return 1;
    case SKF_T_F8_E5M2:
        *exponent_at = 2;
        return 1;
    case SKF_T_I64:
    case SKF_T_U64:
        return 8;
    case SKF_T_I32:
    case SKF_T_U32:
        return 4;
    case SKF_T_I16:
    case SKF_T_U16:
        return 2;
    case SKF_T_I8:
    case SKF_T_U8:
    case SKF_T_BOOL:
        return 1;
    default:
        return 0;
    }
}

uint32_t skf_int_grain(enum skf_type t)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    if (width)
        return width;
    const struct skf_type_info *info = skf_type_info(t);
    return info && layout_of(t) ? info->block_bytes : 0;
}

/* ---- words ------------------------------------------------------------------------------------------------------------------- */
static inline uint64_t word_load(const uint8_t *p, unsigned width)
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

static inline void word_store(uint8_t *p, uint64_t v, unsigned width)
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

static inline __attribute__((always_inline)) void words_sub(const uint8_t *old, const uint8_t *neu, uint8_t *sym,
                                                            uint32_t n, unsigned width, bool is_float)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t at = (size_t)i * width;
        uint64_t a = word_load(old + at, width), b = word_load(neu + at, width);
        if (is_float) {
            a = ordered(a, width);
            b = ordered(b, width);
        }
        word_store(sym + at, b - a, width);
    }
}

static inline __attribute__((always_inline)) void words_add(const uint8_t *old, const uint8_t *sym, uint8_t *neu,
                                                            uint32_t n, unsigned width, bool is_float)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t at = (size_t)i * width;
        uint64_t a = word_load(old + at, width), d = word_load(sym + at, width);
        word_store(neu + at, is_float ? unordered(ordered(a, width) + d, width) : a + d, width);
    }
}

static inline __attribute__((always_inline)) void words_key(const uint8_t *old, uint8_t *key, uint32_t n, unsigned width,
                                                            unsigned exponent_at)
{
    uint64_t mask = (1ull << (8 * width - 1 - exponent_at)) - 1; /* without the sign */
    for (uint32_t i = 0; i < n; i++)
        key[i] = (uint8_t)(word_load(old + (size_t)i * width, width) >> exponent_at & mask & 255);
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

static enum skf_err words_open(struct skf_work *w, const uint8_t *old, size_t n, unsigned width, unsigned exponent_at,
                               struct skf_stream *s)
{
    *s = (struct skf_stream){.n = (uint32_t)(n / width), .width = width};
    SKF_TRY(skf_area_need(&w->sym, n));
    s->sym = w->sym.p;
    if (!exponent_at)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->key, s->n));
#define KEY(wd) words_key(old, w->key.p, s->n, wd, exponent_at)
    BY_WIDTH(width, KEY)
    s->key = w->key.p;
    return SKF_OK;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------ */
struct blocks {
    const struct layout *l;
    uint32_t n, bytes; /* blocks, and bytes of each */
    const uint8_t *old;
    uint8_t *neu; /* complete when coding; its scales are complete when codes are decoded */
};

static float half_at(const uint8_t *p) { return skf_f16_to_f32(skf_le16(p)); }

static bool is_scale_same(const struct blocks *b, const uint8_t *old, const uint8_t *neu)
{
    for (unsigned i = 0; i < b->l->n_scales; i++) {
        unsigned at = b->l->fields[i].offset;
        if (memcmp(old + at, neu + at, 2) != 0)
            return false;
    }
    return true;
}

/* The code on the new grid that lies next to the old value. Single multiplications, additions and divisions of float32 are
 * the same everywhere; what is not finite predicts the old code. */
static int predict(const struct layout *l, const uint8_t *old, const uint8_t *neu, int code)
{
    float d_old = half_at(old), d_new = half_at(neu), x;
    int low = 0, high = 15;
    switch (l->grid) {
    case GRID_Q4_0:
        x = d_old * (float)(code - 8) / d_new + 8.0f;
        break;
    case GRID_Q4_1:
        x = d_old * (float)code + half_at(old + 2);
        x = (x - half_at(neu + 2)) / d_new;
        break;
    case GRID_Q8_0:
        x = d_old * (float)code / d_new;
        low = -128;
        high = 127;
        break;
    default:
        return code;
    }
    if (!(x > -1000.0f && x < 1000.0f)) /* a new scale of nothing, infinities, what is no number */
        return code;
    int q = (int)floorf(x + 0.5f);
    return q < low ? low : q > high ? high : q;
}

/* The predictions for one block's codes: `count` bytes as they would stand in the result. */
static void predict_block(const struct blocks *b, const struct field *f, const uint8_t *old, const uint8_t *neu,
                          uint8_t *out)
{
    const uint8_t *codes = old + f->offset;
    for (unsigned i = 0; i < f->count; i++) {
        if (f->kind == FIELD_BYTE)
            out[i] = (uint8_t)predict(b->l, old, neu, (int8_t)codes[i]);
        else
            out[i] = (uint8_t)(predict(b->l, old, neu, codes[i] & 15) | predict(b->l, old, neu, codes[i] >> 4) << 4);
    }
}

/* The bytes that the field's codes are coded against: the old ones, or `scratch` with their predictions. */
static const uint8_t *reference(const struct blocks *b, const struct field *f, const uint8_t *old, const uint8_t *neu,
                                bool is_same, uint8_t scratch[256])
{
    if (is_same || b->l->grid == GRID_NONE)
        return old + f->offset;
    predict_block(b, f, old, neu, scratch);
    return scratch;
}

static uint32_t field_elements(const struct field *f) { return f->kind == FIELD_NIBBLE ? 2u * f->count : f->count; }

/* A difference modulo 16 as -8 to 7. */
static inline uint8_t sign4(int d) { return (uint8_t)(((d & 15) ^ 8) - 8); }

static void field_sub(struct field f, const uint8_t *ref, const uint8_t *neu, uint8_t *sym)
{
    neu += f.offset;
    for (unsigned i = 0; i < f.count; i++) {
        switch (f.kind) {
        case FIELD_F16:
            skf_put_le16(sym + 2 * i, (uint16_t)(skf_le16(neu + 2 * i) - skf_le16(ref + 2 * i)));
            break;
        case FIELD_BYTE:
            sym[i] = (uint8_t)(neu[i] - ref[i]);
            break;
        case FIELD_XOR:
            sym[i] = neu[i] ^ ref[i];
            break;
        default:
            sym[2 * i] = sign4(neu[i] - ref[i]);
            sym[2 * i + 1] = sign4((neu[i] >> 4) - (ref[i] >> 4));
        }
    }
}

static void field_add(struct field f, const uint8_t *ref, const uint8_t *sym, uint8_t *neu)
{
    neu += f.offset;
    for (unsigned i = 0; i < f.count; i++) {
        switch (f.kind) {
        case FIELD_F16:
            skf_put_le16(neu + 2 * i, (uint16_t)(skf_le16(ref + 2 * i) + skf_le16(sym + 2 * i)));
            break;
        case FIELD_BYTE:
            neu[i] = (uint8_t)(ref[i] + sym[i]);
            break;
        case FIELD_XOR:
            neu[i] = ref[i] ^ sym[i];
            break;
        default:
            neu[i] = (uint8_t)(((ref[i] + sym[2 * i]) & 15) | ((((ref[i] >> 4) + sym[2 * i + 1]) & 15) << 4));
        }
    }
}

/* The stream of field f: its size, and for codes the context (did the block's scales change). */
static enum skf_err field_open(struct skf_work *w, const struct blocks *b, const struct field *f, struct skf_stream *s)
{
    *s = (struct skf_stream){.n = b->n * field_elements(f), .width = f->kind == FIELD_F16 ? 2 : 1};
    SKF_TRY(skf_area_need(&w->sym, (size_t)s->n * s->width));
    s->sym = w->sym.p;
    if (f->kind == FIELD_F16)
        return SKF_OK;
    uint32_t each = field_elements(f);
    while (s->shift < 5 && each % (2u << s->shift) == 0)
        s->shift++;
    uint32_t keys = each >> s->shift;
    SKF_TRY(skf_area_need(&w->key, (size_t)b->n * keys));
    for (uint32_t i = 0; i < b->n; i++) {
        bool is_same = is_scale_same(b, b->old + (size_t)i * b->bytes, b->neu + (size_t)i * b->bytes);
        memset(w->key.p + (size_t)i * keys, is_same ? 0 : 1, keys);
    }
    s->key = w->key.p;
    return SKF_OK;
}

static enum skf_err blocks_put(struct skf_work *w, const struct blocks *b, struct skf_buf *out)
{
    uint8_t scratch[256];
    for (unsigned k = 0; k < b->l->n_fields; k++) {
        const struct field *f = &b->l->fields[k];
        struct skf_stream s;
        SKF_TRY(field_open(w, b, f, &s));
        size_t each = (size_t)field_elements(f) * s.width;
        for (uint32_t i = 0; i < b->n; i++) {
            const uint8_t *old = b->old + (size_t)i * b->bytes, *neu = b->neu + (size_t)i * b->bytes;
            bool is_same = f->kind == FIELD_F16 || is_scale_same(b, old, neu);
            field_sub(*f, reference(b, f, old, neu, is_same, scratch), neu, s.sym + i * each);
        }
        SKF_TRY(skf_stream_put(w, &s, out));
    }
    return SKF_OK;
}

static enum skf_err blocks_get(struct skf_work *w, struct skf_reader *r, const struct blocks *b)
{
    uint8_t scratch[256];
    memcpy(b->neu, b->old, (size_t)b->n * b->bytes); /* fields whose stream is empty are right already */
    for (unsigned k = 0; k < b->l->n_fields; k++) {
        const struct field *f = &b->l->fields[k];
        struct skf_stream s;
        uint32_t n_set;
        SKF_TRY(field_open(w, b, f, &s));
        SKF_TRY(skf_stream_get(w, r, &s, &n_set));
        size_t each = (size_t)field_elements(f) * s.width;
        for (uint32_t i = 0; i < b->n; i++) {
            const uint8_t *old = b->old + (size_t)i * b->bytes;
            uint8_t *neu = b->neu + (size_t)i * b->bytes;
            bool is_same = f->kind == FIELD_F16 || is_scale_same(b, old, neu);
            if (n_set == 0 && is_same)
                continue;
            field_add(*f, reference(b, f, old, neu, is_same, scratch), s.sym + i * each, neu);
        }
    }
    return SKF_OK;
}

/* ---- both ---------------------------------------------------------------------------------------------------------------------- */
enum skf_err skf_int_put(struct skf_work *w, enum skf_type t, const uint8_t *old, const uint8_t *neu, size_t n,
                         struct skf_buf *out)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    if (!width) {
        uint32_t grain = skf_int_grain(t);
        if (!grain || n % grain)
            return SKF_ERR_ARG;
        struct blocks b = {layout_of(t), (uint32_t)(n / grain), grain, old, (uint8_t *)(uintptr_t)neu};
        return blocks_put(w, &b, out);
    }
    if (n % width)
        return SKF_ERR_ARG;
    struct skf_stream s;
    SKF_TRY(words_open(w, old, n, width, exponent_at, &s));
#define SUB(wd) words_sub(old, neu, s.sym, s.n, wd, exponent_at != 0)
    BY_WIDTH(width, SUB)
    return skf_stream_put(w, &s, out);
}

enum skf_err skf_int_get(struct skf_work *w, enum skf_type t, const uint8_t *payload, size_t payload_n,
                         const uint8_t *old, uint8_t *neu, size_t n)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    struct skf_reader r = skf_reader_of(payload, payload_n);
    if (!width) {
        uint32_t grain = skf_int_grain(t);
        if (!grain || n % grain)
            return SKF_ERR_FORMAT;
        struct blocks b = {layout_of(t), (uint32_t)(n / grain), grain, old, neu};
        SKF_TRY(blocks_get(w, &r, &b));
    } else {
        if (n % width)
            return SKF_ERR_FORMAT;
        struct skf_stream s;
        uint32_t n_set;
        SKF_TRY(words_open(w, old, n, width, exponent_at, &s));
        SKF_TRY(skf_stream_get(w, &r, &s, &n_set));
#define ADD(wd) words_add(old, s.sym, neu, s.n, wd, exponent_at != 0)
        BY_WIDTH(width, ADD)
    }
    return skf_reader_left(&r) == 0 ? SKF_OK : SKF_ERR_FORMAT;
}
