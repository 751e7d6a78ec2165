/*
 * The safetensors reader (https://huggingface.co/docs/safetensors): u64 length, that many bytes of JSON, tensor data.
 *
 *   {"__metadata__": {"k": "v"}, "name": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *
 * As the format demands, the tensors cover the data from its first byte to its last without hole or overlap, and no name
 * stands twice (base/json.h refuses that within a header, model.c among several).
 *
 * A sharded set is one content: several such files one behind the other.  Where a file ends is known from its tensors, so the content
 * needs nothing beside itself to be understood.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/util.h"
#include "model/model_priv.h"

enum { HEAD = 8, JSON_DEPTH = 8, FILES_MAX = 4096 };

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

static bool is_file_at(const struct skf_source *src, uint64_t at)
{
    uint8_t head[HEAD + 1];
    if (src->size - at < HEAD + 2 || skf_source_read(src, at, head, sizeof head) != SKF_OK)
        return false;
    uint64_t n = skf_le64(head);
    return n >= 2 && n <= SKF_JSON_MAX && head[HEAD] == '{';
}

bool is_safetensors(const struct skf_source *src) { return is_file_at(src, 0); }

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

struct set { /* of files, as far as they are read */
    const struct skf_source *src;
    struct skf_tensor *tensors;
    size_t n, cap;
    uint64_t json; /* bytes of all headers */
    struct skf_buf names;
};

/* The tensors of one header, whose data begins at `data`; *end: where they end. Their names stand in order in set->names. */
static enum skf_err get_entries(struct set *s, const skf_json *root, uint64_t data, uint64_t *end, struct skf_why *why)
{
    uint64_t sum = 0;
    *end = data;
    for (void *it = skf_json_iter(root); it; it = skf_json_next(root, it)) {
        const char *key = skf_json_iter_key(it);
        size_t len = strlen(key);
        struct skf_tensor *t = &s->tensors[s->n];
        if (strcmp(key, "__metadata__") == 0)
            continue;
        if (!is_clean_name(key, len))
            return skf_fail(why, SKF_ERR_FORMAT, "a tensor name that is too long or holds control characters");
        SKF_TRY(skf_buf_put(&s->names, key, len + 1));
        enum skf_err e = get_entry(skf_json_iter_value(it), data, s->src->size, t, why);
        if (e != SKF_OK)
            return skf_fail_prefix(why, e, "tensor '%.*s'", (int)SKF_MIN_NAME(len), key);
        *end = SKF_MAX(*end, t->offset + t->bytes);
        sum += t->bytes; /* each at most the file, which has no room for 2^44 of them */
        s->n++;
    }
    /* With no overlap, which is looked for when all are in order, this is all that can be wrong. */
    return sum >= *end - data ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "a hole between its tensors");
}

static enum skf_err get_json(struct set *s, uint64_t at, skf_json **root, uint64_t *data, struct skf_why *why)
{
    uint8_t head[HEAD];
    SKF_TRY(skf_source_read(s->src, at, head, sizeof head));
    uint64_t n = skf_le64(head);
    if (n > s->src->size - at - HEAD)
        return skf_fail(why, SKF_ERR_FORMAT, "truncated: the file ends inside its header");
    s->json += n;
    if (s->json > SKF_JSON_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "headers of more than %u bytes", SKF_JSON_MAX);
    uint8_t *copy = skf_alloc(n);
    const uint8_t *p;
    if (!copy)
        return SKF_ERR_NOMEM;
    enum skf_err e = skf_source_view(s->src, at + HEAD, n, copy, &p);
    if (e == SKF_OK)
        e = skf_json_parse(p, n, JSON_DEPTH, root, why);
    skf_free(copy);
    *data = at + HEAD + n;
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "its header");
}

/* Room for as many tensors more. */
static enum skf_err grow(struct set *s, size_t more, struct skf_why *why)
{
    if (more > SKF_TENSORS_MAX - s->n)
        return skf_fail(why, SKF_ERR_LIMIT, "%zu tensors", s->n + more);
    if (s->n + more <= s->cap)
        return SKF_OK;
    size_t cap = SKF_MAX(s->n + more, SKF_MIN(2 * s->cap, (size_t)SKF_TENSORS_MAX));
    struct skf_tensor *t = skf_realloc(s->tensors, cap * sizeof *t);
    if (!t)
        return SKF_ERR_NOMEM;
    memset(t + s->cap, 0, (cap - s->cap) * sizeof *t);
    s->tensors = t;
    s->cap = cap;
    return SKF_OK;
}

/* The file that begins at *at, which is moved to its end. */
static enum skf_err get_file(struct set *s, uint64_t *at, struct skf_why *why)
{
    skf_json *root = NULL;
    uint64_t data = 0;
    SKF_TRY(get_json(s, *at, &root, &data, why));
    enum skf_err e = is_json_obj(root) ? grow(s, skf_json_len(root), why)
                                       : skf_fail(why, SKF_ERR_FORMAT, "its header is not an object");
    if (e == SKF_OK)
        e = get_entries(s, root, data, at, why);
    skf_json_free(root);
    return e;
}

enum skf_err skf_safetensors_parse(const struct skf_source *src, struct skf_tensor **tensors, size_t *n, char **names,
                                   struct skf_why *why)
{
    struct set s = {.src = src, .names = SKF_BUF_INIT(SKF_JSON_MAX)};
    uint64_t at = 0;
    unsigned files = 0;
    enum skf_err e = SKF_OK;
    *tensors = NULL;
    *names = NULL;
    *n = 0;
    do {
        e = get_file(&s, &at, why);
        files++;
    } while (e == SKF_OK && at < src->size && files < FILES_MAX && is_file_at(src, at));
    if (e == SKF_OK && at != src->size)
        e = skf_fail(why, SKF_ERR_FORMAT, "bytes behind its last tensor");
    if (e == SKF_OK)
        e = grow(&s, s.n == 0, why); /* never nothing at all */
    if (e != SKF_OK) {
        skf_free(s.tensors);
        skf_buf_free(&s.names);
        return e == SKF_ERR_NOMEM ? skf_fail(why, e, "no memory for its header") : e;
    }
    const char *name = (const char *)s.names.data;
    for (size_t i = 0; i < s.n; i++) {
        s.tensors[i].name = name;
        name += strlen(name) + 1;
    }
    size_t len;
    *tensors = s.tensors;
    *n = s.n;
    *names = (char *)skf_buf_steal(&s.names, &len);
    return SKF_OK;
}
