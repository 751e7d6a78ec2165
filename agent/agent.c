/*
 * The loop: signals, children, assignments, the turns of each model.  What serves is started before anything is asked of a network.
 */
#include "agent/agent_priv.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

#define TOKEN_MAX     4096
#define REPORT_EACH   (500 * SKF_MS)
#define TURN_IDLE     1000u /* ms between turns when nothing is under way */
#define TURN_BUSY     200u
#define TURN_STARTING 30u
#define STOP_WAIT     (10 * SKF_SECOND)
#define SWEEP_MAX     32
#define GATEWAY_TRIES 3 /* of one that never listened: its port is somebody else's */

/* ---- what the boxes ask of the loop ---------------------------------------------------------------------------------------------- */

void skf_agent_leave(struct skf_agent *a, struct skf_worker *w, bool is_killed)
{
    if (a->n_old == SKF_COUNT(a->old)) { /* the longest leaving one has had its time */
        skf_worker_free(a->old[0]);
        memmove(a->old, a->old + 1, --a->n_old * sizeof a->old[0]);
    }
    a->old[a->n_old++] = w;
    skf_worker_quit(w, skf_now_ns());
    if (is_killed)
        skf_worker_kill(w);
}

bool is_agent_routed(struct skf_agent *a, uint64_t *pause_us)
{
    struct skf_route r[2 * SKF_AGENT_MODELS];
    struct skf_why why = {{0}};
    size_t n = 0;
    if (!is_gateway_usable(&a->gateway))
        return false;
    for (size_t i = 0; i < a->n_box; i++) {
        const struct skf_box *b = &a->box[i];
        if (b->is_new_first && b->incoming)
            r[n++] = (struct skf_route){b->model, b->incoming->version, b->incoming->socket, false, false, 0};
        else if (b->is_held)
            r[n++] = (struct skf_route){b->model, b->slots.version[SKF_SLOT_ACTIVE], SKF_HELD_SOCKET, true, b->is_asleep, 0};
        if (b->active && !b->is_held)
            r[n++] = (struct skf_route){b->model, b->active->version, b->active->socket, false, false, 0};
        if (b->shadow_from && b->incoming && !b->is_new_first)
            r[n++] = (struct skf_route){b->model, b->incoming->version, b->incoming->socket, false, false, a->o->shadow_permille};
    }
    if (skf_gateway_routes(&a->gateway, r, n, a->o, pause_us, &why) == SKF_OK)
        return true;
    skf_log(SKF_LOG_WARN, "%s", why.text);
    return false;
}

struct sweep {
    struct skf_agent *agent;
    char model[SWEEP_MAX][SKF_NAME_MAX], version[SWEEP_MAX][SKF_NAME_MAX];
    size_t n;
};

static enum skf_err find_unused(void *ctx, const struct skf_store_version *v)
{
    struct sweep *s = ctx;
    for (size_t i = 0; i < s->agent->n_box; i++) {
        const struct skf_box *b = &s->agent->box[i];
        for (int k = 0; strcmp(b->model, v->model) == 0 && k < SKF_SLOT_COUNT; k++)
            if (strcmp(b->slots.version[k], v->version) == 0)
                return SKF_OK;
    }
    if (s->n < SWEEP_MAX) {
        memcpy(s->model[s->n], v->model, strlen(v->model) + 1);
        memcpy(s->version[s->n], v->version, strlen(v->version) + 1);
        s->n++;
    }
    return SKF_OK;
}

/* Only while nothing is being received: its chunks belong to no version yet. */
void skf_agent_sweep(struct skf_agent *a)
{
    struct skf_why why = {{0}};
    uint64_t freed = 0;
    if (a->is_swept || a->job.is_running)
        return;
    for (size_t i = 0; i < a->n_box; i++)
        if (is_box_busy(&a->box[i]) || a->box[i].has_pending || (a->box[i].retry_at && a->box[i].rec.err != SKF_ERR_FULL))
            return;
    a->is_swept = true;
    struct sweep *s = skf_calloc(1, sizeof *s);
    if (!s)
        return;
    s->agent = a;
    enum skf_err e = skf_store_each_version(a->store, find_unused, s);
    for (size_t i = 0; e == SKF_OK && i < s->n; i++)
        e = skf_store_del_version(a->store, s->model[i], s->version[i], &why);
    if (e == SKF_OK)
        e = skf_store_collect(a->store, NULL, 0, &freed, &why);
    if (e != SKF_OK)
        skf_log(SKF_LOG_WARN, "collection: %s: %s", skf_err_name(e), why.text);
    else if (freed)
        skf_log(SKF_LOG_INFO, "collection: %llu bytes freed", (unsigned long long)freed);
    if (e == SKF_OK)
        skf_layout_collect(a);
    skf_free(s);
}

/* ---- signals ------------------------------------------------------------------------------------------------------------------------ */

static struct skf_worker *worker_of(struct skf_agent *a, pid_t pid)
{
    for (size_t i = 0; i < a->n_box; i++) {
        if (a->box[i].active && a->box[i].active->pid == pid)
            return a->box[i].active;
        if (a->box[i].incoming && a->box[i].incoming->pid == pid)
            return a->box[i].incoming;
    }
    for (size_t i = 0; i < a->n_old; i++)
        if (a->old[i]->pid == pid)
            return a->old[i];
    return NULL;
}

static void reap(struct skf_agent *a, uint64_t now)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct skf_worker *w = worker_of(a, pid);
        if (w)
            skf_worker_exited(w, status, now);
        else if (pid == a->laying.pid)
            skf_layout_exited(a, status);
        else if (pid == a->gateway.pid)
            skf_gateway_exited(&a->gateway, status, now);
    }
    for (size_t i = 0; i < a->n_old;) {
        if (a->old[i]->state != SKF_WORKER_GONE) {
            i++;
            continue;
        }
        skf_worker_free(a->old[i]);
        a->old[i] = a->old[--a->n_old];
    }
}

static void take_signals(struct skf_agent *a, uint64_t now)
{
    struct signalfd_siginfo si;
    while (read(a->signal_fd, &si, sizeof si) == sizeof si)
        if (si.ssi_signo != SIGCHLD)
            a->is_stopping = true;
    reap(a, now);
}

/* ---- a turn -------------------------------------------------------------------------------------------------------------------------- */

static void take_orders(struct skf_agent *a)
{
    struct skf_assign as;
    char id[SKF_AGENT_ID];
    while (is_assign_taken(a->session, &as))
        skf_box_assign(a, &as);
    while (is_cancel_taken(a->session, id))
        skf_box_cancel(a, id);
}

static void join_job(struct skf_agent *a, uint64_t now)
{
    if (!a->job.is_running || !atomic_load(&a->job.is_done))
        return;
    (void)pthread_join(a->job.thread, NULL);
    a->job.is_running = false;
    skf_box_job_done(a->job.box, now);
    (void)malloc_trim(0); /* of the tens of megabytes that an update takes none is needed until the next */
}

static void turn_children(struct skf_agent *a, uint64_t now)
{
    uint64_t pause;
    if (is_gateway_up_now(&a->gateway, now)) {
        a->has_routes = false;
        if (a->o->listening)
            a->o->listening(a->o->ctx, a->gateway.listen);
    }
    skf_gateway_mind(&a->gateway, now);
    for (size_t i = 0; i < a->n_box; i++) {
        if (a->box[i].active)
            (void)is_worker_changed(a->box[i].active, now, a->o);
        if (a->box[i].incoming)
            (void)is_worker_changed(a->box[i].incoming, now, a->o);
    }
    for (size_t i = 0; i < a->n_old; i++)
        (void)is_worker_changed(a->old[i], now, a->o);
    if (!a->has_routes)
        a->has_routes = is_agent_routed(a, &pause);
}

static void report(struct skf_agent *a, uint64_t now)
{
    uint64_t epoch = skf_session_epoch(a->session);
    if (!is_session_up(a->session))
        return;
    for (size_t i = 0; i < a->n_box; i++) {
        struct skf_box *b = &a->box[i];
        uint8_t *p;
        size_t n;
        if (epoch != a->epoch)
            b->is_dirty = true;
        if (!b->is_dirty || !b->rec.assign.id[0] || (b->reported && now - b->reported < REPORT_EACH))
            continue;
        if (skf_report_state(b, &p, &n) != SKF_OK)
            continue;
        skf_session_send(a->session, p, n);
        skf_free(p);
        b->is_dirty = false;
        b->reported = now;
    }
    a->epoch = epoch;
}

static enum skf_err make_hello(void *ctx, uint8_t **p, size_t *n) { return skf_report_hello(ctx, p, n); }

static unsigned turn(struct skf_agent *a, uint64_t now)
{
    uint64_t again = now + TURN_IDLE * SKF_MS;
    unsigned most = TURN_IDLE;
    take_orders(a);
    join_job(a, now);
    turn_children(a, now);
    for (size_t i = 0; i < a->n_box; i++)
        skf_box_step(&a->box[i], now);
    skf_layout_turn(a, now);
    if (!a->has_routes || !is_gateway_usable(&a->gateway))
        most = TURN_STARTING;
    if (a->o->centre) {
        again = skf_session_tick(a->session, now, make_hello, a);
        report(a, now);
    }
    skf_agent_sweep(a);
    for (size_t i = 0; i < a->n_box; i++) {
        const struct skf_box *b = &a->box[i];
        if (is_box_busy(b) || b->has_pending || b->is_asleep)
            most = SKF_MIN(most, TURN_BUSY);
        if ((b->incoming && b->incoming->state != SKF_WORKER_READY) || b->rec.phase == SKIFF__V1__PHASE__PHASE_STAGED ||
            b->rec.phase == SKIFF__V1__PHASE__PHASE_CHECKING || (b->active && b->active->state != SKF_WORKER_READY))
            most = SKF_MIN(most, TURN_STARTING);
    }
    uint64_t wait = again > now ? (again - now) / SKF_MS + 1 : 1;
    return (unsigned)SKF_MIN(wait, (uint64_t)most);
}

static enum skf_err run(struct skf_agent *a, struct skf_why *why)
{
    uint64_t count;
    while (!a->is_stopping) {
        unsigned ms = turn(a, skf_now_ns());
        if (!a->gateway.has_listened && a->gateway.bad >= GATEWAY_TRIES)
            return skf_fail(why, SKF_ERR_BUSY, "%s: the gateway does not start: %s", a->o->listen,
                            a->gateway.tap.error[0] ? a->gateway.tap.error : "it ended");
        struct pollfd p[] = {{a->signal_fd, POLLIN, 0}, {a->wake_fd, POLLIN, 0}};
        if (poll(p, SKF_COUNT(p), (int)ms) < 0 && errno != EINTR)
            return skf_fail_errno(why, errno, "poll");
        ssize_t n = read(a->wake_fd, &count, sizeof count);
        (void)n;
        take_signals(a, skf_now_ns());
    }
    return SKF_OK;
}

/* ---- start and end ---------------------------------------------------------------------------------------------------------------------- */

static enum skf_err open_folder(const struct skf_agent_opts *o, char **token, struct skf_why *why)
{
    static const struct {
        const char *name;
        unsigned mode;
    } folders[] = {{"tls", 0700}, {"tuf", 0700}, {"store", 0700}, {"run", 0700}, {"incoming", 0700}};
    *token = NULL;
    if (o->token_file) { /* its path is relative to where we were started */
        uint8_t *p;
        size_t n;
        SKF_TRY(skf_file_read(o->token_file, TOKEN_MAX, &p, &n, why));
        *token = (char *)p;
        (*token)[strcspn(*token, "\r\n")] = 0;
    }
    if (o->is_init || o->enrol)
        SKF_TRY(skf_mkdirs(o->dir, 0700, why));
    if (chdir(o->dir) != 0) { /* mistyped, a new one would serve nothing without a word */
        int sys = errno;
        enum skf_err e = skf_fail_errno(why, sys, "%s", o->dir);
        return sys == ENOENT ? skf_fail(why, e, "%s: no such folder; --init makes it", o->dir) : e;
    }
    for (size_t i = 0; i < SKF_COUNT(folders); i++)
        SKF_TRY(skf_mkdirs(folders[i].name, folders[i].mode, why));
    return SKF_OK;
}

/* Before any thread is started, so that all of them leave these signals to the loop. */
static enum skf_err open_signals(struct skf_agent *a, struct skf_why *why)
{
    sigset_t set;
    (void)signal(SIGPIPE, SIG_IGN);
    if (sigemptyset(&set) != 0 || sigaddset(&set, SIGCHLD) != 0 || sigaddset(&set, SIGTERM) != 0 ||
        sigaddset(&set, SIGINT) != 0 || pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return skf_fail_errno(why, errno, "signals");
    a->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    a->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (a->signal_fd < 0 || a->wake_fd < 0)
        return skf_fail_errno(why, errno, "signals");
    return SKF_OK;
}

/* Models that have a version, in case the journal's list does not have them (a store that was filled otherwise). */
static enum skf_err on_model(void *ctx, const struct skf_store_version *v)
{
    struct skf_box *b;
    return skf_box_load(ctx, v->model, &b, NULL);
}

static enum skf_err open_store(struct skf_agent *a, struct skf_why *why)
{
    char names[SKF_AGENT_MODELS][SKF_NAME_MAX];
    size_t n;
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE};
    struct skf_box *b;
    SKF_TRY(skf_store_open("store", &o, &a->store, why));
    SKF_TRY(skf_models_load(a->store, names, &n, why));
    for (size_t i = 0; i < n; i++)
        SKF_TRY(skf_box_load(a, names[i], &b, why));
    enum skf_err e = skf_store_each_version(a->store, on_model, a);
    return e == SKF_OK ? e : skf_fail(why, e, "store: its versions cannot be read");
}

static void stop(struct skf_agent *a)
{
    if (a->job.is_running) {
        atomic_store(&a->job.cancel, true);
        skf_session_kick(a->session);
        (void)pthread_join(a->job.thread, NULL);
        a->job.is_running = false;
        skf_box_job_done(a->job.box, skf_now_ns());
    }
    skf_layout_stop(a);
    skf_session_free(a->session);
    skf_gateway_stop(&a->gateway);
    for (size_t i = 0; i < a->n_box; i++) {
        if (a->box[i].active)
            skf_agent_leave(a, a->box[i].active, false);
        if (a->box[i].incoming)
            skf_agent_leave(a, a->box[i].incoming, true);
        a->box[i].active = a->box[i].incoming = NULL;
    }
    uint64_t end = skf_now_ns() + STOP_WAIT;
    while ((a->n_old || a->gateway.pid) && skf_now_ns() < end) {
        reap(a, skf_now_ns());
        skf_sleep_ms(10);
    }
    if (a->gateway.pid)
        (void)kill(a->gateway.pid, SIGKILL);
    for (size_t i = 0; i < a->n_old; i++)
        skf_worker_free(a->old[i]);
    skf_store_close(a->store);
    skf_tap_close(&a->gateway.tap);
    if (a->gateway.out >= 0)
        (void)close(a->gateway.out);
    if (a->signal_fd >= 0)
        (void)close(a->signal_fd);
    if (a->wake_fd >= 0)
        (void)close(a->wake_fd);
}

enum skf_err skf_agent_run(const struct skf_agent_opts *o, struct skf_why *why)
{
    char *token = NULL;
    struct skf_agent *a = skf_calloc(1, sizeof *a);
    if (!a)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory");
    a->o = o;
    a->pace.rate = o->rate;
    a->signal_fd = a->wake_fd = a->laying.tap.fd = -1;
    enum skf_err e;
    SKF_GO(e, skf_gateway_init(&a->gateway, o, why));
    SKF_GO(e, open_folder(o, &token, why));
    SKF_GO(e, open_signals(a, why));
    SKF_GO(e, open_store(a, why));
    (void)turn_children(a, skf_now_ns()); /* serves before anything is asked of a network */
    struct skf_session_opts so = {.centre = o->centre, .tls_dir = "tls", .is_open_key_fine = o->is_open_key_fine, .wake_fd = a->wake_fd};
    SKF_GO(e, skf_session_new(&so, &a->session, why));
    if (o->enrol)
        SKF_GO(e, skf_enrol(o, token, why));
    e = run(a, why);
out:
    if (e == SKF_ERR_CANCELLED)
        e = SKF_OK;
    a->is_stopping = true;
    stop(a);
    if (token)
        skf_wipe(token, strlen(token));
    skf_free(token);
    skf_free(a);
    return e;
}
