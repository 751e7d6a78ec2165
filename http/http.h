/*
 * A thin layer over libmicrohttpd: routes, bodies with a limit, JSON, server-sent events.
 *
 * One thread a connection is not used: requests are answered from a bounded set of threads, and a handler that must wait
 * suspends by streaming (skf_http_stream) from a callback that may block up to its deadline.
 */
#ifndef SKF_HTTP_HTTP_H
#define SKF_HTTP_HTTP_H

#include "base/err.h"
#include "base/json.h"

struct skf_http;     /* a server */
struct skf_http_req; /* one request; lives until its handler returned and its answer ended */

struct skf_http_opts {
    const char *listen;      /* "127.0.0.1:8080", "[::1]:0" */
    size_t body_limit;       /* bytes; 0 for 1 MiB */
    unsigned max_connections; /* 0 for 1,024 */
    unsigned idle_seconds;   /* 0 for 60 */
};
typedef void skf_http_handler(void *ctx, struct skf_http_req *r);
struct skf_http_route {
    const char *method, *path; /* a path ending in '*' matches its prefix */
    skf_http_handler *fn;
    void *ctx;
};
/* SKF_ERR_BUSY naming the address when the port is in use. Routes are copied. */
SKF_MUST enum skf_err skf_http_open(const struct skf_http_opts *o, const struct skf_http_route *routes, size_t n,
                                    struct skf_http **h, struct skf_why *why);
unsigned skf_http_port(const struct skf_http *h);
void skf_http_close(struct skf_http *h); /* waits for running answers */

const char *skf_http_path(const struct skf_http_req *r);
const char *skf_http_header(const struct skf_http_req *r, const char *name); /* NULL when absent */
const void *skf_http_body(const struct skf_http_req *r, size_t *n);

/* Exactly one of these per request. */
SKF_MUST enum skf_err skf_http_reply(struct skf_http_req *r, unsigned status, const char *type, const void *p, size_t n);
SKF_MUST enum skf_err skf_http_reply_json(struct skf_http_req *r, unsigned status, skf_json *take_j);
/* {"error":{"message":…,"type":…,"code":…}} as OpenAI's API says. */
SKF_MUST enum skf_err skf_http_reply_error(struct skf_http_req *r, unsigned status, const char *type, const char *fmt,
                                           ...) SKF_PRINTF(4, 5);
/* A streamed answer: `next` is called again and again, may block, puts up to cap bytes and returns how many; 0 ends the
 * stream well, -1 cuts it. `done` is called once, last, also when the client went away (gone). */
SKF_MUST enum skf_err skf_http_stream(struct skf_http_req *r, unsigned status, const char *type,
                                      int64_t (*next)(void *ctx, char *buf, size_t cap),
                                      void (*done)(void *ctx, bool gone), void *take_ctx);

#endif
