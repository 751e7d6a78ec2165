/* What the chunks of a tensor share: the factors that its rows move along (factor_priv.h). */
#include <math.h>

#include "delta/build_priv.h"
#include "delta/factor_priv.h"
#include "model/adapter.h"

struct rows {
    const struct build *b;
    struct build_worker *w;
    const struct skf_tensor *old, *neu;
    float *was; /* a row of the source */
};

static enum skf_err read_row(const struct skf_source *source, const struct skf_tensor *t, uint64_t i, struct skf_area *a, float *out)
{
    const uint8_t *p;
    SKF_TRY(skf_area_view(source, t->offset + i * t->row_bytes, t->row_bytes, a, &p));
    return skf_dequantize(t->type, p, out, t->dims[0]);
}

static enum skf_err row_change(void *ctx, uint64_t i, float *out)
{
    const struct rows *r = ctx;
    SKF_TRY(read_row(r->b->neu_source, r->neu, i, &r->w->neu, out));
    SKF_TRY(read_row(r->b->old_source, r->old, i, &r->w->old, r->was));
    for (uint64_t j = 0; j < r->neu->dims[0]; j++) {
        float d = out[j] - r->was[j];
        out[j] = d > -1e15f && d < 1e15f ? d : 0;
    }
    return SKF_OK;
}

/* What halving a change's energy saves; 0 for types that take no guess. */
static double gain_of(enum skf_type t)
{
    switch (t) {
    case SKF_T_BF16:
    case SKF_T_F16:
    case SKF_T_F32:
        return SKF_GAIN_FLOATS;
    case SKF_T_Q4_0:
    case SKF_T_Q4_1:
    case SKF_T_Q8_0:
        return SKF_GAIN_BLOCKS;
    default:
        return 0;
    }
}

/* Whether the adapter changes the tensor: then its side is the adapter's. */
static enum skf_err is_adapted(const struct build *b, const struct skf_tensor *old, bool *is, struct skf_why *why)
{
    struct skf_low_rank l = {0};
    if (b->adapter)
        SKF_TRY(skf_adapter_find(b->adapter, old, &l, why));
    *is = l.rank != 0;
    return SKF_OK;
}

enum skf_err build_find_side(struct build *b, unsigned worker, uint64_t tensor, struct skf_why *why)
{
    struct build_worker *w = &b->workers[worker];
    const struct skf_tensor *neu = &b->tensors[tensor], *old = b->pairs[tensor];
    if (!old || atomic_load(&b->sides[tensor].left) == 0 || gain_of(neu->type) <= 0)
        return SKF_OK;
    bool is_taken;
    SKF_TRY(is_adapted(b, old, &is_taken, why));
    uint64_t rows = SKF_MIN(neu->bytes, old->bytes) / neu->row_bytes;
    if (is_taken || !skf_factors_fit(rows, neu->dims[0]))
        return SKF_OK;
    enum skf_err e = skf_area_need(&w->check, neu->dims[0] * sizeof(float));
    struct rows r = {b, w, old, neu, (float *)(void *)w->check.p};
    skf_buf_clear(&w->out);
    w->out.limit = SKF_CHUNK_MAX;
    if (e == SKF_OK)
        e = skf_factors_find(&w->work, rows, (uint32_t)neu->dims[0], gain_of(neu->type), row_change, &r, &w->out);
    if (e == SKF_OK && w->out.len)
        return build_add_side(b, (uint32_t)tensor, SKF_CODE_INT, w->out.data, w->out.len, why);
    return e == SKF_OK ? e : skf_fail(why, e, "tensor %s cannot be compared: %s", neu->name, skf_err_name(e));
}
