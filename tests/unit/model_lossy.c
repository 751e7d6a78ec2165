/* Ways of sending less of a change (model/lossy.h), each against what it promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/lossy.h"

enum { ROWS = 48, N = 96, RANK = 2 };
static float old_x[ROWS][N], new_x[ROWS][N], is_x[N], scratch[N];

static float draw(uint64_t seed, uint64_t i) { return 2.0f * skf_regrid_draw(seed, i) - 1.0f; }

/* Changes of two factors and some noise. */
static void make(float noise)
{
    for (uint64_t i = 0; i < ROWS; i++) {
        for (uint64_t j = 0; j < N; j++) {
            old_x[i][j] = draw(1, i * N + j);
            new_x[i][j] = old_x[i][j] + draw(2, i) * draw(3, j) + 0.5f * draw(4, i) * draw(5, j) + noise * draw(6, i * N + j);
        }
    }
}

static void one_row(uint64_t i, const struct skf_lossy *how)
{
    memcpy(is_x, new_x[i], sizeof is_x);
    assert_int_equal(skf_lossy_row(SKF_T_F32, (const uint8_t *)old_x[i], (uint8_t *)is_x, new_x[i], N, i * N, how, scratch), SKF_OK);
}

static void ways(void **state)
{
    (void)state;
    make(0.1f);
    one_row(3, &(struct skf_lossy){.way = SKF_LOSSY_ALONE});
    assert_memory_equal(is_x, old_x[3], sizeof is_x);
    one_row(3, &(struct skf_lossy){.way = SKF_LOSSY_REGRID});
    assert_memory_equal(is_x, new_x[3], sizeof is_x);
    one_row(3, &(struct skf_lossy){.way = SKF_LOSSY_SIGN, .size = 0.25f});
    for (unsigned j = 0; j < N; j++)
        assert_true(is_x[j] == old_x[3][j] + (new_x[3][j] > old_x[3][j] ? 0.25f : -0.25f));
    one_row(3, &(struct skf_lossy){.way = SKF_LOSSY_LARGE, .size = 0.3f});
    for (unsigned j = 0; j < N; j++)
        assert_true(is_x[j] == (fabsf(new_x[3][j] - old_x[3][j]) >= 0.3f ? new_x[3][j] : old_x[3][j]));
}

static void statistics(void **state)
{
    static struct skf_lossy_stats s;
    size_t reached = 0;
    (void)state;
    make(0.1f);
    for (size_t i = 0; i < ROWS; i++)
        skf_lossy_add(&s, old_x[i], new_x[i], N);
    assert_int_equal(s.n, ROWS * N);
    float size = skf_lossy_reached(&s, 0.25);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < N; j++)
            reached += fabsf(new_x[i][j] - old_x[i][j]) >= size;
    assert_true(reached > ROWS * N / 8 && reached <= ROWS * N / 4);
    struct skf_lossy_stats *same = calloc(1, sizeof *same);
    assert_non_null(same);
    skf_lossy_add(same, old_x[0], old_x[0], N); /* nothing moved: any size will do, but one there is */
    assert_true(skf_lossy_reached(same, 0.5) >= 0);
    new_x[0][0] = INFINITY;
    new_x[0][1] = NAN;
    skf_lossy_add(same, old_x[0], new_x[0], N);
    assert_int_equal(same->n, 2 * N - 2);
    assert_true(isfinite(same->square) && isfinite(same->size));
    free(same);
}

static enum skf_err change_of(void *ctx, uint64_t i, float *change)
{
    (void)ctx;
    for (unsigned j = 0; j < N; j++)
        change[j] = new_x[i][j] - old_x[i][j];
    return SKF_OK;
}

static void first_factors(void **state)
{
    static float v[RANK * N], next[RANK * N], change[N];
    double left = 0, all = 0;
    (void)state;
    make(0);
    assert_int_equal(skf_lossy_factors(ROWS, N, RANK, change_of, NULL, v, next, change), SKF_OK);
    for (uint64_t i = 0; i < ROWS; i++) {
        one_row(i, &(struct skf_lossy){.way = SKF_LOSSY_FACTORS, .rank = RANK, .factors = v});
        for (unsigned j = 0; j < N; j++) {
            left += pow((double)(is_x[j] - new_x[i][j]), 2);
            all += pow((double)(old_x[i][j] - new_x[i][j]), 2);
        }
    }
    assert_true(all > 1 && left < 1e-6 * all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ways), cmocka_unit_test(statistics), cmocka_unit_test(first_factors)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
