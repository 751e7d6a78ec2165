/*
 * Contexts from size: how far an element is likely to move, in its own steps.
 *
 * An element has a scale x (of a float twice its exponent, of a block the logarithm of its step), which both sides know; a stripe
 * (a row of the matrix) has a level: how much it moved, which is sent where it pays.  The context is the difference of the two,
 * so that elements whose changes are alike share a table wherever they stand.
 */
#ifndef SKF_DELTA_LEVEL_PRIV_H
#define SKF_DELTA_LEVEL_PRIV_H

#include "delta/rans_priv.h"

#define SKF_LEVELS 64

struct skf_levels {
    const uint8_t *level; /* of each stripe; NULL: 0 everywhere */
    uint32_t n, stripe;   /* stripes, and elements in each but the last */
    int base, step;
};
/* What to subtract x from: context of x in stripe i is skf_context(x, skf_level_at(l, i)). */
static inline int skf_level_at(const struct skf_levels *l, uint32_t i)
{
    return l->base - l->step * (l->level ? l->level[i] : 0);
}
static inline uint8_t skf_context(int x, int at)
{
    int c = x + at;
    return (uint8_t)(c < 0 ? 0 : c >= SKF_CONTEXTS ? SKF_CONTEXTS - 1 : c);
}

/* Levels of n stripes that moved by move[i] on average (any unit whose double is 2 * unit of x / step more). In w->level. */
SKF_MUST enum skf_err skf_levels_make(struct skf_work *w, const double *move, struct skf_levels *l);
/* What they cost, in bits. */
SKF_MUST enum skf_err skf_levels_cost(struct skf_work *w, const struct skf_levels *l, double *bits);
SKF_MUST enum skf_err skf_levels_put(struct skf_work *w, const struct skf_levels *l, struct skf_buf *out);
/* l->n, stripe and step are set by the caller; the rest is read. */
SKF_MUST enum skf_err skf_levels_get(struct skf_work *w, struct skf_reader *r, struct skf_levels *l);

#endif
