/*
 * Products with packed matrices (model/sparse.h): those of every instruction set, from any row to any other and for any number of tokens,
 * equal to the bit to the reference's products with the rows that were packed.  Shapes are awkward on purpose: one row, one more or less
 * than a group, columns that are no whole masks, no zeros at all, nothing but zeros.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/kernels/tables.h"

static const enum skf_type types[] = {SKF_T_F32, SKF_T_F16, SKF_T_BF16, SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1};
static bool is_block_type(enum skf_type t) { return skf_type_info(t)->block > 1; }

enum { EVEN = 101 }; /* a share of zeros in percent, or this: two of every four */
static bool is_zero(uint32_t share, uint32_t column)
{
    static uint32_t kept;
    if (share != EVEN)
        return next() % 100 < share;
    if (column % 4 == 0)
        kept = (uint32_t[]){3, 5, 6, 9, 10, 12, 0, 8}[next() % 8]; /* fewer than two too */
    return !(kept >> column % 4 & 1);
}

struct matrix {
    struct skf_weight w;
    struct skf_rows seg;
    uint8_t *rows, *packed;
    size_t packed_bytes;
    struct skf_sparse s;
};
static void put_block(enum skf_type t, uint8_t *p, uint32_t share, uint32_t column)
{
    uint8_t codes[32], zero = t == SKF_T_Q8_0 ? 0 : t == SKF_T_Q4_0 ? 8 : (uint8_t)(next() % 16);
    uint16_t h[2] = {skf_f32_to_f16(uniform() * 0.1f), skf_f32_to_f16(uniform() * 0.1f)};
    for (uint32_t i = 0; i < 32; i++)
        codes[i] = is_zero(share, column + i) ? zero : (uint8_t)(next() % 256);
    memcpy(p, h, t == SKF_T_Q4_1 ? 4 : 2);
    p += t == SKF_T_Q4_1 ? 4 : 2;
    if (t == SKF_T_Q8_0)
        memcpy(p, codes, 32);
    for (uint32_t i = 0; t != SKF_T_Q8_0 && i < 16; i++)
        p[i] = (uint8_t)((codes[i] & 15) | codes[i + 16] << 4);
}
static void put_float(enum skf_type t, uint8_t *p, uint32_t share, uint32_t column)
{
    static const float odd[] = {-0.0f, 1e-40f, 3e38f, -1e-44f};
    float f = next() % 16 == 0 ? odd[next() % 4] : uniform();
    uint16_t h = t == SKF_T_F16 ? skf_f32_to_f16(f > 1e38f ? 65504.0f : f) : skf_f32_to_bf16(f);
    if (is_zero(share, column))
        memset(p, 0, t == SKF_T_F32 ? 4 : 2);
    else if (t == SKF_T_F32)
        memcpy(p, &f, 4);
    else
        memcpy(p, &h, 2);
}
static const uint8_t *row_of(const void *ctx, uint32_t r) { return skf_weight_row(ctx, r); }

static void matrix_make(struct matrix *m, enum skf_type t, uint32_t rows, uint32_t cols, uint32_t share)
{
    const struct skf_type_info *info = skf_type_info(t);
    struct skf_why why = {{0}};
    memset(m, 0, sizeof *m);
    m->w = (struct skf_weight){t, rows, cols, (uint64_t)cols / info->block * info->block_bytes, 1, &m->seg, NULL, NULL};
    m->rows = skf_alloc(rows * m->w.row_bytes);
    assert_non_null(m->rows);
    m->seg = (struct skf_rows){m->rows, 0, rows};
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < cols; c += info->block) {
            uint8_t *p = m->rows + r * m->w.row_bytes + (size_t)c / info->block * info->block_bytes;
            if (is_block_type(t))
                put_block(t, p, share, c);
            else
                put_float(t, p, share, c);
        }
    struct skf_sparse_from from = {t, rows, cols, row_of, &m->w};
    assert_int_equal(skf_sparse_pack(&from, 0, &m->packed, &m->packed_bytes), SKF_OK);
    assert_non_null(m->packed);
    if (skf_sparse_open(m->packed, m->packed_bytes, &m->s, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void matrix_free(struct matrix *m)
{
    skf_free(m->rows);
    skf_free(m->packed);
}

struct tokens {
    struct skf_acts a;
    float *x;
};
static void tokens_make(struct tokens *k, uint32_t m, uint32_t n)
{
    size_t blocks = n / SKF_QBLOCK + 1;
    k->x = skf_alloc((size_t)m * n * sizeof *k->x);
    assert_non_null(k->x);
    for (size_t i = 0; i < (size_t)m * n; i++)
        k->x[i] = uniform();
    k->a = (struct skf_acts){.m = m, .n = n, .x = k->x, .ldx = n};
    k->a.q = skf_alloc(blocks * m * SKF_QBLOCK);
    k->a.d = skf_alloc(blocks * m * sizeof *k->a.d);
    k->a.s = skf_alloc(blocks * m * sizeof *k->a.s);
    k->a.sum = skf_alloc(blocks * m * sizeof *k->a.sum);
    k->a.low = skf_alloc(blocks * m * sizeof *k->a.low);
    assert_true(k->a.q && k->a.d && k->a.s && k->a.sum && k->a.low);
    for (uint32_t t = 0; n % SKF_QBLOCK == 0 && t < m; t++)
        tables[0]->quantize(k->x + (size_t)t * n, n, &k->a, t);
}
static void tokens_free(struct tokens *k)
{
    skf_free(k->x);
    skf_free(k->a.q);
    skf_free(k->a.d);
    skf_free(k->a.s);
    skf_free(k->a.sum);
    skf_free(k->a.low);
}

/* Whether this table has code of its own for the packed form. */
static bool is_expected(enum skf_isa isa, enum skf_type t, uint32_t m)
{
    bool is_nibble = t == SKF_T_Q4_0 || t == SKF_T_Q4_1;
#if defined(__x86_64__)
    if (isa == SKF_ISA_AVX512 && __builtin_cpu_supports("avx512vbmi2"))
        return true;
    if (isa == SKF_ISA_AVX2 || isa == SKF_ISA_AVX512)
        return !is_nibble && (t != SKF_T_Q8_0 || m == 1);
#endif
    return isa == SKF_ISA_REF || !is_nibble;
}

static void same_everywhere(struct matrix *m, uint32_t tokens)
{
    const uint32_t rows = m->w.rows;
    struct tokens k;
    tokens_make(&k, tokens, m->w.cols);
    float *want = skf_calloc((size_t)tokens * rows, sizeof *want), *y = skf_calloc((size_t)tokens * (rows + 2), sizeof *y);
    assert_true(want && y);
    m->w.packed = NULL;
    tables[0]->matmul(&m->w, &k.a, 0, rows, want, rows);
    m->w.packed = &m->s;
    for (size_t i = 0; i < n_tables; i++)
        for (int part = 0; part < 3; part++) { /* all rows, and some from within a group to within another */
            uint32_t from = part ? next() % rows : 0, to = part ? from + next() % (rows - from) + 1 : rows;
            memset(y, 0x55, (size_t)tokens * (rows + 2) * sizeof *y);
            float untouched = y[0];
            bool is_done = is_sparse_matmul(tables[i]->isa, &m->w, &k.a, from, to, y, rows + 2);
            assert_int_equal(is_done, is_expected(tables[i]->isa, m->w.type, tokens));
            for (size_t j = 0; !is_done && j < (size_t)tokens * (rows + 2); j++)
                assert_memory_equal(&y[j], &untouched, sizeof untouched);
            tables[i]->matmul(&m->w, &k.a, from, to, y, rows + 2); /* by the table: packed or not, the same */
            for (uint32_t t = 0; t < tokens; t++)
                for (uint32_t r = 0; r < rows + 2; r++)
                    assert_memory_equal(&y[t * (rows + 2) + r], r >= from && r < to ? &want[t * rows + r] : &untouched, sizeof *y);
        }
    tokens_free(&k);
    skf_free(want);
    skf_free(y);
}

static void test_packed_is_the_same_everywhere(void **state)
{
    static const uint32_t rows[] = {1, 3, 4, 5, 15, 16, 17, 40}, blocks[] = {32, 96, 320},
                          floats[] = {1, 15, 16, 17, 31, 32, 33, 48, 49, 95, 200}, shares[] = {0, 30, 55, 92, 100, EVEN},
                          tokens[] = {1, 2, 3, 4, 5, 9, 70};
    for (size_t k = 0; k < SKF_COUNT(types); k++)
        for (size_t r = 0; r < SKF_COUNT(rows); r++)
            for (size_t s = 0; s < SKF_COUNT(shares); s++) {
                struct matrix m;
                uint32_t cols = is_block_type(types[k]) ? blocks[(r + s) % SKF_COUNT(blocks)] : floats[(r + 3 * s) % SKF_COUNT(floats)];
                matrix_make(&m, types[k], rows[r], cols, shares[s]);
                for (size_t t = s % 2; t < SKF_COUNT(tokens); t += 2)
                    same_everywhere(&m, tokens[t]);
                matrix_free(&m);
            }
}

static void test_every_length_of_a_float_row(void **state)
{
    for (size_t k = 0; k < 3; k++)
        for (uint32_t cols = 1; cols <= 66; cols++) {
            struct matrix m;
            matrix_make(&m, types[k], 6, cols, 60);
            same_everywhere(&m, 1 + cols % 4);
            matrix_free(&m);
        }
}

static void test_even_ones_are_seen(void **state)
{
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct matrix m;
        matrix_make(&m, types[k], 20, 64, EVEN);
        assert_int_equal(m.s.is_even, types[k] == SKF_T_Q8_0);
        matrix_free(&m);
        matrix_make(&m, types[k], 20, 64, 40);
        assert_false(m.s.is_even);
        matrix_free(&m);
    }
}

/* What is taken by itself must be there to be taken: no share of zeros is enough where no code is. */
static void test_thresholds(void **state)
{
    for (size_t k = 0; k < SKF_COUNT(types); k++)
        for (size_t i = 0; i < n_tables; i++)
            for (int is_even = 0; is_even < 2; is_even++) {
                double least = skf_sparse_least(tables[i]->isa, types[k], is_even);
                assert_true(least > 0.2); /* weights that nobody pruned stay as they are */
                assert_true(least > 1 || is_expected(tables[i]->isa, types[k], 1));
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_is_the_same_everywhere),
        cmocka_unit_test(test_every_length_of_a_float_row),
        cmocka_unit_test(test_even_ones_are_seen),
        cmocka_unit_test(test_thresholds),
    };
    return cmocka_run_group_tests(tests, find_tables, NULL);
}
