/* `skiff show` of GGUF, safetensors and any bytes. */
#include "base/alloc.h"
#include "base/digest.h"
#include "cli/show.h"
#include "model/folder.h"
#include "model/model.h"

enum { ARRAY_SHOWN = 16 };

enum skf_err skf_show_digest(skf_json *obj, const char *key, const uint8_t *digest)
{
    char hex[SKF_HEX];
    skf_hex(digest, SKF_DIGEST, hex);
    return skf_json_set(obj, key, skf_json_str(hex));
}

skf_json *skf_show_text(const char *p, uint64_t n)
{
    skf_json *j = skf_json_strn(p, n);
    if (j)
        return j;
    char *copy = skf_memdup(p, n);
    for (uint64_t i = 0; copy && i < n; i++)
        if ((unsigned char)copy[i] >= 0x80 || copy[i] == 0)
            copy[i] = '?';
    j = copy ? skf_json_strn(copy, n) : NULL;
    skf_free(copy);
    return j;
}

/* Reads a number of any type through the array getters, which know them all. */
static skf_json *number_at(const struct skf_gguf_value *v, uint64_t i)
{
    struct skf_gguf_value a = *v;
    uint64_t u;
    double d;
    a.is_array = true;
    if (is_gguf_array_u64(&a, i, &u)) {
        char text[24];
        if (u <= INT64_MAX)
            return skf_json_int((int64_t)u);
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)u);
        return skf_json_str(text);
    }
    if (is_gguf_array_f64(&a, i, &d))
        return d - d == 0 ? skf_json_real(d) : skf_json_str(d != d ? "nan" : d > 0 ? "inf" : "-inf");
    switch (v->type) { /* negative, since they were not taken above */
    case SKF_GGUF_I8:
        return skf_json_int((int8_t)v->raw[i]);
    case SKF_GGUF_I16:
        return skf_json_int((int16_t)(v->raw[2 * i] | v->raw[2 * i + 1] << 8));
    case SKF_GGUF_I32:
    case SKF_GGUF_I64: {
        uint64_t n = 0, size = v->type == SKF_GGUF_I32 ? 4 : 8;
        for (uint64_t k = size; k-- > 0;)
            n = n << 8 | v->raw[size * i + k];
        return skf_json_int(size == 4 ? (int64_t)(int32_t)(uint32_t)n : (int64_t)n);
    }
    default:
        return skf_json_bool(v->raw[i] == 1);
    }
}

static skf_json *scalar_at(const struct skf_gguf_value *v, uint64_t i)
{
    if (v->type == SKF_GGUF_STRING)
        return skf_show_text(v->strings[i].p, v->strings[i].n);
    return v->type == SKF_GGUF_ARRAY ? skf_json_null() : number_at(v, i);
}

static const char *type_name(enum skf_gguf_type t)
{
    static const char *const names[] = {"u8",     "i8",    "u16", "i16", "u32", "i32", "f32", "bool",
                                        "string", "array", "u64", "i64", "f64"};
    return names[t];
}

/* A scalar as it is; an array as its type, its length and its first elements. */
static enum skf_err put_value(skf_json *to, const char *key, const struct skf_gguf_value *v)
{
    if (!v->is_array)
        return skf_json_set(to, key, scalar_at(v, 0));
    skf_json *a = skf_json_obj(), *first = skf_json_arr();
    enum skf_err e = a && first ? SKF_OK : SKF_ERR_NOMEM;
    for (uint64_t i = 0; e == SKF_OK && i < v->count && i < ARRAY_SHOWN; i++)
        e = skf_json_push(first, scalar_at(v, i));
    if (e == SKF_OK)
        e = skf_json_set(a, "array", skf_json_str(type_name(v->type)));
    if (e == SKF_OK)
        e = skf_json_set(a, "count", skf_json_int((int64_t)v->count));
    if (e == SKF_OK)
        e = skf_json_set(a, "first", skf_json_ref(first));
    skf_json_free(first);
    if (e == SKF_OK)
        return skf_json_set(to, key, a);
    skf_json_free(a);
    return e;
}

static enum skf_err put_metadata(skf_json *to, const struct skf_gguf *g)
{
    skf_json *kv = skf_json_obj();
    SKF_TRY(skf_json_set(to, "metadata", kv));
    for (uint64_t i = 0; i < g->n_kv; i++) {
        char *key = skf_alloc(g->kv[i].key.n + 1);
        if (!key)
            return SKF_ERR_NOMEM;
        memcpy(key, g->kv[i].key.p, g->kv[i].key.n);
        key[g->kv[i].key.n] = 0;
        enum skf_err e = put_value(kv, key, &g->kv[i].value);
        skf_free(key);
        SKF_TRY(e);
    }
    return skf_json_set(to, "alignment", skf_json_int(g->alignment));
}

static enum skf_err put_tensor(skf_json *list, const struct skf_tensor *t)
{
    skf_json *o = skf_json_obj(), *shape;
    SKF_TRY(skf_json_push(list, o));
    SKF_TRY(skf_json_set(o, "name", skf_json_str(t->name)));
    SKF_TRY(skf_json_set(o, "type", skf_json_str(skf_type_info((uint32_t)t->type)->name)));
    shape = skf_json_arr();
    SKF_TRY(skf_json_set(o, "shape", shape));
    for (uint32_t i = 0; i < t->n_dims; i++)
        SKF_TRY(skf_json_push(shape, skf_json_int((int64_t)t->dims[i])));
    SKF_TRY(skf_json_set(o, "offset", skf_json_int((int64_t)t->offset)));
    return skf_json_set(o, "bytes", skf_json_int((int64_t)t->bytes));
}

static enum skf_err put_model(skf_json *o, const char *path, const struct skf_model *m)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    SKF_TRY(skf_json_set(o, "file", skf_show_text(path, strlen(path))));
    SKF_TRY(skf_json_set(o, "format", skf_json_str(skf_format_name(skf_model_format(m)))));
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)skf_model_source(m)->size)));
    if (skf_model_gguf(m))
        SKF_TRY(put_metadata(o, skf_model_gguf(m)));
    skf_json *list = skf_json_arr();
    SKF_TRY(skf_json_set(o, "tensors", list));
    for (size_t i = 0; i < n; i++)
        SKF_TRY(put_tensor(list, &t[i]));
    return SKF_OK;
}

enum skf_err skf_show_model(const char *path, bool with_root, const struct skf_progress *progress, skf_json **out,
                            struct skf_why *why)
{
    struct skf_model *m;
    struct skf_cut cut = {0};
    *out = NULL;
    SKF_TRY(is_folder(path) ? skf_model_open_folder(path, &m, why) : skf_model_open(path, &m, why));
    skf_json *o = skf_json_obj();
    enum skf_err e = o ? put_model(o, path, m) : SKF_ERR_NOMEM;
    if (e == SKF_OK && with_root)
        e = skf_cut_make(m, 0, progress, &cut, why);
    if (e == SKF_OK && with_root)
        e = skf_show_digest(o, "root", cut.root);
    if (e == SKF_OK && with_root)
        e = skf_json_set(o, "chunks", skf_json_int((int64_t)cut.n));
    skf_cut_free(&cut);
    skf_model_close(m);
    if (e == SKF_OK) {
        *out = o;
        return e;
    }
    skf_json_free(o);
    return e == SKF_ERR_NOMEM ? skf_fail(why, e, "%s: out of memory", path) : e;
}
