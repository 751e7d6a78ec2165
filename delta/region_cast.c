/*
 * Numbers of one type as those of another (region_priv.h): a version that is published anew as half floats, or quantized, is to a box that
 * has it in another type what it can make by itself, and few differences.
 */
#include <math.h>

#include "delta/region_priv.h"

#define BATCH 256u /* elements, whole blocks of every type here */

static bool is_known(enum skf_type t)
{
    static const enum skf_type known[] = {SKF_T_F32,  SKF_T_F16,  SKF_T_BF16, SKF_T_Q8_0,
                                          SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1};
    for (size_t i = 0; i < SKF_COUNT(known); i++)
        if (known[i] == t)
            return true;
    return false;
}

bool is_castable(enum skf_type old, enum skf_type type, uint64_t n, uint64_t *old_n)
{
    if (old == type || !is_known(old) || !is_known(type))
        return false;
    const struct skf_type_info *a = skf_type_info((uint32_t)old), *b = skf_type_info((uint32_t)type);
    if (n % b->block_bytes || n / b->block_bytes * b->block % a->block)
        return false;
    *old_n = n / b->block_bytes * b->block / a->block * a->block_bytes;
    return true;
}

enum skf_err skf_cast(enum skf_type old, enum skf_type type, const uint8_t *p, uint8_t *out, size_t n)
{
    const struct skf_type_info *a = skf_type_info((uint32_t)old), *b = skf_type_info((uint32_t)type);
    float x[BATCH];
    for (uint64_t left = n / b->block_bytes * b->block, k; left; left -= k) {
        bool is_finite = true;
        k = SKF_MIN(left, (uint64_t)BATCH);
        SKF_TRY(skf_dequantize(old, p, x, k));
        for (uint64_t i = 0; i < k; i++)
            is_finite = is_finite && isfinite(x[i]);
        if (!is_finite)
            return SKF_ERR_FORMAT;
        SKF_TRY(skf_quantize(type, x, out, k));
        p += k / a->block * a->block_bytes;
        out += k / b->block * b->block_bytes;
    }
    return SKF_OK;
}
