/*
 * How a type's block is laid out (lanes.h), for what lays it out and the kernels.
 */
#ifndef SKF_KERNELS_LANES_PRIV_H
#define SKF_KERNELS_LANES_PRIV_H

#include "kernels/kernels_priv.h"
#include "kernels/lanes.h"

#define SKF_LANES_HALF (2 * SKF_LANES) /* bytes of one 16-bit number of all rows */
#define SKF_LANES_WORD (4 * SKF_LANES)

struct skf_lanes_run {
    uint16_t at, words; /* offset in the block, 32-bit words */
};
struct skf_lanes_form {
    enum skf_type type;
    uint16_t block, bytes;       /* elements and bytes of a block */
    uint16_t halves, half_at[2]; /* 16-bit numbers and where they stand */
    uint16_t words;              /* of all runs */
    struct skf_lanes_run run[3];
    bool is_spread;              /* the first word is the high bits of 32 codes and goes in other order */
};
/* NULL for a type that is not laid out. */
const struct skf_lanes_form *skf_lanes_form(enum skf_type t);

static inline uint64_t skf_lanes_heads(const struct skf_lanes_form *f, uint32_t cols)
{
    return ((uint64_t)cols / f->block * f->halves * SKF_LANES_HALF + 63) / 64 * 64;
}
static inline uint64_t skf_lanes_group(const struct skf_lanes_form *f, uint32_t cols)
{
    return skf_lanes_heads(f, cols) + (uint64_t)cols / f->block * f->words * SKF_LANES_WORD;
}
/* Blocks b0 .. b0 + n - 1 of 16 rows: their heads at head, their words at body. A NULL row is zeros. */
void skf_lanes_blocks(const struct skf_lanes_form *f, const uint8_t *const *rp, uint32_t b0, uint32_t n, uint8_t *head,
                     uint8_t *body);

#endif
