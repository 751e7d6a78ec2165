/*
 * What the files of wire/ share.  Everything that waits for the core is an `op`: its address is the tag, its function
 * is called on the thread of the queue that the call belongs to.
 *
 *   core.c    the core's start, its log, queues, the list of live calls, channel arguments
 *   tls.c     PEM files to credentials, the peer's identity
 *   stream.c  a bidirectional call, the same on both ends
 *   server.c  listening, accepting, closing;  unary.c  unary methods and their threads
 *   client.c  channels, blocking calls, streams;  status.c  errors to statuses and back
 */
#ifndef SKF_WIRE_WIRE_PRIV_H
#define SKF_WIRE_WIRE_PRIV_H

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdatomic.h>

#include "wire/wire.h"

/* ---- ops --------------------------------------------------------------------------------------------------------- */
struct wire_op {
    void (*fn)(struct wire_op *op, bool ok);
    void *owner;
};
/* Starts a batch. False when the core refuses it, which only a defect of ours can cause: no tag comes then. */
bool wire_start(grpc_call *call, const grpc_op *ops, size_t n, struct wire_op *op);
void wire_op_release(
    struct wire_op *op); /* for tags that go another way than wire_start; tells ThreadSanitizer, nothing else */
grpc_op wire_send_initial(void);

/* ---- core -------------------------------------------------------------------------------------------------------- */
void wire_core_begin(void);                                    /* as often as one likes */
int wire_thread(pthread_t *t, void *(*fn)(void *), void *arg); /* as pthread_create, with all signals blocked */

struct wire_queue;
SKF_MUST enum skf_err wire_queue_open(struct wire_queue **q, struct skf_why *why);
grpc_completion_queue *wire_queue_cq(struct wire_queue *q);
void wire_queue_close(struct wire_queue *q); /* drains it and joins its thread; NULL is fine */

/* Calls that are not gone yet: to cancel them and to wait for their end. */
struct wire_node {
    struct wire_node *prev, *next;
    grpc_call *call;
};
struct wire_live {
    pthread_mutex_t lock;
    pthread_cond_t empty;
    struct wire_node head; /* circular */
    unsigned count, limit;
    bool closed;
};
void wire_live_init(struct wire_live *l, unsigned limit);
void wire_live_destroy(struct wire_live *l);
SKF_MUST enum skf_err wire_live_join(struct wire_live *l,
                                     struct wire_node *n);      /* SKF_ERR_STATE closed, SKF_ERR_FULL at the limit */
void wire_live_leave(struct wire_live *l, struct wire_node *n); /* gives the call back to the core */
/* No more joins; cancels all with this status, which a server's peers are told. */
void wire_live_close(struct wire_live *l, enum skf_wire_status status, const char *text);
void wire_live_wait(struct wire_live *l); /* until none is left */
/* Gives back a call that found no place, telling its peer so. */
void wire_live_refuse(grpc_call *take_call);

struct wire_args {
    grpc_arg a[24];
    grpc_channel_args list;
};
void wire_args_common(struct wire_args *a, unsigned max_message, unsigned keepalive_ms);
void wire_args_int(struct wire_args *a, const char *key, int v);
void wire_args_str(struct wire_args *a, const char *key, const char *v);

/* A byte buffer's content in one piece: in place where it is, otherwise copied to *made (skf_free). */
SKF_MUST enum skf_err wire_bytes(grpc_byte_buffer *b, const uint8_t **p, size_t *n, uint8_t **made);
grpc_byte_buffer *wire_buffer(const void *p, size_t n);        /* copies; NULL without memory */
grpc_byte_buffer *wire_buffer_take(uint8_t *take_p, size_t n); /* takes p, which skf_free frees, also when it fails */
void wire_text(grpc_slice s, char *out, size_t cap);

/* ---- tls --------------------------------------------------------------------------------------------------------- */
SKF_MUST enum skf_err wire_server_creds(const struct skf_wire_tls *t, grpc_server_credentials **c, struct skf_why *why);
SKF_MUST enum skf_err wire_channel_creds(const struct skf_wire_tls *t, grpc_channel_credentials **c,
                                         struct skf_why *why);
#define WIRE_IDENTITY 256
void wire_identity(grpc_call *call, char out[WIRE_IDENTITY]);

/* ---- streams ----------------------------------------------------------------------------------------------------- */
struct wire_out;
struct skf_wire_stream {
    struct skf_wire_events ev;
    void *ctx;
    bool is_server;
    bool is_open; /* events may be called; used on the queue's thread only */
    grpc_call *call;
    struct wire_live *live;
    struct wire_node node;
    atomic_uint refs;
    char identity[WIRE_IDENTITY], peer[128];
    struct wire_explain *explain; /* client only */

    pthread_mutex_t lock; /* for what follows, until the next empty line */
    unsigned pending;     /* batches under way */
    unsigned call_refs;   /* who may be inside the core with `call` */
    bool over;            /* the core has said how the call ended: nothing more is started */
    bool sending;         /* one send at a time is all the core takes */
    bool ending, end_begun, cut;
    struct wire_out *first, **last;
    size_t queued, in_flight;
    enum skf_wire_status end_status;
    char end_text[sizeof(struct skf_why)];

    struct wire_op op_start, op_over, op_recv, op_send;
    grpc_byte_buffer *received;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
    int cancelled;
    bool has_initial;
};
/* Both take over `call`, also when they fail; ctx of a server's stream is what its `open` sets. */
SKF_MUST enum skf_err wire_stream_new(grpc_call *take_call, struct wire_live *live, bool is_server,
                                      struct skf_wire_stream **s);
void wire_stream_serve(struct skf_wire_stream *s, const struct skf_wire_method *m);
void wire_stream_begin(struct skf_wire_stream *s);

/* ---- unary methods of a server ----------------------------------------------------------------------------------- */
struct wire_pool;
SKF_MUST enum skf_err wire_pool_open(unsigned threads, struct wire_pool **p, struct skf_why *why);
void wire_pool_close(struct wire_pool *p); /* when no call is left; NULL is fine */
void wire_unary_serve(grpc_call *take_call, struct wire_live *live, struct wire_pool *p,
                      const struct skf_wire_method *m);
/* Ends a call that nobody serves with this status. */
void wire_refuse(grpc_call *take_call, struct wire_live *live, enum skf_wire_status status, const char *text);

/* ---- client: what a failed connection means for a person --------------------------------------------------------- */
struct wire_explain {
    atomic_uint refs;
    char address[256], ca[256], cert[256];
};
/* Writes the line for a call that ended with `status` and the core's `text`; has_initial: the peer had answered. */
void wire_explain(const struct wire_explain *x, enum skf_wire_status status, const char *text, bool has_initial,
                  char *out, size_t cap);
void wire_explain_unref(struct wire_explain *x);

#endif
