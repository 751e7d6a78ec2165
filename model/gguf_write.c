/*
 * The GGUF writer: version 3, tensors one behind the other in the order they were described, each padded to the alignment
 * (the last one too, as ggml does), so that what the reader read comes out as the same bytes.
 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "model/model_priv.h"

enum { DEFAULT_ALIGNMENT = 32 };

struct skf_gguf_out {
    uint32_t alignment;
    uint64_t n_kv, n_tensors;
    bool has_alignment; /* its key was given */
    struct skf_buf kv, directory;
    struct skf_buf sizes;     /* u64 a tensor */
    uint64_t data_size;       /* of all tensors with their padding */
    struct skf_draft *draft;  /* once begun */
    uint64_t at;              /* next byte of the file to write */
    uint64_t tensor, written; /* the tensor that is being written and how much of it is there */
};

enum skf_err skf_gguf_out_new(uint32_t alignment, struct skf_gguf_out **w)
{
    if (alignment == 0 || (alignment & (alignment - 1)))
        return SKF_ERR_ARG;
    *w = skf_calloc(1, sizeof **w);
    if (!*w)
        return SKF_ERR_NOMEM;
    (*w)->alignment = alignment;
    (*w)->kv = SKF_BUF_INIT(SKF_HEAD_MAX);
    (*w)->directory = SKF_BUF_INIT(SKF_HEAD_MAX);
    (*w)->sizes = SKF_BUF_INIT((size_t)SKF_TENSORS_MAX * 8);
    return SKF_OK;
}

void skf_gguf_out_free(struct skf_gguf_out *w)
{
    if (!w)
        return;
    skf_draft_abort(w->draft);
    skf_buf_free(&w->kv);
    skf_buf_free(&w->directory);
    skf_buf_free(&w->sizes);
    skf_free(w);
}

static enum skf_err put_string(struct skf_buf *b, const char *p, uint64_t n)
{
    SKF_TRY(skf_buf_u64(b, n));
    return skf_buf_put(b, p, n);
}

static uint64_t padded(const struct skf_gguf_out *w, uint64_t n)
{
    return (n + w->alignment - 1) / w->alignment * w->alignment;
}

/* Undoes a half-written entry when `e` says that it failed. */
static enum skf_err settled(struct skf_buf *b, size_t before, enum skf_err e)
{
    if (e != SKF_OK)
        b->len = before;
    return e;
}

static enum skf_err put_kv(struct skf_gguf_out *w, const struct skf_gguf_kv *kv)
{
    const struct skf_gguf_value *v = &kv->value;
    SKF_TRY(put_string(&w->kv, kv->key.p, kv->key.n));
    if (v->is_array) {
        SKF_TRY(skf_buf_u32(&w->kv, SKF_GGUF_ARRAY));
        SKF_TRY(skf_buf_u32(&w->kv, (uint32_t)v->type));
        SKF_TRY(skf_buf_u64(&w->kv, v->count));
    } else {
        SKF_TRY(skf_buf_u32(&w->kv, (uint32_t)v->type));
    }
    return skf_buf_put(&w->kv, v->raw, v->raw_len);
}

enum skf_err skf_gguf_out_kv(struct skf_gguf_out *w, const struct skf_gguf_kv *kv)
{
    static const char key[] = "general.alignment";
    if (w->draft || w->n_kv == SKF_KV_MAX)
        return w->draft ? SKF_ERR_STATE : SKF_ERR_LIMIT;
    bool is_alignment = kv->key.n == sizeof key - 1 && memcmp(kv->key.p, key, sizeof key - 1) == 0;
    if (is_alignment && (kv->value.is_array || kv->value.type != SKF_GGUF_U32 || skf_le32(kv->value.raw) != w->alignment))
        return SKF_ERR_ARG;
    size_t before = w->kv.len;
    SKF_TRY(settled(&w->kv, before, put_kv(w, kv)));
    w->has_alignment = w->has_alignment || is_alignment;
    w->n_kv++;
    return SKF_OK;
}

enum skf_err skf_gguf_out_u32(struct skf_gguf_out *w, const char *key, uint32_t v)
{
    uint8_t raw[4];
    skf_put_le32(raw, v);
    struct skf_gguf_kv kv = {.key = {key, strlen(key)}};
    kv.value = (struct skf_gguf_value){.type = SKF_GGUF_U32, .count = 1, .raw = raw, .raw_len = sizeof raw};
    return skf_gguf_out_kv(w, &kv);
}

enum skf_err skf_gguf_out_str(struct skf_gguf_out *w, const char *key, const char *v)
{
    struct skf_buf raw = SKF_BUF_INIT(SKF_HEAD_MAX);
    enum skf_err e = put_string(&raw, v, strlen(v));
    if (e == SKF_OK) {
        struct skf_gguf_kv kv = {.key = {key, strlen(key)}};
        kv.value = (struct skf_gguf_value){.type = SKF_GGUF_STRING, .count = 1, .raw = raw.data, .raw_len = raw.len};
        e = skf_gguf_out_kv(w, &kv);
    }
    skf_buf_free(&raw);
    return e;
}

static enum skf_err put_tensor(struct skf_gguf_out *w, const struct skf_tensor *t, uint64_t bytes)
{
    SKF_TRY(put_string(&w->directory, t->name, strlen(t->name)));
    SKF_TRY(skf_buf_u32(&w->directory, t->n_dims));
    for (uint32_t i = 0; i < t->n_dims; i++)
        SKF_TRY(skf_buf_u64(&w->directory, t->dims[i]));
    SKF_TRY(skf_buf_u32(&w->directory, (uint32_t)t->type));
    SKF_TRY(skf_buf_u64(&w->directory, w->data_size));
    return skf_buf_u64(&w->sizes, bytes);
}

enum skf_err skf_gguf_out_tensor(struct skf_gguf_out *w, const struct skf_tensor *t)
{
    struct skf_tensor sized = *t;
    uint64_t end;
    if (w->draft)
        return SKF_ERR_STATE;
    if (t->type >= SKF_T_U8)
        return SKF_ERR_UNSUPPORTED;
    if (t->n_dims > SKF_MAX_DIMS)
        return SKF_ERR_ARG;
    SKF_TRY(skf_tensor_size(&sized, NULL));
    if (!is_add_ok(w->data_size, sized.bytes, &end) || end > (uint64_t)INT64_MAX - w->alignment)
        return SKF_ERR_LIMIT;
    size_t before = w->directory.len;
    SKF_TRY(settled(&w->directory, before, put_tensor(w, t, sized.bytes)));
    w->data_size = padded(w, end);
    w->n_tensors++;
    return SKF_OK;
}

static enum skf_err put_head(struct skf_gguf_out *w, struct skf_buf *head)
{
    SKF_TRY(skf_buf_str(head, "GGUF"));
    SKF_TRY(skf_buf_u32(head, 3));
    SKF_TRY(skf_buf_u64(head, w->n_tensors));
    SKF_TRY(skf_buf_u64(head, w->n_kv));
    SKF_TRY(skf_buf_put(head, w->kv.data, w->kv.len));
    SKF_TRY(skf_buf_put(head, w->directory.data, w->directory.len));
    return skf_buf_fill(head, 0, padded(w, head->len) - head->len);
}

/* Steps over tensors that have no bytes. */
static uint64_t left_of_tensor(struct skf_gguf_out *w)
{
    while (w->tensor < w->n_tensors) {
        uint64_t size = skf_le64(w->sizes.data + 8 * w->tensor);
        if (w->written < size)
            return size - w->written;
        w->tensor++;
        w->written = 0;
    }
    return 0;
}

enum skf_err skf_gguf_out_begin(struct skf_gguf_out *w, const char *path, struct skf_why *why)
{
    if (w->draft)
        return skf_fail(why, SKF_ERR_STATE, "%s: begun twice", path);
    if (w->alignment != DEFAULT_ALIGNMENT && !w->has_alignment)
        SKF_TRY(skf_gguf_out_u32(w, "general.alignment", w->alignment));
    struct skf_buf head = SKF_BUF_INIT(2 * (size_t)SKF_HEAD_MAX + w->alignment + 64);
    enum skf_err e = put_head(w, &head);
    if (e != SKF_OK) {
        e = skf_fail(why, e, "%s: its head is too large", path);
        goto out;
    }
    SKF_GO(e, skf_draft_open(path, head.len + w->data_size, 0644, &w->draft, why));
    w->at = head.len;
    e = skf_draft_write_at(w->draft, 0, head.data, head.len, why);
    if (e != SKF_OK) {
        skf_draft_abort(w->draft);
        w->draft = NULL;
    }
out:
    skf_buf_free(&head);
    return e;
}

static enum skf_err put_padding(struct skf_gguf_out *w, struct skf_why *why)
{
    static const uint8_t zeros[4096];
    uint64_t end = padded(w, w->at);
    while (w->at < end) {
        size_t n = end - w->at < sizeof zeros ? (size_t)(end - w->at) : sizeof zeros;
        SKF_TRY(skf_draft_write_at(w->draft, w->at, zeros, n, why));
        w->at += n;
    }
    return SKF_OK;
}

enum skf_err skf_gguf_out_data(struct skf_gguf_out *w, const void *p, uint64_t n, struct skf_why *why)
{
    const uint8_t *at = p;
    if (!w->draft)
        return skf_fail(why, SKF_ERR_STATE, "not begun");
    while (n) {
        uint64_t left = left_of_tensor(w);
        uint64_t take = n < left ? n : left;
        if (take == 0)
            return skf_fail(why, SKF_ERR_STATE, "more bytes than the tensors have");
        SKF_TRY(skf_draft_write_at(w->draft, w->at, at, take, why));
        w->at += take;
        w->written += take;
        at += take;
        n -= take;
        if (take == left)
            SKF_TRY(put_padding(w, why));
    }
    return SKF_OK;
}

enum skf_err skf_gguf_out_commit(struct skf_gguf_out *w, struct skf_why *why)
{
    if (!w->draft)
        return skf_fail(why, SKF_ERR_STATE, "not begun");
    if (left_of_tensor(w))
        return skf_fail(why, SKF_ERR_STATE, "fewer bytes than the tensors have");
    struct skf_draft *d = w->draft;
    w->draft = NULL;
    return skf_draft_commit(d, why);
}
