/* Requests of the OpenAI API: what is taken, what is refused and how it is named, and what the worker is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "gateway/ask.h"
#include "proto/local.pb-c.h"
#include "proto/msg.h"

static const char hi[] = "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]";

static bool is_taken(const char *json, bool is_chat, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    char *exact = skf_memdup(json, strlen(json));
    assert_non_null(exact);
    bool ok = is_gw_ask(exact, strlen(json), is_chat, 9, ask, no);
    skf_free(exact);
    return ok;
}

static Skiff__V1__ToWorker *take(const char *json, bool is_chat, struct skf_gw_ask *ask)
{
    struct skf_gw_refusal no;
    Skiff__V1__ToWorker *m = NULL;
    if (!is_taken(json, is_chat, ask, &no))
        fail_msg("%s: %s", json, no.text);
    assert_int_equal(SKF_UNPACK(skiff__v1__to_worker, Skiff__V1__ToWorker, ask->frame, ask->frame_len, 8 << 20, &m, NULL), SKF_OK);
    assert_int_equal(m->kind_case, SKIFF__V1__TO_WORKER__KIND_GENERATE);
    assert_int_equal(m->generate->id, 9);
    skf_free(ask->frame);
    return m;
}

static void test_taken(void **state)
{
    (void)state;
    struct skf_gw_ask ask;
    Skiff__V1__ToWorker *m =
        take("{\"model\":\"a.b-C_1\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":0,\"top_p\":1,\"top_k\":0,"
             "\"max_completion_tokens\":3,\"max_tokens\":5,\"stop\":\"\\n\",\"seed\":7,\"n\":1,\"user\":\"u\",\"logprobs\":false,"
             "\"frequency_penalty\":0,\"presence_penalty\":0.0,\"tools\":[],\"response_format\":{\"type\":\"text\"},\"logit_bias\":{},"
             "\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"name\":\"x\",\"content\":[{\"type\":\"text\",\"text\":"
             "\"a\"},{\"type\":\"text\",\"text\":\"\\u00e9\"}]},{\"role\":\"assistant\",\"content\":null},{\"role\":\"tool\",\"content\":\"t\"}]}",
             true, &ask);
    const Skiff__V1__Generate *g = m->generate;
    assert_string_equal(ask.model, "a.b-C_1");
    assert_true(ask.stream && ask.include_usage && ask.is_chat && g->is_chat);
    assert_int_equal(g->n_messages, 4);
    assert_string_equal(g->messages[0]->role, "system");
    assert_string_equal(g->messages[1]->content, "a\303\251");
    assert_string_equal(g->messages[2]->content, "");
    assert_string_equal(g->messages[3]->role, "tool");
    assert_true(g->sampling->temperature == 0 && g->sampling->top_p == 1 && g->sampling->has_seed);
    assert_int_equal(g->sampling->max_tokens, 3);
    assert_int_equal(g->sampling->seed, 7);
    assert_int_equal(g->sampling->n_stop, 1);
    skf_msg_free(&m->base);
    m = take("{\"prediction\":{\"type\":\"content\",\"content\":\"a b\"},\"prompt\":\"p\"}", false, &ask);
    assert_string_equal(m->generate->prediction, "a b");
    skf_msg_free(&m->base);
    m = take("{\"prediction\":{\"type\":\"content\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},\"prompt\":\"p\"}", false, &ask);
    assert_string_equal(m->generate->prediction, "ab");
    skf_msg_free(&m->base);
    m = take("{\"prompt\":[\"p\"],\"stream\":null,\"stop\":null,\"logprobs\":null,\"echo\":false,\"best_of\":1,\"suffix\":\"\"}", false, &ask);
    assert_string_equal(m->generate->prompt, "p");
    assert_false(ask.stream || ask.model[0] || m->generate->is_chat || m->generate->sampling->has_seed);
    skf_msg_free(&m->base);
}

/* Penalties, several answers, forms and tools reach the worker. */
static void test_more(void **state)
{
    (void)state;
    struct skf_gw_ask ask;
    Skiff__V1__ToWorker *m =
        take("{\"n\":3,\"best_of\":3,\"logprobs\":true,\"top_logprobs\":2,\"presence_penalty\":0.5,\"frequency_penalty\":-1,\"min_p\":0.25,"
             "\"logit_bias\":{\"7\":-100,\"9\":1.5},\"metadata\":{\"a\":\"b\"},\"user\":\"u\",\"store\":false,"
             "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"strict\":true,\"schema\":{\"type\":\"null\"}}},"
             "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", true, &ask);
    const Skiff__V1__Generate *g = m->generate;
    assert_true(ask.n == 3 && ask.has_logprobs && g->n == 3 && g->sampling->logprobs && g->sampling->top_logprobs == 2);
    assert_true(g->sampling->presence_penalty == 0.5f && g->sampling->frequency_penalty == -1.0f && g->sampling->min_p == 0.25f);
    assert_true(g->sampling->n_logit_bias == 2 && g->sampling->logit_bias[0]->token == 7 && g->sampling->logit_bias[1]->add == 1.5f);
    assert_int_equal(g->form, 2);
    assert_string_equal(g->grammar, "{\"type\":\"null\"}");
    skf_msg_free(&m->base);
    m = take("{\"prompt\":\"p\",\"logprobs\":0,\"grammar\":\"root ::= \\\"a\\\"\"}", false, &ask);
    assert_true(ask.has_logprobs && m->generate->form == 1);
    assert_string_equal(m->generate->grammar, "root ::= \"a\"");
    skf_msg_free(&m->base);
    m = take("{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}],"
             "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}},\"parallel_tool_calls\":false,"
             "\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":"
             "{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"t\"}]}", true, &ask);
    g = m->generate;
    assert_true(g->tool_choice == 1 && g->is_one_call && strstr(g->tools, "\"f\""));
    assert_string_equal(g->tool_name, "f");
    assert_non_null(strstr(g->messages[0]->tool_calls, "\"arguments\":\"{}\""));
    assert_string_equal(g->messages[1]->tool_call_id, "c");
    skf_msg_free(&m->base);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *param;
    } bad[] = {
        {"\"model\":1", "model"},
        {"\"prediction\":\"text\"", "prediction"},
        {"\"prediction\":{\"content\":\"x\"}", "prediction"},
        {"\"prediction\":{\"type\":\"content\",\"content\":7}", "prediction.content"},
        {"\"prediction\":{\"type\":\"content\",\"content\":[{\"type\":\"image_url\"}]}", "prediction.content"},
        {"\"temperature\":\"1\"", "temperature"},
        {"\"temperature\":-0.1", "temperature"},
        {"\"temperature\":1e300", "temperature"},
        {"\"temperature\":[]", "temperature"},
        {"\"top_p\":1.5", "top_p"},
        {"\"top_p\":true", "top_p"},
        {"\"top_k\":1.5", "top_k"},
        {"\"top_k\":-1", "top_k"},
        {"\"repetition_penalty\":0", "repetition_penalty"},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":-5", "max_tokens"},
        {"\"max_tokens\":1e9", "max_tokens"},
        {"\"max_tokens\":9223372036854775807", "max_tokens"},
        {"\"max_completion_tokens\":\"9\"", "max_completion_tokens"},
        {"\"seed\":1.5", "seed"},
        {"\"seed\":\"1\"", "seed"},
        {"\"stop\":5", "stop"},
        {"\"stop\":[\"a\",5]", "stop"},
        {"\"stop\":\"\"", "stop"},
        {"\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\",\"l\",\"m\",\"n\",\"o\",\"p\",\"q\"]", "stop"},
        {"\"stream\":\"yes\"", "stream"},
        {"\"stream_options\":true", "stream_options"},
        {"\"stream_options\":{\"include_usage\":1}", "include_usage"},
        {"\"n\":17", "n"},
        {"\"n\":0", "n"},
        {"\"n\":2,\"best_of\":3", "best_of"},
        {"\"logprobs\":5", "logprobs"},
        {"\"top_logprobs\":3", "top_logprobs"},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
        {"\"frequency_penalty\":2.5", "frequency_penalty"},
        {"\"presence_penalty\":\"0\"", "presence_penalty"},
        {"\"min_p\":1.5", "min_p"},
        {"\"echo\":true", "echo"},
        {"\"suffix\":\"s\"", "suffix"},
        {"\"functions\":[{}]", "functions"},
        {"\"tools\":{}", "tools"},
        {"\"tools\":[{}]", "tools[0]"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]", "tools[0]"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":[]}}]", "tools[0]"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"function\":{\"name\":\"g\"}}", "tool_choice"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"response_format\":{\"type\":\"json_object\"}", "tools"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {"\"tool_choice\":\"any\"", "tool_choice"},
        {"\"parallel_tool_calls\":1", "parallel_tool_calls"},
        {"\"logit_bias\":[1]", "logit_bias"},
        {"\"logit_bias\":{\"x\":1}", "logit_bias"},
        {"\"logit_bias\":{\"5\":101}", "logit_bias"},
        {"\"logit_bias\":{\"5\":\"1\"}", "logit_bias"},
        {"\"grammar\":5", "grammar"},
        {"\"grammar\":\"root ::= \",\"response_format\":{\"type\":\"json_object\"}", "grammar"},
        {"\"response_format\":{\"type\":\"xml\"}", "response_format"},
        {"\"response_format\":{\"type\":\"json_schema\"}", "response_format"},
        {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}", "response_format"},
        {"\"response_format\":\"text\"", "response_format"},
    };
    struct skf_gw_ask ask;
    struct skf_gw_refusal no;
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        char json[1024];
        snprintf(json, sizeof json, "{%s,%s}", bad[i].fields, hi);
        if (is_taken(json, true, &ask, &no) || no.status != 400 || strcmp(no.param, bad[i].param) != 0 || !strstr(no.text, bad[i].param))
            fail_msg("%s: %u %s: %s", json, no.status, no.param, no.text);
    }
}

static void test_bad_messages(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{}", "messages"},
        {"{\"messages\":{}}", "messages"},
        {"{\"messages\":[]}", "messages"},
        {"{\"messages\":[5]}", "messages[0]"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"robot\",\"content\":\"x\"}]}", "messages[1].role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[5]}]}", "messages[0].content"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "messages[0]"},
        {"{\"messages\":[{\"role\":\"tool\",\"tool_call_id\":5}]}", "messages[0]"},
    };
    struct skf_gw_ask ask;
    struct skf_gw_refusal no;
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        if (is_taken(bad[i][0], true, &ask, &no) || no.status != 400 || strcmp(no.param, bad[i][1]) != 0)
            fail_msg("%s: %u %s: %s", bad[i][0], no.status, no.param, no.text);
    assert_false(is_taken("{\"prompt\":\"\"}", false, &ask, &no));
    assert_false(is_taken("{\"prompt\":[1,2]}", false, &ask, &no));
    assert_false(is_taken("{\"prompt\":[\"a\",\"b\"]}", false, &ask, &no));
    assert_string_equal(no.param, "prompt");
}

/* What is no JSON, or more of it than is wanted, is one 400 and costs nothing. */
static void test_bad_json(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{", "null", "5", "\"x\"", "{\"messages\":}", "{\"a\":1}{\"a\":1}", "{\"a\":1,\"a\":1}",
                                      "{\"prompt\":\"\xff\"}", "{\"prompt\":\"\\u0000\"}", "{\"prompt\":\"\\ud800\"}", "{\"prompt\":\"\xed\xa0\x80\"}",
                                      "{\"temperature\":NaN,\"prompt\":\"x\"}", "{\"temperature\":1e999,\"prompt\":\"x\"}"};
    struct skf_gw_ask ask;
    struct skf_gw_refusal no;
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        if (is_taken(bad[i], false, &ask, &no) || no.status != 400)
            fail_msg("%s: %u", bad[i], no.status);
    char *deep = skf_alloc(400001);
    memset(deep, '[', 400000);
    deep[400000] = 0;
    assert_false(is_taken(deep, true, &ask, &no));
    assert_int_equal(no.status, 400);
    skf_free(deep);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct skf_gw_ask ask;
    struct skf_gw_refusal no;
    static const char json[] = "{\"stop\":[\"a\"],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]}";
    for (unsigned long n = 1; n < 500; n++) {
        skf_alloc_fail_at(n);
        bool ok = is_gw_ask(json, sizeof json - 1, true, 1, &ask, &no);
        bool over = skf_alloc_count() < n;
        skf_alloc_fail_at(0);
        if (ok) {
            skf_free(ask.frame);
            assert_true(over);
            return;
        }
        assert_true(no.status == 503 || no.status == 400); /* the JSON parser does not say that it was memory */
    }
    fail_msg("allocates without end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken), cmocka_unit_test(test_more), cmocka_unit_test(test_refused), cmocka_unit_test(test_bad_messages),
                                       cmocka_unit_test(test_bad_json), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
