/*
 * Packed pieces: what goes in comes out, of every kind of bytes and size; broken ones are refused in bounded time and room; and deltas whose
 * chunks lie in pieces are applied beside and in place, chunk by chunk in any order, by as many threads as there are.
 */
#include "tests/lib/skd_fix.h"

#include "base/alloc.h"
#include "base/util.h"
#include "delta/lz_priv.h"

#define N (80u << 10)

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

/* The whole piece, by parts of at most `part` bytes. */
static enum skf_err unpack(const uint8_t *p, size_t n, uint8_t *out, size_t out_n, size_t part)
{
    struct skf_lz_in *in = skf_lz_in_new();
    enum skf_err e = in ? skf_lz_open(in, p, n, out_n) : SKF_ERR_NOMEM;
    for (size_t at = 0; at < out_n && e == SKF_OK; at += part)
        e = skf_lz_next(in, p, out + at, SKF_MIN(part, out_n - at));
    skf_lz_in_free(in);
    return e;
}

/* In and out again, and nothing beyond; every cut of it, what is longer, and another size than its own refused. Returns the packed size. */
static size_t there_and_back(const uint8_t *p, size_t n, enum skf_lz_filter f)
{
    struct skf_buf out = SKF_BUF_INIT(2 * n + 64);
    assert_int_equal(skf_lz_put(NULL, p, n, &out), SKF_OK);
    assert_int_equal(out.data[0], f);
    for (size_t part = n; part; part = part > 1000 ? part / 9 : n < 100 ? part - 1 : 0) {
        memset(back, 0xa5, sizeof back);
        assert_int_equal(unpack(out.data, out.len, back, n, part), SKF_OK);
        assert_memory_equal(back, p, n);
        assert_int_equal(back[n], 0xa5);
    }
    assert_int_equal(unpack(out.data, out.len, back, n + 1, n + 1), SKF_ERR_FORMAT);
    assert_int_equal(unpack(out.data, out.len, back, n - 1, n), SKF_ERR_FORMAT);
    for (size_t cut = 0; cut < out.len; cut += 1 + out.len / 9)
        assert_int_equal(unpack(out.data, cut, back, n, n), SKF_ERR_FORMAT);
    assert_int_equal(unpack(out.data, out.len - 1, back, n, n), SKF_ERR_FORMAT);
    assert_int_equal(skf_buf_u8(&out, 0), SKF_OK);
    assert_int_equal(unpack(out.data, out.len, back, n, n), SKF_ERR_FORMAT);
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

/* A filter pays where there are calls; none but these, and no properties but LZMA's. */
static void test_filters(void **unused)
{
    static uint8_t plain[N];
    make_program(plain, N, false);
    size_t filtered = there_and_back(plain, N, SKF_LZ_X86);
    for (size_t i = 0; i < N; i++) /* the same with opcodes that no filter knows */
        plain[i] = (plain[i] & 0xfe) == 0xe8 ? plain[i] ^ 0x40 : plain[i];
    assert_true(filtered < there_and_back(plain, N, SKF_LZ_PLAIN) / 10 * 9);
    struct skf_buf out = SKF_BUF_INIT(2 * N);
    assert_int_equal(skf_lz_put(NULL, text, 5000, &out), SKF_OK);
    for (unsigned k = 0; k < 512; k++) {
        uint8_t was[2] = {out.data[0], out.data[1]}, *byte = &out.data[k / 256];
        *byte = (uint8_t)k;
        bool is_known = k < 256 ? k < SKF_LZ_FILTERS : *byte < 225 && *byte % 9 + *byte / 9 % 5 <= 4;
        struct skf_lz_in *in = skf_lz_in_new();
        assert_int_equal(skf_lz_open(in, out.data, out.len, 5000), is_known ? SKF_OK : SKF_ERR_FORMAT);
        skf_lz_in_free(in);
        memcpy(out.data, was, sizeof was);
    }
    skf_buf_free(&out);
}

/* Without memory for the n-th of its parts, either side says so. */
static void test_allocations(void **unused)
{
    struct skf_buf out = SKF_BUF_INIT(2 * N);
    for (int is_reading = 0; is_reading < 2; is_reading++) {
        enum skf_err e = SKF_ERR_NOMEM;
        unsigned long k = 0;
        while (e == SKF_ERR_NOMEM && ++k < 100) {
            skf_alloc_fail_at(k);
            if (is_reading) {
                e = unpack(out.data, out.len, back, N, N);
            } else {
                skf_buf_free(&out);
                e = skf_lz_put(NULL, text, N, &out);
            }
            skf_alloc_fail_at(0);
        }
        assert_int_equal(e, SKF_OK);
        assert_true(k > 3);
    }
    assert_memory_equal(back, text, N);
    skf_buf_free(&out);
}

/* Whatever is turned in it: an error or other bytes, never more of them. */
static void test_flips(void **unused)
{
    enum { LEN = 20000 };
    struct skf_buf out = SKF_BUF_INIT(2 * LEN);
    assert_int_equal(skf_lz_put(NULL, text, LEN, &out), SKF_OK);
    unsigned refused = 0;
    for (unsigned k = 0; k < 600; k++) {
        size_t at = k < 40 ? k / 8 : fix_next() % out.len;
        out.data[at] ^= (uint8_t)(1u << k % 8);
        back[LEN] = 0xa5;
        enum skf_err e = unpack(out.data, out.len, back, LEN, LEN);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        assert_int_equal(back[LEN], 0xa5);
        refused += e != SKF_OK;
        out.data[at] ^= (uint8_t)(1u << k % 8);
    }
    assert_true(refused > 500);
    for (size_t room_for = 0; room_for < out.len; room_for += 1 + out.len / 20) { /* and no room to pack it is told */
        struct skf_buf small = SKF_BUF_INIT(room_for);
        assert_int_equal(skf_lz_put(NULL, text, LEN, &small), SKF_ERR_LIMIT);
        skf_buf_free(&small);
    }
    atomic_bool cancel = true;
    const struct skf_progress stop = {.cancel = &cancel};
    skf_buf_clear(&out);
    assert_int_equal(skf_lz_put(&stop, text, LEN, &out), SKF_ERR_CANCELLED);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_filters), cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_flips),          cmocka_unit_test(test_files),   cmocka_unit_test(test_left_alone),
    };
    return cmocka_run_group_tests(tests, set_up, fix_teardown);
}
