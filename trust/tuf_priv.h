/*
 * What the files of TUF share: parsed metadata, public keys, path patterns, names of files.
 */
#ifndef SKF_TRUST_TUF_PRIV_H
#define SKF_TRUST_TUF_PRIV_H

#include "trust/tuf.h"

#define SKF_TUF_DEPTH        32      /* nesting of metadata; the specification's own needs 7 */
#define SKF_TUF_ROOT_MAX     512000u /* the sizes that other clients take too */
#define SKF_TUF_STAMP_MAX    16384u
#define SKF_TUF_SNAPSHOT_MAX 2000000u
#define SKF_TUF_NAME_MAX     255 /* bytes of a file's name */
#define SKF_TUF_KEYS_MAX     256 /* keys of one role */

/* ---- public keys (pubkey.c) ------------------------------------------------------------------------------------- */
struct skf_tuf_pub {
    enum { SKF_PUB_NONE, SKF_PUB_ED25519, SKF_PUB_ECDSA, SKF_PUB_RSA_PSS } kind;
    uint8_t ed25519[32];
    void *pk;                     /* mbedTLS's, for the other two */
    uint8_t identity[SKF_DIGEST]; /* of the key itself: equal for one key under two names or two spellings */
};
/* Reads a key object of section 4.2.1. SKF_ERR_UNSUPPORTED for kinds we do not verify. Free it on success only. */
SKF_MUST enum skf_err skf_tuf_pub_parse(const skf_json *key, struct skf_tuf_pub *out, struct skf_why *why);
void skf_tuf_pub_free(struct skf_tuf_pub *k); /* a zeroed one is fine */
/* SKF_ERR_SIGNATURE when this key did not sign these bytes; SKF_ERR_NOMEM when that could not be found out. */
SKF_MUST enum skf_err skf_tuf_pub_verify(const struct skf_tuf_pub *k, const void *p, size_t n, const uint8_t *sig,
                                         size_t sig_len);
/* Hex SHA-256 of the canonical key object (section 4.2.1). */
SKF_MUST enum skf_err skf_tuf_key_id(const skf_json *key, char id[SKF_KEYID_HEX]);

/* ---- documents (meta.c) ----------------------------------------------------------------------------------------- */
/* Parses a metadata file and checks its whole shape, so that nobody behind this looks at a value of the wrong type:
 * `type` is its _type, `name` names it in errors. Says nothing about signatures. */
SKF_MUST enum skf_err skf_tuf_parse(const char *name, const char *type, const void *p, size_t n, skf_json **out,
                                    struct skf_why *why);
skf_json *skf_tuf_signed(const skf_json *doc);
int64_t skf_tuf_version(const skf_json *doc);
int64_t skf_tuf_expires(const skf_json *doc);
/* SKF_ERR_EXPIRED naming the file and the day. */
SKF_MUST enum skf_err skf_tuf_check_expiry(const char *name, const skf_json *doc, int64_t now, struct skf_why *why);
/* The entry "<role>.json" of a timestamp's or snapshot's meta; NULL when it is not there. */
skf_json *skf_tuf_meta_of(const skf_json *doc, const char *role);
/* Length and hashes, where the entry states them; SKF_ERR_DIGEST. At least one hash must be of a kind we know. */
SKF_MUST enum skf_err skf_tuf_check_bytes(const char *name, const skf_json *entry, const void *p, size_t n,
                                          struct skf_why *why);
/* The role object (keyids, threshold, ...) and the keys by which `delegator` speaks of `role`; false when it does not.
 */
bool skf_tuf_role(const skf_json *delegator, const char *role, skf_json **role_obj, skf_json **keys);
bool is_tuf_top_level(const char *role);
/* "7.targets.json", with the role's name quoted so that it is a plain file name; version 0: without. SKF_ERR_LIMIT. */
SKF_MUST enum skf_err skf_tuf_file_name(char out[SKF_TUF_NAME_MAX + 1], int64_t version, const char *role,
                                        struct skf_why *why);

/* ---- paths (match.c) -------------------------------------------------------------------------------------------- */
/* Whether this delegated role may speak for the path (section 4.5: paths or path_hash_prefixes). */
bool is_tuf_delegated(const skf_json *role_obj, const char *path);
/* Shell pattern (* ? [a-z] [!a-z]) in which no wildcard matches a '/'. */
bool is_tuf_match(const char *pattern, const char *path);
/* Relative, no empty segment, no "." or "..". */
bool is_tuf_path(const char *path);

#endif
