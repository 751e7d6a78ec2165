/* Reading in place, collection under readers, readers that die. */
#include "tests/lib/store_fix.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

static void test_view_source(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1", 10, 100, 0, 0, 20000);
    fix_install(s, f);
    struct skf_view *w;
    fix_ok(skf_view_open(s, "m", "1", &w, why));
    struct skf_source src = skf_view_source(w);
    assert_int_equal(src.size, f->v.size);
    uint8_t *flat = malloc(src.size), *got = malloc(src.size);
    uint64_t at = 0;
    for (unsigned i = 0; i < 10; i++) {
        memcpy(flat + at, f->bytes[i], f->chunks[i].length);
        at += f->chunks[i].length;
    }
    fix_ok(skf_source_read(&src, 0, got, src.size));
    assert_memory_equal(got, flat, src.size);
    for (uint64_t off = 0; off < src.size; off += 997) {
        const uint8_t *p;
        uint64_t n = src.size - off < 30000 ? src.size - off : 30000;
        fix_ok(skf_source_view(&src, off, n, got, &p));
        assert_memory_equal(p, flat + off, n);
    }
    const uint8_t *p;
    uint64_t n;
    assert_int_equal(src.span(src.ctx, src.size, &p, &n), SKF_ERR_FORMAT);
    assert_int_not_equal(skf_source_read(&src, src.size - 1, got, 2), SKF_OK);
    free(flat);
    free(got);
    skf_view_close(w);
    skf_view_close(NULL);
    fix_err(SKF_ERR_NOT_FOUND, skf_view_open(s, "m", "2", &w, why));
    skf_store_close(s);
    fix_free(f);
    fix_remove(dir);
}

static void set_active(struct skf_store *s, const char *active, const char *previous)
{
    struct skf_slots in = {{"", "", "", ""}};
    (void)snprintf(in.version[SKF_SLOT_ACTIVE], SKF_NAME_MAX, "%s", active);
    (void)snprintf(in.version[SKF_SLOT_PREVIOUS], SKF_NAME_MAX, "%s", previous);
    fix_ok(skf_store_set_slots(s, "m", &in, NULL, NULL, 0, why));
}

/* A running worker's view, renewed after each collection, over many updates: its bytes stay where they are, and the file
 * does not grow for ever. */
static void test_updates_under_a_view(void **state)
{
    (void)state;
    char dir[64], name[2][16] = {"0", ""};
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *first = fix_version("0", 30, 1, 0, 0, 30000);
    fix_install(s, first);
    set_active(s, "0", "");
    struct skf_view *w;
    fix_ok(skf_view_open(s, "m", "0", &w, why));
    uint64_t settled = 0;
    for (unsigned round = 1; round <= 20; round++) {
        char *neu = name[round % 2], *old = name[1 - round % 2];
        (void)snprintf(neu, 16, "%u", round);
        struct fix_version *f = fix_version(neu, 30, 1, 1000 * round, 2, 30000);
        fix_install(s, f);
        set_active(s, neu, "0");
        if (round > 1)
            fix_ok(skf_store_del_version(s, "m", old, why));
        uint64_t freed;
        fix_ok(skf_store_collect(s, NULL, 0, &freed, why));
        assert_true(round == 1 ? freed == 0 : freed > 0);
        fix_ok(skf_view_renew(w, why)); /* checks that no chunk moved */
        fix_check_view(w, first);
        fix_check(s, f);
        fix_free(f);
        struct skf_store_stats st;
        fix_ok(skf_store_stats(s, &st, why));
        assert_int_equal(st.versions, 2);
        if (round == 5)
            settled = st.file_bytes;
        if (round > 5)
            assert_true(st.file_bytes <= settled + settled / 10);
    }
    fix_ok(skf_store_verify(s, why));
    skf_view_close(w);
    skf_store_close(s);
    fix_free(first);
    fix_remove(dir);
}

static void test_collect_keeps(void **state)
{
    (void)state;
    char dir[64];
    struct skf_store *s = fix_open(fix_dir(dir), SKF_STORE_WRITE);
    struct fix_version *f = fix_version("1", 6, 1, 0, 0, 9000), *g = fix_version("2", 6, 1, 50, 2, 9000),
                       *h = fix_version("3", 6, 900, 0, 0, 9000);
    fix_install(s, f);
    fix_put(s, g);
    fix_put(s, h);
    uint64_t freed;
    fix_ok(skf_store_collect(s, g->chunks, g->v.n_chunks, &freed, why));
    assert_int_equal(freed, h->v.size);
    for (unsigned i = 0; i < 6; i++) {
        assert_true(has_store_chunk(s, f->chunks[i].digest));
        assert_true(has_store_chunk(s, g->chunks[i].digest));
        assert_false(has_store_chunk(s, h->chunks[i].digest));
    }
    fix_ok(skf_store_add_version(s, &g->v, why));
    fix_ok(skf_store_del_version(s, "m", "1", why));
    fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
    fix_check(s, g);
    skf_store_close(s);
    fix_free(f);
    fix_free(g);
    fix_free(h);
    fix_remove(dir);
}

/* A reader in another process sees its version whatever the writer removes meanwhile. */
static void reader_process(const char *dir, const struct fix_version *f, int ready, int go)
{
    struct skf_store *s = fix_open(dir, SKF_STORE_READ);
    struct skf_view *w;
    char c = 0;
    fix_ok(skf_view_open(s, "m", f->name, &w, why));
    assert_int_equal(write(ready, "r", 1), 1);
    while (read(go, &c, 1) == 1) {
        fix_check_view(w, f);
        assert_int_equal(write(ready, "k", 1), 1);
    }
    skf_view_close(w);
    skf_store_close(s);
}

static void test_reader_process(void **state)
{
    (void)state;
    char dir[64], c;
    int ready[2], go[2];
    fix_dir(dir);
    struct fix_version *f = fix_version("1", 20, 1, 0, 0, 30000);
    assert_int_equal(pipe(ready) | pipe(go), 0);
    struct skf_store *s = fix_open(dir, SKF_STORE_WRITE);
    fix_install(s, f);
    skf_store_close(s); /* never across a fork */
    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]);
        reader_process(dir, f, ready[1], go[0]);
        _exit(0);
    }
    s = fix_open(dir, SKF_STORE_WRITE);
    assert_int_equal(read(ready[0], &c, 1), 1);
    fix_ok(skf_store_del_version(s, "m", "1", why));
    fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
    uint64_t before = 0;
    struct skf_store_stats st;
    for (unsigned i = 2; i < 6; i++) {
        char name[16], last[16];
        (void)snprintf(name, sizeof name, "%u", i);
        (void)snprintf(last, sizeof last, "%u", i - 1);
        struct fix_version *g = fix_version(name, 20, 1, 1000 * i, 1, 30000);
        fix_install(s, g);
        if (i > 2)
            fix_ok(skf_store_del_version(s, "m", last, why));
        fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
        fix_free(g);
        assert_int_equal(write(go[1], "g", 1), 1);
        assert_int_equal(read(ready[0], &c, 1), 1);
    }
    fix_ok(skf_store_stats(s, &st, why));
    before = st.file_bytes;
    /* Killed with its transaction open: it must not hold its pages for ever. */
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* not by a failed check of its own */
    for (unsigned i = 6; i < 14; i++) {
        char name[16], last[16];
        (void)snprintf(name, sizeof name, "%u", i);
        (void)snprintf(last, sizeof last, "%u", i - 1);
        fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
        struct fix_version *g = fix_version(name, 20, 1, 1000 * i, 1, 30000);
        fix_install(s, g);
        fix_ok(skf_store_del_version(s, "m", last, why));
        fix_free(g);
    }
    fix_ok(skf_store_stats(s, &st, why));
    assert_true(st.file_bytes <= before + before / 20);
    fix_ok(skf_store_verify(s, why));
    skf_store_close(s);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
    fix_free(f);
    fix_remove(dir);
}

/* Whoever looks sees one instant, also while versions come and go. */
static void verifying_process(const char *dir, int go)
{
    struct skf_store *s = fix_open(dir, SKF_STORE_READ);
    char c;
    struct pollfd p = {go, POLLIN, 0};
    do {
        fix_ok(skf_store_verify(s, why));
    } while (poll(&p, 1, 0) == 0);
    assert_int_equal(read(go, &c, 1), 1);
    skf_store_close(s);
}

static void test_verify_while_writing(void **state)
{
    (void)state;
    char dir[64];
    int go[2], status;
    skf_store_close(fix_open(fix_dir(dir), SKF_STORE_WRITE));
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        verifying_process(dir, go[0]);
        _exit(0);
    }
    struct skf_store *s = fix_open(dir, SKF_STORE_WRITE);
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", i);
        struct fix_version *f = fix_version(name, 12, 1000 * i, 0, 0, 4000);
        fix_install(s, f);
        fix_ok(skf_store_del_version(s, "m", name, why));
        fix_ok(skf_store_collect(s, NULL, 0, NULL, why));
        fix_free(f);
    }
    assert_int_equal(write(go[1], "g", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    skf_store_close(s);
    close(go[0]);
    close(go[1]);
    fix_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_view_source),
        cmocka_unit_test(test_updates_under_a_view),
        cmocka_unit_test(test_collect_keeps),
        cmocka_unit_test(test_reader_process),
        cmocka_unit_test(test_verify_while_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
