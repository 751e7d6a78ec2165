/*
 * A writer killed at random instants, again and again in one store: after each death the store opens, every version that is
 * visible is whole, slots name versions that exist, and slots and journal agree with each other.
 */
#include "tests/lib/store_fix.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/util.h"

#define ROUNDS 60

/* One update after the other until killed: put in batches, add, swap slots with the journal, delete, collect. */
static void writer(const char *dir, unsigned round)
{
    struct skf_store *s = fix_open(dir, SKF_STORE_WRITE);
    for (unsigned i = 0;; i++) {
        char name[32];
        struct skf_slots slots, next = {{"", "", "", ""}};
        fix_ok(skf_store_slots(s, "m", &slots, why));
        (void)snprintf(name, sizeof name, "r%u.%u", round, i);
        struct fix_version *f = fix_version(name, 24, 1, 100000 * (round + 1) + 1000 * i, 3, 20000);
        next = slots;
        (void)snprintf(next.version[SKF_SLOT_INCOMING], SKF_NAME_MAX, "%s", name);
        fix_ok(skf_store_set_slots(s, "m", &next, "m", name, strlen(name), why));
        struct skf_store_put puts[64];
        fix_puts(f, puts);
        for (unsigned at = 0; at < 24; at += 6)
            fix_ok(skf_store_put(s, puts + at, 6, why));
        fix_ok(skf_store_add_version(s, &f->v, why));
        memcpy(next.version[SKF_SLOT_PREVIOUS], slots.version[SKF_SLOT_ACTIVE], SKF_NAME_MAX);
        (void)snprintf(next.version[SKF_SLOT_ACTIVE], SKF_NAME_MAX, "%s", name);
        next.version[SKF_SLOT_INCOMING][0] = 0;
        fix_ok(skf_store_set_slots(s, "m", &next, "m", NULL, 0, why));
        if (slots.version[SKF_SLOT_PREVIOUS][0] &&
            strcmp(slots.version[SKF_SLOT_PREVIOUS], slots.version[SKF_SLOT_ACTIVE]) != 0)
            fix_ok(skf_store_del_version(s, "m", slots.version[SKF_SLOT_PREVIOUS], why));
        fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
        fix_free(f);
    }
}

/* Versions left behind between the swap of slots and the deletion are what a restart of the agent sweeps up. */
struct stray {
    const struct skf_slots *slots;
    char names[8][SKF_NAME_MAX];
    unsigned n;
};
static enum skf_err find_stray(void *ctx, const struct skf_store_version *v)
{
    struct stray *x = ctx;
    for (int i = 0; i < SKF_SLOT_COUNT; i++)
        if (strcmp(x->slots->version[i], v->version) == 0)
            return SKF_OK;
    if (x->n < 8)
        (void)snprintf(x->names[x->n++], SKF_NAME_MAX, "%s", v->version);
    return SKF_OK;
}

static void check(const char *dir)
{
    struct skf_store *s = fix_open(dir, SKF_STORE_WRITE);
    fix_ok(skf_store_verify(s, why));
    struct skf_slots slots;
    fix_ok(skf_store_slots(s, "m", &slots, why));
    struct skf_view *w;
    for (int i = 0; i <= SKF_SLOT_PREVIOUS; i++)
        if (slots.version[i][0]) {
            fix_ok(skf_view_open(s, "m", slots.version[i], &w, why));
            skf_view_close(w);
        }
    uint8_t *p = NULL;
    size_t n = 0;
    enum skf_err e = skf_store_journal_get(s, "m", &p, &n, NULL);
    if (slots.version[SKF_SLOT_INCOMING][0]) {
        assert_int_equal(e, SKF_OK);
        assert_int_equal(n, strlen(slots.version[SKF_SLOT_INCOMING]));
        assert_memory_equal(p, slots.version[SKF_SLOT_INCOMING], n);
    } else {
        assert_int_equal(e, SKF_ERR_NOT_FOUND);
    }
    skf_free(p);
    struct stray stray = {.slots = &slots};
    fix_ok(skf_store_each_version(s, find_stray, &stray));
    for (unsigned i = 0; i < stray.n; i++)
        fix_ok(skf_store_del_version(s, "m", stray.names[i], why));
    fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
    skf_store_close(s);
}

static void test_kill(void **state)
{
    (void)state;
    char dir[64];
    fix_dir(dir);
    check(dir);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            writer(dir, round);
            _exit(1);
        }
        skf_sleep_ms(5 + (unsigned)(fix_mix(round + 77) % 90));
        int status;
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        check(dir);
    }
    struct skf_store *s = fix_open(dir, SKF_STORE_READ);
    struct skf_slots slots;
    fix_ok(skf_store_slots(s, "m", &slots, why));
    assert_true(slots.version[SKF_SLOT_ACTIVE][0] != 0); /* updates did come through between the deaths */
    skf_store_close(s);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
