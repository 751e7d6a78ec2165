/* What a chat template can call: tests, functions, and the table of filters. String work is in template_string.c. */
#include "base/util.h"
#include "runtime/template_priv.h"

typedef enum skf_err filter_fn(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out);

/* A named argument, or else the i-th; NULL when neither is there. */
static const struct tpl_value *arg(const struct tpl_args *a, size_t i, const char *name)
{
    for (size_t k = 0; k < a->n_kw; k++)
        if (is_tpl_str(a->kw_name[k], name))
            return &a->kw[k];
    return i < a->n ? &a->v[i] : NULL;
}

/* ---- functions --------------------------------------------------------------------------------------------------------- */
static enum skf_err raise_exception(struct tpl *t, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_str s = {"the template refuses this conversation", 38};
    if (a->n)
        SKF_TRY(skf_tpl_text(t, a->v[0], &s));
    return skf_tpl_fail(t, SKF_ERR_REFUSED, "%.*s", (int)SKF_MIN(s.n, (size_t)300), s.p);
}

static enum skf_err dict(struct tpl *t, const struct tpl_args *a, struct tpl_value *out)
{
    SKF_TRY(skf_tpl_map(t, out));
    for (size_t i = 0; i < a->n_kw; i++)
        SKF_TRY(skf_tpl_map_set(t, out->u.map, a->kw_name[i], a->kw[i]));
    return a->n ? skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "dict and namespace of a mapping are not supported") : SKF_OK;
}

static enum skf_err namespace_(struct tpl *t, const struct tpl_args *a, struct tpl_value *out)
{
    SKF_TRY(dict(t, a, out));
    out->u.map->is_namespace = true;
    return SKF_OK;
}

static enum skf_err range(struct tpl *t, const struct tpl_args *a, struct tpl_value *out)
{
    int64_t v[3] = {0, 0, 1};
    if (a->n < 1 || a->n > 3)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "range takes 1 to 3 numbers");
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].type != TPL_INT)
            return skf_tpl_fail(t, SKF_ERR_FORMAT, "range of %s", skf_tpl_type_name(a->v[i]));
        v[a->n == 1 ? 1 : i] = a->v[i].u.i;
        if (a->v[i].u.i > 1000000 || a->v[i].u.i < -1000000)
            return skf_tpl_fail(t, SKF_ERR_LIMIT, "range too long");
    }
    if (v[2] == 0)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "range with a step of 0");
    int64_t span = v[2] > 0 ? v[1] - v[0] : v[0] - v[1], step = v[2] > 0 ? v[2] : -v[2];
    SKF_TRY(skf_tpl_list(t, span > 0 ? (size_t)((span + step - 1) / step) : 0, out));
    for (size_t i = 0; i < out->u.list->n; i++)
        out->u.list->v[i] = skf_tpl_of_int(v[0] + (int64_t)i * v[2]);
    return SKF_OK;
}

static const struct {
    const char *name;
    enum skf_err (*fn)(struct tpl *t, const struct tpl_args *a, struct tpl_value *out);
} functions[] = {{"raise_exception", raise_exception}, {"namespace", namespace_}, {"dict", dict}, {"range", range}};

bool is_tpl_function(struct tpl_str name)
{
    for (size_t i = 0; i < SKF_COUNT(functions); i++)
        if (is_tpl_str(name, functions[i].name))
            return true;
    return false;
}

enum skf_err skf_tpl_call(struct tpl *t, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out)
{
    for (size_t i = 0; i < SKF_COUNT(functions); i++)
        if (is_tpl_str(name, functions[i].name))
            return functions[i].fn(t, a, out);
    return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "function %.*s is not known", (int)SKF_MIN(name.n, (size_t)60), name.p);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------- */
/* Tests that look at the value alone; -1 when it is none of them. */
static int simple_test(struct tpl_str name, struct tpl_value v)
{
    bool number = v.type == TPL_INT || v.type == TPL_FLOAT || v.type == TPL_BOOL;
    bool many = v.type == TPL_STR || v.type == TPL_LIST || (v.type == TPL_MAP && !v.u.map->is_namespace);
    const struct {
        const char *name;
        bool yes;
    } tests[] = {{"defined", v.type != TPL_UNDEF},
                 {"undefined", v.type == TPL_UNDEF},
                 {"none", v.type == TPL_NONE},
                 {"string", v.type == TPL_STR},
                 {"number", number},
                 {"integer", v.type == TPL_INT},
                 {"float", v.type == TPL_FLOAT},
                 {"boolean", v.type == TPL_BOOL},
                 {"true", v.type == TPL_BOOL && v.u.b},
                 {"false", v.type == TPL_BOOL && !v.u.b},
                 {"mapping", v.type == TPL_MAP && !v.u.map->is_namespace},
                 {"iterable", many || v.type == TPL_UNDEF},
                 {"sequence", many || v.type == TPL_UNDEF},
                 {"callable", v.type == TPL_FUNC || v.type == TPL_MACRO}};
    for (size_t i = 0; i < SKF_COUNT(tests); i++)
        if (is_tpl_str(name, tests[i].name))
            return tests[i].yes;
    return -1;
}

static enum skf_err divides(struct tpl *t, struct tpl_value in, int64_t by, int64_t rest, bool *r)
{
    if (in.type != TPL_INT || by == 0)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "divisibility of %s by %lld", skf_tpl_type_name(in), (long long)by);
    *r = (by == -1 ? 0 : llabs(in.u.i % by)) == rest;
    return SKF_OK;
}

enum skf_err skf_tpl_test(struct tpl *t, struct tpl_str name, struct tpl_value in, const struct tpl_args *a, bool *r)
{
    static const char *const equal[] = {"eq", "equalto", "=="}, *const orders[][2] = {
        {"ne", "!="}, {"lt", "<"}, {"lessthan", "<"}, {"gt", ">"}, {"greaterthan", ">"}, {"le", "<="}, {"ge", ">="}, {"in", "in"}};
    int simple = simple_test(name, in);
    if (simple >= 0) {
        *r = simple;
        return SKF_OK;
    }
    if (is_tpl_str(name, "even") || is_tpl_str(name, "odd"))
        return divides(t, in, 2, name.n == 3, r);
    if (a->n == 1 && is_tpl_str(name, "divisibleby") && a->v[0].type == TPL_INT)
        return divides(t, in, a->v[0].u.i, 0, r);
    for (size_t i = 0; a->n == 1 && i < SKF_COUNT(equal); i++)
        if (is_tpl_str(name, equal[i]))
            return skf_tpl_equal(t, in, a->v[0], r);
    for (size_t i = 0; a->n == 1 && i < SKF_COUNT(orders); i++)
        if (is_tpl_str(name, orders[i][0]))
            return skf_tpl_compare(t, (struct tpl_str){orders[i][1], strlen(orders[i][1])}, in, a->v[0], r);
    return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "test \"is %.*s\" is not known", (int)SKF_MIN(name.n, (size_t)60), name.p);
}

/* ---- filters ----------------------------------------------------------------------------------------------------------- */
static enum skf_err f_length(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    int64_t n;
    SKF_TRY(skf_tpl_length(t, in, &n));
    *out = skf_tpl_of_int(n);
    return SKF_OK;
}

static enum skf_err f_tojson(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    const struct tpl_value *indent = arg(a, 0, "indent");
    return skf_tpl_json(t, in, indent && indent->type == TPL_INT ? indent->u.i : -1, out);
}

static enum skf_err f_default(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    const struct tpl_value *other = arg(a, 0, "default_value"), *falsy = arg(a, 1, "boolean");
    *out = in;
    if (in.type == TPL_UNDEF || (falsy && is_tpl_true(*falsy) && !is_tpl_true(in)))
        *out = other ? *other : skf_tpl_of_str("", 0);
    return SKF_OK;
}

static enum skf_err f_first(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_list *l;
    SKF_TRY(skf_tpl_iter(t, in, &l));
    *out = l->n ? l->v[0] : (struct tpl_value){.type = TPL_UNDEF, .u.s = {"first", 5}};
    return SKF_OK;
}

static enum skf_err f_last(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_list *l;
    SKF_TRY(skf_tpl_iter(t, in, &l));
    *out = l->n ? l->v[l->n - 1] : (struct tpl_value){.type = TPL_UNDEF, .u.s = {"last", 4}};
    return SKF_OK;
}

static enum skf_err f_list(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_list *l;
    SKF_TRY(skf_tpl_iter(t, in, &l));
    *out = (struct tpl_value){.type = TPL_LIST, .u.list = l};
    return SKF_OK;
}

static enum skf_err f_reverse(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    const struct tpl_value bound[3] = {{.type = TPL_NONE}, {.type = TPL_NONE}, {.type = TPL_INT, .u.i = -1}};
    return skf_tpl_slice(t, in, bound, out);
}

static enum skf_err f_items(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    if (in.type == TPL_UNDEF)
        return skf_tpl_list(t, 0, out);
    return skf_tpl_method(t, in, (struct tpl_str){"items", 5}, a, out);
}

static enum skf_err f_string(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_str s;
    SKF_TRY(skf_tpl_text(t, in, &s));
    *out = skf_tpl_of_str(s.p, s.n);
    return SKF_OK;
}

static enum skf_err f_int(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    int64_t v = 0;
    if (in.type == TPL_INT || in.type == TPL_BOOL) {
        v = in.type == TPL_INT ? in.u.i : in.u.b;
    } else if (in.type == TPL_STR && in.u.s.n && in.u.s.n < 19) {
        bool minus = in.u.s.p[0] == '-';
        for (size_t i = minus; i < in.u.s.n; i++) {
            if (in.u.s.p[i] < '0' || in.u.s.p[i] > '9') {
                v = 0;
                break;
            }
            v = 10 * v + (in.u.s.p[i] - '0');
        }
        v = minus ? -v : v;
    } else if (in.type != TPL_STR) {
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "%s to an integer is not supported", skf_tpl_type_name(in));
    }
    *out = skf_tpl_of_int(v);
    return SKF_OK;
}

/* The attribute of one element that map, selectattr, rejectattr and join name; dots go deeper. */
static enum skf_err attribute(struct tpl *t, struct tpl_value v, struct tpl_str path, struct tpl_value *out)
{
    *out = v;
    while (path.n) {
        const char *dot = memchr(path.p, '.', path.n);
        struct tpl_str part = {path.p, dot ? (size_t)(dot - path.p) : path.n};
        SKF_TRY(skf_tpl_attr(t, *out, part, out));
        path.p += part.n + (dot != NULL);
        path.n -= part.n + (dot != NULL);
    }
    return SKF_OK;
}

static enum skf_err f_map(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    const struct tpl_value *attr = arg(a, TPL_ARGS_MAX, "attribute");
    struct tpl_list *from;
    struct tpl_args rest = {0};
    if (attr ? attr->type != TPL_STR : !a->n || a->v[0].type != TPL_STR)
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "map needs a filter's or an attribute's name");
    for (size_t i = 1; !attr && i < a->n; i++)
        rest.v[rest.n++] = a->v[i];
    SKF_TRY(skf_tpl_iter(t, in, &from));
    SKF_TRY(skf_tpl_list(t, from->n, out));
    for (size_t i = 0; i < from->n; i++)
        SKF_TRY(attr ? attribute(t, from->v[i], attr->u.s, &out->u.list->v[i])
                     : skf_tpl_filter(t, a->v[0].u.s, from->v[i], &rest, &out->u.list->v[i]));
    return SKF_OK;
}

/* selectattr(name[, test[, argument]]) and rejectattr; select and reject the same without the name. */
static enum skf_err pick(struct tpl *t, struct tpl_value in, const struct tpl_args *a, bool by_attr, bool want,
                         struct tpl_value *out)
{
    struct tpl_list *from;
    struct tpl_args rest = {0};
    size_t at = by_attr, n = 0;
    for (size_t i = 0; i < a->n && i <= at; i++)
        if (a->v[i].type != TPL_STR)
            return skf_tpl_fail(t, SKF_ERR_FORMAT, "%s where a name should be", skf_tpl_type_name(a->v[i]));
    if (a->n < at)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "selectattr needs an attribute's name");
    for (size_t i = at + 1; i < a->n; i++)
        rest.v[rest.n++] = a->v[i];
    SKF_TRY(skf_tpl_iter(t, in, &from));
    SKF_TRY(skf_tpl_list(t, from->n, out));
    for (size_t i = 0; i < from->n; i++) {
        struct tpl_value v = from->v[i];
        if (by_attr)
            SKF_TRY(attribute(t, v, a->v[0].u.s, &v));
        bool yes = is_tpl_true(v);
        if (a->n > at)
            SKF_TRY(skf_tpl_test(t, a->v[at].u.s, v, &rest, &yes));
        if (yes == want)
            out->u.list->v[n++] = from->v[i];
    }
    out->u.list->n = n;
    return SKF_OK;
}

static enum skf_err f_selectattr(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    return pick(t, in, a, true, true, out);
}
static enum skf_err f_rejectattr(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    return pick(t, in, a, true, false, out);
}
static enum skf_err f_select(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    return pick(t, in, a, false, true, out);
}
static enum skf_err f_reject(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    return pick(t, in, a, false, false, out);
}

static enum skf_err f_join(struct tpl *t, struct tpl_value in, const struct tpl_args *a, struct tpl_value *out)
{
    static const struct tpl_str tilde = {"~", 1};
    const struct tpl_value *sep = arg(a, 0, "d"), *attr = arg(a, 1, "attribute");
    struct tpl_list *from;
    SKF_TRY(skf_tpl_iter(t, in, &from));
    *out = skf_tpl_of_str("", 0);
    for (size_t i = 0; i < from->n; i++) {
        struct tpl_value v = from->v[i];
        if (attr && attr->type == TPL_STR)
            SKF_TRY(attribute(t, v, attr->u.s, &v));
        if (i && sep)
            SKF_TRY(skf_tpl_arith(t, tilde, *out, *sep, out));
        SKF_TRY(skf_tpl_arith(t, tilde, *out, v, out));
    }
    return SKF_OK;
}

/* Filters that are a string's method by another name. */
static enum skf_err as_method(struct tpl *t, struct tpl_str name, struct tpl_value in, const struct tpl_args *a,
                              struct tpl_value *out, bool *known)
{
    static const char *const names[][2] = {{"trim", "strip"},   {"upper", "upper"},           {"lower", "lower"},
                                           {"title", "title"},  {"capitalize", "capitalize"}, {"replace", "replace"}};
    for (size_t i = 0; i < SKF_COUNT(names); i++) {
        if (!is_tpl_str(name, names[i][0]))
            continue;
        struct tpl_str text, method = {names[i][1], strlen(names[i][1])};
        *known = true;
        SKF_TRY(skf_tpl_text(t, in, &text));
        return skf_tpl_method(t, skf_tpl_of_str(text.p, text.n), method, a, out);
    }
    return SKF_OK;
}

enum skf_err skf_tpl_filter(struct tpl *t, struct tpl_str name, struct tpl_value in, const struct tpl_args *a,
                            struct tpl_value *out)
{
    static const struct {
        const char *name;
        filter_fn *fn;
    } filters[] = {{"length", f_length},   {"count", f_length},       {"tojson", f_tojson},         {"default", f_default},
                   {"d", f_default},       {"first", f_first},        {"last", f_last},             {"list", f_list},
                   {"reverse", f_reverse}, {"items", f_items},        {"string", f_string},         {"safe", f_string},
                   {"int", f_int},         {"map", f_map},            {"selectattr", f_selectattr}, {"rejectattr", f_rejectattr},
                   {"select", f_select},   {"reject", f_reject},      {"join", f_join}};
    bool known = false;
    SKF_TRY(skf_tpl_spend(t, 1));
    for (size_t i = 0; i < SKF_COUNT(filters); i++)
        if (is_tpl_str(name, filters[i].name))
            return filters[i].fn(t, in, a, out);
    SKF_TRY(as_method(t, name, in, a, out, &known));
    if (!known)
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "filter %.*s is not known", (int)SKF_MIN(name.n, (size_t)60), name.p);
    return SKF_OK;
}
