/* The gateway's file of keys, as any editor may leave it: refused with the line, or keys that have a name and a digest of their own. */
#include "base/alloc.h"
#include "gateway/keys.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct gw_key *keys = NULL;
    struct skf_why why = {{0}};
    if (skf_gw_keys_parse((const char *)p, n, 0, &keys, &why) != SKF_OK) {
        if (keys || !why.text[0])
            __builtin_trap();
        return 0;
    }
    for (const struct gw_key *k = keys; k; k = k->next)
        for (const struct gw_key *o = k->next; o; o = o->next)
            if (strcmp(k->name, o->name) == 0 || memcmp(k->digest, o->digest, SKF_DIGEST) == 0 || !k->name[0])
                __builtin_trap();
    skf_gw_keys_free(keys);
    return 0;
}
