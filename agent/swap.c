/*
 * The second half of an update: the new version's worker is started beside the old one and asked whether it is well, gets the new
 * requests, is watched for a while, and is confirmed, or everything goes back to the old one, which never stopped.
 */
#include "agent/agent_priv.h"

#include <unistd.h>

#define CHECK_WAIT  (300 * SKF_SECOND) /* start and self-check */
#define CHECK_PAUSE (500 * SKF_MS)     /* before another attempt */
#define PROBE_WAIT  (60 * SKF_SECOND)  /* of a version that serves: the probe waits its turn */
#define WARM_WAIT   (60 * SKF_SECOND)
#define SPARE       (64ull << 20)      /* bytes of memory that a worker takes beside its weights, about */
#define STATUS_EACH SKF_SECOND
#define FAILED_MOST 3 /* requests, and more than a quarter of all, while a version is watched */

static void set_slot(struct skf_slots *s, enum skf_slot slot, const char *version)
{
    (void)snprintf(s->version[slot], SKF_NAME_MAX, "%s", version);
}

/* ---- going back --------------------------------------------------------------------------------------------------------------- */

/* New requests go to the old version again; the new one ends what it began only if it is well. */
static void go_back(struct skf_box *b, enum skf_err e, const char *text, uint64_t now)
{
    struct skf_agent *a = b->agent;
    bool was_first = b->is_new_first, was_shadow = b->shadow_from != 0;
    b->is_new_first = false;
    b->shadow_from = 0;
    if (was_first || was_shadow) {
        uint64_t pause;
        a->has_routes = is_agent_routed(a, &pause);
    }
    if (e == SKF_OK && b->incoming) { /* without blame: what it answers just now it may end */
        skf_agent_leave(a, b->incoming, false);
        b->incoming = NULL;
    }
    b->is_returned_by_centre = false;
    if (e == SKF_OK && b->has_pending) {
        set_slot(&b->slots, SKF_SLOT_INCOMING, "");
        skf_box_phase(b, SKIFF__V1__PHASE__PHASE_IDLE, now);
        skf_box_keep(b);
        a->is_swept = false;
        return;
    }
    skf_box_fail(b, was_first ? SKIFF__V1__PHASE__PHASE_RETURNED : SKIFF__V1__PHASE__PHASE_FAILED,
                 e == SKF_OK ? SKF_ERR_CANCELLED : e, text, now);
}

/* ---- checking ------------------------------------------------------------------------------------------------------------------ */

/* Can the new version's worker run beside the old one? */
static bool is_room_beside(const struct skf_box *b)
{
    const char *how = b->agent->o->swap ? b->agent->o->swap : "auto";
    struct skf_view *v;
    if (strcmp(how, "auto") != 0)
        return strcmp(how, "side") == 0;
    if (skf_view_open(b->agent->store, b->model, b->rec.assign.version, &v, NULL) != SKF_OK)
        return true; /* its worker will say what is wrong */
    uint64_t need = skf_view_version(v)->size + SPARE;
    skf_view_close(v);
    return skf_memory_available() >= need;
}

/* In place: requests wait at the gateway, the old worker ends what it answers and leaves. True once it has, or need not. */
static bool is_place_free(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    uint64_t pause;
    if (!b->is_held && (!b->active || is_room_beside(b)))
        return true;
    if (!b->is_held) {
        skf_log(SKF_LOG_INFO, "%s: %s makes room for %s; requests wait", b->model, b->active->version, b->rec.assign.version);
        b->is_held = true;
        a->has_routes = false;
    }
    if (!a->has_routes && !(a->has_routes = is_agent_routed(a, &pause)))
        return false; /* it serves on until the gateway knows */
    if (b->active && b->active->state != SKF_WORKER_LEAVING && b->active->state != SKF_WORKER_GONE)
        skf_worker_quit(b->active, now);
    if (b->active && b->active->state != SKF_WORKER_GONE)
        return false;
    skf_worker_free(b->active);
    b->active = NULL;
    return true;
}

void skf_box_hold_over(struct skf_box *b)
{
    if (!b->is_held)
        return;
    if (b->active && b->active->state == SKF_WORKER_GONE) {
        skf_worker_free(b->active);
        b->active = NULL;
    }
    const char *version = b->slots.version[SKF_SLOT_ACTIVE];
    if (b->is_asleep)
        return;
    if (!b->active && version[0])
        b->active = skf_worker_new(b->model, version, ++b->agent->next_socket, true);
    if (version[0] && (!b->active || b->active->state != SKF_WORKER_READY))
        return;
    b->is_held = false;
    b->agent->has_routes = false;
}

/* An attempt is counted before it is made: a version that takes the whole box down is not tried for ever. */
static void start_check(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    char text[500];
    if (now - b->phase_since < CHECK_PAUSE && b->rec.attempts)
        return;
    if (!is_layout_made(b, b->rec.assign.version, now))
        return;
    if (b->rec.attempts >= SKF_AGENT_ATTEMPTS) {
        (void)snprintf(text, sizeof text, "not confirmed in %d attempts%s%.200s", SKF_AGENT_ATTEMPTS,
                       b->rec.error[0] ? "; the last: " : "", b->rec.error);
        go_back(b, SKF_ERR_STATE, text, now);
        return;
    }
    if (!is_place_free(b, now))
        return;
    b->rec.attempts++;
    Skiff__V1__Phase before = b->rec.phase;
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_CHECKING, now);
    if (skf_box_save(b) != SKF_OK) {
        b->rec.attempts--;
        skf_box_phase(b, before, now);
        return;
    }
    b->incoming = skf_worker_new(b->model, b->rec.assign.version, ++a->next_socket, false);
    b->has_shadowed = false;
    b->shadow_from = 0;
    if (!b->incoming)
        go_back(b, SKF_ERR_NOMEM, "no memory for a worker", now);
}

static void check_died(struct skf_box *b, uint64_t now)
{
    (void)snprintf(b->rec.error, sizeof b->rec.error, "%.255s", b->incoming->error);
    if (b->shadow_from)
        b->agent->has_routes = false;
    b->shadow_from = 0;
    skf_agent_leave(b->agent, b->incoming, true);
    b->incoming = NULL;
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_STAGED, now);
}

/* Routes follow the journal: a restart between the two finds a version that was tried. */
static void swap(struct skf_box *b, uint64_t now)
{
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_WATCHING, now);
    if (skf_box_save(b) != SKF_OK) {
        go_back(b, SKF_ERR_IO, "the journal cannot be written", now);
        return;
    }
    b->is_new_first = true;
    b->has_base = false;
    b->watch_from = 0;
    b->incoming->has_probed = false;
    b->agent->has_routes = false;
}

void skf_box_check(struct skf_box *b, uint64_t now)
{
    struct skf_worker *w = b->incoming;
    if (b->is_returned_by_centre) {
        go_back(b, SKF_OK, "cancelled by the centre", now);
        return;
    }
    if (!w) {
        start_check(b, now);
        return;
    }
    if (w->state == SKF_WORKER_GONE) {
        check_died(b, now);
        return;
    }
    if (now - b->phase_since > CHECK_WAIT) {
        go_back(b, SKF_ERR_TIMEOUT, "the new version's self-check did not end", now);
        return;
    }
    if (w->state != SKF_WORKER_READY)
        return;
    if (w->has_probed && !w->is_probe_ok) {
        char text[500];
        (void)snprintf(text, sizeof text, "self-check: %s", w->error);
        go_back(b, SKF_ERR_STATE, text, now);
    } else if (w->has_probed && !w->is_warm && now - w->warm_sent < WARM_WAIT) {
        return; /* how prompts begin is computed before they come */
    } else if (w->has_probed) {
        struct skf_why why = {{0}};
        bool is_over;
        if (skf_box_shadow(b, &is_over, now, &why) != SKF_OK) {
            go_back(b, SKF_ERR_STATE, why.text, now);
            return;
        }
        if (!is_over)
            return;
        swap(b, now);
        if (b->rec.phase == SKIFF__V1__PHASE__PHASE_WATCHING)
            skf_box_watch(b, now); /* the route at once, not a turn later */
    } else if (!w->probe_sent) {
        skf_worker_probe(w, now);
    }
}

/* ---- watching ------------------------------------------------------------------------------------------------------------------- */

/* False when the requests that the new version got speak against it. */
static bool is_served_well(struct skf_box *b, uint64_t now)
{
    struct skf_route r = {b->model, b->incoming->version, b->incoming->socket, false, false, 0};
    struct skf_route_status s;
    if (now < b->next_status || !is_gateway_usable(&b->agent->gateway))
        return true;
    b->next_status = now + STATUS_EACH;
    if (skf_gateway_status(&b->agent->gateway, &r, &s, NULL) != SKF_OK || !s.is_known)
        return true; /* the gateway's trouble is not the version's */
    if (!b->has_base || s.served < b->base.served || s.failed < b->base.failed) {
        b->base = s;
        b->has_base = true;
    }
    uint64_t failed = s.failed - b->base.failed, served = s.served - b->base.served;
    return failed < FAILED_MOST || failed * 4 <= failed + served;
}

static bool is_watch_over(struct skf_box *b, uint64_t now)
{
    struct skf_worker *w = b->incoming;
    if (now - b->watch_from < b->agent->o->watch_seconds * SKF_SECOND)
        return false;
    if (w->has_probed)
        return true;
    if (!w->probe_sent && w->state == SKF_WORKER_READY)
        skf_worker_probe(w, now);
    return now - b->watch_from > b->agent->o->watch_seconds * SKF_SECOND + PROBE_WAIT;
}

void skf_box_watch(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    struct skf_worker *w = b->incoming;
    char text[500];
    if (b->is_returned_by_centre) {
        go_back(b, SKF_OK, "cancelled by the centre", now);
        return;
    }
    if (w->state == SKF_WORKER_GONE) {
        (void)snprintf(text, sizeof text, "while it was watched: %s", w->error);
        go_back(b, SKF_ERR_STATE, text, now);
        return;
    }
    if (!b->watch_from) { /* the route is not set yet: the gateway may be just starting */
        a->has_routes = is_agent_routed(a, &b->rec.swap_pause_us);
        if (!a->has_routes)
            return;
        b->watch_from = now;
        b->is_dirty = true;
        skf_log(SKF_LOG_INFO, "%s: %s takes the requests, pause %llu us", b->model, w->version,
                (unsigned long long)b->rec.swap_pause_us);
    }
    if (!is_served_well(b, now)) {
        go_back(b, SKF_ERR_STATE, "while it was watched: requests failed", now);
        return;
    }
    if (!is_watch_over(b, now))
        return;
    if (w->has_probed && w->is_probe_ok) {
        skf_box_confirm(b, now);
    } else {
        (void)snprintf(text, sizeof text, "at the end of its watch: %s", w->has_probed ? w->error : "no answer to a probe");
        go_back(b, w->has_probed ? SKF_ERR_STATE : SKF_ERR_TIMEOUT, text, now);
    }
}

void skf_box_confirm(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    struct skf_slots before = b->slots;
    const char *version = b->rec.assign.version;
    set_slot(&b->slots, SKF_SLOT_PREVIOUS, before.version[SKF_SLOT_ACTIVE]);
    set_slot(&b->slots, SKF_SLOT_ACTIVE, version);
    set_slot(&b->slots, SKF_SLOT_INCOMING, "");
    set_slot(&b->slots, SKF_SLOT_PINNED, b->rec.assign.is_pinned ? version : "");
    b->rec.err = SKF_OK;
    b->rec.error[0] = 0;
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_CONFIRMED, now);
    if (skf_box_save(b) != SKF_OK) { /* it serves; the next turn tries again */
        b->slots = before;
        b->rec.phase = SKIFF__V1__PHASE__PHASE_WATCHING;
        return;
    }
    struct skf_worker *old = b->active;
    b->active = b->incoming;
    b->active->is_kept = true;
    b->active->bad = 0;
    b->incoming = NULL;
    b->is_new_first = b->is_held = b->is_asleep = false;
    if (old) /* no new request went to it since the watch began */
        skf_agent_leave(a, old, false);
    a->has_routes = false;
    a->is_swept = false;
}

/* ---- an active version that does not stay up --------------------------------------------------------------------------------------- */

void skf_box_guard(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    const char *previous = b->slots.version[SKF_SLOT_PREVIOUS];
    if (!b->active || b->active->bad < SKF_AGENT_ATTEMPTS || !previous[0])
        return;
    char text[500];
    struct skf_slots before = b->slots;
    struct skf_worker *w = skf_worker_new(b->model, previous, ++a->next_socket, true);
    if (!w)
        return;
    (void)snprintf(text, sizeof text, "%s ended %u times: %.250s", b->slots.version[SKF_SLOT_ACTIVE], b->active->bad,
                   b->active->error);
    set_slot(&b->slots, SKF_SLOT_ACTIVE, previous);
    set_slot(&b->slots, SKF_SLOT_PREVIOUS, "");
    set_slot(&b->slots, SKF_SLOT_PINNED, "");
    struct skf_record rec = b->rec;
    if (skf_box_save(b) != SKF_OK) {
        b->slots = before;
        b->rec = rec;
        skf_worker_free(w);
        b->active->bad = 0; /* asked again after as many more deaths */
        return;
    }
    skf_agent_leave(a, b->active, true);
    b->active = w;
    a->has_routes = false;
    skf_box_fail(b, SKIFF__V1__PHASE__PHASE_RETURNED, SKF_ERR_STATE, text, now);
}
