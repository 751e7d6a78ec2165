/* Answers: whole, or as a stream whose bytes wait in a bounded buffer until libmicrohttpd's thread takes them. */
#include "base/alloc.h"
#include "base/util.h"
#include "http/http_priv.h"

const char *skf_http_path(const struct skf_http_req *r) { return r->path; }
uint64_t skf_http_id(const struct skf_http_req *r) { return r->id; }

const char *skf_http_header(const struct skf_http_req *r, const char *name)
{
    return r->conn ? MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name) : NULL;
}

const void *skf_http_body(const struct skf_http_req *r, size_t *n)
{
    *n = r->body.len;
    return r->body.data ? (const void *)r->body.data : "";
}

void skf_http_hold(struct skf_http_req *r, void (*gone)(void *ctx, uint64_t id), void *ctx)
{
    pthread_mutex_lock(&r->h->lock);
    r->refs++;
    pthread_mutex_unlock(&r->h->lock);
    pthread_mutex_lock(&r->lock);
    r->held = true;
    r->gone_fn = gone;
    r->gone_ctx = ctx;
    pthread_mutex_unlock(&r->lock);
}

void skf_http_release(struct skf_http_req *r)
{
    pthread_mutex_lock(&r->lock);
    bool none = !r->resp && !r->gone && !r->cut;
    pthread_mutex_unlock(&r->lock);
    if (none && skf_http_reply_error(r, 500, "server_error", "no answer") != SKF_OK)
        skf_http_cut(r);
    pthread_mutex_lock(&r->lock);
    r->held = false;
    if (r->streaming && !r->ended)
        r->cut = true;
    skf_http_resume_(r);
    pthread_mutex_unlock(&r->lock);
    skf_http_unref_(r);
}

enum skf_err skf_http_set_header(struct skf_http_req *r, const char *name, const char *value)
{
    enum skf_err e = SKF_OK;
    pthread_mutex_lock(&r->lock);
    struct http_header h = {NULL, NULL};
    if (r->n_headers == HTTP_HEADERS_MAX)
        e = SKF_ERR_LIMIT;
    else if (r->resp)
        e = SKF_ERR_STATE;
    else if (strpbrk(name, "\r\n:") || strpbrk(value, "\r\n"))
        e = SKF_ERR_ARG;
    if (e == SKF_OK) {
        h.name = skf_strdup(name);
        h.value = skf_strdup(value);
        e = h.name && h.value ? SKF_OK : SKF_ERR_NOMEM;
    }
    if (e == SKF_OK) {
        r->headers[r->n_headers++] = h;
    } else {
        skf_free(h.name);
        skf_free(h.value);
    }
    pthread_mutex_unlock(&r->lock);
    return e;
}

/* Makes this the request's answer; r->lock held. */
static enum skf_err answer(struct skf_http_req *r, unsigned status, const char *type, struct MHD_Response *take_resp)
{
    if (!take_resp)
        return SKF_ERR_NOMEM;
    if (r->resp || r->gone || r->cut) {
        MHD_destroy_response(take_resp);
        return r->resp ? SKF_ERR_STATE : SKF_ERR_NET;
    }
    bool ok = MHD_add_response_header(take_resp, "Content-Type", type) == MHD_YES;
    for (size_t i = 0; i < r->n_headers; i++)
        ok = ok && MHD_add_response_header(take_resp, r->headers[i].name, r->headers[i].value) == MHD_YES;
    if (!ok) {
        MHD_destroy_response(take_resp);
        return SKF_ERR_NOMEM;
    }
    r->resp = take_resp;
    r->status = status;
    skf_http_resume_(r);
    return SKF_OK;
}

enum skf_err skf_http_reply(struct skf_http_req *r, unsigned status, const char *type, const void *p, size_t n)
{
    union { /* the copy is made before it returns, so nothing is written through it */
        const void *in;
        void *out;
    } bytes = {.in = n ? p : ""};
    struct MHD_Response *resp = MHD_create_response_from_buffer(n, bytes.out, MHD_RESPMEM_MUST_COPY);
    pthread_mutex_lock(&r->lock);
    enum skf_err e = answer(r, status, type, resp);
    pthread_mutex_unlock(&r->lock);
    return e;
}

enum skf_err skf_http_reply_json(struct skf_http_req *r, unsigned status, skf_json *j)
{
    char *text = NULL;
    size_t n = 0;
    enum skf_err e = j ? skf_json_text(j, 0, &text, &n) : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_http_reply(r, status, "application/json", text, n);
    skf_free(text);
    skf_json_free(j);
    return e;
}

enum skf_err skf_http_reply_error(struct skf_http_req *r, unsigned status, const char *type, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    skf_json *j = skf_json_obj(), *error = skf_json_obj();
    enum skf_err e = SKF_OK;
    if (!error || !j || skf_json_set(error, "message", skf_json_str(text)) || skf_json_set(error, "type", skf_json_str(type)) ||
        skf_json_set(error, "param", skf_json_null()) || skf_json_set(error, "code", skf_json_null()))
        e = SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_json_set(j, "error", skf_json_ref(error));
    skf_json_free(error);
    if (e == SKF_OK)
        return skf_http_reply_json(r, status, j);
    skf_json_free(j);
    return e;
}

/* ---- streams ----------------------------------------------------------------------------------------------------------- */
/*
 * Ends the answer and the connection.  libmicrohttpd (0.9.75 to 1.0.1), when it polls by epoll, leaves a connection whose reader ends with
 * an error closed but not cleaned up: nothing looks at it again until it is the one that has been silent longest, and until then it
 * counts against the limit of connections.  One that is resumed is looked at in the next round.
 */
static ssize_t end_unfinished(struct skf_http_req *r)
{
    MHD_suspend_connection(r->conn);
    MHD_resume_connection(r->conn);
    return MHD_CONTENT_READER_END_WITH_ERROR;
}

/* On the server's thread: what waits, or the end, or nothing yet (and then the connection sleeps until there is more). */
static ssize_t on_more(void *ctx, uint64_t pos, char *to, size_t max)
{
    (void)pos;
    struct skf_http_req *r = ctx;
    ssize_t got = 0;
    pthread_mutex_lock(&r->lock);
    size_t n = SKF_MIN(max, r->out.len - r->sent);
    if (r->cut || r->gone) {
        got = end_unfinished(r);
    } else if (n) {
        memcpy(to, r->out.data + r->sent, n);
        r->sent += n;
        got = (ssize_t)n;
    } else if (r->ended) {
        got = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        skf_http_suspend_(r);
    }
    pthread_mutex_unlock(&r->lock);
    return got;
}

enum skf_err skf_http_begin(struct skf_http_req *r, unsigned status, const char *type)
{
    pthread_mutex_lock(&r->lock);
    struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 8 << 10, on_more, r, NULL);
    enum skf_err e = answer(r, status, type, resp);
    if (e == SKF_OK)
        r->streaming = true;
    pthread_mutex_unlock(&r->lock);
    return e;
}

enum skf_err skf_http_put(struct skf_http_req *r, const void *p, size_t n)
{
    enum skf_err e = SKF_OK;
    pthread_mutex_lock(&r->lock);
    if (r->sent && (r->sent == r->out.len || r->sent > r->h->stream_limit / 2)) {
        memmove(r->out.data, r->out.data + r->sent, r->out.len - r->sent);
        r->out.len -= r->sent;
        r->sent = 0;
    }
    if (!r->streaming || r->ended)
        e = SKF_ERR_STATE;
    else if (r->gone || r->cut || !r->conn)
        e = SKF_ERR_NET;
    else if (n > r->h->stream_limit || r->out.len - r->sent > r->h->stream_limit - n)
        e = SKF_ERR_LIMIT;
    else
        e = skf_buf_put(&r->out, p, n);
    if (e == SKF_OK)
        skf_http_resume_(r);
    pthread_mutex_unlock(&r->lock);
    return e;
}

void skf_http_end(struct skf_http_req *r)
{
    pthread_mutex_lock(&r->lock);
    r->ended = true;
    skf_http_resume_(r);
    pthread_mutex_unlock(&r->lock);
}

void skf_http_cut(struct skf_http_req *r)
{
    pthread_mutex_lock(&r->lock);
    r->cut = true;
    skf_http_resume_(r);
    pthread_mutex_unlock(&r->lock);
}
