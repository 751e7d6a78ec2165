/*
 * Quantized types as descriptions: what a block holds, where its codes lie, and which steps they are multiples of.
 *
 * A block is halves (scales of the whole block), and one or two fields of codes, small integers packed in planes of bits.  A code
 * stands for step * code + offset, and a unit is the run of codes that share a step.  In types with two fields the codes of the
 * first are themselves the steps of the second, on the halves' grid.  Elements are in the order of the tensor, however they lie.
 */
#ifndef SKF_DELTA_BLOCKS_PRIV_H
#define SKF_DELTA_BLOCKS_PRIV_H

#include "delta/factor_priv.h"
#include "delta/int_priv.h"
#include "delta/level_priv.h"

/* ---- descriptions ------------------------------------------------------------------------------------------------------------ */
#define BLOCKS_CODES 256 /* the most codes of a field */
#define BLOCKS_UNITS 32  /* the most units of a field */
#define BLOCKS_FIELDS 2

/* Element e has its `bits` bits at byte at + e / (run * p) * run + e % run, from bit bits * (e / run % p), p = 8 / bits. */
struct skf_plane {
    uint8_t at, bits, run; /* bits 0: no such plane */
};
enum skf_grid {
    GRID_NONE,   /* not multiples of anything: differences from the old codes alone */
    GRID_HALF,   /* of the first half, from the second on where there are two */
    GRID_HALVES, /* the first half of the units of the first half, the others of the second */
    GRID_SUB,    /* of the first half times code `unit` of the field before */
    GRID_SUB_MIN /* the same, less the second half times code n / 2 + `unit` of it */
};
struct skf_codes {
    uint16_t n;
    uint8_t unit; /* codes that share a step */
    uint8_t bits; /* of a code, all planes together; 8: signed */
    uint8_t bias; /* what is subtracted from a code before it is multiplied */
    enum skf_grid grid;
    struct skf_plane low, high;
    bool is_k4; /* six bits each in twelve bytes as Q4_K and Q5_K have them, at low.at */
};
struct skf_layout {
    enum skf_type type;
    uint8_t n_halves, half[2]; /* where they stand */
    uint8_t n_fields;
    struct skf_codes field[BLOCKS_FIELDS];
};
const struct skf_layout *skf_layout_of(enum skf_type t); /* NULL when not described */

/* The n codes of a block, in order; and into it. */
void skf_codes_get(const struct skf_codes *f, const uint8_t *block, int8_t *code);
void skf_codes_set(const struct skf_codes *f, uint8_t *block, const int8_t *code);
/* Adds d to code e, modulo its bits. */
void skf_code_add(const struct skf_codes *f, uint8_t *block, unsigned e, int d);
/* What difference d of two codes is modulo their bits, as a signed number. */
static inline int8_t skf_code_wrap(const struct skf_codes *f, int d)
{
    unsigned top = 1u << (f->bits - 1);
    return (int8_t)((int)(((unsigned)d & (2 * top - 1)) ^ top) - (int)top);
}

struct skf_step {
    float step, offset; /* value = step * code + offset */
};
/* The steps of a block's units for field k. */
void skf_steps_get(const struct skf_layout *l, unsigned k, const uint8_t *block, struct skf_step *s);
/* A step's size in quarter octaves, near enough. */
static inline int skf_step_scale(float step)
{
    return (int)(skf_float_bits(step) >> 21 & 1023) - 448;
}
/* A half as a number, and its size likewise: short for all that are normal. What is not finite counts as 0. */
static inline float skf_half_at(const uint8_t *p)
{
    uint32_t h = skf_le16(p), e = h >> 10 & 31;
    float f = skf_bits_float((h & 0x8000) << 16 | ((h & 0x7fff) + 0x1c000) << 13);
    return e == 0 ? skf_f16_to_f32((uint16_t)h) : e == 31 ? 0 : f;
}
static inline int skf_half_scale(const uint8_t *p)
{
    unsigned e = p[1] & 0x7f; /* exponent and two bits: what is left of a normal half */
    return e >= 4 && e < 124 ? (int)e : skf_step_scale(skf_half_at(p));
}

/* Classes of steps against what their row moves, of contexts. */
#define BLOCKS_CLASSES 7
extern const uint8_t skf_step_class[SKF_CONTEXTS];

/* ---- predictions ------------------------------------------------------------------------------------------------------------- */
/*
 * x = ratio * code + offset + guess * slope, each operation rounded to float32, is where an old value (moved by its guess) lies on the
 * new grid; the prediction is the code next to it, and the context how far from the middle of that code's cell it lies.  A change
 * is likelier towards x: there differences are positive.  A code at an end of the range, where a block's extremes are by their
 * nature, is predicted to stay.
 */
struct skf_map {
    float ratio, offset, slope;
    uint8_t class, end_class; /* added to contexts: of codes within the range, and at its ends */
};
#define BLOCKS_PARTS 6 /* distances from the middle that are told apart */
struct skf_range {
    int low, high;         /* what codes can be */
    int end_low, end_high; /* from where they are at an end */
};
struct skf_predictions { /* of elements: what is expected, its context, and -1 where differences count downwards */
    int8_t *code;
    uint8_t *key;
    int8_t *turn;
};
/* n maps, for `unit` codes each; guess NULL: all 0. The vector forms want units of 16 or 32. */
typedef void skf_predict_fn(const int8_t *code, const float *guess, const struct skf_map *map, uint32_t n, unsigned unit,
                            const struct skf_range *range, const struct skf_predictions *out);
skf_predict_fn skf_predict_ref, skf_predict_avx2, skf_predict_avx512;
skf_predict_fn *skf_predict_pick(enum skf_isa isa, unsigned unit);

/* ---- peaks ------------------------------------------------------------------------------------------------------------------- */
/* Of n blocks whose 32 codes of eight bits stand `stride` bytes apart: where the first of size 127 or more stands, 32 when there is
 * none. It is what a block's step was made of. */
typedef void skf_peaks_fn(const uint8_t *code, size_t stride, uint32_t n, uint8_t *at);
skf_peaks_fn skf_peaks_ref, skf_peaks_avx2;
skf_peaks_fn *skf_peaks_pick(enum skf_isa isa);

/* ---- order ------------------------------------------------------------------------------------------------------------------- */
/* Where a unit of 32 codes of eight bits stays, its elements are taken in the order of their old code's size: below 32, below 64,
 * and the others, each as they lie. */
#define BLOCKS_ORDERED 32
/* Element k of the order is order[k]. */
void skf_order(const uint8_t *code, uint8_t order[BLOCKS_ORDERED]);
struct skf_ordered {
    const uint8_t *old; /* the codes of block 0; those of the others `stride` bytes apart */
    uint8_t *neu;
    size_t stride;
    const uint32_t *same; /* numbers of the blocks; NULL: as they come */
};
/* Adds changes, whose masks are of places in the order, to the new codes. */
typedef void skf_ordered_fn(const struct skf_ordered *o, const struct skf_changes *c);
skf_ordered_fn skf_ordered_ref, skf_ordered_avx512, skf_ordered_vbmi2;
skf_ordered_fn *skf_ordered_pick(enum skf_isa isa);
/* The other way round: differences of n blocks' codes in their order; room for BLOCKS_ORDERED more. */
void skf_order_diffs(enum skf_isa isa, const struct skf_ordered *o, uint32_t n, int8_t *d);
void skf_order_diffs_ref(const struct skf_ordered *o, uint32_t n, int8_t *d);
void skf_order_diffs_vbmi2(const struct skf_ordered *o, uint32_t n, int8_t *d);

#define BLOCKS_BASE_MAX 4096 /* of contexts, either way */

/* ---- chunks ------------------------------------------------------------------------------------------------------------------ */
struct skf_blocks {
    const struct skf_layout *l;
    uint32_t n, bytes; /* blocks, and bytes of each */
    uint64_t row_bytes;
    const uint8_t *old;
    uint8_t *neu;   /* complete when coding; when decoding, what was decoded so far is */
    uint8_t *moved; /* of each block: not 0 when something its last field's steps depend on differs */
    bool has_moved; /* one of them is not 0 */
    bool has_zero;  /* new grids have zero on them: see skf_half_base */
    struct skf_levels levels;
    struct skf_factors factors;
};
static inline const uint8_t *skf_old_block(const struct skf_blocks *b, uint32_t i) { return b->old + (size_t)i * b->bytes; }
static inline uint8_t *skf_new_block(const struct skf_blocks *b, uint32_t i) { return b->neu + (size_t)i * b->bytes; }
/* Blocks of a half and one unit of 32 codes of eight bits, all guessed at: what most of an embedding is. */
static inline bool skf_is_bytes(const struct skf_blocks *b)
{
    return b->factors.rank && b->l->n_halves == 1 && b->l->n_fields == 1 && b->l->field[0].bits == 8;
}
/* The first block from i on that moved, or b->n; eight are passed over at once. */
static inline uint32_t skf_next_moved(const struct skf_blocks *b, uint32_t i)
{
    while (i < b->n && !b->moved[i])
        i += b->n - i >= 8 && !skf_le64(b->moved + i) ? 8 : 1;
    return i;
}
/* Where the scales of block i's contexts are counted from: to be added. */
static inline int skf_row_at(const struct skf_blocks *b, uint32_t i, int base)
{
    return base + skf_level_at(&b->levels, i / b->levels.stripe);
}
/* Runs of such blocks: what the plain loops do one after the other, these do at once. */
#define SKF_BYTES_RUN 64
#define SKF_REACHES 6 /* classes of guesses at a peak (blocks_half.c) */
struct skf_bytes_run {
    const struct skf_blocks *b; /* its factors have `packed` and `base` */
    int base;                   /* of contexts */
    uint32_t first, n;          /* blocks: at most SKF_BYTES_RUN */
};
struct skf_bytes {
    /* Predictions of all codes; what skf_predict_ref makes of the maps of blocks_moved.c. */
    void (*predict)(const struct skf_bytes_run *r, const struct skf_predictions *out);
    /* Contexts of the halves, and -1 where the guess makes one smaller: as blocks_half.c has them. No new byte is read. */
    void (*peaks)(const struct skf_bytes_run *r, uint8_t *key, uint8_t *turn);
    /* The codes of n blocks, `stride` bytes apart, from small symbols; whether some were not small. */
    bool (*undo)(const uint8_t *sym, const struct skf_predictions *t, uint8_t *code, size_t stride, uint32_t n);
};
const struct skf_bytes *skf_bytes_pick(enum skf_isa isa); /* NULL: there are none */
void skf_bytes_predict_avx512(const struct skf_bytes_run *r, const struct skf_predictions *out);
void skf_bytes_peaks_avx512(const struct skf_bytes_run *r, uint8_t *key, uint8_t *turn);
bool skf_bytes_undo_avx512(const uint8_t *sym, const struct skf_predictions *t, uint8_t *code, size_t stride, uint32_t n);

/* A field's units: those that stay, and those that moved because their step did, or because all are guessed at. */
struct skf_plan {
    const struct skf_codes *f;
    unsigned k, units; /* the field, and its units in a block */
    int base;          /* of contexts */
    bool is_guessed;
    uint32_t n_same, n_moved;
    const uint8_t *key;   /* contexts of the units that stay */
    const uint32_t *same; /* their numbers; NULL: all stay */
};
/* Which units of a block moved, bit by bit; the steps are not looked at where a block that did not move is asked for. */
uint32_t skf_moved_set(const struct skf_plan *p, bool is_moved, const struct skf_step *was, const struct skf_step *is);
/* The codes of the units that moved. */
SKF_MUST enum skf_err skf_moved_put(struct skf_work *w, const struct skf_blocks *b, const struct skf_plan *p,
                                    struct skf_buf *out);
SKF_MUST enum skf_err skf_moved_get(struct skf_work *w, struct skf_reader *r, const struct skf_blocks *b,
                                    const struct skf_plan *p);
/* Codes of field k of all blocks. */
SKF_MUST enum skf_err skf_field_put(struct skf_work *w, struct skf_blocks *b, unsigned k, struct skf_buf *out);
SKF_MUST enum skf_err skf_field_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b, unsigned k);
/* Halves of all blocks; sets b->moved. */
SKF_MUST enum skf_err skf_halves_put(struct skf_work *w, struct skf_blocks *b, struct skf_buf *out);
SKF_MUST enum skf_err skf_halves_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b);
/* Where many codes become zero, b->old are the old blocks pruned alike afterwards, in w->narrow. */
struct skf_zeros;
SKF_MUST enum skf_err skf_blocks_zeros_put(struct skf_work *w, struct skf_blocks *b, struct skf_zeros *z);
SKF_MUST enum skf_err skf_blocks_zeros_get(struct skf_work *w, struct skf_reader *r, struct skf_blocks *b);
/* What differences of half k count from in a block whose halves before it are new already: the old half; where new grids have zero on them,
 * what the old grid comes to then. */
uint16_t skf_zero_base(const struct skf_blocks *b, uint32_t i, unsigned k);
static inline uint16_t skf_half_base(const struct skf_blocks *b, uint32_t i, unsigned k)
{
    return b->has_zero ? skf_zero_base(b, i, k) : skf_le16(skf_old_block(b, i) + b->l->half[k]);
}
/* The whole chunk as lists of what changes, in w; *n is 0 where it is not worth it, or that takes `most` bytes or more. */
SKF_MUST enum skf_err skf_blocks_spots_put(struct skf_work *w, const struct skf_blocks *b, size_t most, const uint8_t **p,
                                           size_t *n);
SKF_MUST enum skf_err skf_blocks_spots_get(struct skf_work *w, struct skf_reader *r, const struct skf_blocks *b);

#endif
