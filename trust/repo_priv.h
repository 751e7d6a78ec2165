/* What the repository side shares: building documents (build.c), reading and writing the folder (repo.c, update.c). */
#ifndef SKF_TRUST_REPO_PRIV_H
#define SKF_TRUST_REPO_PRIV_H

#include "trust/tuf_priv.h"

#define SKF_TUF_DAY 86400
/* How long each role's metadata holds, and how long before its end it is renewed by itself (online roles only). */
#define SKF_TUF_ROOT_DAYS      365
#define SKF_TUF_TARGETS_DAYS   365
#define SKF_TUF_DELTAS_DAYS    30
#define SKF_TUF_DELTAS_RENEW   10
#define SKF_TUF_SNAPSHOT_DAYS  7
#define SKF_TUF_SNAPSHOT_RENEW 4
#define SKF_TUF_STAMP_DAYS     3
#define SKF_TUF_STAMP_RENEW    2
#define SKF_TUF_DELTAS_MAX     8000 /* deltas listed at once; the first listed leave, and can be built again */
#define SKF_TUF_KEEP           32   /* older versions that stay, for clients that are in the middle of a refresh */

/* Sets a member unless *e is an error already; takes the value either way. */
void skf_tuf_put(enum skf_err *e, skf_json *obj, const char *key, skf_json *take_v);
/* {"signatures": [], "signed": {_type, spec_version, version, expires}}; NULL when there is no memory. */
skf_json *skf_tuf_doc_new(const char *type, int64_t version, int64_t expires);
/* The document's version and expiry set anew, its signatures dropped. */
SKF_MUST enum skf_err skf_tuf_doc_renew(skf_json *doc, int64_t version, int64_t expires);
/* Lists a target in a document of type targets. */
SKF_MUST enum skf_err skf_tuf_doc_target(skf_json *doc, const char *path, const struct skf_tuf_target *t);
/* The entry of a timestamp's or snapshot's meta for these bytes of `role`. */
SKF_MUST enum skf_err skf_tuf_doc_meta(skf_json *doc, const char *role, int64_t version, const void *p, size_t n);
/* The bytes that are written for a document; freed with skf_free. */
SKF_MUST enum skf_err skf_tuf_doc_text(const skf_json *doc, char **text, size_t *n);

/* Reads, parses and gives the bytes (when `bytes` is not NULL) of <version>.<role>.json; version 0 for an unversioned
 * name. */
SKF_MUST enum skf_err skf_tuf_repo_load(const char *dir, int64_t version, const char *role, const char *type,
                                        skf_json **doc, struct skf_buf *bytes, struct skf_why *why);
SKF_MUST enum skf_err skf_tuf_repo_write(const char *dir, int64_t version, const char *role, const void *p, size_t n,
                                         struct skf_why *why);
/* Loads a root that clients can take: signed by enough keys of its own and of the one before it. */
SKF_MUST enum skf_err skf_tuf_repo_check_root(const char *dir, int64_t version, skf_json **root, struct skf_buf *bytes,
                                              struct skf_why *why);
/* The highest version of <version>.<role>.json in the folder, 0 when there is none. */
SKF_MUST enum skf_err skf_tuf_repo_newest(const char *dir, const char *role, int64_t *version, struct skf_why *why);

#endif
