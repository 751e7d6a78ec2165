/* A worker's connections: taken, read, written, lost. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"
#include "proto/frame.h"
#include "proto/msg.h"
#include "runtime/worker_priv.h"

/* ---- generations ------------------------------------------------------------------------------------------------------- */
void skf_worker_gen_free_(struct worker *w, struct worker_gen *gen)
{
    struct worker_gen **at = &w->gens;
    while (*at && *at != gen)
        at = &(*at)->next;
    if (*at)
        *at = gen->next;
    w->n_gens--;
    skf_worker_conn_put_(gen->conn);
    skf_worker_warm_free(gen->warm);
    skf_worker_answer_free(gen->answer);
    skf_free(gen);
}

enum skf_err skf_worker_gen_take(struct worker_conn *c, struct worker_gen *gen, struct skf_why *why)
{
    struct worker *w = c->w;
    pthread_mutex_lock(&w->lock);
    enum skf_err e = w->quitting ? skf_fail(why, SKF_ERR_STATE, "this worker is leaving") : SKF_OK; /* it may have stepped for the last time */
    for (const struct worker_gen *g = w->gens; e == SKF_OK && g; g = g->next)
        if (g->conn == c && g->id == gen->id)
            e = skf_fail(why, SKF_ERR_ARG, "a generation with this number runs already");
    if (e == SKF_OK) {
        gen->next = w->gens;
        w->gens = gen;
        w->n_gens++;
        c->refs++;
    }
    pthread_mutex_unlock(&w->lock);
    return e;
}

/* The engine has it; it may have finished meanwhile, and gen with it. */
void skf_worker_gen_note(struct worker_conn *c, const struct worker_gen *gen, uint64_t id, uint64_t handle)
{
    struct worker *w = c->w;
    bool unwanted = false;
    pthread_mutex_lock(&w->lock);
    for (struct worker_gen *g = w->gens; g; g = g->next) {
        if (g == gen && g->conn == c && g->id == id && !g->is_submitted) {
            g->handle = handle;
            g->is_submitted = true;
            unwanted = w->hurry || c->dead;
        }
    }
    pthread_mutex_unlock(&w->lock);
    if (unwanted)
        skf_engine_cancel(w->engine, handle);
}

/* Cancels what runs for this connection (NULL: for any), or of that only the generation `id` (0: all). */
static void cancel(struct worker *w, const struct worker_conn *c, uint64_t id)
{
    for (;;) {
        uint64_t handle = 0;
        pthread_mutex_lock(&w->lock);
        for (struct worker_gen *g = w->gens; g && !handle; g = g->next) {
            if (g->is_submitted && !g->is_cancelled && (!c || g->conn == c) && (!id || g->id == id)) {
                handle = g->handle;
                g->is_cancelled = true;
            }
        }
        pthread_mutex_unlock(&w->lock);
        if (!handle)
            return;
        skf_engine_cancel(w->engine, handle);
    }
}

void skf_worker_cancel_all(struct worker *w) { cancel(w, NULL, 0); }

/* ---- one connection ---------------------------------------------------------------------------------------------------- */
void skf_worker_conn_put_(struct worker_conn *c)
{
    struct worker *w = c->w;
    if (--c->refs)
        return;
    struct worker_conn **at = &w->conns;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    w->n_conns--;
    pthread_cond_broadcast(&w->idle);
    while (c->out) {
        struct worker_frame *f = c->out;
        c->out = f->next;
        skf_free(f);
    }
    close(c->fd);
    pthread_cond_destroy(&c->work);
    skf_free(c);
}

void *skf_worker_write_loop(void *ctx)
{
    struct worker_conn *c = ctx;
    struct worker *w = c->w;
    pthread_mutex_lock(&w->lock);
    while (!c->dead) {
        struct worker_frame *f = c->out;
        if (!f && c->closing) {
            skf_worker_hang_up_(c);
            break;
        }
        if (!f) {
            pthread_cond_wait(&c->work, &w->lock);
            continue;
        }
        c->out = f->next;
        if (!c->out)
            c->out_end = &c->out;
        c->out_bytes -= f->n;
        pthread_mutex_unlock(&w->lock);
        enum skf_err e = skf_frame_write(c->fd, WORKER_SEND_MS, f->p, f->n);
        skf_free(f);
        pthread_mutex_lock(&w->lock);
        if (e != SKF_OK)
            skf_worker_hang_up_(c);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void begin_quit(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->quitting = true;
    pthread_mutex_unlock(&w->lock);
    while (write(w->stop[1], "q", 1) < 0 && errno == EINTR) /* the acceptor closes the socket */
        ;
    skf_engine_wake(w->engine);
}

static enum skf_err take_message(struct worker_conn *c, const struct skf_buf *b, struct skf_why *why)
{
    struct worker *w = c->w;
    Skiff__V1__ToWorker *m = NULL;
    SKF_TRY(SKF_UNPACK(skiff__v1__to_worker, Skiff__V1__ToWorker, b->data, b->len, SKF_FRAME_MAX, &m, why));
    pthread_mutex_lock(&w->lock);
    bool quitting = w->quitting;
    pthread_mutex_unlock(&w->lock);
    if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_GENERATE) {
        if (quitting)
            skf_worker_refuse(c, m->generate->id, SKF_ERR_STATE, "this worker is leaving");
        else
            skf_worker_generate(c, m);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_WARM) {
        if (quitting)
            skf_worker_warm_refuse(c, m->warm->id, SKF_ERR_STATE, "this worker is leaving");
        else
            skf_worker_warm(c, m->warm);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_CANCEL) {
        if (m->cancel->id)
            cancel(w, c, m->cancel->id);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_PROBE) {
        pthread_mutex_lock(&w->lock);
        c->probe = m->probe->id;
        c->is_probe_light = m->probe->is_light;
        c->has_probe = true;
        pthread_mutex_unlock(&w->lock);
        skf_engine_wake(w->engine);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_LOAD_ADAPTER) {
        skf_worker_change_adapters(c, m->load_adapter->id, m->load_adapter->name, m->load_adapter->path);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_UNLOAD_ADAPTER) {
        skf_worker_change_adapters(c, m->unload_adapter->id, m->unload_adapter->name, NULL);
    } else if (m->kind_case == SKIFF__V1__TO_WORKER__KIND_QUIT) {
        begin_quit(w);
    }
    skf_msg_free(&m->base);
    return SKF_OK;
}

void *skf_worker_read_loop(void *ctx)
{
    struct worker_conn *c = ctx;
    struct worker *w = c->w;
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    struct skf_why why = {{0}};
    enum skf_err e;
    do {
        e = skf_frame_read(c->fd, 0, &b);
        if (e == SKF_OK)
            e = take_message(c, &b, &why);
    } while (e == SKF_OK);
    if (e != SKF_ERR_NET)
        skf_log(SKF_LOG_WARN, "a peer is hung up on: %s %s", skf_err_name(e), why.text);
    skf_buf_free(&b);
    pthread_mutex_lock(&w->lock);
    skf_worker_hang_up_(c);
    pthread_mutex_unlock(&w->lock);
    cancel(w, c, 0);
    pthread_join(c->writer, NULL);
    pthread_mutex_lock(&w->lock);
    skf_worker_conn_put_(c);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- taking connections ------------------------------------------------------------------------------------------------ */
static void take_connection(struct worker *w, int fd)
{
    pthread_t reader;
    struct worker_conn *c = skf_calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->w = w;
    c->fd = fd;
    c->refs = 1;
    c->out_end = &c->out;
    pthread_cond_init(&c->work, NULL);
    pthread_mutex_lock(&w->lock);
    bool ok = w->n_conns < WORKER_CONNS && pthread_create(&c->writer, NULL, skf_worker_write_loop, c) == 0;
    if (ok) {
        c->next = w->conns;
        w->conns = c;
        w->n_conns++;
        skf_worker_say_health_(c, true, 0, SKF_OK, "");
    }
    pthread_mutex_unlock(&w->lock);
    if (!ok) {
        skf_log(SKF_LOG_WARN, "a connection is refused: there are %d", WORKER_CONNS);
        pthread_cond_destroy(&c->work);
        close(fd);
        skf_free(c);
        return;
    }
    if (pthread_create(&reader, NULL, skf_worker_read_loop, c) == 0) {
        pthread_detach(reader); /* skf_worker_run waits for n_conns to become 0 */
        return;
    }
    pthread_mutex_lock(&w->lock);
    skf_worker_hang_up_(c);
    pthread_mutex_unlock(&w->lock);
    pthread_join(c->writer, NULL);
    pthread_mutex_lock(&w->lock);
    skf_worker_conn_put_(c);
    pthread_mutex_unlock(&w->lock);
}

/* While the model is being loaded nothing needs to be left in order: ends as the signal alone would have. */
static void die(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    (void)signal(SIGTERM, SIG_DFL);
    (void)raise(SIGTERM);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Until the worker is told to leave; signals and the parent's end are such a word too, and more urgent.  On the pipe: 'l' the socket is
 * there, 'q' take no more connections, 'x' it is over. */
void *skf_worker_accept_loop(void *ctx)
{
    struct worker *w = ctx;
    struct pollfd fds[4] = {{w->stop[0], POLLIN, 0}, {w->signal_fd, POLLIN, 0}, {w->parent_fd, POLLIN, 0}, {-1, POLLIN, 0}};
    while (poll(fds, SKF_COUNT(fds), -1) >= 0 || errno == EINTR) {
        char c = 0;
        if (fds[1].revents || fds[2].revents)
            break;
        if (fds[3].revents) {
            int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                take_connection(w, fd);
        }
        if (fds[0].revents && read(w->stop[0], &c, 1) == 1) {
            if (c == 'x')
                return NULL;
            fds[3].fd = c == 'l' ? w->listen_fd : -1;
        }
    }
    pthread_mutex_lock(&w->lock);
    bool loading = !w->serving;
    w->quitting = w->hurry = true;
    pthread_mutex_unlock(&w->lock);
    if (loading)
        die();
    skf_worker_cancel_all(w);
    skf_engine_wake(w->engine);
    return NULL;
}
