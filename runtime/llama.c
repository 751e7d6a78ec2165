/* Loading a decoder of Llama's kind from GGUF (llama_priv.h). */
#include "runtime/llama_priv.h"

#include <math.h>

#include "base/alloc.h"
#include "store/layout.h"

static const struct skf_arch archs[] = {
    {.name = "llama"},
    /* Gemma 3 (Gemma Team 2025): five layers with a window to one without. The norms' weights have 1 added in the file. */
    {.name = "gemma3", .turns_halves = true, .has_head_norms = true, .has_post_norms = true, .has_gelu = true,
     .is_embedding_scaled = true, .global_every = 6, .window_base = 10000.0},
};

struct load {
    const struct skf_model *m;
    const struct skf_gguf *g;
    const struct skf_tensor *tensors;
    size_t n_tensors;
    bool *is_used;
    struct skf_llama *l;
    struct skf_why *why;
};

/* A size from the metadata, least to most; `otherwise` where the key may be absent, 0 where it may not. */
static enum skf_err size_key(const struct load *d, const char *what, uint64_t least, uint64_t most, uint64_t otherwise,
                             uint32_t *out)
{
    char key[96];
    uint64_t v = otherwise;
    (void)snprintf(key, sizeof key, "%s.%s", d->l->arch->name, what);
    if (!is_gguf_u64(d->g, key, &v) && (skf_gguf_get(d->g, key) || otherwise == 0))
        return skf_fail(d->why, skf_gguf_get(d->g, key) ? SKF_ERR_UNSUPPORTED : SKF_ERR_FORMAT, "%s is %s", key,
                        skf_gguf_get(d->g, key) ? "not one whole number" : "missing");
    if (v < least || v > most)
        return skf_fail(d->why, SKF_ERR_LIMIT, "%s is %llu, not %llu to %llu", key, (unsigned long long)v,
                        (unsigned long long)least, (unsigned long long)most);
    *out = (uint32_t)v;
    return SKF_OK;
}

static enum skf_err find_architecture(const struct load *d)
{
    struct skf_str s;
    char known[256] = "";
    if (!is_gguf_str(d->g, "general.architecture", &s))
        return skf_fail(d->why, SKF_ERR_FORMAT, "the file names no architecture (general.architecture)");
    for (size_t i = 0; i < SKF_COUNT(archs); i++) {
        if (s.n == strlen(archs[i].name) && memcmp(s.p, archs[i].name, s.n) == 0)
            d->l->arch = &archs[i];
        size_t n = strlen(known);
        (void)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", archs[i].name);
    }
    if (!d->l->arch)
        return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "architecture \"%.*s\" is not known to this build, which knows %s",
                        (int)SKF_MIN(s.n, 64u), s.p, known);
    return SKF_OK;
}

/* A number of the metadata that may be absent, `least` to `most`. */
static enum skf_err real_key(const struct load *d, const char *what, double least, double most, double *v)
{
    char key[96];
    (void)snprintf(key, sizeof key, "%s.%s", d->l->arch->name, what);
    if (!skf_gguf_get(d->g, key))
        return SKF_OK;
    if (!is_gguf_f64(d->g, key, v) || !(*v >= least && *v <= most))
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s makes no sense", key);
    return SKF_OK;
}

static enum skf_err load_ropes(const struct load *d)
{
    struct skf_llama *l = d->l;
    struct skf_str s;
    char key[96];
    l->ropes[0] = (struct skf_rope){10000.0, 1.0, NULL};
    SKF_TRY(real_key(d, "rope.freq_base", 1, 1e12, &l->ropes[0].base));
    l->ropes[1] = l->ropes[0];
    if (l->arch->window_base > 0)
        l->ropes[1].base = l->arch->window_base;
    SKF_TRY(real_key(d, "rope.freq_base_swa", 1, 1e12, &l->ropes[1].base));
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", l->arch->name);
    if (!is_gguf_str(d->g, key, &s) || (s.n == 4 && memcmp(s.p, "none", 4) == 0))
        return SKF_OK;
    if (s.n == 6 && memcmp(s.p, "linear", 6) == 0) /* layers with a window keep theirs */
        return real_key(d, "rope.scaling.factor", 1e-3, 1e6, &l->ropes[0].divide);
    return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "%s \"%.*s\" is not known to this build", key, (int)SKF_MIN(s.n, 64u), s.p);
}

static enum skf_err load_sizes(const struct load *d)
{
    struct skf_llama *l = d->l;
    uint32_t v_dim, vocab;
    SKF_TRY(size_key(d, "block_count", 1, 512, 0, &l->n_layers));
    SKF_TRY(size_key(d, "embedding_length", 1, 1u << 16, 0, &l->n_embd));
    SKF_TRY(size_key(d, "attention.head_count", 1, 1024, 0, &l->n_head));
    SKF_TRY(size_key(d, "attention.head_count_kv", 1, l->n_head, l->n_head, &l->n_kv));
    SKF_TRY(size_key(d, "attention.key_length", 2, 1024, SKF_MAX(l->n_embd / l->n_head, 2), &l->head_dim));
    SKF_TRY(size_key(d, "attention.value_length", 2, 1024, l->head_dim, &v_dim));
    SKF_TRY(size_key(d, "rope.dimension_count", 2, l->head_dim, l->head_dim, &l->n_rot));
    SKF_TRY(size_key(d, "feed_forward_length", 1, 1u << 20, 0, &l->n_ff));
    SKF_TRY(size_key(d, "context_length", 1, 1u << 24, 0, &l->context));
    SKF_TRY(size_key(d, "vocab_size", 1, 1u << 20, l->n_vocab, &vocab));
    if (l->n_head % l->n_kv || l->head_dim % 2 || l->n_rot % 2 || v_dim != l->head_dim)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%u heads, %u key heads, %u and %u elements a head, %u turned: these do not fit",
                        l->n_head, l->n_kv, l->head_dim, v_dim, l->n_rot);
    if (vocab != l->n_vocab)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s.vocab_size is %u, but the tokenizer has %u tokens", l->arch->name, vocab,
                        l->n_vocab);
    double eps = 0;
    SKF_TRY(real_key(d, "attention.layer_norm_rms_epsilon", 1e-12, 1, &eps));
    if (eps == 0)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s.attention.layer_norm_rms_epsilon is missing", l->arch->name);
    l->eps = (float)eps;
    l->embd_scale = l->arch->is_embedding_scaled ? sqrtf((float)l->n_embd) : 1.0f;
    l->attn_scale = 1.0f / sqrtf((float)l->head_dim);
    return load_ropes(d);
}

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

static enum skf_err load_matrix(const struct load *d, const char *name, uint32_t cols, uint32_t rows, struct skf_weight *w)
{
    const struct skf_tensor *t = find(d, name);
    SKF_TRY(check_shape(d, t, name, cols, rows));
    return skf_weight_resolve(skf_model_source(d->m), t, &d->l->kept, w, d->why);
}

/* A small tensor as floats of our own. */
static enum skf_err load_vector(const struct load *d, const char *name, uint32_t n, float **out)
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

static enum skf_err load_layer(const struct load *d, uint32_t i)
{
    struct skf_llama *l = d->l;
    struct skf_llama_layer *y = &l->layers[i];
    const uint32_t q = l->n_head * l->head_dim, kv = l->n_kv * l->head_dim;
    const struct {
        const char *name;
        uint32_t cols, rows;
        struct skf_weight *w;
    } mats[] = {
        {"attn_q", l->n_embd, q, &y->q},          {"attn_k", l->n_embd, kv, &y->k},
        {"attn_v", l->n_embd, kv, &y->v},         {"attn_output", q, l->n_embd, &y->o},
        {"ffn_gate", l->n_embd, l->n_ff, &y->gate}, {"ffn_up", l->n_embd, l->n_ff, &y->up},
        {"ffn_down", l->n_ff, l->n_embd, &y->down},
    };
    char name[64];
    for (size_t k = 0; k < SKF_COUNT(mats); k++) {
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", i, mats[k].name);
        SKF_TRY(load_matrix(d, name, mats[k].cols, mats[k].rows, mats[k].w));
    }
    const struct {
        const char *name;
        uint32_t n;
        float **to;
        bool is_there;
    } vectors[] = {
        {"attn_norm", l->n_embd, &y->attn_norm, true},
        {"ffn_norm", l->n_embd, &y->ffn_norm, true},
        {"attn_q_norm", l->head_dim, &y->q_norm, l->arch->has_head_norms},
        {"attn_k_norm", l->head_dim, &y->k_norm, l->arch->has_head_norms},
        {"post_attention_norm", l->n_embd, &y->attn_post, l->arch->has_post_norms},
        {"post_ffw_norm", l->n_embd, &y->ffn_post, l->arch->has_post_norms},
    };
    for (size_t k = 0; k < SKF_COUNT(vectors); k++) {
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", i, vectors[k].name);
        if (vectors[k].is_there)
            SKF_TRY(load_vector(d, name, vectors[k].n, vectors[k].to));
    }
    return SKF_OK;
}

static enum skf_err load_rope_factors(const struct load *d)
{
    struct skf_llama *l = d->l;
    if (!skf_model_find(d->m, "rope_freqs.weight"))
        return SKF_OK;
    SKF_TRY(load_vector(d, "rope_freqs.weight", l->n_rot / 2, &l->ropes[0].factors));
    for (uint32_t i = 0; i < l->n_rot / 2; i++)
        if (!(l->ropes[0].factors[i] >= 1e-6f && l->ropes[0].factors[i] <= 1e6f))
            return skf_fail(d->why, SKF_ERR_FORMAT, "tensor rope_freqs.weight: element %u makes no sense", i);
    return SKF_OK;
}

/* Which layers see everything. */
static enum skf_err load_windows(const struct load *d)
{
    struct skf_llama *l = d->l;
    const uint32_t every = l->arch->global_every;
    uint32_t window = 0;
    if (every)
        SKF_TRY(size_key(d, "attention.sliding_window", 1, 1u << 24, 0, &window));
    for (uint32_t i = 0; i < l->n_layers; i++) {
        bool sees_all = every == 0 || i % every == every - 1;
        l->layers[i].window = sees_all ? 0 : window;
        l->layers[i].rope = &l->ropes[sees_all ? 0 : 1];
    }
    return SKF_OK;
}

static enum skf_err load_all(const struct load *d)
{
    struct skf_llama *l = d->l;
    SKF_TRY(find_architecture(d));
    SKF_TRY(load_sizes(d));
    SKF_TRY(load_matrix(d, "token_embd.weight", l->n_embd, l->n_vocab, &l->embd));
    l->output = l->embd;
    if (skf_model_find(d->m, "output.weight"))
        SKF_TRY(load_matrix(d, "output.weight", l->n_embd, l->n_vocab, &l->output));
    SKF_TRY(load_vector(d, "output_norm.weight", l->n_embd, &l->norm));
    SKF_TRY(load_rope_factors(d));
    l->layers = skf_calloc(l->n_layers, sizeof *l->layers);
    if (!l->layers)
        return skf_fail(d->why, SKF_ERR_NOMEM, "no memory for %u layers", l->n_layers);
    SKF_TRY(load_windows(d));
    for (uint32_t i = 0; i < l->n_layers; i++)
        SKF_TRY(load_layer(d, i));
    for (size_t i = 0; i < d->n_tensors; i++) /* one we would leave out might change every result */
        if (!d->is_used[i])
            return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "tensor %s is no part of the %s architecture as this build knows it",
                            d->tensors[i].name, l->arch->name);
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

void skf_llama_free(struct skf_llama *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; l->layers && i < l->n_layers; i++) {
        struct skf_llama_layer *y = &l->layers[i];
        float *const all[] = {y->attn_norm, y->ffn_norm, y->attn_post, y->ffn_post, y->q_norm, y->k_norm};
        for (size_t k = 0; k < SKF_COUNT(all); k++)
            skf_free(all[k]);
    }
    skf_llama_unpack(l);
    skf_free(l->layers);
    skf_free(l->norm);
    skf_free(l->ropes[0].factors);
    skf_kept_free(l->kept);
    skf_free(l->lanes);
    skf_free(l->kept_lanes);
    skf_layout_close(l->kept_layout);
    skf_free(l);
}
