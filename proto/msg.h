/*
 * Packed protobuf in and out, checked.  protobuf-c accepts invalid UTF-8 and embedded NULs and allocates what a message
 * claims, so everything that comes from outside passes through skf_msg_unpack: size capped, allocation capped and
 * counted through our hook, every string valid UTF-8 without NUL and at most SKF_MSG_STRING_MAX bytes, unknown fields
 * bounded.  The schemas have no recursive types; nesting is bounded by them.
 */
#ifndef SKF_PROTO_MSG_H
#define SKF_PROTO_MSG_H

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"

#define SKF_MSG_STRING_MAX (1u << 20)

/* `n` over max_n is SKF_ERR_LIMIT; anything malformed SKF_ERR_FORMAT naming message and field. Free with skf_msg_free.
 */
SKF_MUST enum skf_err skf_msg_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n, size_t max_n,
                                     ProtobufCMessage **m, struct skf_why *why);
void skf_msg_free(ProtobufCMessage *m); /* NULL is fine; only for what skf_msg_unpack made */
/* Packs into bytes that the caller frees with skf_free. */
SKF_MUST enum skf_err skf_msg_pack(const ProtobufCMessage *m, uint8_t **p, size_t *n);

/* One line at the caller: SKF_UNPACK(skiff__v1__manifest, Skiff__V1__Manifest, p, n, max, &msg, why). */
#define SKF_UNPACK(lower, type, p, n, max, out, why)                                                                   \
    skf_msg_unpack(&lower##__descriptor, (p), (n), (max), (ProtobufCMessage **)(type **)(out), (why))

#endif
