/*
 * Attention for one instruction set.
 */
#if defined(__x86_64__)
#include "kernels/cpu/attention_body_priv.h"

void skf_attention_avx2(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t span, float *tile)
{
    attention(kv, rows, n, span, tile);
}
#else
typedef int skf_no_attention_avx2; /* a file must hold something */
#endif
