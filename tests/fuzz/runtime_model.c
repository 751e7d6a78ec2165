/*
 * A model file that lies about itself: a tiny good one with bytes overwritten, inserted or cut off, opened and run.  What is read is
 * either refused with one line, or answers with numbers, or says that they are none.
 *
 * The input is a list of changes to the good file: u8 kind (0, 1 overwrite, 2 insert, 3 cut to), u24 place, u8 value.  Its first byte
 * picks the type of the weights (bit 0), the architecture and pre-tokenizer (the others).
 */
#include "runtime/engine.h"
#include "tests/unit/runtime_tiny.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { ROOM = 1 << 20 };

static const struct tiny kinds[] = {
    {.arch = "llama"},
    {.arch = "qwen2", .pre = "qwen2"},
    {.arch = "qwen3", .pre = "llama-bpe"},
    {.arch = "smollm3", .pre = "llama-bpe"},
    {.arch = "phi3", .window = 3, .is_scored = true},
    {.arch = "gemma2", .window = 3, .is_scored = true},
    {.arch = "gemma3", .window = 3, .is_scored = true},
    {.arch = "qwen2", .pre = "gpt-2", .scaling = "yarn"},
};

static size_t good_file(uint8_t pick, uint8_t *to)
{
    static uint8_t *made[2 * SKF_COUNT(kinds)];
    static size_t made_n[2 * SKF_COUNT(kinds)];
    const size_t k = pick % SKF_COUNT(made);
    if (!made[k]) {
        char path[256];
        struct skf_model *m = NULL;
        struct tiny t = kinds[k / 2];
        t.type = k % 2 ? SKF_T_F32 : SKF_T_Q4_1;
        if (tiny_write(tiny_path(path, "fuzz"), &t) != SKF_OK || skf_model_open(path, &m, NULL) != SKF_OK)
            __builtin_trap();
        made_n[k] = skf_model_source(m)->size;
        made[k] = skf_alloc(made_n[k]);
        if (!made[k] || made_n[k] > ROOM / 2 || skf_source_read(skf_model_source(m), 0, made[k], made_n[k]) != SKF_OK)
            __builtin_trap();
        skf_model_close(m);
        (void)unlink(path);
    }
    memcpy(to, made[k], made_n[k]);
    return made_n[k];
}

static size_t change(uint8_t *file, size_t len, const uint8_t *p)
{
    size_t at = (size_t)p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16;
    if (at >= len)
        return len;
    switch (p[0] & 3) {
    case 2:
        if (len == ROOM)
            return len;
        memmove(file + at + 1, file + at, len - at);
        file[at] = p[4];
        return len + 1;
    case 3:
        return at;
    default:
        file[at] = p[4];
        return len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static uint8_t file[ROOM];
    static const char text[] = "<|im_start|>hello 12\n\xff";
    struct skf_model *m = NULL;
    struct skf_engine *e = NULL;
    struct skf_why why = {{0}};
    struct skf_engine_opts opts = {.threads = 1, .context = 64, .slots = 1};
    if (n == 0)
        return 0;
    size_t len = good_file(p[0], file);
    for (size_t i = 1; i + 5 <= n && i < 5 * 64; i += 5)
        len = change(file, len, p + i);
    struct skf_source src = skf_source_of(file, len);
    enum skf_err err = skf_model_open_source(&src, "fuzz", &m, &why);
    if (err == SKF_OK)
        err = skf_engine_open(m, &opts, &e, &why);
    if (err == SKF_OK) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        if (skf_engine_tokenize(e, text, sizeof text, true, &ids, &n_ids, &why) != SKF_OK)
            __builtin_trap();
        skf_free(ids);
        err = skf_engine_check(e, &why);
    }
    if ((err != SKF_OK) != (why.text[0] != 0))
        __builtin_trap();
    skf_engine_close(e);
    skf_model_close(m);
    return 0;
}
