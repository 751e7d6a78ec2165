/*
 * Versions that go (`skiff versions MODEL --remove VERSION`).
 *
 * A version may go when no channel, pin or box has to do with it.  The registry forgets it in one transaction, in which
 * what it leaves on the disk is noted; then files go that nothing else needs, and last the note.  Whatever ends that early,
 * the next start goes on with it.  Signed metadata may list the version and its deltas for a while yet: nobody is assigned
 * what the registry does not know, and nothing of it is sent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "distributor/centre_priv.h"
#include "distributor/manifest.h"

/* ---- what others need ------------------------------------------------------------------------------------------ */
struct marks {
    uint8_t *digests; /* in order */
    uint64_t n;
    bool *is_needed;
    const struct skf_reg_leftover *gone; /* adapters of its content do not count; NULL: all do */
};

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, SKF_DIGEST);
}

static void mark(struct marks *m, const uint8_t *digests, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *at = bsearch(digests + i * SKF_DIGEST, m->digests, m->n, SKF_DIGEST, by_digest);
        if (at)
            m->is_needed[(uint64_t)(at - m->digests) / SKF_DIGEST] = true;
    }
}

static enum skf_err read_manifest(struct skf_registry *r, const char *model, const char *version,
                                  Skiff__V1__Manifest **m, struct skf_why *why)
{
    uint8_t *packed;
    size_t n;
    SKF_TRY(skf_registry_manifest(r, model, version, &packed, &n, why));
    enum skf_err e = skf_manifest_read(packed, n, m, why);
    skf_free(packed);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s %s", model, version);
}

struct versions {
    struct skf_reg_version *list;
    size_t n, cap;
};

static enum skf_err note_version(void *ctx, const struct skf_reg_version *v)
{
    struct versions *all = ctx;
    if (all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 64;
        struct skf_reg_version *more = skf_realloc(all->list, cap * sizeof *more);
        if (!more)
            return SKF_ERR_NOMEM;
        all->list = more;
        all->cap = cap;
    }
    all->list[all->n++] = *v;
    return SKF_OK;
}

static enum skf_err mark_adapter(void *ctx, const struct skf_reg_adapter *a)
{
    struct marks *m = ctx;
    const struct skf_reg_leftover *gone = m->gone;
    if (!gone || !gone->is_gone ||
        (memcmp(a->from, gone->root, SKF_DIGEST) != 0 && memcmp(a->to, gone->root, SKF_DIGEST) != 0))
        mark(m, a->digests, a->n);
    return SKF_OK;
}

/* Marks what the versions and adapters that stay need; `but` is a version that does not (NULL: all stay). */
static enum skf_err mark_all(struct skf_centre *c, struct marks *m, const struct skf_reg_version *but, struct skf_why *why)
{
    struct versions all = {.n = 0};
    enum skf_err e;
    SKF_GO(e, skf_registry_each_version(c->registry, NULL, note_version, &all));
    for (size_t i = 0; i < all.n; i++) {
        const struct skf_reg_version *v = &all.list[i];
        Skiff__V1__Manifest *manifest = NULL;
        if (but && strcmp(v->model, but->model) == 0 && strcmp(v->version, but->version) == 0)
            continue;
        SKF_GO(e, read_manifest(c->registry, v->model, v->version, &manifest, why));
        mark(m, manifest->chunk_digests.data, manifest->n_chunk_lengths);
        skf_manifest_free(manifest);
    }
    e = skf_registry_each_adapter(c->registry, mark_adapter, m);
out:
    skf_free(all.list);
    return e;
}

/* The digests of a leftover in order, each once, and without those that others need. The caller frees *digests. */
static enum skf_err needless(struct skf_centre *c, const struct skf_reg_leftover *l, const struct skf_reg_version *but,
                             uint8_t **digests, uint64_t *n, struct skf_why *why)
{
    struct marks m = {.gone = but ? l : NULL};
    enum skf_err e = SKF_OK;
    *n = 0;
    *digests = NULL;
    if (l->n == 0)
        return SKF_OK;
    m.digests = skf_memdup(l->digests, l->n * SKF_DIGEST);
    m.is_needed = skf_calloc(l->n, sizeof *m.is_needed);
    if (!m.digests || !m.is_needed) {
        e = skf_fail(why, SKF_ERR_NOMEM, "out of memory");
        goto out;
    }
    qsort(m.digests, l->n, SKF_DIGEST, by_digest);
    for (uint64_t i = 0; i < l->n; i++)
        if (m.n == 0 || memcmp(m.digests + (m.n - 1) * SKF_DIGEST, m.digests + i * SKF_DIGEST, SKF_DIGEST) != 0)
            memmove(m.digests + m.n++ * SKF_DIGEST, m.digests + i * SKF_DIGEST, SKF_DIGEST);
    SKF_GO(e, mark_all(c, &m, but, why));
    for (uint64_t i = 0; i < m.n; i++)
        if (!m.is_needed[i])
            memmove(m.digests + (*n)++ * SKF_DIGEST, m.digests + i * SKF_DIGEST, SKF_DIGEST);
    *digests = m.digests;
    m.digests = NULL;
out:
    skf_free(m.digests);
    skf_free(m.is_needed);
    return e;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */
static enum skf_err clear_deltas(struct skf_centre *c, const struct skf_reg_leftover *l, bool is_dry, struct skf_removal *out,
                                 struct skf_why *why)
{
    char path[PATH_MAX];
    struct skf_reg_delta d;
    struct stat st;
    for (size_t i = 0; i < l->n_pairs; i++) {
        const uint8_t *from = l->pairs + i * 2 * SKF_DIGEST, *to = from + SKF_DIGEST;
        SKF_TRY(skf_delta_file(c->deltas, from, to, path, sizeof path));
        if (!is_dry && skf_registry_delta(c->registry, from, to, &d, NULL) != SKF_ERR_NOT_FOUND)
            continue; /* it is back */
        if (stat(path, &st) == 0) {
            out->deltas++;
            out->delta_bytes += (uint64_t)st.st_size;
        }
        if (!is_dry && unlink(path) != 0 && errno != ENOENT)
            return skf_fail_errno(why, errno, "%s", path);
    }
    return l->n_pairs && !is_dry ? skf_sync_folder(path, why) : SKF_OK;
}

/* Counts what goes, and unless is_dry has it go. */
static enum skf_err clear(struct skf_centre *c, const struct skf_reg_leftover *l, const struct skf_reg_version *dry_of,
                          struct skf_removal *out, struct skf_why *why)
{
    struct skf_reg_version v;
    uint8_t *digests;
    uint64_t n;
    enum skf_err e;
    SKF_TRY(needless(c, l, dry_of, &digests, &n, why));
    for (uint64_t i = 0; i < n; i++) {
        uint64_t bytes = skf_chunks_length(c->chunks, digests + i * SKF_DIGEST);
        out->chunks += bytes > 0;
        out->chunk_bytes += bytes;
    }
    SKF_GO(e, clear_deltas(c, l, dry_of != NULL, out, why));
    if (dry_of)
        goto out;
    if (l->is_gone && skf_registry_by_root(c->registry, l->root, &v, NULL) == SKF_ERR_NOT_FOUND)
        skf_chunks_forget(c->chunks, l->root);
    SKF_GO(e, skf_chunks_remove(c->chunks, digests, n, why));
    e = skf_registry_leftover_done(c->registry, l->serial, why);
out:
    skf_free(digests);
    return e;
}

void skf_centre_clear(struct skf_centre *c)
{
    struct skf_why why = {{0}};
    struct skf_reg_leftover l;
    enum skf_err found = SKF_OK, e = SKF_OK;
    while (e == SKF_OK && (found = skf_registry_leftover(c->registry, &l, &why)) == SKF_OK) {
        struct skf_removal all = {0};
        e = clear(c, &l, NULL, &all, &why);
        skf_reg_leftover_clear(&l);
    }
    if (e != SKF_OK || found != SKF_ERR_NOT_FOUND)
        skf_log(SKF_LOG_WARN, "files of removed versions stay for now: %s",
                why.text[0] ? why.text : skf_err_name(e == SKF_OK ? found : e));
}

/* ---- who has to do with it ------------------------------------------------------------------------------------- */
static enum skf_err check_device(struct skf_centre *c, const struct device *d, const struct skf_reg_version *v, bool is_gone,
                                 struct skf_why *why)
{
    struct skf_target t;
    for (size_t i = 0; i < d->d.n_held; i++) {
        const struct skf_reg_held *h = &d->d.held[i];
        bool is_it = strcmp(h->model, v->model) == 0 && strcmp(h->version, v->version) == 0;
        if (!h->slot[0]) /* it lies on the box for nobody */
            continue;
        if (is_it || (is_gone && memcmp(h->root, v->root, SKF_DIGEST) == 0))
            return skf_fail(why, SKF_ERR_BUSY, "%s %s: %s holds it, as its %s version", v->model, v->version, d->d.name, h->slot);
    }
    if (skf_assign_target(c->registry, &d->d, v->model, &t, NULL) == SKF_OK && strcmp(t.version, v->version) == 0)
        return skf_fail(why, SKF_ERR_BUSY, "%s %s: %s is to run it", v->model, v->version, d->d.name);
    return SKF_OK;
}

static enum skf_err check_unused(struct skf_centre *c, const struct skf_reg_version *v, bool is_gone, struct skf_why *why)
{
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_devices && e == SKF_OK; i++)
        e = check_device(c, c->devices[i], v, is_gone, why);
    (void)pthread_mutex_unlock(&c->lock);
    if (e == SKF_OK && is_gone && is_builder_at(c->builder, v->root))
        e = skf_fail(why, SKF_ERR_BUSY, "%s %s: a delta of it is being built; try again when that is done", v->model, v->version);
    return e;
}

/* The publish lock is held: no version comes and no chunk is counted on meanwhile. */
static enum skf_err remove_locked(struct skf_centre *c, const char *model, const char *version, bool is_dry,
                                  struct skf_removal *out, struct skf_why *why)
{
    struct skf_reg_version v;
    struct skf_reg_leftover l = {.n = 0};
    Skiff__V1__Manifest *m = NULL;
    enum skf_err e;
    SKF_GO(e, skf_registry_version(c->registry, model, version, &v, why));
    SKF_GO(e, read_manifest(c->registry, model, version, &m, why));
    SKF_GO(e, skf_registry_remove(c->registry, model, version, m->chunk_digests.data, m->n_chunk_lengths, true, &l, why));
    SKF_GO(e, check_unused(c, &v, l.is_gone, why));
    if (!is_dry) {
        skf_reg_leftover_clear(&l);
        SKF_GO(e, skf_registry_remove(c->registry, model, version, m->chunk_digests.data, m->n_chunk_lengths, false, &l, why));
    }
    e = clear(c, &l, is_dry ? &v : NULL, out, why);
    if (e != SKF_OK && !is_dry)
        e = skf_fail_prefix(why, e, "%s %s: removed, but not all of its files yet; the next start goes on", model, version);
out:
    skf_reg_leftover_clear(&l);
    skf_manifest_free(m);
    return e;
}

enum skf_err skf_centre_remove(struct skf_centre *c, const char *model, const char *version, bool is_dry,
                               struct skf_removal *out, struct skf_why *why)
{
    *out = (struct skf_removal){0};
    (void)pthread_mutex_lock(&c->publish_lock);
    enum skf_err e = remove_locked(c, model, version, is_dry, out, why);
    (void)pthread_mutex_unlock(&c->publish_lock);
    return e;
}
