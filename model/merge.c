/*
 * skiff merge: base + alpha / rank * B A, for every tensor that the adapter names (llama.cpp's layout: lora_a is [inputs, rank],
 * lora_b [rank, outputs], rank first in token_embd's lora_a).  Types and sizes stay, so the result is the base's bytes with some
 * rows rewritten: head, padding and order of the base are kept whatever they are.
 */
#include "model/merge.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "model/grid.h"
#include "model/model.h"
#include "model/model_priv.h"

enum { PIECE = 1 << 20, NAME_SPACE = SKF_NAME_MAX + 16 };

struct merge {
    struct skf_model *base, *adapter;
    const char *base_path, *adapter_path;
    double alpha; /* 0 when the adapter has none: its factors are used as they are */
    struct skf_draft *draft;
    uint64_t size;
    atomic_uint_fast64_t done;
    const struct skf_progress *progress;
};

/* One tensor's change: rows[out][rank] * columns[rank][in] * scale. */
struct change {
    struct merge *m;
    const struct skf_tensor *t;
    float *rows, *columns;
    uint64_t rank, inputs, outputs;
    float scale;
    uint64_t group; /* rows that one call handles */
};

static bool is_suffix(const char *name, const char *suffix, size_t *stem)
{
    size_t n = strlen(name), s = strlen(suffix);
    *stem = n - s;
    return n >= s && memcmp(name + n - s, suffix, s) == 0;
}

/* The tensor named `stem` characters of `name` and then `tail`. */
static const struct skf_tensor *find_by_stem(const struct skf_model *m, const char *name, size_t stem, const char *tail)
{
    char full[NAME_SPACE];
    int n = snprintf(full, sizeof full, "%.*s%s", (int)stem, name, tail);
    return n < 0 || (size_t)n >= sizeof full ? NULL : skf_model_find(m, full);
}

static bool is_matrix(const struct skf_tensor *t, uint64_t columns, uint64_t rows)
{
    for (int i = 2; i < SKF_MAX_DIMS; i++)
        if (t->dims[i] != 1)
            return false;
    return t->dims[0] == columns && t->dims[1] == rows;
}

static enum skf_err check_adapter(struct merge *m, struct skf_why *why)
{
    const struct skf_gguf *a = skf_model_gguf(m->adapter), *b = skf_model_gguf(m->base);
    struct skf_str kind = {0}, arch = {0}, base_arch = {0};
    if (!b)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file; only those can take an adapter", m->base_path);
    if (!a)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file; convert the adapter with llama.cpp's convert_lora_to_gguf.py",
                        m->adapter_path);
    if (!is_gguf_str(a, "general.type", &kind) || kind.n != 7 || memcmp(kind.p, "adapter", 7) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not an adapter (general.type is not \"adapter\")", m->adapter_path);
    if (!is_gguf_str(a, "adapter.type", &kind) || kind.n != 4 || memcmp(kind.p, "lora", 4) != 0)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: adapter.type is not \"lora\"", m->adapter_path);
    if (is_gguf_str(b, "general.type", &kind) && kind.n == 7 && memcmp(kind.p, "adapter", 7) == 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: an adapter itself; the base comes first", m->base_path);
    if (!is_gguf_str(a, "general.architecture", &arch) || !is_gguf_str(b, "general.architecture", &base_arch) ||
        arch.n != base_arch.n || memcmp(arch.p, base_arch.p, arch.n) != 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: made for another architecture than %s", m->adapter_path, m->base_path);
    if (skf_gguf_get(a, "adapter.lora.alpha") && !is_gguf_f64(a, "adapter.lora.alpha", &m->alpha))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: adapter.lora.alpha is no number", m->adapter_path);
    if (!(m->alpha >= -1e6 && m->alpha <= 1e6))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: adapter.lora.alpha is out of range", m->adapter_path);
    return SKF_OK;
}

/* Every tensor of the adapter must have a place: nothing is left out silently. */
static enum skf_err check_pairs(struct merge *m, struct skf_why *why)
{
    size_t n, stem;
    const struct skf_tensor *t = skf_model_tensors(m->adapter, &n);
    for (size_t i = 0; i < n; i++) {
        int shown = (int)SKF_MIN_NAME(strlen(t[i].name));
        bool is_a = is_suffix(t[i].name, ".lora_a", &stem);
        if (!is_a && !is_suffix(t[i].name, ".lora_b", &stem))
            return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: tensor '%.*s' is neither a lora_a nor a lora_b", m->adapter_path,
                            shown, t[i].name);
        if (!find_by_stem(m->adapter, t[i].name, stem, is_a ? ".lora_b" : ".lora_a"))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: tensor '%.*s' has no counterpart", m->adapter_path, shown, t[i].name);
        const struct skf_tensor *base = find_by_stem(m->base, t[i].name, stem, "");
        if (!base)
            return skf_fail(why, SKF_ERR_ARG, "%s: tensor '%.*s' is for a tensor that %s does not have", m->adapter_path, shown,
                            t[i].name, m->base_path);
        if (!is_grid_type(base->type))
            return skf_fail(why, SKF_ERR_UNSUPPORTED,
                            "%s: tensor '%s' has type %s; merging writes f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1", m->base_path,
                            base->name, skf_type_info((uint32_t)base->type)->name);
    }
    return n ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "%s: holds no tensors", m->adapter_path);
}

/* A whole tensor of the adapter as float32. */
static enum skf_err load(const struct merge *m, const struct skf_tensor *t, float **x, struct skf_why *why)
{
    uint64_t n = t->dims[0] * (t->bytes / t->row_bytes), size;
    uint8_t *raw = skf_alloc(t->bytes);
    *x = is_mul_ok(n, sizeof **x, &size) ? skf_alloc(size) : NULL;
    enum skf_err e = SKF_ERR_NOMEM;
    if (!raw || !*x)
        goto out;
    SKF_GO(e, skf_source_read(skf_model_source(m->adapter), t->offset, raw, t->bytes));
    e = skf_dequantize(t->type, raw, *x, n);
    for (uint64_t i = 0; e == SKF_OK && i < n; i++)
        if (!((*x)[i] >= -1e30f && (*x)[i] <= 1e30f))
            e = SKF_ERR_FORMAT;
out:
    skf_free(raw);
    return e == SKF_OK ? e : skf_fail(why, e, "%s: tensor '%s' %s", m->adapter_path, t->name,
                                      e == SKF_ERR_FORMAT        ? "holds values that are not finite"
                                      : e == SKF_ERR_UNSUPPORTED ? "has a type that cannot be read"
                                                                 : "does not fit in memory");
}

static enum skf_err transpose(float **x, uint64_t rows, uint64_t columns)
{
    float *y = skf_alloc(rows * columns * sizeof *y);
    if (!y)
        return SKF_ERR_NOMEM;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < columns; c++)
            y[c * rows + r] = (*x)[r * columns + c];
    skf_free(*x);
    *x = y;
    return SKF_OK;
}

static enum skf_err load_change(struct merge *m, const struct skf_tensor *a, const struct skf_tensor *b,
                                const struct skf_tensor *t, struct change *c, struct skf_why *why)
{
    *c = (struct change){.m = m, .t = t, .inputs = t->dims[0], .outputs = t->dims[1], .rank = b->dims[0]};
    bool is_plain = is_matrix(a, c->inputs, c->rank) && is_matrix(b, c->rank, c->outputs);
    bool is_flipped = is_matrix(a, c->rank, c->outputs) && is_matrix(b, c->rank, c->inputs);
    if (strcmp(t->name, "token_embd.weight") != 0)
        is_flipped = false;
    if (!is_matrix(t, c->inputs, c->outputs) || c->rank == 0 || !(is_plain || is_flipped))
        return skf_fail(why, SKF_ERR_ARG, "%s: the shape of '%s' does not fit that of '%s' in %s", m->adapter_path, a->name,
                        t->name, m->base_path);
    c->scale = m->alpha != 0 ? (float)m->alpha / (float)c->rank : 1.0f;
    uint64_t fit = PIECE / (c->inputs * sizeof(float) + 1);
    c->group = fit ? fit : 1;
    SKF_TRY(load(m, is_flipped ? a : b, &c->rows, why));
    SKF_TRY(load(m, is_flipped ? b : a, &c->columns, why));
    if (is_flipped && transpose(&c->columns, c->inputs, c->rank) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", m->adapter_path);
    return SKF_OK;
}

/* row += scale * (rows[r] * columns): every sum in the order of the ranks, so that it is the same on every machine. */
static void add_change(const struct change *c, uint64_t r, float *restrict sum, float *restrict row)
{
    for (uint64_t j = 0; j < c->inputs; j++)
        sum[j] = 0.0f;
    for (uint64_t k = 0; k < c->rank; k++) {
        const float f = c->rows[r * c->rank + k], *restrict column = c->columns + k * c->inputs;
        for (uint64_t j = 0; j < c->inputs; j++)
            sum[j] += f * column[j];
    }
    for (uint64_t j = 0; j < c->inputs; j++)
        row[j] += c->scale * sum[j];
}

static enum skf_err tell(struct merge *m, uint64_t n, struct skf_why *why)
{
    skf_progress_tell(m->progress, atomic_fetch_add(&m->done, n) + n, m->size);
    return is_cancelled(m->progress) ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

static enum skf_err merge_group(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    struct change *c = ctx;
    const struct skf_tensor *t = c->t;
    uint64_t first = i * c->group, count = SKF_MIN(c->group, c->outputs - first), at = first * t->row_bytes;
    uint8_t *bytes = skf_alloc(count * t->row_bytes);
    float *row = skf_alloc(2 * c->inputs * sizeof *row);
    enum skf_err e = SKF_ERR_NOMEM;
    (void)worker;
    if (!bytes || !row) {
        (void)skf_fail(why, e, "out of memory");
        goto out;
    }
    SKF_GO(e, skf_source_read(skf_model_source(c->m->base), t->offset + at, bytes, count * t->row_bytes));
    for (uint64_t r = 0; r < count; r++) {
        uint8_t *p = bytes + r * t->row_bytes;
        SKF_GO(e, skf_dequantize(t->type, p, row, c->inputs));
        add_change(c, first + r, row + c->inputs, row);
        e = skf_grid_row(t->type, p, row, c->inputs);
        if (e != SKF_OK) {
            (void)skf_fail(why, e, "%s: tensor '%s' comes to values that are not finite", c->m->base_path, t->name);
            goto out;
        }
    }
    SKF_GO(e, skf_draft_write_at(c->m->draft, t->offset + at, bytes, count * t->row_bytes, why));
    e = tell(c->m, count * t->row_bytes, why);
out:
    skf_free(bytes);
    skf_free(row);
    return e;
}

static enum skf_err merge_tensor(struct merge *m, const struct skf_tensor *a, const struct skf_tensor *b,
                                 const struct skf_tensor *t, unsigned jobs, struct skf_why *why)
{
    struct change c;
    enum skf_err e = load_change(m, a, b, t, &c, why);
    if (e == SKF_OK && c.outputs && c.inputs)
        e = skf_par_for(jobs, (c.outputs + c.group - 1) / c.group, merge_group, &c, why);
    skf_free(c.rows);
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
        size_t stem = strlen(t[i].name);
        const struct skf_tensor *a = find_by_stem(m->adapter, t[i].name, stem, ".lora_a");
        const struct skf_tensor *b = find_by_stem(m->adapter, t[i].name, stem, ".lora_b");
        if (!a || !b) {
            stats->tensors_copied++;
            continue;
        }
        SKF_TRY(copy_range(m, at, t[i].offset, why));
        SKF_TRY(merge_tensor(m, a, b, &t[i], jobs, why));
        at = t[i].offset + t[i].bytes;
        stats->tensors_merged++;
    }
    return copy_range(m, at, m->size, why);
}

enum skf_err skf_merge(const char *base_path, const char *adapter_path, const char *out_path, unsigned jobs,
                       const struct skf_progress *progress, struct skf_merge_stats *stats, struct skf_why *why)
{
    struct merge m = {.base_path = base_path, .adapter_path = adapter_path, .progress = progress};
    uint64_t begun = skf_now_ns();
    enum skf_err e;
    *stats = (struct skf_merge_stats){0};
    SKF_GO(e, skf_model_open(base_path, &m.base, why));
    SKF_GO(e, skf_model_open(adapter_path, &m.adapter, why));
    SKF_GO(e, check_adapter(&m, why));
    SKF_GO(e, check_pairs(&m, why));
    m.size = skf_model_source(m.base)->size;
    SKF_GO(e, skf_draft_open(out_path, m.size, 0644, &m.draft, why));
    SKF_GO(e, merge_all(&m, jobs, stats, why));
    struct skf_draft *draft = m.draft;
    m.draft = NULL;
    e = skf_draft_commit(draft, why);
out:
    skf_draft_abort(m.draft);
    skf_model_close(m.base);
    skf_model_close(m.adapter);
    stats->bytes = m.size;
    stats->seconds = (double)(skf_now_ns() - begun) / 1e9;
    return e;
}
