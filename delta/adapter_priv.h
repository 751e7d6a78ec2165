/*
 * SKF_CODE_ADAPTER: rows of the source changed by a low-rank product, as `skiff merge` does it (model/adapter.h), and what the result
 * still differs from that.
 *
 * The columns A [rank][inputs] are the tensor's side, or stand in the payload of its only chunk; the rows of B that a chunk needs stand in
 * its payload, so that a chunk can be made by itself in bounded memory.
 */
#ifndef SKF_DELTA_ADAPTER_PRIV_H
#define SKF_DELTA_ADAPTER_PRIV_H

#include "delta/work_priv.h"
#include "model/adapter.h"

#define ADAPTER_RANK 256             /* at most: it bounds the time that a chunk may take, too */
#define ADAPTER_NUMBERS (1u << 20)   /* of A, and of a chunk's rows of B, at most */

/* How rows are changed; never renumbered. */
enum adapter_rule {
    ADAPTER_CARRIED,  /* as skiff merge: quantized rows keep their grid, and carry the error along */
    ADAPTER_NEAREST,  /* each row quantized anew, as ggml does */
    ADAPTER_TWICE,    /* the change is rounded to the type, then the sum */
    ADAPTER_RULES
};
enum adapter_fix { FIX_NONE, FIX_INT, FIX_NUDGE, FIX_COUNT }; /* what follows the factors */
#define ADAPTER_FIX_AT 4 /* bit of the first byte; the rule in the lower bits, the others 0 */

/* Whether chunks of this shape may be coded so: whole rows of a type that can be merged. */
bool is_adapter_shape(enum skf_type t, uint64_t row_bytes, uint64_t within, uint64_t n);

/* ---- numbers ------------------------------------------------------------------------------------------------------------------- */
/* n float32 numbers, all finite; stored in the shortest of float32, half and bfloat16 that holds them. */
SKF_MUST enum skf_err adapter_put_numbers(struct skf_work *w, const float *x, size_t n, struct skf_buf *out);
SKF_MUST enum skf_err adapter_get_numbers(struct skf_work *w, struct skf_reader *r, float *x, size_t n);

/* ---- A ------------------------------------------------------------------------------------------------------------------------- */
struct adapter_a {
    uint64_t rank, inputs;
    float scale;
    const float *x; /* [rank][inputs] */
};
struct adapter_chunk {
    enum skf_type type;
    uint64_t row_bytes;
    const uint8_t *side; /* NULL: A stands in the payload */
    size_t side_n;
    const uint8_t *side_digest;
};
SKF_MUST enum skf_err adapter_put_a(struct skf_work *w, const struct adapter_a *a, struct skf_buf *out);
/* A of the chunk's side, which the chunk before had too as a rule. */
SKF_MUST enum skf_err adapter_side_a(struct skf_work *w, const struct adapter_chunk *c, uint64_t inputs,
                                     struct adapter_a *a);

/* ---- chunks -------------------------------------------------------------------------------------------------------------------- */
/* Makes n bytes (whole rows) of the result from the same place of the source. SKF_ERR_FORMAT. */
SKF_MUST enum skf_err adapter_get(struct skf_work *w, const struct adapter_chunk *c, const uint8_t *payload,
                                  size_t payload_n, const uint8_t *old, uint8_t *neu, size_t n);
/* Rows of `old` changed by rule, `b` their rows of B. `place`: of a type that can be nudged, where each sum lay; may be NULL.
 * SKF_ERR_FORMAT when something is not finite. */
SKF_MUST enum skf_err adapter_merge(struct skf_work *w, enum adapter_rule rule, const struct adapter_chunk *c,
                                    const struct adapter_a *a, const float *b, const uint8_t *old, uint8_t *neu,
                                    uint16_t *place, size_t n);

/* ---- nudges --------------------------------------------------------------------------------------------------------------------- */
bool is_nudge_type(enum skf_type t);
void adapter_places(const float *x, bool is_half, uint16_t *place, size_t n);
/* n elements of `merged` become those of `neu`. */
SKF_MUST enum skf_err adapter_put_nudges(struct skf_work *w, const uint16_t *place, const uint8_t *merged,
                                         const uint8_t *neu, size_t n, struct skf_buf *out);
SKF_MUST enum skf_err adapter_get_nudges(struct skf_work *w, struct skf_reader *r, const uint16_t *place, uint8_t *neu,
                                         size_t n);

#endif
