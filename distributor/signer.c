/* The TUF repository with the online keys (signer.h). */
#include "distributor/signer.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"

struct skf_signer {
    char dir[PATH_MAX];
    pthread_mutex_t lock; /* one writer of the repository */
    bool has_lock;
    struct skf_key *snapshot, *timestamp, *deltas;
};

static enum skf_err load(const char *keys_dir, const char *name, struct skf_key **k, struct skf_why *why)
{
    char path[PATH_MAX];
    SKF_TRY(skf_path(path, sizeof path, keys_dir, name));
    return skf_key_load(path, k, why);
}

enum skf_err skf_signer_open(const char *dir, const char *keys_dir, struct skf_signer **out, struct skf_why *why)
{
    struct skf_signer *s = skf_calloc(1, sizeof *s);
    if (!s)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", dir);
    enum skf_err e;
    SKF_GO(e, skf_path(s->dir, sizeof s->dir, dir, ""));
    SKF_GO(e, load(keys_dir, "snapshot.key", &s->snapshot, why));
    SKF_GO(e, load(keys_dir, "timestamp.key", &s->timestamp, why));
    SKF_GO(e, load(keys_dir, "deltas.key", &s->deltas, why));
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        e = SKF_ERR_NOMEM;
        goto out;
    }
    s->has_lock = true;
    SKF_GO(e, skf_signer_renew(s, why));
    *out = s;
    return SKF_OK;
out:
    skf_signer_close(s);
    return e;
}

void skf_signer_close(struct skf_signer *s)
{
    if (!s)
        return;
    skf_key_free(s->snapshot);
    skf_key_free(s->timestamp);
    skf_key_free(s->deltas);
    if (s->has_lock)
        (void)pthread_mutex_destroy(&s->lock);
    skf_free(s);
}

static enum skf_err update(struct skf_signer *s, const void *targets, size_t n, const struct skf_tuf_delta *deltas,
                           size_t n_deltas, struct skf_why *why)
{
    struct skf_tuf_online keys = {s->deltas, s->snapshot, s->timestamp};
    (void)pthread_mutex_lock(&s->lock);
    enum skf_err e = skf_tuf_repo_update(s->dir, &keys, targets, n, deltas, n_deltas, skf_now_unix(), why);
    (void)pthread_mutex_unlock(&s->lock);
    return e;
}

enum skf_err skf_signer_renew(struct skf_signer *s, struct skf_why *why)
{
    return update(s, NULL, 0, NULL, 0, why);
}

enum skf_err skf_signer_targets(struct skf_signer *s, const void *targets, size_t n, struct skf_why *why)
{
    return update(s, targets, n, NULL, 0, why);
}

enum skf_err skf_signer_delta(struct skf_signer *s, const char *path, const struct skf_tuf_target *t,
                              struct skf_why *why)
{
    struct skf_tuf_delta d = {path, *t};
    return update(s, NULL, 0, &d, 1, why);
}

enum skf_err skf_signer_read(struct skf_signer *s, const char *name, struct skf_buf *out, struct skf_why *why)
{
    return skf_tuf_repo_read(s->dir, name, out, why);
}

/* The newest root of the repository's chain. */
static enum skf_err newest_root(struct skf_signer *s, skf_json **root, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX), next = SKF_BUF_INIT(SKF_TUF_META_MAX);
    enum skf_err e = SKF_OK;
    char name[32];
    for (unsigned v = 1; v < 100000; v++) {
        skf_buf_clear(&next);
        (void)snprintf(name, sizeof name, "%u.root.json", v);
        e = skf_tuf_repo_read(s->dir, name, &next, why);
        if (e != SKF_OK)
            break;
        struct skf_buf swap = b;
        b = next;
        next = swap;
    }
    if (e == SKF_ERR_NOT_FOUND && b.len)
        e = skf_json_parse(b.data, b.len, 16, root, why);
    skf_buf_free(&b);
    skf_buf_free(&next);
    return e;
}

static int64_t version_of(const skf_json *doc)
{
    return skf_json_i64(skf_json_get(skf_json_get(doc, "signed"), "version"), -1);
}

static enum skf_err check_listed(const skf_json *doc, const char *path, const void *manifest, size_t n,
                                 struct skf_why *why)
{
    uint8_t is[SKF_DIGEST];
    char hex[SKF_HEX];
    const skf_json *t = skf_json_get(skf_json_get(skf_json_get(doc, "signed"), "targets"), path);
    const char *listed = skf_json_cstr(skf_json_get(skf_json_get(t, "hashes"), "sha256"));
    skf_sha256(manifest, n, is);
    skf_hex(is, sizeof is, hex);
    if (!listed || strcmp(listed, hex) != 0 || skf_json_i64(skf_json_get(t, "length"), -1) != (int64_t)n)
        return skf_fail(why, SKF_ERR_DIGEST, "targets.json: does not list %s as it is", path);
    return SKF_OK;
}

enum skf_err skf_signer_check(struct skf_signer *s, const void *targets, size_t n, const char *path,
                              const void *manifest, size_t manifest_len, struct skf_why *why)
{
    skf_json *root = NULL, *doc = NULL, *now = NULL;
    enum skf_err e;
    if (n > SKF_TUF_META_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "targets.json: larger than %u bytes", SKF_TUF_META_MAX);
    e = skf_json_parse(targets, n, 16, &doc, why);
    if (e != SKF_OK) {
        (void)skf_fail_prefix(why, e, "targets.json");
        goto out;
    }
    SKF_GO(e, newest_root(s, &root, why));
    SKF_GO(e, skf_tuf_verify(root, "targets", doc, why));
    SKF_GO(e, skf_tuf_repo_targets(s->dir, &now, why));
    if (version_of(doc) != version_of(now) + 1)
        e = skf_fail(why, SKF_ERR_STATE,
                     "targets.json: version %lld cannot follow %lld; something else was published in between, "
                     "publish again",
                     (long long)version_of(doc), (long long)version_of(now));
    else
        e = check_listed(doc, path, manifest, manifest_len, why);
out:
    skf_json_free(root);
    skf_json_free(doc);
    skf_json_free(now);
    return e;
}
