/*
 * Pages of keys and values: what is shared changes no answer, to the token; what is kept stays within its limit; what was computed is not
 * computed again; memory that runs out ends one request.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/util.h"
#include "runtime/engine.h"
#include "runtime/kv_priv.h"
#include "tests/unit/runtime_tiny.h"

struct opened {
    struct skf_model *m;
    struct skf_engine *e;
};
static void open_with(struct opened *o, const struct skf_engine_opts *opts, const struct tiny *t)
{
    char path[256];
    struct skf_why why = {{0}};
    assert_int_equal(tiny_write(tiny_path(path, "kv"), t), SKF_OK);
    assert_int_equal(skf_model_open(path, &o->m, &why), SKF_OK);
    (void)unlink(path);
    if (skf_engine_open(o->m, opts, &o->e, &why) != SKF_OK)
        fail_msg("%s", why.text);
}
static void open_tiny(struct opened *o, uint64_t cache, unsigned slots)
{
    open_with(o, &(struct skf_engine_opts){.threads = 1, .slots = slots, .cache = cache}, &(struct tiny){.type = SKF_T_Q8_0});
}
static void close_tiny(struct opened *o)
{
    skf_engine_close(o->e);
    skf_model_close(o->m);
}

struct answer {
    int32_t ids[80];
    size_t n;
    unsigned cached;
    enum skf_err err;
    bool is_done;
};
static void on_token(void *ctx, int32_t id, const char *text, size_t n)
{
    struct answer *a = ctx;
    assert_true(a->n < SKF_COUNT(a->ids));
    a->ids[a->n++] = id;
}
static void on_finish(void *ctx, const struct skf_finish *f)
{
    struct answer *a = ctx;
    a->is_done = true;
    a->err = f->err;
    a->cached = f->cached_tokens;
}
static void ask(struct skf_engine *e, const int32_t *ids, size_t n, unsigned tokens, struct answer *a)
{
    static const struct skf_gen_events events = {on_token, on_finish};
    const struct skf_sampling s = {.temperature = 0.9f, .top_p = 1, .seed = 7, .max_tokens = tokens};
    memset(a, 0, sizeof *a);
    assert_int_equal(skf_engine_submit(e, ids, n, &s, &events, a, NULL, NULL), SKF_OK);
}
static void run(struct skf_engine *e)
{
    bool is_busy = true;
    while (is_busy)
        assert_int_equal(skf_engine_step(e, &is_busy, NULL), SKF_OK);
}
static void fill(int32_t *ids, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(tiny_next(&seed) % TINY_BYTES);
}

/* The answer of an engine that has seen nothing else. */
static void ask_alone(const int32_t *ids, size_t n, unsigned tokens, struct answer *a)
{
    struct opened o;
    open_tiny(&o, 1, 1);
    ask(o.e, ids, n, tokens, a);
    run(o.e);
    assert_int_equal(a->cached, 0);
    close_tiny(&o);
}
static void same(const struct answer *a, const struct answer *b)
{
    assert_true(a->is_done && b->is_done && a->err == SKF_OK);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
}

static void test_prompts_that_begin_alike(void **state)
{
    struct opened o;
    int32_t ids[200];
    struct answer want, got;
    struct skf_engine_cache c;
    open_tiny(&o, 0, 2);
    fill(ids, 200, 1);
    ask(o.e, ids, 100, 10, &got);
    run(o.e);
    ask_alone(ids, 100, 10, &want);
    same(&got, &want);
    assert_int_equal(got.cached, 0);

    ask(o.e, ids, 100, 10, &got); /* the same again: all but the last token, whose logits are wanted */
    run(o.e);
    same(&got, &want);
    assert_int_equal(got.cached, 99);

    ids[70] ^= 1; /* parts within the third page: two are shared, six tokens copied */
    ask(o.e, ids, 200, 10, &got);
    run(o.e);
    assert_int_equal(got.cached, 70);
    ask_alone(ids, 200, 10, &want);
    same(&got, &want);

    int32_t turn[240]; /* the next turn of a conversation: the prompt, what was answered, and more */
    memcpy(turn, ids, sizeof ids);
    memcpy(turn + 200, got.ids, got.n * sizeof *turn);
    size_t n = 200 + got.n;
    fill(turn + n, 20, 3);
    struct answer next;
    ask(o.e, turn, n + 20, 10, &next);
    run(o.e);
    assert_int_equal(next.cached, n - 1); /* the last answered token was never computed with */
    ask_alone(turn, n + 20, 10, &want);
    same(&next, &want);
    skf_engine_cache(o.e, &c);
    assert_int_equal(c.cached_tokens, 99 + 70 + n - 1);
    assert_true(c.bytes == c.kept_bytes && c.bytes > 0);
    close_tiny(&o);
}

/* Sequences that run together share what the first of them has computed by then; equal ones that compute at once end with one copy. */
static void test_sequences_at_once(void **state)
{
    enum { N = 8 };
    static struct answer want, got[N];
    struct opened o;
    struct skf_engine_cache c;
    int32_t ids[160];
    open_tiny(&o, 0, N);
    fill(ids, 160, 9);
    ask_alone(ids, 160, 12, &want);
    for (int i = 0; i < N; i++)
        ask(o.e, ids, 160, 12, &got[i]);
    run(o.e);
    for (int i = 0; i < N; i++)
        same(&got[i], &want);
    skf_engine_cache(o.e, &c);
    assert_true(c.bytes <= (uint64_t)(172 / SKF_KV_PAGE + 1) * 2 * 2 * 2 * SKF_KV_PAGE * 16 * sizeof(uint16_t));
    close_tiny(&o);
}

/* Many prompts over few beginnings, in few slots and little memory: pages come, are shared, copied, put aside, brought back and go. */
static void any_order(uint64_t spill)
{
    enum { N = 120, KEEP = 100000 };
    static struct answer got[N], want;
    static int32_t ids[N][150];
    static size_t len[N];
    struct opened o;
    struct skf_engine_cache c;
    uint64_t seed = 77;
    open_with(&o, &(struct skf_engine_opts){.threads = 1, .slots = 3, .cache = KEEP, .spill = spill, .spill_dir = "/tmp"}, &(struct tiny){.type = SKF_T_Q8_0});
    for (int i = 0; i < N; i++) {
        len[i] = 1 + tiny_next(&seed) % 150;
        fill(ids[i], len[i], 100 + tiny_next(&seed) % 3);
        if (len[i] > 40 && tiny_next(&seed) % 2)
            fill(ids[i] + 40, len[i] - 40, 200 + tiny_next(&seed) % 4);
        ask(o.e, ids[i], len[i], 1 + tiny_next(&seed) % 40, &got[i]);
        bool is_busy = true;
        for (uint32_t k = tiny_next(&seed) % 30; k > 0 && is_busy; k--) {
            assert_int_equal(skf_engine_step(o.e, &is_busy, NULL), SKF_OK);
            skf_engine_cache(o.e, &c);
            assert_true(c.kept_bytes <= KEEP && c.bytes >= c.kept_bytes && c.aside_bytes <= spill);
        }
    }
    run(o.e);
    unsigned cached = 0;
    for (int i = 0; i < N; i += 3) {
        ask_alone(ids[i], len[i], (unsigned)got[i].n, &want);
        same(&got[i], &want);
        cached += got[i].cached;
    }
    skf_engine_cache(o.e, &c);
    assert_true(cached > 0 && c.evictions > 0 && c.bytes == c.kept_bytes);
    assert_true(spill ? c.spills > 0 && c.reads > 0 && c.aside_tokens > 0 : c.spills == 0);
    close_tiny(&o);
}
static void test_any_order_gives_the_same(void **state) { any_order(0); }
static void test_and_with_pages_put_aside(void **state) { any_order(300000); }

/* A file that takes no more: what is computed anew is the same. */
static void test_a_file_that_fails(void **state)
{
    struct rlimit old, low = {40000, RLIM_INFINITY};
    struct opened o;
    struct answer want[6], got;
    struct skf_engine_cache c;
    int32_t ids[6][150];
    for (uint64_t k = 0; k < 6; k++) {
        fill(ids[k], 150, 400 + k);
        ask_alone(ids[k], 150, 4, &want[k]);
    }
    open_with(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1, .cache = 40000, .spill = 1 << 20, .spill_dir = "/tmp"}, &(struct tiny){.type = SKF_T_Q8_0});
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    for (int k = 0; k < 12; k++) {
        ask(o.e, ids[k % 6], 150, 4, &got);
        run(o.e);
        same(&got, &want[k % 6]);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    skf_engine_cache(o.e, &c);
    assert_true(c.spills > 0 && c.evictions > 0);
    close_tiny(&o);
}

static void warm(struct skf_engine *e, const int32_t *ids, size_t n, bool is_pinned, struct answer *a)
{
    static const struct skf_gen_events events = {NULL, on_finish};
    memset(a, 0, sizeof *a);
    assert_int_equal(skf_engine_warm(e, ids, n, is_pinned, &events, a, NULL, NULL), SKF_OK);
    run(e);
    assert_true(a->is_done);
}

/* What is pinned stays whatever comes, within the limit; what would pass the limit is refused and nothing of it is pinned. */
static void test_pinned_prefixes_stay(void **state)
{
    enum { PAGE = 2 * 2 * 2 * SKF_KV_PAGE * 16 * sizeof(uint16_t), KEEP = 8 * PAGE };
    struct opened o;
    struct skf_engine_cache c;
    struct answer got, want;
    int32_t ids[200], other[200];
    open_tiny(&o, KEEP, 2);
    fill(ids, 200, 11);
    warm(o.e, ids, 100, true, &got);
    assert_int_equal(got.err, SKF_OK);
    skf_engine_cache(o.e, &c);
    assert_true(c.pinned_bytes == 4 * PAGE && c.bytes == 4 * PAGE && c.kept_bytes == 0);
    for (uint64_t i = 0; i < 20; i++) {
        fill(other, 200, 300 + i);
        ask(o.e, other, 200, 3, &got);
        run(o.e);
        skf_engine_cache(o.e, &c);
        assert_true(c.pinned_bytes == 4 * PAGE && c.kept_bytes + c.pinned_bytes <= KEEP && c.bytes == c.kept_bytes + c.pinned_bytes);
    }
    ask(o.e, ids, 120, 10, &got);
    run(o.e);
    assert_int_equal(got.cached, 100);
    ask_alone(ids, 120, 10, &want);
    same(&got, &want);
    warm(o.e, ids, 100, true, &got); /* again: nothing more is pinned */
    assert_true(got.err == SKF_OK && got.cached == 99);
    skf_engine_cache(o.e, &c);
    assert_int_equal(c.pinned_bytes, 4 * PAGE);
    warm(o.e, other, 200, true, &got); /* seven pages more than the eight would hold */
    assert_int_equal(got.err, SKF_ERR_LIMIT);
    warm(o.e, other, 200, false, &got); /* as any prompt */
    assert_int_equal(got.err, SKF_OK);
    skf_engine_cache(o.e, &c);
    assert_true(c.pinned_bytes == 4 * PAGE && c.kept_bytes <= KEEP - 4 * PAGE);
    close_tiny(&o);
}

/* Keys and values as Q8_0, with heads that fit them: on any number of threads, shared, cut anywhere, past the first span, the same tokens; in
 * 17/32 of the memory. */
static void test_q8_keys_and_values(void **state)
{
    static const struct tiny wide = {.type = SKF_T_Q8_0, .heads = 2, .kv = 1};
    static int32_t ids[400];
    struct answer want = {0}, got;
    struct skf_engine_cache half, small;
    fill(ids, 400, 21);
    for (unsigned k = 0; k < 8; k++) { /* f16 and q8_0, one thread and three, whole and begun by another that ends anywhere */
        struct opened o;
        const struct skf_engine_opts opts = {.threads = k & 2 ? 3 : 1, .slots = 2, .is_cache_q8 = k >= 4};
        open_with(&o, &opts, &wide);
        if (k & 1) {
            warm(o.e, ids, 200 + 13 * k, false, &got);
            assert_int_equal(got.err, SKF_OK);
        }
        ask(o.e, ids, 400, 20, &got);
        run(o.e);
        assert_int_equal(got.cached, k & 1 ? 200 + 13 * k : 0);
        if (k % 4 == 0)
            want = got;
        same(&got, &want);
        skf_engine_cache(o.e, k < 4 ? &half : &small);
        close_tiny(&o);
    }
    assert_int_equal(small.bytes * 32, half.bytes * 17);
    struct opened o;
    struct skf_why why = {{0}};
    char path[256];
    assert_int_equal(tiny_write(tiny_path(path, "kv"), &(struct tiny){.type = SKF_T_Q8_0}), SKF_OK);
    assert_int_equal(skf_model_open(path, &o.m, &why), SKF_OK);
    (void)unlink(path);
    assert_int_equal(skf_engine_open(o.m, &(struct skf_engine_opts){.threads = 1, .is_cache_q8 = true}, &o.e, &why), SKF_ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "16: take f16")); /* heads of 16 */
    skf_model_close(o.m);
}

/* How conversations begin, by what the template makes of them. */
static void test_beginnings(void **state)
{
    struct opened o;
    const struct skf_chat msgs[] = {{"system", "hello hell"}, {"user", "he"}};
    int32_t *begin = NULL, *whole = NULL;
    size_t n = 0, n_whole = 0;
    open_tiny(&o, 0, 1);
    assert_int_equal(skf_engine_beginning(o.e, msgs, 1, &begin, &n, NULL), SKF_OK);
    assert_int_equal(skf_engine_chat(o.e, msgs, 2, &whole, &n_whole, NULL), SKF_OK);
    assert_true(n > 10 && n < n_whole);
    assert_memory_equal(begin, whole, n * sizeof *begin);
    skf_free(begin);
    assert_int_equal(skf_engine_beginning(o.e, msgs, 2, &begin, &n, NULL), SKF_OK); /* the user's turn: all of it */
    assert_int_equal(n, n_whole);
    assert_memory_equal(begin, whole, n * sizeof *begin);
    skf_free(begin);
    skf_free(whole);
    close_tiny(&o);
}

/* ---- the file of what is pinned ------------------------------------------------------------------------------------------------------- */
static const uint8_t of_this[SKF_DIGEST] = {1}, of_another[SKF_DIGEST] = {2};
static char kept_path[256];

static void write_kept(int32_t ids[150])
{
    struct opened o;
    struct answer got;
    fill(ids, 150, 31);
    open_tiny(&o, 0, 1);
    warm(o.e, ids, 150, true, &got);
    assert_int_equal(got.err, SKF_OK);
    warm(o.e, ids, 70, true, &got); /* the same, but for a page that is not full */
    (void)snprintf(kept_path, sizeof kept_path, "/tmp/skiff-kv-%d.kv", getpid());
    assert_int_equal(skf_engine_cache_save(o.e, kept_path, of_this, NULL), SKF_OK);
    close_tiny(&o);
}

/* What another engine reads back is what it would have computed; nothing is read of another model, of another type, by whom others could write. */
static void test_pinned_pages_outlive_an_engine(void **state)
{
    struct opened o;
    struct answer got, want;
    struct skf_why why = {{0}};
    int32_t ids[180];
    uint32_t n = 0;
    write_kept(ids);
    fill(ids + 150, 30, 32);
    ask_alone(ids, 180, 10, &want);
    open_tiny(&o, 0, 1);
    assert_int_equal(skf_engine_cache_load(o.e, kept_path, of_another, &n, &why), SKF_ERR_BASE);
    assert_int_equal(n, 0);
    assert_int_equal(chmod(kept_path, 0620), 0);
    assert_int_equal(skf_engine_cache_load(o.e, kept_path, of_this, &n, &why), SKF_ERR_REFUSED);
    assert_int_equal(chmod(kept_path, 0600), 0);
    assert_int_equal(skf_engine_cache_load(o.e, kept_path, of_this, &n, &why), SKF_OK);
    assert_int_equal(n, 5);
    ask(o.e, ids, 180, 10, &got);
    run(o.e);
    same(&got, &want);
    assert_int_equal(got.cached, 150);
    close_tiny(&o);
    open_tiny(&o, 20000, 1); /* which keeps less */
    assert_int_equal(skf_engine_cache_load(o.e, kept_path, of_this, &n, &why), SKF_ERR_LIMIT);
    assert_non_null(strstr(why.text, kept_path));
    close_tiny(&o);
    (void)unlink(kept_path);
}

/* Any byte changed or cut off: an error, and the answers stay what they are. */
static void test_broken_files_are_refused(void **state)
{
    struct answer got, want;
    int32_t ids[150];
    uint8_t *all = NULL;
    size_t len = 0;
    uint64_t seed = 5;
    write_kept(ids);
    ask_alone(ids, 150, 5, &want);
    assert_int_equal(skf_file_read(kept_path, 1 << 20, &all, &len, NULL), SKF_OK);
    struct opened o;
    open_tiny(&o, 0, 1);
    for (int k = 0; k < 400; k++) {
        size_t at = k < 300 ? tiny_next(&seed) % (k % 2 ? 4096 : 64 + 5 * 168 + 32) : 4096 + tiny_next(&seed) % (len - 4096);
        uint32_t n = 0;
        bool is_cut = k % 3 == 0;
        uint8_t was = all[at];
        all[at] ^= (uint8_t)(1u << tiny_next(&seed) % 8);
        assert_int_equal(skf_file_write(kept_path, all, is_cut ? at : len, 0600, NULL), SKF_OK);
        enum skf_err e = skf_engine_cache_load(o.e, kept_path, of_this, &n, NULL);
        assert_true(e == SKF_ERR_FORMAT || e == SKF_ERR_DIGEST || e == SKF_ERR_BASE || e == SKF_ERR_LIMIT);
        all[at] = was;
        if (n > 0) { /* those before the broken one are good */
            close_tiny(&o);
            open_tiny(&o, 0, 1);
            assert_int_not_equal(skf_engine_cache_load(o.e, kept_path, of_this, &n, NULL), SKF_OK);
            ask(o.e, ids, 150, 5, &got);
            run(o.e);
            same(&got, &want);
            close_tiny(&o);
            open_tiny(&o, 0, 1);
        }
    }
    close_tiny(&o);
    skf_free(all);
    (void)unlink(kept_path);
}

static int fail_step(void *ctx, const char *step, const char *path)
{
    unsigned *left = ctx;
    return *left > 0 && --*left == 0 ? EIO : 0;
}
/* A write that fails at any step, or finds no memory, leaves the old file, which can be read. */
static void test_writing_that_fails(void **state)
{
    struct opened o;
    struct answer got;
    int32_t ids[150];
    write_kept(ids);
    open_tiny(&o, 0, 1);
    warm(o.e, ids, 40, true, &got);
    bool is_failed = true;
    for (unsigned k = 1; k < 60 && is_failed; k++)
        for (int is_memory = 0; is_memory < 2; is_memory++) {
            struct opened other;
            uint32_t n = 0;
            unsigned left = is_memory ? 0 : k;
            skf_file_hook(fail_step, &left);
            skf_alloc_fail_at(is_memory ? k : 0);
            enum skf_err e = skf_engine_cache_save(o.e, kept_path, of_this, NULL);
            skf_alloc_fail_at(0);
            skf_file_hook(NULL, NULL);
            is_failed = is_memory ? is_failed || e != SKF_OK : e != SKF_OK;
            open_tiny(&other, 0, 1);
            assert_int_equal(skf_engine_cache_load(other.e, kept_path, of_this, &n, NULL), SKF_OK);
            assert_true(n == 2 || n == 5);
            close_tiny(&other);
        }
    assert_false(is_failed);
    close_tiny(&o);
    (void)unlink(kept_path);
}

static void memory_that_runs_out(uint64_t cache, uint64_t spill)
{
    struct opened o;
    int32_t ids[100];
    struct answer want, got;
    open_with(&o, &(struct skf_engine_opts){.threads = 1, .slots = 1, .cache = cache, .spill = spill, .spill_dir = "/tmp"}, &(struct tiny){.type = SKF_T_Q8_0});
    fill(ids, 100, 4);
    ask(o.e, ids, 60, 5, &got);
    run(o.e);
    for (unsigned long at = 1, left = 1; left; at++) {
        int32_t other[100];
        fill(other, 100, at % 2 ? 4 : 50 + at); /* one that shares and one that does not */
        ask(o.e, other, 100, 5, &got);
        skf_alloc_fail_at(at);
        bool is_busy = true;
        while (is_busy && skf_engine_step(o.e, &is_busy, NULL) == SKF_OK)
            ;
        left = skf_alloc_count() < at ? 0 : 1;
        skf_alloc_fail_at(0);
        run(o.e);
        assert_true(got.is_done && (got.err == SKF_OK || got.err == SKF_ERR_NOMEM));
        if (at > 2000)
            fail_msg("no end");
    }
    ask(o.e, ids, 100, 5, &got);
    run(o.e);
    ask_alone(ids, 100, 5, &want);
    same(&got, &want);
    close_tiny(&o);
}

static void test_memory_that_runs_out(void **state) { memory_that_runs_out(0, 0); }
static void test_and_with_pages_aside(void **state) { memory_that_runs_out(30000, 1 << 20); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_that_begin_alike),
        cmocka_unit_test(test_sequences_at_once),
        cmocka_unit_test(test_any_order_gives_the_same),
        cmocka_unit_test(test_and_with_pages_put_aside),
        cmocka_unit_test(test_a_file_that_fails),
        cmocka_unit_test(test_pinned_prefixes_stay),
        cmocka_unit_test(test_q8_keys_and_values),
        cmocka_unit_test(test_beginnings),
        cmocka_unit_test(test_pinned_pages_outlive_an_engine),
        cmocka_unit_test(test_broken_files_are_refused),
        cmocka_unit_test(test_writing_that_fails),
        cmocka_unit_test(test_memory_that_runs_out),
        cmocka_unit_test(test_and_with_pages_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
