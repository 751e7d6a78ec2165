/*
 * Models that nobody asks for: after a while the worker leaves, so that others have its memory, and requests that come wait at the gateway
 * until it is back.  The gateway tells who is used; nothing else of the model changes, and updates go on as ever.
 */
#include "agent/agent_priv.h"

#define LOOK_EACH    SKF_SECOND
#define LOOK_SLEEPER (100 * SKF_MS) /* somebody may wait for it */

static void fall_asleep(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    uint64_t pause;
    b->is_held = b->is_asleep = true;
    a->has_routes = is_agent_routed(a, &pause);
    if (!a->has_routes) { /* it serves on until the gateway knows */
        b->is_held = b->is_asleep = false;
        b->used = now;
        return;
    }
    skf_log(SKF_LOG_INFO, "%s %s: unloaded, nobody asked for %u s", b->model, b->active->version, a->o->idle_seconds);
    skf_worker_quit(b->active, now);
}

static void wake(struct skf_box *b, uint64_t now)
{
    skf_log(SKF_LOG_INFO, "%s: loaded again, %u wait", b->model, b->use.waiting);
    b->is_asleep = false;
    b->agent->has_routes = false;
    b->used = now;
    skf_box_hold_over(b);
}

void skf_box_idle(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    bool serves = b->active && b->active->state == SKF_WORKER_READY && !b->is_held;
    struct skf_route_status s;
    if (!a->o->idle_seconds || now < b->next_use || !(serves || b->is_asleep) || !is_gateway_usable(&a->gateway))
        return;
    b->next_use = now + (b->is_asleep ? LOOK_SLEEPER : LOOK_EACH);
    struct skf_route r = {b->model, "", b->is_asleep ? SKF_HELD_SOCKET : b->active->socket, false, false, 0};
    if (skf_gateway_status(&a->gateway, &r, &s, NULL) != SKF_OK)
        return;
    bool is_used = !b->used || s.active || s.waiting || s.served != b->use.served || s.failed != b->use.failed;
    b->use = s;
    if (b->is_asleep) {
        if (s.waiting)
            wake(b, now);
        return;
    }
    if (is_used)
        b->used = now;
    else if (now - b->used >= a->o->idle_seconds * SKF_SECOND)
        fall_asleep(b, now);
}
