/*
 * The safetensors reader (https://huggingface.co/docs/safetensors): u64 length, that many bytes of JSON, tensor data.
 *
 *   {"__metadata__": {"k": "v"}, "name": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *
 * As the format demands, the tensors cover the data from its first byte to its last without hole or overlap, and no name
 * stands twice (base/json.h refuses that).
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "model/model_priv.h"

enum { HEAD = 8, JSON_DEPTH = 8 };

static const struct {
    const char *name;
    enum skf_type type;
} dtypes[] = {
    {"F32", SKF_T_F32},         {"F16", SKF_T_F16},         {"BF16", SKF_T_BF16},       {"F64", SKF_T_F64},
    {"I8", SKF_T_I8},           {"I16", SKF_T_I16},         {"I32", SKF_T_I32},         {"I64", SKF_T_I64},
    {"U8", SKF_T_U8},           {"U16", SKF_T_U16},         {"U32", SKF_T_U32},         {"U64", SKF_T_U64},
    {"BOOL", SKF_T_BOOL},       {"F8_E4M3", SKF_T_F8_E4M3}, {"F8_E5M2", SKF_T_F8_E5M2}, {"F8_E8M0", SKF_T_F8_E8M0},
    {"F4", SKF_T_F4},           {"F6_E2M3", SKF_T_F6_E2M3}, {"F6_E3M2", SKF_T_F6_E3M2}, {"C64", SKF_T_C64},
};

bool is_safetensors(const struct skf_source *src)
{
    uint8_t head[HEAD + 1];
    if (src->size < HEAD + 2 || skf_source_read(src, 0, head, sizeof head) != SKF_OK)
        return false;
    uint64_t n = skf_le64(head);
    return n >= 2 && n <= SKF_JSON_MAX && head[HEAD] == '{';
}

static enum skf_err get_shape(const skf_json *shape, struct skf_tensor *t, struct skf_why *why)
{
    size_t n = skf_json_len(shape);
    if (!is_json_arr(shape))
        return skf_fail(why, SKF_ERR_FORMAT, "no shape");
    if (n > SKF_MAX_DIMS)
        return skf_fail(why, SKF_ERR_LIMIT, "%zu dimensions; at most %d are known", n, SKF_MAX_DIMS);
    t->n_dims = (uint32_t)n;
    for (size_t i = 0; i < SKF_MAX_DIMS; i++)
        t->dims[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const skf_json *d = skf_json_at(shape, n - 1 - i); /* theirs begins with the outermost */
        if (!is_json_int(d) || skf_json_i64(d, -1) < 0)
            return skf_fail(why, SKF_ERR_FORMAT, "a dimension that is no number");
        t->dims[i] = (uint64_t)skf_json_i64(d, 0);
    }
    return SKF_OK;
}

static enum skf_err get_entry(const skf_json *j, uint64_t data, uint64_t size, struct skf_tensor *t, struct skf_why *why)
{
    const char *dtype = skf_json_cstr(skf_json_get(j, "dtype"));
    const skf_json *range = skf_json_get(j, "data_offsets");
    if (!dtype || skf_json_len(range) != 2 || !is_json_int(skf_json_at(range, 0)) || !is_json_int(skf_json_at(range, 1)))
        return skf_fail(why, SKF_ERR_FORMAT, "dtype or data_offsets missing");
    SKF_TRY(get_shape(skf_json_get(j, "shape"), t, why));
    size_t i = 0;
    while (i < sizeof dtypes / sizeof dtypes[0] && strcmp(dtypes[i].name, dtype) != 0)
        i++;
    if (i == sizeof dtypes / sizeof dtypes[0])
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "dtype %.32s is not known", dtype);
    t->type = dtypes[i].type;
    SKF_TRY(skf_tensor_size(t, why));
    int64_t begin = skf_json_i64(skf_json_at(range, 0), -1), end = skf_json_i64(skf_json_at(range, 1), -1);
    if (begin < 0 || end < begin || (uint64_t)end > size - data)
        return skf_fail(why, SKF_ERR_FORMAT, "truncated or damaged: its bytes lie past the end of the file");
    if ((uint64_t)(end - begin) != t->bytes)
        return skf_fail(why, SKF_ERR_FORMAT, "%llu bytes where its shape needs %llu", (unsigned long long)(end - begin),
                        (unsigned long long)t->bytes);
    t->offset = data + (uint64_t)begin;
    return SKF_OK;
}

static enum skf_err get_entries(const skf_json *root, uint64_t data, uint64_t size, struct skf_tensor *tensors, size_t *n,
                                struct skf_buf *names, struct skf_why *why)
{
    *n = 0;
    for (void *it = skf_json_iter(root); it; it = skf_json_next(root, it)) {
        const char *key = skf_json_iter_key(it);
        size_t len = strlen(key);
        if (strcmp(key, "__metadata__") == 0)
            continue;
        if (!is_clean_name(key, len))
            return skf_fail(why, SKF_ERR_FORMAT, "a tensor name that is too long or holds control characters");
        SKF_TRY(skf_buf_put(names, key, len + 1));
        enum skf_err e = get_entry(skf_json_iter_value(it), data, size, &tensors[*n], why);
        if (e != SKF_OK)
            return skf_fail_prefix(why, e, "tensor '%.*s'", (int)SKF_MIN_NAME(len), key);
        ++*n;
    }
    const char *at = (const char *)names->data;
    for (size_t i = 0; i < *n; i++) {
        tensors[i].name = at;
        at += strlen(at) + 1;
    }
    return SKF_OK;
}

static enum skf_err get_json(const struct skf_source *src, skf_json **root, uint64_t *data, struct skf_why *why)
{
    uint8_t head[HEAD];
    SKF_TRY(skf_source_read(src, 0, head, sizeof head));
    uint64_t n = skf_le64(head);
    if (n > src->size - HEAD)
        return skf_fail(why, SKF_ERR_FORMAT, "truncated: the file ends inside its header");
    uint8_t *copy = skf_alloc(n);
    const uint8_t *p;
    if (!copy)
        return SKF_ERR_NOMEM;
    enum skf_err e = skf_source_view(src, HEAD, n, copy, &p);
    if (e == SKF_OK)
        e = skf_json_parse(p, n, JSON_DEPTH, root, why);
    skf_free(copy);
    *data = HEAD + n;
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "its header");
}

enum skf_err skf_safetensors_parse(const struct skf_source *src, struct skf_tensor **tensors, size_t *n, char **names,
                                   struct skf_why *why)
{
    skf_json *root = NULL;
    uint64_t data = 0;
    struct skf_buf buf = SKF_BUF_INIT(SKF_JSON_MAX);
    struct skf_tensor *t = NULL;
    *tensors = NULL;
    *names = NULL;
    enum skf_err e;
    SKF_GO(e, get_json(src, &root, &data, why));
    if (!is_json_obj(root) || skf_json_len(root) > SKF_TENSORS_MAX) {
        e = is_json_obj(root) ? skf_fail(why, SKF_ERR_LIMIT, "%zu tensors", skf_json_len(root))
                              : skf_fail(why, SKF_ERR_FORMAT, "its header is not an object");
        goto out;
    }
    e = SKF_ERR_NOMEM;
    t = skf_calloc(skf_json_len(root), sizeof *t);
    if (t)
        e = get_entries(root, data, src->size, t, n, &buf, why);
out:
    skf_json_free(root);
    if (e != SKF_OK) {
        skf_free(t);
        skf_buf_free(&buf);
        return e == SKF_ERR_NOMEM ? skf_fail(why, e, "no memory for its header") : e;
    }
    size_t len;
    *tensors = t;
    *names = (char *)skf_buf_steal(&buf, &len);
    return SKF_OK;
}
