/*
 * The codecs by themselves: varints, streams of differences, integer differences of every type; and that no payload, however
 * broken, makes them do more than fail.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "delta/int_priv.h"

static uint64_t state = 88172645463325252u;
static uint64_t next(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void test_varint(void **unused)
{
    struct skf_buf b = SKF_BUF_INIT(64);
    const uint64_t edges[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, INT64_MAX, 1ull << 63, UINT64_MAX};
    for (size_t i = 0; i < SKF_COUNT(edges); i++) {
        uint64_t v;
        skf_buf_clear(&b);
        assert_int_equal(skf_put_varint(&b, edges[i]), SKF_OK);
        assert_int_equal(skf_put_svarint(&b, edges[i]), SKF_OK);
        struct skf_reader r = skf_reader_of(b.data, b.len);
        assert_int_equal(skf_get_varint(&r, &v), SKF_OK);
        assert_true(v == edges[i]);
        assert_int_equal(skf_get_svarint(&r, &v), SKF_OK);
        assert_true(v == edges[i]);
        assert_int_equal(skf_reader_left(&r), 0);
        for (size_t cut = 0; cut < b.len; cut++) { /* cut anywhere: an error, or an earlier end, never a read past it */
            r = skf_reader_of(b.data, cut);
            if (skf_get_varint(&r, &v) == SKF_OK)
                assert_true(skf_get_svarint(&r, &v) == SKF_ERR_FORMAT);
        }
    }
    skf_buf_free(&b);
    static const uint8_t bad[][11] = {
        {0x80, 0x00},                                                       /* 0, not in its shortest form */
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},       /* 2^64 and more */
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, /* eleven bytes */
    };
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        uint64_t v;
        struct skf_reader r = skf_reader_of(bad[i], sizeof bad[i]);
        assert_int_equal(skf_get_varint(&r, &v), SKF_ERR_FORMAT);
    }
}

/* Symbols out and in again, from `kinds` kinds of which one is common, in `contexts` contexts; and every cut of them refused. */
static void syms_case(struct skf_work *w, uint32_t n, unsigned kinds, unsigned percent, unsigned contexts)
{
    uint8_t *sym = skf_calloc(1, n + 1), *back = skf_calloc(1, n + 1), *key = skf_calloc(1, n + 1);
    struct skf_buf out = SKF_BUF_INIT(4 * (size_t)n + 65536);
    assert_non_null(sym);
    assert_non_null(back);
    assert_non_null(key);
    for (uint32_t i = 0; i < n; i++) {
        sym[i] = (uint8_t)(next() % 100 < percent ? next() % kinds : kinds / 2);
        key[i] = (uint8_t)(next() % contexts * (SKF_CONTEXTS - 1) / (contexts > 1 ? contexts - 1 : 1));
    }
    back[n] = 0xa5;
    assert_int_equal(skf_syms_put(w, &(struct skf_syms){sym, key, n}, &out), SKF_OK);
    struct skf_reader r = skf_reader_of(out.data, out.len);
    assert_int_equal(skf_syms_get(w, &r, &(struct skf_syms){back, key, n}), SKF_OK);
    assert_int_equal(skf_reader_left(&r), 0);
    assert_memory_equal(sym, back, n);
    assert_int_equal(back[n], 0xa5);
    for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 50) {
        r = skf_reader_of(out.data, cut);
        assert_int_not_equal(skf_syms_get(w, &r, &(struct skf_syms){back, key, n}), SKF_OK);
    }
    skf_buf_free(&out);
    skf_free(sym);
    skf_free(back);
    skf_free(key);
}

static void test_symbols(void **unused)
{
    struct skf_work w;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    static const uint32_t sizes[] = {1, 2, 3, 4, 5, 31, 32, 33, 1000, 70001};
    static const unsigned kinds[] = {1, 2, 17, 256}, percents[] = {0, 1, 20, 100}, contexts[] = {1, 2, 48};
    for (size_t a = 0; a < SKF_COUNT(sizes); a++)
        for (size_t b = 0; b < SKF_COUNT(kinds); b++)
            for (size_t c = 0; c < SKF_COUNT(percents); c++)
                for (size_t d = 0; d < SKF_COUNT(contexts); d++)
                    syms_case(&w, sizes[a], kinds[b], percents[c], contexts[d]);
    skf_work_free(&w);
}

/* Every instruction set of this machine reads the same symbols from the same bytes, whole or broken. */
static void test_same_everywhere(void **unused)
{
    static const enum skf_isa sets[] = {SKF_ISA_AVX2, SKF_ISA_AVX512, SKF_ISA_NEON};
    static uint8_t sym[40000], key[sizeof sym], want[sizeof sym], got[sizeof sym];
    struct skf_work w;
    enum skf_isa best;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    assert_int_equal(skf_isa_pick(&best, NULL), SKF_OK);
    for (unsigned round = 0; round < 200; round++) {
        uint32_t n = 20000 + (uint32_t)(next() % 20000);
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        for (uint32_t i = 0; i < n; i++) {
            sym[i] = (uint8_t)(next() % (1 + round));
            key[i] = (uint8_t)(next() % (1 + round % SKF_CONTEXTS));
        }
        assert_int_equal(skf_syms_put(&w, &(struct skf_syms){sym, key, n}, &out), SKF_OK);
        for (unsigned broken = 0; broken < 4; broken++) {
            if (broken)
                out.data[next() % out.len] = (uint8_t)next();
            w.isa = SKF_ISA_REF;
            memset(want, 0, n);
            struct skf_reader r = skf_reader_of(out.data, out.len);
            enum skf_err e = skf_syms_get(&w, &r, &(struct skf_syms){want, key, n});
            assert_true(broken || (e == SKF_OK && memcmp(want, sym, n) == 0));
            for (size_t k = 0; k < SKF_COUNT(sets); k++) {
                bool is_x86 = sets[k] != SKF_ISA_NEON, is_x86_here = best == SKF_ISA_AVX2 || best == SKF_ISA_AVX512 || best == SKF_ISA_AMX;
                if (is_x86 ? !is_x86_here || (sets[k] == SKF_ISA_AVX512 && best == SKF_ISA_AVX2) : best != SKF_ISA_NEON)
                    continue;
                w.isa = sets[k];
                memset(got, 0, n);
                r = skf_reader_of(out.data, out.len);
                assert_int_equal(skf_syms_get(&w, &r, &(struct skf_syms){got, key, n}), e);
                if (e == SKF_OK)
                    assert_memory_equal(got, want, n);
            }
        }
        skf_buf_free(&out);
    }
    skf_work_free(&w);
}

/* Tables that lie, written by hand: one symbol, context 0 alone, precision 8, four lanes. */
static enum skf_err lying(struct skf_work *w, uint8_t form, unsigned last, unsigned freq, uint32_t begin, unsigned words)
{
    uint8_t packed[64] = {0}, sym[4], key[4] = {0};
    struct skf_bits_out b = {.p = packed};
    struct skf_buf out = SKF_BUF_INIT(256);
    unsigned len = 32 - (unsigned)__builtin_clz(freq);
    skf_bits_put(&b, 2, 2);
    skf_bits_put(&b, last, 8);
    for (unsigned i = 0; i <= last && i < 3; i++) {
        skf_bits_put(&b, len, 4);
        skf_bits_put(&b, freq - (1u << (len - 1)), len - 1);
    }
    for (unsigned c = 1; c < SKF_CONTEXTS; c++)
        skf_bits_put(&b, 0, 2);
    for (unsigned i = 0; i < 4; i++) {
        unsigned more = 15 - (unsigned)__builtin_clz(begin);
        skf_bits_put(&b, more, 4);
        skf_bits_put(&b, begin - (RANS_LOW << more), 16 + more);
    }
    assert_int_equal(skf_buf_u8(&out, form), SKF_OK);
    assert_int_equal(skf_buf_put(&out, packed, (size_t)(skf_bits_end(&b) - packed)), SKF_OK);
    assert_int_equal(skf_put_varint(&out, words), SKF_OK);
    assert_int_equal(skf_buf_fill(&out, 0, 2 * words), SKF_OK);
    struct skf_reader r = skf_reader_of(out.data, out.len);
    enum skf_err e = skf_syms_get(w, &r, &(struct skf_syms){sym, key, 4});
    if (e == SKF_OK && skf_reader_left(&r) != 0)
        e = SKF_ERR_FORMAT;
    skf_buf_free(&out);
    return e;
}

static void test_lying_tables(void **unused)
{
    struct skf_work w;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    assert_int_equal(lying(&w, 8, 0, 256, RANS_LOW, 0), SKF_OK); /* what is right is taken */
    assert_int_equal(lying(&w, 8, 0, 255, RANS_LOW, 0), SKF_ERR_FORMAT);  /* too little */
    assert_int_equal(lying(&w, 8, 0, 257, RANS_LOW, 0), SKF_ERR_FORMAT);  /* too much */
    assert_int_equal(lying(&w, 8, 1, 256, RANS_LOW, 0), SKF_ERR_FORMAT);  /* twice the sum */
    assert_int_equal(lying(&w, 8, 1, 128, RANS_LOW, 0), SKF_ERR_FORMAT);  /* right sums; the states are not at their end */
    assert_int_equal(lying(&w, 8, 0, 256, UINT32_MAX, 0), SKF_ERR_FORMAT); /* a state far off */
    assert_int_equal(lying(&w, 8, 0, 256, RANS_LOW + 1, 0), SKF_ERR_FORMAT); /* one that does not end where all do */
    assert_int_equal(lying(&w, 8, 0, 256, RANS_LOW, 1), SKF_ERR_FORMAT);  /* words that nobody reads */
    assert_int_equal(lying(&w, 8, 0, 256, RANS_LOW, 5), SKF_ERR_FORMAT);  /* more words than symbols */
    assert_int_equal(lying(&w, 7, 0, 128, RANS_LOW, 0), SKF_ERR_FORMAT);  /* precisions that are not allowed */
    assert_int_equal(lying(&w, 13, 0, 4096, RANS_LOW, 0), SKF_ERR_FORMAT);
    assert_int_equal(lying(&w, 8 | 32, 0, 256, RANS_LOW, 0), SKF_ERR_FORMAT);
    assert_int_equal(lying(&w, 8 | 48, 0, 256, RANS_LOW, 0), SKF_ERR_FORMAT);
    skf_work_free(&w);
}

static const enum skf_type types[] = {
    SKF_T_F32,  SKF_T_F16,  SKF_T_BF16, SKF_T_F64,  SKF_T_I8,   SKF_T_I16,  SKF_T_I32,   SKF_T_I64,  SKF_T_U8,
    SKF_T_U16,  SKF_T_U32,  SKF_T_U64,  SKF_T_BOOL, SKF_T_F8_E4M3, SKF_T_F8_E5M2, SKF_T_Q4_0, SKF_T_Q4_1,
    SKF_T_Q5_0, SKF_T_Q5_1, SKF_T_Q8_0, SKF_T_Q8_1, SKF_T_Q2_K, SKF_T_Q3_K, SKF_T_Q4_K,  SKF_T_Q5_K, SKF_T_Q6_K,
    SKF_T_IQ4_NL, SKF_T_MXFP4};

/* Random blocks, every bit pattern among them (infinities, no numbers, scales of zero), of which some bytes change. */
static void make_pair(uint8_t *old, uint8_t *neu, size_t n, unsigned percent)
{
    for (size_t i = 0; i < n; i++)
        old[i] = next() % 9 ? (uint8_t)next() : (uint8_t)(next() % 3 * 127);
    memcpy(neu, old, n);
    for (size_t i = 0; i < n; i++)
        if (next() % 100 < percent)
            neu[i] = (uint8_t)(next() % 2 ? neu[i] + next() % 5 - 2 : next());
}

static void test_every_type(void **unused)
{
    struct skf_work w;
    static uint8_t old[210 * 300], neu[sizeof old], back[sizeof old];
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (size_t t = 0; t < SKF_COUNT(types); t++) {
        uint32_t grain = skf_int_grain(types[t]);
        const struct skf_type_info *info = skf_type_info((uint32_t)types[t]);
        assert_non_null(info);
        assert_int_equal(grain, info->block_bytes); /* a description that does not fit its type would read beside it */
        static const unsigned percents[] = {0, 1, 10, 100};
        for (size_t k = 0; k < SKF_COUNT(percents); k++) {
            struct skf_buf out = SKF_BUF_INIT(1 << 20);
            size_t n = grain * (1 + next() % (sizeof old / grain));
            uint64_t row = grain * (k % 2 ? 64 : n / grain);
            make_pair(old, neu, n, percents[k]);
            assert_int_equal(skf_int_put(&w, types[t], row, NULL, 0, old, neu, n, &out), SKF_OK);
            memset(back, 0, n);
            assert_int_equal(skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len, old, back, n), SKF_OK);
            assert_memory_equal(back, neu, n);
            /* One byte more or less is refused. */
            assert_int_equal(skf_buf_u8(&out, 0), SKF_OK);
            assert_int_equal(skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len, old, back, n), SKF_ERR_FORMAT);
            assert_int_equal(skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len - 2, old, back, n), SKF_ERR_FORMAT);
            skf_buf_free(&out);
        }
    }
    assert_int_equal(skf_int_grain(SKF_T_Q8_K), 0); /* carried, but not by differences */
    skf_work_free(&w);
}

/* Descriptions must cover every byte of a block: what is not described would be lost. */
static void test_no_byte_forgotten(void **unused)
{
    struct skf_work w;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (size_t t = 0; t < SKF_COUNT(types); t++) {
        uint32_t grain = skf_int_grain(types[t]);
        for (uint32_t at = 0; at < grain; at++) {
            uint8_t old[256] = {0}, neu[256] = {0}, back[256];
            struct skf_buf out = SKF_BUF_INIT(1 << 12);
            neu[at] = 0x5a;
            assert_int_equal(skf_int_put(&w, types[t], grain, NULL, 0, old, neu, grain, &out), SKF_OK);
            assert_int_equal(skf_int_get(&w, types[t], grain, NULL, 0, out.data, out.len, old, back, grain), SKF_OK);
            assert_memory_equal(back, neu, grain);
            skf_buf_free(&out);
        }
    }
    skf_work_free(&w);
}

/* Payloads broken at random: they fail or give other bytes, nothing else (valgrind and ASan watch). */
static void test_broken_payloads(void **unused)
{
    struct skf_work w;
    static uint8_t old[20 * 272], neu[sizeof old], back[sizeof old];
    assert_int_equal(skf_work_init(&w), SKF_OK);
    static const enum skf_type some[] = {SKF_T_BF16, SKF_T_F32, SKF_T_Q8_0, SKF_T_Q4_1, SKF_T_Q6_K};
    for (size_t t = 0; t < SKF_COUNT(some); t++) {
        struct skf_buf out = SKF_BUF_INIT(1 << 16);
        size_t grain = skf_int_grain(some[t]), n = sizeof old / grain * grain, row = 8 * grain;
        make_pair(old, neu, n, 3);
        assert_int_equal(skf_int_put(&w, some[t], row, NULL, 0, old, neu, n, &out), SKF_OK);
        for (unsigned k = 0; k < 2000; k++) {
            uint8_t *copy = skf_memdup(out.data, out.len);
            assert_non_null(copy);
            for (unsigned m = 1 + next() % 3; m; m--)
                copy[next() % (next() & 1 ? out.len : SKF_MIN(out.len, 24))] = (uint8_t)next();
            size_t len = next() % 4 ? out.len : next() % out.len;
            enum skf_err e = skf_int_get(&w, some[t], row, NULL, 0, copy, len, old, back, n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            skf_free(copy);
        }
        skf_buf_free(&out);
    }
    skf_work_free(&w);
}

/* A frame of a few bytes that would fill gigabytes stops at the size that is known. */
static void test_bomb(void **unused)
{
    struct skf_zenc *enc = skf_zenc_new();
    struct skf_zdec *dec = skf_zdec_new();
    size_t n = 8u << 20, packed;
    uint8_t *zeros = skf_calloc(1, n), out[4096], small[1024];
    assert_non_null(enc);
    assert_non_null(dec);
    assert_non_null(zeros);
    assert_int_equal(skf_zenc_chunk(enc, zeros, n, NULL, 0, 3, small, sizeof small, &packed), SKF_OK);
    assert_true(packed > 0);
    memset(out, 0x5a, sizeof out);
    assert_int_equal(skf_zdec_run(dec, small, packed, NULL, 0, out, 1000), SKF_ERR_FORMAT);
    for (size_t i = 1000; i < sizeof out; i++)
        assert_int_equal(out[i], 0x5a);
    /* too little is as wrong as too much */
    assert_int_equal(skf_zdec_run(dec, small, packed, NULL, 0, zeros, n), SKF_OK);
    assert_int_equal(skf_zdec_run(dec, small, 0, NULL, 0, out, 0), SKF_OK);
    assert_int_equal(skf_zdec_run(dec, small, 0, NULL, 0, out, 1), SKF_ERR_FORMAT);
    skf_free(zeros);
    skf_zenc_free(enc);
    skf_zdec_free(dec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_varint),          cmocka_unit_test(test_symbols),
        cmocka_unit_test(test_same_everywhere), cmocka_unit_test(test_lying_tables), cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_no_byte_forgotten), cmocka_unit_test(test_broken_payloads),
        cmocka_unit_test(test_bomb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
