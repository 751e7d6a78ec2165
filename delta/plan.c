/*
 * What other ways would cost (delta.h): zstd of the new version and zstd with the old one at hand are tried on a few chunks, and a
 * delta's own chunks are decoded for the time that takes.  Times are this machine's, of one core.
 */
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"
#include "delta/work_priv.h"

#define SAMPLE 24          /* chunks, evenly over the result */
#define RANGE (4u << 20)   /* of the old version, around a chunk's place */
#define MEMORY_FULL (1u << 20)
#define MEMORY_ZSTD (2u << 20)
#define MEMORY_PATCH (6u << 20)
#define MEMORY_SKIFF (8u << 20)

double skf_cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct plan {
    const struct skf_model *old, *neu;
    struct skf_map file;
    struct skf_skd *skd;
    const struct skf_skd_info *info;
    struct skf_delta_scratch *scratch;
    struct skf_zenc *enc;
    struct skf_zdec *dec;
    struct skf_area now, range;
    uint8_t *coded, *out;
    int level;
    uint64_t bytes;              /* of the sample */
    uint64_t got[SKF_WAYS];      /* what it becomes */
    double encode[SKF_WAYS], apply[SKF_WAYS];
};

static enum skf_err open_plan(struct plan *p, const char *skd_path, struct skf_why *why)
{
    uint64_t index;
    SKF_TRY(skf_map_open(skd_path, &p->file, why));
    if (p->file.size < SKF_SKD_HEAD)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not a delta (.skd)", skd_path);
    SKF_TRY(skf_skd_index_size(p->file.data, &index, why));
    if (index > p->file.size)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: cut short", skd_path);
    SKF_TRY(skf_skd_parse(p->file.data, index, &p->skd, why));
    p->info = skf_skd_info(p->skd);
    if (p->info->index_size + p->info->payload_size != p->file.size)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: cut short", skd_path);
    for (uint64_t k = 0; k < p->info->n_sides; k++) {
        struct skf_skd_side s;
        skf_skd_side(p->skd, k, &s);
        SKF_TRY(skf_skd_put_side(p->skd, k, p->file.data + s.payload_offset, why));
    }
    p->coded = skf_alloc(SKF_CHUNK_MAX);
    p->out = skf_alloc(SKF_CHUNK_MAX);
    p->enc = skf_zenc_new();
    p->dec = skf_zdec_new();
    if (!p->coded || !p->out || !p->enc || !p->dec || skf_delta_scratch_new(&p->scratch) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    return SKF_OK;
}

static void close_plan(struct plan *p)
{
    skf_delta_scratch_free(p->scratch);
    skf_zenc_free(p->enc);
    skf_zdec_free(p->dec);
    skf_area_free(&p->now);
    skf_area_free(&p->range);
    skf_free(p->coded);
    skf_free(p->out);
    skf_skd_free(p->skd);
    skf_map_close(&p->file);
}

/* One chunk by zstd, with a prefix or without, and back. */
static enum skf_err try_zstd(struct plan *p, enum skf_way way, const uint8_t *now, size_t n, const uint8_t *prefix, size_t prefix_n)
{
    size_t got;
    uint8_t digest[SKF_DIGEST];
    double begun = skf_cpu_seconds();
    SKF_TRY(skf_zenc_chunk(p->enc, now, n, prefix, prefix_n, p->level, p->coded, n, &got));
    double coded = skf_cpu_seconds();
    if (got)
        SKF_TRY(skf_zdec_run(p->dec, p->coded, got, prefix, prefix_n, p->out, n));
    else
        memcpy(p->out, now, n);
    skf_sha256(p->out, n, digest);
    p->encode[way] += coded - begun;
    p->apply[way] += skf_cpu_seconds() - coded;
    p->got[way] += got ? got : n;
    return SKF_OK;
}

static enum skf_err try_chunk(struct plan *p, uint64_t i, struct skf_why *why)
{
    struct skf_skd_chunk c;
    const struct skf_source *source = skf_model_source(p->old);
    const uint8_t *now, *range;
    uint8_t digest[SKF_DIGEST];
    skf_skd_chunk(p->skd, i, &c);
    SKF_TRY(skf_area_view(skf_model_source(p->neu), c.result_offset, c.result_length, &p->now, &now));
    p->bytes += c.result_length;
    double begun = skf_cpu_seconds();
    skf_sha256(now, c.result_length, digest);
    p->apply[SKF_WAY_FULL] += skf_cpu_seconds() - begun;
    begun = skf_cpu_seconds();
    SKF_TRY(skf_skd_decode(p->skd, i, c.payload_length ? p->file.data + c.payload_offset : NULL, source, p->scratch, p->out, why));
    p->apply[SKF_WAY_SKIFF] += skf_cpu_seconds() - begun;
    SKF_TRY(try_zstd(p, SKF_WAY_ZSTD, now, c.result_length, NULL, 0));
    if (c.coding == SKF_CODE_COPY) { /* found by any of them that has the old version */
        p->apply[SKF_WAY_PATCH] += p->apply[SKF_WAY_FULL] / (double)SAMPLE;
        return SKF_OK;
    }
    uint64_t at = c.source_length ? c.source_offset : c.result_offset, from = at > RANGE / 2 ? at - RANGE / 2 : 0;
    if (from >= source->size)
        return try_zstd(p, SKF_WAY_PATCH, now, c.result_length, NULL, 0);
    uint64_t n = SKF_MIN(RANGE, source->size - from);
    SKF_TRY(skf_area_view(source, from, n, &p->range, &range));
    return try_zstd(p, SKF_WAY_PATCH, now, c.result_length, range, n);
}

static void fill(const struct plan *p, double encode_seconds, struct skf_delta_way ways[SKF_WAYS])
{
    uint64_t size = p->info->result_size;
    double each = p->bytes ? (double)size / (double)p->bytes : 0;
    bool is_part = p->bytes < size;
    static const uint64_t memory[SKF_WAYS] = {MEMORY_FULL, MEMORY_ZSTD, MEMORY_PATCH, MEMORY_SKIFF};
    for (int w = 0; w < SKF_WAYS; w++)
        ways[w] = (struct skf_delta_way){.bytes = (uint64_t)((double)p->got[w] * each), .memory = memory[w], .is_estimate = is_part,
                                         .encode_seconds = p->encode[w] * each, .apply_seconds = p->apply[w] * each};
    ways[SKF_WAY_FULL].bytes = size;
    ways[SKF_WAY_FULL].is_estimate = false;
    ways[SKF_WAY_SKIFF].bytes = p->file.size;
    ways[SKF_WAY_SKIFF].is_estimate = false;
    ways[SKF_WAY_SKIFF].encode_seconds = encode_seconds;
}

enum skf_err skf_delta_ways(const struct skf_model *old, const struct skf_model *neu, const char *skd_path, int level,
                            double encode_seconds, struct skf_delta_way ways[SKF_WAYS], struct skf_why *why)
{
    struct plan p = {.old = old, .neu = neu, .level = level ? level : 9};
    enum skf_err e = open_plan(&p, skd_path, why);
    uint64_t n = e == SKF_OK ? p.info->n_chunks : 0, k = SKF_MIN(n, (uint64_t)SAMPLE);
    for (uint64_t i = 0; e == SKF_OK && i < k; i++)
        e = try_chunk(&p, (2 * i + 1) * n / (2 * k), why);
    if (e == SKF_OK)
        fill(&p, encode_seconds, ways);
    close_plan(&p);
    return e == SKF_OK ? e : skf_fail(why, e, "%s", why && why->text[0] ? why->text : skf_err_name(e));
}
