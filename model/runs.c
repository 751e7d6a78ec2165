/* The list (runs.h). */
#include "model/runs.h"

#include <stdio.h>
#include <string.h>

static const char *const names[SKF_ARCH_COUNT] = {
    [SKF_ARCH_GEMMA2] = "gemma2", [SKF_ARCH_GEMMA3] = "gemma3", [SKF_ARCH_LLAMA] = "llama",     [SKF_ARCH_PHI3] = "phi3",
    [SKF_ARCH_QWEN2] = "qwen2",   [SKF_ARCH_QWEN3] = "qwen3",   [SKF_ARCH_SMOLLM3] = "smollm3",
};

static bool is_same(const char *p, size_t n, const char *name) { return n == strlen(name) && memcmp(p, name, n) == 0; }

const char *skf_arch_name(enum skf_arch_id id) { return names[id]; }
const char *skf_arch_names(void) { return "gemma2, gemma3, llama, phi3, qwen2, qwen3, smollm3"; }

bool is_arch_known(const char *p, size_t n, enum skf_arch_id *id)
{
    for (int i = 0; i < SKF_ARCH_COUNT; i++)
        if (is_same(p, n, names[i])) {
            if (id)
                *id = (enum skf_arch_id)i;
            return true;
        }
    return false;
}

bool is_pre_known(const char *p, size_t n, enum skf_pre *pre)
{
    static const struct {
        const char *name;
        enum skf_pre pre;
    } all[] = {
        {"gpt-2", SKF_PRE_GPT2},       {"smollm", SKF_PRE_SMOLLM}, {"llama-bpe", SKF_PRE_LLAMA3}, {"llama3", SKF_PRE_LLAMA3},
        {"llama-v3", SKF_PRE_LLAMA3},  {"dbrx", SKF_PRE_CL100K},   {"smaug-bpe", SKF_PRE_CL100K}, {"qwen2", SKF_PRE_QWEN2},
        {"deepseek-r1-qwen", SKF_PRE_QWEN2},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (is_same(p, n, all[i].name)) {
            if (pre)
                *pre = all[i].pre;
            return true;
        }
    return false;
}

bool is_tokenizer_named(const struct skf_gguf *g, char out[64])
{
    struct skf_str model, pre = {0};
    if (!is_gguf_str(g, "tokenizer.ggml.model", &model) || model.n == 0)
        return false;
    bool is_cut = !is_same(model.p, model.n, "llama") && is_gguf_str(g, "tokenizer.ggml.pre", &pre) && pre.n > 0;
    if (model.n > 30 || pre.n > 30 || memchr(model.p, 0, model.n) || (is_cut && memchr(pre.p, 0, pre.n)))
        return false;
    (void)snprintf(out, 64, "%.*s%s%.*s", (int)model.n, model.p, is_cut ? ":" : "", is_cut ? (int)pre.n : 0, is_cut ? pre.p : "");
    return true;
}

bool is_tokenizer_known(const char *name)
{
    if (strcmp(name, "llama") == 0)
        return true;
    return strncmp(name, "gpt2:", 5) == 0 && is_pre_known(name + 5, strlen(name + 5), NULL);
}

uint32_t skf_runs_level(const char *architecture, size_t n, const char *tokenizer)
{
    enum skf_arch_id id;
    enum skf_pre pre;
    bool is_new = is_arch_known(architecture, n, &id) && id != SKF_ARCH_LLAMA && id != SKF_ARCH_GEMMA3;
    if (strncmp(tokenizer, "gpt2:", 5) == 0 && is_pre_known(tokenizer + 5, strlen(tokenizer + 5), &pre))
        is_new |= pre != SKF_PRE_GPT2 && pre != SKF_PRE_SMOLLM;
    return is_new ? 2 : 1;
}

bool is_runs_type(uint32_t type)
{
    switch (type) {
    case SKF_T_F32:
    case SKF_T_F16:
    case SKF_T_BF16:
    case SKF_T_Q4_0:
    case SKF_T_Q4_1:
    case SKF_T_Q5_0:
    case SKF_T_Q5_1:
    case SKF_T_Q8_0:
    case SKF_T_Q4_K:
    case SKF_T_Q5_K:
    case SKF_T_Q6_K:
        return true;
    default:
        return false;
    }
}
