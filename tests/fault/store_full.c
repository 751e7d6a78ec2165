/*
 * No room and no memory: quota, full disk, the n-th allocation. Each is a clean error, and the store is then what it was.
 */
#include "tests/lib/store_fix.h"

#include <sys/mount.h>

/* Fills the store with versions until it says FULL; what was there before must still be, whole. */
static void fill(const char *dir, const struct skf_store_opts *o)
{
    struct skf_store *s;
    fix_ok(skf_store_open(dir, o, &s, why));
    struct fix_version *kept = fix_version("kept", 20, 1, 0, 0, 30000);
    fix_install(s, kept);
    enum skf_err e = SKF_OK;
    unsigned i;
    for (i = 0; e == SKF_OK && i < 200; i++) {
        char name[16];
        struct skf_why why = {{0}};
        (void)snprintf(name, sizeof name, "%u", i);
        struct fix_version *f = fix_version(name, 20, 10000 + 100 * i, 0, 0, 30000);
        struct skf_store_put puts[64];
        fix_puts(f, puts);
        e = skf_store_put(s, puts, 20, &why);
        if (e == SKF_OK)
            e = skf_store_add_version(s, &f->v, &why);
        else
            assert_false(has_store_chunk(s, f->chunks[0].digest)); /* nothing of the batch */
        if (e != SKF_OK)
            assert_true(strstr(why.text, dir) != NULL);
        fix_free(f);
    }
    assert_int_equal(e, SKF_ERR_FULL);
    assert_true(i > 2);
    fix_err(SKF_ERR_FULL, skf_store_reserve(s, 1 << 20, why));
    fix_ok(skf_store_verify(s, why));
    fix_check(s, kept);
    skf_store_close(s);
    fix_ok(skf_store_open(dir, o, &s, why));
    fix_ok(skf_store_verify(s, why));
    fix_check(s, kept);
    /* Deleting makes room again, in place. */
    for (unsigned k = 0; k + 1 < i; k++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", k);
        fix_ok(skf_store_del_version(s, "m", name, why));
    }
    fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
    fix_ok(skf_store_reserve(s, 1 << 20, why));
    struct fix_version *f = fix_version("again", 20, 9000, 0, 0, 30000);
    fix_install(s, f);
    fix_check(s, f);
    fix_check(s, kept);
    skf_store_close(s);
    fix_free(f);
    fix_free(kept);
}

static void test_quota(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP, .quota = 6 << 20, .keep_free = 1};
    fill(fix_dir(dir), &o);
    fix_remove(dir);
}

static void test_keep_free(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP, .keep_free = UINT64_MAX};
    struct skf_store *s;
    fix_ok(skf_store_open(fix_dir(dir), &o, &s, why));
    struct fix_version *f = fix_version("1", 3, 1, 0, 0, 30000);
    struct skf_store_put puts[64];
    fix_puts(f, puts);
    fix_err(SKF_ERR_FULL, skf_store_put(s, puts, 3, why));
    fix_err(SKF_ERR_FULL, skf_store_reserve(s, 1 << 30, why));
    assert_false(has_store_chunk(s, f->chunks[0].digest));
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

/* A disk that really is full: a small tmpfs, where we may mount one. Checked ahead (keep_free) and met on the way (none). */
static void test_full_disk(void **state)
{
    (void)state;
    char dir[64];
    fix_dir(dir);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=8m") != 0) {
        fix_remove(dir);
        skip();
    }
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP, .keep_free = 1 << 20};
    fill(dir, &o);
    assert_int_equal(umount(dir), 0);
    assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, "size=8m"), 0);
    /* Somebody else takes the room between our question and our write: a hole in the answer that ENOSPC must fill. */
    o.keep_free = 1;
    struct skf_store *s;
    fix_ok(skf_store_open(dir, &o, &s, why));
    struct fix_version *kept = fix_version("kept", 20, 1, 0, 0, 30000);
    fix_install(s, kept);
    char hog[96];
    (void)snprintf(hog, sizeof hog, "%s/hog", dir);
    FILE *f = fopen(hog, "w");
    static char block[4096];
    memset(block, 1, sizeof block);
    (void)setvbuf(f, NULL, _IONBF, 0);
    while (fwrite(block, 1, sizeof block, f) == sizeof block) {
    }
    (void)fclose(f);
    struct skf_slots slots = {{"kept", "", "", ""}};
    for (int i = 0; i < 20; i++) { /* no question is asked here; it may work within free pages, or not */
        enum skf_err e = skf_store_set_slots(s, "m", &slots, "m", block, sizeof block, NULL);
        assert_true(e == SKF_OK || e == SKF_ERR_FULL);
    }
    fix_check(s, kept);
    skf_store_close(s);
    assert_int_equal(remove(hog), 0);
    fix_ok(skf_store_open(dir, &o, &s, why));
    fix_ok(skf_store_set_slots(s, "m", &slots, NULL, NULL, 0, why));
    fix_ok(skf_store_verify(s, why));
    fix_check(s, kept);
    skf_store_close(s);
    fix_free(kept);
    assert_int_equal(umount(dir), 0);
    fix_remove(dir);
}

static enum skf_err round_trip(const char *dir, struct fix_version *f)
{
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP, .keep_free = 1};
    struct skf_store *s = NULL;
    struct skf_view *w = NULL;
    struct skf_store_put puts[64];
    struct skf_store_stats st;
    struct skf_slots slots = {{"1", "", "", ""}};
    uint8_t *p = NULL;
    size_t n;
    fix_puts(f, puts);
    enum skf_err e;
    SKF_GO(e, skf_store_open(dir, &o, &s, NULL));
    SKF_GO(e, skf_store_put(s, puts, (size_t)f->v.n_chunks, NULL));
    SKF_GO(e, skf_store_add_version(s, &f->v, NULL));
    SKF_GO(e, skf_store_set_slots(s, "m", &slots, "j", "abc", 3, NULL));
    SKF_GO(e, skf_store_journal_get(s, "j", &p, &n, NULL));
    SKF_GO(e, skf_view_open(s, "m", "1", &w, NULL));
    SKF_GO(e, skf_view_renew(w, NULL));
    SKF_GO(e, skf_store_collect(s, f->chunks, f->v.n_chunks, NULL, NULL));
    SKF_GO(e, skf_store_stats(s, &st, NULL));
    SKF_GO(e, skf_store_verify(s, NULL));
out:
    skf_free(p);
    skf_view_close(w);
    skf_store_close(s);
    return e;
}

static void test_nth_allocation(void **state)
{
    (void)state;
    char dir[64];
    fix_dir(dir);
    struct fix_version *f = fix_version("1", 6, 1, 0, 0, 9000);
    unsigned long total;
    skf_alloc_fail_at(0);
    assert_int_equal(round_trip(dir, f), SKF_OK);
    total = skf_alloc_count();
    assert_true(total > 8);
    for (unsigned long i = 1; i <= total; i++) {
        fix_remove(dir);
        skf_alloc_fail_at(i);
        enum skf_err e = round_trip(dir, f);
        skf_alloc_fail_at(0);
        if (e != SKF_ERR_NOMEM)
            fail_msg("allocation %lu of %lu: %s", i, total, skf_err_name(e));
        assert_int_equal(round_trip(dir, f), SKF_OK); /* nothing stands in the way of the next try */
    }
    fix_free(f);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_keep_free),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_nth_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
