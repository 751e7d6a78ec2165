/*
 * TUF 1.0 (https://theupdateframework.github.io/specification/latest/, sections named in the code): metadata in the
 * specification's JSON and canonical form, the client workflow of section 5, and the repository side that signs.
 *
 * Roles: root (threshold), targets (the offline release key), `deltas` (delegated by targets for the files of the
 * folder deltas, the distributor's own key), snapshot, timestamp.  Target paths: "models/<model>/<version>.manifest" in
 * targets, and "deltas/<hex of source root>-<hex of result root>.skdx" (the .skd's head and index) in deltas.
 */
#ifndef SKF_TRUST_TUF_H
#define SKF_TRUST_TUF_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/json.h"
#include "trust/key.h"

#define SKF_TUF_META_MAX (4u << 20) /* bytes of any one metadata file; root, timestamp and snapshot have less */

/* ---- client ----------------------------------------------------------------------------------------------------- */
/* Fetches metadata into `out` (which has its own limit): "3.root.json", "timestamp.json", "7.snapshot.json",
 * "2.targets.json", "4.deltas.json". SKF_ERR_NOT_FOUND when there is none of that name (for root: the chain ends here);
 * SKF_ERR_NET passes through and leaves the trusted state as it was. */
typedef enum skf_err skf_tuf_fetch(void *ctx, const char *name, struct skf_buf *out, struct skf_why *why);

struct skf_tuf; /* a client with its trusted metadata in a folder */

/* `dir` holds root.json (the first trusted root was put there by installation or enrolment) and what was verified
 * since. */
SKF_MUST enum skf_err skf_tuf_open(const char *dir, struct skf_tuf **t, struct skf_why *why);
void skf_tuf_close(struct skf_tuf *t);
/* Installs a first trusted root. SKF_ERR_EXISTS when there is one with other bytes. */
SKF_MUST enum skf_err skf_tuf_init(const char *dir, const void *root, size_t n, struct skf_why *why);
/* Section 5.3 to 5.6: root chain, timestamp, snapshot, targets. What verified is kept durably; an error leaves the
 * state of before that file (SKF_ERR_SIGNATURE, _EXPIRED, _ROLLBACK, _DIGEST, _FORMAT, _LIMIT name the file). */
SKF_MUST enum skf_err skf_tuf_refresh(struct skf_tuf *t, int64_t now, skf_tuf_fetch *fetch, void *ctx,
                                      struct skf_why *why);
struct skf_tuf_target {
    uint64_t length;
    uint8_t sha256[SKF_DIGEST];
    /* What repositories of others may use beside or instead; all zero for a target of ours. */
    bool no_sha256, has_sha512;
    uint8_t sha512[64];
};
/* Section 5.6.7: looks a path up through the delegations (fetching the delegated role's metadata when needed).
 * SKF_ERR_NOT_FOUND when nobody who may speak for the path lists it. Without a refresh before it, what the folder holds
 * must be whole and unexpired (SKF_ERR_STATE otherwise); `fetch` may then be NULL. */
SKF_MUST enum skf_err skf_tuf_find(struct skf_tuf *t, int64_t now, const char *path, skf_tuf_fetch *fetch, void *ctx,
                                   struct skf_tuf_target *out, struct skf_why *why);
/* Length and digest; SKF_ERR_DIGEST naming the path. */
SKF_MUST enum skf_err skf_tuf_check(const struct skf_tuf_target *t, const char *path, const void *p, size_t n,
                                    struct skf_why *why);

/* ---- repository: metadata files in a folder, as <version>.<role>.json, timestamp.json and root.json ------------- */
struct skf_tuf_keys { /* public keys of a new repository; counts are thresholds' upper bounds */
    skf_json *const *root, *const *targets, *const *snapshot, *const *timestamp, *const *deltas;
    size_t n_root, n_targets, n_snapshot, n_timestamp, n_deltas;
    unsigned root_threshold, targets_threshold;
};
/* A first root (and empty targets, with its delegation of deltas) that still need their signatures. Expiry in days from
 * `now`. */
SKF_MUST enum skf_err skf_tuf_repo_new(const char *dir, const struct skf_tuf_keys *keys, int64_t now,
                                       struct skf_why *why);
/* The next root, as <version + 1>.root.json, which waits for signatures of the present root's keys and of its own: expiry
 * moved, and each role that `keys` has keys for given those instead of its old ones (deltas are delegated by targets, not
 * here). A threshold of 0 stays as it was. SKF_ERR_STATE while another root still waits. `version` may be NULL. */
SKF_MUST enum skf_err skf_tuf_repo_next_root(const char *dir, const struct skf_tuf_keys *keys, int64_t now,
                                             int64_t *version, struct skf_why *why);
/* Adds this key's signature to a metadata document (SKF_ERR_REFUSED when the role does not list the key, where `root`
 * is given). */
SKF_MUST enum skf_err skf_tuf_sign(skf_json *doc, const struct skf_key *k, struct skf_why *why);
/* Canonical bytes of a value (OLPC canonical JSON, as the specification's section 4.2 says). */
SKF_MUST enum skf_err skf_tuf_canonical(const skf_json *v, struct skf_buf *out);
/* Whether `delegator` lists this key for `role`: what a signer asks before he signs. */
bool is_tuf_listed(const skf_json *delegator, const char *role, const char *keyid);
/* Enough distinct valid signatures of `role`, as this verified root (or delegating targets) document lists its keys. */
SKF_MUST enum skf_err skf_tuf_verify(const skf_json *delegator, const char *role, const skf_json *doc,
                                     struct skf_why *why);

/* Targets (or deltas) document with `path` added or replaced, version + 1, expiry moved, signatures dropped. */
SKF_MUST enum skf_err skf_tuf_add_target(skf_json *doc, const char *path, const struct skf_tuf_target *t, int64_t now,
                                         struct skf_why *why);
/* The distributor's part: takes a newly signed targets document (NULL: unchanged) verified against the repository's
 * root, adds these delta targets (n may be 0), and writes deltas, snapshot and timestamp anew, signed; renews what is
 * near its expiry. Nothing of it is visible before the timestamp is replaced. */
struct skf_tuf_delta {
    const char *path;
    struct skf_tuf_target target;
};
struct skf_tuf_online { /* the distributor's online keys */
    const struct skf_key *deltas, *snapshot, *timestamp;
};
SKF_MUST enum skf_err skf_tuf_repo_update(const char *dir, const struct skf_tuf_online *keys, const void *targets,
                                          size_t targets_len, const struct skf_tuf_delta *deltas, size_t n, int64_t now,
                                          struct skf_why *why);
/* Reads one metadata file of the repository by its fetch name; SKF_ERR_NOT_FOUND; names are checked. A new root is not
 * found before enough keys have signed it. */
SKF_MUST enum skf_err skf_tuf_repo_read(const char *dir, const char *name, struct skf_buf *out, struct skf_why *why);
/* The newest targets document of the repository (caller frees). */
SKF_MUST enum skf_err skf_tuf_repo_targets(const char *dir, skf_json **doc, struct skf_why *why);

#endif
