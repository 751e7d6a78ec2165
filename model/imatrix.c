/*
 * Importance matrices in and kept (imatrix.h).
 *
 * llama.cpp's GGUF form: general.type "imatrix"; for a tensor T two F32 tensors, T.in_sum2 [columns, matrices] with sums of
 * squares and T.counts [1, matrices] with the tokens they are over.  The older form, little-endian: i32 entries, and for each i32
 * length, name, i32 calls, i32 n, n x f32 (sums, to be divided by the calls; 0 calls: as they are); what follows is of no use here.
 */
#include "model/imatrix.h"

#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/model.h"
#include "model/model_priv.h"

enum { MAX_VALUES = 1 << 26, MAX_ENTRIES = 1 << 14 /* the largest models have some 2,000 matrices */, HEADS = 1 << 12 };

struct entry {
    char *name;
    float *mean;  /* what is_imatrix_for shows */
    double *sum;  /* while it is gathered; NULL when read */
    uint64_t rows;
    size_t n;
    uint32_t next; /* of those with its hash: index + 1; 0 ends */
};
struct skf_imatrix {
    struct entry *all;
    size_t n, cap;
    uint32_t heads[HEADS];
};

enum skf_err skf_imatrix_new(struct skf_imatrix **im)
{
    *im = skf_calloc(1, sizeof **im);
    return *im ? SKF_OK : SKF_ERR_NOMEM;
}

void skf_imatrix_close(struct skf_imatrix *im)
{
    if (!im)
        return;
    for (size_t i = 0; i < im->n; i++) {
        skf_free(im->all[i].name);
        skf_free(im->all[i].mean);
        skf_free(im->all[i].sum);
    }
    skf_free(im->all);
    skf_free(im);
}

size_t skf_imatrix_count(const struct skf_imatrix *im) { return im->n; }

/* FNV-1a. */
static uint32_t head_of(const char *name, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    return (h ^ h >> 16) % HEADS;
}

static struct entry *find(struct skf_imatrix *im, const char *name, size_t n)
{
    for (uint32_t i = im->heads[head_of(name, n)]; i; i = im->all[i - 1].next)
        if (strlen(im->all[i - 1].name) == n && memcmp(im->all[i - 1].name, name, n) == 0)
            return &im->all[i - 1];
    return NULL;
}

/* A new entry of n values, all zero; its memory is the table's at once. */
static enum skf_err add_entry(struct skf_imatrix *im, const char *name, size_t name_n, size_t n, struct entry **out)
{
    if (im->n == MAX_ENTRIES || n > MAX_VALUES)
        return SKF_ERR_LIMIT;
    if (im->n == im->cap) {
        size_t cap = im->cap ? 2 * im->cap : 64;
        struct entry *more = skf_realloc(im->all, cap * sizeof *more);
        if (!more)
            return SKF_ERR_NOMEM;
        im->all = more;
        im->cap = cap;
    }
    struct entry e = {.name = skf_alloc(name_n + 1), .mean = skf_calloc(n, sizeof(float)), .n = n};
    if (!e.name || !e.mean) {
        skf_free(e.name);
        skf_free(e.mean);
        return SKF_ERR_NOMEM;
    }
    memcpy(e.name, name, name_n);
    e.name[name_n] = 0;
    uint32_t head = head_of(name, name_n);
    e.next = im->heads[head];
    im->all[im->n++] = e;
    im->heads[head] = (uint32_t)im->n;
    *out = &im->all[im->n - 1];
    return SKF_OK;
}

enum skf_err skf_imatrix_add(struct skf_imatrix *im, const char *tensor, const float *x, size_t rows, size_t columns)
{
    struct entry *e = find(im, tensor, strlen(tensor));
    if (!e)
        SKF_TRY(add_entry(im, tensor, strlen(tensor), columns, &e));
    if (e->n != columns)
        return SKF_ERR_ARG;
    if (!e->sum) {
        e->sum = skf_calloc(columns, sizeof *e->sum);
        if (!e->sum)
            return SKF_ERR_NOMEM;
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++)
            e->sum[i] += (double)x[r * columns + i] * (double)x[r * columns + i];
    e->rows += rows;
    return SKF_OK;
}

bool is_imatrix_for(struct skf_imatrix *im, const char *tensor, const float **mean_squares, size_t *n)
{
    struct entry *e = find(im, tensor, strlen(tensor));
    if (!e)
        return false;
    for (size_t i = 0; e->sum && i < e->n; i++)
        e->mean[i] = (float)e->sum[i] / (float)(e->rows ? e->rows : 1); /* as one that is read again */
    *mean_squares = e->mean;
    *n = e->n;
    return true;
}

/* A sum over a count; what never saw a token counts evenly, as in llama.cpp. */
static enum skf_err put_mean(float sum, float count, float *mean)
{
    if (!(sum >= 0 && sum - sum == 0) || !(count >= 0 && count - count == 0))
        return SKF_ERR_FORMAT;
    *mean = count > 0 ? sum / count : 1.0f;
    return *mean - *mean == 0 ? SKF_OK : SKF_ERR_FORMAT;
}

/* ---- GGUF ---------------------------------------------------------------------------------------------------------------- */
static bool is_suffix(const char *name, const char *suffix, size_t *stem)
{
    size_t n = strlen(name), s = strlen(suffix);
    *stem = n - s;
    return n >= s && memcmp(name + n - s, suffix, s) == 0;
}

static enum skf_err read_floats(const struct skf_model *m, const struct skf_tensor *t, uint64_t from, float *x, uint64_t n)
{
    uint8_t raw[4096];
    for (uint64_t at = 0; at < n;) {
        uint64_t take = SKF_MIN(n - at, sizeof raw / 4);
        SKF_TRY(skf_source_read(skf_model_source(m), t->offset + 4 * (from + at), raw, 4 * take));
        SKF_TRY(skf_dequantize(SKF_T_F32, raw, x + at, take));
        at += take;
    }
    return SKF_OK;
}

static enum skf_err read_pair(struct skf_imatrix *im, const struct skf_model *m, const struct skf_tensor *sums, size_t stem,
                              struct skf_why *why)
{
    char name[SKF_NAME_MAX + 16];
    struct entry *e;
    float count;
    int shown = (int)SKF_MIN_NAME(stem);
    (void)snprintf(name, sizeof name, "%.*s.counts", (int)stem, sums->name);
    const struct skf_tensor *counts = skf_model_find(m, name);
    if (!counts || counts->type != SKF_T_F32 || sums->type != SKF_T_F32 || sums->dims[0] == 0 ||
        counts->bytes / 4 != sums->bytes / sums->row_bytes)
        return skf_fail(why, SKF_ERR_FORMAT, "the counts of '%.*s' are missing or do not fit", shown, sums->name);
    if (find(im, sums->name, stem))
        return skf_fail(why, SKF_ERR_FORMAT, "'%.*s' stands twice", shown, sums->name);
    uint64_t columns = sums->dims[0], n = sums->bytes / 4;
    if (n > MAX_VALUES)
        return skf_fail(why, SKF_ERR_LIMIT, "'%.*s' is too large", shown, sums->name);
    SKF_TRY(add_entry(im, sums->name, stem, n, &e));
    SKF_TRY(read_floats(m, sums, 0, e->mean, n));
    for (uint64_t r = 0; r < n / columns; r++) {
        SKF_TRY(read_floats(m, counts, r, &count, 1));
        for (uint64_t i = 0; i < columns; i++)
            if (put_mean(e->mean[r * columns + i], count, &e->mean[r * columns + i]) != SKF_OK)
                return skf_fail(why, SKF_ERR_FORMAT, "'%.*s' holds values that are negative or not finite", shown, sums->name);
    }
    return SKF_OK;
}

static enum skf_err read_gguf(struct skf_imatrix *im, const struct skf_model *m, struct skf_why *why)
{
    struct skf_str kind = {0};
    size_t n, stem;
    if (!is_gguf_str(skf_model_gguf(m), "general.type", &kind) || kind.n != 7 || memcmp(kind.p, "imatrix", 7) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "no importance matrix (general.type is not \"imatrix\")");
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    for (size_t i = 0; i < n; i++)
        if (is_suffix(t[i].name, ".in_sum2", &stem))
            SKF_TRY(read_pair(im, m, &t[i], stem, why));
    return SKF_OK;
}

/* ---- the older form -------------------------------------------------------------------------------------------------------- */
static enum skf_err read_entry(struct skf_imatrix *im, struct skf_reader *r)
{
    uint32_t length, calls, n;
    const uint8_t *name, *values;
    struct entry *e;
    SKF_TRY(skf_get_u32(r, &length));
    if (length == 0 || length > SKF_NAME_MAX)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(r, length, &name));
    SKF_TRY(skf_get_u32(r, &calls));
    SKF_TRY(skf_get_u32(r, &n));
    if (!is_clean_name((const char *)name, length) || calls > INT32_MAX || n == 0 || n > MAX_VALUES)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(r, 4 * (uint64_t)n, &values));
    if (find(im, (const char *)name, length))
        return SKF_ERR_FORMAT;
    SKF_TRY(add_entry(im, (const char *)name, length, n, &e));
    SKF_TRY(skf_dequantize(SKF_T_F32, values, e->mean, n));
    for (uint32_t i = 0; i < n; i++)
        SKF_TRY(put_mean(e->mean[i], calls ? (float)calls : 1.0f, &e->mean[i]));
    return SKF_OK;
}

static enum skf_err read_older(struct skf_imatrix *im, const struct skf_source *src, struct skf_why *why)
{
    const uint8_t *p = NULL;
    uint64_t n = 0;
    uint32_t entries = 0;
    enum skf_err e = src->size ? src->span(src->ctx, 0, &p, &n) : SKF_ERR_FORMAT; /* a mapped file is one run */
    if (e == SKF_OK) {
        struct skf_reader r = skf_reader_of(p, SKF_MIN(n, src->size));
        e = skf_get_u32(&r, &entries);
        if (e == SKF_OK && (entries == 0 || entries > MAX_ENTRIES))
            e = SKF_ERR_FORMAT;
        for (uint32_t i = 0; e == SKF_OK && i < entries; i++)
            e = read_entry(im, &r);
    }
    return e == SKF_OK ? e : skf_fail(why, e, e == SKF_ERR_NOMEM ? "out of memory" : "no importance matrix");
}

static enum skf_err read_any(const struct skf_model *m, const char *name, struct skf_imatrix **im, struct skf_why *why)
{
    struct skf_why inner = {{0}};
    SKF_TRY(skf_imatrix_new(im));
    enum skf_err e = skf_model_gguf(m) ? read_gguf(*im, m, &inner) : read_older(*im, skf_model_source(m), &inner);
    if (e == SKF_OK && (*im)->n == 0)
        e = skf_fail(&inner, SKF_ERR_FORMAT, "an importance matrix of no tensors");
    if (e == SKF_OK)
        return e;
    skf_imatrix_close(*im);
    *im = NULL;
    return skf_fail(why, e, "%s: %s", name, inner.text[0] ? inner.text : skf_err_name(e));
}

enum skf_err skf_imatrix_open(const char *path, struct skf_imatrix **im, struct skf_why *why)
{
    struct skf_model *m;
    *im = NULL;
    SKF_TRY(skf_model_open(path, &m, why));
    enum skf_err e = read_any(m, path, im, why);
    skf_model_close(m);
    return e;
}

enum skf_err skf_imatrix_open_source(const struct skf_source *src, const char *name, struct skf_imatrix **im, struct skf_why *why)
{
    struct skf_model *m;
    *im = NULL;
    SKF_TRY(skf_model_open_source(src, name, &m, why));
    enum skf_err e = read_any(m, name, im, why);
    skf_model_close(m);
    return e;
}

/* ---- out ------------------------------------------------------------------------------------------------------------------- */
static enum skf_err put_texts(struct skf_gguf_out *w, const char *text)
{
    struct skf_buf raw = SKF_BUF_INIT(1 << 16);
    enum skf_err e = skf_buf_u64(&raw, strlen(text));
    if (e == SKF_OK)
        e = skf_buf_str(&raw, text);
    if (e == SKF_OK) {
        static const char key[] = "imatrix.datasets";
        struct skf_gguf_kv kv = {.key = {key, sizeof key - 1}};
        kv.value = (struct skf_gguf_value){.type = SKF_GGUF_STRING, .is_array = true, .count = 1, .raw = raw.data, .raw_len = raw.len};
        e = skf_gguf_out_kv(w, &kv);
    }
    skf_buf_free(&raw);
    return e;
}

static enum skf_err put_entry(struct skf_gguf_out *w, const struct entry *e)
{
    char name[SKF_NAME_MAX + 16];
    struct skf_tensor t = {.name = name, .type = SKF_T_F32, .n_dims = 2, .dims = {e->n, 1, 1, 1, 1, 1, 1, 1}};
    (void)snprintf(name, sizeof name, "%.*s.in_sum2", SKF_NAME_MAX, e->name);
    SKF_TRY(skf_gguf_out_tensor(w, &t));
    (void)snprintf(name, sizeof name, "%.*s.counts", SKF_NAME_MAX, e->name);
    t.dims[0] = 1;
    return skf_gguf_out_tensor(w, &t);
}

static enum skf_err put_float(struct skf_gguf_out *w, float f, struct skf_why *why)
{
    uint8_t raw[4];
    SKF_TRY(skf_quantize(SKF_T_F32, &f, raw, 1));
    return skf_gguf_out_data(w, raw, sizeof raw, why);
}

enum skf_err skf_imatrix_save(const struct skf_imatrix *im, const char *path, const char *text, size_t tokens, struct skf_why *why)
{
    struct skf_gguf_out *w = NULL;
    enum skf_err e = skf_gguf_out_new(32, &w);
    for (size_t i = 0; e == SKF_OK && i < im->n; i++)
        e = im->all[i].sum ? SKF_OK : SKF_ERR_ARG;
    if (e == SKF_OK)
        e = skf_gguf_out_str(w, "general.type", "imatrix");
    if (e == SKF_OK)
        e = put_texts(w, text);
    if (e == SKF_OK) /* llama.cpp counts in chunks of so many tokens */
        e = skf_gguf_out_u32(w, "imatrix.chunk_count", 1);
    if (e == SKF_OK)
        e = skf_gguf_out_u32(w, "imatrix.chunk_size", (uint32_t)tokens);
    for (size_t i = 0; e == SKF_OK && i < im->n; i++)
        e = put_entry(w, &im->all[i]);
    if (e != SKF_OK) {
        e = skf_fail(why, e, "%s: cannot be written (%s)", path, skf_err_name(e));
        goto out;
    }
    SKF_GO(e, skf_gguf_out_begin(w, path, why));
    for (size_t i = 0; i < im->n; i++) {
        for (size_t k = 0; k < im->all[i].n; k++)
            SKF_GO(e, put_float(w, (float)im->all[i].sum[k], why));
        SKF_GO(e, put_float(w, (float)im->all[i].rows, why));
    }
    e = skf_gguf_out_commit(w, why);
out:
    skf_gguf_out_free(w);
    return e;
}
