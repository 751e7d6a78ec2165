/* The cheapest exact coding of one chunk (build_priv.h): what each is worth trying for, and what it comes to. */
#include <string.h>

#include "base/alloc.h"
#include "delta/build_priv.h"

/* A payload must be this much smaller than the chunk before we stop looking for another way. */
#define IS_GOOD(n, of) ((n) <= (of) - (of) / 8)

/* The chunk's place in the tensor of the source that it is coded against. */
static bool is_paired(const struct build *b, uint64_t i, const struct skf_tensor **from, uint64_t *within)
{
    uint32_t t = b->tensor_of[i];
    if (t == SKD_NO_TENSOR || !b->pairs[t])
        return false;
    *from = b->pairs[t];
    *within = b->neu_cut.chunks[i].offset - b->tensors[t].offset;
    return *within < (*from)->bytes;
}

static enum skf_err try_int(struct build *b, struct build_worker *w, uint64_t i, const struct skf_tensor *from,
                            uint64_t within, const uint8_t *neu, size_t n, struct candidate *c)
{
    size_t side_n;
    const uint8_t *side = build_side_of(b, b->tensor_of[i], SKF_CODE_INT, &side_n);
    uint32_t grain = skf_int_grain(from->type);
    if (!grain || within % grain || n % grain || n > from->bytes - within)
        return SKF_OK;
    const uint8_t *old;
    SKF_TRY(skf_area_view(b->old_source, from->offset + within, n, &w->old, &old));
    skf_buf_clear(&w->out);
    w->out.limit = c->n - 1;
    enum skf_err e = c->n > 1 ? skf_int_put(&w->work, from->type, from->row_bytes, side, side_n, old, neu, n, &w->out)
                           : SKF_ERR_LIMIT;
    if (e == SKF_ERR_LIMIT)
        return SKF_OK;
    SKF_TRY(e);
    /* What is published must come out: a defect here would otherwise show on the boxes. */
    SKF_TRY(skf_area_need(&w->check, n));
    e = skf_int_get(&w->work, from->type, from->row_bytes, side, side_n, w->out.data, w->out.len, old, w->check.p, n);
    if (e == SKF_ERR_NOMEM)
        return e;
    if (e != SKF_OK || memcmp(w->check.p, neu, n) != 0)
        return SKF_ERR_INTERNAL;
    SKF_TRY(skf_area_need(&w->best, n));
    memcpy(w->best.p, w->out.data, w->out.len);
    *c = (struct candidate){SKF_CODE_INT, w->out.len, from->offset + within, n};
    return SKF_OK;
}

/* The part of the source around `at` that a chunk of n bytes may refer to; false when there is none. */
static bool has_range(const struct build *b, uint64_t at, size_t n, uint64_t *from, uint64_t *len)
{
    uint64_t size = b->old_source->size, half = (SKD_PATCH_MAX - n) / 2;
    if (size == 0)
        return false;
    if (at + half < at) /* it begins before the source by the anchors' shift */
        at = 0;
    *from = at > half ? at - half : 0;
    if (*from >= size)
        return false;
    *len = SKF_MIN(SKD_PATCH_MAX, size - *from);
    return true;
}

/* Where a chunk without a counterpart may find something of its own: the same place of its tensor, what anchors say, the
 * same place of the file. */
static bool has_likely_place(const struct build *b, uint64_t i, const uint8_t *neu, size_t n, uint64_t *at)
{
    const struct skf_tensor *from;
    uint64_t within;
    if (is_paired(b, i, &from, &within)) {
        *at = from->offset + within;
        return true;
    }
    *at = b->neu_cut.chunks[i].offset;
    if (b->anchors && skf_anchors_find(b->anchors, neu, n, *at, at))
        return true;
    return b->tensor_of[i] == SKD_NO_TENSOR;
}

static enum skf_err try_zstd(struct build *b, unsigned worker, uint64_t i, const uint8_t *neu, size_t n,
                             struct candidate *c)
{
    struct build_worker *w = &b->workers[worker];
    struct build_heavy *h = &b->heavy[worker % BUILD_HEAVY];
    uint64_t at, from, len;
    size_t got = 0;
    SKF_TRY(skf_area_need(&w->check, n));
    SKF_TRY(skf_area_need(&w->best, n));
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&h->lock);
    if (!h->enc && !(h->enc = skf_zenc_new()))
        SKF_GO(e, SKF_ERR_NOMEM);
    /* Noise is found out cheaply. */
    SKF_GO(e, skf_zenc_chunk(h->enc, neu, n, NULL, 0, 1, w->check.p, c->n, &got));
    if (got && got < n - n / 100)
        SKF_GO(e, skf_zenc_chunk(h->enc, neu, n, NULL, 0, b->level, w->check.p, c->n, &got));
    if (got && got < c->n) {
        memcpy(w->best.p, w->check.p, got);
        *c = (struct candidate){SKF_CODE_ZSTD, got, 0, 0};
    }
    if (has_likely_place(b, i, neu, n, &at) && has_range(b, at, n, &from, &len)) {
        const uint8_t *prefix;
        SKF_GO(e, skf_area_view(b->old_source, from, len, &h->source, &prefix));
        SKF_GO(e, skf_zenc_chunk(h->enc, neu, n, prefix, len, b->level, w->check.p, c->n, &got));
        if (got && got < c->n) {
            memcpy(w->best.p, w->check.p, got);
            *c = (struct candidate){SKF_CODE_PATCH, got, from, len};
        }
    }
out:
    (void)pthread_mutex_unlock(&h->lock);
    return e;
}

enum skf_err build_chunk(struct build *b, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct skd_out_chunk *r = &b->chunks[i];
    struct build_worker *w = &b->workers[worker];
    size_t n = r->result_length;
    if (r->coding == SKF_CODE_COPY)
        return SKF_OK;
    if (is_cancelled(b->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    const uint8_t *neu;
    const struct skf_tensor *from;
    uint64_t within;
    struct candidate c = {SKF_CODE_RAW, n, 0, 0};
    enum skf_err e = skf_area_view(b->neu_source, r->result_offset, n, &w->neu, &neu);
    bool has_pair = is_paired(b, i, &from, &within);
    if (e == SKF_OK && has_pair)
        e = build_try_adapter(b, w, i, from, within, neu, n, &c, why);
    if (e == SKF_OK && has_pair && c.n > n / 32)
        e = try_int(b, w, i, from, within, neu, n, &c);
    if (e == SKF_OK && !IS_GOOD(c.n, n))
        e = try_zstd(b, worker, i, neu, n, &c);
    if (e != SKF_OK)
        return skf_fail(why, e, "chunk %llu cannot be coded: %s", (unsigned long long)i, skf_err_name(e));
    const uint8_t *payload = c.coding == SKF_CODE_RAW ? neu : w->best.p;
    r->coding = c.coding;
    r->payload_length = (uint32_t)c.n;
    r->source_offset = c.source_offset;
    r->source_length = (uint32_t)c.source_length;
    if (c.coding == SKF_CODE_RAW)
        memcpy(r->payload_digest, r->result_digest, SKF_DIGEST);
    else
        skf_sha256(payload, c.n, r->payload_digest);
    SKF_TRY(build_spool_put(&b->spool, payload, c.n, &b->spooled[i], why));
    uint64_t done = atomic_fetch_add(&b->done, n) + n;
    skf_progress_tell(b->progress, done, b->neu_cut.size);
    return SKF_OK;
}
