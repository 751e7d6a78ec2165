/*
 * Buffers that grow, each with a limit from birth, and a reader that never reads past its end.
 */
#ifndef SKF_BASE_BUF_H
#define SKF_BASE_BUF_H

#include "base/err.h"

struct skf_buf {
    uint8_t *data; /* NULL while empty */
    size_t len, cap, limit;
};

/* An empty buffer that will never hold more than `limit` bytes. Nothing is allocated yet. */
#define SKF_BUF_INIT(limit_) ((struct skf_buf){NULL, 0, 0, (limit_)})

void skf_buf_free(struct skf_buf *b);  /* leaves an empty buffer with the same limit */
void skf_buf_clear(struct skf_buf *b); /* len = 0, memory kept */

/* All of these leave the buffer as it was when they fail: SKF_ERR_LIMIT over the limit, SKF_ERR_NOMEM. */
SKF_MUST enum skf_err skf_buf_reserve(struct skf_buf *b, size_t more);
SKF_MUST enum skf_err skf_buf_put(struct skf_buf *b, const void *p, size_t n);
SKF_MUST enum skf_err skf_buf_fill(struct skf_buf *b, uint8_t byte, size_t n);
SKF_MUST enum skf_err skf_buf_u8(struct skf_buf *b, uint8_t v);
SKF_MUST enum skf_err skf_buf_u16(struct skf_buf *b, uint16_t v); /* little-endian, as all below */
SKF_MUST enum skf_err skf_buf_u32(struct skf_buf *b, uint32_t v);
SKF_MUST enum skf_err skf_buf_u64(struct skf_buf *b, uint64_t v);
SKF_MUST enum skf_err skf_buf_str(struct skf_buf *b, const char *s); /* the characters, without a NUL */
SKF_MUST enum skf_err skf_buf_printf(struct skf_buf *b, const char *fmt, ...) SKF_PRINTF(2, 3);
/* Makes data a C string (a NUL behind len, not counted); never NULL on success. */
SKF_MUST enum skf_err skf_buf_cstr(struct skf_buf *b, const char **s);
/* Gives the memory to the caller (skf_free) and leaves the buffer empty. NULL while empty. */
uint8_t *skf_buf_steal(struct skf_buf *b, size_t *len);

/* A cursor over bytes that somebody else owns. After a failed get the cursor has not moved. */
struct skf_reader {
    const uint8_t *p, *end;
};
static inline struct skf_reader skf_reader_of(const void *p, size_t n)
{
    return (struct skf_reader){(const uint8_t *)p, (const uint8_t *)p + n};
}
static inline size_t skf_reader_left(const struct skf_reader *r) { return (size_t)(r->end - r->p); }
/* SKF_ERR_FORMAT when fewer bytes are left than asked for. */
SKF_MUST enum skf_err skf_get_u8(struct skf_reader *r, uint8_t *v);
SKF_MUST enum skf_err skf_get_u16(struct skf_reader *r, uint16_t *v);
SKF_MUST enum skf_err skf_get_u32(struct skf_reader *r, uint32_t *v);
SKF_MUST enum skf_err skf_get_u64(struct skf_reader *r, uint64_t *v);
SKF_MUST enum skf_err skf_get_bytes(struct skf_reader *r, uint64_t n, const uint8_t **p); /* a view, not a copy */

/* Unaligned little-endian loads and stores. */
static inline uint16_t skf_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t skf_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t skf_le64(const uint8_t *p) { return (uint64_t)skf_le32(p) | (uint64_t)skf_le32(p + 4) << 32; }
static inline void skf_put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void skf_put_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}
static inline void skf_put_le64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* a + b and a * b that say so when they do not fit. */
static inline bool is_add_ok(uint64_t a, uint64_t b, uint64_t *r) { return !__builtin_add_overflow(a, b, r); }
static inline bool is_mul_ok(uint64_t a, uint64_t b, uint64_t *r) { return !__builtin_mul_overflow(a, b, r); }

#endif
