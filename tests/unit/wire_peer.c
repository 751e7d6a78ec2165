/*
 * Two processes that speak over wire/, this program being either of them; other tests and the benchmark put a foreign
 * peer in the place of one.
 *
 *   wire_peer                    the test: starts `serve` and runs the calls against it
 *   wire_peer serve              prints `listening HOST:PORT`, serves until its stdin ends
 *   wire_peer call ADDRESS       unary calls and streams against test.Wire there; "ok"/"not ok" lines, exit status
 *   wire_peer pull ADDRESS SIZE TOTAL      takes TOTAL bytes in messages of SIZE, prints seconds
 *   wire_peer idle ADDRESS COUNT           opens so many connections with a stream each, prints `open`, waits for its
 * stdin to end
 */
#include "tests/lib/wire_fix.h"

#include <signal.h>

/* ---- serve ------------------------------------------------------------------------------------------------------- */

/* Blast: as Push, but the content is nothing, so that only the wire is measured. */
struct blast {
    uint32_t count, size;
};
static uint8_t blast_bytes[SKF_WIRE_MESSAGE_MAX];

static enum skf_err blast_open(void *ctx, struct skf_wire_stream *s, void **stream_ctx, struct skf_why *why)
{
    *stream_ctx = skf_calloc(1, sizeof(struct blast));
    return *stream_ctx ? SKF_OK : SKF_ERR_NOMEM;
}
static void blast_writable(void *ctx, struct skf_wire_stream *s)
{
    struct blast *b = ctx;
    if (b->count == 0)
        skf_wire_end(s, SKF_WIRE_OK, "");
    else if (skf_wire_send(s, blast_bytes, b->size) == SKF_OK)
        b->count--;
}
static enum skf_err blast_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why)
{
    struct blast *b = ctx;
    if (n != 8)
        return skf_fail(why, SKF_ERR_ARG, "count and size, please");
    memcpy(&b->count, p, 4);
    memcpy(&b->size, p + 4, 4);
    if (b->size > sizeof blast_bytes)
        return skf_fail(why, SKF_ERR_LIMIT, "too large");
    blast_writable(ctx, s);
    return SKF_OK;
}
static void blast_half_close(void *ctx, struct skf_wire_stream *s) {}
static void blast_done(void *ctx, struct skf_wire_stream *s, enum skf_wire_status status, const char *text)
{
    skf_free(ctx);
}

static int serve_main(void)
{
    static struct server_side side = {.all = RECORD_INIT};
    const struct skf_wire_method m[] = {
        {.path = "/test.Wire/Echo", .open = side_open, .events = {echo_message, NULL, NULL, side_done}, .ctx = &side},
        {.path = "/test.Wire/Refuse", .open = refuse_open, .events = recorder, .ctx = NULL},
        {.path = "/test.Wire/Unary", .unary = unary, .ctx = &side},
        {.path = "/test.Wire/Blast",
         .open = blast_open,
         .events = {blast_message, blast_writable, blast_half_close, blast_done}},
    };
    struct skf_wire_server_opts o = {.listen = "127.0.0.1:0", .tls = tls_server};
    struct skf_wire_server *s;
    struct skf_why why = {{0}};
    char c;
    if (skf_wire_server_open(&o, m, SKF_COUNT(m), &s, &why) != SKF_OK) {
        (void)fprintf(stderr, "wire_peer: %s\n", why.text);
        return 1;
    }
    (void)printf("listening 127.0.0.1:%d\n", skf_wire_server_port(s));
    (void)fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) > 0)
        continue;
    skf_wire_server_close(s);
    return 0;
}

/* ---- call -------------------------------------------------------------------------------------------------------- */

static int count_not_ok;
static const char *mark = ""; /* in front of each line: the test's own TAP has one result */

static void say(bool ok, const char *what, const char *detail)
{
    (void)printf("%s%s - %s%s%s\n", mark, ok ? "ok" : "not ok", what, ok ? "" : ": ", ok ? "" : detail);
    count_not_ok += !ok;
}

static void call_unary(struct skf_wire_channel *c)
{
    struct skf_why why = {{0}};
    uint8_t *answer;
    size_t n;
    enum skf_err e = skf_wire_call(c, "/test.Wire/Unary", "hello", 5, 20000, &answer, &n, &why);
    say(e == SKF_OK && n == 5 && memcmp(answer, "hello", 5) == 0, "unary answer", why.text);
    skf_free(answer);
    e = skf_wire_call(c, "/test.Wire/Unary", "fail 11", 7, 20000, &answer, &n, &why);
    say(e == SKF_ERR_NOT_FOUND && strstr(why.text, "as asked: é"), "status and its text", why.text);
    e = skf_wire_call(c, "/test.Wire/Unary", "sleep 2000", 10, 200, &answer, &n, &why);
    say(e == SKF_ERR_TIMEOUT, "deadline", why.text);
    e = skf_wire_call(c, "/test.Wire/Absent", "x", 1, 20000, &answer, &n, &why);
    say(e == SKF_ERR_UNSUPPORTED, "unknown method", why.text);
}

static void call_stream(struct skf_wire_channel *c)
{
    struct record r = RECORD_INIT, bad = RECORD_INIT;
    struct skf_wire_stream *s = stream(c, "/test.Wire/Echo", &r);
    uint8_t m[2000];
    for (uint32_t i = 0; i < 300; i++) {
        fill(m, sizeof m, i);
        while (skf_wire_send(s, m, sizeof m) == SKF_ERR_FULL)
            skf_sleep_ms(1);
    }
    skf_wire_end(s, SKF_WIRE_OK, NULL);
    say(WAIT(&r, r.dones == 1) && r.status == SKF_WIRE_OK && r.messages == 300 && !r.bad, "300 messages there and back",
        r.text);
    s = stream(c, "/test.Wire/Echo", &bad);
    if (skf_wire_send(s, "bad", 3) != SKF_OK)
        say(false, "send", "");
    say(WAIT(&bad, bad.dones == 1) && bad.status == SKF_WIRE_DATA_LOSS &&
            strcmp(bad.text, "chunk 7: not what it says") == 0,
        "a stream ended by the server, with its reason", bad.text);
}

static struct skf_wire_channel *dial_to(const char *address)
{
    struct skf_wire_channel *c;
    struct skf_why why = {{0}};
    if (skf_wire_channel_open(address, &tls_device, NULL, &c, &why) != SKF_OK)
        fail_msg("%s", why.text);
    return c;
}

static int call_main(const char *address)
{
    struct skf_wire_channel *c = dial_to(address);
    call_unary(c);
    call_stream(c);
    hang_up(c);
    return count_not_ok > 0;
}

/* ---- pull, idle -------------------------------------------------------------------------------------------------- */

static enum skf_err count_message(void *ctx, struct skf_wire_stream *s, const uint8_t *p, size_t n, struct skf_why *why)
{
    ((struct record *)ctx)->bytes += n; /* one thread; read after `done` */
    return SKF_OK;
}

static int pull_main(const char *address, const char *size, const char *total)
{
    struct record r = RECORD_INIT;
    struct skf_wire_channel *c = dial_to(address);
    struct skf_wire_events ev = {.message = count_message, .done = on_done};
    struct skf_wire_stream *s;
    struct skf_why why = {{0}};
    uint64_t bytes = strtoull(total, NULL, 10);
    uint32_t ask[2] = {0, (uint32_t)strtoul(size, NULL, 10)};
    uint8_t *answer;
    size_t n;
    ask[0] = (uint32_t)(bytes / ask[1]);
    enum skf_err e =
        skf_wire_call(c, "/test.Wire/Unary", "warm", 4, 20000, &answer, &n, &why); /* the handshake is not measured */
    skf_free(answer);
    uint64_t begun = skf_now_ns();
    if (e == SKF_OK)
        e = skf_wire_stream_open(c, "/test.Wire/Blast", &ev, &r, &s, &why);
    if (e != SKF_OK) {
        (void)fprintf(stderr, "wire_peer: %s\n", why.text);
        return 1;
    }
    bool ok = skf_wire_send(s, ask, sizeof ask) == SKF_OK && WAIT(&r, r.dones == 1) && r.status == SKF_WIRE_OK &&
              r.bytes == (uint64_t)ask[0] * ask[1];
    (void)printf("%.6f\n", (double)(skf_now_ns() - begun) / 1e9);
    skf_wire_unref(s);
    skf_wire_channel_close(c);
    return !ok;
}

static int idle_main(const char *address, const char *number)
{
    unsigned count = (unsigned)strtoul(number, NULL, 10);
    struct record r = RECORD_INIT;
    struct skf_wire_channel **c = skf_calloc(count, sizeof(struct skf_wire_channel *));
    char byte;
    for (unsigned i = 0; i < count; i++) {
        c[i] = dial_to(address);
        struct skf_wire_stream *s;
        struct skf_why why = {{0}};
        if (skf_wire_stream_open(c[i], "/test.Wire/Echo", &recorder, &r, &s, &why) != SKF_OK ||
            skf_wire_send(s, "\0\0\0\0", 4) != SKF_OK || !WAIT(&r, r.messages == i + 1))
            return 1;
        skf_wire_unref(s);
    }
    (void)printf("open\n");
    (void)fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    _exit(0);
}

/* ---- the test ---------------------------------------------------------------------------------------------------- */

static void test_two_processes(void **state)
{
    int in[2], out[2];
    char name[] = "wire_peer", verb[] = "serve", line[64] = "";
    char *argv[] = {name, verb, NULL};
    pid_t pid;
    posix_spawn_file_actions_t fa;
    if (!is_spawning_ok())
        return;
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in[0], 0);
    posix_spawn_file_actions_adddup2(&fa, out[1], 1);
    posix_spawn_file_actions_addclose(&fa, in[1]);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    close(in[0]);
    close(out[1]);
    for (size_t n = 0; n < sizeof line - 1 && read(out[0], line + n, 1) == 1 && line[n] != '\n';)
        n++;
    line[strcspn(line, "\n")] = 0;
    assert_memory_equal(line, "listening ", 10);
    struct skf_wire_channel *c = dial_to(line + 10);
    mark = "# ";
    call_unary(c);
    call_stream(c);
    hang_up(c);
    assert_int_equal(count_not_ok, 0);
    close(in[1]); /* it ends by itself, and well */
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(out[0]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_processes)};
    if (is_probe(argc, argv))
        return PROBE_EXIT;
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return serve_main();
    if (argc == 3 && strcmp(argv[1], "call") == 0)
        return call_main(argv[2]);
    if (argc == 5 && strcmp(argv[1], "pull") == 0)
        return pull_main(argv[2], argv[3], argv[4]);
    if (argc == 4 && strcmp(argv[1], "idle") == 0)
        return idle_main(argv[2], argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
