/*
 * A delta applied in the source's own place, for boxes whose disk does not hold both (delta.h).
 *
 * Nothing is overwritten before every chunk has been made once and had its digest: a wrong base or a broken delta is found while the
 * source still stands.  Then batch after batch goes through the journal (journal_priv.h), so that a process killed, or a machine that
 * lost its power, at any instant goes on where it was.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "delta/apply_priv.h"
#include "delta/journal_priv.h"
#include "model/folder.h"

#define BATCH_MAX (32u << 20)
#define BATCH_PART 16 /* of the result, so that small files take a small journal */
#define SPARE (1u << 20) /* of the disk that is left alone */

struct place {
    struct apply a;
    struct skf_rw *file;
    struct journal journal;
    char path[PATH_MAX], journal_path[PATH_MAX]; /* of the file itself, whatever links lead to it */
    struct place_plan *plan;
    struct place_batch batch;
    uint64_t next;      /* the batch that is to be made next */
    bool is_begun;      /* by us: the file may be longer, and there may be a journal */
    bool is_changed;    /* the file is no longer the source */
};

/* ---- chunks of a batch, on all threads ------------------------------------------------------------------------------------------- */
static enum skf_err check_cancel(const struct place *p, struct skf_why *why)
{
    return is_cancelled(p->a.progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

/* Every chunk, made and forgotten: what comes out can be made. */
static enum skf_err try_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    struct skf_skd_chunk c;
    uint64_t begun = skf_now_ns();
    SKF_TRY(check_cancel(p, why));
    SKF_TRY(apply_make(&p->a, worker, i, why));
    skf_progress_rest(p->a.progress, begun);
    skf_skd_chunk(p->a.skd, i, &c);
    apply_tell(&p->a, c.result_length);
    return SKF_OK;
}

static uint64_t journal_place(const struct place *p, const struct place_op *op)
{
    return op->kind == PLACE_ASIDE ? journal_slot_at(&p->journal, op->slot)
                                   : journal_batch_at(&p->journal, p->batch.number) + op->at;
}

static enum skf_err make_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    const struct place_op *op = &p->batch.ops[i];
    uint64_t begun = skf_now_ns();
    SKF_TRY(check_cancel(p, why));
    SKF_TRY(apply_make(&p->a, worker, op->chunk, why));
    SKF_TRY(skf_rw_write_at(p->journal.file, journal_place(p, op), p->a.workers[worker].out, op->length, why));
    skf_progress_rest(p->a.progress, begun);
    return SKF_OK;
}

/* Reads back what stands in the journal; SKF_ERR_DIGEST when it is not the chunk. */
static enum skf_err read_op(const struct place *p, const struct place_op *op, uint64_t at, uint8_t *out, struct skf_why *why)
{
    struct skf_skd_chunk c;
    uint8_t digest[SKF_DIGEST];
    SKF_TRY(skf_rw_read_at(p->journal.file, at, out, op->length, why));
    skf_skd_chunk(p->a.skd, op->chunk, &c);
    skf_sha256(out, op->length, digest);
    return memcmp(digest, c.result_digest, SKF_DIGEST) == 0
               ? SKF_OK
               : skf_fail(why, SKF_ERR_DIGEST, "%s: " JOURNAL_DAMAGED, p->journal_path);
}

static enum skf_err take_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    const struct place_op *op = &p->batch.ops[p->batch.n_made + i];
    uint8_t *out = p->a.workers[worker].out;
    SKF_TRY(read_op(p, op, journal_slot_at(&p->journal, op->slot), out, why));
    return skf_rw_write_at(p->journal.file, journal_place(p, op), out, op->length, why);
}

static enum skf_err write_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    const struct place_op *op = &p->batch.ops[i];
    uint8_t *out = p->a.workers[worker].out;
    struct skf_skd_chunk c;
    if (op->kind == PLACE_ASIDE)
        return SKF_OK;
    uint64_t begun = skf_now_ns();
    skf_skd_chunk(p->a.skd, op->chunk, &c);
    SKF_TRY(skf_rw_read_at(p->journal.file, journal_place(p, op), out, op->length, why));
    SKF_TRY(skf_rw_write_at(p->file, c.result_offset, out, op->length, why));
    skf_progress_rest(p->a.progress, begun);
    apply_tell(&p->a, op->length);
    return SKF_OK;
}

static enum skf_err check_step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    const struct place_op *op = &p->batch.ops[i];
    return read_op(p, op, journal_place(p, op), p->a.workers[worker].out, why);
}

/* The batch from the journal into the file. */
static enum skf_err write_batch(struct place *p, struct skf_why *why)
{
    p->is_changed = true;
    SKF_TRY(skf_par_for(p->a.jobs, p->batch.n, write_step, p, why));
    return skf_rw_sync(p->file, why);
}

static enum skf_err run_batch(struct place *p, struct skf_why *why)
{
    SKF_TRY(skf_par_for(p->a.jobs, p->batch.n_made, make_step, p, why));
    SKF_TRY(skf_par_for(p->a.jobs, p->batch.n - p->batch.n_made, take_step, p, why));
    SKF_TRY(journal_commit(&p->journal, p->batch.number, why));
    return write_batch(p, why);
}

/* ---- the plan, as far as batch `number` ------------------------------------------------------------------------------------------- */
static enum skf_err plan_to(struct place *p, uint64_t number, struct skf_why *why)
{
    place_plan_free(p->plan);
    p->plan = NULL;
    SKF_TRY(place_plan_new(p->a.skd, p->journal.batch, &p->plan, why));
    do
        place_plan_next(p->plan, &p->batch);
    while (p->batch.n && p->batch.number < number);
    return SKF_OK;
}

/* The layout of the journal, and how many bytes of free disk the work takes. */
static enum skf_err plan_all(struct place *p, uint64_t *needs, struct skf_why *why)
{
    const struct skf_skd_info *info = p->a.info;
    struct journal *j = &p->journal;
    uint64_t part = info->result_size / BATCH_PART, batch = SKF_MIN(part, (uint64_t)BATCH_MAX);
    j->source_size = info->source_size;
    j->result_size = info->result_size;
    j->batch = (SKF_MAX(batch, (uint64_t)p->a.piece) + 4095) / 4096 * 4096;
    j->slot_bytes = (p->a.piece + 4095) / 4096 * 4096;
    memcpy(j->delta, p->a.index_digest, SKF_DIGEST);
    SKF_TRY(plan_to(p, UINT64_MAX, why));
    j->slots = place_plan_slots(p->plan);
    *needs = journal_bytes(j) + (info->result_size > info->source_size ? info->result_size - info->source_size : 0);
    return SKF_OK;
}

/* ---- beginning -------------------------------------------------------------------------------------------------------------------- */
/* The file is the result already: a run that ended between its last step and telling so. */
static bool is_result(struct place *p)
{
    struct apply *a = &p->a;
    if (a->old.size != a->info->result_size)
        return false;
    a->own = a->source = skf_map_source(&a->old);
    return has_apply_root(a) && memcmp(a->root, a->info->result_root, SKF_DIGEST) == 0;
}

/* Every chunk comes out, or the file is the result already. */
static enum skf_err try_all(struct place *p, bool *is_done, struct skf_why *why)
{
    struct apply *a = &p->a;
    const struct skf_skd_info *info = a->info;
    enum skf_err e = apply_open_source(a, why);
    bool is_source = e == SKF_OK, is_identity = memcmp(info->source_root, info->result_root, SKF_DIGEST) == 0;
    if (e == SKF_OK && !is_identity)
        e = skf_par_for(a->jobs, info->n_chunks, try_step, p, why);
    if (e != SKF_OK && e != SKF_ERR_BASE)
        return e;
    if (e == SKF_OK && !is_identity && (info->n_chunks || (has_apply_root(a) && !memcmp(a->root, info->source_root, SKF_DIGEST))))
        return SKF_OK;
    *is_done = is_result(p);
    if (*is_done)
        return SKF_OK;
    return is_source ? apply_name_failure(a, why) : e;
}

static enum skf_err begin(struct place *p, bool *is_done, struct skf_why *why)
{
    struct apply *a = &p->a;
    uint64_t needs, free_bytes;
    SKF_TRY(try_all(p, is_done, why));
    if (*is_done)
        return SKF_OK;
    SKF_TRY(plan_all(p, &needs, why));
    SKF_TRY(skf_disk_free(p->path, &free_bytes, why));
    if (free_bytes < needs + SPARE)
        return skf_fail(why, SKF_ERR_FULL,
                        "%s: changing it in place takes %llu bytes of free disk (journal, growth, room for %u chunks that change places); "
                        "%llu are free",
                        a->old_path, (unsigned long long)(needs + SPARE), p->journal.slots, (unsigned long long)free_bytes);
    p->is_begun = true; /* the journal first: a longer file without one would be no source any more */
    SKF_TRY(journal_make(p->journal_path, &p->journal, why));
    return skf_rw_resize(p->file, SKF_MAX(a->info->source_size, a->info->result_size), why);
}

/* The batch with this number is whole in the journal. */
static enum skf_err is_batch_whole(struct place *p, uint64_t number, bool *is_whole, struct skf_why *why)
{
    struct skf_why silent = {{0}};
    *is_whole = false;
    SKF_TRY(plan_to(p, number, why));
    if (p->batch.number != number || p->batch.n == 0)
        return SKF_OK;
    enum skf_err e = skf_par_for(p->a.jobs, p->batch.n, check_step, p, &silent);
    *is_whole = e == SKF_OK;
    return e == SKF_OK || e == SKF_ERR_DIGEST ? SKF_OK : skf_fail(why, e, "%s", silent.text);
}

static enum skf_err check_placed(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct place *p = ctx;
    const struct place_op *op = &p->batch.ops[i];
    uint8_t *out = p->a.workers[worker].out, digest[SKF_DIGEST];
    struct skf_skd_chunk c;
    if (op->kind == PLACE_ASIDE)
        return SKF_OK;
    skf_skd_chunk(p->a.skd, op->chunk, &c);
    SKF_TRY(skf_rw_read_at(p->file, c.result_offset, out, op->length, why));
    skf_sha256(out, op->length, digest);
    apply_tell(&p->a, 2 * (uint64_t)op->length);
    return memcmp(digest, c.result_digest, SKF_DIGEST) == 0 ? SKF_OK : skf_fail(why, SKF_ERR_STATE, "changed");
}

/* What was done before batch `number` stands in the file: nobody put another one in its place. */
static enum skf_err is_as_left(struct place *p, uint64_t number, bool *is_left, struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    struct skf_why silent = {{0}};
    SKF_TRY(plan_to(p, 0, why));
    for (; e == SKF_OK && p->batch.n && p->batch.number < number; place_plan_next(p->plan, &p->batch))
        e = skf_par_for(p->a.jobs, p->batch.n, check_placed, p, &silent);
    *is_left = e == SKF_OK;
    return e == SKF_OK || e == SKF_ERR_STATE || e == SKF_ERR_IO ? SKF_OK : skf_fail(why, e, "%s", silent.text);
}

static enum skf_err forget_journal(struct place *p, struct skf_why *why)
{
    struct skf_rw *f = p->journal.file;
    p->journal.file = NULL;
    return skf_rw_remove(f, why);
}

/* The last batch that is whole in the journal; false when there is none. */
static enum skf_err find_batch(struct place *p, uint64_t *last, bool *is_whole, struct skf_why *why)
{
    uint64_t number[2];
    unsigned n;
    SKF_TRY(journal_records(&p->journal, number, &n, why));
    *is_whole = false;
    for (unsigned k = 0; k < n && !*is_whole; k++) {
        SKF_TRY(is_batch_whole(p, number[k], is_whole, why));
        *last = number[k];
    }
    if (!*is_whole && n && number[0] > 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: " JOURNAL_DAMAGED, p->journal_path);
    return SKF_OK;
}

/* A file that somebody brought anew while the journal lay there: the source or the result, whole. */
static enum skf_err is_brought_anew(struct place *p, bool *is_anew, struct skf_why *why)
{
    struct apply *a = &p->a;
    SKF_TRY(skf_map_open(p->path, &a->old, why));
    a->own = a->source = skf_map_source(&a->old);
    *is_anew = has_apply_root(a) && ((a->old.size == a->info->source_size && !memcmp(a->root, a->info->source_root, SKF_DIGEST)) ||
                                     (a->old.size == a->info->result_size && !memcmp(a->root, a->info->result_root, SKF_DIGEST)));
    skf_map_close(&a->old);
    return SKF_OK;
}

/* Goes on behind the last batch; *is_over when there is nothing to go on with, and the file is a whole one. */
static enum skf_err go_on(struct place *p, bool *is_over, struct skf_why *why)
{
    const struct journal *j = &p->journal;
    const struct skf_skd_info *info = p->a.info;
    uint64_t last = 0, size;
    bool is_whole, is_left = true;
    if (memcmp(j->delta, p->a.index_digest, SKF_DIGEST) != 0) {
        char hex[SKF_HEX];
        skf_hex(j->delta, SKF_DIGEST, hex);
        return skf_fail(why, SKF_ERR_STATE, "%s: is on its way to another version by the delta whose index is %.12s; apply that one in place first",
                        p->a.old_path, hex);
    }
    if (j->source_size != info->source_size || j->result_size != info->result_size || j->batch < p->a.piece ||
        j->slot_bytes < p->a.piece || j->batch > SKF_MAX((uint64_t)BATCH_MAX, 2ull * p->a.piece + 4096))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: " JOURNAL_DAMAGED, p->journal_path);
    SKF_TRY(find_batch(p, &last, &is_whole, why));
    SKF_TRY(skf_rw_size(p->file, &size, why));
    if (!is_whole) { /* nothing was changed, but the file may have become longer */
        *is_over = true;
        if (size > info->source_size && size == info->result_size)
            SKF_TRY(skf_rw_resize(p->file, info->source_size, why));
        return forget_journal(p, why);
    }
    SKF_TRY(is_as_left(p, last, &is_left, why));
    if (!is_left) {
        SKF_TRY(is_brought_anew(p, is_over, why));
        if (*is_over)
            return forget_journal(p, why);
        return skf_fail(why, SKF_ERR_STATE, "%s: was changed by something else while it was half way; bring a whole version, and remove %s",
                        p->a.old_path, p->journal_path);
    }
    SKF_TRY(plan_to(p, last, why));
    SKF_TRY(write_batch(p, why));
    p->next = last + 1;
    return skf_rw_resize(p->file, SKF_MAX(size, info->result_size), why);
}

/* ---- all of it ---------------------------------------------------------------------------------------------------------------------- */
static enum skf_err run_batches(struct place *p, struct skf_why *why)
{
    struct apply *a = &p->a;
    skf_map_close(&a->old);
    SKF_TRY(skf_map_open(p->path, &a->old, why));
    a->source = skf_source_of(a->old.data, SKF_MIN(a->old.size, a->info->source_size));
    SKF_TRY(plan_to(p, p->next, why));
    for (; p->batch.n; place_plan_next(p->plan, &p->batch)) {
        SKF_TRY(check_cancel(p, why));
        SKF_TRY(run_batch(p, why));
    }
    SKF_TRY(skf_rw_resize(p->file, a->info->result_size, why));
    SKF_TRY(skf_rw_sync(p->file, why));
    p->is_changed = false; /* the result, whole */
    p->is_begun = false;
    return forget_journal(p, why);
}

static enum skf_err apply_in_place(struct place *p, struct skf_why *why)
{
    struct apply *a = &p->a;
    bool is_done = false;
    if (is_folder(a->old_path))
        return skf_fail(why, SKF_ERR_ARG, "%s: is a folder, and only a file is changed in place; write the result to another one", a->old_path);
    if (!realpath(a->old_path, p->path))
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: no such file", a->old_path);
    int n = snprintf(p->journal_path, sizeof p->journal_path, "%s.skiff-journal", p->path);
    if (n < 0 || (size_t)n >= sizeof p->journal_path)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", a->old_path);
    SKF_TRY(apply_open(a, why));
    if (a->info->also_size)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: takes from another version too, and is not applied in place; write the result to another file", a->skd_path);
    SKF_TRY(skf_rw_open(p->path, false, &p->file, why));
    skf_draft_sweep_of(p->journal_path, NULL);
    a->total = 2 * a->info->result_size;
    enum skf_err e = journal_open(p->journal_path, &p->journal, why);
    bool is_over = e == SKF_ERR_NOT_FOUND;
    if (e != SKF_OK && !is_over)
        return e;
    if (!is_over)
        SKF_TRY(go_on(p, &is_over, why));
    if (is_over)
        SKF_TRY(begin(p, &is_done, why));
    return is_done ? SKF_OK : run_batches(p, why);
}

/* Until the first batch is written nothing is lost by forgetting the journal, and the file is the source again. */
static void give_up(struct place *p, enum skf_err e, struct skf_why *why)
{
    struct skf_why was = {{0}};
    if (why)
        was = *why;
    if (p->is_changed) {
        (void)skf_fail(why, e, "%s; %s is half way, and the same command goes on", was.text, p->a.old_path);
        return;
    }
    uint64_t size;
    if (!p->is_begun || skf_rw_size(p->file, &size, NULL) != SKF_OK)
        return;
    if (size > p->a.info->source_size && skf_rw_resize(p->file, p->a.info->source_size, NULL) != SKF_OK)
        return;
    if (p->journal.file && forget_journal(p, NULL) != SKF_OK) /* then the next call goes on with it: as good */
        return;
}

enum skf_err skf_delta_apply_in_place(const char *path, const char *skd_path, const struct skf_delta_opts *opts,
                                      struct skf_delta_stats *stats, struct skf_why *why)
{
    static const struct skf_delta_opts plain;
    uint64_t begun = skf_now_ns();
    opts = opts ? opts : &plain;
    *stats = (struct skf_delta_stats){0};
    struct place *p = skf_calloc(1, sizeof *p);
    if (!p)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    p->a = (struct apply){.old_path = path,
                          .skd_path = skd_path,
                          .out_path = path,
                          .jobs = opts->jobs ? opts->jobs : skf_cpu_count(),
                          .progress = &opts->progress};
    enum skf_err e = apply_in_place(p, why);
    if (e == SKF_OK)
        apply_stats(&p->a, begun, stats);
    else
        give_up(p, e, why);
    place_plan_free(p->plan);
    skf_rw_close(p->journal.file);
    skf_rw_close(p->file);
    apply_close(&p->a);
    skf_free(p);
    return e;
}
