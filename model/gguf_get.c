/* Looking up a GGUF file's metadata. Integers of any width are one kind, and so are floats of both. */
#include "model/gguf.h"

#include "base/buf.h"

const struct skf_gguf_value *skf_gguf_get(const struct skf_gguf *g, const char *key)
{
    size_t n = strlen(key);
    for (uint64_t i = 0; i < g->n_kv; i++)
        if (g->kv[i].key.n == n && memcmp(g->kv[i].key.p, key, n) == 0)
            return &g->kv[i].value;
    return NULL;
}

static bool is_u64_at(enum skf_gguf_type type, const uint8_t *raw, uint64_t i, uint64_t *v)
{
    int64_t s = 0;
    switch (type) {
    case SKF_GGUF_U8:
        *v = raw[i];
        return true;
    case SKF_GGUF_U16:
        *v = skf_le16(raw + 2 * i);
        return true;
    case SKF_GGUF_U32:
        *v = skf_le32(raw + 4 * i);
        return true;
    case SKF_GGUF_U64:
        *v = skf_le64(raw + 8 * i);
        return true;
    case SKF_GGUF_I8:
        s = (int8_t)raw[i];
        break;
    case SKF_GGUF_I16:
        s = (int16_t)skf_le16(raw + 2 * i);
        break;
    case SKF_GGUF_I32:
        s = (int32_t)skf_le32(raw + 4 * i);
        break;
    case SKF_GGUF_I64:
        s = (int64_t)skf_le64(raw + 8 * i);
        break;
    default:
        return false;
    }
    *v = (uint64_t)s;
    return s >= 0; /* a negative number is not one of these */
}

static bool is_f64_at(enum skf_gguf_type type, const uint8_t *raw, uint64_t i, double *v)
{
    union {
        uint32_t u;
        float f;
    } a;
    union {
        uint64_t u;
        double f;
    } b;
    if (type == SKF_GGUF_F32) {
        a.u = skf_le32(raw + 4 * i);
        *v = (double)a.f;
        return true;
    }
    if (type == SKF_GGUF_F64) {
        b.u = skf_le64(raw + 8 * i);
        *v = b.f;
        return true;
    }
    return false;
}

bool is_gguf_u64(const struct skf_gguf *g, const char *key, uint64_t *v)
{
    const struct skf_gguf_value *x = skf_gguf_get(g, key);
    uint64_t n;
    if (!x || x->is_array || !is_u64_at(x->type, x->raw, 0, &n))
        return false;
    *v = n;
    return true;
}

bool is_gguf_f64(const struct skf_gguf *g, const char *key, double *v)
{
    const struct skf_gguf_value *x = skf_gguf_get(g, key);
    return x && !x->is_array && is_f64_at(x->type, x->raw, 0, v);
}

bool is_gguf_bool(const struct skf_gguf *g, const char *key, bool *v)
{
    const struct skf_gguf_value *x = skf_gguf_get(g, key);
    if (!x || x->is_array || x->type != SKF_GGUF_BOOL)
        return false;
    *v = x->raw[0] == 1;
    return true;
}

bool is_gguf_str(const struct skf_gguf *g, const char *key, struct skf_str *v)
{
    const struct skf_gguf_value *x = skf_gguf_get(g, key);
    if (!x || x->is_array || x->type != SKF_GGUF_STRING)
        return false;
    *v = x->strings[0];
    return true;
}

bool is_gguf_array_u64(const struct skf_gguf_value *a, uint64_t i, uint64_t *v)
{
    uint64_t n;
    if (!a || !a->is_array || i >= a->count || !is_u64_at(a->type, a->raw, i, &n))
        return false;
    *v = n;
    return true;
}

bool is_gguf_array_f64(const struct skf_gguf_value *a, uint64_t i, double *v)
{
    return a && a->is_array && i < a->count && is_f64_at(a->type, a->raw, i, v);
}
