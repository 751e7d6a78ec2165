/* Perplexity of candidates (quality.h). */
#include "cli/quality.h"

#include <stdio.h>

#include "base/alloc.h"
#include "cli/windows.h"

enum { WINDOW = 512, WINDOWS_MAX = 512 };

struct skf_quality {
    struct skf_windows windows;
    const char *text;
    unsigned vocab, jobs;
};

static enum skf_err open_all(struct skf_quality *q, const struct skf_model *m, struct skf_why *why)
{
    const struct skf_engine_opts o = {.threads = q->jobs, .context = WINDOW, .slots = 1};
    struct skf_engine *engine = NULL;
    SKF_TRY(skf_engine_open(m, &o, &engine, why));
    q->vocab = skf_engine_vocab(engine);
    enum skf_err e = skf_windows_make(engine, q->text, SKF_MIN(skf_engine_context(engine), (unsigned)WINDOW), WINDOWS_MAX, &q->windows, why);
    skf_engine_close(engine);
    return e;
}

enum skf_err skf_quality_open(const struct skf_model *m, const char *text, unsigned jobs, struct skf_quality **q,
                              struct skf_why *why)
{
    *q = skf_calloc(1, sizeof **q);
    if (!*q)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", text);
    (*q)->text = text;
    (*q)->jobs = jobs;
    enum skf_err e = open_all(*q, m, why);
    if (e != SKF_OK) {
        skf_quality_close(*q);
        *q = NULL;
    }
    return e;
}

void skf_quality_close(struct skf_quality *q)
{
    if (q)
        skf_windows_free(&q->windows);
    skf_free(q);
}

uint64_t skf_quality_tokens(const struct skf_quality *q) { return skf_windows_scored(&q->windows); }

void skf_quality_note(const struct skf_quality *q)
{
    if (q && q->windows.is_cut)
        (void)fprintf(stderr, "skiff: %s: quality was measured on its first %llu tokens\n", q->text,
                      (unsigned long long)q->windows.n * q->windows.window);
}

enum skf_err skf_quality_measure(const struct skf_quality *q, const struct skf_model *m, const char *name,
                                 const struct skf_progress *progress, double *perplexity, struct skf_why *why)
{
    const struct skf_engine_opts o = {.threads = q->jobs, .context = (unsigned)q->windows.window, .slots = 1};
    const struct skf_progress asked = {.cancel = progress ? progress->cancel : NULL};
    struct skf_engine *engine = NULL;
    enum skf_err e = skf_engine_open(m, &o, &engine, why);
    if (e == SKF_OK && skf_engine_vocab(engine) != q->vocab)
        e = skf_fail(why, SKF_ERR_ARG, "its vocabulary has %u tokens, not %u", skf_engine_vocab(engine), q->vocab);
    if (e == SKF_OK)
        e = skf_windows_measure(&q->windows, engine, &asked, perplexity, why);
    skf_engine_close(engine);
    return e == SKF_OK || e == SKF_ERR_CANCELLED ? e : skf_fail_prefix(why, e, "%s", name);
}
