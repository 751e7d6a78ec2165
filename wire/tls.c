/*
 * Mutual TLS from PEM files: both ends show a certificate of the fleet's own CA, the enrolment port alone asks for
 * none.  Who a peer is, is the SPIFFE URI in its certificate, never its address or its common name.
 */
#include "wire/wire_priv.h"

#include <sys/stat.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/util.h"

#define PEM_MAX (1u << 20)

struct pems {
    char *ca, *cert, *key;
    size_t key_len;
};

static enum skf_err read_pem(const char *path, const char *what, char **text, size_t *len, struct skf_why *why)
{
    uint8_t *data;
    size_t n;
    SKF_TRY(skf_file_read(path, PEM_MAX, &data, &n, why));
    *text = (char *)data;
    *len = n;
    if (strlen(*text) != n || !strstr(*text, what))
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not PEM with a %s in it", path,
                        what[0] == 'P' ? "private key" : "certificate");
    return SKF_OK;
}

static void pems_free(struct pems *p)
{
    if (p->key)
        skf_wipe(p->key, p->key_len);
    skf_free(p->key);
    skf_free(p->cert);
    skf_free(p->ca);
}

/* Whoever can read the key can speak as this machine. */
static enum skf_err check_mode(const struct skf_wire_tls *t, struct skf_why *why)
{
    struct stat st;
    if (t->is_open_key_fine || stat(t->key_path, &st) != 0 || !(st.st_mode & 077))
        return SKF_OK;
    return skf_fail(why, SKF_ERR_REFUSED, "%s: others can read this key: chmod 600 it, or say --allow-open-keys", t->key_path);
}

static enum skf_err pems_read(const struct skf_wire_tls *t, struct pems *p, struct skf_why *why)
{
    size_t n;
    *p = (struct pems){NULL, NULL, NULL, 0};
    if (!t->cert_path != !t->key_path)
        return skf_fail(why, SKF_ERR_ARG, "a certificate and its key go together");
    if (t->ca_path)
        SKF_TRY(read_pem(t->ca_path, "CERTIFICATE-----", &p->ca, &n, why));
    if (t->cert_path) {
        SKF_TRY(read_pem(t->cert_path, "CERTIFICATE-----", &p->cert, &n, why));
        SKF_TRY(read_pem(t->key_path, "PRIVATE KEY-----", &p->key, &p->key_len, why));
        SKF_TRY(check_mode(t, why));
    }
    return SKF_OK;
}

enum skf_err wire_server_creds(const struct skf_wire_tls *t, grpc_server_credentials **c, struct skf_why *why)
{
    struct pems p;
    enum skf_err e = pems_read(t, &p, why);
    *c = NULL;
    if (e == SKF_OK && !p.cert)
        e = skf_fail(why, SKF_ERR_ARG, "a server needs a certificate");
    if (e == SKF_OK) {
        grpc_ssl_pem_key_cert_pair pair = {p.key, p.cert};
        *c = grpc_ssl_server_credentials_create_ex(p.ca, &pair, 1,
                                                   p.ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                        : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
                                                   NULL);
        if (!*c)
            e = skf_fail(why, SKF_ERR_FORMAT, "%s: cannot be used as a server's certificate", t->cert_path);
    }
    pems_free(&p);
    return e;
}

enum skf_err wire_channel_creds(const struct skf_wire_tls *t, grpc_channel_credentials **c, struct skf_why *why)
{
    struct pems p;
    enum skf_err e = pems_read(t, &p, why);
    *c = NULL;
    /* Without one the core would take the system's roots: any public CA could then speak for the fleet's centre. */
    if (e == SKF_OK && !p.ca)
        e = skf_fail(why, SKF_ERR_ARG, "a client needs the fleet's CA certificate");
    if (e == SKF_OK) {
        grpc_ssl_pem_key_cert_pair pair = {p.key, p.cert};
        *c = grpc_ssl_credentials_create_ex(p.ca, p.cert ? &pair : NULL, NULL, NULL);
        if (!*c)
            e = skf_fail(why, SKF_ERR_FORMAT, "%s: cannot be used as a client's certificate", t->cert_path);
    }
    pems_free(&p);
    return e;
}

/* The core gives peer_spiffe_id only for a certificate with exactly one URI, of that scheme and well formed. */
void wire_identity(grpc_call *call, char out[WIRE_IDENTITY])
{
    out[0] = 0;
    grpc_auth_context *a = grpc_call_auth_context(call);
    if (!a)
        return;
    if (grpc_auth_context_peer_is_authenticated(a)) {
        grpc_auth_property_iterator it =
            grpc_auth_context_find_properties_by_name(a, GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
        const grpc_auth_property *p = grpc_auth_property_iterator_next(&it);
        /* A name cut short, or with a NUL inside, could be somebody else's. */
        if (p && p->value_length < WIRE_IDENTITY && strlen(p->value) == p->value_length)
            memcpy(out, p->value, p->value_length + 1);
    }
    grpc_auth_context_release(a);
}
