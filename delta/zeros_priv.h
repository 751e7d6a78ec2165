/*
 * Pruning: small old numbers that become zero, which one bound (or one for each row, or the rank in each few) says better than a
 * difference for each of them.
 *
 * A chunk in which many numbers become zero begins from its old numbers pruned alike; whatever that gets wrong is a difference like any
 * other.  What is pruned is a function of the old numbers' sizes alone: of a float its bits without the sign, of a code the bits of the
 * float32 that it stands for.
 */
#ifndef SKF_DELTA_ZEROS_PRIV_H
#define SKF_DELTA_ZEROS_PRIV_H

#include "delta/work_priv.h"

enum skf_zeros_kind { SKF_ZEROS_NONE, SKF_ZEROS_CHUNK, SKF_ZEROS_ROWS, SKF_ZEROS_GROUPS, SKF_ZEROS_COUNT };

#define SKF_ZEROS 3 /* the byte that says so, in place of levels' first byte */

struct skf_zeros {
    enum skf_zeros_kind kind;
    bool keeps_sign;       /* of floats: -0 of what was negative */
    bool is_on_grid;       /* of blocks with a scale and a minimum: the minimum is a multiple of the scale */
    uint8_t of, keep;      /* SKF_ZEROS_GROUPS: of so many in a row the largest so many stay; the first of those that are alike */
    const uint32_t *least; /* otherwise: what is of this size or smaller becomes zero; of each stripe, or one */
};
#define SKF_ZEROS_GROUP_MAX 32
static inline uint32_t skf_zeros_least(const struct skf_zeros *z, uint32_t k)
{
    return z->least[z->kind == SKF_ZEROS_ROWS ? k : 0];
}
#define SKF_ZEROS_SHARE     64 /* fewer of so many elements that are foreseen are not worth it */

/* Sizes of n elements: at most 31 bits, and whether they become zero; SKF_ZEROS_WAS for those that are zero before. */
#define SKF_ZEROS_BECOMES (1u << 31)
#define SKF_ZEROS_WAS     UINT32_MAX
/* What fits them best, a stripe being `stripe` elements; SKF_ZEROS_NONE where it pays nothing. Bounds stand in w->zero. */
SKF_MUST enum skf_err skf_zeros_find(struct skf_work *w, const uint32_t *size, uint32_t n, uint32_t stripe, struct skf_zeros *z);

SKF_MUST enum skf_err skf_zeros_put(const struct skf_zeros *z, uint32_t stripes, struct skf_buf *out);
/* SKF_ZEROS_NONE where none stand there. */
SKF_MUST enum skf_err skf_zeros_get(struct skf_work *w, struct skf_reader *r, uint32_t stripes, struct skf_zeros *z);

/* Of n sizes in stripe k, from a multiple of the group on: 255 where it becomes zero, otherwise 0; what is zero stays as it is. */
void skf_zeros_mark(const struct skf_zeros *z, uint32_t k, const uint32_t *size, uint32_t n, uint8_t *mark);
/* n words of two or four bytes in stripe k, in place. */
void skf_zeros_words(const struct skf_zeros *z, uint32_t k, uint8_t *p, unsigned width, uint32_t n);

#endif
