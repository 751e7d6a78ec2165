/*
 * Which tensor becomes what, thresholds of pruning against sorting, importance gathered and read; the writing of whole files is
 * tests/cli/quantize.py's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/quantize.h"
#include "tests/lib/gguf_make.h"

static const struct {
    const char *name;
    uint64_t columns, rows;
} files[] = {
    {"token_embd.weight", 256, 8},      {"blk.0.attn_norm.weight", 256, 0}, {"blk.0.attn_v.weight", 256, 4},
    {"blk.0.ffn_down.weight", 64, 4},   {"blk.0.ffn_gate_inp.weight", 32, 4}, {"blk.0.attn_q.bias", 32, 4},
    {"blk.0.attn_output.weight", 30, 4},
};

/* F32 tensors of the names above. */
static void put_model(struct skf_buf *b)
{
    uint64_t at = 0;
    put_head(b, 3, SKF_COUNT(files), 1);
    put_text(b, "general.file_type");
    put_u32(b, SKF_GGUF_U32);
    put_u32(b, 0);
    for (size_t i = 0; i < SKF_COUNT(files); i++) {
        put_tensor(b, files[i].name, files[i].columns, files[i].rows, SKF_T_F32, at);
        at += (4 * files[i].columns * (files[i].rows ? files[i].rows : 1) + 31) / 32 * 32;
    }
    put_pad(b, 32);
    for (uint64_t i = 0; i < at / 4; i++)
        put_u32(b, 0x3F000000 + ((uint32_t)i * 2654435761u >> 9)); /* 0.5 to 1 */
}

struct fixture {
    struct skf_buf b;
    struct skf_source src;
    struct skf_model *m;
};

static void open_model(struct fixture *f)
{
    f->b = SKF_BUF_INIT(1 << 20);
    put_model(&f->b);
    f->src = skf_source_of(f->b.data, f->b.len);
    assert_int_equal(skf_model_open_source(&f->src, "in", &f->m, NULL), SKF_OK);
}

static void close_model(struct fixture *f)
{
    skf_model_close(f->m);
    skf_buf_free(&f->b);
}

static enum skf_type type_in(const struct skf_quantize_plan *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->lines[i].from->name, name) == 0)
            return p->lines[i].type;
    return SKF_T_BOOL;
}

static void matrices_become_it(void **state)
{
    struct fixture f;
    struct skf_quantize_plan p;
    struct skf_why why = {{0}};
    open_model(&f);
    struct skf_quantize_opts o = {.kind = skf_quantize_kind("Q4_K")};
    assert_int_equal(skf_quantize_plan(f.m, "in", &o, &p, &why), SKF_OK);
    assert_int_equal(type_in(&p, "token_embd.weight"), SKF_T_Q6_K); /* the output, since there is no other */
    assert_int_equal(type_in(&p, "blk.0.attn_norm.weight"), SKF_T_F32);
    assert_int_equal(type_in(&p, "blk.0.attn_v.weight"), SKF_T_Q4_K);
    assert_int_equal(type_in(&p, "blk.0.ffn_down.weight"), SKF_T_Q5_0); /* 64 columns */
    assert_int_equal(type_in(&p, "blk.0.ffn_gate_inp.weight"), SKF_T_F32);
    assert_int_equal(type_in(&p, "blk.0.attn_q.bias"), SKF_T_F32);
    assert_int_equal(type_in(&p, "blk.0.attn_output.weight"), SKF_T_F16); /* 30 columns are no blocks at all */
    assert_true(p.n_fallback == 2 && p.n_changed == 4 && p.n_requantized == 0);
    assert_int_equal(p.bytes, 8 * 210 + 4 * 256 + 4 * 144 + 4 * 44 + 4 * 4 * 32 * 2 + 2 * 30 * 4);
    skf_quantize_plan_free(&p);
    assert_null(skf_quantize_kind("iq1_s"));
    assert_null(skf_quantize_kind("q4"));
    close_model(&f);
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern;
        bool is_match;
    } cases[] = {
        {"*", true}, {"blk.0.attn_v.weight", true}, {"blk.?.attn_v.*", true}, {"*attn_v*", true}, {"*v.w*t", true}, {"b*.*.*", true},
        {"blk.0.attn_v.weight?", false}, {"attn_v", false}, {"*attn_x*", false}, {"", false}, {"blk.0.attn_v.weigh", false},
        {"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*z", false},
    };
    struct fixture f;
    struct skf_quantize_plan p;
    open_model(&f);
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        struct skf_quantize_rule rules[] = {{"*", NULL}, {cases[i].pattern, skf_quantize_kind("bf16")}};
        struct skf_quantize_opts o = {.kind = skf_quantize_kind("q4_0"), .rules = rules, .n_rules = 2};
        enum skf_err e = skf_quantize_plan(f.m, "in", &o, &p, NULL);
        if (cases[i].is_match)
            assert_int_equal(type_in(&p, "blk.0.attn_v.weight"), SKF_T_BF16);
        else
            assert_true(e == SKF_ERR_ARG || type_in(&p, "blk.0.attn_v.weight") == SKF_T_F32);
        skf_quantize_plan_free(&p);
    }
    close_model(&f);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    x = x < 0 ? -x : x;
    y = y < 0 ? -y : y;
    return x < y ? -1 : x > y;
}

static void threshold_is_what_sorting_gives(void **state)
{
    enum { N = 5000 };
    float x[N], sorted[N], all_same[4] = {2, -2, 2, -2};
    uint32_t s = 7;
    for (int i = 0; i < N; i++) {
        s = s * 1664525 + 1013904223;
        x[i] = ((float)(s >> 8) - 8388608.0f) * (i % 3 ? 0x1p-20f : 0x1p-60f);
        if (i % 11 == 0)
            x[i] = i % 2 ? 0.25f : -0.0f;
    }
    memcpy(sorted, x, sizeof x);
    qsort(sorted, N, sizeof *sorted, by_size);
    for (uint64_t rank = 1; rank <= N; rank += rank < 4 ? 1 : 311) {
        struct skf_prune_search search = {.rank = rank};
        while (search.pass < SKF_PRUNE_PASSES) {
            uint64_t bins[SKF_PRUNE_BINS] = {0};
            skf_prune_count(&search, x, N, bins);
            skf_prune_step(&search, bins);
        }
        float want = sorted[rank - 1];
        assert_true(skf_prune_found(&search) == (want < 0 ? -want : want));
    }
    assert_int_equal(skf_prune_small(all_same, all_same, 4, 1.9f), 0);
    assert_int_equal(skf_prune_small(all_same, all_same, 4, 2.0f), 4);
}

static void groups_keep_their_largest(void **state)
{
    float x[] = {1, -5, 3, 2, 4, 4, -4, 4, 0, 0, 7, 0, 9, 8};
    const float want[] = {0, -5, 3, 0, 4, 4, 0, 0, 0, 0, 7, 0, 9, 8};
    struct skf_prune p = {.keep = 2, .of = 4};
    assert_int_equal(skf_prune_groups(x, x, 14, &p), 7);
    assert_memory_equal(x, want, sizeof want);
    float y[] = {1, 1, 1, 1}, score[] = {1, 4, 3, 2}, none[] = {1, 2, 3, 4};
    assert_int_equal(skf_prune_groups(y, score, 4, &p), 2);
    assert_true(y[0] == 0 && y[1] == 1 && y[2] == 1 && y[3] == 0);
    p.keep = 0;
    assert_int_equal(skf_prune_groups(none, none, 4, &p), 4);
}

static void importance_is_the_mean_square(void **state)
{
    struct skf_imatrix *im;
    const float x[6] = {1, -2, 3, 2, 0, 1}, *v;
    size_t n;
    assert_int_equal(skf_imatrix_new(&im), SKF_OK);
    assert_int_equal(skf_imatrix_add(im, "w", x, 2, 3), SKF_OK);
    assert_int_equal(skf_imatrix_add(im, "w", x, 1, 3), SKF_OK);
    assert_int_equal(skf_imatrix_add(im, "w", x, 3, 2), SKF_ERR_ARG);
    assert_true(is_imatrix_for(im, "w", &v, &n) && n == 3 && v[0] == 2 && v[1] > 2.66f && v[1] < 2.67f && v[2] > 6.33f && v[2] < 6.34f);
    assert_false(is_imatrix_for(im, "v", &v, &n));
    assert_int_equal(skf_imatrix_count(im), 1);
    skf_imatrix_close(im);
}

/* What was on its way when the disk was full or somebody asked to stop leaves nothing. */
static enum skf_err write_to(const struct fixture *f, const char *path, const struct skf_progress *progress)
{
    struct skf_prune half = {.share = 0.5};
    struct skf_quantize_opts o = {.kind = skf_quantize_kind("q4_0"), .prune = &half, .jobs = 2, .progress = progress};
    struct skf_quantize_plan p;
    struct skf_quantize_stats stats;
    struct skf_why why = {{0}};
    enum skf_err e = skf_quantize_plan(f->m, "in", &o, &p, &why);
    if (e == SKF_OK)
        e = skf_quantize_write(f->m, "in", &p, &o, path, &stats, &why);
    assert_true(e == SKF_OK || why.text[0]);
    skf_quantize_plan_free(&p);
    return e;
}

static int full_at;

static int disk_is_full(void *ctx, const char *step, const char *path)
{
    return strcmp(step, "write") == 0 && --full_at == 0 ? 28 /* ENOSPC */ : 0;
}

static void whole_or_not_at_all(void **state)
{
    struct fixture f;
    atomic_bool cancel = true;
    struct skf_progress progress = {.cancel = &cancel};
    char path[64];
    uint8_t *data;
    size_t n;
    open_model(&f);
    (void)snprintf(path, sizeof path, "/tmp/skf-quantize-%d.gguf", (int)getpid());
    assert_int_equal(skf_file_write(path, "before", 6, 0644, NULL), SKF_OK);
    assert_int_equal(write_to(&f, path, &progress), SKF_ERR_CANCELLED);
    for (int k = 1;; k++) {
        full_at = k;
        skf_file_hook(disk_is_full, NULL);
        enum skf_err e = write_to(&f, path, NULL);
        skf_file_hook(NULL, NULL);
        if (e == SKF_OK)
            break;
        assert_int_equal(e, SKF_ERR_FULL);
        assert_int_equal(skf_file_read(path, 1 << 20, &data, &n, NULL), SKF_OK);
        assert_true(n == 6 && memcmp(data, "before", 6) == 0);
        skf_free(data);
        assert_true(k < 100);
    }
    for (unsigned long k = 1;; k++) {
        skf_alloc_fail_at(k);
        enum skf_err e = write_to(&f, path, NULL);
        skf_alloc_fail_at(0);
        if (e == SKF_OK)
            break;
        assert_int_equal(e, SKF_ERR_NOMEM);
        assert_true(k < 1000);
    }
    assert_int_equal(unlink(path), 0);
    close_model(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_become_it),        cmocka_unit_test(patterns),
        cmocka_unit_test(threshold_is_what_sorting_gives), cmocka_unit_test(groups_keep_their_largest),
        cmocka_unit_test(importance_is_the_mean_square), cmocka_unit_test(whole_or_not_at_all),
    };
    return cmocka_run_group_tests_name("model_quantize", tests, NULL, NULL);
}
