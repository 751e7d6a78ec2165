/* TOML: what it says, where it says it, and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/toml.h"
#include "base/util.h"

/* Every value as "LINE key.key[i]=value", a line each. */
static void dump(const char *text, char *out, size_t cap)
{
    struct skf_toml t;
    struct skf_why why = {{0}};
    size_t n = 0;
    *out = 0;
    if (skf_toml_parse("f", text, strlen(text), &t, &why) != SKF_OK) {
        (void)snprintf(out, cap, "%s", why.text);
        return;
    }
    for (size_t i = 0; i < t.n; i++) {
        const struct skf_toml_value *v = &t.v[i];
        n += (size_t)snprintf(out + n, cap - n, "%u ", v->line);
        for (unsigned k = 0; k < v->n_keys; k++)
            n += (size_t)snprintf(out + n, cap - n, "%s%s", k ? "." : "", v->key[k]);
        if (v->element >= 0)
            n += (size_t)snprintf(out + n, cap - n, "[%d]", v->element);
        switch (v->type) {
        case SKF_TOML_TABLE: n += (size_t)snprintf(out + n, cap - n, "{}"); break;
        case SKF_TOML_ARRAY: n += (size_t)snprintf(out + n, cap - n, "[]"); break;
        case SKF_TOML_STRING: n += (size_t)snprintf(out + n, cap - n, "='%s'", v->text); break;
        case SKF_TOML_FLOAT: n += (size_t)snprintf(out + n, cap - n, "=%g", v->real); break;
        case SKF_TOML_INT: n += (size_t)snprintf(out + n, cap - n, "=%lld", (long long)v->number); break;
        default: n += (size_t)snprintf(out + n, cap - n, "=%s", v->number ? "true" : "false");
        }
        n += (size_t)snprintf(out + n, cap - n, "\n");
    }
    skf_toml_free(&t);
}

struct pair {
    const char *text, *want;
};
static void check(const struct pair *p, size_t n)
{
    char got[2048];
    for (size_t i = 0; i < n; i++) {
        dump(p[i].text, got, sizeof got);
        if (strcmp(got, p[i].want) != 0)
            fail_msg("%s\ngives\n%s\nnot\n%s", p[i].text, got, p[i].want);
    }
}

static void test_values(void **state)
{
    static const struct pair good[] = {
        {"", ""},
        {"# nothing\n\r\n \t# and no end", ""},
        {"a = 1\nb=-1_000 # c\nc = +7\n", "1 a=1\n2 b=-1000\n3 c=7\n"},
        {"a=1.5\nb=-2e3\nc=1_0.2_5E-1", "1 a=1.5\n2 b=-2000\n3 c=1.025\n"},
        {"a=true\nb=false\nc=-inf", "1 a=true\n2 b=false\n3 c=-inf\n"},
        {"a=\"x \\\"\\\\ \\u00e9\\t\\U0001F600\"\n", "1 a='x \"\\ \xc3\xa9\t\xf0\x9f\x98\x80'\n"},
        {"a='x\\y \"'", "1 a='x\\y \"'\n"},
        {"a=\"\"\"\none \\\n  \n  two\"\" \"\"\"\"\"\nb=1", "1 a='one two\"\" \"\"'\n5 b=1\n"},
        {"a='''\n'x'\n'''", "1 a=''x'\n'\n"},
        {"a=\"\"\nb=''", "1 a=''\n2 b=''\n"},
        {"a = [ 1, # one\n 'x', ]\nb=[]", "1 a[]\n1 a[0]=1\n2 a[1]='x'\n3 b[]\n"},
        {"a.b . \"c.d\".'e' = 1", "1 a.b.c.d.e=1\n"},
        {"a = { b = 1, c.d = 'x', e = {} }\nf = { }", "1 a{}\n1 a.b=1\n1 a.c.d='x'\n1 a.e{}\n2 f{}\n"},
        {"[a.b]\nc=1\n[a]\nd=2", "1 a.b{}\n2 a.b.c=1\n3 a{}\n4 a.d=2\n"},
        {"[[r]]\nx=1\n[[r]]\nx=2", "1 r.0{}\n2 r.0.x=1\n3 r.1{}\n4 r.1.x=2\n"},
        {"1-2_x = 1", "1 1-2_x=1\n"},
    };
    (void)state;
    check(good, SKF_COUNT(good));
}

static void test_refused(void **state)
{
    static const struct pair bad[] = {
        {"a = 1\na = 2", "f:2: a is there already, in line 1"},
        {"[a]\n[a]", "f:2: a is there already, in line 1"},
        {"a=1\n[a.b]", "f:2: b is there already, in line 1"},
        {"a.b=1\na=2", "f:2: a is there already, in line 1"},
        {"a={}\n[a]", "f:2: a is there already, in line 1"},
        {"a", "f:1: '=' is expected behind a"},
        {"=1", "f:1: a key is expected"},
        {"a=", "f:1: a value is expected"},
        {"a=1 b=2", "f:1: unexpected 'b'; one value a line"},
        {"a=x", "f:1: 'x' is no value; a string goes in quotes"},
        {"a=truer", "f:1: 'truer' is no value; a string goes in quotes"},
        {"a=01", "f:1: '01' is no value; a string goes in quotes"},
        {"a=1.", "f:1: '1.' is no value; a string goes in quotes"},
        {"a=0x10", "f:1: '0x10' is no value; a string goes in quotes"},
        {"a=99999999999999999999", "f:1: '99999999999999999999' is no value; a string goes in quotes"},
        {"a=1__0", "f:1: '_' stands between digits only"},
        {"a=2026-11-21", "f:1: dates and times are not used here; a string goes in quotes"},
        {"a=\"x", "f:1: a string without its end"},
        {"a=\"x\ny\"", "f:1: a string without its end"},
        {"a=\"\\q\"", "f:1: an unknown escape in a string"},
        {"a=\"\\u12\"", "f:1: \\u wants 4 hexadecimal digits"},
        {"a=\"\\ud800\"", "f:1: a character that is none"},
        {"a=\"\\u0000\"", "f:1: a character that is none"},
        {"a=\"\x01\"", "f:1: a control character in a string"},
        {"a=[1 2]", "f:1: ',' or ']' is expected"},
        {"a=[[1]]", "f:1: arrays hold plain values here"},
        {"a=[1", "f:1: ',' or ']' is expected"},
        {"a={b=1", "f:1: ',' or '}' is expected"},
        {"[a", "f:1: ']' is expected"},
        {"[[a]", "f:1: ']]' is expected"},
        {"[]", "f:1: a key is expected"},
        {"a.b.c.d.e.f.g=1", "f:1: a key of more than 6 parts"},
        {"\xff=1", "f:1: a key is expected"},
    };
    (void)state;
    check(bad, SKF_COUNT(bad));
}

static void test_limits(void **state)
{
    static char text[SKF_TOML_MAX + 2];
    struct skf_toml t;
    struct skf_why why = {{0}};
    size_t n = 0;
    (void)state;
    memset(text, '\n', sizeof text);
    assert_int_equal(skf_toml_parse("f", text, SKF_TOML_MAX + 1, &t, &why), SKF_ERR_LIMIT);
    assert_int_equal(skf_toml_parse("f", text, SKF_TOML_MAX, &t, &why), SKF_OK);
    skf_toml_free(&t);
    for (unsigned i = 0; i < 5000; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "k%u=1\n", i);
    assert_int_equal(skf_toml_parse("f", text, n, &t, &why), SKF_ERR_LIMIT);
    text[0] = 'a';
    text[1] = '=';
    text[2] = 0; /* a NUL is no text */
    assert_int_equal(skf_toml_parse("f", text, 3, &t, &why), SKF_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_refused), cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
