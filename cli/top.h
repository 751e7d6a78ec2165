/*
 * What `skiff top` shows: a gateway's /metrics, read by name, and what two readings some seconds apart say together.  top_read.c has
 * the reading and the arithmetic, verb_top.c the terminal.
 */
#ifndef SKF_CLI_TOP_H
#define SKF_CLI_TOP_H

#include "base/buf.h"
#include "base/json.h"

enum { TOP_WORKERS = 64, TOP_BUCKETS = 32, TOP_NAME = 129, TOP_BYTES = 4 << 20 };

struct top_hist {
    double le[TOP_BUCKETS], count[TOP_BUCKETS]; /* seconds; how many took that or less */
    size_t n;
};
struct top_worker {
    char model[TOP_NAME], version[TOP_NAME], socket[TOP_NAME];
    double up, active, served, failed, slots, waiting, busy, rss, kv, kv_kept;
};
struct top_reading {
    uint64_t at_ns;
    double requests, ok, refused, server_errors, active, waiting, prompt_tokens, cached_tokens, tokens, swap_pause, connections;
    struct top_hist first, between;
    struct top_worker workers[TOP_WORKERS];
    size_t n_workers;
};
/* Reads the text format of Prometheus; names that are not known are passed over. SKF_ERR_FORMAT for what is no such text. */
SKF_MUST enum skf_err skf_top_read(const char *text, size_t n, struct top_reading *r, struct skf_why *why);

struct top_view {
    double tokens_per_s, requests_per_s, prompt_per_s; /* of the interval; 0 with one reading */
    double first_p50, first_p99, between_p50, between_p99; /* seconds, by the bucket in which they lie; NAN: none came */
    double cache_share;                               /* of prompt tokens; NAN: none */
};
/* Between two readings (NULL: since the gateway began). A counter that fell, because the gateway was started anew, counts from 0. */
void skf_top_view(const struct top_reading *before, const struct top_reading *now, struct top_view *v);
/* The quantile q, between its bucket's bounds as if evenly spread; NAN when there are none. before may be NULL. */
double skf_top_quantile(const struct top_hist *before, const struct top_hist *now, double q);

#endif
