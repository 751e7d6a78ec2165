/* The chat template renderer's entry: arena, budget, the variables a template is given. See runtime/template.h. */
#include "runtime/template.h"

#include "base/alloc.h"
#include "base/util.h"
#include "runtime/template_priv.h"

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

/* The names that templates are written against; tools and documents are there, and none. */
static enum skf_err give_all(struct tpl *t, const struct skf_chat *msgs, size_t n_msgs, const char *bos, const char *eos,
                             bool add_generation_prompt)
{
    struct tpl_value list;
    SKF_TRY(skf_tpl_list(t, n_msgs, &list));
    for (size_t i = 0; i < n_msgs; i++) {
        struct tpl_value *m = &list.u.list->v[i];
        SKF_TRY(skf_tpl_map(t, m));
        const char *role = msgs[i].role ? msgs[i].role : "", *content = msgs[i].content ? msgs[i].content : "";
        SKF_TRY(skf_tpl_map_set(t, m->u.map, (struct tpl_str){"role", 4}, skf_tpl_of_str(role, strlen(role))));
        SKF_TRY(skf_tpl_map_set(t, m->u.map, (struct tpl_str){"content", 7}, skf_tpl_of_str(content, strlen(content))));
    }
    SKF_TRY(give(t, "messages", list));
    SKF_TRY(give_token(t, "bos_token", bos));
    SKF_TRY(give_token(t, "eos_token", eos));
    SKF_TRY(give(t, "add_generation_prompt", skf_tpl_of_bool(add_generation_prompt)));
    SKF_TRY(give(t, "tools", (struct tpl_value){.type = TPL_NONE}));
    return give(t, "documents", (struct tpl_value){.type = TPL_NONE});
}

enum skf_err skf_template_render(const char *tmpl, size_t n, const struct skf_chat *msgs, size_t n_msgs, const char *bos,
                                 const char *eos, bool add_generation_prompt, struct skf_buf *out, struct skf_why *why)
{
    size_t before = out->len;
    enum skf_err e;
    struct tpl_node *body = NULL;
    struct tpl *t = skf_calloc(1, sizeof *t);
    if (!t)
        return skf_fail(why, SKF_ERR_NOMEM, "chat template: out of memory");
    t->why = why;
    t->line = 1;
    t->out = out;
    if (n > TPL_SOURCE_MAX) {
        e = skf_fail(why, SKF_ERR_LIMIT, "chat template: larger than %d KiB", TPL_SOURCE_MAX >> 10);
        goto out;
    }
    SKF_GO(e, skf_tpl_lex(t, tmpl, n));
    SKF_GO(e, skf_tpl_parse(t, &body));
    SKF_GO(e, give_all(t, msgs, n_msgs, bos, eos, add_generation_prompt));
    SKF_GO(e, skf_tpl_run(t, body));
out:
    if (e != SKF_OK)
        out->len = before;
    for (struct tpl_block *b = t->blocks; b;) {
        struct tpl_block *next = b->next;
        skf_free(b);
        b = next;
    }
    skf_free(t);
    return e;
}
