/* A file that is changed where it stands (file.h). */
#include "base/file_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

struct skf_rw {
    int fd;
    char path[PATH_MAX];
};

enum skf_err skf_rw_open(const char *path, bool is_new, struct skf_rw **f, struct skf_why *why)
{
    struct skf_rw *n = skf_calloc(1, sizeof *n);
    struct stat st;
    if (!n)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    int a = snprintf(n->path, sizeof n->path, "%s", path);
    enum skf_err e = SKF_OK;
    n->fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW | (is_new ? O_CREAT | O_EXCL : 0), 0600);
    if (n->fd < 0)
        e = skf_fail_errno(why, errno, "%s", path);
    else if (a < 0 || (size_t)a >= sizeof n->path)
        e = skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    else if (fstat(n->fd, &st) != 0 || !S_ISREG(st.st_mode))
        e = skf_fail(why, SKF_ERR_ARG, "%s: not a regular file", path);
    else if (flock(n->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        e = skf_fail(why, SKF_ERR_BUSY, "%s: another process is changing it", path);
    if (e != SKF_OK) {
        skf_rw_close(n);
        return e;
    }
    *f = n;
    return SKF_OK;
}

void skf_rw_close(struct skf_rw *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        (void)close(f->fd);
    skf_free(f);
}

enum skf_err skf_rw_write_at(struct skf_rw *f, uint64_t off, const void *p, size_t n, struct skf_why *why)
{
    int sys = file_hooked("write", f->path);
    for (const uint8_t *at = p; !sys && n;) {
        ssize_t put = pwrite(f->fd, at, n, (off_t)off);
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
    return sys ? file_write_failed(f->path, sys, p, why) : SKF_OK;
}

enum skf_err skf_rw_read_at(const struct skf_rw *f, uint64_t off, void *p, size_t n, struct skf_why *why)
{
    for (uint8_t *at = p; n;) {
        ssize_t got = pread(f->fd, at, n, (off_t)off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return skf_fail_errno(why, errno, "%s", f->path);
        if (got == 0)
            return skf_fail(why, SKF_ERR_IO, "%s: shorter than it must be", f->path);
        at += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return SKF_OK;
}

enum skf_err skf_rw_sync(struct skf_rw *f, struct skf_why *why)
{
    int sys = file_hooked("fsync", f->path);
    if (!sys && fdatasync(f->fd) != 0)
        sys = errno;
    return sys ? skf_fail_errno(why, sys, "%s: cannot be written", f->path) : SKF_OK;
}

enum skf_err skf_rw_size(const struct skf_rw *f, uint64_t *size, struct skf_why *why)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0)
        return skf_fail_errno(why, errno, "%s", f->path);
    *size = (uint64_t)st.st_size;
    return SKF_OK;
}

enum skf_err skf_rw_resize(struct skf_rw *f, uint64_t size, struct skf_why *why)
{
    uint64_t now;
    SKF_TRY(skf_rw_size(f, &now, why));
    int sys = file_hooked("write", f->path);
    if (!sys && size > now)
        sys = posix_fallocate(f->fd, (off_t)now, (off_t)(size - now));
    else if (!sys && size < now && ftruncate(f->fd, (off_t)size) != 0)
        sys = errno;
    return sys ? skf_fail_errno(why, sys, "%s: cannot become %llu bytes", f->path, (unsigned long long)size) : SKF_OK;
}

enum skf_err skf_rw_remove(struct skf_rw *take_f, struct skf_why *why)
{
    struct skf_rw *f = take_f;
    int sys = file_hooked("unlink", f->path);
    if (!sys && unlink(f->path) != 0)
        sys = errno;
    enum skf_err e = sys ? skf_fail_errno(why, sys, "%s: cannot be removed", f->path) : skf_sync_folder(f->path, why);
    skf_rw_close(f);
    return e;
}
