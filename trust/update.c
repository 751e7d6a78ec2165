/*
 * The distributor's part of a repository (tuf.h, skf_tuf_repo_update).  Order is what makes it safe against a crash at
 * any point:
 *
 *   <n>.targets.json, <m>.deltas.json, <k>.snapshot.json    under names that nothing refers to yet
 *   timestamp.json                                          replaced whole: from here on the new state is the state
 *
 * A run that was cut short leaves the old timestamp, which lists the old snapshot; its stray files are overwritten by
 * the next run, whose version numbers are counted from what the timestamp lists.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "trust/repo_priv.h"

#define OLD_ROOTS 8 /* roots back to which the repository's own files may be signed */

struct repo {
    const char *dir;
    int lock;
    int64_t now;
    skf_json *root, *timestamp, *snapshot, *deltas, *targets;
    struct skf_buf root_bytes, targets_bytes;
    skf_json *old_targets; /* what the present snapshot lists */
};

static void repo_close(struct repo *r)
{
    skf_json *const all[] = {r->root, r->timestamp, r->snapshot, r->deltas, r->targets, r->old_targets};
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        skf_json_free(all[i]);
    skf_buf_free(&r->root_bytes);
    skf_buf_free(&r->targets_bytes);
    if (r->lock >= 0)
        (void)close(r->lock);
}

/* Two updates at once would count the same versions. */
static enum skf_err repo_lock(struct repo *r, struct skf_why *why)
{
    char path[PATH_MAX];
    if (skf_path(path, sizeof path, r->dir, ".lock") != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", r->dir);
    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (r->lock < 0)
        return skf_fail_errno(why, errno, "%s", path);
    while (flock(r->lock, LOCK_EX) != 0)
        if (errno != EINTR)
            return skf_fail_errno(why, errno, "%s", path);
    return SKF_OK;
}

/* The newest root that is signed; one that is still being signed is as if it were not there. */
static enum skf_err load_root(struct repo *r, struct skf_why *why)
{
    int64_t version = 0;
    enum skf_err e = SKF_ERR_NOT_FOUND;
    SKF_TRY(skf_tuf_repo_newest(r->dir, "root", &version, why));
    if (version == 0)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s: holds no repository", r->dir);
    for (int i = 0; i <= OLD_ROOTS && version - i >= 1; i++) {
        e = skf_tuf_repo_check_root(r->dir, version - i, &r->root, &r->root_bytes, why);
        if (e != SKF_ERR_SIGNATURE)
            break;
    }
    if (e != SKF_OK)
        return e;
    if (skf_tuf_version(r->root) < version)
        skf_log(SKF_LOG_WARN, "%s: root version %lld waits for signatures", r->dir, (long long)version);
    return skf_tuf_check_expiry("root", r->root, r->now, why);
}

/* Signed by this root's keys, or by those of one before it when keys were rotated since. */
static enum skf_err check_own(const struct repo *r, const char *role, const skf_json *doc, struct skf_why *why)
{
    enum skf_err e = skf_tuf_verify(r->root, role, doc, why);
    int64_t version = skf_tuf_version(r->root);
    for (int i = 1; e == SKF_ERR_SIGNATURE && i <= OLD_ROOTS && version - i >= 1; i++) {
        skf_json *old = NULL;
        if (skf_tuf_repo_load(r->dir, version - i, "root", "root", &old, NULL, NULL) == SKF_OK &&
            skf_tuf_verify(old, role, doc, NULL) == SKF_OK)
            e = SKF_OK;
        skf_json_free(old);
    }
    return e == SKF_OK ? SKF_OK : skf_fail_prefix(why, e, "%s: its %s", r->dir, role);
}

static int64_t listed(const skf_json *doc, const char *role)
{
    return skf_json_i64(skf_json_get(skf_tuf_meta_of(doc, role), "version"), 0);
}

/* What the present timestamp leads to. A repository that was never published has none of it. */
static enum skf_err load_state(struct repo *r, struct skf_why *why)
{
    enum skf_err e = skf_tuf_repo_load(r->dir, 0, "timestamp", "timestamp", &r->timestamp, NULL, why);
    if (e == SKF_ERR_NOT_FOUND) {
        int64_t version = 0;
        SKF_TRY(skf_tuf_repo_newest(r->dir, "snapshot", &version, why));
        return version <= 1
                   ? SKF_OK
                   : skf_fail(why, SKF_ERR_STATE, "%s/timestamp.json: is gone: put it back from a copy", r->dir);
    }
    if (e != SKF_OK)
        return e;
    SKF_TRY(check_own(r, "timestamp", r->timestamp, why));
    SKF_TRY(
        skf_tuf_repo_load(r->dir, listed(r->timestamp, "snapshot"), "snapshot", "snapshot", &r->snapshot, NULL, why));
    SKF_TRY(check_own(r, "snapshot", r->snapshot, why));
    SKF_TRY(skf_tuf_repo_load(r->dir, listed(r->snapshot, "targets"), "targets", "targets", &r->old_targets,
                              &r->targets_bytes, why));
    SKF_TRY(check_own(r, "targets", r->old_targets, why));
    if (!skf_tuf_meta_of(r->snapshot, "deltas"))
        return SKF_OK;
    SKF_TRY(skf_tuf_repo_load(r->dir, listed(r->snapshot, "deltas"), "deltas", "targets", &r->deltas, NULL, why));
    e = skf_tuf_verify(r->old_targets, "deltas", r->deltas, why);
    return e == SKF_OK ? SKF_OK : skf_fail_prefix(why, e, "%s: its deltas", r->dir);
}

static enum skf_err judge_targets(const struct repo *r, struct skf_why *why)
{
    enum skf_err e = skf_tuf_verify(r->root, "targets", r->targets, why);
    long long is = skf_tuf_version(r->targets), was = r->old_targets ? skf_tuf_version(r->old_targets) : 0;
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "targets version %lld", is);
    if (is < was)
        return skf_fail(why, SKF_ERR_ROLLBACK, "targets: version %lld, and %lld is published already", is, was);
    int64_t left = skf_tuf_expires(r->targets) - r->now;
    if (left < 30 * (int64_t)SKF_TUF_DAY)
        skf_log(SKF_LOG_WARN, "%s: targets must be signed anew: they expire in %lld days", r->dir,
                (long long)(left / SKF_TUF_DAY));
    left = skf_tuf_expires(r->root) - r->now;
    if (left < 30 * (int64_t)SKF_TUF_DAY)
        skf_log(SKF_LOG_WARN, "%s: a new root must be signed: this one expires in %lld days", r->dir,
                (long long)(left / SKF_TUF_DAY));
    return SKF_OK;
}

/* The targets to publish: the new ones when there are, otherwise those that are published, or lie ready for the first
 * time. */
static enum skf_err take_targets(struct repo *r, const void *p, size_t n, bool *is_new, struct skf_why *why)
{
    *is_new = false;
    if (!p && r->old_targets) {
        r->targets = skf_json_ref(r->old_targets);
        return judge_targets(r, why);
    }
    bool is_first = !p;
    if (is_first) {
        int64_t version = 0;
        SKF_TRY(skf_tuf_repo_newest(r->dir, "targets", &version, why));
        SKF_TRY(skf_tuf_repo_load(r->dir, version ? version : 1, "targets", "targets", &r->targets, &r->targets_bytes,
                                  why));
    } else {
        SKF_TRY(skf_tuf_parse("targets", "targets", p, n, &r->targets, why));
    }
    SKF_TRY(judge_targets(r, why));
    SKF_TRY(skf_tuf_check_expiry("targets", r->targets, r->now, why));
    *is_new = true;
    if (is_first)
        return SKF_OK;
    if (r->old_targets && skf_tuf_version(r->targets) == skf_tuf_version(r->old_targets)) {
        if (r->targets_bytes.len != n || memcmp(r->targets_bytes.data, p, n) != 0)
            return skf_fail(why, SKF_ERR_EXISTS, "targets: version %lld is published already, with another content",
                            (long long)skf_tuf_version(r->targets));
        *is_new = false;
        return SKF_OK;
    }
    skf_buf_free(&r->targets_bytes);
    r->targets_bytes = SKF_BUF_INIT(SKF_TUF_META_MAX);
    return skf_buf_put(&r->targets_bytes, p, n) == SKF_OK ? SKF_OK
                                                          : skf_fail(why, SKF_ERR_NOMEM, "targets: out of memory");
}

/* ---- the three online roles ------------------------------------------------------------------------------------- */

static bool is_near(const struct repo *r, const skf_json *doc, int64_t days)
{
    return skf_tuf_expires(doc) - r->now < days * SKF_TUF_DAY;
}

static enum skf_err check_keys(const struct repo *r, const struct skf_tuf_online *k, struct skf_why *why)
{
    if (!is_tuf_listed(r->targets, "deltas", skf_key_id(k->deltas)))
        return skf_fail(why, SKF_ERR_REFUSED, "deltas key %.16s...: the targets do not delegate to it",
                        skf_key_id(k->deltas));
    if (!is_tuf_listed(r->root, "snapshot", skf_key_id(k->snapshot)))
        return skf_fail(why, SKF_ERR_REFUSED, "snapshot key %.16s...: the root does not list it",
                        skf_key_id(k->snapshot));
    if (!is_tuf_listed(r->root, "timestamp", skf_key_id(k->timestamp)))
        return skf_fail(why, SKF_ERR_REFUSED, "timestamp key %.16s...: the root does not list it",
                        skf_key_id(k->timestamp));
    return SKF_OK;
}

/* Signs, checks that the signature reaches the threshold, and gives the bytes. */
static enum skf_err seal(skf_json *doc, const struct skf_key *k, const skf_json *delegator, const char *role,
                         char **text, size_t *n, struct skf_why *why)
{
    SKF_TRY(skf_tuf_sign(doc, k, why));
    enum skf_err e = skf_tuf_verify(delegator, role, doc, why);
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", role);
    e = skf_tuf_doc_text(doc, text, n);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "%s: larger than %u bytes", role, SKF_TUF_META_MAX);
}

/* Adds what is not listed yet; true in *changed when something was not. */
static enum skf_err add_deltas(skf_json *doc, const struct skf_tuf_delta *d, size_t n, bool *changed,
                               struct skf_why *why)
{
    skf_json *list = skf_json_get(skf_tuf_signed(doc), "targets");
    for (size_t i = 0; i < n; i++) {
        if (!is_tuf_path(d[i].path) || !is_tuf_match("deltas/*", d[i].path))
            return skf_fail(why, SKF_ERR_ARG, "%s: not a path of the folder deltas", d[i].path);
        if (d[i].target.length > INT64_MAX)
            return skf_fail(why, SKF_ERR_ARG, "%s: too long", d[i].path);
        const skf_json *old = skf_json_get(list, d[i].path);
        char hex[SKF_HEX];
        skf_hex(d[i].target.sha256, SKF_DIGEST, hex);
        const char *old_hex = skf_json_cstr(skf_json_get(skf_json_get(old, "hashes"), "sha256"));
        if (old && old_hex && strcmp(old_hex, hex) == 0 &&
            (uint64_t)skf_json_i64(skf_json_get(old, "length"), -1) == d[i].target.length)
            continue;
        *changed = true;
        if (old)
            (void)!skf_json_del(list, d[i].path); /* so that it counts as newest */
        if (skf_tuf_doc_target(doc, d[i].path, &d[i].target) != SKF_OK)
            return skf_fail(why, SKF_ERR_NOMEM, "deltas: out of memory");
    }
    while (skf_json_len(list) > SKF_TUF_DELTAS_MAX) {
        const char *first = skf_json_iter_key(skf_json_iter(list));
        char path[4096];
        if (snprintf(path, sizeof path, "%s", first) >= (int)sizeof path || skf_json_del(list, path) != SKF_OK)
            return skf_fail(why, SKF_ERR_INTERNAL, "deltas: the list cannot be shortened");
    }
    return SKF_OK;
}

static enum skf_err make_deltas(struct repo *r, const struct skf_tuf_online *k, const struct skf_tuf_delta *d, size_t n,
                                char **text, size_t *len, struct skf_why *why)
{
    bool changed = !r->deltas;
    if (!r->deltas) {
        enum skf_err e = SKF_OK;
        r->deltas = skf_tuf_doc_new("targets", 1, r->now);
        skf_tuf_put(&e, skf_tuf_signed(r->deltas), "targets", skf_json_obj());
        if (!r->deltas || e != SKF_OK)
            return skf_fail(why, SKF_ERR_NOMEM, "deltas: out of memory");
    }
    SKF_TRY(add_deltas(r->deltas, d, n, &changed, why));
    if (!changed && !is_near(r, r->deltas, SKF_TUF_DELTAS_RENEW) &&
        skf_tuf_verify(r->targets, "deltas", r->deltas, NULL) == SKF_OK)
        return SKF_OK;
    int64_t version = (r->snapshot ? listed(r->snapshot, "deltas") : 0) + 1;
    if (skf_tuf_doc_renew(r->deltas, version, r->now + SKF_TUF_DELTAS_DAYS * (int64_t)SKF_TUF_DAY) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "deltas: out of memory");
    return seal(r->deltas, k->deltas, r->targets, "deltas", text, len, why);
}

static enum skf_err make_snapshot(struct repo *r, const struct skf_tuf_online *k, bool is_new_targets,
                                  const char *deltas, size_t deltas_len, char **text, size_t *len, struct skf_why *why)
{
    if (r->snapshot && !is_new_targets && !deltas && !is_near(r, r->snapshot, SKF_TUF_SNAPSHOT_RENEW) &&
        skf_tuf_verify(r->root, "snapshot", r->snapshot, NULL) == SKF_OK)
        return SKF_OK;
    enum skf_err e = SKF_OK;
    int64_t version = (r->timestamp ? listed(r->timestamp, "snapshot") : 0) + 1;
    if (!r->snapshot) {
        r->snapshot = skf_tuf_doc_new("snapshot", 1, r->now);
        e = r->snapshot ? SKF_OK : SKF_ERR_NOMEM;
        skf_tuf_put(&e, skf_tuf_signed(r->snapshot), "meta", skf_json_obj());
    }
    if (e == SKF_OK)
        e = skf_tuf_doc_renew(r->snapshot, version, r->now + SKF_TUF_SNAPSHOT_DAYS * (int64_t)SKF_TUF_DAY);
    if (e == SKF_OK)
        e = skf_tuf_doc_meta(r->snapshot, "targets", skf_tuf_version(r->targets), r->targets_bytes.data,
                             r->targets_bytes.len);
    if (e == SKF_OK && deltas)
        e = skf_tuf_doc_meta(r->snapshot, "deltas", skf_tuf_version(r->deltas), deltas, deltas_len);
    if (e != SKF_OK)
        return skf_fail(why, e, "snapshot: out of memory");
    return seal(r->snapshot, k->snapshot, r->root, "snapshot", text, len, why);
}

static enum skf_err make_timestamp(struct repo *r, const struct skf_tuf_online *k, const char *snapshot,
                                   size_t snapshot_len, char **text, size_t *len, struct skf_why *why)
{
    if (r->timestamp && !snapshot && !is_near(r, r->timestamp, SKF_TUF_STAMP_RENEW) &&
        skf_tuf_verify(r->root, "timestamp", r->timestamp, NULL) == SKF_OK)
        return SKF_OK;
    enum skf_err e = SKF_OK;
    int64_t version = (r->timestamp ? skf_tuf_version(r->timestamp) : 0) + 1;
    if (!r->timestamp) {
        r->timestamp = skf_tuf_doc_new("timestamp", 1, r->now);
        e = r->timestamp ? SKF_OK : SKF_ERR_NOMEM;
        skf_tuf_put(&e, skf_tuf_signed(r->timestamp), "meta", skf_json_obj());
    }
    if (e == SKF_OK)
        e = skf_tuf_doc_renew(r->timestamp, version, r->now + SKF_TUF_STAMP_DAYS * (int64_t)SKF_TUF_DAY);
    if (e == SKF_OK && snapshot)
        e = skf_tuf_doc_meta(r->timestamp, "snapshot", skf_tuf_version(r->snapshot), snapshot, snapshot_len);
    if (e != SKF_OK)
        return skf_fail(why, e, "timestamp: out of memory");
    return seal(r->timestamp, k->timestamp, r->root, "timestamp", text, len, why);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* The newest root under its plain name too, for whoever installs a box; nothing of the workflow reads it. */
static enum skf_err copy_root(const struct repo *r, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    bool same = skf_tuf_repo_read(r->dir, "root.json", &b, NULL) == SKF_OK && b.len == r->root_bytes.len &&
                memcmp(b.data, r->root_bytes.data, b.len) == 0;
    skf_buf_free(&b);
    return same ? SKF_OK : skf_tuf_repo_write(r->dir, 0, "root", r->root_bytes.data, r->root_bytes.len, why);
}

/* Removes the version that has become too old; that one is left by a crash is found by nobody and harms nobody. */
static void prune(const struct repo *r, const char *role, int64_t version)
{
    char name[SKF_TUF_NAME_MAX + 1], path[PATH_MAX];
    if (version > SKF_TUF_KEEP && skf_tuf_file_name(name, version - SKF_TUF_KEEP, role, NULL) == SKF_OK &&
        skf_path(path, sizeof path, r->dir, name) == SKF_OK)
        (void)unlink(path);
}

static enum skf_err update(struct repo *r, const struct skf_tuf_online *k, bool is_new_targets,
                           const struct skf_tuf_delta *d, size_t n, struct skf_why *why)
{
    char *deltas = NULL, *snapshot = NULL, *stamp = NULL;
    size_t deltas_len = 0, snapshot_len = 0, stamp_len = 0;
    enum skf_err e;
    SKF_GO(e, make_deltas(r, k, d, n, &deltas, &deltas_len, why));
    SKF_GO(e, make_snapshot(r, k, is_new_targets, deltas, deltas_len, &snapshot, &snapshot_len, why));
    SKF_GO(e, make_timestamp(r, k, snapshot, snapshot_len, &stamp, &stamp_len, why));
    if (is_new_targets)
        SKF_GO(e, skf_tuf_repo_write(r->dir, skf_tuf_version(r->targets), "targets", r->targets_bytes.data,
                                     r->targets_bytes.len, why));
    if (deltas)
        SKF_GO(e, skf_tuf_repo_write(r->dir, skf_tuf_version(r->deltas), "deltas", deltas, deltas_len, why));
    if (snapshot)
        SKF_GO(e, skf_tuf_repo_write(r->dir, skf_tuf_version(r->snapshot), "snapshot", snapshot, snapshot_len, why));
    SKF_GO(e, copy_root(r, why));
    if (stamp)
        SKF_GO(e, skf_tuf_repo_write(r->dir, 0, "timestamp", stamp, stamp_len, why));
    if (deltas)
        prune(r, "deltas", skf_tuf_version(r->deltas));
    if (snapshot)
        prune(r, "snapshot", skf_tuf_version(r->snapshot));
out:
    skf_free(deltas);
    skf_free(snapshot);
    skf_free(stamp);
    return e;
}

enum skf_err skf_tuf_repo_update(const char *dir, const struct skf_tuf_online *keys, const void *targets,
                                 size_t targets_len, const struct skf_tuf_delta *deltas, size_t n, int64_t now,
                                 struct skf_why *why)
{
    struct repo r = {.dir = dir,
                     .lock = -1,
                     .now = now,
                     .root_bytes = SKF_BUF_INIT(SKF_TUF_META_MAX),
                     .targets_bytes = SKF_BUF_INIT(SKF_TUF_META_MAX)};
    bool is_new_targets;
    enum skf_err e;
    SKF_GO(e, repo_lock(&r, why));
    SKF_GO(e, load_root(&r, why));
    SKF_GO(e, load_state(&r, why));
    SKF_GO(e, take_targets(&r, targets, targets_len, &is_new_targets, why));
    SKF_GO(e, check_keys(&r, keys, why));
    SKF_GO(e, update(&r, keys, is_new_targets, deltas, n, why));
out:
    repo_close(&r);
    return e;
}
