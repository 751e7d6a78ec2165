/*
 * Public keys of metadata (section 4.2.1): Ed25519 by libsodium, which is what we make; ECDSA P-256 and RSA-PSS by
 * mbedTLS, which repositories of others use.
 */
#include <string.h>

#include <mbedtls/asn1.h>
#include <mbedtls/ecp.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <sodium.h>

#include "base/alloc.h"
#include "trust/tuf_priv.h"

#define PEM_MAX      8192
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192

enum skf_err skf_tuf_key_id(const skf_json *key, char id[SKF_KEYID_HEX])
{
    struct skf_buf b = SKF_BUF_INIT(65536);
    enum skf_err e = skf_tuf_canonical(key, &b);
    if (e == SKF_OK) {
        uint8_t digest[SKF_DIGEST];
        skf_sha256(b.data, b.len, digest);
        skf_hex(digest, sizeof digest, id);
    }
    skf_buf_free(&b);
    return e;
}

static enum skf_err parse_ed25519(const char *hex, struct skf_tuf_pub *out, struct skf_why *why)
{
    if (strlen(hex) != 2 * sizeof out->ed25519 || skf_unhex(hex, out->ed25519, sizeof out->ed25519) != SKF_OK)
        return skf_fail(why, SKF_ERR_FORMAT, "an Ed25519 key is not 64 hexadecimal digits");
    uint8_t tagged[1 + sizeof out->ed25519] = {'e'};
    memcpy(tagged + 1, out->ed25519, sizeof out->ed25519);
    skf_sha256(tagged, sizeof tagged, out->identity);
    out->kind = SKF_PUB_ED25519;
    return SKF_OK;
}

static bool is_fit(const mbedtls_pk_context *pk, int kind)
{
    if (kind == SKF_PUB_ECDSA)
        return mbedtls_pk_get_type(pk) == MBEDTLS_PK_ECKEY && mbedtls_pk_ec(*pk)->grp.id == MBEDTLS_ECP_DP_SECP256R1;
    size_t bits = mbedtls_pk_get_bitlen(pk);
    return mbedtls_pk_get_type(pk) == MBEDTLS_PK_RSA && bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
}

/* Whether mbedTLS ran out of memory: its codes are the sum of a low and a high part. */
static bool is_out_of_memory(int rc)
{
    int low = -rc & 0x7f, high = -rc & 0x7f80;
    return rc < 0 && (low == -MBEDTLS_ERR_MPI_ALLOC_FAILED || low == -MBEDTLS_ERR_ASN1_ALLOC_FAILED ||
                      high == -MBEDTLS_ERR_PK_ALLOC_FAILED || high == -MBEDTLS_ERR_PEM_ALLOC_FAILED ||
                      high == -MBEDTLS_ERR_ECP_ALLOC_FAILED);
}

static enum skf_err parse_pem(const char *pem, int kind, struct skf_tuf_pub *out, struct skf_why *why)
{
    size_t n = strlen(pem);
    mbedtls_pk_context *pk = n <= PEM_MAX ? skf_calloc(1, sizeof *pk) : NULL;
    if (!pk)
        return n > PEM_MAX ? skf_fail(why, SKF_ERR_LIMIT, "a public key is larger than %d bytes", PEM_MAX)
                           : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    mbedtls_pk_init(pk);
    unsigned char der[2048];
    int len = mbedtls_pk_parse_public_key(pk, (const unsigned char *)pem, n + 1);
    if (len == 0 && is_fit(pk, kind))
        len = mbedtls_pk_write_pubkey_der(pk, der, sizeof der);
    if (len <= 0) {
        mbedtls_pk_free(pk);
        skf_free(pk);
        if (is_out_of_memory(len))
            return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
        return skf_fail(why, SKF_ERR_FORMAT, "a public key is not in PEM or not of the kind it says");
    }
    skf_sha256(der + sizeof der - (size_t)len, (size_t)len, out->identity);
    out->pk = pk;
    out->kind = kind;
    return SKF_OK;
}

enum skf_err skf_tuf_pub_parse(const skf_json *key, struct skf_tuf_pub *out, struct skf_why *why)
{
    const char *type = skf_json_cstr(skf_json_get(key, "keytype")),
               *scheme = skf_json_cstr(skf_json_get(key, "scheme"));
    const char *pub = skf_json_cstr(skf_json_get(skf_json_get(key, "keyval"), "public"));
    *out = (struct skf_tuf_pub){0};
    if (!type || !scheme || !pub)
        return skf_fail(why, SKF_ERR_FORMAT, "not a public key of TUF: keytype, scheme or keyval.public is missing");
    if (strcmp(type, "ed25519") == 0 && strcmp(scheme, "ed25519") == 0)
        return parse_ed25519(pub, out, why);
    if ((strcmp(type, "ecdsa") == 0 || strcmp(type, "ecdsa-sha2-nistp256") == 0) &&
        strcmp(scheme, "ecdsa-sha2-nistp256") == 0)
        return parse_pem(pub, SKF_PUB_ECDSA, out, why);
    if (strcmp(type, "rsa") == 0 && strcmp(scheme, "rsassa-pss-sha256") == 0)
        return parse_pem(pub, SKF_PUB_RSA_PSS, out, why);
    return skf_fail(why, SKF_ERR_UNSUPPORTED, "a public key is of an unknown kind: %.32s/%.32s", type, scheme);
}

void skf_tuf_pub_free(struct skf_tuf_pub *k)
{
    if (k->pk) {
        mbedtls_pk_free(k->pk);
        skf_free(k->pk);
    }
    *k = (struct skf_tuf_pub){0};
}

/* A signature that is wrong is one thing, that it could not be looked at is another: the first makes a client forget
 * what the key signed before. */
static enum skf_err verdict(int rc)
{
    return rc == 0 ? SKF_OK : is_out_of_memory(rc) ? SKF_ERR_NOMEM : SKF_ERR_SIGNATURE;
}

enum skf_err skf_tuf_pub_verify(const struct skf_tuf_pub *k, const void *p, size_t n, const uint8_t *sig,
                                size_t sig_len)
{
    uint8_t digest[SKF_DIGEST];
    switch (k->kind) {
    case SKF_PUB_ED25519:
        if (sodium_init() < 0)
            return SKF_ERR_INTERNAL;
        return sig_len == crypto_sign_BYTES && crypto_sign_verify_detached(sig, p, n, k->ed25519) == 0
                   ? SKF_OK
                   : SKF_ERR_SIGNATURE;
    case SKF_PUB_ECDSA:
        skf_sha256(p, n, digest);
        return verdict(mbedtls_pk_verify(k->pk, MBEDTLS_MD_SHA256, digest, sizeof digest, sig, sig_len));
    case SKF_PUB_RSA_PSS: {
        const mbedtls_pk_rsassa_pss_options pss = {.mgf1_hash_id = MBEDTLS_MD_SHA256,
                                                   .expected_salt_len = MBEDTLS_RSA_SALT_LEN_ANY};
        skf_sha256(p, n, digest);
        return verdict(mbedtls_pk_verify_ext(MBEDTLS_PK_RSASSA_PSS, &pss, k->pk, MBEDTLS_MD_SHA256, digest,
                                             sizeof digest, sig, sig_len));
    }
    case SKF_PUB_NONE:
        break;
    }
    return SKF_ERR_SIGNATURE;
}
