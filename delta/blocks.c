/*
 * Quantized types: blocks described field by field.  Scales are differences of bit patterns; codes of a block whose scales stay
 * are differences in the context of its step and its row's level; codes of a block whose scales moved are coded against the old
 * dequantized value on the new grid, in the context of where in the new cell it falls.
 */
#include <math.h>
#include <string.h>

#include "delta/factor_priv.h"
#include "delta/int_priv.h"
#include "delta/level_priv.h"

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
#define BLOCK 32 /* elements of a block on a grid */
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

uint32_t skf_blocks_grain(enum skf_type t)
{
    const struct skf_type_info *info = skf_type_info(t);
    return info && layout_of(t) ? info->block_bytes : 0;
}

/* Rows of fewer blocks are no stripes; where the contexts' middle stands; parts of a cell that are told apart. */
#define STRIPE_MIN 4
#define MIDDLE 22
#define CELL_PARTS 16

struct blocks {
    const struct layout *l;
    uint32_t n, bytes; /* blocks, and bytes of each */
    uint64_t row_bytes;
    const uint8_t *old;
    uint8_t *neu; /* complete when coding; its scales are complete when codes are decoded */
    const uint8_t *is_moved; /* of each block: not 0 when a scale differs */
    struct skf_factors factors;
};

static float half_at(const uint8_t *p) { return skf_f16_to_f32(skf_le16(p)); }

/* The codes of a block as numbers, in the order of its elements: the lower halves of all bytes come first. */
static SKF_LOOPS void codes_of(const struct field *f, const uint8_t *restrict p, int16_t *restrict code)
{
    unsigned n = f->count;
    for (unsigned i = 0; i < n && f->kind == FIELD_BYTE; i++)
        code[i] = (int8_t)p[i];
    for (unsigned i = 0; i < n && f->kind != FIELD_BYTE; i++) {
        code[i] = p[i] & 15;
        code[i + n] = p[i] >> 4;
    }
}

/* The codes on the new grid that lie next to the old values (with their guesses), and which parts of their cells these fall in.
 * Single multiplications, additions and divisions of float32 are the same everywhere; what is not finite predicts the old code. */
static SKF_LOOPS void predict(enum grid grid, const float scale[4], const float *restrict guess, int16_t *restrict code,
                              uint8_t *restrict part)
{
    const float d_old = scale[0], d_new = scale[1], m_old = scale[2], m_new = scale[3];
    const int low = grid == GRID_Q8_0 ? -128 : 0, high = grid == GRID_Q8_0 ? 127 : 15;
    float x[BLOCK];
    if (grid == GRID_Q4_1)
        for (unsigned e = 0; e < BLOCK; e++)
            x[e] = (d_old * (float)code[e] + m_old + guess[e] - m_new) / d_new;
    else if (grid == GRID_Q4_0)
        for (unsigned e = 0; e < BLOCK; e++)
            x[e] = (d_old * (float)(code[e] - 8) + guess[e]) / d_new + 8.0f;
    else
        for (unsigned e = 0; e < BLOCK; e++)
            x[e] = (d_old * (float)code[e] + guess[e]) / d_new;
    for (unsigned e = 0; e < BLOCK; e++) {
        bool is_near = x[e] > -1000.0f && x[e] < 1000.0f;
        float y = is_near ? x[e] + 0.5f : 0;
        int q = (int)y;
        q -= y < (float)q; /* what floor() is, without a call */
        part[e] = (uint8_t)(is_near ? (int)((y - (float)q) * CELL_PARTS) & (CELL_PARTS - 1) : 0);
        q = q < low ? low : q > high ? high : q;
        code[e] = (int16_t)(is_near ? q : code[e]);
    }
}

/* The predictions for one block's codes: `count` bytes as they would stand in the result; contexts of its elements, as they lie. */
static SKF_LOOPS void predict_block(const struct blocks *b, const struct field *f, const uint8_t *old, const uint8_t *neu,
                                    const float *guess, uint8_t *restrict out, uint8_t *restrict part)
{
    int16_t code[BLOCK];
    uint8_t in[BLOCK];
    bool has_min = b->l->n_scales > 1;
    const float scale[4] = {half_at(old), half_at(neu), has_min ? half_at(old + 2) : 0, has_min ? half_at(neu + 2) : 0};
    codes_of(f, old + f->offset, code);
    predict(b->l->grid, scale, guess, code, in);
    if (f->kind == FIELD_BYTE) {
        for (unsigned i = 0; i < BLOCK; i++)
            out[i] = (uint8_t)code[i];
        memcpy(part, in, BLOCK);
        return;
    }
    for (unsigned i = 0; i < BLOCK / 2; i++) {
        out[i] = (uint8_t)(code[i] | code[i + BLOCK / 2] << 4);
        part[2 * i] = in[i];
        part[2 * i + 1] = in[i + BLOCK / 2];
    }
}

static uint32_t field_elements(const struct field *f) { return f->kind == FIELD_NIBBLE ? 2u * f->count : f->count; }

/* A difference modulo 16 as -8 to 7. */
static inline uint8_t sign4(int d) { return (uint8_t)(((d & 15) ^ 8) - 8); }

/* ref and neu: the field's bytes. */
static SKF_LOOPS void field_sub(struct field f, const uint8_t *ref, const uint8_t *neu, uint8_t *val)
{
    switch (f.kind) {
    case FIELD_BYTE:
        for (unsigned i = 0; i < f.count; i++)
            val[i] = (uint8_t)(neu[i] - ref[i]);
        break;
    case FIELD_XOR:
        for (unsigned i = 0; i < f.count; i++)
            val[i] = neu[i] ^ ref[i];
        break;
    default:
        for (unsigned i = 0; i < f.count; i++) {
            val[2 * i] = sign4(neu[i] - ref[i]);
            val[2 * i + 1] = sign4((neu[i] >> 4) - (ref[i] >> 4));
        }
    }
}

static SKF_LOOPS void field_add(struct field f, const uint8_t *ref, const uint8_t *val, uint8_t *neu)
{
    switch (f.kind) {
    case FIELD_BYTE:
        for (unsigned i = 0; i < f.count; i++)
            neu[i] = (uint8_t)(ref[i] + val[i]);
        break;
    case FIELD_XOR:
        for (unsigned i = 0; i < f.count; i++)
            neu[i] = ref[i] ^ val[i];
        break;
    default:
        for (unsigned i = 0; i < f.count; i++)
            neu[i] = (uint8_t)(((ref[i] + val[2 * i]) & 15) | ((((ref[i] >> 4) + val[2 * i + 1]) & 15) << 4));
    }
}

/* ---- scales ------------------------------------------------------------------------------------------------------------------ */
/* Scale k of all blocks, in the context of the block (w->key) and of whether a scale before it moved (w->flag). */
static enum skf_err scale_open(struct skf_work *w, const struct blocks *b, struct skf_stream *s)
{
    SKF_TRY(skf_area_need(&w->val, 2 * (size_t)b->n));
    SKF_TRY(skf_area_need(&w->part, b->n));
    *s = (struct skf_stream){.val = w->val.p, .n = b->n, .width = 2, .key = w->part.p, .per = 1};
    for (uint32_t i = 0; i < b->n; i++)
        w->part.p[i] = (uint8_t)(w->key.p[i] / 2 + (w->flag.p[i] ? SKF_CONTEXTS / 2 : 0));
    return SKF_OK;
}

static void scale_mark(const struct blocks *b, const uint8_t *val, uint8_t *flag)
{
    for (uint32_t i = 0; i < b->n; i++)
        flag[i] |= skf_le16(val + 2 * (size_t)i) != 0;
}

static enum skf_err scales_put(struct skf_work *w, const struct blocks *b, struct skf_buf *out)
{
    SKF_TRY(skf_area_need(&w->flag, b->n));
    memset(w->flag.p, 0, b->n);
    for (unsigned k = 0; k < b->l->n_scales; k++) {
        struct skf_stream s;
        SKF_TRY(scale_open(w, b, &s));
        size_t at = b->l->fields[k].offset;
        for (uint32_t i = 0; i < b->n; i++, at += b->bytes)
            skf_put_le16(s.val + 2 * (size_t)i, (uint16_t)(skf_le16(b->neu + at) - skf_le16(b->old + at)));
        SKF_TRY(skf_stream_put(w, &s, out));
        scale_mark(b, s.val, w->flag.p);
    }
    return SKF_OK;
}

static enum skf_err scales_get(struct skf_work *w, struct skf_reader *r, const struct blocks *b)
{
    SKF_TRY(skf_area_need(&w->flag, b->n));
    memset(w->flag.p, 0, b->n);
    for (unsigned k = 0; k < b->l->n_scales; k++) {
        struct skf_stream s;
        bool is_zero;
        SKF_TRY(scale_open(w, b, &s));
        SKF_TRY(skf_stream_get(w, r, &s, &is_zero));
        if (is_zero)
            continue;
        size_t at = b->l->fields[k].offset;
        for (uint32_t i = 0; i < b->n; i++, at += b->bytes)
            skf_put_le16(b->neu + at, (uint16_t)(skf_le16(b->old + at) + skf_le16(s.val + 2 * (size_t)i)));
        scale_mark(b, s.val, w->flag.p);
    }
    return SKF_OK;
}

/* ---- contexts of blocks whose scales stay ---------------------------------------------------------------------------------- */
/* The step's logarithm in quarter octaves, near enough. */
static int scale_of(const struct blocks *b, const uint8_t *old)
{
    return b->l->n_scales ? (skf_le16(old + b->l->fields[0].offset) & 0x7fff) >> 8 : 0;
}


static void open_levels(const struct blocks *b, struct skf_levels *l)
{
    uint64_t row = b->row_bytes % b->bytes == 0 ? b->row_bytes / b->bytes : 0;
    uint32_t stripe = row >= STRIPE_MIN && row < b->n ? (uint32_t)row : b->n;
    *l = (struct skf_levels){.stripe = stripe, .n = (b->n + stripe - 1) / stripe, .step = 2};
}

/* In w->key, for every block. */
static enum skf_err make_keys(struct skf_work *w, const struct blocks *b, const struct skf_levels *l)
{
    SKF_TRY(skf_area_need(&w->key, b->n));
    for (uint32_t i = 0, k = 0; i < b->n; k++) {
        int at = skf_level_at(l, k);
        for (uint32_t end = SKF_MIN(b->n, i + l->stripe); i < end; i++)
            w->key.p[i] = skf_context(scale_of(b, b->old + (size_t)i * b->bytes), at);
    }
    return SKF_OK;
}

static void set_base(const struct blocks *b, struct skf_levels *l)
{
    double sum = 0;
    l->base = 0;
    for (uint32_t i = 0; i < b->n; i++)
        sum += scale_of(b, b->old + (size_t)i * b->bytes) + skf_level_at(l, i / l->stripe);
    l->base = MIDDLE - (int)floor(sum / b->n + 0.5);
}

/* How much each stripe's codes moved, from the field that describes most of the block: the last. */
static void measure(const struct blocks *b, const struct skf_levels *l, double *move, uint32_t *set)
{
    const struct field *f = &b->l->fields[b->l->n_fields - 1];
    uint8_t val[256];
    unsigned each = field_elements(f);
    for (uint32_t i = 0, k = 0; i < b->n; k++) {
        double still = 0;
        uint32_t begin = i, end = SKF_MIN(b->n, i + l->stripe);
        move[k] = 0;
        for (; i < end; i++) {
            size_t at = (size_t)i * b->bytes;
            double unit = exp2(scale_of(b, b->old + at) / 4.0);
            still += unit;
            set[i] = 0;
            if (b->is_moved[i] || memcmp(b->old + at + f->offset, b->neu + at + f->offset, f->count) == 0)
                continue;
            field_sub(*f, b->old + at + f->offset, b->neu + at + f->offset, val);
            for (unsigned e = 0; e < each; e++)
                set[i] += val[e] != 0;
            move[k] += set[i] * unit;
        }
        move[k] = (move[k] + 0.25 * still / (end - begin)) / ((double)(end - begin) * each);
    }
}

/* Bits to say which elements of each block are set, in its context. */
static double mask_cost(const struct skf_work *w, const struct blocks *b, const uint32_t *set, unsigned each)
{
    double all[SKF_CONTEXTS] = {0}, some[SKF_CONTEXTS] = {0}, bits = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->is_moved[i])
            continue;
        all[w->key.p[i]] += each;
        some[w->key.p[i]] += set[i];
    }
    for (unsigned c = 0; c < SKF_CONTEXTS; c++)
        if (some[c] > 0 && some[c] < all[c])
            bits += some[c] * log2(all[c] / some[c]) + (all[c] - some[c]) * log2(all[c] / (all[c] - some[c]));
    return bits;
}

static enum skf_err mark_moved(struct skf_work *w, const struct blocks *b)
{
    SKF_TRY(skf_area_need(&w->flag, b->n));
    memset(w->flag.p, 0, b->n);
    for (unsigned k = 0; k < b->l->n_scales; k++) {
        size_t at = b->l->fields[k].offset;
        for (uint32_t i = 0; i < b->n; i++, at += b->bytes)
            w->flag.p[i] |= skf_le16(b->neu + at) != skf_le16(b->old + at);
    }
    return SKF_OK;
}

static enum skf_err choose_levels(struct skf_work *w, const struct blocks *b, struct skf_levels *l)
{
    unsigned each = field_elements(&b->l->fields[b->l->n_fields - 1]);
    double side;
    set_base(b, l);
    SKF_TRY(make_keys(w, b, l));
    if (l->n == 1)
        return SKF_OK;
    SKF_TRY(skf_area_need(&w->val, l->n * sizeof(double) + b->n * sizeof(uint32_t)));
    double *move = (double *)(void *)w->val.p;
    uint32_t *set = (uint32_t *)(void *)(move + l->n);
    measure(b, l, move, set);
    double plain = mask_cost(w, b, set, each);
    struct skf_levels try = *l;
    SKF_TRY(skf_levels_make(w, move, &try));
    SKF_TRY(skf_levels_cost(w, &try, &side));
    set_base(b, &try);
    SKF_TRY(make_keys(w, b, &try));
    /* Twice: what levels tell, masks of neighbours tell in part by themselves. */
    if (mask_cost(w, b, set, each) + 2 * side < plain) {
        *l = try;
        return SKF_OK;
    }
    return make_keys(w, b, l);
}

/* In w->same: contexts of the n blocks that stay. */
static enum skf_err close_up(struct skf_work *w, const struct blocks *b, uint32_t *n)
{
    SKF_TRY(skf_area_need(&w->same, b->n));
    *n = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (!b->is_moved[i])
            w->same.p[(*n)++] = w->key.p[i];
    return SKF_OK;
}

/* ---- codes -------------------------------------------------------------------------------------------------------------------- */
/* The codes of field f in blocks whose scales stay, n of them (contexts in w->same); and in the others. */
static enum skf_err same_open(struct skf_work *w, const struct field *f, uint32_t n, struct skf_stream *s)
{
    unsigned each = field_elements(f);
    SKF_TRY(skf_area_need(&w->val, (size_t)n * each));
    *s = (struct skf_stream){.val = w->val.p, .n = n * each, .width = 1, .key = w->same.p, .per = each};
    return SKF_OK;
}

/* In w->part: contexts of all elements; in w->ref: the bytes they are coded against. */
static SKF_LOOPS enum skf_err moved_open(struct skf_work *w, const struct blocks *b, const struct field *f, uint32_t n,
                               struct skf_stream *s)
{
    unsigned each = field_elements(f);
    SKF_TRY(skf_area_need(&w->val, (size_t)n * each));
    SKF_TRY(skf_area_need(&w->part, (size_t)n * each));
    SKF_TRY(skf_area_need(&w->ref, (size_t)n * f->count));
    *s = (struct skf_stream){.val = w->val.p, .n = n * each, .width = 1, .key = w->part.p, .per = 1};
    uint8_t *part = w->part.p, *ref = w->ref.p;
    const struct skf_factors *g = &b->factors;
    float guess[BLOCK] = {0};
    uint32_t in_row = g->columns / BLOCK;
    for (uint32_t i = 0; i < b->n; i++) {
        const uint8_t *old = b->old + (size_t)i * b->bytes, *neu = b->neu + (size_t)i * b->bytes;
        if (!b->is_moved[i])
            continue;
        if (g->rank) {
            if (i % in_row == 0)
                skf_factors_row(g, i / in_row);
            memcpy(guess, g->guess + (size_t)(i % in_row) * BLOCK, sizeof guess);
        }
        if (b->l->grid == GRID_NONE) {
            memcpy(ref, old + f->offset, f->count);
            memset(part, 0, each);
        } else {
            predict_block(b, f, old, neu, guess, ref, part);
        }
        uint8_t class = (uint8_t)(w->key.p[i] < MIDDLE - 2 ? 0 : w->key.p[i] < MIDDLE + 3 ? CELL_PARTS : 2 * CELL_PARTS);
        for (unsigned e = 0; e < each; e++)
            part[e] = (uint8_t)(part[e] + class);
        part += each;
        ref += f->count;
    }
    return SKF_OK;
}

static enum skf_err field_put(struct skf_work *w, const struct blocks *b, const struct field *f, uint32_t n_same,
                              struct skf_buf *out)
{
    struct skf_stream s;
    unsigned each = field_elements(f);
    SKF_TRY(same_open(w, f, n_same, &s));
    for (uint32_t i = 0, k = 0; i < b->n; i++) {
        size_t at = (size_t)i * b->bytes + f->offset;
        if (!b->is_moved[i])
            field_sub(*f, b->old + at, b->neu + at, s.val + (size_t)each * k++);
    }
    SKF_TRY(skf_stream_put(w, &s, out));
    SKF_TRY(moved_open(w, b, f, b->n - n_same, &s));
    for (uint32_t i = 0, k = 0; i < b->n; i++) {
        if (!b->is_moved[i])
            continue;
        field_sub(*f, w->ref.p + (size_t)k * f->count, b->neu + (size_t)i * b->bytes + f->offset, s.val + (size_t)each * k);
        k++;
    }
    return skf_stream_put(w, &s, out);
}

static enum skf_err field_get(struct skf_work *w, struct skf_reader *r, const struct blocks *b, const struct field *f,
                              uint32_t n_same)
{
    struct skf_stream s;
    bool is_zero;
    unsigned each = field_elements(f);
    const struct field field = *f;
    SKF_TRY(same_open(w, f, n_same, &s));
    SKF_TRY(skf_stream_get(w, r, &s, &is_zero));
    for (uint32_t i = 0, k = 0; !is_zero && i < b->n; i++) {
        size_t at = (size_t)i * b->bytes + f->offset;
        if (!b->is_moved[i])
            field_add(field, b->old + at, s.val + (size_t)each * k++, b->neu + at);
    }
    SKF_TRY(moved_open(w, b, f, b->n - n_same, &s));
    SKF_TRY(skf_stream_get(w, r, &s, &is_zero));
    for (uint32_t i = 0, k = 0; i < b->n; i++) {
        if (!b->is_moved[i])
            continue;
        field_add(field, w->ref.p + (size_t)k * f->count, s.val + (size_t)each * k, b->neu + (size_t)i * b->bytes + f->offset);
        k++;
    }
    return SKF_OK;
}

static struct blocks blocks_of(enum skf_type t, uint64_t row_bytes, const uint8_t *old, uint8_t *neu, size_t n)
{
    uint32_t grain = skf_blocks_grain(t);
    return (struct blocks){layout_of(t), (uint32_t)(n / grain), grain, row_bytes, old, neu, NULL, {0}};
}

/* ---- guesses ---------------------------------------------------------------------------------------------------------------- */
/* The numbers that a block stands for. */
static SKF_LOOPS void values_of(enum grid grid, const uint8_t *restrict p, float *restrict out)
{
    float d = half_at(p), m = grid == GRID_Q4_1 ? half_at(p + 2) : grid == GRID_Q4_0 ? d * -8.0f : 0;
    const uint8_t *codes = p + (grid == GRID_Q4_1 ? 4 : 2);
    for (unsigned e = 0; e < BLOCK && grid == GRID_Q8_0; e++)
        out[e] = d * (float)(int8_t)codes[e];
    for (unsigned e = 0; e < BLOCK / 2 && grid != GRID_Q8_0; e++) {
        out[e] = d * (float)(codes[e] & 15) + m;
        out[e + BLOCK / 2] = d * (float)(codes[e] >> 4) + m;
    }
}

static SKF_LOOPS enum skf_err row_change(void *ctx, uint64_t row, float *out)
{
    const struct blocks *b = ctx;
    uint32_t in_row = b->factors.columns / BLOCK;
    memset(out, 0, b->factors.columns * sizeof *out);
    for (uint32_t i = (uint32_t)row * in_row, end = SKF_MIN(b->n, i + in_row); i < end; i++) {
        size_t at = (size_t)i * b->bytes;
        float was[BLOCK], is[BLOCK];
        values_of(b->l->grid, b->old + at, was);
        values_of(b->l->grid, b->neu + at, is);
        for (unsigned e = 0; e < BLOCK; e++, out++) {
            float d = is[e] - was[e];
            *out = d > -1e15f && d < 1e15f ? d : 0;
        }
    }
    return SKF_OK;
}

static void open_factors(struct blocks *b, const struct skf_levels *l, const uint8_t *side, size_t side_n)
{
    b->factors = (struct skf_factors){.rows = l->n, .columns = BLOCK * l->stripe, .side = side, .side_n = side_n};
}

/* With a guess every code has its own context, whether its scales moved or not. */
static void mark_guessed(struct skf_work *w, const struct blocks *b)
{
    if (b->factors.rank)
        memset(w->flag.p, 1, b->n);
}

enum skf_err skf_blocks_put(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side, size_t side_n,
                            const uint8_t *old, const uint8_t *neu, size_t n, struct skf_buf *out)
{
    struct blocks b = blocks_of(t, row_bytes, old, (uint8_t *)(uintptr_t)neu, n);
    struct skf_levels l;
    open_levels(&b, &l);
    SKF_TRY(mark_moved(w, &b));
    b.is_moved = w->flag.p;
    SKF_TRY(choose_levels(w, &b, &l));
    SKF_TRY(skf_levels_put(w, &l, out));
    SKF_TRY(scales_put(w, &b, out));
    if (b.l->grid != GRID_NONE) {
        open_factors(&b, &l, side, side_n);
        SKF_TRY(skf_factors_choose(w, &b.factors, SKF_GAIN_BLOCKS, row_change, &b));
        SKF_TRY(skf_factors_put(w, &b.factors, out));
        mark_guessed(w, &b);
    }
    uint32_t n_same;
    SKF_TRY(close_up(w, &b, &n_same));
    for (unsigned k = b.l->n_scales; k < b.l->n_fields; k++)
        SKF_TRY(field_put(w, &b, &b.l->fields[k], n_same, out));
    return SKF_OK;
}

enum skf_err skf_blocks_get(struct skf_work *w, struct skf_reader *r, enum skf_type t, uint64_t row_bytes,
                            const uint8_t *side, size_t side_n, const uint8_t *old, uint8_t *neu, size_t n)
{
    struct blocks b = blocks_of(t, row_bytes, old, neu, n);
    struct skf_levels l;
    open_levels(&b, &l);
    memcpy(b.neu, b.old, (size_t)b.n * b.bytes); /* fields whose stream is empty are right already */
    SKF_TRY(skf_levels_get(w, r, &l));
    SKF_TRY(make_keys(w, &b, &l));
    SKF_TRY(scales_get(w, r, &b));
    b.is_moved = w->flag.p;
    if (b.l->grid != GRID_NONE) {
        open_factors(&b, &l, side, side_n);
        SKF_TRY(skf_factors_get(w, r, &b.factors));
        mark_guessed(w, &b);
    }
    uint32_t n_same;
    SKF_TRY(close_up(w, &b, &n_same));
    for (unsigned k = b.l->n_scales; k < b.l->n_fields; k++)
        SKF_TRY(field_get(w, r, &b, &b.l->fields[k], n_same));
    return SKF_OK;
}
