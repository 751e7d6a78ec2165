/*
 * A delta whose tensors share payloads: its sides come first, once, whatever breaks in between, and what was kept of them is believed
 * only as far as its digests go.
 */
#include "tests/lib/agent_fix.h"

#include "model/merge.h"
#include "tests/lib/lora_make.h"

static char full1[SKF_AGENT_PATH], delta12[SKF_AGENT_PATH];
static uint64_t sides; /* bytes of both */

static int setup(void **state)
{
    struct fix *f = fix_new();
    struct skf_merge_stats ms;
    fix_content(f, "empty", 0, 0, 0);
    lora_files(fix_path(f, "1"), fix_path(f, "lora"));
    fix_ok(skf_merge(fix_path(f, "1"), fix_path(f, "lora"), fix_path(f, "2"), 1, NULL, &ms, why));
    fix_publish(f, "1", "1");
    fix_publish(f, "2", "2");
    fix_delta(f, "empty", "1", full1);
    f->adapter = "lora";
    fix_delta(f, "1", "2", delta12);
    const struct fix_file *t = fix_find(f->targets, f->n_targets, delta12);
    struct skf_skd *skd;
    fix_ok(skf_skd_parse(t->p, t->n, &skd, why));
    assert_int_equal(skf_skd_info(skd)->n_sides, 2);
    sides = 0;
    for (uint64_t k = 0; k < 2; k++) {
        struct skf_skd_side s;
        skf_skd_side(skd, k, &s);
        sides += s.payload_length;
    }
    skf_skd_free(skd);
    fix_ok(fix_install(f, "1", full1, why));
    fix_reset(f);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    fix_free(*state);
    return 0;
}

static bool has_file(const struct fix *f) { return access(fix_path(f, "incoming/m.sides"), F_OK) == 0; }

static uint64_t payloads(const struct fix *f) /* of the delta */
{
    const struct fix_file *skd = fix_find(f->skd, f->n_skd, delta12), *index = fix_find(f->targets, f->n_targets, delta12);
    return skd->n - index->n;
}

static void test_sides_come_first(void **state)
{
    struct fix *f = *state;
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
    assert_int_equal(f->bytes, payloads(f));
    assert_int_equal(atomic_load(&f->progress.bytes), f->bytes);
    assert_false(has_file(f));
}

static void test_breaks(void **state)
{
    struct fix *f = *state;
    f->break_every = 2;
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
    assert_true(f->waits > 1);
    assert_int_equal(f->bytes, payloads(f)); /* not a byte twice */
}

static void test_restart(void **state)
{
    struct fix *f = *state;
    struct skf_why said = {{0}};
    f->cancel_at = 3; /* both sides and one payload */
    assert_int_equal(fix_install(f, "2", delta12, &said), SKF_ERR_CANCELLED);
    assert_true(has_file(f) && f->bytes > sides);
    fix_reset(f);
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
    assert_true(f->bytes <= payloads(f) - sides); /* no side again */
    assert_false(has_file(f));
}

/* What is kept may be anything by the time it is used. */
static void test_kept_is_wrong(void **state)
{
    struct fix *f = *state;
    struct skf_why said = {{0}};
    f->cancel_at = 2;
    assert_int_equal(fix_install(f, "2", delta12, &said), SKF_ERR_CANCELLED);
    static const size_t lengths[] = {0, 1, 1000, 1 << 20};
    for (size_t i = 0; i < SKF_COUNT(lengths); i++) {
        uint8_t *p = skf_calloc(lengths[i] + 1, 1);
        assert_non_null(p);
        fix_ok(skf_file_write(fix_path(f, "incoming/m.sides"), p, lengths[i], 0600, why));
        skf_free(p);
        fix_reset(f);
        f->cancel_at = 2;
        assert_int_equal(fix_install(f, "2", delta12, &said), SKF_ERR_CANCELLED);
        assert_int_equal(f->bytes, sides); /* both again */
    }
    fix_reset(f);
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
}

static void expect(struct fix *f, enum skf_err want, const char *text)
{
    struct skf_why said = {{0}};
    enum skf_err e = fix_install(f, "2", delta12, &said);
    if (e != want || !strstr(said.text, text))
        fail_msg("%s instead of %s with '%s': %s", skf_err_name(e), skf_err_name(want), text, said.text);
    assert_false(has_version(f, "2"));
    fix_reset(f);
}

static void test_lies(void **state)
{
    struct fix *f = *state;
    f->flips = 2;
    fix_ok(fix_install(f, "2", delta12, why)); /* asked for again */
    fix_check_version(f, "2");
    fix_ok(skf_store_del_version(f->store, "m", "2", why));
    fix_ok(skf_store_collect(f->store, NULL, 0, NULL, why));
    fix_reset(f);
    f->flips = 1000;
    expect(f, SKF_ERR_DIGEST, "side");
    f->lie = FIX_UNASKED;
    expect(f, SKF_ERR_FORMAT, "not asked for");
    f->lie = FIX_LENGTH;
    expect(f, SKF_ERR_FORMAT, "instead of");
    f->lie = FIX_LEAVES_OUT;
    expect(f, SKF_ERR_FORMAT, "left out");
    f->lie = FIX_SILENT;
    expect(f, SKF_ERR_TIMEOUT, "silent");
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
}

static void test_nth_allocation(void **state)
{
    struct fix *f = *state;
    skf_alloc_fail_at(0);
    fix_ok(fix_install(f, "2", delta12, why));
    unsigned long total = skf_alloc_count(), step = total / 40 + 1;
    for (unsigned long i = 1; i <= total; i += step) {
        struct skf_why said = {{0}};
        fix_ok(skf_store_del_version(f->store, "m", "2", why));
        fix_ok(skf_store_collect(f->store, NULL, 0, NULL, why));
        fix_reset(f);
        skf_alloc_fail_at(i);
        enum skf_err e = fix_install(f, "2", delta12, &said);
        skf_alloc_fail_at(0);
        if (e != SKF_OK) {
            assert_int_equal(e, SKF_ERR_NOMEM);
            fix_reset(f);
            fix_ok(fix_install(f, "2", delta12, why));
        }
        fix_check_version(f, "2");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sides_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_breaks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kept_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nth_allocation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
