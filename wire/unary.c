/*
 * Unary methods of a server.  They may block (a database, a disk), so they run on a few threads of their own and never
 * hold up a queue that streams depend on; when more wait than a person would, the next is told to come back.
 */
#include "wire/wire_priv.h"

#include "base/alloc.h"
#include "base/util.h"

#define WAITING_MAX 256

struct unary {
    struct unary *next;
    const struct skf_wire_method *method; /* NULL: refused from the start */
    struct wire_pool *pool;
    struct wire_live *live;
    struct wire_node node;
    atomic_int left; /* batches under way, and one for the answer until it has been handed to the core */
    atomic_bool is_gone;
    int cancelled;
    char identity[WIRE_IDENTITY];
    grpc_byte_buffer *request;
    struct wire_op op_over, op_request, op_reply;
};

struct wire_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct unary *first, **last;
    unsigned waiting, threads;
    bool is_closed;
    pthread_t thread[];
};

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static void drop(struct unary *u)
{
    if (atomic_fetch_sub(&u->left, 1) != 1)
        return;
    if (u->request)
        grpc_byte_buffer_destroy(u->request);
    wire_live_leave(u->live, &u->node);
    skf_free(u);
}

static void on_batch(struct wire_op *op, bool ok)
{
    drop(op->owner);
}

/* Sends the one answer that every call gets, also one that is gone already; frees `answer`. */
static void reply(struct unary *u, enum skf_wire_status status, const char *text, uint8_t *take_answer, size_t n)
{
    grpc_byte_buffer *b = NULL;
    if (status == SKF_WIRE_OK && n > SKF_WIRE_MESSAGE_MAX) {
        status = SKF_WIRE_RANGE;
        text = "the answer is too long for one message";
    }
    if (status == SKF_WIRE_OK)
        b = wire_buffer_take(take_answer, n);
    else
        skf_free(take_answer);
    grpc_slice said = grpc_slice_from_copied_string(text);
    grpc_op ops[3] = {wire_send_initial(),
                      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                       .data.send_status_from_server = {.status = (grpc_status_code)status, .status_details = &said}},
                      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = b}};
    if (!wire_start(u->node.call, ops, b ? 3 : 2, &u->op_reply)) {
        (void)grpc_call_cancel(u->node.call, NULL);
        drop(u); /* for the batch that will not come back */
    }
    grpc_slice_unref(said);
    if (b)
        grpc_byte_buffer_destroy(b);
    drop(u);
}

static void answer(struct unary *u)
{
    const uint8_t *p;
    uint8_t *made = NULL, *out = NULL;
    size_t n, out_len = 0;
    struct skf_why why = {{0}};
    enum skf_err e = wire_bytes(u->request, &p, &n, &made);
    if (e == SKF_OK && atomic_load(&u->is_gone))
        e = SKF_ERR_CANCELLED;
    if (e == SKF_OK)
        e = u->method->unary(u->method->ctx, u->identity, p, n, &out, &out_len, &why);
    skf_free(made);
    reply(u, skf_wire_status_of(e), e != SKF_OK && !why.text[0] ? skf_err_name(e) : why.text, out, out_len);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void *pool_main(void *arg)
{
    struct wire_pool *p = arg;
    for (;;) {
        (void)pthread_mutex_lock(&p->lock);
        while (!p->first && !p->is_closed)
            (void)pthread_cond_wait(&p->more, &p->lock);
        struct unary *u = p->first;
        if (u) {
            p->first = u->next;
            if (!p->first)
                p->last = &p->first;
            p->waiting--;
        }
        (void)pthread_mutex_unlock(&p->lock);
        if (!u)
            return NULL;
        answer(u);
    }
}

enum skf_err wire_pool_open(unsigned threads, struct wire_pool **out, struct skf_why *why)
{
    struct wire_pool *p = skf_calloc(1, sizeof *p + threads * sizeof p->thread[0]);
    *out = NULL;
    if (!p)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for threads");
    p->last = &p->first;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->more, NULL);
    for (; p->threads < threads; p->threads++) {
        int rc = wire_thread(&p->thread[p->threads], pool_main, p);
        if (rc != 0) {
            wire_pool_close(p);
            return skf_fail_errno(why, rc, "a thread for unary methods");
        }
    }
    *out = p;
    return SKF_OK;
}

void wire_pool_close(struct wire_pool *p)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->is_closed = true;
    (void)pthread_cond_broadcast(&p->more);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        (void)pthread_join(p->thread[i], NULL);
    (void)pthread_cond_destroy(&p->more);
    (void)pthread_mutex_destroy(&p->lock);
    skf_free(p);
}

static bool is_queued(struct wire_pool *p, struct unary *u)
{
    (void)pthread_mutex_lock(&p->lock);
    bool ok = p->waiting < WAITING_MAX;
    if (ok) {
        u->next = NULL;
        *p->last = u;
        p->last = &u->next;
        p->waiting++;
        (void)pthread_cond_signal(&p->more);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return ok;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static void on_over(struct wire_op *op, bool ok)
{
    struct unary *u = op->owner;
    if (u->cancelled)
        atomic_store(&u->is_gone, true);
    drop(u);
}

static void on_request(struct wire_op *op, bool ok)
{
    struct unary *u = op->owner;
    if (!u->request)
        reply(u, SKF_WIRE_INVALID, "a request has one message", NULL, 0);
    else if (!is_queued(u->pool, u))
        reply(u, SKF_WIRE_EXHAUSTED, "too many requests wait; try again", NULL, 0);
    drop(u);
}

static struct unary *unary_new(grpc_call *take_call, struct wire_live *live)
{
    struct unary *u = skf_calloc(1, sizeof *u);
    if (u) {
        u->node.call = take_call;
        u->live = live;
        u->op_over = (struct wire_op){on_over, u};
        u->op_request = (struct wire_op){on_request, u};
        u->op_reply = (struct wire_op){on_batch, u};
        if (wire_live_join(live, &u->node) == SKF_OK)
            return u;
    }
    wire_live_refuse(take_call);
    skf_free(u);
    return NULL;
}

static void watch_end(struct unary *u)
{
    grpc_op over = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &u->cancelled};
    if (!wire_start(u->node.call, &over, 1, &u->op_over))
        drop(u);
}

void wire_unary_serve(grpc_call *take_call, struct wire_live *live, struct wire_pool *p,
                      const struct skf_wire_method *m)
{
    struct unary *u = unary_new(take_call, live);
    if (!u)
        return;
    u->method = m;
    u->pool = p;
    wire_identity(take_call, u->identity);
    atomic_init(&u->left, 4); /* end, request, reply, and the hand-over of the reply */
    watch_end(u);
    grpc_op get = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &u->request};
    if (!wire_start(u->node.call, &get, 1, &u->op_request)) {
        reply(u, SKF_WIRE_INTERNAL, "the request could not be read", NULL, 0);
        drop(u);
    }
}

void wire_refuse(grpc_call *take_call, struct wire_live *live, enum skf_wire_status status, const char *text)
{
    struct unary *u = unary_new(take_call, live);
    if (!u)
        return;
    atomic_init(&u->left, 3);
    watch_end(u);
    reply(u, status, text, NULL, 0);
}
