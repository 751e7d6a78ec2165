/* Unary calls: answers, errors both ways, deadlines, the health service. */
#include "tests/lib/wire_fix.h"

struct pair {
    struct server_side side;
    struct skf_wire_server *srv;
    struct skf_wire_channel *c;
};

static int up(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    p->side = (struct server_side){.all = RECORD_INIT};
    p->srv = serve(&p->side);
    p->c = dial(p->srv);
    *state = p;
    return 0;
}
static int down(void **state)
{
    struct pair *p = *state;
    hang_up(p->c);
    skf_wire_server_close(p->srv);
    free(p);
    return 0;
}

static enum skf_err call(struct pair *p, const char *path, const char *text, unsigned ms, char *out, size_t cap)
{
    struct skf_why why = {{0}};
    uint8_t *answer;
    size_t n;
    enum skf_err e = skf_wire_call(p->c, path, text, strlen(text), ms, &answer, &n, &why);
    (void)snprintf(out, cap, "%.*s", e == SKF_OK ? (int)n : 511, e == SKF_OK ? (const char *)answer : why.text);
    skf_free(answer);
    return e;
}

static void test_answers(void **state)
{
    struct pair *p = *state;
    char out[512];
    assert_int_equal(call(p, "/test.Wire/Unary", "hello", 20000, out, sizeof out), SKF_OK);
    assert_string_equal(out, "hello");
    assert_int_equal(call(p, "/test.Wire/Unary", "", 0, out, sizeof out), SKF_OK); /* empty both ways, no deadline */
    assert_string_equal(out, "");
}

static void test_errors_both_ways(void **state)
{
    /* error given on the server -> error seen on the client: the same, or the nearest that gRPC can carry */
    static const enum skf_err same[] = {SKF_ERR_NOT_FOUND,   SKF_ERR_EXISTS,  SKF_ERR_FULL,     SKF_ERR_BUSY,
                                        SKF_ERR_LIMIT,       SKF_ERR_REFUSED, SKF_ERR_TIMEOUT,  SKF_ERR_CANCELLED,
                                        SKF_ERR_ARG,         SKF_ERR_STATE,   SKF_ERR_INTERNAL, SKF_ERR_DIGEST,
                                        SKF_ERR_UNSUPPORTED, SKF_ERR_NET};
    struct pair *p = *state;
    char ask[32], out[512];
    for (int e = 1; e < SKF_ERR_COUNT_; e++) {
        (void)snprintf(ask, sizeof ask, "fail %d", e);
        enum skf_err got = call(p, "/test.Wire/Unary", ask, 20000, out, sizeof out);
        assert_int_not_equal(got, SKF_OK);
        assert_int_equal(got, skf_wire_err_of(skf_wire_status_of((enum skf_err)e)));
        assert_non_null(strstr(out, "as asked: é"));
        (void)snprintf(ask, sizeof ask, "mute %d", e);
        assert_int_equal(call(p, "/test.Wire/Unary", ask, 20000, out, sizeof out), got);
        assert_non_null(strstr(out, skf_err_name((enum skf_err)e))); /* an error without a text still says what it is */
    }
    for (size_t i = 0; i < SKF_COUNT(same); i++)
        assert_int_equal(skf_wire_err_of(skf_wire_status_of(same[i])), same[i]);
    assert_int_equal(skf_wire_status_of(SKF_OK), SKF_WIRE_OK);
    assert_int_equal(skf_wire_err_of(SKF_WIRE_OK), SKF_OK);
    assert_int_equal(skf_wire_err_of((enum skf_wire_status)99), SKF_ERR_INTERNAL);
    assert_int_equal(skf_wire_status_of((enum skf_err)99), SKF_WIRE_UNKNOWN);
}

static void test_deadline(void **state)
{
    struct pair *p = *state;
    char out[512];
    uint64_t begun = skf_now_ns();
    assert_int_equal(call(p, "/test.Wire/Unary", "sleep 1500", 150, out, sizeof out), SKF_ERR_TIMEOUT);
    assert_true(skf_now_ns() - begun < 1500000000u);
}

static void test_unknown_and_wrong(void **state)
{
    struct pair *p = *state;
    char out[512];
    assert_int_equal(call(p, "/test.Wire/Nothing", "x", 20000, out, sizeof out), SKF_ERR_UNSUPPORTED);
    assert_int_equal(call(p, "/test.Wire/Unary", "big 4194304", 20000, out, sizeof out), SKF_OK);
    assert_int_equal(call(p, "/test.Wire/Unary", "big 4194305", 20000, out, sizeof out), SKF_ERR_LIMIT);
    assert_non_null(strstr(out, "too long"));
    uint8_t *m = skf_calloc(1, SKF_WIRE_MESSAGE_MAX + 1), *answer;
    size_t n;
    struct skf_why why = {{0}};
    assert_int_equal(skf_wire_call(p->c, "/test.Wire/Unary", m, SKF_WIRE_MESSAGE_MAX + 1, 20000, &answer, &n, &why),
                     SKF_ERR_LIMIT);
    assert_null(answer);
    skf_free(m);
    /* A stream opened on a unary method, and ended without a message. */
    struct record r = RECORD_INIT;
    struct skf_wire_stream *s = stream(p->c, "/test.Wire/Unary", &r);
    skf_wire_end(s, SKF_WIRE_OK, NULL);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_INVALID);
}

static void check_health(struct pair *p, const void *ask, size_t ask_len, enum skf_err want)
{
    uint8_t *answer;
    size_t n;
    struct skf_why why = {{0}};
    assert_int_equal(skf_wire_call(p->c, "/grpc.health.v1.Health/Check", ask, ask_len, 20000, &answer, &n, &why), want);
    if (want == SKF_OK) {
        assert_int_equal(n, 2);
        assert_memory_equal(answer, "\x08\x01", 2);
    }
    skf_free(answer);
}

static void test_health(void **state)
{
    struct pair *p = *state;
    check_health(p, "", 0, SKF_OK);
    check_health(p, "\x0a\x00", 2, SKF_OK);
    check_health(p, "\x0a\x09test.Wire", 11, SKF_OK);
    check_health(p, "\x0a\x08test.Wir", 10, SKF_ERR_NOT_FOUND);
    check_health(p, "\x0a\x0atest.Wire/", 12, SKF_ERR_NOT_FOUND);
    check_health(p, "\x0a\x7ftest", 6, SKF_ERR_ARG);
    check_health(p, "\x12\x00", 2, SKF_ERR_ARG);
}

static void test_small_messages_only(void **state)
{
    struct pair p = {.side = {.all = RECORD_INIT}};
    struct skf_why why = {{0}};
    char text[2002], out[512];
    p.srv = serve_with(&p.side, (struct skf_wire_server_opts){.max_message = 2000}, &why);
    p.c = dial(p.srv);
    memset(text, 'a', sizeof text);
    text[2000] = 0;
    assert_int_equal(call(&p, "/test.Wire/Unary", text, 20000, out, sizeof out), SKF_OK);
    text[2000] = 'a';
    text[2001] = 0;
    assert_int_equal(call(&p, "/test.Wire/Unary", text, 20000, out, sizeof out), SKF_ERR_FULL);
    assert_non_null(strstr(out, "larger than max"));
    skf_wire_channel_close(p.c);
    skf_wire_server_close(p.srv);
}

/* Four sleepers occupy the threads for unary methods: streams go on. */
static void *sleeper(void *arg)
{
    char out[512];
    assert_int_equal(call(arg, "/test.Wire/Unary", "sleep 700", 60000, out, sizeof out), SKF_OK);
    return NULL;
}
static void test_streams_beside_blocked_methods(void **state)
{
    struct pair *p = *state;
    pthread_t t[6];
    struct record r = RECORD_INIT;
    for (size_t i = 0; i < SKF_COUNT(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, sleeper, p), 0);
    while (atomic_load(&p->side.unary_running) < 4)
        skf_sleep_ms(1);
    struct skf_wire_stream *s = stream(p->c, "/test.Wire/Echo", &r);
    assert_int_equal(skf_wire_send(s, "\0\0\0\0", 4), SKF_OK);
    assert_true(WAIT(&r, r.messages == 1));
    assert_true(atomic_load(&p->side.unary_running) > 0);
    skf_wire_end(s, SKF_WIRE_OK, NULL);
    assert_true(WAIT(&r, r.dones == 1));
    for (size_t i = 0; i < SKF_COUNT(t); i++)
        pthread_join(t[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, up, down),
        cmocka_unit_test_setup_teardown(test_errors_both_ways, up, down),
        cmocka_unit_test_setup_teardown(test_deadline, up, down),
        cmocka_unit_test_setup_teardown(test_unknown_and_wrong, up, down),
        cmocka_unit_test_setup_teardown(test_health, up, down),
        cmocka_unit_test(test_small_messages_only),
        cmocka_unit_test_setup_teardown(test_streams_beside_blocked_methods, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
