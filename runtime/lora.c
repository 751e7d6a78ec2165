/* Adapters at run time (lora_priv.h). */
#include "runtime/lora_priv.h"

#include "base/alloc.h"
#include "model/adapter.h"
#include "runtime/llama_priv.h"

struct skf_lora *skf_lora_hold(struct skf_lora *x)
{
    (void)atomic_fetch_add(&x->refs, 1);
    return x;
}

void skf_lora_free(struct skf_lora *x)
{
    if (!x || atomic_fetch_sub(&x->refs, 1) > 1)
        return;
    for (uint32_t i = 0; i < x->n; i++)
        skf_free(x->pairs[i].data);
    skf_free(x);
}

/* One matrix's part: its rows of B, from `first` on (a tensor may hold the rows of several). */
static enum skf_err load_pair(const struct skf_adapter *a, const struct skf_low_rank *r, uint32_t first, uint32_t rows, const char *path, uint64_t most,
                              struct skf_lora *x, struct skf_lora_pair *p, struct skf_why *why)
{
    if (r->rank > SKF_LORA_RANK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: rank %llu of %.100s, at most %u can be run; merge it (skiff merge)", path, (unsigned long long)r->rank,
                        r->base->name, SKF_LORA_RANK);
    const uint64_t in = r->rank * r->inputs, out = r->rank * rows, bytes = (in + out) * sizeof(float); /* sizes of a model: far from overflow */
    if (bytes > most - x->bytes)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: takes more than the %llu MiB that are left for adapters", path, (unsigned long long)(most >> 20));
    p->data = skf_aligned(64, bytes + 64);
    if (!p->data)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for %llu bytes", path, (unsigned long long)bytes);
    x->bytes += bytes;
    p->rank = (uint32_t)r->rank;
    p->rows = rows;
    p->scale = r->scale;
    p->a_rows = (struct skf_rows){(const uint8_t *)p->data, 0, p->rank};
    p->a = (struct skf_weight){.type = SKF_T_F32, .rows = p->rank, .cols = (uint32_t)r->inputs, .row_bytes = r->inputs * sizeof(float),
                               .n_seg = 1, .seg = &p->a_rows};
    SKF_TRY(skf_adapter_columns(a, r, p->data, why));
    float *b = skf_alloc(out * sizeof *b);
    if (!b)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory for %llu bytes", path, (unsigned long long)bytes);
    enum skf_err e = skf_adapter_rows(a, r, first, rows, b, why);
    for (uint32_t i = 0; e == SKF_OK && i < rows; i++)
        for (uint32_t k = 0; k < p->rank; k++)
            p->data[in + (size_t)k * rows + i] = b[(size_t)i * p->rank + k];
    skf_free(b);
    return e;
}

/* Each tensor of the model that the adapter changes must be one that is multiplied with. */
static enum skf_err load_pairs(const struct skf_adapter *a, const char *path, const struct skf_model *m, uint64_t most, struct skf_llama *l,
                               struct skf_lora *x, struct skf_why *why)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    uint32_t found = 0, known = 0, first = 0;
    const struct skf_tensor *base = NULL;
    struct skf_low_rank r;
    char name[64];
    for (size_t i = 0; i < n; i++) {
        SKF_TRY(skf_adapter_find(a, &t[i], &r, why));
        found += r.rank > 0;
    }
    for (uint32_t k = 0; k < x->n; k++) {
        const uint32_t rows = skf_llama_matrix(l, k)->rows;
        skf_llama_matrix_name(l, k, name);
        if (name[0]) {
            base = strcmp(name, "token_embd.weight") == 0 ? NULL : skf_model_find(m, name); /* an output that is tied changes with the embedding */
            first = 0;
        }
        if (!base)
            continue;
        SKF_TRY(skf_adapter_find(a, base, &r, why));
        if (r.rank > 0)
            SKF_TRY(load_pair(a, &r, first, rows, path, most, x, &x->pairs[k], why));
        known += r.rank > 0 && first == 0;
        first += rows;
    }
    if (known == found)
        return SKF_OK;
    return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: changes a tensor that cannot be changed at run time, such as the embedding; merge it (skiff merge)", path);
}

enum skf_err skf_lora_load(const char *path, const struct skf_model *m, struct skf_llama *l, uint64_t most, struct skf_lora **out,
                           struct skf_why *why)
{
    const uint32_t n = skf_llama_matrices(l);
    struct skf_adapter *a = NULL;
    struct skf_lora *x = skf_calloc(1, sizeof *x + n * sizeof x->pairs[0]);
    if (!x)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    enum skf_err e;
    x->n = n;
    atomic_init(&x->refs, 1);
    SKF_GO(e, skf_adapter_open_beside(path, m, "the model", &a, why));
    SKF_GO(e, skf_adapter_digest(a, x->digest, why));
    e = load_pairs(a, path, m, most, l, x, why);
out:
    skf_adapter_close(a);
    if (e == SKF_OK)
        *out = x;
    else
        skf_lora_free(x);
    return e;
}

void skf_lora_down(const struct skf_ops *ops, const struct skf_lora_pair *p, const float *x, float *u)
{
    const struct skf_acts acts = {.m = 1, .n = p->a.cols, .x = x, .ldx = p->a.cols};
    ops->matmul(&p->a, &acts, 0, p->rank, u, p->rank);
    for (uint32_t i = 0; i < p->rank; i++)
        u[i] *= p->scale;
}

/* Rows side by side: the order of each one's sum is that of the ranks, each product and sum rounded, whatever the vectors. */
#if defined __GNUC__ && !defined __clang__
__attribute__((optimize("O3")))
#endif
void skf_lora_up(const struct skf_lora_pair *p, const float *u, uint32_t row0, uint32_t row1, float *y)
{
    const float *b = p->data + (size_t)p->rank * p->a.cols;
    float sum[256];
    for (uint32_t at = row0, n; at < row1; at += n) {
        n = SKF_MIN(row1 - at, (uint32_t)SKF_COUNT(sum));
        for (uint32_t i = 0; i < n; i++)
            sum[i] = 0.0f;
        for (uint32_t k = 0; k < p->rank; k++) {
            const float f = u[k], *column = b + (size_t)k * p->rows + at;
            for (uint32_t i = 0; i < n; i++)
                sum[i] += f * column[i];
        }
        for (uint32_t i = 0; i < n; i++)
            y[at + i] += sum[i];
    }
}
