/* The signer and the builder on a real repository: what they list is what a TUF client finds, and a crash between steps
 * costs nothing. */
#include <limits.h>
#include <pthread.h>

#include "delta/delta.h"
#include "distributor/builder.h"
#include "tests/lib/distributor_fix.h"

#define PATH 300

struct world {
    char dir[64], tuf[PATH], keys[PATH], deltas[PATH];
    struct skf_key *root, *targets;
    struct skf_registry *registry;
    struct skf_chunks *chunks;
    struct skf_signer *signer;
    struct skf_builder *builder;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned over, told;
    enum skf_err last;
};

static void sign_file(const char *path, const struct skf_key *k)
{
    uint8_t *p;
    size_t n;
    char *text;
    skf_json *doc;
    fix_ok(skf_file_read(path, 1 << 20, &p, &n, why));
    fix_ok(skf_json_parse(p, n, 16, &doc, why));
    fix_ok(skf_tuf_sign(doc, k, why));
    fix_ok(skf_json_text(doc, 0, &text, &n));
    fix_ok(skf_file_write(path, text, n, 0600, why));
    skf_free(text);
    skf_free(p);
    skf_json_free(doc);
}

static void sub(char out[PATH], const struct world *w, const char *name)
{
    (void)snprintf(out, PATH, "%s/%s", w->dir, name);
}

static void make_repository(struct world *w)
{
    static const char *const roles[] = {"root", "targets", "snapshot", "timestamp", "deltas"};
    struct skf_key *k[5];
    skf_json *pub[5];
    char path[PATH + 40];
    sub(w->tuf, w, "tuf");
    sub(w->keys, w, "keys");
    fix_ok(skf_mkdirs(w->tuf, 0700, why));
    fix_ok(skf_mkdirs(w->keys, 0700, why));
    for (size_t i = 0; i < 5; i++) {
        fix_ok(skf_key_generate(roles[i], &k[i], why));
        pub[i] = skf_key_public(k[i]);
        (void)snprintf(path, sizeof path, "%s/%s.key", w->keys, roles[i]);
        if (i >= 2)
            fix_ok(skf_key_save(k[i], path, why));
    }
    struct skf_tuf_keys keys = {&pub[0], &pub[1], &pub[2], &pub[3], &pub[4], 1, 1, 1, 1, 1, 1, 1};
    fix_ok(skf_tuf_repo_new(w->tuf, &keys, skf_now_unix(), why));
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/1.%s.json", w->tuf, roles[i]);
        sign_file(path, k[i]);
    }
    for (size_t i = 0; i < 5; i++)
        skf_json_free(pub[i]);
    w->root = k[0];
    w->targets = k[1];
    for (size_t i = 2; i < 5; i++)
        skf_key_free(k[i]);
}

static void on_event(void *ctx, const struct skf_build_event *ev)
{
    struct world *w = ctx;
    (void)pthread_mutex_lock(&w->lock);
    w->told++;
    if (ev->is_over) {
        w->over++;
        w->last = ev->err;
    }
    (void)pthread_cond_signal(&w->changed);
    (void)pthread_mutex_unlock(&w->lock);
}

static void open_builder(struct world *w)
{
    struct skf_builder_opts o = {w->registry, w->chunks, w->signer, w->deltas, 1, on_event, w};
    fix_ok(skf_builder_open(&o, &w->builder, why));
}

static void world(struct world *w)
{
    char a[PATH], b[PATH];
    *w = (struct world){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    fix_dir(w->dir);
    make_repository(w);
    sub(a, w, "registry");
    w->registry = fix_registry(a);
    sub(a, w, "chunks");
    sub(b, w, "content");
    sub(w->deltas, w, "deltas");
    fix_ok(skf_chunks_open(a, b, &w->chunks, why));
    fix_ok(skf_signer_open(w->tuf, w->keys, &w->signer, why));
    open_builder(w);
}

static void world_end(struct world *w)
{
    skf_builder_close(w->builder);
    skf_signer_close(w->signer);
    skf_chunks_close(w->chunks);
    skf_registry_close(w->registry);
    skf_key_free(w->root);
    skf_key_free(w->targets);
    fix_remove(w->dir);
}

static enum skf_err build(struct world *w, const uint8_t *from, const uint8_t *to)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    (void)pthread_mutex_lock(&w->lock);
    unsigned want = w->over + 1;
    (void)pthread_mutex_unlock(&w->lock);
    fix_ok(skf_builder_want(w->builder, from, to));
    (void)pthread_mutex_lock(&w->lock);
    while (w->over < want)
        if (pthread_cond_timedwait(&w->changed, &w->lock, &until) != 0)
            fail_msg("no end of a build");
    (void)pthread_mutex_unlock(&w->lock);
    return w->last;
}

/* A targets document with the manifest in it, signed with k. */
static char *targets_with(struct world *w, const struct fix_content *f, const struct skf_key *k, size_t *n)
{
    char path[SKF_TARGET_PATH], *text;
    struct skf_tuf_target t = {.length = f->manifest_len};
    skf_json *doc;
    skf_sha256(f->manifest, f->manifest_len, t.sha256);
    skf_manifest_path(f->v.model, f->v.version, path);
    fix_ok(skf_tuf_repo_targets(w->tuf, &doc, why));
    fix_ok(skf_tuf_add_target(doc, path, &t, skf_now_unix(), why));
    fix_ok(skf_tuf_sign(doc, k, why));
    fix_ok(skf_json_text(doc, 0, &text, n));
    skf_json_free(doc);
    return text;
}

static void publish(struct world *w, const struct fix_content *f)
{
    size_t n;
    char *text = targets_with(w, f, w->targets, &n);
    fix_ok(skf_signer_targets(w->signer, text, n, why));
    skf_free(text);
    for (uint64_t i = 0; i < f->cut.n; i++)
        fix_ok(skf_chunks_put(w->chunks, f->cut.chunks[i].digest, f->bytes + f->cut.chunks[i].offset,
                              f->cut.chunks[i].length, why));
    fix_publish(w->registry, f, "stable");
}

static enum skf_err fetch(void *ctx, const char *name, struct skf_buf *out, struct skf_why *why)
{
    struct world *w = ctx;
    return skf_signer_read(w->signer, name, out, why);
}

/* What a box would find: the path listed, and the .skd's head and index as they are listed. */
static void expect_listed(struct world *w, const uint8_t *from, const uint8_t *to)
{
    char path[SKF_TARGET_PATH], file[PATH_MAX], dir[PATH], first[PATH + 40];
    struct skf_tuf *t;
    struct skf_tuf_target target;
    struct skf_reg_delta d;
    uint8_t *p;
    size_t n;
    (void)snprintf(first, sizeof first, "%s/1.root.json", w->tuf);
    sub(dir, w, "client");
    fix_remove(dir);
    fix_ok(skf_mkdirs(dir, 0700, why));
    fix_ok(skf_file_read(first, 1 << 20, &p, &n, why));
    fix_ok(skf_tuf_init(dir, p, n, why));
    skf_free(p);
    fix_ok(skf_tuf_open(dir, &t, why));
    fix_ok(skf_tuf_refresh(t, skf_now_unix(), fetch, w, why));
    skf_delta_path(from, to, path);
    fix_ok(skf_tuf_find(t, skf_now_unix(), path, fetch, w, &target, why));
    fix_ok(skf_registry_delta(w->registry, from, to, &d, why));
    (void)snprintf(first, sizeof first, "%s/", w->deltas);
    fix_ok(skf_delta_file(first, from, to, file, sizeof file));
    fix_ok(skf_file_read(file, 64 << 20, &p, &n, why));
    assert_int_equal(n, d.bytes);
    assert_int_equal(target.length, d.index_size);
    fix_ok(skf_tuf_check(&target, path, p, d.index_size, why));
    skf_free(p);
    skf_tuf_close(t);
}

static long long timestamp_version(struct world *w)
{
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    skf_json *doc;
    fix_ok(skf_signer_read(w->signer, "timestamp.json", &b, why));
    fix_ok(skf_json_parse(b.data, b.len, 16, &doc, why));
    long long v = skf_json_i64(skf_json_get(skf_json_get(doc, "signed"), "version"), -1);
    skf_json_free(doc);
    skf_buf_free(&b);
    return v;
}

/* What is near its end is signed anew, and nothing else is touched. */
static void test_renewal(void **state)
{
    struct world w;
    int64_t now = skf_now_unix();
    world(&w);
    long long first = timestamp_version(&w);
    fix_ok(skf_signer_renew(w.signer, why));
    assert_int_equal(timestamp_version(&w), first);
    skf_clock_set(now + 2 * 86400);
    fix_ok(skf_signer_renew(w.signer, why));
    assert_true(timestamp_version(&w) > first);
    skf_clock_set(0);
    world_end(&w);
}

static void test_signer(void **state)
{
    struct world w;
    struct fix_content f, g;
    char path[SKF_TARGET_PATH];
    size_t n;
    world(&w);
    fix_content(&f, "m", "1", 1, 2000000);
    fix_content(&g, "m", "1", 2, 1000);
    skf_manifest_path("m", "1", path);
    char *text = targets_with(&w, &f, w.targets, &n);
    fix_ok(skf_signer_check(w.signer, text, n, path, f.manifest, f.manifest_len, why));
    fix_err(SKF_ERR_DIGEST, skf_signer_check(w.signer, text, n, path, g.manifest, g.manifest_len, why));
    fix_err(SKF_ERR_DIGEST,
            skf_signer_check(w.signer, text, n, "models/m/2.manifest", f.manifest, f.manifest_len, why));
    fix_err(SKF_ERR_FORMAT, skf_signer_check(w.signer, text, n - 1, path, f.manifest, f.manifest_len, why));
    char *forged = targets_with(&w, &f, w.root, &n);
    fix_err(SKF_ERR_SIGNATURE, skf_signer_check(w.signer, forged, n, path, f.manifest, f.manifest_len, why));
    fix_err(SKF_ERR_SIGNATURE, skf_signer_targets(w.signer, forged, n, why));
    publish(&w, &f);
    n = strlen(text); /* the same once more: it is not the next version any longer */
    fix_err(SKF_ERR_STATE, skf_signer_check(w.signer, text, n, path, f.manifest, f.manifest_len, why));
    fix_ok(skf_signer_renew(w.signer, why));
    skf_free(text);
    skf_free(forged);
    fix_content_free(&f);
    fix_content_free(&g);
    world_end(&w);
}

static void test_build(void **state)
{
    struct world w;
    struct fix_content f, g;
    uint8_t empty[SKF_DIGEST];
    char file[PATH_MAX], dir[PATH + 8], old[PATH], neu[PATH];
    struct skf_delta_opts opts = {.jobs = 1};
    struct skf_delta_stats stats;
    struct stat before, after;
    world(&w);
    fix_content(&f, "m", "1", 1, 2000000);
    fix_content(&g, "m", "2", 3, 1500000);
    skf_empty_root(empty);
    publish(&w, &f);
    publish(&w, &g);
    fix_ok(build(&w, empty, f.cut.root));
    fix_ok(build(&w, f.cut.root, g.cut.root));
    expect_listed(&w, empty, f.cut.root);
    expect_listed(&w, f.cut.root, g.cut.root);
    /* The file makes the one of the other. */
    sub(old, &w, "old");
    sub(neu, &w, "new");
    (void)snprintf(dir, sizeof dir, "%s/", w.deltas);
    fix_ok(skf_delta_file(dir, f.cut.root, g.cut.root, file, sizeof file));
    fix_ok(skf_file_write(old, f.bytes, f.n, 0600, why));
    fix_ok(skf_delta_apply(old, file, neu, &opts, &stats, why));
    assert_memory_equal(stats.result_root, g.cut.root, SKF_DIGEST);
    /* As if the process had ended between the file and the registry: found again, not built again. */
    assert_int_equal(stat(file, &before), 0);
    skf_builder_close(w.builder);
    skf_registry_close(w.registry);
    sub(old, &w, "registry-2");
    w.registry = fix_registry(old);
    fix_publish(w.registry, &f, NULL);
    fix_publish(w.registry, &g, NULL);
    open_builder(&w);
    fix_ok(build(&w, f.cut.root, g.cut.root));
    assert_int_equal(stat(file, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    expect_listed(&w, f.cut.root, g.cut.root);
    fix_content_free(&f);
    fix_content_free(&g);
    world_end(&w);
}

static void expect_said(struct world *w, const struct skf_reg_adapter *a, const char *said)
{
    struct skf_reg_adapter got;
    fix_ok(skf_registry_adapter(w->registry, a->from, a->to, &got, why));
    assert_string_equal(got.said, said);
    skf_reg_adapter_clear(&got);
}

/* An adapter that cannot be used is no reason for a delta not to be there; what became of it is written down. */
static void test_adapter(void **state)
{
    struct world w;
    struct fix_content f, g;
    uint8_t digest[SKF_DIGEST];
    char second[PATH];
    struct skf_reg_adapter a = {.size = 4, .digests = digest, .n = 1};
    world(&w);
    fix_content(&f, "m", "1", 1, 2000000);
    fix_content(&g, "m", "2", 3, 1500000);
    skf_sha256("junk", 4, digest);
    memcpy(a.from, f.cut.root, SKF_DIGEST);
    memcpy(a.to, g.cut.root, SKF_DIGEST);
    publish(&w, &f);
    publish(&w, &g);
    fix_ok(skf_chunks_put(w.chunks, digest, "junk", 4, why));
    fix_ok(skf_registry_add_version(w.registry, &g.v, g.manifest, g.manifest_len, &a, NULL, why));
    fix_ok(build(&w, f.cut.root, g.cut.root));
    expect_listed(&w, f.cut.root, g.cut.root);
    expect_said(&w, &a, "the base: not a GGUF file; only those can take an adapter");
    /* As if the process had ended when the file was there and nothing was written down. */
    skf_builder_close(w.builder);
    skf_registry_close(w.registry);
    sub(second, &w, "registry-2");
    w.registry = fix_registry(second);
    fix_publish(w.registry, &f, NULL);
    fix_ok(skf_registry_add_version(w.registry, &g.v, g.manifest, g.manifest_len, &a, NULL, why));
    expect_said(&w, &a, "");
    open_builder(&w);
    fix_ok(build(&w, f.cut.root, g.cut.root));
    expect_said(&w, &a, "not used");
    fix_content_free(&f);
    fix_content_free(&g);
    world_end(&w);
}

static void test_damaged(void **state)
{
    struct world w;
    struct fix_content f;
    uint8_t empty[SKF_DIGEST], *p;
    size_t n;
    char file[PATH_MAX], dir[PATH + 8];
    world(&w);
    fix_content(&f, "m", "1", 1, 1500000);
    skf_empty_root(empty);
    publish(&w, &f);
    (void)snprintf(dir, sizeof dir, "%s/", w.deltas);
    fix_ok(skf_delta_file(dir, empty, f.cut.root, file, sizeof file));
    fix_ok(skf_file_write(file, "not a delta", 11, 0600, why)); /* lies where the delta belongs */
    fix_ok(build(&w, empty, f.cut.root));
    expect_listed(&w, empty, f.cut.root);
    fix_ok(skf_file_read(file, 64 << 20, &p, &n, why));
    assert_true(n > 1000000);
    skf_free(p);
    fix_content_free(&f);
    world_end(&w);
}

static void test_failure(void **state)
{
    struct world w;
    struct fix_content f;
    uint8_t empty[SKF_DIGEST], nobody[SKF_DIGEST] = {7};
    struct skf_reg_delta d;
    world(&w);
    fix_content(&f, "m", "1", 1, 1500000);
    skf_empty_root(empty);
    fix_publish(w.registry, &f, NULL); /* its chunks were never sent */
    assert_int_equal(build(&w, empty, f.cut.root), SKF_ERR_NOT_FOUND);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_delta(w.registry, empty, f.cut.root, &d, why));
    assert_int_equal(skf_builder_want(w.builder, empty, f.cut.root), SKF_ERR_STATE); /* not over and over */
    assert_int_equal(build(&w, empty, nobody), SKF_ERR_NOT_FOUND);
    assert_int_equal(skf_builder_pending(w.builder, nobody), 0);
    fix_content_free(&f);
    world_end(&w);
}

/* Ending does not wait for what is still to be built. */
static void test_close(void **state)
{
    struct world w;
    struct fix_content f, g;
    uint8_t empty[SKF_DIGEST];
    world(&w);
    fix_content(&f, "m", "1", 1, 6000000);
    fix_content(&g, "m", "2", 2, 6000000);
    skf_empty_root(empty);
    publish(&w, &f);
    publish(&w, &g);
    fix_ok(skf_builder_want(w.builder, empty, f.cut.root));
    fix_ok(skf_builder_want(w.builder, empty, g.cut.root));
    fix_ok(skf_builder_want(w.builder, empty, g.cut.root));
    assert_true(skf_builder_pending(w.builder, g.cut.root) <= 1);
    fix_content_free(&f);
    fix_content_free(&g);
    world_end(&w);
    assert_true(w.over <= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signer),  cmocka_unit_test(test_renewal), cmocka_unit_test(test_build), cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_failure), cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
