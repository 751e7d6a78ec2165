/* One chunk of the result, made from its payload and the source: the receiver's inner step (delta.h). */
#include <string.h>

#include "base/alloc.h"
#include "delta/adapter_priv.h"
#include "delta/int_priv.h"
#include "delta/lz_priv.h"
#include "delta/region_priv.h"
#include "delta/skd_priv.h"

struct skf_delta_scratch {
    struct skf_work work;
    struct skf_area source; /* what does not lie in one piece; or */
    struct skf_region_room room;
    struct skf_lz_in *in; /* NULL: no piece is being unpacked */
    size_t piece_n, piece_at; /* its bytes (0: none that can go on), and how many of them were made, from the side with this digest */
    uint8_t piece_digest[SKF_DIGEST];
};

enum skf_err skf_delta_scratch_new(struct skf_delta_scratch **s)
{
    struct skf_delta_scratch *n = skf_calloc(1, sizeof *n);
    if (!n)
        return SKF_ERR_NOMEM;
    enum skf_err e = skf_work_init(&n->work);
    if (e != SKF_OK) {
        skf_free(n);
        return e;
    }
    *s = n;
    return SKF_OK;
}

void skf_delta_scratch_free(struct skf_delta_scratch *s)
{
    if (!s)
        return;
    skf_work_free(&s->work);
    skf_area_free(&s->source);
    skf_lz_in_free(s->in);
    skf_area_free(&s->room.rest);
    skf_area_free(&s->room.zeros);
    skf_free(s);
}

static enum skf_err make_mixed(const struct skf_skd *skd, const struct skd_chunk *c, const uint8_t *payload,
                               const struct skf_source *source, struct skf_delta_scratch *s, uint8_t *out)
{
    const struct skd_range *g = (const struct skd_range *)(const void *)skd->ranges.data + c->range;
    const uint8_t *old = NULL;
    if (c->ranges == 1)
        SKF_TRY(skf_area_view(source, g->at, g->n, &s->source, &old));
    if (c->ranges > 1)
        SKF_TRY(skf_area_need(&s->source, c->source_length));
    for (uint32_t i = 0, at = 0; i < c->ranges && c->ranges > 1; at += g[i++].n)
        SKF_TRY(skf_source_read(source, g[i].at, s->source.p + at, g[i].n));
    return skf_regions_get(&s->work, &s->room, payload, c->payload_length, old ? old : s->source.p, c->source_length, out,
                           c->result_length);
}

/* A piece of several chunks is unpacked as far as they are asked for, since the next chunk is mostly the next of it; one in front of that
 * takes it from the beginning. */
static enum skf_err make_packed(const struct skf_skd *skd, const struct skd_chunk *c, struct skf_delta_scratch *s, uint8_t *out)
{
    const struct skd_tensor *t = &skd->tensors[c->tensor];
    const struct skd_side *side = skd_side_of(skd, c);
    const uint64_t from = c->result_offset - t->offset;
    if (!s->in && !(s->in = skf_lz_in_new()))
        return SKF_ERR_NOMEM;
    if (s->piece_n != t->bytes || s->piece_at > from || memcmp(s->piece_digest, side->digest, SKF_DIGEST) != 0) {
        s->piece_n = s->piece_at = 0;
        SKF_TRY(skf_lz_open(s->in, side->payload, side->payload_length, t->bytes));
        memcpy(s->piece_digest, side->digest, SKF_DIGEST);
    }
    s->piece_n = 0; /* until this has come out well */
    while (s->piece_at < from) {
        size_t many = SKF_MIN(from - s->piece_at, c->result_length);
        SKF_TRY(skf_lz_next(s->in, side->payload, out, many));
        s->piece_at += many;
    }
    SKF_TRY(skf_lz_next(s->in, side->payload, out, c->result_length));
    s->piece_at += c->result_length;
    s->piece_n = t->bytes;
    return SKF_OK;
}

static enum skf_err make(const struct skf_skd *skd, const struct skd_chunk *c, const uint8_t *payload,
                         const struct skf_source *source, struct skf_delta_scratch *s, uint8_t *out)
{
    const uint8_t *old;
    const struct skd_side *side = skd_side_of(skd, c);
    if (c->coding != SKF_CODE_PACK && s->in) { /* memory is for the one or the other */
        skf_lz_in_free(s->in);
        s->in = NULL;
        s->piece_n = 0;
    }
    switch (c->coding) {
    case SKF_CODE_COPY:
        if (c->source_offset > source->size || c->source_length > source->size - c->source_offset)
            return SKF_ERR_BASE;
        return skf_source_read(source, c->source_offset, out, c->result_length);
    case SKF_CODE_RAW:
        memcpy(out, payload, c->result_length);
        return SKF_OK;
    case SKF_CODE_ZSTD:
        return skf_zdec_run(s->work.dec, payload, c->payload_length, NULL, 0, out, c->result_length);
    case SKF_CODE_PATCH:
        SKF_TRY(skf_area_view(source, c->source_offset, c->source_length, &s->source, &old));
        return skf_zdec_run(s->work.dec, payload, c->payload_length, old, c->source_length, out, c->result_length);
    case SKF_CODE_INT:
        SKF_TRY(skf_area_view(source, c->source_offset, c->source_length, &s->source, &old));
        return skf_int_get(&s->work, skd->tensors[c->tensor].type, skd->tensors[c->tensor].row_bytes,
                           side ? side->payload : NULL, side ? side->payload_length : 0, payload, c->payload_length, old,
                           out, c->result_length);
    case SKF_CODE_ADAPTER: {
        const struct skd_tensor *t = &skd->tensors[c->tensor];
        struct adapter_chunk a = {.type = t->type, .row_bytes = t->row_bytes};
        if (side) {
            a.side = side->payload;
            a.side_n = side->payload_length;
            a.side_digest = side->digest;
        }
        SKF_TRY(skf_area_view(source, c->source_offset, c->source_length, &s->source, &old));
        return adapter_get(&s->work, &a, payload, c->payload_length, old, out, c->result_length);
    }
    case SKF_CODE_MIXED:
        return make_mixed(skd, c, payload, source, s, out);
    case SKF_CODE_PACK:
        return make_packed(skd, c, s, out);
    default:
        return SKF_ERR_INTERNAL;
    }
}

/* Everything chunk i needs is there. */
static enum skf_err check_given(const struct skf_skd *skd, uint64_t i, const uint8_t *payload, struct skf_why *why)
{
    if (i >= skd->info.n_chunks)
        return skf_fail(why, SKF_ERR_ARG, "the delta has no chunk %llu", (unsigned long long)i);
    const struct skd_side *side = skd_side_of(skd, &skd->chunks[i]);
    if (side && !side->payload)
        return skf_fail(why, SKF_ERR_ARG, "chunk %llu needs the side of its tensor", (unsigned long long)i);
    if (skd->chunks[i].payload_length && !payload)
        return skf_fail(why, SKF_ERR_ARG, "chunk %llu needs its payload", (unsigned long long)i);
    return SKF_OK;
}

/* What came of making chunk i. */
static enum skf_err judge(const struct skf_skd *skd, uint64_t i, enum skf_err e, struct skf_why *why)
{
    /* A right payload that cannot be undone was made from other bytes than these. */
    if (e == SKF_ERR_FORMAT && skd->chunks[i].source_length)
        e = SKF_ERR_BASE;
    if (e == SKF_ERR_BASE)
        return skf_fail(why, e, "the delta is for another base: chunk %llu does not come out", (unsigned long long)i);
    return e == SKF_OK ? e : skf_fail(why, e, "chunk %llu cannot be made", (unsigned long long)i);
}

enum skf_err skf_skd_judge(const struct skf_skd *skd, uint64_t i, const uint8_t digest[SKF_DIGEST], struct skf_why *why)
{
    return judge(skd, i, memcmp(digest, skd_result_digest(skd, &skd->chunks[i]), SKF_DIGEST) == 0 ? SKF_OK : SKF_ERR_BASE, why);
}

enum skf_err skf_skd_admit(const struct skf_skd *skd, const uint64_t *i, const uint8_t *const *payload, unsigned n, struct skf_why *why)
{
    struct skf_message given[SKF_SHA256_MANY] = {{0}};
    uint64_t number[SKF_SHA256_MANY];
    uint8_t digest[SKF_SHA256_MANY][SKF_DIGEST];
    unsigned m = 0;
    if (n > SKF_SHA256_MANY)
        return skf_fail(why, SKF_ERR_ARG, "%u chunks are too many at once", n);
    for (unsigned k = 0; k < n; k++) {
        SKF_TRY(check_given(skd, i[k], payload[k], why));
        if (!skd->chunks[i[k]].payload_length)
            continue;
        number[m] = i[k];
        given[m] = (struct skf_message){payload[k], skd->chunks[i[k]].payload_length, digest[m]};
        m++;
    }
    skf_sha256_many(given, m);
    for (unsigned k = 0; k < m; k++) {
        const struct skd_chunk *c = &skd->chunks[number[k]];
        if (memcmp(digest[k], skd_payload_digest(skd, c), c->coding == SKF_CODE_RAW ? SKF_DIGEST : SKD_PAYLOAD_DIGEST) != 0)
            return skf_fail(why, SKF_ERR_DIGEST, "damaged delta: the payload of chunk %llu has not its digest", (unsigned long long)number[k]);
    }
    return SKF_OK;
}

enum skf_err skf_skd_make(const struct skf_skd *skd, uint64_t i, const uint8_t *payload, const struct skf_source *source,
                          struct skf_delta_scratch *s, uint8_t *out, struct skf_why *why)
{
    SKF_TRY(check_given(skd, i, payload, why));
    return judge(skd, i, make(skd, &skd->chunks[i], payload, source, s, out), why);
}

enum skf_err skf_skd_check(const struct skf_skd *skd, uint64_t i, const uint8_t *result, struct skf_why *why)
{
    uint8_t digest[SKF_DIGEST];
    if (skd->chunks[i].coding == SKF_CODE_RAW) /* the payload is the result, and hashed already */
        return SKF_OK;
    skf_sha256(result, skd->chunks[i].result_length, digest);
    return skf_skd_judge(skd, i, digest, why);
}

enum skf_err skf_skd_decode(const struct skf_skd *skd, uint64_t i, const uint8_t *payload,
                            const struct skf_source *source, struct skf_delta_scratch *s, uint8_t *out,
                            struct skf_why *why)
{
    SKF_TRY(skf_skd_admit(skd, &i, &payload, 1, why));
    SKF_TRY(skf_skd_make(skd, i, payload, source, s, out, why));
    return skf_skd_check(skd, i, out, why);
}
