/* Chains: the composed delta makes of the base what the chain makes of it, link by link; and what does not join is refused. */
#include "tests/lib/skd_fix.h"

#include "base/util.h"

static struct fix_pair pair;

/* A third version: the second with bytes changed, and some more behind it. */
static void write_third(void)
{
    uint8_t *p;
    size_t n;
    fix_read("new", &p, &n);
    for (size_t i = 70000; i < n; i += 1 + fix_next() % 3000)
        p[i] ^= (uint8_t)(1 + fix_next() % 2);
    fix_write("third", p, n);
    skf_free(p);
}

static void build(const char *old_name, const char *neu_name, const char *out)
{
    struct skf_model *old, *neu;
    struct skf_delta_stats s;
    fix_ok(skf_model_open(fix_path(old_name), &old, why));
    fix_ok(skf_model_open(fix_path(neu_name), &neu, why));
    fix_ok(skf_delta_build(old, neu, fix_path(out), NULL, &s, why));
    skf_model_close(old);
    skf_model_close(neu);
}

static enum skf_err compose(const char *base, const char *const *names, size_t n, struct skf_delta_stats *s, struct skf_why *why)
{
    char paths[4][400], base_path[400], out[400];
    const char *list[4];
    (void)snprintf(base_path, sizeof base_path, "%s", fix_path(base));
    (void)snprintf(out, sizeof out, "%s", fix_path("composed"));
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s", fix_path(names[i]));
        list[i] = paths[i];
    }
    enum skf_err e = skf_delta_compose(base_path, list, n, out, NULL, s, why);
    assert_int_equal(fix_left("composed."), 0); /* nothing of what stood between */
    return e;
}

static void test_chain(void **unused)
{
    struct skf_delta_stats s, direct;
    uint8_t *want, *a, *b;
    size_t n, an, bn;
    fix_ok(compose("old", (const char *const[]){"d12", "d23"}, 2, &s, why));
    fix_read("third", &want, &n);
    fix_ok(fix_apply("old", "composed", "out", why));
    fix_same("out", want, n);
    /* As good as the delta made of the two themselves, and the same. */
    struct skf_model *old, *neu;
    fix_ok(skf_model_open(fix_path("old"), &old, why));
    fix_ok(skf_model_open(fix_path("third"), &neu, why));
    fix_ok(skf_delta_build(old, neu, fix_path("direct"), NULL, &direct, why));
    skf_model_close(old);
    skf_model_close(neu);
    fix_read("composed", &a, &an);
    fix_read("direct", &b, &bn);
    assert_int_equal(an, bn);
    assert_memory_equal(a, b, an);
    skf_free(a);
    skf_free(b);
    skf_free(want);
    /* One link, and a chain that comes back to where it began. */
    fix_ok(compose("old", (const char *const[]){"d12"}, 1, &s, why));
    fix_ok(fix_apply("old", "composed", "out", why));
    fix_same("out", pair.new_bytes.data, pair.new_bytes.len);
    fix_ok(compose("old", (const char *const[]){"d12", "d21"}, 2, &s, why));
    assert_true(s.bytes < 4096);
    fix_ok(fix_apply("old", "composed", "out", why));
    fix_same("out", pair.old_bytes.data, pair.old_bytes.len);
}

static void test_what_does_not_join(void **unused)
{
    struct skf_delta_stats s;
    (void)unlink(fix_path("composed"));
    fix_err(SKF_ERR_ARG, compose("old", NULL, 0, &s, why));
    fix_err(SKF_ERR_BASE, compose("old", (const char *const[]){"d23"}, 1, &s, why));
    fix_err(SKF_ERR_BASE, compose("old", (const char *const[]){"d23", "d12"}, 2, &s, why));
    fix_err(SKF_ERR_BASE, compose("old", (const char *const[]){"d12", "d12"}, 2, &s, why));
    fix_err(SKF_ERR_BASE, compose("new", (const char *const[]){"d12", "d23"}, 2, &s, why));
    fix_err(SKF_ERR_NOT_FOUND, compose("old", (const char *const[]){"d12", "none"}, 2, &s, why));
    fix_err(SKF_ERR_FORMAT, compose("old", (const char *const[]){"d12", "old"}, 2, &s, why));
    uint8_t *p; /* the second link's last payload is wrong: found while it is applied */
    size_t n;
    fix_read("d23", &p, &n);
    p[n - 1] ^= 1;
    fix_write("broken", p, n);
    fix_err(SKF_ERR_DIGEST, compose("old", (const char *const[]){"d12", "broken"}, 2, &s, why));
    fix_write("broken", p, n / 2);
    fix_err(SKF_ERR_FORMAT, compose("old", (const char *const[]){"d12", "broken"}, 2, &s, why));
    skf_free(p);
    assert_int_equal(fix_left("composed"), 0);
}

static int setup(void **state)
{
    int r = fix_setup(state);
    if (r)
        return r;
    fix_models(&pair);
    write_third();
    build("old", "new", "d12");
    build("new", "third", "d23");
    build("new", "old", "d21");
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
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_what_does_not_join),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
