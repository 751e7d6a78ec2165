/* One-time tokens: used by one request, and by that one as often as it asks. */
#include "distributor/enrol.h"
#include "tests/lib/distributor_fix.h"

static void test_tokens(void **state)
{
    char dir[64], a[SKF_TOKEN], b[SKF_TOKEN], other[SKF_TOKEN];
    fix_ok(skf_enrol_token(fix_dir(dir), "box", a, why));
    fix_ok(skf_enrol_token(dir, "box-2", other, why));
    assert_int_equal(strlen(a), 64);
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", other, "request", false, why));
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "bo", a, "request", false, why));
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", "", "request", false, why));
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "a:b", a, "request", false, why));
    fix_ok(skf_enrol_use(dir, "box", a, "request", true, why)); /* a trial uses nothing up */
    fix_ok(skf_enrol_use(dir, "box", a, "another", true, why));
    fix_ok(skf_enrol_use(dir, "box", a, "request", false, why));
    fix_ok(skf_enrol_use(dir, "box", a, "request", false, why)); /* the answer may have been lost */
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", a, "another", false, why));
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", a, "another", true, why));
    fix_ok(skf_enrol_token(dir, "box", b, why)); /* a new token voids the old one */
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", a, "request", false, why));
    fix_ok(skf_enrol_use(dir, "box", b, "another", false, why));
    fix_ok(skf_enrol_use(dir, "box-2", other, "request", false, why)); /* untouched by all that */
    fix_remove(dir);
}

static void test_names(void **state)
{
    char dir[64], t[SKF_TOKEN];
    const char *const bad[] = {"",    "a b",  "a:b",
                               "a/b", "a\nb", "0123456789012345678901234567890123456789012345678901234567890123x"};
    fix_dir(dir);
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        fix_err(SKF_ERR_ARG, skf_enrol_token(dir, bad[i], t, why));
    fix_remove(dir);
}

/* A file that was edited by hand: lines that are none are passed over. */
static void test_strange_file(void **state)
{
    char dir[64], path[96], t[SKF_TOKEN];
    static const char text[] = "\n\nbox:short:\nbroken\nother";
    (void)snprintf(path, sizeof path, "%s/enrol.tokens", fix_dir(dir));
    fix_ok(skf_file_write(path, text, sizeof text - 1, 0600, why));
    fix_err(SKF_ERR_REFUSED, skf_enrol_use(dir, "box", "short", "request", false, why));
    fix_ok(skf_enrol_token(dir, "box", t, why));
    fix_ok(skf_enrol_use(dir, "box", t, "request", false, why));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_strange_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
