/*
 * The distributor's hand on the TUF repository: takes what the release key signed, signs deltas, snapshot and timestamp
 * with the online keys, renews them in time.  One writer at a time; readers see the files of before or after.
 */
#ifndef SKF_DISTRIBUTOR_SIGNER_H
#define SKF_DISTRIBUTOR_SIGNER_H

#include "base/buf.h"
#include "trust/tuf.h"

struct skf_signer;

/* `dir` is the repository (root and targets signed), `keys_dir` holds snapshot.key, timestamp.key, deltas.key. Writes a
 * first snapshot and timestamp when there is none, and renews what is near its end. */
SKF_MUST enum skf_err skf_signer_open(const char *dir, const char *keys_dir, struct skf_signer **s,
                                      struct skf_why *why);
void skf_signer_close(struct skf_signer *s); /* NULL is fine */
/* Whether this targets document may follow the present one: signed as the root says, the next version, and lists `path`
 * with these bytes. SKF_ERR_STATE when another was published in between (publish again). */
SKF_MUST enum skf_err skf_signer_check(struct skf_signer *s, const void *targets, size_t n, const char *path,
                                       const void *manifest, size_t manifest_len, struct skf_why *why);
SKF_MUST enum skf_err skf_signer_targets(struct skf_signer *s, const void *targets, size_t n, struct skf_why *why);
SKF_MUST enum skf_err skf_signer_delta(struct skf_signer *s, const char *path, const struct skf_tuf_target *t,
                                       struct skf_why *why);
SKF_MUST enum skf_err skf_signer_renew(struct skf_signer *s, struct skf_why *why);
/* One metadata file by its fetch name. */
SKF_MUST enum skf_err skf_signer_read(struct skf_signer *s, const char *name, struct skf_buf *out, struct skf_why *why);

#endif
