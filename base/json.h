/*
 * JSON by jansson, kept in this folder: the rest of the project sees `skf_json` and these calls only.
 *
 * A document from outside is parsed with a cap on its size and depth, duplicate keys refused, and must be one whole value.
 * Values are reference counted by jansson: skf_json_free drops one reference; a getter returns a borrowed value that lives
 * as long as its parent; a setter with take_ in its argument's name takes the reference even when it fails.
 */
#ifndef SKF_BASE_JSON_H
#define SKF_BASE_JSON_H

#include "base/err.h"

struct json_t;
typedef struct json_t skf_json;

SKF_MUST enum skf_err skf_json_parse(const void *p, size_t n, size_t max_depth, skf_json **out, struct skf_why *why);
void skf_json_free(skf_json *j); /* NULL is fine */
skf_json *skf_json_ref(skf_json *j);
/* Compact (indent 0) or indented text, keys in insertion order; *text ends in NUL and is freed with skf_free. */
SKF_MUST enum skf_err skf_json_text(const skf_json *j, int indent, char **text, size_t *len);

/* Building. NULL when there is no memory; setters accept NULL values and report SKF_ERR_NOMEM then. */
skf_json *skf_json_obj(void);
skf_json *skf_json_arr(void);
skf_json *skf_json_str(const char *s);                  /* NULL when s is not UTF-8 */
skf_json *skf_json_strn(const char *s, size_t n);
skf_json *skf_json_int(int64_t v);
skf_json *skf_json_real(double v);
skf_json *skf_json_bool(bool v);
skf_json *skf_json_null(void);
SKF_MUST enum skf_err skf_json_set(skf_json *obj, const char *key, skf_json *take_v);
SKF_MUST enum skf_err skf_json_push(skf_json *arr, skf_json *take_v);
SKF_MUST enum skf_err skf_json_del(skf_json *obj, const char *key); /* SKF_ERR_NOT_FOUND when it is not there */

/* Looking. All take NULL as a value of no type, so that chains need no checks in between. */
bool is_json_obj(const skf_json *j);
bool is_json_arr(const skf_json *j);
bool is_json_str(const skf_json *j);
bool is_json_int(const skf_json *j);
bool is_json_num(const skf_json *j); /* integer or real */
bool is_json_bool(const skf_json *j);
bool is_json_null(const skf_json *j);
skf_json *skf_json_get(const skf_json *obj, const char *key); /* borrowed; NULL when absent or obj is no object */
skf_json *skf_json_at(const skf_json *arr, size_t i);         /* borrowed */
size_t skf_json_len(const skf_json *j);                       /* members of an array or object, otherwise 0 */
const char *skf_json_cstr(const skf_json *j);                 /* NULL when not a string; may hold no NUL inside */
size_t skf_json_strlen(const skf_json *j);
int64_t skf_json_i64(const skf_json *j, int64_t otherwise);
double skf_json_f64(const skf_json *j, double otherwise);
bool skf_json_is_true(const skf_json *j, bool otherwise);

/* Iterating an object: void *it = skf_json_iter(o); it; it = skf_json_next(o, it). */
void *skf_json_iter(const skf_json *obj);
void *skf_json_next(const skf_json *obj, void *it);
const char *skf_json_iter_key(void *it);
skf_json *skf_json_iter_value(void *it);

#endif
