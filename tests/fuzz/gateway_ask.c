/* A request's body as any client may send it: refused with a reason, or a frame that a worker can read. The first byte picks the endpoint. */
#include "base/alloc.h"
#include "gateway/ask.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_gw_ask ask;
    struct skf_gw_refusal no;
    Skiff__V1__ToWorker *m = NULL;
    if (n == 0)
        return 0;
    if (!is_gw_ask(p + 1, n - 1, p[0] & 1, 3, &ask, &no)) {
        if (no.status < 400 || !no.text[0] || ask.frame)
            __builtin_trap();
        return 0;
    }
    if (SKF_UNPACK(skiff__v1__to_worker, Skiff__V1__ToWorker, ask.frame, ask.frame_len, 8 << 20, &m, NULL) != SKF_OK)
        __builtin_trap();
    if (m->kind_case != SKIFF__V1__TO_WORKER__KIND_GENERATE || (m->generate->is_chat && !m->generate->n_messages))
        __builtin_trap();
    skf_msg_free(&m->base);
    skf_free(ask.frame);
    return 0;
}
