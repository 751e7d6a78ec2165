/*
 * Deltas as files: what goes in comes out, whatever the threads; and a .skd that is broken, or meant for another base, is
 * refused with nothing left behind.
 */
#include "tests/lib/skd_fix.h"

#include "base/util.h"

static struct fix_pair pair, small;

static void count_chunk(void *ctx, const struct skf_skd_chunk *c)
{
    uint64_t *bytes = ctx;
    assert_true(c->result_offset == *bytes); /* in order, without gaps */
    *bytes += c->result_length;
}

static void test_round_trip(void **unused)
{
    uint64_t told = 0;
    struct skf_delta_opts o = {.jobs = 2, .chunk = count_chunk, .chunk_ctx = &told};
    struct skf_delta_stats s, planned;
    fix_ok(skf_delta_build(pair.old, pair.neu, fix_path("d"), &o, &s, why));
    assert_true(told == pair.new_bytes.len);
    uint64_t chunks = 0;
    for (int k = 0; k < SKF_CODE_COUNT; k++)
        chunks += s.coding_chunks[k];
    assert_true(chunks == s.chunks);
    /* The pair is made so that each of these is needed. */
    assert_true(s.coding_chunks[SKF_CODE_COPY] && s.coding_chunks[SKF_CODE_RAW] && s.coding_chunks[SKF_CODE_ZSTD]);
    assert_true(s.coding_chunks[SKF_CODE_INT] && s.coding_chunks[SKF_CODE_PATCH] + s.coding_chunks[SKF_CODE_MIXED] > 0);
    assert_true(s.bytes < pair.new_bytes.len / 8);
    uint8_t *file;
    size_t n;
    fix_read("d", &file, &n);
    assert_true(n == s.bytes);
    skf_free(file);
    fix_ok(fix_apply("old", "d", "out", why));
    fix_same("out", pair.new_bytes.data, pair.new_bytes.len);
    /* Without a path only the size is found. */
    fix_ok(skf_delta_build(pair.old, pair.neu, NULL, &(struct skf_delta_opts){.jobs = 1}, &planned, why));
    assert_true(planned.bytes == s.bytes);
    (void)unlink(fix_path("out"));
}

static void test_threads_do_not_matter(void **unused)
{
    uint8_t *one, *many;
    size_t n, m;
    (void)fix_build(&pair, "d1", 1);
    (void)fix_build(&pair, "d5", 5);
    fix_read("d1", &one, &n);
    fix_read("d5", &many, &m);
    assert_int_equal(n, m);
    assert_memory_equal(one, many, n);
    skf_free(one);
    skf_free(many);
}

/* Both ways between a and b, as any bytes. Returns the size of the larger delta. */
static uint64_t both_ways(const void *a, size_t an, const void *b, size_t bn)
{
    uint64_t most = 0;
    for (int way = 0; way < 2; way++) {
        struct fix_pair p = {.old_bytes = SKF_BUF_INIT(1 << 26), .new_bytes = SKF_BUF_INIT(1 << 26)};
        assert_int_equal(skf_buf_put(&p.old_bytes, way ? b : a, way ? bn : an), SKF_OK);
        assert_int_equal(skf_buf_put(&p.new_bytes, way ? a : b, way ? an : bn), SKF_OK);
        fix_open(&p);
        fix_write("x", p.old_bytes.data, p.old_bytes.len);
        struct skf_delta_stats s = fix_build(&p, "dx", 2);
        most = SKF_MAX(most, s.bytes);
        fix_ok(fix_apply("x", "dx", "y", why));
        fix_same("y", p.new_bytes.data, p.new_bytes.len);
        fix_close(&p);
    }
    return most;
}

static void test_any_bytes(void **unused)
{
    size_t n = 2500000;
    uint8_t *a = skf_alloc(n), *b = skf_alloc(n + 1000);
    assert_non_null(a);
    assert_non_null(b);
    for (size_t i = 0; i < n; i++)
        a[i] = (uint8_t)(fix_next() >> 30);
    assert_true(both_ways("", 0, "", 0) < 4096);
    assert_true(both_ways("", 0, "x", 1) < 4096);
    assert_true(both_ways("", 0, a, n) < n + 4096);
    assert_true(both_ways(a, n, a, n) < 4096);
    memcpy(b, a + 1, 1000); /* an insertion shifts everything; anchors find it again */
    memcpy(b + 1000, a, n);
    assert_true(both_ways(a, n, b, n + 1000) < 8192);
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)(fix_next() >> 30);
    assert_true(both_ways(a, n, b, n) < n + 4096);
    skf_free(a);
    skf_free(b);
}

static void test_identity(void **unused)
{
    struct skf_delta_stats s;
    fix_ok(skf_delta_build(pair.old, pair.old, fix_path("same"), NULL, &s, why));
    assert_true(s.bytes < 4096);
    fix_ok(fix_apply("old", "same", "out", why));
    fix_same("out", pair.old_bytes.data, pair.old_bytes.len);
    (void)unlink(fix_path("out"));
    fix_err(SKF_ERR_BASE, fix_apply("new", "same", "out", why));
    uint8_t *p = skf_memdup(pair.old_bytes.data, pair.old_bytes.len);
    assert_non_null(p);
    p[pair.old_bytes.len - 100] ^= 1;
    fix_write("near", p, pair.old_bytes.len);
    skf_free(p);
    fix_err(SKF_ERR_BASE, fix_apply("near", "same", "out", why));
    assert_int_equal(fix_left("out"), 0);
}

static void test_another_base(void **unused)
{
    (void)fix_build(&pair, "d", 2);
    fix_err(SKF_ERR_BASE, fix_apply("new", "d", "out", why));     /* another size */
    fix_err(SKF_ERR_NOT_FOUND, fix_apply("none", "d", "out", why)); /* none at all */
    fix_err(SKF_ERR_NOT_FOUND, fix_apply("old", "none", "out", why));
    uint8_t *p = skf_memdup(pair.old_bytes.data, pair.old_bytes.len);
    assert_non_null(p);
    p[2000] ^= 4; /* the same size, one bit: some chunk does not come out */
    fix_write("near", p, pair.old_bytes.len);
    struct skf_why said = {{0}};
    assert_int_equal(fix_apply("near", "d", "out", &said), SKF_ERR_BASE);
    assert_non_null(strstr(said.text, "another base"));
    assert_non_null(strstr(said.text, "near"));
    memset(p, 'G', 200); /* not even a model any more */
    memcpy(p, "GGUF", 4);
    fix_write("near", p, pair.old_bytes.len);
    skf_free(p);
    fix_err(SKF_ERR_BASE, fix_apply("near", "d", "out", why));
    assert_int_equal(fix_left("out"), 0);
}

/* 1,000 random places, and every place of the head: refused, and the output not created. */
static void test_flips(void **unused)
{
    uint8_t *good;
    size_t n;
    (void)fix_build(&small, "ds", 2);
    fix_read("ds", &good, &n);
    for (unsigned k = 0; k < 1000 + SKF_SKD_HEAD; k++) {
        size_t at = k < SKF_SKD_HEAD ? k : k % 3 ? fix_next() % n : fix_next() % 1024;
        uint8_t was = good[at];
        good[at] = (uint8_t)(k % 2 ? was ^ (1u << fix_next() % 8) : was + 1 + fix_next() % 255);
        fix_write("bad", good, n);
        struct skf_why why = {{0}};
        enum skf_err e = fix_apply("small-old", "bad", "out", &why);
        if (e != SKF_ERR_FORMAT && e != SKF_ERR_DIGEST && e != SKF_ERR_UNSUPPORTED && e != SKF_ERR_LIMIT)
            fail_msg("byte %zu: %s: %s", at, skf_err_name(e), why.text);
        assert_non_null(strstr(why.text, "bad")); /* the file is named, or the delta said to be bad */
        good[at] = was;
    }
    assert_int_equal(fix_left("out"), 0);
    skf_free(good);
}

static void test_cut_and_longer(void **unused)
{
    uint8_t *good;
    size_t n;
    (void)fix_build(&pair, "d", 2);
    fix_read("d", &good, &n);
    for (size_t len = 0; len < n; len += len < 140 ? 1 : 1 + n / 40) {
        fix_write("bad", good, len);
        fix_err(SKF_ERR_FORMAT, fix_apply("old", "bad", "out", why));
    }
    uint8_t *longer = skf_alloc(n + 1);
    assert_non_null(longer);
    memcpy(longer, good, n);
    longer[n] = 'x';
    fix_write("bad", longer, n + 1);
    fix_err(SKF_ERR_FORMAT, fix_apply("old", "bad", "out", why));
    assert_int_equal(fix_left("out"), 0);
    skf_free(longer);
    skf_free(good);
}

static void test_cancel(void **unused)
{
    atomic_bool cancel = true;
    struct skf_delta_opts o = {.jobs = 2, .progress = {.cancel = &cancel}};
    struct skf_delta_stats s;
    (void)fix_build(&pair, "d", 2);
    fix_err(SKF_ERR_CANCELLED, skf_delta_build(pair.old, pair.neu, fix_path("out"), &o, &s, why));
    fix_err(SKF_ERR_CANCELLED, skf_delta_apply(fix_path("old"), fix_path("d"), fix_path("out"), &o, &s, why));
    assert_int_equal(fix_left("out"), 0);
}

/* What stood under the output's name stays when applying fails, and is replaced whole when it does not. */
static void test_replaces_whole(void **unused)
{
    (void)fix_build(&pair, "d", 2);
    fix_write("out", "precious", 8);
    fix_err(SKF_ERR_BASE, fix_apply("new", "d", "out", why));
    fix_same("out", "precious", 8);
    fix_ok(fix_apply("old", "d", "out", why));
    fix_same("out", pair.new_bytes.data, pair.new_bytes.len);
    (void)unlink(fix_path("out"));
}

static int setup(void **state)
{
    int r = fix_setup(state);
    if (r == 0)
        fix_models(&pair);
    if (r == 0)
        fix_small_models(&small);
    return r;
}
static int teardown(void **state)
{
    fix_close(&pair);
    fix_close(&small);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_any_bytes),    cmocka_unit_test(test_identity),
        cmocka_unit_test(test_another_base), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_cut_and_longer), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_replaces_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
