/* A small base in the types that can be merged, and an adapter for it; what stands in them is the same on every machine. */
#ifndef SKF_TESTS_LORA_MAKE_H
#define SKF_TESTS_LORA_MAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "model/model.h"

#define LORA __attribute__((unused)) static
#define lora_ok(call) assert_int_equal((call), SKF_OK)

enum { ROWS = 48, COLUMNS = 512, RANK = 8 };

/* Exact in float32: 16 signed bits times a power of two. */
LORA void lora_fill(float *x, size_t n, uint32_t seed, float scale)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = (float)((int)(seed >> 16) - 32768) * scale;
    }
}

enum { LONG = 2100 }; /* rows of a tensor of several chunks */

LORA void lora_put(struct skf_gguf_out *w, enum skf_type type, uint64_t n, uint32_t seed, float scale)
{
    const struct skf_type_info *ti = skf_type_info((uint32_t)type);
    float *x = skf_alloc(n * sizeof *x);
    uint8_t *q = skf_alloc(n * sizeof *x);
    assert_true(x && q);
    lora_fill(x, n, seed, scale);
    assert_int_equal(skf_quantize(type, x, q, n), SKF_OK);
    assert_int_equal(skf_gguf_out_data(w, q, n / ti->block * ti->block_bytes, NULL), SKF_OK);
    skf_free(q);
    skf_free(x);
}

LORA const struct {
    const char *name;
    enum skf_type type;
    uint64_t rows;
} lora_base[] = {{"blk.0.attn_q.weight", SKF_T_BF16, LONG}, {"blk.0.attn_k.weight", SKF_T_Q8_0, ROWS},
                 {"blk.0.attn_v.weight", SKF_T_Q8_0, LONG}, {"blk.0.attn_output.weight", SKF_T_F16, ROWS},
                 {"other", SKF_T_BF16, ROWS}};

LORA void lora_describe(struct skf_gguf_out *w, const char *name, const char *tail, enum skf_type type, uint64_t columns,
                        uint64_t n)
{
    char full[100];
    (void)snprintf(full, sizeof full, "%s%s", name, tail);
    struct skf_tensor t = {.name = full, .type = type, .n_dims = 2, .dims = {columns, n, 1, 1, 1, 1, 1, 1}};
    assert_int_equal(skf_gguf_out_tensor(w, &t), SKF_OK);
}

/* Both files; the adapter names the first four tensors. */
LORA void lora_files(const char *base_path, const char *lora_path)
{
    struct skf_gguf_out *w;
    lora_ok(skf_gguf_out_new(32, &w));
    lora_ok(skf_gguf_out_str(w, "general.architecture", "llama"));
    for (size_t i = 0; i < SKF_COUNT(lora_base); i++)
        lora_describe(w, lora_base[i].name, "", lora_base[i].type, COLUMNS, lora_base[i].rows);
    lora_ok(skf_gguf_out_begin(w, base_path, NULL));
    for (size_t i = 0; i < SKF_COUNT(lora_base); i++)
        lora_put(w, lora_base[i].type, lora_base[i].rows * COLUMNS, (uint32_t)i + 1, 0x1p-18f);
    lora_ok(skf_gguf_out_commit(w, NULL));
    skf_gguf_out_free(w);
    lora_ok(skf_gguf_out_new(32, &w));
    lora_ok(skf_gguf_out_str(w, "general.architecture", "llama"));
    lora_ok(skf_gguf_out_str(w, "general.type", "adapter"));
    lora_ok(skf_gguf_out_str(w, "adapter.type", "lora"));
    for (size_t i = 0; i < 4; i++) {
        lora_describe(w, lora_base[i].name, ".lora_a", SKF_T_F16, COLUMNS, RANK);
        lora_describe(w, lora_base[i].name, ".lora_b", SKF_T_F16, RANK, lora_base[i].rows);
    }
    lora_ok(skf_gguf_out_begin(w, lora_path, NULL));
    for (size_t i = 0; i < 4; i++) {
        lora_put(w, SKF_T_F16, RANK * COLUMNS, 50 + (uint32_t)i, 0x1p-20f);
        lora_put(w, SKF_T_F16, lora_base[i].rows * RANK, 60 + (uint32_t)i, 0x1p-16f);
    }
    lora_ok(skf_gguf_out_commit(w, NULL));
    skf_gguf_out_free(w);
}

#endif
