/*
 * Canonical JSON (OLPC's, section 4.2 of the TUF specification, byte for byte as securesystemslib's encode_canonical):
 * no white space, keys in order of their code points, only '"' and '\' escaped, integers only.  What is signed is these
 * bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "trust/tuf_priv.h"

#define DEPTH_MAX 64

static enum skf_err put_string(const char *s, struct skf_buf *out)
{
    SKF_TRY(skf_buf_u8(out, '"'));
    while (*s) {
        size_t n = strcspn(s, "\"\\");
        SKF_TRY(skf_buf_put(out, s, n));
        s += n;
        if (*s) {
            SKF_TRY(skf_buf_u8(out, '\\'));
            SKF_TRY(skf_buf_u8(out, (uint8_t)*s++));
        }
    }
    return skf_buf_u8(out, '"');
}

struct member {
    const char *key;
    const skf_json *value;
};

/* Bytes of UTF-8 compare as the code points they stand for. */
static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->key, ((const struct member *)b)->key);
}

static enum skf_err put_value(const skf_json *v, int depth, struct skf_buf *out);

static enum skf_err put_members(const struct member *m, size_t n, int depth, struct skf_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        if (i)
            SKF_TRY(skf_buf_u8(out, ','));
        SKF_TRY(put_string(m[i].key, out));
        SKF_TRY(skf_buf_u8(out, ':'));
        SKF_TRY(put_value(m[i].value, depth, out));
    }
    return SKF_OK;
}

static enum skf_err put_object(const skf_json *v, int depth, struct skf_buf *out)
{
    size_t n = 0, count = skf_json_len(v);
    struct member *m = skf_calloc(count ? count : 1, sizeof *m);
    if (!m)
        return SKF_ERR_NOMEM;
    for (void *it = skf_json_iter(v); it && n < count; it = skf_json_next(v, it))
        m[n++] = (struct member){skf_json_iter_key(it), skf_json_iter_value(it)};
    qsort(m, n, sizeof *m, by_key);
    enum skf_err e = skf_buf_u8(out, '{');
    if (e == SKF_OK)
        e = put_members(m, n, depth, out);
    skf_free(m);
    return e != SKF_OK ? e : skf_buf_u8(out, '}');
}

static enum skf_err put_array(const skf_json *v, int depth, struct skf_buf *out)
{
    SKF_TRY(skf_buf_u8(out, '['));
    for (size_t i = 0; i < skf_json_len(v); i++) {
        if (i)
            SKF_TRY(skf_buf_u8(out, ','));
        SKF_TRY(put_value(skf_json_at(v, i), depth, out));
    }
    return skf_buf_u8(out, ']');
}

static enum skf_err put_value(const skf_json *v, int depth, struct skf_buf *out)
{
    if (depth > DEPTH_MAX)
        return SKF_ERR_LIMIT;
    if (is_json_obj(v))
        return put_object(v, depth + 1, out);
    if (is_json_arr(v))
        return put_array(v, depth + 1, out);
    if (is_json_str(v))
        return put_string(skf_json_cstr(v), out);
    if (is_json_int(v))
        return skf_buf_printf(out, "%lld", (long long)skf_json_i64(v, 0));
    if (is_json_bool(v))
        return skf_buf_str(out, skf_json_is_true(v, false) ? "true" : "false");
    if (is_json_null(v))
        return skf_buf_str(out, "null");
    return SKF_ERR_FORMAT; /* a real number has no canonical form */
}

enum skf_err skf_tuf_canonical(const skf_json *v, struct skf_buf *out)
{
    size_t before = out->len;
    enum skf_err e = put_value(v, 0, out);
    if (e != SKF_OK)
        out->len = before;
    return e;
}
