/* LMDB behind registry.h, shared by the registry_*.c files. */
#ifndef SKF_DISTRIBUTOR_REGISTRY_PRIV_H
#define SKF_DISTRIBUTOR_REGISTRY_PRIV_H

#include <lmdb.h>

#include "base/buf.h"
#include "distributor/registry.h"

#define SKF_REG_RECORD     1 /* version of every record, its first byte */
#define SKF_REG_RECORD_MAX (1u << 20)
#define SKF_REG_KEY_MAX    400

struct skf_registry {
    MDB_env *env;
    int lock_fd; /* one process at a time */
    MDB_dbi meta, versions, manifests, channels, pins, deltas, adapters, devices, leftovers, removed;
};

/* Key: up to three parts, each but the last followed by a NUL. */
struct skf_reg_key {
    uint8_t bytes[SKF_REG_KEY_MAX];
    size_t n;
};
void skf_reg_key(struct skf_reg_key *k, const char *a, const char *b, const char *c);
/* As skf_reg_key(a, NULL, NULL) with the NUL behind: what all keys of `a` begin with. */
void skf_reg_prefix(struct skf_reg_key *k, const char *a);
/* The result's root, then the source's, so that all that makes a content stands together; `from` NULL for its prefix. */
void skf_reg_pair_key(struct skf_reg_key *k, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST]);

enum skf_err skf_reg_fail(struct skf_why *why, int rc, const char *what);
SKF_MUST enum skf_err skf_reg_begin(struct skf_registry *r, bool is_write, MDB_txn **t, struct skf_why *why);
/* Commits when e is SKF_OK, otherwise aborts; returns e or the commit's error. */
SKF_MUST enum skf_err skf_reg_end(MDB_txn *take_t, enum skf_err e, struct skf_why *why);
/* SKF_ERR_NOT_FOUND without a text. */
SKF_MUST enum skf_err skf_reg_get(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *k, struct skf_reader *value);
SKF_MUST enum skf_err skf_reg_put(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *k, const struct skf_buf *value,
                                  struct skf_why *why);
/* Calls fn for every record whose key begins with prefix (NULL for all). */
SKF_MUST enum skf_err skf_reg_scan(MDB_txn *t, MDB_dbi db, const struct skf_reg_key *prefix,
                                   enum skf_err (*fn)(void *ctx, struct skf_reader key, struct skf_reader value),
                                   void *ctx);
/* The next serial, in the same transaction. */
SKF_MUST enum skf_err skf_reg_serial(struct skf_registry *r, MDB_txn *t, uint64_t *serial, struct skf_why *why);
/* Whether the version is known, in the same transaction. */
SKF_MUST enum skf_err skf_reg_has_version(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                          struct skf_why *why);
SKF_MUST enum skf_err skf_reg_get_version(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                          struct skf_reg_version *out, struct skf_why *why);
/* SKF_ERR_BUSY where a channel or a pin names the version. */
SKF_MUST enum skf_err skf_reg_check_unused(struct skf_registry *r, MDB_txn *t, const char *model, const char *version,
                                           struct skf_why *why);
/* SKF_ERR_EXISTS where a version of this name and another content was removed. */
SKF_MUST enum skf_err skf_reg_check_removed(struct skf_registry *r, MDB_txn *t, const struct skf_reg_version *v,
                                            struct skf_why *why);
/* Notes what is left, with a serial of its own. */
SKF_MUST enum skf_err skf_reg_put_leftover(struct skf_registry *r, MDB_txn *t, struct skf_reg_leftover *l,
                                           struct skf_why *why);
SKF_MUST enum skf_err skf_reg_del(MDB_txn *t, MDB_dbi db, const void *key, size_t n, struct skf_why *why);
/* What it allocates is in *a whatever it returns. */
SKF_MUST enum skf_err skf_reg_unpack_adapter(struct skf_reader r, struct skf_reg_adapter *a);
SKF_MUST enum skf_err skf_reg_put_adapter(struct skf_registry *r, MDB_txn *t, const struct skf_reg_adapter *a,
                                          struct skf_why *why);
SKF_MUST enum skf_err skf_reg_start_in(struct skf_registry *r, MDB_txn *t, const char *model, const char *channel,
                                       const char *version, struct skf_reg_channel *out, struct skf_why *why);

/* Records. Texts are u16 length and bytes. A record of another version is SKF_ERR_UNSUPPORTED, a broken one
 * SKF_ERR_FORMAT. */
SKF_MUST enum skf_err skf_reg_put_text(struct skf_buf *b, const char *s);
SKF_MUST enum skf_err skf_reg_get_text(struct skf_reader *r, char *out, size_t cap);
SKF_MUST enum skf_err skf_reg_get_digest(struct skf_reader *r, uint8_t out[SKF_DIGEST]);
SKF_MUST enum skf_err skf_reg_open_record(struct skf_reader *r);
SKF_MUST enum skf_err skf_reg_close_record(const struct skf_reader *r); /* nothing may be left */

#endif
