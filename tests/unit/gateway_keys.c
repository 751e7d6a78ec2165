/* gateway/: the file of keys and what it allows; histograms; turns of those who were refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "gateway/keys.h"
#include "gateway/times.h"

#define S 1000000000ull

static char alice[80], alice_line[200], bob[80], bob_line[200];

static int setup(void **state)
{
    assert_int_equal(skf_gw_key_make("alice", alice, alice_line, NULL), SKF_OK);
    assert_int_equal(skf_gw_key_make("bob", bob, bob_line, NULL), SKF_OK);
    return 0;
}
static struct gw_key *parse(const char *fmt, const char *a, const char *b)
{
    char text[2000];
    struct gw_key *keys = NULL;
    struct skf_why why = {{0}};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(text, sizeof text, fmt, a, b);
#pragma GCC diagnostic pop
    if (skf_gw_keys_parse(text, (size_t)n, 0, &keys, &why) != SKF_OK)
        fail_msg("%s", why.text);
    return keys;
}
static struct gw_key *of(struct gw_key *keys, const char *key)
{
    char header[200];
    snprintf(header, sizeof header, "Bearer %s", key);
    return skf_gw_key_of(keys, header);
}

static void test_who_is_let_in(void **state)
{
    struct gw_key *keys = parse("# note\r\n\n%s requests=5 models=a,b\n \t%s off priority=batch", alice_line, bob_line);
    assert_true(strlen(alice) == 67 && strncmp(alice, "sk-", 3) == 0 && strcmp(alice, bob) != 0);
    assert_string_equal(of(keys, alice)->name, "alice");
    assert_true(of(keys, bob)->is_batch && of(keys, bob)->is_off && !of(keys, alice)->is_batch);
    assert_null(of(keys, "sk-"));
    assert_null(of(keys, ""));
    assert_null(skf_gw_key_of(keys, NULL));
    assert_null(skf_gw_key_of(keys, alice));
    assert_null(skf_gw_key_of(keys, "Basic YTpi"));
    bob[5] ^= 1;
    assert_null(of(keys, bob));
    bob[5] ^= 1;
    struct skf_gw_refusal no;
    unsigned after;
    assert_true(is_gw_key_taken(of(keys, alice), "a", 0, &no, &after));
    assert_false(is_gw_key_taken(of(keys, alice), "c", 0, &no, &after));
    assert_int_equal(no.status, 403);
    assert_false(is_gw_key_taken(of(keys, bob), "a", 0, &no, &after));
    assert_int_equal(no.status, 403);
    skf_gw_keys_free(keys);
}

static void test_limits(void **state)
{
    struct gw_key *keys = parse("%s requests=6 tokens=600\n%s concurrent=2\n", alice_line, bob_line), *a = of(keys, alice), *b = of(keys, bob);
    struct skf_gw_refusal no;
    unsigned after;
    uint64_t ms;
    for (int i = 0; i < 6; i++)
        assert_true(is_gw_key_taken(a, "m", 1, &no, &after));
    assert_false(is_gw_key_taken(a, "m", 1, &no, &after));
    assert_true(no.status == 429 && after >= 10 && after <= 11);
    assert_int_equal(skf_gw_bucket_left(&a->requests, 1, &ms), 0);
    assert_true(ms > 59000 && ms <= 60000);
    assert_true(is_gw_key_taken(a, "m", after * S, &no, &after)); /* one has come back */
    for (int i = 0; i < 6; i++)
        skf_gw_key_end(&keys, a, 150, 11 * S);
    assert_int_equal(a->spent, 900);
    assert_false(is_gw_key_taken(a, "m", 30 * S, &no, &after)); /* overdrawn by 300 at 11 s, and there are 10 a second */
    assert_true(no.status == 429 && after >= 11 && after <= 12 && strstr(no.text, "tokens"));
    assert_true(is_gw_key_taken(a, "m", 42 * S, &no, &after));
    assert_true(is_gw_key_taken(b, "m", 0, &no, &after) && is_gw_key_taken(b, "m", 0, &no, &after));
    assert_false(is_gw_key_taken(b, "m", 0, &no, &after));
    assert_int_equal(no.status, 429);
    skf_gw_key_end(&keys, b, 5, 0);
    assert_true(is_gw_key_taken(b, "m", 0, &no, &after));
    assert_true(skf_gw_bucket_left(&a->requests, 5, &ms) <= 6); /* a clock that stands before what was does no harm */
    skf_gw_keys_free(keys);
}

static void test_a_new_file(void **state)
{
    struct gw_key *keys = parse("%s requests=2\n%s\n", alice_line, bob_line);
    struct skf_gw_refusal no;
    unsigned after;
    assert_true(is_gw_key_taken(of(keys, alice), "m", 0, &no, &after) && is_gw_key_taken(of(keys, alice), "m", 0, &no, &after));
    struct gw_key *b = of(keys, bob);
    assert_true(is_gw_key_taken(b, "m", 0, &no, &after));
    skf_gw_keys_replace(&keys, parse("%s requests=10\n", alice_line, ""));
    assert_null(of(keys, bob));
    assert_int_equal(b->running, 1); /* it is there still for what runs */
    assert_false(is_gw_key_taken(of(keys, alice), "m", 0, &no, &after)); /* and no reload fills a bucket */
    skf_gw_key_end(&keys, b, 5, 0);
    assert_true(keys && !keys->next && keys->running == 2);
    skf_gw_keys_replace(&keys, NULL);
    assert_null(of(keys, alice));
    skf_gw_key_end(&keys, keys, 0, 0);
    skf_gw_key_end(&keys, keys, 0, 0);
    assert_null(keys);
}

static void test_bad_files(void **state)
{
    static const char d[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct {
        const char *before, *after, *want;
    } bad[] = {{"a ", "", "line 1"}, {"a sha256:", "0", "line 1"}, {"a sha256:", " requests=0", "requests=0"}, {"a sha256:", " requests=-1", "requests"},
               {"a sha256:", " tokens=1e9", "tokens"}, {"a sha256:", " requests=99999999999999999999", "requests"}, {"a sha256:", " models=", "models"},
               {"a sha256:", " priority=high", "priority"}, {"a sha256:", " on", "neither"}, {"a/b sha256:", "", "name"}, {"\n\na sha256:", "\na sha256:", "line 4"},
               {"a sha256:", "\nb sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "that of a"}};
    char text[4000];
    struct gw_key *keys;
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_why why = {{0}};
        int n = snprintf(text, sizeof text, "%s%s%s", bad[i].before, d, bad[i].after);
        assert_int_equal(skf_gw_keys_parse(text, (size_t)n, 0, &keys, &why), SKF_ERR_FORMAT);
        if (!strstr(why.text, bad[i].want))
            fail_msg("case %zu: %s", i, why.text);
        assert_null(keys);
    }
    assert_int_equal(skf_gw_keys_parse("a\0b", 3, 0, &keys, NULL), SKF_ERR_FORMAT);
    struct skf_buf many = SKF_BUF_INIT(4 << 20);
    for (int i = 0; i <= GW_KEYS_MAX; i++)
        assert_int_equal(skf_buf_printf(&many, "k%d sha256:%064d\n", i, i), SKF_OK);
    assert_int_equal(skf_gw_keys_parse((char *)many.data, many.len, 0, &keys, NULL), SKF_ERR_LIMIT);
    assert_int_equal(skf_gw_keys_parse((char *)many.data, GW_KEY_FILE + 1, 0, &keys, NULL), SKF_ERR_LIMIT);
    skf_buf_free(&many);
    assert_int_equal(skf_gw_key_make("a b", text, text, NULL), SKF_ERR_ARG);
}

static void test_histograms(void **state)
{
    struct gw_hist h = {.sum_ns = 0};
    struct skf_buf b = SKF_BUF_INIT(10000);
    const char *s;
    const uint64_t times[] = {0, 1000000, 1000001, 60 * S, 61 * S};
    for (size_t i = 0; i < SKF_COUNT(times); i++)
        skf_gw_hist_add(&h, times[i]);
    assert_int_equal(skf_gw_hist_put(&b, "x_seconds", "What.", &h), SKF_OK);
    assert_int_equal(skf_buf_cstr(&b, &s), SKF_OK);
    assert_non_null(strstr(s, "# TYPE skiff_x_seconds histogram\nskiff_x_seconds_bucket{le=\"0.001\"} 2\nskiff_x_seconds_bucket{le=\"0.0025\"} 3\n"));
    assert_non_null(strstr(s, "skiff_x_seconds_bucket{le=\"60\"} 4\nskiff_x_seconds_bucket{le=\"+Inf\"} 5\nskiff_x_seconds_sum 121.002"));
    assert_non_null(strstr(s, "skiff_x_seconds_count 5\n"));
    skf_buf_free(&b);
}

/* Places become free every two seconds: each who is refused is told a later one, and what is not used is forgotten. */
static void test_turns(void **state)
{
    struct gw_turns t = {0};
    assert_int_equal(skf_gw_turns_next(&t, 5 * S, 0), 1); /* nothing is known */
    t = (struct gw_turns){0};
    for (uint64_t i = 1; i <= 50; i++)
        skf_gw_turns_end(&t, 2 * i * S, 0);
    unsigned last = 0;
    for (int i = 0; i < 10; i++) {
        unsigned next = skf_gw_turns_next(&t, 100 * S, 0);
        assert_true(next >= last + 1 && next <= last + 3);
        last = next;
    }
    assert_true(last >= 18 && last <= 22);
    assert_int_equal(skf_gw_turns_next(&t, 100 * S, 60 * S), 60); /* the worker knows better */
    for (int i = 0; i < 1000; i++)
        assert_true(skf_gw_turns_next(&t, 100 * S, 0) <= 120);
    assert_true(skf_gw_turns_next(&t, 400 * S, 0) <= 3);
    skf_gw_turns_end(&t, 4000 * S, 3999 * S); /* an hour of rest is no slow hour */
    assert_true(t.each_ns < 2 * S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_let_in), cmocka_unit_test(test_limits),     cmocka_unit_test(test_a_new_file),
        cmocka_unit_test(test_bad_files),     cmocka_unit_test(test_histograms), cmocka_unit_test(test_turns),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
