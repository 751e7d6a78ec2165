/*
 * Tensor element types: ggml's numbering, with block length and block bytes of every one of them so that any file can be
 * carried, whether or not we can compute with the type.
 */
#ifndef SKF_MODEL_TENSOR_H
#define SKF_MODEL_TENSOR_H

#include "base/err.h"

enum skf_type {
    SKF_T_F32 = 0, SKF_T_F16 = 1, SKF_T_Q4_0 = 2, SKF_T_Q4_1 = 3, SKF_T_Q5_0 = 6, SKF_T_Q5_1 = 7, SKF_T_Q8_0 = 8,
    SKF_T_Q8_1 = 9, SKF_T_Q2_K = 10, SKF_T_Q3_K = 11, SKF_T_Q4_K = 12, SKF_T_Q5_K = 13, SKF_T_Q6_K = 14,
    SKF_T_Q8_K = 15, SKF_T_IQ2_XXS = 16, SKF_T_IQ2_XS = 17, SKF_T_IQ3_XXS = 18, SKF_T_IQ1_S = 19, SKF_T_IQ4_NL = 20,
    SKF_T_IQ3_S = 21, SKF_T_IQ2_S = 22, SKF_T_IQ4_XS = 23, SKF_T_I8 = 24, SKF_T_I16 = 25, SKF_T_I32 = 26,
    SKF_T_I64 = 27, SKF_T_F64 = 28, SKF_T_IQ1_M = 29, SKF_T_BF16 = 30, SKF_T_Q4_0_4_4 = 31, SKF_T_Q4_0_4_8 = 32,
    SKF_T_Q4_0_8_8 = 33, SKF_T_TQ1_0 = 34, SKF_T_TQ2_0 = 35, SKF_T_IQ4_NL_4_4 = 36, SKF_T_IQ4_NL_4_8 = 37,
    SKF_T_IQ4_NL_8_8 = 38, SKF_T_MXFP4 = 39, SKF_T_NVFP4 = 40, SKF_T_Q1_0 = 41,
    /* What only safetensors has; never written to GGUF. */
    SKF_T_U8 = 1000, SKF_T_U16, SKF_T_U32, SKF_T_U64, SKF_T_BOOL, SKF_T_F8_E4M3, SKF_T_F8_E5M2, SKF_T_F8_E8M0,
    SKF_T_F4, SKF_T_F6_E2M3, SKF_T_F6_E3M2, SKF_T_C64
};

struct skf_type_info {
    enum skf_type type;
    const char *name;     /* lower case: "q4_1" */
    uint32_t block;       /* elements in a block; 1 for plain types */
    uint32_t block_bytes; /* bytes of a block */
};
/* NULL for a number that is none of the above. */
const struct skf_type_info *skf_type_info(uint32_t type);

#define SKF_MAX_DIMS 8

struct skf_tensor {
    const char *name;       /* owned by the model */
    enum skf_type type;
    uint32_t n_dims;        /* 0 for a scalar */
    uint64_t dims[SKF_MAX_DIMS]; /* dims[0] is the row: contiguous elements; unused ones are 1 */
    uint64_t offset, bytes; /* where it stands in the file, from the file's start */
    uint64_t row_bytes;     /* bytes of dims[0] elements, never 0; rows = bytes / row_bytes */
};

/* Rows of `n` elements (a whole number of blocks) to and from float32; quant.h says for which types, SKF_ERR_UNSUPPORTED for
 * others. Rounding as the quantizers of the `gguf` package, or ggml's reference ones where that has none, bit for bit on every
 * machine. */
SKF_MUST enum skf_err skf_dequantize(enum skf_type t, const void *q, float *x, uint64_t n);
SKF_MUST enum skf_err skf_quantize(enum skf_type t, const float *x, void *q, uint64_t n);

/* IEEE half and bfloat16, round to nearest even. */
float skf_f16_to_f32(uint16_t h);
uint16_t skf_f32_to_f16(float f);
static inline float skf_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = {.u = (uint32_t)h << 16};
    return v.f;
}
uint16_t skf_f32_to_bf16(float f);

#endif
