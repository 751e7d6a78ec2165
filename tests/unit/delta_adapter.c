/*
 * Adapter chunks: numbers come back to the bit, merged rows have the digests they have on every machine, and a delta with the adapter at
 * hand makes what another tool's arithmetic made of it too.
 */
#include "tests/lib/skd_fix.h"

#include "tests/lib/lora_make.h"

#include "base/util.h"
#include "delta/adapter_priv.h"
#include "delta/skd_priv.h"
#include "model/merge.h"

static struct skf_work work;

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------------- */

static size_t numbers_come_back(const float *x, size_t n)
{
    struct skf_buf out = SKF_BUF_INIT(1 << 20);
    float *y = skf_alloc(n * sizeof *y);
    assert_non_null(y);
    assert_int_equal(adapter_put_numbers(&work, x, n, &out), SKF_OK);
    struct skf_reader r = skf_reader_of(out.data, out.len);
    assert_int_equal(adapter_get_numbers(&work, &r, y, n), SKF_OK);
    assert_int_equal(skf_reader_left(&r), 0);
    assert_memory_equal(x, y, n * sizeof *y);
    size_t len = out.len;
    for (size_t cut = 0; cut < len; cut += 1 + len / 97) { /* every shorter one is refused */
        r = skf_reader_of(out.data, cut);
        assert_int_equal(adapter_get_numbers(&work, &r, y, n), SKF_ERR_FORMAT);
    }
    for (unsigned k = 0; k < 400; k++) { /* and a changed one makes n finite numbers or is refused */
        uint64_t at = k % 2 ? k / 2 % SKF_MIN(len, (size_t)40) : fix_next() % len;
        uint8_t was = out.data[at];
        out.data[at] ^= (uint8_t)(1u << k % 8);
        r = skf_reader_of(out.data, len);
        enum skf_err e = adapter_get_numbers(&work, &r, y, n);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
        for (size_t i = 0; e == SKF_OK && i < n; i++)
            assert_true((bits_of(y[i]) >> 23 & 255) != 255);
        out.data[at] = was;
    }
    skf_free(y);
    skf_buf_free(&out);
    return len;
}

static void test_numbers(void **unused)
{
    enum { N = 3000 };
    static float x[N];
    lora_fill(x, N, 1, 0x1p-16f); /* 16 bits: float32 */
    size_t full = numbers_come_back(x, N);
    assert_true(full < 4 * N);
    for (size_t i = 0; i < N; i++)
        x[i] = skf_f16_to_f32(skf_f32_to_f16(x[i] * 0.01f));
    x[0] = -0.0f;
    x[1] = skf_f16_to_f32(1); /* the least half */
    x[2] = skf_f16_to_f32(0xFBFF);
    size_t half = numbers_come_back(x, N);
    assert_true(half < 2 * N);
    for (size_t i = 0; i < N; i++)
        x[i] = skf_bf16_to_f32(skf_f32_to_bf16(x[i] * 1e-20f));
    assert_true(numbers_come_back(x, N) < 3 * N / 2 + 100);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)((int)(i % 9) - 4); /* few bits are sent where few are needed */
    assert_true(numbers_come_back(x, N) < N);
    memset(x, 0, sizeof x);
    assert_true(numbers_come_back(x, N) < N);
    (void)numbers_come_back(x, 1);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------------- */

static const struct {
    enum skf_type type;
    enum adapter_rule rule;
    const char *digest; /* SHA-256 of the rows and of the places, its beginning */
} rows[] = {
    {SKF_T_F32, ADAPTER_CARRIED, "c71a803d8b39f280"},
    {SKF_T_F16, ADAPTER_CARRIED, "45ebf6774e7eff95"},
    {SKF_T_BF16, ADAPTER_CARRIED, "8fd8acd1fd3decb1"},
    {SKF_T_Q8_0, ADAPTER_CARRIED, "a5e24dd5736a2171"},
    {SKF_T_Q4_1, ADAPTER_CARRIED, "5c9956be035c3058"},
    {SKF_T_Q5_0, ADAPTER_CARRIED, "121c3d38b495c96e"},
    {SKF_T_Q8_0, ADAPTER_NEAREST, "5407fec870af9680"},
    {SKF_T_Q4_1, ADAPTER_NEAREST, "5059b9342c71bc27"},
    {SKF_T_F16, ADAPTER_TWICE, "6aaf33e91a43fd4b"},
    {SKF_T_BF16, ADAPTER_TWICE, "d6d32e3d34a67691"},
};

struct noise { /* a tensor, factors, and the tensor merged */
    struct adapter_chunk c;
    struct adapter_a a;
    float x[ROWS * COLUMNS], columns[RANK * COLUMNS], b[ROWS * RANK];
    uint8_t old[ROWS * COLUMNS * 4], neu[ROWS * COLUMNS * 4];
    uint16_t place[ROWS * COLUMNS];
    size_t n;
};
static struct noise noise;

static void make_noise(enum skf_type t)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    uint64_t row = COLUMNS / info->block * info->block_bytes;
    lora_fill(noise.x, ROWS * COLUMNS, 7, 0x1p-16f);
    lora_fill(noise.columns, RANK * COLUMNS, 99, 0x1p-20f);
    lora_fill(noise.b, ROWS * RANK, 100, 0x1p-16f);
    noise.c = (struct adapter_chunk){.type = t, .row_bytes = row};
    noise.a = (struct adapter_a){RANK, COLUMNS, 0.5f, noise.columns};
    noise.n = ROWS * row;
    assert_int_equal(skf_quantize(t, noise.x, noise.old, ROWS * COLUMNS), SKF_OK);
}

static void test_rows_everywhere(void **unused)
{
    bool is_good = true;
    for (size_t i = 0; i < SKF_COUNT(rows); i++) {
        uint8_t digest[SKF_DIGEST];
        char hex[SKF_HEX];
        struct skf_sha256_ctx *h = skf_sha256_new();
        assert_non_null(h);
        make_noise(rows[i].type);
        bool has_places = is_nudge_type(rows[i].type);
        assert_int_equal(adapter_merge(&work, rows[i].rule, &noise.c, &noise.a, noise.b, noise.old, noise.neu,
                                       has_places ? noise.place : NULL, noise.n),
                         SKF_OK);
        skf_sha256_add(h, noise.neu, noise.n);
        for (size_t k = 0; has_places && k < ROWS * COLUMNS; k++) {
            uint8_t two[2];
            skf_put_le16(two, noise.place[k]);
            skf_sha256_add(h, two, 2);
        }
        skf_sha256_final(h, digest);
        skf_hex(digest, SKF_DIGEST, hex);
        if (strncmp(hex, rows[i].digest, 16) != 0) {
            print_error("%s, rule %d: %.16s\n", skf_type_info((uint32_t)rows[i].type)->name, (int)rows[i].rule, hex);
            is_good = false;
        }
    }
    assert_true(is_good);
}

/* ---- payloads ------------------------------------------------------------------------------------------------------------------ */

/* A payload with A inside: its head is `head`, what follows the factors is in `fix`. */
static struct skf_buf payload_of(uint8_t head, const struct skf_buf *fix)
{
    struct skf_buf out = SKF_BUF_INIT(1 << 20);
    assert_int_equal(skf_buf_u8(&out, head), SKF_OK);
    assert_int_equal(adapter_put_a(&work, &noise.a, &out), SKF_OK);
    assert_int_equal(adapter_put_numbers(&work, noise.b, ROWS * RANK, &out), SKF_OK);
    if (fix)
        assert_int_equal(skf_buf_put(&out, fix->data, fix->len), SKF_OK);
    return out;
}

static void test_nudges(void **unused)
{
    static uint8_t got[sizeof noise.neu];
    for (int is_half = 0; is_half < 2; is_half++) {
        make_noise(is_half ? SKF_T_F16 : SKF_T_BF16);
        assert_int_equal(adapter_merge(&work, ADAPTER_CARRIED, &noise.c, &noise.a, noise.b, noise.old, noise.neu, noise.place,
                                       noise.n), SKF_OK);
        uint8_t *want = skf_memdup(noise.neu, noise.n);
        assert_non_null(want);
        for (unsigned k = 0; k < 500; k++) { /* some by one, some by anything */
            uint8_t *p = want + 2 * (fix_next() % (noise.n / 2));
            skf_put_le16(p, (uint16_t)(k % 10 ? skf_le16(p) + fix_next() % 3 - 1 : fix_next()));
        }
        struct skf_buf fix = SKF_BUF_INIT(1 << 20);
        assert_int_equal(adapter_put_nudges(&work, noise.place, noise.neu, want, noise.n / 2, &fix), SKF_OK);
        assert_true(fix.len < 2500);
        struct skf_buf out = payload_of(ADAPTER_CARRIED | FIX_NUDGE << ADAPTER_FIX_AT, &fix);
        assert_int_equal(adapter_get(&work, &noise.c, out.data, out.len, noise.old, got, noise.n), SKF_OK);
        assert_memory_equal(got, want, noise.n);
        for (unsigned k = 0; k < 200; k++) {
            uint64_t at = k % 2 ? out.len - 1 - fix_next() % fix.len : fix_next() % out.len;
            uint8_t was = out.data[at];
            out.data[at] ^= (uint8_t)(1u << k % 8);
            enum skf_err e = adapter_get(&work, &noise.c, out.data, out.len, noise.old, got, noise.n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            out.data[at] = was;
        }
        skf_buf_free(&fix);
        skf_buf_free(&out);
        skf_free(want);
    }
}

static void test_payload_lies(void **unused)
{
    static uint8_t got[sizeof noise.neu];
    make_noise(SKF_T_Q8_0);
#define VERDICT(out) adapter_get(&work, &noise.c, (out).data, (out).len, noise.old, got, noise.n)
    struct skf_buf out = payload_of(ADAPTER_CARRIED, NULL);
    assert_int_equal(VERDICT(out), SKF_OK);
    for (unsigned head = 0; head < 256; head++) { /* rules and fixes there are not; a fix that is not there */
        out.data[0] = (uint8_t)head;
        assert_int_equal(VERDICT(out), head < ADAPTER_RULES ? SKF_OK : SKF_ERR_FORMAT);
    }
    out.data[0] = 0;
    assert_int_equal(skf_buf_u8(&out, 0), SKF_OK); /* something behind the end */
    assert_int_equal(VERDICT(out), SKF_ERR_FORMAT);
    skf_buf_free(&out);
    static const uint64_t ranks[] = {0, ADAPTER_RANK + 1, 1ull << 32, UINT64_MAX};
    for (size_t i = 0; i < SKF_COUNT(ranks); i++) {
        struct skf_buf b = SKF_BUF_INIT(100);
        assert_int_equal(skf_buf_u8(&b, 0), SKF_OK);
        assert_int_equal(skf_put_varint(&b, ranks[i]), SKF_OK);
        assert_int_equal(skf_buf_u32(&b, bits_of(1.0f)), SKF_OK);
        assert_int_equal(skf_buf_fill(&b, 0, 40), SKF_OK);
        assert_int_equal(VERDICT(b), SKF_ERR_FORMAT);
        skf_buf_free(&b);
    }
    static const uint32_t scales[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff};
    for (size_t i = 0; i < SKF_COUNT(scales); i++) {
        memcpy(&noise.a.scale, &scales[i], 4);
        out = payload_of(ADAPTER_CARRIED, NULL);
        assert_int_equal(VERDICT(out), SKF_ERR_FORMAT);
        skf_buf_free(&out);
    }
    noise.a.scale = 1e30f; /* sums that are not finite */
    noise.b[0] = noise.columns[0] = 1e30f;
    out = payload_of(ADAPTER_CARRIED, NULL);
    assert_int_equal(VERDICT(out), SKF_ERR_FORMAT);
    skf_buf_free(&out);
    noise.c.type = SKF_T_Q4_K; /* a type that is never merged */
    out = payload_of(ADAPTER_CARRIED, NULL);
    assert_int_equal(VERDICT(out), SKF_ERR_FORMAT);
    skf_buf_free(&out);
}

/* ---- files --------------------------------------------------------------------------------------------------------------------- */
/* The delta from base to `neu` with the adapter, made by one thread, and by three where that is asked; applied, it makes `neu`. */
static struct skf_delta_stats there_and_back(const char *neu_name, bool is_by_three)
{
    struct skf_model *old, *neu;
    struct skf_adapter *a;
    struct skf_delta_stats s;
    uint8_t *one, *three, *want;
    size_t n, m, want_n;
    fix_ok(skf_model_open(fix_path("base"), &old, why));
    fix_ok(skf_model_open(fix_path(neu_name), &neu, why));
    fix_ok(skf_adapter_open(fix_path("lora"), old, "base", &a, why));
    fix_ok(skf_delta_build(old, neu, fix_path("d1"), &(struct skf_delta_opts){.jobs = 1, .adapter = a}, &s, why));
    if (is_by_three) {
        fix_ok(skf_delta_build(old, neu, fix_path("d3"), &(struct skf_delta_opts){.jobs = 3, .adapter = a}, &s, why));
        fix_read("d1", &one, &n);
        fix_read("d3", &three, &m);
        assert_int_equal(n, m);
        assert_memory_equal(one, three, n);
        skf_free(one);
        skf_free(three);
    }
    fix_ok(fix_apply("base", "d1", "out", why));
    fix_read(neu_name, &want, &want_n);
    fix_same("out", want, want_n);
    skf_adapter_close(a);
    skf_model_close(old);
    skf_model_close(neu);
    skf_free(want);
    return s;
}

static void test_files(void **unused)
{
    struct skf_merge_stats ms;
    uint8_t *p;
    size_t n;
    lora_files(fix_path("base"), fix_path("lora"));
    fix_ok(skf_merge(fix_path("base"), fix_path("lora"), fix_path("merged"), 1, NULL, &ms, why));
    struct skf_delta_stats s = there_and_back("merged", true);
    assert_true(s.coding_chunks[SKF_CODE_ADAPTER] == 7); /* BF16 3, Q8_0 1 and 2, F16 1 */
    assert_true(s.bytes < 150000);
    /* A byte of the long tensor's side is wrong. */
    fix_read("d1", &p, &n);
    struct skf_skd *skd;
    uint64_t index;
    fix_ok(skf_skd_index_size(p, &index, why));
    fix_ok(skf_skd_parse(p, index, &skd, why));
    assert_int_equal(skf_skd_info(skd)->n_sides, 2);
    struct skf_skd_side side;
    skf_skd_side(skd, 1, &side);
    p[side.payload_offset + side.payload_length - 1] ^= 1;
    fix_write("d1", p, n);
    (void)unlink(fix_path("out"));
    fix_err(SKF_ERR_DIGEST, fix_apply("base", "d1", "out", why));
    assert_int_equal(fix_left("out"), 0);
    skf_skd_free(skd);
    skf_free(p);
    /* As another tool may have merged: words and codes beside ours here and there; and a tensor that the adapter does not name. */
    fix_read("merged", &p, &n);
    for (size_t i = n / 10; i < n; i += 1 + fix_next() % 2000)
        p[i & ~(size_t)1] = (uint8_t)(p[i & ~(size_t)1] + fix_next() % 3 - 1);
    fix_write("other", p, n);
    skf_free(p);
    s = there_and_back("other", false);
    assert_true(s.coding_chunks[SKF_CODE_ADAPTER] == 7);
    assert_true(s.bytes < 200000);
    /* The adapter has nothing to do with it. */
    fix_read("base", &p, &n);
    for (size_t i = n / 10; i < n; i += 1 + fix_next() % 200)
        p[i & ~(size_t)1] = (uint8_t)(p[i & ~(size_t)1] + fix_next() % 3 - 1);
    fix_write("stranger", p, n);
    skf_free(p);
    s = there_and_back("stranger", false);
    assert_true(s.coding_chunks[SKF_CODE_ADAPTER] == 0);
}

static int setup(void **state)
{
    assert_int_equal(skf_work_init(&work), SKF_OK);
    return fix_setup(state);
}
static int teardown(void **state)
{
    skf_work_free(&work);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_rows_everywhere),
        cmocka_unit_test(test_nudges),
        cmocka_unit_test(test_payload_lies),    cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
