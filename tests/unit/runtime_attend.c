/*
 * Attention of a batch: whatever is computed together, on any number of threads, shared out by spans or not, within a window or not, comes to the
 * bits of one row alone on one thread.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "runtime/attend_priv.h"
#include "runtime/graph_priv.h"

enum { HEADS = 6, KV_HEADS = 2, HEAD = 64, POSITIONS = 2300, ROWS = 90, WIDTH = HEADS * HEAD };

static uint64_t seed = 3;
static float uniform(void) /* splitmix64 */
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)(uint32_t)((z ^ z >> 31) >> 32) / 2147483648.0f - 1.0f;
}

struct made {
    struct skf_llama_layer layer;
    struct skf_llama l;
    struct skf_pages *pages;
    struct skf_kv kv[2];
    float q[ROWS * WIDTH];
};
static void make(struct made *x, enum skf_kv_type type, uint32_t window)
{
    float k[HEAD], v[HEAD];
    *x = (struct made){.layer = {.window = window}};
    x->l = (struct skf_llama){.n_layers = 1, .n_head = HEADS, .n_kv = KV_HEADS, .head_dim = HEAD, .attn_scale = 0.125f, .layers = &x->layer};
    assert_int_equal(skf_pages_open(&x->l, POSITIONS, 1, type, &x->pages, NULL), SKF_OK);
    for (size_t s = 0; s < 2; s++) {
        assert_int_equal(skf_kv_private(x->pages, &x->kv[s], NULL), SKF_OK);
        for (uint32_t t = 0; t < POSITIONS; t++) {
            assert_int_equal(skf_kv_place(&x->kv[s], t, 0, NULL), SKF_OK);
            for (uint32_t h = 0; h < KV_HEADS; h++) {
                for (uint32_t i = 0; i < HEAD; i++) {
                    k[i] = 4 * uniform();
                    v[i] = uniform();
                }
                skf_kv_put(skf_ops_get(SKF_ISA_REF), type, x->kv[s].data[t / SKF_KV_PAGE] + skf_kv_at(x->pages, 0, h), t % SKF_KV_PAGE, HEAD, k, v);
            }
        }
    }
    for (size_t i = 0; i < SKF_COUNT(x->q); i++)
        x->q[i] = uniform();
}

static void run(struct made *x, const struct skf_ops *ops, unsigned threads, const struct skf_item *items, uint32_t m, const float *q, float *out)
{
    struct skf_pool *pool = NULL;
    struct skf_attend *a = NULL;
    assert_int_equal(skf_pool_open(threads, &pool, NULL), SKF_OK);
    assert_int_equal(skf_attend_open(&x->l, ops, pool, ROWS, POSITIONS, &a, NULL), SKF_OK);
    skf_attend(a, items, m, 0, q, out);
    skf_attend_close(a);
    skf_pool_close(pool);
}

static void test_company_and_threads(void **state)
{
    static struct made x;
    static float alone[ROWS * WIDTH], out[ROWS * WIDTH];
    enum skf_isa isa;
    assert_int_equal(skf_isa_pick(&isa, NULL), SKF_OK);
    const struct skf_ops *ops = skf_ops_get(isa);
    for (int way = 0; way < 4; way++) {
        struct skf_item items[ROWS];
        make(&x, way & 1 ? SKF_KV_Q8_0 : SKF_KV_F16, way & 2 ? 700 : 0);
        for (uint32_t t = 0; t < ROWS; t++) /* three that decode, far on; a prompt in one piece over the border of a span; another's, from its beginning */
            items[t] = t < 3 ? (struct skf_item){.pos = POSITIONS - 1 - 300 * t, .kv = &x.kv[t % 2]}
                             : (struct skf_item){.pos = t < 50 ? 480 + t : t - 50, .kv = &x.kv[t < 50]};
        for (uint32_t t = 0; t < ROWS; t++)
            run(&x, skf_ops_get(t % 9 ? isa : SKF_ISA_REF), 1, &items[t], 1, x.q + t * WIDTH, alone + t * WIDTH);
        for (uint32_t t = 0; t < ROWS * WIDTH; t++)
            assert_true(isfinite(alone[t]));
        for (unsigned threads = 1; threads <= 5; threads += 2) {
            static const uint32_t cuts[][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 1}, {0, ROWS}, {3, 47}, {2, 60}, {50, 40}};
            for (size_t c = 0; c < SKF_COUNT(cuts); c++) {
                uint32_t from = cuts[c][0], n = cuts[c][1];
                memset(out, 0, sizeof out);
                run(&x, ops, threads, items + from, n, x.q + from * WIDTH, out);
                assert_memory_equal(out, alone + from * WIDTH, n * WIDTH * sizeof *out);
            }
        }
        for (size_t s = 0; s < 2; s++)
            skf_kv_end(&x.kv[s], 0);
        skf_pages_close(x.pages);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_company_and_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
