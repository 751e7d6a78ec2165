/* Which version a box should run: pin over rollback over channel, and when it is told. */
#include "tests/lib/distributor_fix.h"

struct box {
    struct skf_reg_device d;
    struct skf_reg_held held[4];
    struct skf_reg_work work[1];
    char tags[4][SKF_REG_TAG];
};

static void box(struct box *b, const char *active, unsigned root)
{
    *b = (struct box){.d = {.name = "box"}};
    b->d.held = b->held;
    b->d.work = b->work;
    b->d.tags = b->tags;
    if (active) {
        (void)snprintf(b->held[0].model, SKF_REG_NAME, "m");
        (void)snprintf(b->held[0].version, SKF_REG_NAME, "%s", active);
        (void)snprintf(b->held[0].slot, sizeof b->held[0].slot, "active");
        memset(b->held[0].root, (int)root, SKF_DIGEST);
        b->d.n_held = 1;
    }
}

static void expect(struct skf_registry *r, const struct box *b, const char *version, bool is_pinned)
{
    struct skf_target t;
    fix_ok(skf_assign_target(r, &b->d, "m", &t, why));
    assert_string_equal(t.version, version);
    assert_int_equal(t.is_pinned, is_pinned);
}

static void pin(struct skf_registry *r, const char *version, enum skf_pin_kind kind)
{
    struct skf_reg_pin p = {.device = "box", .model = "m", .kind = kind};
    (void)snprintf(p.version, sizeof p.version, "%s", version);
    fix_ok(skf_registry_pin(r, &p, 1, why));
}

static void tag(struct box *b, const char *text)
{
    (void)snprintf(b->tags[b->d.n_tags++], SKF_REG_TAG, "%s", text);
}

static void test_order(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box b;
    bool had;
    box(&b, "1", 1);
    expect(r, &b, "", false);
    fix_version(r, "m", "1", 1, "stable");
    fix_version(r, "m", "2", 2, "stable");
    fix_version(r, "m", "3", 3, NULL);
    expect(r, &b, "2", false);
    pin(r, "1", SKF_PIN_ROLLBACK);
    expect(r, &b, "1", true);
    pin(r, "3", SKF_PIN_FIXED);
    expect(r, &b, "3", true);
    fix_ok(skf_registry_unpin(r, "box", "m", &had, why));
    expect(r, &b, "2", false);
    pin(r, "1", SKF_PIN_ROLLBACK);
    fix_ok(skf_registry_start(r, "m", "stable", "3", NULL, why)); /* a newer rollout ends a rollback */
    expect(r, &b, "3", false);
    pin(r, "1", SKF_PIN_FIXED);
    fix_ok(skf_registry_start(r, "m", "stable", "2", NULL, why)); /* and no pin */
    expect(r, &b, "1", true);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_states(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box told, untold;
    struct skf_reg_channel c;
    fix_version(r, "m", "1", 1, "stable");
    fix_version(r, "m", "2", 2, NULL);
    fix_ok(skf_registry_start(r, "m", "stable", "2", &c, why));
    box(&told, "1", 1);
    box(&untold, "1", 1);
    told.d.n_work = 1;
    (void)snprintf(told.work[0].model, SKF_REG_NAME, "m");
    (void)snprintf(told.work[0].id, SKF_REG_ID, "a%llu", (unsigned long long)c.serial);
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_PAUSE, NULL, why));
    expect(r, &told, "2", false);
    expect(r, &untold, "", false);
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_RESUME, NULL, why));
    expect(r, &untold, "2", false);
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_FINISH, NULL, why));
    expect(r, &untold, "2", false);
    fix_ok(skf_registry_act(r, "m", "stable", SKF_ACT_ABORT, NULL, why));
    expect(r, &told, "1", false);
    expect(r, &untold, "1", false);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_tags(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box b;
    fix_version(r, "m", "1", 1, "stable");
    fix_version(r, "m", "2", 2, "beta");
    box(&b, NULL, 0);
    tag(&b, "channel=b/d"); /* no name: not a channel */
    expect(r, &b, "1", false);
    tag(&b, "channel=beta");
    expect(r, &b, "2", false);
    tag(&b, "model=other");
    expect(r, &b, "", false);
    tag(&b, "model=m");
    expect(r, &b, "2", false);
    skf_registry_close(r);
    fix_remove(dir);
}

static struct skf_plan plan(struct skf_registry *r, const struct box *b, const char *sent, int64_t now,
                            enum skf_step step)
{
    struct skf_plan p;
    fix_ok(skf_assign_plan(r, &b->d, "m", sent, now, &p, why));
    assert_int_equal(p.step, step);
    return p;
}

static void add_delta(struct skf_registry *r, const uint8_t *from, const uint8_t *to)
{
    struct skf_reg_delta d = {.bytes = 5, .index_size = 4};
    memcpy(d.from, from, SKF_DIGEST);
    memcpy(d.to, to, SKF_DIGEST);
    fix_ok(skf_registry_add_delta(r, &d, why));
}

static void test_plan(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box b;
    uint8_t one[SKF_DIGEST], two[SKF_DIGEST], empty[SKF_DIGEST];
    memset(one, 1, sizeof one);
    memset(two, 2, sizeof two);
    skf_empty_root(empty);
    fix_version(r, "m", "1", 1, NULL);
    box(&b, "1", 1);
    (void)plan(r, &b, "", 0, SKF_STEP_NONE);
    fix_version(r, "m", "2", 2, "stable");
    struct skf_plan p = plan(r, &b, "", 0, SKF_STEP_BUILD);
    assert_memory_equal(p.from, one, SKF_DIGEST);
    assert_memory_equal(p.to, two, SKF_DIGEST);
    add_delta(r, one, two);
    p = plan(r, &b, "", 0, SKF_STEP_SEND);
    assert_false(p.has_content);
    (void)plan(r, &b, p.id, 0, SKF_STEP_NONE); /* said already */
    box(&b, "1", 77);                          /* a content that nobody published here */
    p = plan(r, &b, "", 0, SKF_STEP_BUILD);
    assert_memory_equal(p.from, empty, SKF_DIGEST);
    box(&b, NULL, 0);
    p = plan(r, &b, "", 0, SKF_STEP_BUILD);
    assert_memory_equal(p.from, empty, SKF_DIGEST);
    box(&b, "2", 2); /* runs it already: told all the same, so that it says so */
    p = plan(r, &b, "", 0, SKF_STEP_SEND);
    assert_true(p.has_content);
    box(&b, "1", 1);
    b.held[1] = b.held[0];
    memset(b.held[1].root, 2, SKF_DIGEST);
    (void)snprintf(b.held[1].slot, sizeof b.held[1].slot, "incoming"); /* half of it */
    b.d.n_held = 2;
    assert_false(plan(r, &b, "", 0, SKF_STEP_SEND).has_content);
    (void)snprintf(b.held[1].slot, sizeof b.held[1].slot, "previous");
    assert_true(plan(r, &b, "", 0, SKF_STEP_SEND).has_content);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_failures(void **state)
{
    char dir[64], id[SKF_REG_ID];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box b;
    uint8_t one[SKF_DIGEST], two[SKF_DIGEST], empty[SKF_DIGEST];
    memset(one, 1, sizeof one);
    memset(two, 2, sizeof two);
    skf_empty_root(empty);
    fix_version(r, "m", "1", 1, NULL);
    fix_version(r, "m", "2", 2, "stable");
    add_delta(r, one, two);
    box(&b, "1", 1);
    struct skf_plan p = plan(r, &b, "", 0, SKF_STEP_SEND);
    b.d.n_work = 1;
    (void)snprintf(b.work[0].model, SKF_REG_NAME, "m");
    (void)snprintf(b.work[0].id, SKF_REG_ID, "%s", p.id);
    (void)snprintf(id, sizeof id, "%s", p.id);
    b.work[0].has_failed = true;
    (void)plan(r, &b, id, 1000, SKF_STEP_NONE); /* for good */
    b.work[0].retry_at = 1010;
    (void)plan(r, &b, id, 1009, SKF_STEP_NONE);
    (void)plan(r, &b, id, 1010, SKF_STEP_SEND);
    b.work[0].retry_at = 0;
    b.work[0].is_full = true; /* once more from nothing, as a decision of its own to the box */
    p = plan(r, &b, id, 1000, SKF_STEP_BUILD);
    assert_memory_equal(p.from, empty, SKF_DIGEST);
    assert_string_not_equal(p.id, id);
    (void)snprintf(b.work[0].id, SKF_REG_ID, "%s", p.id);
    (void)plan(r, &b, p.id, 1000, SKF_STEP_NONE);
    struct skf_reg_channel c;
    fix_ok(skf_registry_start(r, "m", "stable", "2", &c, why)); /* an operator's new try begins from what the box has */
    p = plan(r, &b, b.work[0].id, 1000, SKF_STEP_SEND);
    assert_memory_equal(p.from, one, SKF_DIGEST);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_runtime_level(void **state)
{
    char dir[64];
    struct skf_registry *r = fix_registry(fix_dir(dir));
    struct box b;
    struct skf_reg_version v = {.model = "m", .version = "5", .runtime_level = 3, .size = 1, .n_chunks = 1};
    fix_ok(skf_registry_add_version(r, &v, "x", 1, NULL, "stable", why));
    box(&b, NULL, 0);
    b.d.runtime_level = 2;
    (void)plan(r, &b, "", 0, SKF_STEP_WAIT);
    b.d.runtime_level = 3;
    (void)plan(r, &b, "", 0, SKF_STEP_BUILD);
    skf_registry_close(r);
    fix_remove(dir);
}

static void test_paths(void **state)
{
    char path[SKF_TARGET_PATH];
    uint8_t a[SKF_DIGEST] = {1}, b[SKF_DIGEST] = {2};
    skf_manifest_path("m", "1.0", path);
    assert_string_equal(path, "models/m/1.0.manifest");
    skf_delta_path(a, b, path);
    assert_int_equal(strlen(path), 7 + 64 + 1 + 64 + 5);
    assert_memory_equal(path, "deltas/0100", 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order), cmocka_unit_test(test_states),   cmocka_unit_test(test_tags),
        cmocka_unit_test(test_plan),  cmocka_unit_test(test_failures), cmocka_unit_test(test_runtime_level),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
