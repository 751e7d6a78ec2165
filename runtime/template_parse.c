/*
 * Template tokens to a tree: the statements.  Expressions are in template_expr.c.
 *
 * A construct that is known to Jinja but not to us is refused here only when it is a statement; unknown filters, tests, functions
 * and methods are refused when a conversation reaches them, since templates carry branches (tools, say) that most never enter.
 */
#include "base/util.h"
#include "runtime/template_priv.h"

enum skf_err skf_tpl_node(struct tpl *t, enum tpl_kind kind, struct tpl_node **out)
{
    struct tpl_node *x = skf_tpl_alloc(t, sizeof *x);
    if (!x)
        return t->alloc_err;
    x->kind = kind;
    x->line = t->line = t->tok->line;
    *out = x;
    return SKF_OK;
}

bool is_tpl_op(const struct tpl *t, const char *op)
{
    return t->tok->kind == TOK_OP && is_tpl_str(t->tok->s, op);
}
bool is_tpl_name(const struct tpl *t, const char *name)
{
    return t->tok->kind == TOK_NAME && is_tpl_str(t->tok->s, name);
}

static enum skf_err unexpected(struct tpl *t, const char *wanted)
{
    t->line = t->tok->line;
    if (t->tok->kind == TOK_EOF)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "ends where %s should be", wanted);
    return skf_tpl_fail(t, SKF_ERR_FORMAT, "\"%.*s\" where %s should be", (int)SKF_MIN(t->tok->s.n, (size_t)40),
                        t->tok->s.p ? t->tok->s.p : "", wanted);
}

enum skf_err skf_tpl_expect(struct tpl *t, const char *op)
{
    if (!is_tpl_op(t, op))
        return unexpected(t, op);
    t->tok++;
    return SKF_OK;
}

static enum skf_err expect_name(struct tpl *t, const char *name)
{
    if (!is_tpl_name(t, name))
        return unexpected(t, name);
    t->tok++;
    return SKF_OK;
}

static enum skf_err expect_end(struct tpl *t)
{
    if (t->tok->kind != TOK_BLOCK_END)
        return unexpected(t, "the end of the tag");
    t->tok++;
    return SKF_OK;
}

static enum skf_err any_name(struct tpl *t, struct tpl_str *name)
{
    if (t->tok->kind != TOK_NAME)
        return unexpected(t, "a name");
    *name = t->tok->s;
    t->tok++;
    return SKF_OK;
}

/* Whether a block tag with this name begins here. */
static bool is_block(const struct tpl *t, const char *name)
{
    return t->tok->kind == TOK_BLOCK && t->tok[1].kind == TOK_NAME && is_tpl_str(t->tok[1].s, name);
}

static enum skf_err body(struct tpl *t, const char *const *ends, struct tpl_node **out);

/* a: condition, b: body, c: what else (a list of statements) */
static enum skf_err if_(struct tpl *t, struct tpl_node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct tpl_node *x = NULL;
    SKF_TRY(skf_tpl_node(t, NODE_IF, &x));
    *out = x;
    for (;;) {
        SKF_TRY(skf_tpl_parse_expr(t, &x->a));
        SKF_TRY(expect_end(t));
        SKF_TRY(body(t, ends, &x->b));
        if (!is_block(t, "elif"))
            break;
        t->tok += 2;
        SKF_TRY(skf_tpl_node(t, NODE_IF, &x->c));
        x = x->c;
    }
    if (is_block(t, "else")) {
        t->tok += 2;
        SKF_TRY(expect_end(t));
        SKF_TRY(body(t, ends + 2, &x->c));
    }
    t->tok++;
    SKF_TRY(expect_name(t, "endif"));
    return expect_end(t);
}

/* A name, or several with commas between them, as NODE_NAMEs in a list. */
static enum skf_err targets(struct tpl *t, struct tpl_node **out)
{
    bool bracket = is_tpl_op(t, "(");
    t->tok += bracket;
    for (;;) {
        SKF_TRY(skf_tpl_node(t, NODE_NAME, out));
        SKF_TRY(any_name(t, &(*out)->s));
        if (!is_tpl_op(t, ","))
            break;
        t->tok++;
        out = &(*out)->next;
    }
    return bracket ? skf_tpl_expect(t, ")") : SKF_OK;
}

/* a: targets, b: what it goes over, c: body, d: list of at most two NODE_BODYs, the filter's condition (in a) and the else part (in c) */
static enum skf_err for_(struct tpl *t, struct tpl_node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    struct tpl_node *x = NULL;
    SKF_TRY(skf_tpl_node(t, NODE_FOR, &x));
    *out = x;
    SKF_TRY(targets(t, &x->a));
    SKF_TRY(expect_name(t, "in"));
    SKF_TRY(skf_tpl_parse_or(t, &x->b));
    SKF_TRY(skf_tpl_node(t, NODE_BODY, &x->d));
    if (is_tpl_name(t, "if")) {
        t->tok++;
        SKF_TRY(skf_tpl_parse_or(t, &x->d->a));
    }
    if (is_tpl_name(t, "recursive"))
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "recursive loops are not supported");
    SKF_TRY(expect_end(t));
    SKF_TRY(body(t, ends, &x->c));
    if (is_block(t, "else")) {
        t->tok += 2;
        SKF_TRY(expect_end(t));
        SKF_TRY(body(t, ends + 1, &x->d->c));
    }
    t->tok++;
    SKF_TRY(expect_name(t, "endfor"));
    return expect_end(t);
}

/* a: NODE_NAMEs, the last of which may have an attribute's name in b; b: expression, or c: body */
static enum skf_err set(struct tpl *t, struct tpl_node **out)
{
    static const char *const ends[] = {"endset", NULL};
    struct tpl_node *x = NULL;
    SKF_TRY(skf_tpl_node(t, NODE_SET, &x));
    *out = x;
    SKF_TRY(targets(t, &x->a));
    if (is_tpl_op(t, ".")) {
        t->tok++;
        SKF_TRY(skf_tpl_node(t, NODE_NAME, &x->a->b));
        SKF_TRY(any_name(t, &x->a->b->s));
    }
    if (is_tpl_op(t, "=")) {
        t->tok++;
        SKF_TRY(skf_tpl_parse_expr(t, &x->b));
        if (is_tpl_op(t, ",")) { /* a bare tuple */
            struct tpl_node *list = NULL, **next = &x->b->next;
            SKF_TRY(skf_tpl_node(t, NODE_LIST, &list));
            list->a = x->b;
            x->b = list;
            for (; is_tpl_op(t, ","); next = &(*next)->next) {
                t->tok++;
                SKF_TRY(skf_tpl_parse_expr(t, next));
            }
        }
        return expect_end(t);
    }
    SKF_TRY(expect_end(t));
    SKF_TRY(body(t, ends, &x->c));
    t->tok++;
    SKF_TRY(expect_name(t, "endset"));
    return expect_end(t);
}

/* s: name, a: parameters as NODE_NAMEs with their default in a, c: body */
static enum skf_err macro(struct tpl *t, struct tpl_node **out)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct tpl_node *x = NULL, **next;
    SKF_TRY(skf_tpl_node(t, NODE_MACRO, &x));
    *out = x;
    SKF_TRY(any_name(t, &x->s));
    SKF_TRY(skf_tpl_expect(t, "("));
    for (next = &x->a; !is_tpl_op(t, ")"); next = &(*next)->next) {
        if (next != &x->a)
            SKF_TRY(skf_tpl_expect(t, ","));
        SKF_TRY(skf_tpl_node(t, NODE_NAME, next));
        SKF_TRY(any_name(t, &(*next)->s));
        if (is_tpl_op(t, "=")) {
            t->tok++;
            SKF_TRY(skf_tpl_parse_expr(t, &(*next)->a));
        }
    }
    t->tok++;
    SKF_TRY(expect_end(t));
    SKF_TRY(body(t, ends, &x->c));
    t->tok++;
    SKF_TRY(expect_name(t, "endmacro"));
    return expect_end(t);
}

static enum skf_err break_(struct tpl *t, struct tpl_node **out)
{
    SKF_TRY(skf_tpl_node(t, NODE_BREAK, out));
    return expect_end(t);
}

static enum skf_err continue_(struct tpl *t, struct tpl_node **out)
{
    SKF_TRY(skf_tpl_node(t, NODE_CONTINUE, out));
    return expect_end(t);
}

/* Marks the assistant's words for training; here it is its body. c: body */
static enum skf_err generation(struct tpl *t, struct tpl_node **out)
{
    static const char *const ends[] = {"endgeneration", NULL};
    SKF_TRY(skf_tpl_node(t, NODE_BODY, out));
    SKF_TRY(expect_end(t));
    SKF_TRY(body(t, ends, &(*out)->c));
    t->tok++;
    SKF_TRY(expect_name(t, "endgeneration"));
    return expect_end(t);
}

static enum skf_err statement(struct tpl *t, struct tpl_node **out)
{
    static const struct {
        const char *name;
        enum skf_err (*fn)(struct tpl *t, struct tpl_node **out);
    } kinds[] = {{"if", if_},         {"for", for_},     {"set", set},
                 {"macro", macro},    {"break", break_}, {"continue", continue_},
                 {"generation", generation}};
    struct tpl_str name = {0};
    t->tok++;
    SKF_TRY(any_name(t, &name));
    for (size_t i = 0; i < SKF_COUNT(kinds); i++)
        if (is_tpl_str(name, kinds[i].name))
            return kinds[i].fn(t, out);
    t->line = t->tok->line;
    return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "{%% %.*s %%} is not supported", (int)SKF_MIN(name.n, (size_t)40), name.p);
}

/* Statements up to a block tag with one of these names (not taken), or to the end of the template when `ends` is NULL. */
static enum skf_err body(struct tpl *t, const char *const *ends, struct tpl_node **out)
{
    if (t->depth >= TPL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "nested deeper than %d", TPL_DEPTH_MAX);
    t->depth++;
    for (; t->tok->kind != TOK_EOF; out = &(*out)->next) {
        if (t->tok->kind == TOK_TEXT) {
            SKF_TRY(skf_tpl_node(t, NODE_TEXT, out));
            (*out)->s = t->tok->s;
            t->tok++;
        } else if (t->tok->kind == TOK_VAR) {
            SKF_TRY(skf_tpl_node(t, NODE_OUT, out));
            t->tok++;
            SKF_TRY(skf_tpl_parse_expr(t, &(*out)->a));
            if (t->tok->kind != TOK_VAR_END)
                return unexpected(t, "}}");
            t->tok++;
        } else {
            for (size_t i = 0; ends && ends[i]; i++)
                if (is_block(t, ends[i]))
                    goto end;
            SKF_TRY(statement(t, out));
        }
    }
    if (ends) {
        t->line = t->tok->line;
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "ends without {%% %s %%}", ends[0][0] == 'e' && ends[1] ? "endif/endfor" : ends[0]);
    }
end:
    t->depth--;
    return SKF_OK;
}

enum skf_err skf_tpl_parse(struct tpl *t, struct tpl_node **out)
{
    *out = NULL;
    return body(t, NULL, out);
}
