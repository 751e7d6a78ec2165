/* Requests: JSON of the OpenAI API to a worker's frame. See gateway/ask.h. */
#include "base/alloc.h"
#include "base/util.h"
#include "gateway/ask_priv.h"
#include "proto/frame.h"
#include "proto/msg.h"

enum { MESSAGES_MAX = 1024, PARTS_MAX = 256, STOP_LEN_MAX = 256, JSON_DEPTH = 100 };

bool is_gw_refused(struct gw_parser *p, const char *param, const char *code, const char *fmt, ...)
{
    va_list ap;
    p->no->status = 400;
    p->no->type = "invalid_request_error";
    p->no->code = code;
    snprintf(p->no->param, sizeof p->no->param, "%s", param);
    va_start(ap, fmt);
    vsnprintf(p->no->text, sizeof p->no->text, fmt, ap);
    va_end(ap);
    return false;
}

bool is_gw_out_of_memory(struct gw_parser *p)
{
    is_gw_refused(p, "", NULL, "out of memory");
    p->no->status = 503;
    p->no->type = "server_error";
    return false;
}

const char *skf_gw_kind(const skf_json *j)
{
    return is_json_str(j) ? "a string" : is_json_bool(j) ? "a boolean" : is_json_num(j) ? "a number" : is_json_arr(j) ? "an array" :
           is_json_obj(j) ? "an object" : "null";
}

skf_json *skf_gw_member(const skf_json *obj, const char *name)
{
    skf_json *j = skf_json_get(obj, name);
    return is_json_null(j) ? NULL : j;
}

bool is_gw_flag(struct gw_parser *p, const skf_json *obj, const char *name, bool *out)
{
    const skf_json *j = skf_gw_member(obj, name);
    if (j && !is_json_bool(j))
        return is_gw_refused(p, name, NULL, "%s must be a boolean, not %s", name, skf_gw_kind(j));
    *out = skf_json_is_true(j, *out);
    return true;
}

bool is_gw_number(struct gw_parser *p, const char *name, double low, double high, bool whole, double *out)
{
    const skf_json *j = skf_gw_member(p->body, name);
    if (!j)
        return true;
    if (!is_json_num(j) || (whole && !is_json_int(j)))
        return is_gw_refused(p, name, NULL, "%s must be %s, not %s", name, whole ? "an integer" : "a number",
                      is_json_num(j) ? "a fraction" : skf_gw_kind(j));
    double v = skf_json_f64(j, 0);
    if (!(v >= low && v <= high))
        return is_gw_refused(p, name, NULL, "%s must be from %g to %g", name, low, high);
    *out = v;
    return true;
}

static bool is_sampling(struct gw_parser *p)
{
    Skiff__V1__Sampling *s = &p->sampling;
    double temperature = 1, top_p = 1, top_k = 0, penalty = 1, max_tokens = 0, completion = 0;
    if (!is_gw_number(p, "temperature", 0, 10, false, &temperature) || !is_gw_number(p, "top_p", 0, 1, false, &top_p) ||
        !is_gw_number(p, "top_k", 0, 1 << 20, true, &top_k) || !is_gw_number(p, "repetition_penalty", 0.01, 10, false, &penalty) ||
        !is_gw_number(p, "max_tokens", 1, 1 << 20, true, &max_tokens) ||
        !is_gw_number(p, "max_completion_tokens", 1, 1 << 20, true, &completion))
        return false;
    const skf_json *seed = skf_gw_member(p->body, "seed");
    if (seed && !is_json_int(seed))
        return is_gw_refused(p, "seed", NULL, "seed must be an integer, not %s", is_json_num(seed) ? "a fraction" : skf_gw_kind(seed));
    s->temperature = (float)temperature;
    p->ask->is_greedy = temperature == 0;
    s->top_p = (float)top_p;
    s->top_k = (uint32_t)top_k;
    s->repetition_penalty = (float)penalty;
    s->max_tokens = (uint32_t)(completion > 0 ? completion : max_tokens);
    s->has_seed = seed != NULL;
    s->seed = (uint64_t)skf_json_i64(seed, 0);
    return true;
}

static bool is_stop(struct gw_parser *p, const skf_json *j)
{
    if (!is_json_str(j))
        return is_gw_refused(p, "stop", NULL, "stop must be a string or an array of strings; it holds %s", skf_gw_kind(j));
    size_t n = skf_json_strlen(j);
    if (n == 0 || n > STOP_LEN_MAX)
        return is_gw_refused(p, "stop", NULL, "a stop string must have 1 to %d bytes", STOP_LEN_MAX);
    p->stops[p->sampling.n_stop] = skf_strdup(skf_json_cstr(j));
    if (!p->stops[p->sampling.n_stop])
        return is_gw_out_of_memory(p);
    p->sampling.n_stop++;
    return true;
}

static bool is_stops(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "stop");
    p->sampling.stop = p->stops;
    if (!j)
        return true;
    if (!is_json_arr(j))
        return is_stop(p, j);
    if (skf_json_len(j) > ASK_STOPS_MAX)
        return is_gw_refused(p, "stop", NULL, "at most %d stop strings", ASK_STOPS_MAX);
    for (size_t i = 0; i < skf_json_len(j); i++)
        if (!is_stop(p, skf_json_at(j, i)))
            return false;
    return true;
}

/* What would change the answer and is not there is refused; what OpenAI's clients send by default passes. */
static bool is_supported(struct gw_parser *p)
{
    static const char *const empty[] = {"functions", "function_call", "suffix", "modalities", "audio", "images", "web_search_options"},
                             *const off[] = {"echo"};
    for (size_t i = 0; i < SKF_COUNT(off); i++) {
        const skf_json *j = skf_gw_member(p->body, off[i]);
        if (j && (is_json_bool(j) ? skf_json_is_true(j, true) : skf_json_i64(j, 1) != 0))
            return is_gw_refused(p, off[i], "unsupported_parameter", "%s is not supported", off[i]);
    }
    for (size_t i = 0; i < SKF_COUNT(empty); i++) {
        const skf_json *j = skf_gw_member(p->body, empty[i]);
        if (j && (is_json_str(j) ? skf_json_strlen(j) : skf_json_len(j)) != 0)
            return is_gw_refused(p, empty[i], "unsupported_parameter", "%s is not supported", empty[i]);
    }
    return true;
}

/* When it is computed, not what: "priority": "interactive" or "batch", "timeout": seconds. */
static bool is_terms(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "priority");
    const char *s = skf_json_cstr(j);
    double seconds = 0;
    if (j && (!s || (strcmp(s, "interactive") != 0 && strcmp(s, "batch") != 0)))
        return is_gw_refused(p, "priority", NULL, "priority must be interactive or batch");
    if (!is_gw_number(p, "timeout", 0.001, 86400, false, &seconds))
        return false;
    p->generate.is_batch = s && *s == 'b';
    p->ask->is_batch = p->generate.is_batch;
    p->ask->timeout_ms = p->generate.timeout_ms = (uint32_t)(seconds * 1000);
    return true;
}

bool is_gw_kept(struct gw_parser *p, char *text)
{
    if (!text)
        return is_gw_out_of_memory(p);
    if (p->n_texts == p->texts_room) {
        size_t room = p->texts_room ? 2 * p->texts_room : 16;
        char **more = skf_realloc(p->texts, room * sizeof *more);
        if (!more) {
            skf_free(text);
            return is_gw_out_of_memory(p);
        }
        p->texts = more;
        p->texts_room = room;
    }
    p->texts[p->n_texts++] = text;
    return true;
}

bool is_gw_json_kept(struct gw_parser *p, const skf_json *j, char **out)
{
    size_t n = 0;
    char *text = NULL;
    if (skf_json_text(j, 0, &text, &n) != SKF_OK)
        return is_gw_out_of_memory(p);
    *out = text;
    return is_gw_kept(p, text) &&
           (n <= SKF_MSG_STRING_MAX || is_gw_refused(p, "", NULL, "%.40s... is longer than %u KiB", text, SKF_MSG_STRING_MAX >> 10));
}

/* ---- messages ---------------------------------------------------------------------------------------------------------- */
/* The text of a content: a string, or the text parts of an array one behind another. */
static bool is_content(struct gw_parser *p, const char *param, const skf_json *content, char **out)
{
    struct skf_buf text = SKF_BUF_INIT(SKF_MSG_STRING_MAX);
    const char *s = "";
    bool ok = true;
    if (is_json_str(content)) {
        *out = skf_strdup(skf_json_cstr(content));
        return *out || is_gw_out_of_memory(p);
    }
    if (content && !is_json_arr(content))
        return is_gw_refused(p, param, NULL, "%s must be a string or an array of parts, not %s", param, skf_gw_kind(content));
    if (skf_json_len(content) > PARTS_MAX)
        return is_gw_refused(p, param, NULL, "%s has more than %d parts", param, PARTS_MAX);
    for (size_t k = 0; ok && k < skf_json_len(content); k++) {
        const skf_json *part = skf_json_at(content, k);
        const char *type = skf_json_cstr(skf_json_get(part, "type")), *words = skf_json_cstr(skf_json_get(part, "text"));
        if (!type || strcmp(type, "text") != 0)
            ok = is_gw_refused(p, param, "unsupported_content", "%s[%zu]: only parts of type text are supported, not %.40s", param, k,
                        type ? type : "one without type");
        else if (!words)
            ok = is_gw_refused(p, param, NULL, "%s[%zu].text must be a string", param, k);
        else if (skf_buf_str(&text, words) != SKF_OK)
            ok = is_gw_out_of_memory(p);
    }
    if (ok && (skf_buf_cstr(&text, &s) != SKF_OK || !(*out = skf_strdup(s))))
        ok = is_gw_out_of_memory(p);
    skf_buf_free(&text);
    return ok;
}

static bool is_message(struct gw_parser *p, size_t i, const skf_json *m)
{
    static const char *const roles[][2] = {
        {"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}, {"tool", "tool"}};
    char param[64];
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!is_json_obj(m))
        return is_gw_refused(p, param, NULL, "%s must be an object, not %s", param, skf_gw_kind(m));
    const char *role = skf_json_cstr(skf_json_get(m, "role"));
    snprintf(param, sizeof param, "messages[%zu].role", i);
    if (!role)
        return is_gw_refused(p, param, NULL, "%s must be a string", param);
    for (size_t k = 0; k < SKF_COUNT(roles); k++)
        if (strcmp(role, roles[k][0]) == 0)
            p->messages[i].role = (char *)(uintptr_t)roles[k][1];
    if (!p->messages[i].role[0])
        return is_gw_refused(p, param, NULL, "%s must be system, developer, user, assistant or tool", param);
    char *text = NULL;
    snprintf(param, sizeof param, "messages[%zu].content", i);
    if (!is_content(p, param, skf_gw_member(m, "content"), &text) || !is_gw_kept(p, text))
        return false;
    p->messages[i].content = text;
    return is_gw_calls(p, i, m);
}

static bool is_messages(struct gw_parser *p)
{
    const skf_json *j = skf_json_get(p->body, "messages");
    size_t n = skf_json_len(j);
    if (!is_json_arr(j) || n == 0)
        return is_gw_refused(p, "messages", NULL, "messages must be an array with at least one message");
    if (n > MESSAGES_MAX)
        return is_gw_refused(p, "messages", NULL, "at most %d messages", MESSAGES_MAX);
    p->messages = skf_calloc(n, sizeof *p->messages);
    p->generate.messages = skf_calloc(n, sizeof *p->generate.messages);
    if (!p->messages || !p->generate.messages)
        return is_gw_out_of_memory(p);
    for (size_t i = 0; i < n; i++) {
        skiff__v1__chat_message__init(&p->messages[i]);
        p->generate.messages[i] = &p->messages[i];
        if (!is_message(p, i, skf_json_at(j, i)))
            return false;
    }
    p->generate.n_messages = n;
    return true;
}

/* What the client expects to be said: it makes the answer come sooner where it is right, and changes nothing of it. */
static bool is_prediction(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "prediction");
    if (!j)
        return true;
    const char *type = skf_json_cstr(skf_json_get(j, "type"));
    if (!is_json_obj(j) || !type || strcmp(type, "content") != 0)
        return is_gw_refused(p, "prediction", NULL, "prediction must be an object of type content");
    char *text = NULL;
    if (!is_content(p, "prediction.content", skf_json_get(j, "content"), &text) || !is_gw_kept(p, text))
        return false;
    p->generate.prediction = text;
    return true;
}

static bool is_prompt(struct gw_parser *p)
{
    const skf_json *j = skf_json_get(p->body, "prompt");
    if (is_json_arr(j) && skf_json_len(j) == 1)
        j = skf_json_at(j, 0);
    if (!is_json_str(j))
        return is_gw_refused(p, "prompt", NULL, "prompt must be a string (or an array of one)");
    if (!skf_json_strlen(j))
        return is_gw_refused(p, "prompt", NULL, "prompt is empty");
    p->generate.prompt = (char *)(uintptr_t)skf_json_cstr(j);
    return true;
}

static bool is_adapter(struct gw_parser *p)
{
    const skf_json *j = skf_gw_member(p->body, "adapter");
    if (j && !is_json_str(j))
        return is_gw_refused(p, "adapter", NULL, "adapter must be a string, not %s", skf_gw_kind(j));
    if (skf_json_strlen(j) >= sizeof p->ask->adapter)
        return is_gw_refused(p, "adapter", NULL, "adapter is longer than %zu bytes", sizeof p->ask->adapter - 1);
    snprintf(p->ask->adapter, sizeof p->ask->adapter, "%s", j ? skf_json_cstr(j) : "");
    p->generate.adapter = p->ask->adapter;
    return true;
}

/* What is asked of an answer besides what it answers. */
static bool is_besides(struct gw_parser *p)
{
    return is_terms(p) && is_sampling(p) && is_stops(p) && is_supported(p) && is_prediction(p) && is_gw_more(p);
}

static bool is_frame(struct gw_parser *p)
{
    const skf_json *model = skf_gw_member(p->body, "model"), *options = skf_gw_member(p->body, "stream_options");
    Skiff__V1__ToWorker m = SKIFF__V1__TO_WORKER__INIT;
    if (!is_json_obj(p->body))
        return is_gw_refused(p, "", NULL, "the body must be a JSON object, not %s", skf_gw_kind(p->body));
    if (model && !is_json_str(model))
        return is_gw_refused(p, "model", NULL, "model must be a string, not %s", skf_gw_kind(model));
    if (skf_json_strlen(model) >= sizeof p->ask->model)
        return is_gw_refused(p, "model", NULL, "model is longer than %zu bytes", sizeof p->ask->model - 1);
    snprintf(p->ask->model, sizeof p->ask->model, "%s", model ? skf_json_cstr(model) : "");
    if (strchr(p->ask->model, ':')) /* what stands behind it may be an adapter: the worker knows what it is called itself */
        p->generate.model = p->ask->model;
    if (!is_adapter(p))
        return false;
    if (options && !is_json_obj(options))
        return is_gw_refused(p, "stream_options", NULL, "stream_options must be an object, not %s", skf_gw_kind(options));
    if (!is_gw_flag(p, p->body, "stream", &p->ask->stream) || !is_gw_flag(p, options, "include_usage", &p->ask->include_usage) ||
        !is_besides(p) || !(p->ask->is_chat ? is_messages(p) : is_prompt(p)))
        return false;
    p->generate.is_chat = p->ask->is_chat;
    p->generate.sampling = &p->sampling;
    m.kind_case = SKIFF__V1__TO_WORKER__KIND_GENERATE;
    m.generate = &p->generate;
    return skf_msg_pack(&m.base, &p->ask->frame, &p->ask->frame_len) == SKF_OK || is_gw_out_of_memory(p);
}

enum skf_err skf_gw_ask_terms(struct skf_gw_ask *ask, bool is_batch, uint32_t timeout_ms)
{
    Skiff__V1__ToWorker *m = NULL;
    uint8_t *frame = NULL;
    size_t n = 0;
    is_batch = is_batch || ask->is_batch;
    timeout_ms = !timeout_ms || (ask->timeout_ms && ask->timeout_ms < timeout_ms) ? ask->timeout_ms : timeout_ms;
    if (is_batch == ask->is_batch && timeout_ms == ask->timeout_ms)
        return SKF_OK;
    SKF_TRY(SKF_UNPACK(skiff__v1__to_worker, Skiff__V1__ToWorker, ask->frame, ask->frame_len, SKF_FRAME_MAX, &m, NULL));
    m->generate->is_batch = ask->is_batch = is_batch;
    m->generate->timeout_ms = ask->timeout_ms = timeout_ms;
    enum skf_err e = skf_msg_pack(&m->base, &frame, &n);
    skf_msg_free(&m->base);
    if (e == SKF_OK) {
        skf_free(ask->frame);
        ask->frame = frame;
        ask->frame_len = n;
    }
    return e;
}

bool is_gw_ask(const void *body, size_t n, bool is_chat, uint64_t id, struct skf_gw_ask *ask, struct skf_gw_refusal *no)
{
    struct gw_parser p = {.ask = ask, .no = no, .generate = SKIFF__V1__GENERATE__INIT, .sampling = SKIFF__V1__SAMPLING__INIT};
    struct skf_why why = {{0}};
    skf_json *j = NULL;
    bool ok;
    memset(ask, 0, sizeof *ask);
    memset(no, 0, sizeof *no);
    ask->is_chat = is_chat;
    p.generate.id = id;
    enum skf_err e = skf_json_parse(body, n, JSON_DEPTH, &j, &why);
    p.body = j;
    if (e == SKF_ERR_NOMEM)
        ok = is_gw_out_of_memory(&p);
    else if (e != SKF_OK)
        ok = is_gw_refused(&p, "", NULL, "the body is no JSON that can be taken: %.200s", why.text);
    else
        ok = is_frame(&p);
    skf_json_free(j);
    for (size_t i = 0; i < p.n_texts; i++)
        skf_free(p.texts[i]);
    for (size_t i = 0; i < p.sampling.n_stop; i++)
        skf_free(p.stops[i]);
    skf_free(p.texts);
    skf_free(p.biases);
    skf_free(p.sampling.logit_bias);
    skf_free(p.messages);
    skf_free(p.generate.messages);
    return ok;
}
