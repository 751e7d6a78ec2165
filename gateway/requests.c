/*
 * Requests from the client's question to the end of its answer.  A request waits (no link), runs (on a link), has begun (bytes were
 * sent to the client) or is over (freed).  Until it has begun it can be given to another worker.
 */
#include "base/alloc.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

static struct gw_req *find_(struct skf_gw *g, uint64_t id)
{
    struct gw_req *r = g->reqs;
    while (r && r->id != id)
        r = r->next;
    return r;
}

/* The request is over, however it went; its answer has been made, or its client is gone. */
static void end_(struct skf_gw *g, struct gw_req *r)
{
    struct gw_req **at = &g->reqs;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    g->n_reqs--;
    uint64_t now = skf_now_ns();
    if (r->key)
        skf_gw_key_end(&g->keys, r->key, r->spent, now);
    if (r->link && g->n_reqs)
        skf_gw_turns_end(&g->turns, now, r->start_ns);
    if (r->link)
        skf_gw_shadow_gone_(g, r->link, r->id); /* one that has not ended with it */
    if (r->link)
        r->link->active--;
    else
        g->n_waiting--;
    pthread_cond_broadcast(&g->changed);
    skf_http_release(r->http);
    skf_gw_choices_clear(r);
    skf_free(r->choices);
    skf_buf_free(&r->line);
    skf_free(r->ask.frame);
    skf_free(r);
}

/* Answers with a refusal and ends the request. */
static void refuse_found_(struct skf_gw *g, struct gw_req *r, const struct skf_gw_refusal *no, unsigned retry_after)
{
    *(no->status == 429 ? &g->counts.refused : no->status >= 500 ? &g->counts.server_errors : &g->counts.client_errors) += 1;
    skf_gw_reply_refusal(r->http, no, retry_after);
    end_(g, r);
}

/* Which part of the request the worker's words are about. */
static const char *param_of(const char *text)
{
    static const char *const begins[][2] = {{"the schema", "response_format"}, {"the grammar", "grammar"}, {"logit_bias", "logit_bias"},
                                            {"chat template", "messages"}};
    for (size_t i = 0; i < SKF_COUNT(begins); i++)
        if (strncmp(text, begins[i][0], strlen(begins[i][0])) == 0)
            return begins[i][1];
    return "";
}

static void refuse_(struct skf_gw *g, struct gw_req *r, unsigned status, const char *type, const char *code, const char *text,
                    unsigned retry_after)
{
    struct skf_gw_refusal no = {.status = status, .type = type, .code = code};
    snprintf(no.text, sizeof no.text, "%s", text);
    snprintf(no.param, sizeof no.param, "%s", status == 400 ? param_of(text) : "");
    refuse_found_(g, r, &no, retry_after);
}

/* Moves between waiting and a link. */
static void assign_(struct skf_gw *g, struct gw_req *r, struct gw_link *l)
{
    if (r->link)
        r->link->active--;
    else
        g->n_waiting--;
    r->link = l;
    if (l)
        l->active++;
    else
        g->n_waiting++;
}

/* Nanoseconds that a request waits for a worker. */
static uint64_t patience_(const struct skf_gw *g) { return SKF_MAX(g->wait_ms, g->hold_ms) * 1000000ull; }

/* Gives a waiting request to a worker, if one is there. False when it is over (refused), so that callers do not touch it again. */
static bool is_dispatched_(struct skf_gw *g, struct gw_req *r)
{
    struct gw_link *l = r->is_settled ? skf_gw_pick_(g, r->ask.model) : NULL;
    if (!l)
        return true;
    enum skf_err e = skf_gw_link_send_(l, r->ask.frame, r->ask.frame_len);
    if (e == SKF_ERR_NET)
        return true;
    if (e != SKF_OK) {
        refuse_(g, r, 503, "server_error", NULL, "the model's worker takes nothing at present", 1);
        return false;
    }
    r->tries++;
    snprintf(r->version, sizeof r->version, "%s", l->version);
    assign_(g, r, l);
    skf_gw_shadow_(g, l, &r->ask, r->id);
    return true;
}

/* ---- from the client --------------------------------------------------------------------------------------------------- */
/* "base:adapter", where there is no model of the whole name. */
static void split_model_(struct skf_gw *g, struct skf_gw_ask *ask)
{
    char *colon = strrchr(ask->model, ':');
    if (!colon || ask->adapter[0] || is_gw_model_(g, ask->model) || strlen(colon + 1) >= sizeof ask->adapter)
        return;
    *colon = 0;
    if (is_gw_model_(g, ask->model))
        snprintf(ask->adapter, sizeof ask->adapter, "%s", colon + 1);
    else
        *colon = ':';
}

/* Whether there is a model for this request; fills in its name when the client left it out or knows it by another. */
static bool is_model_found_(struct skf_gw *g, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    split_model_(g, ask);
    const char *name = ask->model[0] ? skf_gw_alias_(g, ask->model) : skf_gw_only_model_(g);
    no->type = "invalid_request_error";
    if (!is_gw_model_(g, NULL)) {
        no->status = 503;
        no->type = "server_error";
        snprintf(no->text, sizeof no->text, "no model is loaded yet");
    } else if (!ask->model[0] && !name) {
        no->status = 400;
        snprintf(no->param, sizeof no->param, "model");
        snprintf(no->text, sizeof no->text, "model is missing and there are several; GET /v1/models lists them");
    } else if (!is_gw_model_(g, name ? name : ask->model)) {
        no->status = 404;
        no->code = "model_not_found";
        snprintf(no->param, sizeof no->param, "model");
        snprintf(no->text, sizeof no->text, "the model '%s' does not exist here; GET /v1/models lists those that do", ask->model);
    } else {
        if (name)
            snprintf(ask->model, sizeof ask->model, "%s", name);
        return true;
    }
    return false;
}

/* Whether the gateway can take a request now. Before the first routes are set nobody knows which models there will be, only that somebody
 * is about to say it: it waits. */
static bool is_admitted_(struct skf_gw *g, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    no->type = "server_error";
    if (g->stop) {
        no->status = 503;
        snprintf(no->text, sizeof no->text, "the gateway is closing");
    } else if (g->n_reqs >= g->max_requests) {
        no->status = 429;
        no->type = "rate_limit_error";
        no->code = "too_many_requests";
        snprintf(no->text, sizeof no->text, "%u requests are under way already; try again later", g->n_reqs);
    } else {
        return !g->has_routes || is_model_found_(g, ask, no);
    }
    return false;
}

static struct gw_req *new_req(struct skf_http_req *http, struct skf_gw_ask *take_ask)
{
    struct gw_req *r = skf_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->id = skf_http_id(http);
    r->http = http;
    r->ask = *take_ask;
    r->created = skf_now_unix();
    r->start_ns = skf_now_ns();
    r->line = SKF_BUF_INIT(GW_TEXT);
    r->choices = skf_calloc(r->ask.n, sizeof *r->choices);
    if (!r->choices) {
        skf_free(r);
        return NULL;
    }
    skf_gw_choices_clear(r);
    return r;
}

void skf_gw_ask_new(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_ask *ask)
{
    struct skf_gw_refusal no = {.status = 503, .type = "server_error", .text = "out of memory"};
    pthread_mutex_lock(&g->lock);
    struct gw_key *key = NULL;
    unsigned retry = 0;
    bool ok = is_admitted_(g, ask, &no) && is_gw_counted_(g, http, ask->model, &key, &no, &retry);
    struct gw_req *r = ok ? new_req(http, ask) : NULL;
    if (!r) {
        if (no.status == 429 && !retry)
            retry = skf_gw_turns_next(&g->turns, skf_now_ns(), 0);
        if (key)
            skf_gw_key_end(&g->keys, key, 0, skf_now_ns());
        *(no.status == 429 ? &g->counts.refused : no.status >= 500 ? &g->counts.server_errors : &g->counts.client_errors) += 1;
        pthread_mutex_unlock(&g->lock);
        skf_free(ask->frame);
        skf_gw_reply_refusal(http, &no, no.status == 503 ? 1 : retry);
        return;
    }
    skf_http_hold(http, skf_gw_gone, g);
    r->key = key;
    r->deadline_ns = ask->timeout_ms ? r->start_ns + ask->timeout_ms * 1000000ull : 0;
    r->wait_until_ns = r->start_ns + patience_(g);
    r->is_settled = g->has_routes;
    r->next = g->reqs;
    g->reqs = r;
    g->n_reqs++;
    g->n_waiting++;
    g->counts.requests++;
    if (is_dispatched_(g, r) && (!r->link || r->deadline_ns))
        pthread_cond_broadcast(&g->changed); /* the keeper minds its deadline */
    pthread_mutex_unlock(&g->lock);
}

void skf_gw_settle_(struct skf_gw *g)
{
    for (struct gw_req *r = g->reqs, *next; r; r = next) {
        struct skf_gw_refusal no = {.status = 0};
        next = r->next;
        if (r->is_settled)
            continue;
        r->is_settled = is_model_found_(g, &r->ask, &no);
        if (r->is_settled)
            (void)is_dispatched_(g, r);
        else
            refuse_found_(g, r, &no, no.status == 503 ? 1 : 0);
    }
}

void skf_gw_gone(void *ctx, uint64_t id)
{
    struct skf_gw *g = ctx;
    pthread_mutex_lock(&g->lock);
    struct gw_req *r = find_(g, id);
    if (r) {
        g->counts.gone++;
        if (r->link)
            skf_gw_link_cancel_(r->link, r->id);
        end_(g, r);
    }
    pthread_mutex_unlock(&g->lock);
}

/* ---- from a worker ----------------------------------------------------------------------------------------------------- */
static struct gw_req *on_link_(struct gw_link *l, uint64_t id)
{
    struct gw_req *r = find_(l->g, id);
    return r && r->link == l ? r : NULL;
}

/* The answer could not be passed on: the client reads too slowly, or has left, or memory is out. */
static void lost_(struct skf_gw *g, struct gw_req *r, enum skf_err e)
{
    *(e == SKF_ERR_LIMIT ? &g->counts.slow : e == SKF_ERR_NET ? &g->counts.gone : &g->counts.server_errors) += 1;
    skf_gw_link_cancel_(r->link, r->id);
    skf_http_cut(r->http);
    end_(g, r);
}

void skf_gw_started_(struct gw_link *l, const Skiff__V1__Started *s)
{
    struct gw_req *r = on_link_(l, s->id);
    if (r)
        r->spent = s->prompt_tokens;
}

void skf_gw_token_(struct gw_link *l, const Skiff__V1__Token *t)
{
    struct skf_gw *g = l->g;
    enum skf_err e = SKF_OK;
    if (g->shadows && is_gw_shadow_token_(l, t->id, t->token))
        return;
    struct gw_req *r = on_link_(l, t->id);
    if (!r || t->choice >= r->ask.n)
        return;
    g->counts.tokens += t->token >= 0;
    r->spent += t->token >= 0;
    uint64_t now = skf_now_ns();
    skf_gw_hist_add(r->first_ns ? &g->times.between : &g->times.first, now - (r->first_ns ? r->last_ns : r->start_ns));
    r->last_ns = now;
    if (!r->first_ns) {
        r->first_ns = now;
        g->counts.first_ns += r->first_ns - r->start_ns;
        g->counts.first_count++;
    }
    e = skf_gw_put_token(g, r, t);
    if (e == SKF_OK)
        return;
    if (r->ask.stream) {
        lost_(g, r, e);
    } else {
        skf_gw_link_cancel_(l, r->id);
        refuse_(g, r, 500, "server_error", NULL, "the answer is too long", 0);
    }
}

/* Of a request of which the client has no byte yet, when its worker has gone or goes: another worker, or the wait for one. */
static void again_(struct skf_gw *g, struct gw_req *r)
{
    if (r->tries >= GW_TRIES) {
        refuse_(g, r, 500, "server_error", NULL, "the model's worker ended, and so did others that were given this request", 0);
    } else if (!is_gw_model_(g, r->ask.model)) {
        refuse_(g, r, 503, "server_error", NULL, "the model is no longer here", 1);
    } else {
        g->counts.repeated++;
        skf_gw_choices_clear(r);
        r->prompt_tokens = r->cached_tokens = r->tokens = r->drafted_tokens = r->accepted_tokens = 0;
        r->first_ns = 0;
        r->spent = 0;
        assign_(g, r, NULL);
        r->wait_until_ns = skf_now_ns() + patience_(g);
        (void)is_dispatched_(g, r);
        pthread_cond_broadcast(&g->changed); /* the keeper minds its deadline */
    }
}

/* The worker could not answer: by whose fault, in the words of HTTP. */
static void failed_(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f)
{
    const char *class = f->error_class, *text = f->error[0] ? f->error : "the model's worker failed";
    bool limit = strcmp(class, skf_err_name(SKF_ERR_LIMIT)) == 0, busy = strcmp(class, skf_err_name(SKF_ERR_BUSY)) == 0;
    bool theirs = limit || strcmp(class, skf_err_name(SKF_ERR_NOT_FOUND)) == 0 || strcmp(class, skf_err_name(SKF_ERR_REFUSED)) == 0 || strcmp(class, skf_err_name(SKF_ERR_ARG)) == 0;
    if (!r->is_begun && strcmp(class, skf_err_name(SKF_ERR_STATE)) == 0) { /* it was told to quit just before */
        r->link->is_leaving = true;
        again_(g, r);
        return;
    }
    if (!theirs && !busy && strcmp(class, skf_err_name(SKF_ERR_TIMEOUT)) != 0)
        r->link->failed++;
    if (r->ask.n > 1)
        skf_gw_link_cancel_(r->link, r->id); /* its other answers */
    if (r->is_begun) {
        enum skf_err e = skf_gw_put_error(r, "server_error", text);
        g->counts.server_errors++;
        if (e != SKF_OK)
            skf_http_cut(r->http);
        end_(g, r);
    } else if (strcmp(class, skf_err_name(SKF_ERR_NOT_FOUND)) == 0) {
        refuse_(g, r, 404, "invalid_request_error", "model_not_found", text, 0);
    } else if (theirs) {
        refuse_(g, r, 400, "invalid_request_error", limit && !param_of(text)[0] ? "context_length_exceeded" : NULL, text, 0);
    } else if (busy) {
        refuse_(g, r, 429, "rate_limit_error", "too_many_requests", text, skf_gw_turns_next(&g->turns, skf_now_ns(), f->retry_us * 1000));
    } else if (strcmp(class, skf_err_name(SKF_ERR_TIMEOUT)) == 0) {
        refuse_(g, r, 504, "timeout_error", "timeout", text, 0);
    } else {
        refuse_(g, r, 500, "server_error", NULL, text, 0);
    }
}

/* Notes the end of one answer. */
static struct gw_choice *choice_over(struct gw_req *r, const Skiff__V1__Finished *f)
{
    struct gw_choice *c = &r->choices[f->choice];
    bool is_length = strcmp(f->reason, "length") == 0;
    snprintf(c->finish, sizeof c->finish, "%s", is_length ? "length" : c->calls ? "tool_calls" : "stop");
    c->is_over = true;
    r->tokens += f->completion_tokens;
    r->drafted_tokens += f->drafted_tokens;
    r->accepted_tokens += f->accepted_tokens;
    if (f->choice == 0) {
        r->prompt_tokens = f->prompt_tokens;
        r->cached_tokens = f->cached_tokens;
    }
    return c;
}

void skf_gw_finished_(struct gw_link *l, const Skiff__V1__Finished *f)
{
    struct skf_gw *g = l->g;
    enum skf_err e = SKF_OK;
    if (g->shadows && is_gw_shadow_finished_(l, f))
        return;
    struct gw_req *r = on_link_(l, f->id);
    if (!r || f->choice >= r->ask.n)
        return;
    g->counts.prompt_tokens += f->prompt_tokens;
    g->counts.cached_tokens += f->cached_tokens;
    g->counts.drafted_tokens += f->drafted_tokens;
    g->counts.accepted_tokens += f->accepted_tokens;
    g->counts.prefill_us += f->prefill_us;
    g->counts.decode_us += f->decode_us;
    if (r->ask.n == 1)
        r->spent = (uint64_t)f->prompt_tokens + f->completion_tokens;
    if (strcmp(f->reason, "stop") != 0 && strcmp(f->reason, "length") != 0) {
        failed_(g, r, f);
        return;
    }
    struct gw_choice *c = choice_over(r, f);
    if (r->ask.stream && !r->is_begun) /* not one token had text */
        e = skf_gw_put_begin(g, r);
    if (e == SKF_OK && r->ask.stream)
        e = skf_gw_put_choice_end(g, r, c);
    if (e == SKF_OK && f->is_more)
        return;
    if (e == SKF_OK)
        e = r->ask.stream ? skf_gw_put_end(g, r, f) : skf_gw_reply_whole(g, r, f);
    else if (f->is_more)
        skf_gw_link_cancel_(l, r->id);
    l->served++;
    if (e == SKF_OK) {
        g->counts.ok++;
        skf_gw_hist_add(&g->times.queue, f->queue_us * 1000);
        skf_gw_hist_add(&g->times.prefill, f->prefill_us * 1000);
        skf_gw_hist_add(&g->times.whole, skf_now_ns() - r->start_ns);
    } else {
        *(e == SKF_ERR_LIMIT ? &g->counts.slow : &g->counts.gone) += 1;
        skf_http_cut(r->http);
    }
    end_(g, r);
}

/* A worker is there: it gets what waits for its model, if it is the one to. */
void skf_gw_link_up_(struct gw_link *l)
{
    struct skf_gw *g = l->g;
    skf_gw_pause_over_(g, l);
    skf_gw_ask_load_(g);
    for (struct gw_req *r = g->reqs, *next; r; r = next) {
        next = r->next;
        if (!r->link)
            (void)is_dispatched_(g, r);
    }
    pthread_cond_broadcast(&g->changed);
}

/* A worker is gone: what it had begun ends with an error, the rest is given to another or waits for one. */
void skf_gw_link_down_(struct gw_link *l)
{
    struct skf_gw *g = l->g;
    skf_gw_shadow_gone_(g, l, 0);
    for (struct gw_req *r = g->reqs, *next; r; r = next) {
        next = r->next;
        if (r->link != l)
            continue;
        l->failed++;
        if (r->is_begun) {
            g->counts.server_errors++;
            if (skf_gw_put_error(r, "server_error", "the model's worker ended before its answer did") != SKF_OK)
                skf_http_cut(r->http);
            end_(g, r);
        } else {
            again_(g, r);
        }
    }
    pthread_cond_broadcast(&g->changed);
}

/* ---- time -------------------------------------------------------------------------------------------------------------- */
/* The client's time is over: what computes for it is stopped, what it has of the answer ends with an error. */
static void time_over_(struct skf_gw *g, struct gw_req *r)
{
    static const char text[] = "the request's time is over";
    if (r->link)
        skf_gw_link_cancel_(r->link, r->id);
    if (!r->is_begun) {
        refuse_(g, r, 504, "timeout_error", "timeout", text, 0);
        return;
    }
    g->counts.server_errors++;
    if (skf_gw_put_error(r, "timeout_error", text) != SKF_OK)
        skf_http_cut(r->http);
    end_(g, r);
}

void skf_gw_wait_over_(struct skf_gw *g, uint64_t now, uint64_t *next_deadline)
{
    *next_deadline = UINT64_MAX;
    for (struct gw_req *r = g->reqs, *next; r; r = next) {
        next = r->next;
        uint64_t wait = r->link ? UINT64_MAX : r->wait_until_ns, own = r->deadline_ns ? r->deadline_ns : UINT64_MAX;
        if (now >= own)
            time_over_(g, r);
        else if (now >= wait)
            refuse_(g, r, 503, "server_error", NULL,
                    r->is_settled ? "no worker of this model is running at present" : "no model is loaded yet", 1);
        else
            *next_deadline = SKF_MIN(*next_deadline, SKF_MIN(wait, own));
    }
}

void skf_gw_drop_all_(struct skf_gw *g)
{
    while (g->reqs) {
        struct gw_req *r = g->reqs;
        if (r->is_begun) {
            skf_http_cut(r->http);
            end_(g, r);
        } else {
            refuse_(g, r, 503, "server_error", NULL, "the gateway is closing", 1);
        }
    }
}
