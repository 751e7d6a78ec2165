/*
 * What the files of agent/ share.
 *
 *   agent.c     the loop: signals, children, timers
 *   box.c       one model's states: from an assignment to confirmed or returned
 *   swap.c      the later half of them: check, swap, watch, confirm, go back
 *   record.c    what of it survives a restart (the store's journal)
 *   install.c   receiving a version: verification; sides.c, fetch.c: payloads into the store, pace.c: how fast
 *   session.c   the link to the distributor; inbox.c: what comes over it; report.c: Hello and State
 *   gateway.c   the gateway process and its control socket; worker.c: workers; spawn.c: fork and exec
 *   layout.c    matrices laid out once and kept; idle.c: models that nobody asks for
 *   shadow.c    an incoming version on a share of the requests; config.c: the configuration file
 *   enrol.c     the first certificate
 *
 * Folders, relative to the agent's (its working folder, which also keeps socket paths short):
 *   tls/ tuf/ store/ run/ (sockets) incoming/ (manifest and index being installed, each as signed; sides of the delta)
 */
#ifndef SKF_AGENT_PRIV_H
#define SKF_AGENT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include <limits.h>

#include "agent/agent.h"
#include "base/buf.h"
#include "base/util.h"
#include "proto/fleet.pb-c.h"
#include "store/store.h"

#define SKF_AGENT_MODELS   8
#define SKF_AGENT_ATTEMPTS 3 /* starts of a version that was not confirmed */
#define SKF_AGENT_PATH     512
#define SKF_AGENT_ID       129
#define SKF_MS             1000000ull /* nanoseconds */
#define SKF_SECOND         (1000 * SKF_MS)

/* ---- assignments and their record ------------------------------------------------------------------------------------ */
struct skf_assign {
    char id[SKF_AGENT_ID], model[SKF_NAME_MAX], version[SKF_NAME_MAX], channel[SKF_NAME_MAX];
    char manifest[SKF_AGENT_PATH], delta[SKF_AGENT_PATH]; /* target paths; delta "" when none is needed */
    bool is_pinned;
};
/* Checks names and paths: the manifest's path is the one of this model and version, the delta's has its form. */
SKF_MUST enum skf_err skf_assign_of(const Skiff__V1__Assign *m, struct skf_assign *a, struct skf_why *why);
bool is_agent_name(const char *s); /* 1 to 128 bytes of [A-Za-z0-9._-] */

/* A model's journal record. */
struct skf_record {
    struct skf_assign assign; /* id "" when there never was one */
    Skiff__V1__Phase phase;
    unsigned attempts; /* starts of the version so far */
    uint64_t bytes;    /* payload bytes received for this assignment */
    uint64_t swap_pause_us;
    enum skf_err err; /* with RETURNED and FAILED */
    char error[256];
};
SKF_MUST enum skf_err skf_record_pack(const struct skf_record *r, char **text, size_t *len);
SKF_MUST enum skf_err skf_record_parse(const void *p, size_t n, struct skf_record *r, struct skf_why *why);
const char *skf_phase_name(Skiff__V1__Phase p); /* "idle", "verifying", ... */
void skf_record_key(const char *model, char key[SKF_NAME_MAX + 2]);
/* SKF_OK and an empty record when there is none. */
SKF_MUST enum skf_err skf_record_load(struct skf_store *s, const char *model, struct skf_record *r, struct skf_why *why);
SKF_MUST enum skf_err skf_record_save(struct skf_store *s, const char *model, const struct skf_record *r,
                                      struct skf_why *why);
/* Slots and record together. */
SKF_MUST enum skf_err skf_record_save_slots(struct skf_store *s, const char *model, const struct skf_slots *slots,
                                            const struct skf_record *r, struct skf_why *why);
/* The names of all models that have slots, in the journal too (a model may have no version yet). */
SKF_MUST enum skf_err skf_models_load(struct skf_store *s, char names[SKF_AGENT_MODELS][SKF_NAME_MAX], size_t *n,
                                      struct skf_why *why);
SKF_MUST enum skf_err skf_models_save(struct skf_store *s, char names[][SKF_NAME_MAX], size_t n, struct skf_why *why);

/* ---- what an installation asks of the centre ---------------------------------------------------------------------------- */
struct skf_range {
    uint64_t first, count;
};
struct skf_payload {
    uint64_t number;
    uint8_t *data; /* the taker's: skf_free */
    size_t n;
};
/* Every call blocks; SKF_ERR_CANCELLED when *cancel became true, SKF_ERR_NET when the link broke (and all that was asked is
 * forgotten), SKF_ERR_TIMEOUT when the centre fell silent, SKF_ERR_REFUSED when it said no. */
struct skf_link {
    void *ctx;
    enum skf_err (*wait)(void *ctx, const atomic_bool *cancel, struct skf_why *why); /* until there is a link */
    enum skf_err (*meta)(void *ctx, const atomic_bool *cancel, const char *name, struct skf_buf *out, struct skf_why *why);
    enum skf_err (*ask)(void *ctx, const char *delta, const struct skf_range *r, size_t n, struct skf_why *why);
    enum skf_err (*chunk)(void *ctx, const atomic_bool *cancel, struct skf_payload *out, struct skf_why *why);
};

/* A rate of download (pace.c); used by the installing thread alone. A NULL one, or one without a rate, never waits. */
struct skf_pace {
    uint64_t rate; /* bytes a second; 0: none */
    uint64_t paid; /* the time that all bytes so far take the rate up to */
};
void skf_pace_begin(struct skf_pace *p, uint64_t now); /* time that passed before counts for nothing */
uint64_t skf_pace_question(const struct skf_pace *p, uint64_t most); /* bytes that are asked for at once, at most */
uint64_t skf_pace_due(const struct skf_pace *p, uint64_t bytes, uint64_t now); /* when these may be asked for, `now` at the earliest */
void skf_pace_charge(struct skf_pace *p, uint64_t bytes, uint64_t now);        /* they are */
SKF_MUST enum skf_err skf_pace_wait(uint64_t until, const atomic_bool *cancel, struct skf_why *why); /* SKF_ERR_CANCELLED */

struct skf_install_progress { /* read by the loop while the installing thread writes */
    atomic_int phase; /* Skiff__V1__Phase */
    atomic_ullong done, total, bytes;
};
struct skf_install {
    struct skf_store *store;
    const char *tuf_dir, *cache_dir;
    struct skf_link link;
    struct skf_assign assign;
    unsigned jobs, share; /* share: percent of each thread's time that decoding may take; 0: all */
    struct skf_pace *pace; /* NULL: as fast as the link is */
    const atomic_bool *cancel;
    struct skf_install_progress *progress;
    bool is_laid_out; /* there must be room for a kept layout too */
};
/* Verifies, fetches and commits one version: with SKF_OK it stands in the store, whole; otherwise the store holds what it held
 * (and chunks that no version names). A broken link is waited out. SKF_ERR_BASE: the delta does not start at a version that is
 * here. */
SKF_MUST enum skf_err skf_install_run(const struct skf_install *in, struct skf_why *why);

/* Its second half, in fetch.c: brings every chunk of the manifest into the store. */
struct skf_skd;
struct skf_plan { /* what the verified manifest says */
    struct skf_store_chunk *chunks;
    uint64_t n_chunks, size;
    uint8_t root[SKF_DIGEST];
};
SKF_MUST enum skf_err skf_fetch_run(const struct skf_install *in, const struct skf_plan *plan, struct skf_skd *skd,
                                    const struct skf_source *source, struct skf_why *why);
/* Brings the sides that are wanted (a byte a side) and puts them into `skd`; they lie in `map` (zeroed before), which stays open while
 * chunks are decoded. */
struct skf_map;
SKF_MUST enum skf_err skf_sides_fetch(const struct skf_install *in, struct skf_skd *skd, const uint8_t *is_wanted,
                                      struct skf_map *map, struct skf_why *why);
void skf_sides_remove(const struct skf_install *in); /* what was kept of them: the version is whole */
/* Is trying the same again later of any use? */
bool is_transient(enum skf_err e);

/* ---- session ---------------------------------------------------------------------------------------------------------- */
struct skf_session;
struct skf_session_opts {
    const char *centre, *tls_dir;
    bool is_open_key_fine;
    int wake_fd; /* an eventfd that is written whenever the loop should look */
};
SKF_MUST enum skf_err skf_session_new(const struct skf_session_opts *o, struct skf_session **s, struct skf_why *why);
void skf_session_free(struct skf_session *s); /* NULL is fine; no other thread may use it any more */
/* Opens the stream when its time has come, `hello` the packed first message (made when asked for), and drops a silent one.
 * Gives back the time at which to call again. */
uint64_t skf_session_tick(struct skf_session *s, uint64_t now,
                          enum skf_err (*hello)(void *ctx, uint8_t **p, size_t *n), void *ctx);
bool is_session_up(struct skf_session *s);
uint64_t skf_session_epoch(struct skf_session *s); /* counts the Welcomes */
/* The next assignment or cancelled assignment id that came; false when there is none. */
bool is_assign_taken(struct skf_session *s, struct skf_assign *a);
bool is_cancel_taken(struct skf_session *s, char id[SKF_AGENT_ID]);
/* Sends a packed AgentMessage; nothing when the link is down. */
void skf_session_send(struct skf_session *s, const uint8_t *p, size_t n);
void skf_session_kick(struct skf_session *s); /* wakes whoever waits in a link call, so that it sees its cancel flag */
struct skf_link skf_session_link(struct skf_session *s);

/* ---- children ----------------------------------------------------------------------------------------------------------- */
/* A child's stderr on its way to ours; its last line of error ("skiff-worker: what: why") is kept. */
struct skf_tap {
    int fd; /* -1 */
    bool is_quiet; /* not passed on: its error becomes ours */
    char line[512], error[256];
    size_t len;
};
void skf_tap_pump(struct skf_tap *t);  /* passes on what is there now */
void skf_tap_close(struct skf_tap *t); /* the child is gone: the rest, then the end */
/* Starts `program` (beside this one) with the arguments, its stdout at *out when out is not NULL, its stderr in the tap. The child
 * dies with us. */
SKF_MUST enum skf_err skf_spawn(const char *program, const char *const *args, pid_t *pid, int *out, struct skf_tap *tap,
                                struct skf_why *why);

enum skf_worker_state {
    SKF_WORKER_WAITING,  /* not running; starts at `next` */
    SKF_WORKER_STARTING, /* running, has not said hello */
    SKF_WORKER_READY,    /* said hello */
    SKF_WORKER_LEAVING,  /* told to quit */
    SKF_WORKER_GONE,     /* left, and is not to come back */
};
struct skf_worker {
    enum skf_worker_state state;
    char model[SKF_NAME_MAX], version[SKF_NAME_MAX], socket[64];
    pid_t pid; /* 0 when not running */
    int fd;    /* our connection; -1 */
    bool is_kept;      /* start it again when it dies */
    unsigned bad;      /* deaths in a row without a long life between */
    uint64_t next, started, ready, deadline;
    uint64_t probe_sent; /* 0: none under way */
    bool has_probed, is_probe_ok;
    uint64_t warm_sent; /* 0: not told how prompts begin */
    bool is_warm;       /* it said that it is, or cannot be */
    uint64_t ping_sent, next_ping, minded; /* ping_sent 0: none under way; minded: the last look at it */
    uint64_t silent, idle, cpu; /* nanoseconds since it owes an answer, of them without work; its processor time at the last look */
    bool is_hung;      /* killed for not answering */
    char error[400];   /* why it died or what its probe said */
    struct skf_tap tap;
};
struct skf_worker *skf_worker_new(const char *model, const char *version, unsigned number, bool is_kept);
/* Starts, connects, reads what came. True when something changed. */
bool is_worker_changed(struct skf_worker *w, uint64_t now, const struct skf_agent_opts *o);
void skf_worker_exited(struct skf_worker *w, int status, uint64_t now);
/* Tells it how prompts begin, once. */
void skf_worker_warm(struct skf_worker *w, const struct skf_agent_opts *o, uint64_t now);
void skf_worker_probe(struct skf_worker *w, uint64_t now);
void skf_worker_quit(struct skf_worker *w, uint64_t now); /* after what it does; killed when that takes too long */
void skf_worker_kill(struct skf_worker *w);
void skf_worker_free(struct skf_worker *take_w); /* kills it if it still runs (the loop reaps); NULL is fine */

struct skf_route {
    const char *model, *version, *socket;
    bool is_held, is_asleep; /* requests of the model wait; and wake it */
    unsigned shadow_permille; /* gets copies of so many, which the others answer */
};
#define SKF_HELD_SOCKET "run/held.sock" /* where nobody ever listens */
#define SKF_HELD_WAIT   120000u         /* ms that requests wait while a version takes another's place */
struct skf_route_status {
    bool is_known;
    uint64_t served, failed;
    uint32_t active, waiting;
    uint64_t compared, compared_tokens, equal_tokens, main_tokens, main_us, shadow_tokens, shadow_us;
};
struct skf_gateway {
    pid_t pid;
    int out, control; /* its stdout until it said where it listens; the control socket; -1 */
    char listen[128]; /* where it shall listen: once known with the port it got */
    bool is_listening;
    unsigned bad;
    uint64_t next, started;
    uint64_t next_look; /* at whether it still answers */
    uint64_t last_id;
    char line[160];
    size_t line_len;
    bool has_listened; /* once at least */
    struct skf_tap tap;
    char path[4][PATH_MAX]; /* absolute: of a Unix socket, a certificate, its key, the API's keys; "": none */
};
/* Before the working folder changes: paths of `o` become absolute. */
SKF_MUST enum skf_err skf_gateway_init(struct skf_gateway *g, const struct skf_agent_opts *o, struct skf_why *why);
/* Starts it, reads its first line, connects to it. True when it became usable just now (routes must be set). */
bool is_gateway_up_now(struct skf_gateway *g, uint64_t now);
bool is_gateway_usable(const struct skf_gateway *g);
void skf_gateway_mind(struct skf_gateway *g, uint64_t now); /* asks it every while; one that hangs is ended, as by any question */
void skf_gateway_exited(struct skf_gateway *g, int status, uint64_t now);
void skf_gateway_stop(struct skf_gateway *g);
/* Blocks up to a few seconds; the connection is dropped (and made anew later) when it fails. */
SKF_MUST enum skf_err skf_gateway_routes(struct skf_gateway *g, const struct skf_route *r, size_t n, const struct skf_agent_opts *o,
                                         uint64_t *pause_us, struct skf_why *why);
SKF_MUST enum skf_err skf_gateway_status(struct skf_gateway *g, const struct skf_route *r, struct skf_route_status *out,
                                         struct skf_why *why);

/* ---- the agent ------------------------------------------------------------------------------------------------------------ */
struct skf_agent;
struct skf_box { /* one model on this box */
    struct skf_agent *agent;
    char model[SKF_NAME_MAX];
    struct skf_slots slots;
    struct skf_record rec;
    struct skf_assign pending;
    bool has_pending;
    bool is_returned_by_centre; /* a watched version is to go back, without blame */
    struct skf_worker *active, *incoming; /* incoming: being checked or watched */
    bool is_new_first;          /* the incoming one gets the requests */
    bool is_held;               /* in place: the old one leaves or has left, requests wait for who comes after it */
    bool is_asleep;             /* held, and its worker not started before somebody asks */
    uint64_t used, next_use;    /* when it was last seen in use; when to look again */
    struct skf_route_status use;
    uint64_t shadow_from;       /* the incoming one is a shadow since; 0: it is none */
    bool has_shadowed;
    uint64_t phase_since, retry_at, next_status, reported;
    uint64_t watch_from; /* the route was set; 0 before */
    unsigned retries;
    struct skf_route_status base; /* of the incoming one's route when its watch began */
    bool has_base;
    bool is_dirty; /* the state is to be reported */
    char laid[SKF_NAME_MAX]; /* the version whose kept layout was seen to */
};
struct skf_laying { /* the worker that lays out matrices */
    pid_t pid; /* 0: none */
    struct skf_tap tap;
    struct skf_box *box;
    char version[SKF_NAME_MAX];
    uint64_t started;
};
struct skf_job { /* the installation under way */
    bool is_running;
    struct skf_box *box;
    pthread_t thread;
    atomic_bool cancel, is_done;
    struct skf_install in;
    struct skf_install_progress progress;
    uint64_t bytes_before, saved; /* of the assignment, before this job; last time it was written to the journal */
    int wake_fd;
    enum skf_err err;
    struct skf_why why;
};
struct skf_agent {
    const struct skf_agent_opts *o;
    struct skf_store *store;
    struct skf_session *session;
    struct skf_gateway gateway;
    struct skf_box box[SKF_AGENT_MODELS];
    size_t n_box;
    struct skf_worker *old[2 * SKF_AGENT_MODELS]; /* leaving */
    size_t n_old;
    struct skf_job job;
    struct skf_laying laying;
    struct skf_pace pace; /* of all installations, one behind the other */
    unsigned next_socket;
    int wake_fd, signal_fd;
    bool is_stopping, has_routes, is_swept;
    uint64_t epoch, started;
};

/* box.c and swap.c */
SKF_MUST enum skf_err skf_box_load(struct skf_agent *a, const char *model, struct skf_box **b, struct skf_why *why);
/* An assignment came: kept until the box can take it. */
void skf_box_assign(struct skf_agent *a, const struct skf_assign *as);
void skf_box_cancel(struct skf_agent *a, const char *id);
void skf_box_step(struct skf_box *b, uint64_t now);
void skf_box_job_done(struct skf_box *b, uint64_t now);
void skf_box_phase(struct skf_box *b, Skiff__V1__Phase p, uint64_t now);
/* Writes slots and record; a failure is logged and given back, and the box stays in its phase. */
SKF_MUST enum skf_err skf_box_save(struct skf_box *b);
void skf_box_keep(struct skf_box *b); /* the same, where the next step does not depend on it */
/* Ends an installation that will not be: slot and worker are dropped, the record says why. */
void skf_box_fail(struct skf_box *b, Skiff__V1__Phase p, enum skf_err e, const char *text, uint64_t now);
void skf_box_confirm(struct skf_box *b, uint64_t now);
void skf_box_check(struct skf_box *b, uint64_t now); /* STAGED, CHECKING */
void skf_box_watch(struct skf_box *b, uint64_t now); /* WATCHING */
void skf_box_hold_over(struct skf_box *b); /* of a swap in place that came to nothing: the old version comes back */
void skf_box_guard(struct skf_box *b, uint64_t now); /* the active version's worker, when it keeps dying */
bool is_box_busy(const struct skf_box *b);

/* agent.c */
void skf_agent_leave(struct skf_agent *a, struct skf_worker *take_w, bool is_killed);
bool is_agent_routed(struct skf_agent *a, uint64_t *pause_us); /* routes as the boxes are now; false when it did not work */
void skf_agent_sweep(struct skf_agent *a); /* versions and chunks that nothing needs, when no installation is under way */

/* shadow.c: compares the incoming version with the active one; an error when they agree too little. */
SKF_MUST enum skf_err skf_box_shadow(struct skf_box *b, bool *is_over, uint64_t now, struct skf_why *why);
/* idle.c: unloads a model that nobody asks for, loads it again for who does. */
void skf_box_idle(struct skf_box *b, uint64_t now);

/* layout.c */
/* Whether the version's kept layout was seen to: made, there already, not wanted or not possible. If not, it is begun as soon as it can be. */
bool is_layout_made(struct skf_box *b, const char *version, uint64_t now);
void skf_layout_turn(struct skf_agent *a, uint64_t now); /* active versions', when there is nothing else to do */
void skf_layout_exited(struct skf_agent *a, int status); /* the child of a->laying */
void skf_layout_stop(struct skf_agent *a);
void skf_layout_collect(struct skf_agent *a); /* removes those of versions that the store does not hold */

/* report.c: packed AgentMessages, freed with skf_free. */
SKF_MUST enum skf_err skf_report_hello(struct skf_agent *a, uint8_t **p, size_t *n);
SKF_MUST enum skf_err skf_report_state(struct skf_box *b, uint8_t **p, size_t *n);

/* enrol.c: makes tls/device.crt when it is not there yet; blocks, trying again while the centre is out of reach. */
SKF_MUST enum skf_err skf_enrol(const struct skf_agent_opts *o, const char *token, struct skf_why *why);

#endif
