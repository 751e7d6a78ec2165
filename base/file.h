/*
 * Files that last.  A file that others rely on is written beside its name, synced, renamed over it, and its folder synced:
 * after a power cut the old or the new one is there, never a part.  Every call that must last goes through one hook so
 * that tests can make the n-th one fail or stop the process there.
 */
#ifndef SKF_BASE_FILE_H
#define SKF_BASE_FILE_H

#include "base/err.h"
#include "base/source.h"

/* A whole file mapped read-only. An empty file has data == NULL and size 0. */
struct skf_map {
    const uint8_t *data;
    uint64_t size;
};
SKF_MUST enum skf_err skf_map_open(const char *path, struct skf_map *m, struct skf_why *why);
void skf_map_close(struct skf_map *m); /* a zeroed or closed map is fine */
/* Calls fn(ctx). When a mapped file became shorter, or its disk fails, under a read of this thread, fn is left where it stands and
 * SKF_ERR_IO comes back, naming the file, where otherwise the process would end by SIGBUS. So fn must hold no lock while it reads maps, and ctx must
 * own what it allocates. Calls nest. Any thread. */
SKF_MUST enum skf_err skf_map_guard(enum skf_err (*fn)(void *ctx, struct skf_why *why), void *ctx, struct skf_why *why);
/* The name of the file whose map `p` lies in, as it was opened, cut to `cap` bytes; false when it lies in none (or in one of more than 64,
 * which are not remembered). For lines of error; safe in a signal handler. */
bool has_map_name(const void *p, char *name, size_t cap);
/* The file has fewer bytes by now than the map of it. */
bool is_map_cut(const char *path, const struct skf_map *m);
/* Bytes of the map that will be read soon: a hint. */
void skf_map_soon(const struct skf_map *m, uint64_t off, uint64_t n);
/* Part `i` of `n` of the map is not read any more, or hardly: what it took to have it at hand is given back, by this thread, where closing
 * would do so for all of it. */
void skf_map_done(const struct skf_map *m, unsigned i, unsigned n);
struct skf_source skf_map_source(const struct skf_map *m);
/* As skf_source's idle, of any mapping of a file that is only read. */
void skf_map_idle(void *ctx, const uint8_t *p, uint64_t n);

/* Reads a small file whole (caller frees with skf_free; a NUL stands behind the last byte); SKF_ERR_LIMIT over `limit`. */
SKF_MUST enum skf_err skf_file_read(const char *path, size_t limit, uint8_t **data, size_t *len, struct skf_why *why);
/* Replaces `path` durably with these bytes. On failure the old file stands and nothing is left beside it. */
SKF_MUST enum skf_err skf_file_write(const char *path, const void *p, size_t n, unsigned mode, struct skf_why *why);

/* A file in the making: bytes go to a temporary beside `path` (NAME.*.part, locked while its process lives), which nobody sees
 * until _commit.  Not thread-safe, but for skf_draft_write_at and _read_at, which any number of threads may call on ranges that
 * do not overlap. */
struct skf_draft;
/* `size` > 0 reserves that much (SKF_ERR_FULL when the disk does not hold it); 0 for a size not known yet. */
SKF_MUST enum skf_err skf_draft_open(const char *path, uint64_t size, unsigned mode, struct skf_draft **d,
                                     struct skf_why *why);
/* The same under a name that the next run finds again (`tag`: hexadecimal digits that tell what is being written). *is_begun: a run
 * that ended early left one there, and everything it wrote still stands in it, or does not: bytes are to be checked before they count.
 * SKF_ERR_BUSY while another process is at it. */
SKF_MUST enum skf_err skf_draft_resume(const char *path, const char *tag, uint64_t size, unsigned mode, struct skf_draft **d,
                                       bool *is_begun, struct skf_why *why);
const char *skf_draft_name(const struct skf_draft *d); /* of the temporary */
SKF_MUST enum skf_err skf_draft_write_at(struct skf_draft *d, uint64_t off, const void *p, size_t n,
                                         struct skf_why *why);
/* Begins to bring to the disk what was written so far, so that there is less to wait for later: a hint. Large files begin by themselves. */
void skf_draft_soon(struct skf_draft *d);
/* Reads back what an earlier run may have written; false when nothing was, or it cannot be read. */
bool skf_draft_read_at(const struct skf_draft *d, uint64_t off, void *p, size_t n);
/* All of it (as much as was reserved), mapped: what was written can be read there. Closed by the caller, before or after the draft. */
SKF_MUST enum skf_err skf_draft_map(const struct skf_draft *d, struct skf_map *m, struct skf_why *why);
/* Syncs, renames, syncs the folder, frees d. On failure nothing is left but what was there before; d is freed too. */
SKF_MUST enum skf_err skf_draft_commit(struct skf_draft *take_d, struct skf_why *why);
void skf_draft_abort(struct skf_draft *take_d); /* removes the temporary; NULL is fine */
void skf_draft_leave(struct skf_draft *take_d); /* lets the temporary stand for the next skf_draft_resume; NULL is fine */

/* Removes what drafts of killed processes left in this folder (names that end in ".part"). Nobody may be writing there. */
void skf_draft_sweep(const char *dir);
/* Removes what killed processes left of drafts of this file, but for the one named `keep` (may be NULL) and those being written. */
void skf_draft_sweep_of(const char *path, const char *keep);
/* Syncs the folder that `path` stands in, so that its being there (or not) lasts. */
SKF_MUST enum skf_err skf_sync_folder(const char *path, struct skf_why *why);

/* A file that is changed where it stands, by this process alone (SKF_ERR_BUSY while another has it open so).  Reads and writes of ranges
 * that do not overlap may run on any number of threads. */
struct skf_rw;
/* `is_new`: it must not be there yet. A symbolic link is not followed. */
SKF_MUST enum skf_err skf_rw_open(const char *path, bool is_new, struct skf_rw **f, struct skf_why *why);
void skf_rw_close(struct skf_rw *f); /* NULL is fine */
SKF_MUST enum skf_err skf_rw_write_at(struct skf_rw *f, uint64_t off, const void *p, size_t n, struct skf_why *why);
SKF_MUST enum skf_err skf_rw_read_at(const struct skf_rw *f, uint64_t off, void *p, size_t n, struct skf_why *why);
/* What was written so far lasts; so does the size. */
SKF_MUST enum skf_err skf_rw_sync(struct skf_rw *f, struct skf_why *why);
SKF_MUST enum skf_err skf_rw_size(const struct skf_rw *f, uint64_t *size, struct skf_why *why);
/* Longer (with room on the disk for all of it) or shorter. */
SKF_MUST enum skf_err skf_rw_resize(struct skf_rw *f, uint64_t size, struct skf_why *why);
SKF_MUST enum skf_err skf_rw_remove(struct skf_rw *take_f, struct skf_why *why); /* closes it too, whatever it returns */

/* Makes a folder and its parents, each to last (existing ones are fine). */
SKF_MUST enum skf_err skf_mkdirs(const char *path, unsigned mode, struct skf_why *why);
/* Joins with one slash; SKF_ERR_LIMIT when it does not fit. */
SKF_MUST enum skf_err skf_path(char *out, size_t cap, const char *dir, const char *name);
/* Bytes free for us on the file system of `path`. */
SKF_MUST enum skf_err skf_disk_free(const char *path, uint64_t *bytes, struct skf_why *why);

/* For tests: `fn` is called before each lasting step ("write", "fsync", "rename", "dirsync", "unlink") and may return an
 * errno value to make it fail, or not return. NULL turns it off. */
void skf_file_hook(int (*fn)(void *ctx, const char *step, const char *path), void *ctx);

#endif
