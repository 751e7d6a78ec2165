/* The HTTP handlers. They run on the server's thread and never block: a question is checked, handed on and answered later. */
#include <inttypes.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

/* An answer that could not be made for want of memory: the connection is closed. */
static void or_cut(struct skf_http_req *r, enum skf_err e)
{
    if (e != SKF_OK)
        skf_http_cut(r);
}

/* It must be said: a page of another origin may make a browser send a body with no type or a plain one, but not this. */
static bool is_json_type(const char *type)
{
    static const char json[] = "application/json";
    size_t n = sizeof json - 1;
    return type && strncasecmp(type, json, n) == 0 && (!type[n] || type[n] == ';' || type[n] == ' ');
}

enum kind { KIND_TEXT, KIND_CHAT, KIND_EXTRACT };

static bool is_asked(enum kind kind, struct skf_http_req *r, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    size_t n;
    const void *body = skf_http_body(r, &n);
    if (kind == KIND_EXTRACT)
        return is_gw_extract(body, n, skf_http_id(r), ask, no);
    return is_gw_ask(body, n, kind == KIND_CHAT, skf_http_id(r), ask, no);
}

static void generate(struct skf_gw *g, struct skf_http_req *r, enum kind kind)
{
    struct skf_gw_ask ask;
    struct skf_gw_refusal no = {.status = 415, .type = "invalid_request_error", .text = "Content-Type must be application/json"};
    if (!is_gw_let_in(g, r, &no)) {
        skf_gw_reply_refusal(r, &no, 0);
        return;
    }
    if (is_json_type(skf_http_header(r, "Content-Type")) && is_asked(kind, r, &ask, &no)) {
        if (is_gw_headers_taken(g, r, &ask, &no)) {
            skf_gw_ask_new(g, r, &ask);
            return;
        }
        skf_free(ask.frame);
    }
    pthread_mutex_lock(&g->lock);
    *(no.status >= 500 ? &g->counts.server_errors : &g->counts.client_errors) += 1;
    pthread_mutex_unlock(&g->lock);
    skf_gw_reply_refusal(r, &no, 0);
}

static void chat(void *g, struct skf_http_req *r) { generate(g, r, KIND_CHAT); }
static void completions(void *g, struct skf_http_req *r) { generate(g, r, KIND_TEXT); }
static void extract(void *g, struct skf_http_req *r) { generate(g, r, KIND_EXTRACT); }

/* One entry a model: the version that gets its new requests now, or would if its worker were there. */
static enum skf_err put_model(struct skf_gw *g, skf_json *data, const struct gw_link *l, const char *adapter)
{
    char name[GW_NAME + sizeof l->adapters[0]];
    const struct gw_link *now = skf_gw_pick_(g, l->model);
    skf_json *j = skf_json_obj();
    if (!j)
        return SKF_ERR_NOMEM;
    enum skf_err e;
    snprintf(name, sizeof name, "%s%s%s", l->model, adapter ? ":" : "", adapter ? adapter : "");
    SKF_GO(e, skf_json_set(j, "id", skf_json_str(name)));
    if (adapter)
        SKF_GO(e, skf_json_set(j, "root", skf_json_str(l->model)));
    SKF_GO(e, skf_json_set(j, "object", skf_json_str("model")));
    SKF_GO(e, skf_json_set(j, "created", skf_json_int(0)));
    SKF_GO(e, skf_json_set(j, "owned_by", skf_json_str("skiff")));
    SKF_GO(e, skf_json_set(j, "version", skf_json_str((now ? now : l)->version)));
    SKF_GO(e, skf_json_set(j, "ready", skf_json_bool(now != NULL)));
    if (l->is_asleep)
        SKF_GO(e, skf_json_set(j, "asleep", skf_json_bool(true)));
    return skf_json_push(data, j);
out:
    skf_json_free(j);
    return e;
}

static bool is_first_of_model_(const struct skf_gw *g, const struct gw_link *l)
{
    for (const struct gw_link *o = g->links; o; o = o->next)
        if (o->is_routed && !o->shadow_permille && strcmp(o->model, l->model) == 0 && o->order < l->order)
            return false;
    return l->is_routed && !l->shadow_permille;
}

static enum skf_err list_models(struct skf_gw *g, skf_json *data, bool has_adapters, size_t *ready)
{
    enum skf_err e = SKF_OK;
    *ready = 0;
    pthread_mutex_lock(&g->lock);
    for (const struct gw_link *l = g->links; e == SKF_OK && l; l = l->next) {
        if (!is_first_of_model_(g, l))
            continue;
        const struct gw_link *now = skf_gw_pick_(g, l->model);
        e = put_model(g, data, l, NULL);
        for (unsigned i = 0; e == SKF_OK && has_adapters && now && i < now->n_adapters; i++)
            e = put_model(g, data, l, now->adapters[i]);
        *ready += l->is_asleep || now != NULL;
    }
    pthread_mutex_unlock(&g->lock);
    return e;
}

static void models(void *ctx, struct skf_http_req *r)
{
    size_t ready;
    struct skf_gw_refusal no;
    if (!is_gw_let_in(ctx, r, &no)) {
        skf_gw_reply_refusal(r, &no, 0);
        return;
    }
    skf_json *j = skf_json_obj(), *data = skf_json_arr();
    enum skf_err e = j && data ? list_models(ctx, data, true, &ready) : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_json_set(j, "object", skf_json_str("list"));
    if (e == SKF_OK)
        e = skf_json_set(j, "data", skf_json_ref(data));
    skf_json_free(data);
    if (e == SKF_OK) {
        or_cut(r, skf_http_reply_json(r, 200, j));
    } else {
        skf_json_free(j);
        skf_http_cut(r);
    }
}

/* 200 when every routed model has a worker, 503 otherwise. */
static void health(void *ctx, struct skf_http_req *r)
{
    size_t ready = 0;
    skf_json *j = skf_json_obj(), *data = skf_json_arr();
    enum skf_err e = j && data ? list_models(ctx, data, false, &ready) : SKF_ERR_NOMEM;
    size_t n = skf_json_len(data);
    bool ok = n && ready == n;
    if (e == SKF_OK)
        e = skf_json_set(j, "status", skf_json_str(ok ? "ok" : n ? "a model's worker is not running" : "no model is loaded yet"));
    if (e == SKF_OK)
        e = skf_json_set(j, "models", skf_json_ref(data));
    skf_json_free(data);
    if (e == SKF_OK) {
        or_cut(r, skf_http_reply_json(r, ok ? 200 : 503, j));
    } else {
        skf_json_free(j);
        skf_http_cut(r);
    }
}

/* ---- metrics ----------------------------------------------------------------------------------------------------------- */
static enum skf_err put_counter(struct skf_buf *b, const char *name, const char *type, const char *help, double v)
{
    return skf_buf_printf(b, "# HELP skiff_%s %s\n# TYPE skiff_%s %s\nskiff_%s %.17g\n", name, help, name, type, name, v);
}

static enum skf_err put_label(struct skf_buf *b, const char *s)
{
    SKF_TRY(skf_buf_u8(b, '"'));
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            SKF_TRY(skf_buf_u8(b, '\\'));
        SKF_TRY(skf_buf_u8(b, (uint8_t)*s));
    }
    return skf_buf_u8(b, '"');
}

enum skf_err skf_gw_put_worker(struct skf_buf *b, const struct gw_link *l)
{
    SKF_TRY(skf_buf_str(b, "model="));
    SKF_TRY(put_label(b, l->model));
    SKF_TRY(skf_buf_str(b, ",version="));
    SKF_TRY(put_label(b, l->version));
    SKF_TRY(skf_buf_str(b, ",socket="));
    return put_label(b, l->socket);
}

static enum skf_err put_links(struct skf_buf *b, const struct skf_gw *g, const char *name, const char *type, const char *help,
                              uint64_t (*value)(const struct gw_link *l))
{
    SKF_TRY(skf_buf_printf(b, "# HELP skiff_%s %s\n# TYPE skiff_%s %s\n", name, help, name, type));
    for (const struct gw_link *l = g->links; l; l = l->next) {
        SKF_TRY(skf_buf_printf(b, "skiff_%s{", name));
        SKF_TRY(skf_gw_put_worker(b, l));
        SKF_TRY(skf_buf_printf(b, "} %" PRIu64 "\n", value(l)));
    }
    return SKF_OK;
}

static uint64_t up_of(const struct gw_link *l) { return l->connected; }
static uint64_t active_of(const struct gw_link *l) { return l->active; }
static uint64_t served_of(const struct gw_link *l) { return l->served; }
static uint64_t failed_of(const struct gw_link *l) { return l->failed; }

static enum skf_err put_metrics(struct skf_buf *b, const struct skf_gw *g)
{
    const struct gw_counts *c = &g->counts;
    const struct {
        const char *name, *type, *help;
        double v;
    } all[] = {
        {"requests_total", "counter", "Generations that clients asked for and that were taken.", (double)c->requests},
        {"requests_ok_total", "counter", "Answers that were whole.", (double)c->ok},
        {"requests_bad_total", "counter", "Requests that were the client's fault (4xx).", (double)c->client_errors},
        {"requests_refused_total", "counter", "Requests refused because too many were under way (429).", (double)c->refused},
        {"requests_failed_total", "counter", "Answers that failed or were cut by us.", (double)c->server_errors},
        {"requests_gone_total", "counter", "Answers whose client left.", (double)c->gone},
        {"requests_slow_total", "counter", "Answers cut because their client read too slowly.", (double)c->slow},
        {"requests_repeated_total", "counter", "Times a request was given to another worker.", (double)c->repeated},
        {"requests_active", "gauge", "Requests not yet ended.", g->n_reqs},
        {"requests_waiting", "gauge", "Requests that wait for a worker.", g->n_waiting},
        {"prompt_tokens_total", "counter", "Tokens of prompts.", (double)c->prompt_tokens},
        {"prompt_tokens_cached_total", "counter", "Of these, tokens that were not computed anew.", (double)c->cached_tokens},
        {"tokens_drafted_total", "counter", "Tokens guessed and computed ahead.", (double)c->drafted_tokens},
        {"tokens_accepted_total", "counter", "Of these, tokens that were said.", (double)c->accepted_tokens},
        {"tokens_total", "counter", "Tokens generated.", (double)c->tokens},
        {"first_token_seconds_sum", "counter", "Time from request to first token, summed.", (double)c->first_ns / 1e9},
        {"first_token_seconds_count", "counter", "First tokens.", (double)c->first_count},
        {"prefill_seconds_total", "counter", "Time of workers on prompts.", (double)c->prefill_us / 1e6},
        {"decode_seconds_total", "counter", "Time of workers on answers.", (double)c->decode_us / 1e6},
        {"swap_pause_seconds", "gauge", "Time without a worker at the last change of routes.", (double)g->swap_pause_us / 1e6},
        {"connections", "gauge", "Open HTTP connections.", skf_http_connections(g->http)},
    };
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        SKF_TRY(put_counter(b, all[i].name, all[i].type, all[i].help, all[i].v));
    SKF_TRY(put_links(b, g, "worker_up", "gauge", "Whether the worker is connected.", up_of));
    SKF_TRY(put_links(b, g, "worker_active", "gauge", "Requests on the worker.", active_of));
    SKF_TRY(put_links(b, g, "worker_served_total", "counter", "Answers of the worker.", served_of));
    SKF_TRY(put_links(b, g, "worker_failed_total", "counter", "Requests that the worker failed.", failed_of));
    SKF_TRY(skf_gw_put_cache_(b, g));
    return skf_gw_put_load_(b, g);
}

static void metrics(void *ctx, struct skf_http_req *r)
{
    struct skf_gw *g = ctx;
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    pthread_mutex_lock(&g->lock);
    skf_gw_ask_load_(g);
    enum skf_err e = put_metrics(&b, g);
    pthread_mutex_unlock(&g->lock);
    if (e == SKF_OK)
        e = skf_http_reply(r, 200, "text/plain; version=0.0.4", b.data, b.len);
    skf_buf_free(&b);
    or_cut(r, e);
}

enum skf_err skf_gw_api_open(struct skf_gw *g, const struct skf_gw_opts *gw, struct skf_why *why)
{
    const struct skf_http_opts o = {.listen = gw->listen, .unix_path = gw->unix_path, .cert = gw->cert, .key = gw->key};
    const struct skf_http_route routes[] = {{"POST", "/v1/chat/completions", chat, g},
                                            {"POST", "/v1/completions", completions, g},
                                            {"POST", "/v1/extract", extract, g},
                                            {"GET", "/v1/models", models, g},
                                            {"GET", "/health", health, g},
                                            {"GET", "/metrics", metrics, g}};
    return skf_http_open(&o, routes, SKF_COUNT(routes), &g->http, why);
}
