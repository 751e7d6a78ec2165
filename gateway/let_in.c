/* Who may ask, and what a request's headers say beside its body: Authorization, x-skiff-priority, x-skiff-timeout. */
#include <errno.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

/* A file that others may write would let in whoever they like. */
static enum skf_err read_keys(const char *path, struct gw_key **keys, struct skf_why *why)
{
    struct stat st;
    uint8_t *p = NULL;
    size_t n = 0;
    if (stat(path, &st) != 0)
        return skf_fail_errno(why, errno, "%.400s", path);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return skf_fail(why, SKF_ERR_REFUSED, "%.400s: others may write it; chmod go-w", path);
    SKF_TRY(skf_file_read(path, GW_KEY_FILE, &p, &n, why));
    enum skf_err e = skf_gw_keys_parse((const char *)p, n, skf_now_ns(), keys, why);
    skf_free(p);
    return e == SKF_OK ? SKF_OK : skf_fail_prefix(why, e, "%.400s", path);
}

enum skf_err skf_gw_reload_keys(struct skf_gw *g, struct skf_why *why)
{
    struct gw_key *fresh = NULL;
    unsigned n = 0;
    if (!g->keys_path[0])
        return SKF_OK;
    SKF_TRY(read_keys(g->keys_path, &fresh, why));
    for (const struct gw_key *k = fresh; k; k = k->next)
        n++;
    pthread_mutex_lock(&g->lock);
    skf_gw_keys_replace(&g->keys, fresh);
    pthread_mutex_unlock(&g->lock);
    skf_log(SKF_LOG_INFO, "%u keys may ask", n);
    return SKF_OK;
}

enum skf_err skf_gw_print_key(const char *name, struct skf_why *why)
{
    char text[80], line[200];
    SKF_TRY(skf_gw_key_make(name, text, line, why));
    if (printf("%s\n%s\n", text, line) < 0 || fflush(stdout) != 0)
        return skf_fail_errno(why, errno, "cannot print the key");
    skf_wipe(text, sizeof text);
    return SKF_OK;
}

bool is_gw_let_in(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_refusal *no)
{
    const char *given = skf_http_header(http, "Authorization");
    if (!g->keys_path[0])
        return true;
    pthread_mutex_lock(&g->lock);
    bool ok = skf_gw_key_of(g->keys, given) != NULL;
    g->counts.client_errors += !ok;
    pthread_mutex_unlock(&g->lock);
    if (ok)
        return true;
    *no = (struct skf_gw_refusal){.status = 401, .type = "invalid_request_error", .code = "invalid_api_key"};
    snprintf(no->text, sizeof no->text, given ? "this key is not known here; it is sent as Authorization: Bearer KEY" : "a key is needed: Authorization: Bearer KEY");
    if (skf_http_set_header(http, "WWW-Authenticate", "Bearer") != SKF_OK)
        no->status = 401; /* as well without */
    return false;
}

static bool bad_header(struct skf_gw_refusal *no, const char *name, const char *want)
{
    *no = (struct skf_gw_refusal){.status = 400, .type = "invalid_request_error"};
    snprintf(no->param, sizeof no->param, "%s", name);
    snprintf(no->text, sizeof no->text, "the header %s must be %s", name, want);
    return false;
}

bool is_gw_headers_taken(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    const char *priority = skf_http_header(http, "x-skiff-priority"), *timeout = skf_http_header(http, "x-skiff-timeout");
    double seconds = 0;
    char *end;
    if (priority && strcmp(priority, "interactive") != 0 && strcmp(priority, "batch") != 0)
        return bad_header(no, "x-skiff-priority", "interactive or batch");
    if (timeout) {
        seconds = strtod(timeout, &end);
        if (end == timeout || *end || !(seconds >= 0.001 && seconds <= 86400))
            return bad_header(no, "x-skiff-timeout", "seconds, from 0.001 to 86400");
    }
    pthread_mutex_lock(&g->lock);
    const struct gw_key *k = g->keys_path[0] ? skf_gw_key_of(g->keys, skf_http_header(http, "Authorization")) : NULL;
    bool is_batch = (k && k->is_batch) || (priority && *priority == 'b');
    pthread_mutex_unlock(&g->lock);
    if (skf_gw_ask_terms(ask, is_batch, (uint32_t)(seconds * 1000)) == SKF_OK)
        return true;
    *no = (struct skf_gw_refusal){.status = 503, .type = "server_error", .text = "out of memory"};
    return false;
}

/* As OpenAI's API names them. */
static enum skf_err tell_limits(struct skf_http_req *http, struct gw_key *k, uint64_t now)
{
    static const char *const names[2][3] = {{"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
                                            {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"}};
    struct gw_bucket *buckets[2] = {&k->requests, &k->tokens};
    for (size_t i = 0; i < 2; i++) {
        char text[3][24];
        uint64_t ms;
        if (!buckets[i]->each_minute)
            continue;
        uint32_t left = skf_gw_bucket_left(buckets[i], now, &ms);
        snprintf(text[0], sizeof text[0], "%u", buckets[i]->each_minute);
        snprintf(text[1], sizeof text[1], "%u", left);
        snprintf(text[2], sizeof text[2], "%llu.%03llus", (unsigned long long)ms / 1000, (unsigned long long)ms % 1000);
        for (size_t h = 0; h < 3; h++)
            SKF_TRY(skf_http_set_header(http, names[i][h], text[h]));
    }
    return SKF_OK;
}

bool is_gw_counted_(struct skf_gw *g, struct skf_http_req *http, const char *model, struct gw_key **key, struct skf_gw_refusal *no, unsigned *retry_after)
{
    uint64_t now = skf_now_ns();
    *key = NULL;
    if (!g->keys_path[0])
        return true;
    struct gw_key *k = skf_gw_key_of(g->keys, skf_http_header(http, "Authorization"));
    *no = (struct skf_gw_refusal){.status = 401, .type = "invalid_request_error", .code = "invalid_api_key", .text = "this key is not known here"};
    if (!k)
        return false;
    bool ok = is_gw_key_taken(k, model, now, no, retry_after);
    *key = ok ? k : NULL;
    if (tell_limits(http, k, now) != SKF_OK) /* the limits hold, told or not */
        skf_log(SKF_LOG_WARN, "no memory to tell a client its limits");
    if (ok)
        *no = (struct skf_gw_refusal){.status = 503, .type = "server_error", .text = "out of memory"};
    return ok;
}
