/* Chat templates: the texts that jinja2 gives, the refusals, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "runtime/template.h"

#include "tests/unit/runtime_template_cases.h"

static const struct skf_chat conversation[] = {
    {"system", "Be brief.  "}, {"user", " Hi \342\230\203 \n"}, {"assistant", "a \"b\""}, {"user", "c"}};

static enum skf_err render(const char *tmpl, bool has_system, bool generate, struct skf_buf *out, struct skf_why *why)
{
    *why = (struct skf_why){{0}};
    return skf_template_render(tmpl, strlen(tmpl), conversation + !has_system, 4 - !has_system, "<s>", "</s>", generate, out, why);
}

static void expect(const char *name, const char *tmpl, bool has_system, bool generate, const char *want)
{
    struct skf_buf out = SKF_BUF_INIT(1 << 16);
    struct skf_why why;
    const char *got = "";
    enum skf_err e = render(tmpl, has_system, generate, &out, &why);
    if (want) {
        if (e != SKF_OK)
            fail_msg("%s: %s", name, why.text);
        assert_int_equal(skf_buf_cstr(&out, &got), SKF_OK);
        if (strlen(got) != out.len || strcmp(got, want) != 0)
            fail_msg("%s gives\n%s\nnot\n%s", name, got, want);
    } else {
        if (e == SKF_OK)
            fail_msg("%s is not refused", name);
        assert_int_equal(out.len, 0);
        assert_true(strncmp(why.text, "chat template", 13) == 0);
    }
    skf_buf_free(&out);
}

static void test_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < SKF_COUNT(models); i++)
        expect(models[i].name, models[i].tmpl, models[i].has_system, models[i].generate, models[i].want);
}

static void test_language(void **state)
{
    (void)state;
    for (size_t i = 0; i < SKF_COUNT(language); i++)
        expect(language[i].tmpl, language[i].tmpl, true, true, language[i].want);
}

static void refuse(const char *tmpl, enum skf_err want, const char *word)
{
    struct skf_buf out = SKF_BUF_INIT(1 << 16);
    struct skf_why why;
    enum skf_err e = render(tmpl, true, true, &out, &why);
    if (e != want || !strstr(why.text, word))
        fail_msg("%.80s: %s: %s", tmpl, skf_err_name(e), why.text);
    skf_buf_free(&out);
}

static void test_refusals_say_what(void **state)
{
    (void)state;
    refuse("{{ raise_exception('no system role') }}", SKF_ERR_REFUSED, "no system role");
    refuse("{% include 'x' %}", SKF_ERR_UNSUPPORTED, "include");
    refuse("{{ 1 | wordwrap }}", SKF_ERR_UNSUPPORTED, "wordwrap");
    refuse("{{ 1 is sameas 1 }}", SKF_ERR_UNSUPPORTED, "sameas");
    refuse("{{ 'x'.encode() }}", SKF_ERR_UNSUPPORTED, "encode");
    refuse("{{ strftime_now('%Y') }}", SKF_ERR_UNSUPPORTED, "strftime_now");
    refuse("\n\n{{ 'a' + 1 }}", SKF_ERR_FORMAT, "line 3");
    refuse("{{ messages }}", SKF_ERR_UNSUPPORTED, "printing a list");
    refuse("{% for x in [1] %}", SKF_ERR_FORMAT, "ends without");
    refuse("{{ 'x", SKF_ERR_FORMAT, "string without end");
    refuse("{{ ''.__class__ }}{{ ''.__class__.__mro__ }}", SKF_ERR_FORMAT, "__class__");
    refuse("{{ x \001 }}", SKF_ERR_FORMAT, "0x01");
    /* what is not reached does not matter */
    expect("dead branch", "{% if tools %}{{ strftime_now() | wordwrap }}{% endif %}x", true, true, "x");
}

static char *repeat(const char *before, const char *part, size_t n, const char *after)
{
    struct skf_buf b = SKF_BUF_INIT(8 << 20);
    const char *s;
    assert_int_equal(skf_buf_str(&b, before), SKF_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(skf_buf_str(&b, part), SKF_OK);
    assert_int_equal(skf_buf_str(&b, after), SKF_OK);
    assert_int_equal(skf_buf_cstr(&b, &s), SKF_OK);
    size_t len;
    return (char *)skf_buf_steal(&b, &len);
}

static void test_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *before, *part;
        size_t n;
        const char *after;
        enum skf_err want;
    } bombs[] = {
        {"{% set x = 'xxxxxxxx' %}{% for i in range(100) %}{% set ns = namespace(x=x) %}{% endfor %}", "{% set x = x ~ x %}", 40, "", SKF_ERR_LIMIT},
        {"", "{% for i in range(1000) %}", 5, "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}", SKF_ERR_LIMIT},
        {"{{ ", "(", 50000, "", SKF_ERR_FORMAT},
        {"{% ", "if (", 500, "%}", SKF_ERR_FORMAT},
        {"{{ ([", "[[[]],", 20000, "])}}", SKF_ERR_FORMAT},
        {"{{ 1", "[1", 50000, "", SKF_ERR_FORMAT},
        {"{{ ", "not ", 50000, "1 }}", SKF_ERR_LIMIT},
        {"{{ ", "-", 50000, "1 }}", SKF_ERR_LIMIT},
        {"{{ 'a' ", "+ 'a' ", 5000, "}}", SKF_ERR_LIMIT},
        {"{{ 'a' ", "| trim ", 5000, "}}", SKF_ERR_LIMIT},
        {"{{ messages", ".a", 5000, "}}", SKF_ERR_LIMIT},
        {"", "{% if true %}", 5000, "", SKF_ERR_LIMIT},
        {"{{ 1 ", "if 1 else 2 ", 5000, "}}", SKF_ERR_LIMIT},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", 0, "", SKF_ERR_LIMIT},
        {"{{ 'xxxxxxxxxx' * 1000000000 }}", "", 0, "", SKF_ERR_LIMIT},
        {"{{ range(100000000) }}", "", 0, "", SKF_ERR_LIMIT},
        {"{{ 99999999999999999999 }}", "", 0, "", SKF_ERR_LIMIT},
        {"{{ 'x' * 100000 }}", "", 0, "", SKF_ERR_LIMIT}, /* over the output's limit */
        {"", "x", 300000, "", SKF_ERR_LIMIT},
        {"{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns] | tojson }}", "", 0, "", SKF_ERR_LIMIT},
        {"{% if false %}", "{% elif false %}", 3000, "{% endif %}", SKF_OK},
    };
    for (size_t i = 0; i < SKF_COUNT(bombs); i++) {
        char *t = repeat(bombs[i].before, bombs[i].part, bombs[i].n, bombs[i].after);
        struct skf_buf out = SKF_BUF_INIT(1 << 16);
        struct skf_why why;
        enum skf_err e = render(t, true, true, &out, &why);
        if (e != bombs[i].want)
            fail_msg("%.60s...: %s: %s", t, skf_err_name(e), why.text);
        skf_buf_free(&out);
        skf_free(t);
    }
}

static void test_deep_brackets(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"(", ")"}, {"[", "]"}, {"{'a':", "}"}, {"messages[", "]"}, {"dict(a=", ")"}};
    for (size_t i = 0; i < SKF_COUNT(pairs); i++) {
        char *closing = repeat("1", pairs[i][1], 300, " }}"), *t = repeat("{{ ", pairs[i][0], 300, closing);
        refuse(t, SKF_ERR_LIMIT, "nested deeper");
        skf_free(closing);
        skf_free(t);
    }
}

/* Every beginning of a template renders or is refused, and what stood in the output before stays. */
static void test_cut_short(void **state)
{
    (void)state;
    const char *t = models[SKF_COUNT(models) / 2].tmpl;
    for (size_t n = 0; n <= strlen(t); n++) {
        struct skf_buf out = SKF_BUF_INIT(1 << 16);
        struct skf_why why = {{0}};
        char *exact = skf_memdup(t, n);
        assert_int_equal(skf_buf_str(&out, "before"), SKF_OK);
        enum skf_err e = skf_template_render(exact, n, conversation, 4, NULL, NULL, true, &out, &why);
        assert_true(e == SKF_OK || (out.len == 6 && why.text[0]));
        assert_memory_equal(out.data, "before", 6);
        skf_free(exact);
        skf_buf_free(&out);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 200; n++) {
        struct skf_buf out = SKF_BUF_INIT(1 << 16);
        struct skf_why why;
        skf_alloc_fail_at(n);
        enum skf_err e = render("{% set x %}{{ messages | tojson }}{% endset %}{{ x * 3000 }}{{ x }}", true, true, &out, &why);
        bool over = skf_alloc_count() < n;
        skf_alloc_fail_at(0);
        assert_true(e == SKF_ERR_NOMEM || e == SKF_ERR_LIMIT || (over && e == SKF_OK));
        skf_buf_free(&out);
        if (over)
            return;
    }
    fail_msg("allocates without end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_models),    cmocka_unit_test(test_language),
                                       cmocka_unit_test(test_refusals_say_what), cmocka_unit_test(test_bounds),
                                       cmocka_unit_test(test_deep_brackets),
                                       cmocka_unit_test(test_cut_short), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
