/* Ends that nobody asked for: servers that restart, clients that are killed or freeze, ports in use, closing with calls
 * alive. */
#include "tests/lib/wire_fix.h"

#include <fcntl.h>
#include <signal.h>

static struct skf_wire_server *serve_on(struct server_side *side, int port, unsigned keepalive_ms)
{
    char at[32];
    struct skf_why why = {{0}};
    (void)snprintf(at, sizeof at, "127.0.0.1:%d", port);
    struct skf_wire_server *s =
        serve_with(side, (struct skf_wire_server_opts){.listen = at, .keepalive_ms = keepalive_ms}, &why);
    if (!s)
        fail_msg("%s", why.text);
    return s;
}

static void test_server_restarts(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_server *srv = serve_on(&side, 0, 0);
    int port = skf_wire_server_port(srv);
    struct skf_wire_channel *c = dial(srv);
    struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &r);
    assert_int_equal(skf_wire_send(s, "\0\0\0\0", 4), SKF_OK);
    assert_true(WAIT(&r, r.messages == 1));
    skf_wire_server_close(srv);
    assert_int_equal(side.open, 0);
    assert_true(WAIT(&r, r.dones == 1));
    assert_int_equal(r.status, SKF_WIRE_UNAVAILABLE);

    struct record gone = RECORD_INIT; /* nobody there: it ends at once, with the reason */
    (void)stream(c, "/test.Wire/Echo", &gone);
    assert_true(WAIT(&gone, gone.dones == 1));
    assert_int_equal(gone.status, SKF_WIRE_UNAVAILABLE);

    srv = serve_on(&side, port, 0);
    uint64_t until = skf_now_ns() + patience_ns();
    bool is_back = false;
    while (!is_back && skf_now_ns() < until) {
        struct record again = RECORD_INIT;
        s = stream(c, "/test.Wire/Echo", &again);
        enum skf_err e = skf_wire_send(s, "\0\0\0\0", 4);
        assert_true(e == SKF_OK || e == SKF_ERR_NET);
        is_back = WAIT(&again, again.messages || again.dones) && again.messages == 1;
        if (is_back) {
            skf_wire_end(s, SKF_WIRE_OK, NULL);
            assert_true(WAIT(&again, again.dones == 1));
        } else {
            skf_sleep_ms(50);
        }
    }
    assert_true(is_back);
    hang_up(c);
    skf_wire_server_close(srv);
}

static pid_t spawn_client(int port)
{
    char number[16];
    char name[] = "wire_life", verb[] = "client";
    char *argv[] = {name, verb, number, NULL};
    pid_t pid = 0;
    (void)snprintf(number, sizeof number, "%d", port);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    return pid;
}

/* The child: three streams, then silence until it is killed. */
static _Noreturn void client_main(const char *port)
{
    static struct record r[3];
    struct skf_wire_channel *c = dial_with((int)strtol(port, NULL, 10), &tls_device, NULL);
    for (int i = 0; i < 3; i++) {
        r[i] = (struct record)RECORD_INIT;
        (void)stream(c, "/test.Wire/Echo", &r[i]);
    }
    for (;;)
        pause();
}

static void lose_client(int sig, unsigned keepalive_ms)
{
    struct server_side side = {.all = RECORD_INIT};
    if (!is_spawning_ok())
        return;
    struct skf_wire_server *srv = serve_on(&side, 0, keepalive_ms);
    pid_t pid = spawn_client(skf_wire_server_port(srv));
    assert_true(WAIT(&side.all, side.open == 3));
    if (keepalive_ms)
        skf_sleep_ms(4 * keepalive_ms); /* idle is not dead: pings that are answered keep a stream */
    assert_int_equal(side.open, 3);
    assert_int_equal(kill(pid, sig), 0);
    assert_true(WAIT(&side.all, side.open == 0));
    assert_int_equal(side.all.dones, 3);
    assert_int_equal(side.all.status, SKF_WIRE_CANCELLED);
    assert_string_equal(side.all.text, "the peer went away");
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    skf_wire_server_close(srv);
}

static void test_client_killed(void **state)
{
    lose_client(SIGKILL, 0);
}
static void test_client_frozen(void **state)
{
    lose_client(SIGSTOP, 300);
}

static void test_port_in_use(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_why why = {{0}};
    struct skf_wire_server *srv = serve(&side), *second;
    char at[32];
    (void)snprintf(at, sizeof at, "127.0.0.1:%d", skf_wire_server_port(srv));
    struct skf_wire_server_opts o = {.listen = at, .tls = tls_server};
    assert_int_equal(skf_wire_server_open(&o, NULL, 0, &second, &why), SKF_ERR_BUSY);
    assert_null(second);
    assert_memory_equal(why.text, at, strlen(at));
    skf_wire_server_close(srv);
    assert_int_equal(skf_wire_server_open(&o, NULL, 0, &second, &why), SKF_OK); /* and free again at once */
    skf_wire_server_close(second);
    o.listen = "203.0.113.77:0"; /* an address that is not ours */
    assert_int_not_equal(skf_wire_server_open(&o, NULL, 0, &second, &why), SKF_OK);
    o.listen = "nonsense";
    assert_int_equal(skf_wire_server_open(&o, NULL, 0, &second, &why), SKF_ERR_ARG);
}

struct job {
    struct skf_wire_channel *c;
    enum skf_err e;
};
static void *slow_call(void *arg)
{
    uint8_t *answer;
    size_t n;
    struct skf_why why = {{0}};
    struct job *j = arg;
    j->e = skf_wire_call(j->c, "/test.Wire/Unary", "sleep 500", 9, 60000, &answer, &n, &why);
    skf_free(answer);
    return NULL;
}

/* Both ends closed with everything alive: idle streams, streams with full outboxes, blocking calls. */
static void close_with_calls(bool server_first)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    static struct record r[40];
    static uint8_t m[1u << 20];
    struct job job = {c, SKF_OK};
    pthread_t t;
    for (int i = 0; i < 40; i++) {
        r[i] = (struct record)RECORD_INIT;
        r[i].is_slow = true;
        struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &r[i]);
        for (int k = 0; k < i; k++)
            if (skf_wire_send(s, m, sizeof m) != SKF_OK)
                break;
    }
    assert_int_equal(pthread_create(&t, NULL, slow_call, &job), 0);
    while (atomic_load(&side.unary_running) == 0)
        skf_sleep_ms(1);
    if (server_first)
        skf_wire_server_close(srv);
    hang_up(c);
    for (int i = 0; i < 40; i++)
        assert_int_equal(r[i].dones, 1);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_not_equal(job.e, SKF_OK);
    if (!server_first)
        skf_wire_server_close(srv);
    assert_int_equal(side.open, 0);
    assert_int_equal(side.all.dones, side.opened);
}
static void test_close_server_first(void **state)
{
    close_with_calls(true);
}
static void test_close_client_first(void **state)
{
    close_with_calls(false);
}

static void test_too_many_streams(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_why why = {{0}};
    struct record r[4] = {RECORD_INIT, RECORD_INIT, RECORD_INIT, RECORD_INIT};
    struct skf_wire_stream *s[4];
    struct skf_wire_server *srv = serve_with(&side, (struct skf_wire_server_opts){.max_streams = 3}, &why);
    struct skf_wire_channel *c = dial(srv);
    for (int i = 0; i < 3; i++) {
        s[i] = stream(c, "/test.Wire/Echo", &r[i]);
        assert_true(WAIT(&side.all, side.open == (unsigned)i + 1));
    }
    (void)stream(c, "/test.Wire/Echo", &r[3]);
    assert_true(WAIT(&r[3], r[3].dones == 1));
    assert_int_equal(r[3].status, SKF_WIRE_EXHAUSTED);
    assert_string_equal(r[3].text, "too many calls at a time");
    skf_wire_end(s[0], SKF_WIRE_OK, NULL);
    assert_true(WAIT(&r[0], r[0].dones == 1));
    assert_true(WAIT(&side.all, side.open == 2));
    hang_up(c);
    skf_wire_server_close(srv);
}

/* Programs of ours start others by exec: none of the layer's files may come along. */
static void test_files_close_on_exec(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct record r = RECORD_INIT;
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *c = dial(srv);
    (void)stream(c, "/test.Wire/Echo", &r);
    assert_true(WAIT(&side.all, side.open == 1));
    for (int fd = 3; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);
        char name[64], what[256] = "";
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, what, sizeof what - 1);
        bool is_ours = n > 0 && (strstr(what, "socket:") || strstr(what, "anon_inode:"));
        if (flags >= 0 && is_ours && !(flags & FD_CLOEXEC))
            fail_msg("descriptor %d, %s, would be inherited", fd, what);
    }
    hang_up(c);
    skf_wire_server_close(srv);
}

/* The n-th allocation fails, for every n: no crash, no hang, and an error or a stream that ends. */
static void test_no_memory(void **state)
{
    struct server_side side = {.all = RECORD_INIT};
    struct skf_wire_server *srv = serve(&side);
    struct skf_wire_channel *good = dial(srv);
    for (unsigned long n = 1; n <= 24; n++) {
        struct skf_wire_server *s = NULL;
        struct skf_wire_channel *c = NULL;
        struct record r = RECORD_INIT;
        struct skf_wire_stream *st = NULL;
        struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = tls_server};
        struct skf_why why = {{0}};
        skf_alloc_fail_at(n);
        enum skf_err e = skf_wire_server_open(&o, NULL, 0, &s, &why);
        skf_alloc_fail_at(0);
        assert_true((e == SKF_OK) == (s != NULL));
        skf_wire_server_close(s);
        skf_alloc_fail_at(n);
        e = skf_wire_channel_open("127.0.0.1:1", &tls_device, NULL, &c, &why);
        skf_alloc_fail_at(0);
        assert_true((e == SKF_OK) == (c != NULL));
        hang_up(c);
        skf_alloc_fail_at(n);
        e = skf_wire_stream_open(good, "/test.Wire/Echo", &recorder, &r, &st, &why);
        if (e == SKF_OK) {
            enum skf_err sent = skf_wire_send(st, "\0\0\0\0", 4);
            assert_true(sent == SKF_OK || sent == SKF_ERR_NOMEM || sent == SKF_ERR_NET);
            skf_wire_end(st, SKF_WIRE_OK, NULL);
            assert_true(WAIT(&r, r.dones == 1));
            skf_wire_unref(st);
        }
        skf_alloc_fail_at(0);
    }
    hang_up(good);
    skf_wire_server_close(srv);
}

int main(int argc, char **argv)
{
    if (is_probe(argc, argv))
        return PROBE_EXIT;
    if (argc == 3 && strcmp(argv[1], "client") == 0)
        client_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_restarts),    cmocka_unit_test(test_client_killed),
        cmocka_unit_test(test_client_frozen),      cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_close_server_first), cmocka_unit_test(test_close_client_first),
        cmocka_unit_test(test_too_many_streams),   cmocka_unit_test(test_files_close_on_exec),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
