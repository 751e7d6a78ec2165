/*
 * A text as windows of tokens, and how well a model foretells them: what `skiff perplexity` prints, and what the searches that weigh bytes
 * against quality measure (quality.h).  Windows stand side by side, a last partial one is dropped; where the file adds BOS each begins
 * with it and holds one text token fewer, otherwise a window's first token is context only.  The first token of a window is never scored.
 */
#ifndef SKF_CLI_WINDOWS_H
#define SKF_CLI_WINDOWS_H

#include "base/util.h"
#include "runtime/engine.h"

/* The tokens of the text in this file (at most 64 MiB; not kept). `most` > 0: its first `most` tokens at most, for which no more of it is
 * read than they need; *is_cut then says that there are more. *ids with skf_free. */
SKF_MUST enum skf_err skf_text_tokens(const struct skf_engine *e, const char *path, size_t most, int32_t **ids, size_t *n, bool *is_cut,
                                      struct skf_why *why);

struct skf_windows {
    int32_t *ids;  /* n windows of `window` tokens */
    size_t window, n;
    bool is_cut;   /* the text has more */
};
/* Windows of `window` tokens (at least 3) of the text; `most` of them at most, 0 for all. SKF_ERR_ARG when it does not fill one. */
SKF_MUST enum skf_err skf_windows_make(const struct skf_engine *e, const char *path, size_t window, size_t most, struct skf_windows *w,
                                       struct skf_why *why);
void skf_windows_free(struct skf_windows *w); /* a zeroed one is fine */
static inline uint64_t skf_windows_scored(const struct skf_windows *w) { return (uint64_t)w->n * (w->window - 1); }
/* The perplexity of the engine's model on them: the same whatever the threads. SKF_ERR_CANCELLED when `progress` asks for it. */
SKF_MUST enum skf_err skf_windows_measure(const struct skf_windows *w, struct skf_engine *e, const struct skf_progress *progress,
                                          double *perplexity, struct skf_why *why);

#endif
