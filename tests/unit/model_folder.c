/* A folder's files as one content: what comes back of its list, and lists that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/folder.h"
#include "model/model.h"

static char dir[64];

static void put(const char *name, const char *text, size_t n)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(skf_file_write(path, text, n, 0644, NULL), SKF_OK);
}

static int make_dir(void **state)
{
    (void)snprintf(dir, sizeof dir, "/tmp/skf-folder-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    static const char *const names[] = {"b.safetensors", "a.safetensors", "z.json", "empty", ".dot"};
    char path[160];
    for (size_t i = 0; i < SKF_COUNT(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    return rmdir(dir);
}

#define SHARD(name) "\x35\0\0\0\0\0\0\0{\"" name "\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}xyz"

static void one_content_of_files(void **state)
{
    struct skf_model *m;
    struct skf_folder_file *files;
    size_t n;
    uint8_t all[1024];
    put("b.safetensors", SHARD("b"), sizeof SHARD("b") - 1);
    put("a.safetensors", SHARD("a"), sizeof SHARD("a") - 1);
    put("z.json", "{}\n", 3);
    put("empty", "", 0);
    put(".dot", "not carried", 11);
    struct skf_why why = {{0}};
    if (skf_model_open_folder(dir, &m, &why) != SKF_OK)
        fail_msg("%s", why.text);
    const struct skf_source *s = skf_model_source(m);
    assert_int_equal(skf_model_format(m), SKF_FORMAT_SAFETENSORS);
    assert_non_null(skf_model_find(m, "a"));
    assert_non_null(skf_model_find(m, "b"));
    assert_non_null(skf_model_find(m, "/z.json"));
    assert_true(s->size < sizeof all);
    assert_int_equal(skf_source_read(s, 0, all, s->size), SKF_OK);
    assert_int_equal(skf_folder_list(all, s->size, s->size, &files, &n, &why), SKF_OK);
    assert_int_equal(n, 4);
    static const char *const names[] = {"empty", "z.json", "a.safetensors", "b.safetensors"};
    static const uint64_t bytes[] = {0, 3, sizeof SHARD("a") - 1, sizeof SHARD("b") - 1};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(files[i].name, names[i]);
        assert_int_equal(files[i].bytes, bytes[i]);
    }
    assert_memory_equal(all + files[1].offset, "{}\n", 3);
    assert_memory_equal(all + files[3].offset, SHARD("b"), sizeof SHARD("b") - 1);
    skf_free(files);
    assert_int_equal(skf_folder_list(all, s->size, s->size + 1, &files, &n, &why), SKF_ERR_FORMAT); /* a byte that is no file's */
    skf_model_close(m);
}

static enum skf_err list(const char *json, size_t data, size_t *n)
{
    static uint8_t all[2048];
    struct skf_folder_file *files;
    size_t len = strlen(json);
    memset(all, 0, sizeof all);
    all[0] = (uint8_t)len;
    all[1] = (uint8_t)(len >> 8);
    memcpy(all + 8, json, len);
    enum skf_err e = skf_folder_list(all, 8 + len + data, 8 + len + data, &files, n, NULL);
    skf_free(files);
    return e;
}

#define META(lines) "{\"__metadata__\":{\"skiff.folder\":\"" lines "\"}"
#define OTHER(name, a, b) ",\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" a "," b "]}"

static void lists_that_lie(void **state)
{
    size_t n;
    assert_int_equal(list(META("3 a\\n"), 3, &n), SKF_OK); /* no JSON: not one of ours */
    assert_int_equal(n, 0);
    assert_int_equal(list("{\"a\":1}", 3, &n), SKF_OK);
    assert_int_equal(n, 0);
    assert_int_equal(list(META("3 a\\n") "}", 3, &n), SKF_OK);
    assert_int_equal(n, 1);
    assert_int_equal(list(META("1 b\\n") OTHER("/a", "0", "2") "}", 3, &n), SKF_OK);
    assert_int_equal(n, 2);
    static const char *const lies[] = {
        META("") "}",                                      /* no files */
        META("2 a\\n") "}",                                /* a byte too few */
        META("4 a\\n") "}",                                /* too many */
        META("18446744073709551615 a\\n") "}",
        META("99999999999999999999 a\\n") "}",
        META("3 a") "}",                                   /* no end of line */
        META("-3 a\\n") "}", META(" 3 a\\n") "}", META("3a\\n") "}", META("3 \\n") "}", META("\\n") "}",
        META("3 ../a\\n") "}", META("3 /a\\n") "}", META("3 .a\\n") "}", META("3 a/b\\n") "}", META("3 a\\u0007\\n") "}",
        META("1 a\\n2 a\\n") "}",                          /* twice */
        META("2 a\\n") OTHER("/a", "0", "1") "}",
        META("2 b\\n") OTHER("a", "0", "1") "}",           /* no slash before it */
        META("2 b\\n") OTHER("/a", "1", "2") "}",          /* a hole */
        META("2 b\\n") OTHER("/a", "0", "-1") "}",
        META("") OTHER("/a", "2", "3") OTHER("/b", "0", "2") "}",
        META("2 b\\n") ",\"/a\":1}",
    };
    for (size_t i = 0; i < SKF_COUNT(lies); i++)
        if (list(lies[i], 3, &n) != SKF_ERR_FORMAT)
            fail_msg("taken: %s", lies[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_content_of_files, make_dir, remove_dir),
        cmocka_unit_test(lists_that_lie),
    };
    return cmocka_run_group_tests_name("model_folder", tests, NULL, NULL);
}
