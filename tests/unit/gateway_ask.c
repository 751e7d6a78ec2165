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
        {"\"n\":2", "n"},
        {"\"n\":0", "n"},
        {"\"logprobs\":true", "logprobs"},
        {"\"top_logprobs\":3", "top_logprobs"},
        {"\"frequency_penalty\":0.5", "frequency_penalty"},
        {"\"presence_penalty\":\"0\"", "presence_penalty"},
        {"\"tools\":[{}]", "tools"},
        {"\"logit_bias\":{\"5\":1}", "logit_bias"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
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
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "messages[0].role"},
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken), cmocka_unit_test(test_refused), cmocka_unit_test(test_bad_messages),
                                       cmocka_unit_test(test_bad_json), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
