/*
 * One model on this box: from an assignment to a version in the store.  The record in the journal is written before a step that
 * must not be taken twice without knowing of it, so that a restart finds out where it was (docs/architecture.md has the drawing):
 *
 *   idle, confirmed, returned, failed   the active version serves; nothing is under way
 *   verifying, fetching                 the slot `incoming` names the version; a restart goes on as soon as there is a link
 *   staged, checking, watching          the version stands in the store; a restart checks it again, SKF_AGENT_ATTEMPTS times
 *
 * Whatever happens, the slot `active` changes only when a version is confirmed, or when the active one cannot be kept running.
 */
#include "agent/agent_priv.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RETRIES_MAX 8
#define RETRY_FIRST (5 * SKF_SECOND)
#define BYTES_SAVED (2 * SKF_SECOND)
#define REPORT_EACH (500 * SKF_MS)

/* ---- record ---------------------------------------------------------------------------------------------------------------- */

enum skf_err skf_box_save(struct skf_box *b)
{
    struct skf_why why = {{0}};
    enum skf_err e = skf_record_save_slots(b->agent->store, b->model, &b->slots, &b->rec, &why);
    if (e != SKF_OK)
        skf_log(SKF_LOG_ERROR, "%s: state not written: %s", b->model, why.text);
    return e;
}

void skf_box_keep(struct skf_box *b)
{
    if (skf_box_save(b) != SKF_OK)
        skf_log(SKF_LOG_WARN, "%s: a restart will find an older state, and come to the same end", b->model);
}

void skf_box_phase(struct skf_box *b, Skiff__V1__Phase p, uint64_t now)
{
    if (b->rec.phase != p)
        skf_log(SKF_LOG_INFO, "%s %s: %s", b->model, b->rec.assign.version, skf_phase_name(p));
    b->rec.phase = p;
    b->phase_since = now;
    b->is_dirty = true;
    b->reported = 0;
}

bool is_box_busy(const struct skf_box *b)
{
    return b->rec.phase >= SKIFF__V1__PHASE__PHASE_VERIFYING && b->rec.phase <= SKIFF__V1__PHASE__PHASE_WATCHING;
}

static void set_slot(struct skf_slots *s, enum skf_slot slot, const char *version)
{
    (void)snprintf(s->version[slot], SKF_NAME_MAX, "%s", version);
}

/* Error texts quote what came from outside; the record is JSON, the report UTF-8. */
static void set_error(struct skf_record *r, enum skf_err e, const char *text)
{
    r->err = e;
    (void)snprintf(r->error, sizeof r->error, "%.255s", text);
    for (char *p = r->error; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            *p = '?';
}

void skf_box_fail(struct skf_box *b, Skiff__V1__Phase p, enum skf_err e, const char *text, uint64_t now)
{
    skf_log(SKF_LOG_WARN, "%s %s: %s: %s: %s", b->model, b->rec.assign.version, skf_phase_name(p), skf_err_name(e), text);
    set_slot(&b->slots, SKF_SLOT_INCOMING, "");
    set_error(&b->rec, e, text);
    skf_box_phase(b, p, now);
    b->is_new_first = false;
    if (b->incoming) {
        skf_agent_leave(b->agent, b->incoming, true);
        b->incoming = NULL;
    }
    bool again = p == SKIFF__V1__PHASE__PHASE_FAILED && is_transient(e) && b->retries < RETRIES_MAX;
    b->retry_at = again ? now + (RETRY_FIRST << b->retries++) : 0;
    skf_box_keep(b);
    if (!again || e == SKF_ERR_FULL)
        b->agent->is_swept = false;
}

/* ---- loading --------------------------------------------------------------------------------------------------------------- */

static struct skf_worker *new_worker(struct skf_box *b, const char *version, bool is_kept)
{
    struct skf_worker *w = skf_worker_new(b->model, version, ++b->agent->next_socket, is_kept);
    if (!w)
        skf_log(SKF_LOG_ERROR, "%s %s: no memory for a worker", b->model, version);
    return w;
}

static void restore(struct skf_box *b, uint64_t now)
{
    struct skf_record *r = &b->rec;
    switch (r->phase) {
    case SKIFF__V1__PHASE__PHASE_VERIFYING:
    case SKIFF__V1__PHASE__PHASE_FETCHING:
        b->pending = r->assign;
        b->has_pending = true;
        r->phase = SKIFF__V1__PHASE__PHASE_IDLE;
        break;
    case SKIFF__V1__PHASE__PHASE_STAGED:
    case SKIFF__V1__PHASE__PHASE_CHECKING:
    case SKIFF__V1__PHASE__PHASE_WATCHING:
        skf_box_phase(b, SKIFF__V1__PHASE__PHASE_STAGED, now);
        break;
    default:
        set_slot(&b->slots, SKF_SLOT_INCOMING, "");
        b->is_dirty = r->assign.id[0] != 0;
    }
}

enum skf_err skf_box_load(struct skf_agent *a, const char *model, struct skf_box **out, struct skf_why *why)
{
    char names[SKF_AGENT_MODELS][SKF_NAME_MAX];
    for (size_t i = 0; i < a->n_box; i++) {
        *out = &a->box[i];
        if (strcmp(a->box[i].model, model) == 0)
            return SKF_OK;
    }
    *out = NULL;
    if (a->n_box == SKF_AGENT_MODELS)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: more than %d models on one box", model, SKF_AGENT_MODELS);
    struct skf_box *b = &a->box[a->n_box];
    memset(b, 0, sizeof *b);
    b->agent = a;
    (void)snprintf(b->model, sizeof b->model, "%s", model);
    SKF_TRY(skf_store_slots(a->store, model, &b->slots, why));
    enum skf_err e = skf_record_load(a->store, model, &b->rec, why);
    if (e == SKF_ERR_FORMAT) { /* what serves is known all the same */
        skf_log(SKF_LOG_ERROR, "%s: %s; what was under way is forgotten", model, why ? why->text : "");
        memset(&b->rec, 0, sizeof b->rec);
    } else {
        SKF_TRY(e);
    }
    for (size_t i = 0; i < a->n_box; i++)
        memcpy(names[i], a->box[i].model, SKF_NAME_MAX);
    memcpy(names[a->n_box], b->model, SKF_NAME_MAX);
    SKF_TRY(skf_models_save(a->store, names, a->n_box + 1, why));
    restore(b, skf_now_ns());
    const char *active = b->slots.version[SKF_SLOT_ACTIVE];
    if (active[0] && !(b->active = new_worker(b, active, true)))
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory", model);
    a->n_box++;
    *out = b;
    return SKF_OK;
}

/* ---- the installing thread ---------------------------------------------------------------------------------------------------- */

static void *install(void *arg)
{
    struct skf_job *j = arg;
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10); /* of this thread alone: inference goes first */
    j->err = skf_install_run(&j->in, &j->why);
    atomic_store(&j->is_done, true);
    uint64_t one = 1;
    ssize_t n = write(j->wake_fd, &one, sizeof one);
    (void)n;
    return NULL;
}

static void start_job(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    struct skf_job *j = &a->job;
    memset(j, 0, sizeof *j);
    j->box = b;
    j->wake_fd = a->wake_fd;
    j->bytes_before = b->rec.bytes;
    j->saved = now;
    atomic_store(&j->progress.phase, SKIFF__V1__PHASE__PHASE_VERIFYING);
    j->in = (struct skf_install){.store = a->store,
                                 .tuf_dir = "tuf",
                                 .cache_dir = "incoming",
                                 .link = skf_session_link(a->session),
                                 .assign = b->rec.assign,
                                 .jobs = SKF_MIN(skf_cpu_count(), 4u),
                                 .share = a->o->share,
                                 .pace = &a->pace,
                                 .cancel = &j->cancel,
                                 .progress = &j->progress,
                                 .is_laid_out = a->o->repack && strcmp(a->o->repack, "on") == 0};
    if (pthread_create(&j->thread, NULL, install, j) != 0) {
        skf_box_fail(b, SKIFF__V1__PHASE__PHASE_FAILED, SKF_ERR_NOMEM, "no thread for the installation", now);
        return;
    }
    j->is_running = true;
}

static void cancel_job(struct skf_agent *a)
{
    atomic_store(&a->job.cancel, true);
    skf_session_kick(a->session);
}

/* The loop saw that the job is done (and joined its thread). */
void skf_box_job_done(struct skf_box *b, uint64_t now)
{
    struct skf_job *j = &b->agent->job;
    b->rec.bytes = j->bytes_before + atomic_load(&j->progress.bytes);
    if (b->agent->is_stopping) {
        skf_box_keep(b);
    } else if (j->err == SKF_OK) {
        b->retries = 0;
        b->rec.attempts = 0;
        skf_box_phase(b, SKIFF__V1__PHASE__PHASE_STAGED, now);
        skf_box_keep(b);
    } else if (j->err == SKF_ERR_CANCELLED && b->has_pending) {
        set_slot(&b->slots, SKF_SLOT_INCOMING, "");
        skf_box_phase(b, SKIFF__V1__PHASE__PHASE_IDLE, now);
    } else {
        skf_box_fail(b, SKIFF__V1__PHASE__PHASE_FAILED, j->err, j->why.text, now);
    }
}

/* ---- assignments ---------------------------------------------------------------------------------------------------------------- */

void skf_box_assign(struct skf_agent *a, const struct skf_assign *as)
{
    struct skf_box *b;
    struct skf_why why = {{0}};
    if (skf_box_load(a, as->model, &b, &why) != SKF_OK) {
        skf_log(SKF_LOG_ERROR, "assignment %s: %s", as->id, why.text);
        return;
    }
    b->pending = *as;
    b->has_pending = true;
}

void skf_box_cancel(struct skf_agent *a, const char *id)
{
    for (size_t i = 0; i < a->n_box; i++) {
        struct skf_box *b = &a->box[i];
        if (b->has_pending && strcmp(b->pending.id, id) == 0)
            b->has_pending = false;
        if (!is_box_busy(b) || strcmp(b->rec.assign.id, id) != 0)
            continue;
        if (a->job.is_running && a->job.box == b)
            cancel_job(a);
        else
            b->is_returned_by_centre = true;
    }
}

/* The version serves already. */
static void keep_active(struct skf_box *b, uint64_t now)
{
    set_slot(&b->slots, SKF_SLOT_INCOMING, "");
    set_slot(&b->slots, SKF_SLOT_PINNED, b->rec.assign.is_pinned ? b->rec.assign.version : "");
    set_error(&b->rec, SKF_OK, "");
    b->rec.attempts = 0;
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_CONFIRMED, now);
    if (skf_box_save(b) == SKF_OK)
        b->agent->is_swept = false;
}

static void begin(struct skf_box *b, const struct skf_assign *as, uint64_t now)
{
    struct skf_record *r = &b->rec;
    bool same = strcmp(r->assign.id, as->id) == 0 && strcmp(r->assign.version, as->version) == 0;
    b->retry_at = 0;
    if (same && r->phase == SKIFF__V1__PHASE__PHASE_RETURNED) {
        b->is_dirty = true; /* it was tried, and the centre knows or hears it now */
        return;
    }
    r->assign = *as;
    if (!same) {
        r->bytes = r->swap_pause_us = 0;
        b->retries = 0;
    }
    if (strcmp(b->slots.version[SKF_SLOT_ACTIVE], as->version) == 0) {
        keep_active(b, now);
        return;
    }
    r->attempts = 0;
    set_error(r, SKF_OK, "");
    set_slot(&b->slots, SKF_SLOT_INCOMING, as->version);
    skf_box_phase(b, SKIFF__V1__PHASE__PHASE_VERIFYING, now);
    struct skf_why why = {{0}};
    enum skf_err e = skf_record_save_slots(b->agent->store, b->model, &b->slots, r, &why);
    if (e != SKF_OK)
        skf_box_fail(b, SKIFF__V1__PHASE__PHASE_FAILED, e, why.text, now);
    else
        start_job(b, now);
}

/* An assignment came while another is under way: the same version goes on under the new id, another one waits for the old
 * to be given up. */
static void take_pending(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    if (strcmp(b->pending.version, b->rec.assign.version) == 0 &&
        (b->rec.phase >= SKIFF__V1__PHASE__PHASE_STAGED || strcmp(b->pending.delta, b->rec.assign.delta) == 0)) {
        b->rec.assign = b->pending;
        b->has_pending = false;
        b->is_dirty = true;
        skf_box_keep(b);
        return;
    }
    switch (b->rec.phase) {
    case SKIFF__V1__PHASE__PHASE_VERIFYING:
    case SKIFF__V1__PHASE__PHASE_FETCHING:
        cancel_job(a);
        break;
    case SKIFF__V1__PHASE__PHASE_WATCHING:
        /* Back to what was serving is at once; anything else waits the few seconds until this one is judged. */
        b->is_returned_by_centre |= strcmp(b->pending.version, b->slots.version[SKF_SLOT_ACTIVE]) == 0;
        break;
    default:
        b->is_returned_by_centre = true;
    }
}

/* ---- a turn ---------------------------------------------------------------------------------------------------------------------- */

static void follow_job(struct skf_box *b, uint64_t now)
{
    struct skf_job *j = &b->agent->job;
    Skiff__V1__Phase p = (Skiff__V1__Phase)atomic_load(&j->progress.phase);
    if (p != b->rec.phase)
        skf_box_phase(b, p, now);
    if (now - b->reported > REPORT_EACH)
        b->is_dirty = true;
    if (now - j->saved > BYTES_SAVED) {
        b->rec.bytes = j->bytes_before + atomic_load(&j->progress.bytes);
        if (skf_record_save(b->agent->store, b->model, &b->rec, NULL) != SKF_OK)
            skf_log(SKF_LOG_DEBUG, "%s: count of bytes not written", b->model);
        j->saved = now;
    }
}

void skf_box_step(struct skf_box *b, uint64_t now)
{
    struct skf_agent *a = b->agent;
    if (b->has_pending && is_box_busy(b))
        take_pending(b, now);
    switch (b->rec.phase) {
    case SKIFF__V1__PHASE__PHASE_VERIFYING:
    case SKIFF__V1__PHASE__PHASE_FETCHING:
        skf_box_hold_over(b);
        skf_box_idle(b, now);
        if (a->job.is_running && a->job.box == b)
            follow_job(b, now);
        return;
    case SKIFF__V1__PHASE__PHASE_STAGED:
    case SKIFF__V1__PHASE__PHASE_CHECKING:
        skf_box_check(b, now);
        return;
    case SKIFF__V1__PHASE__PHASE_WATCHING:
        skf_box_watch(b, now);
        return;
    default:
        break;
    }
    skf_box_hold_over(b);
    skf_box_idle(b, now);
    skf_box_guard(b, now);
    if (a->job.is_running)
        return;
    if (b->has_pending) {
        b->has_pending = false;
        begin(b, &b->pending, now);
    } else if (b->retry_at && now >= b->retry_at) {
        struct skf_assign again = b->rec.assign;
        begin(b, &again, now);
    }
}
