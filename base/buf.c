/* Limited buffers and the byte reader (buf.h). */
#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

void skf_buf_free(struct skf_buf *b)
{
    skf_free(b->data);
    *b = SKF_BUF_INIT(b->limit);
}

void skf_buf_clear(struct skf_buf *b) { b->len = 0; }

enum skf_err skf_buf_reserve(struct skf_buf *b, size_t more)
{
    if (more > b->limit || b->len > b->limit - more)
        return SKF_ERR_LIMIT;
    size_t need = b->len + more;
    if (need <= b->cap)
        return SKF_OK;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < need)
        cap = cap > b->limit / 2 ? b->limit : cap * 2;
    if (cap > b->limit)
        cap = b->limit;
    uint8_t *p = skf_realloc(b->data, cap);
    if (!p)
        return SKF_ERR_NOMEM;
    b->data = p;
    b->cap = cap;
    return SKF_OK;
}

enum skf_err skf_buf_put(struct skf_buf *b, const void *p, size_t n)
{
    SKF_TRY(skf_buf_reserve(b, n));
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    return SKF_OK;
}

enum skf_err skf_buf_fill(struct skf_buf *b, uint8_t byte, size_t n)
{
    SKF_TRY(skf_buf_reserve(b, n));
    if (n)
        memset(b->data + b->len, byte, n);
    b->len += n;
    return SKF_OK;
}

enum skf_err skf_buf_u8(struct skf_buf *b, uint8_t v) { return skf_buf_put(b, &v, 1); }

enum skf_err skf_buf_u16(struct skf_buf *b, uint16_t v)
{
    uint8_t t[2];
    skf_put_le16(t, v);
    return skf_buf_put(b, t, sizeof t);
}

enum skf_err skf_buf_u32(struct skf_buf *b, uint32_t v)
{
    uint8_t t[4];
    skf_put_le32(t, v);
    return skf_buf_put(b, t, sizeof t);
}

enum skf_err skf_buf_u64(struct skf_buf *b, uint64_t v)
{
    uint8_t t[8];
    skf_put_le64(t, v);
    return skf_buf_put(b, t, sizeof t);
}

enum skf_err skf_buf_str(struct skf_buf *b, const char *s) { return skf_buf_put(b, s, strlen(s)); }

enum skf_err skf_buf_printf(struct skf_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    enum skf_err e = SKF_ERR_ARG;
    if (n >= 0 && (size_t)n >= b->limit - b->len)
        e = SKF_ERR_LIMIT;
    else if (n >= 0)
        e = skf_buf_reserve(b, (size_t)n + 1);
    if (e == SKF_OK) {
        (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return e;
}

enum skf_err skf_buf_cstr(struct skf_buf *b, const char **s)
{
    SKF_TRY(skf_buf_reserve(b, 1));
    b->data[b->len] = 0;
    *s = (const char *)b->data;
    return SKF_OK;
}

uint8_t *skf_buf_steal(struct skf_buf *b, size_t *len)
{
    uint8_t *p = b->data;
    *len = b->len;
    *b = SKF_BUF_INIT(b->limit);
    return p;
}

enum skf_err skf_get_bytes(struct skf_reader *r, uint64_t n, const uint8_t **p)
{
    if (n > skf_reader_left(r))
        return SKF_ERR_FORMAT;
    *p = r->p;
    r->p += n;
    return SKF_OK;
}

enum skf_err skf_get_u8(struct skf_reader *r, uint8_t *v)
{
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, 1, &p));
    *v = p[0];
    return SKF_OK;
}

enum skf_err skf_get_u16(struct skf_reader *r, uint16_t *v)
{
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, 2, &p));
    *v = skf_le16(p);
    return SKF_OK;
}

enum skf_err skf_get_u32(struct skf_reader *r, uint32_t *v)
{
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, 4, &p));
    *v = skf_le32(p);
    return SKF_OK;
}

enum skf_err skf_get_u64(struct skf_reader *r, uint64_t *v)
{
    const uint8_t *p;
    SKF_TRY(skf_get_bytes(r, 8, &p));
    *v = skf_le64(p);
    return SKF_OK;
}
