/* pin, unpin, rollback (pin.h). */
#include "cli/pin.h"

#include <stdio.h>
#include <string.h>

#include "cli/connect.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

static int usage_error(const struct skf_pin_verb *v, const char *what) { return skf_cli_usage(v->verb, what); }

static int print_reply(const struct skf_pin_verb *v, const Skiff__V1__PinRequest *q, unsigned devices, bool json)
{
    if (!json) {
        (void)printf("%s: %s %s%s%s: %u device%s\n", v->verb, q->device, q->model, q->version[0] ? " " : "", q->version,
                     devices, devices == 1 ? "" : "s");
        return SKF_EXIT_OK;
    }
    skf_json *j = skf_json_obj();
    enum skf_err e = skf_json_put_str(j, "action", v->verb);
    if (e == SKF_OK)
        e = skf_json_put_str(j, "device", q->device);
    if (e == SKF_OK)
        e = skf_json_put_str(j, "model", q->model);
    if (e == SKF_OK && q->version[0])
        e = skf_json_put_str(j, "version", q->version);
    if (e == SKF_OK)
        e = skf_json_put_u64(j, "devices", devices);
    return skf_json_finish(e, j);
}

int skf_pin_verb_run(const struct skf_pin_verb *v, int argc, char **argv)
{
    struct skf_connect c = {.centre = NULL};
    const char *model = NULL, *version = NULL, *device[1] = {NULL};
    bool all = false, json = false;
    size_t n = 0, n_opts = 0;
    int status;
    struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&c),
        {.name = "--model", .value = "M", .help = "the model's name", .text = &model},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &json},
        {.name = NULL}, /* room for what only some of them take */
        {.name = NULL},
    };
    while (opts[n_opts].name)
        n_opts++;
    if (v->has_version || v->wants_version)
        opts[n_opts++] = (struct skf_opt){.name = "--version", .value = "V", .help = "the version", .text = &version};
    if (v->has_all)
        opts[n_opts++] = (struct skf_opt){.name = "--all", .help = "every box", .flag = &all};
    struct skf_usage u = {.verb = v->verb,
                          .args = v->args,
                          .about = v->about,
                          .opts = opts,
                          .n_opts = n_opts,
                          .positional = device,
                          .min_args = 0,
                          .max_args = 1,
                          .n_args = &n};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if ((n == 1) == all)
        return usage_error(v, v->has_all ? "name one device, or --all" : "name one device");
    if (!model)
        return usage_error(v, "--model is needed");
    if (v->wants_version && !version)
        return usage_error(v, "--version is needed");
    Skiff__V1__PinRequest q = SKIFF__V1__PIN_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    struct skf_why why = {{0}};
    q.action = (char *)(uintptr_t)v->verb;
    q.device = all ? (char *)(uintptr_t) "*" : (char *)(uintptr_t)device[0];
    q.model = (char *)(uintptr_t)model;
    if (version)
        q.version = (char *)(uintptr_t)version;
    enum skf_err e = skf_connect_once(&c, "Pin", &q.base, &skiff__v1__pin_reply__descriptor, &answer, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    status = print_reply(v, &q, ((Skiff__V1__PinReply *)answer)->devices, json);
    skf_msg_free(answer);
    return status;
}
