/*
 * skiff serve: the box's local API without a fleet.  Starts a gateway and a worker a model as the agent would, sets the routes, starts again
 * what dies, and on Ctrl-C or SIGTERM stops both.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "proto/frame.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

enum { MODELS_MAX = 8, ALIASES_MAX = 16, CONTROL_MS = 5000, STOP_MS = 5000, RETRY_MAX_MS = 10000 };
static const char version[] = "local"; /* a file has no version */

struct served { /* one model and its worker */
    const char *path;
    char name[129], socket[128];
    struct skf_child worker;
    unsigned bad;         /* deaths in a row */
    uint64_t begun, next; /* ns: when it was started; when it may be again */
};
struct serve {
    struct served of[MODELS_MAX];
    size_t n;
    struct {
        char name[129];
        const char *model;
    } alias[ALIASES_MAX];
    size_t n_alias;
    const char *listen, *unix_path, *cert, *key, *draft, *adapters[16]; /* adapters: NAME=FILE */
    size_t n_adapters;
    const char *cache_type, *warm, *cache_file, *keys;
    char dir[96], control[128], listening[128];
    struct {
        const char *name;
        char value[24]; /* "": not given */
    } passed[6];        /* options of the worker's */
    struct skf_child gateway;
    int signal_fd, control_fd;
    bool is_routed, is_ready;
};

/* ---- the control socket ------------------------------------------------------------------------------------------------ */
static enum skf_err ask(struct serve *s, Skiff__V1__ToGateway *m, Skiff__V1__FromGateway **answer, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    uint8_t *p = NULL;
    size_t n = 0;
    enum skf_err e = SKF_OK;
    *answer = NULL;
    if (s->control_fd < 0)
        SKF_GO(e, skf_unix_connect(s->control, &s->control_fd, why));
    SKF_GO(e, skf_msg_pack(&m->base, &p, &n));
    SKF_GO(e, skf_frame_write(s->control_fd, CONTROL_MS, p, n));
    SKF_GO(e, skf_frame_read(s->control_fd, CONTROL_MS, &b));
    SKF_GO(e, SKF_UNPACK(skiff__v1__from_gateway, Skiff__V1__FromGateway, b.data, b.len, SKF_FRAME_MAX, answer, why));
    if ((*answer)->error[0]) {
        e = skf_fail(why, SKF_ERR_REFUSED, "the gateway: %.300s", (*answer)->error);
        skf_msg_free(&(*answer)->base);
        *answer = NULL;
    }
out:
    if (e != SKF_OK && e != SKF_ERR_REFUSED && s->control_fd >= 0) {
        (void)close(s->control_fd);
        s->control_fd = -1;
    }
    skf_free(p);
    skf_buf_free(&b);
    return e;
}

/* Sets the routes; the gateway connects to the workers as soon as they are there. */
static enum skf_err set_route(struct serve *s, struct skf_why *why)
{
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__SetRoutes set = SKIFF__V1__SET_ROUTES__INIT;
    Skiff__V1__Route route[MODELS_MAX], *list[MODELS_MAX];
    Skiff__V1__Alias alias[ALIASES_MAX], *names[ALIASES_MAX];
    Skiff__V1__FromGateway *answer;
    for (size_t i = 0; i < s->n; i++) {
        skiff__v1__route__init(&route[i]);
        route[i].model = s->of[i].name;
        route[i].version = (char *)(uintptr_t)version;
        route[i].socket = s->of[i].socket;
        list[i] = &route[i];
    }
    for (size_t i = 0; i < s->n_alias; i++) {
        skiff__v1__alias__init(&alias[i]);
        alias[i].name = s->alias[i].name;
        alias[i].model = (char *)(uintptr_t)s->alias[i].model;
        names[i] = &alias[i];
    }
    set.n_routes = s->n;
    set.routes = list;
    set.n_aliases = s->n_alias;
    set.aliases = names;
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_SET_ROUTES;
    m.set_routes = &set;
    SKF_TRY(ask(s, &m, &answer, why));
    skf_msg_free(&answer->base);
    s->is_routed = true;
    return SKF_OK;
}

static bool is_connected(struct serve *s)
{
    Skiff__V1__ToGateway m = SKIFF__V1__TO_GATEWAY__INIT;
    Skiff__V1__GetStatus get = SKIFF__V1__GET_STATUS__INIT;
    Skiff__V1__FromGateway *answer;
    size_t up = 0;
    m.kind_case = SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS;
    m.get_status = &get;
    if (ask(s, &m, &answer, NULL) != SKF_OK)
        return false;
    for (size_t i = 0; answer->status && i < answer->status->n_routes; i++)
        up += answer->status->routes[i]->connected;
    skf_msg_free(&answer->base);
    return up == s->n;
}

/* ---- the two programs -------------------------------------------------------------------------------------------------- */
static enum skf_err start_gateway(struct serve *s, struct skf_why *why)
{
    const char *const more[4][2] = {{"--unix", s->unix_path}, {"--tls-cert", s->cert}, {"--tls-key", s->key}, {"--keys", s->keys}};
    const char *args[14] = {"--listen", s->listening, "--control", s->control, "--parent-death"};
    for (size_t i = 0, n = 5; i < SKF_COUNT(more); i++)
        if (more[i][1]) {
            args[n++] = more[i][0];
            args[n++] = more[i][1];
        }
    s->is_routed = false;
    if (s->control_fd >= 0)
        (void)close(s->control_fd);
    s->control_fd = -1;
    return skf_child_start(&s->gateway, args, why);
}

static enum skf_err start_worker(const struct serve *s, struct served *of, struct skf_why *why)
{
    const char *args[18 + 2 * (SKF_COUNT(s->passed) + SKF_COUNT(s->adapters))] = {
        "--socket", of->socket, "--file", of->path, "--name", of->name, "--version", version, "--parent-death"};
    size_t n = 9;
    for (size_t i = 0; i < SKF_COUNT(s->passed); i++)
        if (s->passed[i].value[0]) {
            args[n++] = s->passed[i].name;
            args[n++] = s->passed[i].value;
        }
    const char *const texts[][2] = {{"--cache-type", s->cache_type}, {"--warm", s->warm}, {"--cache-file", s->cache_file}, {"--draft", s->draft}};
    for (size_t i = 0; i < SKF_COUNT(texts); i++)
        if (texts[i][1]) {
            args[n++] = texts[i][0];
            args[n++] = texts[i][1];
        }
    for (size_t i = 0; i < s->n_adapters; i++) {
        args[n++] = "--adapter";
        args[n++] = s->adapters[i];
    }
    of->begun = skf_now_ns();
    return skf_child_start(&of->worker, args, why);
}

/* Why a child ended, in its own words when it said any: "skiff-worker: m.gguf: truncated" gives "m.gguf: truncated". */
static enum skf_err ended(const struct skf_child *c, int status, struct skf_why *why)
{
    size_t n = strlen(c->program);
    if (WIFSIGNALED(status))
        return skf_fail(why, SKF_ERR_STATE, "%s: ended by signal %d", c->program, WTERMSIG(status));
    if (strncmp(c->last, c->program, n) == 0 && strncmp(c->last + n, ": ", 2) == 0)
        return skf_fail(why, SKF_ERR_STATE, "%.480s", c->last + n + 2);
    return skf_fail(why, SKF_ERR_STATE, "%s: ended with status %d", c->program, WEXITSTATUS(status));
}

static enum skf_err on_gateway_end(struct serve *s, struct skf_why *why)
{
    bool was_up = s->is_routed;
    enum skf_err e = ended(&s->gateway, skf_child_reap(&s->gateway), why);
    if (!was_up)
        return e;
    (void)fprintf(stderr, "skiff: %s; starting another gateway\n", why->text);
    return start_gateway(s, why);
}

/* The first worker's failure is ours; a later one is started again, ever later when it does not last. */
static enum skf_err on_worker_end(struct serve *s, struct served *of, struct skf_why *why)
{
    uint64_t now = skf_now_ns();
    enum skf_err e = ended(&of->worker, skf_child_reap(&of->worker), why);
    if (!s->is_ready)
        return e;
    of->bad = now - of->begun > 30000000000u ? 0 : of->bad + 1;
    uint64_t wait_ms = of->bad <= 1 ? 0 : SKF_MIN(100ull << SKF_MIN(of->bad, 10u), (uint64_t)RETRY_MAX_MS);
    of->next = now + wait_ms * 1000000;
    (void)fprintf(stderr, "skiff: %s; starting another worker\n", why->text);
    return SKF_OK;
}

static enum skf_err say_ready(struct serve *s, struct skf_why *why)
{
    s->is_ready = s->gateway.passes_on = true;
    bool ok = true;
    for (size_t i = 0; i < s->n; i++) {
        s->of[i].worker.passes_on = true;
        ok = ok && printf("%s%s", i ? ", " : "", s->of[i].name) >= 0;
    }
    if (!ok || printf(" on http%s://%s/v1 (Ctrl-C stops)\n", s->cert ? "s" : "", s->listening) < 0 || fflush(stdout))
        return skf_fail(why, SKF_ERR_IO, "standard output: cannot be written");
    return SKF_OK;
}

/* What can be done now, whoever woke us. */
static enum skf_err step(struct serve *s, struct skf_why *why)
{
    static const char word[] = "listening ";
    for (size_t i = 0; i < s->n; i++)
        if (!s->of[i].worker.pid && skf_now_ns() >= s->of[i].next)
            SKF_TRY(start_worker(s, &s->of[i], why));
    if (!s->is_routed && strncmp(s->gateway.said, word, sizeof word - 1) == 0) {
        (void)snprintf(s->listening, sizeof s->listening, "%.120s", s->gateway.said + sizeof word - 1);
        SKF_TRY(set_route(s, why));
    }
    return s->is_routed && !s->is_ready && is_connected(s) ? say_ready(s, why) : SKF_OK;
}

static enum skf_err serve_until_told(struct serve *s, struct skf_why *why)
{
    SKF_TRY(start_gateway(s, why));
    for (;;) {
        SKF_TRY(step(s, why));
        struct pollfd fds[4 + 3 * MODELS_MAX] = {
            {s->signal_fd, POLLIN, 0}, {s->gateway.pid_fd, POLLIN, 0}, {s->gateway.out.fd, POLLIN, 0}, {s->gateway.err.fd, POLLIN, 0}};
        nfds_t n = 4;
        bool all = true;
        for (size_t i = 0; i < s->n; i++) {
            const struct skf_child *w = &s->of[i].worker;
            fds[n++] = (struct pollfd){w->pid_fd, POLLIN, 0};
            fds[n++] = (struct pollfd){w->out.fd, POLLIN, 0};
            fds[n++] = (struct pollfd){w->err.fd, POLLIN, 0};
            all = all && w->pid;
        }
        if (poll(fds, n, s->is_ready && s->is_routed && all ? -1 : 50) < 0 && errno != EINTR)
            return skf_fail_errno(why, errno, "poll");
        if (fds[0].revents)
            return SKF_OK;
        skf_child_read(&s->gateway);
        if (fds[1].revents)
            SKF_TRY(on_gateway_end(s, why));
        for (size_t i = 0; i < s->n; i++) {
            skf_child_read(&s->of[i].worker);
            if (fds[4 + 3 * i].revents)
                SKF_TRY(on_worker_end(s, &s->of[i], why));
        }
    }
}

static void clean_up(struct serve *s)
{
    if (s->gateway.pid)
        (void)kill(s->gateway.pid, SIGTERM);
    for (size_t i = 0; i < s->n; i++)
        if (s->of[i].worker.pid)
            (void)kill(s->of[i].worker.pid, SIGTERM);
    for (size_t i = 0; i < s->n; i++)
        skf_child_stop(&s->of[i].worker, STOP_MS);
    skf_child_stop(&s->gateway, STOP_MS);
    if (s->control_fd >= 0)
        (void)close(s->control_fd);
    if (s->signal_fd >= 0)
        (void)close(s->signal_fd);
    if (s->dir[0]) {
        (void)unlink(s->control);
        for (size_t i = 0; i < s->n; i++)
            (void)unlink(s->of[i].socket);
        (void)rmdir(s->dir);
    }
}

/* What the model is called: its file's name without .gguf. */
static enum skf_err name_it(struct serve *s, struct served *of, struct skf_why *why)
{
    const char *slash = strrchr(of->path, '/'), *name = slash ? slash + 1 : of->path;
    size_t n = strlen(name);
    struct stat st;
    if (stat(of->path, &st) != 0)
        return skf_fail_errno(why, errno, "%s", of->path);
    SKF_TRY(skf_cli_whole(of->path, why));
    if (n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        n -= 5;
    for (size_t i = 0; i < SKF_MIN(n, sizeof of->name - 1); i++)
        of->name[i] = name[i] > ' ' && name[i] != 0x7f ? name[i] : '-';
    for (const struct served *o = s->of; o < of; o++)
        if (strcmp(o->name, of->name) == 0)
            return skf_fail(why, SKF_ERR_ARG, "%s: another model is called %s already; a link of another name will do", of->path, of->name);
    return SKF_OK;
}

/* "NAME=MODEL", or "NAME" where there is one model. */
static enum skf_err take_alias(struct serve *s, const char *text, struct skf_why *why)
{
    const char *eq = strchr(text, '='), *model = eq ? eq + 1 : s->n == 1 ? s->of[0].name : "";
    size_t n = eq ? (size_t)(eq - text) : strlen(text);
    if (!n || n >= sizeof s->alias[0].name)
        return skf_fail(why, SKF_ERR_ARG, "--alias %.200s: a name has 1 to 128 bytes", text);
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->of[i].name, model) == 0) {
            (void)snprintf(s->alias[s->n_alias].name, sizeof s->alias[0].name, "%.*s", (int)n, text);
            s->alias[s->n_alias++].model = s->of[i].name;
            return SKF_OK;
        }
    return skf_fail(why, SKF_ERR_ARG, "--alias %.200s: NAME=MODEL wants the name of one that is served", text);
}

/* A folder for the sockets, the owner's alone; signals as something to poll; the children's words quiet but for warnings. */
static enum skf_err prepare(struct serve *s, const char *const *alias, size_t n_alias, struct skf_why *why)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    sigset_t set;
    for (size_t i = 0; i < s->n; i++)
        SKF_TRY(name_it(s, &s->of[i], why));
    for (size_t i = 0; i < n_alias; i++)
        SKF_TRY(take_alias(s, alias[i], why));
    if (!run || strlen(run) > 60 || access(run, W_OK) != 0)
        run = "/tmp";
    (void)snprintf(s->dir, sizeof s->dir, "%s/skiff-serve-XXXXXX", run);
    if (!mkdtemp(s->dir)) {
        s->dir[0] = 0;
        return skf_fail_errno(why, errno, "%s", run);
    }
    (void)snprintf(s->control, sizeof s->control, "%s/gateway.sock", s->dir);
    for (size_t i = 0; i < s->n; i++)
        (void)snprintf(s->of[i].socket, sizeof s->of[i].socket, "%s/worker%zu.sock", s->dir, i);
    (void)snprintf(s->listening, sizeof s->listening, "%.120s", s->listen);
    (void)setenv("SKF_LOG", "warn", 0);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return s->signal_fd < 0 ? skf_fail_errno(why, errno, "signalfd") : SKF_OK;
}

/* What is wrong with the options taken together; NULL: nothing. `numbers` are those of `passed`. */
static const char *wrong_of(const struct serve *s, const uint64_t *numbers)
{
    static const struct {
        uint64_t most;
        const char *text;
    } limits[] = {{1024, "--threads: at most 1024"}, {1u << 20, "--context: at most 1,048,576"}, {64, "--slots: at most 64"},
                  {1u << 20, "--cache: at most 1,048,576"}, {1u << 20, "--cache-spill: at most 1,048,576"}};
    if (!s->n)
        return "-m MODEL is missing";
    for (size_t i = 0; i < SKF_COUNT(limits); i++)
        if (numbers[i] > limits[i].most)
            return limits[i].text;
    if (s->cache_file && !s->warm)
        return "--cache-file keeps what --warm names";
    if (s->n > 1 && (s->n_adapters || s->cache_file || s->draft))
        return "--adapter, --draft and --cache-file are for one model, and several are given";
    if (s->cache_type && strcmp(s->cache_type, "f16") != 0 && strcmp(s->cache_type, "q8_0") != 0)
        return "--cache-type takes f16 or q8_0";
    return !s->cert != !s->key ? "--tls-cert and --tls-key are given together" : NULL;
}

int skf_verb_serve(int argc, char **argv)
{
    struct serve s = {.listen = "127.0.0.1:8080", .gateway = SKF_CHILD("skiff-gateway"),
                      .signal_fd = -1, .control_fd = -1,
                      .passed = {{.name = "--threads"}, {.name = "--context"}, {.name = "--slots"}, {.name = "--cache"}, {.name = "--cache-spill"}, {.name = "--speculate"}}};
    enum { SPECULATE = 5 }; /* of the numbers, which says something when it is 0 too */
    uint64_t numbers[SKF_COUNT(s.passed)] = {[SPECULATE] = 8};
    const char *models[MODELS_MAX], *alias[ALIASES_MAX];
    size_t n_alias = 0;
    const struct skf_opt opts[] = {
        {.name = "--model", .letter = 'm', .value = "MODEL", .help = "a GGUF file; may be given again, for several models on one port", .list = models,
         .list_max = MODELS_MAX, .list_n = &s.n},
        {.name = "--alias", .value = "NAME=MODEL", .help = "another name that requests may use for it; may be given again", .list = alias,
         .list_max = ALIASES_MAX, .list_n = &n_alias},
        {.name = "--listen", .value = "HOST:PORT", .help = "where to serve (127.0.0.1:8080); port 0 for any", .text = &s.listen},
        {.name = "--keys", .value = "FILE", .help = "who may ask and how much: see skiff-gateway(1)", .text = &s.keys},
        {.name = "--unix", .value = "PATH", .help = "serve on this Unix socket too", .text = &s.unix_path},
        {.name = "--tls-cert", .value = "FILE", .help = "serve by TLS, with this certificate (PEM) and --tls-key", .text = &s.cert},
        {.name = "--tls-key", .value = "FILE", .help = "its private key (PEM)", .text = &s.key},
        {.name = "--threads", .value = "N", .help = "threads; one a processor if not given", .number = &numbers[0]},
        {.name = "--context", .value = "N", .help = "tokens a conversation may have", .number = &numbers[1]},
        {.name = "--slots", .value = "N", .help = "conversations that are computed at once (4); others wait", .number = &numbers[2]},
        {.name = "--cache", .value = "MIB", .help = "keys and values kept for prompts that begin alike (64)", .number = &numbers[3]},
        {.name = "--cache-spill", .value = "MIB", .help = "and in a file, where memory does not hold them (none)", .number = &numbers[4]},
        {.name = "--warm", .value = "TEXT", .help = "a system prompt (@FILE: of a file) that is computed before anybody asks", .text = &s.warm},
        {.name = "--cache-file", .value = "FILE", .help = "where what is warm is kept for the next start", .text = &s.cache_file},
        {.name = "--cache-type", .value = "T", .help = "keys and values as f16 (if not given) or q8_0", .text = &s.cache_type},
        {.name = "--adapter", .value = "NAME=LORA", .help = "a LoRA adapter in GGUF, for requests to MODEL:NAME; may be repeated", .list = s.adapters,
         .list_max = SKF_COUNT(s.adapters), .list_n = &s.n_adapters},
        {.name = "--draft", .value = "MODEL", .help = "a small GGUF model of the same tokens, that guesses where nothing can be looked up", .text = &s.draft},
        {.name = "--speculate", .value = "N", .help = "most tokens guessed ahead in one step, at most 16 (8; 0: none)", .number = &numbers[SPECULATE]},
    };
    const struct skf_usage u = {.verb = "serve", .args = "-m MODEL", .opts = opts, .n_opts = SKF_COUNT(opts),
                                .about = "Serves the model's OpenAI API on this machine until Ctrl-C."};
    struct skf_why why = {{0}};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = wrong_of(&s, numbers);
    if (wrong)
        return skf_cli_usage("serve", wrong);
    for (size_t i = 0; i < SKF_COUNT(s.passed); i++)
        if (numbers[i] || i == SPECULATE)
            (void)snprintf(s.passed[i].value, sizeof s.passed[i].value, "%u", (unsigned)numbers[i]);
    for (size_t i = 0; i < s.n; i++) {
        s.of[i].path = models[i];
        s.of[i].worker = SKF_CHILD("skiff-worker");
    }
    enum skf_err e = prepare(&s, alias, n_alias, &why);
    if (e == SKF_OK)
        e = serve_until_told(&s, &why);
    clean_up(&s);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}
