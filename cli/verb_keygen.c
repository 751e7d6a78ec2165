/* skiff keygen: one Ed25519 key for one role. */
#include <string.h>

#include "cli/cli.h"
#include "trust/key.h"

static bool is_role(const char *role)
{
    static const char *const roles[] = {"root", "targets", "snapshot", "timestamp", "deltas", "director"};
    for (size_t i = 0; i < SKF_COUNT(roles); i++)
        if (role && strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

static int report(const struct skf_key *k, const char *path, bool json)
{
    if (!json) {
        (void)printf("%s: %s key %s; the public half is %s.pub\n", path, skf_key_role(k), skf_key_id(k), path);
        return SKF_EXIT_OK;
    }
    skf_json *j = skf_json_obj();
    enum skf_err e = skf_json_set(j, "key", skf_json_str(path));
    e = e ? e : skf_json_set(j, "role", skf_json_str(skf_key_role(k)));
    e = e ? e : skf_json_set(j, "keyid", skf_json_str(skf_key_id(k)));
    if (e == SKF_OK)
        return skf_cli_print_json(j);
    skf_json_free(j);
    return skf_cli_fail(e, NULL);
}

int skf_verb_keygen(int argc, char **argv)
{
    const char *role = NULL, *out = NULL;
    bool json = false;
    const struct skf_opt opts[] = {
        {.name = "--role",
         .value = "ROLE",
         .help = "root, targets, snapshot, timestamp, deltas or director",
         .text = &role},
        {.name = "--output",
         .letter = 'o',
         .value = "KEYFILE",
         .help = "where the key goes; KEYFILE.pub is its public half",
         .text = &out},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &json},
    };
    const struct skf_usage u = {.verb = "keygen",
                                .args = "--role ROLE -o KEYFILE",
                                .about = "Makes an Ed25519 signing key in a file that only its owner can read.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts)};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!is_role(role) || !out)
        return skf_cli_usage("keygen", out ? "--role: must be root, targets, snapshot, timestamp, deltas or director"
                                           : "-o KEYFILE is missing");
    struct skf_why why = {{0}};
    struct skf_key *k = NULL;
    enum skf_err e = skf_key_generate(role, &k, &why);
    if (e == SKF_OK)
        e = skf_key_save(k, out, &why);
    status = e == SKF_OK ? report(k, out, json) : skf_cli_fail(e, &why);
    skf_key_free(k);
    return status;
}
