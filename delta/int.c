/* Which types are coded by integer differences, and by whom (int_priv.h). */
#include "delta/int_priv.h"

/* Words: width in bytes (0 for no such type), and for floats where the exponent's top 8 bits (or all) begin. */
static unsigned word_of(enum skf_type t, unsigned *exponent_at)
{
    *exponent_at = 0;
    switch (t) {
    case SKF_T_F64:
        *exponent_at = 55;
        return 8;
    case SKF_T_F32:
        *exponent_at = 23;
        return 4;
    case SKF_T_F16:
        *exponent_at = 10;
        return 2;
    case SKF_T_BF16:
        *exponent_at = 7;
        return 2;
    case SKF_T_F8_E4M3:
        *exponent_at = 3;
        return 1;
    case SKF_T_F8_E5M2:
        *exponent_at = 2;
        return 1;
    case SKF_T_I64:
    case SKF_T_U64:
        return 8;
    case SKF_T_I32:
    case SKF_T_U32:
        return 4;
    case SKF_T_I16:
    case SKF_T_U16:
        return 2;
    case SKF_T_I8:
    case SKF_T_U8:
    case SKF_T_BOOL:
        return 1;
    default:
        return 0;
    }
}

uint32_t skf_int_grain(enum skf_type t)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    return width ? width : skf_blocks_grain(t);
}

enum skf_err skf_int_put(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side, size_t side_n,
                         const uint8_t *old, const uint8_t *neu, size_t n, struct skf_buf *out)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    uint32_t grain = skf_int_grain(t);
    if (!grain || n % grain || n == 0 || n > SKF_CHUNK_MAX)
        return SKF_ERR_ARG;
    if (!width)
        return skf_blocks_put(w, t, row_bytes, side, side_n, old, neu, n, out);
    uint64_t row = row_bytes % width == 0 ? row_bytes / width : 0;
    struct skf_words o = {old, (uint8_t *)(uintptr_t)neu, (uint32_t)(n / width), width, exponent_at, 0, row, t, side, side_n};
    return skf_words_put(w, &o, out);
}

enum skf_err skf_int_get(struct skf_work *w, enum skf_type t, uint64_t row_bytes, const uint8_t *side, size_t side_n,
                         const uint8_t *payload, size_t payload_n, const uint8_t *old, uint8_t *neu, size_t n)
{
    unsigned exponent_at, width = word_of(t, &exponent_at);
    struct skf_reader r = skf_reader_of(payload, payload_n);
    uint32_t grain = skf_int_grain(t);
    if (!grain || n % grain || n == 0 || n > SKF_CHUNK_MAX)
        return SKF_ERR_FORMAT;
    if (width) {
        uint64_t row = row_bytes % width == 0 ? row_bytes / width : 0;
        struct skf_words o = {old, neu, (uint32_t)(n / width), width, exponent_at, 0, row, t, side, side_n};
        SKF_TRY(skf_words_get(w, &r, &o));
    } else {
        SKF_TRY(skf_blocks_get(w, &r, t, row_bytes, side, side_n, old, neu, n));
    }
    return skf_reader_left(&r) == 0 ? SKF_OK : SKF_ERR_FORMAT;
}
