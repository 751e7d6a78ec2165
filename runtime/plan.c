/* Buffers and their places (plan.h). */
#include "runtime/plan_priv.h"

#include "runtime/tokenizer_priv.h"

#define ALIGN 64u
#define BIT(id) (1u << SKF_PLAN_##id)

/* In the order of graph.c. */
static const struct skf_plan_op ops[] = {
    {"embed", false, 0, BIT(X)},
    {"attn_norm", true, BIT(X), BIT(NORMED) | BIT(ACTS)},
    {"attn_q, attn_k, attn_v", true, BIT(NORMED) | BIT(ACTS), BIT(Q) | BIT(K) | BIT(V)},
    {"rope, store", true, BIT(Q) | BIT(K) | BIT(V), BIT(Q) | BIT(K)},
    {"attention", true, BIT(Q), BIT(HEADS)},
    {"quantize", true, BIT(HEADS), BIT(ACTS)},
    {"attn_output", true, BIT(HEADS) | BIT(ACTS), BIT(OUT)},
    {"add", true, BIT(X) | BIT(OUT), BIT(X)},
    {"ffn_norm", true, BIT(X), BIT(NORMED) | BIT(ACTS)},
    {"ffn_gate, ffn_up", true, BIT(NORMED) | BIT(ACTS), BIT(GATE) | BIT(UP)},
    {"activation", true, BIT(GATE) | BIT(UP), BIT(GATE)},
    {"quantize", true, BIT(GATE), BIT(ACTS)},
    {"ffn_down", true, BIT(GATE) | BIT(ACTS), BIT(OUT)},
    {"add", true, BIT(X) | BIT(OUT), BIT(X)},
    {"output_norm", false, BIT(X), BIT(NORMED) | BIT(ACTS)},
    {"output", false, BIT(NORMED) | BIT(ACTS), 0},
};
_Static_assert(SKF_COUNT(ops) <= 32, "a bit an operator");

/* A buffer lives from where it is made anew to the last operator that needs it before it is made anew again. */
static uint32_t lifetime(uint32_t id)
{
    const uint32_t bit = 1u << id;
    uint32_t live = 0, made = 0;
    for (uint32_t i = 0; i < SKF_COUNT(ops); i++) {
        if (ops[i].writes & bit && !(ops[i].reads & bit)) {
            made = i;
            live |= 1u << i;
        }
        for (uint32_t k = made; ops[i].reads & bit && k <= i; k++)
            live |= 1u << k;
    }
    return live;
}

/* The lowest place where a buffer meets none that is placed and lives with it. */
static uint64_t lowest(const struct skf_plan *p, const struct skf_plan_buf *b, uint32_t placed)
{
    uint64_t at = 0;
    for (bool is_moved = true; is_moved;) {
        is_moved = false;
        for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++) {
            const struct skf_plan_buf *o = &p->buf[i];
            if (placed >> i & 1 && o->live & b->live && at < o->at + o->bytes && o->at < at + b->bytes) {
                at = o->at + o->bytes;
                is_moved = true;
            }
        }
    }
    return at;
}

static void place(struct skf_plan *p)
{
    p->bytes = p->bytes_apart = 0;
    for (uint32_t placed = 0; placed != (1u << SKF_PLAN_BUFS) - 1;) {
        uint32_t next = SKF_PLAN_BUFS;
        for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++)
            if (!(placed >> i & 1) && (next == SKF_PLAN_BUFS || p->buf[i].bytes > p->buf[next].bytes))
                next = i;
        struct skf_plan_buf *b = &p->buf[next];
        b->at = lowest(p, b, placed);
        placed |= 1u << next;
        p->bytes = SKF_MAX(p->bytes, b->at + b->bytes);
        p->bytes_apart += b->bytes;
    }
}

static uint64_t rounded(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

/* Blocks of the widest input of a product. */
static uint64_t blocks_of(const struct skf_llama *l, uint32_t tokens)
{
    uint64_t widest = SKF_MAX(SKF_MAX(l->n_embd, l->n_ff), (uint64_t)l->n_head * l->head_dim);
    return (widest / SKF_QBLOCK + 1) * tokens;
}

enum skf_err skf_plan_make(const struct skf_llama *l, uint32_t tokens, struct skf_plan *p, struct skf_why *why)
{
    const uint64_t q = (uint64_t)l->n_head * l->head_dim, kv = (uint64_t)l->n_kv * l->head_dim, blocks = blocks_of(l, tokens);
    const struct {
        const char *name;
        uint64_t width; /* floats a token */
    } all[SKF_PLAN_BUFS] = {{"x", l->n_embd}, {"normed", l->n_embd}, {"acts", 0},          {"q", q},          {"k", kv},
                            {"v", kv},        {"heads", q},          {"out", l->n_embd}, {"gate", l->n_ff}, {"up", l->n_ff}};
    *p = (struct skf_plan){.tokens = tokens, .layers = l->n_layers, .n_ops = SKF_COUNT(ops), .ops = ops};
    for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++) {
        uint64_t n;
        if (__builtin_mul_overflow(all[i].width, (uint64_t)tokens * sizeof(float), &n) || n > SIZE_MAX / 64 || blocks > SIZE_MAX / 64 / 64)
            return skf_fail(why, SKF_ERR_LIMIT, "%u tokens of such a model at once cannot be computed", tokens);
        p->buf[i] = (struct skf_plan_buf){.name = all[i].name, .bytes = rounded(n), .live = lifetime(i)};
    }
    p->buf[SKF_PLAN_ACTS].bytes = rounded(blocks * SKF_QBLOCK) + 4 * rounded(blocks * sizeof(float));
    place(p);
    return SKF_OK;
}

void skf_plan_acts(const struct skf_plan *p, const struct skf_llama *l, uint8_t *arena, struct skf_acts *a)
{
    const uint64_t blocks = blocks_of(l, p->tokens), step = rounded(blocks * sizeof(float));
    uint8_t *at = arena + p->buf[SKF_PLAN_ACTS].at, *heads = at + rounded(blocks * SKF_QBLOCK);
    a->q = (int8_t *)at;
    a->d = (float *)(void *)heads;
    a->s = (float *)(void *)(heads + step);
    a->sum = (int32_t *)(void *)(heads + 2 * step);
    a->low = (int32_t *)(void *)(heads + 3 * step);
}

enum skf_err skf_plan_of_model(const struct skf_model *m, uint32_t tokens, struct skf_plan *p, struct skf_why *why)
{
    const struct skf_gguf *g = skf_model_gguf(m);
    struct skf_tokenizer *tk = NULL;
    struct skf_llama *l = NULL;
    if (!g)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "only GGUF models can be run, this is %s", skf_format_name(skf_model_format(m)));
    SKF_TRY(skf_tokenizer_load(g, &tk, why));
    enum skf_err e = skf_llama_load(m, skf_tokenizer_size(tk), &l, why);
    if (e == SKF_OK)
        e = skf_plan_make(l, tokens, p, why);
    skf_llama_free(l);
    skf_tokenizer_free(tk);
    return e;
}
