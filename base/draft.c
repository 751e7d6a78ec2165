/*
 * Files that are there whole or not at all (file.h): written beside their name, synced, renamed.
 *
 * A draft is locked (flock) as long as its process lives, so that what a killed one left can be told from what somebody is
 * writing.  One thread writes at a time: a file's pages are filled under one lock of the kernel's anyway, on which the others would
 * spin; and every few MiB the kernel is told to begin writing, so that there is little left to wait for at the end.
 */
#include "base/file_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/alloc.h"

#define BEGIN_EVERY (8u << 20) /* bytes after which writing to the disk is begun */
#define SUFFIX ".part"

struct skf_draft {
    int fd;
    pthread_mutex_t lock; /* of writing */
    uint64_t fresh;       /* bytes since writing to the disk was last begun; under lock */
    char path[PATH_MAX], temp[PATH_MAX];
};

/* The folder of `path`, and where its last part begins. */
static enum skf_err split(const char *path, char dir[PATH_MAX], const char **name, struct skf_why *why)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    int n = slash ? snprintf(dir, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path)
                  : snprintf(dir, PATH_MAX, ".");
    return n < 0 || n >= PATH_MAX ? skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path) : SKF_OK;
}

enum skf_err skf_sync_folder(const char *path, struct skf_why *why)
{
    char dir[PATH_MAX];
    const char *name;
    SKF_TRY(split(path, dir, &name, why));
    int sys = file_hooked("dirsync", dir);
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

static bool is_named(int fd, const char *temp)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(temp, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* True when fd is locked and the name still leads to it: whoever sweeps locks first and removes then, so where there are no locks
 * nothing is swept. */
static bool is_ours(int fd, const char *temp)
{
    return (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && is_named(fd, temp);
}

/* Room for `size` bytes. A tmpfs would fill pages that are then written again, so there the free ones are only counted. */
static enum skf_err reserve(struct skf_draft *d, uint64_t size, struct skf_why *why)
{
    struct statfs fs;
    struct stat st;
    int sys = 0;
    if (fstatfs(d->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC && fstat(d->fd, &st) == 0) {
        uint64_t have = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize + 512u * (uint64_t)st.st_blocks;
        sys = have < size ? ENOSPC : ftruncate(d->fd, (off_t)size) != 0 ? errno : 0;
    } else {
        sys = posix_fallocate(d->fd, 0, (off_t)size);
    }
    return sys ? skf_fail_errno(why, sys, "%s: no room for %llu bytes", d->path, (unsigned long long)size) : SKF_OK;
}

static enum skf_err draft_new(const char *path, struct skf_draft **d, struct skf_why *why)
{
    struct skf_draft *n = skf_calloc(1, sizeof *n);
    if (!n)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    n->fd = -1;
    (void)pthread_mutex_init(&n->lock, NULL);
    int a = snprintf(n->path, sizeof n->path, "%s", path);
    enum skf_err e = SKF_OK;
    if (a < 0 || (size_t)a >= sizeof n->path)
        e = skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    else if (!path[0])
        e = skf_fail(why, SKF_ERR_ARG, "'': a file needs a name");
    else if (!is_replaceable(path))
        e = skf_fail(why, SKF_ERR_ARG, "%s: is there and not a regular file; it is not overwritten", path);
    if (e != SKF_OK)
        skf_draft_abort(n);
    else
        *d = n;
    return e;
}

enum skf_err skf_draft_open(const char *path, uint64_t size, unsigned mode, struct skf_draft **d, struct skf_why *why)
{
    static atomic_uint serial;
    struct skf_draft *n;
    SKF_TRY(draft_new(path, &n, why));
    int b = snprintf(n->temp, sizeof n->temp, "%s.%ld.%u" SUFFIX, path, (long)getpid(), atomic_fetch_add(&serial, 1));
    enum skf_err e = SKF_OK;
    if (b < 0 || (size_t)b >= sizeof n->temp)
        e = skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    else if ((n->fd = open(n->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode)) < 0)
        e = skf_fail_errno(why, errno, "%s: cannot be written", path);
    else if (!is_ours(n->fd, n->temp))
        e = skf_fail(why, SKF_ERR_BUSY, "%s: its temporary was taken away", path);
    else if (size > 0)
        e = reserve(n, size, why);
    if (e != SKF_OK)
        skf_draft_abort(n);
    else
        *d = n;
    return e;
}

/* Opens what stands under n->temp, or makes it. A file that somebody else put there is nothing to go on with. */
static enum skf_err open_known(struct skf_draft *n, unsigned mode, bool *is_begun, struct skf_why *why)
{
    struct stat st;
    for (int tries = 0; tries < 8; tries++) {
        *is_begun = true;
        int fd = open(n->temp, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) {
            *is_begun = false;
            fd = open(n->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
            if (fd < 0 && errno != EEXIST)
                return skf_fail_errno(why, errno, "%s: cannot be written", n->path);
        }
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1) {
            if (is_ours(fd, n->temp)) {
                n->fd = fd;
                return SKF_OK;
            }
            (void)close(fd); /* being written, or just renamed or swept */
            continue;
        }
        if (fd >= 0)
            (void)close(fd);
        if (unlink(n->temp) != 0 && errno != ENOENT)
            return skf_fail_errno(why, errno, "%s: cannot be written", n->temp);
    }
    return skf_fail(why, SKF_ERR_BUSY, "%s: another process is writing it", n->path);
}

enum skf_err skf_draft_resume(const char *path, const char *tag, uint64_t size, unsigned mode, struct skf_draft **d,
                              bool *is_begun, struct skf_why *why)
{
    struct skf_draft *n;
    SKF_TRY(draft_new(path, &n, why));
    int b = snprintf(n->temp, sizeof n->temp, "%s.%s" SUFFIX, path, tag);
    enum skf_err e = b < 0 || (size_t)b >= sizeof n->temp ? skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path)
                                                          : open_known(n, mode, is_begun, why);
    if (e == SKF_OK && *is_begun && ftruncate(n->fd, (off_t)size) != 0)
        e = skf_fail_errno(why, errno, "%s: cannot be written", n->path);
    if (e == SKF_OK && size > 0)
        e = reserve(n, size, why);
    if (e != SKF_OK) {
        if (e == SKF_ERR_FULL && *is_begun)
            skf_draft_leave(n);
        else
            skf_draft_abort(n);
        return e;
    }
    *d = n;
    return SKF_OK;
}

const char *skf_draft_name(const struct skf_draft *d) { return d->temp; }

static int write_all(struct skf_draft *d, uint64_t off, const uint8_t *at, size_t n)
{
    while (n) {
        ssize_t put = pwrite(d->fd, at, n, (off_t)off);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        at += put;
        off += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}

void skf_draft_soon(struct skf_draft *d) /* what fails here fails again when it matters */
{
    (void)sync_file_range(d->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

enum skf_err skf_draft_write_at(struct skf_draft *d, uint64_t off, const void *p, size_t n, struct skf_why *why)
{
    int sys = file_hooked("write", d->path);
    bool is_many = false;
    if (!sys) {
        (void)pthread_mutex_lock(&d->lock);
        sys = write_all(d, off, p, n);
        d->fresh += n;
        is_many = d->fresh >= BEGIN_EVERY;
        d->fresh = is_many ? 0 : d->fresh;
        (void)pthread_mutex_unlock(&d->lock);
    }
    if (is_many)
        skf_draft_soon(d);
    return sys ? file_write_failed(d->path, sys, p, why) : SKF_OK;
}

bool skf_draft_read_at(const struct skf_draft *d, uint64_t off, void *p, size_t n)
{
    off_t data = lseek(d->fd, (off_t)off, SEEK_DATA); /* holes were never written; no file system without them says so wrongly */
    if (data < 0 ? errno == ENXIO : (uint64_t)data >= off + n)
        return false;
    for (uint8_t *at = p; n;) {
        ssize_t got = pread(d->fd, at, n, (off_t)off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

enum skf_err skf_draft_map(const struct skf_draft *d, struct skf_map *m, struct skf_why *why)
{
    struct stat st;
    *m = (struct skf_map){NULL, 0};
    if (fstat(d->fd, &st) != 0)
        return skf_fail_errno(why, errno, "%s", d->temp);
    if (st.st_size == 0)
        return SKF_OK;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, d->fd, 0);
    if (p == MAP_FAILED)
        return skf_fail_errno(why, errno, "%s: cannot be mapped", d->temp);
    *m = (struct skf_map){p, (uint64_t)st.st_size};
    file_map_named(m, d->path);
    return SKF_OK;
}

static void draft_free(struct skf_draft *d)
{
    if (d->fd >= 0)
        (void)close(d->fd);
    (void)pthread_mutex_destroy(&d->lock);
    skf_free(d);
}

enum skf_err skf_draft_commit(struct skf_draft *take_d, struct skf_why *why)
{
    struct skf_draft *d = take_d;
    int sys = file_hooked("fsync", d->path);
    if (!sys && fsync(d->fd) != 0)
        sys = errno;
    if (!sys)
        sys = file_hooked("rename", d->path);
    if (!sys && rename(d->temp, d->path) != 0)
        sys = errno;
    if (sys) {
        enum skf_err e = skf_fail_errno(why, sys, "%s: cannot be written", d->path);
        skf_draft_abort(d);
        return e;
    }
    enum skf_err e = skf_sync_folder(d->path, why);
    draft_free(d);
    return e;
}

void skf_draft_abort(struct skf_draft *take_d)
{
    if (!take_d)
        return;
    if (take_d->fd >= 0 && !file_hooked("unlink", take_d->temp)) /* while it is locked: afterwards it may be another's */
        (void)unlink(take_d->temp);
    draft_free(take_d);
}

void skf_draft_leave(struct skf_draft *take_d)
{
    if (take_d)
        draft_free(take_d);
}

void skf_draft_sweep(const char *dir)
{
    char path[PATH_MAX];
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n > 5 && strcmp(f->d_name + n - 5, SUFFIX) == 0 && skf_path(path, sizeof path, dir, f->d_name) == SKF_OK)
            (void)unlink(path);
    }
    if (d)
        (void)closedir(d);
}

/* "NAME.", hexadecimal digits and dots, ".part". */
static bool is_draft_of(const char *file, const char *name)
{
    size_t n = strlen(file), k = strlen(name), end = sizeof SUFFIX - 1;
    if (n <= k + 1 + end || memcmp(file, name, k) != 0 || file[k] != '.' || strcmp(file + n - end, SUFFIX) != 0)
        return false;
    const char *p = file + k + 1, *last = file + n - end;
    while (p < last) { /* a draft's own draft has the suffix twice */
        p += strspn(p, "0123456789abcdef.");
        if (p < last && strncmp(p, &SUFFIX[1], end - 1) != 0)
            return false;
        p += p < last ? end - 1 : 0;
    }
    return true;
}

void skf_draft_sweep_of(const char *path, const char *keep)
{
    char dir[PATH_MAX], temp[PATH_MAX];
    const char *name, *kept = keep ? strrchr(keep, '/') : NULL;
    kept = kept ? kept + 1 : keep;
    if (split(path, dir, &name, NULL) != SKF_OK)
        return;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        if (!is_draft_of(f->d_name, name) || (kept && strcmp(f->d_name, kept) == 0) ||
            skf_path(temp, sizeof temp, dir, f->d_name) != SKF_OK)
            continue;
        int fd = open(temp, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(fd, temp))
            (void)unlink(temp);
        if (fd >= 0)
            (void)close(fd);
    }
    if (d)
        (void)closedir(d);
}
