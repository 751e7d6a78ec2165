/*
 * Receiving one version: TUF's client workflow, the manifest, the delta's index, and then (fetch.c) its chunks.  Each thing is
 * opened only after its signature chain and digest were checked; what was verified is kept in a file, so that an installation that
 * goes on after a break or a restart does not ask for it again (the file is checked like a fresh answer).
 */
#include "agent/agent_priv.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"
#include "model/runs.h"
#include "proto/manifest.pb-c.h"
#include "proto/msg.h"
#include "trust/tuf.h"

#define MANIFEST_MAX  (64u << 20)
#define INDEX_MAX     (256u << 20)
#define SILENCES      5 /* in a row, before a silent centre fails the installation */

struct verified {
    uint8_t *manifest;
    size_t manifest_len;
    struct skf_plan plan;
    bool is_held;        /* the version stands in the store already */
    struct skf_skd *skd; /* NULL when there is no delta */
    char source[SKF_NAME_MAX]; /* the version that the delta starts at; "" for the empty content */
};

bool is_transient(enum skf_err e)
{
    switch (e) {
    case SKF_ERR_NOMEM:
    case SKF_ERR_IO:
    case SKF_ERR_FULL:
    case SKF_ERR_BUSY:
    case SKF_ERR_NET:
    case SKF_ERR_TIMEOUT:
        return true;
    default:
        return false;
    }
}

static void verified_clear(struct verified *v)
{
    skf_free(v->manifest);
    skf_free(v->plan.chunks);
    skf_skd_free(v->skd);
    memset(v, 0, sizeof *v);
}

static enum skf_err fetch_meta(void *ctx, const char *name, struct skf_buf *out, struct skf_why *why)
{
    const struct skf_install *in = ctx;
    SKF_TRY(in->link.meta(in->link.ctx, in->cancel, name, out, why));
    skf_pace_charge(in->pace, out->len, skf_now_ns()); /* what comes next waits for it too */
    return SKF_OK;
}

/* ---- one signed target ------------------------------------------------------------------------------------------------ */

/* The bytes of `path` as TUF lists them: from the file kept of an earlier try, or from the centre. */
static enum skf_err get_target(const struct skf_install *in, struct skf_tuf *tuf, const char *path, const char *suffix,
                               size_t limit, uint8_t **data, size_t *n, struct skf_why *why)
{
    struct skf_tuf_target t;
    char name[SKF_NAME_MAX + 16], file[SKF_AGENT_PATH];
    *data = NULL;
    SKF_TRY(skf_tuf_find(tuf, skf_now_unix(), path, fetch_meta, (void *)(uintptr_t)in, &t, why));
    if (t.length > limit)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: %llu bytes, at most %zu are taken", path, (unsigned long long)t.length,
                        limit);
    (void)snprintf(name, sizeof name, "%s%s", in->assign.model, suffix);
    SKF_TRY(skf_path(file, sizeof file, in->cache_dir, name));
    if (skf_file_read(file, (size_t)t.length, data, n, NULL) == SKF_OK) {
        if (skf_tuf_check(&t, path, *data, *n, NULL) == SKF_OK)
            return SKF_OK;
        skf_free(*data);
        *data = NULL;
    }
    struct skf_buf b = SKF_BUF_INIT((size_t)t.length);
    enum skf_err e = in->link.meta(in->link.ctx, in->cancel, path, &b, why);
    skf_pace_charge(in->pace, b.len, skf_now_ns());
    if (e == SKF_OK)
        e = skf_tuf_check(&t, path, b.data, b.len, why);
    if (e == SKF_OK)
        e = skf_file_write(file, b.data, b.len, 0600, why);
    if (e == SKF_OK && !b.len)
        e = skf_fail(why, SKF_ERR_FORMAT, "%s: empty", path);
    if (e == SKF_OK)
        *data = skf_buf_steal(&b, n);
    skf_buf_free(&b);
    return e;
}

/* ---- the manifest ------------------------------------------------------------------------------------------------------ */

static enum skf_err take_chunks(const Skiff__V1__Manifest *m, struct skf_plan *plan, struct skf_why *why)
{
    struct skf_merkle tree;
    uint8_t root[SKF_DIGEST];
    if (m->root.len != SKF_DIGEST || m->chunk_digests.len / SKF_DIGEST != m->n_chunk_lengths ||
        m->chunk_digests.len % SKF_DIGEST)
        return skf_fail(why, SKF_ERR_FORMAT, "digests and lengths of its chunks do not fit together");
    plan->n_chunks = m->n_chunk_lengths;
    plan->size = m->size;
    plan->chunks = skf_calloc(plan->n_chunks + 1, sizeof *plan->chunks);
    if (!plan->chunks)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for %llu chunks", (unsigned long long)plan->n_chunks);
    skf_merkle_init(&tree);
    for (uint64_t i = 0; i < plan->n_chunks; i++) {
        struct skf_store_chunk *c = &plan->chunks[i];
        memcpy(c->digest, m->chunk_digests.data + i * SKF_DIGEST, SKF_DIGEST);
        c->length = m->chunk_lengths[i];
        if (!c->length || c->length > SKF_CHUNK_MAX)
            return skf_fail(why, SKF_ERR_FORMAT, "chunk %llu has %u bytes", (unsigned long long)i, c->length);
        skf_merkle_add(&tree, c->digest, c->length);
    }
    skf_merkle_root(&tree, root);
    memcpy(plan->root, m->root.data, SKF_DIGEST);
    if (tree.size != m->size || memcmp(root, plan->root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "its chunks do not come to its root");
    return SKF_OK;
}

/* What the worker would refuse once all is here is refused before any of it is. */
static enum skf_err check_runs(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    const char *architecture = m->needs->architecture;
    if (!is_arch_known(architecture, strlen(architecture), NULL))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "architecture \"%.64s\" is not known to this agent, which knows %s", architecture,
                        skf_arch_names());
    if (m->needs->tokenizer[0] && !is_tokenizer_known(m->needs->tokenizer))
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "tokenizer \"%.64s\" is not known to this agent", m->needs->tokenizer);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct skf_type_info *info = skf_type_info(m->tensors[i]->type);
        if (!is_runs_type(m->tensors[i]->type))
            return skf_fail(why, SKF_ERR_UNSUPPORTED, "tensor %.100s: this agent's runtime cannot compute with type %s (%u)", m->tensors[i]->name,
                            info ? info->name : "unknown", m->tensors[i]->type);
    }
    return SKF_OK;
}

static enum skf_err check_needs(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    if (!m->needs)
        return SKF_OK;
    if (m->needs->runtime_level > SKF_RUNTIME_LEVEL)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "needs runtime level %u, this box has %u", m->needs->runtime_level,
                        SKF_RUNTIME_LEVEL);
    if (m->needs->architecture[0])
        SKF_TRY(check_runs(m, why));
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
    if (m->needs->memory_bytes > memory)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "needs %llu bytes of memory, this box has %llu",
                        (unsigned long long)m->needs->memory_bytes, (unsigned long long)memory);
    return SKF_OK;
}

static enum skf_err read_manifest(const struct skf_install *in, struct verified *v, struct skf_why *why)
{
    const struct skf_assign *a = &in->assign;
    Skiff__V1__Manifest *m;
    enum skf_err e = SKF_UNPACK(skiff__v1__manifest, Skiff__V1__Manifest, v->manifest, v->manifest_len, MANIFEST_MAX, &m,
                                why);
    if (e == SKF_OK) {
        if (m->format != 1)
            e = skf_fail(why, SKF_ERR_UNSUPPORTED, "manifest format %u, this agent knows 1", m->format);
        else if (strcmp(m->model, a->model) != 0 || strcmp(m->version, a->version) != 0)
            e = skf_fail(why, SKF_ERR_FORMAT, "it speaks of %.128s %.128s", m->model, m->version);
        else if ((e = check_needs(m, why)) == SKF_OK)
            e = take_chunks(m, &v->plan, why);
        skf_msg_free(&m->base);
    }
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", a->manifest);
}

/* ---- the delta's index --------------------------------------------------------------------------------------------------- */

static enum skf_err check_index(const struct skf_install *in, const struct verified *v, struct skf_why *why)
{
    const struct skf_skd_info *info = skf_skd_info(v->skd);
    const char *path = in->assign.delta;
    char source[SKF_HEX], result[SKF_HEX], is[SKF_AGENT_PATH];
    skf_hex(info->source_root, SKF_DIGEST, source);
    skf_hex(info->result_root, SKF_DIGEST, result);
    (void)snprintf(is, sizeof is, "deltas/%s-%s.skdx", source, result);
    if (strcmp(is, path) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: it goes from %s to %s", path, source, result);
    bool same = memcmp(info->result_root, v->plan.root, SKF_DIGEST) == 0 && info->result_size == v->plan.size &&
                info->n_chunks == v->plan.n_chunks;
    for (uint64_t i = 0; same && i < info->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(v->skd, i, &c);
        same = c.result_length == v->plan.chunks[i].length &&
               memcmp(c.result_digest, v->plan.chunks[i].digest, SKF_DIGEST) == 0;
    }
    if (!same)
        return skf_fail(why, SKF_ERR_DIGEST, "%s: it makes another content than the manifest of %s %s says", path,
                        in->assign.model, in->assign.version);
    return SKF_OK;
}

struct by_root {
    const char *model;
    const uint8_t *root;
    char version[SKF_NAME_MAX];
};
static enum skf_err match_root(void *ctx, const struct skf_store_version *v)
{
    struct by_root *b = ctx;
    if (strcmp(v->model, b->model) == 0 && memcmp(v->root, b->root, SKF_DIGEST) == 0)
        (void)snprintf(b->version, sizeof b->version, "%s", v->version);
    return SKF_OK;
}

static enum skf_err find_source(const struct skf_install *in, struct verified *v, struct skf_why *why)
{
    const struct skf_skd_info *info = skf_skd_info(v->skd);
    struct skf_merkle empty;
    uint8_t none[SKF_DIGEST];
    if (info->also_size)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: takes from a second version; boxes apply deltas of one", in->assign.delta);
    skf_merkle_init(&empty);
    skf_merkle_root(&empty, none);
    if (info->source_size == 0 && memcmp(info->source_root, none, SKF_DIGEST) == 0)
        return SKF_OK;
    struct by_root b = {.model = in->assign.model, .root = info->source_root};
    enum skf_err e = skf_store_each_version(in->store, match_root, &b);
    if (e != SKF_OK)
        return skf_fail(why, e, "the store's versions cannot be read");
    if (!b.version[0])
        return skf_fail(why, SKF_ERR_BASE, "%s: no version here has the content it starts at", in->assign.delta);
    memcpy(v->source, b.version, sizeof v->source);
    return SKF_OK;
}

static enum skf_err read_index(const struct skf_install *in, struct skf_tuf *tuf, struct verified *v, struct skf_why *why)
{
    uint8_t *index = NULL;
    size_t n = 0;
    enum skf_err e;
    SKF_GO(e, get_target(in, tuf, in->assign.delta, ".skdx", INDEX_MAX, &index, &n, why));
    e = skf_skd_parse(index, n, &v->skd, why);
    if (e != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", in->assign.delta);
    if (e == SKF_OK)
        e = check_index(in, v, why);
    if (e == SKF_OK)
        e = find_source(in, v, why);
out:
    skf_free(index);
    return e;
}

/* ---- all of it ---------------------------------------------------------------------------------------------------------- */

/* Is the version here already? Another content of its name is an error. */
static enum skf_err look_held(const struct skf_install *in, struct verified *v, struct skf_why *why)
{
    struct skf_view *w;
    enum skf_err e = skf_view_open(in->store, in->assign.model, in->assign.version, &w, why);
    if (e == SKF_ERR_NOT_FOUND)
        return SKF_OK;
    SKF_TRY(e);
    v->is_held = memcmp(skf_view_version(w)->root, v->plan.root, SKF_DIGEST) == 0;
    skf_view_close(w);
    if (!v->is_held)
        return skf_fail(why, SKF_ERR_EXISTS, "%s %s: the store holds another content under this name", in->assign.model,
                        in->assign.version);
    return SKF_OK;
}

static enum skf_err verify(const struct skf_install *in, struct verified *v, struct skf_why *why)
{
    struct skf_tuf *tuf = NULL;
    enum skf_err e;
    atomic_store(&in->progress->phase, SKIFF__V1__PHASE__PHASE_VERIFYING);
    SKF_GO(e, skf_tuf_open(in->tuf_dir, &tuf, why));
    SKF_GO(e, skf_tuf_refresh(tuf, skf_now_unix(), fetch_meta, (void *)(uintptr_t)in, why));
    SKF_GO(e, get_target(in, tuf, in->assign.manifest, ".manifest", MANIFEST_MAX, &v->manifest, &v->manifest_len, why));
    SKF_GO(e, read_manifest(in, v, why));
    SKF_GO(e, look_held(in, v, why));
    if (!v->is_held && in->assign.delta[0])
        e = read_index(in, tuf, v, why);
out:
    skf_tuf_close(tuf);
    return e;
}

static enum skf_err fetch(const struct skf_install *in, struct verified *v, struct skf_why *why)
{
    struct skf_view *view = NULL;
    struct skf_source source = skf_source_of(NULL, 0);
    if (v->source[0]) {
        SKF_TRY(skf_view_open(in->store, in->assign.model, v->source, &view, why));
        source = skf_view_source(view);
    }
    atomic_store(&in->progress->phase, SKIFF__V1__PHASE__PHASE_FETCHING);
    enum skf_err e = skf_fetch_run(in, &v->plan, v->skd, &source, why);
    skf_view_close(view);
    return e;
}

static enum skf_err commit(const struct skf_install *in, const struct verified *v, struct skf_why *why)
{
    struct skf_store_version s = {.model = in->assign.model,
                                  .version = in->assign.version,
                                  .size = v->plan.size,
                                  .manifest = v->manifest,
                                  .manifest_len = v->manifest_len,
                                  .chunks = v->plan.chunks,
                                  .n_chunks = v->plan.n_chunks};
    memcpy(s.root, v->plan.root, SKF_DIGEST);
    return skf_store_add_version(in->store, &s, why);
}

enum skf_err skf_install_run(const struct skf_install *in, struct skf_why *why)
{
    struct verified v = {0};
    enum skf_err e;
    skf_pace_begin(in->pace, skf_now_ns());
    for (unsigned silences = 0;;) {
        e = in->link.wait(in->link.ctx, in->cancel, why);
        if (e == SKF_OK)
            e = verify(in, &v, why);
        if (e != SKF_ERR_NET && (e != SKF_ERR_TIMEOUT || ++silences >= SILENCES))
            break;
        verified_clear(&v);
    }
    if (e == SKF_OK && !v.is_held) {
        e = fetch(in, &v, why);
        if (e == SKF_OK)
            e = commit(in, &v, why);
    } else if (e == SKF_OK) {
        atomic_store(&in->progress->total, v.plan.n_chunks);
        atomic_store(&in->progress->done, v.plan.n_chunks);
    }
    verified_clear(&v);
    return e;
}
