/* Conversations about tools (engine.h): what templates that know of none are given, and texts that are JSON. */
#include "runtime/chat_priv.h"

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "runtime/tools_priv.h"

static const char before[] = "You may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within "
                             "<tools></tools> XML tags:\n<tools>",
                  behind[] = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
                             "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
                             "<args-json-object>}\n</tool_call>";

static enum skf_err put_json(struct skf_buf *b, const skf_json *j)
{
    char *text = NULL;
    size_t n = 0;
    SKF_TRY(skf_json_text(j, 0, &text, &n));
    enum skf_err e = skf_buf_put(b, text, n);
    skf_free(text);
    return e;
}

static enum skf_err keep(struct skf_buf *b, char **out)
{
    SKF_TRY(skf_buf_u8(b, 0));
    size_t n = 0;
    *out = (char *)skf_buf_steal(b, &n);
    return SKF_OK;
}

/* Arguments become what they describe: templates write them anew, and nothing stays hidden in an escape. */
static enum skf_err open_arguments(const skf_json *calls)
{
    for (size_t i = 0; i < skf_json_len(calls); i++) {
        skf_json *f = skf_json_get(skf_json_at(calls, i), "function"), *inner = NULL;
        const skf_json *text = skf_json_get(f, "arguments");
        if (is_json_str(text) && skf_json_parse(skf_json_cstr(text), skf_json_strlen(text), SKF_CHAT_JSON_DEPTH, &inner, NULL) == SKF_OK)
            SKF_TRY(skf_json_set(f, "arguments", inner));
    }
    return SKF_OK;
}

enum skf_err skf_chat_json(const char *text, bool are_calls, char **out, struct skf_why *why)
{
    skf_json *j = NULL;
    size_t n = 0;
    *out = NULL;
    if (!text || !text[0])
        return SKF_OK;
    SKF_TRY(skf_json_parse(text, strlen(text), SKF_CHAT_JSON_DEPTH, &j, why));
    enum skf_err e = are_calls ? open_arguments(j) : SKF_OK;
    if (e == SKF_OK)
        e = skf_json_text(j, 0, out, &n);
    skf_json_free(j);
    return e;
}

static enum skf_err put_tools(struct skf_buf *b, const char *tools, struct skf_why *why)
{
    skf_json *j = NULL;
    SKF_TRY(skf_json_parse(tools, strlen(tools), SKF_CHAT_JSON_DEPTH, &j, why));
    enum skf_err e = skf_buf_str(b, before);
    for (size_t i = 0; e == SKF_OK && i < skf_json_len(j); i++) {
        e = skf_buf_u8(b, '\n');
        if (e == SKF_OK)
            e = put_json(b, skf_json_at(j, i));
    }
    if (e == SKF_OK)
        e = skf_buf_str(b, behind);
    skf_json_free(j);
    return e;
}

static enum skf_err put_calls(struct skf_buf *b, const char *calls, struct skf_why *why)
{
    skf_json *j = NULL;
    SKF_TRY(skf_json_parse(calls, strlen(calls), SKF_CHAT_JSON_DEPTH, &j, why));
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < skf_json_len(j); i++) {
        const skf_json *f = skf_json_get(skf_json_at(j, i), "function");
        SKF_GO(e, skf_buf_str(b, b->len ? "\n<tool_call>\n{\"name\": " : "<tool_call>\n{\"name\": "));
        SKF_GO(e, put_json(b, skf_json_get(f, "name")));
        SKF_GO(e, skf_buf_str(b, ", \"arguments\": "));
        SKF_GO(e, put_json(b, skf_json_get(f, "arguments")));
        e = skf_buf_str(b, "}\n</tool_call>");
    }
out:
    skf_json_free(j);
    return e;
}

/* One message in plain words. */
static enum skf_err put_plain(struct skf_buf *b, const struct skf_chat *m, const struct skf_chat_more *more, const char **role, struct skf_why *why)
{
    bool is_tool = strcmp(m->role, "tool") == 0;
    *role = is_tool ? "user" : m->role;
    if (is_tool)
        SKF_TRY(skf_buf_str(b, "<tool_response>\n"));
    SKF_TRY(skf_buf_str(b, m->content ? m->content : ""));
    if (is_tool)
        return skf_buf_str(b, "\n</tool_response>");
    return more && more->calls && more->calls[0] ? put_calls(b, more->calls, why) : SKF_OK;
}

enum skf_err skf_chat_plain(const struct skf_chat *msgs, const struct skf_chat_more *more, size_t n, const char *tools, struct skf_chat *out,
                            char **texts, size_t *n_out, struct skf_why *why)
{
    bool has_tools = tools && tools[0], has_system = n > 0 && strcmp(msgs[0].role, "system") == 0;
    struct skf_buf b = SKF_BUF_INIT(SKF_CHAT_TEXT_MAX);
    enum skf_err e = SKF_OK;
    size_t k = 0;
    if (has_tools && !has_system) {
        SKF_GO(e, put_tools(&b, tools, why));
        SKF_GO(e, keep(&b, &texts[k]));
        out[k] = (struct skf_chat){"system", texts[k]};
        k++;
    }
    for (size_t i = 0; i < n; i++, k++) {
        SKF_GO(e, put_plain(&b, &msgs[i], more ? &more[i] : NULL, &out[k].role, why));
        if (i == 0 && has_tools && has_system) {
            SKF_GO(e, skf_buf_str(&b, "\n\n"));
            SKF_GO(e, put_tools(&b, tools, why));
        }
        SKF_GO(e, keep(&b, &texts[k]));
        out[k].content = texts[k];
    }
    *n_out = k;
out:
    skf_buf_free(&b);
    return e;
}
