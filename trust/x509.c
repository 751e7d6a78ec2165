/*
 * Keys and certificates by mbedTLS 2.28, which writes neither subjectAltName, nor extended key usage, nor a critical
 * basicConstraints: those three extensions are built here (RFC 5280 sections 4.2.1.6, 4.2.1.12, 4.2.1.9).
 */
#include "trust/x509_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/base64.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/util.h"

#define EXT_MAX 4096 /* bytes of one extension; 32 hosts of 100 characters */

int skf_x509_rng(void *ctx, unsigned char *p, size_t n)
{
    (void)ctx;
    return skf_random(p, n) == SKF_OK ? 0 : -1;
}

bool is_x509_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (n == 0 || n > 64 || strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
        return false;
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

const char *skf_cert_kind_name(enum skf_cert_kind k)
{
    switch (k) {
    case SKF_CERT_DEVICE:
        return "device";
    case SKF_CERT_OPERATOR:
        return "operator";
    case SKF_CERT_DISTRIBUTOR:
        return "distributor";
    }
    return "unknown";
}

enum skf_err skf_x509_fail(struct skf_why *why, enum skf_err e, int rc, const char *what)
{
    if (rc == MBEDTLS_ERR_X509_ALLOC_FAILED || rc == MBEDTLS_ERR_PK_ALLOC_FAILED || rc == MBEDTLS_ERR_ASN1_ALLOC_FAILED)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", what);
    char say[128];
    mbedtls_strerror(rc, say, sizeof say);
    return skf_fail(why, e, "%s: %s", what, say);
}

enum skf_err skf_x509_key_new(mbedtls_pk_context *pk, struct skf_why *why)
{
    int rc = mbedtls_pk_setup(pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
    if (rc == 0)
        rc = mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*pk), skf_x509_rng, NULL);
    return rc == 0 ? SKF_OK : skf_x509_fail(why, SKF_ERR_INTERNAL, rc, "key generation");
}

enum skf_err skf_x509_key_load(const char *path, mbedtls_pk_context *pk, struct skf_why *why)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    if (st.st_mode & 077)
        return skf_fail(why, SKF_ERR_REFUSED, "%s: others can read this key: chmod 600 it", path);
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_file_read(path, SKF_PEM_MAX, &p, &n, why));
    int rc = mbedtls_pk_parse_key(pk, p, n + 1, NULL, 0);
    skf_wipe(p, n);
    skf_free(p);
    return rc == 0 ? SKF_OK : skf_x509_fail(why, SKF_ERR_FORMAT, rc, path);
}

enum skf_err skf_x509_key_save(const char *path, mbedtls_pk_context *pk, struct skf_why *why)
{
    unsigned char pem[2048];
    int rc = mbedtls_pk_write_key_pem(pk, pem, sizeof pem);
    enum skf_err e = rc == 0 ? skf_file_write(path, pem, strlen((char *)pem), 0600, why)
                             : skf_x509_fail(why, SKF_ERR_INTERNAL, rc, path);
    skf_wipe(pem, sizeof pem);
    return e;
}

enum skf_err skf_x509_crt_load(const char *path, mbedtls_x509_crt *crt, struct skf_why *why)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_file_read(path, SKF_PEM_MAX, &p, &n, why));
    int rc = mbedtls_x509_crt_parse(crt, p, n + 1);
    skf_free(p);
    if (rc > 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: %d of its certificates cannot be read", path, rc);
    return rc == 0 ? SKF_OK : skf_x509_fail(why, SKF_ERR_FORMAT, rc, path);
}

enum skf_err skf_x509_unix(const mbedtls_x509_time *t, int64_t *unix_seconds)
{
    char text[80];
    int n =
        snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02dZ", t->year, t->mon, t->day, t->hour, t->min, t->sec);
    return n == 20 ? skf_time_parse(text, unix_seconds) : SKF_ERR_FORMAT;
}

/* YYYYMMDDhhmmss, as mbedTLS takes it. */
static void time_digits(int64_t unix_seconds, char out[15])
{
    char text[21];
    skf_time_text(unix_seconds, text);
    char *o = out;
    for (const char *c = text; *c && o < out + 14; c++)
        if (*c >= '0' && *c <= '9')
            *o++ = *c;
    *o = 0;
}

/* mbedTLS writes DER from the end backwards; each of these returns the bytes written, or a negative error. */
static int put_san(unsigned char **p, unsigned char *start, int tag, const void *data, size_t n)
{
    if ((size_t)(*p - start) < n + 8)
        return MBEDTLS_ERR_ASN1_BUF_TOO_SMALL;
    *p -= n;
    memcpy(*p, data, n);
    int len = mbedtls_asn1_write_len(p, start, n);
    int t = mbedtls_asn1_write_tag(p, start, (unsigned char)(MBEDTLS_ASN1_CONTEXT_SPECIFIC | tag));
    return len < 0 ? len : t < 0 ? t : (int)n + len + t;
}

static int close_sequence(unsigned char **p, unsigned char *start, size_t n)
{
    int len = mbedtls_asn1_write_len(p, start, n);
    int t = len < 0 ? len : mbedtls_asn1_write_tag(p, start, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    return t < 0 ? t : (int)n + len + t;
}

static int put_host(unsigned char **p, unsigned char *start, const char *host)
{
    unsigned char ip[16];
    if (inet_pton(AF_INET, host, ip) == 1)
        return put_san(p, start, MBEDTLS_X509_SAN_IP_ADDRESS, ip, 4);
    if (inet_pton(AF_INET6, host, ip) == 1)
        return put_san(p, start, MBEDTLS_X509_SAN_IP_ADDRESS, ip, 16);
    return put_san(p, start, MBEDTLS_X509_SAN_DNS_NAME, host, strlen(host));
}

static int set_alt_names(mbedtls_x509write_cert *w, const struct skf_x509_spec *s)
{
    unsigned char buf[EXT_MAX], *p = buf + sizeof buf;
    int n = 0;
    for (size_t i = s->n_hosts; i-- > 0;) {
        int k = put_host(&p, buf, s->hosts[i]);
        if (k < 0)
            return k;
        n += k;
    }
    int k = put_san(&p, buf, MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER, s->uri, strlen(s->uri));
    if (k < 0)
        return k;
    n = close_sequence(&p, buf, (size_t)(n + k));
    return n < 0 ? n
                 : mbedtls_x509write_crt_set_extension(w, MBEDTLS_OID_SUBJECT_ALT_NAME,
                                                       MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0, p, (size_t)n);
}

static int set_extended_usage(mbedtls_x509write_cert *w, bool server)
{
    unsigned char buf[64], *p = buf + sizeof buf;
    int n = mbedtls_asn1_write_oid(&p, buf, MBEDTLS_OID_CLIENT_AUTH, MBEDTLS_OID_SIZE(MBEDTLS_OID_CLIENT_AUTH));
    if (n >= 0 && server) {
        int k = mbedtls_asn1_write_oid(&p, buf, MBEDTLS_OID_SERVER_AUTH, MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH));
        n = k < 0 ? k : n + k;
    }
    n = n < 0 ? n : close_sequence(&p, buf, (size_t)n);
    return n < 0
               ? n
               : mbedtls_x509write_crt_set_extension(w, MBEDTLS_OID_EXTENDED_KEY_USAGE,
                                                     MBEDTLS_OID_SIZE(MBEDTLS_OID_EXTENDED_KEY_USAGE), 0, p, (size_t)n);
}

static int set_constraints(mbedtls_x509write_cert *w, bool ca)
{
    /* SEQUENCE { cA TRUE, pathLenConstraint 0 }: a CA of ours signs leaves only; empty for a leaf. */
    static const unsigned char is_ca[] = {0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00}, is_leaf[] = {0x30, 0x00};
    return mbedtls_x509write_crt_set_extension(w, MBEDTLS_OID_BASIC_CONSTRAINTS,
                                               MBEDTLS_OID_SIZE(MBEDTLS_OID_BASIC_CONSTRAINTS), 1, ca ? is_ca : is_leaf,
                                               ca ? sizeof is_ca : sizeof is_leaf);
}

static int set_serial(mbedtls_x509write_cert *w)
{
    unsigned char bytes[16];
    if (skf_random(bytes, sizeof bytes) != SKF_OK)
        return -1;
    bytes[0] = (unsigned char)((bytes[0] & 0x7f) | 0x40); /* positive, and always 16 bytes */
    mbedtls_mpi serial;
    mbedtls_mpi_init(&serial);
    int rc = mbedtls_mpi_read_binary(&serial, bytes, sizeof bytes);
    rc = rc ? rc : mbedtls_x509write_crt_set_serial(w, &serial);
    mbedtls_mpi_free(&serial);
    return rc;
}

static int fill(mbedtls_x509write_cert *w, const struct skf_x509_spec *s)
{
    char from[15], to[15];
    time_digits(s->not_before, from);
    time_digits(s->not_after, to);
    mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(w, s->key);
    mbedtls_x509write_crt_set_issuer_key(w, s->issuer_key);
    int rc = set_serial(w);
    rc = rc ? rc : mbedtls_x509write_crt_set_subject_name(w, s->subject);
    rc = rc ? rc : mbedtls_x509write_crt_set_issuer_name(w, s->issuer);
    rc = rc ? rc : mbedtls_x509write_crt_set_validity(w, from, to);
    rc = rc ? rc : set_constraints(w, s->ca);
    rc = rc ? rc
            : mbedtls_x509write_crt_set_key_usage(w, s->ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN
                                                           : MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    rc = rc ? rc : s->ca ? 0 : set_extended_usage(w, s->server);
    rc = rc ? rc : set_alt_names(w, s);
    rc = rc ? rc : mbedtls_x509write_crt_set_subject_key_identifier(w);
    rc = rc ? rc : mbedtls_x509write_crt_set_authority_key_identifier(w);
    return rc;
}

enum skf_err skf_x509_write(const struct skf_x509_spec *s, char *pem, size_t cap, struct skf_why *why)
{
    mbedtls_x509write_cert w;
    mbedtls_x509write_crt_init(&w);
    int rc = fill(&w, s);
    rc = rc ? rc : skf_x509_strict_pem(&w, s->issuer_key, pem, cap);
    mbedtls_x509write_crt_free(&w);
    if (rc == MBEDTLS_ERR_BASE64_BUFFER_TOO_SMALL || rc == MBEDTLS_ERR_ASN1_BUF_TOO_SMALL)
        return skf_fail(why, SKF_ERR_LIMIT, "certificate for %s: does not fit", s->subject);
    return rc == 0 ? SKF_OK : skf_x509_fail(why, SKF_ERR_INTERNAL, rc, "certificate");
}
