/*
 * Listening, accepting, closing.  A call is accepted on one of the queues and stays there.
 */
#include "wire/wire_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"

#define ACCEPTS        8 /* calls that the core may hand over at once on each queue */
#define UNARY_THREADS  4
#define QUEUES_MAX     64
#define STREAMS_A_PEER 512 /* calls on one connection */

struct accept {
    struct wire_op op;
    struct skf_wire_server *server;
    unsigned queue;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
};

struct skf_wire_server {
    grpc_server *core;
    struct wire_queue **queue;
    unsigned queues;
    struct wire_pool *pool;
    struct wire_live live;
    struct skf_wire_method *method; /* the last one is the health service */
    size_t methods;
    int port;
    struct accept *accept;
    struct wire_op op_down;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_down;
};

/* ---- health: grpc.health.v1.Health/Check, whose two messages are one field each ---------------------------------- */

static bool is_service(const struct skf_wire_server *s, const uint8_t *name, size_t n)
{
    for (size_t i = 0; i + 1 < s->methods; i++) {
        const char *path = s->method[i].path;
        if (strlen(path) > n + 1 && memcmp(path + 1, name, n) == 0 && path[n + 1] == '/')
            return true;
    }
    return n == 0;
}

static enum skf_err health(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                           size_t *answer_len, struct skf_why *why)
{
    static const uint8_t serving[2] = {0x08, 0x01}; /* status = SERVING */
    if (n > 0 && (n < 2 || p[0] != 0x0a || p[1] != n - 2 || n - 2 > 127))
        return skf_fail(why, SKF_ERR_ARG, "not a health check request");
    if (!is_service(ctx, n ? p + 2 : p, n ? n - 2 : 0))
        return skf_fail(why, SKF_ERR_NOT_FOUND, "no such service");
    *answer = skf_memdup(serving, sizeof serving);
    *answer_len = sizeof serving;
    return *answer ? SKF_OK : SKF_ERR_NOMEM;
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static void post_accept(struct accept *a)
{
    grpc_completion_queue *cq = wire_queue_cq(a->server->queue[a->queue]);
    wire_op_release(&a->op);
    (void)grpc_server_request_call(a->server->core, &a->call, &a->details, &a->metadata, cq, cq, &a->op);
}

static const struct skf_wire_method *find_method(const struct skf_wire_server *s, grpc_slice path)
{
    for (size_t i = 0; i < s->methods; i++)
        if (grpc_slice_str_cmp(path, s->method[i].path) == 0)
            return &s->method[i];
    return NULL;
}

static void dispatch(struct skf_wire_server *s, grpc_call *take_call, const struct skf_wire_method *m)
{
    struct skf_wire_stream *stream;
    if (!m)
        wire_refuse(take_call, &s->live, SKF_WIRE_UNIMPLEMENTED, "no such method");
    else if (m->unary)
        wire_unary_serve(take_call, &s->live, s->pool, m);
    else if (wire_stream_new(take_call, &s->live, true, &stream) == SKF_OK)
        wire_stream_serve(stream, m);
}

static void on_accept(struct wire_op *op, bool ok)
{
    struct accept *a = op->owner;
    struct skf_wire_server *s = a->server;
    if (!ok)
        return; /* the server is going down */
    grpc_call *call = a->call;
    const struct skf_wire_method *m = find_method(s, a->details.method);
    grpc_call_details_destroy(&a->details);
    grpc_metadata_array_destroy(&a->metadata);
    grpc_call_details_init(&a->details);
    grpc_metadata_array_init(&a->metadata);
    a->call = NULL;
    post_accept(a); /* first, so that the next call need not wait for what we do with this one */
    dispatch(s, call, m);
}

static void on_down(struct wire_op *op, bool ok)
{
    struct skf_wire_server *s = op->owner;
    (void)pthread_mutex_lock(&s->lock);
    s->is_down = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* The core says no more than "it failed": ask the system whether it is the address. */
static enum skf_err listen_failure(const struct skf_wire_server_opts *o, struct skf_why *why)
{
    char host[256];
    const char *colon = strrchr(o->listen, ':');
    size_t n = colon ? (size_t)(colon - o->listen) : 0;
    if (!colon || n >= sizeof host)
        return skf_fail(why, SKF_ERR_ARG, "%s: not an address of the form HOST:PORT", o->listen);
    bool is_v6 = n > 1 && o->listen[0] == '[' && colon[-1] == ']';
    (void)snprintf(host, sizeof host, "%.*s", (int)(is_v6 ? n - 2 : n), o->listen + is_v6);
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int rc = getaddrinfo(host, colon + 1, &want, &found);
    if (rc != 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: %s", o->listen, gai_strerror(rc));
    int sys = 0;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        int one = 1;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0)
            sys = errno;
        close(fd);
    }
    freeaddrinfo(found);
    if (sys != 0)
        return skf_fail_errno(why, sys, "%s", o->listen);
    return skf_fail(why, SKF_ERR_FORMAT, "%s, %s: not a certificate and its key, or not readable as such",
                    o->tls.cert_path, o->tls.key_path);
}

static enum skf_err copy_methods(struct skf_wire_server *s, const struct skf_wire_method *methods, size_t n)
{
    s->method = skf_calloc(n + 1, sizeof *s->method);
    if (!s->method)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        s->method[i] = methods[i];
        s->method[i].path = skf_strdup(methods[i].path);
        if (!s->method[i].path)
            return SKF_ERR_NOMEM;
        s->methods++;
    }
    s->method[n] =
        (struct skf_wire_method){.path = skf_strdup("/grpc.health.v1.Health/Check"), .unary = health, .ctx = s};
    if (!s->method[n].path)
        return SKF_ERR_NOMEM;
    s->methods++;
    return SKF_OK;
}

static enum skf_err listen_on(struct skf_wire_server *s, const struct skf_wire_server_opts *o, struct skf_why *why)
{
    struct wire_args args;
    grpc_server_credentials *creds;
    SKF_TRY(wire_server_creds(&o->tls, &creds, why));
    wire_args_common(&args, o->max_message, o->keepalive_ms);
    wire_args_int(&args, GRPC_ARG_ALLOW_REUSEPORT, 0); /* or a second server takes half of the connections in silence */
    wire_args_int(&args, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, o->keepalive_ms ? 10 : 5000);
    wire_args_int(&args, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    wire_args_int(&args, GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_A_PEER);
    wire_args_int(&args, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 20000);
    s->core = grpc_server_create(&args.list, NULL);
    for (unsigned i = 0; i < s->queues; i++)
        grpc_server_register_completion_queue(s->core, wire_queue_cq(s->queue[i]), NULL);
    s->port = grpc_server_add_http2_port(s->core, o->listen, creds);
    grpc_server_credentials_release(creds);
    return s->port > 0 ? SKF_OK : listen_failure(o, why);
}

static void post_accepts(struct skf_wire_server *s)
{
    for (unsigned i = 0; i < s->queues * ACCEPTS; i++) {
        struct accept *a = &s->accept[i];
        *a = (struct accept){.op = {on_accept, a}, .server = s, .queue = i % s->queues};
        grpc_call_details_init(&a->details);
        grpc_metadata_array_init(&a->metadata);
        post_accept(a);
    }
}

enum skf_err skf_wire_server_open(const struct skf_wire_server_opts *o, const struct skf_wire_method *methods, size_t n,
                                  struct skf_wire_server **out, struct skf_why *why)
{
    struct skf_wire_server *s = skf_calloc(1, sizeof *s);
    enum skf_err e = SKF_OK;
    *out = NULL;
    if (!s)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a server");
    wire_core_begin();
    wire_live_init(&s->live, o->max_streams ? o->max_streams : 20000);
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    unsigned queues = o->threads ? SKF_MIN(o->threads, (unsigned)QUEUES_MAX) : 2;
    s->queue = skf_calloc(queues, sizeof(struct wire_queue *));
    s->accept = skf_calloc((size_t)queues * ACCEPTS, sizeof *s->accept);
    if (!s->queue || !s->accept || copy_methods(s, methods, n) != SKF_OK)
        SKF_GO(e, skf_fail(why, SKF_ERR_NOMEM, "no memory for a server"));
    SKF_GO(e, wire_pool_open(UNARY_THREADS, &s->pool, why));
    for (; s->queues < queues; s->queues++)
        SKF_GO(e, wire_queue_open(&s->queue[s->queues], why));
    SKF_GO(e, listen_on(s, o, why));
    grpc_server_start(s->core);
    post_accepts(s);
    *out = s;
    s = NULL;
out:
    skf_wire_server_close(s);
    return e;
}

int skf_wire_server_port(const struct skf_wire_server *s)
{
    return s->port;
}

/* The order is the core's: shut down, cancel, no live calls, destroy, then the queues. */
static void core_down(struct skf_wire_server *s)
{
    s->op_down = (struct wire_op){on_down, s};
    wire_op_release(&s->op_down);
    grpc_server_shutdown_and_notify(s->core, wire_queue_cq(s->queue[0]), &s->op_down);
    wire_live_close(&s->live, SKF_WIRE_UNAVAILABLE, "the server closes");
    grpc_server_cancel_all_calls(s->core);
    wire_live_wait(&s->live);
    (void)pthread_mutex_lock(&s->lock);
    while (!s->is_down)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    (void)pthread_mutex_unlock(&s->lock);
    wire_live_wait(&s->live);
    grpc_server_destroy(s->core);
}

void skf_wire_server_close(struct skf_wire_server *s)
{
    if (!s)
        return;
    if (s->core)
        core_down(s);
    for (unsigned i = 0; i < s->queues; i++)
        wire_queue_close(s->queue[i]);
    for (unsigned i = 0; s->accept && i < s->queues * ACCEPTS; i++) {
        if (!s->accept[i].server)
            continue;
        grpc_call_details_destroy(&s->accept[i].details);
        grpc_metadata_array_destroy(&s->accept[i].metadata);
    }
    wire_pool_close(s->pool);
    for (size_t i = 0; s->method && i < s->methods; i++)
        skf_free((void *)s->method[i].path);
    wire_live_destroy(&s->live);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    skf_free(s->method);
    skf_free(s->accept);
    skf_free(s->queue);
    skf_free(s);
}
