/*
 * A bidirectional call, the same on both ends.
 *
 * The core takes one send at a time, so there is an outbox and a flag; it delivers one message for each receive that is
 * posted, and the next is posted when the callback has returned: the peer is held back by flow control, not by our
 * memory.
 *
 * Batches under way are counted (`pending`).  When the core has said how the call ended (`over`), nothing more is
 * started, what is under way comes back, and when the last batch has come back `done` is called: last and once, on the
 * queue's thread like every other callback.  The core's call is given back when nobody is inside the core with it any
 * more (`call_refs`); the struct itself lives until the last skf_wire_unref.
 */
#include "wire/wire_priv.h"

#include "base/alloc.h"
#include "base/util.h"

/* A server's first word on a stream. The core completes the batch that waits for it for a call that failed, too; who
 * has seen it was let in, and a connection that breaks later was not refused. */
#define MARK "skiff-wire"

struct wire_out {
    struct wire_out *next;
    grpc_byte_buffer *bytes;
    size_t n;
};

/* What the outbox wants to be sent next. */
struct step {
    enum { STEP_NONE, STEP_MESSAGE, STEP_END } kind;
    struct wire_out *out;
};

static void out_free(struct wire_out *o)
{
    if (!o)
        return;
    grpc_byte_buffer_destroy(o->bytes);
    skf_free(o);
}

/* With the lock held. What is in flight stays counted until it comes back. */
static void drop_outbox(struct skf_wire_stream *s)
{
    for (struct wire_out *o = s->first, *next; o; o = next) {
        next = o->next;
        out_free(o);
    }
    s->first = NULL;
    s->last = &s->first;
    s->queued = s->in_flight;
}

static void stream_free(struct skf_wire_stream *s)
{
    drop_outbox(s);
    if (s->received)
        grpc_byte_buffer_destroy(s->received);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->details);
    wire_explain_unref(s->explain);
    (void)pthread_mutex_destroy(&s->lock);
    skf_free(s);
}

void skf_wire_ref(struct skf_wire_stream *s)
{
    (void)atomic_fetch_add(&s->refs, 1);
}

void skf_wire_unref(struct skf_wire_stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1)
        stream_free(s);
}

const char *skf_wire_identity(const struct skf_wire_stream *s)
{
    return s->identity;
}
const char *skf_wire_peer(const struct skf_wire_stream *s)
{
    return s->peer;
}

/* One who was inside the core with the call has left it. */
static void call_leave(struct skf_wire_stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool is_last = --s->call_refs == 0;
    (void)pthread_mutex_unlock(&s->lock);
    if (is_last) {
        wire_live_leave(s->live, &s->node);
        skf_wire_unref(s);
    }
}

static bool is_live_closed(struct wire_live *l)
{
    (void)pthread_mutex_lock(&l->lock);
    bool is = l->closed;
    (void)pthread_mutex_unlock(&l->lock);
    return is;
}

static void how_it_ended(struct skf_wire_stream *s, enum skf_wire_status *status, char *text, size_t cap)
{
    *status = s->end_status;
    (void)snprintf(text, cap, "%s", s->end_text);
    if (!s->is_server) {
        char said[sizeof s->end_text];
        wire_text(s->details, said, sizeof said);
        *status = (enum skf_wire_status)s->status;
        wire_explain(s->explain, *status, said, s->has_initial, text, cap);
    } else if (s->cancelled && !s->cut) {
        bool is_ours = is_live_closed(s->live);
        *status = is_ours ? SKF_WIRE_UNAVAILABLE : SKF_WIRE_CANCELLED;
        (void)snprintf(text, cap, "%s", is_ours ? "the server closes" : "the peer went away");
    }
}

/* A batch has come back; on the queue's thread. */
static void batch_over(struct skf_wire_stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool is_done = --s->pending == 0 && s->over;
    (void)pthread_mutex_unlock(&s->lock);
    if (!is_done)
        return;
    if (s->is_open) {
        enum skf_wire_status status;
        char text[sizeof(struct skf_why)];
        how_it_ended(s, &status, text, sizeof text);
        s->is_open = false;
        if (s->ev.done)
            s->ev.done(s->ctx, s, status, text);
    }
    call_leave(s);
}

/* Counts a batch that is about to start; false when the call is over. */
static bool is_begun(struct skf_wire_stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool ok = !s->over;
    s->pending += ok;
    s->call_refs += ok;
    (void)pthread_mutex_unlock(&s->lock);
    return ok;
}

/* Starts a batch that is_begun or next_step has counted. */
static void start(struct skf_wire_stream *s, const grpc_op *ops, size_t n, struct wire_op *op)
{
    if (!wire_start(s->call, ops, n, op)) {
        (void)grpc_call_cancel(s->call, NULL);
        (void)pthread_mutex_lock(&s->lock);
        s->pending--; /* never the last: the batch that tells the end is always under way before any of these */
        (void)pthread_mutex_unlock(&s->lock);
    }
    call_leave(s);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

/* With the lock held: takes what is to be sent next and counts its batch. */
static struct step next_step(struct skf_wire_stream *s)
{
    struct step st = {STEP_NONE, NULL};
    if (s->sending || s->over || s->cut)
        return st;
    if (s->first) {
        st = (struct step){STEP_MESSAGE, s->first};
        s->first = st.out->next;
        if (!s->first)
            s->last = &s->first;
        s->in_flight = st.out->n;
    } else if (s->ending && !s->end_begun) {
        st.kind = STEP_END;
        s->end_begun = true;
    } else {
        return st;
    }
    s->sending = true;
    s->pending++;
    s->call_refs++;
    return st;
}

/* Without the lock: the core may write to the socket, and encrypt, right here. */
static void run_step(struct skf_wire_stream *s, struct step st)
{
    if (st.kind == STEP_MESSAGE) {
        grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = st.out->bytes};
        start(s, &op, 1, &s->op_send);
        out_free(st.out); /* the core has its own references by now */
    } else if (st.kind == STEP_END && s->is_server) {
        grpc_slice text = grpc_slice_from_copied_string(s->end_text);
        grpc_op op = {
            .op = GRPC_OP_SEND_STATUS_FROM_SERVER,
            .data.send_status_from_server = {.status = (grpc_status_code)s->end_status, .status_details = &text}};
        start(s, &op, 1, &s->op_send);
        grpc_slice_unref(text);
    } else if (st.kind == STEP_END) {
        grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
        start(s, &op, 1, &s->op_send);
    }
}

static void on_send(struct wire_op *op, bool ok)
{
    struct skf_wire_stream *s = op->owner;
    (void)pthread_mutex_lock(&s->lock);
    s->sending = false;
    s->queued -= s->in_flight;
    s->in_flight = 0;
    if (!ok)
        drop_outbox(s);
    struct step st = next_step(s);
    bool is_writable = ok && !s->first && !s->ending && !s->over;
    (void)pthread_mutex_unlock(&s->lock);
    run_step(s, st);
    if (is_writable && s->is_open && s->ev.writable)
        s->ev.writable(s->ctx, s);
    batch_over(s);
}

static enum skf_err refusal(const struct skf_wire_stream *s)
{
    if (s->over || s->ending || s->cut)
        return SKF_ERR_NET;
    return s->queued > SKF_WIRE_OUTBOX ? SKF_ERR_FULL : SKF_OK;
}

enum skf_err skf_wire_send(struct skf_wire_stream *s, const void *p, size_t n)
{
    if (n > SKF_WIRE_MESSAGE_MAX)
        return SKF_ERR_LIMIT;
    (void)pthread_mutex_lock(&s->lock);
    enum skf_err e = refusal(s);
    (void)pthread_mutex_unlock(&s->lock);
    if (e != SKF_OK)
        return e; /* before the copy is made: a full outbox is the common case of a slow peer */

    struct wire_out *o = skf_calloc(1, sizeof *o);
    if (o)
        *o = (struct wire_out){NULL, wire_buffer(p, n), n};
    if (!o || !o->bytes) {
        skf_free(o);
        return SKF_ERR_NOMEM;
    }
    struct step st = {STEP_NONE, NULL};
    (void)pthread_mutex_lock(&s->lock);
    e = refusal(s);
    if (e == SKF_OK) {
        *s->last = o;
        s->last = &o->next;
        s->queued += n;
        st = next_step(s);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (e != SKF_OK)
        out_free(o);
    run_step(s, st);
    return e;
}

size_t skf_wire_queued(struct skf_wire_stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    size_t n = s->queued;
    (void)pthread_mutex_unlock(&s->lock);
    return n;
}

void skf_wire_end(struct skf_wire_stream *s, enum skf_wire_status status, const char *text)
{
    struct step st = {STEP_NONE, NULL};
    bool is_cut = false;
    (void)pthread_mutex_lock(&s->lock);
    bool is_new = !s->over && !s->cut && !(s->ending && (s->is_server || status == SKF_WIRE_OK));
    if (is_new) {
        s->ending = true;
        s->end_status = status;
        (void)snprintf(s->end_text, sizeof s->end_text, "%s", text ? text : "");
        if (status != SKF_WIRE_OK) {
            /* What waits is of no use to anybody now, and the peer may not be reading. */
            drop_outbox(s);
            is_cut = s->cut = !s->is_server || s->sending;
            s->call_refs += is_cut;
        }
        st = next_step(s);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (is_cut) {
        (void)grpc_call_cancel_with_status(s->call, (grpc_status_code)status, text ? text : "", NULL);
        call_leave(s);
    }
    run_step(s, st);
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static void receive(struct skf_wire_stream *s)
{
    if (!is_begun(s))
        return;
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &s->received};
    start(s, &op, 1, &s->op_recv);
}

static bool is_cut_off(struct skf_wire_stream *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool is = s->over || s->cut || (s->is_server && s->ending);
    (void)pthread_mutex_unlock(&s->lock);
    return is;
}

static void take_message(struct skf_wire_stream *s)
{
    const uint8_t *p;
    uint8_t *made;
    size_t n;
    struct skf_why why = {{0}};
    enum skf_err e = wire_bytes(s->received, &p, &n, &made);
    if (e != SKF_OK)
        (void)skf_fail(&why, e, "a message could not be read");
    else if (s->ev.message)
        e = s->ev.message(s->ctx, s, p, n, &why);
    skf_free(made);
    grpc_byte_buffer_destroy(s->received);
    s->received = NULL;
    if (e != SKF_OK)
        skf_wire_end(s, skf_wire_status_of(e), why.text[0] ? why.text : skf_err_name(e));
    else
        receive(s);
}

static void on_recv(struct wire_op *op, bool ok)
{
    struct skf_wire_stream *s = op->owner;
    bool cut_off = is_cut_off(s);
    if (s->received && ok && !cut_off) {
        take_message(s);
    } else if (s->received) {
        grpc_byte_buffer_destroy(s->received);
        s->received = NULL;
    } else if (ok && !cut_off && s->is_server && s->is_open) {
        if (s->ev.half_close)
            s->ev.half_close(s->ctx, s);
        else
            skf_wire_end(s, SKF_WIRE_OK, "");
    }
    batch_over(s);
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static void on_start(struct wire_op *op, bool ok)
{
    struct skf_wire_stream *s = op->owner;
    if (ok && !s->is_server) {
        for (size_t i = 0; i < s->initial.count; i++)
            s->has_initial = s->has_initial || grpc_slice_str_cmp(s->initial.metadata[i].key, MARK) == 0;
        wire_identity(s->call, s->identity);
    }
    batch_over(s);
}

static void on_over(struct wire_op *op, bool ok)
{
    struct skf_wire_stream *s = op->owner;
    (void)pthread_mutex_lock(&s->lock);
    s->over = true;
    drop_outbox(s);
    (void)pthread_mutex_unlock(&s->lock);
    batch_over(s);
}

enum skf_err wire_stream_new(grpc_call *take_call, struct wire_live *live, bool is_server, struct skf_wire_stream **out)
{
    struct skf_wire_stream *s = skf_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) {
        wire_live_refuse(take_call);
        return SKF_ERR_NOMEM;
    }
    s->call = s->node.call = take_call;
    s->live = live;
    s->is_server = is_server;
    s->last = &s->first;
    s->details = grpc_empty_slice();
    s->op_start = (struct wire_op){on_start, s};
    s->op_over = (struct wire_op){on_over, s};
    s->op_recv = (struct wire_op){on_recv, s};
    s->op_send = (struct wire_op){on_send, s};
    s->call_refs = 1;
    atomic_init(&s->refs, 1);
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    (void)pthread_mutex_init(&s->lock, NULL);
    char *peer = grpc_call_get_peer(take_call);
    if (peer)
        (void)snprintf(s->peer, sizeof s->peer, "%s", peer);
    gpr_free(peer);
    enum skf_err e = wire_live_join(live, &s->node);
    if (e != SKF_OK) {
        wire_live_refuse(take_call);
        stream_free(s);
        return e;
    }
    *out = s;
    return SKF_OK;
}

/* Posts the batch that tells the end, then the headers. */
static void start_ends(struct skf_wire_stream *s)
{
    grpc_op over = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &s->cancelled};
    if (!s->is_server)
        over = (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                         .data.recv_status_on_client = {
                             .trailing_metadata = &s->trailing, .status = &s->status, .status_details = &s->details}};
    grpc_metadata mark = {.key = grpc_slice_from_static_string(MARK), .value = grpc_slice_from_static_string("1")};
    grpc_op head[2] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &s->initial}};
    if (s->is_server)
        head[0].data.send_initial_metadata = (struct grpc_op_send_initial_metadata){.count = 1, .metadata = &mark};
    if (is_begun(s))
        start(s, &over, 1, &s->op_over);
    if (is_begun(s))
        start(s, head, s->is_server ? 1 : 2, &s->op_start);
}

void wire_stream_begin(struct skf_wire_stream *s)
{
    s->is_open = true;
    start_ends(s);
    receive(s);
}

void wire_stream_serve(struct skf_wire_stream *s, const struct skf_wire_method *m)
{
    struct skf_why why = {{0}};
    void *ctx = m->ctx;
    wire_identity(s->call, s->identity);
    skf_wire_ref(s); /* `open` may end the call, but all callbacks come on this thread, after us */
    start_ends(s);
    enum skf_err e = m->open ? m->open(m->ctx, s, &ctx, &why) : SKF_OK;
    if (e == SKF_OK) {
        s->ev = m->events;
        s->ctx = ctx;
        s->is_open = true;
        receive(s);
    } else {
        skf_wire_end(s, skf_wire_status_of(e), why.text[0] ? why.text : skf_err_name(e));
    }
    skf_wire_unref(s);
}
