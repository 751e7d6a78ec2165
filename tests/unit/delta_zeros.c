/*
 * What becomes zero: a pruned version of a tensor costs next to nothing whether one bound, one for each row or a rank in each few says what
 * goes, in every type that has one; what the rule gets wrong comes out all the same; what no encoder writes is refused without harm.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/util.h"
#include "delta/blocks_priv.h"
#include "delta/zeros_priv.h"
#include "model/quant_priv.h"

static uint64_t state = 88172645463325252u;
static uint64_t next(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static float normal(void) /* about */
{
    float s = 0;
    for (unsigned i = 0; i < 6; i++)
        s += (float)(next() >> 40) / (float)(1 << 24);
    return s - 3;
}

#define ROWS    40u
#define COLUMNS 512u
#define ALL     (ROWS * COLUMNS)

enum rule { CHUNK, BY_ROW, TWO_OF_FOUR, THREE_OF_EIGHT, RULES };

static float bound_of(enum rule rule, uint32_t row) { return rule == CHUNK ? 0.5f : 0.3f + 0.02f * (float)row; }

/* Prunes x by a rule, as torch (0 times a number: -0 of what is negative) or as skiff does. */
static void prune(enum rule rule, bool keeps_sign, float *x)
{
    const unsigned of = rule == TWO_OF_FOUR ? 4 : 8, keep = rule == TWO_OF_FOUR ? 2 : 3;
    for (uint32_t i = 0; i < ALL && rule <= BY_ROW; i++)
        if (fabsf(x[i]) <= bound_of(rule, i / COLUMNS))
            x[i] = keeps_sign ? x[i] * 0 : 0;
    for (uint32_t i = 0; i < ALL && rule > BY_ROW; i += of) {
        unsigned dropped = 0;
        for (unsigned drop = 0; drop < of - keep; drop++) {
            unsigned least = of;
            for (unsigned k = 0; k < of; k++)
                if (!(dropped >> k & 1) && (least == of || fabsf(x[i + k]) <= fabsf(x[i + least])))
                    least = k;
            dropped |= 1u << least;
            x[i + least] = keeps_sign ? x[i + least] * 0 : 0;
        }
    }
}

struct pair {
    uint8_t *old, *neu, *made;
    size_t row, n;
};
static struct pair pair_of(enum skf_type t, const float *was, const float *is)
{
    const struct skf_type_info *info = skf_type_info((uint32_t)t);
    struct pair p = {.row = COLUMNS / info->block * info->block_bytes};
    p.n = ROWS * p.row;
    p.old = skf_alloc(p.n);
    p.neu = skf_alloc(p.n);
    p.made = skf_alloc(p.n);
    assert_true(p.old && p.neu && p.made);
    assert_int_equal(skf_quantize(t, was, p.old, ALL), SKF_OK);
    assert_int_equal(skf_quantize(t, is, p.neu, ALL), SKF_OK);
    return p;
}
static void free_pair(struct pair *p)
{
    skf_free(p->old);
    skf_free(p->neu);
    skf_free(p->made);
}

/* The payload's length; every instruction set makes the same of it. */
static size_t there_and_back(enum skf_type t, const struct pair *p, struct skf_buf *out)
{
    struct skf_work w;
    struct skf_buf again = SKF_BUF_INIT(1 << 20);
    assert_int_equal(skf_work_init(&w), SKF_OK);
    assert_int_equal(skf_int_put(&w, t, p->row, NULL, 0, p->old, p->neu, p->n, out), SKF_OK);
    assert_int_equal(skf_int_get(&w, t, p->row, NULL, 0, out->data, out->len, p->old, p->made, p->n), SKF_OK);
    assert_memory_equal(p->made, p->neu, p->n);
    w.isa = SKF_ISA_REF;
    memset(p->made, 0xa5, p->n);
    assert_int_equal(skf_int_get(&w, t, p->row, NULL, 0, out->data, out->len, p->old, p->made, p->n), SKF_OK);
    assert_memory_equal(p->made, p->neu, p->n);
    assert_int_equal(skf_int_put(&w, t, p->row, NULL, 0, p->old, p->neu, p->n, &again), SKF_OK);
    assert_int_equal(again.len, out->len);
    assert_memory_equal(again.data, out->data, out->len);
    skf_buf_free(&again);
    skf_work_free(&w);
    return out->len;
}

static void values(float *was, float *is, enum rule rule, bool keeps_sign, float noise)
{
    for (uint32_t i = 0; i < ALL; i++) {
        was[i] = normal();
        is[i] = was[i] + noise * normal();
    }
    for (uint32_t i = 0; i < 64; i++) /* some are zero before */
        was[i * 67] = is[i * 67] = keeps_sign && i % 2 ? -0.0f : 0.0f;
    prune(rule, keeps_sign, is);
}

static void test_floats(void **unused)
{
    static const enum skf_type types[] = {SKF_T_BF16, SKF_T_F16, SKF_T_F32};
    float *was = skf_alloc(ALL * sizeof *was), *is = skf_alloc(ALL * sizeof *is);
    assert_true(was && is);
    for (unsigned k = 0; k < SKF_COUNT(types) * RULES * 2; k++) {
        const enum skf_type t = types[k / 2 / RULES];
        const enum rule rule = (enum rule)(k / 2 % RULES);
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        values(was, is, rule, k % 2, 0);
        if (t == SKF_T_BF16) { /* what is pruned are its own numbers */
            for (uint32_t i = 0; i < ALL; i++)
                was[i] = is[i] = skf_bf16_to_f32(skf_f32_to_bf16(was[i]));
            prune(rule, k % 2, is);
        } else if (t == SKF_T_F16) {
            for (uint32_t i = 0; i < ALL; i++)
                was[i] = is[i] = skf_f16_to_f32(skf_f32_to_f16(was[i]));
            prune(rule, k % 2, is);
        }
        struct pair p = pair_of(t, was, is);
        assert_in_range(there_and_back(t, &p, &out), 5, rule == BY_ROW ? 400 : 240);
        skf_buf_free(&out);
        free_pair(&p);
        /* Trained further before it was pruned. */
        out = (struct skf_buf)SKF_BUF_INIT(1 << 20);
        values(was, is, rule, k % 2, 0.01f);
        p = pair_of(t, was, is);
        assert_in_range(there_and_back(t, &p, &out), 1000, ALL * (t == SKF_T_F32 ? 4 : 2));
        skf_buf_free(&out);
        free_pair(&p);
    }
    skf_free(was);
    skf_free(is);
}

static void test_blocks(void **unused)
{
    static const enum skf_type types[] = {SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1, SKF_T_Q5_0, SKF_T_Q5_1, SKF_T_Q4_K, SKF_T_Q5_K, SKF_T_Q6_K};
    float *was = skf_alloc(ALL * sizeof *was), *is = skf_alloc(ALL * sizeof *is);
    assert_true(was && is);
    for (unsigned k = 0; k < SKF_COUNT(types) * RULES; k++) {
        const enum skf_type t = types[k / RULES];
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        values(was, is, (enum rule)(k % RULES), false, k / RULES % 2 ? 0.002f : 0);
        struct pair p = pair_of(t, was, is);
        size_t n = there_and_back(t, &p, &out);
        if (t == SKF_T_Q8_0) { /* every scale stays: under an eighth of a bit a number, 2 of 4 with ties; what it takes otherwise is 4 bits */
            assert_int_equal(out.data[0], SKF_ZEROS);
            assert_in_range(n, 20, ALL / 8 / (k % RULES == CHUNK ? 6 : 2));
        }
        skf_buf_free(&out);
        free_pair(&p);
    }
    skf_free(was);
    skf_free(is);
}

/* Grids that have zero on them: their minima follow from their scales. */
static void test_zero_on_grid(void **unused)
{
    float *was = skf_alloc(ALL * sizeof *was), *is = skf_alloc(ALL * sizeof *is);
    assert_true(was && is);
    values(was, is, CHUNK, false, 0);
    struct pair p = pair_of(SKF_T_Q4_1, was, is);
    size_t n[2];
    for (unsigned k = 0; k < 2; k++) {
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        for (uint32_t i = 0; k && i < ALL / 32; i++)
            skf_sparse_q4_1(is + 32 * (size_t)i, p.neu + 20 * (size_t)i);
        n[k] = there_and_back(SKF_T_Q4_1, &p, &out);
        assert_int_equal(out.data[0], SKF_ZEROS);
        assert_int_equal(out.data[1], k ? 9 : 1);
        skf_buf_free(&out);
    }
    assert_in_range(n[1], ALL / 8 / 4, ALL / 8);
    free_pair(&p);
    skf_free(was);
    skf_free(is);
}

static void test_hostile(void **unused)
{
    static const enum skf_type types[] = {SKF_T_BF16, SKF_T_F32, SKF_T_Q8_0, SKF_T_Q4_1, SKF_T_Q6_K};
    float *was = skf_alloc(ALL * sizeof *was), *is = skf_alloc(ALL * sizeof *is);
    struct skf_work w;
    assert_true(was && is);
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (unsigned k = 0; k < SKF_COUNT(types) * RULES; k++) {
        const enum skf_type t = types[k / RULES];
        struct skf_buf out = SKF_BUF_INIT(1 << 20);
        values(was, is, (enum rule)(k % RULES), false, 0);
        struct pair p = pair_of(t, was, is);
        (void)there_and_back(t, &p, &out);
        for (size_t i = 0; i < 8 * SKF_MIN(out.len, 60); i++) {
            out.data[i / 8] ^= (uint8_t)(1 << i % 8);
            enum skf_err e = skf_int_get(&w, t, p.row, NULL, 0, out.data, out.len, p.old, p.made, p.n);
            assert_true(e == SKF_OK || e == SKF_ERR_FORMAT);
            out.data[i / 8] ^= (uint8_t)(1 << i % 8);
        }
        for (size_t n = 0; n < SKF_MIN(out.len, 30); n++)
            assert_int_equal(skf_int_get(&w, t, p.row, NULL, 0, out.data, n, p.old, p.made, p.n), SKF_ERR_FORMAT);
        skf_buf_free(&out);
        free_pair(&p);
    }
    skf_work_free(&w);
    skf_free(was);
    skf_free(is);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_zero_on_grid),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
