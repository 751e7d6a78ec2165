/* A LoRA adapter beside its base (adapter.h). */
#include "model/adapter.h"

#include "base/alloc.h"
#include "model/grid.h"
#include "model/model_priv.h"

enum { NAME_SPACE = SKF_NAME_MAX + 16 };

struct skf_adapter {
    struct skf_model *model;
    const struct skf_model *base;
    char *path;
    const char *base_path; /* for error lines while it is opened */
    double alpha;          /* 0 when it has none: its factors are used as they are */
    bool is_written;       /* the base's tensors are to be written anew */
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

static enum skf_err check_kind(struct skf_adapter *m, struct skf_why *why)
{
    const struct skf_gguf *a = skf_model_gguf(m->model), *b = skf_model_gguf(m->base);
    struct skf_str kind = {0}, arch = {0}, base_arch = {0};
    if (!b)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file; only those can take an adapter", m->base_path);
    if (!a)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file; convert the adapter with llama.cpp's convert_lora_to_gguf.py",
                        m->path);
    if (!is_gguf_str(a, "general.type", &kind) || kind.n != 7 || memcmp(kind.p, "adapter", 7) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not an adapter (general.type is not \"adapter\")", m->path);
    if (!is_gguf_str(a, "adapter.type", &kind) || kind.n != 4 || memcmp(kind.p, "lora", 4) != 0)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: adapter.type is not \"lora\"", m->path);
    if (is_gguf_str(b, "general.type", &kind) && kind.n == 7 && memcmp(kind.p, "adapter", 7) == 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: an adapter itself; the base comes first", m->base_path);
    if (!is_gguf_str(a, "general.architecture", &arch) || !is_gguf_str(b, "general.architecture", &base_arch) ||
        arch.n != base_arch.n || memcmp(arch.p, base_arch.p, arch.n) != 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: made for another architecture than %s", m->path, m->base_path);
    if (skf_gguf_get(a, "adapter.lora.alpha") && !is_gguf_f64(a, "adapter.lora.alpha", &m->alpha))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: adapter.lora.alpha is no number", m->path);
    if (!(m->alpha >= -1e6 && m->alpha <= 1e6))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: adapter.lora.alpha is out of range", m->path);
    return SKF_OK;
}

/* Every tensor of the adapter must have a place: nothing is left out silently. */
static enum skf_err check_pairs(const struct skf_adapter *m, struct skf_why *why)
{
    size_t n, stem;
    const struct skf_tensor *t = skf_model_tensors(m->model, &n);
    for (size_t i = 0; i < n; i++) {
        int shown = (int)SKF_MIN_NAME(strlen(t[i].name));
        bool is_a = is_suffix(t[i].name, ".lora_a", &stem);
        if (!is_a && !is_suffix(t[i].name, ".lora_b", &stem))
            return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: tensor '%.*s' is neither a lora_a nor a lora_b", m->path, shown,
                            t[i].name);
        if (!find_by_stem(m->model, t[i].name, stem, is_a ? ".lora_b" : ".lora_a"))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: tensor '%.*s' has no counterpart", m->path, shown, t[i].name);
        const struct skf_tensor *base = find_by_stem(m->base, t[i].name, stem, "");
        if (!base)
            return skf_fail(why, SKF_ERR_ARG, "%s: tensor '%.*s' is for a tensor that %s does not have", m->path, shown,
                            t[i].name, m->base_path);
        if (m->is_written && !is_grid_type(base->type))
            return skf_fail(why, SKF_ERR_UNSUPPORTED,
                            "%s: tensor '%s' has type %s; merging writes f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1", m->base_path,
                            base->name, skf_type_info((uint32_t)base->type)->name);
    }
    return n ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "%s: holds no tensors", m->path);
}

static enum skf_err open_adapter(const char *path, const struct skf_model *base, const char *base_path, bool is_written,
                                 struct skf_adapter **out, struct skf_why *why)
{
    struct skf_adapter *a = skf_calloc(1, sizeof *a);
    enum skf_err e = SKF_ERR_NOMEM;
    if (!a || !(a->path = skf_strdup(path))) {
        (void)skf_fail(why, e, "out of memory");
        goto out;
    }
    a->base = base;
    a->is_written = is_written;
    a->base_path = base_path;
    SKF_GO(e, skf_model_open(path, &a->model, why));
    SKF_GO(e, check_kind(a, why));
    SKF_GO(e, check_pairs(a, why));
    a->base_path = NULL;
    *out = a;
    return SKF_OK;
out:
    skf_adapter_close(a);
    return e;
}

enum skf_err skf_adapter_open(const char *path, const struct skf_model *base, const char *base_path,
                              struct skf_adapter **out, struct skf_why *why)
{
    return open_adapter(path, base, base_path, true, out, why);
}

enum skf_err skf_adapter_open_beside(const char *path, const struct skf_model *base, const char *base_path,
                                     struct skf_adapter **out, struct skf_why *why)
{
    return open_adapter(path, base, base_path, false, out, why);
}

enum skf_err skf_adapter_digest(const struct skf_adapter *a, uint8_t digest[SKF_DIGEST], struct skf_why *why)
{
    const struct skf_source *src = skf_model_source(a->model);
    struct skf_sha256_ctx *c = skf_sha256_new();
    enum skf_err e = c ? SKF_OK : SKF_ERR_NOMEM;
    for (uint64_t at = 0, n = 0; e == SKF_OK && at < src->size; at += n) {
        const uint8_t *p;
        e = src->span(src->ctx, at, &p, &n);
        if (e == SKF_OK)
            skf_sha256_add(c, p, n = SKF_MIN(n, src->size - at));
    }
    if (e != SKF_OK) {
        skf_sha256_free(c);
        return skf_fail(why, e, "%s: cannot be read (%s)", a->path, skf_err_name(e));
    }
    skf_sha256_final(c, digest);
    return SKF_OK;
}

void skf_adapter_close(struct skf_adapter *a)
{
    if (!a)
        return;
    skf_model_close(a->model);
    skf_free(a->path);
    skf_free(a);
}

enum skf_err skf_adapter_find(const struct skf_adapter *m, const struct skf_tensor *t, struct skf_low_rank *l,
                              struct skf_why *why)
{
    size_t stem = strlen(t->name);
    const struct skf_tensor *a = find_by_stem(m->model, t->name, stem, ".lora_a");
    const struct skf_tensor *b = find_by_stem(m->model, t->name, stem, ".lora_b");
    *l = (struct skf_low_rank){.base = t};
    if (!a || !b)
        return SKF_OK;
    l->inputs = t->dims[0];
    l->outputs = t->dims[1];
    l->rank = b->dims[0];
    bool is_plain = is_matrix(a, l->inputs, l->rank) && is_matrix(b, l->rank, l->outputs);
    l->is_flipped = !is_plain && is_matrix(a, l->rank, l->outputs) && is_matrix(b, l->rank, l->inputs) &&
                    strcmp(t->name, "token_embd.weight") == 0;
    if (!is_matrix(t, l->inputs, l->outputs) || l->rank == 0 || !(is_plain || l->is_flipped))
        return skf_fail(why, SKF_ERR_ARG, "%s: the shape of '%s' does not fit that of '%s' in the base", m->path, a->name,
                        t->name);
    l->rows = l->is_flipped ? a : b;
    l->columns = l->is_flipped ? b : a;
    l->scale = m->alpha != 0 ? (float)m->alpha / (float)l->rank : 1.0f;
    return SKF_OK;
}

/* `count` rows of a tensor of the adapter as float32. */
static enum skf_err load(const struct skf_adapter *m, const struct skf_tensor *t, uint64_t first, uint64_t count, float *x,
                         struct skf_why *why)
{
    uint64_t n = t->dims[0] * count;
    uint8_t *raw = skf_alloc(count * t->row_bytes);
    enum skf_err e = SKF_ERR_NOMEM;
    if (!raw)
        goto out;
    SKF_GO(e, skf_source_read(skf_model_source(m->model), t->offset + first * t->row_bytes, raw, count * t->row_bytes));
    e = skf_dequantize(t->type, raw, x, n);
    for (uint64_t i = 0; e == SKF_OK && i < n; i++)
        if (!(x[i] >= -1e30f && x[i] <= 1e30f))
            e = SKF_ERR_FORMAT;
out:
    skf_free(raw);
    return e == SKF_OK ? e : skf_fail(why, e, "%s: tensor '%s' %s", m->path, t->name,
                                      e == SKF_ERR_FORMAT        ? "holds values that are not finite"
                                      : e == SKF_ERR_UNSUPPORTED ? "has a type that cannot be read"
                                                                 : "does not fit in memory");
}

enum skf_err skf_adapter_rows(const struct skf_adapter *m, const struct skf_low_rank *l, uint64_t first, uint64_t count,
                              float *x, struct skf_why *why)
{
    return load(m, l->rows, first, count, x, why);
}

enum skf_err skf_adapter_columns(const struct skf_adapter *m, const struct skf_low_rank *l, float *x, struct skf_why *why)
{
    if (!l->is_flipped)
        return load(m, l->columns, 0, l->rank, x, why);
    float *y = skf_alloc(l->rank * l->inputs * sizeof *y);
    if (!y)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", m->path);
    enum skf_err e = load(m, l->columns, 0, l->inputs, y, why);
    for (uint64_t i = 0; e == SKF_OK && i < l->inputs; i++)
        for (uint64_t k = 0; k < l->rank; k++)
            x[k * l->inputs + i] = y[i * l->rank + k];
    skf_free(y);
    return e;
}

/* Independent columns side by side: the order of each one's sum is that of the ranks whatever the vectors. */
#if defined __GNUC__ && !defined __clang__
__attribute__((optimize("O3")))
#endif
void skf_low_rank_row(const float *b, const float *a, uint64_t rank, uint64_t inputs, float scale, float *restrict change)
{
    for (uint64_t j = 0; j < inputs; j++)
        change[j] = 0.0f;
    for (uint64_t k = 0; k < rank; k++) {
        const float f = b[k], *restrict column = a + k * inputs;
        for (uint64_t j = 0; j < inputs; j++)
            change[j] += f * column[j];
    }
    for (uint64_t j = 0; j < inputs; j++)
        change[j] *= scale;
}

enum skf_err skf_low_rank_merge(enum skf_type t, uint8_t *row, const float *b, const float *a, uint64_t rank, uint64_t inputs,
                                float scale, float *work)
{
    float *x = work, *change = work + inputs;
    SKF_TRY(skf_dequantize(t, row, x, inputs));
    skf_low_rank_row(b, a, rank, inputs, scale, change);
    for (uint64_t j = 0; j < inputs; j++)
        x[j] += change[j];
    return skf_grid_row(t, row, x, inputs);
}
