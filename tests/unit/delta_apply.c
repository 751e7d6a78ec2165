/* Applying: gone on with after a cancel, the same from any number of threads; and in place, whatever changes places with whatever. */
#include <sys/stat.h>

#include "tests/lib/skd_fix.h"

static struct fix_pair pair;

/* Cancels once so many bytes are done: with 1 the first step that is done, behind which there are more than threads take. */
struct stop {
    atomic_bool cancel;
    uint64_t at;
    atomic_uint_fast64_t most, total;
};
static void stop_there(void *ctx, uint64_t done, uint64_t total)
{
    struct stop *s = ctx;
    if (done > atomic_load(&s->most))
        atomic_store(&s->most, done);
    atomic_store(&s->total, total);
    if (done >= s->at)
        atomic_store(&s->cancel, true);
}

static enum skf_err apply_until(struct stop *s, bool is_kept, unsigned jobs, struct skf_why *why)
{
    struct skf_delta_opts o = {.jobs = jobs, .is_kept = is_kept, .progress = {.fn = stop_there, .ctx = s, .cancel = &s->cancel}};
    struct skf_delta_stats stats;
    return skf_delta_apply(fix_path("old"), fix_path("d"), fix_path("out"), &o, &stats, why);
}

static void test_cancelled_is_gone_on_with(void **unused)
{
    for (unsigned jobs = 1; jobs <= 2; jobs++) {
        struct stop s = {.at = 1}, none = {.at = UINT64_MAX};
        struct skf_why said = {{0}};
        assert_int_equal(apply_until(&s, true, jobs, &said), SKF_ERR_CANCELLED);
        assert_non_null(strstr(said.text, ".part"));
        assert_int_equal(fix_left("out"), 1);
        assert_int_equal(access(fix_path("out"), F_OK), -1);
        fix_ok(apply_until(&none, true, jobs, why));
        assert_int_equal(atomic_load(&none.most), pair.new_bytes.len); /* it ends at what it said all would be */
        assert_int_equal(atomic_load(&none.total), pair.new_bytes.len);
        fix_same("out", pair.new_bytes.data, pair.new_bytes.len);
        assert_int_equal(fix_left("out"), 1);
        (void)unlink(fix_path("out"));
        s = (struct stop){.at = 1};
        fix_err(SKF_ERR_CANCELLED, apply_until(&s, false, jobs, why)); /* who does not ask for it finds nothing left */
        assert_int_equal(fix_left("out"), 0);
        s = (struct stop){.at = 0};
        atomic_store(&s.cancel, true);
        fix_err(SKF_ERR_CANCELLED, apply_until(&s, true, jobs, why)); /* nothing was done: nothing is left */
        assert_int_equal(fix_left("out"), 0);
    }
}

static void test_kept_only_when_worth_it(void **unused)
{
    struct stop none = {.at = UINT64_MAX};
    uint8_t *d;
    size_t n;
    fix_read("d", &d, &n);
    d[n - 1] ^= 1;
    fix_write("d", d, n);
    fix_err(SKF_ERR_DIGEST, apply_until(&none, true, 2, why));
    assert_int_equal(fix_left("out"), 0);
    d[n - 1] ^= 1;
    fix_write("d", d, n);
    skf_free(d);
}

/* Tensors of noise in random orders, of which some come, go, grow and shrink. */
#define MOST 24
struct deck {
    struct fix_tensor t[MOST];
    char names[MOST][24];
    size_t n;
};

static void deal(struct deck *d, const struct deck *from)
{
    d->n = 6 + fix_next() % (MOST - 6);
    for (size_t i = 0; i < d->n; i++) {
        uint64_t seed = from && fix_next() % 8 ? from->t[fix_next() % from->n].seed : 1 + fix_next() % 1000;
        (void)snprintf(d->names[i], sizeof d->names[i], "t%zu", i);
        /* rows by the seed: the same seed is the same bytes, wherever it stands */
        d->t[i] = (struct fix_tensor){d->names[i], SKF_T_I8, 256, 1 + seed % 12, seed, 0};
    }
}

static void test_places_change(void **unused)
{
    for (unsigned round = 0; round < 16; round++) {
        struct deck a, b;
        fix_state = 1000 + round;
        deal(&a, NULL);
        deal(&b, &a);
        struct fix_pair p = {.old_bytes = fix_gguf(a.t, a.n, false), .new_bytes = fix_gguf(b.t, b.n, false)};
        fix_open(&p);
        (void)fix_build(&p, "deck", 1);
        fix_write("ip", p.old_bytes.data, p.old_bytes.len);
        struct skf_delta_stats s;
        struct skf_delta_opts o = {.jobs = 1 + round % 3};
        fix_ok(skf_delta_apply_in_place(fix_path("ip"), fix_path("deck"), &o, &s, why));
        fix_same("ip", p.new_bytes.data, p.new_bytes.len);
        assert_int_equal(fix_left("ip"), 1);
        fix_close(&p);
    }
}

static void test_in_place_keeps_the_file(void **unused)
{
    struct skf_delta_stats s;
    struct stat was, is;
    fix_write("real", pair.old_bytes.data, pair.old_bytes.len);
    assert_int_equal(chmod(fix_path("real"), 0640), 0);
    assert_int_equal(stat(fix_path("real"), &was), 0);
    assert_int_equal(symlink("real", fix_path("link")), 0);
    fix_ok(skf_delta_apply_in_place(fix_path("link"), fix_path("d"), NULL, &s, why)); /* through a link, too */
    assert_int_equal(stat(fix_path("real"), &is), 0);
    assert_true(was.st_ino == is.st_ino && was.st_mode == is.st_mode);
    fix_same("real", pair.new_bytes.data, pair.new_bytes.len);
    assert_int_equal(s.bytes, pair.new_bytes.len);
    fix_err(SKF_ERR_NOT_FOUND, skf_delta_apply_in_place(fix_path("none"), fix_path("d"), NULL, &s, why));
    fix_err(SKF_ERR_ARG, skf_delta_apply_in_place("/dev/null", fix_path("d"), NULL, &s, why));
}

static int setup(void **state)
{
    if (fix_setup(state))
        return -1;
    fix_models(&pair);
    (void)fix_build(&pair, "d", 2);
    return 0;
}
static int teardown(void **state)
{
    fix_close(&pair);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancelled_is_gone_on_with), cmocka_unit_test(test_kept_only_when_worth_it),
        cmocka_unit_test(test_places_change),             cmocka_unit_test(test_in_place_keeps_the_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
