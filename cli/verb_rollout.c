/* skiff rollout: moves a channel to a version, and says how far it has come. */
#include <stdio.h>
#include <string.h>

#include "cli/connect.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

static int usage_error(const char *what) { return skf_cli_usage("rollout", what); }

static bool is_action(const char *s)
{
    static const char *const actions[] = {"start", "status", "pause", "resume", "abort"};
    for (size_t i = 0; i < SKF_COUNT(actions); i++)
        if (strcmp(s, actions[i]) == 0)
            return true;
    return false;
}

static enum skf_err fill(skf_json *j, const Skiff__V1__RolloutReply *r)
{
    SKF_TRY(skf_json_put_str(j, "model", r->model));
    SKF_TRY(skf_json_put_str(j, "channel", r->channel));
    SKF_TRY(skf_json_put_str(j, "version", r->version));
    SKF_TRY(skf_json_put_str(j, "previous", r->previous));
    SKF_TRY(skf_json_put_str(j, "state", r->state));
    SKF_TRY(skf_json_put_u64(j, "devices", r->devices));
    SKF_TRY(skf_json_put_u64(j, "confirmed", r->confirmed));
    SKF_TRY(skf_json_put_u64(j, "failed", r->failed));
    SKF_TRY(skf_json_put_u64(j, "pending", r->pending));
    return skf_json_put_u64(j, "bytes", r->bytes);
}

static int print_reply(const Skiff__V1__RolloutReply *r, bool json)
{
    char bytes[16];
    if (json) {
        skf_json *j = skf_json_obj();
        enum skf_err e = fill(j, r);
        return skf_json_finish(e, j);
    }
    (void)printf("model      %s\nchannel    %s\nversion    %s\nprevious   %s\nstate      %s\n", r->model, r->channel,
                 r->version, r->previous[0] ? r->previous : "-", r->state);
    (void)printf("devices    %u: %u confirmed, %u pending, %u failed\nsent       %s\n", r->devices, r->confirmed,
                 r->pending, r->failed, skf_human_bytes(r->bytes, bytes));
    return SKF_EXIT_OK;
}

int skf_verb_rollout(int argc, char **argv)
{
    struct skf_connect c = {.centre = NULL};
    const char *model = NULL, *version = NULL, *channel = NULL, *action[1];
    bool json = false;
    int status;
    const struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&c),
        {.name = "--model", .value = "M", .help = "the model's name", .text = &model},
        {.name = "--version", .value = "V", .help = "the version to bring (start)", .text = &version},
        {.name = "--channel", .value = "C", .help = "the channel (stable)", .text = &channel},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &json},
    };
    const struct skf_usage u = {
        .verb = "rollout",
        .args = "start|status|pause|resume|abort --model M [--version V] [--channel C] [--json]",
        .about = "Moves a channel's boxes to a version. A paused rollout tells no further box; an aborted "
                 "one brings its boxes back to the version before; start again tries the failed ones anew.",
        .opts = opts,
        .n_opts = SKF_COUNT(opts),
        .positional = action,
        .min_args = 1,
        .max_args = 1};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!is_action(action[0]))
        return usage_error("the action is start, status, pause, resume or abort");
    if (!model)
        return usage_error("--model is needed");
    if ((strcmp(action[0], "start") == 0) != (version != NULL))
        return usage_error(version ? "--version goes with start alone" : "start needs --version");
    Skiff__V1__RolloutRequest q = SKIFF__V1__ROLLOUT_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    struct skf_why why = {{0}};
    q.action = (char *)(uintptr_t)action[0];
    q.model = (char *)(uintptr_t)model;
    if (version)
        q.version = (char *)(uintptr_t)version;
    if (channel)
        q.channel = (char *)(uintptr_t)channel;
    enum skf_err e = skf_connect_once(&c, "Rollout", &q.base, &skiff__v1__rollout_reply__descriptor, &answer, &why);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    status = print_reply((Skiff__V1__RolloutReply *)answer, json);
    skf_msg_free(answer);
    return status;
}
