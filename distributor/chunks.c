/* Chunks in files, and contents put together from them (chunks.h). */
#include "distributor/chunks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

struct skf_chunks {
    char dir[PATH_MAX], content_dir[PATH_MAX];
};

enum skf_err skf_chunks_open(const char *dir, const char *content_dir, struct skf_chunks **out, struct skf_why *why)
{
    struct skf_chunks *c = skf_calloc(1, sizeof *c);
    if (!c)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", dir);
    enum skf_err e = skf_mkdirs(dir, 0700, why);
    if (e == SKF_OK)
        e = skf_mkdirs(content_dir, 0700, why);
    if (e == SKF_OK)
        e = skf_path(c->dir, sizeof c->dir, dir, "");
    if (e == SKF_OK)
        e = skf_path(c->content_dir, sizeof c->content_dir, content_dir, "");
    if (e != SKF_OK) {
        skf_free(c);
        return e;
    }
    *out = c;
    return SKF_OK;
}

void skf_chunks_close(struct skf_chunks *c)
{
    skf_free(c);
}

/* The file of a chunk; *folder_len is the length of its folder's part. */
static enum skf_err chunk_path(const struct skf_chunks *c, const uint8_t digest[SKF_DIGEST], char path[PATH_MAX],
                               size_t *folder_len)
{
    char hex[SKF_HEX];
    skf_hex(digest, SKF_DIGEST, hex);
    int n = snprintf(path, PATH_MAX, "%s%.2s/%s", c->dir, hex, hex);
    if (n < 0 || n >= PATH_MAX)
        return SKF_ERR_LIMIT;
    if (folder_len)
        *folder_len = (size_t)n - (SKF_HEX - 1) - 1;
    return SKF_OK;
}

bool has_chunk(const struct skf_chunks *c, const uint8_t digest[SKF_DIGEST])
{
    char path[PATH_MAX];
    return chunk_path(c, digest, path, NULL) == SKF_OK && access(path, R_OK) == 0;
}

enum skf_err skf_chunks_put(struct skf_chunks *c, const uint8_t digest[SKF_DIGEST], const void *p, size_t n,
                            struct skf_why *why)
{
    uint8_t is[SKF_DIGEST];
    char path[PATH_MAX];
    size_t folder;
    if (n == 0 || n > SKF_CHUNK_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "chunk of %zu bytes", n);
    skf_sha256(p, n, is);
    if (memcmp(is, digest, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "chunk: its bytes do not have its digest");
    if (has_chunk(c, digest))
        return SKF_OK;
    SKF_TRY(chunk_path(c, digest, path, &folder));
    path[folder] = 0;
    SKF_TRY(skf_mkdirs(path, 0700, why));
    path[folder] = '/';
    return skf_file_write(path, p, n, 0600, why);
}

uint64_t skf_chunks_length(const struct skf_chunks *c, const uint8_t digest[SKF_DIGEST])
{
    char path[PATH_MAX];
    struct stat st;
    return chunk_path(c, digest, path, NULL) == SKF_OK && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

enum skf_err skf_chunks_remove(struct skf_chunks *c, const uint8_t *digests, uint64_t n, struct skf_why *why)
{
    char path[PATH_MAX];
    bool is_changed = false; /* the folder */
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *d = digests + i * SKF_DIGEST;
        SKF_TRY(chunk_path(c, d, path, NULL));
        if (unlink(path) == 0)
            is_changed = true;
        else if (errno != ENOENT)
            return skf_fail_errno(why, errno, "%s", path);
        if (is_changed && (i + 1 == n || d[0] != d[SKF_DIGEST])) {
            SKF_TRY(skf_sync_folder(path, why));
            is_changed = false;
        }
    }
    return SKF_OK;
}

enum skf_err skf_chunk_list_check(const struct skf_chunk_list *l, struct skf_why *why)
{
    struct skf_merkle m;
    uint8_t root[SKF_DIGEST];
    uint64_t sum = 0;
    skf_merkle_init(&m);
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->lengths[i] == 0 || l->lengths[i] > SKF_CHUNK_MAX)
            return skf_fail(why, SKF_ERR_FORMAT, "chunk %llu has %u bytes", (unsigned long long)i, l->lengths[i]);
        sum += l->lengths[i];
        skf_merkle_add(&m, l->digests + i * SKF_DIGEST, l->lengths[i]);
    }
    if (sum != l->size)
        return skf_fail(why, SKF_ERR_FORMAT, "chunks of %llu bytes for a size of %llu", (unsigned long long)sum,
                        (unsigned long long)l->size);
    skf_merkle_root(&m, root);
    if (memcmp(root, l->root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "chunks do not come to the root");
    return SKF_OK;
}

/* ---- contents -------------------------------------------------------------------------------------------------- */
static enum skf_err copy_chunk(struct skf_chunks *c, const uint8_t *digest, uint32_t length, uint64_t off,
                               struct skf_draft *d, struct skf_why *why)
{
    char path[PATH_MAX];
    struct skf_map m;
    uint8_t is[SKF_DIGEST];
    SKF_TRY(chunk_path(c, digest, path, NULL));
    SKF_TRY(skf_map_open(path, &m, why));
    enum skf_err e = SKF_OK;
    skf_sha256(m.data, m.size, is);
    if (m.size != length || memcmp(is, digest, SKF_DIGEST) != 0)
        e = skf_fail(why, SKF_ERR_DIGEST, "%s: damaged; remove it and publish the version again", path);
    if (e == SKF_OK)
        e = skf_draft_write_at(d, off, m.data, length, why);
    skf_map_close(&m);
    return e;
}

static enum skf_err assemble(struct skf_chunks *c, const struct skf_chunk_list *l, const struct skf_progress *progress,
                             const char *path, struct skf_why *why)
{
    struct skf_draft *d;
    uint64_t off = 0;
    SKF_TRY(skf_draft_open(path, l->size, 0600, &d, why));
    enum skf_err e = SKF_OK;
    for (uint64_t i = 0; i < l->n && e == SKF_OK; i++) {
        e = is_cancelled(progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled")
                                   : copy_chunk(c, l->digests + i * SKF_DIGEST, l->lengths[i], off, d, why);
        off += l->lengths[i];
    }
    if (e == SKF_OK)
        return skf_draft_commit(d, why);
    skf_draft_abort(d);
    return e;
}

enum skf_err skf_chunks_file(struct skf_chunks *c, const struct skf_chunk_list *l, const struct skf_progress *progress,
                             char path[PATH_MAX], struct skf_why *why)
{
    char hex[SKF_HEX];
    struct stat st;
    skf_hex(l->root, SKF_DIGEST, hex);
    SKF_TRY(skf_path(path, PATH_MAX, c->content_dir, hex));
    if (stat(path, &st) != 0 || (uint64_t)st.st_size != l->size)
        SKF_TRY(assemble(c, l, progress, path, why));
    (void)utimensat(AT_FDCWD, path, NULL, 0); /* newest for _trim */
    return SKF_OK;
}

enum skf_err skf_chunks_content(struct skf_chunks *c, const struct skf_chunk_list *l,
                                const struct skf_progress *progress, struct skf_model **m, struct skf_why *why)
{
    char path[PATH_MAX];
    if (l->n == 0) {
        struct skf_source none = skf_source_of(NULL, 0);
        return skf_model_open_source(&none, "the empty content", m, why);
    }
    SKF_TRY(skf_chunks_file(c, l, progress, path, why));
    return skf_model_open(path, m, why);
}

void skf_chunks_forget(struct skf_chunks *c, const uint8_t root[SKF_DIGEST])
{
    char hex[SKF_HEX], path[PATH_MAX];
    skf_hex(root, SKF_DIGEST, hex);
    if (skf_path(path, sizeof path, c->content_dir, hex) == SKF_OK)
        (void)unlink(path);
}

struct content {
    char name[NAME_MAX + 1];
    struct timespec when;
};

/* Newest first. */
static int by_age(const void *a, const void *b)
{
    const struct timespec *x = &((const struct content *)a)->when, *y = &((const struct content *)b)->when;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? 1 : -1;
    return (x->tv_nsec < y->tv_nsec) - (x->tv_nsec > y->tv_nsec);
}

void skf_chunks_trim(struct skf_chunks *c, size_t keep)
{
    enum { MOST = 256 };
    struct content *all = skf_calloc(MOST, sizeof *all);
    DIR *d = all ? opendir(c->content_dir) : NULL;
    size_t n = 0;
    char path[PATH_MAX];
    struct stat st;
    for (struct dirent *f; d && n < MOST && (f = readdir(d));) {
        if (f->d_name[0] == '.' || skf_path(path, sizeof path, c->content_dir, f->d_name) != SKF_OK ||
            stat(path, &st) != 0)
            continue;
        (void)snprintf(all[n].name, sizeof all[n].name, "%s", f->d_name);
        all[n++].when = st.st_mtim;
    }
    if (d)
        (void)closedir(d);
    if (n)
        qsort(all, n, sizeof *all, by_age);
    for (size_t i = keep; i < n; i++)
        if (skf_path(path, sizeof path, c->content_dir, all[i].name) == SKF_OK)
            (void)unlink(path);
    skf_free(all);
}
