/*
 * Inside of the gateway: links.c (workers' connections), routes.c (which worker gets what), requests.c (from the client's question to its
 * answer), answer.c (the bytes of answers), api.c (the HTTP handlers), metrics.c (what is told of times and workers), let_in.c (keys and what headers say), control.c (the control socket).
 *
 * g->lock guards everything here but what a comment says otherwise; functions whose name ends in _ want it held.
 */
#ifndef SKF_GATEWAY_GATEWAY_PRIV_H
#define SKF_GATEWAY_GATEWAY_PRIV_H

#include <pthread.h>

#include "base/buf.h"
#include "gateway/ask.h"
#include "gateway/gateway.h"
#include "gateway/keys.h"
#include "gateway/times.h"
#include "http/http.h"
#include "proto/local.pb-c.h"

enum {
    GW_ADAPTERS = 64,            /* that are listed of a worker */
    GW_NAME = 129,               /* bytes of a model's or version's name with its NUL */
    GW_PATH = 108,               /* of a Unix socket's */
    GW_LINKS = 64,               /* workers connected, draining ones included */
    GW_OUTBOX = 32 << 20,        /* bytes on their way to one worker */
    GW_TEXT = 4 << 20,           /* of an answer that is not streamed */
    GW_TRIES = 4,                /* times a request is given to a worker */
    GW_CONNECT_MS = 2000,        /* a new worker's hello, when its route is set */
    GW_HELLO_MS = 300,           /* the same when there is no other worker that could go on */
    GW_SEND_MS = 5000            /* a worker that takes nothing for so long has hung */
};

struct gw_frame {
    struct gw_frame *next;
    size_t n;
    uint8_t p[];
};
/* One worker: its place among the routes and its connection, which is made anew while it is wanted. */
/* A worker's keys and values, as it said last. */
struct gw_cache {
    uint64_t memory, pinned, file; /* bytes: of memory, without what is pinned there; of the file */
    uint64_t prompt_tokens, memory_tokens, file_tokens, evicted, spilled, read;
};

struct gw_link {
    struct gw_link *next;
    struct skf_gw *g;
    char model[GW_NAME], version[GW_NAME], socket[GW_PATH];
    char adapters[GW_ADAPTERS][65]; /* that its worker has loaded */
    unsigned n_adapters;
    bool is_routed, is_wanted; /* in the list; or being tried for it */
    bool is_asleep;            /* nobody is there, and need not be */
    unsigned shadow_permille;  /* not 0: answers nobody (shadow.c) */
    struct gw_compared {
        uint64_t requests, tokens, equal, main_tokens, main_us, shadow_tokens, shadow_us;
    } compared;
    size_t order;              /* place in the list */
    bool connected, stop;
    bool is_leaving; /* it was told to quit: finishes what it has */
    unsigned active;
    uint64_t served, failed;
    struct gw_cache cache;
    struct gw_load { /* what the worker said last of itself, asked at times by the metrics */
        uint32_t slots, running, waiting, waiting_tokens, busy_permille;
        uint64_t rss, kv, kv_kept, kv_most, expected_us, steps;
    } load;
    uint64_t probed_ns;
    int fd; /* -1 while not connected; closed by the reader only */
    struct gw_frame *out, **out_end;
    size_t out_bytes;
    pthread_t reader, writer;
    pthread_cond_t work; /* for the writer: a frame, or stop; for the reader: stop */
};

/* One of the answers to a request. */
struct gw_choice {
    bool is_begun, is_over; /* the client's stream has heard of it; it has ended */
    char finish[16];
    unsigned calls; /* of tools */
    uint64_t characters; /* told by tokens with their chances */
    struct skf_buf text, tools, chances[4]; /* of a whole answer; chances: a list, or (not in chats) four */
};
struct gw_req {
    struct gw_req *next;
    uint64_t id; /* of the HTTP request, and on the worker's connection */
    struct skf_http_req *http;
    struct skf_gw_ask ask;
    struct gw_link *link; /* NULL while it waits for one */
    unsigned tries;
    bool is_begun;        /* the client has been sent bytes of an answer */
    bool is_settled;      /* its model was found; before the first routes are set it cannot be */
    int64_t created;
    uint64_t start_ns, first_ns, last_ns, wait_until_ns; /* last: token */
    uint64_t deadline_ns;  /* the client's; 0: none */
    struct gw_key *key;    /* that it counts for; NULL without keys */
    uint64_t spent;        /* tokens of prompt and answer so far */
    struct gw_choice *choices; /* [ask.n] */
    uint32_t prompt_tokens, cached_tokens, tokens, drafted_tokens, accepted_tokens; /* of all answers that have ended */
    struct skf_buf line; /* scratch for one event */
    char version[GW_NAME];
};

struct gw_counts {
    uint64_t requests, ok, client_errors, server_errors, refused, gone, repeated, slow;
    uint64_t prompt_tokens, cached_tokens, drafted_tokens, accepted_tokens, tokens, first_ns, first_count, decode_us, prefill_us;
};

struct skf_gw {
    struct skf_http *http;
    unsigned max_requests, wait_ms;
    char listen[80], run_id[17];
    pthread_mutex_t lock;
    pthread_cond_t changed; /* links connecting, requests ending, stop: for set_routes, the keeper and close */
    struct gw_link *links;
    struct gw_req *reqs;
    struct gw_shadow *shadows;
    unsigned n_reqs, n_waiting;
    bool stop;
    struct gw_counts counts;
    struct gw_times times;
    struct gw_turns turns;
    struct gw_key *keys;
    char keys_path[4096]; /* "": whoever reaches the port may ask */
    bool has_routes; /* they were set once at least */
    unsigned hold_ms;
    struct gw_alias {
        char name[GW_NAME], model[GW_NAME];
    } aliases[SKF_GW_ALIASES];
    size_t n_aliases;
    uint64_t swap_pause_us, pause_from_ns; /* pause_from_ns: a changed route that no worker serves yet */
    pthread_mutex_t setting; /* held over a whole set_routes */
    pthread_t keeper, controller;
    bool has_keeper, has_controller;
    int control_fd, control_stop[2];
    char control_path[GW_PATH];
};

/* links.c */
SKF_MUST enum skf_err skf_gw_link_new_(struct skf_gw *g, const struct skf_gw_route *r, struct gw_link **l, struct skf_why *why);
SKF_MUST enum skf_err skf_gw_link_send_(struct gw_link *l, const void *frame, size_t n); /* LIMIT, NOMEM, NET */
void skf_gw_link_cancel_(struct gw_link *l, uint64_t id);
void skf_gw_link_free(struct gw_link *take_l); /* taken off the list; without the lock */

/* routes.c */
struct gw_link *skf_gw_pick_(struct skf_gw *g, const char *model);
bool is_gw_model_(const struct skf_gw *g, const char *model); /* NULL: any at all */
const char *skf_gw_alias_(const struct skf_gw *g, const char *name); /* the model that it stands for; NULL: it is no alias */
const char *skf_gw_only_model_(const struct skf_gw *g); /* when exactly one is routed; otherwise NULL */
void skf_gw_pause_over_(struct skf_gw *g, const struct gw_link *l); /* a routed link has connected */
SKF_MUST enum skf_err skf_gw_status_pack(struct skf_gw *g, uint64_t id, const char *error, uint8_t **p, size_t *n);

/* requests.c */
void skf_gw_ask_new(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_ask *take_ask);
void skf_gw_started_(struct gw_link *l, const Skiff__V1__Started *s);
void skf_gw_gone(void *g, uint64_t id);
void skf_gw_link_up_(struct gw_link *l);
void skf_gw_link_down_(struct gw_link *l);
void skf_gw_token_(struct gw_link *l, const Skiff__V1__Token *t);
void skf_gw_finished_(struct gw_link *l, const Skiff__V1__Finished *f);
void skf_gw_wait_over_(struct skf_gw *g, uint64_t now, uint64_t *next); /* the next deadline, UINT64_MAX when none */
void skf_gw_drop_all_(struct skf_gw *g);
void skf_gw_settle_(struct skf_gw *g); /* routes were set: requests that came before them find their model, or hear that there is none */

/* shadow.c */
void skf_gw_shadow_(struct skf_gw *g, const struct gw_link *main, const struct skf_gw_ask *ask, uint64_t id);
bool is_gw_shadow_token_(struct gw_link *l, uint64_t id, int32_t token); /* true: it was the shadow's, there is no more to be done with it */
bool is_gw_shadow_finished_(struct gw_link *l, const Skiff__V1__Finished *f);
/* The connection is gone, or (id not 0) this request of it: there is nothing to compare any more. */
void skf_gw_shadow_gone_(struct skf_gw *g, const struct gw_link *l, uint64_t id);

/* answer.c: all give what http's calls give */
SKF_MUST enum skf_err skf_gw_put_begin(struct skf_gw *g, struct gw_req *r);
SKF_MUST enum skf_err skf_gw_put_token(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Token *t); /* streamed, or kept for the end */
SKF_MUST enum skf_err skf_gw_put_choice_end(struct skf_gw *g, struct gw_req *r, struct gw_choice *c);
SKF_MUST enum skf_err skf_gw_put_end(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f); /* f: of the last answer */
SKF_MUST enum skf_err skf_gw_put_error(struct gw_req *r, const char *type, const char *text);
SKF_MUST enum skf_err skf_gw_reply_whole(struct skf_gw *g, struct gw_req *r, const Skiff__V1__Finished *f);
void skf_gw_choices_clear(struct gw_req *r); /* nothing was said; their memory goes */
/* An error answer; when it cannot be made the connection is cut. retry_after 0 for none. */
void skf_gw_reply_refusal(struct skf_http_req *http, const struct skf_gw_refusal *no, unsigned retry_after);

/* let_in.c. Whether the request's key is one of the file's, and what its headers say beside the body: a refusal otherwise. */
bool is_gw_let_in(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_refusal *no);
bool is_gw_headers_taken(struct skf_gw *g, struct skf_http_req *http, struct skf_gw_ask *ask, struct skf_gw_refusal *no);
/* Counts the request for its key (*key NULL without keys) and tells what is left of its limits in the answer's headers. */
bool is_gw_counted_(struct skf_gw *g, struct skf_http_req *http, const char *model, struct gw_key **key, struct skf_gw_refusal *no, unsigned *retry_after);

/* metrics.c */
void skf_gw_health_(struct gw_link *l, const Skiff__V1__Health *h);
void skf_gw_ask_load_(struct skf_gw *g); /* of workers that have not been asked for half a second; the answers come later */
SKF_MUST enum skf_err skf_gw_put_load_(struct skf_buf *b, const struct skf_gw *g);

/* api.c */
SKF_MUST enum skf_err skf_gw_api_open(struct skf_gw *g, const struct skf_gw_opts *o, struct skf_why *why);

/* control.c */
SKF_MUST enum skf_err skf_gw_control_open(struct skf_gw *g, const char *path, struct skf_why *why);
void skf_gw_control_close(struct skf_gw *g);

/* cache.c, with the lock: what a worker said of its keys and values (NULL: nothing); the metrics of all. */
void skf_gw_cache_seen_(struct gw_link *l, const Skiff__V1__CacheState *c);
SKF_MUST enum skf_err skf_gw_put_cache_(struct skf_buf *b, const struct skf_gw *g);
/* api.c: model="..",version="..",socket=".." of a metric's worker. */
SKF_MUST enum skf_err skf_gw_put_worker(struct skf_buf *b, const struct gw_link *l);

#endif
