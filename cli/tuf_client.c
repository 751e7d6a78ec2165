/* The client side of `skiff tuf`: what an agent does over its session, done from a repository's folder. */
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/tuf_priv.h"
#include "trust/tuf.h"

#define TARGET_MAX ((size_t)1 << 30)

/* The file as it lies there: a client judges for itself what it is given. Names come from the client, quoted. */
static enum skf_err fetch_local(void *ctx, const char *name, struct skf_buf *out, struct skf_why *why)
{
    char path[PATH_MAX];
    uint8_t *p;
    size_t n;
    if (skf_path(path, sizeof path, ctx, name) != SKF_OK)
        return skf_fail(why, SKF_ERR_ARG, "path too long");
    SKF_TRY(skf_file_read(path, out->limit, &p, &n, why));
    enum skf_err e = skf_buf_put(out, p, n);
    skf_free(p);
    return e;
}

int skf_tuf_cmd_client_init(const struct skf_tuf_opts *o)
{
    if (o->n_args != 2)
        return skf_tuf_usage_error("init with --metadata-dir wants ROOT.json");
    struct skf_why why = {{0}};
    uint8_t *p = NULL;
    size_t n = 0;
    enum skf_err e = skf_file_read(o->args[1], SKF_TUF_META_MAX, &p, &n, &why);
    if (e == SKF_OK)
        e = skf_tuf_init(o->metadata_dir, p, n, &why);
    skf_free(p);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}

int skf_tuf_cmd_refresh(const struct skf_tuf_opts *o)
{
    if (!o->metadata_dir || !o->repo)
        return skf_tuf_usage_error("refresh wants --metadata-dir and --repo");
    struct skf_why why = {{0}};
    struct skf_tuf *t = NULL;
    enum skf_err e = skf_tuf_open(o->metadata_dir, &t, &why);
    if (e == SKF_OK)
        e = skf_tuf_refresh(t, skf_now_unix(), fetch_local, (void *)(uintptr_t)o->repo, &why);
    skf_tuf_close(t);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}

/* The folder's file of a target: <hash>.<name> in a repository with consistent snapshots, otherwise its plain name. */
static enum skf_err read_target(const struct skf_tuf_opts *o, const char *path, const struct skf_tuf_target *t,
                                uint8_t **p, size_t *n, struct skf_why *why)
{
    char hex[SKF_HEX], at[PATH_MAX];
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    if (t->length > TARGET_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: larger than %zu bytes", path, TARGET_MAX);
    skf_hex(t->sha256, SKF_DIGEST, hex);
    int k = snprintf(at, sizeof at, "%s/%.*s%s.%s", o->target_base, (int)(base - path), path, hex, base);
    if (k > 0 && (size_t)k < sizeof at && skf_file_read(at, (size_t)t->length, p, n, NULL) == SKF_OK)
        return SKF_OK;
    if (skf_path(at, sizeof at, o->target_base, path) != SKF_OK)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
    enum skf_err e = skf_file_read(at, (size_t)t->length, p, n, why);
    return e == SKF_ERR_LIMIT ? skf_fail(why, SKF_ERR_DIGEST, "%s: longer than is signed for", at) : e;
}

/* One name without separators for every target path, and the same one each time. */
static enum skf_err place_of(const struct skf_tuf_opts *o, const char *path, char at[PATH_MAX], struct skf_why *why)
{
    char name[256];
    size_t n = 0;
    for (const char *c = path; *c; c++) {
        if (n + 4 > sizeof name)
            return skf_fail(why, SKF_ERR_LIMIT, "%s: too long for a file name", path);
        n += (size_t)snprintf(name + n, sizeof name - n, *c == '/' || *c == '%' ? "%%%02X" : "%c", (unsigned char)*c);
    }
    return skf_path(at, PATH_MAX, o->target_dir, name) == SKF_OK
               ? SKF_OK
               : skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", path);
}

static enum skf_err download(const struct skf_tuf_opts *o, struct skf_tuf *t, const char *path, struct skf_why *why)
{
    struct skf_tuf_target target;
    char at[PATH_MAX];
    uint8_t *p = NULL;
    size_t n = 0;
    SKF_TRY(skf_tuf_find(t, skf_now_unix(), path, fetch_local, (void *)(uintptr_t)o->repo, &target, why));
    SKF_TRY(place_of(o, path, at, why));
    bool is_here = target.length <= TARGET_MAX && skf_file_read(at, (size_t)target.length, &p, &n, NULL) == SKF_OK &&
                   skf_tuf_check(&target, path, p, n, NULL) == SKF_OK;
    if (is_here) {
        skf_free(p);
        return SKF_OK;
    }
    skf_free(p);
    p = NULL;
    enum skf_err e = read_target(o, path, &target, &p, &n, why);
    if (e == SKF_OK)
        e = skf_tuf_check(&target, path, p, n, why);
    if (e == SKF_OK)
        e = skf_mkdirs(o->target_dir, 0755, why);
    if (e == SKF_OK)
        e = skf_file_write(at, p, n, 0644, why);
    skf_free(p);
    return e;
}

int skf_tuf_cmd_download(const struct skf_tuf_opts *o)
{
    if (!o->metadata_dir || !o->repo || !o->names.n || !o->target_dir || !o->target_base)
        return skf_tuf_usage_error(
            "download wants --metadata-dir, --repo, --target-name, --target-dir and --target-base");
    struct skf_why why = {{0}};
    struct skf_tuf *t = NULL;
    enum skf_err e = skf_tuf_open(o->metadata_dir, &t, &why);
    if (e == SKF_OK)
        e = skf_tuf_refresh(t, skf_now_unix(), fetch_local, (void *)(uintptr_t)o->repo, &why);
    for (size_t i = 0; e == SKF_OK && i < o->names.n; i++)
        e = download(o, t, o->names.path[i], &why);
    skf_tuf_close(t);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}
