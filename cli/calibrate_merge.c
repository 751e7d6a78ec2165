/* The base with an adapter's change as the new weights to calibrate for (calibrate_merge.h). */
#include "cli/calibrate_merge.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/cli.h"
#include "model/adapter.h"

enum { PATH_SPACE = 4096 };

struct merging {
    const struct calibrate_ask *ask;
    struct skf_model *base, *target;
    struct skf_adapter *adapter;
    pthread_mutex_t lock; /* of what follows */
    const struct skf_tensor *t;
    struct skf_low_rank l;
    float *columns; /* of t's change */
};

static enum skf_err has(void *ctx, const struct skf_tensor *t, bool *is_new, struct skf_why *why)
{
    struct merging *m = ctx;
    struct skf_low_rank l;
    SKF_TRY(skf_adapter_find(m->adapter, skf_model_find(m->base, t->name), &l, why));
    *is_new = l.rank != 0;
    return SKF_OK;
}

/* Makes t the tensor at hand. Under the lock. */
static enum skf_err turn_to(struct merging *m, const struct skf_tensor *t, struct skf_why *why)
{
    if (m->t == t)
        return SKF_OK;
    m->t = NULL;
    skf_free(m->columns);
    m->columns = NULL;
    SKF_TRY(skf_adapter_find(m->adapter, skf_model_find(m->base, t->name), &m->l, why));
    m->columns = skf_calloc(m->l.rank, m->l.inputs * sizeof *m->columns);
    if (!m->columns)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    SKF_TRY(skf_adapter_columns(m->adapter, &m->l, m->columns, why));
    m->t = t;
    return SKF_OK;
}

static enum skf_err rows(void *ctx, const struct skf_tensor *t, uint64_t first, uint64_t count, float *x, struct skf_why *why)
{
    struct merging *m = ctx;
    (void)pthread_mutex_lock(&m->lock);
    enum skf_err e = turn_to(m, t, why);
    (void)pthread_mutex_unlock(&m->lock);
    if (e != SKF_OK)
        return e;
    const uint64_t n = m->l.inputs;
    float *b = skf_alloc((m->l.rank * count + n) * sizeof *b);
    uint8_t *raw = skf_alloc(t->row_bytes);
    if (!b || !raw)
        e = skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    if (e == SKF_OK)
        e = skf_adapter_rows(m->adapter, &m->l, first, count, b, why);
    float *change = b + m->l.rank * count;
    for (uint64_t r = 0; e == SKF_OK && r < count; r++) {
        e = skf_source_read(skf_model_source(m->base), t->offset + (first + r) * t->row_bytes, raw, t->row_bytes);
        if (e == SKF_OK)
            e = skf_dequantize(t->type, raw, x + r * n, n);
        skf_low_rank_row(b + r * m->l.rank, m->columns, m->l.rank, n, m->l.scale, change);
        for (uint64_t j = 0; j < n; j++)
            x[r * n + j] += change[j];
    }
    skf_free(raw);
    skf_free(b);
    return e;
}

static enum skf_err describe(struct merging *m, struct skf_gguf_out *w, struct skf_why *why)
{
    const struct skf_gguf *g = skf_model_gguf(m->base);
    enum skf_err e = SKF_OK;
    for (uint64_t i = 0; e == SKF_OK && i < g->n_kv; i++)
        e = skf_gguf_out_kv(w, &g->kv[i]);
    for (uint64_t i = 0; e == SKF_OK && i < g->n_tensors; i++) {
        struct skf_tensor t = g->tensors[i];
        bool is_new;
        SKF_TRY(has(m, &t, &is_new, why));
        t.type = is_new ? SKF_T_F32 : t.type;
        e = skf_gguf_out_tensor(w, &t);
    }
    return e == SKF_OK ? e : skf_fail(why, e, "%s: cannot be written unquantized (%s)", m->ask->base, skf_err_name(e));
}

static enum skf_err write_tensor(struct merging *m, struct skf_gguf_out *w, const struct skf_tensor *t, struct skf_why *why)
{
    const uint64_t n = t->bytes / t->row_bytes;
    uint8_t *raw = skf_alloc(t->row_bytes);
    float *x = skf_alloc(t->dims[0] * sizeof *x);
    bool is_new = false;
    enum skf_err e = raw && x ? has(m, t, &is_new, why) : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (uint64_t r = 0; e == SKF_OK && r < n; r++) {
        if (is_new) {
            e = rows(m, t, r, 1, x, why);
        } else {
            e = skf_source_read(skf_model_source(m->base), t->offset + r * t->row_bytes, raw, t->row_bytes);
        }
        if (e == SKF_OK)
            e = skf_gguf_out_data(w, is_new ? (const void *)x : raw, is_new ? t->dims[0] * sizeof *x : t->row_bytes, why);
    }
    skf_free(raw);
    skf_free(x);
    return e;
}

/* The merged tensors as float32 in a file that has no name once it is open. */
static enum skf_err target(void *ctx, const struct skf_model **out, struct skf_why *why)
{
    struct merging *m = ctx;
    const struct skf_gguf *g = skf_model_gguf(m->base);
    struct skf_gguf_out *w = NULL;
    char path[PATH_SPACE];
    int n = snprintf(path, sizeof path, "%s.%ld.part", m->ask->out, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof path)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: the name is too long", m->ask->out);
    enum skf_err e = skf_gguf_out_new(g->alignment, &w);
    if (e != SKF_OK)
        return skf_fail(why, e, "out of memory");
    e = describe(m, w, why);
    if (e == SKF_OK)
        e = skf_gguf_out_begin(w, path, why);
    for (uint64_t i = 0; e == SKF_OK && i < g->n_tensors; i++)
        e = is_cancelled(&m->ask->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled")
                                            : write_tensor(m, w, &g->tensors[i], why);
    if (e == SKF_OK)
        e = skf_gguf_out_commit(w, why);
    skf_gguf_out_free(w);
    if (e == SKF_OK) {
        e = skf_model_open(path, &m->target, why);
        (void)unlink(path);
    }
    *out = m->target;
    return e;
}

enum skf_err skf_cli_merge_calibrated(const struct calibrate_ask *ask, const char *adapter, skf_json *report, struct skf_why *why)
{
    struct merging m = {.ask = ask};
    const struct calibrate_new neu = {&m, has, rows, target};
    if (pthread_mutex_init(&m.lock, NULL) != 0)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    enum skf_err e = skf_cli_model_open(ask->base, &m.base, why);
    if (e == SKF_OK)
        e = skf_adapter_open(adapter, m.base, ask->base, &m.adapter, why);
    if (e == SKF_OK)
        e = skf_calibrate(ask, &neu, report, why);
    skf_free(m.columns);
    skf_adapter_close(m.adapter);
    skf_model_close(m.target);
    skf_model_close(m.base);
    (void)pthread_mutex_destroy(&m.lock);
    return e;
}
