/* Rows of a new version over the old one's (model/regrid.h): what stays, what moves, and that sums are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/util.h"
#include "model/regrid.h"

enum { N = 4096 };
static float old_x[N], new_x[N], is_x[N], was_x[N];
static uint8_t old_row[4 * N], row[4 * N], again[4 * N];
static const enum skf_type grids[] = {SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1, SKF_T_Q4_K, SKF_T_Q5_K, SKF_T_Q6_K};

/* About a bell, of deviation 1. */
static float bell(uint64_t seed, uint64_t i)
{
    float s = 0;
    for (uint64_t k = 0; k < 12; k++)
        s += skf_regrid_draw(seed, 12 * i + k);
    return s - 6.0f;
}

static size_t bytes_of(enum skf_type t)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    return (size_t)N / info->block * info->block_bytes;
}

static uint32_t block_of(enum skf_type t) { return skf_type_info((uint32_t)t)->block_bytes; }
static size_t blocks_of(enum skf_type t) { return bytes_of(t) / block_of(t); }
static size_t scale_at(enum skf_type t) { return t == SKF_T_Q6_K ? 208 : 0; }

/* Old weights, and new ones that are `change` away. */
static void make(enum skf_type t, float change, float bias)
{
    for (uint64_t i = 0; i < N; i++) {
        old_x[i] = bell(1, i);
        new_x[i] = old_x[i] + change * bell(2, i) + bias;
    }
    assert_int_equal(skf_quantize(t, old_x, old_row, N), SKF_OK);
    assert_int_equal(skf_quantize(t, new_x, row, N), SKF_OK);
    assert_int_equal(skf_dequantize(t, old_row, was_x, N), SKF_OK);
}

static size_t changed(enum skf_type t)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes_of(t); i++)
        n += old_row[i] != row[i];
    return n;
}

static double error(void)
{
    double e = 0;
    for (size_t i = 0; i < N; i++)
        e += (double)(is_x[i] - new_x[i]) * (double)(is_x[i] - new_x[i]);
    return e / N;
}

static double moved(void)
{
    double m = 0;
    for (size_t i = 0; i < N; i++)
        m += (double)(is_x[i] - was_x[i]);
    return m / N;
}

static void grid_is_kept(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        enum skf_type t = grids[k];
        struct skf_regrid how = {.seed = 3};
        make(t, 0.01f, 0);
        assert_int_equal(skf_dequantize(t, row, is_x, N), SKF_OK);
        double plain = error();
        size_t before = changed(t);
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_int_equal(skf_dequantize(t, row, is_x, N), SKF_OK);
        assert_true(changed(t) < before); /* scales no longer move */
        assert_true(error() < 1.2 * plain);
        size_t others = 0;
        for (size_t i = 0, at = scale_at(t); i < blocks_of(t); i++, at += block_of(t))
            others += memcmp(row + at, old_row + at, 2) != 0;
        assert_true(others <= (blocks_of(t) + 15) / 16); /* where the largest value grew beyond the grid */
        size_t all = changed(t);
        how.keep = 0.01f;
        assert_int_equal(skf_quantize(t, new_x, row, N), SKF_OK);
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_true(changed(t) <= all);
    }
}

static void same_values_change_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        struct skf_regrid how = {.is_drifted = true, .seed = 9};
        make(grids[k], 0, 0);
        assert_int_equal(skf_quantize(grids[k], was_x, row, N), SKF_OK);
        assert_int_equal(skf_regrid_row(grids[k], old_row, row, was_x, N, 0, &how), SKF_OK);
        assert_memory_equal(row, old_row, bytes_of(grids[k]));
    }
}

/* Of values that lie far outside the old grid a block of their own is taken. */
static void block_is_refitted(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        struct skf_regrid how = {0};
        make(grids[k], 0, 0);
        for (size_t i = 0; i < 32; i++)
            new_x[i] *= 3.0f;
        assert_int_equal(skf_quantize(grids[k], new_x, row, N), SKF_OK);
        memcpy(again, row, bytes_of(grids[k]));
        assert_int_equal(skf_regrid_row(grids[k], old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_memory_equal(row, again, block_of(grids[k]));
    }
}

/* Small changes of dequantized values, which rounding would lose: the draws keep their sum, by any seed, and the same seed the same. */
static void drift_is_kept(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        enum skf_type t = grids[k];
        struct skf_regrid how = {.is_drifted = true, .seed = 4};
        struct skf_regrid_place place = {0};
        make(t, 0, 0);
        for (size_t i = 0; i < N; i++)
            new_x[i] = was_x[i] + 0.004f;
        assert_int_equal(skf_regrid_place(t, old_row, new_x, N, &place), SKF_OK);
        assert_true(place.apart < 0.5 * (double)place.n && place.n == N);
        memcpy(row, old_row, bytes_of(t));
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_int_equal(skf_dequantize(t, row, is_x, N), SKF_OK);
        assert_true(moved() > 0.001 && moved() < 0.008);
        memcpy(again, row, bytes_of(t));
        memcpy(row, old_row, bytes_of(t));
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_memory_equal(row, again, bytes_of(t));
        how.seed++;
        memcpy(row, old_row, bytes_of(t));
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_memory_not_equal(row, again, bytes_of(t));
    }
}

/* Carried along the row, changes keep their sum with fewer codes moved; a higher edge moves fewer still. */
static void drift_is_carried(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        enum skf_type t = grids[k];
        struct skf_regrid how = {.is_drifted = true, .edge = 0.5f};
        make(t, 0, 0);
        for (size_t i = 0; i < N; i++)
            new_x[i] = was_x[i] + 0.004f;
        memcpy(row, old_row, bytes_of(t));
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_int_equal(skf_dequantize(t, row, is_x, N), SKF_OK);
        assert_true(moved() > 0.003 && moved() < 0.005);
        size_t all = changed(t);
        how.edge = 2.0f;
        memcpy(row, old_row, bytes_of(t));
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_true(changed(t) < all);
    }
}

/* Sampled changes are few and large, and their sum is that of all. */
static void sampling_keeps_sums(void **state)
{
    static const enum skf_type types[] = {SKF_T_F32, SKF_T_BF16, SKF_T_F16, SKF_T_Q8_0};
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        enum skf_type t = types[k];
        struct skf_regrid how = {.step = 0.25f, .seed = 5};
        make(t, 0, 0.02f);
        size_t all = changed(t);
        assert_int_equal(skf_regrid_row(t, old_row, row, new_x, N, 0, &how), SKF_OK);
        assert_int_equal(skf_dequantize(t, row, is_x, N), SKF_OK);
        assert_true(changed(t) < all / 2);
        assert_true(moved() > 0.012 && moved() < 0.028);
    }
}

static void floats_are_rounded(void **state)
{
    struct skf_regrid how = {.round = 0.5f};
    (void)state;
    make(SKF_T_F32, 0.3f, 0);
    assert_int_equal(skf_regrid_row(SKF_T_F32, old_row, row, new_x, N, 0, &how), SKF_OK);
    assert_int_equal(skf_dequantize(SKF_T_F32, row, is_x, N), SKF_OK);
    for (size_t i = 0; i < N; i++) {
        float steps = (is_x[i] - old_x[i]) * 2.0f;
        assert_true(is_x[i] - new_x[i] < 0.2501f && new_x[i] - is_x[i] < 0.2501f);
        assert_true(steps - (float)(int)(steps + (steps < 0 ? -0.5f : 0.5f)) < 1e-4f);
    }
    how = (struct skf_regrid){0}; /* as fine as the type: the new values */
    assert_int_equal(skf_quantize(SKF_T_F32, new_x, row, N), SKF_OK);
    assert_int_equal(skf_regrid_row(SKF_T_F32, old_row, row, new_x, N, 0, &how), SKF_OK);
    assert_memory_equal(row, new_x, sizeof new_x);
}

/* What a file may hold: scales that are no numbers, values that are none. Nothing is read or written beside the row. */
static void odd_values(void **state)
{
    struct skf_regrid how = {.step = 0.1f, .keep = 0.1f, .edge = 0.5f, .seed = 1};
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(grids); k++) {
        uint32_t block = block_of(grids[k]);
        for (unsigned drifted = 0; drifted < 2; drifted++) {
            how.is_drifted = drifted;
            make(grids[k], 0.1f, 0);
            uint8_t *scale = old_row + scale_at(grids[k]);
            skf_put_le16(scale, 0x7e00);             /* not a number */
            skf_put_le16(scale + block, 0x7c00);     /* infinite */
            skf_put_le16(scale + 2 * block, 0);      /* one point */
            skf_put_le16(scale + 3 * block, 0x0001); /* values are far outside */
            new_x[N - 200] = __builtin_inff();
            new_x[N - 300] = __builtin_nanf("");
            memcpy(again, row, block);
            row[bytes_of(grids[k])] = 0x5a;
            assert_int_equal(skf_regrid_row(grids[k], old_row, row, new_x, N, 0, &how), SKF_OK);
            assert_memory_equal(row, again, block);
            assert_int_equal(row[bytes_of(grids[k])], 0x5a);
        }
        assert_int_equal(skf_regrid_row(grids[k], old_row, row, new_x, 33, 0, &how), SKF_ERR_ARG);
    }
    assert_int_equal(skf_regrid_row(SKF_T_Q2_K, old_row, row, new_x, 256, 0, &how), SKF_ERR_UNSUPPORTED);
    make(SKF_T_BF16, 0.1f, 0);
    skf_put_le16(old_row, 0x7fc0);
    skf_put_le16(old_row + 2, 0x7f80);
    new_x[2] = __builtin_inff();
    assert_int_equal(skf_regrid_row(SKF_T_BF16, old_row, row, new_x, N, 0, &how), SKF_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_is_kept),      cmocka_unit_test(same_values_change_nothing), cmocka_unit_test(block_is_refitted),
        cmocka_unit_test(drift_is_kept),     cmocka_unit_test(sampling_keeps_sums),        cmocka_unit_test(floats_are_rounded),
        cmocka_unit_test(odd_values),    cmocka_unit_test(drift_is_carried),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
