/* Canonical JSON byte for byte (expected values are securesystemslib's), path patterns, and reading of metadata names.
 */
#include "tests/lib/trust_fix.h"
#include "trust/tuf_priv.h"

static void canon(const char *in, const char *want)
{
    skf_json *j;
    struct skf_buf b = SKF_BUF_INIT(65536);
    const char *text;
    fix_ok(skf_json_parse(in, strlen(in), 80, &j, why));
    fix_ok(skf_tuf_canonical(j, &b));
    fix_ok(skf_buf_cstr(&b, &text));
    assert_string_equal(text, want);
    skf_buf_free(&b);
    skf_json_free(j);
}

static void test_canonical(void **state)
{
    (void)state;
    canon("\"\"", "\"\"");
    canon("[1, 2, -3, 9223372036854775807]", "[1,2,-3,9223372036854775807]");
    canon("{\"y\": 2, \"x\": {\"b\": [], \"a\": {}}}", "{\"x\":{\"a\":{},\"b\":[]},\"y\":2}");
    canon("[true, false, null]", "[true,false,null]");
    /* only quote and backslash are escaped; a line feed, a slash and other letters stand as they are */
    canon("\"a\\\"b\\\\c\\/d\\n\\u00e9\\u0001\"", "\"a\\\"b\\\\c/d\n\xc3\xa9\x01\"");
    /* by code point, which is not UTF-16's order: U+FF61 before U+1F600, capitals before small letters, "a" before "aa"
     */
    canon("{\"\\ud83d\\ude00\":1,\"\\uff61\":2,\"b\":3,\"B\":4,\"aa\":5,\"a\":6,\"\":7}",
          "{\"\":7,\"B\":4,\"a\":6,\"aa\":5,\"b\":3,\"\xef\xbd\xa1\":2,\"\xf0\x9f\x98\x80\":1}");
}

static void test_not_canonical(void **state)
{
    (void)state;
    static const char *const bad[] = {"1.0", "[1e3]", "{\"a\":[{\"b\":-0.5}]}"};
    struct skf_buf b = SKF_BUF_INIT(65536);
    skf_json *j;
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        fix_ok(skf_json_parse(bad[i], strlen(bad[i]), 8, &j, why));
        assert_int_equal(skf_tuf_canonical(j, &b), SKF_ERR_FORMAT);
        assert_int_equal(b.len, 0);
        skf_json_free(j);
    }
    char deep[200] = {0};
    memset(deep, '[', 70);
    memset(deep + 70, ']', 70);
    fix_ok(skf_json_parse(deep, 140, 100, &j, why));
    assert_int_equal(skf_tuf_canonical(j, &b), SKF_ERR_LIMIT);
    skf_json_free(j);
    struct skf_buf small = SKF_BUF_INIT(4);
    fix_ok(skf_json_parse("[1,2,3]", 7, 100, &j, why));
    assert_int_equal(skf_tuf_canonical(j, &small), SKF_ERR_LIMIT);
    skf_json_free(j);
    skf_buf_free(&small);
    skf_buf_free(&b);
}

static void test_match(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool want;
    } cases[] = {
        {"deltas/*", "deltas/a-b.skdx", true},
        {"deltas/*", "deltas/", true},
        {"deltas/*", "deltas", false},
        {"deltas/*", "deltas/a/b", false},
        {"deltas/*", "models/a", false},
        {"*", "a", true},
        {"*", "a/b", false},
        {"*/*", "a/b", true},
        {"*.md", "README.md", true},
        {"*.md", "README.MD", false},
        {"foo-?.tgz", "foo-1.tgz", true},
        {"foo-?.tgz", "foo-12.tgz", false},
        {"foo-?.tgz", "foo-\xc3\xa9.tgz", true},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true},
        {"[!a-c]x", "ax", false},
        {"[]]x", "]x", true},
        {"[x", "[x", true},
        {"[x", "x", false},
        {"[a-]", "-", true},
        {"a?b", "a/b", false},
        {"a[/]b", "a/b", false},
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"**a**", "xxaxx", true},
        {"\\*", "*", false},
        {"\\*", "\\x", true},
        {"^[^a]", "^^", true},
        {"releases/*/*", "releases/x/x_v1", true},
        {"releases/y/*.zip", "releases/y/y.zip", true},
    };
    for (size_t i = 0; i < SKF_COUNT(cases); i++)
        if (is_tuf_match(cases[i].pattern, cases[i].path) != cases[i].want)
            fail_msg("%s against %s", cases[i].pattern, cases[i].path);
    /* what makes other matchers take for ever */
    char pattern[2001], path[2001];
    for (int i = 0; i < 2000; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[2000] = 0;
    memset(path, 'a', 1999);
    path[1999] = 'b';
    path[2000] = 0;
    assert_false(is_tuf_match(pattern, path));
}

static void test_delegated(void **state)
{
    (void)state;
    skf_json *j;
    /* SHA-256 of "file1" begins with c147efcf */
    static const char by_hash[] = "{\"path_hash_prefixes\":[\"00\",\"c147\"]}",
                      none[] = "{\"path_hash_prefixes\":[\"d\"]}";
    fix_ok(skf_json_parse(by_hash, strlen(by_hash), 8, &j, why));
    assert_true(is_tuf_delegated(j, "file1"));
    assert_false(is_tuf_delegated(j, "file2"));
    skf_json_free(j);
    fix_ok(skf_json_parse(none, strlen(none), 8, &j, why));
    assert_false(is_tuf_delegated(j, "file1"));
    skf_json_free(j);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b", "deltas/x", "..a", "a..", "a/...b"};
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "./a"};
    char name[SKF_TUF_NAME_MAX + 1], big[400];
    for (size_t i = 0; i < SKF_COUNT(good); i++)
        assert_true(is_tuf_path(good[i]));
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        assert_false(is_tuf_path(bad[i]));
    assert_false(is_tuf_path(NULL));
    fix_ok(skf_tuf_file_name(name, 3, "../x y?#", why));
    assert_string_equal(name, "3...%2Fx%20y%3F%23.json");
    fix_ok(skf_tuf_file_name(name, 0, "targets", why));
    assert_string_equal(name, "targets.json");
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    fix_err(SKF_ERR_LIMIT, "too long", skf_tuf_file_name(name, 1, big, why));
    big[249] = 0; /* fits quoted, but not with version and ending */
    fix_err(SKF_ERR_LIMIT, "too long", skf_tuf_file_name(name, 1, big, why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_canonical), cmocka_unit_test(test_not_canonical),
                                       cmocka_unit_test(test_match), cmocka_unit_test(test_delegated),
                                       cmocka_unit_test(test_names)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
