/* The repository side of `skiff tuf`. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/tuf_priv.h"
#include "trust/tuf.h"

/* ---- init: from public keys, still to be signed ----------------------------------------------------------------- */

static enum skf_err load_publics(const struct skf_tuf_list *l, skf_json **out, struct skf_why *why)
{
    for (size_t i = 0; i < l->n; i++) {
        char id[SKF_KEYID_HEX];
        SKF_TRY(skf_key_load_public(l->path[i], &out[i], id, why));
    }
    return SKF_OK;
}

enum { LISTS = 5 };
struct publics {
    skf_json *pub[LISTS][SKF_TUF_OPT_KEYS];
    struct skf_tuf_keys keys;
};

static enum skf_err publics_load(const struct skf_tuf_opts *o, struct publics *p, struct skf_why *why)
{
    const struct skf_tuf_list *const lists[LISTS] = {&o->root, &o->targets, &o->snapshot, &o->timestamp, &o->deltas};
    p->keys = (struct skf_tuf_keys){.root = p->pub[0],
                                    .n_root = o->root.n,
                                    .targets = p->pub[1],
                                    .n_targets = o->targets.n,
                                    .snapshot = p->pub[2],
                                    .n_snapshot = o->snapshot.n,
                                    .timestamp = p->pub[3],
                                    .n_timestamp = o->timestamp.n,
                                    .deltas = p->pub[4],
                                    .n_deltas = o->deltas.n,
                                    .root_threshold = (unsigned)SKF_MIN(o->root_threshold, 1000u),
                                    .targets_threshold = (unsigned)SKF_MIN(o->targets_threshold, 1000u)};
    for (size_t i = 0; i < LISTS; i++)
        SKF_TRY(load_publics(lists[i], p->pub[i], why));
    return SKF_OK;
}

static void publics_free(struct publics *p)
{
    for (size_t i = 0; i < LISTS; i++)
        for (size_t k = 0; k < SKF_TUF_OPT_KEYS; k++)
            skf_json_free(p->pub[i][k]);
}

int skf_tuf_cmd_init(const struct skf_tuf_opts *o)
{
    if (!o->dir || !o->root.n || !o->targets.n || !o->snapshot.n || !o->timestamp.n || !o->deltas.n)
        return skf_tuf_usage_error(
            "init wants --dir and a public key of each role: root, targets, snapshot, timestamp, deltas");
    struct skf_why why = {{0}};
    struct publics p = {0};
    enum skf_err e = publics_load(o, &p, &why);
    if (e == SKF_OK)
        e = skf_tuf_repo_new(o->dir, &p.keys, skf_now_unix(), &why);
    publics_free(&p);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (!o->json)
        (void)printf(
            "%s: sign 1.root.json with the root keys and 1.targets.json with the release keys (`skiff sign`),\n"
            "then `skiff tuf update` or the distributor publishes it\n",
            o->dir);
    return SKF_EXIT_OK;
}

int skf_tuf_cmd_rotate(const struct skf_tuf_opts *o)
{
    if (!o->dir || o->deltas.n)
        return skf_tuf_usage_error("rotate wants --dir, and no --deltas (targets delegate to those)");
    struct skf_why why = {{0}};
    struct publics p = {0};
    int64_t version = 0;
    enum skf_err e = publics_load(o, &p, &why);
    if (e == SKF_OK)
        e = skf_tuf_repo_next_root(o->dir, &p.keys, skf_now_unix(), &version, &why);
    publics_free(&p);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (!o->json)
        (void)printf(
            "%s/%lld.root.json: sign it with the present root keys and with the new ones (`skiff sign`); until\n"
            "then nobody sees it\n",
            o->dir, (long long)version);
    return SKF_EXIT_OK;
}

/* ---- keys in a folder ------------------------------------------------------------------------------------------- */

enum { ROOT, TARGETS, SNAPSHOT, TIMESTAMP, DELTAS, ROLES };
static const char *const role_names[ROLES] = {"root", "targets", "snapshot", "timestamp", "deltas"};

struct keys {
    struct skf_key *k[ROLES];
};

static void keys_free(struct keys *s)
{
    for (size_t i = 0; i < ROLES; i++)
        skf_key_free(s->k[i]);
}

static enum skf_err key_path(const char *dir, const char *role, char out[PATH_MAX], struct skf_why *why)
{
    int n = snprintf(out, PATH_MAX, "%s/%s.key", dir, role);
    return n > 0 && n < PATH_MAX ? SKF_OK : skf_fail(why, SKF_ERR_LIMIT, "%s: path too long", dir);
}

static enum skf_err load_key(const char *dir, size_t role, struct keys *s, struct skf_why *why)
{
    char path[PATH_MAX];
    SKF_TRY(key_path(dir, role_names[role], path, why));
    return skf_key_load(path, &s->k[role], why);
}

/* The key that is there already, or a new one. */
static enum skf_err load_or_make_key(const char *dir, size_t role, struct keys *s, struct skf_why *why)
{
    char path[PATH_MAX];
    struct stat st;
    SKF_TRY(key_path(dir, role_names[role], path, why));
    if (lstat(path, &st) == 0)
        return skf_key_load(path, &s->k[role], why);
    SKF_TRY(skf_key_generate(role_names[role], &s->k[role], why));
    return skf_key_save(s->k[role], path, why);
}

static enum skf_err load_online(const char *dir, struct keys *s, struct skf_tuf_online *on, struct skf_why *why)
{
    SKF_TRY(load_key(dir, SNAPSHOT, s, why));
    SKF_TRY(load_key(dir, TIMESTAMP, s, why));
    SKF_TRY(load_key(dir, DELTAS, s, why));
    *on = (struct skf_tuf_online){.deltas = s->k[DELTAS], .snapshot = s->k[SNAPSHOT], .timestamp = s->k[TIMESTAMP]};
    return SKF_OK;
}

/* ---- create: a whole signed repository at once ------------------------------------------------------------------ */

static enum skf_err sign_file(const char *dir, const char *name, const struct skf_key *k, struct skf_why *why)
{
    char path[PATH_MAX];
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *doc = NULL;
    char *text = NULL;
    size_t n = 0;
    enum skf_err e;
    SKF_GO(e, skf_tuf_repo_read(dir, name, &b, why));
    SKF_GO(e, skf_json_parse(b.data, b.len, 32, &doc, why));
    SKF_GO(e, skf_tuf_sign(doc, k, why));
    SKF_GO(e, skf_json_text(doc, 0, &text, &n));
    SKF_GO(e, skf_path(path, sizeof path, dir, name));
    SKF_GO(e, skf_file_write(path, text, n, 0644, why));
out:
    skf_free(text);
    skf_json_free(doc);
    skf_buf_free(&b);
    return e;
}

static enum skf_err repo_of(const struct keys *s, const char *dir, const struct skf_tuf_opts *o, struct skf_why *why)
{
    skf_json *pub[ROLES] = {NULL};
    enum skf_err e = SKF_OK;
    for (size_t i = 0; i < ROLES; i++)
        if (!(pub[i] = skf_key_public(s->k[i])))
            e = skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    struct skf_tuf_keys keys = {.root = &pub[ROOT],
                                .n_root = 1,
                                .targets = &pub[TARGETS],
                                .n_targets = 1,
                                .snapshot = &pub[SNAPSHOT],
                                .n_snapshot = 1,
                                .timestamp = &pub[TIMESTAMP],
                                .n_timestamp = 1,
                                .deltas = &pub[DELTAS],
                                .n_deltas = 1};
    if (e == SKF_OK)
        e = skf_tuf_repo_new(dir, &keys, skf_now_unix(), why);
    for (size_t i = 0; i < ROLES; i++)
        skf_json_free(pub[i]);
    return e;
}

int skf_tuf_cmd_create(const struct skf_tuf_opts *o)
{
    if (!o->dir || !o->keys)
        return skf_tuf_usage_error("create wants --dir and --keys");
    struct skf_why why = {{0}};
    struct keys s = {{NULL}};
    struct skf_tuf_online on;
    enum skf_err e;
    SKF_GO(e, skf_mkdirs(o->keys, 0700, &why));
    for (size_t i = 0; i < ROLES; i++)
        SKF_GO(e, load_or_make_key(o->keys, i, &s, &why));
    SKF_GO(e, repo_of(&s, o->dir, o, &why));
    SKF_GO(e, sign_file(o->dir, "1.root.json", s.k[ROOT], &why));
    SKF_GO(e, sign_file(o->dir, "1.targets.json", s.k[TARGETS], &why));
    on = (struct skf_tuf_online){.deltas = s.k[DELTAS], .snapshot = s.k[SNAPSHOT], .timestamp = s.k[TIMESTAMP]};
    SKF_GO(e, skf_tuf_repo_update(o->dir, &on, NULL, 0, NULL, 0, skf_now_unix(), &why));
out:
    keys_free(&s);
    if (e != SKF_OK)
        return skf_cli_fail(e, &why);
    if (!o->json)
        (void)printf("%s: a signed repository; its keys are in %s (take root.key and targets.key offline)\n", o->dir,
                     o->keys);
    return SKF_EXIT_OK;
}

/* ---- add and update --------------------------------------------------------------------------------------------- */

static enum skf_err target_of_file(const char *path, struct skf_tuf_target *t, struct skf_why *why)
{
    struct skf_map m;
    SKF_TRY(skf_map_open(path, &m, why));
    *t = (struct skf_tuf_target){.length = m.size};
    skf_sha256(m.data ? m.data : (const uint8_t *)"", (size_t)m.size, t->sha256);
    skf_map_close(&m);
    return SKF_OK;
}

int skf_tuf_cmd_add(const struct skf_tuf_opts *o)
{
    if (!o->dir || !o->keys || !o->file || o->names.n != 1)
        return skf_tuf_usage_error("add wants --dir, --keys, --file and one --target-name");
    struct skf_why why = {{0}};
    struct keys s = {{NULL}};
    struct skf_tuf_online on;
    struct skf_tuf_target t;
    skf_json *doc = NULL;
    char *text = NULL;
    size_t n = 0;
    bool is_delta = strncmp(o->names.path[0], "deltas/", 7) == 0;
    struct skf_tuf_delta delta = {.path = o->names.path[0]};
    int64_t now = skf_now_unix();
    enum skf_err e;
    SKF_GO(e, load_online(o->keys, &s, &on, &why));
    SKF_GO(e, target_of_file(o->file, &t, &why));
    delta.target = t;
    if (!is_delta) {
        SKF_GO(e, load_key(o->keys, TARGETS, &s, &why));
        SKF_GO(e, skf_tuf_repo_targets(o->dir, &doc, &why));
        SKF_GO(e, skf_tuf_add_target(doc, o->names.path[0], &t, now, &why));
        SKF_GO(e, skf_tuf_sign(doc, s.k[TARGETS], &why));
        SKF_GO(e, skf_json_text(doc, 0, &text, &n));
    }
    SKF_GO(e, skf_tuf_repo_update(o->dir, &on, text, n, is_delta ? &delta : NULL, is_delta ? 1 : 0, now, &why));
out:
    skf_free(text);
    skf_json_free(doc);
    keys_free(&s);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}

int skf_tuf_cmd_update(const struct skf_tuf_opts *o)
{
    if (!o->dir || !o->keys)
        return skf_tuf_usage_error("update wants --dir and --keys");
    struct skf_why why = {{0}};
    struct keys s = {{NULL}};
    struct skf_tuf_online on;
    enum skf_err e = load_online(o->keys, &s, &on, &why);
    if (e == SKF_OK)
        e = skf_tuf_repo_update(o->dir, &on, NULL, 0, NULL, 0, skf_now_unix(), &why);
    keys_free(&s);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}

/* ---- show ------------------------------------------------------------------------------------------------------- */

static const char *left_text(const skf_json *doc, char buf[64])
{
    int64_t at = 0;
    const char *s = skf_json_cstr(skf_json_get(skf_json_get(doc, "signed"), "expires"));
    if (!s || skf_time_parse(s, &at) != SKF_OK)
        return "has no expiry";
    int64_t days = (at - skf_now_unix()) / 86400;
    (void)snprintf(buf, 64, at <= skf_now_unix() ? "EXPIRED %s" : "until %s (%lld days)", s, (long long)days);
    return buf;
}

static enum skf_err show_one(const char *dir, const char *name, bool json, skf_json *all, struct skf_why *why)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *doc = NULL;
    enum skf_err e = skf_tuf_repo_read(dir, name, &b, why);
    if (e == SKF_OK && (e = skf_json_parse(b.data, b.len, 32, &doc, why)) != SKF_OK)
        e = skf_fail_prefix(why, e, "%s/%s", dir, name);
    const skf_json *s = skf_json_get(doc, "signed");
    char buf[64];
    if (e == SKF_OK && json)
        e = skf_json_set(all, name, skf_json_ref(doc));
    else if (e == SKF_OK)
        (void)printf("%-22s version %-6lld %zu signature%s  %s\n", name,
                     (long long)skf_json_i64(skf_json_get(s, "version"), 0),
                     skf_json_len(skf_json_get(doc, "signatures")), skf_json_len(skf_json_get(doc, "signatures")) == 1 ? " " : "s",
                     left_text(doc, buf));
    skf_json_free(doc);
    skf_buf_free(&b);
    return e;
}

/* Shows the role as it stands in `by`'s "meta", by the name it has in a repository: VERSION.ROLE.json. False when it is not there. */
static bool is_listed_shown(const char *dir, const skf_json *by, const char *role, bool json, skf_json *all, char name[64])
{
    char plain[32];
    (void)snprintf(plain, sizeof plain, "%s.json", role);
    const skf_json *entry = skf_json_get(skf_json_get(skf_json_get(by, "signed"), "meta"), plain);
    (void)snprintf(name, 64, "%lld.%s", (long long)skf_json_i64(skf_json_get(entry, "version"), 0), plain);
    return entry && show_one(dir, name, json, all, NULL) == SKF_OK;
}

static skf_json *read_or_null(const char *dir, const char *name)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *doc = NULL;
    if (skf_tuf_repo_read(dir, name, &b, NULL) != SKF_OK || skf_json_parse(b.data, b.len, 32, &doc, NULL) != SKF_OK)
        doc = NULL;
    skf_buf_free(&b);
    return doc;
}

/* A client's folder has plain names; in a repository the newest timestamp leads to the rest. What is not there is left out. */
static enum skf_err show_dir(const char *dir, bool json, skf_json *all, struct skf_why *why)
{
    static const char *const plain[] = {"root.json", "timestamp.json", "snapshot.json", "targets.json", "deltas.json"};
    char name[64];
    size_t shown = 0;
    enum skf_err e = SKF_OK;
    for (size_t i = 0; e == SKF_OK && i < SKF_COUNT(plain); i++) {
        e = show_one(dir, plain[i], json, all, why);
        shown += e == SKF_OK;
        if (e == SKF_ERR_NOT_FOUND)
            e = SKF_OK;
    }
    skf_json *stamp = e == SKF_OK ? read_or_null(dir, "timestamp.json") : NULL;
    if (is_listed_shown(dir, stamp, "snapshot", json, all, name)) {
        skf_json *snapshot = read_or_null(dir, name);
        (void)is_listed_shown(dir, snapshot, "targets", json, all, name);
        (void)is_listed_shown(dir, snapshot, "deltas", json, all, name);
        skf_json_free(snapshot);
    }
    skf_json_free(stamp);
    if (e == SKF_OK && shown == 0)
        e = skf_fail(why, SKF_ERR_NOT_FOUND, "%s: holds no metadata", dir);
    return e;
}

int skf_tuf_cmd_show(const struct skf_tuf_opts *o)
{
    const char *dir = o->dir ? o->dir : o->metadata_dir;
    if (!dir && o->n_args != 2)
        return skf_tuf_usage_error("show wants --dir, --metadata-dir or FILE.json");
    struct skf_why why = {{0}};
    skf_json *all = skf_json_obj();
    enum skf_err e = all ? SKF_OK : SKF_ERR_NOMEM;
    if (e == SKF_OK && o->n_args == 2) {
        char folder[PATH_MAX];
        const char *slash = strrchr(o->args[1], '/');
        int n = slash ? snprintf(folder, sizeof folder, "%.*s", (int)(slash - o->args[1] + 1), o->args[1])
                      : snprintf(folder, sizeof folder, ".");
        e = n > 0 && (size_t)n < sizeof folder ? show_one(folder, slash ? slash + 1 : o->args[1], o->json, all, &why)
                                               : skf_fail(&why, SKF_ERR_LIMIT, "%s: path too long", o->args[1]);
    } else if (e == SKF_OK) {
        e = show_dir(dir, o->json, all, &why);
    }
    if (e == SKF_OK && o->json)
        return skf_cli_print_json(all);
    skf_json_free(all);
    return e == SKF_OK ? SKF_EXIT_OK : skf_cli_fail(e, &why);
}
