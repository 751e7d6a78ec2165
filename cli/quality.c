/* Perplexity of candidates (quality.h). */
#include "cli/quality.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "runtime/engine.h"

enum { TEXT_MAX = 64 << 20, WINDOW = 512 };

struct skf_quality {
    int32_t *ids; /* windows side by side, each with BOS in front where the model's text has it */
    size_t window, n_windows;
    unsigned vocab, jobs;
};

static enum skf_err cut(struct skf_quality *q, const struct skf_engine *e, const int32_t *ids, size_t n, const char *text,
                        struct skf_why *why)
{
    int32_t *bos = NULL;
    size_t n_bos = 0, step;
    enum skf_err err = skf_engine_tokenize(e, "", 0, true, &bos, &n_bos, why);
    if (err != SKF_OK)
        return err;
    q->vocab = skf_engine_vocab(e);
    q->window = SKF_MIN(skf_engine_context(e), (unsigned)WINDOW);
    step = q->window > n_bos ? q->window - n_bos : 1;
    q->n_windows = n / step;
    if (q->window < 3 || n_bos > 1 || q->n_windows == 0)
        err = skf_fail(why, SKF_ERR_ARG, "%s gives %zu tokens; a window takes %zu", text, n, step);
    else if (!(q->ids = skf_calloc(q->n_windows * q->window, sizeof *q->ids)))
        err = skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", text);
    for (size_t i = 0; err == SKF_OK && i < q->n_windows; i++) {
        int32_t *w = q->ids + i * q->window;
        if (n_bos)
            w[0] = bos[0];
        memcpy(w + n_bos, ids + i * step, step * sizeof *ids);
    }
    skf_free(bos);
    return err;
}

enum skf_err skf_quality_open(const struct skf_model *m, const char *text, unsigned jobs, struct skf_quality **q,
                              struct skf_why *why)
{
    const struct skf_engine_opts o = {.threads = jobs, .context = WINDOW, .slots = 1};
    struct skf_engine *engine = NULL;
    uint8_t *bytes = NULL;
    int32_t *ids = NULL;
    size_t n = 0, n_ids = 0;
    *q = skf_calloc(1, sizeof **q);
    enum skf_err e = *q ? skf_file_read(text, TEXT_MAX, &bytes, &n, why) : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_engine_open(m, &o, &engine, why);
    if (e == SKF_OK)
        e = skf_engine_tokenize(engine, (const char *)bytes, n, false, &ids, &n_ids, why);
    if (e == SKF_OK)
        e = cut(*q, engine, ids, n_ids, text, why);
    skf_free(ids);
    skf_engine_close(engine);
    skf_free(bytes);
    if (e == SKF_OK) {
        (*q)->jobs = jobs;
        return e;
    }
    skf_quality_close(*q);
    *q = NULL;
    return e;
}

void skf_quality_close(struct skf_quality *q)
{
    if (q)
        skf_free(q->ids);
    skf_free(q);
}

uint64_t skf_quality_tokens(const struct skf_quality *q) { return (uint64_t)q->n_windows * (q->window - 1); }

enum skf_err skf_quality_measure(const struct skf_quality *q, const struct skf_model *m, const char *name,
                                 const struct skf_progress *progress, double *perplexity, struct skf_why *why)
{
    const struct skf_engine_opts o = {.threads = q->jobs, .context = (unsigned)q->window, .slots = 1};
    struct skf_engine *engine = NULL;
    double sum = 0, *logprobs = skf_calloc(q->window, sizeof *logprobs);
    enum skf_err e = logprobs ? skf_engine_open(m, &o, &engine, why) : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK && skf_engine_vocab(engine) != q->vocab)
        e = skf_fail(why, SKF_ERR_ARG, "its vocabulary has %u tokens, not %u", skf_engine_vocab(engine), q->vocab);
    for (size_t i = 0; e == SKF_OK && i < q->n_windows; i++) {
        if (is_cancelled(progress))
            e = skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        else
            e = skf_engine_logprobs(engine, q->ids + i * q->window, q->window, logprobs, why);
        for (size_t k = 0; e == SKF_OK && k + 1 < q->window; k++)
            sum += logprobs[k];
    }
    *perplexity = exp(-sum / (double)skf_quality_tokens(q));
    skf_engine_close(engine);
    skf_free(logprobs);
    return e == SKF_OK || e == SKF_ERR_CANCELLED ? e : skf_fail_prefix(why, e, "%s", name);
}
