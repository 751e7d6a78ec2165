/*
 * A text's view of a model's matrices (quantize.h): importance, and the range of what each is multiplied with.
 *
 * Ranges are symmetric.  The moving average takes a tenth of each portion's largest value (the runtime tells of some dozens of
 * tokens at once), so that one outlier does not set the scale of everything; min-max keeps it.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/quantize.h"
#include "cli/windows.h"

enum { TOKENS_MAX = 1 << 18, WINDOW = 512, RANGES_MAX = 1 << 14 };

struct watching {
    struct quantize_seen *seen;
    enum skf_err err; /* the callback cannot fail: kept until it returns */
};

static struct seen_range *range_of(struct quantize_seen *s, const char *name)
{
    for (size_t i = 0; i < s->n_ranges; i++)
        if (strcmp(s->ranges[i].name, name) == 0)
            return &s->ranges[i];
    if (s->n_ranges == s->cap_ranges) {
        size_t cap = s->cap_ranges ? 2 * s->cap_ranges : 64;
        struct seen_range *more = cap > RANGES_MAX ? NULL : skf_realloc(s->ranges, cap * sizeof *more);
        if (!more)
            return NULL;
        s->ranges = more;
        s->cap_ranges = cap;
    }
    struct seen_range *r = &s->ranges[s->n_ranges++];
    *r = (struct seen_range){.average = -1};
    (void)snprintf(r->name, sizeof r->name, "%s", name);
    return r;
}

static void see(void *ctx, const char *tensor, const float *x, size_t rows, size_t columns)
{
    struct watching *w = ctx;
    float most = 0;
    if (w->err != SKF_OK || !tensor[0])
        return;
    struct seen_range *r = range_of(w->seen, tensor);
    w->err = r ? skf_imatrix_add(w->seen->imatrix, tensor, x, rows, columns) : SKF_ERR_NOMEM;
    if (w->err != SKF_OK)
        return;
    for (size_t i = 0; i < rows * columns; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    r->most = most > r->most ? most : r->most;
    r->average = r->average < 0 ? most : r->average + 0.1f * (most - r->average);
}

/* Windows side by side, each with BOS in front where the model's text has it. */
static enum skf_err watch_all(struct skf_engine *e, const int32_t *ids, size_t n, const struct skf_progress *progress,
                              struct quantize_seen *seen, struct skf_why *why)
{
    struct watching w = {.seen = seen};
    int32_t *bos = NULL, window[WINDOW];
    size_t n_bos = 0, room = SKF_MIN(skf_engine_context(e), (unsigned)WINDOW);
    enum skf_err err = skf_engine_tokenize(e, "", 0, true, &bos, &n_bos, why);
    if (err == SKF_OK && (n_bos >= room || n_bos > 1))
        err = skf_fail(why, SKF_ERR_LIMIT, "a context of %zu tokens is too small to calibrate in", room);
    for (size_t at = 0, take; err == SKF_OK && at < n; at += take) {
        take = SKF_MIN(n - at, room - n_bos);
        if (n_bos)
            window[0] = bos[0];
        memcpy(window + n_bos, ids + at, take * sizeof *ids);
        err = is_cancelled(progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled")
                                     : skf_engine_observe(e, window, n_bos + take, see, &w, why);
        if (err == SKF_OK && w.err != SKF_OK)
            err = skf_fail(why, w.err, "what it was multiplied with cannot be kept (%s)", skf_err_name(w.err));
        seen->tokens += take;
        skf_progress_tell(progress, at + take, n);
    }
    skf_free(bos);
    return err;
}

enum skf_err skf_cli_observe(const struct skf_model *m, const char *name, const char *path, unsigned jobs,
                             const struct skf_progress *progress, struct quantize_seen *seen, struct skf_why *why)
{
    struct skf_engine_opts o = {.threads = jobs, .context = WINDOW, .slots = 1};
    struct skf_engine *engine = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    bool is_text_wrong = false;
    *seen = (struct quantize_seen){0};
    enum skf_err e = skf_imatrix_new(&seen->imatrix);
    if (e == SKF_OK)
        e = skf_engine_open(m, &o, &engine, why);
    if (e == SKF_OK) {
        e = skf_text_tokens(engine, path, TOKENS_MAX, &ids, &n_ids, &seen->is_cut, why);
        if (e == SKF_OK && n_ids < 32)
            e = skf_fail(why, SKF_ERR_ARG, "%s: %zu tokens are too few to calibrate on", path, n_ids);
        is_text_wrong = e != SKF_OK;
    }
    if (e == SKF_OK)
        e = watch_all(engine, ids, n_ids, progress, seen, why);
    skf_free(ids);
    skf_engine_close(engine);
    if (e == SKF_OK)
        return e;
    skf_cli_seen_free(seen);
    return is_text_wrong ? e : skf_fail_prefix(why, e, "%s", name);
}

void skf_cli_seen_free(struct quantize_seen *seen)
{
    skf_imatrix_close(seen->imatrix);
    skf_free(seen->ranges);
    *seen = (struct quantize_seen){0};
}
