/* base/: drafts that are found again and swept, maps that are cut short, work that rests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/util.h"

static char dir[64];
static const char *at(const char *name)
{
    static char paths[4][128];
    static unsigned k;
    char *p = paths[k++ % 4];
    (void)snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static void test_draft_is_found_again(void **state)
{
    struct skf_draft *d, *other;
    bool is_begun;
    char got[4], name[128];
    assert_int_equal(skf_draft_resume(at("f"), "ab12", 100, 0600, &d, &is_begun, NULL), SKF_OK);
    assert_false(is_begun);
    assert_false(skf_draft_read_at(d, 0, got, 4)); /* nothing was written there */
    assert_int_equal(skf_draft_write_at(d, 40, "four", 4, NULL), SKF_OK);
    struct skf_why why = {{0}};
    assert_int_equal(skf_draft_resume(at("f"), "ab12", 100, 0600, &other, &is_begun, &why), SKF_ERR_BUSY);
    assert_non_null(strstr(why.text, "another process"));
    (void)snprintf(name, sizeof name, "%s", skf_draft_name(d));
    skf_draft_leave(d);
    assert_int_equal(access(at("f"), F_OK), -1);
    assert_int_equal(access(name, F_OK), 0);
    assert_int_equal(skf_draft_resume(at("f"), "ab12", 100, 0600, &d, &is_begun, NULL), SKF_OK);
    assert_true(is_begun);
    assert_true(skf_draft_read_at(d, 40, got, 4));
    assert_memory_equal(got, "four", 4);
    assert_int_equal(skf_draft_commit(d, NULL), SKF_OK);
    assert_int_equal(access(name, F_OK), -1);
    struct stat st;
    assert_int_equal(stat(at("f"), &st), 0);
    assert_int_equal(st.st_size, 100);
    assert_int_equal(unlink(at("f")), 0);
}

/* What somebody else put under the name is not gone on with. */
static void test_draft_is_no_trap(void **state)
{
    struct skf_draft *d;
    bool is_begun;
    assert_int_equal(skf_file_write(at("victim"), "precious", 8, 0600, NULL), SKF_OK);
    assert_int_equal(symlink(at("victim"), at("f.ab12.part")), 0);
    assert_int_equal(skf_draft_resume(at("f"), "ab12", 10, 0600, &d, &is_begun, NULL), SKF_OK);
    assert_false(is_begun);
    skf_draft_abort(d);
    assert_int_equal(link(at("victim"), at("f.ab12.part")), 0);
    assert_int_equal(skf_draft_resume(at("f"), "ab12", 10, 0600, &d, &is_begun, NULL), SKF_OK);
    assert_false(is_begun);
    skf_draft_abort(d);
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_file_read(at("victim"), 100, &p, &n, NULL), SKF_OK);
    assert_int_equal(n, 8);
    skf_free(p);
    assert_int_equal(unlink(at("victim")), 0);
}

static void test_sweep_spares_the_living(void **state)
{
    static const char *const others[] = {"f.part", "f.x.part", "fg.1.part", "f.12", "f.12.party"};
    struct skf_draft *mine, *kept;
    bool is_begun;
    for (size_t i = 0; i < SKF_COUNT(others); i++)
        assert_int_equal(skf_file_write(at(others[i]), "x", 1, 0600, NULL), SKF_OK);
    assert_int_equal(skf_file_write(at("f.0123abcd.part"), "x", 1, 0600, NULL), SKF_OK);
    assert_int_equal(skf_file_write(at("f.17.0.part"), "x", 1, 0600, NULL), SKF_OK);
    assert_int_equal(skf_draft_resume(at("f"), "cafe", 4, 0600, &kept, &is_begun, NULL), SKF_OK);
    skf_draft_leave(kept);
    assert_int_equal(skf_draft_open(at("f"), 4, 0600, &mine, NULL), SKF_OK);
    skf_draft_sweep_of(at("f"), at("f.cafe.part"));
    assert_int_equal(access(at("f.0123abcd.part"), F_OK), -1);
    assert_int_equal(access(at("f.17.0.part"), F_OK), -1);
    assert_int_equal(access(at("f.cafe.part"), F_OK), 0);
    assert_int_equal(access(skf_draft_name(mine), F_OK), 0);
    for (size_t i = 0; i < SKF_COUNT(others); i++) {
        assert_int_equal(access(at(others[i]), F_OK), 0);
        assert_int_equal(unlink(at(others[i])), 0);
    }
    skf_draft_abort(mine);
    skf_draft_sweep_of(at("f"), NULL);
    assert_int_equal(access(at("f.cafe.part"), F_OK), -1);
}

/* A sparse file reads as what it is, wherever its data begin and end. */
static void test_holes(void **state)
{
    static const struct { uint64_t at, n; } data[] = {{0, 5}, {3u << 20, 100}, {(5u << 20) + 4000, 200}, {(9u << 20) - 1, 1}};
    struct skf_draft *d;
    struct skf_map m;
    uint8_t bytes[200];
    memset(bytes, 7, sizeof bytes);
    for (unsigned tail = 0; tail < 2; tail++) {
        assert_int_equal(skf_draft_open(at("h"), 0, 0600, &d, NULL), SKF_OK);
        for (size_t i = 0; i < SKF_COUNT(data); i++)
            assert_int_equal(skf_draft_write_at(d, data[i].at, bytes, data[i].n, NULL), SKF_OK);
        assert_int_equal(skf_draft_commit(d, NULL), SKF_OK);
        uint64_t size = (9u << 20) + tail * ((3u << 20) + 77), sevens = 0, others = 0;
        assert_int_equal(truncate(at("h"), (off_t)size), 0);
        assert_int_equal(skf_map_open(at("h"), &m, NULL), SKF_OK);
        assert_int_equal(m.size, size);
        for (uint64_t i = 0; i < size; i++) {
            sevens += m.data[i] == 7;
            others += m.data[i] != 7 && m.data[i] != 0;
        }
        assert_int_equal(sevens, 5 + 100 + 200 + 1);
        assert_int_equal(others, 0);
        for (size_t i = 0; i < SKF_COUNT(data); i++)
            assert_memory_equal(m.data + data[i].at, bytes, data[i].n);
        skf_map_close(&m);
    }
    assert_int_equal(unlink(at("h")), 0);
}

static enum skf_err read_last(void *ctx, struct skf_why *why)
{
    const struct skf_map *m = ctx;
    volatile const uint8_t *p = m->data;
    return p[m->size - 1] ? SKF_ERR_FORMAT : SKF_OK;
}
static enum skf_err read_guarded(void *ctx, struct skf_why *why)
{
    assert_int_equal(skf_map_guard(read_last, ctx, NULL), SKF_ERR_IO);
    return skf_map_guard(read_last, ctx, why); /* again, and from inside another guard */
}

static void test_map_cut_short_is_an_error(void **state)
{
    struct skf_map m;
    struct skf_why why = {{0}};
    uint8_t *zeros = skf_calloc(1, 1 << 20);
    assert_non_null(zeros);
    assert_int_equal(skf_file_write(at("m"), zeros, 1 << 20, 0600, NULL), SKF_OK);
    skf_free(zeros);
    assert_int_equal(skf_map_open(at("m"), &m, NULL), SKF_OK);
    assert_int_equal(skf_map_guard(read_last, &m, NULL), SKF_OK);
    assert_false(is_map_cut(at("m"), &m));
    assert_int_equal(truncate(at("m"), 100), 0);
    assert_true(is_map_cut(at("m"), &m));
    assert_int_equal(skf_map_guard(read_guarded, &m, &why), SKF_ERR_IO);
    assert_non_null(strstr(why.text, "/m: became shorter"));
    assert_int_equal(skf_fail_prefix(&why, SKF_ERR_IO, "%s", at("m")), SKF_ERR_IO);
    assert_null(strstr(strstr(why.text, "/m: ") + 1, "/m: ")); /* a name once */
    struct skf_draft *d; /* a write of what cannot be read is no failure of the file written */
    assert_int_equal(skf_draft_open(at("w"), 0, 0600, &d, NULL), SKF_OK);
    assert_int_equal(skf_draft_write_at(d, 0, m.data + (1 << 19), 1 << 19, &why), SKF_ERR_IO);
    assert_non_null(strstr(why.text, "/m: became shorter"));
    skf_draft_abort(d);
    skf_map_close(&m);
    assert_int_equal(unlink(at("m")), 0);
}

/* Names are told of what lies in a map, of more maps than are remembered the first, and of closed ones nothing. */
/* What a map is done with can be read all the same. */
static void test_done_is_a_hint(void **state)
{
    uint8_t *p = malloc(100000);
    struct skf_map m;
    assert_non_null(p);
    for (size_t i = 0; i < 100000; i++)
        p[i] = (uint8_t)(i * 31 + (i >> 9));
    assert_int_equal(skf_file_write(at("done"), p, 100000, 0600, NULL), SKF_OK);
    assert_int_equal(skf_map_open(at("done"), &m, NULL), SKF_OK);
    for (unsigned n = 1; n < 40; n += 3) {
        assert_memory_equal(m.data, p, 100000);
        for (unsigned i = 0; i < n; i++)
            skf_map_done(&m, i, n);
    }
    assert_memory_equal(m.data, p, 100000);
    skf_map_close(&m);
    skf_map_done(&m, 0, 1);
    (void)unlink(at("done"));
    free(p);
}

static void test_maps_have_names(void **state)
{
    struct skf_map m[70];
    char name[24], is[300];
    size_t known = 0;
    for (size_t i = 0; i < SKF_COUNT(m); i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        assert_int_equal(skf_file_write(at(name), "12345", 5, 0600, NULL), SKF_OK);
        assert_int_equal(skf_map_open(at(name), &m[i], NULL), SKF_OK);
    }
    for (size_t i = 0; i < SKF_COUNT(m); i++) {
        (void)snprintf(name, sizeof name, "n%zu", i);
        if (has_map_name(m[i].data + 4000, is, sizeof is)) { /* the page behind its end is cut off with it */
            assert_string_equal(is, at(name));
            known++;
        }
        assert_int_equal(unlink(at(name)), 0);
    }
    assert_int_equal(known, 64);
    assert_true(has_map_name(m[0].data, is, 4));
    assert_int_equal(strlen(is), 3);
    assert_false(has_map_name(&m, is, sizeof is));
    for (size_t i = 0; i < SKF_COUNT(m); i++) {
        const uint8_t *p = m[i].data;
        skf_map_close(&m[i]);
        assert_false(has_map_name(p, is, sizeof is));
    }
}

static char synced[8][80];
static int note_sync(void *ctx, const char *step, const char *path)
{
    size_t *n = ctx;
    if (strcmp(step, "dirsync") == 0 && *n < SKF_COUNT(synced))
        (void)snprintf(synced[(*n)++], sizeof synced[0], "%.79s", path);
    return 0;
}

/* A folder lasts when the folder that it stands in was synced behind it; one that was there is left alone. */
static void test_folders_last(void **state)
{
    size_t n = 0;
    char deep[100];
    (void)snprintf(deep, sizeof deep, "%s/deep/er", dir);
    skf_file_hook(note_sync, &n);
    assert_int_equal(skf_mkdirs(deep, 0700, NULL), SKF_OK);
    assert_int_equal(n, 2);
    assert_int_equal(skf_mkdirs(deep, 0700, NULL), SKF_OK);
    skf_file_hook(NULL, NULL);
    assert_int_equal(n, 2);
    assert_int_equal(rmdir(deep), 0);
    assert_int_equal(rmdir(at("deep")), 0);
}

static void test_no_name_is_seen(void **state)
{
    struct skf_map m;
    struct skf_draft *d;
    uint8_t *p;
    size_t n;
    struct skf_why why = {{0}};
    assert_int_equal(skf_map_open("", &m, &why), SKF_ERR_NOT_FOUND);
    assert_int_equal(strncmp(why.text, "'': ", 4), 0);
    assert_int_equal(skf_file_read("", 1, &p, &n, &why), SKF_ERR_NOT_FOUND);
    assert_int_equal(strncmp(why.text, "'': ", 4), 0);
    assert_int_equal(skf_draft_open("", 0, 0600, &d, &why), SKF_ERR_ARG);
    assert_int_equal(strncmp(why.text, "'': ", 4), 0);
}

static void test_rest_is_as_long_as_asked(void **state)
{
    struct skf_progress p = {.share = 25};
    uint64_t begun = skf_now_ns();
    skf_sleep_ms(10);
    skf_progress_rest(&p, begun);
    assert_true(skf_now_ns() - begun >= 39000000u);
    atomic_bool stop = true;
    p = (struct skf_progress){.share = 1, .cancel = &stop}; /* nobody waits for a rest that is not needed */
    begun = skf_now_ns();
    skf_sleep_ms(20);
    skf_progress_rest(&p, begun);
    assert_true(skf_now_ns() - begun < 1900000000u);
    skf_progress_rest(NULL, begun);
}

static int setup(void **state)
{
    const char *base = getenv("SKF_TMP");
    (void)snprintf(dir, sizeof dir, "%.40s/base-XXXXXX", base && strlen(base) <= 40 ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **state) { return rmdir(dir); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draft_is_found_again),
        cmocka_unit_test(test_draft_is_no_trap),         cmocka_unit_test(test_sweep_spares_the_living),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_map_cut_short_is_an_error), cmocka_unit_test(test_rest_is_as_long_as_asked),
        cmocka_unit_test(test_maps_have_names),          cmocka_unit_test(test_folders_last),
        cmocka_unit_test(test_no_name_is_seen),          cmocka_unit_test(test_done_is_a_hint),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
