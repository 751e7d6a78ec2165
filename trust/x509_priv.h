/*
 * What the certificate files share: P-256 keys in PEM files, and a certificate described in our terms and written as
 * DER and PEM by mbedTLS. mbedTLS types stay in this folder.
 */
#ifndef SKF_TRUST_X509_PRIV_H
#define SKF_TRUST_X509_PRIV_H

#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>

#include "base/err.h"
#include "trust/cert.h"

#define SKF_PEM_MAX    (64u << 10) /* bytes of any PEM file we read */
#define SKF_SPIFFE_MAX 160         /* "spiffe://" fleet(64) "/distributor/" name(64) NUL */

/* mbedTLS's random source, straight from the kernel. */
int skf_x509_rng(void *ctx, unsigned char *p, size_t n);
/* [A-Za-z0-9._-]{1,64}, not "." or "..": fit for a file name, a distinguished name and a URI alike. */
bool is_x509_name(const char *s);
const char *skf_cert_kind_name(enum skf_cert_kind k);

/* `rc` is mbedTLS's (negative) error; the line ends in its number. */
enum skf_err skf_x509_fail(struct skf_why *why, enum skf_err e, int rc, const char *what);

/* A new P-256 key; `pk` is initialised by the caller and freed by it on any outcome. */
SKF_MUST enum skf_err skf_x509_key_new(mbedtls_pk_context *pk, struct skf_why *why);
/* Reads a PEM key that nobody else may read (SKF_ERR_REFUSED says chmod 600). */
SKF_MUST enum skf_err skf_x509_key_load(const char *path, mbedtls_pk_context *pk, struct skf_why *why);
/* Writes PEM, mode 0600. */
SKF_MUST enum skf_err skf_x509_key_save(const char *path, mbedtls_pk_context *pk, struct skf_why *why);
/* Loads exactly the certificates of a PEM file. */
SKF_MUST enum skf_err skf_x509_crt_load(const char *path, mbedtls_x509_crt *crt, struct skf_why *why);
/* Seconds since 1970 of a certificate's time. */
SKF_MUST enum skf_err skf_x509_unix(const mbedtls_x509_time *t, int64_t *unix_seconds);

struct skf_x509_spec {
    const char *subject, *issuer; /* distinguished names as mbedTLS reads them */
    mbedtls_pk_context *key, *issuer_key;
    int64_t not_before, not_after;
    bool ca;
    bool server; /* extended key usage serverAuth beside clientAuth; nothing of it for a CA */
    const char *uri;
    const char *const *hosts;
    size_t n_hosts;
};
/* The certificate in PEM, NUL-terminated in `pem`. */
SKF_MUST enum skf_err skf_x509_write(const struct skf_x509_spec *s, char *pem, size_t cap, struct skf_why *why);
/* Writes, signs and gives in PEM what is described by `w`; mbedTLS's error otherwise (x509_strict.c says why). */
int skf_x509_strict_pem(mbedtls_x509write_cert *w, mbedtls_pk_context *issuer_key, char *pem, size_t cap);

#endif
