/* `skiffd`: arguments, signals, and one call. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "base/util.h"
#include "distributor/centre.h"
#include "distributor/enrol.h"

static const char help[] =
    "usage: skiffd --dir DIR --listen ADDR [--enrol-listen ADDR]\n"
    "       skiffd --dir DIR --enrol-token NAME\n\n"
    "The distributor of a fleet: keeps versions, builds and signs deltas, tells boxes what to run.\n\n"
    "options:\n"
    "  --dir DIR            tls/, tuf/, keys/ and what it keeps itself\n"
    "  --listen ADDR        HOST:PORT for agents and operators (mutual TLS); port 0 takes any\n"
    "  --enrol-listen ADDR  HOST:PORT where new boxes enrol (needs ca/ in DIR)\n"
    "  --enrol-token NAME   print a one-time token for a new box, and end\n"
    "  --jobs N             threads of a build; 0: one a processor\n"
    "  --allow-open-keys    use tls/distributor.key though others can read it\n"
    "  --help, --version\n\n"
    "Prints `listening HOST:PORT` when it is ready. Ends on SIGTERM or SIGINT.\n";

static int usage_error(const char *what)
{
    (void)fprintf(stderr, "skiffd: %s; `skiffd --help` tells more\n", what);
    return 2;
}

static int fail(enum skf_err e, const struct skf_why *why)
{
    (void)fprintf(stderr, "skiffd: %s\n", why->text[0] ? why->text : skf_err_name(e));
    return 1;
}

/* HOST of HOST:PORT. */
static int host_len(const char *listen)
{
    const char *colon = strrchr(listen, ':');
    return colon ? (int)(colon - listen) : (int)strlen(listen);
}

static int serve(const struct skf_centre_opts *o)
{
    struct skf_centre *c;
    struct skf_why why = {{0}};
    sigset_t set;
    int sig;
    /* Blocked before any thread exists, so that all inherit it and the signal waits for us here. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    enum skf_err e = skf_centre_open(o, &c, &why);
    if (e != SKF_OK)
        return fail(e, &why);
    (void)printf("listening %.*s:%d\n", host_len(o->listen), o->listen, skf_centre_port(c));
    if (o->enrol_listen)
        (void)printf("enrolling %.*s:%d\n", host_len(o->enrol_listen), o->enrol_listen, skf_centre_enrol_port(c));
    (void)fflush(stdout);
    (void)sigwait(&set, &sig);
    skf_centre_close(c);
    return 0;
}

static int print_token(const char *dir, const char *name)
{
    char token[SKF_TOKEN];
    struct skf_why why = {{0}};
    enum skf_err e = skf_enrol_token(dir, name, token, &why);
    if (e != SKF_OK)
        return fail(e, &why);
    return puts(token) < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", 1, NULL, 'd'},  {"listen", 1, NULL, 'l'}, {"enrol-listen", 1, NULL, 'e'}, {"enrol-token", 1, NULL, 't'},
        {"jobs", 1, NULL, 'j'}, {"help", 0, NULL, 'h'},   {"version", 0, NULL, 'v'},      {"allow-open-keys", 0, NULL, 'k'},
        {NULL, 0, NULL, 0}};
    struct skf_centre_opts o = {.dir = NULL};
    const char *name = NULL;
    char *end;
    opterr = 0;
    for (int k; (k = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (k) {
        case 'd':
            o.dir = optarg;
            break;
        case 'l':
            o.listen = optarg;
            break;
        case 'e':
            o.enrol_listen = optarg;
            break;
        case 't':
            name = optarg;
            break;
        case 'j':
            o.jobs = (unsigned)strtoul(optarg, &end, 10);
            if (*end || end == optarg || o.jobs > 1024)
                return usage_error("--jobs: not a number");
            break;
        case 'k':
            o.is_open_key_fine = true;
            break;
        case 'h':
            (void)fputs(help, stdout);
            return 0;
        case 'v':
            (void)printf("skiffd %s\n", SKF_VERSION);
            return 0;
        default:
            return usage_error("no such option, or its value is missing");
        }
    }
    skf_log_open("skiffd", SKF_LOG_INFO);
    if (optind < argc)
        return usage_error("one argument too many");
    if (!o.dir || (!name && !o.listen))
        return usage_error("--dir and --listen are needed");
    return name ? print_token(o.dir, name) : serve(&o);
}
