/*
 * Before a new version gets the requests: a share of those that the old one answers goes to it too, and what both say is compared
 * (gateway/shadow.c).  It goes on when enough was compared, or when the time for it is over: a box that nobody asks is updated all the same.
 */
#include "agent/agent_priv.h"

#define LOOK_EACH (200 * SKF_MS)

static bool is_wanted(const struct skf_box *b)
{
    return b->agent->o->shadow_permille && b->active && b->active->state == SKF_WORKER_READY && !b->is_held;
}

static double rate(uint64_t tokens, uint64_t us) { return us ? (double)tokens * 1e6 / (double)us : 0; }

static void stop(struct skf_box *b)
{
    b->shadow_from = 0;
    b->agent->has_routes = false;
}

enum skf_err skf_box_shadow(struct skf_box *b, bool *is_over, uint64_t now, struct skf_why *why)
{
    struct skf_agent *a = b->agent;
    const struct skf_agent_opts *o = a->o;
    struct skf_route_status s;
    uint64_t pause;
    *is_over = b->has_shadowed || !is_wanted(b);
    if (*is_over) {
        if (b->shadow_from)
            stop(b);
        return SKF_OK;
    }
    if (!b->shadow_from) {
        b->shadow_from = now;
        a->has_routes = is_agent_routed(a, &pause);
    }
    if (now < b->next_status)
        return SKF_OK;
    b->next_status = now + LOOK_EACH;
    struct skf_route r = {b->model, b->incoming->version, b->incoming->socket, false, false, 0};
    if (skf_gateway_status(&a->gateway, &r, &s, NULL) != SKF_OK)
        memset(&s, 0, sizeof s);
    bool is_late = now - b->shadow_from > o->shadow_seconds * SKF_SECOND;
    if (s.compared < o->shadow_requests && !is_late)
        return SKF_OK;
    b->has_shadowed = *is_over = true;
    stop(b);
    uint64_t permille = s.compared_tokens ? s.equal_tokens * 1000 / s.compared_tokens : 1000;
    char text[300];
    (void)snprintf(text, sizeof text, "%llu answers compared: %llu of %llu tokens are equal (%.1f %%); %.1f tokens/s instead of %.1f",
                   (unsigned long long)s.compared, (unsigned long long)s.equal_tokens, (unsigned long long)s.compared_tokens,
                   (double)permille / 10, rate(s.shadow_tokens, s.shadow_us), rate(s.main_tokens, s.main_us));
    skf_log(SKF_LOG_INFO, "%s %s: %s", b->model, b->incoming->version, text);
    if (permille < o->shadow_agreement)
        return skf_fail(why, SKF_ERR_STATE, "shadow: %s, %.1f %% are asked for", text, o->shadow_agreement / 10.0);
    return SKF_OK;
}
