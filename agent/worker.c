/*
 * Workers, one a version: started, greeted, asked how they are, told to leave, started again when they die.  Nothing here waits:
 * the loop comes by and each call does what can be done now.
 */
#include "agent/agent_priv.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "proto/frame.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

#define START_WAIT (180 * SKF_SECOND) /* until the hello: a large model on a slow disk */
#define LEAVE_WAIT (600 * SKF_SECOND) /* for the streams that it still answers */
#define LONG_LIFE  (30 * SKF_SECOND)  /* a worker that served this long was not started in vain */
#define FRAME_WAIT 1000               /* ms for the rest of a frame whose first bytes are here */
#define PING_EACH  (3 * SKF_SECOND)
#define HANG_IDLE  (10 * SKF_SECOND)  /* owes an answer and does nothing: it never will */
#define HANG_BUSY  (300 * SKF_SECOND) /* owes an answer and works: a long step, or a self-check that reads a slow disk */
#define WORK_LEAST 200                /* of this many parts of the time one in use is work */

struct skf_worker *skf_worker_new(const char *model, const char *version, unsigned number, bool is_kept)
{
    struct skf_worker *w = skf_calloc(1, sizeof *w);
    if (!w)
        return NULL;
    (void)snprintf(w->model, sizeof w->model, "%s", model);
    (void)snprintf(w->version, sizeof w->version, "%s", version);
    (void)snprintf(w->socket, sizeof w->socket, "run/worker-%u.sock", number);
    w->fd = w->tap.fd = -1;
    w->is_kept = is_kept;
    return w;
}

static void hang_up(struct skf_worker *w)
{
    if (w->fd >= 0)
        (void)close(w->fd);
    w->fd = -1;
    w->probe_sent = w->ping_sent = 0;
}

void skf_worker_free(struct skf_worker *w)
{
    if (!w)
        return;
    skf_worker_kill(w);
    hang_up(w);
    skf_tap_close(&w->tap);
    (void)unlink(w->socket);
    skf_free(w);
}

void skf_worker_kill(struct skf_worker *w)
{
    if (w->pid > 0)
        (void)kill(w->pid, SIGKILL);
}

/* The first death after a long life is answered at once, others ever later. */
static uint64_t pause_after(unsigned bad)
{
    return bad <= 1 ? 0 : SKF_MIN(200 * SKF_MS << SKF_MIN(bad - 2, 8u), 10 * SKF_SECOND);
}

static void set_dead(struct skf_worker *w, uint64_t now)
{
    w->pid = 0;
    hang_up(w);
    if (w->state == SKF_WORKER_LEAVING || !w->is_kept) {
        w->state = SKF_WORKER_GONE;
        return;
    }
    bool lived = w->ready && now - w->ready > LONG_LIFE;
    w->bad = lived ? 1 : w->bad + 1;
    w->ready = 0;
    w->state = SKF_WORKER_WAITING;
    w->next = now + pause_after(w->bad);
}

void skf_worker_exited(struct skf_worker *w, int status, uint64_t now)
{
    skf_tap_close(&w->tap);
    if (w->state != SKF_WORKER_LEAVING) {
        if (WIFSIGNALED(status) && w->is_hung)
            (void)snprintf(w->error, sizeof w->error, "the worker did not answer and was ended");
        else if (WIFSIGNALED(status))
            (void)snprintf(w->error, sizeof w->error, "the worker was ended by signal %d", WTERMSIG(status));
        else
            (void)snprintf(w->error, sizeof w->error, "the worker ended with status %d%s%s", WEXITSTATUS(status),
                           w->tap.error[0] ? ": " : "", w->tap.error);
        skf_log(SKF_LOG_WARN, "%s %s: %s", w->model, w->version, w->error);
    }
    set_dead(w, now);
}

static unsigned memory_of(const struct skf_agent_opts *o, const char *model)
{
    for (size_t i = 0; i < o->n_models; i++)
        if (strcmp(o->models[i].name, model) == 0)
            return o->models[i].memory;
    return 0;
}

static void start(struct skf_worker *w, uint64_t now, const struct skf_agent_opts *o)
{
    const char *args[24];
    struct skf_why why = {{0}};
    size_t n = 0;
    const char *base[] = {"--socket", w->socket, "--store", "store", "--model",
                          w->model,   "--version", w->version, "--name", w->model};
    for (size_t i = 0; i < SKF_COUNT(base); i++)
        args[n++] = base[i];
    const struct {
        const char *name;
        unsigned v;
    } numbers[] = {{"--threads", o->threads}, {"--context", o->context}, {"--cache", o->cache}, {"--kv-memory", memory_of(o, w->model)}};
    char text[SKF_COUNT(numbers)][16];
    for (size_t i = 0; i < SKF_COUNT(numbers); i++)
        if (numbers[i].v) {
            (void)snprintf(text[i], sizeof text[i], "%u", numbers[i].v);
            args[n++] = numbers[i].name;
            args[n++] = text[i];
        }
    if (o->repack) {
        args[n++] = "--repack";
        args[n++] = o->repack;
    }
    args[n] = NULL;
    w->started = now;
    w->is_hung = w->is_warm = false;
    w->warm_sent = 0;
    if (skf_spawn("skiff-worker", args, &w->pid, NULL, &w->tap, &why) == SKF_OK) {
        w->state = SKF_WORKER_STARTING;
        return;
    }
    (void)snprintf(w->error, sizeof w->error, "%.250s", why.text);
    skf_log(SKF_LOG_ERROR, "%s %s: %s", w->model, w->version, why.text);
    set_dead(w, now);
}

/* ---- its messages ------------------------------------------------------------------------------------------------------- */

static void on_health(struct skf_worker *w, const Skiff__V1__Health *h, uint64_t now)
{
    w->ping_sent = 0;
    w->next_ping = now + PING_EACH;
    if (w->probe_sent && h->id == w->probe_sent) {
        w->probe_sent = 0;
        w->has_probed = true;
        w->is_probe_ok = h->ok;
    }
    if (!h->ok)
        (void)snprintf(w->error, sizeof w->error, "%.250s", h->error[0] ? h->error : "the worker says it is not well");
}

static bool is_sent(struct skf_worker *w, Skiff__V1__ToWorker *m)
{
    uint8_t *p;
    size_t n;
    if (w->fd < 0 || skf_msg_pack(&m->base, &p, &n) != SKF_OK)
        return false;
    bool ok = skf_frame_write(w->fd, FRAME_WAIT, p, n) == SKF_OK;
    skf_free(p);
    return ok;
}

void skf_worker_warm(struct skf_worker *w, const struct skf_agent_opts *o, uint64_t now)
{
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    Skiff__V1__Warm warm = SKIFF__V1__WARM__INIT;
    Skiff__V1__WarmText texts[SKF_AGENT_WARM], *list[SKF_AGENT_WARM];
    Skiff__V1__ChatMessage said[SKF_AGENT_WARM], *first[SKF_AGENT_WARM];
    if (w->warm_sent || w->state != SKF_WORKER_READY)
        return;
    w->warm_sent = now;
    w->is_warm = !o->n_warm;
    for (size_t i = 0; i < o->n_warm; i++) {
        skiff__v1__warm_text__init(&texts[i]);
        skiff__v1__chat_message__init(&said[i]);
        said[i].role = (char *)(uintptr_t)"system";
        said[i].content = (char *)(uintptr_t)o->warm[i];
        first[i] = &said[i];
        texts[i].is_chat = true;
        texts[i].n_messages = 1;
        texts[i].messages = &first[i];
        list[i] = &texts[i];
    }
    warm.id = now;
    warm.n_texts = o->n_warm;
    warm.texts = list;
    warm.is_pinned = true;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_WARM;
    m.warm = &warm;
    if (o->n_warm && !is_sent(w, &m))
        hang_up(w);
}

static void on_warmed(struct skf_worker *w, const Skiff__V1__Warmed *said)
{
    w->is_warm = true;
    if (said->error[0])
        skf_log(SKF_LOG_WARN, "%s %s: not all prompts are warm: %.200s", w->model, w->version, said->error);
    else
        skf_log(SKF_LOG_INFO, "%s %s: %u tokens of prompts are warm", w->model, w->version, said->tokens);
}

static void on_hello(struct skf_worker *w, const Skiff__V1__Health *h, uint64_t now)
{
    if (strcmp(h->version, w->version) != 0 || !h->ok) {
        (void)snprintf(w->error, sizeof w->error, "the worker says: version '%.100s', %.100s", h->version,
                       h->ok ? "well" : h->error);
        skf_worker_kill(w);
        return;
    }
    w->state = SKF_WORKER_READY;
    w->ready = now;
}

/* One frame if one is there. False when the connection is gone. */
static bool is_read(struct skf_worker *w, uint64_t now, bool *got)
{
    struct pollfd p = {w->fd, POLLIN, 0};
    *got = false;
    if (poll(&p, 1, 0) <= 0)
        return true;
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    Skiff__V1__FromWorker *m = NULL;
    bool ok = skf_frame_read(w->fd, FRAME_WAIT, &b) == SKF_OK &&
              SKF_UNPACK(skiff__v1__from_worker, Skiff__V1__FromWorker, b.data, b.len, SKF_FRAME_MAX, &m, NULL) == SKF_OK;
    skf_buf_free(&b);
    if (!ok)
        return false;
    *got = true;
    if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_HELLO && w->state == SKF_WORKER_STARTING)
        on_hello(w, m->hello, now);
    else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_HEALTH)
        on_health(w, m->health, now);
    else if (m->kind_case == SKIFF__V1__FROM_WORKER__KIND_WARMED)
        on_warmed(w, m->warmed);
    skf_msg_free(&m->base);
    return true;
}

static void ask(struct skf_worker *w, uint64_t now, bool is_light)
{
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    Skiff__V1__Probe probe = SKIFF__V1__PROBE__INIT;
    probe.id = now;
    probe.is_light = is_light;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_PROBE;
    m.probe = &probe;
    *(is_light ? &w->ping_sent : &w->probe_sent) = now;
    w->silent = w->idle = 0;
    if (!is_sent(w, &m))
        hang_up(w); /* connected anew by the next turn, which asks again */
}

void skf_worker_probe(struct skf_worker *w, uint64_t now)
{
    w->has_probed = w->is_probe_ok = false;
    ask(w, now, false);
}

void skf_worker_quit(struct skf_worker *w, uint64_t now)
{
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    Skiff__V1__Quit quit = SKIFF__V1__QUIT__INIT;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_QUIT;
    m.quit = &quit;
    bool is_told = w->state == SKF_WORKER_READY && is_sent(w, &m);
    w->is_kept = false;
    w->state = w->pid ? SKF_WORKER_LEAVING : SKF_WORKER_GONE;
    w->deadline = now + LEAVE_WAIT;
    if (!is_told)
        skf_worker_kill(w); /* it serves nobody yet, or does not listen any more */
}

/* ---- its life ------------------------------------------------------------------------------------------------------------ */

static uint64_t cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * SKF_SECOND + (uint64_t)t.tv_nsec;
}

/* Asks every while whether it still steps; one that owes an answer and does nothing is ended, so that its requests go to another.  Time
 * counts by our own turns: where the whole machine stood still, the worker is not to blame. */
static void mind(struct skf_worker *w, uint64_t now)
{
    uint64_t cpu = cpu_of(w->pid), turn = SKF_MIN(now - w->minded, SKF_SECOND);
    bool works = cpu - w->cpu > turn / WORK_LEAST;
    w->minded = now;
    w->cpu = cpu;
    if (w->is_hung || w->fd < 0)
        return;
    if (!w->ping_sent && !w->probe_sent) {
        if (now >= w->next_ping)
            ask(w, now, true);
        return;
    }
    w->silent += turn;
    w->idle = works ? 0 : w->idle + turn;
    if (w->idle <= HANG_IDLE && w->silent <= HANG_BUSY)
        return;
    w->is_hung = true;
    skf_worker_kill(w);
}

/* Takes what came; true when that was anything. Without a connection when that is gone. */
static bool is_drained(struct skf_worker *w, uint64_t now)
{
    bool got = false, changed = false;
    do {
        if (w->fd >= 0 && !is_read(w, now, &got)) {
            hang_up(w);
            got = false;
            changed = true;
        }
        changed = changed || got;
    } while (got && w->fd >= 0);
    return changed;
}

static bool is_turned(struct skf_worker *w, uint64_t now, const struct skf_agent_opts *o)
{
    if (w->fd < 0 && skf_unix_connect(w->socket, &w->fd, NULL) != SKF_OK)
        w->fd = -1;
    bool changed = is_drained(w, now);
    if (w->fd < 0 && w->state == SKF_WORKER_READY)
        w->state = SKF_WORKER_STARTING; /* it must greet us again */
    skf_worker_warm(w, o, now);
    if (w->state == SKF_WORKER_READY)
        mind(w, now);
    if (w->state == SKF_WORKER_STARTING && now - w->started > START_WAIT && !w->ready) {
        (void)snprintf(w->error, sizeof w->error, "the worker did not become ready");
        skf_worker_kill(w);
    }
    return changed;
}

bool is_worker_changed(struct skf_worker *w, uint64_t now, const struct skf_agent_opts *o)
{
    skf_tap_pump(&w->tap);
    switch (w->state) {
    case SKF_WORKER_WAITING:
        if (now < w->next)
            return false;
        start(w, now, o);
        return true;
    case SKF_WORKER_STARTING:
    case SKF_WORKER_READY:
        return is_turned(w, now, o);
    case SKF_WORKER_LEAVING:
        (void)is_drained(w, now);
        mind(w, now);
        if (now > w->deadline)
            skf_worker_kill(w);
        return false;
    default:
        return false;
    }
}
