/* Calls of functions: their grammar, and taking them apart (tools_priv.h). */
#include "runtime/tools_priv.h"

#include "base/util.h"
#include "runtime/schema_priv.h"

static const char open_mark[] = "<tool_call>", close_mark[] = "</tool_call>";
enum { OPEN_LEN = sizeof open_mark - 1 };

static bool is_in(const char *tmpl, size_t n, const char *word)
{
    return tmpl && memmem(tmpl, n, word, strlen(word)) != NULL;
}

bool is_tool_template(const char *tmpl, size_t n) { return is_in(tmpl, n, "tools"); }

enum skf_tool_form skf_tool_form_of(const char *tmpl, size_t n)
{
    bool is_llama = is_tool_template(tmpl, n) && !is_in(tmpl, n, open_mark) &&
                    (is_in(tmpl, n, "\"parameters\": ") || is_in(tmpl, n, "<|python_tag|>"));
    return is_llama ? SKF_TOOL_LLAMA : SKF_TOOL_HERMES;
}

/* ---- the grammar -------------------------------------------------------------------------------------------------------------------- */
struct maker {
    struct skf_gb *b;
    struct skf_schema s;
    const skf_json *spec;
    bool is_llama;
};

static bool is_wanted(const struct maker *m, const char *name)
{
    const char *only = skf_json_cstr(skf_json_get(m->spec, "name"));
    return !only || strcmp(only, name) == 0;
}

static uint32_t one_tool(struct maker *m, const skf_json *function)
{
    uint32_t seq = skf_gb_text(m->b, "{\"name\": ", 9);
    const skf_json *parameters = skf_json_get(function, "parameters");
    skf_gb_add(m->b, seq, skf_schema_literal(&m->s, skf_json_get(function, "name")));
    skf_gb_str(m->b, seq, m->is_llama ? ", \"parameters\": " : ", \"arguments\": ");
    skf_gb_add(m->b, seq, parameters && skf_json_len(parameters) ? skf_schema_add(&m->s, parameters) : skf_schema_shared(&m->s, SKF_SH_OBJECT));
    skf_gb_str(m->b, seq, "}");
    return seq;
}

/* A rule of one call. */
static uint32_t call(struct maker *m)
{
    uint32_t rule = skf_gb_rule(m->b), alt = skf_gb_alt(m->b), seq = skf_gb_seq(m->b);
    const skf_json *tools = skf_json_get(m->spec, "tools");
    size_t n = 0;
    for (size_t i = 0; i < skf_json_len(tools) && m->b->err == SKF_OK; i++) {
        const skf_json *f = skf_json_get(skf_json_at(tools, i), "function");
        const char *name = skf_json_cstr(skf_json_get(f, "name"));
        if (!name || !is_wanted(m, name))
            continue;
        skf_gb_add(m->b, alt, one_tool(m, f));
        n++;
    }
    if (n == 0 || n > SKF_TOOLS_MAX)
        skf_gb_fail(m->b, SKF_ERR_ARG, n ? "more than %d tools" : "there is no tool of that name (of at most %d)", SKF_TOOLS_MAX);
    if (m->is_llama) {
        skf_gb_add(m->b, seq, alt);
    } else {
        uint32_t line = skf_gb_text(m->b, "\n", 1), end = skf_gb_text(m->b, "\n", 1);
        skf_gb_add(m->b, seq, skf_gb_rep(m->b, line, 0, 1));
        skf_gb_add(m->b, seq, alt);
        skf_gb_add(m->b, seq, skf_gb_rep(m->b, end, 0, 1));
        skf_gb_str(m->b, seq, close_mark);
    }
    skf_gb_body(m->b, rule, seq);
    return rule;
}

/* One call or several, behind the first mark. */
static uint32_t calls(struct maker *m, uint32_t rule)
{
    uint32_t seq = skf_gb_seq(m->b);
    skf_gb_add(m->b, seq, skf_gb_call(m->b, rule));
    if (!m->is_llama && skf_json_is_true(skf_json_get(m->spec, "parallel"), true)) {
        uint32_t more = skf_gb_text(m->b, "\n", 1);
        skf_gb_str(m->b, more, open_mark);
        skf_gb_add(m->b, more, skf_gb_call(m->b, rule));
        skf_gb_add(m->b, seq, skf_gb_rep(m->b, more, 0, 15));
    }
    return seq;
}

/* Characters but those of `but`. */
static uint32_t other_chars(struct skf_gb *b, char one, char two)
{
    uint32_t alt = skf_gb_alt(b), from = 0;
    const char *but = one < two ? (char[]){one, two, 0} : (char[]){two, one == two ? 0 : one, 0};
    for (; *but; but++) {
        if ((uint8_t)*but > from)
            skf_gb_chars(b, alt, from, (uint32_t)(uint8_t)*but - 1);
        from = (uint8_t)*but + 1u;
    }
    skf_gb_chars(b, alt, from, 0x10ffff);
    return alt;
}

/* Any text in which the mark does not occur; where it does, calls follow. states[i]: the last i characters are the mark's first. */
static uint32_t text_then_calls(struct maker *m, uint32_t rule)
{
    uint32_t states[OPEN_LEN];
    for (size_t i = 0; i < OPEN_LEN; i++)
        states[i] = skf_gb_rule(m->b);
    for (size_t i = 0; i < OPEN_LEN; i++) {
        uint32_t alt = skf_gb_alt(m->b), other = skf_gb_seq(m->b), next = skf_gb_text(m->b, &open_mark[i], 1);
        skf_gb_add(m->b, alt, skf_gb_seq(m->b));
        skf_gb_add(m->b, other, other_chars(m->b, open_mark[i], open_mark[0]));
        skf_gb_add(m->b, other, skf_gb_call(m->b, states[0]));
        skf_gb_add(m->b, alt, other);
        skf_gb_add(m->b, next, i + 1 < OPEN_LEN ? skf_gb_call(m->b, states[i + 1]) : calls(m, rule));
        skf_gb_add(m->b, alt, next);
        if (open_mark[i] != open_mark[0]) { /* the mark may begin anew; it does not within itself */
            uint32_t anew = skf_gb_text(m->b, open_mark, 1);
            skf_gb_add(m->b, anew, skf_gb_call(m->b, states[1]));
            skf_gb_add(m->b, alt, anew);
        }
        skf_gb_body(m->b, states[i], alt);
    }
    return skf_gb_call(m->b, states[0]);
}

static uint32_t answer(struct maker *m)
{
    bool is_required = skf_json_is_true(skf_json_get(m->spec, "required"), false);
    uint32_t rule = call(m), seq = skf_gb_seq(m->b);
    if (m->is_llama && !is_required) {
        uint32_t alt = skf_gb_alt(m->b), any = skf_gb_alt(m->b);
        skf_gb_add(m->b, alt, calls(m, rule));
        skf_gb_add(m->b, alt, skf_gb_seq(m->b));
        skf_gb_add(m->b, seq, other_chars(m->b, '{', '{'));
        skf_gb_chars(m->b, any, 0, 0x10ffff);
        skf_gb_add(m->b, seq, skf_gb_rep(m->b, any, 0, SKF_GRAMMAR_NO_MAX));
        skf_gb_add(m->b, alt, seq);
        return alt;
    }
    if (!is_required)
        return text_then_calls(m, rule);
    if (!m->is_llama)
        skf_gb_str(m->b, seq, open_mark);
    skf_gb_add(m->b, seq, calls(m, rule));
    return seq;
}

enum skf_err skf_grammar_tools(const char *text, size_t n, struct skf_grammar **g, struct skf_why *why)
{
    struct skf_gb b = {.why = why};
    struct maker m = {.b = &b};
    skf_json *spec = NULL;
    SKF_TRY(skf_json_parse(text, n, SKF_SCHEMA_DEPTH_MAX, &spec, why));
    const char *form = skf_json_cstr(skf_json_get(spec, "form"));
    uint32_t root = skf_gb_rule(&b);
    m.spec = spec;
    m.is_llama = form && strcmp(form, "llama") == 0;
    enum skf_err e = skf_schema_begin(&m.s, &b);
    if (e == SKF_OK) {
        skf_gb_body(&b, root, answer(&m));
        e = b.err != SKF_OK ? b.err : skf_grammar_compile(&b, g, why);
    }
    skf_schema_end(&m.s);
    skf_gb_free(&b);
    skf_json_free(spec);
    return e;
}

/* ---- taking apart -------------------------------------------------------------------------------------------------------------------- */
void skf_tool_parser_init(struct skf_tool_parser *x, enum skf_tool_form form)
{
    *x = (struct skf_tool_parser){.form = form, .out = SKF_BUF_INIT(4u << 20)};
    x->state = form == SKF_TOOL_LLAMA ? SKF_TOOL_START : SKF_TOOL_TEXT;
}

void skf_tool_parser_free(struct skf_tool_parser *x) { skf_buf_free(&x->out); }

static void give(struct skf_tool_parser *x, unsigned call, const char *name, skf_tool_fn *fn, void *ctx)
{
    const struct skf_tool_piece p = {call, name, (const char *)x->out.data, x->out.len};
    if (p.n || name)
        fn(ctx, &p);
    skf_buf_clear(&x->out);
}

/* One character of what may hold the mark; true when the mark is whole. What is not of it is kept as text, unless behind a call. */
static enum skf_err match(struct skf_tool_parser *x, char c, bool is_kept, bool *is_met)
{
    *is_met = false;
    if (c != open_mark[x->matched]) {
        if (is_kept)
            SKF_TRY(skf_buf_put(&x->out, open_mark, x->matched));
        x->matched = 0;
    }
    if (c == open_mark[x->matched]) {
        *is_met = ++x->matched == OPEN_LEN;
        return SKF_OK;
    }
    return is_kept ? skf_buf_u8(&x->out, (uint8_t)c) : SKF_OK;
}

/* The name, once the head of a call is whole. */
static const char *name_of(struct skf_tool_parser *x)
{
    static const char before[] = "\"name\": \"";
    const char *end = x->form == SKF_TOOL_LLAMA ? "\"parameters\": " : "\"arguments\": ";
    size_t n = strlen(end);
    if (x->n_head < n || memcmp(x->head + x->n_head - n, end, n) != 0)
        return NULL;
    x->head[x->n_head] = 0;
    char *name = strstr(x->head, before);
    if (!name)
        return NULL;
    name += sizeof before - 1;
    name[strcspn(name, "\"")] = 0;
    return name;
}

/* One character of the arguments; true when it is their last. */
static bool is_args_end(struct skf_tool_parser *x, char c)
{
    if (x->is_string) {
        x->is_string = c != '"' || x->is_escaped;
        x->is_escaped = c == '\\' && !x->is_escaped;
        return false;
    }
    x->is_string = c == '"';
    x->depth += c == '{' || c == '[';
    x->depth -= x->depth > 0 && (c == '}' || c == ']');
    return x->depth == 0 && (c == '}' || c == ']');
}

static enum skf_err feed_char(struct skf_tool_parser *x, char c, skf_tool_fn *fn, void *ctx)
{
    bool is_met = false;
    const char *name;
    switch (x->state) {
    case SKF_TOOL_START:
        x->state = c == '{' ? SKF_TOOL_HEAD : SKF_TOOL_TEXT;
        if (c == '{')
            return SKF_OK;
        return skf_buf_u8(&x->out, (uint8_t)c);
    case SKF_TOOL_TEXT:
        if (x->form == SKF_TOOL_LLAMA)
            return skf_buf_u8(&x->out, (uint8_t)c);
        SKF_TRY(match(x, c, true, &is_met));
        if (is_met) {
            give(x, 0, NULL, fn, ctx);
            x->state = SKF_TOOL_HEAD;
        }
        break;
    case SKF_TOOL_HEAD:
        if (x->n_head + 1 < sizeof x->head)
            x->head[x->n_head++] = c;
        name = name_of(x);
        if (name) {
            x->calls++;
            x->depth = 0;
            x->is_string = x->is_escaped = false;
            give(x, x->calls, name, fn, ctx);
            x->n_head = 0;
            x->state = SKF_TOOL_ARGS;
        }
        break;
    case SKF_TOOL_ARGS:
        SKF_TRY(skf_buf_u8(&x->out, (uint8_t)c));
        if (is_args_end(x, c)) {
            give(x, x->calls, NULL, fn, ctx);
            x->matched = 0;
            x->state = SKF_TOOL_TAIL;
        }
        break;
    default:
        if (x->form == SKF_TOOL_LLAMA)
            break;
        SKF_TRY(match(x, c, false, &is_met));
        if (is_met)
            x->state = SKF_TOOL_HEAD;
    }
    return SKF_OK;
}

enum skf_err skf_tool_feed(struct skf_tool_parser *x, const char *p, size_t n, bool is_last, skf_tool_fn *fn, void *ctx)
{
    for (size_t i = 0; i < n; i++)
        SKF_TRY(feed_char(x, p[i], fn, ctx));
    if (is_last && x->state == SKF_TOOL_TEXT && x->form == SKF_TOOL_HERMES)
        SKF_TRY(skf_buf_put(&x->out, open_mark, x->matched));
    give(x, x->state == SKF_TOOL_ARGS ? x->calls : 0, NULL, fn, ctx);
    return SKF_OK;
}
