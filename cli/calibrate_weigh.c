/*
 * What an error in each matrix is worth (calibrate.h).  The tensors of a role have the same share of their role's worth, which is how far
 * the text's log-probabilities move (mean square, twice the divergence of the two models) when the role alone goes back to the base.
 */
#include <string.h>

#include "base/alloc.h"
#include "cli/calibrate.h"
#include "runtime/engine.h"

enum { WINDOWS = 8 };
#define LEAST 0.02 /* of the largest worth: no role is worth nothing */

struct weighing {
    struct calibrate *c;
    uint32_t windows;
    double *from, *to; /* log-probabilities of the image, and without a role */
    struct skf_scratch saved;
    double *worth; /* of each tensor's role */
};

static enum skf_err run(const struct weighing *w, double *out, struct skf_why *why)
{
    const struct calibrate *c = w->c;
    const struct skf_engine_opts o = {.threads = c->ask->jobs, .context = CALIBRATE_WINDOW, .slots = 1};
    struct skf_engine *engine = NULL;
    enum skf_err e = skf_engine_open(c->made, &o, &engine, why); /* anew: an engine may keep weights in a layout of its own */
    for (uint32_t i = 0; e == SKF_OK && i < w->windows; i++) {
        size_t which = (size_t)i * c->n_windows / w->windows;
        e = skf_engine_logprobs(engine, c->ids + which * c->window, c->window, out + (size_t)i * (c->window - 1), why);
    }
    skf_engine_close(engine);
    return e == SKF_OK ? calibrate_tell(w->c, 2, why) : skf_fail_prefix(why, e, "%s", c->ask->base);
}

static uint8_t *image_of(const struct calibrate *c, size_t i) { return (uint8_t *)c->image.p + c->tensors[i].base->offset; }

/* The role of tensor `first` goes back to the base and comes again. */
static enum skf_err weigh_role(struct weighing *w, size_t first, struct skf_why *why)
{
    struct calibrate *c = w->c;
    const char *role = c->tensors[first].role;
    uint8_t *at = w->saved.p;
    enum skf_err e = SKF_OK;
    for (size_t i = first; e == SKF_OK && i < c->n_tensors; i++) {
        const struct skf_tensor *t = c->tensors[i].base;
        if (strcmp(c->tensors[i].role, role) != 0)
            continue;
        memcpy(at, image_of(c, i), t->bytes);
        at += t->bytes;
        e = skf_source_read(skf_model_source(c->base), t->offset, image_of(c, i), t->bytes);
    }
    if (e == SKF_OK)
        e = run(w, w->to, why);
    at = w->saved.p;
    double sum = 0;
    size_t n = (size_t)w->windows * (c->window - 1);
    for (size_t k = 0; e == SKF_OK && k < n; k++)
        sum += (w->to[k] - w->from[k]) * (w->to[k] - w->from[k]);
    for (size_t i = first; e == SKF_OK && i < c->n_tensors; i++) {
        const struct skf_tensor *t = c->tensors[i].base;
        if (strcmp(c->tensors[i].role, role) != 0)
            continue;
        memcpy(image_of(c, i), at, t->bytes);
        at += t->bytes;
        w->worth[i] = sum / (double)n;
    }
    return e;
}

static bool is_first_of_role(const struct calibrate *c, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(c->tensors[k].role, c->tensors[i].role) == 0)
            return false;
    return true;
}

static uint64_t role_bytes(const struct calibrate *c, size_t first)
{
    uint64_t sum = 0;
    for (size_t i = first; i < c->n_tensors; i++)
        if (strcmp(c->tensors[i].role, c->tensors[first].role) == 0)
            sum += c->tensors[i].base->bytes;
    return sum;
}

static void set_weights(struct weighing *w)
{
    struct calibrate *c = w->c;
    double most = 0, sum = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        most = SKF_MAX(most, w->worth[i]);
    for (size_t i = 0; i < c->n_tensors; i++) {
        uint64_t alike = 0;
        for (size_t k = 0; k < c->n_tensors; k++)
            alike += strcmp(c->tensors[k].role, c->tensors[i].role) == 0;
        c->tensors[i].weight = most > 0 ? SKF_MAX(w->worth[i], LEAST * most) / (double)alike : 1;
        sum += c->tensors[i].is_fitted && c->tensors[i].before > 0 ? c->tensors[i].weight : 0;
    }
    for (size_t i = 0; i < c->n_tensors; i++) /* the errors before sum to 1 */
        c->tensors[i].weight = c->tensors[i].before > 0 && sum > 0 ? c->tensors[i].weight / sum / c->tensors[i].before : 1;
}

enum skf_err calibrate_weigh(struct calibrate *c, struct skf_why *why)
{
    struct weighing w = {.c = c, .windows = SKF_MIN(c->n_windows, (uint32_t)WINDOWS)};
    uint64_t most = 1;
    for (size_t i = 0; i < c->n_tensors; i++)
        if (is_first_of_role(c, i))
            most = SKF_MAX(most, role_bytes(c, i));
    w.from = skf_calloc((size_t)w.windows * c->window, sizeof *w.from);
    w.to = skf_calloc((size_t)w.windows * c->window, sizeof *w.to);
    w.worth = skf_calloc(c->n_tensors, sizeof *w.worth);
    enum skf_err e = w.from && w.to && w.worth ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK)
        e = skf_scratch_open(c->ask->out, most, &w.saved, why);
    if (e == SKF_OK)
        e = run(&w, w.from, why);
    for (size_t i = 0; e == SKF_OK && i < c->n_tensors; i++)
        if (is_first_of_role(c, i))
            e = weigh_role(&w, i, why);
    if (e == SKF_OK)
        set_weights(&w);
    skf_scratch_close(&w.saved);
    skf_free(w.from);
    skf_free(w.to);
    skf_free(w.worth);
    return e;
}
