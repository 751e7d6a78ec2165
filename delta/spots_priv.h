/*
 * A few places of a matrix at which a number changes, and by how much: as bits, without a table.
 *
 * What calibration changes lies in a few columns, those whose inputs are large: which lines (columns, or rows) change at all is said
 * first, then how often each does, then where.  Sorted numbers are halved: the one in the middle is as likely anywhere between what is
 * left below and above it, and so with the rest on either side; no parameter has to fit them.
 */
#ifndef SKF_DELTA_SPOTS_PRIV_H
#define SKF_DELTA_SPOTS_PRIV_H

#include "delta/words_priv.h"

/* How many of n places may change: what a reader makes room for. */
#define SPOTS_MOST(n) ((uint64_t)(n) / 16 + 4096)

struct skf_spot {
    uint32_t row, column;
    int32_t d; /* never 0; of a size up to 2^15 */
};
struct skf_spots {
    uint32_t rows, columns; /* of the matrix */
    uint32_t n;             /* spots, sorted by rows and then columns */
    const struct skf_spot *spot;
};

/* Room to make n spots in: more than they ever take. */
#define SPOTS_ROOM(n) (48 * (size_t)(n) + 96)
/* Appends them. `list` is the caller's room, here and below. */
SKF_MUST enum skf_err skf_spots_put(struct skf_area *list, struct skf_bits_out *b, const struct skf_spots *s);

/* What becomes of a spot that is read; false: no encoder writes it. */
typedef bool skf_spot_fn(void *ctx, uint32_t row, uint32_t column, int32_t d);
/* Up to SPOTS_MOST(rows * columns) of them, in no order. */
SKF_MUST enum skf_err skf_spots_get(struct skf_area *list, struct word_bits *b, uint32_t rows, uint32_t columns,
                                    skf_spot_fn *fn, void *ctx);

#endif
