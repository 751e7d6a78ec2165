/*
 * Frames between the processes of one box.  One frame is
 *
 *     u32le length, at most SKF_FRAME_MAX | length bytes of packed protobuf
 *
 * A time limit is kept with poll() and calls that never block, whatever the descriptor's own mode is.
 */
#include "proto/frame.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

#define REST_MS                                                                                                        \
    10000u /* a frame whose first byte has gone must be whole after this, or after a longer limit of the caller */

struct wait {
    uint64_t until; /* skf_now_ns; 0 for ever */
};

static struct wait wait_of(unsigned ms)
{
    return (struct wait){ms ? skf_now_ns() + (uint64_t)ms * 1000000u : 0};
}

static enum skf_err wait_for(int fd, short what, const struct wait *w)
{
    for (;;) {
        int ms = -1;
        if (w->until) {
            uint64_t now = skf_now_ns();
            if (now >= w->until)
                return SKF_ERR_TIMEOUT;
            ms = (int)SKF_MIN((w->until - now) / 1000000u + 1, (uint64_t)INT_MAX);
        }
        struct pollfd p = {fd, what, 0};
        int n = poll(&p, 1, ms);
        if (n > 0)
            return p.revents & POLLNVAL ? SKF_ERR_ARG : SKF_OK; /* hang-ups show themselves in the call that follows */
        if (n < 0 && errno != EINTR)
            return SKF_ERR_IO;
    }
}

static bool is_again(int e)
{
    return e == EAGAIN || e == EWOULDBLOCK || e == EINTR;
}

/* Reads n bytes. Once the first has come, a time-out is a broken peer: the rest of the frame would be taken for the
 * next. */
static enum skf_err read_all(int fd, struct wait *w, unsigned timeout_ms, bool *begun, uint8_t *to, size_t n)
{
    while (n > 0) {
        enum skf_err e = wait_for(fd, POLLIN, w);
        if (e != SKF_OK)
            return e == SKF_ERR_TIMEOUT && *begun ? SKF_ERR_NET : e;
        ssize_t got = recv(fd, to, n, MSG_DONTWAIT);
        if (got < 0 && errno == ENOTSOCK)
            got = read(fd, to, n);
        if (got < 0 && is_again(errno))
            continue;
        if (got <= 0)
            return SKF_ERR_NET;
        if (!*begun && timeout_ms)
            *w = wait_of(SKF_MAX(timeout_ms, REST_MS));
        *begun = true;
        to += got;
        n -= (size_t)got;
    }
    return SKF_OK;
}

enum skf_err skf_frame_read(int fd, unsigned timeout_ms, struct skf_buf *out)
{
    uint8_t head[4];
    bool begun = false;
    struct wait w = wait_of(timeout_ms);
    skf_buf_clear(out);
    SKF_TRY(read_all(fd, &w, timeout_ms, &begun, head, sizeof head));
    size_t n = skf_le32(head);
    if (n > SKF_FRAME_MAX)
        return SKF_ERR_LIMIT;
    if (n == 0)
        return SKF_OK;
    SKF_TRY(skf_buf_reserve(out, n));
    SKF_TRY(read_all(fd, &w, timeout_ms, &begun, out->data, n));
    out->len = n;
    return SKF_OK;
}

/* Writes what the descriptor takes now. A pipe has no call that does not block but a write no larger than PIPE_BUF. */
static ssize_t write_some(int fd, const struct iovec *v, int count)
{
    struct msghdr m = {.msg_iov = (struct iovec *)v, .msg_iovlen = (size_t)count};
    ssize_t n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK)
        n = write(fd, v[0].iov_base, SKF_MIN(v[0].iov_len, (size_t)PIPE_BUF));
    return n;
}

enum skf_err skf_frame_write(int fd, unsigned timeout_ms, const void *p, size_t n)
{
    uint8_t head[4];
    if (n > SKF_FRAME_MAX)
        return SKF_ERR_LIMIT;
    skf_put_le32(head, (uint32_t)n);
    struct iovec part[2] = {{head, sizeof head}, {(void *)p, n}};
    struct wait w = wait_of(timeout_ms);
    bool begun = false;
    for (int i = 0; i < 2;) {
        if (part[i].iov_len == 0) {
            i++;
            continue;
        }
        enum skf_err e = wait_for(fd, POLLOUT, &w);
        if (e != SKF_OK)
            return e == SKF_ERR_TIMEOUT && begun ? SKF_ERR_NET : e;
        ssize_t put = write_some(fd, part + i, 2 - i);
        if (put < 0 && is_again(errno))
            continue;
        if (put < 0)
            return SKF_ERR_NET;
        if (!begun && timeout_ms)
            w = wait_of(SKF_MAX(timeout_ms, REST_MS));
        begun = true;
        for (int k = i; k < 2 && put > 0; k++) {
            size_t took = SKF_MIN((size_t)put, part[k].iov_len);
            part[k].iov_base = (uint8_t *)part[k].iov_base + took;
            part[k].iov_len -= took;
            put -= (ssize_t)took;
        }
    }
    return SKF_OK;
}

/* ---- Unix sockets ------------------------------------------------------------------------------------------------ */

static enum skf_err address_of(const char *path, struct sockaddr_un *a, struct skf_why *why)
{
    size_t n = strlen(path);
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (n == 0 || n >= sizeof a->sun_path)
        return skf_fail(why, SKF_ERR_ARG, "%s: a socket's path has 1 to %zu bytes; use a shorter folder", path,
                        sizeof a->sun_path - 1);
    memcpy(a->sun_path, path, n + 1);
    return SKF_OK;
}

static int connect_to(int fd, const struct sockaddr_un *a)
{
    int rc;
    do
        rc = connect(fd, (const struct sockaddr *)a, sizeof *a);
    while (rc != 0 && errno == EINTR);
    return rc;
}

enum skf_err skf_unix_connect(const char *path, int *fd, struct skf_why *why)
{
    struct sockaddr_un a;
    *fd = -1;
    SKF_TRY(address_of(path, &a, why));
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (connect_to(s, &a) != 0) {
        int sys = errno;
        close(s);
        if (sys == ECONNREFUSED)
            return skf_fail(why, SKF_ERR_NET, "%s: nobody listens there", path);
        return skf_fail_errno(why, sys, "%s", path);
    }
    *fd = s;
    return SKF_OK;
}

/* True when the path is a socket that refuses connections: left behind by a process that was killed. */
static bool is_stale(const char *path, const struct sockaddr_un *a)
{
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return false;
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return false;
    bool refused = connect_to(s, a) != 0 && errno == ECONNREFUSED;
    close(s);
    return refused;
}

enum skf_err skf_unix_listen(const char *path, int *fd, struct skf_why *why)
{
    struct sockaddr_un a;
    *fd = -1;
    SKF_TRY(address_of(path, &a, why));
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return skf_fail_errno(why, errno, "%s", path);
    /* Linux gives the bound file the mode of the socket's own inode: no moment in which others could connect. */
    int rc = fchmod(s, 0600);
    if (rc == 0)
        rc = bind(s, (struct sockaddr *)&a, sizeof a);
    if (rc != 0 && errno == EADDRINUSE) {
        if (is_stale(path, &a) && unlink(path) == 0)
            rc = bind(s, (struct sockaddr *)&a, sizeof a);
        else
            errno = EADDRINUSE;
    }
    if (rc == 0)
        rc = listen(s, 64);
    if (rc != 0) {
        int sys = errno;
        close(s);
        return skf_fail_errno(why, sys, "%s", path);
    }
    *fd = s;
    return SKF_OK;
}
