/*
 * The box's local API: HTTP in front of workers, each one version of a model behind a Unix socket (proto/local.proto).
 *
 * Endpoints: POST /v1/chat/completions and /v1/completions (whole, or streamed by server-sent events), GET /v1/models, /health,
 * /metrics; errors in the shape of OpenAI's API; the header x-skiff-version and the field system_fingerprint say which version answered.
 *
 * Routes say which worker gets the new requests of a model: the first of the model that is connected.  A worker taken off the list
 * finishes what it runs and is then let go.  A request of which no byte has been answered when its worker dies is repeated, waiting a
 * while for a worker to appear; one that has been begun gets an error event and the end of its stream.
 *
 * Threads: the HTTP server's two; two a worker (one reads, one writes, so that a worker that hangs holds up nobody); the control
 * socket's; a keeper for deadlines and clean-up.  One mutex guards all of the gateway's state and is never held over a blocking call.
 */
#ifndef SKF_GATEWAY_GATEWAY_H
#define SKF_GATEWAY_GATEWAY_H

#include "base/err.h"

struct skf_gw;
struct skf_gw_opts {
    const char *listen;    /* "127.0.0.1:8080" */
    const char *unix_path; /* a Unix socket that the same is served on; NULL: none */
    const char *cert, *key; /* PEM files for TLS on `listen`; NULL: HTTP */
    const char *control;   /* path of the control socket; NULL for none */
    unsigned max_requests; /* not yet ended, waiting ones included; more are answered 429. 0 for 128 */
    unsigned wait_ms;      /* a request waits so long for a worker; 0 for 10,000 */
    const char *keys;      /* file of the keys that may ask (gateway/keys.h); NULL: whoever reaches the port */
};
SKF_MUST enum skf_err skf_gw_open(const struct skf_gw_opts *o, struct skf_gw **g, struct skf_why *why);
void skf_gw_close(struct skf_gw *take_g); /* cuts what runs; NULL is fine */
/* Reads the file of keys anew. When it cannot be taken, the line says why and the keys stay as they were; nothing without such a file. */
SKF_MUST enum skf_err skf_gw_reload_keys(struct skf_gw *g, struct skf_why *why);
/* Prints a new key on stdout, and the line for the file below it. */
SKF_MUST enum skf_err skf_gw_print_key(const char *name, struct skf_why *why);
unsigned skf_gw_port(const struct skf_gw *g);

struct skf_gw_route {
    const char *model, *version, *socket;
    bool is_held;   /* nobody is there yet: requests of the model wait, also where a worker of it could go on */
    bool is_asleep; /* held, and not to be told as not well */
    unsigned shadow_permille; /* not 0: gets copies of that share of the model's greedy requests, which others answer */
};
struct skf_gw_alias {
    const char *name, *model;
};
#define SKF_GW_ALIASES 64
/* Other names that models are asked for by, in place of those before, and how long requests wait for a worker (the longer of this and the
 * gateway's own). SKF_ERR_ARG, SKF_ERR_LIMIT: nothing is changed. */
SKF_MUST enum skf_err skf_gw_set_names(struct skf_gw *g, const struct skf_gw_alias *aliases, size_t n, unsigned wait_ms, struct skf_why *why);
/*
 * Replaces all routes at once. A worker that is new is connected first, for at most 2 s: when it does not answer while the model's
 * present one does, nothing is changed (SKF_ERR_NET); when there is no present one, the route stands and is connected as soon as the
 * worker is there. SKF_ERR_ARG for a name or path that cannot be.
 */
SKF_MUST enum skf_err skf_gw_set_routes(struct skf_gw *g, const struct skf_gw_route *routes, size_t n, struct skf_why *why);

#endif
