/* POST /v1/extract: a text and a schema become a chat whose answer the schema's grammar holds (ask.h). */
#include "base/alloc.h"
#include "gateway/ask_priv.h"

enum { JSON_DEPTH = 100 };

static const char words[] = "You extract data. Answer with one JSON object that holds what the text says, and nothing else.";

static enum skf_err put_message(skf_json *list, const char *role, const char *content)
{
    enum skf_err e;
    skf_json *m = skf_json_obj();
    SKF_GO(e, skf_json_set(m, "role", skf_json_str(role)));
    SKF_GO(e, skf_json_set(m, "content", skf_json_str(content)));
    return skf_json_push(list, m);
out:
    skf_json_free(m);
    return e;
}

static enum skf_err put_format(skf_json *chat, skf_json *schema)
{
    enum skf_err e;
    skf_json *outer = skf_json_obj(), *inner = skf_json_obj();
    SKF_GO(e, outer && inner ? SKF_OK : SKF_ERR_NOMEM);
    SKF_GO(e, skf_json_set(inner, "schema", skf_json_ref(schema)));
    SKF_GO(e, skf_json_set(outer, "type", skf_json_str("json_schema")));
    SKF_GO(e, skf_json_set(outer, "json_schema", skf_json_ref(inner)));
    e = skf_json_set(chat, "response_format", skf_json_ref(outer));
out:
    skf_json_free(outer);
    skf_json_free(inner);
    return e;
}

/* The chat that the request means; what it has besides text, schema and instructions goes on as it is. */
static enum skf_err make_chat(const skf_json *ask, skf_json **out)
{
    enum skf_err e;
    skf_json *chat = skf_json_obj(), *list = skf_json_arr();
    const char *more = skf_json_cstr(skf_gw_member(ask, "instructions"));
    SKF_GO(e, chat && list ? SKF_OK : SKF_ERR_NOMEM);
    for (void *it = skf_json_iter(ask); it; it = skf_json_next(ask, it)) {
        const char *key = skf_json_iter_key(it);
        if (strcmp(key, "text") != 0 && strcmp(key, "schema") != 0 && strcmp(key, "instructions") != 0)
            SKF_GO(e, skf_json_set(chat, key, skf_json_ref(skf_json_iter_value(it))));
    }
    if (!skf_json_get(ask, "temperature"))
        SKF_GO(e, skf_json_set(chat, "temperature", skf_json_int(0)));
    SKF_GO(e, put_message(list, "system", more ? more : words));
    SKF_GO(e, put_message(list, "user", skf_json_cstr(skf_json_get(ask, "text"))));
    SKF_GO(e, skf_json_set(chat, "messages", skf_json_ref(list)));
    SKF_GO(e, put_format(chat, skf_json_get(ask, "schema")));
    *out = chat;
    chat = NULL;
out:
    skf_json_free(chat);
    skf_json_free(list);
    return e;
}

static bool is_sound(struct gw_parser *p)
{
    static const char *const none[] = {"messages", "response_format", "grammar", "tools", "stream", "n", "logprobs"};
    const skf_json *schema = skf_json_get(p->body, "schema"), *more = skf_gw_member(p->body, "instructions");
    if (!is_json_obj(p->body))
        return is_gw_refused(p, "", NULL, "the body must be a JSON object, not %s", skf_gw_kind(p->body));
    if (!is_json_str(skf_json_get(p->body, "text")))
        return is_gw_refused(p, "text", NULL, "text must be a string");
    if (!is_json_obj(schema))
        return is_gw_refused(p, "schema", NULL, "schema must be a JSON schema");
    if (more && !is_json_str(more))
        return is_gw_refused(p, "instructions", NULL, "instructions must be a string, not %s", skf_gw_kind(more));
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (skf_gw_member(p->body, none[i]))
            return is_gw_refused(p, none[i], "unsupported_parameter", "%s is not supported here", none[i]);
    return true;
}

bool is_gw_extract(const void *body, size_t n, uint64_t id, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    struct gw_parser p = {.ask = ask, .no = no};
    struct skf_why why = {{0}};
    skf_json *j = NULL, *chat = NULL;
    char *text = NULL;
    size_t len = 0;
    memset(ask, 0, sizeof *ask);
    memset(no, 0, sizeof *no);
    enum skf_err e = skf_json_parse(body, n, JSON_DEPTH - 4, &j, &why);
    p.body = j;
    bool ok = e == SKF_OK ? is_sound(&p) : e == SKF_ERR_NOMEM ? is_gw_out_of_memory(&p) :
              is_gw_refused(&p, "", NULL, "the body is no JSON that can be taken: %.200s", why.text);
    if (ok && (make_chat(j, &chat) != SKF_OK || skf_json_text(chat, 0, &text, &len) != SKF_OK))
        ok = is_gw_out_of_memory(&p);
    if (ok)
        ok = is_gw_ask(text, len, true, id, ask, no);
    ask->is_extract = ok;
    skf_json_free(j);
    skf_json_free(chat);
    skf_free(text);
    return ok;
}
