/*
 * What the tests of trust share: a repository in memory whose every role can be made to lie, and a client in a scratch
 * folder.
 */
#ifndef SKF_TESTS_TRUST_FIX_H
#define SKF_TESTS_TRUST_FIX_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ftw.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "trust/tuf.h"

#define FIX_NOW  1800000000 /* 2027-01-15 */
#define FIX_KEYS 12
#define FIX_DAY  86400

#define fix_ok(expr)                                                                                                   \
    do {                                                                                                               \
        fix_why.text[0] = 0;                                                                                           \
        enum skf_err e_ = (expr);                                                                                      \
        if (e_ != SKF_OK)                                                                                              \
            fail_msg("%s: %s: %s", #expr, skf_err_name(e_), fix_why.text);                                             \
    } while (0)
/* The error must be this one, and its line must hold this text. */
#define fix_err(want, text_, expr)                                                                                     \
    do {                                                                                                               \
        fix_why.text[0] = 0;                                                                                           \
        enum skf_err e_ = (expr);                                                                                      \
        if (e_ != (want) || !strstr(fix_why.text, text_))                                                              \
            fail_msg("%s: %s: %s; wanted %s with \"%s\"", #expr, skf_err_name(e_), fix_why.text, skf_err_name(want),   \
                     text_);                                                                                           \
    } while (0)

static struct skf_why fix_why;
static struct skf_why *const why = &fix_why;

struct fix_role {
    int keys[8], n_keys, threshold;
    int signers[8], n_signers;
    long long version, expires;
};
struct fix_repo {
    struct skf_key *k[FIX_KEYS];
    struct fix_role root, timestamp, snapshot, targets, deltas;
    long long lists_snapshot, lists_targets, lists_deltas; /* 0: the true versions */
    bool no_deltas_meta, no_hashes, inconsistent;
    const char *paths; /* of the delegation */
    const char *targets_json, *deltas_json;
    const char *spec_version, *more_roles, *more_meta;
    struct {
        char name[80], *data;
        size_t len;
    } files[400];
    size_t n_files;
    int asked; /* fetches */
    char last[80];
    char dir[64];
    struct skf_tuf *t;
};

static int fix_unlink(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st, (void)flag, (void)f;
    return remove(path);
}
__attribute__((unused)) static void fix_remove(const char *dir)
{
    (void)nftw(dir, fix_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

__attribute__((unused)) static const char *fix_dir(char dir[64])
{
    const char *base = getenv("SKF_TMP");
    (void)snprintf(dir, 64, "%.40s/trust-XXXXXX", base && strlen(base) <= 40 ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

/* ---- files of the repository ------------------------------------------------------------------------------------ */
__attribute__((unused)) static void fix_drop(struct fix_repo *r, const char *name)
{
    for (size_t i = 0; i < r->n_files; i++)
        if (strcmp(r->files[i].name, name) == 0) {
            skf_free(r->files[i].data);
            r->files[i] = r->files[--r->n_files];
            return;
        }
}

__attribute__((unused)) static void fix_put(struct fix_repo *r, const char *name, const void *p, size_t n)
{
    fix_drop(r, name);
    assert_true(r->n_files < SKF_COUNT(r->files));
    (void)snprintf(r->files[r->n_files].name, sizeof r->files[0].name, "%s", name);
    r->files[r->n_files].data = skf_memdup(p, n + 1);
    assert_non_null(r->files[r->n_files].data);
    r->files[r->n_files++].len = n;
}

__attribute__((unused)) static enum skf_err fix_fetch(void *ctx, const char *name, struct skf_buf *out,
                                                      struct skf_why *w)
{
    struct fix_repo *r = ctx;
    r->asked++;
    (void)snprintf(r->last, sizeof r->last, "%s", name);
    for (size_t i = 0; i < r->n_files; i++)
        if (strcmp(r->files[i].name, name) == 0)
            return skf_buf_put(out, r->files[i].data, r->files[i].len);
    return skf_fail(w, SKF_ERR_NOT_FOUND, "not there");
}

/* ---- documents -------------------------------------------------------------------------------------------------- */
struct fix_text {
    char *p;
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void fix_say(struct skf_buf *b, const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    va_start(ap, fmt);
    assert_true(vsnprintf(line, sizeof line, fmt, ap) < (int)sizeof line);
    va_end(ap);
    assert_int_equal(skf_buf_str(b, line), SKF_OK);
}

/* Signs `signed_text` with these keys; the text of the whole document is freed by the caller. */
static struct fix_text fix_sign(struct fix_repo *r, const char *signed_text, const int *signers, int n)
{
    struct skf_buf b = SKF_BUF_INIT(8u << 20);
    assert_int_equal(skf_buf_str(&b, "{\"signatures\":[],\"signed\":"), SKF_OK);
    assert_int_equal(skf_buf_str(&b, signed_text), SKF_OK);
    assert_int_equal(skf_buf_str(&b, "}"), SKF_OK);
    skf_json *doc;
    fix_ok(skf_json_parse(b.data, b.len, 64, &doc, why));
    for (int i = 0; i < n; i++)
        fix_ok(skf_tuf_sign(doc, r->k[signers[i]], why));
    struct fix_text t;
    fix_ok(skf_json_text(doc, 0, &t.p, &t.n));
    skf_json_free(doc);
    skf_buf_free(&b);
    return t;
}

static void fix_keys_json(struct fix_repo *r, struct skf_buf *b)
{
    fix_say(b, "{");
    for (int i = 0; i < FIX_KEYS; i++) {
        skf_json *pub = skf_key_public(r->k[i]);
        fix_say(b, "%s\"%s\":{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{\"public\":\"%s\"}}",
                i ? "," : "", skf_key_id(r->k[i]), skf_json_cstr(skf_json_get(skf_json_get(pub, "keyval"), "public")));
        skf_json_free(pub);
    }
    fix_say(b, "}");
}

static void fix_role_json(struct fix_repo *r, const struct fix_role *role, struct skf_buf *b)
{
    fix_say(b, "\"threshold\":%d,\"keyids\":[", role->threshold);
    for (int i = 0; i < role->n_keys; i++)
        fix_say(b, "%s\"%s\"", i ? "," : "", skf_key_id(r->k[role->keys[i]]));
    fix_say(b, "]");
}

static void fix_head(struct fix_repo *r, const char *type, const struct fix_role *role, struct skf_buf *b)
{
    char when[21];
    skf_time_text(role->expires, when);
    fix_say(b,
            "{\"_type\":\"%s\",\"spec_version\":\"%s\",\"version\":%lld,\"expires\":\"%s\",\"x-more\":[1,{\"\\u00e9\":"
            "null}],",
            type, r->spec_version, role->version, when);
}

static struct fix_text fix_finish(struct fix_repo *r, const struct fix_role *role, const char *name, struct skf_buf *b)
{
    const char *text;
    fix_say(b, "}");
    assert_int_equal(skf_buf_cstr(b, &text), SKF_OK);
    struct fix_text t = fix_sign(r, text, role->signers, role->n_signers);
    fix_put(r, name, t.p, t.n);
    skf_buf_free(b);
    return t;
}

__attribute__((unused)) static void fix_publish_root(struct fix_repo *r)
{
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    const struct fix_role *const roles[] = {&r->root, &r->timestamp, &r->snapshot, &r->targets};
    static const char *const names[] = {"root", "timestamp", "snapshot", "targets"};
    char name[80];
    fix_head(r, "root", &r->root, &b);
    fix_say(&b, "\"consistent_snapshot\":%s,\"roles\":{", r->inconsistent ? "false" : "true");
    for (size_t i = 0; i < 4; i++) {
        fix_say(&b, "%s\"%s\":{", i ? "," : "", names[i]);
        fix_role_json(r, roles[i], &b);
        fix_say(&b, "}");
    }
    fix_say(&b, "},\"keys\":");
    fix_keys_json(r, &b);
    (void)snprintf(name, sizeof name, "%lld.root.json", r->root.version);
    skf_free(fix_finish(r, &r->root, name, &b).p);
}

static void fix_entry(struct fix_repo *r, struct skf_buf *b, const char *role, long long version,
                      const struct fix_text *t)
{
    uint8_t d[SKF_DIGEST];
    char hex[SKF_HEX];
    skf_sha256(t->p, t->n, d);
    skf_hex(d, sizeof d, hex);
    if (r->no_hashes)
        fix_say(b, "\"%s.json\":{\"version\":%lld}", role, version);
    else
        fix_say(b, "\"%s.json\":{\"version\":%lld,\"length\":%zu,\"hashes\":{\"sha256\":\"%s\"}}", role, version, t->n,
                hex);
}

static const char *fix_name(struct fix_repo *r, char name[80], long long version, const char *role)
{
    (void)(r->inconsistent ? snprintf(name, 80, "%s.json", role) : snprintf(name, 80, "%lld.%s.json", version, role));
    return name;
}

/* Everything but the root, as the roles say. */
__attribute__((unused)) static void fix_publish(struct fix_repo *r)
{
    char name[80];
    struct skf_buf b = SKF_BUF_INIT(6u << 20);
    fix_head(r, "targets", &r->deltas, &b);
    assert_int_equal(skf_buf_str(&b, "\"targets\":"), SKF_OK);
    assert_int_equal(skf_buf_str(&b, r->deltas_json), SKF_OK);
    struct fix_text deltas = fix_finish(r, &r->deltas, fix_name(r, name, r->deltas.version, "deltas"), &b);

    fix_head(r, "targets", &r->targets, &b);
    fix_say(&b, "\"targets\":%s,\"delegations\":{\"roles\":[{\"name\":\"deltas\",\"terminating\":true,\"paths\":%s,",
            r->targets_json, r->paths);
    fix_role_json(r, &r->deltas, &b);
    fix_say(&b, "}");
    assert_int_equal(skf_buf_str(&b, r->more_roles), SKF_OK);
    fix_say(&b, "],\"keys\":");
    fix_keys_json(r, &b);
    fix_say(&b, "}");
    struct fix_text targets = fix_finish(r, &r->targets, fix_name(r, name, r->targets.version, "targets"), &b);

    fix_head(r, "snapshot", &r->snapshot, &b);
    fix_say(&b, "\"meta\":{");
    fix_entry(r, &b, "targets", r->lists_targets ? r->lists_targets : r->targets.version, &targets);
    if (!r->no_deltas_meta) {
        fix_say(&b, ",");
        fix_entry(r, &b, "deltas", r->lists_deltas ? r->lists_deltas : r->deltas.version, &deltas);
    }
    fix_say(&b, "%s}", r->more_meta);
    struct fix_text snapshot = fix_finish(r, &r->snapshot, fix_name(r, name, r->snapshot.version, "snapshot"), &b);

    fix_head(r, "timestamp", &r->timestamp, &b);
    fix_say(&b, "\"meta\":{");
    fix_entry(r, &b, "snapshot", r->lists_snapshot ? r->lists_snapshot : r->snapshot.version, &snapshot);
    fix_say(&b, "}");
    skf_free(fix_finish(r, &r->timestamp, "timestamp.json", &b).p);
    skf_free(deltas.p);
    skf_free(targets.p);
    skf_free(snapshot.p);
}

/* One version on in every role but the root. */
__attribute__((unused)) static void fix_bump(struct fix_repo *r)
{
    r->timestamp.version++;
    r->snapshot.version++;
    r->targets.version++;
    r->deltas.version++;
}

static struct fix_role fix_one(int key, long long days)
{
    return (struct fix_role){.keys = {key},
                             .n_keys = 1,
                             .threshold = 1,
                             .signers = {key},
                             .n_signers = 1,
                             .version = 1,
                             .expires = FIX_NOW + days * FIX_DAY};
}

/* SHA-256 of "hello". */
#define FIX_HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

/* A sound repository and a client that trusts its first root. Keys 0 to 2 root (2 of 3), 3 targets, 4 snapshot, 5
 * timestamp, 6 deltas. */
__attribute__((unused)) static void fix_open(struct fix_repo *r)
{
    memset(r, 0, sizeof *r);
    for (int i = 0; i < FIX_KEYS; i++)
        fix_ok(skf_key_generate("root", &r->k[i], why));
    r->root = (struct fix_role){.keys = {0, 1, 2},
                                .n_keys = 3,
                                .threshold = 2,
                                .signers = {0, 1},
                                .n_signers = 2,
                                .version = 1,
                                .expires = FIX_NOW + 365 * FIX_DAY};
    r->targets = fix_one(3, 300);
    r->snapshot = fix_one(4, 7);
    r->timestamp = fix_one(5, 1);
    r->deltas = fix_one(6, 30);
    r->spec_version = "1.0.31";
    r->paths = "[\"deltas/*\"]";
    r->more_roles = r->more_meta = "";
    r->targets_json = "{\"models/m/1.manifest\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}}}";
    r->deltas_json = "{\"deltas/a-b.skdx\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}},"
                     "\"models/evil/1.manifest\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}}}";
    fix_publish_root(r);
    fix_publish(r);
    fix_dir(r->dir);
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(r, "1.root.json", &b, why));
    fix_ok(skf_tuf_init(r->dir, b.data, b.len, why));
    skf_buf_free(&b);
    fix_ok(skf_tuf_open(r->dir, &r->t, why));
}

__attribute__((unused)) static void fix_close(struct fix_repo *r)
{
    skf_tuf_close(r->t);
    fix_remove(r->dir);
    while (r->n_files)
        skf_free(r->files[--r->n_files].data);
    for (int i = 0; i < FIX_KEYS; i++)
        skf_key_free(r->k[i]);
}

/* As a process that starts anew would see it: the client is opened again each time. */
__attribute__((unused)) static enum skf_err fix_refresh_at(struct fix_repo *r, int64_t now)
{
    skf_tuf_close(r->t);
    r->t = NULL;
    SKF_TRY(skf_tuf_open(r->dir, &r->t, why));
    return skf_tuf_refresh(r->t, now, fix_fetch, r, why);
}
__attribute__((unused)) static enum skf_err fix_refresh(struct fix_repo *r)
{
    return fix_refresh_at(r, FIX_NOW);
}

__attribute__((unused)) static enum skf_err fix_find(struct fix_repo *r, const char *path)
{
    struct skf_tuf_target t;
    SKF_TRY(skf_tuf_find(r->t, FIX_NOW, path, fix_fetch, r, &t, why));
    return skf_tuf_check(&t, path, "hello", 5, why);
}

/* The version that the client keeps of a role; 0 for none. */
__attribute__((unused)) static long long fix_kept(struct fix_repo *r, const char *role)
{
    char path[256];
    uint8_t *p;
    size_t n;
    skf_json *j;
    (void)snprintf(path, sizeof path, "%s/%s.json", r->dir, role);
    if (skf_file_read(path, 8u << 20, &p, &n, NULL) != SKF_OK)
        return 0;
    assert_int_equal(skf_json_parse(p, n, 64, &j, NULL), SKF_OK);
    long long v = skf_json_i64(skf_json_get(skf_json_get(j, "signed"), "version"), -1);
    skf_json_free(j);
    skf_free(p);
    return v;
}

#endif
