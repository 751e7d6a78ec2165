/*
 * Guessing ahead: what a look-up guesses and how far it carries it; and that an engine which guesses says the same as one that does not, to the
 * bit, greedy and drawn, alone and among others, to the last token of a limit, up to stop strings and when cancelled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "runtime/engine_priv.h"
#include "runtime/speculate_priv.h"
#include "tests/unit/runtime_tiny.h"

/* While a small model guesses badly it is asked seldom; and when it does better, at once. */
static void test_rests_of_a_small_model(void **state)
{
    struct skf_guess g;
    uint32_t asked = 0;
    assert_int_equal(skf_guess_init(&g, (const int32_t[]){1, 2}, 2, NULL, 0, NULL), SKF_OK);
    assert_true(skf_guess_wish(&g, 16, 0.1) > 1);
    for (int i = 0; i < 4000; i++) {
        uint32_t n = skf_guess_wish(&g, 16, 0.3);
        asked += n;
        g.n_next = 0;
        for (uint32_t k = 0; k < n; k++)
            g.next[g.n_next++] = 5;
        skf_guess_set(&g);
        assert_false(is_guess_right(&g, 6));
    }
    assert_true(asked > 5 && asked < 60);
    for (int i = 0; i < 2000 && skf_guess_wish(&g, 16, 0.3) < 8; i++) {
        g.next[0] = 7;
        g.n_next = 1;
        skf_guess_set(&g);
        assert_true(is_guess_right(&g, 7));
    }
    assert_true(skf_guess_wish(&g, 16, 0.3) >= 3);
    skf_guess_free(&g);
}

/* ---- guesses ---------------------------------------------------------------------------------------------------------------------------- */
static void begin(struct skf_guess *g, const int32_t *prompt, uint32_t n, const int32_t *told, uint32_t n_told)
{
    assert_int_equal(skf_guess_init(g, prompt, n, told, n_told, NULL), SKF_OK);
}

static void test_longest_and_latest_match(void **state)
{
    static const int32_t prompt[] = {1, 2, 3, 10, 9, 2, 3, 20, 8, 1, 2, 3, 30, 7, 2, 3, 40, 5, 1, 2, 3};
    struct skf_guess g;
    begin(&g, prompt, SKF_COUNT(prompt), NULL, 0);
    (void)skf_guess_make(&g, 4, 0.1);
    assert_int_equal(g.next[0], 30); /* 1 2 3 came twice: the later; 2 3 came later still, but is shorter */
    assert_int_equal(g.next[1], 7);
    assert_int_equal(g.len, 3);
    skf_guess_free(&g);
    begin(&g, (const int32_t[]){4, 5, 6}, 3, NULL, 0);
    assert_int_equal(skf_guess_make(&g, 16, 0.02), 0);
    assert_int_equal(g.n_next, 0);
    skf_guess_free(&g);
    begin(&g, (const int32_t[]){6, 7, 6, 7, 6, 7}, 6, NULL, 0); /* what turns in a circle goes on in it */
    (void)skf_guess_make(&g, 16, 0.02);
    for (uint32_t i = 0; i < SKF_AHEAD_MOST; i++)
        assert_int_equal(g.next[i], i % 2 ? 7 : 6);
    skf_guess_free(&g);
    begin(&g, (const int32_t[]){5}, 1, NULL, 0);
    assert_int_equal(skf_guess_make(&g, 16, 0.02), 0);
    skf_guess_free(&g);
}

/* What is told is guessed from its beginning, and again from where the answer meets it. */
static void test_what_is_told(void **state)
{
    static const int32_t told[] = {50, 51, 52, 53, 54, 55, 56};
    struct skf_guess g;
    begin(&g, (const int32_t[]){1, 2}, 2, told, SKF_COUNT(told));
    assert_true(skf_guess_make(&g, 4, 0.05) > 0);
    assert_int_equal(g.next[0], 50);
    assert_int_equal(g.n_next, SKF_COUNT(told)); /* not beyond its end */
    assert_true(is_guess_right(&g, 50));
    assert_false(is_guess_right(&g, 99));
    assert_int_equal(g.accepted, 1);
    (void)skf_guess_make(&g, 4, 0.05);
    assert_int_equal(g.n_next, 0);
    assert_false(is_guess_right(&g, 53));
    (void)skf_guess_make(&g, 4, 0.05);
    assert_int_equal(g.next[0], 54);
    skf_guess_free(&g);
}

/* Guesses that come true are carried further; those that never do are soon not computed any more, and are still learnt from. */
static void test_learns_what_is_worth_it(void **state)
{
    int32_t twice[400];
    struct skf_guess g;
    for (int i = 0; i < 400; i++)
        twice[i] = i % 200;
    begin(&g, twice, 210, NULL, 0);
    uint32_t steps = 0;
    for (uint32_t said = 210; said < 400; steps++) {
        uint32_t n = skf_guess_make(&g, 16, 0.1);
        for (uint32_t i = 0; i <= n && said < 400; i++)
            if (!is_guess_right(&g, twice[said++]))
                break;
    }
    assert_true(steps < 30);
    assert_true(g.accepted + 2 * SKF_AHEAD_MOST >= g.drafted);
    skf_guess_free(&g);
    uint64_t seed = 1; /* nothing repeats but by chance, of few kinds so that there is always something to guess */
    begin(&g, twice, 100, NULL, 0);
    for (int i = 0; i < 4000; i++) {
        (void)skf_guess_make(&g, 16, 0.1);
        (void)is_guess_right(&g, (int32_t)(tiny_next(&seed) % 60));
    }
    assert_true(g.drafted < 200); /* at a tenth of a step each: half a per cent of the time */
    skf_guess_free(&g);
}

static void test_cost_from_steps(void **state)
{
    struct skf_ahead a = {0};
    assert_true(skf_ahead_cost(&a, 1) > 0.1 && skf_ahead_cost(&a, 1) < 0.5);
    for (uint32_t i = 0; i < 200; i++) { /* 10 ms and 1 ms a token, and sometimes the machine is away */
        uint32_t m = 1 + i % 9;
        skf_ahead_saw(&a, m, i % 50 == 49 ? 4000000000u : 10000000u + 1000000u * m);
    }
    assert_true(skf_ahead_cost(&a, 1) > 0.04 && skf_ahead_cost(&a, 1) < 0.3);
    assert_true(skf_ahead_cost(&a, 8) > skf_ahead_cost(&a, 1));
    a = (struct skf_ahead){0};
    for (uint32_t i = 0; i < 200; i++)
        skf_ahead_saw(&a, 1 + i % 9, 1000000u * (1 + i % 9)); /* no gain in computing together */
    assert_true(skf_ahead_cost(&a, 1) > 0.9);
}

/* ---- engines that guess and one that does not --------------------------------------------------------------------------------------------- */
struct said {
    int32_t ids[512];
    size_t n, len;
    char text[4096], reason[16];
    struct skf_engine *cancel_in; /* cancels itself after five tokens */
    uint64_t handle;
    struct skf_finish f;
    bool is_done;
};
static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct said *a = ctx;
    assert_true(!a->is_done && a->n < SKF_COUNT(a->ids) && a->len + n < sizeof a->text);
    a->ids[a->n++] = id;
    memcpy(a->text + a->len, text, n);
    a->len += n;
    if (a->cancel_in && a->n == 5)
        skf_engine_cancel(a->cancel_in, a->handle);
}
static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct said *a = ctx;
    a->f = *f;
    a->is_done = true;
    (void)snprintf(a->reason, sizeof a->reason, "%s", f->reason);
}

struct opened {
    struct skf_model *m, *draft;
    struct skf_engine *e;
};
static bool is_cache_q8; /* of the engines that are opened */
static const struct tiny *small; /* that guesses for those that guess; NULL: none */
static struct skf_model *open_model(const struct tiny *t)
{
    char path[256];
    struct skf_model *m = NULL;
    assert_int_equal(tiny_write(tiny_path(path, "speculate"), t), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
    (void)unlink(path);
    return m;
}
static void open_as(struct opened *o, int speculate, unsigned threads, unsigned slots)
{
    struct skf_why why = {{0}};
    *o = (struct opened){.m = open_model(&(struct tiny){.type = SKF_T_Q4_1, .heads = is_cache_q8 ? 2 : 0, .kv = is_cache_q8})};
    if (small && speculate >= 0)
        o->draft = open_model(small);
    const struct skf_engine_opts opts = {.threads = threads, .slots = slots, .speculate = speculate, .is_cache_q8 = is_cache_q8, .draft = o->draft};
    if (skf_engine_open(o->m, &opts, &o->e, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void close_it(struct opened *o)
{
    skf_engine_close(o->e);
    skf_model_close(o->m);
    skf_model_close(o->draft);
}
static void run_all(struct skf_engine *e)
{
    bool is_busy = true;
    while (is_busy)
        assert_int_equal(skf_engine_step(e, &is_busy, NULL), SKF_OK);
}

enum { ASKED = 12 };
/* Prompts that repeat and such that do not; every way to draw; limits from a token to the end of the context. */
static void ask(struct skf_engine *e, int i, const int32_t *told, size_t n_told, struct said *a)
{
    static const float temperatures[] = {0, 0, 0.7f, 1.3f};
    static const char *const stops[] = {"zq", "~"};
    int32_t ids[300];
    int n = 3 + 23 * i;
    uint64_t seed = (uint64_t)i;
    for (int k = 0; k < n; k++)
        ids[k] = (int32_t)(i % 3 == 0 ? tiny_next(&seed) % TINY_BYTES : (unsigned)(k % (2 + 3 * i)) + 40);
    const struct skf_sampling s = {.temperature = temperatures[i % 4], .top_p = i % 5 == 0 ? 0.9f : 1, .top_k = i % 2 ? 20 : 0, .seed = (uint64_t)i,
                                   .repetition_penalty = i % 6 == 5 ? 1.2f : 1, .max_tokens = i == 1 ? 1 : i == 2 ? 2 : i == 11 ? 0 : 40u + (unsigned)i,
                                   .stop = stops, .n_stop = SKF_COUNT(stops), .told = told, .n_told = n_told};
    struct skf_engine *cancel_in = a->cancel_in;
    memset(a, 0, sizeof *a);
    a->cancel_in = cancel_in;
    assert_int_equal(skf_engine_submit(e, ids, (size_t)n, &s, &(struct skf_gen_events){on_token, on_finish}, a, &a->handle, NULL), SKF_OK);
}
static void assert_same(const struct said *a, const struct said *b)
{
    assert_true(a->is_done && b->is_done && b->n > 0);
    assert_string_equal(a->reason, b->reason);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->text, b->text, a->len);
}

static void change_nothing(void)
{
    static struct said plain[ASKED], got[ASKED];
    static const int settings[] = {0, 1, 3, 16};
    struct opened o;
    open_as(&o, -1, 1, 4);
    for (int i = 0; i < ASKED; i++)
        ask(o.e, i, NULL, 0, &plain[i]);
    run_all(o.e);
    for (int i = 0; i < ASKED; i++)
        assert_int_equal(plain[i].f.drafted_tokens, 0);
    close_it(&o);
    for (size_t k = 0; k < SKF_COUNT(settings); k++) {
        unsigned drafted = 0, accepted = 0;
        open_as(&o, settings[k], 1 + (unsigned)k % 2, 3);
        for (int round = 0; round < 3; round++) { /* together; alone; told what comes, rightly, wrongly in part, and with ids that are none */
            for (int i = 0; i < ASKED; i++) {
                int32_t told[512];
                size_t n = round == 2 ? plain[i].n : 0;
                memcpy(told, plain[i].ids, n * sizeof *told);
                if (i % 3 == 1 && n > 8)
                    told[n / 2] ^= 1;
                if (i % 3 == 2 && n > 8)
                    told[n / 2] = i % 2 ? -1 : 1 << 30;
                ask(o.e, i, told, n, &got[i]);
                if (round == 1)
                    run_all(o.e);
            }
            run_all(o.e);
            for (int i = 0; i < ASKED; i++) {
                assert_same(&plain[i], &got[i]);
                assert_true(got[i].f.accepted_tokens <= got[i].f.drafted_tokens);
                assert_true(got[i].f.accepted_tokens < got[i].n);
                drafted += got[i].f.drafted_tokens;
                accepted += got[i].f.accepted_tokens;
            }
        }
        assert_true(drafted > 50 && accepted > 50);
        assert_true(!small || skf_small_ns(o.e->small) > 0);
        close_it(&o);
    }
}

static void test_guesses_change_nothing(void **state)
{
    for (int i = 0; i < 2; i++) {
        is_cache_q8 = i;
        change_nothing();
    }
    is_cache_q8 = false;
}

/* A small model that is the model itself is always right, one of other weights hardly ever: neither changes anything. */
static void test_a_small_model_changes_nothing(void **state)
{
    static const struct tiny good = {.type = SKF_T_Q4_1}, bad = {.type = SKF_T_Q8_0, .zeros = 90};
    small = &good;
    change_nothing();
    small = &bad;
    change_nothing();
    small = NULL;
}

static void test_a_small_model_of_other_tokens(void **state)
{
    static const struct tiny named = {.type = SKF_T_Q8_0, .tool = "<fool>"};
    static const struct tiny *const others[] = {&named};
    struct skf_model *m = open_model(&(struct tiny){.type = SKF_T_Q8_0});
    for (size_t i = 0; i < SKF_COUNT(others); i++) {
        struct skf_model *draft = open_model(others[i]);
        struct skf_engine *e = NULL;
        struct skf_why why = {{0}};
        assert_int_equal(skf_engine_open(m, &(struct skf_engine_opts){.threads = 1, .draft = draft}, &e, &why), SKF_ERR_ARG);
        assert_non_null(strstr(why.text, "token"));
        skf_model_close(draft);
    }
    skf_model_close(m);
}

/* Whoever cancels in the middle of tokens that are told together is told no more; the pages that he leaves hold what was said and no guess. */
static void test_cancel_and_what_stays(void **state)
{
    static struct said plain, a, b;
    struct opened o;
    open_as(&o, -1, 1, 1);
    ask(o.e, 8, NULL, 0, &plain);
    run_all(o.e);
    close_it(&o);
    open_as(&o, 16, 1, 1);
    a.cancel_in = o.e;
    ask(o.e, 8, plain.ids, plain.n, &a);
    run_all(o.e);
    assert_string_equal(a.reason, "cancelled");
    assert_true(a.n >= 5 && a.n < plain.n);
    assert_memory_equal(a.ids, plain.ids, a.n * sizeof *a.ids);
    for (int i = 0; i < 3; i++) { /* wrong guesses, then the same prompt from the pages that are kept */
        int32_t wrong[64];
        for (size_t k = 0; k < SKF_COUNT(wrong); k++)
            wrong[k] = plain.ids[k % 7] ^ (k % 7 > 2);
        ask(o.e, 8, wrong, SKF_COUNT(wrong), &b);
        run_all(o.e);
        assert_same(&plain, &b);
        assert_true(b.f.cached_tokens > 0);
    }
    close_it(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_and_latest_match), cmocka_unit_test(test_what_is_told),
        cmocka_unit_test(test_learns_what_is_worth_it),  cmocka_unit_test(test_rests_of_a_small_model),  cmocka_unit_test(test_cost_from_steps),
        cmocka_unit_test(test_guesses_change_nothing),   cmocka_unit_test(test_cancel_and_what_stays),
        cmocka_unit_test(test_a_small_model_changes_nothing), cmocka_unit_test(test_a_small_model_of_other_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
