/* Values of the chat template interpreter, with Python's rules where templates rely on them. */
#include <inttypes.h>

#include "base/util.h"
#include "runtime/template_priv.h"

struct tpl_value skf_tpl_of_str(const char *p, size_t n)
{
    return (struct tpl_value){.type = TPL_STR, .u.s = {p, n}};
}
struct tpl_value skf_tpl_of_int(int64_t i)
{
    return (struct tpl_value){.type = TPL_INT, .u.i = i};
}
struct tpl_value skf_tpl_of_bool(bool b)
{
    return (struct tpl_value){.type = TPL_BOOL, .u.b = b};
}

const char *skf_tpl_type_name(struct tpl_value v)
{
    static const char *const names[] = {"an undefined value", "none", "a boolean", "a number",   "a number", "a string",
                                        "a list",             "a mapping", "a loop", "a function", "a macro"};
    return names[v.type];
}

bool is_tpl_true(struct tpl_value v)
{
    switch (v.type) {
    case TPL_UNDEF:
    case TPL_NONE:
        return false;
    case TPL_BOOL:
        return v.u.b;
    case TPL_INT:
        return v.u.i != 0;
    case TPL_FLOAT:
        return v.u.f != 0;
    case TPL_STR:
        return v.u.s.n != 0;
    case TPL_LIST:
        return v.u.list->n != 0;
    case TPL_MAP:
        return v.u.map->is_namespace || v.u.map->n != 0;
    default:
        return true;
    }
}

static bool is_number(struct tpl_value v)
{
    return v.type == TPL_BOOL || v.type == TPL_INT || v.type == TPL_FLOAT;
}
static int64_t as_int(struct tpl_value v)
{
    return v.type == TPL_BOOL ? v.u.b : v.u.i;
}
static double as_float(struct tpl_value v)
{
    return v.type == TPL_FLOAT ? v.u.f : (double)as_int(v);
}

/* ---- lists and maps ---------------------------------------------------------------------------------------------------- */
enum skf_err skf_tpl_list(struct tpl *t, size_t n, struct tpl_value *out)
{
    if (n > TPL_ARENA_MAX / sizeof(struct tpl_value))
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "list too long");
    SKF_TRY(skf_tpl_spend(t, n));
    struct tpl_list *l = skf_tpl_alloc(t, sizeof *l);
    struct tpl_value *v = l ? skf_tpl_alloc(t, n * sizeof *v) : NULL;
    if (!v)
        return t->alloc_err;
    *l = (struct tpl_list){n, v};
    *out = (struct tpl_value){.type = TPL_LIST, .u.list = l};
    return SKF_OK;
}

enum skf_err skf_tpl_map(struct tpl *t, struct tpl_value *out)
{
    struct tpl_map *m = skf_tpl_alloc(t, sizeof *m);
    if (!m)
        return t->alloc_err;
    *out = (struct tpl_value){.type = TPL_MAP, .u.map = m};
    return SKF_OK;
}

enum skf_err skf_tpl_map_set(struct tpl *t, struct tpl_map *m, struct tpl_str key, struct tpl_value v)
{
    struct tpl_entry **at = &m->first;
    SKF_TRY(skf_tpl_spend(t, m->n));
    for (; *at; at = &(*at)->next) {
        if ((*at)->key.n == key.n && memcmp((*at)->key.p, key.p, key.n) == 0) {
            (*at)->value = v;
            return SKF_OK;
        }
    }
    *at = skf_tpl_alloc(t, sizeof **at);
    if (!*at)
        return t->alloc_err;
    (*at)->key = key;
    (*at)->value = v;
    m->n++;
    return SKF_OK;
}

const struct tpl_value *skf_tpl_map_get(const struct tpl_map *m, struct tpl_str key)
{
    for (const struct tpl_entry *e = m->first; e; e = e->next)
        if (e->key.n == key.n && memcmp(e->key.p, key.p, key.n) == 0)
            return &e->value;
    return NULL;
}

/* Bytes of the UTF-8 character at p; damaged text counts bytewise. */
static size_t char_len(const char *p, const char *end)
{
    unsigned char c = (unsigned char)*p;
    size_t n = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return SKF_MIN(n, (size_t)(end - p));
}

static size_t char_count(struct tpl_str s)
{
    size_t n = 0;
    for (const char *p = s.p, *end = s.p + s.n; p < end; p += char_len(p, end))
        n++;
    return n;
}

enum skf_err skf_tpl_iter(struct tpl *t, struct tpl_value v, struct tpl_list **out)
{
    struct tpl_value list;
    size_t i = 0;
    if (v.type == TPL_LIST) {
        *out = v.u.list;
        return SKF_OK;
    }
    if (v.type == TPL_MAP && !v.u.map->is_namespace) {
        SKF_TRY(skf_tpl_list(t, v.u.map->n, &list));
        for (const struct tpl_entry *e = v.u.map->first; e; e = e->next)
            list.u.list->v[i++] = skf_tpl_of_str(e->key.p, e->key.n);
    } else if (v.type == TPL_STR) {
        SKF_TRY(skf_tpl_list(t, char_count(v.u.s), &list));
        for (const char *p = v.u.s.p, *end = p + v.u.s.n; p < end; p += char_len(p, end))
            list.u.list->v[i++] = skf_tpl_of_str(p, char_len(p, end));
    } else if (v.type == TPL_UNDEF) {
        SKF_TRY(skf_tpl_list(t, 0, &list));
    } else {
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot go over %s", skf_tpl_type_name(v));
    }
    *out = list.u.list;
    return SKF_OK;
}

enum skf_err skf_tpl_length(struct tpl *t, struct tpl_value v, int64_t *n)
{
    if (v.type == TPL_STR) {
        SKF_TRY(skf_tpl_spend(t, v.u.s.n / 16));
        *n = (int64_t)char_count(v.u.s);
    } else if (v.type == TPL_LIST) {
        *n = (int64_t)v.u.list->n;
    } else if (v.type == TPL_MAP) {
        *n = (int64_t)v.u.map->n;
    } else if (v.type == TPL_UNDEF) {
        *n = 0;
    } else {
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "%s has no length", skf_tpl_type_name(v));
    }
    return SKF_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------------- */
static enum skf_err equal(struct tpl *t, struct tpl_value a, struct tpl_value b, unsigned depth, bool *eq);

static enum skf_err equal_maps(struct tpl *t, const struct tpl_map *a, const struct tpl_map *b, unsigned depth, bool *eq)
{
    *eq = a == b || (a->n == b->n && !a->is_namespace && !b->is_namespace);
    for (const struct tpl_entry *e = a->first; *eq && a != b && e; e = e->next) {
        const struct tpl_value *other = skf_tpl_map_get(b, e->key);
        SKF_TRY(skf_tpl_spend(t, b->n));
        *eq = other != NULL;
        if (other)
            SKF_TRY(equal(t, e->value, *other, depth + 1, eq));
    }
    return SKF_OK;
}

static enum skf_err equal(struct tpl *t, struct tpl_value a, struct tpl_value b, unsigned depth, bool *eq)
{
    SKF_TRY(skf_tpl_spend(t, 1));
    *eq = false;
    if (depth > TPL_DEPTH_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "values nested deeper than %d", TPL_DEPTH_MAX);
    if (is_number(a) && is_number(b)) {
        *eq = a.type == TPL_FLOAT || b.type == TPL_FLOAT ? as_float(a) == as_float(b) : as_int(a) == as_int(b);
    } else if (a.type != b.type) {
        return SKF_OK;
    } else if (a.type == TPL_STR) {
        SKF_TRY(skf_tpl_spend(t, a.u.s.n / 64));
        *eq = a.u.s.n == b.u.s.n && memcmp(a.u.s.p, b.u.s.p, a.u.s.n) == 0;
    } else if (a.type == TPL_LIST) {
        *eq = a.u.list->n == b.u.list->n;
        for (size_t i = 0; *eq && i < a.u.list->n; i++)
            SKF_TRY(equal(t, a.u.list->v[i], b.u.list->v[i], depth + 1, eq));
    } else if (a.type == TPL_MAP) {
        return equal_maps(t, a.u.map, b.u.map, depth, eq);
    } else {
        *eq = a.type == TPL_UNDEF || a.type == TPL_NONE;
    }
    return SKF_OK;
}

enum skf_err skf_tpl_equal(struct tpl *t, struct tpl_value a, struct tpl_value b, bool *eq)
{
    return equal(t, a, b, 0, eq);
}

static enum skf_err contains(struct tpl *t, struct tpl_value item, struct tpl_value in, bool *r)
{
    *r = false;
    if (in.type == TPL_STR && item.type == TPL_STR) {
        SKF_TRY(skf_tpl_spend(t, in.u.s.n / 16));
        *r = memmem(in.u.s.p, in.u.s.n, item.u.s.p, item.u.s.n) != NULL;
    } else if (in.type == TPL_LIST) {
        for (size_t i = 0; !*r && i < in.u.list->n; i++)
            SKF_TRY(skf_tpl_equal(t, item, in.u.list->v[i], r));
    } else if (in.type == TPL_MAP) {
        *r = item.type == TPL_STR && skf_tpl_map_get(in.u.map, item.u.s);
    } else if (in.type != TPL_UNDEF) {
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot look for %s in %s", skf_tpl_type_name(item), skf_tpl_type_name(in));
    }
    return SKF_OK;
}

enum skf_err skf_tpl_compare(struct tpl *t, struct tpl_str op, struct tpl_value a, struct tpl_value b, bool *r)
{
    if (is_tpl_str(op, "in"))
        return contains(t, a, b, r);
    if (is_tpl_str(op, "not") || is_tpl_str(op, "!=")) {
        SKF_TRY(is_tpl_str(op, "!=") ? skf_tpl_equal(t, a, b, r) : contains(t, a, b, r));
        *r = !*r;
        return SKF_OK;
    }
    if (is_tpl_str(op, "=="))
        return skf_tpl_equal(t, a, b, r);
    int c;
    if (is_number(a) && is_number(b)) {
        double x = as_float(a), y = as_float(b);
        c = a.type != TPL_FLOAT && b.type != TPL_FLOAT ? (as_int(a) > as_int(b)) - (as_int(a) < as_int(b)) : (x > y) - (x < y);
    } else if (a.type == TPL_STR && b.type == TPL_STR) {
        c = memcmp(a.u.s.p, b.u.s.p, SKF_MIN(a.u.s.n, b.u.s.n));
        c = c ? c : (a.u.s.n > b.u.s.n) - (a.u.s.n < b.u.s.n);
    } else {
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot order %s and %s", skf_tpl_type_name(a), skf_tpl_type_name(b));
    }
    bool or_equal = op.n == 2;
    *r = (op.p[0] == '<' ? c < 0 : c > 0) || (or_equal && c == 0);
    return SKF_OK;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------------- */
static enum skf_err concat(struct tpl *t, struct tpl_str a, struct tpl_str b, struct tpl_value *out)
{
    char *p = skf_tpl_alloc(t, a.n + b.n + 1);
    if (!p)
        return t->alloc_err;
    if (a.n)
        memcpy(p, a.p, a.n);
    if (b.n)
        memcpy(p + a.n, b.p, b.n);
    *out = skf_tpl_of_str(p, a.n + b.n);
    return skf_tpl_spend(t, (a.n + b.n) / 64);
}

static enum skf_err int_arith(struct tpl *t, char op, int64_t a, int64_t b, struct tpl_value *out)
{
    int64_t r = 0;
    bool over = false;
    if ((op == '/' || op == '%') && b == 0)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "division by zero");
    if (op == '+') {
        over = __builtin_add_overflow(a, b, &r);
    } else if (op == '-') {
        over = __builtin_sub_overflow(a, b, &r);
    } else if (op == '*') {
        over = __builtin_mul_overflow(a, b, &r);
    } else if (b == -1) { /* the one quotient that does not fit */
        over = op == '/' && __builtin_sub_overflow((int64_t)0, a, &r);
    } else { /* rounds down, and the rest has the divisor's sign */
        int64_t rest = a % b, down = rest && (rest < 0) != (b < 0);
        r = op == '/' ? a / b - down : rest + (down ? b : 0);
    }
    if (over)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "number too large");
    *out = skf_tpl_of_int(r);
    return SKF_OK;
}

static enum skf_err add_lists(struct tpl *t, const struct tpl_list *a, const struct tpl_list *b, struct tpl_value *out)
{
    SKF_TRY(skf_tpl_list(t, a->n + b->n, out));
    if (a->n)
        memcpy(out->u.list->v, a->v, a->n * sizeof *a->v);
    if (b->n)
        memcpy(out->u.list->v + a->n, b->v, b->n * sizeof *b->v);
    return SKF_OK;
}

static enum skf_err repeat(struct tpl *t, struct tpl_str s, int64_t n, struct tpl_value *out)
{
    uint64_t size = 0;
    if (n < 0)
        n = 0;
    if (!is_mul_ok(s.n, (uint64_t)n, &size) || size > TPL_ARENA_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "string too long");
    char *p = skf_tpl_alloc(t, size + 1);
    if (!p)
        return t->alloc_err;
    SKF_TRY(skf_tpl_spend(t, size / 16 + (s.n ? (uint64_t)n : 0)));
    for (uint64_t i = 0; s.n && i < (uint64_t)n; i++)
        memcpy(p + i * s.n, s.p, s.n);
    *out = skf_tpl_of_str(p, size);
    return SKF_OK;
}

static enum skf_err number_arith(struct tpl *t, struct tpl_str op, struct tpl_value a, struct tpl_value b, struct tpl_value *out)
{
    char c = op.p[0];
    bool quotient = c == '/' && op.n == 1;
    if (a.type != TPL_FLOAT && b.type != TPL_FLOAT && !quotient)
        return int_arith(t, c, as_int(a), as_int(b), out);
    double x = as_float(a), y = as_float(b);
    if (op.n != 1 || c == '%')
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "%.*s of fractions is not supported", (int)op.n, op.p);
    if (quotient && y == 0)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "division by zero");
    *out = (struct tpl_value){.type = TPL_FLOAT, .u.f = c == '+' ? x + y : c == '-' ? x - y : c == '*' ? x * y : x / y};
    return SKF_OK;
}

enum skf_err skf_tpl_arith(struct tpl *t, struct tpl_str op, struct tpl_value a, struct tpl_value b, struct tpl_value *out)
{
    char c = op.p[0];
    if (c == '~') {
        struct tpl_str x, y;
        SKF_TRY(skf_tpl_text(t, a, &x));
        SKF_TRY(skf_tpl_text(t, b, &y));
        return concat(t, x, y, out);
    }
    if (is_number(a) && is_number(b))
        return number_arith(t, op, a, b, out);
    if (c == '+' && a.type == TPL_STR && b.type == TPL_STR)
        return concat(t, a.u.s, b.u.s, out);
    if (c == '+' && a.type == TPL_LIST && b.type == TPL_LIST)
        return add_lists(t, a.u.list, b.u.list, out);
    if (c == '*' && a.type == TPL_STR && b.type == TPL_INT)
        return repeat(t, a.u.s, b.u.i, out);
    if (a.type == TPL_STR && c == '%')
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "formatting a string with %% is not supported");
    return skf_tpl_fail(t, SKF_ERR_FORMAT, "%.*s does not work on %s and %s", (int)op.n, op.p, skf_tpl_type_name(a),
                        skf_tpl_type_name(b));
}

/* ---- text -------------------------------------------------------------------------------------------------------------- */
static enum skf_err format(struct tpl *t, struct tpl_str *out, const char *fmt, ...) SKF_PRINTF(3, 4);
static enum skf_err format(struct tpl *t, struct tpl_str *out, const char *fmt, ...)
{
    char *p = skf_tpl_alloc(t, 40);
    if (!p)
        return t->alloc_err;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(p, 40, fmt, ap);
    va_end(ap);
    *out = (struct tpl_str){p, (size_t)n};
    return SKF_OK;
}

/* The shortest digits that give the number back, as Python prints it, for those that need no exponent. */
static enum skf_err float_text(struct tpl *t, double f, struct tpl_str *out)
{
    if (!(f > -1e15 && f < 1e15) || (f != 0 && f > -1e-4 && f < 1e-4))
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "printing the number %g is not supported", f);
    for (int digits = 1; digits <= 17; digits++) {
        SKF_TRY(format(t, out, "%.*g", digits, f));
        if (strtod(out->p, NULL) == f && !memchr(out->p, 'e', out->n))
            break;
    }
    return memchr(out->p, '.', out->n) ? SKF_OK : format(t, out, "%.1f", f);
}

enum skf_err skf_tpl_text(struct tpl *t, struct tpl_value v, struct tpl_str *out)
{
    static const struct tpl_str words[] = {{"", 0}, {"None", 4}, {"False", 5}, {"True", 4}};
    switch (v.type) {
    case TPL_UNDEF:
        *out = words[0];
        return SKF_OK;
    case TPL_NONE:
        *out = words[1];
        return SKF_OK;
    case TPL_BOOL:
        *out = words[2 + v.u.b];
        return SKF_OK;
    case TPL_INT:
        return format(t, out, "%" PRId64, v.u.i);
    case TPL_FLOAT:
        return float_text(t, v.u.f, out);
    case TPL_STR:
        *out = v.u.s;
        return SKF_OK;
    default:
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "printing %s is not supported", skf_tpl_type_name(v));
    }
}

/* ---- attributes, items, slices ----------------------------------------------------------------------------------------- */
static struct tpl_value undefined(struct tpl_str name)
{
    return (struct tpl_value){.type = TPL_UNDEF, .u.s = name};
}

static struct tpl_value loop_attr(const struct tpl_loop *l, struct tpl_str name)
{
    const struct {
        const char *name;
        struct tpl_value v;
    } attrs[] = {
        {"index", skf_tpl_of_int((int64_t)l->i + 1)},
        {"index0", skf_tpl_of_int((int64_t)l->i)},
        {"first", skf_tpl_of_bool(l->i == 0)},
        {"last", skf_tpl_of_bool(l->i + 1 == l->list->n)},
        {"length", skf_tpl_of_int((int64_t)l->list->n)},
        {"revindex", skf_tpl_of_int((int64_t)(l->list->n - l->i))},
        {"revindex0", skf_tpl_of_int((int64_t)(l->list->n - l->i) - 1)},
        {"previtem", l->i ? l->list->v[l->i - 1] : undefined(name)},
        {"nextitem", l->i + 1 < l->list->n ? l->list->v[l->i + 1] : undefined(name)},
    };
    for (size_t i = 0; i < SKF_COUNT(attrs); i++)
        if (is_tpl_str(name, attrs[i].name))
            return attrs[i].v;
    return undefined(name);
}

enum skf_err skf_tpl_attr(struct tpl *t, struct tpl_value obj, struct tpl_str name, struct tpl_value *out)
{
    if (obj.type == TPL_UNDEF)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "\"%.*s\" is not defined", (int)SKF_MIN(obj.u.s.n, (size_t)60), obj.u.s.p);
    *out = undefined(name);
    if (obj.type == TPL_LOOP) {
        *out = loop_attr(obj.u.loop, name);
    } else if (obj.type == TPL_MAP) {
        SKF_TRY(skf_tpl_spend(t, obj.u.map->n));
        const struct tpl_value *v = skf_tpl_map_get(obj.u.map, name);
        if (v)
            *out = *v;
    }
    return SKF_OK;
}

enum skf_err skf_tpl_item(struct tpl *t, struct tpl_value obj, struct tpl_value key, struct tpl_value *out)
{
    if (key.type == TPL_STR)
        return skf_tpl_attr(t, obj, key.u.s, out);
    if (key.type == TPL_INT && (obj.type == TPL_LIST || obj.type == TPL_STR)) {
        int64_t n;
        SKF_TRY(skf_tpl_length(t, obj, &n));
        int64_t i = key.u.i < 0 ? key.u.i + n : key.u.i;
        *out = undefined((struct tpl_str){"item", 4});
        if (i < 0 || i >= n)
            return SKF_OK;
        if (obj.type == TPL_LIST) {
            *out = obj.u.list->v[i];
            return SKF_OK;
        }
        struct tpl_list *chars;
        SKF_TRY(skf_tpl_iter(t, obj, &chars));
        *out = chars->v[i];
        return SKF_OK;
    }
    if (obj.type == TPL_UNDEF)
        return skf_tpl_attr(t, obj, (struct tpl_str){"item", 4}, out);
    *out = undefined((struct tpl_str){"item", 4});
    return SKF_OK;
}

/* One bound of a slice over n elements: negative counts from the end, and all is brought into range. */
static int64_t clip(int64_t v, int64_t n, bool backwards)
{
    int64_t low = backwards ? -1 : 0, high = backwards ? n - 1 : n;
    if (v < 0)
        v = v < -n ? low : v + n;
    return v < low ? low : v > high ? high : v;
}

static bool is_left_out(struct tpl_value v)
{
    return v.type == TPL_UNDEF || v.type == TPL_NONE;
}

/* A list of characters, n bytes at most, becomes a string. */
static enum skf_err join_chars(struct tpl *t, struct tpl_value *v, size_t n)
{
    size_t k = 0;
    char *p = skf_tpl_alloc(t, n + 1);
    if (!p)
        return t->alloc_err;
    for (size_t i = 0; i < v->u.list->n; i++) {
        memcpy(p + k, v->u.list->v[i].u.s.p, v->u.list->v[i].u.s.n);
        k += v->u.list->v[i].u.s.n;
    }
    *v = skf_tpl_of_str(p, k);
    return SKF_OK;
}

enum skf_err skf_tpl_slice(struct tpl *t, struct tpl_value obj, const struct tpl_value bound[3], struct tpl_value *out)
{
    struct tpl_list *from;
    if (obj.type != TPL_LIST && obj.type != TPL_STR)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "cannot take a slice of %s", skf_tpl_type_name(obj));
    for (int i = 0; i < 3; i++)
        if (!is_left_out(bound[i]) && bound[i].type != TPL_INT)
            return skf_tpl_fail(t, SKF_ERR_FORMAT, "slice bound is %s", skf_tpl_type_name(bound[i]));
    SKF_TRY(skf_tpl_iter(t, obj, &from));
    int64_t n = (int64_t)from->n, step = is_left_out(bound[2]) ? 1 : bound[2].u.i;
    if (step == 0)
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "slice step of 0");
    step = step > n ? n + 1 : step < -n ? -n - 1 : step;
    bool back = step < 0;
    int64_t a = is_left_out(bound[0]) ? (back ? n - 1 : 0) : clip(bound[0].u.i, n, back);
    int64_t b = is_left_out(bound[1]) ? (back ? -1 : n) : clip(bound[1].u.i, n, back);
    int64_t count = back ? (a > b ? (a - b - step - 1) / -step : 0) : (b > a ? (b - a + step - 1) / step : 0);
    SKF_TRY(skf_tpl_list(t, (size_t)count, out));
    for (int64_t i = 0; i < count; i++)
        out->u.list->v[i] = from->v[a + i * step];
    return obj.type == TPL_LIST ? SKF_OK : join_chars(t, out, obj.u.s.n);
}
