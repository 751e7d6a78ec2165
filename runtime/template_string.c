/* Strings of the chat template interpreter: Python's methods, and JSON as json.dumps writes it. */
#include "base/util.h"
#include "runtime/template_priv.h"

/* The character that begins at p; damaged UTF-8 gives its first byte. */
static uint32_t code_point(const char *p, size_t n, size_t *len)
{
    const unsigned char *u = (const unsigned char *)p;
    *len = u[0] < 0xC0 ? 1 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    if (*len > n)
        *len = 1;
    if (*len == 2)
        return (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
    if (*len == 3)
        return (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
    return u[0]; /* nothing of four bytes is looked for here */
}

/* What Python's str.strip takes for white space. */
static bool is_blank(uint32_t c)
{
    return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool is_in(const char *p, size_t n, const struct tpl_value *chars)
{
    size_t len;
    if (!chars)
        return is_blank(code_point(p, n, &len)) && len <= n;
    return memmem(chars->u.s.p, chars->u.s.n, p, n) != NULL;
}

static struct tpl_str strip(struct tpl_str s, const struct tpl_value *chars, bool left, bool right)
{
    size_t len;
    while (left && s.n) {
        (void)code_point(s.p, s.n, &len);
        if (!is_in(s.p, len, chars))
            break;
        s.p += len;
        s.n -= len;
    }
    while (right && s.n) {
        size_t from = s.n - 1;
        while (from && s.n - from < 4 && ((unsigned char)s.p[from] & 0xC0) == 0x80)
            from--;
        if (!is_in(s.p + from, s.n - from, chars))
            break;
        s.n = from;
    }
    return s;
}

static enum skf_err m_strip(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out)
{
    const struct tpl_value *chars = a->n && a->v[0].type == TPL_STR ? &a->v[0] : NULL;
    SKF_TRY(skf_tpl_spend(t, s.n / 64));
    s = strip(s, chars, name.p[0] != 'r', name.p[0] != 'l');
    *out = skf_tpl_of_str(s.p, s.n);
    return SKF_OK;
}

static enum skf_err m_case(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out)
{
    bool start = true, upper = name.p[0] == 'u', title = name.p[0] == 't';
    char *p = skf_tpl_alloc(t, s.n + 1);
    if (!p)
        return t->alloc_err;
    SKF_TRY(skf_tpl_spend(t, s.n / 16));
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (c & 0x80)
            return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "%.*s beyond ASCII is not supported", (int)name.n, name.p);
        if (letter)
            c = upper || (start && name.p[0] != 'l') ? (char)(c & ~0x20) : (char)(c | 0x20);
        start = title && !letter;
        p[i] = c;
    }
    *out = skf_tpl_of_str(p, s.n);
    return SKF_OK;
}

static enum skf_err m_edge(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out)
{
    struct tpl_list one = {1, NULL}, *all = &one;
    struct tpl_value arg;
    if (a->n != 1 || (a->v[0].type != TPL_STR && a->v[0].type != TPL_LIST))
        return skf_tpl_fail(t, SKF_ERR_FORMAT, "%.*s needs a string", (int)name.n, name.p);
    arg = a->v[0];
    one.v = &arg;
    if (arg.type == TPL_LIST)
        all = arg.u.list;
    *out = skf_tpl_of_bool(false);
    SKF_TRY(skf_tpl_spend(t, all->n));
    for (size_t i = 0; i < all->n; i++) {
        if (all->v[i].type != TPL_STR || all->v[i].u.s.n > s.n)
            continue;
        struct tpl_str e = all->v[i].u.s;
        if (memcmp(name.p[0] == 's' ? s.p : s.p + s.n - e.n, e.p, e.n) == 0)
            *out = skf_tpl_of_bool(true);
    }
    return SKF_OK;
}

static enum skf_err m_split(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out)
{
    int64_t most = a->n > 1 && a->v[1].type == TPL_INT && a->v[1].u.i >= 0 ? a->v[1].u.i : INT64_MAX;
    size_t n = 1;
    if (!a->n || a->v[0].type != TPL_STR || !a->v[0].u.s.n)
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "split at white space is not supported");
    struct tpl_str sep = a->v[0].u.s, rest = s;
    SKF_TRY(skf_tpl_spend(t, s.n / 8));
    for (const char *at; (int64_t)n <= most && (at = memmem(rest.p, rest.n, sep.p, sep.n)) != NULL; n++)
        rest = (struct tpl_str){at + sep.n, rest.n - (size_t)(at - rest.p) - sep.n};
    SKF_TRY(skf_tpl_list(t, n, out));
    for (size_t i = 0; i < n; i++) {
        const char *at = i + 1 < n ? memmem(s.p, s.n, sep.p, sep.n) : s.p + s.n;
        size_t len = (size_t)(at - s.p);
        out->u.list->v[i] = skf_tpl_of_str(s.p, len);
        if (i + 1 < n)
            s = (struct tpl_str){at + sep.n, s.n - len - sep.n};
    }
    return SKF_OK;
}

static enum skf_err m_replace(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a,
                              struct tpl_value *out)
{
    struct tpl_value parts;
    if (a->n < 2 || a->v[0].type != TPL_STR || a->v[1].type != TPL_STR || !a->v[0].u.s.n || a->n > 2)
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "replace needs two strings, the first not empty");
    struct tpl_args cut = {.n = 1, .v = {a->v[0]}};
    SKF_TRY(m_split(t, s, name, &cut, &parts));
    struct tpl_str with = a->v[1].u.s;
    uint64_t size = 0, n = parts.u.list->n;
    if (!is_mul_ok(n, with.n, &size) || size > TPL_ARENA_MAX)
        return skf_tpl_fail(t, SKF_ERR_LIMIT, "string too long");
    char *p = skf_tpl_alloc(t, s.n + size + 1), *to = p;
    if (!p)
        return t->alloc_err;
    SKF_TRY(skf_tpl_spend(t, (s.n + size) / 64));
    for (size_t i = 0; i < n; i++) {
        if (i && with.n)
            to = mempcpy(to, with.p, with.n);
        if (parts.u.list->v[i].u.s.n)
            to = mempcpy(to, parts.u.list->v[i].u.s.p, parts.u.list->v[i].u.s.n);
    }
    *out = skf_tpl_of_str(p, (size_t)(to - p));
    return SKF_OK;
}

static enum skf_err map_method(struct tpl *t, const struct tpl_map *m, struct tpl_str name, const struct tpl_args *a,
                               struct tpl_value *out)
{
    size_t i = 0;
    if (is_tpl_str(name, "get") && a->n >= 1 && a->v[0].type == TPL_STR) {
        const struct tpl_value *v = skf_tpl_map_get(m, a->v[0].u.s);
        *out = v ? *v : a->n > 1 ? a->v[1] : (struct tpl_value){.type = TPL_NONE};
        return skf_tpl_spend(t, m->n);
    }
    bool keys = is_tpl_str(name, "keys"), values = is_tpl_str(name, "values");
    if (!keys && !values && !is_tpl_str(name, "items"))
        return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "method %.*s of a mapping is not known", (int)SKF_MIN(name.n, (size_t)60),
                            name.p);
    SKF_TRY(skf_tpl_list(t, m->n, out));
    for (const struct tpl_entry *e = m->first; e; e = e->next, i++) {
        struct tpl_value key = skf_tpl_of_str(e->key.p, e->key.n), *v = &out->u.list->v[i];
        *v = keys ? key : e->value;
        if (!keys && !values) {
            SKF_TRY(skf_tpl_list(t, 2, v));
            v->u.list->v[0] = key;
            v->u.list->v[1] = e->value;
        }
    }
    return SKF_OK;
}

enum skf_err skf_tpl_method(struct tpl *t, struct tpl_value self, struct tpl_str name, const struct tpl_args *a,
                            struct tpl_value *out)
{
    static const struct {
        const char *name;
        enum skf_err (*fn)(struct tpl *t, struct tpl_str s, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out);
    } methods[] = {{"strip", m_strip},     {"lstrip", m_strip},    {"rstrip", m_strip},  {"upper", m_case},
                   {"lower", m_case},      {"title", m_case},      {"capitalize", m_case}, {"startswith", m_edge},
                   {"endswith", m_edge},   {"split", m_split},     {"replace", m_replace}};
    if (self.type == TPL_UNDEF)
        return skf_tpl_attr(t, self, name, out); /* fails, naming it */
    if (self.type == TPL_MAP && !self.u.map->is_namespace)
        return map_method(t, self.u.map, name, a, out);
    for (size_t i = 0; self.type == TPL_STR && i < SKF_COUNT(methods); i++)
        if (is_tpl_str(name, methods[i].name))
            return methods[i].fn(t, self.u.s, name, a, out);
    return skf_tpl_fail(t, SKF_ERR_UNSUPPORTED, "method %.*s of %s is not known", (int)SKF_MIN(name.n, (size_t)60), name.p,
                        skf_tpl_type_name(self));
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */
struct writer {
    struct tpl *t;
    struct skf_buf b;
    int64_t indent; /* -1: on one line */
};

static enum skf_err json_string(struct writer *w, struct tpl_str s)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    SKF_TRY(skf_buf_u8(&w->b, '"'));
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.p[i] ? strchr(from, s.p[i]) : NULL;
        if (at)
            SKF_TRY(skf_buf_printf(&w->b, "\\%c", to[at - from]));
        else if ((unsigned char)s.p[i] < 0x20)
            SKF_TRY(skf_buf_printf(&w->b, "\\u%04x", s.p[i]));
        else
            SKF_TRY(skf_buf_u8(&w->b, (uint8_t)s.p[i]));
    }
    return skf_buf_u8(&w->b, '"');
}

static enum skf_err json_break(struct writer *w, unsigned depth, bool first)
{
    if (w->indent < 0)
        return first ? SKF_OK : skf_buf_str(&w->b, ", ");
    SKF_TRY(skf_buf_str(&w->b, first ? "\n" : ",\n"));
    return skf_buf_fill(&w->b, ' ', (size_t)w->indent * depth);
}

static enum skf_err json_end(struct writer *w, unsigned depth, bool empty, char c)
{
    if (!empty && w->indent >= 0) {
        SKF_TRY(skf_buf_u8(&w->b, '\n'));
        SKF_TRY(skf_buf_fill(&w->b, ' ', (size_t)w->indent * depth));
    }
    return skf_buf_u8(&w->b, (uint8_t)c);
}

static enum skf_err json(struct writer *w, struct tpl_value v, unsigned depth)
{
    struct tpl_str text;
    bool first = true;
    if (depth > TPL_DEPTH_MAX)
        return skf_tpl_fail(w->t, SKF_ERR_LIMIT, "values nested deeper than %d", TPL_DEPTH_MAX);
    SKF_TRY(skf_tpl_spend(w->t, 1));
    switch (v.type) {
    case TPL_NONE:
        return skf_buf_str(&w->b, "null");
    case TPL_BOOL:
        return skf_buf_str(&w->b, v.u.b ? "true" : "false");
    case TPL_STR:
        SKF_TRY(skf_tpl_spend(w->t, v.u.s.n / 16));
        return json_string(w, v.u.s);
    case TPL_LIST:
        SKF_TRY(skf_buf_u8(&w->b, '['));
        for (size_t i = 0; i < v.u.list->n; i++, first = false) {
            SKF_TRY(json_break(w, depth + 1, first));
            SKF_TRY(json(w, v.u.list->v[i], depth + 1));
        }
        return json_end(w, depth, first, ']');
    case TPL_MAP:
        SKF_TRY(skf_buf_u8(&w->b, '{'));
        for (const struct tpl_entry *e = v.u.map->first; e; e = e->next, first = false) {
            SKF_TRY(json_break(w, depth + 1, first));
            SKF_TRY(json_string(w, e->key));
            SKF_TRY(skf_buf_str(&w->b, ": "));
            SKF_TRY(json(w, e->value, depth + 1));
        }
        return json_end(w, depth, first, '}');
    case TPL_INT:
    case TPL_FLOAT:
        SKF_TRY(skf_tpl_text(w->t, v, &text));
        return skf_buf_put(&w->b, text.p, text.n);
    default:
        return skf_tpl_fail(w->t, SKF_ERR_FORMAT, "%s as JSON", skf_tpl_type_name(v));
    }
}

enum skf_err skf_tpl_json(struct tpl *t, struct tpl_value v, int64_t indent, struct tpl_value *out)
{
    struct writer w = {t, SKF_BUF_INIT(TPL_ARENA_MAX), indent < 0 ? -1 : SKF_MIN(indent, (int64_t)16)};
    enum skf_err e = json(&w, v, 0);
    if (e == SKF_OK) {
        char *p = skf_tpl_alloc(t, w.b.len + 1);
        if (p && w.b.len)
            memcpy(p, w.b.data, w.b.len);
        *out = skf_tpl_of_str(p, w.b.len);
        e = p ? SKF_OK : t->alloc_err;
    }
    skf_buf_free(&w.b);
    return e;
}
