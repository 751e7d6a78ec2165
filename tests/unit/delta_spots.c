/*
 * Lists of what changes: they come out as they went in whatever the matrix, chunks of every quantized type of which little changes are
 * coded so and take less than their columns' worth, and what no encoder writes is refused without harm.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "delta/blocks_priv.h"
#include "delta/spots_priv.h"

static uint64_t state = 88172645463325252u;
static uint64_t next(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static int32_t size_at_random(unsigned kind)
{
    int32_t d = kind == 0 ? 1 : kind == 1 ? (int32_t)(next() % 50) + 1 : (int32_t)(next() % (1u << next() % 16)) + 1;
    return next() & 1 ? d : -d;
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------- */
struct seen {
    int32_t *d; /* of each place; 0: none */
    uint32_t rows, columns, n;
};
static bool see(void *ctx, uint32_t row, uint32_t column, int32_t d)
{
    struct seen *s = ctx;
    assert_true(row < s->rows && column < s->columns && d != 0);
    int32_t *at = &s->d[(size_t)row * s->columns + column];
    assert_int_equal(*at, 0);
    *at = d;
    s->n++;
    return true;
}

/* A list of the places that `d` sets, there and back. Returns its bits. */
static size_t there_and_back(const int32_t *d, uint32_t rows, uint32_t columns)
{
    const size_t all = (size_t)rows * columns;
    struct skf_area list = {NULL, 0};
    struct skf_spot *spot = skf_calloc(all + 1, sizeof *spot);
    uint32_t n = 0;
    assert_non_null(spot);
    for (size_t i = 0; i < all; i++)
        if (d[i])
            spot[n++] = (struct skf_spot){(uint32_t)(i / columns), (uint32_t)(i % columns), d[i]};
    uint8_t *bytes = skf_alloc(SPOTS_ROOM(n));
    assert_non_null(bytes);
    struct skf_bits_out out = {.p = bytes};
    assert_int_equal(skf_spots_put(&list, &out, &(struct skf_spots){rows, columns, n, spot}), SKF_OK);
    const size_t bits = 8 * (size_t)(out.p - bytes) + out.have;
    const uint64_t end = 8 * (uint64_t)(skf_bits_end(&out) - bytes);
    assert_true(end <= 8 * SPOTS_ROOM(n));
    struct seen s = {skf_calloc(all + 1, sizeof *s.d), rows, columns, 0};
    assert_non_null(s.d);
    struct word_bits in = {bytes, 0, end};
    assert_int_equal(skf_spots_get(&list, &in, rows, columns, see, &s), SKF_OK);
    assert_int_equal(in.at, bits);
    assert_true(word_is_done(&in));
    assert_int_equal(s.n, n);
    assert_memory_equal(s.d, d, all * sizeof *d);
    for (uint64_t cut = 8; cut < 100 && cut <= end; cut += 8) { /* whatever is missing, something is */
        memset(s.d, 0, all * sizeof *d);
        in = (struct word_bits){bytes, 0, end - cut};
        assert_int_equal(skf_spots_get(&list, &in, rows, columns, see, &s), SKF_ERR_FORMAT);
    }
    skf_free(s.d);
    skf_free(bytes);
    skf_free(spot);
    skf_area_free(&list);
    return bits;
}

static void test_lists(void **unused)
{
    static const struct {
        uint32_t rows, columns;
    } shapes[] = {{1, 1}, {1, 700}, {700, 1}, {64, 64}, {37, 129}, {3, 1000}};
    for (size_t k = 0; k < SKF_COUNT(shapes); k++)
        for (unsigned round = 0; round < 60; round++) {
            const uint32_t rows = shapes[k].rows, columns = shapes[k].columns;
            const size_t all = (size_t)rows * columns;
            int32_t *d = skf_calloc(all, sizeof *d);
            assert_non_null(d);
            const unsigned most = round % 4 == 0 ? 0 : round % 4 == 1 ? 2 : round % 4 == 2 ? 60 : 4096;
            for (unsigned i = 0; i < most; i++)
                d[round % 3 == 0 ? i % all : next() % all] = size_at_random(round % 5 % 3);
            (void)there_and_back(d, rows, columns);
            skf_free(d);
        }
}

/* A thousand changes of a million places, in ten columns or rows, take six bits and a half each, and not the ten that places alone take. */
static void test_columns_are_cheap(void **unused)
{
    int32_t *d = skf_calloc(1 << 20, sizeof *d);
    assert_non_null(d);
    for (unsigned i = 0; i < 1000; i++)
        d[(next() % 1024) * 1024 + i % 10 * 97] = next() & 1 ? 1 : -1;
    size_t by_columns = there_and_back(d, 1024, 1024);
    assert_in_range(by_columns, 1000, 6500);
    memset(d, 0, sizeof *d << 20);
    for (unsigned i = 0; i < 1000; i++)
        d[(next() % 1024) + i % 10 * 97 * 1024] = next() & 1 ? 1 : -1;
    assert_in_range(there_and_back(d, 1024, 1024), 1000, 6500);
    skf_free(d);
}

/* Bits at random end somewhere, and touch nothing else. */
static void test_noise(void **unused)
{
    struct skf_area list = {NULL, 0};
    int32_t d[64 * 64];
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t noise[64];
        const unsigned n = next() % 64 + 1;
        for (unsigned i = 0; i < n; i++)
            noise[i] = (uint8_t)(next() & next() & (round % 2 ? next() : 255));
        struct seen s = {d, 64, 64, 0};
        struct word_bits in = {noise, 0, 8 * (uint64_t)n};
        memset(d, 0, sizeof d);
        enum skf_err e = skf_spots_get(&list, &in, 64, 64, see, &s);
        assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
    }
    skf_area_free(&list);
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------------ */
#define ROWS 64
#define ROW  1024
static void test_chunks(void **unused)
{
    static const enum skf_type types[] = {SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1,  SKF_T_Q8_0,   SKF_T_Q8_1,  SKF_T_Q2_K,
                                          SKF_T_Q3_K, SKF_T_Q4_K, SKF_T_Q5_K, SKF_T_Q6_K, SKF_T_IQ4_NL, SKF_T_IQ4_XS, SKF_T_MXFP4};
    struct skf_work w;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (size_t t = 0; t < SKF_COUNT(types); t++) {
        const struct skf_layout *l = skf_layout_of(types[t]);
        const struct skf_type_info *info = skf_type_info((uint32_t)types[t]);
        const size_t row = ROW / info->block * info->block_bytes, n = ROWS * row;
        uint8_t *old = skf_alloc(n), *neu = skf_alloc(n), *made = skf_alloc(n);
        assert_true(old && neu && made);
        for (size_t i = 0; i < n; i++)
            old[i] = (uint8_t)next();
        for (size_t i = 0; i < n; i += info->block_bytes)
            for (unsigned h = 0; h < l->n_halves; h++)
                skf_put_le16(old + i + l->half[h], (uint16_t)(0x2000 + next() % 0x1000));
        memcpy(neu, old, n);
        for (unsigned i = 0; i < 100; i++) {
            uint8_t *block = neu + next() % ROWS * row + i % 2 * info->block_bytes;
            const struct skf_codes *f = &l->field[i % 20 ? l->n_fields - 1 : 0];
            skf_code_add(f, block, 5, next() & 1 ? 1 : -1);
            if (l->n_halves && i % 10 == 0)
                skf_put_le16(block + l->half[i % l->n_halves], (uint16_t)(skf_le16(block + l->half[i % l->n_halves]) + next() % 40 + 1));
        }
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        assert_int_equal(skf_int_put(&w, types[t], row, NULL, 0, old, neu, n, &out), SKF_OK);
        assert_int_equal(out.data[0], 2);
        assert_in_range(out.len, 20, 180);
        assert_int_equal(skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len, old, made, n), SKF_OK);
        assert_memory_equal(made, neu, n);
        assert_int_equal(skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len - 1, old, made, n), SKF_ERR_FORMAT);
        for (unsigned i = 0; i < 8 * out.len; i++) {
            out.data[i / 8] ^= (uint8_t)(1 << i % 8);
            enum skf_err e = skf_int_get(&w, types[t], row, NULL, 0, out.data, out.len, old, made, n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            out.data[i / 8] ^= (uint8_t)(1 << i % 8);
        }
        skf_buf_free(&out);
        skf_free(old);
        skf_free(neu);
        skf_free(made);
    }
    skf_work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_columns_are_cheap),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
