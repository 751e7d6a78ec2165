/*
 * The builder's spool: payloads are known before the index is, but stand behind it, so they wait in an unnamed file on the
 * disk that the delta will lie on.  Nothing of it lasts, so it needs no syncing.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "delta/build_priv.h"

enum skf_err build_spool_open(struct build_spool *s, const char *beside, struct skf_why *why)
{
    char dir[PATH_MAX], name[PATH_MAX];
    const char *slash = strrchr(beside, '/');
    int n = slash ? snprintf(dir, sizeof dir, "%.*s", slash == beside ? 1 : (int)(slash - beside), beside)
                  : snprintf(dir, sizeof dir, ".");
    if (n < 0 || (size_t)n >= sizeof dir || skf_path(name, sizeof name, dir, ".skd.XXXXXX") != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", beside);
    s->beside = beside;
    s->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        s->fd = mkostemp(name, O_CLOEXEC);
        if (s->fd >= 0)
            (void)unlink(name);
    }
    return s->fd >= 0 ? SKF_OK : skf_fail_errno(why, errno, "%s: cannot be written", beside);
}

void build_spool_close(struct build_spool *s)
{
    if (s->fd >= 0)
        (void)close(s->fd);
    s->fd = -1;
}

enum skf_err build_spool_put(struct build_spool *s, const void *p, size_t n, uint64_t *at, struct skf_why *why)
{
    const uint8_t *from = p;
    *at = atomic_fetch_add(&s->end, n);
    for (uint64_t to = *at; s->fd >= 0 && n;) {
        ssize_t put = pwrite(s->fd, from, n, (off_t)to);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return skf_fail_errno(why, errno, "%s: no room for the delta's payloads", s->beside);
        from += put;
        to += (uint64_t)put;
        n -= (size_t)put;
    }
    return SKF_OK;
}

enum skf_err build_spool_get(const struct build_spool *s, uint64_t at, void *p, size_t n, struct skf_why *why)
{
    for (uint8_t *to = p; n;) {
        ssize_t got = pread(s->fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return skf_fail_errno(why, got < 0 ? errno : EIO, "the delta's payloads cannot be read back");
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return SKF_OK;
}
