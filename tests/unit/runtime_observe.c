/*
 * runtime/observe.c: every tensor of a product is told of, in the graph's order, whole windows in portions; the first input is the
 * normed embedding; the same bits from every thread count and instruction set.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/engine.h"
#include "tests/unit/runtime_tiny.h"

enum { WINDOW = 100 };

struct seen {
    char names[8192];
    size_t len, rows, calls; /* rows: of the first tensor */
    float first[TINY_EMBD];
    uint64_t sum; /* of all bits, in order */
};
static void see(void *ctx, const char *tensor, const float *x, size_t rows, size_t columns)
{
    struct seen *s = ctx;
    if (s->calls++ == 0)
        memcpy(s->first, x, sizeof s->first);
    if (strcmp(tensor, "blk.0.attn_q.weight") == 0)
        s->rows += rows;
    if (s->rows <= 64) /* the first portion */
        s->len += (size_t)snprintf(s->names + s->len, sizeof s->names - s->len, "%s ", tensor);
    for (size_t i = 0; i < rows * columns; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        s->sum = (s->sum ^ bits) * 0x100000001b3u;
    }
}

static void observe(unsigned threads, const char *isa, struct seen *s)
{
    char path[256];
    struct skf_why why = {{0}};
    struct skf_model *m = NULL;
    struct skf_engine *e = NULL;
    int32_t ids[WINDOW];
    memset(s, 0, sizeof *s);
    for (int i = 0; i < WINDOW; i++)
        ids[i] = (i * 7 + 3) % TINY_BYTES;
    assert_int_equal(tiny_write(tiny_path(path, "observe"), &(struct tiny){.type = SKF_T_Q4_1}), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, &why), SKF_OK);
    (void)unlink(path);
    assert_int_equal(isa ? setenv("SKF_CPU", isa, 1) : 0, 0);
    assert_int_equal(skf_engine_open(m, &(struct skf_engine_opts){.threads = threads}, &e, &why), SKF_OK);
    (void)unsetenv("SKF_CPU");
    if (skf_engine_observe(e, ids, WINDOW, see, s, &why) != SKF_OK)
        fail_msg("%s", why.text);
    skf_engine_close(e);
    skf_model_close(m);
}

static void test_names(void **state)
{
    struct seen s;
    (void)state;
    observe(1, NULL, &s);
    assert_int_equal(s.rows, WINDOW);
    assert_int_equal(s.calls, 2 * (7 * TINY_LAYERS + 1));
    assert_string_equal(s.names,
                        "blk.0.attn_q.weight blk.0.attn_k.weight blk.0.attn_v.weight blk.0.attn_output.weight "
                        "blk.0.ffn_gate.weight blk.0.ffn_up.weight blk.0.ffn_down.weight "
                        "blk.1.attn_q.weight blk.1.attn_k.weight blk.1.attn_v.weight blk.1.attn_output.weight "
                        "blk.1.ffn_gate.weight blk.1.ffn_up.weight blk.1.ffn_down.weight token_embd.weight ");
    double square = 0;
    for (size_t i = 0; i < TINY_EMBD; i++)
        square += (double)s.first[i] * (double)s.first[i];
    assert_true(fabs(square / TINY_EMBD - 1) < 0.01); /* normed; the norm's weights are all one */
}

static void test_same_bits(void **state)
{
    struct seen a, b, c;
    (void)state;
    observe(1, NULL, &a);
    observe(2, NULL, &b);
    observe(1, "ref", &c);
    assert_true(a.sum == b.sum);
    assert_true(a.sum == c.sum);
}

static void nothing(void *ctx, const char *tensor, const float *x, size_t rows, size_t columns) {}

static void test_limits(void **state)
{
    char path[256];
    struct skf_why why = {{0}};
    struct skf_model *m = NULL;
    struct skf_engine *e = NULL;
    int32_t ids[9] = {0};
    double p[8];
    (void)state;
    assert_int_equal(tiny_write(tiny_path(path, "limits"), &(struct tiny){.type = SKF_T_Q4_1}), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, &why), SKF_OK);
    (void)unlink(path);
    assert_int_equal(skf_engine_open(m, &(struct skf_engine_opts){.threads = 1, .context = 8}, &e, &why), SKF_OK);
    assert_int_equal(skf_engine_observe(e, ids, 9, nothing, NULL, &why), SKF_ERR_LIMIT);
    ids[3] = 1 << 30;
    assert_int_equal(skf_engine_observe(e, ids, 8, nothing, NULL, &why), SKF_ERR_ARG);
    ids[3] = 0;
    assert_int_equal(skf_engine_observe(e, ids, 8, nothing, NULL, &why), SKF_OK);
    assert_int_equal(skf_engine_logprobs(e, ids, 8, p, &why), SKF_OK); /* nobody watches any more */
    skf_engine_close(e);
    skf_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_same_bits), cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
