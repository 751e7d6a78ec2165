/* What becomes of each tensor (quantize.h). */
#include "model/quantize.h"

#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/model_priv.h"
#include "model/quant.h"

/* Rows are quantized whole; the longest in use have some 200,000 elements. */
enum { ROW_MAX = 1 << 22 };

/* general.file_type is llama.cpp's numbering (llama_ftype). */
static const struct skf_quantize_kind kinds[] = {
    {"f32", SKF_T_F32, 0, SKF_MIX_NONE, false},       {"f16", SKF_T_F16, 1, SKF_MIX_NONE, false},
    {"bf16", SKF_T_BF16, 32, SKF_MIX_NONE, false},    {"q8_0", SKF_T_Q8_0, 7, SKF_MIX_NONE, false},
    {"q4_0", SKF_T_Q4_0, 2, SKF_MIX_NONE, false},     {"q4_1", SKF_T_Q4_1, 3, SKF_MIX_NONE, false},
    {"q5_0", SKF_T_Q5_0, 8, SKF_MIX_NONE, false},     {"q5_1", SKF_T_Q5_1, 9, SKF_MIX_NONE, false},
    {"q2_k", SKF_T_Q2_K, 10, SKF_MIX_NONE, false},    {"q3_k", SKF_T_Q3_K, 11, SKF_MIX_NONE, false},
    {"q3_k_m", SKF_T_Q3_K, 12, SKF_MIX_MEDIUM, false}, {"q4_k", SKF_T_Q4_K, 14, SKF_MIX_NONE, false},
    {"q4_k_s", SKF_T_Q4_K, 14, SKF_MIX_SMALL, false}, {"q4_k_m", SKF_T_Q4_K, 15, SKF_MIX_MEDIUM, false},
    {"q5_k", SKF_T_Q5_K, 16, SKF_MIX_NONE, false},    {"q5_k_m", SKF_T_Q5_K, 17, SKF_MIX_MEDIUM, false},
    {"q6_k", SKF_T_Q6_K, 18, SKF_MIX_NONE, false},    {"iq4_nl", SKF_T_IQ4_NL, 25, SKF_MIX_NONE, false},
    {"tq1_0", SKF_T_TQ1_0, 36, SKF_MIX_NONE, false},  {"tq2_0", SKF_T_TQ2_0, 37, SKF_MIX_NONE, false},
    {"mxfp4", SKF_T_MXFP4, 38, SKF_MIX_NONE, false},  {"int8", SKF_T_Q8_0, 7, SKF_MIX_NONE, true},
};

const struct skf_quantize_kind *skf_quantize_kind(const char *name)
{
    for (size_t i = 0; i < SKF_COUNT(kinds); i++)
        if (strcasecmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

/* ---- names --------------------------------------------------------------------------------------------------------------- */
/* `*` stands for any characters, `?` for one; goes back to the last star only, so it takes at most |pattern| x |name| steps. */
static bool is_match(const char *pattern, const char *name)
{
    const char *star = NULL, *again = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            again = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++again;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

static bool has_any(const char *name, const char *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i]))
            return true;
    return false;
}

/* What llama.cpp quantizes (llama-quant.cpp). */
static bool is_matrix(const struct skf_tensor *t)
{
    static const char *const spared[] = {
        "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
        "position_embd", "token_types", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
        "time_mix_first.weight", "time_mix_w", "time_mix_v", "time_mix_a", "time_mix_g", "time_mix_decay_w",
        "time_mix_lerp_fused.weight", "attn_rel_b.weight", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
        ".patch_merger", "a.rvq.codebook", "mm.a.code_embd"};
    size_t n = strlen(t->name);
    bool is_flat = true;
    for (int i = 1; i < SKF_MAX_DIMS; i++)
        is_flat = is_flat && t->dims[i] <= 1;
    return !is_flat && t->bytes && n >= 6 && strcmp(t->name + n - 6, "weight") == 0 &&
           !has_any(t->name, spared, SKF_COUNT(spared));
}

/* The layer of "blk.7.attn_v.weight"; -1 for none. */
static int layer_of(const char *name)
{
    int layer = 0;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    for (name += 4; *name >= '0' && *name <= '9'; name++)
        if ((layer = 10 * layer + (*name - '0')) > 1 << 20)
            return -1;
    return *name == '.' ? layer : -1;
}

/* ---- types --------------------------------------------------------------------------------------------------------------- */
struct planner {
    const struct skf_quantize_opts *o;
    const char *name;
    int layers;
    bool has_output;
};

static bool is_k(enum skf_type t)
{
    return t == SKF_T_Q2_K || t == SKF_T_Q3_K || t == SKF_T_Q4_K || t == SKF_T_Q5_K || t == SKF_T_Q6_K;
}

static bool is_float(enum skf_type t) { return t == SKF_T_F32 || t == SKF_T_F16 || t == SKF_T_BF16; }

/* The first and last eighths of the layers, and every third between. */
static bool is_sensitive(int layer, int n) { return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2; }

/* llama.cpp's mixtures. */
static enum skf_type mixed_medium(enum skf_type t, int layer, int n, const char *name)
{
    bool is_v = strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight"), is_down = strstr(name, "ffn_down");
    if (t != SKF_T_Q3_K)
        return (is_v || is_down) && is_sensitive(layer, n) ? SKF_T_Q6_K : t;
    if ((is_v && layer < 2) || (is_down && layer < n / 16))
        return SKF_T_Q5_K;
    return is_v || is_down || strstr(name, "attn_output.weight") ? SKF_T_Q4_K : t;
}

static enum skf_type mixed(const struct planner *p, const struct skf_quantize_kind *k, const char *name)
{
    int layer = layer_of(name);
    if (layer < 0 || k->mix == SKF_MIX_NONE)
        return k->type;
    if (k->mix == SKF_MIX_MEDIUM)
        return mixed_medium(k->type, layer, p->layers, name);
    bool is_first = strstr(name, "attn_v.weight") ? layer < 4 : strstr(name, "ffn_down") && layer < p->layers / 8;
    return is_first ? SKF_T_Q5_K : k->type;
}

/* The kind that rules and defaults give it; NULL: it stays. */
static const struct skf_quantize_kind *kind_for(const struct planner *p, const struct skf_tensor *t)
{
    if (!is_matrix(t))
        return NULL;
    for (size_t i = p->o->n_rules; i > 0; i--)
        if (is_match(p->o->rules[i - 1].pattern, t->name))
            return p->o->rules[i - 1].kind;
    bool is_embedding = strcmp(t->name, "token_embd.weight") == 0;
    bool is_output = strcmp(t->name, p->has_output ? "output.weight" : "token_embd.weight") == 0;
    if (is_embedding && p->o->embedding)
        return p->o->embedding;
    if (is_output && p->o->output)
        return p->o->output;
    if (is_output && !is_float(p->o->kind->type) && !p->o->kind->is_row_scaled)
        return skf_quantize_kind(is_k(p->o->kind->type) ? "q6_k" : "q8_0");
    return p->o->kind;
}

/* Where a row is no whole blocks. */
static enum skf_type fallback_of(enum skf_type t)
{
    switch (t) {
    case SKF_T_Q2_K:
    case SKF_T_Q3_K:
    case SKF_T_TQ1_0:
    case SKF_T_TQ2_0:
        return SKF_T_Q4_0;
    case SKF_T_Q4_K:
        return SKF_T_Q5_0;
    case SKF_T_Q5_K:
        return SKF_T_Q5_1;
    case SKF_T_Q6_K:
        return SKF_T_Q8_0;
    default:
        return SKF_T_F16;
    }
}

static enum skf_err set_type(const struct planner *p, struct skf_quantize_line *l, const struct skf_quantize_kind *k,
                             struct skf_why *why)
{
    struct skf_tensor to = *l->from;
    to.type = mixed(p, k, l->from->name);
    l->is_row_scaled = k->is_row_scaled;
    while (to.dims[0] % skf_type_info((uint32_t)to.type)->block) {
        to.type = fallback_of(to.type);
        l->is_fallback = true;
        l->is_row_scaled = false;
    }
    SKF_TRY(skf_tensor_size(&to, why));
    l->type = to.type;
    l->bytes = to.bytes;
    return SKF_OK;
}

static enum skf_err set_importance(const struct planner *p, struct skf_quantize_line *l, struct skf_why *why)
{
    const struct skf_tensor *t = l->from;
    size_t n;
    if (!p->o->imatrix || !(is_weighable(l->type) || l->is_pruned) || !is_imatrix_for(p->o->imatrix, t->name, &l->importance, &n))
        return SKF_OK;
    if (n != t->dims[0] * t->dims[2])
        return skf_fail(why, SKF_ERR_ARG, "%s: tensor '%.*s' has rows of %llu elements, the importance matrix %zu", p->name,
                        (int)SKF_MIN_NAME(strlen(t->name)), t->name, (unsigned long long)t->dims[0], n);
    return SKF_OK;
}

static enum skf_err plan_tensor(const struct planner *p, struct skf_quantize_line *l, struct skf_why *why)
{
    const struct skf_tensor *t = l->from;
    int shown = (int)SKF_MIN_NAME(strlen(t->name));
    const struct skf_quantize_kind *k = kind_for(p, t);
    if (k)
        SKF_TRY(set_type(p, l, k, why));
    l->is_pruned = p->o->prune && k && strcmp(t->name, "token_embd.weight") != 0 && strcmp(t->name, "output.weight") != 0;
    if (l->type == t->type && !l->is_row_scaled && !l->is_pruned)
        return SKF_OK;
    if (!is_dequantizable(t->type))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: tensor '%.*s' has type %s, which cannot be read; `--keep` leaves it as it is",
                        p->name, shown, t->name, skf_type_info((uint32_t)t->type)->name);
    if (t->dims[0] > ROW_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: tensor '%.*s' has rows of %llu elements, more than %d", p->name, shown, t->name,
                        (unsigned long long)t->dims[0], ROW_MAX);
    l->is_requantized = !is_float(t->type) && t->type != l->type;
    return set_importance(p, l, why);
}

static enum skf_err check_rules(const struct skf_model *m, const char *name, const struct skf_quantize_opts *o,
                                struct skf_why *why)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    for (size_t r = 0; r < o->n_rules; r++) {
        bool is_used = false;
        for (size_t i = 0; i < n && !is_used; i++)
            is_used = is_match(o->rules[r].pattern, t[i].name) && (!o->rules[r].kind || is_matrix(&t[i]));
        if (!is_used)
            return skf_fail(why, SKF_ERR_ARG, "%s: no %s is named like '%.96s'; `skiff show` lists them", name,
                            o->rules[r].kind ? "matrix" : "tensor", o->rules[r].pattern);
    }
    return SKF_OK;
}

static enum skf_err sum_up(const char *name, const struct skf_quantize_opts *o, struct skf_quantize_plan *plan,
                           struct skf_why *why)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct skf_quantize_line *l = &plan->lines[i];
        if (!is_add_ok(plan->bytes, l->bytes, &plan->bytes))
            return skf_fail(why, SKF_ERR_FORMAT, "%s: its tensors are too large", name);
        plan->n_changed += l->type != l->from->type || l->is_row_scaled || l->is_pruned;
        plan->n_fallback += l->is_fallback;
        plan->n_requantized += l->is_requantized;
        plan->n_weighed += l->importance != NULL;
    }
    if (o->imatrix && plan->n_weighed == 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: the importance matrix weighs none of what is quantized (q8_0 and plain types never are)",
                        name);
    return SKF_OK;
}

enum skf_err skf_quantize_plan(const struct skf_model *m, const char *name, const struct skf_quantize_opts *o,
                               struct skf_quantize_plan *plan, struct skf_why *why)
{
    const struct skf_gguf *g = skf_model_gguf(m);
    struct planner p = {.o = o, .name = name, .has_output = skf_model_find(m, "output.weight")};
    *plan = (struct skf_quantize_plan){0};
    if (!g)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: not a GGUF file; convert it with llama.cpp's convert_hf_to_gguf.py first",
                        name);
    uint64_t shards;
    if (is_gguf_u64(g, "split.count", &shards) && shards > 1)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: one of %llu parts of a model; join them with llama.cpp's llama-gguf-split first",
                        name, (unsigned long long)shards);
    SKF_TRY(check_rules(m, name, o, why));
    plan->lines = skf_calloc(g->n_tensors, sizeof *plan->lines);
    if (!plan->lines)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", name);
    plan->n = g->n_tensors;
    for (uint64_t i = 0; i < g->n_tensors; i++)
        p.layers = SKF_MAX(p.layers, layer_of(g->tensors[i].name) + 1);
    enum skf_err e = SKF_OK;
    for (uint64_t i = 0; e == SKF_OK && i < g->n_tensors; i++) {
        struct skf_quantize_line *l = &plan->lines[i];
        *l = (struct skf_quantize_line){.from = &g->tensors[i], .type = g->tensors[i].type, .bytes = g->tensors[i].bytes};
        e = plan_tensor(&p, l, why);
    }
    if (e == SKF_OK)
        e = sum_up(name, o, plan, why);
    if (e != SKF_OK)
        skf_quantize_plan_free(plan);
    return e;
}

void skf_quantize_plan_free(struct skf_quantize_plan *p)
{
    skf_free(p->lines);
    *p = (struct skf_quantize_plan){0};
}
