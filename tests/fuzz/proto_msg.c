/* Any bytes as any top-level message: the first byte picks the type. What is taken packs again to bytes that are taken
 * again. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/util.h"
#include "proto/fleet.pb-c.h"
#include "proto/local.pb-c.h"
#include "proto/manifest.pb-c.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const ProtobufCMessageDescriptor *const type[] = {
        &skiff__v1__agent_message__descriptor,  &skiff__v1__centre_message__descriptor,
        &skiff__v1__enrol_request__descriptor,  &skiff__v1__enrol_reply__descriptor,
        &skiff__v1__to_worker__descriptor,      &skiff__v1__from_worker__descriptor,
        &skiff__v1__to_gateway__descriptor,     &skiff__v1__from_gateway__descriptor,
        &skiff__v1__manifest__descriptor,       &skiff__v1__publish_message__descriptor,
        &skiff__v1__publish_reply__descriptor,  &skiff__v1__meta_request__descriptor,
        &skiff__v1__meta_answer__descriptor,    &skiff__v1__versions_request__descriptor,
        &skiff__v1__versions_reply__descriptor, &skiff__v1__devices_request__descriptor,
        &skiff__v1__devices_reply__descriptor,  &skiff__v1__rollout_request__descriptor,
        &skiff__v1__rollout_reply__descriptor,  &skiff__v1__pin_request__descriptor,
        &skiff__v1__pin_reply__descriptor,
    };
    if (n == 0)
        return 0;
    const ProtobufCMessageDescriptor *d = type[p[0] % SKF_COUNT(type)];
    ProtobufCMessage *m = NULL, *again = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_msg_unpack(d, p + 1, n - 1, 1u << 20, &m, &why);
    if ((e == SKF_OK) != (m != NULL) || (e != SKF_OK && !why.text[0]) || e == SKF_ERR_NOMEM)
        abort(); /* after the walk protobuf-c has nothing to refuse, so "no memory" would be a disagreement of the two
                  */
    if (m) {
        uint8_t *q;
        size_t len;
        if (skf_msg_pack(m, &q, &len) != SKF_OK || skf_msg_unpack(d, q, len, 32u << 20, &again, &why) != SKF_OK)
            abort();
        skf_free(q);
    }
    skf_msg_free(again);
    skf_msg_free(m);
    return 0;
}
