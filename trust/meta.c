/*
 * Metadata documents (sections 4.2 to 4.6): their whole shape is checked once, when they are parsed.  Fields that the
 * specification does not name are kept, because signatures cover them.
 */
#include <string.h>

#include <sodium.h>

#include "base/util.h"
#include "trust/tuf_priv.h"

skf_json *skf_tuf_signed(const skf_json *doc)
{
    return skf_json_get(doc, "signed");
}
int64_t skf_tuf_version(const skf_json *doc)
{
    return skf_json_i64(skf_json_get(skf_tuf_signed(doc), "version"), 0);
}

int64_t skf_tuf_expires(const skf_json *doc)
{
    int64_t at = 0;
    const char *s = skf_json_cstr(skf_json_get(skf_tuf_signed(doc), "expires"));
    return s && skf_time_parse(s, &at) == SKF_OK ? at : 0;
}

bool is_tuf_top_level(const char *role)
{
    return strcmp(role, "root") == 0 || strcmp(role, "timestamp") == 0 || strcmp(role, "snapshot") == 0 ||
           strcmp(role, "targets") == 0;
}

static enum skf_err bad(struct skf_why *why, const char *what)
{
    return skf_fail(why, SKF_ERR_FORMAT, "%s", what);
}

/* ---- shapes ----------------------------------------------------------------------------------------------------- */

static bool is_str_list(const skf_json *a, bool distinct)
{
    if (!is_json_arr(a))
        return false;
    for (size_t i = 0; i < skf_json_len(a); i++) {
        const char *s = skf_json_cstr(skf_json_at(a, i));
        if (!s)
            return false;
        for (size_t k = 0; distinct && k < i; k++)
            if (strcmp(s, skf_json_cstr(skf_json_at(a, k))) == 0)
                return false;
    }
    return true;
}

static bool is_keys(const skf_json *keys)
{
    if (!is_json_obj(keys))
        return false;
    for (void *it = skf_json_iter(keys); it; it = skf_json_next(keys, it))
        if (!is_json_obj(skf_json_iter_value(it)))
            return false;
    return true;
}

static enum skf_err check_role(const skf_json *r, struct skf_why *why)
{
    const skf_json *ids = skf_json_get(r, "keyids");
    if (skf_json_len(ids) > SKF_TUF_KEYS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "a role has more than %d keys", SKF_TUF_KEYS_MAX);
    if (!is_str_list(ids, true))
        return bad(why, "a role's keyids are no list of distinct strings");
    if (skf_json_i64(skf_json_get(r, "threshold"), 0) < 1)
        return bad(why, "a role's threshold is not a number of at least 1");
    return SKF_OK;
}

static enum skf_err check_root(const skf_json *s, struct skf_why *why)
{
    static const char *const roles[] = {"root", "timestamp", "snapshot", "targets"};
    const skf_json *consistent = skf_json_get(s, "consistent_snapshot");
    if (!is_keys(skf_json_get(s, "keys")) || !is_json_obj(skf_json_get(s, "roles")))
        return bad(why, "keys or roles are missing");
    if (consistent && !is_json_bool(consistent))
        return bad(why, "consistent_snapshot is neither true nor false");
    for (size_t i = 0; i < SKF_COUNT(roles); i++) {
        const skf_json *r = skf_json_get(skf_json_get(s, "roles"), roles[i]);
        if (!is_json_obj(r))
            return skf_fail(why, SKF_ERR_FORMAT, "the role %s is missing", roles[i]);
        SKF_TRY(check_role(r, why));
    }
    return SKF_OK;
}

static bool is_hashes(const skf_json *h)
{
    if (!is_json_obj(h) || skf_json_len(h) == 0)
        return false;
    for (void *it = skf_json_iter(h); it; it = skf_json_next(h, it))
        if (!is_json_str(skf_json_iter_value(it)))
            return false;
    return true;
}

static bool is_length(const skf_json *n)
{
    return is_json_int(n) && skf_json_i64(n, -1) >= 0;
}

static enum skf_err check_meta(const skf_json *s, struct skf_why *why)
{
    const skf_json *meta = skf_json_get(s, "meta");
    if (!is_json_obj(meta))
        return bad(why, "meta is missing");
    for (void *it = skf_json_iter(meta); it; it = skf_json_next(meta, it)) {
        const skf_json *m = skf_json_iter_value(it), *length = skf_json_get(m, "length"),
                       *hashes = skf_json_get(m, "hashes");
        if (skf_json_i64(skf_json_get(m, "version"), 0) < 1 || (length && !is_length(length)) ||
            (hashes && !is_hashes(hashes)))
            return skf_fail(why, SKF_ERR_FORMAT, "the entry %.64s has a wrong version, length or hash",
                            skf_json_iter_key(it));
    }
    return SKF_OK;
}

static enum skf_err check_timestamp(const skf_json *s, struct skf_why *why)
{
    SKF_TRY(check_meta(s, why));
    return skf_json_get(skf_json_get(s, "meta"), "snapshot.json") ? SKF_OK : bad(why, "snapshot.json is not listed");
}

static enum skf_err check_snapshot(const skf_json *s, struct skf_why *why)
{
    SKF_TRY(check_meta(s, why));
    return skf_json_get(skf_json_get(s, "meta"), "targets.json") ? SKF_OK : bad(why, "targets.json is not listed");
}

static enum skf_err check_delegation(const skf_json *r, struct skf_why *why)
{
    const skf_json *paths = skf_json_get(r, "paths"), *prefixes = skf_json_get(r, "path_hash_prefixes");
    const char *name = skf_json_cstr(skf_json_get(r, "name"));
    if (!name || !*name || is_tuf_top_level(name))
        return bad(why, "a delegated role has no name, or that of a top-level role");
    SKF_TRY(check_role(r, why));
    if (!is_json_bool(skf_json_get(r, "terminating")))
        return skf_fail(why, SKF_ERR_FORMAT, "role %.64s: terminating is neither true nor false", name);
    if ((paths != NULL) == (prefixes != NULL) || !is_str_list(paths ? paths : prefixes, false))
        return skf_fail(why, SKF_ERR_FORMAT, "role %.64s: needs either paths or path_hash_prefixes", name);
    return SKF_OK;
}

static enum skf_err check_delegations(const skf_json *d, struct skf_why *why)
{
    const skf_json *roles = skf_json_get(d, "roles");
    if (!is_json_obj(d) || !is_keys(skf_json_get(d, "keys")))
        return bad(why, "the delegations have no keys");
    if (roles && !is_json_arr(roles))
        return bad(why, "the delegations' roles are no list");
    skf_json *names = skf_json_obj(); /* a set: comparing each with each would take a hostile file's time squared */
    enum skf_err e = names ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    for (size_t i = 0; e == SKF_OK && i < skf_json_len(roles); i++) {
        const char *name = skf_json_cstr(skf_json_get(skf_json_at(roles, i), "name"));
        e = check_delegation(skf_json_at(roles, i), why);
        if (e == SKF_OK && skf_json_get(names, name))
            e = skf_fail(why, SKF_ERR_FORMAT, "the role %.64s is delegated twice", name);
        if (e == SKF_OK && skf_json_set(names, name, skf_json_bool(true)) != SKF_OK)
            e = skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    skf_json_free(names);
    return e;
}

static enum skf_err check_targets(const skf_json *s, struct skf_why *why)
{
    const skf_json *targets = skf_json_get(s, "targets"), *delegations = skf_json_get(s, "delegations");
    if (!is_json_obj(targets))
        return bad(why, "targets are missing");
    for (void *it = skf_json_iter(targets); it; it = skf_json_next(targets, it)) {
        const skf_json *t = skf_json_iter_value(it);
        if (!is_length(skf_json_get(t, "length")) || !is_hashes(skf_json_get(t, "hashes")))
            return skf_fail(why, SKF_ERR_FORMAT, "target %.128s has no right length or hashes", skf_json_iter_key(it));
    }
    return delegations ? check_delegations(delegations, why) : SKF_OK;
}

/* "1.x" or "1.x.y" (section 4.3: a client must not go on with another major version). */
static bool is_spec_version(const char *v)
{
    if (!v || v[0] != '1')
        return false;
    int dots = 0;
    for (const char *c = v + 1; *c; c++) {
        if (*c == '.' && c[1] >= '0' && c[1] <= '9')
            dots++;
        else if (*c < '0' || *c > '9' || c == v + 1)
            return false;
    }
    return dots == 1 || dots == 2;
}

static enum skf_err check_signatures(const skf_json *sigs, struct skf_why *why)
{
    if (!is_json_arr(sigs))
        return bad(why, "signatures are missing");
    if (skf_json_len(sigs) > SKF_TUF_KEYS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d signatures", SKF_TUF_KEYS_MAX);
    for (size_t i = 0; i < skf_json_len(sigs); i++) {
        const char *id = skf_json_cstr(skf_json_get(skf_json_at(sigs, i), "keyid"));
        if (!id || !is_json_str(skf_json_get(skf_json_at(sigs, i), "sig")))
            return bad(why, "a signature has no keyid or no sig");
        for (size_t k = 0; k < i; k++)
            if (strcmp(id, skf_json_cstr(skf_json_get(skf_json_at(sigs, k), "keyid"))) == 0)
                return skf_fail(why, SKF_ERR_SIGNATURE, "key %.64s signed twice", id);
    }
    return SKF_OK;
}

static enum skf_err check_doc(const char *type, const skf_json *doc, struct skf_why *why)
{
    const skf_json *s = skf_tuf_signed(doc);
    const char *says = skf_json_cstr(skf_json_get(s, "_type"));
    const char *expires = skf_json_cstr(skf_json_get(s, "expires"));
    int64_t at;
    if (!is_json_obj(s) || !says)
        return bad(why, "not TUF metadata");
    if (strcmp(says, type) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "is of type %.32s, not %s", says, type);
    if (!is_spec_version(skf_json_cstr(skf_json_get(s, "spec_version"))))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "its spec_version is not 1.x");
    if (skf_tuf_version(doc) < 1)
        return bad(why, "its version is not a number of at least 1");
    if (!expires || skf_time_parse(expires, &at) != SKF_OK)
        return bad(why, "its expiry is not a time in UTC");
    SKF_TRY(check_signatures(skf_json_get(doc, "signatures"), why));
    if (strcmp(type, "root") == 0)
        return check_root(s, why);
    if (strcmp(type, "timestamp") == 0)
        return check_timestamp(s, why);
    if (strcmp(type, "snapshot") == 0)
        return check_snapshot(s, why);
    return check_targets(s, why);
}

enum skf_err skf_tuf_parse(const char *name, const char *type, const void *p, size_t n, skf_json **out,
                           struct skf_why *why)
{
    if (n > SKF_TUF_META_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: larger than %u bytes", name, SKF_TUF_META_MAX);
    skf_json *doc = NULL;
    enum skf_err e = skf_json_parse(p, n, SKF_TUF_DEPTH, &doc, why);
    if (e == SKF_OK)
        e = check_doc(type, doc, why);
    if (e != SKF_OK) {
        skf_json_free(doc);
        return skf_fail_prefix(why, e, "%s", name);
    }
    *out = doc;
    return SKF_OK;
}

/* ---- what the others ask of a document -------------------------------------------------------------------------- */

enum skf_err skf_tuf_check_expiry(const char *name, const skf_json *doc, int64_t now, struct skf_why *why)
{
    if (now < skf_tuf_expires(doc))
        return SKF_OK;
    return skf_fail(why, SKF_ERR_EXPIRED, "%s: expired on %s", name,
                    skf_json_cstr(skf_json_get(skf_tuf_signed(doc), "expires")));
}

skf_json *skf_tuf_meta_of(const skf_json *doc, const char *role)
{
    char name[SKF_TUF_NAME_MAX + 1];
    int n = snprintf(name, sizeof name, "%s.json", role);
    return n < 0 || (size_t)n >= sizeof name ? NULL : skf_json_get(skf_json_get(skf_tuf_signed(doc), "meta"), name);
}

static bool is_hash_equal(const char *hex, const uint8_t *digest, size_t n)
{
    uint8_t want[64];
    return strlen(hex) == 2 * n && skf_unhex(hex, want, n) == SKF_OK && memcmp(want, digest, n) == 0;
}

enum skf_err skf_tuf_check_bytes(const char *name, const skf_json *entry, const void *p, size_t n, struct skf_why *why)
{
    const skf_json *length = skf_json_get(entry, "length"), *hashes = skf_json_get(entry, "hashes");
    if (length && (uint64_t)skf_json_i64(length, 0) != n)
        return skf_fail(why, SKF_ERR_DIGEST, "%s: has %zu bytes where %lld are signed for", name, n,
                        (long long)skf_json_i64(length, 0));
    if (!hashes)
        return SKF_OK;
    const char *h256 = skf_json_cstr(skf_json_get(hashes, "sha256")),
               *h512 = skf_json_cstr(skf_json_get(hashes, "sha512"));
    uint8_t d[64];
    if (!h256 && !h512)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: signed for by no hash that we know", name);
    if (h256) {
        skf_sha256(p, n, d);
        if (!is_hash_equal(h256, d, SKF_DIGEST))
            return skf_fail(why, SKF_ERR_DIGEST, "%s: does not have the SHA-256 that is signed for", name);
    }
    if (h512) {
        (void)crypto_hash_sha512(d, p, n);
        if (!is_hash_equal(h512, d, sizeof d))
            return skf_fail(why, SKF_ERR_DIGEST, "%s: does not have the SHA-512 that is signed for", name);
    }
    return SKF_OK;
}

bool skf_tuf_role(const skf_json *delegator, const char *role, skf_json **role_obj, skf_json **keys)
{
    const skf_json *s = skf_tuf_signed(delegator), *d = skf_json_get(s, "delegations");
    const char *type = skf_json_cstr(skf_json_get(s, "_type"));
    if (type && strcmp(type, "root") == 0) {
        *role_obj = skf_json_get(skf_json_get(s, "roles"), role);
        *keys = skf_json_get(s, "keys");
        return *role_obj && *keys;
    }
    const skf_json *roles = skf_json_get(d, "roles");
    *keys = skf_json_get(d, "keys");
    for (size_t i = 0; i < skf_json_len(roles); i++) {
        const char *name = skf_json_cstr(skf_json_get(skf_json_at(roles, i), "name"));
        *role_obj = skf_json_at(roles, i);
        if (name && strcmp(name, role) == 0)
            return *keys != NULL;
    }
    return false;
}

enum skf_err skf_tuf_file_name(char out[SKF_TUF_NAME_MAX + 1], int64_t version, const char *role, struct skf_why *why)
{
    char quoted[SKF_TUF_NAME_MAX + 1];
    size_t n = 0;
    for (const unsigned char *c = (const unsigned char *)role; *c; c++) {
        bool plain =
            (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || strchr("_.-~", *c);
        if (n + 4 > sizeof quoted)
            return skf_fail(why, SKF_ERR_LIMIT, "the name of the role %.32s... is too long", role);
        n += (size_t)snprintf(quoted + n, sizeof quoted - n, plain ? "%c" : "%%%02X", *c);
    }
    quoted[n] = 0;
    int k = version > 0 ? snprintf(out, SKF_TUF_NAME_MAX + 1, "%lld.%s.json", (long long)version, quoted)
                        : snprintf(out, SKF_TUF_NAME_MAX + 1, "%s.json", quoted);
    if (k < 0 || k > SKF_TUF_NAME_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "the name of the role %.32s... is too long", role);
    return SKF_OK;
}
