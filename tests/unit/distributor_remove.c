/* Versions that go from the registry: never one that is in use, never more than is its own, and what is left on the disk is noted
 * until somebody says that it is done. */
#include "tests/lib/distributor_fix.h"

static char dir[64];
static struct skf_registry *r;

static void root_of(uint8_t root[SKF_DIGEST], unsigned byte)
{
    memset(root, (int)byte, SKF_DIGEST);
}

static void delta(unsigned from, unsigned to)
{
    struct skf_reg_delta d = {.bytes = 100, .index_size = 50};
    root_of(d.from, from);
    root_of(d.to, to);
    fix_ok(skf_registry_add_delta(r, &d, why));
}

/* Version `to` again with an adapter of one piece, whose digest is of this byte. */
static void adapter(const char *version, unsigned from, unsigned to, unsigned piece)
{
    uint8_t digest[SKF_DIGEST];
    struct skf_reg_version v = {.model = "m", .size = 1000, .n_chunks = 1};
    struct skf_reg_adapter a = {.size = 10, .digests = digest, .n = 1};
    (void)snprintf(v.version, sizeof v.version, "%s", version);
    root_of(v.root, to);
    root_of(a.from, from);
    root_of(a.to, to);
    root_of(digest, piece);
    fix_ok(skf_registry_add_version(r, &v, "manifest", 8, &a, NULL, why));
}

static bool has_delta(unsigned from, unsigned to)
{
    struct skf_reg_delta d;
    uint8_t a[SKF_DIGEST], b[SKF_DIGEST];
    root_of(a, from);
    root_of(b, to);
    return skf_registry_delta(r, a, b, &d, NULL) == SKF_OK;
}

static bool has_adapter(unsigned from, unsigned to)
{
    struct skf_reg_adapter got;
    uint8_t a[SKF_DIGEST], b[SKF_DIGEST];
    root_of(a, from);
    root_of(b, to);
    enum skf_err e = skf_registry_adapter(r, a, b, &got, NULL);
    skf_reg_adapter_clear(&got);
    return e == SKF_OK;
}

static bool has_version(const char *version)
{
    struct skf_reg_version v;
    return skf_registry_version(r, "m", version, &v, NULL) == SKF_OK;
}

static enum skf_err take(const char *version, bool is_dry, struct skf_reg_leftover *l, struct skf_why *why)
{
    uint8_t chunks[2 * SKF_DIGEST];
    memset(chunks, 0x77, sizeof chunks);
    return skf_registry_remove(r, "m", version, chunks, 2, is_dry, l, why);
}

static void refused(const char *version, enum skf_err want, const char *said)
{
    struct skf_reg_leftover l;
    struct skf_why why = {{0}};
    for (int is_dry = 0; is_dry < 2; is_dry++) {
        assert_int_equal(take(version, is_dry, &l, &why), want);
        if (!strstr(why.text, said))
            fail_msg("'%s' where '%s' was expected", why.text, said);
        assert_null(l.digests);
    }
}

static void expect_nothing_noted(void)
{
    struct skf_reg_leftover l;
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_leftover(r, &l, why));
}

static void test_in_use(void **state)
{
    struct skf_reg_pin pin = {.device = "box", .model = "m", .version = "1", .kind = SKF_PIN_ROLLBACK};
    bool had;
    fix_version(r, "m", "1", 1, "stable");
    refused("1", SKF_ERR_BUSY, "channel stable stands at it");
    fix_version(r, "m", "2", 2, "stable");
    refused("1", SKF_ERR_BUSY, "channel stable would go back to it");
    fix_version(r, "m", "3", 3, "stable");
    fix_version(r, "m.x", "1", 4, "stable"); /* another model's */
    refused("9", SKF_ERR_NOT_FOUND, "no such version");
    fix_ok(skf_registry_pin(r, &pin, 1, why));
    refused("1", SKF_ERR_BUSY, "box is pinned to it");
    fix_ok(skf_registry_unpin(r, "box", "m", &had, why));
    (void)snprintf(pin.model, sizeof pin.model, "m.x"); /* "m" is the beginning of its name */
    pin.kind = SKF_PIN_FIXED;
    fix_ok(skf_registry_pin(r, &pin, 1, why));
    struct skf_reg_leftover l;
    fix_ok(take("1", true, &l, why));
    skf_reg_leftover_clear(&l);
    expect_nothing_noted();
    assert_true(has_version("1"));
}

static void test_goes(void **state)
{
    struct skf_reg_leftover l, noted;
    struct skf_reg_version v;
    uint8_t root[SKF_DIGEST];
    bool is_known;
    for (unsigned i = 1; i < 4; i++) {
        delta(0, i);
        delta(i, i % 3 + 1);
    }
    adapter("2", 1, 2, 0x55);
    adapter("3", 2, 3, 0x66);
    fix_ok(take("1", true, &l, why)); /* nothing is changed */
    assert_true(l.is_gone && l.n == 3 && l.n_pairs == 3);
    skf_reg_leftover_clear(&l);
    assert_true(has_version("1") && has_delta(0, 1) && has_adapter(1, 2));
    fix_ok(take("1", false, &l, why));
    assert_true(l.is_gone && l.n == 3 && l.n_pairs == 3);
    root_of(root, 0x55);
    assert_memory_equal(l.digests + 2 * SKF_DIGEST, root, SKF_DIGEST);
    root_of(root, 1);
    for (size_t i = 0; i < l.n_pairs; i++) /* source, result: one of them is what went */
        assert_true(memcmp(l.pairs + 2 * i * SKF_DIGEST, root, SKF_DIGEST) == 0 ||
                    memcmp(l.pairs + (2 * i + 1) * SKF_DIGEST, root, SKF_DIGEST) == 0);
    skf_registry_close(r);
    r = fix_registry(dir);
    assert_false(has_version("1") || has_delta(0, 1) || has_delta(1, 2) || has_delta(3, 1) || has_adapter(1, 2));
    assert_true(has_version("2") && has_delta(0, 2) && has_delta(2, 3) && has_delta(0, 3) && has_adapter(2, 3));
    fix_ok(skf_registry_leftover(r, &noted, why)); /* until it is done */
    assert_int_equal(noted.serial, l.serial);
    assert_memory_equal(noted.root, l.root, SKF_DIGEST);
    assert_true(noted.is_gone && noted.n == l.n && noted.n_pairs == l.n_pairs);
    assert_memory_equal(noted.digests, l.digests, l.n * SKF_DIGEST);
    assert_memory_equal(noted.pairs, l.pairs, l.n_pairs * 2 * SKF_DIGEST);
    skf_reg_leftover_clear(&noted);
    fix_ok(skf_registry_leftover_done(r, l.serial, why));
    expect_nothing_noted();
    skf_reg_leftover_clear(&l);
    /* The name is taken for the content. */
    v = (struct skf_reg_version){.model = "m", .version = "1", .size = 1000, .n_chunks = 1};
    root_of(v.root, 9);
    fix_err(SKF_ERR_EXISTS, skf_registry_may_add(r, &v, &is_known, why));
    fix_err(SKF_ERR_EXISTS, skf_registry_add_version(r, &v, "x", 1, NULL, NULL, why));
    root_of(v.root, 1);
    fix_ok(skf_registry_may_add(r, &v, &is_known, why));
    assert_false(is_known);
    fix_version(r, "m", "1", 1, NULL);
    fix_ok(skf_registry_may_add(r, &v, &is_known, why));
    assert_true(is_known);
}

static void test_shared(void **state)
{
    struct skf_reg_leftover l;
    delta(0, 1);
    fix_version(r, "m", "1-again", 1, NULL);
    fix_ok(take("1-again", false, &l, why));
    assert_true(!l.is_gone && l.n == 2 && l.n_pairs == 0);
    assert_true(has_version("1") && has_delta(0, 1));
    fix_ok(skf_registry_leftover_done(r, l.serial, why));
    skf_reg_leftover_clear(&l);
}

/* An adapter that gives way leaves its pieces; the same once more does not. */
static void test_replaced(void **state)
{
    struct skf_reg_leftover l;
    uint8_t digest[SKF_DIGEST];
    adapter("3", 2, 3, 0x66);
    expect_nothing_noted();
    adapter("3", 2, 3, 0x67);
    fix_ok(skf_registry_leftover(r, &l, why));
    root_of(digest, 0x66);
    assert_true(!l.is_gone && l.n == 1 && l.n_pairs == 0);
    assert_memory_equal(l.digests, digest, SKF_DIGEST);
    fix_ok(skf_registry_leftover_done(r, l.serial, why));
    skf_reg_leftover_clear(&l);
    expect_nothing_noted();
}

static int setup(void **state)
{
    r = fix_registry(fix_dir(dir));
    return 0;
}

static int teardown(void **state)
{
    skf_registry_close(r);
    fix_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_goes),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_replaced),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
