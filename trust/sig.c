/*
 * Thresholds (section 5.3.4 and its kin): a role's metadata holds when enough of its keys signed it, each key counted
 * once whatever it is called and however often it signed.
 */
#include <string.h>

#include "base/alloc.h"
#include "trust/tuf_priv.h"

#define SIG_MAX 1024 /* bytes: RSA of 8192 bits */

/* The signature of this keyid, or NULL. Keyids are unique in a parsed document. */
static const char *signature_of(const skf_json *doc, const char *keyid)
{
    const skf_json *sigs = skf_json_get(doc, "signatures");
    for (size_t i = 0; i < skf_json_len(sigs); i++) {
        const char *id = skf_json_cstr(skf_json_get(skf_json_at(sigs, i), "keyid"));
        if (id && strcmp(id, keyid) == 0)
            return skf_json_cstr(skf_json_get(skf_json_at(sigs, i), "sig"));
    }
    return NULL;
}

/* Whether the key of this keyid signed the bytes; its identity then. A key or signature that cannot be read did not
 * sign (SKF_ERR_SIGNATURE); any other error says that it could not be found out. */
static enum skf_err check_signed(const skf_json *keys, const char *keyid, const skf_json *doc,
                                 const struct skf_buf *bytes, uint8_t identity[SKF_DIGEST])
{
    const char *hex = signature_of(doc, keyid);
    size_t n = hex ? strlen(hex) : 0;
    uint8_t sig[SIG_MAX];
    if (n == 0 || n % 2 || n / 2 > sizeof sig || skf_unhex(hex, sig, n / 2) != SKF_OK)
        return SKF_ERR_SIGNATURE;
    struct skf_tuf_pub pub;
    enum skf_err e = skf_tuf_pub_parse(skf_json_get(keys, keyid), &pub, NULL);
    if (e != SKF_OK)
        return e == SKF_ERR_NOMEM ? e : SKF_ERR_SIGNATURE;
    e = skf_tuf_pub_verify(&pub, bytes->data, bytes->len, sig, n / 2);
    memcpy(identity, pub.identity, SKF_DIGEST);
    skf_tuf_pub_free(&pub);
    return e;
}

static bool is_seen(const uint8_t (*seen)[SKF_DIGEST], size_t n, const uint8_t *identity)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(seen[i], identity, SKF_DIGEST) == 0)
            return true;
    return false;
}

enum skf_err skf_tuf_verify(const skf_json *delegator, const char *role, const skf_json *doc, struct skf_why *why)
{
    skf_json *obj, *keys;
    if (!skf_tuf_role(delegator, role, &obj, &keys))
        return skf_fail(why, SKF_ERR_SIGNATURE, "nobody delegates to the role %.64s", role);
    const skf_json *ids = skf_json_get(obj, "keyids");
    int64_t threshold = skf_json_i64(skf_json_get(obj, "threshold"), 0);
    if (skf_json_len(ids) > SKF_TUF_KEYS_MAX || threshold < 1)
        return skf_fail(why, SKF_ERR_FORMAT, "role %.64s: more than %d keys, or no threshold", role, SKF_TUF_KEYS_MAX);
    struct skf_buf bytes = SKF_BUF_INIT(2 * (size_t)SKF_TUF_META_MAX);
    uint8_t(*seen)[SKF_DIGEST] = skf_calloc(SKF_TUF_KEYS_MAX, SKF_DIGEST);
    size_t n = 0;
    enum skf_err e = seen ? skf_tuf_canonical(skf_tuf_signed(doc), &bytes) : SKF_ERR_NOMEM;
    for (size_t i = 0; e == SKF_OK && i < skf_json_len(ids); i++) {
        const char *id = skf_json_cstr(skf_json_at(ids, i));
        enum skf_err signed_ = id ? check_signed(keys, id, doc, &bytes, seen[n]) : SKF_ERR_SIGNATURE;
        if (signed_ == SKF_OK && !is_seen(seen, n, seen[n]))
            n++;
        else if (signed_ != SKF_OK && signed_ != SKF_ERR_SIGNATURE)
            e = signed_;
    }
    skf_free(seen);
    skf_buf_free(&bytes);
    if (e != SKF_OK)
        return skf_fail(why, e, e == SKF_ERR_NOMEM ? "out of memory" : "cannot be verified: has no canonical form");
    if (n < (uint64_t)threshold)
        return skf_fail(why, SKF_ERR_SIGNATURE, "signed by %zu of the %lld keys that role %.64s needs", n,
                        (long long)threshold, role);
    return SKF_OK;
}

bool is_tuf_listed(const skf_json *delegator, const char *role, const char *keyid)
{
    skf_json *obj, *keys;
    if (!skf_tuf_role(delegator, role, &obj, &keys))
        return false;
    const skf_json *ids = skf_json_get(obj, "keyids");
    for (size_t i = 0; i < skf_json_len(ids); i++) {
        const char *id = skf_json_cstr(skf_json_at(ids, i));
        if (id && strcmp(id, keyid) == 0)
            return skf_json_get(keys, keyid) != NULL;
    }
    return false;
}

/* The document's signatures but that of `keyid`, and this one behind them. */
static skf_json *with_signature(const skf_json *doc, const char *keyid, const char *hex)
{
    skf_json *out = skf_json_arr(), *mine = skf_json_obj();
    const skf_json *old = skf_json_get(doc, "signatures");
    enum skf_err e = out && mine ? SKF_OK : SKF_ERR_NOMEM;
    for (size_t i = 0; e == SKF_OK && i < skf_json_len(old); i++) {
        const char *id = skf_json_cstr(skf_json_get(skf_json_at(old, i), "keyid"));
        if (id && strcmp(id, keyid) != 0)
            e = skf_json_push(out, skf_json_ref(skf_json_at(old, i)));
    }
    if (e == SKF_OK)
        e = skf_json_set(mine, "keyid", skf_json_str(keyid));
    if (e == SKF_OK)
        e = skf_json_set(mine, "sig", skf_json_str(hex));
    if (e == SKF_OK)
        e = skf_json_push(out, skf_json_ref(mine));
    skf_json_free(mine);
    if (e == SKF_OK)
        return out;
    skf_json_free(out);
    return NULL;
}

enum skf_err skf_tuf_sign(skf_json *doc, const struct skf_key *k, struct skf_why *why)
{
    if (!is_json_obj(skf_tuf_signed(doc)))
        return skf_fail(why, SKF_ERR_FORMAT, "not a metadata document: it has no \"signed\"");
    struct skf_buf bytes = SKF_BUF_INIT(2 * (size_t)SKF_TUF_META_MAX);
    enum skf_err e = skf_tuf_canonical(skf_tuf_signed(doc), &bytes);
    if (e == SKF_OK) {
        uint8_t sig[64];
        char hex[2 * sizeof sig + 1];
        skf_key_sign(k, bytes.data, bytes.len, sig);
        skf_hex(sig, sizeof sig, hex);
        e = skf_json_set(doc, "signatures", with_signature(doc, skf_key_id(k), hex));
    }
    skf_buf_free(&bytes);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "cannot be signed");
}
