/* Where the time of requests went: histograms of fixed buckets for /metrics, and the rate at which places become free. */
#ifndef SKF_GATEWAY_TIMES_H
#define SKF_GATEWAY_TIMES_H

#include "base/buf.h"

enum { GW_BUCKETS = 15 };
struct gw_hist {
    uint64_t count[GW_BUCKETS + 1], sum_ns; /* the last: more than any bound */
};
void skf_gw_hist_add(struct gw_hist *h, uint64_t ns);
/* As Prometheus wants it (text format 0.0.4): name_bucket{le="..."} up to each bound, name_sum in seconds, name_count. */
SKF_MUST enum skf_err skf_gw_hist_put(struct skf_buf *b, const char *name, const char *help, const struct gw_hist *h);

/* What a request's time went into; nanoseconds. */
struct gw_times {
    struct gw_hist first, between, queue, prefill, whole;
};

/* When refused clients should come back: places that become free are given out one behind the other, so that not all come at once. */
struct gw_turns {
    uint64_t last_ns, each_ns; /* the last end of a request; between two, smoothed, while others were under way */
    uint64_t next_ns;          /* the place that is given out next */
};
/* A request that came at begun_ns has ended while others were under way. */
void skf_gw_turns_end(struct gw_turns *t, uint64_t now, uint64_t begun_ns);
/* Seconds after which one that is refused now should try again, from 1 to 120; least_ns: not before (what the worker expects; 0: unknown). */
unsigned skf_gw_turns_next(struct gw_turns *t, uint64_t now, uint64_t least_ns);

#endif
