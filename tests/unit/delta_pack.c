/*
 * Packed pieces: what goes in comes out, of every kind of bytes and size; broken ones are refused in bounded time and room; and deltas whose
 * chunks lie in pieces are applied beside and in place, chunk by chunk in any order, by as many threads as there are.
 */
#include "tests/lib/skd_fix.h"

#include "base/util.h"
#include "delta/lz_priv.h"

#define N (80u << 10)

static struct skf_lz_room room;
static struct skf_area model;
static uint8_t text[5u << 18], back[N + 1];

/* Words of a few letters in sentences that come again far away. */
static void make_text(uint8_t *p, size_t n)
{
    static uint8_t said[1 << 19];
    for (size_t i = 0; i < sizeof said;)
        for (size_t len = 2 + fix_next() % 9; len && i < sizeof said; len--, i++)
            said[i] = len == 1 ? ' ' : (uint8_t)('a' + fix_next() % 17 * (fix_next() % 2));
    for (size_t i = 0; i < n;) {
        size_t len = SKF_MIN(40 + fix_next() % 200, n - i), from = fix_next() % (sizeof said - 240);
        memcpy(p + i, said + from, len);
        i += len;
    }
}

/* Calls of a few functions among other instructions: those of x86 with their distance behind 0xe8, those of arm64 as BL. */
static void make_program(uint8_t *p, size_t n, bool is_arm)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(fix_next() % 7 * 31);
    for (size_t i = 0; i + 24 < n; i += is_arm ? 16 : 11 + fix_next() % 9) {
        uint32_t to = (uint32_t)(fix_next() % 50) * 4096;
        if (is_arm) {
            skf_put_le32(p + i, 0x25u << 26 | ((to / 4 - (uint32_t)i / 4) & 0x3ffffff));
        } else {
            p[i] = fix_next() % 8 ? 0xe8 : 0xe9;
            skf_put_le32(p + i + 1, fix_next() % 9 ? to - (uint32_t)i - 5 : (uint32_t)fix_next());
        }
    }
}

/* In and out again, and nothing beyond; every cut of it, and what is longer, refused. Returns the packed size. */
static size_t there_and_back(const uint8_t *p, size_t n, enum skf_lz_filter f)
{
    struct skf_buf out = SKF_BUF_INIT(2 * n + 64);
    assert_int_equal(skf_lz_put(&room, p, n, &out), SKF_OK);
    assert_int_equal(out.data[0], f);
    back[n] = 0xa5;
    assert_int_equal(skf_lz_get(&model, out.data, out.len, back, n), SKF_OK);
    assert_memory_equal(back, p, n);
    assert_int_equal(back[n], 0xa5);
    for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 9)
        assert_int_equal(skf_lz_get(&model, out.data, cut, back, n), SKF_ERR_FORMAT);
    assert_int_equal(skf_buf_u8(&out, 0), SKF_OK);
    assert_int_equal(skf_lz_get(&model, out.data, out.len, back, n), SKF_ERR_FORMAT);
    size_t len = out.len - 1;
    skf_buf_free(&out);
    return len;
}

static void test_there_and_back(void **unused)
{
    static uint8_t p[N];
    for (size_t n = 1; n < 40; n++) {
        for (size_t i = 0; i < n; i++)
            p[i] = (uint8_t)(fix_next() % 3);
        (void)there_and_back(p, n, SKF_LZ_PLAIN);
    }
    assert_true(there_and_back(text, N, SKF_LZ_PLAIN) < N / 2);
    memset(p, 0, N);
    assert_true(there_and_back(p, N, SKF_LZ_PLAIN) < N / 500);
    for (size_t i = 0; i < N; i++)
        p[i] = (uint8_t)("abc"[i % 3]);
    assert_true(there_and_back(p, N, SKF_LZ_PLAIN) < N / 500);
    for (size_t i = 0; i < N; i++)
        p[i] = (uint8_t)(fix_next() >> 32);
    assert_true(there_and_back(p, N / 4, SKF_LZ_PLAIN) < N / 4 + N / 100);
    make_program(p, N, false);
    (void)there_and_back(p, N, SKF_LZ_X86);
    make_program(p, N, true);
    (void)there_and_back(p, N, SKF_LZ_ARM64);
}

/* A filter is undone whatever it was given, and pays where there are calls. */
static void test_filters(void **unused)
{
    static uint8_t p[4099], q[4099];
    for (unsigned k = 0; k < 400; k++) {
        size_t n = k < 50 ? k : 50 + fix_next() % (sizeof p - 50);
        static const uint8_t likely[8] = {0xe8, 0xe9, 0, 0xff, 0x94, 0x97, 1, 0xe8};
        for (size_t i = 0; i < n; i++)
            p[i] = k % 2 ? likely[fix_next() % 8] : (uint8_t)(fix_next() >> 20);
        for (int f = 0; f < SKF_LZ_FILTERS; f++) {
            memcpy(q, p, n);
            skf_lz_filter((enum skf_lz_filter)f, q, n, true);
            skf_lz_filter((enum skf_lz_filter)f, q, n, false);
            assert_memory_equal(p, q, n);
        }
    }
    static uint8_t plain[N];
    make_program(plain, N, false);
    size_t filtered = there_and_back(plain, N, SKF_LZ_X86);
    for (size_t i = 0; i < N; i++) /* the same with opcodes that no filter knows */
        plain[i] = (plain[i] & 0xfe) == 0xe8 ? plain[i] ^ 0x40 : plain[i];
    assert_true(filtered < there_and_back(plain, N, SKF_LZ_PLAIN) / 10 * 9);
}

/* Whatever is turned in it: an error or other bytes, never more of them. */
static void test_flips(void **unused)
{
    enum { LEN = 20000 };
    struct skf_buf out = SKF_BUF_INIT(2 * LEN);
    assert_int_equal(skf_lz_put(&room, text, LEN, &out), SKF_OK);
    unsigned refused = 0;
    for (unsigned k = 0; k < 600; k++) {
        size_t at = k < 40 ? k / 8 : fix_next() % out.len;
        out.data[at] ^= (uint8_t)(1u << k % 8);
        back[LEN] = 0xa5;
        enum skf_err e = skf_lz_get(&model, out.data, out.len, back, LEN);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        assert_int_equal(back[LEN], 0xa5);
        refused += e != SKF_OK;
        out.data[at] ^= (uint8_t)(1u << k % 8);
    }
    assert_true(refused > 500);
    for (size_t room_for = 0; room_for < out.len; room_for += 1 + out.len / 20) { /* and no room to pack it is told */
        struct skf_buf small = SKF_BUF_INIT(room_for);
        assert_int_equal(skf_lz_put(&room, text, LEN, &small), SKF_ERR_LIMIT);
        skf_buf_free(&small);
    }
    atomic_bool cancel = true;
    const struct skf_progress stop = {.cancel = &cancel};
    room.progress = &stop;
    skf_buf_clear(&out);
    assert_int_equal(skf_lz_put(&room, text, LEN, &out), SKF_ERR_CANCELLED);
    room.progress = NULL;
    skf_buf_free(&out);
}

static void open_texts(struct fix_pair *p, const void *old, size_t old_n, size_t n)
{
    *p = (struct fix_pair){.old_bytes = SKF_BUF_INIT(1 << 26), .new_bytes = SKF_BUF_INIT(1 << 26)};
    assert_int_equal(skf_buf_put(&p->old_bytes, old, old_n), SKF_OK);
    assert_int_equal(skf_buf_put(&p->new_bytes, text, n), SKF_OK);
    fix_open(p);
    fix_write("old", p->old_bytes.data, p->old_bytes.len);
}

/* A text of several chunks from another file: one piece; the same bytes from any number of threads; in place too. */
static void test_files(void **unused)
{
    struct fix_pair p;
    open_texts(&p, "something else", 14, sizeof text);
    struct skf_delta_stats s = fix_build(&p, "one", 1);
    assert_int_equal(s.coding_chunks[SKF_CODE_PACK], 2);
    assert_int_equal(s.coding_bytes[SKF_CODE_PACK], 0);
    assert_true(s.side_bytes > 0 && s.side_bytes < s.bytes && s.bytes < s.side_bytes + 512);
    (void)fix_build(&p, "four", 4);
    uint8_t *one, *four;
    size_t n, m;
    fix_read("one", &one, &n);
    fix_read("four", &four, &m);
    assert_int_equal(n, m);
    assert_memory_equal(one, four, n);
    fix_ok(fix_apply("old", "one", "new", why));
    fix_same("new", text, sizeof text);
    struct skf_delta_stats in_place;
    fix_write("turned", "something else", 14);
    fix_ok(skf_delta_apply_in_place(fix_path("turned"), fix_path("one"), NULL, &in_place, why));
    fix_same("turned", text, sizeof text);
    /* Chunks in any order, from the same memory; none without its side. */
    struct skf_skd *skd;
    struct skf_delta_scratch *scratch;
    struct skf_skd_side side;
    fix_ok(skf_skd_parse(one, skf_le64(one + 8), &skd, why));
    fix_ok(skf_delta_scratch_new(&scratch));
    assert_int_equal(skf_skd_info(skd)->n_sides, 1);
    static uint8_t out[SKF_CHUNK_MAX];
    fix_err(SKF_ERR_ARG, skf_skd_decode(skd, 1, NULL, &p.old_source, scratch, out, why));
    skf_skd_side(skd, 0, &side);
    fix_ok(skf_skd_put_side(skd, 0, one + side.payload_offset, why));
    for (uint64_t i = 2; i-- > 0;) {
        fix_ok(skf_skd_decode(skd, i, NULL, &p.old_source, scratch, out, why));
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        assert_int_equal(c.payload_length, 0);
        assert_int_equal(c.source_length, 0);
        assert_memory_equal(out, text + c.result_offset, c.result_length);
    }
    skf_delta_scratch_free(scratch);
    skf_skd_free(skd);
    skf_free(one);
    skf_free(four);
    fix_close(&p);
}

/* What the source has is not packed, and a level of zstd that is asked for is enough. */
static void test_left_alone(void **unused)
{
    struct fix_pair p;
    open_texts(&p, text, sizeof text - 1000, sizeof text);
    struct skf_delta_stats s = fix_build(&p, "near", 1);
    assert_int_equal(s.coding_chunks[SKF_CODE_PACK], 0);
    assert_true(s.bytes < 3000);
    fix_close(&p);
    open_texts(&p, "", 0, 100000);
    const struct skf_delta_opts fast = {.jobs = 1, .level = 3};
    fix_ok(skf_delta_build(p.old, p.neu, fix_path("fast"), &fast, &s, why));
    assert_int_equal(s.coding_chunks[SKF_CODE_PACK], 0);
    fix_close(&p);
}

static int set_up(void **state)
{
    make_text(text, sizeof text);
    return fix_setup(state);
}
static int tear_down(void **state)
{
    skf_lz_room_free(&room);
    skf_area_free(&model);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_filters),    cmocka_unit_test(test_flips),
        cmocka_unit_test(test_files),          cmocka_unit_test(test_left_alone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
