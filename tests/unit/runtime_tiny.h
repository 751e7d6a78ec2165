/*
 * A tiny model for tests, of any known architecture: 2 layers of 64, every byte a token, a few merges, seeded weights.  What a test wants to be
 * wrong is said in struct tiny.
 */
#ifndef SKF_TESTS_RUNTIME_TINY_H
#define SKF_TESTS_RUNTIME_TINY_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/runs.h"

enum { TINY_EMBD = 64, TINY_HEADS = 4, TINY_KV = 2, TINY_FF = 96, TINY_LAYERS = 2, TINY_BYTES = 256 };

struct tiny {
    enum skf_type type;        /* of the matrices; the embedding is Q8_0 unless the type is a float */
    const char *arch, *pre;    /* NULL: llama, smollm */
    const char *scaling;       /* llama.rope.scaling.type */
    const char *drop, *extra;  /* a tensor left out; one too many */
    const char *merge;         /* one more merge */
    const char *tool;          /* the last token otherwise named */
    uint32_t heads, kv, vocab, layers, ff, type_of_tokens; /* 0: as they should be */
    uint32_t zeros;            /* of a hundred weights of each layer's matrices */
    uint32_t window;           /* of attention; Gemma needs one */
    float weight;              /* every norm weight, 0 for 1; NAN makes nonsense of all */
    bool is_short_types;       /* token_type with one entry too few */
    bool is_bos_added;
    bool is_scored, is_space_unasked; /* a SentencePiece tokenizer; without a space in front */
    const char *scores;        /* otherwise named */
};

/* The tokens behind the 256 bytes. */
static const char *const tiny_tokens[] = {"he", "ll", "hell", "hello", "\xc4\xa0hello", "<|im_start|>", "<|im_end|>", "<tool>"};
static const char *const tiny_merges[] = {"h e", "l l", "he ll", "hell o", "\xc4\xa0 hello"};
enum { TINY_START = TINY_BYTES + 5, TINY_END, TINY_TOOL, TINY_VOCAB };

static inline uint32_t tiny_next(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

/* Byte b as GPT-2 spells it. */
static inline size_t tiny_spell(unsigned b, char out[4])
{
    unsigned c = b, other = 256;
    for (unsigned k = 0; k < 256; k++) {
        bool is_itself = (k >= 33 && k <= 126) || (k >= 161 && k <= 172) || k >= 174;
        if (k == b)
            c = is_itself ? b : other;
        other += !is_itself;
    }
    if (c < 128) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
    return 2;
}

static inline enum skf_err tiny_str(struct skf_buf *b, const char *p, size_t n)
{
    SKF_TRY(skf_buf_u64(b, n));
    return skf_buf_put(b, p, n);
}

static inline enum skf_err tiny_array(struct skf_gguf_out *w, const char *key, enum skf_gguf_type type, const struct skf_buf *b,
                                      uint64_t count)
{
    struct skf_gguf_kv kv = {{key, strlen(key)}, {type, true, count, b->data, b->len, NULL}};
    return skf_gguf_out_kv(w, &kv);
}

static inline enum skf_err tiny_f32(struct skf_gguf_out *w, const char *key, float f)
{
    struct skf_gguf_kv kv = {{key, strlen(key)}, {SKF_GGUF_F32, false, 1, (const uint8_t *)&f, 4, NULL}};
    return skf_gguf_out_kv(w, &kv);
}

static inline enum skf_err tiny_tokenizer(struct skf_gguf_out *w, const struct tiny *t)
{
    struct skf_buf tokens = SKF_BUF_INIT(1u << 20), types = tokens, merges = tokens, scores = tokens;
    uint32_t n = TINY_VOCAB, n_merges = SKF_COUNT(tiny_merges);
    for (unsigned i = 0; i < n; i++) {
        char s[4];
        size_t len = i < TINY_BYTES ? tiny_spell(i, s) : strlen(tiny_tokens[i - TINY_BYTES]);
        uint32_t type = i == TINY_TOOL ? 4 : i >= TINY_START ? 3 : 1;
        if (t->is_scored) {
            char word[16];
            if (i < TINY_BYTES)
                (void)snprintf(word, sizeof word, "<0x%02X>", i);
            else
                (void)snprintf(word, sizeof word, "%s", i == TINY_START - 1 ? "\xe2\x96\x81hello" : tiny_tokens[i - TINY_BYTES]);
            type = i < TINY_BYTES ? 6 : type;
            SKF_TRY(tiny_str(&tokens, word, strlen(word)));
            SKF_TRY(skf_buf_u32(&scores, i < TINY_BYTES ? 0 : 0xbf800000u + (i << 12))); /* -1 and falling */
        } else {
            SKF_TRY(i == TINY_TOOL && t->tool ? tiny_str(&tokens, t->tool, strlen(t->tool)) : tiny_str(&tokens, i < TINY_BYTES ? s : tiny_tokens[i - TINY_BYTES], len));
        }
        if (i + t->is_short_types < n)
            SKF_TRY(skf_buf_u32(&types, t->type_of_tokens ? t->type_of_tokens : type));
    }
    for (unsigned i = 0; i < n_merges; i++)
        SKF_TRY(tiny_str(&merges, tiny_merges[i], strlen(tiny_merges[i])));
    if (t->merge)
        SKF_TRY(tiny_str(&merges, t->merge, strlen(t->merge)));
    SKF_TRY(skf_gguf_out_str(w, "tokenizer.ggml.model", t->is_scored ? "llama" : "gpt2"));
    if (t->is_scored)
        SKF_TRY(tiny_array(w, t->scores ? t->scores : "tokenizer.ggml.scores", SKF_GGUF_F32, &scores, n));
    if (t->is_space_unasked) {
        struct skf_gguf_kv kv = {{"tokenizer.ggml.add_space_prefix", 31}, {SKF_GGUF_BOOL, false, 1, (const uint8_t *)"\0", 1, NULL}};
        SKF_TRY(skf_gguf_out_kv(w, &kv));
    }
    SKF_TRY(skf_gguf_out_str(w, "tokenizer.ggml.pre", t->pre ? t->pre : "smollm"));
    SKF_TRY(tiny_array(w, "tokenizer.ggml.tokens", SKF_GGUF_STRING, &tokens, n));
    SKF_TRY(tiny_array(w, "tokenizer.ggml.token_type", SKF_GGUF_I32, &types, n - t->is_short_types));
    SKF_TRY(tiny_array(w, "tokenizer.ggml.merges", SKF_GGUF_STRING, &merges, n_merges + (t->merge != NULL)));
    SKF_TRY(skf_gguf_out_u32(w, "tokenizer.ggml.bos_token_id", TINY_START));
    SKF_TRY(skf_gguf_out_u32(w, "tokenizer.ggml.eos_token_id", TINY_END));
    if (t->is_bos_added) {
        struct skf_gguf_kv kv = {{"tokenizer.ggml.add_bos_token", 28}, {SKF_GGUF_BOOL, false, 1, (const uint8_t *)"\1", 1, NULL}};
        SKF_TRY(skf_gguf_out_kv(w, &kv));
    }
    skf_buf_free(&tokens);
    skf_buf_free(&types);
    skf_buf_free(&merges);
    skf_buf_free(&scores);
    return SKF_OK;
}

static inline bool is_tiny(const struct tiny *t, const char *arch) { return t->arch && strcmp(t->arch, arch) == 0; }
static inline bool is_tiny_gemma(const struct tiny *t) { return is_tiny(t, "gemma3"); }

static inline enum skf_err tiny_head(struct skf_gguf_out *w, const struct tiny *t)
{
    const char *arch = t->arch && is_arch_known(t->arch, strlen(t->arch), NULL) ? t->arch : "llama";
    const struct {
        const char *key;
        uint32_t v;
    } sizes[] = {{"block_count", t->layers ? t->layers : TINY_LAYERS},
                 {"context_length", 512},
                 {"embedding_length", TINY_EMBD},
                 {"feed_forward_length", t->ff ? t->ff : TINY_FF},
                 {"attention.head_count", t->heads ? t->heads : TINY_HEADS},
                 {"attention.head_count_kv", t->kv ? t->kv : TINY_KV},
                 {"vocab_size", t->vocab ? t->vocab : TINY_VOCAB},
                 {"attention.sliding_window", t->window}};
    char key[64];
    SKF_TRY(skf_gguf_out_str(w, "general.architecture", t->arch ? t->arch : "llama"));
    for (size_t i = 0; i < SKF_COUNT(sizes) - (t->window ? 0 : 1); i++) {
        (void)snprintf(key, sizeof key, "%s.%s", arch, sizes[i].key);
        SKF_TRY(skf_gguf_out_u32(w, key, sizes[i].v));
    }
    (void)snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    SKF_TRY(tiny_f32(w, key, 1e-5f));
    (void)snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    SKF_TRY(tiny_f32(w, key, 10000.0f));
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    if (t->scaling)
        SKF_TRY(skf_gguf_out_str(w, key, t->scaling));
    return tiny_tokenizer(w, t);
}

struct tiny_tensor {
    char name[64];
    enum skf_type type;
    uint32_t cols, rows;
};
static inline size_t tiny_list(const struct tiny *t, struct tiny_tensor *out)
{
    const struct {
        const char *name;
        uint32_t cols, rows;
    } mats[] = {{"attn_q", TINY_EMBD, TINY_EMBD}, {"attn_k", TINY_EMBD, TINY_EMBD / 2}, {"attn_v", TINY_EMBD, TINY_EMBD / 2},
                {"attn_output", TINY_EMBD, TINY_EMBD}, {"ffn_gate", TINY_EMBD, TINY_FF}, {"ffn_up", TINY_EMBD, TINY_FF},
                {"ffn_down", TINY_FF, TINY_EMBD}, {"attn_norm", TINY_EMBD, 1}, {"ffn_norm", TINY_EMBD, 1},
                /* those of some architectures only, as the bits of `which` say */
                {"attn_q_norm", TINY_EMBD / TINY_HEADS, 1}, {"attn_k_norm", TINY_EMBD / TINY_HEADS, 1},
                {"post_attention_norm", TINY_EMBD, 1}, {"post_ffw_norm", TINY_EMBD, 1},
                {"attn_q.bias", TINY_EMBD, 1}, {"attn_k.bias", TINY_EMBD / 2, 1}, {"attn_v.bias", TINY_EMBD / 2, 1},
                {"attn_qkv", TINY_EMBD, 2 * TINY_EMBD}, {"ffn_up", TINY_EMBD, 2 * TINY_FF}};
    const uint32_t which = is_tiny(t, "phi3")      ? 0x301c8
                           : is_tiny_gemma(t)      ? 0x1fff
                           : is_tiny(t, "gemma2")  ? 0x19ff
                           : is_tiny(t, "qwen3")   ? 0x7ff
                           : is_tiny(t, "qwen2")   ? 0xe1ff
                                                   : 0x1ff;
    size_t n = 0;
    bool is_float = t->type == SKF_T_F32 || t->type == SKF_T_F16 || t->type == SKF_T_BF16;
    out[n++] = (struct tiny_tensor){"token_embd.weight", is_float ? t->type : SKF_T_Q8_0, TINY_EMBD, TINY_VOCAB};
    out[n++] = (struct tiny_tensor){"output_norm.weight", SKF_T_F32, TINY_EMBD, 1};
    for (int i = 0; i < TINY_LAYERS; i++)
        for (size_t k = 0; k < SKF_COUNT(mats); k++) {
            if (!(which >> k & 1))
                continue;
            struct tiny_tensor *x = &out[n++];
            *x = (struct tiny_tensor){"", mats[k].rows == 1 ? SKF_T_F32 : t->type, mats[k].cols, mats[k].rows};
            (void)snprintf(x->name, sizeof x->name, "blk.%d.%s%s", i, mats[k].name, strchr(mats[k].name, '.') ? "" : ".weight");
        }
    for (size_t i = 0; t->drop && i < n; i++)
        if (strcmp(out[i].name, t->drop) == 0)
            out[i] = out[--n];
    if (t->extra) {
        out[n] = (struct tiny_tensor){"", SKF_T_F32, 32, 1};
        (void)snprintf(out[n++].name, 64, "%s", t->extra);
    }
    return n;
}

static inline enum skf_err tiny_data(struct skf_gguf_out *w, const struct tiny *t, const struct tiny_tensor *x)
{
    uint64_t seed = 7;
    for (const char *c = x->name; *c; c++)
        seed = seed * 31 + (unsigned char)*c;
    for (uint32_t r = 0; r < x->rows; r++) {
        float f[256];
        uint8_t q[1024];
        for (uint32_t i = 0; i < x->cols; i++) {
            f[i] = ((float)tiny_next(&seed) / 2147483648.0f - 1.0f) * (x->name[0] == 't' ? 1.0f : 0.4f);
            if (t->zeros && x->name[0] == 'b' && tiny_next(&seed) % 100 < t->zeros)
                f[i] = 0;
            if (x->rows == 1)
                f[i] = t->weight != 0 ? t->weight : 1.0f;
        }
        const struct skf_type_info *info = skf_type_info(x->type);
        uint64_t bytes = (uint64_t)x->cols / info->block * info->block_bytes;
        memset(q, 1, sizeof q); /* what stands there where we cannot quantize */
        enum skf_err e = skf_quantize(x->type, f, q, x->cols);
        if (e != SKF_OK && e != SKF_ERR_UNSUPPORTED)
            return e;
        SKF_TRY(skf_gguf_out_data(w, q, bytes, NULL));
    }
    return SKF_OK;
}

/* Writes the model to `path`. */
static inline enum skf_err tiny_write(const char *path, const struct tiny *t)
{
    struct skf_gguf_out *w = NULL;
    struct tiny_tensor list[64];
    size_t n = tiny_list(t, list);
    SKF_TRY(skf_gguf_out_new(32, &w));
    enum skf_err e = tiny_head(w, t);
    for (size_t i = 0; e == SKF_OK && i < n; i++) {
        struct skf_tensor x = {.name = list[i].name, .type = list[i].type, .n_dims = list[i].rows == 1 ? 1 : 2,
                               .dims = {list[i].cols, list[i].rows, 1, 1, 1, 1, 1, 1}};
        const struct skf_type_info *info = skf_type_info(x.type);
        x.row_bytes = (uint64_t)list[i].cols / info->block * info->block_bytes;
        x.bytes = x.row_bytes * list[i].rows;
        e = skf_gguf_out_tensor(w, &x);
    }
    if (e == SKF_OK)
        e = skf_gguf_out_begin(w, path, NULL);
    for (size_t i = 0; e == SKF_OK && i < n; i++)
        e = tiny_data(w, t, &list[i]);
    if (e == SKF_OK)
        e = skf_gguf_out_commit(w, NULL);
    skf_gguf_out_free(w);
    return e;
}

/* A scratch path; the same name gives the same path within a process. */
static inline const char *tiny_path(char out[256], const char *name)
{
    const char *dir = getenv("SKF_TMP");
    (void)snprintf(out, 256, "%s/tiny-%ld-%s.gguf", dir ? dir : "/tmp", (long)getpid(), name);
    return out;
}

#endif
