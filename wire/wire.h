/*
 * A thin layer over the gRPC C core: a server with unary and bidirectional methods, a client channel, mutual TLS.
 *
 * Messages cross this header as byte strings (packed protobuf); proto/ makes and checks them.  Threads: the layer runs
 * its own completion-queue threads; callbacks come on them, one at a time for one call, and must not block for long.
 * Every call may be used from any thread.  Nothing here survives a fork: fork and exec only (the layer's files are
 * close-on-exec).  A send is not a delivery: what must be known to have arrived is acknowledged in the protocol.
 */
#ifndef SKF_WIRE_WIRE_H
#define SKF_WIRE_WIRE_H

#include "base/err.h"

#define SKF_WIRE_MESSAGE_MAX (4u << 20) /* bytes of one message */

/* PEM files; on an enrolment port ca_path is NULL: no client certificate asked. */
struct skf_wire_tls {
    const char *ca_path, *cert_path, *key_path;
    bool is_open_key_fine; /* otherwise a key that others than its owner can read is SKF_ERR_REFUSED */
};

/* gRPC's own status numbers. */
enum skf_wire_status {
    SKF_WIRE_OK = 0,
    SKF_WIRE_CANCELLED = 1,
    SKF_WIRE_UNKNOWN = 2,
    SKF_WIRE_INVALID = 3,
    SKF_WIRE_DEADLINE = 4,
    SKF_WIRE_NOT_FOUND = 5,
    SKF_WIRE_EXISTS = 6,
    SKF_WIRE_PERMISSION = 7,
    SKF_WIRE_EXHAUSTED = 8,
    SKF_WIRE_PRECONDITION = 9,
    SKF_WIRE_ABORTED = 10,
    SKF_WIRE_RANGE = 11,
    SKF_WIRE_UNIMPLEMENTED = 12,
    SKF_WIRE_INTERNAL = 13,
    SKF_WIRE_UNAVAILABLE = 14,
    SKF_WIRE_DATA_LOSS = 15,
    SKF_WIRE_UNAUTHENTICATED = 16
};
enum skf_wire_status skf_wire_status_of(enum skf_err e);
enum skf_err skf_wire_err_of(enum skf_wire_status s);

/* ---- a stream: one bidirectional call, the same on both ends ----------------------------------------------------- */
struct skf_wire_stream;
struct skf_wire_events {
    /* One message came; the bytes live during the call. Return an error to end the stream with that status and text.
     * The next message is asked for when this has returned: to take one's time here holds the peer back. */
    enum skf_err (*message)(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why);
    /* Nothing waits behind what is being sent: a good time to send the next chunk (pull, so that a slow peer costs no
     * memory). Comes after each send that went out, also when there is nothing more to say; never before the first
     * send. May be NULL. */
    void (*writable)(void *ctx, struct skf_wire_stream *s);
    /* Server only: the client will send no more (a client learns from `done`). The call stays open until skf_wire_end.
     * When NULL the layer ends the call with OK, once all that was queued has been sent. */
    void (*half_close)(void *ctx, struct skf_wire_stream *s);
    /* Called once, last; `s` is gone afterwards but for references that were taken. On a client, why the call ended; on
     * a server, whether the peer went first. */
    void (*done)(void *ctx, struct skf_wire_stream *s, enum skf_wire_status status, const char *text);
};
#define SKF_WIRE_OUTBOX (8u << 20)
/* Queues a message (copied). SKF_ERR_FULL when more than SKF_WIRE_OUTBOX bytes wait already (a `writable` will come);
 * SKF_ERR_LIMIT over SKF_WIRE_MESSAGE_MAX; SKF_ERR_NET when the call is over, or ended by us. May write to the socket,
 * on this thread. */
SKF_MUST enum skf_err skf_wire_send(struct skf_wire_stream *s, const void *p, size_t n);
size_t skf_wire_queued(struct skf_wire_stream *s); /* bytes that wait to be sent */
/* Server: ends the call, with OK after all that is queued, otherwise at once. Client: half-closes on OK, otherwise
 * cancels. The first end counts; `done` still comes. */
void skf_wire_end(struct skf_wire_stream *s, enum skf_wire_status status, const char *text);
void skf_wire_ref(struct skf_wire_stream *s); /* keep the handle valid beyond `done` (calls then fail) */
void skf_wire_unref(struct skf_wire_stream *s);
/* The peer's SPIFFE URI from its verified certificate; "" without one. On a client "" until the first message. */
const char *skf_wire_identity(const struct skf_wire_stream *s);
const char *skf_wire_peer(const struct skf_wire_stream *s); /* address, for the log only */

/* ---- server ------------------------------------------------------------------------------------------------------ */
struct skf_wire_server;
struct skf_wire_method {
    const char *path; /* "/skiff.v1.Fleet/Session" */
    /* A new stream: authorise by identity, set *stream_ctx; an error refuses the call, and none of its events is
     * called. NULL lets everybody in, with ctx. Unary methods have `unary` instead. */
    enum skf_err (*open)(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why);
    struct skf_wire_events events; /* called with stream_ctx */
    /* Called on a worker thread of its own pool (it may block); puts the packed answer, freed with skf_free. */
    enum skf_err (*unary)(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                          size_t *answer_len, struct skf_why *why);
    void *ctx;
};
struct skf_wire_server_opts {
    const char *listen; /* "127.0.0.1:7443"; port 0 takes any */
    struct skf_wire_tls tls;
    unsigned threads;     /* completion queues; 0 for 2 */
    unsigned max_streams; /* calls at a time, of all peers; 0 for 20,000. One peer's connection has at most 512. */
    unsigned max_message; /* bytes of a message taken; 0 for SKF_WIRE_MESSAGE_MAX. Small where anybody may connect. */
    unsigned keepalive_ms; /* 0 for 15,000; a silent peer is taken for dead after this and 10 s (or as long again) */
};
/* SKF_ERR_BUSY naming the address when the port is in use. Methods are copied; the layer answers grpc.health.v1. */
SKF_MUST enum skf_err skf_wire_server_open(const struct skf_wire_server_opts *o, const struct skf_wire_method *methods,
                                           size_t n, struct skf_wire_server **s, struct skf_why *why);
int skf_wire_server_port(const struct skf_wire_server *s);
/* Ends every call, waits for their done and for unary methods under way, frees. Not from a callback. NULL is fine. */
void skf_wire_server_close(struct skf_wire_server *s);

/* ---- client ------------------------------------------------------------------------------------------------------ */
struct skf_wire_channel;
/* Does not connect yet. `server_name` overrides the name expected in the server's certificate (NULL: the address's
 * host). */
SKF_MUST enum skf_err skf_wire_channel_open(const char *address, const struct skf_wire_tls *tls,
                                            const char *server_name, struct skf_wire_channel **c, struct skf_why *why);
/* Cancels its streams and calls, waits for their done. Not from a callback. NULL is fine. */
void skf_wire_channel_close(struct skf_wire_channel *c);
/* Blocks until the answer or the deadline (0: none). The peer's status becomes the error, its text goes to `why`; a
 * connection that fails is told apart there: nobody listens, a certificate that we refuse, or a server that refuses
 * ours. Free with skf_free. */
SKF_MUST enum skf_err skf_wire_call(struct skf_wire_channel *c, const char *path, const void *p, size_t n,
                                    unsigned timeout_ms, uint8_t **answer, size_t *answer_len, struct skf_why *why);
/* Begins a stream; fails fast (done with UNAVAILABLE) when there is no connection: the caller waits and tries again, at
 * its own pace. Callbacks may come before this returns, `done` too; so *s is set first, and it is a reference of the
 * caller's, valid until its skf_wire_unref (on a server the layer alone holds one: take your own to keep the handle
 * beyond `done`). */
SKF_MUST enum skf_err skf_wire_stream_open(struct skf_wire_channel *c, const char *path,
                                           const struct skf_wire_events *ev, void *ctx, struct skf_wire_stream **s,
                                           struct skf_why *why);

#endif
