/* Blocks taken apart and put together for the fit (refit_block_priv.h). */
#include "model/refit_block_priv.h"

#include "base/buf.h"

enum { B = SKF_REFIT_BLOCK };

static bool has_minimum(enum skf_type t) { return t == SKF_T_Q4_1 || t == SKF_T_Q5_1; }
static bool has_fifth_bit(enum skf_type t) { return t == SKF_T_Q5_0 || t == SKF_T_Q5_1; }

struct refit_kind refit_kind_of(enum skf_type t)
{
    struct refit_kind k = {.bytes = skf_type_info((uint32_t)t)->block_bytes, .highest = 15, .has_minimum = has_minimum(t)};
    if (t == SKF_T_Q8_0) {
        k.lowest = -128;
        k.highest = 127;
    } else if (has_fifth_bit(t)) {
        k.highest = 31;
    }
    if (t == SKF_T_Q4_0 || t == SKF_T_Q5_0) { /* counted from the middle, so that a value is scale * code + minimum */
        k.lowest = -(k.highest + 1) / 2;
        k.highest = -k.lowest - 1;
    }
    return k;
}

/* Where the codes' low bits begin. */
static uint8_t *low_bits(enum skf_type t, uint8_t *p) { return p + (has_minimum(t) ? 4 : 2) + (has_fifth_bit(t) ? 4 : 0); }

void refit_unpack(enum skf_type t, const uint8_t *p, struct refit_scales *s, int16_t code[B])
{
    const struct refit_kind k = refit_kind_of(t);
    s->d = skf_le16(p);
    s->m = k.has_minimum ? skf_le16(p + 2) : 0;
    const uint8_t *low = low_bits(t, (uint8_t *)(uintptr_t)p);
    uint32_t fifth = has_fifth_bit(t) ? skf_le32(low - 4) : 0;
    for (unsigned i = 0; i < B && t == SKF_T_Q8_0; i++)
        code[i] = (int8_t)p[2 + i];
    for (unsigned i = 0; i < B && t != SKF_T_Q8_0; i++) {
        int q = i < B / 2 ? low[i] & 15 : low[i - B / 2] >> 4;
        q |= (int)(fifth >> i & 1) << 4;
        code[i] = (int16_t)(q + k.lowest);
    }
}

void refit_pack(enum skf_type t, const struct refit_scales *s, const int16_t code[B], uint8_t *p)
{
    const struct refit_kind k = refit_kind_of(t);
    skf_put_le16(p, s->d);
    if (k.has_minimum)
        skf_put_le16(p + 2, s->m);
    for (unsigned i = 0; i < B && t == SKF_T_Q8_0; i++)
        p[2 + i] = (uint8_t)code[i];
    if (t == SKF_T_Q8_0)
        return;
    uint8_t *low = low_bits(t, p);
    uint32_t fifth = 0;
    for (unsigned i = 0; i < B; i++)
        fifth |= (uint32_t)((code[i] - k.lowest) >> 4 & 1) << i;
    for (unsigned i = 0; i < B / 2; i++)
        low[i] = (uint8_t)(((code[i] - k.lowest) & 15) | ((code[i + B / 2] - k.lowest) & 15) << 4);
    if (has_fifth_bit(t))
        skf_put_le32(low - 4, fifth);
}
