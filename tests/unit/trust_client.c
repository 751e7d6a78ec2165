/* The TUF client against a repository that lies: each attack is refused with its reason, and what was trusted stays. */
#include "tests/lib/trust_fix.h"

static void kept(struct fix_repo *r, long long root, long long timestamp, long long snapshot, long long targets)
{
    assert_int_equal(fix_kept(r, "root"), root);
    assert_int_equal(fix_kept(r, "timestamp"), timestamp);
    assert_int_equal(fix_kept(r, "snapshot"), snapshot);
    assert_int_equal(fix_kept(r, "targets"), targets);
}

static struct fix_repo r;
static int setup(void **state)
{
    (void)state;
    fix_open(&r);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    fix_close(&r);
    return 0;
}

static void test_sound(void **state)
{
    (void)state;
    fix_ok(fix_refresh(&r));
    kept(&r, 1, 1, 1, 1);
    fix_ok(fix_find(&r, "models/m/1.manifest"));
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    fix_err(SKF_ERR_NOT_FOUND, "deltas/none", fix_find(&r, "deltas/none"));
    fix_err(SKF_ERR_NOT_FOUND, "models/m/2", fix_find(&r, "models/m/2.manifest"));
    fix_err(SKF_ERR_ARG, "target path", fix_find(&r, "../models"));
    fix_err(SKF_ERR_ARG, "target path", fix_find(&r, "/deltas/x"));
    int before = r.asked; /* the second time only what may have changed is asked for: the next root, the timestamp */
    fix_ok(fix_refresh(&r));
    assert_int_equal(r.asked - before, 2);
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    assert_int_equal(r.asked - before, 2);
}

static void test_offline(void **state)
{
    (void)state;
    struct skf_tuf_target t;
    fix_err(SKF_ERR_STATE, "refresh first", skf_tuf_find(r.t, FIX_NOW, "deltas/a-b.skdx", NULL, NULL, &t, why));
    fix_ok(fix_refresh(&r));
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    skf_tuf_close(r.t);
    fix_ok(skf_tuf_open(r.dir, &r.t, why)); /* what was verified still holds after a restart, without a link */
    fix_ok(skf_tuf_find(r.t, FIX_NOW, "deltas/a-b.skdx", NULL, NULL, &t, why));
    fix_err(SKF_ERR_EXPIRED, "timestamp.json",
            skf_tuf_find(r.t, FIX_NOW + 2 * FIX_DAY, "deltas/a-b.skdx", NULL, NULL, &t, why));
    fix_drop(&r, "timestamp.json");
    fix_err(SKF_ERR_NET, "timestamp.json", fix_refresh(&r));
    kept(&r, 1, 1, 1, 1);
}

/* ---- signatures ------------------------------------------------------------------------------------------------- */
static void test_wrong_signature(void **state)
{
    (void)state;
    fix_ok(fix_refresh(&r));
    struct fix_role *const roles[] = {&r.targets, &r.snapshot, &r.timestamp};
    static const char *const names[] = {"2.targets.json: signed by 0", "3.snapshot.json: signed by 0",
                                        "timestamp.json: signed by 0"};
    for (int i = 0; i < 3; i++) {
        int right = roles[i]->signers[0];
        fix_bump(&r);
        roles[i]->signers[0] = 9;
        fix_publish(&r);
        fix_err(SKF_ERR_SIGNATURE, names[i], fix_refresh(&r));
        roles[i]->signers[0] = right;
    }
    kept(&r, 1, 3, 2, 1); /* of each round what came before the lie */
    fix_publish(&r);      /* the rejected ones must not stand in the way of the true ones */
    fix_ok(fix_refresh(&r));
    kept(&r, 1, 4, 4, 4);
}

static void test_wrong_delta_signature(void **state)
{
    (void)state;
    r.deltas.signers[0] = 9;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_SIGNATURE, "1.deltas.json", fix_find(&r, "deltas/a-b.skdx"));
    assert_int_equal(fix_kept(&r, "deltas"), 0);
    fix_ok(fix_find(&r, "models/m/1.manifest"));
}

static void test_altered(void **state)
{
    (void)state;
    static const char *const names[] = {"timestamp.json", "1.snapshot.json", "1.targets.json"};
    r.no_hashes = true; /* so that it is the signature that must catch it */
    fix_publish(&r);
    for (int i = 0; i < 3; i++) {
        struct skf_buf b = SKF_BUF_INIT(1u << 20);
        fix_ok(fix_fetch(&r, names[i], &b, why));
        char *at = memmem(b.data, b.len, "x-more", 6), was = at[2];
        at[2] = 'M';
        fix_put(&r, names[i], b.data, b.len);
        fix_err(SKF_ERR_SIGNATURE, names[i], fix_refresh(&r));
        at[2] = was;
        fix_put(&r, names[i], b.data, b.len);
        skf_buf_free(&b);
    }
    fix_ok(fix_refresh(&r));
}

static void test_threshold(void **state)
{
    (void)state;
    r.root.version = 2;
    r.snapshot = (struct fix_role){.keys = {4, 7, 8},
                                   .n_keys = 3,
                                   .threshold = 2,
                                   .signers = {4},
                                   .n_signers = 1,
                                   .version = 1,
                                   .expires = FIX_NOW + FIX_DAY};
    fix_publish_root(&r);
    fix_publish(&r);
    fix_err(SKF_ERR_SIGNATURE, "signed by 1 of the 2", fix_refresh(&r));
    r.snapshot.signers[r.snapshot.n_signers++] = 9; /* a stranger does not count */
    r.timestamp.version++;
    fix_publish(&r);
    fix_err(SKF_ERR_SIGNATURE, "signed by 1 of the 2", fix_refresh(&r));
    r.snapshot.signers[1] = 8;
    r.timestamp.version++;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
}

/* One key's signature twice; one key under two ids; two spellings of one key's id in the role. */
static void test_same_key_twice(void **state)
{
    (void)state;
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(&r, "timestamp.json", &b, why));
    skf_json *doc, *sigs;
    fix_ok(skf_json_parse(b.data, b.len, 32, &doc, why));
    sigs = skf_json_get(doc, "signatures");
    fix_ok(skf_json_push(sigs, skf_json_ref(skf_json_at(sigs, 0))));
    char *text;
    size_t n;
    fix_ok(skf_json_text(doc, 0, &text, &n));
    fix_put(&r, "timestamp.json", text, n);
    fix_err(SKF_ERR_SIGNATURE, "signed twice", fix_refresh(&r));
    skf_free(text);
    skf_json_free(doc);
    skf_buf_free(&b);
}

static void test_one_key_two_names(void **state)
{
    (void)state;
    skf_json *pub = skf_key_public(r.k[5]), *doc;
    const char *hex = skf_json_cstr(skf_json_get(skf_json_get(pub, "keyval"), "public"));
    const char *id = skf_key_id(r.k[5]);
    char delegator[2048], upper[65];
    for (int i = 0; i < 65; i++)
        upper[i] = hex[i] >= 'a' ? (char)(hex[i] - 32) : hex[i];
    (void)snprintf(
        delegator, sizeof delegator,
        "{\"signed\":{\"_type\":\"root\",\"roles\":{\"timestamp\":{\"keyids\":[\"%s\",\"other\"],\"threshold\":2}},"
        "\"keys\":{\"%s\":{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{\"public\":\"%s\"}},"
        "\"other\":{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{\"public\":\"%s\"}}}}}",
        id, id, hex, upper);
    skf_json *root;
    fix_ok(skf_json_parse(delegator, strlen(delegator), 32, &root, why));
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(&r, "timestamp.json", &b, why));
    fix_ok(skf_json_parse(b.data, b.len, 32, &doc, why));
    skf_json *sigs = skf_json_get(doc, "signatures"), *second = skf_json_obj();
    fix_ok(skf_json_set(second, "keyid", skf_json_str("other")));
    fix_ok(skf_json_set(second, "sig", skf_json_ref(skf_json_get(skf_json_at(sigs, 0), "sig"))));
    fix_ok(skf_json_push(sigs, second));
    fix_err(SKF_ERR_SIGNATURE, "signed by 1 of the 2", skf_tuf_verify(root, "timestamp", doc, why));
    skf_json_free(root);
    skf_json_free(doc);
    skf_json_free(pub);
    skf_buf_free(&b);
}

/* ---- rollback, freeze, mix and match ---------------------------------------------------------------------------- */
static void test_rollback_timestamp(void **state)
{
    (void)state;
    r.timestamp.version = 5;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    r.timestamp.version = 4;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "timestamp.json", fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "timestamp"), 5);
    r.timestamp.version = 5; /* the same version with another content is not taken, and no error */
    r.snapshot.version = 9;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "snapshot"), 1);
}

static void test_rollback_snapshot(void **state)
{
    (void)state;
    r.snapshot.version = 3;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    r.snapshot.version = 2;
    r.timestamp.version = 2;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "lists snapshot 2", fix_refresh(&r));
    kept(&r, 1, 1, 3, 1);
}

static void test_rollback_targets(void **state)
{
    (void)state;
    r.targets.version = 3;
    r.deltas.version = 3;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    r.timestamp.version = r.snapshot.version = 2;
    r.targets.version = 2;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "targets.json at version 2", fix_refresh(&r));
    kept(&r, 1, 2, 1, 3);
    r.targets.version = 3;
    r.deltas.version = 2;
    r.timestamp.version = r.snapshot.version = 3;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "deltas.json at version 2", fix_refresh(&r));
    r.deltas.version = 3;
    r.no_deltas_meta = true;
    r.timestamp.version = r.snapshot.version = 4;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "no longer lists deltas.json", fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "snapshot"), 1);
}

static void test_expired(void **state)
{
    (void)state;
    struct fix_role *const roles[] = {&r.timestamp, &r.snapshot, &r.targets};
    static const char *const names[] = {"timestamp.json: expired", "2.snapshot.json: expired",
                                        "2.targets.json: expired"};
    fix_ok(fix_refresh(&r));
    fix_bump(&r);
    for (int i = 0; i < 3; i++) {
        long long right = roles[i]->expires;
        roles[i]->expires = FIX_NOW; /* at this very second it is over */
        fix_publish(&r);
        fix_err(SKF_ERR_EXPIRED, names[i], fix_refresh(&r));
        roles[i]->expires = right;
        r.timestamp.version++;
    }
    r.deltas.expires = FIX_NOW - 1;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_EXPIRED, "2.deltas.json", fix_find(&r, "deltas/a-b.skdx"));
    r.root.version = 2;
    r.root.expires = FIX_NOW - 1;
    fix_publish_root(&r);
    fix_err(SKF_ERR_EXPIRED, "root.json", fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 2); /* 5.3.10 comes after 5.3.8 */
    r.root.version = 3;
    r.root.expires = FIX_NOW + FIX_DAY;
    fix_publish_root(&r);
    fix_ok(fix_refresh(&r));
}

/* A freeze: the link gives what was valid once, for ever. */
static void test_freeze(void **state)
{
    (void)state;
    fix_ok(fix_refresh(&r));
    fix_ok(fix_refresh_at(&r, FIX_NOW + FIX_DAY - 1));
    fix_err(SKF_ERR_EXPIRED, "timestamp.json", fix_refresh_at(&r, FIX_NOW + FIX_DAY));
    struct skf_tuf_target t;
    fix_err(SKF_ERR_EXPIRED, "timestamp.json",
            skf_tuf_find(r.t, FIX_NOW + FIX_DAY, "models/m/1.manifest", fix_fetch, &r, &t, why));
}

static void test_mix_and_match(void **state)
{
    (void)state;
    struct skf_buf old = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(&r, "1.targets.json", &old, why));
    fix_bump(&r);
    fix_publish(&r);
    fix_put(&r, "2.targets.json", old.data, old.len); /* yesterday's targets under today's snapshot */
    fix_err(SKF_ERR_DIGEST, "2.targets.json", fix_refresh(&r));
    r.no_hashes = true;
    r.timestamp.version = r.snapshot.version = 3;
    fix_publish(&r);
    fix_put(&r, "2.targets.json", old.data, old.len);
    fix_err(SKF_ERR_ROLLBACK, "is version 1 where 2", fix_refresh(&r));
    fix_publish(&r);
    fix_put(&r, "2.deltas.json", old.data, old.len); /* the top-level targets in place of the delegated ones */
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_SIGNATURE, "2.deltas.json", fix_find(&r, "deltas/a-b.skdx"));
    r.lists_snapshot = 7;
    r.timestamp.version = 4;
    fix_publish(&r);
    fix_err(SKF_ERR_NET, "7.snapshot.json", fix_refresh(&r));
    skf_buf_free(&old);
}

static void test_missing_delta_role(void **state)
{
    (void)state;
    r.no_deltas_meta = true;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    int before = r.asked;
    fix_err(SKF_ERR_FORMAT, "does not list the role deltas", fix_find(&r, "deltas/a-b.skdx"));
    assert_int_equal(r.asked, before);
    r.no_deltas_meta = false;
    r.timestamp.version = r.snapshot.version = 2;
    fix_publish(&r);
    fix_drop(&r, "1.deltas.json");
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_NET, "1.deltas.json", fix_find(&r, "deltas/a-b.skdx"));
    fix_ok(fix_find(&r, "models/m/1.manifest"));
}

/* ---- root ------------------------------------------------------------------------------------------------------- */
static void test_root_chain(void **state)
{
    (void)state;
    r.root.version = 2; /* signed by two of the old three, which are two of the new three as well */
    r.root.keys[0] = 7;
    r.root.signers[0] = 1;
    r.root.signers[1] = 2;
    fix_publish_root(&r);
    r.root.version = 3; /* all others: signed by old and new */
    memcpy(r.root.keys, (int[]){8, 9}, sizeof(int[2]));
    r.root.n_keys = 2;
    memcpy(r.root.signers, (int[]){7, 1, 8, 9}, sizeof(int[4]));
    r.root.n_signers = 4;
    fix_publish_root(&r);
    fix_ok(fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 3);
}

static void test_root_refused(void **state)
{
    (void)state;
    r.root.version = 2;
    memcpy(r.root.keys, (int[]){8, 9}, sizeof(int[2]));
    r.root.n_keys = 2;
    memcpy(r.root.signers, (int[]){8, 9}, sizeof(int[2])); /* by the new keys alone */
    fix_publish_root(&r);
    fix_err(SKF_ERR_SIGNATURE, "by the keys of version 1", fix_refresh(&r));
    memcpy(r.root.signers, (int[]){0, 1}, sizeof(int[2])); /* by the old keys alone */
    fix_publish_root(&r);
    fix_err(SKF_ERR_SIGNATURE, "2.root.json", fix_refresh(&r));
    memcpy(r.root.signers, (int[]){0, 8, 9}, sizeof(int[3])); /* by one of the old two */
    r.root.n_signers = 3;
    fix_publish_root(&r);
    fix_err(SKF_ERR_SIGNATURE, "by the keys of version 1", fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 1);
    assert_int_equal(fix_kept(&r, "timestamp"), 0);
}

static void test_root_skip(void **state)
{
    (void)state;
    r.root.version = 3;
    fix_publish_root(&r);
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(&r, "3.root.json", &b, why));
    fix_put(&r, "2.root.json", b.data, b.len);
    fix_err(SKF_ERR_ROLLBACK, "says it is version 3", fix_refresh(&r));
    skf_buf_clear(&b);
    fix_ok(fix_fetch(&r, "1.root.json", &b, why));
    fix_put(&r, "2.root.json", b.data, b.len); /* the same one again */
    fix_err(SKF_ERR_ROLLBACK, "says it is version 1", fix_refresh(&r));
    fix_drop(&r, "2.root.json"); /* a gap ends the chain: version 3 is out of reach */
    fix_ok(fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 1);
    skf_buf_free(&b);
}

static void test_root_many(void **state)
{
    (void)state;
    for (r.root.version = 2; r.root.version <= 260; r.root.version++)
        fix_publish_root(&r);
    fix_err(SKF_ERR_LIMIT, "more than 256", fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 257); /* what was verified stays, so that the next refresh gets on */
    fix_ok(fix_refresh(&r));
    assert_int_equal(fix_kept(&r, "root"), 260);
}

static void test_first_root(void **state)
{
    (void)state;
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_ok(fix_fetch(&r, "1.root.json", &b, why));
    fix_ok(skf_tuf_init(r.dir, b.data, b.len, why)); /* the same one: fine */
    r.root.version = 2;
    fix_publish_root(&r);
    skf_buf_clear(&b);
    fix_ok(fix_fetch(&r, "2.root.json", &b, why));
    fix_err(SKF_ERR_EXISTS, "another root", skf_tuf_init(r.dir, b.data, b.len, why));
    char dir[64], path[128];
    fix_dir(dir);
    fix_err(SKF_ERR_FORMAT, "root.json", skf_tuf_init(dir, "{}", 2, why));
    r.root.n_signers = 1;
    fix_publish_root(&r);
    skf_buf_clear(&b);
    fix_ok(fix_fetch(&r, "2.root.json", &b, why));
    fix_err(SKF_ERR_SIGNATURE, "signed by 1 of the 2", skf_tuf_init(dir, b.data, b.len, why));
    (void)snprintf(path, sizeof path, "%s/root.json", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    struct skf_tuf *t = NULL;
    fix_err(SKF_ERR_NOT_FOUND, "root.json", skf_tuf_open(dir, &t, why));
    fix_ok(skf_file_write(path, b.data, b.len, 0644, why)); /* by another hand */
    fix_err(SKF_ERR_SIGNATURE, "root.json", skf_tuf_open(dir, &t, why));
    fix_remove(dir);
    skf_buf_free(&b);
}

/* 5.3.11: a thief raised the versions to the sky; with new keys the true ones are taken again. */
static void test_fast_forward(void **state)
{
    (void)state;
    r.timestamp.version = r.snapshot.version = r.targets.version = r.deltas.version = 1000000;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    r.timestamp.version = r.snapshot.version = r.targets.version = r.deltas.version = 2;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "timestamp.json", fix_refresh(&r));
    r.root.version = 2;
    r.timestamp.keys[0] = r.timestamp.signers[0] = 10;
    fix_publish_root(&r);
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    kept(&r, 2, 2, 2, 2);
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
}

/* A new key beside the old one is no rotation: the protection against rollback stays. */
static void test_key_added(void **state)
{
    (void)state;
    r.timestamp.version = 5;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    r.root.version = 2;
    r.timestamp.keys[r.timestamp.n_keys++] = 10;
    fix_publish_root(&r);
    r.timestamp.version = 4;
    fix_publish(&r);
    fix_err(SKF_ERR_ROLLBACK, "timestamp.json", fix_refresh(&r));
}

/* ---- sizes, shapes ---------------------------------------------------------------------------------------------- */
static void test_oversized(void **state)
{
    (void)state;
    size_t n = 5u << 20;
    char *big = skf_alloc(n + 1);
    assert_non_null(big);
    memset(big, ' ', n);
    big[n] = 0;
    fix_put(&r, "2.root.json", big, n);
    fix_err(SKF_ERR_LIMIT, "2.root.json", fix_refresh(&r));
    fix_drop(&r, "2.root.json");
    fix_put(&r, "timestamp.json", big, 20000);
    fix_err(SKF_ERR_LIMIT, "timestamp.json", fix_refresh(&r));
    fix_publish(&r);
    fix_put(&r, "1.snapshot.json", big, 10000); /* longer than the timestamp says */
    fix_err(SKF_ERR_LIMIT, "1.snapshot.json", fix_refresh(&r));
    r.no_hashes = true;
    r.timestamp.version++; /* the one before was verified and is kept */
    fix_publish(&r);
    fix_put(&r, "1.snapshot.json", big, 2000001);
    fix_err(SKF_ERR_LIMIT, "1.snapshot.json", fix_refresh(&r));
    fix_publish(&r);
    fix_put(&r, "1.targets.json", big, n);
    fix_err(SKF_ERR_LIMIT, "1.targets.json", fix_refresh(&r));
    skf_free(big);
}

static void test_deep(void **state)
{
    (void)state;
    char deep[8192];
    memset(deep, '[', sizeof deep);
    fix_put(&r, "timestamp.json", deep, sizeof deep - 1);
    fix_err(SKF_ERR_LIMIT, "timestamp.json", fix_refresh(&r));
    fix_put(&r, "timestamp.json", "{\"signed\":", 10);
    fix_err(SKF_ERR_FORMAT, "timestamp.json", fix_refresh(&r));
    fix_put(&r, "timestamp.json", "", 0);
    fix_err(SKF_ERR_FORMAT, "timestamp.json", fix_refresh(&r));
}

static void test_shapes(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"_type\":\"timestamp\",\"spec_version\":\"2.0\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\",\"meta\":"
        "{\"snapshot.json\":{\"version\":1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\",\"meta\":{"
        "\"snapshot.json\":{\"version\":1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":0,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":\"2\",\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01\",\"meta\":{"
        "\"snapshot.json\":{\"version\":1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":-1}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":1,\"length\":-5}}}",
        "{\"_type\":\"timestamp\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":1,\"hashes\":{}}}}",
        "{\"_type\":\"snapshot\",\"spec_version\":\"1.0.31\",\"version\":2,\"expires\":\"2030-01-01T00:00:00Z\","
        "\"meta\":{\"snapshot.json\":{\"version\":1}}}",
        "[]",
    };
    fix_ok(fix_refresh(&r));
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct fix_text t = fix_sign(&r, i + 1 < SKF_COUNT(bad) ? bad[i] : "{}", (int[]){5}, 1);
        fix_put(&r, "timestamp.json", t.p, t.n);
        skf_free(t.p);
        enum skf_err e = fix_refresh(&r);
        if (e != SKF_ERR_FORMAT && e != SKF_ERR_UNSUPPORTED)
            fail_msg("case %zu: %s: %s", i, skf_err_name(e), why->text);
        assert_int_equal(fix_kept(&r, "timestamp"), 1);
    }
    /* a fraction cannot have been signed: it has no canonical form */
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    fix_publish(&r);
    fix_ok(fix_fetch(&r, "timestamp.json", &b, why));
    char *at = memmem(b.data, b.len, "[1,", 3);
    memcpy(at, "1.5", 3);
    char *end = memmem(b.data, b.len, "1.5{", 4);
    memcpy(end, "1.5 ", 4);
    fix_put(&r, "timestamp.json", b.data, b.len);
    assert_int_not_equal(fix_refresh(&r), SKF_OK);
    skf_buf_free(&b);
}

static void test_inconsistent(void **state)
{
    (void)state;
    r.root.version = 2;
    r.inconsistent = true; /* a repository without versions in its file names */
    fix_publish_root(&r);
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    assert_string_equal(r.last, "deltas.json");
}

/* ---- delegations ------------------------------------------------------------------------------------------------ */
static void test_escape(void **state)
{
    (void)state;
    fix_ok(fix_refresh(&r));
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    /* the deltas role lists it, but nobody lets it speak for models/ */
    fix_err(SKF_ERR_NOT_FOUND, "models/evil", fix_find(&r, "models/evil/1.manifest"));
    r.deltas_json = "{\"deltas/x/y\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}}}";
    fix_bump(&r);
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_NOT_FOUND, "deltas/x/y", fix_find(&r, "deltas/x/y"));
    r.paths = "[\"other/*\"]";
    r.deltas_json = "{\"deltas/a-b.skdx\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}}}";
    fix_bump(&r);
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_NOT_FOUND, "deltas/a-b", fix_find(&r, "deltas/a-b.skdx"));
}

static void test_target_mismatch(void **state)
{
    (void)state;
    struct skf_tuf_target t;
    fix_ok(fix_refresh(&r));
    fix_ok(skf_tuf_find(r.t, FIX_NOW, "models/m/1.manifest", fix_fetch, &r, &t, why));
    fix_ok(skf_tuf_check(&t, "p", "hello", 5, why));
    fix_err(SKF_ERR_DIGEST, "p: ", skf_tuf_check(&t, "p", "hellp", 5, why));
    fix_err(SKF_ERR_DIGEST, "p: has 6 bytes", skf_tuf_check(&t, "p", "hello!", 6, why));
    fix_err(SKF_ERR_DIGEST, "p: has 4 bytes", skf_tuf_check(&t, "p", "hell", 4, why));
    r.targets_json =
        "{\"models/m/1.manifest\":{\"length\":5,\"hashes\":{\"md5\":\"5d41402abc4b2a76b9719d911017c592\"}}}";
    fix_bump(&r);
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_UNSUPPORTED, "no hash", fix_find(&r, "models/m/1.manifest"));
}

/* Delegations in a circle, and more roles than may be asked. */
static void test_many_roles(void **state)
{
    (void)state;
    static char more[65536];
    size_t n = 0;
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(
            more + n, sizeof more - n,
            ",{\"name\":\"r%d\",\"terminating\":false,\"paths\":[\"many/*\"],\"threshold\":1,\"keyids\":[\"%s\"]}", i,
            skf_key_id(r.k[6]));
    r.more_roles = more;
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_err(SKF_ERR_FORMAT, "does not list the role r0", fix_find(&r, "many/x"));
    fix_ok(fix_find(&r, "deltas/a-b.skdx"));
    r.more_roles = ",{\"name\":\"deltas\",\"terminating\":false,\"paths\":[\"x\"],\"threshold\":1,\"keyids\":[]}";
    fix_bump(&r);
    fix_publish(&r);
    fix_err(SKF_ERR_FORMAT, "delegated twice", fix_refresh(&r));
    r.more_roles = ",{\"name\":\"root\",\"terminating\":false,\"paths\":[\"x\"],\"threshold\":1,\"keyids\":[]}";
    r.timestamp.version++;
    fix_publish(&r);
    fix_err(SKF_ERR_FORMAT, "top-level role", fix_refresh(&r));
}

/* A role that two others delegate to with different keys: what one of them vouches for, the other does not. */
static void test_diamond(void **state)
{
    (void)state;
    static char more[2048], a[8192], b[8192], sub[512], when[21];
    static const char form[] =
        "{\"_type\":\"targets\",\"spec_version\":\"1.0.31\",\"version\":1,\"expires\":\"%s\",\"targets\":%s%s}";
    char keys[4096], name[32];
    skf_json *pub[2] = {skf_key_public(r.k[8]), skf_key_public(r.k[9])};
    skf_time_text(FIX_NOW + FIX_DAY, when);
    (void)snprintf(more, sizeof more,
                   ",{\"name\":\"a\",\"terminating\":false,\"paths\":[\"a/*\"],\"threshold\":1,\"keyids\":[\"%s\"]}"
                   ",{\"name\":\"b\",\"terminating\":false,\"paths\":[\"b/*\"],\"threshold\":1,\"keyids\":[\"%s\"]}",
                   skf_key_id(r.k[6]), skf_key_id(r.k[6]));
    struct fix_text t[3];
    for (int i = 0; i < 2; i++) { /* a trusts key 8 for "sub", b key 9 */
        char *out = i ? b : a;
        const char *hex = skf_json_cstr(skf_json_get(skf_json_get(pub[i], "keyval"), "public"));
        (void)snprintf(keys, sizeof keys,
                       ",\"delegations\":{\"keys\":{\"%s\":{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":"
                       "{\"public\":\"%s\"}}},\"roles\":[{\"name\":\"sub\",\"terminating\":false,\"paths\":[\"%c/*\"],"
                       "\"threshold\":1,\"keyids\":[\"%s\"]}]}",
                       skf_key_id(r.k[8 + i]), hex, 'a' + i, skf_key_id(r.k[8 + i]));
        (void)snprintf(out, sizeof a, form, when, "{}", keys);
        t[i] = fix_sign(&r, out, (int[]){6}, 1);
        (void)snprintf(name, sizeof name, "1.%c.json", 'a' + i);
        fix_put(&r, name, t[i].p, t[i].n);
    }
    (void)snprintf(sub, sizeof sub, form, when,
                   "{\"a/x\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}},"
                   "\"b/x\":{\"length\":5,\"hashes\":{\"sha256\":\"" FIX_HELLO "\"}}}",
                   "");
    t[2] = fix_sign(&r, sub, (int[]){8}, 1);
    fix_put(&r, "1.sub.json", t[2].p, t[2].n);
    r.more_roles = more;
    r.more_meta = ",\"a.json\":{\"version\":1},\"b.json\":{\"version\":1},\"sub.json\":{\"version\":1}";
    fix_publish(&r);
    fix_ok(fix_refresh(&r));
    fix_ok(fix_find(&r, "a/x"));
    fix_err(SKF_ERR_SIGNATURE, "1.sub.json",
            fix_find(&r, "b/x")); /* although it is here and was verified, by the other way */
    fix_ok(fix_find(&r, "a/x"));
    fix_err(SKF_ERR_NOT_FOUND, "a/y", fix_find(&r, "a/y"));
    for (int i = 0; i < 3; i++)
        skf_free(t[i].p);
    skf_json_free(pub[0]);
    skf_json_free(pub[1]);
}

/* What is in the folder is verified anew: damage there is found, and repaired by the next refresh. */
static void test_damaged_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"timestamp.json", "snapshot.json", "targets.json"};
    for (int i = 0; i < 3; i++) {
        char path[256];
        fix_ok(fix_refresh(&r));
        (void)snprintf(path, sizeof path, "%s/%s", r.dir, names[i]);
        fix_ok(skf_file_write(path, "{", 1, 0644, why));
        skf_tuf_close(r.t);
        fix_ok(skf_tuf_open(r.dir, &r.t, why));
        struct skf_tuf_target t;
        enum skf_err e = skf_tuf_find(r.t, FIX_NOW, "models/m/1.manifest", NULL, NULL, &t, why);
        assert_int_not_equal(e, SKF_OK);
        fix_ok(fix_refresh(&r));
        fix_ok(fix_find(&r, "models/m/1.manifest"));
        kept(&r, 1, 1, 1, 1);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_sound),
        T(test_offline),
        T(test_wrong_signature),
        T(test_wrong_delta_signature),
        T(test_altered),
        T(test_threshold),
        T(test_same_key_twice),
        T(test_one_key_two_names),
        T(test_rollback_timestamp),
        T(test_rollback_snapshot),
        T(test_rollback_targets),
        T(test_expired),
        T(test_freeze),
        T(test_mix_and_match),
        T(test_missing_delta_role),
        T(test_root_chain),
        T(test_root_refused),
        T(test_root_skip),
        T(test_root_many),
        T(test_first_root),
        T(test_fast_forward),
        T(test_key_added),
        T(test_oversized),
        T(test_deep),
        T(test_shapes),
        T(test_inconsistent),
        T(test_escape),
        T(test_target_mismatch),
        T(test_many_roles),
        T(test_damaged_folder),
        T(test_diamond),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
