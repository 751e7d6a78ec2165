/*
 * What is left of a merge of halves or bfloats (FIX_NUDGE): a sum that lay near the middle between two numbers may have been rounded the
 * other way, because the publisher's tool adds in another order or because the factors were sent with fewer bits.  How near it lay, in
 * absolute terms, is the context; far from the middle nothing ever differs, and costs nothing.
 */
#include <string.h>

#include "delta/adapter_priv.h"
#include "delta/level_priv.h"
#include "delta/stream_priv.h"

#define UP 0x8000u /* of a place: the other number is the one above in the order of the numbers */
#define BASE_MAX 4096

bool is_nudge_type(enum skf_type t) { return t == SKF_T_BF16 || t == SKF_T_F16; }

/* Where the sum f lies: twice the logarithm of its distance from the middle, and which way the other number is. */
static inline uint16_t place_of(float f, bool is_half)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    unsigned unit = is_half ? 13 : 16;
    int32_t d = (int32_t)(u & ((1u << unit) - 1)) - (1 << (unit - 1));
    uint32_t m = (uint32_t)(d < 0 ? -d : d) << (16 - unit) | 1;
    unsigned k = 31 - (unsigned)__builtin_clz(m), place = 2 * (k + (u >> 23 & 255)) + (k ? m >> (k - 1) & 1 : 0);
    bool is_up = (d < 0) != (u >> 31);
    return (uint16_t)(place | (is_up ? UP : 0));
}

/* Both in the order of the numbers. */
static inline uint16_t ordered(const uint8_t *p)
{
    uint16_t v = skf_le16(p);
    return (uint16_t)(v ^ ((v & 0x8000) ? 0xFFFF : 0x8000));
}
static inline void unordered(uint8_t *p, uint16_t v) { skf_put_le16(p, (uint16_t)(v ^ ((v & 0x8000) ? 0x8000 : 0xFFFF))); }

SKF_LOOPS void adapter_places(const float *x, bool is_half, uint16_t *place, size_t n)
{
    for (size_t i = 0; i < n; i++)
        place[i] = place_of(x[i], is_half);
}

static enum skf_err make_keys(struct skf_work *w, const uint16_t *place, int base, size_t n)
{
    SKF_TRY(skf_area_need(&w->key, n));
    for (size_t i = 0; i < n; i++)
        w->key.p[i] = skf_context((int)(place[i] & ~UP), -base);
    return SKF_OK;
}

enum skf_err adapter_put_nudges(struct skf_work *w, const uint16_t *place, const uint8_t *merged, const uint8_t *neu, size_t n,
                                struct skf_buf *out)
{
    struct skf_bits_out raw;
    int top = 0;
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_raw_begin(w, (uint32_t)n, 4, &raw));
    for (size_t i = 0; i < n; i++) {
        int d = (int16_t)(uint16_t)(ordered(neu + 2 * i) - ordered(merged + 2 * i));
        w->sym.p[i] = skf_bucket_put(&raw, (place[i] & UP) ? d : -d);
        if (d && (int)(place[i] & ~UP) > top)
            top = (int)(place[i] & ~UP);
    }
    int base = top - (SKF_CONTEXTS - 2); /* whatever lies further off has the last context to itself */
    SKF_TRY(make_keys(w, place, base, n));
    SKF_TRY(skf_put_svarint(out, (uint64_t)(int64_t)base));
    SKF_TRY(skf_syms_put(w, &(struct skf_syms){w->sym.p, w->key.p, (uint32_t)n}, out));
    return skf_raw_put(w, &raw, out);
}

enum skf_err adapter_get_nudges(struct skf_work *w, struct skf_reader *r, const uint16_t *place, uint8_t *neu, size_t n)
{
    struct skf_bits_in raw;
    uint64_t base;
    SKF_TRY(skf_get_svarint(r, &base));
    if ((int64_t)base < -BASE_MAX || (int64_t)base > BASE_MAX)
        return SKF_ERR_FORMAT;
    SKF_TRY(make_keys(w, place, (int)(int64_t)base, n));
    SKF_TRY(skf_area_need(&w->sym, n));
    SKF_TRY(skf_syms_get(w, r, &(struct skf_syms){w->sym.p, w->key.p, (uint32_t)n}));
    SKF_TRY(skf_raw_get(r, &raw));
    for (size_t i = 0; i < n; i++) {
        int64_t d = skf_unzigzag(w->sym.p[i]);
        if (w->sym.p[i] == 0)
            continue;
        if (w->sym.p[i] >= SKF_SMALL && !skf_bucket_get(&raw, w->sym.p[i], 2, &d))
            return SKF_ERR_FORMAT;
        unordered(neu + 2 * i, (uint16_t)(ordered(neu + 2 * i) + (uint16_t)((place[i] & UP) ? d : -d)));
    }
    return is_bits_done(&raw) ? SKF_OK : SKF_ERR_FORMAT;
}
