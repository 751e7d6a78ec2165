/* What the parts of the server share: http.c has the server and its threads, reply.c the answers, conns.c who waits. */
#ifndef SKF_HTTP_HTTP_PRIV_H
#define SKF_HTTP_HTTP_PRIV_H

#include <microhttpd.h>
#include <pthread.h>

#include "base/buf.h"
#include "http/http.h"

enum { HTTP_HEADERS_MAX = 16, HTTP_BODIES_MAX = 64 << 20 };

/* One way in, and its connections: those that wait for a request, from who has waited longest. */
struct http_door {
    struct skf_http *h;
    struct MHD_Daemon *daemon; /* NULL: none */
    struct http_conn *oldest, *newest;
    unsigned n_open, n_waiting, max;
};

struct skf_http {
    struct http_door doors[2]; /* the port, and the Unix socket */
    char unix_path[108];       /* "": none; removed at the end */
    struct skf_http_route *routes;
    size_t n_routes, body_limit, stream_limit;
    int watch_fd, stop_fd; /* epoll of suspended clients; written to end the watcher */
    unsigned port;
    pthread_t watcher;
    bool is_watching;

    pthread_mutex_t lock; /* what follows, and every request's refs and list */
    pthread_cond_t idle;  /* the last request has gone */
    struct skf_http_req *live;
    uint64_t next_id;
    size_t body_bytes;
    bool closing;
};

struct http_header {
    char *name, *value;
};

struct skf_http_req {
    struct skf_http *h;
    struct skf_http_req *prev, *next;
    unsigned refs; /* one by libmicrohttpd, one by the holder */
    uint64_t id;
    char *path;
    const struct skf_http_route *route;
    struct skf_buf body;
    unsigned refused; /* status to answer instead of calling the handler */
    bool called;

    pthread_mutex_t lock;        /* what follows */
    struct MHD_Connection *conn; /* NULL when libmicrohttpd has done with the request */
    struct MHD_Response *resp;
    unsigned status;
    bool queued, suspended, streaming, ended, cut, gone, held;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    struct skf_buf out; /* of a stream, not yet taken from `sent` on */
    size_t sent;
    void (*gone_fn)(void *ctx, uint64_t id);
    void *gone_ctx;
};

/* For libmicrohttpd, with the door; and whether this connection now waits for a request. On the door's own thread. */
void skf_http_on_connection(void *door, struct MHD_Connection *conn, void **socket_context, enum MHD_ConnectionNotificationCode what);
void skf_http_wait(struct http_door *d, struct MHD_Connection *conn, bool is_waiting);

/* All with r->lock held. */
void skf_http_suspend_(struct skf_http_req *r); /* on the server's thread */
void skf_http_resume_(struct skf_http_req *r);  /* from anywhere; nothing when it is not suspended */
void skf_http_unref_(struct skf_http_req *r);   /* this one without the lock */

#endif
