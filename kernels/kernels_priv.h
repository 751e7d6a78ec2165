/*
 * What the implementations of the operator table share: their tables, the block formats, and finding rows.
 */
#ifndef SKF_KERNELS_PRIV_H
#define SKF_KERNELS_PRIV_H

#include "kernels/kernels.h"

extern const struct skf_ops skf_ops_ref;
#if defined(__x86_64__)
extern const struct skf_ops skf_ops_avx2, skf_ops_avx512;
#endif
#if defined(__aarch64__)
extern const struct skf_ops skf_ops_neon;
#endif

#define SKF_INLINE static inline __attribute__((always_inline))
/* Before a loop of few rounds over an array of vectors, which then lives in registers: -O2 by itself keeps it in memory. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
  #define SKF_UNROLL /* bounds that are not known without all of the optimizer are no error there */
#else
  #define SKF_UNROLL _Pragma("GCC unroll 16")
#endif

/* ggml's blocks of 32: half scale (and half minimum), then the codes; a 4-bit code of element i < 16 is the low half of byte
 * i, that of element i + 16 its high half. */
enum { SKF_Q4_0_BYTES = 18, SKF_Q4_1_BYTES = 20, SKF_Q8_0_BYTES = 34 };

#define SKF_TINY 1e-30f /* a block whose largest |x| is below this is zero */

static inline uint16_t skf_load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t skf_load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* Addresses of rows row .. row + n - 1; places n .. cap - 1 repeat the last one, so that a kernel may compute a full group.
 * *seg is where to begin looking and is moved on: rows are asked for in rising order. */
static inline void skf_row_group(const struct skf_weight *w, uint32_t row, uint32_t n, uint32_t cap, uint32_t *seg,
                                 const uint8_t **rp)
{
    const struct skf_rows *s = &w->seg[*seg];
    for (uint32_t i = 0; i < n; i++) {
        while (row + i >= s->first + s->n)
            s++;
        rp[i] = s->p + (uint64_t)(row + i - s->first) * w->row_bytes;
    }
    for (uint32_t i = n; i < cap; i++)
        rp[i] = rp[n - 1];
    *seg = (uint32_t)(s - w->seg);
}
/* Products with w->packed; false where there is no code for its type, and nothing was done. */
typedef bool skf_sparse_fn(const struct skf_sparse *s, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y, size_t ldy);
skf_sparse_fn skf_sparse_ref, skf_sparse_avx2, skf_sparse_vbmi2, skf_sparse_neon;
bool is_sparse_matmul(enum skf_isa isa, const struct skf_weight *w, const struct skf_acts *a, uint32_t row0, uint32_t row1, float *y,
                      size_t ldy);
/* A head in a page, by its parts. */
struct skf_kv_parts {
    const uint8_t *k, *v;
    const uint8_t *dk, *dv; /* scales: halves */
};
static inline struct skf_kv_parts skf_kv_parts(enum skf_kv_type t, const uint8_t *head, uint32_t head_dim)
{
    size_t codes = (size_t)SKF_KV_PAGE * head_dim * (t == SKF_KV_F16 ? 2 : 1), scales = t == SKF_KV_F16 ? 0 : (size_t)head_dim / 32 * SKF_KV_PAGE * 2;
    return (struct skf_kv_parts){head, head + codes + scales, head + codes, head + 2 * codes + scales};
}
/* What a row sees of a page, as places in it: *lo .. *hi - 1; false for nothing. */
static inline bool is_kv_seen(const struct skf_attn_row *r, uint32_t page, uint32_t *lo, uint32_t *hi)
{
    uint32_t begin = page * SKF_KV_PAGE;
    *lo = r->first > begin ? SKF_MIN(r->first - begin, SKF_KV_PAGE) : 0;
    *hi = r->end > begin ? SKF_MIN(r->end - begin, SKF_KV_PAGE) : 0;
    return *lo < *hi;
}
#define SKF_ATTN_LOWEST (-3.402823466e38f)
typedef void skf_attention_fn(const struct skf_kv_head *kv, const struct skf_attn_row *rows, uint32_t n, uint32_t span, float *tile);
skf_attention_fn skf_attention_ref, skf_attention_avx2, skf_attention_avx512, skf_attention_neon;
/* The segment that holds a row. */
uint32_t skf_weight_seg(const struct skf_weight *w, uint32_t row);

#endif
