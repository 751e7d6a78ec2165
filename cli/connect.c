/* The connection to a distributor (connect.h). */
#include "cli/connect.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "proto/msg.h"
#include "trust/cert.h"

#define CALL_MS 30000

static enum skf_err pick(const char **value, const char *variable, const char *option, struct skf_why *why)
{
    if (!*value)
        *value = getenv(variable);
    return *value && **value ? SKF_OK : skf_fail(why, SKF_ERR_ARG, "give %s or set %s", option, variable);
}

enum skf_err skf_connect_open(struct skf_connect *c, struct skf_why *why)
{
    char ca[PATH_MAX], crt[PATH_MAX], key[PATH_MAX];
    int64_t not_after;
    SKF_TRY(pick(&c->centre, "SKIFF_CENTRE", "--centre HOST:PORT", why));
    SKF_TRY(pick(&c->tls, "SKIFF_TLS", "--tls DIR", why));
    SKF_TRY(skf_path(ca, sizeof ca, c->tls, "ca.crt"));
    SKF_TRY(skf_path(crt, sizeof crt, c->tls, "operator.crt"));
    SKF_TRY(skf_path(key, sizeof key, c->tls, "operator.key"));
    SKF_TRY(skf_cert_check(crt, ca, skf_now_unix(), &not_after, why));
    struct skf_wire_tls tls = {ca, crt, key, c->is_open_key_fine};
    return skf_wire_channel_open(c->centre, &tls, NULL, &c->channel, why);
}

void skf_connect_close(struct skf_connect *c)
{
    if (c->channel)
        skf_wire_channel_close(c->channel);
    c->channel = NULL;
}

enum skf_err skf_connect_call(struct skf_connect *c, const char *method, const ProtobufCMessage *question,
                              const ProtobufCMessageDescriptor *d, ProtobufCMessage **answer, struct skf_why *why)
{
    uint8_t *p = NULL, *got = NULL;
    size_t n, got_len;
    char path[64];
    enum skf_err e;
    (void)snprintf(path, sizeof path, "/skiff.v1.Operator/%s", method);
    SKF_GO(e, skf_msg_pack(question, &p, &n));
    SKF_GO(e, skf_wire_call(c->channel, path, p, n, CALL_MS, &got, &got_len, why));
    e = skf_msg_unpack(d, got, got_len, SKF_WIRE_MESSAGE_MAX, answer, why);
out:
    skf_free(p);
    skf_free(got);
    return e;
}

enum skf_err skf_connect_once(struct skf_connect *c, const char *method, const ProtobufCMessage *question,
                              const ProtobufCMessageDescriptor *d, ProtobufCMessage **answer, struct skf_why *why)
{
    enum skf_err e = skf_connect_open(c, why);
    if (e == SKF_OK)
        e = skf_connect_call(c, method, question, d, answer, why);
    skf_connect_close(c);
    return e;
}

enum skf_err skf_json_put_str(skf_json *o, const char *key, const char *s)
{
    return skf_json_set(o, key, skf_json_str(s));
}
enum skf_err skf_json_put_u64(skf_json *o, const char *key, uint64_t v)
{
    return skf_json_set(o, key, skf_json_int((int64_t)v));
}

int skf_json_finish(enum skf_err e, skf_json *take_j)
{
    if (e == SKF_OK)
        return skf_cli_print_json(take_j);
    skf_json_free(take_j);
    return skf_cli_fail(e, NULL);
}
