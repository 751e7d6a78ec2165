/* Making metadata documents (sections 4.2 to 4.6), and setting up a repository of them. */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "trust/repo_priv.h"

void skf_tuf_put(enum skf_err *e, skf_json *obj, const char *key, skf_json *take_v)
{
    if (*e == SKF_OK)
        *e = skf_json_set(obj, key, take_v);
    else
        skf_json_free(take_v);
}

static skf_json *time_of(int64_t unix_seconds)
{
    char text[21];
    skf_time_text(unix_seconds, text);
    return skf_json_str(text);
}

skf_json *skf_tuf_doc_new(const char *type, int64_t version, int64_t expires)
{
    skf_json *doc = skf_json_obj(), *s = skf_json_obj();
    enum skf_err e = doc && s ? SKF_OK : SKF_ERR_NOMEM;
    skf_tuf_put(&e, s, "_type", skf_json_str(type));
    skf_tuf_put(&e, s, "spec_version", skf_json_str("1.0.31"));
    skf_tuf_put(&e, s, "version", skf_json_int(version));
    skf_tuf_put(&e, s, "expires", time_of(expires));
    skf_tuf_put(&e, doc, "signatures", skf_json_arr());
    skf_tuf_put(&e, doc, "signed", skf_json_ref(s));
    skf_json_free(s);
    if (e == SKF_OK)
        return doc;
    skf_json_free(doc);
    return NULL;
}

enum skf_err skf_tuf_doc_renew(skf_json *doc, int64_t version, int64_t expires)
{
    enum skf_err e = SKF_OK;
    skf_tuf_put(&e, skf_tuf_signed(doc), "version", skf_json_int(version));
    skf_tuf_put(&e, skf_tuf_signed(doc), "expires", time_of(expires));
    skf_tuf_put(&e, doc, "signatures", skf_json_arr());
    return e;
}

enum skf_err skf_tuf_doc_target(skf_json *doc, const char *path, const struct skf_tuf_target *t)
{
    char hex[SKF_HEX];
    skf_hex(t->sha256, sizeof t->sha256, hex);
    skf_json *entry = skf_json_obj(), *hashes = skf_json_obj();
    enum skf_err e = entry && hashes ? SKF_OK : SKF_ERR_NOMEM;
    skf_tuf_put(&e, hashes, "sha256", skf_json_str(hex));
    skf_tuf_put(&e, entry, "length", skf_json_int((int64_t)t->length));
    skf_tuf_put(&e, entry, "hashes", skf_json_ref(hashes));
    skf_tuf_put(&e, skf_json_get(skf_tuf_signed(doc), "targets"), path, skf_json_ref(entry));
    skf_json_free(hashes);
    skf_json_free(entry);
    return e;
}

enum skf_err skf_tuf_doc_meta(skf_json *doc, const char *role, int64_t version, const void *p, size_t n)
{
    uint8_t digest[SKF_DIGEST];
    char hex[SKF_HEX], name[SKF_TUF_NAME_MAX + 1];
    skf_sha256(p, n, digest);
    skf_hex(digest, sizeof digest, hex);
    if (snprintf(name, sizeof name, "%s.json", role) >= (int)sizeof name)
        return SKF_ERR_LIMIT;
    skf_json *entry = skf_json_obj(), *hashes = skf_json_obj();
    enum skf_err e = entry && hashes ? SKF_OK : SKF_ERR_NOMEM;
    skf_tuf_put(&e, hashes, "sha256", skf_json_str(hex));
    skf_tuf_put(&e, entry, "version", skf_json_int(version));
    skf_tuf_put(&e, entry, "length", skf_json_int((int64_t)n));
    skf_tuf_put(&e, entry, "hashes", skf_json_ref(hashes));
    skf_tuf_put(&e, skf_json_get(skf_tuf_signed(doc), "meta"), name, skf_json_ref(entry));
    skf_json_free(hashes);
    skf_json_free(entry);
    return e;
}

enum skf_err skf_tuf_doc_text(const skf_json *doc, char **text, size_t *n)
{
    SKF_TRY(skf_json_text(doc, 0, text, n));
    if (*n <= SKF_TUF_META_MAX)
        return SKF_OK;
    skf_free(*text);
    *text = NULL;
    return SKF_ERR_LIMIT;
}

enum skf_err skf_tuf_add_target(skf_json *doc, const char *path, const struct skf_tuf_target *t, int64_t now,
                                struct skf_why *why)
{
    const skf_json *s = skf_tuf_signed(doc);
    if (!is_tuf_path(path))
        return skf_fail(why, SKF_ERR_ARG, "%s: not a target path", path ? path : "(none)");
    if (!is_json_obj(skf_json_get(s, "targets")) || skf_tuf_version(doc) < 1 || skf_tuf_version(doc) == INT64_MAX)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: this is no targets document", path);
    if (t->length > INT64_MAX || t->no_sha256)
        return skf_fail(why, SKF_ERR_ARG, "%s: its length or SHA-256 is missing", path);
    int64_t days = skf_json_get(s, "delegations") ? SKF_TUF_TARGETS_DAYS : SKF_TUF_DELTAS_DAYS;
    enum skf_err e = skf_tuf_doc_target(doc, path, t);
    if (e == SKF_OK)
        e = skf_tuf_doc_renew(doc, skf_tuf_version(doc) + 1, now + days * SKF_TUF_DAY);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "%s: out of memory", path);
}

/* ---- a new repository ------------------------------------------------------------------------------------------- */

/* {"keyids": [...], "threshold": n} in roles[role], and the keys themselves beside. */
static enum skf_err put_role(skf_json *keys, skf_json *role, skf_json *const *pubs, size_t n, unsigned threshold,
                             const char *name, struct skf_why *why)
{
    if (n == 0 || n > SKF_TUF_KEYS_MAX || threshold < 1 || threshold > n)
        return skf_fail(why, SKF_ERR_ARG, "role %s: has %zu keys and a threshold of %u", name, n, threshold);
    skf_json *ids = skf_json_arr();
    enum skf_err e = ids ? SKF_OK : SKF_ERR_NOMEM;
    for (size_t i = 0; e == SKF_OK && i < n; i++) {
        char id[SKF_KEYID_HEX];
        struct skf_tuf_pub pub = {0};
        SKF_GO(e, skf_tuf_pub_parse(pubs[i], &pub, why));
        skf_tuf_pub_free(&pub);
        SKF_GO(e, skf_tuf_key_id(pubs[i], id));
        for (size_t k = 0; k < skf_json_len(ids); k++)
            if (strcmp(skf_json_cstr(skf_json_at(ids, k)), id) == 0) {
                e = skf_fail(why, SKF_ERR_ARG, "role %s: key %s is given twice", name, id);
                goto out;
            }
        SKF_GO(e, skf_json_push(ids, skf_json_str(id)));
        SKF_GO(e, skf_json_set(keys, id, skf_json_ref(pubs[i])));
    }
    skf_tuf_put(&e, role, "keyids", skf_json_ref(ids));
    skf_tuf_put(&e, role, "threshold", skf_json_int(threshold));
out:
    skf_json_free(ids);
    return e;
}

static enum skf_err put_top_role(skf_json *root, const char *name, skf_json *const *pubs, size_t n, unsigned threshold,
                                 struct skf_why *why)
{
    skf_json *s = skf_tuf_signed(root), *role = skf_json_obj();
    enum skf_err e = role ? put_role(skf_json_get(s, "keys"), role, pubs, n, threshold, name, why) : SKF_ERR_NOMEM;
    skf_tuf_put(&e, skf_json_get(s, "roles"), name, skf_json_ref(role));
    skf_json_free(role);
    return e;
}

static enum skf_err build_root(const struct skf_tuf_keys *k, int64_t now, skf_json **out, struct skf_why *why)
{
    skf_json *doc = skf_tuf_doc_new("root", 1, now + SKF_TUF_ROOT_DAYS * (int64_t)SKF_TUF_DAY);
    enum skf_err e = doc ? SKF_OK : SKF_ERR_NOMEM;
    skf_tuf_put(&e, skf_tuf_signed(doc), "consistent_snapshot", skf_json_bool(true));
    skf_tuf_put(&e, skf_tuf_signed(doc), "keys", skf_json_obj());
    skf_tuf_put(&e, skf_tuf_signed(doc), "roles", skf_json_obj());
    if (e == SKF_OK)
        e = put_top_role(doc, "root", k->root, k->n_root, k->root_threshold ? k->root_threshold : 1, why);
    if (e == SKF_OK)
        e = put_top_role(doc, "targets", k->targets, k->n_targets, k->targets_threshold ? k->targets_threshold : 1,
                         why);
    if (e == SKF_OK)
        e = put_top_role(doc, "snapshot", k->snapshot, k->n_snapshot, 1, why);
    if (e == SKF_OK)
        e = put_top_role(doc, "timestamp", k->timestamp, k->n_timestamp, 1, why);
    if (e != SKF_OK) {
        skf_json_free(doc);
        return e;
    }
    *out = doc;
    return SKF_OK;
}

static enum skf_err build_delegations(const struct skf_tuf_keys *k, skf_json *doc, struct skf_why *why)
{
    skf_json *d = skf_json_obj(), *keys = skf_json_obj(), *roles = skf_json_arr(), *role = skf_json_obj();
    skf_json *paths = skf_json_arr();
    enum skf_err e =
        d && keys && roles && role && paths ? skf_json_push(paths, skf_json_str("deltas/*")) : SKF_ERR_NOMEM;
    skf_tuf_put(&e, role, "name", skf_json_str("deltas"));
    if (e == SKF_OK)
        e = put_role(keys, role, k->deltas, k->n_deltas, 1, "deltas", why);
    skf_tuf_put(&e, role, "terminating", skf_json_bool(true));
    skf_tuf_put(&e, role, "paths", skf_json_ref(paths));
    if (e == SKF_OK)
        e = skf_json_push(roles, skf_json_ref(role));
    skf_tuf_put(&e, d, "keys", skf_json_ref(keys));
    skf_tuf_put(&e, d, "roles", skf_json_ref(roles));
    skf_tuf_put(&e, skf_tuf_signed(doc), "delegations", skf_json_ref(d));
    skf_json *const all[] = {d, keys, roles, role, paths};
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        skf_json_free(all[i]);
    return e;
}

static enum skf_err build_targets(const struct skf_tuf_keys *k, int64_t now, skf_json **out, struct skf_why *why)
{
    skf_json *doc = skf_tuf_doc_new("targets", 1, now + SKF_TUF_TARGETS_DAYS * (int64_t)SKF_TUF_DAY);
    enum skf_err e = doc ? SKF_OK : SKF_ERR_NOMEM;
    skf_tuf_put(&e, skf_tuf_signed(doc), "targets", skf_json_obj());
    if (e == SKF_OK)
        e = build_delegations(k, doc, why);
    if (e != SKF_OK) {
        skf_json_free(doc);
        return e;
    }
    *out = doc;
    return SKF_OK;
}

static enum skf_err write_doc(const char *dir, int64_t version, const char *role, const skf_json *doc,
                              struct skf_why *why)
{
    char *text = NULL;
    size_t n = 0;
    enum skf_err e = skf_tuf_doc_text(doc, &text, &n);
    if (e == SKF_OK)
        e = skf_tuf_repo_write(dir, version, role, text, n, why);
    else
        e = skf_fail(why, e, "%s: cannot be written down", role);
    skf_free(text);
    return e;
}

enum skf_err skf_tuf_repo_new(const char *dir, const struct skf_tuf_keys *keys, int64_t now, struct skf_why *why)
{
    skf_json *root = NULL, *targets = NULL;
    int64_t version = 0;
    enum skf_err e;
    SKF_GO(e, skf_mkdirs(dir, 0755, why));
    SKF_GO(e, skf_tuf_repo_newest(dir, "root", &version, why));
    if (version > 0) {
        e = skf_fail(why, SKF_ERR_EXISTS, "%s: holds a repository already", dir);
        goto out;
    }
    SKF_GO(e, build_root(keys, now, &root, why));
    SKF_GO(e, build_targets(keys, now, &targets, why));
    /* The root last: it is what says that a repository is here. */
    SKF_GO(e, write_doc(dir, 1, "targets", targets, why));
    SKF_GO(e, write_doc(dir, 1, "root", root, why));
out:
    skf_json_free(root);
    skf_json_free(targets);
    return e == SKF_ERR_NOMEM ? skf_fail(why, e, "%s: out of memory", dir) : e;
}

/* ---- the next root ---------------------------------------------------------------------------------------------- */

static bool is_used(const skf_json *roles, const char *keyid)
{
    for (void *it = skf_json_iter(roles); it; it = skf_json_next(roles, it)) {
        const skf_json *ids = skf_json_get(skf_json_iter_value(it), "keyids");
        for (size_t i = 0; i < skf_json_len(ids); i++)
            if (strcmp(skf_json_cstr(skf_json_at(ids, i)), keyid) == 0)
                return true;
    }
    return false;
}

/* Leaves out the keys that no role names any more. */
static enum skf_err drop_unused(skf_json *s)
{
    const skf_json *old = skf_json_get(s, "keys"), *roles = skf_json_get(s, "roles");
    skf_json *keys = skf_json_obj();
    enum skf_err e = keys ? SKF_OK : SKF_ERR_NOMEM;
    for (void *it = skf_json_iter(old); it; it = skf_json_next(old, it))
        if (is_used(roles, skf_json_iter_key(it)))
            skf_tuf_put(&e, keys, skf_json_iter_key(it), skf_json_ref(skf_json_iter_value(it)));
    skf_tuf_put(&e, s, "keys", skf_json_ref(keys));
    skf_json_free(keys);
    return e;
}

static enum skf_err change_role(skf_json *root, const char *name, skf_json *const *pubs, size_t n, unsigned threshold,
                                struct skf_why *why)
{
    skf_json *role = skf_json_get(skf_json_get(skf_tuf_signed(root), "roles"), name);
    int64_t was = skf_json_i64(skf_json_get(role, "threshold"), 1);
    if (n > 0)
        return put_top_role(root, name, pubs, n, threshold ? threshold : (unsigned)SKF_MIN(was, SKF_TUF_KEYS_MAX), why);
    if (threshold == 0)
        return SKF_OK;
    if (threshold > skf_json_len(skf_json_get(role, "keyids")))
        return skf_fail(why, SKF_ERR_ARG, "role %s: has fewer keys than a threshold of %u", name, threshold);
    return skf_json_set(role, "threshold", skf_json_int(threshold));
}

static enum skf_err change_roles(skf_json *root, const struct skf_tuf_keys *k, struct skf_why *why)
{
    SKF_TRY(change_role(root, "root", k->root, k->n_root, k->root_threshold, why));
    SKF_TRY(change_role(root, "targets", k->targets, k->n_targets, k->targets_threshold, why));
    SKF_TRY(change_role(root, "snapshot", k->snapshot, k->n_snapshot, k->n_snapshot ? 1 : 0, why));
    return change_role(root, "timestamp", k->timestamp, k->n_timestamp, k->n_timestamp ? 1 : 0, why);
}

enum skf_err skf_tuf_repo_next_root(const char *dir, const struct skf_tuf_keys *keys, int64_t now, int64_t *version,
                                    struct skf_why *why)
{
    int64_t newest = 0;
    skf_json *root = NULL;
    SKF_TRY(skf_tuf_repo_newest(dir, "root", &newest, why));
    if (newest == 0)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: holds no repository", dir);
    enum skf_err e = skf_tuf_repo_check_root(dir, newest, &root, NULL, why);
    if (e == SKF_ERR_SIGNATURE)
        return skf_fail(why, SKF_ERR_STATE, "%s/%lld.root.json: still waits for signatures: sign or remove it first",
                        dir, (long long)newest);
    SKF_TRY(e);
    SKF_GO(e, change_roles(root, keys, why));
    SKF_GO(e, drop_unused(skf_tuf_signed(root)));
    SKF_GO(e, skf_tuf_doc_renew(root, newest + 1, now + SKF_TUF_ROOT_DAYS * (int64_t)SKF_TUF_DAY));
    SKF_GO(e, write_doc(dir, newest + 1, "root", root, why));
    if (version)
        *version = newest + 1;
out:
    skf_json_free(root);
    return e == SKF_ERR_NOMEM ? skf_fail(why, e, "%s: out of memory", dir) : e;
}
