/*
 * Channels, blocking calls, streams; and what a connection that failed means for a person.
 *
 * Every call fails fast: without a connection it ends with UNAVAILABLE and the reason, instead of waiting for a server
 * that may have refused our certificate and always will.  Trying again, and how often, is the caller's business.
 */
#include "wire/wire_priv.h"

#include "base/alloc.h"
#include "base/util.h"

struct skf_wire_channel {
    grpc_channel *core;
    struct wire_queue *queue;
    struct wire_live live;
    struct wire_explain *explain;
};

/* ---- why --------------------------------------------------------------------------------------------------------- */

static struct wire_explain *explain_new(const char *address, const struct skf_wire_tls *t)
{
    struct wire_explain *x = skf_calloc(1, sizeof *x);
    if (!x)
        return NULL;
    atomic_init(&x->refs, 1);
    (void)snprintf(x->address, sizeof x->address, "%s", address);
    (void)snprintf(x->ca, sizeof x->ca, "%s", t->ca_path ? t->ca_path : "");
    (void)snprintf(x->cert, sizeof x->cert, "%s", t->cert_path ? t->cert_path : "");
    return x;
}

void wire_explain_unref(struct wire_explain *x)
{
    if (x && atomic_fetch_sub(&x->refs, 1) == 1)
        skf_free(x);
}

static bool has_any(const char *text, const char *const *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcasestr(text, word[i]))
            return true;
    return false;
}

/* The system's word for why connecting failed, out of the core's long line. */
static const char *connect_reason(const char *text)
{
    static const char *const known[] = {"Connection refused",       "No route to host", "Network is unreachable",
                                        "Connection timed out",     "FD shutdown",      "DNS resolution failed",
                                        "Name or service not known"};
    for (size_t i = 0; i < SKF_COUNT(known); i++)
        if (strcasestr(text, known[i]))
            return strcmp(known[i], "FD shutdown") == 0 ? "no answer in time" : known[i];
    return NULL;
}

void wire_explain(const struct wire_explain *x, enum skf_wire_status status, const char *text, bool has_initial,
                  char *out, size_t cap)
{
    static const char *const verify[] = {"CERTIFICATE_VERIFY_FAILED", "certificate verify failed"};
    static const char *const name[] = {"Hostname Verification", "is not in peer certificate"};
    static const char *const tls[] = {"handshake", "SSL_ERROR", "Handshaker"};
    static const char *const closed[] = {"Socket closed", "Connection reset", "Broken pipe", "Unwrap failed", "GOAWAY"};
    const char *reason = connect_reason(text);
    if (status != SKF_WIRE_UNAVAILABLE || has_initial)
        (void)snprintf(out, cap, "%s", text);
    else if (has_any(text, verify, SKF_COUNT(verify)))
        (void)snprintf(out, cap, "%s: the server's certificate is not valid for our CA %s (foreign, or past its time)",
                       x->address, x->ca);
    else if (has_any(text, name, SKF_COUNT(name)))
        (void)snprintf(out, cap, "%s: the server's certificate is for another name", x->address);
    else if (reason)
        (void)snprintf(out, cap, "%s: could not connect: %s", x->address, reason);
    else if (has_any(text, tls, SKF_COUNT(tls)))
        (void)snprintf(out, cap, "%s: the TLS handshake failed: %s", x->address, text);
    else if (has_any(text, closed, SKF_COUNT(closed)))
        (void)snprintf(out, cap,
                       "%s: the server closed the connection before it answered; it does so when it refuses %s%s",
                       x->address, x->cert[0] ? "our certificate " : "a client without a certificate", x->cert);
    else
        (void)snprintf(out, cap, "%s: %s", x->address, text);
}

/* ---- channel ----------------------------------------------------------------------------------------------------- */

static enum skf_err core_channel(struct skf_wire_channel *c, const char *address, const struct skf_wire_tls *tls,
                                 const char *server_name, struct skf_why *why)
{
    char target[300];
    struct wire_args args;
    grpc_channel_credentials *creds;
    SKF_TRY(wire_channel_creds(tls, &creds, why));
    wire_args_common(&args, 0, 0);
    wire_args_int(&args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    wire_args_int(&args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    wire_args_int(&args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                  10000);                             /* the time one attempt may take, whatever its name says */
    wire_args_int(&args, GRPC_ARG_ENABLE_RETRIES, 0); /* a retry of the core's would keep a copy of what is sent */
    wire_args_int(&args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    wire_args_int(&args, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    wire_args_int(&args, GRPC_ARG_ENABLE_HTTP_PROXY,
                  0); /* an http_proxy meant for something else must not redirect the fleet */
    if (server_name)
        wire_args_str(&args, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, server_name);
    (void)snprintf(target, sizeof target, "dns:///%s", address);
    c->core = grpc_channel_create(target, creds, &args.list);
    grpc_channel_credentials_release(creds);
    return c->core ? SKF_OK : skf_fail(why, SKF_ERR_ARG, "%s: not an address that can be used", address);
}

enum skf_err skf_wire_channel_open(const char *address, const struct skf_wire_tls *tls, const char *server_name,
                                   struct skf_wire_channel **out, struct skf_why *why)
{
    *out = NULL;
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(address) > 255)
        return skf_fail(why, SKF_ERR_ARG, "%s: not an address of the form HOST:PORT", address);
    struct skf_wire_channel *c = skf_calloc(1, sizeof *c);
    if (!c)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a channel");
    enum skf_err e = SKF_OK;
    wire_core_begin();
    wire_live_init(&c->live, UINT32_MAX);
    c->explain = explain_new(address, tls);
    if (!c->explain)
        SKF_GO(e, skf_fail(why, SKF_ERR_NOMEM, "no memory for a channel"));
    SKF_GO(e, wire_queue_open(&c->queue, why));
    SKF_GO(e, core_channel(c, address, tls, server_name, why));
    *out = c;
    c = NULL;
out:
    skf_wire_channel_close(c);
    return e;
}

void skf_wire_channel_close(struct skf_wire_channel *c)
{
    if (!c)
        return;
    wire_live_close(&c->live, SKF_WIRE_CANCELLED, "the channel is closed");
    wire_live_wait(&c->live);
    if (c->core)
        grpc_channel_destroy(c->core);
    wire_queue_close(c->queue);
    wire_explain_unref(c->explain);
    wire_live_destroy(&c->live);
    skf_free(c);
}

static grpc_call *new_call(struct skf_wire_channel *c, grpc_completion_queue *cq, const char *path,
                           gpr_timespec deadline)
{
    grpc_slice method = grpc_slice_from_copied_string(path);
    grpc_call *call =
        grpc_channel_create_call(c->core, NULL, GRPC_PROPAGATE_DEFAULTS, cq, method, NULL, deadline, NULL);
    grpc_slice_unref(method);
    return call;
}

/* ---- blocking call ----------------------------------------------------------------------------------------------- */

struct unary_call {
    struct wire_node node;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *request, *answer;
    grpc_status_code status;
    grpc_slice details;
};

/* Runs the whole call as one batch on a queue of its own, so that it may be called from anywhere, a callback too. */
static enum skf_err run_call(struct unary_call *u, grpc_completion_queue *cq)
{
    grpc_op ops[6] = {
        wire_send_initial(),
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = u->request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &u->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &u->answer},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &u->trailing,
                                        .status = &u->status,
                                        .status_details = &u->details}},
    };
    if (grpc_call_start_batch(u->node.call, ops, SKF_COUNT(ops), u, NULL) != GRPC_CALL_OK)
        return SKF_ERR_INTERNAL;
    (void)grpc_completion_queue_pluck(cq, u, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL); /* the call has the deadline */
    return SKF_OK;
}

static enum skf_err take_answer(const struct skf_wire_channel *c, const struct unary_call *u, uint8_t **answer,
                                size_t *answer_len, struct skf_why *why)
{
    const uint8_t *p;
    size_t n;
    if (u->status != GRPC_STATUS_OK) {
        char said[sizeof why->text], text[sizeof why->text];
        wire_text(u->details, said, sizeof said);
        wire_explain(c->explain, (enum skf_wire_status)u->status, said, false, text, sizeof text);
        enum skf_err said_so = skf_wire_err_of((enum skf_wire_status)u->status);
        return skf_fail(why, said_so, "%s", text[0] ? text : skf_err_name(said_so));
    }
    if (!u->answer)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: an answer without a message", c->explain->address);
    enum skf_err e = wire_bytes(u->answer, &p, &n, answer);
    if (e == SKF_OK && !*answer && !(*answer = skf_memdup(p, n)))
        e = SKF_ERR_NOMEM;
    if (e != SKF_OK) {
        skf_free(*answer);
        *answer = NULL;
        return skf_fail(why, e, "%s: the answer could not be read: %s", c->explain->address, skf_err_name(e));
    }
    *answer_len = n;
    return SKF_OK;
}

enum skf_err skf_wire_call(struct skf_wire_channel *c, const char *path, const void *p, size_t n, unsigned timeout_ms,
                           uint8_t **answer, size_t *answer_len, struct skf_why *why)
{
    *answer = NULL;
    *answer_len = 0;
    if (n > SKF_WIRE_MESSAGE_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "a request of %zu bytes, at most %u", n, SKF_WIRE_MESSAGE_MAX);
    struct unary_call u = {.request = wire_buffer(p, n), .details = grpc_empty_slice()};
    if (!u.request)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for the request");
    gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (timeout_ms)
        deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_metadata_array_init(&u.initial);
    grpc_metadata_array_init(&u.trailing);
    grpc_completion_queue *cq = grpc_completion_queue_create_for_pluck(NULL);
    u.node.call = new_call(c, cq, path, deadline);
    enum skf_err e = wire_live_join(&c->live, &u.node);
    if (e != SKF_OK) {
        grpc_call_unref(u.node.call);
        (void)skf_fail(why, e, "the channel is closed");
    } else {
        e = run_call(&u, cq);
        if (e == SKF_OK)
            e = take_answer(c, &u, answer, answer_len, why);
        if (u.answer)
            grpc_byte_buffer_destroy(u.answer);
        wire_live_leave(&c->live, &u.node);
    }
    grpc_completion_queue_destroy(cq); /* nothing is under way on it */
    grpc_byte_buffer_destroy(u.request);
    grpc_slice_unref(u.details);
    grpc_metadata_array_destroy(&u.initial);
    grpc_metadata_array_destroy(&u.trailing);
    return e;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

enum skf_err skf_wire_stream_open(struct skf_wire_channel *c, const char *path, const struct skf_wire_events *ev,
                                  void *ctx, struct skf_wire_stream **out, struct skf_why *why)
{
    *out = NULL;
    /* The caller paces its attempts itself: let each of them be a real one. */
    grpc_channel_reset_connect_backoff(c->core);
    grpc_call *call = new_call(c, wire_queue_cq(c->queue), path, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    struct skf_wire_stream *s;
    enum skf_err e = wire_stream_new(call, &c->live, false, &s);
    if (e != SKF_OK)
        return skf_fail(why, e, e == SKF_ERR_STATE ? "the channel is closed" : "no memory for a stream");
    (void)atomic_fetch_add(&c->explain->refs, 1);
    s->explain = c->explain;
    s->ev = *ev;
    s->ctx = ctx;
    skf_wire_ref(s); /* the caller's: the call may end before we return */
    *out = s;
    wire_stream_begin(s);
    return SKF_OK;
}
