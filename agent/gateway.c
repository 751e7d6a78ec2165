/*
 * The gateway: a child that holds the box's HTTP port, and its control socket, by which the agent says which worker answers what.
 */
#include "agent/agent_priv.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "proto/frame.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

#define CONTROL    "run/gateway.sock"
#define START_WAIT (20 * SKF_SECOND)
#define LONG_LIFE  (30 * SKF_SECOND)
#define ANSWER_MS  5000
#define LOOK_EACH  (5 * SKF_SECOND)

enum skf_err skf_gateway_init(struct skf_gateway *g, const struct skf_agent_opts *o, struct skf_why *why)
{
    const char *const given[4] = {o->api_unix, o->api_cert, o->api_key, o->api_keys};
    char here[PATH_MAX];
    memset(g, 0, sizeof *g);
    g->out = g->control = g->tap.fd = -1;
    (void)snprintf(g->listen, sizeof g->listen, "%s", o->listen);
    if (!getcwd(here, sizeof here))
        return skf_fail_errno(why, errno, "the working folder");
    for (int i = 0; i < 4; i++) {
        int n = !given[i] ? 0 : given[i][0] == '/' ? snprintf(g->path[i], PATH_MAX, "%s", given[i]) : snprintf(g->path[i], PATH_MAX, "%s/%s", here, given[i]);
        if (n >= PATH_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "%.100s...: the path is too long", given[i]);
    }
    return SKF_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void start(struct skf_gateway *g, uint64_t now)
{
    static const char *const names[4] = {"--unix", "--tls-cert", "--tls-key", "--keys"};
    const char *args[14] = {"--listen", g->listen, "--control", CONTROL, "--parent-death"};
    for (size_t i = 0, n = 5; i < SKF_COUNT(names); i++)
        if (g->path[i][0]) {
            args[n++] = names[i];
            args[n++] = g->path[i];
        }
    struct skf_why why = {{0}};
    g->started = now;
    g->is_listening = false;
    g->line_len = 0;
    g->tap.is_quiet = !g->has_listened;
    if (skf_spawn("skiff-gateway", args, &g->pid, &g->out, &g->tap, &why) != SKF_OK) {
        skf_log(SKF_LOG_ERROR, "gateway: %s", why.text);
        g->pid = 0;
        g->next = now + 5 * SKF_SECOND;
        g->bad++;
        (void)snprintf(g->tap.error, sizeof g->tap.error, "%.255s", why.text);
    }
}

/* "listening 127.0.0.1:8080": from then on this is the address it is started with, so that clients find it again. */
static void read_line(struct skf_gateway *g)
{
    static const char word[] = "listening ";
    ssize_t n = read(g->out, g->line + g->line_len, sizeof g->line - 1 - g->line_len);
    if (n <= 0)
        return;
    g->line_len += (size_t)n;
    g->line[g->line_len] = 0;
    char *end = strchr(g->line, '\n');
    if (!end)
        return;
    *end = 0;
    if (strncmp(g->line, word, sizeof word - 1) == 0) {
        (void)snprintf(g->listen, sizeof g->listen, "%.127s", g->line + sizeof word - 1);
        g->is_listening = g->has_listened = true;
        g->tap.is_quiet = false;
    }
    g->line_len = 0;
}

bool is_gateway_up_now(struct skf_gateway *g, uint64_t now)
{
    skf_tap_pump(&g->tap);
    if (!g->pid) {
        if (now >= g->next)
            start(g, now);
        return false;
    }
    if (!g->is_listening) {
        read_line(g);
        if (now - g->started > START_WAIT)
            (void)kill(g->pid, SIGKILL);
    }
    if (!g->is_listening || g->control >= 0)
        return false;
    if (skf_unix_connect(CONTROL, &g->control, NULL) != SKF_OK)
        g->control = -1;
    return g->control >= 0;
}

bool is_gateway_usable(const struct skf_gateway *g) { return g->pid && g->is_listening && g->control >= 0; }

void skf_gateway_exited(struct skf_gateway *g, int status, uint64_t now)
{
    skf_tap_close(&g->tap);
    enum skf_level level = g->has_listened && status ? SKF_LOG_WARN : SKF_LOG_DEBUG;
    if (WIFSIGNALED(status))
        skf_log(level, "gateway: ended by signal %d", WTERMSIG(status));
    else
        skf_log(level, "gateway: ended with status %d", WEXITSTATUS(status));
    g->bad = g->is_listening && now - g->started > LONG_LIFE ? 1 : g->bad + 1;
    g->next = now + (g->bad <= 1 ? 0 : SKF_MIN(200 * SKF_MS << SKF_MIN(g->bad - 2, 8u), 10 * SKF_SECOND));
    g->pid = 0;
    g->is_listening = false;
    close_fd(&g->out);
    close_fd(&g->control);
}

void skf_gateway_stop(struct skf_gateway *g)
{
    if (g->pid > 0)
        (void)kill(g->pid, SIGTERM);
    close_fd(&g->control);
}

/* ---- questions ---------------------------------------------------------------------------------------------------------- */

static enum skf_err ask(struct skf_gateway *g, Skiff__V1__ToGateway *m, Skiff__V1__FromGateway **answer,
                        struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    uint8_t *p = NULL;
    size_t n;
    *answer = NULL;
    if (!is_gateway_usable(g))
        return skf_fail(why, SKF_ERR_NET, "gateway: not connected");
    m->id = ++g->last_id;
    enum skf_err e = skf_msg_pack(&m->base, &p, &n);
    if (e == SKF_OK)
        e = skf_frame_write(g->control, ANSWER_MS, p, n);
    skf_free(p);
    while (e == SKF_OK) {
        if ((e = skf_frame_read(g->control, ANSWER_MS, &b)) != SKF_OK)
            break;
        e = SKF_UNPACK(skiff__v1__from_gateway, Skiff__V1__FromGateway, b.data, b.len, SKF_FRAME_MAX, answer, why);
        if (e != SKF_OK || (*answer)->id == m->id)
            break;
        skf_msg_free(&(*answer)->base); /* of a question that was given up */
        *answer = NULL;
    }
    skf_buf_free(&b);
    if (e == SKF_OK && (*answer)->error[0]) {
        e = skf_fail(why, SKF_ERR_REFUSED, "gateway: %.200s", (*answer)->error);
        skf_msg_free(&(*answer)->base);
        *answer = NULL;
        return e;
    }
    if (e == SKF_OK)
        return e;
    close_fd(&g->control); /* no half-read answer is left on it */
    if (e == SKF_ERR_TIMEOUT && g->pid)
        (void)kill(g->pid, SIGKILL); /* it hangs: a new one is up sooner */
    return skf_fail(why, e, "gateway: no answer (%s)", skf_err_name(e));
}

enum skf_err skf_gateway_routes(struct skf_gateway *g, const struct skf_route *r, size_t n, const struct skf_agent_opts *o,
                                uint64_t *pause_us, struct skf_why *why)
{
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__SetRoutes set = SKIFF__V1__SET_ROUTES__INIT;
    Skiff__V1__Route routes[2 * SKF_AGENT_MODELS], *list[2 * SKF_AGENT_MODELS];
    Skiff__V1__Alias aliases[SKF_AGENT_MODEL_OPTS * SKF_AGENT_ALIASES], *names[SKF_AGENT_MODEL_OPTS * SKF_AGENT_ALIASES];
    Skiff__V1__FromGateway *answer;
    if (n > SKF_COUNT(routes))
        return skf_fail(why, SKF_ERR_INTERNAL, "gateway: %zu routes", n);
    for (size_t i = 0; i < n; i++) {
        skiff__v1__route__init(&routes[i]);
        routes[i].model = (char *)(uintptr_t)r[i].model;
        routes[i].version = (char *)(uintptr_t)r[i].version;
        routes[i].socket = (char *)(uintptr_t)r[i].socket;
        routes[i].is_held = r[i].is_held;
        routes[i].is_asleep = r[i].is_asleep;
        routes[i].shadow_permille = r[i].shadow_permille;
        if (r[i].is_held)
            set.wait_ms = SKF_HELD_WAIT;
        list[i] = &routes[i];
    }
    set.n_routes = n;
    set.routes = list;
    for (size_t i = 0; i < o->n_models; i++)
        for (size_t k = 0; k < o->models[i].n_aliases; k++, set.n_aliases++) {
            skiff__v1__alias__init(&aliases[set.n_aliases]);
            aliases[set.n_aliases].name = (char *)(uintptr_t)o->models[i].aliases[k];
            aliases[set.n_aliases].model = (char *)(uintptr_t)o->models[i].name;
            names[set.n_aliases] = &aliases[set.n_aliases];
        }
    set.aliases = names;
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_SET_ROUTES;
    m.set_routes = &set;
    SKF_TRY(ask(g, &m, &answer, why));
    *pause_us = answer->status ? answer->status->swap_pause_us : 0;
    skf_msg_free(&answer->base);
    return SKF_OK;
}

enum skf_err skf_gateway_status(struct skf_gateway *g, const struct skf_route *r, struct skf_route_status *out,
                                struct skf_why *why)
{
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__GetStatus get = SKIFF__V1__GET_STATUS__INIT;
    Skiff__V1__FromGateway *answer;
    memset(out, 0, sizeof *out);
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS;
    m.get_status = &get;
    SKF_TRY(ask(g, &m, &answer, why));
    for (size_t i = 0; answer->status && i < answer->status->n_routes; i++) {
        const Skiff__V1__RouteStatus *s = answer->status->routes[i];
        if (s->route && strcmp(s->route->socket, r->socket) == 0 && strcmp(s->route->model, r->model) == 0)
            *out = (struct skf_route_status){.is_known = true, .served = s->served, .failed = s->failed, .active = s->active, .waiting = s->waiting,
                                             .compared = s->compared, .compared_tokens = s->compared_tokens, .equal_tokens = s->equal_tokens,
                                             .main_tokens = s->main_tokens, .main_us = s->main_us, .shadow_tokens = s->shadow_tokens,
                                             .shadow_us = s->shadow_us};
    }
    skf_msg_free(&answer->base);
    return SKF_OK;
}

void skf_gateway_mind(struct skf_gateway *g, uint64_t now)
{
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__GetStatus get = SKIFF__V1__GET_STATUS__INIT;
    Skiff__V1__FromGateway *answer;
    if (now < g->next_look || !is_gateway_usable(g))
        return;
    g->next_look = now + LOOK_EACH;
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS;
    m.get_status = &get;
    if (ask(g, &m, &answer, NULL) == SKF_OK)
        skf_msg_free(&answer->base);
}
