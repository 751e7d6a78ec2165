/*
 * The GGUF reader.  A file is
 *
 *   "GGUF"  u32 version (2 or 3)  u64 tensor count  u64 metadata count
 *   metadata:  string key, u32 type, value            (string: u64 length, bytes; array: u32 type, u64 count, elements)
 *   tensors:   string name, u32 dimensions, u64 each, u32 type, u64 offset from the start of the data
 *   padding to the alignment, then the tensors' bytes
 *
 * Every count is held against the bytes that are left before anything is sized by it, so that a hostile head costs no more
 * than a few times its own length.
 */
#include "model/gguf.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "model/model_priv.h"

enum { ARRAY_DEPTH_MAX = 4, KV_LEAST = 8 + 4 + 1, TENSOR_LEAST = 8 + 4 + 4 + 8, FIRST_LOOK = 4 << 20 };

struct own {
    struct skf_gguf pub; /* first: the public pointer is this one */
    uint8_t *copy;       /* the head, when the source could not show it in one piece */
    uint8_t *names;      /* of the tensors, each with its NUL */
};

struct parse {
    struct skf_reader r;
    uint64_t head_len;  /* bytes that r began with */
    bool is_whole;      /* r began with everything there is (or may be) of a head */
    bool is_short;      /* it ended too early: with more bytes it might be fine */
    uint64_t file_size;
    uint64_t n_strings; /* so far */
    struct skf_gguf *g;
    struct skf_buf names;
    struct skf_why *why;
};

static enum skf_err ended(struct parse *p, const char *where)
{
    p->is_short = !p->is_whole;
    if (p->file_size > SKF_HEAD_MAX && p->is_whole && p->head_len >= SKF_HEAD_MAX)
        return skf_fail(p->why, SKF_ERR_LIMIT, "its head goes on after %u MiB (%s)", SKF_HEAD_MAX >> 20, where);
    return skf_fail(p->why, SKF_ERR_FORMAT, "truncated: the file ends inside %s", where);
}

static enum skf_err get_string(struct parse *p, struct skf_str *s, const char *where)
{
    const uint8_t *at;
    if (skf_get_u64(&p->r, &s->n) != SKF_OK || skf_get_bytes(&p->r, s->n, &at) != SKF_OK)
        return ended(p, where);
    s->p = (const char *)at;
    return SKF_OK;
}

static enum skf_err get_name(struct parse *p, struct skf_str *s, const char *where)
{
    SKF_TRY(get_string(p, s, where));
    if (s->n > SKF_NAME_MAX)
        return skf_fail(p->why, SKF_ERR_FORMAT, "a name of %llu bytes among %s", (unsigned long long)s->n, where);
    if (!is_clean_name(s->p, s->n))
        return skf_fail(p->why, SKF_ERR_FORMAT, "a name that is not plain UTF-8 among %s", where);
    return SKF_OK;
}

static uint64_t fixed_size(uint32_t type)
{
    static const uint8_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof size ? size[type] : 0;
}

static enum skf_err check_bools(struct parse *p, const uint8_t *b, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (b[i] > 1)
            return skf_fail(p->why, SKF_ERR_FORMAT, "a boolean of value %u", b[i]);
    return SKF_OK;
}

/* Steps over `count` values of `type`. Strings are listed in `strings` unless that is NULL. */
static enum skf_err get_values(struct parse *p, uint32_t type, uint64_t count, unsigned depth, struct skf_str *strings)
{
    uint64_t size = fixed_size(type), total;
    const uint8_t *at;
    if (size) {
        if (!is_mul_ok(size, count, &total) || skf_get_bytes(&p->r, total, &at) != SKF_OK)
            return ended(p, "the metadata");
        return type == SKF_GGUF_BOOL ? check_bools(p, at, count) : SKF_OK;
    }
    for (uint64_t i = 0; i < count && type == SKF_GGUF_STRING; i++) {
        struct skf_str s;
        SKF_TRY(get_string(p, &s, "the metadata"));
        if (strings)
            strings[i] = s;
    }
    for (uint64_t i = 0; i < count && type == SKF_GGUF_ARRAY; i++) {
        uint32_t inner;
        uint64_t n;
        if (depth >= ARRAY_DEPTH_MAX)
            return skf_fail(p->why, SKF_ERR_LIMIT, "arrays nested more than %d deep", ARRAY_DEPTH_MAX);
        if (skf_get_u32(&p->r, &inner) != SKF_OK || skf_get_u64(&p->r, &n) != SKF_OK)
            return ended(p, "the metadata");
        if (inner > SKF_GGUF_F64)
            return skf_fail(p->why, SKF_ERR_FORMAT, "type %u, which GGUF does not have", inner);
        SKF_TRY(get_values(p, inner, n, depth + 1, NULL));
    }
    return SKF_OK;
}

static enum skf_err get_value(struct parse *p, struct skf_gguf_value *v)
{
    uint32_t type;
    if (skf_get_u32(&p->r, &type) != SKF_OK)
        return ended(p, "the metadata");
    v->count = 1;
    if (type == SKF_GGUF_ARRAY) {
        v->is_array = true;
        if (skf_get_u32(&p->r, &type) != SKF_OK || skf_get_u64(&p->r, &v->count) != SKF_OK)
            return ended(p, "the metadata");
    }
    if (type > SKF_GGUF_F64)
        return skf_fail(p->why, SKF_ERR_FORMAT, "type %u, which GGUF does not have", type);
    v->type = (enum skf_gguf_type)type;
    struct skf_str *strings = NULL;
    if (type == SKF_GGUF_STRING) {
        if (v->count > skf_reader_left(&p->r) / 8)
            return ended(p, "the metadata");
        if (v->count > SKF_STRINGS_MAX - p->n_strings)
            return skf_fail(p->why, SKF_ERR_LIMIT, "more than %u strings", SKF_STRINGS_MAX);
        p->n_strings += v->count;
        strings = skf_calloc(v->count, sizeof *strings);
        if (!strings)
            return SKF_ERR_NOMEM;
        v->strings = strings;
    }
    v->raw = p->r.p;
    SKF_TRY(get_values(p, type, v->count, 0, strings));
    v->raw_len = (uint64_t)(p->r.p - v->raw);
    return SKF_OK;
}

static enum skf_err get_metadata(struct parse *p)
{
    struct skf_gguf *g = p->g;
    struct skf_str *keys = NULL, again;
    uint64_t n = g->n_kv;
    if (n > SKF_KV_MAX)
        return skf_fail(p->why, SKF_ERR_LIMIT, "%llu metadata entries", (unsigned long long)n);
    if (n > skf_reader_left(&p->r) / KV_LEAST)
        return ended(p, "the metadata");
    enum skf_err e = SKF_ERR_NOMEM;
    g->kv = skf_calloc(n, sizeof *g->kv);
    keys = skf_calloc(n, sizeof *keys);
    if (!g->kv || !keys)
        goto out;
    for (uint64_t i = 0; i < n; i++) {
        SKF_GO(e, get_name(p, &g->kv[i].key, "the metadata"));
        keys[i] = g->kv[i].key;
        e = get_value(p, &g->kv[i].value);
        if (e != SKF_OK && e != SKF_ERR_NOMEM)
            skf_fail_prefix(p->why, e, "metadata '%.*s'", (int)SKF_MIN_NAME(keys[i].n), keys[i].p);
        if (e != SKF_OK)
            goto out;
    }
    e = SKF_OK;
    if (has_duplicate(keys, n, &again))
        e = skf_fail(p->why, SKF_ERR_FORMAT, "metadata '%.*s' stands twice", (int)SKF_MIN_NAME(again.n), again.p);
out:
    skf_free(keys);
    return e;
}

static enum skf_err get_tensor(struct parse *p, struct skf_tensor *t)
{
    struct skf_str name;
    uint32_t type;
    SKF_TRY(get_name(p, &name, "the tensor directory"));
    SKF_TRY(skf_buf_put(&p->names, name.p, name.n));
    SKF_TRY(skf_buf_u8(&p->names, 0));
    if (skf_get_u32(&p->r, &t->n_dims) != SKF_OK)
        return ended(p, "the tensor directory");
    if (t->n_dims > SKF_MAX_DIMS)
        return skf_fail(p->why, SKF_ERR_FORMAT, "tensor '%.*s': %u dimensions", (int)SKF_MIN_NAME(name.n), name.p, t->n_dims);
    for (uint32_t i = 0; i < SKF_MAX_DIMS; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims && skf_get_u64(&p->r, &t->dims[i]) != SKF_OK)
            return ended(p, "the tensor directory");
    }
    if (skf_get_u32(&p->r, &type) != SKF_OK || skf_get_u64(&p->r, &t->offset) != SKF_OK)
        return ended(p, "the tensor directory");
    t->type = (enum skf_type)type;
    enum skf_err e = SKF_T_U8 <= type ? skf_fail(p->why, SKF_ERR_UNSUPPORTED, "type %u is not known", type)
                                      : skf_tensor_size(t, p->why);
    if (e == SKF_OK && t->offset % p->g->alignment)
        e = skf_fail(p->why, SKF_ERR_FORMAT, "offset %llu is not a multiple of the alignment %u",
                     (unsigned long long)t->offset, p->g->alignment);
    return e == SKF_OK ? e : skf_fail_prefix(p->why, e, "tensor '%.*s'", (int)SKF_MIN_NAME(name.n), name.p);
}

static enum skf_err get_directory(struct parse *p)
{
    struct skf_gguf *g = p->g;
    if (g->n_tensors > SKF_TENSORS_MAX)
        return skf_fail(p->why, SKF_ERR_LIMIT, "%llu tensors", (unsigned long long)g->n_tensors);
    if (g->n_tensors > skf_reader_left(&p->r) / TENSOR_LEAST)
        return ended(p, "the tensor directory");
    g->tensors = skf_calloc(g->n_tensors, sizeof *g->tensors);
    struct skf_str *names = skf_calloc(g->n_tensors, sizeof *names), again;
    enum skf_err e = SKF_ERR_NOMEM;
    if (!g->tensors || !names)
        goto out;
    for (uint64_t i = 0; i < g->n_tensors; i++)
        SKF_GO(e, get_tensor(p, &g->tensors[i]));
    const char *at = (const char *)p->names.data; /* the buffer has stopped moving */
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        names[i] = (struct skf_str){at, strlen(at)};
        g->tensors[i].name = at;
        at += names[i].n + 1;
    }
    e = SKF_OK;
    if (has_duplicate(names, g->n_tensors, &again))
        e = skf_fail(p->why, SKF_ERR_FORMAT, "tensor '%.*s' stands twice", (int)SKF_MIN_NAME(again.n), again.p);
out:
    skf_free(names);
    return e;
}

static enum skf_err place_data(struct parse *p)
{
    struct skf_gguf *g = p->g;
    uint64_t at = (uint64_t)(p->head_len - skf_reader_left(&p->r)), a = g->alignment;
    g->data_offset = (at + a - 1) / a * a;
    if (g->data_offset > p->file_size && g->n_tensors == 0)
        g->data_offset = p->file_size; /* written without padding, since nothing follows */
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct skf_tensor *t = &g->tensors[i];
        uint64_t end;
        if (!is_add_ok(t->offset, g->data_offset, &t->offset) || !is_add_ok(t->offset, t->bytes, &end) ||
            end > p->file_size)
            return skf_fail(p->why, SKF_ERR_FORMAT, "truncated or damaged: tensor '%.*s' lies past the end of the file",
                            (int)SKF_MIN_NAME(strlen(t->name)), t->name);
    }
    return SKF_OK;
}

static enum skf_err get_head(struct parse *p)
{
    struct skf_gguf *g = p->g;
    const uint8_t *magic;
    uint32_t version;
    if (skf_get_bytes(&p->r, 4, &magic) != SKF_OK || skf_get_u32(&p->r, &version) != SKF_OK)
        return ended(p, "its first bytes");
    if (memcmp(magic, "GGUF", 4) != 0)
        return skf_fail(p->why, SKF_ERR_FORMAT, "not a GGUF file");
    if (version != 0 && (version & 0xFFFF) == 0)
        return skf_fail(p->why, SKF_ERR_UNSUPPORTED, "a big-endian GGUF; convert it to little-endian first");
    if (version != 2 && version != 3)
        return skf_fail(p->why, SKF_ERR_UNSUPPORTED, "GGUF version %u; 2 and 3 are known", version);
    if (skf_get_u64(&p->r, &g->n_tensors) != SKF_OK || skf_get_u64(&p->r, &g->n_kv) != SKF_OK)
        return ended(p, "its first bytes");
    SKF_TRY(get_metadata(p));
    uint64_t a = 32;
    const struct skf_gguf_value *v = skf_gguf_get(g, "general.alignment");
    if (v && (v->type != SKF_GGUF_U32 || !is_gguf_u64(g, "general.alignment", &a) || a == 0 || (a & (a - 1))))
        return skf_fail(p->why, SKF_ERR_FORMAT, "general.alignment is not a power of two");
    g->alignment = (uint32_t)a;
    SKF_TRY(get_directory(p));
    return place_data(p);
}

/* Shows the first `want` bytes in one piece: in place, or copied into *copy. */
static enum skf_err look(const struct skf_source *src, uint64_t want, uint8_t **copy, const uint8_t **p, uint64_t *len)
{
    uint64_t n = 0;
    *copy = NULL;
    *p = (const uint8_t *)"";
    *len = want;
    if (want == 0)
        return SKF_OK;
    SKF_TRY(src->span(src->ctx, 0, p, &n));
    if (n >= src->size) {
        *len = src->size < SKF_HEAD_MAX ? src->size : SKF_HEAD_MAX;
        return SKF_OK;
    }
    if (n >= want)
        return SKF_OK;
    *copy = skf_alloc(want);
    if (!*copy)
        return SKF_ERR_NOMEM;
    *p = *copy;
    enum skf_err e = skf_source_read(src, 0, *copy, want);
    if (e != SKF_OK) {
        skf_free(*copy);
        *copy = NULL;
    }
    return e;
}

/* One attempt with the first `want` bytes; *again says that more of them may help. */
static enum skf_err attempt(const struct skf_source *src, uint64_t want, struct skf_gguf **g, bool *again,
                            struct skf_why *why)
{
    const uint8_t *head;
    uint64_t len;
    struct own *o = skf_calloc(1, sizeof *o);
    if (!o)
        return SKF_ERR_NOMEM;
    enum skf_err e = look(src, want, &o->copy, &head, &len);
    if (e != SKF_OK) {
        skf_free(o);
        return e == SKF_ERR_NOMEM ? e : skf_fail(why, e, "cannot read its head");
    }
    struct parse p = {.r = skf_reader_of(head, len), .head_len = len, .file_size = src->size, .g = &o->pub, .why = why};
    p.is_whole = len == src->size || len >= SKF_HEAD_MAX;
    p.names = SKF_BUF_INIT(len + 1);
    e = get_head(&p);
    size_t names_len;
    o->names = skf_buf_steal(&p.names, &names_len);
    *again = p.is_short;
    if (e == SKF_OK)
        *g = &o->pub;
    else
        skf_gguf_free(&o->pub);
    return e;
}

enum skf_err skf_gguf_parse(const struct skf_source *src, struct skf_gguf **g, struct skf_why *why)
{
    uint64_t most = src->size < SKF_HEAD_MAX ? src->size : SKF_HEAD_MAX;
    uint64_t want = most < FIRST_LOOK ? most : FIRST_LOOK;
    bool is_again = false;
    *g = NULL;
    enum skf_err e = attempt(src, want, g, &is_again, why);
    while (e != SKF_OK && is_again && want < most) {
        want = want > most / 4 ? most : want * 4;
        e = attempt(src, want, g, &is_again, why);
    }
    return e == SKF_ERR_NOMEM ? skf_fail(why, e, "no memory for its head") : e;
}

void skf_gguf_free(struct skf_gguf *g)
{
    if (!g)
        return;
    struct own *o = (struct own *)(void *)g;
    for (uint64_t i = 0; g->kv && i < g->n_kv; i++)
        skf_free((void *)(uintptr_t)g->kv[i].value.strings);
    skf_free(g->kv);
    skf_free(g->tensors);
    skf_free(o->names);
    skf_free(o->copy);
    skf_free(o);
}
