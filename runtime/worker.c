/* The worker's life: opens the model, serves, leaves. See runtime/worker.h. */
#include "runtime/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "proto/frame.h"
#include "runtime/worker_priv.h"
#include "store/store.h"

/* What the engine reads from, whichever it is. */
struct weights {
    struct skf_store *store;
    struct skf_view *view;
    struct skf_model *model, *draft;
    struct skf_engine_kept kept;
};

static void close_weights(struct weights *x)
{
    skf_model_close(x->draft);
    skf_model_close(x->model);
    if (x->view)
        skf_view_close(x->view);
    skf_store_close(x->store);
}

static enum skf_err open_weights(const struct skf_worker_opts *o, struct weights *x, struct skf_why *why)
{
    const struct skf_store_opts so = {.mode = SKF_STORE_READ};
    char name[300];
    if (o->draft)
        SKF_TRY(skf_model_open(o->draft, &x->draft, why));
    if (o->file)
        return skf_model_open(o->file, &x->model, why);
    SKF_TRY(skf_store_open(o->store, &so, &x->store, why));
    SKF_TRY(skf_view_open(x->store, o->model, o->version, &x->view, why));
    struct skf_source src = skf_view_source(x->view);
    snprintf(name, sizeof name, "%s %s", o->model, o->version);
    x->kept.dir = o->store;
    memcpy(x->kept.root, skf_view_version(x->view)->root, sizeof x->kept.root);
    return skf_model_open_source(&src, name, &x->model, why);
}

static void name_it(struct worker *w, const struct skf_worker_opts *o)
{
    const char *name = o->name ? o->name : o->model, *slash = name ? NULL : strrchr(o->file, '/');
    if (!name)
        name = slash ? slash + 1 : o->file;
    size_t n = strlen(name);
    if (!o->name && !o->model && n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        n -= 5;
    snprintf(w->model, sizeof w->model, "%.*s", (int)SKF_MIN(n, sizeof w->model - 1), name);
    snprintf(w->version, sizeof w->version, "%s", o->version ? o->version : "");
}

static enum skf_err open_ends(struct worker *w, const struct skf_worker_opts *o, struct skf_why *why)
{
    sigset_t set;
    pid_t parent = getppid();
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread, so that all of them inherit it */
    w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (w->signal_fd < 0 || pipe2(w->stop, O_CLOEXEC))
        return skf_fail_errno(why, errno, "cannot watch for signals");
    if (o->parent_death)
        w->parent_fd = parent > 0 ? pidfd_open(parent, 0) : -1;
    if (o->parent_death && (w->parent_fd < 0 || getppid() != parent))
        return skf_fail(why, SKF_ERR_STATE, "the parent is gone");
    int bad = pthread_create(&w->acceptor, NULL, skf_worker_accept_loop, w);
    if (bad)
        return skf_fail_errno(why, bad, "cannot start a thread");
    w->has_acceptor = true;
    return SKF_OK;
}

/* Probes are answered here, on the thread that steps, since the check uses the engine as a step does. */
static void answer_probes(struct worker *w)
{
    struct skf_why why = {{0}};
    bool any = false, is_light = true;
    pthread_mutex_lock(&w->lock);
    for (const struct worker_conn *c = w->conns; c; c = c->next) {
        any = any || c->has_probe;
        is_light = is_light && !(c->has_probe && !c->is_probe_light);
    }
    pthread_mutex_unlock(&w->lock);
    if (!any)
        return;
    enum skf_err e = is_light ? SKF_OK : skf_engine_check(w->engine, &why);
    if (e == SKF_ERR_BUSY) /* every slot generates, and each step checks its numbers as this would */
        e = SKF_OK;
    pthread_mutex_lock(&w->lock);
    for (struct worker_conn *c = w->conns; c; c = c->next) {
        if (!c->has_probe || (is_light && !c->is_probe_light)) /* came while this looked */
            continue;
        c->has_probe = false;
        skf_worker_say_health_(c, false, c->probe, e, e == SKF_OK ? "" : why.text);
    }
    pthread_mutex_unlock(&w->lock);
}

static enum skf_err step_until_quit(struct worker *w, struct skf_why *why)
{
    for (;;) {
        bool busy = false;
        answer_probes(w);
        SKF_TRY(skf_engine_step(w->engine, &busy, why));
        pthread_mutex_lock(&w->lock);
        bool over = w->quitting && !w->n_gens;
        pthread_mutex_unlock(&w->lock);
        if (over && !busy)
            return SKF_OK;
        if (!busy)
            skf_engine_wait(w->engine, 1000);
    }
}

/* Sends what is still to be sent, for some seconds at most. */
static void leave(struct worker *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&w->lock);
    for (struct worker_conn *c = w->conns; c; c = c->next) {
        c->closing = true;
        pthread_cond_broadcast(&c->work);
    }
    while (w->n_conns && pthread_cond_timedwait(&w->idle, &w->lock, &until) == 0)
        ;
    for (struct worker_conn *c = w->conns; c; c = c->next)
        skf_worker_hang_up_(c);
    while (w->n_conns)
        pthread_cond_wait(&w->idle, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static void tell(struct worker *w, char c)
{
    while (write(w->stop[1], &c, 1) < 0 && errno == EINTR)
        ;
}

static enum skf_err serve(struct worker *w, const struct skf_worker_opts *o, struct skf_why *why)
{
    SKF_TRY(skf_unix_listen(o->socket, &w->listen_fd, why));
    pthread_mutex_lock(&w->lock);
    w->serving = true;
    pthread_mutex_unlock(&w->lock);
    tell(w, 'l');
    skf_log(SKF_LOG_INFO, "%s %s is ready on %s", w->model, w->version, o->socket);
    enum skf_err e = step_until_quit(w, why);
    (void)unlink(o->socket);
    return e;
}

static void stop_acceptor(struct worker *w)
{
    if (!w->has_acceptor)
        return;
    tell(w, 'x');
    pthread_join(w->acceptor, NULL);
    w->has_acceptor = false;
}

static void free_worker(struct worker *w)
{
    int fds[] = {w->listen_fd, w->signal_fd, w->parent_fd, w->stop[0], w->stop[1]};
    for (size_t i = 0; i < SKF_COUNT(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->idle);
    skf_free(w);
}

/* With --lay-out: whatever serves goes first. */
static enum skf_err lay_out(const struct skf_worker_opts *o, struct skf_why *why)
{
    struct weights x = {0};
    uint64_t bytes = 0;
    (void)setpriority(PRIO_PROCESS, 0, 19);
    enum skf_err e = open_weights(o, &x, why);
    if (e == SKF_OK)
        e = skf_engine_lay_out(x.model, &x.kept, o->engine.repack, o->engine.threads, &bytes, why);
    if (e == SKF_OK)
        skf_log(SKF_LOG_INFO, "%s %s: laid out, %llu bytes", o->model, o->version, (unsigned long long)bytes);
    else
        e = skf_fail_prefix(why, e, "%.100s %.100s", o->model, o->version);
    close_weights(&x);
    return e;
}

/* What names the model's bytes: a version's root, or which file it is and since when. */
static enum skf_err name_bytes(const struct skf_worker_opts *o, const struct weights *x, uint8_t name[SKF_DIGEST], struct skf_why *why)
{
    struct stat st;
    char text[256];
    if (x->view) {
        memcpy(name, skf_view_version(x->view)->root, SKF_DIGEST);
        return SKF_OK;
    }
    if (stat(o->file, &st))
        return skf_fail_errno(why, errno, "%s", o->file);
    int n = snprintf(text, sizeof text, "file %llu %llu %llu %lld.%09ld %lld.%09ld", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
                     (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec,
                     st.st_ctim.tv_nsec);
    skf_sha256(text, (size_t)n, name);
    return SKF_OK;
}

static enum skf_err warm(struct worker *w, const struct skf_worker_opts *o, const struct weights *x, struct skf_why *why)
{
    uint8_t name[SKF_DIGEST];
    if (o->n_warm == 0)
        return SKF_OK;
    SKF_TRY(name_bytes(o, x, name, why));
    return skf_worker_begin_warm(w, o, name, why);
}

enum skf_err skf_worker_run(const struct skf_worker_opts *o, struct skf_why *why)
{
    struct weights x = {0};
    struct worker *w;
    enum skf_err e;
    if (o->is_laying_out)
        return lay_out(o, why);
    if (!(w = skf_calloc(1, sizeof *w)))
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    w->listen_fd = w->signal_fd = w->parent_fd = w->stop[0] = w->stop[1] = -1;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->idle, NULL);
    name_it(w, o);
    SKF_GO(e, open_ends(w, o, why));
    SKF_GO(e, open_weights(o, &x, why));
    struct skf_engine_opts eo = o->engine;
    eo.draft = x.draft;
    eo.draft_name = o->draft;
    eo.kept = x.store ? &x.kept : NULL;
    e = skf_engine_open(x.model, &eo, &w->engine, why);
    if (e != SKF_OK) {
        e = o->file ? skf_fail_prefix(why, e, "%.200s", o->file) : skf_fail_prefix(why, e, "%.100s %.100s", o->model, o->version);
        goto out;
    }
    SKF_GO(e, skf_worker_adapters(w, o, why));
    e = warm(w, o, &x, why);
    if (e != SKF_OK)
        goto out;
    e = serve(w, o, why);
    stop_acceptor(w);
    if (e == SKF_OK)
        leave(w);
    else if (w->n_conns)
        return e; /* the engine is broken and its users still hold it: the process ends with everything as it is */
out:
    stop_acceptor(w); /* it uses the engine */
    skf_engine_close(w->engine);
    close_weights(&x);
    free_worker(w);
    return e;
}
