/*
 * A delta applied where a folder of files is one of its two ends (model/folder.h): the result's files are written into a folder beside the
 * one that they will be, which takes its name when all of them have every chunk's digest.  What killed runs left there goes first.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "delta/apply_priv.h"
#include "model/folder.h"

#define TAIL ".skiff-part" /* of the folder in the making */
#define PATH_MOST 4096

struct target { /* a file in the making */
    uint64_t offset, bytes; /* in the content */
    struct skf_draft *draft; /* NULL once it stands */
};
struct foldered {
    struct apply a;
    struct skf_folder *old; /* NULL when the source is a file */
    struct skf_folder_file *files;
    struct target *targets; /* n_files, in the order of their offsets */
    size_t n_files;         /* 0: the result is one file, targets[0] */
    int lock;               /* of the folder in the making; -1: none */
    char out[PATH_MOST], part[PATH_MOST + sizeof TAIL];
};

static enum skf_err open_source(struct foldered *f, struct skf_why *why)
{
    if (!is_folder(f->a.old_path))
        return apply_open_source(&f->a, why);
    SKF_TRY(skf_folder_open(f->a.old_path, &f->old, why));
    f->a.own = *skf_folder_source(f->old);
    return f->a.own.size == f->a.info->source_size ? apply_join(&f->a, why) : apply_name_failure(&f->a, why);
}

/* Bytes of the result that begin at `at`, as many as a worker's room holds: of the identity those of the source. */
static enum skf_err make(struct foldered *f, unsigned worker, uint64_t i, uint64_t *at, size_t *n, struct skf_why *why)
{
    struct apply *a = &f->a;
    struct skf_skd_chunk c;
    if (a->info->n_chunks) {
        skf_skd_chunk(a->skd, i, &c);
        *at = c.result_offset;
        *n = c.result_length;
        enum skf_err e = apply_make(a, worker, i, why);
        return e == SKF_ERR_BASE ? apply_name_failure(a, why) : e;
    }
    *at = i * a->piece;
    *n = SKF_MIN((uint64_t)a->piece, a->source.size - *at);
    return skf_source_read(&a->source, *at, a->workers[worker].out, *n);
}

static uint64_t steps(const struct foldered *f)
{
    const struct apply *a = &f->a;
    return a->info->n_chunks ? a->info->n_chunks : (a->source.size + a->piece - 1) / a->piece;
}

/* The result's beginning: its first chunk; of the identity as much of the source. */
static enum skf_err read_head(struct foldered *f, uint8_t *room, const uint8_t **p, size_t *n, struct skf_why *why)
{
    struct apply *a = &f->a;
    uint64_t at;
    *p = a->workers[0].out;
    *n = 0;
    if (a->info->n_chunks)
        return make(f, 0, 0, &at, n, why);
    if (!has_apply_root(a) || memcmp(a->root, a->info->result_root, SKF_DIGEST) != 0)
        return apply_name_failure(a, why);
    *p = room;
    *n = SKF_MIN(a->source.size, (uint64_t)SKF_FOLDER_HEAD);
    return skf_source_read(&a->source, 0, room, *n);
}

static enum skf_err list_files(struct foldered *f, struct skf_why *why)
{
    const uint8_t *p = NULL;
    size_t n = 0;
    uint8_t *room = skf_alloc(SKF_FOLDER_HEAD);
    enum skf_err e = room ? read_head(f, room, &p, &n, why) : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK && (e = skf_folder_list(p, n, f->a.info->result_size, &f->files, &f->n_files, why)) != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", f->a.skd_path);
    skf_free(room);
    SKF_TRY(e);
    f->targets = skf_calloc(f->n_files ? f->n_files : 1, sizeof *f->targets);
    return f->targets ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
}

/* ---- the folder in the making --------------------------------------------------------------------------------------------------- */
/* Removes the files that a run with this delta makes in it, and their drafts; the lock says that nobody else is at it. Whatever else stands
 * there is somebody's: its name goes to `other` (empty when there is none). */
static void empty_part(const struct foldered *f, char other[256])
{
    char path[PATH_MOST + 512];
    DIR *d = opendir(f->part);
    other[0] = 0;
    for (size_t k = 0; d && k < f->n_files; k++) {
        if (skf_path(path, sizeof path, f->part, f->files[k].name) == SKF_OK)
            skf_draft_sweep_of(path, NULL);
        (void)unlinkat(dirfd(d), f->files[k].name, 0);
    }
    for (struct dirent *at = d ? readdir(d) : NULL; at && !other[0]; at = readdir(d))
        if (strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0)
            (void)snprintf(other, 256, "%s", at->d_name);
    if (d)
        (void)closedir(d);
}

/* Nothing stands there, or a folder that is empty. */
static bool is_free(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT;
    DIR *d = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    bool is_empty = d != NULL;
    for (struct dirent *at = d ? readdir(d) : NULL; at && is_empty; at = readdir(d))
        is_empty = strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0;
    if (d)
        (void)closedir(d);
    return is_empty;
}

static enum skf_err open_part(struct foldered *f, struct skf_why *why)
{
    char other[256];
    if (!is_free(f->out))
        return skf_fail(why, SKF_ERR_STATE, "%s: is there already: the result is a folder of %zu files, which takes no other's place",
                        f->out, f->n_files);
    (void)snprintf(f->part, sizeof f->part, "%s%s", f->out, TAIL);
    if (mkdir(f->part, 0755) != 0 && errno != EEXIST) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", f->part);
    }
    f->lock = open(f->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (f->lock < 0) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", f->part);
    }
    if (flock(f->lock, LOCK_EX | LOCK_NB) != 0) {
        (void)close(f->lock);
        f->lock = -1;
        return skf_fail(why, SKF_ERR_BUSY, "%s: another process is at it", f->part);
    }
    empty_part(f, other);
    return other[0] ? skf_fail(why, SKF_ERR_STATE, "%s: holds %s, which no killed run of this delta left there: move it away", f->part, other) : SKF_OK;
}

static enum skf_err open_targets(struct foldered *f, struct skf_why *why)
{
    char path[PATH_MOST + 512];
    if (!f->n_files) {
        f->targets[0].bytes = f->a.info->result_size;
        return skf_draft_open(f->out, f->a.info->result_size, 0644, &f->targets[0].draft, why);
    }
    SKF_TRY(open_part(f, why));
    for (size_t k = 0; k < f->n_files; k++) {
        struct target *t = &f->targets[k];
        *t = (struct target){f->files[k].offset, f->files[k].bytes, NULL};
        SKF_TRY(skf_path(path, sizeof path, f->part, f->files[k].name));
        SKF_TRY(skf_draft_open(path, t->bytes, 0644, &t->draft, why));
    }
    return SKF_OK;
}

/* The n bytes of the content at `at`, each into its file; those of the listing's header belong to none. */
static enum skf_err put(struct foldered *f, uint64_t at, const uint8_t *p, size_t n, struct skf_why *why)
{
    for (size_t k = 0; k < SKF_MAX(f->n_files, 1u); k++) {
        const struct target *t = &f->targets[k];
        uint64_t from = SKF_MAX(at, t->offset), to = SKF_MIN(at + n, t->offset + t->bytes);
        if (from < to)
            SKF_TRY(skf_draft_write_at(t->draft, from - t->offset, p + (from - at), to - from, why));
    }
    return SKF_OK;
}

static enum skf_err step(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct foldered *f = ctx;
    uint64_t at, begun = skf_now_ns();
    size_t n;
    if (is_cancelled(f->a.progress))
        return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
    SKF_TRY(make(f, worker, i, &at, &n, why));
    SKF_TRY(put(f, at, f->a.workers[worker].out, n, why));
    skf_progress_rest(f->a.progress, begun);
    apply_tell(&f->a, n);
    return SKF_OK;
}

static enum skf_err commit(struct foldered *f, struct skf_why *why)
{
    for (size_t k = 0; k < SKF_MAX(f->n_files, 1u); k++) {
        struct skf_draft *d = f->targets[k].draft;
        f->targets[k].draft = NULL;
        SKF_TRY(skf_draft_commit(d, why));
    }
    if (!f->n_files)
        return SKF_OK;
    if (rename(f->part, f->out) != 0) {
        int sys = errno;
        return skf_fail_errno(why, sys, "%s", f->out);
    }
    (void)close(f->lock);
    f->lock = -1;
    return skf_sync_folder(f->out, why);
}

static enum skf_err apply_all(struct foldered *f, struct skf_why *why)
{
    SKF_TRY(apply_open(&f->a, why));
    SKF_TRY(open_source(f, why));
    SKF_TRY(list_files(f, why));
    SKF_TRY(open_targets(f, why));
    f->a.total = f->a.info->result_size;
    SKF_TRY(skf_par_for(f->a.jobs, steps(f), step, f, why));
    return commit(f, why);
}

bool is_delta_of_folder(const char *old_path, const char *out_path)
{
    size_t n = strlen(out_path);
    return is_folder(old_path) || is_folder(out_path) || (n && out_path[n - 1] == '/');
}

enum skf_err skf_delta_apply_folder(const char *old_path, const char *skd_path, const char *out_path,
                                    const struct skf_delta_opts *opts, struct skf_delta_stats *stats, struct skf_why *why)
{
    static const struct skf_delta_opts plain;
    uint64_t begun = skf_now_ns();
    size_t n = strlen(out_path);
    opts = opts ? opts : &plain;
    *stats = (struct skf_delta_stats){0};
    while (n > 1 && out_path[n - 1] == '/')
        n--;
    struct foldered *f = n < PATH_MOST ? skf_calloc(1, sizeof *f) : NULL;
    if (!f)
        return skf_fail(why, n < PATH_MOST ? SKF_ERR_NOMEM : SKF_ERR_LIMIT, "%.96s: %s", out_path, n < PATH_MOST ? "out of memory" : "too long");
    memcpy(f->out, out_path, n);
    f->lock = -1;
    f->a = (struct apply){.old_path = old_path, .skd_path = skd_path, .out_path = f->out, .also_path = opts->also_path,
                          .jobs = opts->jobs ? opts->jobs : skf_cpu_count(), .progress = &opts->progress};
    enum skf_err e = apply_all(f, why);
    if (e == SKF_OK)
        apply_stats(&f->a, begun, stats);
    for (size_t k = 0; f->targets && k < SKF_MAX(f->n_files, 1u); k++)
        skf_draft_abort(f->targets[k].draft);
    if (f->lock >= 0) {
        char other[256];
        empty_part(f, other);
        (void)rmdir(f->part);
        (void)close(f->lock);
    }
    apply_close(&f->a);
    skf_folder_close(f->old);
    skf_free(f->files);
    skf_free(f->targets);
    skf_free(f);
    return e;
}
