/* TOML (toml.h): one pass, texts copied into one block that is as long as the document and its keys can need. */
#include "base/toml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define VALUES_MAX 4096u
#define KEY_MOST   256u

struct parse {
    const char *name, *p, *end;
    unsigned line;
    char *mem, *mem_end; /* where the next text goes */
    struct skf_toml *out;
    size_t cap;
    const char *table[SKF_TOML_KEYS];
    unsigned n_table;
    struct skf_why *why;
};

#define BAD(s, ...) bad(s, SKF_ERR_FORMAT, __VA_ARGS__)
static SKF_PRINTF(3, 4) enum skf_err bad(const struct parse *s, enum skf_err e, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return skf_fail(s->why, e, "%s:%u: %s", s->name, s->line, text);
}

static int at(const struct parse *s) { return s->p < s->end ? (unsigned char)*s->p : -1; }

static bool is_digit(int c) { return c >= '0' && c <= '9'; }

static void blanks(struct parse *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
        s->p++;
}

/* To the end of the line: blanks and a comment at most; the line break is taken too. */
static enum skf_err end_of_line(struct parse *s)
{
    blanks(s);
    if (at(s) == '#')
        while (s->p < s->end && *s->p != '\n')
            s->p++;
    if (at(s) == '\r' && s->p + 1 < s->end && s->p[1] == '\n')
        s->p++;
    if (s->p < s->end && *s->p != '\n')
        return BAD(s, "unexpected '%.1s'; one value a line", (unsigned char)*s->p < 0x20 || (unsigned char)*s->p > 0x7e ? "?" : s->p);
    if (s->p < s->end) {
        s->p++;
        s->line++;
    }
    return SKF_OK;
}

/* Blanks, comments and line breaks. */
static enum skf_err space(struct parse *s)
{
    for (;;) {
        blanks(s);
        int c = at(s);
        if (c != '#' && c != '\n' && c != '\r')
            return SKF_OK;
        SKF_TRY(end_of_line(s));
    }
}

/* ---- texts ----------------------------------------------------------------------------------------------------------------- */

static enum skf_err put(struct parse *s, char c)
{
    if (s->mem == s->mem_end)
        return bad(s, SKF_ERR_LIMIT, "too much text");
    *s->mem++ = c;
    return SKF_OK;
}

static enum skf_err put_rune(struct parse *s, unsigned digits)
{
    unsigned long u = 0;
    for (unsigned i = 0; i < digits; i++, s->p++) {
        int c = at(s), v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (v < 0)
            return BAD(s, "\\%c wants %u hexadecimal digits", digits == 4 ? 'u' : 'U', digits);
        u = u * 16 + (unsigned)v;
    }
    if (u == 0 || u > 0x10ffff || (u >= 0xd800 && u <= 0xdfff))
        return BAD(s, "a character that is none");
    if (u < 0x80)
        return put(s, (char)u);
    unsigned more = u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    SKF_TRY(put(s, (char)(lead[more] | u >> 6 * more)));
    while (more-- > 0)
        SKF_TRY(put(s, (char)(0x80 | (u >> 6 * more & 0x3f))));
    return SKF_OK;
}

static enum skf_err escape(struct parse *s)
{
    static const char from[] = "btnfre\"\\", to[] = "\b\t\n\f\r\033\"\\";
    int c = at(s);
    s->p++;
    const char *f = c > 0 ? strchr(from, c) : NULL;
    if (f)
        return put(s, to[f - from]);
    if (c == 'u' || c == 'U')
        return put_rune(s, c == 'u' ? 4 : 8);
    return BAD(s, "an unknown escape in a string");
}

static bool is_three(const struct parse *s, char q) { return s->end - s->p >= 3 && s->p[0] == q && s->p[1] == q && s->p[2] == q; }

/* In a string of several lines, a backslash at a line's end: what follows goes on without the break. */
static bool is_joined(struct parse *s)
{
    const char *p = s->p;
    while (p < s->end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    if (p == s->end || *p != '\n')
        return false;
    for (; p < s->end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'); p++)
        s->line += *p == '\n';
    s->p = p;
    return true;
}

/* A line break at the beginning of a string of several lines is none. */
static void first_break(struct parse *s)
{
    if (at(s) == '\r' && s->p + 1 < s->end && s->p[1] == '\n')
        s->p++;
    if (at(s) == '\n') {
        s->p++;
        s->line++;
    }
}

static enum skf_err string_end(struct parse *s, char q, bool is_long)
{
    s->p += is_long ? 3 : 1;
    for (int more = 0; is_long && more < 2 && at(s) == q; more++, s->p++) /* quotes just before the three */
        SKF_TRY(put(s, q));
    return put(s, 0);
}

static enum skf_err string(struct parse *s, const char **out)
{
    char q = *s->p;
    bool is_long = is_three(s, q);
    s->p += is_long ? 3 : 1;
    *out = s->mem;
    if (is_long)
        first_break(s);
    for (;;) {
        int c = at(s);
        if (c < 0 || (c == '\n' && !is_long))
            return BAD(s, "a string without its end");
        if (is_long ? is_three(s, q) : c == q)
            return string_end(s, q, is_long);
        s->p++;
        s->line += c == '\n';
        if ((c < 0x20 && c != '\t' && c != '\n' && !(c == '\r' && is_long)) || c == 0x7f)
            return BAD(s, "a control character in a string");
        if (c != '\\' || q == '\'')
            SKF_TRY(put(s, (char)c));
        else if (!is_long || !is_joined(s))
            SKF_TRY(escape(s));
    }
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------ */

static bool is_bare(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static enum skf_err key_part(struct parse *s, const char **out)
{
    blanks(s);
    *out = s->mem;
    if (at(s) == '"' || at(s) == '\'') {
        if (is_three(s, *s->p))
            return BAD(s, "a key of several lines");
        SKF_TRY(string(s, out));
    } else {
        if (!is_bare(at(s)))
            return BAD(s, "a key is expected");
        while (is_bare(at(s)))
            SKF_TRY(put(s, *s->p++));
        SKF_TRY(put(s, 0));
    }
    blanks(s);
    return strlen(*out) < KEY_MOST ? SKF_OK : bad(s, SKF_ERR_LIMIT, "a key of more than %u bytes", KEY_MOST - 1);
}

/* a.b.c behind what stands in key[0 .. *n - 1] */
static enum skf_err key_path(struct parse *s, const char *key[SKF_TOML_KEYS], unsigned *n)
{
    do {
        if (*n == SKF_TOML_KEYS)
            return bad(s, SKF_ERR_LIMIT, "a key of more than %d parts", SKF_TOML_KEYS);
        SKF_TRY(key_part(s, &key[(*n)++]));
    } while (at(s) == '.' && s->p++);
    return SKF_OK;
}

/* ---- values ---------------------------------------------------------------------------------------------------------------- */

static bool is_same_key(const struct skf_toml_value *v, const char *const *key, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (i >= v->n_keys || strcmp(v->key[i], key[i]) != 0)
            return false;
    return true;
}

/* A value of this key, which nobody may have given before: neither as itself nor as what a table is called. */
static enum skf_err check_new(const struct parse *s, const char *const *key, unsigned n, bool is_table)
{
    for (size_t i = 0; i < s->out->n; i++) {
        const struct skf_toml_value *v = &s->out->v[i];
        bool is_clash = v->n_keys == n  ? is_same_key(v, key, n)
                        : v->n_keys < n ? v->type != SKF_TOML_TABLE && is_same_key(v, key, v->n_keys)
                                        : !is_table && is_same_key(v, key, n);
        if (is_clash)
            return BAD(s, "%s is there already, in line %u", key[n - 1], v->line);
    }
    return SKF_OK;
}

static enum skf_err add(struct parse *s, const char *const *key, unsigned n, struct skf_toml_value **out)
{
    if (s->out->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        struct skf_toml_value *v = cap <= VALUES_MAX ? skf_realloc(s->out->v, cap * sizeof *v) : NULL;
        if (!v)
            return bad(s, cap <= VALUES_MAX ? SKF_ERR_NOMEM : SKF_ERR_LIMIT, "more than %zu values", s->cap);
        s->out->v = v;
        s->cap = cap;
    }
    *out = &s->out->v[s->out->n++];
    memset(*out, 0, sizeof **out);
    (*out)->line = s->line;
    (*out)->element = -1;
    (*out)->n_keys = n;
    memcpy((*out)->key, key, n * sizeof *key);
    return SKF_OK;
}

/* The characters of a number, without '_'. */
static enum skf_err number_text(struct parse *s, char b[64])
{
    size_t n = 0;
    const char *from = s->p;
    for (; s->p < s->end && (is_bare(*s->p) || *s->p == '+' || *s->p == '.' || *s->p == ':'); s->p++) {
        if (n + 1 >= 64)
            return BAD(s, "a number is too long");
        if (*s->p != '_')
            b[n++] = *s->p;
        else if (s->p == from || s->p + 1 == s->end || !is_digit(s->p[-1]) || !is_digit(s->p[1]))
            return BAD(s, "'_' stands between digits only");
    }
    b[n] = 0;
    if (n >= 5 && (b[4] == '-' || b[2] == ':'))
        return bad(s, SKF_ERR_UNSUPPORTED, "dates and times are not used here; a string goes in quotes");
    return n ? SKF_OK : BAD(s, "a value is expected");
}

/* -?(0|[1-9][0-9]*) and what makes a float of it: .[0-9]+, [eE][+-]?[0-9]+ */
static bool is_number_text(const char *b, bool *is_float)
{
    b += *b == '+' || *b == '-';
    if (strcmp(b, "inf") == 0 || strcmp(b, "nan") == 0)
        return *is_float = true;
    if (!is_digit(*b) || (*b == '0' && is_digit(b[1])))
        return false;
    while (is_digit(*b))
        b++;
    *is_float = *b != 0;
    if (*b == '.') {
        if (!is_digit(*++b))
            return false;
        while (is_digit(*b))
            b++;
    }
    if (*b == 'e' || *b == 'E') {
        b += 1 + (b[1] == '+' || b[1] == '-');
        if (!is_digit(*b))
            return false;
        while (is_digit(*b))
            b++;
    }
    return *b == 0;
}

static enum skf_err number(struct parse *s, struct skf_toml_value *v)
{
    char b[64];
    bool is_float = false;
    SKF_TRY(number_text(s, b));
    errno = 0;
    bool ok = is_number_text(b, &is_float);
    v->type = is_float ? SKF_TOML_FLOAT : SKF_TOML_INT;
    v->number = ok && !is_float ? strtoll(b, NULL, 10) : 0;
    v->real = ok && is_float ? strtod(b, NULL) : (double)v->number;
    return !ok || (!is_float && errno == ERANGE) ? BAD(s, "'%.40s' is no value; a string goes in quotes", b) : SKF_OK;
}

static enum skf_err scalar(struct parse *s, struct skf_toml_value *v)
{
    static const struct {
        const char *word;
        size_t n;
        int is;
    } words[] = {{"true", 4, 1}, {"false", 5, 0}};
    v->line = s->line;
    if (at(s) == '"' || at(s) == '\'') {
        v->type = SKF_TOML_STRING;
        return string(s, &v->text);
    }
    for (size_t i = 0; i < 2; i++)
        if ((size_t)(s->end - s->p) >= words[i].n && memcmp(s->p, words[i].word, words[i].n) == 0 &&
            (s->p + words[i].n == s->end || !is_bare(s->p[words[i].n]))) {
            s->p += words[i].n;
            v->type = SKF_TOML_BOOL;
            v->number = words[i].is;
            return SKF_OK;
        }
    return number(s, v);
}

static enum skf_err array(struct parse *s, const char *const *key, unsigned n)
{
    struct skf_toml_value *v;
    SKF_TRY(add(s, key, n, &v));
    v->type = SKF_TOML_ARRAY;
    s->p++;
    for (int i = 0;; i++) {
        SKF_TRY(space(s));
        if (at(s) == ']')
            break;
        if (at(s) == '[' || at(s) == '{')
            return bad(s, SKF_ERR_UNSUPPORTED, "arrays hold plain values here");
        SKF_TRY(add(s, key, n, &v));
        v->element = i;
        SKF_TRY(scalar(s, v));
        SKF_TRY(space(s));
        if (at(s) == ']')
            break;
        if (at(s) != ',')
            return BAD(s, "',' or ']' is expected");
        s->p++;
    }
    s->p++;
    return SKF_OK;
}

static enum skf_err pair(struct parse *s, const char *const *table, unsigned n, unsigned depth);

static enum skf_err inline_table(struct parse *s, const char *const *key, unsigned n, unsigned depth)
{
    struct skf_toml_value *v;
    if (depth >= SKF_TOML_KEYS)
        return bad(s, SKF_ERR_LIMIT, "tables in tables in tables");
    SKF_TRY(add(s, key, n, &v)); /* SKF_TOML_TABLE */
    s->p++;
    blanks(s);
    while (at(s) != '}') {
        SKF_TRY(pair(s, key, n, depth + 1));
        blanks(s);
        if (at(s) == '}')
            break;
        if (at(s) != ',')
            return BAD(s, "',' or '}' is expected");
        s->p++;
        blanks(s);
    }
    s->p++;
    return SKF_OK;
}

static enum skf_err pair(struct parse *s, const char *const *table, unsigned n, unsigned depth)
{
    const char *key[SKF_TOML_KEYS];
    struct skf_toml_value *v;
    memcpy(key, table, n * sizeof *key);
    unsigned k = n;
    SKF_TRY(key_path(s, key, &k));
    if (at(s) != '=')
        return BAD(s, "'=' is expected behind %s", key[k - 1]);
    s->p++;
    blanks(s);
    SKF_TRY(check_new(s, key, k, false));
    if (at(s) == '[')
        return array(s, key, k);
    if (at(s) == '{')
        return inline_table(s, key, k, depth);
    SKF_TRY(add(s, key, k, &v));
    return scalar(s, v);
}

/* [a.b] or [[a]]; behind the latter's name stands its number. */
static enum skf_err header(struct parse *s)
{
    struct skf_toml_value *v;
    bool is_many = s->end - s->p > 1 && s->p[1] == '[';
    unsigned count = 0;
    s->p += is_many ? 2 : 1;
    s->n_table = 0;
    SKF_TRY(key_path(s, s->table, &s->n_table));
    if (at(s) != ']' || (is_many && (s->end - s->p < 2 || s->p[1] != ']')))
        return BAD(s, "'%s' is expected", is_many ? "]]" : "]");
    s->p += is_many ? 2 : 1;
    if (is_many) {
        char b[16];
        if (s->n_table == SKF_TOML_KEYS)
            return bad(s, SKF_ERR_LIMIT, "a key of more than %d parts", SKF_TOML_KEYS);
        for (size_t i = 0; i < s->out->n; i++)
            count += s->out->v[i].type == SKF_TOML_TABLE && s->out->v[i].n_keys == s->n_table + 1 && is_same_key(&s->out->v[i], s->table, s->n_table);
        (void)snprintf(b, sizeof b, "%u", count);
        s->table[s->n_table++] = s->mem;
        for (const char *c = b; *c; c++)
            SKF_TRY(put(s, *c));
        SKF_TRY(put(s, 0));
    }
    SKF_TRY(check_new(s, s->table, s->n_table, true));
    SKF_TRY(add(s, s->table, s->n_table, &v));
    return end_of_line(s);
}

static enum skf_err document(struct parse *s)
{
    for (;;) {
        SKF_TRY(space(s));
        if (s->p == s->end)
            return SKF_OK;
        if (*s->p == '[') {
            SKF_TRY(header(s));
        } else {
            SKF_TRY(pair(s, s->table, s->n_table, 0));
            SKF_TRY(end_of_line(s));
        }
    }
}

enum skf_err skf_toml_parse(const char *name, const char *text, size_t n, struct skf_toml *out, struct skf_why *why)
{
    memset(out, 0, sizeof *out);
    if (n > SKF_TOML_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: more than %u bytes", name, SKF_TOML_MAX);
    size_t room = 2 * n + 64 + 16 * (size_t)VALUES_MAX; /* each text is at most as long as it is written, with a NUL; numbers of tables */
    out->memory = skf_alloc(room);
    if (!out->memory)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory", name);
    struct parse s = {.name = name, .p = text, .end = text + n, .line = 1, .mem = out->memory, .mem_end = (char *)out->memory + room,
                      .out = out, .why = why};
    enum skf_err e = document(&s);
    if (e != SKF_OK)
        skf_toml_free(out);
    return e;
}

void skf_toml_free(struct skf_toml *t)
{
    skf_free(t->v);
    skf_free(t->memory);
    memset(t, 0, sizeof *t);
}
