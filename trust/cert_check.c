/* Reading identities: whose fleet, which kind, which name, and whether a certificate holds at a given time (cert.h). */
#include "trust/cert.h"

#include <string.h>

#include "base/util.h"
#include "trust/x509_priv.h"

bool is_spiffe(const char *uri, const char *fleet, enum skf_cert_kind *kind, char name[65])
{
    static const char scheme[] = "spiffe://";
    if (!uri || strncmp(uri, scheme, sizeof scheme - 1) != 0)
        return false;
    const char *domain = uri + sizeof scheme - 1, *slash = strchr(domain, '/');
    if (!slash || slash == domain || slash - domain > 64)
        return false;
    if (fleet && (strlen(fleet) != (size_t)(slash - domain) || strncmp(fleet, domain, (size_t)(slash - domain)) != 0))
        return false;
    for (int k = SKF_CERT_DEVICE; k <= SKF_CERT_DISTRIBUTOR; k++) {
        const char *say = skf_cert_kind_name((enum skf_cert_kind)k);
        size_t n = strlen(say);
        if (strncmp(slash + 1, say, n) != 0 || slash[1 + n] != '/')
            continue;
        const char *who = slash + n + 2;
        if (!is_x509_name(who))
            return false;
        *kind = (enum skf_cert_kind)k;
        (void)snprintf(name, 65, "%s", who);
        return true;
    }
    return false;
}

enum skf_err skf_ca_fleet(const char *ca_crt, char fleet[65], struct skf_why *why)
{
    mbedtls_x509_crt crt;
    mbedtls_x509_crt_init(&crt);
    enum skf_err e = skf_x509_crt_load(ca_crt, &crt, why);
    if (e == SKF_OK) {
        const mbedtls_x509_name *n = &crt.subject;
        while (n && (n->oid.len != 3 || memcmp(n->oid.p, "\x55\x04\x03", 3) != 0)) /* id-at-commonName */
            n = n->next;
        size_t len = n ? n->val.len : 0;
        fleet[0] = 0;
        if (len > 0 && len <= 64) {
            memcpy(fleet, n->val.p, len);
            fleet[len] = 0;
        }
        if (strlen(fleet) != len || !is_x509_name(fleet))
            e = skf_fail(why, SKF_ERR_FORMAT, "%s: names no fleet: not a CA made by `skiff ca init`", ca_crt);
    }
    mbedtls_x509_crt_free(&crt);
    return e;
}

/* Whether `now` lies within the certificate's time. */
static enum skf_err check_time(const char *path, const mbedtls_x509_crt *c, int64_t now, int64_t *to,
                               struct skf_why *why)
{
    int64_t from;
    if (skf_x509_unix(&c->valid_from, &from) != SKF_OK || skf_x509_unix(&c->valid_to, to) != SKF_OK)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: its validity cannot be read", path);
    char when[21];
    if (now < from) {
        skf_time_text(from, when);
        return skf_fail(why, SKF_ERR_EXPIRED, "%s: holds from %s on only: is the clock right?", path, when);
    }
    if (now > *to) {
        skf_time_text(*to, when);
        return skf_fail(why, SKF_ERR_EXPIRED, "%s: expired on %s", path, when);
    }
    return SKF_OK;
}

enum skf_err skf_cert_check(const char *crt, const char *ca_crt, int64_t now, int64_t *not_after, struct skf_why *why)
{
    mbedtls_x509_crt leaf, ca;
    mbedtls_x509_crt_init(&leaf);
    mbedtls_x509_crt_init(&ca);
    int64_t leaf_to = 0, ca_to = 0;
    uint32_t flags = 0;
    enum skf_err e;
    SKF_GO(e, skf_x509_crt_load(crt, &leaf, why));
    SKF_GO(e, skf_x509_crt_load(ca_crt, &ca, why));
    int rc = mbedtls_x509_crt_verify(&leaf, &ca, NULL, NULL, &flags, NULL, NULL);
    /* mbedTLS looked at the system's clock; ours may be a signed time, so the two flags of time are judged below. */
    flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
    if ((rc != 0 && rc != MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) || flags != 0) {
        e = skf_fail(why, SKF_ERR_SIGNATURE, "%s: not signed by the CA in %s", crt, ca_crt);
        goto out;
    }
    SKF_GO(e, check_time(ca_crt, &ca, now, &ca_to, why));
    SKF_GO(e, check_time(crt, &leaf, now, &leaf_to, why));
    if (not_after)
        *not_after = SKF_MIN(leaf_to, ca_to);
out:
    mbedtls_x509_crt_free(&leaf);
    mbedtls_x509_crt_free(&ca);
    return e;
}
