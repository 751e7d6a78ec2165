/*
 * The order in which codes of eight bits are taken (blocks_priv.h).  What is rounded to bfloat16 before it is quantized moves in larger
 * steps where it is large, and so less often: elements of one size stand together, so that masks are mostly all or nothing.
 */
#include <string.h>

#include "delta/blocks_priv.h"

struct order {
    uint32_t set[3], sums[3]; /* which elements are small, middling, large; how many of these up to each byte */
    uint32_t begin[3];        /* where they begin in the order */
};

/* The highest bits of eight bytes. */
static inline uint32_t tops(uint64_t x) { return (uint32_t)((x & 0x8080808080808080u) * 0x0002040810204081u >> 56); }

static inline uint32_t sums_of(uint32_t m)
{
    m -= m >> 1 & 0x55555555;
    m = (m & 0x33333333) + (m >> 2 & 0x33333333);
    return ((m + (m >> 4)) & 0x0f0f0f0f) * 0x01010101u;
}

static inline void order_of(const uint8_t *code, struct order *o)
{
    uint32_t middling = 0, large = 0; /* and more */
    for (unsigned g = 0; g < 4; g++) {
        uint64_t x = skf_le64(code + 8 * g), minus = x >> 7 & 0x0101010101010101u;
        uint64_t a = (x ^ minus * 255) + minus; /* without the sign */
        middling |= tops(a | a << 1 | a << 2) << 8 * g;
        large |= tops(a | a << 1) << 8 * g;
    }
    o->set[0] = ~middling;
    o->set[1] = middling & ~large;
    o->set[2] = large;
    for (unsigned c = 0; c < 3; c++)
        o->sums[c] = sums_of(o->set[c]);
    o->begin[0] = 0;
    o->begin[1] = o->sums[0] >> 24;
    o->begin[2] = o->begin[1] + (o->sums[1] >> 24);
}

/* Which bits of a byte are set: the place of each, four bits. */
struct places {
    uint32_t of[256];
};
static void make_places(struct places *t)
{
    memset(t, 0, sizeof *t);
    for (unsigned m = 0; m < 256; m++)
        for (unsigned bit = 0, k = 0; bit < 8; bit++)
            if (m >> bit & 1)
                t->of[m] |= bit << 4 * k++;
}

/* Element k of the order. */
static inline unsigned ordered(const struct order *o, const struct places *t, uint32_t k)
{
    unsigned c = (k >= o->begin[1]) + (k >= o->begin[2]);
    uint32_t sums = o->sums[c];
    k -= o->begin[c];
    uint32_t full = ((k * 0x01010101u | 0x80808080u) - sums) & 0x80808080u; /* bytes all of whose bits come before */
    unsigned at = ((full >> 7) * 0x01010101u >> 24) * 8;
    k -= (uint32_t)((uint64_t)sums << 8 >> at) & 255;
    return at + (t->of[o->set[c] >> at & 255] >> 4 * k & 15);
}

void skf_order(const uint8_t *code, uint8_t order[BLOCKS_ORDERED])
{
    struct order o;
    uint32_t next[3];
    order_of(code, &o);
    memcpy(next, o.begin, sizeof next);
    for (unsigned e = 0; e < BLOCKS_ORDERED; e++)
        order[next[(o.set[1] >> e & 1) + 2 * (o.set[2] >> e & 1)]++] = (uint8_t)e;
}

void skf_ordered_ref(const struct skf_ordered *o, const struct skf_changes *c)
{
    struct places places;
    struct order order;
    const int8_t *d = c->d;
    make_places(&places);
    for (uint32_t i = 0; i < c->n; i++) {
        const size_t at = (size_t)(o->same ? o->same[c->unit[i]] : c->unit[i]) * o->stride;
        order_of(o->old + at, &order);
        for (uint32_t m = c->mask[i]; m; m &= m - 1, d++) {
            uint8_t *q = o->neu + at + ordered(&order, &places, (unsigned)__builtin_ctz(m));
            *q = (uint8_t)(*q + *d);
        }
    }
}

skf_ordered_fn *skf_ordered_pick(enum skf_isa isa)
{
#if defined __x86_64__
    if (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX)
        return __builtin_cpu_supports("avx512vbmi2") ? skf_ordered_vbmi2 : skf_ordered_avx512;
#endif
    return skf_ordered_ref;
}

void skf_order_diffs_ref(const struct skf_ordered *o, uint32_t n, int8_t *d)
{
    uint8_t order[BLOCKS_ORDERED];
    for (uint32_t i = 0; i < n; i++, d += BLOCKS_ORDERED) {
        const size_t at = (size_t)(o->same ? o->same[i] : i) * o->stride;
        const uint8_t *was = o->old + at, *is = o->neu + at;
        memset(d, 0, BLOCKS_ORDERED);
        if (memcmp(was, is, BLOCKS_ORDERED) == 0)
            continue;
        skf_order(was, order);
        for (unsigned e = 0; e < BLOCKS_ORDERED; e++)
            d[e] = (int8_t)(is[order[e]] - was[order[e]]);
    }
}

void skf_order_diffs(enum skf_isa isa, const struct skf_ordered *o, uint32_t n, int8_t *d)
{
#if defined __x86_64__
    if ((isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX) && __builtin_cpu_supports("avx512vbmi2")) {
        skf_order_diffs_vbmi2(o, n, d);
        return;
    }
#endif
    skf_order_diffs_ref(o, n, d);
}
