/*
 * Matrices of many zeros, packed when a model is opened (llama_priv.h): less is read, the same is computed.  The rows stay where they lie,
 * mapped; they are hardly read any more (some kernels use them for prefill), so they are the first to give way when memory is short.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "runtime/llama_priv.h"

enum { SAMPLE = 32 /* rows looked at before a matrix is packed */, A_LAYER = 7 };

struct skf_packed {
    struct skf_sparse s;
    uint8_t *bytes; /* NULL: this one is not packed */
    size_t n;
};
struct packing {
    struct skf_llama *l;
    enum skf_isa isa;
    double least; /* instead of what the kernels say; negative: that */
};

/* ---- the matrices of a model by number; the last is the output ------------------------------------------------------------- */
static uint64_t count_of(const struct skf_llama *l) { return (uint64_t)l->n_layers * A_LAYER + 1; }
static struct skf_weight *weight_of(struct skf_llama *l, uint64_t k)
{
    if (k + 1 == count_of(l))
        return &l->output;
    struct skf_llama_layer *y = &l->layers[k / A_LAYER];
    struct skf_weight *const all[A_LAYER] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
    return all[k % A_LAYER];
}

static const uint8_t *row_of(const void *ctx, uint32_t r) { return skf_weight_row(ctx, r); }

/* Tells the system that the rows are not wanted soon. */
static void let_rows_go(const struct skf_weight *w)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < w->n_seg; i++) {
        uintptr_t from = ((uintptr_t)w->seg[i].p + page - 1) / page * page;
        uintptr_t to = ((uintptr_t)w->seg[i].p + w->seg[i].n * w->row_bytes) / page * page;
        if (from < to)
            (void)madvise((void *)from, to - from, MADV_COLD);
    }
}

static double least_of(const struct packing *job, enum skf_type t, bool is_even)
{
    return job->least >= 0 ? job->least : skf_sparse_least(job->isa, t, is_even);
}

/* A matrix that cannot be packed, for lack of memory say, is computed with from its rows: never an error. */
static enum skf_err pack(void *ctx, unsigned worker, uint64_t k, struct skf_why *why)
{
    const struct packing *job = ctx;
    struct skf_packed *to = &job->l->packed[k];
    struct skf_weight *w = weight_of(job->l, k);
    const struct skf_sparse_from from = {w->type, w->rows, w->cols, row_of, w};
    bool is_even;
    (void)worker;
    (void)why;
    double share = skf_sparse_share(&from, SAMPLE, &is_even), least = least_of(job, w->type, is_even);
    if (least > 1 || share < least || skf_sparse_pack(&from, least, &to->bytes, &to->n) != SKF_OK || !to->bytes)
        return SKF_OK;
    if (skf_sparse_open(to->bytes, to->n, &to->s, NULL) == SKF_OK && least_of(job, w->type, to->s.is_even) <= 1) {
        w->packed = &to->s;
        if (w->seg != job->l->embd.seg) /* a tied output's rows are still looked up */
            let_rows_go(w);
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

enum skf_err skf_llama_pack(struct skf_llama *l, enum skf_isa isa, unsigned threads, struct skf_why *why)
{
    struct packing job = {l, isa, 0};
    SKF_TRY(asked(&job.least, why));
    l->packed = skf_calloc(count_of(l), sizeof *l->packed);
    if (!l->packed)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a list of matrices");
    return skf_par_for(threads, count_of(l), pack, &job, why);
}

void skf_llama_packed(const struct skf_llama *l, struct skf_engine_packed *out)
{
    *out = (struct skf_engine_packed){.of = (uint32_t)count_of(l)};
    for (uint64_t k = 0; k < count_of(l); k++) {
        const struct skf_weight *w = weight_of((struct skf_llama *)l, k);
        out->matrices += w->packed != NULL;
        out->bytes += w->packed ? l->packed[k].n : 0;
        out->instead_of += w->packed ? w->rows * w->row_bytes : 0;
    }
}

void skf_llama_unpack(struct skf_llama *l)
{
    for (uint64_t k = 0; l->packed && k < count_of(l); k++)
        skf_free(l->packed[k].bytes);
    skf_free(l->packed);
    l->packed = NULL;
}
