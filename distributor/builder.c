/* The background builder of deltas (builder.h). */
#include "distributor/builder.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"
#include "distributor/adapters.h"
#include "distributor/assign.h"
#include "distributor/manifest.h"

#define QUEUE_MAX     1024
#define FAILED_MAX    256
#define RETRY_S       60
#define KEEP_CONTENTS 4
#define TELL_NS       200000000u

struct pair {
    uint8_t from[SKF_DIGEST], to[SKF_DIGEST];
    int64_t failed_at; /* unix seconds, in the list of failures */
};

struct skf_builder {
    struct skf_builder_opts o;
    char dir[PATH_MAX];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_ending;
    atomic_bool cancel;
    struct pair queue[QUEUE_MAX]; /* queue[0] is under way */
    size_t n;
    struct pair failed[FAILED_MAX];
    size_t n_failed;
    const struct pair *now; /* for progress; only the builder's thread changes it */
    atomic_uint_fast64_t told_ns;
};

static bool is_same_pair(const struct pair *p, const uint8_t *from, const uint8_t *to)
{
    return memcmp(p->to, to, SKF_DIGEST) == 0 && memcmp(p->from, from, SKF_DIGEST) == 0;
}

enum skf_err skf_delta_file(const char *dir, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST], char *out,
                            size_t cap)
{
    char a[SKF_HEX], b[SKF_HEX];
    skf_hex(from, SKF_DIGEST, a);
    skf_hex(to, SKF_DIGEST, b);
    int n = snprintf(out, cap, "%s%s-%s.skd", dir, a, b);
    return n < 0 || (size_t)n >= cap ? SKF_ERR_LIMIT : SKF_OK;
}

/* ---- one delta ------------------------------------------------------------------------------------------------- */
static void tell(void *ctx, uint64_t done, uint64_t total)
{
    struct skf_builder *b = ctx;
    uint_fast64_t now = skf_now_ns(), last = atomic_load(&b->told_ns);
    if (now - last < TELL_NS || !atomic_compare_exchange_strong(&b->told_ns, &last, now))
        return;
    b->o.event(b->o.ctx,
               &(struct skf_build_event){.from = b->now->from, .to = b->now->to, .done = done, .total = total});
}

static enum skf_err open_content(struct skf_builder *b, const uint8_t root[SKF_DIGEST],
                                 const struct skf_progress *progress, struct skf_model **m, struct skf_why *why)
{
    struct skf_reg_version v;
    struct skf_chunk_list none = {NULL, NULL, 0, 0, {0}};
    uint8_t empty[SKF_DIGEST], *packed = NULL;
    size_t n;
    Skiff__V1__Manifest *manifest = NULL;
    skf_empty_root(empty);
    if (memcmp(root, empty, SKF_DIGEST) == 0)
        return skf_chunks_content(b->o.chunks, &none, progress, m, why);
    enum skf_err e;
    SKF_GO(e, skf_registry_by_root(b->o.registry, root, &v, why));
    SKF_GO(e, skf_registry_manifest(b->o.registry, v.model, v.version, &packed, &n, why));
    SKF_GO(e, skf_manifest_read(packed, n, &manifest, why));
    struct skf_chunk_list l = skf_manifest_chunks(manifest);
    e = skf_chunks_content(b->o.chunks, &l, progress, m, why);
out:
    skf_manifest_free(manifest);
    skf_free(packed);
    return e;
}

static bool is_by_adapter(const struct skf_skd *skd)
{
    struct skf_skd_chunk c;
    for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks; i++) {
        skf_skd_chunk(skd, i, &c);
        if (c.coding == SKF_CODE_ADAPTER)
            return true;
    }
    return false;
}

/* Length and digest of the signed part of a .skd, which must be the delta of this pair. */
static enum skf_err inspect(const char *path, const struct pair *p, struct skf_reg_delta *d, bool *has_adapter,
                            struct skf_why *why)
{
    struct skf_map m;
    struct skf_skd *skd = NULL;
    SKF_TRY(skf_map_open(path, &m, why));
    enum skf_err e = m.size < SKF_SKD_HEAD ? skf_fail(why, SKF_ERR_FORMAT, "%s: too short", path) : SKF_OK;
    if (e != SKF_OK)
        goto out;
    SKF_GO(e, skf_skd_index_size(m.data, &d->index_size, why));
    if (d->index_size > m.size) {
        e = skf_fail(why, SKF_ERR_FORMAT, "%s: cut short", path);
        goto out;
    }
    SKF_GO(e, skf_skd_parse(m.data, d->index_size, &skd, why));
    const struct skf_skd_info *i = skf_skd_info(skd);
    if (i->index_size + i->payload_size != m.size || memcmp(i->source_root, p->from, SKF_DIGEST) != 0 ||
        memcmp(i->result_root, p->to, SKF_DIGEST) != 0 || i->also_size) {
        e = skf_fail(why, SKF_ERR_DIGEST, "%s: is not the delta that its name says", path);
        goto out;
    }
    memcpy(d->from, p->from, SKF_DIGEST);
    memcpy(d->to, p->to, SKF_DIGEST);
    d->bytes = m.size;
    skf_sha256(m.data, d->index_size, d->sha256);
    *has_adapter = is_by_adapter(skd);
out:
    skf_skd_free(skd);
    skf_map_close(&m);
    return e;
}

/* `adapter` NULL for none; otherwise `said` tells why it was not used, unless it was. */
static enum skf_err make(struct skf_builder *b, const struct pair *p, const struct skf_reg_adapter *adapter,
                         const char *path, char said[SKF_ADAPTER_SAID], struct skf_why *why)
{
    struct skf_progress progress = {.fn = tell, .ctx = b, .cancel = &b->cancel};
    struct skf_delta_opts opts = {.jobs = b->o.jobs, .progress = progress};
    struct skf_delta_stats stats;
    struct skf_model *old = NULL, *neu = NULL;
    bool is_made = false;
    enum skf_err e;
    SKF_GO(e, open_content(b, p->from, &progress, &old, why));
    SKF_GO(e, open_content(b, p->to, &progress, &neu, why));
    if (adapter)
        SKF_GO(e, skf_adapters_try(b->o.chunks, adapter, old, neu, path, &opts, said, &is_made, why));
    if (!is_made)
        e = skf_delta_build(old, neu, path, &opts, &stats, why);
out:
    skf_model_close(old);
    skf_model_close(neu);
    return e;
}

/* The pair's file, whole, and what an adapter had to do with it. */
static enum skf_err provide(struct skf_builder *b, const struct pair *p, const char *path, struct skf_reg_delta *d,
                            struct skf_why *why)
{
    struct skf_reg_adapter adapter;
    char said[SKF_ADAPTER_SAID] = "not used";
    bool has_adapter = false;
    enum skf_err e = skf_registry_adapter(b->o.registry, p->from, p->to, &adapter, why);
    bool is_given = e == SKF_OK;
    if (e == SKF_ERR_NOT_FOUND)
        e = SKF_OK;
    if (e == SKF_OK && inspect(path, p, d, &has_adapter, NULL) != SKF_OK) { /* otherwise the process ended before it was signed */
        e = make(b, p, is_given ? &adapter : NULL, path, said, why);
        if (e == SKF_OK)
            e = inspect(path, p, d, &has_adapter, why);
    }
    skf_reg_adapter_clear(&adapter);
    if (e != SKF_OK || !is_given)
        return e;
    if (!has_adapter)
        skf_log(SKF_LOG_WARN, "%s: built without its adapter: %s", path, said);
    return skf_registry_adapter_said(b->o.registry, p->from, p->to, has_adapter ? "used" : said, why);
}

static enum skf_err build(struct skf_builder *b, const struct pair *p, struct skf_why *why)
{
    char path[PATH_MAX], target[SKF_TARGET_PATH];
    struct skf_reg_delta d;
    if (skf_registry_delta(b->o.registry, p->from, p->to, &d, NULL) == SKF_OK)
        return SKF_OK;
    SKF_TRY(skf_delta_file(b->dir, p->from, p->to, path, sizeof path));
    SKF_TRY(provide(b, p, path, &d, why));
    skf_delta_path(p->from, p->to, target);
    struct skf_tuf_target t = {.length = d.index_size};
    memcpy(t.sha256, d.sha256, SKF_DIGEST);
    SKF_TRY(skf_signer_delta(b->o.signer, target, &t, why));
    return skf_registry_add_delta(b->o.registry, &d, why);
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */
static void note_failure(struct skf_builder *b, const struct pair *p)
{
    if (b->n_failed == FAILED_MAX) /* the oldest makes room */
        memmove(b->failed, b->failed + 1, --b->n_failed * sizeof *b->failed);
    b->failed[b->n_failed] = *p;
    b->failed[b->n_failed++].failed_at = skf_now_unix();
}

static bool is_failure_fresh(struct skf_builder *b, const uint8_t *from, const uint8_t *to)
{
    int64_t now = skf_now_unix();
    bool is_fresh = false;
    size_t kept = 0;
    for (size_t i = 0; i < b->n_failed; i++) {
        if (now - b->failed[i].failed_at >= RETRY_S || now < b->failed[i].failed_at)
            continue;
        is_fresh = is_fresh || is_same_pair(&b->failed[i], from, to);
        b->failed[kept++] = b->failed[i];
    }
    b->n_failed = kept;
    return is_fresh;
}

static void *run(void *arg)
{
    struct skf_builder *b = arg;
    (void)pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->is_ending && b->n == 0)
            (void)pthread_cond_wait(&b->wake, &b->lock);
        if (b->is_ending)
            break;
        struct pair p = b->queue[0];
        struct skf_why why = {{0}};
        (void)pthread_mutex_unlock(&b->lock);
        b->now = &p;
        enum skf_err e = build(b, &p, &why);
        skf_chunks_trim(b->o.chunks, KEEP_CONTENTS);
        (void)pthread_mutex_lock(&b->lock);
        memmove(b->queue, b->queue + 1, (b->n - 1) * sizeof *b->queue);
        b->n--;
        if (e != SKF_OK)
            note_failure(b, &p);
        (void)pthread_mutex_unlock(&b->lock);
        b->o.event(b->o.ctx,
                   &(struct skf_build_event){.from = p.from, .to = p.to, .is_over = true, .err = e, .text = why.text});
        (void)pthread_mutex_lock(&b->lock);
    }
    (void)pthread_mutex_unlock(&b->lock);
    return NULL;
}

enum skf_err skf_builder_want(struct skf_builder *b, const uint8_t from[SKF_DIGEST], const uint8_t to[SKF_DIGEST])
{
    enum skf_err e = SKF_OK;
    (void)pthread_mutex_lock(&b->lock);
    size_t i = 0;
    while (i < b->n && !is_same_pair(&b->queue[i], from, to))
        i++;
    if (i < b->n) {
        e = SKF_OK;
    } else if (is_failure_fresh(b, from, to)) {
        e = SKF_ERR_STATE;
    } else if (b->n == QUEUE_MAX) {
        e = SKF_ERR_LIMIT;
    } else {
        memcpy(b->queue[b->n].from, from, SKF_DIGEST);
        memcpy(b->queue[b->n].to, to, SKF_DIGEST);
        b->n++;
        (void)pthread_cond_signal(&b->wake);
    }
    (void)pthread_mutex_unlock(&b->lock);
    return e;
}

size_t skf_builder_pending(struct skf_builder *b, const uint8_t to[SKF_DIGEST])
{
    size_t found = 0;
    (void)pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->n; i++)
        found += memcmp(b->queue[i].to, to, SKF_DIGEST) == 0;
    (void)pthread_mutex_unlock(&b->lock);
    return found;
}

bool is_builder_at(struct skf_builder *b, const uint8_t root[SKF_DIGEST])
{
    bool is = false;
    (void)pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->n && !is; i++)
        is = memcmp(b->queue[i].to, root, SKF_DIGEST) == 0 || memcmp(b->queue[i].from, root, SKF_DIGEST) == 0;
    (void)pthread_mutex_unlock(&b->lock);
    return is;
}

enum skf_err skf_builder_open(const struct skf_builder_opts *o, struct skf_builder **out, struct skf_why *why)
{
    struct skf_builder *b = skf_calloc(1, sizeof *b);
    if (!b)
        return skf_fail(why, SKF_ERR_NOMEM, "builder: out of memory");
    b->o = *o;
    enum skf_err e;
    SKF_GO(e, skf_mkdirs(o->dir, 0700, why));
    SKF_GO(e, skf_path(b->dir, sizeof b->dir, o->dir, ""));
    if (pthread_mutex_init(&b->lock, NULL) != 0 || pthread_cond_init(&b->wake, NULL) != 0 ||
        pthread_create(&b->thread, NULL, run, b) != 0) {
        e = skf_fail(why, SKF_ERR_NOMEM, "builder: no thread");
        goto out;
    }
    *out = b;
    return SKF_OK;
out:
    skf_free(b);
    return e;
}

void skf_builder_close(struct skf_builder *b)
{
    if (!b)
        return;
    atomic_store(&b->cancel, true);
    (void)pthread_mutex_lock(&b->lock);
    b->is_ending = true;
    (void)pthread_cond_signal(&b->wake);
    (void)pthread_mutex_unlock(&b->lock);
    (void)pthread_join(b->thread, NULL);
    (void)pthread_mutex_destroy(&b->lock);
    (void)pthread_cond_destroy(&b->wake);
    skf_free(b);
}
