/* A chunk from its regions: the receiver's side of SKF_CODE_MIXED (region_priv.h; docs/formats.md has the layout). */
#include "delta/region_priv.h"

#include <string.h>

struct part { /* a region as it is written */
    struct skf_region g;
    const uint8_t *payload;
    size_t payload_n;
};

static enum skf_err get_cast(struct skf_reader *r, size_t prefix_n, struct skf_region *g)
{
    uint64_t type, from, old_n;
    SKF_TRY(skf_get_varint(r, &type));
    SKF_TRY(skf_get_varint(r, &from));
    if (type > INT32_MAX || !is_castable((enum skf_type)type, g->type, g->n, &old_n) || from > prefix_n || old_n > prefix_n - from)
        return SKF_ERR_FORMAT;
    g->old_type = (enum skf_type)type;
    g->from = (uint32_t)from;
    return SKF_OK;
}

static enum skf_err get_part(struct skf_reader *r, size_t prefix_n, size_t at, size_t n, struct part *p)
{
    uint8_t kind;
    uint64_t len, type, from;
    SKF_TRY(skf_get_u8(r, &kind));
    SKF_TRY(skf_get_varint(r, &len));
    if (kind > SKF_REGION_CAST || len == 0 || len > n - at)
        return SKF_ERR_FORMAT;
    p->g = (struct skf_region){.at = (uint32_t)at, .n = (uint32_t)len, .kind = (enum skf_region_kind)kind};
    if (kind == SKF_REGION_REST)
        return SKF_OK;
    SKF_TRY(skf_get_varint(r, &type));
    const struct skf_type_info *info = type <= UINT32_MAX ? skf_type_info((uint32_t)type) : NULL;
    if (!info)
        return SKF_ERR_FORMAT;
    p->g.type = info->type;
    if (kind != SKF_REGION_FLOATS) {
        SKF_TRY(skf_get_varint(r, &p->g.row_bytes));
        if (p->g.row_bytes == 0 || p->g.row_bytes % info->block_bytes)
            return SKF_ERR_FORMAT;
    }
    if (kind == SKF_REGION_CAST)
        SKF_TRY(get_cast(r, prefix_n, &p->g));
    if (kind == SKF_REGION_INT) { /* in the prefix, or in what the chunk has before the region */
        SKF_TRY(skf_get_varint(r, &from));
        if (!(from <= prefix_n && len <= prefix_n - from) &&
            !(from >= prefix_n && from - prefix_n <= at && len <= at - (from - prefix_n)))
            return SKF_ERR_FORMAT;
        p->g.from = (uint32_t)from;
    }
    SKF_TRY(skf_get_varint(r, &len));
    p->payload_n = len;
    return skf_get_bytes(r, len, &p->payload);
}

static enum skf_err make_numbers(struct skf_work *w, struct skf_region_room *room, const struct part *p,
                                 const uint8_t *prefix, size_t prefix_n, uint8_t *out)
{
    const struct skf_region *g = &p->g;
    const uint8_t *old = g->from < prefix_n ? prefix + g->from : out + (g->from - prefix_n);
    if (g->kind == SKF_REGION_FLOATS) {
        struct skf_reader own = skf_reader_of(p->payload, p->payload_n);
        SKF_TRY(skf_floats_get(w, g->type, &own, out + g->at, g->n));
        return skf_reader_left(&own) ? SKF_ERR_FORMAT : SKF_OK;
    }
    if (g->kind == SKF_REGION_FIRST) {
        SKF_TRY(skf_area_need(&room->zeros, g->n));
        memset(room->zeros.p, 0, g->n);
        old = room->zeros.p;
    }
    if (g->kind == SKF_REGION_CAST) {
        SKF_TRY(skf_area_need(&room->zeros, g->n));
        SKF_TRY(skf_cast(g->old_type, g->type, old, room->zeros.p, g->n));
        old = room->zeros.p;
    }
    return skf_int_get(w, g->type, g->row_bytes, NULL, 0, p->payload, p->payload_n, old, out + g->at, g->n);
}

/* The frame holds all rests, one behind the other. */
static enum skf_err make_rest(struct skf_work *w, struct skf_region_room *room, const struct part *part, size_t count,
                              const struct skf_reader *frame, const uint8_t *prefix, size_t prefix_n, uint8_t *out)
{
    size_t all = 0, rests = 0;
    const struct skf_region *last = NULL;
    for (size_t i = 0; i < count; i++) {
        if (part[i].g.kind != SKF_REGION_REST)
            continue;
        last = &part[i].g;
        all += last->n;
        rests++;
    }
    if (!rests)
        return skf_reader_left(frame) ? SKF_ERR_FORMAT : SKF_OK;
    if (rests == 1) /* is filled where it lies */
        return skf_zdec_run(w->dec, frame->p, skf_reader_left(frame), prefix, prefix_n, out + last->at, all);
    SKF_TRY(skf_area_need(&room->rest, all));
    SKF_TRY(skf_zdec_run(w->dec, frame->p, skf_reader_left(frame), prefix, prefix_n, room->rest.p, all));
    const uint8_t *from = room->rest.p;
    for (size_t i = 0; i < count; i++) {
        if (part[i].g.kind != SKF_REGION_REST)
            continue;
        memcpy(out + part[i].g.at, from, part[i].g.n);
        from += part[i].g.n;
    }
    return SKF_OK;
}

enum skf_err skf_regions_get(struct skf_work *w, struct skf_region_room *room, const uint8_t *payload,
                             size_t payload_n, const uint8_t *prefix, size_t prefix_n, uint8_t *out, size_t n)
{
    struct skf_reader r = skf_reader_of(payload, payload_n);
    struct part part[SKF_REGIONS_MAX];
    uint64_t count;
    size_t at = 0;
    SKF_TRY(skf_get_varint(&r, &count));
    if (count == 0 || count > SKF_REGIONS_MAX)
        return SKF_ERR_FORMAT;
    for (uint64_t i = 0; i < count; i++) {
        SKF_TRY(get_part(&r, prefix_n, at, n, &part[i]));
        at += part[i].g.n;
    }
    if (at != n)
        return SKF_ERR_FORMAT;
    SKF_TRY(make_rest(w, room, part, count, &r, prefix, prefix_n, out));
    for (uint64_t i = 0; i < count; i++)
        if (part[i].g.kind != SKF_REGION_REST)
            SKF_TRY(make_numbers(w, room, &part[i], prefix, prefix_n, out));
    return SKF_OK;
}
