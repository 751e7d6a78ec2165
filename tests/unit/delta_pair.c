/* Counterparts of tensors: by name where that fits, otherwise by what they hold, whatever their place and number of rows. */
#include "tests/lib/skd_fix.h"

#include "delta/pair_priv.h"

static struct skf_buf bytes[2];
static struct skf_source source[2];
static struct skf_model *model[2];
static const struct skf_tensor **pairs;

static void make(const struct fix_tensor *old, size_t n_old, const struct fix_tensor *neu, size_t n_new)
{
    bytes[0] = fix_gguf(old, n_old, false);
    bytes[1] = fix_gguf(neu, n_new, true);
    for (int i = 0; i < 2; i++) {
        source[i] = skf_source_of(bytes[i].data, bytes[i].len);
        fix_ok(skf_model_open_source(&source[i], i ? "new" : "old", &model[i], why));
    }
    fix_ok(skf_pairs_make(model[0], model[1], &pairs, why));
}

/* The new tensor of this name is coded against the old one of that name, or against none (NULL). */
static void pair_is(const char *neu, const char *old)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(model[1], &n), *of = skf_model_find(model[1], neu);
    assert_non_null(of);
    const char *is = pairs[of - t] ? pairs[of - t]->name : NULL;
    if ((is == NULL) != (old == NULL) || (is && strcmp(is, old) != 0))
        fail_msg("%s: %s instead of %s", neu, is ? is : "none", old ? old : "none");
}

static void end(void)
{
    skf_free(pairs);
    for (int i = 0; i < 2; i++) {
        skf_model_close(model[i]);
        skf_buf_free(&bytes[i]);
    }
}

static void test_by_name(void **unused)
{
    static const struct fix_tensor old[] = {{"a", SKF_T_BF16, 64, 20, 1, 0}, {"b", SKF_T_BF16, 64, 20, 2, 0}, {"c", SKF_T_Q8_0, 64, 20, 3, 0}};
    static const struct fix_tensor neu[] = {{"b", SKF_T_BF16, 64, 25, 9, 0}, /* the name decides, whatever it holds */
                                            {"a", SKF_T_BF16, 64, 20, 2, 0},
                                            {"c", SKF_T_Q4_1, 64, 20, 3, 0}}; /* another type */
    make(old, SKF_COUNT(old), neu, SKF_COUNT(neu));
    pair_is("a", "a");
    pair_is("b", "b");
    pair_is("c", NULL);
    end();
}

static void test_by_content(void **unused)
{
    static const struct fix_tensor old[] = {
        {"q0", SKF_T_Q4_1, 256, 40, 1, 0}, {"q1", SKF_T_Q4_1, 256, 40, 2, 0},  {"q2", SKF_T_Q4_1, 256, 40, 3, 0},
        {"norm", SKF_T_F32, 64, 3, 4, 0},  {"embd", SKF_T_F16, 128, 90, 5, 0}, {"row", SKF_T_F16, 64, 90, 6, 0}};
    static const struct fix_tensor neu[] = {
        {"x.q2", SKF_T_Q4_1, 256, 40, 3, 100}, {"x.q0", SKF_T_Q4_1, 256, 40, 1, 200}, {"x.q1", SKF_T_Q4_1, 256, 40, 2, 300},
        {"x.norm", SKF_T_F32, 64, 3, 4, 50},
        {"x.embd", SKF_T_F16, 128, 110, 5, 100},  /* more rows */
        {"x.less", SKF_T_F16, 128, 60, 5, 0},     /* and fewer: the same one twice */
        {"x.row", SKF_T_F16, 32, 180, 6, 0},      /* the same bytes in other rows */
        {"x.type", SKF_T_BF16, 64, 90, 6, 0},     /* or of another type */
        {"x.alien", SKF_T_Q4_1, 256, 40, 77, 0}}; /* nothing like it */
    make(old, SKF_COUNT(old), neu, SKF_COUNT(neu));
    pair_is("x.q0", "q0");
    pair_is("x.q1", "q1");
    pair_is("x.q2", "q2");
    pair_is("x.norm", "norm");
    pair_is("x.embd", "embd");
    pair_is("x.less", "embd");
    pair_is("x.row", NULL);
    pair_is("x.type", NULL);
    pair_is("x.alien", NULL);
    end();
}

/* Of several that are alike, the one that is not taken; of one that is taken by its name, what is like it all the same. */
static void test_alike(void **unused)
{
    static const struct fix_tensor old[] = {{"a", SKF_T_F16, 64, 50, 1, 0}, {"b", SKF_T_F16, 64, 50, 1, 0}, {"c", SKF_T_F16, 64, 50, 2, 0}};
    static const struct fix_tensor neu[] = {{"a", SKF_T_F16, 64, 50, 1, 0}, {"x", SKF_T_F16, 64, 50, 1, 0}, {"c", SKF_T_F16, 64, 50, 2, 0},
                                            {"tied", SKF_T_F16, 64, 50, 2, 0}};
    make(old, SKF_COUNT(old), neu, SKF_COUNT(neu));
    pair_is("a", "a");
    pair_is("x", "b");
    pair_is("tied", "c");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_name), cmocka_unit_test(test_by_content), cmocka_unit_test(test_alike)};
    return cmocka_run_group_tests(tests, fix_setup, fix_teardown);
}
