/* liblzma, kept in this file (lz_priv.h). */
#include "delta/lz_priv.h"

#include <lzma.h>

#include "base/alloc.h"

#define SLICE (64u << 10) /* so much is packed between two questions whether to go on: a tenth of a second */

/* ---- what both sides share -------------------------------------------------------------------------------------------------- */
static void *give(void *unused, size_t count, size_t size)
{
    return size && count > SIZE_MAX / size ? NULL : skf_alloc(count * size);
}
static void take(void *unused, void *p) { skf_free(p); }
static const lzma_allocator memory = {.alloc = give, .free = take};

struct chain {
    lzma_options_lzma lzma;
    lzma_filter filters[3];
};

/* False when liblzma is built without the preset that encoding starts from. */
static bool make_chain(struct chain *c, enum skf_lz_filter f, unsigned lc, unsigned lp, unsigned pb, size_t piece)
{
    static const lzma_vli calls[SKF_LZ_FILTERS] = {[SKF_LZ_X86] = LZMA_FILTER_X86, [SKF_LZ_ARM64] = LZMA_FILTER_ARM64};
    *c = (struct chain){0};
    if (lzma_lzma_preset(&c->lzma, 9 | LZMA_PRESET_EXTREME))
        return false;
    c->lzma.dict_size = (uint32_t)SKF_MAX(piece, LZMA_DICT_SIZE_MIN);
    c->lzma.lc = lc;
    c->lzma.lp = lp;
    c->lzma.pb = pb;
    unsigned i = 0;
    if (f != SKF_LZ_PLAIN)
        c->filters[i++].id = calls[f];
    c->filters[i++] = (lzma_filter){.id = LZMA_FILTER_LZMA1, .options = &c->lzma};
    c->filters[i].id = LZMA_VLI_UNKNOWN;
    return true;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */
struct skf_lz_in {
    lzma_stream s;
    size_t at, n, left; /* of the payload's n bytes so many are read, and so many of the piece are still to be made */
};

struct skf_lz_in *skf_lz_in_new(void)
{
    struct skf_lz_in *d = skf_calloc(1, sizeof *d); /* a zeroed stream is a new one */
    if (d)
        d->s.allocator = &memory;
    return d;
}

void skf_lz_in_free(struct skf_lz_in *d)
{
    if (!d)
        return;
    lzma_end(&d->s);
    skf_free(d);
}

static enum skf_err read_error(lzma_ret r) { return r == LZMA_MEM_ERROR ? SKF_ERR_NOMEM : SKF_ERR_FORMAT; }

enum skf_err skf_lz_open(struct skf_lz_in *d, const uint8_t *p, size_t n, size_t out_n)
{
    struct chain c;
    if (n < 2 || p[0] >= SKF_LZ_FILTERS || out_n == 0 || out_n > SKD_PACK_MAX)
        return SKF_ERR_FORMAT;
    const unsigned lc = p[1] % 9, lp = p[1] / 9 % 5, pb = p[1] / 45;
    if (pb > LZMA_PB_MAX || lc + lp > LZMA_LCLP_MAX)
        return SKF_ERR_FORMAT;
    if (!make_chain(&c, (enum skf_lz_filter)p[0], lc, lp, pb, out_n))
        return SKF_ERR_INTERNAL;
    d->at = 2;
    d->n = n;
    d->left = out_n;
    lzma_ret r = lzma_raw_decoder(&d->s, c.filters);
    return r == LZMA_OK ? SKF_OK : read_error(r);
}

enum skf_err skf_lz_next(struct skf_lz_in *d, const uint8_t *p, uint8_t *out, size_t many)
{
    lzma_stream *s = &d->s;
    lzma_ret r = LZMA_OK;
    uint8_t more;
    if (many > d->left)
        return SKF_ERR_FORMAT;
    s->next_in = p + d->at;
    s->avail_in = d->n - d->at;
    s->next_out = out;
    s->avail_out = many;
    while (r == LZMA_OK && s->avail_out)
        r = lzma_code(s, LZMA_RUN);
    if (s->avail_out)
        return read_error(r);
    d->left -= many;
    if (d->left == 0) { /* the mark of the end must stand here */
        s->next_out = &more;
        s->avail_out = 1;
        while (r == LZMA_OK && s->avail_out)
            r = lzma_code(s, LZMA_RUN);
        return r == LZMA_STREAM_END && s->avail_out && s->avail_in == 0 ? SKF_OK : read_error(r);
    }
    d->at = d->n - s->avail_in;
    return r == LZMA_OK ? SKF_OK : read_error(r);
}

/* ---- packing ---------------------------------------------------------------------------------------------------------------- */
static enum skf_lz_filter filter_of(const uint8_t *p, size_t n)
{
    size_t x86 = 0, arm = 0;
    for (size_t i = 0; i + 8 <= n; i += 4) {
        for (size_t j = i; j < i + 4 && j + 5 <= n; j++)
            x86 += p[j] == 0xe8 && (p[j + 4] == 0 || p[j + 4] == 0xff);
        arm += skf_le32(p + i) >> 26 == 0x25;
    }
    if (arm > n / 160 && arm > 2 * x86) /* of noise it is one word in 64 */
        return SKF_LZ_ARM64;
    return x86 > n / 400 ? SKF_LZ_X86 : SKF_LZ_PLAIN;
}

static enum skf_err put_all(lzma_stream *s, const struct skf_progress *progress, const uint8_t *p, size_t n, struct skf_buf *out)
{
    uint8_t part[4096];
    lzma_ret r = LZMA_OK;
    s->next_in = p;
    while (r == LZMA_OK) {
        if (progress && is_cancelled(progress))
            return SKF_ERR_CANCELLED;
        if (s->avail_in == 0) {
            s->avail_in = SKF_MIN(n, SLICE);
            n -= s->avail_in;
        }
        s->next_out = part;
        s->avail_out = sizeof part;
        r = lzma_code(s, n ? LZMA_RUN : LZMA_FINISH);
        SKF_TRY(skf_buf_put(out, part, sizeof part - s->avail_out));
    }
    return r == LZMA_STREAM_END ? SKF_OK : r == LZMA_MEM_ERROR ? SKF_ERR_NOMEM : SKF_ERR_INTERNAL;
}

enum skf_err skf_lz_put(const struct skf_progress *progress, const uint8_t *p, size_t n, struct skf_buf *out)
{
    const enum skf_lz_filter f = filter_of(p, n);
    /* Instructions have places and few contexts; texts have no places, and what follows depends on the letter before. */
    const unsigned lc = f == SKF_LZ_PLAIN ? 4 : 3, pb = f == SKF_LZ_PLAIN ? 0 : 2;
    struct chain c;
    lzma_stream s = LZMA_STREAM_INIT;
    s.allocator = &memory;
    if (!make_chain(&c, f, lc, 0, pb, n))
        return SKF_ERR_INTERNAL;
    SKF_TRY(skf_buf_u8(out, (uint8_t)f));
    SKF_TRY(skf_buf_u8(out, (uint8_t)(pb * 45 + lc)));
    lzma_ret r = lzma_raw_encoder(&s, c.filters);
    enum skf_err e = r == LZMA_OK ? put_all(&s, progress, p, n, out) : r == LZMA_MEM_ERROR ? SKF_ERR_NOMEM : SKF_ERR_INTERNAL;
    lzma_end(&s);
    return e;
}
