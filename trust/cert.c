/* A fleet's CA: makes itself, signs keys it made and requests it was sent (cert.h). Who somebody is stands in the URI
 * alone. */
#include "trust/cert.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include <mbedtls/x509_csr.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/util.h"
#include "trust/x509_priv.h"

#define CRT_MAX   8192
#define DAY       86400
#define DAYS_MAX  36500u
#define HOSTS_MAX 32

/* Clocks of boxes run behind: what is signed now must already hold there. */
#define BACKDATE DAY

static enum skf_err check_absent(const char *path, struct skf_why *why)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return skf_fail(why, SKF_ERR_EXISTS, "%s: exists already and will not be overwritten", path);
    return errno == ENOENT ? SKF_OK : skf_fail_errno(why, errno, "%s", path);
}

static enum skf_err path_of(char *out, const char *dir, const char *base, const char *end, struct skf_why *why)
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s", dir, base, end);
    return n > 0 && n < PATH_MAX ? SKF_OK : skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir);
}

enum skf_err skf_ca_init(const char *dir, const char *fleet, unsigned days, struct skf_why *why)
{
    if (!is_x509_name(fleet))
        return skf_fail(why, SKF_ERR_ARG, "fleet name: 1 to 64 of A-Z a-z 0-9 . _ - are allowed");
    if (days == 0 || days > DAYS_MAX)
        return skf_fail(why, SKF_ERR_ARG, "days: 1 to %u are allowed", DAYS_MAX);
    char crt_path[PATH_MAX], key_path[PATH_MAX], name[128], uri[SKF_SPIFFE_MAX], pem[CRT_MAX];
    SKF_TRY(path_of(crt_path, dir, "ca", ".crt", why));
    SKF_TRY(path_of(key_path, dir, "ca", ".key", why));
    SKF_TRY(check_absent(crt_path, why));
    SKF_TRY(check_absent(key_path, why));
    SKF_TRY(skf_mkdirs(dir, 0700, why));
    (void)snprintf(name, sizeof name, "CN=%s,O=skiff fleet", fleet);
    (void)snprintf(uri, sizeof uri, "spiffe://%s", fleet);
    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    int64_t now = skf_now_unix();
    struct skf_x509_spec s = {.subject = name,
                              .issuer = name,
                              .key = &pk,
                              .issuer_key = &pk,
                              .ca = true,
                              .uri = uri,
                              .not_before = now - BACKDATE,
                              .not_after = now + (int64_t)days * DAY};
    enum skf_err e;
    SKF_GO(e, skf_x509_key_new(&pk, why));
    SKF_GO(e, skf_x509_write(&s, pem, sizeof pem, why));
    SKF_GO(e, skf_x509_key_save(key_path, &pk, why));
    SKF_GO(e, skf_file_write(crt_path, pem, strlen(pem), 0644, why));
out:
    mbedtls_pk_free(&pk);
    return e;
}

/* ---- signing ---------------------------------------------------------------------------------------------------- */

struct ca {
    mbedtls_pk_context key;
    mbedtls_x509_crt crt;
    char crt_path[PATH_MAX], fleet[65], issuer[256];
    int64_t from, to;
};

static void ca_close(struct ca *c)
{
    mbedtls_pk_free(&c->key);
    mbedtls_x509_crt_free(&c->crt);
}

static enum skf_err ca_open(const char *dir, struct ca *c, struct skf_why *why)
{
    char key_path[PATH_MAX];
    mbedtls_pk_init(&c->key);
    mbedtls_x509_crt_init(&c->crt);
    SKF_TRY(path_of(c->crt_path, dir, "ca", ".crt", why));
    SKF_TRY(path_of(key_path, dir, "ca", ".key", why));
    SKF_TRY(skf_x509_crt_load(c->crt_path, &c->crt, why));
    SKF_TRY(skf_x509_key_load(key_path, &c->key, why));
    SKF_TRY(skf_ca_fleet(c->crt_path, c->fleet, why));
    if (mbedtls_pk_check_pair(&c->crt.pk, &c->key) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: is not the key of %s", key_path, c->crt_path);
    if (skf_x509_unix(&c->crt.valid_from, &c->from) != SKF_OK || skf_x509_unix(&c->crt.valid_to, &c->to) != SKF_OK)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: its validity cannot be read", c->crt_path);
    (void)snprintf(c->issuer, sizeof c->issuer, "CN=%s,O=skiff fleet", c->fleet);
    return SKF_OK;
}

static enum skf_err ca_sign(struct ca *c, const struct skf_cert_req *r, mbedtls_pk_context *key, char *pem, size_t cap,
                            struct skf_why *why)
{
    int64_t now = skf_now_unix();
    if (now >= c->to)
        return skf_fail(why, SKF_ERR_EXPIRED, "%s: the CA's own certificate has expired", c->crt_path);
    char subject[128], uri[SKF_SPIFFE_MAX];
    (void)snprintf(subject, sizeof subject, "CN=%s", r->name);
    (void)snprintf(uri, sizeof uri, "spiffe://%s/%s/%s", c->fleet, skf_cert_kind_name(r->kind), r->name);
    struct skf_x509_spec s = {.subject = subject,
                              .issuer = c->issuer,
                              .key = key,
                              .issuer_key = &c->key,
                              .uri = uri,
                              .server = r->kind == SKF_CERT_DISTRIBUTOR,
                              .hosts = r->hosts,
                              .n_hosts = r->n_hosts,
                              .not_before = SKF_MAX(now - BACKDATE, c->from),
                              .not_after = SKF_MIN(now + (int64_t)r->days * DAY, c->to)};
    return skf_x509_write(&s, pem, cap, why);
}

static bool is_host(const char *h)
{
    unsigned char ip[16];
    if (inet_pton(AF_INET, h, ip) == 1 || inet_pton(AF_INET6, h, ip) == 1)
        return true;
    size_t n = strlen(h);
    return n > 0 && n <= 253 && h[0] != '-' && h[0] != '.' &&
           strspn(h, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-") == n;
}

static enum skf_err check_req(const struct skf_cert_req *r, struct skf_why *why)
{
    if (!is_x509_name(r->name))
        return skf_fail(why, SKF_ERR_ARG, "name: 1 to 64 of A-Z a-z 0-9 . _ - are allowed");
    if ((unsigned)r->kind > SKF_CERT_DISTRIBUTOR)
        return skf_fail(why, SKF_ERR_ARG, "%s: no such kind of certificate", r->name);
    if (r->days == 0 || r->days > DAYS_MAX)
        return skf_fail(why, SKF_ERR_ARG, "%s: days: 1 to %u are allowed", r->name, DAYS_MAX);
    if (r->n_hosts > HOSTS_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: more than %d hosts", r->name, HOSTS_MAX);
    /* A host name makes a certificate fit to be a server; a device or operator that had one could pose as the
     * distributor. */
    if (r->n_hosts && r->kind != SKF_CERT_DISTRIBUTOR)
        return skf_fail(why, SKF_ERR_ARG, "%s: only a distributor's certificate names hosts", r->name);
    for (size_t i = 0; i < r->n_hosts; i++)
        if (!is_host(r->hosts[i]))
            return skf_fail(why, SKF_ERR_ARG, "%s: neither a host name nor an address", r->hosts[i]);
    return SKF_OK;
}

static enum skf_err copy_file(const char *from, const char *to, struct skf_why *why)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_file_read(from, SKF_PEM_MAX, &p, &n, why));
    enum skf_err e = skf_file_write(to, p, n, 0644, why);
    skf_free(p);
    return e;
}

enum skf_err skf_ca_issue(const char *ca_dir, const struct skf_cert_req *r, const char *out_dir, const char *base,
                          struct skf_why *why)
{
    SKF_TRY(check_req(r, why));
    if (!is_x509_name(base) || strcmp(base, "ca") == 0)
        return skf_fail(why, SKF_ERR_ARG, "file name: 1 to 64 of A-Z a-z 0-9 . _ - are allowed, and not \"ca\"");
    char crt_path[PATH_MAX], key_path[PATH_MAX], ca_path[PATH_MAX], pem[CRT_MAX];
    SKF_TRY(path_of(crt_path, out_dir, base, ".crt", why));
    SKF_TRY(path_of(key_path, out_dir, base, ".key", why));
    SKF_TRY(path_of(ca_path, out_dir, "ca", ".crt", why));
    SKF_TRY(check_absent(crt_path, why));
    SKF_TRY(check_absent(key_path, why));
    SKF_TRY(skf_mkdirs(out_dir, 0700, why));
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    struct ca c = {0};
    enum skf_err e;
    SKF_GO(e, ca_open(ca_dir, &c, why));
    SKF_GO(e, skf_x509_key_new(&key, why));
    SKF_GO(e, ca_sign(&c, r, &key, pem, sizeof pem, why));
    SKF_GO(e, skf_x509_key_save(key_path, &key, why));
    SKF_GO(e, skf_file_write(crt_path, pem, strlen(pem), 0644, why));
    SKF_GO(e, copy_file(c.crt_path, ca_path, why));
out:
    ca_close(&c);
    mbedtls_pk_free(&key);
    return e;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

enum skf_err skf_csr_new(const char *key_path, const char *name, char *csr, size_t cap, struct skf_why *why)
{
    if (!is_x509_name(name))
        return skf_fail(why, SKF_ERR_ARG, "name: 1 to 64 of A-Z a-z 0-9 . _ - are allowed");
    char subject[128];
    (void)snprintf(subject, sizeof subject, "CN=%s", name);
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    mbedtls_x509write_csr w;
    mbedtls_x509write_csr_init(&w);
    struct stat st;
    enum skf_err e;
    int rc;
    if (lstat(key_path, &st) == 0) {
        SKF_GO(e, skf_x509_key_load(key_path, &key, why));
    } else {
        SKF_GO(e, skf_x509_key_new(&key, why));
        SKF_GO(e, skf_x509_key_save(key_path, &key, why));
    }
    mbedtls_x509write_csr_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_csr_set_key(&w, &key);
    rc = mbedtls_x509write_csr_set_subject_name(&w, subject);
    rc = rc ? rc : mbedtls_x509write_csr_pem(&w, (unsigned char *)csr, cap, skf_x509_rng, NULL);
    if (rc)
        e = skf_x509_fail(why, SKF_ERR_INTERNAL, rc, "signing request");
out:
    mbedtls_x509write_csr_free(&w);
    mbedtls_pk_free(&key);
    return e;
}

/* mbedTLS parses a request without checking that its sender holds the key; this checks (RFC 2986 section 4.2). */
static enum skf_err check_possession(mbedtls_x509_csr *csr, struct skf_why *why)
{
    if (mbedtls_pk_get_type(&csr->pk) != MBEDTLS_PK_ECKEY || mbedtls_pk_ec(csr->pk)->grp.id != MBEDTLS_ECP_DP_SECP256R1)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "signing request: its key is not ECDSA P-256");
    if (csr->sig_md != MBEDTLS_MD_SHA256 || csr->sig_pk != MBEDTLS_PK_ECDSA)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "signing request: signed otherwise than by ECDSA with SHA-256");
    uint8_t digest[SKF_DIGEST];
    skf_sha256(csr->cri.p, csr->cri.len, digest);
    if (mbedtls_pk_verify(&csr->pk, MBEDTLS_MD_SHA256, digest, sizeof digest, csr->sig.p, csr->sig.len) != 0)
        return skf_fail(why, SKF_ERR_SIGNATURE, "signing request: not signed by the key it names");
    return SKF_OK;
}

enum skf_err skf_ca_sign_csr(const char *ca_dir, const char *csr, const char *name, unsigned days, char *crt,
                             size_t cap, struct skf_why *why)
{
    struct skf_cert_req r = {.kind = SKF_CERT_DEVICE, .name = name, .days = days};
    SKF_TRY(check_req(&r, why));
    size_t n = strlen(csr);
    if (n > SKF_PEM_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "signing request: larger than %u bytes", SKF_PEM_MAX);
    mbedtls_x509_csr q;
    mbedtls_x509_csr_init(&q);
    struct ca c = {0};
    enum skf_err e;
    int rc = mbedtls_x509_csr_parse(&q, (const unsigned char *)csr, n + 1);
    if (rc) {
        e = skf_x509_fail(why, SKF_ERR_FORMAT, rc, "signing request");
        goto out;
    }
    SKF_GO(e, check_possession(&q, why));
    SKF_GO(e, ca_open(ca_dir, &c, why));
    SKF_GO(e, ca_sign(&c, &r, &q.pk, crt, cap, why));
out:
    ca_close(&c);
    mbedtls_x509_csr_free(&q);
    return e;
}
