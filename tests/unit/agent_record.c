/* Assignments as they come from outside, and the record that survives a restart. */
#include "tests/lib/agent_fix.h"

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static Skiff__V1__Assign good(void)
{
    Skiff__V1__Assign m = SKIFF__V1__ASSIGN__INIT;
    m.id = (char *)(uintptr_t) "17-3";
    m.model = (char *)(uintptr_t) "assistant";
    m.version = (char *)(uintptr_t) "2.0";
    m.manifest = (char *)(uintptr_t) "models/assistant/2.0.manifest";
    m.delta = (char *)(uintptr_t) "deltas/" A64 "-" A64 ".skdx";
    m.channel = (char *)(uintptr_t) "stable";
    return m;
}

static void test_assign(void **state)
{
    (void)state;
    struct skf_assign a;
    Skiff__V1__Assign m = good();
    fix_ok(skf_assign_of(&m, &a, why));
    assert_string_equal(a.version, "2.0");
    m.delta = (char *)(uintptr_t) "";
    fix_ok(skf_assign_of(&m, &a, why));

    const struct {
        size_t field;
        const char *value;
    } bad[] = {
        {offsetof(Skiff__V1__Assign, id), ""},
        {offsetof(Skiff__V1__Assign, id), "a\nb"},
        {offsetof(Skiff__V1__Assign, model), ""},
        {offsetof(Skiff__V1__Assign, model), "../x"},
        {offsetof(Skiff__V1__Assign, version), "a/b"},
        {offsetof(Skiff__V1__Assign, version), "2.1"}, /* not the manifest's */
        {offsetof(Skiff__V1__Assign, channel), "a b"},
        {offsetof(Skiff__V1__Assign, manifest), "models/assistant/1.0.manifest"},
        {offsetof(Skiff__V1__Assign, manifest), "timestamp.json"},
        {offsetof(Skiff__V1__Assign, delta), "deltas/x.skdx"},
        {offsetof(Skiff__V1__Assign, delta), "models/" A64 "-" A64 ".skdx"},
        {offsetof(Skiff__V1__Assign, delta), "deltas/" A64 "-" A64 ".skdy"},
        {offsetof(Skiff__V1__Assign, delta), "deltas/A" A64 "-" A64 ".skdx"},
    };
    for (size_t i = 0; i < SKF_COUNT(bad); i++) {
        struct skf_why said = {{0}};
        m = good();
        memcpy((char *)&m + bad[i].field, &bad[i].value, sizeof bad[i].value);
        if (skf_assign_of(&m, &a, &said) != SKF_ERR_FORMAT || !said.text[0])
            fail_msg("case %zu was taken", i);
    }
}

static struct skf_record sample(void)
{
    struct skf_record r = {.phase = SKIFF__V1__PHASE__PHASE_WATCHING, .attempts = 2, .bytes = 1ull << 40,
                           .swap_pause_us = 77, .err = SKF_ERR_STATE, .error = "why \"so\" \\"};
    Skiff__V1__Assign m = good();
    m.pinned = true;
    fix_ok(skf_assign_of(&m, &r.assign, why));
    return r;
}

static void test_record(void **state)
{
    (void)state;
    struct skf_record r = sample(), got;
    char *text;
    size_t n;
    fix_ok(skf_record_pack(&r, &text, &n));
    fix_ok(skf_record_parse(text, n, &got, why));
    assert_string_equal(got.assign.id, r.assign.id);
    assert_string_equal(got.assign.delta, r.assign.delta);
    assert_string_equal(got.error, r.error);
    assert_int_equal(got.phase, r.phase);
    assert_int_equal(got.attempts, 2);
    assert_int_equal(got.bytes, r.bytes);
    assert_int_equal(got.swap_pause_us, 77);
    assert_int_equal(got.err, SKF_ERR_STATE);
    assert_true(got.assign.is_pinned);
    /* Any prefix is damaged, and said to be. */
    for (size_t i = 0; i < n; i++) {
        struct skf_why said = {{0}};
        assert_int_equal(skf_record_parse(text, i, &got, &said), SKF_ERR_FORMAT);
    }
    /* Any one byte changed: refused, or a record all the same; never a crash, never text that is not closed. */
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            text[i] ^= (char)(1 << bit);
            if (skf_record_parse(text, n, &got, NULL) == SKF_OK)
                assert_true((unsigned)got.phase <= 8 && memchr(got.error, 0, sizeof got.error));
            text[i] ^= (char)(1 << bit);
        }
    skf_free(text);
}

static void test_in_the_journal(void **state)
{
    (void)state;
    struct fix *f = fix_new();
    struct skf_record r = sample(), got;
    char names[SKF_AGENT_MODELS][SKF_NAME_MAX] = {"assistant", "b"}, back[SKF_AGENT_MODELS][SKF_NAME_MAX];
    size_t n;
    fix_ok(skf_record_load(f->store, "assistant", &got, why)); /* none: empty */
    assert_int_equal(got.phase, SKIFF__V1__PHASE__PHASE_IDLE);
    fix_ok(skf_models_load(f->store, back, &n, why));
    assert_int_equal(n, 0);
    struct skf_slots slots = {{"", "", "2.0", ""}}, out;
    fix_ok(skf_record_save_slots(f->store, "assistant", &slots, &r, why));
    fix_ok(skf_record_load(f->store, "assistant", &got, why));
    assert_int_equal(got.phase, r.phase);
    fix_ok(skf_store_slots(f->store, "assistant", &out, why));
    assert_memory_equal(&out, &slots, sizeof out);
    slots = (struct skf_slots){{"9", "", "", ""}}; /* not held: neither changes */
    r.phase = SKIFF__V1__PHASE__PHASE_CONFIRMED;
    struct skf_why said = {{0}};
    assert_int_equal(skf_record_save_slots(f->store, "assistant", &slots, &r, &said), SKF_ERR_NOT_FOUND);
    fix_ok(skf_record_load(f->store, "assistant", &got, why));
    assert_int_equal(got.phase, SKIFF__V1__PHASE__PHASE_WATCHING);
    fix_ok(skf_models_save(f->store, names, 2, why));
    fix_ok(skf_models_load(f->store, back, &n, why));
    assert_int_equal(n, 2);
    assert_string_equal(back[1], "b");
    fix_ok(skf_store_journal_put(f->store, "models", "a\n../b\n", 7, why));
    assert_int_equal(skf_models_load(f->store, back, &n, &said), SKF_ERR_FORMAT);
    fix_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assign),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_in_the_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
