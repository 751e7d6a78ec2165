/* Schemas: objects and arrays (schema_priv.h). */
#include "runtime/schema_priv.h"

#include "base/alloc.h"
#include "base/util.h"
#include "runtime/grammar_chars.h"

enum { MEMBERS_MAX = 4096, OPTIONAL_MAX = 256, KEY_MAX = 200, PREFIX_MAX = 128 };

struct member {
    const char *key;
    const skf_json *schema; /* NULL: any value */
    bool is_required;
};
struct object {
    struct member *m;
    size_t n;
    const skf_json *more; /* additionalProperties */
    bool is_open;         /* there may be more members than those listed */
};

static void put_space(struct skf_schema *s, uint32_t seq) { skf_gb_add(s->b, seq, skf_schema_shared(s, SKF_SH_SPACE)); }

static uint32_t any_or(struct skf_schema *s, const skf_json *j) { return j ? skf_schema_sub(s, j) : skf_schema_shared(s, SKF_SH_VALUE); }

/* ---- members ------------------------------------------------------------------------------------------------------------------------ */
static void colon(struct skf_schema *s, uint32_t seq, const skf_json *schema)
{
    skf_gb_str(s->b, seq, ":");
    skf_gb_add(s->b, seq, skf_gb_rep(s->b, skf_gb_bytes(s->b, ' ', ' '), 0, 1));
    skf_gb_add(s->b, seq, any_or(s, schema));
}

static uint32_t member(struct skf_schema *s, const struct member *m)
{
    uint32_t seq = skf_gb_seq(s->b);
    skf_json *key = skf_json_str(m->key);
    if (!key)
        skf_gb_fail(s->b, SKF_ERR_NOMEM, "out of memory");
    skf_gb_add(s->b, seq, skf_schema_literal(s, key));
    skf_json_free(key);
    colon(s, seq, m->schema);
    return seq;
}

/* The rest of a key that must be none of m[from, to), which begin alike for `at` bytes and are sorted; with the quote that ends it. */
static uint32_t other_key(struct skf_schema *s, const struct member *m, size_t from, size_t to, size_t at)
{
    struct skf_chars rest = {.n = 3, .range = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}};
    uint32_t alt = skf_gb_alt(s->b), free = skf_gb_seq(s->b), first = skf_gb_alt(s->b);
    bool is_one = false;
    for (size_t i = from; i < to && is_kept(s);) {
        size_t n = strlen(m[i].key), end = at, k = i + 1;
        uint32_t c = 0;
        if (at == n || !is_char_taken(m[i].key, n, &end, &c)) {
            is_one |= at == n;
            i++;
            continue;
        }
        while (k < to && strlen(m[k].key) >= end && memcmp(m[k].key + at, m[i].key + at, end - at) == 0)
            k++;
        if (!is_in_chars(&rest, c)) {
            uint32_t seq = skf_gb_text(s->b, m[i].key + at, end - at);
            skf_gb_add(s->b, seq, other_key(s, m, i, k, end));
            skf_gb_add(s->b, alt, seq);
        }
        skf_chars_add(&rest, c, c);
        i = k;
    }
    if (rest.is_over)
        skf_gb_fail(s->b, SKF_ERR_LIMIT, "the schema: too many properties beside additionalProperties");
    skf_chars_negate(&rest);
    for (uint32_t i = 0; i < rest.n; i++)
        skf_gb_chars(s->b, first, rest.range[i].lo, rest.range[i].hi);
    skf_gb_add(s->b, free, first);
    skf_gb_add(s->b, free, skf_gb_rep(s->b, skf_schema_shared(s, SKF_SH_PLAIN), 0, SKF_GRAMMAR_NO_MAX));
    skf_gb_str(s->b, free, "\"");
    skf_gb_add(s->b, alt, free);
    if (!is_one)
        skf_gb_str(s->b, alt, "\"");
    return alt;
}

static int by_key(const void *a, const void *b) { return strcmp(((const struct member *)a)->key, ((const struct member *)b)->key); }

/* A member that the schema does not list. */
static uint32_t other_member(struct skf_schema *s, const struct object *o)
{
    uint32_t seq = skf_gb_text(s->b, "\"", 1), rule = skf_gb_rule(s->b);
    struct member *sorted = skf_calloc(o->n + 1, sizeof *sorted);
    if (!sorted) {
        skf_gb_fail(s->b, SKF_ERR_NOMEM, "out of memory");
        return 0;
    }
    for (size_t i = 0; i < o->n; i++) {
        sorted[i] = o->m[i];
        if (strlen(o->m[i].key) > KEY_MAX)
            skf_gb_fail(s->b, SKF_ERR_LIMIT, "the schema: a property's name of more than %d bytes beside additionalProperties", KEY_MAX);
    }
    qsort(sorted, o->n, sizeof *sorted, by_key);
    skf_gb_add(s->b, seq, other_key(s, sorted, 0, o->n, 0));
    skf_free(sorted);
    colon(s, seq, is_json_obj(o->more) ? o->more : NULL);
    skf_gb_body(s->b, rule, seq);
    return skf_gb_call(s->b, rule);
}

static uint32_t comma(struct skf_schema *s)
{
    uint32_t seq = skf_gb_text(s->b, ",", 1);
    put_space(s, seq);
    return seq;
}

/*
 * The members in their order, each a rule of its own: next[i] is what may come where member i is the next one that can, rest[i] what may
 * come behind a member when i is the next. Gives next[0].
 */
static uint32_t members(struct skf_schema *s, const struct object *o, bool *may_be_none)
{
    uint32_t next = skf_gb_rule(s->b), first = next; /* of i */
    bool is_needed = false;
    size_t last_required = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->m[i].is_required) {
            last_required = i + 1;
            is_needed = true;
        }
    *may_be_none = !is_needed;
    for (size_t i = 0; i < o->n && is_kept(s); i++) {
        uint32_t alt = skf_gb_alt(s->b), seq = member(s, &o->m[i]), behind = skf_gb_rule(s->b), more = comma(s);
        skf_gb_add(s->b, more, skf_gb_call(s->b, behind));
        skf_gb_add(s->b, seq, skf_gb_rep(s->b, more, i + 1 < last_required, 1));
        skf_gb_add(s->b, alt, seq);
        if (!o->m[i].is_required)
            skf_gb_add(s->b, alt, skf_gb_call(s->b, behind));
        skf_gb_body(s->b, next, alt);
        next = behind;
    }
    if (o->is_open) {
        uint32_t seq = skf_gb_seq(s->b), again = comma(s), other = other_member(s, o);
        skf_gb_add(s->b, seq, other);
        skf_gb_add(s->b, again, is_kept(s) ? skf_gb_call(s->b, s->b->x[other].min) : 0);
        skf_gb_add(s->b, seq, skf_gb_rep(s->b, again, 0, SKF_GRAMMAR_NO_MAX));
        skf_gb_body(s->b, next, seq);
    } else {
        skf_gb_body(s->b, next, skf_gb_alt(s->b));
    }
    return skf_gb_call(s->b, first);
}

static void add_listed(struct skf_schema *s, struct object *o, const skf_json *list, const skf_json *required, size_t *optional)
{
    for (void *it = skf_json_iter(list); it; it = skf_json_next(list, it))
        o->m[o->n++] = (struct member){skf_json_iter_key(it), skf_json_iter_value(it), false};
    *optional = o->n;
    for (size_t i = 0; i < skf_json_len(required) && is_kept(s); i++) {
        const char *name = skf_json_cstr(skf_json_at(required, i));
        size_t k = 0;
        while (name && k < o->n && strcmp(o->m[k].key, name) != 0)
            k++;
        if (!name) {
            skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: required must be an array of strings");
        } else if (k < o->n) {
            *optional -= !o->m[k].is_required;
            o->m[k].is_required = true;
        } else if (o->more && is_json_bool(o->more) && !skf_json_is_true(o->more, true)) {
            skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: %.60s is required, not among the properties, and no others are allowed", name);
        } else {
            o->m[o->n++] = (struct member){name, is_json_obj(o->more) ? o->more : NULL, true};
        }
    }
}

static void read_members(struct skf_schema *s, const skf_json *j, struct object *o)
{
    const skf_json *list = skf_json_get(j, "properties"), *required = skf_json_get(j, "required");
    size_t optional = 0, n = skf_json_len(list) + skf_json_len(required);
    o->more = skf_json_get(j, "additionalProperties");
    o->is_open = is_json_obj(o->more) || skf_json_is_true(o->more, o->more == NULL && list == NULL);
    if ((list && !is_json_obj(list)) || (required && !is_json_arr(required)) || (o->more && !is_json_obj(o->more) && !is_json_bool(o->more)))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: properties must be an object, required an array, additionalProperties a schema");
    else if (n > MEMBERS_MAX)
        skf_gb_fail(s->b, SKF_ERR_LIMIT, "the schema: more than %d properties of one object", MEMBERS_MAX);
    o->m = skf_calloc(n + 1, sizeof *o->m);
    if (!o->m)
        skf_gb_fail(s->b, SKF_ERR_NOMEM, "out of memory");
    if (is_kept(s))
        add_listed(s, o, list, required, &optional);
    if (is_kept(s) && optional > OPTIONAL_MAX)
        skf_gb_fail(s->b, SKF_ERR_LIMIT, "the schema: more than %d optional properties of one object", OPTIONAL_MAX);
}

/* How many members there may be is not counted; what holds anyway passes. */
static void check_counts(struct skf_schema *s, const skf_json *j, const struct object *o)
{
    uint32_t min = 0, max = 1000000, required = 0;
    if (!is_schema_count(s, j, "minProperties", &min) || !is_schema_count(s, j, "maxProperties", &max))
        return;
    for (size_t i = 0; i < o->n; i++)
        required += o->m[i].is_required;
    if (min > required)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: minProperties of more than what is required is not supported");
    if (max < 1000000 && (o->is_open || max < o->n))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: maxProperties of less than what could be there is not supported");
}

uint32_t skf_schema_object(struct skf_schema *s, const skf_json *j)
{
    struct object o = {0};
    uint32_t alt = skf_gb_alt(s->b), seq = skf_gb_text(s->b, "{", 1);
    bool may_be_none = true;
    read_members(s, j, &o);
    if (is_kept(s))
        check_counts(s, j, &o);
    if (is_kept(s)) {
        put_space(s, seq);
        skf_gb_add(s->b, seq, members(s, &o, &may_be_none));
        put_space(s, seq);
        skf_gb_str(s->b, seq, "}");
        skf_gb_add(s->b, alt, seq);
        if (may_be_none)
            skf_gb_str(s->b, alt, "{}");
    }
    skf_free(o.m);
    return alt;
}

/* ---- arrays ----------------------------------------------------------------------------------------------------------------------------- */
struct array {
    const skf_json *prefix, *items;
    uint32_t n, min, max; /* n: of the prefix */
};

static uint32_t item(struct skf_schema *s, const struct array *a, uint32_t i)
{
    return any_or(s, i < a->n ? skf_json_at(a->prefix, i) : is_json_obj(a->items) ? a->items : NULL);
}

/* What comes behind item i - 1 (or in front of all, without a comma). */
static uint32_t items_from(struct skf_schema *s, const struct array *a, uint32_t i)
{
    if (i >= a->max || !is_kept(s))
        return skf_gb_seq(s->b);
    uint32_t seq = i ? comma(s) : skf_gb_seq(s->b);
    skf_gb_add(s->b, seq, item(s, a, i));
    if (i > 0 && i >= a->n) {
        uint32_t max = a->max == SKF_GRAMMAR_NO_MAX ? a->max : a->max - i;
        return skf_gb_rep(s->b, seq, a->min > i ? a->min - i : 0, max);
    }
    skf_gb_add(s->b, seq, items_from(s, a, i + 1));
    return skf_gb_rep(s->b, seq, i < a->min, 1);
}

uint32_t skf_schema_array(struct skf_schema *s, const skf_json *j)
{
    struct array a = {skf_json_get(j, "prefixItems"), skf_json_get(j, "items"), 0, 0, SKF_GRAMMAR_NO_MAX};
    uint32_t seq = skf_gb_text(s->b, "[", 1), alt = skf_gb_alt(s->b);
    a.n = (uint32_t)SKF_MIN(skf_json_len(a.prefix), (size_t)PREFIX_MAX + 1);
    if ((a.prefix && !is_json_arr(a.prefix)) || a.n > PREFIX_MAX)
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: prefixItems must be an array of at most %d schemas", PREFIX_MAX);
    if (a.items && !is_json_obj(a.items) && !is_json_bool(a.items))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: items must be one schema; a list of them is prefixItems");
    if (skf_json_is_true(skf_json_get(j, "uniqueItems"), false))
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: uniqueItems is not supported");
    if (!is_schema_count(s, j, "minItems", &a.min) || !is_schema_count(s, j, "maxItems", &a.max) || !is_kept(s))
        return 0;
    bool is_closed = a.items ? is_json_bool(a.items) && !skf_json_is_true(a.items, true) : a.n > 0 && a.min <= a.n;
    if (is_closed)
        a.max = SKF_MIN(a.max, a.n);
    if (a.min > a.max) {
        skf_gb_fail(s->b, SKF_ERR_ARG, "the schema: an array of at least %u and at most %u items", a.min, a.max);
        return 0;
    }
    if (a.max > 0) {
        uint32_t first = items_from(s, &a, 0);
        put_space(s, seq);
        skf_gb_add(s->b, seq, first);
        put_space(s, seq);
        skf_gb_str(s->b, seq, "]");
        skf_gb_add(s->b, alt, seq);
    }
    if (a.min == 0)
        skf_gb_str(s->b, alt, "[]");
    return alt;
}
