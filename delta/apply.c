/*
 * A delta applied to a file: the result is written chunk by chunk by all threads into a draft that becomes the file only when
 * every chunk had its digest.  The source is hashed only to say why that failed.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"

#define APPLY_JOBS 8 /* threads; each needs up to 8 MiB */

struct apply {
    const char *old_path, *skd_path;
    struct skf_map old, file;
    struct skf_source source;
    struct skf_skd *skd;
    const struct skf_skd_info *info;
    struct skf_draft *draft;
    struct apply_worker {
        struct skf_delta_scratch *scratch;
        uint8_t *out;
    } *workers;
    unsigned jobs;
    const struct skf_progress *progress;
    atomic_uint_fast64_t done;
};

static enum skf_err apply_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct apply *a = ctx;
    struct apply_worker *w = &a->workers[worker];
    struct skf_skd_chunk c;
    if (is_cancelled(a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    skf_skd_chunk(a->skd, i, &c);
    const uint8_t *payload = c.payload_length ? a->file.data + c.payload_offset : NULL;
    enum skf_err e = skf_skd_decode(a->skd, i, payload, &a->source, w->scratch, w->out, why);
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", a->skd_path);
    SKF_TRY(skf_draft_write_at(a->draft, c.result_offset, w->out, c.result_length, why));
    uint64_t done = atomic_fetch_add(&a->done, c.result_length) + c.result_length;
    skf_progress_tell(a->progress, done, a->info->result_size);
    return SKF_OK;
}

/* The source's root, whatever can be read of it; false when it cannot be told. */
static bool has_root(const struct apply *a, uint8_t root[SKF_DIGEST])
{
    struct skf_model *m;
    struct skf_cut cut = {0};
    if (skf_model_open_source(&a->source, a->old_path, &m, NULL) != SKF_OK)
        return false;
    bool is_known = skf_cut_make(m, a->jobs, NULL, &cut, NULL) == SKF_OK;
    if (is_known)
        memcpy(root, cut.root, SKF_DIGEST);
    skf_cut_free(&cut);
    skf_model_close(m);
    return is_known;
}

static enum skf_err another_base(const struct apply *a, const char *what, struct skf_why *why)
{
    char wants[SKF_HEX];
    skf_hex(a->info->source_root, SKF_DIGEST, wants);
    return skf_fail(why, SKF_ERR_BASE, "%s: the delta is for another base: it starts from %.12s (%llu bytes), %s %s",
                    a->skd_path, wants, (unsigned long long)a->info->source_size, a->old_path, what);
}

/* What a chunk that did not come out means: another source, or a delta that never worked. */
static enum skf_err name_failure(const struct apply *a, struct skf_why *why)
{
    uint8_t root[SKF_DIGEST];
    char text[SKF_HEX + 16] = "is broken", hex[SKF_HEX];
    if (has_root(a, root)) {
        if (memcmp(root, a->info->source_root, SKF_DIGEST) == 0)
            return skf_fail(why, SKF_ERR_DIGEST, "%s: does not make the result it promises, though %s is its base",
                            a->skd_path, a->old_path);
        skf_hex(root, SKF_DIGEST, hex);
        (void)snprintf(text, sizeof text, "is %.12s", hex);
    }
    return another_base(a, text, why);
}

static enum skf_err open_delta(struct apply *a, struct skf_why *why)
{
    uint64_t index, all;
    SKF_TRY(skf_map_open(a->skd_path, &a->file, why));
    enum skf_err e = SKF_ERR_FORMAT;
    if (a->file.size < SKF_SKD_HEAD)
        (void)skf_fail(why, e, "not a delta (.skd): %llu bytes", (unsigned long long)a->file.size);
    else if ((e = skf_skd_index_size(a->file.data, &index, why)) == SKF_OK && index > a->file.size)
        e = skf_fail(why, SKF_ERR_FORMAT, "damaged delta: cut short in its index");
    else if (e == SKF_OK && (e = skf_skd_parse(a->file.data, index, &a->skd, why)) == SKF_OK) {
        a->info = skf_skd_info(a->skd);
        all = a->info->index_size + a->info->payload_size; /* does not overflow: checked with the head */
        if (all != a->file.size)
            e = skf_fail(why, SKF_ERR_FORMAT, "damaged delta: %llu bytes instead of %llu",
                         (unsigned long long)a->file.size, (unsigned long long)all);
    }
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", a->skd_path);
}

static enum skf_err put_sides(struct apply *a, struct skf_why *why)
{
    for (uint64_t k = 0; k < a->info->n_sides; k++) {
        struct skf_skd_side s;
        skf_skd_side(a->skd, k, &s);
        enum skf_err e = skf_skd_put_side(a->skd, k, a->file.data + s.payload_offset, why);
        if (e != SKF_OK)
            return skf_fail_prefix(why, e, "%s", a->skd_path);
    }
    return SKF_OK;
}

static enum skf_err open_workers(struct apply *a, struct skf_why *why)
{
    a->workers = skf_calloc(a->jobs, sizeof *a->workers);
    if (!a->workers)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (unsigned i = 0; i < a->jobs; i++) {
        a->workers[i].out = skf_alloc(SKF_CHUNK_MAX);
        if (!a->workers[i].out || skf_delta_scratch_new(&a->workers[i].scratch) != SKF_OK)
            return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    return SKF_OK;
}

/* The identity has no chunks to check: the source itself must have the root, then it is copied. */
static enum skf_err copy_all(struct apply *a, struct skf_why *why)
{
    uint8_t root[SKF_DIGEST];
    if (!has_root(a, root) || memcmp(root, a->info->result_root, SKF_DIGEST) != 0)
        return name_failure(a, why);
    for (uint64_t at = 0; at < a->old.size;) {
        uint64_t n = SKF_MIN(SKF_CHUNK_MAX, a->old.size - at);
        if (is_cancelled(a->progress))
            return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        SKF_TRY(skf_draft_write_at(a->draft, at, a->old.data + at, n, why));
        at += n;
        skf_progress_tell(a->progress, at, a->old.size);
    }
    return SKF_OK;
}

static enum skf_err apply_all(struct apply *a, const char *out_path, struct skf_why *why)
{
    SKF_TRY(open_delta(a, why));
    SKF_TRY(skf_map_open(a->old_path, &a->old, why));
    a->source = skf_map_source(&a->old);
    if (a->old.size != a->info->source_size) {
        char text[64];
        (void)snprintf(text, sizeof text, "has %llu bytes", (unsigned long long)a->old.size);
        return another_base(a, text, why);
    }
    SKF_TRY(put_sides(a, why));
    a->jobs = SKF_MIN(a->jobs, APPLY_JOBS);
    SKF_TRY(open_workers(a, why));
    SKF_TRY(skf_draft_open(out_path, a->info->result_size, 0644, &a->draft, why));
    if (a->info->n_chunks == 0 && a->info->result_size > 0)
        SKF_TRY(copy_all(a, why));
    enum skf_err e = skf_par_for(a->jobs, a->info->n_chunks, apply_step, a, why);
    if (e == SKF_ERR_BASE)
        e = name_failure(a, why);
    SKF_TRY(e);
    struct skf_draft *d = a->draft;
    a->draft = NULL;
    return skf_draft_commit(d, why);
}

enum skf_err skf_delta_apply(const char *old_path, const char *skd_path, const char *out_path,
                             const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why)
{
    static const struct skf_delta_opts plain;
    uint64_t begun = skf_now_ns();
    opts = opts ? opts : &plain;
    struct apply a = {.old_path = old_path,
                      .skd_path = skd_path,
                      .jobs = opts->jobs ? opts->jobs : skf_cpu_count(),
                      .progress = &opts->progress};
    *stats = (struct skf_delta_stats){0};
    enum skf_err e = apply_all(&a, out_path, why);
    if (e == SKF_OK) {
        stats->bytes = a.info->result_size;
        stats->chunks = a.info->n_chunks;
        memcpy(stats->source_root, a.info->source_root, SKF_DIGEST);
        memcpy(stats->result_root, a.info->result_root, SKF_DIGEST);
        for (uint64_t i = 0; i < a.info->n_chunks; i++) {
            struct skf_skd_chunk c;
            skf_skd_chunk(a.skd, i, &c);
            stats->coding_chunks[c.coding]++;
            stats->coding_bytes[c.coding] += c.payload_length;
        }
    }
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    skf_draft_abort(a.draft);
    for (unsigned i = 0; a.workers && i < a.jobs; i++) {
        skf_delta_scratch_free(a.workers[i].scratch);
        skf_free(a.workers[i].out);
    }
    skf_free(a.workers);
    skf_skd_free(a.skd);
    skf_map_close(&a.old);
    skf_map_close(&a.file);
    return e;
}
