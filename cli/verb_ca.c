/* skiff ca: a fleet's certificate authority. `init` makes it, `issue` signs a certificate for somebody whose key it
 * makes. */
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "trust/cert.h"

#define HOSTS_MAX 32

struct ca {
    const char *dir, *ca, *fleet, *kind, *name, *out;
    const char *hosts[HOSTS_MAX];
    size_t n_hosts;
    uint64_t days;
    bool json;
    const char *what[1];
    size_t n_what;
};

static int usage_error(const char *what) { return skf_cli_usage("ca", what); }

static int report(const struct ca *c, const char *base, const char *dir, const char *fleet)
{
    if (!c->json) {
        (void)printf("%s/%s.crt, %s/%s.key: %s\n", dir, base, dir, base, fleet);
        return SKF_EXIT_OK;
    }
    char crt[4096], key[4096];
    (void)snprintf(crt, sizeof crt, "%s/%s.crt", dir, base);
    (void)snprintf(key, sizeof key, "%s/%s.key", dir, base);
    skf_json *j = skf_json_obj();
    enum skf_err e = skf_json_set(j, "certificate", skf_json_str(crt));
    e = e ? e : skf_json_set(j, "key", skf_json_str(key));
    e = e ? e : skf_json_set(j, "identity", skf_json_str(fleet));
    if (e == SKF_OK)
        return skf_cli_print_json(j);
    skf_json_free(j);
    return skf_cli_fail(e, NULL);
}

static int init(const struct ca *c)
{
    if (!c->dir || !c->fleet)
        return usage_error("init wants --dir and --fleet");
    struct skf_why why = {{0}};
    char uri[128];
    (void)snprintf(uri, sizeof uri, "spiffe://%.100s", c->fleet);
    enum skf_err e = skf_ca_init(c->dir, c->fleet, c->days ? (unsigned)SKF_MIN(c->days, 1000000u) : 3650, &why);
    return e == SKF_OK ? report(c, "ca", c->dir, uri) : skf_cli_fail(e, &why);
}

static bool is_kind(const char *s, enum skf_cert_kind *kind)
{
    static const char *const names[] = {
        [SKF_CERT_DEVICE] = "device", [SKF_CERT_OPERATOR] = "operator", [SKF_CERT_DISTRIBUTOR] = "distributor"};
    for (size_t i = 0; s && i < SKF_COUNT(names); i++)
        if (strcmp(s, names[i]) == 0) {
            *kind = (enum skf_cert_kind)i;
            return true;
        }
    return false;
}

static int issue(struct ca *c)
{
    static const char *const here[] = {"localhost", "127.0.0.1", "::1"};
    enum skf_cert_kind kind;
    if (!c->ca)
        c->ca = c->dir;
    if (!c->ca || !c->name || !c->out)
        return usage_error("issue wants --ca, --kind, --name and -o");
    if (!is_kind(c->kind, &kind))
        return usage_error("--kind must be device, operator or distributor");
    struct skf_cert_req r = {.kind = kind,
                             .name = c->name,
                             .hosts = c->hosts,
                             .n_hosts = c->n_hosts,
                             .days = c->days ? (unsigned)SKF_MIN(c->days, 1000000u) : 365};
    if (kind == SKF_CERT_DISTRIBUTOR && c->n_hosts == 0) { /* a server must have some name; this one serves a trial */
        r.hosts = here;
        r.n_hosts = SKF_COUNT(here);
    }
    struct skf_why why = {{0}};
    char uri[256], fleet[65], ca_crt[4096];
    enum skf_err e = skf_ca_issue(c->ca, &r, c->out, c->kind, &why);
    if (e == SKF_OK && (e = skf_path(ca_crt, sizeof ca_crt, c->ca, "ca.crt")) == SKF_OK)
        e = skf_ca_fleet(ca_crt, fleet, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    (void)snprintf(uri, sizeof uri, "spiffe://%s/%s/%s", fleet, c->kind, c->name);
    return report(c, c->kind, c->out, uri);
}

int skf_verb_ca(int argc, char **argv)
{
    struct ca c = {0};
    const struct skf_opt opts[] = {
        {.name = "--dir", .value = "DIR", .help = "init: the CA's folder", .text = &c.dir},
        {.name = "--fleet", .value = "NAME", .help = "init: the fleet's name", .text = &c.fleet},
        {.name = "--ca", .value = "DIR", .help = "issue: the CA's folder", .text = &c.ca},
        {.name = "--kind", .value = "KIND", .help = "issue: device, operator or distributor", .text = &c.kind},
        {.name = "--name", .value = "NAME", .help = "issue: whose certificate it is", .text = &c.name},
        {.name = "--host",
         .value = "HOST",
         .help = "issue: a distributor's name or address (default: this machine)",
         .list = c.hosts,
         .list_max = HOSTS_MAX,
         .list_n = &c.n_hosts},
        {.name = "--output",
         .letter = 'o',
         .value = "OUTDIR",
         .help = "issue: gets KIND.crt, KIND.key and ca.crt",
         .text = &c.out},
        {.name = "--days", .value = "N", .help = "how long it holds (init: 3650, issue: 365)", .number = &c.days},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &c.json},
    };
    const struct skf_usage u = {.verb = "ca",
                                .args = "init|issue [OPTIONS]",
                                .about = "Makes a fleet's certificate authority, and certificates of it.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = c.what,
                                .min_args = 1,
                                .max_args = 1,
                                .n_args = &c.n_what};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (strcmp(c.what[0], "init") == 0)
        return init(&c);
    if (strcmp(c.what[0], "issue") == 0)
        return issue(&c);
    return usage_error("the first argument must be init or issue");
}
