/* Readings of a gateway's metrics, and what follows from them: see top.h. */
#include "cli/top.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"

/* One line: name{label="value",...} number. */
struct line {
    char name[80], model[TOP_NAME], version[TOP_NAME], socket[TOP_NAME], le[24];
    double value;
};

/* Copies a label's value without its backslashes; NULL when it does not end. A longer one is cut. */
static const char *take_value(const char *s, char *out, size_t room)
{
    size_t n = 0;
    for (; *s && *s != '"'; s++) {
        if (*s == '\\' && s[1])
            s++;
        if (n + 1 < room && (unsigned char)*s >= ' ' && *s != 0x7f) /* what a terminal would obey is left out */
            out[n++] = *s;
    }
    out[n] = 0;
    return *s == '"' ? s + 1 : NULL;
}

static const char *take_labels(const char *s, struct line *l)
{
    char other[8];
    const struct {
        const char *name;
        char *to;
        size_t room;
    } known[] = {{"model=\"", l->model, sizeof l->model}, {"version=\"", l->version, sizeof l->version}, {"socket=\"", l->socket, sizeof l->socket}, {"le=\"", l->le, sizeof l->le}};
    while (s && *s && *s != '}') {
        size_t i = 0;
        while (i < SKF_COUNT(known) && strncmp(s, known[i].name, strlen(known[i].name)) != 0)
            i++;
        const char *value = i < SKF_COUNT(known) ? s + strlen(known[i].name) : strstr(s, "=\"");
        if (!value)
            return NULL;
        s = i < SKF_COUNT(known) ? take_value(value, known[i].to, known[i].room) : take_value(value + 2, other, sizeof other);
        if (s && *s == ',')
            s++;
    }
    return s && *s == '}' ? s + 1 : NULL;
}

static bool is_line(const char *s, struct line *l)
{
    size_t n = strcspn(s, "{ ");
    char *end;
    memset(l, 0, sizeof *l);
    if (n == 0 || n >= sizeof l->name)
        return false;
    memcpy(l->name, s, n);
    s += n;
    if (*s == '{')
        s = take_labels(s + 1, l);
    if (!s || *s != ' ')
        return false;
    l->value = strtod(s + 1, &end);
    return end != s + 1 && (!*end || *end == ' ');
}

static void add_bucket(struct top_hist *h, const struct line *l)
{
    if (h->n == TOP_BUCKETS)
        return;
    h->le[h->n] = strcmp(l->le, "+Inf") == 0 ? INFINITY : strtod(l->le, NULL);
    h->count[h->n++] = l->value;
}

static struct top_worker *worker_of(struct top_reading *r, const struct line *l)
{
    for (size_t i = 0; i < r->n_workers; i++)
        if (strcmp(r->workers[i].socket, l->socket) == 0 && strcmp(r->workers[i].model, l->model) == 0 && strcmp(r->workers[i].version, l->version) == 0)
            return &r->workers[i];
    if (r->n_workers == TOP_WORKERS)
        return NULL;
    struct top_worker *w = &r->workers[r->n_workers++];
    snprintf(w->model, sizeof w->model, "%s", l->model);
    snprintf(w->version, sizeof w->version, "%s", l->version);
    snprintf(w->socket, sizeof w->socket, "%s", l->socket);
    return w;
}

struct field {
    const char *name;
    size_t at;
};

static bool is_set(void *to, const struct field *f, size_t n, const struct line *l)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(f[i].name, l->name) == 0) {
            *(double *)(void *)((char *)to + f[i].at) = l->value;
            return true;
        }
    return false;
}

static bool take(struct top_reading *r, const struct line *l)
{
    static const struct field whole[] = {{"skiff_requests_total", offsetof(struct top_reading, requests)},
                                         {"skiff_requests_ok_total", offsetof(struct top_reading, ok)},
                                         {"skiff_requests_refused_total", offsetof(struct top_reading, refused)},
                                         {"skiff_requests_failed_total", offsetof(struct top_reading, server_errors)},
                                         {"skiff_requests_active", offsetof(struct top_reading, active)},
                                         {"skiff_requests_waiting", offsetof(struct top_reading, waiting)},
                                         {"skiff_prompt_tokens_total", offsetof(struct top_reading, prompt_tokens)},
                                         {"skiff_prompt_tokens_cached_total", offsetof(struct top_reading, cached_tokens)},
                                         {"skiff_tokens_total", offsetof(struct top_reading, tokens)},
                                         {"skiff_swap_pause_seconds", offsetof(struct top_reading, swap_pause)},
                                         {"skiff_connections", offsetof(struct top_reading, connections)}},
                              worker[] = {{"skiff_worker_up", offsetof(struct top_worker, up)},
                                          {"skiff_worker_active", offsetof(struct top_worker, active)},
                                          {"skiff_worker_served_total", offsetof(struct top_worker, served)},
                                          {"skiff_worker_failed_total", offsetof(struct top_worker, failed)},
                                          {"skiff_worker_slots", offsetof(struct top_worker, slots)},
                                          {"skiff_worker_waiting", offsetof(struct top_worker, waiting)},
                                          {"skiff_worker_busy_ratio", offsetof(struct top_worker, busy)},
                                          {"skiff_worker_resident_bytes", offsetof(struct top_worker, rss)},
                                          {"skiff_worker_kv_bytes", offsetof(struct top_worker, kv)},
                                          {"skiff_worker_kv_kept_bytes", offsetof(struct top_worker, kv_kept)}};
    if (strcmp(l->name, "skiff_time_to_first_token_seconds_bucket") == 0)
        add_bucket(&r->first, l);
    else if (strcmp(l->name, "skiff_time_between_tokens_seconds_bucket") == 0)
        add_bucket(&r->between, l);
    else if (strncmp(l->name, "skiff_worker_", 13) != 0)
        return is_set(r, whole, SKF_COUNT(whole), l);
    struct top_worker *w = strncmp(l->name, "skiff_worker_", 13) == 0 ? worker_of(r, l) : NULL;
    return w ? is_set(w, worker, SKF_COUNT(worker), l) : true;
}

enum skf_err skf_top_read(const char *text, size_t n, struct top_reading *r, struct skf_why *why)
{
    char buf[1024];
    struct line l;
    unsigned known = 0, number = 0;
    memset(r, 0, sizeof *r);
    r->at_ns = skf_now_ns();
    for (const char *s = text, *end = text + n; s < end;) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t len = (size_t)((nl ? nl : end) - s);
        number++;
        if (len >= sizeof buf || memchr(s, 0, len))
            return skf_fail(why, SKF_ERR_FORMAT, "line %u is none of metrics", number);
        memcpy(buf, s, len);
        buf[len] = 0;
        s += len + 1;
        if (len == 0 || buf[0] == '#')
            continue;
        if (!is_line(buf, &l))
            return skf_fail(why, SKF_ERR_FORMAT, "line %u is none of metrics", number);
        known += take(r, &l);
    }
    return known ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "these are no metrics of a skiff-gateway");
}

static double since(double before, double now) { return now >= before ? now - before : now; }

double skf_top_quantile(const struct top_hist *before, const struct top_hist *now, double q)
{
    bool is_same = before && before->n == now->n && now->n && before->count[now->n - 1] <= now->count[now->n - 1];
    double count[TOP_BUCKETS], from = 0, low = 0;
    for (size_t i = 0; i < now->n; i++)
        count[i] = now->count[i] - (is_same ? before->count[i] : 0);
    if (!now->n || !(count[now->n - 1] > 0))
        return NAN;
    double want = q * count[now->n - 1];
    for (size_t i = 0; i < now->n; i++) {
        if (count[i] >= want)
            return isinf(now->le[i]) ? low : count[i] > from ? low + (now->le[i] - low) * (want - from) / (count[i] - from) : now->le[i];
        from = count[i];
        low = now->le[i];
    }
    return low;
}

void skf_top_view(const struct top_reading *before, const struct top_reading *now, struct top_view *v)
{
    static const struct top_reading none;
    const struct top_reading *b = before ? before : &none;
    double seconds = before ? (double)(now->at_ns - before->at_ns) / 1e9 : 0;
    *v = (struct top_view){.cache_share = NAN};
    if (seconds > 0) {
        v->tokens_per_s = since(b->tokens, now->tokens) / seconds;
        v->requests_per_s = since(b->requests, now->requests) / seconds;
        v->prompt_per_s = since(b->prompt_tokens, now->prompt_tokens) / seconds;
    }
    double prompt = since(b->prompt_tokens, now->prompt_tokens);
    if (prompt > 0)
        v->cache_share = since(b->cached_tokens, now->cached_tokens) / prompt;
    v->first_p50 = skf_top_quantile(before ? &b->first : NULL, &now->first, 0.5);
    v->first_p99 = skf_top_quantile(before ? &b->first : NULL, &now->first, 0.99);
    v->between_p50 = skf_top_quantile(before ? &b->between : NULL, &now->between, 0.5);
    v->between_p99 = skf_top_quantile(before ? &b->between : NULL, &now->between, 0.99);
}
