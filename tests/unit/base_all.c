/* base/: buffers, readers, digests, time, files that last, parallel loops, JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/json.h"
#include "base/util.h"

static void test_buffer_keeps_its_limit(void **state)
{
    struct skf_buf b = SKF_BUF_INIT(10);
    assert_int_equal(skf_buf_put(&b, "12345678", 8), SKF_OK);
    assert_int_equal(skf_buf_u32(&b, 1), SKF_ERR_LIMIT);
    assert_int_equal(b.len, 8); /* as it was */
    assert_int_equal(skf_buf_u16(&b, 0x4241), SKF_OK);
    assert_memory_equal(b.data, "12345678AB", 10);
    assert_int_equal(skf_buf_put(&b, "", SIZE_MAX), SKF_ERR_LIMIT);
    skf_buf_free(&b);
    struct skf_buf p = SKF_BUF_INIT(6);
    assert_int_equal(skf_buf_printf(&p, "%d", 12345), SKF_OK);
    assert_int_equal(skf_buf_printf(&p, "%d", 6), SKF_ERR_LIMIT); /* the NUL would not fit */
    assert_int_equal(p.len, 5);
    skf_buf_free(&p);
}

static void test_reader_stops_at_its_end(void **state)
{
    const uint8_t in[] = {1, 2, 3, 4, 5};
    struct skf_reader r = skf_reader_of(in, sizeof in);
    uint32_t v;
    uint64_t w;
    assert_int_equal(skf_get_u32(&r, &v), SKF_OK);
    assert_int_equal(v, 0x04030201);
    assert_int_equal(skf_get_u64(&r, &w), SKF_ERR_FORMAT);
    assert_int_equal(skf_reader_left(&r), 1);
    const uint8_t *p;
    assert_int_equal(skf_get_bytes(&r, UINT64_MAX, &p), SKF_ERR_FORMAT);
}

static void hex_of(const void *p, size_t n, const char *want)
{
    uint8_t d[SKF_DIGEST];
    char text[SKF_HEX];
    skf_sha256(p, n, d);
    skf_hex(d, sizeof d, text);
    assert_string_equal(text, want);
}

static void test_sha256_is_fips_180(void **state)
{
    hex_of("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hex_of("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    uint8_t d[SKF_DIGEST];
    assert_int_equal(skf_unhex("zz", d, 1), SKF_ERR_FORMAT);
    assert_int_equal(skf_unhex("abc", d, 1), SKF_ERR_FORMAT);
    assert_int_equal(skf_unhex("aB", d, 1), SKF_OK);
    assert_int_equal(d[0], 0xab);
}

/* The definition in digest.h, written out recursively: what the streaming form must come to. */
static void slow_root(uint8_t (*leaf)[SKF_DIGEST], size_t n, uint8_t out[SKF_DIGEST])
{
    if (n == 1) {
        memcpy(out, leaf[0], SKF_DIGEST);
        return;
    }
    size_t k = 1;
    while (k * 2 < n)
        k *= 2;
    uint8_t t[1 + 2 * SKF_DIGEST] = {1};
    slow_root(leaf, k, t + 1);
    slow_root(leaf + k, n - k, t + 1 + SKF_DIGEST);
    skf_sha256(t, sizeof t, out);
}

static void test_merkle_equals_its_definition(void **state)
{
    static uint8_t leaf[70][SKF_DIGEST];
    for (size_t n = 1; n <= 70; n++) {
        struct skf_merkle m;
        skf_merkle_init(&m);
        uint64_t size = 0;
        for (size_t i = 0; i < n; i++) {
            uint8_t d[SKF_DIGEST], t[9 + SKF_DIGEST] = {0};
            skf_sha256(&i, sizeof i, d);
            skf_merkle_add(&m, d, 100 + i);
            skf_put_le64(t + 1, 100 + i);
            memcpy(t + 9, d, SKF_DIGEST);
            skf_sha256(t, sizeof t, leaf[i]);
            size += 100 + i;
        }
        uint8_t got[SKF_DIGEST], want[SKF_DIGEST], t[17 + SKF_DIGEST] = {2};
        skf_merkle_root(&m, got);
        skf_put_le64(t + 1, size);
        skf_put_le64(t + 9, n);
        slow_root(leaf, n, t + 17);
        skf_sha256(t, sizeof t, want);
        assert_memory_equal(got, want, SKF_DIGEST);
    }
}

static void test_time_goes_both_ways(void **state)
{
    const int64_t times[] = {0, 951782399, 951782400, 1709164800, 1763719200, 4102444799, 253402300799};
    for (size_t i = 0; i < SKF_COUNT(times); i++) {
        char text[21];
        int64_t back;
        skf_time_text(times[i], text);
        assert_int_equal(skf_time_parse(text, &back), SKF_OK);
        assert_int_equal(back, times[i]);
    }
    char text[21];
    skf_time_text(951782400, text);
    assert_string_equal(text, "2000-02-29T00:00:00Z");
    int64_t v;
    const char *const bad[] = {"", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00",
                               "2026-01-01 00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00.0Z"};
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        assert_int_equal(skf_time_parse(bad[i], &v), SKF_ERR_FORMAT);
}

static int fail_step(void *ctx, const char *step, const char *path) { return strcmp(step, ctx) == 0 ? EIO : 0; }

static void test_file_is_old_or_new(void **state)
{
    char dir[] = "/tmp/skf-base-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(skf_path(path, sizeof path, dir, "f"), SKF_OK);
    assert_int_equal(skf_file_write(path, "old", 3, 0600, NULL), SKF_OK);
    const char *const steps[] = {"write", "fsync", "rename"};
    for (size_t i = 0; i < SKF_COUNT(steps); i++) {
        struct skf_why why = {{0}};
        skf_file_hook(fail_step, (void *)(uintptr_t)steps[i]);
        assert_int_equal(skf_file_write(path, "new", 3, 0600, &why), SKF_ERR_IO);
        assert_non_null(strstr(why.text, path));
        skf_file_hook(NULL, NULL);
        uint8_t *p;
        size_t n;
        assert_int_equal(skf_file_read(path, 10, &p, &n, NULL), SKF_OK);
        assert_string_equal((char *)p, "old");
        skf_free(p);
    }
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_file_read(path, 2, &p, &n, NULL), SKF_ERR_LIMIT);
    /* What a process that was killed leaves is swept, and nothing else. */
    char left[80];
    (void)snprintf(left, sizeof left, "%s.17.0.part", path);
    assert_int_equal(skf_file_write(left, "ne", 2, 0600, NULL), SKF_OK);
    skf_draft_sweep(dir);
    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0); /* nothing was left beside it */
}

static enum skf_err add_up(void *ctx, unsigned worker, uint64_t i, struct skf_why *why)
{
    if (i == 700)
        return skf_fail(why, SKF_ERR_LIMIT, "seven hundred");
    atomic_fetch_add((atomic_uint_fast64_t *)ctx, i);
    return SKF_OK;
}

static void test_parallel_loop_covers_all_and_reports(void **state)
{
    atomic_uint_fast64_t sum = 0;
    assert_int_equal(skf_par_for(4, 500, add_up, &sum, NULL), SKF_OK);
    assert_int_equal(atomic_load(&sum), 500 * 499 / 2);
    struct skf_why why = {{0}};
    assert_int_equal(skf_par_for(3, 1000, add_up, &sum, &why), SKF_ERR_LIMIT);
    assert_string_equal(why.text, "seven hundred");
    assert_int_equal(skf_par_for(3, 0, add_up, &sum, NULL), SKF_OK);
}

static void test_json_is_bounded(void **state)
{
    skf_json *j = NULL;
    assert_int_equal(skf_json_parse("[[[[1]]]]", 9, 3, &j, NULL), SKF_ERR_LIMIT);
    assert_int_equal(skf_json_parse("{\"a\":1,\"a\":2}", 13, 3, &j, NULL), SKF_ERR_FORMAT);
    assert_int_equal(skf_json_parse("{} x", 4, 3, &j, NULL), SKF_ERR_FORMAT);
    assert_int_equal(skf_json_parse("{\"a\":[1,\"[[[[\"]}", 16, 2, &j, NULL), SKF_OK);
    assert_int_equal(skf_json_i64(skf_json_at(skf_json_get(j, "a"), 0), -1), 1);
    assert_null(skf_json_get(skf_json_at(skf_json_get(j, "b"), 0), "c"));
    skf_json_free(j);
}

static void test_error_line_is_one_line(void **state)
{
    struct skf_why why = {{0}};
    assert_int_equal(skf_fail(&why, SKF_ERR_FORMAT, "%s: bad", "a\nb\033[0m"), SKF_ERR_FORMAT);
    assert_string_equal(why.text, "a?b?[0m: bad");
    assert_int_equal(skf_fail_prefix(&why, SKF_ERR_FORMAT, "file"), SKF_ERR_FORMAT);
    assert_string_equal(why.text, "file: a?b?[0m: bad");
    assert_int_equal(skf_fail_errno(&why, ENOSPC, "x"), SKF_ERR_FULL);
    for (int e = 0; e < SKF_ERR_COUNT_; e++)
        assert_string_not_equal(skf_err_name((enum skf_err)e), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer_keeps_its_limit),
        cmocka_unit_test(test_reader_stops_at_its_end),
        cmocka_unit_test(test_sha256_is_fips_180),
        cmocka_unit_test(test_merkle_equals_its_definition),
        cmocka_unit_test(test_time_goes_both_ways),
        cmocka_unit_test(test_file_is_old_or_new),
        cmocka_unit_test(test_parallel_loop_covers_all_and_reports),
        cmocka_unit_test(test_json_is_bounded),
        cmocka_unit_test(test_error_line_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
