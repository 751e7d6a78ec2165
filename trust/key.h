/*
 * Ed25519 keys (libsodium) in files.  A private key file is JSON, mode 0600; its public half stands beside it as
 * NAME.pub, in TUF's own key form, so that other TUF tools can use it.
 */
#ifndef SKF_TRUST_KEY_H
#define SKF_TRUST_KEY_H

#include "base/err.h"
#include "base/json.h"

#define SKF_KEYID_HEX 65

struct skf_key; /* a private key in locked memory, wiped when freed */

SKF_MUST enum skf_err skf_key_generate(const char *role, struct skf_key **k, struct skf_why *why);
/* Refuses to overwrite (SKF_ERR_EXISTS). Writes path and path.pub. */
SKF_MUST enum skf_err skf_key_save(const struct skf_key *k, const char *path, struct skf_why *why);
/* Refuses a file that group or others can read (SKF_ERR_REFUSED says chmod 600). */
SKF_MUST enum skf_err skf_key_load(const char *path, struct skf_key **k, struct skf_why *why);
void skf_key_free(struct skf_key *k);
/* Hex SHA-256 of the canonical public key, as the TUF specification says. */
const char *skf_key_id(const struct skf_key *k);
const char *skf_key_role(const struct skf_key *k);
/* A new reference: {"keytype":"ed25519","scheme":"ed25519","keyval":{"public":hex}}; NULL when there is no memory. */
skf_json *skf_key_public(const struct skf_key *k);
/* Reads a public key of any kind that metadata may use; SKF_ERR_ARG for a private one. `*pub` is the caller's. */
SKF_MUST enum skf_err skf_key_load_public(const char *path, skf_json **pub, char id[SKF_KEYID_HEX],
                                          struct skf_why *why);
void skf_key_sign(const struct skf_key *k, const void *p, size_t n, uint8_t sig[64]);

#endif
