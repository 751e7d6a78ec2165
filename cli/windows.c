/* Texts as windows of tokens (windows.h). */
#include "cli/windows.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

enum {
    TEXT_MAX = 64 << 20,
    PART_MIN = 1 << 20,  /* bytes of a text to begin with, when not all of it is wanted */
    TOKEN_BYTES = 8,     /* more than a token has on average */
    MARGIN = 1024,       /* tokens in front of a cut that might be others without it, and more */
};

/* The first `n` bytes or a little fewer: not within a character, at the end of a line where there is one nearby. */
static size_t cut_at(const uint8_t *p, size_t n)
{
    size_t at = n;
    while (at > 0 && n - at < 4096 && p[at - 1] != '\n')
        at--;
    if (at > 0 && p[at - 1] == '\n')
        return at;
    for (at = n; at > 0 && n - at < 4 && (p[at] & 0xC0) == 0x80;)
        at--;
    return at;
}

static enum skf_err tokens_of(const struct skf_engine *e, const struct skf_map *m, size_t most, int32_t **ids, size_t *n, struct skf_why *why)
{
    size_t size = (size_t)m->size, part = most ? SKF_MAX((size_t)PART_MIN, most * TOKEN_BYTES) : size;
    for (;; part *= 2) {
        bool is_all = part >= size;
        SKF_TRY(skf_engine_tokenize(e, size ? (const char *)m->data : "", is_all ? size : cut_at(m->data, part), false, ids, n, why));
        if (is_all || *n >= most + MARGIN)
            return SKF_OK;
        skf_free(*ids);
        *ids = NULL;
    }
}

enum skf_err skf_text_tokens(const struct skf_engine *e, const char *path, size_t most, int32_t **ids, size_t *n, bool *is_cut,
                             struct skf_why *why)
{
    struct skf_map m;
    *ids = NULL;
    *n = 0;
    *is_cut = false;
    SKF_TRY(skf_map_open(path, &m, why));
    enum skf_err err = m.size <= TEXT_MAX ? tokens_of(e, &m, most, ids, n, why)
                                          : skf_fail(why, SKF_ERR_LIMIT, "%s: a text of more than %d MiB; take a part of it (head -c %dM)", path,
                                                     TEXT_MAX >> 20, TEXT_MAX >> 20);
    skf_map_close(&m);
    if (err != SKF_OK)
        return skf_fail_prefix(why, err, "%s", path);
    *is_cut = most && *n > most;
    *n = *is_cut ? most : *n;
    return SKF_OK;
}

enum skf_err skf_windows_make(const struct skf_engine *e, const char *path, size_t window, size_t most, struct skf_windows *w,
                              struct skf_why *why)
{
    int32_t *bos = NULL, *ids = NULL;
    size_t n_bos = 0, n = 0;
    *w = (struct skf_windows){.window = window};
    enum skf_err err = skf_engine_tokenize(e, "", 0, true, &bos, &n_bos, why); /* BOS, if it is added */
    if (err == SKF_OK && (window < 3 || n_bos > 1))
        err = skf_fail(why, SKF_ERR_LIMIT, "windows of %zu tokens are too small", window);
    if (err != SKF_OK)
        goto out;
    size_t step = window - n_bos;
    if (most > SIZE_MAX / 64 / step) /* as good as all */
        most = 0;
    SKF_GO(err, skf_text_tokens(e, path, most * step, &ids, &n, &w->is_cut, why));
    w->n = n / step;
    if (w->n == 0)
        err = skf_fail(why, SKF_ERR_ARG, "%s: %zu tokens, and a window takes %zu: give a longer text", path, n, step);
    else if (!(w->ids = skf_calloc(w->n * window, sizeof *w->ids)))
        err = skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    for (size_t i = 0; err == SKF_OK && i < w->n; i++) {
        if (n_bos)
            w->ids[i * window] = bos[0];
        memcpy(w->ids + i * window + n_bos, ids + i * step, step * sizeof *ids);
    }
out:
    skf_free(ids);
    skf_free(bos);
    return err;
}

void skf_windows_free(struct skf_windows *w)
{
    skf_free(w->ids);
    w->ids = NULL;
}

enum skf_err skf_windows_measure(const struct skf_windows *w, struct skf_engine *e, const struct skf_progress *progress, double *perplexity,
                                 struct skf_why *why)
{
    double sum = 0, *logprobs = skf_calloc(w->window, sizeof *logprobs);
    enum skf_err err = logprobs ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "no memory for a window");
    for (size_t i = 0; err == SKF_OK && i < w->n; i++) {
        if (is_cancelled(progress))
            err = skf_fail(why, SKF_ERR_CANCELLED, "cancelled after %zu of %zu windows", i, w->n);
        else
            err = skf_engine_logprobs(e, w->ids + i * w->window, w->window, logprobs, why);
        for (size_t k = 0; err == SKF_OK && k + 1 < w->window; k++)
            sum += logprobs[k];
        skf_progress_tell(progress, i + 1, w->n);
    }
    skf_free(logprobs);
    *perplexity = exp(-sum / (double)skf_windows_scored(w));
    return err;
}
