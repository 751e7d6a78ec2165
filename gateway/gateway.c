/* The gateway as a whole: its threads begin and end here. */
#include "gateway/gateway.h"

#include "base/alloc.h"
#include "base/digest.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"

/* A link that is routed no more and has nothing running, taken off the list; NULL when there is none. */
static struct gw_link *take_unused_(struct skf_gw *g)
{
    for (struct gw_link **at = &g->links; *at; at = &(*at)->next) {
        struct gw_link *l = *at;
        if (l->is_routed || l->is_wanted || l->active)
            continue;
        l->stop = true;
        *at = l->next;
        return l;
    }
    return NULL;
}

/* Lets go of workers that are needed no more and of requests that have waited too long. */
static void *keep(void *ctx)
{
    struct skf_gw *g = ctx;
    pthread_mutex_lock(&g->lock);
    while (!g->stop) {
        uint64_t deadline, now = skf_now_ns();
        skf_gw_wait_over_(g, now, &deadline);
        struct gw_link *l = take_unused_(g);
        if (l) {
            pthread_mutex_unlock(&g->lock);
            skf_gw_link_free(l);
            pthread_mutex_lock(&g->lock);
        } else if (deadline == UINT64_MAX) {
            pthread_cond_wait(&g->changed, &g->lock);
        } else {
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            uint64_t ns = (uint64_t)t.tv_nsec + SKF_MIN(deadline - now, 1000000000ull);
            t.tv_sec += (time_t)(ns / 1000000000);
            t.tv_nsec = (long)(ns % 1000000000);
            pthread_cond_timedwait(&g->changed, &g->lock, &t);
        }
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static enum skf_err open_parts(struct skf_gw *g, const struct skf_gw_opts *o, struct skf_why *why)
{
    uint8_t id[8];
    if (skf_random(id, sizeof id) != SKF_OK)
        return skf_fail(why, SKF_ERR_IO, "no random bytes");
    skf_hex(id, sizeof id, g->run_id);
    if (o->keys && strlen(o->keys) >= sizeof g->keys_path)
        return skf_fail(why, SKF_ERR_ARG, "the path of the file of keys is too long");
    snprintf(g->keys_path, sizeof g->keys_path, "%s", o->keys ? o->keys : "");
    SKF_TRY(skf_gw_reload_keys(g, why));
    SKF_TRY(skf_gw_api_open(g, o, why));
    const char *colon = strrchr(o->listen, ':');
    snprintf(g->listen, sizeof g->listen, "%.*s:%u", (int)SKF_MIN(colon - o->listen, (ptrdiff_t)64), o->listen, skf_http_port(g->http));
    int bad = pthread_create(&g->keeper, NULL, keep, g);
    if (bad)
        return skf_fail_errno(why, bad, "cannot start a thread");
    g->has_keeper = true;
    return o->control ? skf_gw_control_open(g, o->control, why) : SKF_OK;
}

enum skf_err skf_gw_open(const struct skf_gw_opts *o, struct skf_gw **out, struct skf_why *why)
{
    struct skf_gw *g = skf_calloc(1, sizeof *g);
    if (!g)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    g->max_requests = o->max_requests ? o->max_requests : 128;
    g->wait_ms = o->wait_ms ? o->wait_ms : 10000;
    g->control_fd = g->control_stop[0] = g->control_stop[1] = -1;
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->setting, NULL);
    pthread_cond_init(&g->changed, NULL);
    enum skf_err e = open_parts(g, o, why);
    if (e != SKF_OK) {
        skf_gw_close(g);
        return e;
    }
    *out = g;
    return SKF_OK;
}

void skf_gw_close(struct skf_gw *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    skf_gw_control_close(g);
    if (g->has_keeper)
        pthread_join(g->keeper, NULL);
    pthread_mutex_lock(&g->lock);
    skf_gw_drop_all_(g);
    pthread_mutex_unlock(&g->lock);
    skf_http_close(g->http); /* from here on no new request, and nobody but us knows the links */
    while (g->links) {
        struct gw_link *l = g->links;
        g->links = l->next;
        skf_gw_link_free(l);
    }
    skf_gw_keys_free(g->keys);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->setting);
    pthread_cond_destroy(&g->changed);
    skf_free(g);
}

unsigned skf_gw_port(const struct skf_gw *g) { return skf_http_port(g->http); }
