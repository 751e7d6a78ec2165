/* Versions, slots, journal. */
#include "tests/lib/store_fix.h"

static void test_add_version(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1.0", 9, 100, 0, 0, 5000), *g = fix_version("1.0", 9, 100, 700, 4, 5000);
    fix_err(SKF_ERR_NOT_FOUND, skf_store_add_version(s, &f->v, why));
    fix_put(s, f);
    struct skf_store_version bad = f->v;
    bad.root[3] ^= 1;
    fix_err(SKF_ERR_DIGEST, skf_store_add_version(s, &bad, why));
    bad = f->v;
    bad.size++;
    fix_err(SKF_ERR_DIGEST, skf_store_add_version(s, &bad, why));
    f->chunks[2].length++;
    fix_err(SKF_ERR_DIGEST, skf_store_add_version(s, &f->v, why));
    f->chunks[2].length--;
    const char *names[] = {"", "a/b", "..x y", NULL};
    for (size_t i = 0; i < 4; i++) {
        bad = f->v;
        bad.version = names[i];
        fix_err(SKF_ERR_ARG, skf_store_add_version(s, &bad, why));
    }
    struct skf_view *w;
    fix_err(SKF_ERR_NOT_FOUND, skf_view_open(s, "m", "1.0", &w, why)); /* none of it became visible */
    fix_ok(skf_store_add_version(s, &f->v, why));
    fix_ok(skf_store_add_version(s, &f->v, why)); /* the same again is fine */
    fix_put(s, g);
    fix_err(SKF_ERR_EXISTS, skf_store_add_version(s, &g->v, why));
    fix_check(s, f);
    skf_store_close(s);
    s = fix_open(dir, SKF_STORE_READ);
    fix_check(s, f);
    skf_store_close(s);
    fix_free(f);
    fix_free(g);
    fix_remove(dir);
}

static void test_empty_version(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("0", 0, 0, 0, 0, 1);
    f->v.manifest_len = 0;
    fix_install(s, f);
    struct skf_view *w;
    fix_ok(skf_view_open(s, "m", "0", &w, why));
    struct skf_source src = skf_view_source(w);
    assert_int_equal(src.size, 0);
    uint32_t n = 1;
    assert_null(skf_view_chunk(w, 0, &n));
    skf_view_close(w);
    fix_ok(skf_store_verify(s, why));
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

static enum skf_err collect_names(void *ctx, const struct skf_store_version *v)
{
    char *text = ctx;
    size_t n = strlen(text);
    (void)snprintf(text + n, 128 - n, "%s/%s:%u:%.*s ", v->model, v->version, (unsigned)v->n_chunks,
                   (int)v->manifest_len, (const char *)v->manifest);
    return strcmp(v->version, "stop") == 0 ? SKF_ERR_CANCELLED : SKF_OK;
}

static void test_each_and_del(void **state)
{
    (void)state;
    char dir[64], text[128] = "";
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *a = fix_version("2", 3, 1, 0, 0, 3000), *b = fix_version("1", 4, 1, 0, 0, 3000),
                       *c = fix_version("stop", 3, 1, 0, 0, 3000);
    a->v.model = "b";
    c->v.model = "c";
    fix_install(s, a);
    fix_install(s, b);
    fix_install(s, c);
    assert_int_equal(skf_store_each_version(s, collect_names, text), SKF_ERR_CANCELLED);
    assert_string_equal(text, "b/2:3:manifest c/stop:3:manifest ");
    fix_ok(skf_store_del_version(s, "c", "stop", why));
    fix_err(SKF_ERR_NOT_FOUND, skf_store_del_version(s, "c", "stop", why));
    text[0] = 0;
    assert_int_equal(skf_store_each_version(s, collect_names, text), SKF_OK);
    assert_string_equal(text, "b/2:3:manifest m/1:4:manifest ");
    struct skf_slots slots = {{"1", "", "", ""}};
    fix_ok(skf_store_set_slots(s, "m", &slots, NULL, NULL, 0, why));
    fix_err(SKF_ERR_BUSY, skf_store_del_version(s, "m", "1", why));
    skf_store_close(s);
    fix_free(a);
    fix_free(b);
    fix_free(c);
    fix_remove(dir);
}

static void test_slots_and_journal(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1", 3, 1, 0, 0, 3000);
    fix_install(s, f);
    struct skf_slots in = {{"1", "", "2", ""}}, out;
    fix_ok(skf_store_slots(s, "m", &out, why));
    assert_string_equal(out.version[SKF_SLOT_ACTIVE], "");
    fix_ok(skf_store_set_slots(s, "m", &in, "m", "receiving", 9, why)); /* 2 is still on its way */
    fix_ok(skf_store_slots(s, "m", &out, why));
    assert_memory_equal(&in, &out, sizeof in);
    uint8_t *p;
    size_t n;
    fix_ok(skf_store_journal_get(s, "m", &p, &n, why));
    assert_int_equal(n, 9);
    assert_memory_equal(p, "receiving", 9);
    skf_free(p);

    /* A refused change leaves slots and journal as they were. */
    struct skf_slots bad = {{"2", "", "", ""}};
    fix_err(SKF_ERR_NOT_FOUND, skf_store_set_slots(s, "m", &bad, "m", "x", 1, why));
    static char big[(64 << 10) + 1];
    bad = in;
    bad.version[SKF_SLOT_INCOMING][0] = 0;
    fix_err(SKF_ERR_LIMIT, skf_store_set_slots(s, "m", &bad, "m", big, sizeof big, why));
    fix_err(SKF_ERR_ARG, skf_store_set_slots(s, "m", &bad, "", big, 1, why));
    fix_ok(skf_store_slots(s, "m", &out, why));
    assert_memory_equal(&in, &out, sizeof in);
    fix_ok(skf_store_journal_get(s, "m", &p, &n, why));
    assert_int_equal(n, 9);
    skf_free(p);

    fix_ok(skf_store_journal_put(s, "other", big, sizeof big - 1, why));
    fix_ok(skf_store_set_slots(s, "m", &bad, "m", NULL, 0, why)); /* and the record goes */
    fix_err(SKF_ERR_NOT_FOUND, skf_store_journal_get(s, "m", &p, &n, why));
    fix_ok(skf_store_journal_put(s, "m", NULL, 0, why)); /* deleting what is not there is fine */
    skf_store_close(s);
    s = fix_open(dir, SKF_STORE_READ);
    fix_ok(skf_store_journal_get(s, "other", &p, &n, why));
    assert_int_equal(n, sizeof big - 1);
    skf_free(p);
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_version),
        cmocka_unit_test(test_empty_version),
        cmocka_unit_test(test_each_and_del),
        cmocka_unit_test(test_slots_and_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
