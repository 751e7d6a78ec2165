/*
 * GBNF, the form of grammars that llama.cpp takes (grammars/README.md there): `name ::= alternatives`, literals in quotes, classes in
 * brackets, a point for any character, groups, * + ? {m} {m,} {m,n}, comments from # on. `root` is where an answer begins.
 */
#include "base/alloc.h"
#include "base/util.h"
#include "runtime/grammar_chars.h"

enum { NEST_MAX = 64, NAMES = 1 << 16, NAME_MAX_LEN = 128, TIMES_MAX = 10000 };

struct name {
    const char *p;
    uint32_t n, rule;
    bool is_defined;
};
struct gbnf {
    struct skf_gb b;
    const char *p;
    size_t n, at;
    unsigned depth;
    struct name *names; /* a hash table of NAMES places */
};

static uint32_t alternatives(struct gbnf *g, bool is_nested);

static unsigned line_of(const struct gbnf *g)
{
    unsigned line = 1;
    for (size_t i = 0; i < g->at && i < g->n; i++)
        line += g->p[i] == '\n';
    return line;
}

static uint32_t bad(struct gbnf *g, const char *what)
{
    skf_gb_fail(&g->b, SKF_ERR_ARG, "the grammar, line %u: %s", line_of(g), what);
    return 0;
}

static int now(const struct gbnf *g) { return g->at < g->n && g->b.err == SKF_OK ? (unsigned char)g->p[g->at] : -1; }

static void skip(struct gbnf *g, bool is_newline_too)
{
    for (int c; (c = now(g)) >= 0; g->at++) {
        if (c == '#') {
            while (now(g) >= 0 && now(g) != '\n')
                g->at++;
            g->at--;
        } else if (!(c == ' ' || c == '\t' || (is_newline_too && (c == '\n' || c == '\r')))) {
            break;
        }
    }
}

static bool is_name_char(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The rule of the name that stands here; it may be defined later. */
static struct name *name_here(struct gbnf *g)
{
    size_t from = g->at;
    uint32_t h = 2166136261u;
    for (; is_name_char(now(g)); g->at++)
        h = (h ^ (uint8_t)g->p[g->at]) * 16777619u;
    size_t len = g->at - from;
    if (len == 0 || len > NAME_MAX_LEN) {
        (void)bad(g, len ? "a name is too long" : "a rule's name is expected");
        return NULL;
    }
    uint32_t i = h % NAMES;
    for (; g->names[i].p; i = (i + 1) % NAMES)
        if (g->names[i].n == len && memcmp(g->names[i].p, g->p + from, len) == 0)
            return &g->names[i];
    bool is_root = len == 4 && memcmp(g->p + from, "root", 4) == 0;
    g->names[i] = (struct name){g->p + from, (uint32_t)len, is_root ? 0 : skf_gb_rule(&g->b), false};
    return g->b.err == SKF_OK ? &g->names[i] : NULL;
}

static bool is_hex(struct gbnf *g, unsigned digits, uint32_t *ch)
{
    *ch = 0;
    for (; digits; digits--, g->at++) {
        int c = now(g), v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (v < 0)
            return false;
        *ch = *ch << 4 | (uint32_t)v;
    }
    return *ch <= SKF_CHAR_LAST && !(*ch >= 0xd800 && *ch <= 0xdfff);
}

static bool is_char(struct gbnf *g, uint32_t *ch)
{
    static const char from[] = "nrt\\\"[]-^", to[] = "\n\r\t\\\"[]-^";
    if (now(g) < 0)
        return false;
    if (now(g) != '\\')
        return is_char_taken(g->p, g->n, &g->at, ch);
    g->at++;
    int c = now(g);
    g->at += c >= 0;
    if (c == 'x' || c == 'u' || c == 'U')
        return is_hex(g, c == 'x' ? 2 : c == 'u' ? 4 : 8, ch);
    const char *k = c > 0 ? strchr(from, c) : NULL;
    if (k)
        *ch = (uint8_t)to[k - from];
    return k != NULL;
}

static uint32_t literal(struct gbnf *g)
{
    uint32_t seq = skf_gb_seq(&g->b), ch = 0;
    for (g->at++; now(g) != '"';) {
        if (!is_char(g, &ch))
            return bad(g, "a literal does not end, or has an escape that is not known");
        uint32_t one = skf_gb_alt(&g->b);
        skf_gb_chars(&g->b, one, ch, ch);
        skf_gb_add(&g->b, seq, one);
    }
    g->at++;
    return seq;
}

static uint32_t of_chars(struct gbnf *g, struct skf_chars *c)
{
    uint32_t alt = skf_gb_alt(&g->b);
    skf_chars_settle(c);
    if (c->is_over)
        return bad(g, "a class has too many ranges");
    for (uint32_t i = 0; i < c->n; i++)
        skf_gb_chars(&g->b, alt, c->range[i].lo, c->range[i].hi);
    return alt;
}

static uint32_t class(struct gbnf *g)
{
    struct skf_chars c = {0};
    g->at++;
    bool is_not = now(g) == '^';
    g->at += is_not;
    while (now(g) != ']') {
        uint32_t lo = 0, hi = 0;
        if (!is_char(g, &lo))
            return bad(g, "a class does not end, or has an escape that is not known");
        hi = lo;
        if (now(g) == '-' && g->at + 1 < g->n && g->p[g->at + 1] != ']') {
            g->at++;
            if (!is_char(g, &hi) || hi < lo)
                return bad(g, "a range of a class makes no sense");
        }
        skf_chars_add(&c, lo, hi);
    }
    g->at++;
    if (is_not)
        skf_chars_negate(&c);
    return of_chars(g, &c);
}

static uint32_t group(struct gbnf *g)
{
    g->at++;
    if (++g->depth > NEST_MAX)
        return bad(g, "groups are nested too deep");
    skip(g, true);
    uint32_t x = alternatives(g, true);
    g->depth--;
    if (now(g) != ')')
        return bad(g, "a group does not end");
    g->at++;
    return x;
}

static bool is_times(struct gbnf *g, uint32_t *v)
{
    size_t from = g->at;
    for (*v = 0; now(g) >= '0' && now(g) <= '9' && *v <= TIMES_MAX; g->at++)
        *v = 10 * *v + (uint32_t)(now(g) - '0');
    return g->at > from && *v <= TIMES_MAX;
}

static uint32_t repeated(struct gbnf *g, uint32_t x)
{
    uint32_t min = 0, max = SKF_GRAMMAR_NO_MAX;
    int c = now(g);
    if (c != '*' && c != '+' && c != '?' && c != '{')
        return x;
    g->at++;
    if (c == '+')
        min = 1;
    if (c == '?')
        max = 1;
    if (c == '{') {
        skip(g, false);
        if (!is_times(g, &min))
            return bad(g, "a repetition needs a number of at most 10000");
        max = min;
        skip(g, false);
        if (now(g) == ',') {
            g->at++;
            skip(g, false);
            if (!is_times(g, &max))
                max = SKF_GRAMMAR_NO_MAX;
            skip(g, false);
        }
        if (now(g) != '}' || max < min)
            return bad(g, "a repetition makes no sense, or is of more than 10000");
        g->at++;
    }
    c = now(g);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return bad(g, "one repetition on another; put parentheses around the first");
    return skf_gb_rep(&g->b, x, min, max);
}

/* Is the name here the next rule's, whose ::= follows? */
static bool is_next_rule(struct gbnf *g)
{
    size_t at = g->at;
    while (is_name_char(now(g)))
        g->at++;
    skip(g, false);
    bool is = g->n - g->at >= 3 && memcmp(g->p + g->at, "::=", 3) == 0;
    g->at = at;
    return is;
}

static uint32_t sequence(struct gbnf *g, bool is_nested)
{
    uint32_t seq = skf_gb_seq(&g->b);
    for (int c; (c = now(g)) >= 0 && c != '|' && c != ')' && c != '\n' && c != '\r';) {
        uint32_t x = 0;
        if (c == '"') {
            x = literal(g);
        } else if (c == '[') {
            x = class(g);
        } else if (c == '(') {
            x = group(g);
        } else if (c == '.') {
            struct skf_chars any = {.n = 1, .range = {{0, SKF_CHAR_LAST}}};
            g->at++;
            x = of_chars(g, &any);
        } else if (is_name_char(c)) {
            const struct name *to = name_here(g);
            x = to ? skf_gb_call(&g->b, to->rule) : 0;
        } else {
            return bad(g, "a character that means nothing here");
        }
        x = repeated(g, x);
        skf_gb_add(&g->b, seq, x);
        skip(g, is_nested);
    }
    return seq;
}

static uint32_t alternatives(struct gbnf *g, bool is_nested)
{
    uint32_t alt = skf_gb_alt(&g->b);
    for (;;) {
        skf_gb_add(&g->b, alt, sequence(g, is_nested));
        size_t at = g->at;
        skip(g, true);
        if (now(g) != '|') {
            g->at = is_nested ? g->at : at;
            return alt;
        }
        g->at++;
        skip(g, true);
    }
}

static void rules(struct gbnf *g)
{
    for (skip(g, true); now(g) >= 0; skip(g, true)) {
        if (!is_next_rule(g)) {
            (void)bad(g, "a rule is expected: name ::= ...");
            return;
        }
        struct name *to = name_here(g);
        if (!to)
            return;
        if (to->is_defined) {
            (void)bad(g, "this rule is there already");
            return;
        }
        to->is_defined = true;
        skip(g, false);
        g->at += 3;
        skip(g, true);
        skf_gb_body(&g->b, to->rule, alternatives(g, false));
        if (now(g) == ')')
            (void)bad(g, "a parenthesis too many");
    }
}

static void check_names(struct gbnf *g)
{
    bool has_root = false;
    for (uint32_t i = 0; i < NAMES; i++) {
        const struct name *x = &g->names[i];
        has_root |= x->p && x->rule == 0 && x->is_defined;
        if (x->p && !x->is_defined)
            skf_gb_fail(&g->b, SKF_ERR_ARG, "the grammar: the rule %.*s is not there", (int)x->n, x->p);
    }
    if (!has_root)
        skf_gb_fail(&g->b, SKF_ERR_ARG, "the grammar: there is no rule root");
}

enum skf_err skf_grammar_gbnf(const char *text, size_t n, struct skf_grammar **out, struct skf_why *why)
{
    struct gbnf g = {.b = {.why = why}, .p = text, .n = n};
    if (n > SKF_GRAMMAR_TEXT_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "the grammar is larger than %u KiB", SKF_GRAMMAR_TEXT_MAX >> 10);
    g.names = skf_calloc(NAMES, sizeof *g.names);
    if (!g.names)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    (void)skf_gb_rule(&g.b);
    rules(&g);
    check_names(&g);
    enum skf_err e = g.b.err != SKF_OK ? g.b.err : skf_grammar_compile(&g.b, out, why);
    skf_free(g.names);
    skf_gb_free(&g.b);
    return e;
}
