/* rANS decoding, four lanes a vector (rans_priv.h). There is no gather: entries are looked up one by one, the rest is in vectors. */
#if defined __aarch64__
#include <arm_neon.h>
#include <string.h>

#include "delta/rans_priv.h"

_Static_assert(SKF_CONTEXTS == 48, "one lookup in three registers");

/* Where each of four lanes finds its word, when those whose bit is set read one each in order: bytes of a table lookup that puts a
 * word in the lower half of its lane, and nothing where none is read. */
static void make_places(uint8_t place[16][16])
{
    for (unsigned m = 0; m < 16; m++) {
        for (unsigned lane = 0, k = 0; lane < 4; lane++) {
            bool is_read = m >> lane & 1;
            place[m][4 * lane] = is_read ? (uint8_t)(2 * k) : 255;
            place[m][4 * lane + 1] = is_read ? (uint8_t)(2 * k + 1) : 255;
            place[m][4 * lane + 2] = place[m][4 * lane + 3] = 255;
            k += is_read;
        }
    }
}

/* Four lanes, `slot` and then the lane's table in bits above: symbols to `sym`; returns how many words were read. */
static inline __attribute__((always_inline)) unsigned step(uint32x4_t *x, const uint32_t *tables, uint32x4_t base,
                                                           uint32x4_t mask, int32x4_t down, uint8_t place[16][16],
                                                           const uint8_t *p, uint8_t *sym)
{
    static const uint32_t bit[4] = {1, 2, 4, 8};
    uint32x4_t v = *x, at = vaddq_u32(base, vandq_u32(v, mask)), e = vdupq_n_u32(0);
    e = vld1q_lane_u32(tables + vgetq_lane_u32(at, 0), e, 0);
    e = vld1q_lane_u32(tables + vgetq_lane_u32(at, 1), e, 1);
    e = vld1q_lane_u32(tables + vgetq_lane_u32(at, 2), e, 2);
    e = vld1q_lane_u32(tables + vgetq_lane_u32(at, 3), e, 3);
    uint16x4_t narrow = vmovn_u32(e);
    uint8x8_t s = vmovn_u16(vcombine_u16(narrow, narrow));
    uint32_t four = vget_lane_u32(vreinterpret_u32_u8(s), 0);
    memcpy(sym, &four, 4);
    uint32x4_t freq = vaddq_u32(vandq_u32(vshrq_n_u32(e, 8), vdupq_n_u32(0xfff)), vdupq_n_u32(1));
    v = vmlaq_u32(vshrq_n_u32(e, 20), freq, vshlq_u32(v, down));
    uint32x4_t low = vcltq_u32(v, vdupq_n_u32(RANS_LOW));
    unsigned m = vaddvq_u32(vandq_u32(low, vld1q_u32(bit)));
    uint8x16_t words = vcombine_u8(vld1_u8(p), vdup_n_u8(0));
    uint32x4_t fresh = vreinterpretq_u32_u8(vqtbl1q_u8(words, vld1q_u8(place[m])));
    *x = vbslq_u32(low, vorrq_u32(vshlq_n_u32(v, 16), fresh), v);
    return (unsigned)__builtin_popcount(m);
}

static inline __attribute__((always_inline)) uint32x4_t base_of(uint8x16_t table, unsigned k, int32x4_t up)
{
    uint16x8_t h = k < 2 ? vmovl_u8(vget_low_u8(table)) : vmovl_u8(vget_high_u8(table));
    return vshlq_u32(k & 1 ? vmovl_u16(vget_high_u16(h)) : vmovl_u16(vget_low_u16(h)), up);
}

static inline __attribute__((always_inline)) uint32_t run(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n,
                                                          const unsigned lanes)
{
    uint8_t place[16][16];
    uint32x4_t x[RANS_MOST / 4];
    make_places(place);
    for (unsigned k = 0; k < lanes / 4; k++)
        x[k] = vld1q_u32(r->x + 4 * k);
    const uint8x16x3_t numbers = {{vld1q_u8(r->number), vld1q_u8(r->number + 16), vld1q_u8(r->number + 32)}};
    const uint32x4_t mask = vdupq_n_u32((1u << r->bits) - 1);
    const int32x4_t up = vdupq_n_s32((int32_t)r->bits), down = vdupq_n_s32(-(int32_t)r->bits);
    const uint8_t *p = r->p, *end = r->end;
    uint32_t i = 0;
    for (; n - i >= lanes && end - p >= 2 * (ptrdiff_t)lanes; i += lanes) {
        for (unsigned half = 0; half < lanes / 16; half++) {
            uint8x16_t table = vqtbl3q_u8(numbers, vld1q_u8(key + i + 16 * half));
            for (unsigned k = 0; k < 4; k++)
                p += 2 * step(&x[4 * half + k], r->tables, base_of(table, k, up), mask, down, place, p,
                              sym + i + 16 * half + 4 * k);
        }
    }
    for (unsigned k = 0; k < lanes / 4; k++)
        vst1q_u32(r->x + 4 * k, x[k]);
    r->p = p;
    return i;
}

uint32_t rans_run_neon(struct rans *r, uint8_t *sym, const uint8_t *key, uint32_t n)
{
    return r->lanes == RANS_MANY ? run(r, sym, key, n, RANS_MANY) : run(r, sym, key, n, RANS_MOST);
}
#endif
