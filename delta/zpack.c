/* zstd, kept in this file (zpack_priv.h). Contexts are reused from chunk to chunk; each call resets what it sets. */
#include "delta/zpack_priv.h"

#include <zstd.h>
#include <zstd_errors.h>

#include "base/alloc.h"
#include "base/util.h"

struct skf_zenc {
    ZSTD_CCtx *ctx;
};
struct skf_zdec {
    ZSTD_DCtx *ctx;
};

struct skf_zenc *skf_zenc_new(void)
{
    struct skf_zenc *z = skf_calloc(1, sizeof *z);
    if (z && !(z->ctx = ZSTD_createCCtx())) {
        skf_free(z);
        z = NULL;
    }
    return z;
}

void skf_zenc_free(struct skf_zenc *z)
{
    if (!z)
        return;
    (void)ZSTD_freeCCtx(z->ctx);
    skf_free(z);
}

/* zstd's verdict as ours: too small a buffer is no error, but "not worth it" (0 bytes). */
static enum skf_err verdict(size_t r, size_t *out_n)
{
    *out_n = ZSTD_isError(r) ? 0 : r;
    if (!ZSTD_isError(r))
        return SKF_OK;
    switch (ZSTD_getErrorCode(r)) {
    case ZSTD_error_dstSize_tooSmall:
        return SKF_OK;
    case ZSTD_error_memory_allocation:
        return SKF_ERR_NOMEM;
    default:
        return SKF_ERR_INTERNAL;
    }
}

/* Sets what every frame of ours has: no size, no checksum (the payload has a digest), no dictionary number. */
static size_t begin_frame(ZSTD_CCtx *c, int level)
{
    (void)ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters);
    (void)ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    (void)ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 0);
    (void)ZSTD_CCtx_setParameter(c, ZSTD_c_dictIDFlag, 0);
    return ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
}

static int log2_above(size_t n)
{
    int l = 10;
    while (((size_t)1 << l) < n && l < 27)
        l++;
    return l;
}

enum skf_err skf_zenc_chunk(struct skf_zenc *z, const uint8_t *p, size_t n, const uint8_t *prefix, size_t prefix_n,
                            int level, uint8_t *out, size_t cap, size_t *out_n)
{
    (void)begin_frame(z->ctx, level);
    /* Tables are bounded so that many threads stay within our memory; the window holds prefix and chunk. */
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_windowLog, log2_above(n + prefix_n));
    bool is_best = level >= 16; /* levels that search trees: the chunk with all of its prefix should stand in one */
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_hashLog, is_best ? 19 : 18);
    (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_chainLog, is_best ? 20 : 19);
    if (prefix_n) { /* which these tables cannot cover: a second, sparse one finds what is long */
        (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_enableLongDistanceMatching, 1);
        (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_ldmHashLog, 18);
        (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_ldmHashRateLog, 4);
        (void)ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_ldmMinMatch, 32);
        size_t r = ZSTD_CCtx_refPrefix(z->ctx, prefix, prefix_n);
        if (ZSTD_isError(r))
            return verdict(r, out_n);
    }
    enum skf_err e = verdict(ZSTD_compress2(z->ctx, out, cap, p, n), out_n);
    (void)ZSTD_CCtx_reset(z->ctx, ZSTD_reset_session_and_parameters);
    return e;
}

struct skf_zdec *skf_zdec_new(void)
{
    struct skf_zdec *z = skf_calloc(1, sizeof *z);
    if (z && !(z->ctx = ZSTD_createDCtx())) {
        skf_free(z);
        z = NULL;
    }
    return z;
}

void skf_zdec_free(struct skf_zdec *z)
{
    if (!z)
        return;
    (void)ZSTD_freeDCtx(z->ctx);
    skf_free(z);
}

enum skf_err skf_zdec_run(struct skf_zdec *z, const uint8_t *p, size_t n, const uint8_t *prefix, size_t prefix_n,
                          uint8_t *out, size_t out_n)
{
    (void)ZSTD_DCtx_reset(z->ctx, ZSTD_reset_session_and_parameters);
    if (prefix_n && ZSTD_isError(ZSTD_DCtx_refPrefix(z->ctx, prefix, prefix_n)))
        return SKF_ERR_NOMEM;
    /* One call over the whole frame: the output is the window, nothing is allocated for it. */
    size_t r = ZSTD_decompressDCtx(z->ctx, out, out_n, p, n);
    if (ZSTD_isError(r))
        return ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation ? SKF_ERR_NOMEM : SKF_ERR_FORMAT;
    return r == out_n ? SKF_OK : SKF_ERR_FORMAT;
}
