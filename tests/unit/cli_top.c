/* cli/: what `skiff top` reads of metrics, and what it makes of two readings. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/top.h"

static enum skf_err read_text(const char *s, struct top_reading *r) { return skf_top_read(s, strlen(s), r, NULL); }

static void test_reading(void **state)
{
    static struct top_reading r;
    assert_int_equal(read_text("# HELP x y\nskiff_tokens_total 12.5\nskiff_requests_active 3 1700000000\nother{a=\"b\",c=\"}\"} 1\n"
                               "skiff_worker_up{model=\"m\\\"x\",version=\"v\",socket=\"/s\"} 1\nskiff_worker_slots{model=\"m\\\"x\",version=\"v\",socket=\"/s\"} 4\n"
                               "skiff_worker_up{model=\"m2\",version=\"\033[2J\",socket=\"/t\"} 0\nskiff_worker_new{model=\"m2\",version=\"v\",socket=\"/t\"} 9\n"
                               "skiff_time_to_first_token_seconds_bucket{le=\"0.5\"} 2\nskiff_time_to_first_token_seconds_bucket{le=\"+Inf\"} 4",
                               &r),
                     SKF_OK);
    assert_true(r.tokens == 12.5 && r.active == 3 && r.n_workers == 3);
    assert_string_equal(r.workers[0].model, "m\"x");
    assert_true(r.workers[0].slots == 4 && r.workers[0].up == 1);
    assert_string_equal(r.workers[1].version, "[2J"); /* nothing that a terminal would obey */
    assert_true(r.first.n == 2 && isinf(r.first.le[1]));
}

static void test_no_metrics(void **state)
{
    static struct top_reading r;
    static const char *const bad[] = {"", "<html>", "skiff_tokens_total", "skiff_tokens_total x", "skiff_tokens_total{le=\"", "skiff_tokens_total{le=\"\\", "up 1\n", "{} 1",
                                      "skiff_tokens_total{=} 1", "a{b=\"c\" 1", "# only\n"};
    char many[200000];
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        assert_int_equal(read_text(bad[i], &r), SKF_ERR_FORMAT);
    memset(many, 'x', sizeof many);
    assert_int_equal(skf_top_read(many, sizeof many, &r, NULL), SKF_ERR_FORMAT);
    assert_int_equal(skf_top_read("skiff_\0 1", 9, &r, NULL), SKF_ERR_FORMAT);
    size_t n = 0; /* more workers and buckets than there is room for */
    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "skiff_worker_up{model=\"m%d\",version=\"v\",socket=\"s\"} 1\nskiff_time_to_first_token_seconds_bucket{le=\"%d\"} 1\n", i, i);
    assert_int_equal(skf_top_read(many, n, &r, NULL), SKF_OK);
    assert_true(r.n_workers == TOP_WORKERS && r.first.n == TOP_BUCKETS);
}

static void test_two_readings(void **state)
{
    static struct top_reading a, b;
    struct top_view v;
    a = b = (struct top_reading){.at_ns = 1000000000};
    b.at_ns = 3000000000;
    a.tokens = 100;
    b.tokens = 300;
    b.prompt_tokens = 200;
    b.cached_tokens = 50;
    a.first = (struct top_hist){.le = {0.1, 1, INFINITY}, .count = {10, 10, 10}, .n = 3};
    b.first = (struct top_hist){.le = {0.1, 1, INFINITY}, .count = {10, 19, 20}, .n = 3};
    skf_top_view(&a, &b, &v);
    assert_true(v.tokens_per_s == 100 && v.cache_share == 0.25);
    assert_true(v.first_p50 > 0.5 && v.first_p50 < 0.7 && v.first_p99 == 1 && isnan(v.between_p50));
    skf_top_view(NULL, &b, &v);
    assert_true(v.tokens_per_s == 0 && v.first_p50 > 0.099 && v.first_p50 <= 0.1);
    b.tokens = 20; /* started anew */
    b.first.count[0] = b.first.count[1] = b.first.count[2] = 4;
    skf_top_view(&a, &b, &v);
    assert_true(v.tokens_per_s == 10 && v.first_p50 == 0.05);
    skf_top_view(&a, &a, &v);
    assert_true(v.tokens_per_s == 0 && isnan(v.first_p50) && isnan(v.cache_share));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reading), cmocka_unit_test(test_no_metrics), cmocka_unit_test(test_two_readings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
