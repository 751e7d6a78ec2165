/*
 * What a GGUF file's metadata says of a decoder: the one table of what tells architectures apart, sizes, scales, windows
 * (llama_load_priv.h).  Names and keys are those of llama.cpp's converter; what they mean was held against the models' own code in
 * transformers (tools/check_transformers.py).
 */
#include "runtime/llama_load_priv.h"

#include <math.h>

static const struct skf_arch archs[SKF_ARCH_COUNT] = {
    [SKF_ARCH_LLAMA] = {0},
    /* Qwen 2 and 2.5 (Qwen Team 2024). */
    [SKF_ARCH_QWEN2] = {.turns_halves = true, .has_biases = true},
    /* Qwen 3 (Qwen Team 2025). */
    [SKF_ARCH_QWEN3] = {.turns_halves = true, .has_head_norms = true},
    /* SmolLM3 (Hugging Face 2025). */
    [SKF_ARCH_SMOLLM3] = {.still_every = 4},
    /* Phi-3 and its kin (Microsoft 2024). */
    [SKF_ARCH_PHI3] = {.turns_halves = true, .is_fused = true, .has_windows = true},
    /* Gemma 2 (Gemma Team 2024): every second layer with a window, soft caps.  The norms' weights have 1 added in the file. 46 layers: the 27B. */
    [SKF_ARCH_GEMMA2] = {.turns_halves = true, .has_post_norms = true, .has_gelu = true, .is_embedding_scaled = true,
                         .has_windows = true, .global_every = 2, .window = 4096, .wide_layers = 46, .attn_cap = 50.0, .logit_cap = 30.0},
    /* Gemma 3 (Gemma Team 2025): five layers with a window to one without. 62 layers: the 27B. */
    [SKF_ARCH_GEMMA3] = {.turns_halves = true, .has_head_norms = true, .has_post_norms = true, .has_gelu = true, .is_embedding_scaled = true,
                         .has_windows = true, .global_every = 6, .wide_layers = 62, .window_base = 10000.0},
};

const char *skf_load_key(const struct load *d, const char *what, char key[SKF_KEY])
{
    (void)snprintf(key, SKF_KEY, "%s.%s", skf_arch_name(d->l->id), what);
    return key;
}

enum skf_err skf_load_size(const struct load *d, const char *what, uint64_t least, uint64_t most, uint64_t otherwise, uint32_t *out)
{
    char key[SKF_KEY];
    uint64_t v = otherwise;
    if (!is_gguf_u64(d->g, skf_load_key(d, what, key), &v) && (skf_gguf_get(d->g, key) || otherwise == SKF_MUST_SAY))
        return skf_fail(d->why, skf_gguf_get(d->g, key) ? SKF_ERR_UNSUPPORTED : SKF_ERR_FORMAT, "%s is %s", key,
                        skf_gguf_get(d->g, key) ? "not one whole number" : "missing");
    if (v < least || v > most)
        return skf_fail(d->why, SKF_ERR_LIMIT, "%s is %llu, not %llu to %llu", key, (unsigned long long)v,
                        (unsigned long long)least, (unsigned long long)most);
    *out = (uint32_t)v;
    return SKF_OK;
}

enum skf_err skf_load_real(const struct load *d, const char *what, double least, double most, double *v)
{
    char key[SKF_KEY];
    if (!skf_gguf_get(d->g, skf_load_key(d, what, key)))
        return SKF_OK;
    if (!is_gguf_f64(d->g, key, v) || !(*v >= least && *v <= most))
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s makes no sense", key);
    return SKF_OK;
}

static enum skf_err find_architecture(const struct load *d)
{
    struct skf_str s;
    if (!is_gguf_str(d->g, "general.architecture", &s))
        return skf_fail(d->why, SKF_ERR_FORMAT, "the file names no architecture (general.architecture)");
    if (!is_arch_known(s.p, s.n, &d->l->id))
        return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "architecture \"%.*s\" is not known to this build, which knows %s",
                        (int)SKF_MIN(s.n, 64u), s.p, skf_arch_names());
    d->l->arch = &archs[d->l->id];
    return SKF_OK;
}

/* Keys of the architecture that are read here or change no result; any other might. */
static bool is_known_key(const char *p, size_t n)
{
    static const char *const known[] = {
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon", "attention.scale",
        "attention.sliding_window", "attention.sliding_window_pattern", "attention.value_length", "attn_logit_softcapping", "block_count",
        "context_length", "embedding_length", "expert_count", "expert_used_count", "feed_forward_length", "final_logit_softcapping", "rope.dimension_count",
        "rope.freq_base", "rope.freq_base_swa", "rope.scaling.attn_factor", "rope.scaling.factor", "rope.scaling.original_context_length",
        "rope.scaling.type", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
        "rope.scaling.yarn_ext_factor", "vocab_size",
        /* no result depends on these */
        "attention.layer_norm_epsilon", "mm.tokens_per_image", "rope.scaling.finetuned", "tensor_data_layout",
    };
    for (size_t i = 0; i < SKF_COUNT(known); i++)
        if (n == strlen(known[i]) && memcmp(p, known[i], n) == 0)
            return true;
    return false;
}

static enum skf_err check_keys(const struct load *d)
{
    const char *name = skf_arch_name(d->l->id);
    const size_t n = strlen(name);
    uint32_t none;
    for (uint64_t i = 0; i < d->g->n_kv; i++) {
        const struct skf_str *k = &d->g->kv[i].key;
        if (k->n > n && memcmp(k->p, name, n) == 0 && k->p[n] == '.' && !is_known_key(k->p + n + 1, k->n - n - 1))
            return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "%.*s is not known to this build, and might change every result", (int)SKF_MIN(k->n, 128u), k->p);
    }
    SKF_TRY(skf_load_size(d, "expert_count", 0, 0, 0, &none)); /* a mixture of experts is another architecture */
    return skf_load_size(d, "expert_used_count", 0, 0, 0, &none);
}

/* How attention is scaled, and what is capped. */
static enum skf_err load_scales(const struct load *d)
{
    struct skf_llama *l = d->l;
    double eps = 0, scale = 0, attn_cap = l->arch->attn_cap, logit_cap = l->arch->logit_cap;
    SKF_TRY(skf_load_real(d, "attention.layer_norm_rms_epsilon", 1e-12, 1, &eps));
    if (eps == 0)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s.attention.layer_norm_rms_epsilon is missing", skf_arch_name(l->id));
    SKF_TRY(skf_load_real(d, "attention.scale", 0, 1e3, &scale));
    SKF_TRY(skf_load_real(d, "attn_logit_softcapping", 0, 1e6, &attn_cap));
    SKF_TRY(skf_load_real(d, "final_logit_softcapping", 0, 1e6, &logit_cap));
    if ((attn_cap > 0 && attn_cap < 1e-3) || (logit_cap > 0 && logit_cap < 1e-3))
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s: soft caps of %g and %g make no sense", skf_arch_name(l->id), attn_cap, logit_cap);
    l->eps = (float)eps;
    l->attn_cap = (float)attn_cap;
    l->logit_cap = (float)logit_cap;
    l->embd_scale = l->arch->is_embedding_scaled ? sqrtf((float)l->n_embd) : 1.0f;
    bool is_wide = l->arch->wide_layers == l->n_layers;
    l->attn_scale = scale > 0 ? (float)scale : 1.0f / sqrtf((float)(is_wide ? SKF_MAX(l->n_embd / l->n_head, 1) : l->head_dim));
    return SKF_OK;
}

enum skf_err skf_load_head(const struct load *d)
{
    struct skf_llama *l = d->l;
    uint32_t v_dim, vocab;
    SKF_TRY(find_architecture(d));
    SKF_TRY(check_keys(d));
    SKF_TRY(skf_load_size(d, "block_count", 1, 512, SKF_MUST_SAY, &l->n_layers));
    SKF_TRY(skf_load_size(d, "embedding_length", 1, 1u << 16, SKF_MUST_SAY, &l->n_embd));
    SKF_TRY(skf_load_size(d, "attention.head_count", 1, 1024, SKF_MUST_SAY, &l->n_head));
    SKF_TRY(skf_load_size(d, "attention.head_count_kv", 1, l->n_head, l->n_head, &l->n_kv));
    SKF_TRY(skf_load_size(d, "attention.key_length", 2, 1024, SKF_MAX(l->n_embd / l->n_head, 2), &l->head_dim));
    SKF_TRY(skf_load_size(d, "attention.value_length", 2, 1024, l->head_dim, &v_dim));
    SKF_TRY(skf_load_size(d, "rope.dimension_count", 2, l->head_dim, l->head_dim, &l->n_rot));
    SKF_TRY(skf_load_size(d, "feed_forward_length", 1, 1u << 20, SKF_MUST_SAY, &l->n_ff));
    SKF_TRY(skf_load_size(d, "context_length", 1, 1u << 24, SKF_MUST_SAY, &l->context));
    SKF_TRY(skf_load_size(d, "vocab_size", 1, 1u << 20, l->n_vocab, &vocab));
    if (l->n_head % l->n_kv || l->head_dim % 2 || l->n_rot % 2 || v_dim != l->head_dim)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%u heads, %u key heads, %u and %u elements a head, %u turned: these do not fit",
                        l->n_head, l->n_kv, l->head_dim, v_dim, l->n_rot);
    if (vocab != l->n_vocab)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s.vocab_size is %u, but the tokenizer has %u tokens", skf_arch_name(l->id), vocab,
                        l->n_vocab);
    SKF_TRY(load_scales(d));
    return skf_load_ropes(d);
}

/* A file may say which layers have a window: of so many the last has none, or one truth value a layer. */
static enum skf_err load_pattern(const struct load *d, uint32_t *every, const struct skf_gguf_value **each)
{
    char key[SKF_KEY];
    const struct skf_gguf_value *v = skf_gguf_get(d->g, skf_load_key(d, "attention.sliding_window_pattern", key));
    *each = NULL;
    if (!v || !v->is_array)
        return v ? skf_load_size(d, "attention.sliding_window_pattern", 0, 512, SKF_MUST_SAY, every) : SKF_OK;
    if (v->type != SKF_GGUF_BOOL || v->count != d->l->n_layers || v->raw_len < v->count)
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s does not have one truth value a layer (%u)", key, d->l->n_layers);
    *each = v;
    return SKF_OK;
}

enum skf_err skf_load_layers(const struct load *d)
{
    struct skf_llama *l = d->l;
    const struct skf_arch *a = l->arch;
    const struct skf_gguf_value *each;
    uint32_t window = 0, every = a->global_every;
    const bool is_needed = a->global_every > 0; /* without one the layers would not differ */
    SKF_TRY(skf_load_size(d, "attention.sliding_window", is_needed ? 1 : 0, 1u << 24, is_needed ? (a->window ? a->window : SKF_MUST_SAY) : 0, &window));
    SKF_TRY(load_pattern(d, &every, &each));
    if (!a->has_windows && (each || (window > 0 && window < l->context)))
        return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "%s.attention.sliding_window: this build knows the architecture without windows", skf_arch_name(l->id));
    for (uint32_t i = 0; i < l->n_layers; i++) {
        bool sees_all = !a->has_windows || window == 0 || (each ? !each->raw[i] : every && i % every == every - 1);
        bool is_still = a->still_every && i % a->still_every == a->still_every - 1;
        l->layers[i].window = sees_all ? 0 : window;
        l->layers[i].rope = is_still ? NULL : &l->ropes[sees_all || l->n_ropes == 1 ? 0 : 1];
    }
    return SKF_OK;
}
