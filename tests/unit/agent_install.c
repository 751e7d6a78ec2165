/* Receiving a version: what it costs over links that break, and what a centre that lies achieves. */
#include "tests/lib/agent_fix.h"

#define SIZE ((6u << 20) + 12345)

static char full1[SKF_AGENT_PATH], full2[SKF_AGENT_PATH], delta12[SKF_AGENT_PATH], delta13[SKF_AGENT_PATH];

/* An empty content, versions 1 and 2 of it, and a 3 whose manifest lies about its name. */
static int setup(void **state)
{
    struct fix *f = fix_new();
    fix_content(f, "empty", 0, 0, 0);
    fix_content(f, "1", SIZE, 1, 0);
    fix_content(f, "2", SIZE, 1, 5);
    fix_content(f, "3", 20000, 9, 0);
    fix_publish(f, "1", "1");
    fix_publish(f, "2", "2");
    fix_publish(f, "3", "4");
    fix_delta(f, "empty", "1", full1);
    fix_delta(f, "empty", "2", full2);
    fix_delta(f, "1", "2", delta12);
    fix_delta(f, "1", "3", delta13);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    fix_free(*state);
    return 0;
}

static void expect(struct fix *f, enum skf_err want, const char *text, const char *version, const char *delta)
{
    struct skf_why said = {{0}};
    enum skf_err e = fix_install(f, version, delta, &said);
    if (e != want || !strstr(said.text, text))
        fail_msg("%s instead of %s with '%s': %s", skf_err_name(e), skf_err_name(want), text, said.text);
    assert_false(has_version(f, version));
}

static void test_full_then_delta(void **state)
{
    struct fix *f = *state;
    fix_ok(fix_install(f, "1", full1, why));
    fix_check_version(f, "1");
    assert_int_equal(atomic_load(&f->progress.done), atomic_load(&f->progress.total));
    assert_int_equal(atomic_load(&f->progress.bytes), f->bytes);
    uint64_t full = f->bytes;
    fix_reset(f);
    fix_ok(fix_install(f, "2", delta12, why));
    fix_check_version(f, "2");
    fix_check_version(f, "1");
    assert_true(f->bytes * 20 < full); /* unchanged chunks are not sent, changed ones as differences */
    assert_true(f->sent < atomic_load(&f->progress.total));
    fix_reset(f);
    fix_ok(fix_install(f, "2", "", why)); /* held already: nothing is fetched */
    assert_int_equal(f->sent, 0);
    fix_ok(fix_install(f, "2", delta12, why));
    assert_int_equal(f->sent, 0);
}

static void test_broken_link(void **state)
{
    struct fix *f = *state;
    struct skf_why said = {{0}};
    assert_int_equal(fix_install(f, "1", full1, &said), SKF_OK);
    uint64_t whole = f->bytes;
    skf_store_close(f->store);
    for (unsigned every = 1; every < 4; every++) {
        struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = 256 << 20, .keep_free = 1};
        fix_remove(fix_path(f, "store"));
        fix_ok(skf_store_open(fix_path(f, "store"), &o, &f->store, why));
        fix_reset(f);
        f->break_every = every + 1;
        fix_ok(fix_install(f, "1", full1, why));
        assert_true(f->waits > 1);
        assert_int_equal(f->bytes, whole); /* not a byte twice */
        fix_check_version(f, "1");
        if (every < 3)
            skf_store_close(f->store);
    }
}

static void test_restart(void **state)
{
    struct fix *f = *state;
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = 256 << 20, .keep_free = 1};
    uint64_t bytes = 0;
    unsigned tries = 0, metas = 0;
    for (;; tries++) {
        struct skf_why said = {{0}};
        fix_reset(f);
        f->cancel_at = 2; /* a second payload is received, and the process ends */
        enum skf_err e = fix_install(f, "1", full1, &said);
        bytes += f->bytes;
        if (tries)
            metas += f->metas;
        skf_store_close(f->store);
        fix_ok(skf_store_open(fix_path(f, "store"), &o, &f->store, why));
        fix_ok(skf_store_verify(f->store, why));
        if (e == SKF_OK)
            break;
        assert_int_equal(e, SKF_ERR_CANCELLED);
        assert_false(has_version(f, "1"));
        assert_true(tries < 10);
    }
    assert_true(tries >= 2);
    fix_check_version(f, "1");
    const struct fix_file *skd = fix_find(f->skd, f->n_skd, full1);
    assert_true(bytes <= skd->n);
    assert_true(metas <= 3 * tries); /* manifest and index were not asked for again */
}

static void test_lies(void **state)
{
    struct fix *f = *state;
    f->flips = 2;
    fix_ok(fix_install(f, "1", full1, why)); /* asked for again */
    fix_check_version(f, "1");
    fix_reset(f);
    f->flips = 1000;
    expect(f, SKF_ERR_DIGEST, "chunk", "2", delta12);
    fix_reset(f);
    f->lie = FIX_UNASKED;
    expect(f, SKF_ERR_FORMAT, "not asked for", "2", delta12);
    fix_reset(f);
    f->lie = FIX_LENGTH;
    expect(f, SKF_ERR_FORMAT, "instead of", "2", delta12);
    fix_reset(f);
    f->lie = FIX_LEAVES_OUT;
    expect(f, SKF_ERR_FORMAT, "left out", "2", delta12);
    fix_reset(f);
    f->lie = FIX_REFUSES;
    expect(f, SKF_ERR_REFUSED, "no such delta", "2", delta12);
    fix_reset(f);
    f->lie = FIX_SILENT;
    expect(f, SKF_ERR_TIMEOUT, "silent", "2", delta12);
    fix_reset(f);
    fix_ok(skf_store_verify(f->store, why));
    fix_ok(fix_install(f, "2", delta12, why)); /* and none of it stands in the way */
    fix_check_version(f, "2");
}

static void test_wrong_metadata(void **state)
{
    struct fix *f = *state;
    expect(f, SKF_ERR_BASE, "starts at", "2", delta12);        /* version 1 is not here */
    expect(f, SKF_ERR_BASE, "no delta", "2", "");
    (void)snprintf(f->meta_lie, sizeof f->meta_lie, "models/m/1.manifest");
    expect(f, SKF_ERR_DIGEST, "models/m/1.manifest", "1", full1);
    (void)snprintf(f->meta_lie, sizeof f->meta_lie, "%s", full1);
    expect(f, SKF_ERR_DIGEST, full1, "1", full1);
    (void)snprintf(f->meta_lie, sizeof f->meta_lie, "timestamp.json");
    struct skf_why said = {{0}};
    assert_int_not_equal(fix_install(f, "1", full1, &said), SKF_OK);
    fix_reset(f);
    expect(f, SKF_ERR_NOT_FOUND, "models/m/7.manifest", "7", full1);
    expect(f, SKF_ERR_FORMAT, "speaks of m 4", "3", delta13);
    expect(f, SKF_ERR_DIGEST, "another content", "1", full2); /* a delta to something else than the manifest */
    assert_int_equal(f->sent, 0);                               /* nothing of all this got as far as a payload */

    /* An index that is listed under another delta's path. */
    const struct fix_file *t = fix_find(f->targets, f->n_targets, delta13);
    uint8_t *p = skf_memdup(t->p, t->n);
    size_t n = t->n;
    fix_target(f, full1, p, n);
    skf_free(p);
    expect(f, SKF_ERR_FORMAT, "it goes from", "1", full1);
}

static void test_same_name_other_content(void **state)
{
    struct fix *f = *state;
    fix_ok(fix_install(f, "1", full1, why));
    fix_content(f, "1", SIZE, 77, 0);
    fix_publish(f, "1", "1");
    struct skf_why said = {{0}};
    assert_int_equal(fix_install(f, "1", full1, &said), SKF_ERR_EXISTS);
}

static void test_full_store(void **state)
{
    struct fix *f = *state;
    skf_store_close(f->store);
    fix_remove(fix_path(f, "store"));
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .quota = 3 << 20, .keep_free = 1};
    fix_ok(skf_store_open(fix_path(f, "store"), &o, &f->store, why));
    expect(f, SKF_ERR_FULL, "limit", "1", full1);
    assert_int_equal(f->sent, 0); /* known before the first byte */
}

static void test_nth_allocation(void **state)
{
    struct fix *f = *state;
    fix_content(f, "5", 9000, 31, 0);
    fix_publish(f, "5", "5");
    char full5[SKF_AGENT_PATH];
    fix_delta(f, "empty", "5", full5);
    skf_alloc_fail_at(0);
    fix_ok(fix_install(f, "5", full5, why));
    unsigned long total = skf_alloc_count(), step = total / 40 + 1;
    for (unsigned long i = 1; i <= total; i += step) {
        struct skf_why said = {{0}};
        fix_ok(skf_store_del_version(f->store, "m", "5", why));
        fix_ok(skf_store_collect(f->store, NULL, 0, NULL, why));
        skf_alloc_fail_at(i);
        enum skf_err e = fix_install(f, "5", full5, &said);
        skf_alloc_fail_at(0);
        if (e != SKF_OK) { /* what needs memory only to be quicker may do without */
            assert_int_equal(e, SKF_ERR_NOMEM);
            assert_false(has_version(f, "5"));
            fix_reset(f);
            fix_ok(fix_install(f, "5", full5, why));
        }
        fix_check_version(f, "5");
        fix_reset(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_then_delta, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_name_other_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nth_allocation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
