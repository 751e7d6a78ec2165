/*
 * The gRPC core under control: started once, its log sent to ours, one thread a completion queue, and the list of
 * live calls that makes an orderly end possible.
 *
 * Files of the core are close-on-exec; the library does not survive a fork (its threads do not come along), so programs
 * start others by fork and exec only.
 */
#include "wire/wire_priv.h"

#include <grpc/support/log.h>
#include <signal.h>

#include "base/alloc.h"
#include "base/util.h"

/* ThreadSanitizer does not see into the core, so it has to be told that a tag carries what its starter wrote. */
#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif
#ifdef HAS_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define TAG_ACQUIRE(p) __tsan_acquire(p)
#define TAG_RELEASE(p) __tsan_release(p)
#else
#define TAG_ACQUIRE(p) ((void)(p))
#define TAG_RELEASE(p) ((void)(p))
#endif

/* ---- start, end, log --------------------------------------------------------------------------------------------- */

/* The core prints to stderr unless told otherwise. What it calls an error is mostly a peer that behaves badly: ours to
 * note, the operator's to read when looking for it. Failed handshakes are what one looks for when a box does not come
 * up. */
static void core_log(gpr_log_func_args *a)
{
    bool is_tls = strstr(a->message, "andshake") || strstr(a->message, "SSL");
    skf_log(is_tls ? SKF_LOG_INFO : SKF_LOG_DEBUG, "grpc: %s", a->message);
}

static void block_signals(sigset_t *old)
{
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, old);
}

static void begin(void)
{
    sigset_t old;
    gpr_set_log_function(core_log);
    block_signals(&old); /* the core's own threads must not take the program's signals */
    grpc_init();
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Never undone: grpc_shutdown waits for a poller of the core's that sleeps up to ten seconds after a large write, and a
 * program that has done its work must not hang that long. What stays is a few idle threads and their state, reachable
 * and constant. */
void wire_core_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, begin);
}

int wire_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
    sigset_t old;
    block_signals(&old);
    int rc = pthread_create(t, NULL, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

/* ---- ops and queues ---------------------------------------------------------------------------------------------- */

void wire_op_release(struct wire_op *op)
{
    TAG_RELEASE(op);
}

bool wire_start(grpc_call *call, const grpc_op *ops, size_t n, struct wire_op *op)
{
    TAG_RELEASE(op);
    grpc_call_error e = grpc_call_start_batch(call, ops, n, op, NULL);
    if (e != GRPC_CALL_OK)
        skf_log(SKF_LOG_ERROR, "wire: the core refused a batch: %s", grpc_call_error_to_string(e));
    return e == GRPC_CALL_OK;
}

grpc_op wire_send_initial(void)
{
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    return op;
}

struct wire_queue {
    grpc_completion_queue *cq;
    pthread_t thread;
};

static void *queue_main(void *arg)
{
    struct wire_queue *q = arg;
    for (;;) {
        grpc_event ev = grpc_completion_queue_next(q->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (ev.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (ev.type != GRPC_OP_COMPLETE)
            continue;
        struct wire_op *op = ev.tag;
        TAG_ACQUIRE(op);
        op->fn(op, ev.success != 0);
    }
}

enum skf_err wire_queue_open(struct wire_queue **out, struct skf_why *why)
{
    struct wire_queue *q = skf_calloc(1, sizeof *q);
    *out = NULL;
    if (!q)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a queue");
    q->cq = grpc_completion_queue_create_for_next(NULL);
    int rc = wire_thread(&q->thread, queue_main, q);
    if (rc != 0) {
        grpc_completion_queue_shutdown(q->cq);
        grpc_completion_queue_destroy(q->cq);
        skf_free(q);
        return skf_fail_errno(why, rc, "a queue's thread");
    }
    *out = q;
    return SKF_OK;
}

grpc_completion_queue *wire_queue_cq(struct wire_queue *q)
{
    return q->cq;
}

void wire_queue_close(struct wire_queue *q)
{
    if (!q)
        return;
    grpc_completion_queue_shutdown(q->cq);
    (void)pthread_join(q->thread, NULL);
    grpc_completion_queue_destroy(q->cq);
    skf_free(q);
}

/* ---- live calls -------------------------------------------------------------------------------------------------- */

void wire_live_init(struct wire_live *l, unsigned limit)
{
    *l = (struct wire_live){.limit = limit};
    l->head.prev = l->head.next = &l->head;
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_cond_init(&l->empty, NULL);
}

void wire_live_destroy(struct wire_live *l)
{
    (void)pthread_cond_destroy(&l->empty);
    (void)pthread_mutex_destroy(&l->lock);
}

enum skf_err wire_live_join(struct wire_live *l, struct wire_node *n)
{
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&l->lock);
    if (l->closed) {
        e = SKF_ERR_STATE;
    } else if (l->count >= l->limit) {
        e = SKF_ERR_FULL;
    } else {
        l->count++;
        n->next = &l->head;
        n->prev = l->head.prev;
        n->prev->next = n->next->prev = n;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return e;
}

void wire_live_leave(struct wire_live *l, struct wire_node *n)
{
    (void)pthread_mutex_lock(&l->lock);
    n->prev->next = n->next;
    n->next->prev = n->prev;
    (void)pthread_mutex_unlock(&l->lock);
    grpc_call_unref(n->call); /* before the count falls: at zero the server may be destroyed */
    (void)pthread_mutex_lock(&l->lock);
    if (--l->count == 0)
        (void)pthread_cond_broadcast(&l->empty);
    (void)pthread_mutex_unlock(&l->lock);
}

void wire_live_close(struct wire_live *l, enum skf_wire_status status, const char *text)
{
    (void)pthread_mutex_lock(&l->lock);
    l->closed = true;
    for (struct wire_node *n = l->head.next; n != &l->head; n = n->next)
        (void)grpc_call_cancel_with_status(n->call, (grpc_status_code)status, text, NULL);
    (void)pthread_mutex_unlock(&l->lock);
}

void wire_live_refuse(grpc_call *take_call)
{
    (void)grpc_call_cancel_with_status(take_call, GRPC_STATUS_RESOURCE_EXHAUSTED, "too many calls at a time", NULL);
    grpc_call_unref(take_call);
}

void wire_live_wait(struct wire_live *l)
{
    (void)pthread_mutex_lock(&l->lock);
    while (l->count > 0)
        (void)pthread_cond_wait(&l->empty, &l->lock);
    (void)pthread_mutex_unlock(&l->lock);
}

/* ---- channel arguments ------------------------------------------------------------------------------------------- */

void wire_args_int(struct wire_args *a, const char *key, int v)
{
    if (a->list.num_args == SKF_COUNT(a->a))
        return;
    a->a[a->list.num_args++] = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = v};
    a->list.args = a->a;
}

void wire_args_str(struct wire_args *a, const char *key, const char *v)
{
    if (a->list.num_args == SKF_COUNT(a->a))
        return;
    a->a[a->list.num_args++] = (grpc_arg){.type = GRPC_ARG_STRING, .key = (char *)key, .value.string = (char *)v};
    a->list.args = a->a;
}

/* A peer that died without a word (power, cable) is noticed after one ping interval and its time-out: 25 s by default.
 * Pings go on however long a stream is idle, and the other side must allow them as often as we send them, or it ends
 * the connection with "too many pings". */
void wire_args_common(struct wire_args *a, unsigned max_message, unsigned keepalive_ms)
{
    unsigned most = max_message ? SKF_MIN(max_message, SKF_WIRE_MESSAGE_MAX) : SKF_WIRE_MESSAGE_MAX;
    unsigned every = keepalive_ms ? SKF_MIN(keepalive_ms, 3600000u) : 15000;
    *a = (struct wire_args){.list = {0, NULL}};
    wire_args_int(a, GRPC_ARG_KEEPALIVE_TIME_MS, (int)every);
    wire_args_int(a, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (int)SKF_MIN(every, 10000u));
    wire_args_int(a, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    wire_args_int(a, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)most);
    wire_args_int(a, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, (int)SKF_WIRE_MESSAGE_MAX);
    /* The core unpacks a compressed message whole before it looks at the limit: a thousand times what was sent. What is
     * worth it is compressed in the artifact, so no compression is taken, and peers are told so. */
    wire_args_int(a, GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE);
    wire_args_int(a, GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    wire_args_int(a, GRPC_ARG_ENABLE_CHANNELZ, 0);
    wire_args_int(a, GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

enum skf_err wire_bytes(grpc_byte_buffer *b, const uint8_t **p, size_t *n, uint8_t **made)
{
    *made = NULL;
    *p = (const uint8_t *)"";
    *n = 0;
    grpc_byte_buffer_reader r;
    if (b->type == GRPC_BB_RAW && b->data.raw.compression != GRPC_COMPRESS_NONE)
        return SKF_ERR_UNSUPPORTED;
    if (!grpc_byte_buffer_reader_init(&r, b))
        return SKF_ERR_FORMAT;
    size_t total = grpc_byte_buffer_length(r.buffer_out), at = 0;
    enum skf_err e = SKF_OK;
    grpc_slice *part;
    while (at < total && grpc_byte_buffer_reader_peek(&r, &part)) {
        const uint8_t *from = GRPC_SLICE_START_PTR(*part);
        size_t len = GRPC_SLICE_LENGTH(*part);
        if (at == 0 && len == total) { /* the slice belongs to the buffer, which outlives the callback */
            *p = from;
            at = total;
            break;
        }
        if (!*made && !(*made = skf_alloc(total))) {
            e = SKF_ERR_NOMEM;
            break;
        }
        len = SKF_MIN(len, total - at);
        memcpy(*made + at, from, len);
        at += len;
        *p = *made;
    }
    if (e == SKF_OK && at != total)
        e = SKF_ERR_FORMAT;
    *n = total;
    grpc_byte_buffer_reader_destroy(&r);
    return e;
}

static void slice_free(void *p)
{
    skf_free(p);
}

grpc_byte_buffer *wire_buffer_take(uint8_t *take_p, size_t n)
{
    grpc_slice s = n ? grpc_slice_new_with_user_data(take_p, n, slice_free, take_p) : grpc_empty_slice();
    if (!n)
        skf_free(take_p);
    grpc_byte_buffer *b = grpc_raw_byte_buffer_create(&s, 1);
    grpc_slice_unref(s);
    return b;
}

grpc_byte_buffer *wire_buffer(const void *p, size_t n)
{
    uint8_t *copy = skf_memdup(p, n);
    return copy ? wire_buffer_take(copy, n) : NULL;
}

void wire_text(grpc_slice s, char *out, size_t cap)
{
    size_t n = SKF_MIN(GRPC_SLICE_LENGTH(s), cap - 1);
    memcpy(out, GRPC_SLICE_START_PTR(s), n);
    out[n] = 0;
    for (size_t i = 0; i < n; i++) /* it is printed on one line, and comes from the peer */
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = ' ';
}
