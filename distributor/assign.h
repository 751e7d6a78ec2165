/*
 * Which version a box should run, and what to do about it now.
 *
 * The decision for a device and model: a pin; otherwise a rollback (which holds until the next start of a rollout on
 * the device's channel); otherwise what the channel says.  A device's channel is "stable", or what its tag
 * "channel=NAME" says; tags "model=NAME" limit it to these models.  A running or finished rollout gives its version; a
 * paused one gives it to nobody new; an aborted one gives the version of before.
 */
#ifndef SKF_DISTRIBUTOR_ASSIGN_H
#define SKF_DISTRIBUTOR_ASSIGN_H

#include "distributor/registry.h"

#define SKF_CHANNEL_DEFAULT "stable"

struct skf_target {
    char version[SKF_REG_NAME]; /* "" for none: the box stays as it is */
    char channel[SKF_REG_NAME];
    bool is_pinned;  /* by a pin or a rollback */
    uint64_t serial; /* of the decision */
};
const char *skf_assign_channel(const struct skf_reg_device *d);
bool is_model_wanted(const struct skf_reg_device *d, const char *model);
SKF_MUST enum skf_err skf_assign_target(struct skf_registry *r, const struct skf_reg_device *d, const char *model,
                                        struct skf_target *t, struct skf_why *why);

/* What the device has of a model in a slot, or as a version with this content; NULL when nothing. */
const struct skf_reg_held *skf_device_slot(const struct skf_reg_device *d, const char *model, const char *slot);
bool has_device_content(const struct skf_reg_device *d, const char *model, const uint8_t root[SKF_DIGEST]);
struct skf_reg_work *skf_device_work(const struct skf_reg_device *d, const char *model);

enum skf_step {
    SKF_STEP_NONE,  /* nothing to do */
    SKF_STEP_WAIT,  /* something stands in the way: `reason` */
    SKF_STEP_BUILD, /* the delta from -> to must be built first */
    SKF_STEP_SEND,  /* send an Assign */
};
struct skf_plan {
    enum skf_step step;
    struct skf_target target;
    char id[SKF_REG_ID];
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST];
    bool has_content;   /* SEND: the box has it already, no delta is needed */
    const char *reason; /* WAIT */
};
/* `sent_id`: of the Assign sent last on the present session for this model, "" for none; the same is sent again only
 * when a failure's retry is due. A box that runs the target already is told all the same (it answers that it does).
 * `now` in unix seconds. */
SKF_MUST enum skf_err skf_assign_plan(struct skf_registry *r, const struct skf_reg_device *d, const char *model,
                                      const char *sent_id, int64_t now, struct skf_plan *p, struct skf_why *why);
/* Whether this work came of the decision with this serial. */
bool is_work_of(const struct skf_reg_work *w, uint64_t serial);

/* Root of the empty content, which a box without a version starts from. */
void skf_empty_root(uint8_t root[SKF_DIGEST]);
#define SKF_TARGET_PATH 400
void skf_manifest_path(const char *model, const char *version, char out[SKF_TARGET_PATH]);
void skf_delta_path(const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST], char out[SKF_TARGET_PATH]);

#endif
