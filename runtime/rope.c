/*
 * How positions turn queries and keys (RoPE, Su et al. 2021): bases, and what stretches them over longer contexts: one division of all
 * frequencies, one for each (Llama 3's, LongRoPE's two sets), or YaRN's (llama_load_priv.h).
 */
#include "runtime/llama_load_priv.h"

#include <math.h>

static bool is_word(const struct skf_str *s, const char *word) { return s->n == strlen(word) && memcmp(s->p, word, s->n) == 0; }

static enum skf_err load_yarn(const struct load *d, struct skf_rope *r)
{
    double one = 1.0, attn = 1.0;
    r->is_yarn = true;
    r->beta_fast = 32.0;
    r->beta_slow = 1.0;
    SKF_TRY(skf_load_real(d, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &r->beta_fast));
    SKF_TRY(skf_load_real(d, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &r->beta_slow));
    SKF_TRY(skf_load_real(d, "rope.scaling.yarn_ext_factor", 1, 1, &one));
    SKF_TRY(skf_load_real(d, "rope.scaling.yarn_attn_factor", 1e-3, 1e3, &attn));
    r->scale *= attn * (1.0 + 0.1 * log(fmax(r->divide, 1.0)));
    return r->base > 1 ? SKF_OK : skf_fail(d->why, SKF_ERR_FORMAT, "%s.rope.freq_base is 1, by which no turn is slower than another", skf_arch_name(d->l->id));
}

enum skf_err skf_load_ropes(const struct load *d)
{
    struct skf_llama *l = d->l;
    struct skf_rope *r = &l->ropes[0];
    struct skf_str type = {"linear", 6};
    char key[SKF_KEY];
    *r = (struct skf_rope){.base = 10000.0, .divide = 1.0, .scale = 1.0};
    SKF_TRY(skf_load_real(d, "rope.freq_base", 1, 1e12, &r->base));
    l->ropes[1] = *r;
    if (l->arch->window_base > 0)
        l->ropes[1].base = l->arch->window_base;
    bool is_said = skf_gguf_get(d->g, skf_load_key(d, "rope.freq_base_swa", key)) != NULL;
    if (is_said && !l->arch->has_windows)
        return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "%s: this build knows the architecture without windows", key);
    SKF_TRY(skf_load_real(d, "rope.freq_base_swa", 1, 1e12, &l->ropes[1].base));
    l->n_ropes = is_said || l->arch->window_base > 0 ? 2 : 1;
    SKF_TRY(skf_load_size(d, "rope.scaling.original_context_length", 1, 1u << 24, l->context, &r->original));
    if (skf_gguf_get(d->g, skf_load_key(d, "rope.scaling.type", key)) && !is_gguf_str(d->g, key, &type))
        return skf_fail(d->why, SKF_ERR_FORMAT, "%s is no text", key);
    bool is_none = is_word(&type, "none");
    if (!is_none) /* layers with a window keep theirs */
        SKF_TRY(skf_load_real(d, "rope.scaling.factor", 1e-3, 1e6, &r->divide));
    SKF_TRY(skf_load_real(d, "rope.scaling.attn_factor", 1e-3, 1e3, &r->scale));
    bool is_long = is_word(&type, "longrope");
    if (is_long)
        r->divide = 1.0; /* its factors say it */
    if (is_none || is_long || is_word(&type, "linear"))
        return SKF_OK;
    if (is_word(&type, "yarn"))
        return load_yarn(d, r);
    return skf_fail(d->why, SKF_ERR_UNSUPPORTED, "%s \"%.*s\" is not known to this build", key, (int)SKF_MIN(type.n, 64u), type.p);
}

static enum skf_err load_factors(const struct load *d, const char *name, float **out)
{
    const uint32_t n = d->l->n_rot / 2;
    if (!skf_model_find(d->m, name))
        return SKF_OK;
    SKF_TRY(skf_load_vector(d, name, n, out));
    for (uint32_t i = 0; i < n; i++)
        if (!((*out)[i] >= 1e-6f && (*out)[i] <= 1e6f))
            return skf_fail(d->why, SKF_ERR_FORMAT, "tensor %s: element %u makes no sense", name, i);
    return SKF_OK;
}

enum skf_err skf_load_rope_factors(const struct load *d)
{
    struct skf_rope *r = &d->l->ropes[0];
    const bool is_plain = skf_model_find(d->m, "rope_freqs.weight"), is_short = skf_model_find(d->m, "rope_factors_short.weight"),
               is_long = skf_model_find(d->m, "rope_factors_long.weight");
    if (is_short != is_long || (is_plain && is_long))
        return skf_fail(d->why, SKF_ERR_FORMAT, "rope_factors_short.weight and rope_factors_long.weight go together, and without rope_freqs.weight");
    SKF_TRY(load_factors(d, is_long ? "rope_factors_short.weight" : "rope_freqs.weight", &r->factors));
    return load_factors(d, "rope_factors_long.weight", &r->long_factors);
}

/* The pair, as a real number, that turns so many times over the original context. */
static double pair_of(const struct skf_rope *r, uint32_t n_rot, double turns)
{
    return n_rot * log(r->original / (turns * 2 * M_PI)) / (2 * log(r->base));
}

bool is_rope_long(const struct skf_rope *r, uint32_t context) { return r->long_factors && context > r->original; }

void skf_rope_freqs(const struct skf_rope *r, uint32_t n_rot, uint32_t context, double *freqs)
{
    const float *factors = is_rope_long(r, context) ? r->long_factors : r->factors;
    double low = 0, high = 0;
    if (r->is_yarn) {
        low = fmax(floor(pair_of(r, n_rot, r->beta_fast)), 0);
        high = fmin(ceil(pair_of(r, n_rot, r->beta_slow)), n_rot - 1);
    }
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double f = pow(r->base, -2.0 * i / n_rot) / (factors ? (double)factors[i] : 1.0), slow = f / r->divide;
        double ramp = r->is_yarn ? fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1) : 1; /* 0: as it is, 1: divided */
        freqs[i] = slow * ramp + f * (1 - ramp);
    }
}
