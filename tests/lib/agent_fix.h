/*
 * What the agent's tests share: a signed repository with a model in some versions, deltas between them, a store, and a centre in
 * this process that answers an installation's questions and can be told to break off or to lie.
 */
#ifndef SKF_TESTS_AGENT_FIX_H
#define SKF_TESTS_AGENT_FIX_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_priv.h"
#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"
#include "model/adapter.h"
#include "proto/manifest.pb-c.h"
#include "proto/msg.h"
#include "trust/tuf.h"

#define FIX __attribute__((unused)) static

#define fix_ok(expr)                                                                                                   \
    do {                                                                                                               \
        struct skf_why fix_why_ = {{0}}, *why __attribute__((unused)) = &fix_why_;                                     \
        enum skf_err fix_e_ = (expr);                                                                                  \
        if (fix_e_ != SKF_OK)                                                                                          \
            fail_msg("%s: %s: %s", #expr, skf_err_name(fix_e_), fix_why_.text);                                        \
    } while (0)

#define FIX_TARGETS 16
struct fix_file { /* a target: what the centre sends under its path */
    char path[SKF_AGENT_PATH];
    uint8_t *p;
    size_t n;
};

struct fix {
    char dir[64];
    struct skf_store *store;
    struct skf_key *key[5]; /* root, targets, snapshot, timestamp, deltas */
    struct fix_file targets[FIX_TARGETS];
    size_t n_targets;
    struct fix_file skd[FIX_TARGETS]; /* whole .skd files, by the index's path */
    size_t n_skd;
    const char *adapter; /* a file's name: deltas are built with it */

    /* the link */
    uint64_t asked[4096];
    size_t n_asked, at;
    char asked_of[SKF_AGENT_PATH];
    unsigned sent, waits, metas;
    unsigned break_every; /* the link breaks after so many payloads; 0 never */
    unsigned cancel_at;   /* the installation is cancelled after so many; 0 never */
    unsigned flips;       /* so many payloads come with a wrong byte */
    enum { FIX_HONEST, FIX_UNASKED, FIX_LENGTH, FIX_LEAVES_OUT, FIX_REFUSES, FIX_SILENT } lie;
    char meta_lie[SKF_AGENT_PATH]; /* this answer has a wrong byte */
    uint64_t bytes;

    atomic_bool cancel;
    struct skf_install_progress progress;
    struct skf_pace pace; /* no rate unless a test sets one */
};

static int fix_unlink(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}
FIX void fix_remove(const char *dir) { (void)nftw(dir, fix_unlink, 8, FTW_DEPTH | FTW_PHYS); }

FIX const char *fix_path(const struct fix *f, const char *name)
{
    static char paths[8][700];
    static unsigned k;
    char *p = paths[k++ % 8];
    (void)snprintf(p, sizeof paths[0], "%s/%s", f->dir, name);
    return p;
}

/* ---- repository ------------------------------------------------------------------------------------------------------------- */

static void fix_sign(struct fix *f, const char *name, const struct skf_key *k)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *doc;
    char *text, path[128];
    size_t n;
    fix_ok(skf_tuf_repo_read(fix_path(f, "repo"), name, &b, why));
    fix_ok(skf_json_parse(b.data, b.len, 32, &doc, why));
    fix_ok(skf_tuf_sign(doc, k, why));
    fix_ok(skf_json_text(doc, 0, &text, &n));
    (void)snprintf(path, sizeof path, "repo/%s", name);
    fix_ok(skf_file_write(fix_path(f, path), text, n, 0644, why));
    skf_free(text);
    skf_json_free(doc);
    skf_buf_free(&b);
}

static void fix_repo(struct fix *f)
{
    static const char *const roles[] = {"root", "targets", "snapshot", "timestamp", "deltas"};
    skf_json *pub[5];
    for (int i = 0; i < 5; i++) {
        fix_ok(skf_key_generate(roles[i], &f->key[i], why));
        pub[i] = skf_key_public(f->key[i]);
    }
    struct skf_tuf_keys keys = {&pub[0], &pub[1], &pub[2], &pub[3], &pub[4], 1, 1, 1, 1, 1, 1, 1};
    fix_ok(skf_mkdirs(fix_path(f, "repo"), 0700, why));
    fix_ok(skf_tuf_repo_new(fix_path(f, "repo"), &keys, skf_now_unix(), why));
    for (int i = 0; i < 5; i++)
        skf_json_free(pub[i]);
    fix_sign(f, "1.root.json", f->key[0]);
    fix_sign(f, "1.targets.json", f->key[1]);
    struct skf_tuf_online on = {f->key[4], f->key[2], f->key[3]};
    fix_ok(skf_tuf_repo_update(fix_path(f, "repo"), &on, NULL, 0, NULL, 0, skf_now_unix(), why));
    uint8_t *root;
    size_t n;
    fix_ok(skf_file_read(fix_path(f, "repo/1.root.json"), 1 << 20, &root, &n, why));
    fix_ok(skf_mkdirs(fix_path(f, "tuf"), 0700, why));
    fix_ok(skf_tuf_init(fix_path(f, "tuf"), root, n, why));
    skf_free(root);
}

/* Lists the bytes under the path, signed by the release key (models/) or the distributor's (deltas/). */
FIX void fix_target(struct fix *f, const char *path, const void *p, size_t n)
{
    struct skf_tuf_online on = {f->key[4], f->key[2], f->key[3]};
    struct skf_tuf_delta d = {.path = path, .target = {.length = n}};
    skf_sha256(p, n, d.target.sha256);
    if (strncmp(path, "deltas/", 7) == 0) {
        fix_ok(skf_tuf_repo_update(fix_path(f, "repo"), &on, NULL, 0, &d, 1, skf_now_unix(), why));
    } else {
        skf_json *doc;
        char *text;
        size_t len;
        fix_ok(skf_tuf_repo_targets(fix_path(f, "repo"), &doc, why));
        fix_ok(skf_tuf_add_target(doc, path, &d.target, skf_now_unix(), why));
        fix_ok(skf_tuf_sign(doc, f->key[1], why));
        fix_ok(skf_json_text(doc, 0, &text, &len));
        fix_ok(skf_tuf_repo_update(fix_path(f, "repo"), &on, text, len, NULL, 0, skf_now_unix(), why));
        skf_free(text);
        skf_json_free(doc);
    }
    size_t i = 0;
    while (i < f->n_targets && strcmp(f->targets[i].path, path) != 0)
        i++;
    assert_true(i < FIX_TARGETS);
    if (i == f->n_targets)
        f->n_targets++;
    else
        skf_free(f->targets[i].p);
    (void)snprintf(f->targets[i].path, SKF_AGENT_PATH, "%s", path);
    f->targets[i].p = skf_memdup(p, n);
    f->targets[i].n = n;
}

/* ---- versions --------------------------------------------------------------------------------------------------------------- */

/* Bytes of a version: of `seed`, but for those of `edit` at some places. */
FIX void fix_content(struct fix *f, const char *version, size_t n, unsigned seed, unsigned edit)
{
    uint8_t *p = malloc(n + 1);
    uint64_t x = 88172645463325252u + seed;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (uint8_t)x;
        if (edit && i % (1 << 20) > 1000 && i % 1999 == 7 && (i >> 20) % 3 != 1) /* every third chunk stays */
            p[i] = (uint8_t)(p[i] + edit);
    }
    fix_ok(skf_file_write(fix_path(f, version), p, n, 0600, why));
    free(p);
}

/* Manifest of the file, as `says` names it, listed under `version`'s path. */
FIX void fix_publish(struct fix *f, const char *version, const char *says)
{
    struct skf_model *m;
    struct skf_cut cut = {0};
    fix_ok(skf_model_open(fix_path(f, version), &m, why));
    fix_ok(skf_cut_make(m, 1, NULL, &cut, why));
    Skiff__V1__Manifest man = SKIFF__V1__MANIFEST__INIT;
    uint8_t *digests = malloc(cut.n * SKF_DIGEST + 1);
    uint32_t *lengths = malloc(cut.n * 4 + 4);
    for (uint64_t i = 0; i < cut.n; i++) {
        memcpy(digests + i * SKF_DIGEST, cut.chunks[i].digest, SKF_DIGEST);
        lengths[i] = cut.chunks[i].length;
    }
    man.format = 1;
    man.model = (char *)(uintptr_t) "m";
    man.version = (char *)(uintptr_t)says;
    man.file_format = (char *)(uintptr_t) "bytes";
    man.root = (ProtobufCBinaryData){SKF_DIGEST, cut.root};
    man.size = cut.size;
    man.chunk_digests = (ProtobufCBinaryData){cut.n * SKF_DIGEST, digests};
    man.n_chunk_lengths = cut.n;
    man.chunk_lengths = lengths;
    uint8_t *p;
    size_t n;
    char path[SKF_AGENT_PATH];
    fix_ok(skf_msg_pack(&man.base, &p, &n));
    (void)snprintf(path, sizeof path, "models/m/%s.manifest", version);
    fix_target(f, path, p, n);
    skf_free(p);
    free(digests);
    free(lengths);
    skf_cut_free(&cut);
    skf_model_close(m);
}

/* The delta between two published versions; its path goes to `path`. */
FIX void fix_delta(struct fix *f, const char *from, const char *to, char path[SKF_AGENT_PATH])
{
    struct skf_model *a, *b;
    struct skf_delta_opts o = {.jobs = 1};
    struct skf_delta_stats st;
    fix_ok(skf_model_open(fix_path(f, from), &a, why));
    fix_ok(skf_model_open(fix_path(f, to), &b, why));
    struct skf_adapter *adapter = NULL;
    if (f->adapter)
        fix_ok(skf_adapter_open(fix_path(f, f->adapter), a, from, &adapter, why));
    o.adapter = adapter;
    fix_ok(skf_delta_build(a, b, fix_path(f, "delta.skd"), &o, &st, why));
    skf_adapter_close(adapter);
    skf_model_close(a);
    skf_model_close(b);
    char source[SKF_HEX], result[SKF_HEX];
    skf_hex(st.source_root, SKF_DIGEST, source);
    skf_hex(st.result_root, SKF_DIGEST, result);
    (void)snprintf(path, SKF_AGENT_PATH, "deltas/%s-%s.skdx", source, result);
    struct fix_file *skd = &f->skd[f->n_skd++];
    (void)snprintf(skd->path, sizeof skd->path, "%s", path);
    fix_ok(skf_file_read(fix_path(f, "delta.skd"), 1 << 30, &skd->p, &skd->n, why));
    uint64_t index;
    fix_ok(skf_skd_index_size(skd->p, &index, why));
    fix_target(f, path, skd->p, (size_t)index);
}

/* ---- the link ---------------------------------------------------------------------------------------------------------------- */

static const struct fix_file *fix_find(const struct fix_file *list, size_t n, const char *path)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].path, path) == 0)
            return &list[i];
    return NULL;
}

static enum skf_err fix_wait(void *ctx, const atomic_bool *cancel, struct skf_why *why)
{
    struct fix *f = ctx;
    f->waits++;
    return atomic_load(cancel) || f->waits > 10000 ? skf_fail(why, SKF_ERR_CANCELLED, "cancelled") : SKF_OK;
}

static enum skf_err fix_meta(void *ctx, const atomic_bool *cancel, const char *name, struct skf_buf *out,
                             struct skf_why *why)
{
    struct fix *f = ctx;
    (void)cancel;
    f->metas++;
    skf_buf_clear(out);
    const struct fix_file *t = fix_find(f->targets, f->n_targets, name);
    if (t)
        SKF_TRY(skf_buf_put(out, t->p, t->n));
    else
        SKF_TRY(skf_tuf_repo_read(fix_path(f, "repo"), name, out, why));
    if (strcmp(name, f->meta_lie) == 0)
        out->data[out->len / 2] ^= 1;
    return SKF_OK;
}

static enum skf_err fix_ask(void *ctx, const char *delta, const struct skf_range *r, size_t n, struct skf_why *why)
{
    struct fix *f = ctx;
    (void)why;
    assert_true(n > 0 && n <= 256);
    if (f->at == f->n_asked)
        f->at = f->n_asked = 0;
    (void)snprintf(f->asked_of, sizeof f->asked_of, "%s", delta);
    for (size_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < r[i].count; k++) {
            assert_true(f->n_asked < SKF_COUNT(f->asked));
            f->asked[f->n_asked++] = r[i].first + k;
        }
    return SKF_OK;
}

static enum skf_err fix_lie(struct fix *f, struct skf_payload *out, struct skf_why *why)
{
    switch (f->lie) {
    case FIX_UNASKED:
        out->number += 1000;
        return SKF_OK;
    case FIX_LENGTH:
        out->n--;
        return SKF_OK;
    case FIX_LEAVES_OUT:
        return skf_fail(why, SKF_ERR_FORMAT, "left out");
    case FIX_REFUSES:
        return skf_fail(why, SKF_ERR_REFUSED, "no such delta");
    case FIX_SILENT:
        return skf_fail(why, SKF_ERR_TIMEOUT, "silent");
    default:
        return SKF_OK;
    }
}

static enum skf_err fix_chunk(void *ctx, const atomic_bool *cancel, struct skf_payload *out, struct skf_why *w)
{
    struct fix *f = ctx;
    if (atomic_load(cancel))
        return skf_fail(w, SKF_ERR_CANCELLED, "cancelled");
    if (f->break_every && f->sent && f->sent % f->break_every == 0) {
        f->sent++; /* breaks once here */
        f->at = f->n_asked = 0;
        return skf_fail(w, SKF_ERR_NET, "the link broke");
    }
    assert_true(f->at < f->n_asked); /* nobody waits for what was not asked for */
    const struct fix_file *skd = fix_find(f->skd, f->n_skd, f->asked_of);
    assert_non_null(skd);
    uint64_t index;
    struct skf_skd *s;
    uint64_t offset;
    uint32_t length;
    fix_ok(skf_skd_index_size(skd->p, &index, why));
    enum skf_err e = skf_skd_parse(skd->p, index, &s, w);
    SKF_TRY(e);
    skf_skd_payload(s, f->asked[f->at++], &offset, &length);
    skf_skd_free(s);
    *out = (struct skf_payload){f->asked[f->at - 1], skf_memdup(skd->p + offset, length), length};
    if (!out->data)
        return skf_fail(w, SKF_ERR_NOMEM, "no memory");
    if (f->flips) {
        f->flips--;
        out->data[out->n / 2] ^= 0x10;
    }
    f->bytes += out->n;
    f->sent++;
    if (f->cancel_at && f->sent >= f->cancel_at)
        atomic_store(&f->cancel, true);
    e = fix_lie(f, out, w);
    if (e != SKF_OK)
        skf_free(out->data);
    return e;
}

/* ---- all ------------------------------------------------------------------------------------------------------------------------ */

FIX struct fix *fix_new(void)
{
    struct fix *f = calloc(1, sizeof *f);
    const char *base = getenv("SKF_TMP");
    (void)snprintf(f->dir, sizeof f->dir, "%.40s/agent-XXXXXX", base && strlen(base) <= 40 ? base : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    fix_ok(skf_mkdirs(fix_path(f, "incoming"), 0700, why));
    fix_repo(f);
    struct skf_store_opts o = {.mode = SKF_STORE_WRITE, .map_size = 256 << 20, .keep_free = 1};
    fix_ok(skf_store_open(fix_path(f, "store"), &o, &f->store, why));
    return f;
}

FIX void fix_free(struct fix *f)
{
    for (int i = 0; i < 5; i++)
        skf_key_free(f->key[i]);
    for (size_t i = 0; i < f->n_targets; i++)
        skf_free(f->targets[i].p);
    for (size_t i = 0; i < f->n_skd; i++)
        skf_free(f->skd[i].p);
    skf_store_close(f->store);
    fix_remove(f->dir);
    free(f);
}

FIX void fix_reset(struct fix *f)
{
    f->n_asked = f->at = f->sent = f->waits = f->metas = f->break_every = f->cancel_at = f->flips = 0;
    f->lie = FIX_HONEST;
    f->meta_lie[0] = 0;
    f->bytes = 0;
    atomic_store(&f->cancel, false);
    memset(&f->progress, 0, sizeof f->progress);
}

FIX enum skf_err fix_install(struct fix *f, const char *version, const char *delta, struct skf_why *why)
{
    struct skf_install in = {.store = f->store,
                             .tuf_dir = fix_path(f, "tuf"),
                             .cache_dir = fix_path(f, "incoming"),
                             .link = {f, fix_wait, fix_meta, fix_ask, fix_chunk},
                             .jobs = 2,
                             .pace = &f->pace,
                             .cancel = &f->cancel,
                             .progress = &f->progress};
    (void)snprintf(in.assign.id, sizeof in.assign.id, "a1");
    (void)snprintf(in.assign.model, sizeof in.assign.model, "m");
    (void)snprintf(in.assign.version, sizeof in.assign.version, "%s", version);
    (void)snprintf(in.assign.manifest, sizeof in.assign.manifest, "models/m/%s.manifest", version);
    (void)snprintf(in.assign.delta, sizeof in.assign.delta, "%s", delta);
    return skf_install_run(&in, why);
}

/* The version in the store has the bytes of its file. */
FIX void fix_check_version(struct fix *f, const char *version)
{
    struct skf_view *v;
    uint8_t *p, *got;
    size_t n;
    fix_ok(skf_file_read(fix_path(f, version), 1 << 30, &p, &n, why));
    fix_ok(skf_view_open(f->store, "m", version, &v, why));
    struct skf_source src = skf_view_source(v);
    assert_int_equal(src.size, n);
    got = malloc(n + 1);
    fix_ok(skf_source_read(&src, 0, got, n));
    assert_memory_equal(got, p, n);
    skf_view_close(v);
    skf_free(p);
    free(got);
    fix_ok(skf_store_verify(f->store, why));
}

FIX bool has_version(struct fix *f, const char *version)
{
    struct skf_view *v;
    if (skf_view_open(f->store, "m", version, &v, NULL) != SKF_OK)
        return false;
    skf_view_close(v);
    return true;
}

#endif
