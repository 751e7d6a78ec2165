/* skiff versions: what is published, where it runs, and what a delta to it costs. */
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "cli/connect.h"
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

int skf_verb_versions(int argc, char **argv)
{
    struct skf_connect c = {.centre = NULL};
    const char *model[1] = {NULL};
    bool json = false;
    size_t n = 0;
    int status;
    const struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&c),
        {.name = "--json", .help = "one JSON object on stdout", .flag = &json},
    };
    const struct skf_usage u = {.verb = "versions",
                                .args = "[MODEL] [--json]",
                                .about = "Lists what is published.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = model,
                                .min_args = 0,
                                .max_args = 1,
                                .n_args = &n};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    Skiff__V1__VersionsRequest q = SKIFF__V1__VERSIONS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    struct skf_why why = {{0}};
    if (model[0])
        q.model = (char *)(uintptr_t)model[0];
    enum skf_err e =
        skf_connect_once(&c, "ListVersions", &q.base, &skiff__v1__versions_reply__descriptor, &answer, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    const Skiff__V1__VersionsReply *r = (Skiff__V1__VersionsReply *)answer;
    status = SKF_EXIT_OK;
    if (model[0] && r->n_versions == 0) {
        status = skf_cli_fail(skf_fail(&why, SKF_ERR_NOT_FOUND, "%s: no such model; `skiff versions` lists what there is", model[0]), &why);
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
