/*
 * All that delta asks of zstd, in one place: whole chunks with or without a prefix, and decoding
 * into a buffer whose size is known beforehand (so that no frame can make us allocate or write more than we mean to).
 */
#ifndef SKF_DELTA_ZPACK_PRIV_H
#define SKF_DELTA_ZPACK_PRIV_H

#include "base/err.h"

struct skf_zenc;
struct skf_zdec;

struct skf_zenc *skf_zenc_new(void); /* NULL when there is no memory */
void skf_zenc_free(struct skf_zenc *z);
/* A whole chunk at `level`; `prefix` (may be NULL) is what may be referred to besides. *out_n is 0 when the result is not
 * smaller than `cap`. */
SKF_MUST enum skf_err skf_zenc_chunk(struct skf_zenc *z, const uint8_t *p, size_t n, const uint8_t *prefix,
                                     size_t prefix_n, int level, uint8_t *out, size_t cap, size_t *out_n);

struct skf_zdec *skf_zdec_new(void);
void skf_zdec_free(struct skf_zdec *z);
/* Exactly `out_n` bytes come out, or SKF_ERR_FORMAT. */
SKF_MUST enum skf_err skf_zdec_run(struct skf_zdec *z, const uint8_t *p, size_t n, const uint8_t *prefix,
                                   size_t prefix_n, uint8_t *out, size_t out_n);

#endif
