/* Opening a file of any format, and the ordered, searchable list of its tensors (model.h). */
#include "model/model.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "model/folder.h"
#include "model/model_priv.h"

struct skf_model {
    struct skf_map map; /* zero when the bytes are somebody else's */
    struct skf_folder *folder; /* whose bytes they are; NULL for none */
    struct skf_source src;
    enum skf_format format;
    struct skf_gguf *gguf;
    char *names; /* of a safetensors file; a GGUF file's stand with its head */
    struct skf_tensor *tensors;
    const struct skf_tensor **by_name;
    size_t n;
};

const char *skf_format_name(enum skf_format f)
{
    switch (f) {
    case SKF_FORMAT_GGUF:
        return "gguf";
    case SKF_FORMAT_SAFETENSORS:
        return "safetensors";
    case SKF_FORMAT_BYTES:
        break;
    }
    return "bytes";
}

static int by_offset(const void *a, const void *b)
{
    const struct skf_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1; /* empty ones before what stands at the same place */
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    const struct skf_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static enum skf_err order(struct skf_model *m, struct skf_why *why)
{
    m->by_name = skf_calloc(m->n, sizeof(struct skf_tensor *));
    if (!m->by_name)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for its tensors");
    if (m->n)
        qsort(m->tensors, m->n, sizeof *m->tensors, by_offset);
    for (size_t i = 0; i < m->n; i++) {
        const struct skf_tensor *t = &m->tensors[i];
        m->by_name[i] = t;
        if (i && t->offset < t[-1].offset + t[-1].bytes)
            return skf_fail(why, SKF_ERR_FORMAT, "tensors '%.*s' and '%.*s' overlap",
                            (int)SKF_MIN_NAME(strlen(t[-1].name)), t[-1].name, (int)SKF_MIN_NAME(strlen(t->name)), t->name);
    }
    if (m->n)
        qsort(m->by_name, m->n, sizeof(struct skf_tensor *), by_name);
    return SKF_OK;
}

/* No two of one name: among the files of a set. Called when they are in order. */
static enum skf_err check_names(const struct skf_model *m, struct skf_why *why)
{
    for (size_t i = 1; i < m->n; i++)
        if (strcmp(m->by_name[i - 1]->name, m->by_name[i]->name) == 0)
            return skf_fail(why, SKF_ERR_FORMAT, "two tensors '%.*s'", (int)SKF_MIN_NAME(strlen(m->by_name[i]->name)),
                            m->by_name[i]->name);
    return SKF_OK;
}

static enum skf_err read_format(struct skf_model *m, struct skf_why *why)
{
    uint8_t magic[4];
    if (m->src.size >= sizeof magic) {
        SKF_TRY(skf_source_read(&m->src, 0, magic, sizeof magic));
        if (memcmp(magic, "GGUF", sizeof magic) == 0) {
            m->format = SKF_FORMAT_GGUF;
            SKF_TRY(skf_gguf_parse(&m->src, &m->gguf, why));
            m->n = m->gguf->n_tensors;
            m->tensors = skf_memdup(m->gguf->tensors, m->n * sizeof *m->tensors);
            if (!m->tensors)
                return skf_fail(why, SKF_ERR_NOMEM, "no memory for its tensors");
            return order(m, why);
        }
    }
    if (!is_safetensors(&m->src))
        return SKF_OK;
    m->format = SKF_FORMAT_SAFETENSORS;
    SKF_TRY(skf_safetensors_parse(&m->src, &m->tensors, &m->n, &m->names, why));
    SKF_TRY(order(m, why));
    return check_names(m, why);
}

/* Takes the map, also when it fails. */
static enum skf_err open_any(struct skf_map *take_map, const struct skf_source *src, const char *name,
                             struct skf_model **out, struct skf_why *why)
{
    struct skf_model *m = skf_calloc(1, sizeof *m);
    if (!m) {
        skf_map_close(take_map);
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", name);
    }
    m->map = *take_map;
    m->src = *src;
    enum skf_err e = read_format(m, why);
    if (e != SKF_OK) {
        skf_model_close(m);
        return skf_fail_prefix(why, e, "%s", name);
    }
    *out = m;
    return SKF_OK;
}

enum skf_err skf_model_open(const char *path, struct skf_model **m, struct skf_why *why)
{
    struct skf_map map = {0};
    *m = NULL;
    SKF_TRY(skf_map_open(path, &map, why));
    struct skf_source src = skf_map_source(&map);
    return open_any(&map, &src, path, m, why);
}

enum skf_err skf_model_open_folder(const char *path, struct skf_model **m, struct skf_why *why)
{
    struct skf_folder *f;
    *m = NULL;
    SKF_TRY(skf_folder_open(path, &f, why));
    enum skf_err e = skf_model_open_source(skf_folder_source(f), path, m, why);
    if (e == SKF_OK)
        (*m)->folder = f;
    else
        skf_folder_close(f);
    return e;
}

enum skf_err skf_model_open_source(const struct skf_source *src, const char *name, struct skf_model **m,
                                   struct skf_why *why)
{
    struct skf_map none = {0};
    *m = NULL;
    return open_any(&none, src, name, m, why);
}

void skf_model_close(struct skf_model *m)
{
    if (!m)
        return;
    skf_gguf_free(m->gguf);
    skf_free(m->names);
    skf_free(m->tensors);
    skf_free(m->by_name);
    skf_map_close(&m->map);
    skf_folder_close(m->folder);
    skf_free(m);
}

enum skf_format skf_model_format(const struct skf_model *m) { return m->format; }
const struct skf_source *skf_model_source(const struct skf_model *m) { return &m->src; }
const struct skf_gguf *skf_model_gguf(const struct skf_model *m) { return m->gguf; }

const struct skf_tensor *skf_model_tensors(const struct skf_model *m, size_t *n)
{
    *n = m->n;
    return m->n ? m->tensors : NULL;
}

const struct skf_tensor *skf_model_find(const struct skf_model *m, const char *name)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, m->by_name[mid]->name);
        if (c == 0)
            return m->by_name[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
