/*
 * model/refit.c: blocks of every type come apart and together again; the error that is told is the error of the bytes; nothing changes
 * where nothing pays, and with a free hand no single code's change is left that would help; vectors give the plain loops' bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/refit_block_priv.h"
#include "model/refit_priv.h"

enum { N = 128, ROWS = 3, BYTES_MAX = 34 * N / 32 };
static const enum skf_type types[] = {SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1};

static uint32_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}
static float noise(uint64_t *seed) { return (float)next(seed) / 1073741824.0f - 1.0f; }

struct problem {
    float h[N * N], want[ROWS * N];
    uint8_t rows[ROWS * BYTES_MAX];
    uint64_t row_bytes;
};
/* Inputs that hang together, rows of type t, and wanted rows near them. */
static void make(struct problem *p, enum skf_type t, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    for (int s = 0; s < N / 2; s++) {
        float x[N];
        for (int i = 0; i < N; i++)
            x[i] = noise(&seed) + (i ? 0.7f * x[i - 1] : 0);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                p->h[i * N + j] += x[i] * x[j];
    }
    for (int i = 0; i < N; i++)
        p->h[i * N + i] += 1;
    p->row_bytes = skf_type_info(t)->block_bytes * (N / 32);
    for (int r = 0; r < ROWS; r++) {
        float x[N];
        for (int i = 0; i < N; i++)
            x[i] = noise(&seed);
        assert_int_equal(skf_quantize(t, x, p->rows + r * p->row_bytes, N), SKF_OK);
        assert_int_equal(skf_dequantize(t, p->rows + r * p->row_bytes, x, N), SKF_OK);
        for (int i = 0; i < N; i++)
            p->want[r * N + i] = x[i] + 0.05f * noise(&seed);
    }
}

static double error_of(const struct problem *p, enum skf_type t, const uint8_t *row, const float *want)
{
    float x[N];
    double sum = 0;
    assert_int_equal(skf_dequantize(t, row, x, N), SKF_OK);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            sum += ((double)x[i] - want[i]) * (double)p->h[i * N + j] * ((double)x[j] - want[j]);
    return sum;
}

static struct skf_refit how(const struct problem *p, enum skf_type t, float price)
{
    return (struct skf_refit){.type = t, .columns = N, .inputs = p->h, .price = price, .code_bits = 9, .scale_bits = 9, .reach = 1};
}

static void fit(struct problem *p, const struct skf_refit *f, struct skf_refit_result *r)
{
    struct skf_refit_work *w = NULL;
    assert_int_equal(skf_refit_work_new(N, &w), SKF_OK);
    assert_int_equal(skf_refit_rows(f, w, p->rows, p->row_bytes, p->want, ROWS, r), SKF_OK);
    skf_refit_work_free(w);
}

static void test_blocks(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct problem p;
        const struct refit_kind kind = refit_kind_of(types[k]);
        make(&p, types[k], k);
        for (uint64_t at = 0; at < ROWS * p.row_bytes; at += kind.bytes) {
            struct refit_scales s;
            int16_t code[32];
            uint8_t again[34] = {0};
            float x[32];
            refit_unpack(types[k], p.rows + at, &s, code);
            assert_int_equal(skf_dequantize(types[k], p.rows + at, x, 32), SKF_OK);
            for (int i = 0; i < 32; i++) {
                assert_true(code[i] >= kind.lowest && code[i] <= kind.highest);
                assert_true(fabsf(x[i] - (skf_f16_to_f32(s.d) * (float)code[i] + skf_f16_to_f32(s.m))) < 1e-5f);
            }
            refit_pack(types[k], &s, code, again);
            assert_memory_equal(again, p.rows + at, kind.bytes);
        }
    }
}

static void test_errors_are_those_of_the_bytes(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct problem p, old;
        struct skf_refit_result r[ROWS];
        make(&p, types[k], 10 + k);
        old = p;
        const struct skf_refit f = how(&p, types[k], 1e-4f);
        fit(&p, &f, r);
        for (int i = 0; i < ROWS; i++) {
            const uint8_t *row = p.rows + i * p.row_bytes;
            double before = error_of(&p, types[k], old.rows + i * p.row_bytes, p.want + i * N);
            double after = error_of(&p, types[k], row, p.want + i * N);
            assert_true(fabs(r[i].before - before) < 1e-4 * before);
            assert_true(fabs(r[i].after - after) < 1e-3 * before);
            assert_true(after < 0.9 * before);
            assert_true((r[i].codes + r[i].scales > 0) == (memcmp(row, old.rows + i * p.row_bytes, p.row_bytes) != 0));
        }
    }
}

static void test_nothing_pays(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct problem p, old;
        struct skf_refit_result r[ROWS];
        make(&p, types[k], 20 + k);
        old = p;
        const struct skf_refit f = how(&p, types[k], 1e20f);
        fit(&p, &f, r);
        assert_memory_equal(p.rows, old.rows, sizeof p.rows);
        assert_true(r[0].codes == 0 && r[0].scales == 0);
        assert_true(fabs(r[0].after - r[0].before) <= 0);
    }
}

/* Of codes alone: what fits is as good as single changes make it, and scales are as they were. */
static void test_no_better_neighbour(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct problem p, old;
        struct skf_refit_result r[ROWS];
        const struct refit_kind kind = refit_kind_of(types[k]);
        make(&p, types[k], 30 + k);
        old = p;
        struct skf_refit f = how(&p, types[k], 0);
        f.is_scale_fixed = true;
        fit(&p, &f, r);
        double at = error_of(&p, types[k], p.rows, p.want);
        for (unsigned i = 0; i < N; i++)
            for (int by = -1; by <= 1; by += 2) {
                struct refit_scales s, was;
                int16_t code[32], none[32];
                uint8_t row[BYTES_MAX];
                memcpy(row, p.rows, p.row_bytes);
                uint8_t *block = row + i / 32 * kind.bytes;
                refit_unpack(types[k], old.rows + i / 32 * kind.bytes, &was, none);
                refit_unpack(types[k], block, &s, code);
                assert_true(s.d == was.d && s.m == was.m);
                code[i % 32] = (int16_t)(code[i % 32] + by);
                if (code[i % 32] < kind.lowest || code[i % 32] > kind.highest)
                    continue;
                refit_pack(types[k], &s, code, block);
                assert_true(error_of(&p, types[k], row, p.want) > at - 1e-5 * r[0].before);
            }
    }
}

/* How much of the way from `old` to what is wanted a row has gone, as the inputs see it. */
static double way(const struct problem *p, const struct problem *old, enum skf_type t, int r)
{
    float is[N], was[N];
    double done = 0, all = 0;
    assert_int_equal(skf_dequantize(t, p->rows + r * p->row_bytes, is, N), SKF_OK);
    assert_int_equal(skf_dequantize(t, old->rows + r * p->row_bytes, was, N), SKF_OK);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double to = ((double)p->want[r * N + j] - was[j]) * (double)p->h[i * N + j];
            done += ((double)is[i] - was[i]) * to;
            all += ((double)p->want[r * N + i] - was[i]) * to;
        }
    return done / all;
}

static void test_reach(void **state)
{
    (void)state;
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        struct problem old, near, far;
        struct skf_refit_result a[ROWS], b[ROWS];
        double before = 0, after = 0;
        make(&old, types[k], 50 + k);
        near = far = old;
        struct skf_refit f = how(&old, types[k], 2e-3f);
        fit(&near, &f, a);
        f.reach = 2;
        fit(&far, &f, b);
        for (int r = 0; r < ROWS; r++) {
            before += way(&near, &old, types[k], r);
            after += way(&far, &old, types[k], r);
            assert_true(fabs(b[r].saved - (a[r].before - a[r].after)) < 1e-3 * a[r].before);
            assert_true(fabs(error_of(&far, types[k], far.rows + r * far.row_bytes, far.want + r * N) - b[r].after) < 2e-3 * b[r].before);
        }
        assert_true(after > before && after < 1.5 * ROWS);
    }
}

static void test_refusals(void **state)
{
    struct problem p;
    struct skf_refit_work *w = NULL;
    struct skf_refit_result r[ROWS];
    (void)state;
    make(&p, SKF_T_Q4_1, 40);
    assert_int_equal(skf_refit_work_new(33, &w), SKF_ERR_ARG);
    assert_int_equal(skf_refit_work_new(SKF_REFIT_COLUMNS + 32, &w), SKF_ERR_ARG);
    assert_int_equal(skf_refit_work_new(N, &w), SKF_OK);
    struct skf_refit f = how(&p, SKF_T_Q4_K, 0);
    assert_int_equal(skf_refit_rows(&f, w, p.rows, p.row_bytes, p.want, 1, r), SKF_ERR_UNSUPPORTED);
    f.type = SKF_T_Q4_1;
    assert_int_equal(skf_refit_rows(&f, w, p.rows, p.row_bytes, p.want, SKF_REFIT_ROWS + 1, r), SKF_ERR_ARG);
    p.want[7] = NAN;
    assert_int_equal(skf_refit_rows(&f, w, p.rows, p.row_bytes, p.want, 1, r), SKF_ERR_FORMAT);
    p.want[7] = 0;
    p.rows[1] = 0x7c; /* an infinite scale */
    assert_int_equal(skf_refit_rows(&f, w, p.rows, p.row_bytes, p.want, 1, r), SKF_ERR_FORMAT);
    skf_refit_work_free(w);
}

static void test_vectors(void **state)
{
    const struct skf_refit_loops *a = skf_refit_loops_ref(), *b = skf_refit_loops_pick();
    static float x[5][N + 7], y[5][N + 7], ha[9 * 9], hb[9 * 9];
    uint64_t seed = 1;
    (void)state;
    for (uint32_t n = 1; n <= N + 7; n += 5) {
        float f[4], *gx[4], *gy[4];
        for (int k = 0; k < 5; k++)
            for (uint32_t i = 0; i < n; i++)
                x[k][i] = y[k][i] = noise(&seed);
        for (int k = 0; k < 4; k++) {
            f[k] = noise(&seed);
            gx[k] = x[k];
            gy[k] = y[k];
        }
        a->spread(gx, x[4], f, n);
        b->spread(gy, y[4], f, n);
        a->add(x[0], x[1], f[2], n);
        b->add(y[0], y[1], f[2], n);
        a->score(x[4], x[0], x[1], x[2], n);
        b->score(y[4], y[0], y[1], y[2], n);
        assert_memory_equal(x, y, sizeof x);
    }
    a->product(ha, x[0], 11, 9, 0, 9);
    b->product(hb, x[0], 11, 9, 0, 4);
    b->product(hb, x[0], 11, 9, 4, 9);
    assert_memory_equal(ha, hb, sizeof ha);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_errors_are_those_of_the_bytes),
        cmocka_unit_test(test_nothing_pays),   cmocka_unit_test(test_no_better_neighbour),
        cmocka_unit_test(test_reach),          cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
