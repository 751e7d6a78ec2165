/*
 * A delta applied to a file: the result is written chunk by chunk by all threads into a draft that becomes the file only when
 * every chunk had its digest.  The source is hashed only to say why that failed.  A draft that a run left which was killed is gone on
 * with where that is wished: a chunk that stands there with its digest is done.
 */
#include <string.h>

#include "base/alloc.h"
#include "delta/apply_priv.h"
#include "delta/skd_priv.h"
#include "model/folder.h"

#define APPLY_JOBS 8 /* threads at most */
/* Beyond the maps applying takes at most 8 MiB: what a process has before it begins, the tables, and what each thread takes beside the
 * chunk that it makes. */
#define APPLY_MEMORY (8u << 20)
#define APPLY_PROCESS (1700u << 10)
#define APPLY_SCRATCH (1700u << 10)
#define AHEAD 8 /* chunks whose part of the source is asked for before they are made */

/* ---- what is applied -------------------------------------------------------------------------------------------------------- */
struct rooted { /* a source whose root is asked for */
    struct apply *a;
    const struct skf_source *source;
    const char *path;
    uint8_t *root;
};

static enum skf_err read_root(void *ctx, struct skf_why *why)
{
    struct rooted *r = ctx;
    struct apply *a = r->a;
    struct skf_model *m;
    SKF_TRY(skf_model_open_source(r->source, r->path, &m, why));
    const struct skf_progress quiet = {.cancel = a->progress->cancel, .share = a->progress->share};
    struct skf_cut cut = {0};
    enum skf_err e = skf_cut_make(m, a->jobs, &quiet, &cut, why);
    if (e == SKF_OK)
        memcpy(r->root, cut.root, SKF_DIGEST);
    skf_cut_free(&cut);
    skf_model_close(m);
    return e;
}

bool has_apply_root(struct apply *a)
{
    return skf_map_guard(read_root, &(struct rooted){a, &a->own, a->old_path, a->root}, NULL) == SKF_OK;
}

static enum skf_err another_base(const struct apply *a, const char *what, struct skf_why *why)
{
    char wants[SKF_HEX];
    skf_hex(a->info->source_root, SKF_DIGEST, wants);
    return skf_fail(why, SKF_ERR_BASE, "%s: the delta is for another base: it starts from %.12s (%llu bytes), %s %s",
                    a->skd_path, wants, (unsigned long long)a->info->source_size, a->old_path, what);
}

static enum skf_err not_also(const struct apply *a, const char *what, struct skf_why *why)
{
    char wants[SKF_HEX];
    skf_hex(a->info->also_root, SKF_DIGEST, wants);
    return skf_fail(why, SKF_ERR_BASE, "%s: takes from %.12s (%llu bytes) too, %s %s", a->skd_path, wants,
                    (unsigned long long)a->info->also_size, a->also_path, what);
}

/* The source is the right one: false where the other version is not, which is said. */
static bool is_also_right(struct apply *a, enum skf_err *e, struct skf_why *why)
{
    char text[SKF_HEX + 16] = "is broken", hex[SKF_HEX];
    uint8_t root[SKF_DIGEST];
    if (!a->info->also_size)
        return true;
    if (skf_map_guard(read_root, &(struct rooted){a, &a->both.of[1], a->also_path, root}, NULL) == SKF_OK) {
        if (memcmp(root, a->info->also_root, SKF_DIGEST) == 0)
            return true;
        skf_hex(root, SKF_DIGEST, hex);
        (void)snprintf(text, sizeof text, "is %.12s", hex);
    }
    *e = not_also(a, text, why);
    return false;
}

enum skf_err apply_name_failure(struct apply *a, struct skf_why *why)
{
    char text[SKF_HEX + 16] = "is broken", hex[SKF_HEX];
    if (is_cancelled(a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    if (has_apply_root(a)) {
        enum skf_err e;
        if (memcmp(a->root, a->info->source_root, SKF_DIGEST) == 0)
            return !is_also_right(a, &e, why) ? e
                                              : skf_fail(why, SKF_ERR_DIGEST, "%s: does not make the result it promises, though %s is its base",
                                                         a->skd_path, a->old_path);
        skf_hex(a->root, SKF_DIGEST, hex);
        (void)snprintf(text, sizeof text, "is %.12s", hex);
    }
    return another_base(a, text, why);
}

static enum skf_err read_delta(void *ctx, struct skf_why *why)
{
    struct apply *a = ctx;
    uint64_t index, all;
    if (a->file.size < SKF_SKD_HEAD)
        return skf_fail(why, SKF_ERR_FORMAT, "not a delta (.skd): %llu bytes", (unsigned long long)a->file.size);
    SKF_TRY(skf_skd_index_size(a->file.data, &index, why));
    if (index > a->file.size)
        return skf_fail(why, SKF_ERR_FORMAT, "damaged delta: cut short in its index");
    SKF_TRY(skf_skd_parse_in_place(a->file.data, index, &a->skd, why));
    a->info = skf_skd_info(a->skd);
    all = a->info->index_size + a->info->payload_size; /* does not overflow: checked with the head */
    if (all != a->file.size)
        return skf_fail(why, SKF_ERR_FORMAT, "damaged delta: %llu bytes instead of %llu",
                        (unsigned long long)a->file.size, (unsigned long long)all);
    memcpy(a->index_digest, a->file.data + SKD_DIGEST_AT, SKF_DIGEST);
    for (uint64_t k = 0; k < a->info->n_sides; k++) {
        struct skf_skd_side s;
        skf_skd_side(a->skd, k, &s);
        SKF_TRY(skf_skd_put_side(a->skd, k, a->file.data + s.payload_offset, why));
    }
    return SKF_OK;
}

/* As many threads as their memory lets. */
static enum skf_err open_workers(struct apply *a, struct skf_why *why)
{
    uint32_t longest = 1;
    bool is_made = false; /* of more than copies */
    for (uint64_t i = 0; i < a->info->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(a->skd, i, &c);
        longest = SKF_MAX(longest, c.result_length);
        is_made = is_made || c.coding > SKF_CODE_RAW;
    }
    if (a->info->n_chunks == 0)
        longest = SKF_CHUNK_MAX / 4; /* the identity is copied in such pieces */
    a->piece = longest;
    uint64_t taken = APPLY_PROCESS + skf_skd_memory(a->skd);
    uint64_t each = longest + (is_made ? APPLY_SCRATCH : 16384) + skd_more_memory(a->skd);
    uint64_t fit = taken < APPLY_MEMORY ? (APPLY_MEMORY - taken) / each : 0;
    a->jobs = (unsigned)SKF_MIN(a->jobs, SKF_MIN(SKF_MAX(fit, 1u), APPLY_JOBS));
    a->lanes = skf_sha256_lanes();
    a->workers = skf_calloc(a->jobs, sizeof *a->workers);
    if (!a->workers)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (unsigned i = 0; i < a->jobs; i++) {
        a->workers[i].out = skf_alloc(longest);
        a->workers[i].queue = skf_sha256_queue_new();
        if (!a->workers[i].out || !a->workers[i].queue || skf_delta_scratch_new(&a->workers[i].scratch) != SKF_OK)
            return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    return SKF_OK;
}

enum skf_err apply_open(struct apply *a, struct skf_why *why)
{
    SKF_TRY(skf_map_open(a->skd_path, &a->file, why));
    enum skf_err e = skf_map_guard(read_delta, a, why);
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", a->skd_path);
    return open_workers(a, why);
}

enum skf_err apply_open_source(struct apply *a, struct skf_why *why)
{
    SKF_TRY(skf_map_open(a->old_path, &a->old, why));
    a->own = skf_map_source(&a->old);
    if (a->old.size == a->info->source_size)
        return apply_join(a, why);
    char text[64];
    (void)snprintf(text, sizeof text, "has %llu bytes", (unsigned long long)a->old.size);
    return another_base(a, text, why);
}

enum skf_err apply_join(struct apply *a, struct skf_why *why)
{
    char text[64], wants[SKF_HEX];
    a->source = a->own;
    if (!a->info->also_size)
        return SKF_OK;
    skf_hex(a->info->also_root, SKF_DIGEST, wants);
    if (!a->also_path)
        return skf_fail(why, SKF_ERR_ARG, "%s: takes from another version too, %.12s (%llu bytes): name it with --also", a->skd_path, wants,
                        (unsigned long long)a->info->also_size);
    a->both.of[0] = a->own;
    if (is_folder(a->also_path)) {
        SKF_TRY(skf_folder_open(a->also_path, &a->also_folder, why));
        a->both.of[1] = *skf_folder_source(a->also_folder);
    } else {
        SKF_TRY(skf_map_open(a->also_path, &a->also, why));
        a->both.of[1] = skf_map_source(&a->also);
    }
    (void)snprintf(text, sizeof text, "has %llu bytes", (unsigned long long)a->both.of[1].size);
    if (a->both.of[1].size != a->info->also_size)
        return not_also(a, text, why);
    a->source = skf_source_both(&a->both);
    return SKF_OK;
}

void apply_close(struct apply *a)
{
    for (unsigned i = 0; a->workers && i < a->jobs; i++) {
        skf_delta_scratch_free(a->workers[i].scratch);
        skf_sha256_queue_free(a->workers[i].queue);
        skf_free(a->workers[i].out);
    }
    skf_free(a->workers);
    skf_skd_free(a->skd);
    skf_folder_close(a->also_folder);
    skf_map_close(&a->also);
    skf_map_close(&a->old);
    skf_map_close(&a->file);
    skf_map_close(&a->written);
}

void apply_stats(const struct apply *a, uint64_t begun_ns, struct skf_delta_stats *stats)
{
    stats->bytes = a->info->result_size;
    stats->chunks = a->info->n_chunks;
    memcpy(stats->source_root, a->info->source_root, SKF_DIGEST);
    memcpy(stats->result_root, a->info->result_root, SKF_DIGEST);
    stats->has_also = a->info->also_size > 0;
    memcpy(stats->also_root, a->info->also_root, SKF_DIGEST);
    for (uint64_t i = 0; i < a->info->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(a->skd, i, &c);
        stats->coding_chunks[c.coding]++;
        stats->coding_bytes[c.coding] += c.payload_length;
    }
    stats->seconds = (double)(skf_now_ns() - begun_ns) / 1e9;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------------- */
struct making {
    struct apply *a;
    struct apply_worker *w;
    struct skf_skd_chunk c;
    uint64_t i;
};

static const uint8_t *payload_of(const struct apply *a, const struct skf_skd_chunk *c)
{
    return c->payload_length ? a->file.data + c->payload_offset : NULL;
}

static enum skf_err make_out(void *ctx, struct skf_why *why)
{
    struct making *m = ctx;
    return skf_skd_make(m->a->skd, m->i, payload_of(m->a, &m->c), &m->a->source, m->w->scratch, m->w->out, why);
}

static enum skf_err make_checked(void *ctx, struct skf_why *why)
{
    struct making *m = ctx;
    return skf_skd_decode(m->a->skd, m->i, payload_of(m->a, &m->c), &m->a->source, m->w->scratch, m->w->out, why);
}

static enum skf_err check_out(void *ctx, struct skf_why *why)
{
    struct making *m = ctx;
    return skf_skd_check(m->a->skd, m->i, m->w->out, why);
}

/* Calls it where a file cut short is an error, and says which. */
static enum skf_err guarded(const struct apply *a, enum skf_err (*fn)(void *ctx, struct skf_why *why), void *ctx, struct skf_why *why)
{
    enum skf_err e = skf_map_guard(fn, ctx, why);
    if (e == SKF_ERR_IO && is_map_cut(a->old_path, &a->old))
        return skf_fail(why, e, "%s: became shorter while it was read", a->old_path);
    return e == SKF_OK || e == SKF_ERR_IO ? e : skf_fail_prefix(why, e, "%s", a->skd_path); /* the guard names what it could not read */
}

static void ask_ahead(const struct apply *a, uint64_t i)
{
    struct skf_skd_chunk c;
    if (i + AHEAD >= a->info->n_chunks)
        return;
    skf_skd_chunk(a->skd, i + AHEAD, &c);
    if (c.source_offset < a->info->source_size)
        skf_map_soon(&a->old, c.source_offset, c.source_length);
    else
        skf_map_soon(&a->also, c.source_offset - a->info->source_size, c.source_length);
}

enum skf_err apply_make(struct apply *a, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct making m = {.a = a, .w = &a->workers[worker], .i = i};
    skf_skd_chunk(a->skd, i, &m.c);
    ask_ahead(a, i);
    return guarded(a, make_checked, &m, why);
}

void apply_tell(struct apply *a, uint64_t bytes)
{
    skf_progress_tell(a->progress, atomic_fetch_add(&a->done, bytes) + bytes, a->total);
}

/* ---- beside the source --------------------------------------------------------------------------------------------------------- */
/* Many digests at once take less time than one after the other, but as many chunks would take as much memory: chunks are written to the
 * draft, where they are read back once there are enough of them.  What stands in a draft is checked before it counts, always. */
/* The draft holds chunk i already, as an earlier run left it. */
static bool is_there(const struct apply *a, const struct apply_worker *w, const struct skf_skd_chunk *c)
{
    uint8_t digest[SKF_DIGEST];
    if (!a->is_begun || !skf_draft_read_at(a->draft, c->result_offset, w->out, c->result_length))
        return false;
    skf_sha256(w->out, c->result_length, digest);
    return memcmp(digest, c->result_digest, SKF_DIGEST) == 0;
}

/* The draft is zeros where nobody wrote: a sparse model stays so. */
static bool is_zero(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

/* Puts what was made, and stands in the draft, into the queue. */
static void queue_made(struct making *m)
{
    struct apply_pending *p = m->w->pending;
    while (p->is_taken) /* as many as the queue holds, which has room for one */
        p++;
    *p = (struct apply_pending){.chunk = m->i, .is_taken = true};
    skf_sha256_put(m->w->queue, &(struct skf_message){m->a->written.data + m->c.result_offset, m->c.result_length, p->digest});
}

static enum skf_err check_queue(struct making *m, bool is_all, struct skf_why *why)
{
    uint8_t *done[SKF_SHA256_MANY];
    unsigned n = skf_sha256_run(m->w->queue, is_all, done);
    for (unsigned k = 0; k < n; k++) {
        struct apply_pending *p = m->w->pending;
        while (p->digest != done[k])
            p++;
        p->is_taken = false;
        SKF_TRY(skf_skd_judge(m->a->skd, p->chunk, p->digest, why));
    }
    return SKF_OK;
}

static enum skf_err check_some(void *ctx, struct skf_why *why) { return check_queue(ctx, false, why); }
static enum skf_err check_rest(void *ctx, struct skf_why *why) { return check_queue(ctx, true, why); }

static enum skf_err check_zeros(struct making *m, struct skf_why *why)
{
    struct apply_worker *w = m->w;
    if (w->zeros == m->c.result_length && memcmp(w->zeros_digest, m->c.result_digest, SKF_DIGEST) == 0)
        return SKF_OK;
    SKF_TRY(guarded(m->a, check_out, m, why));
    w->zeros = m->c.result_length;
    memcpy(w->zeros_digest, m->c.result_digest, SKF_DIGEST);
    return SKF_OK;
}

/* What was made goes to the draft, and is checked there when there is enough of it. */
static enum skf_err put_made(struct making *m, struct skf_why *why)
{
    struct apply *a = m->a;
    if (!a->is_begun && is_zero(m->w->out, m->c.result_length)) /* read back it would fill memory with pages of zeros */
        return check_zeros(m, why);
    if (!a->written.data || a->lanes == 1) {
        SKF_TRY(guarded(a, check_out, m, why));
        return skf_draft_write_at(a->draft, m->c.result_offset, m->w->out, m->c.result_length, why);
    }
    SKF_TRY(skf_draft_write_at(a->draft, m->c.result_offset, m->w->out, m->c.result_length, why));
    if (m->c.coding == SKF_CODE_RAW) /* the payload, which was right */
        return SKF_OK;
    queue_made(m);
    return guarded(a, check_some, m, why);
}

/* Groups are as large as digests are made at once, but for the last chunks, which are taken one by one, so that no thread waits long for
 * another at the end. */
static void plan_groups(struct apply *a)
{
    uint64_t n = a->info->n_chunks, last = a->jobs > 1 ? (uint64_t)a->jobs * a->lanes : 0;
    a->groups = n > last ? (n - last) / a->lanes : 0;
}

struct group {
    const struct apply *a;
    uint64_t chunk[SKF_SHA256_MANY]; /* that are to be made */
    const uint8_t *payload[SKF_SHA256_MANY];
    unsigned n;
};

static enum skf_err admit(void *ctx, struct skf_why *why)
{
    struct group *g = ctx;
    return skf_skd_admit(g->a->skd, g->chunk, g->payload, g->n, why);
}

static enum skf_err write_step(void *ctx, unsigned worker, uint64_t number, struct skf_why *why)
{
    struct apply *a = ctx;
    struct making m = {.a = a, .w = &a->workers[worker]};
    struct group g = {.a = a};
    uint64_t first = number < a->groups ? number * a->lanes : a->groups * (a->lanes - 1) + number;
    uint64_t end = number < a->groups ? first + a->lanes : first + 1, begun = skf_now_ns(), bytes = 0;
    for (uint64_t i = first; i < end && !is_cancelled(a->progress); i++) {
        skf_skd_chunk(a->skd, i, &m.c);
        bytes += m.c.result_length;
        if (is_there(a, m.w, &m.c))
            continue;
        g.chunk[g.n] = i;
        g.payload[g.n++] = payload_of(a, &m.c);
    }
    SKF_TRY(guarded(a, admit, &g, why));
    for (unsigned k = 0; k < g.n && !is_cancelled(a->progress); k++) {
        m.i = g.chunk[k];
        skf_skd_chunk(a->skd, m.i, &m.c);
        ask_ahead(a, m.i);
        SKF_TRY(guarded(a, make_out, &m, why));
        SKF_TRY(put_made(&m, why));
        skf_progress_rest(a->progress, begun);
        begun = skf_now_ns();
    }
    if (is_cancelled(a->progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    apply_tell(a, bytes);
    return SKF_OK;
}

/* What a thread had not enough of; and its share of giving the maps back, which takes long enough to be shared. */
static enum skf_err finish_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct apply *a = ctx;
    struct making m = {.a = a, .w = &a->workers[i]};
    SKF_TRY(guarded(a, check_rest, &m, why));
    skf_map_done(&a->old, (unsigned)i, a->jobs);
    skf_map_done(&a->also, (unsigned)i, a->jobs);
    skf_map_done(&a->written, (unsigned)i, a->jobs);
    return SKF_OK;
}

static enum skf_err write_chunks(struct apply *a, struct skf_why *why)
{
    plan_groups(a);
    SKF_TRY(skf_par_for(a->jobs, a->info->n_chunks - a->groups * (a->lanes - 1), write_step, a, why));
    skf_draft_soon(a->draft); /* the disk works while the rest is hashed */
    return skf_par_for(a->jobs, a->jobs, finish_step, a, why);
}

/* The identity has no chunks to check: the source itself must have the root, then it is copied. */
static enum skf_err copy_all(void *ctx, struct skf_why *why)
{
    struct apply *a = ctx;
    uint8_t *piece = a->workers[0].out;
    if (!has_apply_root(a) || memcmp(a->root, a->info->result_root, SKF_DIGEST) != 0)
        return apply_name_failure(a, why);
    for (uint64_t at = 0; at < a->old.size;) {
        uint64_t n = SKF_MIN(a->piece, a->old.size - at), begun = skf_now_ns();
        if (is_cancelled(a->progress))
            return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        memcpy(piece, a->old.data + at, n);
        SKF_TRY(skf_draft_write_at(a->draft, at, piece, n, why));
        at += n;
        skf_progress_rest(a->progress, begun);
        apply_tell(a, n);
    }
    return SKF_OK;
}

static enum skf_err open_draft(struct apply *a, bool is_kept, struct skf_why *why)
{
    char tag[SKF_HEX];
    if (!is_kept)
        return skf_draft_open(a->out_path, a->info->result_size, 0644, &a->draft, why);
    skf_hex(a->index_digest, SKF_DIGEST / 4, tag);
    SKF_TRY(skf_draft_resume(a->out_path, tag, a->info->result_size, 0644, &a->draft, &a->is_begun, why));
    skf_draft_sweep_of(a->out_path, skf_draft_name(a->draft));
    return SKF_OK;
}

static enum skf_err apply_beside(struct apply *a, bool is_kept, struct skf_why *why)
{
    SKF_TRY(apply_open(a, why));
    SKF_TRY(apply_open_source(a, why));
    SKF_TRY(open_draft(a, is_kept, why));
    if (skf_draft_map(a->draft, &a->written, NULL) != SKF_OK)
        a->written = (struct skf_map){NULL, 0}; /* a file system without such maps */
    a->total = a->info->result_size;
    enum skf_err e = SKF_OK;
    if (a->info->n_chunks == 0 && a->info->result_size > 0)
        e = skf_map_guard(copy_all, a, why);
    else
        e = write_chunks(a, why);
    if (e == SKF_ERR_BASE && a->info->n_chunks)
        e = apply_name_failure(a, why);
    if (e != SKF_OK)
        return e;
    skf_map_close(&a->old); /* while the disk works */
    skf_map_close(&a->written);
    struct skf_draft *d = a->draft;
    a->draft = NULL;
    return skf_draft_commit(d, why);
}

/* What ended early through no fault of its files may be gone on with. */
static void give_up(struct apply *a, bool is_kept, enum skf_err e, struct skf_why *why)
{
    bool is_worth = e == SKF_ERR_CANCELLED || e == SKF_ERR_FULL || e == SKF_ERR_IO || e == SKF_ERR_NOMEM;
    if (!a->draft)
        return;
    if (!is_kept || !is_worth || (atomic_load(&a->done) == 0 && !a->is_begun)) {
        skf_draft_abort(a->draft);
        return;
    }
    struct skf_why was = {{0}};
    if (why)
        was = *why;
    (void)skf_fail(why, e, "%s; the same command goes on with %s", was.text, skf_draft_name(a->draft));
    skf_draft_leave(a->draft);
}

enum skf_err skf_delta_apply(const char *old_path, const char *skd_path, const char *out_path,
                             const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why)
{
    static const struct skf_delta_opts plain;
    uint64_t begun = skf_now_ns();
    opts = opts ? opts : &plain;
    struct apply a = {.old_path = old_path,
                      .skd_path = skd_path,
                      .out_path = out_path,
                      .also_path = opts->also_path,
                      .jobs = opts->jobs ? opts->jobs : skf_cpu_count(),
                      .progress = &opts->progress};
    *stats = (struct skf_delta_stats){0};
    enum skf_err e = apply_beside(&a, opts->is_kept, why);
    if (e == SKF_OK)
        apply_stats(&a, begun, stats);
    else
        give_up(&a, opts->is_kept, e, why);
    apply_close(&a);
    return e;
}
