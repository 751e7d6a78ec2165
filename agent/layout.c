/*
 * Kept layouts (store/layout.h): a version's matrices are laid out for the kernels once, before it is checked, by `skiff-worker --lay-out`,
 * since the agent knows no kernels.  One at a time, and nothing depends on it: a version without one runs as well and starts a little
 * later.  The active version's is looked at after a start of the agent too, and made anew where it is missing or damaged.
 */
#include "agent/agent_priv.h"

#include <signal.h>
#include <sys/wait.h>

#include "store/layout.h"

#define LAY_WAIT (900 * SKF_SECOND)

static const char *repack_of(const struct skf_agent *a) { return a->o->repack ? a->o->repack : "auto"; }

static void begin(struct skf_agent *a, struct skf_box *b, const char *version, uint64_t now)
{
    struct skf_laying *y = &a->laying;
    struct skf_why why = {{0}};
    const char *how = strcmp(repack_of(a), "on") == 0 ? "on" : "auto";
    const char *args[] = {"--lay-out", "--store", "store", "--model", b->model, "--version", version, "--repack", how, NULL};
    if (skf_spawn("skiff-worker", args, &y->pid, NULL, &y->tap, &why) != SKF_OK) {
        skf_log(SKF_LOG_WARN, "%s %s: not laid out: %s", b->model, version, why.text);
        y->pid = 0;
        (void)snprintf(b->laid, sizeof b->laid, "%s", version);
        return;
    }
    y->box = b;
    y->started = now;
    (void)snprintf(y->version, sizeof y->version, "%s", version);
}

bool is_layout_made(struct skf_box *b, const char *version, uint64_t now)
{
    struct skf_agent *a = b->agent;
    if (strcmp(repack_of(a), "off") == 0 || strcmp(b->laid, version) == 0)
        return true;
    if (!a->laying.pid && !a->is_stopping)
        begin(a, b, version, now);
    return strcmp(b->laid, version) == 0;
}

void skf_layout_turn(struct skf_agent *a, uint64_t now)
{
    struct skf_laying *y = &a->laying;
    if (y->pid) {
        skf_tap_pump(&y->tap);
        if (now - y->started > LAY_WAIT)
            (void)kill(y->pid, SIGKILL);
        return;
    }
    for (size_t i = 0; i < a->n_box; i++) {
        struct skf_box *b = &a->box[i];
        if (!is_box_busy(b) && b->active && b->active->state == SKF_WORKER_READY && !is_layout_made(b, b->active->version, now))
            return;
    }
}

void skf_layout_exited(struct skf_agent *a, int status)
{
    struct skf_laying *y = &a->laying;
    skf_tap_close(&y->tap);
    y->pid = 0;
    (void)snprintf(y->box->laid, sizeof y->box->laid, "%s", y->version);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        skf_log(SKF_LOG_WARN, "%s %s: not laid out, which costs time at each start and no more: %s", y->box->model, y->version,
                y->tap.error[0] ? y->tap.error : "the worker was ended");
    a->is_swept = false; /* its version may be gone by now */
}

void skf_layout_stop(struct skf_agent *a)
{
    if (a->laying.pid)
        (void)kill(a->laying.pid, SIGKILL);
    skf_tap_close(&a->laying.tap);
}

static enum skf_err add_root(void *ctx, const struct skf_store_version *v) { return skf_buf_put(ctx, v->root, SKF_DIGEST); }

void skf_layout_collect(struct skf_agent *a)
{
    struct skf_buf roots = SKF_BUF_INIT(1 << 20);
    uint64_t freed = 0;
    if (skf_store_each_version(a->store, add_root, &roots) == SKF_OK)
        freed = skf_layout_sweep("store", roots.data, roots.len / SKF_DIGEST, !a->laying.pid);
    if (freed)
        skf_log(SKF_LOG_INFO, "collection: %llu bytes of kept layouts freed", (unsigned long long)freed);
    skf_buf_free(&roots);
}
