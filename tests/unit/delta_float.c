/*
 * Plain types: every instruction set's loops give what plain C gives; words that could be narrower are; sparse changes
 * cost about their entropy; noise costs no more than itself; guesses pay; and no payload, however broken, does more
 * than fail.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "delta/factor_priv.h"
#include "delta/words_priv.h"

static uint64_t state = 88172645463325252u;
static uint64_t next(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static float uniform(void)
{
    return (float)(int32_t)next() / 2147483648.0f;
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */
#define MOST 1000
static uint8_t a[4 * MOST], b[4 * MOST];
static _Alignas(8) uint8_t want[4 * MOST + 1], got[4 * MOST + 1];
static float guess[MOST], v[SKF_RANK_MAX * MOST], fwant[MOST], fgot[MOST];

/* Any bit pattern, but now and then one at a border. */
static void fill(uint8_t *p, size_t n)
{
    static const uint16_t odd[] = {0,      0x8000, 1,      0x7c00, 0xfc00, 0x7c01, 0x7d00,
                                   0x7e00, 0x7f80, 0xff80, 0x7f81, 0x7fff, 0x3ff,  0x400};
    for (size_t i = 0; i + 2 <= n; i += 2)
        skf_put_le16(p + i, next() % 8 ? (uint16_t)next() : odd[next() % SKF_COUNT(odd)]);
}

#define SAME(call_want, call_got, bytes)                                                                               \
    memset(want, 0xa5, sizeof want);                                                                                   \
    memset(got, 0xa5, sizeof got);                                                                                     \
    call_want;                                                                                                         \
    call_got;                                                                                                          \
    assert_memory_equal(want, got, sizeof want);                                                                       \
    assert_int_equal(got[bytes], 0xa5)

static void same_loops(const struct skf_loops *x, uint32_t n)
{
    const struct skf_loops *r = &skf_loops_ref;
    unsigned shift = (unsigned)(next() % 3), exponent_at = next() & 1 ? 7 : 10,
             rank = 1 + (unsigned)(next() % SKF_RANK_MAX);
    unsigned least = next() & 1 ? 15 : 63;
    int at = (int)(next() % 400) - 300;
    int8_t u[SKF_RANK_MAX];
    float m[4];
    fill(a, sizeof a);
    fill(b, sizeof b);
    for (size_t i = 0; i < n && next() % 4; i++) /* near each other, as they are */
        b[2 * i + 1] = a[2 * i + 1];
    SAME(r->keys(a, want, n, exponent_at, at), x->keys(a, got, n, exponent_at, at), n);
    SAME(r->sub(a, b, want, n, shift, least), x->sub(a, b, got, n, shift, least), n);
    SAME(r->add(a, b, want, n, shift), x->add(a, b, got, n, shift), 2 * (size_t)n);
    SAME(r->f16_to_bf16(a, want, n), x->f16_to_bf16(a, got, n), 2 * (size_t)n);
    SAME(r->bf16_to_f16(a, want, n), x->bf16_to_f16(a, got, n), 2 * (size_t)n);
    SAME(r->far(a, (uint64_t *)(void *)want, n, least), x->far(a, (uint64_t *)(void *)got, n, least),
         (n + 63) / 64 * 8);
    for (unsigned k = 0; k < rank; k++)
        u[k] = (int8_t)(next() % 255 - 127);
    for (size_t i = 0; i < (size_t)rank * n; i++)
        v[i] = (float)((int)(next() % 255) - 127);
    float unit = ldexpf((float)(SKF_UNIT_MIN + next() % SKF_UNIT_MIN), -(int)(next() % 30));
    r->guess(u, v, rank, n, unit, fwant);
    x->guess(u, v, rank, n, unit, fgot);
    assert_memory_equal(fwant, fgot, n * sizeof *fwant);
    if (x->guess_packed) { /* the same numbers as bytes */
        static int8_t packed[SKF_RANK_MAX * (MOST + 16)];
        static int32_t base[MOST];
        memset(packed, 0, sizeof packed);
        memset(fgot, 0, sizeof fgot);
        for (uint32_t j = 0; j < n; j++) {
            base[j] = 0;
            for (unsigned k = 0; k < rank; k++) {
                int8_t x8 = (int8_t)v[(size_t)k * n + j];
                packed[j / 16 * 16 * SKF_RANK_MAX + k / 4 * 64 + j % 16 * 4 + k % 4] = x8;
                base[j] -= 128 * x8;
            }
        }
        x->guess_packed(u, packed, base, rank, n, unit, fgot);
    }
    assert_memory_equal(fwant, fgot, n * sizeof *fgot);
    memcpy(guess, fgot, n * sizeof *guess);
    SAME(r->guess_bf16(a, guess, want, n), x->guess_bf16(a, guess, got, n), 2 * (size_t)n);
    SAME(r->guess_f16(a, guess, want, n), x->guess_f16(a, guess, got, n), 2 * (size_t)n);
    SAME(r->guess_f32(a, guess, want, n), x->guess_f32(a, guess, got, n), 4 * (size_t)n);
    memcpy(got, a, 2 * (size_t)n); /* in place */
    memcpy(want, a, 2 * (size_t)n);
    r->guess_bf16(want, guess, want, n);
    x->guess_bf16(got, guess, got, n);
    r->bf16_to_f16(want, want, n);
    x->bf16_to_f16(got, got, n);
    r->f16_to_bf16(want, want, n);
    x->f16_to_bf16(got, got, n);
    r->add(want, b, want, n, shift);
    x->add(got, b, got, n, shift);
    assert_memory_equal(want, got, 2 * (size_t)n);
    r->measure(a, b, n, exponent_at, shift, &m[0], &m[1]);
    x->measure(a, b, n, exponent_at, shift, &m[2], &m[3]);
    assert_memory_equal(m, m + 2, 2 * sizeof *m);
    r->change_bf16(a, b, fwant, n);
    x->change_bf16(a, b, fgot, n);
    assert_memory_equal(fwant, fgot, n * sizeof *fgot);
    r->change_f16(a, b, fwant, n);
    x->change_f16(a, b, fgot, n);
    assert_memory_equal(fwant, fgot, n * sizeof *fgot);
    for (uint32_t i = 0; i < n; i++)
        fwant[i] = fgot[i] = uniform();
    float dots[2] = {r->dot(guess, fwant, n), x->dot(guess, fwant, n)};
    assert_memory_equal(&dots[0], &dots[1], sizeof *dots);
    r->add_scaled(fwant, guess, 0.37f, n);
    x->add_scaled(fgot, guess, 0.37f, n);
    assert_memory_equal(fwant, fgot, n * sizeof *fgot);
}

static void test_same_loops(void **unused)
{
    static const enum skf_isa sets[] = {SKF_ISA_AVX2, SKF_ISA_AVX512};
    enum skf_isa best;
    assert_int_equal(skf_isa_pick(&best, NULL), SKF_OK);
    for (size_t k = 0; k < SKF_COUNT(sets); k++) {
        bool is_here = best == sets[k] || best == SKF_ISA_AMX || (sets[k] == SKF_ISA_AVX2 && best == SKF_ISA_AVX512);
        for (uint32_t i = 0; is_here && i < 600; i++)
            same_loops(skf_loops_of(sets[k]), i < 200 ? i : (uint32_t)(next() % MOST));
    }
}

/* Conversions are those of the model's library for every half, but that no number is quiet. */
static void test_halves(void **unused)
{
    for (uint32_t h = 0; h < 65536; h++) {
        uint8_t in[2], out[2];
        union {
            float f;
            uint32_t u;
        } w = {.f = skf_f16_to_f32((uint16_t)h)};
        skf_put_le16(in, (uint16_t)h);
        skf_loops_ref.f16_to_bf16(in, out, 1);
        bool is_none = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        assert_int_equal(skf_le16(out), (w.u | (is_none ? 0x400000u : 0)) >> 16);
        w.u = h << 16;
        skf_loops_ref.bf16_to_f16(in, out, 1);
        assert_int_equal(skf_le16(out), skf_f32_to_f16(w.f));
    }
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */
#define ELEMENTS (64 * 1024u)
static uint8_t old[8 * ELEMENTS], neu[8 * ELEMENTS], back[8 * ELEMENTS];
static struct skf_work work;

static int open_work(void **unused)
{
    return skf_work_init(&work) == SKF_OK ? 0 : -1;
}
static int close_work(void **unused)
{
    skf_work_free(&work);
    return 0;
}

/* Out and in again with the best and the plain loops; returns the payload's bytes. */
static size_t round_trip(enum skf_type t, uint64_t row, size_t n, struct skf_buf *out)
{
    const enum skf_isa best = work.isa;
    skf_buf_clear(out);
    assert_int_equal(skf_int_put(&work, t, row, NULL, 0, old, neu, n, out), SKF_OK);
    memset(back, 0, n);
    assert_int_equal(skf_int_get(&work, t, row, NULL, 0, out->data, out->len, old, back, n), SKF_OK);
    assert_memory_equal(back, neu, n);
    struct skf_buf plain = SKF_BUF_INIT(1 << 24);
    work.isa = SKF_ISA_REF;
    memset(back, 0, n);
    assert_int_equal(skf_int_get(&work, t, row, NULL, 0, out->data, out->len, old, back, n), SKF_OK);
    assert_memory_equal(back, neu, n);
    assert_int_equal(skf_int_put(&work, t, row, NULL, 0, old, neu, n, &plain), SKF_OK);
    assert_int_equal(plain.len, out->len); /* one encoder, whatever it runs on */
    assert_memory_equal(plain.data, out->data, out->len);
    work.isa = best;
    skf_buf_free(&plain);
    return out->len;
}

/* A number near the one before it, as training makes them. */
static void make_floats(float *from, float *to, size_t n, unsigned per_thousand)
{
    for (size_t i = 0; i < n; i++) {
        from[i] = 0.05f * (uniform() + uniform() + uniform());
        to[i] = from[i] + (next() % 1000 < per_thousand ? 2e-4f * uniform() : 0);
    }
}

/* Halves and floats that came from bfloats cost what the bfloats cost, subnormal and infinite ones among them. */
static void test_narrow(void **unused)
{
    static float from[ELEMENTS], to[ELEMENTS], wide[ELEMENTS];
    struct skf_buf out = SKF_BUF_INIT(1 << 24);
    make_floats(from, to, ELEMENTS, 400);
    from[3] = 1e-7f;
    to[3] = 3e-8f;
    from[4] = to[5] = INFINITY;
    to[4] = from[5] = -INFINITY;
    from[6] = -0.0f;
    to[6] = 0;
    assert_int_equal(skf_quantize(SKF_T_BF16, from, old, ELEMENTS), SKF_OK);
    assert_int_equal(skf_quantize(SKF_T_BF16, to, neu, ELEMENTS), SKF_OK);
    assert_int_equal(skf_dequantize(SKF_T_BF16, old, from, ELEMENTS), SKF_OK);
    assert_int_equal(skf_dequantize(SKF_T_BF16, neu, to, ELEMENTS), SKF_OK);
    size_t bfloats = round_trip(SKF_T_BF16, 1024, 2 * ELEMENTS, &out);
    assert_int_equal(out.data[0], 0);
    assert_int_equal(skf_quantize(SKF_T_F16, from, old, ELEMENTS), SKF_OK);
    assert_int_equal(skf_quantize(SKF_T_F16, to, neu, ELEMENTS), SKF_OK);
    assert_true(round_trip(SKF_T_F16, 1024, 2 * ELEMENTS, &out) <= bfloats + bfloats / 33);
    assert_int_equal(out.data[0], 64);
    skf_put_le16(neu + 100, skf_le16(neu + 100) ^ 1); /* one that is none */
    assert_true(round_trip(SKF_T_F16, 1024, 2 * ELEMENTS, &out) > bfloats);
    assert_int_equal(out.data[0], 0);
    memcpy(old, from, sizeof from);
    memcpy(neu, to, sizeof to);
    assert_true(round_trip(SKF_T_F32, 2048, 4 * ELEMENTS, &out) <= bfloats + bfloats / 33);
    assert_int_equal(out.data[0], 64);
    /* Floats that came from halves; bfloats with three digits less. */
    make_floats(from, to, ELEMENTS, 400);
    assert_int_equal(skf_quantize(SKF_T_F16, from, old, ELEMENTS), SKF_OK);
    assert_int_equal(skf_quantize(SKF_T_F16, to, neu, ELEMENTS), SKF_OK);
    size_t halves = round_trip(SKF_T_F16, 1024, 2 * ELEMENTS, &out);
    assert_int_equal(skf_dequantize(SKF_T_F16, old, wide, ELEMENTS), SKF_OK);
    assert_int_equal(skf_dequantize(SKF_T_F16, neu, to, ELEMENTS), SKF_OK);
    memcpy(old, wide, sizeof wide);
    memcpy(neu, to, sizeof to);
    assert_true(round_trip(SKF_T_F32, 2048, 4 * ELEMENTS, &out) <= halves + halves / 33);
    assert_int_equal(out.data[0], 13);
    for (size_t i = 0; i < ELEMENTS; i++) {
        skf_put_le16(old + 2 * i, (uint16_t)(next() & 0xfff8));
        skf_put_le16(neu + 2 * i, (uint16_t)(next() & 0xfff8));
    }
    assert_true(round_trip(SKF_T_BF16, 1024, 2 * ELEMENTS, &out) < 13 * ELEMENTS / 8 + 1500);
    assert_int_equal(out.data[0], 3);
    skf_buf_free(&out);
}

/* What a byte string of bits set with probability p costs at least, each bit with its sign. */
static double entropy(double n, double p)
{
    return n * (-p * log2(p) - (1 - p) * log2(1 - p) + p);
}

/* Changes of one step in few words, all alike or where the exponent is small, cost about their entropy. */
static void test_sparse(void **unused)
{
    static const struct {
        enum skf_type t;
        unsigned width, per_100000, by_exponent;
    } cases[] = {
        {SKF_T_BF16, 2, 1000, 0},   {SKF_T_BF16, 2, 100, 0},  {SKF_T_BF16, 2, 1000, 1}, {SKF_T_F16, 2, 1000, 0},
        {SKF_T_F32, 4, 1000, 0},    {SKF_T_F32, 4, 100, 0},   {SKF_T_F64, 8, 300, 0},   {SKF_T_U8, 1, 1000, 0},
        {SKF_T_F8_E4M3, 1, 500, 0}, {SKF_T_BF16, 2, 6000, 0},
    };
    struct skf_buf out = SKF_BUF_INIT(1 << 24);
    for (size_t c = 0; c < SKF_COUNT(cases); c++) {
        unsigned w = cases[c].width;
        double all[64] = {0}, set[64] = {0}, least = 0;
        for (size_t i = 0; i < ELEMENTS; i++) {
            unsigned k = (unsigned)__builtin_ctzll(next() | 1ull << 12); /* octaves down from 1 */
            uint64_t x = (next() & 0x7f) | ((uint64_t)(127 - k) << 7) | (next() & 1) << 15, y;
            x = cases[c].t == SKF_T_BF16 ? x : next() | 1; /* no lowest bit that is always 0 */
            x &= w == 8 ? INT64_MAX : (1ull << (8 * w - 1)) - 1;
            double p = cases[c].per_100000 * 1e-5 * (cases[c].by_exponent ? ldexp(1, (int)k - 3) : 1);
            bool is_set = (double)(next() % 1000000) < 1e6 * p;
            y = x + (is_set ? next() & 1 ? 1u : ~0ull : 0);
            word_store(old + i * w, x, w);
            word_store(neu + i * w, y, w);
            all[cases[c].by_exponent ? k : 0]++;
            set[cases[c].by_exponent ? k : 0] += is_set;
        }
        for (unsigned k = 0; k < 64; k++)
            if (set[k] > 0 && set[k] < all[k])
                least += entropy(all[k], set[k] / all[k]) / 8;
        size_t n = round_trip(cases[c].t, ELEMENTS / 8 * w, (size_t)ELEMENTS * w, &out);
        if (getenv("SKF_SHOW"))
            print_message("# case %zu: %zu bytes, entropy %.0f\n", c, n, least);
        assert_true((double)n < least * 1.03 + 80);
        for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 40)
            assert_int_not_equal(skf_int_get(&work, cases[c].t, ELEMENTS / 8 * w, NULL, 0, out.data, cut, old, back,
                                             (size_t)ELEMENTS * w),
                                 SKF_OK);
    }
    skf_buf_free(&out);
}

/* Noise costs its own bits and a table; nothing at all when nothing changes. */
static void test_ends(void **unused)
{
    static const struct {
        enum skf_type t;
        unsigned width;
    } cases[] = {{SKF_T_BF16, 2}, {SKF_T_F16, 2}, {SKF_T_F32, 4},    {SKF_T_F64, 8},
                 {SKF_T_I8, 1},   {SKF_T_I64, 8}, {SKF_T_F8_E5M2, 1}};
    struct skf_buf out = SKF_BUF_INIT(1 << 24);
    for (size_t c = 0; c < SKF_COUNT(cases); c++) {
        size_t n = (size_t)ELEMENTS * cases[c].width;
        for (size_t i = 0; i < n; i++) {
            old[i] = (uint8_t)next();
            neu[i] = (uint8_t)next();
        }
        size_t noise = round_trip(cases[c].t, n / 8, n, &out);
        if (getenv("SKF_SHOW"))
            print_message("# noise %zu: %zu of %zu\n", c, noise, n);
        assert_true(noise < n + n / 50 + 2000);
        out.limit = n - 1; /* what a container gives: no room, and no harm */
        skf_buf_clear(&out);
        enum skf_err e = skf_int_put(&work, cases[c].t, n / 8, NULL, 0, old, neu, n, &out);
        assert_true(e == SKF_OK || e == SKF_ERR_LIMIT);
        out.limit = 1 << 24;
        memcpy(neu, old, n);
        assert_true(round_trip(cases[c].t, n / 8, n, &out) < 40);
    }
    skf_buf_free(&out);
}

/* ---- guesses ----------------------------------------------------------------------------------------------------- */
struct matrix {
    const float *from, *to;
    uint32_t columns;
};
static enum skf_err row_of(void *ctx, uint64_t row, float *out)
{
    const struct matrix *m = ctx;
    for (uint32_t j = 0; j < m->columns; j++) {
        float d = m->to[row * m->columns + j] - m->from[row * m->columns + j];
        out[j] = isfinite(d) ? d : 0;
    }
    return SKF_OK;
}

/* A change of low rank on rows that fit: the guess pays, is exact, and is refused when it lies. */
static void test_guesses(void **unused)
{
    static const enum skf_type guessed[] = {SKF_T_BF16, SKF_T_F16, SKF_T_F32, SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1};
    static float from[256 * 256], to[256 * 256];
    const enum skf_isa best = work.isa;
    for (size_t t = 0; t < SKF_COUNT(guessed); t++) {
        const struct skf_type_info *info = skf_type_info((uint32_t)guessed[t]);
        for (unsigned i = 0; i < 256; i++)
            for (unsigned j = 0; j < 256; j++) {
                unsigned at = i * 256 + j;
                from[at] = uniform();
                to[at] = from[at] + (float)((int)(i % 7) - 3) * (float)((int)(j % 11) - 5) *
                                        (info->block_bytes < 32 ? 0.02f : 0.004f);
            }
        from[5] = to[5] = to[77] = info->block > 1 ? 1 : INFINITY;
        from[99] = info->block > 1 ? 1 : NAN;
        assert_int_equal(skf_quantize(guessed[t], from, old, 256 * 256), SKF_OK);
        assert_int_equal(skf_quantize(guessed[t], to, neu, 256 * 256), SKF_OK);
        size_t row = 256 / info->block * info->block_bytes, n = 256 * row;
        struct skf_buf plain = SKF_BUF_INIT(1 << 20), out = SKF_BUF_INIT(1 << 20), side = SKF_BUF_INIT(1 << 20);
        assert_int_equal(skf_factors_find(&work, 256, 256, 0.09, row_of, &(struct matrix){from, to, 256}, &side),
                         SKF_OK);
        assert_true(side.len > 0 && side.len < 4096 && side.data[0] <= SKF_RANK_MAX);
        assert_int_equal(skf_int_put(&work, guessed[t], row, NULL, 0, old, neu, n, &plain), SKF_OK);
        assert_int_equal(skf_int_put(&work, guessed[t], row, side.data, side.len, old, neu, n, &out), SKF_OK);
        assert_true(out.len + side.len < plain.len - plain.len / 10);
        for (unsigned k = 0; k < 2; k++) { /* the second time with v as it was kept */
            memset(back, 0, n);
            assert_int_equal(skf_int_get(&work, guessed[t], row, side.data, side.len, out.data, out.len, old, back, n),
                             SKF_OK);
            assert_memory_equal(back, neu, n);
        }
        work.isa = SKF_ISA_REF;
        memset(back, 0, n);
        assert_int_equal(skf_int_get(&work, guessed[t], row, side.data, side.len, out.data, out.len, old, back, n),
                         SKF_OK);
        assert_memory_equal(back, neu, n);
        /* Other rows than those it was made for, another side, none: never more than wrong bytes. */
        enum skf_err e = skf_int_get(&work, guessed[t], row * 2, side.data, side.len, out.data, out.len, old, back, n);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        e = skf_int_get(&work, guessed[t], row, NULL, 0, out.data, out.len, old, back, n);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        assert_int_equal(skf_int_get(&work, guessed[t], row, side.data, side.len - 1, out.data, out.len, old, back, n),
                         SKF_ERR_FORMAT);
        for (unsigned k = 0; k < 600; k++) {
            uint8_t *at = k & 1 ? &out.data[next() % 40] : &side.data[next() % side.len], was = *at;
            *at = (uint8_t)next();
            e = skf_int_get(&work, guessed[t], row, side.data, side.len, out.data, out.len, old, back, n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            *at = was;
        }
        if (info->block == 1) {
            static const uint8_t bad[][3] = {{17, 16, 0}, {1, 15, 0}, {1, 32, 0}, {1, 16, 122}}; /* rank, unit, shift */
            for (size_t k = 0; k < SKF_COUNT(bad); k++) {
                uint8_t was[3];
                memcpy(was, out.data + 1, 3);
                memcpy(out.data + 1, bad[k], 3);
                assert_int_equal(
                    skf_int_get(&work, guessed[t], row, side.data, side.len, out.data, out.len, old, back, n),
                    SKF_ERR_FORMAT);
                memcpy(out.data + 1, was, 3);
            }
        }
        work.isa = best;
        skf_buf_free(&plain);
        skf_buf_free(&out);
        skf_buf_free(&side);
    }
}

/* Changes without structure get no side. */
static void test_no_guess(void **unused)
{
    static float from[256 * 256], to[256 * 256];
    struct skf_buf side = SKF_BUF_INIT(1 << 20);
    make_floats(from, to, 256 * 256, 500);
    assert_int_equal(skf_factors_find(&work, 256, 256, SKF_GAIN_FLOATS, row_of, &(struct matrix){from, to, 256}, &side),
                     SKF_OK);
    assert_int_equal(side.len, 0);
    assert_int_equal(
        skf_factors_find(&work, 256, 256, SKF_GAIN_FLOATS, row_of, &(struct matrix){from, from, 256}, &side), SKF_OK);
    assert_int_equal(side.len, 0);
}

/* ---- broken payloads --------------------------------------------------------------------------------------------- */
static void test_broken(void **unused)
{
    static const enum skf_type some[] = {SKF_T_BF16, SKF_T_F16, SKF_T_F32, SKF_T_F64, SKF_T_I8};
    static const unsigned widths[] = {2, 2, 4, 8, 1}, per_thousands[] = {5, 100, 900};
    struct skf_buf out = SKF_BUF_INIT(1 << 20);
    for (size_t t = 0; t < SKF_COUNT(some) * SKF_COUNT(per_thousands); t++) {
        unsigned w = widths[t % SKF_COUNT(some)], per = per_thousands[t / SKF_COUNT(some)];
        size_t n = 4096 * (size_t)w;
        for (size_t i = 0; i < n; i++)
            old[i] = (uint8_t)next();
        memcpy(neu, old, n);
        for (size_t i = 0; i < n; i += w)
            if (next() % 1000 < per)
                neu[i] = (uint8_t)(neu[i] + next() % 5);
        (void)round_trip(some[t % SKF_COUNT(some)], n / 8, n, &out);
        for (unsigned k = 0; k < 1000; k++) {
            uint8_t *copy = skf_memdup(out.data, out.len);
            assert_non_null(copy);
            for (unsigned m = 1 + next() % 3; m; m--)
                copy[next() % (next() & 1 ? out.len : SKF_MIN(out.len, 24))] = (uint8_t)next();
            size_t len = next() % 4 ? out.len : next() % out.len;
            enum skf_err e = skf_int_get(&work, some[t % SKF_COUNT(some)], n / 8, NULL, 0, copy, len, old, back, n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            skf_free(copy);
        }
    }
    skf_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_loops), cmocka_unit_test(test_halves), cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_sparse),     cmocka_unit_test(test_ends),   cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_no_guess),   cmocka_unit_test(test_broken),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, open_work, close_work);
}
