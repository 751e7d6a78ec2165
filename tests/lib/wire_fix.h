/*
 * A test server of wire/ and a client that writes down what happens to it: for the tests of wire/, which share it by
 * inclusion.
 */
#ifndef SKF_TESTS_WIRE_FIX_H
#define SKF_TESTS_WIRE_FIX_H

#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"
#include "wire/wire.h"

extern char **environ;

#define TLS_DIR "tests/vectors/tls/"
#define TLS_OF(name)                                                                                                   \
    {                                                                                                                  \
        TLS_DIR "ca.crt", TLS_DIR name ".crt", TLS_DIR name ".key", true                                               \
    }

static const struct skf_wire_tls tls_server = TLS_OF("server");
static const struct skf_wire_tls tls_device = TLS_OF("device");

static inline uint64_t patience_ns(void)
{
    const char *slow = getenv("SKF_SLOW");
    double factor = slow ? strtod(slow, NULL) : 1;
    return (uint64_t)((factor < 1 ? 1 : factor) * 30e9);
}

/* ---- what happened ----------------------------------------------------------------------------------------------- */
struct record {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned messages, dones, half_closes, writables;
    size_t bytes;
    bool bad; /* a message was not the next of `fill` */
    bool is_slow;
    enum skf_wire_status status;
    char text[512];
};
#define RECORD_INIT                                                                                                    \
    {                                                                                                                  \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                                         \
    }

#define NOTE(r, what)                                                                                                  \
    do {                                                                                                               \
        pthread_mutex_lock(&(r)->lock);                                                                                \
        what;                                                                                                          \
        pthread_cond_broadcast(&(r)->changed);                                                                         \
        pthread_mutex_unlock(&(r)->lock);                                                                              \
    } while (0)

/* Waits until the condition holds, a long time at most; the result is whether it does. */
#define WAIT(r, condition)                                                                                             \
    ({                                                                                                                 \
        uint64_t wait_until = skf_now_ns() + patience_ns();                                                            \
        pthread_mutex_lock(&(r)->lock);                                                                                \
        while (!(condition) && skf_now_ns() < wait_until) {                                                            \
            struct timespec wait_ts;                                                                                   \
            clock_gettime(CLOCK_REALTIME, &wait_ts);                                                                   \
            wait_ts.tv_sec++;                                                                                          \
            pthread_cond_timedwait(&(r)->changed, &(r)->lock, &wait_ts);                                               \
        }                                                                                                              \
        bool wait_ok = (condition);                                                                                    \
        pthread_mutex_unlock(&(r)->lock);                                                                              \
        wait_ok;                                                                                                       \
    })

/* Message i: its number, then bytes that follow from it. */
static inline void fill(uint8_t *p, size_t n, uint32_t i)
{
    for (size_t k = 0; k < n; k++)
        p[k] = (uint8_t)(i + k * 7);
    for (size_t k = 0; k < n && k < 4; k++)
        p[k] = (uint8_t)(i >> 8 * k);
}

static inline bool is_fill(const uint8_t *p, size_t n, uint32_t i)
{
    for (size_t k = 0; k < n; k++)
        if (p[k] != (k < 4 ? (uint8_t)(i >> 8 * k) : (uint8_t)(i + k * 7)))
            return false;
    return true;
}

static inline enum skf_err on_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n,
                                      struct skf_why *why)
{
    struct record *r = ctx;
    if (r->is_slow)
        skf_sleep_ms(5);
    bool good = is_fill(p, n, r->messages);
    NOTE(r, (r->messages++, r->bytes += n, r->bad = r->bad || !good));
    return SKF_OK;
}
static inline void on_writable(void *ctx, struct skf_wire_stream *s)
{
    NOTE((struct record *)ctx, ((struct record *)ctx)->writables++);
}
static inline void on_half_close(void *ctx, struct skf_wire_stream *s)
{
    NOTE((struct record *)ctx, ((struct record *)ctx)->half_closes++);
}
static inline void on_done(void *ctx, struct skf_wire_stream *s, enum skf_wire_status status, const char *text)
{
    struct record *r = ctx;
    NOTE(r, (r->dones++, r->status = status, (void)snprintf(r->text, sizeof r->text, "%s", text)));
}
static const struct skf_wire_events recorder = {on_message, on_writable, on_half_close, on_done};

/* ---- the server's methods: all of their contexts are this -------------------------------------------------------- */
struct server_side {
    struct record all;     /* what the Sink and Echo streams of this server saw */
    unsigned open, opened; /* under all.lock */
    char identity[256];
    atomic_uint unary_running;
};

static inline enum skf_err side_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    struct server_side *side = ctx;
    *stream_ctx = side;
    NOTE(&side->all, (side->open++, side->opened++,
                      (void)snprintf(side->identity, sizeof side->identity, "%s", skf_wire_identity(s))));
    return SKF_OK;
}
static inline void side_done(void *ctx, struct skf_wire_stream *s, enum skf_wire_status status, const char *text)
{
    struct server_side *side = ctx;
    NOTE(&side->all, (side->open--, side->all.dones++, side->all.status = status,
                      (void)snprintf(side->all.text, sizeof side->all.text, "%s", text)));
}

static inline enum skf_err echo_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n,
                                        struct skf_why *why)
{
    if (n == 3 && memcmp(p, "bad", 3) == 0)
        return skf_fail(why, SKF_ERR_DIGEST, "chunk 7: not what it says");
    if (n == 3 && memcmp(p, "end", 3) == 0) {
        skf_wire_end(s, SKF_WIRE_ABORTED, "as you wish");
        return SKF_OK;
    }
    return skf_wire_send(s, p, n);
}
/* Push: the first message is u32 count, u32 size; the answers are pulled by `writable`. */
struct push {
    struct server_side *side;
    uint32_t count, size, next;
    size_t most_queued;
};
static inline enum skf_err push_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    struct push *p = skf_calloc(1, sizeof *p);
    p->side = ctx;
    *stream_ctx = p;
    NOTE(&p->side->all, p->side->open++);
    return SKF_OK;
}
static inline void push_writable(void *ctx, struct skf_wire_stream *s)
{
    struct push *p = ctx;
    if (p->next == p->count) {
        skf_wire_end(s, SKF_WIRE_OK, "");
        return;
    }
    uint8_t *m = skf_alloc(p->size);
    fill(m, p->size, p->next);
    if (skf_wire_send(s, m, p->size) == SKF_OK)
        p->next++;
    skf_free(m);
    p->most_queued = SKF_MAX(p->most_queued, skf_wire_queued(s));
}
static inline enum skf_err push_message(void *ctx, struct skf_wire_stream *s, const uint8_t *m, size_t n,
                                        struct skf_why *why)
{
    struct push *p = ctx;
    memcpy(&p->count, m, 4);
    memcpy(&p->size, m + 4, 4);
    push_writable(ctx, s);
    return SKF_OK;
}
static inline void push_half_close(void *ctx, struct skf_wire_stream *s) {}
static inline void push_done(void *ctx, struct skf_wire_stream *s, enum skf_wire_status status, const char *text)
{
    struct push *p = ctx;
    struct server_side *side = p->side;
    side->all.bytes = p->most_queued;
    skf_free(p);
    side_done(side, s, status, text);
}

static inline enum skf_err refuse_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    return skf_fail(why, SKF_ERR_REFUSED, "%s is not an operator", skf_wire_identity(s));
}

/* Unary: "who" answers the identity, "fail N" fails with error N, "sleep MS" waits, "big N" answers N bytes, all else
 * comes back. */
static inline enum skf_err unary(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                                 size_t *answer_len, struct skf_why *why)
{
    struct server_side *side = ctx;
    char text[32] = "";
    memcpy(text, p, SKF_MIN(n, sizeof text - 1));
    unsigned long v = strchr(text, ' ') ? strtoul(strchr(text, ' '), NULL, 10) : 0;
    atomic_fetch_add(&side->unary_running, 1);
    if (strncmp(text, "sleep ", 6) == 0)
        skf_sleep_ms((unsigned)v);
    atomic_fetch_sub(&side->unary_running, 1);
    if (strncmp(text, "fail ", 5) == 0)
        return skf_fail(why, (enum skf_err)v, "failed with %lu, as asked: é", v);
    if (strncmp(text, "mute ", 5) == 0)
        return (enum skf_err)v;
    bool is_who = strcmp(text, "who") == 0, is_big = strncmp(text, "big ", 4) == 0;
    *answer_len = is_who ? strlen(identity) : is_big ? v : n;
    *answer = is_big ? skf_calloc(1, v) : skf_memdup(is_who ? (const void *)identity : p, *answer_len);
    return SKF_OK;
}

static inline struct skf_wire_server *serve_with(struct server_side *side, struct skf_wire_server_opts o,
                                                 struct skf_why *why)
{
    struct skf_wire_method m[] = {
        {.path = "/test.Wire/Echo", .open = side_open, .events = {echo_message, NULL, NULL, side_done}, .ctx = side},
        {.path = "/test.Wire/Push",
         .open = push_open,
         .events = {push_message, push_writable, push_half_close, push_done},
         .ctx = side},
        {.path = "/test.Wire/Refuse", .open = refuse_open, .events = recorder, .ctx = NULL},
        {.path = "/test.Wire/Unary", .unary = unary, .ctx = side},
    };
    struct skf_wire_server *s;
    if (!o.listen)
        o.listen = "127.0.0.1:0";
    if (!o.tls.cert_path)
        o.tls = tls_server;
    return skf_wire_server_open(&o, m, SKF_COUNT(m), &s, why) == SKF_OK ? s : NULL;
}

static inline struct skf_wire_server *serve(struct server_side *side)
{
    struct skf_why why = {{0}};
    struct skf_wire_server *s = serve_with(side, (struct skf_wire_server_opts){0}, &why);
    if (!s)
        fail_msg("%s", why.text);
    return s;
}

/* ---- this program as a second process ---------------------------------------------------------------------------- */
#define PROBE_EXIT 77

/* Under an emulator /proc/self/exe is the emulator: tests of two processes are skipped there. main answers `probe`. */
static inline bool is_spawning_ok(void)
{
    char name[] = "self", verb[] = "probe";
    char *argv[] = {name, verb, NULL};
    pid_t pid;
    int status = 0;
    bool ok = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ) == 0 && waitpid(pid, &status, 0) == pid &&
              WIFEXITED(status) && WEXITSTATUS(status) == PROBE_EXIT;
    if (!ok)
        (void)printf("# left out: a second process of this program cannot be started here\n");
    return ok;
}
static inline bool is_probe(int argc, char **argv)
{
    return argc == 2 && strcmp(argv[1], "probe") == 0;
}

static inline struct skf_wire_channel *dial_with(int port, const struct skf_wire_tls *tls, const char *name)
{
    char address[32];
    struct skf_why why = {{0}};
    struct skf_wire_channel *c = NULL;
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
    if (skf_wire_channel_open(address, tls, name, &c, &why) != SKF_OK)
        fail_msg("%s", why.text);
    return c;
}
static inline struct skf_wire_channel *dial(const struct skf_wire_server *s)
{
    return dial_with(skf_wire_server_port(s), &tls_device, NULL);
}

/* Our references to streams, until hang_up. */
static struct skf_wire_stream *kept[1024];
static size_t n_kept;

static inline struct skf_wire_stream *stream(struct skf_wire_channel *c, const char *path, struct record *r)
{
    struct skf_wire_stream *s;
    struct skf_why why = {{0}};
    if (skf_wire_stream_open(c, path, &recorder, r, &s, &why) != SKF_OK)
        fail_msg("%s", why.text);
    assert_true(n_kept < SKF_COUNT(kept));
    return kept[n_kept++] = s;
}

static inline void hang_up(struct skf_wire_channel *c)
{
    skf_wire_channel_close(c);
    while (n_kept > 0)
        skf_wire_unref(kept[--n_kept]);
}

#endif
