/* Streams: order and content both ways, sizes, back-pressure, every way to end, many at once. */
#include "tests/lib/wire_fix.h"

static void test_echo_many(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &r);
    uint8_t m[3000];
    size_t sent = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        size_t n = i % 7 ? i % sizeof m : 0; /* empty messages, too */
        n = n && n < 4 ? 4 : n;
        fill(m, n, i);
        enum skf_err e;
        while ((e = skf_wire_send(s, m, n)) == SKF_ERR_FULL)
            skf_sleep_ms(1);
        assert_int_equal(e, SKF_OK);
        sent += n;
    }
    skf_wire_end(s, SKF_WIRE_OK, NULL);
    assert_int_equal(skf_wire_send(s, m, 1), SKF_ERR_NET);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_OK);
    assert_int_equal(r.messages, 5000);
    assert_int_equal(r.bytes, sent);
    assert_false(r.bad);
    assert_int_equal(skf_wire_queued(s), 0);
    assert_int_equal(skf_wire_send(s, m, 1), SKF_ERR_NET); /* beyond done, by the reference */
    assert_string_equal(skf_wire_identity(s), "spiffe://test/distributor/centre");
    assert_true(WAIT(&side.all, side.open == 0));
    assert_string_equal(side.identity, "spiffe://test/device/box1");
    hang_up(c);
    skf_wire_server_close(srv);
}

static void push(struct skf_wire_stream *s, uint32_t count, uint32_t size)
{
    uint32_t ask[2] = {count, size};
    assert_int_equal(skf_wire_send(s, ask, sizeof ask), SKF_OK);
}

static void test_push_pulled(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    push(stream(c, "/test.Wire/Push", &r), 64, 1u << 20);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_OK);
    assert_int_equal(r.messages, 64);
    assert_int_equal(r.bytes, 64u << 20);
    assert_false(r.bad);
    assert_true(WAIT(&side.all, side.all.dones == 1));
    assert_true(side.all.bytes <= 3u << 20); /* most that ever waited: one in flight, one behind it */
    hang_up(c);
    skf_wire_server_close(srv);
}

static void test_sizes(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT, other = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &r);
    uint8_t *m = skf_alloc(SKF_WIRE_MESSAGE_MAX + 1);
    fill(m, SKF_WIRE_MESSAGE_MAX, 0);
    assert_int_equal(skf_wire_send(s, m, SKF_WIRE_MESSAGE_MAX), SKF_OK);
    assert_true(WAIT(&r, r.messages == 1));
    assert_int_equal(r.bytes, SKF_WIRE_MESSAGE_MAX);
    assert_false(r.bad);
    assert_int_equal(skf_wire_send(s, m, SKF_WIRE_MESSAGE_MAX + 1), SKF_ERR_LIMIT);
    skf_wire_end(s, SKF_WIRE_OK, NULL);
    assert_true(WAIT(&r, r.dones == 1));
    /* A server whose answer is too long for a message ends that call alone. */
    push(stream(c, "/test.Wire/Push", &other), 1, SKF_WIRE_MESSAGE_MAX + 1);
    skf_free(m);
    hang_up(c);
    assert_int_equal(other.dones, 1);
    skf_wire_server_close(srv);
}

/* The server keeps sending to a client that does not read: it must hear SKF_ERR_FULL, and memory stays bounded. */
struct flood {
    struct record all;
    unsigned sent, refused;
    size_t most;
};
static enum skf_err flood_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    struct flood *f = ctx;
    *stream_ctx = f;
    static uint8_t m[1u << 20];
    unsigned sent = 0, refused = 0;
    for (int i = 0; i < 100; i++) {
        enum skf_err e = skf_wire_send(s, m, sizeof m);
        sent += e == SKF_OK;
        refused += e == SKF_ERR_FULL;
        f->most = SKF_MAX(f->most, skf_wire_queued(s));
    }
    NOTE(&f->all, (f->sent = sent, f->refused = refused));
    return SKF_OK;
}
static enum skf_err wait_for_go(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why)
{
    struct record *r = ctx;
    NOTE(r, r->messages++);
    (void)WAIT(r, r->is_slow == false);
    return SKF_OK;
}
static void test_slow_reader(void **state)
{
    struct flood f = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_method m = {.path = "/test.Wire/Flood", .open = flood_open, .events = recorder, .ctx = &f};
    struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = tls_server};
    struct skf_wire_server *srv;
    struct skf_wire_events ev = recorder;
    struct skf_wire_stream *s;
    struct skf_why why = {{0}};
    assert_int_equal(skf_wire_server_open(&o, &m, 1, &srv, &why), SKF_OK);
    struct skf_wire_channel *c = dial(srv);
    ev.message = wait_for_go;
    r.is_slow = true;
    assert_int_equal(skf_wire_stream_open(c, "/test.Wire/Flood", &ev, &r, &s, &why), SKF_OK);
    assert_true(WAIT(&f.all, f.sent + f.refused == 100));
    assert_true(f.refused > 80);
    assert_true(f.most <= SKF_WIRE_OUTBOX + (2u << 20));
    assert_true(WAIT(&r, r.messages == 1)); /* the callback has not returned, so no second message is asked for */
    skf_sleep_ms(100);
    assert_int_equal(r.messages, 1);
    NOTE(&r, r.is_slow = false);
    assert_true(WAIT(&r, r.messages == f.sent));
    skf_wire_unref(s);
    hang_up(c);
    assert_true(WAIT(&f.all, f.all.dones == 1));
    skf_wire_server_close(srv);
}

static void test_ends(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record bad = RECORD_INIT, end = RECORD_INIT, refused = RECORD_INIT, none = RECORD_INIT, cut = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &bad);
    assert_int_equal(skf_wire_send(s, "bad", 3), SKF_OK);
    assert_true(WAIT(&bad, bad.dones == 1));
    assert_int_equal(bad.status, SKF_WIRE_DATA_LOSS);
    assert_string_equal(bad.text, "chunk 7: not what it says");
    assert_true(WAIT(&side.all, side.all.dones == 1 && side.all.status == SKF_WIRE_DATA_LOSS));

    s = stream(c, "/test.Wire/Echo", &end);
    assert_int_equal(skf_wire_send(s, "end", 3), SKF_OK);
    assert_true(WAIT(&end, end.dones == 1));
    assert_int_equal(end.status, SKF_WIRE_ABORTED);
    assert_string_equal(end.text, "as you wish");

    (void)stream(c, "/test.Wire/Refuse", &refused);
    assert_true(WAIT(&refused, refused.dones == 1));
    assert_int_equal(refused.status, SKF_WIRE_PERMISSION);
    assert_string_equal(refused.text, "spiffe://test/device/box1 is not an operator");

    (void)stream(c, "/test.Wire/None", &none);
    assert_true(WAIT(&none, none.dones == 1));
    assert_int_equal(none.status, SKF_WIRE_UNIMPLEMENTED);

    s = stream(c, "/test.Wire/Echo", &cut);
    assert_int_equal(skf_wire_send(s, "\0\0\0\0", 4), SKF_OK);
    assert_true(WAIT(&cut, cut.messages == 1));
    skf_wire_end(s, SKF_WIRE_CANCELLED, "changed our mind");
    assert_true(WAIT(&cut, cut.dones == 1));
    assert_int_equal(cut.status, SKF_WIRE_CANCELLED);
    assert_string_equal(cut.text, "changed our mind");
    assert_true(WAIT(&side.all, side.open == 0));
    assert_int_equal(side.all.status, SKF_WIRE_CANCELLED);
    hang_up(c);
    skf_wire_server_close(srv);
}

/* A callback's error while a send is stuck in flow control still reaches the peer. */
static enum skf_err stuck_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why)
{
    static uint8_t m[4u << 20];
    for (int i = 0; i < 4; i++)
        if (skf_wire_send(s, m, sizeof m) != SKF_OK)
            break;
    return skf_fail(why, SKF_ERR_ROLLBACK, "older than what we have");
}
static void test_end_while_stuck(void **state)
{
    struct record srv_side = RECORD_INIT, r = RECORD_INIT;
    struct skf_wire_method m = {.path = "/test.Wire/Stuck", .events = recorder, .ctx = &srv_side};
    struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = tls_server};
    struct skf_wire_server *srv;
    struct skf_why why = {{0}};
    m.events.message = stuck_message;
    assert_int_equal(skf_wire_server_open(&o, &m, 1, &srv, &why), SKF_OK);
    struct skf_wire_channel *c = dial(srv);
    struct skf_wire_stream *s = stream(c, "/test.Wire/Stuck", &r);
    assert_int_equal(skf_wire_send(s, "x", 1), SKF_OK);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_PRECONDITION);
    assert_string_equal(r.text, "older than what we have");
    assert_true(WAIT(&srv_side, srv_side.dones == 1));
    assert_int_equal(srv_side.status, SKF_WIRE_PRECONDITION);
    hang_up(c);
    skf_wire_server_close(srv);
}

#define MANY 200
static void test_many_streams(void **state)
{
    static struct record r[MANY];
    static struct skf_wire_stream *s[MANY];
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c[4];
    uint8_t m[512];
    for (int i = 0; i < 4; i++)
        c[i] = dial(srv);
    for (int i = 0; i < MANY; i++) {
        r[i] = (struct record)RECORD_INIT;
        s[i] = stream(c[i % 4], "/test.Wire/Echo", &r[i]);
    }
    for (uint32_t k = 0; k < 20; k++)
        for (int i = 0; i < MANY; i++) {
            fill(m, sizeof m, k);
            assert_int_equal(skf_wire_send(s[i], m, sizeof m), SKF_OK);
        }
    for (int i = 0; i < MANY; i++)
        assert_true(WAIT(&r[i], r[i].messages == 20));
    assert_int_equal(side.open, MANY);
    for (int i = 0; i < MANY; i++)
        skf_wire_end(s[i], SKF_WIRE_OK, NULL);
    for (int i = 0; i < MANY; i++) {
        assert_true(WAIT(&r[i], r[i].dones == 1));
        assert_int_equal(r[i].status, SKF_WIRE_OK);
        assert_false(r[i].bad);
    }
    for (int i = 0; i < 4; i++)
        hang_up(c[i]);
    skf_wire_server_close(srv);
}

/* Sends from several threads at once: no message is lost or torn. */
struct sender {
    struct skf_wire_stream *s;
    int count;
};
static void *send_many(void *arg)
{
    struct sender *w = arg;
    uint8_t m[100];
    memset(m, 0x5a, sizeof m);
    for (int i = 0; i < w->count; i++)
        while (skf_wire_send(w->s, m, sizeof m) == SKF_ERR_FULL)
            skf_sleep_ms(1);
    return NULL;
}
static void test_many_senders(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    struct sender w = {stream(c, "/test.Wire/Echo", &r), 500};
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, send_many, &w), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_true(WAIT(&r, r.messages == 2000));
    assert_int_equal(r.bytes, 200000);
    hang_up(c);
    assert_int_equal(r.dones, 1);
    skf_wire_server_close(srv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_many),    cmocka_unit_test(test_push_pulled),
        cmocka_unit_test(test_sizes),        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_ends),         cmocka_unit_test(test_end_while_stuck),
        cmocka_unit_test(test_many_streams), cmocka_unit_test(test_many_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
