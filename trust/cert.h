/*
 * X.509 for mutual TLS, by mbedTLS: a fleet's CA, certificates for distributor, operators and devices, requests.
 * Keys are ECDSA P-256. Identity is the URI in subjectAltName:
 *   spiffe://<fleet>/device/<name>, spiffe://<fleet>/operator/<name>, spiffe://<fleet>/distributor/<name>
 */
#ifndef SKF_TRUST_CERT_H
#define SKF_TRUST_CERT_H

#include "base/err.h"

enum skf_cert_kind { SKF_CERT_DEVICE, SKF_CERT_OPERATOR, SKF_CERT_DISTRIBUTOR };

/* A new CA in `dir`: ca.crt, ca.key (0600). Refuses to overwrite. */
SKF_MUST enum skf_err skf_ca_init(const char *dir, const char *fleet, unsigned days, struct skf_why *why);
struct skf_cert_req {
    enum skf_cert_kind kind;
    const char *name;         /* [A-Za-z0-9._-]{1,64} */
    const char *const *hosts; /* DNS names or IP addresses for a distributor; may be empty */
    size_t n_hosts;
    unsigned days;
};
/* Makes a key and a certificate signed by the CA in `ca_dir`: <out_dir>/<base>.crt, .key (0600), and a copy of ca.crt.
 */
SKF_MUST enum skf_err skf_ca_issue(const char *ca_dir, const struct skf_cert_req *r, const char *out_dir,
                                   const char *base, struct skf_why *why);
/* A key (PEM, saved to key_path 0600 when it does not exist yet) and a signing request for it (PEM in csr,
 * NUL-terminated). */
SKF_MUST enum skf_err skf_csr_new(const char *key_path, const char *name, char *csr, size_t cap, struct skf_why *why);
/* Signs a device's request: the request's self-signature is checked, its names are not taken from it but from `name`.
 */
SKF_MUST enum skf_err skf_ca_sign_csr(const char *ca_dir, const char *csr, const char *name, unsigned days, char *crt,
                                      size_t cap, struct skf_why *why);
/* Kind and name out of an identity URI; false when it is none of ours (another fleet's too, unless fleet is NULL). */
bool is_spiffe(const char *uri, const char *fleet, enum skf_cert_kind *kind, char name[65]);
/* The fleet's name, out of a CA certificate file. */
SKF_MUST enum skf_err skf_ca_fleet(const char *ca_crt, char fleet[65], struct skf_why *why);
/* Checks a certificate file against a CA file and the time `now`: SKF_ERR_EXPIRED, SKF_ERR_SIGNATURE for a foreign one;
 * says when it ends. So that a bad certificate is named before a connection is tried. */
SKF_MUST enum skf_err skf_cert_check(const char *crt, const char *ca_crt, int64_t now, int64_t *not_after,
                                     struct skf_why *why);

#endif
