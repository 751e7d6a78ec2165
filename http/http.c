/* The server: libmicrohttpd's one thread, the watcher of suspended clients, requests from their first byte to their last. */
#include "http/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/util.h"
#include "http/http_priv.h"

/* ---- one request ------------------------------------------------------------------------------------------------------- */
static void free_req(struct skf_http_req *r)
{
    if (r->resp)
        MHD_destroy_response(r->resp);
    for (size_t i = 0; i < r->n_headers; i++) {
        skf_free(r->headers[i].name);
        skf_free(r->headers[i].value);
    }
    skf_buf_free(&r->body);
    skf_buf_free(&r->out);
    skf_free(r->path);
    pthread_mutex_destroy(&r->lock);
    skf_free(r);
}

void skf_http_unref_(struct skf_http_req *r)
{
    struct skf_http *h = r->h;
    pthread_mutex_lock(&h->lock);
    bool last = --r->refs == 0;
    if (last) {
        *(r->prev ? &r->prev->next : &h->live) = r->next;
        if (r->next)
            r->next->prev = r->prev;
        h->body_bytes -= r->body.cap;
        if (!h->live)
            pthread_cond_broadcast(&h->idle);
    }
    pthread_mutex_unlock(&h->lock);
    if (last)
        free_req(r);
}

/* The route for this request, or NULL with the status that says why not and, for 405, the methods there are. */
static const struct skf_http_route *find_route(const struct skf_http *h, const char *method, const char *path, unsigned *status,
                                               char allow[64])
{
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    *status = 404;
    size_t used = 0;
    for (size_t i = 0; i < h->n_routes; i++) {
        const struct skf_http_route *t = &h->routes[i];
        size_t n = strlen(t->path);
        bool prefix = n && t->path[n - 1] == '*';
        if (prefix ? strncmp(path, t->path, n - 1) != 0 : strcmp(path, t->path) != 0)
            continue;
        if (strcmp(method, t->method) == 0)
            return t;
        *status = 405;
        used += (size_t)snprintf(allow + used, 64 - used, "%s%s", used ? ", " : "", t->method);
        if (used >= 64)
            used = 63;
    }
    return NULL;
}

static struct skf_http_req *new_req(struct skf_http *h, struct MHD_Connection *conn, const char *url)
{
    struct skf_http_req *r = skf_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    if (pthread_mutex_init(&r->lock, NULL)) {
        skf_free(r);
        return NULL;
    }
    r->h = h;
    r->conn = conn;
    r->refs = 1;
    r->body = SKF_BUF_INIT(h->body_limit);
    r->out = SKF_BUF_INIT(2 * h->stream_limit);
    r->path = skf_strdup(url);
    if (!r->path) {
        free_req(r);
        return NULL;
    }
    pthread_mutex_lock(&h->lock);
    r->id = ++h->next_id;
    r->next = h->live;
    if (h->live)
        h->live->prev = r;
    h->live = r;
    pthread_mutex_unlock(&h->lock);
    return r;
}

static void refuse(struct skf_http_req *r)
{
    static const struct {
        unsigned status;
        const char *type, *text;
    } texts[] = {{404, "invalid_request_error", "no such path"},
                 {405, "invalid_request_error", "method not allowed"},
                 {413, "invalid_request_error", "the request's body is too large"},
                 {503, "server_error", "the server is busy or closing"}};
    for (size_t i = 0; i < SKF_COUNT(texts); i++)
        if (texts[i].status == r->refused && skf_http_reply_error(r, r->refused, texts[i].type, "%s", texts[i].text) != SKF_OK)
            skf_http_cut(r);
}

/* The head is here: what needs no body to be refused is refused before it is sent. */
static enum MHD_Result begin(struct skf_http *h, struct MHD_Connection *conn, const char *url, const char *method, void **cls)
{
    char allow[64] = "";
    struct skf_http_req *r = new_req(h, conn, url);
    if (!r)
        return MHD_NO;
    *cls = r;
    r->route = find_route(h, method, url, &r->refused, allow);
    if (r->route)
        r->refused = 0;
    if (allow[0] && skf_http_set_header(r, "Allow", allow) != SKF_OK)
        return MHD_NO;
    const char *length = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Content-Length");
    if (!length || strtoull(length, NULL, 10) <= h->body_limit)
        return MHD_YES;
    r->refused = r->refused ? r->refused : 413;
    r->called = true;
    refuse(r);
    pthread_mutex_lock(&r->lock);
    r->queued = r->resp != NULL;
    enum MHD_Result ok = r->resp ? MHD_queue_response(conn, r->status, r->resp) : MHD_NO;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* Keeps a part of the body; what is over a limit is read and dropped, since an answer can only be given behind the body. */
static void take_body(struct skf_http_req *r, const char *p, size_t n)
{
    struct skf_http *h = r->h;
    size_t before = r->body.cap;
    if (r->refused)
        return;
    pthread_mutex_lock(&h->lock);
    bool busy = h->body_bytes > HTTP_BODIES_MAX;
    pthread_mutex_unlock(&h->lock);
    enum skf_err e = busy ? SKF_ERR_NOMEM : skf_buf_put(&r->body, p, n);
    pthread_mutex_lock(&h->lock);
    h->body_bytes += r->body.cap - before;
    pthread_mutex_unlock(&h->lock);
    if (e != SKF_OK)
        r->refused = e == SKF_ERR_LIMIT ? 413 : 503;
}

static void dispatch(struct skf_http_req *r)
{
    pthread_mutex_lock(&r->h->lock);
    if (r->h->closing)
        r->refused = 503;
    pthread_mutex_unlock(&r->h->lock);
    if (r->refused)
        refuse(r);
    else
        r->route->fn(r->route->ctx, r);
    pthread_mutex_lock(&r->lock);
    bool forgotten = !r->held && !r->resp;
    pthread_mutex_unlock(&r->lock);
    if (forgotten && skf_http_reply_error(r, 500, "server_error", "no answer") != SKF_OK)
        skf_http_cut(r);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                                  const char *data, size_t *n, void **cls)
{
    (void)version;
    struct http_door *d = ctx;
    struct skf_http_req *r = *cls;
    if (!r)
        return begin(d->h, conn, url, method, cls);
    if (*n) {
        take_body(r, data, *n);
        *n = 0;
        return MHD_YES;
    }
    if (!r->called) {
        r->called = true;
        skf_http_wait(d, conn, false);
        dispatch(r);
    }
    enum MHD_Result ok = MHD_YES;
    pthread_mutex_lock(&r->lock);
    if (r->gone || (r->cut && !r->resp)) {
        ok = MHD_NO;
    } else if (r->resp && !r->queued) {
        r->queued = true;
        ok = MHD_queue_response(conn, r->status, r->resp);
    } else if (!r->resp) {
        skf_http_suspend_(r);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void on_completed(void *ctx, struct MHD_Connection *conn, void **cls, enum MHD_RequestTerminationCode why)
{
    struct skf_http_req *r = *cls;
    skf_http_wait(ctx, conn, true);
    if (!r)
        return;
    *cls = NULL;
    pthread_mutex_lock(&r->lock);
    bool whole = why == MHD_REQUEST_TERMINATED_COMPLETED_OK && (!r->streaming || r->ended);
    bool tell = !whole && !r->gone && r->held && r->gone_fn;
    r->gone = r->gone || !whole;
    r->conn = NULL;
    pthread_mutex_unlock(&r->lock);
    if (tell)
        r->gone_fn(r->gone_ctx, r->id);
    skf_http_unref_(r);
}

/* ---- suspended clients ------------------------------------------------------------------------------------------------- */
static int fd_of(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

void skf_http_suspend_(struct skf_http_req *r)
{
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = r->id};
    MHD_suspend_connection(r->conn);
    r->suspended = true;
    /* When it cannot be watched, the client's leaving is seen at the next write. */
    (void)epoll_ctl(r->h->watch_fd, EPOLL_CTL_ADD, fd_of(r->conn), &ev);
}

void skf_http_resume_(struct skf_http_req *r)
{
    if (!r->suspended || !r->conn)
        return;
    (void)epoll_ctl(r->h->watch_fd, EPOLL_CTL_DEL, fd_of(r->conn), NULL);
    r->suspended = false;
    MHD_resume_connection(r->conn);
}

/* The client of request `id` has left, or the server closes: whoever holds the request is told, and the connection ends. */
static void lose(struct skf_http *h, uint64_t id)
{
    pthread_mutex_lock(&h->lock);
    struct skf_http_req *r = h->live;
    while (r && r->id != id)
        r = r->next;
    if (r)
        r->refs++;
    pthread_mutex_unlock(&h->lock);
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    bool waits = r->suspended, tell = waits && !r->gone && r->held && r->gone_fn;
    r->gone = r->gone || waits;
    skf_http_resume_(r);
    pthread_mutex_unlock(&r->lock);
    if (tell)
        r->gone_fn(r->gone_ctx, r->id);
    skf_http_unref_(r);
}

static void *watch(void *ctx)
{
    struct skf_http *h = ctx;
    struct epoll_event ev[16];
    for (;;) {
        int n = epoll_wait(h->watch_fd, ev, (int)SKF_COUNT(ev), -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.u64 == 0)
                return NULL;
            lose(h, ev[i].data.u64);
        }
        if (n < 0 && errno != EINTR)
            return NULL;
    }
}

/* ---- the server -------------------------------------------------------------------------------------------------------- */
/* Splits "host:port" or "[host]:port". */
static bool is_split(const char *listen_at, char host[256], char port[16])
{
    const char *colon = strrchr(listen_at, ':');
    if (!colon || colon == listen_at || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    size_t n = (size_t)(colon - listen_at);
    if (listen_at[0] == '[') {
        if (n < 3 || listen_at[n - 1] != ']')
            return false;
        listen_at++;
        n -= 2;
    }
    if (n >= 256 || memchr(listen_at, '[', n))
        return false;
    snprintf(host, 256, "%.*s", (int)n, listen_at);
    snprintf(port, 16, "%s", colon + 1);
    return strtoul(port, NULL, 10) <= 65535;
}

static enum skf_err listen_on(const char *at, int *fd, unsigned *port, struct skf_why *why)
{
    char host[256], service[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    int one = 1;
    if (!is_split(at, host, service))
        return skf_fail(why, SKF_ERR_ARG, "%s is no address to listen on; it should be like 127.0.0.1:8080", at);
    int bad = getaddrinfo(host, service, &hints, &found);
    if (bad)
        return skf_fail(why, SKF_ERR_ARG, "%s: %s", at, gai_strerror(bad));
    enum skf_err e = SKF_OK;
    *fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0 || setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(*fd, found->ai_addr, found->ai_addrlen) ||
        listen(*fd, 256) || getsockname(*fd, (struct sockaddr *)&bound, &n))
        e = skf_fail_errno(why, errno, "cannot listen on %s", at);
    else
        *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
    freeaddrinfo(found);
    if (e != SKF_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return e;
}

static void free_server(struct skf_http *h)
{
    if (h->watch_fd >= 0)
        close(h->watch_fd);
    if (h->stop_fd >= 0)
        close(h->stop_fd);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->idle);
    skf_free(h->routes);
    skf_free(h);
}

static enum skf_err start_watcher(struct skf_http *h, struct skf_why *why)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 0};
    h->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    h->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (h->watch_fd < 0 || h->stop_fd < 0 || epoll_ctl(h->watch_fd, EPOLL_CTL_ADD, h->stop_fd, &ev))
        return skf_fail_errno(why, errno, "cannot watch connections");
    int bad = pthread_create(&h->watcher, NULL, watch, h);
    if (bad)
        return skf_fail_errno(why, bad, "cannot start a thread");
    h->is_watching = true;
    return SKF_OK;
}

static void stop_watcher(struct skf_http *h)
{
    uint64_t one = 1;
    if (!h->is_watching)
        return;
    while (write(h->stop_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    pthread_join(h->watcher, NULL);
    h->is_watching = false;
}

static struct skf_http *new_server(const struct skf_http_opts *o, const struct skf_http_route *routes, size_t n)
{
    struct skf_http *h = skf_calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->watch_fd = h->stop_fd = -1;
    h->doors[0].h = h->doors[1].h = h;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->idle, NULL);
    h->body_limit = o->body_limit ? o->body_limit : 1 << 20;
    h->stream_limit = o->stream_limit ? o->stream_limit : 256 << 10;
    h->routes = skf_memdup(routes, n * sizeof *routes);
    h->n_routes = n;
    if (!h->routes) {
        free_server(h);
        return NULL;
    }
    return h;
}

unsigned skf_http_port(const struct skf_http *h) { return h->port; }

unsigned skf_http_connections(const struct skf_http *h)
{
    unsigned all = 0;
    for (int i = 0; i < 2; i++) {
        struct MHD_Daemon *daemon = h->doors[i].daemon;
        const union MHD_DaemonInfo *info = daemon ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS) : NULL;
        all += info ? info->num_connections : 0;
    }
    return all;
}

/* Every waiting request is lost; one that was on its way into waiting is met by the next round. */
static void lose_all(struct skf_http *h)
{
    pthread_mutex_lock(&h->lock);
    h->closing = true;
    while (h->live) {
        uint64_t ids[64];
        size_t n = 0;
        for (struct skf_http_req *r = h->live; r && n < SKF_COUNT(ids); r = r->next)
            ids[n++] = r->id;
        pthread_mutex_unlock(&h->lock);
        for (size_t i = 0; i < n; i++)
            lose(h, ids[i]);
        pthread_mutex_lock(&h->lock);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        bool waiting = false; /* for requests that nobody holds, stopping the daemon is enough */
        for (struct skf_http_req *r = h->live; r; r = r->next) {
            pthread_mutex_lock(&r->lock);
            waiting = waiting || r->held || r->suspended;
            pthread_mutex_unlock(&r->lock);
        }
        if (!waiting)
            break;
        pthread_cond_timedwait(&h->idle, &h->lock, &until);
    }
    pthread_mutex_unlock(&h->lock);
}

/* The path is taken over from one that nobody listens on any more. */
static enum skf_err listen_at(struct skf_http *h, const char *path, int *fd, struct skf_why *why)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof at.sun_path)
        return skf_fail(why, SKF_ERR_ARG, "%s: a Unix socket's path has at most %zu bytes", path, sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, strlen(path));
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return skf_fail(why, SKF_ERR_BUSY, "%s is there already and is no socket", path);
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool is_free = probe >= 0 && connect(probe, (struct sockaddr *)&at, sizeof at) != 0 && errno == ECONNREFUSED;
        if (probe >= 0)
            close(probe);
        if (!is_free)
            return skf_fail(why, SKF_ERR_BUSY, "%s: somebody listens there", path);
        (void)unlink(path);
    }
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0 || fchmod(*fd, 0600) || bind(*fd, (struct sockaddr *)&at, sizeof at) || chmod(path, 0660) || listen(*fd, 256))
        return skf_fail_errno(why, errno, "cannot listen on %s", path);
    memcpy(h->unix_path, at.sun_path, sizeof h->unix_path);
    return SKF_OK;
}

/* A PEM file as a string; skf_free. */
static enum skf_err read_pem(const char *path, uint8_t **pem, struct skf_why *why)
{
    size_t n = 0;
    SKF_TRY(skf_file_read(path, 1 << 20, pem, &n, why));
    return memchr(*pem, 0, n) ? skf_fail(why, SKF_ERR_FORMAT, "%s is no PEM file", path) : SKF_OK;
}

/* Serves from fd, which becomes the daemon's; with TLS where pem says so. */
static enum skf_err start_daemon(struct http_door *d, const struct skf_http_opts *o, int fd, uint8_t *const *pem, struct skf_why *why)
{
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME | (pem ? MHD_USE_TLS : 0u);
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, pem ? pem[0] : NULL},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, pem ? pem[1] : NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL},
    };
    d->max = o->max_connections ? o->max_connections : 1024u;
    d->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, d, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, d, MHD_OPTION_NOTIFY_CONNECTION, skf_http_on_connection, d, MHD_OPTION_CONNECTION_LIMIT,
                                 d->max, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_seconds ? o->idle_seconds : 60u,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(16 << 10), MHD_OPTION_ARRAY, pem ? tls : tls + 3, MHD_OPTION_END);
    if (d->daemon)
        return SKF_OK;
    close(fd);
    if (pem)
        return skf_fail(why, SKF_ERR_ARG, "cannot serve TLS on %s with %s and %s: are they a certificate and its key in PEM?", o->listen, o->cert, o->key);
    return skf_fail(why, SKF_ERR_IO, "cannot start an HTTP server on %s", o->listen);
}

static void stop_daemons(struct skf_http *h)
{
    int fd[2] = {-1, -1};
    for (int i = 0; i < 2; i++)
        if (h->doors[i].daemon)
            fd[i] = MHD_quiesce_daemon(h->doors[i].daemon);
    lose_all(h);
    for (int i = 0; i < 2; i++) {
        if (h->doors[i].daemon)
            MHD_stop_daemon(h->doors[i].daemon);
        if (fd[i] != MHD_INVALID_SOCKET)
            close(fd[i]);
    }
    if (h->unix_path[0])
        (void)unlink(h->unix_path);
}

enum skf_err skf_http_open(const struct skf_http_opts *o, const struct skf_http_route *routes, size_t n, struct skf_http **out,
                           struct skf_why *why)
{
    enum skf_err e;
    uint8_t *pem[2] = {NULL, NULL};
    int fd = -1;
    struct skf_http *h = new_server(o, routes, n);
    if (!h)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (!o->cert != !o->key)
        SKF_GO(e, skf_fail(why, SKF_ERR_ARG, "a certificate and its key are given together"));
    if (o->cert)
        SKF_GO(e, read_pem(o->cert, &pem[0], why));
    if (o->cert)
        SKF_GO(e, read_pem(o->key, &pem[1], why));
    SKF_GO(e, start_watcher(h, why));
    SKF_GO(e, listen_on(o->listen, &fd, &h->port, why));
    SKF_GO(e, start_daemon(&h->doors[0], o, fd, o->cert ? pem : NULL, why));
    if (o->unix_path) {
        SKF_GO(e, listen_at(h, o->unix_path, &fd, why));
        SKF_GO(e, start_daemon(&h->doors[1], o, fd, NULL, why));
    }
    *out = h;
out:
    if (pem[1])
        skf_wipe(pem[1], strlen((const char *)pem[1]));
    skf_free(pem[0]);
    skf_free(pem[1]);
    if (e != SKF_OK) {
        stop_daemons(h);
        stop_watcher(h);
        free_server(h);
    }
    return e;
}

void skf_http_close(struct skf_http *h)
{
    if (!h)
        return;
    stop_daemons(h);
    stop_watcher(h);
    free_server(h);
}
