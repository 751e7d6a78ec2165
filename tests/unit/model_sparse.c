/*
 * Packed matrices (model/sparse.h): what is packed and what is not, and bytes that lie.  That products with them are right is what
 * tests/kernels/kernels_sparse.c holds; here, that no byte can be changed so that a reader would leave the block.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/sparse.h"

struct rows {
    uint8_t bytes[1 << 15];
    size_t row_bytes;
};
static const uint8_t *row_of(const void *ctx, uint32_t r)
{
    const struct rows *m = ctx;
    return m->bytes + r * m->row_bytes;
}

/* `zeros` of every ten codes are background. */
static struct skf_sparse_from fill(struct rows *m, enum skf_type t, uint32_t rows, uint32_t cols, unsigned zeros)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    const uint32_t head = info->block == 1 ? 0 : t == SKF_T_Q4_1 ? 4 : 2;
    m->row_bytes = cols / info->block * info->block_bytes;
    assert_true(rows * m->row_bytes <= sizeof m->bytes);
    unsigned n = 0;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols / info->block; c++) {
            uint8_t *p = m->bytes + r * m->row_bytes + (size_t)c * info->block_bytes;
            memset(p, 0, info->block_bytes);
            for (uint32_t i = 0; i < info->block_bytes; i++)
                p[i] = i < head ? 0x11 : t == SKF_T_Q8_0 || info->block == 1 ? 0 : 0x88;
            for (uint32_t i = 0; i < info->block; i++) {
                bool is_zero = n++ % 10 < zeros;
                if (is_zero)
                    continue;
                if (info->block == 1)
                    p[info->block_bytes - 1] = 0x3f;
                else if (t == SKF_T_Q8_0)
                    p[head + i] = 0xfb;
                else
                    p[head + i % 16] ^= i < 16 ? 5 : 0x50;
            }
        }
    return (struct skf_sparse_from){t, rows, cols, row_of, m};
}

static const enum skf_type types[] = {SKF_T_F32, SKF_T_F16, SKF_T_BF16, SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1};

static void test_share_and_least(void **state)
{
    static struct rows m;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        struct skf_sparse_from from = fill(&m, types[k], 21, 320, 6);
        struct skf_sparse s;
        bool is_even;
        uint8_t *bytes;
        size_t n;
        double share = skf_sparse_share(&from, 100, &is_even);
        assert_true(share > 0.59 && share < 0.61 && !is_even);
        assert_true(skf_sparse_share(&from, 1, &is_even) > 0.5);
        assert_int_equal(skf_sparse_pack(&from, 0.8, &bytes, &n), SKF_OK);
        assert_null(bytes); /* not worth it */
        assert_int_equal(skf_sparse_pack(&from, 0.55, &bytes, &n), SKF_OK);
        assert_non_null(bytes);
        assert_int_equal(skf_sparse_open(bytes, n, &s, NULL), SKF_OK);
        assert_true(s.type == types[k] && s.rows == 21 && s.cols == 320);
        skf_free(bytes);
        for (unsigned long i = 1; i <= 2; i++) { /* giving memory back may fail, having none may not */
            skf_alloc_fail_at(i);
            assert_int_equal(skf_sparse_pack(&from, 0.55, &bytes, &n), i == 1 ? SKF_ERR_NOMEM : SKF_OK);
            skf_alloc_fail_at(0);
            assert_int_equal(bytes != NULL, i == 2);
            skf_free(bytes);
        }
    }
    struct skf_sparse_from none = fill(&m, SKF_T_Q8_0, 4, 64, 6);
    uint8_t *bytes;
    size_t n;
    bool is_even;
    none.type = SKF_T_Q4_K;
    assert_int_equal(skf_sparse_pack(&none, 0, &bytes, &n), SKF_ERR_UNSUPPORTED);
    assert_true(skf_sparse_share(&none, 4, &is_even) == 0 && !is_even);
    none.type = SKF_T_Q8_0;
    none.cols = 65;
    assert_int_equal(skf_sparse_pack(&none, 0, &bytes, &n), SKF_ERR_UNSUPPORTED);
}

/* Opened bytes must be sound whatever they say: reads all that a kernel would. */
static void walk(const uint8_t *bytes, size_t n, const struct skf_sparse *s)
{
    for (uint32_t g = 0; g < s->groups; g++) {
        const uint8_t *from = skf_sparse_values(s, g), *to = skf_sparse_values(s, g + 1), *fixed = s->fixed + g * s->stride;
        assert_true(from <= to && from >= s->values && to + SKF_SPARSE_PAD <= bytes + n);
        assert_true(fixed >= bytes && fixed + s->stride <= s->values);
        uint64_t bits = 0;
        uint32_t heads = s->group == SKF_SPARSE_ROWS ? skf_sparse_heads(s->type) : 0, masks = heads ? 64 : 16;
        for (size_t at = 0; at < s->stride; at += heads + masks)
            for (uint32_t i = 0; i < masks; i++)
                bits += (uint64_t)__builtin_popcount(fixed[at + heads + i]);
        uint64_t size = s->type == SKF_T_F32 ? 4 * bits : s->type == SKF_T_Q8_0 ? bits : s->group == SKF_SPARSE_FLOATS ? 2 * bits : (bits + 1) / 2;
        assert_true((uint64_t)(to - from) >= size);
    }
}

static void test_bytes_that_lie(void **state)
{
    static struct rows m;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        struct skf_sparse_from from = fill(&m, types[k], 21, 96, 6);
        struct skf_sparse s;
        struct skf_why why = {{0}};
        uint8_t *bytes;
        size_t n, refused = 0;
        assert_int_equal(skf_sparse_pack(&from, 0, &bytes, &n), SKF_OK);
        if (skf_sparse_open(bytes, n, &s, &why) != SKF_OK)
            fail_msg("%s", why.text);
        walk(bytes, n, &s);
        const size_t head = (size_t)(s.values - bytes);
        for (size_t at = 0; at < n; at += at < head ? 1 : 31)
            for (unsigned bit = 0; bit < 8; bit++) {
                bytes[at] ^= (uint8_t)(1u << bit);
                if (skf_sparse_open(bytes, n, &s, &why) == SKF_OK)
                    walk(bytes, n, &s);
                else
                    refused++;
                bytes[at] ^= (uint8_t)(1u << bit);
            }
        assert_true(refused > 64 * 8 && why.text[0]);
        for (size_t less = 0; less < n; less++) {
            uint8_t *exact = skf_memdup(bytes, less); /* so that a sanitizer sees a read past the end */
            assert_non_null(exact);
            assert_int_not_equal(skf_sparse_open(exact, less, &s, NULL), SKF_OK);
            skf_free(exact);
        }
        skf_put_le32(bytes + 12, UINT32_MAX); /* rows, and columns, without end */
        skf_put_le32(bytes + 16, UINT32_MAX - 31);
        assert_int_not_equal(skf_sparse_open(bytes, n, &s, NULL), SKF_OK);
        skf_free(bytes);
    }
}

static void test_even_masks_are_checked(void **state)
{
    static struct rows m;
    struct skf_sparse_from from = fill(&m, SKF_T_Q8_0, 3, 64, 10); /* all zeros are even too */
    struct skf_sparse s;
    uint8_t *bytes;
    size_t n;
    assert_int_equal(skf_sparse_pack(&from, 0.3, &bytes, &n), SKF_OK);
    assert_non_null(bytes);
    assert_int_equal(skf_sparse_open(bytes, n, &s, NULL), SKF_OK);
    assert_true(s.is_even);
    uint8_t *mask = bytes + (s.fixed - bytes) + skf_sparse_heads(SKF_T_Q8_0);
    assert_int_equal(*mask, 0x33);
    *mask = 0x17; /* as many bits, but three of one four */
    assert_int_equal(skf_sparse_open(bytes, n, &s, NULL), SKF_ERR_FORMAT);
    *mask = 0x33;
    skf_put_le32(bytes + 8, SKF_T_Q4_0);
    assert_int_not_equal(skf_sparse_open(bytes, n, &s, NULL), SKF_OK);
    skf_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share_and_least),
        cmocka_unit_test(test_bytes_that_lie),
        cmocka_unit_test(test_even_masks_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
