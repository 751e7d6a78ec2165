/*
 * mbedTLS 2.28 writes NULL parameters behind the name of the ECDSA algorithm, which RFC 5758 section 3.2 forbids and
 * strict readers refuse.  Here they are taken out, and the certificate is signed anew:
 *
 *   Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, ALGORITHM, ... }, ALGORITHM, BIT STRING
 * signature }
 */
#include <string.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/pem.h>

#include "base/digest.h"
#include "trust/x509_priv.h"

#define DER_MAX 8192

/* ecdsa-with-SHA256, as it must be and as mbedTLS writes it */
static const unsigned char right[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const unsigned char wrong[] = {0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                      0xce, 0x3d, 0x04, 0x03, 0x02, 0x05, 0x00};

/* Steps over one element that must have this tag. */
static int skip(unsigned char **p, const unsigned char *end, int tag)
{
    size_t n;
    int rc = mbedtls_asn1_get_tag(p, end, &n, tag);
    if (rc == 0)
        *p += n;
    return rc;
}

/* Puts bytes in front of *p and adds to *n what they took; every call after a failed one does nothing. */
static void put(int *rc, unsigned char **p, unsigned char *start, const unsigned char *data, size_t len, size_t *n)
{
    if (*rc == 0 && (size_t)(*p - start) < len)
        *rc = MBEDTLS_ERR_ASN1_BUF_TOO_SMALL;
    if (*rc != 0)
        return;
    *p -= len;
    memcpy(*p, data, len);
    *n += len;
}

static void wrap(int *rc, unsigned char **p, unsigned char *start, unsigned char tag, size_t *n)
{
    int a = *rc ? *rc : mbedtls_asn1_write_len(p, start, *n);
    int b = a < 0 ? a : mbedtls_asn1_write_tag(p, start, tag);
    if (b < 0)
        *rc = b;
    else
        *n += (size_t)(a + b);
}

/* The tbsCertificate of `der` with the right algorithm, at the end of `out`. */
static int rebuild(unsigned char *der, size_t len, unsigned char *out, unsigned char **tbs, size_t *n)
{
    unsigned char *p = der, *end = der + len, *body, *alg;
    size_t k;
    int rc = mbedtls_asn1_get_tag(&p, end, &k, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    rc = rc ? rc : mbedtls_asn1_get_tag(&p, end, &k, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    if (rc)
        return rc;
    body = p;
    end = p + k;
    rc = skip(&p, end, MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_ASN1_CONSTRUCTED);
    rc = rc ? rc : skip(&p, end, MBEDTLS_ASN1_INTEGER);
    alg = p;
    rc = rc ? rc : skip(&p, end, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    if (rc)
        return rc;
    size_t size = (size_t)(p - alg);
    bool is_known = (size == sizeof wrong && memcmp(alg, wrong, size) == 0) ||
                    (size == sizeof right && memcmp(alg, right, size) == 0);
    if (!is_known)
        return MBEDTLS_ERR_ASN1_UNEXPECTED_TAG;
    *tbs = out + DER_MAX;
    *n = 0;
    put(&rc, tbs, out, p, (size_t)(end - p), n);
    put(&rc, tbs, out, right, sizeof right, n);
    put(&rc, tbs, out, body, (size_t)(alg - body), n);
    wrap(&rc, tbs, out, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE, n);
    return rc;
}

int skf_x509_strict_pem(mbedtls_x509write_cert *w, mbedtls_pk_context *issuer_key, char *pem, size_t cap)
{
    unsigned char der[DER_MAX], mid[DER_MAX], out[DER_MAX], *tbs, *p = out + sizeof out;
    unsigned char digest[SKF_DIGEST], sig[MBEDTLS_PK_SIGNATURE_MAX_SIZE], unused_bits = 0;
    size_t tbs_len, sig_len = 0, n = 0, all = 0, written;
    int rc = mbedtls_x509write_crt_der(w, der, sizeof der, skf_x509_rng, NULL); /* behind the end of der */
    if (rc < 0)
        return rc;
    rc = rebuild(der + sizeof der - (size_t)rc, (size_t)rc, mid, &tbs, &tbs_len);
    if (rc)
        return rc;
    skf_sha256(tbs, tbs_len, digest);
    rc = mbedtls_pk_sign(issuer_key, MBEDTLS_MD_SHA256, digest, sizeof digest, sig, &sig_len, skf_x509_rng, NULL);
    put(&rc, &p, out, sig, sig_len, &n);
    put(&rc, &p, out, &unused_bits, 1, &n);
    wrap(&rc, &p, out, MBEDTLS_ASN1_BIT_STRING, &n);
    all = n;
    put(&rc, &p, out, right, sizeof right, &all);
    put(&rc, &p, out, tbs, tbs_len, &all);
    wrap(&rc, &p, out, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE, &all);
    return rc ? rc
              : mbedtls_pem_write_buffer("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", p, all,
                                         (unsigned char *)pem, cap, &written);
}
