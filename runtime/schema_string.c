/* Schemas: strings, their length, formats and patterns (schema_priv.h). */
#include "runtime/schema_priv.h"

#include "base/util.h"
#include "runtime/grammar_chars.h"

enum { NEST_MAX = 32, TIMES_MAX = 1000 };

struct pattern {
    struct skf_schema *s;
    const char *text, *p;
    unsigned depth;
};

static uint32_t alternatives(struct pattern *x);

static uint32_t bad(struct pattern *x, const char *what)
{
    skf_gb_fail(x->s->b, SKF_ERR_ARG, "the schema: pattern %.100s: %s", x->text, what);
    return 0;
}

/* One character as it stands in a JSON string. */
static void put_char(struct skf_gb *b, uint32_t alt, uint32_t c)
{
    static const char from[] = "\b\f\n\r\t\"\\", to[] = "bfnrt\"\\";
    char text[8];
    const char *k = c ? strchr(from, (int)c) : NULL;
    if (c == 0)
        return;
    if (k)
        snprintf(text, sizeof text, "\\%c", to[k - from]);
    else
        snprintf(text, sizeof text, "\\u%04x", c & 0xff);
    skf_gb_str(b, alt, text);
}

static uint32_t of_chars(struct pattern *x, struct skf_chars *c)
{
    struct skf_gb *b = x->s->b;
    uint32_t alt = skf_gb_alt(b);
    skf_chars_settle(c);
    if (c->is_over)
        return bad(x, "a class has too many ranges");
    for (uint32_t i = 0; i < c->n; i++) {
        static const struct skf_span spans[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, SKF_CHAR_LAST}};
        for (size_t k = 0; k < SKF_COUNT(spans); k++)
            skf_gb_chars(b, alt, SKF_MAX(c->range[i].lo, spans[k].lo), SKF_MIN(c->range[i].hi, spans[k].hi));
    }
    for (uint32_t ch = 1; ch < 0x5d; ch++)
        if ((ch < 0x20 || ch == '"' || ch == '\\') && is_in_chars(c, ch))
            put_char(b, alt, ch);
    return alt;
}

/* \d \w \s and what they leave of what can be printed of ASCII: more would mean something else in another language. */
static bool is_shorthand(char k, struct skf_chars *c)
{
    struct skf_chars set = {0};
    if (k == 'd' || k == 'D' || k == 'w' || k == 'W')
        skf_chars_add(&set, '0', '9');
    if (k == 'w' || k == 'W') {
        skf_chars_add(&set, 'a', 'z');
        skf_chars_add(&set, 'A', 'Z');
        skf_chars_add(&set, '_', '_');
    }
    if (k == 's' || k == 'S') {
        skf_chars_add(&set, ' ', ' ');
        if (k == 's')
            skf_chars_add(&set, '\t', '\r');
    }
    if (!set.n)
        return false;
    if (k == 'D' || k == 'W' || k == 'S') {
        skf_chars_negate(&set);
        for (uint32_t i = 0; i < set.n; i++)
            if (set.range[i].lo <= 0x7e && set.range[i].hi >= 0x20)
                skf_chars_add(c, SKF_MAX(set.range[i].lo, 0x20u), SKF_MIN(set.range[i].hi, 0x7eu));
        return true;
    }
    for (uint32_t i = 0; i < set.n; i++)
        skf_chars_add(c, set.range[i].lo, set.range[i].hi);
    return true;
}

static bool is_hex(struct pattern *x, int n, uint32_t *c)
{
    for (*c = 0; n; n--, x->p++) {
        char k = *x->p;
        int v = k >= '0' && k <= '9' ? k - '0' : k >= 'a' && k <= 'f' ? k - 'a' + 10 : k >= 'A' && k <= 'F' ? k - 'A' + 10 : -1;
        if (v < 0)
            return false;
        *c = *c << 4 | (uint32_t)v;
    }
    return true;
}

/* Behind a backslash: a character (*is_set false) or a set. */
static bool is_escape(struct pattern *x, struct skf_chars *set, uint32_t *c, bool *is_set)
{
    static const char from[] = "nrtfv", to[] = "\n\r\t\f\v";
    char k = *x->p;
    *is_set = is_shorthand(k, set);
    if (!k)
        return false;
    x->p++;
    if (*is_set)
        return true;
    if (k == 'x' || k == 'u')
        return is_hex(x, k == 'x' ? 2 : 4, c);
    const char *known = strchr(from, k);
    *c = known ? (uint8_t)to[known - from] : (uint8_t)k;
    return known || !((k >= '0' && k <= '9') || (k >= 'a' && k <= 'z') || (k >= 'A' && k <= 'Z') || (uint8_t)k >= 0x80);
}

static bool is_class_char(struct pattern *x, struct skf_chars *set, uint32_t *c, bool *is_set)
{
    size_t at = 0;
    *is_set = false;
    if (*x->p == '\\') {
        x->p++;
        if (*x->p == 'b')
            return false;
        return is_escape(x, set, c, is_set);
    }
    if (!*x->p || !is_char_taken(x->p, strlen(x->p), &at, c))
        return false;
    x->p += at;
    return true;
}

static uint32_t class(struct pattern *x)
{
    struct skf_chars set = {0};
    x->p++;
    bool is_not = *x->p == '^';
    x->p += is_not;
    if (*x->p == ']')
        return bad(x, "an empty class");
    while (*x->p != ']') {
        uint32_t lo = 0, hi = 0;
        bool is_set = false, is_high_set = false;
        if (*x->p == '[' && (x->p[1] == ':' || x->p[1] == '.'))
            return bad(x, "a class of that kind is not supported");
        if (!is_class_char(x, &set, &lo, &is_set))
            return bad(x, "a class does not end, or has an escape that is not supported");
        hi = lo;
        if (!is_set && *x->p == '-' && x->p[1] && x->p[1] != ']') {
            x->p++;
            if (!is_class_char(x, &set, &hi, &is_high_set) || is_high_set || hi < lo)
                return bad(x, "a range of a class makes no sense");
        }
        if (!is_set)
            skf_chars_add(&set, lo, hi);
    }
    x->p++;
    if (is_not)
        skf_chars_negate(&set);
    return of_chars(x, &set);
}

static uint32_t group(struct pattern *x)
{
    x->p++;
    if (++x->depth > NEST_MAX)
        return bad(x, "groups are nested too deep");
    if (*x->p == '?') {
        if (x->p[1] == ':') {
            x->p += 2;
        } else if (x->p[1] == '<' && x->p[2] != '=' && x->p[2] != '!') {
            x->p += strcspn(x->p, ">");
            x->p += *x->p == '>';
        } else {
            return bad(x, "look-around and flags are not supported");
        }
    }
    uint32_t alt = alternatives(x);
    x->depth--;
    if (*x->p != ')')
        return bad(x, "a group does not end");
    x->p++;
    return alt;
}

static bool is_times(struct pattern *x, uint32_t *v)
{
    const char *from = x->p;
    for (*v = 0; *x->p >= '0' && *x->p <= '9' && *v <= TIMES_MAX; x->p++)
        *v = 10 * *v + (uint32_t)(*x->p - '0');
    return x->p > from && *v <= TIMES_MAX;
}

static uint32_t repeated(struct pattern *x, uint32_t part)
{
    uint32_t min = 0, max = SKF_GRAMMAR_NO_MAX;
    char c = *x->p;
    if (!c || !strchr("*+?{", c))
        return part;
    x->p++;
    if (c == '+')
        min = 1;
    if (c == '?')
        max = 1;
    if (c == '{') {
        if (!is_times(x, &min))
            return bad(x, "a repetition needs a number of at most 1000");
        max = min;
        if (*x->p == ',') {
            x->p++;
            if (!is_times(x, &max))
                max = SKF_GRAMMAR_NO_MAX;
        }
        if (*x->p != '}' || max < min)
            return bad(x, "a repetition makes no sense, or is of more than 1000");
        x->p++;
    }
    if (*x->p == '?') /* as little as can be: the same texts */
        x->p++;
    if (*x->p && strchr("*+?{", *x->p))
        return bad(x, "one repetition on another");
    return skf_gb_rep(x->s->b, part, min, max);
}

static uint32_t atom(struct pattern *x)
{
    struct skf_chars set = {0};
    uint32_t c = 0;
    bool is_set = false;
    size_t at = 0;
    if (*x->p == '(')
        return group(x);
    if (*x->p == '[')
        return class(x);
    if (strchr("^$*+?{}])", *x->p) && *x->p != ']' && *x->p != '}')
        return bad(x, *x->p == '^' || *x->p == '$' ? "^ and $ are supported at its ends only" : "nothing stands before a repetition");
    if (*x->p == '.') {
        static const struct skf_span lines[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
        for (size_t i = 0; i < SKF_COUNT(lines); i++)
            skf_chars_add(&set, lines[i].lo, lines[i].hi);
        skf_chars_negate(&set);
        x->p++;
        return of_chars(x, &set);
    }
    if (*x->p == '\\') {
        x->p++;
        if (!is_escape(x, &set, &c, &is_set))
            return bad(x, "an escape that is not supported");
    } else {
        if (!is_char_taken(x->p, strlen(x->p), &at, &c))
            return bad(x, "it is not UTF-8");
        x->p += at;
    }
    if (!is_set)
        skf_chars_add(&set, c, c);
    return of_chars(x, &set);
}

static uint32_t any(struct pattern *x)
{
    return skf_gb_rep(x->s->b, skf_schema_shared(x->s, SKF_SH_CHAR), 0, SKF_GRAMMAR_NO_MAX);
}

/* One alternative; at the top what is not held to an end of the text may lie anywhere in it. */
static uint32_t sequence(struct pattern *x)
{
    struct skf_gb *b = x->s->b;
    uint32_t seq = skf_gb_seq(b);
    bool is_top = x->depth == 0, is_begun = *x->p == '^' && is_top, is_ended = false;
    if (is_begun)
        x->p++;
    else if (is_top)
        skf_gb_add(b, seq, any(x));
    while (*x->p && *x->p != '|' && *x->p != ')' && b->err == SKF_OK) {
        if (is_top && *x->p == '$' && (!x->p[1] || x->p[1] == '|')) {
            x->p++;
            is_ended = true;
            break;
        }
        uint32_t part = atom(x);
        if (b->err == SKF_OK)
            skf_gb_add(b, seq, repeated(x, part));
    }
    if (is_top && !is_ended)
        skf_gb_add(b, seq, any(x));
    return seq;
}

static uint32_t alternatives(struct pattern *x)
{
    uint32_t alt = skf_gb_alt(x->s->b);
    skf_gb_add(x->s->b, alt, sequence(x));
    while (*x->p == '|' && is_kept(x->s)) {
        x->p++;
        skf_gb_add(x->s->b, alt, sequence(x));
    }
    return alt;
}

uint32_t skf_schema_pattern(struct skf_schema *s, const char *pattern)
{
    struct pattern x = {.s = s, .text = pattern, .p = pattern};
    uint32_t seq = skf_gb_text(s->b, "\"", 1);
    skf_gb_add(s->b, seq, alternatives(&x));
    if (is_kept(s) && *x.p)
        (void)bad(&x, "a parenthesis too many");
    skf_gb_str(s->b, seq, "\"");
    return seq;
}

static uint32_t format(struct skf_schema *s, const char *name)
{
#define DAY "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define LABEL "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        {"date", "^" "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-" DAY "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-" DAY "T" TIME "$"},
        {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        {"ipv4", "^" OCTET "\\." OCTET "\\." OCTET "\\." OCTET "$"},
        {"hostname", "^" LABEL "(\\." LABEL "){0,4}$"},
        {"email", "^[a-zA-Z0-9_+-]{1,40}(\\.[a-zA-Z0-9_+-]{1,20}){0,3}@" LABEL "(\\." LABEL "){1,4}$"},
        {"uri", "^https?://" LABEL "(\\." LABEL "){0,4}(/[A-Za-z0-9._~-]{0,60}){0,10}$"},
    };
    for (size_t i = 0; i < SKF_COUNT(formats); i++)
        if (strcmp(name, formats[i].name) == 0)
            return skf_schema_pattern(s, formats[i].pattern);
    skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: the format %.40s is not supported", name);
    return 0;
}

uint32_t skf_schema_string(struct skf_schema *s, const skf_json *j)
{
    const skf_json *pattern = skf_json_get(j, "pattern"), *form = skf_json_get(j, "format");
    uint32_t min = 0, max = SKF_GRAMMAR_NO_MAX;
    if (!is_schema_count(s, j, "minLength", &min) || !is_schema_count(s, j, "maxLength", &max))
        return 0;
    bool has_length = min > 0 || max != SKF_GRAMMAR_NO_MAX;
    if ((pattern && !is_json_str(pattern)) || (form && !is_json_str(form)))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: pattern and format must be strings");
    else if ((pattern != NULL) + (form != NULL) + has_length > 1)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: only one of pattern, format and a length is supported for a string");
    else if (max < min)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: a string of at least %u and at most %u characters", min, max);
    if (!is_kept(s))
        return 0;
    if (pattern)
        return skf_schema_pattern(s, skf_json_cstr(pattern));
    if (form)
        return format(s, skf_json_cstr(form));
    if (!has_length)
        return skf_schema_shared(s, SKF_SH_STRING);
    uint32_t seq = skf_gb_text(s->b, "\"", 1);
    skf_gb_add(s->b, seq, skf_gb_rep(s->b, skf_schema_shared(s, SKF_SH_CHAR), min, max));
    skf_gb_str(s->b, seq, "\"");
    return seq;
}
