/*
 * Adapters at run time: near the merged model, the same to the bit whatever the batch, threads and instruction set; what one adapter computed is not
 * taken by another; loading, unloading under way, and what is refused.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/merge.h"
#include "runtime/engine.h"
#include "runtime/lora_priv.h"
#include "tests/unit/runtime_tiny.h"

/* ---- an adapter of the tiny model ---------------------------------------------------------------------------------------------------------- */
struct made {
    uint32_t rank, seed;
    const char *only;  /* one tensor alone; NULL: q, v, output, gate and down of each layer */
    const char *arch;
    uint32_t wide;     /* columns too many */
    float odd;         /* a number that stands somewhere */
};
struct made_tensor {
    char name[80];
    uint32_t cols, rows;
};
static size_t list_made(const struct made *x, struct made_tensor *out)
{
    static const struct {
        const char *name;
        uint32_t cols, rows;
    } mats[] = {{"attn_q", TINY_EMBD, TINY_EMBD}, {"attn_v", TINY_EMBD, TINY_EMBD / 2}, {"attn_output", TINY_EMBD, TINY_EMBD},
                {"ffn_gate", TINY_EMBD, TINY_FF}, {"ffn_down", TINY_FF, TINY_EMBD}};
    size_t n = 0;
    for (int l = 0; l < TINY_LAYERS && !x->only; l++)
        for (size_t i = 0; i < SKF_COUNT(mats); i++) {
            out[n] = (struct made_tensor){"", mats[i].cols + x->wide, x->rank};
            (void)snprintf(out[n++].name, 80, "blk.%d.%s.weight.lora_a", l, mats[i].name);
            out[n] = (struct made_tensor){"", x->rank, mats[i].rows};
            (void)snprintf(out[n++].name, 80, "blk.%d.%s.weight.lora_b", l, mats[i].name);
        }
    if (x->only) {
        bool is_embd = strcmp(x->only, "token_embd.weight") == 0;
        out[n] = (struct made_tensor){"", is_embd ? x->rank : TINY_EMBD, is_embd ? TINY_VOCAB : x->rank};
        (void)snprintf(out[n++].name, 80, "%s.lora_a", x->only);
        out[n] = (struct made_tensor){"", x->rank, TINY_EMBD};
        (void)snprintf(out[n++].name, 80, "%s.lora_b", x->only);
    }
    return n;
}
static const char *adapter(char path[256], const char *name, const struct made *x)
{
    struct skf_gguf_out *w = NULL;
    struct made_tensor t[64];
    size_t n = list_made(x, t);
    uint64_t seed = x->seed;
    assert_int_equal(skf_gguf_out_new(32, &w), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "general.architecture", x->arch ? x->arch : "llama"), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "general.type", "adapter"), SKF_OK);
    assert_int_equal(skf_gguf_out_str(w, "adapter.type", "lora"), SKF_OK);
    assert_int_equal(tiny_f32(w, "adapter.lora.alpha", 2.0f * (float)x->rank), SKF_OK);
    for (size_t i = 0; i < n; i++) {
        struct skf_tensor y = {.name = t[i].name, .type = SKF_T_F32, .n_dims = 2, .dims = {t[i].cols, t[i].rows, 1, 1, 1, 1, 1, 1}};
        y.row_bytes = (uint64_t)t[i].cols * 4;
        y.bytes = y.row_bytes * t[i].rows;
        assert_int_equal(skf_gguf_out_tensor(w, &y), SKF_OK);
    }
    assert_int_equal(skf_gguf_out_begin(w, tiny_path(path, name), NULL), SKF_OK);
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < t[i].cols * t[i].rows; k++) {
            float f = ((float)tiny_next(&seed) / 2147483648.0f - 1.0f) * 0.1f;
            if (x->odd != 0 && i == 1 && k == 3)
                f = x->odd;
            assert_int_equal(skf_gguf_out_data(w, &f, sizeof f, NULL), SKF_OK);
        }
    assert_int_equal(skf_gguf_out_commit(w, NULL), SKF_OK);
    skf_gguf_out_free(w);
    return path;
}

/* ---- engines ------------------------------------------------------------------------------------------------------------------------------ */
struct opened {
    struct skf_model *m;
    struct skf_engine *e;
};
static void open_path(struct opened *o, const char *path, unsigned threads, int speculate)
{
    struct skf_why why = {{0}};
    assert_int_equal(skf_model_open(path, &o->m, &why), SKF_OK);
    if (skf_engine_open(o->m, &(struct skf_engine_opts){.threads = threads, .slots = 3, .speculate = speculate}, &o->e, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void open_tiny(struct opened *o, enum skf_type type, unsigned threads, int speculate)
{
    char path[256];
    assert_int_equal(tiny_write(tiny_path(path, "lora-base"), &(struct tiny){.type = type}), SKF_OK);
    open_path(o, path, threads, speculate);
    (void)unlink(path);
}
static void close_it(struct opened *o)
{
    skf_engine_close(o->e);
    skf_model_close(o->m);
}
static void add(struct opened *o, const char *name, const struct made *x)
{
    char path[256];
    struct skf_why why = {{0}};
    if (skf_engine_adapter_add(o->e, name, adapter(path, "lora", x), &why) != SKF_OK)
        fail_msg("%s", why.text);
    (void)unlink(path);
}

enum { N_IDS = 90 };
static void some_ids(int32_t *ids)
{
    uint64_t seed = 11;
    for (int i = 0; i < N_IDS; i++)
        ids[i] = (int32_t)(tiny_next(&seed) % TINY_VOCAB);
}
static void score(struct skf_engine *e, const char *name, double *out)
{
    int32_t ids[N_IDS];
    some_ids(ids);
    assert_int_equal(skf_engine_evaluate_with(e, name, NULL), SKF_OK);
    assert_int_equal(skf_engine_logprobs(e, ids, N_IDS, out, NULL), SKF_OK);
}

static const struct made first = {.rank = 4, .seed = 1}, second = {.rank = 17, .seed = 2};

static void test_near_the_merged_model(void **state)
{
    char base[256], lora[256], merged[256];
    double plain[N_IDS], with[N_IDS], want[N_IDS];
    struct skf_merge_stats stats;
    struct opened o;
    assert_int_equal(tiny_write(tiny_path(base, "lora-b"), &(struct tiny){.type = SKF_T_F32}), SKF_OK);
    (void)adapter(lora, "lora-a", &second);
    assert_int_equal(skf_merge(base, lora, tiny_path(merged, "lora-m"), 1, NULL, &stats, NULL), SKF_OK);
    assert_int_equal(stats.tensors_merged, 10);
    open_path(&o, merged, 1, -1);
    score(o.e, NULL, want);
    close_it(&o);
    open_path(&o, base, 1, -1);
    assert_int_equal(skf_engine_adapter_add(o.e, "x", lora, NULL), SKF_OK);
    score(o.e, NULL, plain);
    score(o.e, "x", with);
    double far = 0, near = 0;
    for (int i = 0; i < N_IDS - 1; i++) {
        far = fmax(far, fabs(plain[i] - want[i]));
        near = fmax(near, fabs(with[i] - want[i]));
    }
    assert_true(far > 0.1 && near < 1e-3 && near > 0);
    close_it(&o);
    (void)unlink(base);
    (void)unlink(lora);
    (void)unlink(merged);
}

static void test_same_numbers_everywhere(void **state)
{
    static const char *const isas[] = {"ref", "avx2", "avx512", "neon"};
    static const enum skf_type types[] = {SKF_T_Q4_1, SKF_T_BF16};
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        double want[N_IDS], got[N_IDS], plain[N_IDS];
        int runs = 0;
        for (size_t i = 0; i < SKF_COUNT(isas); i++)
            for (unsigned threads = 1; threads <= 3; threads += 2) {
                enum skf_isa isa;
                struct opened o;
                setenv("SKF_CPU", isas[i], 1);
                if (skf_isa_pick(&isa, NULL) != SKF_OK)
                    continue;
                open_tiny(&o, types[k], threads, -1);
                add(&o, "a", &second);
                score(o.e, "a", runs++ ? got : want);
                if (runs > 1)
                    assert_memory_equal(got, want, (N_IDS - 1) * sizeof *got);
                score(o.e, "", plain);
                assert_memory_not_equal(plain, want, (N_IDS - 1) * sizeof *got);
                close_it(&o);
            }
        unsetenv("SKF_CPU");
        assert_true(runs >= 2);
    }
}

/* ---- generations --------------------------------------------------------------------------------------------------------------------------- */
struct said {
    int32_t ids[128];
    size_t n;
    char reason[16];
    struct skf_finish f;
    bool is_done;
    struct skf_engine *take_from; /* takes the adapter's name away after three tokens */
};
static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct said *a = ctx;
    assert_true(a->n < SKF_COUNT(a->ids));
    a->ids[a->n++] = id;
    if (a->take_from && a->n == 3)
        assert_int_equal(skf_engine_adapter_remove(a->take_from, "first", NULL), SKF_OK);
}
static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct said *a = ctx;
    a->f = *f;
    a->is_done = true;
    (void)snprintf(a->reason, sizeof a->reason, "%s", f->reason);
}
static void ask(struct skf_engine *e, int i, const char *name, struct said *a)
{
    int32_t ids[100];
    int n = 60 + i / 3;
    struct skf_why why = {{0}};
    for (int k = 0; k < n; k++)
        ids[k] = 40 + k % 9;
    const struct skf_sampling s = {.temperature = i % 2 ? 0.9f : 0, .seed = (uint64_t)i, .max_tokens = 40, .adapter = name};
    struct skf_engine *take_from = a->take_from;
    *a = (struct said){.take_from = take_from};
    if (skf_engine_submit(e, ids, (size_t)n, &s, &(struct skf_gen_events){on_token, on_finish}, a, NULL, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void run_all(struct skf_engine *e)
{
    bool is_busy = true;
    while (is_busy)
        assert_int_equal(skf_engine_step(e, &is_busy, NULL), SKF_OK);
}
static void assert_same(const struct said *a, const struct said *b)
{
    assert_true(a->is_done && b->is_done && a->n > 0);
    assert_string_equal(a->reason, b->reason);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
}

/* Nine generations with three different adapters (or none), in one batch, from kept pages and with guesses, as each would be alone. */
static void test_batch_and_cache_change_nothing(void **state)
{
    static const char *const names[] = {NULL, "first", "second"};
    static struct said alone[9], together[9];
    struct opened o;
    for (int i = 0; i < 9; i++) { /* an engine each: nothing is kept */
        open_tiny(&o, SKF_T_Q4_1, 1, -1);
        add(&o, "first", &first);
        add(&o, "second", &second);
        ask(o.e, i, names[i % 3], &alone[i]);
        run_all(o.e);
        close_it(&o);
    }
    assert_true(alone[0].n != alone[1].n || memcmp(alone[0].ids, alone[1].ids, alone[0].n * sizeof(int32_t)) != 0);
    open_tiny(&o, SKF_T_Q4_1, 2, 16);
    add(&o, "second", &second);
    add(&o, "first", &first);
    for (int round = 0; round < 2; round++) {
        unsigned cached = 0;
        for (int i = 0; i < 9; i++)
            ask(o.e, i, names[i % 3], &together[i]);
        run_all(o.e);
        for (int i = 0; i < 9; i++) {
            assert_same(&alone[i], &together[i]);
            cached += together[i].f.cached_tokens;
        }
        assert_true(round == 0 || cached > 9 * 32);
    }
    close_it(&o);
}

static void test_unloading_under_way(void **state)
{
    static struct said want, a, b;
    struct opened o;
    struct skf_why why = {{0}};
    char names[4][SKF_ADAPTER_NAME];
    const int32_t ids[] = {1, 2};
    open_tiny(&o, SKF_T_Q8_0, 1, 0);
    add(&o, "first", &first);
    add(&o, "2nd.x", &second);
    assert_int_equal(skf_engine_adapters(o.e, names, 4), 2);
    assert_string_equal(names[0], "first");
    ask(o.e, 0, "first", &want);
    run_all(o.e);
    a.take_from = o.e;
    ask(o.e, 0, "first", &a);
    ask(o.e, 0, "first", &b);
    run_all(o.e);
    assert_same(&want, &a);
    assert_same(&want, &b);
    assert_int_equal(skf_engine_adapters(o.e, names, 4), 1);
    const struct skf_sampling s = {.adapter = "first"};
    assert_int_equal(skf_engine_submit(o.e, ids, 2, &s, &(struct skf_gen_events){on_token, on_finish}, &a, NULL, &why), SKF_ERR_NOT_FOUND);
    assert_non_null(strstr(why.text, "first"));
    assert_int_equal(skf_engine_adapter_remove(o.e, "first", &why), SKF_ERR_NOT_FOUND);
    add(&o, "first", &second); /* another one of that name: nothing of the old one's is taken */
    memset(&a, 0, sizeof a);
    ask(o.e, 0, "first", &a);
    ask(o.e, 0, "2nd.x", &b);
    run_all(o.e);
    assert_same(&a, &b);
    assert_true(a.n != want.n || memcmp(a.ids, want.ids, a.n * sizeof a.ids[0]) != 0);
    close_it(&o);
}

static void test_refused_by_name(void **state)
{
    static const struct {
        struct made x;
        enum skf_err err;
        const char *word;
    } bad[] = {{{.rank = 4, .wide = 32}, SKF_ERR_ARG, "shape"},
               {{.rank = 4, .arch = "gemma3"}, SKF_ERR_ARG, "architecture"},
               {{.rank = 4, .only = "blk.9.attn_q.weight"}, SKF_ERR_ARG, "blk.9.attn_q"},
               {{.rank = 4, .only = "token_embd.weight"}, SKF_ERR_UNSUPPORTED, "merge"},
               {{.rank = 257}, SKF_ERR_LIMIT, "rank"},
               {{.rank = 4, .odd = INFINITY}, SKF_ERR_FORMAT, "finite"}};
    struct opened o;
    struct skf_why why = {{0}};
    char path[256], other[256];
    open_tiny(&o, SKF_T_F16, 1, 0);
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        assert_int_equal(skf_engine_adapter_add(o.e, "x", adapter(path, "bad", &bad[i].x), &why), bad[i].err);
        assert_non_null(strstr(why.text, bad[i].word));
        assert_non_null(strstr(why.text, path));
    }
    (void)adapter(path, "bad", &first);
    static const char *const names[] = {"", "a b", "a:b", "a/b", "\xc3\xa9"};
    for (size_t i = 0; i < SKF_COUNT(names); i++)
        assert_int_equal(skf_engine_adapter_add(o.e, names[i], path, &why), SKF_ERR_ARG);
    assert_int_equal(skf_engine_adapter_add(o.e, "x", path, &why), SKF_OK);
    assert_int_equal(skf_engine_adapter_add(o.e, "x", path, &why), SKF_ERR_EXISTS);
    assert_int_equal(tiny_write(tiny_path(other, "no-lora"), &(struct tiny){.type = SKF_T_F16}), SKF_OK);
    assert_int_equal(skf_engine_adapter_add(o.e, "y", other, &why), SKF_ERR_FORMAT);
    assert_int_equal(truncate(path, 3000), 0);
    assert_true(skf_engine_adapter_add(o.e, "y", path, &why) != SKF_OK);
    (void)unlink(path);
    (void)unlink(other);
    assert_int_equal(skf_engine_adapter_add(o.e, "y", path, &why), SKF_ERR_NOT_FOUND);
    close_it(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near_the_merged_model),          cmocka_unit_test(test_same_numbers_everywhere),
        cmocka_unit_test(test_batch_and_cache_change_nothing), cmocka_unit_test(test_unloading_under_way),
        cmocka_unit_test(test_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
