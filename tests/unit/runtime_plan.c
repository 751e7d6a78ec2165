/*
 * runtime/: the plan of the forward pass.  Buffers that live together lie apart, whatever the model's sizes; running allocates nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/engine_priv.h"
#include "runtime/plan_priv.h"
#include "tests/unit/runtime_tiny.h"

static void check_plan(const struct skf_plan *p)
{
    uint64_t end = 0, sum = 0;
    for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++) {
        const struct skf_plan_buf *a = &p->buf[i];
        assert_true(a->bytes > 0 && a->at % 64 == 0 && a->bytes % 64 == 0);
        end = SKF_MAX(end, a->at + a->bytes);
        sum += a->bytes;
        for (uint32_t k = 0; k < i; k++) {
            const struct skf_plan_buf *b = &p->buf[k];
            assert_true(!(a->live & b->live) || a->at + a->bytes <= b->at || b->at + b->bytes <= a->at);
        }
    }
    assert_true(p->bytes == end && p->bytes_apart == sum && end < sum);
    for (uint32_t o = 0; o < p->n_ops; o++) /* what an operator takes or makes is there */
        for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++)
            assert_true(!((p->ops[o].reads | p->ops[o].writes) >> i & 1) || p->buf[i].live >> o & 1);
}

static void test_buffers_that_live_together_lie_apart(void **state)
{
    static const struct skf_llama sizes[] = {
        {.n_embd = 576, .n_head = 9, .n_kv = 3, .head_dim = 64, .n_ff = 1536}, {.n_embd = 640, .n_head = 4, .n_kv = 1, .head_dim = 256, .n_ff = 2048},
        {.n_embd = 1, .n_head = 1, .n_kv = 1, .head_dim = 1, .n_ff = 1},       {.n_embd = 64, .n_head = 64, .n_kv = 64, .head_dim = 128, .n_ff = 32},
        {.n_embd = 8192, .n_head = 1, .n_kv = 1, .head_dim = 2, .n_ff = 33},
    };
    static const uint32_t tokens[] = {1, 2, 68, 65536};
    struct skf_plan p;
    for (size_t i = 0; i < SKF_COUNT(sizes); i++)
        for (size_t k = 0; k < SKF_COUNT(tokens); k++) {
            assert_int_equal(skf_plan_make(&sizes[i], tokens[k], &p, NULL), SKF_OK);
            check_plan(&p);
        }
    const struct skf_llama most = {.n_embd = UINT32_MAX, .n_head = UINT32_MAX, .n_kv = 1, .head_dim = UINT32_MAX, .n_ff = UINT32_MAX};
    assert_int_equal(skf_plan_make(&most, UINT32_MAX, &p, NULL), SKF_ERR_LIMIT);
}

static void test_plan_of_a_model(void **state)
{
    char path[256];
    struct skf_model *m = NULL;
    struct skf_plan p;
    assert_int_equal(tiny_write(tiny_path(path, "plan"), &(struct tiny){.type = SKF_T_Q8_0}), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
    (void)unlink(path);
    assert_int_equal(skf_plan_of_model(m, 3, &p, NULL), SKF_OK);
    check_plan(&p);
    assert_int_equal(p.tokens, 3);
    assert_int_equal(p.layers, TINY_LAYERS);
    assert_int_equal(p.buf[SKF_PLAN_X].bytes, (3 * TINY_EMBD * 4 + 63) / 64 * 64);
    for (unsigned long n = 1; n < 4; n++) { /* and no memory is no crash */
        skf_alloc_fail_at(n);
        assert_int_equal(skf_plan_of_model(m, 3, &p, NULL), SKF_ERR_NOMEM);
    }
    skf_alloc_fail_at(0);
    skf_model_close(m);
}

static void test_decoding_allocates_nothing(void **state)
{
    enum { STEPS = 100 };
    for (unsigned threads = 1; threads <= 2; threads++) {
        char path[256];
        struct skf_model *m = NULL;
        struct skf_engine *e = NULL;
        struct skf_kv kv = {0};
        assert_int_equal(tiny_write(tiny_path(path, "plan"), &(struct tiny){.type = SKF_T_Q4_0}), SKF_OK);
        assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
        (void)unlink(path);
        assert_int_equal(skf_engine_open(m, &(struct skf_engine_opts){.threads = threads, .slots = 1}, &e, NULL), SKF_OK);
        assert_int_equal(skf_kv_private(e->pages, &kv, NULL), SKF_OK);
        for (uint32_t i = 0; i < STEPS; i++) /* pages of keys and values are taken as positions come to be: here all of them first */
            assert_int_equal(skf_kv_place(&kv, i, (int32_t)i, NULL), SKF_OK);
        skf_alloc_fail_at(0);
        for (uint32_t i = 0; i < STEPS; i++) {
            const struct skf_item item = {(int32_t)i, i, &kv, NULL};
            assert_int_equal(skf_graph_run(e->graph, &item, 1, &(uint32_t){0}, 1, e->logits, NULL), SKF_OK);
        }
        assert_int_equal(skf_alloc_count(), 0);
        skf_kv_end(&kv, 0);
        skf_engine_close(e);
        skf_model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_that_live_together_lie_apart),
        cmocka_unit_test(test_plan_of_a_model),
        cmocka_unit_test(test_decoding_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
