/*
 * skiff merge: base + alpha / rank * B A, for every tensor that the adapter names (adapter.h).  Types and sizes stay, so the result is the
 * base's bytes with some rows rewritten: head, padding and order of the base are kept whatever they are.
 */
#include "model/merge.h"

#include "base/alloc.h"
#include "base/file.h"
#include "model/adapter.h"
#include "model/grid.h"

enum { PIECE = 1 << 20 };

struct merge {
    struct skf_model *base;
    struct skf_adapter *adapter;
    const char *base_path;
    struct skf_draft *draft;
    uint64_t size;
    atomic_uint_fast64_t done;
    const struct skf_progress *progress;
};

/* One tensor's change. */
struct change {
    struct merge *m;
    struct skf_low_rank l;
    float *columns;
    uint64_t group; /* rows that one call handles */
};

static enum skf_err tell(struct merge *m, uint64_t n, struct skf_why *why)
{
    skf_progress_tell(m->progress, atomic_fetch_add(&m->done, n) + n, m->size);
    return is_cancelled(m->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

static enum skf_err merge_group(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct change *c = ctx;
    const struct skf_low_rank *l = &c->l;
    const struct skf_tensor *t = l->base;
    uint64_t first = i * c->group, count = SKF_MIN(c->group, l->outputs - first), at = first * t->row_bytes;
    uint8_t *bytes = skf_alloc(count * t->row_bytes);
    float *b = skf_alloc(count * l->rank * sizeof *b), *row = skf_alloc(2 * l->inputs * sizeof *row);
    enum skf_err e = SKF_ERR_NOMEM;
    (void)worker;
    if (!bytes || !b || !row) {
        (void)skf_fail(why, e, "out of memory");
        goto out;
    }
    SKF_GO(e, skf_source_read(skf_model_source(c->m->base), t->offset + at, bytes, count * t->row_bytes));
    SKF_GO(e, skf_adapter_rows(c->m->adapter, l, first, count, b, why));
    for (uint64_t r = 0; r < count; r++) {
        e = skf_low_rank_merge(t->type, bytes + r * t->row_bytes, b + r * l->rank, c->columns, l->rank, l->inputs, l->scale, row);
        if (e != SKF_OK) {
            (void)skf_fail(why, e, "%s: tensor '%s' comes to values that are not finite", c->m->base_path, t->name);
            goto out;
        }
    }
    SKF_GO(e, skf_draft_write_at(c->m->draft, t->offset + at, bytes, count * t->row_bytes, why));
    e = tell(c->m, count * t->row_bytes, why);
out:
    skf_free(bytes);
    skf_free(b);
    skf_free(row);
    return e;
}

static enum skf_err merge_tensor(struct merge *m, const struct skf_low_rank *l, unsigned jobs, struct skf_why *why)
{
    uint64_t fit = PIECE / (l->inputs * sizeof(float) + 1);
    struct change c = {.m = m, .l = *l, .group = fit ? fit : 1, .columns = skf_alloc(l->rank * l->inputs * sizeof(float))};
    enum skf_err e = c.columns ? skf_adapter_columns(m->adapter, l, c.columns, why) : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK && l->outputs && l->inputs)
        e = skf_par_for(jobs, (l->outputs + c.group - 1) / c.group, merge_group, &c, why);
    skf_free(c.columns);
    return e;
}

static enum skf_err copy_range(struct merge *m, uint64_t at, uint64_t end, struct skf_why *why)
{
    const struct skf_source *src = skf_model_source(m->base);
    while (at < end) {
        const uint8_t *p;
        uint64_t n;
        SKF_TRY(src->span(src->ctx, at, &p, &n));
        n = SKF_MIN(n, SKF_MIN(end - at, (uint64_t)PIECE));
        SKF_TRY(skf_draft_write_at(m->draft, at, p, n, why));
        SKF_TRY(tell(m, n, why));
        at += n;
    }
    return SKF_OK;
}

static enum skf_err merge_all(struct merge *m, unsigned jobs, struct skf_merge_stats *stats, struct skf_why *why)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m->base, &n);
    uint64_t at = 0; /* everything before stands */
    for (size_t i = 0; i < n; i++) {
        struct skf_low_rank l;
        SKF_TRY(skf_adapter_find(m->adapter, &t[i], &l, why));
        if (!l.rank) {
            stats->tensors_copied++;
            continue;
        }
        SKF_TRY(copy_range(m, at, t[i].offset, why));
        SKF_TRY(merge_tensor(m, &l, jobs, why));
        at = t[i].offset + t[i].bytes;
        stats->tensors_merged++;
    }
    return copy_range(m, at, m->size, why);
}

enum skf_err skf_merge(const char *base_path, const char *adapter_path, const char *out_path, unsigned jobs,
                       const struct skf_progress *progress, struct skf_merge_stats *stats, struct skf_why *why)
{
    struct merge m = {.base_path = base_path, .progress = progress};
    uint64_t begun = skf_now_ns();
    enum skf_err e;
    *stats = (struct skf_merge_stats){0};
    SKF_GO(e, skf_model_open(base_path, &m.base, why));
    SKF_GO(e, skf_adapter_open(adapter_path, m.base, base_path, &m.adapter, why));
    m.size = skf_model_source(m.base)->size;
    SKF_GO(e, skf_draft_open(out_path, m.size, 0644, &m.draft, why));
    SKF_GO(e, merge_all(&m, jobs, stats, why));
    struct skf_draft *draft = m.draft;
    m.draft = NULL;
    e = skf_draft_commit(draft, why);
out:
    skf_draft_abort(m.draft);
    skf_adapter_close(m.adapter);
    skf_model_close(m.base);
    stats->bytes = m.size;
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    return e;
}
