/* Histograms and turns: see times.h. */
#include "gateway/times.h"

#include <inttypes.h>

#include "base/util.h"

#define SECOND_NS 1000000000ull

static const struct {
    uint64_t ns;
    const char *text;
} bounds[GW_BUCKETS] = {{1000000, "0.001"},       {2500000, "0.0025"},      {5000000, "0.005"},      {10000000, "0.01"},   {25000000, "0.025"},
                        {50000000, "0.05"},       {100000000, "0.1"},       {250000000, "0.25"},     {500000000, "0.5"},   {1000000000, "1"},
                        {2500000000, "2.5"},      {5000000000, "5"},        {10000000000, "10"},     {30000000000, "30"},  {60000000000, "60"}};

void skf_gw_hist_add(struct gw_hist *h, uint64_t ns)
{
    size_t i = 0;
    while (i < GW_BUCKETS && ns > bounds[i].ns)
        i++;
    h->count[i]++;
    h->sum_ns += ns;
}

enum skf_err skf_gw_hist_put(struct skf_buf *b, const char *name, const char *help, const struct gw_hist *h)
{
    uint64_t sum = 0;
    SKF_TRY(skf_buf_printf(b, "# HELP skiff_%s %s\n# TYPE skiff_%s histogram\n", name, help, name));
    for (size_t i = 0; i <= GW_BUCKETS; i++) {
        sum += h->count[i];
        SKF_TRY(skf_buf_printf(b, "skiff_%s_bucket{le=\"%s\"} %" PRIu64 "\n", name, i < GW_BUCKETS ? bounds[i].text : "+Inf", sum));
    }
    return skf_buf_printf(b, "skiff_%s_sum %.9g\nskiff_%s_count %" PRIu64 "\n", name, (double)h->sum_ns / 1e9, name, sum);
}

void skf_gw_turns_end(struct gw_turns *t, uint64_t now, uint64_t begun_ns)
{
    uint64_t from = SKF_MAX(t->last_ns, begun_ns), each = now - SKF_MIN(from, now);
    t->each_ns = t->each_ns ? t->each_ns - t->each_ns / 8 + each / 8 : SKF_MAX(each, 1);
    t->last_ns = now;
}

unsigned skf_gw_turns_next(struct gw_turns *t, uint64_t now, uint64_t least_ns)
{
    uint64_t each = t->each_ns ? t->each_ns : SECOND_NS, from = SKF_MAX(t->next_ns, now);
    t->next_ns = SKF_MIN(from + each, now + 120 * SECOND_NS);
    uint64_t wait = SKF_MAX(t->next_ns - now, least_ns);
    return (unsigned)SKF_MAX(1, SKF_MIN((wait + SECOND_NS - 1) / SECOND_NS, 120));
}
