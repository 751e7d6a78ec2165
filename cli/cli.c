/* Options, error line, progress and JSON of every verb (cli.h). */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

/* ---- options ------------------------------------------------------------------------------------------------------------ */
static void print_help(const struct skf_usage *u)
{
    (void)printf("usage: skiff %s %s\n\n%s\n\noptions:\n", u->verb, u->args, u->about);
    for (size_t i = 0; i < u->n_opts; i++) {
        const struct skf_opt *o = &u->opts[i];
        char left[64];
        char letter[8] = "";
        if (o->letter)
            (void)snprintf(letter, sizeof letter, ", -%c", o->letter);
        (void)snprintf(left, sizeof left, "%s%s%s%s", o->name, letter, o->value ? " " : "", o->value ? o->value : "");
        (void)printf("  %-26s %s\n", left, o->help);
    }
    (void)printf("  %-26s %s\n", "--help", "this text");
}

static bool is_usage_error(const struct skf_usage *u, int *status, const char *what, const char *why)
{
    (void)fprintf(stderr, "skiff: %s: %s: %s; `skiff %s --help` tells more\n", u->verb, what, why, u->verb);
    *status = SKF_EXIT_USAGE;
    return false;
}

static const struct skf_opt *find_opt(const struct skf_usage *u, const char *arg, size_t n)
{
    for (size_t i = 0; i < u->n_opts; i++) {
        const struct skf_opt *o = &u->opts[i];
        if (strlen(o->name) == n && memcmp(o->name, arg, n) == 0)
            return o;
        if (n == 2 && arg[0] == '-' && o->letter && arg[1] == o->letter)
            return o;
    }
    return NULL;
}

static bool is_number(const char *s, uint64_t *v)
{
    char *end;
    errno = 0;
    if (*s < '0' || *s > '9')
        return false;
    unsigned long long n = strtoull(s, &end, 10);
    uint64_t unit = 1;
    if (*end == 'K' || *end == 'k')
        unit = 1000;
    else if (*end == 'M')
        unit = 1000000;
    else if (*end == 'G')
        unit = 1000000000;
    if (unit > 1)
        end++;
    return errno == 0 && *end == 0 && !__builtin_mul_overflow((uint64_t)n, unit, v);
}

static bool is_real(const char *s, double *v)
{
    char *end;
    errno = 0;
    *v = strtod(s, &end);
    return errno == 0 && end != s && *end == 0 && *v == *v && *v - *v == 0;
}

/* NULL when the value was taken, otherwise what is wrong with it. */
static const char *take_value(const struct skf_opt *o, const char *value)
{
    if (o->text) {
        *o->text = value;
    } else if (o->number) {
        if (!is_number(value, o->number))
            return "not a number";
        if (o->is_positive && *o->number == 0)
            return "at least 1";
    } else if (o->real) {
        if (!is_real(value, o->real))
            return "not a number";
    } else if (o->list) {
        if (*o->list_n == o->list_max)
            return "given too often";
        o->list[(*o->list_n)++] = value;
    }
    return NULL;
}

/* Takes the option at argv[*i], and its value; moves *i to the last argument it used. */
static bool is_option_taken(const struct skf_usage *u, int argc, char **argv, int *i, int *status)
{
    char *arg = argv[*i];
    const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    const struct skf_opt *o = find_opt(u, arg, n);
    if (!o)
        return is_usage_error(u, status, arg, "no such option");
    if (o->flag) {
        if (eq)
            return is_usage_error(u, status, arg, "takes no value");
        *o->flag = true;
        return true;
    }
    if (!eq && *i + 1 >= argc)
        return is_usage_error(u, status, arg, "wants a value");
    const char *bad = take_value(o, eq ? eq + 1 : argv[++*i]);
    return bad ? is_usage_error(u, status, o->name, bad) : true;
}

bool is_cli_parsed(const struct skf_usage *u, int argc, char **argv, int *status)
{
    size_t n = 0;
    bool is_ended = false;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (!is_ended && strcmp(arg, "--") == 0) {
            is_ended = true;
        } else if (!is_ended && (strcmp(arg, "--help") == 0 || (strcmp(arg, "-h") == 0 && !find_opt(u, "-h", 2)))) {
            print_help(u);
            *status = SKF_EXIT_OK;
            return false;
        } else if (!is_ended && arg[0] == '-' && arg[1]) {
            if (!is_option_taken(u, argc, argv, &i, status))
                return false;
        } else {
            if (n == u->max_args)
                return is_usage_error(u, status, arg, "one argument too many");
            u->positional[n++] = arg;
        }
    }
    if (n < u->min_args)
        return is_usage_error(u, status, u->args, "too few arguments");
    if (u->n_args)
        *u->n_args = n;
    return true;
}

int skf_cli_usage(const char *verb, const char *what)
{
    (void)fprintf(stderr, "skiff: %s: %s; `skiff %s --help` tells more\n", verb, what, verb);
    return SKF_EXIT_USAGE;
}

/* ---- output ------------------------------------------------------------------------------------------------------------- */
int skf_cli_fail(enum skf_err e, const struct skf_why *why)
{
    skf_cli_progress_end();
    (void)fprintf(stderr, "skiff: %s\n", why && why->text[0] ? why->text : skf_err_name(e));
    return SKF_EXIT_FAILED;
}

int skf_cli_print_json(skf_json *take_j)
{
    char *text;
    size_t n;
    enum skf_err e = skf_json_text(take_j, 0, &text, &n);
    skf_json_free(take_j);
    if (e != SKF_OK)
        return skf_cli_fail(e, NULL);
    (void)puts(text);
    skf_free(text);
    return skf_cli_flush(SKF_EXIT_OK);
}

int skf_cli_flush(int status)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status != SKF_EXIT_OK)
        return status;
    (void)fprintf(stderr, "skiff: standard output: cannot be written\n");
    return SKF_EXIT_FAILED;
}

bool is_cli_share(const char *s, double *v)
{
    char *end;
    *v = strtod(s, &end);
    if (end == s)
        return false;
    if (*end == '%') {
        *v /= 100;
        end++;
    }
    return *end == 0 && *v >= 0 && *v <= 1;
}

const char *skf_human_bytes(uint64_t n, char buf[16])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)n;
    size_t u = 0;
    while (v >= 1000 && u + 1 < SKF_COUNT(units)) {
        v /= 1000;
        u++;
    }
    (void)snprintf(buf, 16, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return buf;
}

/* ---- progress and cancel: one a process, since there is one terminal and one Ctrl-C ----------------------------------------- */
static atomic_bool cancelled;
static atomic_uint_fast64_t last_drawn_ns, begun_ns;
static atomic_bool is_drawn;

static void on_signal(int sig) { atomic_store(&cancelled, true); }

static void draw(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t now = skf_now_ns(), last = atomic_load(&last_drawn_ns);
    if (now - last < 100000000u || !atomic_compare_exchange_strong(&last_drawn_ns, &last, now))
        return;
    char left[32] = "";
    atomic_store(&is_drawn, true);
    double part = total ? (double)done / (double)total : 0.0, seconds = (double)(now - atomic_load(&begun_ns)) / 1e9;
    if (part > 0.02 && part <= 1 && seconds > 1) /* at the rate so far */
        (void)snprintf(left, sizeof left, ", about %.0f s left", seconds / part - seconds);
    (void)fprintf(stderr, "\r\033[K%s %3.0f %%%s", (const char *)ctx, 100 * part, left);
}

struct skf_progress skf_cli_progress(const char *label)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND}; /* a second Ctrl-C ends it at once */
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
    atomic_store(&begun_ns, skf_now_ns());
    return (struct skf_progress){.fn = isatty(STDERR_FILENO) ? draw : NULL,
                                 .ctx = (void *)(uintptr_t)label,
                                 .cancel = &cancelled};
}

void skf_cli_progress_end(void)
{
    if (atomic_exchange(&is_drawn, false))
        (void)fprintf(stderr, "\r\033[K");
}
