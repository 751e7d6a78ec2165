/* Bytes that may lie in pieces (source.h). */
#include "base/source.h"

#include <string.h>

static enum skf_err span_of_memory(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len)
{
    *p = (const uint8_t *)ctx + off;
    *len = UINT64_MAX; /* cut to the source's size by the callers below */
    return SKF_OK;
}

struct skf_source skf_source_of(const void *p, uint64_t n)
{
    return (struct skf_source){n, span_of_memory, (void *)(uintptr_t)p, NULL};
}

static enum skf_err span_of_both(void *ctx, uint64_t off, const uint8_t **p, uint64_t *len)
{
    const struct skf_source *s = ((const struct skf_source_pair *)ctx)->of;
    if (off >= s->size) {
        off -= s->size;
        s++;
    }
    SKF_TRY(s->span(s->ctx, off, p, len));
    if (*len > s->size - off)
        *len = s->size - off;
    return SKF_OK;
}

struct skf_source skf_source_both(const struct skf_source_pair *pair)
{
    return (struct skf_source){pair->of[0].size + pair->of[1].size, span_of_both, (void *)(uintptr_t)pair, NULL};
}

enum skf_err skf_source_read(const struct skf_source *s, uint64_t off, void *to, uint64_t n)
{
    if (off > s->size || n > s->size - off)
        return SKF_ERR_FORMAT;
    uint8_t *at = to;
    while (n) {
        const uint8_t *p;
        uint64_t len;
        SKF_TRY(s->span(s->ctx, off, &p, &len));
        if (len == 0)
            return SKF_ERR_INTERNAL;
        if (len > n)
            len = n;
        memcpy(at, p, len);
        at += len;
        off += len;
        n -= len;
    }
    return SKF_OK;
}

enum skf_err skf_source_view(const struct skf_source *s, uint64_t off, uint64_t n, void *scratch, const uint8_t **p)
{
    if (off > s->size || n > s->size - off)
        return SKF_ERR_FORMAT;
    uint64_t len;
    if (n == 0) {
        *p = scratch;
        return SKF_OK;
    }
    SKF_TRY(s->span(s->ctx, off, p, &len));
    if (len >= n)
        return SKF_OK;
    *p = scratch;
    return skf_source_read(s, off, scratch, n);
}
