/* Mapped files, and files that are there whole or not at all (file.h). */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"

/* Not held up by a named pipe that nobody writes to: what is no regular file is refused once it is open. */
#define FOR_READING (O_RDONLY | O_CLOEXEC | O_NONBLOCK)

static int (*hook_fn)(void *ctx, const char *step, const char *path);
static void *hook_ctx;

void skf_file_hook(int (*fn)(void *ctx, const char *step, const char *path), void *ctx)
{
    hook_fn = fn;
    hook_ctx = ctx;
}

/* 0, or the errno value that a test wants here. */
static int hooked(const char *step, const char *path) { return hook_fn ? hook_fn(hook_ctx, step, path) : 0; }

enum skf_err skf_map_open(const char *path, struct skf_map *m, struct skf_why *why)
{
    *m = (struct skf_map){NULL, 0};
    int fd = open(path, FOR_READING);
    if (fd < 0)
        return skf_fail_errno(why, errno, "%s", path);
    struct stat st;
    enum skf_err e = SKF_OK;
    if (fstat(fd, &st) != 0) {
        e = skf_fail_errno(why, errno, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        e = skf_fail(why, SKF_ERR_ARG, "%s: not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            e = skf_fail_errno(why, errno, "%s: cannot be mapped", path);
        else
            *m = (struct skf_map){p, (uint64_t)st.st_size};
    }
    (void)close(fd);
    return e;
}

void skf_map_close(struct skf_map *m)
{
    if (m->data)
        (void)munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct skf_map){NULL, 0};
}

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
    int fd = open(path, FOR_READING);
    if (fd < 0)
        return skf_fail_errno(why, errno, "%s", path);
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

struct skf_draft {
    int fd;
    char path[PATH_MAX], temp[PATH_MAX];
};

/* Syncs the folder that holds `path`, so that a rename in it lasts. */
static enum skf_err sync_folder(const char *path, struct skf_why *why)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int n = slash ? snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path)
                  : snprintf(dir, sizeof dir, ".");
    if (n < 0 || (size_t)n >= sizeof dir)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    int sys = hooked("dirsync", dir);
    int fd = sys ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!sys && (fd < 0 || fsync(fd) != 0))
        sys = errno;
    if (fd >= 0)
        (void)close(fd);
    return sys ? skf_fail_errno(why, sys, "%s: cannot be synced", dir) : SKF_OK;
}

/* A rename puts a file in the place of whatever has the name: root could lose a device so, /dev/null for one. */
static bool is_replaceable(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return true; /* nothing there, or what opening the temporary will say */
    if (S_ISLNK(st.st_mode) && stat(path, &st) != 0)
        return true; /* leads nowhere */
    return S_ISREG(st.st_mode);
}

enum skf_err skf_draft_open(const char *path, uint64_t size, unsigned mode, struct skf_draft **d, struct skf_why *why)
{
    static atomic_uint serial;
    struct skf_draft *n = skf_calloc(1, sizeof *n);
    if (!n)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    int a = snprintf(n->path, sizeof n->path, "%s", path);
    int b = snprintf(n->temp, sizeof n->temp, "%s.%ld.%u.part", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    enum skf_err e = SKF_OK;
    n->fd = -1;
    if (a < 0 || b < 0 || (size_t)b >= sizeof n->temp)
        e = skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    else if (!is_replaceable(path))
        e = skf_fail(why, SKF_ERR_ARG, "%s: is there and not a regular file; it is not overwritten", path);
    else if ((n->fd = open(n->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode)) < 0)
        e = skf_fail_errno(why, errno, "%s: cannot be written", path);
    else if (size > 0) {
        int sys = posix_fallocate(n->fd, 0, (off_t)size);
        if (sys)
            e = skf_fail_errno(why, sys, "%s: no room for %llu bytes", path, (unsigned long long)size);
    }
    if (e != SKF_OK) {
        skf_draft_abort(n);
        return e;
    }
    *d = n;
    return SKF_OK;
}

enum skf_err skf_draft_write_at(struct skf_draft *d, uint64_t off, const void *p, size_t n, struct skf_why *why)
{
    int sys = hooked("write", d->path);
    const uint8_t *at = p;
    while (!sys && n) {
        ssize_t put = pwrite(d->fd, at, n, (off_t)off);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            sys = errno;
            break;
        }
        at += put;
        off += (uint64_t)put;
        n -= (size_t)put;
    }
    return sys ? skf_fail_errno(why, sys, "%s: cannot be written", d->path) : SKF_OK;
}

enum skf_err skf_draft_commit(struct skf_draft *take_d, struct skf_why *why)
{
    struct skf_draft *d = take_d;
    int sys = hooked("fsync", d->path);
    if (!sys && fsync(d->fd) != 0)
        sys = errno;
    if (!sys)
        sys = hooked("rename", d->path);
    if (!sys && rename(d->temp, d->path) != 0)
        sys = errno;
    if (sys) {
        enum skf_err e = skf_fail_errno(why, sys, "%s: cannot be written", d->path);
        skf_draft_abort(d);
        return e;
    }
    enum skf_err e = sync_folder(d->path, why);
    (void)close(d->fd);
    skf_free(d);
    return e;
}

void skf_draft_abort(struct skf_draft *take_d)
{
    if (!take_d)
        return;
    if (take_d->fd >= 0) {
        (void)close(take_d->fd);
        if (!hooked("unlink", take_d->temp))
            (void)unlink(take_d->temp);
    }
    skf_free(take_d);
}

void skf_draft_sweep(const char *dir)
{
    char path[PATH_MAX];
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n > 5 && strcmp(f->d_name + n - 5, ".part") == 0 && skf_path(path, sizeof path, dir, f->d_name) == SKF_OK)
            (void)unlink(path);
    }
    if (d)
        (void)closedir(d);
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
        if (mkdir(part, (mode_t)mode) != 0 && errno != EEXIST)
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
