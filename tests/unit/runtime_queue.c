/*
 * runtime/: who begins when, how much of a prompt a step computes, memory that bounds what runs, requests that leave.  Counted in steps and tokens,
 * never in time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "runtime/engine.h"
#include "runtime/pace_priv.h"
#include "tests/unit/runtime_tiny.h"

enum { ANSWERS = 40, PAGE_BYTES = 2 * 2 * 32 * 2 * 16 * 2 }; /* layers, keys and values, positions, heads of both, elements, bytes */

struct answer {
    int32_t ids[600];
    unsigned n, prompt, cached, begun_at; /* begun_at: place in the order of first tokens */
    bool is_done;
    char reason[16];
    enum skf_err err;
    uint64_t handle, queue_ns, sample_ns, gap_ns, prefill_ns;
};
static unsigned order;
static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct answer *a = ctx;
    assert_false(a->is_done);
    if (a->n == 0)
        a->begun_at = ++order;
    a->ids[a->n++] = id;
}
static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct answer *a = ctx;
    assert_false(a->is_done);
    a->is_done = true;
    a->err = f->err;
    a->prompt = f->prompt_tokens;
    a->cached = f->cached_tokens;
    a->queue_ns = f->queue_ns;
    a->sample_ns = f->sample_ns;
    a->gap_ns = f->gap_ns;
    a->prefill_ns = f->prefill_ns;
    (void)snprintf(a->reason, sizeof a->reason, "%s", f->reason);
}
static const struct skf_gen_events events = {on_token, on_finish};

struct opened {
    struct skf_model *m;
    struct skf_engine *e;
};
static void open_tiny(struct opened *o, const struct skf_engine_opts *opts)
{
    char path[256];
    struct skf_why why = {{0}};
    assert_int_equal(tiny_write(tiny_path(path, "queue"), &(struct tiny){.type = SKF_T_Q8_0}), SKF_OK);
    assert_int_equal(skf_model_open(path, &o->m, &why), SKF_OK);
    (void)unlink(path);
    if (skf_engine_open(o->m, opts, &o->e, &why) != SKF_OK)
        fail_msg("%s", why.text);
    order = 0;
}
static void close_tiny(struct opened *o)
{
    skf_engine_close(o->e);
    skf_model_close(o->m);
}
/* `n` tokens that no other prompt of another seed begins with; `max` tokens of answer, drawn so that none is the end. */
static enum skf_err try_submit(struct skf_engine *e, unsigned seed, unsigned n, unsigned max, const struct skf_terms *terms, struct answer *a)
{
    int32_t ids[512];
    uint64_t state = seed;
    struct skf_why why = {{0}};
    memset(a, 0, sizeof *a);
    for (unsigned i = 0; i < n; i++)
        ids[i] = (int32_t)(tiny_next(&state) % 256);
    return skf_engine_submit_on(e, ids, n, &(struct skf_sampling){.max_tokens = max, .temperature = 1, .seed = seed}, terms, &events, a, &a->handle, &why);
}
static void submit(struct skf_engine *e, unsigned seed, unsigned n, unsigned max, bool is_batch, struct answer *a)
{
    assert_int_equal(try_submit(e, seed, n, max, &(struct skf_terms){.priority = is_batch ? SKF_BATCH : SKF_INTERACTIVE}, a), SKF_OK);
}
static bool step(struct skf_engine *e)
{
    bool is_busy;
    assert_int_equal(skf_engine_step(e, &is_busy, NULL), SKF_OK);
    return is_busy;
}
static void run_all(struct skf_engine *e)
{
    while (step(e))
        ;
}

/* ---- the plain numbers ------------------------------------------------------------------------------------------------------------- */
/* A machine of which a step takes `base` and `each` more a token of a prompt, which grows as the prompt does. */
static uint64_t step_ns(uint32_t decoding, uint32_t prompt, uint32_t done) { return 8000000 + 1000000ull * decoding + prompt * (400000ull + 100 * done); }

static void test_portions_fit_the_time(void **state)
{
    struct skf_pace p = {0};
    assert_int_equal(skf_pace_portion(&p, 0, 64, 175), 64); /* nobody waits */
    assert_int_equal(skf_pace_portion(&p, 3, 64, 175), 0);  /* to be measured first */
    uint32_t over = 0, steps = 0;
    for (uint32_t done = 0; done < 8000; steps++) {
        uint32_t n = skf_pace_portion(&p, 3, 64, 175);
        assert_true(n <= 64);
        uint64_t ns = step_ns(3, n, done);
        over += ns > 2 * step_ns(3, 0, 0);
        skf_pace_saw(&p, 3, n, ns);
        done += n;
    }
    assert_true(over <= steps / 100 && steps < 1800); /* with 20 tokens a step in the beginning and 7 in the end */
    skf_pace_saw(&p, 3, 0, step_ns(3, 0, 0));
    for (int i = 0; i < 40; i++)
        skf_pace_saw(&p, 3, 1, 2000000000); /* a machine that is far slower than it was: one token at least, and a new measure now and then */
    assert_in_range(skf_pace_portion(&p, 3, 64, 175), 1, 2);
    for (int i = 0; i < 30; i++)
        skf_pace_saw(&p, 3, 1, 2000000000);
    assert_int_equal(skf_pace_portion(&p, 3, 64, 175), 0);
    for (int i = 0; i < 64; i++)
        skf_pace_saw(&p, 3, 0, 1000000000);
    assert_true(skf_pace_portion(&p, 3, 64, 175) >= 1 && skf_pace_portion(&p, 40, 64, 175) >= 1 && skf_pace_portion(&p, 1, 64, 100) == 1);
    skf_pace_saw(&p, 1000, 0, 1); /* more than there are */
    assert_true(skf_pace_portion(&p, 1000, 64, 175) <= 64);
}

static void test_busy_share(void **state)
{
    struct skf_busy b = {.at = 0};
    uint64_t now = 5000000000;
    assert_int_equal(skf_busy_permille(&b, now), 0);
    for (int i = 0; i < 100; i++, now += 20000000)
        skf_busy_add(&b, now, 10000000);
    uint32_t share = skf_busy_permille(&b, now);
    assert_true(share > 400 && share <= 520);
    assert_true(skf_busy_permille(&b, now + 500000000) < share);
    assert_int_equal(skf_busy_permille(&b, now + 1100000000), 0);
    skf_busy_add(&b, now + 3600000000000ull, 3000000000);
    assert_int_equal(skf_busy_permille(&b, now + 3600000000000ull), 1000);
}

static void test_gathering(void **state)
{
    const uint64_t ms = 1000000;
    const struct skf_gather one = {.busy_ms = 5, .idle_ms = 20, .gap_ns = 1000 * ms, .waiting = 1, .tokens = 10, .longest = 10, .free = 4, .portion = 64};
    struct skf_gather g = one;
    assert_int_equal(skf_gather_ns(&g), 0); /* alone, and seldom */
    g.permille = 1000;
    assert_int_equal(skf_gather_ns(&g), 0); /* even under load: the next would come too late */
    g.gap_ns = 3 * ms;
    assert_int_equal(skf_gather_ns(&g), 5 * ms);
    g.since_ns = 2 * ms;
    assert_int_equal(skf_gather_ns(&g), 3 * ms);
    g.since_ns = 9 * ms;
    assert_int_equal(skf_gather_ns(&g), 0);
    g = one;
    g.gap_ns = 3 * ms;
    assert_int_equal(skf_gather_ns(&g), 5 * ms); /* short */
    g.longest = g.tokens = 40;
    assert_int_equal(skf_gather_ns(&g), 20 * ms); /* long */
    g.permille = 800;
    assert_int_equal(skf_gather_ns(&g), 5 * ms); /* long under load */
    g.tokens = 64;
    assert_int_equal(skf_gather_ns(&g), 0); /* a step is full */
    g.tokens = 40;
    g.waiting = 4;
    assert_int_equal(skf_gather_ns(&g), 0); /* the slots are */
    g = one;
    g.gap_ns = 0;
    g.busy_ms = 0;
    assert_int_equal(skf_gather_ns(&g), 0); /* switched off */
}

/* ---- portions in the engine ---------------------------------------------------------------------------------------------------------- */
/* The longest prompt comes in: whoever decodes gets a token in every step, and the prompt its part, whatever the machine takes. */
static void test_long_prompts_do_not_stall(void **state)
{
    static struct answer streams[2], alone[2], rest[2];
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .portion = 4, .gap = 10000, .gather_busy_ms = -1, .gather_idle_ms = -1, .speculate = -1});
    unsigned seed[2] = {10, 0};
    for (int i = 0; i < 2; i++) /* two that do not come to an end by themselves */
        for (seed[i] += i ? seed[0] : 0; alone[i].n < 200; run_all(o.e))
            submit(o.e, ++seed[i], 8, 200, false, &alone[i]);
    for (int i = 0; i < 2; i++)
        submit(o.e, seed[i], 8, 200, false, &streams[i]);
    for (int i = 0; i < 10; i++)
        step(o.e);
    assert_true(streams[0].n > 2 && streams[1].n > 2);
    submit(o.e, 3, 400, 5, false, &rest[0]);
    submit(o.e, 4, 6, 5, false, &rest[1]);
    unsigned steps = 0;
    while (!rest[0].n && !streams[0].is_done && !streams[1].is_done) {
        unsigned a = streams[0].n, b = streams[1].n;
        step(o.e);
        steps++;
        assert_true(streams[0].n == a + 1 && streams[1].n == b + 1);
    }
    assert_true(rest[0].n && steps >= 400 / 4 && steps <= 400 / 4 + 12);
    assert_true(rest[1].is_done && rest[1].begun_at < rest[0].begun_at); /* a short one does not wait for the end of a long one */
    run_all(o.e);
    for (int i = 0; i < 2; i++)
        assert_true(streams[i].n == alone[i].n && memcmp(streams[i].ids, alone[i].ids, alone[i].n * sizeof(int32_t)) == 0);
    assert_true(rest[0].gap_ns > 0 && rest[0].prefill_ns > 0 && rest[0].sample_ns > 0);
    close_tiny(&o);
}

/* ---- the order ----------------------------------------------------------------------------------------------------------------------- */
static void test_batch_waits_but_does_not_starve(void **state)
{
    static struct answer batch[3], now[ANSWERS];
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 2, .gather_busy_ms = -1, .gather_idle_ms = -1});
    for (unsigned i = 0; i < 3; i++)
        submit(o.e, 100 + i, 20, 100, true, &batch[i]);
    for (int i = 0; i < 4; i++)
        step(o.e);
    assert_true(batch[0].n > 0 && batch[1].n == 0); /* one slot is kept free */
    for (unsigned i = 0; i < ANSWERS; i++)
        submit(o.e, 1 + i, 8, 2, false, &now[i]);
    while (!batch[1].n)
        step(o.e);
    unsigned before = 0;
    for (unsigned i = 0; i < ANSWERS; i++)
        before += now[i].n > 0;
    assert_int_equal(before, 8); /* passed over so often and no more */
    run_all(o.e);
    for (unsigned i = 0; i < ANSWERS; i++)
        assert_true(now[i].is_done && now[i].n == 2 && (i == 0 || now[i].begun_at > now[i - 1].begun_at));
    assert_true(batch[1].begun_at < batch[2].begun_at && batch[2].n == 100);
    close_tiny(&o);
}

/* A batch prompt that is being computed makes room, goes on later with what it had, and comes to the same end. */
static void test_batch_gives_its_slot_back(void **state)
{
    static struct answer alone, batch, now[8];
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1, .portion = 32, .gather_busy_ms = -1, .gather_idle_ms = -1});
    submit(o.e, 9, 300, 10, true, &alone);
    run_all(o.e);
    close_tiny(&o);
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1, .portion = 32, .gather_busy_ms = -1, .gather_idle_ms = -1});
    submit(o.e, 9, 300, 10, true, &batch);
    for (unsigned i = 0; i < 8; i++) {
        step(o.e);
        submit(o.e, 1 + i, 8, 1, false, &now[i]);
        step(o.e);
        assert_int_equal(now[i].n, i < 4); /* four times, then it keeps its slot */
    }
    run_all(o.e);
    assert_true(batch.n == alone.n && memcmp(batch.ids, alone.ids, alone.n * sizeof(int32_t)) == 0);
    assert_true(batch.cached == 0 && batch.prompt == 300);
    struct skf_engine_cache c;
    skf_engine_cache(o.e, &c);
    assert_true(c.cached_tokens >= 32); /* it did not begin anew each time */
    close_tiny(&o);
}

/* ---- bounds -------------------------------------------------------------------------------------------------------------------------- */
static void test_memory_bounds_what_runs(void **state)
{
    static struct answer a[6];
    struct opened o;
    struct skf_engine_load l;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 4, .memory = 8 * PAGE_BYTES, .cache = 100 * PAGE_BYTES, .gather_busy_ms = -1});
    assert_int_equal(try_submit(o.e, 1, 100, 200, NULL, &a[0]), SKF_ERR_LIMIT); /* ten pages, never */
    submit(o.e, 1, 100, 0, false, &a[0]);                                      /* as many as fit */
    run_all(o.e);
    assert_int_equal(a[0].n, 8 * 32 - 100);
    submit(o.e, 2, 90, 36, false, &a[1]); /* four pages each */
    submit(o.e, 3, 90, 36, false, &a[2]);
    submit(o.e, 4, 90, 36, false, &a[3]);
    submit(o.e, 5, 20, 10, false, &a[4]);
    unsigned most = 0;
    do {
        skf_engine_load(o.e, &l);
        most = SKF_MAX(most, l.running);
            assert_true(l.cache.bytes <= 8 * PAGE_BYTES); /* kept pages went for those that are needed */
    } while (step(o.e));
    assert_int_equal(most, 2);
    for (int i = 1; i < 5; i++)
        assert_true(a[i].is_done && a[i].err == SKF_OK && a[i].n > 0);
    assert_int_equal(l.waiting, 0);
    close_tiny(&o);
}

/* A large one waits for memory; small ones pass it eight times, then it is its turn. */
static void test_large_requests_do_not_starve(void **state)
{
    static struct answer large, small[ANSWERS];
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 2, .memory = 8 * PAGE_BYTES, .gather_busy_ms = -1});
    submit(o.e, 50, 10, 10, false, &small[0]);
    step(o.e);
    submit(o.e, 51, 200, 30, false, &large);
    for (unsigned i = 1; i < ANSWERS; i++)
        submit(o.e, i, 10, 10 + i % 3, false, &small[i]);
    while (!large.n)
        step(o.e);
    assert_true(large.begun_at <= 1 + 8 + 1);
    run_all(o.e);
    assert_int_equal(order, ANSWERS + 1);
    close_tiny(&o);
}

static void test_queue_is_bounded(void **state)
{
    static struct answer a[12];
    struct opened o;
    struct skf_engine_load l;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1, .waiting = 10, .waiting_tokens = 500});
    skf_engine_load(o.e, &l);
    assert_true(l.slots == 1 && l.running == 0 && l.expected_ns == 0);
    submit(o.e, 1, 400, 1, false, &a[0]);
    assert_int_equal(try_submit(o.e, 2, 101, 1, NULL, &a[1]), SKF_ERR_BUSY); /* tokens */
    submit(o.e, 2, 100, 1, false, &a[1]);
    skf_engine_load(o.e, &l);
    assert_true(l.waiting == 2 && l.waiting_tokens == 500);
    run_all(o.e);
    for (unsigned i = 0; i < 10; i++)
        submit(o.e, i, 2, 3, false, &a[i]);
    assert_int_equal(try_submit(o.e, 2, 1, 1, NULL, &a[11]), SKF_ERR_BUSY); /* requests */
    skf_engine_load(o.e, &l);
    assert_true(l.expected_ns > 0); /* by what the first two took */
    uint64_t full = l.expected_ns;
    for (unsigned i = 1; i < 10; i++)
        skf_engine_cancel(o.e, a[i].handle);
    run_all(o.e);
    submit(o.e, 2, 2, 3, false, &a[0]);
    skf_engine_load(o.e, &l);
    assert_true(l.expected_ns < full);
    run_all(o.e);
    close_tiny(&o);
}

/* ---- leaving ------------------------------------------------------------------------------------------------------------------------- */
/* One of three is cancelled at every step of its life in turn: its slot is free in the step after, and the others say what they say alone. */
static void test_cancelling_touches_nobody(void **state)
{
    static struct answer alone[3], got[3], next;
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 2, .slots = 3, .portion = 8, .cache = 1, .gather_busy_ms = -1, .gather_idle_ms = -1});
    for (unsigned i = 0; i < 3; i++) {
        submit(o.e, 20 + i, 30 + 10 * i, 20, false, &alone[i]);
        run_all(o.e);
    }
    for (unsigned at = 0; at < 24; at++) {
        for (unsigned i = 0; i < 3; i++)
            submit(o.e, 20 + i, 30 + 10 * i, 20, false, &got[i]);
        for (unsigned i = 0; i < at; i++)
            step(o.e);
        submit(o.e, 30, 4, 1, false, &next);
        unsigned n = got[1].n;
        bool was_done = got[1].is_done;
        skf_engine_cancel(o.e, got[1].handle);
        step(o.e);
        assert_true(got[1].is_done && (was_done || (got[1].n == n && strcmp(got[1].reason, "cancelled") == 0)));
        run_all(o.e);
        assert_true(next.is_done && next.n == 1);
        for (unsigned i = 0; i < 3; i += 2)
            assert_true(got[i].n == alone[i].n && memcmp(got[i].ids, alone[i].ids, alone[i].n * sizeof(int32_t)) == 0);
    }
    struct skf_engine_cache c;
    skf_engine_cache(o.e, &c);
    assert_int_equal(c.bytes, 0); /* nothing is kept for those that left */
    close_tiny(&o);
}

static void test_deadlines(void **state)
{
    static struct answer a[3];
    struct opened o;
    open_tiny(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1});
    uint64_t past = skf_now_ns() - 1, soon = skf_now_ns() + 50000000;
    assert_int_equal(try_submit(o.e, 1, 5, 400, &(struct skf_terms){.deadline_ns = soon}, &a[0]), SKF_OK);
    assert_int_equal(try_submit(o.e, 2, 5, 10, &(struct skf_terms){.deadline_ns = past}, &a[1]), SKF_OK);
    assert_int_equal(try_submit(o.e, 3, 5, 10, NULL, &a[2]), SKF_OK);
    step(o.e);
    assert_true(a[1].is_done && a[1].err == SKF_ERR_TIMEOUT && a[1].n == 0 && a[0].n > 0);
    skf_sleep_ms(60);
    unsigned n = a[0].n;
    step(o.e);
    assert_true(a[0].is_done && a[0].err == SKF_ERR_TIMEOUT && a[0].n == n && strcmp(a[0].reason, "error") == 0);
    run_all(o.e);
    assert_true(a[2].err == SKF_OK && a[2].n == 10 && a[2].queue_ns > 50000000);
    close_tiny(&o);
}

/* Every option out of its range is refused. */
static void test_options(void **state)
{
    static const struct skf_engine_opts bad[] = {{.portion = 65}, {.gap = 99}, {.gap = 10001}, {.gather_busy_ms = 1001}, {.gather_idle_ms = 1001}};
    struct skf_model *m = NULL;
    char path[256];
    assert_int_equal(tiny_write(tiny_path(path, "queue"), &(struct tiny){.type = SKF_T_Q8_0}), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_engine *e = NULL;
        assert_int_equal(skf_engine_open(m, &bad[i], &e, NULL), SKF_ERR_ARG);
    }
    skf_model_close(m);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_portions_fit_the_time),
        cmocka_unit_test(test_busy_share),
        cmocka_unit_test(test_gathering),
        cmocka_unit_test(test_long_prompts_do_not_stall),
        cmocka_unit_test(test_batch_waits_but_does_not_starve),
        cmocka_unit_test(test_batch_gives_its_slot_back),
        cmocka_unit_test(test_memory_bounds_what_runs),
        cmocka_unit_test(test_large_requests_do_not_starve),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_cancelling_touches_nobody),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
