/*
 * Matrices of many zeros, packed when a model is opened (llama_priv.h): less is read, the same is computed.  The rows stay where they lie,
 * mapped, and are hardly read any more (some kernels use them for prefill): the source is told so.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "runtime/llama_priv.h"

enum { SAMPLE = 32 }; /* rows looked at before a matrix is packed */

struct skf_packed {
    struct skf_sparse s;
    uint8_t *bytes; /* NULL: this one is not packed */
    size_t n;
};
struct packing {
    struct skf_llama *l;
    const struct skf_source *src;
    enum skf_isa isa;
    double least; /* instead of what the kernels say; negative: that */
};

static const uint8_t *row_of(const void *ctx, uint32_t r) { return skf_weight_row(ctx, r); }

static double least_of(const struct packing *job, enum skf_type t, bool is_even)
{
    return job->least >= 0 ? job->least : skf_sparse_least(job->isa, t, is_even);
}

/* A matrix that cannot be packed, for lack of memory say, is computed with from its rows: never an error. */
static enum skf_err pack(void *ctx, unsigned worker, uint64_t k, struct skf_why *why)
{
    const struct packing *job = ctx;
    struct skf_packed *to = &job->l->packed[k];
    struct skf_weight *w = skf_llama_matrix(job->l, (uint32_t)k);
    const struct skf_sparse_from from = {w->type, w->rows, w->cols, row_of, w};
    bool is_even;
    (void)worker;
    (void)why;
    double share = skf_sparse_share(&from, SAMPLE, &is_even), least = least_of(job, w->type, is_even);
    if (least > 1 || share < least || skf_sparse_pack(&from, least, &to->bytes, &to->n) != SKF_OK || !to->bytes)
        return SKF_OK;
    if (skf_sparse_open(to->bytes, to->n, &to->s, NULL) == SKF_OK && least_of(job, w->type, to->s.is_even) <= 1) {
        w->packed = &to->s;
        skf_weight_idle(job->src, w);
        return SKF_OK;
    }
    skf_free(to->bytes); /* the rows that were looked at were even, others are not */
    to->bytes = NULL;
    return SKF_OK;
}

static enum skf_err asked(double *least, struct skf_why *why)
{
    const char *env = getenv("SKF_SPARSE");
    *least = -1;
    if (!env || !*env || strcmp(env, "auto") == 0)
        return SKF_OK;
    *least = strcmp(env, "off") == 0 ? 2 : 0;
    if (*least > 1 || strcmp(env, "on") == 0)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_ARG, "SKF_SPARSE=%s: not one of auto, on, off", env);
}

enum skf_err skf_llama_pack(struct skf_llama *l, const struct skf_source *src, enum skf_isa isa, unsigned threads, struct skf_why *why)
{
    struct packing job = {l, src, isa, 0};
    SKF_TRY(asked(&job.least, why));
    l->packed = skf_calloc(skf_llama_matrices(l), sizeof *l->packed);
    if (!l->packed)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a list of matrices");
    return skf_par_for(threads, skf_llama_matrices(l), pack, &job, why);
}

void skf_llama_packed(const struct skf_llama *l, struct skf_engine_packed *out)
{
    *out = (struct skf_engine_packed){.of = skf_llama_matrices(l)};
    for (uint32_t k = 0; k < skf_llama_matrices(l); k++) {
        const struct skf_weight *w = skf_llama_matrix((struct skf_llama *)l, k);
        out->matrices += w->packed != NULL;
        out->bytes += w->packed ? l->packed[k].n : 0;
        out->instead_of += w->packed ? w->rows * w->row_bytes : 0;
        out->read += w->packed ? l->packed[k].n : w->rows * w->row_bytes;
    }
}

void skf_llama_unpack(struct skf_llama *l)
{
    for (uint32_t k = 0; l->packed && k < skf_llama_matrices(l); k++)
        skf_free(l->packed[k].bytes);
    skf_free(l->packed);
    l->packed = NULL;
}
