/* The element types, with the bytes of a block of each (ggml's ggml-common.h; safetensors' dtypes). */
#include "base/buf.h"
#include "model/model_priv.h"

static const struct skf_type_info table[] = {
    {SKF_T_F32, "f32", 1, 4},
    {SKF_T_F16, "f16", 1, 2},
    {SKF_T_Q4_0, "q4_0", 32, 18},
    {SKF_T_Q4_1, "q4_1", 32, 20},
    {SKF_T_Q5_0, "q5_0", 32, 22},
    {SKF_T_Q5_1, "q5_1", 32, 24},
    {SKF_T_Q8_0, "q8_0", 32, 34},
    {SKF_T_Q8_1, "q8_1", 32, 36},
    {SKF_T_Q2_K, "q2_k", 256, 84},
    {SKF_T_Q3_K, "q3_k", 256, 110},
    {SKF_T_Q4_K, "q4_k", 256, 144},
    {SKF_T_Q5_K, "q5_k", 256, 176},
    {SKF_T_Q6_K, "q6_k", 256, 210},
    {SKF_T_Q8_K, "q8_k", 256, 292},
    {SKF_T_IQ2_XXS, "iq2_xxs", 256, 66},
    {SKF_T_IQ2_XS, "iq2_xs", 256, 74},
    {SKF_T_IQ3_XXS, "iq3_xxs", 256, 98},
    {SKF_T_IQ1_S, "iq1_s", 256, 50},
    {SKF_T_IQ4_NL, "iq4_nl", 32, 18},
    {SKF_T_IQ3_S, "iq3_s", 256, 110},
    {SKF_T_IQ2_S, "iq2_s", 256, 82},
    {SKF_T_IQ4_XS, "iq4_xs", 256, 136},
    {SKF_T_I8, "i8", 1, 1},
    {SKF_T_I16, "i16", 1, 2},
    {SKF_T_I32, "i32", 1, 4},
    {SKF_T_I64, "i64", 1, 8},
    {SKF_T_F64, "f64", 1, 8},
    {SKF_T_IQ1_M, "iq1_m", 256, 56},
    {SKF_T_BF16, "bf16", 1, 2},
    {SKF_T_Q4_0_4_4, "q4_0_4_4", 32, 18},
    {SKF_T_Q4_0_4_8, "q4_0_4_8", 32, 18},
    {SKF_T_Q4_0_8_8, "q4_0_8_8", 32, 18},
    {SKF_T_TQ1_0, "tq1_0", 256, 54},
    {SKF_T_TQ2_0, "tq2_0", 256, 66},
    {SKF_T_IQ4_NL_4_4, "iq4_nl_4_4", 32, 18},
    {SKF_T_IQ4_NL_4_8, "iq4_nl_4_8", 32, 18},
    {SKF_T_IQ4_NL_8_8, "iq4_nl_8_8", 32, 18},
    {SKF_T_MXFP4, "mxfp4", 32, 17},
    {SKF_T_NVFP4, "nvfp4", 64, 36},
    {SKF_T_Q1_0, "q1_0", 128, 18},
    {SKF_T_U8, "u8", 1, 1},
    {SKF_T_U16, "u16", 1, 2},
    {SKF_T_U32, "u32", 1, 4},
    {SKF_T_U64, "u64", 1, 8},
    {SKF_T_BOOL, "bool", 1, 1},
    {SKF_T_F8_E4M3, "f8_e4m3", 1, 1},
    {SKF_T_F8_E5M2, "f8_e5m2", 1, 1},
    {SKF_T_F8_E8M0, "f8_e8m0", 1, 1},
    {SKF_T_F4, "f4", 2, 1},
    {SKF_T_F6_E2M3, "f6_e2m3", 4, 3},
    {SKF_T_F6_E3M2, "f6_e3m2", 4, 3},
    {SKF_T_C64, "c64", 1, 8},
};

const struct skf_type_info *skf_type_info(uint32_t type)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if ((uint32_t)table[i].type == type)
            return &table[i];
    return NULL;
}

enum skf_err skf_tensor_size(struct skf_tensor *t, struct skf_why *why)
{
    const struct skf_type_info *ti = skf_type_info((uint32_t)t->type);
    if (!ti)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "type %u is not known", (unsigned)t->type);
    uint64_t rows = 1;
    bool is_empty = t->dims[0] == 0;
    for (uint32_t i = 1; i < SKF_MAX_DIMS; i++) {
        if (!is_mul_ok(rows, t->dims[i] ? t->dims[i] : 1, &rows))
            return skf_fail(why, SKF_ERR_FORMAT, "its dimensions overflow");
        is_empty = is_empty || t->dims[i] == 0;
    }
    if (t->dims[0] % ti->block)
        return skf_fail(why, SKF_ERR_FORMAT, "rows of %llu elements are not whole blocks of %u (type %s)",
                        (unsigned long long)t->dims[0], ti->block, ti->name);
    if (!is_mul_ok(t->dims[0] / ti->block, ti->block_bytes, &t->row_bytes) || !is_mul_ok(t->row_bytes, rows, &t->bytes) ||
        t->bytes > INT64_MAX)
        return skf_fail(why, SKF_ERR_FORMAT, "its dimensions overflow");
    if (is_empty)
        t->bytes = 0;
    if (t->row_bytes == 0)
        t->row_bytes = ti->block_bytes; /* never 0, so that anybody may divide by it */
    return SKF_OK;
}
