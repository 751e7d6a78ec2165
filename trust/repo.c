/* Reading a repository's folder. Its files are ours, but what came by a wrong hand is still parsed as if it were
 * hostile. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "trust/repo_priv.h"

/* A plain file name as clients ask for it: quoted role names, ".json" at the end. */
static bool is_file_name(const char *name)
{
    size_t n = strlen(name);
    if (n < 6 || n > SKF_TUF_NAME_MAX || name[0] == '.' || strcmp(name + n - 5, ".json") != 0)
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~%") == n;
}

static enum skf_err read_file(const char *dir, const char *name, struct skf_buf *out, struct skf_why *why)
{
    char path[PATH_MAX];
    uint8_t *p;
    size_t n;
    if (!is_file_name(name))
        return skf_fail(why, SKF_ERR_ARG, "%.64s: not the name of a metadata file", name);
    if (skf_path(path, sizeof path, dir, name) != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir);
    SKF_TRY(skf_file_read(path, SKF_TUF_META_MAX, &p, &n, why));
    enum skf_err e = skf_buf_put(out, p, n);
    skf_free(p);
    return e == SKF_OK ? SKF_OK : skf_fail(why, e, "%s: larger than is asked for", path);
}

enum skf_err skf_tuf_repo_load(const char *dir, int64_t version, const char *role, const char *type, skf_json **doc,
                               struct skf_buf *bytes, struct skf_why *why)
{
    char name[SKF_TUF_NAME_MAX + 1];
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    SKF_TRY(skf_tuf_file_name(name, version, role, why));
    enum skf_err e = read_file(dir, name, &b, why);
    if (e == SKF_OK && (e = skf_tuf_parse(name, type, b.data, b.len, doc, why)) != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", dir);
    if (e == SKF_OK && version > 0 && skf_tuf_version(*doc) != version) {
        skf_json_free(*doc);
        *doc = NULL;
        e = skf_fail(why, SKF_ERR_FORMAT, "%s/%s: holds another version", dir, name);
    }
    if (e == SKF_OK && bytes) {
        *bytes = b;
        return SKF_OK;
    }
    skf_buf_free(&b);
    return e;
}

enum skf_err skf_tuf_repo_write(const char *dir, int64_t version, const char *role, const void *p, size_t n,
                                struct skf_why *why)
{
    char name[SKF_TUF_NAME_MAX + 1], path[PATH_MAX];
    SKF_TRY(skf_tuf_file_name(name, version, role, why));
    if (skf_path(path, sizeof path, dir, name) != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir);
    return skf_file_write(path, p, n, 0644, why);
}

/* The version in "<version>.<role>.json"; 0 when the name is none of this role. */
static int64_t version_in(const char *name, const char *role)
{
    int64_t v = 0;
    const char *c = name;
    for (; *c >= '0' && *c <= '9'; c++)
        if (c - name >= 18)
            return 0;
        else
            v = v * 10 + (*c - '0');
    char rest[SKF_TUF_NAME_MAX + 1];
    int n = snprintf(rest, sizeof rest, ".%s.json", role);
    return n > 0 && c > name && name[0] != '0' && strcmp(c, rest) == 0 ? v : 0;
}

enum skf_err skf_tuf_repo_newest(const char *dir, const char *role, int64_t *version, struct skf_why *why)
{
    *version = 0;
    DIR *d = opendir(dir);
    if (!d)
        return skf_fail_errno(why, errno, "%s", dir);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        int64_t v = version_in(f->d_name, role);
        if (v > *version)
            *version = v;
    }
    (void)closedir(d);
    return SKF_OK;
}

enum skf_err skf_tuf_repo_check_root(const char *dir, int64_t version, skf_json **root, struct skf_buf *bytes,
                                     struct skf_why *why)
{
    SKF_TRY(skf_tuf_repo_load(dir, version, "root", "root", root, bytes, why));
    enum skf_err e = skf_tuf_verify(*root, "root", *root, why);
    if (e == SKF_OK && version > 1) {
        skf_json *old = NULL;
        e = skf_tuf_repo_load(dir, version - 1, "root", "root", &old, NULL, why);
        if (e == SKF_OK)
            e = skf_tuf_verify(old, "root", *root, why);
        skf_json_free(old);
    }
    if (e == SKF_OK)
        return SKF_OK;
    skf_json_free(*root);
    *root = NULL;
    if (bytes)
        skf_buf_free(bytes);
    return skf_fail_prefix(why, e, "%s/%lld.root.json", dir, (long long)version);
}

enum skf_err skf_tuf_repo_read(const char *dir, const char *name, struct skf_buf *out, struct skf_why *why)
{
    int64_t version = version_in(name, "root");
    skf_json *root = NULL;
    /* A new root lies here while it is being signed; clients must not see it before they can take it. */
    if (version > 1 && skf_tuf_repo_check_root(dir, version, &root, NULL, why) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOT_FOUND, "%s/%s: is not there, or not signed by enough keys yet", dir, name);
    skf_json_free(root);
    return read_file(dir, name, out, why);
}

enum skf_err skf_tuf_repo_targets(const char *dir, skf_json **doc, struct skf_why *why)
{
    skf_json *stamp = NULL, *snapshot = NULL;
    int64_t version = 0;
    enum skf_err e = skf_tuf_repo_load(dir, 0, "timestamp", "timestamp", &stamp, NULL, why);
    if (e == SKF_OK) {
        version = skf_json_i64(skf_json_get(skf_tuf_meta_of(stamp, "snapshot"), "version"), 0);
        SKF_GO(e, skf_tuf_repo_load(dir, version, "snapshot", "snapshot", &snapshot, NULL, why));
        version = skf_json_i64(skf_json_get(skf_tuf_meta_of(snapshot, "targets"), "version"), 0);
    } else if (e == SKF_ERR_NOT_FOUND) { /* not published yet */
        SKF_GO(e, skf_tuf_repo_newest(dir, "targets", &version, why));
    }
    if (e == SKF_OK)
        e = version > 0 ? skf_tuf_repo_load(dir, version, "targets", "targets", doc, NULL, why)
                        : skf_fail(why, SKF_ERR_NOT_FOUND, "%s: holds no targets", dir);
out:
    skf_json_free(stamp);
    skf_json_free(snapshot);
    return e;
}
