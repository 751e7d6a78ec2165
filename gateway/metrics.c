/* What /metrics tells of times, workers and keys. Workers say how full they are when they are asked, and are asked when somebody looks. */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"
#include "proto/msg.h"

enum { ASK_AGAIN_NS = 500000000 };

void skf_gw_health_(struct gw_link *l, const Skiff__V1__Health *h)
{
    l->load = (struct gw_load){h->slots, h->running, h->waiting, h->waiting_tokens, h->busy_permille, h->rss_bytes, h->kv_bytes, h->kv_kept_bytes,
                               h->kv_most_bytes, h->expected_us, h->steps};
}

void skf_gw_ask_load_(struct skf_gw *g)
{
    uint64_t now = skf_now_ns();
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    Skiff__V1__Probe probe = SKIFF__V1__PROBE__INIT;
    probe.is_light = true;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_PROBE;
    m.probe = &probe;
    for (struct gw_link *l = g->links; l; l = l->next) {
        uint8_t *p = NULL;
        size_t n = 0;
        if (!l->connected || now - l->probed_ns < ASK_AGAIN_NS)
            continue;
        l->probed_ns = now;
        if (skf_msg_pack(&m.base, &p, &n) == SKF_OK)
            (void)!skf_gw_link_send_(l, p, n); /* an old figure is told then */
        skf_free(p);
    }
}

static double load_of(const struct gw_load *l, size_t i)
{
    const double all[] = {l->slots, l->running, l->waiting, l->waiting_tokens, l->busy_permille / 1000.0, (double)l->expected_us / 1e6, (double)l->rss,
                          (double)l->kv, (double)l->kv_kept, (double)l->kv_most};
    return all[i];
}

static enum skf_err put_loads(struct skf_buf *b, const struct skf_gw *g)
{
    static const struct {
        const char *name, *help;
    } all[] = {{"slots", "Generations that the worker runs at once."},
               {"running", "Generations that it runs."},
               {"waiting", "Generations that wait in it."},
               {"waiting_tokens", "Tokens of the prompts that wait in it."},
               {"busy_ratio", "Share of the last second in which it computed."},
               {"expected_seconds", "Time until a request that comes now would begin."},
               {"resident_bytes", "Memory of the process."},
               {"kv_bytes", "Keys and values."},
               {"kv_kept_bytes", "Of these, kept for prompts to come."},
               {"kv_limit_bytes", "Bound of keys and values; 0 for none."}};
    for (size_t i = 0; i < SKF_COUNT(all); i++) {
        SKF_TRY(skf_buf_printf(b, "# HELP skiff_worker_%s %s\n# TYPE skiff_worker_%s gauge\n", all[i].name, all[i].help, all[i].name));
        for (const struct gw_link *l = g->links; l; l = l->next) {
            SKF_TRY(skf_buf_printf(b, "skiff_worker_%s{", all[i].name));
            SKF_TRY(skf_gw_put_worker(b, l));
            SKF_TRY(skf_buf_printf(b, "} %.9g\n", load_of(&l->load, i)));
        }
    }
    return SKF_OK;
}

static enum skf_err put_keys(struct skf_buf *b, const struct skf_gw *g)
{
    static const char *const names[][2] = {{"key_requests_total", "Requests of a key that were taken."},
                                           {"key_refused_total", "Requests of a key that its limits refused."},
                                           {"key_tokens_total", "Tokens of prompts and answers of a key."}};
    for (size_t i = 0; g->keys && i < SKF_COUNT(names); i++) {
        SKF_TRY(skf_buf_printf(b, "# HELP skiff_%s %s\n# TYPE skiff_%s counter\n", names[i][0], names[i][1], names[i][0]));
        for (const struct gw_key *k = g->keys; k; k = k->next)
            SKF_TRY(skf_buf_printf(b, "skiff_%s{key=\"%s\"} %" PRIu64 "\n", names[i][0], k->name, i == 0 ? k->asked : i == 1 ? k->refused : k->spent));
    }
    return SKF_OK;
}

enum skf_err skf_gw_put_load_(struct skf_buf *b, const struct skf_gw *g)
{
    const struct gw_times *t = &g->times;
    SKF_TRY(put_loads(b, g));
    SKF_TRY(put_keys(b, g));
    SKF_TRY(skf_gw_hist_put(b, "time_to_first_token_seconds", "From the request to its first token.", &t->first));
    SKF_TRY(skf_gw_hist_put(b, "time_between_tokens_seconds", "Between two tokens of an answer.", &t->between));
    SKF_TRY(skf_gw_hist_put(b, "queue_seconds", "From coming to the worker to beginning there.", &t->queue));
    SKF_TRY(skf_gw_hist_put(b, "prefill_seconds", "From beginning to the prompt's end.", &t->prefill));
    return skf_gw_hist_put(b, "request_seconds", "From the request to the end of its answer.", &t->whole);
}
