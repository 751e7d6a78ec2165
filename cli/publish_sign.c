/*
 * What `skiff publish` signs.
 *
 * The targets document that the distributor shows is not taken on its word: TUF's client workflow runs against it, with
 * a trusted state in <tls>/tuf that starts from <tls>/root.json, or, where there is none, from the first root that the
 * distributor shows (trust on first use, said on stderr).  Only what verified is added to and signed.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/publish.h"
#include "distributor/assign.h"
#include "distributor/manifest.h"
#include "proto/msg.h"
#include "trust/tuf.h"

static const char unsigned_end[] = ".targets.json", manifest_end[] = ".manifest";

enum skf_err skf_publish_meta(struct skf_connect *c, const char *name, struct skf_buf *out, struct skf_why *why)
{
    Skiff__V1__MetaRequest q = SKIFF__V1__META_REQUEST__INIT;
    ProtobufCMessage *answer;
    q.name = (char *)(uintptr_t)name;
    SKF_TRY(skf_connect_call(c, "GetMeta", &q.base, &skiff__v1__meta_answer__descriptor, &answer, why));
    const ProtobufCBinaryData *d = &((Skiff__V1__MetaAnswer *)answer)->data;
    enum skf_err e = skf_buf_put(out, d->data, d->len);
    skf_msg_free(answer);
    return e;
}

static enum skf_err fetch(void *ctx, const char *name, struct skf_buf *out, struct skf_why *why)
{
    return skf_publish_meta(ctx, name, out, why);
}

/* ---- the manifest ---------------------------------------------------------------------------------------------- */
static enum skf_err manifest_of_file(struct skf_publish *p, struct skf_why *why)
{
    char path[PATH_MAX];
    size_t n = strlen(p->targets_file), end = sizeof unsigned_end - 1;
    if (n <= end || strcmp(p->targets_file + n - end, unsigned_end) != 0)
        return skf_fail(why, SKF_ERR_ARG, "%s: its name must end in %s, with the manifest beside it", p->targets_file,
                        unsigned_end);
    int w = snprintf(path, sizeof path, "%.*s%s", (int)(n - end), p->targets_file, manifest_end);
    if (w < 0 || (size_t)w >= sizeof path)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", p->targets_file);
    SKF_TRY(skf_file_read(path, SKF_MANIFEST_MAX, &p->manifest, &p->manifest_len, why));
    return SKF_OK;
}

static enum skf_err new_manifest(struct skf_publish *p, struct skf_why *why)
{
    const char *slash = strrchr(p->file, '/');
    struct skf_manifest_opts o = {.model = p->model,
                                  .version = p->version,
                                  .file = slash ? slash + 1 : p->file,
                                  .notes = p->notes,
                                  .created = skf_now_unix()};
    return skf_manifest_make(p->content, &p->cut, &o, &p->manifest, &p->manifest_len, why);
}

/* A manifest from elsewhere must be that of this file and these names. */
static enum skf_err check_manifest(const struct skf_publish *p, enum skf_err other, const char *where,
                                   struct skf_why *why)
{
    Skiff__V1__Manifest *m;
    enum skf_err e = skf_manifest_read(p->manifest, p->manifest_len, &m, why);
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", where);
    if (strcmp(m->model, p->model) != 0 || strcmp(m->version, p->version) != 0)
        e = skf_fail(why, SKF_ERR_ARG, "%s: is of %s %s", where, m->model, m->version);
    else if (memcmp(m->root.data, p->cut.root, SKF_DIGEST) != 0)
        e = skf_fail(why, other, "%s %s: %s has another content than %s", p->model, p->version, where, p->file);
    skf_manifest_free(m);
    return e;
}

enum skf_err skf_publish_manifest(struct skf_publish *p, struct skf_why *why)
{
    char path[SKF_TARGET_PATH];
    struct skf_buf b = SKF_BUF_INIT(SKF_WIRE_MESSAGE_MAX);
    skf_manifest_path(p->model, p->version, path);
    enum skf_err e = skf_publish_meta(&p->c, path, &b, why);
    if (e == SKF_OK) {
        p->is_known = true;
        p->manifest = skf_buf_steal(&b, &p->manifest_len);
        e = check_manifest(p, SKF_ERR_EXISTS, "what is published under this name", why);
    } else if (e == SKF_ERR_NOT_FOUND && p->targets_file) {
        e = manifest_of_file(p, why);
        if (e == SKF_OK)
            e = check_manifest(p, SKF_ERR_DIGEST, "the manifest that was signed", why);
    } else if (e == SKF_ERR_NOT_FOUND) {
        e = new_manifest(p, why);
    }
    skf_buf_free(&b);
    return e;
}

/* ---- the trusted state ----------------------------------------------------------------------------------------- */
static enum skf_err first_root(struct skf_publish *p, const char *dir, struct skf_why *why)
{
    char path[PATH_MAX];
    uint8_t *data = NULL, digest[SKF_DIGEST];
    size_t n;
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    SKF_TRY(skf_path(path, sizeof path, p->c.tls, "root.json"));
    enum skf_err e = skf_file_read(path, SKF_TUF_META_MAX, &data, &n, why);
    if (e == SKF_ERR_NOT_FOUND) {
        char hex[SKF_HEX];
        SKF_GO(e, skf_publish_meta(&p->c, "1.root.json", &b, why));
        data = skf_buf_steal(&b, &n);
        skf_sha256(data, n, digest);
        skf_hex(digest, sizeof digest, hex);
        (void)fprintf(stderr, "skiff: %s: trusted from now on: root %s of %s\n", dir, hex, p->c.centre);
    }
    if (e == SKF_OK)
        e = skf_tuf_init(dir, data, n, why);
out:
    skf_free(data);
    skf_buf_free(&b);
    return e;
}

static enum skf_err read_json(const char *dir, const char *name, skf_json **doc, struct skf_why *why)
{
    char path[PATH_MAX];
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_path(path, sizeof path, dir, name));
    SKF_TRY(skf_file_read(path, SKF_TUF_META_MAX, &p, &n, why));
    enum skf_err e = skf_json_parse(p, n, 32, doc, why);
    skf_free(p);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", path);
}

/* The newest root and targets, verified. */
static enum skf_err trusted(struct skf_publish *p, skf_json **root, skf_json **targets, struct skf_why *why)
{
    char dir[PATH_MAX], path[PATH_MAX];
    struct skf_tuf *t = NULL;
    uint8_t *had = NULL;
    size_t n;
    SKF_TRY(skf_path(dir, sizeof dir, p->c.tls, "tuf"));
    SKF_TRY(skf_path(path, sizeof path, dir, "root.json"));
    SKF_TRY(skf_mkdirs(dir, 0700, why));
    enum skf_err e = skf_file_read(path, SKF_TUF_META_MAX, &had, &n, why);
    skf_free(had);
    if (e == SKF_ERR_NOT_FOUND)
        e = first_root(p, dir, why);
    SKF_TRY(e);
    SKF_GO(e, skf_tuf_open(dir, &t, why));
    SKF_GO(e, skf_tuf_refresh(t, skf_now_unix(), fetch, &p->c, why));
    SKF_GO(e, read_json(dir, "root.json", root, why));
    e = read_json(dir, "targets.json", targets, why);
out:
    skf_tuf_close(t);
    return e;
}

/* ---- signing --------------------------------------------------------------------------------------------------- */
static enum skf_err add_manifest(const struct skf_publish *p, skf_json *doc, struct skf_why *why)
{
    char path[SKF_TARGET_PATH];
    struct skf_tuf_target t = {.length = p->manifest_len};
    skf_sha256(p->manifest, p->manifest_len, t.sha256);
    skf_manifest_path(p->model, p->version, path);
    return skf_tuf_add_target(doc, path, &t, skf_now_unix(), why);
}

static enum skf_err sign_with(const char *path, skf_json *doc, struct skf_why *why)
{
    struct skf_key *k;
    SKF_TRY(skf_key_load(path, &k, why));
    enum skf_err e = skf_tuf_sign(doc, k, why);
    skf_key_free(k);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", path);
}

static enum skf_err write_unsigned(struct skf_publish *p, const char *text, size_t n, struct skf_why *why)
{
    char path[PATH_MAX], manifest[PATH_MAX];
    int a, b;
    if (p->out) {
        a = snprintf(path, sizeof path, "%s%s", p->out, unsigned_end);
        b = snprintf(manifest, sizeof manifest, "%s%s", p->out, manifest_end);
    } else {
        a = snprintf(path, sizeof path, "%s-%s%s", p->model, p->version, unsigned_end);
        b = snprintf(manifest, sizeof manifest, "%s-%s%s", p->model, p->version, manifest_end);
    }
    if (a < 0 || b < 0 || (size_t)a >= sizeof path || (size_t)b >= sizeof manifest)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", p->out ? p->out : p->model);
    SKF_TRY(skf_file_write(manifest, p->manifest, p->manifest_len, 0644, why));
    SKF_TRY(skf_file_write(path, text, n, 0644, why));
    if (p->json) {
        skf_json *j = skf_json_obj();
        SKF_TRY(skf_json_put_str(j, "unsigned", path));
        SKF_TRY(skf_json_put_str(j, "manifest", manifest));
        return skf_cli_print_json(j) == SKF_EXIT_OK ? SKF_OK : SKF_ERR_IO;
    }
    (void)printf("%s is to be signed with the targets key:\n  skiff sign --key KEYFILE %s\nthen\n"
                 "  skiff publish %s --model %s --version %s%s%s",
                 path, path, p->file, p->model, p->version, p->channel ? " --channel " : "", p->channel ? p->channel : "");
    if (p->adapter.file)
        (void)printf(" --adapter %s --adapter-base %s", p->adapter.file, p->adapter.base);
    (void)printf(" --targets %s\n", path);
    return SKF_OK;
}

static enum skf_err take_signed(struct skf_publish *p, const skf_json *root, struct skf_why *why)
{
    skf_json *doc = NULL;
    uint8_t *data;
    SKF_TRY(skf_file_read(p->targets_file, SKF_TUF_META_MAX, &data, &p->targets_len, why));
    p->targets = (char *)data;
    enum skf_err e = skf_json_parse(data, p->targets_len, 32, &doc, why);
    if (e == SKF_OK)
        e = skf_tuf_verify(root, "targets", doc, why);
    skf_json_free(doc);
    return e == SKF_OK ? e : skf_fail_prefix(why, e, "%s", p->targets_file);
}

enum skf_err skf_publish_sign(struct skf_publish *p, bool *is_written, struct skf_why *why)
{
    skf_json *root = NULL, *doc = NULL;
    enum skf_err e;
    *is_written = false;
    SKF_GO(e, trusted(p, &root, &doc, why));
    if (p->targets_file) {
        e = take_signed(p, root, why);
        goto out;
    }
    SKF_GO(e, add_manifest(p, doc, why));
    for (size_t i = 0; i < p->n_keys; i++)
        SKF_GO(e, sign_with(p->keys[i], doc, why));
    SKF_GO(e, skf_json_text(doc, 0, &p->targets, &p->targets_len));
    if (p->n_keys == 0) {
        *is_written = true;
        e = write_unsigned(p, p->targets, p->targets_len, why);
        goto out;
    }
    e = skf_tuf_verify(root, "targets", doc, why);
    if (e != SKF_OK)
        e = skf_fail_prefix(why, e, "%s", p->keys[0]);
out:
    skf_json_free(root);
    skf_json_free(doc);
    return e;
}
