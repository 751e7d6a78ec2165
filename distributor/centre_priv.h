/* What the parts of the running distributor share: devices and sessions under one lock, the dispatcher, publications
 * that wait. */
#ifndef SKF_DISTRIBUTOR_CENTRE_PRIV_H
#define SKF_DISTRIBUTOR_CENTRE_PRIV_H

#include <limits.h>
#include <pthread.h>

#include "distributor/assign.h"
#include "distributor/builder.h"
#include "distributor/centre.h"
#include "distributor/chunks.h"
#include "distributor/feed.h"
#include "distributor/registry.h"
#include "distributor/signer.h"
#include "proto/fleet.pb-c.h"
#include "proto/operator.pb-c.h"
#include "wire/wire.h"

#define SKF_DEVICES_MAX 200000

struct session;

struct device {
    struct skf_reg_device d;
    struct session *session; /* NULL while offline */
    bool is_changed;         /* to be written */
    bool is_asking;          /* what to tell it must be decided anew */
    bool is_waiting;         /* for a delta */
};

/* One session with an agent. `feed` belongs to the stream's callbacks, everything else to the centre's lock. */
struct session {
    struct skf_centre *centre;
    struct skf_wire_stream *stream;
    char name[SKF_REG_DEVICE];
    struct device *device; /* NULL before Hello, and when a newer session took its place */
    struct {
        char model[SKF_REG_NAME], id[SKF_REG_ID], version[SKF_REG_NAME];
        bool is_under_way;
    } sent[SKF_REG_WORK_MAX];
    size_t n_sent;
    struct skf_feed *feed;
};

struct publication; /* publish.c */

struct skf_centre {
    char dir[PATH_MAX], fleet[65];
    struct skf_registry *registry;
    struct skf_chunks *chunks;
    struct skf_signer *signer;
    struct skf_builder *builder;
    struct skf_feeds *feeds;
    char deltas[PATH_MAX]; /* their folder, with its slash */
    struct skf_wire_server *server, *enrol_server;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t dispatcher;
    bool has_lock, has_dispatcher;
    bool is_ending, is_woken, is_all; /* is_all: every device must be decided anew */
    struct device **devices;          /* in order of name */
    size_t n_devices, cap_devices;
    struct publication *publications; /* that wait for deltas */
    pthread_mutex_t publish_lock;     /* one Finish at a time */
};

/* ---- with the lock held ---------------------------------------------------------------------------------------- */
struct device *skf_centre_find(struct skf_centre *c, const char *name);
/* Finds or makes; NULL when there is no memory or too many. */
struct device *skf_centre_take(struct skf_centre *c, const char *name);
/* Has the dispatcher look: at this device, or at all of them (NULL). */
void skf_centre_wake(struct skf_centre *c, struct device *d);
struct skf_reg_work *skf_centre_work(struct device *d, const char *model); /* finds or makes; NULL when full */

struct skf_rollout_counts {
    uint32_t devices, confirmed, failed, pending;
    uint64_t bytes;
};
void skf_centre_count(struct skf_centre *c, const struct skf_reg_channel *ch, struct skf_rollout_counts *n);

/* ---- without it ------------------------------------------------------------------------------------------------ */
void *skf_centre_dispatch(void *centre); /* the dispatcher's thread */
/* Has the builder make `to` from each version of the model that a device runs, and from nothing. */
void skf_centre_build_for(struct skf_centre *c, const char *model, const uint8_t to[SKF_DIGEST]);
void skf_centre_on_build(void *centre, const struct skf_build_event *ev);
void skf_publish_on_build(struct skf_centre *c, const struct skf_build_event *ev);
/* Removes a version that nobody has to do with, and what only it needed (SKF_ERR_BUSY, naming who has); with is_dry only
 * says what that would be. */
struct skf_removal {
    uint64_t chunks, chunk_bytes, deltas, delta_bytes;
};
SKF_MUST enum skf_err skf_centre_remove(struct skf_centre *c, const char *model, const char *version, bool is_dry,
                                        struct skf_removal *out, struct skf_why *why);
/* Removes the files that are noted to be in nobody's use; what cannot be removed now stays noted. No version comes
 * meanwhile: the publish lock is held, or nothing is open yet. */
void skf_centre_clear(struct skf_centre *c);
/* SKF_ERR_REFUSED unless the identity is of this fleet and kind; gives the name. */
SKF_MUST enum skf_err skf_centre_admit(const struct skf_centre *c, const char *identity, int kind, char name[65],
                                       struct skf_why *why);
SKF_MUST enum skf_err skf_centre_send(struct skf_wire_stream *s, const ProtobufCMessage *m);

/* The methods of each service. */
extern const struct skf_wire_method skf_session_method, skf_publish_method;
size_t skf_operator_methods(struct skf_centre *c, struct skf_wire_method *out, size_t max);

#endif
