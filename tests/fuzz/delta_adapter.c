/* A payload of an adapter chunk from anybody: three bytes choose type, rows, and how much of the rest is the tensor's side. */
#include "delta/adapter_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const enum skf_type types[] = {SKF_T_F32,  SKF_T_F16,  SKF_T_BF16, SKF_T_Q8_0,
                                      SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1};
enum { INPUTS = 64, ROWS = 32 };
static uint8_t old[INPUTS * ROWS * 4], out[sizeof old];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_work w;
    uint8_t digest[32] = {0};
    if (n < 3 || skf_work_init(&w) != SKF_OK)
        return 0;
    enum skf_type t = types[p[0] % (sizeof types / sizeof types[0])];
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    uint64_t row = INPUTS / info->block * info->block_bytes, rows = 1 + p[1] % ROWS;
    for (size_t i = 0; i < rows * row; i++) /* halves and scales that are numbers */
        old[i] = (uint8_t)(i % 2 ? 0x20 + i * 167 % 24 : i * 31);
    struct adapter_chunk c = {.type = t, .row_bytes = row};
    size_t side_n = p[2] ? (n - 3) * p[2] / 256 : 0;
    if (side_n) {
        c.side = p + 3;
        c.side_n = side_n;
        c.side_digest = digest;
    }
    for (int again = 0; again < 2; again++) { /* the second time the side is known */
        enum skf_err e = adapter_get(&w, &c, p + 3 + side_n, n - 3 - side_n, old, out, rows * row);
        if (e != SKF_OK && e != SKF_ERR_FORMAT && e != SKF_ERR_NOMEM)
            __builtin_trap();
    }
    skf_work_free(&w);
    return 0;
}
