/*
 * Building and applying a delta while the n-th allocation or the n-th lasting step fails, for every n: an error, nothing left
 * beside the output's name, and what stood there before still stands; or success, and then the whole file.
 */
#include <errno.h>

#include "tests/lib/skd_fix.h"

static struct fix_pair pair;
static uint8_t *delta;
static size_t delta_len;

static enum skf_err build(struct skf_why *why)
{
    struct skf_delta_stats s;
    struct skf_delta_opts o = {.jobs = 1};
    return skf_delta_build(pair.old, pair.neu, fix_path("out"), &o, &s, why);
}
static enum skf_err apply(struct skf_why *why)
{
    struct skf_delta_stats s;
    struct skf_delta_opts o = {.jobs = 1};
    return skf_delta_apply(fix_path("small-old"), fix_path("d"), fix_path("out"), &o, &s, why);
}

/* What must hold after the call, whatever it said. True when it succeeded. */
static bool is_done(enum skf_err e, const struct skf_why *why, const void *want, size_t n)
{
    if (e == SKF_OK) {
        fix_same("out", want, n);
        assert_int_equal(fix_left("out"), 1);
        fix_write("out", "before", 6);
        return true;
    }
    assert_true(why->text[0] != 0);
    assert_int_equal(fix_left("out"), 1);
    fix_same("out", "before", 6);
    return false;
}

static void each_allocation(enum skf_err (*call)(struct skf_why *why), const void *want, size_t n)
{
    unsigned long k = 1, failed = 0;
    fix_write("out", "before", 6);
    for (bool is_over = false; !is_over && k < 5000; k++) {
        struct skf_why why = {{0}};
        skf_alloc_fail_at(k);
        enum skf_err e = call(&why);
        is_over = skf_alloc_count() < k;
        skf_alloc_fail_at(0);
        if (!is_done(e, &why, want, n)) {
            failed++;
            assert_int_equal(e, SKF_ERR_NOMEM);
        }
    }
    assert_true(failed > 5 && k < 5000);
}
static void test_build_allocation(void **unused) { each_allocation(build, delta, delta_len); }
static void test_apply_allocation(void **unused) { each_allocation(apply, pair.new_bytes.data, pair.new_bytes.len); }

struct steps {
    unsigned at, seen;
    int sys;
};
static int fail_step(void *ctx, const char *step, const char *path)
{
    struct steps *s = ctx;
    return strcmp(step, "unlink") != 0 && ++s->seen == s->at ? s->sys : 0;
}

static void each_step(enum skf_err (*call)(struct skf_why *why), const void *want, size_t n)
{
    static const int errors[] = {EIO, ENOSPC};
    for (int k = 0; k < 2; k++) {
        unsigned failed = 0;
        fix_write("out", "before", 6);
        for (unsigned at = 1; at < 1000; at++) {
            struct steps s = {at, 0, errors[k]};
            struct skf_why why = {{0}};
            skf_file_hook(fail_step, &s);
            enum skf_err e = call(&why);
            skf_file_hook(NULL, NULL);
            if (s.seen < at) { /* no such step any more */
                assert_int_equal(e, SKF_OK);
                break;
            }
            failed++;
            assert_int_equal(e, errors[k] == EIO ? SKF_ERR_IO : SKF_ERR_FULL);
            assert_non_null(strstr(why.text, fix_dir));
            uint8_t *got;
            size_t len;
            fix_read("out", &got, &len); /* a folder that cannot be synced has the new name already: whole, either way */
            assert_true((len == 6 && memcmp(got, "before", 6) == 0) || (len == n && memcmp(got, want, n) == 0));
            skf_free(got);
            assert_int_equal(fix_left("out"), 1);
            fix_write("out", "before", 6);
        }
        assert_true(failed >= 4); /* writes, sync, rename, folder */
    }
}
static void test_build_steps(void **unused) { each_step(build, delta, delta_len); }
static void test_apply_steps(void **unused) { each_step(apply, pair.new_bytes.data, pair.new_bytes.len); }

static void test_no_folder(void **unused)
{
    struct skf_delta_stats s;
    fix_err(SKF_ERR_NOT_FOUND, skf_delta_build(pair.old, pair.neu, fix_path("none/out"), NULL, &s, why));
    fix_err(SKF_ERR_NOT_FOUND, skf_delta_apply(fix_path("small-old"), fix_path("d"), fix_path("none/out"), NULL, &s, why));
}

static int setup(void **state)
{
    if (fix_setup(state))
        return -1;
    fix_small_models(&pair);
    (void)fix_build(&pair, "d", 1);
    fix_read("d", &delta, &delta_len);
    return 0;
}
static int teardown(void **state)
{
    skf_free(delta);
    fix_close(&pair);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build_allocation), cmocka_unit_test(test_apply_allocation),
        cmocka_unit_test(test_build_steps),      cmocka_unit_test(test_apply_steps),
        cmocka_unit_test(test_no_folder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
