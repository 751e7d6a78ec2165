/* A chunk as regions, written (region_priv.h). */
#include <string.h>

#include "delta/region_priv.h"

enum skf_region_kind skf_region_alone(enum skf_type t)
{
    return skf_floats_fit(t) ? SKF_REGION_FLOATS : skf_int_grain(t) ? SKF_REGION_FIRST : SKF_REGION_REST;
}

enum skf_err skf_region_put(const struct skf_region_tools *t, const struct skf_region *g, const uint8_t *p,
                            const uint8_t *prefix, size_t prefix_n, struct skf_buf *out)
{
    const uint8_t *old = g->from < prefix_n ? prefix + g->from : p + (g->from - prefix_n);
    if (g->kind == SKF_REGION_FLOATS)
        return skf_floats_put(t->work, g->type, p + g->at, g->n, out);
    if (g->kind == SKF_REGION_FIRST) {
        SKF_TRY(skf_area_need(&t->room->zeros, g->n));
        memset(t->room->zeros.p, 0, g->n);
        old = t->room->zeros.p;
    }
    if (g->kind == SKF_REGION_CAST) {
        SKF_TRY(skf_area_need(&t->room->zeros, g->n));
        SKF_TRY(skf_cast(g->old_type, g->type, old, t->room->zeros.p, g->n));
        old = t->room->zeros.p;
    }
    return skf_int_put(t->work, g->type, g->row_bytes, NULL, 0, old, p + g->at, g->n, out);
}

static enum skf_err put_numbers(const struct skf_region_tools *t, const struct skf_region *g, const uint8_t *p,
                                const uint8_t *prefix, size_t prefix_n, struct skf_buf *out)
{
    SKF_TRY(skf_put_varint(out, (uint64_t)g->type));
    if (g->kind != SKF_REGION_FLOATS)
        SKF_TRY(skf_put_varint(out, g->row_bytes));
    if (g->kind == SKF_REGION_CAST)
        SKF_TRY(skf_put_varint(out, (uint64_t)g->old_type));
    if (g->kind == SKF_REGION_INT || g->kind == SKF_REGION_CAST)
        SKF_TRY(skf_put_varint(out, g->from));
    skf_buf_clear(t->trial);
    SKF_TRY(skf_region_put(t, g, p, prefix, prefix_n, t->trial));
    SKF_TRY(skf_put_varint(out, t->trial->len));
    return skf_buf_put(out, t->trial->data, t->trial->len);
}

enum skf_err skf_regions_put(const struct skf_region_tools *t, const struct skf_region *regions, uint32_t count,
                             const uint8_t *p, const uint8_t *prefix, size_t prefix_n, struct skf_buf *out)
{
    size_t all = 0, got = 0;
    SKF_TRY(skf_put_varint(out, count));
    for (uint32_t i = 0; i < count; i++) {
        const struct skf_region *g = &regions[i];
        SKF_TRY(skf_buf_u8(out, (uint8_t)g->kind));
        SKF_TRY(skf_put_varint(out, g->n));
        if (g->kind != SKF_REGION_REST)
            SKF_TRY(put_numbers(t, g, p, prefix, prefix_n, out));
        else
            all += g->n;
    }
    if (!all)
        return SKF_OK;
    SKF_TRY(skf_area_need(&t->room->rest, all));
    all = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (regions[i].kind != SKF_REGION_REST)
            continue;
        memcpy(t->room->rest.p + all, p + regions[i].at, regions[i].n);
        all += regions[i].n;
    }
    if (out->len >= out->limit)
        return SKF_ERR_LIMIT;
    SKF_TRY(skf_buf_reserve(out, out->limit - out->len));
    SKF_TRY(skf_zenc_chunk(t->enc, t->room->rest.p, all, prefix, prefix_n, t->level, out->data + out->len,
                           out->limit - out->len, &got));
    if (!got)
        return SKF_ERR_LIMIT;
    out->len += got;
    return SKF_OK;
}
