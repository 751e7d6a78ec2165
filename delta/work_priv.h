/* Memory of one coding thread that is reused from chunk to chunk, and the small encodings that all of delta shares. */
#ifndef SKF_DELTA_WORK_PRIV_H
#define SKF_DELTA_WORK_PRIV_H

#include "base/buf.h"
#include "base/source.h"
#include "base/util.h"
#include "delta/zpack_priv.h"

/* Plain loops over arrays that the compiler should turn into vectors. */
#if defined __GNUC__ && !defined __clang__
#define SKF_LOOPS __attribute__((optimize("O3")))
#else
#define SKF_LOOPS
#endif

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

struct skf_low { /* adapter.c: what one thread knows of a low-rank change */
    struct skf_area columns, rows, line, merged;
    uint64_t rank, inputs;
    float scale;
    bool is_kept; /* `columns` are those of the side with this digest */
    uint8_t digest[32];
};

struct skf_work { /* of one thread, encoding or decoding */
    struct skf_zdec *dec;
    enum skf_isa isa;
    struct skf_area tables, words, hist; /* rans.c */
    struct skf_area sym, symkey, mask, maskkey, raw; /* stream.c */
    struct skf_area val, key, level, flag, part, ref, same, narrow; /* words.c, sparse.c, blocks.c */
    struct skf_area zero; /* zeros.c */
    struct skf_area factor, sample, side, side_v; /* factor.c */
    size_t side_n;          /* bytes of the side that side_v was read from; 0: none */
    uint32_t side_columns;
    unsigned side_rank;
    struct skf_low low;
};
SKF_MUST enum skf_err skf_work_init(struct skf_work *w);
void skf_work_free(struct skf_work *w); /* a zeroed one is fine */

/* Unsigned LEB128, shortest form only. */
SKF_MUST enum skf_err skf_put_varint(struct skf_buf *b, uint64_t v);
SKF_MUST enum skf_err skf_get_varint(struct skf_reader *r, uint64_t *v);
/* The same for signed numbers: 0, -1, 1, -2, ... as 0, 1, 2, 3, ... Wraps modulo 2^64. */
SKF_MUST enum skf_err skf_put_svarint(struct skf_buf *b, uint64_t v);
SKF_MUST enum skf_err skf_get_svarint(struct skf_reader *r, uint64_t *v);

/* Bits, the lowest of a byte first. */
struct skf_bits_out {
    uint8_t *p; /* room for all that is put, and 8 bytes more */
    uint64_t acc;
    unsigned have; /* below 8 between calls */
};
static inline void skf_bits_put(struct skf_bits_out *b, uint64_t v, unsigned n) /* n <= 56, nothing above bit n in v */
{
    b->acc |= v << b->have;
    b->have += n;
    skf_put_le64(b->p, b->acc);
    b->p += b->have >> 3;
    b->acc = b->have >> 3 == 8 ? 0 : b->acc >> (b->have & ~7u);
    b->have &= 7;
}
static inline uint8_t *skf_bits_end(struct skf_bits_out *b) /* behind the last byte */
{
    return b->p + (b->have ? 1 : 0);
}
struct skf_bits_in {
    const uint8_t *p, *end;
    uint64_t acc;
    unsigned have;
};
static inline bool skf_bits_get(struct skf_bits_in *b, unsigned n, uint64_t *v) /* n <= 56; false: no more */
{
    while (b->have < n) {
        if (b->p == b->end)
            return false;
        b->acc |= (uint64_t)*b->p++ << b->have;
        b->have += 8;
    }
    *v = b->acc & ((1ull << n) - 1);
    b->acc >>= n;
    b->have -= n;
    return true;
}
/* Everything was read, and what pads the last byte is 0. */
static inline bool is_bits_done(const struct skf_bits_in *b) { return b->p == b->end && b->have < 8 && b->acc == 0; }

#endif
