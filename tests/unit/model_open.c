/* Files of every format behind one handle: order, search, overlaps; safetensors and its lies; any bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/alloc.h"
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

static void open_says(enum skf_err want, const char *says)
{
    struct skf_why why = {{0}};
    struct skf_model *m = NULL;
    uint8_t *copy = skf_memdup(buf.data, buf.len);
    struct skf_source src = skf_source_of(copy, buf.len);
    enum skf_err e = skf_model_open_source(&src, "the file", &m, &why);
    if (e != want || !strstr(why.text, says))
        fail_msg("error %s \"%s\", wanted %s \"%s\"", skf_err_name(e), why.text, skf_err_name(want), says);
    if (want == SKF_OK) {
        assert_non_null(m);
    } else {
        assert_null(m);
        assert_ptr_equal(strstr(why.text, "the file: "), why.text); /* the line names the file */
    }
    skf_model_close(m);
    skf_free(copy);
}

static void put_st(const char *json, size_t data)
{
    skf_buf_clear(&buf);
    put_text(&buf, json);
    put_data(&buf, data);
}

#define X "{\"x\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"

static void opens_safetensors(void **state)
{
    struct skf_model *m;
    put_st("{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[3,5],\"data_offsets\":[4,34]},"
           "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
           "\"none\":{\"dtype\":\"F8_E4M3\",\"shape\":[0,9],\"data_offsets\":[4,4]}}",
           34);
    struct skf_source src = skf_source_of(buf.data, buf.len);
    assert_int_equal(skf_model_open_source(&src, "st", &m, NULL), SKF_OK);
    assert_int_equal(skf_model_format(m), SKF_FORMAT_SAFETENSORS);
    assert_null(skf_model_gguf(m));
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    assert_int_equal(n, 3);
    assert_string_equal(t[0].name, "a");
    assert_string_equal(t[1].name, "none");
    assert_string_equal(t[2].name, "b");
    assert_int_equal(t[0].n_dims, 0);
    assert_int_equal(t[0].row_bytes, 4);
    assert_true(t[1].bytes == 0 && t[1].row_bytes > 0);
    assert_true(t[2].dims[0] == 5 && t[2].dims[1] == 3 && t[2].row_bytes == 10 && t[2].bytes == 30);
    assert_int_equal(t[2].offset + t[2].bytes, buf.len);
    assert_ptr_equal(skf_model_find(m, "b"), &t[2]);
    assert_null(skf_model_find(m, "c"));
    skf_model_close(m);
}

static void lies_in_safetensors(void **state)
{
    put_st(X "}", 24);
    open_says(SKF_OK, "");
    put_st(X "}", 23);
    open_says(SKF_ERR_FORMAT, "past the end");
    put_st(X "}", 25);
    open_says(SKF_ERR_FORMAT, "behind its last");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,20]}}", 24);
    open_says(SKF_ERR_FORMAT, "needs 24");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[4,28]}}", 28);
    open_says(SKF_ERR_FORMAT, "hole");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,0]}}", 24);
    open_says(SKF_ERR_FORMAT, "'x'");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[-24,0]}}", 24);
    open_says(SKF_ERR_FORMAT, "'x'");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_FORMAT, "overflow");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_FORMAT, "dimension");
    put_st("{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,6],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_LIMIT, "dimensions");
    put_st("{\"x\":{\"dtype\":\"F3\",\"shape\":[6],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_UNSUPPORTED, "F3");
    put_st("{\"x\":{\"shape\":[6],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_FORMAT, "dtype");
    put_st("{\"x\":7}", 24);
    open_says(SKF_ERR_FORMAT, "dtype");
    put_st(X ",\"y\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[20,44]}}", 44);
    open_says(SKF_ERR_FORMAT, "overlap");
    put_st(X ",\"x\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,48]}}", 48);
    open_says(SKF_ERR_FORMAT, "header");
    put_st("{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}", 24);
    open_says(SKF_ERR_FORMAT, "control");
    put_st("{\"x\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", 24);
    open_says(SKF_ERR_LIMIT, "");
    put_st("{\"x\":", 24);
    open_says(SKF_ERR_FORMAT, "header");
    skf_buf_clear(&buf);
    put_u64(&buf, 1000); /* a header longer than the file */
    put_ok(skf_buf_str(&buf, X "}"));
    open_says(SKF_ERR_FORMAT, "truncated");
}

/* A sharded set is its files one behind the other; what ends each is its tensors. */
static void files_behind_each_other(void **state)
{
    static const char *const heads[] = {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}", "{}",
                                        "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}"};
    struct skf_model *m;
    size_t n, data[] = {24, 0, 12};
    skf_buf_clear(&buf);
    for (int i = 0; i < 3; i++) {
        put_text(&buf, heads[i]);
        put_data(&buf, data[i]);
    }
    struct skf_source src = skf_source_of(buf.data, buf.len);
    assert_int_equal(skf_model_open_source(&src, "set", &m, NULL), SKF_OK);
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    assert_int_equal(n, 2);
    assert_string_equal(t[0].name, "a");
    assert_string_equal(t[1].name, "b");
    assert_int_equal(t[1].offset + t[1].bytes, buf.len);
    skf_model_close(m);
    put_ok(skf_buf_u8(&buf, 0));
    open_says(SKF_ERR_FORMAT, "behind its last");
    buf.len--;
    put_text(&buf, heads[0]); /* and the first one's tensor again */
    open_says(SKF_ERR_FORMAT, "past the end");
    put_data(&buf, 24);
    open_says(SKF_ERR_FORMAT, "two tensors 'a'");
}

static void any_bytes_are_a_model(void **state)
{
    struct skf_model *m;
    struct skf_cut cut;
    size_t n = 7;
    open_says(SKF_OK, ""); /* none at all */
    struct skf_source none = skf_source_of(NULL, 0);
    assert_int_equal(skf_model_open_source(&none, "none", &m, NULL), SKF_OK);
    assert_int_equal(skf_model_format(m), SKF_FORMAT_BYTES);
    assert_null(skf_model_tensors(m, &n));
    assert_int_equal(n, 0);
    assert_null(skf_model_find(m, ""));
    assert_int_equal(skf_cut_make(m, 1, NULL, &cut, NULL), SKF_OK);
    assert_true(cut.n == 0 && cut.size == 0);
    skf_cut_free(&cut);
    skf_model_close(m);
    for (size_t i = 1; i < 40; i++) {
        skf_buf_clear(&buf);
        put_data(&buf, i);
        open_says(SKF_OK, "");
    }
    skf_buf_clear(&buf);
    put_ok(skf_buf_str(&buf, "GGUF")); /* says what it is and is not */
    open_says(SKF_ERR_FORMAT, "truncated");
}

static void tensors_come_in_order(void **state)
{
    struct skf_model *m;
    put_head(&buf, 3, 3, 0);
    put_tensor(&buf, "last", 8, 2, SKF_T_F32, 128);
    put_tensor(&buf, "first", 8, 2, SKF_T_F32, 0);
    put_tensor(&buf, "middle", 32, 0, SKF_T_Q8_0, 64);
    put_pad(&buf, 32);
    put_data(&buf, 192);
    struct skf_source src = skf_source_of(buf.data, buf.len);
    assert_int_equal(skf_model_open_source(&src, "m", &m, NULL), SKF_OK);
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    assert_int_equal(n, 3);
    assert_string_equal(t[0].name, "first");
    assert_string_equal(t[1].name, "middle");
    assert_string_equal(t[2].name, "last");
    assert_string_equal(skf_model_gguf(m)->tensors[0].name, "last"); /* the directory keeps its own order */
    assert_ptr_equal(skf_model_find(m, "middle"), &t[1]);
    skf_model_close(m);
}

static void overlaps_are_refused(void **state)
{
    put_head(&buf, 3, 2, 0);
    put_tensor(&buf, "a", 16, 0, SKF_T_F32, 0);
    put_tensor(&buf, "b", 16, 0, SKF_T_F32, 32);
    put_pad(&buf, 32);
    put_data(&buf, 96);
    open_says(SKF_ERR_FORMAT, "'a' and 'b' overlap");
}

static void every_type_has_its_size(void **state)
{
    /* block elements and bytes as ggml has them, by number */
    static const struct {
        uint32_t type, block, bytes;
    } want[] = {{0, 1, 4},    {1, 1, 2},     {2, 32, 18},   {3, 32, 20},   {6, 32, 22},   {7, 32, 24},   {8, 32, 34},
                {9, 32, 36},  {10, 256, 84}, {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210}, {15, 256, 292},
                {16, 256, 66}, {17, 256, 74}, {18, 256, 98}, {19, 256, 50}, {20, 32, 18}, {21, 256, 110}, {22, 256, 82},
                {23, 256, 136}, {24, 1, 1},   {25, 1, 2},    {26, 1, 4},    {27, 1, 8},    {28, 1, 8},    {29, 256, 56},
                {30, 1, 2},   {34, 256, 54}, {35, 256, 66}, {39, 32, 17},  {40, 64, 36},  {41, 128, 18}};
    for (size_t i = 0; i < SKF_COUNT(want); i++) {
        const struct skf_type_info *ti = skf_type_info(want[i].type);
        assert_non_null(ti);
        assert_int_equal(ti->block, want[i].block);
        assert_int_equal(ti->block_bytes, want[i].bytes);
    }
    assert_null(skf_type_info(4));
    assert_null(skf_type_info(5));
    assert_null(skf_type_info(42));
    assert_null(skf_type_info(UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(opens_safetensors, fresh),     cmocka_unit_test_setup(lies_in_safetensors, fresh),
        cmocka_unit_test_setup(files_behind_each_other, fresh),
        cmocka_unit_test_setup(any_bytes_are_a_model, fresh), cmocka_unit_test_setup(tensors_come_in_order, fresh),
        cmocka_unit_test_setup(overlaps_are_refused, fresh),  cmocka_unit_test_setup(every_type_has_its_size, fresh),
    };
    return cmocka_run_group_tests_name("model_open", tests, NULL, done);
}
