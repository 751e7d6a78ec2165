/* Loading a decoder's tensors from GGUF (llama_priv.h); what the metadata says is read by arch.c and rope.c. */
#include "base/alloc.h"
#include "runtime/llama_load_priv.h"
#include "store/layout.h"

/* A tensor by name; NULL when it is not there. */
static const struct skf_tensor *find(const struct load *d, const char *name)
{
    const struct skf_tensor *t = skf_model_find(d->m, name);
    if (t)
        d->is_used[t - d->tensors] = true;
    return t;
}

/* rows == 1 wants a vector. */
static enum skf_err check_shape(const struct load *d, const struct skf_tensor *t, const char *name, uint32_t cols, uint32_t rows)
{
    if (!t)
        return skf_fail(d->why, SKF_ERR_FORMAT, "tensor %s is missing", name);
    bool is_shape = t->dims[0] == cols && t->dims[1] == rows && t->n_dims >= 1 && t->n_dims <= 2;
    if (!is_shape)
        return skf_fail(d->why, SKF_ERR_FORMAT, "tensor %s is %llu x %llu, not %u x %u", name, (unsigned long long)t->dims[0],
                        (unsigned long long)t->dims[1], cols, rows);
    if (!is_ops_type(t->type) || (rows == 1 && skf_type_info(t->type)->block > 1))
        return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "tensor %s: cannot compute with type %s", name,
                        skf_type_info(t->type)->name);
    if (cols % skf_type_info(t->type)->block || t->row_bytes == 0 || t->bytes / t->row_bytes != rows)
        return skf_fail(d->why, SKF_ERR_FORMAT, "tensor %s is not made of whole rows", name);
    return SKF_OK;
}

/* The rows of w are `rows` of a tensor of `of` rows, from row `from` on. */
static enum skf_err load_rows(const struct load *d, const char *name, uint32_t cols, uint32_t of, uint32_t from, uint32_t rows,
                              struct skf_weight *w)
{
    const struct skf_tensor *t = find(d, name);
    SKF_TRY(check_shape(d, t, name, cols, of));
    struct skf_tensor part = *t;
    part.dims[1] = rows;
    part.offset += (uint64_t)from * t->row_bytes;
    part.bytes = (uint64_t)rows * t->row_bytes;
    return skf_weight_resolve(skf_model_source(d->m), &part, &d->l->kept, w, d->why);
}

static enum skf_err load_matrix(const struct load *d, const char *name, uint32_t cols, uint32_t rows, struct skf_weight *w)
{
    return load_rows(d, name, cols, rows, 0, rows, w);
}

enum skf_err skf_load_vector(const struct load *d, const char *name, uint32_t n, float **out)
{
    const struct skf_tensor *t = find(d, name);
    SKF_TRY(check_shape(d, t, name, n, 1));
    uint8_t *raw = skf_alloc(t->bytes);
    *out = skf_aligned(64, n * sizeof **out);
    enum skf_err e = raw && *out ? skf_source_read(skf_model_source(d->m), t->offset, raw, t->bytes) : SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = skf_dequantize(t->type, raw, *out, n);
    skf_free(raw);
    return e == SKF_OK ? e : skf_fail(d->why, e, "tensor %s: cannot be read (%s)", name, skf_err_name(e));
}

static enum skf_err load_vectors(const struct load *d, uint32_t i)
{
    struct skf_llama *l = d->l;
    struct skf_llama_layer *y = &l->layers[i];
    const uint32_t q = l->n_head * l->head_dim, kv = l->n_kv * l->head_dim;
    const struct {
        const char *name;
        uint32_t n;
        float **to;
        bool is_there;
    } vectors[] = {
        {"attn_norm.weight", l->n_embd, &y->attn_norm, true},
        {"ffn_norm.weight", l->n_embd, &y->ffn_norm, true},
        {"attn_q_norm.weight", l->head_dim, &y->q_norm, l->arch->has_head_norms},
        {"attn_k_norm.weight", l->head_dim, &y->k_norm, l->arch->has_head_norms},
        {"attn_q.bias", q, &y->q_bias, l->arch->has_biases},
        {"attn_k.bias", kv, &y->k_bias, l->arch->has_biases},
        {"attn_v.bias", kv, &y->v_bias, l->arch->has_biases},
        {"post_attention_norm.weight", l->n_embd, &y->attn_post, l->arch->has_post_norms},
        {"post_ffw_norm.weight", l->n_embd, &y->ffn_post, l->arch->has_post_norms},
    };
    for (size_t k = 0; k < SKF_COUNT(vectors); k++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s", i, vectors[k].name);
        if (vectors[k].is_there)
            SKF_TRY(skf_load_vector(d, name, vectors[k].n, vectors[k].to));
    }
    return SKF_OK;
}

/* A layer's matrices are whole tensors, or rows of one that holds several. */
static enum skf_err load_layer(const struct load *d, uint32_t i)
{
    struct skf_llama *l = d->l;
    struct skf_llama_layer *y = &l->layers[i];
    const uint32_t q = l->n_head * l->head_dim, kv = l->n_kv * l->head_dim;
    const struct part {
        const char *name;
        uint32_t cols, of, from, rows;
        struct skf_weight *w;
    } whole[] = {
        {"attn_q", l->n_embd, q, 0, q, &y->q},
        {"attn_k", l->n_embd, kv, 0, kv, &y->k},
        {"attn_v", l->n_embd, kv, 0, kv, &y->v},
        {"ffn_gate", l->n_embd, l->n_ff, 0, l->n_ff, &y->gate},
        {"ffn_up", l->n_embd, l->n_ff, 0, l->n_ff, &y->up},
    }, fused[] = {
        {"attn_qkv", l->n_embd, q + 2 * kv, 0, q, &y->q},
        {"attn_qkv", l->n_embd, q + 2 * kv, q, kv, &y->k},
        {"attn_qkv", l->n_embd, q + 2 * kv, q + kv, kv, &y->v},
        {"ffn_up", l->n_embd, 2 * l->n_ff, 0, l->n_ff, &y->gate},
        {"ffn_up", l->n_embd, 2 * l->n_ff, l->n_ff, l->n_ff, &y->up},
    };
    char name[64];
    for (size_t k = 0; k < SKF_COUNT(whole); k++) {
        const struct part *p = l->arch->is_fused ? &fused[k] : &whole[k];
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", i, p->name);
        SKF_TRY(load_rows(d, name, p->cols, p->of, p->from, p->rows, p->w));
    }
    (void)snprintf(name, sizeof name, "blk.%u.attn_output.weight", i);
    SKF_TRY(load_matrix(d, name, q, l->n_embd, &y->o));
    (void)snprintf(name, sizeof name, "blk.%u.ffn_down.weight", i);
    SKF_TRY(load_matrix(d, name, l->n_ff, l->n_embd, &y->down));
    return load_vectors(d, i);
}

static enum skf_err load_all(const struct load *d)
{
    struct skf_llama *l = d->l;
    SKF_TRY(skf_load_head(d));
    SKF_TRY(load_matrix(d, "token_embd.weight", l->n_embd, l->n_vocab, &l->embd));
    l->output = l->embd;
    if (skf_model_find(d->m, "output.weight"))
        SKF_TRY(load_matrix(d, "output.weight", l->n_embd, l->n_vocab, &l->output));
    SKF_TRY(skf_load_vector(d, "output_norm.weight", l->n_embd, &l->norm));
    SKF_TRY(skf_load_rope_factors(d));
    l->layers = skf_calloc(l->n_layers, sizeof *l->layers);
    if (!l->layers)
        return skf_fail(d->why, SKF_ERR_NOMEM, "no memory for %u layers", l->n_layers);
    SKF_TRY(skf_load_layers(d));
    for (uint32_t i = 0; i < l->n_layers; i++)
        SKF_TRY(load_layer(d, i));
    for (size_t i = 0; i < d->n_tensors; i++) /* one we would leave out might change every result */
        if (!d->is_used[i])
            return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "tensor %s is no part of the %s architecture as this build knows it",
                            d->tensors[i].name, skf_arch_name(l->id));
    return SKF_OK;
}

enum skf_err skf_llama_load(const struct skf_model *m, uint32_t n_vocab, struct skf_llama **out, struct skf_why *why)
{
    struct load d = {.m = m, .g = skf_model_gguf(m), .why = why};
    d.tensors = skf_model_tensors(m, &d.n_tensors);
    d.l = skf_calloc(1, sizeof *d.l);
    d.is_used = skf_calloc(d.n_tensors + 1, sizeof *d.is_used);
    enum skf_err e = SKF_OK;
    if (!d.l || !d.is_used) {
        e = skf_fail(why, SKF_ERR_NOMEM, "no memory for a model's description");
    } else {
        d.l->n_vocab = n_vocab;
        e = load_all(&d);
    }
    skf_free(d.is_used);
    if (e == SKF_OK)
        *out = d.l;
    else
        skf_llama_free(d.l);
    return e;
}

uint32_t skf_llama_matrices(const struct skf_llama *l) { return l->n_layers * 7 + 1; }

struct skf_weight *skf_llama_matrix(struct skf_llama *l, uint32_t k)
{
    if (k == l->n_layers * 7)
        return &l->output;
    struct skf_llama_layer *y = &l->layers[k / 7];
    struct skf_weight *const all[7] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
    return all[k % 7];
}

void skf_llama_matrix_name(const struct skf_llama *l, uint32_t k, char name[64])
{
    static const char *const whole[7] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"},
                            *const fused[7] = {"attn_qkv", NULL, NULL, "attn_output", "ffn_up", NULL, "ffn_down"};
    name[0] = 0;
    if (k == l->n_layers * 7) { /* an output that is tied was copied from the embedding, so it lists the same rows */
        (void)snprintf(name, 64, "%s.weight", l->output.seg == l->embd.seg ? "token_embd" : "output");
        return;
    }
    const char *stem = (l->arch->is_fused ? fused : whole)[k % 7];
    if (stem)
        (void)snprintf(name, 64, "blk.%u.%s.weight", k / 7, stem);
}

uint32_t skf_llama_number(const struct skf_llama *l, uint32_t layer, const struct skf_weight *w)
{
    if (w == &l->output)
        return l->n_layers * 7;
    const struct skf_llama_layer *y = &l->layers[layer];
    const struct skf_weight *const all[7] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
    uint32_t k = 0;
    while (k < 6 && all[k] != w)
        k++;
    return layer * 7 + k;
}

void skf_llama_free(struct skf_llama *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; l->layers && i < l->n_layers; i++) {
        struct skf_llama_layer *y = &l->layers[i];
        float *const all[] = {y->attn_norm, y->ffn_norm, y->attn_post, y->ffn_post,
                              y->q_norm,    y->k_norm,   y->q_bias,    y->k_bias,   y->v_bias};
        for (size_t k = 0; k < SKF_COUNT(all); k++)
            skf_free(all[k]);
    }
    skf_llama_unpack(l);
    skf_free(l->layers);
    skf_free(l->norm);
    skf_free(l->ropes[0].factors);
    skf_free(l->ropes[0].long_factors);
    skf_kept_free(l->kept);
    skf_free(l->lanes);
    skf_free(l->kept_lanes);
    skf_layout_close(l->kept_layout);
    skf_free(l);
}
