/*
 * TOML (version 1.0, toml.io) for configuration files: tables, arrays of tables, dotted and quoted keys, strings of all four forms, whole
 * numbers, floats, booleans, arrays and inline tables.  Dates, and arrays within arrays, are refused by name; nothing of ours has any.
 * Debian 12 has no TOML library in C.
 *
 * A document is given as a flat list of its values, each with where it stands and what it is called, which is what errors want to say.
 */
#ifndef SKF_BASE_TOML_H
#define SKF_BASE_TOML_H

#include "base/err.h"

#define SKF_TOML_MAX  (256u << 10) /* bytes of a document */
#define SKF_TOML_KEYS 6            /* parts of a key, tables' included */

enum skf_toml_type { SKF_TOML_TABLE, SKF_TOML_ARRAY, SKF_TOML_STRING, SKF_TOML_INT, SKF_TOML_FLOAT, SKF_TOML_BOOL };
struct skf_toml_value {
    unsigned line;
    const char *key[SKF_TOML_KEYS]; /* of an array of tables the name, then its number from "0" on */
    unsigned n_keys;
    int element;             /* of an array: from 0 on; -1 for what is not in one */
    enum skf_toml_type type; /* TABLE: a header; ARRAY: one begins here, its elements follow */
    const char *text;        /* STRING */
    int64_t number;          /* INT; BOOL: 0 or 1 */
    double real;             /* FLOAT, INT */
};
struct skf_toml {
    struct skf_toml_value *v;
    size_t n;
    void *memory; /* of the texts */
};
/* `name` is the file's, for errors: "NAME:LINE: ...". SKF_ERR_FORMAT, SKF_ERR_LIMIT, SKF_ERR_UNSUPPORTED. */
SKF_MUST enum skf_err skf_toml_parse(const char *name, const char *text, size_t n, struct skf_toml *out, struct skf_why *why);
void skf_toml_free(struct skf_toml *t); /* a zeroed one is fine */

#endif
