/*
 * A .skd from somebody who means harm: wherever a bit is turned or the file ends, whatever a payload holds behind digests that are right,
 * it is refused with one line, in bounded time and memory, and the output is as it was.
 *
 * Dependencies that overlap or go in circles cannot be written down: results follow each other, each chunk is made of the source and its
 * own payloads alone, and the index has no other way to name bytes (test_nothing_but_the_source).
 */
#include "tests/lib/skd_fix.h"

#include "base/util.h"
#include "delta/adapter_priv.h"
#include "delta/skd_priv.h"
#include "model/merge.h"
#include "tests/lib/lora_make.h"

struct subject { /* a delta in memory, and what it is for */
    struct skf_map old;
    struct skf_source source;
    uint8_t *file;
    size_t n;
    uint64_t index;
    struct skf_skd *skd;
    struct skf_delta_scratch *scratch;
};
static struct subject any, lora; /* every coding of the fixture's pair; adapter chunks and sides */
static uint8_t out[SKF_CHUNK_MAX];

static void open_subject(struct subject *s, const char *old, const char *skd)
{
    fix_ok(skf_map_open(fix_path(old), &s->old, why));
    s->source = skf_map_source(&s->old);
    fix_read(skd, &s->file, &s->n);
    fix_ok(skf_skd_index_size(s->file, &s->index, why));
    fix_ok(skf_skd_parse(s->file, s->index, &s->skd, why));
    fix_ok(skf_delta_scratch_new(&s->scratch));
}
static void close_subject(struct subject *s)
{
    skf_delta_scratch_free(s->scratch);
    skf_skd_free(s->skd);
    skf_map_close(&s->old);
    skf_free(s->file);
}

static void seal(uint8_t *p, uint64_t n)
{
    assert_int_equal(skd_index_digest(p, n, p + SKD_DIGEST_AT), SKF_OK);
}

/* What a receiver says of the file as it is now: the first error of index, sides and the chunk that holds byte `at`. */
static enum skf_err verdict(struct subject *s, uint64_t at, struct skf_why *why)
{
    struct skf_skd *skd = NULL;
    enum skf_err e = skf_skd_parse(s->file, s->index, &skd, why);
    const struct skf_skd_info *f = e == SKF_OK ? skf_skd_info(skd) : NULL;
    for (uint64_t k = 0; e == SKF_OK && k < f->n_sides; k++) {
        struct skf_skd_side side;
        skf_skd_side(skd, k, &side);
        e = skf_skd_put_side(skd, k, s->file + side.payload_offset, why);
    }
    for (uint64_t i = 0; e == SKF_OK && i < f->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        if (at - c.payload_offset < c.payload_length)
            e = skf_skd_decode(skd, i, s->file + c.payload_offset, &s->source, s->scratch, out, why);
    }
    skf_skd_free(skd);
    return e;
}

/* 10,000 places, and every bit of the head. */
static void test_every_flip(void **unused)
{
    struct subject *both[] = {&any, &lora};
    for (unsigned k = 0; k < 10000 + 2 * 8 * SKF_SKD_HEAD; k++) {
        struct subject *s = both[k & 1];
        uint64_t h = k / 2, at = h < 8 * SKF_SKD_HEAD ? h / 8 : k % 4 < 2 ? fix_next() % s->n : fix_next() % s->index;
        struct skf_why why = {{0}};
        s->file[at] ^= (uint8_t)(1u << h % 8);
        enum skf_err e = verdict(s, at, &why);
        s->file[at] ^= (uint8_t)(1u << h % 8);
        if (e == SKF_OK || !why.text[0] || strchr(why.text, '\n'))
            fail_msg("bit %u of byte %llu: %s: %s", (unsigned)(h % 8), (unsigned long long)at, skf_err_name(e), why.text);
    }
    struct skf_why why = {{0}};
    assert_int_equal(verdict(&any, any.index, &why), SKF_OK);
    assert_int_equal(verdict(&lora, lora.index, &why), SKF_OK);
}

/* Payloads that lie behind digests that are right: nothing comes out but an error (or, by a bit that makes no difference, the chunk). */
static void test_payloads_lie(void **unused)
{
    struct subject *both[] = {&any, &lora};
    unsigned refused = 0;
    for (unsigned k = 0; k < 3000; k++) {
        struct subject *s = both[k & 1];
        uint64_t i = fix_next() % skf_skd_info(s->skd)->n_chunks;
        const struct skd_chunk *c = &s->skd->chunks[i];
        if (!c->payload_length || c->coding == SKF_CODE_RAW)
            continue;
        const struct skd_side *side = skd_side_of(s->skd, c);
        bool is_side = side && fix_next() % 2;
        uint64_t from = is_side ? side->payload_offset : c->payload_offset;
        uint32_t n = is_side ? side->payload_length : c->payload_length;
        const uint8_t *digest = is_side ? side->digest : skd_payload_digest(s->skd, c);
        uint8_t *whole = skf_memdup(s->file, s->n), *p = s->file + from;
        assert_non_null(whole);
        for (unsigned m = 1 + fix_next() % 3; m; m--)
            p[fix_next() % 4 ? fix_next() % SKF_MIN(n, 64u) : fix_next() % n] ^= (uint8_t)(1u << fix_next() % 8);
        uint8_t now[SKF_DIGEST];
        skf_sha256(p, n, now);
        memcpy(s->file + (digest - s->skd->index), now, is_side ? SKF_DIGEST : SKD_PAYLOAD_DIGEST);
        seal(s->file, s->index);
        struct skf_why why = {{0}};
        enum skf_err e = verdict(s, c->payload_offset, &why);
        assert_true(e == SKF_OK || e == SKF_ERR_BASE || e == SKF_ERR_FORMAT);
        refused += e != SKF_OK;
        memcpy(s->file, whole, s->n);
        skf_free(whole);
    }
    assert_true(refused > 1000);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------- */

static void refused(const char *old, const uint8_t *p, size_t n, enum skf_err one, enum skf_err other)
{
    struct skf_why why = {{0}};
    fix_write("bad", p, n);
    enum skf_err e = fix_apply(old, "bad", "kept", &why);
    if ((e != one && e != other) || !why.text[0] || strchr(why.text, '\n'))
        fail_msg("%zu bytes: %s: %s", n, skf_err_name(e), why.text);
    fix_same("kept", "as it was", 9);
    assert_int_equal(fix_left("kept"), 1); /* and no draft beside it */
}

/* Cut at every part of the file; longer than it says; a few flips; with an output that stands already. */
static void test_files(void **unused)
{
    struct subject *s = &lora;
    const struct skf_skd_info *f = skf_skd_info(s->skd);
    fix_write("kept", "as it was", 9);
    uint64_t side = f->index_size, chunk = s->skd->chunks[0].payload_offset;
    const uint64_t cuts[] = {0, 1, 3, 4, 8, 64, 127, 128, 129, 140, s->index / 2, s->index - 1, s->index, side + 1, chunk - 1, chunk,
                             chunk + 1, (s->index + s->n) / 2, s->n - 1};
    for (size_t i = 0; i < SKF_COUNT(cuts); i++)
        refused("base", s->file, cuts[i], SKF_ERR_FORMAT, SKF_ERR_FORMAT);
    uint8_t *longer = skf_calloc(s->n + 5000, 1);
    assert_non_null(longer);
    memcpy(longer, s->file, s->n);
    refused("base", longer, s->n + 1, SKF_ERR_FORMAT, SKF_ERR_FORMAT);
    refused("base", longer, s->n + 5000, SKF_ERR_FORMAT, SKF_ERR_FORMAT);
    for (unsigned k = 0; k < 60; k++) {
        uint64_t at = k % 2 ? SKF_SKD_HEAD + fix_next() % (s->index - SKF_SKD_HEAD) : s->index + fix_next() % (s->n - s->index);
        longer[at] ^= 4;
        refused("base", longer, s->n, SKF_ERR_DIGEST, SKF_ERR_DIGEST);
        longer[at] ^= 4;
    }
    refused("old", longer, s->n, SKF_ERR_BASE, SKF_ERR_BASE); /* another base */
    refused("base", (const uint8_t *)"SKD\x1a", 4, SKF_ERR_FORMAT, SKF_ERR_FORMAT);
    skf_free(longer);
}

/* ---- what is written by hand ------------------------------------------------------------------------------------------------------- */

/* A .skd of one chunk of `length` bytes with this payload, all digests right; its result is nothing that anybody knows. */
static enum skf_err by_hand(enum skf_coding coding, uint32_t length, const uint8_t *payload, uint32_t n,
                            const struct skd_out_tensor *tensor)
{
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    struct skf_merkle m;
    struct skf_skd *skd;
    struct skf_delta_scratch *s;
    uint8_t source_root[SKF_DIGEST] = {1}, result_root[SKF_DIGEST];
    struct skd_out_chunk c = {.result_length = length, .payload_length = n, .coding = (uint8_t)coding};
    skf_sha256(payload, n, c.payload_digest);
    skf_merkle_init(&m);
    skf_merkle_add(&m, c.result_digest, length);
    skf_merkle_root(&m, result_root);
    struct skd_out o = {source_root, result_root, any.source.size, length, tensor, tensor ? 1 : 0, &c, 1, NULL, 0};
    assert_int_equal(skd_write_index(&o, &b), SKF_OK);
    fix_ok(skf_skd_parse(b.data, b.len, &skd, why));
    fix_ok(skf_delta_scratch_new(&s));
    struct skf_why why = {{0}};
    enum skf_err e = skf_skd_decode(skd, 0, payload, &any.source, s, out, &why);
    assert_true((e == SKF_OK) == (why.text[0] == 0));
    skf_delta_scratch_free(s);
    skf_skd_free(skd);
    skf_buf_free(&b);
    return e;
}

/* 64 MiB of zeros in a few kilobytes, given as a chunk of 1 MiB. */
static void test_bomb(void **unused)
{
    size_t n = 64u << 20, cap = 1u << 16, got;
    uint8_t *zeros = skf_calloc(n, 1), *packed = skf_alloc(cap);
    struct skf_zenc *z = skf_zenc_new();
    assert_true(zeros && packed && z);
    assert_int_equal(skf_zenc_chunk(z, zeros, n, NULL, 0, 3, packed, cap, &got), SKF_OK);
    assert_true(got > 0 && got < cap);
    skf_free(zeros);
    skf_zenc_free(z);
    assert_int_equal(by_hand(SKF_CODE_ZSTD, SKF_CHUNK_MAX, packed, (uint32_t)got, NULL), SKF_ERR_FORMAT);
    assert_int_equal(by_hand(SKF_CODE_ZSTD, (uint32_t)got + 1, packed, (uint32_t)got, NULL), SKF_ERR_FORMAT);
    skf_free(packed);
}

/* The largest adapter chunk that there can be takes the memory and time that its bounds say; one above them is refused at once. */
static void test_large_adapter(void **unused)
{
    enum { INPUTS = 4096, AT_MOST = ADAPTER_NUMBERS / ADAPTER_RANK };
    struct skf_work w;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    float *x = skf_calloc(ADAPTER_NUMBERS, sizeof *x);
    assert_non_null(x);
    for (uint64_t inputs = INPUTS; inputs <= INPUTS + 32; inputs += 32) {
        struct skf_buf b = SKF_BUF_INIT(1 << 20);
        assert_int_equal(skf_buf_u8(&b, 0), SKF_OK);
        assert_int_equal(adapter_put_a(&w, &(struct adapter_a){ADAPTER_RANK, AT_MOST, 1.0f, x}, &b), SKF_OK);
        uint64_t row = inputs / 32 * 18, rows = SKF_CHUNK_MAX / row, n = rows * row;
        assert_int_equal(adapter_put_numbers(&w, x, rows * ADAPTER_RANK, &b), SKF_OK);
        struct skd_out_tensor t = {.type = SKF_T_Q4_0, .row_bytes = row, .bytes = n, .source_bytes = n};
        uint64_t begun = skf_now_ns();
        assert_int_equal(by_hand(SKF_CODE_ADAPTER, (uint32_t)n, b.data, (uint32_t)b.len, &t), SKF_ERR_BASE);
        assert_true(skf_now_ns() - begun < 30000000000u);
        skf_buf_free(&b);
    }
    skf_free(x);
    skf_work_free(&w);
}

/* Tables whose frequencies do not come to their sum: a table of one symbol, of each frequency. */
static void test_tables_that_do_not_sum(void **unused)
{
    struct skf_work w;
    float x[4];
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (unsigned bits = 8; bits <= 12; bits++) {
        for (unsigned freq = 1; freq <= 4096; freq += freq < 16 ? 1 : freq / 3) {
            struct skf_buf b = SKF_BUF_INIT(1000);
            uint8_t table[16 + 8] = {0};
            struct skf_bits_out o = {.p = table};
            unsigned len = 32 - (unsigned)__builtin_clz(freq);
            skf_bits_put(&o, 2, 2);      /* a table of its own, */
            skf_bits_put(&o, 0, 8);      /* whose last symbol is 0, */
            skf_bits_put(&o, len, 4);    /* of this frequency */
            skf_bits_put(&o, freq & ((1u << (len - 1)) - 1), len - 1);
            skf_bits_put(&o, 0, 47);     /* the other contexts: none */
            skf_bits_put(&o, 0, 47);
            uint8_t *end = skf_bits_end(&o);
            assert_int_equal(skf_buf_u8(&b, 1 | 1u << 2), SKF_OK); /* halves, one bit of the mantissa */
            assert_int_equal(skf_buf_u8(&b, (uint8_t)bits), SKF_OK);
            assert_int_equal(skf_buf_put(&b, table, (size_t)(end - table)), SKF_OK);
            for (int k = 0; k < 4; k++)
                assert_int_equal(skf_buf_u32(&b, 65536), SKF_OK);
            assert_int_equal(skf_buf_u8(&b, 0), SKF_OK); /* no words */
            assert_int_equal(skf_buf_u8(&b, 1), SKF_OK);
            assert_int_equal(skf_buf_u8(&b, 0), SKF_OK); /* four signs */
            struct skf_reader r = skf_reader_of(b.data, b.len);
            assert_int_equal(adapter_get_numbers(&w, &r, x, 4), freq == 1u << bits ? SKF_OK : SKF_ERR_FORMAT);
            skf_buf_free(&b);
        }
    }
    skf_work_free(&w);
}

/* Every chunk of every delta here is made of ranges inside the source and of its own payloads; results follow each other. */
static void test_nothing_but_the_source(void **unused)
{
    struct subject *both[] = {&any, &lora};
    for (int b = 0; b < 2; b++) {
        const struct skf_skd_info *f = skf_skd_info(both[b]->skd);
        uint64_t result = 0, payload = f->index_size;
        for (uint64_t k = 0; k < f->n_sides; k++) {
            struct skf_skd_side s;
            skf_skd_side(both[b]->skd, k, &s);
            assert_int_equal(s.payload_offset, payload);
            payload += s.payload_length;
        }
        for (uint64_t i = 0; i < f->n_chunks; i++) {
            struct skf_skd_chunk c;
            skf_skd_chunk(both[b]->skd, i, &c);
            assert_int_equal(c.result_offset, result);
            assert_int_equal(c.payload_offset, payload);
            assert_true(c.source_offset <= f->source_size && c.source_length <= f->source_size - c.source_offset);
            result += c.result_length;
            payload += c.payload_length;
        }
        assert_int_equal(result, f->result_size);
        assert_int_equal(payload, f->index_size + f->payload_size);
    }
}

static int setup(void **state)
{
    struct fix_pair pair;
    struct skf_merge_stats ms;
    struct skf_delta_stats s;
    struct skf_model *old, *neu;
    struct skf_adapter *a;
    int r = fix_setup(state);
    if (r)
        return r;
    fix_models(&pair);
    (void)fix_build(&pair, "d", 2);
    fix_close(&pair);
    open_subject(&any, "old", "d");
    lora_files(fix_path("base"), fix_path("lora"));
    fix_ok(skf_merge(fix_path("base"), fix_path("lora"), fix_path("merged"), 1, NULL, &ms, why));
    fix_ok(skf_model_open(fix_path("base"), &old, why));
    fix_ok(skf_model_open(fix_path("merged"), &neu, why));
    fix_ok(skf_adapter_open(fix_path("lora"), old, "base", &a, why));
    fix_ok(skf_delta_build(old, neu, fix_path("dl"), &(struct skf_delta_opts){.adapter = a}, &s, why));
    skf_adapter_close(a);
    skf_model_close(old);
    skf_model_close(neu);
    open_subject(&lora, "base", "dl");
    assert_int_equal(skf_skd_info(lora.skd)->n_sides, 2);
    return 0;
}
static int teardown(void **state)
{
    close_subject(&any);
    close_subject(&lora);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_flip),      cmocka_unit_test(test_payloads_lie),
        cmocka_unit_test(test_files),           cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_large_adapter),   cmocka_unit_test(test_tables_that_do_not_sum),
        cmocka_unit_test(test_nothing_but_the_source),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
