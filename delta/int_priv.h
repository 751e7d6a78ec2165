/*
 * SKF_CODE_INT: a chunk of a tensor as integer differences from the same place of the source's tensor of the same type.
 *
 * Plain types are words (words.c), quantized types are blocks described field by field (blocks.c); what differs becomes symbols
 * in contexts (stream_priv.h, level_priv.h), and these are coded near their entropy (rans_priv.h).
 */
#ifndef SKF_DELTA_INT_PRIV_H
#define SKF_DELTA_INT_PRIV_H

#include "delta/stream_priv.h"
#include "model/model.h"
#include "model/tensor.h"

/* What a chunk's offset in its tensor and its length must be multiples of. 0: the type cannot be coded so. */
uint32_t skf_int_grain(enum skf_type t);
/* n bytes (a multiple of the grain, 1 to SKF_CHUNK_MAX) of the source and of the result. `side`: the payload that all chunks of
 * the tensor share, NULL and 0 for none; whoever decodes has the same. SKF_ERR_LIMIT when `out` has no room: not worth coding
 * so. */
SKF_MUST enum skf_err skf_int_put(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side,
                                  size_t side_n, const uint8_t *old, const uint8_t *neu, size_t n, struct skf_buf *out);
/* Makes the n bytes of the result; every byte of the payload must be used. SKF_ERR_FORMAT otherwise. */
SKF_MUST enum skf_err skf_int_get(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side,
                                  size_t side_n, const uint8_t *payload, size_t payload_n, const uint8_t *old,
                                  uint8_t *neu, size_t n);

/* ---- plain types ------------------------------------------------------------------------------------------------------------ */
struct skf_words {
    const uint8_t *old;
    uint8_t *neu;         /* read when coding */
    uint32_t n;           /* elements */
    unsigned width;       /* 1, 2, 4 or 8 bytes */
    unsigned exponent_at; /* floats: the bit where the exponent begins; integers: 0 */
    unsigned shift;       /* lowest bits that are 0 in all words of both sides */
    uint64_t row;         /* elements in a row of the tensor; 0 when that is no whole number */
    enum skf_type type;
    const uint8_t *side;  /* side_n bytes */
    size_t side_n;
};
SKF_MUST enum skf_err skf_words_put(struct skf_work *w, const struct skf_words *o, struct skf_buf *out);
SKF_MUST enum skf_err skf_words_get(struct skf_work *w, struct skf_reader *r, const struct skf_words *o);

/* ---- quantized types ---------------------------------------------------------------------------------------------------------- */
uint32_t skf_blocks_grain(enum skf_type t); /* bytes of a block; 0 when it is not described */
SKF_MUST enum skf_err skf_blocks_put(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side,
                                     size_t side_n, const uint8_t *old, const uint8_t *neu, size_t n,
                                     struct skf_buf *out);
SKF_MUST enum skf_err skf_blocks_get(struct skf_work *w, struct skf_reader *r, enum skf_type t, uint64_t row_bytes,
                                     const uint8_t *side, size_t side_n, const uint8_t *old, uint8_t *neu, size_t n);

#endif
