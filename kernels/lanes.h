/*
 * Matrices laid out for the kernels: sixteen rows side by side, so that a vector of any width holds as many rows as it has lanes
 * and a group of rows is read as one stream.  The layout is the same on every machine and takes as many bytes as the rows
 * (but for a last group of fewer than 16 rows, and the alignment of a group's heads), so it can be made once and kept.
 *
 * A group of 16 rows is two runs.  Heads: for each block the 16-bit numbers of the type (scales, then minima), of 16 rows each,
 * little-endian IEEE halves; the run is filled up to 64 bytes.  Body: for each block its 32-bit words in the order of forms[]
 * (lanes.c), of 16 rows each.  The rows that a last group lacks are zeros.  Words are the type's own bytes, but for the high bits of
 * Q5_0 and Q5_1: bit 8 j + k of theirs is that of element 4 k + j, so that one shift brings those of four elements to four bytes.
 */
#ifndef SKF_KERNELS_LANES_H
#define SKF_KERNELS_LANES_H

#include "kernels/kernels.h"

#define SKF_LANES 16u
#define SKF_LANES_FORMAT 1u /* another one for any change of the bytes below: layouts are kept on disk */

/* Whether matrices of the type are ever laid out so: the block types that can be multiplied. */
bool is_lanes_type(enum skf_type t);
/* Bytes of a matrix laid out so, a multiple of 64; 0 for another type or a size beyond 2^62. */
uint64_t skf_lanes_size(const struct skf_weight *w);
/* Lays out groups group0 <= g < group1 of w (ceil(rows / 16) in all) at their places in `out`, which has skf_lanes_size(w) bytes; any
 * number of threads may do groups of their own. */
void skf_lanes_lay(const struct skf_weight *w, uint32_t group0, uint32_t group1, uint8_t *out);

#endif
