/* What the chunks of a tensor share: the factors that its rows move along (factor_priv.h). */
#include <string.h>

#include "delta/build_priv.h"
#include "delta/factor_priv.h"
#include "model/adapter.h"
#include "model/quant.h"

struct rows {
    const struct build *b;
    struct build_worker *w;
    const struct skf_tensor *old, *neu;
    float *was; /* a row of the source */
};

static enum skf_err row_change(void *ctx, uint64_t i, float *out)
{
    const struct rows *r = ctx;
    const uint8_t *old, *neu;
    const struct skf_loops *loops = skf_loops_of(r->w->work.isa);
    uint64_t n = r->neu->dims[0];
    SKF_TRY(
        skf_area_view(r->b->neu_source, r->neu->offset + i * r->neu->row_bytes, r->neu->row_bytes, &r->w->neu, &neu));
    SKF_TRY(
        skf_area_view(r->b->old_source, r->old->offset + i * r->neu->row_bytes, r->neu->row_bytes, &r->w->old, &old));
    if (r->neu->type == SKF_T_BF16) {
        loops->change_bf16(old, neu, out, (uint32_t)n);
    } else if (r->neu->type == SKF_T_F16) {
        loops->change_f16(old, neu, out, (uint32_t)n);
    } else {
        SKF_TRY(skf_dequantize(r->neu->type, neu, out, n));
        SKF_TRY(skf_dequantize(r->neu->type, old, r->was, n));
        for (uint64_t j = 0; j < n; j++) {
            float d = out[j] - r->was[j];
            out[j] = d > -1e15f && d < 1e15f ? d : 0;
        }
    }
    return SKF_OK;
}

/* What halving a change's energy saves; 0 for types that take no guess. */
static double gain_of(enum skf_type t)
{
    const struct skf_type_info *info = skf_type_info(t);
    if (t == SKF_T_BF16 || t == SKF_T_F16 || t == SKF_T_F32)
        return SKF_GAIN_FLOATS;
    return info && info->block > 1 && skf_int_grain(t) && is_dequantizable(t) ? SKF_GAIN_BLOCKS : 0;
}

/* Rows that are coded to see whether the side pays. */
#define ROWS_TRIED 256

/* Whether the side saves more of the tensor than it takes, by rows spread over the tensor. */
static enum skf_err does_pay(const struct rows *r, uint64_t rows, const uint8_t *side, size_t side_n, bool *pays)
{
    struct build_worker *w = r->w;
    const uint8_t *p;
    uint64_t row = r->neu->row_bytes, n = SKF_MIN(SKF_MIN(rows, (uint64_t)ROWS_TRIED), SKF_CHUNK_MAX / row);
    struct skf_buf with = SKF_BUF_INIT(2 * SKF_CHUNK_MAX), without = SKF_BUF_INIT(2 * SKF_CHUNK_MAX);
    enum skf_err e = SKF_OK;
    SKF_GO(e, skf_area_need(&w->check, n * row));
    SKF_GO(e, skf_area_need(&w->best, n * row));
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = i * rows / n * row;
        SKF_GO(e, skf_area_view(r->b->old_source, r->old->offset + at, row, &w->old, &p));
        memcpy(w->check.p + i * row, p, row);
        SKF_GO(e, skf_area_view(r->b->neu_source, r->neu->offset + at, row, &w->neu, &p));
        memcpy(w->best.p + i * row, p, row);
    }
    SKF_GO(e, skf_int_put(&w->work, r->neu->type, row, NULL, 0, w->check.p, w->best.p, n * row, &without));
    SKF_GO(e, skf_int_put(&w->work, r->neu->type, row, side, side_n, w->check.p, w->best.p, n * row, &with));
    *pays = ((double)without.len - (double)with.len) * (double)rows / (double)n > (double)side_n + SKF_DIGEST + 4;
out:
    skf_buf_free(&with);
    skf_buf_free(&without);
    return e;
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
    if (e == SKF_ERR_UNSUPPORTED) /* blocks that cannot be read as numbers */
        return SKF_OK;
    bool pays = false;
    if (e == SKF_OK && w->out.len)
        e = does_pay(&r, rows, w->out.data, w->out.len, &pays);
    if (e == SKF_OK && pays)
        return build_add_side(b, (uint32_t)tensor, SKF_CODE_INT, w->out.data, w->out.len, why);
    return e == SKF_OK ? e : skf_fail(why, e, "tensor %s cannot be compared: %s", neu->name, skf_err_name(e));
}
