/*
 * GGUF heads put together field by field, so that a test can lie in any one of them.
 */
#ifndef SKF_TESTS_LIB_GGUF_MAKE_H
#define SKF_TESTS_LIB_GGUF_MAKE_H

#include "base/buf.h"

static inline void put_ok(enum skf_err e)
{
    if (e != SKF_OK)
        __builtin_trap(); /* the test's own buffer is too small */
}
static inline void put_u32(struct skf_buf *b, uint32_t v) { put_ok(skf_buf_u32(b, v)); }
static inline void put_u64(struct skf_buf *b, uint64_t v) { put_ok(skf_buf_u64(b, v)); }
static inline void put_text(struct skf_buf *b, const char *s)
{
    put_u64(b, strlen(s));
    put_ok(skf_buf_str(b, s));
}
static inline void put_head(struct skf_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    put_ok(skf_buf_str(b, "GGUF"));
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}
/* Name, then dimensions (0 ends them), type, offset. */
static inline void put_tensor(struct skf_buf *b, const char *name, uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put_u32(b, d1 ? 2 : 1);
    put_u64(b, d0);
    if (d1)
        put_u64(b, d1);
    put_u32(b, type);
    put_u64(b, offset);
}
static inline void put_pad(struct skf_buf *b, size_t alignment)
{
    while (b->len % alignment)
        put_ok(skf_buf_u8(b, 0));
}
static inline void put_data(struct skf_buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_ok(skf_buf_u8(b, (uint8_t)(i * 7 + 1)));
}

/* Bytes that lie in pieces of `piece` bytes, as a version in the store does. */
struct pieces {
    const uint8_t *p;
    uint64_t size, piece;
};
static inline enum skf_err span_of_pieces(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len)
{
    const struct pieces *s = ctx;
    uint64_t end = (off / s->piece + 1) * s->piece;
    *p = s->p + off;
    *len = (end < s->size ? end : s->size) - off;
    return SKF_OK;
}

#endif
