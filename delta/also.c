/*
 * Another version that receivers have beside the one they start from: an earlier one, or another model's.  Its bytes count as standing behind
 * the source's.  Chunks that it holds are copied, and a tensor that is nearer to its counterpart there is coded against that.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/build_priv.h"
#include "delta/pair_priv.h"

#define SAMPLES 4           /* of a tensor, which are coded against both */
#define SAMPLE (64u << 10)  /* bytes of one */

void build_join(struct build *b)
{
    if (!b->also)
        return;
    b->both = (struct skf_source_pair){{*b->old_source, *skf_model_source(b->also)}};
    b->joined = skf_source_both(&b->both);
    b->old_source = &b->joined;
}

enum skf_err build_cut_also(struct build *b, struct skf_why *why)
{
    uint64_t all;
    if (!b->also)
        return SKF_OK;
    if (!is_add_ok(b->both.of[0].size, b->both.of[1].size, &all))
        return skf_fail(why, SKF_ERR_LIMIT, "the two versions are larger than anything");
    SKF_TRY(skf_cut_make(b->also, b->jobs, b->progress, &b->also_cut, why));
    b->before += b->also_cut.size / 8;
    if (b->also_cut.size && memcmp(b->also_cut.root, b->old_cut.root, SKF_DIGEST) != 0)
        return SKF_OK;
    skf_cut_free(&b->also_cut); /* the source again: nothing is to be had of it */
    b->also_cut = (struct skf_cut){0};
    b->also = NULL;
    b->old_source = &b->both.of[0];
    return SKF_OK;
}

struct trial { /* what comparing takes */
    struct skf_work work;
    struct skf_area neu, old;
    struct skf_buf out;
};

/* Bytes that n bytes of the tensor from `at` on take against those of a counterpart; of types that cannot be told in numbers, how many differ. */
static enum skf_err cost_of(const struct build *b, struct trial *t, const struct skf_tensor *from, uint64_t at, const uint8_t *neu, size_t n,
                            uint64_t *cost)
{
    const uint8_t *old;
    SKF_TRY(skf_area_view(b->old_source, from->offset + at, n, &t->old, &old));
    if (memcmp(old, neu, n) == 0)
        return SKF_OK;
    if (!skf_int_grain(from->type)) {
        for (size_t i = 0; i < n; i++)
            *cost += old[i] != neu[i];
        return SKF_OK;
    }
    skf_buf_clear(&t->out);
    t->out.limit = n;
    enum skf_err e = skf_int_put(&t->work, from->type, from->row_bytes, NULL, 0, old, neu, n, &t->out);
    *cost += e == SKF_OK ? t->out.len : n;
    return e == SKF_ERR_LIMIT ? SKF_OK : e;
}

/* Whether tensor `to` takes less against `also` than against `old`, by a few samples of whole rows, where these are not too long. */
static enum skf_err compare(const struct build *b, struct trial *t, const struct skf_tensor *to, const struct skf_tensor *old,
                            const struct skf_tensor *also, bool *is_nearer)
{
    const uint64_t bytes = SKF_MIN(to->bytes, SKF_MIN(old->bytes, also->bytes)), grain = SKF_MAX(skf_int_grain(to->type), 1u);
    const uint64_t unit = to->row_bytes && to->row_bytes <= SAMPLE ? to->row_bytes : grain, n = SKF_MIN(bytes, (uint64_t)SAMPLE) / unit * unit;
    uint64_t cost[2] = {0};
    *is_nearer = false;
    for (unsigned k = 0; k < SAMPLES && n; k++) {
        const uint64_t at = (bytes - n) / unit * k / (SAMPLES - 1) * unit;
        const uint8_t *neu;
        SKF_TRY(skf_area_view(b->neu_source, to->offset + at, n, &t->neu, &neu));
        SKF_TRY(cost_of(b, t, old, at, neu, n, &cost[0]));
        SKF_TRY(cost_of(b, t, also, at, neu, n, &cost[1]));
    }
    *is_nearer = n && cost[1] < cost[0];
    return SKF_OK;
}

struct pairing {
    struct build *b;
    const struct skf_tensor **pairs; /* counterparts in the other version, where they stand in it */
    const struct skf_tensor *first;  /* the first tensor of it */
    struct trial trial;
};

static enum skf_err pair_all(void *ctx, struct skf_why *why)
{
    struct pairing *p = ctx;
    struct build *b = p->b;
    for (size_t i = 0; i < b->n_tensors; i++) {
        if (!p->pairs[i])
            continue;
        const struct skf_tensor *also = &b->also_tensors[p->pairs[i] - p->first];
        bool is_nearer = true;
        enum skf_err e = b->pairs[i] ? compare(b, &p->trial, &b->tensors[i], b->pairs[i], also, &is_nearer) : SKF_OK;
        if (e != SKF_OK)
            return skf_fail(why, e, "tensors cannot be compared: %s", skf_err_name(e));
        if (is_nearer)
            b->pairs[i] = also;
        if (is_cancelled(b->progress))
            return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    }
    return SKF_OK;
}

enum skf_err build_pair_also(struct build *b, struct skf_why *why)
{
    struct pairing p = {.b = b, .trial.out = SKF_BUF_INIT(SAMPLE)};
    size_t n;
    if (!b->also)
        return SKF_OK;
    p.first = skf_model_tensors(b->also, &n);
    if (n && !(b->also_tensors = skf_memdup(p.first, n * sizeof *p.first)))
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        b->also_tensors[i].offset += b->old_cut.size;
    SKF_TRY(skf_pairs_make(b->also, b->neu, &p.pairs, why));
    enum skf_err e = skf_work_init(&p.trial.work) == SKF_OK ? skf_map_guard(pair_all, &p, why) : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    skf_work_free(&p.trial.work);
    skf_area_free(&p.trial.neu);
    skf_area_free(&p.trial.old);
    skf_buf_free(&p.trial.out);
    skf_free(p.pairs);
    return e;
}

bool is_also_used(const struct build *b)
{
    for (uint64_t i = 0; b->also && b->chunks && i < b->neu_cut.n; i++) {
        const struct skd_out_chunk *c = &b->chunks[i];
        for (uint32_t k = 0; k < c->n_ranges; k++)
            if (c->ranges[k].at + c->ranges[k].n > b->old_cut.size)
                return true;
        if (!c->n_ranges && c->source_length && c->source_offset + c->source_length > b->old_cut.size)
            return true;
    }
    return false;
}
