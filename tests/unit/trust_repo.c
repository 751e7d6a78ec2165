/* The repository side: what it writes is what the client takes, versions and expiries move as they must, wrong keys are
 * refused. */
#include "tests/lib/trust_fix.h"

enum { ROOT, ROOT2, TARGETS, SNAPSHOT, TIMESTAMP, DELTAS, STRANGER, KEYS };
static struct skf_key *k[KEYS];
static char dir[64], md[80], repo[80];
static struct skf_tuf_online online;

static enum skf_err fetch(void *ctx, const char *name, struct skf_buf *out, struct skf_why *w)
{
    return skf_tuf_repo_read(ctx, name, out, w);
}

static skf_json *load(const char *name)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *j;
    fix_ok(skf_tuf_repo_read(repo, name, &b, why));
    fix_ok(skf_json_parse(b.data, b.len, 32, &j, why));
    skf_buf_free(&b);
    return j;
}

static void save(const char *name, const skf_json *j)
{
    char path[200], *text;
    size_t n;
    fix_ok(skf_json_text(j, 0, &text, &n));
    (void)snprintf(path, sizeof path, "%s/%s", repo, name);
    fix_ok(skf_file_write(path, text, n, 0644, why));
    skf_free(text);
}

static void sign(const char *name, const struct skf_key *key)
{
    skf_json *j = load(name);
    fix_ok(skf_tuf_sign(j, key, why));
    save(name, j);
    skf_json_free(j);
}

static long long version_of(const char *name)
{
    skf_json *j = load(name);
    long long v = skf_json_i64(skf_json_get(skf_json_get(j, "signed"), "version"), -1);
    skf_json_free(j);
    return v;
}

static enum skf_err update(int64_t now)
{
    return skf_tuf_repo_update(repo, &online, NULL, 0, NULL, 0, now, why);
}

static enum skf_err refresh(int64_t now)
{
    struct skf_tuf *t;
    SKF_TRY(skf_tuf_open(md, &t, why));
    enum skf_err e = skf_tuf_refresh(t, now, fetch, repo, why);
    skf_tuf_close(t);
    return e;
}

static enum skf_err find(const char *path, int64_t now)
{
    struct skf_tuf *t;
    struct skf_tuf_target g;
    SKF_TRY(skf_tuf_open(md, &t, why));
    enum skf_err e = skf_tuf_refresh(t, now, fetch, repo, why);
    if (e == SKF_OK)
        e = skf_tuf_find(t, now, path, fetch, repo, &g, why);
    if (e == SKF_OK)
        e = skf_tuf_check(&g, path, "hello", 5, why);
    skf_tuf_close(t);
    return e;
}

static struct skf_tuf_target hello(void)
{
    struct skf_tuf_target t = {.length = 5};
    skf_sha256("hello", 5, t.sha256);
    return t;
}

static int setup(void **state)
{
    (void)state;
    static const char *const roles[KEYS] = {"root", "root", "targets", "snapshot", "timestamp", "deltas", "deltas"};
    skf_json *pub[KEYS];
    fix_dir(dir);
    (void)snprintf(md, sizeof md, "%s/md", dir);
    (void)snprintf(repo, sizeof repo, "%s/repo", dir);
    for (int i = 0; i < KEYS; i++) {
        fix_ok(skf_key_generate(roles[i], &k[i], why));
        pub[i] = skf_key_public(k[i]);
    }
    struct skf_tuf_keys keys = {.root = pub,
                                .n_root = 2,
                                .root_threshold = 2,
                                .targets = pub + TARGETS,
                                .n_targets = 1,
                                .snapshot = pub + SNAPSHOT,
                                .n_snapshot = 1,
                                .timestamp = pub + TIMESTAMP,
                                .n_timestamp = 1,
                                .deltas = pub + DELTAS,
                                .n_deltas = 1};
    fix_ok(skf_tuf_repo_new(repo, &keys, FIX_NOW, why));
    fix_err(SKF_ERR_EXISTS, "repository already", skf_tuf_repo_new(repo, &keys, FIX_NOW, why));
    online = (struct skf_tuf_online){.deltas = k[DELTAS], .snapshot = k[SNAPSHOT], .timestamp = k[TIMESTAMP]};
    for (int i = 0; i < KEYS; i++)
        skf_json_free(pub[i]);
    return 0;
}

/* Signed by everybody, published, and trusted by a client. */
static int setup_live(void **state)
{
    (void)setup(state);
    sign("1.root.json", k[ROOT]);
    sign("1.root.json", k[ROOT2]);
    sign("1.targets.json", k[TARGETS]);
    fix_ok(update(FIX_NOW));
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    fix_ok(skf_tuf_repo_read(repo, "root.json", &b, why));
    fix_ok(skf_tuf_init(md, b.data, b.len, why));
    skf_buf_free(&b);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < KEYS; i++)
        skf_key_free(k[i]);
    fix_remove(dir);
    return 0;
}

static void test_unsigned(void **state)
{
    (void)state;
    fix_err(SKF_ERR_SIGNATURE, "1.root.json: signed by 0 of the 2", update(FIX_NOW));
    sign("1.root.json", k[ROOT]);
    sign("1.root.json", k[ROOT]); /* signing again changes nothing */
    fix_err(SKF_ERR_SIGNATURE, "1.root.json: signed by 1 of the 2", update(FIX_NOW));
    sign("1.root.json", k[ROOT2]);
    fix_err(SKF_ERR_SIGNATURE, "targets", update(FIX_NOW));
    sign("1.targets.json", k[STRANGER]);
    fix_err(SKF_ERR_SIGNATURE, "targets", update(FIX_NOW));
    char path[200];
    (void)snprintf(path, sizeof path, "%s/timestamp.json", repo);
    assert_int_not_equal(access(path, F_OK), 0);
    sign("1.targets.json", k[TARGETS]);
    fix_ok(update(FIX_NOW));
    assert_int_equal(access(path, F_OK), 0);
}

static void test_publish(void **state)
{
    (void)state;
    skf_json *doc, *old;
    char *text, *stale;
    size_t n, stale_n;
    struct skf_tuf_target t = hello();
    fix_ok(refresh(FIX_NOW));
    fix_ok(skf_tuf_repo_targets(repo, &doc, why));
    fix_ok(skf_tuf_add_target(doc, "models/m/1.manifest", &t, FIX_NOW, why));
    fix_err(SKF_ERR_ARG, "target path", skf_tuf_add_target(doc, "../x", &t, FIX_NOW, why));
    fix_ok(skf_json_text(doc, 0, &text, &n));
    fix_err(SKF_ERR_SIGNATURE, "targets version 2", skf_tuf_repo_update(repo, &online, text, n, NULL, 0, FIX_NOW, why));
    skf_free(text);
    fix_ok(skf_tuf_sign(doc, k[TARGETS], why));
    fix_ok(skf_json_text(doc, 0, &text, &n));
    fix_ok(skf_tuf_repo_update(repo, &online, text, n, NULL, 0, FIX_NOW, why));
    fix_ok(find("models/m/1.manifest", FIX_NOW));
    long long stamp = version_of("timestamp.json");
    fix_ok(skf_tuf_repo_update(repo, &online, text, n, NULL, 0, FIX_NOW, why)); /* the same again: nothing to do */
    assert_int_equal(version_of("timestamp.json"), stamp);
    old = load("1.targets.json");
    fix_ok(skf_json_text(old, 0, &stale, &stale_n));
    fix_err(SKF_ERR_ROLLBACK, "targets: version 1",
            skf_tuf_repo_update(repo, &online, stale, stale_n, NULL, 0, FIX_NOW, why));
    skf_free(stale);
    skf_json_free(old);
    fix_ok(skf_json_set(skf_json_get(doc, "signed"), "version", skf_json_int(2)));
    fix_ok(skf_json_set(skf_json_get(doc, "signed"), "x-note", skf_json_str("other")));
    fix_ok(skf_tuf_sign(doc, k[TARGETS], why));
    skf_free(text);
    fix_ok(skf_json_text(doc, 0, &text, &n));
    fix_err(SKF_ERR_EXISTS, "version 2", skf_tuf_repo_update(repo, &online, text, n, NULL, 0, FIX_NOW, why));
    skf_free(text);
    skf_json_free(doc);
}

static void test_deltas(void **state)
{
    (void)state;
    struct skf_tuf_delta d[3] = {{"deltas/a-b.skdx", hello()}, {"deltas/b-c.skdx", hello()}, {"models/x", hello()}};
    fix_ok(skf_tuf_repo_update(repo, &online, NULL, 0, d, 2, FIX_NOW, why));
    fix_ok(find("deltas/a-b.skdx", FIX_NOW));
    fix_ok(find("deltas/b-c.skdx", FIX_NOW));
    long long stamp = version_of("timestamp.json");
    fix_ok(skf_tuf_repo_update(repo, &online, NULL, 0, d, 2, FIX_NOW, why)); /* listed already */
    assert_int_equal(version_of("timestamp.json"), stamp);
    fix_err(SKF_ERR_ARG, "models/x", skf_tuf_repo_update(repo, &online, NULL, 0, d + 2, 1, FIX_NOW, why));
    d[0].target.sha256[0] ^= 1;
    fix_ok(skf_tuf_repo_update(repo, &online, NULL, 0, d, 1, FIX_NOW, why)); /* replaced */
    fix_err(SKF_ERR_DIGEST, "deltas/a-b", find("deltas/a-b.skdx", FIX_NOW));
    assert_int_equal(version_of("timestamp.json"), stamp + 1);
}

/* As a distributor that looks once an hour: months go by, clients never see anything expired, and nothing is written in
 * vain. */
static void test_renewal(void **state)
{
    (void)state;
    struct skf_tuf_delta d = {"deltas/a-b.skdx", hello()};
    fix_ok(skf_tuf_repo_update(repo, &online, NULL, 0, &d, 1, FIX_NOW, why));
    for (int64_t now = FIX_NOW; now < FIX_NOW + 100 * FIX_DAY; now += 6 * 3600) {
        fix_ok(update(now));
        if ((now - FIX_NOW) % FIX_DAY == 0)
            fix_ok(find("deltas/a-b.skdx", now + 6 * 3600 - 1));
    }
    assert_true(version_of("timestamp.json") < 110);
    /* asleep for two months: everything online has expired, and one update makes it whole */
    int64_t later = FIX_NOW + 160 * FIX_DAY;
    fix_err(SKF_ERR_EXPIRED, "timestamp.json", refresh(later));
    fix_ok(update(later));
    fix_ok(find("deltas/a-b.skdx", later));
    /* the offline roles are not the distributor's to renew */
    fix_err(SKF_ERR_EXPIRED, "root", update(FIX_NOW + 366 * (int64_t)FIX_DAY));
}

static void test_wrong_keys(void **state)
{
    (void)state;
    struct skf_tuf_delta d = {"deltas/a-b.skdx", hello()};
    struct skf_tuf_online o = online;
    o.deltas = k[STRANGER];
    fix_err(SKF_ERR_REFUSED, "deltas key", skf_tuf_repo_update(repo, &o, NULL, 0, &d, 1, FIX_NOW, why));
    o = online;
    o.snapshot = k[DELTAS];
    fix_err(SKF_ERR_REFUSED, "snapshot key", skf_tuf_repo_update(repo, &o, NULL, 0, &d, 1, FIX_NOW, why));
    o = online;
    o.timestamp = k[ROOT];
    fix_err(SKF_ERR_REFUSED, "timestamp key", skf_tuf_repo_update(repo, &o, NULL, 0, &d, 1, FIX_NOW, why));
    assert_int_equal(version_of("timestamp.json"), 1);
}

/* A stranger's files in the folder are not signed on. */
static void test_tampered(void **state)
{
    (void)state;
    static const char *const names[] = {"1.deltas.json", "1.snapshot.json", "timestamp.json", "1.targets.json"};
    for (size_t i = 0; i < SKF_COUNT(names); i++) {
        skf_json *was = load(names[i]), *j = load(names[i]);
        fix_ok(skf_json_set(skf_json_get(j, "signed"), "x", skf_json_int(1)));
        save(names[i], j);
        fix_err(SKF_ERR_SIGNATURE, "signed by 0", update(FIX_NOW + FIX_DAY));
        save(names[i], was);
        skf_json_free(j);
        skf_json_free(was);
    }
    fix_ok(update(FIX_NOW + FIX_DAY));
    char path[200];
    (void)snprintf(path, sizeof path, "%s/timestamp.json", repo);
    fix_ok(update(FIX_NOW + 10 * FIX_DAY));
    assert_int_equal(unlink(path), 0);
    fix_err(SKF_ERR_STATE, "put it back", update(FIX_NOW + 10 * FIX_DAY));
}

/* New keys for snapshot and timestamp: the root says so, the repository signs anew, and clients follow. */
static void test_rotation(void **state)
{
    (void)state;
    fix_ok(refresh(FIX_NOW));
    struct skf_key *fresh;
    fix_ok(skf_key_generate("timestamp", &fresh, why));
    skf_json *root = load("1.root.json"), *s = skf_json_get(root, "signed"), *ids = skf_json_arr();
    fix_ok(skf_json_set(skf_json_get(s, "keys"), skf_key_id(fresh), skf_key_public(fresh)));
    fix_ok(skf_json_push(ids, skf_json_str(skf_key_id(fresh))));
    fix_ok(skf_json_set(skf_json_get(skf_json_get(s, "roles"), "timestamp"), "keyids", skf_json_ref(ids)));
    fix_ok(skf_json_set(skf_json_get(skf_json_get(s, "roles"), "snapshot"), "keyids", ids));
    fix_ok(skf_json_set(s, "version", skf_json_int(2)));
    fix_ok(skf_json_set(root, "signatures", skf_json_arr()));
    fix_ok(skf_tuf_sign(root, k[ROOT], why));
    save("2.root.json", root);
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    fix_ok(update(FIX_NOW + 2 * FIX_DAY)); /* half signed: nobody sees it, and all goes on */
    fix_ok(refresh(FIX_NOW + 2 * FIX_DAY));
    fix_err(SKF_ERR_NOT_FOUND, "not signed by enough", skf_tuf_repo_read(repo, "2.root.json", &b, why));
    fix_ok(skf_tuf_sign(root, k[ROOT2], why));
    save("2.root.json", root);
    fix_err(SKF_ERR_REFUSED, "does not list it", update(FIX_NOW));
    online.timestamp = online.snapshot = fresh;
    fix_ok(update(FIX_NOW));
    fix_ok(refresh(FIX_NOW));
    assert_int_equal(version_of("root.json"), 2);
    skf_json_free(root);
    skf_key_free(fresh);
}

/* The same by the tool: new root and timestamp keys, then a year later the same root once more. */
static void test_next_root(void **state)
{
    (void)state;
    struct skf_key *fresh;
    int64_t version;
    fix_ok(refresh(FIX_NOW));
    fix_ok(skf_key_generate("root", &fresh, why));
    skf_json *pub[2] = {skf_key_public(k[ROOT]), skf_key_public(fresh)};
    const struct skf_tuf_keys change = {.root = pub, .n_root = 2, .timestamp = pub + 1, .n_timestamp = 1}, none = {0};
    fix_err(SKF_ERR_ARG, "threshold of 3",
            skf_tuf_repo_next_root(repo, &(struct skf_tuf_keys){.root_threshold = 3}, FIX_NOW, NULL, why));
    fix_ok(skf_tuf_repo_next_root(repo, &change, FIX_NOW, &version, why));
    assert_int_equal(version, 2);
    fix_err(SKF_ERR_STATE, "still waits", skf_tuf_repo_next_root(repo, &none, FIX_NOW, NULL, why));
    char path[200];
    uint8_t *p;
    size_t n;
    skf_json *doc;
    (void)snprintf(path, sizeof path, "%s/2.root.json", repo);
    fix_ok(skf_file_read(path, 65536, &p, &n, why));
    fix_ok(skf_json_parse(p, n, 32, &doc, why));
    skf_free(p);
    assert_int_equal(skf_json_len(skf_json_get(skf_json_get(doc, "signed"), "keys")), 4); /* two left, one came */
    fix_ok(skf_tuf_sign(doc, k[ROOT], why));
    fix_ok(skf_tuf_sign(doc, fresh, why));
    save("2.root.json", doc);
    fix_ok(update(FIX_NOW)); /* the new one lacks one of the old two: it is not out yet */
    assert_int_equal(version_of("root.json"), 1);
    fix_ok(skf_tuf_sign(doc, k[ROOT2], why));
    save("2.root.json", doc);
    skf_json_free(doc);
    online.timestamp = fresh;
    fix_ok(update(FIX_NOW));
    fix_ok(refresh(FIX_NOW));
    assert_int_equal(version_of("root.json"), 2);
    fix_ok(skf_tuf_repo_next_root(repo, &none, FIX_NOW + 300 * FIX_DAY, &version, why));
    assert_int_equal(version, 3);
    skf_key_free(fresh);
    skf_json_free(pub[0]);
    skf_json_free(pub[1]);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[] = {"",          "x",        "../repo/1.root.json", "/etc/passwd", ".lock",
                                      ".json",     "a/b.json", "timestamp.json/",     "root.json\n", "1.root.jsonx",
                                      "root .json"};
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        fix_err(SKF_ERR_ARG, "not the name", skf_tuf_repo_read(repo, bad[i], &b, why));
    fix_err(SKF_ERR_NOT_FOUND, "9.root.json", skf_tuf_repo_read(repo, "9.root.json", &b, why));
    struct skf_buf small = SKF_BUF_INIT(10);
    fix_err(SKF_ERR_LIMIT, "1.root.json", skf_tuf_repo_read(repo, "1.root.json", &small, why));
    skf_buf_free(&b);
}

static void test_new_arguments(void **state)
{
    (void)state;
    char other[100];
    skf_json *pub = skf_key_public(k[ROOT]), *twice[2] = {pub, pub};
    struct skf_tuf_keys keys = {.root = twice,
                                .n_root = 2,
                                .root_threshold = 2,
                                .targets = &pub,
                                .n_targets = 1,
                                .snapshot = &pub,
                                .n_snapshot = 1,
                                .timestamp = &pub,
                                .n_timestamp = 1,
                                .deltas = &pub,
                                .n_deltas = 1};
    (void)snprintf(other, sizeof other, "%s/other", dir);
    fix_err(SKF_ERR_ARG, "given twice", skf_tuf_repo_new(other, &keys, FIX_NOW, why));
    keys.n_root = 1;
    fix_err(SKF_ERR_ARG, "threshold of 2", skf_tuf_repo_new(other, &keys, FIX_NOW, why));
    keys.root_threshold = 1;
    keys.n_deltas = 0;
    fix_err(SKF_ERR_ARG, "role deltas", skf_tuf_repo_new(other, &keys, FIX_NOW, why));
    keys.n_deltas = 1;
    fix_ok(skf_tuf_repo_new(other, &keys, FIX_NOW, why));
    skf_json_free(pub);
}

int main(void)
{
#define T(f, s) cmocka_unit_test_setup_teardown(f, s, teardown)
    const struct CMUnitTest tests[] = {
        T(test_unsigned, setup),       T(test_publish, setup_live),    T(test_deltas, setup_live),
        T(test_renewal, setup_live),   T(test_wrong_keys, setup_live), T(test_tampered, setup_live),
        T(test_next_root, setup_live), T(test_rotation, setup_live),   T(test_names, setup_live),
        T(test_new_arguments, setup),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
