/*
 * JSON schemas (draft 2020-12, its common part) as grammars: every text that the grammar allows is JSON that the schema accepts; not
 * every such JSON is allowed.  Members come in the schema's order, white space is what one space or one line break with an indent is.
 * What a schema says and this does not know is refused by name.
 */
#ifndef SKF_RUNTIME_SCHEMA_PRIV_H
#define SKF_RUNTIME_SCHEMA_PRIV_H

#include "base/json.h"
#include "runtime/grammar_priv.h"

#define SKF_SCHEMA_DEPTH_MAX 128 /* of its JSON */

/* Rules that schemas share; made when they are first called. */
enum skf_shared {
    SKF_SH_VALUE, SKF_SH_OBJECT, SKF_SH_ARRAY, SKF_SH_STRING, SKF_SH_CHAR, SKF_SH_PLAIN, SKF_SH_NUMBER, SKF_SH_INTEGER, SKF_SH_SPACE, SKF_SH_COUNT
};
struct skf_schema {
    struct skf_gb *b;
    const skf_json *doc; /* what "#" of a reference is */
    struct seen_schema {
        const skf_json *j;
        uint32_t rule;
    } *seen; /* schemas that have a rule, in the order of their finding; ours */
    uint32_t n_seen, room, *index; /* index: a hash table of them */
    uint32_t n_done;
    uint32_t shared[SKF_SH_COUNT]; /* 1 + rule; 0: not there yet */
};
/* b has its root rule already. SKF_ERR_NOMEM. */
SKF_MUST enum skf_err skf_schema_begin(struct skf_schema *s, struct skf_gb *b);
void skf_schema_end(struct skf_schema *s);
/* An expression of the values that the schema `doc` accepts, which must stay until the end. Failures are the builder's. */
uint32_t skf_schema_add(struct skf_schema *s, const skf_json *doc);

/* ---- its parts (schema.c, schema_object.c, schema_string.c, schema_number.c) ------------------------------------------------------------- */
uint32_t skf_schema_shared(struct skf_schema *s, enum skf_shared which);
uint32_t skf_schema_sub(struct skf_schema *s, const skf_json *j); /* a call of the schema's rule */
uint32_t skf_schema_literal(struct skf_schema *s, const skf_json *value);
uint32_t skf_schema_object(struct skf_schema *s, const skf_json *j);
uint32_t skf_schema_array(struct skf_schema *s, const skf_json *j);
uint32_t skf_schema_string(struct skf_schema *s, const skf_json *j);
uint32_t skf_schema_number(struct skf_schema *s, const skf_json *j, bool is_whole);
/* What a regular expression (the part of ECMA's that Python's shares; no look-around, no references back) finds in a JSON string, quotes and all. */
uint32_t skf_schema_pattern(struct skf_schema *s, const char *pattern);
/* A member that counts something: false when it is there and does not. *out is left when it is absent. */
bool is_schema_count(struct skf_schema *s, const skf_json *j, const char *name, uint32_t *out);
static inline bool is_kept(const struct skf_schema *s) { return s->b->err == SKF_OK; }

/* grammars of whole answers */
SKF_MUST enum skf_err skf_grammar_schema(const char *text, size_t n, struct skf_grammar **g, struct skf_why *why);
SKF_MUST enum skf_err skf_grammar_object(struct skf_grammar **g, struct skf_why *why); /* any JSON object */

#endif
