/*
 * The worker: one version of a model, behind a Unix socket that speaks proto/local.proto.  Text comes in, tokens go out; it has no
 * network and no keys.
 *
 * One thread steps the engine; one accepts; two a connection read and write.  What a peer has not read yet is bounded: one that reads
 * too slowly is hung up on, and whatever ran for a lost connection is cancelled.  The socket appears when the model is loaded, so that
 * whoever can connect will be answered.
 */
#ifndef SKF_RUNTIME_WORKER_H
#define SKF_RUNTIME_WORKER_H

#include "runtime/engine.h"

#define SKF_WARM_MOST 16
#define SKF_WORKER_ADAPTERS 64u
struct skf_worker_opts {
    const char *socket;
    const char *file;                       /* a model file; or else */
    const char *store, *model, *version;    /* a version in a store; model and version may also name a file for the hello */
    const char *name;                       /* said in the hello; NULL for the model's, or the file's name without .gguf */
    struct skf_engine_opts engine;
    const char *warm[SKF_WARM_MOST];        /* system prompts that conversations to come begin with, or @ and a file that has one */
    size_t n_warm;
    const char *cache_file;                 /* where what is warm outlives the worker; NULL: nowhere */
    const char *draft;                      /* a small model's file, that guesses; NULL: none */
    const char *adapters[SKF_WORKER_ADAPTERS]; /* NAME=FILE each, loaded before it is ready */
    size_t n_adapters;
    bool parent_death;                      /* end when the parent ends */
    bool is_laying_out;                     /* serve nobody: keep the version's matrices as they are laid out (skf_engine_lay_out) */
};
/* Serves until told to quit (0 running generations left) or ended by SIGTERM or SIGINT, which cancel what runs. `why` names what
 * could not be opened. Blocks those signals in the calling thread and all it starts: call it from the main thread, once. */
SKF_MUST enum skf_err skf_worker_run(const struct skf_worker_opts *o, struct skf_why *why);

#endif
