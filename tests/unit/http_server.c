/* The HTTP layer: routes, limits, answers from other threads, clients that leave, many at once. */
#include "tests/lib/http_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "http/http.h"

static struct skf_http *server;
static char hi[] = "hi", any[] = "any";
static atomic_int n_gone;
static atomic_uint_fast64_t last_gone;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct skf_http_req *held[1200];
static size_t n_held;

static void on_gone(void *ctx, uint64_t id)
{
    assert_ptr_equal(ctx, &n_gone);
    atomic_store(&last_gone, id);
    atomic_fetch_add(&n_gone, 1);
}

static void hello(void *ctx, struct skf_http_req *r)
{
    assert_int_equal(skf_http_set_header(r, "x-test", "yes"), SKF_OK);
    assert_int_equal(skf_http_set_header(r, "x-bad", "a\r\nb"), SKF_ERR_ARG);
    assert_int_equal(skf_http_reply(r, 200, "text/plain", ctx, strlen(ctx)), SKF_OK);
    assert_int_equal(skf_http_reply(r, 200, "text/plain", "", 0), SKF_ERR_STATE);
}

static void echo(void *ctx, struct skf_http_req *r)
{
    (void)ctx;
    size_t n;
    const void *p = skf_http_body(r, &n);
    assert_int_equal(skf_http_reply(r, 200, "application/octet-stream", p, n), SKF_OK);
}

static void forget(void *ctx, struct skf_http_req *r)
{
    (void)ctx;
    (void)r;
}

static void hold(void *ctx, struct skf_http_req *r)
{
    (void)ctx;
    skf_http_hold(r, on_gone, &n_gone);
    pthread_mutex_lock(&lock);
    held[n_held++] = r;
    pthread_mutex_unlock(&lock);
}

static struct skf_http_req *wait_held(void)
{
    for (int i = 0; i < 1000 * client_slow(); i++) {
        pthread_mutex_lock(&lock);
        struct skf_http_req *r = n_held ? held[--n_held] : NULL;
        pthread_mutex_unlock(&lock);
        if (r)
            return r;
        skf_sleep_ms(5);
    }
    fail_msg("no request came");
    return NULL;
}

static bool is_within(int tenths, bool (*cond)(int), int arg)
{
    for (int i = 0; i < tenths * 10 * client_slow(); i++) {
        if (cond(arg))
            return true;
        skf_sleep_ms(10);
    }
    return false;
}
static bool is_gone_count(int n) { return atomic_load(&n_gone) >= n; }
static bool is_connections(int n) { return (int)skf_http_connections(server) == n; }

static int setup(void **state)
{
    (void)state;
    static const struct skf_http_route routes[] = {{"GET", "/hello", hello, hi}, {"GET", "/any/*", hello, any},
                                                   {"POST", "/echo", echo, NULL},  {"GET", "/forget", forget, NULL},
                                                   {"GET", "/hold", hold, NULL},   {"POST", "/hello", echo, NULL}};
    const struct skf_http_opts o = {.listen = "127.0.0.1:0", .body_limit = 1000, .max_connections = 1100, .stream_limit = 64 << 10};
    struct skf_why why = {{0}};
    n_held = 0;
    atomic_store(&n_gone, 0);
    if (skf_http_open(&o, routes, SKF_COUNT(routes), &server, &why) != SKF_OK)
        fail_msg("%s", why.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    skf_http_close(server);
    return 0;
}

static void test_routes(void **state)
{
    (void)state;
    char a[4096];
    unsigned port = skf_http_port(server);
    assert_int_equal(client_ask(port, "GET", "/hello", NULL, NULL, a, sizeof a), 200);
    assert_non_null(strstr(a, "x-test: yes"));
    assert_non_null(strstr(a, "\r\n\r\nhi"));
    assert_int_equal(client_ask(port, "HEAD", "/hello", NULL, NULL, a, sizeof a), 200);
    assert_null(strstr(a, "\r\n\r\nhi"));
    assert_int_equal(client_ask(port, "GET", "/any/thing?x=1", NULL, NULL, a, sizeof a), 200);
    assert_int_equal(client_ask(port, "GET", "/hello2", NULL, NULL, a, sizeof a), 404);
    assert_non_null(strstr(a, "{\"error\":{\"message\":\"no such path\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}"));
    assert_int_equal(client_ask(port, "DELETE", "/hello", NULL, NULL, a, sizeof a), 405);
    assert_non_null(strstr(a, "Allow: GET, POST\r\n"));
    assert_int_equal(client_ask(port, "GET", "/forget", NULL, NULL, a, sizeof a), 500);
    assert_int_equal(client_ask(port, "GET", "/hello HTTP/9.9\r\nx", NULL, NULL, a, sizeof a) / 100, 5);
}

static void test_bodies(void **state)
{
    (void)state;
    char a[4096], body[1100], head[200];
    unsigned port = skf_http_port(server);
    memset(body, 'x', sizeof body);
    body[1000] = 0;
    assert_int_equal(client_ask(port, "POST", "/echo", NULL, body, a, sizeof a), 200);
    assert_int_equal(strlen(strstr(a, "\r\n\r\n") + 4), 1000);
    assert_int_equal(client_ask(port, "POST", "/echo", NULL, NULL, a, sizeof a), 200);
    body[1000] = 'x';
    body[1001] = 0;
    assert_int_equal(client_ask(port, "POST", "/echo", NULL, body, a, sizeof a), 413);
    /* in chunks, so that its length is not known before */
    for (int size = 1000; size <= 1001; size++) {
        size_t len = 0;
        int fd = client_connect(port);
        int n = snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n", size);
        client_send(fd, head, (size_t)n);
        client_send(fd, body, (size_t)size);
        client_send(fd, "\r\n0\r\n\r\n", 7);
        a[0] = 0;
        assert_true(is_client_read(fd, a, sizeof a, &len, "HTTP/1.1 "));
        assert_non_null(strstr(a, size == 1000 ? "HTTP/1.1 200" : "HTTP/1.1 413"));
        close(fd);
    }
    /* a length that cannot be */
    assert_int_equal(client_ask(port, "POST", "/echo", "Content-Length: 99999999999999999999\r\n", "x", a, sizeof a) / 100, 4);
}

static void test_held(void **state)
{
    (void)state;
    char a[4096] = "";
    size_t len = 0;
    int fd = client_connect(skf_http_port(server));
    client_request(fd, "GET", "/hold", NULL, NULL);
    struct skf_http_req *r = wait_held();
    assert_string_equal(skf_http_path(r), "/hold");
    skf_sleep_ms(20);
    assert_int_equal(skf_http_reply(r, 200, "text/plain", "late", 4), SKF_OK);
    skf_http_release(r);
    assert_true(is_client_read(fd, a, sizeof a, &len, "late"));
    /* the connection lives on; a stream this time */
    client_request(fd, "GET", "/hold", NULL, NULL);
    r = wait_held();
    assert_int_equal(skf_http_put(r, "x", 1), SKF_ERR_STATE);
    assert_int_equal(skf_http_begin(r, 200, "text/event-stream"), SKF_OK);
    for (int i = 0; i < 5; i++) {
        char event[32];
        snprintf(event, sizeof event, "data: %d\n\n", i);
        assert_int_equal(skf_http_put(r, event, strlen(event)), SKF_OK);
        assert_true(is_client_read(fd, a, sizeof a, &len, event)); /* each arrives before the next is put */
    }
    skf_http_end(r);
    assert_int_equal(skf_http_put(r, "x", 1), SKF_ERR_STATE);
    skf_http_release(r);
    assert_true(is_client_read(fd, a, sizeof a, &len, "\r\n0\r\n\r\n"));
    /* released without an answer */
    client_request(fd, "GET", "/hold", NULL, NULL);
    skf_http_release(wait_held());
    assert_true(is_client_read(fd, a, sizeof a, &len, "HTTP/1.1 500"));
    close(fd);
    assert_int_equal(atomic_load(&n_gone), 0);
}

static void test_cut(void **state)
{
    (void)state;
    char a[4096] = "";
    size_t len = 0;
    int other = client_connect(skf_http_port(server)); /* silent for longer, so the server's look at who is silent ends with it */
    assert_true(is_within(50, is_connections, 1));
    int fd = client_connect(skf_http_port(server));
    client_request(fd, "GET", "/hold", NULL, NULL);
    struct skf_http_req *r = wait_held();
    assert_int_equal(skf_http_begin(r, 200, "text/plain"), SKF_OK);
    assert_int_equal(skf_http_put(r, "part", 4), SKF_OK);
    assert_true(is_client_read(fd, a, sizeof a, &len, "part"));
    skf_http_release(r); /* begun, not ended */
    assert_true(is_client_read(fd, a, sizeof a, &len, NULL));
    assert_null(strstr(a, "\r\n0\r\n")); /* so the client can see that it is not whole */
    assert_true(is_within(50, is_connections, 1)); /* and its place is free, though the client has not closed its end */
    close(fd);
    close(other);
}

/* Seen while nothing is sent, and while a stream runs; told once, and puts fail from then on. */
static void test_client_leaves(void **state)
{
    (void)state;
    for (int streaming = 0; streaming < 2; streaming++) {
        int fd = client_connect(skf_http_port(server));
        client_request(fd, "GET", "/hold", NULL, NULL);
        struct skf_http_req *r = wait_held();
        if (streaming) {
            assert_int_equal(skf_http_begin(r, 200, "text/plain"), SKF_OK);
            assert_int_equal(skf_http_put(r, "x", 1), SKF_OK);
        }
        skf_sleep_ms(50);
        close(fd);
        assert_true(is_within(50, is_gone_count, streaming + 1));
        assert_int_equal(atomic_load(&last_gone), skf_http_id(r));
        assert_int_equal(streaming ? skf_http_put(r, "y", 1) : skf_http_reply(r, 200, "text/plain", "y", 1), SKF_ERR_NET);
        skf_http_release(r);
    }
    skf_sleep_ms(50);
    assert_int_equal(atomic_load(&n_gone), 2);
}

/* A reader that takes nothing: the stream's buffer fills to its limit and no further. */
static void test_slow_reader(void **state)
{
    (void)state;
    static char block[8192];
    int fd = client_connect(skf_http_port(server)), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_request(fd, "GET", "/hold", NULL, NULL);
    struct skf_http_req *r = wait_held();
    assert_int_equal(skf_http_begin(r, 200, "text/plain"), SKF_OK);
    enum skf_err e = SKF_OK;
    size_t blocks = 0;
    for (int quiet = 0; quiet < 20 && blocks < 5000; quiet++) { /* until it has been full for a while */
        e = skf_http_put(r, block, sizeof block);
        if (e == SKF_OK) {
            quiet = 0;
            blocks++;
        } else {
            skf_sleep_ms(10);
        }
    }
    assert_int_equal(e, SKF_ERR_LIMIT);
    assert_true(blocks < 5000);
    skf_http_cut(r);
    skf_http_release(r);
    close(fd);
}

struct writer {
    struct skf_http_req *r;
    int number;
};
static void *write_stream(void *ctx)
{
    struct writer *w = ctx;
    char line[64];
    enum skf_err e = skf_http_begin(w->r, 200, "text/plain");
    for (int i = 0; e == SKF_OK && i < 50; i++) {
        snprintf(line, sizeof line, "%s-%d;", skf_http_path(w->r), i);
        e = skf_http_put(w->r, line, strlen(line));
        skf_sleep_ms(1);
    }
    skf_http_end(w->r);
    skf_http_release(w->r);
    return NULL;
}

static void test_many_streams(void **state)
{
    (void)state;
    enum { N = 64 };
    static char answers[N][8192];
    int fds[N];
    pthread_t threads[N];
    struct writer w[N];
    for (int i = 0; i < N; i++) {
        fds[i] = client_connect(skf_http_port(server));
        client_request(fds[i], "GET", "/hold", "Connection: close\r\n", NULL);
    }
    for (int i = 0; i < N; i++) {
        w[i] = (struct writer){wait_held(), i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_stream, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        size_t len = 0;
        answers[i][0] = 0;
        assert_true(is_client_read(fds[i], answers[i], sizeof answers[i], &len, "\r\n0\r\n\r\n"));
        assert_non_null(strstr(answers[i], "/hold-49;"));
        close(fds[i]);
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
}

static long resident_kib(void)
{
    long size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &size, &pages), 2);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A thousand connections that say nothing, or half a head: bounded memory, no thread each, and others are served. */
static void test_idle_connections(void **state)
{
    (void)state;
    static int fds[1000];
    char a[4096];
    struct rlimit l = {0, 0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0); /* both ends are here */
    l.rlim_cur = SKF_MIN(l.rlim_max, (rlim_t)4096);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
    int count = (int)SKF_MIN((rlim_t)SKF_COUNT(fds), (l.rlim_cur - 100) / 2);
    long before = resident_kib();
    for (int i = 0; i < count; i++) {
        fds[i] = client_connect(skf_http_port(server));
        if (i % 2)
            client_send(fds[i], "GET /hello HTTP/1.1\r\nX: ", 24);
    }
    assert_true(is_within(100, is_connections, count));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep books of their own */
    assert_true(resident_kib() - before < 40 << 10);
#else
    (void)before;
#endif
    assert_int_equal(client_ask(skf_http_port(server), "GET", "/hello", NULL, NULL, a, sizeof a), 200);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    assert_true(is_within(600, is_connections, 0)); /* a thousand ends, told one by one on a busy machine */
}

static bool is_open(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}
static bool is_closed(int fd) { return !is_open(fd); }

/* More that wait than there are places: who has waited longest makes room, a request under way and a fresh connection stay. */
static void test_idle_make_room(void **state)
{
    (void)state;
    static const struct skf_http_route routes[] = {{"GET", "/hello", hello, hi}, {"GET", "/hold", hold, NULL}};
    const struct skf_http_opts o = {.listen = "127.0.0.1:0", .max_connections = 64};
    struct skf_http *h = NULL;
    struct skf_why why = {{0}};
    char a[4096] = "";
    size_t len = 0;
    int fds[300], n = (int)SKF_COUNT(fds);
    assert_int_equal(skf_http_open(&o, routes, SKF_COUNT(routes), &h, &why), SKF_OK);
    int busy = client_connect(skf_http_port(h));
    client_request(busy, "GET", "/hold", NULL, NULL);
    struct skf_http_req *r = wait_held();
    for (int i = 0; i < n; i++) {
        fds[i] = client_connect(skf_http_port(h));
        if (i % 2)
            client_send(fds[i], "GET /hello HTTP/1.1\r\nX: ", 24);
    }
    assert_int_equal(client_ask(skf_http_port(h), "GET", "/hello", NULL, NULL, a, sizeof a), 200);
    for (int i = 0; i < n - 64; i++)
        assert_true(is_within(50, is_closed, fds[i]));
    for (int i = n - 2; i < n; i++)
        assert_true(is_open(fds[i]));
    assert_int_equal(atomic_load(&n_gone), 0);
    assert_int_equal(skf_http_reply(r, 200, "text/plain", "still here", 10), SKF_OK);
    skf_http_release(r);
    assert_true(is_client_read(busy, a, sizeof a, &len, "still here"));
    for (int i = 0; i < n; i++)
        close(fds[i]);
    close(busy);
    skf_http_close(h);
}

static void *close_server(void *ctx)
{
    skf_http_close(ctx);
    return NULL;
}

/* Closing tells who holds a request, waits for its release, and leaves nothing behind. */
static void test_close_while_held(void **state)
{
    (void)state;
    static const struct skf_http_route routes[] = {{"GET", "/hold", hold, NULL}};
    const struct skf_http_opts o = {.listen = "127.0.0.1:0"};
    struct skf_http *h = NULL;
    pthread_t t;
    assert_int_equal(skf_http_open(&o, routes, 1, &h, NULL), SKF_OK);
    int waiting = client_connect(skf_http_port(h)), streaming = client_connect(skf_http_port(h)), idle = client_connect(skf_http_port(h));
    client_request(waiting, "GET", "/hold", NULL, NULL);
    struct skf_http_req *a = wait_held();
    client_request(streaming, "GET", "/hold", NULL, NULL);
    struct skf_http_req *b = wait_held();
    assert_int_equal(skf_http_begin(b, 200, "text/plain"), SKF_OK);
    int before = atomic_load(&n_gone);
    assert_int_equal(pthread_create(&t, NULL, close_server, h), 0);
    assert_true(is_within(50, is_gone_count, before + 2));
    skf_http_release(a);
    skf_http_release(b);
    pthread_join(t, NULL);
    close(waiting);
    close(streaming);
    close(idle);
}

static void test_listen_errors(void **state)
{
    (void)state;
    static const struct skf_http_route routes[] = {{"GET", "/hello", hello, hi}};
    static const char *const bad[] = {"", "8080", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", ":80", "[::1:80", "127.0.0.1:-1"};
    struct skf_http *h = NULL;
    struct skf_why why = {{0}};
    char at[32];
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        const struct skf_http_opts o = {.listen = bad[i]};
        assert_int_equal(skf_http_open(&o, routes, 1, &h, &why), SKF_ERR_ARG);
    }
    snprintf(at, sizeof at, "127.0.0.1:%u", skf_http_port(server));
    const struct skf_http_opts o = {.listen = at};
    assert_int_equal(skf_http_open(&o, routes, 1, &h, &why), SKF_ERR_BUSY);
    assert_non_null(strstr(why.text, at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_client_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_make_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_while_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listen_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
