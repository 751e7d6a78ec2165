/*
 * What the distributor knows and must not forget: versions, channels with their rollouts, pins, deltas, devices.
 *
 * This header is the only way to it.  The code above sees no database, so that a fleet may keep the same things
 * elsewhere. Here they lie in LMDB (docs/formats.md, "Distributor's registry"): every call that changes something is
 * one durable transaction, so that after a crash at any instant it has happened whole or not at all.  Chunks are not
 * kept here (distributor/chunks.h).
 *
 * Threads: any call from any thread; writers wait for each other.  One process at a time: a second one gets
 * SKF_ERR_BUSY. Callbacks of the _each_ calls run inside a read transaction; they may read the registry, and must not
 * block for long.
 */
#ifndef SKF_DISTRIBUTOR_REGISTRY_H
#define SKF_DISTRIBUTOR_REGISTRY_H

#include "base/digest.h"

#define SKF_REG_NAME     129 /* bytes of a model, version or channel name with its NUL */
#define SKF_REG_DEVICE   65  /* of a device's name */
#define SKF_REG_TAG      129 /* of a tag */
#define SKF_REG_ID       40  /* of an assignment's id */
#define SKF_REG_TAGS_MAX 64
#define SKF_REG_HELD_MAX 64
#define SKF_REG_WORK_MAX 32

struct skf_registry;

SKF_MUST enum skf_err skf_registry_open(const char *dir, struct skf_registry **r, struct skf_why *why);
void skf_registry_close(struct skf_registry *r); /* NULL is fine */

/* 1 to 128 of [A-Za-z0-9._-], and not "." or "..". */
bool is_registry_name(const char *s);

/* ---- versions -------------------------------------------------------------------------------------------------- */
struct skf_reg_version {
    char model[SKF_REG_NAME], version[SKF_REG_NAME];
    uint8_t root[SKF_DIGEST];
    uint64_t size, n_chunks;
    int64_t created;
    uint32_t runtime_level; /* lowest that runs it; 0 for any */
};
/* Whether this content may be published under this name: *is_known when it is already; SKF_ERR_EXISTS when the name has, or
 * had before it was removed, another content. */
SKF_MUST enum skf_err skf_registry_may_add(struct skf_registry *r, const struct skf_reg_version *v, bool *is_known,
                                           struct skf_why *why);
struct skf_reg_adapter;
/* Adds a version with its packed manifest, the adapter that makes it of another one (or NULL) and, where `channel` is not
 * NULL, starts its rollout there. The same content under the same name again changes no version (the manifest of before
 * stays), and still takes the adapter and starts the rollout; another content under the name is SKF_ERR_EXISTS. */
SKF_MUST enum skf_err skf_registry_add_version(struct skf_registry *r, const struct skf_reg_version *v,
                                               const void *manifest, size_t manifest_len,
                                               const struct skf_reg_adapter *adapter, const char *channel,
                                               struct skf_why *why);
SKF_MUST enum skf_err skf_registry_version(struct skf_registry *r, const char *model, const char *version,
                                           struct skf_reg_version *out, struct skf_why *why);
/* The packed manifest; the caller frees *p with skf_free. */
SKF_MUST enum skf_err skf_registry_manifest(struct skf_registry *r, const char *model, const char *version, uint8_t **p,
                                            size_t *n, struct skf_why *why);
/* Some version with this content. */
SKF_MUST enum skf_err skf_registry_by_root(struct skf_registry *r, const uint8_t root[SKF_DIGEST],
                                           struct skf_reg_version *out, struct skf_why *why);
/* In order of model and version; model NULL for all. fn's error stops and is returned. */
SKF_MUST enum skf_err skf_registry_each_version(struct skf_registry *r, const char *model,
                                                enum skf_err (*fn)(void *ctx, const struct skf_reg_version *v),
                                                void *ctx);

/* ---- channels and their rollouts ------------------------------------------------------------------------------- */
enum skf_rollout_state {
    SKF_ROLLOUT_RUNNING,
    SKF_ROLLOUT_PAUSED,
    SKF_ROLLOUT_ABORTED,
    SKF_ROLLOUT_DONE,
    SKF_ROLLOUT_COUNT
};
const char *skf_rollout_state_name(enum skf_rollout_state s); /* running, paused, aborted, done */

struct skf_reg_channel {
    char model[SKF_REG_NAME], channel[SKF_REG_NAME];
    char version[SKF_REG_NAME];  /* what the rollout brings */
    char previous[SKF_REG_NAME]; /* what an abort goes back to; "" for none */
    enum skf_rollout_state state;
    uint64_t serial;  /* of the decision: grows with each start and abort, so that what failed is tried again */
    uint64_t started; /* serial of the start */
    int64_t when;     /* unix seconds of the start */
};
/* Starts a rollout of a known version. Where the channel stands (after an abort: what it went back to) becomes
 * previous; the same version again starts it anew for the boxes where it failed. `out` may be NULL. */
SKF_MUST enum skf_err skf_registry_start(struct skf_registry *r, const char *model, const char *channel,
                                         const char *version, struct skf_reg_channel *out, struct skf_why *why);
enum skf_rollout_act { SKF_ACT_PAUSE, SKF_ACT_RESUME, SKF_ACT_ABORT, SKF_ACT_FINISH };
/* SKF_ERR_STATE for an act that the state does not allow: pause wants running, resume paused, abort anything but
 * aborted, finish running. `out` may be NULL. */
SKF_MUST enum skf_err skf_registry_act(struct skf_registry *r, const char *model, const char *channel,
                                       enum skf_rollout_act act, struct skf_reg_channel *out, struct skf_why *why);
SKF_MUST enum skf_err skf_registry_channel(struct skf_registry *r, const char *model, const char *channel,
                                           struct skf_reg_channel *out, struct skf_why *why);
SKF_MUST enum skf_err skf_registry_each_channel(struct skf_registry *r, const char *model,
                                                enum skf_err (*fn)(void *ctx, const struct skf_reg_channel *c),
                                                void *ctx);

/* ---- pins ------------------------------------------------------------------------------------------------------ */
enum skf_pin_kind { SKF_PIN_FIXED, SKF_PIN_ROLLBACK, SKF_PIN_KINDS };
struct skf_reg_pin {
    char device[SKF_REG_DEVICE], model[SKF_REG_NAME], version[SKF_REG_NAME];
    enum skf_pin_kind kind;
    uint64_t serial; /* given by skf_registry_pin */
};
/* Sets these pins in one transaction (a pin of the same kind is replaced); each version must be known. */
SKF_MUST enum skf_err skf_registry_pin(struct skf_registry *r, const struct skf_reg_pin *pins, size_t n,
                                       struct skf_why *why);
/* Removes both kinds; *had says whether there was one. */
SKF_MUST enum skf_err skf_registry_unpin(struct skf_registry *r, const char *device, const char *model, bool *had,
                                         struct skf_why *why);
/* SKF_ERR_NOT_FOUND when there is none of the kind. */
SKF_MUST enum skf_err skf_registry_get_pin(struct skf_registry *r, const char *device, const char *model,
                                           enum skf_pin_kind kind, struct skf_reg_pin *out);

/* ---- deltas: built and listed in signed metadata --------------------------------------------------------------- */
struct skf_reg_delta {
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST]; /* roots */
    uint64_t bytes;                           /* of the .skd */
    uint64_t index_size;                      /* head and index, the signed part */
    uint8_t sha256[SKF_DIGEST];               /* of the signed part */
};
SKF_MUST enum skf_err skf_registry_add_delta(struct skf_registry *r, const struct skf_reg_delta *d,
                                             struct skf_why *why);
SKF_MUST enum skf_err skf_registry_delta(struct skf_registry *r, const uint8_t from[SKF_DIGEST],
                                         const uint8_t to[SKF_DIGEST], struct skf_reg_delta *out, struct skf_why *why);
/* All that make `to`. */
SKF_MUST enum skf_err skf_registry_each_delta(struct skf_registry *r, const uint8_t to[SKF_DIGEST],
                                              enum skf_err (*fn)(void *ctx, const struct skf_reg_delta *d), void *ctx);

/* ---- adapters: what a publisher says makes `to` of `from`; a hint for the builder, its bytes in the chunk folder -- */
#define SKF_ADAPTER_MAX   (1u << 30) /* bytes of one */
#define SKF_ADAPTER_PIECE (1u << 20) /* it is kept in pieces of this size, the last one shorter */
#define SKF_ADAPTER_SAID  256
struct skf_reg_adapter {
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST]; /* roots */
    uint64_t size;
    uint8_t *digests; /* of the n pieces */
    size_t n;
    char said[SKF_ADAPTER_SAID]; /* "" until the delta is built; then "used", or why it was not */
};
void skf_reg_adapter_clear(struct skf_reg_adapter *a); /* frees the digests, zeroes the rest */
uint32_t skf_reg_adapter_length(const struct skf_reg_adapter *a, uint64_t piece); /* piece < n */
/* SKF_ERR_NOT_FOUND when there is none for the pair. The caller clears it. */
SKF_MUST enum skf_err skf_registry_adapter(struct skf_registry *r, const uint8_t from[SKF_DIGEST],
                                           const uint8_t to[SKF_DIGEST], struct skf_reg_adapter *out,
                                           struct skf_why *why);
/* Notes what became of it, as printable ASCII cut to SKF_ADAPTER_SAID. */
SKF_MUST enum skf_err skf_registry_adapter_said(struct skf_registry *r, const uint8_t from[SKF_DIGEST],
                                                const uint8_t to[SKF_DIGEST], const char *said, struct skf_why *why);

/* In order of the pair. */
SKF_MUST enum skf_err skf_registry_each_adapter(struct skf_registry *r,
                                                enum skf_err (*fn)(void *ctx, const struct skf_reg_adapter *a),
                                                void *ctx);

/* ---- removing: what is left on the disk is noted until somebody has seen to it, so that a crash loses none of it ---- */
struct skf_reg_leftover {
    uint64_t serial;
    uint8_t root[SKF_DIGEST];
    bool is_gone;     /* no version has the root's content any more (as it was removed) */
    uint8_t *digests; /* of n chunks and pieces of adapters, which others may need too */
    size_t n;
    uint8_t *pairs; /* of n_pairs deltas: source root, result root */
    size_t n_pairs;
};
void skf_reg_leftover_clear(struct skf_reg_leftover *l); /* frees the arrays, zeroes the rest */
/* Removes a version, which has these n chunks, and where no other one has its content the deltas and adapters from it and to
 * it. Its name stays taken for its content. SKF_ERR_BUSY, naming it, where a channel or a pin has to do with the version.
 * Gives what is left, also when `is_dry`: then nothing is changed. The caller clears it. */
SKF_MUST enum skf_err skf_registry_remove(struct skf_registry *r, const char *model, const char *version,
                                          const uint8_t *chunks, size_t n, bool is_dry, struct skf_reg_leftover *out,
                                          struct skf_why *why);
/* The first that is noted; SKF_ERR_NOT_FOUND when none is. The caller clears it. */
SKF_MUST enum skf_err skf_registry_leftover(struct skf_registry *r, struct skf_reg_leftover *out, struct skf_why *why);
SKF_MUST enum skf_err skf_registry_leftover_done(struct skf_registry *r, uint64_t serial, struct skf_why *why);

/* ---- devices: what each last said, and what it was told -------------------------------------------------------- */
struct skf_reg_held { /* a version on the box */
    char model[SKF_REG_NAME], version[SKF_REG_NAME], slot[12];
    uint8_t root[SKF_DIGEST];
};
struct skf_reg_work { /* the newest assignment of one model */
    char model[SKF_REG_NAME], target[SKF_REG_NAME], id[SKF_REG_ID];
    uint32_t phase; /* the protocol's Phase */
    uint64_t chunks_done, chunks_total, bytes_received, swap_pause_us;
    char error_class[24], error[256];
    bool has_failed; /* ended without the target running; tried again at retry_at, where that is set */
    bool is_full;    /* the next try is from the empty content: the box's own did not fit */
    uint32_t attempts;
    int64_t retry_at; /* unix seconds; 0 for never */
};
struct skf_reg_device {
    char name[SKF_REG_DEVICE], machine[32], isa[16], agent_version[32];
    int64_t last_seen;
    uint32_t cpus, runtime_level;
    uint64_t memory_bytes, disk_free;
    char (*tags)[SKF_REG_TAG];
    size_t n_tags;
    struct skf_reg_held *held;
    size_t n_held;
    struct skf_reg_work *work;
    size_t n_work;
};
void skf_reg_device_clear(struct skf_reg_device *d); /* frees the arrays, zeroes the rest */
/* Writes these devices in one transaction. */
SKF_MUST enum skf_err skf_registry_put_devices(struct skf_registry *r, const struct skf_reg_device *const *d, size_t n,
                                               struct skf_why *why);
/* fn may take the arrays by zeroing its argument; what it leaves is freed. In order of name. */
SKF_MUST enum skf_err skf_registry_each_device(struct skf_registry *r,
                                               enum skf_err (*fn)(void *ctx, struct skf_reg_device *d), void *ctx,
                                               struct skf_why *why);

#endif
