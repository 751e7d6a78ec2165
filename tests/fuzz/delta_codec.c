/* A payload of integer differences from anybody: a byte chooses the type (its highest bit: with a side, whose length follows in a byte
 * behind the next), a byte the size; then the side, and the rest is the payload. */
#include "delta/int_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const enum skf_type types[] = {SKF_T_BF16, SKF_T_F32, SKF_T_F64, SKF_T_I8,   SKF_T_Q4_0, SKF_T_Q4_1,
                                      SKF_T_Q5_1, SKF_T_Q8_0, SKF_T_Q4_K, SKF_T_Q6_K, SKF_T_MXFP4, SKF_T_Q2_K, SKF_T_Q3_K, SKF_T_IQ4_XS, SKF_T_F16};
static uint8_t old[34 * 256 * 16], out[sizeof old]; /* rows enough for guesses where types have them */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_work w;
    if (n < 2 || skf_work_init(&w) != SKF_OK)
        return 0;
    enum skf_type t = types[(p[0] & 127) % (sizeof types / sizeof types[0])];
    size_t grain = skf_int_grain(t), bytes = grain * (1 + p[1]) * (grain <= 34 ? 16 : 1);
    for (size_t i = 0; i < bytes; i++)
        old[i] = (uint8_t)(i * 167 + (i >> 8));
    const uint8_t *payload = p + 2;
    size_t side_n = 0, left = n - 2;
    if ((p[0] & 128) && left && payload[0] < left) {
        side_n = payload[0];
        payload += 1 + side_n;
        left -= 1 + side_n;
    }
    enum skf_err e = skf_int_get(&w, t, (uint64_t)grain * (1 + p[1] / 4), side_n ? p + 3 : NULL, side_n, payload, left, old, out,
                                 bytes);
    if (e != SKF_OK && e != SKF_ERR_FORMAT && e != SKF_ERR_NOMEM)
        __builtin_trap();
    skf_work_free(&w);
    return 0;
}
