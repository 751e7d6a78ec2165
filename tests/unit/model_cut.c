/* The cut: chunk borders for every kind of piece, one root however the bytes lie and however many threads hash them. */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "model/model.h"
#include "tests/lib/gguf_make.h"

enum { MIB = 1 << 20 };

static struct skf_buf buf = {NULL, 0, 0, 64 << 20};

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

static void put_noise(size_t n)
{
    uint32_t s = 1;
    put_ok(skf_buf_reserve(&buf, n));
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525 + 1013904223;
        buf.data[buf.len++] = (uint8_t)(s >> 24);
    }
}

static void cut_is(const uint64_t *lengths, size_t n)
{
    struct skf_model *m;
    struct skf_cut cut, again;
    struct skf_why why = {{0}};
    struct skf_source src = skf_source_of(buf.data, buf.len);
    if (skf_model_open_source(&src, "m", &m, &why) != SKF_OK)
        fail_msg("%s", why.text);
    assert_int_equal(skf_cut_make(m, 1, NULL, &cut, NULL), SKF_OK);
    assert_int_equal(cut.n, n);
    assert_int_equal(cut.size, buf.len);
    uint64_t at = 0;
    struct skf_merkle tree;
    skf_merkle_init(&tree);
    for (size_t i = 0; i < n; i++) {
        uint8_t digest[SKF_DIGEST], root[SKF_DIGEST];
        assert_int_equal(cut.chunks[i].offset, at);
        assert_int_equal(cut.chunks[i].length, lengths[i]);
        skf_sha256(buf.data + at, lengths[i], digest);
        assert_memory_equal(cut.chunks[i].digest, digest, SKF_DIGEST);
        skf_merkle_add(&tree, digest, lengths[i]);
        at += lengths[i];
        if (i + 1 == n) {
            skf_merkle_root(&tree, root);
            assert_memory_equal(cut.root, root, SKF_DIGEST);
        }
    }
    assert_int_equal(at, buf.len);
    assert_int_equal(skf_cut_make(m, 5, NULL, &again, NULL), SKF_OK);
    assert_memory_equal(cut.root, again.root, SKF_DIGEST);
    skf_cut_free(&again);
    skf_model_close(m);

    struct pieces p = {buf.data, buf.len, 300001};
    struct skf_source pieces = {buf.len, span_of_pieces, &p, NULL};
    assert_int_equal(skf_model_open_source(&pieces, "m", &m, NULL), SKF_OK);
    assert_int_equal(skf_cut_make(m, 2, NULL, &again, NULL), SKF_OK);
    assert_memory_equal(cut.root, again.root, SKF_DIGEST);
    skf_cut_free(&again);
    skf_cut_free(&cut);
    skf_model_close(m);
}

static void bytes_at_one_mib(void **state)
{
    put_noise(2 * MIB + 5);
    cut_is((const uint64_t[]){MIB, MIB, 5}, 3);
    skf_buf_clear(&buf);
    put_noise(MIB);
    cut_is((const uint64_t[]){MIB}, 1);
}

static void tensors_in_whole_rows(void **state)
{
    put_head(&buf, 3, 5, 0);
    put_tensor(&buf, "rows", 75000, 5, SKF_T_F32, 0);             /* 300,000 bytes a row: three fit */
    put_tensor(&buf, "long", 300000, 2, SKF_T_F32, 1500000 + 32); /* 1.2 MB a row, behind a gap of 32 */
    put_tensor(&buf, "q", 32 * 60000, 1, SKF_T_Q4_1, 3900032);    /* 1.2 MB of blocks of 20 */
    put_tensor(&buf, "none", 0, 3, SKF_T_F32, 5100032);
    put_tensor(&buf, "small", 8, 0, SKF_T_F32, 5100032);
    put_pad(&buf, 32);
    uint64_t head = buf.len;
    put_noise(5100032 + 32 + 7);
    cut_is((const uint64_t[]){head, 900000, 600000, 32, MIB, 1200000 - MIB, MIB, 1200000 - MIB, MIB / 20 * 20,
                              1200000 - MIB / 20 * 20, 32, 7},
           12);
}

static void a_long_head_is_cut(void **state)
{
    put_head(&buf, 3, 0, 1);
    put_text(&buf, "k");
    put_u32(&buf, SKF_GGUF_ARRAY);
    put_u32(&buf, SKF_GGUF_U8);
    put_u64(&buf, 6 * MIB); /* more than the reader looks at first */
    put_noise(6 * MIB);
    uint64_t rest = buf.len - 6 * (uint64_t)MIB;
    cut_is((const uint64_t[]){MIB, MIB, MIB, MIB, MIB, MIB, rest}, 7);
}

static void can_be_stopped(void **state)
{
    struct skf_model *m;
    struct skf_cut cut;
    atomic_bool stop = true;
    struct skf_progress progress = {.cancel = &stop};
    put_noise(3 * MIB);
    struct skf_source src = skf_source_of(buf.data, buf.len);
    assert_int_equal(skf_model_open_source(&src, "m", &m, NULL), SKF_OK);
    assert_int_equal(skf_cut_make(m, 2, &progress, &cut, NULL), SKF_ERR_CANCELLED);
    assert_null(cut.chunks);
    skf_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(bytes_at_one_mib, fresh),
        cmocka_unit_test_setup(tensors_in_whole_rows, fresh),
        cmocka_unit_test_setup(a_long_head_is_cut, fresh),
        cmocka_unit_test_setup(can_be_stopped, fresh),
    };
    return cmocka_run_group_tests_name("model_cut", tests, NULL, done);
}
