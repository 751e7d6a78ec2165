/* The registry: what is put in is there after it was closed and opened, and rules hold where it is written. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/lib/distributor_fix.h"

static void test_names(void **state)
{
    char longest[140];
    memset(longest, 'a', sizeof longest);
    longest[128] = 0;
    assert_true(is_registry_name(longest));
    longest[128] = 'a';
    longest[129] = 0;
    const char *const good[] = {"a", "SmolLM2-135M_v1.0", "1.0", "..."};
    const char *const bad[] = {"", ".", "..", "a/b", "a b", "a\n", "\xc3\xa9", "a:b", longest};
    for (size_t i = 0; i < SKF_COUNT(good); i++)
        assert_true(is_registry_name(good[i]));
    for (size_t i = 0; i < SKF_COUNT(bad); i++)
        assert_false(is_registry_name(bad[i]));
    assert_false(is_registry_name(NULL));
}

static void test_versions(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct fix_content a, b, c;
    struct skf_reg_version v;
    uint8_t *p;
    size_t n;
    fix_content(&a, "m", "1.0", 1, 3000000);
    fix_content(&b, "m", "1.0", 2, 3000000);
    fix_content(&c, "m.x", "1.0", 3, 10);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_version(r, "m", "1.0", &v, why));
    fix_publish(r, &a, NULL);
    fix_publish(r, &a, NULL); /* the same again is fine */
    fix_err(SKF_ERR_EXISTS, skf_registry_add_version(r, &b.v, b.manifest, b.manifest_len, NULL, "stable", why));
    fix_publish(r, &c, NULL);
    skf_registry_close(r);
    r = fix_registry(dir);
    fix_ok(skf_registry_version(r, "m", "1.0", &v, why));
    assert_memory_equal(v.root, a.cut.root, SKF_DIGEST);
    assert_int_equal(v.size, 3000000);
    assert_int_equal(v.n_chunks, a.cut.n);
    assert_int_equal(v.created, 1700000000);
    fix_ok(skf_registry_manifest(r, "m", "1.0", &p, &n, why));
    assert_int_equal(n, a.manifest_len);
    assert_memory_equal(p, a.manifest, n);
    skf_free(p);
    fix_ok(skf_registry_by_root(r, c.cut.root, &v, why));
    assert_string_equal(v.model, "m.x");
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_by_root(r, b.cut.root, &v, why));
    struct skf_reg_channel ch; /* the refused one moved no channel */
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_channel(r, "m", "stable", &ch, why));
    skf_registry_close(r);
    fix_content_free(&a);
    fix_content_free(&b);
    fix_content_free(&c);
    fix_remove(dir);
}

static enum skf_err count_version(void *ctx, const struct skf_reg_version *v)
{
    ++*(int *)ctx;
    return SKF_OK;
}

/* "m" is a prefix of "m2" in bytes, but not in models. */
static void test_prefix(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    int n = 0;
    fix_version(r, "m", "1", 1, NULL);
    fix_version(r, "m2", "1", 2, NULL);
    fix_version(r, "m", "2", 3, NULL);
    fix_ok(skf_registry_each_version(r, "m", count_version, &n));
    assert_int_equal(n, 2);
    fix_ok(skf_registry_each_version(r, NULL, count_version, &n));
    assert_int_equal(n, 5);
    skf_registry_close(r);
    fix_remove(dir);
}

static void expect_channel(struct skf_registry *r, const char *version, const char *previous,
                           enum skf_rollout_state state)
{
    struct skf_reg_channel c;
    fix_ok(skf_registry_channel(r, "m", "stable", &c, why));
    assert_string_equal(c.version, version);
    assert_string_equal(c.previous, previous);
    assert_int_equal(c.state, state);
}

static void test_rollouts(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct skf_reg_channel a, b;
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_start(r, "m", "stable", "1", NULL, why));
    fix_version(r, "m", "1", 1, "stable");
    fix_version(r, "m", "2", 2, NULL);
    fix_version(r, "m", "3", 3, NULL);
    expect_channel(r, "1", "", SKF_ROLLOUT_RUNNING);
    fix_ok(skf_registry_start(r, "m", "stable", "2", &a, why));
    expect_channel(r, "2", "1", SKF_ROLLOUT_RUNNING);
    fix_err(SKF_ERR_STATE, skf_registry_act(r, "m", "stable", SKF_ACT_RESUME, NULL, why));
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_PAUSE, &b, why));
    assert_int_equal(a.serial, b.serial);
    fix_err(SKF_ERR_STATE, skf_registry_act(r, "m", "stable", SKF_ACT_PAUSE, NULL, why));
    fix_err(SKF_ERR_STATE, skf_registry_act(r, "m", "stable", SKF_ACT_FINISH, NULL, why));
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_RESUME, NULL, why));
    fix_ok(skf_registry_start(r, "m", "stable", "2", &b, why)); /* again: for those where it failed */
    assert_true(b.serial > a.serial);
    expect_channel(r, "2", "1", SKF_ROLLOUT_RUNNING);
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_FINISH, NULL, why));
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_ABORT, &a, why));
    assert_true(a.serial > b.serial);
    assert_int_equal(a.started, b.started);
    expect_channel(r, "2", "1", SKF_ROLLOUT_ABORTED);
    fix_err(SKF_ERR_STATE, skf_registry_act(r, "m", "stable", SKF_ACT_ABORT, NULL, why));
    skf_registry_close(r);
    r = fix_registry(dir);
    expect_channel(r, "2", "1", SKF_ROLLOUT_ABORTED);
    fix_ok(skf_registry_start(r, "m", "stable", "3", NULL, why)); /* the boxes stand at 1, not at what was aborted */
    expect_channel(r, "3", "1", SKF_ROLLOUT_RUNNING);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_act(r, "m", "beta", SKF_ACT_PAUSE, NULL, why));
    fix_err(SKF_ERR_ARG, skf_registry_start(r, "m", "a/b", "3", NULL, why));
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_pins(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct skf_reg_pin pins[] = {{.device = "one", .model = "m", .version = "1", .kind = SKF_PIN_FIXED},
                                 {.device = "two", .model = "m", .version = "9", .kind = SKF_PIN_ROLLBACK}},
                       got;
    bool had;
    fix_version(r, "m", "1", 1, NULL);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_pin(r, pins, 2, why)); /* there is no 9: neither is set */
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_get_pin(r, "one", "m", SKF_PIN_FIXED, &got));
    (void)snprintf(pins[1].version, sizeof pins[1].version, "1");
    fix_ok(skf_registry_pin(r, pins, 2, why));
    skf_registry_close(r);
    r = fix_registry(dir);
    fix_ok(skf_registry_get_pin(r, "one", "m", SKF_PIN_FIXED, &got));
    assert_string_equal(got.version, "1");
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_get_pin(r, "one", "m", SKF_PIN_ROLLBACK, &got));
    fix_ok(skf_registry_get_pin(r, "two", "m", SKF_PIN_ROLLBACK, &got));
    fix_ok(skf_registry_unpin(r, "two", "m", &had, why));
    assert_true(had);
    fix_ok(skf_registry_unpin(r, "two", "m", &had, why));
    assert_false(had);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_get_pin(r, "two", "m", SKF_PIN_ROLLBACK, &got));
    skf_registry_close(r);
    fix_remove(dir);
}

static enum skf_err count_delta(void *ctx, const struct skf_reg_delta *d)
{
    *(uint64_t *)ctx += d->bytes;
    return SKF_OK;
}

static void test_deltas(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct skf_reg_delta d = {.bytes = 7, .index_size = 3}, got;
    uint64_t sum = 0;
    for (uint8_t i = 0; i < 3; i++) {
        memset(d.from, i, SKF_DIGEST);
        memset(d.to, 9, SKF_DIGEST);
        fix_ok(skf_registry_add_delta(r, &d, why));
    }
    memset(d.to, 10, SKF_DIGEST);
    fix_ok(skf_registry_add_delta(r, &d, why));
    memset(d.to, 9, SKF_DIGEST);
    fix_ok(skf_registry_each_delta(r, d.to, count_delta, &sum));
    assert_int_equal(sum, 21);
    fix_ok(skf_registry_delta(r, d.from, d.to, &got, why));
    assert_int_equal(got.index_size, 3);
    fix_err(SKF_ERR_NOT_FOUND, skf_registry_delta(r, d.to, d.from, &got, why));
    skf_registry_close(r);
    fix_remove(dir);
}

static enum skf_err take_device(void *ctx, struct skf_reg_device *d)
{
    struct skf_reg_device *to = ctx;
    if (strcmp(d->name, "box") != 0)
        return SKF_OK;
    *to = *d;
    *d = (struct skf_reg_device){.tags = NULL};
    return SKF_OK;
}

static void test_devices(void **state)
{
    char dir[64], tags[2][SKF_REG_TAG] = {"channel=beta", "site=lab"};
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct skf_reg_held held = {.model = "m", .version = "1", .slot = "active"};
    struct skf_reg_work work = {.model = "m",
                                .target = "2",
                                .id = "a7f",
                                .phase = 8,
                                .chunks_done = 1,
                                .chunks_total = 2,
                                .bytes_received = 3,
                                .swap_pause_us = 4,
                                .error_class = "base",
                                .error = "why",
                                .has_failed = true,
                                .is_full = true,
                                .attempts = 5,
                                .retry_at = 6};
    struct skf_reg_device d = {.name = "box",
                               .machine = "x86_64",
                               .isa = "avx2",
                               .agent_version = "0.1",
                               .last_seen = 11,
                               .cpus = 2,
                               .runtime_level = 1,
                               .memory_bytes = 12,
                               .disk_free = 13,
                               .tags = tags,
                               .n_tags = 2,
                               .held = &held,
                               .n_held = 1,
                               .work = &work,
                               .n_work = 1};
    struct skf_reg_device other = {.name = "another"}, got = {.tags = NULL};
    const struct skf_reg_device *list[] = {&d, &other};
    fix_ok(skf_registry_put_devices(r, list, 2, why));
    skf_registry_close(r);
    r = fix_registry(dir);
    fix_ok(skf_registry_each_device(r, take_device, &got, why));
    assert_string_equal(got.machine, "x86_64");
    assert_int_equal(got.disk_free, 13);
    assert_int_equal(got.n_tags, 2);
    assert_string_equal(got.tags[1], "site=lab");
    assert_memory_equal(got.held, &held, sizeof held);
    assert_int_equal(got.n_work, 1);
    assert_string_equal(got.work[0].id, "a7f");
    assert_string_equal(got.work[0].error, "why");
    assert_true(got.work[0].has_failed && got.work[0].is_full);
    assert_int_equal(got.work[0].retry_at, 6);
    skf_reg_device_clear(&got);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_one_owner(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir)), *other;
    fix_err(SKF_ERR_BUSY, skf_registry_open(dir, &other, why));
    skf_registry_close(r);
    fix_ok(skf_registry_open(dir, &other, why));
    skf_registry_close(other);
    fix_remove(dir);
}

/* A child moves a channel on and on until it is killed: whatever it had acknowledged is there, and the record is whole.
 */
static void test_kill(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    fix_version(r, "m", "1", 1, "stable");
    fix_version(r, "m", "2", 2, NULL);
    skf_registry_close(r);
    for (unsigned round = 0; round < 5; round++) {
        int ends[2];
        uint64_t said = 0, last;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            struct skf_registry *mine;
            struct skf_reg_channel c;
            if (skf_registry_open(dir, &mine, NULL) != SKF_OK)
                _exit(1);
            for (unsigned i = 0;; i++)
                if (skf_registry_start(mine, "m", "stable", i % 2 ? "1" : "2", &c, NULL) != SKF_OK ||
                    write(ends[1], &c.serial, sizeof c.serial) != sizeof c.serial)
                    _exit(1);
        }
        (void)close(ends[1]);
        for (unsigned i = 0; i <= round * 7; i++)
            assert_int_equal(read(ends[0], &said, sizeof said), sizeof said);
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        while (read(ends[0], &last, sizeof last) == sizeof last)
            said = last;
        (void)close(ends[0]);
        struct skf_reg_channel c;
        r = fix_registry(dir);
        fix_ok(skf_registry_channel(r, "m", "stable", &c, why));
        assert_true(c.serial >= said);
        assert_true(strcmp(c.version, c.previous) != 0);
        skf_registry_close(r);
    }
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_versions),  cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_rollouts), cmocka_unit_test(test_pins),      cmocka_unit_test(test_deltas),
        cmocka_unit_test(test_devices),  cmocka_unit_test(test_one_owner), cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
