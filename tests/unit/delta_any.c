/*
 * Chunks of regions: floats by themselves, numbers found inside of unknown bytes, pieces of a large source in another order; and that no
 * payload, however broken, makes them do more than fail.
 */
#include "tests/lib/skd_fix.h"

#include <math.h>

#include "delta/region_priv.h"
#include "delta/skd_priv.h"

#define N (96 * 1024)

static struct skf_work work;
static struct skf_region_room room;

/* About normal, of a size that weights have. */
static float weight(void)
{
    double x = 0;
    for (int i = 0; i < 6; i++)
        x += (double)(fix_next() >> 11) / 9007199254740992.0 - 0.5;
    return (float)(x * 0.05);
}

static void put_float(uint8_t *p, enum skf_type t, float x)
{
    union { float f; uint32_t u; } v = {.f = x};
    if (t == SKF_T_F32)
        skf_put_le32(p, v.u);
    else
        skf_put_le16(p, t == SKF_T_BF16 ? skf_f32_to_bf16(x) : skf_f32_to_f16(x));
}

static size_t width_of(enum skf_type t) { return t == SKF_T_F32 ? 4 : 2; }

/* Out, in again, and every cut of it refused. Returns the payload's size. */
static size_t floats_case(enum skf_type t, const uint8_t *p, size_t n)
{
    struct skf_buf out = SKF_BUF_INIT(2 * n + 65536);
    uint8_t *back = skf_alloc(n + 1);
    assert_non_null(back);
    back[n] = 0xa5;
    assert_int_equal(skf_floats_put(&work, t, p, n, &out), SKF_OK);
    struct skf_reader r = skf_reader_of(out.data, out.len);
    assert_int_equal(skf_floats_get(&work, t, &r, back, n), SKF_OK);
    assert_int_equal(skf_reader_left(&r), 0);
    assert_memory_equal(back, p, n);
    assert_int_equal(back[n], 0xa5);
    for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 40) {
        r = skf_reader_of(out.data, cut);
        assert_int_not_equal(skf_floats_get(&work, t, &r, back, n), SKF_OK);
    }
    size_t len = out.len;
    skf_buf_free(&out);
    skf_free(back);
    return len;
}

static void test_floats(void **unused)
{
    static const enum skf_type types[] = {SKF_T_F32, SKF_T_F16, SKF_T_BF16};
    static const unsigned most[] = {860, 900, 720}; /* of a thousand */
    static uint8_t p[N];
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        size_t width = width_of(types[k]);
        for (size_t i = 0; i < N; i += width)
            put_float(p + i, types[k], weight());
        assert_true(floats_case(types[k], p, N) * 1000 < (size_t)N * most[k]);
        for (size_t i = 0; i < N; i += width) /* pruned: what is 0 costs next to nothing */
            if (fix_next() % 4)
                memset(p + i, 0, width);
        assert_true(floats_case(types[k], p, N) * 1000 < (size_t)N * 360);
        for (size_t i = 0; i < N; i++) /* any bits: no numbers, infinite ones, both zeros */
            p[i] = (uint8_t)(fix_next() >> 32);
        (void)floats_case(types[k], p, N);
        for (size_t i = 0; i < 40 * width; i += width)
            (void)floats_case(types[k], p, i + width);
        memset(p, 0, N);
        assert_true(floats_case(types[k], p, N) < 100);
        p[width - 1] = 0x80; /* -0: no exponent, but not the number 0 */
        (void)floats_case(types[k], p, N);
        memset(p, 0xff, N);
        assert_true(floats_case(types[k], p, N) < 1200);
    }
    for (size_t i = 0; i < N; i += 4) /* halves that were made wider: the lower bits say nothing */
        put_float(p + i, SKF_T_F32, skf_f16_to_f32(skf_f32_to_f16(weight())));
    assert_true(floats_case(SKF_T_F32, p, N) * 1000 < (size_t)N * 480);
}

/* ---- regions ---------------------------------------------------------------------------------------------------------------- */
static struct skf_area match;
static struct skf_buf trial, out;
static struct skf_zenc *enc;

static struct skf_region_tools tools(void)
{
    skf_buf_clear(&out);
    trial.limit = out.limit = SKF_CHUNK_MAX;
    return (struct skf_region_tools){&work, enc, &room, &match, &trial, 3};
}

static void regions_case(const struct skf_region *g, uint32_t count, const uint8_t *p, size_t n, const uint8_t *prefix,
                         size_t prefix_n)
{
    struct skf_region_tools t = tools();
    uint8_t *back = skf_alloc(n + 1);
    assert_non_null(back);
    memset(back, 0x5a, n + 1);
    assert_int_equal(skf_regions_put(&t, g, count, p, prefix, prefix_n, &out), SKF_OK);
    assert_int_equal(skf_regions_get(&work, &room, out.data, out.len, prefix, prefix_n, back, n), SKF_OK);
    assert_memory_equal(back, p, n);
    assert_int_equal(back[n], 0x5a);
    assert_int_equal(skf_regions_get(&work, &room, out.data, out.len, prefix, prefix_n, back, n - 1), SKF_ERR_FORMAT);
    for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 50)
        assert_int_not_equal(skf_regions_get(&work, &room, out.data, cut, prefix, prefix_n, back, n), SKF_OK);
    for (int i = 0; i < 300; i++) { /* one bit wrong: anything but a crash */
        size_t at = i < 60 ? (size_t)i % out.len : fix_next() % out.len;
        uint8_t bit = (uint8_t)(1u << fix_next() % 8);
        out.data[at] ^= bit;
        enum skf_err e = skf_regions_get(&work, &room, out.data, out.len, prefix, prefix_n, back, n);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        out.data[at] ^= bit;
    }
    skf_free(back);
}

static void test_regions(void **unused)
{
    static uint8_t p[40000], old[30000];
    for (size_t i = 0; i < sizeof old; i += 4)
        put_float(old + i, SKF_T_F32, weight());
    memcpy(p, "a head of some thirty-five bytes...", 35);
    for (size_t i = 0; i < 8000; i += 4)
        put_float(p + 35 + i, SKF_T_F32, weight());
    memcpy(p + 8035, old + 1000, 12000);
    for (size_t i = 0; i < 12000; i += 97)
        p[8035 + i]++;
    memcpy(p + 20035, p + 35, 8000); /* again */
    for (size_t i = 28035; i < sizeof p; i++)
        p[i] = (uint8_t)(fix_next() % 23);
    const struct skf_region g[] = {{0, 35, 0, SKF_REGION_REST, 0, 0, 0},
                                   {35, 8000, 0, SKF_REGION_FLOATS, SKF_T_F32, 4, 0},
                                   {8035, 12000, 1000, SKF_REGION_INT, SKF_T_I8, 1, 0},
                                   {20035, 8000, sizeof old + 35, SKF_REGION_INT, SKF_T_I8, 1, 0},
                                   {28035, 6965, 0, SKF_REGION_REST, 0, 0, 0},
                                   {35000, 5000, 0, SKF_REGION_FIRST, SKF_T_I8, 1, 0}};
    regions_case(g, SKF_COUNT(g), p, sizeof p, old, sizeof old);
    regions_case(g, 1, p, 35, old, sizeof old);
    const struct skf_region numbers[] = {{0, 8000, 0, SKF_REGION_FLOATS, SKF_T_F32, 4, 0}};
    regions_case(numbers, 1, p + 35, 8000, NULL, 0);
    /* Of another type: what the old numbers become, and a little more. */
    const struct skf_region casts[] = {{0, 8000, 1000, SKF_REGION_CAST, SKF_T_F16, 200, SKF_T_F32},
                                       {8000, 3400, 4000, SKF_REGION_CAST, SKF_T_Q8_0, 34, SKF_T_F32}};
    assert_int_equal(skf_cast(SKF_T_F32, SKF_T_F16, old + 1000, p, 8000), SKF_OK);
    assert_int_equal(skf_cast(SKF_T_F32, SKF_T_Q8_0, old + 4000, p + 8000, 3400), SKF_OK);
    for (size_t i = 0; i < 11400; i += 97)
        p[i]++;
    regions_case(casts, 2, p, 11400, old, sizeof old);
    const uint8_t infinite[4] = {0, 0, 0x80, 0x7f};
    assert_int_equal(skf_cast(SKF_T_F32, SKF_T_F16, infinite, p, 2), SKF_ERR_FORMAT);
}

/* What is written by hand: each lie by itself. */
static void test_lies(void **unused)
{
    static uint8_t back[64], prefix[64];
    static const struct { const char *what; uint8_t p[16]; size_t n; } lies[] = {
        {"nothing", {0}, 0},
        {"no regions", {0}, 1},
        {"more than there may be", {0x81, 0x02}, 2},
        {"a kind that is none", {1, 4, 64}, 3},
        {"an empty region", {2, 0, 0, 0, 64}, 5},
        {"longer than the chunk", {1, 0, 65}, 3},
        {"shorter than the chunk", {1, 0, 63}, 3},
        {"a rest without a frame", {1, 0, 64}, 3},
        {"a type that is none", {1, 1, 64, 99, 1, 0, 1, 0}, 8},
        {"a row of nothing", {1, 1, 64, 24, 0, 0, 1, 0}, 8},
        {"a row that is no whole blocks", {1, 2, 64, 8, 33, 1, 0}, 7},
        {"from behind itself", {1, 1, 64, 24, 1, 1, 1, 0}, 8},
        {"from itself", {1, 1, 64, 24, 1, 64, 1, 0}, 8},
        {"a payload that is not there", {1, 1, 64, 24, 1, 0, 9, 0}, 8},
        {"floats of a type that has none", {1, 3, 64, 24, 1, 0}, 6},
        {"floats of half a number", {2, 3, 63, 0, 1, 0, 0, 1}, 8},
        {"numbers of the same type", {1, 4, 64, 1, 2, 1, 0, 1, 0}, 9},
        {"numbers of a type that becomes none", {1, 4, 64, 1, 2, 24, 0, 1, 0}, 9},
        {"more numbers than there are", {1, 4, 64, 1, 2, 0, 0, 1, 0}, 9},
        {"numbers past the end", {1, 4, 64, 1, 2, 30, 1, 1, 0}, 9},
        {"numbers of half a block", {1, 4, 64, 1, 2, 8, 0, 1, 0}, 9},
        {"something behind", {1, 2, 64, 24, 1, 1, 0, 7}, 8},
    };
    for (size_t i = 0; i < SKF_COUNT(lies); i++)
        if (skf_regions_get(&work, &room, lies[i].p, lies[i].n, prefix, sizeof prefix, back, sizeof back) != SKF_ERR_FORMAT)
            fail_msg("%s was taken", lies[i].what);
}

/* ---- finding ------------------------------------------------------------------------------------------------------------------ */
static void test_find(void **unused)
{
    static struct skf_regions_found f;
    static uint8_t p[300000], old[200000], text[50000];
    struct skf_region_tools t = tools();
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)("etaoin shrdlu,\n"[fix_next() % 15]);
    /* text, floats at an odd place, text, the same floats again, halves */
    memcpy(p, text, 20001);
    for (size_t i = 0; i < 80000; i += 4)
        put_float(p + 20001 + i, SKF_T_F32, weight());
    memcpy(p + 100001, text + 30000, 20000);
    memcpy(p + 120001, p + 20001, 80000);
    for (size_t i = 200001; i + 2 <= sizeof p; i += 2)
        put_float(p + i, SKF_T_BF16, weight());
    memcpy(old, text + 10000, 20000);
    assert_int_equal(skf_regions_find(&t, p, sizeof p, old, sizeof old, &f), SKF_OK);
    assert_true(f.count > 3 && f.numbers > 250000 && f.numbers < 262000);
    uint32_t at = 0;
    for (uint32_t i = 0; i < f.count; at += f.g[i++].n)
        assert_int_equal(f.g[i].at, at);
    assert_int_equal(at, sizeof p);
    regions_case(f.g, f.count, p, sizeof p, old, sizeof old);
    assert_true(out.len < 60000 * 43 / 100 + 80000 * 86 / 100 + 100000 * 70 / 100 + 2000);
    /* text alone, and noise alone, have none */
    t = tools();
    assert_int_equal(skf_regions_find(&t, text, sizeof text, old, sizeof old, &f), SKF_OK);
    assert_int_equal(f.count, 0);
    assert_true(f.matched >= 19000);
    for (size_t i = 0; i < sizeof p; i++)
        p[i] = (uint8_t)(fix_next() >> 32);
    assert_int_equal(skf_regions_find(&t, p, sizeof p, old, sizeof old, &f), SKF_OK);
    assert_int_equal(f.count, 0);
    assert_int_equal(f.matched, 0);
    /* numbers that moved a little, from the place that their neighbourhood comes from */
    for (size_t i = 0; i < sizeof old; i += 4)
        put_float(old + i, SKF_T_F32, weight());
    memcpy(p, old + 4000, 150000);
    for (size_t i = 2000; i < 148000; i += 4)
        skf_put_le32(p + i, skf_le32(p + i) + (uint32_t)(fix_next() % 9) - 4);
    assert_int_equal(skf_regions_find(&t, p, 150000, old, sizeof old, &f), SKF_OK);
    assert_true(f.numbers > 140000);
    regions_case(f.g, f.count, p, 150000, old, sizeof old);
    assert_true(out.len < 20000);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------- */
static struct skf_delta_stats any_case(const void *a, size_t an, const void *b, size_t bn, unsigned jobs)
{
    struct fix_pair p = {.old_bytes = SKF_BUF_INIT(1 << 26), .new_bytes = SKF_BUF_INIT(1 << 26)};
    assert_int_equal(skf_buf_put(&p.old_bytes, a, an), SKF_OK);
    assert_int_equal(skf_buf_put(&p.new_bytes, b, bn), SKF_OK);
    fix_open(&p);
    fix_write("x", p.old_bytes.data, p.old_bytes.len);
    struct skf_delta_stats s = fix_build(&p, "dx", jobs);
    fix_ok(fix_apply("x", "dx", "y", why));
    fix_same("y", p.new_bytes.data, p.new_bytes.len);
    fix_close(&p);
    return s;
}

/* Pieces of a source that no single range holds, in another order: several ranges a chunk. */
static void test_ranges(void **unused)
{
    enum { PIECE = 200000, PIECES = 60 };
    size_t n = (size_t)PIECE * PIECES;
    uint8_t *old = skf_alloc(n), *neu = skf_alloc(n);
    assert_non_null(old);
    assert_non_null(neu);
    for (size_t i = 0; i < n; i++)
        old[i] = (uint8_t)(fix_next() >> 32);
    for (size_t k = 0; k < 12; k++)
        memcpy(neu + k * PIECE, old + k * 37 % PIECES * PIECE, PIECE);
    struct skf_delta_stats s = any_case(old, n, neu, (size_t)12 * PIECE, 2);
    assert_true(s.coding_chunks[SKF_CODE_MIXED] > 0);
    assert_true(s.bytes < 4000);
    /* Of the index: a range past the source's end. */
    uint8_t *file;
    size_t len;
    struct skf_skd *skd;
    fix_read("dx", &file, &len);
    fix_ok(skf_skd_parse(file, skf_le64(file + 8), &skd, why));
    uint32_t ranges = 0;
    for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks; i++)
        ranges += skd->chunks[i].ranges;
    assert_true(ranges >= 12);
    skf_skd_free(skd);
    skf_free(file);
    skf_free(old);
    skf_free(neu);
}

static void test_retrained(void **unused)
{
    enum { LEN = 1500000 };
    uint8_t *old = skf_alloc(LEN), *neu = skf_alloc(LEN);
    assert_non_null(old);
    assert_non_null(neu);
    for (int k = 0; k < 2; k++) {
        uint8_t *p = k ? neu : old;
        memset(p, 'h', 1001);
        for (size_t i = 1001; i + 4 <= LEN; i += 4)
            put_float(p + i, SKF_T_F32, weight());
        memcpy(p + LEN - 3, "end", 3);
    }
    memcpy(neu + 400001, old + 400001, 300000); /* a part that stayed */
    struct skf_delta_stats one = any_case(old, LEN, neu, LEN, 1);
    assert_true(one.bytes < 1200000 * 86 / 100 + 4000);
    uint8_t *a, *b;
    size_t an, bn;
    fix_read("dx", &a, &an);
    struct skf_delta_stats four = any_case(old, LEN, neu, LEN, 4);
    fix_read("dx", &b, &bn);
    assert_true(one.bytes == four.bytes && an == bn);
    assert_memory_equal(a, b, an);
    skf_free(a);
    skf_free(b);
    skf_free(old);
    skf_free(neu);
}

static int set_up(void **state)
{
    trial = out = SKF_BUF_INIT(SKF_CHUNK_MAX);
    enc = skf_zenc_new();
    return enc && skf_work_init(&work) == SKF_OK ? fix_setup(state) : -1;
}
static int tear_down(void **state)
{
    skf_work_free(&work);
    skf_zenc_free(enc);
    skf_area_free(&room.rest);
    skf_area_free(&room.zeros);
    skf_area_free(&match);
    skf_buf_free(&trial);
    skf_buf_free(&out);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats), cmocka_unit_test(test_regions), cmocka_unit_test(test_lies),
        cmocka_unit_test(test_find),   cmocka_unit_test(test_ranges),  cmocka_unit_test(test_retrained),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
