/*
 * skiff tuf: the update metadata from both sides.  The client's subcommands take the same arguments as those of other
 * TUF clients
 * (`--metadata-dir D init ROOT.json | refresh | download`), so that the same tests can be run against all of them.
 */
#include <string.h>

#include "cli/cli.h"
#include "cli/tuf_priv.h"

int skf_tuf_usage_error(const char *what) { return skf_cli_usage("tuf", what); }

static int dispatch(const struct skf_tuf_opts *o)
{
    const char *what = o->args[0];
    if (strcmp(what, "init") == 0)
        return o->metadata_dir ? skf_tuf_cmd_client_init(o) : skf_tuf_cmd_init(o);
    if (strcmp(what, "refresh") == 0)
        return skf_tuf_cmd_refresh(o);
    if (strcmp(what, "download") == 0)
        return skf_tuf_cmd_download(o);
    if (strcmp(what, "rotate") == 0)
        return skf_tuf_cmd_rotate(o);
    if (strcmp(what, "create") == 0)
        return skf_tuf_cmd_create(o);
    if (strcmp(what, "add") == 0)
        return skf_tuf_cmd_add(o);
    if (strcmp(what, "update") == 0)
        return skf_tuf_cmd_update(o);
    if (strcmp(what, "show") == 0)
        return skf_tuf_cmd_show(o);
    return skf_tuf_usage_error(
        "the first argument must be init, refresh, download, create, add, update, rotate or show");
}

int skf_verb_tuf(int argc, char **argv)
{
    struct skf_tuf_opts o = {0};
#define KEYS(member) .list = o.member.path, .list_max = SKF_TUF_OPT_KEYS, .list_n = &o.member.n
    const struct skf_opt opts[] = {
        {.name = "--metadata-dir",
         .value = "DIR",
         .help = "client: where verified metadata is kept",
         .text = &o.metadata_dir},
        {.name = "--repo", .value = "DIR", .help = "client: the repository, as a folder", .text = &o.repo},
        {.name = "--target-name", .value = "PATH", .help = "download, add: the target's path", KEYS(names)},
        {.name = "--target-dir", .value = "DIR", .help = "download: where the file goes", .text = &o.target_dir},
        {.name = "--target-base",
         .value = "DIR",
         .help = "download: the folder of the repository's targets",
         .text = &o.target_base},
        {.name = "--dir", .value = "REPO", .help = "repository: its folder", .text = &o.dir},
        {.name = "--keys", .value = "KEYDIR", .help = "repository: folder of ROLE.key files", .text = &o.keys},
        {.name = "--file", .value = "FILE", .help = "add: the file to list", .text = &o.file},
        {.name = "--root", .value = "K.pub", .help = "init, rotate: a root key", KEYS(root)},
        {.name = "--targets", .value = "K.pub", .help = "init, rotate: a release key", KEYS(targets)},
        {.name = "--snapshot", .value = "K.pub", .help = "init, rotate: a snapshot key", KEYS(snapshot)},
        {.name = "--timestamp", .value = "K.pub", .help = "init, rotate: a timestamp key", KEYS(timestamp)},
        {.name = "--deltas", .value = "K.pub", .help = "init: a distributor's deltas key", KEYS(deltas)},
        {.name = "--root-threshold",
         .value = "N",
         .help = "init, rotate: signatures a root needs (1)",
         .number = &o.root_threshold},
        {.name = "--targets-threshold",
         .value = "N",
         .help = "init, rotate: signatures a release needs (1)",
         .number = &o.targets_threshold},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &o.json},
    };
#undef KEYS
    const struct skf_usage u = {
        .verb = "tuf",
        .args = "init|refresh|download|create|add|update|rotate|show [OPTIONS]",
        .about =
            "Update metadata. A client: --metadata-dir D init ROOT.json, --metadata-dir D --repo R refresh, download.\n"
            "A repository: create --dir R --keys K (all at once), init --dir R --root K.pub ... (then `skiff sign`),\n"
            "add --dir R --keys K --file F --target-name P, update --dir R --keys K, show --dir R | FILE,\n"
            "rotate --dir R [--root K.pub ...] (a new root, with these keys instead, to be signed by old and new "
            "keys).",
        .opts = opts,
        .n_opts = SKF_COUNT(opts),
        .positional = o.args,
        .min_args = 1,
        .max_args = 2,
        .n_args = &o.n_args};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    return dispatch(&o);
}
