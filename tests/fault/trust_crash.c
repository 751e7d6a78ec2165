/*
 * The update metadata when the process dies, the disk is full, or memory ends, at every step: the repository is always
 * the old or the new one to a client, the client's folder is always one that a refresh can go on from, and nothing
 * rolls back.
 */
#include <errno.h>
#include <sys/wait.h>

#include "tests/lib/trust_fix.h"

enum { ROOT, TARGETS, SNAPSHOT, TIMESTAMP, DELTAS, KEYS };
static struct skf_key *k[KEYS];
static char dir[64], repo[80], md[80];
static struct skf_tuf_online online;

static void copy_over(const char *from, const char *to)
{
    char line[400];
    (void)snprintf(line, sizeof line, "rm -rf '%s' && cp -r '%s' '%s'", to, from, to);
    assert_int_equal(system(line), 0);
}

static enum skf_err fetch(void *ctx, const char *name, struct skf_buf *out, struct skf_why *w)
{
    return skf_tuf_repo_read(ctx, name, out, w);
}

static enum skf_err refresh_from(const char *from, const char *into, const char *path)
{
    struct skf_tuf *t;
    struct skf_tuf_target g;
    SKF_TRY(skf_tuf_open(into, &t, why));
    enum skf_err e = skf_tuf_refresh(t, FIX_NOW, fetch, (void *)(uintptr_t)from, why);
    if (e == SKF_OK && path)
        e = skf_tuf_find(t, FIX_NOW, path, fetch, (void *)(uintptr_t)from, &g, why);
    skf_tuf_close(t);
    return e;
}

static void sign(const char *name, const struct skf_key *key)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    skf_json *j;
    char path[200], *text;
    size_t n;
    fix_ok(skf_tuf_repo_read(repo, name, &b, why));
    fix_ok(skf_json_parse(b.data, b.len, 32, &j, why));
    fix_ok(skf_tuf_sign(j, key, why));
    fix_ok(skf_json_text(j, 0, &text, &n));
    (void)snprintf(path, sizeof path, "%s/%s", repo, name);
    fix_ok(skf_file_write(path, text, n, 0644, why));
    skf_free(text);
    skf_json_free(j);
    skf_buf_free(&b);
}

static int setup(void **state)
{
    (void)state;
    static const char *const roles[KEYS] = {"root", "targets", "snapshot", "timestamp", "deltas"};
    skf_json *pub[KEYS];
    fix_dir(dir);
    (void)snprintf(repo, sizeof repo, "%s/repo", dir);
    (void)snprintf(md, sizeof md, "%s/md", dir);
    for (int i = 0; i < KEYS; i++) {
        fix_ok(skf_key_generate(roles[i], &k[i], why));
        pub[i] = skf_key_public(k[i]);
    }
    struct skf_tuf_keys keys = {.root = pub,
                                .n_root = 1,
                                .targets = pub + TARGETS,
                                .n_targets = 1,
                                .snapshot = pub + SNAPSHOT,
                                .n_snapshot = 1,
                                .timestamp = pub + TIMESTAMP,
                                .n_timestamp = 1,
                                .deltas = pub + DELTAS,
                                .n_deltas = 1};
    fix_ok(skf_tuf_repo_new(repo, &keys, FIX_NOW, why));
    for (int i = 0; i < KEYS; i++)
        skf_json_free(pub[i]);
    sign("1.root.json", k[ROOT]);
    sign("1.targets.json", k[TARGETS]);
    online = (struct skf_tuf_online){.deltas = k[DELTAS], .snapshot = k[SNAPSHOT], .timestamp = k[TIMESTAMP]};
    fix_ok(skf_tuf_repo_update(repo, &online, NULL, 0, NULL, 0, FIX_NOW, why));
    struct skf_buf b = SKF_BUF_INIT(SKF_TUF_META_MAX);
    fix_ok(skf_tuf_repo_read(repo, "root.json", &b, why));
    fix_ok(skf_tuf_init(md, b.data, b.len, why));
    skf_buf_free(&b);
    fix_ok(refresh_from(repo, md, NULL));
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

/* ---- the fault -------------------------------------------------------------------------------------------------- */
static struct {
    int step, at, sys; /* sys 0: the process ends there */
} fault;

static int hook(void *ctx, const char *step, const char *path)
{
    (void)ctx, (void)step, (void)path;
    if (++fault.step != fault.at)
        return 0;
    if (!fault.sys)
        _exit(42);
    return fault.sys;
}

static void arm(int at, int sys)
{
    fault.step = 0;
    fault.at = at;
    fault.sys = sys;
    skf_file_hook(hook, NULL);
}

/* A new release and a new delta, into the repository at `to`. */
static enum skf_err publish(const char *to)
{
    skf_json *doc;
    char *text = NULL;
    size_t n = 0;
    struct skf_tuf_target t = {.length = 5};
    skf_sha256("hello", 5, t.sha256);
    struct skf_tuf_delta d = {"deltas/a-b.skdx", t};
    SKF_TRY(skf_tuf_repo_targets(to, &doc, why));
    enum skf_err e = skf_tuf_add_target(doc, "models/m/1.manifest", &t, FIX_NOW, why);
    if (e == SKF_OK)
        e = skf_tuf_sign(doc, k[TARGETS], why);
    if (e == SKF_OK)
        e = skf_json_text(doc, 0, &text, &n);
    if (e == SKF_OK)
        e = skf_tuf_repo_update(to, &online, text, n, &d, 1, FIX_NOW, why);
    skf_free(text);
    skf_json_free(doc);
    return e;
}

/* True when f ended by itself with success; false when the fault struck. */
static bool survives(enum skf_err (*f)(const char *arg), const char *arg)
{
    pid_t p = fork();
    assert_true(p >= 0);
    if (p == 0)
        _exit(f(arg) == SKF_OK ? 0 : 1);
    int status;
    assert_int_equal(waitpid(p, &status, 0), p);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 42 || WEXITSTATUS(status) == 1);
    return WEXITSTATUS(status) == 0;
}

static void check_whole(const char *to)
{
    char old[100], fresh[100];
    (void)snprintf(old, sizeof old, "%s/md-old", dir);
    (void)snprintf(fresh, sizeof fresh, "%s/md-new", dir);
    copy_over(md, old);
    copy_over(md, fresh);
    static const char *const later[] = {"timestamp", "snapshot", "targets", "deltas"};
    for (size_t i = 0; i < SKF_COUNT(later); i++) {
        char path[200];
        (void)snprintf(path, sizeof path, "%s/%s.json", fresh, later[i]);
        (void)unlink(path);
    }
    fix_ok(refresh_from(to, old, NULL));
    fix_ok(refresh_from(to, fresh, NULL));
    enum skf_err a = refresh_from(to, fresh, "deltas/a-b.skdx"), b = refresh_from(to, fresh, "models/m/1.manifest");
    assert_true(a == b && (a == SKF_OK || a == SKF_ERR_NOT_FOUND)); /* both or neither */
    fix_ok(publish(to));                                            /* the next run goes through, whatever lies about */
    fix_ok(refresh_from(to, old, "deltas/a-b.skdx"));
    fix_ok(refresh_from(to, fresh, "models/m/1.manifest"));
}

/* `every`: how often the whole check is made; the first and the last time it always is. */
static int update_under(int sys, int every)
{
    char copy[100];
    (void)snprintf(copy, sizeof copy, "%s/copy", dir);
    int at = 1;
    for (bool done = false; !done; at++) {
        copy_over(repo, copy);
        arm(at, sys);
        done = survives(publish, copy);
        skf_file_hook(NULL, NULL);
        if (at % every == 0 || done || at == 1)
            check_whole(copy);
    }
    return at - 2;
}

static void test_update_killed(void **state)
{
    (void)state;
    int steps = update_under(0, 1);
    print_message("# killed at each of %d steps\n", steps);
    assert_true(steps >= 16); /* four files, four steps each */
}

static void test_update_disk_full(void **state)
{
    (void)state;
    assert_true(update_under(ENOSPC, 4) >= 16);
}

/* ---- the client ------------------------------------------------------------------------------------------------- */
static enum skf_err go(const char *into)
{
    return refresh_from(repo, into, "deltas/a-b.skdx");
}

static void client_under(int sys)
{
    char into[100];
    (void)snprintf(into, sizeof into, "%s/into", dir);
    fix_ok(publish(repo));
    int at = 1;
    for (bool done = false; !done; at++) {
        copy_over(md, into);
        arm(at, sys);
        done = survives(go, into);
        skf_file_hook(NULL, NULL);
        fix_ok(go(into));
    }
    assert_true(at - 2 >= 16);
}
static void test_client_killed(void **state)
{
    (void)state;
    client_under(0);
}
static void test_client_disk_full(void **state)
{
    (void)state;
    client_under(EIO);
}

/* Memory ends at the n-th allocation, for every n, on both sides. */
static void test_no_memory(void **state)
{
    (void)state;
    char into[100], copy[100];
    (void)snprintf(into, sizeof into, "%s/into", dir);
    (void)snprintf(copy, sizeof copy, "%s/copy", dir);
    copy_over(md, into);
    copy_over(repo, copy);
    unsigned long n = 0;
    for (enum skf_err e = SKF_ERR_NOMEM; e != SKF_OK;) {
        skf_alloc_fail_at(++n);
        e = publish(copy);
        skf_alloc_fail_at(0);
        if (e != SKF_OK && (e != SKF_ERR_NOMEM || !why->text[0]))
            fail_msg("allocation %lu of an update: %s: %s", n, skf_err_name(e), why->text);
        assert_true(n < 100000);
        if (n % 64 == 0 || e == SKF_OK)
            fix_ok(refresh_from(copy, into, NULL));
    }
    fix_ok(refresh_from(copy, into, "deltas/a-b.skdx"));
    fix_ok(publish(copy));
    for (n = 1;; n += n < 40 ? 1 : 7) {
        char again[100];
        (void)snprintf(again, sizeof again, "%s/again", dir);
        copy_over(md, again);
        skf_alloc_fail_at(n);
        enum skf_err e = refresh_from(copy, again, "deltas/a-b.skdx");
        bool struck = skf_alloc_count() >= n;
        skf_alloc_fail_at(0);
        if (e != SKF_OK && e != SKF_ERR_NOMEM)
            fail_msg("allocation %lu of a refresh: %s: %s", n, skf_err_name(e), why->text);
        fix_ok(refresh_from(copy, again, "deltas/a-b.skdx"));
        if (!struck)
            break;
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_update_killed), T(test_update_disk_full), T(test_client_killed),
                                       T(test_client_disk_full), T(test_no_memory)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
