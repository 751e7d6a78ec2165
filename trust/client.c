/*
 * The client workflow of the specification's section 5, step by step; the numbers in the comments are its.
 *
 * The folder holds what was verified, under the names that other clients use too: root.json, timestamp.json,
 * snapshot.json, targets.json and <role>.json, each in the very bytes that came.  Every refresh begins from the files
 * and verifies them anew, so that a process that was killed and one that was not are in the same state.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "trust/client_priv.h"

/* ---- the folder ------------------------------------------------------------------------------------------------- */

static enum skf_err local_path(const struct skf_tuf *t, const char *role, char out[PATH_MAX], struct skf_why *why)
{
    char name[SKF_TUF_NAME_MAX + 1];
    SKF_TRY(skf_tuf_file_name(name, 0, role, why));
    if (skf_path(out, PATH_MAX, t->dir, name) != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", t->dir);
    return SKF_OK;
}

static enum skf_err keep(const struct skf_tuf *t, const char *role, const struct skf_buf *b, struct skf_why *why)
{
    char path[PATH_MAX];
    SKF_TRY(local_path(t, role, path, why));
    return skf_file_write(path, b->data, b->len, 0644, why);
}

/* The bytes of a file of the folder; SKF_ERR_NOT_FOUND when it is not there. */
static enum skf_err local_read(const struct skf_tuf *t, const char *role, struct skf_buf *b, struct skf_why *why)
{
    char path[PATH_MAX];
    uint8_t *p;
    size_t n;
    SKF_TRY(local_path(t, role, path, why));
    SKF_TRY(skf_file_read(path, SKF_TUF_META_MAX, &p, &n, why));
    enum skf_err e = skf_buf_put(b, p, n);
    skf_free(p);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "%s: out of memory", path);
}

/* A top-level role's file of the folder, verified by the trusted root; its bytes stay in `b`. */
static enum skf_err local_load(const struct skf_tuf *t, const char *role, struct skf_buf *b, skf_json **doc)
{
    SKF_TRY(local_read(t, role, b, NULL));
    SKF_TRY(skf_tuf_parse(role, role, b->data, b->len, doc, NULL));
    enum skf_err e = skf_tuf_verify(t->root, role, *doc, NULL);
    if (e != SKF_OK) {
        skf_json_free(*doc);
        *doc = NULL;
    }
    return e;
}

static void forget(const struct skf_tuf *t, const char *role)
{
    char path[PATH_MAX];
    if (local_path(t, role, path, NULL) == SKF_OK)
        (void)unlink(path);
}

static void drop(skf_json **j)
{
    skf_json_free(*j);
    *j = NULL;
}

void skf_tuf_cache_clear(struct skf_tuf *t)
{
    for (size_t i = 0; i < t->n_cache; i++) {
        skf_free(t->cache[i].role);
        skf_json_free(t->cache[i].doc);
    }
    t->n_cache = 0;
}

static void drop_state(struct skf_tuf *t)
{
    t->ready = false;
    drop(&t->timestamp);
    drop(&t->snapshot);
    drop(&t->targets);
    skf_tuf_cache_clear(t);
}

/* Fetches one file; that the repository lacks what it signed for is a fault of the repository, not an answer. */
static enum skf_err fetch_file(const struct skf_tuf_source *from, const char *name, size_t limit, struct skf_buf *b,
                               struct skf_why *why)
{
    *b = SKF_BUF_INIT(limit);
    if (!from->fetch)
        return skf_fail(why, SKF_ERR_STATE, "%s: is not here and there is no link to fetch it by", name);
    enum skf_err e = from->fetch(from->ctx, name, b, why);
    if (e == SKF_OK && b->len > limit)
        e = skf_fail(why, SKF_ERR_LIMIT, "larger than %zu bytes", limit);
    if (e == SKF_OK)
        return SKF_OK;
    if (e == SKF_ERR_LIMIT)
        return skf_fail(why, e, "%s: larger than the %zu bytes it may have", name, limit);
    return skf_fail_prefix(why, e, "%s", name);
}

/* ---- 5.3: root -------------------------------------------------------------------------------------------------- */

static enum skf_err parse_root(const char *name, const void *p, size_t n, skf_json **root, struct skf_why *why)
{
    if (n > SKF_TUF_ROOT_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: larger than %u bytes", name, SKF_TUF_ROOT_MAX);
    SKF_TRY(skf_tuf_parse(name, "root", p, n, root, why));
    enum skf_err e = skf_tuf_verify(*root, "root", *root, why);
    if (e == SKF_OK)
        return SKF_OK;
    drop(root);
    return skf_fail_prefix(why, e, "%s", name);
}

static enum skf_err load_root(struct skf_tuf *t, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *root = NULL;
    enum skf_err e = local_read(t, "root", &b, why);
    if (e == SKF_OK)
        e = parse_root("root.json", b.data, b.len, &root, why);
    skf_buf_free(&b);
    if (e != SKF_OK)
        return e;
    skf_json_free(t->root);
    t->root = root;
    return SKF_OK;
}

/* 5.3.4, 5.3.5, 5.3.8: the next root, signed by the trusted one's threshold and by its own, one version on; kept. */
static enum skf_err take_root(struct skf_tuf *t, const char *name, const struct skf_buf *b, struct skf_why *why)
{
    skf_json *next = NULL;
    SKF_TRY(parse_root(name, b->data, b->len, &next, why));
    enum skf_err e = skf_tuf_verify(t->root, "root", next, why);
    int64_t want = skf_tuf_version(t->root) + 1;
    if (e != SKF_OK)
        e = skf_fail_prefix(why, e, "%s: by the keys of version %lld", name, (long long)(want - 1));
    else if (skf_tuf_version(next) != want)
        e = skf_fail(why, SKF_ERR_ROLLBACK, "%s: says it is version %lld", name, (long long)skf_tuf_version(next));
    else
        e = keep(t, "root", b, why);
    if (e != SKF_OK) {
        skf_json_free(next);
        return e;
    }
    skf_json_free(t->root);
    t->root = next;
    return SKF_OK;
}

static enum skf_err update_root(struct skf_tuf *t, const struct skf_tuf_source *from, struct skf_why *why)
{
    for (int taken = 0;; taken++) {
        char name[SKF_TUF_NAME_MAX + 1];
        struct skf_buf b;
        struct skf_why say = {{0}};
        if (skf_tuf_version(t->root) == INT64_MAX)
            return skf_fail(why, SKF_ERR_LIMIT, "root.json: there is no version after its own");
        SKF_TRY(skf_tuf_file_name(name, skf_tuf_version(t->root) + 1, "root", why));
        enum skf_err e = fetch_file(from, name, SKF_TUF_ROOT_MAX, &b, &say);
        bool is_last = e == SKF_ERR_NOT_FOUND;
        if (e == SKF_OK && taken == SKF_TUF_ROTATIONS_MAX)
            e = skf_fail(&say, SKF_ERR_LIMIT, "%s: more than %d new roots at once", name, SKF_TUF_ROTATIONS_MAX);
        if (e == SKF_OK)
            e = take_root(t, name, &b, &say);
        skf_buf_free(&b);
        if (is_last)
            return SKF_OK;
        if (e != SKF_OK)
            return skf_fail(why, e, "%s", say.text);
    }
}

/* ---- 5.4: timestamp --------------------------------------------------------------------------------------------- */

/* An error that says nothing about the file: to go on as if there were none would be to forget what was seen before. */
static bool is_unknown(enum skf_err e)
{
    return e != SKF_OK && e != SKF_ERR_NOT_FOUND && e != SKF_ERR_FORMAT && e != SKF_ERR_UNSUPPORTED &&
           e != SKF_ERR_SIGNATURE;
}

/* What the folder holds of the two, for comparing against. 5.3.11: when the keys of either were rotated, what they
 * signed counts no more, and both are dropped, so that versions raised by a thief (fast-forward) do not lock us out. A
 * signature that no longer holds under the trusted root is how a rotation shows, and needs no record of its own that a
 * crash could lose. */
static enum skf_err load_trusted(struct skf_tuf *t, struct skf_buf *snapshot_bytes, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    enum skf_err et = local_load(t, "timestamp", &b, &t->timestamp);
    enum skf_err es = local_load(t, "snapshot", snapshot_bytes, &t->snapshot);
    skf_buf_free(&b);
    if (is_unknown(et))
        return skf_fail(why, et, "%s/timestamp.json: cannot be read", t->dir);
    if (is_unknown(es))
        return skf_fail(why, es, "%s/snapshot.json: cannot be read", t->dir);
    if (et == SKF_ERR_SIGNATURE || es == SKF_ERR_SIGNATURE) {
        drop(&t->timestamp);
        drop(&t->snapshot);
        skf_buf_clear(snapshot_bytes);
        forget(t, "timestamp");
        forget(t, "snapshot");
    }
    return SKF_OK;
}

static int64_t listed_version(const skf_json *doc, const char *role)
{
    return skf_json_i64(skf_json_get(skf_tuf_meta_of(doc, role), "version"), 0);
}

/* 5.4.3: neither its own version nor the snapshot's may fall. */
static enum skf_err check_timestamp_rollback(const skf_json *old, const skf_json *next, struct skf_why *why)
{
    long long was = skf_tuf_version(old), is = skf_tuf_version(next);
    if (is < was)
        return skf_fail(why, SKF_ERR_ROLLBACK, "timestamp.json: version %lld, and %lld was seen before", is, was);
    was = listed_version(old, "snapshot");
    is = listed_version(next, "snapshot");
    if (is < was)
        return skf_fail(why, SKF_ERR_ROLLBACK, "timestamp.json: lists snapshot %lld, and %lld was seen before", is,
                        was);
    return SKF_OK;
}

static enum skf_err take_timestamp(struct skf_tuf *t, int64_t now, const struct skf_buf *b, struct skf_why *why)
{
    skf_json *next = NULL;
    SKF_TRY(skf_tuf_parse("timestamp.json", "timestamp", b->data, b->len, &next, why));
    enum skf_err e = skf_tuf_verify(t->root, "timestamp", next, why);
    if (e != SKF_OK) {
        e = skf_fail_prefix(why, e, "timestamp.json");
        goto out;
    }
    if (t->timestamp && skf_tuf_version(next) == skf_tuf_version(t->timestamp)) { /* 5.4.3.1: the one we have stands */
        e = skf_tuf_check_expiry("timestamp.json", t->timestamp, now, why);
        goto out;
    }
    if (t->timestamp)
        SKF_GO(e, check_timestamp_rollback(t->timestamp, next, why));
    SKF_GO(e, skf_tuf_check_expiry("timestamp.json", next, now, why));
    SKF_GO(e, keep(t, "timestamp", b, why));
    skf_json_free(t->timestamp);
    t->timestamp = skf_json_ref(next);
out:
    skf_json_free(next);
    return e;
}

static enum skf_err update_timestamp(struct skf_tuf *t, int64_t now, const struct skf_tuf_source *from,
                                     struct skf_why *why)
{
    struct skf_buf b;
    enum skf_err e = fetch_file(from, "timestamp.json", SKF_TUF_STAMP_MAX, &b, why);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_fail(why, SKF_ERR_NET, "timestamp.json: the repository has none");
    if (e == SKF_OK)
        e = take_timestamp(t, now, &b, why);
    skf_buf_free(&b);
    return e;
}

/* ---- 5.5: snapshot ---------------------------------------------------------------------------------------------- */

/* 5.5.5: what was listed stays listed, at no lower version. */
static enum skf_err check_snapshot_rollback(const char *name, const skf_json *old, const skf_json *next,
                                            struct skf_why *why)
{
    const skf_json *was = skf_json_get(skf_tuf_signed(old), "meta"), *is = skf_json_get(skf_tuf_signed(next), "meta");
    for (void *it = skf_json_iter(was); it; it = skf_json_next(was, it)) {
        const char *file = skf_json_iter_key(it);
        const skf_json *now_listed = skf_json_get(is, file);
        int64_t before = skf_json_i64(skf_json_get(skf_json_iter_value(it), "version"), 0);
        int64_t after = skf_json_i64(skf_json_get(now_listed, "version"), 0);
        if (!now_listed)
            return skf_fail(why, SKF_ERR_ROLLBACK, "%s: no longer lists %.64s", name, file);
        if (after < before)
            return skf_fail(why, SKF_ERR_ROLLBACK, "%s: lists %.64s at version %lld, and %lld was seen before", name,
                            file, (long long)after, (long long)before);
    }
    return SKF_OK;
}

/* The name to fetch a listed file by, and the bytes it may have. */
static enum skf_err name_and_limit(const struct skf_tuf *t, const char *role, const skf_json *entry, size_t most,
                                   char name[SKF_TUF_NAME_MAX + 1], size_t *limit, struct skf_why *why)
{
    bool consistent = skf_json_is_true(skf_json_get(skf_tuf_signed(t->root), "consistent_snapshot"), false);
    int64_t length = skf_json_i64(skf_json_get(entry, "length"), 0);
    *limit = length > 0 && (uint64_t)length < most ? (size_t)length : most;
    return skf_tuf_file_name(name, consistent ? skf_json_i64(skf_json_get(entry, "version"), 0) : 0, role, why);
}

static enum skf_err check_version(const char *name, const skf_json *doc, const skf_json *entry, struct skf_why *why)
{
    long long want = skf_json_i64(skf_json_get(entry, "version"), 0), is = skf_tuf_version(doc);
    return is == want ? SKF_OK
                      : skf_fail(why, SKF_ERR_ROLLBACK, "%s: is version %lld where %lld is signed for", name, is, want);
}

static enum skf_err take_snapshot(struct skf_tuf *t, int64_t now, const char *name, const skf_json *entry,
                                  const struct skf_buf *b, struct skf_why *why)
{
    skf_json *next = NULL;
    SKF_TRY(skf_tuf_check_bytes(name, entry, b->data, b->len, why));
    SKF_TRY(skf_tuf_parse(name, "snapshot", b->data, b->len, &next, why));
    enum skf_err e = skf_tuf_verify(t->root, "snapshot", next, why);
    if (e != SKF_OK) {
        e = skf_fail_prefix(why, e, "%s", name);
        goto out;
    }
    SKF_GO(e, check_version(name, next, entry, why));
    if (t->snapshot)
        SKF_GO(e, check_snapshot_rollback(name, t->snapshot, next, why));
    SKF_GO(e, skf_tuf_check_expiry(name, next, now, why));
    SKF_GO(e, keep(t, "snapshot", b, why));
    skf_json_free(t->snapshot);
    t->snapshot = skf_json_ref(next);
out:
    skf_json_free(next);
    return e;
}

static enum skf_err update_snapshot(struct skf_tuf *t, int64_t now, const struct skf_tuf_source *from,
                                    const struct skf_buf *have, struct skf_why *why)
{
    const skf_json *entry = skf_tuf_meta_of(t->timestamp, "snapshot");
    char name[SKF_TUF_NAME_MAX + 1];
    size_t limit;
    if (t->snapshot && check_version("snapshot.json", t->snapshot, entry, NULL) == SKF_OK &&
        skf_tuf_check_bytes("snapshot.json", entry, have->data, have->len, NULL) == SKF_OK &&
        skf_tuf_check_expiry("snapshot.json", t->snapshot, now, NULL) == SKF_OK)
        return SKF_OK; /* what the timestamp lists is here already */
    SKF_TRY(name_and_limit(t, "snapshot", entry, SKF_TUF_SNAPSHOT_MAX, name, &limit, why));
    struct skf_buf b;
    enum skf_err e = fetch_file(from, name, limit, &b, why);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_fail(why, SKF_ERR_NET, "%s: is signed for, but the repository does not have it", name);
    if (e == SKF_OK)
        e = take_snapshot(t, now, name, entry, &b, why);
    skf_buf_free(&b);
    return e;
}

/* ---- 5.6: targets, and the same for delegated roles ------------------------------------------------------------- */

static enum skf_err judge_targets(int64_t now, const char *name, const char *role, const skf_json *delegator,
                                  const skf_json *entry, const struct skf_buf *b, skf_json **doc, struct skf_why *why)
{
    skf_json *next = NULL;
    SKF_TRY(skf_tuf_check_bytes(name, entry, b->data, b->len, why));
    SKF_TRY(skf_tuf_parse(name, "targets", b->data, b->len, &next, why));
    enum skf_err e = skf_tuf_verify(delegator, role, next, why);
    if (e != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", name);
    if (e == SKF_OK)
        e = check_version(name, next, entry, why);
    if (e == SKF_OK)
        e = skf_tuf_check_expiry(name, next, now, why);
    if (e != SKF_OK) {
        skf_json_free(next);
        return e;
    }
    *doc = next;
    return SKF_OK;
}

enum skf_err skf_tuf_load_targets(struct skf_tuf *t, int64_t now, const char *role, const skf_json *delegator,
                                  const struct skf_tuf_source *from, skf_json **doc, struct skf_why *why)
{
    const skf_json *entry = skf_tuf_meta_of(t->snapshot, role);
    if (!entry)
        return skf_fail(why, SKF_ERR_FORMAT, "snapshot.json: does not list the role %.64s that is delegated to", role);
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    enum skf_err e = local_read(t, role, &b, NULL);
    if (e == SKF_OK)
        e = judge_targets(now, role, role, delegator, entry, &b, doc, NULL);
    skf_buf_free(&b);
    if (e == SKF_OK)
        return SKF_OK;
    char name[SKF_TUF_NAME_MAX + 1];
    size_t limit;
    SKF_TRY(name_and_limit(t, role, entry, SKF_TUF_META_MAX, name, &limit, why));
    e = fetch_file(from, name, limit, &b, why);
    if (e == SKF_ERR_NOT_FOUND)
        e = skf_fail(why, SKF_ERR_NET, "%s: is signed for, but the repository does not have it", name);
    if (e == SKF_OK)
        e = judge_targets(now, name, role, delegator, entry, &b, doc, why);
    if (e == SKF_OK && (e = keep(t, role, &b, why)) != SKF_OK)
        drop(doc);
    skf_buf_free(&b);
    return e;
}

/* ---- public ----------------------------------------------------------------------------------------------------- */

enum skf_err skf_tuf_init(const char *dir, const void *root, size_t n, struct skf_why *why)
{
    struct skf_tuf t = {0};
    if (snprintf(t.dir, sizeof t.dir, "%s", dir) >= (int)sizeof t.dir)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir);
    skf_json *doc = NULL;
    SKF_TRY(parse_root("root.json", root, n, &doc, why));
    skf_json_free(doc);
    SKF_TRY(skf_mkdirs(dir, 0755, why));
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    enum skf_err e = local_read(&t, "root", &b, why);
    if (e == SKF_OK && (b.len != n || memcmp(b.data, root, n) != 0))
        e = skf_fail(why, SKF_ERR_EXISTS, "%s/root.json: another root is trusted here already", dir);
    skf_buf_free(&b);
    if (e != SKF_ERR_NOT_FOUND)
        return e;
    char path[PATH_MAX];
    SKF_TRY(local_path(&t, "root", path, why));
    return skf_file_write(path, root, n, 0644, why);
}

enum skf_err skf_tuf_open(const char *dir, struct skf_tuf **out, struct skf_why *why)
{
    struct skf_tuf *t = skf_calloc(1, sizeof *t);
    if (!t)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", dir);
    int n = snprintf(t->dir, sizeof t->dir, "%s", dir);
    enum skf_err e =
        n < 0 || (size_t)n >= sizeof t->dir ? skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir) : SKF_OK;
    if (e == SKF_OK && (e = load_root(t, why)) != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", dir);
    if (e != SKF_OK) {
        skf_tuf_close(t);
        return e;
    }
    *out = t;
    return SKF_OK;
}

void skf_tuf_close(struct skf_tuf *t)
{
    if (!t)
        return;
    drop_state(t);
    skf_json_free(t->root);
    skf_free(t);
}

enum skf_err skf_tuf_refresh(struct skf_tuf *t, int64_t now, skf_tuf_fetch *fetch, void *ctx, struct skf_why *why)
{
    struct skf_tuf_source from = {fetch, ctx};
    struct skf_buf have = SKF_BUF_INIT(SKF_TUF_META_MAX);
    drop_state(t);
    enum skf_err e;
    SKF_GO(e, load_root(t, why));
    SKF_GO(e, update_root(t, &from, why));
    SKF_GO(e, skf_tuf_check_expiry("root.json", t->root, now, why)); /* 5.3.10 */
    SKF_GO(e, load_trusted(t, &have, why));
    SKF_GO(e, update_timestamp(t, now, &from, why));
    SKF_GO(e, update_snapshot(t, now, &from, &have, why));
    SKF_GO(e, skf_tuf_load_targets(t, now, "targets", t->root, &from, &t->targets, why));
    t->ready = true;
out:
    skf_buf_free(&have);
    if (e != SKF_OK)
        drop_state(t);
    return e;
}

enum skf_err skf_tuf_load_local(struct skf_tuf *t, int64_t now, struct skf_why *why)
{
    struct skf_tuf_source none = {NULL, NULL};
    struct skf_buf have = SKF_BUF_INIT(SKF_TUF_META_MAX);
    drop_state(t);
    enum skf_err e;
    SKF_GO(e, load_root(t, why));
    SKF_GO(e, load_trusted(t, &have, why));
    if (!t->timestamp || !t->snapshot) {
        e = skf_fail(why, SKF_ERR_STATE, "%s: nothing verified is here yet: refresh first", t->dir);
        goto out;
    }
    SKF_GO(e, update_snapshot(t, now, &none, &have, why));
    SKF_GO(e, skf_tuf_load_targets(t, now, "targets", t->root, &none, &t->targets, why));
    t->ready = true;
out:
    skf_buf_free(&have);
    if (e != SKF_OK)
        drop_state(t);
    return e;
}
