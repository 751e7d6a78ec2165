/*
 * The connection of the verbs that talk to a distributor: --centre HOST:PORT and --tls DIR (operator.crt, operator.key,
 * ca.crt), or SKIFF_CENTRE and SKIFF_TLS.
 */
#ifndef SKF_CLI_CONNECT_H
#define SKF_CLI_CONNECT_H

#include <limits.h>

#include <protobuf-c/protobuf-c.h>

#include "cli/cli.h"
#include "wire/wire.h"

struct skf_connect {
    const char *centre, *tls; /* options; NULL: the environment's */
    bool is_open_key_fine;
    struct skf_wire_channel *channel;
};
/* Entries of a verb's options. */
#define SKF_CONNECT_OPTS(c)                                                                                            \
    {.name = "--centre", .value = "HOST:PORT", .help = "the distributor (or SKIFF_CENTRE)", .text = &(c)->centre},     \
        {.name = "--allow-open-keys", .help = "use operator.key though others can read it", .flag = &(c)->is_open_key_fine}, \
    {                                                                                                                  \
        .name = "--tls", .value = "DIR", .help = "operator.crt, operator.key, ca.crt (or SKIFF_TLS)",                  \
        .text = &(c)->tls                                                                                              \
    }

/* Checks the certificate first, so that an expired or foreign one is named; does not connect yet. */
SKF_MUST enum skf_err skf_connect_open(struct skf_connect *c, struct skf_why *why);
void skf_connect_close(struct skf_connect *c);
/* Asks and waits; the answer is freed with skf_msg_free. `method` is "Pin" of skiff.v1.Operator. */
SKF_MUST enum skf_err skf_connect_call(struct skf_connect *c, const char *method, const ProtobufCMessage *question,
                                       const ProtobufCMessageDescriptor *d, ProtobufCMessage **answer,
                                       struct skf_why *why);
/* The whole of a verb that asks one question: opens, asks, closes. */
SKF_MUST enum skf_err skf_connect_once(struct skf_connect *c, const char *method, const ProtobufCMessage *question,
                                       const ProtobufCMessageDescriptor *d, ProtobufCMessage **answer,
                                       struct skf_why *why);

/* Members of an answer in JSON. */
SKF_MUST enum skf_err skf_json_put_str(skf_json *o, const char *key, const char *s);
SKF_MUST enum skf_err skf_json_put_u64(skf_json *o, const char *key, uint64_t v);
/* Prints the object when e is SKF_OK, otherwise fails; the verb's exit status. */
int skf_json_finish(enum skf_err e, skf_json *take_j);

#endif
