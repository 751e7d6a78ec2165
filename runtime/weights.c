/*
 * A tensor's rows where they lie.  A file gives one segment; a version in the store one a chunk.
 */
#include "base/alloc.h"
#include "runtime/llama_priv.h"

static void *keep(struct skf_kept **kept, size_t n)
{
    struct skf_kept *k = n < SIZE_MAX - sizeof *k ? skf_alloc(sizeof *k + n) : NULL;
    if (!k)
        return NULL;
    k->next = *kept;
    *kept = k;
    return k->data;
}

void skf_kept_free(struct skf_kept *kept)
{
    while (kept) {
        struct skf_kept *next = kept->next;
        skf_free(kept);
        kept = next;
    }
}

/* The rows at row `at`: as many as lie whole in one run, or a copy of one. */
static enum skf_err rows_at(const struct skf_source *src, const struct skf_tensor *t, uint32_t at, uint32_t rows,
                            struct skf_kept **kept, struct skf_rows *out)
{
    const uint8_t *p = NULL;
    uint64_t off = t->offset + (uint64_t)at * t->row_bytes, len = 0;
    SKF_TRY(src->span(src->ctx, off, &p, &len));
    uint64_t whole = len / t->row_bytes;
    if (whole > 0) {
        *out = (struct skf_rows){p, at, (uint32_t)SKF_MIN(whole, rows - at)};
        return SKF_OK;
    }
    uint8_t *copy = keep(kept, t->row_bytes);
    if (!copy)
        return SKF_ERR_NOMEM;
    *out = (struct skf_rows){copy, at, 1};
    return skf_source_read(src, off, copy, t->row_bytes);
}

enum skf_err skf_weight_resolve(const struct skf_source *src, const struct skf_tensor *t, struct skf_kept **kept,
                                struct skf_weight *w, struct skf_why *why)
{
    uint32_t rows = (uint32_t)(t->bytes / t->row_bytes), at = 0;
    size_t cap = 0;
    struct skf_rows *seg = NULL;
    enum skf_err e = SKF_OK;
    w->n_seg = 0;
    while (at < rows) {
        if (w->n_seg == cap) {
            cap = cap ? 2 * cap : 4;
            struct skf_rows *more = skf_realloc(seg, cap * sizeof *seg);
            if (!more) {
                e = SKF_ERR_NOMEM;
                break;
            }
            seg = more;
        }
        e = rows_at(src, t, at, rows, kept, &seg[w->n_seg]);
        if (e != SKF_OK)
            break;
        at += seg[w->n_seg++].n;
    }
    struct skf_rows *mine = e == SKF_OK ? keep(kept, w->n_seg * sizeof *seg) : NULL;
    if (e == SKF_OK && !mine)
        e = SKF_ERR_NOMEM;
    if (e == SKF_OK) {
        memcpy(mine, seg, w->n_seg * sizeof *seg);
        w->type = t->type;
        w->rows = rows;
        w->cols = (uint32_t)t->dims[0];
        w->row_bytes = t->row_bytes;
        w->seg = mine;
        w->packed = NULL;
    }
    skf_free(seg);
    return e == SKF_OK ? e : skf_fail(why, e, "tensor %s: cannot be read (%s)", t->name, skf_err_name(e));
}

void skf_weight_idle(const struct skf_source *src, const struct skf_weight *w)
{
    for (uint32_t i = 0; src->idle && i < w->n_seg; i++)
        if (w->seg[i].n > 1) /* a single row may be our own copy of one that the source breaks in two */
            src->idle(src->ctx, w->seg[i].p, w->seg[i].n * w->row_bytes);
}
