/* Small files read whole, folders (file.h). */
#include "base/file_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"

static int (*hook_fn)(void *ctx, const char *step, const char *path);
static void *hook_ctx;

void skf_file_hook(int (*fn)(void *ctx, const char *step, const char *path), void *ctx)
{
    hook_fn = fn;
    hook_ctx = ctx;
}

int file_hooked(const char *step, const char *path) { return hook_fn ? hook_fn(hook_ctx, step, path) : 0; }

static enum skf_err read_all(int fd, const char *path, uint8_t *p, size_t n, struct skf_why *why)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, p + at, n - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return skf_fail_errno(why, errno, "%s", path);
        if (got == 0)
            return skf_fail(why, SKF_ERR_IO, "%s: became shorter while it was read", path);
        at += (size_t)got;
    }
    return SKF_OK;
}

enum skf_err skf_file_read(const char *path, size_t limit, uint8_t **data, size_t *len, struct skf_why *why)
{
    int fd = open(path, FILE_READING);
    if (fd < 0)
        return skf_fail_errno(why, errno, "%s", file_shown(path));
    enum skf_err e;
    uint8_t *p = NULL;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        e = skf_fail_errno(why, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        e = skf_fail(why, SKF_ERR_ARG, "%s: not a regular file", path);
    } else if ((uint64_t)st.st_size > limit) {
        e = skf_fail(why, SKF_ERR_LIMIT, "%s: larger than %zu bytes", path, limit);
    } else if (!(p = skf_alloc((size_t)st.st_size + 1))) {
        e = skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    } else {
        e = read_all(fd, path, p, (size_t)st.st_size, why);
    }
    (void)close(fd);
    if (e != SKF_OK) {
        skf_free(p);
        return e;
    }
    p[st.st_size] = 0;
    *data = p;
    *len = (size_t)st.st_size;
    return SKF_OK;
}

enum skf_err skf_file_write(const char *path, const void *p, size_t n, unsigned mode, struct skf_why *why)
{
    struct skf_draft *d;
    SKF_TRY(skf_draft_open(path, 0, mode, &d, why));
    enum skf_err e = skf_draft_write_at(d, 0, p, n, why);
    if (e != SKF_OK) {
        skf_draft_abort(d);
        return e;
    }
    return skf_draft_commit(d, why);
}

enum skf_err skf_mkdirs(const char *path, unsigned mode, struct skf_why *why)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path empty or too long", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, (mode_t)mode) == 0)
            SKF_TRY(skf_sync_folder(part, why)); /* what is written in it lasts no longer than its own name */
        else if (errno != EEXIST)
            return skf_fail_errno(why, errno, "%s: cannot be made", part);
    }
    struct stat st;
    if (stat(path, &st) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    return S_ISDIR(st.st_mode) ? SKF_OK : skf_fail(why, SKF_ERR_ARG, "%s: not a folder", path);
}

enum skf_err skf_path(char *out, size_t cap, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    int w = snprintf(out, cap, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return w < 0 || (size_t)w >= cap ? SKF_ERR_LIMIT : SKF_OK;
}

enum skf_err skf_disk_free(const char *path, uint64_t *bytes, struct skf_why *why)
{
    struct statvfs v;
    if (statvfs(path, &v) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    *bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return SKF_OK;
}
