/* What the worker's files share: worker.c steps and opens, worker_conn.c has the connections, worker_gen.c what is generated for them, worker_say.c the frames that go out. */
#ifndef SKF_RUNTIME_WORKER_PRIV_H
#define SKF_RUNTIME_WORKER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/digest.h"
#include "proto/local.pb-c.h"
#include "runtime/worker.h"

enum {
    WORKER_CONNS = 16,
    WORKER_OUTBOX = 4 << 20, /* bytes that a peer has not read; more and it is hung up on */
    WORKER_WARM_TEXTS = 64,
    WORKER_SEND_MS = 10000   /* a peer that takes nothing for so long is gone */
};

struct worker_frame {
    struct worker_frame *next;
    size_t n;
    uint8_t p[];
};

struct worker_warm;

/* A generation that the engine has been given, until its finish. */
struct worker_gen {
    struct worker_gen *next;
    struct worker_warm *warm; /* NULL: it generates */
    struct worker_answer *answer; /* NULL: it warms */
    struct worker_conn *conn;
    uint64_t id, handle;
    bool is_submitted; /* handle is valid */
    bool is_cancelled; /* the engine has been told */
};

struct worker_conn {
    struct worker_conn *next;
    struct worker *w;
    int fd;
    unsigned refs;  /* its reader's, and one a generation */
    bool dead;      /* takes nothing more; what ran for it is cancelled */
    bool closing;   /* is to be closed when the outbox is empty */
    struct worker_frame *out, **out_end;
    size_t out_bytes;
    pthread_t writer;
    pthread_cond_t work;
    uint64_t probe; /* number of the probe that waits for an answer */
    bool has_probe, is_probe_light;
};

struct worker {
    struct skf_engine *engine;
    char model[129], version[129];
    int listen_fd, signal_fd, parent_fd, stop[2];
    pthread_t acceptor;
    bool has_acceptor;
    /* Everything below and in the structures above. Never held over a call of the engine, which calls back under its own locks. */
    pthread_mutex_t lock;
    pthread_cond_t idle; /* a connection has gone */
    struct worker_conn *conns;
    struct worker_gen *gens;
    unsigned n_conns, n_gens;
    bool serving;  /* the model is loaded */
    bool quitting; /* takes no new generations */
    bool hurry;    /* and what runs is cancelled */
};

/* worker_say.c: with w->lock held; a connection that cannot take a frame becomes dead */
void skf_worker_say_(struct worker_conn *c, const Skiff__V1__FromWorker *m);
void skf_worker_say_token_(struct worker_conn *c, Skiff__V1__Token *t, const char *text, size_t n); /* all but its text is there */
void skf_worker_say_finished_(struct worker_conn *c, uint64_t id, uint32_t choice, bool is_more, const struct skf_finish *f);
void skf_worker_say_warmed_(struct worker_conn *c, uint64_t id, uint32_t tokens, uint32_t cached, enum skf_err e, const char *error);
void skf_worker_say_health_(struct worker_conn *c, bool is_hello, uint64_t id, enum skf_err e, const char *error);
void skf_worker_hang_up_(struct worker_conn *c);

/* worker_adapters.c, without the lock */
enum { WORKER_ADAPTERS = 64 };
struct worker_names {
    char names[WORKER_ADAPTERS][SKF_ADAPTER_NAME];
    char *list[WORKER_ADAPTERS];
};
SKF_MUST enum skf_err skf_worker_adapters(struct worker *w, const struct skf_worker_opts *o, struct skf_why *why);
const char *skf_worker_adapter_of(const struct worker *w, const Skiff__V1__Generate *g); /* "": none */
size_t skf_worker_adapter_names(struct worker *w, struct worker_names *x); /* may be called with the lock */
void skf_worker_change_adapters(struct worker_conn *c, uint64_t id, const char *name, const char *path); /* loads; path NULL: unloads; and answers */

/* worker_conn.c */
void *skf_worker_write_loop(void *conn);
void *skf_worker_read_loop(void *conn);
void *skf_worker_accept_loop(void *worker);
void skf_worker_conn_put_(struct worker_conn *c); /* drops one reference */
/* A generation becomes one of its connection's, unless its number runs already or the worker is leaving; the engine has it; it is over (with the lock). */
SKF_MUST enum skf_err skf_worker_gen_take(struct worker_conn *c, struct worker_gen *gen, struct skf_why *why);
void skf_worker_gen_note(struct worker_conn *c, const struct worker_gen *gen, uint64_t id, uint64_t handle);
void skf_worker_gen_free_(struct worker *w, struct worker_gen *gen);
void skf_worker_cancel_all(struct worker *w);

/* worker_begin.c: what is warm before anybody asks, from o->warm and o->cache_file. `model` names the model's bytes. What cannot be had costs
 * time later, not answers: it is logged. SKF_ERR_NOT_FOUND and the like for a text that cannot be read. */
SKF_MUST enum skf_err skf_worker_begin_warm(struct worker *w, const struct skf_worker_opts *o, const uint8_t model[SKF_DIGEST], struct skf_why *why);

/* worker_gen.c */
void skf_worker_generate(struct worker_conn *c, Skiff__V1__ToWorker *m); /* may keep m->generate, and then takes it out of m */
void skf_worker_refuse(struct worker_conn *c, uint64_t id, enum skf_err e, const char *text);
void skf_worker_answer_free(struct worker_answer *a);

/* worker_warm.c */
void skf_worker_warm(struct worker_conn *c, const Skiff__V1__Warm *m);
void skf_worker_warm_refuse(struct worker_conn *c, uint64_t id, enum skf_err e, const char *text);
void skf_worker_warm_free(struct worker_warm *x);

#endif
