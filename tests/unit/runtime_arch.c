/*
 * runtime/: architectures.  Without arguments: what a file may not say, and that rows of a fused tensor are those of whole ones.
 * `runtime_arch logits MODEL CONTEXT ID...` writes every logit of the tokens to stdout as float32, for tests/cli/arch.py and
 * tools/check_transformers.py; `runtime_arch pieces PRE` the lengths of the pieces of texts on stdin, for tests/cli/pretokenize.py.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "runtime/engine_priv.h"
#include "runtime/tokenizer_priv.h"

/* ---- every logit --------------------------------------------------------------------------------------------------------------------- */
enum { PORTION = 7, MOST_IDS = 4096 };

static enum skf_err logits(struct skf_engine *e, const int32_t *ids, uint32_t n, float *out, struct skf_why *why)
{
    struct skf_kv kv = {0};
    SKF_TRY(skf_kv_private(e->pages, &kv, why));
    enum skf_err err = SKF_OK;
    for (uint32_t from = 0; err == SKF_OK && from < n; from += PORTION) {
        struct skf_item items[PORTION];
        uint32_t want[PORTION], m = SKF_MIN(n - from, PORTION);
        for (uint32_t i = 0; err == SKF_OK && i < m; i++) {
            items[i] = (struct skf_item){ids[from + i], from + i, &kv, NULL};
            want[i] = i;
            err = skf_kv_place(&kv, from + i, ids[from + i], why);
        }
        if (err == SKF_OK)
            err = skf_graph_run(e->graph, items, m, want, m, out + (size_t)from * e->llama->n_vocab, why);
    }
    skf_kv_end(&kv, 0);
    return err;
}

static int write_logits(int argc, char **argv)
{
    struct skf_model *m = NULL;
    struct skf_engine *e = NULL;
    struct skf_why why = {{0}};
    const struct skf_engine_opts opts = {.threads = 2, .slots = 1, .context = (unsigned)strtoul(argv[3], NULL, 10)};
    uint32_t n = (uint32_t)SKF_MIN(argc - 4, MOST_IDS);
    int32_t *ids = skf_calloc(n, sizeof *ids);
    float *out = NULL;
    enum skf_err err = ids ? skf_model_open(argv[2], &m, &why) : SKF_ERR_NOMEM;
    if (err == SKF_OK)
        err = skf_engine_open(m, &opts, &e, &why);
    for (uint32_t i = 0; err == SKF_OK && i < n; i++)
        ids[i] = (int32_t)strtol(argv[4 + i], NULL, 10);
    if (err == SKF_OK)
        out = skf_calloc((size_t)n * e->llama->n_vocab, sizeof *out);
    if (err == SKF_OK && out)
        err = logits(e, ids, n, out, &why);
    if (err == SKF_OK && out)
        (void)fwrite(out, sizeof *out, (size_t)n * e->llama->n_vocab, stdout);
    else
        (void)fprintf(stderr, "%s\n", why.text);
    skf_free(out);
    skf_free(ids);
    skf_engine_close(e);
    skf_model_close(m);
    return err != SKF_OK;
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------------------------- */
/* Reads u32 length and bytes of each text; writes for each the number of its pieces and the length of each, all u32 of this machine. */
static int write_pieces(const char *name)
{
    enum skf_pre pre;
    uint32_t n;
    if (!is_pre_known(name, strlen(name), &pre))
        return 1;
    while (fread(&n, sizeof n, 1, stdin) == 1) {
        char *text = skf_alloc(n + 1);
        uint32_t *len = skf_calloc(n + 1, sizeof *len);
        bool is_read = text && len && n < 1u << 20 && fread(text, 1, n, stdin) == n;
        uint32_t count = 0;
        for (size_t at = 0; is_read && at < n; at += len[count])
            len[++count] = (uint32_t)skf_pre_piece(pre, text + at, n - at);
        if (is_read) {
            len[0] = count;
            (void)fwrite(len, sizeof *len, count + 1, stdout);
        }
        skf_free(text);
        skf_free(len);
        if (!is_read)
            return 1;
    }
    return 0;
}

/* ---- how positions turn ------------------------------------------------------------------------------------------------------------- */
static void test_yarn_divides_slow_turns_alone(void **state)
{
    const struct skf_rope yarn = {.base = 10000.0, .divide = 4.0, .original = 64, .is_yarn = true, .beta_fast = 32.0, .beta_slow = 1.0};
    double f[32];
    skf_rope_freqs(&yarn, 64, 256, f);
    assert_true(f[0] == 1.0);                                                    /* ten turns over the original context */
    assert_true(fabs(f[31] - pow(10000.0, -62.0 / 64) / 4) < 1e-12);             /* hardly one */
    for (int i = 0; i < 32; i++) {
        double plain = pow(10000.0, -2.0 * i / 64);
        assert_true(f[i] <= plain && f[i] >= plain / 4 - 1e-15);
    }
}

static void test_long_factors_by_context(void **state)
{
    float small[2] = {1, 2}, big[2] = {4, 8};
    const struct skf_rope r = {.base = 100.0, .divide = 1.0, .original = 64, .factors = small, .long_factors = big};
    double f[2];
    skf_rope_freqs(&r, 4, 64, f);
    assert_true(f[0] == 1.0 && fabs(f[1] - 0.05) < 1e-12);
    assert_false(is_rope_long(&r, 64));
    assert_true(is_rope_long(&r, 65));
    skf_rope_freqs(&r, 4, 65, f);
    assert_true(f[0] == 0.25 && fabs(f[1] - 0.0125) < 1e-12);
}

/* ---- the list ------------------------------------------------------------------------------------------------------------------------ */
static void test_one_list_of_names(void **state)
{
    char all[256] = "";
    for (int i = 0; i < SKF_ARCH_COUNT; i++) {
        enum skf_arch_id id;
        const char *name = skf_arch_name((enum skf_arch_id)i);
        assert_true(is_arch_known(name, strlen(name), &id) && (int)id == i);
        size_t n = strlen(all);
        (void)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", name);
    }
    assert_string_equal(all, skf_arch_names());
    assert_false(is_arch_known("llama4", 6, NULL) || is_arch_known("llam", 4, NULL) || is_arch_known("", 0, NULL));
    for (uint32_t t = 0; t < 256; t++)
        if (skf_type_info(t))
            assert_true(is_runs_type(t) == is_ops_type((enum skf_type)t));
    assert_int_equal(skf_runs_level("llama", 5, "gpt2:smollm"), 1);
    assert_int_equal(skf_runs_level("gemma3", 6, "llama"), 1);
    assert_int_equal(skf_runs_level("llama", 5, "gpt2:llama-bpe"), 2);
    assert_int_equal(skf_runs_level("phi3", 4, ""), 2);
    assert_int_equal(skf_runs_level("mamba", 5, "t5"), 1); /* refused by name, not by number */
    assert_true(is_tokenizer_known("llama") && is_tokenizer_known("gpt2:qwen2"));
    assert_false(is_tokenizer_known("gpt2") || is_tokenizer_known("gpt2:") || is_tokenizer_known("gpt2:chameleon") || is_tokenizer_known("t5"));
}

int main(int argc, char **argv)
{
    if (argc > 4 && strcmp(argv[1], "logits") == 0)
        return write_logits(argc, argv);
    if (argc == 3 && strcmp(argv[1], "pieces") == 0)
        return write_pieces(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yarn_divides_slow_turns_alone),
        cmocka_unit_test(test_long_factors_by_context),
        cmocka_unit_test(test_one_list_of_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
