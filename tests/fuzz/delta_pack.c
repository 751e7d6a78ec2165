/* A packed piece from anybody: the first byte chooses how long it says it is, the rest is the piece. */
#include "delta/lz_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static uint8_t out[32 * 256];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_area model = {0};
    if (n < 1)
        return 0;
    enum skf_err e = skf_lz_get(&model, p + 1, n - 1, out, ((size_t)p[0] + 1) * 32);
    if (e != SKF_OK && e != SKF_ERR_FORMAT && e != SKF_ERR_NOMEM)
        __builtin_trap();
    skf_area_free(&model);
    return 0;
}
