/*
 * A stream of small signed differences, most of them zero, as a handful of byte strings that zstd codes near their entropy.
 *
 * Elements are sorted (stably) by a context that both sides know, so that like stands with like and each group gets Huffman
 * tables of its own.  Then, over the sorted order of n elements:
 *   mask    n bits       element is not zero
 *   sign    m bits       of the m that are not zero: it is negative
 *   more    m bits       of these: its magnitude is over 1
 *   plane k l bytes      of the l with more: byte k of magnitude - 2, for k below the element's width
 * Bits are packed from the lowest of each byte.  Splitting this way matters: a Huffman code cannot spend under one bit on a
 * symbol, but a byte of eight flags may cost a fraction of one, and +1 against -1 costs exactly one bit.
 */
#ifndef SKF_DELTA_STREAM_PRIV_H
#define SKF_DELTA_STREAM_PRIV_H

#include "base/buf.h"
#include "base/source.h"
#include "delta/zpack_priv.h"

#define SKF_GROUPS 256

/* Memory that is reused from chunk to chunk. */
struct skf_area {
    uint8_t *p;
    size_t cap;
};
SKF_MUST enum skf_err skf_area_need(struct skf_area *a, size_t n);
void skf_area_free(struct skf_area *a);
/* Points *p at n (> 0) bytes of the source: in place where they lie in one piece, otherwise gathered in `a`. SKF_ERR_FORMAT when
 * they are not inside. */
SKF_MUST enum skf_err skf_area_view(const struct skf_source *s, uint64_t off, size_t n, struct skf_area *a,
                                    const uint8_t **p);

struct skf_work { /* of one thread, encoding or decoding */
    struct skf_zenc *enc; /* NULL on the decoding side */
    struct skf_zdec *dec;
    struct skf_area sym, key, mask, sign, more, rest, planes, gaps, packed;
};
SKF_MUST enum skf_err skf_work_init(struct skf_work *w, bool is_encoding);
void skf_work_free(struct skf_work *w); /* a zeroed one is fine */

struct skf_stream {
    uint8_t *sym;       /* n two's complement little-endian integers of `width` bytes */
    uint32_t n;
    unsigned width;     /* 1, 2, 4 or 8 */
    const uint8_t *key; /* context of element i is key[i >> shift]; NULL for one group */
    unsigned shift;
};
/* Appends the coded stream. SKF_ERR_LIMIT when `out` has no room for it: not worth coding so. */
SKF_MUST enum skf_err skf_stream_put(struct skf_work *w, const struct skf_stream *s, struct skf_buf *out);
/* Fills s->sym; *n_set is the number of elements that are not zero. SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_stream_get(struct skf_work *w, struct skf_reader *r, const struct skf_stream *s,
                                     uint32_t *n_set);

/* Unsigned LEB128, shortest form only. */
SKF_MUST enum skf_err skf_put_varint(struct skf_buf *b, uint64_t v);
SKF_MUST enum skf_err skf_get_varint(struct skf_reader *r, uint64_t *v);
/* The same for signed numbers: 0, -1, 1, -2, ... as 0, 1, 2, 3, ... Wraps modulo 2^64. */
SKF_MUST enum skf_err skf_put_svarint(struct skf_buf *b, uint64_t v);
SKF_MUST enum skf_err skf_get_svarint(struct skf_reader *r, uint64_t *v);

#endif
