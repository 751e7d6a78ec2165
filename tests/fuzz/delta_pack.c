/* A packed piece from anybody: the first byte chooses how long it says it is and in how many parts it is asked for, the rest is the piece. */
#include "delta/lz_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static uint8_t out[32 * 256];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n < 1)
        return 0;
    const size_t all = ((size_t)p[0] + 1) * 32, part = p[0] % 2 ? all : all / 3;
    struct skf_lz_in *in = skf_lz_in_new();
    enum skf_err e = in ? skf_lz_open(in, p + 1, n - 1, all) : SKF_ERR_NOMEM;
    for (size_t at = 0; at < all && e == SKF_OK; at += part)
        e = skf_lz_next(in, p + 1, out + at, SKF_MIN(part, all - at));
    if (e != SKF_OK && e != SKF_ERR_FORMAT && e != SKF_ERR_NOMEM)
        __builtin_trap();
    skf_lz_in_free(in);
    return 0;
}
