/* Grammars: what they allow and refuse, the same from tokens as byte by byte; bounds; tools; what else is asked of tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "runtime/grammar_cache.h"
#include "runtime/sampler_priv.h"
#include "runtime/schema_priv.h"
#include "runtime/tools_priv.h"
#include "tests/unit/runtime_tiny.h"

/* Does the grammar allow the text, whole? */
static bool is_allowed(struct skf_grammar *g, const char *text)
{
    uint32_t s = skf_machine_at(g->machine, g->start, 0);
    for (; *text; text++)
        s = skf_machine_step(g->machine, s, (uint8_t)*text);
    assert_int_not_equal(s, SKF_STATE_UNKNOWN);
    return s != SKF_STATE_DEAD && g->machine->states[s].is_done;
}

static void check(const char *text, enum skf_form form, const char *yes, const char *no)
{
    struct skf_grammar *g = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = form == SKF_FORM_GBNF ? skf_grammar_gbnf(text, strlen(text), &g, &why) : skf_grammar_schema(text, strlen(text), &g, &why);
    if (e != SKF_OK)
        fail_msg("%s: %s", text, why.text);
    for (int side = 0; side < 2; side++) {
        char all[512], *next = all;
        snprintf(all, sizeof all, "%s", side ? no : yes);
        while (next) { /* texts with a bar between */
            char *one = strsep(&next, "|");
            if (is_allowed(g, one) == (side != 0))
                fail_msg("%s %s %s", text, side ? "allows" : "does not allow", one);
        }
    }
    skf_grammar_free(g);
}

static void test_gbnf(void **state)
{
    (void)state;
    check("root ::= \"a\" b* # words\nb ::= [x-z] \"-\"?", SKF_FORM_GBNF, "a|ax|ax-y-z|azz", "|b|a-|ax--");
    check("root ::= (\"ab\" \"c\"){2,3} | [^a-c]+", SKF_FORM_GBNF, "abcabc|abcabcabc|dd|\xc3\xa9\xe2\x82\xac", "abc|abcabcabcabc|a|\xc3|\xc0\x80");
    check("root ::= x\nx ::= \"(\" x \")\" |\n  \"\\x41\\u00e9\\\"\"", SKF_FORM_GBNF, "A\xc3\xa9\"|((A\xc3\xa9\"))", "(A\xc3\xa9\"|A");
    check("root ::= \"a\"? \"b\"{0,2} .", SKF_FORM_GBNF, "abb.|z|b", "abbb.|");
    check("root ::= list\nlist ::= [0-9] | [0-9] \",\" list", SKF_FORM_GBNF, "1|1,2,3", "1,|,");
}

static void test_gbnf_refuses(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "no rule root"}, {"x ::= \"a\"", "no rule root"}, {"root ::= y", "rule y is not there"}, {"root ::= \"a", "does not end"},
        {"root ::= (\"a\"", "does not end"}, {"root ::= [a", "does not end"}, {"root ::= [b-a]", "makes no sense"}, {"root ::= root \"a\" | \"b\"", "left recursion"},
        {"root ::= a\na ::= b?\nb ::= c* a \"x\"\nc ::= \"c\"", "left recursion"}, {"root ::= \"a\" root", "no text"}, {"root ::= \"a\"**", "one repetition on another"},
        {"root ::= \"a\"{3,1}", "makes no sense"}, {"root ::= \"a\"{99999}", "at most 10000"}, {"root ::= \"\\q\"", "escape"}, {"root := \"a\"", "expected"},
        {"root ::= \"a\")", "parenthesis"}, {"root ::= \"a\"\nroot ::= \"b\"", "there already"}, {"root ::= ((\"a\"{9999}){9999}){9999}", "too large"},
        {"root ::= (((){9999}){9999}){9999}", "too large"},
    };
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_grammar *g = NULL;
        struct skf_why why = {{0}};
        if (skf_grammar_gbnf(bad[i][0], strlen(bad[i][0]), &g, &why) == SKF_OK || !strstr(why.text, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], why.text);
    }
}

static void test_schemas(void **state)
{
    (void)state;
    check("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"}},\"required\":[\"b\"]}", SKF_FORM_SCHEMA,
          "{\"a\":1, \"b\":true}|{\"b\": false}|{\n  \"b\":true\n}", "{}|{\"a\":1}|{\"b\":true,\"a\":1}|{\"b\":true,\"c\":1}|{\"b\":1}|{\"b\":true,}");
    check("{\"properties\":{\"ab\":{\"const\":1}},\"additionalProperties\":{\"type\":\"null\"}}", SKF_FORM_SCHEMA,
          "{}|{\"ab\":1}|{\"a\":null}|{\"abc\":null}|{\"ab\":1,\"x\":null, \"\":null}", "{\"ab\":null}|{\"abc\":1}");
    check("{\"type\":\"array\",\"items\":{\"enum\":[1,\"x\"]},\"minItems\":1,\"maxItems\":2}", SKF_FORM_SCHEMA, "[1]|[1,\"x\"]|[ 1, 1]", "[]|[1,1,1]|[2]|[1,]");
    check("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"integer\"}],\"items\":false}", SKF_FORM_SCHEMA, "[]|[null]|[null,4]", "[4]|[null,4,4]");
    check("{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":105}", SKF_FORM_SCHEMA, "-12|-9|0|7|99|100|104", "-13|105|-0|01|1.0|-20|999");
    check("{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":2}", SKF_FORM_SCHEMA, "0.5|1|1.25|2|0.0001", "0|0.0|2.5|-1|3");
    check("{\"type\":[\"string\",\"null\"],\"minLength\":2,\"maxLength\":3}", SKF_FORM_SCHEMA, "null|\"ab\"|\"\xc3\xa9\\n\\u00e9\"", "\"a\"|\"abcd\"|\"a\\ud800\"|\"a\nb\"");
    check("{\"type\":\"string\",\"pattern\":\"^a\\\\d+(x.|y)?$\"}", SKF_FORM_SCHEMA, "\"a1\"|\"a22xz\"|\"a3y\"|\"a4x\\\"\"", "\"a\"|\"a1x\"|\"ba1\"|\"a1z\"");
    check("{\"type\":\"string\",\"pattern\":\"b\"}", SKF_FORM_SCHEMA, "\"b\"|\"abc\"|\"\\nb\"", "\"\"|\"a\"");
    check("{\"type\":\"string\",\"format\":\"date\"}", SKF_FORM_SCHEMA, "\"2026-02-28\"|\"2024-12-31\"", "\"2026-02-30\"|\"2026-13-01\"|\"26-1-1\"");
    check("{\"$defs\":{\"t\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/t\"}}},\"$ref\":\"#/$defs/t\"}", SKF_FORM_SCHEMA, "[]|[[],[[]]]", "[1]|[[]");
    check("{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", SKF_FORM_SCHEMA, "1|\"\"", "1.5|true");
    check("true", SKF_FORM_SCHEMA, "{\"a\":[1,-2.5e3,\"x\",null]}|0|true", "nul|{a:1}|[1,]|01");
}

static void test_schemas_refuse(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"not\":{}}", "not is not supported"}, {"{\"type\":\"object\",\"patternProperties\":{}}", "patternProperties"}, {"{\"type\":\"thing\"}", "thing"},
        {"{\"$ref\":\"http://x/y\"}", "$ref"}, {"{\"$ref\":\"#/a\"}", "leads to no schema"}, {"{\"$ref\":\"#\"}", "no text"}, {"5", "must be an object"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "use anyOf"}, {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "look-around"}, {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", "escape"},
        {"{\"type\":\"string\",\"pattern\":\"a{5000}\"}", "at most 1000"}, {"{\"type\":\"string\",\"pattern\":\"a**\"}", "one repetition"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", "iri"}, {"{\"type\":\"number\",\"multipleOf\":0.1}", "multipleOf"}, {"{\"enum\":[]}", "enum"},
        {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", "no whole number"}, {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "at least 3"},
        {"{\"type\":\"string\",\"enum\":[1]}", "no value"}, {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", "a is required"},
        {"{\"anyOf\":[{}],\"properties\":{}}", "beside anyOf"}, {"{\"type\":\"array\",\"items\":[{}]}", "prefixItems"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":100000},\"maxItems\":100000}", "too large"},
    };
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_grammar *g = NULL;
        struct skf_why why = {{0}};
        if (skf_grammar_schema(bad[i][0], strlen(bad[i][0]), &g, &why) == SKF_OK || !strstr(why.text, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], why.text);
    }
}

static struct skf_tokenizer *tokenizer(void)
{
    char path[256];
    struct skf_model *m = NULL;
    struct skf_tokenizer *tk = NULL;
    assert_int_equal(tiny_write(tiny_path(path, "grammar"), &(struct tiny){0}), SKF_OK);
    assert_int_equal(skf_model_open(path, &m, NULL), SKF_OK);
    assert_int_equal(skf_tokenizer_load(skf_model_gguf(m), &tk, NULL), SKF_OK);
    skf_model_close(m);
    (void)unlink(path);
    return tk;
}

/* The mask is what trying each token byte by byte gives. */
static void check_mask(const struct skf_tokenizer *tk, struct skf_grammar *g, uint32_t state, const uint64_t *mask)
{
    for (int32_t id = 0; id < (int32_t)skf_tokenizer_size(tk); id++) {
        size_t n = 0;
        const char *p = skf_tokenizer_text(tk, id, &n);
        uint32_t s = state;
        for (size_t i = 0; i < n; i++)
            s = skf_machine_step(g->machine, s, (uint8_t)p[i]);
        bool is = is_tokenizer_stop(tk, id) ? g->machine->states[state].is_done : n && !is_tokenizer_control(tk, id) && s != SKF_STATE_DEAD;
        if (is != (mask[id / 64] >> id % 64 & 1))
            fail_msg("token %d %.*s: %d", id, (int)n, p, is);
    }
}

static void test_masks(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}", "{\"type\":\"object\",\"properties\":{\"hello\":{\"type\":\"string\"},\"h\":{\"type\":\"array\",\"items\":{\"enum\":[\"hell\",\"he\"]}}}}",
        "{\"type\":\"string\",\"pattern\":\"^(he|hell|hello| hello)*$\"}", "{\"type\":\"string\",\"minLength\":3,\"maxLength\":9}",
        "{\"anyOf\":[{\"const\":\"hello\"},{\"const\":\"hell\"},{\"type\":\"string\",\"maxLength\":5},{\"type\":\"string\",\"pattern\":\"l\"}]}",
    };
    struct skf_tokenizer *tk = tokenizer();
    struct skf_grammars *gs = NULL;
    uint64_t seed = 5;
    assert_int_equal(skf_grammars_new(tk, &gs), SKF_OK);
    for (size_t t = 0; t < SKF_COUNT(texts) * 4; t++) { /* each several times: kept masks are the same */
        struct skf_kept *k = NULL;
        struct skf_match *x = NULL;
        const char *text = texts[t % SKF_COUNT(texts)];
        assert_int_equal(skf_grammars_take(gs, SKF_FORM_SCHEMA, text, strlen(text), &k, NULL), SKF_OK);
        struct skf_grammar *g = skf_kept_grammar(k);
        assert_int_equal(skf_match_new(g, skf_grammars_vocab(gs), &x), SKF_OK);
        uint32_t at = skf_machine_at(g->machine, g->start, 0);
        for (int step = 0; step < 60 && !is_match_over(x); step++) {
            const uint64_t *mask = NULL;
            assert_int_equal(skf_match_mask(x, &mask), SKF_OK);
            check_mask(tk, g, at, mask);
            int32_t id;
            do
                id = (int32_t)(tiny_next(&seed) % skf_tokenizer_size(tk));
            while (!(mask[id / 64] >> id % 64 & 1));
            if (is_tokenizer_stop(tk, id))
                break;
            size_t n = 0;
            const char *p = skf_tokenizer_text(tk, id, &n);
            assert_int_equal(skf_match_take(x, id), SKF_OK);
            for (size_t i = 0; i < n; i++)
                at = skf_machine_step(g->machine, at, (uint8_t)p[i]);
        }
        skf_match_free(x);
        skf_grammars_put(gs, k);
    }
    skf_grammars_free(gs);
    skf_tokenizer_free(tk);
}

/* Grammars that can be read in ever more ways end with a limit, and soon. */
static void test_bombs(void **state)
{
    (void)state;
    static const char *const bombs[] = {
        "root ::= (a | b)* \"!\"\na ::= \"x\" root? \"x\"\nb ::= \"x\" root? \"xx\"", "root ::= x x x x x x x x x\nx ::= \"a\"* | \"a\" x \"a\" | \"a\" x",
        "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\"", "root ::= ([a-z]* [a-z]* [a-z]* [a-z]* [a-z]*){50}",
    };
    struct skf_tokenizer *tk = tokenizer();
    struct skf_vocab *v = NULL;
    assert_int_equal(skf_vocab_new(tk, &v), SKF_OK);
    for (size_t i = 0; i < SKF_COUNT(bombs); i++) {
        struct skf_grammar *g = NULL;
        struct skf_match *x = NULL;
        const uint64_t *mask;
        assert_int_equal(skf_grammar_gbnf(bombs[i], strlen(bombs[i]), &g, NULL), SKF_OK);
        assert_int_equal(skf_match_new(g, v, &x), SKF_OK);
        enum skf_err e = SKF_OK;
        uint64_t begun = skf_now_ns();
        for (int step = 0; step < 2000 && e == SKF_OK; step++) {
            e = skf_match_mask(x, &mask);
            if (e == SKF_OK)
                e = skf_match_take(x, i == 0 ? 'x' : 'a');
        }
        assert_true(e == SKF_OK || e == SKF_ERR_LIMIT || e == SKF_ERR_ARG);
        assert_true(skf_now_ns() - begun < 20000000000ull);
        skf_match_free(x);
        skf_grammar_free(g);
    }
    skf_vocab_free(v);
    skf_tokenizer_free(tk);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char text[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"x\"}},\"additionalProperties\":{\"enum\":[1,2]}}";
    for (unsigned long at = 1; at < 400; at++) {
        struct skf_grammar *g = NULL;
        struct skf_why why = {{0}};
        skf_alloc_fail_at(at);
        enum skf_err e = skf_grammar_schema(text, sizeof text - 1, &g, &why);
        bool is_over = skf_alloc_count() < at;
        skf_alloc_fail_at(0);
        if (is_over) {
            assert_int_equal(e, SKF_OK);
            skf_grammar_free(g);
            return;
        }
        skf_grammar_free(e == SKF_OK ? g : NULL);
    }
    fail_msg("more allocations than were tried");
}

/* ---- tools ---------------------------------------------------------------------------------------------------------------------------- */
static void note(void *ctx, const struct skf_tool_piece *p)
{
    struct skf_buf *b = ctx;
    if (p->name)
        assert_int_equal(skf_buf_printf(b, "[%u %s]", p->call, p->name), SKF_OK);
    assert_int_equal(skf_buf_put(b, p->text, p->n), SKF_OK);
}

static void check_apart(enum skf_tool_form form, const char *text, const char *want)
{
    for (size_t step = 1; step < 9; step++) { /* however it is cut */
        struct skf_tool_parser x;
        struct skf_buf b = SKF_BUF_INIT(4096);
        const char *got = "";
        skf_tool_parser_init(&x, form);
        for (size_t i = 0; i < strlen(text); i += step)
            assert_int_equal(skf_tool_feed(&x, text + i, SKF_MIN(step, strlen(text) - i), false, note, &b), SKF_OK);
        assert_int_equal(skf_tool_feed(&x, "", 0, true, note, &b), SKF_OK);
        assert_int_equal(skf_buf_cstr(&b, &got), SKF_OK);
        assert_string_equal(got, want);
        skf_tool_parser_free(&x);
        skf_buf_free(&b);
    }
}

static void test_tools(void **state)
{
    (void)state;
    static const char tools[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":"
                                "{\"a\":{\"type\":\"string\"}},\"required\":[\"a\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]}";
    static const struct {
        const char *head, *yes, *no;
    } cases[] = {
        {"{\"form\":\"hermes\",\"required\":true,", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":\"x\"}}\n</tool_call>", "hi"},
        {"{\"form\":\"hermes\",\"required\":true,\"name\":\"g\",", "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
         "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\":\"\"}}</tool_call>"},
        {"{\"form\":\"hermes\",\"required\":false,", "I < you <tool_cat> <<tool_call>{\"name\": \"g\", \"arguments\": {\"z\":1}}</tool_call>", "a <tool_call>b"},
        {"{\"form\":\"hermes\",\"parallel\":false,\"required\":true,", "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
         "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>"},
        {"{\"form\":\"llama\",\"required\":false,", "{\"name\": \"f\", \"parameters\": {\"a\":\"x\"}}", "{\"x\":1}"},
        {"{\"form\":\"llama\",\"required\":false,", "well {", "{\"name\": \"f\", \"parameters\": {}}"},
    };
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        char text[600];
        struct skf_grammar *g = NULL;
        struct skf_why why = {{0}};
        snprintf(text, sizeof text, "%s%s", cases[i].head, tools);
        if (skf_grammar_tools(text, strlen(text), &g, &why) != SKF_OK)
            fail_msg("%s: %s", text, why.text);
        if (!is_allowed(g, cases[i].yes) || is_allowed(g, cases[i].no))
            fail_msg("case %zu", i);
        skf_grammar_free(g);
    }
    check_apart(SKF_TOOL_HERMES, "a<tool_cat<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":\"}\\\"{\",\"b\":[{}]}}\n</tool_call>\n<tool_call>{\"name\": \"g\", "
                                 "\"arguments\": {}}</tool_call>",
                "a<tool_cat[1 f]{\"a\":\"}\\\"{\",\"b\":[{}]}[2 g]{}");
    check_apart(SKF_TOOL_HERMES, "so <tool", "so <tool");
    check_apart(SKF_TOOL_LLAMA, "{\"name\": \"f\", \"parameters\": {\"a\":1}}", "[1 f]{\"a\":1}");
    check_apart(SKF_TOOL_LLAMA, "no {call}", "no {call}");
}

/* ---- what is asked of tokens -------------------------------------------------------------------------------------------------------------- */
static void test_penalties(void **state)
{
    (void)state;
    float logits[6] = {1, 2, 3, 4, 5, -1}, want[6];
    struct skf_candidate scratch[6];
    struct skf_sampler s;
    static const struct skf_bias bias[] = {{0, 3.5f}, {4, -100}};
    const struct skf_sampler_more more = {0.75f, 0.5f, 0, bias, 2, 10};
    skf_sampler_init(&s, 0, 0, 1, 1, 1);
    assert_int_equal(skf_sampler_more(&s, &more), SKF_OK);
    skf_sampler_saw(&s, 2); /* the prompt does not count */
    skf_sampler_said(&s, 3);
    skf_sampler_said(&s, 3);
    skf_sampler_said(&s, 5);
    memcpy(want, logits, sizeof want);
    want[0] += 3.5f;
    want[4] += -100;
    want[3] -= 2 * 0.5f + 0.75f;
    want[5] -= 0.5f + 0.75f;
    assert_int_equal(skf_sampler_pick(&s, logits, 6, scratch), 0);
    assert_memory_equal(logits, want, sizeof want);
    skf_sampler_free(&s);
    skf_sampler_init(&s, 1, 0, 1, 1, 7);
    const struct skf_sampler_more least = {.min_p = 0.3f}; /* e^-1 of the likeliest is kept, e^-2 is not */
    assert_int_equal(skf_sampler_more(&s, &least), SKF_OK);
    unsigned seen[6] = {0};
    for (int i = 0; i < 400; i++) {
        float copy[6] = {1, 2, 3, 4, 5, -1};
        seen[skf_sampler_pick(&s, copy, 6, scratch)]++;
    }
    assert_true(seen[4] > seen[3] && seen[3] > 50 && !seen[0] && !seen[1] && !seen[2] && !seen[5]);
    const uint64_t mask = 1u << 1 | 1u << 5;
    for (int i = 0; i < 100; i++) {
        float copy[6] = {1, 2, 3, 4, 5, -1};
        assert_int_equal(skf_sampler_pick_of(&s, copy, 6, &mask, scratch), 1);
    }
    skf_sampler_free(&s);
}

static void test_chances(void **state)
{
    (void)state;
    float logits[50];
    uint64_t seed = 3;
    double sum = 0, all = 0;
    struct skf_chances c;
    for (int i = 0; i < 50; i++)
        logits[i] = (float)(tiny_next(&seed) % 100) / 10;
    for (int i = 0; i < 50; i++)
        sum += exp((double)logits[i]);
    skf_chances_of(logits, 50, 20, &c);
    assert_int_equal(c.n_top, 20);
    for (int i = 0; i < 50; i++) {
        assert_true(fabs(skf_chance(&c, logits[i]) - ((double)logits[i] - log(sum))) < 1e-9);
        all += exp(skf_chance(&c, logits[i]));
    }
    assert_true(fabs(all - 1) < 1e-9);
    for (uint32_t i = 0; i < c.n_top; i++) {
        uint32_t above = 0;
        for (int k = 0; k < 50; k++)
            above += logits[k] > c.top[i].logit || (logits[k] == c.top[i].logit && k < c.top[i].id);
        assert_int_equal(above, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gbnf), cmocka_unit_test(test_gbnf_refuses), cmocka_unit_test(test_schemas), cmocka_unit_test(test_schemas_refuse),
        cmocka_unit_test(test_masks), cmocka_unit_test(test_bombs), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_tools),
        cmocka_unit_test(test_penalties), cmocka_unit_test(test_chances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
