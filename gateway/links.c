/*
 * Workers' connections.  A link's reader connects, greets, reads until the worker is gone, and does so again while the link is wanted; its
 * writer empties the outbox.  A worker that takes nothing for GW_SEND_MS, or breaks the protocol, is hung up on.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"
#include "proto/frame.h"
#include "proto/msg.h"

enum { HELLO_MS = 10000, RETRY_MIN_MS = 20, RETRY_MAX_MS = 500 };

static void drop_outbox_(struct gw_link *l)
{
    while (l->out) {
        struct gw_frame *f = l->out;
        l->out = f->next;
        skf_free(f);
    }
    l->out_end = &l->out;
    l->out_bytes = 0;
}

enum skf_err skf_gw_link_send_(struct gw_link *l, const void *frame, size_t n)
{
    if (!l->connected)
        return SKF_ERR_NET;
    if (n > GW_OUTBOX - l->out_bytes)
        return SKF_ERR_LIMIT;
    struct gw_frame *f = skf_alloc(sizeof *f + n);
    if (!f)
        return SKF_ERR_NOMEM;
    f->next = NULL;
    f->n = n;
    memcpy(f->p, frame, n);
    *l->out_end = f;
    l->out_end = &f->next;
    l->out_bytes += n;
    pthread_cond_broadcast(&l->work);
    return SKF_OK;
}

/* When the message cannot be sent the worker computes in vain for a while, no more. */
void skf_gw_link_cancel_(struct gw_link *l, uint64_t id)
{
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    Skiff__V1__CancelGenerate cancel = SKIFF__V1__CANCEL_GENERATE__INIT;
    uint8_t *p = NULL;
    size_t n = 0;
    cancel.id = id;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_CANCEL;
    m.cancel = &cancel;
    if (skf_msg_pack(&m.base, &p, &n) != SKF_OK || skf_gw_link_send_(l, p, n) != SKF_OK)
        skf_log(SKF_LOG_WARN, "%s %s: could not be told to stop request %llu", l->model, l->version, (unsigned long long)id);
    skf_free(p);
}

static void *write_loop(void *ctx)
{
    struct gw_link *l = ctx;
    struct skf_gw *g = l->g;
    pthread_mutex_lock(&g->lock);
    while (!l->stop) {
        if (!l->out || !l->connected) {
            pthread_cond_wait(&l->work, &g->lock);
            continue;
        }
        struct gw_frame *f = l->out;
        l->out = f->next;
        if (!l->out)
            l->out_end = &l->out;
        l->out_bytes -= f->n;
        int fd = dup(l->fd); /* the reader may close its own meanwhile */
        pthread_mutex_unlock(&g->lock);
        enum skf_err e = fd < 0 ? SKF_ERR_IO : skf_frame_write(fd, GW_SEND_MS, f->p, f->n);
        if (e != SKF_OK && fd >= 0)
            (void)shutdown(fd, SHUT_RDWR); /* wakes the reader */
        if (fd >= 0)
            close(fd);
        skf_free(f);
        pthread_mutex_lock(&g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static bool is_same_or_unsaid(const char *said, const char *wanted) { return !*said || strcmp(said, wanted) == 0; }

/* The first frame, looking every while whether the link is still wanted. */
static enum skf_err read_hello(struct gw_link *l, int fd, struct skf_buf *b)
{
    enum skf_err e = SKF_ERR_TIMEOUT;
    for (unsigned ms = 0; e == SKF_ERR_TIMEOUT && ms < HELLO_MS; ms += 100) {
        e = skf_frame_read(fd, 100, b);
        pthread_mutex_lock(&l->g->lock);
        if (l->stop)
            e = SKF_ERR_CANCELLED;
        pthread_mutex_unlock(&l->g->lock);
    }
    return e;
}

/* A name that could not be asked for is not listed. */
static void note_adapters_(struct gw_link *l, char **names, size_t n)
{
    l->n_adapters = 0;
    for (size_t i = 0; i < n && l->n_adapters < GW_ADAPTERS; i++)
        if (names[i][0] && strlen(names[i]) < sizeof l->adapters[0])
            snprintf(l->adapters[l->n_adapters++], sizeof l->adapters[0], "%s", names[i]);
}

/* Connects and takes the hello; *fd is -1 afterwards when it fails. */
static enum skf_err connect_to(struct gw_link *l, int *fd, struct skf_buf *b, struct skf_why *why)
{
    Skiff__V1__FromWorker *m = NULL;
    enum skf_err e;
    *fd = -1;
    SKF_GO(e, skf_unix_connect(l->socket, fd, why));
    e = read_hello(l, *fd, b);
    if (e != SKF_OK) {
        e = skf_fail(why, e, "%s: no hello", l->socket);
        goto out;
    }
    SKF_GO(e, SKF_UNPACK(skiff__v1__from_worker, Skiff__V1__FromWorker, b->data, b->len, SKF_FRAME_MAX, &m, why));
    if (m->kind_case != SKIFF__V1__FROM_WORKER__KIND_HELLO)
        e = skf_fail(why, SKF_ERR_FORMAT, "%s: begins with no hello", l->socket);
    else if (!m->hello->ok)
        e = skf_fail(why, SKF_ERR_REFUSED, "%s: is not well: %.200s", l->socket, m->hello->error);
    else if (!is_same_or_unsaid(m->hello->model, l->model) || !is_same_or_unsaid(m->hello->version, l->version))
        e = skf_fail(why, SKF_ERR_REFUSED, "%s: serves %.100s %.100s, not %s %s", l->socket, m->hello->model, m->hello->version, l->model,
                     l->version);
    pthread_mutex_lock(&l->g->lock);
    skf_gw_cache_seen_(l, e == SKF_OK ? m->hello->cache : NULL);
    pthread_mutex_unlock(&l->g->lock);
    if (e == SKF_OK) {
        pthread_mutex_lock(&l->g->lock);
        note_adapters_(l, m->hello->adapters, m->hello->n_adapters);
        pthread_mutex_unlock(&l->g->lock);
    }
out:
    if (m)
        skf_msg_free(&m->base);
    if (e != SKF_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return e;
}

static enum skf_err take_frame(struct gw_link *l, const struct skf_buf *b, struct skf_why *why)
{
    Skiff__V1__FromWorker *m = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__from_worker, Skiff__V1__FromWorker, b->data, b->len, SKF_FRAME_MAX, &m, why));
    pthread_mutex_lock(&l->g->lock);
    if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_TOKEN)
        skf_gw_token_(l, m->token);
    else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_FINISHED) {
        skf_gw_cache_seen_(l, m->finished->cache);
        skf_gw_finished_(l, m->finished);
    } else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_ADAPTERS) {
        note_adapters_(l, m->adapters->names, m->adapters->n_names);
    } else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_STARTED)
        skf_gw_started_(l, m->started);
    else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_HEALTH)
        skf_gw_health_(l, m->health);
    pthread_mutex_unlock(&l->g->lock);
    skf_msg_free(&m->base);
    return SKF_OK;
}

static void read_until_gone(struct gw_link *l, int fd, struct skf_buf *b)
{
    struct skf_why why = {{0}};
    enum skf_err e;
    do {
        e = skf_frame_read(fd, 0, b);
        if (e == SKF_OK)
            e = take_frame(l, b, &why);
    } while (e == SKF_OK);
    if (e != SKF_ERR_NET)
        skf_log(SKF_LOG_WARN, "%s %s: hung up: %s %s", l->model, l->version, skf_err_name(e), why.text);
}

static void sleep_(struct gw_link *l, unsigned ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (!l->stop)
        pthread_cond_timedwait(&l->work, &l->g->lock, &until);
}

static void *read_loop(void *ctx)
{
    struct gw_link *l = ctx;
    struct skf_gw *g = l->g;
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    unsigned pause_ms = RETRY_MIN_MS;
    char last[sizeof(struct skf_why)] = "";
    pthread_mutex_lock(&g->lock);
    while (!l->stop) {
        struct skf_why why = {{0}};
        int fd;
        pthread_mutex_unlock(&g->lock);
        enum skf_err e = connect_to(l, &fd, &b, &why);
        if (e == SKF_ERR_REFUSED && strcmp(last, why.text) != 0) {
            skf_log(SKF_LOG_WARN, "%s", why.text);
            snprintf(last, sizeof last, "%s", why.text);
        }
        pthread_mutex_lock(&g->lock);
        if (e != SKF_OK) {
            sleep_(l, pause_ms);
            pause_ms = SKF_MIN(2 * pause_ms, (unsigned)RETRY_MAX_MS);
            continue;
        }
        pause_ms = RETRY_MIN_MS;
        if (!l->stop) {
            l->fd = fd;
            l->connected = true;
            l->is_leaving = false;
            skf_gw_link_up_(l);
            pthread_cond_broadcast(&l->work);
            pthread_mutex_unlock(&g->lock);
            read_until_gone(l, fd, &b);
            pthread_mutex_lock(&g->lock);
            l->connected = false;
            l->fd = -1;
            drop_outbox_(l);
            skf_gw_link_down_(l);
        }
        close(fd);
    }
    pthread_mutex_unlock(&g->lock);
    skf_buf_free(&b);
    return NULL;
}

enum skf_err skf_gw_link_new_(struct skf_gw *g, const struct skf_gw_route *r, struct gw_link **out, struct skf_why *why)
{
    unsigned n = 0;
    for (const struct gw_link *l = g->links; l; l = l->next)
        n++;
    if (n >= GW_LINKS)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d workers", GW_LINKS);
    struct gw_link *l = skf_calloc(1, sizeof *l);
    if (!l)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    l->g = g;
    l->fd = -1;
    l->out_end = &l->out;
    l->is_wanted = true;
    snprintf(l->model, sizeof l->model, "%s", r->model);
    snprintf(l->version, sizeof l->version, "%s", r->version);
    snprintf(l->socket, sizeof l->socket, "%s", r->socket);
    pthread_cond_init(&l->work, NULL);
    int bad = pthread_create(&l->writer, NULL, write_loop, l);
    if (!bad && (bad = pthread_create(&l->reader, NULL, read_loop, l)) != 0) {
        l->stop = true;
        pthread_cond_broadcast(&l->work);
        pthread_mutex_unlock(&g->lock);
        pthread_join(l->writer, NULL);
        pthread_mutex_lock(&g->lock);
    }
    if (bad) {
        pthread_cond_destroy(&l->work);
        skf_free(l);
        return skf_fail_errno(why, bad, "cannot start a thread");
    }
    l->next = g->links;
    g->links = l;
    *out = l;
    return SKF_OK;
}

void skf_gw_link_free(struct gw_link *l)
{
    pthread_mutex_lock(&l->g->lock);
    l->stop = true;
    if (l->fd >= 0)
        (void)shutdown(l->fd, SHUT_RDWR);
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->g->lock);
    pthread_join(l->reader, NULL);
    pthread_join(l->writer, NULL);
    drop_outbox_(l);
    pthread_cond_destroy(&l->work);
    skf_free(l);
}
