/* Requests: penalties, probabilities, several answers, forms of answers, tools (ask_priv.h). */
#include "base/alloc.h"
#include "base/util.h"
#include "gateway/ask_priv.h"

enum { FORM_GBNF = 1, FORM_SCHEMA, FORM_OBJECT }; /* enum skf_form of the worker */

/* ---- tokens ----------------------------------------------------------------------------------------------------------------------- */
static bool is_biases(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "logit_bias");
    size_t n = 0;
    if (j && !is_json_obj(j))
        return is_gw_refused(p, "logit_bias", NULL, "logit_bias must be an object of token numbers, not %s", skf_gw_kind(j));
    if (skf_json_len(j) > ASK_BIASES_MAX)
        return is_gw_refused(p, "logit_bias", NULL, "at most %d tokens in logit_bias", ASK_BIASES_MAX);
    p->biases = skf_calloc(skf_json_len(j) + 1, sizeof *p->biases);
    p->sampling.logit_bias = skf_calloc(skf_json_len(j) + 1, sizeof *p->sampling.logit_bias);
    if (!p->biases || !p->sampling.logit_bias)
        return is_gw_out_of_memory(p);
    for (void *it = skf_json_iter(j); it; it = skf_json_next(j, it), n++) {
        const char *key = skf_json_iter_key(it);
        const skf_json *v = skf_json_iter_value(it);
        size_t digits = strspn(key, "0123456789");
        double add = skf_json_f64(v, 1000);
        if (digits == 0 || digits > 9 || key[digits])
            return is_gw_refused(p, "logit_bias", NULL, "logit_bias: %.20s is no token's number", key);
        if (!is_json_num(v) || !(add >= -100 && add <= 100))
            return is_gw_refused(p, "logit_bias", NULL, "logit_bias of token %s must be a number from -100 to 100", key);
        skiff__v1__logit_bias__init(&p->biases[n]);
        p->biases[n].token = (int32_t)strtol(key, NULL, 10);
        p->biases[n].add = (float)add;
        p->sampling.logit_bias[n] = &p->biases[n];
    }
    p->sampling.n_logit_bias = n;
    return true;
}

static bool is_logprobs(struct gw_parser *p)
{
    double top = 0;
    bool is_on = false;
    if (p->ask->is_chat) {
        if (!is_gw_flag(p, p->body, "logprobs", &is_on) || !is_gw_number(p, "top_logprobs", 0, ASK_TOP_MAX, true, &top))
            return false;
        if (top > 0 && !is_on)
            return is_gw_refused(p, "top_logprobs", NULL, "top_logprobs needs logprobs: true");
    } else if (!is_json_bool(skf_gw_member(p->body, "logprobs")) || skf_json_is_true(skf_gw_member(p->body, "logprobs"), false)) {
        if (!is_gw_number(p, "logprobs", 0, ASK_TOP_MAX, true, &top))
            return false;
        is_on = skf_gw_member(p->body, "logprobs") != NULL;
    }
    p->ask->has_logprobs = is_on;
    p->sampling.logprobs = is_on;
    p->sampling.top_logprobs = (uint32_t)top;
    return true;
}

static bool is_answers(struct gw_parser *p)
{
    double n = 1, best = 0, presence = 0, frequency = 0, min_p = 0;
    if (!is_gw_number(p, "n", 1, ASK_N_MAX, true, &n) || !is_gw_number(p, "best_of", 1, ASK_N_MAX, true, &best) ||
        !is_gw_number(p, "presence_penalty", -2, 2, false, &presence) || !is_gw_number(p, "frequency_penalty", -2, 2, false, &frequency) ||
        !is_gw_number(p, "min_p", 0, 1, false, &min_p))
        return false;
    if (best > 0 && best != n)
        return is_gw_refused(p, "best_of", "unsupported_parameter", "best_of other than n is not supported");
    p->generate.n = p->ask->n = (unsigned)n;
    p->sampling.presence_penalty = (float)presence;
    p->sampling.frequency_penalty = (float)frequency;
    p->sampling.min_p = (float)min_p;
    return true;
}

/* ---- the form of an answer --------------------------------------------------------------------------------------------------------------- */
static bool is_schema(struct gw_parser *p, const skf_json *format)
{
    const skf_json *outer = skf_gw_member(format, "json_schema"), *schema = skf_json_get(outer, "schema");
    bool is_strict = false;
    if (!is_json_obj(outer) || !(is_json_obj(schema) || is_json_bool(schema)))
        return is_gw_refused(p, "response_format", NULL, "response_format.json_schema.schema must be a schema");
    if (!is_gw_flag(p, outer, "strict", &is_strict)) /* it is always held to */
        return false;
    p->generate.form = FORM_SCHEMA;
    return is_gw_json_kept(p, schema, &p->generate.grammar);
}

static bool is_form(struct gw_parser *p)
{
    const skf_json *format = skf_gw_member(p->body, "response_format"), *grammar = skf_gw_member(p->body, "grammar");
    const char *type = skf_json_cstr(skf_json_get(format, "type"));
    if (grammar && !is_json_str(grammar))
        return is_gw_refused(p, "grammar", NULL, "grammar must be a string, not %s", skf_gw_kind(grammar));
    if (format && !type)
        return is_gw_refused(p, "response_format", NULL, "response_format must be an object with a type");
    if (format && strcmp(type, "text") != 0) {
        if (grammar)
            return is_gw_refused(p, "grammar", NULL, "grammar and response_format are two; send one");
        if (strcmp(type, "json_schema") == 0)
            return is_schema(p, format);
        if (strcmp(type, "json_object") != 0)
            return is_gw_refused(p, "response_format", "unsupported_parameter",
                                 "response_format %.40s is not supported; text, json_object and json_schema are", type);
        p->generate.form = FORM_OBJECT;
    }
    if (grammar) {
        p->generate.form = FORM_GBNF;
        p->generate.grammar = (char *)(uintptr_t)skf_json_cstr(grammar);
    }
    return true;
}

/* ---- tools ------------------------------------------------------------------------------------------------------------------------------- */
static bool is_name(const char *name)
{
    size_t n = name ? strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") : 0;
    return n > 0 && n <= 64 && !name[n];
}

static bool is_tool(struct gw_parser *p, const skf_json *tool, size_t i)
{
    char param[64];
    const skf_json *f = skf_json_get(tool, "function"), *parameters = skf_gw_member(f, "parameters"), *words = skf_gw_member(f, "description");
    const char *type = skf_json_cstr(skf_json_get(tool, "type"));
    snprintf(param, sizeof param, "tools[%zu]", i);
    if (!type || strcmp(type, "function") != 0 || !is_json_obj(f))
        return is_gw_refused(p, param, NULL, "%s must be of type function, with a function", param);
    if (!is_name(skf_json_cstr(skf_json_get(f, "name"))))
        return is_gw_refused(p, param, NULL, "%s: its name must be 1 to 64 of a-z, A-Z, 0-9, _ and -", param);
    if ((parameters && !is_json_obj(parameters)) || (words && !is_json_str(words)))
        return is_gw_refused(p, param, NULL, "%s: parameters must be a schema, description a string", param);
    return true;
}

static bool is_choice(struct gw_parser *p, const skf_json *tools, bool *is_none)
{
    const skf_json *j = skf_gw_member(p->body, "tool_choice");
    const char *word = skf_json_cstr(j), *name = skf_json_cstr(skf_json_get(skf_json_get(j, "function"), "name"));
    *is_none = word && strcmp(word, "none") == 0;
    if (!j || *is_none || (word && strcmp(word, "auto") == 0))
        return true;
    p->generate.tool_choice = 1;
    if (word && strcmp(word, "required") == 0)
        return tools || is_gw_refused(p, "tool_choice", NULL, "tool_choice needs tools");
    if (!name)
        return is_gw_refused(p, "tool_choice", NULL, "tool_choice must be none, auto, required or an object that names a function");
    for (size_t i = 0; i < skf_json_len(tools); i++)
        if (strcmp(skf_json_cstr(skf_json_get(skf_json_get(skf_json_at(tools, i), "function"), "name")), name) == 0) {
            p->generate.tool_name = (char *)(uintptr_t)name;
            return true;
        }
    return is_gw_refused(p, "tool_choice", NULL, "tool_choice: there is no tool %.64s", name);
}

static bool is_tools(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "tools");
    bool is_parallel = true, is_none = false;
    if (!is_gw_flag(p, p->body, "parallel_tool_calls", &is_parallel))
        return false;
    if (j && !is_json_arr(j))
        return is_gw_refused(p, "tools", NULL, "tools must be an array, not %s", skf_gw_kind(j));
    if (skf_json_len(j) > ASK_TOOLS_MAX)
        return is_gw_refused(p, "tools", NULL, "at most %d tools", ASK_TOOLS_MAX);
    for (size_t i = 0; i < skf_json_len(j); i++)
        if (!is_tool(p, skf_json_at(j, i), i))
            return false;
    if (!is_choice(p, skf_json_len(j) ? j : NULL, &is_none))
        return false;
    if (!skf_json_len(j) || is_none)
        return true;
    if (!p->ask->is_chat)
        return is_gw_refused(p, "tools", "unsupported_parameter", "tools are supported in chats only");
    if (p->generate.form)
        return is_gw_refused(p, "tools", "unsupported_parameter", "tools beside response_format or grammar are not supported");
    p->generate.is_one_call = !is_parallel;
    return is_gw_json_kept(p, j, &p->generate.tools);
}

bool is_gw_calls(struct gw_parser *p, size_t i, const skf_json *m)
{
    char param[64];
    const skf_json *calls = skf_gw_member(m, "tool_calls"), *id = skf_gw_member(m, "tool_call_id"), *name = skf_gw_member(m, "name");
    snprintf(param, sizeof param, "messages[%zu]", i);
    if ((id && !is_json_str(id)) || (name && !is_json_str(name)))
        return is_gw_refused(p, param, NULL, "%s: tool_call_id and name must be strings", param);
    p->messages[i].tool_call_id = (char *)(uintptr_t)(id ? skf_json_cstr(id) : "");
    p->messages[i].name = (char *)(uintptr_t)(name ? skf_json_cstr(name) : "");
    if (!calls || (is_json_arr(calls) && !skf_json_len(calls)))
        return true;
    if (!is_json_arr(calls) || skf_json_len(calls) > ASK_CALLS_MAX || strcmp(p->messages[i].role, "assistant") != 0)
        return is_gw_refused(p, param, NULL, "%s.tool_calls must be an array of at most %d calls, in a message of the assistant's", param,
                             ASK_CALLS_MAX);
    for (size_t k = 0; k < skf_json_len(calls); k++) {
        const skf_json *f = skf_json_get(skf_json_at(calls, k), "function");
        if (!is_name(skf_json_cstr(skf_json_get(f, "name"))) || !is_json_str(skf_json_get(f, "arguments")))
            return is_gw_refused(p, param, NULL, "%s.tool_calls[%zu] must have a function with name and arguments, both strings", param, k);
    }
    return is_gw_json_kept(p, calls, &p->messages[i].tool_calls);
}

bool is_gw_more(struct gw_parser *p)
{
    return is_answers(p) && is_biases(p) && is_logprobs(p) && is_form(p) && is_tools(p);
}
