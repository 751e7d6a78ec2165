/* skiff versions: what is published, where it runs, and what a delta to it costs; and taking away what is over. */
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "cli/connect.h"
#include "distributor/registry.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

static enum skf_err fill_deltas(skf_json *j, const Skiff__V1__VersionInfo *v)
{
    skf_json *list = skf_json_arr();
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < v->n_deltas && e == SKF_OK; i++) {
        skf_json *d = skf_json_obj();
        e = skf_json_put_str(d, "from", v->deltas[i]->from_version);
        if (e == SKF_OK)
            e = skf_json_put_u64(d, "bytes", v->deltas[i]->bytes);
        if (e == SKF_OK && v->deltas[i]->adapter[0])
            e = skf_json_put_str(d, "adapter", v->deltas[i]->adapter);
        enum skf_err pushed = skf_json_push(list, d);
        e = e == SKF_OK ? pushed : e;
    }
    enum skf_err set = skf_json_set(j, "deltas", list);
    return e == SKF_OK ? set : e;
}

static enum skf_err fill(skf_json *j, const Skiff__V1__VersionInfo *v)
{
    char root[SKF_HEX] = "", when[21];
    if (v->root.len == SKF_DIGEST)
        skf_hex(v->root.data, SKF_DIGEST, root);
    skf_time_text(v->created, when);
    SKF_TRY(skf_json_put_str(j, "model", v->model));
    SKF_TRY(skf_json_put_str(j, "version", v->version));
    SKF_TRY(skf_json_put_str(j, "root", root));
    SKF_TRY(skf_json_put_u64(j, "size", v->size));
    SKF_TRY(skf_json_put_str(j, "created", when));
    SKF_TRY(skf_json_put_u64(j, "running", v->running));
    skf_json *channels = skf_json_arr();
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < v->n_channels && e == SKF_OK; i++)
        e = skf_json_push(channels, skf_json_str(v->channels[i]));
    enum skf_err set = skf_json_set(j, "channels", channels);
    SKF_TRY(e == SKF_OK ? set : e);
    return fill_deltas(j, v);
}

static int print_json(const Skiff__V1__VersionsReply *r)
{
    skf_json *j = skf_json_obj(), *list = skf_json_arr();
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < r->n_versions && e == SKF_OK; i++) {
        skf_json *v = skf_json_obj();
        e = fill(v, r->versions[i]);
        enum skf_err pushed = skf_json_push(list, v);
        e = e == SKF_OK ? pushed : e;
    }
    enum skf_err set = skf_json_set(j, "versions", list);
    e = e == SKF_OK ? set : e;
    return skf_json_finish(e, j);
}

static void print_row(const Skiff__V1__VersionInfo *v)
{
    char channels[128] = "", size[16], when[21], bytes[16];
    size_t n = 0;
    for (size_t i = 0; i < v->n_channels && n < sizeof channels; i++)
        n += (size_t)snprintf(channels + n, sizeof channels - n, "%s%s", i ? "," : "", v->channels[i]);
    skf_time_text(v->created, when);
    (void)printf("%-20s %-14s %10s  %s %8u  %-14s", v->model, v->version, skf_human_bytes(v->size, size), when,
                 v->running, channels[0] ? channels : "-");
    for (size_t i = 0; i < v->n_deltas; i++)
        (void)printf("%s %s %s", i ? "," : "", v->deltas[i]->from_version[0] ? v->deltas[i]->from_version : "full",
                     skf_human_bytes(v->deltas[i]->bytes, bytes));
    (void)putchar('\n');
}

static enum skf_err fill_removed(skf_json *j, const Skiff__V1__RemoveRequest *q, const Skiff__V1__RemoveReply *r)
{
    SKF_TRY(skf_json_put_str(j, "model", q->model));
    SKF_TRY(skf_json_put_str(j, "version", q->version));
    SKF_TRY(skf_json_set(j, "dry_run", skf_json_bool(q->dry_run)));
    SKF_TRY(skf_json_put_u64(j, "chunks", r->chunks));
    SKF_TRY(skf_json_put_u64(j, "chunk_bytes", r->chunk_bytes));
    SKF_TRY(skf_json_put_u64(j, "deltas", r->deltas));
    return skf_json_put_u64(j, "delta_bytes", r->delta_bytes);
}

static int remove_version(struct skf_connect *c, const char *model, const char *version, bool is_dry, bool json)
{
    Skiff__V1__RemoveRequest q = SKIFF__V1__REMOVE_REQUEST__INIT;
    ProtobufCMessage *answer;
    struct skf_why why = {{0}};
    char chunks[16], deltas[16];
    q.model = (char *)(uintptr_t)model;
    q.version = (char *)(uintptr_t)version;
    q.dry_run = is_dry;
    enum skf_err e = skf_connect_once(c, "RemoveVersion", &q.base, &skiff__v1__remove_reply__descriptor, &answer, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    const Skiff__V1__RemoveReply *r = (Skiff__V1__RemoveReply *)answer;
    int status = SKF_EXIT_OK;
    if (json) {
        skf_json *j = skf_json_obj();
        e = fill_removed(j, &q, r);
        status = skf_json_finish(e, j);
    } else {
        (void)printf("%s %s %s: %llu chunks of %s, %llu deltas of %s\n", model, version, is_dry ? "would go" : "is removed",
                     (unsigned long long)r->chunks, skf_human_bytes(r->chunk_bytes, chunks), (unsigned long long)r->deltas,
                     skf_human_bytes(r->delta_bytes, deltas));
    }
    skf_msg_free(answer);
    return status;
}

static int list_versions(struct skf_connect *c, const char *model, bool json)
{
    Skiff__V1__VersionsRequest q = SKIFF__V1__VERSIONS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    struct skf_why why = {{0}};
    int status = SKF_EXIT_OK;
    if (model)
        q.model = (char *)(uintptr_t)model;
    enum skf_err e = skf_connect_once(c, "ListVersions", &q.base, &skiff__v1__versions_reply__descriptor, &answer, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    const Skiff__V1__VersionsReply *r = (Skiff__V1__VersionsReply *)answer;
    if (model && r->n_versions == 0) {
        status = skf_cli_fail(skf_fail(&why, SKF_ERR_NOT_FOUND, "%s: no such model; `skiff versions` lists what there is", model), &why);
    } else if (json) {
        status = print_json(r);
    } else {
        (void)printf("%-20s %-14s %10s  %-20s %8s  %-14s %s\n", "MODEL", "VERSION", "SIZE", "PUBLISHED", "RUNNING",
                     "CHANNELS", "DELTAS");
        for (size_t i = 0; i < r->n_versions; i++)
            print_row(r->versions[i]);
    }
    skf_msg_free(answer);
    return status;
}

int skf_verb_versions(int argc, char **argv)
{
    struct skf_connect c = {.centre = NULL};
    const char *model[1] = {NULL}, *version = NULL, *wrong = NULL;
    bool json = false, is_dry = false;
    size_t n = 0;
    int status;
    const struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&c),
        {.name = "--remove",
         .value = "VERSION",
         .help = "remove this version of MODEL, and what only it needs",
         .text = &version},
        {.name = "--dry-run", .help = "with --remove: say what would go, change nothing", .flag = &is_dry},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &json},
    };
    const struct skf_usage u = {.verb = "versions",
                                .args = "[MODEL] [--remove VERSION [--dry-run]] [--json]",
                                .about = "Lists what is published, or removes a version that no channel, pin or box has to do "
                                         "with.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = model,
                                .min_args = 0,
                                .max_args = 1,
                                .n_args = &n};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (version && !model[0])
        wrong = "--remove: of which model?";
    else if (version && (!is_registry_name(model[0]) || !is_registry_name(version)))
        wrong = "names are 1 to 128 of [A-Za-z0-9._-]";
    else if (is_dry && !version)
        wrong = "--dry-run goes with --remove VERSION";
    if (wrong) {
        (void)fprintf(stderr, "skiff: versions: %s; `skiff versions --help` tells more\n", wrong);
        return SKF_EXIT_USAGE;
    }
    return version ? remove_version(&c, model[0], version, is_dry, json) : list_versions(&c, model[0], json);
}
