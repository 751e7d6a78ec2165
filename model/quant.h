/*
 * What the quantizer can do with a type; skf_quantize and skf_dequantize themselves stand with the types (tensor.h).
 */
#ifndef SKF_MODEL_QUANT_H
#define SKF_MODEL_QUANT_H

#include "model/tensor.h"

/* F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, TQ1_0, TQ2_0, MXFP4, IQ4_XS and NVFP4. */
bool is_dequantizable(enum skf_type t);
/* Whether importance changes what is written: Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL. */
bool is_weighable(enum skf_type t);

/* As skf_quantize for one row of n elements whose errors count by importance[n] >= 0 (the mean square of what the element is
 * multiplied with); NULL, or a type without a weighed form: as skf_quantize. Equal to ggml's weighted quantizers to the bit. */
SKF_MUST enum skf_err skf_quantize_weighed(enum skf_type t, const float *x, const float *importance, void *q, uint64_t n);

/* For rows of n elements of which many are zero: Q4_1 and Q5_1 on grids that hold zero exactly; other types as skf_quantize_weighed. */
SKF_MUST enum skf_err skf_quantize_sparse(enum skf_type t, const float *x, const float *importance, void *q, uint64_t n);
bool has_exact_zero(enum skf_type t); /* whether zeros stay zero then */

#endif
