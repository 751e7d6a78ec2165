/* The gateway in front of scripted workers: answers, errors, routes, workers that die, clients that leave. */
#include "tests/unit/gateway_fake.h"

#include "gateway/gateway.h"

static char dir[64];
static struct fake a, b;
static struct skf_gw *gw;
static char got[CLIENT_MAX];

#define JSON "Content-Type: application/json\r\n"

static void set_routes(size_t n, struct fake *const *f)
{
    struct skf_gw_route r[4];
    struct skf_why why = {{0}};
    for (size_t i = 0; i < n; i++)
        r[i] = (struct skf_gw_route){f[i]->model, f[i]->version, f[i]->path, false, false, 0};
    if (skf_gw_set_routes(gw, r, n, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void route_to(struct fake *f) { set_routes(1, &f); }

static int open_gateway(unsigned max_requests, unsigned wait_ms)
{
    char control[108];
    struct skf_why why = {{0}};
    snprintf(dir, sizeof dir, "/tmp/skf-gw-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(control, sizeof control, "%s/control.sock", dir);
    const struct skf_gw_opts o = {.listen = "127.0.0.1:0", .control = control, .max_requests = max_requests, .wait_ms = wait_ms};
    if (skf_gw_open(&o, &gw, &why) != SKF_OK)
        fail_msg("%s", why.text);
    fake_start(&a, dir, "m", "v1");
    fake_start(&b, dir, "m", "v2");
    return 0;
}
static int setup(void **state)
{
    (void)state;
    return open_gateway(0, (unsigned)(3000 * client_slow()));
}
static int setup_short(void **state)
{
    (void)state;
    return open_gateway(3, 300);
}

static int teardown(void **state)
{
    (void)state;
    skf_gw_close(gw);
    fake_stop(&a);
    fake_stop(&b);
    assert_int_equal(rmdir(dir), 0); /* the control socket is gone too */
    return 0;
}

static int post(const char *path, const char *body)
{
    return client_ask(skf_gw_port(gw), "POST", path, JSON, body, got, sizeof got);
}
static int chat(const char *say, const char *more)
{
    char body[512];
    snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}", say, more);
    return post("/v1/chat/completions", body);
}
static int start_chat(const char *say, const char *more)
{
    char body[512];
    int fd = client_connect(skf_gw_port(gw));
    snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}", say, more);
    client_request(fd, "POST", "/v1/chat/completions", JSON, body);
    return fd;
}

static void expect(const char *part)
{
    if (!strstr(got, part))
        fail_msg("no %s in\n%s", part, got);
}

static bool is_soon(atomic_int *n, int at_least)
{
    for (int i = 0; i < 500 * client_slow(); i++) {
        if (atomic_load(n) >= at_least)
            return true;
        skf_sleep_ms(10);
    }
    return false;
}

/* Asks the metrics for one value. */
static double metric(const char *name)
{
    char line[128];
    assert_int_equal(client_ask(skf_gw_port(gw), "GET", "/metrics", NULL, NULL, got, sizeof got), 200);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(got, line);
    if (!at)
        fail_msg("no metric %s", name);
    return strtod(at + strlen(line), NULL);
}
static bool is_metric_soon(const char *name, double want)
{
    for (int i = 0; i < 500 * client_slow(); i++) {
        if (metric(name) == want)
            return true;
        skf_sleep_ms(10);
    }
    return false;
}

static void test_whole_answers(void **state)
{
    (void)state;
    route_to(&a);
    assert_int_equal(chat("say 3", ""), 200);
    expect("x-skiff-version: v1");
    expect("\"object\":\"chat.completion\"");
    expect("\"system_fingerprint\":\"v1\"");
    expect("\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"w0 w1 w2 \"},\"logprobs\":null,\"finish_reason\":\"stop\"}]");
    expect("\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10,\"prompt_tokens_details\":{\"cached_tokens\":0},"
           "\"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}");
    assert_int_equal(post("/v1/completions", "{\"prompt\":\"say 2\"}"), 200);
    expect("\"object\":\"text_completion\"");
    expect("\"choices\":[{\"index\":0,\"text\":\"w0 w1 \",\"logprobs\":null,\"finish_reason\":\"stop\"}]");
    assert_int_equal(chat("echo",
                          ",\"temperature\":0.5,\"top_k\":40,\"top_p\":0.9,\"repetition_penalty\":1.1,\"seed\":-5,\"max_tokens\":9,"
                          "\"stop\":[\"x\",\"\\u00e9\\n\"]"),
                     200);
    expect("t=0.50 k=40 p=0.90 r=1.10 seed=1:18446744073709551611 max=9 chat=1 messages=1 first=user stop=[x][\303\251\\n]");
    expect("\"finish_reason\":\"length\"");
    assert_int_equal(chat("echo", ""), 200);
    expect("t=1.00 k=0 p=1.00 r=1.00 seed=0:0 max=0 ");
}

static void test_streams(void **state)
{
    (void)state;
    route_to(&a);
    assert_int_equal(chat("say 2", ",\"stream\":true"), 200);
    expect("Content-Type: text/event-stream");
    expect("x-skiff-version: v1");
    expect("\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    expect("\"choices\":[{\"index\":0,\"delta\":{\"content\":\"w1 \"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    expect("\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    expect("data: [DONE]\n\n");
    assert_null(strstr(got, "usage"));
    assert_int_equal(chat("say 1", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"), 200);
    expect("\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1,\"total_tokens\":8,\"prompt_tokens_details\":{\"cached_tokens\":0},"
           "\"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}");
    expect(",\"x_skiff\":{\"timing\":{\"queue_ms\":0.000,");
    expect("}}}\n\ndata: [DONE]\n\n");
    assert_int_equal(post("/v1/completions", "{\"model\":\"m\",\"prompt\":[\"say 1\"],\"stream\":true}"), 200);
    expect("\"choices\":[{\"index\":0,\"text\":\"w0 \",\"logprobs\":null,\"finish_reason\":null}]");
    assert_int_equal(chat("say 0", ",\"stream\":true"), 200); /* an answer without a word is one too */
    expect("data: [DONE]\n\n");
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *path, *body, *want;
    } bad[] = {
        {400, "/v1/chat/completions", "", "no JSON"},
        {400, "/v1/chat/completions", "[]", "must be a JSON object, not an array"},
        {400, "/v1/chat/completions", "{\"messages\":[]}", "\"param\":\"messages\""},
        {404, "/v1/chat/completions", "{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "\"code\":\"model_not_found\""},
        {400, "/v1/completions", "{\"prompt\":\"x\",\"temperature\":\"warm\"}", "\"param\":\"temperature\""},
        {400, "/v1/completions", "{\"prompt\":\"fail limit\"}", "\"code\":\"context_length_exceeded\""},
        {429, "/v1/completions", "{\"prompt\":\"fail busy\"}", "Retry-After: 1"},
        {400, "/v1/completions", "{\"prompt\":\"fail refused\"}", "so said the test"},
        {500, "/v1/completions", "{\"prompt\":\"fail internal\"}", "so said the test"},
        {500, "/v1/completions", "{\"prompt\":\"fail internal\",\"stream\":true}", "so said the test"},
        {405, "/v1/models", "{}", "Allow: GET"},
        {404, "/v1/embeddings", "{}", "no such path"},
    };
    assert_int_equal(chat("say 1", ""), 503); /* after a while: somebody may be about to say which models there are */
    expect("no model is loaded yet");
    assert_int_equal(client_ask(skf_gw_port(gw), "GET", "/health", NULL, NULL, got, sizeof got), 503);
    route_to(&a);
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        int status = post(bad[i].path, bad[i].body);
        if (status != bad[i].status || !strstr(got, bad[i].want) || !strstr(got, "{\"error\":{\"message\":\""))
            fail_msg("%s %s gives\n%s", bad[i].path, bad[i].body, got);
    }
    assert_int_equal(client_ask(skf_gw_port(gw), "POST", "/v1/completions", "Content-Type: text/plain\r\n", "{}", got, sizeof got), 415);
    assert_int_equal(client_ask(skf_gw_port(gw), "POST", "/v1/completions", NULL, "{}", got, sizeof got), 415);
    assert_int_equal(metric("skiff_requests_failed_total"), 3); /* 503 and twice internal */
}

static void test_lists(void **state)
{
    (void)state;
    route_to(&a);
    assert_int_equal(client_ask(skf_gw_port(gw), "GET", "/v1/models", NULL, NULL, got, sizeof got), 200);
    expect("{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":0,\"owned_by\":\"skiff\",\"version\":\"v1\",\"ready\":true}]}");
    assert_int_equal(client_ask(skf_gw_port(gw), "GET", "/health", NULL, NULL, got, sizeof got), 200);
    expect("\"status\":\"ok\"");
    assert_int_equal(chat("say 4", ""), 200);
    assert_int_equal(metric("skiff_tokens_total"), 4);
    expect("skiff_worker_up{model=\"m\",version=\"v1\",socket=\"");
    expect("\n# TYPE skiff_requests_active gauge\n");
}

/* New requests go to the new worker at once; what runs on the old one ends there, and then it is let go. */
static void test_swap(void **state)
{
    (void)state;
    size_t len = 0;
    route_to(&a);
    int fd = start_chat("long", ",\"stream\":true");
    got[0] = 0;
    assert_true(is_client_read(fd, got, sizeof got, &len, "tick"));
    route_to(&b);
    assert_int_equal(chat("say 1", ""), 200);
    expect("x-skiff-version: v2");
    len = 0;
    got[0] = 0;
    assert_true(is_client_read(fd, got, sizeof got, &len, "tick")); /* the old stream goes on */
    assert_int_equal(atomic_load(&a.connects), 1);
    close(fd);
    for (int i = 0; i < 500 * client_slow() && atomic_load(&a.fd) >= 0; i++)
        skf_sleep_ms(10);
    assert_int_equal(atomic_load(&a.fd), -1); /* nothing runs there any more: let go */
    route_to(&a);
    assert_int_equal(chat("say 1", ""), 200);
    expect("x-skiff-version: v1");
}

/* A route to a worker that is not there changes nothing; one that says it is another version neither. */
static void test_bad_routes(void **state)
{
    (void)state;
    char path[120];
    struct skf_why why = {{0}};
    route_to(&a);
    snprintf(path, sizeof path, "%s/none.sock", dir);
    struct skf_gw_route none = {"m", "v3", path, false, false, 0}, other = {"m", "v3", b.path, false, false, 0},
                              bad[] = {{"", "v", path, false, false, 0}, {"m", "", path, false, false, 0}, {"m", "v", "", false, false, 0}, {"m x", "v", path, false, false, 0}};
    assert_int_equal(skf_gw_set_routes(gw, &none, 1, &why), SKF_ERR_NET);
    assert_non_null(strstr(why.text, "none.sock"));
    assert_int_equal(skf_gw_set_routes(gw, &other, 1, &why), SKF_ERR_NET);
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        assert_int_equal(skf_gw_set_routes(gw, &bad[i], 1, &why), SKF_ERR_ARG);
    assert_int_equal(chat("say 1", ""), 200);
    expect("x-skiff-version: v1");
}

/* Asked before anybody said which models there are: held, then answered, or told that there is no such model. */
static void test_asked_early(void **state)
{
    (void)state;
    size_t len = 0, len2 = 0;
    char more[CLIENT_MAX];
    int fd = start_chat("say 1", "");
    int other = client_connect(skf_gw_port(gw));
    client_request(other, "POST", "/v1/completions", JSON, "{\"model\":\"none\",\"prompt\":\"x\"}");
    assert_true(is_metric_soon("skiff_requests_waiting", 2));
    route_to(&a);
    got[0] = more[0] = 0;
    assert_true(is_client_read(fd, got, sizeof got, &len, "x-skiff-version: v1"));
    assert_true(is_client_read(other, more, sizeof more, &len2, "model_not_found"));
    close(fd);
    close(other);
    set_routes(0, NULL); /* from now on it is known that there is none */
    assert_int_equal(chat("say 1", ""), 503);
    expect("no model is loaded yet");
}

/* A version takes another's place: requests wait though the old worker is there, which ends what it has, and the next one gets them. */
static void test_held(void **state)
{
    (void)state;
    char path[120];
    size_t len = 0, len2 = 0;
    struct skf_why why = {{0}};
    static char more[CLIENT_MAX];
    snprintf(path, sizeof path, "%s/held.sock", dir);
    const struct skf_gw_route held = {"m", "v2", path, true, false, 0};
    route_to(&a);
    int old = start_chat("long", ",\"stream\":true");
    got[0] = more[0] = 0;
    assert_true(is_client_read(old, got, sizeof got, &len, "tick"));
    assert_int_equal(skf_gw_set_names(gw, NULL, 0, 60000, &why), SKF_OK);
    assert_int_equal(skf_gw_set_routes(gw, &held, 1, &why), SKF_OK);
    int fd = start_chat("say 1", "");
    assert_true(is_metric_soon("skiff_requests_waiting", 1));
    len = 0;
    got[0] = 0;
    assert_true(is_client_read(old, got, sizeof got, &len, "tick")); /* the old one is not disturbed */
    close(old);
    skf_sleep_ms(50);
    route_to(&b);
    assert_true(is_client_read(fd, more, sizeof more, &len2, "x-skiff-version: v2"));
    close(fd);
    assert_true(metric("skiff_swap_pause_seconds") >= 0.05);
}

static void test_aliases(void **state)
{
    (void)state;
    struct skf_why why = {{0}};
    static const struct skf_gw_alias names[] = {{"default", "m"}, {"gone", "other"}}, bad = {"", "m"};
    route_to(&a);
    assert_int_equal(skf_gw_set_names(gw, names, 2, 0, &why), SKF_OK);
    assert_int_equal(skf_gw_set_names(gw, &bad, 1, 0, &why), SKF_ERR_ARG);
    assert_int_equal(post("/v1/completions", "{\"model\":\"default\",\"prompt\":\"say 1\"}"), 200);
    expect("\"model\":\"m\"");
    assert_int_equal(post("/v1/completions", "{\"model\":\"gone\",\"prompt\":\"say 1\"}"), 404);
    expect("'gone'");
    assert_int_equal(post("/v1/completions", "{\"prompt\":\"say 1\"}"), 200);
}

/* The first worker dies with requests: what had no byte answered is done by the other, what had begun ends with an error. */
static void test_worker_dies(void **state)
{
    (void)state;
    struct fake *both[] = {&a, &b};
    size_t len = 0;
    set_routes(2, both);
    int whole = start_chat("hang", ""), stream = start_chat("long", ",\"stream\":true");
    got[0] = 0;
    assert_true(is_client_read(stream, got, sizeof got, &len, "tick"));
    assert_true(is_soon(&a.generates, 2));
    fake_stop(&a); /* "hang" goes to the other worker and hangs there too */
    assert_true(is_soon(&b.generates, 1));
    assert_true(is_client_read(stream, got, sizeof got, &len, "\r\n0\r\n\r\n"));
    expect("data: {\"error\":{\"message\":\"the model's worker ended before its answer did\"");
    assert_null(strstr(got, "[DONE]"));
    assert_int_equal(metric("skiff_requests_repeated_total"), 1);
    assert_int_equal(chat("say 1", ""), 200);
    expect("x-skiff-version: v2");
    close(whole);
    close(stream);
    fake_start(&a, dir, "m", "v1");
    assert_true(is_soon(&a.connects, 1)); /* found again by itself */
    assert_int_equal(chat("say 1", ""), 200);
    expect("x-skiff-version: v1");
}

/* Alone and dead: the request waits for the worker to come back, and is answered. */
static void test_worker_restarts(void **state)
{
    (void)state;
    size_t len = 0;
    route_to(&a);
    int fd = start_chat("long", "");
    assert_true(is_soon(&a.generates, 1));
    fake_stop(&a);
    assert_true(is_metric_soon("skiff_requests_waiting", 1));
    fake_start(&a, dir, "m", "v1");
    assert_true(is_soon(&a.generates, 1));
    close(fd);
    assert_true(is_soon(&a.cancels, 1));
    assert_true(is_metric_soon("skiff_requests_active", 0));
    /* one that kills every worker it is given to ends, and is not tried for ever */
    fd = start_chat("die", "");
    got[0] = 0;
    assert_true(is_client_read(fd, got, sizeof got, &len, "HTTP/1.1 500"));
    close(fd);
    assert_int_equal(chat("die 2", ",\"stream\":true"), 200);
    expect("the model's worker ended before");
    assert_int_equal(chat("say 1", ""), 200);
}

/* A worker that was just told to quit hands the request back; it is done elsewhere. */
static void test_worker_leaves(void **state)
{
    (void)state;
    struct fake *both[] = {&a, &b};
    set_routes(2, both);
    int fd = start_chat("state", "");
    assert_true(is_soon(&a.generates, 1));
    assert_true(is_soon(&b.generates, 1));
    close(fd);
    assert_int_equal(atomic_load(&a.generates), 1);
}

static void test_client_leaves(void **state)
{
    (void)state;
    route_to(&a);
    int waiting = start_chat("hang", ""), streaming = start_chat("long", ",\"stream\":true"), other = start_chat("long", ",\"stream\":true");
    size_t len = 0;
    got[0] = 0;
    assert_true(is_client_read(streaming, got, sizeof got, &len, "tick"));
    assert_true(is_soon(&a.generates, 3));
    close(waiting);
    assert_true(is_soon(&a.cancels, 1));
    close(streaming);
    assert_true(is_soon(&a.cancels, 2));
    len = 0;
    got[0] = 0;
    assert_true(is_client_read(other, got, sizeof got, &len, "tick")); /* nobody else is touched */
    assert_int_equal(metric("skiff_requests_gone_total"), 2);
    assert_int_equal(metric("skiff_requests_active"), 1);
    close(other);
    assert_true(is_soon(&a.cancels, 3));
}

static void test_slow_reader(void **state)
{
    (void)state;
    int small = 4096;
    route_to(&a);
    int fd = client_connect(skf_gw_port(gw));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    const char *body = "{\"prompt\":\"flood\",\"stream\":true}";
    client_request(fd, "POST", "/v1/completions", JSON, body);
    assert_true(is_soon(&a.cancels, 1)); /* cut, and its generation ended */
    assert_int_equal(metric("skiff_requests_slow_total"), 1);
    close(fd);
    assert_int_equal(post("/v1/completions", "{\"prompt\":\"flood\"}"), 500); /* the same without end into one answer */
    expect("too long");
}

static void test_limits(void **state)
{
    (void)state;
    int fds[3];
    route_to(&a);
    for (int i = 0; i < 3; i++)
        fds[i] = start_chat("hang", "");
    assert_true(is_soon(&a.generates, 3));
    assert_int_equal(chat("say 1", ""), 429);
    expect("Retry-After: 1");
    expect("\"type\":\"rate_limit_error\"");
    close(fds[0]);
    assert_true(is_soon(&a.cancels, 1));
    assert_int_equal(chat("say 1", ""), 200);
    close(fds[1]);
    close(fds[2]);
    assert_true(is_soon(&a.cancels, 3));
    fake_stop(&a);
    assert_int_equal(chat("say 1", ""), 503); /* waits 300 ms, no longer */
    expect("no worker of this model is running at present");
    assert_int_equal(client_ask(skf_gw_port(gw), "GET", "/health", NULL, NULL, got, sizeof got), 503);
    fake_start(&a, dir, "m", "v1");
}

/* ---- the control socket ---------------------------------------------------------------------------------------------------- */
static Skiff__V1__FromGateway *control(int fd, Skiff__V1__ToGateway *m)
{
    struct skf_buf answer = SKF_BUF_INIT(SKF_FRAME_MAX);
    Skiff__V1__FromGateway *out = NULL;
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_msg_pack(&m->base, &p, &n), SKF_OK);
    assert_int_equal(skf_frame_write(fd, 1000, p, n), SKF_OK);
    skf_free(p);
    assert_int_equal(skf_frame_read(fd, (unsigned)(5000 * client_slow()), &answer), SKF_OK);
    assert_int_equal(SKF_UNPACK(skiff__v1__from_gateway, Skiff__V1__FromGateway, answer.data, answer.len, SKF_FRAME_MAX, &out, NULL), SKF_OK);
    skf_buf_free(&answer);
    assert_int_equal(out->id, m->id);
    assert_non_null(out->status);
    return out;
}

static void test_control(void **state)
{
    (void)state;
    char path[120];
    int fd, junk;
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__SetRoutes set = SKIFF__V1__SET_ROUTES__INIT;
    Skiff__V1__GetStatus get = SKIFF__V1__GET_STATUS__INIT;
    Skiff__V1__Route route = SKIFF__V1__ROUTE__INIT, *list[] = {&route};
    snprintf(path, sizeof path, "%s/control.sock", dir);
    assert_int_equal(skf_unix_connect(path, &fd, NULL), SKF_OK);
    assert_int_equal(skf_unix_connect(path, &junk, NULL), SKF_OK);
    route.model = (char *)(uintptr_t)a.model;
    route.version = (char *)(uintptr_t)a.version;
    route.socket = a.path;
    set.n_routes = 1;
    set.routes = list;
    m.id = 5;
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_SET_ROUTES;
    m.set_routes = &set;
    Skiff__V1__FromGateway *r = control(fd, &m);
    assert_string_equal(r->error, "");
    assert_int_equal(r->status->n_routes, 1);
    assert_true(r->status->routes[0]->connected);
    skf_msg_free(&r->base);
    assert_int_equal(chat("say 1", ""), 200);
    int held = start_chat("hang", "");
    assert_true(is_soon(&a.generates, 2));
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS;
    m.get_status = &get;
    m.id = 6;
    r = control(fd, &m);
    assert_string_equal(r->status->routes[0]->route->version, "v1");
    assert_int_equal(r->status->routes[0]->active, 1);
    assert_int_equal(r->status->routes[0]->served, 1);
    assert_int_equal(r->status->routes[0]->failed, 0);
    assert_true(strncmp(r->status->listen, "127.0.0.1:", 10) == 0);
    skf_msg_free(&r->base);
    route.version = (char *)(uintptr_t) "v9";
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_SET_ROUTES;
    m.set_routes = &set;
    r = control(fd, &m);
    assert_non_null(strstr(r->error, "no worker answers"));
    skf_msg_free(&r->base);
    assert_int_equal(skf_frame_write(junk, 1000, "\xff\xff\xff", 3), SKF_OK); /* not a message: hung up on, alone */
    struct skf_buf none = SKF_BUF_INIT(100);
    assert_int_equal(skf_frame_read(junk, (unsigned)(5000 * client_slow()), &none), SKF_ERR_NET);
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS;
    m.get_status = &get;
    skf_msg_free(&control(fd, &m)->base);
    close(junk);
    close(fd);
    close(held);
}

int main(void)
{
#define T(fn, up) cmocka_unit_test_setup_teardown(fn, up, teardown)
    const struct CMUnitTest tests[] = {
        T(test_whole_answers, setup),   T(test_streams, setup),        T(test_errors, setup),
        T(test_lists, setup),           T(test_swap, setup),           T(test_bad_routes, setup),
        T(test_worker_dies, setup),     T(test_worker_restarts, setup), T(test_worker_leaves, setup),
        T(test_client_leaves, setup),   T(test_slow_reader, setup),    T(test_limits, setup_short),
        T(test_control, setup),         T(test_asked_early, setup),    T(test_held, setup),
        T(test_aliases, setup),
    };
    skf_log_open("gateway_api", SKF_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
