/* GET by libcurl: see fetch.h. */
#include <curl/curl.h>
#include <pthread.h>

#include "base/alloc.h"
#include "base/util.h"
#include "fetch/fetch.h"

struct skf_fetch {
    CURL *curl;
    char why[CURL_ERROR_SIZE];
};
struct sink {
    struct skf_buf *b;
    enum skf_err err;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool is_ready;
static void begin(void) { is_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == 0; }

enum skf_err skf_fetch_open(struct skf_fetch **out, struct skf_why *why)
{
    (void)pthread_once(&once, begin);
    struct skf_fetch *f = is_ready ? skf_calloc(1, sizeof *f) : NULL;
    if (f)
        f->curl = curl_easy_init();
    if (f && f->curl) {
        *out = f;
        return SKF_OK;
    }
    skf_free(f);
    return skf_fail(why, SKF_ERR_NOMEM, "no memory for a connection");
}

void skf_fetch_close(struct skf_fetch *f)
{
    if (f)
        curl_easy_cleanup(f->curl);
    skf_free(f);
}

static size_t take(char *p, size_t size, size_t n, void *ctx)
{
    struct sink *s = ctx;
    s->err = skf_buf_put(s->b, p, size * n);
    return s->err == SKF_OK ? size * n : 0;
}

static CURLcode set_up(struct skf_fetch *f, const char *url, const struct skf_fetch_opts *o, struct sink *s)
{
    const struct {
        CURLoption option;
        long value;
    } longs[] = {{CURLOPT_TIMEOUT_MS, o && o->timeout_ms ? (long)o->timeout_ms : 10000L}, {CURLOPT_NOSIGNAL, 1L}, {CURLOPT_FOLLOWLOCATION, 0L}};
    const struct {
        CURLoption option;
        const char *value; /* NULL: left as it is */
    } texts[] = {{CURLOPT_PROTOCOLS_STR, "http,https"}, {CURLOPT_URL, url}, {CURLOPT_PROXY, ""}, {CURLOPT_UNIX_SOCKET_PATH, o ? o->unix_path : NULL},
                 {CURLOPT_CAINFO, o ? o->ca : NULL}, {CURLOPT_XOAUTH2_BEARER, o ? o->bearer : NULL}};
    CURLcode c = CURLE_OK;
    curl_easy_reset(f->curl);
    for (size_t i = 0; c == CURLE_OK && i < SKF_COUNT(longs); i++)
        c = curl_easy_setopt(f->curl, longs[i].option, longs[i].value);
    for (size_t i = 0; c == CURLE_OK && i < SKF_COUNT(texts); i++)
        c = texts[i].value ? curl_easy_setopt(f->curl, texts[i].option, texts[i].value) : CURLE_OK;
    if (c == CURLE_OK && o && o->bearer)
        c = curl_easy_setopt(f->curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
    if (c == CURLE_OK)
        c = curl_easy_setopt(f->curl, CURLOPT_ERRORBUFFER, f->why);
    if (c == CURLE_OK)
        c = curl_easy_setopt(f->curl, CURLOPT_WRITEFUNCTION, take);
    return c == CURLE_OK ? curl_easy_setopt(f->curl, CURLOPT_WRITEDATA, s) : c;
}

enum skf_err skf_fetch_get(struct skf_fetch *f, const char *url, const struct skf_fetch_opts *o, struct skf_buf *b, unsigned *status,
                           struct skf_why *why)
{
    struct sink s = {b, SKF_OK};
    long code = 0;
    skf_buf_clear(b);
    f->why[0] = 0;
    CURLcode c = set_up(f, url, o, &s);
    if (c == CURLE_OK)
        c = curl_easy_perform(f->curl);
    if (c == CURLE_OK)
        c = curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &code);
    (void)curl_easy_setopt(f->curl, CURLOPT_ERRORBUFFER, NULL);
    *status = (unsigned)code;
    if (c == CURLE_OK)
        return SKF_OK;
    if (s.err != SKF_OK)
        return skf_fail(why, s.err, "%.200s: the answer has more than %zu bytes", url, b->limit);
    enum skf_err e = c == CURLE_OUT_OF_MEMORY ? SKF_ERR_NOMEM : c == CURLE_OPERATION_TIMEDOUT ? SKF_ERR_TIMEOUT :
                     c == CURLE_URL_MALFORMAT || c == CURLE_UNSUPPORTED_PROTOCOL ? SKF_ERR_ARG : SKF_ERR_NET;
    return skf_fail(why, e, "%.200s: %.200s", url, f->why[0] ? f->why : curl_easy_strerror(c));
}
