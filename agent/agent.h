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
    unsigned watch_seconds; /* a new version serves this long before it is confirmed */
    /* Called once the local API listens, with its address. May be NULL. */
    void (*listening)(void *ctx, const char *address);
    void *ctx;
};

/* Runs until SIGTERM or SIGINT (then SKF_OK: children gone, store closed). Fails only when nothing can be served at all: the
 * folder, the store, the programs. A centre that is out of reach is no failure. */
SKF_MUST enum skf_err skf_agent_run(const struct skf_agent_opts *o, struct skf_why *why);

/* Opens the store of an agent's folder (running or not), hashes all of it, and tells versions and slots:
 * {"versions": [{"model", "version", "root", "size", "layout_bytes", "layout_error"}], "models": {"m": {"active": "1", "previous": …, "phase": …, …}}}. */
SKF_MUST enum skf_err skf_agent_check_store(const char *dir, skf_json **out, struct skf_why *why);

#endif
