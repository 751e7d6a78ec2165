/* Mapped files, small files read whole, folders (file.h). */
#include "base/file_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"

/* Not held up by a named pipe that nobody writes to: what is no regular file is refused once it is open. */
#define FOR_READING (O_RDONLY | O_CLOEXEC | O_NONBLOCK)

#define HOLES_MAX 4096       /* each is a mapping of its own, of which a process may have 65,530 */
#define HOLE_MIN (1u << 20)

static int (*hook_fn)(void *ctx, const char *step, const char *path);
static void *hook_ctx;

void skf_file_hook(int (*fn)(void *ctx, const char *step, const char *path), void *ctx)
{
    hook_fn = fn;
    hook_ctx = ctx;
}

int file_hooked(const char *step, const char *path) { return hook_fn ? hook_fn(hook_ctx, step, path) : 0; }

/* Holes of a sparse file are mapped as the zeros that they are: read through the file they would fill memory with pages of zeros.
 * Where that does not work out they stay as they are. */
static void map_holes(int fd, uint8_t *p, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), at = 0;
    for (unsigned n = 0; n < HOLES_MAX && at < size; n++) {
        off_t hole = lseek(fd, (off_t)at, SEEK_HOLE), end;
        if (hole < 0 || (uint64_t)hole >= size)
            return;
        end = lseek(fd, hole, SEEK_DATA);
        uint64_t from = ((uint64_t)hole + page - 1) / page * page, to = end < 0 ? size : (uint64_t)end;
        if (end < 0 && errno != ENXIO)
            return;
        if (to >= from + HOLE_MIN &&
            mmap(p + from, to / page * page - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
            return;
        at = to;
    }
}

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
        if (m->data && st.st_blocks < st.st_size / 512)
            map_holes(fd, p, m->size);
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
