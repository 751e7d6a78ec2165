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
static inline struct skf_source skf_map_source(const struct skf_map *m) { return skf_source_of(m->data, m->size); }

/* Reads a small file whole (caller frees with skf_free; a NUL stands behind the last byte); SKF_ERR_LIMIT over `limit`. */
SKF_MUST enum skf_err skf_file_read(const char *path, size_t limit, uint8_t **data, size_t *len, struct skf_why *why);
/* Replaces `path` durably with these bytes. On failure the old file stands and nothing is left beside it. */
SKF_MUST enum skf_err skf_file_write(const char *path, const void *p, size_t n, unsigned mode, struct skf_why *why);

/* A file in the making: bytes go to a temporary beside `path`, which nobody sees until _commit.  Not thread-safe, but for
 * skf_draft_write_at, which any number of threads may call on ranges that do not overlap. */
struct skf_draft;
/* `size` > 0 reserves that much (SKF_ERR_FULL when the disk does not hold it); 0 for a size not known yet. */
SKF_MUST enum skf_err skf_draft_open(const char *path, uint64_t size, unsigned mode, struct skf_draft **d,
                                     struct skf_why *why);
SKF_MUST enum skf_err skf_draft_write_at(struct skf_draft *d, uint64_t off, const void *p, size_t n,
                                         struct skf_why *why);
/* Syncs, renames, syncs the folder, frees d. On failure nothing is left but what was there before; d is freed too. */
SKF_MUST enum skf_err skf_draft_commit(struct skf_draft *take_d, struct skf_why *why);
void skf_draft_abort(struct skf_draft *take_d); /* removes the temporary; NULL is fine */

/* Removes what drafts of killed processes left in this folder (names that end in ".part"). Nobody may be writing there. */
void skf_draft_sweep(const char *dir);

/* Makes a folder and its parents (existing ones are fine). */
SKF_MUST enum skf_err skf_mkdirs(const char *path, unsigned mode, struct skf_why *why);
/* Joins with one slash; SKF_ERR_LIMIT when it does not fit. */
SKF_MUST enum skf_err skf_path(char *out, size_t cap, const char *dir, const char *name);
/* Bytes free for us on the file system of `path`. */
SKF_MUST enum skf_err skf_disk_free(const char *path, uint64_t *bytes, struct skf_why *why);

/* For tests: `fn` is called before each lasting step ("write", "fsync", "rename", "dirsync", "unlink") and may return an
 * errno value to make it fail, or not return. NULL turns it off. */
void skf_file_hook(int (*fn)(void *ctx, const char *step, const char *path), void *ctx);

#endif
