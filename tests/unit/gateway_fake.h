/*
 * A worker that does as the test says, for the gateway's tests only: it speaks the frames of proto/local.proto on a Unix socket and
 * computes nothing.  What a request's last message (or prompt) says is what happens to it:
 *   "say N"      N tokens "w0 ", "w1 ", ... then stop          "long"      one token every 5 ms until cancelled
 *   "hang"       nothing at all                                "fail X"    finished with error class X
 *   "die"        the connection is cut before any token        "die N"     after N tokens
 *   "echo"       the frame's sampling, as text                 "flood"     1 MiB of tokens at once, again and again
 *   "state"      refused as by a worker that was told to quit
 */
#ifndef SKF_TESTS_UNIT_GATEWAY_FAKE_H
#define SKF_TESTS_UNIT_GATEWAY_FAKE_H

#include "tests/lib/http_client.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "proto/frame.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

struct fake {
    char path[108];
    const char *model, *version;
    int listen_fd;
    atomic_int fd; /* the gateway's connection, -1 when there is none */
    pthread_t thread;
    atomic_bool stop;
    atomic_int generates, cancels, connects;
    pthread_mutex_t lock;          /* the list, and writing */
    uint64_t running[256];
    size_t n_running;
};

static inline void fake_send(struct fake *f, Skiff__V1__FromWorker *m)
{
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_msg_pack(&m->base, &p, &n), SKF_OK);
    pthread_mutex_lock(&f->lock);
    if (f->fd >= 0)
        (void)!skf_frame_write(f->fd, 0, p, n);
    pthread_mutex_unlock(&f->lock);
    skf_free(p);
}

static inline void fake_token(struct fake *f, uint64_t id, const char *text)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Token t = SKIFF__V1__TOKEN__INIT;
    t.id = id;
    t.text = (char *)(uintptr_t)text;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_TOKEN;
    m.token = &t;
    fake_send(f, &m);
}

static inline void fake_finish(struct fake *f, uint64_t id, const char *reason, const char *class, unsigned tokens)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Finished d = SKIFF__V1__FINISHED__INIT;
    d.id = id;
    d.reason = (char *)(uintptr_t)reason;
    d.error_class = (char *)(uintptr_t)class;
    d.error = (char *)(uintptr_t)(*class ? "so said the test" : "");
    d.prompt_tokens = 7;
    d.completion_tokens = tokens;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_FINISHED;
    m.finished = &d;
    fake_send(f, &m);
}

static inline void fake_hello(struct fake *f)
{
    Skiff__V1__FromWorker m = SKIFF__V1__FROM_WORKER__INIT;
    Skiff__V1__Health h = SKIFF__V1__HEALTH__INIT;
    h.ok = true;
    h.model = (char *)(uintptr_t)f->model;
    h.version = (char *)(uintptr_t)f->version;
    m.kind_case = SKIFF__V1__FROM_WORKER__KIND_HELLO;
    m.hello = &h;
    fake_send(f, &m);
}

static inline void fake_echo(struct fake *f, const Skiff__V1__Generate *g)
{
    const Skiff__V1__Sampling *s = g->sampling;
    char text[512];
    int n = snprintf(text, sizeof text, "t=%.2f k=%u p=%.2f r=%.2f seed=%d:%" PRIu64 " max=%u chat=%d messages=%zu first=%s stop=", (double)s->temperature,
                     s->top_k, (double)s->top_p, (double)s->repetition_penalty, s->has_seed, s->seed, s->max_tokens, g->is_chat, g->n_messages,
                     g->n_messages ? g->messages[0]->role : "");
    for (size_t i = 0; i < s->n_stop && n > 0; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "[%s]", s->stop[i]);
    fake_token(f, g->id, text);
    fake_finish(f, g->id, "length", "", 1);
}

/* False when the connection is to be cut. */
static inline bool is_fake_generate(struct fake *f, const Skiff__V1__Generate *g)
{
    const char *say = g->is_chat ? g->messages[g->n_messages - 1]->content : g->prompt;
    unsigned n = 0;
    char word[32];
    atomic_fetch_add(&f->generates, 1);
    if (sscanf(say, "say %u", &n) == 1 || sscanf(say, "die %u", &n) == 1) {
        for (unsigned i = 0; i < n; i++) {
            snprintf(word, sizeof word, "w%u ", i);
            fake_token(f, g->id, word);
        }
        if (say[0] == 'd')
            return false;
        fake_finish(f, g->id, "stop", "", n);
    } else if (strcmp(say, "die") == 0) {
        return false;
    } else if (strncmp(say, "fail ", 5) == 0) {
        fake_finish(f, g->id, "error", say + 5, 0);
    } else if (strcmp(say, "state") == 0) {
        fake_finish(f, g->id, "error", "state", 0);
    } else if (strcmp(say, "echo") == 0) {
        fake_echo(f, g);
    } else if (strcmp(say, "long") == 0 || strcmp(say, "flood") == 0) {
        pthread_mutex_lock(&f->lock);
        if (f->n_running < 256)
            f->running[f->n_running++] = g->id | (say[0] == 'f' ? 1ull << 63 : 0);
        pthread_mutex_unlock(&f->lock);
    }
    return true;
}

static inline void fake_cancel(struct fake *f, uint64_t id)
{
    atomic_fetch_add(&f->cancels, 1);
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->n_running; i++)
        if ((f->running[i] & ~(1ull << 63)) == id)
            f->running[i] = f->running[--f->n_running];
    pthread_mutex_unlock(&f->lock);
    fake_finish(f, id, "cancelled", "cancelled", 0);
}

static inline void fake_tick(struct fake *f)
{
    static char big[64 << 10];
    uint64_t ids[256];
    memset(big, 'f', sizeof big - 1);
    pthread_mutex_lock(&f->lock);
    size_t n = f->n_running;
    memcpy(ids, f->running, n * sizeof *ids);
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < n; i++) {
        bool flood = ids[i] >> 63;
        for (int k = 0; k < (flood ? 16 : 1); k++)
            fake_token(f, ids[i] & ~(1ull << 63), flood ? big : "tick ");
    }
}

static inline void fake_hang_up(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    f->n_running = 0;
    pthread_mutex_unlock(&f->lock);
}

static inline void *fake_loop(void *ctx)
{
    struct fake *f = ctx;
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    while (!atomic_load(&f->stop)) {
        struct pollfd p = {f->fd >= 0 ? f->fd : f->listen_fd, POLLIN, 0};
        int ready = poll(&p, 1, 5);
        fake_tick(f);
        if (ready <= 0)
            continue;
        if (f->fd < 0) {
            f->fd = accept(f->listen_fd, NULL, NULL);
            atomic_fetch_add(&f->connects, 1);
            fake_hello(f);
            continue;
        }
        Skiff__V1__ToWorker *m = NULL;
        bool keep = skf_frame_read(f->fd, 1000, &b) == SKF_OK &&
                    SKF_UNPACK(skiff__v1__to_worker, Skiff__V1__ToWorker, b.data, b.len, SKF_FRAME_MAX, &m, NULL) == SKF_OK;
        if (keep && m->kind_case == SKIFF__V1__TO_WORKER__KIND_GENERATE)
            keep = is_fake_generate(f, m->generate);
        else if (keep && m->kind_case == SKIFF__V1__TO_WORKER__KIND_CANCEL)
            fake_cancel(f, m->cancel->id);
        if (m)
            skf_msg_free(&m->base);
        if (!keep)
            fake_hang_up(f);
    }
    fake_hang_up(f);
    skf_buf_free(&b);
    return NULL;
}

static inline void fake_start(struct fake *f, const char *dir, const char *model, const char *version)
{
    struct skf_why why = {{0}};
    memset(f, 0, sizeof *f);
    f->model = model;
    f->version = version;
    f->fd = -1;
    snprintf(f->path, sizeof f->path, "%s/%s.sock", dir, version);
    pthread_mutex_init(&f->lock, NULL);
    if (skf_unix_listen(f->path, &f->listen_fd, &why) != SKF_OK)
        fail_msg("%s", why.text);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_loop, f), 0);
}

static inline void fake_stop(struct fake *f)
{
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    close(f->listen_fd);
    unlink(f->path);
}

#endif
