/* The chat template renderer's entry: arena, budget, the variables a template is given. See runtime/template.h. */
#include "runtime/template.h"

#include "base/alloc.h"
#include "base/json.h"
#include "base/util.h"
#include "runtime/template_priv.h"

enum { TPL_JSON_DEPTH = 128 };

struct tpl_block {
    struct tpl_block *next;
    size_t used, cap;
    max_align_t data[];
};

void *skf_tpl_alloc(struct tpl *t, size_t n)
{
    size_t need = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (n > TPL_ARENA_MAX || t->arena_used + need > TPL_ARENA_MAX) {
        t->alloc_err = skf_tpl_fail(t, SKF_ERR_LIMIT, "needs more than %d MiB", TPL_ARENA_MAX >> 20);
        return NULL;
    }
    struct tpl_block *b = t->blocks;
    if (!b || b->cap - b->used < need) {
        size_t cap = SKF_MAX(need, (size_t)(64 << 10));
        b = skf_alloc(sizeof *b + cap);
        if (!b) {
            t->alloc_err = skf_tpl_fail(t, SKF_ERR_NOMEM, "out of memory");
            return NULL;
        }
        *b = (struct tpl_block){.next = t->blocks, .cap = cap};
        t->blocks = b;
    }
    void *p = (uint8_t *)b->data + b->used;
    b->used += need;
    t->arena_used += need;
    memset(p, 0, need);
    return p;
}

enum skf_err skf_tpl_fail(struct tpl *t, enum skf_err e, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return skf_fail(t->why, e, "chat template, line %u: %s", t->line, text);
}

enum skf_err skf_tpl_spend(struct tpl *t, uint64_t steps)
{
    if (steps > TPL_STEPS_MAX - t->steps)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "takes more than %u steps", TPL_STEPS_MAX);
    t->steps += steps;
    return SKF_OK;
}

static enum skf_err give(struct tpl *t, const char *name, struct tpl_value v)
{
    return skf_tpl_set(t, (struct tpl_str){name, strlen(name)}, v);
}

static enum skf_err give_token(struct tpl *t, const char *name, const char *text)
{
    return text ? give(t, name, skf_tpl_of_str(text, strlen(text))) : SKF_OK;
}

/* Texts stay in the JSON, which outlives the rendering. */
static enum skf_err of_json(struct tpl *t, const skf_json *j, unsigned depth, struct tpl_value *out)
{
    SKF_TRY(skf_tpl_spend(t, 1));
    *out = (struct tpl_value){.type = TPL_NONE};
    if (depth > TPL_JSON_DEPTH)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "tools are nested deeper than %d", TPL_JSON_DEPTH);
    if (is_json_str(j)) {
        *out = skf_tpl_of_str(skf_json_cstr(j), skf_json_strlen(j));
    } else if (is_json_bool(j)) {
        *out = skf_tpl_of_bool(skf_json_is_true(j, false));
    } else if (is_json_int(j)) {
        *out = skf_tpl_of_int(skf_json_i64(j, 0));
    } else if (is_json_num(j)) {
        *out = (struct tpl_value){.type = TPL_FLOAT, .u.f = skf_json_f64(j, 0)};
    } else if (is_json_arr(j)) {
        SKF_TRY(skf_tpl_list(t, skf_json_len(j), out));
        for (size_t i = 0; i < skf_json_len(j); i++)
            SKF_TRY(of_json(t, skf_json_at(j, i), depth + 1, &out->u.list->v[i]));
    } else if (is_json_obj(j)) {
        SKF_TRY(skf_tpl_map(t, out));
        for (void *it = skf_json_iter(j); it; it = skf_json_next(j, it)) {
            struct tpl_value v;
            const char *key = skf_json_iter_key(it);
            SKF_TRY(of_json(t, skf_json_iter_value(it), depth + 1, &v));
            SKF_TRY(skf_tpl_map_set(t, out->u.map, (struct tpl_str){key, strlen(key)}, v));
        }
    }
    return SKF_OK;
}

/* Parses what is kept in docs, one behind the other. */
static enum skf_err parse(struct tpl *t, const char *text, skf_json *docs, struct tpl_value *out)
{
    skf_json *j = NULL;
    SKF_TRY(skf_json_parse(text, strlen(text), TPL_JSON_DEPTH, &j, t->why));
    if (skf_json_push(docs, j) != SKF_OK)
        return skf_tpl_fail(t, SKF_ERR_NOMEM, "out of memory");
    return of_json(t, j, 0, out);
}

static enum skf_err set_str(struct tpl *t, struct tpl_map *m, const char *name, const char *text)
{
    return skf_tpl_map_set(t, m, (struct tpl_str){name, strlen(name)}, skf_tpl_of_str(text, strlen(text)));
}

static enum skf_err give_more(struct tpl *t, struct tpl_map *m, const struct skf_chat_more *more, skf_json *docs)
{
    struct tpl_value calls;
    if (more->calls && more->calls[0]) {
        SKF_TRY(parse(t, more->calls, docs, &calls));
        SKF_TRY(skf_tpl_map_set(t, m, (struct tpl_str){"tool_calls", 10}, calls));
    }
    if (more->call_id && more->call_id[0])
        SKF_TRY(set_str(t, m, "tool_call_id", more->call_id));
    return more->name && more->name[0] ? set_str(t, m, "name", more->name) : SKF_OK;
}

/* The names that templates are written against; documents are there, and none. */
static enum skf_err give_all(struct tpl *t, const struct skf_chat *msgs, size_t n_msgs, const struct skf_template_tools *x, const char *bos,
                             const char *eos, bool add_generation_prompt, skf_json *docs)
{
    struct tpl_value list, tools = {.type = TPL_NONE};
    SKF_TRY(skf_tpl_list(t, n_msgs, &list));
    for (size_t i = 0; i < n_msgs; i++) {
        struct tpl_value *m = &list.u.list->v[i];
        SKF_TRY(skf_tpl_map(t, m));
        SKF_TRY(set_str(t, m->u.map, "role", msgs[i].role ? msgs[i].role : ""));
        SKF_TRY(set_str(t, m->u.map, "content", msgs[i].content ? msgs[i].content : ""));
        if (x->more)
            SKF_TRY(give_more(t, m->u.map, &x->more[i], docs));
    }
    if (x->tools && x->tools[0])
        SKF_TRY(parse(t, x->tools, docs, &tools));
    SKF_TRY(give(t, "messages", list));
    SKF_TRY(give_token(t, "bos_token", bos));
    SKF_TRY(give_token(t, "eos_token", eos));
    SKF_TRY(give(t, "add_generation_prompt", skf_tpl_of_bool(add_generation_prompt)));
    SKF_TRY(give(t, "tools", tools));
    return give(t, "documents", (struct tpl_value){.type = TPL_NONE});
}

enum skf_err skf_template_render(const char *tmpl, size_t n, const struct skf_chat *msgs, size_t n_msgs, const char *bos,
                                 const char *eos, bool add_generation_prompt, struct skf_buf *out, struct skf_why *why)
{
    return skf_template_render_tools(tmpl, n, msgs, n_msgs, &(struct skf_template_tools){NULL, NULL}, bos, eos, add_generation_prompt, out, why);
}

enum skf_err skf_template_render_tools(const char *tmpl, size_t n, const struct skf_chat *msgs, size_t n_msgs,
                                       const struct skf_template_tools *tools, const char *bos, const char *eos,
                                       bool add_generation_prompt, struct skf_buf *out, struct skf_why *why)
{
    size_t before = out->len;
    enum skf_err e;
    struct tpl_node *body = NULL;
    struct tpl *t = skf_calloc(1, sizeof *t);
    skf_json *docs = t ? skf_json_arr() : NULL;
    if (!docs) {
        skf_free(t);
        return skf_fail(why, SKF_ERR_NOMEM, "chat template: out of memory");
    }
    t->why = why;
    t->line = 1;
    t->out = out;
    if (n > TPL_SOURCE_MAX) {
        e = skf_fail(why, SKF_ERR_LIMIT, "chat template: larger than %d KiB", TPL_SOURCE_MAX >> 10);
        goto out;
    }
    SKF_GO(e, skf_tpl_lex(t, tmpl, n));
    SKF_GO(e, skf_tpl_parse(t, &body));
    SKF_GO(e, give_all(t, msgs, n_msgs, tools, bos, eos, add_generation_prompt, docs));
    SKF_GO(e, skf_tpl_run(t, body));
out:
    if (e != SKF_OK)
        out->len = before;
    for (struct tpl_block *b = t->blocks; b;) {
        struct tpl_block *next = b->next;
        skf_free(b);
        b = next;
    }
    skf_json_free(docs);
    skf_free(t);
    return e;
}
