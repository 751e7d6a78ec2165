/* The parts of `skiff publish`: what is signed (publish_sign.c) and how it gets to the distributor (publish_send.c). */
#ifndef SKF_CLI_PUBLISH_H
#define SKF_CLI_PUBLISH_H

#include "cli/connect.h"
#include "model/model.h"
#include "proto/operator.pb-c.h"

#define SKF_PUBLISH_KEYS_MAX 8

struct skf_publish {
    struct skf_connect c;
    const char *file, *model, *version, *channel, *notes;
    const char *keys[SKF_PUBLISH_KEYS_MAX], *targets_file, *out;
    size_t n_keys;
    bool is_dry, json;

    struct skf_model *content;
    struct skf_cut cut;
    uint8_t *manifest;
    size_t manifest_len;
    bool is_known; /* the distributor has this very version already: nothing is to be signed */
    char *targets; /* signed */
    size_t targets_len;

    uint64_t bytes_sent, chunks_sent, need_bytes;
    ProtobufCMessage *done; /* a PublishReply that is Done */
};

/* Finds out whether the version is there already (SKF_ERR_EXISTS with another content), and makes or takes its
 * manifest. */
SKF_MUST enum skf_err skf_publish_manifest(struct skf_publish *p, struct skf_why *why);
/* The newest targets, verified by the root this operator trusts, with the manifest added; signed with --key, or written
 * for signing elsewhere (*is_written), or read from --targets. */
SKF_MUST enum skf_err skf_publish_sign(struct skf_publish *p, bool *is_written, struct skf_why *why);
/* Begin to Done. */
SKF_MUST enum skf_err skf_publish_send(struct skf_publish *p, struct skf_why *why);

#endif
