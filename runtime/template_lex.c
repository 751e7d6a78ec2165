/*
 * Template text to tokens, with the white space rules that chat templates are written for (trim_blocks, lstrip_blocks):
 * the newline behind a block tag goes, and so do blanks before a block tag that begins its line; "-" strips all white space on
 * its side, "+" none; one newline at the very end of the template goes.
 */
#include "base/util.h"
#include "runtime/template_priv.h"

struct lexer {
    struct tpl *t;
    const char *p, *end;
    struct tpl_token *toks;
    size_t n, cap;
    unsigned line;
    bool line_starts; /* what came last ended in a newline */
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static enum skf_err push(struct lexer *l, struct tpl_token tok)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct tpl_token *toks = skf_tpl_alloc(l->t, cap * sizeof *toks);
        if (!toks)
            return l->t->alloc_err;
        if (l->n)
            memcpy(toks, l->toks, l->n * sizeof *toks);
        l->toks = toks;
        l->cap = cap;
    }
    tok.line = l->line;
    l->t->line = l->line;
    l->toks[l->n++] = tok;
    return SKF_OK;
}

/* The template with every line end as \n and without one at its end. */
static enum skf_err normalise(struct tpl *t, const char *src, size_t n, struct lexer *l)
{
    char *to = skf_tpl_alloc(t, n + 1);
    if (!to)
        return t->alloc_err;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\0')
            return skf_tpl_fail(t, SKF_ERR_FORMAT, "holds a NUL byte");
        if (src[i] == '\r' && i + 1 < n && src[i + 1] == '\n')
            continue;
        to[k++] = src[i] == '\r' ? '\n' : src[i];
    }
    if (k && to[k - 1] == '\n')
        k--;
    *l = (struct lexer){.t = t, .p = to, .end = to + k, .line = 1, .line_starts = true};
    return SKF_OK;
}

static void count_lines(struct lexer *l, const char *from, const char *to)
{
    for (; from < to; from++)
        l->line += *from == '\n';
}

/* The text up to a tag at `tag` (or the end), stripped as the tag's kind and mark say. */
static enum skf_err text(struct lexer *l, const char *tag)
{
    const char *from = l->p, *to = tag;
    if (tag < l->end) {
        char kind = tag[1], mark = tag + 2 < l->end ? tag[2] : 0;
        if (mark == '-') {
            while (to > from && is_space(to[-1]))
                to--;
        } else if (mark != '+' && kind != '{') {
            const char *b = to;
            while (b > from && is_space(b[-1]) && b[-1] != '\n')
                b--;
            if (b > from ? b[-1] == '\n' : l->line_starts)
                to = b;
        }
    }
    enum skf_err e = SKF_OK;
    if (to > from)
        e = push(l, (struct tpl_token){.kind = TOK_TEXT, .s = {from, (size_t)(to - from)}});
    count_lines(l, from, tag);
    l->p = tag;
    return e;
}

/* Behind a tag that ended at l->p: `mark` is the character before its closing. */
static void after_tag(struct lexer *l, char mark, bool is_block)
{
    const char *from = l->p;
    if (mark == '-') {
        while (l->p < l->end && is_space(*l->p))
            l->p++;
    } else if (is_block && mark != '+' && l->p < l->end && *l->p == '\n') {
        l->p++;
    }
    l->line_starts = l->p > from && l->p[-1] == '\n';
    count_lines(l, from, l->p);
}

static enum skf_err comment(struct lexer *l)
{
    const char *e = memmem(l->p + 2, (size_t)(l->end - l->p - 2), "#}", 2);
    if (!e)
        return skf_tpl_fail(l->t, SKF_ERR_FORMAT, "comment without end");
    char mark = e > l->p + 2 ? e[-1] : 0;
    count_lines(l, l->p, e);
    l->p = e + 2;
    after_tag(l, mark, true);
    return SKF_OK;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xC0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    to[0] = (char)(0xE0 | c >> 12);
    to[1] = (char)(0x80 | (c >> 6 & 0x3F));
    to[2] = (char)(0x80 | (c & 0x3F));
    return 3;
}

/* One escape at l->p (behind the backslash) into `to`; at most 3 bytes, never more than the escape itself has. */
static enum skf_err escape(struct lexer *l, char *to, size_t *k)
{
    static const char from[] = "ntr0abfv\\'\"", into[] = "\n\t\r\0\a\b\f\v\\'\"";
    char c = *l->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        to[(*k)++] = into[at - from];
    } else if (c == 'x' || c == 'u') {
        int digits = c == 'x' ? 2 : 4;
        uint32_t v = 0;
        for (int i = 0; i < digits; i++, l->p++) {
            int h = l->p < l->end ? hex_value(*l->p) : -1;
            if (h < 0)
                return skf_tpl_fail(l->t, SKF_ERR_FORMAT, "broken \\%c escape", c);
            v = v << 4 | (uint32_t)h;
        }
        if (v >= 0xD800 && v < 0xE000)
            return skf_tpl_fail(l->t, SKF_ERR_UNSUPPORTED, "surrogate in a \\u escape is not supported");
        *k += put_utf8(to + *k, v);
    } else if (c != '\n') { /* a backslash before anything else stays; before a newline both go */
        to[(*k)++] = '\\';
        to[(*k)++] = c;
    }
    return SKF_OK;
}

static enum skf_err string(struct lexer *l)
{
    const char quote = *l->p++, *from = l->p, *e = from;
    while (e < l->end && *e != quote)
        e += *e == '\\' && e + 1 < l->end ? 2 : 1;
    if (e >= l->end)
        return skf_tpl_fail(l->t, SKF_ERR_FORMAT, "string without end");
    char *to = skf_tpl_alloc(l->t, (size_t)(e - from) + 4);
    if (!to)
        return l->t->alloc_err;
    size_t k = 0;
    while (l->p < e) {
        if (*l->p != '\\') {
            to[k++] = *l->p++;
            continue;
        }
        l->p++;
        SKF_TRY(escape(l, to, &k));
    }
    if (l->p > e)
        return skf_tpl_fail(l->t, SKF_ERR_FORMAT, "broken escape");
    enum skf_err err = push(l, (struct tpl_token){.kind = TOK_STR, .s = {to, k}});
    count_lines(l, from, e);
    l->p = e + 1;
    return err;
}

static enum skf_err number(struct lexer *l)
{
    int64_t v = 0;
    const char *from = l->p;
    for (; l->p < l->end && (is_digit(*l->p) || *l->p == '_'); l->p++)
        if (*l->p != '_' && (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *l->p - '0', &v)))
            return skf_tpl_fail(l->t, SKF_ERR_LIMIT, "number too large");
    struct tpl_token tok = {.kind = TOK_INT, .i = v, .s = {from, (size_t)(l->p - from)}};
    if (l->end - l->p > 1 && l->p[0] == '.' && is_digit(l->p[1])) {
        double scale = 0.1;
        tok.kind = TOK_FLOAT;
        tok.f = (double)v;
        for (l->p++; l->p < l->end && is_digit(*l->p); l->p++, scale /= 10)
            tok.f += (*l->p - '0') * scale;
    }
    return push(l, tok);
}

static enum skf_err operator_(struct lexer *l)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "(", ")",
                                      "[",  "]",  "{",  "}",  "<",  ">",  "=", ".", ",", ":", "|"};
    size_t left = (size_t)(l->end - l->p);
    for (size_t i = 0; i < SKF_COUNT(ops); i++) {
        size_t n = strlen(ops[i]);
        if (n <= left && memcmp(l->p, ops[i], n) == 0) {
            l->p += n;
            return push(l, (struct tpl_token){.kind = TOK_OP, .s = {ops[i], n}});
        }
    }
    unsigned char c = (unsigned char)*l->p;
    return skf_tpl_fail(l->t, SKF_ERR_FORMAT, c > ' ' && c < 127 ? "unexpected '%c'" : "unexpected byte 0x%02x", c);
}

/* Whether the tag ends here; "-" and "+" before the closing belong to it. Gives the mark and the length. */
static bool is_tag_end(const struct lexer *l, char kind, char *mark, size_t *n)
{
    const char *p = l->p;
    *mark = 0;
    if (l->end - p > 2 && (*p == '-' || *p == '+'))
        *mark = *p++;
    *n = (size_t)(p - l->p) + 2;
    return l->end - p >= 2 && p[0] == (kind == '{' ? '}' : '%') && p[1] == '}';
}

static enum skf_err one_token(struct lexer *l)
{
    char c = *l->p;
    if (c == '\'' || c == '"')
        return string(l);
    if (is_digit(c))
        return number(l);
    if (!is_name_char(c))
        return operator_(l);
    const char *from = l->p;
    while (l->p < l->end && is_name_char(*l->p))
        l->p++;
    return push(l, (struct tpl_token){.kind = TOK_NAME, .s = {from, (size_t)(l->p - from)}});
}

static enum skf_err tag(struct lexer *l)
{
    char kind = l->p[1], mark;
    size_t n;
    int depth = 0; /* of brackets: "}}" inside a dictionary does not end the tag */
    l->p += 2;
    if (l->p < l->end && (*l->p == '-' || *l->p == '+'))
        l->p++;
    SKF_TRY(push(l, (struct tpl_token){.kind = kind == '{' ? TOK_VAR : TOK_BLOCK}));
    while (l->p < l->end) {
        if (is_space(*l->p)) {
            l->line += *l->p++ == '\n';
            continue;
        }
        if (depth == 0 && is_tag_end(l, kind, &mark, &n)) {
            l->p += n;
            SKF_TRY(push(l, (struct tpl_token){.kind = kind == '{' ? TOK_VAR_END : TOK_BLOCK_END}));
            after_tag(l, mark, kind != '{');
            return SKF_OK;
        }
        depth += *l->p == '(' || *l->p == '[' || *l->p == '{';
        depth -= *l->p == ')' || *l->p == ']' || *l->p == '}';
        SKF_TRY(one_token(l));
    }
    return skf_tpl_fail(l->t, SKF_ERR_FORMAT, "tag without end");
}

enum skf_err skf_tpl_lex(struct tpl *t, const char *src, size_t n)
{
    struct lexer l = {0};
    SKF_TRY(normalise(t, src, n, &l));
    while (l.p < l.end) {
        const char *at = l.p;
        while ((at = memchr(at, '{', (size_t)(l.end - at))) != NULL) {
            if (at + 1 < l.end && (at[1] == '{' || at[1] == '%' || at[1] == '#'))
                break;
            at++;
        }
        SKF_TRY(text(&l, at ? at : l.end));
        if (!at)
            break;
        SKF_TRY(at[1] == '#' ? comment(&l) : tag(&l));
    }
    SKF_TRY(push(&l, (struct tpl_token){.kind = TOK_EOF}));
    t->tok = l.toks;
    return SKF_OK;
}
