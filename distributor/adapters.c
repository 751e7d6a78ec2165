/* Adapters from the publisher to the delta's encoder (adapters.h). */
#include "distributor/adapters.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/adapter.h"

/* ---- from the publisher ---------------------------------------------------------------------------------------- */
enum skf_err skf_adapters_take(struct skf_registry *r, const Skiff__V1__PublishAdapter *a,
                               const struct skf_reg_version *v, struct skf_reg_adapter *out, struct skf_why *why)
{
    struct skf_reg_version base;
    *out = (struct skf_reg_adapter){.digests = NULL};
    if (a->size == 0 || a->size > SKF_ADAPTER_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "adapter: %llu bytes; 1 to %u are taken", (unsigned long long)a->size,
                        SKF_ADAPTER_MAX);
    uint64_t n = (a->size + SKF_ADAPTER_PIECE - 1) / SKF_ADAPTER_PIECE;
    if (a->digests.len != n * SKF_DIGEST)
        return skf_fail(why, SKF_ERR_FORMAT, "adapter: digests and size do not agree");
    if (!is_registry_name(a->base_version))
        return skf_fail(why, SKF_ERR_ARG, "adapter: its base: names are 1 to 128 of [A-Za-z0-9._-]");
    enum skf_err e = skf_registry_version(r, v->model, a->base_version, &base, why);
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "adapter");
    if (memcmp(base.root, v->root, SKF_DIGEST) == 0)
        return skf_fail(why, SKF_ERR_ARG, "adapter: %s %s has the very content of its base %s", v->model, v->version,
                        base.version);
    out->digests = skf_memdup(a->digests.data, a->digests.len);
    if (!out->digests)
        return skf_fail(why, SKF_ERR_NOMEM, "adapter: out of memory");
    out->n = n;
    out->size = a->size;
    memcpy(out->from, base.root, SKF_DIGEST);
    memcpy(out->to, v->root, SKF_DIGEST);
    return SKF_OK;
}

void skf_adapters_said(struct skf_registry *r, const struct skf_reg_delta *d, char said[SKF_ADAPTER_SAID])
{
    struct skf_reg_adapter a;
    said[0] = 0;
    if (skf_registry_adapter(r, d->from, d->to, &a, NULL) == SKF_OK)
        memcpy(said, a.said, SKF_ADAPTER_SAID);
    skf_reg_adapter_clear(&a);
}

/* ---- to the encoder -------------------------------------------------------------------------------------------- */
/* The adapter's file, put together of its pieces and checked. */
static enum skf_err file_of(struct skf_chunks *c, const struct skf_reg_adapter *a, const struct skf_progress *progress,
                            char path[PATH_MAX], struct skf_why *why)
{
    struct skf_merkle m;
    uint32_t *lengths = skf_calloc(a->n, sizeof *lengths);
    if (!lengths)
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    struct skf_chunk_list l = {a->digests, lengths, a->n, a->size, {0}};
    skf_merkle_init(&m);
    for (uint64_t i = 0; i < a->n; i++) {
        lengths[i] = skf_reg_adapter_length(a, i);
        skf_merkle_add(&m, a->digests + i * SKF_DIGEST, lengths[i]);
    }
    skf_merkle_root(&m, l.root);
    enum skf_err e = skf_chunks_file(c, &l, progress, path, why);
    skf_free(lengths);
    return e;
}

/* The encoder names the adapter by its scratch file, which means nothing to a publisher. */
static void keep_reason(char said[SKF_ADAPTER_SAID], const char *text, const char *path)
{
    size_t n = strlen(path);
    if (n && strncmp(text, path, n) == 0 && strncmp(text + n, ": ", 2) == 0)
        text += n + 2;
    (void)snprintf(said, SKF_ADAPTER_SAID, "%.*s", SKF_ADAPTER_SAID - 1, text);
}

enum skf_err skf_adapters_try(struct skf_chunks *c, const struct skf_reg_adapter *a, const struct skf_model *old,
                              const struct skf_model *neu, const char *path, const struct skf_delta_opts *opts,
                              char said[SKF_ADAPTER_SAID], bool *is_made, struct skf_why *why)
{
    struct skf_delta_opts with_it = *opts;
    struct skf_delta_stats with, without;
    struct skf_adapter *adapter = NULL;
    struct skf_why not = {{0}};
    char file[PATH_MAX] = "";
    enum skf_err e;
    *is_made = false;
    SKF_GO(e, file_of(c, a, &opts->progress, file, &not));
    SKF_GO(e, skf_adapter_open(file, old, "the base", &adapter, &not));
    with_it.adapter = adapter;
    SKF_GO(e, skf_delta_build(old, neu, path, &with_it, &with, &not));
    if (with.coding_chunks[SKF_CODE_ADAPTER] == 0) {
        (void)snprintf(said, SKF_ADAPTER_SAID, "nothing is smaller for it: the version is not its base with this merged");
        goto out;
    }
    SKF_GO(e, skf_delta_build(old, neu, NULL, opts, &without, &not));
    *is_made = with.bytes < without.bytes;
    if (!*is_made)
        (void)snprintf(said, SKF_ADAPTER_SAID, "the delta without it is no larger");
out:
    skf_adapter_close(adapter);
    if (e == SKF_ERR_CANCELLED)
        return skf_fail(why, e, "%s", not.text);
    if (e != SKF_OK)
        keep_reason(said, not.text[0] ? not.text : skf_err_name(e), file);
    return SKF_OK;
}
