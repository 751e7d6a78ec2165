/* The cheapest exact coding of one chunk (build_priv.h): what each is worth trying for, and what it comes to. */
#include <string.h>

#include "base/alloc.h"
#include "delta/build_priv.h"

/* A payload must be this much smaller than the chunk before we stop looking for another way. */
#define IS_GOOD(n, of) ((n) <= (of) - (of) / 8)
/* Raw bytes need no digest of a payload, nor its length: nothing that saves less is smaller in the end. */
#define CODED_LEAST (SKF_DIGEST + 2)

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

/* Rows that the source's tensor has as differences, the others (all of them, where differences do not pay) by themselves. */
static enum skf_err try_numbers(struct build *b, struct build_worker *w, uint64_t i, const struct skf_tensor *from,
                                uint64_t within, const uint8_t *neu, size_t n, struct candidate *c)
{
    const struct skf_tensor *t = &b->tensors[b->tensor_of[i]];
    const uint8_t *old = NULL;
    size_t common = from && from->bytes - within < n ? from->bytes - within : 0;
    struct skf_region g[2];
    uint32_t count = 0, grain = skf_int_grain(t->type);
    if (!skf_region_alone(t->type) || n % grain || common % grain)
        return SKF_OK;
    if (common) {
        SKF_TRY(skf_area_view(b->old_source, from->offset + within, common, &w->old, &old));
        g[count++] = (struct skf_region){0, (uint32_t)common, 0, SKF_REGION_INT, t->type, t->row_bytes, 0};
    }
    g[count++] = (struct skf_region){(uint32_t)common, (uint32_t)(n - common), 0, skf_region_alone(t->type), t->type, t->row_bytes, 0};
    const struct skf_region_tools tools = {.work = &w->work, .room = &w->room, .trial = &w->trial};
    skf_buf_clear(&w->out);
    w->out.limit = w->trial.limit = c->n - 1;
    enum skf_err e = c->n > 1 ? skf_regions_put(&tools, g, count, neu, old, common, &w->out) : SKF_ERR_LIMIT;
    if (e == SKF_ERR_LIMIT)
        return SKF_OK;
    SKF_TRY(e);
    const struct skd_range range = {common ? from->offset + within : 0, (uint32_t)common};
    return build_take_mixed(w, &w->room, &w->out, &range, common ? 1 : 0, neu, n, old, c);
}

/* What the source has under the tensor's name, of another type, and as many numbers in its rows; NULL where the tensor has a counterpart. */
const struct skf_tensor *build_cast_of(const struct build *b, uint32_t t)
{
    const struct skf_tensor *neu = &b->tensors[t], *old = b->pairs[t] ? NULL : skf_model_find(b->old, neu->name);
    uint64_t old_n;
    return old && old->dims[0] == neu->dims[0] && is_castable(old->type, neu->type, neu->row_bytes, &old_n) ? old : NULL;
}

/* Numbers of another type as what they become, and differences. */
static enum skf_err try_cast(struct build *b, struct build_worker *w, uint64_t i, const uint8_t *neu, size_t n, struct candidate *c)
{
    const struct skf_tensor *t = &b->tensors[b->tensor_of[i]], *from = build_cast_of(b, b->tensor_of[i]);
    uint64_t within = b->neu_cut.chunks[i].offset - t->offset, at, old_n;
    if (!from || c->n < 2 || !is_castable(from->type, t->type, within, &at) || !is_castable(from->type, t->type, n, &old_n) ||
        old_n > SKD_PATCH_MAX || at > from->bytes || old_n > from->bytes - at)
        return SKF_OK;
    const uint8_t *old;
    const struct skf_region g = {0, (uint32_t)n, 0, SKF_REGION_CAST, t->type, t->row_bytes, from->type};
    const struct skf_region_tools tools = {.work = &w->work, .room = &w->room, .trial = &w->trial};
    SKF_TRY(skf_area_view(b->old_source, from->offset + at, old_n, &w->old, &old));
    skf_buf_clear(&w->out);
    w->out.limit = w->trial.limit = c->n - 1;
    enum skf_err e = skf_regions_put(&tools, &g, 1, neu, old, old_n, &w->out);
    if (e == SKF_ERR_LIMIT || e == SKF_ERR_FORMAT) /* not worth it; or not finite */
        return SKF_OK;
    SKF_TRY(e);
    const struct skd_range range = {from->offset + at, (uint32_t)old_n};
    return build_take_mixed(w, &w->room, &w->out, &range, 1, neu, n, old, c);
}

/* The cheapest of all ways, in *c and the worker's best. */
static enum skf_err choose(struct build *b, unsigned worker, uint64_t i, const uint8_t *neu, size_t n, struct candidate *c,
                           struct skf_why *why)
{
    struct build_worker *w = &b->workers[worker];
    const struct skf_tensor *from = NULL;
    uint64_t within = 0;
    bool is_tensor = b->tensor_of[i] != SKD_NO_TENSOR, has_pair = is_paired(b, i, &from, &within);
    if (has_pair) {
        SKF_TRY(build_try_adapter(b, w, i, from, within, neu, n, c, why));
        if (c->n > n / 32)
            SKF_TRY(try_int(b, w, i, from, within, neu, n, c));
    }
    if (is_tensor && !has_pair) {
        SKF_TRY(try_cast(b, w, i, neu, n, c));
        if (IS_GOOD(c->n, n))
            return SKF_OK;
    }
    if (is_tensor && c->n > n / 2) /* which floats of a retrained model may well be by themselves */
        SKF_TRY(try_numbers(b, w, i, has_pair ? from : NULL, within, neu, n, c));
    if (!is_tensor || c->coding == SKF_CODE_MIXED || !IS_GOOD(c->n, n))
        return build_try_any(b, worker, i, neu, n, c);
    return SKF_OK;
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
    struct candidate c = {SKF_CODE_RAW, n, 0, 0};
    enum skf_err e = skf_area_view(b->neu_source, r->result_offset, n, &w->neu, &neu);
    if (e == SKF_OK && n > CODED_LEAST)
        e = choose(b, worker, i, neu, n, &c, why);
    if (c.n + CODED_LEAST >= n)
        c = (struct candidate){SKF_CODE_RAW, n, 0, 0};
    if (e != SKF_OK && why && why->text[0])
        return e; /* such as what is wrong with the adapter */
    if (e != SKF_OK)
        return skf_fail(why, e, "chunk %llu cannot be coded: %s", (unsigned long long)i, skf_err_name(e));
    const uint8_t *payload = c.coding == SKF_CODE_RAW ? neu : w->best.p;
    r->coding = c.coding;
    r->payload_length = (uint32_t)c.n;
    r->source_offset = c.source_offset;
    r->source_length = (uint32_t)c.source_length;
    if (c.coding == SKF_CODE_MIXED && w->n_ranges) {
        r->n_ranges = w->n_ranges;
        if (!(r->ranges = skf_memdup(w->ranges, w->n_ranges * sizeof *r->ranges)))
            return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    if (c.coding == SKF_CODE_RAW)
        memcpy(r->payload_digest, r->result_digest, SKF_DIGEST);
    else
        skf_sha256(payload, c.n, r->payload_digest);
    SKF_TRY(build_spool_put(&b->spool, payload, c.n, &b->spooled[i], why));
    uint64_t done = atomic_fetch_add(&b->done, n) + n;
    skf_progress_tell(b->progress, done, b->neu_cut.size);
    return SKF_OK;
}
