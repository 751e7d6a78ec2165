/*
 * skiff top: what a box's gateway does, live.  Reads /metrics and /health of its HTTP port; on a terminal it draws anew every interval, by
 * plain ANSI sequences on the alternate screen, until q or Ctrl-C; otherwise it prints one snapshot.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/top.h"
#include "fetch/fetch.h"

struct top {
    const char *url, *unix_path, *ca;
    double interval;
    bool is_once, is_json;
    struct skf_fetch *fetch;
    struct skf_buf body, screen;
    struct top_reading now, before;
    bool has_before;
    char health[160];
    struct termios was; /* of the terminal */
    bool is_raw;
};

/* ---- asking ----------------------------------------------------------------------------------------------------------------------------- */
static enum skf_err get(struct top *t, const char *path, unsigned *status, struct skf_why *why)
{
    char url[600];
    size_t n = strlen(t->url);
    while (n && t->url[n - 1] == '/')
        n--;
    if (n > 500)
        return skf_fail(why, SKF_ERR_ARG, "the URL is longer than 500 bytes");
    snprintf(url, sizeof url, "%.*s%s", (int)n, t->url, path);
    const struct skf_fetch_opts o = {.timeout_ms = 5000, .unix_path = t->unix_path, .ca = t->ca};
    return skf_fetch_get(t->fetch, url, &o, &t->body, status, why);
}

static enum skf_err read_health(struct top *t, struct skf_why *why)
{
    skf_json *j = NULL;
    unsigned status;
    SKF_TRY(get(t, "/health", &status, why));
    enum skf_err e = skf_json_parse(t->body.data, t->body.len, 16, &j, why);
    const char *said = e == SKF_OK ? skf_json_cstr(skf_json_get(j, "status")) : NULL;
    if (e == SKF_OK && !said)
        e = SKF_ERR_FORMAT;
    size_t n = 0;
    for (; said && *said && n + 1 < sizeof t->health; said++)
        if ((unsigned char)*said >= ' ' && *said != 0x7f)
            t->health[n++] = *said;
    t->health[n] = 0;
    skf_json_free(j);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "%.200s/health is not a skiff-gateway's", t->url);
}

static enum skf_err read_all(struct top *t, struct skf_why *why)
{
    unsigned status;
    SKF_TRY(read_health(t, why));
    SKF_TRY(get(t, "/metrics", &status, why));
    if (status != 200)
        return skf_fail(why, SKF_ERR_REFUSED, "%.200s/metrics answers with status %u", t->url, status);
    t->has_before = t->now.at_ns != 0;
    t->before = t->now;
    enum skf_err e = skf_top_read((const char *)t->body.data, t->body.len, &t->now, why);
    return e == SKF_OK ? SKF_OK : skf_fail_prefix(why, e, "%.200s/metrics", t->url);
}

/* ---- showing ---------------------------------------------------------------------------------------------------------------------------- */
static const char *ms_text(double seconds, char buf[16])
{
    if (isnan(seconds))
        snprintf(buf, 16, "-");
    else if (seconds < 1)
        snprintf(buf, 16, "%.1f ms", seconds * 1e3);
    else
        snprintf(buf, 16, "%.2f s", seconds);
    return buf;
}

static enum skf_err put_workers(struct top *t, unsigned rows)
{
    char size[2][16], name[64];
    SKF_TRY(skf_buf_printf(&t->screen, "%-40s %-8s %9s %6s %8s %6s %9s %9s\n", "MODEL VERSION", "STATE", "STREAMS", "QUEUE", "SERVED", "BUSY", "MEMORY", "KV"));
    for (size_t i = 0; i < t->now.n_workers && i < rows; i++) {
        const struct top_worker *w = &t->now.workers[i];
        char streams[40], busy[16];
        snprintf(name, sizeof name, "%.24s %.14s", w->model, w->version);
        snprintf(streams, sizeof streams, w->slots > 0 ? "%.0f/%.0f" : "%.0f", w->active, w->slots);
        snprintf(busy, sizeof busy, "%.0f %%", w->busy * 100);
        SKF_TRY(skf_buf_printf(&t->screen, "%-40s %-8s %9s %6.0f %8.0f %6s %9s %9s\n", name, w->up > 0 ? "up" : "down", streams, w->waiting, w->served, busy,
                               skf_human_bytes((uint64_t)w->rss, size[0]), skf_human_bytes((uint64_t)w->kv, size[1])));
    }
    return SKF_OK;
}

static enum skf_err put_screen(struct top *t, unsigned rows)
{
    struct top_view v;
    char text[4][16], cache[16] = "-";
    const struct top_reading *r = &t->now;
    skf_top_view(t->has_before ? &t->before : NULL, r, &v);
    if (!isnan(v.cache_share))
        snprintf(cache, sizeof cache, "%.0f %%", v.cache_share * 100);
    skf_buf_clear(&t->screen);
    SKF_TRY(skf_buf_printf(&t->screen, "%.120s: %s\n", t->url, t->health));
    SKF_TRY(skf_buf_printf(&t->screen, "requests %.0f under way, %.0f without a worker; %.0f answered, %.0f refused, %.0f failed; %.0f connections\n", r->active, r->waiting, r->ok, r->refused,
                           r->server_errors, r->connections));
    if (t->has_before)
        SKF_TRY(skf_buf_printf(&t->screen, "tokens/s %.1f made, %.1f of prompts; %.2f requests/s\n", v.tokens_per_s, v.prompt_per_s, v.requests_per_s));
    else
        SKF_TRY(skf_buf_printf(&t->screen, "tokens   %.0f made, %.0f of prompts\n", r->tokens, r->prompt_tokens));
    SKF_TRY(skf_buf_printf(&t->screen, "first token p50 %s, p99 %s; between tokens p50 %s, p99 %s\n", ms_text(v.first_p50, text[0]), ms_text(v.first_p99, text[1]),
                           ms_text(v.between_p50, text[2]), ms_text(v.between_p99, text[3])));
    SKF_TRY(skf_buf_printf(&t->screen, "prompts from the cache %s; last swap's pause %s\n\n", cache, ms_text(r->swap_pause, text[0])));
    return put_workers(t, rows);
}

static enum skf_err set_real(skf_json *o, const char *key, double v)
{
    return skf_json_set(o, key, isfinite(v) ? skf_json_real(v) : skf_json_null());
}

static enum skf_err worker_json(const struct top_worker *w, skf_json *list)
{
    skf_json *o = skf_json_obj();
    const struct {
        const char *key;
        double v;
    } all[] = {{"streams", w->active}, {"slots", w->slots}, {"queue", w->waiting}, {"served", w->served}, {"failed", w->failed},
               {"busy", w->busy}, {"resident_bytes", w->rss}, {"kv_bytes", w->kv}, {"kv_kept_bytes", w->kv_kept}};
    enum skf_err e = skf_json_set(o, "model", skf_json_str(w->model));
    if (e == SKF_OK)
        e = skf_json_set(o, "version", skf_json_str(w->version));
    if (e == SKF_OK)
        e = skf_json_set(o, "up", skf_json_bool(w->up > 0));
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(all); i++)
        e = set_real(o, all[i].key, all[i].v);
    enum skf_err pushed = skf_json_push(list, o);
    return e == SKF_OK ? pushed : e;
}

static int print_json(const struct top *t)
{
    struct top_view v;
    const struct top_reading *r = &t->now;
    skf_json *o = skf_json_obj(), *list = skf_json_arr();
    skf_top_view(t->has_before ? &t->before : NULL, r, &v);
    const struct {
        const char *key;
        double v;
    } all[] = {{"requests_active", r->active}, {"requests_waiting", r->waiting}, {"requests_ok", r->ok}, {"requests_refused", r->refused},
               {"requests_failed", r->server_errors}, {"connections", r->connections}, {"tokens", r->tokens}, {"prompt_tokens", r->prompt_tokens},
               {"tokens_per_s", t->has_before ? v.tokens_per_s : NAN}, {"prompt_tokens_per_s", t->has_before ? v.prompt_per_s : NAN},
               {"first_token_p50_s", v.first_p50}, {"first_token_p99_s", v.first_p99}, {"between_tokens_p50_s", v.between_p50},
               {"between_tokens_p99_s", v.between_p99}, {"cached_share", v.cache_share}, {"swap_pause_s", r->swap_pause}};
    enum skf_err e = skf_json_set(o, "url", skf_json_str(t->url));
    if (e == SKF_OK)
        e = skf_json_set(o, "status", skf_json_str(t->health));
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(all); i++)
        e = set_real(o, all[i].key, all[i].v);
    for (size_t i = 0; e == SKF_OK && i < r->n_workers; i++)
        e = worker_json(&r->workers[i], list);
    enum skf_err set = skf_json_set(o, "workers", list);
    if (e == SKF_OK && set == SKF_OK)
        return skf_cli_print_json(o);
    skf_json_free(o);
    return skf_cli_fail(e == SKF_OK ? set : e, NULL);
}

/* ---- the terminal ------------------------------------------------------------------------------------------------------------------------ */
static void put_out(const char *s, size_t n)
{
    while (n) {
        ssize_t k = write(STDOUT_FILENO, s, n);
        if (k < 0 && errno != EINTR)
            return;
        s += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
}

static void enter(struct top *t)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &t->was) == 0) {
        raw = t->was;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        t->is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    put_out("\033[?1049h\033[?25l", 14);
}

static void leave(struct top *t)
{
    put_out("\033[?25h\033[?1049l", 14);
    if (t->is_raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &t->was);
}

/* The lines that fit, each cut to the width and cleared to its end. */
static void draw(struct top *t, const char *error)
{
    struct winsize w = {.ws_row = 0};
    struct skf_buf out = SKF_BUF_INIT(1 << 20);
    const char *s = "";
    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
    unsigned rows = w.ws_row ? w.ws_row : 24, columns = w.ws_col ? SKF_MAX(w.ws_col, 10u) : 80; /* a terminal that does not know has none */
    enum skf_err e = error ? SKF_OK : put_screen(t, TOP_WORKERS);
    if (error) {
        skf_buf_clear(&t->screen);
        e = skf_buf_printf(&t->screen, "skiff top: %s\ntrying again; q ends\n", error);
    }
    if (e == SKF_OK)
        e = skf_buf_cstr(&t->screen, &s);
    if (e == SKF_OK)
        e = skf_buf_str(&out, "\033[H");
    for (unsigned i = 0; e == SKF_OK && *s && i + 1 < rows; i++) {
        size_t n = strcspn(s, "\n"), shown = SKF_MIN(n, columns - 1);
        while (shown < n && shown && ((unsigned char)s[shown] & 0xC0) == 0x80) /* no character is cut */
            shown--;
        e = skf_buf_printf(&out, "%.*s\033[K\r\n", (int)shown, s);
        s += n + (s[n] == '\n');
    }
    if (e == SKF_OK && skf_buf_str(&out, "\033[J") == SKF_OK)
        put_out((const char *)out.data, out.len);
    skf_buf_free(&out);
}

/* Until q, the end of input or a signal to end (false), or the time is over or the window has another size (true). */
static bool is_to_go_on(int signal_fd, double seconds, bool *is_resized)
{
    struct pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {signal_fd, POLLIN, 0}};
    struct signalfd_siginfo si;
    char c;
    *is_resized = false;
    int n = poll(fds, 2, (int)(seconds * 1000));
    if (n > 0 && fds[1].revents) {
        *is_resized = read(signal_fd, &si, sizeof si) == (ssize_t)sizeof si && si.ssi_signo == SIGWINCH;
        return *is_resized;
    }
    if (n > 0 && fds[0].revents)
        return read(STDIN_FILENO, &c, 1) == 1 && c != 'q' && c != 'Q';
    return true;
}

static int live(struct top *t)
{
    sigset_t set;
    bool is_resized = false;
    struct skf_why why = {{0}};
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (signal_fd < 0)
        return skf_cli_fail(skf_fail_errno(&why, errno, "cannot watch for signals"), &why);
    enter(t);
    do {
        enum skf_err e = is_resized ? SKF_OK : read_all(t, &why);
        draw(t, e == SKF_OK ? NULL : why.text);
    } while (is_to_go_on(signal_fd, t->interval, &is_resized));
    leave(t);
    (void)close(signal_fd);
    return SKF_EXIT_OK;
}

static int snapshot(struct top *t, bool is_twice)
{
    struct skf_why why = {{0}};
    const char *s = "";
    enum skf_err e = read_all(t, &why);
    if (e == SKF_OK && is_twice) {
        skf_sleep_ms((unsigned)(t->interval * 1000));
        e = read_all(t, &why);
    }
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (t->is_json)
        return print_json(t);
    e = put_screen(t, TOP_WORKERS);
    if (e == SKF_OK)
        e = skf_buf_cstr(&t->screen, &s);
    if (e != SKF_OK)
        return skf_cli_fail(e, NULL);
    (void)fputs(s, stdout);
    return skf_cli_flush(SKF_EXIT_OK);
}

int skf_verb_top(int argc, char **argv)
{
    struct top t = {.url = "http://127.0.0.1:8080", .interval = 1, .body = SKF_BUF_INIT(TOP_BYTES), .screen = SKF_BUF_INIT(1 << 20)};
    struct skf_why why = {{0}};
    int status = SKF_EXIT_OK;
    double interval = 0;
    const struct skf_opt opts[] = {
        {.name = "--url", .value = "URL", .help = "the gateway (http://127.0.0.1:8080)", .text = &t.url},
        {.name = "--unix", .value = "PATH", .help = "by its Unix socket", .text = &t.unix_path},
        {.name = "--ca", .value = "FILE", .help = "what an https gateway's certificate must lead to (PEM)", .text = &t.ca},
        {.name = "--interval", .value = "S", .help = "seconds between two readings, 0.1 to 3600 (1); with --once, reads twice", .real = &interval},
        {.name = "--once", .help = "one snapshot, as when the output is no terminal", .flag = &t.is_once},
        {.name = "--json", .help = "the snapshot as one JSON object", .flag = &t.is_json},
    };
    const struct skf_usage u = {.verb = "top", .args = "", .about = "Shows what a box's gateway does: models, streams, tokens, times, queue, cache, memory.", .opts = opts,
                                .n_opts = SKF_COUNT(opts)};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (interval != 0)
        t.interval = interval;
    if (!(t.interval >= 0.1 && t.interval <= 3600))
        return skf_cli_usage("top", "--interval is from 0.1 to 3600 seconds");
    enum skf_err e = skf_fetch_open(&t.fetch, &why);
    bool is_live = !t.is_once && !t.is_json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
    status = e != SKF_OK ? skf_cli_fail(e, &why) : is_live ? live(&t) : snapshot(&t, interval != 0);
    skf_fetch_close(t.fetch);
    skf_buf_free(&t.body);
    skf_buf_free(&t.screen);
    return status;
}
