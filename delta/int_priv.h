/*
 * SKF_CODE_INT: a chunk of a tensor as integer differences from the same place of the source's tensor of the same type.
 *
 * Plain types are words: floats are first mapped to integers in the order of the numbers (so that neighbours differ by one,
 * across zero too), sorted by the old value's exponent.  Quantized types are blocks, described field by field: f16 scales by
 * their bit patterns, codes by nibble or byte; where a block's scales changed, its codes are predicted from the old
 * dequantized value on the new grid.  Each field is one stream (stream_priv.h).
 */
#ifndef SKF_DELTA_INT_PRIV_H
#define SKF_DELTA_INT_PRIV_H

#include "delta/stream_priv.h"
#include "model/tensor.h"

/* What a chunk's offset in its tensor and its length must be multiples of. 0: the type cannot be coded so. */
uint32_t skf_int_grain(enum skf_type t);
/* n bytes (a multiple of the grain, at most SKF_CHUNK_MAX) of the source and of the result. SKF_ERR_LIMIT when `out` has no
 * room: not worth coding so. */
SKF_MUST enum skf_err skf_int_put(struct skf_work *w, enum skf_type t, const uint8_t *old, const uint8_t *neu, size_t n,
                                  struct skf_buf *out);
/* Makes the n bytes of the result; every byte of the payload must be used. SKF_ERR_FORMAT otherwise. */
SKF_MUST enum skf_err skf_int_get(struct skf_work *w, enum skf_type t, const uint8_t *payload, size_t payload_n,
                                  const uint8_t *old, uint8_t *neu, size_t n);

#endif
