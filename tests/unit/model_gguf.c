/* The GGUF reader and writer: every metadata type, and every field that can lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/model.h"
#include "tests/lib/gguf_make.h"

static struct skf_buf buf = {NULL, 0, 0, 1 << 20};

static int fresh(void **state)
{
    skf_buf_clear(&buf);
    return 0;
}

static int done(void **state)
{
    skf_buf_free(&buf);
    return 0;
}

/* Parses what stands in `buf`, expects `want`, and that the reason holds `says`. */
static void parse_says(enum skf_err want, const char *says)
{
    struct skf_why why = {{0}};
    struct skf_gguf *g = NULL;
    /* A copy of exactly that length, so that a sanitizer sees a read past the end. */
    uint8_t *copy = skf_memdup(buf.data, buf.len);
    struct skf_source src = skf_source_of(copy, buf.len);
    enum skf_err e = skf_gguf_parse(&src, &g, &why);
    if (e != want || !strstr(why.text, says))
        fail_msg("error %s \"%s\", wanted %s \"%s\"", skf_err_name(e), why.text, skf_err_name(want), says);
    if (want != SKF_OK)
        assert_null(g);
    skf_gguf_free(g);
    skf_free(copy);
}

/* A file with one key of each type and two tensors. */
static void put_good(struct skf_buf *b)
{
    static const uint8_t scalars[13][8] = {
        {200}, {0xFF}, {1, 2}, {0xFE, 0xFF}, {1, 2, 3, 4}, {0xFD, 0xFF, 0xFF, 0xFF}, {0, 0, 0xC0, 0x3F}, {1}, {0}, {0},
        {1, 2, 3, 4, 5, 6, 7, 8}, {0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, {0, 0, 0, 0, 0, 0, 4, 0x40}};
    static const uint8_t size[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    put_head(b, 3, 2, 15);
    for (uint32_t t = 0; t < 13; t++) {
        char key[8];
        (void)snprintf(key, sizeof key, "k%u", t);
        if (t == SKF_GGUF_ARRAY)
            continue;
        put_text(b, key);
        put_u32(b, t);
        if (t == SKF_GGUF_STRING)
            put_text(b, "text");
        else
            put_ok(skf_buf_put(b, scalars[t], size[t]));
    }
    put_text(b, "numbers");
    put_u32(b, SKF_GGUF_ARRAY);
    put_u32(b, SKF_GGUF_I32);
    put_u64(b, 2);
    put_u32(b, 5);
    put_u32(b, (uint32_t)-5);
    put_text(b, "words");
    put_u32(b, SKF_GGUF_ARRAY);
    put_u32(b, SKF_GGUF_STRING);
    put_u64(b, 2);
    put_text(b, "a");
    put_text(b, "");
    put_text(b, "nested");
    put_u32(b, SKF_GGUF_ARRAY);
    put_u32(b, SKF_GGUF_ARRAY);
    put_u64(b, 1);
    put_u32(b, SKF_GGUF_F32);
    put_u64(b, 1);
    put_u32(b, 0x3F800000);
    put_tensor(b, "x", 8, 2, SKF_T_F32, 0);
    put_tensor(b, "y", 32, 0, SKF_T_Q4_1, 64);
    put_pad(b, 32);
    put_data(b, 64 + 20);
    put_pad(b, 32);
}

static void check_good(const struct skf_gguf *g)
{
    uint64_t u = 0;
    double d = 0;
    bool is = false;
    struct skf_str s = {0};
    assert_int_equal(g->n_kv, 15);
    assert_int_equal(g->alignment, 32);
    assert_true(is_gguf_u64(g, "k0", &u) && u == 200);
    assert_false(is_gguf_u64(g, "k1", &u)); /* -1 */
    assert_int_equal(u, 200);
    assert_true(is_gguf_u64(g, "k2", &u) && u == 0x201);
    assert_true(is_gguf_u64(g, "k4", &u) && u == 0x4030201);
    assert_true(is_gguf_u64(g, "k10", &u) && u == 0x807060504030201);
    assert_false(is_gguf_u64(g, "k11", &u));
    assert_true(is_gguf_f64(g, "k6", &d) && d == 1.5);
    assert_true(is_gguf_f64(g, "k12", &d) && d == 2.5);
    assert_false(is_gguf_f64(g, "k4", &d));
    assert_true(is_gguf_bool(g, "k7", &is) && is);
    assert_true(is_gguf_str(g, "k8", &s) && s.n == 4 && memcmp(s.p, "text", 4) == 0);
    assert_false(is_gguf_str(g, "absent", &s));
    const struct skf_gguf_value *a = skf_gguf_get(g, "numbers");
    assert_true(is_gguf_array_u64(a, 0, &u) && u == 5);
    assert_false(is_gguf_array_u64(a, 1, &u) || is_gguf_array_u64(a, 2, &u) || is_gguf_array_f64(a, 0, &d));
    a = skf_gguf_get(g, "words");
    assert_true(a && a->count == 2 && a->strings[0].n == 1 && a->strings[1].n == 0);
    a = skf_gguf_get(g, "nested");
    assert_true(a && a->is_array && a->type == SKF_GGUF_ARRAY && a->count == 1 && a->raw_len == 16);
    assert_int_equal(g->n_tensors, 2);
    assert_string_equal(g->tensors[0].name, "x");
    assert_int_equal(g->tensors[0].offset, g->data_offset);
    assert_int_equal(g->tensors[0].bytes, 64);
    assert_int_equal(g->tensors[0].row_bytes, 32);
    assert_int_equal(g->tensors[1].bytes, 20);
}

static void reads_every_type(void **state)
{
    struct skf_gguf *g;
    put_good(&buf);
    struct skf_source src = skf_source_of(buf.data, buf.len);
    assert_int_equal(skf_gguf_parse(&src, &g, NULL), SKF_OK);
    check_good(g);
    skf_gguf_free(g);
}

static void reads_bytes_in_pieces(void **state)
{
    put_good(&buf);
    for (uint64_t piece = 1; piece < buf.len + 2; piece += 13) {
        struct pieces p = {buf.data, buf.len, piece};
        struct skf_source src = {buf.len, span_of_pieces, &p, NULL};
        struct skf_gguf *g;
        assert_int_equal(skf_gguf_parse(&src, &g, NULL), SKF_OK);
        check_good(g);
        skf_gguf_free(g);
    }
}

static void every_cut_is_refused(void **state)
{
    put_good(&buf);
    /* The padding behind the last tensor is not needed, everything before is. */
    for (size_t n = 0; n < buf.len - 12; n++) {
        uint8_t *copy = skf_memdup(buf.data, n);
        struct skf_source src = skf_source_of(copy, n);
        struct skf_gguf *g = NULL;
        struct skf_why why = {{0}};
        assert_int_equal(skf_gguf_parse(&src, &g, &why), SKF_ERR_FORMAT);
        assert_null(g);
        assert_true(why.text[0]);
        skf_free(copy);
    }
}

static void every_flip_is_survived(void **state)
{
    put_good(&buf);
    for (size_t i = 0; i < buf.len * 8; i++) {
        buf.data[i / 8] ^= (uint8_t)(1 << i % 8);
        uint8_t *copy = skf_memdup(buf.data, buf.len);
        struct skf_source src = skf_source_of(copy, buf.len);
        struct skf_gguf *g = NULL;
        if (skf_gguf_parse(&src, &g, NULL) != SKF_OK)
            assert_null(g);
        skf_gguf_free(g);
        skf_free(copy);
        buf.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

static void lies_in_the_head(void **state)
{
    put_head(&buf, 1, 0, 0);
    parse_says(SKF_ERR_UNSUPPORTED, "version 1");
    skf_buf_clear(&buf);
    put_head(&buf, 0x03000000, 0, 0);
    parse_says(SKF_ERR_UNSUPPORTED, "big-endian");
    skf_buf_clear(&buf);
    put_head(&buf, 3, UINT64_MAX, 0);
    parse_says(SKF_ERR_LIMIT, "tensors");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 1 << 20, 0); /* within the limit, but more than the bytes that are left */
    parse_says(SKF_ERR_FORMAT, "truncated");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 0, UINT64_MAX / 2);
    parse_says(SKF_ERR_LIMIT, "metadata");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 0, 60000);
    parse_says(SKF_ERR_FORMAT, "truncated");
    skf_buf_clear(&buf);
    put_ok(skf_buf_str(&buf, "GGUX"));
    put_data(&buf, 64);
    parse_says(SKF_ERR_FORMAT, "not a GGUF");
}

static void kv(const char *key, uint32_t type)
{
    skf_buf_clear(&buf);
    put_head(&buf, 3, 0, 1);
    put_text(&buf, key);
    put_u32(&buf, type);
}

static void lies_in_the_metadata(void **state)
{
    kv("k", 13);
    put_data(&buf, 16);
    parse_says(SKF_ERR_FORMAT, "type 13");
    kv("k", SKF_GGUF_STRING);
    put_u64(&buf, UINT64_MAX);
    put_data(&buf, 16);
    parse_says(SKF_ERR_FORMAT, "truncated");
    kv("k", SKF_GGUF_ARRAY);
    put_u32(&buf, SKF_GGUF_U64);
    put_u64(&buf, UINT64_MAX / 8 + 2); /* times eight is eight */
    put_data(&buf, 64);
    parse_says(SKF_ERR_FORMAT, "truncated");
    kv("k", SKF_GGUF_ARRAY);
    put_u32(&buf, SKF_GGUF_STRING);
    put_u64(&buf, 1u << 30);
    put_data(&buf, 64);
    parse_says(SKF_ERR_FORMAT, "truncated");
    kv("k", SKF_GGUF_BOOL);
    put_ok(skf_buf_u8(&buf, 2));
    parse_says(SKF_ERR_FORMAT, "boolean");
    kv("bad\nname", SKF_GGUF_U8);
    put_ok(skf_buf_u8(&buf, 2));
    parse_says(SKF_ERR_FORMAT, "UTF-8");
    kv("general.alignment", SKF_GGUF_U32);
    put_u32(&buf, 0);
    parse_says(SKF_ERR_FORMAT, "alignment");
    kv("general.alignment", SKF_GGUF_U32);
    put_u32(&buf, 48);
    parse_says(SKF_ERR_FORMAT, "alignment");
    kv("general.alignment", SKF_GGUF_STRING);
    put_text(&buf, "32");
    parse_says(SKF_ERR_FORMAT, "alignment");
    kv("deep", SKF_GGUF_ARRAY);
    for (int i = 0; i < 12; i++) {
        put_u32(&buf, SKF_GGUF_ARRAY);
        put_u64(&buf, 1);
    }
    parse_says(SKF_ERR_LIMIT, "nested");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_text(&buf, "same");
        put_u32(&buf, SKF_GGUF_U8);
        put_ok(skf_buf_u8(&buf, 1));
    }
    parse_says(SKF_ERR_FORMAT, "'same' stands twice");
}

static void tensor(const char *name, uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    skf_buf_clear(&buf);
    put_head(&buf, 3, 1, 0);
    put_tensor(&buf, name, d0, d1, type, offset);
    put_pad(&buf, 32);
    put_data(&buf, 64);
}

static void lies_in_the_directory(void **state)
{
    tensor("x", 16, 0, SKF_T_F32, 0);
    parse_says(SKF_OK, "");
    tensor("x", 17, 0, SKF_T_F32, 0);
    parse_says(SKF_ERR_FORMAT, "past the end");
    tensor("x", 16, 0, SKF_T_F32, 32);
    parse_says(SKF_ERR_FORMAT, "past the end");
    tensor("x", 16, 0, SKF_T_F32, UINT64_MAX - 31);
    parse_says(SKF_ERR_FORMAT, "past the end");
    tensor("x", 4, 0, SKF_T_F32, 4);
    parse_says(SKF_ERR_FORMAT, "alignment");
    tensor("x", 1ull << 62, 4, SKF_T_F32, 0);
    parse_says(SKF_ERR_FORMAT, "overflow");
    tensor("x", 1ull << 32, 1ull << 32, SKF_T_I8, 0);
    parse_says(SKF_ERR_FORMAT, "overflow");
    tensor("x", 33, 1, SKF_T_Q4_1, 0);
    parse_says(SKF_ERR_FORMAT, "whole blocks");
    tensor("x", 16, 0, 5, 0); /* a type that ggml took back */
    parse_says(SKF_ERR_UNSUPPORTED, "'x': type 5");
    tensor("x", 16, 0, SKF_T_U8, 0); /* ours for safetensors, never in GGUF */
    parse_says(SKF_ERR_UNSUPPORTED, "type 1000");
    tensor("\xC3(", 16, 0, SKF_T_F32, 0);
    parse_says(SKF_ERR_FORMAT, "UTF-8");
    tensor("\x1b[2J", 16, 0, SKF_T_F32, 0);
    parse_says(SKF_ERR_FORMAT, "UTF-8");
    tensor("empty", 0, 7, SKF_T_Q4_1, 0);
    parse_says(SKF_OK, "");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 2, 0);
    put_tensor(&buf, "x", 8, 0, SKF_T_F32, 0);
    put_tensor(&buf, "x", 8, 0, SKF_T_F32, 32);
    put_pad(&buf, 32);
    put_data(&buf, 64);
    parse_says(SKF_ERR_FORMAT, "'x' stands twice");
    skf_buf_clear(&buf);
    put_head(&buf, 3, 1, 0);
    put_text(&buf, "x");
    put_u32(&buf, 0xFFFFFFFF);
    put_data(&buf, 64);
    parse_says(SKF_ERR_FORMAT, "dimensions");
}

static void names_are_plain(void **state)
{
    static const char *const bad[] = {"\x7f", "a\x01", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                      "\xF8\x88\x80\x80", "\xC2\x85", "\xE2\x82", "\x80"};
    static const char *const good[] = {"blk.0.attn_q.weight", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        tensor(bad[i], 16, 0, SKF_T_F32, 0);
        parse_says(SKF_ERR_FORMAT, "UTF-8");
    }
    for (size_t i = 0; i < SKF_COUNT(good); i++) {
        tensor(good[i], 16, 0, SKF_T_F32, 0);
        parse_says(SKF_OK, "");
    }
}

static void copy_file(const struct skf_gguf *g, const uint8_t *from, const char *path)
{
    struct skf_gguf_out *w;
    struct skf_why why = {{0}};
    assert_int_equal(skf_gguf_out_new(g->alignment, &w), SKF_OK);
    for (uint64_t i = 0; i < g->n_kv; i++)
        assert_int_equal(skf_gguf_out_kv(w, &g->kv[i]), SKF_OK);
    for (uint64_t i = 0; i < g->n_tensors; i++)
        assert_int_equal(skf_gguf_out_tensor(w, &g->tensors[i]), SKF_OK);
    assert_int_equal(skf_gguf_out_begin(w, path, &why), SKF_OK);
    assert_int_equal(skf_gguf_out_u32(w, "late", 1), SKF_ERR_STATE);
    for (uint64_t i = 0; i < g->n_tensors; i++) { /* in two calls a tensor */
        const uint8_t *p = from + g->tensors[i].offset;
        assert_int_equal(skf_gguf_out_data(w, p, 3, &why), SKF_OK);
        assert_int_equal(skf_gguf_out_data(w, p + 3, g->tensors[i].bytes - 3, &why), SKF_OK);
    }
    assert_int_equal(skf_gguf_out_commit(w, &why), SKF_OK);
    skf_gguf_out_free(w);
}

static void writes_what_it_read(void **state)
{
    char path[] = "/tmp/skf-gguf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    put_good(&buf);
    while (buf.len % 32)
        put_ok(skf_buf_u8(&buf, 0));
    /* Padding must be zeros for a copy to be the same. */
    struct skf_source src = skf_source_of(buf.data, buf.len);
    struct skf_gguf *g;
    assert_int_equal(skf_gguf_parse(&src, &g, NULL), SKF_OK);
    copy_file(g, buf.data, path);
    skf_gguf_free(g);
    uint8_t *data;
    size_t len;
    assert_int_equal(skf_file_read(path, 1 << 20, &data, &len, NULL), SKF_OK);
    assert_int_equal(len, buf.len);
    assert_memory_equal(data, buf.data, len);
    skf_free(data);
    (void)unlink(path);
}

static void writer_refuses_nonsense(void **state)
{
    char path[] = "/tmp/skf-gguf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)unlink(path);
    struct skf_gguf_out *w = NULL;
    struct skf_tensor t = {.name = "t", .type = SKF_T_F32, .n_dims = 1, .dims = {4, 1, 1, 1, 1, 1, 1, 1}};
    assert_int_equal(skf_gguf_out_new(0, &w), SKF_ERR_ARG);
    assert_int_equal(skf_gguf_out_new(24, &w), SKF_ERR_ARG);
    assert_int_equal(skf_gguf_out_new(64, &w), SKF_OK);
    assert_int_equal(skf_gguf_out_u32(w, "general.alignment", 32), SKF_ERR_ARG);
    assert_int_equal(skf_gguf_out_tensor(w, &t), SKF_OK);
    t.type = SKF_T_U8;
    assert_int_equal(skf_gguf_out_tensor(w, &t), SKF_ERR_UNSUPPORTED);
    t.type = SKF_T_Q8_0;
    assert_int_equal(skf_gguf_out_tensor(w, &t), SKF_ERR_FORMAT);
    assert_int_equal(skf_gguf_out_data(w, "x", 1, NULL), SKF_ERR_STATE);
    assert_int_equal(skf_gguf_out_begin(w, path, NULL), SKF_OK);
    assert_int_equal(skf_gguf_out_commit(w, NULL), SKF_ERR_STATE); /* four floats are missing */
    uint8_t many[17] = {0};
    assert_int_equal(skf_gguf_out_data(w, many, 17, NULL), SKF_ERR_STATE);
    skf_gguf_out_free(w);
    assert_int_equal(access(path, F_OK), -1); /* nothing was committed */

    assert_int_equal(skf_gguf_out_new(64, &w), SKF_OK); /* the alignment's key is written by itself */
    assert_int_equal(skf_gguf_out_begin(w, path, NULL), SKF_OK);
    assert_int_equal(skf_gguf_out_commit(w, NULL), SKF_OK);
    skf_gguf_out_free(w);
    struct skf_model *m;
    assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
    assert_int_equal(skf_model_gguf(m)->alignment, 64);
    skf_model_close(m);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reads_every_type, fresh),       cmocka_unit_test_setup(reads_bytes_in_pieces, fresh),
        cmocka_unit_test_setup(every_cut_is_refused, fresh),   cmocka_unit_test_setup(every_flip_is_survived, fresh),
        cmocka_unit_test_setup(lies_in_the_head, fresh),       cmocka_unit_test_setup(lies_in_the_metadata, fresh),
        cmocka_unit_test_setup(lies_in_the_directory, fresh),  cmocka_unit_test_setup(names_are_plain, fresh),
        cmocka_unit_test_setup(writes_what_it_read, fresh),    cmocka_unit_test_setup(writer_refuses_nonsense, fresh),
    };
    return cmocka_run_group_tests_name("model_gguf", tests, NULL, done);
}
