/*
 * A thin layer over libmicrohttpd: routes, bodies with a limit, JSON, server-sent events.
 *
 * One thread serves all connections, so that an idle one costs a few KiB and no thread.  Handlers run on that thread and must not
 * block: what takes time is held (skf_http_hold) and answered later, whole or as a stream, from any thread.  While a held request
 * waits, its connection is suspended and a second thread watches for the client going away.
 *
 * What hostile clients can make it use is bounded: connections (max_connections), bytes of headers (16 KiB a connection), bytes of
 * bodies (body_limit each, 64 MiB together), bytes of a stream that its reader has not taken (stream_limit), time without a byte
 * (idle_seconds).  Nor can connections that ask nothing keep others out: when all but a sixteenth of the places are taken, the one that
 * has waited longest for a request's end is closed for each that comes.
 *
 * Locks: a call below takes the request's own lock and libmicrohttpd's for a moment and calls nobody back, so it may be made under
 * the caller's locks.  `gone` is called with none held.
 */
#ifndef SKF_HTTP_HTTP_H
#define SKF_HTTP_HTTP_H

#include "base/err.h"
#include "base/json.h"

struct skf_http;     /* a server */
struct skf_http_req; /* one request; lives until its handler returned, or until it is released when it was held */

struct skf_http_opts {
    const char *listen;       /* "127.0.0.1:8080", "[::1]:0" */
    const char *unix_path;    /* and a Unix socket, for the owner and its group; NULL: none. One that nobody listens on any more is replaced */
    const char *cert, *key;   /* paths of PEM files, the certificate with what leads to its CA; TLS 1.2 or newer on `listen` then, and nothing else. NULL: HTTP */
    size_t body_limit;        /* bytes; 0 for 1 MiB */
    unsigned max_connections; /* 0 for 1,024 */
    unsigned idle_seconds;    /* 0 for 60 */
    size_t stream_limit;      /* bytes; 0 for 256 KiB */
};
typedef void skf_http_handler(void *ctx, struct skf_http_req *r);
struct skf_http_route {
    const char *method, *path; /* a path ending in '*' matches its prefix; a GET route answers HEAD too */
    skf_http_handler *fn;
    void *ctx;
};
/* Serves until closed. A path that no route has is answered 404, a method that its routes do not have 405 with Allow, a body over
 * the limit 413, all as OpenAI's errors. SKF_ERR_BUSY naming the address when the port is in use. Routes are copied, their strings not. */
SKF_MUST enum skf_err skf_http_open(const struct skf_http_opts *o, const struct skf_http_route *routes, size_t n,
                                    struct skf_http **h, struct skf_why *why);
unsigned skf_http_port(const struct skf_http *h);
/* Takes no new connections, cuts the answers that are not finished (their `gone` is called), waits until every held request is
 * released, frees h. NULL is fine. */
void skf_http_close(struct skf_http *take_h);
unsigned skf_http_connections(const struct skf_http *h); /* open now, on both */

const char *skf_http_path(const struct skf_http_req *r);
const char *skf_http_header(const struct skf_http_req *r, const char *name); /* NULL when absent; in the handler only */
const void *skf_http_body(const struct skf_http_req *r, size_t *n);
uint64_t skf_http_id(const struct skf_http_req *r); /* never 0, never used again by this server */

/* Keeps the request beyond its handler's return, to be answered from any thread; skf_http_release gives it up (an answer begun but not
 * ended is then cut; none begun is a 500).  `gone` is called at most once, from a thread of the server, when the client left before
 * the whole answer was sent; it may come just after the release, which is why it is given the request's number and not the request.
 * A client that closes its sending side while it waits counts as gone. */
void skf_http_hold(struct skf_http_req *r, void (*gone)(void *ctx, uint64_t id), void *ctx);
void skf_http_release(struct skf_http_req *take_r);

/* A header of the answer, before it begins; at most 16. Name and value are copied. */
SKF_MUST enum skf_err skf_http_set_header(struct skf_http_req *r, const char *name, const char *value);

/* One answer a request: one of the replies, or begin, put..., end. SKF_ERR_STATE for a second answer, SKF_ERR_NET when the client is gone. */
SKF_MUST enum skf_err skf_http_reply(struct skf_http_req *r, unsigned status, const char *type, const void *p, size_t n);
SKF_MUST enum skf_err skf_http_reply_json(struct skf_http_req *r, unsigned status, skf_json *take_j);
/* {"error":{"message":...,"type":...,"param":null,"code":null}} as OpenAI's API says. */
SKF_MUST enum skf_err skf_http_reply_error(struct skf_http_req *r, unsigned status, const char *type, const char *fmt,
                                           ...) SKF_PRINTF(4, 5);
SKF_MUST enum skf_err skf_http_begin(struct skf_http_req *r, unsigned status, const char *type);
/* SKF_ERR_LIMIT when the reader is so slow that stream_limit would be passed; nothing was put then. */
SKF_MUST enum skf_err skf_http_put(struct skf_http_req *r, const void *p, size_t n);
void skf_http_end(struct skf_http_req *r); /* ends the stream well */
void skf_http_cut(struct skf_http_req *r); /* ends it by closing the connection, so that the client sees it was not whole */

#endif
