/* Which worker gets what: choosing one, replacing all routes at once, saying how they are. */
#include "base/alloc.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"
#include "proto/msg.h"

/* The first connected worker of the model in the order of the routes; NULL when there is none now. */
struct gw_link *skf_gw_pick_(struct skf_gw *g, const char *model)
{
    struct gw_link *best = NULL;
    for (struct gw_link *l = g->links; l; l = l->next)
        if (l->is_routed && !l->shadow_permille && l->connected && !l->is_leaving && strcmp(l->model, model) == 0 && (!best || l->order < best->order))
            best = l;
    return best;
}

bool is_gw_model_(const struct skf_gw *g, const char *model)
{
    for (const struct gw_link *l = g->links; l; l = l->next)
        if (l->is_routed && !l->shadow_permille && (!model || strcmp(l->model, model) == 0))
            return true;
    return false;
}

const char *skf_gw_only_model_(const struct skf_gw *g)
{
    const char *only = NULL;
    for (const struct gw_link *l = g->links; l; l = l->next) {
        if (l->is_routed && !l->shadow_permille && only && strcmp(l->model, only) != 0)
            return NULL;
        if (l->is_routed && !l->shadow_permille)
            only = l->model;
    }
    return only;
}

const char *skf_gw_alias_(const struct skf_gw *g, const char *name)
{
    for (size_t i = 0; i < g->n_aliases; i++)
        if (strcmp(g->aliases[i].name, name) == 0)
            return g->aliases[i].model;
    return NULL;
}

void skf_gw_pause_over_(struct skf_gw *g, const struct gw_link *l)
{
    if (!l->is_routed || !g->pause_from_ns)
        return;
    g->swap_pause_us = (skf_now_ns() - g->pause_from_ns) / 1000;
    g->pause_from_ns = 0;
}

static bool is_name(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == 0x7f)
            return false;
    return n > 0 && n < GW_NAME;
}

static enum skf_err check(const struct skf_gw_route *r, size_t n, struct skf_why *why)
{
    if (n > GW_LINKS / 2)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d routes", GW_LINKS / 2);
    for (size_t i = 0; i < n; i++) {
        if (!is_name(r[i].model) || !is_name(r[i].version))
            return skf_fail(why, SKF_ERR_ARG, "route %zu: no name of a model and version", i);
        if (!r[i].socket[0] || strlen(r[i].socket) >= GW_PATH)
            return skf_fail(why, SKF_ERR_ARG, "route %zu: the socket's path must have 1 to %d bytes", i, GW_PATH - 1);
    }
    return SKF_OK;
}

static struct gw_link *find_(struct skf_gw *g, const struct skf_gw_route *r)
{
    for (struct gw_link *l = g->links; l; l = l->next)
        if (!l->stop && strcmp(l->model, r->model) == 0 && strcmp(l->version, r->version) == 0 && strcmp(l->socket, r->socket) == 0)
            return l;
    return NULL;
}

static bool is_first_of_model(const struct skf_gw_route *r, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(r[k].model, r[i].model) == 0)
            return false;
    return true;
}

/* Waits until the link is connected: for long while the model's present worker can go on, otherwise only as long as a hello takes. */
static void wait_connected_(struct skf_gw *g, const struct gw_link *l, uint64_t from)
{
    while (!l->connected && !g->stop) {
        struct timespec t;
        if (skf_now_ns() - from > (skf_gw_pick_(g, l->model) ? GW_CONNECT_MS : GW_HELLO_MS) * 1000000ull)
            return;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 50 * 1000000;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&g->changed, &g->lock, &t);
    }
}

/* Links for all of them, and the new first ones connected where the model has a worker already that could go on. */
static enum skf_err prepare_(struct skf_gw *g, const struct skf_gw_route *r, size_t n, struct gw_link **links, struct skf_why *why)
{
    uint64_t from = skf_now_ns();
    for (size_t i = 0; i < n; i++) {
        links[i] = find_(g, &r[i]);
        if (!links[i])
            SKF_TRY(skf_gw_link_new_(g, &r[i], &links[i], why));
        links[i]->is_wanted = true;
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_first_of_model(r, i) || r[i].is_held || r[i].shadow_permille)
            continue;
        pthread_cond_broadcast(&links[i]->work); /* it need not sleep out its pause */
        wait_connected_(g, links[i], from);
        if (!links[i]->connected && skf_gw_pick_(g, r[i].model))
            return skf_fail(why, SKF_ERR_NET, "%s %s: no worker answers on %s; the routes stay as they were", r[i].model, r[i].version,
                            r[i].socket);
    }
    return SKF_OK;
}

static void switch_(struct skf_gw *g, const struct skf_gw_route *r, size_t n, struct gw_link **links)
{
    uint64_t from = g->pause_from_ns ? g->pause_from_ns : skf_now_ns(); /* of a pause that a change before this one began */
    bool changed = false, waiting = false;
    for (size_t i = 0; i < n; i++) {
        bool first = is_first_of_model(r, i) && !r[i].shadow_permille;
        bool same = links[i]->is_routed && links[i] == skf_gw_pick_(g, r[i].model);
        changed = changed || (first && !same);
        waiting = waiting || (first && !links[i]->connected);
    }
    for (struct gw_link *l = g->links; l; l = l->next)
        l->is_routed = false;
    for (size_t i = n; i-- > 0;) { /* the earliest place counts for one named twice */
        links[i]->is_routed = true;
        links[i]->order = i;
        links[i]->is_asleep = r[i].is_asleep;
        links[i]->shadow_permille = r[i].shadow_permille;
    }
    for (size_t i = 0; i < n; i++)
        if (links[i]->connected)
            skf_gw_link_up_(links[i]); /* what waits for a worker of this model */
    g->has_routes = true;
    skf_gw_settle_(g);
    if (changed) {
        g->swap_pause_us = (skf_now_ns() - from) / 1000;
        g->pause_from_ns = waiting ? from : 0;
    }
}

enum skf_err skf_gw_set_names(struct skf_gw *g, const struct skf_gw_alias *a, size_t n, unsigned wait_ms, struct skf_why *why)
{
    if (n > SKF_GW_ALIASES)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d aliases", SKF_GW_ALIASES);
    for (size_t i = 0; i < n; i++)
        if (!is_name(a[i].name) || !is_name(a[i].model))
            return skf_fail(why, SKF_ERR_ARG, "alias %zu: no name", i);
    pthread_mutex_lock(&g->lock);
    g->hold_ms = wait_ms;
    g->n_aliases = n;
    for (size_t i = 0; i < n; i++) {
        snprintf(g->aliases[i].name, GW_NAME, "%s", a[i].name);
        snprintf(g->aliases[i].model, GW_NAME, "%s", a[i].model);
    }
    pthread_mutex_unlock(&g->lock);
    return SKF_OK;
}

enum skf_err skf_gw_set_routes(struct skf_gw *g, const struct skf_gw_route *r, size_t n, struct skf_why *why)
{
    struct gw_link *links[GW_LINKS] = {NULL};
    SKF_TRY(check(r, n, why));
    pthread_mutex_lock(&g->setting);
    pthread_mutex_lock(&g->lock);
    enum skf_err e = g->stop ? skf_fail(why, SKF_ERR_STATE, "the gateway is closing") : prepare_(g, r, n, links, why);
    if (e == SKF_OK)
        switch_(g, r, n, links);
    for (struct gw_link *l = g->links; l; l = l->next)
        l->is_wanted = false;
    pthread_cond_broadcast(&g->changed); /* the keeper lets go of what is needed no more */
    pthread_mutex_unlock(&g->lock);
    pthread_mutex_unlock(&g->setting);
    return e;
}

static uint32_t waiting_(const struct skf_gw *g, const char *model)
{
    uint32_t n = 0;
    for (const struct gw_req *r = g->reqs; r; r = r->next)
        n += !r->link && strcmp(r->ask.model, model) == 0;
    return n;
}

/* FromGateway with the state of every link; `error` "" when there was none. */
enum skf_err skf_gw_status_pack(struct skf_gw *g, uint64_t id, const char *error, uint8_t **p, size_t *n)
{
    Skiff__V1__FromGateway m = SKIFF__V1__FROM_GATEWAY__INIT;
    Skiff__V1__GatewayStatus status = SKIFF__V1__GATEWAY_STATUS__INIT;
    Skiff__V1__RouteStatus routes[GW_LINKS], *list[GW_LINKS];
    Skiff__V1__Route names[GW_LINKS];
    size_t count = 0;
    pthread_mutex_lock(&g->lock);
    for (struct gw_link *l = g->links; l && count < GW_LINKS; l = l->next, count++) {
        skiff__v1__route__init(&names[count]);
        skiff__v1__route_status__init(&routes[count]);
        names[count].model = l->model;
        names[count].version = l->version;
        names[count].socket = l->socket;
        routes[count].route = &names[count];
        routes[count].connected = l->connected;
        routes[count].active = l->active;
        routes[count].served = l->served;
        routes[count].failed = l->failed;
        routes[count].waiting = waiting_(g, l->model);
        routes[count].compared = l->compared.requests;
        routes[count].compared_tokens = l->compared.tokens;
        routes[count].equal_tokens = l->compared.equal;
        routes[count].main_tokens = l->compared.main_tokens;
        routes[count].main_us = l->compared.main_us;
        routes[count].shadow_tokens = l->compared.shadow_tokens;
        routes[count].shadow_us = l->compared.shadow_us;
        list[count] = &routes[count];
    }
    status.n_routes = count;
    status.routes = list;
    status.swap_pause_us = g->pause_from_ns ? (skf_now_ns() - g->pause_from_ns) / 1000 : g->swap_pause_us;
    status.listen = g->listen;
    m.id = id;
    m.error = (char *)(uintptr_t)error;
    m.status = &status;
    enum skf_err e = skf_msg_pack(&m.base, p, n);
    pthread_mutex_unlock(&g->lock);
    return e;
}
