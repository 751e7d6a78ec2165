/* Kept layouts: whole or not there, whatever is cut or changed; collected with their versions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "store/layout.h"

#define FORMAT 7u
static const struct skf_layout_part parts[] = {{3, 2, 64}, {0, 8, 3u << 20}, {9, 8, 128}};
static const uint8_t root[SKF_DIGEST] = {1, 2, 3}, other[SKF_DIGEST] = {9};
static char dir[64], path[256];

static int setup(void **state)
{
    char hex[SKF_HEX];
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/skf-layout-XXXXXX");
    assert_non_null(mkdtemp(dir));
    skf_hex(root, SKF_DIGEST, hex);
    (void)snprintf(path, sizeof path, "%s/layout/%s.skl", dir, hex);
    return 0;
}
static unsigned files(void)
{
    char folder[128];
    unsigned n = 0;
    (void)snprintf(folder, sizeof folder, "%s/layout", dir);
    DIR *d = opendir(folder);
    for (const struct dirent *f; d && (f = readdir(d));)
        n += f->d_name[0] != '.';
    if (d)
        (void)closedir(d);
    return n;
}
static int teardown(void **state)
{
    char folder[128];
    (void)state;
    (void)skf_layout_sweep(dir, NULL, 0, true);
    (void)snprintf(folder, sizeof folder, "%s/layout", dir);
    (void)rmdir(folder);
    return rmdir(dir);
}

static uint8_t byte_of(uint32_t part, uint64_t at) { return (uint8_t)(part * 31 + at * 7 + at / 4099); }

static enum skf_err make(const uint8_t *of, struct skf_why *why)
{
    struct skf_layout_maker *m;
    static uint8_t b[1 << 18];
    SKF_TRY(skf_layout_begin(dir, of, FORMAT, parts, SKF_COUNT(parts), 0, &m, why));
    for (uint32_t i = 0; i < SKF_COUNT(parts); i++)
        for (uint64_t at = 0; at < parts[i].bytes; at += sizeof b) {
            size_t n = (size_t)SKF_MIN(parts[i].bytes - at, (uint64_t)sizeof b);
            for (size_t k = 0; k < n; k++)
                b[k] = byte_of(i, at + k);
            enum skf_err e = skf_layout_write(m, i, at, b, n, why);
            if (e != SKF_OK) {
                skf_layout_abort(m);
                return e;
            }
        }
    return skf_layout_commit(m, 2, why);
}

static void is_right(void)
{
    struct skf_layout *l;
    struct skf_why why = {{0}};
    assert_int_equal(skf_layout_open(dir, root, FORMAT, &l, &why), SKF_OK);
    assert_int_equal(skf_layout_verify(l, 2, &why), SKF_OK);
    assert_int_equal(skf_layout_count(l), SKF_COUNT(parts));
    for (uint32_t i = 0; i < SKF_COUNT(parts); i++) {
        const uint8_t *p = skf_layout_part(l, parts[i].number, parts[i].kind, parts[i].bytes);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (uint64_t k = 0; k < parts[i].bytes; k++)
            if (p[k] != byte_of(i, k))
                fail_msg("part %u, byte %llu", i, (unsigned long long)k);
    }
    assert_null(skf_layout_part(l, 3, 8, 64));
    assert_null(skf_layout_part(l, 3, 2, 128));
    assert_null(skf_layout_part(l, 4, 2, 64));
    skf_layout_close(l);
}

static void test_made_and_read(void **state)
{
    struct skf_layout *l;
    struct skf_why why = {{0}};
    (void)state;
    assert_int_equal(skf_layout_open(dir, root, FORMAT, &l, &why), SKF_ERR_NOT_FOUND);
    assert_int_equal(skf_layout_total(dir), 0);
    assert_int_equal(make(root, &why), SKF_OK);
    is_right();
    assert_int_equal(make(root, &why), SKF_OK); /* again: takes the place of the first */
    is_right();
    assert_int_equal(files(), 1);
    assert_true(skf_layout_total(dir) >= (3u << 20));
    assert_int_equal(skf_layout_open(dir, root, FORMAT + 1, &l, &why), SKF_ERR_UNSUPPORTED);
    assert_int_equal(skf_layout_open(dir, other, FORMAT, &l, &why), SKF_ERR_NOT_FOUND);
}

static void test_collected(void **state)
{
    struct skf_layout *l;
    struct skf_why why = {{0}};
    (void)state;
    assert_int_equal(make(root, &why), SKF_OK);
    assert_int_equal(make(other, &why), SKF_OK);
    assert_int_equal(files(), 2);
    assert_int_equal(skf_layout_open(dir, other, FORMAT, &l, &why), SKF_OK);
    assert_true(skf_layout_sweep(dir, root, 1, true) >= (3u << 20));
    assert_int_equal(files(), 1);
    assert_int_equal(skf_layout_verify(l, 1, &why), SKF_OK); /* who has it open keeps it */
    skf_layout_close(l);
    is_right();
}

static void flip(off_t at, int whence)
{
    uint8_t b = 0;
    int fd = open(path, O_RDWR);
    off_t off = lseek(fd, at, whence);
    assert_int_equal(pread(fd, &b, 1, off), 1);
    b ^= 0x40;
    assert_int_equal(pwrite(fd, &b, 1, off), 1);
    (void)close(fd);
}

static bool is_refused(void)
{
    struct skf_layout *l = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_layout_open(dir, root, FORMAT, &l, &why);
    if (e == SKF_OK)
        e = skf_layout_verify(l, 2, &why);
    skf_layout_close(l);
    return e != SKF_OK && why.text[0];
}

static void test_damaged(void **state)
{
    struct skf_why why = {{0}};
    (void)state;
    for (off_t at = 0; at < 128 + 48; at++) { /* every byte of the head and its table */
        if (at % 24 == 0)
            assert_int_equal(make(root, &why), SKF_OK);
        flip(at, SEEK_SET);
        if (!is_refused())
            fail_msg("byte %d of the head may be wrong", (int)at);
        flip(at, SEEK_SET);
    }
    is_right();
    const off_t ends[] = {-1, -128, -129, -(3 << 20), -(3 << 20) - 128 - 64};
    for (size_t i = 0; i < SKF_COUNT(ends); i++) {
        flip(ends[i], SEEK_END);
        assert_true(is_refused());
        flip(ends[i], SEEK_END);
    }
    is_right();
    const off_t cuts[] = {(3 << 20), 4096, 150, 128, 60, 3, 0};
    for (size_t i = 0; i < SKF_COUNT(cuts); i++) {
        assert_int_equal(truncate(path, cuts[i]), 0);
        assert_true(is_refused());
    }
    assert_int_equal(make(root, &why), SKF_OK);
    is_right();
}

static int die_at, step;
static int die(void *ctx, const char *what, const char *file)
{
    (void)ctx;
    (void)what;
    (void)file;
    if (step++ == die_at)
        _exit(9);
    return 0;
}

/* Killed before each lasting step in turn: none, or a whole one; what is left is swept. */
static void test_killed(void **state)
{
    (void)state;
    for (die_at = 0;; die_at++) {
        pid_t pid = fork();
        if (pid == 0) {
            step = 0;
            skf_file_hook(die, NULL);
            _exit(make(root, NULL) == SKF_OK ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (access(path, F_OK) == 0) {
            is_right();
            (void)unlink(path);
        }
        (void)skf_layout_sweep(dir, root, 1, true);
        assert_int_equal(files(), 0);
        if (status == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), 9);
    }
    assert_true(die_at > 5);
}

static int fail_at;
static int fail_step(void *ctx, const char *what, const char *file)
{
    (void)ctx;
    (void)what;
    (void)file;
    return step++ == fail_at ? ENOSPC : 0;
}

static void test_disk_full(void **state)
{
    struct skf_layout_maker *m;
    struct skf_why why = {{0}};
    (void)state;
    assert_int_equal(skf_layout_begin(dir, root, FORMAT, parts, SKF_COUNT(parts), UINT64_MAX / 2, &m, &why), SKF_ERR_FULL);
    for (fail_at = 0;; fail_at++) {
        step = 0;
        skf_file_hook(fail_step, NULL);
        enum skf_err e = make(root, &why);
        skf_file_hook(NULL, NULL);
        if (e == SKF_OK)
            break;
        assert_true(files() == 0 || !is_refused()); /* a folder that cannot be synced leaves the whole file */
        (void)skf_layout_sweep(dir, NULL, 0, true);
    }
    is_right();
}

static void test_bad_parts(void **state)
{
    struct skf_layout_maker *m;
    struct skf_why why = {{0}};
    const struct skf_layout_part odd = {0, 0, 65}, none = {0, 0, 0}, one = {0, 0, 64};
    (void)state;
    assert_int_equal(skf_layout_begin(dir, root, FORMAT, &odd, 1, 0, &m, &why), SKF_ERR_ARG);
    assert_int_equal(skf_layout_begin(dir, root, FORMAT, &none, 1, 0, &m, &why), SKF_ERR_ARG);
    assert_int_equal(skf_layout_begin(dir, root, FORMAT, &one, 1, 0, &m, &why), SKF_OK);
    assert_int_equal(skf_layout_write(m, 0, 1, dir, 64, &why), SKF_ERR_INTERNAL);
    assert_int_equal(skf_layout_write(m, 1, 0, dir, 1, &why), SKF_ERR_INTERNAL);
    skf_layout_abort(m);
    assert_int_equal(files(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_and_read, setup, teardown), cmocka_unit_test_setup_teardown(test_collected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),       cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),     cmocka_unit_test_setup_teardown(test_bad_parts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
