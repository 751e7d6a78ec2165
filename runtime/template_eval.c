/* Running a chat template's tree. Scopes are a stack: a loop's body and a macro's are each one, an if is none. */
#include "base/util.h"
#include "runtime/template_priv.h"

enum { EVAL_DEPTH_MAX = 400 };

static enum skf_err enter(struct tpl *t)
{
    if (t->depth >= EVAL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "nested deeper than %d", EVAL_DEPTH_MAX);
    t->depth++;
    return skf_tpl_spend(t, 1);
}

/* ---- variables --------------------------------------------------------------------------------------------------------- */
static struct tpl_var *find(struct tpl *t, struct tpl_str name, size_t down_to)
{
    for (size_t i = t->n_vars; i > down_to; i--)
        if (t->vars[i - 1].name.n == name.n && memcmp(t->vars[i - 1].name.p, name.p, name.n) == 0)
            return &t->vars[i - 1];
    return NULL;
}

enum skf_err skf_tpl_set(struct tpl *t, struct tpl_str name, struct tpl_value v)
{
    struct tpl_var *var = find(t, name, t->frame);
    if (!var) {
        if (t->n_vars == TPL_VARS_MAX)
            return skf_tpl_fail(t, SKF_ERR_LIMIT, "more than %d variables", TPL_VARS_MAX);
        var = &t->vars[t->n_vars++];
        var->name = name;
    }
    var->value = v;
    return skf_tpl_spend(t, t->n_vars - t->frame);
}

static enum skf_err get(struct tpl *t, struct tpl_str name, struct tpl_value *out)
{
    const struct tpl_var *var = find(t, name, 0);
    if (var)
        *out = var->value;
    else
        *out = (struct tpl_value){.type = is_tpl_function(name) ? TPL_FUNC : TPL_UNDEF, .u.s = name};
    return skf_tpl_spend(t, t->n_vars / 4);
}

/* ---- expressions ------------------------------------------------------------------------------------------------------- */
static enum skf_err run_list(struct tpl *t, const struct tpl_node *x);

static enum skf_err args_of(struct tpl *t, const struct tpl_node *x, struct tpl_args *a)
{
    a->n = a->n_kw = 0;
    for (; x; x = x->next) {
        if (x->kind == NODE_KW) {
            a->kw_name[a->n_kw] = x->s;
            SKF_TRY(skf_tpl_eval(t, x->a, &a->kw[a->n_kw++]));
        } else {
            SKF_TRY(skf_tpl_eval(t, x, &a->v[a->n++]));
        }
    }
    return SKF_OK;
}

/* What `body` prints, as a string. */
static enum skf_err capture(struct tpl *t, const struct tpl_node *body, struct tpl_value *out)
{
    struct skf_buf text = SKF_BUF_INIT(TPL_ARENA_MAX), *before = t->out;
    t->out = &text;
    enum skf_err e = run_list(t, body);
    t->out = before;
    if (e == SKF_OK) {
        char *p = skf_tpl_alloc(t, text.len + 1);
        if (p && text.len)
            memcpy(p, text.data, text.len);
        *out = skf_tpl_of_str(p, text.len);
        e = p ? SKF_OK : t->alloc_err;
    }
    skf_buf_free(&text);
    return e;
}

static enum skf_err call_macro(struct tpl *t, const struct tpl_node *m, const struct tpl_args *a, struct tpl_value *out)
{
    size_t vars = t->n_vars, frame = t->frame, i = 0;
    enum skf_err e = SKF_OK;
    t->frame = vars;
    for (const struct tpl_node *p = m->a; p; p = p->next, i++) {
        struct tpl_value v = {.type = TPL_UNDEF, .u.s = p->s};
        bool given = i < a->n;
        if (given)
            v = a->v[i];
        for (size_t k = 0; k < a->n_kw; k++) {
            if (a->kw_name[k].n == p->s.n && memcmp(a->kw_name[k].p, p->s.p, p->s.n) == 0) {
                v = a->kw[k];
                given = true;
            }
        }
        if (!given && p->a)
            SKF_GO(e, skf_tpl_eval(t, p->a, &v));
        SKF_GO(e, skf_tpl_set(t, p->s, v));
    }
    if (a->n > i) {
        e = skf_tpl_fail(t, SKF_ERR_FORMAT, "macro %.*s takes %zu arguments", (int)SKF_MIN(m->s.n, (size_t)60), m->s.p, i);
        goto out;
    }
    e = capture(t, m->c, out);
out:
    t->n_vars = vars;
    t->frame = frame;
    return e;
}

static enum skf_err call(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    struct tpl_value fn;
    struct tpl_args a;
    if (x->a->kind == NODE_ATTR) {
        SKF_TRY(skf_tpl_eval(t, x->a->a, &fn));
        SKF_TRY(args_of(t, x->b, &a));
        return skf_tpl_method(t, fn, x->a->s, &a, out);
    }
    SKF_TRY(skf_tpl_eval(t, x->a, &fn));
    SKF_TRY(args_of(t, x->b, &a));
    if (fn.type == TPL_MACRO)
        return call_macro(t, fn.u.macro, &a, out);
    if (fn.type == TPL_FUNC)
        return skf_tpl_call(t, fn.u.s, &a, out);
    if (fn.type == TPL_UNDEF)
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "function %.*s is not known", (int)SKF_MIN(fn.u.s.n, (size_t)60), fn.u.s.p);
    return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot call %s", skf_tpl_type_name(fn));
}

static enum skf_err comparison(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    struct tpl_value left, right;
    bool r = true;
    SKF_TRY(skf_tpl_eval(t, x->a, &left));
    for (const struct tpl_node *c = x->b; r && c; c = c->next, left = right) {
        SKF_TRY(skf_tpl_eval(t, c->a, &right));
        SKF_TRY(skf_tpl_compare(t, c->s, left, right, &r));
    }
    *out = skf_tpl_of_bool(r);
    return SKF_OK;
}

static enum skf_err collection(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    size_t n = 0;
    if (x->kind == NODE_LIST) {
        for (const struct tpl_node *i = x->a; i; i = i->next)
            n++;
        SKF_TRY(skf_tpl_list(t, n, out));
        n = 0;
        for (const struct tpl_node *i = x->a; i; i = i->next)
            SKF_TRY(skf_tpl_eval(t, i, &out->u.list->v[n++]));
        return SKF_OK;
    }
    SKF_TRY(skf_tpl_map(t, out));
    for (const struct tpl_node *i = x->a; i; i = i->next->next) {
        struct tpl_value key, value;
        SKF_TRY(skf_tpl_eval(t, i, &key));
        SKF_TRY(skf_tpl_eval(t, i->next, &value));
        if (key.type != TPL_STR)
            return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "%s as a key is not supported", skf_tpl_type_name(key));
        SKF_TRY(skf_tpl_map_set(t, out->u.map, key.u.s, value));
    }
    return SKF_OK;
}

/* Expressions that look into a value. */
static enum skf_err access_(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    struct tpl_value obj, key, bound[3] = {{.type = TPL_UNDEF}, {.type = TPL_UNDEF}, {.type = TPL_UNDEF}};
    const struct tpl_node *bounds[3] = {x->b, x->c, x->d};
    SKF_TRY(skf_tpl_eval(t, x->a, &obj));
    if (x->kind == NODE_ATTR)
        return skf_tpl_attr(t, obj, x->s, out);
    if (x->kind == NODE_ITEM) {
        SKF_TRY(skf_tpl_eval(t, x->b, &key));
        return skf_tpl_item(t, obj, key, out);
    }
    for (int i = 0; i < 3; i++)
        if (bounds[i])
            SKF_TRY(skf_tpl_eval(t, bounds[i], &bound[i]));
    return skf_tpl_slice(t, obj, bound, out);
}

/* Filters and tests. */
static enum skf_err applied(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    struct tpl_value in;
    struct tpl_args a;
    bool r = false;
    SKF_TRY(skf_tpl_eval(t, x->a, &in));
    SKF_TRY(args_of(t, x->b, &a));
    if (x->kind == NODE_FILTER)
        return skf_tpl_filter(t, x->s, in, &a, out);
    SKF_TRY(skf_tpl_test(t, x->s, in, &a, &r));
    *out = skf_tpl_of_bool(r);
    return SKF_OK;
}

static enum skf_err logic(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    SKF_TRY(skf_tpl_eval(t, x->a, out));
    bool r = is_tpl_true(*out);
    switch (x->kind) {
    case NODE_NOT:
        *out = skf_tpl_of_bool(!r);
        return SKF_OK;
    case NODE_AND:
        return r ? skf_tpl_eval(t, x->b, out) : SKF_OK;
    case NODE_OR:
        return r ? SKF_OK : skf_tpl_eval(t, x->b, out);
    default: /* NODE_COND */
        if (r)
            return skf_tpl_eval(t, x->b, out);
        *out = (struct tpl_value){.type = TPL_UNDEF, .u.s = {"inline if", 9}};
        return x->c ? skf_tpl_eval(t, x->c, out) : SKF_OK;
    }
}

static enum skf_err arithmetic(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    struct tpl_value a, b;
    SKF_TRY(skf_tpl_eval(t, x->a, &a));
    if (x->kind == NODE_NEG) {
        static const struct tpl_str minus = {"-", 1};
        return skf_tpl_arith(t, minus, skf_tpl_of_int(0), a, out);
    }
    SKF_TRY(skf_tpl_eval(t, x->b, &b));
    return skf_tpl_arith(t, x->s, a, b, out);
}

static enum skf_err eval(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    switch (x->kind) {
    case NODE_CONST:
        *out = x->v;
        return SKF_OK;
    case NODE_NAME:
        return get(t, x->s, out);
    case NODE_ATTR:
    case NODE_ITEM:
    case NODE_SLICE:
        return access_(t, x, out);
    case NODE_CALL:
        return call(t, x, out);
    case NODE_FILTER:
    case NODE_TEST:
        return applied(t, x, out);
    case NODE_NOT:
    case NODE_AND:
    case NODE_OR:
    case NODE_COND:
        return logic(t, x, out);
    case NODE_NEG:
    case NODE_BIN:
        return arithmetic(t, x, out);
    case NODE_CMP:
        return comparison(t, x, out);
    case NODE_LIST:
    case NODE_DICT:
        return collection(t, x, out);
    default:
        return skf_tpl_fail(t, SKF_ERR_INTERNAL, "statement where an expression should be");
    }
}

enum skf_err skf_tpl_eval(struct tpl *t, const struct tpl_node *x, struct tpl_value *out)
{
    SKF_TRY(enter(t));
    enum skf_err e = eval(t, x, out);
    t->depth--;
    return e;
}

/* ---- statements -------------------------------------------------------------------------------------------------------- */
static enum skf_err put(struct tpl *t, struct tpl_str s)
{
    SKF_TRY(skf_tpl_spend(t, s.n / 64));
    enum skf_err e = skf_buf_put(t->out, s.p, s.n);
    if (e == SKF_ERR_LIMIT)
        return skf_tpl_fail(t, e, "gives more than %zu bytes", t->out->limit);
    return e ? skf_tpl_fail(t, e, "out of memory") : SKF_OK;
}

static enum skf_err bind(struct tpl *t, const struct tpl_node *targets, struct tpl_value v)
{
    if (!targets->next)
        return skf_tpl_set(t, targets->s, v);
    struct tpl_list *parts;
    size_t i = 0;
    SKF_TRY(skf_tpl_iter(t, v, &parts));
    for (const struct tpl_node *x = targets; x; x = x->next, i++)
        if (i < parts->n)
            SKF_TRY(skf_tpl_set(t, x->s, parts->v[i]));
    return i == parts->n ? SKF_OK : skf_tpl_fail(t, SKF_ERR_FORMAT, "%zu values for %zu names", parts->n, i);
}

static enum skf_err set(struct tpl *t, const struct tpl_node *x)
{
    struct tpl_value v, ns;
    SKF_TRY(x->c || !x->b ? capture(t, x->c, &v) : skf_tpl_eval(t, x->b, &v));
    if (!x->a->b)
        return bind(t, x->a, v);
    SKF_TRY(get(t, x->a->s, &ns));
    if (ns.type != TPL_MAP || !ns.u.map->is_namespace)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot set an attribute of %s", skf_tpl_type_name(ns));
    return skf_tpl_map_set(t, ns.u.map, x->a->b->s, v);
}

/* The elements that a loop's condition lets through. */
static enum skf_err filtered(struct tpl *t, const struct tpl_node *x, struct tpl_list **list)
{
    struct tpl_value kept, yes;
    size_t n = 0, vars = t->n_vars;
    SKF_TRY(skf_tpl_list(t, (*list)->n, &kept));
    for (size_t i = 0; i < (*list)->n; i++) {
        t->n_vars = vars;
        SKF_TRY(bind(t, x->a, (*list)->v[i]));
        SKF_TRY(skf_tpl_eval(t, x->d->a, &yes));
        if (is_tpl_true(yes))
            kept.u.list->v[n++] = (*list)->v[i];
    }
    t->n_vars = vars;
    kept.u.list->n = n;
    *list = kept.u.list;
    return SKF_OK;
}

static enum skf_err for_(struct tpl *t, const struct tpl_node *x)
{
    static const struct tpl_str loop_name = {"loop", 4};
    struct tpl_value over;
    struct tpl_list *list;
    SKF_TRY(skf_tpl_eval(t, x->b, &over));
    SKF_TRY(skf_tpl_iter(t, over, &list));
    size_t vars = t->n_vars, frame = t->frame;
    t->frame = vars;
    if (x->d->a)
        SKF_TRY(filtered(t, x, &list));
    struct tpl_loop *loop = skf_tpl_alloc(t, sizeof *loop);
    if (!loop)
        return t->alloc_err;
    loop->list = list;
    for (size_t i = 0; i < list->n && t->flow != FLOW_BREAK; i++) {
        t->n_vars = vars;
        t->flow = FLOW_ON;
        loop->i = i;
        SKF_TRY(skf_tpl_spend(t, 1));
        SKF_TRY(skf_tpl_set(t, loop_name, (struct tpl_value){.type = TPL_LOOP, .u.loop = loop}));
        SKF_TRY(bind(t, x->a, list->v[i]));
        SKF_TRY(run_list(t, x->c));
    }
    t->flow = FLOW_ON;
    t->n_vars = vars;
    t->frame = frame;
    return list->n ? SKF_OK : run_list(t, x->d->c);
}

static enum skf_err if_(struct tpl *t, const struct tpl_node *x)
{
    struct tpl_value yes;
    for (;;) {
        SKF_TRY(skf_tpl_eval(t, x->a, &yes));
        if (is_tpl_true(yes))
            return run_list(t, x->b);
        if (!x->c || x->c->kind != NODE_IF || x->c->next)
            return run_list(t, x->c);
        x = x->c; /* an elif, or an else that holds nothing but an if */
        t->line = x->line;
        SKF_TRY(skf_tpl_spend(t, 1));
    }
}

static enum skf_err statement(struct tpl *t, const struct tpl_node *x)
{
    struct tpl_value v;
    struct tpl_str text;
    switch (x->kind) {
    case NODE_TEXT:
        return put(t, x->s);
    case NODE_OUT:
        SKF_TRY(skf_tpl_eval(t, x->a, &v));
        SKF_TRY(skf_tpl_text(t, v, &text));
        return put(t, text);
    case NODE_IF:
        return if_(t, x);
    case NODE_FOR:
        return for_(t, x);
    case NODE_SET:
        return set(t, x);
    case NODE_MACRO:
        return skf_tpl_set(t, x->s, (struct tpl_value){.type = TPL_MACRO, .u.macro = x});
    case NODE_BREAK:
        t->flow = FLOW_BREAK;
        return SKF_OK;
    case NODE_CONTINUE:
        t->flow = FLOW_CONTINUE;
        return SKF_OK;
    default: /* NODE_BODY */
        return run_list(t, x->c);
    }
}

static enum skf_err run_list(struct tpl *t, const struct tpl_node *x)
{
    SKF_TRY(enter(t));
    for (; x && t->flow == FLOW_ON; x = x->next) {
        t->line = x->line;
        SKF_TRY(skf_tpl_spend(t, 1));
        SKF_TRY(statement(t, x));
    }
    t->depth--;
    return SKF_OK;
}

enum skf_err skf_tpl_run(struct tpl *t, const struct tpl_node *body)
{
    t->depth = 0;
    return run_list(t, body);
}
