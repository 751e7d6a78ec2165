/* Schemas: types, alternatives, references, constants (schema_priv.h). */
#include "runtime/schema_priv.h"

#include "base/alloc.h"
#include "base/util.h"

enum { INDEX = 1 << 16, SEEN_MAX = 1 << 14, CHAIN_MAX = 32 };

enum skf_err skf_schema_begin(struct skf_schema *s, struct skf_gb *b)
{
    *s = (struct skf_schema){.b = b, .index = skf_calloc(INDEX, sizeof *s->index)};
    return s->index ? SKF_OK : SKF_ERR_NOMEM;
}

void skf_schema_end(struct skf_schema *s)
{
    skf_free(s->seen);
    skf_free(s->index);
    s->seen = NULL;
    s->index = NULL;
}

/* ---- what schemas share ------------------------------------------------------------------------------------------------------------- */
static uint32_t digits(struct skf_gb *b, uint32_t min, uint32_t max) { return skf_gb_rep(b, skf_gb_bytes(b, '0', '9'), min, max); }

static uint32_t one_of(struct skf_gb *b, const char *set)
{
    uint32_t alt = skf_gb_alt(b);
    for (; *set; set++)
        skf_gb_add(b, alt, skf_gb_bytes(b, (uint8_t)*set, (uint8_t)*set));
    return alt;
}

static uint32_t hex(struct skf_gb *b, uint8_t least, uint32_t times)
{
    uint32_t alt = skf_gb_alt(b);
    skf_gb_add(b, alt, skf_gb_bytes(b, least, '9'));
    skf_gb_add(b, alt, skf_gb_bytes(b, 'a', 'f'));
    skf_gb_add(b, alt, skf_gb_bytes(b, 'A', 'F'));
    return skf_gb_rep(b, alt, times, times);
}

/* \u and four digits: neither NUL nor half of a pair. */
static uint32_t escape(struct skf_gb *b)
{
    uint32_t alt = skf_gb_alt(b), seq = 0;
    for (int zeros = 0; zeros < 4; zeros++) { /* the first digit that is no 0 */
        seq = skf_gb_text(b, "000", (size_t)zeros);
        uint32_t first = skf_gb_alt(b);
        skf_gb_add(b, first, skf_gb_bytes(b, '1', '9'));
        skf_gb_add(b, first, skf_gb_bytes(b, 'a', zeros ? 'f' : 'c'));
        skf_gb_add(b, first, skf_gb_bytes(b, 'A', zeros ? 'F' : 'C'));
        if (!zeros) {
            skf_gb_add(b, first, one_of(b, "eEfF"));
        }
        skf_gb_add(b, seq, first);
        if (zeros < 3)
            skf_gb_add(b, seq, hex(b, '0', 3 - (uint32_t)zeros));
        skf_gb_add(b, alt, seq);
    }
    seq = skf_gb_seq(b);
    skf_gb_add(b, seq, one_of(b, "dD"));
    skf_gb_add(b, seq, skf_gb_bytes(b, '0', '7'));
    skf_gb_add(b, seq, hex(b, '0', 2));
    skf_gb_add(b, alt, seq);
    return alt;
}

static uint32_t plain(struct skf_gb *b)
{
    uint32_t alt = skf_gb_alt(b);
    skf_gb_chars(b, alt, 0x20, 0x21);
    skf_gb_chars(b, alt, 0x23, 0x5b);
    skf_gb_chars(b, alt, 0x5d, 0x10ffff);
    return alt;
}

static uint32_t character(struct skf_schema *s)
{
    struct skf_gb *b = s->b;
    uint32_t alt = skf_gb_alt(b), seq = skf_gb_text(b, "\\", 1), behind = one_of(b, "\"\\/bfnrt"), u = skf_gb_text(b, "u", 1);
    skf_gb_add(b, u, escape(b));
    skf_gb_add(b, behind, u);
    skf_gb_add(b, seq, behind);
    skf_gb_add(b, alt, skf_schema_shared(s, SKF_SH_PLAIN));
    skf_gb_add(b, alt, seq);
    return alt;
}

/* So many digits that a number does not go on for ever, and is exact as a double where it is whole. */
static uint32_t number(struct skf_gb *b, bool is_whole)
{
    uint32_t seq = skf_gb_seq(b), whole = skf_gb_alt(b), some = skf_gb_seq(b), frac = skf_gb_text(b, ".", 1), exp = skf_gb_seq(b);
    skf_gb_add(b, seq, skf_gb_rep(b, skf_gb_bytes(b, '-', '-'), 0, 1));
    skf_gb_add(b, some, skf_gb_bytes(b, '1', '9'));
    skf_gb_add(b, some, digits(b, 0, 14));
    skf_gb_add(b, whole, skf_gb_bytes(b, '0', '0'));
    skf_gb_add(b, whole, some);
    skf_gb_add(b, seq, whole);
    if (is_whole)
        return seq;
    skf_gb_add(b, frac, digits(b, 1, 16));
    skf_gb_add(b, seq, skf_gb_rep(b, frac, 0, 1));
    skf_gb_add(b, exp, one_of(b, "eE"));
    skf_gb_add(b, exp, skf_gb_rep(b, one_of(b, "+-"), 0, 1));
    skf_gb_add(b, exp, digits(b, 1, 2));
    skf_gb_add(b, seq, skf_gb_rep(b, exp, 0, 1));
    return seq;
}

static uint32_t space(struct skf_gb *b)
{
    uint32_t alt = skf_gb_alt(b), line = skf_gb_text(b, "\n", 1);
    skf_gb_add(b, alt, skf_gb_seq(b));
    skf_gb_str(b, alt, " ");
    skf_gb_add(b, line, skf_gb_rep(b, skf_gb_bytes(b, ' ', ' '), 0, 40));
    skf_gb_add(b, alt, line);
    return alt;
}

static uint32_t string(struct skf_schema *s)
{
    uint32_t seq = skf_gb_text(s->b, "\"", 1);
    skf_gb_add(s->b, seq, skf_gb_rep(s->b, skf_schema_shared(s, SKF_SH_CHAR), 0, SKF_GRAMMAR_NO_MAX));
    skf_gb_str(s->b, seq, "\"");
    return seq;
}

static uint32_t value(struct skf_schema *s)
{
    static const enum skf_shared kinds[] = {SKF_SH_OBJECT, SKF_SH_ARRAY, SKF_SH_STRING, SKF_SH_NUMBER};
    uint32_t alt = skf_gb_alt(s->b);
    for (size_t i = 0; i < SKF_COUNT(kinds); i++)
        skf_gb_add(s->b, alt, skf_schema_shared(s, kinds[i]));
    skf_gb_str(s->b, alt, "true");
    skf_gb_str(s->b, alt, "false");
    skf_gb_str(s->b, alt, "null");
    return alt;
}

uint32_t skf_schema_shared(struct skf_schema *s, enum skf_shared which)
{
    uint32_t x = 0;
    if (!s->shared[which]) {
        uint32_t rule = skf_gb_rule(s->b);
        s->shared[which] = 1 + rule;
        switch (which) {
        case SKF_SH_VALUE: x = value(s); break;
        case SKF_SH_OBJECT: x = skf_schema_object(s, NULL); break;
        case SKF_SH_ARRAY: x = skf_schema_array(s, NULL); break;
        case SKF_SH_STRING: x = string(s); break;
        case SKF_SH_CHAR: x = character(s); break;
        case SKF_SH_PLAIN: x = plain(s->b); break;
        case SKF_SH_NUMBER: x = number(s->b, false); break;
        case SKF_SH_INTEGER: x = number(s->b, true); break;
        default: x = space(s->b); break;
        }
        skf_gb_body(s->b, rule, x);
    }
    return skf_gb_call(s->b, s->shared[which] - 1);
}

/* ---- rules of schemas ------------------------------------------------------------------------------------------------------------------ */
uint32_t skf_schema_sub(struct skf_schema *s, const skf_json *j)
{
    uint32_t at = (uint32_t)(((uintptr_t)j >> 4) * 0x9e3779b1u) % INDEX;
    for (; s->index[at]; at = (at + 1) % INDEX)
        if (s->seen[s->index[at] - 1].j == j)
            return skf_gb_call(s->b, s->seen[s->index[at] - 1].rule);
    if (s->n_seen == s->room) {
        uint32_t room = s->room ? 2 * s->room : 64;
        struct seen_schema *more = room <= SEEN_MAX ? skf_realloc(s->seen, room * sizeof *more) : NULL;
        if (!more) {
            skf_gb_fail(s->b, room <= SEEN_MAX ? SKF_ERR_NOMEM : SKF_ERR_LIMIT, "the schema has more than %d parts", SEEN_MAX);
            return 0;
        }
        s->seen = more;
        s->room = room;
    }
    uint32_t rule = skf_gb_rule(s->b);
    s->seen[s->n_seen++] = (struct seen_schema){j, rule};
    s->index[at] = s->n_seen;
    return skf_gb_call(s->b, rule);
}

uint32_t skf_schema_literal(struct skf_schema *s, const skf_json *j)
{
    char *text = NULL;
    size_t n = 0;
    if (!is_kept(s))
        return 0;
    if (skf_json_text(j, 0, &text, &n) != SKF_OK) {
        skf_gb_fail(s->b, SKF_ERR_NOMEM, "out of memory");
        return 0;
    }
    uint32_t x = skf_gb_text(s->b, text, n);
    skf_free(text);
    return x;
}

bool is_schema_count(struct skf_schema *s, const skf_json *j, const char *name, uint32_t *out)
{
    const skf_json *v = skf_json_get(j, name);
    if (!v)
        return true;
    if (!is_json_int(v) || skf_json_i64(v, 0) < 0 || skf_json_i64(v, 0) > 1000000) {
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %s must be a whole number from 0 to 1000000", name);
        return false;
    }
    *out = (uint32_t)skf_json_i64(v, 0);
    return true;
}

/* ---- which types a value has --------------------------------------------------------------------------------------------------------------- */
static const char *const types[] = {"object", "array", "string", "integer", "number", "boolean", "null"};
enum { T_OBJECT = 1, T_ARRAY = 2, T_STRING = 4, T_INTEGER = 8, T_NUMBER = 16, T_BOOLEAN = 32, T_NULL = 64 };

static unsigned type_named(struct skf_schema *s, const skf_json *name)
{
    const char *text = skf_json_cstr(name);
    for (unsigned i = 0; text && i < SKF_COUNT(types); i++)
        if (strcmp(text, types[i]) == 0)
            return 1u << i;
    skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: the type %.40s is not known", text ? text : "that is no string");
    return 0;
}

/* The types that "type" names, as bits; 0 when it is absent. */
static unsigned types_of(struct skf_schema *s, const skf_json *j)
{
    const skf_json *type = skf_json_get(j, "type");
    unsigned bits = 0;
    if (!type)
        return 0;
    if (!is_json_arr(type))
        return type_named(s, type);
    for (size_t i = 0; i < skf_json_len(type); i++)
        bits |= type_named(s, skf_json_at(type, i));
    if (!bits)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: type is an empty array");
    return bits;
}

static unsigned type_of_value(const skf_json *v)
{
    return is_json_obj(v) ? T_OBJECT : is_json_arr(v) ? T_ARRAY : is_json_str(v) ? T_STRING : is_json_int(v) ? T_INTEGER | T_NUMBER :
           is_json_num(v) ? T_NUMBER : is_json_bool(v) ? T_BOOLEAN : T_NULL;
}

/* ---- keywords ------------------------------------------------------------------------------------------------------------------------- */
static const struct {
    const char *name;
    unsigned types; /* what it says something of; 0: it says nothing of the value */
} keywords[] = {
    {"title", 0}, {"description", 0}, {"default", 0}, {"examples", 0}, {"example", 0}, {"$schema", 0}, {"$id", 0}, {"$comment", 0},
    {"$defs", 0}, {"definitions", 0}, {"deprecated", 0}, {"readOnly", 0}, {"writeOnly", 0}, {"discriminator", 0}, {"$anchor", 0},
    {"contentMediaType", 0}, {"contentEncoding", 0},
    {"properties", T_OBJECT}, {"required", T_OBJECT}, {"additionalProperties", T_OBJECT}, {"minProperties", T_OBJECT},
    {"maxProperties", T_OBJECT},
    {"items", T_ARRAY}, {"prefixItems", T_ARRAY}, {"minItems", T_ARRAY}, {"maxItems", T_ARRAY}, {"uniqueItems", T_ARRAY},
    {"minLength", T_STRING}, {"maxLength", T_STRING}, {"pattern", T_STRING}, {"format", T_STRING},
    {"minimum", T_NUMBER}, {"maximum", T_NUMBER}, {"exclusiveMinimum", T_NUMBER}, {"exclusiveMaximum", T_NUMBER}, {"multipleOf", T_NUMBER},
};
static const char *const whole[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf", "type"}; /* of these one leads, "type" may be with some */

/* The types that keywords speak of, as bits; `leader`, if any, must be alone but for "type". Refuses what is not known. */
static unsigned check_keywords(struct skf_schema *s, const skf_json *j, const char *leader)
{
    unsigned bits = 0;
    for (void *it = skf_json_iter(j); it && is_kept(s); it = skf_json_next(j, it)) {
        const char *name = skf_json_iter_key(it);
        bool is_known = false, is_leading = false, says_nothing = false;
        for (size_t i = 0; i < SKF_COUNT(whole); i++)
            is_leading |= strcmp(name, whole[i]) == 0;
        for (size_t i = 0; i < SKF_COUNT(keywords); i++)
            if (strcmp(name, keywords[i].name) == 0) {
                is_known = true;
                says_nothing = keywords[i].types == 0;
                bits |= keywords[i].types;
            }
        if (!is_known && !is_leading)
            skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %.60s is not supported", name);
        else if (leader && !says_nothing && strcmp(name, leader) != 0 && strcmp(name, "type") != 0)
            skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %.60s beside %s is not supported", name, leader);
        else if (leader && strcmp(name, "type") == 0 && strcmp(leader, "const") != 0 && strcmp(leader, "enum") != 0)
            skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: type beside %s is not supported", leader);
    }
    return bits;
}

/* ---- references ------------------------------------------------------------------------------------------------------------------------ */
/* One step of a JSON pointer (RFC 6901): the part from p to end, as a key of `at` or a place in it. */
static const skf_json *step(const skf_json *at, const char *p, size_t n)
{
    char key[257];
    size_t k = 0, place = 0;
    bool is_place = n > 0 && n < 9;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '~' && i + 1 < n)
            c = p[++i] == '1' ? '/' : '~';
        if (k == sizeof key - 1)
            return NULL;
        key[k++] = c;
        is_place = is_place && c >= '0' && c <= '9';
        place = is_place ? 10 * place + (size_t)(c - '0') : 0;
    }
    key[k] = 0;
    if (is_json_arr(at))
        return is_place ? skf_json_at(at, place) : NULL;
    return skf_json_get(at, key);
}

static const skf_json *follow(struct skf_schema *s, const skf_json *ref)
{
    const char *text = skf_json_cstr(ref), *p = text;
    const skf_json *at = s->doc;
    if (!text || text[0] != '#' || (text[1] && text[1] != '/')) {
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: $ref %.80s is not supported; only those within the schema are (#/...)", text ? text : "");
        return NULL;
    }
    for (p++; at && *p == '/';) {
        size_t n = strcspn(++p, "/");
        at = step(at, p, n);
        p += n;
    }
    if (!is_json_obj(at) && !is_json_bool(at)) {
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: $ref %.80s leads to no schema", text);
        return NULL;
    }
    return at;
}

/* ---- alternatives ------------------------------------------------------------------------------------------------------------------------ */
/* Behind references, as far as those lead. */
static const skf_json *behind(struct skf_schema *s, const skf_json *j)
{
    for (int i = 0; i < CHAIN_MAX && is_kept(s) && skf_json_get(j, "$ref"); i++)
        j = follow(s, skf_json_get(j, "$ref"));
    return j;
}

static const skf_json *constants(const skf_json *j, size_t i)
{
    const skf_json *c = skf_json_get(j, "const"), *e = skf_json_get(j, "enum");
    return c ? (i == 0 ? c : NULL) : skf_json_at(e, i);
}

static bool is_same(const skf_json *a, const skf_json *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, k = 0;
    if (is_json_num(a) && is_json_num(b))
        return skf_json_f64(a, 0) == skf_json_f64(b, 1);
    bool is = skf_json_text(a, 0, &x, &n) != SKF_OK || skf_json_text(b, 0, &y, &k) != SKF_OK || (n == k && memcmp(x, y, n) == 0) ||
              is_json_obj(a) || is_json_arr(a); /* what is not seen to differ counts as the same */
    skf_free(x);
    skf_free(y);
    return is;
}

static bool is_apart_by_value(const skf_json *a, const skf_json *b)
{
    if (!constants(a, 0) || !constants(b, 0))
        return false;
    if (skf_json_len(skf_json_get(a, "enum")) > 256 || skf_json_len(skf_json_get(b, "enum")) > 256)
        return false;
    for (size_t i = 0; constants(a, i); i++)
        for (size_t k = 0; constants(b, k); k++)
            if (is_same(constants(a, i), constants(b, k)))
                return false;
    return true;
}

static bool is_required(const skf_json *j, const char *name)
{
    const skf_json *list = skf_json_get(j, "required");
    for (size_t i = 0; i < skf_json_len(list); i++) {
        const char *text = skf_json_cstr(skf_json_at(list, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

/* Types of all values that it accepts, as bits; all bits when it is not told. */
static unsigned known_types(struct skf_schema *s, const skf_json *j)
{
    unsigned bits = 0;
    if (constants(j, 0)) {
        for (size_t i = 0; constants(j, i); i++)
            bits |= type_of_value(constants(j, i));
        return bits;
    }
    bits = types_of(s, j);
    return bits & (T_INTEGER | T_NUMBER) ? bits | T_INTEGER | T_NUMBER : bits ? bits : 127;
}

/* Is there no value that both accept, seen by types, constants, or a member that both require and that has other constants? */
static bool is_apart(struct skf_schema *s, const skf_json *a, const skf_json *b)
{
    a = behind(s, a);
    b = behind(s, b);
    if (!is_json_obj(a) || !is_json_obj(b))
        return false;
    unsigned x = known_types(s, a), y = known_types(s, b);
    if (!(x & y) || is_apart_by_value(a, b))
        return true;
    const skf_json *members = skf_json_get(a, "properties");
    if (x != T_OBJECT || y != T_OBJECT)
        return false;
    for (void *it = skf_json_iter(members); it; it = skf_json_next(members, it)) {
        const char *name = skf_json_iter_key(it);
        const skf_json *other = skf_json_get(skf_json_get(b, "properties"), name);
        if (other && is_required(a, name) && is_required(b, name) && is_apart_by_value(behind(s, skf_json_iter_value(it)), behind(s, other)))
            return true;
    }
    return false;
}

static uint32_t any_of(struct skf_schema *s, const skf_json *list, const char *name)
{
    uint32_t alt = skf_gb_alt(s->b);
    size_t n = skf_json_len(list);
    if (!is_json_arr(list) || n == 0 || n > 1024)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %s must be an array of 1 to 1024 schemas", name);
    if (strcmp(name, "allOf") == 0 && n != 1)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: allOf of several schemas is not supported; write them as one");
    if (strcmp(name, "oneOf") == 0 && n > 64)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: oneOf of more than 64 schemas is not supported");
    for (size_t i = 0; i < n && is_kept(s); i++) {
        for (size_t k = 0; k < i && strcmp(name, "oneOf") == 0; k++)
            if (!is_apart(s, skf_json_at(list, i), skf_json_at(list, k)))
                skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: oneOf[%zu] and [%zu] may accept the same value; use anyOf", k, i);
        skf_gb_add(s->b, alt, skf_schema_sub(s, skf_json_at(list, i)));
    }
    return alt;
}

/* The values of const or enum, of those the ones of the types that are named. */
static uint32_t constants_of(struct skf_schema *s, const skf_json *j)
{
    uint32_t alt = skf_gb_alt(s->b);
    unsigned bits = types_of(s, j);
    size_t n = 0;
    const skf_json *list = skf_json_get(j, "enum");
    if (list && (!is_json_arr(list) || !skf_json_len(list)))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: enum must be an array of at least one value");
    for (size_t i = 0; is_kept(s) && constants(j, i); i++) {
        if (bits && !(bits & type_of_value(constants(j, i))))
            continue;
        skf_gb_add(s->b, alt, skf_schema_literal(s, constants(j, i)));
        n++;
    }
    if (n == 0)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: no value of enum or const has the type");
    return alt;
}

static uint32_t typed(struct skf_schema *s, const skf_json *j, unsigned bits)
{
    uint32_t alt = skf_gb_alt(s->b);
    if (bits & T_OBJECT)
        skf_gb_add(s->b, alt, skf_schema_object(s, j));
    if (bits & T_ARRAY)
        skf_gb_add(s->b, alt, skf_schema_array(s, j));
    if (bits & T_STRING)
        skf_gb_add(s->b, alt, skf_schema_string(s, j));
    if (bits & (T_NUMBER | T_INTEGER))
        skf_gb_add(s->b, alt, skf_schema_number(s, j, !(bits & T_NUMBER)));
    if (bits & T_BOOLEAN) {
        skf_gb_str(s->b, alt, "true");
        skf_gb_str(s->b, alt, "false");
    }
    if (bits & T_NULL)
        skf_gb_str(s->b, alt, "null");
    return alt;
}

static uint32_t body(struct skf_schema *s, const skf_json *j)
{
    const char *leader = NULL;
    if (is_json_bool(j))
        return skf_json_is_true(j, false) ? skf_schema_shared(s, SKF_SH_VALUE) : skf_gb_alt(s->b);
    if (!is_json_obj(j)) {
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: a schema must be an object or a boolean");
        return 0;
    }
    for (size_t i = 0; i < SKF_COUNT(whole) - 1 && !leader; i++)
        leader = skf_json_get(j, whole[i]) ? whole[i] : NULL;
    unsigned spoken = check_keywords(s, j, leader), bits = types_of(s, j);
    if (!is_kept(s))
        return 0;
    if (!leader)
        return bits || spoken ? typed(s, j, bits ? bits : spoken) : skf_schema_shared(s, SKF_SH_VALUE);
    const skf_json *v = skf_json_get(j, leader);
    if (strcmp(leader, "$ref") == 0) {
        const skf_json *to = follow(s, v);
        return to ? skf_schema_sub(s, to) : 0;
    }
    if (strcmp(leader, "const") == 0 || strcmp(leader, "enum") == 0)
        return constants_of(s, j);
    return any_of(s, v, leader);
}

uint32_t skf_schema_add(struct skf_schema *s, const skf_json *doc)
{
    s->doc = doc;
    uint32_t x = skf_schema_sub(s, doc);
    for (; s->n_done < s->n_seen && is_kept(s); s->n_done++) {
        struct seen_schema at = s->seen[s->n_done]; /* more may be found on the way */
        skf_gb_body(s->b, at.rule, body(s, at.j));
    }
    return x;
}

static enum skf_err compile(const skf_json *doc, struct skf_grammar **out, struct skf_why *why)
{
    struct skf_gb b = {.why = why};
    struct skf_schema s;
    uint32_t root = skf_gb_rule(&b);
    enum skf_err e = skf_schema_begin(&s, &b);
    if (e == SKF_OK) {
        uint32_t x = doc ? skf_schema_add(&s, doc) : skf_schema_shared(&s, SKF_SH_OBJECT);
        skf_gb_body(&b, root, x);
        e = b.err != SKF_OK ? b.err : skf_grammar_compile(&b, out, why);
    }
    skf_schema_end(&s);
    skf_gb_free(&b);
    return e;
}

enum skf_err skf_grammar_schema(const char *text, size_t n, struct skf_grammar **g, struct skf_why *why)
{
    skf_json *doc = NULL;
    SKF_TRY(skf_json_parse(text, n, SKF_SCHEMA_DEPTH_MAX, &doc, why));
    enum skf_err e = compile(doc, g, why);
    skf_json_free(doc);
    return e;
}

enum skf_err skf_grammar_object(struct skf_grammar **g, struct skf_why *why) { return compile(NULL, g, why); }
