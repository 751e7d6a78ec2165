/*
 * Chunks that came out of zstd, packed anew in pieces of up to 4 MiB (lz_priv.h): what texts, programs and archives have in common from
 * chunk to chunk is said once.  Pieces are longer than a chunk only where the delta makes no tensors, whose decoding on several threads takes
 * the memory that a piece would.
 */
#include <string.h>

#include "base/alloc.h"
#include "delta/build_priv.h"

/* So much of such bytes is packed; in what is longer it would take too long. */
#define PACKED_MOST (256ull << 20)
#define LEVEL_BEST 19 /* of zstd: whoever asks for less wants it sooner */

/* A chunk of unknown content that is neither noise nor numbers, and not made of the source for much less than by itself. */
static bool is_packable(const struct build *b, uint64_t i)
{
    const struct skd_out_chunk *r = &b->chunks[i];
    bool is_kind = r->coding == SKF_CODE_ZSTD || ((r->coding == SKF_CODE_PATCH || r->coding == SKF_CODE_MIXED) &&
                                                  r->payload_length > b->alone[i] / 8 * 5);
    return b->tensor_of[i] == SKD_NO_TENSOR && is_kind && b->alone[i] && b->alone[i] < r->result_length / 8 * 7;
}

static bool has_tensors(const struct build *b)
{
    for (uint64_t i = 0; i < b->neu_cut.n; i++)
        if (b->tensor_of[i] != SKD_NO_TENSOR && b->chunks[i].coding != SKF_CODE_COPY)
            return true;
    return false;
}

enum skf_err build_plan_packs(struct build *b, unsigned *jobs, uint64_t *bytes)
{
    const uint64_t most = has_tensors(b) ? 1 : SKD_PACK_MAX;
    struct build_pack *p = NULL;
    uint64_t sum = 0, end = 0;
    *bytes = 0;
    *jobs = most > 1 ? 1 : SKF_MIN(b->jobs, BUILD_PACKERS);
    if (b->level && b->level < LEVEL_BEST)
        return SKF_OK;
    if (!(b->packs = skf_calloc(b->neu_cut.n, sizeof *b->packs)))
        return SKF_ERR_NOMEM;
    for (uint64_t i = 0; i < b->neu_cut.n; i++) {
        const struct skd_out_chunk *r = &b->chunks[i];
        if (!is_packable(b, i) || *bytes + r->result_length > PACKED_MOST)
            continue;
        *bytes += r->result_length;
        sum += r->payload_length;
        /* A side has its limit, and what zstd makes of the chunks is more than what packing does. */
        if (!p || end != i || p->bytes + (uint64_t)r->result_length > most || sum > SKF_SIDE_MAX) {
            p = &b->packs[b->n_packs++];
            *p = (struct build_pack){.first = i};
            sum = r->payload_length;
        }
        p->chunks++;
        p->bytes += r->result_length;
        end = i + 1;
    }
    return SKF_OK;
}

/* It must come out as it went in. */
static enum skf_err check_piece(const struct skf_buf *packed, const uint8_t *neu, size_t n)
{
    uint8_t part[8192];
    struct skf_lz_in *in = skf_lz_in_new();
    enum skf_err e = in ? skf_lz_open(in, packed->data, packed->len, n) : SKF_ERR_NOMEM;
    for (size_t at = 0, many; at < n && e == SKF_OK; at += many) {
        many = SKF_MIN(n - at, sizeof part);
        e = skf_lz_next(in, packed->data, part, many);
        if (e == SKF_OK && memcmp(part, neu + at, many) != 0)
            e = SKF_ERR_INTERNAL;
    }
    skf_lz_in_free(in);
    return e == SKF_ERR_FORMAT ? SKF_ERR_INTERNAL : e;
}

/* The piece in w->out, where that is less than what its chunks take now; and undone again, as every coding. */
static enum skf_err pack_piece(const struct build *b, const struct build_pack *p, struct build_packer *w)
{
    const uint8_t *neu;
    size_t now = 0;
    for (uint64_t i = p->first; i < p->first + p->chunks; i++)
        now += b->chunks[i].payload_length + SKF_DIGEST;
    now -= SKF_MIN(now, SKF_DIGEST + 16 + now / 128); /* about what its record takes; and less than a hundredth is not worth the receiver's time */
    skf_buf_clear(&w->out);
    w->out.limit = SKF_MIN(now, (size_t)SKF_SIDE_MAX);
    SKF_TRY(skf_area_view(b->neu_source, b->chunks[p->first].result_offset, p->bytes, &w->neu, &neu));
    SKF_TRY(skf_lz_put(b->progress, neu, p->bytes, &w->out));
    return check_piece(&w->out, neu, p->bytes);
}

enum skf_err build_pack_piece(struct build *b, unsigned worker, uint64_t k, struct skf_why *why)
{
    struct build_pack *p = &b->packs[k];
    struct build_packer *w = &b->packer[worker];
    enum skf_err e = pack_piece(b, p, w);
    skf_progress_tell(b->progress, atomic_fetch_add(&b->done, p->bytes) + p->bytes, b->neu_cut.size);
    if (e == SKF_ERR_LIMIT)
        return SKF_OK;
    if (e == SKF_ERR_CANCELLED)
        return skf_fail(why, e, "cancelled");
    if (e != SKF_OK)
        return skf_fail(why, e, "chunk %llu cannot be packed: %s", (unsigned long long)p->first, skf_err_name(e));
    SKF_TRY(build_spool_put(&b->spool, w->out.data, w->out.len, &p->spooled, why));
    p->n = (uint32_t)w->out.len;
    skf_sha256(w->out.data, w->out.len, p->digest);
    for (uint64_t i = p->first; i < p->first + p->chunks; i++) {
        struct skd_out_chunk *r = &b->chunks[i];
        skf_free(r->ranges);
        r->ranges = NULL;
        r->n_ranges = 0;
        r->coding = SKF_CODE_PACK;
        r->payload_length = r->source_length = 0;
        r->source_offset = 0;
    }
    return SKF_OK;
}

void build_free_packs(struct build *b)
{
    for (unsigned i = 0; i < BUILD_PACKERS; i++) {
        skf_buf_free(&b->packer[i].out);
        skf_area_free(&b->packer[i].neu);
    }
    skf_free(b->alone);
    skf_free(b->packs);
    b->alone = NULL;
    b->packs = NULL;
}
