/* Manifests made and checked (manifest.h). */
#include "distributor/manifest.h"

#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "model/runs.h"
#include "proto/msg.h"

#define MEMORY_FOR_RUN                                                                                                 \
    (64u << 20) /* a rough allowance beside the weights: cache and working memory of a small context */

/* ---- making ---------------------------------------------------------------------------------------------------- */
struct parts {
    Skiff__V1__ManifestTensor *tensors;
    Skiff__V1__ManifestTensor **list;
    uint8_t *digests;
    uint32_t *lengths;
    uint64_t *dims; /* four a tensor */
    char architecture[64], tokenizer[64];
};

static void free_parts(struct parts *x)
{
    skf_free(x->tensors);
    skf_free(x->list);
    skf_free(x->digests);
    skf_free(x->lengths);
    skf_free(x->dims);
}

static enum skf_err fill_tensors(const struct skf_model *m, Skiff__V1__Manifest *out, struct parts *x)
{
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    if (n == 0)
        return SKF_OK;
    x->tensors = skf_calloc(n, sizeof *x->tensors);
    x->list = skf_calloc(n, sizeof *x->list);
    x->dims = skf_calloc(n, SKF_MAX_DIMS * sizeof *x->dims);
    if (!x->tensors || !x->list || !x->dims)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        Skiff__V1__ManifestTensor *to = &x->tensors[i];
        skiff__v1__manifest_tensor__init(to);
        to->name = (char *)(uintptr_t)t[i].name;
        to->type = (uint32_t)t[i].type;
        to->n_dims = t[i].n_dims;
        to->dims = x->dims + i * SKF_MAX_DIMS;
        memcpy(to->dims, t[i].dims, t[i].n_dims * sizeof *to->dims);
        to->offset = t[i].offset;
        to->bytes = t[i].bytes;
        x->list[i] = to;
    }
    out->n_tensors = n;
    out->tensors = x->list;
    return SKF_OK;
}

static enum skf_err fill_chunks(const struct skf_cut *cut, Skiff__V1__Manifest *out, struct parts *x,
                                struct skf_why *why)
{
    if (cut->n > SKF_MANIFEST_MAX / SKF_DIGEST)
        return skf_fail(why, SKF_ERR_LIMIT, "%llu chunks: more than one manifest holds", (unsigned long long)cut->n);
    x->digests = skf_alloc(cut->n * SKF_DIGEST);
    x->lengths = skf_calloc(cut->n, sizeof *x->lengths);
    if (!x->digests || !x->lengths)
        return SKF_ERR_NOMEM;
    for (uint64_t i = 0; i < cut->n; i++) {
        memcpy(x->digests + i * SKF_DIGEST, cut->chunks[i].digest, SKF_DIGEST);
        x->lengths[i] = cut->chunks[i].length;
    }
    out->chunk_digests = (ProtobufCBinaryData){cut->n * SKF_DIGEST, x->digests};
    out->n_chunk_lengths = cut->n;
    out->chunk_lengths = x->lengths;
    return SKF_OK;
}

static void fill_needs(const struct skf_model *m, Skiff__V1__ManifestNeeds *needs, struct parts *x)
{
    const struct skf_gguf *g = skf_model_gguf(m);
    struct skf_str s;
    if (g && is_gguf_str(g, "general.architecture", &s) && s.n < sizeof x->architecture && s.n > 0) {
        memcpy(x->architecture, s.p, s.n);
        x->architecture[s.n] = 0;
        needs->architecture = x->architecture;
        if (is_tokenizer_named(g, x->tokenizer))
            needs->tokenizer = x->tokenizer;
        needs->runtime_level = skf_runs_level(x->architecture, s.n, x->tokenizer);
        needs->memory_bytes = skf_model_source(m)->size + MEMORY_FOR_RUN;
    }
}

enum skf_err skf_manifest_make(const struct skf_model *m, const struct skf_cut *cut, const struct skf_manifest_opts *o,
                               uint8_t **p, size_t *n, struct skf_why *why)
{
    Skiff__V1__Manifest out = SKIFF__V1__MANIFEST__INIT;
    Skiff__V1__ManifestFile file = SKIFF__V1__MANIFEST_FILE__INIT, *files[1] = {&file};
    Skiff__V1__ManifestNeeds needs = SKIFF__V1__MANIFEST_NEEDS__INIT;
    struct parts x = {.tensors = NULL};
    enum skf_err e = SKF_OK;
    out.format = SKF_MANIFEST_FORMAT;
    out.model = (char *)(uintptr_t)o->model;
    out.version = (char *)(uintptr_t)o->version;
    out.file_format = (char *)(uintptr_t)skf_format_name(skf_model_format(m));
    file.name = (char *)(uintptr_t)o->file;
    file.size = cut->size;
    out.n_files = 1;
    out.files = files;
    out.root = (ProtobufCBinaryData){SKF_DIGEST, (uint8_t *)(uintptr_t)cut->root};
    out.size = cut->size;
    out.needs = &needs;
    if (o->notes)
        out.notes = (char *)(uintptr_t)o->notes;
    out.created = o->created;
    fill_needs(m, &needs, &x);
    SKF_GO(e, fill_tensors(m, &out, &x));
    SKF_GO(e, fill_chunks(cut, &out, &x, why));
    SKF_GO(e, skf_msg_pack(&out.base, p, n));
    if (*n > SKF_MANIFEST_MAX) {
        skf_free(*p);
        e = skf_fail(why, SKF_ERR_LIMIT, "manifest of %zu bytes: more than one message holds", *n);
    }
out:
    free_parts(&x);
    if (e == SKF_ERR_NOMEM)
        (void)skf_fail(why, e, "manifest: out of memory");
    return e;
}

/* ---- checking -------------------------------------------------------------------------------------------------- */
static bool is_file_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= 255 && !strchr(s, '/') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static enum skf_err check_files(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    uint64_t sum = 0;
    if (m->n_files == 0)
        return skf_fail(why, SKF_ERR_FORMAT, "manifest: names no file");
    for (size_t i = 0; i < m->n_files; i++) {
        if (!is_file_name(m->files[i]->name))
            return skf_fail(why, SKF_ERR_FORMAT, "manifest: file %zu: bad name", i);
        if (!is_add_ok(sum, m->files[i]->size, &sum))
            return skf_fail(why, SKF_ERR_FORMAT, "manifest: files are larger than any content");
    }
    return sum == m->size ? SKF_OK : skf_fail(why, SKF_ERR_FORMAT, "manifest: its files do not come to its size");
}

static enum skf_err check_tensors(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    uint64_t at = 0, end;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Skiff__V1__ManifestTensor *t = m->tensors[i];
        if (t->offset < at || !is_add_ok(t->offset, t->bytes, &end) || end > m->size)
            return skf_fail(why, SKF_ERR_FORMAT, "manifest: tensor %.100s lies outside the content or on another",
                            t->name);
        at = end;
    }
    return SKF_OK;
}

static enum skf_err check(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    if (m->format != SKF_MANIFEST_FORMAT)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "manifest: format %u is not known here", m->format);
    if (!is_registry_name(m->model) || !is_registry_name(m->version))
        return skf_fail(why, SKF_ERR_FORMAT, "manifest: names are 1 to 128 of [A-Za-z0-9._-]");
    if (strlen(m->notes) > SKF_MANIFEST_NOTES_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "manifest: notes are longer than %u bytes", SKF_MANIFEST_NOTES_MAX);
    if (m->root.len != SKF_DIGEST || m->n_chunk_lengths == 0 || m->chunk_digests.len % SKF_DIGEST != 0 ||
        m->chunk_digests.len / SKF_DIGEST != m->n_chunk_lengths)
        return skf_fail(why, SKF_ERR_FORMAT, "manifest: digests and lengths do not agree");
    SKF_TRY(check_files(m, why));
    SKF_TRY(check_tensors(m, why));
    struct skf_chunk_list l = skf_manifest_chunks(m);
    enum skf_err e = skf_chunk_list_check(&l, why);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "manifest");
}

enum skf_err skf_manifest_read(const void *p, size_t n, Skiff__V1__Manifest **m, struct skf_why *why)
{
    SKF_TRY(SKF_UNPACK(skiff__v1__manifest, Skiff__V1__Manifest, p, n, SKF_MANIFEST_MAX, m, why));
    enum skf_err e = check(*m, why);
    if (e != SKF_OK) {
        skf_manifest_free(*m);
        *m = NULL;
    }
    return e;
}

void skf_manifest_free(Skiff__V1__Manifest *m)
{
    if (m)
        skf_msg_free(&m->base);
}

struct skf_chunk_list skf_manifest_chunks(const Skiff__V1__Manifest *m)
{
    struct skf_chunk_list l = {m->chunk_digests.data, m->chunk_lengths, m->n_chunk_lengths, m->size, {0}};
    memcpy(l.root, m->root.data, SKF_DIGEST);
    return l;
}

void skf_manifest_version(const Skiff__V1__Manifest *m, struct skf_reg_version *v)
{
    *v = (struct skf_reg_version){.size = m->size, .n_chunks = m->n_chunk_lengths, .created = m->created};
    (void)snprintf(v->model, sizeof v->model, "%s", m->model);
    (void)snprintf(v->version, sizeof v->version, "%s", m->version);
    memcpy(v->root, m->root.data, SKF_DIGEST);
    v->runtime_level = m->needs ? m->needs->runtime_level : 0;
}
