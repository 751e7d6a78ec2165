/* A rate of download: never faster, over breaks and cancels too, and nothing is asked for earlier than it may be. */
#include "tests/lib/agent_fix.h"

static char full1[SKF_AGENT_PATH];

static int setup(void **state)
{
    struct fix *f = fix_new();
    fix_content(f, "empty", 0, 0, 0);
    fix_content(f, "1", (3u << 20) + 12345, 1, 0);
    fix_publish(f, "1", "1");
    fix_delta(f, "empty", "1", full1);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    fix_free(*state);
    return 0;
}

static void test_none(void **state)
{
    struct skf_pace p = {.rate = 0};
    assert_int_equal(skf_pace_question(NULL, 99), 99);
    assert_int_equal(skf_pace_question(&p, 99), 99);
    assert_int_equal(skf_pace_due(NULL, UINT64_MAX, 7), 7);
    skf_pace_charge(&p, UINT64_MAX, 7);
    skf_pace_charge(NULL, 1, 7);
    assert_int_equal(skf_pace_due(&p, UINT64_MAX, 7), 7);
}

/* What was asked for by any time is at most the rate's. */
static void test_never_faster(void **state)
{
    struct skf_pace p = {.rate = 500000};
    uint64_t begun = 1000 * SKF_SECOND, now = begun, all = 0;
    skf_pace_begin(&p, begun);
    assert_int_equal(skf_pace_question(&p, 4u << 20), 125000);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t bytes = 1 + i * 7919 % 300000;
        uint64_t due = skf_pace_due(&p, bytes, now);
        now = SKF_MAX(now, due) + (i % 17 == 0 ? 3 * SKF_SECOND : 0); /* now and then somebody sleeps over it */
        skf_pace_charge(&p, bytes, now);
        all += bytes;
        assert_true((double)all <= 500000.0 * ((double)(now - begun) / 1e9) + 1);
    }
    for (unsigned i = 0; i < 10; i++) { /* and at the rate itself when nothing holds it up */
        uint64_t due = skf_pace_due(&p, 250000, now);
        assert_true(i == 0 || due - now == SKF_SECOND / 2);
        now = SKF_MAX(now, due);
        skf_pace_charge(&p, 250000, now);
    }
    p = (struct skf_pace){.rate = 1000};
    assert_int_equal(skf_pace_question(&p, 4u << 20), 250);
    assert_int_equal(skf_pace_due(&p, 1u << 30, 0), (uint64_t)(1u << 30) * 1000000); /* no overflow */
}

/* All of it takes as long as the rate says, with breaks in between; a broken link's payloads are paid for again. */
static void test_install(void **state)
{
    struct fix *f = *state;
    f->pace.rate = 4000000;
    uint64_t begun = skf_now_ns();
    f->break_every = 2;
    fix_ok(fix_install(f, "1", full1, why));
    fix_check_version(f, "1");
    double seconds = (double)(skf_now_ns() - begun) / 1e9;
    assert_true(f->bytes > 3000000);
    assert_true(seconds >= (double)f->bytes / 4000000);
    assert_true(f->waits >= 1);
}

static void *cancel_soon(void *ctx)
{
    struct fix *f = ctx;
    skf_sleep_ms(150);
    atomic_store(&f->cancel, true);
    return NULL;
}

static void test_cancel(void **state)
{
    struct fix *f = *state;
    struct skf_why said = {{0}};
    pthread_t t;
    f->pace.rate = 1000; /* a chunk takes minutes */
    assert_int_equal(pthread_create(&t, NULL, cancel_soon, f), 0);
    assert_int_equal(fix_install(f, "1", full1, &said), SKF_ERR_CANCELLED);
    (void)pthread_join(t, NULL);
    assert_int_equal(f->bytes, 0);
    fix_reset(f);
    f->pace = (struct skf_pace){.rate = 0};
    fix_ok(fix_install(f, "1", full1, why));
    fix_check_version(f, "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_never_faster),
        cmocka_unit_test_setup_teardown(test_install, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
