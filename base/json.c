/* JSON by jansson (json.h): every call here is one of jansson's behind a bound. */
#include "base/json.h"

#include <string.h>

#include <jansson.h>

#include "base/alloc.h"

/* Depth is checked before jansson sees the text: its own limit is fixed at build time. Brackets inside strings do not count. */
static bool is_too_deep(const char *p, size_t n, size_t max_depth)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return true;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return false;
}

enum skf_err skf_json_parse(const void *p, size_t n, size_t max_depth, skf_json **out, struct skf_why *why)
{
    if (is_too_deep(p, n, max_depth))
        return skf_fail(why, SKF_ERR_LIMIT, "JSON nested deeper than %zu", max_depth);
    json_error_t say;
    json_t *j = json_loadb(p ? p : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &say);
    if (!j && json_error_code(&say) == json_error_out_of_memory)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for JSON of %zu bytes", n);
    if (!j)
        return skf_fail(why, SKF_ERR_FORMAT, "not JSON: %s (line %d)", say.text, say.line);
    *out = j;
    return SKF_OK;
}

void skf_json_free(skf_json *j) { json_decref(j); }
skf_json *skf_json_ref(skf_json *j) { return json_incref(j); }

enum skf_err skf_json_text(const skf_json *j, int indent, char **text, size_t *len)
{
    size_t flags = JSON_ENCODE_ANY | (indent > 0 ? JSON_INDENT((size_t)indent) : JSON_COMPACT);
    char *s = j ? json_dumps(j, flags) : NULL;
    if (!s)
        return SKF_ERR_NOMEM;
    size_t n = strlen(s);
    *text = skf_memdup(s, n + 1); /* so that the caller's skf_free is right whatever jansson's allocator is */
    free(s);
    if (!*text)
        return SKF_ERR_NOMEM;
    *len = n;
    return SKF_OK;
}

skf_json *skf_json_obj(void) { return json_object(); }
skf_json *skf_json_arr(void) { return json_array(); }
skf_json *skf_json_str(const char *s) { return s ? json_string(s) : NULL; }
skf_json *skf_json_strn(const char *s, size_t n) { return json_stringn(s, n); }
skf_json *skf_json_int(int64_t v) { return json_integer(v); }
skf_json *skf_json_real(double v) { return json_real(v); }
skf_json *skf_json_bool(bool v) { return json_boolean(v); }
skf_json *skf_json_null(void) { return json_null(); }

enum skf_err skf_json_set(skf_json *obj, const char *key, skf_json *take_v)
{
    return json_object_set_new(obj, key, take_v) == 0 ? SKF_OK : SKF_ERR_NOMEM;
}

enum skf_err skf_json_push(skf_json *arr, skf_json *take_v)
{
    return json_array_append_new(arr, take_v) == 0 ? SKF_OK : SKF_ERR_NOMEM;
}

enum skf_err skf_json_del(skf_json *obj, const char *key)
{
    return json_object_del(obj, key) == 0 ? SKF_OK : SKF_ERR_NOT_FOUND;
}

bool is_json_obj(const skf_json *j) { return json_is_object(j); }
bool is_json_arr(const skf_json *j) { return json_is_array(j); }
bool is_json_str(const skf_json *j) { return json_is_string(j); }
bool is_json_int(const skf_json *j) { return json_is_integer(j); }
bool is_json_num(const skf_json *j) { return json_is_number(j); }
bool is_json_bool(const skf_json *j) { return json_is_boolean(j); }
bool is_json_null(const skf_json *j) { return json_is_null(j); }

skf_json *skf_json_get(const skf_json *obj, const char *key) { return json_object_get(obj, key); }
skf_json *skf_json_at(const skf_json *arr, size_t i) { return json_array_get(arr, i); }

size_t skf_json_len(const skf_json *j)
{
    return json_is_object(j) ? json_object_size(j) : json_is_array(j) ? json_array_size(j) : 0;
}

const char *skf_json_cstr(const skf_json *j) { return json_string_value(j); }
size_t skf_json_strlen(const skf_json *j) { return json_string_length(j); }
int64_t skf_json_i64(const skf_json *j, int64_t otherwise)
{
    return json_is_integer(j) ? json_integer_value(j) : otherwise;
}
double skf_json_f64(const skf_json *j, double otherwise) { return json_is_number(j) ? json_number_value(j) : otherwise; }
bool skf_json_is_true(const skf_json *j, bool otherwise) { return json_is_boolean(j) ? json_is_true(j) : otherwise; }

void *skf_json_iter(const skf_json *obj) { return json_object_iter((json_t *)(uintptr_t)obj); }
void *skf_json_next(const skf_json *obj, void *it) { return json_object_iter_next((json_t *)(uintptr_t)obj, it); }
const char *skf_json_iter_key(void *it) { return json_object_iter_key(it); }
skf_json *skf_json_iter_value(void *it) { return json_object_iter_value(it); }
