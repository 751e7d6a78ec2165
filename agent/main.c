/* `skiff-agent`: reads its options and runs the agent of a box. */
#include "agent/agent.h"

#include <getopt.h>

#include "base/alloc.h"
#include "base/util.h"


enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: skiff-agent [--config FILE] --dir DIR [--centre HOST:PORT] [--listen ADDRESS] [options]\n"
    "       skiff-agent --check-store DIR\n\n"
    "Receives signed versions of models for this box, installs and serves them.\n\n"
    "  --dir DIR            its folder: tls/{device.crt,device.key,ca.crt}, tuf/root.json, store/, run/\n"
    "  --init               make that folder when it is not there (--enrol does too)\n"
    "  --centre HOST:PORT   the distributor; without one only what is here is served\n"
    "  --listen ADDRESS     of the local HTTP API (127.0.0.1:8080)\n"
    "  --unix PATH          serve the local API on this Unix socket too\n"
    "  --tls-cert FILE      with --tls-key FILE: the local API by TLS, with this certificate and key (PEM)\n"
    "  --keys FILE          who may ask the local API and how much (skiff-gateway(1))\n"
    "  --enrol HOST:PORT    get a certificate there first, when there is none yet (tls/ca.crt must be)\n"
    "  --token-file FILE    the one-time token for it\n"
    "  --name NAME          this box's name in the fleet, for enrolment (the host name)\n"
    "  --tag TAG            for the inventory, as channel=beta; may be given again\n"
    "  --threads N          of each worker\n"
    "  --config FILE        options by their names, and more, in TOML (skiff-agent(1)); those given here go first\n"
    "  --swap HOW           a new version's worker starts beside the old one (side), in its stead while requests wait (in-place),\n"
    "                       or as memory allows (auto)\n"
    "  --repack HOW         matrices laid out once for the kernels, and kept in the store: auto (where there is room), on, off,\n"
    "                       shared (read where they are kept: a little slower, memory is shared between workers)\n"
    "  --share PERCENT      of a thread's time that decoding an update may take from inference (100)\n"
    "  --rate N             bytes a second that updates may take of the link, as 200K or 2M (all it carries)\n"
    "  --watch SECONDS      a new version serves this long before it is confirmed (10)\n"
    "  --allow-open-keys    use tls/device.key though others can read it\n"
    "  --check-store DIR    hash everything in the store of the agent's folder DIR, print versions and slots as JSON\n"
    "  --help, --version\n";

static int fail(const struct skf_why *why)
{
    (void)fprintf(stderr, "skiff-agent: %s\n", why->text);
    return EXIT_FAILED;
}

static int bad_usage(const char *what, const char *value)
{
    (void)fprintf(stderr, "skiff-agent: %s: %s; --help describes the options\n", what, value);
    return EXIT_USAGE;
}

static bool is_number(const char *s, unsigned most, unsigned *out)
{
    char *end;
    if (*s < '0' || *s > '9')
        return false;
    unsigned long v = strtoul(s, &end, 10);
    *out = (unsigned)v;
    return *end == 0 && v <= most;
}

static void on_listening(void *ctx, const char *address)
{
    bool *said = ctx;
    if (*said) /* the gateway was started again, at the same address */
        return;
    *said = true;
    (void)printf("listening %s\n", address);
    (void)fflush(stdout);
}

static int check(const char *dir)
{
    struct skf_why why = {{0}};
    skf_json *j;
    char *text;
    size_t n;
    if (skf_agent_check_store(dir, &j, &why) != SKF_OK)
        return fail(&why);
    enum skf_err e = skf_json_text(j, 0, &text, &n);
    if (e == SKF_OK)
        (void)printf("%s\n", text);
    else
        (void)skf_fail(&why, e, "%s: no memory", dir);
    skf_json_free(j);
    if (e != SKF_OK)
        return fail(&why);
    skf_free(text);
    return fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* The option whose value is none, or NULL. */
static const char *take_number(int c, struct skf_agent_opts *o)
{
    switch (c) {
    case 'j': return is_number(optarg, 1024, &o->threads) ? NULL : "--threads";
    case 'p': return is_number(optarg, 100, &o->share) && o->share ? NULL : "--share";
    case 'r': return is_agent_rate(optarg, &o->rate) ? NULL : "--rate (1K to 1000G)";
    default: return is_number(optarg, 86400, &o->watch_seconds) ? NULL : "--watch";
    }
}

/* False for an option that takes no text. */
static bool is_text_taken(int c, struct skf_agent_opts *o, const char **check_dir, const char **config)
{
    const char **texts[] = {['C'] = &o->api_cert, ['K'] = &o->api_key, ['Y'] = &o->api_keys, ['U'] = &o->api_unix,
                            ['c'] = &o->centre, ['d'] = &o->dir,  ['e'] = &o->enrol,      ['l'] = &o->listen,
                            ['n'] = &o->name,   ['R'] = &o->repack,   ['F'] = config,       ['S'] = &o->swap,   ['s'] = check_dir, ['t'] = &o->token_file};
    if (c < 0 || (size_t)c >= SKF_COUNT(texts) || !texts[c])
        return false;
    *texts[c] = optarg;
    return true;
}

static int parse(int argc, char **argv, struct skf_agent_opts *o, const char *tags[SKF_AGENT_TAGS], const char **check_dir,
                 const char **config)
{
    static const struct option options[] = {
        {"dir", 1, NULL, 'd'},   {"centre", 1, NULL, 'c'},      {"listen", 1, NULL, 'l'},          {"enrol", 1, NULL, 'e'},
        {"name", 1, NULL, 'n'},  {"token-file", 1, NULL, 't'},  {"tag", 1, NULL, 'g'},             {"threads", 1, NULL, 'j'},
        {"repack", 1, NULL, 'R'}, {"config", 1, NULL, 'F'},     {"swap", 1, NULL, 'S'},
        {"share", 1, NULL, 'p'}, {"rate", 1, NULL, 'r'},        {"watch", 1, NULL, 'w'},           {"init", 0, NULL, 'i'},
        {"help", 0, NULL, 'h'},  {"check-store", 1, NULL, 's'}, {"allow-open-keys", 0, NULL, 'k'}, {"version", 0, NULL, 'v'},
        {"unix", 1, NULL, 'U'},  {"tls-cert", 1, NULL, 'C'},    {"tls-key", 1, NULL, 'K'},           {"keys", 1, NULL, 'Y'},
        {NULL, 0, NULL, 0}};
    const char *wrong;
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (is_text_taken(c, o, check_dir, config))
            continue;
        switch (c) {
        case 'g':
            if (o->tags != tags) { /* the configuration's: these go before them */
                o->tags = tags;
                o->n_tags = 0;
            }
            if (o->n_tags == SKF_AGENT_TAGS)
                return bad_usage("--tag", "too many");
            tags[o->n_tags++] = optarg;
            break;
        case 'j':
        case 'p':
        case 'r':
        case 'w':
            if ((wrong = take_number(c, o)) != NULL)
                return bad_usage(wrong, optarg);
            break;
        case 'i': o->is_init = true; break;
        case 'k': o->is_open_key_fine = true; break;
        case 'h': (void)fputs(usage, stdout); return EXIT_DONE;
        case 'v': (void)printf("skiff-agent %s\n", SKF_VERSION); return EXIT_DONE;
        default: return bad_usage(argv[optind - 1], "no such option, or its value is missing");
        }
    }
    if (optind < argc)
        return bad_usage(argv[optind], "not expected");
    if (o->repack && !is_agent_choice(o->repack, "auto|on|off|shared"))
        return bad_usage("--repack", "not one of auto, on, off, shared");
    if (o->swap && !is_agent_choice(o->swap, "auto|side|in-place"))
        return bad_usage("--swap", "not one of auto, side, in-place");
    return -1;
}

int main(int argc, char **argv)
{
    bool said = false;
    const char *tags[SKF_AGENT_TAGS], *check_dir = NULL, *config = NULL;
    struct skf_agent_opts o = {
        .listen = "127.0.0.1:8080", .watch_seconds = 10, .shadow_requests = 20, .shadow_seconds = 60, .tags = tags, .listening = on_listening, .ctx = &said};
    struct skf_agent_opts first = o; /* only to find the configuration, which the options then go before */
    struct skf_agent_config *c = NULL;
    struct skf_why why = {{0}};
    skf_log_open("skiff-agent", SKF_LOG_INFO);
    int status = parse(argc, argv, &first, tags, &check_dir, &config);
    if (status >= 0)
        return status;
    if (check_dir)
        return check(check_dir);
    if (config && skf_agent_config(config, &o, &c, &why) != SKF_OK)
        return fail(&why);
    optind = 1;
    status = parse(argc, argv, &o, tags, &check_dir, &config);
    if (status < 0)
        status = !o.dir ? bad_usage("--dir", "missing") : skf_agent_run(&o, &why) == SKF_OK ? EXIT_DONE : fail(&why);
    skf_agent_config_free(c);
    return status;
}
