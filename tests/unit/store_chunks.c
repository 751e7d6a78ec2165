/* Chunks, opening, limits of the store. */
#include "tests/lib/store_fix.h"

#include <sys/wait.h>

static void test_put_has(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1", 12, 100, 0, 0, 70000);
    for (unsigned i = 0; i < 12; i++)
        assert_false(has_store_chunk(s, f->chunks[i].digest));
    fix_put(s, f);
    for (unsigned i = 0; i < 12; i++)
        assert_true(has_store_chunk(s, f->chunks[i].digest));
    struct skf_store_stats a, b;
    fix_ok(skf_store_stats(s, &a, why));
    assert_int_equal(a.chunks, 12);
    assert_int_equal(a.chunk_bytes, f->v.size);
    assert_true(a.used_bytes <= a.file_bytes && a.used_bytes > a.chunk_bytes);
    fix_put(s, f); /* again: no byte more */
    fix_ok(skf_store_stats(s, &b, why));
    assert_int_equal(a.file_bytes, b.file_bytes);
    skf_store_close(s);

    s = fix_open(dir, SKF_STORE_READ);
    for (unsigned i = 0; i < 12; i++)
        assert_true(has_store_chunk(s, f->chunks[i].digest));
    struct skf_store_put put = {f->chunks[0].digest, f->bytes[0], f->chunks[0].length};
    fix_err(SKF_ERR_STATE, skf_store_put(s, &put, 1, why));
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store_opts o = {.mode = SKF_STORE_READ};
    struct skf_store *s;
    fix_err(SKF_ERR_NOT_FOUND, skf_store_open("/nonexistent/store", &o, &s, why));
    assert_null(s);
    fix_err(SKF_ERR_ARG, skf_store_open("", &o, &s, why));
    s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    uint8_t digest[SKF_DIGEST] = {0};
    struct skf_store_put empty = {digest, "", 0};
    fix_err(SKF_ERR_ARG, skf_store_put(s, &empty, 1, why));
    fix_ok(skf_store_put(s, NULL, 0, why));
    skf_store_close(s);
    skf_store_close(NULL);
    fix_remove(dir);
}

static void test_one_writer(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP};
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE), *second;
    fix_err(SKF_ERR_BUSY, skf_store_open(dir, &o, &second, why));
    assert_null(second);
    skf_store_close(s);
    s = fix_open(dir, SKF_STORE_WRITE); /* the refused one left no lock behind */
    skf_store_close(s);
    fix_remove(dir);
}

static void test_not_a_store(void **state)
{
    (void)state;
    char dir[64], path[96];
    fix_dir(dir);
    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 40000; i++)
        (void)fputc(i & 255, f);
    (void)fclose(f);
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = FIX_MAP};
    struct skf_store *s;
    fix_err(SKF_ERR_FORMAT, skf_store_open(dir, &o, &s, why));
    o.mode = SKF_STORE_READ;
    fix_err(SKF_ERR_FORMAT, skf_store_open(dir, &o, &s, why));
    fix_remove(dir);
}

static void test_verify_finds_a_flipped_byte(void **state)
{
    (void)state;
    char dir[64], path[96];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1", 6, 500, 0, 0, 9000);
    fix_install(s, f);
    fix_ok(skf_store_verify(s, why));
    skf_store_close(s);
    (void)snprintf(path, sizeof path, "%s/data.mdb", dir);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    static uint8_t all[1 << 20];
    size_t n = fread(all, 1, sizeof all, file);
    uint8_t *at = memmem(all, n, f->bytes[4], f->chunks[4].length);
    assert_non_null(at);
    (void)fseek(file, at - all + 4321, SEEK_SET);
    (void)fputc(at[4321] ^ 1, file);
    (void)fclose(file);
    s = fix_open(dir, SKF_STORE_WRITE);
    fix_err(SKF_ERR_DIGEST, skf_store_verify(s, why));
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_has),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_one_writer),
        cmocka_unit_test(test_not_a_store),
        cmocka_unit_test(test_verify_finds_a_flipped_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
