/* The link to a centre in this process that keeps to the protocol, breaks off, or lies in every way it can. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "base/alloc.h"
#include "proto/msg.h"
#include "wire/wire.h"

#define TLS_DIR "tests/vectors/tls"
#define META_SIZE 2500000u

enum mode { HONEST, NO_WELCOME, TWO_WELCOMES, OTHER_PROTOCOL, EARLY_ASSIGN, BAD_ASSIGN, GARBAGE, META_GAP, META_BIG, META_NONE,
            META_EMPTY_PARTS, META_OTHER_ID, META_BREAK, META_SILENT, CHUNK_OTHER_ID, CHUNK_LEFT_OUT, CHUNK_REFUSED, CHUNK_BREAK,
            CHUNK_FLOOD, CHUNK_LATE };

struct centre {
    struct skf_wire_server *server;
    char address[32];
    atomic_int mode;
    atomic_uint hellos, pongs, states, breaks, flood; /* flood: id of the question that is answered without end */
    atomic_uint late; /* of the one that is answered when the next one comes */
};

static void say(struct skf_wire_stream *s, Skiff__V1__CentreMessage *m)
{
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_msg_pack(&m->base, &p, &n), SKF_OK);
    (void)!skf_wire_send(s, p, n);
    skf_free(p);
}

#define SAY(s, KIND, field, value)                                                                                     \
    do {                                                                                                               \
        Skiff__V1__CentreMessage say_m = SKIFF__V1__CENTRE_MESSAGE__INIT;                                              \
        say_m.kind_case = SKIFF__V1__CENTRE_MESSAGE__KIND_##KIND;                                                      \
        say_m.field = (value);                                                                                         \
        say((s), &say_m);                                                                                              \
    } while (0)

static void say_assign(struct skf_wire_stream *s, bool is_bad)
{
    Skiff__V1__Assign a = SKIFF__V1__ASSIGN__INIT;
    a.id = (char *)(uintptr_t) "7";
    a.model = (char *)(uintptr_t) "m";
    a.version = (char *)(uintptr_t) "1";
    a.manifest = (char *)(uintptr_t)(is_bad ? "../../etc/passwd" : "models/m/1.manifest");
    SAY(s, ASSIGN, assign, &a);
}

static void on_hello(struct centre *c, struct skf_wire_stream *s)
{
    Skiff__V1__Welcome w = SKIFF__V1__WELCOME__INIT;
    Skiff__V1__Ping ping = SKIFF__V1__PING__INIT;
    int mode = atomic_load(&c->mode);
    atomic_fetch_add(&c->hellos, 1);
    atomic_store(&c->flood, 0);
    w.protocol = mode == OTHER_PROTOCOL ? 2 : 1;
    w.device = (char *)(uintptr_t) "box";
    if (mode == NO_WELCOME)
        return;
    if (mode == EARLY_ASSIGN)
        say_assign(s, false);
    SAY(s, WELCOME, welcome, &w);
    if (mode == TWO_WELCOMES)
        SAY(s, WELCOME, welcome, &w);
    if (mode == GARBAGE)
        (void)!skf_wire_send(s, "\xff\xff\xff\xff\xff", 5);
    ping.nonce = 9;
    SAY(s, PING, ping, &ping);
    say_assign(s, mode == BAD_ASSIGN);
}

static void on_get_meta(struct centre *c, struct skf_wire_stream *s, const Skiff__V1__GetMeta *g)
{
    static uint8_t bytes[META_SIZE];
    int mode = atomic_load(&c->mode);
    if (mode == META_SILENT)
        return;
    if (mode == META_BREAK) {
        atomic_fetch_add(&c->breaks, 1);
        skf_wire_end(s, SKF_WIRE_UNAVAILABLE, "broken off");
        return;
    }
    for (uint32_t at = 0; at < META_SIZE; at += 1 << 20) {
        Skiff__V1__Meta m = SKIFF__V1__META__INIT;
        m.id = g->id + (mode == META_OTHER_ID && at == 0);
        m.found = mode != META_NONE;
        m.offset = at + (mode == META_GAP && at);
        m.total = mode == META_BIG ? 1ull << 40 : META_SIZE;
        m.data.len = mode == META_EMPTY_PARTS ? 0 : SKF_MIN(META_SIZE - at, 1u << 20);
        for (size_t i = 0; i < m.data.len; i += 1000)
            bytes[at + i] = (uint8_t)(at + i);
        m.data.data = bytes + at;
        SAY(s, META, meta, &m);
        if (mode == META_NONE)
            return;
        if (mode == META_OTHER_ID && at == 0)
            at -= 1 << 20, atomic_store(&c->mode, HONEST), mode = HONEST;
    }
}

static void on_writable(void *ctx, struct skf_wire_stream *s)
{
    static uint8_t big[1 << 20];
    struct centre *c = ctx;
    Skiff__V1__Chunk m = SKIFF__V1__CHUNK__INIT;
    m.id = atomic_load(&c->flood);
    m.payload = (ProtobufCBinaryData){sizeof big, big};
    if (m.id)
        SAY(s, CHUNK, chunk, &m);
}

/* The answer to a question for two chunks, 100 and 101. */
static void say_late(struct skf_wire_stream *s, uint32_t id)
{
    Skiff__V1__ChunksEnd end = SKIFF__V1__CHUNKS_END__INIT;
    end.id = id;
    for (uint64_t i = 100; i < 102; i++) {
        Skiff__V1__Chunk m = SKIFF__V1__CHUNK__INIT;
        m.id = id;
        m.number = i;
        m.payload = (ProtobufCBinaryData){sizeof m.number, (uint8_t *)&m.number};
        SAY(s, CHUNK, chunk, &m);
    }
    SAY(s, CHUNKS_END, chunks_end, &end);
}

static void on_get_chunks(struct centre *c, struct skf_wire_stream *s, const Skiff__V1__GetChunks *g)
{
    int mode = atomic_load(&c->mode);
    uint32_t late = atomic_exchange(&c->late, mode == CHUNK_LATE ? g->id : 0);
    if (mode == CHUNK_LATE)
        return;
    if (late)
        say_late(s, late);
    if (mode == CHUNK_FLOOD) {
        atomic_store(&c->flood, g->id);
        on_writable(c, s);
        return;
    }
    Skiff__V1__ChunksEnd end = SKIFF__V1__CHUNKS_END__INIT;
    end.id = g->id;
    end.error = (char *)(uintptr_t)(mode == CHUNK_REFUSED ? "no such delta" : "");
    for (size_t r = 0; r < g->n_ranges && mode != CHUNK_REFUSED; r++)
        for (uint64_t i = 0; i < g->ranges[r]->count; i++) {
            Skiff__V1__Chunk m = SKIFF__V1__CHUNK__INIT;
            m.id = g->id + (mode == CHUNK_OTHER_ID ? 100 : 0);
            m.number = g->ranges[r]->first + i;
            m.payload = (ProtobufCBinaryData){sizeof m.number, (uint8_t *)&m.number};
            if (mode == CHUNK_LEFT_OUT && i == 1)
                continue;
            if (mode == CHUNK_BREAK && i == 2) {
                atomic_fetch_add(&c->breaks, 1);
                skf_sleep_ms(50); /* what was sent before is under way */
                skf_wire_end(s, SKF_WIRE_UNAVAILABLE, "broken off");
                return;
            }
            SAY(s, CHUNK, chunk, &m);
        }
    SAY(s, CHUNKS_END, chunks_end, &end);
}

static enum skf_err on_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    *stream_ctx = ctx;
    return SKF_OK;
}

static enum skf_err on_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why)
{
    struct centre *c = ctx;
    Skiff__V1__AgentMessage *m;
    SKF_TRY(SKF_UNPACK(skiff__v1__agent_message, Skiff__V1__AgentMessage, p, n, SKF_WIRE_MESSAGE_MAX, &m, why));
    switch (m->kind_case) {
    case SKIFF__V1__AGENT_MESSAGE__KIND_HELLO: on_hello(c, s); break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_GET_META: on_get_meta(c, s, m->get_meta); break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_GET_CHUNKS: on_get_chunks(c, s, m->get_chunks); break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_PONG: atomic_fetch_add(&c->pongs, m->pong->nonce == 9); break;
    case SKIFF__V1__AGENT_MESSAGE__KIND_STATE: atomic_fetch_add(&c->states, 1); break;
    default: break;
    }
    skf_msg_free(&m->base);
    return SKF_OK;
}

/* ---- the agent's end ---------------------------------------------------------------------------------------------------- */

static struct centre centre;
static struct skf_session *session;
static struct skf_link link_;
static atomic_bool cancel;
static int wake_fd;

static enum skf_err hello(void *ctx, uint8_t **p, size_t *n)
{
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__Hello h = SKIFF__V1__HELLO__INIT;
    h.protocol = 1;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_HELLO;
    m.hello = &h;
    return skf_msg_pack(&m.base, p, n);
}

/* Turns the loop until the condition holds; false after a long time. */
#define TURN(condition)                                                                                                \
    ({                                                                                                                 \
        uint64_t turn_end = skf_now_ns() + 60 * SKF_SECOND;                                                            \
        bool turn_ok;                                                                                                  \
        while (!(turn_ok = (condition)) && skf_now_ns() < turn_end) {                                                  \
            (void)skf_session_tick(session, skf_now_ns(), hello, NULL);                                                \
            skf_sleep_ms(5);                                                                                           \
        }                                                                                                              \
        turn_ok;                                                                                                       \
    })

static int setup(void **state)
{
    const struct skf_wire_method method = {.path = "/skiff.v1.Fleet/Session", .open = on_open, .ctx = &centre,
                                           .events = {.message = on_message, .writable = on_writable}};
    const struct skf_wire_server_opts so = {
        .listen = "127.0.0.1:0", .tls = {TLS_DIR "/ca.crt", TLS_DIR "/server.crt", TLS_DIR "/server.key", true}};
    struct skf_why why = {{0}};
    memset(&centre, 0, sizeof centre);
    if (skf_wire_server_open(&so, &method, 1, &centre.server, &why) != SKF_OK)
        fail_msg("%s", why.text);
    (void)snprintf(centre.address, sizeof centre.address, "127.0.0.1:%d", skf_wire_server_port(centre.server));
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const struct skf_session_opts o = {centre.address, TLS_DIR, true, wake_fd};
    assert_int_equal(skf_session_new(&o, &session, &why), SKF_OK);
    link_ = skf_session_link(session);
    atomic_store(&cancel, false);
    return 0;
}
static int teardown(void **state)
{
    skf_session_free(session);
    skf_wire_server_close(centre.server);
    (void)close(wake_fd);
    return 0;
}

static void test_connect(void **state)
{
    struct skf_assign a;
    uint64_t woken = 0;
    assert_false(is_session_up(session));
    assert_true(TURN(is_session_up(session)));
    assert_int_equal(skf_session_epoch(session), 1);
    assert_true(TURN(atomic_load(&centre.pongs) == 1));
    assert_true(TURN(is_assign_taken(session, &a)));
    assert_string_equal(a.manifest, "models/m/1.manifest");
    assert_false(is_assign_taken(session, &a));
    assert_int_equal(read(wake_fd, &woken, sizeof woken), sizeof woken);
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__State st = SKIFF__V1__STATE__INIT;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_STATE;
    m.state = &st;
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_msg_pack(&m.base, &p, &n), SKF_OK);
    skf_session_send(session, p, n);
    skf_free(p);
    assert_true(TURN(atomic_load(&centre.states) == 1));
    assert_int_equal(atomic_load(&centre.hellos), 1);
}

/* Lies about the beginning: the link is given up and tried again, and comes up once the centre is honest. */
static void test_bad_beginnings(void **state)
{
    const int modes[] = {TWO_WELCOMES, OTHER_PROTOCOL, EARLY_ASSIGN, BAD_ASSIGN, GARBAGE};
    struct skf_assign a;
    for (size_t i = 0; i < SKF_COUNT(modes); i++) {
        unsigned before = atomic_load(&centre.hellos);
        atomic_store(&centre.mode, modes[i]);
        assert_true(TURN(atomic_load(&centre.hellos) >= before + 2));
        if (modes[i] == BAD_ASSIGN)
            assert_false(is_assign_taken(session, &a));
        while (is_assign_taken(session, &a))
            assert_string_equal(a.manifest, "models/m/1.manifest");
    }
    atomic_store(&centre.mode, HONEST);
    assert_true(TURN(is_session_up(session) && is_assign_taken(session, &a)));
}

static enum skf_err meta(size_t limit, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(limit);
    enum skf_err e = link_.meta(link_.ctx, &cancel, "timestamp.json", &b, why);
    if (e == SKF_OK) {
        assert_int_equal(b.len, META_SIZE);
        for (size_t i = 0; i < META_SIZE; i += 1000)
            if (i % (1 << 20) % 1000 == 0 && i < 1 << 20)
                assert_int_equal(b.data[i], (uint8_t)i);
    }
    skf_buf_free(&b);
    return e;
}

static void test_meta(void **state)
{
    const struct {
        int mode;
        size_t limit;
        enum skf_err want;
    } cases[] = {{HONEST, META_SIZE, SKF_OK},         {META_NONE, META_SIZE, SKF_ERR_NOT_FOUND},
                 {HONEST, 1000, SKF_ERR_LIMIT},       {META_BIG, META_SIZE, SKF_ERR_LIMIT},
                 {META_GAP, META_SIZE, SKF_ERR_NET},  {META_EMPTY_PARTS, META_SIZE, SKF_ERR_NET},
                 {META_BREAK, META_SIZE, SKF_ERR_NET}, {META_OTHER_ID, META_SIZE, SKF_OK}};
    struct skf_why why = {{0}};
    assert_int_equal(meta(META_SIZE, &why), SKF_ERR_NET); /* no link yet */
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        atomic_store(&centre.mode, HONEST);
        assert_true(TURN(is_session_up(session)));
        assert_int_equal(link_.wait(link_.ctx, &cancel, &why), SKF_OK);
        atomic_store(&centre.mode, cases[i].mode);
        why.text[0] = 0;
        enum skf_err e = meta(cases[i].limit, &why);
        if (e != cases[i].want || (e != SKF_OK && !why.text[0]))
            fail_msg("case %zu: %s: %s", i, skf_err_name(e), why.text);
    }
}

static enum skf_err ask_of(const char *delta, uint64_t first, uint64_t count, struct skf_why *why)
{
    const struct skf_range r[] = {{first, count}};
    return link_.ask(link_.ctx, delta, r, 1, why);
}

static enum skf_err ask(uint64_t first, uint64_t count, struct skf_why *why) { return ask_of("deltas/x", first, count, why); }

/* Takes chunks first, first + 1, ... until something else happens; how many came. */
static unsigned take(uint64_t first, enum skf_err *e, struct skf_why *why)
{
    struct skf_payload p;
    unsigned n = 0;
    while ((*e = link_.chunk(link_.ctx, &cancel, &p, why)) == SKF_OK) {
        assert_int_equal(p.number, first + n);
        skf_free(p.data);
        n++;
    }
    return n;
}

static void test_chunks(void **state)
{
    struct skf_why why = {{0}};
    struct skf_payload p;
    enum skf_err e;
    assert_int_equal(ask(0, 1, &why), SKF_ERR_NET);
    assert_true(TURN(is_session_up(session)));
    assert_int_equal(ask(10, 5, &why), SKF_OK);
    assert_int_equal(ask(15, 5, &why), SKF_OK); /* two questions under way, answered in order */
    for (uint64_t i = 10; i < 20; i++) {
        assert_int_equal(link_.chunk(link_.ctx, &cancel, &p, &why), SKF_OK);
        assert_int_equal(p.number, i);
        assert_int_equal(p.n, 8);
        assert_memory_equal(p.data, &i, 8);
        skf_free(p.data);
    }
    assert_int_equal(take(20, &e, &why), 0);
    assert_int_equal(e, SKF_ERR_FORMAT); /* all was answered: nothing more can come */

    atomic_store(&centre.mode, CHUNK_LEFT_OUT);
    assert_int_equal(ask(0, 3, &why), SKF_OK);
    assert_int_equal(link_.chunk(link_.ctx, &cancel, &p, &why), SKF_OK);
    skf_free(p.data);
    assert_int_equal(link_.chunk(link_.ctx, &cancel, &p, &why), SKF_OK);
    assert_int_equal(p.number, 2);
    skf_free(p.data);
    assert_int_equal(link_.chunk(link_.ctx, &cancel, &p, &why), SKF_ERR_FORMAT);

    atomic_store(&centre.mode, CHUNK_REFUSED);
    assert_int_equal(ask(0, 3, &why), SKF_OK);
    assert_int_equal(take(0, &e, &why), 0);
    assert_int_equal(e, SKF_ERR_REFUSED);
    assert_non_null(strstr(why.text, "no such delta"));

    atomic_store(&centre.mode, CHUNK_OTHER_ID);
    assert_int_equal(ask(0, 3, &why), SKF_OK);
    assert_int_equal(take(0, &e, &why), 0); /* what nobody asked for is nobody's answer */
    assert_int_equal(e, SKF_ERR_FORMAT);
    assert_true(is_session_up(session));
}

/* An update that another one takes the place of: what the centre still answers to it is nobody's, whether it came before the new question
 * or comes after it. */
static void test_chunks_of_a_delta_given_up(void **state)
{
    struct skf_why why = {{0}};
    enum skf_err e;
    assert_true(TURN(is_session_up(session)));
    assert_int_equal(ask(100, 2, &why), SKF_OK);
    skf_sleep_ms(50); /* these lie in the inbox */
    assert_int_equal(ask_of("deltas/y", 5, 2, &why), SKF_OK);
    assert_int_equal(take(5, &e, &why), 2);
    assert_int_equal(e, SKF_ERR_FORMAT);

    atomic_store(&centre.mode, CHUNK_LATE);
    assert_int_equal(ask_of("deltas/y", 100, 2, &why), SKF_OK);
    assert_true(TURN(atomic_load(&centre.late)));
    atomic_store(&centre.mode, HONEST);
    assert_int_equal(ask_of("deltas/z", 7, 3, &why), SKF_OK); /* and now y's answers come first */
    assert_int_equal(take(7, &e, &why), 3);
    assert_int_equal(e, SKF_ERR_FORMAT);

    struct skf_payload p; /* the same delta anew: a cancelled installation's questions are not the next one's */
    atomic_store(&centre.mode, CHUNK_LATE);
    assert_int_equal(ask_of("deltas/z", 100, 2, &why), SKF_OK);
    assert_true(TURN(atomic_load(&centre.late)));
    atomic_store(&cancel, true);
    assert_int_equal(link_.chunk(link_.ctx, &cancel, &p, &why), SKF_ERR_CANCELLED);
    atomic_store(&cancel, false);
    atomic_store(&centre.mode, HONEST);
    assert_int_equal(ask_of("deltas/z", 0, 2, &why), SKF_OK);
    assert_int_equal(take(0, &e, &why), 2);
    assert_int_equal(e, SKF_ERR_FORMAT);
}

static void test_chunks_over_a_break(void **state)
{
    struct skf_why why = {{0}};
    enum skf_err e;
    assert_true(TURN(is_session_up(session)));
    atomic_store(&centre.mode, CHUNK_BREAK);
    assert_int_equal(ask(0, 5, &why), SKF_OK);
    assert_true(take(0, &e, &why) <= 2); /* what came before the break is not lost */
    assert_int_equal(e, SKF_ERR_NET);
    atomic_store(&centre.mode, HONEST);
    assert_true(TURN(is_session_up(session)));
    assert_int_equal(take(0, &e, &why), 0);
    assert_int_equal(e, SKF_ERR_NET); /* nothing was asked over this link */
    assert_int_equal(ask(2, 3, &why), SKF_OK);
    assert_int_equal(take(2, &e, &why), 3);

    /* Far more than any question's window: the link ends before memory does. */
    unsigned before = atomic_load(&centre.hellos);
    atomic_store(&centre.mode, CHUNK_FLOOD);
    assert_int_equal(ask(0, 100, &why), SKF_OK);
    assert_true(TURN(atomic_load(&centre.hellos) > before));
}

static void *set_cancel(void *arg)
{
    skf_sleep_ms(100);
    atomic_store(&cancel, true);
    skf_session_kick(session);
    return NULL;
}

static void test_cancel(void **state)
{
    struct skf_why why = {{0}};
    pthread_t t;
    struct skf_payload p;
    assert_int_equal(pthread_create(&t, NULL, set_cancel, NULL), 0);
    assert_int_equal(link_.wait(link_.ctx, &cancel, &why), SKF_ERR_CANCELLED); /* no link, and nobody makes one */
    assert_int_equal(pthread_join(t, NULL), 0);
    atomic_store(&cancel, false);
    assert_true(TURN(is_session_up(session)));
    atomic_store(&centre.mode, META_SILENT);
    assert_int_equal(pthread_create(&t, NULL, set_cancel, NULL), 0);
    assert_int_equal(meta(META_SIZE, &why), SKF_ERR_CANCELLED);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(ask(0, 1, &why), SKF_OK);
    enum skf_err e = link_.chunk(link_.ctx, &cancel, &p, &why);
    if (e == SKF_OK) /* it may have come before the flag was looked at */
        skf_free(p.data);
    else
        assert_int_equal(e, SKF_ERR_CANCELLED);
}

static void test_no_centre(void **state)
{
    struct skf_session *s;
    struct skf_why why = {{0}};
    const struct skf_session_opts o = {"127.0.0.1:1", TLS_DIR, true, wake_fd};
    assert_int_equal(skf_session_new(&o, &s, &why), SKF_OK);
    unsigned tries = 0;
    uint64_t end = skf_now_ns() + 2 * SKF_SECOND;
    while (skf_now_ns() < end) {
        uint64_t now = skf_now_ns(), again = skf_session_tick(s, now, hello, NULL);
        tries += again > now + 10 * SKF_SECOND; /* a try is under way */
        assert_true(again >= now);
        skf_sleep_ms(5);
    }
    assert_false(is_session_up(s));
    assert_true(tries > 0);
    skf_session_free(s);
}

int main(void)
{
    skf_log_open("test", SKF_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_connect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_beginnings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_meta, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunks_of_a_delta_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunks_over_a_break, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_centre, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
