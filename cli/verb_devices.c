/* skiff devices: what each box runs, what it should run, and how far it has come. */
#include <stdio.h>
#include <string.h>

#include "cli/connect.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

#define POLL_MS       300
#define TIMEOUT_MAX_S (100u * 86400)

struct devices {
    struct skf_connect c;
    const char *name[1], *wait;
    uint64_t timeout;
    bool json;
};

static enum skf_err fill(skf_json *j, const Skiff__V1__DeviceInfo *d)
{
    char when[21];
    skf_time_text(d->last_seen, when);
    SKF_TRY(skf_json_put_str(j, "name", d->name));
    SKF_TRY(skf_json_set(j, "online", skf_json_bool(d->online)));
    SKF_TRY(skf_json_put_str(j, "last_seen", when));
    SKF_TRY(skf_json_put_str(j, "model", d->model));
    SKF_TRY(skf_json_put_str(j, "version", d->version));
    SKF_TRY(skf_json_put_str(j, "target", d->target));
    SKF_TRY(skf_json_put_str(j, "pinned", d->pinned));
    SKF_TRY(skf_json_put_str(j, "previous", d->previous));
    SKF_TRY(skf_json_put_str(j, "phase", d->phase));
    SKF_TRY(skf_json_put_u64(j, "chunks_done", d->chunks_done));
    SKF_TRY(skf_json_put_u64(j, "chunks_total", d->chunks_total));
    SKF_TRY(skf_json_put_u64(j, "bytes_received", d->bytes_received));
    SKF_TRY(skf_json_put_u64(j, "swap_pause_us", d->swap_pause_us));
    SKF_TRY(skf_json_put_str(j, "error", d->error));
    SKF_TRY(skf_json_put_str(j, "machine", d->machine));
    return skf_json_put_str(j, "isa", d->isa);
}

static int print_json(const Skiff__V1__DevicesReply *r)
{
    skf_json *j = skf_json_obj(), *list = skf_json_arr();
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < r->n_devices && e == SKF_OK; i++) {
        skf_json *d = skf_json_obj();
        e = fill(d, r->devices[i]);
        enum skf_err pushed = skf_json_push(list, d);
        e = e == SKF_OK ? pushed : e;
    }
    enum skf_err set = skf_json_set(j, "devices", list);
    e = e == SKF_OK ? set : e;
    return skf_json_finish(e, j);
}

/* What a box may say of itself (docs/architecture.md, the agent's states). */
static bool is_phase(const char *s)
{
    static const char *const phases[] = {"idle",     "verifying", "fetching",  "staged",   "checking",
                                         "watching", "confirmed", "returned", "failed"};
    for (size_t i = 0; i < SKF_COUNT(phases); i++)
        if (strcmp(s, phases[i]) == 0)
            return true;
    return false;
}

static const char *or_dash(const char *s)
{
    return s[0] ? s : "-";
}

static void print_table(const Skiff__V1__DevicesReply *r)
{
    (void)printf("%-20s %-7s %-16s %-12s %-12s %-12s %-10s %9s %10s\n", "DEVICE", "", "MODEL", "VERSION", "TARGET",
                 "PINNED", "PHASE", "CHUNKS", "RECEIVED");
    for (size_t i = 0; i < r->n_devices; i++) {
        const Skiff__V1__DeviceInfo *d = r->devices[i];
        char bytes[16], chunks[48] = "-";
        if (d->chunks_total)
            (void)snprintf(chunks, sizeof chunks, "%llu/%llu", (unsigned long long)d->chunks_done,
                           (unsigned long long)d->chunks_total);
        (void)printf("%-20s %-7s %-16s %-12s %-12s %-12s %-10s %9s %10s\n", d->name, d->online ? "online" : "offline",
                     or_dash(d->model), or_dash(d->version), or_dash(d->target), or_dash(d->pinned), d->phase, chunks,
                     skf_human_bytes(d->bytes_received, bytes));
        if (d->error[0])
            (void)printf("  %s\n", d->error);
    }
}

static bool is_there(const Skiff__V1__DeviceInfo *d, const char *phase)
{
    return strcmp(d->phase, phase) == 0 &&
           (strcmp(phase, "confirmed") != 0 || !d->target[0] || strcmp(d->version, d->target) == 0);
}

static bool is_all_there(const Skiff__V1__DevicesReply *r, const char *phase)
{
    for (size_t i = 0; i < r->n_devices; i++)
        if (!is_there(r->devices[i], phase))
            return false;
    return r->n_devices > 0;
}

/* Asks until every box listed is in the phase waited for. */
static enum skf_err ask(struct devices *x, ProtobufCMessage **answer, struct skf_why *why)
{
    Skiff__V1__DevicesRequest q = SKIFF__V1__DEVICES_REQUEST__INIT;
    struct skf_progress progress = skf_cli_progress("waiting");
    uint64_t end = skf_now_ns() + x->timeout * 1000000000u;
    if (x->name[0])
        q.name = (char *)(uintptr_t)x->name[0];
    for (;;) {
        SKF_TRY(skf_connect_call(&x->c, "ListDevices", &q.base, &skiff__v1__devices_reply__descriptor, answer, why));
        if (!x->wait || is_all_there((Skiff__V1__DevicesReply *)*answer, x->wait))
            return SKF_OK;
        skf_msg_free(*answer);
        *answer = NULL;
        if (is_cancelled(&progress))
            return skf_fail(why, SKF_ERR_CANCELLED, "devices: stopped waiting");
        if (skf_now_ns() > end)
            return skf_fail(why, SKF_ERR_TIMEOUT, "devices: not all are %s after %llu s", x->wait,
                            (unsigned long long)x->timeout);
        skf_sleep_ms(POLL_MS);
    }
}

int skf_verb_devices(int argc, char **argv)
{
    struct devices x = {.timeout = 300};
    size_t n = 0;
    int status;
    const struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&x.c),
        {.name = "--wait",
         .value = "PHASE",
         .help = "wait until every box listed is in this phase; confirmed: and at its target",
         .text = &x.wait},
        {.name = "--timeout", .value = "S", .help = "seconds to wait at most (300)", .number = &x.timeout},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &x.json},
    };
    const struct skf_usage u = {.verb = "devices",
                                .args = "[NAME] [--wait confirmed] [--timeout S] [--json]",
                                .about = "Lists the boxes that ever connected. Phases: idle, verifying, fetching, staged, checking, watching,\n"
                                         "confirmed, returned (went back to the version before), failed.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = x.name,
                                .min_args = 0,
                                .max_args = 1,
                                .n_args = &n};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    const char *wrong = x.wait && !is_phase(x.wait) ? "--wait: no such phase" : x.timeout > TIMEOUT_MAX_S ? "--timeout: too long" : NULL;
    if (wrong)
        return skf_cli_usage("devices", wrong);
    ProtobufCMessage *answer = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_connect_open(&x.c, &why);
    if (e == SKF_OK)
        e = ask(&x, &answer, &why);
    skf_connect_close(&x.c);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    status = SKF_EXIT_OK;
    if (x.json)
        status = print_json((Skiff__V1__DevicesReply *)answer);
    else
        print_table((Skiff__V1__DevicesReply *)answer);
    skf_msg_free(answer);
    return status;
}
