/*
 * Template tokens to a tree: the expressions, by recursive descent with Jinja's precedence:
 * inline if, or, and, not, comparisons, + -, ~, * / // %, unary, then attribute, item, call, filter and test behind a primary.
 */
#include "base/util.h"
#include "runtime/template_priv.h"

/* A node with the operator's text (kept in s) and its left side (in a); takes the operator. */
static enum skf_err around(struct tpl *t, enum tpl_kind kind, struct tpl_node **left)
{
    struct tpl_node *x = NULL;
    SKF_TRY(skf_tpl_node(t, kind, &x));
    x->s = t->tok->s;
    x->a = *left;
    t->tok++;
    *left = x;
    return SKF_OK;
}

/* a: elements (a list) */
static enum skf_err list(struct tpl *t, const char *end, struct tpl_node *first, struct tpl_node **out)
{
    struct tpl_node *x = NULL, **next;
    SKF_TRY(skf_tpl_node(t, NODE_LIST, &x));
    *out = x;
    x->a = first;
    for (next = first ? &first->next : &x->a; !is_tpl_op(t, end); next = &(*next)->next) {
        if (next != &x->a)
            SKF_TRY(skf_tpl_expect(t, ","));
        if (is_tpl_op(t, end))
            break;
        SKF_TRY(skf_tpl_parse_expr(t, next));
    }
    t->tok++;
    return SKF_OK;
}

/* a: keys and values in turn (a list) */
static enum skf_err dict(struct tpl *t, struct tpl_node **out)
{
    struct tpl_node *x = NULL, **next;
    SKF_TRY(skf_tpl_node(t, NODE_DICT, &x));
    *out = x;
    for (next = &x->a; !is_tpl_op(t, "}"); next = &(*next)->next) {
        if (next != &x->a)
            SKF_TRY(skf_tpl_expect(t, ","));
        if (is_tpl_op(t, "}"))
            break;
        SKF_TRY(skf_tpl_parse_expr(t, next));
        SKF_TRY(skf_tpl_expect(t, ":"));
        next = &(*next)->next;
        SKF_TRY(skf_tpl_parse_expr(t, next));
    }
    t->tok++;
    return SKF_OK;
}

static enum skf_err group(struct tpl *t, struct tpl_node **out)
{
    if (is_tpl_op(t, ")"))
        return list(t, ")", NULL, out);
    SKF_TRY(skf_tpl_parse_expr(t, out));
    if (is_tpl_op(t, ","))
        return list(t, ")", *out, out);
    return skf_tpl_expect(t, ")");
}

static enum skf_err name(struct tpl *t, struct tpl_node **out)
{
    static const struct {
        const char *name;
        struct tpl_value v;
    } words[] = {{"true", {.type = TPL_BOOL, .u.b = true}},   {"True", {.type = TPL_BOOL, .u.b = true}},
                 {"false", {.type = TPL_BOOL, .u.b = false}}, {"False", {.type = TPL_BOOL, .u.b = false}},
                 {"none", {.type = TPL_NONE}},                {"None", {.type = TPL_NONE}}};
    SKF_TRY(skf_tpl_node(t, NODE_NAME, out));
    (*out)->s = t->tok->s;
    t->tok++;
    for (size_t i = 0; i < SKF_COUNT(words); i++) {
        if (is_tpl_str((*out)->s, words[i].name)) {
            (*out)->kind = NODE_CONST;
            (*out)->v = words[i].v;
        }
    }
    return SKF_OK;
}

static enum skf_err constant(struct tpl *t, struct tpl_node **out)
{
    SKF_TRY(skf_tpl_node(t, NODE_CONST, out));
    struct tpl_value *v = &(*out)->v;
    if (t->tok->kind == TOK_INT) {
        *v = skf_tpl_of_int(t->tok->i);
    } else if (t->tok->kind == TOK_FLOAT) {
        *v = (struct tpl_value){.type = TPL_FLOAT, .u.f = t->tok->f};
    } else {
        *v = skf_tpl_of_str(t->tok->s.p, t->tok->s.n);
        if (t->tok[1].kind == TOK_STR)
            return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "strings side by side are not supported; use ~ between them");
    }
    t->tok++;
    return SKF_OK;
}

static enum skf_err primary(struct tpl *t, struct tpl_node **out)
{
    if (t->tok->kind == TOK_NAME)
        return name(t, out);
    if (t->tok->kind == TOK_STR || t->tok->kind == TOK_INT || t->tok->kind == TOK_FLOAT)
        return constant(t, out);
    if (is_tpl_op(t, "(")) {
        t->tok++;
        return group(t, out);
    }
    if (is_tpl_op(t, "[")) {
        t->tok++;
        return list(t, "]", NULL, out);
    }
    if (is_tpl_op(t, "{")) {
        t->tok++;
        return dict(t, out);
    }
    return skf_tpl_expect(t, "an expression");
}

/* Arguments as a list; keyword arguments are NODE_KW with name s and value a, and stand last. */
enum skf_err skf_tpl_parse_args(struct tpl *t, struct tpl_node **out)
{
    size_t n = 0;
    bool had_kw = false;
    *out = NULL;
    for (; !is_tpl_op(t, ")"); n++, out = &(*out)->next) {
        if (n)
            SKF_TRY(skf_tpl_expect(t, ","));
        if (n && is_tpl_op(t, ")"))
            break;
        if (n == TPL_ARGS_MAX)
            return skf_tpl_fail(t, SKF_ERR_LIMIT, "call with more than %d arguments", TPL_ARGS_MAX);
        bool kw = t->tok->kind == TOK_NAME && t->tok[1].kind == TOK_OP && is_tpl_str(t->tok[1].s, "=");
        if (had_kw && !kw)
            return skf_tpl_fail(t, SKF_ERR_FORMAT, "positional argument behind a named one");
        had_kw = kw;
        if (kw) {
            SKF_TRY(skf_tpl_node(t, NODE_KW, out));
            (*out)->s = t->tok->s;
            t->tok += 2;
            SKF_TRY(skf_tpl_parse_expr(t, &(*out)->a));
        } else {
            SKF_TRY(skf_tpl_parse_expr(t, out));
        }
    }
    t->tok++;
    return SKF_OK;
}

/* NODE_ITEM a[b], or NODE_SLICE of a with bounds b, c, d, NULL where left out */
static enum skf_err subscript(struct tpl *t, struct tpl_node **x)
{
    SKF_TRY(around(t, NODE_ITEM, x));
    struct tpl_node **bound[3] = {&(*x)->b, &(*x)->c, &(*x)->d};
    for (int i = 0; i < 3; i++) {
        if (!is_tpl_op(t, ":") && !is_tpl_op(t, "]"))
            SKF_TRY(skf_tpl_parse_expr(t, bound[i]));
        if (i == 2 || !is_tpl_op(t, ":"))
            break;
        (*x)->kind = NODE_SLICE;
        t->tok++;
    }
    if ((*x)->kind == NODE_ITEM && !(*x)->b)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "empty subscript");
    return skf_tpl_expect(t, "]");
}

/* NODE_ATTR a.s; NODE_CALL a(b...) */
static enum skf_err postfix(struct tpl *t, struct tpl_node **x)
{
    for (;;) {
        if (is_tpl_op(t, ".")) {
            SKF_TRY(around(t, NODE_ATTR, x));
            if (t->tok->kind != TOK_NAME && t->tok->kind != TOK_INT)
                return skf_tpl_expect(t, "an attribute");
            (*x)->s = t->tok->s;
            t->tok++;
        } else if (is_tpl_op(t, "[")) {
            SKF_TRY(subscript(t, x));
        } else if (is_tpl_op(t, "(")) {
            SKF_TRY(around(t, NODE_CALL, x));
            SKF_TRY(skf_tpl_parse_args(t, &(*x)->b));
        } else {
            return SKF_OK;
        }
    }
}

/* NODE_FILTER a|s(b...) */
static enum skf_err filter(struct tpl *t, struct tpl_node **x)
{
    SKF_TRY(around(t, NODE_FILTER, x));
    if (t->tok->kind != TOK_NAME)
        return skf_tpl_expect(t, "a filter");
    (*x)->s = t->tok->s;
    t->tok++;
    if (is_tpl_op(t, "(")) {
        t->tok++;
        return skf_tpl_parse_args(t, &(*x)->b);
    }
    return SKF_OK;
}

/* NODE_TEST a is s(b...), inside a NODE_NOT for "is not" */
static enum skf_err test(struct tpl *t, struct tpl_node **x)
{
    SKF_TRY(around(t, NODE_TEST, x));
    struct tpl_node *it = *x;
    if (is_tpl_name(t, "not")) {
        t->tok++;
        SKF_TRY(skf_tpl_node(t, NODE_NOT, x));
        (*x)->a = it;
    }
    if (t->tok->kind != TOK_NAME && !is_tpl_op(t, "=="))
        return skf_tpl_expect(t, "a test");
    it->s = t->tok->s;
    t->tok++;
    if (is_tpl_op(t, "(")) {
        t->tok++;
        return skf_tpl_parse_args(t, &it->b);
    }
    bool follows = t->tok->kind == TOK_STR || t->tok->kind == TOK_INT || t->tok->kind == TOK_FLOAT || is_tpl_op(t, "[") ||
                   is_tpl_op(t, "{") ||
                   (t->tok->kind == TOK_NAME && !is_tpl_name(t, "else") && !is_tpl_name(t, "or") && !is_tpl_name(t, "and") &&
                    !is_tpl_name(t, "if") && !is_tpl_name(t, "is") && !is_tpl_name(t, "in") && !is_tpl_name(t, "not"));
    if (!follows)
        return SKF_OK;
    SKF_TRY(primary(t, &it->b));
    return postfix(t, &it->b);
}

static enum skf_err unary(struct tpl *t, bool with_filters, struct tpl_node **out)
{
    if (t->depth >= TPL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "nested deeper than %d", TPL_DEPTH_MAX);
    t->depth++;
    if (is_tpl_op(t, "-")) {
        SKF_TRY(skf_tpl_node(t, NODE_NEG, out));
        t->tok++;
        SKF_TRY(unary(t, false, &(*out)->a));
    } else {
        SKF_TRY(primary(t, out));
        SKF_TRY(postfix(t, out));
    }
    while (with_filters) {
        if (is_tpl_op(t, "|"))
            SKF_TRY(filter(t, out));
        else if (is_tpl_name(t, "is"))
            SKF_TRY(test(t, out));
        else if (is_tpl_op(t, "(") || is_tpl_op(t, ".") || is_tpl_op(t, "["))
            SKF_TRY(postfix(t, out));
        else
            break;
    }
    if (is_tpl_op(t, "**"))
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "** is not supported");
    t->depth--;
    return SKF_OK;
}

/* NODE_BIN a s b: the three levels of arithmetic, the lowest first. */
static enum skf_err arithmetic(struct tpl *t, int level, struct tpl_node **out)
{
    static const char *const ops[3][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
    if (level == 3)
        return unary(t, true, out);
    SKF_TRY(arithmetic(t, level + 1, out));
    for (;;) {
        bool found = false;
        for (int i = 0; ops[level][i] && !found; i++)
            found = is_tpl_op(t, ops[level][i]);
        if (!found)
            return SKF_OK;
        SKF_TRY(around(t, NODE_BIN, out));
        SKF_TRY(arithmetic(t, level + 1, &(*out)->b));
    }
}

/* NODE_CMP: a, then b: a list of NODE_CMPs with operator s and right side a ("in" and "not in" among them) */
static enum skf_err comparison(struct tpl *t, struct tpl_node **out)
{
    static const char *const ops[] = {"==", "!=", "<", ">", "<=", ">="};
    struct tpl_node **next = NULL;
    SKF_TRY(arithmetic(t, 0, out));
    for (;;) {
        bool found = is_tpl_name(t, "in");
        bool not_in = is_tpl_name(t, "not") && t->tok[1].kind == TOK_NAME && is_tpl_str(t->tok[1].s, "in");
        for (size_t i = 0; i < SKF_COUNT(ops) && !found; i++)
            found = is_tpl_op(t, ops[i]);
        if (!found && !not_in)
            return SKF_OK;
        if (!next) {
            struct tpl_node *x = NULL;
            SKF_TRY(skf_tpl_node(t, NODE_CMP, &x));
            x->a = *out;
            *out = x;
            next = &x->b;
        }
        SKF_TRY(skf_tpl_node(t, NODE_CMP, next));
        (*next)->s = t->tok->s;
        t->tok += not_in ? 2 : 1;
        SKF_TRY(arithmetic(t, 0, &(*next)->a));
        next = &(*next)->next;
    }
}

static enum skf_err not_(struct tpl *t, struct tpl_node **out)
{
    if (!is_tpl_name(t, "not"))
        return comparison(t, out);
    if (t->depth >= TPL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "nested deeper than %d", TPL_DEPTH_MAX);
    t->depth++;
    SKF_TRY(skf_tpl_node(t, NODE_NOT, out));
    t->tok++;
    SKF_TRY(not_(t, &(*out)->a));
    t->depth--;
    return SKF_OK;
}

static enum skf_err and_(struct tpl *t, struct tpl_node **out)
{
    SKF_TRY(not_(t, out));
    while (is_tpl_name(t, "and")) {
        SKF_TRY(around(t, NODE_AND, out));
        SKF_TRY(not_(t, &(*out)->b));
    }
    return SKF_OK;
}

enum skf_err skf_tpl_parse_or(struct tpl *t, struct tpl_node **out)
{
    SKF_TRY(and_(t, out));
    while (is_tpl_name(t, "or")) {
        SKF_TRY(around(t, NODE_OR, out));
        SKF_TRY(and_(t, &(*out)->b));
    }
    return SKF_OK;
}

/* NODE_COND: b if a else c, c NULL where left out */
enum skf_err skf_tpl_parse_expr(struct tpl *t, struct tpl_node **out)
{
    if (t->depth >= TPL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "nested deeper than %d", TPL_DEPTH_MAX);
    t->depth++;
    SKF_TRY(skf_tpl_parse_or(t, out));
    while (is_tpl_name(t, "if")) {
        struct tpl_node *x = NULL;
        SKF_TRY(skf_tpl_node(t, NODE_COND, &x));
        t->tok++;
        x->b = *out;
        *out = x;
        SKF_TRY(skf_tpl_parse_or(t, &x->a));
        if (is_tpl_name(t, "else")) {
            t->tok++;
            SKF_TRY(skf_tpl_parse_expr(t, &x->c));
        }
    }
    t->depth--;
    return SKF_OK;
}
