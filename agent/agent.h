/*
 * The agent of a box: receives signed versions, verifies and installs them into the store, supervises gateway and workers, swaps,
 * watches, confirms or goes back.  docs/architecture.md draws its states.
 *
 * One thread (the caller's) owns children, slots and the state of every model; a second one, while something is received, does
 * what blocks (verification, fetching, decoding); gRPC's own threads only hand messages over.
 */
#ifndef SKF_AGENT_AGENT_H
#define SKF_AGENT_AGENT_H

#include "base/err.h"
#include "base/json.h"

#define SKF_AGENT_MODEL_OPTS 8
#define SKF_AGENT_ALIASES    8
#define SKF_AGENT_WARM       64
#define SKF_AGENT_TAGS       16
struct skf_agent_model { /* what a configuration says of one model */
    const char *name, *aliases[SKF_AGENT_ALIASES];
    size_t n_aliases;
    unsigned memory; /* MiB of keys and values of its worker; 0: its own choice */
};
struct skf_agent_opts {
    const char *dir;        /* tls/, tuf/, store/, run/, incoming/; the process's working folder becomes this one */
    const char *centre;     /* HOST:PORT of the distributor; NULL: only serve what is there */
    const char *listen;     /* of the local HTTP API; port 0 takes any */
    const char *api_unix;   /* path of a Unix socket that the local API is served on too; NULL: none */
    const char *api_keys;   /* file of those who may ask the local API (gateway/keys.h); NULL: whoever reaches it */
    const char *api_cert, *api_key; /* PEM files: TLS on `listen`; NULL: HTTP. These and api_keys are relative to the folder where the agent was started */
    const char *name;       /* for enrolment; NULL: the machine's host name */
    const char *enrol;      /* HOST:PORT of the enrolment port; used when there is no device certificate yet */
    const char *token_file; /* one-time token for enrolment; NULL: none */
    const char *const *tags; /* for the inventory: "channel=beta" */
    size_t n_tags;
    bool is_init;           /* make `dir` when it is not there; enrolment does so anyway */
    bool is_open_key_fine;  /* a device key that others can read is used all the same */
    unsigned threads;       /* of a worker; 0: its own choice */
    unsigned share;         /* percent of a processor's time that installing takes from inference; 0: all it can */
    uint64_t rate;          /* bytes a second that payloads of updates may take of the link; 0: all it carries */
    const char *repack;     /* "auto", "on", "off", "shared": skf_engine_opts; NULL: auto */
    unsigned context, cache; /* of a worker: tokens, MiB; 0: its own choice */
    const char *const *warm; /* how prompts begin: system messages that workers compute before they are asked */
    size_t n_warm;
    const char *swap;       /* "auto", "side" (the new version beside the old one), "in-place" (in its stead); NULL: auto */
    unsigned shadow_permille;  /* of greedy requests go to a new version too before it answers any; 0: none */
    unsigned shadow_agreement; /* permille of tokens that must be equal; 0: it is only told */
    unsigned shadow_requests, shadow_seconds; /* compared until so many answers, or for so long */
    unsigned idle_seconds;  /* a model that was not asked so long is unloaded until it is; 0: never */
    struct skf_agent_model models[SKF_AGENT_MODEL_OPTS];
    size_t n_models;
    unsigned watch_seconds; /* a new version serves this long before it is confirmed */
    /* Called once the local API listens, with its address. May be NULL. */
    void (*listening)(void *ctx, const char *address);
    void *ctx;
};

/* Runs until SIGTERM or SIGINT (then SKF_OK: children gone, store closed). Fails only when nothing can be served at all: the
 * folder, the store, the programs. A centre that is out of reach is no failure. */
SKF_MUST enum skf_err skf_agent_run(const struct skf_agent_opts *o, struct skf_why *why);

/* A configuration in TOML (skiff-agent(1) lists its keys) read into `o`, whose texts then point into *config: skf_agent_config_free once `o` is
 * used no more. A mistake is named with file, line and key; nothing may be said that is not known. */
struct skf_agent_config;
SKF_MUST enum skf_err skf_agent_config(const char *path, struct skf_agent_opts *o, struct skf_agent_config **config, struct skf_why *why);
void skf_agent_config_free(struct skf_agent_config *config); /* NULL is fine */
/* "500K", "2M": bytes a second, 1,000 to 10^12. For `--rate` too. */
bool is_agent_rate(const char *s, uint64_t *out);
bool is_agent_choice(const char *s, const char *choices); /* one of "a|b|c" */

/* Opens the store of an agent's folder (running or not), hashes all of it, and tells versions and slots:
 * {"versions": [{"model", "version", "root", "size", "layout_bytes", "layout_error"}], "models": {"m": {"active": "1", "previous": …, "phase": …, …}}}. */
SKF_MUST enum skf_err skf_agent_check_store(const char *dir, skf_json **out, struct skf_why *why);

#endif
