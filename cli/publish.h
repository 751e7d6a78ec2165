/* The parts of `skiff publish`: what is signed (publish_sign.c), an adapter that goes along (publish_adapter.c), and how it
 * gets to the distributor (publish_send.c). */
#ifndef SKF_CLI_PUBLISH_H
#define SKF_CLI_PUBLISH_H

#include "base/buf.h"
#include "base/file.h"
#include "cli/connect.h"
#include "distributor/registry.h"
#include "model/model.h"
#include "proto/operator.pb-c.h"

#define SKF_PUBLISH_KEYS_MAX 8

struct skf_adapter; /* model/adapter.h */
struct skf_publish_adapter {
    const char *file, *asked;   /* options; no file: no adapter */
    struct skf_adapter *opened; /* beside the new version, which has the base's names and shapes */
    struct skf_map map;
    uint8_t *digests; /* of its n pieces of SKF_ADAPTER_PIECE bytes */
    uint64_t n, need_bytes;
    char base[SKF_REG_NAME]; /* the version that it is for */
};
struct skf_publish {
    struct skf_connect c;
    const char *file, *model, *version, *channel, *notes;
    const char *keys[SKF_PUBLISH_KEYS_MAX], *targets_file, *out;
    size_t n_keys;
    bool is_dry, json;

    struct skf_publish_adapter adapter;
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

/* One metadata file, or a manifest by its target path. */
SKF_MUST enum skf_err skf_publish_meta(struct skf_connect *c, const char *name, struct skf_buf *out, struct skf_why *why);

/* All of these do nothing where there is no --adapter. */
/* Opens it beside the content and checks that it fits (SKF_ERR_ARG when it is for another model). */
SKF_MUST enum skf_err skf_publish_adapter_open(struct skf_publish *p, struct skf_why *why);
/* Which version it is for, and whether that one can take it. */
SKF_MUST enum skf_err skf_publish_adapter_base(struct skf_publish *p, struct skf_why *why);
void skf_publish_adapter_close(struct skf_publish *p);
/* These three only where there is one. Piece i < n into `to` (SKF_ADAPTER_PIECE bytes). */
SKF_MUST enum skf_err skf_publish_adapter_piece(const struct skf_publish_adapter *a, uint64_t i, uint8_t *to, uint32_t *n,
                                                struct skf_why *why);
SKF_MUST enum skf_err skf_publish_adapter_json(const struct skf_publish *p, skf_json *j);
void skf_publish_adapter_print(const struct skf_publish *p);

#endif
