/* The journal's record: whatever is taken packs again and reads back as the same. */
#include <string.h>

#include "agent/agent_priv.h"
#include "base/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_record r, again;
    char *text;
    size_t len;
    if (skf_record_parse(p, n, &r, NULL) != SKF_OK)
        return 0;
    if (skf_record_pack(&r, &text, &len) != SKF_OK) {
        (void)skf_phase_name(r.phase);
        return 0; /* a text that is not UTF-8 does not come out of a parser */
    }
    if (skf_record_parse(text, len, &again, NULL) != SKF_OK || again.phase != r.phase || again.bytes != r.bytes ||
        strcmp(again.assign.delta, r.assign.delta) != 0 || strcmp(again.error, r.error) != 0)
        __builtin_trap();
    skf_free(text);
    return 0;
}
